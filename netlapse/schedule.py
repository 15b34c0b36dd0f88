"""When to observe: a function of the step, and what a step counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

Unit = Literal["epoch", "step"]


@dataclass(frozen=True)
class Schedule:
    """Whether a step is due. Step 0, before training, is one like any other.

    It can be pickled, as a trainer that spawns processes does with its callbacks.

    unit  "epoch": steps count finished epochs; "step": they count optimiser steps (Lightning's global step)
    due   step -> bool
    """

    unit: Unit
    due: Callable[[int], bool]


class Clock:
    """Tells when a schedule is due, once per step: under gradient accumulation several batches end at the same step."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule, self._last = schedule, -1
        self._asked, self._until = False, -1

    def watch(self, n: int) -> None:
        """Have it strike at the next n steps, due or not."""
        self._until = self._last + n

    def ask(self) -> None:
        """Have it strike at the next step of its unit, due or not; a step at which it has just struck is that one."""
        self._asked = True

    def strikes(self, unit: Unit, step: int) -> bool:
        if unit != self._schedule.unit:
            return False
        asked, self._asked = self._asked, False
        if step == self._last or not (asked or step <= self._until or self._schedule.due(step)):
            return False
        self._last = step
        return True


def _positive(name: str, value: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"schedule: {name} is {value!r}; expected an integer of at least 1")
    return value


def _is_multiple(n: int, step: int) -> bool:
    return step % n == 0


def every_epoch(n: int = 1) -> Schedule:
    """Step 0 and after every n-th epoch."""
    return Schedule("epoch", partial(_is_multiple, _positive("n", n)))


def every_steps(n: int) -> Schedule:
    """Step 0 and after every n-th optimiser step."""
    return Schedule("step", partial(_is_multiple, _positive("n", n)))


def at(steps: Sequence[int], unit: Unit = "epoch") -> Schedule:
    """At the listed steps and no others."""
    listed = frozenset(int(step) for step in steps)
    if unit not in ("epoch", "step"):
        raise ValueError(f"schedule: unit is {unit!r}; allowed are 'epoch' and 'step'")
    if not listed or min(listed) < 0 or listed != frozenset(steps):
        raise ValueError(f"schedule: the listed steps are {list(steps)}; expected at least one integer, none negative")
    return Schedule(unit, listed.__contains__)


def log_spaced(per_octave: int = 1, unit: Unit = "step") -> Schedule:
    """Step 0 and 1, 2, 4, 8, ...: early training, where most changes, densely; with `per_octave` steps per doubling."""
    per_octave = _positive("per_octave", per_octave)
    if unit not in ("epoch", "step"):
        raise ValueError(f"schedule: unit is {unit!r}; allowed are 'epoch' and 'step'")
    # 2 ** 63 is more steps than any training takes.
    steps = frozenset(round(2 ** (i / per_octave)) for i in range(63 * per_octave)) | {0}
    return Schedule(unit, steps.__contains__)


def shortened(steps: Sequence[int]) -> str:
    """Steps for a message: the first twelve, and whether there are more."""
    return ", ".join(map(str, steps[:12])) + ", ..." * (len(steps) > 12)
