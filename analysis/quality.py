"""How well a layout shows the profiles, and how much it moved: numbers between layouts of one layer."""

from __future__ import annotations

import numpy as np

from netlapse.analysis.layout import metric_space
from netlapse.types import Float64

SAMPLE = 2048


def trustworthiness(profiles: Float64, positions: Float64, *, k: int = 10, metric: str = "euclidean", seed: int = 0) -> float:
    """How many of a unit's k nearest neighbours on the map (u, 2) are near it among the profiles (u, f) too: 1 all, about 0.5 at random.

    A map neighbour that is r-th nearest by profile, r > k, costs r - k; the sum is scaled to at most 1. k is lowered to
    (u - 1) // 2, above which the scale is undefined; with fewer than four units the result is NaN.

    Regular maps are full of ties. Units tied for the last of the k places share it equally, which is the mean over all ways
    to break the tie, so the order of the units does not matter. Units equally near by profile share the better rank, so
    identical profiles are no one's false neighbours. Distances count as tied when they agree to about nine digits.

    With more than 2,048 units the mean over all units is estimated from a seeded sample of 2,048, each judged among all units.

    Raises ValueError as `metric_space` does, for positions that are not finite (u, 2) and for k below 1.
    Source: Venna and Kaski, 2001, "Neighborhood preservation in nonlinear projection methods", eq. 1.
    """
    rows = metric_space(profiles, metric)
    positions = np.asarray(positions, dtype=np.float64)
    units = len(rows)
    if positions.shape != (units, 2) or not np.isfinite(positions).all():
        raise ValueError(f"positions have shape {positions.shape}; expected ({units}, 2), all finite, one point per profile")
    if k < 1:
        raise ValueError(f"k is {k}; expected at least 1 neighbour")
    if units < 4:
        return float("nan")
    k = min(k, (units - 1) // 2)
    judged = np.arange(units)
    if units > SAMPLE:
        judged = np.sort(np.random.default_rng(seed).choice(units, SAMPLE, replace=False))
    rows, positions = rows - rows.mean(axis=0), positions - positions.mean(axis=0)
    penalty = 0.0
    for some in np.array_split(judged, -(-len(judged) // 256)):
        apart, slack = _squared_distances(rows, some)
        shown, tie = _squared_distances(positions, some)
        last = np.partition(shown, k - 1, axis=1)[:, k - 1 : k]
        sure, tied = shown < last - tie, np.abs(shown - last) <= tie
        share = sure + tied * ((k - sure.sum(axis=1)) / tied.sum(axis=1))[:, None]
        ordered = np.sort(apart, axis=1)
        for nearest, distances, weights in zip(ordered, apart, share):
            neighbours = np.flatnonzero(weights)
            ranks = 1 + np.searchsorted(nearest, distances[neighbours] - slack)
            penalty += float(weights[neighbours] @ np.maximum(ranks - k, 0))
    return 1 - 2 * penalty / (len(judged) * k * (2 * units - 3 * k - 1))


def motion(positions: Float64, previous: Float64) -> float:
    """Mean displacement of the units between two layouts (u, 2), in root mean square radii of the previous about its centroid.

    NaN where the previous layout has no extent (a single unit). Units that swap places at random give about 1.25 on a disc.

    Raises ValueError for shapes that are not (u, 2) with u >= 1, or differ.
    """
    positions, previous = np.asarray(positions, dtype=np.float64), np.asarray(previous, dtype=np.float64)
    if previous.ndim != 2 or previous.shape[1] != 2 or len(previous) == 0 or positions.shape != previous.shape:
        raise ValueError(
            f"positions have shape {positions.shape} and previous {previous.shape}; expected (u, 2) twice, the same units in the same order"
        )
    radius = np.sqrt(((previous - previous.mean(axis=0)) ** 2).sum(axis=1).mean())
    return float(np.linalg.norm(positions - previous, axis=1).mean() / radius) if radius > 0 else float("nan")


def _squared_distances(points: Float64, some: np.ndarray[tuple[int], np.dtype[np.int64]]) -> tuple[Float64, float]:
    """Squared distances (len(some), n) from some of the points to all, infinite to itself, and the difference that is still a tie."""
    squares = (points**2).sum(axis=1)
    distances = squares[some, None] + squares - 2 * points[some] @ points.T
    distances[np.arange(len(some)), some] = np.inf
    return distances, 1e-9 * float(squares.max())
