"""Layouts of different layers, brought into line with each other: `turned`."""

from __future__ import annotations

import numpy as np

from netlapse.analysis.layout.base import checked, inside, metric_space
from netlapse.types import Float64

ROWS = 1024  # units whose similarities to the reference's are held at once


def turned(positions: Float64, values: Float64, reference: Float64, reference_values: Float64) -> Float64:
    """The positions (u, 2) rotated or reflected so that units lie where units like them lie in another layer's layout.

    values            (g, u) the group profiles of the units at `positions`
    reference         (u2, 2) the positions of another layer's units
    reference_values  (g, u2) theirs, of the same groups

    With a_i and b_j the positions about their means, and w_ij the cosine of the angle between the group profiles of unit i and
    of the reference's unit j where that is positive, else 0: of all rotations and reflections R the one with the greatest sum over i and j
    of w_ij <R a_i, b_j>. That sum is tr(R' M) with the 2 x 2 matrix M = sum of w_ij b_j a_i', so the singular vectors of M give R.
    (Krug et al., 2023, try 360 rotations and no reflection.) Units turn about their mean; where they leave the unit square they are
    moved back, and shrunk by one factor where they do not fit. Where nothing speaks for one direction rather than another, as
    with profiles that are all alike, M is zero up to rounding and the positions remain.

    Raises ValueError for positions that are not (u, 2) or (u2, 2), all finite; for values of other shapes, of different numbers of
    groups, and that are NaN or infinite: leave out the groups without inputs.
    """
    units = _similar_to(values)
    others = _similar_to(reference_values)
    if units.shape[1] != others.shape[1]:
        raise ValueError(f"values have {units.shape[1]} groups and reference_values {others.shape[1]}; expected the same groups in both")
    places, goals = checked(positions, len(units), "this"), checked(reference, len(others), "reference")
    assert places is not None
    assert goals is not None
    about, toward = places - places.mean(axis=0), goals - goals.mean(axis=0)
    pulled, total = np.empty_like(about), 0.0
    for start in range(0, len(units), ROWS):
        weights = np.maximum(units[start : start + ROWS] @ others.T, 0)
        pulled[start : start + ROWS] = weights @ toward
        total += float(np.linalg.norm(about[start : start + ROWS], axis=1) @ weights @ np.linalg.norm(toward, axis=1))
    left, strength, right = np.linalg.svd(about.T @ pulled)
    if strength[0] <= 1e-12 * total:
        return places.copy()
    return inside(places.mean(axis=0) + about @ left @ right)


def _similar_to(values: Float64) -> Float64:
    """The directions (u, g) of the units' group profiles (g, u), whose products are cosines."""
    if np.ndim(values) != 2:
        raise ValueError(f"values have shape {np.shape(values)}; expected (g, u), one row per group and one column per unit")
    return metric_space(np.asarray(values, dtype=np.float64).T, "cosine")
