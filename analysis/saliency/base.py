"""What saliency methods share: what they are, the checks of what they are given, batches, and maps at another resolution."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from netlapse.types import Array, Float32, Float64, Int64, Network

unwarned = partial(np.errstate, invalid="ignore", over="ignore")
"""A decorator: what a diverged network answers makes maps of NaN and infinity, which say so, and no warnings."""


def one_hot(network: Network, inputs: Array, classes: Int64) -> Float32:
    """(n, k) ones at each input's class: the cotangent of its logit.

    Raises ValueError for inputs that are not (n, h, w, c) and for classes that are not (n,) integers in 0 to k - 1.
    """
    inputs, classes = np.asarray(inputs), np.asarray(classes)
    if inputs.ndim != 4 or not len(inputs):
        raise ValueError(
            f"saliency maps need images (n, h, w, c), at least one, and were given inputs of shape {inputs.shape}; "
            "for vectors and tokens observe activations instead (netlapse.analysis.nap)"
        )
    if classes.shape != (len(inputs),) or not np.issubdtype(classes.dtype, np.integer):
        raise ValueError(f"classes have shape {classes.shape} and dtype {classes.dtype}; expected ({len(inputs)},) integers, one class per input")
    k = network.n_classes(inputs)
    outside = classes[(classes < 0) | (classes >= k)]
    if len(outside):
        raise ValueError(f"classes hold {sorted(set(outside.tolist()))[:5]}; this network has {k} outputs, so allowed are 0 to {k - 1}")
    return np.asarray(classes[:, None] == np.arange(k), np.float32)


def class_logits(network: Network, inputs: Array, classes: Int64) -> Float64:
    """(n,) the logit of each input's class, in one batch."""
    return network.outputs(inputs)[np.arange(len(inputs)), classes].astype(np.float64)


def batches(n: int, batch_size: int) -> Iterator[slice]:
    """Consecutive slices of 0 to n, batch_size long, the last one shorter where it must be."""
    return (slice(start, start + batch_size) for start in range(0, n, batch_size))


@np.errstate(invalid="ignore")  # infinity times no share of it is NaN: what a diverged network's map is
def resize(maps: Float32 | Float64, size: tuple[int, ...]) -> Float64:
    """Maps (n, h, w) at another resolution, bilinear; pixels are areas, and beyond the outermost centres the value stays.

    What torch calls `interpolate(mode="bilinear", align_corners=False)`.
    """
    rows, columns = (_hats(old, new) for old, new in zip(maps.shape[1:], size))
    return np.asarray(np.einsum("yh,nhw,xw->nyx", rows, maps, columns, optimize=True), np.float64)


def _hats(old: int, new: int) -> Float64:
    """(new, old) how much of each old pixel each new one takes."""
    centres = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    return np.asarray(np.maximum(0, 1 - np.abs(centres[:, None] - np.arange(old))), np.float64)
