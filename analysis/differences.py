"""Where on a layer's map groups of an attribute are told apart: their profiles beside those of their classes, over the layout of the units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from netlapse.field import Kind, fields, interpolation
from netlapse.render.maps import maps_row
from netlapse.types import Float64, Int64, ProbeSet, Snapshot, UInt8

LIMIT = 1.0
"""Standard deviations within classes, at full colour, at every step: of two groups of equal size none can differ more."""

LEAST = 10
"""Inputs of a group, below which it has no map."""


def attributes_of(probe: ProbeSet, by: Sequence[str] | str) -> tuple[str, ...]:
    """The attributes that are named, or "all" of them; raises ValueError, with those there are, for others."""
    if by == "all":
        return tuple(probe.attributes)
    if isinstance(by, str) or (unknown := [name for name in by if name not in probe.attributes]):
        raise ValueError(
            f"maps by attribute were asked for {by!r}; expected 'all', or a list of attributes of the probe, which has "
            f"{sorted(probe.attributes) or 'none'}" + ("" if isinstance(by, str) else f" and not {unknown}")
        )
    return tuple(by)


def difference_maps(
    snapshot: Snapshot, by: Sequence[str] | str, places: Mapping[str, tuple[Float64, int]], resolution: int, kind: Kind, colours: str
) -> dict[str, UInt8]:
    """`topomap_by/<attribute>/<layer>` -> a row of maps, one for each group of the attribute, of `group_differences` over a layer's places.

    places  layer -> positions (u, 2) and the step they are made from; layers without any have no picture

    Groups of fewer than 10 inputs have no map and, as inputs without a value, no part in any. Units that never deviate from
    their class's mean have no part in a map, and are dots. Zero is white, the colours reach to 1 standard deviation.
    Raises ValueError for attributes that the probe has not got.
    """
    from netlapse.analysis.fairness.representation import group_differences, within_classes  # with it comes scikit-learn, which takes a second

    pictures: dict[str, UInt8] = {}
    for name in attributes_of(snapshot.probe, by):
        groups, names, sizes = _groups(snapshot.probe, name)
        looked = (groups >= 0) & (sizes[np.maximum(groups, 0)] >= LEAST)
        if not looked.any():
            continue
        for layer, (positions, made) in places.items():
            deviations = within_classes(snapshot.responses[layer][looked], snapshot.probe.labels[looked])
            varies = deviations.any(axis=0)
            title = f"{layer} by {name}, within classes \u00b7 step {snapshot.step}, layout of step {made}"
            maps = np.full((len(names), resolution, resolution), np.nan)
            if varies.any():
                values = group_differences(deviations[:, varies], groups[looked], len(names))
                maps = fields(interpolation(positions[varies], resolution, kind), values)
            pictures[f"topomap_by/{name}/{layer}"] = maps_row(
                maps, names, sizes.tolist(), LIMIT, title, "standard deviations within classes", colours, least=LEAST, dots=positions[~varies]
            )
    return pictures


def _groups(probe: ProbeSet, name: str) -> tuple[Int64, list[str], Int64]:
    """(n,) each input's group, -1 without a value; the groups' names, sorted, and their sizes."""
    from netlapse.analysis.fairness.grouping import NO_VALUE

    values = np.asarray(probe.attributes[name]).astype(str)
    there = ~np.isin(values, NO_VALUE)
    groups = np.full(len(values), -1)
    names, groups[there], sizes = np.unique(values[there], return_inverse=True, return_counts=True)
    return groups, [str(one) for one in names], sizes.astype(np.int64)
