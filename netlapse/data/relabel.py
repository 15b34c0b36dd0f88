"""Data with wrong labels, made on purpose: to see whether and where a network, or its maps, tell of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from netlapse.data.dataset import Dataset, Strings

PARTS = ("train", "test")
TRUE_LABEL = "true_label"
"""The attribute that keeps every input's class as it was."""


def relabelled(data: Dataset, *, of: str, to: str, share: float = 0.9, parts: Sequence[str] = ("train",), seed: int = 0) -> Dataset:
    """The data with a share of one class labelled as another; the inputs, and their order, are the same.

    of, to  names of classes      parts  whose labels are changed: "train", "test" or both
    share   of a part's m inputs of the class, round(share * m) are changed; which ones the seed decides

    The name tells of it, and the attribute `true_label` keeps every input's class as it was.

    Raises ValueError for a class that is not there, for two that are the same, a share outside 0 to 1, other parts or none, and
    data that have an attribute of this name.
    """
    names = list(data.class_names)
    of, to = str(of), str(to)  # YAML reads 0 as a number
    if of not in names or to not in names or of == to:
        raise ValueError(f"relabelled was asked to label {of!r} as {to!r}; expected two of the classes of {data.name}: {names[:12]}")
    if not 0 <= share <= 1:
        raise ValueError(f"relabelled was given share={share}; expected a number from 0, for none of the inputs of {of!r}, to 1, for all")
    if isinstance(parts, str) or not parts or set(parts) - set(PARTS):
        raise ValueError(f"relabelled was given parts={parts!r}; expected a list of one or both of {list(PARTS)}")
    if TRUE_LABEL in data.train_attributes:
        raise ValueError(f"{data.name} has an attribute {TRUE_LABEL!r} already: it was relabelled before, or a column of it must be renamed")
    changes: dict[str, Any] = {"name": f"{data.name} with {share * 100:g} % of {of} as {to} in {' and '.join(p for p in PARTS if p in parts)}"}
    for number, part in enumerate(PARTS):
        labels = getattr(data, f"{part}_labels").copy()
        true: Strings = np.array(names)[labels]
        changes[f"{part}_attributes"] = {**getattr(data, f"{part}_attributes"), TRUE_LABEL: true}
        if part in parts:
            members = np.flatnonzero(labels == names.index(of))
            rng = np.random.default_rng([seed, number])  # a part's choice does not depend on whether the other is changed
            labels[rng.permutation(members)[: round(share * len(members))]] = names.index(to)
        changes[f"{part}_labels"] = labels
    return replace(data, **changes)
