"""Laws of the numbers that penalties are: what is set is what is there, what may not be changes nothing, and a model's are found."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pytest

from netlapse.penalties import Penalties, penalties_of


def test_without_any_everything_counts_once_until_something_is_set() -> None:
    penalties = Penalties(4)
    assert penalties.neutral
    np.testing.assert_array_equal(penalties.class_weights, np.ones(4))
    np.testing.assert_array_equal(penalties.confusions, np.ones((4, 4)))
    penalties.set("penalise.3->1", 2.5)
    assert not penalties.neutral
    penalties.set("penalise.3->1", 1)
    assert penalties.neutral
    penalties.set("class_weight.2", 0.0)
    assert not penalties.neutral


def test_what_is_set_is_there_and_nothing_else_is_changed() -> None:
    penalties = Penalties(12, class_weights=[0.5] * 12, confusions={"3->5": 2.0, "11->0": 0.0})
    penalties.set("class_weight.10", 3)
    penalties.set("penalise.0->11", 4.0)
    weights, matrix = np.full(12, 0.5), np.ones((12, 12))
    weights[10], matrix[3, 5], matrix[11, 0], matrix[0, 11] = 3, 2, 0, 4
    np.testing.assert_array_equal(penalties.class_weights, weights)
    np.testing.assert_array_equal(penalties.confusions, matrix)
    assert penalties.version == 2


def test_nobody_changes_them_past_their_version() -> None:
    penalties = Penalties(3)
    penalties.class_weights[0] = 9
    penalties.confusions[0, 1] = 9
    assert penalties.neutral
    assert penalties.version == 0


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("class_weight.3", 1.0, r"'class_weight.3' names class 3; allowed are 0 to 2"),
        ("penalise.0->7", 1.0, r"names class 7; allowed are 0 to 2"),
        ("penalise.1->1", 2.0, r"takes a class for itself; expected two different classes, or class_weight.1"),
        ("penalise.1-2", 2.0, r"no penalty is named 'penalise.1-2'; expected class_weight.<class> or penalise.<class>-><class>"),
        ("class_weight.-1", 2.0, r"no penalty is named"),
        ("class_weight.1 ", 2.0, r"no penalty is named"),
        ("lr", 2.0, r"no penalty is named 'lr'"),
        ("class_weight.1", -0.5, r"class_weight.1 was given -0.5; expected how many times the loss counts, a finite number of at least 0"),
        ("class_weight.1", float("nan"), r"was given nan"),
        ("penalise.0->1", float("inf"), r"penalise.0->1 was given inf"),
        ("penalise.0->1", "2", r"was given '2'"),
        ("penalise.0->1", True, r"was given True"),
    ],
)
def test_what_may_not_be_is_refused_and_changes_nothing(name: str, value: float, message: str) -> None:
    penalties = Penalties(3, confusions={"0->1": 2.0})
    told: list[int] = []
    penalties.on_change(lambda: told.append(penalties.version))
    before = (penalties.class_weights.tolist(), penalties.confusions.tolist(), 0)
    with pytest.raises(ValueError, match=message):
        penalties.set(name, value)
    assert (penalties.class_weights.tolist(), penalties.confusions.tolist(), penalties.version) == before
    assert told == []


def test_what_cannot_be_built_says_what_is_expected() -> None:
    with pytest.raises(ValueError, match=r"n_classes=1; expected the number of classes, an integer of at least 2"):
        Penalties(1)
    with pytest.raises(ValueError, match=r"2 class weights; expected 3, one for each class"):
        Penalties(3, class_weights=[1.0, 2.0])
    with pytest.raises(ValueError, match=r"no penalty is named 'penalise.3-5'"):
        Penalties(9, confusions={"3-5": 2.0})


def test_listeners_hear_of_each_change_after_it() -> None:
    penalties, heard = Penalties(3), []
    penalties.on_change(lambda: heard.append((penalties.version, penalties.class_weights[1])))
    penalties.set("class_weight.1", 2.0)
    penalties.set("class_weight.1", 2.0)
    assert heard == [(1, 2.0), (2, 2.0)]


def test_restored_they_are_what_they_were_and_a_change_is_told() -> None:
    penalties, other, heard = Penalties(3, [1, 2, 3], {"0->2": 0.5}), Penalties(3, [4, 4, 4]), []
    other.on_change(lambda: heard.append(other.version))
    other.restore(penalties.class_weights, penalties.confusions)
    np.testing.assert_array_equal(other.class_weights, [1, 2, 3])
    np.testing.assert_array_equal(other.confusions, [[1, 1, 0.5], [1, 1, 1], [1, 1, 1]])
    assert heard == [1]
    with pytest.raises(ValueError, match=r"of 3 classes were given class weights \(4,\)"):
        other.restore(np.ones(4), np.ones((4, 4)))
    for weights, matrix in (([1, 1, -1], np.ones((3, 3))), ([1, 1, np.nan], np.ones((3, 3))), (np.ones(3), 2 * np.ones((3, 3)))):
        with pytest.raises(ValueError, match=r"not finite or below 0, or a diagonal"):
            other.restore(np.asarray(weights, float), matrix)
    np.testing.assert_array_equal(other.class_weights, [1, 2, 3])


def test_a_models_penalties_are_found_wherever_they_sit_and_several_are_not_guessed_between() -> None:
    mine, loss = Penalties(3), SimpleNamespace(penalties=Penalties(3))
    assert penalties_of(object()) is None
    assert penalties_of(SimpleNamespace(penalties=3.0, loss="mse")) is None
    assert penalties_of(SimpleNamespace(penalties=mine)) is mine
    for held in (loss, [None, loss], {"a": "mse", "b": loss}):
        assert penalties_of(SimpleNamespace(loss=held)) is loss.penalties
    assert penalties_of(SimpleNamespace(modules=lambda: iter([object(), loss, loss]))) is loss.penalties
    with pytest.raises(ValueError, match="carries 2 different penalties"):
        penalties_of(SimpleNamespace(penalties=mine, loss=loss))


def test_a_copy_is_its_own() -> None:
    penalties = Penalties(3, [1, 2, 3])
    twin = copy.deepcopy(penalties)
    twin.set("class_weight.0", 7)
    assert penalties.class_weights.tolist() == [1, 2, 3]
    assert twin.class_weights.tolist() == [7, 2, 3]
