"""What activation profiles cost in Keras on TensorFlow beside a compiled forward over the same probe, in CPU seconds of one thread.

The memory row is MiB by which the process has grown after 50 more checkpoints.
"""

from __future__ import annotations

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

from benchmarks.measure import Row, interleaved, table
from netlapse.analysis.nap import activation_profiles
from netlapse.backends.keras import KerasNetwork
from netlapse.models.keras import cnn, resnet18

BATCH = 250
SHAPE = (28, 28, 1)
NETWORKS = {"cnn": lambda: cnn(SHAPE, 10), "resnet18": lambda: resnet18(SHAPE, 10, width=32)}


def costs(name: str, repeats: int, n: int) -> list[Row]:
    model = NETWORKS[name]()
    network, inputs, groups = KerasNetwork(model), np.random.default_rng(0).random((n, *SHAPE), dtype=np.float32), np.arange(n) % 10
    network.describe(inputs)
    forward = tf.function(lambda batch: model(batch, training=False), input_signature=[tf.TensorSpec((None, *SHAPE))])

    def bare() -> None:
        for start in range(0, n, BATCH):
            forward(tf.constant(inputs[start : start + BATCH])).numpy()

    times = interleaved({"forward": bare, "mean": lambda: activation_profiles(network, inputs, groups, network.layers, batch_size=BATCH)}, repeats)
    return [Row(f"{name}, maps of all {len(network.layers)} layers, CPU s", times["mean"], times["forward"], "compiled forward", 1.10, "ratio")]


def grown() -> Row:
    """MiB the process grows by over 50 checkpoints, beside one trace of the same network each time."""
    model = NETWORKS["cnn"]()
    inputs, groups = np.random.default_rng(0).random((500, *SHAPE), dtype=np.float32), np.arange(500) % 10
    network = KerasNetwork(model)

    def checkpoints(count: int, anew: bool) -> float:
        before = _resident()
        for _ in range(count):
            seen = KerasNetwork(model) if anew else network
            activation_profiles(seen, inputs, groups, seen.layers, batch_size=BATCH)
        return _resident() - before

    checkpoints(10, False)
    return Row("cnn, growth over 50 checkpoints, MiB", checkpoints(50, False), checkpoints(10, True) * 5, "a network made anew each time", 5)


def _resident() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> list[Row]:
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    keras.utils.set_random_seed(0)
    rows = [*costs("cnn", 11, 1000), *costs("resnet18", 7, 500), grown()]
    print(table(rows))
    return rows


if __name__ == "__main__":
    sys.exit(not all(row.ok for row in main()))
