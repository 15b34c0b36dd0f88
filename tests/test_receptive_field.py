"""Laws of discrepancy maps and of receptive fields."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from netlapse.analysis.receptive_field import corners, discrepancy_maps, field_numbers, recentred, receptive_fields, top_images
from netlapse.analysis.receptive_field.fields import ReceptiveFields, centres, largest_diameter
from netlapse.backends.torch import TorchNetwork
from netlapse.types import Array, Field, Float32, Float64

RANDOM = np.random.default_rng(0)


def small(seed: int = 0, channels: int = 1) -> TorchNetwork:
    torch.manual_seed(seed)
    return TorchNetwork(
        nn.Sequential(nn.Conv2d(channels, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 5, 2), nn.ReLU(), nn.Flatten(), nn.Linear(60, 4))
    )


def images(n: int = 12, h: int = 12, w: int = 10, c: int = 1, seed: int = 0) -> Float32:
    return np.random.default_rng(seed).normal(size=(n, h, w, c)).astype(np.float32)


def one_unit(weights: Array) -> TorchNetwork:
    """A single convolution, without bias, padding or stride."""
    conv = nn.Conv2d(1, 1, weights.shape, bias=False)
    with torch.no_grad():
        conv.weight.copy_(torch.from_numpy(np.asarray(weights, np.float32)))
    return TorchNetwork(nn.Sequential(conv))


def by_definition(network: TorchNetwork, image: Float32, layer: str, occluder: int, hidden: Float32, at: str, places: list[list[int]]) -> Float64:
    """One occluder after another, one image at a time."""
    clean = network.activations(image[None], [layer])[layer][0]
    ys, xs = places
    found = np.empty((clean.shape[2], len(ys), len(xs)))
    for r, y in enumerate(ys):
        for c, x in enumerate(xs):
            covered = image.copy()
            for i in range(y, y + occluder):
                for j in range(x, x + occluder):
                    if 0 <= i < image.shape[0] and 0 <= j < image.shape[1]:
                        covered[i, j] = hidden[i, j]
            after = network.activations(covered[None], [layer])[layer][0]
            for u in range(clean.shape[2]):
                row, column = divmod(int(clean[..., u].argmax()), clean.shape[1])
                found[u, r, c] = clean[..., u].max() - (after[row, column, u] if at == "own" else after[..., u].max())
    return found


@pytest.mark.parametrize("at", ["own", "maximum"])
@pytest.mark.parametrize("layer", ["0", "1", "2", "4"])
def test_discrepancy_maps_are_those_of_the_definition(layer: str, at: str) -> None:
    network, image = small(), images(1)[0]
    expected = by_definition(network, image, layer, 4, np.full_like(image, 0.25), at, [[0, 3, 6], [0, 3, 6]])
    found = discrepancy_maps(network, image, layer, occluder=4, stride=3, fill=0.25, at=at, batch_size=4)  # type: ignore[arg-type]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.abs(expected).max() > 0.1
    chosen = discrepancy_maps(network, image, layer, units=[3, 1], occluder=4, stride=3, fill=0.25, at=at)  # type: ignore[arg-type]
    np.testing.assert_allclose(chosen, found[[3, 1]], atol=1e-6)


def test_with_borders_every_occluder_that_covers_a_pixel_takes_part() -> None:
    network, image = small(), images(1)[0]
    expected = by_definition(network, image, "1", 4, np.zeros_like(image), "own", [[-3, 0, 3, 6, 9], [-3, 0, 3, 6, 9]])
    np.testing.assert_allclose(discrepancy_maps(network, image, "1", occluder=4, stride=3, borders=True), expected, atol=1e-6)


@pytest.mark.parametrize("size", [7, 12])
def test_corners_are_all_multiples_of_the_stride_that_fit_or_cover_a_pixel(size: int) -> None:
    for occluder in range(1, 6):
        for stride in range(1, 6):
            multiples = range(-10 * stride, 30 * stride, stride)
            np.testing.assert_array_equal(corners(size, occluder, stride), [c for c in multiples if 0 <= c <= size - occluder])
            covering = [c for c in multiples if set(range(c, c + occluder)) & set(range(size))]
            np.testing.assert_array_equal(corners(size, occluder, stride, borders=True), covering)


def test_what_covers_is_a_colour_the_mean_noise_a_blur_or_an_image() -> None:
    image = images(1, c=3)[0] + np.array([1.0, 2.0, 3.0], np.float32)
    network = small(channels=3)

    def maps(fill: Array | float | str, seed: int = 0) -> Float32:
        return discrepancy_maps(network, image, "1", occluder=5, stride=2, fill=fill, seed=seed)

    np.testing.assert_allclose(maps("mean"), maps(np.broadcast_to(image.mean(axis=(0, 1)), image.shape)), atol=1e-6)
    np.testing.assert_allclose(maps(image), 0, atol=1e-5)  # nothing is hidden
    np.testing.assert_array_equal(maps("noise", 1), maps("noise", 1))
    assert np.abs(maps("noise", 1) - maps("noise", 2)).max() > 0.1
    even = np.broadcast_to(np.array([1.0, 2.0, 3.0], np.float32), image.shape)
    np.testing.assert_allclose(discrepancy_maps(network, even, "1", occluder=5, stride=2, fill="blur"), 0, atol=1e-5)
    assert np.abs(maps("blur")).max() > 0.1


def test_a_linear_unit_has_its_weights_times_its_top_image_as_its_field() -> None:
    """One pixel covered by 0 takes weight x pixel from the sum. The middle of the field is the unit's own position."""
    weights = RANDOM.normal(size=(3, 5))
    network, shown = one_unit(weights), images(20)
    found = receptive_fields(network, shown, "0", k=4, occluder=1, stride=1)
    expected = np.full((23, 19, 4), np.nan)
    for rank in range(4):
        row, column = found.positions[0, rank]
        picture = shown[found.inputs[0, rank], :, :, 0]
        effect = np.zeros_like(picture)
        effect[row : row + 3, column : column + 5] = weights * picture[row : row + 3, column : column + 5]
        y, x = row + 1, column + 2  # the pixel in the middle of what the unit sees
        expected[11 - y : 23 - y, 9 - x : 19 - x, rank] = effect
    with np.errstate(invalid="ignore"):
        mean = np.where(np.isnan(expected).all(axis=2), np.nan, np.nansum(expected, axis=2) / np.maximum((~np.isnan(expected)).sum(axis=2), 1))
    np.testing.assert_allclose(found.fields[0], mean, atol=1e-5)
    assert not found.dead.any()


def test_a_unit_that_looks_up_and_left_has_its_field_there() -> None:
    weights = np.zeros((5, 5))
    weights[0, 1] = 1.0
    found = receptive_fields(one_unit(weights), np.abs(images(20, 20, 20)), "0", k=5, occluder=1, stride=1)
    row, column = np.unravel_index(np.nanargmax(found.fields[0]), found.fields[0].shape)
    assert (row - 19, column - 19) == (-2, -1)
    numbers = field_numbers(found, (20, 20))
    assert numbers["offset"][0] == pytest.approx(np.hypot(2, 1))
    assert numbers["area"][0] == 1
    assert numbers["diameter"][0] == pytest.approx(2 / np.sqrt(np.pi))
    assert np.isnan(numbers["eccentricity"][0])
    assert numbers["ratio"][0] == pytest.approx(1 / 25)


def test_top_images_may_be_few_and_are_those_of_the_pass() -> None:
    network, shown = small(), images(3)
    found = receptive_fields(network, shown, "1", k=5, occluder=3, stride=2, units=[4, 2])
    values, inputs, positions = top_images(network, shown, "1", 5)
    np.testing.assert_array_equal(found.inputs, inputs[[4, 2]])
    np.testing.assert_array_equal(found.positions, positions[[4, 2]])
    np.testing.assert_array_equal(found.values, values[[4, 2]])
    np.testing.assert_array_equal(found.units, [4, 2])
    whole = receptive_fields(network, shown, "1", k=3, occluder=3, stride=2)
    np.testing.assert_allclose(found.fields, whole.fields[[4, 2]], atol=1e-6)


def test_a_dead_unit_is_reported_and_has_no_field() -> None:
    network = small()
    with torch.no_grad():
        network.module[0].bias[2] = -1e3
    found = receptive_fields(network, images(), "1", k=3, occluder=3, stride=2)
    np.testing.assert_array_equal(found.dead, [False, False, True, False, False, False])
    assert np.isnan(found.fields[2]).all()
    numbers = field_numbers(found, (12, 10))
    assert all(np.isnan(values[2]) for values in numbers.values())
    assert all(np.isfinite(values[[0, 1, 3]]).all() for values in numbers.values())


def test_a_unit_without_positions_has_a_field_and_one_that_is_never_covered_an_empty_one() -> None:
    """Neither is dead: one has a single value in its one top image, but covering changes it."""
    found = receptive_fields(one_unit(np.ones((9, 9))), images(1, 9, 9), "0", k=1, occluder=3, stride=3)
    assert not found.dead.any()
    assert np.nanmax(np.abs(found.fields[0])) > 0.1
    weights = np.zeros((3, 3))
    weights[1, 1] = 1.0
    shown = np.zeros((1, 9, 9, 1), np.float32)
    shown[0, 4, 4] = 1.0
    missed = receptive_fields(one_unit(weights), shown, "0", k=1, occluder=1, stride=3)
    assert not missed.dead.any()
    assert not np.nan_to_num(missed.fields).any()


def test_where_the_theoretical_field_is_unknown_a_place_goes_by_the_sizes() -> None:
    """Of a layer of 3 x 2 over an image of 12 x 10 each position has 4 x 5 pixels, with its middle at 1.5 and 2."""
    found = centres(np.array([[0, 0], [2, 1]]), None, (3, 2), (12, 10))
    np.testing.assert_allclose(found, [[1.5, 2.0], [9.5, 7.0]])


def test_the_ratio_is_to_all_places_where_the_occluder_touches_the_theoretical_field() -> None:
    """Of 5 pixels a square of 3 pixels touches some from 3 before their middle to 3 after it, where there is an image."""
    values = np.zeros((41, 41))
    values[20, 20] = 1.0
    for offset, size, expected in (((8, 8), 23, 7 * 7), ((-2, 8), 23, 3 * 7)):
        found = replace(field([values], occluder=3), theory=Field((5, 5), (1, 1), offset))
        assert field_numbers(found, (size, size))["ratio"][0] == pytest.approx(1 / expected)
    # Between occluders, in both directions, one place more.
    found = replace(field([values], occluder=3), theory=Field((4, 4), (1, 1), (8, 8)))
    assert field_numbers(found, (23, 23))["ratio"][0] == pytest.approx(1 / 49)
    assert np.isnan(field_numbers(replace(found, theory=None), (23, 23))["ratio"][0])


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_no_field_is_larger_than_what_can_be_reached(stride: int) -> None:
    network, shown = small(), images(12)
    for layer in ("1", "2", "4"):
        found = receptive_fields(network, shown, layer, k=4, occluder=3, stride=stride, fill="noise")
        ratio = field_numbers(found, (12, 10))["ratio"]
        assert np.nanmax(ratio) <= 1
        assert np.isfinite(ratio).all()


def test_no_field_is_wider_than_what_theory_and_the_occluder_allow() -> None:
    beyond = 0
    for occluder, stride in ((4, 2), (3, 3), (2, 1)):
        for layer in ("1", "2", "4"):
            found = receptive_fields(small(), images(24), layer, k=3, occluder=occluder, stride=stride)
            assert found.theory is not None
            grid = (found.fields.shape[1] + 1) // 2, (found.fields.shape[2] + 1) // 2
            bound = largest_diameter(found.theory, occluder, stride, grid)
            numbers = field_numbers(found, (12, 10))
            assert np.nanmax(numbers["diameter"]) <= bound
            touching = [int((np.abs(np.arange(1 - n, n) * stride) < (found.theory.size[axis] + occluder) / 2).sum()) for axis, n in enumerate(grid)]
            beyond += int((numbers["diameter"] > 2 * np.sqrt(np.prod(touching) * stride**2 / np.pi)).sum())
    assert beyond > 0  # so that the stride which interpolation adds takes part


def test_the_largest_diameter_is_of_the_disc_as_large_as_the_places_that_can_hold_anything() -> None:
    theory = Field((3, 5), (1, 1), (0, 0))
    # |d| < 3.5 + 2 rows, < 4.5 + 2 columns, at multiples of 2: 5 x 7 places of 4 square pixels; then of few occluders.
    assert largest_diameter(theory, 4, 2, (13, 13)) == pytest.approx(2 * np.sqrt(35 * 4 / np.pi))
    assert largest_diameter(theory, 4, 2, (2, 1)) == pytest.approx(2 * np.sqrt(3 * 4 / np.pi))


def test_recentring_is_linear_between_occluders_and_exact_on_them() -> None:
    """Of a plane it is that plane, wherever it is cut."""
    plane = (2.0 * np.arange(7)[:, None] - 3.0 * np.arange(5)[None] + 1.0).astype(np.float32)
    occluder, stride = 4, 3
    for centre in ([7.5, 4.5], [8.0, 5.9], [0.0, 13.0]):
        moved = recentred(plane, np.array(centre), occluder, stride)
        dy, dx = np.meshgrid(np.arange(-6, 7), np.arange(-4, 5), indexing="ij")
        y, x = (centre[0] - 1.5) / stride + dy, (centre[1] - 1.5) / stride + dx
        inside = (y >= -1e-6) & (y <= 6 + 1e-6) & (x >= -1e-6) & (x <= 4 + 1e-6)
        np.testing.assert_array_equal(~np.isnan(moved), inside)
        np.testing.assert_allclose(moved[inside], (2 * y - 3 * x + 1)[inside], atol=1e-6)


def field(values: Array, stride: int = 1, occluder: int = 1) -> ReceptiveFields:
    u = len(values)
    nothing = np.zeros((u, 1), np.int64)
    top = nothing.astype(np.float32), nothing, np.zeros((u, 1, 2), np.int64)
    theory = Field((99, 99), (1, 1), (0, 0))
    return ReceptiveFields(np.arange(u), np.asarray(values, np.float32), stride, occluder, *top, theory, np.zeros(u, bool))


def test_numbers_of_a_gaussian_are_those_of_its_formula() -> None:
    """Half its maximum is on an ellipse of pi sigma_1 sigma_2 2 ln 2; of 95 % of the mass 2 ln 20 instead."""
    y, x = np.meshgrid(np.arange(-60, 61), np.arange(-60, 61), indexing="ij")
    turn = 0.4
    a, b = np.cos(turn) * y + np.sin(turn) * (x - 5), -np.sin(turn) * y + np.cos(turn) * (x - 5)
    values = np.exp(-(a**2) / (2 * 12**2) - b**2 / (2 * 6**2))
    numbers = field_numbers(field([values]), (121, 121))
    assert numbers["area"][0] == pytest.approx(np.pi * 12 * 6 * 2 * np.log(2), rel=0.01)
    assert numbers["diameter"][0] == pytest.approx(2 * np.sqrt(12 * 6 * 2 * np.log(20)), rel=0.01)
    assert numbers["eccentricity"][0] == pytest.approx(np.sqrt(1 - 0.25), abs=1e-3)
    assert numbers["offset"][0] == pytest.approx(5, abs=1e-3)
    # Negative changes, and what was not seen, are no part of it; places three pixels apart are nine pixels each.
    worse = np.where(values < 1e-6, np.nan, values) - 1e-9
    np.testing.assert_allclose(field_numbers(field([worse]), (121, 121))["diameter"], numbers["diameter"], rtol=1e-3)
    lobe = np.where((y > 40) & (x > 40), -0.9, values)
    for name, value in field_numbers(field([lobe]), (121, 121)).items():
        np.testing.assert_allclose(value, numbers[name], rtol=1e-3)
    np.testing.assert_allclose(field_numbers(field([values], stride=3), (121, 121))["diameter"], 3 * numbers["diameter"])
    np.testing.assert_allclose(field_numbers(field([values], stride=3), (121, 121))["area"], 9 * numbers["area"])


def test_what_cannot_be_is_refused() -> None:
    network, image = small(), images(1)[0]
    with pytest.raises(ValueError, match=r"layer '6' is not spatial.*\(4,\).*name one of \['0', '1', '2', '3', '4'\]"):
        discrepancy_maps(network, image, "6", occluder=3)
    with pytest.raises(ValueError, match=r"no layer 'conv'"):
        discrepancy_maps(network, image, "conv", occluder=3)
    with pytest.raises(ValueError, match=r"occluder is 11 pixels wide; expected 1 to 10 for an image of 12 x 10"):
        discrepancy_maps(network, image, "1")
    with pytest.raises(ValueError, match="stride of at least 1"):
        discrepancy_maps(network, image, "1", occluder=3, stride=0)
    with pytest.raises(ValueError, match=r"units \[9\].*units 0 to 5"):
        discrepancy_maps(network, image, "1", occluder=3, units=[9])
    with pytest.raises(ValueError, match=r"'grey'.*'mean', 'noise' or 'blur'"):
        discrepancy_maps(network, image, "1", occluder=3, fill="grey")
    with pytest.raises(ValueError, match=r"shape \(3, 3\).*\(12, 10, 1\)"):
        discrepancy_maps(network, image, "1", occluder=3, fill=np.zeros((3, 3)))
    with pytest.raises(ValueError, match=r"'highest'.*'own', 'maximum'"):
        discrepancy_maps(network, image, "1", occluder=3, at="highest")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"an image \(h, w, c\)"):
        discrepancy_maps(network, image[..., 0], "1", occluder=3)
