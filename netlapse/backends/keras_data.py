"""A probe set from data as Keras's users hold it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import islice

import keras
import numpy as np

from netlapse.backends.keras import KerasNetwork
from netlapse.probe import choose
from netlapse.types import Array, Int64, ProbeSet

READ_AT_MOST = 50_000
"""Inputs of a dataset among which a probe is chosen: the first ones, so that no dataset is read for ever."""

_LABELS = "expected (n,) or (n, 1) class indices, or one-hot (n, k)"


def probe_set(data: object, network: KerasNetwork, *, per_class: int, seed: int) -> ProbeSet:
    """The probe in `data`.

    a ProbeSet           as it is
    (inputs, labels)     all of them; tensors as the network takes them, numpy arrays channels-last
    a tf.data.Dataset    `per_class` inputs of each class, drawn with the seed from the first 50,000 of (input, label),
                         batched or not; read once, as a stream, and left as it was
    a PyDataset          the same, of its batches as the network takes them

    Labels are (n,) or (n, 1) class indices, or one-hot (n, k). Raises TypeError, saying what is allowed, for anything else,
    and ValueError for labels that are neither, a dataset without an end, and one that is shuffled anew each time it is read.
    """
    if isinstance(data, ProbeSet):
        return data
    if isinstance(data, (tuple, list)) and len(data) == 2:
        inputs, labels = data
        array = network.to_array(inputs) if _is_tensor(inputs) else np.asarray(inputs)
        return ProbeSet(array, class_indices(_numpy(labels)))
    with network.undisturbed():  # augmentations and generators draw from the global random states, which belong to the training
        if isinstance(data, keras.utils.PyDataset):
            return _drawn(_batches_of(data), network, data, per_class=per_class, seed=seed)
        if "tensorflow" in sys.modules:
            from netlapse.backends.keras_tensorflow import batches, is_dataset

            if is_dataset(data):
                with closing(batches(data, network.input_ndim)) as stream:
                    return _drawn(stream, network, data, per_class=per_class, seed=seed)
    raise TypeError(
        f"probe is a {type(data).__name__}; expected a netlapse.types.ProbeSet, a pair (inputs, labels) of tensors or arrays, "
        "a tf.data.Dataset or a keras.utils.PyDataset"
    )


def class_indices(labels: Array) -> Int64:
    """(n,) class indices from labels as Keras's losses take them: (n,) or (n, 1) whole numbers, or one-hot (n, k).

    Raises ValueError for anything else; what is almost one-hot, such as smoothed labels, is not rounded.
    """
    labels = np.asarray(labels)
    if labels.ndim not in (1, 2) or not np.issubdtype(labels.dtype, np.number):
        raise ValueError(f"labels have shape {labels.shape} and dtype {labels.dtype}; {_LABELS}")
    values = labels.astype(np.float64)
    if values.ndim == 2 and values.shape[1] != 1:
        wrong = np.flatnonzero(((values != 0) & (values != 1)).any(axis=1) | (values.sum(axis=1) != 1))
        if len(wrong):
            raise ValueError(
                f"labels have shape {labels.shape} and {len(wrong)} rows that are not one-hot, first {labels[wrong[0]].tolist()} "
                f"at index {wrong[0]}; {_LABELS}"
            )
        return np.asarray(values.argmax(axis=1), np.int64)
    values = values.reshape(-1)
    if (values != np.round(values)).any():
        raise ValueError(f"labels hold {values[values != np.round(values)][:3].tolist()}; {_LABELS}")
    return values.astype(np.int64)


def _drawn(batches: Iterable[tuple[Array, Array]], network: KerasNetwork, data: object, *, per_class: int, seed: int) -> ProbeSet:
    """`per_class` inputs of each class of a stream, any as likely as any other (Vitter, 1985, algorithm R, class by class)."""
    rng = np.random.default_rng(seed)
    kept: dict[int, list[tuple[int, Array]]] = {}
    met: dict[int, int] = {}
    for position, (row, label) in enumerate(islice(_rows(batches), READ_AT_MOST)):
        members = kept.setdefault(label, [])
        met[label] = met.get(label, 0) + 1
        if len(members) < per_class:
            members.append((position, row.copy()))  # a view would keep its whole batch
        elif (slot := int(rng.integers(met[label]))) < per_class:
            members[slot] = position, row.copy()
    if not kept:
        raise ValueError(f"the {type(data).__name__} given as probe holds no inputs")
    chosen = sorted((position, label, row) for label, members in kept.items() for position, row in members)
    positions, labels = np.array([position for position, _, _ in chosen]), np.array([label for _, label, _ in chosen])
    inputs = network.to_array(np.stack([row for _, _, row in chosen]))
    names = tuple(str(name) for name in getattr(data, "class_names", ()))
    return choose(inputs, labels, per_class=per_class, seed=seed, class_names=names, ids=positions)


def _rows(batches: Iterable[tuple[Array, Array]]) -> Iterator[tuple[Array, int]]:
    for inputs, labels in batches:
        yield from zip(inputs, class_indices(labels).tolist())


def _batches_of(data: keras.utils.PyDataset) -> Iterator[tuple[Array, Array]]:
    if data.num_batches is None:
        raise ValueError("the PyDataset given as probe has no end (num_batches is None); give it a length, or take (inputs, labels) from it")
    for index in range(data.num_batches):
        batch = data[index]
        if not isinstance(batch, (tuple, list)) or len(batch) < 2:
            raise TypeError(f"the PyDataset given as probe holds a {type(batch).__name__}; expected (inputs, labels) batches")
        yield _numpy(batch[0]), _numpy(batch[1])


def _is_tensor(value: object) -> bool:
    return not isinstance(value, (np.ndarray, list, tuple)) and hasattr(value, "__array__")


def _numpy(value: object) -> Array:
    return keras.ops.convert_to_numpy(value) if keras.ops.is_tensor(value) else np.asarray(value)
