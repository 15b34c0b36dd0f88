"""Which inputs a network is shown, and how they are grouped.

The inputs are chosen once, with a seed, and stay the same at every checkpoint: otherwise a change between two
checkpoints could be a change of the inputs. Groups may follow the network: those by outcome, confusion and confidence
are taken anew from its logits at each checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np

from netlapse.data.dataset import Dataset
from netlapse.types import Array, Float32, Float64, Int64, ProbeSet


@dataclass(frozen=True)
class NamedGrouping:
    """A grouping of inputs; see `netlapse.types.Grouping`. The shipped ones can be pickled, for trainers that spawn processes.

    reads_logits  whether the groups depend on the network's predictions, and so change from checkpoint to checkpoint
    """

    name: str
    assign: Callable[[ProbeSet, Float32 | None], tuple[Int64, tuple[str, ...]]]
    reads_logits: bool = False

    def __call__(self, probe: ProbeSet, logits: Float32 | None = None, /) -> tuple[Int64, tuple[str, ...]]:
        if self.reads_logits and logits is None:
            raise ValueError(
                f"grouping {self.name} depends on predictions and was given no logits; pass the network's outputs (n, {len(probe.class_names)})"
            )
        if logits is not None and (logits.ndim != 2 or len(logits) != len(probe)):
            raise ValueError(f"grouping {self.name} was given logits of shape {logits.shape}; expected ({len(probe)}, {len(probe.class_names)})")
        if self.reads_logits and logits is not None:
            if logits.shape[1] <= max(1, probe.labels.max()):
                raise ValueError(
                    f"grouping {self.name}: the network has {logits.shape[1]} outputs and the probe labels up to {probe.labels.max()}; "
                    "expected an output per class, of which the largest is the prediction"
                )
            broken = int((~np.isfinite(logits)).any(axis=1).sum())
            if broken:
                raise ValueError(f"grouping {self.name}: the logits of {broken} of {len(probe)} inputs are not finite, so they predict nothing")
        return self.assign(probe, logits)


def _label(probe: ProbeSet, logits: Float32 | None) -> tuple[Int64, tuple[str, ...]]:
    return probe.labels, tuple(probe.class_names)


def _outcome(probe: ProbeSet, logits: Float32 | None) -> tuple[Int64, tuple[str, ...]]:
    assert logits is not None
    wrong = logits.argmax(axis=1) != probe.labels
    return probe.labels * 2 + wrong, tuple(f"{name} {outcome}" for name in probe.class_names for outcome in ("correct", "wrong"))


def _confusion(probe: ProbeSet, logits: Float32 | None) -> tuple[Int64, tuple[str, ...]]:
    assert logits is not None
    k = len(probe.class_names)
    if logits.shape[1] != k:
        raise ValueError(
            f"grouping by_confusion: the network has {logits.shape[1]} outputs and the probe {k} classes; give the probe a class name per output"
        )
    return probe.labels * k + logits.argmax(axis=1), tuple(f"{true} as {predicted}" for true in probe.class_names for predicted in probe.class_names)


def _attributes(names: tuple[str, ...], probe: ProbeSet, logits: Float32 | None) -> tuple[Int64, tuple[str, ...]]:
    unknown = [name for name in names if name not in probe.attributes]
    if unknown:
        raise ValueError(f"grouping by_attribute: the probe has no attribute {unknown}; it has {sorted(probe.attributes)}")
    rows = np.stack([probe.attributes[name] for name in names], axis=1)
    values, groups = np.unique(rows, axis=0, return_inverse=True)
    return groups.reshape(-1).astype(np.int64), tuple(" / ".join(row) for row in values)


def _confidence(edges: Float64, probe: ProbeSet, logits: Float32 | None) -> tuple[Int64, tuple[str, ...]]:
    assert logits is not None
    confidence = softmax(logits).max(axis=1)
    groups = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, len(edges) - 2)
    return groups.astype(np.int64), tuple(f"{low:.2g} to {high:.2g}" for low, high in pairwise(edges))


by_label = NamedGrouping("by_label", _label)
"""One group per class."""

by_outcome = NamedGrouping("by_outcome", _outcome, reads_logits=True)
"""Two groups per class: the inputs of it that the network gets right, and wrong."""

by_confusion = NamedGrouping("by_confusion", _confusion, reads_logits=True)
"""One group per cell of the confusion matrix, label x prediction."""


def by_attribute(*names: str) -> NamedGrouping:
    """One group per intersection of the attributes' values that occurs in the probe, in sorted order.

    Calling it raises ValueError for an attribute the probe does not have.
    """
    if not names:
        raise ValueError("by_attribute was given no attribute; name one or more, as by_attribute('race', 'gender')")

    return NamedGrouping(f"by_attribute({', '.join(names)})", partial(_attributes, names))


def by_confidence(bins: int | tuple[float, ...] = 5) -> NamedGrouping:
    """One group per bin of the predicted class's softmax probability; a bin holds its upper edge.

    bins  a number of equal bins between 0 and 1, or the ascending edges themselves, from 0 to 1
    """
    edges: Float64 = np.linspace(0, 1, max(bins, 0) + 1) if isinstance(bins, int) else np.asarray(bins, np.float64)
    if len(edges) < 2 or edges[0] != 0 or edges[-1] != 1 or not (np.diff(edges) > 0).all():
        raise ValueError(f"by_confidence was given bins {bins}; expected a number of at least 1, or ascending edges from 0 to 1")

    return NamedGrouping(f"by_confidence({bins})", partial(_confidence, edges), reads_logits=True)


def softmax(logits: Float32) -> Float64:
    """(n, k) probabilities in float64."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), np.float64)


def choose(
    inputs: Array,
    labels: Int64,
    *,
    per_class: int,
    seed: int = 0,
    class_names: tuple[str, ...] = (),
    attributes: Mapping[str, Array] | None = None,
    ids: Array | None = None,
) -> ProbeSet:
    """The probe of `per_class` inputs of each class, drawn without replacement; fewer where a class has fewer.

    The same seed chooses the same inputs. Raises ValueError for a class in `class_names` without any input, naming it, for
    labels that are no class, and where there is not one label per input.
    """
    if not isinstance(per_class, (int, np.integer)) or per_class < 1:
        raise ValueError(f"per_class is {per_class!r}; a probe takes at least 1 input of each class")
    labels = np.asarray(labels)
    if labels.shape != (len(inputs),) or not len(labels):
        raise ValueError(
            f"a probe is chosen from {len(inputs)} inputs and labels of shape {labels.shape}; expected one label per input, at least one"
        )
    names = class_names or tuple(str(k) for k in range(int(labels.max()) + 1))
    empty = [name for k, name in enumerate(names) if not (labels == k).any()]
    if empty:
        raise ValueError(f"no inputs of the classes {empty} to choose a probe from; there are inputs of {[names[k] for k in np.unique(labels)]}")
    outside = np.unique(labels[(labels < 0) | (labels >= len(names))])
    if len(outside):
        raise ValueError(f"labels hold {outside[:5].tolist()}; allowed are 0 to {len(names) - 1}, for the classes {list(names)[:12]}")
    rng = np.random.default_rng(seed)
    chosen = [rng.permutation(np.flatnonzero(labels == k))[:per_class] for k in range(len(names))]
    where = np.sort(np.concatenate(chosen))
    return ProbeSet(
        np.asarray(inputs)[where],
        labels[where],
        names,
        {name: np.asarray(values)[where].astype(str) for name, values in (attributes or {}).items()},
        (np.asarray(ids)[where] if ids is not None else where).astype(str),
    )


def from_data(data: Dataset, *, per_class: int, seed: int = 0, part: str = "test") -> ProbeSet:
    """The probe of `per_class` inputs of each class of one part of a data set; see `choose`.

    Raises ValueError for a part that is not "test" or "train".
    """
    if part == "test":
        inputs, labels, attributes, ids = data.test_inputs, data.test_labels, data.test_attributes, data.test_ids
    elif part == "train":
        inputs, labels, attributes, ids = data.train_inputs, data.train_labels, data.train_attributes, data.train_ids
    else:
        raise ValueError(f"probe.part is {part!r}; allowed are 'test' and 'train'")
    return choose(inputs, labels, per_class=per_class, seed=seed, class_names=tuple(data.class_names), attributes=attributes, ids=ids)


def panel_of(labels: Int64, size: int) -> Int64:
    """(m,) indices of some inputs of all classes: the first of each class, then the second of each, ..., until there are `size`.

    Classes take turns in ascending order; a class that has no more inputs is passed over. Nothing but the labels matters.
    """
    labels = np.asarray(labels)
    turn = np.zeros(len(labels), np.int64)
    for k in np.unique(labels):
        turn[labels == k] = np.arange((labels == k).sum())
    return np.lexsort((labels, turn))[:size].astype(np.int64)


def unbalanced(data: Dataset, *, per_class: int, seed: int = 0, part: str = "test") -> ProbeSet:
    """A probe of as many inputs as `from_data` chooses, which classes share in random proportions.

    The proportions are uniform random numbers between 0 and 1, divided by their sum; a class has at least one input, and no more
    than there are of it. The same seed chooses the same inputs.

    Raises ValueError as `from_data`.
    Source: Krug, Ratul, Olson and Stober, 2023: layouts of random inputs, balanced or not.
    """
    from_data(data, per_class=per_class, seed=seed, part=part)  # says what is wrong with these
    pool = from_data(data, per_class=max(len(data.train_labels), len(data.test_labels)), seed=seed, part=part)
    rng = np.random.default_rng(seed)
    shares = rng.random(data.n_classes)
    wanted = np.maximum(1, np.round(per_class * data.n_classes * shares / shares.sum())).astype(np.int64)
    where = np.sort(np.concatenate([rng.permutation(np.flatnonzero(pool.labels == k))[: wanted[k]] for k in range(data.n_classes)]))
    attributes = {name: values[where] for name, values in pool.attributes.items()}
    return ProbeSet(pool.inputs[where], pool.labels[where], pool.class_names, attributes, np.asarray(pool.ids)[where])
