"""Numbers as the time-lapse page carries them: typed arrays as text, rounded to what the page shows of them.

Each rounding here has its inverse in `netlapse/page/data.js`; the exact values stay in the findings.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from netlapse.types import Array, Float64, UInt8

MISSING = -32768
"""Stands for no value among int16."""
NO_SHARE = 255
"""Stands for no value among uint8."""

Json = object
_Item = TypeVar("_Item")


def packed(values: Array) -> dict[str, Json]:
    """An array as JSON: its type, its shape, and its bytes as text."""
    little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    # Without padding: the browser needs none, and no data can then end in a telltale "=".
    data = base64.b64encode(little.tobytes()).decode("ascii").rstrip("=")
    return {"type": values.dtype.name, "shape": list(values.shape), "data": data}


def quantised(values: Float64) -> tuple[NDArray[np.int16], Float64]:
    """(s, g, u) as int16 with one scale per step: value = number * scale, exact at zero, within half a scale elsewhere."""
    finite = np.isfinite(values)
    scale = np.max(np.abs(values), axis=(1, 2), initial=0.0, where=finite) / 32767
    with np.errstate(over="ignore"):
        ratio = np.where(finite, values, 0.0) / np.where(scale > 0, scale, 1.0)[:, None, None]
    return np.where(finite, np.rint(ratio), MISSING).astype(np.int16), scale


def shares(values: Float64) -> UInt8:
    """Shares in [0, 1] as uint8: value = number / 254, none and all exactly; NaN is `NO_SHARE`."""
    finite = np.isfinite(values)
    return np.where(finite, np.rint(np.where(finite, values, 0.0) * 254), NO_SHARE).astype(np.uint8)


def roots(values: Float64) -> tuple[UInt8, Float64]:
    """(s, g, u) numbers >= 0 as uint8 with one largest value per step: value = (number / 254)^2 * largest; NaN is `NO_SHARE`.

    By their square roots, so that the small ones keep a digit beside a large one.
    """
    finite = np.isfinite(values)
    largest = np.max(values, axis=(1, 2), initial=0.0, where=finite)
    divisor = np.where(largest > 0, largest, 1.0)[:, None, None]
    return shares(np.sqrt(np.where(finite, values / divisor, np.nan))), largest


def indices(values: Array) -> Array:
    """Indices in the smallest of uint16 and uint32 that holds them."""
    numbers = np.asarray(values, np.int64)
    return numbers.astype(np.uint16 if np.max(numbers, initial=0) < 65536 else np.uint32)


def places(positions: Float64) -> NDArray[np.uint16]:
    """Coordinates in [0, 1] as uint16: position = number / 65535."""
    numbers: NDArray[np.uint16] = np.rint(np.clip(positions, 0, 1) * 65535).astype(np.uint16)
    return numbers


def reduced(images: Float64, side: int) -> Float64:
    """(..., h, w) averaged over blocks of pixels until neither side exceeds the given one."""
    for axis in (-2, -1):
        size = images.shape[axis]
        factor = -(-size // side)
        starts = np.arange(0, size, factor)
        lengths = np.diff(np.append(starts, size)).reshape((-1, 1) if axis == -2 else (-1,))
        images = np.add.reduceat(images, starts, axis=axis) / lengths
    return images


def grey_levels(images: Float64, side: int, low: float, high: float) -> UInt8:
    """(n, h, w, c) with low as 0 and high as 255, reduced to the given side; what is no number is 0."""
    span = high - low if high > low else 1.0
    small = reduced(np.moveaxis(np.nan_to_num((images - low) / span), 3, 1), side)
    return np.rint(np.clip(np.moveaxis(small, 1, 3), 0, 1) * 255).astype(np.uint8)


def rows_at(steps: Iterable[int], having: Sequence[int]) -> list[int]:
    """For every step of the run, the row at which it is stored, or -1."""
    row = {step: index for index, step in enumerate(having)}
    return [row.get(step, -1) for step in steps]


def rounded(value: float) -> float:
    """Seven digits are enough for the page."""
    return value if isinstance(value, int) else float(f"{value:.7g}")


def evenly(items: Sequence[_Item], many: int) -> list[_Item]:
    """So many of the items, at most all, the first and the last among them."""
    return [items[i] for i in np.unique(np.rint(np.linspace(0, len(items) - 1, min(many, len(items)))).astype(np.int64)).tolist()]


def left_out(steps: Sequence[int], found: Iterable[int], kept: Iterable[int]) -> list[int]:
    """The steps, counted among those of the run, that were recorded and are not on the page."""
    return [steps.index(step) for step in sorted({*found} - {*kept})]
