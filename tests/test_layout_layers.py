"""Laws of layouts of different layers, turned to each other."""

from __future__ import annotations

import numpy as np
import pytest

from netlapse.analysis.layout import flas, random, turned
from netlapse.analysis.layout import layers as module


def structured(units: int, groups: int = 6, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.random.default_rng(9).normal(size=(groups, 3)) @ rng.normal(size=(3, units)) + 0.1 * rng.normal(size=(groups, units))


def turn(angle: float, flip: int) -> np.ndarray:
    return np.diag([1, flip]) @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def gain(positions, values, reference, reference_values) -> float:
    """The sum that is maximised, term by term."""
    a, b = positions - positions.mean(axis=0), reference - reference.mean(axis=0)
    total = 0.0
    for i in range(len(a)):
        for j in range(len(b)):
            u, v = values[:, i], reference_values[:, j]
            total += max(u @ v / np.linalg.norm(u) / np.linalg.norm(v), 0) * float(a[i] @ b[j])
    return total


@pytest.mark.parametrize("seed", range(4))
def test_no_angle_and_no_reflection_is_better(seed):
    values, others = structured(17, seed=seed), structured(23, seed=seed + 50)
    positions, reference = 0.25 + random(values.T, seed=seed) / 2, random(others.T, seed=seed + 1)
    found = gain(turned(positions, values, reference, others), values, reference, others)
    tried = [
        gain(0.5 + (positions - positions.mean(axis=0)) @ turn(angle, flip), values, reference, others)
        for angle in np.linspace(0, 2 * np.pi, 180, endpoint=False)
        for flip in (1, -1)
    ]
    assert found >= max(tried) - 1e-9
    assert found < max(tried) * (1 + 1e-3)  # and it is one of them: nothing but a turn was done
    assert found > gain(positions, values, reference, others)


@pytest.mark.parametrize("flip", [1, -1])
def test_a_layer_finds_back_to_itself(flip):
    values = structured(60)
    reference = flas(values.T)
    moved = 0.5 + 0.6 * ((reference - 0.5) @ turn(2.0, flip))
    found = turned(moved, values, reference, values)
    np.testing.assert_allclose(found - found.mean(axis=0), 0.6 * (reference - reference.mean(axis=0)), atol=0.03)


def test_the_turn_is_rigid_about_the_mean_where_it_fits():
    values, others = structured(30), structured(30, seed=3)
    positions = 0.3 + 0.4 * random(values.T)
    found = turned(positions, values, random(others.T, seed=2), others)
    np.testing.assert_allclose(found.mean(axis=0), positions.mean(axis=0))
    a, b = positions - positions.mean(axis=0), found - found.mean(axis=0)
    np.testing.assert_allclose(a @ a.T, b @ b.T, atol=1e-12)


def test_what_would_leave_the_square_is_moved_back_and_shrunk_without_distortion():
    values = structured(4)
    corners = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    reference = 0.5 + (corners - 0.5) @ turn(np.pi / 4, 1) * 0.5
    found = turned(corners, values, reference, values)
    assert ((found >= 0) & (found <= 1)).all()
    sides = np.linalg.norm(found - np.roll(found, 1, axis=0), axis=1)
    np.testing.assert_allclose(sides, sides[0])
    np.testing.assert_allclose(np.linalg.norm(found - np.roll(found, 2, axis=0), axis=1), np.sqrt(2) * sides)
    assert max(np.ptp(found, axis=0)) == pytest.approx(1)


def test_lengths_of_profiles_do_not_matter():
    values, others = structured(20), structured(25, seed=2)
    positions, reference = random(values.T), random(others.T, seed=1)
    lengths = np.random.default_rng(0).uniform(0.1, 9, size=20)
    np.testing.assert_allclose(turned(positions, values * lengths, reference, others), turned(positions, values, reference, others), atol=1e-9)


def test_where_nothing_speaks_for_a_direction_the_positions_remain():
    positions, reference = random(np.zeros((15, 1)) + 1), random(np.zeros((12, 1)) + 1, seed=1)
    np.testing.assert_array_equal(turned(positions, np.ones((4, 15)), reference, np.ones((4, 12))), positions)
    np.testing.assert_array_equal(turned(positions, np.zeros((4, 15)), reference, np.ones((4, 12))), positions)
    np.testing.assert_array_equal(turned(np.full((15, 2), 0.5), structured(15), reference, structured(12)), np.full((15, 2), 0.5))


def test_units_are_compared_a_block_at_a_time_with_the_same_result(monkeypatch):
    values, others = structured(50), structured(40, seed=2)
    positions, reference = random(values.T), random(others.T, seed=1)
    whole = turned(positions, values, reference, others)
    monkeypatch.setattr(module, "ROWS", 7)
    np.testing.assert_allclose(turned(positions, values, reference, others), whole, atol=1e-12)


def test_it_says_what_is_wrong():
    values, positions = structured(10), np.random.default_rng(0).random((10, 2))
    with pytest.raises(ValueError, match=r"values have 6 groups and reference_values 5; expected the same groups"):
        turned(positions, values, positions, values[:5])
    with pytest.raises(ValueError, match=r"this layout has shape \(9, 2\) .* expected \(10, 2\)"):
        turned(positions[:9], values, positions, values)
    with pytest.raises(ValueError, match=r"reference layout has shape \(9, 2\)"):
        turned(positions, values, positions[:9], values)
    with pytest.raises(ValueError, match=r"values have shape \(10,\); expected \(g, u\)"):
        turned(positions, values[0], positions, values)
    with pytest.raises(ValueError, match=r"NaN or infinity in 10 of 10 units"):
        turned(positions, np.where(np.arange(6)[:, None] == 2, np.nan, values), positions, values)
