"""Laws of the units that are laid out apart."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from netlapse.analysis.layout import apart, fixed, flas, mds, over_time, pca, procrustes, random
from netlapse.analysis.layout.parts import REACH, rim

LAYOUTS = [flas, pca, mds, random]


def structured(units: int, features: int = 8, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.maximum(rng.normal(size=(units, 3)) @ rng.normal(size=(3, features)), 0) + 0.02 * rng.normal(size=(units, features))


def some_dead(units: int, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    dead = np.zeros(units, dtype=bool)
    dead[np.random.default_rng(seed).choice(units, count, replace=False)] = True
    profiles = structured(units)
    profiles[dead] = 0
    return profiles, dead


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("units", "count"), [(2, 1), (3, 2), (10, 1), (60, 7), (60, 40), (60, 59), (300, 64)])
def test_the_living_keep_their_layout_and_the_dead_lie_outside_them(layout, units, count):
    profiles, dead = some_dead(units, count)
    positions = apart(profiles, dead, layout=layout, seed=2)
    assert ((positions >= 0) & (positions <= 1)).all()
    alone = layout(profiles[~dead], seed=2)
    extent = ((alone - 0.5) ** 2).sum()
    scale = ((positions[~dead] - 0.5) * (alone - 0.5)).sum() / extent if extent else 1.0
    np.testing.assert_allclose(positions[~dead], 0.5 + scale * (alone - 0.5), atol=1e-12)
    radius = np.linalg.norm(positions - 0.5, axis=1)
    np.testing.assert_allclose(radius[dead], 0.5)
    assert radius[~dead].max() == pytest.approx(REACH if extent else 0)
    if count > 1:
        assert pdist(positions[dead]).min() > 0.04, "about a sixty-fourth of the rim"


def test_few_dead_units_make_an_arc_about_the_bottom():
    profiles, dead = some_dead(60, 5)
    positions = apart(profiles, dead, layout=flas)[dead] - 0.5
    assert (positions[:, 1] < -0.45).all()
    lowest = positions[positions[:, 1].argmin()]
    np.testing.assert_allclose(lowest, [0, -0.5], atol=1e-12)
    np.testing.assert_allclose(np.sort(positions[:, 0]), -np.sort(positions[:, 0])[::-1], atol=1e-12)


@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 128, 129, 3000])
def test_the_rim_has_a_place_of_its_own_for_every_dead_unit_and_keeps_it_while_places_are_left(count):
    places = rim(count)
    assert len(np.unique(np.round(places, 9), axis=0)) == count
    size = max(64, 2 ** int(np.ceil(np.log2(count))))
    step = 2 * 0.5 * np.sin(np.pi / size)
    if count > 1:
        assert pdist(places).min() == pytest.approx(step)
    if count < size:
        np.testing.assert_array_equal(rim(count + 1)[:count], places)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_without_dead_units_it_is_the_layout_itself(layout):
    profiles, before = structured(40), random(structured(40), seed=9)
    dead = np.zeros(40, dtype=bool)
    np.testing.assert_array_equal(apart(profiles, dead, layout=layout, seed=1), layout(profiles, seed=1))
    np.testing.assert_array_equal(apart(profiles, dead, layout=layout, seed=1, previous=before), layout(profiles, seed=1, previous=before))


def test_under_a_fixed_layout_no_unit_leaves_its_place():
    profiles, dead = some_dead(40, 5)
    places = random(profiles, seed=3)
    np.testing.assert_array_equal(apart(profiles, dead, layout=partial(fixed, positions=places)), places)
    np.testing.assert_array_equal(apart(profiles, dead, layout=partial(over_time, layout=fixed, spread=True), previous=places), places)


def test_only_dead_units_make_a_full_disc_and_rest_there():
    dead = np.ones(50, dtype=bool)
    positions = apart(np.zeros((50, 3)), dead, layout=pca)
    assert set(map(tuple, np.round(positions, 9))) == set(map(tuple, np.round(flas(structured(50)), 9)))
    np.testing.assert_array_equal(apart(np.zeros((50, 3)), dead, layout=pca, previous=positions), positions)


@pytest.mark.parametrize("layout", [flas, pca, mds])
def test_the_layout_is_handed_where_the_living_were(layout):
    profiles, dead = some_dead(90, 11)
    handed = []

    def spy(rows, *, seed, previous):
        handed.append(previous)
        return layout(rows, seed=seed, previous=previous)

    first = apart(profiles, dead, layout=spy)
    second = apart(profiles, dead, layout=spy, previous=first)
    assert handed[0] is None
    np.testing.assert_allclose(handed[1], layout(profiles[~dead], seed=0), atol=1e-12)
    np.testing.assert_allclose(second[dead], first[dead], atol=1e-12)


def test_flas_finds_its_cells_again():
    profiles, dead = some_dead(120, 30)
    first = apart(profiles, dead, layout=flas)
    still = apart(profiles, dead, layout=partial(flas, movement_penalty=1e9), previous=first)
    np.testing.assert_allclose(still, first, atol=1e-12)


@pytest.mark.parametrize("units", [200, 3000])
def test_units_that_stay_dead_stay_where_they_are(units):
    profiles, dead = some_dead(units, units // 2)
    first = apart(profiles, dead, layout=random)
    more = dead.copy()
    more[np.flatnonzero(~dead)[0]] = True
    second = apart(profiles, more, layout=random, previous=first)
    stayed = np.linalg.norm(second[dead] - first[dead], axis=1) < 1e-6
    assert stayed.mean() > 0.95
    assert len(np.unique(np.round(second, 9), axis=0)) == units


def test_it_goes_with_what_keeps_layouts_calm():
    profiles, dead = some_dead(60, 10)
    place = partial(over_time, layout=pca, movement_penalty=0.5, procrustes=True)
    first = apart(profiles, dead, layout=place)
    second = apart(structured(60, seed=3), dead, layout=place, previous=first)
    assert ((second >= 0) & (second <= 1)).all()
    assert np.abs(procrustes(second[~dead], first[~dead]) - first[~dead]).max() > 1e-3


def test_it_says_what_is_wrong():
    with pytest.raises(ValueError, match=r"dead has shape \(4,\) and type bool; expected \(5,\) of bool, one for each unit"):
        apart(structured(5), np.zeros(4, dtype=bool), layout=flas)
    with pytest.raises(ValueError, match=r"dead has shape \(2,\) and type int64; expected \(5,\) of bool"):
        apart(structured(5), np.array([1, 3]), layout=flas)
    with pytest.raises(ValueError, match=r"previous layout has shape \(4, 2\)"):
        apart(structured(5), np.ones(5, dtype=bool), layout=flas, previous=np.zeros((4, 2)))
