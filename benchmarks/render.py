"""What a page of maps costs: raster and palette PNG beside a matplotlib page of the same maps, in CPU milliseconds of one thread.

Run with `OMP_NUM_THREADS=1 python -m benchmarks.render`. 8 layers of 512 units, 10 groups, 64 pixels; the layouts' operators are given
to both, so the page starts from the units' values.
"""

from __future__ import annotations

import io
import sys

import numpy as np

from benchmarks.measure import Row, interleaved, table
from netlapse.analysis.layout import flas
from netlapse.field import fields, interpolation
from netlapse.render.ink import png
from netlapse.render.maps import saliency_strip, storyboard
from netlapse.types import Float64


def matplotlib_page(maps: list[Float64], names: list[str], limit: float) -> bytes:
    """The page (layers x groups) as matplotlib's users draw it: one axes and one imshow for each map."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.1, 6.6), dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(maps), len(names))
    for row, layer in enumerate(maps):
        for column, one in enumerate(layer):
            ax = axes[row, column]
            drawn = ax.imshow(one, cmap="RdBu_r", vmin=-limit, vmax=limit)
            ax.set_xticks([])
            ax.set_yticks([])
            if row == 0:
                ax.set_title(names[column])
        axes[row, 0].set_ylabel(f"layer {row}")
    figure.suptitle("step 12")
    figure.colorbar(drawn, ax=axes)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def main() -> list[Row]:
    rng = np.random.default_rng(0)
    names = [str(group) for group in range(10)]
    values = [rng.normal(size=(10, 4)) @ np.maximum(rng.normal(size=(4, 512)), 0) + 0.1 * rng.normal(size=(10, 512)) for _ in range(8)]
    operators = [interpolation(flas(layer.T), 64) for layer in values]

    def maps() -> list[Float64]:
        return [fields(operator, layer) for operator, layer in zip(operators, values)]

    def page() -> bytes:
        return png(storyboard([(f"layer {i}", one) for i, one in enumerate(maps())], names, 6.0, "step 12", "contrast"))

    images, saliency = rng.random((16, 32, 32, 3)), rng.random((16, 32, 32))
    strip = interleaved({"strip": lambda: png(saliency_strip(images, saliency, ["7 -> 1 0.53"] * 16, 1.0, "step 12"))}, 9)
    times = interleaved({"page": page, "products": maps}, 21)
    peers = interleaved({"page": page, "matplotlib": lambda: matplotlib_page(maps(), names, 6.0)}, 3)
    rows = [
        Row("storyboard and PNG, CPU ms", times["page"] * 1e3, times["products"] * 1e3, "the sparse products alone", 15),
        Row("matplotlib page, CPU ms", peers["matplotlib"] * 1e3, peers["page"] * 1e3, "our storyboard and PNG", 50, "ratio", True),
        Row("saliency strip of 16 RGB images, CPU ms", strip["strip"] * 1e3, times["page"] * 1e3, "our storyboard and PNG", 60),
        Row("storyboard PNG, KB", len(page()) / 1e3, len(matplotlib_page(maps(), names, 6.0)) / 1e3, "matplotlib page", 500),
    ]
    print(table(rows))
    return rows


if __name__ == "__main__":
    sys.exit(not all(row.ok for row in main()))
