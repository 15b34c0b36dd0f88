"""The same weights in torch and in Keras are the same network: the same names, numbers and findings."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial

import keras
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from netlapse.analysis import layout, nap, saliency, topomap
from netlapse.backends.keras import KerasNetwork
from netlapse.backends.torch import TorchNetwork
from netlapse.observer import Observer
from netlapse.tracking.memory import MemoryTracker
from netlapse.types import Array, ProbeSet

L = keras.layers

# Two frameworks sum the products of a convolution in two orders: float32 rounding, 6e-8 per term of size one, over some hundred terms.
SAME = {"rtol": 1e-5, "atol": 1e-5}


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


class Block(nn.Module):
    """Two convolutions around which the input is added, and a ReLU after the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1, self.relu1 = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU()
        self.conv2, self.norm2, self.relu2 = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu2(self.norm2(self.conv2(self.relu1(self.norm1(self.conv1(x))))) + x)


def named(**modules: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(modules))


def norm(name: str) -> keras.Layer:
    return L.BatchNormalization(epsilon=1e-5, name=name)


def mlp() -> tuple[nn.Module, keras.Model]:
    module = named(dense1=nn.Linear(6, 9), relu1=nn.ReLU(), drop=nn.Dropout(0.5), dense2=nn.Linear(9, 7), tanh=nn.Tanh(), scores=nn.Linear(7, 4))
    layers = [
        L.Dense(9, name="dense1"),
        L.ReLU(name="relu1"),
        L.Dropout(0.5, name="drop"),
        L.Dense(7, name="dense2"),
        L.Activation("tanh", name="tanh"),
    ]
    return module, keras.Sequential([keras.Input((6,)), *layers, L.Dense(4, name="scores")])


def cnn(*head: str) -> tuple[nn.Module, keras.Model]:
    ends = {"softmax": nn.Softmax(1)} if head else {}
    module = named(
        conv1=nn.Conv2d(3, 5, 3, padding=1), norm1=nn.BatchNorm2d(5), relu1=nn.ReLU(), pool=nn.MaxPool2d(2),
        conv2=nn.Conv2d(5, 6, 3), norm2=nn.BatchNorm2d(6), relu2=nn.ReLU(inplace=True), mean=Mean(), scores=nn.Linear(6, 4), **ends,
    )  # fmt: skip
    x = h = keras.Input((8, 8, 3))
    h = L.MaxPooling2D(2, name="pool")(L.ReLU(name="relu1")(norm("norm1")(L.Conv2D(5, 3, padding="same", name="conv1")(h))))
    h = L.ReLU(name="relu2")(norm("norm2")(L.Conv2D(6, 3, name="conv2")(h)))
    h = L.Dense(4, name="scores")(L.GlobalAveragePooling2D(name="mean")(h))
    return module, keras.Model(x, L.Softmax(name="softmax")(h) if head else h)


def resnet() -> tuple[nn.Module, keras.Model]:
    module = named(stem=nn.Conv2d(3, 4, 3, padding=1), block=Block(), mean=Mean(), scores=nn.Linear(4, 4))
    inside = h = keras.Input((8, 8, 4))
    for i in (1, 2):
        h = norm(f"norm{i}")(L.Conv2D(4, 3, padding="same", use_bias=False, name=f"conv{i}")(h))
        h = L.ReLU(name=f"relu{i}")(h if i == 1 else h + inside)
    block = keras.Model(inside, h, name="block")
    x = keras.Input((8, 8, 3))
    h = L.GlobalAveragePooling2D(name="mean")(block(L.Conv2D(4, 3, padding="same", name="stem")(x)))
    return module, keras.Model(x, L.Dense(4, name="scores")(h))


NETWORKS: dict[str, Callable[[], tuple[nn.Module, keras.Model]]] = {
    "mlp": mlp, "cnn": cnn, "resnet": resnet, "cnn, softmax": partial(cnn, "softmax"),
}  # fmt: skip


def variables_of(model: keras.Model, prefix: str = "") -> Iterator[tuple[str, keras.Variable]]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from variables_of(layer, f"{prefix}{layer.name}.")
        else:
            yield from ((f"{prefix}{layer.name}.{variable.name}", variable) for variable in layer.weights)


def with_the_same_weights(module: nn.Module, model: keras.Model, seed: int = 0) -> tuple[TorchNetwork, KerasNetwork]:
    """Random weights, biases, gains and moving statistics; every parameter and buffer of the module finds its variable by name."""
    rng = np.random.default_rng(seed)
    variables = dict(variables_of(model))
    own = {"weight": "kernel", "bias": "bias", "running_mean": "moving_mean", "running_var": "moving_variance"}
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        layer, _, kind = name.rpartition(".")
        if kind == "num_batches_tracked":
            continue
        values = rng.normal(size=tuple(tensor.shape)).astype(np.float32) * 0.4
        values = np.abs(values) + 0.5 if kind == "running_var" else values
        tensor.data = torch.from_numpy(values)
        of_a_norm = isinstance(module.get_submodule(layer), nn.BatchNorm2d)
        variable = variables.pop(f"{layer}.{ {'weight': 'gamma', 'bias': 'beta'}.get(kind, own[kind]) if of_a_norm else own[kind] }")
        variable.assign(np.transpose(values, {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[values.ndim]))
    assert not variables
    return TorchNetwork(module), KerasNetwork(model)


@pytest.fixture(params=NETWORKS)
def networks(request: pytest.FixtureRequest) -> tuple[TorchNetwork, KerasNetwork, Array]:
    a, b = with_the_same_weights(*NETWORKS[request.param]())
    shape = (12, 6) if "mlp" in request.param else (12, 8, 8, 3)
    return a, b, np.random.default_rng(1).normal(size=shape).astype(np.float32)


def same(found: dict[str, Array], expected: dict[str, Array]) -> None:
    assert list(found) == list(expected)
    for name in found:
        np.testing.assert_allclose(found[name], expected[name], **SAME, err_msg=name)
        assert np.abs(expected[name]).max() > 1e-3


def test_layers_are_the_same(networks: tuple[TorchNetwork, KerasNetwork, Array]) -> None:
    a, b, inputs = networks
    described, expected = b.describe(inputs), a.describe(inputs)
    assert [(layer.name, layer.shape, layer.role) for layer in described] == [(layer.name, layer.shape, layer.role) for layer in expected]


def test_activations_responses_and_gradients_are_the_same(networks: tuple[TorchNetwork, KerasNetwork, Array]) -> None:
    a, b, inputs = networks
    a.describe(inputs)
    names = a.layers
    same(b.activations(inputs, names), a.activations(inputs, names))
    np.testing.assert_allclose(b.outputs(inputs), a.outputs(inputs), **SAME)
    found, expected = b.responses(inputs, names), a.responses(inputs, names)
    for field in ("mean", "low", "high"):
        for name in names:
            np.testing.assert_allclose(getattr(found, field)[name], getattr(expected, field)[name], **SAME)
    cotangent = np.random.default_rng(2).normal(size=(12, 4))
    wrt = ["input", *(name for name in names if name != "softmax")]  # the logits do not depend on what comes after them
    same(b.vjp(inputs, "output", cotangent, wrt), a.vjp(inputs, "output", cotangent, wrt))
    middle = names[len(names) // 2]
    cotangent = np.random.default_rng(3).normal(size=a.activations(inputs, [middle])[middle].shape)
    same(b.vjp(inputs, middle, cotangent, ["input"]), a.vjp(inputs, middle, cotangent, ["input"]))


def test_profiles_and_contrasts_are_the_same(networks: tuple[TorchNetwork, KerasNetwork, Array]) -> None:
    a, b, inputs = networks
    a.describe(inputs)
    groups = np.arange(12) % 4
    for spatial in ("mean", "keep"):
        found, expected = (nap.activation_profiles(n, inputs, groups, a.layers, spatial=spatial, batch_size=5) for n in (b, a))
        same(found, expected)
        for name in found:
            np.testing.assert_allclose(nap.contrast(found[name]), nap.contrast(expected[name]), **SAME)


@pytest.mark.parametrize("name", ["cnn", "resnet", "cnn, softmax"])
def test_saliency_is_the_same_behind_logits_and_behind_a_softmax(name: str) -> None:
    a, b = with_the_same_weights(*NETWORKS[name]())
    inputs = np.random.default_rng(1).normal(size=(12, 8, 8, 3)).astype(np.float32)
    for method in (saliency.gradient, saliency.grad_cam, partial(saliency.grad_cam, upsample=False)):
        found, expected = (method(network, inputs, np.arange(12) % 4) for network in (b, a))
        np.testing.assert_allclose(found, expected, **SAME)
        assert expected.max() > 1e-4


def test_a_fused_softmax_is_explained_as_one_of_its_own() -> None:
    module, model = cnn("softmax")
    a, _ = with_the_same_weights(module, model)
    fused = keras.Sequential([*model.layers[:-2], L.Dense(4, activation="softmax", name="scores")])
    fused.set_weights(model.get_weights())
    inputs = np.random.default_rng(1).normal(size=(12, 8, 8, 3)).astype(np.float32)
    network = KerasNetwork(fused)
    np.testing.assert_allclose(network.outputs(inputs), a.outputs(inputs), **SAME)
    classes = np.arange(12) % 4
    np.testing.assert_allclose(saliency.gradient(network, inputs, classes), saliency.gradient(a, inputs, classes), **SAME)


def test_the_default_record_is_the_same_under_the_same_keys() -> None:
    """Given the layout: the others place units by comparing numbers that may be equal but for their rounding."""
    inputs = np.random.default_rng(1).normal(size=(12, 8, 8, 3)).astype(np.float32)
    probe = ProbeSet(inputs, np.arange(12) % 4)
    analyses = {"nap": nap.nap, "topomap": partial(topomap.topomap, layout=layout.random), "saliency": saliency.saliency}
    records = []
    for network in with_the_same_weights(*cnn()):
        observer = Observer(probe, analyses, tracker := MemoryTracker(), strict=True)
        observer.start(network)
        records.append({name: findings for name, findings in observer.observe(network, 1).items() if name != "cost"})
        observed = [(layer["name"], layer["shape"], layer["role"]) for layer in tracker.manifest["layers"]]
        assert observed == [("relu1", [8, 8, 5], "activation"), ("relu2", [2, 2, 6], "activation")]
    expected, found = records
    for name, findings in found.items():
        for part in ("arrays", "scalars", "images"):
            assert list(getattr(findings, part)) == list(getattr(expected[name], part))
        for key, values in findings.arrays.items():
            other = expected[name].arrays[key]
            np.testing.assert_array_equal(values, other) if values.dtype.kind in "iU" else np.testing.assert_allclose(values, other, **SAME)
        for key, value in findings.scalars.items():
            np.testing.assert_allclose(value, expected[name].scalars[key], **SAME)
    maps = [
        topomap.interpolate(record["topomap"].arrays["positions/relu2"], record["topomap"].arrays["contrast/relu2"], 40)
        for record in (found, expected)
    ]
    np.testing.assert_allclose(*maps, **SAME)
