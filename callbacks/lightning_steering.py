"""Steering a Lightning training: how its rate is set, its weights saved, its end brought about, in all of its processes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import MLFlowLogger

from netlapse.backends.torch import restored_random_states
from netlapse.backends.torch_processes import Processes, Task
from netlapse.callbacks.lightning import ObserverCallback, save_together
from netlapse.callbacks.steering import Steering, Where
from netlapse.penalties import penalties_of
from netlapse.tracking.checkpoints import Checkpoints
from netlapse.types import Tracker

AGREE_SECONDS = 1.0
"""Between two questions of several processes to the first one whether something has arrived: they know of no other clock than their batches."""

MOST_BATCHES = 10_000
"""Between two such questions, at most."""


class SteeringCallback(pl.Callback):
    """Takes commands while a training runs: pause, resume, stop, checkpoint, observe, lr=0.01 and others; see `netlapse.steering.commands`.

    run          whose commands are taken, and where what was told is recorded: a tracker, or the id of a run in the store of
                 `$MLFLOW_TRACKING_URI`; None: what the trainer's first ObserverCallback records, else the run of its MLFlowLogger
    checkpoints  a folder for those that are asked for; None: `steered` in the folder for checkpoints of the record

    Commands are taken at the end of a batch and of an epoch, looked for every two seconds by a thread beside the training. A training that
    is paused and goes on ends bit for bit as without. One that is stopped ends as by Lightning's own EarlyStopping, not before the trainer's
    `min_epochs`; an epoch that it ends within is not observed, since its weights are no epoch's.

    In a training of several processes the first one looks, and all act at the end of the same batch: the others ask it once a second or, where
    batches take longer, after each.

    Before the first batch: ValueError where there is no run to steer or nobody else reaches its record, ConnectionError where its server does not
    answer.
    """

    def __init__(self, run: Tracker | str | None = None, *, checkpoints: str | Path | None = None) -> None:
        self.run, self.checkpoints = run, checkpoints
        self._steering: Steering | None = None
        self._own: Tracker | None = None
        self._processes: Processes | None = None
        self._left, self._counted, self._since = 0, 0, 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        with restored_random_states():
            self._processes = Processes()
            self._processes.from_first(partial(self._open, trainer))
        self._left, self._counted, self._since = 0, 0, time.monotonic()

    def _open(self, trainer: pl.Trainer) -> None:
        tracker, self._own = self._record(trainer)
        self._steering = Steering(tracker, ".ckpt", checkpoints=self.checkpoints)
        print(self._steering.told, flush=True)

    def _record(self, trainer: pl.Trainer) -> tuple[Tracker, Tracker | None]:
        """The record that is steered, and the same where nobody else closes it."""
        observers = [callback.observer for callback in _observers(trainer) if callback.observer is not None]
        if isinstance(self.run, str):
            own = _mlflow(self.run, None)
        elif self.run is not None:
            return self.run, None
        elif observers:
            return observers[0].tracker, None
        else:
            loggers = [logger for logger in trainer.loggers if isinstance(logger, MLFlowLogger)]
            if not loggers:
                raise ValueError(
                    "SteeringCallback knows no run to steer: the trainer has no ObserverCallback and no MLFlowLogger; "
                    "give it one of them, or run=<tracker or id>"
                )
            own = _mlflow(str(loggers[0].run_id), loggers[0]._tracking_uri)
        return own, own

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: object) -> None:
        if self._steering is not None and self._processes is not None and self._processes.size == 1:
            if self._steering.orders:
                self._attend(trainer, pl_module)
        elif self._agreed():
            self._attend(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._left = 0
        if (not trainer.should_stop or trainer.is_last_batch) and self._agreed():
            self._attend(trainer, pl_module, epoch_over=True)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        steering, own = self._steering, self._own
        self._steering, self._own, self._processes = None, None, None
        with restored_random_states():
            if steering is not None:
                steering.close()
            if own is not None:
                own.close()

    def _agreed(self) -> bool:
        """Whether something has arrived, at a batch at which all processes ask; how many batches there are to the next is told with the answer."""
        self._left, self._counted = self._left - 1, self._counted + 1
        if self._processes is None or self._left > 0:
            return False
        arrived, self._left = self._processes.from_first(self._arrived)
        self._counted, self._since = 0, time.monotonic()
        return arrived

    def _arrived(self) -> tuple[bool, int]:
        each = max(time.monotonic() - self._since, 1e-9) / max(self._counted, 1)
        return self._steering is not None and bool(self._steering.orders), min(max(round(AGREE_SECONDS / each), 1), MOST_BATCHES)

    def _attend(self, trainer: pl.Trainer, module: pl.LightningModule, *, epoch_over: bool = False) -> None:
        processes, epoch = self._processes, trainer.current_epoch + epoch_over
        assert processes is not None
        tasks: Mapping[str, Task] = {
            "set": partial(_set, trainer, module),
            "observe": partial(_observe, trainer, module, epoch_over),
            "save": partial(_save, trainer),
            "end": partial(_end, trainer),
            "interrupted": lambda: trainer.received_sigterm,
        }
        processes.led(partial(self._lead, processes, lambda: (trainer.global_step, epoch)), tasks)

    def _lead(self, processes: Processes, where: Where) -> None:
        if self._steering is not None:
            self._steering.attend(processes.together, where)


def _observers(trainer: pl.Trainer) -> list[ObserverCallback]:
    return [callback for callback in trainer.callbacks if isinstance(callback, ObserverCallback)]  # type: ignore[attr-defined]


def _mlflow(run_id: str, uri: str | None) -> Tracker:
    from netlapse.tracking.mlflow import MlflowTracker

    return MlflowTracker(run_id, uri=uri)


# ---- what each process does -----------------------------------------------------------------------------------------


def _set(trainer: pl.Trainer, module: pl.LightningModule, name: str, value: float) -> str:
    if name not in ("lr", "weight_decay"):
        penalties = penalties_of(module)
        if penalties is None:
            raise ValueError(f"{type(module).__name__} carries no penalties; train it with netlapse.penalties.Penalties")
        penalties.set(name, value)
        return f"{name} is {value:g}"
    groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups if name in group]
    if not groups:
        raise ValueError(f"no optimizer has {name}; they are {[type(optimizer).__name__ for optimizer in trainer.optimizers]}")
    before = sorted({float(group[name]) for group in groups})
    for group in groups:
        if isinstance(group[name], torch.Tensor):  # of a compiled or capturable optimizer, which holds on to it
            group[name].fill_(value)
        else:
            group[name] = value
    schedulers = sorted({type(config.scheduler).__name__ for config in trainer.lr_scheduler_configs}) if name == "lr" else []
    later = f"; {', '.join(schedulers)} may change it at its next step" if schedulers else ""
    return f"{name} is {value:g} in {len(groups)} parameter group{'s' * (len(groups) > 1)}, and was {', '.join(f'{old:g}' for old in before)}{later}"


def _observe(trainer: pl.Trainer, module: pl.LightningModule, epoch_over: bool) -> str:
    observers = _observers(trainer)
    if not observers:
        raise ValueError("this training has no ObserverCallback")
    said = []
    for observer in observers:
        step = observer.ask(trainer, module, epoch_over=epoch_over)
        # Where steps are epochs there is no number for the weights within one: step 3 is after 3 of them.
        within = observer.schedule.unit == "epoch" and not epoch_over
        said.append(f"it will be observed at the end of this epoch, as step {step}" if within else f"observed as step {step}")
    return ", ".join(dict.fromkeys(said))


def _save(trainer: pl.Trainer, checkpoints: Checkpoints, step: int, whole: bool) -> None:
    with restored_random_states():
        save_together(trainer, checkpoints, step, weights_only=not whole)


def _end(trainer: pl.Trainer, ends: bool) -> None:
    trainer.should_stop |= ends
