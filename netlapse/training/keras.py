"""Train a classifier with Keras."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow tells at every start which accelerators it found

import keras
import numpy as np

from netlapse.callbacks.keras import ObserverCallback, renamed, steps_taken
from netlapse.callbacks.keras_sampling import WeightedSampling
from netlapse.callbacks.keras_steering import SteeringCallback
from netlapse.data.dataset import Dataset
from netlapse.training import Metrics, check_choices, surviving
from netlapse.training.keras_penalised import PenalisedLoss, plain_in_files
from netlapse.training.keras_reasons import right_reasons
from netlapse.training.keras_remedies import (
    GroupDROLoss,
    GroupWeights,
    LabelAccuracy,
    adaptive_sampling,
    as_it_was,
    check_cross_entropy,
    fixed_sampling,
    has_own_loss,
    logits_of,
)
from netlapse.training.penalty import Penalty, check_together
from netlapse.training.remedies import (
    JTT,
    Adaptive,
    GroupBalanced,
    GroupDRO,
    Remedy,
    errors,
    group_balanced_weights,
    groups_of,
    upweighted,
)

OPTIMIZERS = {"adam": keras.optimizers.Adam, "adamw": keras.optimizers.AdamW, "sgd": keras.optimizers.SGD}


class _Told(keras.callbacks.Callback):  # type: ignore[misc]
    """Hands metrics on after each epoch, and survives whoever takes them."""

    async_safe = True

    def __init__(self, metrics: Metrics) -> None:
        super().__init__()
        self._metrics = surviving(metrics)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self._metrics({**renamed(logs or {}), "epoch": epoch}, steps_taken(self.model) - 1)


def seed_everything(seed: int) -> None:
    """Seed Python's, numpy's and the backend's global random states."""
    keras.utils.set_random_seed(seed)


def fit(
    network: keras.Model,
    data: Dataset,
    *,
    callbacks: Sequence[keras.callbacks.Callback] = (),
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
) -> keras.callbacks.History:
    """Compile the network, train it on `data` with cross entropy of its logits, and validate on the test part after each epoch.

    weight_decay  decoupled from the gradient (Loshchilov and Hutter, 2019), as Keras's optimizers have it
    metrics       is told the training's metrics and the optimiser's step; what it raises is reported once and ends nothing
    remedy        what is changed for the sake of small groups, see `netlapse.training.remedies`; None: nothing
    penalty       what counts how often to begin with, and where to look, see `netlapse.training.penalty`. None: everything once, to be changed
                  while it trains by `netlapse.penalties.penalties_of` the network, but with group DRO and with a network that has a loss of its own
    options       more arguments of `keras.Model.fit`

    Raises ValueError for a number of epochs or a batch size below 1, an unknown optimizer, a learning rate not above 0, a remedy that goes by
    an attribute which the training inputs, or some of them, have not got, a remedy or penalty that the network's own loss leaves no room for,
    what `Penalty` does of these data, and masks together with a remedy.
    """
    check_choices(max_epochs, batch_size, optimizer, learning_rate, OPTIMIZERS)
    settings: dict[str, Any] = {"optimizer": optimizer, "learning_rate": learning_rate, "weight_decay": weight_decay, "momentum": momentum}
    drawing: dict[str, Any] = {"batch_size": batch_size, "seed": seed}
    check_together(penalty, remedy)
    chosen = penalty or Penalty()
    penalties, masks = chosen.penalties(data), chosen.masks_of(data)
    if masks is not None and remedy is not None:
        raise ValueError("what a remedy draws has no masks in Keras; expected penalty.masks or a remedy, or framework=torch")
    sampling: WeightedSampling | None = None
    if isinstance(remedy, Adaptive):
        sampling = adaptive_sampling(remedy, data, **drawing)
    if isinstance(remedy, GroupBalanced):
        sampling = fixed_sampling(group_balanced_weights(groups_of(data, remedy.attribute, remedy.of)[0]), data, **drawing)
    if isinstance(remedy, JTT):
        with as_it_was(network):
            unvalidated = {**(options or {}), "validation_freq": remedy.epochs + 1}
            fit(network, data, max_epochs=remedy.epochs, progress=progress, options=unvalidated, **drawing, **settings)
            wrong = errors(logits_of(network, data), data.train_labels)
        sampling = fixed_sampling(upweighted(wrong, remedy.upweight), data, **drawing)
    # Keras's own, so that checkpoints are read without netlapse.
    loss, accuracy = keras.losses.SparseCategoricalCrossentropy(from_logits=True), keras.metrics.SparseCategoricalAccuracy("accuracy")
    labels: Any = data.train_labels
    own: list[keras.callbacks.Callback] = [] if sampling is None else [sampling]
    if isinstance(remedy, GroupDRO):
        check_cross_entropy(network)
        groups, names = groups_of(data, remedy.attribute, remedy.of)
        loss, accuracy, labels = GroupDROLoss(names, remedy.step_size), LabelAccuracy("accuracy"), np.stack([labels, groups], axis=1)
        own = [GroupWeights(loss)]
    elif not has_own_loss(network):
        loss = PenalisedLoss(loss, data.n_classes)
        loss.penalties.restore(penalties.class_weights, penalties.confusions)
        plain_in_files(network)
    elif penalty is not None:
        raise ValueError(
            f"a penalty weighs the loss that a network is compiled with, and {type(network).__name__} has one of its own; expected penalty=none, a "
            "network without, or framework=torch"
        )
    labels = labels if masks is None else (labels, masks)
    seed_everything(seed)
    network.compile(_optimizer(**settings), loss, metrics=[accuracy])
    told = [_Told(metrics)] if metrics is not None else []
    given = {"x": data.train_inputs, "y": labels} if sampling is None else {"x": sampling.batches, "shuffle": False}
    try:
        with nullcontext() if masks is None else right_reasons(network, chosen.weight):
            return network.fit(
                **given,
                batch_size=batch_size,
                epochs=max_epochs,
                validation_data=(data.test_inputs, data.test_labels),
                callbacks=[*own, *told, *callbacks],
                verbose="auto" if progress else 0,
                **(options or {}),
            )
    except BaseException:
        for callback in callbacks:
            if isinstance(callback, ObserverCallback | SteeringCallback):
                callback.abandon()
        raise


def _optimizer(optimizer: str, learning_rate: float, weight_decay: float, momentum: float) -> keras.optimizers.Optimizer:
    # torch's epsilon, for the same training in both frameworks.
    more = {"momentum": momentum} if optimizer == "sgd" else {"epsilon": 1e-8}
    return OPTIMIZERS[optimizer](learning_rate, weight_decay=weight_decay or None, **more)
