"""What the observing callbacks of every framework have in common: what was asked for, and the record of one training."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from netlapse.analysis import default_analyses
from netlapse.events import Event, chosen
from netlapse.observer import Observer
from netlapse.probe import by_label
from netlapse.schedule import Schedule, every_epoch
from netlapse.tracking.checkpoints import Checkpoints
from netlapse.types import Analysis, Answers, Findings, Grouping, Network, ProbeSet, Tracker

log = logging.getLogger(__name__)


class Observing:
    """Mixed into a callback that is made with a schedule; the arguments are described there.

    framework, suffix  what the manifest calls the framework, and what its checkpoints' names end in
    """

    framework: str
    suffix: str
    schedule: Schedule

    def __init__(
        self,
        probe: object,
        analyses: Mapping[str, Analysis] | Sequence[Analysis] | None = None,
        *,
        layers: str | Sequence[str] = "auto",
        grouping: Grouping = by_label,
        schedule: Schedule | None = None,
        tracker: Tracker | None = None,
        module: str | None = None,
        output: str | int | None = None,
        checkpoints: str | Path | None = None,
        per_class: int = 20,
        seed: int = 0,
        batch_size: int = 64,
        channels_first: bool | None = None,
        strict: bool = False,
        stop_on: Sequence[str] = (),
    ) -> None:
        super().__init__(schedule or every_epoch())  # type: ignore[call-arg]  # the callback this is mixed into
        self.probe, self.analyses, self.layers, self.grouping = probe, analyses, layers, grouping
        self.tracker, self.module, self.output, self.channels_first = tracker, module, output, channels_first
        self.checkpoints = Checkpoints(checkpoints, self.suffix) if checkpoints is not None else None
        self.per_class, self.seed, self.batch_size, self.strict = per_class, seed, batch_size, strict
        self.stop_on = stop_on
        self.stop = False
        """Whether the training is to end: an event of a chosen kind has begun."""
        self.observer: Observer | None = None
        self._goes_on = False

    def open(self, network: Network, model: str, probe: ProbeSet, own_tracker: Callable[[], Tracker], *, goes_on: bool) -> None:
        """Open the record; `goes_on` where the training began earlier.

        Raises what `Observer.start` does, and ValueError for events to stop on that the analyses do not tell of.
        """
        analyses = default_analyses(probe) if self.analyses is None else self.analyses
        tracker = self.tracker if self.tracker is not None else own_tracker()
        self.observer = Observer(
            probe, analyses, tracker, layers=self.layers, grouping=self.grouping, strict=self.strict, batch_size=self.batch_size,
            on_event=self._happened,
        )  # fmt: skip
        self.stop, self._ending = False, chosen(self.stop_on, self.observer.analyses)
        about: dict[str, object] = {"model": model, "step_unit": self.schedule.unit, "framework": self.framework, "command": " ".join(sys.argv)}
        if self.module is not None:
            about["module"] = self.module
        self._goes_on = goes_on
        self.observer.start(network, about, resume=goes_on)

    def begun(self) -> None:
        """Only the step at which the training goes on is the earlier one's."""
        self._goes_on = False

    def observe(self, network: Network, step: int, metrics: Mapping[str, float], answers: Answers | None = None) -> None:
        """Log the training's metrics and what the analyses find at this step; `answers` as in `Observer.observe`."""
        if self.observer is not None:
            extra = {"training": Findings(scalars={f"training/{name}": value for name, value in metrics.items()})} if metrics else None
            self.observer.observe(network, step, extra=extra, missing_only=self._goes_on, answers=answers)

    def _happened(self, analysis: str, event: Event) -> None:
        kind = f"{analysis}/{event.kind}"
        if kind in self._ending and not self.stop and self.observer is not None:
            self.stop = True
            why = f"by {kind} at step {event.step}: {event.sentence}"
            log.warning("netlapse: training is stopped %s", why)
            self.observer.attempt("tracker, naming why it stopped", self.observer.tracker.describe, {"stopped": why})

    def close(self, *, failed: bool | None) -> None:
        """Close the record, if one is open, as `Observer.finish` does; where nobody chose where it goes, say where it is."""
        observer, self.observer = self.observer, None
        if observer is not None:
            observer.finish(failed=failed)
            if self.tracker is None:
                print(f"netlapse: recorded in {observer.tracker.place}")
