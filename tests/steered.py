"""Steering a small training from within, at a batch that the test chooses: what follows does not depend on how fast anything is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence

from netlapse.steering.boxes import Box
from netlapse.steering.orders import Answer, Order, next_sequence, now
from netlapse.steering.sending import send

PATIENCE = 60.0


def put(box: Box, command: str, **changed: object) -> Order:
    """Put a command into a box, as `send` does, and wait for nothing; some of its fields may be somebody's invention."""
    fields = {"sequence": next_sequence(box.read()), "text": command, "run": box.run, "sent": now(), "by": "a test", "id": f"{time.time_ns():x}"[-8:]}
    order = Order(**(fields | changed))  # type: ignore[arg-type]
    box.write(order.entry)
    return order


def arrives(orders: Collection[Order], box: Box, command: str) -> None:
    """Put a command into a box and wait until the training has it among its orders."""
    known = len(orders)
    put(box, command)
    until(lambda: len(orders) > known, "the arrival of a command")


def until(happened: Callable[[], object], what: str) -> None:
    began = time.monotonic()
    while not happened():
        assert time.monotonic() - began < PATIENCE, f"{what} did not happen"
        time.sleep(0.005)


class Person:
    """Sends commands one after another from another thread, each once the one before is answered and `before` holds."""

    def __init__(self, box: Box, commands: Sequence[str], *, before: Callable[[], object] = lambda: True) -> None:
        self._box, self._commands, self._before = box, commands, before
        self.answers: list[Answer] = []
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        for command in self._commands:
            until(self._before, "what a person waits for")
            answer = send(self._box, command, seconds=PATIENCE)
            assert answer is not None
            self.answers.append(answer)

    def join(self) -> list[Answer]:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        return self.answers
