"""Laws of interpolation."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from scipy.interpolate import LinearNDInterpolator
from scipy.ndimage import binary_fill_holes
from scipy.spatial import Delaunay

from netlapse.analysis.layout import flas
from netlapse.field import DISC_RADIUS, Kind, covered, fields, interpolation

KINDS = get_args(Kind)


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
    with pytest.raises(ValueError, match=r"unknown kind of interpolation 'cubic'; allowed are \['linear', 'nearest', 'gaussian'\]"):
        interpolation(scattered[:4], 10, "cubic")  # type: ignore[arg-type]


def squared_distances(positions: np.ndarray, resolution: int) -> np.ndarray:
    """From every pixel's centre to every unit, (r, r, u)."""
    x, y = centres(resolution)
    return (x[..., None] - positions[:, 0]) ** 2 + (y[..., None] - positions[:, 1]) ** 2


def spacing_of(positions: np.ndarray) -> float:
    between = np.linalg.norm(positions[:, None] - positions, axis=-1) + np.diag(np.full(len(positions), np.inf))
    return float(np.median(between.min(axis=1)))


def outside_the_hull(positions: np.ndarray, resolution: int) -> np.ndarray:
    """How far each pixel (r, r) is from the convex hull, 0 or less inside: over all directions, how far it lies beyond the furthest unit."""
    angles = np.linspace(0, 2 * np.pi, 7200, endpoint=False)
    directions = np.array([np.cos(angles), np.sin(angles)])
    support = (positions @ directions).max(axis=0)
    return (np.stack(centres(resolution), axis=-1) @ directions - support).max(axis=-1)


def test_linear_is_what_is_drawn_when_nothing_is_said(scattered):
    default, linear = interpolation(scattered, 20), interpolation(scattered, 20, "linear")
    np.testing.assert_array_equal(default.toarray(), linear.toarray())
    assert (default != interpolation(scattered, 20, "nearest")).nnz > 0


@pytest.mark.parametrize("kind", ["nearest", "gaussian"])
@pytest.mark.parametrize("lattice", [False, True])
def test_nearest_and_gaussian_reach_half_a_spacing_beyond_the_hull(scattered, kind, lattice):
    positions = 0.2 + 0.5 * (flas(scattered) if lattice else scattered)
    away = outside_the_hull(positions, 50) - spacing_of(positions) / 2
    clear = np.abs(away) > 1e-6
    mask = covered(interpolation(positions, 50, kind)).reshape(50, 50)
    np.testing.assert_array_equal(mask[clear], away[clear] < 0)
    assert mask.sum() > covered(interpolation(positions, 50)).sum()


@pytest.mark.parametrize("lattice", [False, True])
def test_nearest_takes_the_value_of_the_nearest_unit(scattered, lattice):
    positions = flas(scattered) if lattice else scattered
    field = fields(interpolation(positions, 41, "nearest"), np.arange(60.0)[None])[0]
    squared = squared_distances(positions, 41)
    inside = ~np.isnan(field)
    chosen = np.take_along_axis(squared, np.where(inside, field, 0).astype(int)[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(chosen[inside], squared.min(axis=-1)[inside], atol=1e-12)


@pytest.mark.parametrize("lattice", [False, True])
def test_gaussian_is_the_weighted_mean_of_the_units_around(scattered, lattice):
    positions, values = flas(scattered) if lattice else scattered, np.random.default_rng(1).normal(size=(3, 60))
    field = fields(interpolation(positions, 41, "gaussian"), values)
    deviation = spacing_of(positions) / 2
    squared = squared_distances(positions, 41)
    excess = (squared - squared.min(axis=-1, keepdims=True)) / deviation**2
    whole = np.exp(-excess / 2)
    cut = np.where(excess <= 16 + 1e-6, whole, 0)
    inside = ~np.isnan(field[0])
    for weights, close in ((cut, 1e-12), (whole, 0.01)):
        expected = np.einsum("rcu,gu->grc", weights, values) / weights.sum(axis=-1)
        np.testing.assert_allclose(field[:, inside], expected[:, inside], atol=close)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("units", [7, 40, 300, 1000])
def test_a_disc_of_cells_has_no_empty_pixel_inside(kind, units):
    positions = 0.1 + 0.8 * flas(np.random.default_rng(0).normal(size=(units, 4)))
    mask = covered(interpolation(positions, 64, kind)).reshape(64, 64)
    np.testing.assert_array_equal(binary_fill_holes(mask), mask)
    if kind != "linear":
        in_a_cell = np.sqrt(squared_distances(positions, 64).min(axis=-1)) < spacing_of(positions) / 2 - 1e-9
        assert mask[in_a_cell].all()


def test_a_cell_of_a_grid_is_a_square_of_its_units_value():
    x, y = np.meshgrid([0.25, 0.75], [0.25, 0.75])
    field = fields(interpolation(np.column_stack([x.ravel(), y.ravel()]), 8, "nearest"), np.array([[1.0, 2, 3, 4]]))[0]
    expected = np.kron([[3.0, 4], [1, 2]], np.ones((4, 4)))
    corners = np.ix_([0, -1], [0, -1])  # whose pixels are farther from the hull than half a cell, which is 0.25
    assert np.isnan(field[corners]).all()
    field[corners] = expected[corners]
    np.testing.assert_array_equal(field, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_weights_that_sum_to_one_or_nothing(scattered, kind):
    far = np.vstack([0.1 * scattered, [[1.0, 1.0], [0.99, 1.0]]])  # pixels of the hole are many spacings away from every unit
    operator = interpolation(far, 40, kind)
    sums = np.asarray(operator.sum(axis=1)).ravel()
    np.testing.assert_allclose(sums[covered(operator)], 1, rtol=1e-14)
    assert not sums[~covered(operator)].any()
    assert operator.data.min() >= 0
    assert operator.nnz < 0.4 * 1600 * 62


@pytest.mark.parametrize("kind", KINDS)
def test_in_every_kind_the_order_of_the_units_does_not_matter(scattered, kind):
    positions, values = flas(scattered), np.random.default_rng(1).normal(size=(2, 60))
    order = np.random.default_rng(2).permutation(60)
    shuffled = fields(interpolation(positions[order], 40, kind), values[:, order])
    np.testing.assert_allclose(shuffled, fields(interpolation(positions, 40, kind), values), atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_in_every_kind_units_at_the_same_position_count_with_their_mean(kind):
    corners = np.array([[0.0, 0], [1, 0], [0, 1], [1, 1]])
    doubled = np.vstack([corners, corners[1:2], corners[1:2]])
    merged = fields(interpolation(doubled, 16, kind), np.array([[1.0, 2, 3, 4, 8, 11]]))
    np.testing.assert_allclose(merged, fields(interpolation(corners, 16, kind), np.array([[1.0, 7, 3, 4]])), atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("positions", [[[0.5, 0.5]], [[0.2, 0.5], [0.8, 0.5]], [[0.1, 0.1], [0.5, 0.5], [0.9, 0.9]]])
def test_in_every_kind_units_that_span_no_area_are_discs(kind, positions):
    points = np.array(positions)
    field = fields(interpolation(points, 60, kind), np.arange(1.0, len(points) + 1)[None])[0]
    squared = squared_distances(points, 60)
    np.testing.assert_array_equal(field, np.where(squared.min(axis=-1) <= DISC_RADIUS**2, squared.argmin(axis=-1) + 1.0, np.nan))
