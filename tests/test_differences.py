"""Laws of maps by attribute: each group's profile beside those of its classes, on the layout of the topomaps, on one scale at every step."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import nn

from netlapse.analysis import differences
from netlapse.analysis.fairness import fairness
from netlapse.analysis.topomap import interpolate, topomap
from netlapse.backends.torch import TorchNetwork
from netlapse.render.colours import BLUE_WHITE_RED
from netlapse.types import Array, ProbeSet, Snapshot

LAYER = "1"


def snapshot(step: int = 0, **attributes: Array) -> Snapshot:
    torch.manual_seed(step)
    network = TorchNetwork(nn.Sequential(nn.Linear(5, 24), nn.Tanh(), nn.Linear(24, 3)))
    inputs = np.random.default_rng(0).normal(size=(90, 5)).astype(np.float32)
    side = np.array(["left", "right"])[np.arange(90) // 3 % 2]
    inputs[side == "right"] += 0.8
    return Snapshot(network, ProbeSet(inputs, np.arange(90) % 3, ("a", "b", "c"), {"side": side, **attributes}), step)


def test_maps_are_the_group_differences_that_fairness_records_on_the_places_of_the_topomap(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(differences, "maps_row", lambda maps, names, counts, limit, *rest, **options: drawn.append((maps, names, counts, limit)))
    of = snapshot()
    places = topomap(of, None).arrays
    values = np.asarray(fairness(of, None, permutations=40, folds=0).arrays[f"by_group/side/{LAYER}"], np.float64)
    positions = np.asarray(places[f"positions/{LAYER}"], np.float64)
    differences.difference_maps(of, ["side"], {LAYER: (positions, 0)}, 32, "linear", BLUE_WHITE_RED)
    ((maps, names, counts, limit),) = drawn
    np.testing.assert_allclose(maps, interpolate(positions, values, 32), atol=1e-6)
    assert (names, counts, limit) == (["left", "right"], [45, 45], 1.0)
    np.testing.assert_allclose(maps[0], -maps[1], atol=1e-6)  # of two groups of equal size in every class
    assert np.nanmax(np.abs(maps)) > 0.3


def test_they_change_nothing_of_what_topomap_finds_but_for_the_pictures_and_go_on_from_the_same_places() -> None:
    plain, by, previous = None, None, None
    for step in range(2):
        plain, by = topomap(snapshot(step), plain), topomap(snapshot(step), previous, by="all")
        assert plain.arrays.keys() == by.arrays.keys()
        for name, values in plain.arrays.items():
            np.testing.assert_array_equal(values, by.arrays[name])
        assert by.scalars == plain.scalars
        layers = [name.removeprefix("positions/") for name in by.arrays if name.startswith("positions/")]
        assert LAYER in layers
        assert by.images.keys() - plain.images.keys() == {f"topomap_by/side/{layer}" for layer in layers}
        previous = by


def test_a_group_that_is_too_small_or_an_input_without_a_value_has_no_part(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(differences, "maps_row", lambda maps, names, counts, limit, *rest, **options: drawn.append((maps, names, counts)))
    few = np.repeat(["", "many", "other", "few"], [9, 12, 60, 9])
    of, places = snapshot(few=few), {LAYER: (np.random.default_rng(1).random((24, 2)), 0)}
    differences.difference_maps(of, ["few"], places, 16, "linear", BLUE_WHITE_RED)
    part = Snapshot(of.network, of.probe.take(np.flatnonzero(np.isin(few, ["many", "other"]))), 0)
    differences.difference_maps(part, ["few"], places, 16, "linear", BLUE_WHITE_RED)
    (maps, names, counts), (alone, *_) = drawn
    assert (names, counts) == (["few", "many", "other"], [9, 12, 60])
    assert np.isnan(maps[0]).all()
    np.testing.assert_array_equal(maps[1:], alone)
    assert np.nanmax(np.abs(maps[1])) > 0


@pytest.mark.parametrize("by", ["side", ["age"], ["side", "age"]])
def test_attributes_that_are_not_there_are_named_before_training(by: object) -> None:
    with pytest.raises(ValueError, match=re.escape("expected 'all', or a list of attributes of the probe, which has ['side']")):
        topomap.check(snapshot(), by=by)  # type: ignore[attr-defined]
