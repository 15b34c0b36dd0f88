"""One layer of several runs on one layout: their units matched with those of a reference run, and drawn at their counterparts' places.

Where layouts are what was varied, each run is on its own: on one layout they would all look alike.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from netlapse.analysis.topomap import places_before
from netlapse.comparison import matched, medoid, places_of_runs, run_similarity
from netlapse.matching import Matching, by_index
from netlapse.recording import Recording
from netlapse.summaries.runs import Run, parameters, profiled
from netlapse.types import Float64

_OF_LAYOUTS = re.compile(r"[+~]*(layout\b|analyses\.topomap\.(layout|features|align_layers)\b)")
"""What the keys of overrides begin with that say how units are laid out."""
MATCHINGS = 1000
"""Orders of the null of how well units match, of all runs together; a run has at most 100 and at least 9."""


@dataclass(frozen=True, eq=False)
class Shared:
    """A layer of the runs that can be compared.

    members    their places among all runs          reference  the place among the members of the one the others are matched with
    by         what units are matched by: "responses", "profiles", or "number" where they cannot be; "own" where each run is on its own layout
    places     (u, 2) of each member's units on the reference's layout, or its own; NaN where a unit has no counterpart
    notes      of each member how well it matches, or how good its layout is
    left_out   the place of a run -> why it is none of the members
    """

    layer: str
    members: tuple[int, ...]
    reference: int
    by: str
    places: tuple[Float64, ...]
    notes: tuple[str, ...]
    left_out: dict[int, str]


@lru_cache(maxsize=64)
def shared(runs: tuple[Run, ...], layer: str) -> Shared:
    """The finished runs whose units of a layer can be matched, by their responses where most have them, else by their profiles.

    Where no two can be, there are no members, and `left_out` says why of each.
    """
    left_out = {place: f"it did not finish ({run.state.lower()})" for place, run in enumerate(runs) if not run.finished}
    left_out |= {place: f"it has no layer {layer!r}" for place, run in enumerate(runs) if run.finished and layer not in profiled(run)}
    having = [place for place in range(len(runs)) if place not in left_out]
    alike = {by: _largest(having, lambda place, key=key: key(runs[place].recording, layer)) for by, key in _ALIKE.items()}  # type: ignore[misc]
    by = "responses" if 2 * len(alike["responses"]) > len(having) and len(alike["responses"]) > 1 else "profiles"
    left_out |= {place: _UNLIKE[by] for place in having if place not in alike[by]}
    if (laid := _with_layout(runs, alike[by], layer)) is None or len(alike[by]) < 2:
        left_out |= dict.fromkeys(alike[by], "no other run can be compared with it" if laid is not None else "no run has a layout of it")
        return Shared(layer, (), 0, by, (), (), left_out)
    return _placed(runs, layer, alike[by], laid, by, left_out)


def _placed(runs: Sequence[Run], layer: str, members: Sequence[int], laid: Sequence[int], by: str, left_out: dict[int, str]) -> Shared:
    if any(_OF_LAYOUTS.match(key) for key in parameters(runs)):
        left_out |= dict.fromkeys({*members} - {*laid}, "it has no layout of it")
        own = [_last_layout(runs[place].recording, layer) for place in laid]
        return Shared(layer, tuple(laid), 0, "own", tuple(own), tuple(_quality(runs[place], layer) for place in laid), left_out)
    recordings = [runs[place].recording for place in members]
    try:
        reference = members.index(_middle(runs, laid, layer) if by == "responses" else laid[0])
        by, matchings = _matchings(recordings, layer, reference, by)
        places = places_of_runs(recordings, layer, matchings, reference=reference)
    except ValueError as error:
        return Shared(layer, (), 0, by, (), (), left_out | dict.fromkeys(members, str(error)))
    notes = [_note(matching, at, by) for matching, at in zip(matchings, places)]
    notes[reference] = "the run most like the others" if by == "responses" else "the others are matched with it"
    return Shared(layer, tuple(members), reference, by, tuple(places), tuple(notes), left_out)


def _matchings(recordings: Sequence[Recording], layer: str, reference: int, by: str) -> tuple[str, list[Matching]]:
    permutations = int(np.clip(MATCHINGS // len(recordings), 9, 100))
    if by == "responses":
        return by, matched(recordings, layer, reference=reference, permutations=permutations)
    try:
        return by, matched(recordings, layer, reference=reference, by="profiles", permutations=permutations)
    except ValueError:
        # Two groups are too few to match units by; units of the same number are the same in runs of one initialisation alone.
        units = [_units(recording, layer) for recording in recordings]
        if len(set(units)) > 1:
            raise
        return "number", [by_index(units[reference], each) for each in units]


def _units(recording: Recording, layer: str) -> int:
    by_step = recording.findings["nap"]
    return int(by_step[max(by_step)].arrays[f"profile/{layer}"].shape[-1])


def _middle(runs: Sequence[Run], places: Sequence[int], layer: str) -> int:
    return places[medoid(run_similarity([runs[place].recording for place in places], layer))]


def _last_layout(recording: Recording, layer: str) -> Float64:
    by_step = recording.findings["topomap"]
    found = [places for step in sorted(by_step) if (places := places_before(by_step[step], layer)) is not None]
    return found[-1][0]


def _quality(run: Run, layer: str) -> str:
    series = run.curves.get(f"layout/trustworthiness/{layer}")
    return "" if series is None else f"trustworthiness {float(series.values[-1]):.2f}"


def _note(matching: Matching, places: Float64, by: str) -> str:
    alone = int(np.isnan(places[:, 0]).sum())
    of = f"; {alone} of {len(places)} units have no counterpart" if alone else ""
    return ("not matched: units by their number" if by == "number" else str(matching)) + of


def _with_layout(runs: Sequence[Run], members: Sequence[int], layer: str) -> list[int] | None:
    """The members with a layout of the layer; None where none has one."""
    laid = [place for place in members if any(places_before(found, layer) for found in runs[place].recording.findings.get("topomap", {}).values())]
    return laid or None


def _largest(places: Sequence[int], key: Callable[[int], Hashable]) -> list[int]:
    """The places with the commonest key, of equally common ones the first; those of None are with no others."""
    keys = {place: found for place in places if (found := key(place)) is not None}
    common = max(keys.values(), key=list(keys.values()).count, default=None)
    return [place for place in keys if keys[place] == common]


def inputs_shown(recording: Recording, analysis: str, name: str) -> Hashable:
    """What is the same in runs that recorded an array of an analysis of the same inputs; None where there is no such array at the last step."""
    by_step, about = recording.findings.get(analysis, {}), recording.manifest.get("probe")
    known = about.get("hash") if isinstance(about, Mapping) else None
    if not by_step or known is None or name not in by_step[max(by_step)].arrays:
        return None
    return known, np.asarray(by_step[max(by_step)].arrays["inputs"]).tobytes()


def _groups(recording: Recording, layer: str) -> Hashable:
    by_step = recording.findings["nap"]
    return tuple(np.asarray(by_step[max(by_step)].arrays["groups"]).tolist())


def _inputs_and_groups(recording: Recording, layer: str) -> Hashable:
    shown = inputs_shown(recording, "similarity", f"responses/{layer}")
    return None if shown is None else (shown, _groups(recording, layer))


_ALIKE: dict[str, Callable[[Recording, str], Hashable]] = {"responses": _inputs_and_groups, "profiles": _groups}
_UNLIKE = {"responses": "it recorded no responses to the inputs that most of the others were shown", "profiles": "it has other groups than most"}
