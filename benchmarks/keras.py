"""What activation profiles cost in Keras on TensorFlow beside a compiled forward over the same probe, in CPU seconds of one thread.

The memory row is MiB by which the process has grown after 50 more checkpoints. Where tf-explain (0.3.1, the last) is
installed, its callbacks are timed beside ours on the same eight images, on the one kind of model on which they run.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

from benchmarks.measure import Row, interleaved, table
from netlapse.analysis.nap import activation_profiles
from netlapse.analysis.saliency import grad_cam, gradient, saliency
from netlapse.backends.keras import KerasNetwork
from netlapse.models.keras import cnn, resnet18
from netlapse.observer import Observer
from netlapse.tracking.folder import FolderTracker
from netlapse.types import ProbeSet

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


def kinds() -> dict[str, keras.Model]:
    """The same small network as a functional, Sequential, nested and subclassed model."""

    def layers() -> list[keras.Layer]:
        return [
            keras.layers.Conv2D(16, 3, padding="same", activation="relu", name="conv1"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(32, 3, padding="same", activation="relu", name="conv2"),
            keras.layers.Flatten(),
            keras.layers.Dense(10, name="scores"),
        ]

    def functional(inputs: keras.KerasTensor) -> keras.KerasTensor:
        for layer in layers():
            inputs = layer(inputs)
        return inputs

    class Subclassed(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.steps = layers()

        def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
            for layer in self.steps:
                inputs = layer(inputs)
            return inputs

    shape = (*SHAPE[:2], 3)
    inputs = keras.Input(shape)
    nested = keras.Sequential([keras.Input(shape), keras.Sequential([keras.Input(shape), *layers()], name="inner"), keras.layers.Rescaling(1.0)])
    subclassed = Subclassed()
    subclassed(np.zeros((1, *shape), np.float32))
    return {
        "functional": keras.Model(inputs, functional(inputs)),
        "Sequential": keras.Sequential([keras.Input(shape), *layers()]),
        "nested": nested,
        "subclassed": subclassed,
    }


def peers() -> list[Row]:
    """Each callback's work at the end of an epoch, files included, in CPU seconds; and which kinds of model it takes."""
    from tf_explain.callbacks.grad_cam import GradCAMCallback
    from tf_explain.callbacks.vanilla_gradients import VanillaGradientsCallback

    rng = np.random.default_rng(0)
    images, labels = rng.random((8, *SHAPE[:2], 3), dtype=np.float32), np.zeros(8, np.int64)
    theirs = {"grad_cam": partial(GradCAMCallback, layer_name="conv2"), "gradient": VanillaGradientsCallback}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for method, callback in theirs.items():
            runs: dict[str, dict[str, Callable[[], object]]] = {}
            for kind, model in kinds().items():
                peer = callback(validation_data=(images, labels), class_index=0, output_dir=f"{folder}/{method}-{kind}")
                peer.set_model(model)
                record = FolderTracker(f"{folder}/ours-{method}-{kind}")
                analysis = partial(saliency, methods={method: {"grad_cam": grad_cam, "gradient": gradient}[method]}, panel=8)
                observer = Observer(ProbeSet(images, labels, tuple("0123456789")), {"saliency": analysis}, record, strict=True)
                network = KerasNetwork(model)
                observer.start(network)
                runs[kind] = {"theirs": partial(peer.on_epoch_end, 0), "ours": partial(observer.observe, network, 0)}
            fails = []
            for kind, both in runs.items():
                both["ours"]()
                try:
                    both["theirs"]()
                except Exception as error:
                    fails.append(f"{kind} ({type(error).__name__})")
            print(f"tf-explain's {method} fails on: {', '.join(fails) or 'none'}; ours on none")
            times = interleaved(runs["functional"], 11)
            rows.append(Row(f"{method} of 8 images at an epoch's end, CPU s", times["ours"], times["theirs"], "tf-explain 0.3.1", 1, "ratio"))
    return rows


def _resident() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> list[Row]:
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    keras.utils.set_random_seed(0)
    rows = [*costs("cnn", 11, 1000), *costs("resnet18", 7, 500), grown()]
    if find_spec("tf_explain") is not None:
        rows += peers()
    print(table(rows))
    return rows


if __name__ == "__main__":
    sys.exit(not all(row.ok for row in main()))
