"""Observing and saving a Lightning training: thin adapters, all of whose work is done elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import MLFlowLogger
from pytorch_lightning.strategies import (
    DDPStrategy,
    DeepSpeedStrategy,
    FSDPStrategy,
    ModelParallelStrategy,
    SingleDeviceStrategy,
    Strategy,
)
from pytorch_lightning.strategies.xla import XLAStrategy

from netlapse.backends.torch import TorchNetwork, restored_random_states
from netlapse.backends.torch_data import probe_set
from netlapse.backends.torch_processes import Processes, Task
from netlapse.backends.torch_shared import SharedPass
from netlapse.callbacks.observing import Observing
from netlapse.schedule import Clock, Schedule, Unit, every_epoch
from netlapse.tracking.checkpoints import Checkpoints
from netlapse.types import Answers, ProbeSet, Tracker

log = logging.getLogger(__name__)


class _Scheduled(pl.Callback):
    """Calls `due(trainer, module, step)` where the training begins and whenever the schedule says so, once per step."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self._clock = Clock(schedule)

    def due(self, trainer: pl.Trainer, module: pl.LightningModule, step: int) -> None:
        raise NotImplementedError

    def _step(self, trainer: pl.Trainer, module: pl.LightningModule, unit: Unit, step: int) -> None:
        if self._clock.strikes(unit, step):
            self.due(trainer, module, step)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._clock = Clock(self.schedule)
        if not trainer.fit_loop.restarted_mid_epoch:  # there the weights are no epoch's
            self._step(trainer, pl_module, "epoch", trainer.current_epoch)
        self._step(trainer, pl_module, "step", trainer.global_step)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: object) -> None:
        self._step(trainer, pl_module, "step", trainer.global_step)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.should_stop or trainer.is_last_batch:  # else it was stopped within the epoch, and the weights are no epoch's
            self._step(trainer, pl_module, "epoch", trainer.current_epoch + 1)

    def ask(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *, epoch_over: bool) -> int:
        """Have it called at the next step of the schedule's unit, due or not, which may be now; returns that step."""
        self._clock.ask()
        step, now = (trainer.global_step, True) if self.schedule.unit == "step" else (trainer.current_epoch + 1, epoch_over)
        if now:
            self._step(trainer, pl_module, self.schedule.unit, step)
        return step


class CheckpointCallback(_Scheduled):
    """Saves a plain Lightning checkpoint, weights only, at each scheduled step, also at step 0.

    folder  where `step_00000012.ckpt` and the like go; `torch.load(path, weights_only=True)` reads them

    Raises PermissionError before training where the folder cannot be written; a disk that fills up later is reported
    and training goes on.
    """

    def __init__(self, folder: str | Path, schedule: Schedule | None = None) -> None:
        super().__init__(schedule or every_epoch())
        self.checkpoints = Checkpoints(folder, ".ckpt")

    def due(self, trainer: pl.Trainer, module: pl.LightningModule, step: int) -> None:
        try:
            _save_weights(trainer, self.checkpoints, step)
        except Exception as error:  # law: nothing we do can end a training
            log.warning("netlapse: no checkpoint of step %d: %s: %s", step, type(error).__name__, error)


class ObserverCallback(Observing, _Scheduled):
    """Observes the network at each scheduled step; training is bit for bit what it is without.

    probe        a ProbeSet; (inputs, labels) as torch tensors the way the network takes them or as channels-last numpy;
                 or a map-style torch Dataset, of which `per_class` inputs of each class are drawn with `seed`
    analyses     name -> analysis; None: `netlapse.analysis.default_analyses`
    layers       "auto", or names, globs or types
    tracker      None: the run of the trainer's MLFlowLogger if it has one, else a run of its own in the local store
    module       the submodule to observe, by its name; None: the LightningModule itself, through its `forward`
    output       which output is the logits, where `forward` returns several
    channels_first  whether the network takes (n, c, ...); None: see `netlapse.backends.torch.TorchNetwork`
    checkpoints  a folder for a weights-only checkpoint of every observed step; None: none are kept
    strict       raise what fails in an analysis or the tracker, instead of reporting it and training on
    max_overhead  seconds spent observing over seconds spent training, at most: scheduled steps that would cost more are left out, and told
                 in the record; of those only the training's metrics and the checkpoint are kept. None: no limit
    stop_on      kinds of events that end the training once the step is recorded: "changes/plateau", "fairness/*"; none: it is never ended
    save_on      kinds of events: a checkpoint is kept of the steps at which one of them is noticed, and of no others; in `checkpoints`, None:
                 beside the record
    after_event  so many further steps, as the schedule counts them, are observed after one at which an event was noticed, due or not

    A training that goes on from a checkpoint, into the record it began, goes on with that record: what was found at the
    step of the checkpoint stays. Several of these callbacks write to a record each; only the first one to the logger's run.

    A training that is stopped by an event ends as by Lightning's own EarlyStopping: not before the trainer's `min_epochs`, and in all processes.

    Before the first batch, so that nothing is lost: ValueError for a probe, layers or options that do not fit the network
    and for a record that is another training's, ConnectionError for a server that does not answer, PermissionError for a
    store that cannot be written; in `setup` ValueError for a strategy under which no process holds the whole network.

    Under DDP all processes share the forward pass of the probe, batch by batch, and the first one does the rest while the
    others wait (at most the strategy's `timeout`, half an hour, as for any exchange of the training). It is the first
    process's network that is observed, with its buffers and its draw of a data set, so that findings are bit for bit what
    one process finds with as many threads and what its checkpoint gives offline.
    """

    framework, suffix = "torch", ".ckpt"
    shared: SharedPass | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit":
            _check(trainer.strategy)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        with restored_random_states():
            processes = Processes()
            network = TorchNetwork(submodule(pl_module, self.module), output=self.output, channels_first=self.channels_first)
            probe = processes.from_first(partial(self._open, trainer, network))
            self.shared = SharedPass(processes, network, probe, self.grouping, self.batch_size)

    def _open(self, trainer: pl.Trainer, network: TorchNetwork) -> ProbeSet:
        probe = probe_set(self.probe, network, per_class=self.per_class, seed=self.seed)  # type: ignore[arg-type]  # it raises for others
        goes_on = trainer.ckpt_path is not None or trainer.global_step > 0
        self.open(network, type(network.module).__name__, probe, partial(self._own_tracker, trainer), goes_on=goes_on)
        return probe

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self.begun()

    def due(self, trainer: pl.Trainer, module: pl.LightningModule, step: int) -> None:
        if (shared := self.shared) is not None:
            tasks: dict[str, Task] = {"checkpoint": partial(_save_weights, trainer), "metrics": partial(_metrics, trainer), **shared.tasks}
            with restored_random_states():
                shared.processes.led(partial(self._observe, shared, step), tasks)
                if self.stop_on:
                    trainer.should_stop |= shared.processes.from_first(lambda: self.stop)
                if self.after_event and (steps := shared.processes.from_first(lambda: self.watches)):
                    self._clock.watch(steps)

    def _observe(self, shared: SharedPass, step: int) -> None:
        """In the first process; in all of them only what is asked for together."""
        if self.observer is None:
            return
        together, attempt = shared.processes.together, self.observer.attempt
        if self.saves_all:
            self._keep(shared, step)
        metrics = attempt("the training's metrics", together, "metrics") or [{}]
        answers = Answers(show=shared.show) if shared.processes.size > 1 else None
        self.observe(shared.network, step, cast(Mapping[str, float], metrics[0]), answers)
        if self.saves:
            self._keep(shared, step)

    def _keep(self, shared: SharedPass, step: int) -> None:
        assert self.observer is not None
        assert self.checkpoints is not None
        self.observer.attempt("checkpoint", shared.processes.together, "checkpoint", self.checkpoints, step)
        self.observer.attempt("tracker, naming checkpoints", self.observer.tracker.describe, {"checkpoints": self.checkpoints.saved})

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        with restored_random_states():
            self.close(failed=False)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        with restored_random_states():
            # Others, KeyboardInterrupt and what SIGTERM raises, say that somebody ends the process.
            self.close(failed=True if isinstance(exception, Exception) else None)

    def _own_tracker(self, trainer: pl.Trainer) -> Tracker:
        from netlapse.tracking.mlflow import MlflowTracker

        first = next(callback for callback in trainer.callbacks if isinstance(callback, ObserverCallback)) is self  # type: ignore[attr-defined]
        for logger in trainer.loggers:
            if first and isinstance(logger, MLFlowLogger):
                return MlflowTracker(logger.run_id, uri=logger._tracking_uri)
        return MlflowTracker()


def submodule(module: pl.LightningModule, name: str | None) -> torch.nn.Module:
    if name is None:
        return module
    try:
        return module.get_submodule(name)
    except AttributeError as error:
        raise ValueError(f"module {name!r} is not in {type(module).__name__}; it has {[child for child, _ in module.named_children()]}") from error


def _check(strategy: Strategy) -> None:
    if isinstance(strategy, (FSDPStrategy, ModelParallelStrategy, DeepSpeedStrategy)):
        reason = "each process may hold a part of each weight, and none the network that is to be observed"
    elif isinstance(strategy, XLAStrategy):
        reason = "its processes are joined by torch_xla, and findings are exchanged by torch.distributed"
    elif not isinstance(strategy, (SingleDeviceStrategy, DDPStrategy)):
        reason = "whether each process holds the whole network is not known of it"
    else:
        return
    raise ValueError(
        f"ObserverCallback cannot observe under {type(strategy).__name__}: {reason}; "
        "train on one device or with DDP, or save checkpoints and observe those offline"
    )


def _metrics(trainer: pl.Trainer) -> dict[str, float]:
    """Asked for in every process, because what a metric was in all of them may only now be computed."""
    return {name: float(value) for name, value in trainer.callback_metrics.items() if torch.as_tensor(value).numel() == 1}


def _save_weights(trainer: pl.Trainer, checkpoints: Checkpoints, step: int) -> None:
    save_together(trainer, checkpoints, step, weights_only=True)


def save_together(trainer: pl.Trainer, checkpoints: Checkpoints, step: int, *, weights_only: bool) -> None:
    """To be called in every process; the first one writes."""
    save = partial(_save, trainer, weights_only)
    if trainer.is_global_zero:
        checkpoints.save(step, save)
    else:
        save(checkpoints.path(step))


def _save(trainer: pl.Trainer, weights_only: bool, path: Path) -> None:
    try:
        trainer.save_checkpoint(path, weights_only=weights_only)
    except Exception:
        trainer.strategy.barrier()  # the one that Lightning did not come to; the other processes wait there
        raise
