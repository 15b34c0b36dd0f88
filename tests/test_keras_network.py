"""A Keras model seen as a network of named layers: the right numbers, an error where there are none, and no trace left behind.

Every law holds on the TensorFlow and on the torch backend; the last test runs this file once more on the other one.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from netlapse.analysis import default_analyses
from netlapse.backends.keras import KerasNetwork
from netlapse.observer import Observer
from netlapse.tracking.memory import MemoryTracker
from netlapse.types import Height, ProbeSet

L = keras.layers
BACKEND = keras.backend.backend()
on_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="of the TensorFlow backend")
on_torch = pytest.mark.skipif(BACKEND != "torch", reason="of the torch backend")

# Two runs of the same float32 forward differ only where another order of summation rounds otherwise: a few units in the last place.
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def images(n: int = 5, side: int = 8, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, side, side, channels)).astype(np.float32)


def vectors(n: int = 6, features: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, features)).astype(np.float32)


def randomised(model: keras.Model, seed: int = 0) -> keras.Model:
    """Weights, biases and moving statistics that are nothing in particular; variances positive."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        values = rng.normal(size=variable.shape) * 0.3
        variable.assign(np.abs(values) + 0.5 if variable.name == "moving_variance" else values)
    return model


def convnet(dtype: str = "float32") -> keras.Sequential:
    """Convolution with a fused ReLU, batch norm that has seen data, tanh, pooling, dropout, a dense layer: (n, 8, 8, 3) -> (n, 4)."""
    layers = [
        L.Conv2D(6, 3, activation="relu", name="conv", dtype=dtype),
        L.BatchNormalization(name="norm", dtype=dtype),
        L.Activation("tanh", name="tanh", dtype=dtype),
        L.MaxPooling2D(2, name="pool", dtype=dtype),
        L.Dropout(0.5, name="drop", dtype=dtype),
        L.Flatten(name="flat", dtype=dtype),
        L.Dense(4, name="dense", dtype=dtype),
    ]
    return randomised(keras.Sequential([keras.Input((8, 8, 3), dtype=dtype), *layers]))


class Residual(keras.Layer):
    """x + tanh(conv(x)); the layers inside have no names of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act = L.Conv2D(3, 3, padding="same"), L.Activation("tanh")

    def call(self, x: object) -> object:
        return x + self.act(self.conv(x))


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = [Residual(), Residual()]
        self.pool, self.heads, self._drop = L.GlobalAveragePooling2D(), {"class": L.Dense(4), "other": L.Dense(2)}, L.Dropout(0.5)
        self.scale = L.Rescaling(2.0, name="scale_by_two")

    def call(self, x: object) -> object:
        for block in self.blocks:
            x = block(x)
        return self.scale(self.heads["class"](self._drop(self.pool(x))))


def subclassed() -> Subclassed:
    model = Subclassed()
    model(images())
    return randomised(model)


def array(tensor: object) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(tensor))


# ---- activations ----------------------------------------------------------------------------------------------------


def test_activations_are_those_of_keras_own_extractor() -> None:
    model, inputs = convnet(), images()
    network = KerasNetwork(model)
    found = network.activations(inputs, network.layers)
    assert network.layers == ("conv", "norm", "tanh", "pool", "drop", "flat", "dense")
    for layer in model.layers:
        expected = array(keras.Model(model.inputs, layer.output)(inputs, training=False))
        assert found[layer.name].dtype == np.float32
        np.testing.assert_allclose(found[layer.name], expected, **CLOSE)
    np.testing.assert_allclose(network.outputs(inputs), array(model(inputs, training=False)), **CLOSE)


def test_a_subclassed_model_is_observed_under_the_names_of_its_attributes() -> None:
    model, inputs = subclassed(), images()
    network = KerasNetwork(model)
    with pytest.raises(RuntimeError, match=r"layers of Subclassed are known only after a forward.*example=inputs"):
        _ = network.layers
    described = network.describe(inputs)
    names = ["blocks.0.conv", "blocks.0.act", "blocks.0", "blocks.1.conv", "blocks.1.act", "blocks.1", "pool", "_drop", "heads.class", "scale_by_two"]
    assert [layer.name for layer in described] == names
    found = network.activations(inputs, names)
    first, second = model.blocks
    after_first = inputs + np.tanh(array(first.conv(inputs)))
    np.testing.assert_allclose(found["blocks.0"], after_first, **CLOSE)
    np.testing.assert_allclose(found["blocks.1.act"], np.tanh(array(second.conv(after_first))), **CLOSE)
    np.testing.assert_allclose(found["scale_by_two"], 2 * found["heads.class"], **CLOSE)
    assert "its own call did not run" in network.refused["heads.other"]


def test_names_do_not_depend_on_what_else_was_made_in_the_process() -> None:
    names = [KerasNetwork(subclassed(), example=images()).layers for _ in range(2)]
    assert names[0] == names[1]


def test_a_nested_model_is_observed_layer_by_layer_and_as_itself_where_it_ends_in_a_sum() -> None:
    inside = keras.Input((8, 8, 3))
    block = keras.Model(inside, inside + L.Conv2D(3, 3, padding="same", name="conv")(inside), name="block")
    stem = keras.Sequential([keras.Input((8, 8, 3)), L.Conv2D(3, 3, padding="same", name="conv"), L.ReLU(name="relu")], name="stem")
    outside = keras.Input((8, 8, 3))
    model = keras.Model([outside], [L.Flatten(name="flat")(block(stem(outside)))])
    network, inputs = KerasNetwork(model), images()
    assert network.layers == ("stem.conv", "stem.relu", "block.conv", "block", "flat")
    found = network.activations(inputs, network.layers)
    np.testing.assert_allclose(found["stem.relu"], array(stem(inputs)), **CLOSE)
    np.testing.assert_allclose(found["block"], found["stem.relu"] + found["block.conv"], **CLOSE)
    assert {layer.name: layer.role for layer in network.describe(inputs)}["block"] == "block"
    with pytest.raises(ValueError, match=r"'stem' cannot be observed: its output is that of layer 'stem.relu'; observe that one"):
        network.activations(inputs, ["stem"])


def test_a_layer_used_twice_is_two_layers() -> None:
    x = keras.Input((3,))
    dense, act = L.Dense(3, name="fc"), L.Activation("tanh", name="act")
    model = randomised(keras.Model(x, act(dense(act(dense(x))))))
    network, inputs = KerasNetwork(model), vectors()
    assert network.layers == ("fc", "act", "fc.call2", "act.call2")
    found = network.activations(inputs, ["act.call2", "fc.call2", "act", "fc"])
    first = array(dense(inputs))
    second = array(dense(np.tanh(first)))
    for name, value in (("fc", first), ("act", np.tanh(first)), ("fc.call2", second), ("act.call2", np.tanh(second))):
        np.testing.assert_allclose(found[name], value, **CLOSE)
    np.testing.assert_allclose(network.activations(inputs, ["fc.call2"])["fc.call2"], second, **CLOSE)
    gradient = network.vjp(inputs, "act.call2", np.float32(1), ["fc.call2"])["fc.call2"]
    np.testing.assert_allclose(gradient, 1 - np.tanh(second) ** 2, **CLOSE)


@on_tensorflow
def test_two_layers_that_come_to_share_a_name_are_an_error() -> None:
    x = keras.Input((3,))
    inner = keras.Sequential([keras.Input((3,)), L.Dense(3, name="fc"), L.Dense(2, name="last")], name="a")
    model = keras.Model(x, L.Dense(3, name="a.fc")(inner(x)))
    with pytest.raises(RuntimeError, match=r"two layers share a name: \['a.fc'\]; rename one of each"):
        KerasNetwork(model).describe(vectors())


# ---- sums and responses ---------------------------------------------------------------------------------------------


def test_responses_and_group_sums_are_the_activations_reduced() -> None:
    network, inputs = KerasNetwork(convnet()), images(9)
    names = network.layers
    activations, responses = network.activations(inputs, names), network.responses(inputs, names)
    groups = np.array([3, 0, 0, 1, 3, 3, 0, 1, 1])
    kept, means = (network.group_sums(inputs, groups, 5, names, spatial) for spatial in ("keep", "mean"))
    for name in names:
        a = activations[name]
        positions = tuple(range(1, a.ndim - 1))
        np.testing.assert_allclose(responses.mean[name], a.mean(positions), **CLOSE)
        np.testing.assert_array_equal(responses.low[name], a.min(positions))
        np.testing.assert_array_equal(responses.high[name], a.max(positions))
        np.testing.assert_allclose(kept[name], np.stack([a[groups == g].sum(0) for g in range(5)]), **CLOSE)
        np.testing.assert_allclose(means[name], np.stack([a[groups == g].mean(positions).sum(0) for g in range(5)]), **CLOSE)
    assert responses.outputs is not None
    np.testing.assert_allclose(responses.outputs, activations["dense"], **CLOSE)


@pytest.mark.parametrize("by", ["maximum", "mean"])
def test_peaks_are_the_largest_activations_and_where_they_are(by: Height) -> None:
    network, inputs = KerasNetwork(convnet()), images(9)
    inputs[4] = np.nan
    names = network.layers
    activations = network.activations(inputs, names)
    flat = {name: a.reshape(9, -1, a.shape[-1]) for name, a in activations.items()}
    heights = {name: a.max(1) if by == "maximum" else a.mean(1) for name, a in flat.items()}
    floors = {name: np.sort(np.delete(height, 4, 0), axis=0)[-3] for name, height in heights.items()}
    unbounded = {name: np.full_like(floor, np.nan) for name, floor in floors.items()}
    peaks, bounded = network.peaks(inputs, names, 4, unbounded, by), network.peaks(inputs, names, 4, floors, by)
    for name, height in heights.items():
        np.testing.assert_allclose(peaks.values[name], height, **CLOSE)
        kth = np.sort(np.where(np.isnan(height), np.inf, height), axis=0)[-4]
        expected = np.where(~(height < kth), flat[name].argmax(1), -1)
        np.testing.assert_array_equal(peaks.places[name], expected)
        if by == "maximum":  # a mean differs in its last bit, and may be at its own floor
            np.testing.assert_array_equal(bounded.places[name], np.where(~(height <= floors[name]), flat[name].argmax(1), -1))


def test_everything_that_leaves_the_network_is_numpy() -> None:
    network, inputs = KerasNetwork(convnet()), images()
    responses = network.responses(inputs, ["conv", "dense"])
    left = [
        network.outputs(inputs),
        *network.activations(inputs, ["conv", "dense"]).values(),
        *[value for field in (responses.mean, responses.low, responses.high) for value in field.values()],
        responses.outputs,
        *network.group_sums(inputs, np.zeros(5, int), 1, ["conv", "dense"]).values(),
        *network.vjp(inputs, "dense", np.float32(1), ["conv", "input"]).values(),
    ]
    assert {type(value) for value in left} == {np.ndarray}
    assert {value.dtype for value in left if value is not None} == {np.dtype(np.float32)}


def test_groups_of_another_length_or_range_are_refused() -> None:
    network = KerasNetwork(convnet())
    for groups in (np.zeros(4, int), np.array([0, 1, 2, 0, 0]), np.array([0, -1, 0, 0, 0])):
        with pytest.raises(ValueError, match=r"groups have shape .* expected \(5,\) in 0 to 1"):
            network.group_sums(images(), groups, 2, ["conv"])


def test_means_of_a_half_precision_network_are_taken_in_float32() -> None:
    # One input channel, one weight of 1: the activations are the inputs, rounded to bfloat16.
    conv = L.Conv2D(1, 1, name="conv", dtype="mixed_bfloat16", kernel_initializer="ones")
    network = KerasNetwork(keras.Sequential([keras.Input((16, 16, 1)), conv]))
    inputs = np.random.default_rng(0).uniform(1, 2, (2, 16, 16, 1)).astype(np.float32)
    activation = network.activations(inputs, ["conv"])["conv"]
    expected = activation.mean((1, 2))
    # bfloat16 keeps 8 bits: a mean rounded to it would be off by up to 2 ** -9.
    assert np.abs(expected - array(keras.ops.cast(keras.ops.cast(expected, "bfloat16"), "float32"))).max() > 1e-4
    np.testing.assert_allclose(network.responses(inputs, ["conv"]).mean["conv"], expected, rtol=1e-5)
    np.testing.assert_allclose(network.group_sums(inputs, np.array([0, 1]), 2, ["conv"])["conv"], expected, rtol=1e-5)


@pytest.mark.parametrize("shape", [(12, 3), (6, 5, 4, 3)], ids=["sequence", "volume"])
def test_positions_may_be_along_one_axis_or_three(shape: tuple[int, ...]) -> None:
    conv = (L.Conv1D if len(shape) == 2 else L.Conv3D)(4, 2, activation="relu", name="conv")
    network = KerasNetwork(randomised(keras.Sequential([keras.Input(shape), conv, L.Flatten(), L.Dense(2)])))
    inputs = np.random.default_rng(0).normal(size=(5, *shape)).astype(np.float32)
    a, responses = network.activations(inputs, ["conv"])["conv"], network.responses(inputs, ["conv"])
    positions = tuple(range(1, len(shape)))
    np.testing.assert_allclose(responses.mean["conv"], a.mean(positions), **CLOSE)
    np.testing.assert_array_equal(responses.low["conv"], a.min(positions))
    np.testing.assert_array_equal(responses.high["conv"], a.max(positions))


# ---- where the units are --------------------------------------------------------------------------------------------


def test_channels_first_gives_what_channels_last_gives() -> None:
    def build(data_format: str) -> keras.Model:
        first = data_format == "channels_first"
        x = h = keras.Input((3, 8, 8) if first else (8, 8, 3))
        h = L.Conv2D(4, 3, padding="same", data_format=data_format, name="conv")(L.Rescaling(0.5, name="scale")(h))
        h = L.ReLU(name="relu")(L.BatchNormalization(axis=1 if first else -1, name="norm")(h))
        h = L.AveragePooling2D(2, data_format=data_format, name="pool")(h)
        h = L.GlobalAveragePooling2D(data_format=data_format, name="gap")(h)
        return randomised(keras.Model(x, L.Dense(3, name="dense")(h)))

    inputs, groups = images(), np.array([0, 1, 1, 0, 2])
    last, first = (KerasNetwork(build(data_format)) for data_format in ("channels_last", "channels_first"))
    assert last.layers == first.layers
    assert last.describe(inputs) == first.describe(inputs)
    a, b = (network.activations(inputs, network.layers) for network in (last, first))
    for spatial in ("mean", "keep"):
        sums, others = (network.group_sums(inputs, groups, 3, network.layers, spatial) for network in (last, first))
        for name in last.layers:
            np.testing.assert_allclose(sums[name], others[name], **CLOSE)
    cotangent = np.random.default_rng(1).normal(size=(5, 8, 8, 4))
    gradients, others = (network.vjp(inputs, "relu", cotangent, ["input", "scale", "conv"]) for network in (last, first))
    for name in gradients:
        np.testing.assert_allclose(gradients[name], others[name], **CLOSE)
    for name in last.layers:
        np.testing.assert_allclose(a[name], b[name], **CLOSE)
        np.testing.assert_allclose(last.responses(inputs, [name]).high[name], first.responses(inputs, [name]).high[name], **CLOSE)
    moved = np.moveaxis(inputs, -1, 1)
    np.testing.assert_array_equal(first.to_array(keras.ops.convert_to_tensor(moved)), inputs)


def test_a_permutation_moves_the_units() -> None:
    x = keras.Input((8, 8, 3))
    h = L.Conv2D(5, 3, name="conv")(x)
    moved = L.ReLU(name="relu")(L.Permute((3, 1, 2), name="permute")(h))
    network, inputs = KerasNetwork(keras.Model(x, L.Flatten()(moved))), images()
    assert [layer.units for layer in network.describe(inputs)] == [5, 5, 5, 180]
    found = network.activations(inputs, ["conv", "permute"])
    np.testing.assert_array_equal(found["permute"], found["conv"])


def test_token_ids_stay_integers_and_are_looked_up() -> None:
    tokens = np.random.default_rng(0).integers(1, 10, (5, 6))
    tokens[:, 4:] = 0
    layers = [L.Embedding(10, 4, mask_zero=True, name="embed"), L.LSTM(5, name="lstm"), L.Dense(2, name="dense")]
    model = randomised(keras.Sequential([keras.Input((6,), dtype="int32"), *layers]))
    network = KerasNetwork(model)
    assert [layer.shape for layer in network.describe(tokens)] == [(6, 4), (5,), (2,)]
    np.testing.assert_array_equal(network.activations(tokens, ["embed"])["embed"], array(model.layers[0].embeddings)[tokens])
    np.testing.assert_allclose(network.outputs(tokens), array(model(tokens)), **CLOSE)
    gradient = network.vjp(tokens, "dense", np.array([1.0, 0.0]), ["embed"])["embed"]
    assert np.abs(gradient[:, :4]).min() > 0
    np.testing.assert_array_equal(gradient[:, 4:], 0)  # the mask goes with the activation that is observed
    with pytest.raises(ValueError, match=r"no gradient by token ids.*embedding layer"):
        network.vjp(tokens, "dense", np.float32(1), ["input"])


def test_what_runs_once_per_time_step_is_refused_and_says_where_to_look() -> None:
    x = keras.Input((7, 3))
    h = L.TimeDistributed(L.Dense(5, activation="relu", name="step"), name="steps")(x)
    h = L.MultiHeadAttention(2, 3, name="attention")(h, h)
    network = KerasNetwork(keras.Model(x, L.Dense(2, name="dense")(L.GlobalAveragePooling1D(name="pool")(h))))
    described = {layer.name: layer for layer in network.describe(np.ones((4, 7, 3), np.float32))}
    assert {"steps", "attention.query", "attention", "pool", "dense"} <= set(described)
    assert described["steps"].shape == (7, 5)
    assert described["attention"].role == "weights"
    with pytest.raises(ValueError, match=r"'steps.step' cannot be observed: it runs once per time step inside 'steps'; observe that one"):
        network.activations(np.ones((4, 7, 3), np.float32), ["steps.step"])


@on_tensorflow  # importing what Keras needs for it on torch takes five seconds
def test_recurrent_layers_are_observed_and_their_states_stay() -> None:
    x = keras.Input(batch_shape=(4, 7, 3))
    h = L.Bidirectional(L.GRU(4, return_sequences=True, name="gru"), name="both")(x)
    memory = L.LSTM(5, stateful=True, name="memory")
    model = keras.Model(x, L.Dense(2, name="dense")(memory(h)))
    inputs = np.random.default_rng(0).normal(size=(4, 7, 3)).astype(np.float32)
    model(inputs)
    before = [array(state) for state in memory.states]
    network = KerasNetwork(model)
    names = ("both.forward_gru", "both.backward_gru", "both", "memory", "dense")
    assert network.layers == names
    assert "once per time step inside 'memory'" in network.refused["memory.cell"]
    found = network.activations(inputs, names)
    np.testing.assert_allclose(found["both"], np.concatenate([found["both.forward_gru"], found["both.backward_gru"][:, ::-1]], axis=-1), **CLOSE)
    network.vjp(inputs, "dense", np.float32(1), ["input", "both"])
    for state, value in zip(memory.states, before):
        np.testing.assert_array_equal(array(state), value)
    np.testing.assert_allclose(found["dense"], array(model(inputs)), **CLOSE)  # the states count, and the model goes on from where it was


# ---- roles ----------------------------------------------------------------------------------------------------------


def test_roles_tell_nonlinearities_fused_or_not_from_what_changes_nothing() -> None:
    class Swish(keras.Layer):
        def call(self, x: object) -> object:
            return x * keras.ops.sigmoid(x)

    class DropPath(keras.Layer):
        def call(self, x: object, training: bool = False) -> object:
            return x * 0 if training else x

    expected = [
        (L.Dense(4), "weights"),
        (Swish(), "activation"),
        (DropPath(), "other"),
        (L.Dropout(0.5), "other"),
        (L.PReLU(), "activation"),
        (L.Dense(4, activation="gelu"), "activation"),
        (L.BatchNormalization(), "weights"),
        (L.ReLU(), "activation"),
        (L.Activation("softmax"), "other"),
        (L.Dense(4, activation="softmax"), "weights"),
        (L.Softmax(), "other"),
        (L.Dense(2, activation="sigmoid"), "output"),
    ]
    model = keras.Sequential([keras.Input((3,)), *(layer for layer, _ in expected)])
    assert [layer.role for layer in KerasNetwork(model).describe(vectors())] == [role for _, role in expected]


def test_the_last_layer_of_a_block_of_a_sequence_is_a_block() -> None:
    def block(name: str) -> keras.Model:
        x = keras.Input((3,))
        return keras.Model(x, L.Add(name="add")([x, L.Dense(3, activation="relu", name="fc")(x)]), name=name)

    model = keras.Sequential([keras.Input((3,)), block("a"), block("b"), L.Dense(2, name="out")])
    roles = {layer.name: layer.role for layer in KerasNetwork(model).describe(vectors())}
    assert roles == {"a.fc": "activation", "a.add": "block", "b.fc": "activation", "b.add": "block", "out": "output"}


# ---- vector-Jacobian products ---------------------------------------------------------------------------------------


def test_vjp_agrees_with_finite_differences_by_the_input_and_by_a_layer() -> None:
    model = convnet("float64")
    network, inputs = KerasNetwork(model), images(2).astype(np.float64)
    cotangent = np.random.default_rng(1).normal(size=(2, 4)).astype(np.float32)
    found = network.vjp(inputs, "dense", cotangent, ["input", "norm"])
    tail = keras.Sequential([keras.Input((6, 6, 6), dtype="float64"), *model.layers[2:]])
    norm = array(keras.Model(model.inputs, model.get_layer("norm").output)(inputs, training=False))

    # Off by step squared, and by rounding / step: in float64, though Keras on torch rounds to float32 on the way.
    step, tolerance = (1e-5, {"rel": 1e-4, "abs": 1e-7}) if BACKEND == "tensorflow" else (1e-3, {"rel": 1e-3, "abs": 1e-4})

    def by_differences(function: keras.Model, at: np.ndarray, where: tuple[int, ...]) -> float:
        difference = np.zeros_like(at)
        difference[where] = step
        up, down = (float((array(function(at + d, training=False)) * cotangent).sum()) for d in (difference, -difference))
        return (up - down) / (2 * step)

    for where in [(0, 0, 0, 0), (0, 4, 5, 1), (1, 7, 7, 2), (1, 3, 0, 0)]:
        assert found["input"][where] == pytest.approx(by_differences(model, inputs, where), **tolerance)
    for where in [(0, 0, 0, 0), (0, 4, 5, 3), (1, 2, 2, 5)]:
        assert found["norm"][where] == pytest.approx(by_differences(tail, norm, where), **tolerance)
    assert np.abs(found["input"]).max() > 1e-3
    assert list(found) == ["input", "norm"]


def test_output_names_the_logits_and_a_cotangent_broadcasts() -> None:
    network, inputs = KerasNetwork(convnet()), images()
    by_name = network.vjp(inputs, "output", np.array([0.0, 1.0, 0.0, 0.0]), ["input"])["input"]
    by_layer = network.vjp(inputs, "dense", np.tile([0.0, 1.0, 0.0, 0.0], (5, 1)), ["input"])["input"]
    np.testing.assert_array_equal(by_name, by_layer)
    assert np.abs(by_name).max() > 0
    conv = network.activations(inputs, ["conv"])["conv"]
    np.testing.assert_array_equal(network.vjp(inputs, "conv", conv, ["conv"])["conv"], conv)


@pytest.mark.parametrize("shape", [(3,), (5, 3), (7, 5, 4), (4, 5)])
def test_a_cotangent_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"vjp was given a cotangent .* the activation of 'dense' is \(5, 4\)"):
        KerasNetwork(convnet()).vjp(images(), "dense", np.ones(shape), ["input"])


def test_vjp_by_what_it_does_not_depend_on_is_an_error() -> None:
    x = keras.Input((3,))
    network = KerasNetwork(keras.Model(x, L.Dense(2, name="a")(x) + L.Dense(2, name="b")(x)))
    with pytest.raises(ValueError, match=r"the activation of 'a' does not depend on \['b'\]; layers run in the order \['a', 'b'\]"):
        network.vjp(vectors(), "a", np.float32(1), ["input", "b"])
    with pytest.raises(ValueError, match=r"no gradient by 'output', which nothing depends on"):
        network.vjp(vectors(), "a", np.float32(1), ["output"])


def test_vjp_works_where_every_weight_is_frozen() -> None:
    model, frozen, inputs = convnet(), convnet(), images()
    frozen.trainable = False
    found, expected = (KerasNetwork(m).vjp(inputs, "dense", np.float32(1), ["conv", "tanh"]) for m in (frozen, model))
    for name in found:
        np.testing.assert_allclose(found[name], expected[name], **CLOSE)


# ---- what a model may take and return -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["list", "dict", "one"])
def test_several_outputs_are_refused_by_name_and_one_is_chosen(kind: str) -> None:
    x = keras.Input((3,))
    a, b = L.Dense(2, name="a")(x), L.Dense(4, name="b")(x)
    model = randomised(keras.Model(x, {"list": [a, b], "dict": {"first": a, "second": b}, "one": {"second": b}}[kind]))
    if kind == "one":
        assert KerasNetwork(model).outputs(vectors()).shape == (6, 4)
        return
    said = {"list": "a list of 2", "dict": r"a dict with keys \['first', 'second'\]"}[kind]
    for ask in (lambda n: n.outputs(vectors()), lambda n: n.activations(vectors(), ["a"])):
        with pytest.raises(ValueError, match=rf"the network returns {said}.*KerasNetwork\(model, output="):
            ask(KerasNetwork(model))
    network = KerasNetwork(model, output=1 if kind == "list" else "second")
    np.testing.assert_array_equal(network.outputs(vectors()), network.activations(vectors(), ["b"])["b"])
    assert {layer.name: layer.role for layer in network.describe(vectors())} == {"a": "weights", "b": "output"}
    with pytest.raises(ValueError, match="the network's output has no 'third'"):
        KerasNetwork(model, output="third").outputs(vectors())


def test_several_inputs_are_refused_with_the_reason() -> None:
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    with pytest.raises(ValueError, match=r"takes 2 inputs, \['a', 'b'\], and a probe is one array"):
        KerasNetwork(keras.Model([a, b], L.Dense(2)(a + b)))


def test_a_named_single_input_is_given_as_the_model_takes_it(recwarn: pytest.WarningsRecorder) -> None:
    x = keras.Input((3,), name="x")
    network = KerasNetwork(keras.Model({"x": x}, {"y": L.Dense(2, name="fc")(x)}))
    assert network.outputs(vectors()).shape == (6, 2)
    assert not [warning for warning in recwarn if "structure" in str(warning.message)]


def test_logits_of_another_shape_are_an_error_and_none_in_responses() -> None:
    network, inputs = KerasNetwork(keras.Sequential([keras.Input((8, 8, 3)), L.Conv2D(4, 3, name="conv")])), images()
    assert network.responses(inputs, ["conv"]).outputs is None
    with pytest.raises(ValueError, match=r"the network's output has shape \(5, 6, 6, 4\); expected \(n, k\)"):
        network.outputs(inputs)


def test_inputs_of_another_size_are_observed_at_their_own() -> None:
    model = keras.Sequential([keras.Input((None, None, 3)), L.Conv2D(4, 3, name="conv"), L.GlobalAveragePooling2D(name="pool")])
    network = KerasNetwork(model, example=images())
    for side in (8, 11):
        assert network.activations(images(side=side), ["conv"])["conv"].shape == (5, side - 2, side - 2, 4)
        assert network.vjp(images(side=side), "conv", np.ones((side - 2, side - 2, 4)), ["input"])["input"].shape == (5, side, side, 3)
    assert network.describe(images(side=8))[0].shape == (6, 6, 4)


# ---- refusals -------------------------------------------------------------------------------------------------------


def test_an_unknown_layer_is_an_error_that_names_what_exists() -> None:
    network, inputs = KerasNetwork(convnet()), images()
    for ask in (
        lambda: network.activations(inputs, ["conv9"]),
        lambda: network.responses(inputs, ["conv", "conv9"]),
        lambda: network.group_sums(inputs, np.zeros(5, int), 1, ["conv9"]),
        lambda: network.vjp(inputs, "conv9", np.float32(1), ["input"]),
        lambda: network.vjp(inputs, "dense", np.float32(1), ["conv9"]),
    ):
        with pytest.raises(ValueError, match=r"no layer named \['conv9'\]; this network has \['conv', 'norm', 'tanh'"):
            ask()


@pytest.mark.parametrize("name", ["input", "output"])
def test_names_of_the_networks_own_input_and_output_are_reserved(name: str) -> None:
    network = KerasNetwork(keras.Sequential([keras.Input((3,)), L.Dense(3, name=name), L.Dense(2, name="last")]))
    with pytest.raises(ValueError, match=rf"the name '{name}' stands for the network's own {name}; rename the layer"):
        network.activations(vectors(), [name])
    assert network.layers == ("last",)


def test_a_last_layer_named_output_is_the_output() -> None:
    network = KerasNetwork(keras.Sequential([keras.Input((3,)), L.Dense(4, name="hidden"), L.Dense(2, name="output")]))
    outputs, groups = network.outputs(vectors()), np.arange(6) % 2
    np.testing.assert_allclose(network.activations(vectors(), ["output"])["output"], outputs, **CLOSE)
    np.testing.assert_allclose(network.responses(vectors(), ["output"]).mean["output"], outputs, **CLOSE)
    np.testing.assert_allclose(network.group_sums(vectors(), groups, 2, ["output"])["output"][0], outputs[::2].sum(0), **CLOSE)


def test_a_model_without_weights_yet_is_refused_and_not_built() -> None:
    for model in (keras.Sequential([L.Dense(3, name="fc")]), Subclassed()):
        state = random.getstate()
        with pytest.raises(ValueError, match=r"has no weights yet, and observing would create them; call the model on one batch first"):
            KerasNetwork(model).outputs(images())
        assert not model.weights
        assert not model.built
        assert random.getstate() == state
        network = KerasNetwork(model)
        model(images())
        assert network.describe(images())


def test_what_is_no_keras_model_is_a_type_error() -> None:
    with pytest.raises(TypeError, match=r"KerasNetwork was given a builtins.dict; expected a model of Keras 3"):
        KerasNetwork({})  # type: ignore[arg-type]


def test_another_backend_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    model = convnet()
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(RuntimeError, match=r"Keras runs on 'jax' here.*'tensorflow' and 'torch': set KERAS_BACKEND"):
        KerasNetwork(model)


def test_a_layer_that_puts_the_sequence_first_is_refused() -> None:
    class SequenceFirst(keras.Layer):
        def call(self, x: object) -> object:
            return keras.ops.transpose(x, (1, 0, 2))

    x = keras.Input((4, 3))
    first = SequenceFirst(name="first")
    network = KerasNetwork(keras.Model(x, L.Flatten(name="flat")(SequenceFirst(name="back")(first(x)))))
    with pytest.raises(ValueError, match=r"'first' cannot be observed: its output has shape .* expected the batch first"):
        network.activations(np.zeros((2, 4, 3), np.float32), ["first"])


# ---- do no harm -----------------------------------------------------------------------------------------------------


class Disturbing(keras.Model):
    """Does to its surroundings, even in evaluation mode, what a call can."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.frozen, self.drop = L.Conv2D(4, 3), L.BatchNormalization(), L.BatchNormalization(trainable=False), L.Dropout(0.3)
        self.fc = L.Dense(2, activity_regularizer="l2")
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False, name="calls")
        self.seeds = keras.random.SeedGenerator(3)
        self.fails = False

    def call(self, x: object, training: bool | None = None) -> object:
        self.calls.assign_add(1.0)
        x = x + 0 * keras.random.normal((1,), seed=self.seeds)
        random.random(), np.random.rand(3)  # noqa: NPY002
        x = self.drop(self.frozen(self.norm(self.conv(x))))
        if self.fails:
            raise ArithmeticError("in the middle of the call")
        x = self.fc(keras.ops.mean(x, (1, 2)))
        self.add_loss(keras.ops.sum(x))
        return x


def disturbing() -> Disturbing:
    keras.utils.set_random_seed(0)
    model = Disturbing()
    model.compile("sgd", "mse")
    model(images(), training=True)
    return model


def trace(model: keras.Model) -> dict[str, object]:
    """Everything about a model and its surroundings that a training could notice, as comparable values."""
    layers = model._flatten_layers()
    numpy_state = np.random.get_state()  # noqa: NPY002
    found: dict[str, object] = {
        "variables": [(v.path, v.trainable, array(v).tobytes()) for v in model.variables],
        "flags": [(layer.name, layer.trainable, layer.built, vars(layer).get("call"), vars(layer).get("build")) for layer in layers],
        "losses": [[array(loss).tolist() for loss in layer._losses] for layer in layers],
        "functions": (model.train_function, model.test_function, model.predict_function, model.optimizer),
        "random": (random.getstate(), numpy_state[1].tobytes(), numpy_state[2:]),
    }
    if BACKEND == "torch":
        import torch

        found["torch random"] = torch.get_rng_state().numpy().tobytes()
        found["modes"] = [(name, module.training) for name, module in model.named_modules()]
        found["gradients"] = [
            (v.path, v.value.requires_grad, None if v.value.grad is None else array(v.value.grad).tobytes()) for v in model.variables
        ]
        found["hooks"] = [len(module._forward_hooks) for module in model.modules()]
    return found


QUESTIONS: dict[str, Callable[[KerasNetwork], object]] = {
    "describe": lambda n: n.describe(images()),
    "outputs": lambda n: n.outputs(images()),
    "activations": lambda n: n.activations(images(), ["conv", "norm"]),
    "responses": lambda n: n.responses(images(), ["conv", "norm"]),
    "group_sums": lambda n: n.group_sums(images(), np.zeros(5, int), 1, ["conv"], "keep"),
    "vjp": lambda n: n.vjp(images(), "fc", np.float32(1), ["input", "norm"]),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_asking_a_network_changes_nothing_a_training_could_notice(question: str) -> None:
    model = disturbing()
    before = trace(model)
    QUESTIONS[question](KerasNetwork(model))
    assert trace(model) == before
    model(images())  # the counterpart: the model itself disturbs all of this
    after = trace(model)
    assert {"variables", "losses", "random"} <= {key for key in before if before[key] != after[key]}


@pytest.mark.parametrize("question", QUESTIONS)
def test_an_exception_in_the_middle_of_a_call_leaves_no_trace_either(question: str) -> None:
    model = disturbing()
    network = KerasNetwork(model)
    model.fails = True
    before = trace(model)
    with pytest.raises(ArithmeticError, match="in the middle"):
        QUESTIONS[question](network)
    assert trace(model) == before
    model.fails = False
    QUESTIONS[question](network)


@pytest.mark.parametrize("drawn_before", [False, True])
def test_a_layer_that_draws_without_a_seed_takes_nothing_from_the_training(drawn_before: bool) -> None:
    class Noise(keras.Layer):
        def call(self, x: object) -> object:
            return x + keras.random.normal((1,))

    model = keras.Sequential([keras.Input((3,)), L.Dense(2, name="fc"), Noise()])

    def drawn(observed: bool) -> list[object]:
        keras.utils.set_random_seed(1)
        if drawn_before:
            keras.random.normal((1,))
        if observed:
            network = KerasNetwork(model)
            network.activations(vectors(), ["fc"])
            network.vjp(vectors(), "output", np.float32(1), ["input"])
        return [array(keras.random.normal((2,))).tolist(), random.random(), array(keras.random.normal((2,))).tolist()]

    assert drawn(observed=True) == drawn(observed=False)


def test_undisturbed_can_be_nested() -> None:
    model = disturbing()
    before = trace(model)
    network = KerasNetwork(model)
    with network.undisturbed():
        random.random()
        with network.undisturbed():
            np.random.rand()  # noqa: NPY002
        network.outputs(images())
    assert trace(model) == before


def test_training_with_and_without_being_asked_is_the_same_bit_for_bit() -> None:
    """Dropout, batch norm, momentum, shuffling, `evaluate` in between, random augmentation; asked at each epoch's end and after some batches."""
    x, y = images(22), np.random.default_rng(1).integers(0, 4, 22)

    def train(observed: bool) -> dict[str, object]:
        keras.utils.set_random_seed(3)
        model = keras.Sequential([keras.Input((8, 8, 3)), L.RandomFlip(), *convnet().layers])
        model.compile(keras.optimizers.SGD(0.1, momentum=0.9), keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
        network = KerasNetwork(model)

        def ask(*_: object, **__: object) -> None:
            network.group_sums(x, y, 4, network.layers)
            network.responses(x[:7], ["conv", "tanh"])
            network.vjp(x[:5], "output", np.float32(1), ["input", "conv"])

        evaluate = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: model.evaluate(x, y, verbose=0))
        callbacks = [keras.callbacks.LambdaCallback(on_epoch_end=ask, on_train_batch_end=ask)] if observed else []
        history = model.fit(x, y, batch_size=5, epochs=3, validation_data=(x[:9], y[:9]), callbacks=[*callbacks, evaluate], verbose=0).history
        weights = [array(v).tobytes() for v in (*model.variables, *model.optimizer.variables)]
        state = {key: value for key, value in trace(model).items() if key in ("random", "torch random", "modes")}
        return {"weights": weights, "history": history, "next": array(keras.random.normal((3,))).tobytes(), **state}

    expected, found = train(observed=False), train(observed=True)
    for key in expected:
        assert found[key] == expected[key], key


# ---- analyses -------------------------------------------------------------------------------------------------------


def test_every_default_analysis_runs_on_a_keras_network_as_it_is() -> None:
    probe = ProbeSet(images(12), np.arange(12) % 3)
    observer = Observer(probe, default_analyses(probe), tracker := MemoryTracker(), strict=True)
    network = KerasNetwork(convnet())
    observer.start(network)
    for step in (0, 1):
        observer.observe(network, step)
    names = set(tracker.recording().scalars)
    assert {"nap/drift/conv", "layout/motion/tanh", "saliency/similarity/grad_cam"} <= names


# ---- TensorFlow -----------------------------------------------------------------------------------------------------


@on_tensorflow
def test_a_network_is_traced_once_for_all_checkpoints_and_batches() -> None:
    calls = []

    class Counting(keras.Layer):
        def call(self, x: object) -> object:
            calls.append(1)
            return x + keras.ops.ones(keras.ops.shape(x))  # of the batch's size, whatever it is

    model = keras.Sequential([keras.Input((3,)), L.Dense(4, name="fc"), Counting(name="count"), L.Dense(2, name="out")])
    network = KerasNetwork(model, example=vectors())

    def ask() -> np.ndarray:
        for n in (6, 6, 2):
            network.group_sums(vectors(n), np.arange(n) % 3, 3, ["fc", "count"])
            network.group_sums(vectors(n), np.arange(n) % 2, 2, ["fc", "count"], "keep")
            network.responses(vectors(n), ["count"])
            network.vjp(vectors(n), "output", np.ones(2), ["input"])
            network.vjp(vectors(n), "output", np.ones((n, 2)), ["input"])
        return network.outputs(vectors())

    outputs = ask()
    traced = len(calls)
    for step in range(50):
        model.layers[0].kernel.assign_add(np.full((3, 4), 0.1))
        changed = ask()
        assert not np.array_equal(changed, outputs), step  # the same program sees the weights of each checkpoint
        outputs = changed
    assert len(calls) == traced
    np.testing.assert_allclose(outputs, array(model(vectors())), **CLOSE)


@on_tensorflow
def test_a_model_compiled_with_xla_is_observed_and_not_compiled_anew() -> None:
    model = convnet()
    model.compile("sgd", "mse", jit_compile=True)
    x, y = images(), np.zeros((5, 4), np.float32)
    model.fit(x, y, epochs=1, verbose=0)
    function = model.train_function
    network = KerasNetwork(model)
    before = network.activations(x, ["tanh"])["tanh"]
    network.vjp(x, "output", np.float32(1), ["input"])
    model.fit(x, y, epochs=1, verbose=0)
    assert model.train_function is function
    assert not np.array_equal(network.activations(x, ["tanh"])["tanh"], before)


@on_tensorflow
def test_a_model_that_runs_eagerly_is_observed_eagerly() -> None:
    class Branching(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = L.Dense(2), L.Dense(2)

        def call(self, x: object) -> object:
            return self.a(x) if float(keras.ops.sum(x)) > 0 else self.b(x)

    model = Branching()
    model(np.ones((2, 3), np.float32)), model(-np.ones((2, 3), np.float32))
    model.compile("sgd", "mse", run_eagerly=True)
    network = KerasNetwork(model, example=np.ones((2, 3), np.float32))
    np.testing.assert_allclose(network.activations(np.ones((2, 3)), ["a"])["a"], array(model.a(np.ones((2, 3)))), **CLOSE)
    assert network.vjp(np.ones((2, 3)), "a", np.float32(1), ["input"])["input"].shape == (2, 3)
    with pytest.raises(RuntimeError, match=r"layers \['a'\] ran when the network was first shown inputs but not this time"):
        network.activations(-np.ones((2, 3)), ["a"])


@on_tensorflow
def test_a_call_that_is_a_tf_function_is_observed_and_what_runs_in_a_branch_refused() -> None:
    import tensorflow as tf

    class Branching(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.always, self.sometimes = L.Dense(3), L.Dense(3)

        @tf.function
        def call(self, x: object) -> object:
            x = self.always(x)
            return tf.cond(tf.reduce_sum(x) > 0, lambda: self.sometimes(x), lambda: x)

    model = Branching()
    model(vectors())
    network = KerasNetwork(model, example=vectors())
    assert network.layers == ("always",)
    np.testing.assert_allclose(network.activations(vectors(), ["always"])["always"], array(model.always(vectors())), **CLOSE)
    with pytest.raises(ValueError, match=r"'sometimes' cannot be observed: it runs inside a loop, a branch or a tf\.function"):
        network.activations(vectors(), ["sometimes"])


@on_tensorflow
def test_a_tf_variable_that_a_layer_writes_by_itself_is_left_as_it_was() -> None:
    import tensorflow as tf

    class Counting(keras.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.count = tf.Variable(0.0)

        def call(self, x: object) -> object:
            self.count.assign_add(1.0)
            return x

    layer = Counting()
    network = KerasNetwork(keras.Sequential([keras.Input((3,)), L.Dense(2, name="fc"), layer]))
    layer.count.assign(0.0)
    network.activations(vectors(), ["fc"])
    network.vjp(vectors(), "fc", np.float32(1), ["input"])
    assert float(layer.count) == 0


# ---- torch ----------------------------------------------------------------------------------------------------------


@on_torch
def test_on_torch_modes_and_gradients_of_a_wrapped_module_stay() -> None:
    import torch

    class Wrapping(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.fc = (
                torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(inplace=True)),
                L.Dense(2, name="fc"),
            )

        def call(self, x: object) -> object:
            return self.fc(keras.ops.mean(self.inner(x), (2, 3)))

    model = Wrapping()
    model(np.moveaxis(images(), -1, 1), training=True)
    model.train()
    model.inner.module[1].eval()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = {name: module.training for name, module in model.named_modules()}
    statistics = model.inner.module[1].running_mean.clone()
    network = KerasNetwork(model, channels_first=True)
    assert [layer.name for layer in network.describe(images())] == ["fc"]
    assert "which axis its units are on" in network.refused["inner"]
    network.vjp(images(), "fc", np.float32(1), ["input"])
    network.responses(images(), ["fc"])
    assert {name: module.training for name, module in model.named_modules()} == before
    assert all(bool((parameter.grad == 1).all()) for parameter in model.parameters())
    assert torch.equal(model.inner.module[1].running_mean, statistics)


@on_torch
@pytest.mark.parametrize("what", ["relu_", "fill_"])
def test_on_torch_an_inplace_operation_after_a_layer_does_not_reach_what_is_observed(what: str) -> None:
    class Overwriting(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.pool, self.fc = L.Conv2D(4, 3), L.GlobalAveragePooling2D(), L.Dense(2)

        def call(self, x: object) -> object:
            x.mul_(2.0)
            x = self.pool(self.conv(x).relu_())
            x = self.fc(x)
            return x.fill_(7.0) if what == "fill_" else x

    model, inputs = Overwriting(), images()
    model(keras.ops.convert_to_tensor(inputs))
    network, kept = KerasNetwork(model), inputs.copy()
    conv = array(model.conv(2 * inputs))
    fc = array(model.fc(np.maximum(conv, 0).mean((1, 2))))
    assert (conv < 0).any()
    found, responses = network.activations(inputs, ["conv", "fc"]), network.responses(inputs, ["conv", "fc"])
    np.testing.assert_allclose(found["conv"], conv, **CLOSE)
    np.testing.assert_allclose(responses.low["conv"], conv.min((1, 2)), **CLOSE)
    for value in (found["fc"], responses.mean["fc"], network.group_sums(inputs, np.arange(5), 5, ["fc"])["fc"]):
        np.testing.assert_allclose(value, fc, **CLOSE)
    weights = array(model.fc.kernel)[:, 0] / 36
    gradients = network.vjp(inputs, "fc", np.array([1.0, 0.0]), ["conv", "input"])
    np.testing.assert_allclose(gradients["conv"], np.where(conv > 0, weights, 0), **CLOSE)
    np.testing.assert_allclose(network.vjp(inputs, "conv", conv, ["conv"])["conv"], conv, **CLOSE)
    np.testing.assert_array_equal(inputs, kept)


@on_tensorflow
def test_every_law_holds_on_the_torch_backend_too() -> None:
    """In a process of its own: a process has one backend."""
    files = ["tests/test_keras_network.py", "tests/test_keras_data.py", "tests/test_keras_files.py", "tests/test_parity.py", "tests/test_logits.py"]
    environment = {**os.environ, "KERAS_BACKEND": "torch"}
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *files],
        capture_output=True, text=True, cwd=Path(__file__).parent.parent, env=environment, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
