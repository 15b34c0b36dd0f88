"""Which inputs are explained at a checkpoint."""

from __future__ import annotations

import numpy as np

from netlapse.types import Int64


def panel_of(labels: Int64, size: int) -> Int64:
    """(m,) indices of the inputs to explain: the first of each class, then the second of each, ..., until there are `size`.

    Classes take turns in ascending order; a class that has no more inputs is passed over. Nothing but the labels matters.
    """
    labels = np.asarray(labels)
    turn = np.zeros(len(labels), np.int64)
    for k in np.unique(labels):
        turn[labels == k] = np.arange((labels == k).sum())
    return np.lexsort((labels, turn))[:size].astype(np.int64)
