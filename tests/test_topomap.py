"""Laws of topographic maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.interpolate import griddata
from torch import nn

from netlapse.analysis.nap import scale, separability
from netlapse.analysis.quality import motion
from netlapse.analysis.topomap import interpolate, topomap
from netlapse.backends.torch import TorchNetwork
from netlapse.render import maps_row
from netlapse.types import Float64, ProbeSet, Snapshot


def test_a_map_is_the_linear_interpolation_of_the_units_values():
    rng = np.random.default_rng(0)
    positions, values = rng.random((40, 2)), rng.normal(size=(3, 40))
    steps = (np.arange(30) + 0.5) / 30
    x, y = np.meshgrid(steps, 1 - steps)
    maps = interpolate(positions, values, 30)
    for one, value in zip(maps, values):
        np.testing.assert_allclose(one, griddata(positions, value, (x, y), method="linear"), atol=1e-12)


def test_maps_have_100_pixels_a_side_unless_told_otherwise():
    positions = np.array([[0.0, 0], [1, 0], [0, 1], [1, 1]])
    assert interpolate(positions, np.zeros((2, 4))).shape == (2, 100, 100)
    assert interpolate(positions, np.zeros((2, 4)), 7).shape == (2, 7, 7)
    assert interpolate(positions, np.zeros((2, 4), np.float32)).dtype == np.float64


def test_the_first_row_of_a_map_is_the_top():
    positions = np.array([[0.0, 0], [1, 0], [0, 1], [1, 1]])
    (shown,) = interpolate(positions, np.array([[0.0, 0, 0, 1]]), 10)
    assert shown[0, -1] == shown.max()
    assert shown[-1, 0] == shown.min()


def test_an_empty_group_has_an_empty_map():
    positions = np.array([[0.0, 0], [1, 0], [0, 1], [1, 1]])
    maps = interpolate(positions, np.array([[np.nan] * 4, [1.0] * 4]), 10)
    assert np.isnan(maps[0]).all()
    np.testing.assert_allclose(maps[1], 1)


def test_interpolate_says_what_is_wrong():
    with pytest.raises(ValueError, match=r"values have shape \(4,\); expected \(g, 4\)"):
        interpolate(np.array([[0.0, 0], [1, 0], [0, 1], [1, 1]]), np.zeros(4))


# ---- the analysis ----------------------------------------------------------------------------------------------------


def network(weights: Float64) -> TorchNetwork:
    """One hidden layer whose profile over the two one-hot inputs is the weights (2, u) themselves."""
    hidden, head = nn.Linear(2, weights.shape[1], bias=False), nn.Linear(weights.shape[1], 2)
    hidden.weight.data = torch.tensor(weights.T, dtype=torch.float32)
    return TorchNetwork(nn.Sequential(hidden, nn.ReLU(), head))


def snapshot(weights: Float64, step: int = 0, classes: tuple[str, ...] = ("a", "b")) -> Snapshot:
    return Snapshot(network(weights), ProbeSet(np.eye(2, dtype=np.float32), np.array([0, 1]), classes), step)


WEIGHTS = np.random.default_rng(0).random((2, 12)).astype(np.float32).astype(np.float64)


def test_what_is_drawn_is_the_contrast_in_standard_deviations_of_the_layer_and_nothing_else() -> None:
    found = topomap(snapshot(WEIGHTS), None)
    contrast = WEIGHTS - WEIGHTS.mean(axis=0)
    np.testing.assert_allclose(found.arrays["contrast/1"], contrast, atol=1e-7)  # float32 activations
    deviation = np.sqrt(((WEIGHTS - WEIGHTS.mean(axis=0)) ** 2).mean())
    fields = interpolate(np.asarray(found.arrays["positions/1"], np.float64), contrast / deviation, 64)
    expected = maps_row(fields, ("a", "b"), (1, 1), 2.0, "1 · 12 units · step 0, layout of step 0", "standard deviations of the layer")
    # Rounding of the activations may move a pixel across the border between two of 254 colours.
    assert np.mean(np.any(found.images["topomap/1"] != expected, axis=2)) < 1e-3


def test_the_mean_square_of_a_map_is_the_layers_separability() -> None:
    shot = snapshot(WEIGHTS)
    values = np.asarray(topomap(shot, None).arrays["contrast/1"], np.float64) / scale(shot.statistics, "1")
    np.testing.assert_allclose((values**2).mean(), separability(shot.statistics, "1"))


def test_a_layer_twice_as_active_gives_the_same_picture() -> None:
    once, twice = topomap(snapshot(WEIGHTS), None), topomap(snapshot(2 * WEIGHTS), None)
    np.testing.assert_array_equal(once.images["topomap/1"], twice.images["topomap/1"])


def test_units_stay_near_where_they_were() -> None:
    first = topomap(snapshot(WEIGHTS), None)
    near = WEIGHTS + 0.01 * np.random.default_rng(1).random(WEIGHTS.shape)
    calm, anew = topomap(snapshot(near, 1), first), topomap(snapshot(near[:, ::-1].copy(), 1), None)
    assert "layout/motion/1" not in first.scalars
    assert calm.scalars["layout/motion/1"] == motion(
        np.asarray(calm.arrays["positions/1"], np.float64), np.asarray(first.arrays["positions/1"], np.float64)
    )
    assert calm.scalars["layout/motion/1"] < motion(
        np.asarray(anew.arrays["positions/1"], np.float64), np.asarray(first.arrays["positions/1"], np.float64)
    )


def test_a_group_without_inputs_changes_no_layout_and_is_drawn_as_missing() -> None:
    with_empty, without = topomap(snapshot(WEIGHTS, classes=("a", "b", "nobody")), None), topomap(snapshot(WEIGHTS), None)
    np.testing.assert_array_equal(with_empty.arrays["positions/1"], without.arrays["positions/1"])
    assert np.isnan(with_empty.arrays["contrast/1"][2]).all()
    assert np.isfinite(with_empty.arrays["contrast/1"][:2]).all()


def test_a_dead_layer_is_drawn_as_missing_and_ends_nothing() -> None:
    found = topomap(snapshot(-WEIGHTS), None)
    assert not found.arrays["contrast/1"].any()
    assert found.images["topomap/1"].shape == topomap(snapshot(WEIGHTS), None).images["topomap/1"].shape


@pytest.mark.parametrize("units", [1, 2, 3])
def test_layers_of_very_few_units_are_drawn(units: int) -> None:
    found = topomap(snapshot(WEIGHTS[:, :units]), None)
    assert found.arrays["positions/1"].shape == (units, 2)
    assert "storyboard" in found.images


def test_a_picture_of_one_step_says_which_step_and_layout_it_is_of() -> None:
    found = topomap(snapshot(WEIGHTS, 7), None)
    assert int(found.arrays["layout_step/1"]) == 7
    assert not np.array_equal(found.images["storyboard"], topomap(snapshot(WEIGHTS, 8), None).images["storyboard"])
