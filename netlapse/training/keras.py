"""Train a classifier with Keras."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow tells at every start which accelerators it found

import keras

from netlapse.callbacks.keras import ObserverCallback, renamed, steps_taken, with_sampling
from netlapse.data.dataset import Dataset
from netlapse.training import Metrics, check_choices, surviving
from netlapse.training.remedies import Remedy

OPTIMIZERS = {"adam": keras.optimizers.Adam, "adamw": keras.optimizers.AdamW, "sgd": keras.optimizers.SGD}


class _Told(keras.callbacks.Callback):  # type: ignore[misc]
    """Hands metrics on after each epoch, and survives whoever takes them."""

    async_safe = True

    def __init__(self, metrics: Metrics) -> None:
        super().__init__()
        self._metrics = surviving(metrics)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self._metrics({**renamed(with_sampling(self, logs)), "epoch": epoch}, steps_taken(self.model) - 1)


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
    options: Mapping[str, object] | None = None,
) -> keras.callbacks.History:
    """Compile the network, train it on `data` with cross entropy of its logits, and validate on the test part after each epoch.

    weight_decay  decoupled from the gradient (Loshchilov and Hutter, 2019), as Keras's optimizers have it
    metrics       is told the training's metrics and the optimiser's step; what it raises is reported once and ends nothing
    remedy        what is changed for the sake of small groups, see `netlapse.training.remedies`; None: nothing
    options       more arguments of `keras.Model.fit`

    Raises ValueError for a number of epochs or a batch size below 1, an unknown optimizer, a learning rate not above 0.
    """
    check_choices(max_epochs, batch_size, optimizer, learning_rate, OPTIMIZERS)
    if remedy is not None:
        raise ValueError(f"remedy is {remedy}, which is not there in Keras; expected none, or framework=torch")
    seed_everything(seed)
    kind = OPTIMIZERS[optimizer]
    # torch's epsilon, for the same training in both frameworks.
    settings = {"momentum": momentum} if optimizer == "sgd" else {"epsilon": 1e-8}
    network.compile(
        kind(learning_rate, weight_decay=weight_decay or None, **settings),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy("accuracy")],
    )
    told = [_Told(metrics)] if metrics is not None else []
    try:
        return network.fit(
            data.train_inputs,
            data.train_labels,
            batch_size=batch_size,
            epochs=max_epochs,
            validation_data=(data.test_inputs, data.test_labels),
            callbacks=[*told, *callbacks],
            verbose="auto" if progress else 0,
            **(options or {}),
        )
    except BaseException:
        for callback in callbacks:
            if isinstance(callback, ObserverCallback):
                callback.abandon()
        raise
