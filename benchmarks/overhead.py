"""What observing costs a training, as a grid like Cockpit's (Schneider et al., 2021, figure 6): model x interval x preset x framework.

Run with `python -m benchmarks.overhead`. A preset is measured in real trainings on mnist5000 whose epochs are cut to 8 batches, observed at
step 0 and after each, beside the same with `callback=none`, in turn in one process: an observation costs, all told, the difference of the
two over their number. An epoch is 63 batches, measured as what more batches take of the same training; what validation takes is left
out. A cell is the share, in a training of ten epochs observed at step 0 and at every 1st, 5th or 10th epoch, of (10 / interval + 1)
observations. Few are measured, so that the first, which lays out everything anew, counts more than it does in ten: with validation left
out, cells are rather too large. Then real trainings of ten epochs, to check cells of the grid and that `max_overhead` keeps its promise.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from statistics import median

from benchmarks.measure import Row, interleaved, table
from benchmarks.training import trained

BATCHES = 63  # of an epoch: 4,000 images by 64
CUT = 8
MEASURED = {"mlp": (63, 2, 5), "cnn": (63, 2, 3), "resnet18": (24, 1, 1)}
"""Batches of the longer bare training, epochs, and repeats."""
INTERVALS = (1, 5, 10)
PRESETS = {
    "naps": ("analyses=profiles", "~analyses.topomap"),
    "maps": ("analyses=profiles",),
    "saliency": ("analyses=default",),
    "full": ("analyses=samples", "+analyses.similarity._target_=netlapse.analysis.similarity.similarity", "+analyses.similarity._partial_=true"),
}
"""Profiles alone; with maps, the layouts and their quality; the default, with saliency; with samples and similarity too."""
CUTTING = {"torch": ("limit_train_batches={}", "limit_val_batches=1"), "keras": ("steps_per_epoch={}", "validation_steps=1")}
MOST = 0.05


def costs(framework: str, model: str) -> tuple[float, dict[str, float]]:
    """Seconds of an epoch, and of one observation by each preset."""
    longer, epochs, repeats = MEASURED[model]

    def training(batches: int, *words: str) -> Callable[[], None]:
        cut = [f"+trainer.options.{word.format(batches)}" for word in CUTTING[framework]]
        return partial(trained, f"framework={framework}", f"model={model}", f"trainer.max_epochs={epochs}", "checkpoint=none", *cut, *words)

    trainings = {"bare": training(CUT, "callback=none"), "longer": training(longer, "callback=none")}
    trainings |= {name: training(CUT, *words) for name, words in PRESETS.items()}
    seconds = interleaved(trainings, repeats, time.perf_counter)
    bare, more = seconds.pop("bare"), seconds.pop("longer")
    epoch = (more - bare) / (longer - CUT) / epochs * BATCHES
    return epoch, {name: (each - bare) / (epochs + 1) for name, each in seconds.items()}


def _timed(function: Callable[[], None]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def share(observation: float, epoch: float, interval: int) -> float:
    """Observing over training, of ten epochs."""
    return (10 // interval + 1) * observation / (10 * epoch)


def grid() -> dict[tuple[str, str, str, int], float]:
    """The cells, printed as they come: framework, model, preset and interval."""
    cells = {}
    print(f"{'framework model':18} {'epoch':>7}  {'preset':9} {'observation':>11}  " + "  ".join(f"every {each:<2}" for each in INTERVALS))
    for model in MEASURED:
        for framework in ("torch", "keras"):
            epoch, observations = costs(framework, model)
            for preset, seconds in observations.items():
                row = {interval: share(seconds, epoch, interval) for interval in INTERVALS}
                cells |= {(framework, model, preset, interval): each for interval, each in row.items()}
                told = "  ".join(f"{each:8.1%}" for each in row.values())
                print(f"{framework + ' ' + model:18} {epoch:5.2f} s  {preset:9} {seconds:9.3f} s  {told}", flush=True)
    return cells


def real(cells: dict[tuple[str, str, str, int], float]) -> list[Row]:
    """Trainings of ten epochs of the default network: cells that were computed, and a limit that is kept."""
    observed = {
        "every 1": partial(trained, "checkpoint=none"),
        "every 5": partial(trained, "checkpoint=none", "schedule.n=5"),
        "limited": partial(trained, "checkpoint=none", f"max_overhead={MOST}"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in observed}
    for _ in range(3):
        bare = _timed(partial(trained, "callback=none", "checkpoint=none"))
        for name, training in observed.items():
            seconds[name].append(_timed(training) / bare - 1)
    shares = {name: median(each) for name, each in seconds.items()}
    rows = [
        Row(f"default, every {n}: share of its training", shares[f"every {n}"], cells["torch", "cnn", "saliency", n], "that cell", 1.25, "ratio")
        for n in (1, 5)
    ]
    return [*rows, Row(f"default, max_overhead={MOST}: share", shares["limited"], MOST, "what was asked", MOST + 0.02)]


def main() -> list[Row]:
    with tempfile.TemporaryDirectory() as home:
        os.environ["NETLAPSE_HOME"] = home
        cells = grid()
        framework, model, preset, interval = worst = max(cells, key=lambda each: cells[each])
        print(f"The worst: {framework} {model}, {preset} at every {interval}: {cells[worst]:.0%}\n", flush=True)
        rows = real(cells)
    print(table(rows))
    return rows


if __name__ == "__main__":
    sys.exit(not all(row.ok for row in main()))
