"""Would another last layer do? The network's features stay, and what is made of them is learnt anew where all groups count alike.

Deep feature reweighting (Kirichenko, Izmailov & Wilson, "Last layer re-training is sufficient for robustness to spurious correlations", ICLR
2023), asked of any saved checkpoint. It needs the groups of its inputs: what it finds is no debiasing without labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from netlapse.analysis.fairness.counts import wilson
from netlapse.analysis.fairness.grouping import Of, named_groups
from netlapse.analysis.rarest import hidden_layer
from netlapse.render.gaps import Rate, rates_chart
from netlapse.types import Array, Exact, Findings, Float64, Int64, ProbeSet, Snapshot, UInt8, checked_by, ungrouped

Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Head:
    """A last layer: features (n, d) @ weights (d, k) + bias (k,), of which the largest says which of the classes (k,) it is."""

    classes: Int64
    weights: Float64
    bias: Float64

    def predictions(self, features: Exact) -> Int64:
        """(n,) one of the classes for each row (n, d)."""
        logits: Float64 = np.asarray(features, np.float64) @ self.weights + self.bias
        return np.asarray(self.classes[logits.argmax(axis=1)], np.int64)


def retrained_head(features: Exact, labels: Int64, groups: Int64, *, strength: float = 1.0, draws: int = 10, seed: int = 0) -> Head:
    """The last layer that logistic regression makes of features (n, d) and labels (n,), where all groups (n,) have the same share.

    strength  of the data against the penalty on the squared weights, of features in their standard deviations (scikit-learn's C). The
              paper's penalty is on absolute weights
    draws     of as many inputs of each group as the smallest has; their weights are averaged, as in the paper. One does where all are of a size

    Raises ValueError for features that are not finite, lengths that differ, and fewer than two classes.
    """
    from sklearn.linear_model import LogisticRegression  # imports what takes a second

    rows = np.asarray(features, np.float64)
    classes = np.unique(labels)
    if rows.ndim != 2 or not len(rows) == len(labels) == len(groups) or len(classes) < 2 or not np.isfinite(rows).all():
        raise ValueError(
            f"a last layer was asked of features {rows.shape}, {len(labels)} labels of {len(classes)} classes and {len(groups)} groups; expected "
            "finite features (n, d), as many labels and groups, and two classes or more"
        )
    if not strength > 0 or draws < 1:
        raise ValueError(f"a last layer was asked with strength={strength} and draws={draws}; expected above 0, and at least 1")
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    smallest = min(len(each) for each in members)
    if all(len(each) == smallest for each in members):
        draws = 1  # they would all be the same
    weights, bias = np.zeros((rows.shape[1], len(classes))), np.zeros(len(classes))
    for _ in range(draws):
        drawn = np.concatenate([rng.permutation(each)[:smallest] for each in members])
        centre, deviation = rows[drawn].mean(axis=0), rows[drawn].std(axis=0)
        deviation[deviation == 0] = 1.0  # a constant feature is zero whatever it is divided by
        fitted = LogisticRegression(C=strength, max_iter=1000).fit((rows[drawn] - centre) / deviation, labels[drawn])
        coefficients = fitted.coef_ if len(classes) > 2 else np.concatenate([np.zeros_like(fitted.coef_), fitted.coef_])
        intercept = fitted.intercept_ if len(classes) > 2 else np.append(0.0, fitted.intercept_)
        weights += (coefficients / deviation).T / draws
        bias += (intercept - coefficients @ (centre / deviation)) / draws
    return Head(classes, weights, bias)


def cross_fitted(
    features: Exact, labels: Int64, groups: Int64, *, strength: float = 1.0, draws: int = 10, folds: int = 2, seed: int = 0
) -> tuple[Int64, Int64]:
    """(n,) what `retrained_head` says of each input that has not seen it, and (n,) the fold of each: a head is of the other folds.

    Each group is shared out among the folds alike. Raises ValueError as `retrained_head`, for fewer than two folds, and for a group of fewer
    inputs than folds.
    """
    groups = np.asarray(groups)
    sizes = np.unique(groups, return_counts=True)[1]
    if folds < 2 or sizes.min() < folds:
        raise ValueError(
            f"{folds} folds were asked of groups of {sizes.min()} to {sizes.max()} inputs; expected at least 2, and in each group as many"
        )
    rng = np.random.default_rng(seed)
    fold = np.empty(len(groups), np.int64)
    for group in np.unique(groups):
        members = rng.permutation(np.flatnonzero(groups == group))
        fold[members] = np.arange(len(members)) % folds
    said = np.empty(len(groups), np.int64)
    for each in range(folds):
        others, own = fold != each, fold == each
        head = retrained_head(features[others], labels[others], groups[others], strength=strength, draws=draws, seed=seed)
        said[own] = head.predictions(features[own])
    return said, fold


def _check(
    snapshot: Snapshot,
    *,
    attributes: Sequence[str] | None,
    of: Of,
    layer: str | None,
    strength: float,
    draws: int,
    folds: int,
    min_inputs: int,
    seed: int,
) -> None:
    there = list(snapshot.probe.attributes)
    if not there or isinstance(attributes, str) or set(attributes or ()) - set(there):
        raise ValueError(
            f"last_layer learns from groups of inputs and was given attributes={attributes!r}; the probe has {sorted(there)}; expected a list "
            "of some, or null for all, of a probe that has any: train on data that have them (data=rotated, data=fairface)"
        )
    if folds < 2 or min_inputs < folds or draws < 1 or not strength > 0:
        raise ValueError(
            f"last_layer was given folds={folds}, min_inputs={min_inputs}, draws={draws} and strength={strength}; expected at least 2 folds, as many "
            "inputs, 1 draw and a strength above 0"
        )
    if of not in get_args(Of):
        raise ValueError(f"last_layer was given of={of!r}; allowed are {get_args(Of)}")
    hidden_layer(snapshot, layer, "last_layer")


@ungrouped
@checked_by(_check)
def last_layer(
    snapshot: Snapshot,
    previous: Findings | None,
    *,
    attributes: Sequence[str] | None = None,
    of: Of = "label_and_attribute",
    layer: str | None = None,
    strength: float = 1.0,
    draws: int = 10,
    folds: int = 2,
    min_inputs: int = 10,
    seed: int = 0,
) -> Findings:
    """How groups of the probe would fare with a last layer learnt anew from inputs of which all groups have the same share.

    attributes   of the probe, one at a time; None: all of them
    of           what a group is: "label_and_attribute", a value within a class, or "attribute", a value, see `netlapse.analysis.fairness.grouping`
    layer        whose responses (mean activations over positions) are the features; None: the last one observed that is not the output
    strength, draws   see `retrained_head`          folds   see `cross_fitted`: no input is judged by a layer that has seen it
    min_inputs   of a group; inputs of smaller ones, without a value, or with responses or logits that are not finite, are left out and counted

    It uses the groups of the probe's inputs, and these are inputs that the training did not have: compare what is gained with a training that
    has them too.

    arrays    `layer` () its name. Of each attribute `<a>`: `groups/<a>` (g,) names, `sizes/<a>` (g,) inputs that took part, `before/<a>` and
              `after/<a>` (3, g) accuracies and their 95 % intervals, with the network's own last layer and with the new one; `right_before/<a>`,
              `right_after/<a>` (n,) 1 or 0, -1 for inputs left out; `fold/<a>` (n,), -1 likewise
    scalars   `last_layer/<number>/<a>`: worst_before, worst_after, mean_before, mean_after over groups, and left_out, how many inputs
    images    `last_layer/<a>`, the accuracies side by side

    NaN, and no picture, where fewer than two classes are left. Raises ValueError for a probe without attributes, attributes it has not got,
    options out of their ranges, an unknown layer, and a network without a logit for each class.
    """
    _check(snapshot, attributes=attributes, of=of, layer=layer, strength=strength, draws=draws, folds=folds, min_inputs=min_inputs, seed=seed)
    probe, name, logits = snapshot.probe, hidden_layer(snapshot, layer, "last_layer"), snapshot.statistics.logits
    if logits is None or logits.ndim != 2 or logits.shape[1] <= max(1, int(probe.labels.max())):
        raise ValueError(f"last_layer needs a logit for each class, and the network's output has shape {None if logits is None else logits.shape}")
    features = np.asarray(snapshot.responses[name])
    finite = np.isfinite(features).all(axis=1) & np.isfinite(logits).all(axis=1)
    arrays: dict[str, Array] = {"layer": np.array(name)}
    scalars: dict[str, float] = {}
    images: dict[str, UInt8] = {}
    for attribute in probe.attributes if attributes is None else attributes:
        groups, names = named_groups(probe.attributes[attribute], probe.labels, _classes(probe), of)
        there = finite & (groups >= 0)
        sizes = np.bincount(groups[there], minlength=len(names))
        there &= sizes[groups] >= min_inputs
        sizes = np.bincount(groups[there], minlength=len(names))
        right, fold = np.full((2, len(probe)), -1, np.int8), np.full(len(probe), -1)
        if len(np.unique(probe.labels[there])) > 1:
            labels = probe.labels[there]
            said, fold[there] = cross_fitted(features[there], labels, groups[there], strength=strength, draws=draws, folds=folds, seed=seed)
            right[:, there] = logits[there].argmax(axis=1) == labels, said == labels
        rates = [_rates(row, groups, len(names)) for row in right]
        arrays |= {f"groups/{attribute}": np.array(names, str), f"sizes/{attribute}": sizes, f"fold/{attribute}": fold}
        for what, rate, row in zip(("before", "after"), rates, right):
            known = rate[0][~np.isnan(rate[0])]
            worst, mean = (float(known.min()), float(known.mean())) if len(known) else (float("nan"), float("nan"))
            arrays |= {f"{what}/{attribute}": rate, f"right_{what}/{attribute}": row}
            scalars |= {f"last_layer/worst_{what}/{attribute}": worst, f"last_layer/mean_{what}/{attribute}": mean}
        scalars[f"last_layer/left_out/{attribute}"] = float((right[0] < 0).sum())
        if scalars[f"last_layer/left_out/{attribute}"] < len(probe):
            images[f"last_layer/{attribute}"] = _chart(attribute, names, sizes, rates, name, snapshot.step)
    return Findings(arrays, scalars, images)


def _classes(probe: ProbeSet) -> Sequence[str]:
    return probe.class_names if len(probe.class_names) else [str(label) for label in range(int(probe.labels.max()) + 1)]


def _rates(right: NDArray[np.int8], groups: Int64, n_groups: int) -> Float64:
    """(3, g) the share of right ones among those of each group that took part, and its interval; NaN where none did."""
    hits, tries = (np.bincount(groups[right >= least], minlength=n_groups)[:n_groups] for least in (1, 0))
    low, high = wilson(hits, tries)
    return np.stack([np.divide(hits, tries, out=np.full(n_groups, np.nan), where=tries > 0), low, high])


def _chart(attribute: str, names: Sequence[str], sizes: Int64, rates: Sequence[Float64], layer: str, step: int) -> UInt8:
    columns = [Rate(what, rate[0], rate[1], rate[2]) for what, rate in zip(("own last layer", "retrained"), rates)]
    worst = " to ".join(f"{np.nanmin(rate[0]):.2f}" for rate in rates)
    note = (
        f"Accuracy with the network's own last layer, and with one learnt anew from what {layer} makes of other inputs of this probe, all groups "
        "alike. It is told the groups, and learns from inputs that the training did not have: compare it with a training that has them."
    )
    return rates_chart(columns, list(names), sizes.tolist(), f"{attribute}, step {step}: the worst group goes from {worst}", note)
