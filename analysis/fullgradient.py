"""FullGrad: the score of a class as a sum over the inputs and every bias of the network, and maps made of that sum.

Srinivas and Fleuret, 2019. The sum is exact on any network (`full_gradient`), and each time it is checked on the very
inputs that are explained: terms that do not add up to the score raise, and name the module where they stop to.
A map exists where biases lie on an image.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import cast

import numpy as np

from netlapse.analysis.onepass import BATCH_SIZE, Recipe, made_by, maps_of_recipe
from netlapse.types import Array, Attributions, BiasMagnitude, Exact, Float64, Int64, Magnitude, Network, Sizes

ROUNDING = {np.dtype(np.float32): 1e-4, np.dtype(np.float64): 1e-10}
"""What the sum may miss the score by, over |score| + the sum of all terms' absolute values."""

_STABILISER = 1e-6  # in the denominator of the published program's rescaling: part of the definition of its maps

# ---- the sum ---------------------------------------------------------------------------------------------------------


def full_gradient(network: Network, inputs: Array, classes: Int64) -> tuple[Exact, dict[str, Exact]]:
    """The gradient (n, ...) by the inputs of the logit of each input's class, and {layer: bias term (n, ...)}, channels-last.

    For each input the logit is the sum of gradient x input and of all terms. A term is the gradient by the output of an
    operation x that operation's bias: the output minus its derivative in the direction of the operation's own input. That is
    the bias of a convolution, beta - gamma mean / sqrt(variance + eps) of a batch norm, f(x) - f'(x) x of an activation
    (Srinivas & Fleuret, 2019, proposition 3 and its implicit biases). A term goes by its layer's name, and by that and the
    operation's where the layer has several, or is a block that computes something itself: `block.tanh`. What has no bias, as
    a ReLU, has no term.

    In the precision of the network, at least float32; all inputs are shown at once. Raises ValueError for classes that are not
    (n,) in 0 to k - 1, for token ids, and where terms and score differ by more than rounding.
    """
    inputs = np.asarray(inputs)
    found = network.full_gradient(inputs, classes)
    _refuse_incomplete(network, inputs, classes, found.gradient, _sums(found.terms), found.scores)
    return found.gradient, dict(found.terms)


def completeness(network: Network, inputs: Array, classes: Int64, *, batch_size: int = 64) -> Float64:
    """(n,) what the terms of each input's full gradient miss its score by, over |score| + the sum of all terms' absolute values.

    Rounding alone is about 1e-7 in float32 and 1e-16 in float64. Raises ValueError as `full_gradient`, but for no size of it.
    """
    inputs, residuals = np.asarray(inputs), []
    for batch in _batches(len(inputs), batch_size):
        found = network.attributions(inputs[batch], classes[batch], biases=["terms"])
        residuals.append(_residual(_by_inputs(found), inputs[batch], found.terms, found.scores))
    return np.concatenate(residuals)


def _residual(gradient: Exact, inputs: Array, terms: Mapping[str, BiasMagnitude], scores: Exact) -> Float64:
    by_inputs = (gradient * np.asarray(inputs, np.float64)).reshape(len(inputs), -1)
    total, mass = by_inputs.sum(axis=1), np.abs(by_inputs).sum(axis=1) + np.abs(scores)
    for term in terms.values():
        total, mass = total + term.total, mass + term.mass
    missing = np.abs(scores - total)
    return np.asarray(np.divide(missing, mass, out=missing.copy(), where=mass != 0), np.float64)


def _sums(terms: Mapping[str, Exact]) -> dict[str, BiasMagnitude]:
    flat = {name: term.reshape(len(term), -1).astype(np.float64) for name, term in terms.items()}
    return {name: BiasMagnitude(terms[name].shape[1:], term.sum(axis=1), np.abs(term).sum(axis=1)) for name, term in flat.items()}


def _refuse_incomplete(network: Network, inputs: Array, classes: Int64, gradient: Exact, terms: Mapping[str, BiasMagnitude], scores: Exact) -> None:
    residual, allowed = _residual(gradient, inputs, terms, scores), ROUNDING[gradient.dtype]
    worst = int(np.argmax(np.nan_to_num(residual)))  # a score that is no number is for others to report
    if not residual[worst] > allowed:
        return
    gaps = network.full_gradient_gaps(inputs, classes)
    call = max(gaps, key=lambda name: float(np.abs(gaps[name][worst])))
    where = repr(call) if call else "the network's own forward"
    if abs(gaps[call].sum()) < 1e-3 * np.abs(gaps[call]).sum():
        why = "it mixes the inputs of a batch, as a batch norm without running statistics does"
    else:
        why = "something in it is no operation that can be met (a custom autograd function, a scripted module), or has a gradient that is not its own"
    raise ValueError(
        f"the full gradient is incomplete: for input {worst} its terms miss the score by {residual[worst]:.1g} of the sum of their absolute values, "
        f"and rounding explains {allowed:g}; what is missing arises in {where}: {why}; "
        "use saliency.gradient, or write that with the framework's own operations"
    )


# ---- maps ------------------------------------------------------------------------------------------------------------


def _recipe(of: Magnitude) -> Callable[[Network, Array, Int64], Recipe]:
    """That of a map of the sizes of terms, or of the gradients at biases."""

    def made(network: Network, inputs: Array, classes: Int64, found: Attributions) -> Exact:
        gradient, size = _by_inputs(found), inputs.shape[1:3]
        _refuse_incomplete(network, inputs, classes, gradient, found.terms, found.scores)
        _refuse_tokens(found.terms, {name for name, term in found.terms.items() if term.sizes})
        terms = [(term.sizes[of], term.shape[-1]) for term in found.terms.values() if term.sizes]
        total = _total([_magnitude(gradient * np.asarray(inputs, np.float64)), *terms], size)
        return cast(Exact, total.astype(gradient.dtype))

    def recipe(network: Network, inputs: Array, classes: Int64) -> Recipe:
        _checked(inputs, classes)
        return Recipe(made, gradient=True, biases=frozenset((of,)))

    return recipe


_fullgrad, _simple_fullgrad = _recipe("terms"), _recipe("gradients")


@made_by(_fullgrad)
def fullgrad(network: Network, inputs: Array, classes: Int64, *, batch_size: int = BATCH_SIZE) -> Exact:
    """(n, h, w) which positions the logit of each input's class is made at: psi(gradient x input) + the sum of psi(term).

    psi is the absolute value, rescaled to 0 to 1 over each input's whole term (minus its minimum, over its maximum + 1e-6), at
    the inputs' resolution (bilinear, corners aligned), summed over units. The terms are those on an image (Srinivas &
    Fleuret, 2019, section 4, and their program). The map itself is not normalised; it is in the precision of the network.

    Raises ValueError as `full_gradient`, for inputs that are not images (n, h, w, c), and for a network of which no bias, or
    fewer than lie on tokens, lies on an image: a transformer.
    """
    return maps_of_recipe(_fullgrad(network, inputs, classes), network, inputs, classes, batch_size)


@made_by(_simple_fullgrad)
def simple_fullgrad(network: Network, inputs: Array, classes: Int64, *, batch_size: int = BATCH_SIZE) -> Exact:
    """(n, h, w) as `fullgrad`, with the gradient at each bias in place of gradient x bias; raises as `fullgrad`."""
    return maps_of_recipe(_simple_fullgrad(network, inputs, classes), network, inputs, classes, batch_size)


def smooth_fullgrad(
    network: Network, inputs: Array, classes: Int64, *, sigma: float = 0.15, samples: int = 25, seed: int = 0, batch_size: int = 64
) -> Exact:
    """(n, h, w) as `fullgrad`, of terms that are means over noisy copies of each input.

    sigma    the noise's standard deviation, as a share of the range (maximum - minimum) of each input; 0 gives `fullgrad`
    samples  the number of copies    seed  of the noise, which is the same whatever inputs are shown together

    The published program takes the range of a whole batch, and sums the input's term over channels before its absolute value, so that
    there no noise does not give FullGrad. Raises as `fullgrad`, and ValueError for a negative sigma and less than one sample.
    """
    inputs, classes = _checked(inputs, classes)
    if not (sigma >= 0 and samples >= 1):
        raise ValueError(f"smooth_fullgrad was given sigma={sigma} and samples={samples}; expected sigma >= 0 and samples >= 1")
    maps = []
    for batch in _batches(len(inputs), batch_size):
        clean = inputs[batch]
        scale = sigma * (clean.max(axis=(1, 2, 3), keepdims=True) - clean.min(axis=(1, 2, 3), keepdims=True))
        noise = np.random.default_rng(seed)
        means: dict[str, Float64] = {}
        for _ in range(samples):
            noisy = (clean + scale * noise.standard_normal(clean.shape[1:])).astype(clean.dtype)
            found = network.full_gradient(noisy, classes[batch])
            sums = _sums(found.terms)
            _refuse_incomplete(network, noisy, classes[batch], found.gradient, sums, found.scores)
            _refuse_tokens(sums, found.images)
            # A term that is zero for this copy is absent; "" names that of the inputs.
            for name, term in {"": found.gradient * np.asarray(noisy, np.float64), **{name: found.terms[name] for name in found.images}}.items():
                means[name] = np.asarray(means.get(name, 0.0) + term.astype(np.float64) / samples)
        total = _total([_magnitude(term) for term in means.values()], clean.shape[1:3])
        maps.append(total.astype(found.gradient.dtype))
    return np.concatenate(maps)


def _by_inputs(found: Attributions) -> Exact:
    assert found.gradient is not None  # it is beside the biases
    return found.gradient


def _checked(inputs: Array, classes: Int64) -> tuple[Array, Int64]:
    inputs, classes = np.asarray(inputs), np.asarray(classes)
    if inputs.ndim != 4 or not len(inputs):
        raise ValueError(
            f"saliency maps need images (n, h, w, c), at least one, and were given inputs of shape {inputs.shape}; "
            "full_gradient explains the scores of vectors and sequences too"
        )
    if classes.shape != (len(inputs),):
        raise ValueError(f"classes have shape {classes.shape}; expected ({len(inputs)},), one class per input")
    return inputs, classes


def _refuse_tokens(terms: Mapping[str, BiasMagnitude], images: Collection[str]) -> None:
    tokens = [name for name, term in terms.items() if name not in images and len(term.shape) > 1]
    if len(images) > len(tokens):
        return
    raise ValueError(
        f"no FullGrad map of this network: of its {len(terms)} biases {len(images)} lie on an image (h, w, u) and {len(tokens)} on tokens, "
        f"{tokens[:3]}, which have no place in a map; use saliency.gradient, which needs no such layer, or full_gradient for the terms themselves"
    )


def _magnitude(term: Exact) -> tuple[Sizes, int]:
    """The sizes of a term (n, h, w, u), and the number of units."""
    size = np.abs(term).astype(np.float64)
    return Sizes(size.sum(axis=-1), size.min(axis=(1, 2, 3)), size.max(axis=(1, 2, 3))), size.shape[-1]


@np.errstate(invalid="ignore")  # the map of a score that is not finite is NaN
def _total(terms: Sequence[tuple[Sizes, int]], size: tuple[int, ...]) -> Float64:
    """The sum of psi of terms: rescaled, at another resolution, summed over units; the last two are linear, so sums come first."""
    sums: dict[tuple[int, ...], Float64] = {}
    for term, units in terms:
        low = term.low.astype(np.float64)
        rescaled = (term.map - units * low[:, None, None]) / (term.high - low + _STABILISER)[:, None, None]
        sums[rescaled.shape[1:]] = np.asarray(sums.get(rescaled.shape[1:], 0.0) + rescaled, np.float64)
    total = np.zeros((len(terms[0][0].map), *size))
    for old, values in sums.items():
        rows, columns = (_hats(before, now) for before, now in zip(old, size))
        total += values if old == tuple(size) else rows @ values @ columns.T
    return total


def _hats(old: int, new: int) -> Float64:
    """(new, old) how much of each old row each new one takes, when the first and last of both coincide."""
    centres = np.arange(new) * ((old - 1) / max(new - 1, 1))
    return np.asarray(np.maximum(0, 1 - np.abs(centres[:, None] - np.arange(old))), np.float64)


def _batches(n: int, batch_size: int) -> Iterator[slice]:
    return (slice(start, start + batch_size) for start in range(0, n, batch_size))
