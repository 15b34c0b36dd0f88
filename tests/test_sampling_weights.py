"""Laws of sampling weights: the rules by their definitions, one number at a time, and what holds whatever the rule."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest

from netlapse.analysis.fairness import effective_sample_size, sampling_weights
from netlapse.analysis.fairness.sampling import Rule
from netlapse.types import Float64, Int64

RULES = get_args(Rule)


def some(n: int = 80, d: int = 7, seed: int = 0) -> tuple[Float64, Int64]:
    random = np.random.default_rng(seed)
    return random.normal(size=(n, d)) ** 3, random.integers(0, 3, n)


def by_definition(features: Float64, classes: Int64, rule: str, bins: int, alpha: float) -> list[float]:
    n, d = features.shape
    weights = [0.0] * n
    for each in sorted(set(classes.tolist())):
        members = [i for i in range(n) if classes[i] == each]
        share = {}
        for j in range(d):
            values = sorted(features[i, j] for i in members)

            def quantile(q: float, values: list[float] = values) -> float:
                place = q * (len(values) - 1)
                below = math.floor(place)
                return values[below] + (place - below) * (values[min(below + 1, len(values) - 1)] - values[below])

            low, high = quantile(0.01), quantile(0.99)
            where = {
                i: 0 if features[i, j] < low else bins - 1 if features[i, j] >= high else int((features[i, j] - low) / (high - low) * bins)
                for i in members
            }
            for i in members:
                share[i, j] = sum(where[other] == where[i] for other in members) / len(members)
        inverse = {key: 1 / (m + alpha) for key, m in share.items()}
        scaled = {(i, j): inverse[i, j] / sum(inverse[other, j] for other in members) for i, j in inverse}
        raw = {}
        for i in members:
            if rule == "max":
                raw[i] = max(scaled[i, j] for j in range(d))
            elif rule == "product":
                raw[i] = math.prod(inverse[i, j] for j in range(d))
            elif rule == "sum_log":
                raw[i] = sum(math.log(1 + inverse[i, j]) for j in range(d))
            else:
                raw[i] = math.prod(sorted(scaled[i, j] for j in range(d))[-5:])
        for i in members:
            weights[i] = raw[i] / sum(raw.values()) * len(members) / n
    return weights


@pytest.mark.parametrize("rule", ["max", "product", "sum_log", "top5"])
@pytest.mark.parametrize(("bins", "alpha"), [(10, 1e-3), (4, 0.0), (7, 0.5)])
def test_weights_are_those_of_the_definition(rule: Rule, bins: int, alpha: float) -> None:
    features, classes = some()
    found = sampling_weights(features, classes, rule=rule, bins=bins, alpha=alpha)
    np.testing.assert_allclose(found, by_definition(features, classes, rule, bins, alpha), rtol=1e-10)
    assert np.ptp(found) > 1e-5


def test_by_neighbours_weights_go_with_the_distance_to_them() -> None:
    """Without alpha a weight is proportional to the mean distance to the ten nearest of the class."""
    features, classes = some()
    found = sampling_weights(features, classes, rule="knn", alpha=0.0)
    for each in range(3):
        rows = features[classes == each]
        distances = np.linalg.norm(rows[:, None] - rows[None], axis=2)
        means = np.sort(distances, axis=1)[:, 1:11].mean(axis=1)
        np.testing.assert_allclose(found[classes == each], means / means.sum() * len(rows) / 80, rtol=1e-10)


@pytest.mark.parametrize("rule", RULES)
def test_every_class_keeps_its_share_and_all_sum_to_one(rule: Rule) -> None:
    features, classes = some()
    found = sampling_weights(features, classes, rule=rule)
    assert found.sum() == pytest.approx(1, abs=1e-12)
    for each in range(3):
        assert found[classes == each].sum() == pytest.approx((classes == each).mean(), rel=1e-12)


@pytest.mark.parametrize("rule", RULES)
def test_scale_and_order_do_not_matter(rule: Rule) -> None:
    features, classes = some()
    found = sampling_weights(features, classes, rule=rule)
    for factor in (2.0**10, 2.0**-40):
        np.testing.assert_allclose(sampling_weights(features * factor, classes, rule=rule), found, rtol=1e-9)
    order = np.random.default_rng(1).permutation(80)
    np.testing.assert_allclose(sampling_weights(features[order], classes[order], rule=rule), found[order], rtol=1e-9)


@pytest.mark.parametrize("rule", RULES)
def test_a_large_alpha_draws_evenly(rule: Rule) -> None:
    features, classes = some()
    np.testing.assert_allclose(sampling_weights(features, classes, rule=rule, alpha=1e6), 1 / 80, rtol=1e-4)


def test_a_rare_kind_is_drawn_more_by_the_default_and_an_outlier_does_not_take_the_draw() -> None:
    """One in twenty lies four deviations off in one of eight features; then one input lies sixty off."""
    random = np.random.default_rng(0)
    features, classes = random.normal(size=(2000, 8)), np.zeros(2000, int)
    features[:100, 3] += 4
    assert sampling_weights(features, classes)[:100].sum() > 2 * 0.05
    features[500, 5] = 60
    assert sampling_weights(features, classes)[500] < 0.01


@pytest.mark.parametrize("rule", RULES)
def test_a_thousand_features_and_no_alpha_overflow_nothing(rule: Rule) -> None:
    features = np.random.default_rng(0).normal(size=(300, 1000))
    found = sampling_weights(features, np.zeros(300, int), rule=rule, alpha=0.0)
    assert np.isfinite(found).all()
    assert found.sum() == pytest.approx(1)


def test_the_product_of_many_features_collapses_and_the_sum_of_logs_does_nothing() -> None:
    features = np.random.default_rng(0).normal(size=(500, 100))
    sizes = {rule: effective_sample_size(sampling_weights(features, np.zeros(500, int), rule=rule)) / 500 for rule in RULES}
    assert sizes["product"] < 0.05
    assert sizes["sum_log"] > 0.99
    assert sizes["product"] < sizes["max"] < sizes["sum_log"]


@pytest.mark.parametrize("rule", ["max", "product", "top5", "knn"])
def test_a_wanted_effective_sample_size_is_met(rule: Rule) -> None:
    features, classes = some(400)
    for share in (0.6, 0.8, 1.0 - 1e-6):
        found = sampling_weights(features, classes, rule=rule, target_ess=share)
        strongest = effective_sample_size(sampling_weights(features, classes, rule=rule, alpha=1e-12)) / 400
        assert effective_sample_size(found) / 400 == pytest.approx(max(share, strongest), abs=1e-3)


def test_the_effective_sample_size_counts_equal_weights_and_the_one_that_takes_all() -> None:
    assert effective_sample_size(np.full(7, 1 / 7)) == pytest.approx(7)
    assert effective_sample_size(np.full(7, 3.0)) == pytest.approx(7)
    assert effective_sample_size(np.array([0.0, 1.0, 0.0])) == 1
    assert effective_sample_size(np.array([0.5, 0.5, 0.0])) == pytest.approx(2)


@pytest.mark.parametrize("rule", RULES)
def test_what_says_nothing_weighs_nothing(rule: Rule) -> None:
    """Constant features, dead units; and a class of one, which keeps its share."""
    found = sampling_weights(np.ones((6, 3)), np.array([0, 0, 0, 1, 1, 2]), rule=rule)
    np.testing.assert_allclose(found, 1 / 6, rtol=1e-12)


def test_what_cannot_be_is_refused() -> None:
    features, classes = some()
    broken = features.copy()
    broken[[5, 9], 2] = np.nan
    with pytest.raises(ValueError, match=r"features of 2 of 80 inputs.*first of input 5"):
        sampling_weights(broken, classes)
    with pytest.raises(ValueError, match=r"features \(n, d\).*\(80, 7, 1\)"):
        sampling_weights(features[..., None], classes)
    with pytest.raises(ValueError, match=r"expected \(80,\) integers"):
        sampling_weights(features, classes[:5])
    with pytest.raises(ValueError, match=r"'mean'.*'knn'"):
        sampling_weights(features, classes, rule="mean")  # type: ignore[arg-type]
    for options in ({"bins": 0}, {"alpha": -1.0}, {"alpha": float("nan")}, {"target_ess": 0.0}, {"target_ess": 1.5}):
        with pytest.raises(ValueError, match=str(next(iter(options.values())))):
            sampling_weights(features, classes, **options)  # type: ignore[arg-type]
