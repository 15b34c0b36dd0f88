"""How calm each layout is over a training, and what that costs: motion beside fidelity, for every method and every way to keep it calm.

The run is the default training (a CNN on 5,000 MNIST digits, ten epochs, four nonlinearities of 32 to 128 units), seed 0. Every
number is a mean over layers and over the steps after the first. Run with `OMP_NUM_THREADS=1 python -m benchmarks.motion`; it takes
a quarter of an hour. `--write` draws docs/motion.png.

independent   every step from nothing             procrustes   so, then turned to lie closest to the step before
warm          from the step before                penalty      so, and held there: lambda 0.3 (flas: 0.2, its default)
joint         one layout for all steps, of all    last         one layout for all steps, of the last (published scheme)
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.measure import Row, table
from netlapse.analysis import layout as layouts
from netlapse.analysis.layout import over_time
from netlapse.analysis.relayout import Source, relayout
from netlapse.recording import Recording
from netlapse.tracking.folder import read

ROOT = Path(__file__).parent.parent
METHODS = ("flas", "pca", "mds", "som", "graph", "swarm", "tsne", "umap", "pacmap", "random")
MEASURES = ("motion", "morans_i", "trustworthiness", "neighbour_preservation", "continuity", "resize_error")
Options = Mapping[str, object]
WAYS: Mapping[str, tuple[Source, Options]] = {
    "independent": ("each", {"warm": False, "movement_penalty": 0.0}),
    "procrustes": ("each", {"warm": False, "procrustes": True, "movement_penalty": 0.0}),
    "warm": ("each", {"movement_penalty": 0.0}),
    "penalty": ("each", {"movement_penalty": 0.3}),
    "joint": ("joint", {}),
    "last": ("last", {}),
}
DEFAULT = ("flas", "penalty")


def trained(folder: Path) -> Recording:
    """The default training, observed by profiles alone."""
    command = [sys.executable, "train.py", "analyses=profiles", "tracker=folder", f"tracker.folder={folder}", "checkpoint=none"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return read(next(folder.rglob("manifest.json")).parent)


def calm(method: str, way: str) -> Callable[..., np.ndarray]:
    options = dict(WAYS[way][1])
    if method == "flas" and way == "penalty":
        options["movement_penalty"] = None  # its own
    return partial(over_time, layout=getattr(layouts, method), **options)


def measured(recording: Recording, method: str, way: str) -> dict[str, float]:
    name, found = relayout(recording, source=WAYS[way][0], layout=calm(method, way), name="topomap_measured")
    later = [findings.scalars for step, findings in found.items() if step != min(found)]
    return {
        measure: float(np.nanmean([value for scalars in later for key, value in scalars.items() if key.startswith(f"{name}/{measure}/")]))
        for measure in MEASURES
    }


def everything(recording: Recording) -> dict[str, dict[str, dict[str, float]]]:
    found: dict[str, dict[str, dict[str, float]]] = {}
    for method in METHODS:
        for way in WAYS if method != "random" else ["warm"]:
            found.setdefault(method, {})[way] = measured(recording, method, way)
            print(f"{method:8} {way:12}", *(f"{found[method][way][measure]:7.3f}" for measure in MEASURES), file=sys.stderr, flush=True)
    return found


def judged(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[Row]:
    ours, independent = found[DEFAULT[0]][DEFAULT[1]], found[DEFAULT[0]]["independent"]
    return [
        Row("default layout, motion per epoch, radii", ours["motion"], independent["motion"], "independent layouts", 0.25),
        Row("default layout, Moran's I", ours["morans_i"], independent["morans_i"], "independent layouts", 0.95, "ratio", at_least=True),
        Row(
            "default layout, Moran's I",
            ours["morans_i"],
            found["umap"]["last"]["morans_i"],
            "UMAP fixed at the last (published)",
            0.95,
            "ratio",
            True,
        ),
    ]


def main(write: bool = False) -> list[Row]:
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        found = everything(trained(Path(folder)))
    lines = [f"{'layout':9}{'kept calm by':13}" + "".join(f"{measure.replace('_', ' '):>24}" for measure in MEASURES)]
    for method, ways in found.items():
        lines += [f"{method:9}{way:13}" + "".join(f"{values[measure]:24.3f}" for measure in MEASURES) for way, values in ways.items()]
    rows = judged(found)
    text = "\n".join([*lines, "", table(rows)])
    print(text)
    if write:
        from benchmarks.motion_figure import draw

        draw(found, ROOT / "docs" / "motion.png", DEFAULT)
        print("drawn to docs/motion.png")
    return rows


if __name__ == "__main__":
    sys.exit(not all(row.ok for row in main("--write" in sys.argv[1:])))
