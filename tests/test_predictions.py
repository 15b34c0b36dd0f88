"""What is predicted at each checkpoint: scores by definition and by scikit-learn, histories by their definition over all checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from sklearn.metrics import auc, average_precision_score, log_loss, precision_recall_fscore_support, roc_auc_score

from netlapse.analysis.predictions import KINDS, class_scores, extended, predictions
from netlapse.analysis.predictions.scores import GRID
from netlapse.recording import Recording
from netlapse.types import Answers, Findings, Float32, Float64, Int64, ProbeSet, Snapshot


class Said:
    """The pass that analyses share, as far as it is asked here."""

    def __init__(self, logits: Float32) -> None:
        self.logits, self.seconds = logits, 0.0


def snapshot(logits: Float32 | None, probe: ProbeSet, step: int) -> Snapshot:
    answers = Answers()
    answers.statistics = Said(logits)  # type: ignore[arg-type, assignment]
    return Snapshot(None, probe, step, answers=answers)  # type: ignore[arg-type]  # no network is asked


def probe(n: int = 60, k: int = 4, shape: tuple[int, ...] = (6, 5, 1), seed: int = 0) -> ProbeSet:
    draw = np.random.default_rng(seed)
    return ProbeSet(draw.random((n, *shape), np.float32), np.sort(draw.integers(0, k, n)), [f"class {one}" for one in range(k)])


def logits_of(shown: ProbeSet, seed: int, k: int = 4) -> Float32:
    """Better than chance, with ties."""
    draw = np.random.default_rng(seed)
    return np.round(draw.normal(size=(len(shown), k)) + 1.2 * (shown.labels[:, None] == np.arange(k)), 1).astype(np.float32)


def over_time(shown: ProbeSet, logits: Sequence[Float32], **options: int) -> list[Findings]:
    found: list[Findings] = []
    for step, one in enumerate(logits):
        found.append(predictions(snapshot(one, shown, step), found[-1] if found else None, **options))
    return found


def test_scores_are_those_of_scikit_learn() -> None:
    shown = probe()
    logits = logits_of(shown, 1)
    found = predictions(snapshot(logits, shown, 0), None).arrays
    exact = np.exp(logits.astype(np.float64))
    exact /= exact.sum(axis=1, keepdims=True)
    said = exact.argmax(axis=1)
    for name, expected in zip(("precision", "recall", "f1", "support"), precision_recall_fscore_support(shown.labels, said)):
        np.testing.assert_allclose(found[name], expected, rtol=1e-12)
    for one in range(4):
        np.testing.assert_allclose(found["auc"][one], roc_auc_score(shown.labels == one, exact[:, one]), rtol=1e-12)
        np.testing.assert_allclose(found["average_precision"][one], average_precision_score(shown.labels == one, exact[:, one]), rtol=1e-12)
    np.testing.assert_allclose(np.asarray(found["loss"], np.float64).mean(), log_loss(shown.labels, exact), rtol=1e-9)
    np.testing.assert_array_equal(found["confusion"], confusion_of(shown.labels, said, 4))


def confusion_of(labels: Int64, said: Int64, k: int) -> Int64:
    return np.array([[((labels == a) & (said == b)).sum() for b in range(k)] for a in range(k)])


def area_by_pairs(of_it: np.ndarray, score: Float64) -> float:
    """The probability that an input of the class scores above one that is not, ties as a half."""
    above = score[of_it][:, None] - score[~of_it][None]
    return float(((above > 0) + 0.5 * (above == 0)).mean())


def test_curves_are_their_definitions() -> None:
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 3, 400)
    chances = draw.dirichlet(np.ones(3), 400) + 0.6 * (labels[:, None] == np.arange(3))
    chances = np.round(chances / chances.sum(axis=1, keepdims=True), 2)
    scores = class_scores(confusion_of(labels, chances.argmax(axis=1), 3), labels, chances)
    for one in range(3):
        of_it, score = labels == one, chances[:, one]
        thresholds = np.unique(score)[::-1]
        hits = np.array([(score[of_it] >= t).sum() for t in thresholds])
        named = np.array([(score >= t).sum() for t in thresholds])
        recall, precision = hits / of_it.sum(), hits / named
        expected = [max(p for p, r in zip(precision, recall) if r >= at - 1e-12) for at in GRID]
        np.testing.assert_allclose(scores.precision_recall[one], expected, rtol=1e-12)
        false_positive = np.concatenate([[0], (named - hits) / (~of_it).sum()])
        reached = np.array([max(r for r, f in zip(np.concatenate([[0], recall]), false_positive) if f <= at + 1e-12) for at in GRID])
        assert (scores.roc[one] >= reached - 1e-12).all()  # at least what is reached at so many false positives, at most a step more
        np.testing.assert_allclose(scores.auc[one], area_by_pairs(of_it, score), rtol=1e-12)
        assert auc(GRID, scores.roc[one]) == pytest.approx(scores.auc[one], abs=0.01)  # of a hundred trapezoids
        assert scores.roc[one][-1] == 1
    assert (np.diff(scores.roc, axis=1) >= 0).all()
    assert (np.diff(scores.precision_recall, axis=1) <= 0).all()


def test_a_perfect_and_a_blind_network() -> None:
    labels = np.repeat(np.arange(3), 10)
    perfect = class_scores(confusion_of(labels, labels, 3), labels, np.eye(3)[labels])
    for name in ("precision", "recall", "f1", "auc", "average_precision", "roc", "precision_recall"):
        np.testing.assert_array_equal(getattr(perfect, name), np.ones_like(getattr(perfect, name)), err_msg=name)
    blind = class_scores(confusion_of(labels, np.zeros(30, np.int64), 3), labels, np.full((30, 3), 1 / 3))
    np.testing.assert_array_equal(blind.auc, [0.5] * 3)
    np.testing.assert_allclose(blind.roc, np.tile(GRID, (3, 1)), atol=1e-12)
    np.testing.assert_allclose(blind.precision_recall, 1 / 3)
    np.testing.assert_array_equal(blind.recall, [1, 0, 0])
    np.testing.assert_array_equal(blind.precision, [1 / 3, np.nan, np.nan])  # of what is never predicted there is no precision


def test_what_cannot_be_told_is_not_a_number_and_is_counted() -> None:
    shown = ProbeSet(np.zeros((6, 2), np.float32), np.array([0, 0, 1, 1, 1, 1]), ["a", "b", "none"])
    logits = np.array([[2, 1, 0]] * 2 + [[0, 1, 0]] * 4, np.float32)
    logits[5] = np.nan
    found = predictions(snapshot(logits, shown, 0), None)
    assert found.arrays["predictions"].tolist() == [0, 0, 1, 1, 1, -1]
    assert np.isnan(found.arrays["confidence"][5])
    assert np.isnan(found.arrays["loss"][5])
    assert found.arrays["support"].tolist() == [2, 3, 0]
    assert found.scalars["predictions/no_prediction"] == 1
    assert found.scalars["predictions/accuracy"] == 1
    assert found.scalars["predictions/recall"] == 1
    assert found.scalars["predictions/undefined"] == 5  # each number of the class without inputs that is never predicted
    none = predictions(snapshot(np.full_like(logits, np.inf), shown, 0), None)
    assert none.scalars["predictions/no_prediction"] == 6
    assert np.isnan(none.scalars["predictions/accuracy"])
    assert none.arrays["confusion"].sum() == 0


def test_the_loss_of_what_is_surely_wrong_is_its_logit() -> None:
    shown = ProbeSet(np.zeros((2, 2), np.float32), np.array([0, 1]))
    found = predictions(snapshot(np.array([[-800, 800], [-800, 800]], np.float32), shown, 1), None)
    np.testing.assert_allclose(found.arrays["loss"], [1600, 0], atol=1e-12)


def by_definition(said: Int64, labels: Int64, steps: Sequence[int], patience: int) -> dict[str, list[bool]]:
    """Read off the whole table (t, n), input by input."""
    found: dict[str, list[bool]] = {kind: [] for kind in KINDS}
    for column, label in zip(said.T.tolist(), labels.tolist()):
        since = [one == label for one, step in zip(column, steps) if step > 0]
        found["always_right"].append(bool(since) and all(since))
        found["always_wrong"].append(bool(since) and not any(since))
        last = column[-patience:]
        found["stuck"].append(len(last) == patience and len(set(last)) == 1 and last[0] not in (label, -1))
        found["learned"].append(len(column) > 1 and column[-1] == label and column[-2] != label)
        found["forgotten"].append(len(column) > 1 and column[-1] != label and column[-2] == label)
    return found


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("patience", [2, 3])
@pytest.mark.parametrize("first", [0, 4])
def test_histories_are_their_definition_over_all_checkpoints(seed: int, patience: int, first: int) -> None:
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 3, 40)
    said = draw.integers(-1, 3, (7, 40))
    said[:, :20] = np.where(draw.random((7, 20)) < 0.8, labels[:20], said[:, :20])
    said[:, 20:30] = np.where(draw.random((7, 10)) < 0.8, (labels[20:30] + 1) % 3, said[:, 20:30])
    steps = range(first, first + 7)
    history = None
    for t, step in enumerate(steps):
        history = extended(history, said[t], labels, step, patience)
        expected = by_definition(said[: t + 1], labels, steps[: t + 1], patience)
        for kind, of_it in history.of_kind(labels, patience).items():
            assert of_it.tolist() == expected[kind], (kind, t)
    assert history is not None
    right = said == labels
    assert history.times_forgotten.tolist() == [sum(a and not b for a, b in pairwise(one)) for one in right.T.tolist()]
    for since, one in zip(history.right_since.tolist(), right.T.tolist()):
        broken = [t for t, yes in enumerate(one) if not yes]
        assert since == (-1 if not one[-1] else steps[broken[-1] + 1] if broken else first)
    assert any(any(values) for values in expected.values())


def test_the_analysis_keeps_what_the_next_checkpoint_needs() -> None:
    shown = probe()
    logits = [logits_of(shown, seed) for seed in range(5)]
    found = over_time(shown, logits)
    said = np.stack([one.argmax(axis=1) for one in logits])
    expected = by_definition(said, shown.labels, range(5), 3)
    kinds = found[-1].arrays["kinds"]
    for row, kind in enumerate(KINDS):
        assert kinds[row].tolist() == expected[kind]
        assert found[-1].scalars[f"predictions/{kind}"] == np.mean(expected[kind])
    assert "predictions/forgotten" in found[-1].images
    assert found[0].scalars["predictions/always_right"] == 0  # step 0 alone does not count


def test_errors_come_the_most_confident_first() -> None:
    shown = probe()
    found = predictions(snapshot(logits_of(shown, 3), shown, 1), None).arrays
    wrong = np.asarray(found["predictions"]) != shown.labels
    assert sorted(found["errors"].tolist()) == np.flatnonzero(wrong).tolist()
    assert (np.diff(np.asarray(found["confidence"], np.float64)[found["errors"]]) <= 0).all()
    assert wrong.any()


def test_every_array_says_what_its_axes_count() -> None:
    shown = ProbeSet(np.zeros((60, 2), np.float32), np.arange(60) % 4, ["a", "b", "c", "d"])
    found = over_time(shown, [logits_of(shown, seed) for seed in range(3)])[-1]
    sizes = {"step": 1, "class": 4, "label": 4, "prediction": 4, "input": 60, "kind": 5, "checkpoint": 3, "recall": 101, "false positive rate": 101}
    sizes["error"] = len(found.arrays["errors"])
    run = Recording({}, {"predictions": {2: found}})
    for name in found.arrays:
        series = run.array("predictions", name)
        assert series.values.shape == tuple(sizes[axis] for axis in series.axes), name


def test_pictures_are_of_images_and_where_there_are_any() -> None:
    vectors = probe(shape=(3,))
    assert set(predictions(snapshot(logits_of(vectors, 0), vectors, 1), None).images) == {"predictions/confusion"}
    images = probe()
    assert set(predictions(snapshot(logits_of(images, 0), images, 1), None, shown=0).images) == {"predictions/confusion"}
    right = 9 * np.eye(4, dtype=np.float32)[images.labels]
    assert set(predictions(snapshot(right, images, 1), None).images) == {"predictions/confusion", "predictions/always_right"}


@pytest.mark.parametrize(
    ("options", "logits", "message"),
    [
        ({"patience": 1}, np.zeros((60, 4)), "patience=1 and shown=24; expected at least 2 checkpoints"),
        ({"shown": -1}, np.zeros((60, 4)), "patience=3 and shown=-1; expected .* at least 0 inputs"),
        ({}, None, "needs a logit for each class: the network's output has shape None"),
        ({}, np.zeros((60, 1)), r"has shape \(60, 1\), and the probe has 60 inputs with labels up to 3; leave this analysis out"),
    ],
)
def test_what_cannot_be_answered_is_refused(options: dict[str, int], logits: Float32 | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        predictions(snapshot(logits, probe(), 0), None, **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.array([0, 3])}, r"labels of shape \(2,\) and dtype int64; expected \(2,\) integers from 0 to 2"),
        ({"confusion": np.eye(3, dtype=int)}, r"a confusion matrix \(3, 3\) of 3 inputs; expected \(3, 3\) of these 2"),
        ({"confusion": np.eye(2, dtype=int)}, r"a confusion matrix \(2, 2\) of 2 inputs; expected \(3, 3\)"),
        ({"probabilities": np.array([[1, 0, 0], [0, 0, np.nan]])}, "probabilities of shape .*; expected .* all finite"),
        ({"probabilities": np.zeros(2)}, r"probabilities of shape \(2,\); expected \(n, k\)"),
    ],
)
def test_scores_of_what_does_not_belong_together_are_refused(change: dict[str, Float64], message: str) -> None:
    given = {"labels": np.array([0, 1]), "confusion": np.diag([1, 1, 0]), "probabilities": np.full((2, 3), 1 / 3)} | change
    with pytest.raises(ValueError, match=message):
        partial(class_scores, **given)()
