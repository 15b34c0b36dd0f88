"""Whether a network is as often right as it is sure, for whom: sums per group and bin, which add up over batches and processes."""

from __future__ import annotations

import numpy as np

from netlapse.types import Array, Exact, Float64, Int64

BINS = 10


def calibration_sums(groups: Int64, confidences: Exact, right: Array, n_groups: int, *, bins: int = BINS) -> Float64:
    """(g, b, 3) of each group and bin of confidence: how many inputs, the sum of their confidences, how many of them are right.

    groups       (n,) integers from 0               right  (n,) booleans
    confidences  (n,) of the predictions, from 0 to 1; the bins are equally wide, and a bin holds its upper edge

    Sums of the parts of a probe add up to those of the whole. Raises ValueError for other shapes, and for confidences that are
    not from 0 to 1.
    """
    right = np.asarray(right, bool)
    if not groups.shape == confidences.shape == right.shape or groups.ndim != 1 or bins < 1:
        raise ValueError(
            f"calibration_sums was given groups {groups.shape}, confidences {confidences.shape}, right {right.shape} and {bins} bins; "
            "expected (n,) of each and at least 1"
        )
    if groups.size and (not ((confidences >= 0) & (confidences <= 1)).all() or not 0 <= groups.min() <= groups.max() < n_groups):
        raise ValueError(
            f"calibration_sums was given confidences between {confidences.min()} and {confidences.max()} and groups between {groups.min()} and "
            f"{groups.max()}; expected 0 to 1 and 0 to {n_groups - 1}"
        )
    bin_of = np.clip(np.searchsorted(np.linspace(0, 1, bins + 1), confidences, side="left") - 1, 0, bins - 1)
    cells = groups.astype(np.int64) * bins + bin_of
    sums = [np.bincount(cells, weights, n_groups * bins) for weights in (np.ones(len(groups)), confidences, right.astype(np.float64))]
    return np.asarray(np.stack(sums, axis=-1).reshape(n_groups, bins, 3), np.float64)


def calibration_error(sums: Float64) -> Float64:
    """(g,) the expected calibration error from sums (g, b, 3): |confidence - accuracy| of each bin, weighted by its inputs.

    From 0 to 1; NaN for groups without inputs. Fewer inputs make it larger by chance, so groups of very different size are not to
    be compared by it. Source: Guo et al., 2017, eq. 3.
    """
    n = sums[..., 0].sum(axis=1)
    missed = np.abs(sums[..., 1] - sums[..., 2]).sum(axis=1)
    return np.asarray(missed / np.where(n > 0, n, np.nan), np.float64)
