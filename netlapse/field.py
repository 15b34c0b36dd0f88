"""Values at scattered points turned into pictures: the geometry is worked out once, the values come later.

A layout stays while groups and steps change, so interpolation is kept as a linear operator: one sparse product draws all
groups. Pixel centres lie at (i + 0.5) / r in the unit square; a picture's row is 1 - y and its column is x, so that the
pixel at the top right belongs to the point (1, 1).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, get_args

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, Delaunay, cKDTree

from netlapse.types import Float64, Int64

Kind = Literal["linear", "nearest", "gaussian"]

DISC_RADIUS = 0.12
"""Radius, in widths of the picture, of the discs that stand for units which span no area."""

MARGIN = 0.5
"""How far beyond the convex hull nearest and gaussian pictures reach, in spacings: half a cell, so that the outermost cells are whole."""

GAUSSIAN_WIDTH = 0.5
"""Standard deviation of the gaussian weights, in spacings."""

GAUSSIAN_REACH = 4.0
"""Where gaussian weights are cut, in standard deviations: below exp(-8) = 0.0003 of the nearest unit's weight."""

Weights = tuple[Int64, Int64, Float64]
"""The entries of an operator: pixels, units and the weight of each unit in its pixel."""


def interpolation(positions: Float64, resolution: int, kind: Kind = "linear") -> sp.csr_matrix:
    """The operator (r * r, u) that takes the units' values to pixels, for units at the positions (u, 2).

    linear    linear on each Delaunay triangle, within the convex hull
    nearest   a pixel takes the value of the nearest unit: every unit fills its cell
    gaussian  the mean over the units around a pixel, weighted by exp(-d^2 / 2 s^2) at a distance d, with s half a spacing; units
              whose weight is below exp(-8) of the nearest one's are left out, so that the operator stays sparse

    A spacing is the median distance between a unit and its nearest neighbour: on a lattice, the width of a cell. Nearest and
    gaussian pictures reach half a spacing beyond the convex hull, so that a disc or a grid of cells has no empty pixel inside.

    The row of a pixel that is not covered is empty, see `covered`; every other row is non-negative and sums to one, so a
    constant stays constant and no pixel leaves the range of the values. Units at the same position (to 1e-9) count as one
    unit with the mean of their values. One or two units, or units on one line, span no area: there, in every kind, a pixel takes
    the value of the nearest unit if that is within DISC_RADIUS (or within its own diagonal, in very coarse pictures).

    Raises ValueError for positions that are not (u, 2) with u >= 1, or not finite, for a resolution below 1 and for an unknown kind.
    """
    positions = finite_positions(positions)
    if resolution < 1:
        raise ValueError(f"resolution is {resolution}; expected at least 1 pixel per side")
    if kind not in get_args(Kind):
        raise ValueError(f"unknown kind of interpolation {kind!r}; allowed are {list(get_args(Kind))}")
    _, first, place = np.unique(np.round(positions, 9), axis=0, return_index=True, return_inverse=True)
    # Layouts on a lattice put other units in the same places at every checkpoint: the operator stays.
    points = positions[first]
    operator = _interpolation(points.tobytes(), resolution, kind)
    if len(points) < len(positions):
        shares = 1 / np.bincount(place)[place]
        return operator @ sp.csr_matrix((shares, (place, np.arange(len(positions)))), shape=(len(points), len(positions)))
    return sp.csr_matrix((operator.data, first[operator.indices], operator.indptr), shape=operator.shape)


def finite_positions(positions: Float64) -> Float64:
    """The positions as an array (u, 2).

    Raises ValueError for positions that are not (u, 2) with u >= 1, or not finite.
    """
    positions = np.asarray(positions, dtype=np.float64)
    if positions.ndim != 2 or positions.shape[1] != 2 or len(positions) == 0:
        raise ValueError(f"positions have shape {positions.shape}; expected (u, 2) with u >= 1, one point per unit")
    bad = np.flatnonzero(~np.isfinite(positions).all(axis=1))
    if len(bad):
        raise ValueError(f"positions hold NaN or infinity in {len(bad)} of {len(positions)} units, first at unit {bad[0]}; lay those units out first")
    return positions


def span_area(points: Float64) -> bool:
    """Whether points (u, 2) have a convex hull with an area: three or more, not on one line up to rounding."""
    spans = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    return len(points) >= 3 and bool(spans[1] > 1e-7 * spans[0])


def pixel_centres(resolution: int) -> Float64:
    """The points (r * r, 2) at the centres of a picture's pixels, row by row from the top left."""
    centres = (np.arange(resolution) + 0.5) / resolution
    return np.stack(np.meshgrid(centres, centres[::-1]), axis=-1).reshape(-1, 2)


@lru_cache(maxsize=64)
def _interpolation(points: bytes, resolution: int, kind: Kind) -> sp.csr_matrix:
    """The operator of distinct points, in sorted order."""
    places = np.frombuffer(points, np.float64).reshape(-1, 2)
    pixels = pixel_centres(resolution)
    if not span_area(places):
        rows, columns, weights = _discs(places, pixels, max(DISC_RADIUS, np.sqrt(0.5) / resolution))
    elif kind == "linear":
        rows, columns, weights = _linear(places, pixels)
    else:
        tree = cKDTree(places)
        spacing = float(np.median(tree.query(places, k=2)[0][:, 1]))
        inside = np.flatnonzero(_within_hull(places, pixels, MARGIN * spacing))
        shown = pixels[inside]
        near, columns, weights = _nearest(tree, shown) if kind == "nearest" else _gaussian(tree, shown, GAUSSIAN_WIDTH * spacing)
        rows = inside[near]
    return sp.csr_matrix((weights, (rows, columns)), shape=(resolution**2, len(places)))


def _discs(places: Float64, pixels: Float64, radius: float) -> Weights:
    """The nearest unit of every pixel that has one within the radius."""
    distances, units = cKDTree(places).query(pixels)
    rows = np.flatnonzero(distances <= radius)
    return rows, units[rows], np.ones(len(rows))


def _linear(places: Float64, pixels: Float64) -> Weights:
    """The barycentric coordinates of every pixel within a Delaunay triangle."""
    triangulation = Delaunay(places)
    triangles = triangulation.find_simplex(pixels)
    inside = np.flatnonzero(triangles >= 0)
    triangles = triangles[inside]
    affine = triangulation.transform[triangles]
    two = np.clip(np.einsum("pij,pj->pi", affine[:, :2], pixels[inside] - affine[:, 2]), 0, 1)
    third = np.maximum(1 - two.sum(axis=1), 0)
    return np.repeat(inside, 3), triangulation.simplices[triangles].ravel(), np.column_stack([two, third]).ravel()


def _nearest(tree: cKDTree, pixels: Float64) -> Weights:
    """The nearest unit of every pixel, however far."""
    return np.arange(len(pixels)), tree.query(pixels)[1], np.ones(len(pixels))


def _gaussian(tree: cKDTree, pixels: Float64, deviation: float) -> Weights:
    """The normalised gaussian weights of the units around every pixel, cut relative to the nearest: no pixel is without."""
    nearest, _ = tree.query(pixels)
    # A little more than the reach, so that whether a unit at its very end is in does not hang on the tree's rounding.
    around = tree.query_ball_point(pixels, np.sqrt(nearest**2 + (GAUSSIAN_REACH * deviation) ** 2) * (1 + 1e-9))
    rows = np.repeat(np.arange(len(pixels)), [len(units) for units in around])
    columns = np.concatenate([np.asarray(units, np.int64) for units in around])
    squared = ((pixels[rows] - tree.data[columns]) ** 2).sum(axis=1)
    weights = np.exp((nearest[rows] ** 2 - squared) / (2 * deviation**2))
    return rows, columns, weights / np.bincount(rows, weights)[rows]


def _within_hull(places: Float64, pixels: Float64, margin: float) -> NDArray[np.bool_]:
    """Which pixels lie in the convex hull of the places or at most the margin away from it."""
    hull = ConvexHull(places)
    inside: NDArray[np.bool_] = (pixels @ hull.equations[:, :2].T + hull.equations[:, 2] <= 1e-12).all(axis=1)
    starts, sides = places[hull.simplices[:, 0]], places[hull.simplices[:, 1]] - places[hull.simplices[:, 0]]
    outside = np.flatnonzero(~inside)
    apart = pixels[outside, None] - starts
    along = np.clip((apart * sides).sum(axis=-1) / (sides**2).sum(axis=-1), 0, 1)
    inside[outside] = (np.linalg.norm(apart - along[..., None] * sides, axis=-1) <= margin + 1e-12).any(axis=1)
    return inside


def covered(operator: sp.csr_matrix) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which pixels (r * r,) an interpolation operator gives a value to."""
    covered: np.ndarray[tuple[int], np.dtype[np.bool_]] = np.diff(operator.indptr) > 0
    return covered


def fields(operator: sp.csr_matrix, values: Float64) -> Float64:
    """The pictures (g, r, r) of the units' values (g, u) under an interpolation operator; NaN where no pixel is covered.

    A unit's NaN spreads over the triangles it is a corner of, so a row of NaN (an empty group) gives a picture of NaN.

    Raises ValueError for values that are not (g, u) with the operator's number of units.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != operator.shape[1]:
        raise ValueError(f"values have shape {values.shape}; expected (g, {operator.shape[1]}), one row per group and one column per unit")
    pixels = operator @ np.ascontiguousarray(values.T)
    pixels[~covered(operator)] = np.nan
    resolution = round(float(np.sqrt(operator.shape[0])))
    return np.ascontiguousarray(pixels.T).reshape(len(values), resolution, resolution)
