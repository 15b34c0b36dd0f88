"""What an occluder makes of a layer's activations, by showing the network whole images: the definition, for any network.

The torch backend does better, and falls back to this where it cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from netlapse.types import Float32, Layer, Network, Occluded, Occlusion

Activation = Callable[[Float32], Float32]
"""Images (n, h, w, c) -> the activation of a layer (n, h, w, u)."""


def check(described: Sequence[Layer], asked: Occlusion) -> None:
    """Raises ValueError for what does not fit the network or itself."""
    image, inside = np.shape(asked.image), np.shape(asked.replacement)
    if len(image) != 3 or image != inside:
        raise ValueError(f"occlusion was given an image {image} and a replacement {inside}; expected two of one shape (h, w, c)")
    shapes = {found.name: found.shape for found in described}
    if asked.layer not in shapes:
        raise ValueError(f"no layer named {asked.layer!r}; this network has {list(shapes)}")
    if len(shapes[asked.layer]) != 3:
        spatial = [name for name, shape in shapes.items() if len(shape) == 3]
        raise ValueError(f"layer {asked.layer!r} has shape {shapes[asked.layer]} and no positions in an image; those that have are {spatial}")
    corners, units, places = (np.asarray(each) for each in (asked.corners, asked.units, asked.places))
    if corners.ndim != 2 or corners.shape[1] != 2 or not np.issubdtype(corners.dtype, np.integer):
        raise ValueError(
            f"corners have shape {corners.shape} and dtype {corners.dtype}; expected (p, 2) integers, the row and column of each occluder"
        )
    if asked.side < 1:
        raise ValueError(f"the occluder is {asked.side} pixels wide; expected at least 1")
    h, w, n_units = shapes[asked.layer]
    if units.ndim != 1 or not np.issubdtype(units.dtype, np.integer) or (len(units) and not 0 <= units.min() <= units.max() < n_units):
        raise ValueError(f"occlusion was asked of units {units.tolist()[:8]}; layer {asked.layer!r} has 0 to {n_units - 1}")
    if places.shape != (len(units), 2) or (len(places) and ((places < 0) | (places >= (h, w))).any()):
        raise ValueError(f"places have shape {places.shape}; expected ({len(units)}, 2), a row of 0 to {h - 1} and a column of 0 to {w - 1} per unit")


def occluded(network: Network, asked: Occlusion, *, batch_size: int = 64, why: str = "a network of which only the activations are known") -> Occluded:
    """What `Network.occluded` says, by whole images in batches."""
    check(network.describe(asked.image[None]), asked)
    with network.undisturbed():
        return batched(lambda shown: network.activations(shown, [asked.layer])[asked.layer], asked, batch_size, why)


def batched(activation: Activation, asked: Occlusion, batch_size: int, why: str) -> Occluded:
    """The same of what was checked, through what gives the activation of its layer."""
    at, highest = (np.empty((len(asked.corners), len(asked.units)), np.float32) for _ in range(2))
    for start in range(0, len(asked.corners), batch_size):
        batch = slice(start, start + batch_size)
        shown = np.repeat(asked.image[None], len(asked.corners[batch]), axis=0)
        for picture, (y, x) in zip(shown, asked.corners[batch]):
            covered = slice(max(y, 0), max(y + asked.side, 0)), slice(max(x, 0), max(x + asked.side, 0))
            picture[covered] = asked.replacement[covered]
        found = activation(shown)
        at[batch] = found[:, asked.places[:, 0], asked.places[:, 1], asked.units]
        highest[batch] = found.max(axis=(1, 2))[:, asked.units]
    return Occluded(at, highest, why)
