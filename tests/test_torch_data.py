"""A probe set from data as torch's users hold it: the right inputs with the right labels, or an error."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from netlapse.backends.torch import TorchNetwork
from netlapse.backends.torch_data import probe_set
from netlapse.types import ProbeSet

NETWORK = TorchNetwork(nn.Linear(3, 2))


class Listed(Dataset):  # type: ignore[type-arg]
    """Inputs that are their own positions, with the given labels."""

    def __init__(self, labels: object) -> None:
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> tuple[Tensor, object]:
        return torch.full((3,), float(index)), self.labels[index]  # type: ignore[index]


class Unlisted(Listed):
    """The same, its labels known only by asking for every item."""

    def __init__(self, labels: object) -> None:
        self._labels = labels

    def __len__(self) -> int:
        return len(self._labels)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> tuple[Tensor, object]:
        return torch.full((3,), float(index)), self._labels[index]  # type: ignore[index]


def drawn(data: object, per_class: int = 2) -> ProbeSet:
    return probe_set(data, NETWORK, per_class=per_class, seed=0)  # type: ignore[arg-type]


LABELS = [1, 0, 1, 1, 0, 1, 0]


@pytest.mark.parametrize("kind", [Listed, Unlisted])
@pytest.mark.parametrize(
    "labels",
    [
        LABELS,
        torch.tensor(LABELS),
        np.array(LABELS, np.uint8),
        torch.tensor(LABELS).float(),
        torch.tensor(LABELS).double()[:, None],
        [torch.tensor(label) for label in LABELS],
        [np.float32(label) for label in LABELS],
        [bool(label) for label in LABELS],
    ],
    ids=["list", "tensor", "numpy", "whole floats", "column", "tensors", "numpy scalars", "booleans"],
)
def test_a_dataset_gives_inputs_of_each_class_with_their_labels_and_positions(labels: object, kind: type[Listed]) -> None:
    probe = drawn(kind(labels))
    positions = np.asarray(probe.ids).astype(int)
    assert sorted(probe.labels.tolist()) == [0, 0, 1, 1]
    assert probe.labels.tolist() == [LABELS[i] for i in positions]
    np.testing.assert_array_equal(probe.inputs, np.repeat(positions[:, None], 3, axis=1))


@pytest.mark.parametrize("kind", [Listed, Unlisted])
@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (torch.tensor([0.0, 1.0, 0.75]), "0.75 at index 2"),
        ([0, 1.5], "1.5 at index 1"),
        ([0, float("nan")], "nan at index 1"),
        ([0, float("inf")], "inf at index 1"),
        ([0, None], "None at index 1"),
        (["0", "1"], "'0' at index 0"),
        (torch.eye(2).long(), "[1, 0] at index 0"),
        ([0, torch.tensor([0.2, 0.8])], "[0.2"),
    ],
)
def test_labels_that_are_no_integers_are_refused_by_value_and_index(labels: object, said: str, kind: type[Listed]) -> None:
    with pytest.raises(ValueError, match=rf"label {re.escape(said)}.*; expected an integer, the index of the input's class; let the data set return"):
        drawn(kind(labels))


def test_labels_of_a_tensor_dataset_are_its_second_tensor() -> None:
    inputs = torch.arange(12.0).reshape(4, 3)
    probe = drawn(TensorDataset(inputs, torch.tensor([0.0, 1.0, 1.0, 0.0])))
    assert probe.labels.tolist() == [0, 1, 1, 0]
    np.testing.assert_array_equal(probe.inputs, inputs.numpy())
    with pytest.raises(ValueError, match=r"the label 0\.5 at index 3"):
        drawn(TensorDataset(inputs, torch.tensor([0.0, 1.0, 1.0, 0.5])))


def test_float_labels_in_a_pair_are_refused() -> None:
    with pytest.raises(ValueError, match=r"probe labels have shape \(2,\) and dtype float32; expected \(2,\) integers, one class index per input"):
        drawn((torch.zeros(2, 3), torch.tensor([0.0, 1.0])))


def test_positions_beyond_those_float32_can_tell_apart_are_exact() -> None:
    class Huge(Listed):
        def __getitem__(self, index: int) -> tuple[Tensor, object]:
            return torch.tensor([index >> 16, index & 0xFFFF, 0]).float(), self.labels[index]  # type: ignore[index]

    labels = np.zeros(2**24 + 4, np.uint8)
    rare = [2**24 + 1, 2**24 + 3]
    labels[rare] = 1
    probe = drawn(Huge(labels))
    of_rare = probe.labels == 1
    assert np.asarray(probe.ids)[of_rare].tolist() == [str(i) for i in rare]
    np.testing.assert_array_equal(probe.inputs[of_rare], [[256, 1, 0], [256, 3, 0]])


def test_labels_that_are_not_one_per_input_are_refused() -> None:
    class Named(Listed):
        """Its `labels` are the names of its classes."""

        def __len__(self) -> int:
            return 7

    with pytest.raises(ValueError, match=r"a probe is chosen from 7 inputs and labels of shape \(2,\); expected one label per input"):
        drawn(Named([0, 1]))


def test_what_is_no_data_is_refused() -> None:
    with pytest.raises(TypeError, match=r"probe is a int; expected a netlapse.types.ProbeSet, a pair .* or a map-style torch Dataset"):
        drawn(3)
