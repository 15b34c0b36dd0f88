"""Laws of regions."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.path import Path

from netlapse.analysis.layout import flas
from netlapse.analysis.regions import Disc, Polygon, most_responsive, units_in
from netlapse.field import fields, interpolation

PENTAGRAM = 0.5 + 0.4 * np.array([[np.sin(a), np.cos(a)] for a in 4 * np.pi / 5 * np.arange(5)])


@pytest.fixture
def scattered() -> np.ndarray:
    return np.random.default_rng(0).random((500, 2))


def test_a_disc_holds_what_is_at_most_its_radius_away(scattered):
    expected = [i for i, (x, y) in enumerate(scattered) if (x - 0.3) ** 2 + (y - 0.6) ** 2 <= 0.04]
    assert 0 < len(expected) < 500
    np.testing.assert_array_equal(units_in(scattered, Disc((0.3, 0.6), 0.2)), expected)


def test_the_border_of_a_disc_is_inside():
    angles = np.linspace(0, 2 * np.pi, 100)
    ring = np.column_stack([np.cos(angles), np.sin(angles)])
    for radius in (0.1, 0.3, 1 / 3):
        assert len(units_in(0.4 + radius * ring, Disc((0.4, 0.4), radius))) == 100
        assert len(units_in(0.4 + 1.000001 * radius * ring, Disc((0.4, 0.4), radius))) == 0


@pytest.mark.parametrize("seed", range(8))
def test_a_polygon_holds_what_matplotlibs_path_holds(scattered, seed):
    corners = np.random.default_rng(100 + seed).random((3 + seed, 2))
    if seed % 2:  # half of them in order around their centre, so that nothing crosses
        corners = corners[np.argsort(np.arctan2(*(corners - corners.mean(axis=0)).T))]
    expected = np.flatnonzero(Path(corners).contains_points(scattered))
    assert 0 < len(expected) < 500
    np.testing.assert_array_equal(units_in(scattered, Polygon(corners)), expected)


def test_what_is_encircled_twice_is_outside():
    points = np.array([[0.5, 0.5], [0.5, 0.8], [0.5, 0.95], [0.1, 0.1]])
    np.testing.assert_array_equal(units_in(points, Polygon(PENTAGRAM)), [1])


@pytest.mark.parametrize("corners", [[[0.1, 0.1], [0.7, 0.1], [0.7, 0.4], [0.1, 0.4]], [[0.2, 0.1], [0.9, 0.5], [0.4, 0.8]], PENTAGRAM.tolist()])
def test_the_border_of_a_polygon_is_inside(corners):
    corners = np.array(corners)
    steps = np.linspace(0, 1, 21)[:, None]
    border = np.vstack([a + steps * (b - a) for a, b in zip(corners, np.roll(corners, -1, axis=0))])
    assert len(units_in(border, Polygon(corners))) == len(border)
    away = corners.mean(axis=0) + 1.00001 * (corners - corners.mean(axis=0))
    assert len(units_in(away, Polygon(corners))) == 0


def test_a_polygon_is_the_same_from_whatever_corner_and_in_both_directions(scattered):
    lattice = np.stack(np.meshgrid(np.arange(11) / 10, np.arange(11) / 10), axis=-1).reshape(-1, 2)
    corners = np.array([[0.1, 0.3], [0.5, 0.3], [0.5, 0.1], [0.9, 0.6], [0.5, 0.9], [0.3, 0.6]])  # rays through the lattice meet the corners
    for points in (scattered, lattice):
        expected = units_in(points, Polygon(corners))
        assert len(expected) > 0
        for turned in (np.roll(corners, 2, axis=0), corners[::-1], np.repeat(corners, 2, axis=0)):
            np.testing.assert_array_equal(units_in(points, Polygon(turned)), expected)
        np.testing.assert_array_equal(units_in(points[:, ::-1], Polygon(corners[:, ::-1])), expected)


def test_units_of_a_square_counted_by_hand():
    lattice = np.stack(np.meshgrid(np.arange(5) / 4, np.arange(5) / 4), axis=-1).reshape(-1, 2)
    square = Polygon([(0.25, 0.5), (0.5, 0.5), (0.5, 1.0), (0.25, 1.0)])
    np.testing.assert_array_equal(units_in(lattice, square), [11, 12, 16, 17, 21, 22])
    assert units_in(lattice, Polygon([(0.3, 0.3), (0.4, 0.3), (0.3, 0.4)])).shape == (0,)


@pytest.mark.parametrize("place", [(0.2, 0.3), (0.8, 0.3), (0.3, 0.8), (0.5, 0.15)])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_most_responsive_units_are_those_that_respond_and_not_their_mirror_images(scattered, place, sign):
    apart = np.hypot(*(scattered - place).T)
    values = sign * np.where(apart < 0.12, 1.0, 0.0) + 0.01 * np.random.default_rng(1).normal(size=500)
    field = fields(interpolation(scattered, 100), values[None])[0]
    region, units = most_responsive(field, scattered, 0.2)
    assert np.hypot(*np.subtract(region.centre, place)) < 0.03
    assert region.radius == 0.1
    np.testing.assert_array_equal(units, units_in(scattered, region))
    assert np.abs(values[units]).mean() > 0.95
    for mirrored in ((1 - place[0], place[1]), (place[0], 1 - place[1]), place[::-1]):
        if np.hypot(*np.subtract(mirrored, place)) > 0.2:
            assert len(set(units) & set(units_in(scattered, Disc(mirrored, 0.1)))) == 0


@pytest.mark.parametrize("seed", range(5))
def test_the_most_responsive_disc_is_where_the_filtered_map_is_largest(seed):
    field = np.random.default_rng(seed).normal(size=(20, 20))
    field[:4], field[10:12, 14:] = np.nan, np.nan
    pixels = [(row, column) for row in range(20) for column in range(20) if not np.isnan(field[row, column])]
    found = {}
    for row, column in pixels:
        near = [field[i, j] for i, j in pixels if (i - row) ** 2 + (j - column) ** 2 <= 3.5**2]
        found[row, column] = abs(np.mean(near))
    row, column = max(pixels, key=found.__getitem__)
    region, _ = most_responsive(field, np.array([[0.5, 0.5]]), 0.35)
    assert region.centre == pytest.approx(((column + 0.5) / 20, 1 - (row + 0.5) / 20))
    assert region.radius == 0.175
    assert most_responsive(field, np.array([[0.5, 0.5]]))[0].radius == 0.125


def test_opposite_signs_side_by_side_cancel():
    field = np.zeros((40, 40))
    field[2:16, 2:16:2], field[2:16, 3:16:2] = 2, -2
    field[28:36, 28:36] = 1
    region, _ = most_responsive(field, np.array([[0.5, 0.5]]), 0.2)
    assert region.centre == pytest.approx((0.8, 0.2), abs=0.03)


def test_a_small_size_finds_the_unit_that_responds_most():
    positions = flas(np.random.default_rng(0).normal(size=(200, 3)))
    values = np.zeros((1, 200))
    values[0, 17] = -5
    region, units = most_responsive(fields(interpolation(positions, 64, "gaussian"), values)[0], positions, 0.06)
    assert units.tolist() == [17]
    assert region.centre == pytest.approx(tuple(positions[17]), abs=1 / 64)


def test_regions_say_what_is_wrong():
    with pytest.raises(ValueError, match=r"centre is \(0.1, nan\); expected two finite numbers"):
        Disc((0.1, float("nan")), 0.1)
    with pytest.raises(ValueError, match=r"centre is \(1, 2, 3\); expected two"):
        Disc((1, 2, 3), 0.1)  # type: ignore[arg-type]
    for radius in (0, -1, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=f"radius is {radius}; expected a finite number above 0"):
            Disc((0.5, 0.5), radius)
    with pytest.raises(ValueError, match=r"points have shape \(2, 2\); expected \(m, 2\) with m >= 3"):
        Polygon([(0, 0), (1, 1)])
    with pytest.raises(ValueError, match=r"points have shape \(3, 3\); expected \(m, 2\)"):
        Polygon(np.eye(3))
    with pytest.raises(ValueError, match="NaN or infinity in 1 of 3 corners, first at corner 2"):
        Polygon([(0, 0), (1, 1), (0, np.inf)])
    disc, positions = Disc((0.5, 0.5), 0.1), np.array([[0.5, 0.5], [np.nan, 0]])
    with pytest.raises(ValueError, match="positions hold NaN or infinity in 1 of 2 units, first at unit 1"):
        units_in(positions, disc)
    with pytest.raises(ValueError, match=r"positions have shape \(2,\); expected \(u, 2\)"):
        units_in(positions[0], disc)
    with pytest.raises(ValueError, match=r"field has shape \(1, 8, 8\); expected \(r, r\), the map of one group"):
        most_responsive(np.ones((1, 8, 8)), positions[:1])
    with pytest.raises(ValueError, match=r"holds infinity in 0 pixels and covers 0 of 64"):
        most_responsive(np.full((8, 8), np.nan), positions[:1])
    with pytest.raises(ValueError, match=r"holds infinity in 64 pixels"):
        most_responsive(np.full((8, 8), np.inf), positions[:1])
    for size in (0, 1.5, float("nan")):
        with pytest.raises(ValueError, match=f"size is {size}; expected above 0 and at most 1"):
            most_responsive(np.ones((8, 8)), positions[:1], size)
