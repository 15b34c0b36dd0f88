"""Laws of the layout metrics."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import manifold

from netlapse.analysis import quality
from netlapse.analysis.layout import flas, metric_space
from netlapse.analysis.quality import motion, trustworthiness


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


def test_the_sample_begins_beyond_2048_units():
    assert quality.SAMPLE == 2048


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
