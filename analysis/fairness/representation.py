"""Where in a network groups are told apart: differences of profiles within classes against chance, and linear probes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from netlapse.types import Array, Exact, Float64, Int64


def relabellings(groups: Int64, classes: Int64, repeats: int, seed: int) -> Int64:
    """(1 + repeats, n) the groups, and the groups shuffled within each class; the same seed shuffles alike."""
    groups, rng = np.asarray(groups, np.int64), np.random.default_rng(seed)
    shuffled = np.repeat(groups[None], 1 + repeats, axis=0)
    for label in np.unique(classes):
        mine = np.flatnonzero(classes == label)
        shuffled[1:, mine] = rng.permuted(shuffled[1:, mine], axis=1)
    return shuffled


def within_classes(responses: Exact, classes: Int64) -> Float64:
    """(n, u) responses minus the mean of their class, in standard deviations within classes.

    0 for units that are not finite for some input, and for those that never deviate from their class's mean.
    """
    values = np.asarray(responses, np.float64)
    largest = np.abs(values).max(axis=0, initial=0)
    told = np.isfinite(largest) & (largest > 0)
    values = np.where(told, values, 0.0) / np.where(told, largest, 1.0)  # so that no square is beyond float64
    _, places, counts = np.unique(classes, return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), values.shape[1]))
    np.add.at(sums, places, values)
    left = values - (sums / counts[:, None])[places]
    deviation = np.sqrt((left**2).sum(axis=0) / max(len(values), 1))
    varies = deviation > len(values) * np.finfo(np.float64).eps  # below is the rounding of n terms of size 1
    return np.asarray(np.where(varies, left, 0.0) / np.where(varies, deviation, 1.0), np.float64)


def group_differences(deviations: Float64, groups: Int64, n_groups: int) -> Float64:
    """(g, u) how far each group's mean lies from those of its inputs' classes, in standard deviations; NaN for groups without inputs."""
    sums = np.zeros((n_groups, deviations.shape[1]))
    np.add.at(sums, groups, deviations)
    counts = np.bincount(groups, minlength=n_groups).astype(np.float64)
    return np.asarray(sums / np.where(counts > 0, counts, np.nan)[:, None], np.float64)


def differences(deviations: Float64, relabelled: Int64, classes: Int64) -> Float64:
    """(b,) for each labelling (b, n): how far the means of groups lie from those of their classes, in standard deviations.

    deviations  (n, u) from `within_classes`

    The root mean square over the units that vary and, weighted by their inputs, over pairs of group and class:
    sqrt(sum of n_cg (m_ucg - m_uc)^2 / n / units). From 0 to 1. For two groups of equal size it is half the difference of their means.
    NaN where no unit varies.
    """
    deviations = deviations[:, deviations.any(axis=0)]
    if not deviations.size:
        return np.full(len(relabelled), np.nan)
    total = np.zeros(len(relabelled))
    for label in np.unique(classes):
        mine = classes == label
        rows, labelled = deviations[mine], relabelled[:, mine]
        for group in np.unique(labelled[0]):
            members = labelled == group
            # As many of each class and group in every labelling.
            total += ((members.astype(np.float64) @ rows) ** 2).sum(axis=1) / members[0].sum()
    return np.asarray(np.sqrt(total / deviations.size), np.float64)


def masses(maps: Array) -> Float64:
    """(n, p) of saliency maps (n, h, w) the share of each one's |map| at each place; NaN for a map that is zero everywhere or not finite."""
    rows = np.abs(np.asarray(maps, np.float64)).reshape(len(maps), -1)
    total = rows.sum(axis=1, keepdims=True)
    told = np.isfinite(total) & (total > 0)
    return np.asarray(np.where(told, rows, np.nan) / np.where(told, total, 1.0), np.float64)


def displaced(shares: Float64, relabelled: Int64, classes: Int64) -> Float64:
    """(b,) for each labelling (b, n): the share of saliency that lies elsewhere in a group's mean map than in that of its class.

    shares  (n, p) from `masses`, none of them NaN

    The total variation distance of the two, half the sum of absolute differences, which is 1 minus what the two have in common at every
    place; the mean over pairs of group and class, weighted by their inputs. From 0 to 1. NaN without inputs.
    """
    total = np.zeros(len(relabelled))
    for label in np.unique(classes):
        mine = classes == label
        rows, labelled = shares[mine], relabelled[:, mine]
        for group in np.unique(labelled[0]):
            members = labelled == group
            n = members[0].sum()  # as many in every labelling
            means = members.astype(np.float64) @ rows / n
            total += n * np.abs(means - rows.mean(axis=0)).sum(axis=1) / 2
    return np.asarray(total / len(shares) if len(shares) else np.full(len(relabelled), np.nan), np.float64)


def standardised(differences: Float64) -> Float64:
    """(..., b) minus their mean, over their standard deviation, along the labellings; 0 where all are alike, NaN where they are NaN.

    The first, as it is, is counted with the shuffled ones, so that all are treated alike and p-values are exact.
    """
    mean, deviation = differences.mean(axis=-1, keepdims=True), differences.std(axis=-1, keepdims=True)
    rounding = deviation <= 1e-12 * np.abs(mean)
    return np.asarray(np.where(rounding, 0.0, (differences - mean) / np.where(rounding, 1, deviation)), np.float64)


def exceeded(observed: Float64, maxima: Float64) -> Float64:
    """p-values of scores, shaped as they are: the share of labellings, itself among them, whose largest score reaches each; NaN stays.

    maxima  (b,) of each labelling the largest of its scores over all that is looked at; the first is the labelling as it is

    Westfall and Young, 1993, single-step maxT: the probability that any one is below alpha, where the attribute has nothing to do with
    any of them, is at most alpha.
    """
    reached = (maxima >= np.asarray(observed)[..., None] - 1e-9).mean(axis=-1)
    return np.where(np.isnan(observed), np.nan, reached)


@dataclass(frozen=True)
class Decodability:
    """How well a linear probe tells the group of an input it has not seen: share right, and that of the commonest group."""

    accuracy: float
    baseline: float


def decodability(responses: Exact, groups: Int64, *, folds: int = 5, seed: int = 0) -> Decodability:
    """Of groups (n,) from responses (n, u), by a ridge classifier of standardised responses, cross-validated in stratified folds.

    Both are of the same inputs in the same folds: those of groups that have at least as many inputs as there are folds. NaN
    where fewer than two groups have, and where no unit is finite and varies.
    The baseline says of every input the group commonest among those the probe was fitted to.
    Source: Alain and Bengio, 2016, with least squares in place of their logistic regression: it has one solution, and no iterations to stop.
    """
    from sklearn.dummy import DummyClassifier  # imports what takes a second
    from sklearn.linear_model import RidgeClassifier
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    names, counts = np.unique(groups, return_counts=True)
    enough = np.isin(groups, names[counts >= folds])
    values = np.asarray(responses, np.float64)[enough]
    values = values[:, np.isfinite(values).all(axis=0)]
    values = values[:, np.ptp(values, axis=0) > 0] if len(values) else values
    target = np.asarray(groups)[enough]
    if len(np.unique(target)) < 2 or not values.shape[1]:
        return Decodability(np.nan, np.nan)
    split = StratifiedKFold(folds, shuffle=True, random_state=seed)
    right = [
        float((cross_val_predict(model, values, target, cv=split) == target).mean())
        for model in (make_pipeline(StandardScaler(), RidgeClassifier()), DummyClassifier())
    ]
    return Decodability(*right)
