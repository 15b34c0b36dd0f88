"""Observing and saving a Keras training: thin adapters, all of whose work is done elsewhere."""

from __future__ import annotations

import atexit
import logging
from collections.abc import Mapping
from pathlib import Path

import keras

from netlapse.backends.keras import KerasNetwork
from netlapse.backends.keras_data import probe_set
from netlapse.callbacks.interruption import Interruption
from netlapse.callbacks.observing import Observing
from netlapse.schedule import Clock, Schedule, Unit, every_epoch
from netlapse.tracking.checkpoints import Checkpoints
from netlapse.types import Tracker

log = logging.getLogger(__name__)

SAMPLING = "netlapse sampling"
"""Among the `params` that all callbacks of a training share: what its epoch is drawn by, for those too that come before whoever draws."""

OBSERVERS, CUT = "netlapse observers", "netlapse cut"
"""Among the same: its ObserverCallbacks, and whether the training was stopped within an epoch, after which the weights are no epoch's."""


class _Scheduled(keras.callbacks.Callback):  # type: ignore[misc]
    """Calls `due(step, logs)` where the training begins and whenever the schedule says so, once per step."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.schedule = schedule
        # Keras calls back from another thread, while the next batch is trained on, unless somebody minds.
        self.async_safe = schedule.unit == "epoch"
        self._clock: Clock | None = None

    def begin(self, epoch: int) -> None:
        """The training is about to begin, with this epoch."""

    def due(self, step: int, metrics: Mapping[str, float]) -> None:
        raise NotImplementedError

    def _step(self, unit: Unit, step: int, logs: Mapping[str, float] | None) -> None:
        if self._clock is not None and self._clock.strikes(unit, step):
            self.due(step, renamed(logs or {}))

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        self._clock = None

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        if self._clock is None:  # the first: before it Keras does not say which one it begins with
            self._clock = Clock(self.schedule)
            self.begin(epoch)
            self._step("epoch", epoch, None)
            self._step("step", steps_taken(self.model), None)

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        if self.schedule.unit == "step":
            self._step("step", steps_taken(self.model), logs)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        if not (self.params or {}).get(CUT):
            self._step("epoch", epoch + 1, with_sampling(self, logs))

    def ask(self, epoch: int, logs: Mapping[str, float] | None, *, over: bool) -> int:
        """Have it called at the next step of the schedule's unit, due or not, which may be now; returns that step.

        epoch  the one that is under way, or, with its `logs`, is over
        """
        assert self._clock is not None
        self._clock.ask()
        step, now = (steps_taken(self.model), True) if self.schedule.unit == "step" else (epoch + 1, over)
        if now:
            self._step(self.schedule.unit, step, with_sampling(self, logs))
        return step


class CheckpointCallback(_Scheduled):
    """Saves the model, as Keras saves it, at each scheduled step, also at step 0.

    folder  where `step_00000012.keras` and the like go; `keras.models.load_model` reads them

    Raises PermissionError before training where the folder cannot be written; a disk that fills up later is reported
    and training goes on.
    """

    def __init__(self, folder: str | Path, schedule: Schedule | None = None) -> None:
        super().__init__(schedule or every_epoch())
        self.checkpoints = Checkpoints(folder, ".keras")

    def due(self, step: int, metrics: Mapping[str, float]) -> None:
        try:
            self.checkpoints.save(step, self.model.save)
        except Exception as error:  # law: nothing we do can end a training
            log.warning("netlapse: no checkpoint of step %d: %s: %s", step, type(error).__name__, error)


class ObserverCallback(Observing, _Scheduled):
    """Observes the model at each scheduled step; training is bit for bit what it is without.

    probe        a ProbeSet; (inputs, labels) as channels-last numpy or as tensors the way the model takes them; or a
                 tf.data.Dataset or PyDataset, of which `per_class` inputs of each class are drawn with `seed`
    analyses     name -> analysis; None: `netlapse.analysis.default_analyses`
    layers       "auto", or names, globs or types
    tracker      None: MLflow's active run if there is one, else a run of its own in the local store
    module       the nested model or layer to observe, by its name; None: the model
    output       which output is the logits, where the model returns several
    channels_first  whether the model takes (n, c, ...); None: see `netlapse.backends.keras.KerasNetwork`
    checkpoints  a folder for a `.keras` file of every observed step; None: none are kept
    strict       raise what fails in an analysis or the tracker, instead of reporting it and training on
    max_overhead  seconds spent observing over seconds spent training, at most: scheduled steps that would cost more are left out, and told
                 in the record; of those only the training's metrics and the checkpoint are kept. None: no limit
    stop_on      kinds of events that end the training once the step is recorded: "changes/plateau", "fairness/*"; none: it is never ended
    save_on      kinds of events: a checkpoint is kept of the steps at which one of them is noticed, and of no others; in `checkpoints`, None:
                 beside the record
    after_event  so many further steps, as the schedule counts them, are observed after one at which an event was noticed, due or not

    A training that goes on (`initial_epoch`, BackupAndRestore) into the record it began goes on with that record: what was
    found at the step it goes on from stays. One that is interrupted by SIGINT or SIGTERM closes its record within seconds;
    SIGTERM, which Keras leaves to the system, ends the process as `sys.exit(143)` does.

    Before the first batch, so that nothing is lost: ValueError for a probe, layers or options that do not fit the model
    and for a record that is another training's, ConnectionError for a server that does not answer, PermissionError for a
    store that cannot be written.
    """

    framework, suffix = "keras", ".keras"
    network: KerasNetwork | None = None
    _interruption: Interruption | None = None

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        super().on_train_begin(logs)
        (self.params or {}).setdefault(OBSERVERS, []).append(self)
        self.abandon()  # of a training that ended in an error nobody was told

    def begin(self, epoch: int) -> None:
        self._interruption = Interruption()
        self._interruption.install()
        model = self.model if self.module is None else self.model.get_layer(self.module)
        self.network = KerasNetwork(model, output=self.output, channels_first=self.channels_first)
        atexit.register(self.abandon)
        goes_on = epoch > 0 or (self.schedule.unit == "step" and steps_taken(self.model) > 0)
        try:
            with self.network.undisturbed():
                probe = probe_set(self.probe, self.network, per_class=self.per_class, seed=self.seed)
                self.open(self.network, type(model).__name__, probe, _own_tracker, goes_on=goes_on)
        except Exception:
            self.abandon()
            raise

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        super().on_epoch_begin(epoch, logs)
        self.begun()

    def due(self, step: int, metrics: Mapping[str, float]) -> None:
        if self.observer is None or self.network is None or self.stop:  # a batch that Keras trains on before it ends is no epoch
            return
        with self.network.undisturbed():
            if self.saves_all:
                self._keep(step)
            self.observe(self.network, step, metrics)
            if self.saves:
                self._keep(step)
        if self.watches and self._clock is not None:
            self._clock.watch(self.watches)
        if self.stop:
            self.model.stop_training = True

    def _keep(self, step: int) -> None:
        assert self.observer is not None
        assert self.checkpoints is not None
        self.observer.keep(self.checkpoints, step, self.model.save)

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        if self._clock is None and self.tracker is not None and steps_taken(self.model) > 0:
            self.begin(int(self.params["epochs"]))  # none was left: it was killed after the last, and its record is still to be closed
        self._finish(failed=False)

    def abandon(self) -> None:
        """Close the record of a training that ended in an error or was interrupted, of which Keras tells no callback.

        Called before the next training and at the end of the process by itself; `netlapse.training.keras.fit` calls it at once.
        """
        self._finish(failed=None if self._interruption is not None and self._interruption.happened else True)

    def _finish(self, *, failed: bool | None) -> None:
        atexit.unregister(self.abandon)
        if self.network is not None:
            with self.network.undisturbed():
                self.close(failed=failed)
        if self._interruption is not None:
            self._interruption.remove()


def renamed(logs: Mapping[str, float]) -> dict[str, float]:
    """Keras's metrics under the names that both frameworks share: `loss` is the training's, `train_loss`."""
    return {name if name.startswith(("val_", "sampling/", "group_dro/")) else f"train_{name}": float(value) for name, value in logs.items()}


def with_sampling(callback: keras.callbacks.Callback, logs: Mapping[str, float] | None) -> dict[str, float]:
    """An epoch's logs, and what it was drawn by, wherever in the list of callbacks this one and the one that draws are."""
    return {**(logs or {}), **(callback.params or {}).get(SAMPLING, {})}


def steps_taken(model: keras.Model) -> int:
    """The number of optimiser steps."""
    return int(model.optimizer.iterations)


def _own_tracker() -> Tracker:
    from netlapse.tracking.mlflow import MlflowTracker, active_run

    run = active_run()
    return MlflowTracker(run[1], uri=run[0]) if run is not None else MlflowTracker()
