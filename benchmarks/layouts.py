"""Every layout method beside every other: CPU seconds of one thread, and what the layout is worth, at 512, 2,048 and 8,192 units.

Run with `OMP_NUM_THREADS=1 python -m benchmarks.layouts`. The data are those of `benchmarks.layout`, 100 features; one run of each, as the slow ones
take minutes; numba's compilation (umap, pacmap) is left out by a run on few units before. Methods that compare all units with all
others in every step are not run at sizes at which they take many minutes, which the table says.
"""

from __future__ import annotations

import sys
import time
import warnings

from benchmarks.layout import profiles
from benchmarks.measure import Row, table
from netlapse.analysis import layout as layouts
from netlapse.analysis.layout import spread
from netlapse.analysis.quality import measures
from netlapse.types import Float64

METHODS = ("random", "pca", "flas", "som", "mds", "graph", "swarm", "tsne", "umap", "pacmap")
LARGEST = {"mds": 2048, "graph": 2048, "swarm": 2048}
SIZES = (512, 2048, 8192)
COLUMNS = ("trustworthiness", "continuity", "neighbour_preservation", "morans_i", "hull_coverage")


def measured(method: str, x: Float64, spread_out: bool) -> tuple[float, dict[str, float]]:
    started = time.process_time()
    positions = getattr(layouts, method)(x)
    if spread_out:
        positions = spread(positions)
    seconds = time.process_time() - started
    return seconds, measures(x, positions, x[:, :10].T)


def main() -> list[Row]:
    warnings.simplefilter("ignore")
    print(f"{'layout':16}{'units':>6}{'CPU s':>9}" + "".join(f"{name.replace('_', ' '):>24}" for name in COLUMNS))
    rows = []
    for method in METHODS:
        getattr(layouts, method)(profiles(64, 10))
        for units in SIZES:
            if units > LARGEST.get(method, units):
                print(f"{method:16}{units:6}  not run: every step compares all units with all others, many minutes")
                continue
            x = profiles(units, 100)
            for spread_out in (False, True) if method in ("tsne", "umap", "pca") else (False,):
                seconds, worth = measured(method, x, spread_out)
                name = f"{method} + spread" if spread_out else method
                print(f"{name:16}{units:6}{seconds:9.3f}" + "".join(f"{worth[column]:24.3f}" for column in COLUMNS), flush=True)
                if (method, units) == ("flas", 2048):
                    rows.append(Row("flas, 2,048 units, trustworthiness", worth["trustworthiness"], 0.97, "the target", 0.97, at_least=True))
    print("\n" + table(rows))
    return rows


if __name__ == "__main__":
    sys.exit(not all(row.ok for row in main()))
