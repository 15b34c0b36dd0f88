"""A small Keras training in which everything that could be disturbed is there; run as a program on another backend."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from netlapse.types import ProbeSet


def model() -> keras.Model:
    """Dropout, batch norm, a fused activation, a layer used twice."""
    layers = keras.layers
    inputs = keras.Input((8, 8, 1))
    hidden = layers.Conv2D(6, 3, activation="relu", name="conv")(inputs)
    hidden = layers.BatchNormalization(name="norm", momentum=0.9)(hidden)
    shared = layers.ReLU(name="relu")
    hidden = shared(layers.Conv2D(8, 3, name="conv2")(shared(hidden)))
    hidden = layers.Dropout(0.5, name="drop")(layers.Flatten()(hidden))
    return keras.Model(inputs, layers.Dense(3, name="head")(hidden))


def data(n: int = 48) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.random((n, 8, 8, 1), np.float32), np.arange(n) % 3


def probe(n: int = 12) -> ProbeSet:
    rng = np.random.default_rng(0)
    return ProbeSet(rng.random((n, 8, 8, 1), np.float32), np.arange(n) % 3, ("ring", "stroke", "dot"))


def train(callbacks: Sequence[keras.callbacks.Callback] = (), *, network: keras.Model | None = None, epochs: int = 2, **options: Any) -> keras.Model:
    """Train from one seed, shuffling, validating in between; everything else being equal, two trainings are equal bit for bit."""
    keras.utils.set_random_seed(0)
    network = network or model()
    network.compile(
        keras.optimizers.SGD(0.05, momentum=0.9), keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"], **options
    )
    network.fit(*data(), batch_size=8, epochs=epochs, validation_data=data(12), callbacks=list(callbacks), verbose=0)
    return network


def fingerprint(network: keras.Model) -> dict[str, str]:
    """A hash each of weights with moving statistics, optimizer, metrics over the epochs and random states."""
    states = [np.random.get_state()[1].tobytes(), keras.ops.convert_to_numpy(keras.random.uniform((4,))).tobytes()]  # type: ignore[union-attr]  # noqa: NPY002
    return {
        "weights": _hash(*network.get_weights()),
        "optimizer": _hash(*(keras.ops.convert_to_numpy(variable) for variable in network.optimizer.variables)),
        "metrics": json.dumps(network.history.history, sort_keys=True),
        "random states": hashlib.sha256(b"".join(states)).hexdigest(),
    }


def _hash(*arrays: np.ndarray) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    from netlapse.callbacks.keras import ObserverCallback
    from netlapse.probe import by_outcome
    from netlapse.schedule import every_steps
    from netlapse.tracking.memory import MemoryTracker

    trackers = [MemoryTracker(), MemoryTracker()]
    plain = fingerprint(train())
    observed = fingerprint(train([ObserverCallback(probe(), tracker=trackers[0], strict=True)]))
    often = fingerprint(train([ObserverCallback(probe(), tracker=trackers[1], schedule=every_steps(1), grouping=by_outcome, strict=True)]))
    result = {
        "backend": keras.backend.backend(),
        "same": [plain == observed, plain == often],
        "steps": [list(tracker.recording().steps) for tracker in trackers],
        "found": sorted(trackers[0].findings),
        "torch": "torch" in sys.modules,
    }
    print(json.dumps(result))
