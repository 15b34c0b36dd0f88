"""The numbers of a method's maps that cost the network passes, by name, each with its null."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from netlapse.analysis.onepass import Method
from netlapse.analysis.saliency.faithfulness import (
    area,
    average_drop,
    distance_to_others,
    faithfulness_correlation,
    perturbation_curves,
    random_maps,
    sensitivity,
)
from netlapse.types import Array, Float32, Float64, Int64, Network

MEASURES = ("deletion", "insertion", "average_drop", "faithfulness", "sensitivity")
"""The areas under `perturbation_curves`, `average_drop`, `faithfulness_correlation`, `sensitivity`."""

STEPS = 10
"""Of the perturbation curves."""


def measured(names: Sequence[str], network: Network, inputs: Array, classes: Int64, maps: Float32, method: Method, batch_size: int) -> Float64:
    """(number of names, n) the measures of maps (n, h, w) that this method made, at the inputs' resolution."""
    found = _of_maps(names, network, inputs, classes, maps, batch_size)
    if "sensitivity" in names:
        found["sensitivity"] = sensitivity(network, inputs, classes, method, maps=maps)
    return np.stack([found[name] for name in names])


def measured_null(names: Sequence[str], network: Network, inputs: Array, classes: Int64, batch_size: int) -> Float64:
    """(number of names, n) the same of random maps, whatever the method; NaN for sensitivity, whose null are other inputs' maps."""
    found = _of_maps(names, network, inputs, classes, random_maps(inputs.shape[:3]), batch_size)
    return np.stack([found.get(name, np.full(len(inputs), np.nan)) for name in names])


def null_of(name: str, maps: Float32, random: Float64) -> Float64:
    """(n,) the null of a measure of maps, given that of random maps."""
    return distance_to_others(maps) if name == "sensitivity" else random


def _of_maps(names: Sequence[str], network: Network, inputs: Array, classes: Int64, maps: Float32, batch_size: int) -> dict[str, Float64]:
    found: dict[str, Float64] = {}
    if {"deletion", "insertion"} & set(names):
        shares, deletion, insertion = perturbation_curves(network, inputs, classes, maps, steps=STEPS, batch_size=batch_size)
        found |= {"deletion": area(shares, deletion), "insertion": area(shares, insertion)}
    if "average_drop" in names:
        found["average_drop"] = average_drop(network, inputs, classes, maps, batch_size=batch_size)
    if "faithfulness" in names:
        found["faithfulness"] = faithfulness_correlation(network, inputs, classes, maps, batch_size=batch_size)
    return found
