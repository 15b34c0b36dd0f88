"""The curves of all runs of a sweep: as a picture, as a table, and their mean and spread as metrics of the parent."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from netlapse.render.courses import courses, mean_and_spread
from netlapse.summaries.runs import Run, runs_of
from netlapse.sweep import Sweep, as_csv
from netlapse.types import Array, Findings, Float64, Int64, Tracker

MAIN = (
    "training/",
    "fairness/accuracy_worst",
    "nap/separability/",
    "nap/drift/",
    "similarity/previous/",
    "layout/trustworthiness/",
    "layout/motion/",
)
"""What the names of the metrics begin with that are drawn, in this order."""
MOST = 24
"""Panels of the picture, and metrics of which the parent has a mean: of each kind the same share, the last layers."""


def curves(tracker: Tracker, sweep: Sweep) -> None:
    """Puts every metric of every run into `curves.csv`, and of the main ones a picture `curves` and `mean/<metric>`, `sd/<metric>` per step.

    Means and standard deviations (unbiased) are over the finished runs that have the metric at the step; the latter takes two.
    """
    runs = runs_of(sweep)
    rows = [
        (run.name, run.run, name, int(step), float(value))
        for run in runs
        for name, series in sorted(run.curves.items())
        for step, value in zip(series.steps, series.values)
    ]
    if not rows:
        return
    columns = ("run", "id", "metric", "step", "value")
    tracker.document("curves.csv", as_csv({name: [row[place] for row in rows] for place, name in enumerate(columns)}))
    finished = [run for run in runs if run.finished]
    panels = {name: over(finished, name) for name in main_metrics(finished)}
    if not panels:
        return
    numbers: dict[int, dict[str, float]] = {}
    for name, (steps, values) in panels.items():
        for step, *both in zip(steps.tolist(), *mean_and_spread(values)):
            told = {f"{of}/{name}": float(value) for of, value in zip(("mean", "sd"), both) if math.isfinite(value)}
            numbers.setdefault(step, {}).update(told)
    title = f"{len(finished)} run{'s' * (len(finished) != 1)}, their mean and one standard deviation about it"
    for step in sorted(numbers):
        images = {"curves": courses(panels, title)} if step == max(numbers) else {}
        tracker.log("curves", step, Findings({}, numbers[step], images))


def main_metrics(runs: Sequence[Run]) -> list[str]:
    """The main metrics that any of the runs has a number of, at most so many as there is room for."""
    names = list(dict.fromkeys(name for run in runs for name, series in run.curves.items() if np.isfinite(series.values).any()))
    kinds = [found for begin in MAIN if (found := [name for name in names if name.startswith(begin)])]
    # Of networks of many layers the last ones: those before the output are what a sweep is mostly about.
    return [name for found in kinds for name in found[-max(MOST // len(kinds), 1) :]]


def over(runs: Sequence[Run], name: str) -> tuple[Int64, Float64]:
    """The steps (s,) at which any run has a metric, and its values (r, s); NaN where a run has none."""
    steps = sorted({int(step) for run in runs if name in run.curves for step in run.curves[name].steps})
    values = np.full((len(runs), len(steps)), np.nan)
    for row, run in enumerate(runs):
        if name in run.curves:
            found: Array = run.curves[name].steps
            values[row, np.searchsorted(steps, found)] = run.curves[name].values
    return np.array(steps, np.int64), values
