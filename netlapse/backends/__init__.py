"""Frameworks seen as `netlapse.types.Network`; what their backends check alike."""

from __future__ import annotations

from typing import Literal

import numpy as np

from netlapse.types import Int64, Magnitude

Part = Literal["values", "gaps"] | tuple[Magnitude, ...]
"""What is asked for of each bias of a full gradient: its term, what no term accounts for, or the sizes that maps take."""


def checked_groups(groups: Int64, n_groups: int, n: int) -> Int64:
    """(n,) contiguous int64; raises ValueError where they are not n integers in 0 to n_groups - 1."""
    groups = np.ascontiguousarray(groups, dtype=np.int64)
    if groups.shape != (n,) or (n and (groups.min() < 0 or groups.max() >= n_groups)):
        raise ValueError(f"groups have shape {groups.shape} and values {np.unique(groups)[:8].tolist()}; expected ({n},) in 0 to {n_groups - 1}")
    return groups


def checked_classes(classes: Int64, n: int, k: int) -> Int64:
    """(n,) contiguous int64; raises ValueError where they are not n integers in 0 to k - 1."""
    found = np.asarray(classes)
    if found.shape != (n,) or not np.issubdtype(found.dtype, np.integer) or (n and (found.min() < 0 or found.max() >= k)):
        raise ValueError(
            f"classes have shape {found.shape}, dtype {found.dtype} and values {np.unique(found)[:8].tolist()}; "
            f"expected ({n},) integers in 0 to {k - 1}, one of the network's {k} outputs for each input"
        )
    return np.ascontiguousarray(found, dtype=np.int64)


def half_precision(operation: str, call: str, dtype: str) -> str:
    """Why a network of which an operation in a layer's call ("": in its own) computes in half precision has no full gradient."""
    where = f" in {call!r}" if call else ""
    return (
        f"no full gradient: {operation!r}{where} computes in {dtype}, and what a bias adds is lost in its rounding; expected float32 or float64: "
        "explain a float32 copy of the network, or use saliency.gradient"
    )
