"""A layout by springs between similar units: `graph`."""

from __future__ import annotations

import numpy as np
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import pdist, squareform

from netlapse.analysis.layout.base import alike, checked, filled, metric_space, positive, squared, told_apart
from netlapse.analysis.layout.projection import pca
from netlapse.types import Float64, Int64


def graph(
    profiles: Float64,
    *,
    seed: int = 0,
    previous: Float64 | None = None,
    metric: str = "euclidean",
    neighbours: int = 10,
    iterations: int = 50,
) -> Float64:
    """Positions (u, 2) in which each unit is tied to its nearest neighbours by springs, and all units repel each other.

    neighbours  springs from each unit, to the units whose profiles are nearest; lowered to a third of the others
    iterations  steps at most towards least energy

    Together with the springs of the minimum spanning tree the graph is in one piece, its clusters joined where they are
    nearest. (With the threshold graph of Krug et al., 2023, a unit without edges hangs on one edge to the largest component,
    and many of them make a star.) Identical units are told apart by noise that is a millionth of the profiles' extent.

    The energy is Fruchterman and Reingold's: springs pull with the square of their length. It is descended from the first two
    principal components, with `previous` from there, both at the size of least energy, so that a start near a minimum stays
    near it. Scaled by one factor to fill [0, 1]. Up to three units, and profiles that are all the same, are laid out by `pca`.

    Raises ValueError as `metric_space` does, for a previous layout of another shape, for neighbours or iterations below 1,
    and for more than 8,192 units: it holds a matrix of all units by all units.
    Source: Fruchterman and Reingold, 1991, "Graph drawing by force-directed placement", in networkx.
    """
    rows = metric_space(profiles, metric)
    previous = checked(previous, len(rows))
    positive(neighbours, "neighbours", "graph")
    positive(iterations, "iterations", "graph")
    squared(len(rows), "graph")
    if len(rows) <= 3 or alike(rows):
        return pca(rows, seed=seed, previous=previous)
    import networkx

    ties = springs(told_apart(rows, seed), min(neighbours, max((len(rows) - 1) // 3, 1)))
    net = networkx.Graph()
    net.add_nodes_from(range(len(rows)))
    net.add_edges_from(ties.tolist())
    start = pca(rows, seed=seed) if previous is None else previous
    # Two units on one point would have no direction in which to part.
    start = at_rest(start + 1e-4 * np.random.default_rng(seed).normal(size=start.shape), ties)
    found = networkx.spring_layout(
        net, k=_length(len(rows)), pos=dict(enumerate(start)), iterations=iterations, threshold=1e-6, method="energy", seed=seed
    )
    return filled(np.array([found[unit] for unit in range(len(rows))], dtype=np.float64))


def springs(rows: Float64, neighbours: int) -> Int64:
    """The edges (e, 2) between each row and its nearest ones, and those of the minimum spanning tree, each once."""
    apart = squareform(pdist(rows))
    tree = minimum_spanning_tree(apart).tocoo()
    np.fill_diagonal(apart, np.inf)
    nearest = np.argpartition(apart, neighbours - 1, axis=1)[:, :neighbours]
    one = np.concatenate([np.repeat(np.arange(len(rows)), neighbours), tree.row])
    other = np.concatenate([nearest.ravel(), tree.col])
    edges: Int64 = np.unique(np.sort(np.column_stack([one, other]), axis=1), axis=0).astype(np.int64)
    return edges


def at_rest(points: Float64, ties: Int64) -> Float64:
    """The points (u, 2) about the middle of the unit square at the size in which the springs' pull and the repulsion balance.

    The energy, sum over springs of |d|^3 / (3 k) minus sum over pairs of k^2 log |d|, is least among all sizes where the sum
    over springs of |d|^3 is k^3 times the number of pairs.
    """
    units = len(points)
    pull = (np.linalg.norm(points[ties[:, 0]] - points[ties[:, 1]], axis=1) ** 3).sum()
    size = (_length(units) ** 3 * units * (units - 1) / 2 / pull) ** (1 / 3)
    balanced: Float64 = 0.5 + size * (points - points.mean(axis=0))
    return balanced


def _length(units: int) -> float:
    """At which a spring pulls as strongly as its two ends repel each other."""
    return float(1 / np.sqrt(units))
