"""Small trainings of several processes, each of which says how it ended; run as a program, as other processes are forked from it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytorch_lightning as pl
import torch
import torchmetrics
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, distributed
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from netlapse.analysis import default_analyses
from netlapse.callbacks.lightning import CheckpointCallback, ObserverCallback
from netlapse.probe import by_label, by_outcome
from netlapse.tracking.folder import FolderTracker
from netlapse.types import Findings, Float32, Int64, ProbeSet, Snapshot
from tests.test_events import noticing
from tests.training import Digits, Lit, fingerprint, probe


class Logging(Lit):
    """Logs metrics whose value is one over all processes, and can be known only if all of them ask for it."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = torchmetrics.MeanMetric()
        self.losses: list[float] = []

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        loss = super().training_step(batch, index)
        self.losses.append(float(loss))
        self.log("loss_of_all", loss.detach(), on_step=False, on_epoch=True, sync_dist=True)
        self.mean.update(loss.detach())
        self.log("mean", self.mean, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        self.log("val_loss", cross_entropy(self(batch[0]), batch[1]), sync_dist=True)


class Unsaved(Logging):
    """Fails to be saved in one of the processes, after one epoch."""

    def __init__(self, process: int) -> None:
        super().__init__()
        self.process = process

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        if distributed.get_rank() == self.process and self.trainer.current_epoch == 1:
            raise LookupError("no luck")


class Report(pl.Callback):
    """Writes what each process is like at the end to `<rank>.json`; the first of the callbacks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shown: list[int] = []  # sizes of the batches that are neither trained nor validated on
        self.buffers: list[dict[str, list[float]]] = []  # before and after each epoch, and so after and before each observation
        self.own = False

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.handle = pl_module.register_forward_pre_hook(lambda module, args: None if self.own else self.shown.append(len(args[0])))

    def on_train_batch_start(self, *args: object) -> None:
        self.own = True

    def on_train_batch_end(self, *args: object) -> None:
        self.own = False

    def on_validation_start(self, *args: object) -> None:
        self.own = True

    def on_validation_end(self, *args: object) -> None:
        self.own = False

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.on_train_epoch_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.buffers.append({name: value.tolist() for name, value in pl_module.named_buffers()})

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Logging)
        self.handle.remove()
        state = fingerprint(pl_module, trainer)
        write(self.folder, trainer.global_rank, {"fingerprint": state, "losses": pl_module.losses, "shown": self.shown, "buffers": self.buffers})


class Ending(ObserverCallback):
    """Writes why it ended a process: what is forked hears of no `on_exception`."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        with self._told(trainer):
            super().on_fit_start(trainer, pl_module)

    def due(self, trainer: pl.Trainer, module: pl.LightningModule, step: int) -> None:
        with self._told(trainer):
            super().due(trainer, module, step)

    @contextmanager
    def _told(self, trainer: pl.Trainer) -> Iterator[None]:
        report = next(callback for callback in trainer.callbacks if isinstance(callback, Report))  # type: ignore[attr-defined]
        try:
            yield
        except Exception as error:
            write(report.folder, trainer.global_rank, {"error": f"{type(error).__name__}: {error}"})
            waited = time.monotonic()  # else whoever ends first has the others killed before they could say why they end
            while len(list(report.folder.glob("[0-9].json"))) < trainer.world_size and time.monotonic() - waited < 40:
                time.sleep(0.02)
            raise


def write(folder: Path, rank: int, said: Mapping[str, object]) -> None:
    unfinished = folder / f".{rank}"
    unfinished.write_text(json.dumps(said))
    unfinished.rename(folder / f"{rank}.json")


def train(folder: Path, *callbacks: pl.Callback, processes: int = 2, made: Callable[[], Logging] = Logging) -> None:
    """Two epochs of 33 inputs, which no number of processes divides, with a validation after the second one.

    A process that waits for another fails after 30 seconds.
    """
    pl.seed_everything(0, verbose=False)
    strategy = DDPStrategy(process_group_backend="gloo", start_method="fork", timeout=timedelta(seconds=30))
    trainer = pl.Trainer(
        max_epochs=2, check_val_every_n_epoch=2, callbacks=[Report(folder), *callbacks], strategy=strategy, accelerator="cpu", devices=processes,
        logger=False, enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(made(), DataLoader(Digits(33), 4, shuffle=True), DataLoader(Digits(7), 2))


# ---- what is tried --------------------------------------------------------------------------------------------------


def untouched(folder: Path) -> None:
    train(folder)


def observing(folder: Path) -> ObserverCallback:
    """The probe's 12 inputs are three batches, of 5, 5 and 2."""
    return ObserverCallback(probe(), tracker=FolderTracker(folder / "record"), checkpoints=folder / "weights", grouping=by_outcome, batch_size=5)


def observed(folder: Path) -> None:
    train(folder, observing(folder))


def three(folder: Path) -> None:
    train(folder, observing(folder), processes=3)


class Apart(pl.Callback):
    """The second process goes on with weights that differ in their last bits."""

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_rank == 1:
            with torch.no_grad():
                for weight in pl_module.parameters():
                    weight.mul_(1 + 1e-6)


def apart(folder: Path) -> None:
    train(folder, Apart(), observing(folder))


class Draws(pl.Callback):
    """Each process would draw another noise, and says which probe it was given."""

    def __init__(self, folder: Path, observer: ObserverCallback) -> None:
        self.folder, self.observer = folder, observer

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        torch.manual_seed(trainer.global_rank)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert self.observer.shared is not None
        (self.folder / f"hash {trainer.global_rank}").write_text(self.observer.shared.probe.hash)


def drawn(folder: Path) -> None:
    observer = ObserverCallback(Digits(), per_class=2, tracker=FolderTracker(folder / "record"))
    train(folder, Draws(folder, observer), observer)


def unlucky(shown: ProbeSet, logits: Float32 | None) -> tuple[Int64, tuple[str, ...]]:
    """A grouping that fails in the second process."""
    if distributed.get_rank() == 1:
        raise LookupError("no luck")
    return by_label(shown, logits)


def broken(snapshot: Snapshot, previous: Findings | None) -> Findings:
    raise LookupError("no luck")


class Full(FolderTracker):
    def log(self, analysis: str, step: int, findings: Findings) -> None:
        raise OSError(28, "No space left on device")


def a_share(folder: Path) -> None:
    train(folder, ObserverCallback(probe(), tracker=FolderTracker(folder / "record"), grouping=unlucky, batch_size=5))


def an_analysis(folder: Path) -> None:
    train(folder, ObserverCallback(probe(), {"broken": broken, **default_analyses(probe())}, tracker=FolderTracker(folder / "record")))


def the_tracker(folder: Path) -> None:
    train(folder, ObserverCallback(probe(), tracker=Full(folder / "record")))


def a_checkpoint_that_is_written_and_cannot_be_kept(folder: Path) -> None:
    for name in ("weights", "others"):
        (folder / name / "step_00000001.ckpt" / "in the way").mkdir(parents=True)
    train(folder, observing(folder), CheckpointCallback(folder / "others"))


def a_checkpoint_of_the_first(folder: Path) -> None:
    train(folder, observing(folder), CheckpointCallback(folder / "others"), made=partial(Unsaved, 0))


def a_checkpoint_of_the_second(folder: Path) -> None:
    train(folder, observing(folder), CheckpointCallback(folder / "others"), made=partial(Unsaved, 1))


def strict_share(folder: Path) -> None:
    train(folder, Ending(probe(), tracker=FolderTracker(folder / "record"), strict=True, grouping=unlucky, batch_size=5))


def strict_analysis(folder: Path) -> None:
    train(folder, Ending(probe(), {"broken": broken}, tracker=FolderTracker(folder / "record"), strict=True))


def strict_tracker(folder: Path) -> None:
    train(folder, Ending(probe(), tracker=Full(folder / "record"), strict=True))


def strict_checkpoint(folder: Path) -> None:
    observer = Ending(probe(), tracker=FolderTracker(folder / "record"), strict=True, checkpoints=folder / "weights")
    train(folder, observer, made=partial(Unsaved, 1))


def layers_that_are_not_there(folder: Path) -> None:
    train(folder, Ending(probe(), tracker=FolderTracker(folder / "record"), layers=["conv9"]))


def stopped(folder: Path) -> None:
    """By an event after the first of two epochs."""
    train(folder, ObserverCallback(probe(), {"bell": partial(noticing, at=(1,))}, tracker=FolderTracker(folder / "record"), stop_on=["bell/alarm"]))


TRIED: Sequence[Callable[[Path], None]] = (
    untouched, observed, three, apart, drawn,
    a_share, an_analysis, the_tracker, a_checkpoint_that_is_written_and_cannot_be_kept, a_checkpoint_of_the_first, a_checkpoint_of_the_second,
    stopped, strict_share, strict_analysis, strict_tracker, strict_checkpoint, layers_that_are_not_there,
)  # fmt: skip


def main(folder: Path, names: Sequence[str]) -> None:
    for attempt in TRIED:
        if names and attempt.__name__ not in names:
            continue
        own = folder / attempt.__name__
        own.mkdir()
        try:
            attempt(own)
        except Exception as error:
            (own / "error").write_text(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
