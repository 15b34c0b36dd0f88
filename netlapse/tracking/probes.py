"""A probe as a file: what a record keeps, so that a network can be shown the same inputs when the data are gone."""

from __future__ import annotations

import numpy as np

from netlapse.tracking.folder import packed, unpacked
from netlapse.types import Findings, ProbeSet

PROBE = "probe.npz"


def to_bytes(probe: ProbeSet) -> bytes:
    """A probe as an npz file's bytes, the same each time: what a record keeps to be asked again later."""
    arrays = {"inputs": probe.inputs, "labels": probe.labels, "class_names": np.array(probe.class_names), "ids": np.asarray(probe.ids)}
    return packed(Findings(arrays | {f"attribute/{name}": values for name, values in probe.attributes.items()}))


def from_bytes(data: bytes) -> ProbeSet:
    """The inverse of `to_bytes`: a probe of the same hash. Raises ValueError for a file of a newer schema."""
    arrays = unpacked(data).arrays
    attributes = {name.removeprefix("attribute/"): values.astype(str) for name, values in arrays.items() if name.startswith("attribute/")}
    labels, ids = arrays["labels"].astype(np.int64), arrays["ids"].astype(str)
    return ProbeSet(arrays["inputs"], labels, tuple(arrays["class_names"].astype(str).tolist()), attributes, ids)
