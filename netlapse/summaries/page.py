"""The page of a sweep: the time-lapses of its runs under one slider, in one HTML file that needs no other.

Its JSON is that of `netlapse.report`, with runs in the place of one:

runs     a name, a state and `why` it is none of a layer's maps; `curves` are name -> for each run its steps and values, or None
layers   each with the name of the run of `reference`, None where each run has its own layout, and its `cells`, one for each run or None:
         as a layer of `netlapse.report`, but for the units that have a place on the layout that the runs share;
         and `alike`, CKA (s, r, r) int16 as contrasts are, of the runs `members` at the `steps`
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from netlapse.analysis.contrasts import recorded
from netlapse.packing import Json, evenly, packed, quantised, rounded, rows_at
from netlapse.recording import Series
from netlapse.report import LIMIT, SD_LIMIT, Geometries, assembled
from netlapse.summaries.likeness import Alike, alike
from netlapse.summaries.runs import Run, layers_of, runs_of
from netlapse.summaries.shared import Shared, shared
from netlapse.summaries.storyboards import BY
from netlapse.sweep import Sweep
from netlapse.types import Array, Float64, Tracker

NAME = "sweep.html"
FEW = 8
"""Steps below which runs are left out of a page that is too large, and no more steps."""
_SCRIPTS = ("data.js", "colour.js", "raster.js", "charts.js", "bar.js", "sweep.js")


def page_of_sweep(tracker: Tracker, sweep: Sweep) -> None:
    """Puts `sweep.html` into the parent, where any run recorded anything."""
    runs = runs_of(sweep)
    if any(run.curves or run.recording.findings for run in runs):
        tracker.document(NAME, page(runs, {**tracker.manifest, "run_id": sweep.parent}))


def page(runs: Sequence[Run], manifest: Mapping[str, object]) -> str:
    """The runs' maps, curves and likeness as one HTML document.

    What would make it larger than 50 MB is left out, and the page says what: steps first, then runs, evenly.
    Raises ValueError where even two runs at two steps are too large.
    """
    runs, whole = tuple(runs), _steps(runs)
    steps, shown = whole, list(range(len(runs)))
    while True:
        left_out = [f"{len(whole) - len(steps)} of {len(whole)} steps"] * (len(steps) < len(whole))
        left_out += [f"{len(runs) - len(shown)} of {len(runs)} runs"] * (len(shown) < len(runs))
        document = _document(runs, shown, steps, manifest) | {"left_out": left_out}
        drawn = assembled(document, str(manifest.get("title") or "a sweep"), _SCRIPTS, "sweep.html", ("page.css", "sweep.css"))
        if (size := len(drawn.encode())) <= LIMIT:
            return drawn
        if len(steps) > FEW or len(shown) <= 2 < len(steps):
            steps = evenly(whole, max(len(steps) // 2, 2))
        elif len(shown) > 2:
            shown = evenly(range(len(runs)), max(len(shown) // 2, 2))
        else:
            raise ValueError(
                f"the page of the sweep would be {size / 1e6:.0f} MB with {len(shown)} runs at {len(steps)} steps; at most {LIMIT / 1e6:.0f} MB "
                "can be shown: observe fewer layers or groups"
            )


def _steps(runs: Sequence[Run]) -> list[int]:
    """Every step at which any run has profiles or a metric."""
    profiled = {step for run in runs for step in run.recording.findings.get("nap", {})}
    return sorted(profiled | {step for run in runs for series in run.curves.values() for step in series.steps.tolist()})


def _document(runs: tuple[Run, ...], shown: Sequence[int], steps: Sequence[int], manifest: Mapping[str, object]) -> dict[str, Json]:
    geometries = Geometries()
    found = [shared(runs, layer) for layer in layers_of(runs)]
    groups = list(dict.fromkeys(group for one in found for place in one.members for group in _groups(runs[place])))
    layers = [_layer(runs, shown, steps, one, groups, geometries) for one in found if one.members]
    metrics = sorted({name for run in runs for name in run.curves})
    return {
        "schema": 1,
        "manifest": {key: manifest[key] for key in ("title", "command", "run_id") if key in manifest} | {"step_unit": _unit(runs)},
        "steps": list(steps),
        "groups": groups,
        "layers": layers,
        "not_matched": [one.layer for one in found if not one.members],
        "geometries": geometries.packed,
        "runs": [{"name": runs[place].name, "state": runs[place].state, "why": runs[place].why, "run": runs[place].run} for place in shown],
        "curves": {name: [_curve(runs[place].curves.get(name)) for place in shown] for name in metrics},
        "events": [],
        "limits": {"sd": SD_LIMIT},
    }


def _unit(runs: Sequence[Run]) -> str:
    return next((str(run.recording.manifest["step_unit"]) for run in runs if run.recording.manifest.get("step_unit")), "step")


def _groups(run: Run) -> list[str]:
    by_step = run.recording.findings["nap"]
    return [str(name) for name in np.asarray(by_step[max(by_step)].arrays["groups"]).tolist()]


def _curve(series: Series | None) -> Json:
    return series and {"steps": series.steps.tolist(), "values": [rounded(value) for value in series.values.tolist()]}


def _layer(
    runs: tuple[Run, ...], shown: Sequence[int], steps: Sequence[int], found: Shared, groups: Sequence[str], geometries: Geometries
) -> dict[str, Json]:
    member = {place: number for number, place in enumerate(found.members)}
    return {
        "name": found.layer,
        "by": BY[found.by],
        "reference": None if found.by == "own" else runs[found.members[found.reference]].name,
        "cells": [_cell(runs[place], found, member[place], steps, groups, geometries) if place in member else None for place in shown],
        "notes": [found.notes[member[place]] if place in member else found.left_out.get(place, "") for place in shown],
        "alike": _packed(alike(runs, found.layer), shown),
    }


def _cell(run: Run, found: Shared, number: int, steps: Sequence[int], groups: Sequence[str], geometries: Geometries) -> Json:
    """What a run's maps of a layer are drawn from; None where no unit has a place."""
    placed = np.isfinite(found.places[number]).all(axis=1)
    if not placed.any():
        return None
    by_step = {step: run.recording.findings["nap"][step] for step in steps if step in run.recording.findings["nap"]}
    contrasts = np.full((len(by_step), len(groups), int(placed.sum())), np.nan)
    deviations: list[float] = []
    layouts: list[tuple[int, Array]] = []
    at: list[int] = []
    for row, (step, findings) in enumerate(by_step.items()):
        seen = recorded(step, findings.arrays, layers=[found.layer])
        if not seen.without_maps(found.layer):
            contrasts[row, [groups.index(name) for name in seen.names]] = seen.values[found.layer][:, placed]
        deviations.append(rounded(seen.deviations[found.layer]))
        geometry, vertex = geometries.place(found.places[number][placed], seen.silent(found.layer)[placed])
        if not layouts or layouts[-1][0] != geometry:
            layouts.append((geometry, vertex))
        at.append(len(layouts) - 1)
    numbers, scale = quantised(contrasts)
    rows = rows_at(steps, list(by_step))
    return {
        "name": found.layer,
        "units": int(placed.sum()),
        "at": rows,
        "contrast": packed(numbers),
        "scale": scale.tolist(),
        "sd": deviations,
        "layouts": [{"geometry": geometry, "vertex": packed(vertex), "step": None} for geometry, vertex in layouts],
        "laid_out": [{"at": [at[row] if row >= 0 else -1 for row in rows], "missing": None}],
    }


def _packed(found: Alike, shown: Sequence[int]) -> Json:
    """How alike the shown runs are; None where that is not known."""
    kept = [number for number, place in enumerate(found.members) if place in shown]
    if len(kept) < 2 or not found.steps:
        return None
    values: Float64 = found.values[:, kept][:, :, kept]
    numbers, scale = quantised(values)
    members = [list(shown).index(found.members[number]) for number in kept]
    return {"members": members, "steps": list(found.steps), "cka": packed(numbers), "scale": scale.tolist()}
