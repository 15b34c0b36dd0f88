"""What an occluder makes of a layer's activations, by showing the network whole images: the definition, for any network.

Occluders are squares; inside one an image of the same size is seen instead, so that a constant, noise and a blur are all the
same. The torch backend does better, and falls back to this where it cannot.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from netlapse.types import Array, Float32, Int64, Layer, Network, Occluded

Activation = Callable[[Float32], Float32]
"""Images (n, h, w, c) -> the activation of a layer (n, h, w, u)."""


def checked(
    described: tuple[Layer, ...],
    image: Array,
    layer: str,
    corners: Int64,
    occluder: int,
    replacement: Array,
    units: Int64 | None,
    places: Int64 | None,
) -> tuple[Float32, Int64, Float32, Int64]:
    """The image, the corners, the replacement and the units as arrays; raises ValueError for what does not fit."""
    shown: Float32 = np.asarray(image).astype(np.float32)
    inside: Float32 = np.asarray(replacement).astype(np.float32)
    corners = np.asarray(corners)
    if shown.ndim != 3 or shown.shape != inside.shape:
        raise ValueError(f"occlusion was given an image {shown.shape} and a replacement {inside.shape}; expected two of one shape (h, w, c)")
    shapes = {found.name: found.shape for found in described}
    if layer not in shapes:
        raise ValueError(f"no layer named {layer!r}; this network has {list(shapes)}")
    if len(shapes[layer]) != 3:
        spatial = [name for name, shape in shapes.items() if len(shape) == 3]
        raise ValueError(f"layer {layer!r} has shape {shapes[layer]} and no positions in an image; those that have are {spatial}")
    if corners.ndim != 2 or corners.shape[1] != 2 or not np.issubdtype(corners.dtype, np.integer):
        raise ValueError(
            f"corners have shape {corners.shape} and dtype {corners.dtype}; expected (p, 2) integers, the row and column of each occluder"
        )
    if occluder < 1:
        raise ValueError(f"the occluder is {occluder} pixels wide; expected at least 1")
    h, w, n_units = shapes[layer]
    chosen = np.arange(n_units) if units is None else np.asarray(units)
    if chosen.ndim != 1 or not np.issubdtype(chosen.dtype, np.integer) or (len(chosen) and not 0 <= chosen.min() <= chosen.max() < n_units):
        raise ValueError(f"occlusion was asked of units {chosen.tolist()[:8]}; layer {layer!r} has 0 to {n_units - 1}")
    if places is not None:
        places = np.asarray(places)
        if places.shape != (len(chosen), 2) or (len(places) and ((places < 0) | (places >= (h, w))).any()):
            raise ValueError(
                f"places have shape {places.shape}; expected ({len(chosen)}, 2), a row of 0 to {h - 1} and a column of 0 to {w - 1} per unit"
            )
    return shown, corners.astype(np.int64), inside, chosen.astype(np.int64)


def own_places(clean: Float32, units: Int64) -> Int64:
    """(u, 2) where each unit's activation (h, w, u) is highest; of equal ones the first in row-major order."""
    flat = clean.reshape(-1, clean.shape[-1])[:, units]
    return np.stack(np.divmod(flat.argmax(axis=0), clean.shape[1]), axis=1)


def occluded(
    network: Network,
    image: Array,
    layer: str,
    corners: Int64,
    occluder: int,
    replacement: Array,
    units: Int64 | None = None,
    places: Int64 | None = None,
    *,
    batch_size: int = 64,
    why: str = "a network of which only the activations are known",
) -> Occluded:
    """What `Network.occluded` says, by whole images in batches."""
    image, corners, replacement, units = checked(
        network.describe(np.asarray(image)[None]), image, layer, corners, occluder, replacement, units, places
    )
    with network.undisturbed():
        return batched(
            lambda shown: network.activations(shown, [layer])[layer], image, corners, occluder, replacement, units, places, batch_size, why
        )


def batched(
    activation: Activation,
    image: Float32,
    corners: Int64,
    occluder: int,
    replacement: Float32,
    units: Int64,
    places: Int64 | None,
    batch_size: int,
    why: str,
) -> Occluded:
    """The same of what `checked` returns, through what gives the activation of one layer."""
    places = own_places(activation(image[None])[0], units) if places is None else np.asarray(places)
    at, highest = (np.empty((len(corners), len(units)), np.float32) for _ in range(2))
    for start in range(0, len(corners), batch_size):
        batch = slice(start, start + batch_size)
        shown = np.repeat(image[None], len(corners[batch]), axis=0)
        for picture, (y, x) in zip(shown, corners[batch]):
            covered = slice(max(y, 0), max(y + occluder, 0)), slice(max(x, 0), max(x + occluder, 0))
            picture[covered] = replacement[covered]
        found = activation(shown)
        at[batch] = found[:, places[:, 0], places[:, 1], units]
        highest[batch] = found.max(axis=(1, 2))[:, units]
    return Occluded(at, highest, why)
