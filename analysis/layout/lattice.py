"""A self-organising map: `som`."""

from __future__ import annotations

import numpy as np

from netlapse.analysis.layout.base import alike, checked, filled, metric_space, positive, principal_components, squared
from netlapse.analysis.layout.projection import pca
from netlapse.types import Float64, Int64


def som(profiles: Float64, *, seed: int = 0, previous: Float64 | None = None, metric: str = "euclidean", iterations: int = 40) -> Float64:
    """Positions (u, 2) on a square lattice of model profiles that learn to resemble the units': each unit where its model is.

    iterations  rounds from nothing; from a previous layout a fifth of them

    In each round every unit goes to the cell whose model is nearest, and every model becomes the mean of all units, weighted
    by a Gaussian of the distance to their cells. Its width falls from a quarter of the side to half a cell; with `previous` the
    units start in the cells where they were, and it falls from a cell and a half. The lattice has ceil(sqrt(u)) cells a side,
    and is compared with the units in their first fifty principal components.

    Units of one cell lie in a spiral within half a cell of its centre, in their order: no two units share a point. Scaled by
    one factor to fill [0, 1]. Nothing is random but what `principal_components` says of `seed`. Up to three units, and
    profiles that are all the same, are laid out by `pca`.

    Raises ValueError as `metric_space` does, for a previous layout of another shape, for iterations below 1, and for more than
    8,192 units: it compares all units with as many cells.
    Source: Kohonen, 2013, "Essentials of the self-organizing map", section 4.1, the batch algorithm.
    """
    rows = metric_space(profiles, metric)
    previous = checked(previous, len(rows))
    positive(iterations, "iterations", "som")
    squared(len(rows), "som")
    if len(rows) <= 3 or alike(rows):
        return pca(rows, seed=seed, previous=previous)
    side = int(np.ceil(np.sqrt(len(rows))))
    units = principal_components(rows, 50, seed)
    start = pca(rows, seed=seed) if previous is None else previous
    at = np.minimum((start * side).astype(np.int64), side - 1)
    rounds = iterations if previous is None else max(iterations // 5, 1)
    for width in np.geomspace(max(side / 4, 1.5) if previous is None else 1.5, 0.5, rounds):
        at = nearest(units, models(units, at, side, width))
    return filled(untied(at))


def models(units: Float64, at: Int64, side: int, width: float) -> Float64:
    """The mean (side, side, f) of the units (u, f) in their cells (u, 2), weighted by a Gaussian of the distance from each cell."""
    sums = np.zeros((side, side, units.shape[1] + 1))
    np.add.at(sums, tuple(at.T), np.column_stack([units, np.ones(len(units))]))
    apart = np.subtract.outer(np.arange(side), np.arange(side))
    # The exponent is bounded so that a cell far from all units still has a mean: that of the nearest ones.
    kernel = np.exp(-np.minimum((apart / width) ** 2 / 2, 300.0))
    blurred = np.einsum("ab,bcf->acf", kernel, np.einsum("cd,bdf->bcf", kernel, sums, optimize=True), optimize=True)
    means: Float64 = blurred[..., :-1] / blurred[..., -1:]
    return means


def nearest(units: Float64, found: Float64) -> Int64:
    """The cell (u, 2) whose model (side, side, f) is nearest to each unit (u, f)."""
    flat = found.reshape(-1, found.shape[-1])
    best = np.argmin((flat**2).sum(axis=1) - 2 * units @ flat.T, axis=1)
    return np.column_stack(np.divmod(best, found.shape[1]))


def untied(at: Int64) -> Float64:
    """Positions (u, 2) of the units in their cells (u, 2): alone at the centre, else in a spiral of half a cell's reach."""
    _, cell, count = np.unique(at, axis=0, return_inverse=True, return_counts=True)
    cell = cell.ravel()
    order = np.argsort(cell, kind="stable")
    rank = np.empty(len(at), dtype=np.int64)
    rank[order] = np.arange(len(at)) - np.repeat(np.cumsum(count) - count, count)
    shared = count[cell]
    radius = np.where(shared > 1, 0.4 * np.sqrt((rank + 0.5) / shared), 0.0)
    angle = rank * np.pi * (3 - np.sqrt(5))
    places: Float64 = at + radius[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
    return places
