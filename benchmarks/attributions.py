"""What many attributions of one pass cost beside one forward and one backward to the inputs of the same batch, in CPU seconds of one thread.

Run with `OMP_NUM_THREADS=1 python -m benchmarks.attributions`. Networks and floor are those of `benchmarks.fullgrad`.
"""

from __future__ import annotations

import sys
from functools import partial

import numpy as np
import torch

from benchmarks.fullgrad import NETWORKS, floor
from benchmarks.measure import Row, interleaved, table
from netlapse.analysis.onepass import answered
from netlapse.analysis.saliency import Method, fullgrad, grad_cam, gradient, gradient_times_input, simple_fullgrad
from netlapse.analysis.saliency.cam import is_spatial
from netlapse.backends.torch import TorchNetwork
from netlapse.types import Float32, Int64


def together(methods: dict[str, Method], network: TorchNetwork, inputs: Float32, classes: Int64) -> None:
    """The maps of all methods, as the analysis asks for them."""
    answer = answered(methods, network, inputs, classes)
    for name in methods:
        answer(name)


def costs(name: str, repeats: int) -> list[Row]:
    torch.manual_seed(0)
    make, shape, n = NETWORKS[name]
    module, inputs, classes = make(), np.random.default_rng(0).random((n, *shape), dtype=np.float32), np.arange(n) % 10
    network = TorchNetwork(module)
    methods: dict[str, Method] = {"fullgrad": fullgrad, "simple": simple_fullgrad, "gradient": gradient, "times input": gradient_times_input}
    layers = [layer.name for layer in network.describe(inputs) if is_spatial(layer)]
    # At the layers' own resolution: enlarging the maps of so many layers is no part of the pass.
    methods |= {layer: partial(grad_cam, layer=layer, upsample=False) for layer in layers}
    times = interleaved(
        {
            "floor": lambda: floor(module, inputs, classes),
            "fullgrad": lambda: fullgrad(network, inputs, classes),
            "all": lambda: together(methods, network, inputs, classes),
            "last": lambda: grad_cam(network, inputs, classes),
        },
        repeats,
    )
    judged = (("FullGrad", "fullgrad", 1.15), (f"all, {len(layers)} layers", "all", 1.4), ("last Grad-CAM", "last", 0.55))
    return [Row(f"{name}, {what}, CPU s", times[key], times["floor"], "forward + backward", target, "ratio") for what, key, target in judged]


def main() -> list[Row]:
    torch.set_num_threads(1)
    rows = [row for name in ("resnet18, 64 x 64", "vgg16, 64 x 64") for row in costs(name, 7)]
    print(table(rows))
    return rows


if __name__ == "__main__":
    sys.exit(not all(row.ok for row in main()))
