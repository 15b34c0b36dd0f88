"""Networks to start from: plain Keras models that take channels-last tensors and return logits (n, k).

They are those of `netlapse.models.torch`, layer for layer and name for name: with the same weights both give the same
activations, and where Keras's defaults differ from torch's, torch's are written out. Files of `mlp` and `cnn` load
anywhere; those of `resnet18` and `transformer` load where this module was imported, which registers their layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import keras
from keras import layers, ops

from netlapse.models.checks import check_cnn, check_mlp, check_resnet18, check_transformer

if TYPE_CHECKING:
    from keras import KerasTensor as Tensor  # of whichever backend
else:
    Tensor = object


def mlp(input_shape: Sequence[int], n_classes: int, *, hidden: Sequence[int] = (512, 256), dropout: float = 0.2) -> keras.Sequential:
    """Dense layers with ReLU and dropout, for images (h, w, c) or vectors (f,).

    Raises ValueError for a shape, size or rate that cannot be.
    """
    check_mlp(input_shape, n_classes, hidden, dropout)
    parts = [keras.Input(tuple(input_shape), name="inputs"), layers.Flatten(name="flatten")]
    for index, width in enumerate(hidden, 1):
        parts += [layers.Dense(width, name=f"dense{index}"), layers.ReLU(name=f"relu{index}"), layers.Dropout(dropout, name=f"dropout{index}")]
    return keras.Sequential([*parts, layers.Dense(n_classes, name="output")], name="mlp")


def cnn(
    input_shape: Sequence[int], n_classes: int, *, channels: Sequence[int] = (32, 64, 128), hidden: int = 128, dropout: float = 0.25
) -> keras.Sequential:
    """A small convolutional network; each block halves height and width, and what is left is flattened.

    Raises ValueError for a shape, size or rate that cannot be, and for images too small to be halved once per block.
    """
    check_cnn(input_shape, n_classes, channels, hidden, dropout)
    parts = [keras.Input(tuple(input_shape), name="inputs")]
    for index, units in enumerate(channels, 1):
        parts += [
            layers.Conv2D(units, 3, padding="same", use_bias=False, name=f"conv{index}"),  # the norm after it has a bias
            _batch_norm(f"norm{index}"),
            layers.ReLU(name=f"relu{index}"),
            layers.MaxPooling2D(2, name=f"pool{index}"),
        ]
    parts += [
        layers.Flatten(name="flatten"),
        layers.Dense(hidden, name="dense"),
        layers.ReLU(name=f"relu{len(channels) + 1}"),
        layers.Dropout(dropout, name="dropout"),
        layers.Dense(n_classes, name="output"),
    ]
    return keras.Sequential(parts, name="cnn")


def resnet18(input_shape: Sequence[int], n_classes: int, *, width: int = 64) -> keras.Model:
    """ResNet-18 (He et al., 2016, table 1) as it is used for 32 x 32 images: a 3 x 3 stem of stride 1 and no max pooling.

    width is the number of channels of the first stage; each later stage has twice as many at half the size.

    Raises ValueError for a shape or size that cannot be, and for images smaller than 8 x 8.
    """
    check_resnet18(input_shape, n_classes, width)
    inputs = keras.Input(tuple(input_shape), name="inputs")
    x = layers.Conv2D(width, 3, padding="same", use_bias=False, name="conv1")(inputs)
    x = layers.ReLU(name="relu1")(_batch_norm("norm1")(x))
    features = width
    for stage in range(4):
        units = width * 2**stage
        x = ResidualStage(features, units, stride=1 if stage == 0 else 2, name=f"stage{stage + 1}")(x)
        features = units
    x = layers.Flatten(name="flatten")(layers.GlobalAveragePooling2D(keepdims=True, name="pool")(x))
    return keras.Model(inputs, layers.Dense(n_classes, name="output")(x), name="resnet18")


class _Composite(keras.Layer):  # type: ignore[misc]  # keras has no types
    """A layer made of layers, saved as the arguments that its subclass was made with."""

    def __init__(self, arguments: dict[str, int], **settings: object) -> None:
        super().__init__(**settings)
        self.arguments = arguments

    def build(self, input_shape: Sequence[int | None]) -> None:
        self.call(keras.KerasTensor(input_shape, self.compute_dtype))  # what it calls is built on the way

    def get_config(self) -> dict[str, object]:
        return {**super().get_config(), **self.arguments}


@keras.saving.register_keras_serializable("netlapse")
class ResidualStage(_Composite):
    """Two blocks, the first of which may stride: (n, h, w, c) -> (n, h / stride, w / stride, c').

    Not a keras.Sequential, because in one that is loaded from a file the variables of both blocks have the same paths.
    """

    def __init__(self, features: int, units: int, stride: int, **settings: object) -> None:
        super().__init__({"features": features, "units": units, "stride": stride}, **settings)
        self.block1 = BasicBlock(features, units, stride, name="block1", dtype=self.dtype_policy)
        self.block2 = BasicBlock(units, units, stride=1, name="block2", dtype=self.dtype_policy)

    def call(self, inputs: Tensor) -> Tensor:
        return self.block2(self.block1(inputs))


class BasicBlock(_Composite):
    """Two convolutions around which the input is added (He et al., 2016, figure 2 and eqs. 1-2): (n, h, w, c) -> (n, h / stride, w / stride, c').

    Where shape changes, the shortcut is a 1 x 1 convolution with batch norm (the paper's option B).
    """

    def __init__(self, features: int, units: int, stride: int, **settings: object) -> None:
        super().__init__({"features": features, "units": units, "stride": stride}, **settings)
        dtype = self.dtype_policy
        self.conv1 = layers.Conv2D(units, 3, stride, use_bias=False, name="conv1", dtype=dtype)
        self.norm1 = _batch_norm("norm1", dtype)
        self.relu1 = layers.ReLU(name="relu1", dtype=dtype)
        self.conv2 = layers.Conv2D(units, 3, padding="same", use_bias=False, name="conv2", dtype=dtype)
        self.norm2 = _batch_norm("norm2", dtype)
        self.shortcut = layers.Identity(name="shortcut", dtype=dtype)
        if stride != 1 or features != units:
            conv = layers.Conv2D(units, 1, stride, use_bias=False, name="conv", dtype=dtype)
            self.shortcut = keras.Sequential([conv, _batch_norm("norm", dtype)], name="shortcut")
        self.relu2 = layers.ReLU(name="relu2", dtype=dtype)

    def call(self, inputs: Tensor) -> Tensor:
        # One pixel on every side, as in torch: at stride 2, "same" pads even images below and on the right only.
        padded = ops.pad(inputs, ((0, 0), (1, 1), (1, 1), (0, 0)))
        residual = self.norm2(self.conv2(self.relu1(self.norm1(self.conv1(padded)))))
        return self.relu2(residual + self.shortcut(inputs))


def transformer(input_shape: Sequence[int], n_classes: int, *, width: int = 64, depth: int = 4, heads: int = 4, patch: int = 4) -> keras.Model:
    """A small vision transformer (Dosovitskiy et al., 2021, eqs. 1-4) that averages its tokens instead of adding a class token.

    width   features d of a token, divided evenly among the heads; the dense layers inside a block have 4 d
    patch   side of the square patches, of which there are t = (h / patch) (w / patch)

    Raises ValueError for a shape or size that cannot be, and where heads or patch do not divide evenly.
    """
    check_transformer(input_shape, n_classes, width, depth, heads, patch)
    inputs = keras.Input(tuple(input_shape), name="inputs")
    tokens = PatchEmbedding(width, patch, name="embed")(inputs)
    for index in range(1, depth + 1):
        tokens = TransformerBlock(width, heads, name=f"block{index}")(tokens)
    mean = layers.GlobalAveragePooling1D(name="pool")(_layer_norm("norm")(tokens))
    return keras.Model(inputs, layers.Dense(n_classes, name="output")(mean), name="transformer")


@keras.saving.register_keras_serializable("netlapse")
class PatchEmbedding(_Composite):
    """A linear map of each patch plus a learnt vector for its place: (n, h, w, c) -> (n, t, d), in reading order."""

    def __init__(self, width: int, patch: int, **settings: object) -> None:
        super().__init__({"width": width, "patch": patch}, **settings)
        self.project = layers.Conv2D(width, patch, strides=patch, name="project", dtype=self.dtype_policy)

    def build(self, input_shape: Sequence[int | None]) -> None:
        self.project.build(input_shape)
        _, rows, columns, d = self.project.compute_output_shape(input_shape)
        # torch's 0.3 gains nothing beside Keras's initialisers: 88 % of mnist5000 after six epochs with either (two seeds).
        initializer = keras.initializers.TruncatedNormal(stddev=0.02)
        self.position = self.add_weight(shape=(1, rows * columns, d), initializer=initializer, name="position")

    def call(self, inputs: Tensor) -> Tensor:
        return ops.reshape(self.project(inputs), (-1, *self.position.shape[1:])) + self.position


@keras.saving.register_keras_serializable("netlapse")
class TransformerBlock(_Composite):
    """Attention and two dense layers, each normalised before and added to its input: (n, t, d) -> (n, t, d)."""

    def __init__(self, width: int, heads: int, **settings: object) -> None:
        super().__init__({"width": width, "heads": heads}, **settings)
        dtype = self.dtype_policy
        self.norm1 = _layer_norm("norm1", dtype)
        self.attention = Attention(width, heads, name="attention", dtype=dtype)
        self.norm2 = _layer_norm("norm2", dtype)
        self.dense1 = layers.Dense(4 * width, name="dense1", dtype=dtype)
        self.gelu = layers.Activation("gelu", name="gelu", dtype=dtype)
        self.dense2 = layers.Dense(width, name="dense2", dtype=dtype)

    def call(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attention(self.norm1(tokens))
        return tokens + self.dense2(self.gelu(self.dense1(self.norm2(tokens))))


class Attention(_Composite):
    """Multi-head self-attention (Vaswani et al., 2017, eq. 1): (n, t, d) -> (n, t, d).

    Written out, because keras.layers.MultiHeadAttention has queries, keys and values in three layers, and torch in one.
    """

    def __init__(self, width: int, heads: int, **settings: object) -> None:
        super().__init__({"width": width, "heads": heads}, **settings)
        self.query_key_value = layers.Dense(3 * width, name="query_key_value", dtype=self.dtype_policy)
        self.project = layers.Dense(width, name="project", dtype=self.dtype_policy)

    def call(self, tokens: Tensor) -> Tensor:
        _, t, d = tokens.shape
        heads = self.arguments["heads"]
        parts = ops.reshape(self.query_key_value(tokens), (-1, t, 3, heads, d // heads))
        query, key, value = ops.unstack(ops.transpose(parts, (2, 0, 3, 1, 4)), 3)
        weights = ops.softmax(ops.matmul(query, ops.swapaxes(key, -1, -2)) / (d // heads) ** 0.5)
        return self.project(ops.reshape(ops.swapaxes(ops.matmul(weights, value), 1, 2), (-1, t, d)))


def _batch_norm(name: str, dtype: keras.DTypePolicy | None = None) -> keras.Layer:
    """Batch norm with torch's epsilon and momentum; Keras calls momentum what is kept, torch what is replaced."""
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name, dtype=dtype)


def _layer_norm(name: str, dtype: keras.DTypePolicy | None = None) -> keras.Layer:
    return layers.LayerNormalization(epsilon=1e-5, name=name, dtype=dtype)
