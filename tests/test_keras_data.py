"""A probe set from data as Keras's users hold it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import keras
import numpy as np
import pytest

from netlapse.backends import keras_data
from netlapse.backends.keras import KerasNetwork
from netlapse.backends.keras_data import class_indices, probe_set
from netlapse.types import ProbeSet

L = keras.layers


def network(data_format: str = "channels_last") -> KerasNetwork:
    shape = (1, 4, 4) if data_format == "channels_first" else (4, 4, 1)
    return KerasNetwork(keras.Sequential([keras.Input(shape), L.Flatten(data_format=data_format), L.Dense(3)]))


def data(n: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """Images that hold nothing but their index, and labels that do not follow from it."""
    inputs = np.broadcast_to(np.arange(n, dtype=np.float32)[:, None, None, None], (n, 4, 4, 1)).copy()
    return inputs, np.random.default_rng(0).permutation(np.arange(n) % 3)


def positions(probe: ProbeSet) -> list[int]:
    return [int(image[0, 0, 0]) for image in probe.inputs]


def test_a_pair_is_taken_whole_and_tensors_as_the_network_takes_them() -> None:
    inputs, labels = data()
    for net, tensor in ((network(), inputs), (network("channels_first"), np.moveaxis(inputs, -1, 1))):
        for pair in ((inputs, labels), (keras.ops.convert_to_tensor(tensor), keras.ops.convert_to_tensor(labels))):
            probe = probe_set(pair, net, per_class=2, seed=0)
            np.testing.assert_array_equal(probe.inputs, inputs)
            np.testing.assert_array_equal(probe.labels, labels)
    assert probe_set(probe, net, per_class=2, seed=0) is probe


def test_labels_are_indices_or_exactly_one_hot() -> None:
    expected = np.array([2, 0, 1])
    for labels in (expected, expected[:, None], expected.astype(np.float32), np.eye(3)[expected], np.eye(3, dtype=int)[expected]):
        np.testing.assert_array_equal(class_indices(labels), expected)
    for labels in (np.eye(3) * 0.9 + 0.03, np.ones((3, 3)), np.zeros((3, 2)), np.array([[0, 1], [2, -1]])):
        with pytest.raises(ValueError, match=r"rows that are not one-hot, first \[.*\] at index [01]; expected \(n,\)"):
            class_indices(labels)
    for labels in (np.array([0.5, 1.0]), np.zeros((2, 2, 2)), np.array(["a", "b"])):
        with pytest.raises(ValueError, match=r"expected \(n,\) or \(n, 1\) class indices, or one-hot"):
            class_indices(labels)


class Batches(keras.utils.PyDataset):
    class_names = ("a", "b", "c")

    def __init__(self, inputs: np.ndarray, labels: np.ndarray) -> None:
        super().__init__()
        self.inputs, self.labels = inputs, labels

    def __len__(self) -> int:
        return -(-len(self.inputs) // 4)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        np.random.rand()  # noqa: NPY002 - as an augmentation does
        return self.inputs[4 * index : 4 * index + 4], self.labels[4 * index : 4 * index + 4]


def datasets() -> Iterator[object]:
    import tensorflow as tf

    inputs, labels = data()
    whole = tf.data.Dataset.from_tensor_slices((inputs, labels))
    yield from (whole, whole.batch(7), whole.batch(6, drop_remainder=True), whole.map(lambda x, y: (x, y, 1.0)).batch(5))
    yield from (whole.map(lambda x, y: (x, tf.one_hot(y, 3))), whole.batch(4).map(lambda x, y: (x, y[:, None])))
    yield Batches(inputs, labels)


def test_a_dataset_batched_or_not_gives_the_same_seeded_inputs_of_each_class() -> None:
    inputs, labels = data()
    found = [probe_set(source, network(), per_class=4, seed=5) for source in datasets()]
    for probe in found:
        assert positions(probe) == positions(found[0])
        np.testing.assert_array_equal(np.bincount(probe.labels), 4)
        np.testing.assert_array_equal(probe.labels, labels[positions(probe)])
        np.testing.assert_array_equal(probe.ids, [str(i) for i in positions(probe)])
    assert found[-1].class_names == ("a", "b", "c")
    other = probe_set(Batches(inputs, labels), network(), per_class=4, seed=6)
    assert positions(other) != positions(found[0])
    assert len(probe_set(Batches(inputs, labels), network(), per_class=99, seed=0)) == 30


def test_every_input_of_a_class_is_drawn_as_often_as_another() -> None:
    source, net = Batches(*data(12)), network()
    counts = np.zeros(12)
    for seed in range(100):
        counts[positions(probe_set(source, net, per_class=2, seed=seed))] += 1
    # 100 draws of 2 out of 4: binomial with mean 50 and standard deviation 5; four of them.
    assert np.abs(counts - 50).max() < 20


def test_a_stream_is_read_to_a_limit_and_holds_only_what_it_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    read = []

    def forever() -> Iterator[tuple[np.ndarray, int]]:
        for i in itertools.count():
            read.append(i)
            yield np.full((4, 4, 1), i, np.float32), i % 3

    source = tf.data.Dataset.from_generator(forever, output_signature=(tf.TensorSpec((4, 4, 1)), tf.TensorSpec((), tf.int32)))
    monkeypatch.setattr(keras_data, "READ_AT_MOST", 40)
    probe = probe_set(source, network(), per_class=5, seed=0)
    assert max(positions(probe)) < 40 <= len(read) < 60


def test_reading_a_dataset_changes_nothing_that_training_meets() -> None:
    import tensorflow as tf

    def augmented() -> tf.data.Dataset:
        keras.utils.set_random_seed(0)
        brighter = L.RandomBrightness(0.5, value_range=(0, 30), seed=1)  # its seed lies in a variable, which each reading advances
        drawn = tf.random.Generator.from_seed(2)
        images = tf.data.Dataset.from_tensor_slices(data()).batch(5)
        return images.map(lambda x, y: (brighter(x, training=True) + drawn.uniform(()), y))

    def met(source: tf.data.Dataset) -> np.ndarray:
        return np.concatenate([x for x, _ in source.as_numpy_iterator()])

    expected = met(augmented())
    source = augmented()
    probe_set(source, network(), per_class=2, seed=0)
    np.testing.assert_array_equal(met(source), expected)
    assert not np.array_equal(met(source), expected)  # the counterpart: reading it otherwise does
    state = np.random.get_state()[1].tobytes()  # noqa: NPY002
    probe_set(Batches(*data()), network(), per_class=2, seed=0)
    assert np.random.get_state()[1].tobytes() == state  # noqa: NPY002


def test_a_dataset_that_would_be_disturbed_or_has_no_end_is_refused() -> None:
    import tensorflow as tf

    source = tf.data.Dataset.from_tensor_slices(data())
    with pytest.raises(ValueError, match=r"shuffled anew each time it is read.*pass one that is not shuffled"):
        probe_set(source.shuffle(30).batch(4).prefetch(1), network(), per_class=2, seed=0)
    probe_set(source.shuffle(30, seed=1, reshuffle_each_iteration=False), network(), per_class=2, seed=0)
    with pytest.raises(ValueError, match=r"has no end; pass it as it was before repeat\(\)"):
        probe_set(source.repeat(), network(), per_class=2, seed=0)
    with pytest.raises(ValueError, match="holds no inputs"):
        probe_set(source.take(0), network(), per_class=2, seed=0)
    with pytest.raises(TypeError, match=r"holds .*; expected pairs \(input, label\) of tensors"):
        probe_set(source.map(lambda x, y: {"x": x, "y": y}), network(), per_class=2, seed=0)


def test_anything_else_is_a_type_error_that_says_what_is_allowed() -> None:
    with pytest.raises(TypeError, match=r"probe is a str; expected a netlapse.types.ProbeSet, a pair .*tf.data.Dataset or a keras.utils.PyDataset"):
        probe_set("mnist", network(), per_class=2, seed=0)
