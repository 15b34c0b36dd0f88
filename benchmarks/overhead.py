"""What observing costs a training, as a grid like Cockpit's (Schneider et al., 2021, figure 6): model x interval x preset x framework.

Run with `python -m benchmarks.overhead`. Each preset is measured in real trainings on mnist5000, observed at step 0 and after every
epoch, beside the same with `callback=none`, in turn in one process: so an observation costs, all told, the difference of the two over
their number. A cell is the share of a training of ten epochs that is observed at step 0 and at every 1st, 5th or 10th epoch, for which
the same observations are made: (10 / interval + 1) observations over 10 epochs. Few epochs are measured, so that the first observation,
which lays out everything anew, counts more than it does in ten: the cells of interval 1 are rather too large. Then real trainings of ten
epochs, to check cells of the grid and that `max_overhead` keeps what it promises.
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

EPOCHS = {"mlp": 3, "cnn": 3, "resnet18": 1}
"""Of the trainings that are measured; the repeats are 3, and 1 of the largest, an epoch of which takes a minute."""
INTERVALS = (1, 5, 10)
PRESETS = {
    "naps": ("analyses=profiles", "~analyses.topomap"),
    "maps": ("analyses=profiles",),
    "saliency": ("analyses=default",),
    "full": ("analyses=samples", "+analyses.similarity._target_=netlapse.analysis.similarity.similarity", "+analyses.similarity._partial_=true"),
}
"""Profiles alone; with maps, the layouts and their quality; with saliency, which is the default; with samples and similarity too."""
MOST = 0.05


def costs(framework: str, model: str) -> tuple[float, dict[str, float]]:
    """Seconds of an epoch, and of one observation by each preset."""
    epochs = EPOCHS[model]
    common = (f"framework={framework}", f"model={model}", f"trainer.max_epochs={epochs}", "checkpoint=none")
    trainings: dict[str, Callable[[], None]] = {"bare": partial(trained, *common, "callback=none")}
    trainings |= {name: partial(trained, *common, *words) for name, words in PRESETS.items()}
    if model == "resnet18":
        seconds = {name: _timed(training) for name, training in trainings.items()}
    else:
        seconds = interleaved(trainings, 3, time.perf_counter)
    bare = seconds.pop("bare")
    return bare / epochs, {name: (each - bare) / (epochs + 1) for name, each in seconds.items()}


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
    for model in EPOCHS:
        for framework in ("torch", "keras"):
            epoch, observations = costs(framework, model)
            for preset, seconds in observations.items():
                row = {interval: share(seconds, epoch, interval) for interval in INTERVALS}
                cells |= {(framework, model, preset, interval): each for interval, each in row.items()}
                told = "  ".join(f"{each:8.1%}" for each in row.values())
                print(f"{framework + ' ' + model:18} {epoch:5.1f} s  {preset:9} {seconds:9.3f} s  {told}", flush=True)
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
