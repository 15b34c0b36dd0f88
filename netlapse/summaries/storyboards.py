"""A storyboard of the runs of a sweep for each layer: what every run learned, step by step, on one layout."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from netlapse.comparison import maps_of_runs
from netlapse.packing import evenly
from netlapse.render.runboard import storyboard_of_runs
from netlapse.report import SD_LIMIT
from netlapse.summaries.runs import Run, layers_of, profiled, runs_of
from netlapse.summaries.shared import Shared, shared
from netlapse.sweep import Sweep
from netlapse.types import Findings, Tracker, UInt8

log = logging.getLogger(__name__)

MOST_RUNS, MOST_STEPS = 16, 8
"""Of a storyboard: what is more makes no picture to be looked at; the page of the sweep has all."""
RESOLUTION = 36
NOTICE = "not_compared.txt"


def storyboards(tracker: Tracker, sweep: Sweep) -> None:
    """Puts a picture `runs/<layer>` into the parent for each layer that two runs or more have.

    What is on none of them is told, with the reason, in `not_compared.txt`.
    """
    runs = runs_of(sweep)
    said, pictures = [], {}
    for layer in layers_of(runs):
        found = shared(runs, layer)
        said.append(notice(layer, runs, found.left_out))
        if not found.members:
            continue
        try:
            pictures[layer] = storyboard(runs, found)
        except ValueError as error:
            said.append(f"layer {layer}: no storyboard: {error}\n")
    if pictures:
        last = max(step for step, _ in pictures.values())
        tracker.log("runs", last, Findings(images={f"runs/{layer}": picture for layer, (_, picture) in pictures.items()}))
    said.append(notice("any", runs, _only_here(runs)))
    if text := "".join(said):
        tracker.document(NOTICE, text)
        log.warning("netlapse: not all of the runs can be compared; %s in the record of the sweep says which and why", NOTICE)


def storyboard(runs: Sequence[Run], found: Shared) -> tuple[int, UInt8]:
    """The last step of a layer's storyboard, and its picture (h, w, 3); raises ValueError where the runs share no step or no groups."""
    shown = evenly(range(len(found.members)), MOST_RUNS)
    members = [runs[found.members[n]] for n in shown]
    recordings, places = [run.recording for run in members], [found.places[n] for n in shown]
    steps = evenly(sorted(set.intersection(*({*recording.findings["nap"]} for recording in recordings))), MOST_STEPS)
    maps = maps_of_runs(recordings, found.layer, places, steps or None, resolution=RESOLUTION)
    title = f"{found.layer}: {len(found.members)} runs, units {BY[found.by]}"
    if len(shown) < len(found.members):
        title += f"; {len(shown)} of them are shown, evenly by what was given for them"
    notes = [found.notes[n] for n in shown]
    picture = storyboard_of_runs(
        maps.maps, [run.name for run in members], maps.steps, maps.groups, SD_LIMIT, title, "standard deviations of the layer", notes
    )
    return max(maps.steps), picture


BY = {
    "responses": "where their counterparts by responses lie",
    "profiles": "where their counterparts by profiles lie",
    "number": "by their number, as they could not be matched",
    "own": "of each on its own layout, as layouts are what differs",
}


def notice(layer: str, runs: Sequence[Run], left_out: Mapping[int, str]) -> str:
    """A line for each reason for which runs are not compared in a layer."""
    reasons = list(dict.fromkeys(left_out.values()))
    named = {why: [runs[place].name for place in sorted(left_out) if left_out[place] == why] for why in reasons}
    return "".join(f"layer {layer}: {', '.join(names)}: {why}\n" for why, names in named.items())


def _only_here(runs: Sequence[Run]) -> dict[int, str]:
    """The finished runs that share no layer with any other."""
    layers = set(layers_of(runs))
    return {
        place: "it shares no layer with another run"
        for place, run in enumerate(runs)
        if run.finished and profiled(run) and not layers & {*profiled(run)} and len(runs) > 1
    }
