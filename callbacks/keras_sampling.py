"""Adaptive sampling in a Keras training: what the network's own features say is rare is drawn more in the next epoch."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from multiprocessing.dummy import DummyProcess
from typing import Any

import keras
import numpy as np

from netlapse.analysis.fairness.sampling import Rule
from netlapse.backends.keras import KerasNetwork
from netlapse.backends.keras_data import class_indices
from netlapse.callbacks.keras import SAMPLING
from netlapse.callbacks.sampling import Rarity, check_refreshes, checked_groups, drawn, told
from netlapse.types import Array, Float64, Int64


class AdaptiveBatches(keras.utils.PyDataset):  # type: ignore[misc]
    """Batches of n of n inputs, drawn by weights that change from epoch to epoch.

    inputs, labels  (n, ...) as the model takes them, and (n,), (n, 1) or one-hot (n, k) as its loss does: arrays, or what gives the rows
                    of an array of indices as they do, such as a memory map
    options         `workers` and the like, of `keras.utils.PyDataset`

    `weights` (n,) are even until somebody sets them. With the callback `AdaptiveSampling` or `WeightedSampling` epoch e draws by the seed
    (seed, e), and so the same indices as `netlapse.callbacks.lightning_sampling.AdaptiveSampler` by the same weights. To be trained on
    with `fit(batches, shuffle=False)`: Keras would else have the batches, which are in a drawn order already, in another that a
    training that goes on does not repeat. A subclass may augment in `__getitem__`.

    Raises TypeError for a tf.data.Dataset, a generator and all else that has no rows to draw, for which only weights of the loss would do;
    ValueError for other numbers of inputs and labels.
    """

    def __init__(self, inputs: Array, labels: Array | None = None, *, batch_size: int = 64, seed: int = 0, **options: Any) -> None:
        super().__init__(**options)
        for rows in (inputs, labels):
            if not hasattr(rows, "__len__") or not hasattr(rows, "__getitem__") or isinstance(rows, keras.utils.PyDataset):
                raise TypeError(
                    f"AdaptiveBatches was given a {type(rows).__name__}, whose inputs cannot be drawn one by one; give arrays of inputs and labels, "
                    "or weigh the loss of each input instead (`sample_weight`)"
                )
        self.inputs, self.labels = inputs, np.asarray(labels)
        if len(inputs) != len(self.labels) or not len(inputs) or batch_size < 1:
            raise ValueError(
                f"AdaptiveBatches was given {len(inputs)} inputs, {len(self.labels)} labels and batch_size={batch_size}; expected as many of both, "
                "and at least one"
            )
        self.n, self.batch_size, self.seed = len(inputs), batch_size, seed
        self.weights: Float64 = np.full(self.n, 1 / self.n)
        self.order: Int64 = np.arange(self.n)  # of what Keras looks at before the first epoch
        self.taken = False  # by a training that is about to begin, or under way
        self._ended, self._process = 0, os.getpid()

    def __len__(self) -> int:
        return -(-self.n // self.batch_size)

    def __getitem__(self, index: int) -> tuple[Array, Array] | None:
        # Before the first epoch Keras may look at the first batch through its workers, and what they read meanwhile it trains on later, in
        # the place of what was drawn: all but None.
        if index and not self.taken and self._is_worker():
            return None
        rows = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        return self.inputs[rows], self.labels[rows]

    def _is_worker(self) -> bool:
        return os.getpid() != self._process or isinstance(threading.current_thread(), DummyProcess)

    def draw(self, epoch: int) -> None:
        """The order of this epoch, by the weights as they are."""
        self.order = drawn(self.weights, self.n, seed=self.seed, epoch=epoch)

    def on_epoch_end(self) -> None:
        # Also once before the training, so these are not the epochs: whoever knows those draws again before the epoch begins. Not in
        # `on_epoch_begin`, where threads may have begun to read.
        self.taken = True
        self.draw(self._ended)
        self._ended += 1


class WeightedSampling(keras.callbacks.Callback):  # type: ignore[misc]
    """Draws each epoch's batches by the weights they have.

    groups  name -> (n,) of str, only to be told each one's share of the draw

    Among the logs of each epoch, of the weights it was drawn by: `sampling/ess`, the effective sample size as a share of n,
    `sampling/largest` weight times n, `sampling/share/<name>/<group>`. Callbacks that come before this one in the list, those of netlapse
    excepted, do not see them.

    Raises ValueError before training for groups that do not fit the batches, other data in `fit`, and `steps_per_epoch`.
    """

    def __init__(self, batches: AdaptiveBatches, *, groups: Mapping[str, Array] | None = None) -> None:
        super().__init__()
        self.batches, self.groups = batches, checked_groups(groups, batches.n)

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        if not self.batches.taken:
            raise ValueError(f"the training draws from other data than {type(self).__name__}; train on its batches: fit(batches, shuffle=False)")
        if self.params["steps"] != len(self.batches):
            raise ValueError(
                f"the training was given steps_per_epoch={self.params['steps']}, and {len(self.batches)} batches are drawn for an epoch; Keras "
                "would keep those that are left for the next, so leave it out"
            )

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        # Before any worker is told of the epoch.
        self.batches.draw(epoch)
        self.params[SAMPLING] = told(self.batches.weights, self.groups)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if logs is not None:
            logs.update(self.params[SAMPLING])

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        self.batches.taken = False


class AdaptiveSampling(WeightedSampling):
    """Before each epoch, shows the network its training inputs and has the batches drawn by `sampling_weights` of a layer's responses.

    batches     what the model is trained on: `fit(batches, callbacks=[AdaptiveSampling(batches)], shuffle=False)`
    layer       whose responses (mean activations over positions) are the features; None: the last hidden one
    rule, bins, alpha, target_ess   see `netlapse.analysis.fairness.sampling_weights`
    every_n_epochs   between refreshes         least_ess   share of n below which a warning says that few inputs take the draw
    batch_size  of what the network is shown at once

    `groups`, and what is logged, are those of `WeightedSampling`. The first epoch is drawn by the untrained network's features. The weights
    are a function of the network as an epoch finds it, so a training that goes on at an epoch (`initial_epoch`, BackupAndRestore) draws
    what it would have drawn; one that is restored amidst an epoch begins that epoch anew, with weights of then. It costs a
    forward pass over the training data.

    Raises before training what `WeightedSampling` does, and ValueError for an unknown layer, a model that has no weights yet, and where the
    epoch it goes on from is not one of a refresh and its weights are not this object's own.
    """

    def __init__(
        self,
        batches: AdaptiveBatches,
        *,
        layer: str | None = None,
        groups: Mapping[str, Array] | None = None,
        rule: Rule = "max",
        bins: int = 10,
        alpha: float = 1e-3,
        target_ess: float | None = None,
        every_n_epochs: int = 1,
        least_ess: float = 0.1,
        batch_size: int = 64,
    ) -> None:
        super().__init__(batches, groups=groups)
        check_refreshes(every_n_epochs)
        self.rarity = Rarity(layer, rule, bins, alpha, target_ess, least_ess)
        self.every_n_epochs, self.batch_size = every_n_epochs, batch_size
        self._network: KerasNetwork | None = None
        self._of_epoch = -1  # at whose beginning the weights were made

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        super().on_train_begin(logs)
        if self._network is None or self._network.model is not self.model:
            self._of_epoch = -1
        self._network = KerasNetwork(self.model)

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        refreshed = epoch - epoch % self.every_n_epochs
        if refreshed == epoch:
            self._refresh(epoch)
        elif refreshed != self._of_epoch:
            raise ValueError(
                f"AdaptiveSampling goes on at epoch {epoch} with weights of epoch {refreshed}, which no checkpoint of Keras holds; go on from an "
                f"epoch that every_n_epochs={self.every_n_epochs} divides, or refresh them every epoch"
            )
        super().on_epoch_begin(epoch, logs)

    def _refresh(self, epoch: int) -> None:
        assert self._network is not None
        self.batches.weights = self.rarity.weights(self.rarity.features(self._network, self._shown(self._network)), epoch)
        self._of_epoch = epoch

    def _shown(self, network: KerasNetwork) -> Iterator[tuple[Array, Int64]]:
        """All training inputs in their order, as they are: not what a subclass makes of them."""
        classes = class_indices(self.batches.labels)
        for start in range(0, self.batches.n, self.batch_size):
            part = slice(start, start + self.batch_size)
            yield network.to_array(self.batches.inputs[part]), classes[part]
