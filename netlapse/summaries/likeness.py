"""How alike the runs of a sweep are inside: each with each, layer by layer and by their saliency maps."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from netlapse.comparison import run_similarity, saliency_similarity
from netlapse.packing import evenly
from netlapse.render.heatmap import heatmap
from netlapse.summaries.runs import Run, runs_of
from netlapse.summaries.shared import inputs_shown
from netlapse.sweep import Sweep, as_csv
from netlapse.types import Findings, Float64, Tracker

MOST = 500
"""Runs times steps: of more, so many steps are compared, evenly."""


@dataclass(frozen=True, eq=False)
class Alike:
    """CKA of one thing in the runs that recorded it of the same inputs, at the steps that all of them have.

    members  (r,) their places among all runs       steps (s,)       values (s, r, r)
    """

    members: tuple[int, ...]
    steps: tuple[int, ...]
    values: Float64


def likeness(tracker: Tracker, sweep: Sweep) -> None:
    """Puts a heatmap `similarity/<layer>` (and `similarity/saliency/<method>`) at the last step into the parent, the numbers of all steps
    as findings of `run_similarity`, and those of the last one into `similarity.csv`."""
    runs = runs_of(sweep)
    found = {layer: alike(runs, layer) for layer in responding(runs)} | {f"saliency/{method}": explained(runs, method) for method in methods(runs)}
    found = {name: one for name, one in found.items() if one.steps}
    if not found:
        return
    arrays: dict[str, object] = {"runs": np.array([run.name for run in runs])}
    images, rows = {}, []
    for name, one in found.items():
        names = [runs[place].name for place in one.members]
        arrays |= {f"cka/{name}": one.values, f"steps/{name}": np.array(one.steps), f"members/{name}": np.array(one.members)}
        images[f"similarity/{name}"] = heatmap(one.values[-1], names, names, f"{name} at step {one.steps[-1]}", "debiased CKA")
        rows += [(name, one.steps[-1], names[a], names[b], one.values[-1][a, b]) for a in range(len(names)) for b in range(a)]
    last = max(one.steps[-1] for one in found.values())
    tracker.log("run_similarity", last, Findings({name: np.asarray(values) for name, values in arrays.items()}, images=images))
    columns = ("of", "step", "run", "other", "cka")
    tracker.document("similarity.csv", as_csv({column: [row[place] for row in rows] for place, column in enumerate(columns)}))


@lru_cache(maxsize=64)
def alike(runs: tuple[Run, ...], layer: str) -> Alike:
    """The finished runs whose responses of a layer are to the same inputs, of the commonest inputs."""
    shown = {place: inputs_shown(run.recording, "similarity", f"responses/{layer}") for place, run in enumerate(runs) if run.finished}
    return _alike(runs, shown, "similarity", lambda members, step: run_similarity([run.recording for run in members], layer, step))


def explained(runs: tuple[Run, ...], method: str) -> Alike:
    """The same of their saliency maps by a method, at the last step."""
    shown = {place: inputs_shown(run.recording, "saliency", f"maps/{method}") for place, run in enumerate(runs) if run.finished}
    return _alike(runs, shown, "saliency", lambda members, step: saliency_similarity([run.recording for run in members], method, step))


def responding(runs: Sequence[Run]) -> list[str]:
    """The layers that a finished run has responses of."""
    last = [by_step[max(by_step)] for run in runs if run.finished and (by_step := run.recording.findings.get("similarity", {}))]
    return list(dict.fromkeys(str(name) for found in last for name in np.asarray(found.arrays["layers"]).tolist()))


def methods(runs: Sequence[Run]) -> list[str]:
    """The methods by which a finished run has saliency maps."""
    last = [by_step[max(by_step)] for run in runs if run.finished and (by_step := run.recording.findings.get("saliency", {}))]
    return list(dict.fromkeys(name.removeprefix("maps/") for found in last for name in found.arrays if name.startswith("maps/")))


def _alike(runs: Sequence[Run], shown: dict[int, Hashable], analysis: str, similarity: Callable[[list[Run], int], Float64]) -> Alike:
    known = [key for key in shown.values() if key is not None]
    common = max(known, key=known.count, default=None)
    members = [place for place, key in shown.items() if key is not None and key == common]
    if len(members) < 2:
        return Alike((), (), np.zeros((0, 0, 0)))
    steps = sorted(set.intersection(*({*runs[place].recording.findings[analysis]} for place in members)))
    steps = evenly(steps, max(MOST // len(members), 1))
    values = [similarity([runs[place] for place in members], step) for step in steps]
    return Alike(tuple(members), tuple(steps), np.stack(values) if values else np.zeros((0, len(members), len(members))))
