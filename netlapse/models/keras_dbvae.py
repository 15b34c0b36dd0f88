"""The debiasing variational autoencoder of `netlapse.models.torch_dbvae` in Keras, layer for layer and name for name.

Files of it load where this module was imported, which registers it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
from keras import layers, ops

from netlapse.models.checks import Reconstruction, check_dbvae, halved

if TYPE_CHECKING:
    from keras import KerasTensor as Tensor  # of whichever backend
else:
    Tensor = object

KERNEL = 5


@keras.saving.register_keras_serializable("netlapse")
class DBVAE(keras.Model):  # type: ignore[misc]  # keras has no types
    """A DB-VAE for images (h, w, c) of any size, or vectors (f,): channels-last tensors (n, ...) -> logits (n, k).

    The arguments are those of `netlapse.models.torch_dbvae.DBVAE`, which see. The loss is the model's own: `compile` needs none, and one that it
    is given is not used. While training, a call returns what the loss is made of, by name; else the logits alone. `fit` and `evaluate` tell
    the loss's three parts as metrics. Where the noise goes on is in no file, as it is with Keras's dropout.

    Raises ValueError for a shape, size, weight or class that cannot be.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        n_classes: int,
        *,
        channels: Sequence[int] | None = None,
        hidden: Sequence[int] = (512,),
        latent: int = 100,
        reconstruction: Reconstruction = "absolute",
        c1: float = 1.0,
        c2: float = 1.0,
        c3: float = 0.0005,
        vae_classes: Sequence[int] | None = None,
        **settings: Any,
    ) -> None:
        check_dbvae(input_shape, n_classes, channels, hidden, latent, reconstruction, (c1, c2, c3), vae_classes)
        if channels is None:
            channels = (12, 24, 48, 72) if len(input_shape) == 3 else ()
        super().__init__(**{"name": "dbvae"} | settings)
        self.arguments: dict[str, Any] = {
            "input_shape": list(input_shape),
            "n_classes": n_classes,
            "channels": list(channels),
            "hidden": list(hidden),
            "latent": latent,
            "reconstruction": reconstruction,
            "c1": c1,
            "c2": c2,
            "c3": c3,
            "vae_classes": list(range(n_classes) if vae_classes is None else vae_classes),
        }
        dtype = self.dtype_policy
        self.encoder = keras.Sequential(_encoder(channels, hidden, dtype), name="encoder")
        self.means = layers.Dense(latent, name="means", dtype=dtype)
        self.log_variances = layers.Dense(latent, name="log_variances", dtype=dtype)
        self.output_layer = layers.Dense(n_classes, name="output", dtype=dtype)
        self.decoder = keras.Sequential(_decoder(input_shape, channels, hidden, dtype), name="decoder")
        self.noise = keras.random.SeedGenerator()
        self.parts = [keras.metrics.Mean(name) for name in ("cross_entropy", "reconstruction", "divergence")]
        self.build((None, *input_shape))

    def build(self, input_shape: Sequence[int | None]) -> None:
        self.run(keras.KerasTensor(input_shape, self.compute_dtype), training=False)  # what it calls is built on the way

    def get_config(self) -> dict[str, object]:
        return {**super().get_config(), **self.arguments}

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor | dict[str, Tensor]:
        if training:
            return self.run(inputs, training=True)
        features = self.encoder(inputs, training=False)
        self.means(features)  # for those who observe this layer
        return self.output_layer(features)

    def run(self, inputs: Tensor, *, training: bool = False, noise: Tensor | None = None) -> dict[str, Tensor]:
        """What the loss is made of: `logits` (n, k), `means` and `log_variances` (n, d), and the `reconstruction` (n, ...).

        noise  (n, d); None: standard normal while training, and none else: then nothing is drawn
        """
        features = self.encoder(inputs, training=training)
        means, log_variances = self.means(features), self.log_variances(features)
        if noise is None and training:
            noise = keras.random.normal(ops.shape(means), dtype=means.dtype, seed=self.noise)
        codes = means if noise is None else means + ops.exp(log_variances / 2) * ops.convert_to_tensor(noise, means.dtype)
        return {
            "logits": self.output_layer(features),
            "means": means,
            "log_variances": log_variances,
            "reconstruction": self.decoder(codes, training=training),
        }

    def input_losses(
        self, inputs: Tensor, labels: Tensor, *, training: bool = False, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """(n,) the loss of each input, (n, k) the logits, and the means over inputs of the loss's three parts; the torch network's says which."""
        found = self.run(inputs, training=training, noise=noise)
        losses, parts = self._input_losses(inputs, labels, found)
        return (losses, found["logits"], {name: ops.stop_gradient(ops.mean(part)) for name, part in parts.items()})

    def _input_losses(self, inputs: Tensor, labels: Tensor, found: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """(n,) the loss of each input, of what `run` returned, and (n,) its three parts by name."""
        labels = ops.reshape(ops.cast(labels, "int32"), (-1,))
        means, log_variances = found["means"], found["log_variances"]
        difference = found["reconstruction"] - ops.cast(inputs, means.dtype)
        difference = ops.abs(difference) if self.arguments["reconstruction"] == "absolute" else ops.square(difference)
        divergence = ops.sum(ops.exp(log_variances) + ops.square(means) - 1 - log_variances, axis=1) / 2
        of_vae = ops.take(ops.cast([k in self.arguments["vae_classes"] for k in range(self.arguments["n_classes"])], means.dtype), labels)
        parts = {
            "cross_entropy": ops.sparse_categorical_crossentropy(labels, found["logits"], from_logits=True),
            "reconstruction": of_vae * ops.mean(difference, axis=tuple(range(1, len(inputs.shape)))),
            "divergence": of_vae * divergence,
        }
        return sum(self.arguments[weight] * part for weight, part in zip(("c1", "c2", "c3"), parts.values())), parts

    def compute_loss(
        self,
        x: Tensor | None = None,
        y: Tensor | None = None,
        y_pred: Tensor | Mapping[str, Tensor] | None = None,
        sample_weight: Tensor | None = None,
        training: bool = True,
    ) -> Tensor:
        found = y_pred if isinstance(y_pred, Mapping) else self.run(x)
        losses, parts = self._input_losses(x, y, found)
        for metric, part in zip(self.parts, parts.values()):
            metric.update_state(part)
        return ops.mean(losses if sample_weight is None else losses * ops.reshape(ops.cast(sample_weight, losses.dtype), (-1,)))

    def compute_metrics(self, x: Tensor, y: Tensor, y_pred: Tensor | Mapping[str, Tensor], sample_weight: Tensor | None = None) -> dict[str, Tensor]:
        logits = y_pred["logits"] if isinstance(y_pred, Mapping) else y_pred
        metrics: dict[str, Tensor] = super().compute_metrics(x, y, logits, sample_weight)
        return metrics


def _encoder(channels: Sequence[int], hidden: Sequence[int], dtype: keras.DTypePolicy) -> list[keras.Layer]:
    parts: list[keras.Layer] = []
    for index, units in enumerate(channels, 1):
        parts += [
            # As in torch: at stride 2, "same" pads even images below and on the right only.
            layers.ZeroPadding2D(KERNEL // 2, name=f"pad{index}", dtype=dtype),
            layers.Conv2D(units, KERNEL, 2, use_bias=False, name=f"conv{index}", dtype=dtype),  # the norm after it has a bias
            layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"norm{index}", dtype=dtype),  # torch's
            layers.ReLU(name=f"relu{index}", dtype=dtype),
        ]
    parts.append(layers.Flatten(name="flatten", dtype=dtype))
    for index, width in enumerate(hidden, 1):
        parts += [layers.Dense(width, name=f"dense{index}", dtype=dtype), layers.ReLU(name=f"relu{len(channels) + index}", dtype=dtype)]
    return parts


def _decoder(input_shape: Sequence[int], channels: Sequence[int], hidden: Sequence[int], dtype: keras.DTypePolicy) -> list[keras.Layer]:
    parts: list[keras.Layer] = []
    for index, width in enumerate(reversed(hidden), 1):
        parts += [layers.Dense(width, name=f"dense{index}", dtype=dtype), layers.ReLU(name=f"relu{index}", dtype=dtype)]
    shape = tuple(input_shape)
    sizes = halved(input_shape, len(channels)) if channels else []
    if channels:
        shape = (*sizes[-1], channels[-1])
    values = 1
    for size in shape:
        values *= size
    parts += [layers.Dense(values, name=f"dense{len(hidden) + 1}", dtype=dtype), layers.Reshape(shape, name="unflatten", dtype=dtype)]
    for index in range(len(channels), 0, -1):
        units = channels[index - 2] if index > 1 else input_shape[-1]
        # An even height is twice its half, an odd one a pixel less; what torch never makes is cut off.
        crop = tuple((KERNEL // 2, KERNEL // 2 - 1 + size % 2) for size in sizes[index - 1])
        parts += [
            layers.ReLU(name=f"relu{len(hidden) + 1 + len(channels) - index}", dtype=dtype),
            layers.Conv2DTranspose(units, KERNEL, 2, name=f"conv{index}", dtype=dtype),
            layers.Cropping2D(crop, name=f"crop{index}", dtype=dtype),
        ]
    return parts
