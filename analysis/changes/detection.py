"""What is unusual in the last row of a window of numbers from inside a network, as places to look at.

Every measure has its own course and its own two bars: how large a change has to be to matter, and how far out of the noise it has to
stand. `unusual` is the smaller of the two as a multiple of its bar, at most 4: from 1 on it is an event. The bars were set on trainings
with known changes, see `benchmarks/events.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from netlapse.analysis.changes.courses import beyond_level, beyond_line, beyond_others
from netlapse.analysis.changes.measures import DEAD, DRIFT, RANK, SCALE, SEPARABILITY
from netlapse.types import Float64, Int64

CHANGE, STILL, COLLAPSE, MERGING, ATTRIBUTE, PLATEAU = "change", "still", "collapse", "merging", "attribute", "plateau"
KINDS = (CHANGE, STILL, COLLAPSE, MERGING, ATTRIBUTE, PLATEAU)
MOST = 4.0
"""How unusual anything is called at most."""

JUMP, FALL, DRIFT_NOISE = np.log(3.3), np.log(20.0), 3.0
LOST, LOST_RANK, LOST_SCALE, DIED, TOLD_NOISE = 0.5, 0.5, 1.0, 0.1, 4.0
CAME_TOGETHER, PAIR_NOISE, PAIRS_OVER = 0.4, 6.5, 7
TAKEN_UP, TAKEN_NOISE = 0.25, 2.0
FLOORS = {DRIFT: 0.1, SEPARABILITY: 0.02, RANK: 0.02, SCALE: 0.02, DEAD: 0.005, MERGING: 0.03, ATTRIBUTE: 0.02}
"""Noise below which it is taken to be this: few numbers are alike by chance."""


@dataclass(frozen=True)
class Look:
    """A place to look at: when, what kind, about what, in which layer ("" for the network as a whole), how unusual, in words."""

    step: int
    kind: str
    about: str
    layer: str
    unusual: float
    sentence: str

    @property
    def subject(self) -> tuple[str, str, str]:
        return self.kind, self.about, self.layer


@dataclass(frozen=True, eq=False)
class Window:
    """Numbers from inside a network at some checkpoints in a row, the last of them now.

    steps       (w,) ascending
    layers, groups, units   names; names; of each layer how many units it has
    numbers     measure -> (w, l), those of `inside` and `drift`, from the checkpoint before
    apart       layer -> (w, p) of the pairs of groups, see there
    pairs       (p, 2) their groups
    attributes  attribute -> (w, l), see `told_apart`
    maps        (w,) how far the saliency maps are from those before; NaN where none are made
    """

    steps: Int64
    layers: Sequence[str]
    groups: Sequence[str]
    units: Sequence[int]
    numbers: Mapping[str, Float64]
    apart: Mapping[str, Float64]
    pairs: Sequence[tuple[int, int]]
    attributes: Mapping[str, Float64] = field(default_factory=dict)
    maps: Float64 = field(default_factory=lambda: np.zeros(0))

    @property
    def step(self) -> int:
        return int(self.steps[-1])


def looks(window: Window) -> list[Look]:
    """All places that are unusual by any amount, now; of each kind, subject and layer one at most. The most unusual first."""
    found = [*_drifts(window), *_collapses(window), *_separabilities(window), *_mergings(window), *_attributes(window)]
    return sorted((look for look in found if look.unusual > 0), key=lambda look: -look.unusual)


def standing(window: Window, *, profiles: float, maps: float, patience: int) -> list[Look]:
    """Plateaus that begin now: profiles of all layers, or maps, that moved by less than a threshold at `patience` checkpoints in a row."""
    found = []
    told = {"profiles": (window.numbers[DRIFT].max(axis=1), profiles), "saliency": (window.maps, maps)}
    for about, (moved, threshold) in told.items():
        below = [bool(value < threshold) for value in moved]  # what is NaN does not stand still
        if len(below) >= patience and all(below[-patience:]) and not (len(below) > patience and below[-patience - 1]):
            found.append(Look(window.step, PLATEAU, about, "", 1.0, _plateau(about, threshold, patience)))
    return found


def _plateau(about: str, threshold: float, patience: int) -> str:
    what = {"profiles": "the profiles of every layer", "saliency": "the saliency maps"}[about]
    return f"{what} moved by less than {100 * threshold:.3g} % of their size at {patience} checkpoints in a row"


# ---- each kind -------------------------------------------------------------------------------------------------------


def _drifts(window: Window) -> Iterable[Look]:
    """Moved out of its course: by the layers alone, or by all of them together; or not at all any more."""
    drifts, steps = window.numbers[DRIFT], window.steps
    if len(steps) < 2:
        return
    times = np.log((steps[1:] + steps[:-1]) / 2)  # the middle of each way
    moved, noises = (np.array(part) for part in zip(*(_beyond(times, drifts[1:, i], np.diff(steps)) for i in range(len(window.layers))), strict=True))
    still = (drifts[-1] == 0) & (drifts[-2] > 0)
    for layer in [""] if still.all() else [name for name, it in zip(window.layers, still, strict=True) if it]:
        yield Look(window.step, STILL, "", layer, MOST, f"{_named(layer)} stands still: its profiles are what they were at step {int(steps[-2])}")
    told = np.isfinite(moved)
    if not told.any():
        return
    together, beside = float(moved[told].mean()), float(np.median(noises[told]))
    whole = _unusual(together, JUMP, beside, DRIFT, DRIFT_NOISE)
    yield Look(window.step, CHANGE, DRIFT, "", whole, f"the whole network {_times(together)}")
    for index, layer in enumerate(window.layers):
        others = np.delete(moved, index)[np.delete(told, index)]
        if whole < 1:
            jumped = _unusual(moved[index], JUMP, noises[index], DRIFT, DRIFT_NOISE)
            yield Look(
                window.step, CHANGE, DRIFT, layer, jumped, f"{layer} moved {np.exp(moved[index]):.2g} times as far as its course so far promised"
            )
        if len(others) and others.mean() > -1:
            fell = _unusual(-moved[index], FALL, noises[index], DRIFT, DRIFT_NOISE)
            yield Look(
                window.step, STILL, "", layer, fell, f"{layer} hardly moves any more: {np.exp(moved[index]):.2g} times as far as its course promised"
            )


def _beyond(times: Float64, drifts: Float64, ways: Int64) -> tuple[float, float]:
    """How far a drift is beyond its course, and the noise, between checkpoints that may lie apart unevenly.

    What moves one way goes as far as the way is long, what wanders as far as its root: what is beyond its course is so by either.
    """
    with np.errstate(divide="ignore"):
        found = [beyond_line(times, np.log(drifts) - power * np.log(ways)) for power in (1.0, 0.5)]
    return min(found, key=lambda pair: abs(pair[0])) if found[0][0] * found[1][0] > 0 else (found[0][0] * 0.0, found[0][1])


def _collapses(window: Window) -> Iterable[Look]:
    """Units that do one and the same, groups that differ in fewer directions, responses that vary less or are no numbers."""
    dead, scales, ranks = (window.numbers[name] for name in (DEAD, SCALE, RANK))
    with np.errstate(divide="ignore", invalid="ignore"):
        log_scales, log_ranks = np.log(scales), np.log(ranks)
    for index, (layer, units) in enumerate(zip(window.layers, window.units, strict=True)):
        up, noise = beyond_level(dead[:, index])
        more = round(up * units) if np.isfinite(up) else 0
        died = _unusual(up, DIED, noise, DEAD, TOLD_NOISE) if more > 1 else 0.0
        yield Look(window.step, COLLAPSE, "dead units", layer, died, f"{more} more of {units} units of {layer} do one and the same for every input")
        down, noise = beyond_level(log_ranks[:, index])
        narrowed = _unusual(-down, LOST_RANK, noise, RANK, TOLD_NOISE)
        yield Look(
            window.step,
            COLLAPSE,
            RANK,
            layer,
            narrowed,
            f"groups differ in {ranks[-1, index]:.2g} directions in {layer}, {_before(ranks, index):.2g} before",
        )
        down, noise = beyond_level(log_scales[:, index])
        faded = _unusual(-down, LOST_SCALE, noise, SCALE, TOLD_NOISE)
        yield Look(window.step, COLLAPSE, SCALE, layer, faded, f"responses in {layer} vary {np.exp(down):.2g} times as much as before")
        if len(scales) > 1 and np.isfinite(scales[-2, index]) and not np.isfinite(scales[-1, index]):
            yield Look(window.step, COLLAPSE, "numbers", layer, MOST, f"responses in {layer} are numbers no more")


def _separabilities(window: Window) -> Iterable[Look]:
    shares = window.numbers[SEPARABILITY]
    for index, layer in enumerate(window.layers):
        down, noise = beyond_level(_odds(shares[:, index]))
        lost = _unusual(-down, LOST, noise, SEPARABILITY, TOLD_NOISE)
        sentence = (
            f"groups are told apart less in {layer}: {shares[-1, index]:.2f} of the variance lies between them, {_before(shares, index):.2f} before"
        )
        yield Look(window.step, CHANGE, SEPARABILITY, layer, lost, sentence)


def _mergings(window: Window) -> Iterable[Look]:
    """Of each layer the pair of groups that came together most, where it did so alone."""
    for layer in window.layers:
        with np.errstate(divide="ignore"):
            moved, noise = beyond_others(np.log(window.apart[layer][-PAIRS_OVER:]))
        if not np.isfinite(moved).any():
            continue
        least = int(np.nanargmin(moved))
        one, other = (window.groups[group] for group in window.pairs[least])
        nearer = _unusual(-moved[least], CAME_TOGETHER, noise, MERGING, PAIR_NOISE)
        sentence = f"{one} and {other} came together in {layer}: {np.exp(moved[least]):.2g} times as far apart as before, more than any other groups"
        yield Look(window.step, MERGING, f"{one}, {other}", layer, nearer, sentence)


def _attributes(window: Window) -> Iterable[Look]:
    """An attribute that all layers together tell apart better than before, where a network that learns the classes tells it apart less."""
    for name, shares in window.attributes.items():
        odds = _odds(shares)
        there = np.isfinite(odds).all(axis=0)
        if not there.any():
            continue
        up, noise = beyond_level(odds[:, there].mean(axis=1))
        if not up > 0:
            continue
        taken = _unusual(up, TAKEN_UP, noise, ATTRIBUTE, TAKEN_NOISE)
        now, before = (float(part[:, there].mean()) for part in (shares[-1:], shares[-5:-1]))
        yield Look(
            window.step, ATTRIBUTE, name, "", taken,
            f"layers tell {name} apart more: {now:.2f} of the variance within classes lies between its values, {before:.2f} before",
        )  # fmt: skip


# ---- parts -----------------------------------------------------------------------------------------------------------


def _unusual(moved: float, bar: float, noise: float, measure: str, noise_bar: float) -> float:
    """0 where it did not move that way, or nothing is known of its course."""
    if not moved > 0:
        return 0.0
    return float(min(moved / bar, moved / max(noise, FLOORS[measure]) / noise_bar, MOST))


def _odds(shares: Float64) -> Float64:
    """The logarithm of the odds, not finite for 0 and 1."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Float64 = np.log(shares) - np.log1p(-shares)
    return found


def _before(values: Float64, index: int) -> float:
    with np.errstate(all="ignore"):
        return float(np.median(values[-5:-1, index])) if len(values) > 1 else float("nan")


def _times(moved: float) -> str:
    return f"moved {np.exp(moved):.2g} times as far as its course so far promised"


def _named(layer: str) -> str:
    return layer or "the whole network"
