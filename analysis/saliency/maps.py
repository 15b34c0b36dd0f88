"""Numbers that a map gives by itself, or beside another one: nothing is asked of the network."""

from __future__ import annotations

import numpy as np

from netlapse.types import Array, Float32, Float64

STRONGEST = 0.1
"""The share of positions whose part of a map's mass is its concentration."""


def similarity(maps: Float32 | Float64, before: Float32 | Float64) -> Float64:
    """(n,) Pearson's correlation over positions of each map with its counterpart; NaN where one of the two is constant or not finite."""
    a, b = (_deviations(_finite(m)) for m in (maps, before))
    return np.asarray((a * b).sum(axis=(1, 2)), np.float64)


def concentration(maps: Float32) -> Float64:
    """(n,) the share of each map's mass, |map|, in the strongest tenth of its positions: 0.1 where it is evenly spread, at most 1.

    Where a tenth is not a whole number of positions, the last one counts by its fraction. NaN for a map that is zero
    everywhere or not finite.
    """
    mass = np.sort(np.abs(_finite(maps)).reshape(len(maps), -1), axis=1)[:, ::-1]
    counted = np.clip(STRONGEST * mass.shape[1] - np.arange(mass.shape[1]), 0, 1)
    total = mass.sum(axis=1)
    return np.asarray(mass @ counted / np.where(total > 0, total, np.nan), np.float64)


def density(maps: Float32) -> Float64:
    """(n, h, w) each map as |map| / mean |map|, times an even spread; NaN for a map that is zero everywhere or not finite."""
    mass = np.abs(_finite(maps))
    mean = mass.mean(axis=(1, 2), keepdims=True)
    return np.asarray(mass / np.where(mean > 0, mean, np.nan), np.float64)


def _finite(maps: Float32 | Float64) -> Float64:
    """float64, NaN all over where a map holds anything that is not finite."""
    return np.where(np.isfinite(maps).all(axis=(1, 2), keepdims=True), maps, np.nan).astype(np.float64)


def _deviations(maps: Float64) -> Float64:
    """From each map's mean, with norm 1; NaN for a constant map, whose deviations are rounding."""
    constant = maps.min(axis=(1, 2), keepdims=True) == maps.max(axis=(1, 2), keepdims=True)
    away = np.where(constant, np.nan, maps - maps.mean(axis=(1, 2), keepdims=True))
    return np.asarray(away / np.linalg.norm(away, axis=(1, 2), keepdims=True), np.float64)


def mean_defined(values: Float64) -> float:
    """Their mean over the values that are defined; NaN where none is."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")


def similarity_to_others(maps: Float32, before: Float32) -> Float64:
    """(n,) the null of `similarity`: the mean one of each map with the counterparts of all other inputs.

    What maps of any inputs have in common (a bright middle, a dark border) is no answer to this input. NaN as `similarity`,
    and for a single input.
    """
    a, b = (_deviations(_finite(m)).reshape(len(m), -1) for m in (maps, before))
    with np.errstate(invalid="ignore"):
        every = a @ b.T
    np.fill_diagonal(every, np.nan)
    return np.array([mean_defined(row) for row in every])


def distance(maps: Float32 | Float64, others: Float32 | Float64) -> Float64:
    """(n,) ||other - map|| / ||map|| over positions; NaN for a map that is zero everywhere, and where one is not finite."""
    a, b = _finite(maps), _finite(others)
    size = np.linalg.norm(a, axis=(1, 2))
    return np.asarray(np.linalg.norm(b - a, axis=(1, 2)) / np.where(size > 0, size, np.nan), np.float64)


def entropy(maps: Float32) -> Float64:
    """(n,) Shannon's entropy of |map| / its sum, as a share of that of an even spread, its null: 1 even, 0 one position.

    NaN for a map that is zero everywhere or not finite, and for one of a single position.
    """
    mass = np.abs(_finite(maps)).reshape(len(maps), -1)
    total = mass.sum(axis=1, keepdims=True)
    share = mass / np.where(total > 0, total, np.nan)
    logarithm = np.log(np.where(share > 0, share, 1))  # 0 log 0 = 0
    return np.asarray(-(share * logarithm).sum(axis=1) / (np.log(mass.shape[1]) if mass.shape[1] > 1 else np.nan), np.float64)


def mass_inside(maps: Float32, masks: Array) -> Float64:
    """(n,) the share of each map's mass, |map|, inside its mask; its null is `masks.mean(axis=(1, 2))`, the share of an even spread.

    Energy-based pointing game (Wang et al., 2020, section 4.3). masks (n, h, w) from 0 to 1; see `boxes` for those of boxes.
    NaN for a map that is zero everywhere or not finite. Raises ValueError for masks of another shape or outside 0 to 1.
    """
    inside = np.asarray(masks, np.float64)
    if inside.shape != maps.shape:
        raise ValueError(f"masks have shape {inside.shape}; expected {maps.shape}, one for each map at its resolution")
    check_masks(inside)
    mass = np.abs(_finite(maps))
    total = mass.sum(axis=(1, 2))
    return np.asarray((mass * inside).sum(axis=(1, 2)) / np.where(total > 0, total, np.nan), np.float64)


def check_masks(masks: Float64) -> None:
    """Raises ValueError for values outside 0 to 1, NaN among them."""
    if not ((masks >= 0) & (masks <= 1)).all():
        raise ValueError(f"masks hold values from {masks.min()} to {masks.max()}; expected 0 (outside) to 1 (inside)")


def boxes(corners: Array, size: tuple[int, int]) -> Float32:
    """(n, h, w) masks, 1 inside boxes (n, 4) given as top, left, bottom, right in pixels, the last two exclusive.

    Raises ValueError for corners of another shape, and for boxes without a pixel or beyond the image.
    """
    corners = np.asarray(corners)
    if corners.ndim != 2 or corners.shape[1] != 4:
        raise ValueError(f"boxes have shape {corners.shape}; expected (n, 4): top, left, bottom, right in pixels")
    top, left, bottom, right = (side[:, None, None] for side in corners.T)
    if not ((top >= 0) & (top < bottom) & (bottom <= size[0]) & (left >= 0) & (left < right) & (right <= size[1])).all():
        raise ValueError(
            f"boxes hold one without a pixel, or beyond the image: expected 0 <= top < bottom <= {size[0]}, 0 <= left < right <= {size[1]}"
        )
    y, x = np.arange(size[0])[:, None], np.arange(size[1])
    return np.asarray((top <= y) & (y < bottom) & (left <= x) & (x < right), np.float32)
