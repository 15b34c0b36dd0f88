"""What a training is told to mind beside its loss, said once for both frameworks: weights of classes and of confusions, and where to look."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from netlapse.data.dataset import Dataset
from netlapse.penalties import Penalties
from netlapse.training.remedies import GroupDRO, Remedy
from netlapse.types import Array, Float32, Float64, Int64, ProbeSet


@dataclass(frozen=True)
class Penalty:
    """The penalties with which a training begins, and the masks outside of which its network is not to look.

    class_weights  what the loss of each class counts: a number for each, class -> number, or "balanced", by which all classes count alike
                   in sum (n / (k n_c)). None: 1 each
    confusions     "3->5" -> what the loss of a 3 counts that is taken for a 5, see `netlapse.penalties.Penalties`; or "3->5=2.0" each, as
                   Hydra takes no such keys
    masks          gives (n, h, w) for a ProbeSet of the training inputs, 1 where the network may look; see `netlapse.analysis.saliency.masks`.
                   None: it may look anywhere
    weight         of `netlapse.training.penalised.right_reasons` beside the loss, its mean over inputs

    Raises ValueError for a weight that is not above 0 and finite.
    """

    class_weights: Sequence[float] | Mapping[int, float] | Literal["balanced"] | None = None
    confusions: Mapping[str, float] | Sequence[str] = ()
    masks: Callable[[ProbeSet], Array] | None = None
    weight: float = 0.01

    def __post_init__(self) -> None:
        if not 0 < self.weight < math.inf:
            raise ValueError(f"penalty.weight is {self.weight}; expected a finite number above 0, or penalty=none")

    def penalties(self, data: Dataset) -> Penalties:
        """Of the classes of the data; raises ValueError for classes or numbers that cannot be, and balanced classes without training inputs."""
        weights, confusions = self.class_weights, self.confusions if isinstance(self.confusions, Mapping) else dict(map(_pair, self.confusions))
        if isinstance(weights, str):
            if weights != "balanced":
                raise ValueError(f"penalty.class_weights is {weights!r}; expected 'balanced', a number for each class, or class -> number")
            weights = balanced(data.train_labels, data.class_names).tolist()
        if not isinstance(weights, Mapping):
            return Penalties(data.n_classes, weights, confusions)
        penalties = Penalties(data.n_classes, None, confusions)
        for label, value in weights.items():
            penalties.set(f"class_weight.{label}", value)
        return penalties

    def masks_of(self, data: Dataset) -> Float32 | None:
        """(n, h, w) of the training inputs, which go by their ids, or by their positions where the data have none; None without masks.

        Raises ValueError for inputs that are no images, for masks of other shapes or outside 0 to 1, and what `masks` does.
        """
        if self.masks is None:
            return None
        if len(data.input_shape) != 3:
            raise ValueError(f"penalty.masks are of images (n, h, w, c); inputs of {data.name} have shape {data.input_shape}")
        inputs = ProbeSet(data.train_inputs, data.train_labels, data.class_names, ids=data.train_ids)
        masks = np.asarray(self.masks(inputs), np.float32)
        if masks.shape != data.train_inputs.shape[:3] or not ((masks >= 0) & (masks <= 1)).all():
            raise ValueError(f"penalty.masks gave {masks.shape}; expected {data.train_inputs.shape[:3]}, from 0 (outside) to 1 (inside)")
        return masks


def right_reasons(masks: Callable[[ProbeSet], Array] | None, weight: float = 0.01) -> Penalty:
    """A penalty for looking outside of masks; raises ValueError without any, which a choice of `masks=` is to give."""
    if masks is None:
        raise ValueError("penalty=right_reasons needs masks of the training inputs: add masks=boxes, masks=file or masks=folder")
    return Penalty(masks=masks, weight=weight)


def _pair(words: str) -> tuple[str, float]:
    """Of "3->5=2.0"."""
    pair, _, number = str(words).partition("=")
    try:
        return pair.strip(), float(number)
    except ValueError:
        raise ValueError(f"penalty.confusions holds {words!r}; expected such as '3->5=2.0', a 3 that is taken for a 5 counts twice") from None


def check_together(penalty: Penalty | None, remedy: Remedy | None) -> None:
    """Raises ValueError for a penalty beside group DRO."""
    if penalty is not None and isinstance(remedy, GroupDRO):
        raise ValueError("remedy=group_dro weighs losses by their groups, and a penalty by their classes; expected one of the two")


def balanced(labels: Int64, class_names: Sequence[str]) -> Float64:
    """(k,) n / (k n_c): inversely by how many inputs each class has, 1 in the mean over inputs; raises ValueError for a class without."""
    sizes = np.bincount(labels, minlength=len(class_names))
    if not sizes.all():
        missing = [name for name, size in zip(class_names, sizes) if not size]
        raise ValueError(f"penalty.class_weights='balanced' divides by the sizes of classes, and {missing[:5]} have no training input")
    return np.asarray(len(labels) / (len(sizes) * sizes), np.float64)
