"""Laws of the pictures."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from netlapse.render import ink
from netlapse.render.colours import _RED, BLUE_WHITE_RED, COLOURS, MISSING, SEQUENTIAL, _palette, diverging, palette, sequential
from netlapse.render.ink import png
from netlapse.render.maps import maps_row, saliency_strip, storyboard

WHITE, GREY = (255, 255, 255), (237, 237, 237)
DIVERGING = COLOURS[BLUE_WHITE_RED]


def decoded(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def find(image: np.ndarray, tile: np.ndarray) -> list[tuple[int, int]]:
    """Where in the picture exactly these pixels (h, w, 3) stand."""
    h, w, _ = tile.shape
    pixels = np.random.default_rng(0).integers(0, (h, w), (60, 2)).tolist()
    y, x = np.divmod(np.arange((image.shape[0] - h + 1) * (image.shape[1] - w + 1)), image.shape[1] - w + 1)
    for row, column in [(0, 0), (0, w - 1), (h - 1, 0), (h - 1, w - 1), *pixels]:
        kept = (image[y + row, x + column] == tile[row, column]).all(axis=1)
        y, x = y[kept], x[kept]
    return [place for place in zip(y.tolist(), x.tolist()) if np.array_equal(image[place[0] :, place[1] :][:h, :w], tile)]


def linear(colours: np.ndarray) -> np.ndarray:
    """The light of sRGB colours, 0 to 1."""
    c = colours / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def lightness(colours: np.ndarray) -> np.ndarray:
    """CIE 1976 L*."""
    return 116 * np.cbrt(linear(colours) @ [0.2126, 0.7152, 0.0722]) - 16


# What colours (linear sRGB) look like without cones of one kind: Machado, Oliveira and Fernandes, 2009, table 1, severity 1.
LACKING = {
    "red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "blue": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def signs_apart(colours: np.ndarray, cones: str) -> np.ndarray:
    """(81,) how far apart, in CIE 1976 units, a value and its opposite are without these cones, from a fifth of the limit up."""
    seen = np.clip(linear(colours[:201].astype(float)) @ np.transpose(LACKING[cones]), 0, 1)
    to_xyz = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]])
    relative = seen @ to_xyz.T / to_xyz.sum(axis=1)
    f = np.where(relative > 216 / 24389, np.cbrt(relative), (24389 / 27 * relative + 16) / 116)
    lab = np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)
    return np.linalg.norm(lab - lab[::-1], axis=1)[120:]


def ramp(groups: int, resolution: int = 64) -> np.ndarray:
    """Maps that are all different, from -1 to 1."""
    maps = np.linspace(-1, 1, resolution**2).reshape(resolution, resolution)
    return np.stack([np.roll(maps, 3 * group, axis=1) for group in range(groups)])


@pytest.mark.parametrize("limit", [1e-12, 0.3, 1.0, 7e20])
def test_zero_is_exactly_white_and_the_ends_are_at_the_limit(limit):
    indices = diverging(np.array([0.0, -0.0, limit, -limit, 9 * limit, -9 * limit, np.nan]), limit)
    colours = DIVERGING[indices]
    assert tuple(colours[0]) == tuple(colours[1]) == WHITE
    assert indices[2:6].tolist() == [200, 0, 200, 0]
    assert tuple(colours[6]) == GREY
    assert tuple(SEQUENTIAL[sequential(np.array([0.0]), limit)][0]) == WHITE
    assert sequential(np.array([-limit, limit, 5 * limit, np.nan]), limit).tolist() == [0, 200, 200, MISSING]


def test_levels_are_the_nearest_in_steps_of_a_hundredth_of_the_limit():
    values = np.linspace(-1.2, 1.2, 1001)
    expected = [100 + round(min(max(value, -1), 1) * 100) for value in values.tolist()]
    assert diverging(3 * values, 3).tolist() == expected


@pytest.mark.parametrize("colours", COLOURS)
def test_equal_values_of_either_sign_are_equally_dark_and_darkness_grows_with_value(colours):
    dark = 100 - lightness(palette(colours)[:201].astype(float))
    np.testing.assert_allclose(dark, dark[::-1], atol=2)
    assert (np.diff(dark[100:]) > 0).all()
    assert (np.diff(dark[:101]) < 0).all()
    assert (np.diff(lightness(SEQUENTIAL[:201].astype(float))) < 0).all()


@pytest.mark.parametrize("colours", COLOURS)
def test_zero_is_white_in_any_colours_and_all_else_is_shared(colours):
    table = palette(colours)
    assert table.shape == (256, 3)
    assert (table[:201] == 255).all(axis=1).nonzero()[0].tolist() == [100]
    np.testing.assert_array_equal(table[201:], DIVERGING[201:])


@pytest.mark.parametrize("cones", LACKING)
@pytest.mark.parametrize("colours", COLOURS)
def test_the_sign_is_seen_without_cones_of_any_kind(colours, cones):
    assert signs_apart(palette(colours), cones).min() > 20


def test_the_sign_would_not_be_seen_in_green_and_red():
    green = _palette([(0, 68, 27), (27, 120, 55), (90, 174, 97), (166, 219, 160), WHITE, *_RED])
    assert signs_apart(green, "green").min() < 5
    assert signs_apart(green, "blue").min() > 20


@pytest.mark.parametrize("colours", COLOURS)
def test_colours_change_nothing_but_the_maps_and_the_bar(colours):
    maps = ramp(2)
    for draw in (
        lambda *chosen: maps_row(maps, ["a", "b"], [1, 0], 1.0, "title", "unit", *chosen),
        lambda *chosen: storyboard([("x", maps), ("y", "reason")], ["a", "b"], 1.0, "title", "unit", *chosen),
    ):
        expected = (default := draw()).copy()
        for level in {*range(201)} - {100}:  # white is also paper
            expected[(default == DIVERGING[level]).all(axis=2)] = palette(colours)[level]
        np.testing.assert_array_equal(draw(colours), expected)


def test_unknown_colours_are_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"no colours named 'jet'; there are \['blue_white_red', 'purple_white_orange', 'teal_white_brown'\]"):
        storyboard([("x", ramp(1))], ["a"], 1.0, "t", "u", "jet")


def test_blue_is_negative_and_red_positive():
    (red, _, blue), (red_up, _, blue_up) = DIVERGING[30].astype(int), DIVERGING[170].astype(int)
    assert blue > red
    assert red_up > blue_up


def test_a_limit_of_zero_shows_zero_white_and_the_rest_saturated():
    assert diverging(np.array([0.0, 1e-9, -1e-9, np.nan]), 0).tolist() == [100, 200, 0, MISSING]


def test_infinite_values_are_at_the_end_of_the_scale():
    assert diverging(np.array([np.inf, -np.inf, 1e308]), 1e-3).tolist() == [200, 0, 200]


@pytest.mark.parametrize("limit", [-1.0, np.nan, np.inf])
def test_a_limit_that_is_none_is_refused(limit):
    for draw in (lambda: diverging(np.zeros(3), limit), lambda: maps_row(ramp(1), ["a"], [1], limit, "t", "u")):
        with pytest.raises(ValueError, match=r"colour limit is .*; expected a finite number of at least 0"):
            draw()


@pytest.mark.parametrize("colours", [1, 2, 16, 17, 200, 256, 257, 5000])
def test_png_holds_exactly_the_pixels(colours):
    rng = np.random.default_rng(colours)
    palette = rng.choice(1 << 16, colours, replace=False) * 251
    codes = np.concatenate([palette, rng.choice(palette, 97 * 61 - colours)]) if colours < 97 * 61 else palette
    image = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=-1).astype(np.uint8).reshape(97, 61, 3)
    assert len(np.unique(image.reshape(-1, 3), axis=0)) == colours
    np.testing.assert_array_equal(decoded(png(image)), image)
    assert png(image) == png(image.copy())


def test_png_has_a_palette_exactly_when_the_colours_fit_into_one():
    image = np.zeros((16, 17, 3), np.uint8)
    image.reshape(-1, 3)[:256, 0] = np.arange(256)
    assert Image.open(io.BytesIO(png(image))).mode == "P"
    image[-1, -1] = (7, 7, 7)
    assert Image.open(io.BytesIO(png(image))).mode == "RGB"


def test_png_takes_a_view_that_is_not_contiguous():
    image = np.random.default_rng(0).integers(0, 3, (20, 30, 3)).astype(np.uint8)
    np.testing.assert_array_equal(decoded(png(image[::-1, ::2])), image[::-1, ::2])


def test_png_says_what_is_wrong():
    for image in (np.zeros((3, 3), np.uint8), np.zeros((3, 3, 4), np.uint8), np.zeros((3, 3, 3)), np.zeros((0, 3, 3), np.uint8)):
        with pytest.raises(ValueError, match=r"picture has shape .* expected \(h, w, 3\) uint8"):
            png(image)


@pytest.mark.parametrize("groups", [1, 2, 10, 11, 30])
def test_a_row_shows_every_map_once_in_reading_order_ten_abreast(groups):
    maps = ramp(groups)
    image = maps_row(maps, [f"g{i}" for i in range(groups)], [1] * groups, 1.0, "title", "unit")
    places = [find(image, DIVERGING[diverging(one, 1.0)]) for one in maps]
    assert all(len(place) == 1 for place in places)
    order = [place[0] for place in places]
    assert order == sorted(order)
    assert len({x for _, x in order}) <= 10
    assert len({y for y, _ in order}) == -(-groups // 10)


def test_the_same_limit_gives_the_same_colour_in_any_picture():
    maps = ramp(3)
    tile = DIVERGING[diverging(maps[1], 2.0)]
    alone = maps_row(maps[1:2], ["b"], [4], 2.0, "alone", "unit")
    among = maps_row(100 * maps * [[[1]], [[0.01]], [[1]]], ["a", "b", "c"], [4, 4, 4], 2.0, "among louder ones", "unit")
    board = storyboard([("x", maps), ("y", 5 * maps)], ["a", "b", "c"], 2.0, "board", "unit")
    assert all(len(find(image, tile)) == 1 for image in (alone, among, board))


@pytest.mark.parametrize("count", [0, 3])
def test_a_group_without_inputs_or_without_a_map_is_grey_with_words(count):
    maps = np.concatenate([ramp(1), np.full((1, 64, 64), np.nan)])
    image = maps_row(maps, ["a", "b"], [3, count], 1.0, "title", "unit")
    ((y, x),) = find(image, DIVERGING[diverging(maps[0], 1.0)])
    tile = image[y : y + 64, x + 64 + ink.GAP :][:, :64]
    grey = (tile == GREY).all(axis=-1)
    assert grey[:20].all()
    assert grey[-20:].all()
    assert 0.02 < 1 - grey.mean() < 0.1


def test_small_maps_are_enlarged_without_being_changed():
    maps = ramp(2, resolution=16)
    image = maps_row(maps, ["a", "b"], [1, 1], 1.0, "title", "unit")
    assert len(find(image, DIVERGING[diverging(maps[0], 1.0)].repeat(4, axis=0).repeat(4, axis=1))) == 1


def test_a_storyboard_has_a_row_per_layer_and_a_column_per_group():
    layers = [ramp(4) * scale for scale in (0.9, 0.5, 0.2)]
    image = storyboard([(f"layer{i}", one) for i, one in enumerate(layers)], list("abcd"), 1.0, "title", "unit")
    places = np.array([[find(image, DIVERGING[diverging(one, 1.0)])[0] for one in layer] for layer in layers])
    assert (np.diff(places[:, :, 0], axis=1) == 0).all()
    assert (np.diff(places[:, :, 0], axis=0) == 64 + ink.GAP).all()
    assert (np.diff(places[:, :, 1], axis=0) == 0).all()
    assert (np.diff(places[:, :, 1], axis=1) == 64 + ink.GAP).all()


def test_a_storyboard_with_a_limit_per_layer_uses_each():
    maps = ramp(2)
    image = storyboard([("x", maps), ("y", maps)], ["a", "b"], [1.0, 4.0], "title", "unit")
    assert all(len(find(image, DIVERGING[diverging(maps[1], limit)])) == 1 for limit in (1.0, 4.0))
    assert not np.array_equal(image, storyboard([("x", maps), ("y", maps)], ["a", "b"], [1.0, 5.0], "title", "unit"))


def test_a_layer_without_maps_gives_its_reason():
    maps = ramp(6)
    whole = storyboard([("x", maps), ("y", "one unit only")], list("abcdef"), 1.0, "title", "unit")
    other = storyboard([("x", maps), ("y", "no units at all")], list("abcdef"), 1.0, "title", "unit")
    assert whole.shape == other.shape
    assert not np.array_equal(whole, other)
    storyboard([("y", "every unit is constant and the reason is long " * 5)], ["a"], 1.0, "title", "unit")


def test_texts_are_drawn_and_distinguish_pictures():
    def picture(name="a", title="step 1", unit="x", count=3, limit=1.0):
        return maps_row(0 * ramp(1), [name], [count], limit, title, unit)

    changed = [picture(name="b"), picture(title="step 2"), picture(unit="y"), picture(count=4), picture(limit=1.5)]
    assert not any(np.array_equal(picture(), other) for other in changed)
    np.testing.assert_array_equal(picture(), picture())
    strips = [saliency_strip(np.ones((1, 8, 8, 1)), np.zeros((1, 8, 8)), ["a"], limit, "title") for limit in (1.0, 1.5)]
    assert not np.array_equal(*strips)
    boards = [storyboard([("x", 0 * ramp(2))], ["a", "b"], limit, "title", "unit") for limit in (1.0, 1.5, [1.0], [1.5])]
    assert len({board.tobytes() for board in boards}) == 4


def test_long_names_lose_their_middle_and_stay_inside():
    short = ink.shortened("layers.2.residual_block.relu", 100, 13)
    assert short.startswith("laye")
    assert short.endswith("relu")
    assert "..." in short
    assert ink.words(short, 13).shape[1] <= 100
    maps = ramp(2)
    image = storyboard([("features.denseblock4.denselayer16.relu2_of_a_very_long_name", maps)], ["a" * 60, "b c " * 5], 1.0, "t" * 300, "unit")
    assert all(len(find(image, DIVERGING[diverging(one, 1.0)])) == 1 for one in maps)
    assert (image[:, : ink.MARGIN] == 255).all()
    assert (image[:, -ink.MARGIN :] == 255).all()


def test_letters_outside_ascii_are_drawn():
    boxes = {ink.words(letter, 13).tobytes() for letter in "éßλжñ"}
    assert len(boxes) == 5


def test_pictures_of_maps_have_at_most_256_colours():
    board = storyboard([("x", ramp(10)), ("y", 3 * ramp(10))], list("abcdefghij"), 1.0, "title", "unit")
    assert Image.open(io.BytesIO(png(board))).mode == "P"
    np.testing.assert_array_equal(decoded(png(board)), board)


@pytest.mark.parametrize(("side", "factor"), [(8, 13), (28, 4), (32, 3), (224, 1)])
def test_a_strip_shows_images_above_their_saliency_at_a_whole_factor(side, factor):
    rng = np.random.default_rng(0)
    images, maps = rng.random((2, side, side, 3)), rng.random((2, side, side))
    image = saliency_strip(images, maps, ["7 -> 1 0.53", "b"], 0.8, "title", image_range=(0, 1))
    for one, saliency in zip(images, maps):
        ((y, x),) = find(image, np.rint(one * 255).astype(np.uint8).repeat(factor, axis=0).repeat(factor, axis=1))
        ((below, same),) = find(image, SEQUENTIAL[sequential(saliency, 0.8)].repeat(factor, axis=0).repeat(factor, axis=1))
        assert same == x
        assert y + factor * side < below < y + factor * side + 10


def test_grey_images_share_their_range_unless_told():
    images = np.zeros((2, 8, 8, 1))
    images[0] += np.linspace(0, 8, 64).reshape(8, 8, 1)
    images[1] += 4
    image = saliency_strip(images, np.zeros((2, 8, 8)), ["", ""], 1.0, "title")
    assert len(find(image, np.full((104, 104, 3), 128, np.uint8))) == 1


def test_many_images_continue_on_further_rows():
    images = np.random.default_rng(0).random((25, 8, 8, 1))
    assert saliency_strip(images, images[..., 0], ["a"] * 25, 1.0, "title").shape[1] <= 1200


def test_undefined_saliency_is_grey_and_says_why():
    maps = np.zeros((2, 8, 8))
    maps[1] = np.nan
    tiles = []
    for missing in (None, ["x", "zero"], ["y", "zero"], ["x", "not finite"], ["x", "no data"]):
        image = saliency_strip(np.ones((2, 8, 8, 1)), maps, ["a", "b"], 1.0, "title", missing=missing)
        rows = find(image, np.broadcast_to(np.array(GREY, np.uint8), (30, 104, 3)))
        assert len({x for _, x in rows}) == 1
        tile = image[min(rows)[0] :][:104, rows[0][1] :][:, :104]
        assert 0.002 < (tile != GREY).any(axis=-1).mean() < 0.05
        tiles.append(tile)
    unsaid, zero, also_zero, not_finite, no_data = tiles
    np.testing.assert_array_equal(unsaid, no_data)
    np.testing.assert_array_equal(zero, also_zero)  # the reason of a map that is there is not written
    assert not np.array_equal(zero, not_finite)


def test_the_limit_of_saliency_is_the_callers():
    images, maps = np.ones((1, 8, 8, 1)), np.full((1, 8, 8), 0.5)
    pictures = [saliency_strip(images, scale * maps, ["a"], limit, "title") for scale, limit in ((1, 1), (2, 2), (2, 1))]
    shades = [SEQUENTIAL[level] for level in (100, 100, 200)]
    for picture, shade in zip(pictures, shades):
        assert len(find(picture, np.broadcast_to(shade, (104, 104, 3)))) == 1


def test_pictures_say_what_is_wrong():
    maps, images = ramp(2), np.zeros((2, 8, 8, 1))
    with pytest.raises(ValueError, match=r"maps have shape \(2, 64, 64\) and there are 3 group names; expected \(g, r, r\)"):
        maps_row(maps, list("abc"), [1, 1, 1], 1.0, "t", "u")
    with pytest.raises(ValueError, match="counts has 1 entries for 2 groups"):
        maps_row(maps, list("ab"), [1], 1.0, "t", "u")
    with pytest.raises(ValueError, match=r"maps of layer 'conv' have shape \(2, 64, 63\)"):
        storyboard([("conv", maps[:, :, :63])], list("ab"), 1.0, "t", "u")
    with pytest.raises(ValueError, match="storyboard got 0 rows"):
        storyboard([], list("ab"), 1.0, "t", "u")
    with pytest.raises(ValueError, match="storyboard got 1 limits for 2 layers"):
        storyboard([("x", maps), ("y", maps)], list("ab"), [1.0], "t", "u")
    with pytest.raises(ValueError, match=r"several resolutions, drawn at \[64, 100\]"):
        storyboard([("x", maps), ("y", ramp(2, 100))], list("ab"), 1.0, "t", "u")
    with pytest.raises(ValueError, match=r"images have shape \(2, 8, 8, 4\); expected \(m, h, w, c\)"):
        saliency_strip(np.zeros((2, 8, 8, 4)), images[..., 0], ["a", "b"], 1.0, "t")
    with pytest.raises(ValueError, match=r"saliency maps have shape \(2, 4, 4\); expected \(2, 8, 8\)"):
        saliency_strip(images, np.zeros((2, 4, 4)), ["a", "b"], 1.0, "t")
    with pytest.raises(ValueError, match="captions has 1 entries for 2 images"):
        saliency_strip(images, images[..., 0], ["a"], 1.0, "t")
    with pytest.raises(ValueError, match="missing has 1 entries for 2 maps; expected one each"):
        saliency_strip(images, images[..., 0], ["a", "b"], 1.0, "t", missing=["zero"])
    with pytest.raises(ValueError, match=r"image_range is \(1, 0\); expected finite values and low <= high"):
        saliency_strip(images, images[..., 0], ["a", "b"], 1.0, "t", image_range=(1, 0))
