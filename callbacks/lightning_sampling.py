"""Adaptive sampling in a Lightning training: what the network's own features say is rare is drawn more in the next epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, IterableDataset

from netlapse.analysis.fairness.sampling import Rule
from netlapse.backends.torch import TorchNetwork, restored_random_states
from netlapse.backends.torch_processes import Processes
from netlapse.backends.torch_shared import buffers, fingerprint, of_first
from netlapse.callbacks.lightning import submodule
from netlapse.callbacks.sampling import Rarity, check_refreshes, checked_groups, drawn, told
from netlapse.types import Array, Float32, Float64, Int64

Features = list[tuple[Float32, Int64]]
"""Of batches: the responses of each one's inputs (m, u), and their classes (m,)."""


class AdaptiveSampler(DistributedSampler[Any]):
    """Draws n of n inputs by weights that change from epoch to epoch; every process its share of one draw.

    Of the kind that Lightning takes as sharded already, and whose epoch it sets. `weights` (n,) are even until `AdaptiveSampling` sets
    them. Epoch e draws by the seed (seed, e), whatever the processes; each yields ceil(n / processes) indices.
    """

    def __init__(self, n: int, *, seed: int = 0, num_replicas: int | None = None, rank: int | None = None) -> None:
        # Not the parent's: it asks for the process group, which Lightning makes later.
        if n < 1:
            raise ValueError(f"AdaptiveSampler was given n={n}; expected the number of training inputs, at least 1")
        self.n, self.seed, self.epoch = n, seed, 0
        self._world = (num_replicas, rank)
        self.weights: Float64 = np.full(n, 1 / n)

    def __iter__(self) -> Iterator[int]:
        processes, rank = self._processes()
        total = -(-self.n // processes) * processes
        return iter(drawn(self.weights, total, seed=self.seed, epoch=self.epoch)[rank::processes].tolist())

    def __len__(self) -> int:
        return -(-self.n // self._processes()[0])

    def _processes(self) -> tuple[int, int]:
        number, rank = self._world
        known = dist.is_available() and dist.is_initialized()
        if number is None:
            number = dist.get_world_size() if known else 1
        return number, (dist.get_rank() if known else 0) if rank is None else rank


class AdaptiveSampling(pl.Callback):
    """Before each epoch, shows the network its training inputs and has the sampler draw by `sampling_weights` of a layer's responses.

    sampler     the `AdaptiveSampler` that the training's DataLoader was given
    data        the training data, not augmented, in the sampler's order: a map-style Dataset of (input, label), or (inputs, labels),
                tensors as the network takes them or channels-last arrays
    layer       whose responses (mean activations over positions) are the features; None: the last hidden one
    module      the submodule whose layer that is, by its name; None: the LightningModule itself
    groups      name -> (n,) of str, only to be told each one's share of the draw
    rule, bins, alpha, target_ess   see `netlapse.analysis.fairness.sampling_weights`
    every_n_epochs   between refreshes         least_ess   share of n below which a warning says that few inputs take the draw

    Logged after each epoch, of the weights it was drawn by: `sampling/ess`, the effective sample size as a share of n, `sampling/largest`
    weight times n, `sampling/share/<name>/<group>`. The first epoch is drawn by the untrained network's features. A training that goes on
    from its checkpoint draws what it would have drawn. It costs a forward pass over the training data, which several processes share
    batch by batch; it is the first one's network whose features count.

    Raises ValueError before training for data that do not fit the sampler, an unknown layer, and another sampler in the DataLoader;
    TypeError for data of no length, for which only weights of the loss would do.
    """

    def __init__(
        self,
        sampler: AdaptiveSampler,
        data: Dataset[Any] | tuple[Tensor | Array, Tensor | Array],
        *,
        layer: str | None = None,
        module: str | None = None,
        groups: Mapping[str, Array] | None = None,
        rule: Rule = "max",
        bins: int = 10,
        alpha: float = 1e-3,
        target_ess: float | None = None,
        every_n_epochs: int = 1,
        least_ess: float = 0.1,
        batch_size: int = 64,
    ) -> None:
        if isinstance(data, IterableDataset) or not hasattr(data, "__len__"):
            raise TypeError(
                f"AdaptiveSampling was given a {type(data).__name__}, which has no length and cannot be drawn from; give a map-style Dataset or "
                "(inputs, labels), or weigh the loss of each input instead"
            )
        check_refreshes(every_n_epochs)
        self.sampler, self.data, self.every_n_epochs, self.batch_size = sampler, data, every_n_epochs, batch_size
        self.module = module
        self.groups = checked_groups(groups, sampler.n)
        self.rarity = Rarity(layer, rule, bins, alpha, target_ess, least_ess)
        self._of_epoch = -1  # the epoch that the sampler's weights are for
        self._goes_on_at: int | None = None
        n = len(data[0]) if isinstance(data, (tuple, list)) else len(data)  # type: ignore[arg-type]
        if n != sampler.n:
            raise ValueError(f"AdaptiveSampling's sampler draws from {sampler.n} inputs; its data have {n}")

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Here and not at the epoch's start: with workers its first indices are drawn before that.
        epoch = trainer.current_epoch if self._goes_on_at is None else self._goes_on_at
        self._goes_on_at = None
        if self._of_epoch != epoch:
            self._refresh(pl_module, epoch)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        loader = trainer.train_dataloader
        if getattr(loader, "sampler", None) is not self.sampler:
            raise ValueError(
                f"the training draws by a {type(getattr(loader, 'sampler', None)).__name__} and not by AdaptiveSampling's own sampler; "
                "give that to the DataLoader: DataLoader(data, sampler=sampler)"
            )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for name, value in told(self.sampler.weights, self.groups).items():
            pl_module.log(name, value, rank_zero_only=True)
        following = trainer.current_epoch + 1
        if following % self.every_n_epochs == 0:
            self._refresh(pl_module, following)
        else:
            self._of_epoch = following

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        # The trainer itself takes up its epoch only after the fit has started. A checkpoint of a validation is of an epoch whose batches
        # are all done, but whose end, with the weights for the next one, has not come.
        loop = checkpoint["loops"]["fit_loop"]
        self._goes_on_at = loop["epoch_progress"]["current"]["ready"] - (not loop["epoch_loop.batch_progress"]["is_last_batch"])

    def state_dict(self) -> dict[str, Any]:
        return {"weights": torch.from_numpy(self.sampler.weights.copy()), "epoch": self._of_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        weights = state_dict["weights"].numpy()
        if len(weights) != self.sampler.n:
            raise ValueError(f"the checkpoint's sampling weights are of {len(weights)} inputs, and the sampler draws from {self.sampler.n}")
        self.sampler.weights, self._of_epoch = weights.copy(), state_dict["epoch"]

    def _refresh(self, module: pl.LightningModule, epoch: int) -> None:
        network, processes = TorchNetwork(submodule(module, self.module), memory_format=self._memory_format()), Processes()
        with restored_random_states():
            weights = processes.led(partial(self._weights, network, processes, epoch), {"features": partial(self._share, network, processes)})
            self.sampler.weights = processes.from_first(lambda: cast(Float64, weights))
        self._of_epoch = epoch

    def _memory_format(self) -> torch.memory_format:
        """How the images lie in memory that the training is shown: in the same way features take as long as the training's own forward."""
        shown = self.data[0] if isinstance(self.data, (tuple, list)) else None
        if isinstance(shown, Tensor) and shown.ndim == 4 and shown.stride(1) <= shown.stride(3):
            return torch.channels_last
        return torch.contiguous_format

    def _weights(self, network: TorchNetwork, processes: Processes, epoch: int) -> Float64:
        """In the first process, of its own network, to which the others show what they have the share of."""
        found = cast(list[Features | None], processes.together("features", fingerprint(network.module), buffers(network.module)))
        shares = [self._features(network, i, processes.size) if share is None else share for i, share in enumerate(found)]
        batches = range(sum(map(len, shares)))
        return self.rarity.weights((shares[i % processes.size][i // processes.size] for i in batches), epoch)

    def _share(self, network: TorchNetwork, processes: Processes, weights: tuple[int, ...], values: Mapping[str, Tensor]) -> Features | None:
        return of_first(processes.rank, network, weights, values, partial(self._features, network, processes.rank, processes.size))

    def _features(self, network: TorchNetwork, share: int, shares: int) -> Features:
        """Of every so many-th batch."""
        return self.rarity.features(network, self._batches(network, range(self.batch_size * share, self.sampler.n, self.batch_size * shares)))

    def _batches(self, network: TorchNetwork, starts: range) -> Iterator[tuple[Array, Int64]]:
        parts = [range(start, min(start + self.batch_size, self.sampler.n)) for start in starts]
        if isinstance(self.data, (tuple, list)):
            inputs, labels = self.data
            for part in parts:
                shown, some = inputs[part.start : part.stop], labels[part.start : part.stop]
                yield network.to_array(shown) if isinstance(shown, Tensor) else np.asarray(shown), np.asarray(some).astype(np.int64)
            return
        for shown, some in DataLoader(self.data, batch_sampler=[list(part) for part in parts]):
            yield network.to_array(shown), np.asarray(some).astype(np.int64)
