"""Theoretical receptive fields in torch: the box outside of which no gradient reaches, and all of which it reaches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from netlapse.backends.torch import TorchNetwork
from netlapse.models.torch import cnn, resnet18, transformer
from netlapse.types import Field, NoField


def positive(module: nn.Module) -> nn.Module:
    """In float64 with weights that are all positive, so that no path from a pixel to a unit cancels another."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.uniform_(0.1, 1, generator=generator)
    return module.double()


def support(network: TorchNetwork, layer: str, shape: tuple[int, ...], of: tuple[int, ...], i: int, j: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows and the columns of an image that the unit at (i, j) of a layer depends on: those of a gradient that is not zero."""
    cotangent = np.zeros((1, *of))
    cotangent[0, i, j] = 1
    touched = network.vjp(np.random.default_rng(1).uniform(size=(1, *shape)), layer, cotangent, ["input"])["input"][0].any(-1)
    return np.flatnonzero(touched.any(1)), np.flatnonzero(touched.any(0))


def box(field: Field, axis: int, i: int, length: int) -> list[int]:
    low = field.offset[axis] + i * field.stride[axis]
    return [at for at in range(low, low + field.size[axis]) if 0 <= at < length]


def spatial(network: TorchNetwork, shape: tuple[int, int, int]) -> dict[str, tuple[int, ...]]:
    return {layer.name: layer.shape for layer in network.describe(np.zeros((1, *shape))) if len(layer.shape) == 3}


def agrees(module: nn.Module, shape: tuple[int, int, int], *, borders: bool = True) -> dict[str, Field | NoField]:
    """The law at the corners, the edges and the middle of every layer; without `borders` only for units whose box is in the image."""
    network = TorchNetwork(positive(module))
    fields = network.fields(np.zeros((1, *shape)))
    layers = spatial(network, shape)
    assert set(fields) == set(layers)
    checked = 0
    for name, of in layers.items():
        (h, w, _), field = of, fields[name]
        if isinstance(field, NoField):
            continue
        for i in sorted({0, 1, h // 2, h - 1} & set(range(h))):
            for j in sorted({0, w // 2, w - 1}):
                found = support(network, name, shape, of, i, j)
                for axis, (rows, at) in enumerate(zip(found, (i, j))):
                    allowed = box(field, axis, at, shape[axis])
                    if borders or len(allowed) == field.size[axis]:
                        assert rows.tolist() == allowed, (name, field, i, j)
                        checked += 1
                    else:
                        assert set(rows.tolist()) <= set(allowed), (name, field, i, j)
    assert checked
    return fields


class Shortcut(nn.Module):
    """Two paths of one stride, of which one sees farther, and not to both sides alike."""

    def __init__(self) -> None:
        super().__init__()
        self.start, self.a, self.b = nn.Conv2d(2, 3, 2, padding=1), nn.Conv2d(3, 3, 3, stride=2, padding=2), nn.Conv2d(3, 3, 4, stride=2)
        self.both, self.joined = nn.Identity(), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.start(x)
        a, b = self.a(x), self.b(x)
        h, w = min(a.shape[2], b.shape[2]), min(a.shape[3], b.shape[3])
        a, b = a[..., :h, :w], b[:, :, :h, :w]
        return self.joined(torch.cat([self.both(a + b), a], dim=1))


class Functional(nn.Module):
    """No module but for its weights; channels last for a while; a crop, every second row, an in-place ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel, self.mix = nn.Parameter(torch.rand(3, 2, 3, 2)), nn.Linear(3, 3)
        self.first, self.last = nn.Identity(), nn.Conv2d(3, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(F.pad(x - 0.5, (1, 0, 2, 1)), self.kernel, dilation=(1, 1)).abs_()
        x = self.mix(x.permute(0, 2, 3, 1))
        x = self.first(F.relu(x, inplace=True).movedim(-1, 1))
        return self.last(F.dropout(x[:, :, 1::2, 2:], 0.5, self.training))


class Gate(nn.Module):
    """What all positions see together, given back to each."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.squeeze, self.gated = nn.Conv2d(2, 3, 3), nn.Linear(3, 3), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.gated(x * self.squeeze(x.mean((2, 3))).view(len(x), 3, 1, 1))


def dense(u: int, v: int, kernel: int, **options: object) -> nn.Conv2d:
    return nn.Conv2d(u, v, kernel, **options)  # type: ignore[arg-type]


ZOO: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int]]] = {
    "one": (lambda: nn.Sequential(nn.Conv2d(2, 3, 3, padding=1)), (7, 6, 2)),
    "pooled": (lambda: nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(True), nn.AvgPool2d(2), nn.Conv2d(3, 2, 3, padding=1)), (8, 10, 2)),
    "even kernels": (lambda: nn.Sequential(nn.Conv2d(2, 3, 2, padding="same"), nn.Conv2d(3, 3, 4, padding=1), nn.AvgPool2d(3, 2)), (10, 12, 2)),
    "dilated": (lambda: nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 2, 3, dilation=3, padding=3)), (12, 13, 2)),
    "grouped": (lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=4)), (11, 9, 2)),
    "oblong": (lambda: nn.Sequential(nn.Conv2d(2, 3, (1, 5), padding=(0, 2)), nn.AvgPool2d((3, 1), (2, 1))), (9, 8, 2)),
    "shortcut": (Shortcut, (12, 12, 2)),
    "functional": (Functional, (10, 11, 2)),
    "gate": (Gate, (6, 7, 2)),
    "group norm": (lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4)), (6, 7, 2)),
    "adaptive": (lambda: nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.AdaptiveAvgPool2d((3, 1)), nn.Conv2d(4, 2, 1)), (6, 7, 2)),
    "reflected": (lambda: nn.Sequential(nn.Conv2d(2, 4, 5, padding=2, padding_mode="reflect")), (8, 7, 2)),
    "twice": (lambda: Twice(), (9, 9, 2)),
    "resnet18": (lambda: resnet18((33, 33, 3), 5, width=4), (33, 33, 3)),
    "cnn": (lambda: cnn((16, 12, 3), 5), (16, 12, 3)),
}


class Twice(nn.Module):
    """A convolution used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.end = nn.Conv2d(2, 2, 3, padding=1), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.conv(self.conv(x)))


@pytest.mark.parametrize("name", ZOO)
def test_the_gradient_of_a_unit_by_the_image_reaches_its_field_and_no_farther(name: str) -> None:
    make, shape = ZOO[name]
    pooled_by_maximum = any(isinstance(module, nn.MaxPool2d) for module in make().modules())
    module = make()
    if pooled_by_maximum:  # a maximum depends on one pixel at a time; which windows it looks through is what counts here
        for parent in list(module.modules()):
            for child, pool in list(parent.named_children()):
                if isinstance(pool, nn.MaxPool2d):
                    setattr(parent, child, nn.AvgPool2d(pool.kernel_size, pool.stride, pool.padding))
    fields = agrees(module, shape, borders=name not in ("group norm", "gate"))
    assert not any(isinstance(field, NoField) for field in fields.values())


@pytest.mark.parametrize("seed", range(12))
def test_on_random_networks_the_gradient_reaches_the_field_and_no_farther(seed: int) -> None:
    """Windows without gaps, and images that the strides divide: else part of a box at the border is seen by no unit at all."""
    draw = np.random.default_rng(seed)
    layers: list[nn.Module] = []
    u, size, jump = 2, np.ones(2, int), np.ones(2, int)
    for _ in range(draw.integers(2, 5)):
        k = draw.integers(1, 5, 2)
        s, pad = draw.integers(1, k + 1), draw.integers(0, (k - 1) // 2 + 1)
        d = np.where((size >= 2 * jump) & (pad > 0), 2, 1)
        if draw.random() < 0.3:
            d = np.ones(2, int)
            layers.append(nn.AvgPool2d(k.tolist(), s.tolist(), np.minimum(pad, k // 2).tolist()))
        else:
            v = int(draw.integers(1, 4))
            layers.append(nn.Conv2d(u, v, k.tolist(), s.tolist(), pad.tolist(), d.tolist()))
            u = v
        size, jump = size + (k - 1) * d * jump, jump * s
        if jump.max() > 4:
            break
    agrees(nn.Sequential(*layers), (73, 67, 2), borders=False)


def test_of_a_small_network_by_hand() -> None:
    """VGG's beginning: 3, 5, 6 and 10 pixels, as Araujo et al. count."""
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.MaxPool2d(3, 2, ceil_mode=True),
    )
    fields = TorchNetwork(module).fields(np.zeros((1, 32, 32, 3)))
    assert fields == {
        "0": Field((3, 3), (1, 1), (-1, -1)),
        "1": Field((5, 5), (1, 1), (-2, -2)),
        "2": Field((6, 6), (2, 2), (-2, -2)),
        "3": Field((10, 10), (2, 2), (-4, -4)),
        "4": Field((14, 14), (4, 4), (-4, -4)),
    }


def test_of_alexnet_and_resnet_as_published() -> None:
    """AlexNet: 195 pixels at conv5's pooling; ResNet-18 at 224: 435 at its last block (Araujo et al., table 1: 195, 435)."""
    alex = nn.Sequential(
        nn.Conv2d(3, 2, 11, 4, 2), nn.MaxPool2d(3, 2), nn.Conv2d(2, 2, 5, padding=2), nn.MaxPool2d(3, 2), nn.Conv2d(2, 2, 3, padding=1),
        nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1), nn.MaxPool2d(3, 2),
    )  # fmt: skip
    field = TorchNetwork(alex).fields(np.zeros((1, 224, 224, 3)))["7"]
    assert isinstance(field, Field)
    assert (field.size, field.stride) == ((195, 195), (32, 32))


class Unknown(nn.Module):
    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.before, self.after, self.between = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), between
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.after(self.between(self.before(x))))


@pytest.mark.parametrize(
    ("between", "operation"),
    [
        (lambda x: F.interpolate(x, scale_factor=2), "interpolate"),
        (lambda x: x.flip(2), "flip"),
        (lambda x: torch.fft.fft2(x).real, "fft_fft2"),
        (lambda x: torch.from_numpy(x.numpy() * 2) if not x.requires_grad else x, "numpy"),
        (lambda x: F.pixel_shuffle(x, 2).repeat(1, 4, 1, 1), "pixel_shuffle"),
        (lambda x: x[:, :, ::2, ::2].repeat_interleave(2, 2).repeat_interleave(2, 3) + x, "repeat_interleave"),
        (lambda x: x + F.conv2d(x, torch.ones(4, 4, 2, 2), stride=2)[:, :, :4, :4].repeat(1, 1, 2, 2), "repeat"),
        (lambda x: x[:, :, :4, :4] + x[:, :, ::2, ::2], "add, of paths with different strides"),
    ],
)
def test_an_operation_that_is_not_known_is_named_and_no_field_is_guessed(between: Callable[[Tensor], Tensor], operation: str) -> None:
    fields = TorchNetwork(Unknown(between)).fields(np.random.default_rng(0).normal(size=(1, 8, 8, 2)))
    assert fields["before"] == Field((3, 3), (1, 1), (-1, -1))
    assert isinstance(fields["after"], NoField)
    assert fields["after"].operation == operation


class Written(nn.Module):
    """What is written into a view, and what is written into a constant, are seen through the tensors that they are part of."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.conv, self.end, self.how = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 1), how

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if self.how == "view":
            y[:, :1].add_(1)
        elif self.how == "slice":
            y[:, :1] = y[:, 1:]
        elif self.how == "constant":
            room = torch.zeros_like(y)
            part = room[:, :1]
            room += y
            y = part.repeat(1, 2, 1, 1)
        else:
            torch.mul(y, 2, out=y)
        return self.end(y)


@pytest.mark.parametrize("how", ["view", "slice", "constant", "out"])
def test_what_is_overwritten_unseen_is_unknown_and_never_mistaken_for_a_constant(how: str) -> None:
    field = TorchNetwork(Written(how)).fields(np.zeros((1, 6, 6, 2)))["end"]
    assert field in (Field((3, 3), (1, 1), (-1, -1)), NoField("overwritten", "end"), NoField("overwritten", ""), NoField("setitem", ""))
    assert isinstance(field, NoField) or how == "out"


def test_a_scripted_module_hides_the_field() -> None:
    module = nn.Sequential(nn.Conv2d(2, 2, 3), torch.jit.script(nn.Conv2d(2, 2, 3)), nn.Conv2d(2, 2, 3))  # type: ignore[no-untyped-call]
    fields = TorchNetwork(module).fields(np.zeros((1, 9, 9, 2)))
    assert fields["0"] == Field((3, 3), (1, 1), (0, 0))
    assert fields["2"] == NoField("torch.jit in '1'", "2")


def test_tokens_have_no_field_and_attention_sees_all_of_the_image() -> None:
    class Attention(nn.Module):
        def __init__(self, attend: nn.Module) -> None:
            super().__init__()
            self.patches, self.attend, self.back = nn.Conv2d(2, 4, 2, 2), attend, nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            y = self.patches(x)
            tokens = y.flatten(2).transpose(1, 2)
            return self.back(self.attend(tokens).transpose(1, 2).unflatten(2, y.shape[2:]))

    class ByHand(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.softmax(x @ x.transpose(1, 2) / 2, dim=-1) @ x

    class Itself(nn.MultiheadAttention):
        def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(x, x, x)[0]

    for attend in (ByHand(), Itself(4, 2, batch_first=True), nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)):
        fields = TorchNetwork(Attention(attend)).fields(np.random.default_rng(0).normal(size=(1, 8, 6, 2)))
        assert fields["back"] == Field((8, 6), (0, 0), (0, 0))
        assert fields["patches"] == Field((2, 2), (2, 2), (0, 0))
    assert TorchNetwork(Attention(nn.LayerNorm(4))).fields(np.zeros((1, 8, 6, 2)))["back"] == NoField("flatten", "")
    assert set(TorchNetwork(transformer((8, 8, 3), 4, width=8, depth=1, heads=2, patch=4)).fields(np.zeros((1, 8, 8, 3)))) == {"embed.project"}


def test_vectors_have_no_field() -> None:
    with pytest.raises(ValueError, match=r"receptive fields are those of images \(n, h, w, c\); the inputs have shape \(2, 5\)"):
        TorchNetwork(nn.Linear(5, 2)).fields(np.zeros((2, 5)))
