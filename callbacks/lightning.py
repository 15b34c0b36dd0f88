"""Observing and saving a Lightning training: thin adapters, all of whose work is done elsewhere."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import MLFlowLogger

from netlapse.backends.torch import TorchNetwork, restored_random_states
from netlapse.backends.torch_data import probe_set
from netlapse.callbacks.observing import Observing
from netlapse.schedule import Clock, Schedule, Unit, every_epoch
from netlapse.tracking.checkpoints import Checkpoints
from netlapse.types import Tracker

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
        self._step(trainer, pl_module, "epoch", trainer.current_epoch + 1)


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

    A training that goes on from a checkpoint, into the record it began, goes on with that record: what was found at the
    step of the checkpoint stays. Several of these callbacks write to a record each; only the first one to the logger's run.

    Before the first batch, so that nothing is lost: ValueError for a probe, layers or options that do not fit the network
    and for a record that is another training's, ConnectionError for a server that does not answer, PermissionError for a
    store that cannot be written. Under DDP the first process observes; the others go on to the next batch and wait there.
    """

    framework, suffix = "torch", ".ckpt"
    network: TorchNetwork | None = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        with restored_random_states():
            self.network = TorchNetwork(_submodule(pl_module, self.module), output=self.output, channels_first=self.channels_first)
            probe = probe_set(self.probe, self.network, per_class=self.per_class, seed=self.seed)  # type: ignore[arg-type]  # it raises for others
            model, goes_on = type(self.network.module).__name__, trainer.ckpt_path is not None or trainer.global_step > 0
            self.open(self.network, model, probe, partial(self._own_tracker, trainer), goes_on=goes_on)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self.begun()

    def due(self, trainer: pl.Trainer, module: pl.LightningModule, step: int) -> None:
        with restored_random_states():
            self._save(trainer, step)  # on every process: Lightning's saving waits for all of them
            if self.observer is None or self.network is None:
                return
            metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if torch.as_tensor(value).numel() == 1}
            self.observe(self.network, step, metrics)

    def _save(self, trainer: pl.Trainer, step: int) -> None:
        if self.checkpoints is None:
            return
        if self.observer is None:
            _save_weights(trainer, self.checkpoints, step)
        else:
            self.observer.attempt("checkpoint", _save_weights, trainer, self.checkpoints, step)
            self.observer.attempt("tracker, naming checkpoints", self.observer.tracker.describe, {"checkpoints": self.checkpoints.saved})

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        with restored_random_states():
            self.close(failed=False)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        with restored_random_states():
            self.close(failed=True)

    def _own_tracker(self, trainer: pl.Trainer) -> Tracker:
        from netlapse.tracking.mlflow import MlflowTracker

        first = next(callback for callback in trainer.callbacks if isinstance(callback, ObserverCallback)) is self  # type: ignore[attr-defined]
        for logger in trainer.loggers:
            if first and isinstance(logger, MLFlowLogger):
                return MlflowTracker(logger.run_id, uri=logger._tracking_uri)
        return MlflowTracker()


def _submodule(module: pl.LightningModule, name: str | None) -> torch.nn.Module:
    if name is None:
        return module
    try:
        return module.get_submodule(name)
    except AttributeError as error:
        raise ValueError(f"module {name!r} is not in {type(module).__name__}; it has {[child for child, _ in module.named_children()]}") from error


def _save_weights(trainer: pl.Trainer, checkpoints: Checkpoints, step: int) -> None:
    if not trainer.is_global_zero:
        trainer.save_checkpoint(checkpoints.path(step), weights_only=True)  # writes nothing here, takes part in the barrier
        return
    try:
        checkpoints.save(step, lambda path: trainer.save_checkpoint(path, weights_only=True))
    except Exception:
        trainer.strategy.barrier()  # the one that Lightning did not come to; the other processes wait there
        raise
