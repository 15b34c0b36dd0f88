"""Saliency by the gradient of a class's logit by the input: alone, times the input, averaged over noise, or along a path."""

from __future__ import annotations

import numpy as np

from netlapse.analysis.saliency.base import batches, one_hot
from netlapse.types import Array, Float32, Int64, Network


def gradient(network: Network, inputs: Array, classes: Int64, *, batch_size: int = 64) -> Float32:
    """(n, h, w) how much the logit of each input's class changes with each position: sum over channels of |d logit / d input|.

    Simonyan et al., 2014, section 3.1, who take the maximum over channels instead of the sum. Not normalised.
    Raises ValueError for inputs that are not images (n, h, w, c) and for classes that are not (n,) in 0 to k - 1.
    """
    wanted = one_hot(network, inputs, classes)
    with network.undisturbed():
        return np.concatenate(
            [np.abs(network.vjp(inputs[b], "output", wanted[b], ["input"])["input"]).sum(axis=-1) for b in batches(len(inputs), batch_size)]
        )
