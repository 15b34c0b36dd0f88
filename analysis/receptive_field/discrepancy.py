"""How a unit's activation changes when a part of an image is covered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast, get_args

import numpy as np
from scipy.ndimage import gaussian_filter

from netlapse.types import Array, Float32, Int64, Network, Occlusion

At = Literal["own", "maximum"]
Fill = float | str | Array


def discrepancy_maps(
    network: Network,
    image: Array,
    layer: str,
    *,
    units: Sequence[int] | Int64 | None = None,
    occluder: int = 11,
    stride: int = 3,
    fill: Fill = 0.0,
    at: At = "own",
    borders: bool = False,
    seed: int = 0,
    batch_size: int = 64,
) -> Float32:
    """(u, rows, columns) clean minus occluded activation of each unit, for a square occluder at each place of a dense grid.

    Zhou et al., "Object detectors emerge in deep scene CNNs" (2015), section 3.2; signed: positive where covering takes from the unit.
    image     (h, w, c)
    units     indices; None: all of the layer
    occluder  its side in pixels         stride  in pixels, between the occluders' upper left corners
    fill      what is seen instead: a number, "mean" (the image's mean colour), "noise" (normal, with each channel's mean and standard
              deviation, seeded, another at each place), "blur" (the image, blurred by a Gaussian of half the occluder), or an image
    at        "own": at the position where the unit's activation is highest on the clean image, of equal ones the first in row-major
              order; "maximum": of the highest activation at any position
    borders   whether occluders that are partly outside of the image take part; see `corners`

    All units are read off the same occluded passes; where the network can, only what an occluder changes is computed (see
    `TorchNetwork.occluded`). Raises ValueError for a layer that is not spatial, an image that is not
    (h, w, c) or smaller than the occluder, and for options that are out of range.
    """
    image = cast(Float32, np.asarray(image, np.float32))
    grid = grids(image.shape, occluder, stride, borders)
    check_spatial(network, image[None], layer)
    if at not in get_args(At):
        raise ValueError(f"discrepancy maps were asked at {at!r}; expected one of {get_args(At)}")
    clean = network.activations(image[None], [layer])[layer][0]
    flat = clean.reshape(-1, clean.shape[-1])
    chosen = np.arange(flat.shape[1]) if units is None else np.asarray(units)
    if chosen.ndim != 1 or not np.issubdtype(chosen.dtype, np.integer) or (len(chosen) and not 0 <= chosen.min() <= chosen.max() < flat.shape[1]):
        raise ValueError(f"discrepancy maps were asked of units {units}; layer {layer!r} has units 0 to {flat.shape[1] - 1}")
    own = flat.argmax(axis=0)[chosen]
    places = np.stack(np.divmod(own, clean.shape[1]), axis=1)
    covered = np.stack(np.meshgrid(*grid, indexing="ij"), axis=-1).reshape(-1, 2)
    hidden = replacement(image, fill, occluder, seed)
    occlusion = Occlusion(image, layer, covered, occluder, hidden, chosen, places)
    found = network.occluded_at(occlusion, batch_size=batch_size) if at == "own" else network.occluded(occlusion, batch_size=batch_size).highest
    return np.asarray((flat[own, chosen] - found).T.reshape(len(chosen), len(grid[0]), len(grid[1])), np.float32)


def corners(size: int, occluder: int, stride: int, borders: bool = False) -> Int64:
    """Where occluders lie along one axis: the first covered pixel, at multiples of the stride, negative where it is outside.

    Those that fit; with `borders` all that cover at least one pixel.
    """
    first, last = (-((occluder - 1) // stride), (size - 1) // stride) if borders else (0, (size - occluder) // stride)
    return np.arange(first, last + 1) * stride


def grids(shape: tuple[int, ...], occluder: int, stride: int, borders: bool = False) -> tuple[Int64, Int64]:
    """`corners` along rows and along columns of an image; raises ValueError where there can be none."""
    if len(shape) != 3:
        raise ValueError(f"discrepancy maps need an image (h, w, c), and were given shape {shape}")
    if not 1 <= occluder <= min(shape[:2]):
        raise ValueError(f"the occluder is {occluder} pixels wide; expected 1 to {min(shape[:2])} for an image of {shape[0]} x {shape[1]}")
    if stride < 1:
        raise ValueError(f"occluders were asked every {stride} pixels; expected a stride of at least 1")
    return corners(shape[0], occluder, stride, borders), corners(shape[1], occluder, stride, borders)


def usual_occluder(shape: tuple[int, ...], occluder: int | None = None, stride: int | None = None) -> tuple[int, int]:
    """The side and the stride where they are not given: 11 and 3 pixels (Zhou et al., 2015), smaller in the same proportion for small images.

    At most an eighth of the longer side of an image (h, w, c), rounded up, and at least 2; three elevenths of the side, rounded up.
    """
    side = min(11, max(2, -(-max(shape[:2]) // 8))) if occluder is None else occluder
    return side, -(-side * 3 // 11) if stride is None else stride


def check_spatial(network: Network, inputs: Array, layer: str) -> tuple[int, ...]:
    """The layer's (h, w, u); raises ValueError where it has no positions in an image, or does not exist."""
    shapes = {found.name: found.shape for found in network.describe(inputs)}
    if layer not in shapes:
        raise ValueError(f"no layer {layer!r} in this network; it has {list(shapes)}")
    if len(shapes[layer]) != 3:
        spatial = [name for name, shape in shapes.items() if len(shape) == 3]
        raise ValueError(
            f"layer {layer!r} is not spatial: one input's activation has shape {shapes[layer]}, and a receptive field is where in the image "
            f"a unit (h, w, u) looks; {'name one of ' + str(spatial) if spatial else 'this network has no spatial layer'}"
        )
    return shapes[layer]


def replacement(image: Float32, fill: Fill, occluder: int, seed: int) -> Float32:
    """(h, w, c) what is seen where the image is covered; raises ValueError for a fill that is none of those of `discrepancy_maps`."""
    if isinstance(fill, str):
        mean, deviation = image.mean(axis=(0, 1)), image.std(axis=(0, 1))
        if fill == "mean":
            return np.broadcast_to(mean, image.shape).astype(np.float32)
        if fill == "noise":
            return np.asarray(np.random.default_rng(seed).normal(mean, deviation, image.shape), np.float32)
        if fill == "blur":
            return cast(Float32, gaussian_filter(image, (occluder / 2, occluder / 2, 0), mode="nearest").astype(np.float32))
        raise ValueError(f"the fill of occluders is {fill!r}; expected a number, an image, 'mean', 'noise' or 'blur'")
    values = np.asarray(fill, np.float32)
    if values.ndim and values.shape != image.shape:
        raise ValueError(f"the fill of occluders has shape {values.shape}; expected a number, or an image of shape {image.shape}")
    return np.broadcast_to(values, image.shape).astype(np.float32)
