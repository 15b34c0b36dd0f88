"""What activation profiles cost beside a bare forward in evaluation mode over the same probe and batches, in CPU seconds of one thread.

Run with `OMP_NUM_THREADS=1 python -m benchmarks.nap`. The memory rows are MiB by which the peak grows from 500 inputs to
8,000, each in a process of its own, beside a pass that keeps one layer's activations.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import torch
from torch import nn

from benchmarks.measure import Row, interleaved, table
from netlapse.analysis.nap import activation_profiles
from netlapse.backends.torch import TorchNetwork
from netlapse.layers import select
from netlapse.models.torch import cnn, resnet18
from netlapse.types import Float32

BATCH = 250
SHAPE = (28, 28, 1)
NETWORKS = {"cnn": lambda: cnn(SHAPE, 10), "resnet18": lambda: resnet18(SHAPE, 10, width=32)}


EXACT = {"MALLOC_MMAP_THRESHOLD_": "65536"}
"""Makes glibc give large blocks back at once: its own free lists grow in steps of an activation, whatever is measured."""


def probe(n: int, seed: int = 0) -> Float32:
    return np.random.default_rng(seed).random((n, *SHAPE), dtype=np.float32)


def bare(module: nn.Module, inputs: Float32) -> None:
    """The floor: the forwards of a trained module's own evaluation loop, inputs converted as for the profiles."""
    module.eval()
    with torch.no_grad():
        for start in range(0, len(inputs), BATCH):
            module(torch.from_numpy(np.array(np.moveaxis(inputs[start : start + BATCH], -1, 1), order="C")))


def costs(name: str, repeats: int, n: int) -> list[Row]:
    torch.manual_seed(0)
    module = NETWORKS[name]()
    network, inputs, groups = TorchNetwork(module), probe(n), np.arange(n) % 10
    layers = network.describe(inputs)
    auto = select(layers, "auto")
    usual = select(layers, ["Conv2d", "ReLU", "Linear"])  # norms, poolings and the like left out, which repeat what these show
    times = interleaved(
        {
            "forward": lambda: bare(module, inputs),
            "mean usual": lambda: activation_profiles(network, inputs, groups, usual, batch_size=BATCH),
            "mean": lambda: activation_profiles(network, inputs, groups, network.layers, batch_size=BATCH),
            "keep auto": lambda: activation_profiles(network, inputs, groups, auto, spatial="keep", batch_size=BATCH),
            "keep": lambda: activation_profiles(network, inputs, groups, network.layers, spatial="keep", batch_size=BATCH),
        },
        repeats,
    )
    every, some, chosen = len(network.layers), len(usual), len(auto)
    return [
        Row(f"{name}, maps of {some} usual layers, CPU s", times["mean usual"], times["forward"], "forward", 1.05, "ratio"),
        Row(f"{name}, maps of all {every} layers", times["mean"], times["forward"], "forward", 1.10, "ratio"),
        Row(f"{name}, positions of {chosen} nonlinearities", times["keep auto"], times["forward"], "forward", 1.20, "ratio"),
        Row(f"{name}, positions of all {every} layers", times["keep"], times["forward"], "forward", 1.30, "ratio"),
    ]


def grown(name: str, keep: bool) -> float:
    """MiB by which the peak of this process grows from 500 inputs to 8,000; where `keep`, with one layer's activations kept."""
    import resource

    network, inputs, groups = TorchNetwork(NETWORKS[name]()), probe(8000), np.arange(8000) % 10
    peaks: list[float] = []
    # Sixteen times 500 is as much work as 8,000: what the allocator takes for that is not what is measured.
    for n in [500] * 16 + [8000]:
        kept = []
        if keep:
            kept += [network.activations(inputs[start : start + BATCH], ["relu1"]) for start in range(0, n, BATCH)]
        else:
            activation_profiles(network, inputs[:n], groups[:n], network.layers, batch_size=BATCH)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10))
    return peaks[-1] - peaks[-2]


def memory(name: str) -> Row:
    # A process of its own, started by a small one: Linux hands the peak down from the process that starts another.
    start = "import subprocess, sys; sys.exit(subprocess.run([sys.executable, *sys.argv[1:]]).returncode)"
    measured = []
    for keep in (False, True):
        script = f"import json, benchmarks.nap as b; print(json.dumps(b.grown({name!r}, {keep})))"
        run = subprocess.run([sys.executable, "-c", start, "-c", script], capture_output=True, text=True, check=True, env=os.environ | EXACT)
        measured.append(json.loads(run.stdout.splitlines()[-1]))
    return Row(f"{name}, peak from 500 to 8,000 inputs, MiB", measured[0], measured[1], "activations of relu1 kept", 5)


def main() -> list[Row]:
    torch.set_num_threads(1)
    rows = [*costs("cnn", 11, 1000), *costs("resnet18", 9, 500), memory("cnn")]
    print(table(rows))
    return rows


if __name__ == "__main__":
    sys.exit(not all(row.ok for row in main()))
