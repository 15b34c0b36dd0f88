"""What the observing callbacks of every framework have in common: what was asked for, and the record of one training."""

from __future__ import annotations

import logging
import math
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
        save_on: Sequence[str] = (),
        after_event: int = 0,
        max_overhead: float | None = None,
    ) -> None:
        if max_overhead is not None and not 0 < max_overhead < math.inf:
            raise ValueError(f"ObserverCallback was given max_overhead={max_overhead}; expected a share above 0, such as 0.05, or None for no limit")
        if isinstance(after_event, bool) or not isinstance(after_event, int) or after_event < 0:
            raise ValueError(f"ObserverCallback was given after_event={after_event!r}; expected how many further steps are observed, 0 for none")
        super().__init__(schedule or every_epoch())  # type: ignore[call-arg]  # the callback this is mixed into
        self.probe, self.analyses, self.layers, self.grouping = probe, analyses, layers, grouping
        self.tracker, self.module, self.output, self.channels_first = tracker, module, output, channels_first
        self.checkpoints = Checkpoints(checkpoints, self.suffix) if checkpoints is not None else None
        self.per_class, self.seed, self.batch_size, self.strict = per_class, seed, batch_size, strict
        self.stop_on, self.save_on, self.after_event = stop_on, save_on, after_event
        self.stop = False
        """Whether the training is to end: an event of a chosen kind has begun."""
        self.saves = False
        """Whether a checkpoint is to be kept now: an event of a chosen kind has begun at this step."""
        self.watches = 0
        """How many of the next steps are to be observed, due or not: an event has begun at this step."""
        self.max_overhead = max_overhead
        self.observer: Observer | None = None
        self._goes_on = False
        self._thinned: list[int] = []
        self._watched = -1  # the last step that is observed for an event before it

    @property
    def saves_all(self) -> bool:
        """Whether a checkpoint is kept of every observed step."""
        return self.checkpoints is not None and not self.save_on

    def open(self, network: Network, model: str, probe: ProbeSet, own_tracker: Callable[[], Tracker], *, goes_on: bool) -> None:
        """Open the record; `goes_on` where the training began earlier.

        Raises what `Observer.start` does, and ValueError for events to stop or save on that the analyses do not tell of, and to save on where
        no folder is known.
        """
        analyses = default_analyses(probe) if self.analyses is None else self.analyses
        tracker = self.tracker if self.tracker is not None else own_tracker()
        self.observer = Observer(
            probe, analyses, tracker, layers=self.layers, grouping=self.grouping, strict=self.strict, batch_size=self.batch_size,
            on_event=self._happened,
        )  # fmt: skip
        self.stop, self._ending = False, chosen(self.stop_on, self.observer.analyses)
        self._saving, self._watched = chosen(self.save_on, self.observer.analyses), -1
        if self.save_on and self.checkpoints is None:
            if tracker.checkpoint_folder is None:
                raise ValueError(
                    f"ObserverCallback is to save on {list(self.save_on)}, and this record has no place for checkpoints; "
                    "give the folder, checkpoints=..., or another tracker"
                )
            self.checkpoints = Checkpoints(tracker.checkpoint_folder, self.suffix)
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
        if self.observer is None:
            return
        self.saves, self.watches = False, 0
        if step <= self._watched and not self.schedule.due(step):
            self._say_added(step)
        extra = {"training": Findings(scalars={f"training/{name}": value for name, value in metrics.items()})} if metrics else None
        if self.max_overhead is None or self._goes_on or self.observer.overhead.affords(self.max_overhead):
            self._say_thinned()
            self.observer.observe(network, step, extra=extra, missing_only=self._goes_on, answers=answers)
        else:
            self._thinned.append(step)
            self.observer.observe(network, step, extra=extra, only=())
        if self.watches:
            self._watched = step + self.watches

    def _happened(self, analysis: str, event: Event) -> None:
        kind = f"{analysis}/{event.kind}"
        self.watches = self.after_event
        self.saves |= kind in self._saving
        if kind in self._ending and not self.stop and self.observer is not None:
            self.stop = True
            why = f"by {kind} at step {event.step}: {event.sentence}"
            log.warning("netlapse: training is stopped %s", why)
            self.observer.attempt("tracker, naming why it stopped", self.observer.tracker.describe, {"stopped": why})

    def close(self, *, failed: bool | None) -> None:
        """Close the record, if one is open, as `Observer.finish` does; where nobody chose where it goes, say where it is."""
        self._say_thinned()
        observer, self.observer = self.observer, None
        if observer is not None:
            observer.finish(failed=failed)
            if self.tracker is None:
                print(f"netlapse: recorded in {observer.tracker.place}")

    def _say_added(self, step: int) -> None:
        """Put down a step that is observed though the schedule does not say so."""
        if self.observer is None:
            return
        before = self.observer.tracker.manifest.get("added")
        known = before.get("steps", []) if isinstance(before, Mapping) else []
        told = {"after_event": self.after_event, "steps": sorted({*known, step})}
        self.observer.attempt("tracker, naming what was added", self.observer.tracker.describe, {"added": told})

    def _say_thinned(self) -> None:
        """Put down the steps that were left out so far: not at each of them, which would cost what leaving out saves."""
        observer, thinned = self.observer, self._thinned
        if observer is None or not thinned:
            return
        self._thinned = []
        before = observer.tracker.manifest.get("thinned")
        known = before.get("steps", []) if isinstance(before, Mapping) else []
        if not known:
            log.warning(
                "netlapse: an observation takes %.2g s: to stay within %.3g %% of the training's time not every scheduled %s is observed; "
                "reanalysis fills them in from checkpoints",
                observer.overhead.last, 100 * (self.max_overhead or 0), self.schedule.unit,
            )  # fmt: skip
        told = {"max_overhead": self.max_overhead, "steps": sorted({*known, *thinned})}
        observer.attempt("tracker, naming what was left out", observer.tracker.describe, {"thinned": told})
