"""What the remedies of `netlapse.training.remedies` are in Keras: who draws the inputs, and what their losses count."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from netlapse.backends.keras import KerasNetwork
from netlapse.callbacks.keras_sampling import AdaptiveBatches, AdaptiveSampling, WeightedSampling
from netlapse.data.dataset import Dataset
from netlapse.training.remedies import Adaptive, told_groups
from netlapse.types import Float32, Float64

if TYPE_CHECKING:
    from keras import KerasTensor as Tensor  # of whichever backend
else:
    Tensor = object


def adaptive_sampling(remedy: Adaptive, data: Dataset, *, batch_size: int, seed: int) -> AdaptiveSampling:
    """Draws by what the network's features say."""
    batches = AdaptiveBatches(data.train_inputs, data.train_labels, batch_size=batch_size, seed=seed)
    return AdaptiveSampling(batches, groups=told_groups(data), batch_size=batch_size, **asdict(remedy))


def fixed_sampling(weights: Float64, data: Dataset, *, batch_size: int, seed: int) -> WeightedSampling:
    """Draws by weights (n,) that stay."""
    batches = AdaptiveBatches(data.train_inputs, data.train_labels, batch_size=batch_size, seed=seed)
    batches.weights = weights
    return WeightedSampling(batches, groups=told_groups(data))


class GroupDROLoss(keras.losses.Loss):  # type: ignore[misc]
    """Cross entropy of logits (m, k) of which the groups with the largest mean count most, by weights that each training batch updates.

    The labels of a training batch are (m, 2), label and group; those of validation (m,), whose loss is the mean. The definition is that of
    `netlapse.training.remedies.group_dro_weights` and `group_dro_shares`, as operations of the backend. A batch is that of this process; Keras
    keeps no variables of a loss in its files, so a training that goes on begins with even weights.
    """

    def __init__(self, groups: Sequence[str], step_size: float) -> None:
        super().__init__(name="group_dro")
        self.groups, self.step_size = tuple(groups), step_size
        self.group_weights = keras.Variable(np.full(len(groups), 1 / len(groups), np.float32), trainable=False, name="group_weights")

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """(m,) what each input adds to the loss of the batch times m, so that their mean is that loss."""
        labels, groups = parts(y_true)
        losses = ops.sparse_categorical_crossentropy(labels, y_pred, from_logits=True)
        if groups is None:
            return losses
        member = ops.one_hot(groups, len(self.groups), dtype=losses.dtype)
        sizes = ops.sum(member, axis=0)
        means = ops.sum(member * ops.stop_gradient(losses)[:, None], axis=0) / ops.maximum(sizes, 1)  # 0 of a group without any
        self.group_weights.assign(ops.softmax(ops.log(self.group_weights) + self.step_size * means))
        shares = ops.matmul(member, ops.convert_to_tensor(self.group_weights)[:, None])[:, 0] / ops.matmul(member, sizes[:, None])[:, 0]
        return ops.stop_gradient(shares) * losses * ops.cast(ops.shape(losses)[0], losses.dtype)


class LabelAccuracy(keras.metrics.SparseCategoricalAccuracy):  # type: ignore[misc]
    """Of the labels, also where a group stands beside each."""

    def update_state(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> None:
        super().update_state(parts(y_true)[0], y_pred, sample_weight)


class GroupWeights(keras.callbacks.Callback):  # type: ignore[misc]
    """Tells each group's weight among the logs of an epoch, `group_dro/weight/<group>`; to be the first of the callbacks."""

    def __init__(self, loss: GroupDROLoss) -> None:
        super().__init__()
        self.loss = loss

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if logs is not None:
            weights = ops.convert_to_numpy(self.loss.group_weights).tolist()
            logs.update({f"group_dro/weight/{name}": weight for name, weight in zip(self.loss.groups, weights)})


def parts(y_true: Tensor) -> tuple[Tensor, Tensor | None]:
    """(m,) labels, and (m,) groups where `y_true` is (m, 2)."""
    whole = ops.cast(y_true, "int32")
    if len(whole.shape) == 2 and whole.shape[1] == 2:
        return whole[:, 0], whole[:, 1]
    return ops.reshape(whole, (-1,)), None


def has_own_loss(network: keras.Model) -> bool:
    """Whether the network is trained by more than the loss that it is compiled with."""
    return type(network).compute_loss is not keras.Model.compute_loss or type(network).train_step is not keras.Model.train_step


def check_cross_entropy(network: keras.Model) -> None:
    """Raises ValueError for a network with a loss of its own, whose inputs' losses are not known here."""
    if has_own_loss(network):
        raise ValueError(
            f"group DRO weighs the cross entropy of each input, and {type(network).__name__} has a loss of its own; expected another remedy, "
            "a network without, or framework=torch"
        )


@contextmanager
def as_it_was(network: keras.Model) -> Iterator[None]:
    """What a training inside makes of the network's variables is undone; raises ValueError for a network that has none yet."""
    if not network.built:
        raise ValueError(f"JTT trains {network.name!r} twice from the same weights, and it has none yet; call the model on one batch first")
    kept = [(variable, ops.convert_to_numpy(variable).copy()) for variable in network.variables]
    yield
    for variable, value in kept:
        variable.assign(value)


def logits_of(network: keras.Model, data: Dataset, batch_size: int = 256) -> Float32:
    """(n, k) of the training inputs, in evaluation mode."""
    asked: Any = KerasNetwork(network)
    with asked.undisturbed():
        found = [asked.outputs(data.train_inputs[start : start + batch_size]) for start in range(0, len(data.train_inputs), batch_size)]
    return np.concatenate(found)
