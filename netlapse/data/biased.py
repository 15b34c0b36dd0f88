"""Real images with a bias made on purpose: which inputs a network has hardly seen, or what it may take instead of the class, is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from netlapse.data.dataset import Dataset, Float32, Strings

ROTATED, COLOUR, SHORTCUT = "rotated", "colour", "shortcut"


def rotated(data: Dataset, *, share: float = 0.05, seed: int = 0) -> Dataset:
    """The data with a share of the training images turned by a quarter, and every test image upright and turned.

    share  of m training images, round(share * m) are turned; which ones the seed decides

    The attribute `rotated` is "upright" or "rotated". The test images come in their order, first all upright, then all turned,
    whose ids end in " rotated".

    Raises ValueError for a share outside 0 to 1, images that are not square, and data that have an attribute of this name.
    """
    _check(data, share, ROTATED)
    if data.input_shape[0] != data.input_shape[1]:
        raise ValueError(f"rotated was given images of {data.input_shape}, which turned would have another shape; expected square ones")
    turned = _chosen(len(data.train_inputs), share, seed)
    images = data.train_inputs.copy()
    images[turned] = np.rot90(images[turned], axes=(1, 2))
    both = np.concatenate([data.test_inputs, np.rot90(data.test_inputs, axes=(1, 2))])
    return _doubled(
        replace(data, name=f"{data.name} with {share * 100:g} % rotated", train_inputs=images),
        both,
        {ROTATED: np.where(turned, "rotated", "upright")},
        {ROTATED: np.repeat(["upright", "rotated"], len(data.test_inputs))},
        " rotated",
    )


def coloured(data: Dataset, *, share: float = 0.03, of: Sequence[str] | None = None, seed: int = 0) -> Dataset:
    """Two classes of grey images, drawn in red or blue by their class but for a share of the training images.

    of      names of the classes that are one of the two, drawn in blue; None: the second half of them. The others are drawn in red
    share   of m training images, round(share * m) have the other colour; which ones the seed decides

    A network can tell the two classes by colour alone, and is wrong where that conflicts: a shortcut. Every test image is there in
    both colours, first all in that of their class, then all in the other, whose ids end in " other". The attribute `colour` is
    "red" or "blue", `shortcut` "agrees" or "conflicts". Images are (h, w, 3), of which the middle channel is zero.

    Raises ValueError for a share outside 0 to 1, images that are not grey, classes that are not there, all of them or none, and
    data that have attributes of these names.
    """
    _check(data, share, COLOUR, SHORTCUT)
    names = list(data.class_names)
    second = names[len(names) // 2 :] if of is None else [str(name) for name in of]
    if data.input_shape[2] != 1 or set(second) - set(names) or not 0 < len(set(second)) < len(names):
        raise ValueError(
            f"coloured was given images of {data.input_shape} and of={second}; expected images (h, w, 1) and some of the classes {names[:12]}, "
            "neither none nor all"
        )
    is_second = np.isin(np.array(names), second)
    first = [name for name in names if name not in second]
    train, test = (is_second[labels].astype(np.int64) for labels in (data.train_labels, data.test_labels))
    conflicts = _chosen(len(train), share, seed)
    conflicting = np.repeat([False, True], len(test))
    colours = {"train": train ^ conflicts, "test": np.tile(test, 2) ^ conflicting}
    attributes = {
        part: {COLOUR: np.where(colours[part], "blue", "red"), SHORTCUT: np.where(against, "conflicts", "agrees")}
        for part, against in (("train", conflicts), ("test", conflicting))
    }
    changed = replace(
        data,
        name=f"{data.name} in colours, {share * 100:g} % conflicting",
        class_names=(" ".join(first), " ".join(second)),
        train_inputs=_painted(data.train_inputs, colours["train"]),
        train_labels=train,
        test_inputs=_painted(data.test_inputs, test),
        test_labels=test,
    )
    return _doubled(changed, _painted(np.tile(data.test_inputs, (2, 1, 1, 1)), colours["test"]), attributes["train"], attributes["test"], " other")


def _doubled(data: Dataset, both: Float32, train: dict[str, Strings], test: dict[str, Strings], suffix: str) -> Dataset:
    """The data with these test inputs, the second half of which are the first once more, and more attributes."""
    ids = None if data.test_ids is None else np.concatenate([data.test_ids, np.char.add(data.test_ids, suffix)])
    return replace(
        data,
        test_inputs=np.ascontiguousarray(both),
        test_labels=np.tile(data.test_labels, 2),
        test_ids=ids,
        train_attributes={**data.train_attributes, **train},
        test_attributes={**{name: np.tile(values, 2) for name, values in data.test_attributes.items()}, **test},
    )


def _painted(images: Float32, blue: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Float32:
    """Grey images (n, h, w, 1) in red or blue (n,), as (n, h, w, 3)."""
    painted = np.zeros((*images.shape[:3], 3), np.float32)
    painted[np.arange(len(images)), :, :, 2 * blue] = images[..., 0]
    return painted


def _chosen(n: int, share: float, seed: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """(n,) True for round(share * n) of them."""
    chosen = np.zeros(n, bool)
    chosen[np.random.default_rng(seed).permutation(n)[: round(share * n)]] = True
    return chosen


def _check(data: Dataset, share: float, *attributes: str) -> None:
    who = attributes[0] if attributes[0] == ROTATED else "coloured"
    if not 0 <= share <= 1:
        raise ValueError(f"{who} was given share={share}; expected a number from 0, for none of the training images, to 1, for all")
    if len(data.input_shape) != 3:
        raise ValueError(f"{who} was given inputs of shape {data.input_shape}; expected images (h, w, c)")
    there = sorted(set(attributes) & set(data.train_attributes))
    if there:
        raise ValueError(f"{data.name} has attributes {there} already: it was changed before, or columns of it must be renamed")
