"""A Lightning training as its users write it, that can be killed anywhere and started again: see `tests.survival`."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from netlapse.callbacks.lightning import ObserverCallback
from netlapse.tracking.mlflow import MlflowTracker
from tests.survival import EPOCHS, Order, epoch_ends, images, newest, probe, serve


class Small(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu, self.head = nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Linear(4 * 36, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.relu(self.conv(x)).flatten(1))
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        loss = cross_entropy(self(batch[0]), batch[1])
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        self.log("val_loss", cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


class Ends(pl.Callback):
    def __init__(self, order: Order) -> None:
        self.order = order

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        epoch_ends(self.order, trainer.current_epoch)


def train(order: Order) -> None:
    """Go on from the last checkpoint if there is one."""
    pl.seed_everything(0, verbose=False)
    inputs, labels = images()
    data = TensorDataset(torch.from_numpy(np.moveaxis(inputs, -1, 1).copy()), torch.from_numpy(labels))
    tracker = MlflowTracker(order.run_id, uri=order.uri)
    (Path(order.folder) / "run.txt").write_text(tracker.run_id)
    observer = ObserverCallback(probe(), tracker=tracker)
    saved = ModelCheckpoint(order.folder, filename="{epoch:02d}", save_top_k=-1, auto_insert_metric_name=False)
    trainer = pl.Trainer(
        max_epochs=EPOCHS, callbacks=[observer, Ends(order), saved], logger=False, enable_progress_bar=False, enable_model_summary=False,
        num_sanity_val_steps=0,
    )  # fmt: skip
    checkpoint = newest(Path(order.folder).glob("*.ckpt"))
    trainer.fit(Small(), DataLoader(data, 12), DataLoader(data, 24), ckpt_path=checkpoint)


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    serve(train)
