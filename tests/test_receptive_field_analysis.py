"""Laws of the analysis of receptive fields: its numbers, what it says over time, its picture, and fields upon images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from netlapse.analysis.receptive_field import (
    discrepancy_maps,
    effective_fields,
    purity_by_chance,
    receptive_field,
    receptive_fields,
    region,
    resampled,
    segmentation,
    top_images,
)
from netlapse.backends.torch import TorchNetwork
from netlapse.render.montage import OUTLINE, UnitRow, montage, reduced
from netlapse.types import Findings, Float32, ProbeSet, Snapshot, UInt8
from tests.test_parity import SAME, cnn, with_the_same_weights
from tests.test_receptive_field import images, one_unit, small

LABELS = np.arange(30) % 3


def probe(n: int = 30) -> ProbeSet:
    return ProbeSet(images(n), LABELS[:n], ("a", "b", "c"))


def found(network: TorchNetwork, previous: Findings | None = None, step: int = 0, **options: object) -> Findings:
    return receptive_field(Snapshot(network, probe(), step, layers=["1", "4", "6"]), previous, occluder=4, stride=3, k=4, **options)  # type: ignore[arg-type]


def test_fields_are_those_of_the_function_and_the_layers_the_spatial_ones() -> None:
    network = small()
    findings = found(network, fill=0.25)
    for layer in ("1", "4"):
        expected = receptive_fields(network, probe().inputs, layer, k=4, occluder=4, stride=3, fill=0.25)
        np.testing.assert_allclose(findings.arrays[f"fields/{layer}"], expected.fields, atol=1e-6)
        np.testing.assert_array_equal(findings.arrays[f"top/{layer}"], expected.inputs)
        np.testing.assert_array_equal(findings.arrays[f"top_positions/{layer}"], expected.positions)
        assert findings.scalars[f"receptive_field/area/{layer}"] == np.median(findings.arrays[f"area/{layer}"])
        assert findings.images[f"receptive_field/{layer}"].dtype == np.uint8
    np.testing.assert_array_equal(findings.arrays["theory/1"], [[3, 1, 0], [3, 1, 0]])
    np.testing.assert_array_equal(findings.arrays["theory/4"], [[6, 2, 0], [6, 2, 0]])
    assert not [name for name in findings.arrays if name.endswith("/6")]


def test_purity_and_class_are_counted_and_stability_is_the_share_that_stays() -> None:
    network = small()
    first = found(network, fields=False)
    assert not [name for name in first.arrays if name.startswith("fields/")]
    assert not first.images
    for layer in ("1", "4"):
        inputs = first.arrays[f"top/{layer}"]
        for unit, row in enumerate(LABELS[inputs]):
            counts = [int((row == label).sum()) for label in range(3)]
            assert first.arrays[f"purity/{layer}"][unit] == max(counts) / 4
            assert first.arrays[f"class/{layer}"][unit] == counts.index(max(counts))
        assert np.isnan(first.arrays[f"stability/{layer}"]).all()
    later = found(small(seed=1), first, step=5, fields=False)
    for layer in ("1", "4"):
        for unit, (now, then) in enumerate(zip(later.arrays[f"top/{layer}"], first.arrays[f"top/{layer}"])):
            assert later.arrays[f"stability/{layer}"][unit] == len(set(now) & set(then)) / 4
            same = later.arrays[f"class/{layer}"][unit] == first.arrays[f"class/{layer}"][unit]
            assert later.arrays[f"since/{layer}"][unit] == (0 if same else 5)
        assert later.scalars[f"receptive_field/stability_null/{layer}"] == 4 / 30
    same = found(network, first, step=7, fields=False)
    assert same.scalars["receptive_field/stability/4"] == 1
    np.testing.assert_array_equal(same.arrays["since/4"], 0)


def test_purity_by_chance_is_what_draws_without_return_give() -> None:
    """Of 2 inputs of 2 equally frequent labels of 30, both have one label in 14 of 29 cases."""
    assert purity_by_chance(np.arange(30) % 2, 2) == pytest.approx(14 / 29 + 0.5 * 15 / 29, abs=0.04)
    assert purity_by_chance(np.zeros(5, int), 3) == 1
    assert purity_by_chance(np.arange(5), 9) == 1 / 5


def test_a_dead_unit_has_no_class_no_field_and_no_images() -> None:
    network = small()
    with torch.no_grad():
        network.module[0].bias[2] = -1e3
    findings = found(network)
    assert findings.arrays["class/1"][2] == -1
    assert np.isnan(findings.arrays["purity/1"][2])
    assert np.isnan(findings.arrays["fields/1"][2]).all()
    assert findings.scalars["receptive_field/dead/1"] == pytest.approx(1 / 6)
    assert np.isfinite(findings.scalars["receptive_field/diameter/1"])


def test_segmented_pictures_are_faint_outside_of_what_the_unit_picks_out(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[list[UnitRow]] = []

    def kept(rows: list[UnitRow], *words: str) -> UInt8:
        drawn.append(rows)
        return montage(rows, *words)

    monkeypatch.setattr("netlapse.analysis.receptive_field.analysis.montage", kept)
    network = small()
    found(network, segmented=True)
    result = receptive_fields(network, probe().inputs, "4", k=4, occluder=4, stride=3, fill="mean")
    lowest = probe().inputs.min()
    for unit, row in enumerate(drawn[1]):
        for rank, image in enumerate(result.inputs[unit]):
            original = probe().inputs[image]
            inside = segmentation(network.activations(original[None], ["4"])["4"][0, ..., unit], result, unit, (12, 10))
            np.testing.assert_array_equal(row.outlines[rank], inside)
            np.testing.assert_array_equal(row.images[rank][inside], original[inside])
            np.testing.assert_allclose(row.images[rank][~inside], lowest + 0.35 * (original[~inside] - lowest), atol=1e-6)
            assert inside.any()


def test_a_limit_spreads_the_units_that_have_a_field() -> None:
    findings = found(small(), limit_units=3)
    np.testing.assert_array_equal(findings.arrays["units/1"], [0, 2, 5])
    everything = found(small())
    np.testing.assert_allclose(findings.arrays["fields/1"], everything.arrays["fields/1"][[0, 2, 5]], atol=1e-6)
    assert len(findings.arrays["top/1"]) == 6


def test_what_cannot_be_is_refused_before_training() -> None:
    check = receptive_field.check  # type: ignore[attr-defined]
    snapshot = Snapshot(small(), probe(), 0, layers=["1", "4", "6"])
    with pytest.raises(ValueError, match=r"layer '6' is not spatial"):
        check(snapshot, layers=["6"])
    with pytest.raises(ValueError, match=r"layers \['2'\]; this run observes \['1', '4', '6'\]"):
        check(snapshot, layers=["2"])
    with pytest.raises(ValueError, match=r"13 pixels wide; expected 1 to 10"):
        check(snapshot, occluder=13)
    with pytest.raises(ValueError, match="k=0"):
        check(snapshot, k=0)
    with pytest.raises(ValueError, match=r"no observed layer has positions.*\['6'\]"):
        check(replace(snapshot, layers=["6"]))
    vectors = ProbeSet(np.zeros((4, 3), np.float32), np.zeros(4, int))
    with pytest.raises(ValueError, match=r"need images \(n, h, w, c\).*\(4, 3\)"):
        check(Snapshot(TorchNetwork(nn.Sequential(nn.Linear(3, 2))), vectors, 0))


def test_the_effective_field_of_a_linear_unit_is_the_size_of_its_weights() -> None:
    weights = np.array([[1.0, -2.0, 3.0], [0.5, 0.0, -1.0], [4.0, 2.0, 1.0]])
    network, shown = one_unit(weights), images(10, 9, 9)
    _, indices, positions = top_images(network, shown, "0", 3)
    field = effective_fields(network, shown, "0", [0], indices, positions)[0]
    np.testing.assert_allclose(field[7:10, 7:10], np.abs(weights), rtol=1e-6)
    outside = field.copy()
    outside[7:10, 7:10] = 0
    assert np.nanmax(outside) == 0


def test_the_effective_field_averages_the_gradients_of_the_top_images() -> None:
    network, shown = small(), images(10)
    _, indices, positions = top_images(network, shown, "4", 2)
    units = [1, 3]
    fields = effective_fields(network, shown, "4", units, indices[units], positions[units], batch_size=3)
    for row, unit in enumerate(units):
        total, count = np.zeros((23, 19)), np.zeros((23, 19))
        for image, (i, j) in zip(indices[unit], positions[unit]):
            cotangent = np.zeros((1, *network.activations(shown[:1], ["4"])["4"].shape[1:3], 5))
            cotangent[0, i, j, unit] = 1
            gradient = np.abs(network.vjp(shown[image][None], "4", cotangent, ["input"])["input"][0, ..., 0])
            # The unit sees 6 x 6 pixels from 2 i on: its middle is between pixels, so four neighbours share.
            y, x = 2 * i + 2.5, 2 * j + 2.5
            for dy in range(-11, 12):
                for dx in range(-9, 10):
                    if 0 <= y + dy <= 11 and 0 <= x + dx <= 9:
                        a, b = int(y + dy), int(x + dx)
                        total[dy + 11, dx + 9] += gradient[a : a + 2, b : b + 2].mean()
                        count[dy + 11, dx + 9] += 1
        with np.errstate(invalid="ignore"):
            np.testing.assert_allclose(fields[row], total / count, atol=1e-6)


def test_a_region_holds_what_is_at_least_a_share_of_the_highest_and_known() -> None:
    values = np.array([[0.2, 0.6, np.nan], [-9.0, 1.0, 0.4], [0.5, 0.0, 0.5]], np.float32)
    middle = np.array([2.0, 2.0])
    inside = region(values, 1, middle, (5, 5))
    np.testing.assert_array_equal(np.argwhere(inside), [[1, 2], [2, 2], [3, 1], [3, 3]])
    np.testing.assert_array_equal(np.argwhere(region(values, 1, middle, (5, 5), 0.55)), [[1, 2], [2, 2]])
    shown = resampled(values, 1, middle, (5, 5))
    np.testing.assert_array_equal(shown[1:4, 1:4], values)
    assert np.isnan(shown).sum() == 25 - 8
    # Two pixels to a place: each has that of the nearest one.
    np.testing.assert_array_equal(resampled(values, 2, np.array([2.5, 2.5]), (6, 6)), values.repeat(2, axis=0).repeat(2, axis=1))


def test_a_region_lies_where_the_unit_is_and_a_segmentation_at_every_strong_position() -> None:
    weights = np.zeros((3, 3))
    weights[0, 2] = 1.0  # it sees one pixel, up and right of its middle
    network = one_unit(weights)
    shown = np.abs(images(8, 9, 9))
    result = receptive_fields(network, shown, "0", k=2, occluder=1, stride=1)
    expected = np.zeros((9, 9), bool)
    expected[3, 6] = True
    np.testing.assert_array_equal(region(result.fields[0], 1, np.array([4.0, 5.0]), (9, 9)), expected)
    activation = np.zeros((7, 7), np.float32)
    activation[0, 0], activation[5, 2], activation[3, 3] = 1.0, 0.6, 0.4
    mask = segmentation(activation, result, 0, (9, 9), threshold=0.5)
    np.testing.assert_array_equal(np.argwhere(mask), [[0, 2], [5, 4]])
    assert not segmentation(np.zeros((7, 7), np.float32), result, 0, (9, 9)).any()


def row(images: Float32, **options: object) -> UnitRow:
    inside = np.zeros(images.shape[:3], bool)
    inside[:, 2:5, 3:6] = True
    return UnitRow("unit 3", ["half are 1"], images.astype(np.float64), inside, np.full(images.shape[1:3], 0.5), **options)  # type: ignore[arg-type]


def test_the_outline_goes_around_the_field_and_nowhere_else() -> None:
    """Images of 8 pixels are drawn 11 times as large: a square of 3 has a ring of two pixels around its 33."""
    picture = montage([row(np.zeros((2, 8, 8, 1), np.float32))], "title")
    orange = (picture == OUTLINE).all(axis=2)
    assert orange.sum() == 2 * (35**2 - 4 - 31**2)  # corners are cut: neighbours share an edge
    blank = montage([replace(row(np.zeros((2, 8, 8, 1), np.float32)), outlines=np.zeros((2, 8, 8), bool))], "title")
    assert not (blank == OUTLINE).all(axis=2).any()
    with pytest.raises(ValueError, match="at least one row"):
        montage([], "title")


def test_large_images_are_reduced_by_means() -> None:
    image = np.random.default_rng(0).normal(size=(7, 9, 3))
    small_one = reduced(image, 4)
    assert small_one.shape == (2, 3, 3)
    np.testing.assert_allclose(small_one[0, 0], image[:4, :4].mean(axis=(0, 1)))
    np.testing.assert_allclose(small_one[1, 2], image[4:, 8:].mean(axis=(0, 1)))
    assert montage([row(np.zeros((3, 224, 224, 3), np.float32))], "title").shape[1] < 900


def test_the_same_weights_in_keras_have_the_same_fields_and_maps() -> None:
    a, b = with_the_same_weights(*cnn())
    shown = np.random.default_rng(1).normal(size=(12, 8, 8, 3)).astype(np.float32)
    layers = [name for name in a.layers if len(a.activations(shown[:1], [name])[name].shape) == 4]
    assert len(layers) >= 4
    for layer in layers:
        expected = receptive_fields(a, shown, layer, k=3, occluder=2, stride=1)
        found = receptive_fields(b, shown, layer, k=3, occluder=2, stride=1)
        np.testing.assert_array_equal(found.inputs, expected.inputs)
        np.testing.assert_array_equal(found.positions, expected.positions)
        np.testing.assert_allclose(found.fields, expected.fields, **SAME)
        assert found.theory == expected.theory
        maps = [discrepancy_maps(network, shown[0], layer, occluder=3, stride=2, at="maximum") for network in (a, b)]
        np.testing.assert_allclose(maps[1], maps[0], **SAME)
