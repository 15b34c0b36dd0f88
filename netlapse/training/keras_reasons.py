"""Right for the right reasons in Keras, on TensorFlow and torch: a training step that is told where to look."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from netlapse.training.keras_penalised import takes_logits

if TYPE_CHECKING:
    from keras import KerasTensor as Tensor  # of whichever backend
else:
    Tensor = object

Score = Callable[[Tensor], Tensor]


@contextmanager
def right_reasons(model: keras.Model, weight: float, *, from_logits: bool | None = None) -> Iterator[None]:
    """Inside, `fit` is given labels and masks, and the model pays for looking outside of them; after it, the model trains as before.

        with right_reasons(model, weight=1.0):
            model.fit(x, (y, masks), validation_data=(x_test, y_test))

    weight       of the penalty beside the loss: its mean over inputs. It and the masks are those of `netlapse.training.penalised.right_reasons`,
                 but here images are as the model takes them, (n, h, w, c) with masks (n, h, w), or any with masks of their own shape
    from_logits  whether the outputs (n, k) are logits, and not probabilities; None: what the loss that the model was compiled with says

    `loss` is with the penalty, and `right_reasons` is told beside it; those of validation are without.

    Raises ValueError for a model that is not compiled or has a training step of its own, and for a loss that does not say what it takes;
    within `fit`, for labels without masks and masks of other shapes.
    """
    if type(model).train_step is not keras.Model.train_step:
        raise ValueError(
            f"right_reasons stands in for the training step of Keras, and {type(model).__name__} has one of its own; add the penalty there"
        )
    if not model.compiled:
        raise ValueError(f"right_reasons was given {model.name!r}, which is not compiled; call its compile(optimizer, loss) first")
    logits = takes_logits(model.loss) if from_logits is None else from_logits
    if logits is None:
        raise ValueError(f"the loss of {model.name!r} does not say whether the outputs are logits; give right_reasons from_logits=True or False")
    mean = keras.metrics.Mean("right_reasons")

    def train_step(data: Any) -> dict[str, Tensor]:
        inputs, labels, masks, sample_weight = _parts(data)

        def score(outputs: Tensor) -> Tensor:
            return ops.sum(ops.log_softmax(outputs) if logits else ops.log(outputs))

        def loss(outputs: Tensor, gradient: Tensor) -> Tensor:
            outside = ops.mean(ops.sum(ops.square((1 - ops.cast(masks, gradient.dtype)) * gradient), axis=tuple(range(1, len(inputs.shape)))))
            whole = model.compute_loss(inputs, labels, outputs, sample_weight, training=True) + weight * outside
            mean.update_state(ops.stop_gradient(outside), sample_weight=ops.shape(inputs)[0])
            for metric in model.metrics:
                if metric.name == "loss":
                    metric.update_state(ops.stop_gradient(whole), sample_weight=ops.shape(inputs)[0])
            return whole if model.optimizer is None else model.optimizer.scale_loss(whole)

        outputs = _STEPS[keras.backend.backend()](model, inputs, score, loss)
        return {**model.compute_metrics(inputs, labels, outputs, sample_weight), "right_reasons": mean.result()}

    def reset_metrics() -> None:
        type(model).reset_metrics(model)
        mean.reset_state()

    def compute_loss(x: Tensor = None, y: Any = None, y_pred: Tensor = None, sample_weight: Tensor = None, training: bool = True) -> Tensor:
        return type(model).compute_loss(model, x, _labels(y), y_pred, sample_weight, training)

    def compute_metrics(x: Tensor, y: Any, y_pred: Tensor, sample_weight: Tensor = None) -> dict[str, Tensor]:
        metrics: dict[str, Tensor] = type(model).compute_metrics(model, x, _labels(y), y_pred, sample_weight)
        return metrics

    # Not a subclass: files of the model are to be those of the model. The last two are for what Keras builds of a batch before any step.
    instead = {function.__name__: function for function in (train_step, reset_metrics, compute_loss, compute_metrics)}
    for name, function in instead.items():
        setattr(model, name, function)
    model.train_function = None
    try:
        yield
    finally:
        for name in instead:
            delattr(model, name)
        model.train_function = None


def _labels(targets: Any) -> Tensor:
    """Without the masks beside them."""
    return targets[0] if isinstance(targets, list | tuple) else targets


def _parts(data: Any) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    inputs, targets, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    if not isinstance(targets, list | tuple) or len(targets) != 2:
        raise ValueError("right_reasons goes by masks, and this training has labels alone; expected fit(x, (labels, masks))")
    labels, masks = targets
    if len(masks.shape) == 3 and len(inputs.shape) == 4:
        masks = masks[..., None]
    if len(masks.shape) != len(inputs.shape) or any(own not in (1, its) for own, its in zip(masks.shape[1:], inputs.shape[1:])):
        raise ValueError(f"right_reasons was given masks {tuple(masks.shape)} for inputs {tuple(inputs.shape)}; expected one for each, of its size")
    return inputs, labels, masks, sample_weight


def _tensorflow(model: keras.Model, inputs: Tensor, score: Score, loss: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Take a step by the loss of the outputs, which are returned, and of the score's gradient by the inputs."""
    import tensorflow as tf

    with tf.GradientTape() as tape:
        with tf.GradientTape(watch_accessed_variables=False) as inner:
            inner.watch(inputs)
            outputs = model(inputs, training=True)
            scored = score(outputs)
        value = loss(outputs, inner.gradient(scored, inputs))
    model.optimizer.apply_gradients(zip(tape.gradient(value, model.trainable_weights), model.trainable_weights))
    return outputs


def _torch(model: keras.Model, inputs: Tensor, score: Score, loss: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    import torch

    inputs = inputs.detach().requires_grad_()
    outputs = model(inputs, training=True)
    (gradient,) = torch.autograd.grad(score(outputs), inputs, create_graph=True)
    model.zero_grad()
    loss(outputs, gradient).backward()
    with torch.no_grad():
        model.optimizer.apply([weight.value.grad for weight in model.trainable_weights], model.trainable_weights)
    return outputs


_STEPS = {"tensorflow": _tensorflow, "torch": _torch}
