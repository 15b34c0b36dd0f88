"""What every source of data hands over, checked once, so that training, probing and pictures may trust it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
Strings = NDArray[np.str_]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled inputs to train on, and others to test on.

    name              what pictures and reports call it
    *_inputs          (n, h, w, c) float32 images in [0, 1], channels-last; or (n, f) float32 vectors, any finite numbers
    *_labels          (n,) int64, indices into class_names
    class_names       one distinct name per class
    *_attributes      name -> (n,) strings, the same names in both parts
    *_ids             (n,) strings, distinct over both parts; None when the source has none

    Raises ValueError for a wrong shape or length, integer pixels, images outside [0, 1], NaN or infinity, labels or
    names out of order, attributes of one part only, and an id that occurs twice.
    """

    name: str
    train_inputs: Float32
    train_labels: Int64
    test_inputs: Float32
    test_labels: Int64
    class_names: Sequence[str]
    train_attributes: Mapping[str, Strings] = field(default_factory=dict)
    test_attributes: Mapping[str, Strings] = field(default_factory=dict)
    train_ids: Strings | None = None
    test_ids: Strings | None = None

    def __post_init__(self) -> None:
        names = tuple(str(name) for name in self.class_names)
        repeated = sorted({name for name in names if names.count(name) > 1})
        if len(names) < 2 or repeated:
            raise ValueError(f"data set {self.name!r} has {len(names)} class names, repeated {repeated}; expected two or more, all distinct")
        object.__setattr__(self, "class_names", names)
        for part in ("train", "test"):
            self._check(part)
        if self.test_inputs.shape[1:] != self.input_shape:
            raise ValueError(
                f"data set {self.name!r}: each test input has shape {self.test_inputs.shape[1:]} and each train input {self.input_shape}; "
                "expected the same"
            )
        if set(self.train_attributes) != set(self.test_attributes):
            raise ValueError(
                f"data set {self.name!r}: train attributes are {sorted(self.train_attributes)}, test attributes {sorted(self.test_attributes)}; "
                "expected the same names in both parts"
            )
        if (self.train_ids is None) != (self.test_ids is None):
            raise ValueError(f"data set {self.name!r} has ids in one part only; give both train_ids and test_ids, or neither")
        if self.train_ids is not None and self.test_ids is not None:
            ids, counts = np.unique(np.concatenate([self.train_ids, self.test_ids]), return_counts=True)
            if len(ids) < counts.sum():
                raise ValueError(
                    f"data set {self.name!r}: ids {ids[counts > 1][:3].tolist()} occur more than once; expected distinct ids over train and test"
                )

    def _check(self, part: str) -> None:
        who = f"data set {self.name!r}: {part}"
        inputs, labels = np.asarray(getattr(self, f"{part}_inputs")), np.asarray(getattr(self, f"{part}_labels"))
        if inputs.ndim not in (2, 4) or inputs.size == 0:
            raise ValueError(f"{who} inputs have shape {inputs.shape}; expected images (n, h, w, c) or vectors (n, f), with n >= 1")
        if not np.issubdtype(inputs.dtype, np.floating):
            raise ValueError(f"{who} inputs have dtype {inputs.dtype}; expected float32: pixels from 0 to 255 are divided by 255 first")
        low, high = float(inputs.min()), float(inputs.max())  # NaN where any value is
        if not np.isfinite([low, high]).all():
            bad = np.flatnonzero(~np.isfinite(inputs).reshape(len(inputs), -1).all(axis=1))
            raise ValueError(f"{who} inputs hold NaN or infinity in {len(bad)} of {len(inputs)} inputs, first at index {bad[0]}")
        if inputs.ndim == 4 and (low < 0 or high > 1):
            raise ValueError(
                f"{who} images range from {low:g} to {high:g}; expected 0 to 1: divide pixels by 255, "
                "and leave standardisation to the network's first layer"
            )
        if labels.shape != (len(inputs),) or not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(f"{who} labels have shape {labels.shape} and dtype {labels.dtype}; expected ({len(inputs)},) integers, one per input")
        outside = np.unique(labels[(labels < 0) | (labels >= self.n_classes)])
        if len(outside):
            raise ValueError(
                f"{who} labels hold {outside[:5].tolist()}; allowed are 0 to {self.n_classes - 1}, for the classes {list(self.class_names)[:12]}"
            )
        attributes = {str(key): np.asarray(values).astype(str) for key, values in getattr(self, f"{part}_attributes").items()}
        ids = getattr(self, f"{part}_ids")
        ids = None if ids is None else np.asarray(ids).astype(str)
        for what, values in [*((f"attribute {key!r}", values) for key, values in attributes.items()), *([] if ids is None else [("ids", ids)])]:
            if values.shape != labels.shape:
                raise ValueError(f"{who} {what} has shape {values.shape}; expected {labels.shape}, one value per input")
        checked = {"inputs": inputs.astype(np.float32, copy=False), "labels": labels.astype(np.int64), "attributes": attributes, "ids": ids}
        for key, value in checked.items():
            object.__setattr__(self, f"{part}_{key}", value)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(h, w, c), or (f,) for vectors."""
        return self.train_inputs.shape[1:]

    @property
    def n_classes(self) -> int:
        return len(self.class_names)


def stratified_split(labels: Int64, test_fraction: float, seed: int, class_names: Sequence[str]) -> tuple[Int64, Int64]:
    """Train and test indices, each ascending, that share every class out in the same proportion.

    Of a class with m examples, round(test_fraction * m) go to the test part, at least one and at most m - 1; which ones
    the seed decides.

    Raises ValueError for a fraction outside (0, 1) and for a class with fewer than two examples.
    """
    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction is {test_fraction}; expected a number between 0 and 1, both excluded")
    rng = np.random.default_rng(seed)
    test = []
    for label, name in enumerate(class_names):
        members = np.flatnonzero(labels == label)
        if len(members) < 2:
            raise ValueError(
                f"class {name!r} has {len(members)} example(s); a split needs two or more, "
                "one to train on and one to test on: add examples or remove the class"
            )
        test.append(rng.permutation(members)[: min(max(round(test_fraction * len(members)), 1), len(members) - 1)])
    test_indices = np.sort(np.concatenate(test)).astype(np.int64)
    return np.setdiff1d(np.arange(len(labels)), test_indices), test_indices
