"""Laws of spread."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from scipy.spatial import cKDTree

from netlapse.analysis.layout import flas, forces, procrustes, random, spread
from netlapse.analysis.layout.base import filled
from netlapse.analysis.layout.forces import EXACT, local_force, mesh_force, pairwise_force
from netlapse.analysis.quality import motion


def blobs(units: int, clusters: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Positions as t-SNE and UMAP give them, tight clusters of uneven sizes in a wide space, and each unit's cluster."""
    rng = np.random.default_rng(seed)
    label = rng.choice(clusters, units, p=np.arange(1, clusters + 1) / np.arange(1, clusters + 1).sum())
    centres = np.stack([np.cos(np.arange(clusters)), np.sin(np.arange(clusters))], axis=1) * (2 + np.arange(clusters) % 2)[:, None]
    return centres[label] + 0.12 * rng.normal(size=(units, 2)), label


def literal_force(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The published local force on each unit, the mean over all units, word by word."""
    forces = []
    for x, y in points:
        across = down = 0.0
        for other_x, other_y in points:
            r = max(math.hypot(other_x - x, other_y - y), 0.01)
            f = 1.5 / (1 + r) ** 3 - 15 * math.exp(-r / 2)
            across, down = across + (other_x - x) * f, down + (other_y - y) * f
        forces.append((across / len(points), down / len(points)))
    return forces


def lattice_distance(points: np.ndarray) -> float:
    """Between neighbours of a square lattice that fills an ellipse of the points' covariance with as many points."""
    return float(np.sqrt(4 * np.pi * np.sqrt(np.linalg.det(np.cov(points.T, bias=True))) / len(points)))


def nearest(points: np.ndarray) -> np.ndarray:
    return cKDTree(points).query(points, 2)[0][:, 1]


def kept_neighbours(one: np.ndarray, other: np.ndarray, k: int = 10) -> float:
    pairs = zip(*(cKDTree(points).query(points, k + 1)[1][:, 1:] for points in (one, other)))
    return float(np.mean([len(np.intersect1d(*pair)) / k for pair in pairs]))


def widest_gap(points: np.ndarray) -> float:
    """The farthest that a place well within the disc about the points is from any of them, in lattice distances."""
    centred = points - points.mean(axis=0)
    radius = np.sqrt(2 * (centred**2).sum(axis=1).mean())  # of a uniform disc
    grid = np.stack(np.meshgrid(*[np.linspace(-radius, radius, 80)] * 2), axis=-1).reshape(-1, 2)
    inner = grid[np.linalg.norm(grid, axis=1) < 0.9 * radius]
    return float(cKDTree(centred).query(inner)[0].max() / (radius * np.sqrt(np.pi / len(points))))


CASES = {
    "clusters": blobs(300)[0],
    "a line": np.column_stack([np.random.default_rng(0).random(300), np.zeros(300)]),
    "an oblique line": np.outer(np.linspace(0, 1, 300), [1.0, 2.0]),
    "one place": np.full((300, 2), 0.25),
    "two places": np.repeat([[0.0, 0.0], [1.0, 0.3]], 150, axis=0),
    "one far away": np.vstack([1e-4 * np.random.default_rng(0).normal(size=(299, 2)), [[1.0, 1.0]]]),
    "each place twice": np.repeat(blobs(150)[0], 2, axis=0),
    "five units": np.random.default_rng(0).random((5, 2)),
}


@pytest.mark.parametrize("units", [1, 2, 3, 32, 70])
def test_forces_pair_by_pair_are_the_published_ones(units):
    points = filled(blobs(units, seed=units)[0]) * 30
    expected = literal_force([tuple(point) for point in points.tolist()])
    np.testing.assert_allclose(pairwise_force(points), expected, atol=1e-13)
    np.testing.assert_array_equal(local_force(points), pairwise_force(points))


@pytest.mark.parametrize("units", [EXACT + 1, 3000])
@pytest.mark.parametrize("extent", [0.01, 1.0, 10.0, 45.0])
def test_forces_of_many_units_are_the_sum_over_all_pairs_to_a_thousandth_of_the_largest(units, extent):
    for shape in (blobs(units)[0], np.random.default_rng(0).random((units, 2)), np.random.default_rng(0).normal(size=(units, 2)) * [1, 1e-3]):
        points = filled(shape) * extent - extent / 3
        exact = pairwise_force(points)
        assert np.abs(local_force(points) - exact).max() <= 1e-3 * np.abs(exact).max()
        np.testing.assert_array_equal(local_force(points), mesh_force(points))


@pytest.mark.parametrize("force", [pairwise_force, mesh_force])
def test_forces_cancel_over_all_units(force):
    mean = force(filled(blobs(500)[0]) * 45)
    np.testing.assert_allclose(mean.sum(axis=0), 0, atol=1e-12 * np.abs(mean).sum())


@pytest.mark.parametrize(("units", "steps"), [(30, 100), (60, 40)])
def test_without_spacing_it_is_the_published_dynamics(units, steps):
    positions = np.random.default_rng(units).normal(size=(units, 2))
    noise = np.random.default_rng(5).normal(scale=1e-6, size=(units, 2))
    order = np.lexsort((positions[:, 1], positions[:, 0]))
    points = [tuple(point) for point in (filled(positions)[order] + noise).tolist()]
    for k in range(steps):
        weight = (1 + math.tanh(-3 + 9 * k / (steps - 1))) / 2
        points = [(x + weight * across / 2, y + weight * down / 2) for (x, y), (across, down) in zip(points, literal_force(points))]
    np.testing.assert_allclose(spread(positions, seed=5, steps=steps, spacing=0)[order], filled(np.array(points)), atol=1e-9)


def test_the_dynamics_of_many_units_are_the_exact_ones_to_a_hundredth_of_the_map(monkeypatch):
    positions, _ = blobs(EXACT + 100)
    by_grid = spread(positions, spacing=0)
    monkeypatch.setattr(forces, "EXACT", 10**9)
    exact = spread(positions, spacing=0)
    assert 0 < np.abs(by_grid - exact).max() < 1e-2


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("spacing", [0.5, 0.8])
def test_no_two_units_are_nearer_than_promised(case, spacing):
    even = spread(CASES[case], spacing=spacing)
    assert nearest(even).min() >= 0.95 * spacing * lattice_distance(even) * (1 - 1e-9)
    crowded = spread(CASES[case], spacing=0)
    assert len(crowded) == 5 or nearest(crowded).min() < 0.4 * lattice_distance(crowded)


@pytest.mark.parametrize("case", ["clusters", "two places", "one far away", "each place twice"])
def test_what_was_a_few_crowds_becomes_a_disc_without_gaps(case):
    even = spread(CASES[case])
    narrow, wide = np.linalg.eigvalsh(np.cov(even.T))
    assert narrow / wide > 0.8
    assert widest_gap(even) < 1.2
    assert widest_gap(CASES[case]) > 3


def test_units_at_one_place_become_a_disc():
    even = spread(CASES["one place"])
    narrow, wide = np.linalg.eigvalsh(np.cov(even.T))
    assert narrow / wide > 0.8
    assert widest_gap(even) < 1.2


@pytest.mark.parametrize("steps", [0, 100])
def test_units_on_a_line_part_by_the_forces_and_are_not_pushed_along_it(steps):
    even = spread(CASES["a line"], steps=steps)
    narrow, wide = np.linalg.eigvalsh(np.cov(even.T))
    assert narrow / wide > 0.25 if steps else narrow / wide < 1e-6


def test_neighbours_stay_neighbours_and_clusters_clusters():
    positions, label = blobs(900)
    even = spread(positions)
    kept = kept_neighbours(positions, even)
    assert kept > 0.65
    assert kept > kept_neighbours(positions, flas(positions)) + 0.1
    assert kept_neighbours(positions, random(positions)) < 0.1
    around = cKDTree(even).query(even, 6)[1][:, 1:]
    assert (label[around] == label[:, None]).mean() > 0.9


def test_the_wider_the_spacing_the_more_regular_and_the_less_faithful():
    positions, _ = blobs(600)
    layouts = [spread(positions, spacing=spacing) for spacing in (0, 0.5, 0.8, 0.95)]
    regular = [np.percentile(nearest(even), 5) / lattice_distance(even) for even in layouts]
    faithful = [kept_neighbours(positions, even) for even in layouts]
    assert regular == sorted(regular)
    assert faithful == sorted(faithful, reverse=True)


def test_a_small_change_moves_little():
    positions, _ = blobs(600)
    drifted = positions + 1e-3 * np.random.default_rng(1).normal(size=positions.shape)
    moved = motion(spread(drifted), spread(positions))
    assert moved < 0.1
    assert motion(spread(blobs(600, seed=1)[0]), spread(positions)) > 0.5


def test_a_turned_layout_is_spread_to_the_turned_disc():
    positions = np.random.default_rng(0).normal(size=(200, 2))
    angle = 0.7
    turned = positions @ [[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]
    even = spread(positions)
    assert motion(procrustes(spread(turned), even), even) < 0.05


def test_the_order_of_the_units_does_not_matter():
    positions, _ = blobs(200)
    order = np.random.default_rng(0).permutation(200)
    np.testing.assert_array_equal(spread(positions[order]), spread(positions)[order])


def test_size_and_place_do_not_matter():
    positions = np.round(blobs(200)[0] * 2**20) / 2**20
    np.testing.assert_array_equal(spread(positions * 2**9 + 64), spread(positions))


def test_the_same_seed_gives_the_same_bytes_and_the_positions_are_left_alone():
    positions = CASES["each place twice"].copy()
    assert spread(positions, seed=3).tobytes() == spread(positions, seed=3).tobytes()
    np.testing.assert_array_equal(positions, CASES["each place twice"])
    assert not np.array_equal(spread(positions, seed=3), spread(positions, seed=4))


def test_without_steps_units_that_are_far_enough_apart_stay():
    lattice = np.stack(np.meshgrid(np.arange(12.0), np.arange(12.0)), axis=-1).reshape(-1, 2)
    np.testing.assert_allclose(spread(lattice, steps=0), filled(lattice), atol=2e-5)
    near = lattice.copy()
    near[0] = near[1] - [0.1, 0]
    moved = np.linalg.norm(spread(near, steps=0) - filled(near), axis=1) > 2e-2
    assert set(np.flatnonzero(moved)) <= {0, 1, 2, 13}
    assert moved[0]


def test_two_units_that_are_too_near_move_by_the_same_way_to_be_as_far_apart_as_asked():
    points = np.stack(np.meshgrid(np.arange(12.0), np.arange(12.0)), axis=-1).reshape(-1, 2)
    one, other = np.flatnonzero((points == [5, 5]).all(axis=1))[0], np.flatnonzero((points == [6, 5]).all(axis=1))[0]
    points[one] = [5.9, 5]
    even = spread(points, steps=0, spacing=0.5) * 11
    np.testing.assert_allclose(even[other] - even[one], [0.5 * lattice_distance(points), 0], atol=3e-4)
    np.testing.assert_allclose((even[other] + even[one]) / 2, [5.95, 5], atol=3e-4)


@pytest.mark.parametrize("case", CASES)
def test_positions_fill_the_unit_square(case):
    even = spread(CASES[case])
    low, high = even.min(axis=0), even.max(axis=0)
    assert even.dtype == np.float64
    assert (low >= 0).all()
    assert (high <= 1).all()
    assert (high - low).max() == pytest.approx(1)
    np.testing.assert_allclose((low + high) / 2, 0.5)


def test_one_unit_lies_at_the_centre_and_two_across_the_map():
    np.testing.assert_allclose(spread(np.array([[7.0, -3.0]])), [[0.5, 0.5]])
    np.testing.assert_allclose(spread(np.array([[2.0, 1.0], [0.0, 1.0]])), [[1.0, 0.5], [0.0, 0.5]], atol=1e-5)
    parted = spread(np.zeros((2, 2)))
    assert (np.ptp(parted, axis=0)).max() == pytest.approx(1)


def test_memory_does_not_grow_with_the_square_of_the_units():
    positions, _ = blobs(8000)
    tracemalloc.start()
    spread(positions, steps=5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * 2**20  # all pairs take 512 MiB


def test_what_cannot_be_spread_is_named():
    bad = np.zeros((6, 2))
    bad[[1, 4]] = [[np.nan, 0], [0, np.inf]]
    with pytest.raises(ValueError, match=r"NaN or infinity in 2 of 6 units, \[1, 4\] first; leave these units out"):
        spread(bad)
    for shape in [(0, 2), (3, 3), (4,)]:
        with pytest.raises(ValueError, match=r"have shape .*; expected \(u, 2\) with u >= 1"):
            spread(np.zeros(shape))
    with pytest.raises(ValueError, match="steps is -1; expected at least 0"):
        spread(np.zeros((3, 2)), steps=-1)
    for spacing in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match=rf"spacing is {spacing}; expected 0 .* to 1"):
            spread(np.zeros((3, 2)), spacing=spacing)
