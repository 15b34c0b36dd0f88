"""How unusual a number is after those before it, where none stands still: a training changes most when it begins, and ever less.

A number is compared with its own course alone, over a few checkpoints. Where a drift would have gone is told by a line (it falls like a power of
the step, so its logarithm falls along that of the step), where a level would have stayed by a median: lines through levels that approach
a limit promise too much. Both, and the noise beside them, are medians, which one odd checkpoint does not move.
"""

from __future__ import annotations

import numpy as np

from netlapse.types import Float64

LEAST = 4
"""Numbers that a course takes, below which nothing is unusual."""

LEAST_PAIRS = 5
"""The same, of many numbers that are compared with each other: the noise of four rows, one of which began it all, promises too little."""

RECENT = 4
"""Numbers of which a level is the median."""

STEEPEST = -1.5
"""The power of the step that a drift falls with, at most: a few noisy numbers may lie along anything."""


def beyond_line(times: Float64, values: Float64) -> tuple[float, float]:
    """How far the last of the values (w,) lies above a line through those before, and the noise beside that line.

    The line is Theil's (1950): the median of the slopes of all pairs, here from -1.5 to 0. The noise is the median distance from it, as a
    standard deviation. NaN for a last value that is not finite, and for fewer than 4 finite ones before.
    """
    there = np.isfinite(values[:-1])
    x, y = times[:-1][there], values[:-1][there]
    if len(y) < LEAST or not np.isfinite(values[-1]):
        return float("nan"), float("nan")
    i, j = np.triu_indices(len(y), 1)
    slope = float(np.clip(np.median((y[j] - y[i]) / (x[j] - x[i])), STEEPEST, 0))
    rest = y - slope * x
    return float(values[-1] - slope * times[-1] - np.median(rest)), noise(rest)


def beyond_level(values: Float64) -> tuple[float, float]:
    """How far the last of the values (w,) lies above the median of the four before, and the noise of the steps between all before.

    Of the steps, because a level that goes somewhere is not noisy for that. NaN as `beyond_line`.
    """
    past = values[:-1][np.isfinite(values[:-1])]
    if len(past) < LEAST or not np.isfinite(values[-1]):
        return float("nan"), float("nan")
    return float(values[-1] - np.median(past[-RECENT:])), noise(np.diff(past))


def beyond_others(rows: Float64) -> tuple[Float64, float]:
    """(p,) how far each of p numbers moved more than most of them did, in the last of the rows (w, p), and the noise of that before.

    Each moves from its own median over the rows before; what the median of all p moved is everybody's. NaN where a number is not finite in
    any row, and all over for fewer than 5 rows before.
    """
    found, there = np.full(rows.shape[1], np.nan), np.isfinite(rows).all(axis=0)
    if len(rows) <= LEAST_PAIRS or not there.any():
        return found, float("nan")
    moved = rows[:, there] - np.median(rows[:-1, there], axis=0)
    moved -= np.median(moved, axis=1, keepdims=True)
    found[there] = moved[-1]
    return found, 1.4826 * float(np.median(np.abs(moved[:-1])))


def noise(values: Float64) -> float:
    """The median distance from the median, times 1.4826: the standard deviation where they are normal."""
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))
