"""Train a classifier with Lightning."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from netlapse.callbacks.lightning_sampling import AdaptiveSampler, AdaptiveSampling
from netlapse.callbacks.sampling import told
from netlapse.data.dataset import Dataset
from netlapse.penalties import Penalties
from netlapse.training import Metrics, check_choices, surviving
from netlapse.training.penalised import Penalised, right_reasons
from netlapse.training.penalty import Penalty, check_together
from netlapse.training.remedies import (
    JTT,
    Adaptive,
    Bools,
    GroupBalanced,
    GroupDRO,
    Remedy,
    errors,
    group_balanced_weights,
    group_dro_shares,
    group_dro_weights,
    groups_of,
    told_groups,
    upweighted,
)
from netlapse.types import Array, Float64, Int64

log = logging.getLogger(__name__)

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}


class Classifier(pl.LightningModule):
    """A network trained with cross entropy, or with losses of its own; logs loss and accuracy of training and validation per epoch.

    A network has losses of its own where it has a method `input_losses(inputs, labels)`; see `losses` here for what it returns. Its
    numbers are logged beside the loss.

    penalties  by which the losses of inputs count, of training and validation alike; None: all once
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        optimizer: str = "adam",
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        penalties: Penalties | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.penalised = None if penalties is None else Penalised(cross_entropy, penalties)
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

    def batch_loss(self, losses: Tensor) -> Tensor:
        """What a batch is trained on, of the losses (n,) of its inputs."""
        return losses.mean()

    def step_loss(self, inputs: Tensor, labels: Tensor, *more: Tensor) -> tuple[Tensor, Tensor, Mapping[str, Tensor]]:
        """What a batch is trained on, of one forward, and the rest of what `losses` returns; more: what a batch has beside these."""
        losses, logits, numbers = self.losses(inputs, labels)
        if self.penalised is not None:
            losses = self.penalised.weigh(losses, logits, labels)
        return self.batch_loss(losses, *more), logits, numbers

    def training_step(self, batch: Sequence[Tensor], batch_index: int) -> Tensor:
        return self._shared_step(batch, "train")

    def validation_step(self, batch: Sequence[Tensor], batch_index: int) -> None:
        self._shared_step(batch, "val")

    def _shared_step(self, batch: Sequence[Tensor], part: str) -> Tensor:
        inputs, labels, *more = batch
        loss, logits, numbers = self.step_loss(inputs, labels, *more)
        said = {"loss": loss, "accuracy": (logits.argmax(dim=1) == labels).float().mean(), **numbers}
        self.log_dict({f"{part}_{name}": value for name, value in said.items()}, on_step=False, on_epoch=True, batch_size=len(labels), prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        options = {"momentum": self.momentum} if self.optimizer == "sgd" else {}
        kind: type[torch.optim.Optimizer] = OPTIMIZERS[self.optimizer]
        return kind(self.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay, **options)  # type: ignore[call-arg, arg-type]


class GroupDROClassifier(Classifier):
    """Trained on the groups' losses, of which the worst count most; a training batch has (n,) groups as its third part.

    See `netlapse.training.remedies.group_dro_weights`. Under DDP a batch is that of all processes together. Each group's weight is logged per
    epoch as `group_dro/weight/<group>`; checkpoints have it.
    """

    group_weights: Tensor

    def __init__(self, network: nn.Module, groups: Sequence[str], step_size: float, **options: Any) -> None:
        super().__init__(network, **options)
        self.groups, self.step_size = groups, step_size
        self.register_buffer("group_weights", torch.full((len(groups),), 1 / len(groups)))

    def batch_loss(self, losses: Tensor, groups: Tensor | None = None) -> Tensor:
        if groups is None:  # of validation
            return losses.mean()
        totals = torch.zeros(2, len(self.groups), device=losses.device)
        totals.index_add_(1, groups, torch.stack([losses.detach().float(), torch.ones_like(losses, dtype=torch.float32)]))
        sums, sizes = (row.double().cpu().numpy() for row in self.trainer.strategy.reduce(totals, reduce_op="sum"))
        weights = group_dro_weights(self.group_weights.double().cpu().numpy(), sums, sizes, self.step_size)
        self.group_weights.copy_(torch.from_numpy(weights))
        shares = torch.from_numpy(group_dro_shares(weights, groups.cpu().numpy(), sizes)).to(losses)
        return (shares * losses).sum() * self.trainer.world_size  # DDP takes the mean over processes

    def on_train_epoch_end(self) -> None:
        for name, weight in zip(self.groups, self.group_weights):
            self.log(f"group_dro/weight/{name}", weight)


class RightReasonsClassifier(Classifier):
    """Trained to look inside of masks; a training batch has masks (n, h, w) as its third part.

    See `netlapse.training.penalised.right_reasons`, whose mean over the inputs is added `weight` times and logged as `train_right_reasons`.
    """

    def __init__(self, network: nn.Module, weight: float, **options: Any) -> None:
        super().__init__(network, **options)
        self.weight = weight

    def step_loss(self, inputs: Tensor, labels: Tensor, *more: Tensor) -> tuple[Tensor, Tensor, Mapping[str, Tensor]]:
        if not more:  # of validation
            return super().step_loss(inputs, labels)
        inputs = inputs.detach().requires_grad_()
        loss, logits, numbers = super().step_loss(inputs, labels)
        outside = right_reasons(logits, inputs, more[0]).mean()
        return loss + self.weight * outside, logits, {**numbers, "right_reasons": outside.detach()}


class FixedSampling(pl.Callback):
    """Tells of a draw by weights that stay what `AdaptiveSampling` tells of one by weights that change."""

    def __init__(self, sampler: AdaptiveSampler, groups: Mapping[str, Array]) -> None:
        self.sampler, self.groups = sampler, groups

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for name, value in told(self.sampler.weights, self.groups).items():
            pl_module.log(name, value, rank_zero_only=True)


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
    penalty: Penalty | None = None,
    options: Mapping[str, object] | None = None,
) -> pl.Trainer:
    """Train the network on `data`, validate on its test part after each epoch, and return the trainer.

    metrics  is told the training's metrics and the optimiser's step; what it raises is reported once and ends nothing
    remedy   what is changed for the sake of small groups, see `netlapse.training.remedies`; None: nothing
    penalty  what counts how often to begin with, and where to look, see `netlapse.training.penalty`. None: everything once, to be changed while
             it trains by `netlapse.penalties.penalties_of` the module, but with group DRO, which weighs losses itself
    options  more arguments of `pytorch_lightning.Trainer`

    Raises ValueError for a number of epochs or a batch size below 1, an unknown optimizer, a learning rate not above 0, a remedy that goes by
    an attribute which the training inputs, or some of them, have not got, and what `Penalty` does of these data, or together with group DRO.
    """
    check_choices(max_epochs, batch_size, optimizer, learning_rate, OPTIMIZERS)
    settings: dict[str, Any] = {"optimizer": optimizer, "learning_rate": learning_rate, "weight_decay": weight_decay, "momentum": momentum}
    check_together(penalty, remedy)
    chosen = penalty or Penalty()
    penalties, masks = chosen.penalties(data), chosen.masks_of(data)
    sampling = _sampling(remedy, data, seed, batch_size)
    if isinstance(remedy, JTT):
        first = copy.deepcopy(network)
        without = {**(options or {}), "limit_val_batches": 0}
        fit(first, data, max_epochs=remedy.epochs, batch_size=batch_size, seed=seed, progress=progress, options=without, **settings)
        sampling = _fixed(upweighted(wrong_of(first, data), remedy.upweight), data, seed)
    seed_everything(seed)
    dataset = _tensors(data.train_inputs, data.train_labels)
    if isinstance(remedy, GroupDRO):
        groups, names = groups_of(data, remedy.attribute, remedy.of)
        module: Classifier = GroupDROClassifier(network, names, remedy.step_size, **settings)
        dataset = TensorDataset(*dataset.tensors, torch.from_numpy(groups))
    elif masks is not None:
        module = RightReasonsClassifier(network, chosen.weight, penalties=penalties, **settings)
        dataset = TensorDataset(*dataset.tensors, torch.from_numpy(masks))
    else:
        module = Classifier(network, penalties=penalties, **settings)
    if sampling is not None:
        train = DataLoader(dataset, batch_size, sampler=sampling.sampler)
    else:
        train = DataLoader(dataset, batch_size, shuffle=True, generator=torch.Generator().manual_seed(seed))
    test = DataLoader(_tensors(data.test_inputs, data.test_labels), 256)
    with warnings.catch_warnings():
        # The data are tensors in memory: worker processes would only copy them.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*The number of training batches.*")
        trainer = pl.Trainer(
            max_epochs=max_epochs,
            callbacks=[*([] if sampling is None else [sampling]), *callbacks],
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


def wrong_of(network: nn.Module, data: Dataset) -> Bools:
    """(n,) whether the network, which is left in evaluation mode, has the class of each training input wrong.

    Raises ValueError for logits that are not finite.
    """
    network.eval()
    device = next((parameter.device for parameter in network.parameters()), None)
    with torch.inference_mode():
        logits = torch.cat([network(inputs.to(device)).cpu() for inputs, _ in DataLoader(_tensors(data.train_inputs, data.train_labels), 256)])
    return errors(logits.numpy(), data.train_labels)


def _sampling(remedy: Remedy | None, data: Dataset, seed: int, batch_size: int) -> AdaptiveSampling | FixedSampling | None:
    """What draws by weights that are known, or made, without another training; None where each input is drawn once an epoch."""
    if isinstance(remedy, GroupBalanced):
        return _fixed(group_balanced_weights(groups_of(data, remedy.attribute, remedy.of)[0]), data, seed)
    if isinstance(remedy, Adaptive):
        sampler, (inputs, labels) = AdaptiveSampler(len(data.train_labels), seed=seed), _tensors(data.train_inputs, data.train_labels).tensors
        return AdaptiveSampling(sampler, (inputs, labels), module="network", groups=told_groups(data), **asdict(remedy), batch_size=batch_size)
    return None


def _fixed(weights: Float64, data: Dataset, seed: int) -> FixedSampling:
    sampler = AdaptiveSampler(len(weights), seed=seed)
    sampler.weights = weights
    return FixedSampling(sampler, told_groups(data))


def _tensors(inputs: Array, labels: Int64) -> TensorDataset:
    """Channels-last arrays (n, h, w, c) as torch's networks take them."""
    array = np.moveaxis(inputs, -1, 1) if inputs.ndim > 2 else inputs
    return TensorDataset(torch.from_numpy(np.ascontiguousarray(array)), torch.from_numpy(np.ascontiguousarray(labels)))


# Lightning tells at every start which accelerators it found and which tips it has.
logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
