"""Laws of the particle swarm."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from netlapse.analysis.layout import forces, particles, random, spread, swarm
from netlapse.analysis.layout.base import METRICS, filled
from netlapse.analysis.quality import motion, trustworthiness


def structured(units: int, features: int = 12, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.maximum(rng.normal(size=(units, 3)) @ rng.normal(size=(3, features)), 0) + 0.02 * rng.normal(size=(units, features))


def literal_swarm(points: np.ndarray, distances: np.ndarray, times: list[float]) -> np.ndarray:
    """The published swarm, word by word, before it is scaled."""
    units, largest = len(points), distances.max()
    for t in times:
        alpha = (1 + math.tanh(t)) / 2
        moved = points.copy()
        for i in range(units):
            for j in range(units):
                across, down = points[j] - points[i]
                r = max(math.sqrt(across**2 + down**2), 0.01)
                f = 1.5 / (1 + r) ** 3 - 15 * math.exp(-r / 2)
                d = distances[i, j]
                g = 1.5 * (1 - (d / largest) ** 3) - 0.5 * math.exp(-d / 2)
                moved[i] += np.array([across, down]) * (f * alpha + g * (1 - alpha)) / 2 / units
        points = moved
    return points


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("units", [5, 32, 40])
def test_the_swarm_is_its_definition_word_by_word(metric, units):
    profiles = structured(units)
    start = np.random.default_rng(3).random((units, 2))
    expected = literal_swarm(start, cdist(profiles, profiles, metric), [-3 + k for k in range(10)])
    np.testing.assert_allclose(swarm(profiles, seed=3, metric=metric, steps=10), filled(expected), rtol=0, atol=1e-9)


@pytest.mark.parametrize("metric", METRICS)
def test_from_a_previous_layout_similarity_still_counts(metric):
    profiles, previous = structured(20), np.random.default_rng(1).random((20, 2))
    expected = literal_swarm(previous, cdist(profiles, profiles, metric), [-2 + 8 * k / 9 for k in range(10)])
    np.testing.assert_allclose(swarm(profiles, previous=previous, metric=metric, steps=10), filled(expected), rtol=0, atol=1e-9)


def test_the_swarm_of_many_units_is_its_definition_to_a_hundredth_of_the_map(monkeypatch):
    profiles = structured(300)
    exact = swarm(profiles, steps=30)
    monkeypatch.setattr(forces, "EXACT", 0)
    by_grid = swarm(profiles, steps=30)
    assert 0 < np.abs(by_grid - exact).max() < 1e-2


@pytest.mark.parametrize("metric", METRICS)
def test_similar_profiles_end_up_near_each_other(metric):
    profiles = structured(200)
    found = trustworthiness(profiles, swarm(profiles, metric=metric, steps=300), metric=metric)
    assert found > trustworthiness(profiles, random(profiles), metric=metric) + 0.25


@pytest.mark.parametrize(("metric", "follows"), [("euclidean", "length"), ("cosine", "direction"), ("correlation", "direction")])
def test_the_metric_asked_for_decides_what_is_similar(metric, follows):
    rng = np.random.default_rng(0)
    label = {"length": rng.integers(0, 2, 80), "direction": rng.integers(0, 2, 80)}
    directions = np.array([[1.0, 0.9, 1.0], [1.0, 1.0, 0.9]])[label["direction"]]
    profiles = directions * np.where(label["length"], 10.0, 1.0)[:, None] * rng.uniform(0.99, 1.01, size=(80, 1))
    positions = swarm(profiles, metric=metric, steps=300)
    around = cKDTree(positions).query(positions, 5)[1][:, 1:]
    for name, of in label.items():
        same = (of[around] == of[:, None]).mean()
        assert (same > 0.85) == (name == follows)


def test_from_any_layout_the_profiles_find_their_way():
    profiles = structured(200)
    previous = random(profiles)
    found = swarm(profiles, previous=previous, steps=300)
    assert trustworthiness(profiles, found) > trustworthiness(profiles, spread(previous, spacing=0)) + 0.25


def test_from_the_layout_before_units_move_less_than_between_independent_layouts():
    profiles = structured(200)
    before = swarm(profiles, steps=300)
    drifted = profiles + 0.1 * structured(200, seed=1)
    warm, cold = swarm(drifted, previous=before, steps=300), swarm(drifted, seed=1, steps=300)
    assert motion(warm, before) < 0.5 * motion(cold, before)
    assert trustworthiness(drifted, warm) > trustworthiness(drifted, cold) - 0.03


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_layout():
    profiles = structured(60)
    before = profiles.copy()
    assert swarm(profiles, seed=2, steps=50).tobytes() == swarm(profiles, seed=2, steps=50).tobytes()
    assert not np.array_equal(swarm(profiles, seed=2, steps=50), swarm(profiles, seed=3, steps=50))
    np.testing.assert_array_equal(profiles, before)


@pytest.mark.parametrize("metric", METRICS)
def test_global_forces_are_those_computed_by_hand(metric):
    by_hand = {
        "euclidean": ([[0.0, 0.0], [0.0, 2.0], [0.0, 4.0], [0.0, 0.0]], [0.0, 2.0, 4.0, 0.0]),
        "cosine": ([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [3.0, 0.0]], [0.0, 1.0, 2.0, 0.0]),
        "correlation": ([[1.0, 2.0, 1.0], [1.0, 1.0, 1.0], [5.0, 3.0, 5.0], [2.0, 4.0, 2.0]], [0.0, 0.5, 2.0, 0.0]),  # the second has no direction
    }
    profiles, distances = by_hand[metric]
    found = particles._global_forces(particles.metric_space(np.array(profiles), metric), metric)
    largest = max(distances)
    expected = [1.5 * (1 - (d / largest) ** 3) - 0.5 * math.exp(-d / 2) for d in distances]
    np.testing.assert_allclose(found[0], expected, atol=1e-12)
    assert found[0, 3] == pytest.approx(1.0)
    np.testing.assert_allclose(found, found.T, atol=1e-12)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("value", [0.0, 2.5])
def test_identical_profiles_become_a_disc(metric, value):
    positions = swarm(np.full((200, 3), value), metric=metric, steps=200)
    narrow, wide = np.linalg.eigvalsh(np.cov(positions.T))
    assert narrow / wide > 0.8
    assert len(np.unique(positions, axis=0)) == 200


def test_units_that_are_the_same_and_were_at_one_place_part():
    profiles, previous = structured(20), np.random.default_rng(0).random((20, 2))
    positions = swarm(np.repeat(profiles, 2, axis=0), previous=np.repeat(previous, 2, axis=0), steps=200)
    nearest = cKDTree(positions).query(positions, 2)[0][:, 1]
    assert nearest.min() > 1e-6


@pytest.mark.parametrize("units", [1, 2, 3, 4])
def test_few_units_fill_the_unit_square(units):
    positions = swarm(structured(units), seed=1, steps=100)
    again = swarm(structured(units) + 0.1, seed=1, previous=positions, steps=100)
    for one in (positions, again):
        assert one.shape == (units, 2)
        assert one.dtype == np.float64
        assert np.ptp(one, axis=0).max() == pytest.approx(float(units > 1))
        np.testing.assert_allclose((one.min(axis=0) + one.max(axis=0)) / 2, 0.5)


def test_memory_is_one_matrix_and_blocks():
    units = 1500
    tracemalloc.start()
    swarm(structured(units), steps=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * units**2 * 8


def test_more_units_than_memory_allows_are_refused_with_the_arithmetic():
    with pytest.raises(ValueError, match=r"100,000 x 100,000 x 8 bytes = 74.5 GiB.*flas"):
        swarm(np.ones((100_000, 1)))


def test_what_cannot_be_laid_out_is_named():
    with pytest.raises(ValueError, match="steps is 0; expected at least 1"):
        swarm(structured(5), steps=0)
    with pytest.raises(ValueError, match="unknown metric 'manhattan'"):
        swarm(structured(5), metric="manhattan")
    with pytest.raises(ValueError, match=r"previous layout has shape \(4, 2\).*expected \(5, 2\)"):
        swarm(structured(5), previous=np.zeros((4, 2)))
    with pytest.raises(ValueError, match="NaN or infinity in 1 of 5 units"):
        swarm(np.where(np.eye(5)[:1].T, np.nan, structured(5, 5)))
