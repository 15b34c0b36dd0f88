"""What layouts share: the space a metric stands for, principal components, and bringing positions into line with others."""

from __future__ import annotations

import numpy as np

from netlapse.types import Float64

METRICS = ("euclidean", "cosine", "correlation")


def metric_space(profiles: Float64, metric: str = "euclidean") -> Float64:
    """Rows (u, f) whose Euclidean distances order the profiles as the metric does.

    "euclidean" leaves the profiles as they are; "cosine" scales every row to unit length, "correlation" does so after
    subtracting the row's mean (squared Euclidean distance is then twice the cosine or correlation distance). A row without a
    direction (zero; for "correlation" constant up to rounding) becomes the zero vector, at distance 1 from every other row.

    Raises ValueError for an unknown metric, profiles that are not (u, f) with u, f >= 1, and NaN or infinite profiles.
    """
    profiles = np.asarray(profiles, dtype=np.float64)
    if metric not in METRICS:
        raise ValueError(f"unknown metric {metric!r}; allowed are {list(METRICS)}")
    if profiles.ndim != 2 or 0 in profiles.shape:
        raise ValueError(f"profiles have shape {profiles.shape}; expected (u, f) with u, f >= 1, one row per unit (transpose group profiles (g, u))")
    bad = ~np.isfinite(profiles)
    if bad.any():
        units, columns = np.flatnonzero(bad.any(axis=1)), np.flatnonzero(bad.any(axis=0))
        raise ValueError(
            f"profiles hold NaN or infinity in {len(units)} of {len(profiles)} units, {units[:5].tolist()} first, "
            f"and in {len(columns)} of {profiles.shape[1]} columns, {columns[:5].tolist()} first; drop the columns of empty groups before laying out"
        )
    if metric == "euclidean":
        return profiles
    size = np.abs(profiles).max(axis=1, keepdims=True)
    rows = np.divide(profiles, size, out=np.zeros_like(profiles), where=size > 0)
    if metric == "correlation":
        rows = rows - rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    # What is left of a constant row after its mean is rounding error, which must not be blown up to a direction.
    unit_rows: Float64 = np.divide(rows, length, out=np.zeros_like(rows), where=length > 1e-13 * np.sqrt(profiles.shape[1]))
    return unit_rows


def procrustes(positions: Float64, reference: Float64) -> Float64:
    """The positions (u, 2) rotated, reflected, shifted and scaled by one factor to lie closest to the reference (u, 2).

    Closest in the sum of squared distances; the result may leave [0, 1]. Positions that are all the same are moved to the
    reference's centroid.

    Raises ValueError for shapes that are not (u, 2), differ, or hold NaN or infinity.
    Source: Schoenemann and Carroll, 1970, "Fitting one matrix to another under choice of a central dilation and a rigid motion".
    """
    positions = np.asarray(positions, dtype=np.float64)
    if positions.ndim != 2 or positions.shape[1] != 2 or len(positions) == 0 or not np.isfinite(positions).all():
        raise ValueError(f"positions have shape {positions.shape}; expected (u, 2) with u >= 1, all finite")
    target = checked(reference, len(positions), "reference")
    assert target is not None
    centred = positions - positions.mean(axis=0)
    turned = centred @ rotation(positions, target)
    size = (turned**2).sum()
    scale = (turned * (target - target.mean(axis=0))).sum() / size if size > 0 else 1.0
    aligned: Float64 = turned * scale + target.mean(axis=0)
    return aligned


def checked(positions: Float64 | None, units: int, name: str = "previous") -> Float64 | None:
    if positions is None:
        return None
    positions = np.asarray(positions, dtype=np.float64)
    if positions.shape != (units, 2) or not np.isfinite(positions).all():
        raise ValueError(
            f"{name} layout has shape {positions.shape} and {int((~np.isfinite(positions)).sum())} values that are not finite; "
            f"expected ({units}, 2), all finite, for the same units in the same order"
        )
    return positions


def filled(points: Float64) -> Float64:
    """Points (u, 2) moved and scaled by one factor so that their bounding box is centred in the unit square and fills its longer side."""
    low, high = points.min(axis=0), points.max(axis=0)
    side = (high - low).max()
    inside: Float64 = np.clip((points - (low + high) / 2) / (side if side > 0 else 1.0) + 0.5, 0, 1)
    return inside


def inside(points: Float64) -> Float64:
    """Points (u, 2) moved into the unit square by the shortest way, shrunk by one factor first only if they are larger than it."""
    low, high = points.min(axis=0), points.max(axis=0)
    if (high - low).max() > 1:
        return filled(points)
    moved: Float64 = np.clip(points + np.maximum(-low, 0) - np.maximum(high - 1, 0), 0, 1)
    return moved


def alike(rows: Float64) -> bool:
    """Whether the rows (u, f) are all the same up to rounding."""
    return bool(np.ptp(rows, axis=0).max() <= 1e-13 * np.abs(rows).max())


def told_apart(rows: Float64, seed: int) -> Float64:
    """The rows (u, f), each a seeded millionth of their extent further along one direction that all share.

    Among rows that are the same, which ones count as nearest is an accident of the search, and mostly the same few for
    everyone: the neighbours of a hundred dead units would make a star. On a line, each has neighbours of its own.
    """
    rng = np.random.default_rng(seed)
    direction = rng.normal(size=rows.shape[1])
    apart: Float64 = rows + 1e-6 * np.ptp(rows, axis=0).max() * np.outer(rng.normal(size=len(rows)), direction / np.linalg.norm(direction))
    return apart


def positive(value: float, name: str, who: str) -> None:
    if not (np.isfinite(value) and value > 0):
        raise ValueError(f"{who} got {name} {value}; expected a finite number above 0")


SQUARE = 2**29
"""Bytes that one matrix of all units by all units may take: that of 8,192 units."""


def squared(units: int, who: str) -> None:
    """Raises ValueError where a matrix of all units by all units would take more than SQUARE bytes."""
    if units * units * 8 > SQUARE:
        raise ValueError(
            f"{who} compares every unit with every other: {units:,} x {units:,} x 8 bytes = {units * units * 8 / 2**30:,.1f} GiB, and that several "
            f"times; it lays out at most {int((SQUARE / 8) ** 0.5):,} units. Use flas, which takes no such matrix, or pca"
        )


def rotation(positions: Float64, reference: Float64) -> Float64:
    """The rotation or reflection (2, 2) to apply from the right that brings centred positions closest to the centred reference."""
    left, _, right = np.linalg.svd((positions - positions.mean(axis=0)).T @ (reference - reference.mean(axis=0)))
    turn: Float64 = left @ right
    return turn


def principal_components(rows: Float64, count: int, seed: int) -> Float64:
    """The scores (u, <= count) on the first principal components, the sum of each one's cubed scores not negative.

    Exact when the smaller side of the matrix is at most 512; beyond, by a seeded random range finder with four power
    iterations (Halko, Martinsson and Tropp, 2011, algorithm 4.4), which for the leading components is as good as exact.
    """
    centred = rows - rows.mean(axis=0)
    size = np.abs(centred).max()
    if size <= 1e-13 * np.abs(rows).max():
        return np.zeros((len(rows), min(count, rows.shape[1])))
    centred = centred / size
    if min(centred.shape) > 512:
        basis = np.random.default_rng(seed).normal(size=(centred.shape[1], count + 8))
        for _ in range(4):
            basis, _ = np.linalg.qr(centred.T @ (centred @ basis))
        centred = centred @ basis
    if centred.shape[1] <= centred.shape[0]:
        _, directions = np.linalg.eigh(centred.T @ centred)
        scores = centred @ directions[:, ::-1][:, :count]
    else:
        powers, directions = np.linalg.eigh(centred @ centred.T)
        scores = directions[:, ::-1][:, :count] * np.sqrt(np.maximum(powers[::-1][:count], 0))
    signed: Float64 = scores * np.where((scores**3).sum(axis=0) < 0, -1, 1) * size
    return signed
