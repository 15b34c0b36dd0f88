"""What occlusion costs beside whole images shown in batches up to the layer, and beside captum's, in CPU seconds of one thread.

Run with `OMP_NUM_THREADS=1 python -m benchmarks.occlusion`. 224 x 224 pixels, an occluder of 11, its corners a part of the
grid with stride 3, the same for all; the network is cut behind the layer for whoever does not stop there by himself.
Random weights: what it costs does not depend on them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from captum.attr import Occlusion as ByCaptum
from torch import Tensor, nn

from benchmarks.measure import Row, interleaved, table
from netlapse.backends.torch import TorchNetwork
from netlapse.models.torch import resnet18
from netlapse.types import Float32, Int64, Occlusion

SIDE, OCCLUDER = 224, 11


def alexnet() -> nn.Sequential:
    """Krizhevsky, 2014, as torchvision builds it."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(True), nn.MaxPool2d(3, 2), nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(True), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(True), nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(True), nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(True), nn.MaxPool2d(3, 2), nn.Flatten(), nn.Dropout(), nn.Linear(9216, 4096), nn.ReLU(True), nn.Dropout(), nn.Linear(4096, 4096),
        nn.ReLU(True), nn.Linear(4096, 1000),
    )  # fmt: skip


def vgg16() -> nn.Sequential:
    """Simonyan & Zisserman, 2015, configuration D up to conv3_3."""
    layers: list[nn.Module] = []
    u = 3
    for stage in ((64, 64), (128, 128), (256, 256, 256)):
        for wider in stage:
            layers += [nn.Conv2d(u, wider, 3, padding=1), nn.ReLU(inplace=True)]
            u = wider
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


class Stem(nn.Module):
    """ResNet-18 for 224 pixels (He et al., 2016), up to its first stage of two blocks."""

    def __init__(self) -> None:
        super().__init__()
        network = resnet18((64, 64, 3), 10).eval()
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(True), nn.MaxPool2d(3, 2, 1))
        self.layer1 = network.get_submodule("stage1")

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layer1(self.stem(x))
        return found


def grid(stride: int) -> Int64:
    one = np.arange(0, SIDE - OCCLUDER + 1, stride)
    return np.stack(np.meshgrid(one, one, indexing="ij"), axis=-1).reshape(-1, 2)


def whole_images(module: nn.Module, image: Tensor, corners: Int64, batch_size: int = 32) -> None:
    """The layer under each occluder, its value at one place and its highest, by images in batches."""
    with torch.inference_mode():
        for start in range(0, len(corners), batch_size):
            part = corners[start : start + batch_size]
            shown = image.repeat(len(part), 1, 1, 1)
            for picture, (y, x) in zip(shown, part):
                picture[:, y : y + OCCLUDER, x : x + OCCLUDER] = 0
            found = module(shown)
            if found.ndim == 4:
                found[:, :, 0, 0].numpy(), found.amax((2, 3)).numpy()


def by_captum(module: nn.Module, image: Tensor, stride: int) -> None:
    """One unit's map at captum's defaults: it shows one image at a time."""
    unit = ByCaptum(lambda x: module(x)[:, 0, 0, 0])
    with torch.inference_mode():
        unit.attribute(image, sliding_window_shapes=(3, OCCLUDER, OCCLUDER), strides=(3, stride, stride))


def costs(name: str, network: nn.Module, layer: str, cut: nn.Module, stride: int, target: float, repeats: int) -> list[Row]:
    network.eval().requires_grad_(False)
    cut.eval()
    picture: Float32 = np.random.default_rng(0).random((SIDE, SIDE, 3), dtype=np.float32)
    image = torch.from_numpy(np.moveaxis(picture, -1, 0)[None].copy())
    ours, corners = TorchNetwork(network), grid(stride)
    clean = ours.activations(picture[None], [layer])[layer][0]
    own = np.stack(np.unravel_index(clean.reshape(-1, clean.shape[-1]).argmax(axis=0), clean.shape[:2]), axis=1)
    occlusion = Occlusion(picture, layer, corners, OCCLUDER, np.zeros_like(picture), np.arange(len(own)), own)
    if ours.occluded(replace(occlusion, corners=corners[:2])).batched:
        raise SystemExit(f"{name}: occlusion shows whole images; there is nothing to measure")
    functions: dict[str, Callable[[], object]] = {
        "ours": partial(ours.occluded, occlusion),
        "whole": partial(whole_images, cut, image, corners),
        "captum": partial(by_captum, cut, image, min(stride, OCCLUDER)),  # which takes no larger one
    }
    times = interleaved(functions, repeats)
    # captum adds a row and a column of occluders that are cut off by the border, so that its time is per occluder.
    side = -(-(SIDE - OCCLUDER) // min(stride, OCCLUDER)) + 1
    per_captum = times["captum"] / side**2
    n = len(corners)
    return [
        Row(f"{name}, whole images, ms per occluder", 1000 * times["whole"] / n, 1000 * times["ours"] / n, "incremental", target, "ratio", True),
        Row(f"{name}, captum, ms per occluder", 1000 * per_captum, 1000 * times["ours"] / n, "incremental", 1.8 * target, "ratio", True),
    ]


def cone(repeats: int) -> Row:
    """One unit of AlexNet's conv3 at the middle, over all positions, beside the whole network."""
    network = alexnet().eval().requires_grad_(False)
    picture: Float32 = np.random.default_rng(0).random((SIDE, SIDE, 3), dtype=np.float32)
    image = torch.from_numpy(np.moveaxis(picture, -1, 0)[None].copy())
    ours, corners, some = TorchNetwork(network), grid(3), grid(15)
    ours.describe(picture[None])
    occlusion = Occlusion(picture, "6", corners, OCCLUDER, np.zeros_like(picture), np.array([5]), np.array([[6, 6]]))
    times = interleaved(
        {
            "ours": partial(ours.occluded_at, occlusion),
            "whole": partial(whole_images, network, image, some),
        },
        repeats,
    )
    whole, own = 1000 * times["whole"] / len(some), 1000 * times["ours"] / len(corners)
    return Row("alexnet conv3, one unit, whole network, ms", whole, own, "incremental", 50, "ratio", True)


def main() -> list[Row]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = []
    for name, layer, target in (("conv1", 0, 18), ("conv2", 3, 7), ("conv3", 6, 5), ("conv4", 8, 3.5), ("conv5", 10, 2.7)):
        network = alexnet()
        rows += costs(
            f"alexnet {name}", network, str(layer), network[: layer + 1], 9 if layer else 3, target, 3
        )  # what is done once per image counts at conv1
    for name, layer in (("conv2_2", 7), ("conv3_3", 14)):
        network = vgg16()
        rows += costs(f"vgg16 {name}", network, str(layer), network[: layer + 1], 21, 10, 1)
    stem = Stem()
    layers = [layer.name for layer in TorchNetwork(stem).describe(np.zeros((1, SIDE, SIDE, 3), np.float32))]
    rows += costs("resnet18 layer1", stem, layers[-1], stem, 15, 5, 3)
    rows.append(cone(3))
    print(table(rows))
    return rows


if __name__ == "__main__":
    sys.exit(not all(row.ok for row in main()))
