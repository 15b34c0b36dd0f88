"""How well each class is told from the others: precision, recall, F1, and what is under the curves of all thresholds.

The definitions of scikit-learn, from counts: its functions check their arguments for 40 ms at each checkpoint of ten classes, these take 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from netlapse.analysis.fairness.counts import proportion
from netlapse.types import Float64, Int64

GRID: Float64 = np.linspace(0, 1, 101)
"""The false-positive rates, and the recalls, at which curves are told."""


@dataclass(frozen=True, eq=False)
class ClassScores:
    """Each class against all others, (k,) but for the curves; NaN where there is nothing to be a share of.

    precision, recall, f1   of the predictions         support  how many inputs are of the class
    auc                     area under the ROC curve: the probability that an input of the class scores above one that is not
    average_precision       precision summed over the steps in recall, not interpolated
    roc                     (k, 101) the true-positive rate at each false-positive rate of `GRID`, linear between those there are
    precision_recall        (k, 101) the highest precision at each recall of `GRID` or a higher one ("interpolated precision")
    """

    precision: Float64
    recall: Float64
    f1: Float64
    support: Int64
    auc: Float64
    average_precision: Float64
    roc: Float64
    precision_recall: Float64


def class_scores(confusion: Int64, labels: Int64, probabilities: Float64) -> ClassScores:
    """Every class against all others.

    confusion      (k, k) how many inputs of each label were given each prediction
    labels         (n,) integers from 0
    probabilities  (n, k) of each class, by which inputs are ranked; equal ones share a rank

    A class without inputs, or with all of them, has no AUC and no curve. Raises ValueError for shapes that do not belong together, labels
    out of range, and probabilities that are not finite.
    """
    probabilities = np.asarray(probabilities, np.float64)
    _check(confusion, labels, probabilities)
    right, support, named = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    k = len(confusion)
    auc, average_precision = np.full(k, np.nan), np.full(k, np.nan)
    roc, precision_recall = np.full((k, len(GRID)), np.nan), np.full((k, len(GRID)), np.nan)
    for one in np.flatnonzero((support > 0) & (support < len(labels))).tolist():
        hits, others = _reached(labels == one, probabilities[:, one])
        recall, fall_out, precision = hits / support[one], others / (len(labels) - support[one]), hits / (hits + others)
        rises = np.diff(recall, prepend=0)
        from_none, from_nothing = np.append(0, fall_out), np.append(0, recall)
        auc[one] = np.trapezoid(from_nothing, from_none)
        average_precision[one] = (rises * precision).sum()
        roc[one] = np.interp(GRID, from_none, from_nothing)  # of a vertical step the upper end
        least = np.searchsorted(recall, GRID - 1e-12)  # the first threshold that reaches so much
        precision_recall[one] = np.maximum.accumulate(precision[::-1])[::-1][least]
    return ClassScores(
        proportion(right, named), proportion(right, support), proportion(2 * right, named + support), support,
        auc, average_precision, roc, precision_recall,
    )  # fmt: skip


def _reached(of_it: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], score: Float64) -> tuple[Int64, Int64]:
    """How many inputs of the class, and how many others, score at least as much as each of the scores there are, the highest first."""
    order = np.argsort(-score, kind="stable")
    last = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))  # of the inputs that score the same
    hits: Int64 = np.cumsum(of_it[order], dtype=np.int64)[last]
    return hits, last + 1 - hits


def _check(confusion: Int64, labels: Int64, probabilities: Float64) -> None:
    if probabilities.ndim != 2 or not probabilities.size or not np.isfinite(probabilities).all():
        raise ValueError(f"class scores were given probabilities of shape {probabilities.shape}; expected (n, k), all finite")
    n, k = probabilities.shape
    if labels.shape != (n,) or not np.issubdtype(labels.dtype, np.integer) or not 0 <= labels.min() <= labels.max() < k:
        raise ValueError(
            f"class scores were given labels of shape {labels.shape} and dtype {labels.dtype}; expected ({n},) integers from 0 to {k - 1}"
        )
    if confusion.shape != (k, k) or (confusion.sum(axis=1) != np.bincount(labels, minlength=k)).any():
        raise ValueError(
            f"class scores were given a confusion matrix {confusion.shape} of {confusion.sum()} inputs; expected ({k}, {k}) of these {n}"
        )
