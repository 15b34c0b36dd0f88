"""Weights drawn anew and inputs shifted, in Keras: what they are, and that nothing of it stays.

Every law holds on the TensorFlow and on the torch backend; the last test runs this file once more on the other one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from netlapse.analysis.saliency import fullgrad, grad_cam, gradient, gradient_times_input
from netlapse.backends.keras import KerasNetwork
from netlapse.models.keras import cnn, resnet18
from tests.test_keras_network import BACKEND, Residual, array, disturbing, images, on_tensorflow, randomised, trace

L = keras.layers


def weights(model: keras.Model) -> list[bytes]:
    return [array(variable).tobytes() for variable in model.weights if "seed" not in variable.path]


# ---- weights drawn anew ----------------------------------------------------------------------------------------------


def seeded() -> keras.Model:
    """Initialisers with seeds of their own, which would give the same values each time, and a layer of somebody's own."""

    class Own(keras.Layer):
        def build(self, shape: tuple[int, ...]) -> None:
            self.scale = self.add_weight(shape=(shape[-1],), initializer="random_normal", name="scale")

        def call(self, x: object) -> object:
            return x * self.scale

    layers = [L.Conv2D(4, 3, kernel_initializer=keras.initializers.HeNormal(seed=3)), Own(), L.Flatten(), L.Dense(4)]
    return keras.Sequential([keras.Input((8, 8, 3)), *layers])


def recurrent() -> keras.Model:
    return keras.Sequential([keras.Input((8, 8, 3)), L.Reshape((8, 24)), L.LSTM(5), L.Dense(4)])


@pytest.mark.parametrize(
    "build",
    [lambda: cnn((8, 8, 3), 4, channels=(4, 8), hidden=16), lambda: resnet18((8, 8, 3), 4, width=4), recurrent],
    ids=["cnn", "resnet", "lstm"],
)
def test_everything_randomised_is_a_model_built_after_that_seed(build: Callable[[], keras.Model]) -> None:
    keras.utils.set_random_seed(5)
    fresh = build()
    model = randomised(build())
    network, before = KerasNetwork(model), weights(model)
    expected = network.outputs(images())
    with network.randomised(network.parametrised(images()), 5) as how:
        assert set(how.values()) == {"drawn"}
        assert weights(model) == weights(fresh)
        np.testing.assert_allclose(network.outputs(images()), KerasNetwork(fresh).outputs(images()), rtol=1e-6, atol=1e-7)
    assert weights(model) == before != weights(fresh)
    np.testing.assert_array_equal(network.outputs(images()), expected)


def test_nothing_randomised_is_the_model_itself() -> None:
    model = randomised(cnn((8, 8, 3), 4, channels=(4, 8), hidden=16))
    network, before = KerasNetwork(model), weights(model)
    with network.randomised([], 0) as how:
        assert how == {}
        assert weights(model) == before


def test_initialisers_with_a_seed_of_their_own_draw_anew_too() -> None:
    model = seeded()
    network, before = KerasNetwork(model), [array(variable).copy() for variable in model.weights]
    found = []
    for chosen, seed in ((["conv2d", "dense"], 1), (["conv2d"], 1), (["conv2d"], 2)):
        names = [name for name in network.parametrised(images()) if name.split("_")[0] in chosen]
        with network.randomised(names, seed) as how:
            assert set(how.values()) == {"drawn"}
            found.append(array(model.layers[0].kernel).copy())
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[1], found[2])
    assert not np.array_equal(found[1], before[0])
    # He's initialiser still: a truncated normal with variance 2 / fan in.
    assert 0.6 < found[1].std() / np.sqrt(2 / 27) < 1.4


def test_a_layer_that_cannot_be_built_again_has_its_own_weights_in_another_order() -> None:
    class Closed(keras.Layer):
        def __init__(self, size: int) -> None:
            super().__init__(name="closed")
            self.size = size

        def build(self, shape: tuple[int, ...]) -> None:
            self.kernel = self.add_weight(shape=(shape[-1], self.size), initializer="random_normal", name="kernel")
            self.calls = self.add_weight(shape=(3,), initializer="random_normal", trainable=False, name="calls")

        def call(self, x: object) -> object:
            return keras.ops.matmul(x, self.kernel)

        def get_config(self) -> dict[str, object]:
            raise NotImplementedError

    model = keras.Sequential([keras.Input((6,)), Closed(5), L.Dense(2)])
    kernel, calls = array(model.layers[0].kernel).copy(), array(model.layers[0].calls).copy()
    with KerasNetwork(model).randomised(["closed"], 0) as how:
        assert how == {"closed": "permuted"}
        now = array(model.layers[0].kernel)
        assert not np.array_equal(now, kernel)
        np.testing.assert_array_equal(np.sort(now, axis=None), np.sort(kernel, axis=None))
        np.testing.assert_array_equal(array(model.layers[0].calls), calls)
    np.testing.assert_array_equal(array(model.layers[0].kernel), kernel)


def test_layers_are_in_execution_order() -> None:
    x = keras.Input((8, 8, 3))
    last, first = L.Dense(2, name="last"), L.Conv2D(4, 3, name="first")
    model = keras.Model(x, last(L.Flatten()(Residual()(L.Conv2D(3, 3, name="second")(first(x))))))
    names = KerasNetwork(model).parametrised(images())
    assert [name for name in names if "." not in name] == ["first", "second", "last"]
    assert names[2].endswith(".conv")


ASKED = {"randomised": lambda n: n.randomised(["conv", "norm", "fc", ""], 0), "shifted": lambda n: n.shifted(np.ones((8, 8, 3)))}


@pytest.mark.parametrize("context", ASKED)
@pytest.mark.parametrize("ending", ["none", "inside", "call"])
def test_nothing_stays_of_it_whatever_happens_inside(context: str, ending: str) -> None:
    model = disturbing()
    network = KerasNetwork(model)
    network.describe(images())
    before, expected = trace(model), network.activations(images(), ["conv"])["conv"]

    def asked() -> None:
        with ASKED[context](network):
            network.activations(images(), ["conv"])
            model.fails = ending == "call"
            network.describe(images(side=9))
            if ending == "inside":
                raise LookupError

    if ending == "none":
        asked()
    else:
        with pytest.raises(LookupError if ending == "inside" else ArithmeticError):
            asked()
    model.fails = False
    assert trace(model) == before
    np.testing.assert_array_equal(network.activations(images(), ["conv"])["conv"], expected)


def test_unknown_layers_are_named_with_those_there_are() -> None:
    network = KerasNetwork(cnn((8, 8, 3), 4, channels=(4,), hidden=4))
    with pytest.raises(ValueError, match=r"no layers named \['conv9'\]; this network has \['', 'conv1'"), network.randomised(["conv9"], 0):
        pass


# ---- shifted inputs --------------------------------------------------------------------------------------------------


def sequential(*layers: keras.Layer) -> keras.Model:
    return randomised(keras.Sequential([keras.Input((8, 8, 3)), *layers, L.Flatten(), L.Dense(4)]))


SHIFTABLE: dict[str, Callable[[], keras.Model]] = {
    "padded": lambda: randomised(cnn((8, 8, 3), 4, channels=(4, 8), hidden=16)),
    "strided": lambda: sequential(L.Conv2D(6, 4, strides=2, padding="same", activation="relu")),
    "dilated": lambda: sequential(L.DepthwiseConv2D(3, dilation_rate=2, padding="same", activation="gelu"), L.Conv2D(2, 3)),
    "dense": lambda: sequential(L.Flatten(), L.Dropout(0.5), L.Dense(8, activation="tanh")),
    "norm first": lambda: sequential(L.BatchNormalization(), L.ReLU()),
    "rescaled": lambda: sequential(L.Rescaling(0.3, offset=-1.0), L.Conv2D(3, 3, activation="sigmoid")),
    "nested": lambda: sequential(keras.Sequential([keras.Input((8, 8, 3)), L.Conv2D(3, 3, activation="relu")])),
}


@pytest.mark.parametrize("name", SHIFTABLE)
def test_a_shifted_input_is_answered_as_the_input_also_at_padded_borders(name: str) -> None:
    model, inputs = SHIFTABLE[name](), images()
    shift = np.array([0.5, -2.0, 3.0], np.float32) + np.zeros((8, 8, 3), np.float32)
    network = KerasNetwork(model)
    expected = network.outputs(inputs), network.vjp(inputs, "output", np.float32(1), ["input"])["input"]
    moved = network.outputs(inputs + shift)
    with network.shifted(shift):
        found = network.outputs(inputs + shift), network.vjp(inputs + shift, "output", np.float32(1), ["input"])["input"]
    for one, other in zip(found, expected):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * np.abs(other).max())
    assert np.abs(moved - expected[0]).max() > 0.05 * np.abs(expected[0]).max()
    np.testing.assert_array_equal(network.outputs(inputs), expected[0])


def test_the_gradient_stays_and_what_is_multiplied_by_the_input_moves() -> None:
    model, inputs, classes = SHIFTABLE["padded"](), images(), np.arange(5) % 4
    network = KerasNetwork(model)
    methods = {"gradient": gradient, "gradient_times_input": gradient_times_input, "grad_cam": grad_cam, "fullgrad": fullgrad}
    before = {name: method(network, inputs, classes) for name, method in methods.items()}
    with network.shifted(np.ones((8, 8, 3), np.float32)):
        after = {name: method(network, inputs + 1, classes) for name, method in methods.items()}
    change = {name: np.linalg.norm(after[name] - before[name]) / np.linalg.norm(before[name]) for name in methods}
    assert max(change["gradient"], change["grad_cam"]) < 1e-4
    assert min(change["gradient_times_input"], change["fullgrad"]) > 0.05


@pytest.mark.parametrize("layer", [L.ReLU(name="first"), L.MaxPooling2D(2, name="first")])
def test_a_model_that_does_not_begin_affinely_is_refused_by_the_name_of_its_layer(layer: keras.Layer) -> None:
    network = KerasNetwork(sequential(layer))
    said = r"the first thing this network does with its inputs is layer 'first', a \w+, which is not affine"
    with pytest.raises(ValueError, match=said), network.shifted(np.ones((8, 8, 3))):
        network.outputs(images())


@on_tensorflow
def test_every_law_holds_on_the_torch_backend_too() -> None:
    """In a process of its own: a process has one backend."""
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/test_keras_sanity.py"],
        capture_output=True, text=True, cwd=Path(__file__).parent.parent, env={**os.environ, "KERAS_BACKEND": "torch"}, check=False,
    )  # fmt: skip
    assert BACKEND == "tensorflow"
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
