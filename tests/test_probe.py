"""Which inputs are shown, and how they are grouped."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest

from netlapse.data import digits
from netlapse.probe import NamedGrouping, by_attribute, by_confidence, by_confusion, by_label, by_outcome, choose, softmax, unbalanced
from netlapse.types import ProbeSet

LABELS = np.array([0, 0, 1, 1, 2, 2])
LOGITS = np.array([[2, 0, 0], [0, 2, 0], [0, 2, 0], [0, 0, 2], [2, 0, 0], [0, 0, 2]], np.float32)


def probe() -> ProbeSet:
    attributes = {"colour": ["red", "blue", "red", "blue", "red", "red"], "size": ["s", "s", "l", "l", "s", "s"]}
    return ProbeSet(np.arange(6, dtype=np.float32)[:, None], LABELS, ("a", "b", "c"), attributes)  # type: ignore[arg-type]


# ---- groupings ------------------------------------------------------------------------------------------------------


def test_by_label_is_one_group_per_class() -> None:
    groups, names = by_label(probe(), None)
    assert groups.tolist() == LABELS.tolist()
    assert names == ("a", "b", "c")


def test_by_outcome_is_label_by_right_and_wrong() -> None:
    groups, names = by_outcome(probe(), LOGITS)
    assert [names[g] for g in groups] == ["a correct", "a wrong", "b correct", "b wrong", "c wrong", "c correct"]
    assert len(names) == 6


def test_by_confusion_is_label_by_prediction() -> None:
    groups, names = by_confusion(probe(), LOGITS)
    assert [names[g] for g in groups] == ["a as a", "a as b", "b as b", "b as c", "c as a", "c as c"]
    assert len(names) == 9


def test_by_confusion_refuses_another_number_of_outputs_than_classes() -> None:
    with pytest.raises(ValueError, match=r"by_confusion: the network has 4 outputs and the probe 3 classes; give the probe a class name per output"):
        by_confusion(probe(), np.zeros((6, 4), np.float32))


def test_by_attribute_is_one_group_per_intersection_that_occurs() -> None:
    groups, names = by_attribute("colour", "size")(probe())
    assert names == ("blue / l", "blue / s", "red / l", "red / s")
    assert [names[g] for g in groups] == ["red / s", "blue / s", "red / l", "blue / l", "red / s", "red / s"]
    groups, names = by_attribute("size")(probe())
    assert names == ("l", "s")
    assert groups.tolist() == [1, 1, 0, 0, 1, 1]


def test_by_attribute_names_what_the_probe_has() -> None:
    with pytest.raises(ValueError, match=r"the probe has no attribute \['shape'\]; it has \['colour', 'size'\]"):
        by_attribute("colour", "shape")(probe())
    with pytest.raises(ValueError, match="by_attribute was given no attribute"):
        by_attribute()


def test_by_confidence_is_the_bin_of_the_largest_softmax_probability() -> None:
    probabilities = np.array([[0.4, 0.3, 0.3], [0.5, 0.25, 0.25], [0.6, 0.2, 0.2], [0.9, 0.05, 0.05], [0.1, 0.75, 0.15], [0.01, 0.01, 0.98]])
    groups, names = by_confidence((0, 0.45, 0.8, 1))(probe(), np.log(probabilities).astype(np.float32))
    assert names == ("0 to 0.45", "0.45 to 0.8", "0.8 to 1")
    assert groups.tolist() == [0, 1, 1, 2, 1, 2]
    groups, names = by_confidence(2)(probe(), np.log(probabilities).astype(np.float32) + 100)
    assert names == ("0 to 0.5", "0.5 to 1")
    assert groups[[0, 2, 3, 4, 5]].tolist() == [0, 1, 1, 1, 1]


def test_a_confidence_bin_holds_its_upper_edge() -> None:
    logits = np.tile(np.array([0, 0, -1000], np.float32), (6, 1))  # exactly one half each
    assert by_confidence(2)(probe(), logits)[0].tolist() == [0] * 6
    assert by_confidence(3)(probe(), logits)[0].tolist() == [1] * 6


def test_full_confidence_is_in_the_last_bin_and_overflows_nothing() -> None:
    logits = np.zeros((6, 3), np.float32)
    logits[:, 0] = 1e30
    groups, _ = by_confidence(5)(probe(), logits)
    assert groups.tolist() == [4] * 6


@pytest.mark.parametrize(
    "bins", [0, -1, -3, (0.0, 1.5), (0.1, 1.0), (0.0, 0.5, 0.5, 1.0), (0.0, 0.6, 0.4, 1.0), (0.0, float("nan"), 1.0), (0.0,), ()]
)
def test_bins_that_are_none_are_refused(bins: object) -> None:
    with pytest.raises(ValueError, match=r"by_confidence was given bins .*; expected a number of at least 1, or ascending edges from 0 to 1"):
        by_confidence(bins)  # type: ignore[arg-type]


@pytest.mark.parametrize("grouping", [by_outcome, by_confusion, by_confidence()])
def test_groupings_by_prediction_ask_for_logits(grouping: NamedGrouping) -> None:
    assert grouping.reads_logits
    with pytest.raises(ValueError, match=r"grouping by_.* depends on predictions and was given no logits; pass the network's outputs \(n, 3\)"):
        grouping(probe(), None)
    for logits in (np.zeros((5, 3), np.float32), np.zeros(6, np.float32)):
        with pytest.raises(ValueError, match=r"was given logits of shape .*; expected \(6, 3\)"):
            grouping(probe(), logits)


ALL = [by_label, by_outcome, by_confusion, by_attribute("colour", "size"), by_confidence(3)]


@pytest.mark.parametrize("grouping", ALL, ids=lambda g: g.name)
def test_a_grouping_that_reads_logits_groups_each_input_by_its_own_row(grouping: NamedGrouping) -> None:
    groups, names = grouping(probe(), LOGITS if grouping.reads_logits else None)
    assert groups.dtype == np.int64
    assert len(names) > groups.max()
    if grouping.reads_logits:
        for i in range(6):
            one, same = grouping(probe().take(np.array([i])), LOGITS[i : i + 1])
            assert one.tolist() == [groups[i]]
            assert same == names


@pytest.mark.parametrize("grouping", ALL, ids=lambda g: g.name)
def test_a_grouping_survives_pickling_as_a_trainer_that_spawns_demands(grouping: NamedGrouping) -> None:
    copy = pickle.loads(pickle.dumps(grouping))
    assert (copy.name, copy.reads_logits) == (grouping.name, grouping.reads_logits)
    np.testing.assert_array_equal(copy(probe(), LOGITS)[0], grouping(probe(), LOGITS)[0])


def test_softmax_is_the_definition_in_float64() -> None:
    expected = [[np.exp(v) / sum(np.exp(w) for w in row) for v in row] for row in LOGITS.astype(float)]
    np.testing.assert_allclose(softmax(LOGITS), expected, rtol=1e-12)
    np.testing.assert_allclose(softmax(LOGITS + 1000), expected, rtol=1e-12)
    assert softmax(LOGITS).dtype == np.float64


# ---- choosing -------------------------------------------------------------------------------------------------------


def data() -> tuple[np.ndarray, np.ndarray]:
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [30, 20, 3]))
    return np.arange(53, dtype=np.float32)[:, None], labels


def test_a_probe_has_so_many_of_each_class_without_repetition() -> None:
    inputs, labels = data()
    made = choose(inputs, labels, per_class=5, seed=1)
    assert np.bincount(made.labels).tolist() == [5, 5, 3]
    where = made.inputs[:, 0].astype(int)
    assert len(set(where)) == 13
    assert (np.diff(where) > 0).all()
    np.testing.assert_array_equal(made.labels, labels[where])
    assert made.ids is not None
    assert made.ids.tolist() == [str(i) for i in where]


def test_the_same_seed_chooses_the_same_probe_and_another_seed_another() -> None:
    inputs, labels = data()
    np.random.seed(0)  # noqa: NPY002 - to show that the global state is not read
    first = choose(inputs, labels, per_class=5, seed=1)
    np.random.seed(1)  # noqa: NPY002
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    assert choose(inputs, labels, per_class=5, seed=1).hash == first.hash
    assert choose(inputs, labels, per_class=5, seed=2).hash != first.hash
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_every_input_of_a_class_is_chosen_equally_often() -> None:
    inputs, labels = data()
    times = np.zeros(53)
    for seed in range(400):
        times[choose(inputs, labels, per_class=3, seed=seed).inputs[:, 0].astype(int)] += 1
    # Binomial with p = 3 / 30: 40 expected with standard deviation 6; five of those are passed once in a million draws.
    assert np.abs(times[labels == 0] - 40).max() < 30
    assert (times[labels == 2] == 400).all()


def test_attributes_names_and_ids_follow_the_chosen_inputs() -> None:
    inputs, labels = data()
    made = choose(inputs, labels, per_class=2, class_names=("x", "y", "z"), attributes={"number": np.arange(53)}, ids=np.arange(100, 153))
    where = made.inputs[:, 0].astype(int)
    assert made.class_names == ("x", "y", "z")
    assert made.attributes["number"].tolist() == [str(i) for i in where]
    assert made.ids is not None
    assert made.ids.tolist() == [str(100 + i) for i in where]


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ([0, 1, 0], {"per_class": 0}, "per_class is 0; a probe takes at least 1 input of each class"),
        ([0, 2, 0], {"per_class": 1}, r"no inputs of the classes \['1'\] to choose a probe from; there are inputs of \['0', '2'\]"),
        ([0, 1, 0], {"per_class": 1, "class_names": ("a", "b", "c")}, r"no inputs of the classes \['c'\]"),
        ([0, 1, 2], {"per_class": 1, "class_names": ("a", "b")}, r"labels hold \[2\]; allowed are 0 to 1, for the classes \['a', 'b'\]"),
        ([0, 1, -1], {"per_class": 1}, r"labels hold \[-1\]; allowed are 0 to 1"),
        ([0, 1], {"per_class": 1}, r"chosen from 3 inputs and labels of shape \(2,\); expected one label per input"),
        ([[0], [1], [0]], {"per_class": 1}, r"3 inputs and labels of shape \(3, 1\)"),
    ],
)
def test_what_cannot_be_chosen_from_is_refused(labels: list[int], options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        choose(np.zeros((3, 2), np.float32), np.array(labels), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("grouping", [by_outcome, by_confusion, by_confidence(3)], ids=["outcome", "confusion", "confidence"])
def test_what_is_no_prediction_is_taken_for_none(grouping: NamedGrouping) -> None:
    probe = ProbeSet(np.zeros((3, 2), np.float32), np.arange(3))
    for value in (np.nan, np.inf):
        logits = np.eye(3, dtype=np.float32)
        logits[1, 2] = value
        with pytest.raises(ValueError, match="the logits of 1 of 3 inputs are not finite, so they predict nothing"):
            grouping(probe, logits)
    for k in (1, 2):
        with pytest.raises(ValueError, match=f"the network has {k} outputs and the probe labels up to 2; expected an output per class"):
            grouping(probe, np.zeros((3, k), np.float32))


# ---- unbalanced probes -----------------------------------------------------------------------------------------------


def test_unbalanced_classes_share_the_inputs_in_uniform_random_proportions() -> None:
    data = digits(test_fraction=0.5)
    chosen = unbalanced(data, per_class=30, seed=3)
    shares = np.random.default_rng(3).random(10)
    wanted = np.maximum(1, np.round(300 * shares / shares.sum()))
    there = np.bincount(data.test_labels)
    assert np.bincount(chosen.labels, minlength=10).tolist() == np.minimum(wanted, there).tolist()
    assert abs(len(chosen) - 300) <= 10
    # They are inputs of the test part, with their own labels, each once (ids are distinct).
    places = [data.test_ids.tolist().index(one) for one in np.asarray(chosen.ids)]  # type: ignore[union-attr]
    np.testing.assert_array_equal(chosen.inputs, data.test_inputs[places])
    np.testing.assert_array_equal(chosen.labels, data.test_labels[places])


def test_an_unbalanced_probe_is_that_of_its_seed_has_every_class_and_says_what_is_wrong() -> None:
    data = digits()
    assert unbalanced(data, per_class=3, seed=1).hash == unbalanced(data, per_class=3, seed=1).hash
    assert unbalanced(data, per_class=3, seed=1).hash != unbalanced(data, per_class=3, seed=2).hash
    assert all(set(unbalanced(data, per_class=1, seed=seed).labels.tolist()) == set(range(10)) for seed in range(5))
    with pytest.raises(ValueError, match=r"probe.part is 'all'; allowed are 'test' and 'train'"):
        unbalanced(data, per_class=3, part="all")
    with pytest.raises(ValueError, match="per_class is 0; a probe takes at least 1 input"):
        unbalanced(data, per_class=0)


def test_an_unbalanced_probe_keeps_attributes_with_their_inputs() -> None:
    data = digits()
    told = replace(data, train_attributes={"own": data.train_ids}, test_attributes={"own": data.test_ids})  # type: ignore[arg-type, dict-item]
    chosen = unbalanced(told, per_class=5)
    assert chosen.attributes["own"].tolist() == np.asarray(chosen.ids).tolist()
