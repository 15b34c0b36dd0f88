"""A thread beside the training that looks for commands and writes the answers: the training itself only looks at a queue."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque

from netlapse.steering.boxes import Box
from netlapse.steering.orders import Answer, Book, Order
from netlapse.tracking.secrecy import scrubbed

log = logging.getLogger(__name__)

POLL_SECONDS = 2.0
"""Between two looks at the box, at least."""

MOST_SECONDS = 30.0
"""Between two looks at a box that does not answer."""

CLOSE_SECONDS = 5.0
"""How long the end of a training waits for its last answers to be written."""

SHARE = 0.01
"""Of a processor's time, at most, for looking: where a look takes long there are fewer."""


class Inbox:
    """What has arrived in a box for one training.

    orders  those that were not taken yet, the oldest first; a training looks whether there are any, which takes nanoseconds

    A box that fails or is silent is said once in the log; commands and answers wait until it answers again.
    """

    def __init__(self, box: Box) -> None:
        self._box = box
        self._book = Book(box.run)
        self.orders: deque[Order] = deque()
        self._arrived, self._wake, self._closing = threading.Event(), threading.Event(), threading.Event()
        self._lock = threading.Lock()  # of the book, which the training writes answers into
        self._news, self._taken = True, list[str]()
        self._opened, self._failures, self._said = False, 0, False
        self._thread = threading.Thread(target=self._work, name="netlapse-steering", daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> None:
        """Return when something has arrived, or after so many seconds."""
        self._arrived.wait(seconds)
        self._arrived.clear()

    def answer(self, order: Order, answer: Answer, state: str) -> None:
        """Have the answer written, and what the training does from now on: "training" or "paused"."""
        with self._lock:
            self._book.answered(answer)
            self._book.state = state
            self._news = True
            if order.id:
                self._taken.append(order.key)
        self._wake.set()

    def close(self) -> None:
        """Have written that the training is over, for at most `CLOSE_SECONDS`; what is still on its way stays unanswered."""
        with self._lock:
            self._book.state, self._news = "over", True
        self._closing.set()
        self._wake.set()
        self._thread.join(CLOSE_SECONDS)

    def _work(self) -> None:
        look = 0.0
        while True:
            closing, spent = self._closing.is_set(), time.thread_time()
            try:
                if not closing and time.monotonic() >= look:
                    look = time.monotonic() + POLL_SECONDS
                    self._look()
                if self._opened:
                    self._write()
                self._failures = 0
            except Exception as error:  # whatever a store raises must not end the thread: it may answer again
                self._failures += 1
                self._tell(error)
                look = time.monotonic() + min(POLL_SECONDS * 2**self._failures, MOST_SECONDS)
            if closing:
                return
            look = max(look, time.monotonic() + (time.thread_time() - spent) / SHARE - POLL_SECONDS)
            # An answer does not make a silent store talk.
            (self._closing if self._failures else self._wake).wait(max(look - time.monotonic(), 0.0))
            self._wake.clear()

    def _look(self) -> None:
        entries = self._box.read()
        with self._lock:
            if not self._opened:
                self._taken += self._book.open(entries)
                self._opened = True
            orders = self._book.arrived(entries)
        if orders:
            self.orders.extend(orders)
            self._arrived.set()

    def _write(self) -> None:
        with self._lock:
            news, self._news = self._news, False
            entries, taken = self._book.entries, list(self._taken)
        if not news:
            return
        try:
            self._box.write(entries)
            for key in taken:
                self._box.delete(key)
                self._taken.remove(key)
        except Exception:
            self._news = True
            raise

    def _tell(self, error: Exception) -> None:
        if not self._said:
            self._said = True  # once, however often it comes and goes
            message = scrubbed(str(error)).partition("\n")[0][:300]
            log.warning("netlapse: no commands can be taken for now, and training goes on: %s: %s", type(error).__name__, message)
