"""Laws of data with a bias made on purpose: exactly the share that was asked for, and test images both ways, alike but for that."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from netlapse.data import Dataset, coloured, digits, relabelled, rotated


def vectors() -> Dataset:
    values, labels = np.zeros((4, 3), np.float32), np.array([0, 1, 0, 1])
    return Dataset("vectors", values, labels, values, labels, ("a", "b"))


def test_a_share_of_training_images_is_turned_and_the_others_are_as_they_were() -> None:
    data = digits()
    turned = rotated(data)
    is_turned = turned.train_attributes["rotated"] == "rotated"
    assert is_turned.sum() == round(0.05 * len(data.train_inputs))
    for image, before, was_turned in zip(turned.train_inputs, data.train_inputs, is_turned):
        expected = np.rot90(before[..., 0]) if was_turned else before[..., 0]
        np.testing.assert_array_equal(image[..., 0], expected)
    np.testing.assert_array_equal(turned.train_labels, data.train_labels)
    assert turned.train_ids is not None
    np.testing.assert_array_equal(turned.train_ids, data.train_ids)


def test_a_quarter_turn_takes_the_right_edge_to_the_top() -> None:
    image = digits().test_inputs[0]
    turned = rotated(digits()).test_inputs[len(digits().test_inputs)]
    np.testing.assert_array_equal(turned[0, :, 0], image[:, -1, 0])
    np.testing.assert_array_equal(turned[:, 0, 0], image[0, ::-1, 0])


@pytest.mark.parametrize(
    ("make", "attribute", "first", "second"), [(rotated, "rotated", "upright", "rotated"), (coloured, "shortcut", "agrees", "conflicts")]
)
def test_every_test_image_is_there_both_ways(make: Any, attribute: str, first: str, second: str) -> None:
    data = digits()
    biased, m = make(data), len(data.test_inputs)
    assert biased.test_attributes[attribute].tolist() == [first] * m + [second] * m
    np.testing.assert_array_equal(biased.test_labels[:m], biased.test_labels[m:])
    assert data.test_ids is not None
    assert biased.test_ids[:m].tolist() == data.test_ids.tolist()
    assert len(set(biased.test_ids.tolist())) == 2 * m
    np.testing.assert_allclose(np.sort(biased.test_inputs[:m].reshape(m, -1)), np.sort(biased.test_inputs[m:].reshape(m, -1)))


def test_the_colour_is_that_of_the_class_but_for_the_share() -> None:
    data = digits()
    painted = coloured(data)
    assert painted.class_names == ("0 1 2 3 4", "5 6 7 8 9")
    np.testing.assert_array_equal(painted.train_labels, data.train_labels >= 5)
    conflicts = painted.train_attributes["shortcut"] == "conflicts"
    assert conflicts.sum() == round(0.03 * len(data.train_inputs))
    blue = painted.train_attributes["colour"] == "blue"
    np.testing.assert_array_equal(blue == (painted.train_labels == 1), ~conflicts)
    for images, colours in ((painted.train_inputs, blue), (painted.test_inputs, painted.test_attributes["colour"] == "blue")):
        assert images[colours][..., 0].max() == images[~colours][..., 2].max() == images[..., 1].max() == 0
    np.testing.assert_array_equal(painted.train_inputs.sum(axis=-1), data.train_inputs[..., 0])
    # In the test part colour says nothing of the class.
    blue = painted.test_attributes["colour"] == "blue"
    assert blue[painted.test_labels == 0].mean() == blue[painted.test_labels == 1].mean() == 0.5
    np.testing.assert_array_equal(blue == (painted.test_labels == 1), painted.test_attributes["shortcut"] == "agrees")


@pytest.mark.parametrize(("make", "attribute"), [(rotated, "rotated"), (coloured, "shortcut")])
def test_the_seed_decides_which_and_not_the_order_of_the_data(make: Any, attribute: str) -> None:
    one, again, other = (make(digits(), seed=seed).train_attributes[attribute] for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()
    assert len(set(make(digits(), share=0.0).train_attributes[attribute])) == 1


def test_attributes_there_were_are_kept_for_both_ways() -> None:
    for make in (rotated, coloured):
        data = relabelled(digits(), of="1", to="2", parts=["test"])
        biased = make(data)
        np.testing.assert_array_equal(biased.test_attributes["true_label"], np.tile(data.test_attributes["true_label"], 2))
        np.testing.assert_array_equal(biased.train_attributes["true_label"], data.train_attributes["true_label"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rotated(digits(), share=5), "rotated was given share=5; expected a number from 0"),
        (lambda: coloured(digits(), share=-0.1), "coloured was given share=-0.1"),
        (lambda: rotated(vectors()), "rotated was given inputs of shape (3,); expected images"),
        (lambda: rotated(rotated(digits())), "has attributes ['rotated'] already"),
        (lambda: coloured(coloured(digits())), "has attributes ['colour', 'shortcut'] already"),
        (lambda: coloured(digits(), of=["11"]), "of=['11']; expected images (h, w, 1) and some of the classes ['0', '1'"),
        (lambda: coloured(digits(), of=[]), "neither none nor all"),
    ],
)
def test_what_does_not_fit_is_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make()
