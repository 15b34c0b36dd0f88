"""Is a map true of the network? What changing the input where the map says does to the score, and what it does to the map.

Each function asks the network. Its null is the same function of `random_maps`, of the same inputs: an area of 0.2 says
nothing, and one of 0.2 where random maps have 0.5 does. Blank maps order nothing, so that their numbers are NaN.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from netlapse.analysis.onepass import Method
from netlapse.analysis.saliency.base import batches, class_logits, one_hot, unwarned
from netlapse.analysis.saliency.gradients import baseline_of
from netlapse.analysis.saliency.maps import distance, similarity
from netlapse.probe import softmax
from netlapse.types import Array, Float32, Float64, Int64, Network


def random_maps(shape: tuple[int, ...], seed: int = 0) -> Float32:
    """Maps (n, h, w) of uniform noise in 0 to 1: what a method has to be better than."""
    return np.random.default_rng(seed).random(shape, np.float32)


def perturbation_curves(
    network: Network,
    inputs: Array,
    classes: Int64,
    maps: Float32,
    *,
    steps: int = 20,
    baseline: Array | float = 0.0,
    batch_size: int = 64,
) -> tuple[Float64, Float64, Float64]:
    """The probability of each input's class as its most salient positions are deleted, and as they are inserted.

    Petsiuk et al., 2018, section 3.2 (causal metrics). Positions go from the highest to the lowest value of the map, those of
    equal value row by row, all channels together.
    maps      (n, h, w) at the inputs' resolution
    steps     into how many parts of equal size the positions are taken, the last one smaller where it must be
    baseline  what deleted positions show, as for `integrated_gradients`

    Returns the shares (p,) of positions, from 0 to 1, and the curves of deletion and insertion, both (n, p): deletion begins
    where insertion ends, with the input itself. NaN for maps that are constant or not finite.
    Raises ValueError as `gradient`, for maps of another shape, and for less than one step.
    """
    inputs, classes = _checked(network, inputs, classes, maps)
    if steps < 1:
        raise ValueError(f"perturbation_curves was given steps={steps}; expected at least 1")
    hidden = baseline_of(inputs, baseline)
    n, positions = len(inputs), maps[0].size
    counts = np.append(np.arange(0, positions, -(-positions // steps)), positions)
    order = np.argsort(-np.where(np.isfinite(maps), maps, 0).reshape(n, -1), axis=1, kind="stable")
    rank = np.argsort(order, axis=1).reshape(maps.shape)

    def shown() -> Iterator[tuple[Int64, Float32]]:
        # Each count but the last, with the salient positions hidden and with all the others hidden.
        asked = np.arange(n * (len(counts) - 1) * 2)
        for batch in batches(len(asked), batch_size):
            i, count, inserting = np.unravel_index(asked[batch], (n, len(counts) - 1, 2))
            salient = rank[i] < counts[count][:, None, None]
            seen = salient == inserting.astype(bool)[:, None, None]
            yield i, np.where(seen[..., None], inputs[i], hidden[i])

    with network.undisturbed():
        found = np.concatenate([_chances(network, images, classes[i]) for i, images in shown()]).reshape(n, len(counts) - 1, 2)
    # All hidden is where insertion begins; nothing hidden, where deletion does.
    deletion = np.concatenate([found[..., 0], found[:, :1, 1]], axis=1)
    insertion = np.concatenate([found[..., 1], found[:, :1, 0]], axis=1)
    blank = _orderless(maps)[:, None]
    return counts / positions, np.where(blank, np.nan, deletion), np.where(blank, np.nan, insertion)


def area(shares: Float64, curves: Float64) -> Float64:
    """(n,) under each curve (n, p) over the shares (p,), by trapezoids. Of deletion the less is better, of insertion the more."""
    return np.asarray(np.trapezoid(curves, shares, axis=1), np.float64)


def average_drop(network: Network, inputs: Array, classes: Int64, maps: Float32, *, batch_size: int = 64) -> Float64:
    """(n,) the share of each class's probability that is lost when the input is multiplied by its map; the less the better.

    max(0, y - o) / y with the map scaled to 0 to 1 (Chattopadhay et al., 2018, "Average Drop %"). NaN for maps that are
    constant or not finite. Raises ValueError as `perturbation_curves`.
    """
    inputs, classes = _checked(network, inputs, classes, maps)
    blank = _orderless(maps)
    low, high = (end(np.where(blank[:, None, None], 0, maps), axis=(1, 2), keepdims=True) for end in (np.min, np.max))
    mask = (np.where(blank[:, None, None], 0, maps) - low) / np.where(high > low, high - low, 1)
    with network.undisturbed():
        whole, masked = (
            np.concatenate([_chances(network, shown[b], classes[b]) for b in batches(len(inputs), batch_size)])
            for shown in (inputs, np.asarray(inputs * mask[..., None], np.float32))
        )
    # A probability that is 0 in float64 has nothing to lose.
    return np.where(blank, np.nan, np.maximum(whole - masked, 0) / np.where(whole > 0, whole, np.nan))


@unwarned()
def faithfulness_correlation(
    network: Network,
    inputs: Array,
    classes: Int64,
    maps: Float32,
    *,
    subsets: int = 50,
    share: float = 0.2,
    baseline: Array | float = 0.0,
    seed: int = 0,
    batch_size: int = 64,
) -> Float64:
    """(n,) Pearson's correlation, over random subsets of positions, of a map's sum there with what hiding them takes off the logit.

    Bhatt et al., 2020, definition of faithfulness. 1 where the map says what every position contributes; its null is 0.
    subsets   how many, the same for every input    share   of the positions that each of them holds, at least one
    baseline  what hidden positions show, as for `integrated_gradients`

    NaN for maps that are constant or not finite, and where hiding changes nothing. Raises ValueError as `perturbation_curves`,
    for less than two subsets, and for a share that is not between 0 and 1.
    """
    inputs, classes = _checked(network, inputs, classes, maps)
    if subsets < 2 or not 0 < share < 1:
        raise ValueError(f"faithfulness_correlation was given subsets={subsets} and share={share}; expected at least 2, and a share between 0 and 1")
    hidden = baseline_of(inputs, baseline)
    positions = maps[0].size
    drawn = np.random.default_rng(seed).permuted(np.tile(np.arange(positions), (subsets, 1)), axis=1) < max(1, round(share * positions))
    covered = drawn.reshape(subsets, *maps.shape[1:])
    lost = []
    with network.undisturbed():
        whole = np.concatenate([class_logits(network, inputs[b], classes[b]) for b in batches(len(inputs), batch_size)])
        for batch in batches(len(inputs) * subsets, batch_size):
            i, s = np.divmod(np.arange(len(inputs) * subsets)[batch], subsets)
            lost.append(whole[i] - class_logits(network, np.where(covered[s][..., None], hidden[i], inputs[i]), classes[i]))
    sums = np.einsum("nhw,shw->ns", maps.astype(np.float64), covered)
    return similarity(sums[..., None], np.concatenate(lost).reshape(len(inputs), subsets)[..., None])


@unwarned()
def sensitivity(
    network: Network,
    inputs: Array,
    classes: Int64,
    method: Method,
    *,
    radius: float = 0.02,
    draws: int = 5,
    seed: int = 0,
    maps: Float32 | None = None,
) -> Float64:
    """(n,) the largest change of each map under small noise on the input: the maximum over draws of ||map(noisy) - map|| / ||map||.

    SENS_MAX (Yeh et al., 2019, definition 2), relative to the map. Its null is the distance to the map of another input: see
    `distance_to_others`.
    radius  of the uniform noise, as a share of each input's own range, largest minus smallest value
    draws   of the noise, the same for every input    maps   the method's maps of the inputs, where they are known

    NaN for maps that are zero everywhere or not finite. Raises ValueError as the method, and for a negative radius or no draw.
    """
    if not radius >= 0 or draws < 1:
        raise ValueError(f"sensitivity was given radius={radius} and draws={draws}; expected a radius of at least 0 and at least one draw")
    inputs = np.asarray(inputs, np.float32)
    clean = method(network, inputs, classes) if maps is None else maps
    noise = np.random.default_rng(seed).uniform(-radius, radius, (draws, *inputs.shape[1:]))
    spread = np.ptp(inputs.reshape(len(inputs), -1), axis=1)[:, None, None, None]
    noisy = (np.asarray(inputs + spread * one, np.float32) for one in noise)
    return np.asarray(np.max([distance(clean, method(network, shown, classes)) for shown in noisy], axis=0), np.float64)


def distance_to_others(maps: Float32) -> Float64:
    """(n,) the null of `sensitivity`: the mean distance of each map to those of the other inputs, ||other - map|| / ||map||."""
    found = np.array([distance(maps, np.roll(maps, shift, axis=0)) for shift in range(1, len(maps))])
    return found.mean(axis=0) if len(found) else np.full(len(maps), np.nan)


def _checked(network: Network, inputs: Array, classes: Int64, maps: Float32) -> tuple[Float32, Int64]:
    one_hot(network, inputs, classes)  # for its errors
    if np.shape(maps) != np.shape(inputs)[:3]:
        raise ValueError(f"maps have shape {np.shape(maps)}; expected {np.shape(inputs)[:3]}, one for each at its resolution; see saliency.resize")
    return np.asarray(inputs, np.float32), np.asarray(classes)


def _chances(network: Network, inputs: Float32, classes: Int64) -> Float64:
    """(n,) the probability, by softmax, of each input's class; NaN where the logits are not finite."""
    logits = network.outputs(inputs)
    logits = np.where(np.isfinite(logits).all(axis=1, keepdims=True), logits, np.nan)
    return np.asarray(softmax(logits)[np.arange(len(inputs)), classes], np.float64)


def _orderless(maps: Float32) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """(n,) whether a map is constant or not finite."""
    return np.asarray((maps == maps[:, :1, :1]).all(axis=(1, 2)) | ~np.isfinite(maps).all(axis=(1, 2)))
