"""Which groups of inputs a layer treats alike: their hierarchical clustering, the order it puts them in, and pairwise contrasts.

Next to each other on a page, similar groups can be compared; in the order of their names they are wherever the alphabet left them.
A group without inputs has a profile of NaN: it takes no part in the clustering and comes last.
"""

from __future__ import annotations

import numpy as np
from scipy.cluster import hierarchy
from scipy.spatial.distance import pdist, squareform

from netlapse.analysis.layout import METRICS, metric_space
from netlapse.analysis.nap import LARGEST_PROFILES
from netlapse.types import Float64, Int64

METHODS = ("average", "complete", "single", "weighted")
"""How far two clusters are from each other: the methods of `scipy.cluster.hierarchy.linkage` that do not presume Euclidean distances."""


def present(profile: Float64) -> Int64:
    """(m,) the groups of a profile (g, u) that have inputs, ascending: those that are not NaN all over.

    Raises ValueError for a profile that is not (g, u) with g, u >= 1, and for a group that is NaN or infinite in some units.
    """
    profile = np.asarray(profile, np.float64)
    if profile.ndim != 2 or 0 in profile.shape:
        raise ValueError(f"the profile of groups has shape {profile.shape}; expected (g, u) with g, u >= 1, a row for each group")
    with_inputs: Int64 = np.flatnonzero(~np.isnan(profile).all(axis=1))
    broken = with_inputs[~np.isfinite(profile[with_inputs]).all(axis=1)]
    if len(broken):
        units = int((~np.isfinite(profile[with_inputs])).any(axis=0).sum())
        raise ValueError(
            f"groups {broken.tolist()} hold NaN or infinity in some of their units, {units} of {profile.shape[1]} units in all; "
            "leave those units out, or take a step at which they are finite"
        )
    return with_inputs


def distances(profile: Float64, *, metric: str = "cosine") -> Float64:
    """(m (m - 1) / 2,) how far the m groups with inputs of a profile (g, u) are from each other, pair by pair: 0 1, 0 2, ..., 1 2, ...

    metric  "cosine" and "correlation" are 1 minus the similarity, 0 to 2, and that is half the squared distance in
            `netlapse.analysis.layout.metric_space`; so a group without a direction, zero in all units, is at 1/2 from every
            group that has one, and at 0 from others without. "euclidean" is the length of the difference

    Raises ValueError as `present`, and for another metric.
    """
    profile = np.asarray(profile, np.float64)
    rows = profile[present(profile)]
    if metric not in METRICS:
        raise ValueError(f"unknown metric {metric!r}; allowed are {list(METRICS)}")
    if not len(rows):
        return np.zeros(0)
    apart: Float64 = pdist(metric_space(rows, metric), "euclidean")
    return apart if metric == "euclidean" else apart**2 / 2


def linkage(profile: Float64, *, metric: str = "cosine", method: str = "average") -> Float64:
    """(m - 1, 4) the tree of the m groups with inputs of a profile (g, u), as scipy writes it; (0, 4) where there is one or none.

    Row i joins the clusters [i, 0] and [i, 1] into the cluster m + i, at the distance [i, 2], of [i, 3] groups. Clusters below m are
    the groups with inputs, numbered among themselves: group `present(profile)[leaf]`. The leaves are in optimal order (Bar-Joseph,
    Gifford and Jaakkola, 2001): of all the orders that the tree allows, one of least distance between neighbours. Such an order is
    as good read backwards; of the two it is the one that begins with the group of the lower number.

    Raises ValueError as `distances`, and for another method.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r} to join groups; allowed are {list(METHODS)}")
    apart = distances(profile, metric=metric)
    if not len(apart):
        return np.zeros((0, 4))
    tree: Float64 = hierarchy.linkage(apart, method)
    place = np.argsort(_shortest(tree, squareform(apart)))
    first = [*place.tolist()]  # the first place that the leaves of each cluster take
    for row in tree:
        row[:2] = sorted(row[:2], key=lambda cluster: first[int(cluster)])
        first.append(first[int(row[0])])
    return tree


def order(profile: Float64, *, metric: str = "cosine", method: str = "average") -> Int64:
    """(g,) the groups of a profile (g, u) in the order of the leaves of `linkage`, and after them those without inputs.

    Raises ValueError as `linkage`.
    """
    with_inputs, tree = present(profile), linkage(profile, metric=metric, method=method)
    leaves = hierarchy.leaves_list(tree) if len(tree) else np.arange(len(with_inputs))
    ordered: Int64 = np.concatenate([with_inputs[leaves], np.setdiff1d(np.arange(len(profile)), with_inputs)])
    return ordered


@np.errstate(invalid="ignore")  # a diverged network: infinity minus infinity is NaN, which is what it is
def pairwise(profile: Float64) -> Float64:
    """(g, g, u) how each group's profile differs from each other one's: [i, j] is that of group i minus that of group j.

    NaN where one of the two has no inputs. Raises ValueError for a profile that is not (g, u), and where this would take more
    than 8 GiB.
    """
    profile = np.asarray(profile, np.float64)
    if profile.ndim != 2:
        raise ValueError(f"pairwise contrasts were asked of a profile of shape {profile.shape}; expected (g, u), a row for each group")
    g, u = profile.shape
    if 8 * g * g * u > LARGEST_PROFILES:
        raise ValueError(
            f"the pairwise contrasts of {g} groups and {u} units would take {8 * g * g * u / 2**30:.1f} GiB, "
            f"more than {LARGEST_PROFILES / 2**30:.0f}; take fewer groups"
        )
    return profile[:, None] - profile[None]


def _shortest(tree: Float64, apart: Float64) -> Int64:
    """(m,) the leaves of a tree, of all orders it allows in the one with the least distance (m, m) between neighbours.

    scipy's own optimal ordering computes its length and returns another (its issue 11227). Here as Bar-Joseph et al. (2001)
    write it, O(m^3): the shortest order of a cluster from one leaf to another is known for all pairs of leaves whose smallest
    common cluster it is.
    """
    m = len(apart)
    leaves = [np.array([leaf]) for leaf in range(m)]
    parts: list[tuple[int, ...]] = [()] * m
    length = np.zeros((m, m))
    for left, right in tree[:, :2].astype(int).tolist():
        begun = np.empty((m, len(leaves[right])))  # from a leaf of the left cluster through all of it, and on to one of the right
        for starts, ends in _halves(left, leaves, parts):
            begun[starts] = _least_sums(length[np.ix_(starts, ends)], apart[np.ix_(ends, leaves[right])])
        at = np.argsort(leaves[right])
        for starts, ends in _halves(right, leaves, parts):
            columns = at[np.searchsorted(leaves[right], starts, sorter=at)]
            length[np.ix_(leaves[left], ends)] = _least_sums(begun[np.ix_(leaves[left], columns)], length[np.ix_(starts, ends)])
        length[np.ix_(leaves[right], leaves[left])] = length[np.ix_(leaves[left], leaves[right])].T
        leaves.append(np.concatenate([leaves[left], leaves[right]]))
        parts.append((left, right))
    left, right = parts[-1]
    whole = length[np.ix_(leaves[left], leaves[right])]
    i, j = np.unravel_index(whole.argmin(), whole.shape)
    found: list[int] = []
    ahead = [(len(parts) - 1, int(leaves[left][i]), int(leaves[right][j]))]
    while ahead:
        cluster, first, last = ahead.pop()
        if not parts[cluster]:
            found.append(first)
            continue
        left, right = parts[cluster] if first in leaves[parts[cluster][0]] else parts[cluster][::-1]
        before, after = (_opposite(part, leaf, leaves, parts) for part, leaf in ((left, first), (right, last)))
        total = length[first, before][:, None] + apart[np.ix_(before, after)] + length[after, last]
        i, j = np.unravel_index(total.argmin(), total.shape)
        ahead += [(right, int(after[j]), last), (left, first, int(before[i]))]
    return np.array(found, np.int64) if found[0] < found[-1] else np.array(found[::-1], np.int64)


def _halves(cluster: int, leaves: list[Int64], parts: list[tuple[int, ...]]) -> list[tuple[Int64, Int64]]:
    """Where an order of a cluster may begin, with where it then may end: at the other of its two parts."""
    if not parts[cluster]:
        return [(leaves[cluster], leaves[cluster])]
    left, right = parts[cluster]
    return [(leaves[left], leaves[right]), (leaves[right], leaves[left])]


def _opposite(cluster: int, leaf: int, leaves: list[Int64], parts: list[tuple[int, ...]]) -> Int64:
    """Where an order of a cluster that begins at this leaf of it may end."""
    return next(ends for starts, ends in _halves(cluster, leaves, parts) if leaf in starts)


def _least_sums(a: Float64, b: Float64) -> Float64:
    """(i, j) the least sum of a (i, k) and b (k, j) over k."""
    return np.stack([(row[:, None] + b).min(axis=0) for row in a])
