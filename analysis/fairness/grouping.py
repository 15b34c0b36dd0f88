"""What a group is, where labels and an attribute are known: for what is changed of a training, and for what is learnt anew after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from netlapse.types import Array, Int64

Of = Literal["label_and_attribute", "attribute"]
"""An attribute's values within every class, as in Sagawa et al. (2020) and as a shortcut needs it, which is an attribute that goes with the class;
or its values alone, for a few inputs that look different in every class: there the groups of the other kind are many and tiny."""

NO_VALUE = ("", "nan", "None")
"""Values of attributes that stand for none, as tables with gaps are read."""


def named_groups(values: Array, labels: Int64, class_names: Sequence[str], of: Of) -> tuple[Int64, list[str]]:
    """(n,) the group of each input, -1 without a value (n,) of the attribute, and the names of the groups that have inputs, sorted.

    Raises ValueError for another `of`.
    """
    if of not in get_args(Of):
        raise ValueError(f"groups were asked of={of!r}; allowed are {get_args(Of)}")
    values = np.asarray(values).astype(str)
    there = ~np.isin(values, NO_VALUE)
    names = values if of == "attribute" else np.array([f"{class_names[label]} / {value}" for label, value in zip(labels.tolist(), values)], str)
    groups = np.full(len(values), -1)
    found, groups[there] = np.unique(names[there], return_inverse=True)
    return groups, found.tolist()
