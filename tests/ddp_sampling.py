"""Small trainings of several processes that draw adaptively; run as a program, as other processes are forked from it."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor
from torch.utils.data import DataLoader

from netlapse.callbacks.lightning_sampling import AdaptiveSampler, AdaptiveSampling
from tests.ddp_training import Apart, write
from tests.training import Digits, Lit

N, BATCH = 33, 5


class Noted(Digits):
    """Plain images, and a note of which are asked for."""

    def __init__(self) -> None:
        super().__init__(N)
        self.asked: list[int] = []

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        self.asked.append(index)
        return self.images[index], self.targets[index]


class Drawn(pl.Callback):
    """After `AdaptiveSampling`: writes for each epoch what this process trained on, by which weights, and what it had shown before."""

    def __init__(self, folder: Path, sampler: AdaptiveSampler, trained: Noted, shown: Noted) -> None:
        self.folder, self.sampler, self.trained, self.shown = folder, sampler, trained, shown
        self.said: dict[str, object] = {}

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.weights, self.looked = self.sampler.weights.tolist(), list(self.shown.asked)
        self.shown.asked.clear()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        epoch = trainer.current_epoch
        buffers = {name: value.tolist() for name, value in pl_module.named_buffers()}
        self.said[str(epoch)] = {"drawn": list(self.trained.asked), "weights": self.weights, "shown": self.looked, "buffers": buffers}
        self.trained.asked.clear()
        trainer.save_checkpoint(self.folder / f"{epoch}.ckpt")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        write(self.folder, trainer.global_rank, self.said)


def train(folder: Path, *more: pl.Callback, processes: int = 2, epochs: int = 3, resume: Path | None = None) -> None:
    folder.mkdir()
    pl.seed_everything(0, verbose=False)
    sampler, trained, shown = AdaptiveSampler(N, seed=3), Noted(), Noted()
    sampling = AdaptiveSampling(sampler, shown, layer="net.norm2", batch_size=BATCH)
    strategy = DDPStrategy(process_group_backend="gloo", start_method="fork", timeout=timedelta(seconds=60))
    trainer = pl.Trainer(
        max_epochs=epochs, callbacks=[*more, sampling, Drawn(folder, sampler, trained, shown)], strategy=strategy, accelerator="cpu",
        devices=processes, logger=False, enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False,
    )  # fmt: skip
    module = Lit()
    module.net.drop.p = 0  # of whose random state a checkpoint of Lightning holds nothing
    trainer.fit(module, DataLoader(trained, 4, sampler=sampler), ckpt_path=resume)


def main(folder: Path) -> None:
    train(folder / "one", processes=1)
    train(folder / "two")
    train(folder / "three", processes=3)
    train(folder / "gone on", resume=folder / "two" / "0.ckpt")
    train(folder / "apart", Apart())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
