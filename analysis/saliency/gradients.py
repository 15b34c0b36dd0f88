"""Saliency by the gradient of a class's logit by the input: alone, times the input, averaged over noise, or along a path."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from netlapse.analysis.onepass import BATCH_SIZE, Recipe, made_by, maps_of_recipe
from netlapse.analysis.saliency.base import batches, one_hot, unwarned
from netlapse.types import Array, Attributions, Float32, Float64, Int64, Network


def _recipe(of: Callable[[Array, Float32], Float32 | Float64]) -> Callable[[Network, Array, Int64], Recipe]:
    """That of a method that is a function of inputs and gradient (n, h, w, c), summed over channels."""

    def made(network: Network, inputs: Array, classes: Int64, found: Attributions) -> Float32:
        assert found.gradient is not None
        with unwarned():
            return _over_channels(of(inputs, found.gradient.astype(np.float32)))

    def recipe(network: Network, inputs: Array, classes: Int64) -> Recipe:
        one_hot(network, inputs, classes)  # for its errors
        return Recipe(made, gradient=True)

    return recipe


_gradient = _recipe(lambda inputs, gradient: np.abs(gradient))
_gradient_times_input = _recipe(lambda inputs, gradient: np.asarray(inputs, np.float64) * gradient)


@made_by(_gradient)
def gradient(network: Network, inputs: Array, classes: Int64, *, batch_size: int = BATCH_SIZE) -> Float32:
    """(n, h, w) how much the logit of each input's class changes with each position: sum over channels of |d logit / d input|.

    Simonyan et al., 2014, section 3.1, who take the maximum over channels instead of the sum. Not normalised.
    Raises ValueError for inputs that are not images (n, h, w, c) and for classes that are not (n,) in 0 to k - 1.
    """
    return np.asarray(maps_of_recipe(_gradient(network, inputs, classes), network, inputs, classes, batch_size), np.float32)


@made_by(_gradient_times_input)
def gradient_times_input(network: Network, inputs: Array, classes: Int64, *, batch_size: int = BATCH_SIZE) -> Float32:
    """(n, h, w) sum over channels of input * d logit / d input, signed: what speaks for the class is positive.

    Shrikumar et al., 2016. Its sum over positions is the logit where the network is linear without biases, or piecewise so
    (ReLU, max pooling). A black input, zero, has no part in it whatever it does. Raises ValueError as `gradient`.
    """
    return np.asarray(maps_of_recipe(_gradient_times_input(network, inputs, classes), network, inputs, classes, batch_size), np.float32)


@unwarned()
def smooth_gradient(
    network: Network, inputs: Array, classes: Int64, *, sigma: float = 0.15, samples: int = 25, seed: int = 0, batch_size: int = 64
) -> Float32:
    """(n, h, w) sum over channels of |mean over noisy copies of d logit / d input|: SmoothGrad (Smilkov et al., 2017, section 3).

    sigma    the standard deviation of the normal noise, as a share of each input's own range, largest minus smallest value;
             0 gives `gradient`
    samples  noisy copies
    seed     of the noise, which is the same for every input, so that none depends on what else is explained

    Raises ValueError as `gradient`, for a negative sigma and for less than one sample.
    """
    if not sigma >= 0 or samples < 1:
        raise ValueError(f"smooth_gradient was given sigma={sigma} and samples={samples}; expected a sigma of at least 0 and at least one sample")
    one_hot(network, inputs, classes)  # for its errors, before anything is made of the inputs
    inputs = np.asarray(inputs, np.float32)
    noise = np.random.default_rng(seed).normal(size=(samples, *inputs.shape[1:]))
    spread = sigma * np.ptp(inputs, axis=(1, 2, 3))[:, None, None, None]
    shares = np.full(samples, 1 / samples)
    return _over_channels(np.abs(_weighted(network, inputs, classes, shares, lambda i, s: inputs[i] + spread[i] * noise[s], batch_size)))


@unwarned()
def integrated_gradients(
    network: Network, inputs: Array, classes: Int64, *, baseline: Array | float = 0.0, steps: int = 32, batch_size: int = 64
) -> Float32:
    """(n, h, w) sum over channels of (input - baseline) * mean gradient on the straight line from the baseline to the input, signed.

    Sundararajan et al., 2017, section 3, eq. 1. Completeness: its sum over positions is the logit minus the baseline's logit,
    as closely as the mean is known.
    baseline  the input that says nothing: a number, or an array that broadcasts to the inputs, as (h, w, c) or (n, h, w, c)
    steps     points of the line, those of Gauss-Legendre quadrature: exact for a polynomial gradient of degree < 2 * steps

    Raises ValueError as `gradient`, for less than one step, and for a baseline of another shape.
    """
    if steps < 1:
        raise ValueError(f"integrated_gradients was given steps={steps}; expected at least one point between the baseline and the input")
    one_hot(network, inputs, classes)  # for its errors, before anything is made of the inputs
    images = np.asarray(inputs, np.float32)
    away = images.astype(np.float64) - baseline_of(inputs, baseline)
    nodes, weights = np.polynomial.legendre.leggauss(steps)  # on -1 to 1
    back = (1 - nodes) / 2
    mean = _weighted(network, inputs, classes, weights / 2, lambda i, s: images[i] - back[s, None, None, None] * away[i], batch_size)
    return _over_channels(away * mean)


def baseline_of(inputs: Array, baseline: Array | float) -> Float32:
    """(n, h, w, c) float32: what stands for nothing; raises ValueError for one that does not broadcast to the inputs or is not finite."""
    given = np.asarray(baseline, np.float32)
    if not np.isfinite(given).all():
        raise ValueError("baseline holds NaN or infinity; expected finite values in the scale of the inputs")
    try:
        return np.broadcast_to(given, np.shape(inputs))
    except ValueError as error:
        raise ValueError(f"baseline has shape {given.shape}; expected a number, or what broadcasts to the inputs {np.shape(inputs)}") from error


def _weighted(network: Network, inputs: Array, classes: Int64, weights: Float64, shown: Callable[[Int64, Int64], Array], batch_size: int) -> Float64:
    """(n, h, w, c) sum over samples of weight * gradient at `shown(inputs' indices, samples' indices)`; batches hold any of both."""
    wanted = one_hot(network, inputs, classes)
    total = np.zeros(np.shape(inputs))
    with network.undisturbed():
        for batch in batches(len(inputs) * len(weights), batch_size):
            i, s = np.divmod(np.arange(len(inputs) * len(weights))[batch], len(weights))
            found = network.vjp(np.asarray(shown(i, s), np.float32), "output", wanted[i], ["input"])["input"]
            np.add.at(total, i, weights[s, None, None, None] * found)
    return total


def _over_channels(values: Float32 | Float64) -> Float32:
    return np.asarray(values.sum(axis=-1), np.float32)
