"""Which units of two runs are each other's counterparts: two seeds of one network learn the same in another order.

Units are matched one to one by what they respond to (Li et al., 2016, "Convergent learning"), so that the maps of several runs can be
drawn on one layout. Any two sets of units can be matched, so a matching comes with how well chance would have done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.optimize import linear_sum_assignment

from netlapse.types import Float64, Int64


@dataclass(frozen=True, eq=False)
class Matching:
    """Units of a first run and of a second one, one to one.

    pairs         (m, 2) a unit of the first and its counterpart in the second, ascending by the first
    correlations  (m,) of their profiles
    sizes         how many units the two have
    unmatchable   of each, the units that do one and the same throughout or something that is not finite: they are like none
    null          (permutations,) the mean correlations of matchings with the second run's profiles in random order
    """

    pairs: Int64
    correlations: Float64
    sizes: tuple[int, int]
    unmatchable: tuple[Int64, Int64]
    null: Float64

    @property
    def mean(self) -> float:
        """The mean correlation of the pairs; NaN where there are none."""
        return float(self.correlations.mean()) if len(self.correlations) else float("nan")

    @property
    def null_mean(self) -> float:
        """That of the null; NaN without permutations."""
        return float(self.null.mean()) if len(self.null) else float("nan")

    @property
    def p(self) -> float:
        """How likely so high a mean correlation is by chance: the share of orders that reach it, the given one among them; NaN without any."""
        if not len(self.null) or not len(self.pairs):
            return float("nan")
        reached = (self.null >= self.mean - 1e-12).sum()  # an order may be the given one, with other rounding
        return float((1 + reached) / (1 + len(self.null)))

    def __str__(self) -> str:
        if not len(self.pairs):
            return "no units to match"
        return f"correlation {self.mean:.2f}" + (f", {self.null_mean:.2f} by chance" if len(self.null) else "")

    @cached_property
    def alone(self) -> tuple[Int64, Int64]:
        """Of each run, the units without a counterpart, the unmatchable ones among them."""
        first, second = (np.setdiff1d(np.arange(size), self.pairs[:, side]) for side, size in enumerate(self.sizes))
        return first, second


def match_units(profiles: Float64, others: Float64, *, within: Int64 | None = None, permutations: int = 100, seed: int = 0) -> Matching:
    """The one-to-one matching of units with profiles (u, f) and others (u2, f) of the largest mean correlation.

    f counts what both runs were shown, in the same order: inputs, or groups of them. Of the larger run some units stay alone.
    within        (f,) groups: the null reorders inputs only within each, so that what it leaves to chance is how units tell inputs of
                  one group apart. None: it reorders all
    permutations  orders in the null, drawn from the seed

    Correlations of few features are large by chance: with 10 groups nearly every unit finds a good counterpart, which is what the null
    tells. Raises ValueError for profiles of other shapes or fewer than three features, and for a number of permutations below 0.
    """
    first, second = np.asarray(profiles, np.float64), np.asarray(others, np.float64)
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1] or first.shape[1] < 3 or permutations < 0:
        raise ValueError(
            f"match_units was given profiles {first.shape} and {second.shape}, and {permutations} permutations; expected (u, f) and (u2, f) of the "
            "same inputs or groups, at least 3, and not less than 0"
        )
    if within is not None and np.shape(within) != first.shape[1:]:
        raise ValueError(f"match_units was given groups {np.shape(within)} to reorder within; expected {first.shape[1:]}, one for each feature")
    (a, rows), (b, columns) = _standardised(first), _standardised(second)
    correlations = a @ b.T
    left, right = linear_sum_assignment(correlations, maximize=True)
    order = _orders(np.zeros(first.shape[1], np.int64) if within is None else np.asarray(within), np.random.default_rng(seed))
    null = np.array([_mean_of_best(a @ b[:, order()].T) for _ in range(permutations)] if len(left) else [])
    return Matching(
        np.stack([rows[left], columns[right]], axis=1).astype(np.int64),
        correlations[left, right],
        (len(first), len(second)),
        (np.setdiff1d(np.arange(len(first)), rows), np.setdiff1d(np.arange(len(second)), columns)),
        null,
    )


def by_index(units: int, others: int) -> Matching:
    """The matching of each unit with the one of the same number: what comparing maps of runs without any does."""
    both = np.arange(min(units, others))
    nothing = np.array([], np.int64)
    return Matching(np.stack([both, both], axis=1), np.full(len(both), np.nan), (units, others), (nothing, nothing), np.array([]))


def placed(positions: Float64, matching: Matching, *, least: float = 0.0) -> Float64:
    """(u2, 2) the places of the second run's units: those of their counterparts among the first run's positions (u, 2).

    NaN for units that have none, or one whose correlation is not above `least`: they are left out of the map, because wherever they were
    put, the map would say there what the other run's map does not. Where no correlation is known, all have the places of their counterparts.

    Raises ValueError for positions that are not (u, 2) of the first run's units.
    """
    if np.shape(positions) != (matching.sizes[0], 2):
        raise ValueError(f"placed was given positions {np.shape(positions)}; expected ({matching.sizes[0]}, 2), of the first run's units")
    places = np.full((matching.sizes[1], 2), np.nan)
    good = matching.pairs[~(matching.correlations <= least)]
    places[good[:, 1]] = np.asarray(positions, np.float64)[good[:, 0]]
    return places


def _standardised(profiles: Float64) -> tuple[Float64, Int64]:
    """The profiles (m, f) of the units that vary and are finite, each about its mean and of length 1; and which units those are."""
    finite = np.asarray(np.isfinite(profiles).all(axis=1))
    size = np.abs(np.where(finite[:, None], profiles, 0)).max(axis=1, initial=0)
    # Profiles come in float32, or as means of such: what deviates by their rounding does not deviate.
    varies = np.asarray(finite & (np.ptp(np.where(finite[:, None], profiles, 0), axis=1) > 4 * np.finfo(np.float32).eps * size))
    units = np.flatnonzero(varies)
    away = profiles[units] / size[units, None]  # of any size, without overflow
    away = away - away.mean(axis=1, keepdims=True)
    return away / np.linalg.norm(away, axis=1, keepdims=True), units


def _mean_of_best(correlations: Float64) -> float:
    left, right = linear_sum_assignment(correlations, maximize=True)
    return float(correlations[left, right].mean())


def _orders(groups: Int64, rng: np.random.Generator) -> Callable[[], Int64]:
    """Random orders of features, each within its group."""
    members: Sequence[Int64] = [np.flatnonzero(groups == group) for group in np.unique(groups)]

    def order() -> Int64:
        drawn = np.empty(len(groups), np.int64)
        for mine in members:
            drawn[mine] = rng.permutation(mine)
        return drawn

    return order
