"""Somebody ends the process while a training runs: a person (SIGINT), or a cluster that takes its machine back (SIGTERM)."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

DEFAULT: dict[signal.Signals, Callable[[int, FrameType | None], object] | signal.Handlers] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
}


class Interruption:
    """Notes that it happened, and has SIGTERM end the process as `sys.exit(143)` does, 143 being what a shell calls it.

    By default SIGTERM ends a process at once: nothing that was begun is brought to an end. Installed only in the main
    thread and for signals that nobody else handles; whoever installs a handler later is left alone.
    """

    def __init__(self) -> None:
        self.happened = False
        self._process = os.getpid()

    def install(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number, default in DEFAULT.items():
                if signal.getsignal(number) == default:
                    signal.signal(number, self._received)

    def remove(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number, default in DEFAULT.items():
                if signal.getsignal(number) == self._received:
                    signal.signal(number, default)

    def _received(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # forked from ours, to load data for one: it has nothing to bring to an end
            self.remove()
            os.kill(os.getpid(), number)
        elif number == signal.SIGINT:
            self.happened = True
            signal.default_int_handler(number, frame)
        elif not self.happened:  # the second of a cluster that grows impatient must not cut short what the first began
            self.happened = True
            raise SystemExit(128 + number)
