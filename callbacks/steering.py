"""What a training does when it is told something: the same in every framework, which only knows how its own things are done."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from netlapse.home import command as shell
from netlapse.home import home
from netlapse.steering.boxes import box_of
from netlapse.steering.commands import Command
from netlapse.steering.inbox import Inbox
from netlapse.steering.orders import Answer, Order, now
from netlapse.tracking.checkpoints import Checkpoints
from netlapse.types import Tracker

log = logging.getLogger(__name__)

HOLD_SECONDS = 0.5
"""While a training is paused: how long until somebody who ends it is noticed."""

TABLE = "steering"
"""The table of a record that lists what its training was told."""

COLUMNS = ("sequence", "command", "state", "message", "step", "epoch", "by", "sent", "taken")

Do = Callable[..., list[object]]
"""`do(task, *arguments)` has every process of the training do a task of its own; returns what each returns, raises what any raises."""

Where = Callable[[], tuple[int, int]]
"""(optimiser steps taken, epochs finished)"""


class Steering:
    """In the first process of a training: takes what arrives in its run's box, has it done, answers, and keeps a table of it.

    What a framework does is asked of it by name:

        set(name, value) -> str                  "lr", "weight_decay" or a penalty; ValueError where the training has no such thing
        observe() -> str                         says when
        save(checkpoints, step, whole) -> None   `whole`: one from which training can go on
        end(ends) -> None                        end the training, or, False, do not
        interrupted() -> bool                    somebody ends the process, and the framework waits for the batch's end

    checkpoints  where those are saved that are asked for; nothing is made there before

    Raises ValueError for a record that nobody else reaches.
    """

    def __init__(self, tracker: Tracker, suffix: str, *, checkpoints: str | Path | None = None) -> None:
        box = box_of(tracker)
        # Two levels below: whoever reads a folder of checkpoints takes the numbers in their names for steps of the observer's schedule.
        self._folder = Path(checkpoints) if checkpoints is not None else (tracker.checkpoint_folder or home() / "checkpoints" / box.run) / "steered"
        self._suffix = suffix
        self._tracker, self.address = tracker, box.address
        self._columns: dict[str, list[object]] = {name: [] for name in COLUMNS}
        self._attempt(self._go_on)
        self._paused: float | None = None
        self._stop: Order | None = None
        self._inbox = Inbox(box)
        self.orders = self._inbox.orders
        """What has arrived: a training looks after each batch whether there is anything."""

    @property
    def told(self) -> str:
        return f"netlapse: steer this training with {shell('steer')} run={self.address} pause (resume, stop, checkpoint, observe, lr=0.01, ...)"

    def attend(self, do: Do, where: Where, *, between: bool = True) -> None:
        """Take all that has arrived, and hold the training while it is paused.

        between  whether the training ends at once if it is to; else it ends after the batch that follows, and `ended` is to be called then
        """
        while True:
            while self.orders:
                self._take(self.orders.popleft(), do, where, between)
            if self._paused is None or any(do("interrupted")):
                return
            self._inbox.wait(HOLD_SECONDS)

    def ended(self, do: Do, where: Where) -> None:
        """The batch is over after which the training was to end."""
        if (order := self._stop) is not None:
            self._stop = None
            self._carry_out(order, do, where, self._saved_and_ended)

    def close(self) -> None:
        """Nothing is taken any more."""
        self._inbox.close()

    def _take(self, order: Order, do: Do, where: Where, between: bool) -> None:
        if not between and _stops(order):
            self._paused = None
            self._stop = order
            do("end", True)
        else:
            self._carry_out(order, do, where, self._done)

    def _carry_out(self, order: Order, do: Do, where: Where, how: Callable[[Order, Do, int], str]) -> None:
        """Have it done, whatever comes of it, and answer: nothing we do can end a training."""
        step, epoch = where()
        try:
            state, message = ("refused", order.problem) if order.problem is not None else ("done", how(order, do, step))
        except ValueError as error:
            state, message = "refused", str(error)
        except Exception as error:
            state, message = "failed", f"{type(error).__name__}: {error}"
        answer = Answer(order.sequence, order.text, state, message[:500], step, epoch, order.sent, now(), order.by, order.id)
        log.info("netlapse: %s", answer.text)
        self._inbox.answer(order, answer, "training" if self._paused is None else "paused")
        self._keep(answer)

    def _done(self, order: Order, do: Do, step: int) -> str:
        command = order.command
        if command.value is not None:
            return self._set(command, command.value, do, step)
        words: Mapping[str, Callable[[Order, Do, int], str]] = {
            "pause": self._pause, "resume": self._resume, "stop": self._saved_and_ended, "checkpoint": self._saved, "observe": self._observe,
        }  # fmt: skip
        return words[command.name](order, do, step)

    def _set(self, command: Command, value: float, do: Do, step: int) -> str:
        said = str(do("set", command.name, value)[0])
        self._attempt(lambda: self._tracker.metrics({metric(command.name): value}, step))
        return said

    def _pause(self, order: Order, do: Do, step: int) -> str:
        if self._paused is not None:
            raise ValueError("it is paused already")
        self._paused = time.monotonic()
        return "the training waits"

    def _resume(self, order: Order, do: Do, step: int) -> str:
        if self._paused is None:
            raise ValueError("it is not paused")
        waited, self._paused = time.monotonic() - self._paused, None
        return f"the training goes on after {waited:.0f} s"

    def _saved(self, order: Order, do: Do, step: int) -> str:
        return f"saved {self._save(do, 'checkpoint', step, whole=False)}"

    def _save(self, do: Do, name: str, step: int, *, whole: bool) -> Path:
        checkpoints = Checkpoints(self._folder / name, self._suffix)
        do("save", checkpoints, step, whole)
        return checkpoints.path(step)

    def _saved_and_ended(self, order: Order, do: Do, step: int) -> str:
        """Ended only where the checkpoint is there: what was trained is not to be lost by it."""
        try:
            path = self._save(do, "stop", step, whole=True)
        except Exception as error:
            do("end", False)
            raise RuntimeError(f"not stopped, as no checkpoint could be saved ({type(error).__name__}: {error})") from error
        self._paused = None
        do("end", True)
        return f"the training ends; it can go on from {path}"

    def _observe(self, order: Order, do: Do, step: int) -> str:
        return str(do("observe")[0])

    def _go_on(self) -> None:
        """With the table that an earlier training into this record kept."""
        if (kept := self._tracker.read(f"{TABLE}.json")) is not None:
            table = json.loads(kept)
            self._columns = {name: [row[table["columns"].index(name)] for row in table["data"]] for name in COLUMNS}

    def _keep(self, answer: Answer) -> None:
        for name, column in self._columns.items():
            column.append(getattr(answer, name))
        self._attempt(lambda: self._tracker.table(TABLE, self._columns))

    def _attempt(self, record: Callable[[], None]) -> None:
        try:
            record()
        except Exception as error:
            log.warning("netlapse: what a training was told could not be recorded: %s: %s", type(error).__name__, error)


def _stops(order: Order) -> bool:
    try:
        return order.problem is None and order.command.name == "stop"
    except ValueError:
        return False


def metric(name: str) -> str:
    """The metric that tells what was set: "control/lr", "control/class_weight/3", "control/penalise/3-5"."""
    return f"control/{name.replace('->', '-').replace('.', '/')}"
