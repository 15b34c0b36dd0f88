"""What happened in a training: an alarm, a change, told by whichever analysis noticed it, in words.

An analysis tells in its findings of every event so far, as it goes on from what it found before. So the findings of its last step
hold them all: the log, the run's tag and the page say what stands there, live or offline, and nothing else is kept.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from fnmatch import fnmatchcase
from typing import TypeVar

import numpy as np

from netlapse.types import Array, Findings

F = TypeVar("F", bound=Callable[..., Findings])


@dataclass(frozen=True, order=True)
class Event:
    """Something that happened.

    step      when, which may be earlier than it was noticed
    kind      what, in a word, one of those its analysis tells of
    about     what it is about, such as an attribute; "" for the network as a whole
    layer     "" where it is of no layer
    sentence  for a person
    """

    step: int
    kind: str
    about: str
    layer: str
    sentence: str

    def __str__(self) -> str:
        return self.sentence


_ARRAYS = {"step": "event_steps", "kind": "event_kinds", "about": "event_about", "layer": "event_layers", "sentence": "events"}


def told(events: Iterable[Event]) -> dict[str, Array]:
    """The arrays (e,) of findings that tell of events: `events` sentences, `event_steps`, `event_kinds`, `event_about`, `event_layers`."""
    rows = list(events)
    return {name: np.array([getattr(row, part) for row in rows], np.int64 if part == "step" else np.str_) for part, name in _ARRAYS.items()}


def events_in(findings: Findings | None) -> tuple[Event, ...]:
    """The events that findings tell of, in their order; none where they tell of none, or there are no findings."""
    if findings is None or not tells(findings):
        return ()
    columns = [findings.arrays[_ARRAYS[part.name]].tolist() for part in fields(Event)]
    return tuple(Event(*row) for row in zip(*columns, strict=True))


def tells(findings: Findings) -> bool:
    """Whether these are findings of an analysis that tells of events, though there may be none so far."""
    return findings.arrays.keys() >= set(_ARRAYS.values())


def begun(findings: Findings, previous: Findings | None) -> tuple[Event, ...]:
    """The events that findings tell of and those at the step before did not."""
    before = set(events_in(previous))
    return tuple(event for event in events_in(findings) if event not in before)


def listed(events: Iterable[Event]) -> list[dict[str, object]]:
    """Events as a manifest holds them."""
    return [asdict(event) for event in events]


def in_a_tag(by_analysis: Mapping[str, Sequence[Mapping[str, object]]]) -> str:
    """What a manifest lists of events as text, a line each, by step; "none" where the analyses that would tell have told of none."""
    rows = [(int(str(event["step"])), name, event) for name, events in by_analysis.items() for event in events]
    rows.sort(key=lambda row: row[:2])
    return "\n".join(f"step {step}, {name}/{event['kind']}: {event['sentence']}" for step, name, event in rows) or "none"


# ---- which there are -------------------------------------------------------------------------------------------------


def telling(*kinds: str) -> Callable[[F], F]:
    """Marks an analysis as one that tells of events of these kinds."""

    def marked(analysis: F) -> F:
        analysis.event_kinds = kinds  # type: ignore[attr-defined]
        return analysis

    return marked


def kinds_of(analyses: Mapping[str, Callable[..., object]]) -> tuple[str, ...]:
    """`<analysis>/<kind>` of every event that these analyses may tell of."""
    return tuple(f"{name}/{kind}" for name, analysis in analyses.items() for kind in _kinds(analysis))


def _kinds(analysis: Callable[..., object]) -> Sequence[str]:
    while isinstance(analysis, functools.partial):
        analysis = analysis.func
    return getattr(analysis, "event_kinds", ())


def chosen(patterns: Sequence[str], analyses: Mapping[str, Callable[..., object]]) -> frozenset[str]:
    """The `<analysis>/<kind>` that the patterns name, as "fairness/gap" or "fairness/*".

    Raises ValueError for a single string, and for a pattern that names no kind of these analyses.
    """
    known = kinds_of(analyses)
    if isinstance(patterns, str):
        raise ValueError(f"events were chosen by the string {patterns!r}; expected a list: [{patterns!r}]")
    if unknown := [pattern for pattern in patterns if not any(fnmatchcase(kind, pattern) for kind in known)]:
        raise ValueError(
            f"no event is of the kinds {unknown}; the analyses {sorted(analyses)} tell of {list(known) or 'none'}: "
            "name some of these, or add an analysis that tells of events, such as fairness"
        )
    return frozenset(kind for kind in known if any(fnmatchcase(kind, pattern) for pattern in patterns))
