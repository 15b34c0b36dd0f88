"""What observing costs a training: the time it takes, beside the time between."""

from __future__ import annotations

import time


class Overhead:
    """Counts seconds from the first observation on. A share is of the seconds spent on anything else, which is training."""

    def __init__(self) -> None:
        self._began: float | None = None
        self._trained = False
        self._spent = 0.0
        self.last = 0.0  # seconds that the last observation took

    def begin(self) -> None:
        """An observation begins; the first one begins the count, and before a second one there was training."""
        self._trained = self._began is not None
        self._began = time.perf_counter() if self._began is None else self._began

    def observed(self, seconds: float) -> None:
        """An observation has taken so long."""
        self.last = seconds
        self.spent(seconds)

    def spent(self, seconds: float) -> None:
        """So long was spent on observing, but not on an observation, such as on drawing what was found."""
        self._spent += seconds

    @property
    def share(self) -> float | None:
        """Observing over training; None before there was any training: what little time passes in the first observation is none."""
        training = self._training()
        return self._spent / training if self._trained and training > 0 else None

    def affords(self, most: float) -> bool:
        """Whether the share stays within this one after another observation that takes as long as the last; the first is always afforded."""
        return self._began is None or self._spent + self.last <= most * self._training()

    def _training(self) -> float:
        return 0.0 if self._began is None else time.perf_counter() - self._began - self._spent
