"""Laws of topographic maps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.interpolate import griddata
from torch import nn

from netlapse.analysis.layout import flas, pca, random
from netlapse.analysis.nap import scale, separability
from netlapse.analysis.quality import motion
from netlapse.analysis.topomap import Layout, interpolate, topomap
from netlapse.backends.torch import TorchNetwork
from netlapse.render.colours import palette
from netlapse.render.maps import maps_row
from netlapse.types import Findings, Float64, ProbeSet, Snapshot


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


def drawn(found: Findings) -> float:
    """The share of the picture of layer 1 that is blue or red: maps, without the colour bar."""
    picture = found.images["topomap/1"][:-40].astype(int)
    return float((np.ptp(picture, axis=2) > 40).mean())


def texts(monkeypatch: pytest.MonkeyPatch, shot: Snapshot, previous: Findings | None = None) -> tuple[str, object]:
    """The title over the maps of layer 1, and its row in the storyboard."""
    said: dict[str, object] = {}
    with monkeypatch.context() as patch:
        patch.setattr("netlapse.analysis.topomap.maps_row", lambda *args, **_: said.update(title=args[4]) or np.zeros((1, 1, 3), np.uint8))
        patch.setattr("netlapse.analysis.topomap.storyboard", lambda rows, *_: said.update(row=rows[-1][1]) or np.zeros((1, 1, 3), np.uint8))
        topomap(shot, previous)
    return str(said["title"]), said["row"]


def test_a_dead_layer_is_drawn_as_missing_and_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = topomap(snapshot(-WEIGHTS), None)
    assert not found.arrays["contrast/1"].any()
    assert drawn(found) == 0 < 0.05 < drawn(topomap(snapshot(WEIGHTS), None))
    said = "every unit responds alike to every input"
    assert texts(monkeypatch, snapshot(-WEIGHTS)) == (f"1 · 12 units · step 0: {said}", said)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_layer_that_is_not_finite_costs_no_other_layer_its_maps(value: float) -> None:
    broken, whole = network(WEIGHTS), topomap(replace(snapshot(WEIGHTS), layers=["0", "1", "2"]), None)
    broken.module[2].bias.data[1] = value
    shot = replace(snapshot(WEIGHTS), network=broken, layers=["0", "1", "2"])
    found = topomap(shot, None)
    for layer in ("0", "1"):
        np.testing.assert_array_equal(found.images[f"topomap/{layer}"], whole.images[f"topomap/{layer}"])
        np.testing.assert_array_equal(found.arrays[f"positions/{layer}"], whole.arrays[f"positions/{layer}"])
        np.testing.assert_equal(found.scalars[f"layout/trustworthiness/{layer}"], whole.scalars[f"layout/trustworthiness/{layer}"])
    assert not np.array_equal(found.images["storyboard"], whole.images["storyboard"])
    assert "positions/2" not in found.arrays
    assert np.isfinite(found.arrays["contrast/2"][:, 0]).all()
    assert np.isnan(found.arrays["contrast/2"][:, 1]).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("layout", [flas, pca, random])
def test_a_layer_keeps_its_layout_over_steps_at_which_it_is_not_finite(layout: Layout, value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = WEIGHTS.copy()
    broken[1, 3:5] = value
    first = lost = topomap(snapshot(WEIGHTS), None, layout=layout)
    for step in (1, 2):
        lost = topomap(snapshot(broken, step), lost, layout=layout)
        np.testing.assert_array_equal(lost.arrays["positions/1"], first.arrays["positions/1"])
        assert int(lost.arrays["layout_step/1"]) == 0
        assert np.isnan(lost.scalars["layout/trustworthiness/1"])
        assert lost.scalars["layout/motion/1"] == 0
        assert drawn(lost) == 0
    after, without = (topomap(snapshot(WEIGHTS[::-1].copy(), 3), previous, layout=layout) for previous in (lost, first))
    assert int(after.arrays["layout_step/1"]) == 3
    np.testing.assert_array_equal(after.arrays["positions/1"], without.arrays["positions/1"])
    assert after.scalars == without.scalars
    said = "2 of 12 units are not finite, first for input 0"
    assert texts(monkeypatch, snapshot(broken, 2), first) == (f"1 · 12 units · step 2: {said}", said)


def test_a_layer_that_was_never_finite_is_laid_out_once_it_is() -> None:
    lost = topomap(snapshot(np.full_like(WEIGHTS, np.nan)), None)
    assert np.isnan(lost.arrays["contrast/1"]).all()
    assert np.isnan(lost.scalars["layout/trustworthiness/1"])
    after, anew = topomap(snapshot(WEIGHTS, 1), lost), topomap(snapshot(WEIGHTS, 1), None)
    np.testing.assert_array_equal(after.arrays["positions/1"], anew.arrays["positions/1"])
    assert after.scalars == anew.scalars


@pytest.mark.parametrize("layout", [flas, pca, random])
@pytest.mark.parametrize("units", [1, 2, 3, 12])
@pytest.mark.parametrize("case", ["one input", "one class", "one class of many", "constant"])
def test_small_and_empty_probes_and_constant_layers_are_drawn_in_every_layout(case: str, units: int, layout: Layout) -> None:
    shot = snapshot(-WEIGHTS[:, :units] if case == "constant" else WEIGHTS[:, :units])
    if case != "constant":
        n = 1 if case == "one input" else 2
        names = ("a", "b", "c") if case == "one class of many" else ("a",)
        shot = replace(shot, probe=ProbeSet(np.eye(2, dtype=np.float32)[:n], np.full(n, len(names) - 1), names))
    found = topomap(shot, topomap(shot, None, layout=layout), layout=layout)
    assert found.arrays["positions/1"].shape == (units, 2)
    assert found.images["topomap/1"].size


@pytest.mark.parametrize("units", [1, 2, 3])
def test_layers_of_very_few_units_are_drawn(units: int) -> None:
    found = topomap(snapshot(WEIGHTS[:, :units]), None)
    assert found.arrays["positions/1"].shape == (units, 2)
    assert "storyboard" in found.images


def test_a_picture_of_one_step_says_which_step_and_layout_it_is_of() -> None:
    found = topomap(snapshot(WEIGHTS, 7), None)
    assert int(found.arrays["layout_step/1"]) == 7
    assert not np.array_equal(found.images["storyboard"], topomap(snapshot(WEIGHTS, 8), None).images["storyboard"])


def test_colours_are_the_readers_choice_and_change_no_number() -> None:
    default, other = topomap(snapshot(WEIGHTS), None), topomap(snapshot(WEIGHTS), None, colours="purple_white_orange")
    np.testing.assert_array_equal(other.arrays["positions/1"], default.arrays["positions/1"])
    for key, picture in default.images.items():
        for level in {*range(201)} - {100}:  # white is also paper
            assert not ((picture == palette("purple_white_orange")[level]).all(axis=2)).any()
            np.testing.assert_array_equal(
                (picture == palette("blue_white_red")[level]).all(axis=2), (other.images[key] == palette("purple_white_orange")[level]).all(axis=2)
            )


def test_colours_that_are_not_there_are_refused_before_training() -> None:
    with pytest.raises(ValueError, match=r"no colours named 'jet'; there are \['blue_white_red'"):
        topomap.check(snapshot(WEIGHTS), colours="jet")  # type: ignore[attr-defined]


def test_a_layout_is_handed_the_positions_of_the_checkpoint_before() -> None:
    handed: list[Float64 | None] = []

    def listening(profiles: Float64, *, seed: int, previous: Float64 | None) -> Float64:
        handed.append(previous)
        return flas(profiles, seed=seed, previous=previous)

    first = topomap(snapshot(WEIGHTS), None, layout=listening)
    topomap(snapshot(WEIGHTS, 1), first, layout=listening)
    before, after = handed[: len(handed) // 2], handed[len(handed) // 2 :]
    assert all(previous is None for previous in before)
    layers = [name for name in first.arrays if name.startswith("positions/")]
    assert len(after) == len(layers) > 0
    for name, previous in zip(layers, after):
        np.testing.assert_array_equal(previous, first.arrays[name])
