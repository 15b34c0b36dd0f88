"""Methods that are asked for together find what each finds alone, of one forward and one backward."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from netlapse.analysis.onepass import Method, answered
from netlapse.analysis.saliency import (
    fullgrad,
    grad_cam,
    gradient,
    gradient_times_input,
    integrated_gradients,
    occlusion,
    saliency,
    simple_fullgrad,
    smooth_fullgrad,
    smooth_gradient,
)
from netlapse.analysis.saliency.cam import is_spatial
from netlapse.backends.keras import KerasNetwork
from netlapse.backends.torch import TorchNetwork
from netlapse.types import Array, Float32, Network, ProbeSet, Snapshot
from tests.test_fullgradient import CLASSES, SHAPE, ZOO, ShortcutFirst, Windows, head, randomised, state
from tests.test_fullgradient_keras import ZOO as KERAS_ZOO
from tests.test_fullgradient_keras import randomised as keras_randomised

OF_ONE_PASS: dict[str, Method] = {
    "fullgrad": fullgrad,
    "simple_fullgrad": simple_fullgrad,
    "gradient": gradient,
    "gradient_times_input": gradient_times_input,
    "grad_cam": grad_cam,
}


def images(n: int = 3) -> Float32:
    return np.random.default_rng(0).normal(size=(n, *SHAPE)).astype(np.float32)


def with_every_layer(network: Network, methods: dict[str, Method] = OF_ONE_PASS) -> dict[str, Method]:
    layers = [layer.name for layer in network.describe(images()) if is_spatial(layer)]
    return methods | {f"cam {layer}": partial(grad_cam, layer=layer, upsample=False) for layer in layers}


def counted(network: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that are shown to the network from now on, whatever it is asked."""
    sizes: list[int] = []

    def counting(asked: Callable[..., object]) -> Callable[..., object]:
        def counts(inputs: Array, *arguments: object, **options: object) -> object:
            sizes.append(len(inputs))
            return asked(inputs, *arguments, **options)

        return counts

    for name in ("outputs", "activations", "vjp", "explained", "full_gradient", "attributions"):
        monkeypatch.setattr(network, name, counting(getattr(network, name)))
    return sizes


TORCH = [name for name in ZOO if name not in ("mlp", "transformer", "windows, sequence first", "recurrent, softmax", "functional")]


@pytest.mark.parametrize("name", TORCH)
def test_together_is_alone_on_any_torch_network(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = TorchNetwork(randomised(ZOO[name]()))
    methods = with_every_layer(network)
    alone = {name: method(network, images(), CLASSES) for name, method in methods.items()}
    sizes = counted(network, monkeypatch)
    together = answered(methods, network, images(), CLASSES)
    for name, expected in alone.items():
        # Rounding: in a pass with parameters that are constant, and in one stopped at a layer, kernels may be others.
        np.testing.assert_allclose(together(name), expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max(), err_msg=name)
    assert sizes == [3]
    assert sum(np.abs(maps).max() > 0 for maps in alone.values()) > len(alone) / 2


@pytest.mark.parametrize("name", ["cnn", "resnet18", "functional, subclassed", "norms, softmax"])
def test_together_is_alone_on_any_keras_network(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = KERAS_ZOO[name]()
    model(images())
    network = KerasNetwork(keras_randomised(model))
    methods = with_every_layer(network)
    alone = {name: method(network, images(), CLASSES) for name, method in methods.items()}
    sizes = counted(network, monkeypatch)
    together = answered(methods, network, images(), CLASSES)
    for name, expected in alone.items():
        np.testing.assert_allclose(together(name), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max(), err_msg=name)
    assert sizes == [3]
    assert sum(np.abs(maps).max() > 0 for maps in alone.values()) > len(alone) / 2


def test_the_analysis_makes_one_pass_for_what_one_pass_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network, probe = TorchNetwork(randomised(ZOO["vgg"]())), ProbeSet(images(), CLASSES)
    methods = with_every_layer(network) | {"smooth": partial(smooth_gradient, samples=1, sigma=0.0)}
    alone = {name: method(network, images(), CLASSES) for name, method in methods.items()}
    sizes = counted(network, monkeypatch)
    found = saliency(Snapshot(network, probe, 0), None, methods=methods)
    assert sizes == [3, 3, 3]  # the logits, the pass, and that of the method that makes its own
    order = found.arrays["inputs"]
    for name, expected in alone.items():
        np.testing.assert_allclose(found.arrays[f"maps/{name}"], expected[order], rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_a_pass_is_of_no_more_inputs_than_the_smallest_batch_size(monkeypatch: pytest.MonkeyPatch) -> None:
    network = TorchNetwork(ShortcutFirst())
    bound: dict[str, Method] = {"gradient": partial(partial(gradient, batch_size=9), batch_size=2), "cam": partial(grad_cam, batch_size=4)}
    expected = {name: method(network, images(5), np.arange(5) % 4) for name, method in bound.items()}
    sizes = counted(network, monkeypatch)
    together = answered(bound, network, images(5), np.arange(5) % 4)
    for name, maps in expected.items():
        np.testing.assert_allclose(together(name), maps, atol=1e-6)
    assert sizes == [2, 2, 1]


def test_nothing_is_asked_of_the_network_before_a_map_is(monkeypatch: pytest.MonkeyPatch) -> None:
    network = TorchNetwork(ShortcutFirst())
    sizes = counted(network, monkeypatch)
    answered(OF_ONE_PASS, network, images(), CLASSES)
    assert sizes == []


@pytest.mark.parametrize("method", [fullgrad, simple_fullgrad, gradient, gradient_times_input, grad_cam])
def test_a_recipe_has_the_options_of_its_method(method: Method) -> None:
    named = {name: p.default for name, p in inspect.signature(method).parameters.items() if p.kind is p.KEYWORD_ONLY and name != "batch_size"}
    recipe = inspect.signature(method.recipe).parameters  # type: ignore[attr-defined]
    assert named == {name: p.default for name, p in recipe.items() if p.kind is p.KEYWORD_ONLY}


# ---- the pass --------------------------------------------------------------------------------------------------------


def literal_cam(network: TorchNetwork, inputs: Float32, layer: str) -> Float32:
    """Of activations and gradients that left the framework whole; before the ReLU."""
    found = network.explained(inputs, [layer], CLASSES)
    positions = tuple(range(1, found.activations[layer].ndim - 1))
    weighted = found.gradients[layer].mean(axis=positions, keepdims=True) * found.activations[layer]
    return np.asarray(weighted.sum(axis=-1), np.float32)


class Tokens(nn.Module):
    """An embedding of places that no input changes, tokens before the batch, and a block with shortcuts that overwrites what others have too."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.places, self.mix, self.norm, self.end = nn.Conv2d(3, 8, 2, 2), Places(), Residual(), nn.LayerNorm(8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.embed(x)
        y = y + self.places(y)
        y = self.mix(y).flatten(2).permute(2, 0, 1)
        return self.end(self.norm(y).mean(0))


class Places(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.own = nn.Parameter(torch.randn(1, 8, 6, 5))

    def forward(self, x: Tensor) -> Tensor:
        return self.own.expand(len(x), -1, -1, -1) * 1


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.first, self.relu, self.same = nn.Conv2d(8, 8, 1), First(), nn.ReLU(inplace=True), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        first = self.first(y)
        y = y + torch.tanh(first).mean(1, keepdim=True)
        y += self.same(x)
        return self.relu(y) + y


class First(nn.Module):
    """A view of what it is given."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :4]


@pytest.mark.parametrize("make", [Tokens, Windows, ShortcutFirst, ZOO["functional"], ZOO["vgg"], ZOO["mobilenet"]])
@pytest.mark.parametrize("biases", [(), ("terms", "gradients")])
def test_class_activation_maps_are_those_of_whole_activations_and_gradients(make: Callable[[], nn.Module], biases: Any) -> None:
    torch.manual_seed(0)
    network = TorchNetwork(randomised(make()))
    layers = [layer.name for layer in network.describe(images())]
    found = network.attributions(images(), CLASSES, biases=biases, layers=layers).maps
    assert list(found) == layers
    for layer in layers:
        expected = literal_cam(network, images(), layer)
        np.testing.assert_allclose(found[layer], expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max(), err_msg=layer)


def overwriting(unseen: bool) -> nn.Module:
    """A convolution whose output somebody overwrites, by an operation of torch's or by what no interception sees."""

    class Overwrites(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.mark_dirty(x)
            return x.mul_(3)

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
            return 3 * gradient

    class Triple(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return Overwrites.apply(x) if unseen else x.mul_(3)  # type: ignore[no-untyped-call,no-any-return]

    return head(nn.Conv2d(3, 4, 3), Triple(), nn.Conv2d(4, 3, 1))


@pytest.mark.parametrize("unseen", [False, True])
def test_what_is_overwritten_after_a_layer_is_not_what_is_explained(unseen: bool) -> None:
    torch.manual_seed(0)
    network = TorchNetwork(randomised(overwriting(unseen)))
    found = network.attributions(images(), CLASSES, biases=["terms"], layers=["0", "1"]).maps
    for layer in ("0", "1"):
        np.testing.assert_allclose(found[layer], literal_cam(network, images(), layer), rtol=1e-4, atol=1e-6)


def test_the_backward_ends_at_the_layer() -> None:
    """What is before the layer is not differentiated, and need not be: it may have no gradient at all."""

    class Steps(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return NoBackward.apply(x)  # type: ignore[no-untyped-call,no-any-return]

    class NoBackward(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.round()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
            raise RuntimeError("asked for a gradient")

    torch.manual_seed(0)
    network = TorchNetwork(randomised(head(nn.Conv2d(3, 4, 3), Steps(), nn.Conv2d(4, 4, 3), nn.ReLU())))
    for layer in ("1", "2", "3"):
        found = network.attributions(images(), CLASSES, layers=[layer]).maps[layer]
        np.testing.assert_allclose(found, literal_cam(network, images(), layer), atol=1e-6)
    with pytest.raises(RuntimeError, match="asked for a gradient"):
        network.attributions(images(), CLASSES, layers=["0"])


@pytest.mark.parametrize("biases", [(), ("terms",)])
def test_a_layer_the_logits_do_not_depend_on_and_one_that_is_not_there_are_named(biases: Any) -> None:
    class Aside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.aside, self.end = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            self.aside(x)
            return self.end(self.conv(x).mean((2, 3)))

    network = TorchNetwork(Aside())
    with pytest.raises(ValueError, match=r"the logits do not depend on \['aside'\]; layers run in the order"):
        network.attributions(images(), CLASSES, biases=biases, layers=["conv", "aside"])
    with pytest.raises(ValueError, match=r"no layer named \['nowhere'\]; this network has"):
        network.attributions(images(), CLASSES, biases=biases, layers=["nowhere"])


# ---- half precision --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "name"), [(torch.float16, "float16"), (torch.bfloat16, "bfloat16")])
def test_a_full_gradient_in_half_precision_is_refused_for_that(dtype: torch.dtype, name: str) -> None:
    torch.manual_seed(0)
    network = TorchNetwork(randomised(ZOO["vgg"]()).to(dtype))
    for method in (fullgrad, simple_fullgrad, smooth_fullgrad):
        with pytest.raises(ValueError, match=f"no full gradient: 'conv2d' in '0' computes in {name}, .*float32 or float64.*use saliency.gradient"):
            method(network, images(), CLASSES)
    exact = TorchNetwork(copy.deepcopy(network.module).float())
    for other in (gradient, gradient_times_input, grad_cam):
        found, expected = (other(net, images(), CLASSES) for net in (network, exact))
        assert found.dtype == np.float32
        assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.98


def test_a_layer_in_half_precision_inside_another_network_is_named() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3).bfloat16()

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x.bfloat16()).float()

    torch.manual_seed(0)
    network = TorchNetwork(nn.Sequential(Half(), nn.Flatten(), nn.Linear(240, 4)))
    with pytest.raises(ValueError, match="'bfloat16' in '0' computes in bfloat16"):
        fullgrad(network, images(), CLASSES)


# ---- no trace --------------------------------------------------------------------------------------------------------

EVERY: dict[str, Method] = OF_ONE_PASS | {
    "smooth_fullgrad": partial(smooth_fullgrad, samples=2),
    "smooth_gradient": partial(smooth_gradient, samples=2),
    "integrated_gradients": partial(integrated_gradients, steps=2),
    "occlusion": partial(occlusion, window=6),
}


class Fails(nn.Module):
    broken = False

    def forward(self, x: Tensor) -> Tensor:
        if self.broken:
            raise RuntimeError("in mid-pass")
        return x * torch.rand(()) if self.training else x


def training_network() -> tuple[nn.Module, Fails]:
    torch.manual_seed(0)
    fails = Fails()
    net = randomised(head(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(True), fails, nn.Conv2d(4, 4, 1).requires_grad_(False), nn.ReLU())).train()
    net[1].eval()  # type: ignore[index]
    net(torch.randn(2, 3, 12, 10)).sum().backward()
    return net, fails


def every(network: TorchNetwork) -> dict[str, Method]:
    return with_every_layer(network, EVERY)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_no_method_leaves_a_trace_also_when_a_pass_fails(mode: Callable[[], Any]) -> None:
    net, fails = training_network()
    network = TorchNetwork(net)
    methods, before = every(network), state(net)
    expected = {name: method(network, images(), CLASSES) for name, method in methods.items()}
    with mode():
        together = answered(methods, network, images(), CLASSES)
        for name, method in methods.items():
            np.testing.assert_array_equal(method(network, images(), CLASSES), expected[name])
            np.testing.assert_allclose(together(name), expected[name], rtol=1e-5, atol=1e-5)
        fails.broken = True
        for method in methods.values():
            with pytest.raises(RuntimeError, match="in mid-pass"):
                method(network, images(), CLASSES)
        with pytest.raises(RuntimeError, match="in mid-pass"):
            answered(methods, network, images(), CLASSES)("fullgrad")
    for now, then in zip(state(net), before, strict=True):
        np.testing.assert_array_equal(now, then)  # type: ignore[arg-type]
    assert torch.overrides._get_current_function_mode() is None
