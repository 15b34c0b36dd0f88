"""Laws of a last layer learnt anew: it finds what the features hold, is told the groups, and judges nothing that it has seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from netlapse.analysis.last_layer import cross_fitted, last_layer, retrained_head
from netlapse.backends.torch import TorchNetwork
from netlapse.types import Findings, Float64, Int64, ProbeSet, Snapshot

N = 400


def shortcut(n: int = N, conflicting: float = 0.1, seed: int = 0) -> tuple[Float64, Int64, Int64]:
    """Features of which the first tells the class and the second, twice as large, whether it agrees with a shortcut; and groups, label x that."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    conflicts = rng.permutation(n) < conflicting * n
    sign, hint = 2 * labels - 1, np.where(conflicts, 1 - 2 * labels, 2 * labels - 1)
    features = np.stack([0.5 * sign + 0.05 * rng.normal(size=n), 2.0 * hint + 0.05 * rng.normal(size=n), rng.normal(size=n)], axis=1)
    return features, labels, 2 * labels + conflicts


def test_where_groups_are_apart_it_takes_the_class_and_leaves_the_shortcut() -> None:
    features, labels, groups = shortcut()
    head = retrained_head(features, labels, groups, strength=100.0)
    np.testing.assert_array_equal(head.predictions(features), labels)
    shown = np.abs(head.weights[:, 1] - head.weights[:, 0]) * features.std(axis=0)
    assert shown[0] > 10 * shown[1]
    # Not balanced, what is easiest is taken: the shortcut's weight is the larger by far.
    told_nothing = retrained_head(features, labels, np.zeros(N, int), strength=0.01)
    assert np.abs(told_nothing.weights[1, 1]) * 2 > np.abs(told_nothing.weights[1, 0]) * 0.5


@pytest.mark.parametrize("classes", [2, 3])
def test_with_equal_groups_it_is_scikit_learns_logistic_regression(classes: int) -> None:
    rng = np.random.default_rng(1)
    features, labels = rng.normal(size=(120, 4)) * [1, 10, 0.1, 1] + 3, np.arange(120) % classes
    features[:, 1] += 8 * labels
    head = retrained_head(features, labels, labels, strength=0.3, draws=7)
    scaled = (features - features.mean(axis=0)) / features.std(axis=0)
    expected = LogisticRegression(C=0.3, max_iter=1000).fit(scaled, labels)
    logits = features @ head.weights + head.bias
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities, expected.predict_proba(scaled), atol=1e-8)
    np.testing.assert_array_equal(head.predictions(features), expected.predict(scaled))


def test_each_draw_has_as_many_of_every_group_and_their_weights_are_averaged() -> None:
    features, labels, groups = shortcut()
    single = [retrained_head(features, labels, groups, draws=1, seed=seed).weights for seed in range(2)]
    assert np.abs(single[0] - single[1]).max() > 1e-6
    rng, each = np.random.default_rng(5), []
    for _ in range(3):
        some = np.concatenate([rng.permutation(np.flatnonzero(groups == g))[: np.bincount(groups).min()] for g in range(4)])
        deviation = features[some].std(axis=0)
        scaled = (features[some] - features[some].mean(axis=0)) / deviation
        each.append(LogisticRegression(max_iter=1000).fit(scaled, labels[some]).coef_[0] / deviation)
    head = retrained_head(features, labels, groups, draws=3, seed=5)
    np.testing.assert_allclose(head.weights[:, 1] - head.weights[:, 0], np.mean(each, axis=0), rtol=1e-6)


def test_with_no_strength_nothing_is_learnt_and_a_constant_feature_has_no_say() -> None:
    features, labels, groups = shortcut()
    assert np.abs(retrained_head(features, labels, groups, strength=1e-9).weights).max() < 1e-5
    constant = np.concatenate([features, np.full((N, 1), 7.0)], axis=1)
    head = retrained_head(constant, labels, groups)
    np.testing.assert_array_equal(head.weights[3], 0)
    np.testing.assert_allclose(head.weights[:3], retrained_head(features, labels, groups).weights, rtol=1e-9)


def test_no_input_is_judged_by_a_last_layer_that_has_seen_it() -> None:
    """Turning an input's label over changes what is said of others, and never what is said of its own fold."""
    features, labels, groups = shortcut(80, 0.5)
    features += np.random.default_rng(2).normal(size=features.shape)
    said, fold = cross_fitted(features, labels, groups, folds=4, draws=1)
    assert set(fold) == {0, 1, 2, 3}
    for group in range(4):
        assert np.ptp(np.bincount(fold[groups == group])) <= 1
    changed = 0
    for which in range(4):
        turned = np.where(fold == which, 1 - labels, labels)
        again, same = cross_fitted(features, turned, groups, folds=4, draws=1)
        np.testing.assert_array_equal(same, fold)
        np.testing.assert_array_equal(again[fold == which], said[fold == which])
        changed += int((again[fold != which] != said[fold != which]).sum())
    assert changed


def test_labels_without_anything_to_do_with_the_features_are_not_learnt() -> None:
    """Judged on inputs it has seen, a layer of many features would be right."""
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(200, 150)), rng.integers(0, 2, 200)
    head = retrained_head(features, labels, labels, strength=100.0)
    assert (head.predictions(features) == labels).mean() > 0.9
    said, _ = cross_fitted(features, labels, labels, strength=100.0)
    assert abs((said == labels).mean() - 0.5) < 4 * 0.5 / np.sqrt(200)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"features": np.full((N, 2), np.nan)}, r"features \(400, 2\).*expected finite features"),
        ({"labels": np.zeros(N, int)}, r"400 labels of 1 classes"),
        ({"groups": np.zeros(3, int)}, r"and 3 groups"),
        ({"strength": 0.0}, r"strength=0.0 and draws=10; expected above 0"),
        ({"draws": 0}, r"draws=0"),
    ],
)
def test_what_cannot_be_is_refused(arguments: dict[str, Any], message: str) -> None:
    features, labels, groups = shortcut()
    with pytest.raises(ValueError, match=message):
        retrained_head(**{"features": features, "labels": labels, "groups": groups, **arguments})


def test_folds_that_cannot_be_are_refused() -> None:
    features, labels, groups = shortcut()
    for folds in (1, 50):
        with pytest.raises(ValueError, match=rf"{folds} folds were asked of groups of \d+ to \d+ inputs; expected at least 2"):
            cross_fitted(features, labels, groups, folds=folds)


# ---- the analysis ----------------------------------------------------------------------------------------------------


def network(broken: bool = False) -> TorchNetwork:
    """Its hidden layer passes the features on; its own last layer goes by the shortcut alone."""
    module = nn.Sequential(nn.Linear(3, 3), nn.Identity(), nn.Linear(3, 2))
    with torch.no_grad():
        module[0].weight.copy_(torch.eye(3))
        module[0].bias.zero_()
        module[2].weight.copy_(torch.tensor([[0.0, -1.0, 0.0], [0.0, 1.0, 0.0]]))
        module[2].bias.fill_(float("nan") if broken else 0.0)
    return TorchNetwork(module)


def probe(**changed: Any) -> ProbeSet:
    features, labels, groups = shortcut()
    kind = np.where(groups % 2, "conflicts", "agrees")
    return ProbeSet(features.astype(np.float32), labels, ("no", "yes"), {"shortcut": changed.get("kind", kind)})


def found(given: ProbeSet | None = None, broken: bool = False, **options: Any) -> Findings:
    return last_layer(Snapshot(network(broken), given or probe(), 4, layers=["0"]), None, **{"layer": "0", **options})


def test_the_analysis_finds_that_another_last_layer_would_do() -> None:
    result = found()
    assert result.arrays["groups/shortcut"].tolist() == ["no / agrees", "no / conflicts", "yes / agrees", "yes / conflicts"]
    np.testing.assert_array_equal(result.arrays["before/shortcut"][0], [1, 0, 1, 0])
    np.testing.assert_array_equal(result.arrays["after/shortcut"][0], [1, 1, 1, 1])
    scalars = result.scalars
    assert (scalars["last_layer/worst_before/shortcut"], scalars["last_layer/worst_after/shortcut"]) == (0, 1)
    assert (scalars["last_layer/mean_before/shortcut"], scalars["last_layer/left_out/shortcut"]) == (0.5, 0)
    assert result.images["last_layer/shortcut"].shape[2] == 3


def test_accuracies_are_of_the_inputs_that_took_part_and_add_up() -> None:
    result, of = found(), probe()
    groups = np.array([f"{of.class_names[label]} / {kind}" for label, kind in zip(of.labels, of.attributes["shortcut"])])
    for what in ("before", "after"):
        right = result.arrays[f"right_{what}/shortcut"]
        for group, name in enumerate(result.arrays["groups/shortcut"]):
            assert result.arrays[f"{what}/shortcut"][0, group] == right[groups == name].mean()
            assert result.arrays["sizes/shortcut"][group] == (groups == name).sum()


def test_values_alone_may_be_groups() -> None:
    assert found(of="attribute").arrays["groups/shortcut"].tolist() == ["agrees", "conflicts"]


def test_inputs_without_a_value_and_small_groups_are_left_out_and_counted() -> None:
    kind = probe().attributes["shortcut"].copy()
    kind[:30] = "nan"
    kind[30:36] = "rare"  # three of each class
    result = found(probe(kind=kind))
    assert result.scalars["last_layer/left_out/shortcut"] == 36
    assert (result.arrays["right_after/shortcut"][:36] == -1).all()
    assert (result.arrays["fold/shortcut"][:36] == -1).all()
    names = result.arrays["groups/shortcut"].tolist()
    assert "no / nan" not in names
    assert np.isnan(result.arrays["after/shortcut"][:, names.index("no / rare")]).all()
    assert result.scalars["last_layer/worst_after/shortcut"] == 1


def test_a_network_that_has_diverged_has_no_numbers() -> None:
    result = found(broken=True)
    assert np.isnan(result.scalars["last_layer/worst_before/shortcut"])
    assert np.isnan(result.scalars["last_layer/worst_after/shortcut"])
    assert result.scalars["last_layer/left_out/shortcut"] == N
    assert not result.images


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attributes": ["age"]}, r"attributes=\['age'\]; the probe has \['shortcut'\]"),
        ({"folds": 1}, r"folds=1, min_inputs=10"),
        ({"min_inputs": 1}, r"min_inputs=1"),
        ({"strength": -1.0}, r"strength=-1.0"),
        ({"of": "class"}, r"of='class'; allowed are \('label_and_attribute', 'attribute'\)"),
        ({"layer": "9"}, r"last_layer was given layer='9'; observed are \['0'\]"),
    ],
)
def test_the_analysis_refuses_what_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        found(**options)
    with pytest.raises(ValueError, match=message):  # also before training
        last_layer.check(Snapshot(network(), probe(), 0, layers=["0"]), **{"layer": "0", **options})  # type: ignore[attr-defined]


def test_a_probe_without_attributes_is_refused() -> None:
    features, labels, _ = shortcut()
    with pytest.raises(ValueError, match=r"the probe has \[\].*data=rotated"):
        found(ProbeSet(features.astype(np.float32), labels, ("no", "yes")))
