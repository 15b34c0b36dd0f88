"""Laws of group metrics: fairlearn's numbers wherever it defines them, definitions written out, intervals that hold what they say."""

from __future__ import annotations

import re
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from fairlearn import metrics as fair
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, precision_score, recall_score

from netlapse.analysis.fairness import calibration_error, calibration_sums, disparities, gap_bound, group_counts, group_metrics, wilson
from netlapse.types import Int64


def drawn(k: int, g: int = 3, n: int = 400, seed: int = 0) -> tuple[Int64, Int64, Int64]:
    """Groups, labels and predictions, right for 9 to 5 of 10 inputs depending on the group; all pairs of group and class occur."""
    rng = np.random.default_rng(seed)
    groups, labels = rng.integers(g, size=n), rng.integers(k, size=n)
    right = rng.random(n) < np.linspace(0.9, 0.5, g)[groups]
    predictions = np.where(right, labels, rng.integers(k, size=n))
    return groups, labels, predictions


def counted(groups: Int64, labels: Int64, predictions: Int64, k: int) -> Int64:
    return group_counts(groups, labels, predictions, int(groups.max()) + 1, k)


def test_counts_are_of_inputs_one_by_one_and_those_of_parts_add_up() -> None:
    groups, labels, predictions = drawn(3)
    expected = np.zeros((3, 3, 3), int)
    for cell in zip(groups, labels, predictions):
        expected[cell] += 1
    whole = group_counts(groups, labels, predictions, 3, 3)
    np.testing.assert_array_equal(whole, expected)
    parts = [group_counts(groups[part], labels[part], predictions[part], 3, 3) for part in (slice(0, 7), slice(7, 7), slice(7, None))]
    np.testing.assert_array_equal(sum(parts), whole)


@pytest.mark.parametrize("k", [2, 4])
def test_rates_of_each_class_are_those_of_fairlearn(k: int) -> None:
    groups, labels, predictions = drawn(k)
    ours = group_metrics(counted(groups, labels, predictions, k))
    for c in range(k):
        frame = fair.MetricFrame(
            metrics={
                "recall": fair.true_positive_rate,
                "false_positive_rate": fair.false_positive_rate,
                "selection_rate": fair.selection_rate,
                "precision": precision_score,
                "n": fair.count,
            },
            y_true=labels == c,
            y_pred=predictions == c,
            sensitive_features=groups,
        )
        for name in ("recall", "false_positive_rate", "selection_rate", "precision"):
            np.testing.assert_allclose(ours[name][:, c], frame.by_group[name].to_numpy(float), rtol=0, atol=1e-12)
        np.testing.assert_array_equal(ours["n"], frame.by_group["n"])
    frame = fair.MetricFrame(metrics=accuracy_score, y_true=labels, y_pred=predictions, sensitive_features=groups)
    np.testing.assert_allclose(ours["accuracy"], frame.by_group.to_numpy(float), rtol=0, atol=1e-12)
    macro = fair.MetricFrame(
        metrics=lambda t, p: recall_score(t, p, average="macro"), y_true=labels, y_pred=predictions, sensitive_features=groups
    ).by_group
    np.testing.assert_allclose(ours["recall_macro"], macro.to_numpy(float), rtol=0, atol=1e-12)


@pytest.mark.parametrize("k", [2, 4])
def test_differences_are_those_of_fairlearn(k: int) -> None:
    groups, labels, predictions = drawn(k)
    ours = disparities(counted(groups, labels, predictions, k))
    for c in range(k):
        asked: dict[str, Any] = {"y_true": labels == c, "y_pred": predictions == c, "sensitive_features": groups}
        assert abs(ours.demographic_parity[c] - fair.demographic_parity_difference(**asked)) < 1e-12
        assert abs(ours.equal_opportunity[c] - fair.equal_opportunity_difference(**asked)) < 1e-12
        assert abs(ours.equalised_odds[c] - fair.equalized_odds_difference(**asked)) < 1e-12
    frame = fair.MetricFrame(metrics=accuracy_score, y_true=labels, y_pred=predictions, sensitive_features=groups)
    assert abs(ours.gap - frame.difference()) < 1e-12
    assert abs(ours.worst_accuracy - frame.group_min()) < 1e-12
    assert ours.worst == frame.by_group.to_numpy(float).argmin()
    assert ours.best == frame.by_group.to_numpy(float).argmax()
    assert abs(ours.mean_accuracy - frame.by_group.to_numpy(float).mean()) < 1e-12


def test_variance_is_that_of_the_paper_the_sample_variance_of_percentages() -> None:
    # Four groups of 1,000 with the accuracies 85.0, 95.4, 96.1 and 97.2 %: their mean is 93.425, squares 70.98, 3.90, 7.16, 14.25 over 3.
    right = np.array([850, 954, 961, 972])
    counts = np.zeros((4, 2, 2), int)
    counts[:, 1, 1], counts[:, 1, 0] = right, 1000 - right
    assert abs(disparities(counts).variance - (8.425**2 + 1.975**2 + 2.675**2 + 3.775**2) / 3) < 1e-9


def test_what_has_nothing_to_be_a_rate_of_is_nan_and_counted_where_fairlearn_says_0() -> None:
    groups, labels, predictions = np.array([0, 0, 0, 1, 1, 1]), np.array([1, 1, 0, 0, 0, 0]), np.array([1, 1, 0, 0, 0, 0])
    frame = fair.MetricFrame(metrics=fair.true_positive_rate, y_true=labels, y_pred=predictions, sensitive_features=groups)
    assert frame.by_group[1] == 0  # a gap of 1 that is none
    counts = group_counts(groups, labels, predictions, 3, 2)
    ours, differences = group_metrics(counts), disparities(counts)
    assert np.isnan(ours["recall"][1, 1])
    assert np.isnan([ours[f"recall_{end}"][1, 1] for end in ("low", "high")]).all()
    assert np.isnan(ours["recall_macro"][1])
    assert np.isnan(differences.equal_opportunity[1])
    assert np.isnan(differences.equalised_odds[1])
    assert differences.equal_opportunity[0] == 0
    assert differences.gap == 0
    # Of the third group, without inputs, nothing: accuracy, and four rates of two classes. Of the second recall and precision of class 1, and the
    # false-positive rate of class 0, whose others are none.
    assert differences.undefined == 9 + 3
    nobody = disparities(np.zeros((2, 2, 2), int))
    assert (nobody.worst, nobody.best) == (-1, -1)
    assert np.isnan([nobody.gap, nobody.gap_low, nobody.variance, nobody.worst_accuracy, *nobody.demographic_parity]).all()


def test_one_group_has_no_differences_from_others() -> None:
    alone = disparities(np.array([[[3, 1], [0, 4]]]))
    assert alone.worst_accuracy == 7 / 8
    assert np.isnan([alone.gap, alone.gap_low, alone.variance, *alone.equalised_odds]).all()


@pytest.mark.parametrize(("hits", "tries"), [(0, 1), (1, 1), (0, 10), (3, 10), (10, 10), (997, 1000)])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_wilson_is_that_of_scipy(hits: int, tries: int, level: float) -> None:
    expected = binomtest(hits, tries).proportion_ci(level, method="wilson")
    np.testing.assert_allclose(np.ravel(wilson(np.array([hits]), np.array([tries]), level=level)), [expected.low, expected.high], atol=1e-12)


def test_wilson_holds_the_true_share_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.05, 0.95, size=50_000)  # of one share it holds a little more or less often, as hits are whole numbers
    low, high = wilson(rng.binomial(40, truth), np.full(50_000, 40))
    assert 0.945 < ((low <= truth) & (high >= truth)).mean() < 0.955


def test_the_bound_of_the_gap_is_above_0_by_chance_in_fewer_than_5_percent_of_cases_however_many_groups() -> None:
    rng = np.random.default_rng(0)
    bounds = [gap_bound(rng.binomial(30, 0.8, size=8), np.full(8, 30)) for _ in range(2000)]
    assert np.mean(np.array(bounds) > 0) < 0.05
    # And where there is a gap, it lies below it nearly always, and is not idle.
    truth = np.array([0.9, 0.9, 0.5])
    bounds = [gap_bound(rng.binomial(200, truth), np.full(3, 200)) for _ in range(2000)]
    assert np.mean(np.array(bounds) <= 0.4) > 0.95
    assert np.mean(bounds) > 0.25


def test_the_bound_of_two_groups_is_newcombes() -> None:
    # Newcombe, 1998, table II (a), method 10: 56/70 - 48/80 is 0.2, between 0.0524 and 0.3339.
    assert abs(gap_bound(np.array([56, 48]), np.array([70, 80])) - 0.0524) < 5e-5
    assert gap_bound(np.array([48, 56]), np.array([80, 70])) == gap_bound(np.array([56, 48]), np.array([70, 80]))
    assert gap_bound(np.array([5, 5]), np.array([10, 10])) == 0


def test_the_order_of_groups_does_not_matter() -> None:
    counts = counted(*drawn(3, g=4), 3)
    ours = disparities(counts)
    for order in list(permutations(range(4)))[1::7]:
        other = disparities(counts[list(order)])
        assert order[other.worst] == ours.worst
        for name in ("gap", "gap_low", "variance"):
            assert abs(getattr(other, name) - getattr(ours, name)) < 1e-12
        np.testing.assert_allclose(other.equalised_odds, ours.equalised_odds)


def test_calibration_error_is_that_of_torchmetrics_and_sums_of_parts_add_up() -> None:
    import torch
    from torchmetrics.functional.classification import multiclass_calibration_error

    rng = np.random.default_rng(0)
    n, k = 500, 4
    probabilities, labels, groups = rng.dirichlet(np.full(k, 0.4), size=n), rng.integers(k, size=n), rng.integers(3, size=n)
    right, confidence = probabilities.argmax(axis=1) == labels, probabilities.max(axis=1)
    sums = calibration_sums(groups, confidence, right, 4)
    found = calibration_error(sums)
    for group in range(3):
        mine = groups == group
        theirs = multiclass_calibration_error(torch.tensor(probabilities[mine]), torch.tensor(labels[mine]), k, n_bins=10, norm="l1")
        assert abs(found[group] - float(theirs)) < 1e-6  # their bins' edges are float32
    assert np.isnan(found[3])
    half = slice(0, 123), slice(123, None)
    np.testing.assert_allclose(sum(calibration_sums(groups[part], confidence[part], right[part], 4) for part in half), sums)
    assert calibration_error(calibration_sums(np.array([0, 0]), np.array([1.0, 0.0]), np.array([True, False]), 1)) == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: group_counts(np.array([0, 3]), np.array([0, 1]), np.array([0, 1]), 3, 2), "groups of shape (2,) and dtype int64 between 0 and 3"),
        (lambda: group_counts(np.array([0, 1]), np.array([0, 1]), np.array([0, -1]), 2, 2), "have no prediction"),
        (lambda: group_counts(np.array([0, 1]), np.array([0.0, 1.0]), np.array([0, 1]), 2, 2), "labels of shape (2,) and dtype float64"),
        (lambda: group_counts(np.array([0, 1]), np.array([0]), np.array([0, 1]), 2, 2), "labels of shape (1,)"),
        (lambda: group_metrics(np.zeros((2, 3, 2), int)), "counts (2, 3, 2)"),
        (lambda: wilson(np.array([1]), np.array([2]), level=95), "level 95; expected a number between 0 and 1"),
        (lambda: calibration_sums(np.array([0]), np.array([1.5]), np.array([True]), 1), "confidences between 1.5 and 1.5"),
        (lambda: calibration_sums(np.array([0]), np.array([np.nan]), np.array([True]), 1), "expected 0 to 1"),
        (lambda: calibration_sums(np.array([0]), np.array([0.5]), np.array([True, False]), 1), "right (2,)"),
    ],
)
def test_what_does_not_fit_is_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
