"""Frameworks seen as `netlapse.types.Network`; what their backends check alike."""

from __future__ import annotations

import numpy as np

from netlapse.types import Int64


def checked_groups(groups: Int64, n_groups: int, n: int) -> Int64:
    """(n,) contiguous int64; raises ValueError where they are not n integers in 0 to n_groups - 1."""
    groups = np.ascontiguousarray(groups, dtype=np.int64)
    if groups.shape != (n,) or (n and (groups.min() < 0 or groups.max() >= n_groups)):
        raise ValueError(f"groups have shape {groups.shape} and values {np.unique(groups)[:8].tolist()}; expected ({n},) in 0 to {n_groups - 1}")
    return groups
