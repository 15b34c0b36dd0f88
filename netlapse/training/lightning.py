"""Train a classifier with Lightning."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from netlapse.data.dataset import Dataset
from netlapse.training import Metrics, check_choices, surviving
from netlapse.training.remedies import Remedy
from netlapse.types import Array, Int64

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}


class Classifier(pl.LightningModule):
    """A network trained with cross entropy, or with losses of its own; logs loss and accuracy of training and validation per epoch.

    A network has losses of its own where it has a method `input_losses(inputs, labels)`; see `losses` here for what it returns. Its
    numbers are logged beside the loss.
    """

    def __init__(
        self, network: nn.Module, *, optimizer: str = "adam", learning_rate: float = 1e-3, weight_decay: float = 0.0, momentum: float = 0.0
    ) -> None:
        super().__init__()
        self.network = network
        self.optimizer, self.learning_rate, self.weight_decay, self.momentum = optimizer, learning_rate, weight_decay, momentum

    def forward(self, inputs: Tensor) -> Tensor:
        logits = self.network(inputs)
        assert isinstance(logits, Tensor)
        return logits

    def losses(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Mapping[str, Tensor]]:
        """Of one forward: (n,) the loss of each input, whose mean is trained on, (n, k) the logits, and numbers worth a curve, by name."""
        own = getattr(self.network, "input_losses", None)
        if own is not None:
            found: tuple[Tensor, Tensor, Mapping[str, Tensor]] = own(inputs, labels)
            return found
        logits = self(inputs)
        return cross_entropy(logits, labels, reduction="none"), logits, {}

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        return self._shared_step(batch, "train")

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> None:
        self._shared_step(batch, "val")

    def _shared_step(self, batch: tuple[Tensor, Tensor], part: str) -> Tensor:
        inputs, labels = batch
        losses, logits, numbers = self.losses(inputs, labels)
        loss = losses.mean()
        said = {"loss": loss, "accuracy": (logits.argmax(dim=1) == labels).float().mean(), **numbers}
        self.log_dict({f"{part}_{name}": value for name, value in said.items()}, on_step=False, on_epoch=True, batch_size=len(labels), prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        options = {"momentum": self.momentum} if self.optimizer == "sgd" else {}
        kind: type[torch.optim.Optimizer] = OPTIMIZERS[self.optimizer]
        return kind(self.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay, **options)  # type: ignore[call-arg, arg-type]


class _Told(Logger):
    """A Lightning logger that hands metrics on, and survives whoever takes them."""

    def __init__(self, metrics: Metrics) -> None:
        super().__init__()
        self._metrics = surviving(metrics)

    @property
    def name(self) -> None:
        return None

    @property
    def version(self) -> None:
        return None

    def log_hyperparams(self, *args: object, **kwargs: object) -> None:
        pass  # the config is a document of the record

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._metrics({name: float(value) for name, value in metrics.items()}, step or 0)


def seed_everything(seed: int) -> None:
    """Seed Python's, numpy's and torch's global random states."""
    pl.seed_everything(seed, verbose=False)


def fit(
    network: nn.Module,
    data: Dataset,
    *,
    callbacks: Sequence[pl.Callback] = (),
    max_epochs: int = 10,
    batch_size: int = 64,
    optimizer: str = "adam",
    learning_rate: float = 1e-3,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    seed: int = 0,
    metrics: Metrics | None = None,
    progress: bool = True,
    remedy: Remedy | None = None,
    options: Mapping[str, object] | None = None,
) -> pl.Trainer:
    """Train the network on `data`, validate on its test part after each epoch, and return the trainer.

    metrics  is told the training's metrics and the optimiser's step; what it raises is reported once and ends nothing
    remedy   what is changed for the sake of small groups, see `netlapse.training.remedies`; None: nothing
    options  more arguments of `pytorch_lightning.Trainer`

    Raises ValueError for a number of epochs or a batch size below 1, an unknown optimizer, a learning rate not above 0.
    """
    check_choices(max_epochs, batch_size, optimizer, learning_rate, OPTIMIZERS)
    if remedy is not None:
        raise ValueError(f"remedy is {remedy}, which is not there in Lightning yet; expected none")
    seed_everything(seed)
    module = Classifier(network, optimizer=optimizer, learning_rate=learning_rate, weight_decay=weight_decay, momentum=momentum)
    train = DataLoader(_tensors(data.train_inputs, data.train_labels), batch_size, shuffle=True, generator=torch.Generator().manual_seed(seed))
    test = DataLoader(_tensors(data.test_inputs, data.test_labels), 256)
    with warnings.catch_warnings():
        # The data are tensors in memory: worker processes would only copy them.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*The number of training batches.*")
        trainer = pl.Trainer(
            max_epochs=max_epochs,
            callbacks=list(callbacks),
            logger=_Told(metrics) if metrics is not None else False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=progress,
            log_every_n_steps=50,
            num_sanity_val_steps=0,
            **(options or {}),  # type: ignore[arg-type]
        )
        trainer.fit(module, train, test)
    return trainer


def _tensors(inputs: Array, labels: Int64) -> TensorDataset:
    """Channels-last arrays (n, h, w, c) as torch's networks take them."""
    array = np.moveaxis(inputs, -1, 1) if inputs.ndim > 2 else inputs
    return TensorDataset(torch.from_numpy(np.ascontiguousarray(array)), torch.from_numpy(np.ascontiguousarray(labels)))


# Lightning tells at every start which accelerators it found and which tips it has.
logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
