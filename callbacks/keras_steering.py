"""Steering a Keras training: how its rate is set, its model saved, its end brought about."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import keras

from netlapse.callbacks.keras import CUT, OBSERVERS, ObserverCallback, steps_taken
from netlapse.callbacks.steering import Steering
from netlapse.penalties import penalties_of
from netlapse.tracking.checkpoints import Checkpoints
from netlapse.types import Tracker


class SteeringCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Takes commands while a training runs: pause, resume, stop, checkpoint, observe, lr=0.01 and others; see `netlapse.steering.commands`.

    run          whose commands are taken, and where what was told is recorded: a tracker, or the id of a run in the store of
                 `$MLFLOW_TRACKING_URI`; None: what the training's first ObserverCallback records, else MLflow's active run
    checkpoints  a folder for those that are asked for; None: `steered` in the folder for checkpoints of the record

    Commands are taken between two batches and at the end of an epoch, looked for every two seconds by a thread beside the training. A training
    that is paused and goes on ends bit for bit as without. One that is stopped ends as by Keras's own EarlyStopping, after the batch that was
    about to begin, and its checkpoint is saved then; an epoch that it ends within is not observed, since its weights are no epoch's.

    Before the first batch: ValueError where there is no run to steer or nobody else reaches its record, ConnectionError where its server does not
    answer.
    """

    # Of what is called at batches only their beginning is used: for the end of them Keras would wait for the numbers of each.
    async_safe = True

    def __init__(self, run: Tracker | str | None = None, *, checkpoints: str | Path | None = None) -> None:
        super().__init__()
        self.run, self.checkpoints = run, checkpoints
        self._steering: Steering | None = None
        self._own: Tracker | None = None
        self._epoch, self._over = 0, False
        self._logs: Mapping[str, float] | None = None

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        self.abandon()  # of a training that ended in an error nobody was told

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self._epoch, self._over, self._logs = epoch, False, None

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        if self._steering is None:  # not before: observers open their records when the first epoch begins, in whatever order
            self._open()
        elif self._steering.orders:
            self._steering.attend(self._do, self._where, between=False)
            if self.model.stop_training:
                last = batch + (self.model.steps_per_execution or 1) >= (self.params.get("steps") or float("inf"))
                self.params[CUT] = not last

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self._over, self._logs = not self.params.get(CUT), logs
        if self._steering is not None:
            self._steering.ended(self._do, self._where)
            if self._steering.orders and self._over:
                self._steering.attend(self._do, self._where)

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        self.abandon()

    def abandon(self) -> None:
        """Take no more commands, also of a training that ended in an error or was interrupted, of which Keras tells no callback.

        Called before the next training by itself; `netlapse.training.keras.fit` calls it at once.
        """
        steering, own = self._steering, self._own
        self._steering, self._own = None, None
        if steering is not None:
            steering.close()
        if own is not None:
            own.close()

    def _open(self) -> None:
        tracker, self._own = self._record()
        self._steering = Steering(tracker, ".keras", checkpoints=self.checkpoints)
        print(self._steering.told, flush=True)

    def _record(self) -> tuple[Tracker, Tracker | None]:
        """The record that is steered, and the same where nobody else closes it."""
        if self.run is not None and not isinstance(self.run, str):
            return self.run, None
        from netlapse.tracking.mlflow import MlflowTracker, active_run

        observers = [callback.observer for callback in self._observers() if callback.observer is not None]
        if self.run is not None:
            own = MlflowTracker(self.run)
        elif observers:
            return observers[0].tracker, None
        elif (active := active_run()) is not None:
            own = MlflowTracker(active[1], uri=active[0])
        else:
            raise ValueError(
                "SteeringCallback knows no run to steer: the training has no ObserverCallback and MLflow no active run; "
                "give it one of them, or run=<tracker or id>"
            )
        return own, own

    def _observers(self) -> list[ObserverCallback]:
        return list(self.params.get(OBSERVERS, ()))

    def _where(self) -> tuple[int, int]:
        return steps_taken(self.model), self._epoch + self._over

    def _do(self, task: str, *arguments: object) -> list[object]:
        tasks = {"set": self._set, "observe": self._observe, "save": self._save, "end": self._end, "interrupted": _interrupted}
        return [tasks[task](*arguments)]  # type: ignore[operator]

    def _set(self, name: str, value: float) -> str:
        optimizer = self.model.optimizer
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # of one that scales the loss
        if name not in ("lr", "weight_decay"):
            penalties = penalties_of(self.model)
            if penalties is None:
                raise ValueError(f"{type(self.model).__name__} carries no penalties; train it with netlapse.penalties.Penalties")
            penalties.set(name, value)
            return f"{name} is {value:g}"
        if name == "lr":
            return self._set_rate(optimizer, value)
        before, optimizer.weight_decay = optimizer.weight_decay, value
        self.model.make_train_function(force=True)  # it is a constant of the one that was compiled
        return f"weight_decay is {value:g}, and was {before or 0:g}"

    def _set_rate(self, optimizer: keras.optimizers.Optimizer, value: float) -> str:
        rate = optimizer._learning_rate
        if not isinstance(rate, keras.Variable):
            raise ValueError(f"the rate of {type(optimizer).__name__} is given by a {type(rate).__name__} for every step, and cannot be set")
        before = float(keras.ops.convert_to_numpy(rate))
        optimizer.learning_rate = value
        return f"lr is {value:g}, and was {before:g}; a callback that schedules the rate may change it"

    def _observe(self) -> str:
        said = []
        for observer in self._observers():
            step = observer.ask(self._epoch, self._logs, over=self._over)
            # Where steps are epochs there is no number for the weights within one: step 3 is after 3 of them.
            within = observer.schedule.unit == "epoch" and not self._over
            said.append(f"it will be observed at the end of this epoch, as step {step}" if within else f"observed as step {step}")
        if not said:
            raise ValueError("this training has no ObserverCallback")
        return ", ".join(dict.fromkeys(said))

    def _save(self, checkpoints: Checkpoints, step: int, whole: bool) -> None:
        checkpoints.save(step, self.model.save)  # with the optimizer in it, whole or not, as Keras saves models

    def _end(self, ends: bool) -> None:
        self.model.stop_training = ends


def _interrupted() -> bool:
    return False  # Keras has no way to wait for a batch's end: an interruption is raised in the thread that waits
