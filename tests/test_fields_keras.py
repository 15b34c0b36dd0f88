"""Theoretical receptive fields of Keras models: the box that gradients reach, on both backends, and what the same network has in torch."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import keras
import numpy as np
import pytest
from torch import nn

from netlapse.backends.keras import KerasNetwork
from netlapse.backends.torch import TorchNetwork
from netlapse.models.keras import cnn, resnet18
from netlapse.occlusion import occluded
from netlapse.types import Field, NoField, Occlusion

L = keras.layers


def stacked(*layers: keras.Layer, shape: tuple[int, int, int] = (16, 15, 2)) -> keras.Model:
    return keras.Sequential([keras.Input(shape), *layers])


def shortcut() -> keras.Model:
    """Two paths that see differently far, a layer used twice, an operation between layers, a nested model."""
    inputs = keras.Input((14, 13, 2))
    x = keras.ops.abs(L.Conv2D(3, 2, padding="same", name="start")(inputs) + 1.0)
    shared = L.Conv2D(3, 3, padding="same", name="shared")
    y = shared(shared(x))
    inner = stacked(L.Conv2D(3, 3, 2, padding="same", name="stride"), L.BatchNormalization(), shape=(14, 13, 3))
    short = L.AveragePooling2D(2, 2, padding="same", name="short")(x)
    joined = L.Add(name="joined")([inner(y), short])
    return keras.Model(inputs, L.Conv2D(2, 1, name="end")(L.Concatenate(name="both")([joined, short])))


def gate() -> keras.Model:
    inputs = keras.Input((9, 8, 2))
    x = L.Conv2D(3, 3, name="conv")(inputs)
    gate = L.Dense(3)(L.GlobalAveragePooling2D(keepdims=True)(x))
    return keras.Model(inputs, L.Multiply(name="gated")([x, gate]))


ZOO: dict[str, Callable[[], keras.Model]] = {
    "even, same, stride": lambda: stacked(L.Conv2D(3, 4, 2, padding="same"), L.Conv2D(3, 2, 2, padding="same"), L.Conv2D(2, 3, padding="same")),
    "odd, same, stride": lambda: stacked(L.Conv2D(3, 3, 2, padding="same"), L.AveragePooling2D(3, 2, padding="same"), L.Conv2D(2, 2)),
    "dilated": lambda: stacked(L.Conv2D(3, 3), L.Conv2D(3, 3, dilation_rate=2, padding="same"), L.DepthwiseConv2D((2, 3))),
    "oblong": lambda: stacked(L.ZeroPadding2D(((2, 0), (1, 3))), L.SeparableConv2D(3, (1, 4), padding="same"), L.AveragePooling2D((3, 1), (2, 1))),
    "moved": lambda: stacked(L.Conv2D(3, 2), L.Permute((3, 1, 2)), L.Permute((2, 3, 1)), L.Conv2D(2, 2), L.Cropping2D((1, 0))),
    "shortcut": shortcut,
    "gate": gate,
    "resnet18": lambda: resnet18((32, 32, 3), 5, width=4),
}


def positive(model: keras.Model) -> keras.Model:
    """Weights that are all positive, so that no path from a pixel to a unit cancels another."""
    draw = np.random.default_rng(0)
    for variable in model.weights:
        variable.assign(draw.uniform(0.2, 1, variable.shape) / np.prod(variable.shape[:-1], dtype=float) ** 0.5)
    return model


@pytest.mark.parametrize("name", ZOO)
def test_the_gradient_of_a_unit_by_the_image_reaches_its_field_and_no_farther(name: str) -> None:
    model = positive(ZOO[name]())
    network = KerasNetwork(model)
    shape = tuple(model.inputs[0].shape[1:])
    image = np.random.default_rng(1).uniform(0.5, 1, (1, *shape)).astype(np.float32)
    fields = network.fields(image)
    layers = {layer.name: layer.shape for layer in network.describe(image) if len(layer.shape) == 3}
    assert set(fields) == set(layers)
    chosen = list(layers)[:: -max(1, len(layers) // 8)]
    assert not any(isinstance(field, NoField) for field in fields.values())
    for layer in chosen:
        field, (h, w, _) = fields[layer], layers[layer]
        assert isinstance(field, Field)
        for i, j in {(0, 0), (h // 2, w // 2), (h - 1, max(w - 4, 0))}:
            cotangent = np.zeros((1, *layers[layer]))
            cotangent[0, i, j] = 1
            touched = network.vjp(image, layer, cotangent, ["input"])["input"][0].any(-1)
            for axis, (seen, at) in enumerate(zip((touched.any(1), touched.any(0)), (i, j))):
                low = field.offset[axis] + at * field.stride[axis]
                allowed = [place for place in range(low, low + field.size[axis]) if 0 <= place < shape[axis]]
                if len(allowed) == field.size[axis] or "same" in name:
                    assert np.flatnonzero(seen).tolist() == allowed, (layer, field, i, j)
                else:
                    assert set(np.flatnonzero(seen)) <= set(allowed), (layer, field, i, j)


def test_same_padding_with_even_kernels_and_strides_is_tensorflows() -> None:
    """By hand: 16 rows, kernel 4, stride 2: 2 are missing, 1 before; 15 columns: 3 are missing, 1 before. 8 rows, kernel 2: none; 8 columns."""
    fields = KerasNetwork(ZOO["even, same, stride"]()).fields(np.zeros((1, 16, 15, 2)))
    first, second, third = fields.values()
    assert first == Field((4, 4), (2, 2), (-1, -1))
    assert second == Field((6, 6), (4, 4), (-1, -1))
    assert third == Field((14, 14), (4, 4), (-5, -5))


def test_the_same_network_has_the_same_fields_in_torch() -> None:
    layers = L.Conv2D(4, 5, 2), L.MaxPooling2D(3, 2), L.Conv2D(4, 3), L.GlobalAveragePooling2D(keepdims=True)
    torch_layers = nn.Conv2d(2, 4, 5, 2), nn.MaxPool2d(3, 2), nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1)
    of_keras, of_torch = KerasNetwork(stacked(*layers, shape=(40, 37, 2))), TorchNetwork(nn.Sequential(*torch_layers))
    assert list(of_keras.fields(np.zeros((1, 40, 37, 2))).values()) == list(of_torch.fields(np.zeros((1, 40, 37, 2))).values())


def test_attention_sees_all_of_the_image_and_tokens_put_in_a_row_are_not_guessed() -> None:
    def model(attend: bool) -> keras.Model:
        inputs = keras.Input((8, 6, 2))
        x = L.Reshape((12, 4))(L.Conv2D(4, 2, 2)(inputs))
        x = x + L.MultiHeadAttention(2, 3)(x, x) if attend else x
        return keras.Model(inputs, L.Conv2D(2, 1, name="end")(L.Reshape((4, 3, 4), name="back")(x)))

    assert KerasNetwork(model(True)).fields(np.zeros((1, 8, 6, 2)))["end"] == Field((8, 6), (0, 0), (0, 0))
    lost = KerasNetwork(model(False)).fields(np.zeros((1, 8, 6, 2)))["end"]
    assert isinstance(lost, NoField)
    assert lost.operation == "Reshape"


class Own(keras.Layer):  # type: ignore[misc]
    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        return keras.ops.roll(x, 1, axis=1)


class Block(keras.Layer):  # type: ignore[misc]
    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        self.conv = L.Conv2D(2, 3, padding="same", activation="relu")

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        return keras.ops.tanh(self.conv(self.conv(x))) + x


class Subclassed(keras.Model):  # type: ignore[misc]
    def __init__(self, symbolic: bool) -> None:
        super().__init__()
        self.symbolic, self.conv, self.block, self.drop = symbolic, L.Conv2D(2, 2), Block(), L.Dropout(0.5)

    def call(self, x: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        if not self.symbolic and isinstance(x, keras.KerasTensor):
            raise TypeError("no symbols here")
        return self.drop(self.block(self.conv(x)), training=training)


def test_what_a_layer_does_in_its_own_call_is_followed_and_leaves_no_trace() -> None:
    model = Subclassed(symbolic=True)
    image = np.zeros((1, 8, 7, 2), np.float32)
    model(image)
    layers = list(model._flatten_layers())
    before = [(len(layer._inbound_nodes), len(layer._outbound_nodes), layer.name) for layer in layers]
    number = int(L.Dropout(0.5).name.rpartition("_")[2])
    fields = KerasNetwork(model).fields(image)
    assert fields["conv"] == Field((2, 2), (1, 1), (0, 0))
    assert fields["block.conv"] == Field((4, 4), (1, 1), (-1, -1))
    assert fields["block.conv.call2"] == Field((6, 6), (1, 1), (-2, -2))
    assert fields["block"] == fields["drop"] == fields["block.conv.call2"]
    assert before == [(len(layer._inbound_nodes), len(layer._outbound_nodes), layer.name) for layer in layers]
    assert int(L.Dropout(0.5).name.rpartition("_")[2]) == number + 1


def test_a_layer_that_is_not_known_is_named_and_no_field_is_guessed() -> None:
    for layer, operation in (
        (L.UpSampling2D(2, name="odd"), "UpSampling2D"),
        (Own(name="odd"), "Roll"),
        (L.Conv2DTranspose(2, 3, name="odd"), "Conv2DTranspose"),
    ):
        fields = KerasNetwork(stacked(L.Conv2D(2, 3, name="before"), layer, L.Conv2D(2, 1, name="after"))).fields(np.zeros((1, 16, 15, 2)))
        assert fields["before"] == Field((3, 3), (1, 1), (0, 0))
        assert fields["after"] == NoField(operation, "odd")
    model = Subclassed(symbolic=False)
    model(np.zeros((1, 8, 8, 2), np.float32))
    assert KerasNetwork(model).fields(np.zeros((1, 8, 8, 2), np.float32))["conv"] == NoField("a call that does not take symbols", "conv")


def test_occlusion_of_a_keras_model_is_by_whole_images_and_says_so() -> None:
    model = cnn((16, 12, 3), 5)
    network = KerasNetwork(model)
    draw = np.random.default_rng(0)
    image, replacement = draw.normal(size=(2, 16, 12, 3)).astype(np.float32)
    layer = next(layer.name for layer in network.describe(image[None]) if len(layer.shape) == 3)
    corners = np.array([[0, 0], [-2, 5], [10, 9], [40, 0]])
    clean = network.activations(image[None], [layer])[layer][0]
    units = np.arange(clean.shape[-1])
    own = np.stack(np.unravel_index(clean.reshape(-1, len(units)).argmax(axis=0), clean.shape[:2]), axis=1)
    found = network.occluded(Occlusion(image, layer, corners, 4, replacement, units, own))
    covered = image.copy()
    covered[0:2, 5:9] = replacement[0:2, 5:9]
    by_hand = network.activations(covered[None], [layer])[layer][0]
    np.testing.assert_allclose(found.highest[1], by_hand.max((0, 1)), rtol=1e-5)
    np.testing.assert_allclose(found.at[3], clean.max((0, 1)), rtol=1e-5)
    assert found.batched == "a Keras model, for which nothing faster is there"
    one = Occlusion(image, layer, corners, 4, replacement, np.array([1]), np.array([[2, 3]]))
    np.testing.assert_array_equal(network.occluded_at(one), occluded(network, one).at)


def test_all_of_this_holds_on_the_other_backend() -> None:
    if os.environ.get("NETLAPSE_OTHER_BACKEND"):
        return
    other = "torch" if keras.backend.backend() == "tensorflow" else "tensorflow"
    environment = os.environ | {"KERAS_BACKEND": other, "NETLAPSE_OTHER_BACKEND": "1"}
    result = subprocess.run([sys.executable, "-m", "pytest", __file__, "-x", "-q"], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-3000:]
