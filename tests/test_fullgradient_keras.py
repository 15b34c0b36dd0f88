"""The full gradient of Keras models: complete, and what it is of the same network in torch; on both of Keras's backends."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from netlapse.analysis.fullgradient import completeness, full_gradient, fullgrad, simple_fullgrad
from netlapse.backends.keras import KerasNetwork
from netlapse.backends.torch import TorchNetwork
from netlapse.models.keras import cnn, mlp, resnet18, transformer
from netlapse.types import Float32

L = keras.layers
SHAPE = (12, 10, 3)
CLASSES = np.array([0, 2, 3])


def images(n: int = 3) -> Float32:
    return np.random.default_rng(0).normal(size=(n, *SHAPE)).astype(np.float32)


def randomised(model: keras.Model) -> keras.Model:
    """Every bias, scale and moving statistic away from its default, at which a term would be zero."""
    draw = np.random.default_rng(1)
    for variable in model.weights:
        value = numbers(variable)
        variable.assign(draw.uniform(0.5, 2, value.shape) if "variance" in variable.path else value + 0.2 * draw.normal(size=value.shape))
    return model


def stacked(*layers: keras.Layer) -> keras.Model:
    return keras.Sequential([keras.Input(SHAPE), *layers])


@keras.saving.register_keras_serializable("netlapse")
class Functional(keras.Model):  # type: ignore[misc]
    """Subclassed, and most of it between its layers; one layer is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.shared, self.end = L.Conv2D(4, 3, activation="gelu"), L.Conv2D(4, 3, padding="same", activation="silu"), L.Dense(4)

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        x = self.conv((x - 0.3) / 2)
        y = self.shared(self.shared(keras.ops.tanh(x))) + x
        y = 1 - y * keras.ops.sigmoid(keras.ops.mean(y, axis=(1, 2), keepdims=True))
        y = keras.ops.where(y > keras.ops.mean(y), y, 0.1 * y - 0.2)  # some on either side, whatever the weights are
        return self.end(keras.ops.mean(keras.ops.concatenate([y, keras.ops.ones_like(y)], axis=-1) ** 2, axis=(1, 2)))


def dividing() -> keras.Model:
    """Constants divided by what depends on the inputs: 1/x has the term 2/x."""
    inputs = keras.Input(SHAPE)
    x = L.Conv2D(4, 3, use_bias=False)(inputs)
    return keras.Model(inputs, L.Dense(4, use_bias=False)(L.GlobalAveragePooling2D()(1.0 / (keras.ops.square(x) + 1.0))))


def shifting(shift: Callable[[keras.KerasTensor], keras.KerasTensor]) -> keras.Model:
    """Affine, so that the gradient by any bias is the same whatever the biases are."""
    inputs = keras.Input(SHAPE)
    x = shift(L.Conv2D(4, 3, use_bias=False)(inputs))
    return keras.Model(inputs, L.Dense(4)(L.Flatten()(x)))


def attention() -> keras.Model:
    inputs = keras.Input(SHAPE)
    x = L.Reshape((30, 4))(L.Conv2D(4, 2, 2)(inputs))
    x = L.LayerNormalization()(x + L.MultiHeadAttention(2, 3)(x, x))
    return keras.Model(inputs, L.Dense(4)(L.GlobalAveragePooling1D()(x)))


ZOO: dict[str, Callable[[], keras.Model]] = {
    "mlp": lambda: mlp(SHAPE, 4, hidden=(9, 7)),
    "cnn": lambda: cnn(SHAPE, 4, channels=(4, 5, 6), hidden=7),
    "resnet18": lambda: resnet18(SHAPE, 4, width=4),
    "transformer": lambda: transformer(SHAPE, 4, width=8, depth=1, heads=2, patch=2),
    "functional, subclassed": Functional,
    "attention": attention,
    "dividing": dividing,
    "recurrent": lambda: stacked(L.Reshape((12, 30)), L.Bidirectional(L.LSTM(3, return_sequences=True)), L.GRU(4), L.Dense(4)),
    "norms, softmax": lambda: stacked(
        L.SeparableConv2D(6, 3, activation="elu"),
        L.BatchNormalization(scale=False, center=False),
        L.GroupNormalization(2),
        L.LayerNormalization(),
        L.Conv2DTranspose(5, 3, activation="softplus"),
        L.DepthwiseConv2D(3, 2, use_bias=False, activation=L.LeakyReLU()),
        L.ReLU(1.0),
        L.GlobalAveragePooling2D(),
        L.Dense(4, activation="softmax"),
    ),
}


def numbers(tensor: object) -> Float32:
    return np.asarray(keras.ops.convert_to_numpy(tensor))


@pytest.mark.parametrize("name", ZOO)
def test_terms_add_up_to_the_score(name: str) -> None:
    model, inputs = ZOO[name](), images()
    model(inputs)
    randomised(model)
    network = KerasNetwork(model)
    by_input, terms = full_gradient(network, inputs, CLASSES)
    if name == "norms, softmax":
        last, before = model.layers[-1], keras.Model(model.inputs, model.layers[-2].output)
        expected = numbers(before(inputs, training=False)) @ numbers(last.kernel) + numbers(last.bias)
    else:
        expected = numbers(model(inputs, training=False))
    scores = expected[np.arange(3), CLASSES]
    total = (by_input * inputs).reshape(3, -1).sum(axis=1) + sum(term.reshape(3, -1).sum(axis=1) for term in terms.values())
    assert np.abs(total - scores).max() <= 1e-4 * (scores.max() - scores.min())
    assert all(np.abs(term).max() > 0 for term in terms.values())
    assert completeness(network, inputs, CLASSES).max() < 1e-6


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="on torch, Keras multiplies matrices in float32 whatever its policy")
def test_terms_add_up_in_float64() -> None:
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    try:
        model = randomised(resnet18(SHAPE, 4, width=4))
    finally:
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)
    by_input, terms = full_gradient(KerasNetwork(model), images().astype(np.float64), CLASSES)
    total = (by_input * images()).sum(axis=(1, 2, 3)) + sum(term.reshape(3, -1).sum(axis=1) for term in terms.values())
    scores = numbers(model(images().astype(np.float64), training=False))[np.arange(3), CLASSES]
    assert by_input.dtype == np.float64
    assert np.abs(total - scores).max() <= 1e-10 * (scores.max() - scores.min())


# ---- parity ----------------------------------------------------------------------------------------------------------


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def twins() -> tuple[nn.Module, keras.Model, dict[str, str]]:
    """The same network in torch and in Keras, and the Keras name of each term of the torch one."""
    torch.manual_seed(0)
    norm, group = nn.BatchNorm2d(4), nn.GroupNorm(2, 6)
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3), norm, nn.ReLU(), nn.Conv2d(4, 6, 3), nn.GELU(), group, nn.MaxPool2d(2), nn.ELU(), Mean(), nn.Linear(6, 4)
    )
    for parameter in (norm.weight, norm.bias, group.weight, group.bias):
        nn.init.normal_(parameter)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    names = {"0": "a", "1": "b", "3": "c", "4": "c.gelu", "5": "d", "7": "e", "9": "f"}
    model = stacked(
        L.Conv2D(4, 3, name="a"),
        L.BatchNormalization(epsilon=1e-5, name="b"),
        L.ReLU(),
        L.Conv2D(6, 3, activation="gelu", name="c"),
        L.GroupNormalization(2, epsilon=1e-5, name="d"),
        L.MaxPooling2D(2),
        L.Activation("elu", name="e"),
        L.GlobalAveragePooling2D(),
        L.Dense(4, name="f"),
    )
    for i, name in ((0, "a"), (3, "c"), (9, "f")):
        layer = module[i]
        assert isinstance(layer, (nn.Conv2d, nn.Linear))
        weight = layer.weight.detach().numpy()
        kernel = weight.T if weight.ndim == 2 else weight.transpose(2, 3, 1, 0)
        model.get_layer(name).set_weights([kernel, layer.bias.detach().numpy()])  # type: ignore[union-attr]
    model.get_layer("b").set_weights([t.detach().numpy() for t in (norm.weight, norm.bias, norm.running_mean, norm.running_var)])
    model.get_layer("d").set_weights([t.detach().numpy() for t in (group.weight, group.bias)])
    return module, model, names


def test_terms_and_maps_are_those_of_the_same_network_in_torch() -> None:
    module, model, names = twins()
    ours, other, inputs = KerasNetwork(model), TorchNetwork(module), images()
    by_input, terms = full_gradient(ours, inputs, CLASSES)
    expected_by_input, expected = full_gradient(other, inputs, CLASSES)
    np.testing.assert_allclose(by_input, expected_by_input, rtol=1e-5, atol=1e-5)
    assert {names[name] for name in expected} == set(terms)
    for name, term in expected.items():
        np.testing.assert_allclose(terms[names[name]], term, rtol=1e-5, atol=1e-5, err_msg=name)
    for method in (fullgrad, simple_fullgrad):
        # Each term is rescaled by its own maximum, which for an activation is the small difference of two numbers.
        np.testing.assert_allclose(method(ours, inputs, CLASSES), method(other, inputs, CLASSES), rtol=1e-4, atol=0)


@pytest.mark.parametrize("shift", [lambda x, c: x + c, lambda x, c: x - c, lambda x, c: c - x], ids=["plus", "minus", "from"])
def test_what_is_added_or_taken_away_is_a_bias_also_where_it_is_zero(shift: Callable[[keras.KerasTensor, float], keras.KerasTensor]) -> None:
    maps, without = [], shifting(lambda x: x)
    for c in (0.0, 0.7):
        model = shifting(lambda x, c=c: shift(x, c))  # type: ignore[misc]
        model.set_weights(without.get_weights())
        maps.append(simple_fullgrad(KerasNetwork(model), images(), CLASSES))
    np.testing.assert_allclose(*maps, rtol=1e-5, atol=1e-6)
    assert np.abs(maps[0] - maps[0].mean()).max() > 0.1


# ---- refusals, and no trace ------------------------------------------------------------------------------------------


def test_a_layer_that_mixes_inputs_is_named() -> None:
    class Centred(L.Layer):  # type: ignore[misc]
        def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
            return x - keras.ops.mean(x, axis=0, keepdims=True) ** 2

    model = randomised(stacked(L.Conv2D(3, 3, activation="gelu"), Centred(name="culprit"), L.GlobalAveragePooling2D(), L.Dense(4)))
    with pytest.raises(ValueError, match=r"arises in 'culprit': it mixes the inputs of a batch|an operation with a bias returns .*mixes the inputs"):
        fullgrad(KerasNetwork(model), images(), CLASSES)


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_half_precision_is_refused(half: str) -> None:
    model = stacked(L.Conv2D(3, 3, activation="gelu"), L.Conv2D(3, 3, dtype=f"mixed_{half}"), L.GlobalAveragePooling2D(), L.Dense(4))
    with pytest.raises(ValueError, match=rf"no full gradient: '(cast|to)' computes in {half}, .*; expected float32 or float64: explain"):
        fullgrad(KerasNetwork(model), images(), CLASSES)


def test_gaps_are_nothing_where_the_sum_is_complete() -> None:
    gaps = KerasNetwork(twins()[1]).full_gradient_gaps(images(), CLASSES)
    assert {"", "a", "b", "c", "c.gelu"} <= set(gaps)
    assert max(np.abs(gap).max() for gap in gaps.values()) < 1e-5


def test_maps_of_token_networks_are_refused_and_of_others_do_not_depend_on_the_batch() -> None:
    with pytest.raises(ValueError, match=r"no FullGrad map of this network.*use saliency\.gradient"):
        fullgrad(KerasNetwork(randomised(ZOO["transformer"]())), images(), CLASSES)
    inputs = images()
    inputs[1] *= 5
    network = KerasNetwork(randomised(ZOO["norms, softmax"]()))
    for method in (fullgrad, simple_fullgrad):
        alone = [method(network, inputs[i : i + 1], CLASSES[i : i + 1])[0] for i in range(3)]
        np.testing.assert_allclose(method(network, inputs, CLASSES), alone, rtol=1e-4, atol=1e-4)


def test_nothing_about_the_model_changes() -> None:
    model = stacked(L.Conv2D(3, 3, activation="gelu"), L.BatchNormalization(), L.Dropout(0.5), L.GlobalAveragePooling2D(), L.Dense(4))
    weights, attributes = [numbers(v).copy() for v in model.variables], [dict(vars(layer)) for layer in model.layers]
    before = np.random.get_state()[1]  # noqa: NPY002
    fullgrad(KerasNetwork(model), images(), CLASSES)
    KerasNetwork(model).full_gradient_gaps(images(), CLASSES)
    for now, then in zip(model.variables, weights, strict=True):
        np.testing.assert_array_equal(numbers(now), then)
    for layer, then in zip(model.layers, attributes, strict=True):
        assert set(vars(layer)) == set(then)
        assert vars(layer).get("activation") is then.get("activation")
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="it is this test that starts the other backend")
def test_every_law_holds_on_the_torch_backend_too() -> None:
    """In a process of its own: a process has one backend."""
    environment = {**os.environ, "KERAS_BACKEND": "torch"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/test_fullgradient_keras.py"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent, env=environment, check=False)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
