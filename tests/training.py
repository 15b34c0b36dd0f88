"""A small Lightning training in which everything that could be disturbed is there."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset

from netlapse.types import ProbeSet


class Digits(Dataset[tuple[Tensor, int]]):
    """Random images whose augmentation draws from torch's global random state, as torchvision's do."""

    def __init__(self, n: int = 48) -> None:
        generator = torch.Generator().manual_seed(1)
        self.images, self.targets = torch.rand(n, 1, 8, 8, generator=generator), [i % 3 for i in range(n)]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index] + 0.01 * torch.randn(1), self.targets[index]


class Net(nn.Module):
    """Dropout, batch norms of which one is frozen, an in-place activation, a module used twice, and a submodule kept in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1, self.relu = nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True)
        self.conv2, self.norm2 = nn.Conv2d(6, 8, 3), nn.BatchNorm2d(8)
        self.drop, self.quiet, self.head = nn.Dropout(0.5), nn.Dropout(0.5), nn.Linear(8 * 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm1(self.conv1(x)))
        x = self.relu(self.norm2(self.conv2(x)))
        logits: Tensor = self.head(self.quiet(self.drop(x.flatten(1))))
        return logits


class Lit(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = Net()
        self.seen = hashlib.sha256()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        return logits

    def on_train_epoch_start(self) -> None:
        self.net.norm1.eval()
        self.net.quiet.eval()

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        x, y = batch
        self.seen.update(x.numpy().tobytes())
        loss = cross_entropy(self(x), y)
        self.log("train_loss", loss, on_epoch=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        self.log("val_loss", cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.9)]


def probe(n: int = 12) -> ProbeSet:
    rng = np.random.default_rng(0)
    return ProbeSet(rng.random((n, 8, 8, 1), np.float32), np.arange(n) % 3, ("ring", "stroke", "dot"))


def train(
    callbacks: Sequence[pl.Callback] = (), *, module: Lit | None = None, epochs: int = 2, workers: int = 0, **options: Any
) -> tuple[Lit, pl.Trainer]:
    """Train from one seed; everything else being equal, two trainings are equal bit for bit."""
    pl.seed_everything(0, verbose=False)
    module = module or Lit()
    loader = DataLoader(Digits(), 8, shuffle=True, num_workers=workers, persistent_workers=False)
    settings: dict[str, Any] = {"accumulate_grad_batches": 2, "logger": False, "enable_progress_bar": False, "num_sanity_val_steps": 0}
    trainer = pl.Trainer(max_epochs=epochs, callbacks=list(callbacks), enable_checkpointing=False, enable_model_summary=False, **(settings | options))
    trainer.fit(module, loader, DataLoader(Digits(12), 6))
    return module, trainer


def fingerprint(module: Lit, trainer: pl.Trainer) -> dict[str, str]:
    """A hash each of the weights, the optimizer, the metrics, the data the training saw, the modes, and the random states after it."""
    optimizer = trainer.optimizers[0].state_dict()
    momenta = [entry["momentum_buffer"] for entry in optimizer["state"].values()]
    return {
        "weights": _hash(*module.state_dict().values()),
        "optimizer": _hash(*momenta) + str(optimizer["param_groups"]),
        "metrics": str({name: float(value) for name, value in trainer.callback_metrics.items()}),
        "data": module.seen.hexdigest(),
        "modes": str([(name, m.training) for name, m in module.named_modules()]),
        "gradients": _hash(*[p.grad for p in module.parameters() if p.grad is not None]),
        "hooks": str([len(m._forward_hooks) + len(m._backward_hooks) + len(m._forward_pre_hooks) for m in module.modules()]),
        "random states": _hash(torch.get_rng_state()) + str(hash(np.random.get_state()[1].tobytes())),  # type: ignore[union-attr]  # noqa: NPY002
    }


def _hash(*tensors: Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()
