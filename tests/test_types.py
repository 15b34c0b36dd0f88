"""What the nouns accept, and what they say when they do not."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
import pytest

from netlapse.probe import by_attribute, by_label
from netlapse.types import Findings, Layer, ProbeSet, Responses, Snapshot


def probe(**changes: object) -> ProbeSet:
    rng = np.random.default_rng(0)
    fields = {
        "inputs": rng.normal(size=(4, 2, 2, 1)).astype(np.float32),
        "labels": np.array([0, 1, 1, 0]),
        "class_names": ("cat", "dog"),
        "attributes": {"place": ["in", "out", "in", "in"]},
        "ids": ["a", "b", "c", "d"],
    }
    return ProbeSet(**(fields | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": np.zeros(4, np.float32)}, r"probe inputs have shape \(4,\); expected \(n, \.\.\.\) with n >= 1"),
        ({"inputs": np.zeros((0, 3), np.float32), "labels": np.zeros(0, int)}, r"probe inputs have shape \(0, 3\)"),
        ({"inputs": np.zeros((4, 2, 2, 1), np.uint8)}, r"dtype uint8 and shape \(4, 2, 2, 1\); expected floats.*token ids"),
        ({"inputs": np.zeros((4, 2), bool)}, r"dtype bool"),
        ({"inputs": np.zeros((4, 2), complex)}, r"dtype complex128"),
        ({"inputs": np.array([[0.0], [np.nan], [1.0], [np.inf]])}, r"NaN or infinity in 2 of 4 inputs, first at index 1"),
        ({"labels": np.array([0, 1, 1])}, r"probe labels have shape \(3,\) and dtype int64; expected \(4,\) integers"),
        ({"labels": np.array([[0, 1, 1, 0]])}, r"probe labels have shape \(1, 4\)"),
        ({"labels": np.array([0.0, 1.0, 1.0, 0.0])}, r"dtype float64; expected \(4,\) integers"),
        ({"labels": np.array([0, 2, 1, 5])}, r"probe labels hold \[2, 5\]; allowed are 0 to 1, for the classes \['cat', 'dog'\]"),
        ({"labels": np.array([0, -1, 1, 0])}, r"probe labels hold \[-1\]"),
        ({"labels": np.array([0, -1, 1, 0]), "class_names": ()}, r"probe labels hold \[-1\]; allowed are 0 to 1"),
        ({"attributes": {"place": ["in", "out"]}}, r"probe attribute 'place' has shape \(2,\); expected \(4,\), one value per input"),
        ({"ids": ["a", "b", "c"]}, r"probe ids have shape \(3,\) with 3 distinct values; expected \(4,\), all distinct"),
        ({"ids": ["a", "b", "c", "a"]}, r"probe ids have shape \(4,\) with 3 distinct values"),
    ],
)
def test_a_probe_that_cannot_be_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        probe(**changes)


def test_probe_inputs_are_float32_and_token_ids_integers() -> None:
    assert probe(inputs=np.zeros((4, 3), np.float64)).inputs.dtype == np.float32
    assert probe(inputs=np.zeros((4, 3), np.float16)).inputs.dtype == np.float32
    assert probe(inputs=np.zeros((4, 3), np.int32)).inputs.dtype == np.int64
    assert probe(labels=np.array([0, 1, 1, 0], np.uint8)).labels.dtype == np.int64


def test_classes_and_ids_not_given_are_numbers() -> None:
    made = ProbeSet(np.zeros((3, 2), np.float32), np.array([2, 0, 0]))
    assert made.class_names == ("0", "1", "2")
    assert made.ids is not None
    assert made.ids.tolist() == ["0", "1", "2"]
    assert len(made) == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"inputs": np.zeros((4, 2, 2, 1), np.float32)},
        {"inputs": np.zeros((4, 4), np.float32)},
        {"labels": np.array([1, 1, 1, 0])},
        {"class_names": ("cat", "cow")},
        {"class_names": ("cat", "dog", "cow")},
        {"attributes": {}},
        {"attributes": {"place": ["in", "out", "in", "out"]}},
        {"attributes": {"where": ["in", "out", "in", "in"]}},
        {"ids": ["a", "b", "c", "e"]},
    ],
)
def test_the_hash_changes_with_any_field(changes: dict[str, object]) -> None:
    assert probe(**changes).hash != probe().hash


def test_equal_probes_have_equal_hashes_however_they_are_stored() -> None:
    made = probe()
    stored_otherwise = probe(
        inputs=np.asfortranarray(made.inputs.astype(">f8")),
        labels=made.labels.astype(np.uint8),
        attributes={"place": np.array(["in", "out", "in", "in"], "U20")},
        ids=np.array(["a", "b", "c", "d"], "U9"),
    )
    assert stored_otherwise.hash == made.hash
    both = probe(attributes={"a": ["1"] * 4, "b": ["2"] * 4}), probe(attributes={"b": ["2"] * 4, "a": ["1"] * 4})
    assert both[0].hash == both[1].hash


def test_a_probe_does_not_follow_changes_to_the_arrays_it_was_made_of() -> None:
    inputs, labels, ids = np.zeros((2, 3), np.float32), np.array([0, 1]), np.array(["a", "b"])
    made = ProbeSet(inputs, labels, ids=ids)
    inputs += 1
    labels += 1
    ids[:] = "c"
    assert not made.inputs.any()
    assert made.labels.tolist() == [0, 1]
    assert made.ids is not None
    assert made.ids.tolist() == ["a", "b"]


def test_take_keeps_classes_and_everything_of_the_chosen_inputs() -> None:
    whole = probe()
    part = whole.take(np.array([3, 1]))
    np.testing.assert_array_equal(part.inputs, whole.inputs[[3, 1]])
    assert part.labels.tolist() == [0, 1]
    assert part.class_names == ("cat", "dog")
    assert part.attributes["place"].tolist() == ["in", "out"]
    assert part.ids is not None
    assert part.ids.tolist() == ["d", "b"]
    assert whole.take(np.arange(4)).hash == whole.hash
    assert whole.take(np.array([0])).class_names == ("cat", "dog")


def test_findings_hold_numbers_and_pictures_and_nothing_else() -> None:
    found = Findings({"a": [1, 2]}, {"m": np.float32(0.5)}, {"i": np.zeros((2, 3, 3), np.uint8)})  # type: ignore[dict-item]
    assert type(found.arrays["a"]) is np.ndarray
    assert type(found.scalars["m"]) is float
    with pytest.raises(ValueError, match="findings array 'a' holds Python objects; expected numbers, booleans or strings"):
        Findings({"a": np.array([object()])})
    with pytest.raises(ValueError, match="findings array 'a' holds Python objects"):
        Findings({"a": np.zeros(2, [("x", object)])})
    for image in (np.zeros((2, 3, 3)), np.zeros((2, 3), np.uint8), np.zeros((2, 3, 4), np.uint8)):
        with pytest.raises(ValueError, match=r"findings image 'i' has shape .* expected \(h, w, 3\) uint8"):
            Findings(images={"i": image})  # type: ignore[dict-item]


class Counting:
    """A network of one dense layer that counts what it is asked."""

    layers = ("dense", "out")
    refused = MappingProxyType({"alias": "it is another's output"})

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.described: list[int] = []

    def describe(self, inputs: np.ndarray) -> tuple[Layer, ...]:
        self.described.append(len(inputs))
        return Layer("dense", "Dense", (3,), "weights"), Layer("out", "Dense", (2,), "output")

    def undisturbed(self) -> object:
        from contextlib import nullcontext

        return nullcontext()

    def responses(self, inputs: np.ndarray, layers: tuple[str, ...]) -> Responses:
        self.asked.append(len(inputs))
        values = {layer: np.full((len(inputs), 3), inputs.mean(), np.float32) for layer in layers}
        return Responses(values, values, values, np.zeros((len(inputs), 2), np.float32))


def test_analyses_of_one_snapshot_share_one_pass_of_the_probe() -> None:
    network = Counting()
    snapshot = Snapshot(network, probe(), 3, batch_size=3)  # type: ignore[arg-type]
    assert snapshot.layer_names == ("dense",)
    assert snapshot.statistics is snapshot.statistics
    assert network.asked == [3, 1]
    assert network.described == [2]
    assert snapshot.statistics.names == ("cat", "dog")


def test_a_snapshot_takes_the_layers_and_the_grouping_it_is_given() -> None:
    snapshot = Snapshot(Counting(), probe(), 0, layers="out", grouping=by_attribute("place"))  # type: ignore[arg-type]
    assert snapshot.layer_names == ("out",)
    assert snapshot.statistics.names == ("in", "out")
    assert snapshot.statistics.counts.tolist() == [3, 1]
    with pytest.raises(ValueError, match="'alias' cannot be observed: it is another's output"):
        _ = Snapshot(Counting(), probe(), 0, layers="alias", grouping=by_label).layer_names  # type: ignore[arg-type]


def test_what_an_analysis_asks_once_is_its_own_and_asked_once() -> None:
    snapshot = Snapshot(Counting(), probe(), 0)  # type: ignore[arg-type]
    asked: list[int] = []

    def answer() -> np.ndarray:
        asked.append(len(asked))
        return np.array(asked[-1])

    assert [int(snapshot.once("a", answer)) for _ in range(2)] == [0, 1]  # nobody knows that these two ask for the same
    nap, other = snapshot.within("nap"), snapshot.within("other")
    assert [int(look.once(name, answer)) for look in (nap, nap, other) for name in "ab"] == [2, 3, 2, 3, 4, 5]
    assert nap.answers is snapshot.answers


def test_arrays_lie_in_memory_as_they_come_from_a_file() -> None:
    """The sum of an array depends in its last bit on the order of its elements: live and offline go on from the same."""
    turned = np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1)
    assert Findings({"a": turned, "b": np.array(1.0)}).arrays["a"].flags.c_contiguous
    assert Findings({"b": np.array(1.0)}).arrays["b"].shape == ()
    snapshot = Snapshot(Counting(), probe(), 0)  # type: ignore[arg-type]
    assert snapshot.once("a", lambda: turned).flags.c_contiguous
    assert snapshot.within("nap").once("a", lambda: turned).flags.c_contiguous
