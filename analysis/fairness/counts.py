"""How often a network is right, for whom: counts per group, which add up over batches and processes, and the rates they give."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.special import ndtri

from netlapse.types import Float64, Int64

LEVEL = 0.95
RATES = ("recall", "false_positive_rate", "precision", "selection_rate")
"""Those of one class against all others."""


def group_counts(groups: Int64, labels: Int64, predictions: Int64, n_groups: int, n_classes: int) -> Int64:
    """(g, k, k) how many inputs of each group and label were given each prediction: confusion matrices, one for each group.

    groups, labels, predictions  (n,) integers from 0

    Counts of the parts of a probe add up to those of the whole. Raises ValueError for arrays of other shapes, kinds or ranges.
    """
    for name, values, size in (("groups", groups, n_groups), ("labels", labels, n_classes), ("predictions", predictions, n_classes)):
        values = np.asarray(values)
        integers = np.issubdtype(values.dtype, np.integer) or not values.size
        if values.shape != np.shape(groups) or values.ndim != 1 or not integers or (values.size and not 0 <= values.min() <= values.max() < size):
            between = f" between {values.min()} and {values.max()}" if values.size else ""
            raise ValueError(
                f"group_counts was given {name} of shape {values.shape} and dtype {values.dtype}{between}; expected "
                f"{np.shape(groups)[:1]} integers from 0 to {size - 1}: leave out inputs that belong to no group or have no prediction"
            )
    cells = (np.asarray(groups, np.int64) * n_classes + np.asarray(labels, np.int64)) * n_classes + np.asarray(predictions, np.int64)
    return np.bincount(cells, minlength=n_groups * n_classes**2).reshape(n_groups, n_classes, n_classes).astype(np.int64)


def group_metrics(counts: Int64, *, level: float = LEVEL) -> dict[str, Float64]:
    """Name -> rates of each group, from counts (g, k, k); NaN where one has nothing to be a rate of.

    n, accuracy, each (g,)
    recall, false_positive_rate, precision, selection_rate   (g, k) of each class against all others
    <rate>_macro   (g,) their mean over classes; NaN where that of any class is: groups are not compared over different classes
    accuracy_low, accuracy_high, <rate>_low, <rate>_high     the ends of Wilson's interval at the level, shaped as the rate

    Raises ValueError for counts that are not (g, k, k) numbers from 0.
    """
    counts = _checked(counts)
    right, of_class, predicted = np.einsum("gkk->gk", counts), counts.sum(axis=2), counts.sum(axis=1)
    n = counts.sum(axis=(1, 2))
    others = n[:, None] - of_class
    shares = {
        "accuracy": (right.sum(axis=1), n),
        "recall": (right, of_class),
        "false_positive_rate": (predicted - right, others),
        "precision": (right, predicted),
        "selection_rate": (predicted, np.broadcast_to(n[:, None], predicted.shape)),
    }
    found: dict[str, Float64] = {"n": n.astype(np.float64)}
    for name, (hits, tries) in shares.items():
        found[name] = proportion(hits, tries)
        found[f"{name}_low"], found[f"{name}_high"] = wilson(hits, tries, level=level)
    return found | {f"{name}_macro": found[name].mean(axis=1) for name in RATES}


def proportion(hits: Int64 | Float64, tries: Int64 | Float64) -> Float64:
    """hits / tries; NaN where nothing was tried."""
    return np.asarray(hits / np.where(np.asarray(tries) > 0, tries, np.nan), np.float64)


def wilson(hits: Int64 | Float64, tries: Int64 | Float64, *, level: float = LEVEL) -> tuple[Float64, Float64]:
    """The ends of the score interval of a proportion, shaped as hits; NaN where nothing was tried (Wilson, 1927).

    Raises ValueError for a level that is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"an interval was asked for at the level {level}; expected a number between 0 and 1, such as 0.95")
    z2 = float(ndtri((1 + level) / 2)) ** 2
    n = np.where(np.asarray(tries) > 0, tries, np.nan)
    centre = (hits + z2 / 2) / (n + z2)
    half = np.sqrt(z2) / (n + z2) * np.sqrt(hits * (n - hits) / n + z2 / 4)
    # At none and all of the tries an end is 0 and 1 exactly, which rounding misses.
    low, high = np.where(hits == 0, 0.0, centre - half), np.where(hits == tries, 1.0, centre + half)
    return np.where(np.isnan(n), np.nan, low), np.where(np.isnan(n), np.nan, high)


@dataclass(frozen=True, eq=False)
class Disparities:
    """How differently groups fare, over those of which it can be told; NaN where it can be told of fewer than two.

    worst, best        the groups of the lowest and the highest accuracy, -1 where there is none; of equals the first
    worst_accuracy     of the worst group        mean_accuracy   the mean over groups, each counting the same
    gap                best minus worst, and gap_low, below which the true one lies with a probability of at most 1 - level: see `gap_bound`
    variance           the sample variance over groups of the accuracies in percent, as Amini et al., 2019, report it
    demographic_parity, equal_opportunity, equalised_odds   (k,) of each class against all others: the largest difference between
                       groups of its selection rate, of its recall, and the larger of those of its recall and false-positive rate
    undefined          how many rates of groups and classes are NaN: of accuracy, recall, false-positive rate, precision and selection rate
    """

    worst: int
    best: int
    worst_accuracy: float
    mean_accuracy: float
    gap: float
    gap_low: float
    variance: float
    demographic_parity: Float64
    equal_opportunity: Float64
    equalised_odds: Float64
    undefined: int


def disparities(counts: Int64, *, level: float = LEVEL) -> Disparities:
    """The differences between groups, from counts (g, k, k); raises ValueError as `group_metrics`."""
    rates = group_metrics(counts, level=level)
    accuracy = rates["accuracy"]
    told = np.flatnonzero(~np.isnan(accuracy))
    worst, best = (int(told[accuracy[told].argmin()]), int(told[accuracy[told].argmax()])) if len(told) else (-1, -1)
    enough = len(told) > 1
    recall, false_positives = _spread(rates["recall"]), _spread(rates["false_positive_rate"])
    return Disparities(
        worst,
        best,
        float(accuracy[worst]) if len(told) else np.nan,
        float(accuracy[told].mean()) if len(told) else np.nan,
        float(accuracy[best] - accuracy[worst]) if enough else np.nan,
        gap_bound(np.einsum("gkk->g", _checked(counts)), rates["n"], level=level),
        float(np.var(100 * accuracy[told], ddof=1)) if enough else np.nan,
        _spread(rates["selection_rate"]),
        recall,
        np.maximum(recall, false_positives),  # NaN where either is: half of a criterion does not stand for all of it
        int(sum(np.isnan(rates[name]).sum() for name in ("accuracy", *RATES))),
    )


def gap_bound(hits: Int64 | Float64, tries: Int64 | Float64, *, level: float = LEVEL) -> float:
    """A lower confidence bound of the largest difference between the proportions of groups (g,), at least 0; NaN for fewer than two.

    Of each pair of groups the score interval of their difference (Newcombe, 1998, method 10), at a level at which all pairs hold
    at once (Bonferroni): that the two furthest apart are looked at because they are furthest apart does not make it too high.
    """
    told = np.flatnonzero(np.asarray(tries) > 0)
    pairs = list(combinations(told.tolist(), 2))
    if not pairs:
        return float("nan")
    shares = proportion(hits, tries)
    low, high = wilson(hits, tries, level=1 - (1 - level) / len(pairs))
    bounds = [0.0]
    for pair in pairs:
        above, below = sorted(pair, key=lambda group: shares[group], reverse=True)
        bounds.append(float(shares[above] - shares[below] - np.hypot(shares[above] - low[above], high[below] - shares[below])))
    return max(bounds)


def _spread(rates: Float64) -> Float64:
    """(k,) the largest minus the smallest of rates (g, k) over the groups that have one; NaN for fewer than two."""
    told = ~np.isnan(rates)
    high, low = np.where(told, rates, -np.inf).max(axis=0, initial=-np.inf), np.where(told, rates, np.inf).min(axis=0, initial=np.inf)
    enough = told.sum(axis=0) > 1
    spread: Float64 = np.subtract(high, low, out=np.full(rates.shape[1], np.nan), where=enough)
    return spread


def _checked(counts: Int64) -> Int64:
    counts = np.asarray(counts)
    if counts.ndim != 3 or counts.shape[1] != counts.shape[2] or not counts.shape[1] or (counts.size and counts.min() < 0):
        raise ValueError(f"group metrics were asked of counts {counts.shape}, {counts.dtype}; expected (g, k, k) numbers from 0, as of group_counts")
    return counts
