"""What aligned profiles cost, beside a compiled forward over the same 1,000 images, in CPU seconds of one thread.

The whole of it: activations and gradients of all layers of interest, each input moved to its most salient position, averaged over
ten groups and contrasted. The networks are the published program's examples (its MLP of 128 units, its CNN of two convolutions
of 128 feature maps), in Keras; the CNN in torch beside its eager forward too. Published: 42 and 16 times the compiled forward, and 368 MB on disk.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

from benchmarks.measure import Row, interleaved, table
from netlapse.analysis.nap import aligned_profiles, contrast
from netlapse.backends.keras import KerasNetwork
from netlapse.types import Network

N, SHAPE, BATCH = 1000, (28, 28, 1), 100
INPUTS = np.random.default_rng(0).random((N, *SHAPE), dtype=np.float32)
GROUPS = np.arange(N) % 10


def mlp() -> keras.Model:
    layers = [keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(128, "relu", name="hidden"), keras.layers.Dense(10, name="scores")]
    return keras.Sequential(layers)


def cnn() -> keras.Model:
    convolutions = [keras.layers.Conv2D(128, 3, 2, activation="relu", name=f"conv{i}") for i in (1, 2)]
    return keras.Sequential([keras.Input(SHAPE), *convolutions, keras.layers.Flatten(), keras.layers.Dense(10, name="scores")])


def whole(network: Network, layers: list[str]) -> None:
    for profile in aligned_profiles(network, INPUTS, GROUPS, layers, batch_size=BATCH).values():
        contrast(profile)


def in_keras(model: keras.Model, layers: list[str], repeats: int) -> dict[str, float]:
    network = KerasNetwork(model)
    forward = tf.function(lambda batch: model(batch, training=False), input_signature=[tf.TensorSpec((None, *SHAPE))])

    def bare() -> None:
        for start in range(0, N, BATCH):
            forward(tf.constant(INPUTS[start : start + BATCH])).numpy()

    return interleaved({"forward": bare, "whole": lambda: whole(network, layers)}, repeats)


def in_torch(repeats: int) -> dict[str, float]:
    import torch
    from torch import nn

    from netlapse.backends.torch import TorchNetwork

    module = nn.Sequential(nn.Conv2d(1, 128, 3, 2), nn.ReLU(), nn.Conv2d(128, 128, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(4608, 10)).eval()
    network = TorchNetwork(module)
    tensors = torch.from_numpy(np.moveaxis(INPUTS, -1, 1).copy())

    def bare() -> None:
        with torch.no_grad():
            for start in range(0, N, BATCH):
                module(tensors[start : start + BATCH])

    return interleaved({"forward": bare, "whole": lambda: whole(network, ["1", "3"])}, repeats)


def main() -> list[Row]:
    measured: dict[str, Callable[[], dict[str, float]]] = {
        "Keras mlp": lambda: in_keras(mlp(), ["hidden"], 21),
        "Keras cnn": lambda: in_keras(cnn(), ["conv1", "conv2"], 7),
        "torch cnn": lambda: in_torch(7),
    }
    rows = []
    for name, measure in measured.items():
        times = measure()
        rows.append(Row(f"{name}, aligned profiles, CPU s", times["whole"], times["forward"], "forward", 3.5, "ratio"))
    print(table(rows))
    return rows


if __name__ == "__main__":
    sys.exit(not all(row.ok for row in main()))
