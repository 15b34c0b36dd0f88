"""Laws of wrong labels made on purpose: exactly the share that was asked for, of one class, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from netlapse.data import Dataset, digits, relabelled


def small(**changes: object) -> Dataset:
    """10 and 5 inputs of each of three classes, each input its own number."""
    fields: dict[str, object] = {
        "name": "small",
        "train_inputs": np.arange(30, dtype=np.float32)[:, None],
        "train_labels": np.arange(30) % 3,
        "test_inputs": np.arange(15, dtype=np.float32)[:, None],
        "test_labels": np.arange(15) % 3,
        "class_names": ("a", "b", "c"),
    }
    return Dataset(**(fields | changes))  # type: ignore[arg-type]


def changed(before: Dataset, after: Dataset, part: str) -> list[tuple[int, int]]:
    pairs = zip(getattr(before, f"{part}_labels").tolist(), getattr(after, f"{part}_labels").tolist())
    return [pair for pair in pairs if pair[0] != pair[1]]


@pytest.mark.parametrize(
    ("share", "parts", "train", "test"),
    [(0.9, ["train"], 9, 0), (0.9, ["test"], 0, 4), (0.9, ["train", "test"], 9, 4), (1.0, ["train"], 10, 0), (0.0, ["train", "test"], 0, 0)],
)
def test_the_share_of_one_class_in_the_named_parts_changes_and_nothing_else(share: float, parts: list[str], train: int, test: int) -> None:
    data = small(train_ids=[f"r{i}" for i in range(30)], test_ids=[f"e{i}" for i in range(15)])
    wrong = relabelled(data, of="b", to="c", share=share, parts=parts)
    assert changed(data, wrong, "train") == [(1, 2)] * train
    assert changed(data, wrong, "test") == [(1, 2)] * test
    for name in ("train_inputs", "test_inputs", "train_ids", "test_ids"):
        np.testing.assert_array_equal(getattr(wrong, name), getattr(data, name))
    assert wrong.class_names == data.class_names


def test_true_labels_are_kept_as_an_attribute_beside_the_others() -> None:
    data = small(train_attributes={"hue": ["red"] * 30}, test_attributes={"hue": ["red"] * 15})
    wrong = relabelled(data, of="a", to="b")
    assert wrong.train_attributes["true_label"].tolist() == list("abc" * 10)
    assert wrong.test_attributes["true_label"].tolist() == list("abc" * 5)
    assert set(wrong.train_attributes) == set(wrong.test_attributes) == {"hue", "true_label"}


def test_the_seed_decides_which_and_a_part_does_not_depend_on_the_other() -> None:
    data = digits()
    one, again, other, both = (
        relabelled(data, of="0", to="1", share=0.5, parts=parts, seed=seed)
        for parts, seed in ((["train"], 0), (["train"], 0), (["train"], 1), (["test", "train"], 0))
    )
    np.testing.assert_array_equal(one.train_labels, again.train_labels)
    assert (one.train_labels != other.train_labels).any()
    np.testing.assert_array_equal(one.train_labels, both.train_labels)
    # Not the first of them: which inputs have wrong labels must not follow the order of the data.
    members = np.flatnonzero(data.train_labels == 0)
    assert not (one.train_labels[members[: len(members) // 2]] == 1).all()


def test_the_name_tells() -> None:
    assert relabelled(small(), of="a", to="c").name == "small with 90 % of a as c in train"
    assert relabelled(small(), of="b", to="c", share=0.125, parts=["test", "train"]).name == "small with 12.5 % of b as c in train and test"


def test_the_data_that_were_given_stay_as_they_are() -> None:
    data = small()
    relabelled(data, of="a", to="b", parts=["train", "test"])
    assert data.train_labels.tolist() == [0, 1, 2] * 10
    assert data.train_attributes == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"of": "d"}, r"asked to label 'd' as 'b'; expected two of the classes of small: \['a', 'b', 'c'\]"),
        ({"to": 1}, r"label 'a' as '1'; expected two of"),
        ({"to": "a"}, r"label 'a' as 'a'; expected two of"),
        ({"share": 1.5}, r"share=1.5; expected a number from 0, for none of the inputs of 'a', to 1, for all"),
        ({"share": float("nan")}, r"share=nan"),
        ({"parts": []}, r"parts=\[\]; expected a list of one or both of \['train', 'test'\]"),
        ({"parts": "train"}, r"parts='train'; expected a list"),
        ({"parts": ["train", "validation"]}, r"parts=\['train', 'validation'\]; expected a list"),
    ],
)
def test_what_cannot_be_relabelled_is_said(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        relabelled(small(), **({"of": "a", "to": "b"} | options))  # type: ignore[arg-type]


def test_data_are_relabelled_once() -> None:
    with pytest.raises(ValueError, match=r"has an attribute 'true_label' already"):
        relabelled(relabelled(small(), of="a", to="b"), of="b", to="c")
