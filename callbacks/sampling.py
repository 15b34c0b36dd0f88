"""What drawing by weights has in common whatever trains: the draw itself, how a network's features make weights, and what is said of them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

import numpy as np

from netlapse.analysis.fairness.sampling import Rule, effective_sample_size, last_hidden, sampling_weights
from netlapse.types import Array, Float32, Float64, Int64, Network

log = logging.getLogger(__name__)


def drawn(weights: Float64, total: int, *, seed: int, epoch: int) -> Int64:
    """(total,) indices in random order, drawn by the weights (n,) and the seed (seed, epoch); the same whatever trains.

    Each input comes as often as n times its weight says, rounded down or up so that it comes so often on average (systematic sampling, Madow,
    1949): with equal weights once, which is training as usual, where independent draws would leave out a third. What n divides into shares
    of several processes unevenly is filled up with the first.
    """
    draw, n = np.random.default_rng([seed, epoch]), len(weights)
    order = draw.permutation(n)
    ends = np.cumsum(weights[order] / weights.sum()) * n
    places = np.searchsorted(ends, draw.random() + np.arange(n), side="right")
    indices = draw.permutation(order[np.minimum(places, n - 1)])  # rounding may leave the last end below n
    return np.resize(indices, total)


def told(weights: Float64, groups: Mapping[str, Array]) -> dict[str, float]:
    """What is logged of weights (n,): their `ess` as a share of n, the `largest` times n, and each group's `share/<name>/<group>`."""
    n, total = len(weights), weights.sum()
    said = {"ess": effective_sample_size(weights) / n, "largest": float(weights.max() / total * n)}
    for name, values in groups.items():
        said |= {f"share/{name}/{group}": float(weights[values == group].sum() / total) for group in np.unique(values).tolist()}
    return {f"sampling/{name}": value for name, value in said.items()}


def checked_groups(groups: Mapping[str, Array] | None, n: int) -> dict[str, Array]:
    """Name -> (n,) of str; raises ValueError for another length."""
    found = {name: np.asarray(values).astype(str) for name, values in (groups or {}).items()}
    wrong = {name: len(values) for name, values in found.items() if len(values) != n}
    if wrong:
        raise ValueError(f"the training draws from {n} inputs, and was given groups of other lengths: {wrong}")
    return found


@dataclass(frozen=True)
class Rarity:
    """How weights are made of a network's features.

    layer      whose responses (mean activations over positions) are the features; None: the last hidden one
    rule, bins, alpha, target_ess   see `netlapse.analysis.fairness.sampling_weights`
    least_ess  share of n below which a warning says that few inputs take the draw
    """

    layer: str | None
    rule: Rule
    bins: int
    alpha: float
    target_ess: float | None
    least_ess: float

    def features(self, network: Network, batches: Iterable[tuple[Array, Int64]]) -> list[tuple[Float32, Int64]]:
        """The responses (m, u) to each batch of (inputs (m, ...), classes (m,)), and its classes."""
        found, layer = [], self.layer
        with network.undisturbed():
            for inputs, classes in batches:
                layer = last_hidden(network, inputs) if layer is None else layer
                found.append((network.responses(inputs, [layer]).mean[layer], classes))
        return found

    def weights(self, found: Iterable[tuple[Float32, Int64]], epoch: int) -> Float64:
        """(n,) of the features and classes of all batches, in their order; warns where few inputs would take most of the epoch's draw."""
        features, classes = (np.concatenate(parts) for parts in zip(*found))
        options = {name: value for name, value in asdict(self).items() if name in ("rule", "bins", "alpha", "target_ess") and value is not None}
        weights = sampling_weights(features, classes, **options)
        share = effective_sample_size(weights) / len(weights)
        if share < self.least_ess:
            log.warning(
                "netlapse: the sampling weights for epoch %d are as good as a draw from %.1f %% of the inputs (%s); a few take most of it: "
                "raise alpha, or give target_ess=0.5",
                epoch, 100 * share, ", ".join(f"{name}={value}" for name, value in options.items()),
            )  # fmt: skip
        return weights


def check_refreshes(every_n_epochs: int) -> None:
    """Raises ValueError for a number of epochs between refreshes below 1."""
    if every_n_epochs < 1:
        raise ValueError(f"AdaptiveSampling was given every_n_epochs={every_n_epochs}; expected at least 1")
