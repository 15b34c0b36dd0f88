"""Which of a batch's values are among each unit's largest: the same for every network whose activations numpy holds."""

from __future__ import annotations

import numpy as np

from netlapse.types import Array, Float32, Height, Int64


def among_largest(values: Float32, places: Array | int, k: int, floor: Float32) -> Int64:
    """(n, u) the places where the values (n, u) are among the unit's k largest and above its floor (u,); -1 elsewhere. NaN is largest."""
    sortable = np.where(np.isnan(values), np.inf, values)
    least = np.partition(sortable, -min(k, len(values)), axis=0)[-min(k, len(values))]
    return np.where((sortable >= least) & ~(values <= floor), places, -1).astype(np.int64)


@np.errstate(invalid="ignore")
def heights(activations: Float32, by: Height) -> tuple[Float32, Int64]:
    """(n, u) the maximum or mean of activations (n, ..., u) over positions, and the place of the maximum, row-major."""
    flat = activations.reshape(len(activations), -1, activations.shape[-1])
    return flat.max(axis=1) if by == "maximum" else flat.mean(axis=1), flat.argmax(axis=1)
