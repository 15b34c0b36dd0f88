"""Pictures of what a group's inputs look like, to be shown beside its map."""

from __future__ import annotations

import re

import numpy as np

from netlapse.probe import by_attribute, by_label
from netlapse.recording import Recording
from netlapse.types import Array, Float64, Int64, ProbeSet


def example_inputs(probe: ProbeSet, groups: Int64, n_groups: int) -> Float64:
    """(g, h, w, c) the first input of each group, in the order of the probe; NaN for a group without inputs.

    groups  (n,) the group of each input, as a grouping of `netlapse.probe` gives it

    Raises ValueError for inputs that are no images (n, h, w, c) of 1 or 3 channels.
    """
    images = _images(probe)
    found = np.full((n_groups, *images.shape[1:]), np.nan)
    filled, first = np.unique(groups, return_index=True)
    found[filled] = images[first]
    return found


def mean_inputs(probe: ProbeSet, groups: Int64, n_groups: int) -> Float64:
    """(g, h, w, c) the mean over the inputs of each group; NaN for a group without inputs. Arguments and errors as of `example_inputs`."""
    images = _images(probe)
    found = np.full((n_groups, *images.shape[1:]), np.nan)
    for group in np.unique(groups):
        found[group] = images[groups == group].mean(axis=0, dtype=np.float64)
    return found


def groups_of(recording: Recording, probe: ProbeSet) -> tuple[Int64, tuple[str, ...]]:
    """The group of each input (n,) of the recording's probe and the groups' names, where groups are by label or by attributes.

    Groups by outcome, confusion or confidence follow the network's predictions, which a record does not keep for all inputs.
    Raises ValueError for those, saying what to do, and for a probe that is not the recording's.
    """
    about = recording.manifest.get("probe")
    known = about if isinstance(about, dict) else {}
    if known.get("hash") not in (None, probe.hash):
        raise ValueError("the probe is not the one of this recording: its hash is another; take the probe that the record keeps")
    grouping = str(known.get("grouping"))
    if grouping == "by_label":
        return by_label(probe)
    if attributes := re.fullmatch(r"by_attribute\((.*)\)", grouping):
        return by_attribute(*attributes[1].split(", "))(probe)
    raise ValueError(
        f"which inputs are in which group is not known from the record for the grouping {grouping!r}; ask the network, as in "
        "groups, names = by_outcome(probe, network.outputs(probe.inputs)), and pass inputs=mean_inputs(probe, groups, len(names))"
    )


def _images(probe: ProbeSet) -> Array:
    if probe.inputs.ndim != 4 or probe.inputs.shape[3] not in (1, 3):
        raise ValueError(
            f"the probe's inputs have shape {probe.inputs.shape}, which are no images; expected (n, h, w, c) with 1 or 3 channels. Leave inputs out"
        )
    return probe.inputs
