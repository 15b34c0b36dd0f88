"""The runs of a sweep by their names, each with as much of its recording as comparing runs takes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from netlapse.recording import Recording, Series
from netlapse.sweep import FINISHED, Child, Sweep
from netlapse.types import Array, Findings

_KEPT = {
    "nap": ("groups", "counts", "profile", "scale", "constant"),
    "topomap": ("positions", "layout_step"),
    "similarity": ("layers", "inputs", "labels", "responses", "responses_range"),
}
"""The first parts of the names of arrays that are kept of each analysis, at all steps."""
_KEPT_AT_LAST = {"saliency": ("inputs", "maps")}
"""The same of analyses of which the last step is kept alone: their arrays are large."""


@dataclass(frozen=True, eq=False)
class Run:
    """The run of one job.

    name       what was given for it and is not the same in all: seed=1 layout=umap
    run        its id, or the folder of its record
    given      key -> value of what its name is made of
    why        what it failed of
    recording  what comparing takes, without scalars; empty where it recorded nothing
    curves     every metric over its steps
    """

    name: str
    run: str
    state: str
    given: Mapping[str, str]
    why: str | None
    recording: Recording
    curves: Mapping[str, Series]

    @property
    def finished(self) -> bool:
        return self.state == FINISHED


@lru_cache(maxsize=1)  # all summaries of a sweep ask for the same
def runs_of(sweep: Sweep) -> tuple[Run, ...]:
    """The run that counts of each job that was started, by what was given for it: numbers by their size.

    Of recordings that is read alone which comparing takes: reading all of a hundred takes longer than comparing them.
    """
    children = list(sweep.last.values())
    given = [dict(word.partition("=")[::2] for word in child.overrides) for child in children]
    keys = sorted(dict.fromkeys(key for each in given for key in each), key=lambda key: key == "seed")  # repeats stand side by side
    differing = [key for key in keys if len({each.get(key) for each in given}) > 1]
    told = [{key: each[key] for key in differing if key in each} for each in given]
    order = sorted(range(len(children)), key=lambda place: [_size(told[place].get(key)) for key in differing])
    called = _short(differing)
    return tuple(_run(children[place], told[place], called) for place in order)


def parameters(runs: Sequence[Run]) -> list[str]:
    """What is not the same in all runs, in the order of the first one's words."""
    return list(dict.fromkeys(key for run in runs for key in run.given))


def layers_of(runs: Sequence[Run]) -> list[str]:
    """The layers that two finished runs or more have profiles of, in the order in which the runs have them."""
    names = [name for run in runs if run.finished for name in profiled(run)]
    return [name for name in dict.fromkeys(names) if names.count(name) > 1]


def profiled(run: Run) -> list[str]:
    """The layers a run has profiles of, at its last step."""
    by_step = run.recording.findings.get("nap", {})
    return [name.removeprefix("profile/") for name in by_step[max(by_step)].arrays if name.startswith("profile/")] if by_step else []


def _short(keys: Sequence[str]) -> dict[str, str]:
    """What a key is called in the name of a run: its last word, where no other key ends in the same."""
    last = {key: key.lstrip("+~").rpartition(".")[2] for key in keys}
    return {key: word if [*last.values()].count(word) == 1 else key.lstrip("+~") for key, word in last.items()}


def _run(child: Child, given: Mapping[str, str], called: Mapping[str, str]) -> Run:
    name = " ".join(f"{called[key]}={value}" for key, value in given.items()) or " ".join(child.overrides) or child.run
    try:
        whole = child.recording(wanted=_wanted)
    except FileNotFoundError:  # it failed before there was anything to record
        whole = Recording()
    return Run(name, child.run, child.state, given, child.why, _reduced(whole), whole.scalars)


def _reduced(whole: Recording) -> Recording:
    findings: dict[str, dict[int, Findings]] = {}
    for analysis, parts in (_KEPT | _KEPT_AT_LAST).items():
        by_step = whole.findings.get(analysis, {})
        steps = sorted(by_step)[-1:] if analysis in _KEPT_AT_LAST else sorted(by_step)
        if steps:
            findings[analysis] = {step: Findings(_of(by_step[step].arrays, parts)) for step in steps}
    return Recording(whole.manifest, findings)


def _wanted(analysis: str, array: str) -> bool:
    return array.partition("/")[0] in (_KEPT | _KEPT_AT_LAST).get(analysis, ())


def _of(arrays: Mapping[str, Array], parts: Sequence[str]) -> dict[str, Array]:
    return {name: values for name, values in arrays.items() if name.partition("/")[0] in parts}


def _size(value: str | None) -> tuple[int, float, list[tuple[float, str]]]:
    """For an order in which nothing is first, then numbers by their size, then words, in which numbers go by their size too."""
    if value is None:
        return 0, 0.0, []
    try:
        return 1, float(value), []
    except ValueError:
        return 2, 0.0, [(float(part), "") if part.isdigit() else (-1.0, part) for part in re.split(r"(\d+)", value)]
