"""The analysis: what a network says of the probe at every checkpoint, how well each class is told apart, and what became of each input."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from netlapse.analysis.fairness.counts import group_counts
from netlapse.analysis.predictions.history import KINDS, Bools, History, Kind, extended
from netlapse.analysis.predictions.scores import class_scores
from netlapse.probe import softmax
from netlapse.render.gaps import gallery
from netlapse.render.heatmap import heatmap
from netlapse.types import Array, Findings, Float32, Float64, Int64, ProbeSet, Snapshot, UInt8, checked_by, ungrouped

MEANS = ("precision", "recall", "f1", "auc", "average_precision")
TOLD: dict[Kind, str] = {
    "always_right": "right at every checkpoint since training began",
    "always_wrong": "wrong at every checkpoint since training began",
    "stuck": "one and the same wrong class at the last checkpoints",
    "learned": "right now, wrong at the checkpoint before",
    "forgotten": "wrong now, right at the checkpoint before",
}


def _check(snapshot: Snapshot, *, patience: int, shown: int) -> None:
    if patience < 2 or shown < 0:
        raise ValueError(f"predictions was given patience={patience} and shown={shown}; expected at least 2 checkpoints, and at least 0 inputs")


@ungrouped
@checked_by(_check)
def predictions(snapshot: Snapshot, previous: Findings | None, *, patience: int = 3, shown: int = 24) -> Findings:
    """What is predicted, class by class and input by input.

    patience  checkpoints in a row at which an input that is stuck is predicted as the same wrong class
    shown     inputs of each kind in pictures, the most confident first; 0: no pictures of inputs

    An input whose logits are not all finite has no prediction, -1: it is not right, it is left out of the counts and scores, and counted.

    arrays    `classes` (k,) names, `labels` and `predictions` (n,), `confidence` (n,), NaN where there is none, `loss` (n,) the cross entropy;
              `confusion` (k, k) labels x predictions; `precision`, `recall`, `f1`, `support`, `auc`, `average_precision` (k,), `roc` and
              `precision_recall` (k, 101), see `ClassScores`; `recent` (m, n), `right`, `wrong`, `times_forgotten`, `right_since` (n,) and
              `counted` (), see `History`; `kinds` (5, n) which inputs are of each of `KINDS`, see `History.of_kind`;
              `errors` (e,) the inputs that are wrong, the most confident first
    scalars   `predictions/accuracy`, `predictions/loss` over inputs with a prediction; `predictions/precision`, `recall`, `f1`, `auc`,
              `average_precision`: the mean over the classes for which it is defined; `predictions/undefined` how many of these numbers are not;
              `predictions/no_prediction`; `predictions/<kind>` shares of the inputs
    images    `predictions/confusion`, rows that sum to 1; for images of 1 or 3 channels `predictions/<kind>` and `predictions/errors`

    Raises ValueError for options out of their ranges and a network without a logit for each class.
    """
    _check(snapshot, patience=patience, shown=shown)
    probe, logits = snapshot.probe, _logits(snapshot)
    n, k = logits.shape
    classes = tuple(probe.class_names) if len(probe.class_names) == k else tuple(str(one) for one in range(k))
    there: Bools = np.asarray(np.isfinite(logits).all(axis=1))
    probabilities = np.full((n, k), np.nan)
    probabilities[there] = softmax(logits[there])
    said: Int64 = np.where(there, np.where(there[:, None], logits, 0).argmax(axis=1), -1)
    confidence: Float64 = np.where(there, np.max(np.nan_to_num(probabilities), axis=1), np.nan)
    loss = _cross_entropy(logits, probe.labels, there)
    confusion = group_counts(np.zeros(there.sum(), np.int64), probe.labels[there], said[there], 1, k)[0]
    history = extended(_before(previous, n), said, probe.labels, snapshot.step, patience)
    kinds = history.of_kind(probe.labels, patience)
    wrong = np.flatnonzero(there & (said != probe.labels))
    errors = wrong[np.argsort(-confidence[wrong], kind="stable")]
    arrays: dict[str, Array] = {
        "classes": np.array(classes),
        "labels": probe.labels,
        "predictions": said,
        "confidence": confidence,
        "loss": loss,
        "confusion": confusion,
    }
    arrays |= {"kinds": np.stack([kinds[kind] for kind in KINDS]), "errors": errors}
    arrays |= {name: np.asarray(value) for name, value in asdict(history).items()}
    scalars = {"accuracy": float((said == probe.labels)[there].mean()) if there.any() else np.nan, "no_prediction": float((~there).sum())}
    scalars["loss"] = float(loss[there].mean()) if there.any() else np.nan
    scalars |= {kind: float(of_it.mean()) for kind, of_it in kinds.items()}
    if there.any():
        scores = class_scores(confusion, probe.labels[there], probabilities[there])
        arrays |= {name: np.asarray(value) for name, value in asdict(scores).items()}
        scalars |= {name: _mean(getattr(scores, name)) for name in MEANS}
        scalars["undefined"] = float(sum(np.isnan(getattr(scores, name)).sum() for name in MEANS))
    images = {"predictions/confusion": _confusion(confusion, classes, snapshot.step)}
    if shown and probe.inputs.ndim == 4 and probe.inputs.shape[3] in (1, 3):
        images |= _pictures(probe, said, confidence, kinds, errors, classes, shown, snapshot.step)
    return Findings(arrays, {f"predictions/{name}": value for name, value in scalars.items()}, images)


def _logits(snapshot: Snapshot) -> Float32:
    logits, labels = snapshot.statistics.logits, snapshot.probe.labels
    if logits is None or logits.ndim != 2 or logits.shape[1] <= max(1, int(labels.max())):
        raise ValueError(
            f"predictions needs a logit for each class: the network's output has shape {None if logits is None else logits.shape}, and the probe has "
            f"{len(labels)} inputs with labels up to {labels.max()}; leave this analysis out"
        )
    return logits


def _before(previous: Findings | None, n: int) -> History | None:
    if previous is None or len(previous.arrays["right"]) != n:
        return None
    arrays = previous.arrays
    return History(
        recent=np.asarray(arrays["recent"], np.int64),
        right=np.asarray(arrays["right"], bool),
        wrong=np.asarray(arrays["wrong"], bool),
        counted=int(np.asarray(arrays["counted"], np.int64)),
        times_forgotten=np.asarray(arrays["times_forgotten"], np.int64),
        right_since=np.asarray(arrays["right_since"], np.int64),
    )


def _cross_entropy(logits: Float32, labels: Int64, there: Bools) -> Float64:
    """(n,) minus the logarithm of the label's probability, exact however small that is; NaN where there is no prediction."""
    found = np.full(len(labels), np.nan)
    shifted = logits[there].astype(np.float64) - logits[there].max(axis=1, keepdims=True, initial=-np.inf)
    found[there] = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(shifted)), labels[there]]
    return found


def _mean(values: Float64) -> float:
    """Over the classes for which it is defined; NaN where it is for none."""
    told = values[~np.isnan(values)]
    return float(told.mean()) if len(told) else float("nan")


def _confusion(confusion: Int64, classes: tuple[str, ...], step: int) -> UInt8:
    counts = confusion.sum(axis=1)
    shares = confusion / np.where(counts > 0, counts, np.nan)[:, None]
    note = f"Rows are labels, columns predictions; each row is a share of its {_range(counts)} inputs. Grey: no inputs."
    return heatmap(shares, classes, classes, f"Confusion, step {step}", "share of the label's inputs", note)


def _range(counts: Int64) -> str:
    return str(counts.min()) if counts.min() == counts.max() else f"{counts.min()} to {counts.max()}"


def _pictures(
    probe: ProbeSet,
    said: Int64,
    confidence: Float64,
    kinds: dict[Kind, Bools],
    errors: Int64,
    classes: tuple[str, ...],
    shown: int,
    step: int,
) -> dict[str, UInt8]:
    """The inputs of each kind of which there are any, under label, prediction and confidence."""
    found: dict[str, UInt8] = {}
    order = np.argsort(-np.nan_to_num(confidence, nan=-1.0), kind="stable")
    listed = {kind: (order[kinds[kind][order]], TOLD[kind]) for kind in KINDS} | {"errors": (errors, "wrong now, the most confident first")}
    for name, (inputs, words) in listed.items():
        if not len(inputs):
            continue
        some = inputs[:shown]
        captions = [_caption(classes, int(probe.labels[i]), int(said[i]), float(confidence[i])) for i in some.tolist()]
        title = f"{name.replace('_', ' ').capitalize()}: {words}, step {step}"
        note = f"{len(inputs)} of {len(probe)} inputs{'' if len(some) == len(inputs) else f', {len(some)} shown'}; label, prediction, confidence."
        found[f"predictions/{name}"] = gallery(np.asarray(probe.inputs[some], np.float64), captions, title, note)
    return found


def _caption(classes: tuple[str, ...], label: int, said: int, confidence: float) -> str:
    if said < 0:
        return f"{classes[label]}, no prediction"
    return f"{classes[label]}{'' if said == label else f' as {classes[said]}'}, {confidence:.2f}"
