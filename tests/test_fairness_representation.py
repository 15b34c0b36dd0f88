"""Laws of where groups are told apart: the definition written out, p-values that are right by chance, probes that find what is there."""

from __future__ import annotations

import re

import numpy as np
import pytest

from netlapse.analysis.fairness.representation import (
    decodability,
    differences,
    exceeded,
    group_differences,
    relabellings,
    standardised,
    within_classes,
)
from netlapse.analysis.rarest import neighbour_distances
from netlapse.types import Float64, Int64


def drawn(n: int = 60, u: int = 4, k: int = 3, g: int = 2, seed: int = 0) -> tuple[Float64, Int64, Int64]:
    """Responses that depend on the class alone, groups, classes."""
    rng = np.random.default_rng(seed)
    classes, groups = np.arange(n) % k, rng.integers(g, size=n)
    return rng.normal(size=(n, u)) + 3 * classes[:, None], groups, classes


def test_shuffled_groups_keep_the_number_of_each_in_each_class_and_the_first_is_as_it_is() -> None:
    _, groups, classes = drawn(g=3)
    shuffled = relabellings(groups, classes, 50, seed=1)
    np.testing.assert_array_equal(shuffled[0], groups)
    for labels in shuffled:
        for label in range(3):
            np.testing.assert_array_equal(np.sort(labels[classes == label]), np.sort(groups[classes == label]))
    assert len(np.unique(shuffled, axis=0)) == 51
    np.testing.assert_array_equal(shuffled, relabellings(groups, classes, 50, seed=1))
    assert (shuffled[1:] != relabellings(groups, classes, 50, seed=2)[1:]).any()


def test_the_difference_is_its_definition_one_input_after_another() -> None:
    responses, groups, classes = drawn(g=3)
    labellings = relabellings(groups, classes, 3, seed=0)
    found = differences(within_classes(responses, classes), labellings, classes)
    for labels, one in zip(labellings, found):
        total = 0.0
        for unit in responses.T:
            class_means = {c: unit[classes == c].mean() for c in range(3)}
            variance = np.mean([(x - class_means[c]) ** 2 for x, c in zip(unit, classes)])
            for x_group, x_class in zip(labels, classes):
                cell = unit[(labels == x_group) & (classes == x_class)]
                total += (cell.mean() - class_means[x_class]) ** 2 / variance
        assert abs(one - np.sqrt(total / responses.size)) < 1e-12


def test_two_groups_of_equal_size_differ_by_twice_it_and_it_is_at_most_1() -> None:
    responses, _, classes = drawn(n=60, u=1)
    groups = (np.arange(60) // 3) % 2
    found = differences(within_classes(responses, classes), groups[None], classes)[0]
    deviations = within_classes(responses, classes)[:, 0]
    apart = [deviations[(groups == 0) & (classes == c)].mean() - deviations[(groups == 1) & (classes == c)].mean() for c in range(3)]
    assert abs(2 * found - np.sqrt(np.mean(np.square(apart)))) < 1e-12
    told = np.where(groups, 5.0, -5.0)[:, None] + 10.0 * classes[:, None]  # nothing but the group within a class
    assert abs(differences(within_classes(told, classes), groups[None], classes)[0] - 1) < 1e-12


def test_what_only_the_class_tells_is_no_difference_and_scales_do_not_matter() -> None:
    responses, groups, _ = drawn(n=400, g=2)
    classes = groups.copy()  # each class one group: nothing is left within classes to tell groups by
    assert differences(within_classes(responses, classes), groups[None], classes)[0] < 1e-12
    responses, groups, classes = drawn()
    same = [differences(within_classes(r, classes), groups[None], classes)[0] for r in (responses, responses * [1e-30, 1e150, 7, -1] + [0, 0, 5, 9])]
    assert abs(same[0] - same[1]) < 1e-9


def test_units_that_do_not_vary_or_are_not_finite_have_no_part() -> None:
    responses, groups, classes = drawn()
    alone = differences(within_classes(responses, classes), groups[None], classes)
    nan, infinite, constant, of_class = np.full(60, 1.0), np.zeros(60), np.full(60, 0.1), 0.1 * classes
    nan[5], infinite[7] = np.nan, np.inf
    more = np.column_stack([responses, nan, infinite, constant, of_class])
    deviations = within_classes(more, classes)
    assert not deviations[:, 4:].any()
    np.testing.assert_array_equal(differences(deviations, groups[None], classes), alone)
    assert np.isnan(differences(within_classes(more[:, 4:], classes), groups[None], classes)).all()


def test_group_differences_are_zero_on_the_whole_and_nan_where_there_is_nobody() -> None:
    responses, groups, classes = drawn()
    found = group_differences(within_classes(responses, classes), groups, 3)
    counts = np.bincount(groups, minlength=2)
    np.testing.assert_allclose((found[:2] * counts[:, None]).sum(axis=0), 0, atol=1e-12)
    assert np.isnan(found[2]).all()
    shifted = responses + 2.0 * (groups == 1)[:, None]
    assert (group_differences(within_classes(shifted, classes), groups, 2)[1] > 0.3).all()


def run(trial: int, *, shift: float = 0.0, layers: int = 3, steps: int = 4) -> Float64:
    """(steps, layers) p-values of the last step, of layers and steps that depend on each other, where the attribute means nothing but a shift."""
    rng = np.random.default_rng(trial)
    n = 48
    classes, groups = np.arange(n) % 3, rng.integers(2, size=n)
    labellings = relabellings(groups, classes, 99, seed=0)
    base, maxima, scores = rng.normal(size=(n, 5)), np.full(100, -np.inf), []
    for _ in range(steps):
        base = base + 0.3 * rng.normal(size=base.shape)
        shown = [base + rng.normal(size=base.shape) + shift * (layer == 1) * groups[:, None] for layer in range(layers)]
        found = standardised(np.stack([differences(within_classes(one, classes), labellings, classes) for one in shown]))
        maxima, scores = np.maximum(maxima, found.max(axis=0)), [*scores, found[:, 0]]
    return exceeded(np.stack(scores), maxima)


def test_any_cell_of_all_layers_and_steps_is_marked_by_chance_as_often_as_alpha_says() -> None:
    smallest = np.array([run(trial).min() for trial in range(600)])
    assert 0.02 < (smallest <= 0.05).mean() < 0.08  # 5 %, with three standard errors
    assert 0.15 < (smallest <= 0.2).mean() < 0.25


def test_a_difference_that_is_there_is_found_where_it_is() -> None:
    found = np.stack([run(trial, shift=1.5) for trial in range(20)]) <= 0.05
    assert found[:, :, 1].mean() > 0.9
    assert found[:, :, [0, 2]].mean() < 0.05


def test_p_values_are_shares_of_labellings_and_rise_with_what_else_is_looked_at() -> None:
    maxima = np.array([2.0, 1.0, 3.0, 0.5])
    np.testing.assert_allclose(exceeded(np.array([2.0, 0.6, 9.0, np.nan]), maxima), [0.5, 0.75, 0.0, np.nan])
    assert (exceeded(np.array([2.0]), np.maximum(maxima, [0, 5, 0, 0])) >= exceeded(np.array([2.0]), maxima)).all()


def test_scores_of_labellings_that_are_all_alike_are_0() -> None:
    np.testing.assert_array_equal(standardised(np.full((1, 4), 0.3)), np.zeros((1, 4)))
    assert np.isnan(standardised(np.full((1, 4), np.nan))).all()
    scores = standardised(np.random.default_rng(0).random((2, 50)))
    np.testing.assert_allclose(scores.mean(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(scores.std(axis=1), 1)


def test_a_linear_probe_finds_what_is_there_and_no_more_than_the_commonest_group_where_nothing_is() -> None:
    rng = np.random.default_rng(0)
    groups = (rng.random(400) < 0.2).astype(int)
    nothing = rng.normal(size=(400, 3))
    there = nothing + 4.0 * groups[:, None]
    share = 1 - groups.mean()
    found, chance = decodability(there, groups), decodability(nothing, groups)
    assert found.accuracy > 0.97
    assert abs(chance.accuracy - share) < 0.02
    assert abs(found.baseline - share) < 1e-12
    assert chance.baseline == found.baseline
    # It has not seen what it is asked: of noise of many units nothing is known.
    balanced = np.arange(60) % 2
    assert decodability(rng.normal(size=(60, 200)), balanced).accuracy < 0.75


def test_a_probe_leaves_out_groups_with_fewer_inputs_than_folds_and_says_nothing_of_one_group() -> None:
    responses = np.random.default_rng(0).normal(size=(40, 2))
    groups = np.array([0] * 20 + [1] * 19 + [2])
    responses[groups == 1] += 9
    assert decodability(responses, groups).accuracy == 1
    assert decodability(responses, groups).baseline == decodability(responses[:-1], groups[:-1]).baseline
    assert np.isnan(decodability(responses[:20], groups[:20]).accuracy)
    assert np.isnan(decodability(np.full((40, 2), np.nan), groups).accuracy)
    assert np.isnan(decodability(np.ones((40, 2)), groups).baseline)


def test_distances_to_neighbours_are_those_of_all_pairs() -> None:
    features = np.random.default_rng(0).normal(size=(50, 3)) * [1, 100, 0.01]
    scaled = (features - features.mean(axis=0)) / features.std(axis=0)
    pairs = np.sort(np.linalg.norm(scaled[:, None] - scaled[None], axis=2), axis=1)[:, 1:6].mean(axis=1)
    np.testing.assert_allclose(neighbour_distances(features), pairs / np.median(pairs))
    more = np.column_stack([features, np.full(50, 0.1)])
    np.testing.assert_allclose(neighbour_distances(more), neighbour_distances(features))


def test_inputs_that_are_not_finite_have_no_distance_and_change_no_other() -> None:
    features = np.random.default_rng(0).normal(size=(50, 3))
    broken = np.concatenate([features, [[np.nan, 0, 0]]])
    found = neighbour_distances(broken)
    assert np.isnan(found[-1])
    np.testing.assert_allclose(found[:-1], neighbour_distances(features))
    np.testing.assert_array_equal(neighbour_distances(np.ones((9, 2))), np.ones(9))
    with pytest.raises(ValueError, match=re.escape("5 neighbours were asked of features (6, 2), 5 of them finite; expected (n, d), more than k")):
        neighbour_distances(np.concatenate([np.ones((5, 2)), [[np.inf, 1]]]))
