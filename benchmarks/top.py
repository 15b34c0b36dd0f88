"""What the top inputs of every convolutional unit cost beside its activation profiles, over the same images, in CPU seconds of one thread.

Run with `OMP_NUM_THREADS=1 python -m benchmarks.top`. Beside it, storing every activation and sorting, which is how it is
done without streaming.
"""

from __future__ import annotations

import sys

import numpy as np
import torch

from benchmarks.measure import Row, interleaved, table
from benchmarks.nap import BATCH, NETWORKS, probe
from netlapse.analysis.nap import activation_profiles
from netlapse.analysis.receptive_field import in_batches, top_inputs
from netlapse.backends.torch import TorchNetwork
from netlapse.layers import select
from netlapse.types import Float32

K = 10


def stored(network: TorchNetwork, inputs: Float32, layers: list[str]) -> list[object]:
    """Every unit's maximum for every input, kept and sorted at the end; the positions from the activations."""
    values: dict[str, list[Float32]] = {layer: [] for layer in layers}
    places: dict[str, list[object]] = {layer: [] for layer in layers}
    for start in range(0, len(inputs), BATCH):
        for layer, activation in network.activations(inputs[start : start + BATCH], layers).items():
            flat = activation.reshape(len(activation), -1, activation.shape[-1])
            values[layer].append(flat.max(axis=1))
            places[layer].append(flat.argmax(axis=1))
    return [np.argsort(-np.concatenate(rows), axis=0, kind="stable")[:K] for rows in values.values()]


def costs(name: str, repeats: int, n: int) -> list[Row]:
    torch.manual_seed(0)
    network, inputs, groups = TorchNetwork(NETWORKS[name]()), probe(n), np.arange(n) % 10
    layers = list(select(network.describe(inputs), ["Conv2d"]))
    times = interleaved(
        {
            "profiles": lambda: activation_profiles(network, inputs, groups, layers, batch_size=BATCH),
            "top": lambda: top_inputs(network, in_batches(inputs, BATCH), layers, K),
            "stored": lambda: stored(network, inputs, layers),
        },
        repeats,
    )
    return [
        Row(f"{name}, top {K} of the units of {len(layers)} conv layers", times["top"], times["profiles"], "profiles of the same", 1.10, "ratio"),
        Row(f"{name}, the same", times["top"], times["stored"], "activations kept and sorted", 1.0, "ratio"),
    ]


def main() -> list[Row]:
    torch.set_num_threads(1)
    rows = [*costs("cnn", 9, 2000), *costs("resnet18", 7, 2000)]
    print(table(rows))
    return rows


if __name__ == "__main__":
    sys.exit(not all(row.ok for row in main()))
