"""How often to draw each training input, so that what is rare among the features of its class is seen more.

The debiasing of Amini, Soleimany, Schwarting, Bhatia & Rus, "Uncovering and mitigating algorithmic bias through learned latent structure"
(AIES 2019), section 3.2, for any features and any number of classes, with the rules that are in use under its name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, cast, get_args

import numpy as np
from scipy.special import logsumexp

from netlapse.layers import select
from netlapse.types import Array, Float64, Int64, Network

Rule = Literal["max", "product", "sum_log", "top5", "knn"]

CLIP = (0.01, 0.99)
"""The quantiles of a feature between which its bins lie: beyond is counted to the outermost, so that one outlier does not empty the others."""

NEIGHBOURS = 10
"""Of `knn`; in classes of fewer inputs, all others."""

STRONGEST, WEAKEST = 1e-12, 1e6
"""Between these alpha is looked for where an effective sample size is wanted."""


def sampling_weights(
    features: Array,
    classes: Int64,
    *,
    rule: Rule = "max",
    bins: int = 10,
    alpha: float = 1e-3,
    target_ess: float | None = None,
) -> Float64:
    """(n,) the share of each input in a draw, summing to 1: the more, the rarer its features in its class.

    features    (n, d), such as activations of a layer, or the means of a VAE's latent variables
    classes     (n,) integers; each class keeps its share of the draw, and only what is within it changes
    rule        m is the share of the class in the input's bin of a feature:
                "max"      the largest over features of 1 / (m + alpha), each feature's first made to sum to 1 over the class (the
                           rule of MIT's course; the default)
                "product"  the product over features of 1 / (m + alpha), as printed in the paper: with many features a few inputs take
                           nearly all of the draw
                "sum_log"  the sum over features of log(1 + 1 / (m + alpha)) (Ebner et al.): hardly differs from an even draw
                "top5"     the product of the five largest of what "max" compares (Fijen et al., 2020)
                "knn"      1 / (m + alpha), where m is the distance to the nearest 10 of the class, inverted, over its largest
    bins        of equal width for each feature, between its quantiles 0.01 and 0.99 in the class
    alpha       added to the shares, at least 0: 0 is strongest, and the larger the more even. As it is added to a share and not to
                a density, features may be of any scale
    target_ess  instead of alpha: the effective sample size to have, as a share of n, see `effective_sample_size`; the strongest
                weights there are where even those are of more. It is met to a thousandth

    All in logarithms: nothing overflows with any number of features. Raises ValueError for features that are not (n, d) or not
    finite (with the first input that is not), classes that are not (n,) integers, and options out of their ranges.
    """
    rows = np.asarray(features, np.float64)
    classes = np.asarray(classes)
    _check(rows, classes, rule, bins, alpha, target_ess)
    parts = [np.flatnonzero(classes == each) for each in np.unique(classes)]
    shares = [_shares(rows[part], rule, bins) for part in parts]

    def drawn(strength: float) -> Float64:
        weights = np.empty(len(rows))
        for part, share in zip(parts, shares):
            logs = RULES[rule](share, strength)
            weights[part] = np.exp(logs - logsumexp(logs)) * (len(part) / len(rows))
        return cast(Float64, weights / weights.sum())

    if target_ess is None:
        return drawn(alpha)
    low, high = np.log(STRONGEST), np.log(WEAKEST)
    while high - low > 1e-6:
        middle = (low + high) / 2
        enough = effective_sample_size(drawn(float(np.exp(middle)))) >= target_ess * len(rows)
        low, high = (low, middle) if enough else (middle, high)
    return drawn(float(np.exp(high)))


def last_hidden(network: Network, inputs: Array) -> str:
    """The last layer that is observed by default and is not the network's output: what its last decision is made from.

    Raises ValueError for a network that has none.
    """
    described = network.describe(inputs[:2])
    outputs = {layer.name for layer in described if layer.role == "output"}
    hidden = [name for name in select(described, "auto", refused=network.refused) if name not in outputs]
    if not hidden:
        raise ValueError(f"this network has no hidden layer to take features from, only {[layer.name for layer in described]}; name a layer")
    return hidden[-1]


def effective_sample_size(weights: Float64) -> float:
    """(sum of weights)^2 / sum of squared weights (Kish, 1965): n where all are equal, 1 where one input takes all."""
    return float(weights.sum() ** 2 / (weights**2).sum())


def _check(features: Float64, classes: Int64, rule: str, bins: int, alpha: float, target_ess: float | None) -> None:
    if features.ndim != 2 or not features.size:
        raise ValueError(f"sampling weights need features (n, d), and were given shape {features.shape}; flatten positions, or take their mean")
    if classes.shape != (len(features),) or not np.issubdtype(classes.dtype, np.integer):
        raise ValueError(f"classes have shape {classes.shape} and dtype {classes.dtype}; expected ({len(features)},) integers, one for each input")
    broken = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(broken):
        raise ValueError(
            f"the features of {len(broken)} of {len(features)} inputs hold NaN or infinity, first of input {broken[0]}: the network has diverged, "
            "or its inputs hold them; no weights can be told"
        )
    if rule not in get_args(Rule):
        raise ValueError(f"sampling weights were asked by rule {rule!r}; expected one of {get_args(Rule)}")
    if bins < 1 or not alpha >= 0 or (target_ess is not None and not 0 < target_ess <= 1):
        raise ValueError(
            f"sampling weights were given bins={bins}, alpha={alpha} and target_ess={target_ess}; expected bins of at least 1, alpha of at least 0, "
            "and a share of the inputs above 0 and at most 1"
        )


def _shares(rows: Float64, rule: str, bins: int) -> Float64:
    """(m, d) the share of the rows (m, d) that lie in each one's bin of each feature; of `knn` (m, 1)."""
    if rule == "knn":
        return _nearness(rows)
    low, high = np.quantile(rows, CLIP, axis=0)
    width = np.where(high > low, high - low, 1.0)  # of a constant feature all rows lie in one bin
    bin_of = np.clip(np.floor((rows - low) / width * bins), 0, bins - 1).astype(np.int64)
    shares = np.empty(rows.shape)
    for column in range(rows.shape[1]):
        shares[:, column] = np.bincount(bin_of[:, column], minlength=bins)[bin_of[:, column]] / len(rows)
    return shares


def _nearness(rows: Float64) -> Float64:
    """(m, 1) the inverted mean distance of each row to its nearest others, over the largest; 1 where rows coincide, or are alone."""
    k = min(NEIGHBOURS, len(rows) - 1)
    if not k:
        return np.ones((len(rows), 1))
    from sklearn.neighbors import NearestNeighbors  # imports what takes a second

    distances = NearestNeighbors(n_neighbors=k).fit(rows).kneighbors()[0].mean(axis=1)
    positive = distances[distances > 0]
    nearest = positive.min() if len(positive) else 1.0
    return np.asarray(nearest / np.maximum(distances, nearest), np.float64)[:, None]


def _inverse(shares: Float64, alpha: float) -> Float64:
    """(m, d) log of 1 / (share + alpha), each feature's made to sum to 1 over the rows."""
    logs = -np.log(shares + alpha)
    return np.asarray(logs - logsumexp(logs, axis=0), np.float64)


RULES: dict[str, Callable[[Float64, float], Float64]] = {
    "max": lambda shares, alpha: _inverse(shares, alpha).max(axis=1),
    "product": lambda shares, alpha: -np.log(shares + alpha).sum(axis=1),
    "sum_log": lambda shares, alpha: np.log(np.log1p(1 / (shares + alpha)).sum(axis=1)),
    "top5": lambda shares, alpha: np.sort(_inverse(shares, alpha), axis=1)[:, -5:].sum(axis=1),
    "knn": lambda shares, alpha: -np.log(shares[:, 0] + alpha),
}
"""Name -> (shares (m, d), alpha) -> (m,) the logarithms of weights."""
