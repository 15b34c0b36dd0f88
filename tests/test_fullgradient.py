from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from netlapse.analysis.fullgradient import completeness, full_gradient, fullgrad, simple_fullgrad, smooth_fullgrad
from netlapse.backends.torch import TorchNetwork
from netlapse.models.torch import cnn, mlp, resnet18, transformer
from netlapse.types import Float64

CLASSES = np.array([0, 2, 3])
SHAPE = (12, 10, 3)


def images(n: int = 3, seed: int = 0) -> Float64:
    return np.random.default_rng(seed).normal(size=(n, *SHAPE))


def randomised(net: nn.Module) -> nn.Module:
    """Every bias, scale and running statistic away from its default, at which a term would be zero."""
    net(torch.zeros(2, 3, 12, 10))
    generator = torch.Generator().manual_seed(1)
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.running_mean is not None:
            assert module.running_var is not None
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return net


def head(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.LazyLinear(4))


class ShortcutFirst(nn.Module):
    """Modules declared in another order than they run in, one run twice."""

    def __init__(self) -> None:
        super().__init__()
        self.end, self.shared, self.shortcut, self.norm = nn.Linear(6, 4), nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6)
        self.start, self.relu = nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        short = self.shortcut(x)
        y = self.relu(self.norm(self.start(x)))
        y = self.shared(self.relu(self.shared(y)))
        y += short
        return self.end(self.relu(y).mean((2, 3)))


class Functional(nn.Module):
    """No module but for its weights, and most ways there are to write into a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel, self.mean, self.end = (
            nn.Parameter(torch.randn(6, 3, 3, 3) / 5),
            nn.Parameter(torch.randn(3, 1, 1)),
            nn.Parameter(torch.randn(4, 6)),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = (x - self.mean) / 2.5
        x = torch.tanh(F.conv2d(x, self.kernel, padding=1))
        x = x * torch.sigmoid(x.mean((2, 3), keepdim=True))
        x[:, :2].add_(0.3)
        x = F.group_norm(x, 2)
        x = 1 - x
        x[:, 0] = 0.5
        x += 0.2
        x = torch.sub(torch.add(x, 0.3, alpha=2), 0.1, alpha=3)
        x = torch.where(x > 0, x, 0.1 * x - 0.1)
        x = torch.cat([x[:, :3], torch.ones_like(x[:, 3:])], 1) + torch.sub(2, x) + torch.add(x, other=x, alpha=0.5)
        x = F.elu(x, inplace=True)
        buffer = torch.zeros_like(x.detach())
        buffer[:, :, 1:] = x[:, :, 1:] ** 2
        return F.linear(buffer.permute(0, 2, 3, 1).mean((1, 2)), self.end, torch.ones(4).to(x))


class DenseBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Sequential(nn.BatchNorm2d(3 + 4 * i), nn.ReLU(), nn.Conv2d(3 + 4 * i, 4, 3, padding=1)) for i in range(3))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return x


class Residual(nn.Module):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.inner = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


class Permute(nn.Module):
    def __init__(self, *order: int) -> None:
        super().__init__()
        self.order = order

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.order)


class SqueezeExcite(nn.Module):
    def __init__(self, u: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(u, 2, 1), nn.SiLU(), nn.Conv2d(2, u, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class Windows(nn.Module):
    """Attention within windows, which are a batch of their own, and across a sequence that comes before the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.within, self.norm = nn.Conv2d(3, 8, 2, 2), nn.MultiheadAttention(8, 2, batch_first=True), nn.LayerNorm(8)
        self.across, self.end = nn.TransformerEncoderLayer(8, 2, 16, activation="gelu"), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).permute(0, 2, 3, 1)[:, :, :4]
        n, h, w, c = x.shape
        windows = x.reshape(n, h // 2, 2, w // 2, 2, c).transpose(2, 3).reshape(-1, 4, c)
        windows = self.norm(windows + self.within(windows, windows, windows, need_weights=False)[0])
        x = windows.reshape(n, h * w, c)
        return self.end(self.across(x.transpose(0, 1)).mean(0))


class Shifted(nn.Module):
    """A probability at the end, and 1-d convolutions inside."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.lstm, self.end = nn.Conv1d(36, 5, 3), nn.LSTM(8, 6, batch_first=True), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.lstm(F.gelu(self.conv(x.flatten(1, 2))))[0][:, -1]).softmax(1)


def mobile(u: int = 6) -> nn.Sequential:
    inner = nn.Conv2d(u, 12, 1), nn.BatchNorm2d(12), nn.ReLU6(True), nn.Conv2d(12, 12, 3, padding=2, dilation=2, groups=12)
    return head(nn.Conv2d(3, u, 3), Residual(*inner, nn.BatchNorm2d(12), nn.Hardswish(True), nn.Conv2d(12, u, 1), nn.BatchNorm2d(u)))


def convnext(u: int = 6) -> nn.Sequential:
    last = Permute(0, 2, 3, 1), nn.LayerNorm(u), nn.Linear(u, 12), nn.GELU(), nn.Linear(12, u), Permute(0, 3, 1, 2)
    return head(nn.Conv2d(3, u, 2, 2), Residual(nn.Conv2d(u, u, 5, padding=2, groups=u), *last))


def vgg() -> nn.Sequential:
    first = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(True), nn.MaxPool2d(2)
    return nn.Sequential(*first, nn.Conv2d(6, 8, 3), nn.BatchNorm2d(8, affine=False), nn.ReLU(True), nn.Flatten(), nn.Dropout(), nn.LazyLinear(4))


ZOO: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: mlp(SHAPE, 4, hidden=(9, 7)),
    "cnn": lambda: cnn(SHAPE, 4, channels=(4, 5, 6), hidden=7),
    "vgg": vgg,
    "resnet18": lambda: resnet18(SHAPE, 4, width=4),
    "shortcut first, shared, out of order": ShortcutFirst,
    "densenet": lambda: head(DenseBlock()),
    "mobilenet": mobile,
    "convnext": convnext,
    "efficientnet": lambda: head(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.SiLU(True), SqueezeExcite(6), nn.Conv2d(6, 6, 3, padding="same")),
    "transformer": lambda: transformer(SHAPE, 4, width=8, depth=2, heads=2, patch=2),
    "windows, sequence first": Windows,
    "functional": Functional,
    "recurrent, softmax": Shifted,
    "norms": lambda: head(
        nn.Conv2d(3, 6, 3), nn.GroupNorm(2, 6), nn.InstanceNorm2d(6, track_running_stats=True), nn.LayerNorm([6, 10, 8]), nn.PReLU()
    ),
    "activations": lambda: head(nn.Conv2d(3, 6, 3), nn.ELU(True), nn.Softplus(), nn.CELU(), nn.SELU(True), nn.LeakyReLU(0.1), nn.Mish()),
    "transposed": lambda: head(nn.Conv2d(3, 6, 3, 2), nn.ConvTranspose2d(6, 5, 3, 2), nn.Upsample(scale_factor=2, mode="bilinear"), nn.Tanh()),
    "pools": lambda: head(nn.Conv2d(3, 6, 3, padding=1, padding_mode="circular"), nn.AvgPool2d(2), nn.LPPool2d(2, 2), nn.LocalResponseNorm(2)),
    "frozen, without weights": lambda: head(nn.Conv2d(3, 6, 3, bias=False).requires_grad_(False), nn.BatchNorm2d(6).requires_grad_(False), nn.ReLU()),
}


def scores(net: nn.Module, inputs: Float64, dtype: torch.dtype) -> Float64:
    """The logits of the classes, by the module alone."""
    net = copy.deepcopy(net).eval()
    kept: list[Tensor] = []
    last = [module for module in net.modules() if isinstance(module, nn.Linear)]
    hook = last[-1].register_forward_hook(lambda module, args, output: kept.append(output)) if isinstance(net, Shifted) else None
    result = net(torch.from_numpy(np.ascontiguousarray(np.moveaxis(inputs, -1, 1))).to(dtype))
    found = kept[-1] if hook is not None else result
    return np.asarray(found.detach().double().numpy()[np.arange(len(inputs)), CLASSES[: len(inputs)]], np.float64)


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-10)])
def test_terms_add_up_to_the_score(name: str, dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    net, inputs = randomised(ZOO[name]()).to(dtype), images()
    network = TorchNetwork(net)
    by_input, terms = full_gradient(network, inputs, CLASSES)
    expected = scores(net, inputs, dtype)
    total = (by_input * inputs).reshape(3, -1).sum(axis=1) + sum(term.reshape(3, -1).sum(axis=1) for term in terms.values())
    assert np.abs(total - expected).max() <= tolerance * (expected.max() - expected.min())
    assert all(np.abs(term).max() > 0 for term in terms.values())
    assert completeness(network, inputs, CLASSES).max() < tolerance / 100


CHAIN = nn.Sequential(
    nn.Conv2d(3, 4, 3, stride=2, padding=1),
    nn.BatchNorm2d(4),
    nn.GELU(),
    nn.GroupNorm(2, 4),
    nn.ReLU(inplace=True),
    nn.Conv2d(4, 3, 3, groups=1, dilation=2),
    nn.BatchNorm2d(3, affine=False),
    nn.SiLU(inplace=True),
    nn.InstanceNorm2d(3),
    nn.Sigmoid(),
    nn.Softmax2d(),
    nn.Flatten(),
    nn.LayerNorm(6),
    nn.ReLU6(),
    nn.Linear(6, 4),
)


def jacobian(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """(outputs, inputs) of one input, entry by entry of the output."""
    found = torch.autograd.functional.jacobian(lambda x: function(x[None].clone())[0].flatten(), at)
    return found.reshape(-1, at.numel())  # type: ignore[no-any-return]


def test_terms_are_the_gradient_times_output_minus_jacobian_times_input() -> None:
    net = randomised(copy.deepcopy(CHAIN)).double().eval()
    assert isinstance(net, nn.Sequential)
    inputs = images()
    by_input, terms = full_gradient(TorchNetwork(net), inputs, CLASSES)
    expected: dict[str, list[Float64]] = {str(i): [] for i in range(len(net))}
    for image, k in zip(inputs, CLASSES):
        x = torch.from_numpy(np.ascontiguousarray(np.moveaxis(image, -1, 0)))
        np.testing.assert_allclose(np.moveaxis(by_input[len(expected["0"])], -1, 0).ravel(), jacobian(net, x)[k], atol=1e-10)
        for i, layer in enumerate(net):
            y = layer(x[None].clone())[0].detach()
            bias = y.flatten() - jacobian(layer, x) @ x.flatten()
            gradient = jacobian(net[i + 1 :], y)[k]
            term = (gradient * bias).reshape(y.shape)
            expected[str(i)].append(np.moveaxis(term.numpy(), 0, -1))
            x = y
    for name, term in expected.items():
        assert (name in terms) == (np.abs(term).max() > 1e-12), name
        if name in terms:
            np.testing.assert_allclose(terms[name], np.stack(term), rtol=0, atol=1e-10)


def psi(term: Tensor) -> Tensor:
    """The published program's, channel by channel."""
    term = term.abs()
    flat = term.flatten(1)
    term = term - flat.min(dim=1).values[:, None, None, None]
    term = term / (term.flatten(1).max(dim=1).values[:, None, None, None] + 1e-6)
    return F.interpolate(term, size=SHAPE[:2], mode="bilinear", align_corners=True).sum(dim=1)


def literal_map(net: nn.Sequential, inputs: Float64, *, simple: bool) -> Float64:
    """Of a network of convolutions, batch norms and ReLUs, as the paper has it: biases that are variables at every position."""
    x = torch.from_numpy(np.ascontiguousarray(np.moveaxis(inputs, -1, 1))).requires_grad_()
    y, biases = x, []
    for layer in net:
        if isinstance(layer, nn.Conv2d):
            y = F.conv2d(y, layer.weight, None, layer.stride, layer.padding)
            bias = layer.bias
        elif isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            scale = layer.weight / (layer.running_var + layer.eps).sqrt()
            y, bias = y * scale[:, None, None], layer.bias - layer.running_mean * scale
        else:
            y = layer(y)
            continue
        assert bias is not None
        biases.append(bias.detach()[None, :, None, None].expand(y.shape).clone().requires_grad_())
        y = y + biases[-1]
    gradients = torch.autograd.grad(y[torch.arange(len(inputs)), torch.from_numpy(CLASSES)].sum(), [x, *biases])
    found = psi(gradients[0] * x)
    for gradient, bias in zip(gradients[1:], biases):
        found = found + psi(gradient if simple else gradient * bias)
    return np.asarray(found.detach().numpy(), np.float64)


def plain() -> nn.Sequential:
    torch.manual_seed(3)
    first = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 3), nn.ReLU()
    net = randomised(nn.Sequential(*first, nn.AvgPool2d((2, 1)), nn.Flatten(), nn.LazyLinear(4))).double().eval()
    assert isinstance(net, nn.Sequential)
    return net


@pytest.mark.parametrize(("method", "simple"), [(fullgrad, False), (simple_fullgrad, True)])
def test_maps_are_the_published_ones(method: Callable[..., Float64], simple: bool) -> None:
    net, inputs = plain(), images()
    np.testing.assert_allclose(method(TorchNetwork(net), inputs, CLASSES, batch_size=2), literal_map(net, inputs, simple=simple), rtol=0, atol=1e-8)


def test_maps_do_not_depend_on_what_a_bias_of_zero_is_called() -> None:
    """At initialisation the biases are zero: the gradient there still counts in the simple map."""
    net = plain()
    for layer in (net[0], net[4]):
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    np.testing.assert_allclose(simple_fullgrad(TorchNetwork(net), images(), CLASSES), literal_map(net, images(), simple=True), rtol=0, atol=1e-8)
    assert np.abs(full_gradient(TorchNetwork(net), images(), CLASSES)[1]["0"]).max() == 0


@pytest.mark.parametrize("method", [fullgrad, simple_fullgrad, smooth_fullgrad])
@pytest.mark.parametrize("name", ["mobilenet", "convnext", "functional", "efficientnet"])
def test_maps_do_not_depend_on_the_other_inputs_of_a_batch(method: Callable[..., Float64], name: str) -> None:
    torch.manual_seed(0)
    network, inputs = TorchNetwork(randomised(ZOO[name]()).double()), images()
    inputs[1] *= 5  # clipped where others are not
    options: dict[str, Any] = {"samples": 2} if method is smooth_fullgrad else {}
    together = method(network, inputs, CLASSES, **options)
    assert together.shape == (3, 12, 10)
    assert together.dtype == np.float64
    alone = [method(network, inputs[i : i + 1], CLASSES[i : i + 1], **options)[0] for i in range(3)]
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-7)


def test_smooth_fullgrad_without_noise_is_fullgrad() -> None:
    network, inputs = TorchNetwork(plain()), images()
    np.testing.assert_allclose(smooth_fullgrad(network, inputs, CLASSES, sigma=0), fullgrad(network, inputs, CLASSES), rtol=0, atol=1e-10)
    noisy = smooth_fullgrad(network, inputs, CLASSES, samples=3)
    assert np.abs(noisy - fullgrad(network, inputs, CLASSES)).max() > 1e-3
    np.testing.assert_array_equal(noisy, smooth_fullgrad(network, inputs, CLASSES, samples=3))
    assert np.abs(noisy - smooth_fullgrad(network, inputs, CLASSES, samples=3, seed=1)).max() > 1e-3


def test_smooth_fullgrad_is_made_of_mean_terms() -> None:
    net, inputs = plain(), images(1)
    noise = np.random.default_rng(5)
    copies = [inputs + 0.3 * np.ptp(inputs) * noise.standard_normal(SHAPE) for _ in range(2)]
    parts = [full_gradient(TorchNetwork(net), copy, CLASSES[:1]) for copy in copies]
    means = [sum(g * x for (g, _), x in zip(parts, copies)) / 2, *(sum(t[name] for _, t in parts) / 2 for name in ("0", "1", "4"))]
    expected = sum(psi(torch.from_numpy(np.ascontiguousarray(np.moveaxis(mean, -1, 1)))) for mean in means)
    assert isinstance(expected, Tensor)
    np.testing.assert_allclose(smooth_fullgrad(TorchNetwork(net), inputs, CLASSES[:1], sigma=0.3, samples=2, seed=5), expected.numpy(), atol=1e-10)


@pytest.mark.parametrize("options", [{"sigma": -0.1}, {"samples": 0}])
def test_smooth_fullgrad_refuses_noise_that_is_none(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected sigma >= 0 and samples >= 1"):
        smooth_fullgrad(TorchNetwork(plain()), images(), CLASSES, **options)


# ---- where there is no map, and where there is no sum ----------------------------------------------------------------


@pytest.mark.parametrize("name", ["transformer", "mlp", "windows, sequence first"])
@pytest.mark.parametrize("method", [fullgrad, simple_fullgrad, smooth_fullgrad])
def test_no_map_without_biases_on_an_image(name: str, method: Callable[..., Float64]) -> None:
    torch.manual_seed(0)
    with pytest.raises(ValueError, match=r"no FullGrad map of this network.*use saliency\.gradient"):
        method(TorchNetwork(randomised(ZOO[name]())), images(), CLASSES)


def test_no_map_of_what_is_no_image() -> None:
    with pytest.raises(ValueError, match=r"images \(n, h, w, c\).*\(3, 7\)"):
        fullgrad(TorchNetwork(nn.Linear(7, 4)), np.ones((3, 7)), CLASSES)


class Square(torch.autograd.Function):
    """Met by no interception, and no straight line."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return 2 * gradient * ctx.saved_tensors[0]


class Squared(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Square.apply(x)  # type: ignore[no-untyped-call,no-any-return]


def with_culprit(culprit: nn.Module) -> TorchNetwork:
    torch.manual_seed(0)
    block = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), Residual(nn.GELU(), culprit), nn.ReLU(True))
    return TorchNetwork(randomised(head(nn.Sequential(nn.Conv2d(3, 3, 1), block))))


def test_an_incomplete_sum_names_the_module_that_breaks_it() -> None:
    network = with_culprit(Squared())
    assert completeness(network, images(), CLASSES).max() > 1e-3
    for method in (full_gradient, fullgrad, smooth_fullgrad):
        with pytest.raises(ValueError, match=r"incomplete.*arises in '0\.1\.2\.inner\.1': something in it is no operation.*use saliency\.gradient"):
            method(network, images(), CLASSES)  # type: ignore[operator]


def test_an_own_forward_that_breaks_the_sum_is_named() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.end = nn.Conv2d(3, 4, 3), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.end(Square.apply(self.conv(x)).mean((2, 3)))  # type: ignore[no-untyped-call,no-any-return]

    torch.manual_seed(0)
    with pytest.raises(ValueError, match="arises in the network's own forward: something"):
        fullgrad(TorchNetwork(Own()), images(), CLASSES)


def test_a_module_that_mixes_inputs_is_named() -> None:
    with pytest.raises(ValueError, match=r"arises in '0\.1\.2\.inner\.1': it mixes the inputs of a batch"):
        fullgrad(with_culprit(nn.BatchNorm2d(4, track_running_stats=False)), images(), CLASSES)


def test_gaps_are_nothing_where_the_sum_is_complete() -> None:
    gaps = with_culprit(nn.Tanh()).full_gradient_gaps(images(), CLASSES)
    assert {"", "0.1.2", "0.1.2.inner.1", "3"} <= set(gaps)
    assert max(np.abs(gap).max() for gap in gaps.values()) < 1e-5


def test_a_score_without_a_gradient_by_the_inputs_is_refused() -> None:
    class Cut(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.flatten(1).detach())

    with pytest.raises(ValueError, match="do not depend on the inputs by anything that has a gradient"):
        full_gradient(TorchNetwork(Cut(360, 4)), images(), CLASSES)


def test_token_ids_and_classes_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="token ids"):
        full_gradient(TorchNetwork(nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(8, 4))), np.array([[1, 2]]), CLASSES[:1])
    for classes in (np.array([0, 1, 4]), np.array([0, 1]), np.array([0.0, 1.0, 2.0])):
        with pytest.raises(ValueError, match="expected"):
            fullgrad(TorchNetwork(plain()), images(), classes)


def test_the_map_of_a_score_that_is_not_finite_is_nan() -> None:
    net = plain()
    nn.init.constant_(net[0].bias, float("inf"))  # type: ignore[arg-type]
    assert np.isnan(fullgrad(TorchNetwork(net), images(), CLASSES)).all()


# ---- no trace --------------------------------------------------------------------------------------------------------


def state(net: nn.Module) -> list[object]:
    found: list[object] = [torch.get_rng_state(), np.random.get_state()[1]]  # noqa: NPY002
    for module in net.modules():
        found += [module.training, len(module._forward_hooks), len(module._forward_pre_hooks), getattr(module, "inplace", None)]
    for tensor in (*net.parameters(), *net.buffers()):
        found += [id(tensor), tensor._version, tensor.requires_grad, tensor.detach().clone(), None if tensor.grad is None else tensor.grad.clone()]
    return found


def test_nothing_about_the_network_changes_also_when_a_pass_fails() -> None:
    class Fails(nn.Module):
        broken = False

        def forward(self, x: Tensor) -> Tensor:
            if self.broken:
                raise RuntimeError("in mid-pass")
            return F.dropout(x, training=self.training)

    fails = Fails()
    net = randomised(head(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(True), fails, nn.Conv2d(4, 4, 1).requires_grad_(False))).train()
    net[1].eval()  # type: ignore[index]
    net(torch.randn(2, 3, 12, 10)).sum().backward()
    network, before = TorchNetwork(net), state(net)
    inputs = images()
    with torch.inference_mode():
        fullgrad(network, inputs, CLASSES)
    full_gradient(network, inputs, CLASSES)
    network.full_gradient_gaps(inputs, CLASSES)
    fails.broken = True
    with pytest.raises(RuntimeError, match="in mid-pass"):
        fullgrad(network, inputs, CLASSES)
    np.testing.assert_array_equal(inputs, images())
    for now, then in zip(state(net), before, strict=True):
        np.testing.assert_array_equal(now, then)  # type: ignore[arg-type]
    assert type(torch.overrides._get_current_function_mode()) is type(None)


class Shifting(nn.Module):
    """Affine, so that the gradient by any bias is the same whatever the biases are."""

    def __init__(self, shift: Callable[[Tensor, Tensor | float], Tensor], constant: Tensor | float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head, self.shift, self.constant = nn.Conv2d(3, 4, 3, bias=False), nn.Linear(4 * 10 * 8, 4), shift, constant

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.shift(self.conv(x), self.constant).flatten(1))


@pytest.mark.parametrize(
    "shift",
    [
        *(lambda x, c: x + c, lambda x, c: c + x, lambda x, c: x - c, lambda x, c: c - x),
        *(torch.subtract, torch.rsub, lambda x, c: torch.sub(torch.as_tensor(c), x, alpha=2), lambda x, c: torch.add(torch.as_tensor(c), x, alpha=2)),
    ],
    ids=["x + c", "c + x", "x - c", "c - x", "subtract", "rsub", "c - 2 x", "c + 2 x"],
)
def test_what_is_added_or_taken_away_is_a_bias_of_that_size_also_where_it_is_zero(shift: Callable[[Tensor, Tensor | float], Tensor]) -> None:
    networks = [TorchNetwork(Shifting(shift, c)) for c in (0.0, 0.7, torch.full((4, 1, 1), 0.7))]
    none, some, several = (simple_fullgrad(network, images(), CLASSES) for network in networks)
    np.testing.assert_array_equal(none, some)
    np.testing.assert_array_equal(some, several)
    for network in networks:
        by_input, terms = full_gradient(network, images(), CLASSES)
        total = (by_input * images()).reshape(len(by_input), -1).sum(axis=1) + sum(t.reshape(len(t), -1).sum(axis=1) for t in terms.values())
        np.testing.assert_allclose(total, network.outputs(images())[np.arange(len(total)), CLASSES], rtol=1e-4, atol=1e-5)
