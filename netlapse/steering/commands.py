"""What a training may be told: the words, and the numbers they take."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

PLAIN = {
    "pause": "hold the training between two batches",
    "resume": "go on with a training that is paused",
    "stop": "save a checkpoint from which training can go on, and end the training",
    "checkpoint": "save the weights as they are",
    "observe": "observe the network at the next step of the observer's schedule, whether due or not",
}
"""Commands of one word, and what they do."""

SETTINGS = {
    "lr": "the learning rate, a finite number above 0",
    "weight_decay": "a finite number of at least 0",
    "class_weight.<class>": "how many times the loss of a class counts, a finite number of at least 0",
    "penalise.<class>-><class>": "how many times the loss of taking one class for another counts, a finite number of at least 0",
}
"""What is set with `=`, and to what."""

LONGEST = 200
"""Characters that a command may have."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|nan)", re.IGNORECASE)
_PENALTY = re.compile(r"class_weight\.\d+|penalise\.\d+->\d+")


@dataclass(frozen=True)
class Command:
    """A command that can be carried out, as far as its words go; whether a training has such a class or optimizer only that training knows.

    name   a word of `PLAIN`, or what is set: "lr", "weight_decay", "class_weight.3", "penalise.3->5"
    value  of what is set; None for a word
    """

    name: str
    value: float | None = None

    @property
    def penalty(self) -> bool:
        """Whether it sets what `netlapse.penalties.Penalties` holds."""
        return _PENALTY.fullmatch(self.name) is not None


def parse(text: str) -> Command:
    """The command of a text such as "pause" or "lr=0.01"; spaces around its words do not matter.

    Raises ValueError for an unknown word, a setting without a number or a word with one, and a number out of its range.
    """
    name, equals, number = (part.strip() for part in text.strip().partition("="))
    if len(text) > LONGEST:
        raise ValueError(f"a command has at most {LONGEST} characters; this one has {len(text)}: {text[:40]!r}...")
    if not equals:
        if name in PLAIN:
            return Command(name)
        raise ValueError(f"no command {name!r}{_missing_number(name)}; {known()}")
    if name in PLAIN:
        raise ValueError(f"{name} takes no number, and was given {number!r}; send {name} alone")
    if name not in ("lr", "weight_decay") and not _PENALTY.fullmatch(name):
        raise ValueError(f"nothing named {name!r} can be set; {known()}")
    return Command(name, _in_range(name, number))


def known() -> str:
    """All commands, for a message."""
    return f"commands are {', '.join(PLAIN)}, and {', '.join(f'{name}=<number>' for name in SETTINGS)}"


def _missing_number(name: str) -> str:
    if name.startswith("penalise."):  # what is left of it where a shell took the arrow
        return " (in a shell it needs quotes: 'penalise.3->5=2.0')"
    return f" without a number, as in {name}=0.01" if name in SETTINGS or _PENALTY.fullmatch(name) else ""


def _in_range(name: str, number: str) -> float:
    value = float(number) if _NUMBER.fullmatch(number) else math.nan
    if not math.isfinite(value) or value < 0 or (name == "lr" and value == 0):
        raise ValueError(f"{name} was given {number!r}; expected {'a finite number above 0' if name == 'lr' else 'a finite number of at least 0'}")
    return value
