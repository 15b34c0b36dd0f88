"""What spread costs, in CPU seconds of one thread, beside the sum over all pairs that it replaces, and what is left of the neighbourhoods.

Run with `OMP_NUM_THREADS=1 python -m benchmarks.spread`. The positions are tight clusters in a wide empty space, as t-SNE and UMAP
draw them. The forces over all pairs are timed for two of the hundred steps and multiplied by fifty.
"""

from __future__ import annotations

import sys

import numpy as np

from benchmarks.measure import Row, interleaved, table
from netlapse.analysis.layout import flas, spread
from netlapse.analysis.layout.base import filled
from netlapse.analysis.layout.forces import pairwise_force
from netlapse.analysis.quality import motion, trustworthiness
from netlapse.types import Float64

STEPS, TIMED = 100, 2


def clusters(units: int, seed: int = 0) -> Float64:
    """Positions (u, 2) of twelve tight clusters, unequal in size and width."""
    rng = np.random.default_rng(seed)
    label = np.minimum(rng.exponential(3, units).astype(int), 11)
    centres, widths = rng.normal(size=(12, 2)) * 3, rng.uniform(0.1, 0.4, size=(12, 1))
    return centres[label] + widths[label] * rng.normal(size=(units, 2))


def main() -> list[Row]:
    rows: list[Row] = []
    for units, seconds in ((512, 1.0), (4608, 2.0), (8000, 5.0)):
        positions = clusters(units)
        crowd = filled(positions) * 45  # the extent that the dynamics end with
        functions = {"spread": lambda p=positions: spread(p, steps=STEPS), "pairs": lambda c=crowd: [pairwise_force(c) for _ in range(TIMED)]}  # type: ignore[misc]
        times = interleaved(functions, 3)
        all_pairs = times["pairs"] * STEPS / TIMED
        rows.append(Row(f"spread, {units} units, CPU s", times["spread"], all_pairs, f"all pairs, {TIMED} steps x {STEPS // TIMED}", seconds))
        rows += _quality(positions) if units == 4608 else []
    print(table(rows))
    return rows


def _quality(positions: Float64) -> list[Row]:
    """How true the even disc is to the positions, and how calm, beside a full disc of cells sorted by the positions."""
    drifted = positions + 1e-3 * np.random.default_rng(1).normal(size=positions.shape)
    even, cells = spread(positions), flas(positions)
    trusted, moved = trustworthiness(positions, even), motion(spread(drifted), even)
    return [
        Row("its trustworthiness", trusted, trustworthiness(positions, cells), "flas of the positions", 0.98, at_least=True),
        Row("its motion, after 0.001 of noise", moved, motion(flas(drifted, previous=cells), cells), "flas from the previous", 0.1),
    ]


if __name__ == "__main__":
    sys.exit(not all(row.ok for row in main()))
