"""Where to look first in a recording: what the analyses that follow courses found unusual, ranked, whether it made an event or not."""

from __future__ import annotations

from typing import TypedDict

from netlapse.recording import Recording


class Place(TypedDict):
    """A row: how unusual (1 is an event), when, in which layer ("" for the network as a whole), what kind, about what, in words, told by whom."""

    unusual: float
    step: int
    layer: str
    kind: str
    about: str
    sentence: str
    analysis: str


_ARRAYS = {"unusual": "unusual", "step": "steps", "layer": "layers", "kind": "kinds", "about": "about", "sentence": "sentences"}


def look_here(recording: Recording) -> list[Place]:
    """The places that analyses list at their last steps, the most unusual first and of equal ones the first; none where none lists any."""
    places: list[Place] = []
    for name, by_step in recording.findings.items():
        arrays = by_step[max(by_step)].arrays if by_step else {}
        if all(f"look_{part}" in arrays for part in _ARRAYS.values()):
            columns = (arrays[f"look_{part}"].tolist() for part in _ARRAYS.values())
            places += [Place(**dict(zip(_ARRAYS, row, strict=True)), analysis=name) for row in zip(*columns, strict=True)]  # type: ignore[typeddict-item]
    return sorted(places, key=lambda place: (-place["unusual"], place["step"]))
