"""A probe set from data as torch's users hold it."""

from __future__ import annotations

from collections.abc import Iterable

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

    Raises TypeError, saying what is allowed, for anything else.
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
        where = choose(np.arange(len(labels))[:, None].astype(np.float32), labels, per_class=per_class, seed=seed)
        indices = where.inputs[:, 0].astype(int)
        inputs = torch.stack([torch.as_tensor(data[int(i)][0]) for i in indices])  # type: ignore[index]
    names = tuple(str(name) for name in getattr(data, "classes", ()))
    return ProbeSet(network.to_array(inputs), labels[indices], names, ids=indices.astype(str))


def _labels(data: Dataset[object]) -> Int64:
    known: object = data.tensors[1] if isinstance(data, TensorDataset) else getattr(data, "targets", getattr(data, "labels", None))
    if known is None:
        assert isinstance(data, Iterable) or hasattr(data, "__getitem__")
        known = [data[i][1] for i in range(len(data))]  # type: ignore[index, arg-type]
    return np.asarray([int(label) for label in known], np.int64)  # type: ignore[attr-defined]
