"""What FullGrad costs beside one forward and one backward to the inputs of the same batch, in CPU seconds of one thread.

Run with `OMP_NUM_THREADS=1 python -m benchmarks.fullgrad`. The floor converts its inputs as the maps do. Random weights:
what a map costs does not depend on them.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from torch import nn

from benchmarks.measure import Row, interleaved, table
from netlapse.analysis.fullgradient import full_gradient, fullgrad, simple_fullgrad
from netlapse.backends.torch import TorchNetwork
from netlapse.models.torch import cnn, resnet18
from netlapse.types import Float32, Int64


def vgg16(n_classes: int) -> nn.Module:
    """Simonyan & Zisserman, 2015, configuration D, with a batch norm after each convolution and one dense layer."""
    layers: list[nn.Module] = []
    u = 3
    for stage in ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)):
        for wider in stage:
            layers += [nn.Conv2d(u, wider, 3, padding=1), nn.BatchNorm2d(wider), nn.ReLU(inplace=True)]
            u = wider
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(u, n_classes))


NETWORKS = {
    "cnn, 28 x 28": (lambda: cnn((28, 28, 1), 10), (28, 28, 1), 64),
    "resnet18, 64 x 64": (lambda: resnet18((64, 64, 3), 10), (64, 64, 3), 8),
    "vgg16, 64 x 64": (lambda: vgg16(10), (64, 64, 3), 8),
}


def floor(module: nn.Module, inputs: Float32, classes: Int64) -> None:
    """The gradient of the classes' logits by the inputs, as a training loop would take it."""
    module.eval().requires_grad_(False)
    x = torch.from_numpy(np.array(np.moveaxis(inputs, -1, 1), order="C")).requires_grad_()
    torch.autograd.grad(module(x).gather(1, torch.from_numpy(classes)[:, None]).sum(), x)


def costs(name: str, repeats: int) -> list[Row]:
    torch.manual_seed(0)
    make, shape, n = NETWORKS[name]
    module, inputs, classes = make(), np.random.default_rng(0).random((n, *shape), dtype=np.float32), np.arange(n) % 10
    network = TorchNetwork(module)
    times = interleaved(
        {
            "floor": lambda: floor(module, inputs, classes),
            "fullgrad": lambda: fullgrad(network, inputs, classes),
            "simple": lambda: simple_fullgrad(network, inputs, classes),
            "terms": lambda: full_gradient(network, inputs, classes),
        },
        repeats,
    )
    return [
        Row(f"{name}, {what}, CPU s", times[key], times["floor"], "forward + backward", target, "ratio")
        for key, what, target in (("fullgrad", "map", 1.3), ("simple", "simple map", 1.3), ("terms", "every term to numpy", 1.6))
    ]


def main() -> list[Row]:
    torch.set_num_threads(1)
    rows = [row for name in NETWORKS for row in costs(name, 7)]
    print(table(rows))
    return rows


if __name__ == "__main__":
    sys.exit(not all(row.ok for row in main()))
