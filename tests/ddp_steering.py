"""Small trainings of two processes that are steered, each of which says how it ended; run as a program, as other processes are forked from it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.strategies import DDPStrategy
from torch.utils.data import DataLoader

import netlapse.callbacks.lightning_steering as lightning_steering
import netlapse.steering.inbox as inbox
from netlapse.callbacks.lightning import ObserverCallback
from netlapse.callbacks.lightning_steering import SteeringCallback
from netlapse.schedule import every_steps
from netlapse.steering import sending
from netlapse.steering.boxes import FolderBox
from netlapse.steering.orders import read_answers
from netlapse.tracking.folder import FolderTracker
from tests.ddp_training import Logging
from tests.steered import Person, arrives
from tests.training import Digits, fingerprint, probe


class Told(pl.Callback):
    """After a batch has commands arrive in the first process; each process notes the rate of each batch."""

    def __init__(self, folder: Path, steering: SteeringCallback, commands: Mapping[int, Sequence[str]]) -> None:
        self.folder, self.steering, self.commands = folder, steering, commands
        self.rates = list[float]()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: object) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])
        steering = self.steering._steering
        for command in self.commands.get(len(self.rates), ()) if steering is not None else ():
            arrives(steering.orders, FolderBox(self.folder / "record"), command)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Logging)
        said = {"fingerprint": fingerprint(pl_module, trainer), "rates": self.rates, "epochs": trainer.current_epoch}
        (self.folder / f"{trainer.global_rank}.json").write_text(json.dumps(said))


def train(folder: Path, commands: Mapping[int, Sequence[str]]) -> None:
    """Two epochs of 5 batches; a process that waits for another fails after 30 seconds."""
    pl.seed_everything(0, verbose=False)
    steering, tracker = SteeringCallback(), FolderTracker(folder / "record")
    strategy = DDPStrategy(process_group_backend="gloo", start_method="fork", timeout=timedelta(seconds=30))
    observer = ObserverCallback(probe(), [], tracker=tracker, schedule=every_steps(100))
    trainer = pl.Trainer(
        max_epochs=2, callbacks=[Told(folder, steering, commands), observer, steering], strategy=strategy, accelerator="cpu", devices=2,
        logger=False, enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(Logging(), DataLoader(Digits(40), 4, shuffle=True), DataLoader(Digits(7), 2))


def main(folder: Path) -> None:
    inbox.POLL_SECONDS = sending.ASK_SECONDS = 0.01
    lightning_steering.AGREE_SECONDS = 1e-9  # after each batch, so that it is known which
    for name, commands in {
        "untouched": {}, "set": {3: ["lr=0.001", "nonsense", "checkpoint", "observe"]}, "stopped": {7: ["stop"]}, "paused": {4: ["pause"]},
    }.items():  # fmt: skip
        own = folder / name
        own.mkdir()
        box = FolderBox(own / "record")
        person = Person(box, ["resume"], before=lambda box=box: read_answers(box.read()).state == "paused") if name == "paused" else None
        try:
            train(own, commands)
            if person is not None:
                person.join()
        except Exception as error:
            (own / "error").write_text(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
