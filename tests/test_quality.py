"""Laws of the layout metrics."""

from __future__ import annotations

from itertools import pairwise, permutations

import numpy as np
import pytest
from PIL import Image
from sklearn import manifold
from sklearn.neighbors import NearestNeighbors

from netlapse.analysis import quality
from netlapse.analysis.layout import flas, metric_space, random
from netlapse.analysis.quality import (
    blur_error,
    components,
    continuity,
    hull_coverage,
    measures,
    morans_i,
    motion,
    neighbour_preservation,
    null_measures,
    resize_error,
    trustworthiness,
)
from netlapse.field import covered, fields, interpolation

FLOAT32 = 2e-6  # errors are computed in float32: 2 ** -24 of maps of size 1, some hundred of which are added up


def literal(profiles: np.ndarray, positions: np.ndarray, k: int) -> float:
    """Venna and Kaski, 2001, eq. 1, word by word; no ties allowed."""
    n, total = len(profiles), 0
    for i in range(n):
        by_profile = sorted((j for j in range(n) if j != i), key=lambda j: np.linalg.norm(profiles[i] - profiles[j]))
        on_map = sorted((j for j in range(n) if j != i), key=lambda j: np.linalg.norm(positions[i] - positions[j]))
        false_neighbours = set(on_map[:k]) - set(by_profile[:k])
        total += sum(by_profile.index(j) + 1 - k for j in false_neighbours)
    return 1 - 2 / (n * k * (2 * n - 3 * k - 1)) * total


@pytest.mark.parametrize("k", [1, 4, 9])
def test_trustworthiness_is_the_published_definition(k):
    rng = np.random.default_rng(k)
    profiles, positions = rng.normal(size=(25, 5)), rng.random((25, 2))
    assert trustworthiness(profiles, positions, k=k) == pytest.approx(literal(profiles, positions, k), abs=1e-12)


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "correlation"])
def test_trustworthiness_agrees_with_scikit_learn(metric):
    rng = np.random.default_rng(0)
    profiles, positions = rng.normal(size=(300, 8)) + 1, rng.random((300, 2))
    peer = manifold.trustworthiness(profiles, positions, n_neighbors=10, metric=metric)
    assert trustworthiness(profiles, positions, metric=metric) == pytest.approx(peer, abs=1e-12)


def test_a_faithful_map_is_trusted_and_a_shuffled_one_is_not():
    positions = np.random.default_rng(0).random((200, 2))
    assert trustworthiness(positions, 3 * positions + 1) == 1
    assert trustworthiness(positions, np.random.default_rng(1).permutation(positions)) == pytest.approx(0.5, abs=0.05)


def test_ties_on_a_lattice_are_the_mean_over_all_ways_to_break_them():
    rng = np.random.default_rng(0)
    profiles = rng.normal(size=(60, 6))
    positions = flas(profiles)
    broken = [manifold.trustworthiness(profiles, positions + 1e-6 * rng.normal(size=positions.shape), n_neighbors=10) for _ in range(400)]
    assert trustworthiness(profiles, positions) == pytest.approx(np.mean(broken), abs=4 * np.std(broken) / 20)


def test_the_order_of_the_units_does_not_matter():
    profiles = np.random.default_rng(0).normal(size=(100, 6))
    profiles[:20] = 0
    positions, order = flas(profiles), np.random.default_rng(1).permutation(100)
    assert trustworthiness(profiles[order], positions[order]) == pytest.approx(trustworthiness(profiles, positions), abs=1e-12)


def test_identical_profiles_are_no_ones_false_neighbours():
    positions = np.random.default_rng(0).random((50, 2))
    assert trustworthiness(np.ones((50, 3)), positions) == 1


def test_positions_all_at_one_point_are_worth_nothing():
    profiles = np.random.default_rng(0).normal(size=(101, 4))
    assert trustworthiness(profiles, np.zeros((101, 2))) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("units", [1, 2, 3])
def test_fewer_than_four_units_have_no_trustworthiness(units):
    assert np.isnan(trustworthiness(np.eye(3)[:units], np.zeros((units, 2))))


@pytest.mark.parametrize("units", [4, 5, 12, 20])
def test_k_is_lowered_to_what_the_units_allow(units):
    rng = np.random.default_rng(units)
    profiles, positions = rng.normal(size=(units, 5)), rng.random((units, 2))
    allowed = (units - 1) // 2
    assert trustworthiness(profiles, positions, k=10) == pytest.approx(literal(profiles, positions, min(10, allowed)), abs=1e-12)


def test_many_units_are_estimated_from_a_seeded_sample(monkeypatch):
    rng = np.random.default_rng(0)
    profiles = rng.normal(size=(900, 2))
    positions = profiles + 0.3 * rng.normal(size=(900, 2))
    exact = trustworthiness(profiles, positions)
    monkeypatch.setattr(quality, "SAMPLE", 300)
    estimates = [trustworthiness(profiles, positions, seed=seed) for seed in range(20)]
    assert trustworthiness(profiles, positions, seed=3) == estimates[3] != estimates[4]
    assert np.mean(estimates) == pytest.approx(exact, abs=4 * np.std(estimates) / np.sqrt(20))


def test_the_sample_begins_beyond_2048_units_and_its_distances_do_not_grow_with_them():
    assert [quality._judged(units) for units in (2048, 2049, 4096, 8192, 16384, 100_000)] == [2048, 2047, 1024, 512, 256, 256]


def test_motion_is_the_mean_displacement_in_radii():
    previous = np.array([[0.0, 0], [2, 0], [0, 2], [2, 2]])  # radius sqrt(2)
    assert motion(previous, previous) == 0
    assert motion(previous + np.array([3, 4]), previous) == pytest.approx(5 / np.sqrt(2))
    assert motion(previous + np.array([[1.0, 0], [0, 0], [0, 0], [0, 0]]), previous) == pytest.approx(0.25 / np.sqrt(2))
    assert motion(7 * previous[::-1] + 1, 7 * previous + 1) == pytest.approx(motion(previous[::-1], previous))


def test_motion_without_extent_is_undefined():
    assert np.isnan(motion(np.zeros((1, 2)), np.zeros((1, 2))))


def test_metrics_say_what_is_wrong():
    profiles = np.eye(5)
    with pytest.raises(ValueError, match=r"positions have shape \(4, 2\); expected \(5, 2\)"):
        trustworthiness(profiles, np.zeros((4, 2)))
    with pytest.raises(ValueError, match="k is 0; expected at least 1"):
        trustworthiness(profiles, np.zeros((5, 2)), k=0)
    with pytest.raises(ValueError, match="unknown metric 'x'"):
        trustworthiness(profiles, np.zeros((5, 2)), metric="x")
    with pytest.raises(ValueError, match=r"positions have shape \(5, 2\) and previous \(4, 2\)"):
        motion(np.zeros((5, 2)), np.zeros((4, 2)))


def test_trustworthiness_does_not_depend_on_the_metric_space_it_is_given():
    profiles = np.random.default_rng(0).normal(size=(60, 5))
    positions = np.random.default_rng(1).random((60, 2))
    assert trustworthiness(profiles, positions, metric="cosine") == trustworthiness(metric_space(profiles, "cosine"), positions)


@pytest.mark.parametrize("k", [1, 4, 9])
def test_continuity_is_the_published_definition(k):
    rng = np.random.default_rng(k)
    profiles, positions = rng.normal(size=(25, 5)), rng.random((25, 2))
    assert continuity(profiles, positions, k=k) == pytest.approx(literal(positions, profiles, k), abs=1e-12)


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "correlation"])
def test_continuity_is_scikit_learns_trustworthiness_with_swapped_arguments(metric):
    rng = np.random.default_rng(0)
    profiles, positions = rng.normal(size=(300, 8)) + 1, rng.random((300, 2))
    peer = manifold.trustworthiness(positions, metric_space(profiles, metric), n_neighbors=10)
    assert continuity(profiles, positions, metric=metric) == pytest.approx(peer, abs=1e-12)


def test_a_torn_map_is_not_continuous_and_a_folded_one_not_to_be_trusted():
    angle = np.linspace(0, 2 * np.pi, 100, endpoint=False)
    ring = np.column_stack([np.cos(angle), np.sin(angle)])
    torn, folded = np.column_stack([angle, np.zeros(100)]), np.column_stack([np.abs(angle - np.pi) + 1e-6 * angle, np.zeros(100)])
    assert continuity(ring, torn) < 0.975 < 0.99 < trustworthiness(ring, torn)
    assert trustworthiness(ring, folded) < 0.8 < 0.96 < continuity(ring, folded)


def neighbours(points: np.ndarray, k: int) -> list[set[int]]:
    """Of every unit, by sorting; no ties allowed."""
    units = range(len(points))
    return [set(sorted((j for j in units if j != i), key=lambda j: np.linalg.norm(points[i] - points[j]))[:k]) for i in units]


@pytest.mark.parametrize("k", [1, 3, 7])
def test_neighbour_preservation_is_the_share_of_neighbours_in_common(k):
    rng = np.random.default_rng(k)
    positions = rng.random((40, 2))
    profiles = np.hstack([positions, 0.3 * rng.normal(size=(40, 2))])
    shares = [len(a & b) / k for a, b in zip(neighbours(profiles, k), neighbours(positions, k))]
    assert 0 < np.mean(shares) < 1
    assert neighbour_preservation(profiles, positions, k=k) == pytest.approx(np.mean(shares), abs=1e-12)


@pytest.mark.parametrize("metric", ["cosine", "correlation"])
def test_neighbour_preservation_agrees_with_scikit_learns_neighbours(metric):
    rng = np.random.default_rng(0)
    profiles = rng.normal(size=(200, 4)) + 1
    positions = profiles[:, :2] + 0.2 * rng.normal(size=(200, 2))
    near = [
        NearestNeighbors(n_neighbors=10, metric=by, algorithm="brute").fit(points).kneighbors(return_distance=False)
        for points, by in ((profiles, metric), (positions, "euclidean"))
    ]
    shares = [len(set(a) & set(b)) / 10 for a, b in zip(*near)]
    assert neighbour_preservation(profiles, positions, metric=metric) == pytest.approx(np.mean(shares), abs=1e-12)


def test_profiles_that_are_all_the_same_keep_as_many_neighbours_as_chance():
    positions = np.random.default_rng(0).random((50, 2))
    assert neighbour_preservation(np.ones((50, 3)), positions) == pytest.approx(10 / 49, abs=1e-12)
    assert neighbour_preservation(positions, 2 * positions) == 1


def broken_ties(measure, moved: np.ndarray, still: np.ndarray, *, first: bool) -> np.ndarray:
    """The measure with the ties of one of its two arguments broken in 400 random ways."""
    rng = np.random.default_rng(5)
    jittered = (moved + 1e-6 * rng.normal(size=moved.shape) for _ in range(400))
    return np.array([measure(points, still) if first else measure(still, points) for points in jittered])


@pytest.mark.parametrize("measure", [neighbour_preservation, morans_i])
def test_ties_on_the_map_are_shared_which_is_the_mean_over_all_ways_to_break_them(measure):
    profiles = np.random.default_rng(0).normal(size=(60, 6))
    positions = flas(profiles)
    argument = profiles.T if measure is morans_i else profiles
    broken = broken_ties(measure, positions, argument, first=False)
    assert np.std(broken) > 0
    assert measure(argument, positions) == pytest.approx(np.mean(broken), abs=4 * np.std(broken) / 20)


@pytest.mark.parametrize("measure", [neighbour_preservation, continuity])
def test_ties_among_profiles_are_shared_which_is_the_mean_over_all_ways_to_break_them(measure):
    rng = np.random.default_rng(0)
    profiles = rng.integers(0, 3, size=(60, 3)).astype(float)
    positions = profiles[:, :2] + rng.normal(size=(60, 2))
    broken = broken_ties(measure, profiles, positions, first=True)
    assert np.std(broken) > 0
    assert measure(profiles, positions) == pytest.approx(np.mean(broken), abs=4 * np.std(broken) / 20)


@pytest.mark.parametrize("k", [1, 4, 9])
def test_morans_i_is_its_definition(k):
    rng = np.random.default_rng(k)
    positions, values = rng.random((30, 2)), rng.normal(size=(3, 30)) + 2
    expected = []
    for row in values:
        z = row - row.mean()
        pairs = [(i, j) for i, near in enumerate(neighbours(positions, k)) for j in near]
        expected.append(30 / len(pairs) * sum(z[i] * z[j] for i, j in pairs) / sum(z**2))
    assert morans_i(values, positions, k=k) == pytest.approx(np.mean(expected), abs=1e-12)


def test_morans_i_of_two_clusters_by_hand():
    near, far = np.array([[0.0, 0], [0.1, 0], [0, 0.2]]), 0.7
    positions = np.vstack([near, near + far])
    assert morans_i(np.array([[1.0, 1, 1, -1, -1, -1]]), positions, k=2) == pytest.approx(1)
    # In each cluster the products of (1, -1, 0) are -1, 0, 0, twice; (4 / 6) is the variance, 12 the pairs.
    assert morans_i(np.array([[1.0, -1, 0, 1, -1, 0]]), positions, k=2) == pytest.approx((-4 / 12) / (4 / 6))


def test_morans_i_over_all_ways_to_place_the_values_is_what_is_expected_at_random():
    rng = np.random.default_rng(0)
    positions, values = rng.random((6, 2)), rng.normal(size=6)
    everything = [morans_i(np.array([placed]), positions, k=2) for placed in permutations(values)]
    assert np.mean(everything) == pytest.approx(-1 / 5, abs=1e-12)


def test_units_at_the_same_place_are_each_others_neighbours_and_not_their_own():
    positions = np.repeat(np.random.default_rng(0).random((5, 2)), 2, axis=0)
    assert morans_i(np.tile([1.0, -1.0], 5)[None], positions, k=1) == pytest.approx(-1)


def test_a_chequerboard_of_values_alternates():
    x, y = np.meshgrid(np.arange(8.0), np.arange(8.0))
    values = (-1.0) ** (x + y).ravel()[None]
    inner = morans_i(values, np.column_stack([x.ravel(), y.ravel()]), k=4)
    # 36 inner units have four unlike neighbours. The 24 at an edge have three, and share the fourth between the two units
    # on the diagonal (alike). The 4 in a corner have two, then the unit on the diagonal, then the two that are two steps away, all alike.
    assert inner == pytest.approx((36 * -4 + 24 * (-3 + 1) + 4 * (-2 + 2)) / (64 * 4))


def test_morans_i_is_the_mean_over_the_groups_that_vary():
    rng = np.random.default_rng(0)
    positions, values = rng.random((40, 2)), rng.normal(size=(2, 40))
    each = [morans_i(values[g : g + 1], positions) for g in range(2)]
    assert morans_i(values, positions) == pytest.approx(np.mean(each), abs=1e-12)
    idle = np.vstack([values, np.full(40, np.nan), np.full(40, 0.1)])
    assert morans_i(idle, positions) == pytest.approx(np.mean(each), abs=1e-12)
    assert np.isnan(morans_i(idle[2:], positions))


@pytest.mark.parametrize("factor", [1e-200, -3.0, 1e200])
def test_no_scale_matters_to_what_is_said_of_neighbours(factor):
    rng = np.random.default_rng(0)
    profiles = rng.normal(size=(50, 4))
    positions = profiles[:, :2] + 0.5 * rng.normal(size=(50, 2))
    for measure in (trustworthiness, continuity, neighbour_preservation):
        assert measure(factor * profiles, positions) == pytest.approx(measure(profiles, positions), abs=1e-9)
        assert measure(profiles, factor * positions) == pytest.approx(measure(profiles, positions), abs=1e-9)
    assert morans_i(factor * profiles.T, positions) == pytest.approx(morans_i(profiles.T, positions), abs=1e-9)


def test_the_order_of_the_units_does_not_matter_to_any_measure():
    profiles = np.random.default_rng(0).normal(size=(100, 6))
    profiles[:20] = 0
    positions, order = flas(profiles), np.random.default_rng(1).permutation(100)
    positions[::7] = positions[0]
    whole, shuffled = measures(profiles, positions, profiles.T), measures(profiles[order], positions[order], profiles[order].T)
    assert shuffled == pytest.approx(whole, abs=1e-9)


@pytest.mark.parametrize("units", [1, 2, 3])
def test_fewer_than_four_units_have_no_neighbourhoods(units):
    profiles, positions = np.eye(3)[:units], np.random.default_rng(0).random((units, 2))
    found = measures(profiles, positions, profiles.T)
    assert [name for name, value in found.items() if np.isnan(value)][:4] == NAMES[:4]
    assert np.isnan([continuity(profiles, positions), neighbour_preservation(profiles, positions), morans_i(profiles.T, positions)]).all()


@pytest.mark.parametrize("units", [4, 5, 12, 20])
def test_k_is_lowered_to_what_the_units_allow_in_every_measure(units):
    rng = np.random.default_rng(units)
    profiles, positions = rng.normal(size=(units, 5)), rng.random((units, 2))
    k = min(10, (units - 1) // 2)
    assert continuity(profiles, positions) == pytest.approx(literal(positions, profiles, k), abs=1e-12)
    for measure, argument in ((neighbour_preservation, profiles), (morans_i, profiles.T)):
        assert measure(argument, positions) == measure(argument, positions, k=k)


@pytest.mark.parametrize("measure", [continuity, neighbour_preservation, morans_i])
def test_every_measure_of_many_units_is_estimated_from_a_seeded_sample(monkeypatch, measure):
    rng = np.random.default_rng(0)
    profiles = rng.normal(size=(900, 2))
    positions = profiles + 0.3 * rng.normal(size=(900, 2))
    argument = profiles.T if measure is morans_i else profiles
    exact = measure(argument, positions)
    monkeypatch.setattr(quality, "SAMPLE", 300)
    estimates = [measure(argument, positions, seed=seed) for seed in range(20)]
    assert measure(argument, positions, seed=3) == estimates[3] != estimates[4]
    assert np.mean(estimates) == pytest.approx(exact, abs=4 * np.std(estimates) / np.sqrt(20))


def wavy(groups: int, resolution: int, seed: int = 0) -> np.ndarray:
    """Maps (g, r, r) with waves of many lengths, and noise."""
    rng = np.random.default_rng(seed)
    steps = (np.arange(resolution) + 0.5) / resolution
    waves = [np.outer(np.sin(9 * rng.random() * steps + 6 * rng.random()), np.cos(25 * rng.random() * steps)) for _ in range(groups)]
    return 3 + np.array(waves) + 0.2 * rng.normal(size=(groups, resolution, resolution))


def keys(x: float) -> float:
    """The cubic convolution kernel, a = -1/2."""
    x = abs(x)
    if x < 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def resized(picture: np.ndarray, size: int) -> np.ndarray:
    """The rows of a picture resized, one output pixel at a time."""
    scale = len(picture) / size
    out = []
    for i in range(size):
        weights = np.array([keys((j + 0.5 - (i + 0.5) * scale) / max(scale, 1)) for j in range(len(picture))])
        out.append(weights @ picture / weights.sum())
    return np.array(out)


def blurred(picture: np.ndarray, deviation: float) -> np.ndarray:
    """The rows of a picture blurred, its outermost rows continuing; cut at four deviations."""
    reach = int(4 * deviation + 0.5)
    weights = np.exp(-(np.arange(-reach, reach + 1.0) ** 2) / (2 * deviation**2))
    padded = np.pad(picture, ((reach, reach), (0, 0)), mode="edge")
    return np.array([weights / weights.sum() @ padded[i : i + 2 * reach + 1] for i in range(len(picture))])


def both_ways(rows, picture: np.ndarray, *arguments: float) -> np.ndarray:
    return rows(rows(picture, *arguments).T, *arguments).T


def area(curve: list[float]) -> float:
    """By the trapezoid rule with steps of 1."""
    return sum((a + b) / 2 for a, b in pairwise(curve))


def literal_resize_error(picture: np.ndarray, counted=np.s_[:, :]) -> float:
    curve = []
    for k in range(10):
        there = both_ways(resized, picture, 55 - 5 * k)
        back = both_ways(resized, there, len(picture))
        curve.append(float(((picture - back)[counted] ** 2).mean() / picture[counted].var()))
    return area(curve)


def literal_blur_error(picture: np.ndarray, counted=np.s_[:, :]) -> float:
    pixel = len(picture) / 300
    curve = [((picture - both_ways(blurred, picture, (2 * k + 2) * pixel))[counted] ** 2).mean() / picture[counted].var() for k in range(10)]
    return area(curve)


@pytest.mark.parametrize(("measure", "definition"), [(resize_error, literal_resize_error), (blur_error, literal_blur_error)])
def test_the_errors_are_their_definitions(measure, definition):
    for resolution in (55, 64):
        maps = wavy(2, resolution)
        assert measure(maps) == pytest.approx(np.mean([definition(picture) for picture in maps]), rel=FLOAT32)


@pytest.mark.parametrize("resolution", [64, 100])
def test_resize_error_is_what_pillow_does_with_floating_point_pictures(resolution):
    maps = wavy(3, resolution).astype(np.float32)
    curves = []
    for picture in maps:
        image = Image.fromarray(picture)
        assert image.mode == "F"
        ways = [image.resize((s, s), Image.Resampling.BICUBIC).resize(image.size, Image.Resampling.BICUBIC) for s in range(55, 5, -5)]
        curves.append([((np.asarray(way, float) - picture) ** 2).mean() / picture.astype(float).var() for way in ways])
    assert resize_error(maps) == pytest.approx(np.mean([area(curve) for curve in curves]), rel=1e-4)


@pytest.mark.parametrize(("measure", "definition"), [(resize_error, literal_resize_error), (blur_error, literal_blur_error)])
def test_a_map_continues_outside_its_hull_and_counts_only_within(measure, definition):
    around = ((9, 14), (20, 3))
    inner = wavy(1, 64)[0, 9:50, 20:61]
    whole = np.full((64, 64), np.nan)
    whole[9:50, 20:61] = inner
    expected = definition(np.pad(inner, around, mode="edge"), np.s_[9:50, 20:61])
    assert measure(whole[None]) == pytest.approx(expected, rel=FLOAT32)


@pytest.mark.parametrize("measure", [resize_error, blur_error])
def test_a_map_and_its_mirror_images_lose_the_same(measure):
    x, y = np.meshgrid(np.arange(64), np.arange(64))
    maps = np.where((x - 30) ** 2 + (y - 33) ** 2 < 600, wavy(2, 64), np.nan)
    for mirrored in (maps[:, ::-1], maps[:, :, ::-1], maps.transpose(0, 2, 1)):
        assert measure(mirrored) == pytest.approx(measure(maps), rel=FLOAT32)


@pytest.mark.parametrize("measure", [resize_error, blur_error])
def test_groups_with_different_hulls_each_have_their_own(measure):
    maps = wavy(3, 64)
    maps[1, :, :20] = np.nan
    maps[2, 40:] = np.nan
    assert measure(maps) == pytest.approx(np.mean([measure(maps[g : g + 1]) for g in range(3)]), rel=FLOAT32)


@pytest.mark.parametrize("measure", [resize_error, blur_error])
def test_the_errors_do_not_depend_on_scale_and_offset(measure):
    maps = wavy(2, 64)
    for factor, offset in ((1e-9, 0), (1e9, -1e9), (-1, 255.0), (1e-170, 0)):
        assert measure(factor * maps + offset) == pytest.approx(measure(maps), rel=1e-6)


@pytest.mark.parametrize("measure", [resize_error, blur_error])
def test_maps_without_anything_to_lose_are_left_out(measure):
    maps = wavy(2, 64)
    flat, empty = np.full((1, 64, 64), 0.1), np.full((1, 64, 64), np.nan)
    assert measure(np.concatenate([maps, flat, empty])) == measure(maps)
    assert np.isnan(measure(np.concatenate([flat, empty])))
    assert np.isnan(measure(maps[:0]))


@pytest.mark.parametrize("measure", [resize_error, blur_error])
def test_the_errors_go_from_0_to_9(measure):
    x, y = np.meshgrid(np.arange(100.0), np.arange(100.0))
    assert measure(((-1.0) ** (x + y))[None]) == pytest.approx(9, abs=0.1)
    assert 0 < measure(np.cos(np.pi * (x + 0.5) / 100)[None]) < 0.02


@pytest.mark.parametrize("measure", [resize_error, blur_error])
def test_a_sorted_map_is_smoother_than_a_random_one(measure):
    causes = np.random.default_rng(0).normal(size=(300, 3))
    drawn = [fields(interpolation(positions, 64), causes.T) for positions in (flas(causes), random(causes))]
    assert measure(drawn[0]) < 0.5 * measure(drawn[1])


def picture(*rows: str) -> np.ndarray:
    """A map of 10 x 10 blocks: + 1, - minus 1, a dot 0, a blank not covered."""
    values = {"+": 1.0, "-": -1.0, ".": 0.0, " ": np.nan}
    return np.kron([[values[mark] for mark in row] for row in rows], np.ones((10, 10)))


def test_components_are_regions_of_one_sign_counted_by_hand():
    assert components(picture("+..", "...", "..-")[None]) == (2, pytest.approx(1 / 9))
    assert components(picture("++.", ".+.", "---")[None]) == (2, pytest.approx(3 / 9))
    assert components(picture("+..", ".+.", "..+")[None]) == (1, pytest.approx(3 / 9))  # over corners
    assert components(picture("+-+", "-+-", "+-+")[None]) == (2, pytest.approx(4.5 / 9))
    assert components(picture("+ .", "  .", "..+")[None]) == (2, pytest.approx(1 / 6))  # of the covered part
    assert components(np.zeros((1, 9, 9))) == (0, pytest.approx(np.nan, nan_ok=True))


def test_components_are_means_over_groups_with_a_map_and_over_regions():
    maps = np.array([picture("+..", "...", "..-"), picture("+++", "+++", "+++"), picture("...", "...", "..."), picture("   ", "   ", "   ")])
    number, share = components(maps)
    assert number == pytest.approx(3 / 3)
    assert share == pytest.approx((1 / 9 + 1 / 9 + 1) / 3)
    assert np.isnan(components(maps[3:])).all()


def test_components_begin_at_a_tenth_of_the_limit():
    maps = np.array([picture("+..", "...", "..+"), picture("...", "...", "+++")])
    maps[0, :10, :10] = 0.11
    assert components(maps)[0] == 1.5
    maps[0, :10, :10] = 0.1
    assert components(maps)[0] == 1
    assert components(maps, limit=0.9)[0] == 1.5
    assert components(maps, limit=20.0)[0] == 0
    assert components(maps, threshold=0.05)[0] == 1.5
    assert components(-1e-3 * maps, threshold=0.05)[0] == 1.5


def test_components_smaller_than_a_thousandth_of_the_picture_are_left_out():
    maps = np.zeros((1, 100, 100))
    maps[0, 5, 3:12] = 1
    assert components(maps)[0] == 0
    maps[0, 5, 12] = 1
    assert components(maps) == (1, pytest.approx(0.001))


def test_hull_coverage_is_the_area_of_the_hull():
    assert hull_coverage(np.array([[0.0, 0], [1, 0], [0, 1], [1, 1], [0.5, 0.2]])) == pytest.approx(1)
    assert hull_coverage(np.array([[0.0, 0], [1, 0], [0, 1]])) == pytest.approx(0.5)
    assert hull_coverage(np.array([[0.2, 0.1], [0.7, 0.1], [0.7, 0.4], [0.2, 0.4]])) == pytest.approx(0.15)
    angles = np.arange(12) * np.pi / 6
    dodecagon = 0.5 + 0.5 * np.column_stack([np.cos(angles), np.sin(angles)])
    assert hull_coverage(dodecagon) == pytest.approx(3 * 0.25)  # a dodecagon's area is three times its squared radius


def test_hull_coverage_is_the_share_of_the_picture_that_is_drawn():
    for seed in range(5):
        positions = np.random.default_rng(seed).random((12, 2))
        assert hull_coverage(positions) == pytest.approx(covered(interpolation(positions, 300)).mean(), abs=0.003)


@pytest.mark.parametrize("positions", [[[0.5, 0.5]], [[0.2, 0.5], [0.8, 0.5]], [[0.1, 0.1], [0.5, 0.5], [0.9, 0.9]], [[0.5, 0.5]] * 4])
def test_units_that_span_no_area_cover_nothing(positions):
    assert hull_coverage(np.array(positions)) == 0


NAMES = [
    "trustworthiness",
    "continuity",
    "neighbour_preservation",
    "morans_i",
    "resize_error",
    "blur_error",
    "hull_coverage",
    "components",
    "component_area",
]


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_measures_are_what_the_functions_of_their_names_return(monkeypatch, metric):
    monkeypatch.setattr(quality, "SAMPLE", 120)
    profiles = np.random.default_rng(0).normal(size=(150, 6))
    positions, values = flas(profiles), np.vstack([profiles.T, np.full(150, np.nan)])
    maps = fields(interpolation(positions, 64), values)
    expected = {
        measure.__name__: measure(profiles, positions, k=7, metric=metric, seed=3)
        for measure in (trustworthiness, continuity, neighbour_preservation)
    }
    expected |= {"morans_i": morans_i(values, positions, k=7, seed=3), "resize_error": resize_error(maps), "blur_error": blur_error(maps)}
    expected |= {"hull_coverage": hull_coverage(positions), **dict(zip(NAMES[-2:], components(maps)))}
    found = measures(profiles, positions, values, k=7, metric=metric, seed=3)
    assert list(found) == list(expected) == NAMES
    assert found == pytest.approx(expected, rel=1e-12)
    assert {type(value) for value in found.values()} == {float}


def test_the_null_is_the_same_of_a_random_layout():
    profiles = np.random.default_rng(0).normal(size=(200, 6))
    null = null_measures(profiles, profiles.T, seed=4)
    expected = measures(profiles, random(profiles, seed=4), profiles.T, seed=4)
    for name, value in expected.items():
        # Of pictures it is that of other random values in the same places: of ten groups instead of six, and a larger largest one.
        assert null[name] == pytest.approx(value, rel=0.2 if name in ("resize_error", "blur_error", "components", "component_area") else 0)
    assert null == null_measures(profiles, profiles.T, seed=4) != null_measures(profiles, profiles.T, seed=5)
    assert [null["trustworthiness"], null["continuity"]] == pytest.approx([0.5, 0.5], abs=0.05)
    assert null["neighbour_preservation"] == pytest.approx(10 / 199, abs=0.02)
    assert null["morans_i"] == pytest.approx(-1 / 199, abs=0.03)


def test_a_layout_that_shows_the_profiles_is_better_than_its_null_in_everything():
    causes = np.random.default_rng(0).normal(size=(300, 3))
    found, null = measures(causes, flas(causes), causes.T), null_measures(causes, causes.T)
    assert all(found[name] > null[name] for name in (*NAMES[:4], "component_area"))
    assert all(found[name] < null[name] for name in ("resize_error", "blur_error", "components"))


def test_measures_say_what_is_wrong():
    profiles, positions, maps = np.eye(5), np.random.default_rng(0).random((5, 2)), np.zeros((2, 64, 64))
    for measure in (continuity, neighbour_preservation):
        with pytest.raises(ValueError, match=r"positions have shape \(4, 2\); expected \(5, 2\)"):
            measure(profiles, positions[:4])
        with pytest.raises(ValueError, match="k is 0; expected at least 1"):
            measure(profiles, positions, k=0)
        with pytest.raises(ValueError, match="unknown metric 'x'"):
            measure(profiles, positions, metric="x")
    with pytest.raises(ValueError, match="k is -1; expected at least 1"):
        morans_i(profiles, positions, k=-1)
    with pytest.raises(ValueError, match=r"values have shape \(5, 4\); expected \(g, 5\), one row per group"):
        morans_i(profiles[:, :4], positions)
    with pytest.raises(ValueError, match=r"values have shape \(4, 4\); expected \(g, 5\)"):
        measures(profiles, positions, np.eye(4))
    profiles[2, 3] = np.nan
    with pytest.raises(ValueError, match="values hold NaN or infinity in 1 of 5 units, first at unit 3; expected finite values, or NaN in all units"):
        morans_i(profiles, positions)
    positions[1] = np.inf
    for measure in (lambda: morans_i(np.eye(5), positions), lambda: hull_coverage(positions)):
        with pytest.raises(ValueError, match="positions hold NaN or infinity in 1 of 5 units, first at unit 1"):
            measure()
    with pytest.raises(ValueError, match=r"maps have shape \(2, 54, 54\); expected \(g, r, r\) with r >= 55, one square picture per group"):
        resize_error(maps[:, :54, :54])
    for measure in (resize_error, blur_error, components):
        with pytest.raises(ValueError, match=r"maps have shape \(2, 64, 63\); expected \(g, r, r\)"):
            measure(maps[:, :, :63])
        with pytest.raises(ValueError, match="maps hold infinity in 1 of 2 groups"):
            measure(np.array([maps[0], maps[1] - np.inf]))
    with pytest.raises(ValueError, match="limit is -1; expected a finite number of at least 0"):
        components(maps, limit=-1)
    with pytest.raises(ValueError, match=r"threshold is 1\.1; expected 0 to 1, a part of the limit"):
        components(maps, threshold=1.1)
