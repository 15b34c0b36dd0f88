"""Laws of matching units: what is the same in another order is found, what is not is no better than chance."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from scipy.stats import kstest

from netlapse.matching import by_index, match_units, placed
from netlapse.types import Float64


def normal(*shape: int, seed: int = 0) -> Float64:
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_units_in_another_order_are_found_again_also_when_they_are_not_quite_the_same(noise: float) -> None:
    profiles = normal(20, 60)
    order = np.random.default_rng(1).permutation(20)
    others = (3 * profiles + 10)[order] + 3 * noise * normal(20, 60, seed=2)
    found = match_units(profiles, others, permutations=19)
    assert found.pairs[:, 0].tolist() == list(range(20))
    assert order[found.pairs[:, 1]].tolist() == list(range(20))
    np.testing.assert_allclose(found.correlations, 1 / np.sqrt(1 + noise**2), atol=0.1 if noise else 1e-12)
    assert found.p == 1 / 20
    assert found.null_mean < 0.5 < found.mean
    assert found.alone[0].size == found.alone[1].size == 0
    assert str(found) == f"correlation {found.mean:.2f}, {found.null_mean:.2f} by chance"


def test_it_is_the_best_of_all_one_to_one_matchings_and_its_correlations_are_pearsons() -> None:
    profiles, others = normal(6, 9), normal(6, 9, seed=1)
    table = np.array([[np.corrcoef(a, b)[0, 1] for b in others] for a in profiles])
    best = max(permutations(range(6)), key=lambda order: sum(table[unit, order[unit]] for unit in range(6)))
    found = match_units(profiles, others)
    assert found.pairs[:, 1].tolist() == list(best)
    np.testing.assert_allclose(found.correlations, [table[unit, partner] for unit, partner in enumerate(best)], atol=1e-12)


def test_a_run_matches_another_as_the_other_matches_it() -> None:
    profiles, others = normal(7, 30), normal(11, 30, seed=1)
    one, back = match_units(profiles, others), match_units(others, profiles)
    assert {(a, b) for a, b in one.pairs.tolist()} == {(a, b) for b, a in back.pairs.tolist()}
    assert one.mean == pytest.approx(back.mean)
    assert one.sizes == back.sizes[::-1]
    assert one.alone[1].tolist() == back.alone[0].tolist()


def test_a_narrow_run_is_found_within_a_wide_one_and_the_rest_stays_alone() -> None:
    wide = normal(15, 40)
    some = np.array([14, 3, 7, 0])
    found = match_units(wide, wide[some] + 0.1 * normal(4, 40, seed=1))
    assert found.pairs.tolist() == [[0, 3], [3, 1], [7, 2], [14, 0]]
    assert found.alone[0].tolist() == [unit for unit in range(15) if unit not in some]
    assert found.alone[1].size == 0


def test_units_that_do_one_and_the_same_or_no_number_are_like_none_and_are_named() -> None:
    profiles = normal(6, 20)
    others = profiles[::-1].copy()
    profiles[2] = 0.1
    profiles[4, 3] = np.nan
    others[0] = 5 + 1e-7 * normal(20)  # the rounding of float32
    others[5] *= 1e200
    found = match_units(profiles, others)
    assert found.unmatchable[0].tolist() == [2, 4]
    assert found.unmatchable[1].tolist() == [0]
    # Unit 5 of the first is the one that is constant in the second: what is left for it is what the others leave.
    assert {(a, b) for a, b in found.pairs.tolist()} >= {(0, 5), (1, 4), (3, 2)}
    assert not {2, 4} & set(found.pairs[:, 0].tolist())
    assert found.alone[0].tolist() == [2, 4]
    none = match_units(np.zeros((3, 5)), others[:, :5])
    assert none.pairs.shape == (0, 2)
    assert np.isnan([none.mean, none.p, none.null_mean]).all()
    assert str(none) == "no units to match"


def test_of_independent_units_p_is_any_number_from_0_to_1_alike() -> None:
    found = [match_units(normal(5, 12, seed=2 * i), normal(4, 12, seed=2 * i + 1), permutations=39, seed=i).p for i in range(300)]
    # Uniform on 1/40, 2/40, ..., 1; the limits are those of 300 draws, four standard deviations wide.
    assert kstest(found, "uniform").statistic < 0.11
    assert abs(np.mean(np.array(found) <= 0.05) - 0.05) < 4 * np.sqrt(0.05 * 0.95 / 300)


def test_within_groups_the_null_knows_the_groups_and_chance_is_what_tells_inputs_of_one_apart() -> None:
    """Units that only know the class match far beyond a reordering of all inputs, and not beyond one within classes."""
    classes = np.repeat(np.arange(4), 15)
    ps = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        tuning = rng.normal(size=(6, 4))
        profiles, others = (tuning[:, classes] + 0.5 * rng.normal(size=(6, 60)) for _ in range(2))
        assert match_units(profiles, others, permutations=19).p == 1 / 20
        ps.append(match_units(profiles, others, within=classes, permutations=19).p)
    assert kstest(ps, "uniform").statistic < 0.25
    same = normal(6, 60)
    assert match_units(same, same[::-1], within=classes, permutations=19).p == 1 / 20


def test_the_null_within_groups_keeps_every_feature_in_its_group() -> None:
    """Profiles that are their group's number: any order within groups is the given one."""
    groups = np.array([0, 1, 1, 0, 2, 2, 1])
    profiles = np.stack([groups == group for group in range(3)]).astype(float)
    found = match_units(profiles, profiles, within=groups, permutations=10)
    np.testing.assert_allclose(found.null, 1)
    assert found.p == 1
    assert match_units(profiles, profiles, permutations=10).null_mean < 0.9


def test_the_null_is_of_the_features_in_another_order_each_of_them_once() -> None:
    profiles, others = normal(3, 4), normal(3, 4, seed=1)
    possible = [match_units(profiles, others[:, list(order)], permutations=0).mean for order in permutations(range(4))]
    found = match_units(profiles, others, permutations=60).null
    assert np.abs(found[:, None] - possible).min(axis=1).max() < 1e-12
    assert len(np.unique(found.round(9))) > 15


def test_the_same_seed_draws_the_same_null() -> None:
    profiles, others = normal(4, 10), normal(4, 10, seed=1)
    null = match_units(profiles, others, permutations=7).null
    np.testing.assert_array_equal(match_units(profiles, others, permutations=7).null, null)
    assert len(set(null.tolist())) > 1
    assert match_units(profiles, others, permutations=7, seed=1).null.tolist() != null.tolist()
    assert np.isnan(match_units(profiles, others, permutations=0).p)


def test_units_have_the_places_of_their_counterparts_and_those_without_none() -> None:
    wide = normal(5, 40)
    narrow = np.vstack([wide[[3, 1]], -wide[[3]]])
    positions = np.random.default_rng(0).random((5, 2))
    found = match_units(wide[[1, 3, 4]], narrow)
    places = placed(positions[[1, 3, 4]], found)
    np.testing.assert_array_equal(places[:2], positions[[3, 1]])
    weak = found.correlations[found.pairs[:, 1] == 2][0]
    assert np.isnan(places[2]).all() == (weak <= 0)
    assert np.isnan(placed(positions[[1, 3, 4]], found, least=0.99999)[2]).all()
    assert np.isfinite(placed(positions[[1, 3, 4]], found, least=-1)).all()
    np.testing.assert_array_equal(placed(positions, by_index(5, 3)), positions[:3])
    assert np.isnan(placed(positions[:3], by_index(3, 5))).all(axis=1).tolist() == [False] * 3 + [True] * 2


@pytest.mark.parametrize(("one", "other"), [((3, 4), (3, 5)), ((3, 2), (3, 2)), ((3,), (3, 4))])
def test_profiles_of_something_else_are_refused(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"match_units was given profiles \(.*\) and \(.*\), and 100 permutations; expected \(u, f\) and \(u2, f\)"):
        match_units(np.zeros(one), np.zeros(other))
    with pytest.raises(ValueError, match=r"was given groups \(2,\) to reorder within; expected \(3,\), one for each feature"):
        match_units(normal(4, 3), normal(4, 3), within=np.zeros(2, int))
    with pytest.raises(ValueError, match=r"placed was given positions \(3, 2\); expected \(4, 2\), of the first run's units"):
        placed(np.zeros((3, 2)), by_index(4, 3))
