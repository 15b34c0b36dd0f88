"""Numbers that a map gives by itself, or beside another one: nothing is asked of the network."""

from __future__ import annotations

import numpy as np

from netlapse.types import Float32, Float64

STRONGEST = 0.1
"""The share of positions whose part of a map's mass is its concentration."""


def similarity(maps: Float32, before: Float32) -> Float64:
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


def _finite(maps: Float32) -> Float64:
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
