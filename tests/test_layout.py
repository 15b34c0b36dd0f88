"""Laws of the layouts."""

from __future__ import annotations

from itertools import pairwise, permutations

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from netlapse.analysis.layout import base, flas, metric_space, pca, procrustes, random
from netlapse.analysis.quality import motion, trustworthiness

LAYOUTS = [random, pca, flas]


def structured(units: int, features: int = 12, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.maximum(rng.normal(size=(units, 3)) @ rng.normal(size=(3, features)), 0) + 0.02 * rng.normal(size=(units, features))


def turned(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def rows_of(positions: np.ndarray) -> set[tuple[float, ...]]:
    return set(map(tuple, np.round(positions, 9).tolist()))


@pytest.mark.parametrize("place", LAYOUTS)
@pytest.mark.parametrize("units", [1, 2, 3, 4, 5, 17, 64, 65, 200])
@pytest.mark.parametrize("features", [1, 2, 10])
def test_positions_are_float64_in_the_unit_square_for_any_number_of_units_and_features(place, units, features):
    profiles = structured(units, features)
    positions = place(profiles, seed=1)
    again = place(profiles + 0.1, seed=1, previous=positions)
    for one in (positions, again):
        assert one.shape == (units, 2)
        assert one.dtype == np.float64
        assert ((one >= 0) & (one <= 1)).all()


@pytest.mark.parametrize("place", LAYOUTS)
def test_the_same_seed_gives_the_same_bytes(place):
    profiles = structured(150)
    before = profiles.copy()
    assert place(profiles, seed=3).tobytes() == place(profiles, seed=3).tobytes()
    np.testing.assert_array_equal(profiles, before)


@pytest.mark.parametrize("place", [random, flas])
def test_another_seed_gives_another_layout(place):
    profiles = structured(150)
    assert not np.array_equal(place(profiles, seed=3), place(profiles, seed=4))


def test_rounding_noise_in_the_profiles_moves_no_unit():
    profiles = structured(300)
    noisy = profiles * (1 + 1e-7 * np.random.default_rng(1).normal(size=profiles.shape))
    np.testing.assert_array_equal(flas(profiles), flas(noisy))


def test_a_random_layout_stands_still_while_the_network_learns():
    first = random(structured(50), seed=2)
    np.testing.assert_array_equal(random(structured(50, seed=9), seed=2, previous=first), first)


@pytest.mark.parametrize("units", [2, 3, 7, 30, 65, 500])
def test_flas_puts_one_unit_in_each_cell_of_a_full_disc(units):
    positions = flas(structured(units))
    side = pdist(positions).min()
    steps = (positions - positions[0]) / side
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-6)  # a square lattice, the same spacing across and down
    cells = rows_of(np.round(steps))
    assert len(cells) == units
    radius = np.linalg.norm(positions - positions.mean(axis=0), axis=1).max() / side
    assert radius <= np.sqrt(units / np.pi) + 1.2
    for y in {cell[1] for cell in cells}:  # no empty cell inside: every row of cells is an interval
        row = sorted(cell[0] for cell in cells if cell[1] == y)
        assert row[-1] - row[0] == len(row) - 1
    assert rows_of(flas(structured(units, seed=1))) == rows_of(positions)


@pytest.mark.parametrize("place", [pca, flas])
def test_the_longer_side_fills_the_unit_interval_about_the_middle(place):
    positions = place(structured(90))
    low, high = positions.min(axis=0), positions.max(axis=0)
    assert (high - low).max() == pytest.approx(1)
    np.testing.assert_allclose((low + high) / 2, 0.5)


@pytest.mark.parametrize("place", [pca, flas])
def test_a_single_unit_lies_at_the_centre(place):
    np.testing.assert_array_equal(place(np.array([[1.0, 2.0]])), [[0.5, 0.5]])


def test_flas_shows_structure_and_finds_none_in_noise():
    profiles = structured(400)
    noise = np.random.default_rng(0).normal(size=(400, 60))
    assert trustworthiness(profiles, flas(profiles)) > trustworthiness(profiles, random(profiles)) + 0.4
    assert trustworthiness(profiles, flas(profiles)) > trustworthiness(profiles, pca(profiles)) + 0.02
    fresh = np.random.default_rng(1).normal(size=(400, 60))
    assert abs(trustworthiness(fresh, flas(noise)) - 0.5) < 0.03


@pytest.mark.parametrize(("units", "bound"), [(512, 0.955), (2048, 0.979)])
def test_flas_is_as_trustworthy_as_measured_for_it(units, bound):
    rng = np.random.default_rng(0)
    rows = np.maximum(rng.normal(size=(units, 5)) @ rng.normal(size=(5, 100)), 0) + 0.05 * rng.normal(size=(units, 100))
    rows = metric_space(rows, "correlation")
    assert trustworthiness(rows, flas(rows)) >= bound


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("penalty", [0.0, 0.05, 0.07, 0.1, 0.15, 0.2, 0.5, 5.0])
def test_flas_of_few_units_is_its_definition_word_by_word(seed, penalty):
    """Six units are one block, so each round takes the best of all 720 permutations."""
    rng = np.random.default_rng(seed)
    profiles = rng.normal(size=(6, 3))
    cells = np.unique(np.round(flas(profiles) * 2, 6), axis=0)  # two cells by three, half a side apart
    places = cells - cells.mean(axis=0)  # in radii: the longer side runs from -1 to 1
    scores = profiles - profiles.mean(axis=0)
    scores /= np.sqrt((scores**2).sum(axis=1).mean())
    at = rng.permutation(6)
    previous, was = places[at] / 2 + 0.5, places[at]
    radius = 2.0
    while radius >= 1:
        reach = 2 * round(radius) + 1
        weights = np.maximum(reach - np.abs(cells[:, None] - cells[None]), 0).prod(axis=-1)
        wishes = weights[:, at] @ scores / weights.sum(axis=1, keepdims=True)
        spread = np.sqrt(((wishes - wishes.mean(axis=0)) ** 2).sum(axis=1).mean())
        price = ((scores[:, None] - wishes[None]) ** 2).sum(axis=-1) + penalty * spread * ((was[:, None] - places[None]) ** 2).sum(axis=-1)
        at = np.array(min(permutations(range(6)), key=lambda order: price[range(6), order].sum()))
        radius *= 0.93
    np.testing.assert_allclose(flas(profiles, previous=previous, movement_penalty=penalty), places[at] / 2 + 0.5, atol=1e-9)


@pytest.mark.parametrize("units", [16, 32, 64, 256])
def test_the_usual_penalty_freezes_no_disc_however_small(units):
    profiles, trusted = structured(units, seed=5), []
    unrelated = flas(structured(units, seed=6))
    for penalty in (0, 0.2):
        positions = flas(profiles, previous=flas(profiles, previous=unrelated, movement_penalty=penalty), movement_penalty=penalty)
        trusted.append(trustworthiness(profiles, positions) - trustworthiness(profiles, unrelated))
    assert trusted[1] > 0.6 * trusted[0] > 0


@pytest.mark.parametrize("units", [9, 20, 60])
def test_small_discs_are_sorted_too(units):
    profiles = np.random.default_rng(0).random((units, 2))
    shuffled = np.random.default_rng(1).permutation(flas(profiles))
    after = flas(profiles, previous=shuffled, movement_penalty=0)
    assert trustworthiness(profiles, after, k=4) > trustworthiness(profiles, shuffled, k=4) + 0.1


def test_the_movement_penalty_trades_order_for_rest():
    before, after = structured(256), 0.7 * structured(256) + 0.3 * structured(256, seed=1)
    first = flas(before)
    moved = [motion(flas(after, previous=first, movement_penalty=penalty), first) for penalty in (0, 0.2, 1, 5, 1e6)]
    assert all(later <= earlier for earlier, later in pairwise(moved))
    assert moved[0] > 1.15 * moved[1] > 0
    assert moved[0] > 1.3 * moved[2]
    assert moved[-1] == 0
    assert moved[0] < 0.6 * motion(flas(after), first)


def test_units_start_from_where_they_were():
    profiles = structured(256)
    first = flas(profiles)
    assert motion(flas(profiles, previous=first), first) < 0.1
    mirrored = first[:, ::-1] if rows_of(first[:, ::-1]) == rows_of(first) else 1 - first
    assert motion(flas(profiles, previous=mirrored), mirrored) < 0.1


@pytest.mark.parametrize("units", [60, 1100])
def test_positions_of_another_layout_are_taken_to_the_cells_in_order(units):
    profiles = structured(units)
    before = pca(profiles)
    positions = flas(profiles, previous=before, movement_penalty=1e6)
    assert rows_of(positions) == rows_of(flas(profiles))
    for axis in (0, 1):
        assert np.corrcoef(before[:, axis], positions[:, axis])[0, 1] > 0.8


def test_identical_profiles_end_up_together():
    profiles = structured(300)
    profiles[40:70] = 0
    positions = flas(profiles)[40:70]
    compact = np.sqrt(30 / np.pi) * pdist(flas(profiles)).min()
    assert np.linalg.norm(positions - positions.mean(axis=0), axis=1).mean() < 1.2 * compact


@pytest.mark.parametrize("value", [0.0, 0.1])
@pytest.mark.parametrize("metric", ["euclidean", "cosine", "correlation"])
def test_profiles_that_are_all_the_same_still_have_a_layout(value, metric):
    profiles = np.full((40, 7), value)
    assert len(rows_of(flas(profiles, metric=metric))) == 40
    np.testing.assert_array_equal(pca(profiles, metric=metric), np.full((40, 2), 0.5))


def test_pca_agrees_with_scikit_learn():
    from sklearn.decomposition import PCA

    profiles = structured(80)
    scores = PCA(2).fit_transform(profiles)
    np.testing.assert_allclose(procrustes(pca(profiles), scores), scores, atol=1e-9)


@pytest.mark.parametrize("shape", [(30, 100), (520, 530)])
def test_components_are_the_same_however_they_are_found(shape):
    rng = np.random.default_rng(0)
    profiles = rng.normal(size=(shape[0], 3)) * [9, 4, 2] @ rng.normal(size=(3, shape[1])) + 0.1 * rng.normal(size=shape)
    centred = profiles - profiles.mean(axis=0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(np.abs(base.principal_components(profiles, 3, 0)), np.abs(left[:, :3] * values[:3]), rtol=1e-6, atol=1e-6 * values[0])


def test_pca_takes_its_orientation_from_the_previous_layout():
    profiles = structured(120)
    first = pca(profiles)
    for flip in (1, -1):
        seen = 0.4 * ((first - 0.5) * [1, flip]) @ turned(2.0) + 0.5
        after = pca(profiles, previous=seen)
        np.testing.assert_allclose(procrustes(after, seen), seen, atol=1e-9)
        np.testing.assert_allclose(base.rotation(after, seen), np.eye(2), atol=1e-9)
        assert np.ptp(after, axis=0).max() == pytest.approx(1)
        np.testing.assert_allclose(pca(profiles + 1e-6, previous=after), after, atol=1e-6)


def test_procrustes_undoes_rotation_reflection_shift_and_scale_but_not_a_shear():
    reference = random(structured(30))
    moved = 3.7 * (reference * [1, -1]) @ turned(0.7) + [5, -2]
    np.testing.assert_allclose(procrustes(moved, reference), reference, atol=1e-12)
    sheared = reference @ np.array([[1, 0.8], [0, 1]])
    assert np.abs(procrustes(sheared, reference) - reference).max() > 0.05


def test_procrustes_is_the_best_of_many_similarities():
    rng = np.random.default_rng(0)
    positions, reference = rng.random((20, 2)), rng.random((20, 2))
    best = ((procrustes(positions, reference) - reference) ** 2).sum()
    for _ in range(2000):
        angle, scale, shift, flip = rng.uniform(0, 7), rng.uniform(0, 1.5), rng.normal(size=2) * 0.1, rng.choice([-1, 1])
        other = scale * ((positions - positions.mean(axis=0)) * [1, flip]) @ turned(angle) + reference.mean(axis=0) + shift
        assert ((other - reference) ** 2).sum() >= best


def test_procrustes_moves_coinciding_positions_to_the_centroid():
    reference = random(structured(5))
    np.testing.assert_allclose(procrustes(np.full((5, 2), 7.0), reference), np.tile(reference.mean(axis=0), (5, 1)))


@pytest.mark.parametrize("metric", ["cosine", "correlation"])
def test_squared_distance_is_twice_the_metric(metric):
    profiles = np.random.default_rng(0).normal(size=(30, 6)) + 1
    np.testing.assert_allclose(pdist(metric_space(profiles, metric), "sqeuclidean"), 2 * pdist(profiles, metric), atol=1e-12)


def test_a_row_without_direction_stays_zero_even_after_rounding():
    profiles = np.array([[0.0, 0, 0], [0.1, np.nextafter(0.1, 1), 0.1], [1e-9, 2e-9, 3e-9]])
    assert not metric_space(profiles, "cosine")[0].any()
    assert not metric_space(profiles, "correlation")[:2].any()
    np.testing.assert_allclose(np.linalg.norm(metric_space(profiles, "correlation")[2]), 1)


@pytest.mark.parametrize("place", [pca, flas])
def test_the_metric_decides_who_is_similar(place):
    rng = np.random.default_rng(0)
    directions = structured(100)
    lengths = np.exp(3 * rng.normal(size=(100, 1)))
    np.testing.assert_allclose(place(lengths * directions, metric="cosine"), place(directions, metric="cosine"), atol=1e-9)
    assert not np.allclose(place(lengths * directions), place(directions), atol=1e-2)


@pytest.mark.parametrize("place", LAYOUTS)
def test_layouts_say_what_is_wrong(place):
    profiles = structured(10, 4)
    with pytest.raises(ValueError, match=r"unknown metric 'manhattan'; allowed are \['euclidean', 'cosine', 'correlation'\]"):
        place(profiles, metric="manhattan")
    with pytest.raises(ValueError, match=r"shape \(4,\); expected \(u, f\)"):
        place(profiles[0])
    with pytest.raises(ValueError, match=r"shape \(0, 4\)"):
        place(profiles[:0])
    with pytest.raises(ValueError, match=r"previous layout has shape \(9, 2\) .* expected \(10, 2\)"):
        place(profiles, previous=np.zeros((9, 2)))
    profiles[7, 2] = np.nan
    with pytest.raises(ValueError, match=r"1 of 10 units, \[7\] first, and in 1 of 4 columns, \[2\] first; drop the columns of empty groups"):
        place(profiles)


def test_flas_and_procrustes_say_what_is_wrong():
    with pytest.raises(ValueError, match=r"movement_penalty is -1; expected a finite number of at least 0"):
        flas(structured(5), movement_penalty=-1)
    with pytest.raises(ValueError, match=r"reference layout has shape \(4, 2\)"):
        procrustes(np.zeros((5, 2)), np.zeros((4, 2)))
    with pytest.raises(ValueError, match=r"positions have shape \(5, 3\)"):
        procrustes(np.zeros((5, 3)), np.zeros((5, 2)))
