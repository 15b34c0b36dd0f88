"""Occlusion that computes only what changes: what whole images give, on any network, or a reason why whole images are shown."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from netlapse.backends import torch_occlusion
from netlapse.backends.torch import TorchNetwork
from netlapse.models.torch import cnn, resnet18
from netlapse.occlusion import occluded
from netlapse.types import Field, Float32, Int64, Network, Occlusion

CLOSE = 1e-5  # of the largest: convolutions are summed in another order


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """Every weight, bias and statistic away from its default, at which a mistake might not show."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if tensor.is_floating_point():
                noise = torch.randn(tensor.shape, generator=generator)
                tensor.copy_(noise.abs() + 0.5 if "var" in name else noise * (2 / max(1, tensor[0].numel() if tensor.ndim > 1 else 4)) ** 0.5)
    return module


def alexnet() -> nn.Module:
    """Krizhevsky et al., 2012, narrow; in-place ReLUs and overlapping pooling."""
    return nn.Sequential(
        nn.Conv2d(3, 6, 11, 4, 2), nn.ReLU(True), nn.MaxPool2d(3, 2), nn.Conv2d(6, 8, 5, padding=2, groups=2), nn.ReLU(True), nn.MaxPool2d(3, 2),
        nn.Conv2d(8, 9, 3, padding=1), nn.ReLU(True), nn.Dropout(), nn.Conv2d(9, 7, 3, padding=1), nn.ReLU(True), nn.Flatten(), nn.LazyLinear(4),
    )  # fmt: skip


def vgg() -> nn.Module:
    """Simonyan & Zisserman, 2015, narrow."""
    layers: list[nn.Module] = []
    u = 3
    for v, n in ((4, 2), (6, 2), (8, 3)):
        for _ in range(n):
            layers += [nn.Conv2d(u, v, 3, padding=1), nn.BatchNorm2d(v), nn.ReLU(inplace=True)]
            u = v
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


class Odd(nn.Module):
    """A convolution used twice, functional operations, a constant per channel, concatenation, and a shortcut over different reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.start, self.shared, self.kernel = nn.Conv2d(3, 4, 4, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Parameter(torch.randn(4, 8, 2, 3))
        self.mean, self.slope, self.end = nn.Parameter(torch.randn(3, 1, 1)), nn.PReLU(4), nn.Conv2d(4, 3, 3, padding=2, dilation=2)

    def forward(self, x: Tensor) -> Tensor:
        x = (x - self.mean) / 2.5
        x = torch.tanh(self.start(x))
        y = self.shared(self.slope(self.shared(x)))
        y += x
        both = torch.cat([y, F.leaky_relu(x, 0.3, inplace=False)], dim=1)
        y = F.conv2d(F.pad(both, (1, 1, 0, 1)), self.kernel)
        y = 2 * F.relu_(y) - y
        return self.end(y + F.max_pool2d(y, 3, 1, 1))


class Overwritten(nn.Module):
    """What a convolution was given is overwritten afterwards: it was given what was there before."""

    def __init__(self) -> None:
        super().__init__()
        self.start, self.inner, self.end = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.start(x)
        y = self.inner(x)
        return self.end(y + x.sigmoid_())


class Gate(nn.Module):
    """Squeeze and excitation: what all positions see is given back to each, so that whole tensors are computed from there."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.squeeze, self.last = nn.Conv2d(3, 4, 3, 2), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.last(x * torch.sigmoid(self.squeeze(F.adaptive_avg_pool2d(x, 1))) + x.mean((2, 3), keepdim=True))


def stack(*layers: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(*layers)


ZOO: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int]]] = {
    "alexnet": (alexnet, (80, 67, 3)),
    "vgg": (vgg, (28, 33, 3)),
    "resnet18": (lambda: resnet18((40, 36, 3), 5, width=4), (40, 36, 3)),
    "cnn": (lambda: cnn((24, 20, 3), 5), (24, 20, 3)),
    "odd": (Odd, (22, 19, 3)),
    "overwritten": (Overwritten, (15, 14, 3)),
    "gate": (Gate, (17, 19, 3)),
    "dilated": (stack(nn.Conv2d(3, 4, 3, dilation=3), nn.Conv2d(4, 3, (2, 3), dilation=(2, 1), padding=(1, 2))), (21, 23, 3)),
    "strides with gaps": (stack(nn.Conv2d(3, 4, 2, stride=3), nn.Conv2d(4, 4, 1, stride=2), nn.Conv2d(4, 4, 3, padding=1)), (32, 29, 3)),
    "even, same": (stack(nn.Conv2d(3, 4, 4, padding="same"), nn.Conv2d(4, 4, (2, 5), padding="same", bias=False)), (15, 14, 3)),
    "depthwise": (stack(nn.Conv2d(3, 6, 3, 2, groups=3), nn.ReLU6(), nn.Conv2d(6, 6, 3, 1, 1, groups=6), nn.Conv2d(6, 4, 1)), (23, 20, 3)),
    "ceil": (stack(nn.Conv2d(3, 4, 3), nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.AvgPool2d(2, 2, ceil_mode=True), nn.Conv2d(4, 3, 2)), (22, 25, 3)),
    "averages": (
        stack(nn.AvgPool2d(3, 2, 1, count_include_pad=False), nn.Conv2d(3, 4, 3), nn.AvgPool2d((2, 3), 1, 1), nn.AvgPool2d(3, 2, 1, True, False)),
        (23, 21, 3),
    ),
    "padded": (stack(nn.ZeroPad2d((2, 0, 1, 3)), nn.Conv2d(3, 4, 3), nn.ConstantPad2d((1, -2, 0, 1), 0.7), nn.Conv2d(4, 3, 3)), (16, 18, 3)),
    "local response": (stack(nn.Conv2d(3, 6, 3), nn.LocalResponseNorm(3), nn.Hardswish(), nn.Conv2d(6, 3, 3), nn.Softmax2d()), (16, 18, 3)),
}  # fmt: skip


def corners_of(shape: tuple[int, int, int], occluder: int, n: int = 14) -> Int64:
    """Corners and edges of the image, some occluders partly outside of it and two wholly, and others inside."""
    h, w, _ = shape
    lows, rights, bottoms = (0, 0), (0, w - occluder), (h - occluder, 0)
    given = [
        lows,
        rights,
        bottoms,
        (h - occluder, w - occluder),
        (-3, -2),
        (h - 2, w - 1),
        (-1, w // 2),
        (-occluder, 0),
        (h, w),
        (h // 2, 0),
        (0, w // 2),
    ]
    inside = np.random.default_rng(0).integers(0, (h - occluder + 1, w - occluder + 1), (n, 2))
    return np.concatenate([np.array(given), inside])


def images(shape: tuple[int, int, int]) -> tuple[Float32, Float32]:
    draw = np.random.default_rng(1)
    return draw.normal(size=shape).astype(np.float32), draw.normal(size=shape).astype(np.float32)


def spatial(network: TorchNetwork, shape: tuple[int, int, int]) -> list[str]:
    """Some of the layers, evenly, the last among them."""
    found = [layer.name for layer in network.describe(np.zeros((1, *shape), np.float32)) if len(layer.shape) == 3]
    return found[:: -max(1, len(found) // 7)]


def close(found: Float32, expected: Float32) -> bool:
    return bool(np.abs(found - expected).max() <= CLOSE * np.abs(expected).max())


def asked(
    network: Network,
    image: Float32,
    layer: str,
    corners: Int64,
    side: int,
    replacement: Float32,
    units: Int64 | None = None,
    places: Int64 | None = None,
) -> Occlusion:
    """Of all units where not told, each looked at where its activation is highest on the clean image."""
    clean = network.activations(image[None], [layer])[layer][0]
    units = np.arange(clean.shape[-1]) if units is None else units
    own = np.stack(np.unravel_index(clean.reshape(-1, clean.shape[-1]).argmax(axis=0), clean.shape[:2]), axis=1)
    return Occlusion(image, layer, corners, side, replacement, units, own[units] if places is None else places)


def made(name: str) -> tuple[TorchNetwork, tuple[int, int, int]]:
    make, shape = ZOO[name]
    module = make()
    module(torch.zeros(2, shape[2], *shape[:2]))
    return TorchNetwork(randomised(module)), shape


@pytest.mark.parametrize("whole_from", [torch_occlusion.NEARLY_WHOLE, 2.0, 0.0], ids=["as it is", "never whole", "always whole"])
@pytest.mark.parametrize("name", ZOO)
def test_what_changes_is_what_whole_images_change(name: str, whole_from: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_occlusion, "NEARLY_WHOLE", whole_from)
    monkeypatch.setattr(torch_occlusion, "GATHERED", 1 << 16)  # so that occluders come in several batches
    network, shape = made(name)
    image, replacement = images(shape)
    for layer in spatial(network, shape):
        for occluder in (5, 1):
            corners = corners_of(shape, occluder)
            occlusion = asked(network, image, layer, corners, occluder, replacement)
            found, expected = network.occluded(occlusion), occluded(network, occlusion)
            assert found.batched == "", layer
            assert close(found.at, expected.at), layer
            assert close(found.highest, expected.highest), layer
            if occluder == 5:
                assert np.abs(expected.at - expected.at[7]).max() > 1e-3, "no occluder changes anything: the law says nothing here"


@pytest.mark.parametrize("name", ZOO)
def test_at_given_places_alone_the_numbers_are_the_same(name: str) -> None:
    network, shape = made(name)
    image, replacement = images(shape)
    draw = np.random.default_rng(2)
    for layer in spatial(network, shape):
        h, w, u = next(found.shape for found in network.describe(image[None]) if found.name == layer)
        units = np.array([u - 1, 0, u // 2, 0])
        places = np.array([[0, 0], [h - 1, w - 1], [h // 2, w // 2], [draw.integers(h), draw.integers(w)]])
        corners = corners_of(shape, 4)
        occlusion = asked(network, image, layer, corners, 4, replacement, units, places)
        expected = occluded(network, occlusion).at
        assert close(network.occluded_at(occlusion), expected), layer
        assert close(network.occluded(occlusion).at, expected), layer


def test_in_double_precision_nothing_but_rounding_to_single_is_left() -> None:
    network, shape = made("odd")
    network = TorchNetwork(network.module.double())
    image, replacement = images(shape)
    corners = corners_of(shape, 5)
    occlusion = asked(network, image, "end", corners, 5, replacement)
    found, expected = network.occluded(occlusion), occluded(network, occlusion)
    np.testing.assert_allclose(found.at, expected.at, rtol=2e-7, atol=1e-12)
    np.testing.assert_allclose(found.highest, expected.highest, rtol=2e-7, atol=1e-12)


def test_occluders_outside_of_the_field_change_nothing_at_all_and_those_that_meet_it_do() -> None:
    network, shape = made("vgg")
    image, replacement = images(shape)
    field = network.fields(image[None])["10"]
    assert isinstance(field, Field)
    corners = np.stack(np.meshgrid(np.arange(-4, 28), np.arange(-4, 33), indexing="ij"), axis=-1).reshape(-1, 2)
    places = np.array([[3, 4]])
    at = network.occluded_at(asked(network, image, "10", corners, 4, replacement, np.array([1]), places))[:, 0]
    low = np.array([field.offset[axis] + places[0, axis] * field.stride[axis] for axis in (0, 1)])
    meets = ((corners + 4 > low) & (corners < low + field.size)).all(axis=1)
    clean = network.activations(image[None], ["10"])["10"][0, 3, 4, 1]
    np.testing.assert_allclose(at[~meets], clean, rtol=1e-5)
    assert meets.any()
    assert (~meets).any()
    assert (np.abs(at[meets] - clean) > 1e-6).mean() > 0.8


class Backwards(nn.Module):
    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.before, self.after, self.between = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), between

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.between(self.before(x)))


@pytest.mark.parametrize(
    ("between", "reason"),
    [
        (lambda x: x.flip(2), "flip in the network's own forward"),
        (lambda x: F.instance_norm(x), "instance_norm in the network's own forward"),
        (lambda x: x * torch.linspace(0, 1, x.shape[2])[:, None], "mul in the network's own forward"),
        (lambda x: x if x.mean() > 100 else -x, "bool in the network's own forward"),
        (lambda x: x.permute(0, 2, 3, 1).softmax(-1).permute(0, 3, 1, 2), "permute in the network's own forward"),
        (lambda x: x.index_fill(1, torch.tensor([0]), 1.0), "index_fill in the network's own forward"),
        (nn.Sequential(nn.ConstantPad2d(1, 0.0), nn.ReflectionPad2d(1)), "pad in 'between.1'"),
    ],
)
def test_what_cannot_be_followed_is_shown_whole_images_and_named(
    between: Callable[[Tensor], Tensor], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    network = TorchNetwork(randomised(Backwards(between)))
    image, replacement = images((14, 13, 3))
    corners = corners_of((14, 13, 3), 4)
    occlusion = asked(network, image, "after", corners, 4, replacement)
    with caplog.at_level(logging.WARNING):
        found = network.occluded(occlusion, batch_size=7)
    assert found.batched == reason
    assert f"occlusion of layer 'after' shows whole images, as it does not know how to follow {reason}" in caplog.text
    expected = occluded(network, occlusion)
    assert close(found.at, expected.at)
    assert close(found.highest, expected.highest)
    before = network.occluded(asked(network, image, "before", corners, 4, replacement))
    assert before.batched == ""  # what comes after a layer is not on the way to it


def test_what_comes_after_the_layer_does_not_run() -> None:
    class Fails(nn.Module):
        armed = False

        def forward(self, x: Tensor) -> Tensor:
            assert not self.armed
            return x

    module = nn.Sequential(nn.Conv2d(3, 2, 3), Fails())
    network = TorchNetwork(module)
    image, replacement = images((8, 8, 3))
    occlusion = asked(network, image, "0", np.array([[1, 1]]), 2, replacement)
    Fails.armed = True
    network.occluded(occlusion)
    network.occluded_at(occlusion)


def test_nothing_is_left_on_the_network() -> None:
    network, shape = made("resnet18")
    module = network.module.train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    modes = [part.training for part in module.modules()]
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    state = torch.get_rng_state()
    image, replacement = images(shape)
    occlusion = asked(network, image, spatial(network, shape)[0], corners_of(shape, 5), 5, replacement)
    network.occluded(occlusion)
    network.occluded_at(occlusion)
    network.fields(image[None])
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert modes == [part.training for part in module.modules()]
    assert all(parameter.requires_grad and torch.equal(parameter.grad, torch.ones_like(parameter)) for parameter in module.parameters())  # type: ignore[arg-type]
    assert torch.equal(state, torch.get_rng_state())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer": "11"}, r"layer '11' has shape \(\d+,\) and no positions in an image; those that have are \['0', '1'"),
        ({"layer": "conv9"}, r"no layer named 'conv9'; this network has \['0', '1'"),
        ({"side": 0}, "the occluder is 0 pixels wide; expected at least 1"),
        ({"corners": np.zeros((2, 3), int)}, r"corners have shape \(2, 3\) and dtype int64; expected \(p, 2\) integers"),
        ({"corners": np.zeros((2, 2))}, r"corners have shape \(2, 2\) and dtype float64; expected \(p, 2\) integers"),
        ({"replacement": np.zeros((80, 67, 1))}, r"an image \(80, 67, 3\) and a replacement \(80, 67, 1\); expected two of one shape"),
        ({"units": np.array([6])}, r"occlusion was asked of units \[6\]; layer '0' has 0 to 5"),
        ({"places": np.zeros((2, 2), int)}, r"places have shape \(2, 2\); expected \(6, 2\), a row of 0 to 18 and a column of 0 to 15 per unit"),
        ({"places": np.full((6, 2), 19)}, r"places have shape \(6, 2\); expected \(6, 2\), a row of 0 to 18"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    network, shape = made("alexnet")
    image, replacement = images(shape)
    occlusion = replace(asked(network, image, "0", np.array([[0, 0]]), 5, replacement), **change)
    for ask in (network.occluded, network.occluded_at, partial(occluded, network)):
        with pytest.raises(ValueError, match=message):
            ask(occlusion)
