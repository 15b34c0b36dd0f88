"""Laws of interpolation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import LinearNDInterpolator
from scipy.spatial import Delaunay

from netlapse.analysis.layout import flas
from netlapse.field import DISC_RADIUS, covered, fields, interpolation


def centres(resolution: int) -> tuple[np.ndarray, np.ndarray]:
    """x and y of every pixel, (r, r)."""
    steps = (np.arange(resolution) + 0.5) / resolution
    x, y = np.meshgrid(steps, 1 - steps)
    return x, y


@pytest.fixture
def scattered() -> np.ndarray:
    return np.random.default_rng(0).random((60, 2))


def test_a_linear_function_is_reproduced_inside_the_hull(scattered):
    x, y = centres(33)
    field = fields(interpolation(scattered, 33), (2 * scattered[:, 0] - 3 * scattered[:, 1] + 1)[None])[0]
    inside = ~np.isnan(field)
    assert 0.5 < inside.mean() < 1
    np.testing.assert_allclose(field[inside], (2 * x - 3 * y + 1)[inside], atol=1e-12)


def test_a_quadratic_one_is_not(scattered):
    x, _ = centres(33)
    field = fields(interpolation(scattered, 33), (scattered[:, 0] ** 2)[None])[0]
    assert np.nanmax(np.abs(field - x**2)) > 1e-3


@pytest.mark.parametrize("lattice", [False, True])
def test_it_agrees_with_scipy(scattered, lattice):
    positions = np.unique(flas(scattered), axis=0) if lattice else scattered
    values = np.random.default_rng(1).normal(size=(4, len(positions)))
    ours = fields(interpolation(positions, 40), values)
    theirs = LinearNDInterpolator(Delaunay(positions), values.T)(np.stack(centres(40), axis=-1)).transpose(2, 0, 1)
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs))
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_the_order_of_the_units_does_not_matter_even_where_squares_can_be_cut_two_ways(scattered):
    positions, values = flas(scattered), np.random.default_rng(1).normal(size=(2, 60))
    order = np.random.default_rng(2).permutation(60)
    shuffled = fields(interpolation(positions[order], 40), values[:, order])
    np.testing.assert_allclose(shuffled, fields(interpolation(positions, 40), values), atol=1e-12)


def test_rows_are_weights_that_sum_to_one_or_empty(scattered):
    operator = interpolation(scattered, 25)
    sums = np.asarray(operator.sum(axis=1)).ravel()
    np.testing.assert_allclose(sums[covered(operator)], 1, rtol=1e-15)
    assert not sums[~covered(operator)].any()
    assert operator.data.min() >= 0
    assert operator.shape == (625, 60)


@pytest.mark.parametrize("constant", [0.1, 1e30, -7.0])
def test_a_constant_stays_constant(scattered, constant):
    field = fields(interpolation(scattered, 25), np.full((1, 60), constant))
    np.testing.assert_allclose(field[~np.isnan(field)], constant, rtol=1e-15)


def test_zero_stays_exactly_zero(scattered):
    field = fields(interpolation(scattered, 25), np.zeros((1, 60)))
    assert set(np.unique(field[~np.isnan(field)])) == {0.0}


def test_a_unit_at_the_top_right_lights_the_pixel_at_the_top_right():
    corners = np.array([[0.0, 0], [1, 0], [0, 1], [1, 1], [0.5, 0.5]])
    for unit, pixel in ((0, (8, 0)), (1, (8, 8)), (2, (0, 0)), (3, (0, 8)), (4, (4, 4))):
        field = fields(interpolation(corners, 9), np.eye(5)[unit : unit + 1])[0]
        assert np.unravel_index(np.nanargmax(field), field.shape) == pixel


def test_outside_the_hull_there_is_nothing():
    triangle = np.array([[0.2, 0.2], [0.8, 0.2], [0.2, 0.8]])
    mask = covered(interpolation(triangle, 50)).reshape(50, 50)
    x, y = centres(50)
    np.testing.assert_array_equal(mask, (x >= 0.2) & (y >= 0.2) & (x + y <= 1 + 1e-12))
    field = fields(interpolation(triangle, 50), np.ones((2, 3)))
    np.testing.assert_array_equal(np.isnan(field), np.broadcast_to(~mask, (2, 50, 50)))


def test_one_operator_serves_all_groups(scattered):
    values = np.random.default_rng(1).normal(size=(5, 60))
    operator = interpolation(scattered, 20)
    together = fields(operator, values)
    for group in range(5):
        np.testing.assert_array_equal(together[group], fields(operator, values[group : group + 1])[0])


def test_an_empty_group_is_nothing_but_nan_and_leaves_the_others_alone(scattered):
    values = np.random.default_rng(1).normal(size=(3, 60))
    operator = interpolation(scattered, 20)
    whole = fields(operator, values)
    values[1] = np.nan
    holed = fields(operator, values)
    assert np.isnan(holed[1]).all()
    np.testing.assert_array_equal(holed[[0, 2]], whole[[0, 2]])


def test_units_at_the_same_position_count_with_their_mean():
    corners = np.array([[0.0, 0], [1, 0], [0, 1], [1, 1]])
    doubled = np.vstack([corners, corners[1:2], corners[1:2]])
    values = np.array([[1.0, 2, 3, 4, 8, 11]])
    merged = fields(interpolation(doubled, 16), values)
    np.testing.assert_allclose(merged, fields(interpolation(corners, 16), np.array([[1.0, 7, 3, 4]])), atol=1e-12)


@pytest.mark.parametrize("positions", [[[0.5, 0.5]], [[0.2, 0.5], [0.8, 0.5]], [[0.1, 0.1], [0.5, 0.5], [0.9, 0.9]], [[0.5, 0.5]] * 4])
def test_units_that_span_no_area_are_discs(positions):
    points = np.array(positions)
    field = fields(interpolation(points, 60), np.arange(1.0, len(points) + 1)[None])[0]
    x, y = centres(60)
    apart = np.hypot(x[..., None] - points[:, 0], y[..., None] - points[:, 1])
    expected = np.where(apart.min(axis=-1) <= DISC_RADIUS, apart.argmin(axis=-1) + 1.0, np.nan)
    if len({tuple(point) for point in positions}) == 1:
        expected[~np.isnan(expected)] = (len(points) + 1) / 2
    np.testing.assert_allclose(field, expected, atol=1e-12)


@pytest.mark.parametrize("resolution", [1, 2, 3])
def test_no_unit_is_lost_in_a_coarse_picture(resolution):
    for position in np.random.default_rng(0).random((50, 2)):
        assert covered(interpolation(position[None], resolution)).any()


def test_nearly_collinear_positions_have_a_picture():
    line = np.linspace(0, 1, 30)
    for spread in (0, 1e-15, 1e-12, 1e-9, 1e-8, 1e-6, 1e-4):
        positions = np.column_stack([line, 0.5 + spread * np.random.default_rng(0).normal(size=30)])
        field = fields(interpolation(positions, 20), np.ones((1, 30)))
        np.testing.assert_allclose(field[~np.isnan(field)], 1)


def test_interpolation_says_what_is_wrong(scattered):
    with pytest.raises(ValueError, match=r"positions have shape \(0, 2\)"):
        interpolation(np.zeros((0, 2)), 10)
    with pytest.raises(ValueError, match=r"positions have shape \(60,\); expected \(u, 2\)"):
        interpolation(scattered[:, 0], 10)
    with pytest.raises(ValueError, match="resolution is 0; expected at least 1"):
        interpolation(scattered, 0)
    with pytest.raises(ValueError, match=r"values have shape \(3, 59\); expected \(g, 60\)"):
        fields(interpolation(scattered, 10), np.zeros((3, 59)))
    scattered[4, 1] = np.nan
    with pytest.raises(ValueError, match="NaN or infinity in 1 of 60 units, first at unit 4"):
        interpolation(scattered, 10)
