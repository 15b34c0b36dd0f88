"""Penalties in Keras, on TensorFlow and torch: a loss whose inputs count by their classes and confusions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from netlapse.penalties import Penalties

if TYPE_CHECKING:
    from keras import KerasTensor as Tensor  # of whichever backend
else:
    Tensor = object


@keras.saving.register_keras_serializable("netlapse")
class PenalisedLoss(keras.losses.Loss):  # type: ignore[misc]
    """A loss in which inputs count by `penalties`, for `model.compile(optimizer, PenalisedLoss(loss, n_classes=10))`.

    loss         one of Keras's, by name, function or instance, or any that gives the loss of each input (n,). It is reduced as it would be alone
    from_logits  whether the model's outputs (n, k) are logits, and not probabilities; None: what the loss says of itself

    The others are those of `netlapse.penalties.Penalties`, where the definition is; `netlapse.training.penalised` is the same in torch. Labels are
    (n,), (n, 1), or a share of each class (n, k). Changes hold from the next batch on, also where the training step was traced before; where
    all penalties are 1, the loss is what it is alone. Keras keeps nothing of a loss in `.weights.h5`, and the penalties of a `.keras` file are
    those at its writing; reading it takes this module to be imported, or `compile=False`.

    Raises ValueError for what `Penalties` does, and for a loss that does not say whether it takes logits.
    """

    def __init__(
        self,
        loss: keras.losses.Loss | str | Any,
        n_classes: int,
        *,
        class_weights: Sequence[float] | None = None,
        confusions: Mapping[str, float] | None = None,
        from_logits: bool | None = None,
        name: str = "penalised",
    ) -> None:
        inner = keras.losses.get(loss)
        whole = isinstance(inner, keras.losses.Loss)
        said = takes_logits(inner) if from_logits is None else from_logits
        if said is None:
            name_of = getattr(inner, "name", None) or getattr(inner, "__name__", inner)
            raise ValueError(
                f"PenalisedLoss was given {name_of!r}, which does not say whether the model's outputs are logits; give from_logits=True, or False "
                "where they are probabilities"
            )
        super().__init__(name=name, **({"reduction": inner.reduction, "dtype": inner.dtype} if whole else {}))
        self.loss, self.from_logits = inner, said
        self.each = inner.call if whole else inner
        self.penalties = Penalties(n_classes, class_weights, confusions)
        k = n_classes
        self._weights, self._excess, self._neutral = (
            keras.Variable(np.zeros(shape), dtype=kind, trainable=False, name=own)
            for own, shape, kind in (("class_weights", (k,), self.dtype), ("confusions", (k, k), self.dtype), ("neutral", (), "bool"))
        )
        self._assign()
        self.penalties.on_change(self._assign)

    def _assign(self) -> None:
        self._weights.assign(self.penalties.class_weights)
        self._excess.assign(self.penalties.confusions - 1)
        self._neutral.assign(self.penalties.neutral)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """(n,) the losses of inputs, each as often as it counts.

        Raises ValueError for a loss that gives anything but one number for each input, and for outputs of another shape than (n, k).
        """
        losses, k = self.each(y_true, y_pred), self.penalties.n_classes
        if len(losses.shape) != 1:
            raise ValueError(f"a loss that is penalised gave {tuple(losses.shape)}; expected (n,), the loss of each input: return it before its mean")
        if len(y_pred.shape) != 2 or y_pred.shape[1] != k:
            raise ValueError(f"penalties of {k} classes were given outputs {tuple(y_pred.shape)}; expected (n, {k})")
        # Not a product with ones: a training that penalises nothing shall pay nothing.
        return ops.cond(ops.logical_not(self._neutral), lambda: losses * self._counts(y_true, y_pred), lambda: losses)

    def _counts(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """(n,) how often the loss of each input counts."""
        probabilities = ops.softmax(y_pred) if self.from_logits else y_pred
        weights, excess = ops.convert_to_tensor(self._weights), ops.convert_to_tensor(self._excess)
        if len(y_true.shape) == 2 and y_true.shape[1] == self.penalties.n_classes:
            shares = ops.cast(y_true, y_pred.dtype)
            weights, excess = ops.matmul(shares, weights), ops.matmul(shares, excess)
        else:
            labels = ops.reshape(ops.cast(y_true, "int32"), (-1,))
            weights, excess = ops.take(weights, labels), ops.take(excess, labels, axis=0)
        return weights * (1 + ops.sum(excess * probabilities, axis=1))

    def get_config(self) -> dict[str, Any]:
        matrix = self.penalties.confusions
        return {
            "loss": keras.saving.serialize_keras_object(self.loss),
            "n_classes": self.penalties.n_classes,
            "class_weights": self.penalties.class_weights.tolist(),
            "confusions": {f"{label}->{predicted}": float(matrix[label, predicted]) for label, predicted in np.argwhere(matrix != 1)},
            "from_logits": self.from_logits,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> PenalisedLoss:
        return cls(**{**config, "loss": keras.saving.deserialize_keras_object(config["loss"])})


def takes_logits(loss: object) -> bool | None:
    """Whether a loss takes logits, by its config; None where it does not say."""
    said = loss.get_config().get("from_logits") if isinstance(loss, keras.losses.Loss) else None
    return said if isinstance(said, bool) else None


def plain_in_files(model: keras.Model) -> None:
    """While the penalties of the loss that the model was compiled with are neutral, its files name the loss alone: they are read without netlapse."""

    def get_compile_config() -> dict[str, Any]:
        config: dict[str, Any] = type(model).get_compile_config(model)
        loss = getattr(model, "loss", None)
        if isinstance(loss, PenalisedLoss) and loss.penalties.neutral:
            config["loss"] = keras.saving.serialize_keras_object(loss.loss)
        return config

    model.get_compile_config = get_compile_config
