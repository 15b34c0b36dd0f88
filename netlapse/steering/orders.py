"""A command on its way, and the answer to it, as the entries in which they travel.

An entry is a short text under a key: a tag of an MLflow run, or a file. Each command that a program sends is an entry of its own,
`netlapse.command.<sequence>-<id>`, so that none overwrites another whoever sends them and when. By hand the entry `netlapse.command`
is written, which holds the bare command. The training alone writes the answers: `netlapse.answer` for people, the last one in words, and
`netlapse.answers` for programs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from netlapse.steering.commands import LONGEST, Command, parse

TYPED, ANSWER, ANSWERS = "netlapse.command", "netlapse.answer", "netlapse.answers"
BY_HAND = "by hand"
"""Who sent what stands in the entry `netlapse.command`: nobody wrote down who it was."""

LARGEST = 5000
"""Characters of an entry: the longest tag that every MLflow store takes."""

_KEY = re.compile(r"netlapse\.command\.(\d{1,12})-([0-9a-f]{8})")
_AGAIN = re.compile(r"\s*#\s*\d+$|(?<![=\s])\s+\d+$")  # "pause #2", "pause 2"; not the number of "lr= 2"


@dataclass(frozen=True)
class Order:
    """A command as it arrived.

    sequence  its number; of a run's commands each has one above those before it
    text      what was sent, by whom, and when it was (ISO 8601, UTC; empty where nobody wrote it down)
    run       which run it is for
    id        tells apart two that were given one number at the same moment; empty for one typed by hand
    problem   why it must not be carried out; None: nothing is known against it
    """

    sequence: int
    text: str
    run: str
    sent: str = ""
    by: str = BY_HAND
    id: str = ""
    problem: str | None = None

    @property
    def key(self) -> str:
        return f"{TYPED}.{self.sequence}-{self.id}" if self.id else TYPED

    @property
    def command(self) -> Command:
        return parse(_AGAIN.sub("", self.text.strip()) if not self.id else self.text)

    @property
    def entry(self) -> dict[str, str]:
        """What is written to send it."""
        return {self.key: json.dumps({"run": self.run, "command": self.text, "sent": self.sent, "by": self.by})}

    @classmethod
    def read(cls, key: str, value: str) -> Order | None:
        """The order in an entry; None where the key is no order's. What is wrong with it, whoever wrote it, is its problem."""
        if (match := _KEY.fullmatch(key)) is None:
            return None
        sequence, identifier = int(match[1]), match[2]
        try:
            said = json.loads(value)
            run, text, sent, by = (str(said[name])[:LONGEST] for name in ("run", "command", "sent", "by"))
        except (ValueError, TypeError, KeyError):
            problem = f"the entry {key} is no command: expected a JSON object with run, command, sent and by"
            return cls(sequence, value[:LONGEST], "", id=identifier, by="", problem=problem)
        return cls(sequence, text, run, sent, by, identifier)


@dataclass(frozen=True)
class Answer:
    """What became of an order.

    state   "done", "refused" (nothing was changed) or "failed" (it was tried)
    step    the optimiser's steps taken when it was, and `epoch` the finished epochs; None where no training was there to take it
    """

    sequence: int
    command: str
    state: str
    message: str
    step: int | None
    epoch: int | None
    sent: str
    taken: str
    by: str
    id: str = ""

    @property
    def text(self) -> str:
        where = "" if self.step is None else f" at step {self.step}, epoch {self.epoch}"
        return f"#{self.sequence} {self.command}: {self.state}{where}: {self.message}"


class Book:
    """What a training knows of the commands that came to it, as it can be read from the entries by one that goes on.

    state  "training", "paused" or "over"
    """

    def __init__(self, run: str) -> None:
        self.run, self.state = run, "training"
        self.sequence = 0
        """The last that was taken or refused for what it says."""
        self.typed: str | None = None
        self.answers: list[Answer] = []
        self._known: set[str] = set()

    def open(self, entries: Mapping[str, str]) -> list[str]:
        """Go on from what an earlier training of this run wrote down; returns the keys of orders that it answered and did not clear away."""
        written = read_answers(entries)
        self.sequence, self.typed, self.answers = written.sequence, written.typed, list(written.answers)
        self._known = {answer.id for answer in self.answers if answer.id}
        return [order.key for key, value in entries.items() if (order := Order.read(key, value)) is not None and order.id in self._known]

    def arrived(self, entries: Mapping[str, str]) -> list[Order]:
        """The orders that were not here before, by their numbers, each with what is known against it; every order is told once.

        A number that is not above the last one's is a replay. What is typed by hand is taken once, until it is changed or taken away;
        its number is the next.
        """
        found = [order for key, value in entries.items() if (order := Order.read(key, value)) is not None and order.id not in self._known]
        orders = [self._judged(order) for order in sorted(found, key=lambda order: (order.sequence, order.sent, order.id))]
        typed = entries.get(TYPED, "").strip() or None
        if typed is not None and typed != self.typed:
            self.sequence += 1
            orders.append(Order(self.sequence, typed[:LONGEST], self.run))
        self.typed = typed
        return orders

    def _judged(self, order: Order) -> Order:
        self._known.add(order.id)
        if order.problem is not None:
            return order
        if order.run != self.run:
            return replace(order, problem=f"it is for run {order.run}, and this is {self.run}")
        if order.sequence <= self.sequence:
            return replace(order, problem=f"{TAKEN}: number {order.sequence} is not above {self.sequence}, the last one's")
        self.sequence = order.sequence
        return order

    def answered(self, answer: Answer) -> None:
        self.answers.insert(0, answer)

    @property
    def entries(self) -> dict[str, str]:
        """What is to be written for those who sent commands, the newest answers first and as many as an entry takes."""
        about = {"run": self.run, "state": self.state, "sequence": self.sequence, "typed": self.typed}
        while len(text := json.dumps(about | {"answers": [asdict(answer) for answer in self.answers]})) > LARGEST:
            self.answers.pop()
        last = f"{self.answers[0].text}" if self.answers else "nothing was sent yet"
        return {ANSWERS: text, ANSWER: f"[{self.state}] {last}"[:LARGEST]}


TAKEN = "a replayed number"
"""How the problem of an order begins whose number was taken; it may be sent again with the next."""


@dataclass(frozen=True)
class Written:
    """What a training wrote down for those who send commands; `state` is None where none has listened."""

    state: str | None
    sequence: int
    typed: str | None
    answers: tuple[Answer, ...]


def read_answers(entries: Mapping[str, str]) -> Written:
    """What stands in the entry of answers; as if there were none where it is not one of ours."""
    try:
        said = json.loads(entries[ANSWERS])
        answers = tuple(Answer(**answer) for answer in said["answers"])
        return Written(str(said["state"]), int(said["sequence"]), said["typed"], answers)
    except (ValueError, TypeError, KeyError):
        return Written(None, 0, None, ())


def next_sequence(entries: Mapping[str, str]) -> int:
    """One above all numbers that were taken or are on their way."""
    waiting = [order.sequence for key, value in entries.items() if (order := Order.read(key, value)) is not None]
    return max([read_answers(entries).sequence, *waiting]) + 1


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
