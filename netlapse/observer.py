"""Folds analyses over the snapshots of one network and hands every finding to a tracker.

Live training and offline reanalysis are two producers of snapshots; both call `observe`.
"""

from __future__ import annotations

import functools
import inspect
import logging
import os
import platform
import re
import time
import traceback
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np

from netlapse import __version__
from netlapse.events import Event, begun, events_in, listed, tells
from netlapse.overhead import Overhead
from netlapse.probe import by_label
from netlapse.schedule import shortened
from netlapse.tracking.checkpoints import Checkpoints
from netlapse.tracking.probes import PROBE, to_bytes
from netlapse.tracking.secrecy import scrubbed
from netlapse.types import Analysis, Answers, Findings, Grouping, Layer, Network, ProbeSet, Snapshot, Tracker

log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")

PROBE_BYTES = 100_000_000
"""The largest probe that is kept with what was recorded of it."""

_IMPORT = uuid.uuid4().hex

PAGE_EVERY = 30.0
"""Seconds between two drawings of the time-lapse page while a training runs; it is always drawn at the end."""


class Observer:
    """Shows a network the probe, runs the analyses, and keeps what they found as their next `previous`.

    analyses  name -> analysis; or a sequence of analyses, which go by their functions' names
    layers    "auto", or names, globs or types; see `netlapse.layers.select`
    strict    raise what goes wrong in an analysis or the tracker, instead of reporting it and going on
    replaces  analyses may be asked otherwise than they were when the record was made; or the steps that are found anew, and then those
              may that were found at no other
    on_event  is called with the analysis' name and each event that it tells of and did not at the step before, once that is in the record

    Raises ValueError for an analysis name that is no file name, or is used twice.
    """

    def __init__(
        self,
        probe: ProbeSet,
        analyses: Mapping[str, Analysis] | Sequence[Analysis],
        tracker: Tracker,
        *,
        layers: str | Sequence[str] = "auto",
        grouping: Grouping = by_label,
        strict: bool = False,
        batch_size: int = 64,
        replaces: bool | Collection[int] = False,
        on_event: Callable[[str, Event], None] | None = None,
    ) -> None:
        self.replaces, self.on_event = replaces, on_event
        self.probe, self.tracker, self.layers, self.grouping, self.strict, self.batch_size = probe, tracker, layers, grouping, strict, batch_size
        self.analyses = _named(analyses)
        self._previous: dict[str, tuple[int, Findings | None]] = {}  # what each analysis found last here, and at which step
        self._reported: set[str] = set()
        self.overhead = Overhead()
        self._paged: float | None = None

    def start(self, network: Network, manifest: Mapping[str, object] | None = None, *, resume: bool = False) -> None:
        """Open the record, and find now what would fail at every step: layers, groupings, inputs, options that do not fit.

        resume  go on in a record that holds findings already, of the same probe

        Raises ValueError, whether strict or not, saying what does not fit; so it does where the record is another training's.
        A training that was killed or interrupted may begin anew in its record, in a process of its own: it had no checkpoint
        yet to go on from, and a cluster starts the same command again, with the same run. What is found again replaces what was.
        """
        before = self.tracker.manifest
        described, names, asked = self.fits(network, resume=resume or _cut_off(before, manifest or {}))
        named, analysed = _listed(before, "layers"), _listed(before, "analyses")
        shown = {layer["name"] for layer in named if isinstance(layer, Mapping)} | set(names)
        layers = [{"name": a.name, "kind": a.kind, "shape": list(a.shape), "role": a.role} for a in described if a.name in shown]
        now = datetime.now(UTC).isoformat(timespec="seconds")
        about = {
            "created": now,
            "probe": {
                "inputs": len(self.probe),
                "shape": list(self.probe.inputs.shape[1:]),
                "hash": self.probe.hash,
                "grouping": _name(self.grouping),
                "batch_size": self.batch_size,
            },
            "class_names": list(self.probe.class_names),
            "versions": versions(),
            **(manifest or {}),
        }
        began = {"when": now, "analyses": list(self.analyses), "versions": about["versions"], "command": about.get("command")}
        self.tracker.start(
            {
                **about,
                # What is gone on with remains what it was, and more is found of it.
                **({key: before[key] for key in about if key in before} if resume else {}),
                "process": _process(),
                "layers": layers,
                "analyses": [*analysed, *(name for name in self.analyses if name not in analysed)],
                "asked": asked,
                "history": [*_listed(before, "history"), began],
            }
        )
        if self.probe.inputs.nbytes <= PROBE_BYTES and not (resume and self.tracker.manifest.get("probe_kept") == self.probe.hash):
            self.attempt("keeping the probe", self._keep_probe)

    def fits(self, network: Network, *, resume: bool = False) -> tuple[tuple[Layer, ...], tuple[str, ...], dict[str, dict[str, str]]]:
        """Find what would fail at every step, and change nothing.

        Returns the network's layers, the names of the chosen ones, and what each analysis is asked, for the record.
        Raises what `start` does.
        """
        self._check_record(resume)
        snapshot = self._snapshot(network, 0)
        described = _fitting(self.probe, network)
        names = snapshot.layer_names
        if getattr(self.grouping, "reads_logits", True):
            few = self.probe.take(np.arange(min(2, len(self.probe))))
            self.grouping(few, network.outputs(few.inputs))
        else:
            self.grouping(self.probe, None)
        for name, analysis in self.analyses.items():
            function, options = _unbound(analysis)
            _check_known(name, function, options)
            if (check := getattr(function, "check", None)) is not None:
                check(snapshot, **options)
        asked = {name: _asked(analysis, names, self.grouping) for name, analysis in self.analyses.items()}
        self._check_same(asked)
        return described, names, asked

    def _check_same(self, asked: Mapping[str, Mapping[str, str]]) -> None:
        known = self.tracker.manifest.get("asked")
        for name, now in asked.items():
            before = known.get(name) if isinstance(known, Mapping) and self.tracker.steps.get(name) else None
            left = self._left(name)
            if before is not None and before != now and left:
                changed = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
                if changed == ["grouping"] and "grouping" not in now:
                    continue  # recorded when every analysis was said to be by the grouping
                told = (
                    f"analysis {name!r} is in the record with {', '.join(f'{key}={before.get(key)}' for key in changed)}, and is asked for with "
                    f"{', '.join(f'{key}={now.get(key)}' for key in changed)}"
                )
                if self.replaces is False:
                    raise ValueError(f"{told}; give it another name, so that both are there, or replace what is recorded (force=true offline)")
                raise ValueError(
                    f"{told}, but not at step {shortened(left)}, where it would stay as it is; replace it at all of them (a step needs its "
                    "checkpoint), or give it another name, so that both are there"
                )

    def _left(self, name: str) -> list[int]:
        """The steps at which an analysis is in the record and stays as it is."""
        if self.replaces is True:
            return []
        return sorted(self.tracker.steps.get(name, set()) - set(self.replaces or ()))

    def _check_record(self, resume: bool) -> None:
        known = sorted({step for steps in self.tracker.steps.values() for step in steps})
        if not known:
            return
        held = f"the record holds findings already, of steps {known[0]} to {known[-1]} ({self.tracker.place.splitlines()[0]})"
        if not resume:
            raise ValueError(f"{held}; observe a new training into a record of its own, or go on with this one from a checkpoint of it")
        probe = self.tracker.manifest.get("probe")
        if isinstance(probe, Mapping) and probe.get("hash") != self.probe.hash:
            raise ValueError(
                f"{held}, and of another probe: its hash is {probe.get('hash')}, and {self.probe.hash} this one's; "
                "show the same inputs, or take a record of its own"
            )

    def wanting(self, steps: Iterable[int], *, force: bool = False) -> dict[int, list[str]]:
        """Which analyses are to be done at which of these steps, ascending, so that the record holds all of them.

        Those it lacks; and those found already after such a one, because an analysis goes by what it found at the step
        before. With `force` all of them.
        """
        steps, outdated = sorted(steps), self.tracker.manifest.get("outdated")
        wanted: dict[int, list[str]] = {}
        for name in self.analyses:
            known = self.tracker.steps.get(name, set())
            since = outdated.get(name) if isinstance(outdated, Mapping) else None
            missing = [step for step in steps if force or step not in known or step == since]
            for step in steps:
                if missing and step >= min(missing):
                    wanted.setdefault(step, []).append(name)
        return dict(sorted(wanted.items()))

    def observe(
        self,
        network: Network,
        step: int,
        *,
        extra: Mapping[str, Findings] | None = None,
        only: Collection[str] | None = None,
        missing_only: bool = False,
        answers: Answers | None = None,
    ) -> dict[str, Findings]:
        """What each analysis finds at this step, logged; an analysis that fails is reported once and left out.

        extra         findings of somebody else at this step, such as the training's own metrics; logged with the others
        only          the names of the analyses to do; None: all
        missing_only  leave alone what the record holds of this step
        answers       what the network is known to answer at this step
        """
        return self.attempt("observation", self._observe, network, step, extra or {}, only, missing_only, answers) or {}

    def _observe(
        self,
        network: Network,
        step: int,
        extra: Mapping[str, Findings],
        only: Collection[str] | None,
        missing_only: bool,
        answers: Answers | None,
    ) -> dict[str, Findings]:
        known = {name for name, steps in self.tracker.steps.items() if step in steps}
        kept = (known if missing_only else set()) | (self.analyses.keys() - only if only is not None else set())
        if kept >= {*self.analyses, *extra}:
            return {}
        self.overhead.begin()
        started = time.perf_counter()
        self._paged = started if self._paged is None else self._paged
        snapshot = self._snapshot(network, step, answers)
        found: dict[str, Findings] = {}
        costs: dict[str, float] = {}
        for name, given in extra.items():
            if name in kept:
                continue
            found[name] = given
            self.attempt(f"tracker, logging {name}", self.tracker.log, name, step, given)
        with network.undisturbed():
            for name, analysis in self.analyses.items():
                if name in kept:
                    continue
                before, shared = time.perf_counter(), _forward_seconds(snapshot)
                # Guarded apart: an analysis is not to be lost because what it found before cannot be read.
                previous = self.attempt(f"tracker, reading {name}", self._found_before, name, step)
                findings = self.attempt(name, self._analysed, name, analysis, snapshot, previous)
                # The pass that analyses share is nobody's own cost.
                costs[f"cost/{name}"] = time.perf_counter() - before - (_forward_seconds(snapshot) - shared)
                if findings is not None:
                    found[name] = findings
                    self._previous[name] = step, findings
                    self.attempt(f"tracker, logging {name}", self._log, name, step, findings)
                    self._tell(name, step, findings, previous)
        costs["cost/forward"] = _forward_seconds(snapshot)
        costs["cost/observation"] = time.perf_counter() - started
        if only is None:
            self.overhead.observed(costs["cost/observation"])
        else:
            self.overhead.spent(costs["cost/observation"])
        if (share := self.overhead.share) is not None:
            costs["cost/overhead"] = share
        # What it cost the first time stays: a metric of MLflow cannot be replaced. Offline no training pays for it.
        if only is None and "cost" not in known:
            found["cost"] = Findings(scalars=costs)
            self.attempt("tracker, logging cost", self.tracker.log, "cost", step, found["cost"])
        if time.perf_counter() - self._paged > PAGE_EVERY:
            self.draw()
        return found

    def ask(self, network: Network, step: int, names: Iterable[str]) -> Answers:
        """What these analyses ask of the network at this step, whatever came before; nothing is logged.

        An analysis that fails here is left to `observe`, which reports it.
        """
        snapshot = self._snapshot(network, step)
        with network.undisturbed():
            for name in names:
                with suppress(Exception):
                    self.analyses[name](snapshot.within(name), None)
        return snapshot.answers

    def finish(self, *, failed: bool | None = False) -> None:
        """Draw the time-lapse page and close the record; `failed` where the training ended in an error, None where it was interrupted."""
        self.draw()
        self.attempt("tracker, finishing", self.tracker.finish, failed=failed)

    def report(self, what: str, error: BaseException) -> None:
        """Make a failure known: once in the log and as a tag, whatever the number of steps at which it happens."""
        if what in self._reported:
            return
        self._reported.add(what)
        message = scrubbed(f"{type(error).__name__}: {error}")
        log.warning("netlapse: %s failed, and training goes on without it: %s", what, message)
        log.debug("%s", scrubbed("".join(traceback.format_exception(error))))
        try:
            self.tracker.failure(what, message)
        except Exception as second:  # the report of a failure must not be what ends a training
            log.warning("netlapse: that failure could not be recorded either: %s", scrubbed(str(second)))

    def _analysed(self, name: str, analysis: Analysis, snapshot: Snapshot, previous: Findings | None) -> Findings:
        found = analysis(snapshot.within(name), previous)
        if not isinstance(found, Findings):
            raise TypeError(f"analysis {name!r} returned a {type(found).__name__}; expected netlapse.types.Findings")
        return found

    def _found_before(self, name: str, step: int) -> Findings | None:
        """An analysis' findings at the step before: those it had here, unless the record has later ones."""
        recorded = max((known for known in self.tracker.steps.get(name, ()) if known < step), default=-1)
        last, found = self._previous.get(name, (-1, None))
        return found if recorded <= last < step else self.tracker.latest(name, step)

    def keep(self, checkpoints: Checkpoints, step: int, write: Callable[[Path], None]) -> None:
        """Have `write` write a checkpoint of this step, and name it in the record."""
        self.attempt("checkpoint", checkpoints.save, step, write)
        self.attempt("tracker, naming checkpoints", self.tracker.describe, {"checkpoints": checkpoints.saved})

    def attempt(self, what: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """What the function returns; None where it fails, which is reported under the name `what`, or raised if strict."""
        try:
            return function(*args, **kwargs)
        except Exception as error:  # law: nothing we do can end a training
            if self.strict:
                raise
            self.report(what, error)
            return None

    def draw(self) -> None:
        """Draw the time-lapse page of all that is recorded, and write its tables."""
        from netlapse.report import page
        from netlapse.tables import tables

        def draw() -> None:
            recording = self.tracker.recording()
            if recording.findings:
                for name, columns in tables(recording, self.probe).items():
                    self.tracker.table(name, columns)
                self.tracker.document("timelapse.html", page(recording, self.probe))

        started = time.perf_counter()
        self.attempt("the time-lapse page", draw)
        self._paged = time.perf_counter()
        self.overhead.spent(self._paged - started)

    def _keep_probe(self) -> None:
        self.tracker.document(PROBE, to_bytes(self.probe))
        self.tracker.describe({"probe_kept": self.probe.hash})

    def _log(self, name: str, step: int, findings: Findings) -> None:
        """Log, and remember which later findings were found after others than these."""
        later = min((known for known in self.tracker.steps.get(name, ()) if known > step), default=None)
        outdated = self.tracker.manifest.get("outdated")
        since = outdated.get(name) if isinstance(outdated, Mapping) else None
        if later is not None or since is not None:
            first = min((known for known in (later, since) if known is not None and known != step), default=None)
            self.tracker.describe({"outdated": {name: first}})
        self.tracker.log(name, step, findings)

    def _tell(self, name: str, step: int, findings: Findings, previous: Findings | None) -> None:
        """Make the events of these findings known: in the log what the record does not name yet, and in its manifest."""
        if not tells(findings):
            return
        events = self.tracker.manifest.get("events")
        named = events.get(name) if isinstance(events, Mapping) else None
        for event in (began := begun(findings, previous)):
            if listed([event])[0] not in (named or ()):
                log.warning("netlapse: %s, step %d: %s", name, event.step, scrubbed(event.sentence))
        # Of an earlier step than the last: what stands there now is still the record's.
        if step >= max(self.tracker.steps.get(name, ()), default=step) and (now := listed(events_in(findings))) != named:
            self.attempt("tracker, naming events", self.tracker.describe, {"events": {name: now}})
        if self.on_event is not None:
            for event in began:
                self.attempt("what follows an event", self.on_event, name, event)

    def _snapshot(self, network: Network, step: int, answers: Answers | None = None) -> Snapshot:
        return Snapshot(network, self.probe, step, self.layers, self.grouping, self.batch_size, answers or Answers())


def _cut_off(before: Mapping[str, object], now: Mapping[str, object]) -> bool:
    """Whether a record is of the training that begins now, and was left by a process in which that did not come to an end."""
    same = all(before.get(key) == now.get(key) for key in ("model", "framework", "step_unit"))
    return same and before.get("failed") is None and before.get("process") not in (None, _process())


def _process() -> str:
    """Tells the records that this process has open from those that another one left behind."""
    return f"{_IMPORT}-{os.getpid()}"  # a forked process shares the import


def versions() -> dict[str, str]:
    """The versions of everything that findings may depend on."""
    found = {"netlapse": __version__, "python": platform.python_version()}
    for package in ("numpy", "scipy", "scikit-learn", "torch", "pytorch-lightning", "torchcam", "keras", "tensorflow", "mlflow"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _named(analyses: Mapping[str, Analysis] | Sequence[Analysis]) -> dict[str, Analysis]:
    pairs = list(analyses.items()) if isinstance(analyses, Mapping) else [(_name(analysis), analysis) for analysis in analyses]
    names = [name for name, _ in pairs]
    bad = [name for name in names if not re.fullmatch(r"[A-Za-z0-9_\-]+", name) or names.count(name) > 1 or name in ("cost", "training")]
    if bad:
        raise ValueError(f"analyses cannot be named {bad}; names are letters, digits, '_' and '-', each used once, and not 'cost' or 'training'")
    return dict(pairs)


def _name(function: object) -> str:
    function, _ = _unbound(function)
    return str(getattr(function, "name", getattr(function, "__name__", type(function).__name__)))


def _unbound(function: object) -> tuple[object, dict[str, object]]:
    """A function without its partials, and the keywords they bind."""
    options: dict[str, object] = {}
    while isinstance(function, functools.partial):
        options = {**function.keywords, **options}
        function = function.func
    return function, options


def _fitting(probe: ProbeSet, network: Network) -> tuple[Layer, ...]:
    try:
        return network.describe(probe.inputs[:2])
    except Exception as error:
        raise ValueError(
            f"the network cannot be observed on the probe's inputs of shape (n, {', '.join(map(str, probe.inputs.shape[1:]))}): {error}"
        ) from error


def _asked(analysis: object, layers: Sequence[str], grouping: Grouping) -> dict[str, str]:
    """What makes an analysis' findings what they are, but for the network and the probe, in words."""
    function, options = _unbound(analysis)
    said = {name: _said(value) for name, value in sorted((_defaults(function) | options).items())}
    by = {} if getattr(function, "ungrouped", False) else {"grouping": _name(grouping)}
    return {"analysis": _name(function), "layers": ", ".join(layers)} | by | said


def _said(value: object) -> str:
    """A value in words that are the same in every process; a function with the options it is called with."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_said(item)}' for key, item in value.items())}}}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(_said, value))}]"
    if callable(value):
        function, options = _unbound(value)
        options = {name: option for name, option in sorted((_defaults(function) | options).items()) if name not in ("seed", "previous")}
        return f"{_name(function)}({', '.join(f'{name}={_said(option)}' for name, option in options.items())})"
    return str(value)


def _check_known(name: str, function: object, options: Collection[str]) -> None:
    parameters = _parameters(function)
    unknown = sorted({*options} - {parameter.name for parameter in parameters})
    if unknown and parameters and not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        known = [parameter.name for parameter in parameters[2:]]  # the first two are the snapshot and what was found before
        raise ValueError(f"analysis {name!r} was given {', '.join(unknown)}; its options are {known}")


def _defaults(function: object) -> dict[str, object]:
    """A function's keywords that have a default."""
    return {p.name: p.default for p in _parameters(function) if p.kind is p.KEYWORD_ONLY and p.default is not p.empty}


def _parameters(function: object) -> tuple[inspect.Parameter, ...]:
    """Of a callable; none of one that does not tell."""
    try:
        return tuple(inspect.signature(function).parameters.values())  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return ()


def _listed(manifest: Mapping[str, object], key: str) -> list[Any]:
    value = manifest.get(key)
    return value if isinstance(value, list) else []


def _forward_seconds(snapshot: Snapshot) -> float:
    statistics = snapshot.answers.statistics
    return statistics.seconds if statistics is not None else 0.0
