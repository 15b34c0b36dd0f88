"""A probe set from data as torch's users hold it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from netlapse.backends.torch import TorchNetwork, restored_random_states
from netlapse.probe import choose
from netlapse.types import Array, Int64, ProbeSet

Data = ProbeSet | tuple[Tensor | Array, Tensor | Array] | Dataset[object]


def probe_set(data: Data, network: TorchNetwork, *, per_class: int, seed: int) -> ProbeSet:
    """The probe in `data`.

    a ProbeSet           as it is
    (inputs, labels)     all of them; torch tensors as the network takes them, numpy arrays channels-last
    a torch Dataset      `per_class` inputs of each class of a map-style dataset of (input, label), drawn with the seed

    Raises ValueError for labels that are not integers (those of a data set may be floats that are whole: 1.0), and TypeError,
    saying what is allowed, for anything else.
    """
    if isinstance(data, ProbeSet):
        return data
    if isinstance(data, (tuple, list)) and len(data) == 2:
        inputs, labels = data
        array = network.to_array(inputs) if isinstance(inputs, Tensor) else np.asarray(inputs)
        return ProbeSet(array, np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels))
    if isinstance(data, Dataset) and hasattr(data, "__len__"):
        return _from_dataset(data, network, per_class=per_class, seed=seed)
    raise TypeError(
        f"probe is a {type(data).__name__}; expected a netlapse.types.ProbeSet, a pair (inputs, labels) of "
        "tensors or arrays, or a map-style torch Dataset"
    )


def _from_dataset(data: Dataset[object], network: TorchNetwork, *, per_class: int, seed: int) -> ProbeSet:
    # Augmentations and samplers draw from the global random states, which belong to the training.
    with restored_random_states():
        labels = _labels(data)
        # Chosen are positions, not inputs: only those chosen are loaded. A probe keeps integers (n, 1) as they are.
        where = choose(np.arange(len(data))[:, None], labels, per_class=per_class, seed=seed).inputs[:, 0]  # type: ignore[arg-type]
        inputs = torch.stack([torch.as_tensor(data[int(i)][0]) for i in where])  # type: ignore[index]
    names = tuple(str(name) for name in getattr(data, "classes", ()))
    return ProbeSet(network.to_array(inputs), labels[where], names, ids=where.astype(str))


def _labels(data: Dataset[object]) -> Int64:
    known: object = data.tensors[1] if isinstance(data, TensorDataset) else getattr(data, "targets", getattr(data, "labels", None))
    if known is None:
        known = [data[i][1] for i in range(len(data))]  # type: ignore[index, arg-type]
    known = known.cpu().numpy() if isinstance(known, Tensor) else known
    if isinstance(known, np.ndarray) and known.ndim == 1 and np.issubdtype(known.dtype, np.integer):
        return known.astype(np.int64)
    return np.asarray([_class_index(label, position) for position, label in enumerate(known)], np.int64)  # type: ignore[var-annotated, arg-type]


def _class_index(label: object, position: int) -> int:
    """A label as an integer: 1, 1.0 and a tensor of one such number are one, 0.7, NaN, names and one-hot vectors are none."""
    value = label.tolist() if isinstance(label, (Tensor, np.ndarray, np.generic)) else label
    while isinstance(value, list) and len(value) == 1:
        (value,) = value
    if not isinstance(value, (int, float)) or value % 1 != 0:
        raise ValueError(
            f"the probe's data set has the label {value!r} at index {position}; expected an integer, the index of the input's class; "
            "let the data set return (input, class index), or pass a netlapse.types.ProbeSet"
        )
    return int(value)
