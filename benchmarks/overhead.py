"""What observing costs a training, as a grid like Cockpit's (Schneider et al., 2021, figure 6): model x interval x preset x framework.

Run with `python -m benchmarks.overhead`. A record has costs of its own, such as its page, and each observation has: so a preset is measured
in real trainings on mnist5000, whose epochs are cut to 4 batches, observed at step 0 and the last one, and at every one, beside the same with
`callback=none`, in turn in one process. What the second observes more tells what an observation costs, and the first what the record does.
An epoch is 63 batches, measured as what more batches take of the same training; what validation takes is left out, so cells are rather
too large. A cell is the share, in a training of ten epochs observed at step 0 and at every 1st, 5th or 10th epoch, of what that costs.
Then real trainings of ten epochs, to check a cell of the grid and that `max_overhead` keeps its promise.
`python -m benchmarks.overhead mlp resnet18` measures those models; the real trainings are of the cnn.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

from benchmarks.measure import Row, interleaved, table
from benchmarks.training import trained

BATCHES = 63  # of an epoch: 4,000 images by 64
CUT = 4
MEASURED = {"mlp": (63, 9, 3), "cnn": (63, 9, 2), "resnet18": (16, 3, 1)}
"""Batches of the longer bare training, epochs, and repeats after one round that is not counted; of the largest the first round counts."""
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


@dataclass(frozen=True)
class Cost:
    """Seconds that a record takes, with its first and last observation, and that each one between them does."""

    ends: float
    each: float

    def share(self, epoch: float, interval: int) -> float:
        """Of the time of ten epochs."""
        return (self.ends + (10 // interval - 1) * self.each) / (10 * epoch)


def costs(framework: str, model: str) -> tuple[float, dict[str, Cost]]:
    """Seconds of an epoch, and what each preset costs."""
    longer, epochs, repeats = MEASURED[model]

    def training(batches: int, *words: str) -> Callable[[], None]:
        cut = [f"+trainer.options.{word.format(batches)}" for word in CUTTING[framework]]
        return partial(trained, f"framework={framework}", f"model={model}", f"trainer.max_epochs={epochs}", "checkpoint=none", *cut, *words)

    trainings = {"bare": training(CUT, "callback=none"), "longer": training(longer, "callback=none")}
    for name, words in PRESETS.items():
        trainings |= {f"{name} ends": training(CUT, *words, f"schedule.n={epochs}"), f"{name} each": training(CUT, *words)}
    if repeats == 1:
        seconds = {name: _timed(function) for name, function in trainings.items()}
    else:
        seconds = interleaved(trainings, repeats, time.perf_counter)
    bare = seconds["bare"]
    epoch = (seconds["longer"] - bare) / (longer - CUT) / epochs * BATCHES
    return epoch, {name: Cost(seconds[f"{name} ends"] - bare, (seconds[f"{name} each"] - seconds[f"{name} ends"]) / (epochs - 1)) for name in PRESETS}


def _timed(function: Callable[[], None]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def grid(models: Iterable[str]) -> dict[tuple[str, str, str, int], float]:
    """The cells, printed as they come: framework, model, preset and interval."""
    cells = {}
    print(f"{'framework model':18} {'epoch':>7}  {'preset':9} {'record':>8} {'each':>8}   " + "  ".join(f"every {each:<2}" for each in INTERVALS))
    for model in models:
        for framework in CUTTING:
            epoch, found = costs(framework, model)
            for preset, cost in found.items():
                row = {interval: cost.share(epoch, interval) for interval in INTERVALS}
                cells |= {(framework, model, preset, interval): each for interval, each in row.items()}
                told = "  ".join(f"{each:8.1%}" for each in row.values())
                print(f"{framework + ' ' + model:18} {epoch:5.2f} s  {preset:9} {cost.ends:6.2f} s {cost.each:6.3f} s  {told}", flush=True)
    return cells


def real(cells: dict[tuple[str, str, str, int], float]) -> list[Row]:
    """Trainings of ten epochs of the default network: a cell that was computed, and a limit that is kept."""
    shares: dict[str, list[float]] = {"every 1": [], "limited": []}
    for _ in range(3):
        bare = _timed(partial(trained, "callback=none", "checkpoint=none"))
        for name, word in {"every 1": "schedule.n=1", "limited": f"max_overhead={MOST}"}.items():
            shares[name].append(_timed(partial(trained, "checkpoint=none", word)) / bare - 1)
    every, limited = (median(each) for each in shares.values())
    return [
        Row("default training, every 1: share", every, cells["torch", "cnn", "saliency", 1], "that cell", 1.25, "ratio"),
        Row(f"default training, max_overhead={MOST}: share", limited, MOST, "what was asked", MOST + 0.02),
    ]


def main(models: Sequence[str] = ()) -> list[Row]:
    if unknown := {*models} - {*MEASURED}:
        raise SystemExit(f"overhead was asked for {', '.join(sorted(unknown))}; it has the models {', '.join(MEASURED)}")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as home:
        os.environ["NETLAPSE_HOME"] = home
        cells = grid(models or MEASURED)
        framework, model, preset, interval = worst = max(cells, key=lambda each: cells[each])
        print(f"The worst: {framework} {model}, {preset} at every {interval}: {cells[worst]:.0%}\n", flush=True)
        if ("torch", "cnn", "saliency", 1) in cells:
            rows = real(cells)
            print(table(rows))
    return rows


if __name__ == "__main__":
    sys.exit(not all(row.ok for row in main(sys.argv[1:])))
