"""What is inside a layer at one step, in a few numbers whose course tells of changes; all come of the pass that analyses share."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from netlapse.analysis.nap import scale, separability
from netlapse.statistics import GroupStatistics, kept_inputs
from netlapse.types import Float32, Float64, ProbeSet

MOST_GROUPS = 50
"""Groups above which their pairs are not followed: there are too many."""

SEPARABILITY, SCALE, RANK, DEAD, DRIFT = "separability", "scale", "rank", "dead", "drift"
MEASURES = (SEPARABILITY, SCALE, RANK, DEAD, DRIFT)


def inside(statistics: GroupStatistics, layer: str) -> dict[str, float]:
    """Of one layer: `separability` and `scale` as in profiles, `rank`, and `dead`, the share of its units that do one and the same."""
    return {
        SEPARABILITY: separability(statistics, layer),
        SCALE: scale(statistics, layer),
        RANK: rank(statistics.profile(layer)),
        DEAD: float(statistics.constant(layer).mean()),
    }


@np.errstate(invalid="ignore")
def rank(profile: Float64) -> float:
    """In how many directions the groups of a profile (g, u) differ, from 1 to g - 1: the participation ratio of the variances along them.

    NaN where they do not differ, and where what is left of them is not finite.
    """
    rows = profile[~np.isnan(profile).all(axis=1)]
    away = rows - rows.mean(axis=0) if len(rows) else rows
    gram = away @ away.T
    total, squares = float(np.trace(gram)), float(np.square(gram).sum())
    return total**2 / squares if squares > 0 else float("nan")


def pairs_of(groups: int) -> tuple[tuple[int, int], ...]:
    """The pairs of groups that are followed, in order; none of more than 50 groups."""
    return tuple(combinations(range(groups), 2)) if groups <= MOST_GROUPS else ()


@np.errstate(invalid="ignore", divide="ignore")
def apart(statistics: GroupStatistics, layer: str) -> Float64:
    """(p,) how far the groups of each of the pairs are apart: the distance of their profiles over the spread of the inputs within groups.

    NaN for a pair with a group of fewer than two inputs, and where no unit varies within groups.
    """
    profile, variance = statistics.profile(layer), statistics.variance(layer)
    pairs = np.array(pairs_of(len(profile)), np.int64).reshape(-1, 2)
    there = np.asarray(~np.isnan(variance).all(axis=1))
    spread = variance[there].mean(axis=0).sum() if there.any() else np.nan
    profile = np.where(there[:, None], profile, np.nan)
    gaps = np.square(profile[pairs[:, 0]] - profile[pairs[:, 1]]).sum(axis=1)
    return np.asarray(np.sqrt(gaps / (spread if spread > 0 else np.nan)), np.float64)


def told_apart(kept: Float32, probe: ProbeSet, attribute: str) -> float:
    """The share of the variance of the kept responses (m, u), once the mean of each class is taken off, that lies between an attribute's values.

    What a network sees of the attribute beside the class. NaN where nothing varies, or a response is not finite.
    """
    shown = kept_inputs(probe.labels)
    values, labels = probe.attributes[attribute][shown], probe.labels[shown]
    rows = _without_means(kept.astype(np.float64), labels)
    total = float(np.square(rows).sum())
    if not (np.isfinite(total) and total > np.finfo(np.float32).eps * float(np.square(kept).sum())):
        return float("nan")
    return 1 - float(np.square(_without_means(rows, np.unique(values, return_inverse=True)[1])).sum()) / total


def _without_means(rows: Float64, groups: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Float64:
    rows = rows.copy()
    for group in np.unique(groups):
        rows[groups == group] -= rows[groups == group].mean(axis=0)
    return rows
