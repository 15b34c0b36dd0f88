"""The score that is explained is the logit, also of a network that ends in probabilities; activations and gradients come in one pass."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from netlapse.backends.keras import KerasNetwork
from netlapse.backends.torch import TorchNetwork
from netlapse.types import Array, Network

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(5, 6, 6, 2)).astype(np.float32)


class Trunk(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.relu, self.head = nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.relu(self.conv(x)).mean((2, 3)))


class Functional(Trunk):
    def __init__(self, end: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.end = end

    def forward(self, x: Tensor) -> Tensor:
        return self.end(super().forward(x))


ENDS: dict[str, Callable[[], nn.Module]] = {
    "softmax module": lambda: nn.Sequential(Trunk(), nn.Softmax(dim=1)),
    "log softmax module": lambda: nn.Sequential(Trunk(), nn.LogSoftmax(dim=1)),
    "sigmoid module": lambda: nn.Sequential(Trunk(), nn.Sigmoid()),
    "F.softmax": lambda: Functional(lambda z: nn.functional.softmax(z, dim=1)),
    "torch.softmax": lambda: Functional(lambda z: torch.softmax(z, dim=1)),
    "method": lambda: Functional(lambda z: z.softmax(dim=1)),
    "special": lambda: Functional(lambda z: torch.special.log_softmax(z, dim=1)),
    "keyword": lambda: Functional(lambda z: torch.softmax(input=z, dim=1)),
    "torch.sigmoid": lambda: Functional(torch.sigmoid),
}


@pytest.mark.parametrize("end", ENDS)
def test_the_logits_of_a_torch_network_are_what_its_probabilities_are_made_of(end: str) -> None:
    bare, network = TorchNetwork(Trunk()), TorchNetwork(ENDS[end]())
    name = "0.relu" if "module" in end else "relu"
    np.testing.assert_array_equal(network.outputs(IMAGES), bare.outputs(IMAGES))
    np.testing.assert_array_equal(network.responses(IMAGES, [name]).outputs, bare.outputs(IMAGES))
    cotangent = np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1]]
    np.testing.assert_array_equal(network.vjp(IMAGES, "output", cotangent, [name])[name], bare.vjp(IMAGES, "output", cotangent, ["relu"])["relu"])
    np.testing.assert_array_equal(network.explained(IMAGES, [name]).gradients[name], bare.explained(IMAGES, ["relu"]).gradients["relu"])


def test_a_softmax_that_is_not_the_end_stays_where_it_is() -> None:
    scaled = TorchNetwork(Functional(lambda z: 2 * torch.softmax(z, dim=1)))
    with torch.no_grad():
        expected = scaled.module(torch.from_numpy(np.moveaxis(IMAGES, -1, 1).copy())).numpy()
    np.testing.assert_array_equal(scaled.outputs(IMAGES), expected)


def test_a_softmax_layer_is_observed_as_it_is() -> None:
    network = TorchNetwork(nn.Sequential(Trunk(), nn.Softmax(dim=1)))
    np.testing.assert_allclose(network.activations(IMAGES, ["1"])["1"].sum(axis=1), 1, rtol=1e-6)
    assert network.describe(IMAGES)[-1].role == "output"
    # Also while it is observed: hooks hand on copies.
    np.testing.assert_array_equal(network.responses(IMAGES, ["1"]).outputs, TorchNetwork(Trunk()).outputs(IMAGES))


def keras_trunk(end: Callable[[keras.KerasTensor], keras.KerasTensor]) -> keras.Model:
    keras.utils.set_random_seed(1)
    x = keras.Input((6, 6, 2))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3, activation="relu", name="conv")(x))
    return keras.Model(x, end(pooled))


def dense(activation: object = None) -> Callable[[keras.KerasTensor], keras.KerasTensor]:
    return lambda pooled: keras.layers.Dense(3, activation=activation, name="head")(pooled)


KERAS_ENDS = {
    "fused softmax": dense("softmax"),
    "fused sigmoid": dense("sigmoid"),
    "fused log softmax": dense("log_softmax"),
    "softmax layer": lambda pooled: keras.layers.Softmax()(dense()(pooled)),
    "activation layer": lambda pooled: keras.layers.Activation("softmax")(dense()(pooled)),
    "operation": lambda pooled: keras.ops.softmax(dense()(pooled)),
}


@pytest.mark.parametrize("end", KERAS_ENDS)
def test_the_logits_of_a_keras_network_are_what_its_probabilities_are_made_of(end: str) -> None:
    bare = KerasNetwork(keras_trunk(dense()))
    model = keras_trunk(KERAS_ENDS[end])
    model.set_weights(bare.model.get_weights())
    network = KerasNetwork(model)
    same = {"rtol": 1e-5, "atol": 1e-6}
    np.testing.assert_allclose(network.outputs(IMAGES), bare.outputs(IMAGES), **same)
    np.testing.assert_allclose(network.responses(IMAGES, ["conv"]).outputs, bare.outputs(IMAGES), **same)
    cotangent = np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1]]
    wrt = ["conv", "input"]
    for name, gradient in network.vjp(IMAGES, "output", cotangent, wrt).items():
        np.testing.assert_allclose(gradient, bare.vjp(IMAGES, "output", cotangent, wrt)[name], **same)
    np.testing.assert_allclose(network.explained(IMAGES, ["conv"]).gradients["conv"], bare.explained(IMAGES, ["conv"]).gradients["conv"], **same)


def networks() -> dict[str, tuple[Network, str]]:
    return {"torch": (TorchNetwork(Trunk()), "relu"), "keras": (KerasNetwork(keras_trunk(dense("softmax"))), "conv")}


@pytest.mark.parametrize("framework", ["torch", "keras"])
@pytest.mark.parametrize("classes", [None, np.array([2, 0, 1, 1, 0])])
def test_explained_is_activations_and_the_vector_jacobian_product_of_the_chosen_class(framework: str, classes: Array | None) -> None:
    network, layer = networks()[framework]
    found = network.explained(IMAGES, [layer], classes)  # type: ignore[arg-type]
    chosen = network.outputs(IMAGES).argmax(axis=1) if classes is None else classes
    cotangent = np.eye(3, dtype=np.float32)[chosen]
    same = {"rtol": 1e-5, "atol": 1e-7}
    np.testing.assert_allclose(found.outputs, network.outputs(IMAGES), **same)
    np.testing.assert_allclose(found.activations[layer], network.activations(IMAGES, [layer])[layer], **same)
    np.testing.assert_allclose(found.gradients[layer], network.vjp(IMAGES, "output", cotangent, [layer])[layer], **same)


@pytest.mark.parametrize("framework", ["torch", "keras"])
def test_explained_refuses_classes_that_are_none_and_layers_without_a_gradient(framework: str) -> None:
    network, layer = networks()[framework]
    with pytest.raises(ValueError, match="expected \\(5,\\) integers in 0 to 2"):
        network.explained(IMAGES, [layer], np.array([0, 1, 2, 3, 0]))
    with pytest.raises(ValueError, match="no layer named"):
        network.explained(IMAGES, ["nowhere"])


def test_explained_names_the_layers_the_logits_do_not_depend_on() -> None:
    with pytest.raises(ValueError, match="do not depend on \\['1'\\]"):
        TorchNetwork(nn.Sequential(Trunk(), nn.Softmax(dim=1))).explained(IMAGES, ["1"])
    with pytest.raises(ValueError, match="do not depend on \\['after'\\]"):
        KerasNetwork(keras_trunk(lambda pooled: keras.layers.Softmax(name="after")(dense()(pooled)))).explained(IMAGES, ["after"])
