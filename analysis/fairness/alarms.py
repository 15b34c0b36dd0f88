"""When to look: a gap that is surely there, again and again, or that grows while the network gets better."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from scipy.special import ndtri

from netlapse.types import Float64, Int64

LASTING, GROWING = "gap", "growing"
"""The kinds of alarm."""


def lasting(bounds: Float64, threshold: float, m: int) -> bool:
    """Whether the lower bounds of the gap at the last m checkpoints are all above the threshold; NaN is not, and fewer than m are not."""
    last = np.asarray(bounds, np.float64)[-m:]
    return len(last) == m and bool((last > threshold).all())


def growth_bound(before: Int64, now: Int64, groups: Int64, *, level: float = 0.95) -> float:
    """A lower confidence bound of how much any group's lead over another grew, from which of the same inputs are right before and now (n,).

    Of each ordered pair of groups the change of the difference of their accuracies, with the variance of paired proportions and one half
    added to each of its four cells (Agresti and Min, 2005), at a level at which all pairs hold at once (Bonferroni). Where the one that is
    ahead now was behind before, what it took to draw level is no growth. At least 0; NaN for fewer than two groups.
    """
    present = np.unique(groups).tolist()
    pairs = list(combinations(present, 2))
    if not pairs:
        return float("nan")
    z = float(ndtri(1 - (1 - level) / (2 * len(pairs))))
    moved = {group: _paired(before[groups == group], now[groups == group]) for group in present}
    was, accuracy = ({group: float(right[groups == group].mean()) for group in present} for right in (before, now))
    bounds = [0.0]
    for pair in pairs:
        ahead, behind = sorted(pair, key=lambda group: accuracy[group], reverse=True)
        (up, up_variance), (down, down_variance) = moved[ahead], moved[behind]
        level_with = 2 * min(was[ahead] - was[behind], 0.0)
        bounds.append(up - down + level_with - z * np.sqrt(up_variance + down_variance))
    return float(max(bounds))


def _paired(before: Int64, now: Int64) -> tuple[float, float]:
    """The change of a proportion over the same inputs, and its variance, with one half added to each of four cells."""
    n = len(now) + 2
    gained, lost = float(((now == 1) & (before == 0)).sum()) + 0.5, float(((now == 0) & (before == 1)).sum()) + 0.5
    change = (gained - lost) / n
    return change, ((gained + lost) / n - change**2) / n
