"""A Keras training as its users write it, that can be killed anywhere and started again: see `tests.survival`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras

from netlapse.callbacks.keras import ObserverCallback
from netlapse.tracking.mlflow import MlflowTracker
from tests.survival import EPOCHS, Order, epoch_ends, images, probe, serve


class Backup(keras.callbacks.BackupAndRestore):  # type: ignore[misc]
    """Keras's own writes weights and epoch one after the other into one folder: killed in between, it restores one epoch's
    weights as another's. Here a folder is written whole, and a link then moved to it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder / "backup"), delete_checkpoint=False)
        self._folder = folder

    def _save_model(self) -> None:
        link, whole = self.backup_dir, self._folder / f"backup_{self._current_epoch:02d}"
        of_this = keras.callbacks.BackupAndRestore(str(whole), delete_checkpoint=False)
        of_this.set_model(self.model)
        of_this._current_epoch = self._current_epoch
        of_this._save_model()
        new = self._folder / "backup.new"
        new.unlink(missing_ok=True)
        new.symlink_to(whole)
        new.replace(link)


class Ends(keras.callbacks.Callback):  # type: ignore[misc]
    def __init__(self, order: Order) -> None:
        super().__init__()
        self.order = order

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        epoch_ends(self.order, epoch)


def train(order: Order) -> None:
    """Go on from the last backup if there is one."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(4, 3, activation="relu", name="conv"), layers.Flatten(), layers.Dense(3)])
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    tracker = MlflowTracker(order.run_id, uri=order.uri)
    (Path(order.folder) / "run.txt").write_text(tracker.run_id)
    observer = ObserverCallback(probe(), tracker=tracker)
    backup = Backup(Path(order.folder))
    inputs, labels = images()
    callbacks = [observer, Ends(order), backup]
    model.fit(inputs, labels, batch_size=12, epochs=EPOCHS, shuffle=False, validation_data=(inputs, labels), callbacks=callbacks, verbose=0)


if __name__ == "__main__":
    serve(train)
