"""Values at scattered points turned into pictures: the geometry is worked out once, the values come later.

A layout stays while groups and steps change, so interpolation is kept as a linear operator: one sparse product draws all
groups. Pixel centres lie at (i + 0.5) / r in the unit square; a picture's row is 1 - y and its column is x, so that the
pixel at the top right belongs to the point (1, 1).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy.sparse as sp
from scipy.spatial import Delaunay, cKDTree

from netlapse.types import Float64

DISC_RADIUS = 0.12
"""Radius, in widths of the picture, of the discs that stand for units which span no area."""


def interpolation(positions: Float64, resolution: int) -> sp.csr_matrix:
    """The linear operator (r * r, u) that takes the units' values to pixels, linear on each Delaunay triangle of the positions (u, 2).

    The row of a pixel outside the convex hull is empty, see `covered`; every other row is non-negative and sums to one, so a
    constant stays constant and no pixel leaves the range of the values. Units at the same position (to 1e-9) count as one
    unit with the mean of their values. One or two units, or units on one line, have no triangulation: there a pixel takes
    the value of the nearest unit if that is within DISC_RADIUS (or within its own diagonal, in very coarse pictures).

    Raises ValueError for positions that are not (u, 2) with u >= 1, or not finite, and for a resolution below 1.
    """
    positions = np.asarray(positions, dtype=np.float64)
    if positions.ndim != 2 or positions.shape[1] != 2 or len(positions) == 0:
        raise ValueError(f"positions have shape {positions.shape}; expected (u, 2) with u >= 1, one point per unit")
    bad = np.flatnonzero(~np.isfinite(positions).all(axis=1))
    if len(bad):
        raise ValueError(f"positions hold NaN or infinity in {len(bad)} of {len(positions)} units, first at unit {bad[0]}; lay those units out first")
    if resolution < 1:
        raise ValueError(f"resolution is {resolution}; expected at least 1 pixel per side")
    _, first, place = np.unique(np.round(positions, 9), axis=0, return_index=True, return_inverse=True)
    # Layouts on a lattice put other units in the same places at every checkpoint: the triangles stay.
    points = positions[first]
    operator = _interpolation(points.tobytes(), resolution)
    if len(points) < len(positions):
        shares = 1 / np.bincount(place)[place]
        return operator @ sp.csr_matrix((shares, (place, np.arange(len(positions)))), shape=(len(points), len(positions)))
    return sp.csr_matrix((operator.data, first[operator.indices], operator.indptr), shape=operator.shape)


@lru_cache(maxsize=64)
def _interpolation(points: bytes, resolution: int) -> sp.csr_matrix:
    """The operator of distinct points, in sorted order."""
    places = np.frombuffer(points, np.float64).reshape(-1, 2)
    centres = (np.arange(resolution) + 0.5) / resolution
    pixels = np.stack(np.meshgrid(centres, centres[::-1]), axis=-1).reshape(-1, 2)
    spans = np.linalg.svd(places - places.mean(axis=0), compute_uv=False)
    if len(places) < 3 or spans[1] <= 1e-7 * spans[0]:
        distances, units = cKDTree(places).query(pixels)
        rows = np.flatnonzero(distances <= max(DISC_RADIUS, np.sqrt(0.5) / resolution))
        columns, weights = units[rows], np.ones(len(rows))
    else:
        triangulation = Delaunay(places)
        triangles = triangulation.find_simplex(pixels)
        inside = np.flatnonzero(triangles >= 0)
        triangles = triangles[inside]
        affine = triangulation.transform[triangles]
        two = np.clip(np.einsum("pij,pj->pi", affine[:, :2], pixels[inside] - affine[:, 2]), 0, 1)
        third = np.maximum(1 - two.sum(axis=1), 0)
        rows = np.repeat(inside, 3)
        columns, weights = triangulation.simplices[triangles].ravel(), np.column_stack([two, third]).ravel()
    return sp.csr_matrix((weights, (rows, columns)), shape=(resolution**2, len(places)))


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
