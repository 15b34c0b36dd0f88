"""Maps and saliency as pictures, rasterised with numpy: pixels in, (h, w, 3) uint8 out, no pyplot and no global state.

A training process draws a page at every checkpoint, so a page may cost milliseconds, not a second. Maps become levels of a
palette of at most 256 colours by one multiplication, and a page is stored as the small palette PNG it really is. The same
values, limit and texts give the same bytes.

Signed maps have zero exactly white between two hues, non-negative ones are white-orange-brown. The colours of signed maps are
equally light to both sides and lose lightness evenly, so that a print in grey still shows how far a value is from zero (no such
colours can show its sign there), and none needs red told from green. The limit is the caller's, so that maps can share it. NaN is grey.
Groups are told apart by ten colours and then by ten shapes.
"""

from __future__ import annotations

import importlib.util
import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_dilation

from netlapse.types import Float64, Int64, UInt8

LEVELS = 201  # of a colour scale; odd, so that the middle one is zero
MISSING = LEVELS  # palette index of NaN
_INK = LEVELS + 1  # first of the 16 indices from paper to ink
_PAPER, _FRAME = _INK, _INK + 4
_GREY = (237, 237, 237)
_BLUE = ((8, 48, 107), (33, 102, 172), (92, 155, 214), (169, 206, 238))
_RED = ((246, 189, 173), (225, 122, 105), (184, 44, 51), (113, 0, 26))
_PURPLE = ((75, 29, 104), (124, 75, 176), (156, 142, 201), (204, 197, 237))
_ORANGE = ((255, 189, 110), (221, 128, 16), (159, 76, 1), (87, 38, 0))
_TEAL = ((1, 60, 48), (21, 111, 103), (70, 165, 157), (139, 216, 204))
_BROWN = ((228, 199, 130), (201, 138, 54), (145, 85, 15), (78, 44, 0))
_EMBER = ((255, 255, 255), (253, 212, 158), (236, 132, 62), (172, 56, 30), (62, 12, 28))
_WHITE = (255, 255, 255)

MARGIN, GAP = 12, 6
TITLE, LABEL, SMALL = 16, 13, 12  # font sizes
BAR = 220  # width of a colour bar
SCATTER, MARK = 420, 11  # width of a scatter plot, and of a point in it with its edge


def _palette(stops: Sequence[tuple[int, int, int]]) -> UInt8:
    """The colours (256, 3): LEVELS between the stops, the grey of NaN, sixteen from white to ink."""
    scale = np.linspace(0, len(stops) - 1, LEVELS)
    colours = np.zeros((256, 3))
    colours[:LEVELS] = np.column_stack([np.interp(scale, np.arange(len(stops)), channel) for channel in np.transpose(stops)])
    colours[MISSING] = _GREY
    colours[_INK : _INK + 16] = np.linspace((255, 255, 255), (24, 24, 28), 16)
    return np.rint(colours).astype(np.uint8)


BLUE_WHITE_RED = "blue_white_red"
COLOURS = {
    BLUE_WHITE_RED: _palette((*_BLUE, _WHITE, *_RED)),
    "purple_white_orange": _palette((*_PURPLE, _WHITE, *_ORANGE)),
    "teal_white_brown": _palette((*_TEAL, _WHITE, *_BROWN)),
}
"""Name -> colours (256, 3) of the indices that `diverging` returns; a name goes from negative to positive.

Equal values of either sign are told apart with any kind of colour vision: best in purple-orange without red or green cones, in
blue-red without blue ones. Teal-brown is for pages on which the other hues already mean something. The hues of both are those
of PuOr and BrBG (Brewer, Hatchard and Harrower, 2003, "ColorBrewer in print"), here at the lightnesses of blue-red.
"""
SEQUENTIAL = _palette(_EMBER)
"""Colours (256, 3) of the indices that `sequential` returns."""

HUES = (
    (63, 144, 218), (255, 169, 14), (189, 31, 1), (148, 164, 162), (131, 45, 182),
    (169, 107, 89), (231, 99, 0), (185, 172, 112), (113, 117, 129), (146, 218, 221),
)  # fmt: skip
"""Ten colours of groups, which any kind of colour vision tells apart (Petroff, 2021, "Accessible color sequences for data visualization")."""
_MARKED = np.concatenate([np.array(HUES, dtype=np.uint8), SEQUENTIAL[len(HUES) :]])


def diverging(values: Float64, limit: float) -> UInt8:
    """Palette indices of signed values, any shape: -limit and below is the first colour, zero white, limit and above the last, NaN grey.

    With limit 0 (nothing differs from zero) every value but zero is at its end of the scale.

    Raises ValueError for a limit that is negative or not finite.
    """
    return _levels(values, limit, span=LEVELS // 2, zero=LEVELS // 2)


def sequential(values: Float64, limit: float) -> UInt8:
    """Palette indices of non-negative values, any shape: zero and below is white, limit and above dark brown, NaN grey.

    Raises ValueError for a limit that is negative or not finite.
    """
    return _levels(values, limit, span=LEVELS - 1, zero=0)


def palette(colours: str) -> UInt8:
    """The colours (256, 3) of that name; raises ValueError, with the names there are, for any other."""
    if colours not in COLOURS:
        raise ValueError(f"no colours named {colours!r}; there are {list(COLOURS)}, each from negative to positive")
    return COLOURS[colours]


def maps_row(
    maps: Float64,
    names: Sequence[str],
    counts: Sequence[int],
    limit: float,
    title: str,
    unit_label: str,
    colours: str = BLUE_WHITE_RED,
    *,
    least: int = 1,
    dots: Float64 | None = None,
) -> UInt8:
    """The maps (g, r, r) of one layer side by side, each under its group's name and over its number of inputs: (h, w, 3).

    All maps share the colour scale from -limit to limit, whose bar carries `unit_label`. More than ten groups continue on
    further rows. A group without inputs or with fewer than `least` and a map of nothing but NaN are grey tiles that say so.
    `dots` (u, 2) are positions in [0, 1], y up, that are marked on every other map. Maps of fewer than 64 pixels
    are enlarged by a whole factor.

    Raises ValueError for maps that are not (g, r, r), other numbers of names or counts, a limit as in `diverging`, and
    colours as in `palette`.
    """
    maps = _checked_maps("maps", maps, len(names))
    if len(counts) != len(names):
        raise ValueError(f"counts has {len(counts)} entries for {len(names)} groups; expected one number of inputs per group")
    tiles = diverging(_enlarged(maps), limit)
    tile = tiles.shape[1]
    rows = -(-len(tiles) // 10)
    columns = -(-len(tiles) // rows)
    written = [_heading(name, tile) for name in names]
    name_height, count_height = max(len(one) for one in written), _line(SMALL)
    pitch = name_height + tile + count_height + GAP
    width = max(columns * (tile + GAP) - GAP, _bar_width(unit_label))
    heading = _paragraph(title, width, TITLE)
    top = MARGIN + len(heading) + GAP
    page = _blank(top + rows * pitch + GAP + _bar_height() + MARGIN, width + 2 * MARGIN)
    _stamp(page, heading, MARGIN, MARGIN)
    for position, (content, name, count) in enumerate(zip(tiles, written, counts)):
        row, column = divmod(position, columns)
        y, x = top + row * pitch, MARGIN + column * (tile + GAP)
        _stamp(page, name, y + name_height - len(name), x)
        y += name_height
        page[y : y + tile, x : x + tile] = content
        if count < max(least, 1):
            page[y : y + tile, x : x + tile] = MISSING
            _centre(page, _text("no inputs" if count == 0 else "too few", SMALL), y + (tile - count_height) // 2, x, tile)
        elif (content == MISSING).all():
            _centre(page, _text("no data", SMALL), y + (tile - count_height) // 2, x, tile)
        elif dots is not None:
            down, across = np.clip((np.column_stack([1 - dots[:, 1], dots[:, 0]]) * tile).astype(int), 0, tile - 1).T
            page[y + down, x + across] = _INK + 15
        _centre(page, _text(f"n = {count}", SMALL), y + tile + 1, x, tile)
    _colour_bar(page, top + rows * pitch + GAP, (_number(-limit), "0", _number(limit)), unit_label)
    return _coloured(page, palette(colours))


def storyboard(
    rows: Sequence[tuple[str, Float64 | str]],
    names: Sequence[str],
    limit: float | Sequence[float],
    title: str,
    unit_label: str,
    colours: str = BLUE_WHITE_RED,
) -> UInt8:
    """All layers of one step on a page, a row of maps (g, r, r) for each layer and a column for each group: (h, w, 3).

    rows   a layer's name with its maps, or with the reason why there are none, which is written in their place
    limit  one colour scale for all layers, or one per layer, which is then written under the layer's name

    All maps have the same resolution; below 64 pixels they are enlarged by a whole factor. Long names lose their middle.

    Raises ValueError for no rows, maps that are not (g, r, r) or of several resolutions, another number of limits, limits as in
    `diverging`, and colours as in `palette`.
    """
    if not rows or not names:
        raise ValueError(
            f"storyboard got {len(rows)} rows and {len(names)} group names; expected (layer name, maps or reason) for at least one layer, and a group"
        )
    shared = np.ndim(limit) == 0
    limits = np.broadcast_to(limit, len(rows)).tolist() if shared else [float(one) for one in np.asarray(limit)]
    if len(limits) != len(rows):
        raise ValueError(f"storyboard got {len(limits)} limits for {len(rows)} layers; expected one number, or one per layer")
    drawn = [
        content if isinstance(content, str) else diverging(_enlarged(_checked_maps(f"maps of layer {name!r}", content, len(names))), bound)
        for (name, content), bound in zip(rows, limits)
    ]
    sizes = {content.shape[1] for content in drawn if not isinstance(content, str)}
    if len(sizes) > 1:
        raise ValueError(f"storyboard got maps of several resolutions, drawn at {sorted(sizes)} pixels; expected one for all layers")
    tile = sizes.pop() if sizes else 64
    side = min(180, max(_text(name, LABEL).shape[1] for name, _ in rows)) + 2 * GAP
    unit_label = unit_label if shared else f"{unit_label} (each layer's limit is under its name)"
    width = max(side + len(names) * (tile + GAP) - GAP, _bar_width(unit_label))
    heading = _paragraph(title, width, TITLE)
    written = [_heading(name, tile) for name in names]
    top = MARGIN + len(heading) + GAP + max(len(one) for one in written)
    page = _blank(top + len(rows) * (tile + GAP) + GAP + _bar_height() + MARGIN, width + 2 * MARGIN)
    _stamp(page, heading, MARGIN, MARGIN)
    for column, one in enumerate(written):
        _stamp(page, one, top - len(one), MARGIN + side + column * (tile + GAP))
    for row, ((name, _), content, bound) in enumerate(zip(rows, drawn, limits)):
        y = top + row * (tile + GAP)
        label = [_text(_shortened(name, side - 2 * GAP, LABEL), LABEL)] + (
            [] if shared or isinstance(content, str) else [_text(f"\u00b1{_number(bound)}", SMALL)]
        )
        start = y + (tile - sum(len(line) for line in label)) // 2
        for line in label:
            _stamp(page, line, start, MARGIN)
            start += len(line)
        if isinstance(content, str):
            reason = _paragraph(content, width - side - 2 * GAP, SMALL)[:tile]
            page[y : y + tile, MARGIN + side : MARGIN + width] = MISSING
            _stamp(page, reason, y + (tile - len(reason)) // 2, MARGIN + side + GAP)
        else:
            for column, one in enumerate(content):
                x = MARGIN + side + column * (tile + GAP)
                page[y : y + tile, x : x + tile] = one
                if (one == MISSING).all():
                    _centre(page, _text("no data", SMALL), y + (tile - _line(SMALL)) // 2, x, tile)
    ends = (_number(-limits[0]), "0", _number(limits[0])) if shared else ("-limit", "0", "+limit")
    _colour_bar(page, top + len(rows) * (tile + GAP) + GAP, ends, unit_label)
    return _coloured(page, palette(colours))


def saliency_strip(
    images: Float64,
    maps: Float64,
    captions: Sequence[str],
    limit: float,
    title: str,
    *,
    image_range: tuple[float, float] | None = None,
    unit_label: str = "x even spread",
    missing: Sequence[str] | None = None,
) -> UInt8:
    """Input images (m, h, w, c) in a row, captioned, and below each its saliency map (m, h, w) from white at 0 to dark at the limit.

    c is 1 (grey) or 3 (RGB); `image_range` are the values drawn black and white (full), the smallest and largest of all these images
    when not given. Small images are enlarged by the whole factor that brings them nearest to 104 pixels, and continue on
    further rows beyond 1,200 pixels. Grey pixels are NaN; on a map of nothing but NaN is written why: `missing`, one reason
    for each map, or "no data".

    Raises ValueError for shapes that do not belong together, other numbers of channels, captions or reasons, NaN or an empty
    range in the images, and a limit as in `sequential`.
    """
    images, maps = np.asarray(images, dtype=np.float64), np.asarray(maps, dtype=np.float64)
    if images.ndim != 4 or len(images) == 0 or images.shape[3] not in (1, 3):
        raise ValueError(
            f"images have shape {images.shape}; expected (m, h, w, c) with m >= 1 and 1 or 3 channels; reduce other channels to one first"
        )
    if maps.shape != images.shape[:3]:
        raise ValueError(f"saliency maps have shape {maps.shape}; expected {images.shape[:3]}, one map for each image at its resolution")
    if len(captions) != len(images):
        raise ValueError(f"captions has {len(captions)} entries for {len(images)} images; expected one each")
    reasons = ["no data"] * len(maps) if missing is None else missing
    if len(reasons) != len(images):
        raise ValueError(f"missing has {len(reasons)} entries for {len(images)} maps; expected one each, why it would be NaN all over")
    low, high = (float(images.min()), float(images.max())) if image_range is None else image_range
    if not np.isfinite(images).all() or not low <= high:
        raise ValueError(f"images span {images.min()} to {images.max()} and image_range is {image_range}; expected finite values and low <= high")
    factor = max(1, round(104 / max(images.shape[1:3])))
    shades = np.rint(np.clip((images - low) / (high - low if high > low else 1.0), 0, 1) * 255).astype(np.uint8)
    pictures = np.broadcast_to(shades, (*shades.shape[:3], 3)).repeat(factor, axis=1).repeat(factor, axis=2)
    tiles = sequential(maps, limit).repeat(factor, axis=1).repeat(factor, axis=2)
    tall, wide = tiles.shape[1:]
    slot = max(wide, 96) + GAP  # narrow images still get room for their captions
    columns = min(len(tiles), max(1, (1200 - 2 * MARGIN + GAP) // slot))
    rows = -(-len(tiles) // columns)
    columns = -(-len(tiles) // rows)
    written = [_paragraph(caption, slot - GAP, SMALL) for caption in captions]
    caption_height = max(len(one) for one in written)
    pitch = caption_height + 2 * tall + GAP // 2 + 2 * GAP
    width = max(columns * slot - GAP, _bar_width(unit_label))
    heading = _paragraph(title, width, TITLE)
    top = MARGIN + len(heading) + GAP
    page = _blank(top + rows * pitch + _bar_height() + MARGIN, width + 2 * MARGIN)
    _stamp(page, heading, MARGIN, MARGIN)
    places = [(top + row * pitch, MARGIN + column * slot) for row, column in (divmod(position, columns) for position in range(len(tiles)))]
    for (y, x), caption, tile, saliency, reason in zip(places, written, tiles, maps, reasons):
        _stamp(page, caption, y + caption_height - len(caption), x)
        y += caption_height + tall + GAP // 2
        page[y - 1 : y + tall + 1, x - 1 : x + wide + 1] = _FRAME
        page[y : y + tall, x : x + wide] = tile
        if np.isnan(saliency).all():
            _centre(page, _text(reason, SMALL), y + (tall - _line(SMALL)) // 2, x, wide)
    _colour_bar(page, top + rows * pitch, ("0", "", _number(limit)), unit_label)
    picture = _coloured(page, SEQUENTIAL)
    for (y, x), shown in zip(places, pictures):
        picture[y + caption_height : y + caption_height + tall, x : x + wide] = shown
    return picture


def scatter(points: Float64 | str, groups: Int64, names: Sequence[str], title: str, note: str = "") -> UInt8:
    """Points (m, 2) in [0, 1], y up, each in the colour and the shape of its group (m,), beside a legend of all groups: (h, w, 3).

    points  or the reason why there are none, which is written in their place
    names   (g,) of the groups; after each is written how many points are of it. The first ten are discs in ten colours, the next ten
            squares in the same, and so on through ten shapes, whether they have points or not, so that a group keeps its mark from
            step to step. All after the first hundred share one mark, a black dot
    note    is written below

    Each point has a white edge. Which one covers which has nothing to do with groups and is always the same.

    Raises ValueError for points that are not (m, 2), all in [0, 1], for groups that are not (m,) indices of names, and for no names.
    """
    groups = np.asarray(groups)
    if not len(names) or groups.ndim != 1 or (len(groups) and not 0 <= groups.min() <= groups.max() < len(names)):
        raise ValueError(f"groups have shape {groups.shape} and there are {len(names)} names; expected (m,) indices of the names, at least one name")
    if not isinstance(points, str) and (np.shape(points) != (len(groups), 2) or not ((points >= 0) & (points <= 1)).all()):
        raise ValueError(f"points have shape {np.shape(points)}; expected ({len(groups)}, 2), all in [0, 1], one for each of the groups")
    legend = _legend(names, np.bincount(groups, minlength=len(names)).tolist())
    width = max(SCATTER + 2 * GAP + legend.shape[1], 420)
    heading, below = _paragraph(title, width, TITLE), _paragraph(note, width, SMALL)
    top = MARGIN + len(heading) + GAP
    page = _blank(top + SCATTER + GAP + len(below) + MARGIN, width + 2 * MARGIN)
    _stamp(page, heading, MARGIN, MARGIN)
    _stamp(page, legend, top, MARGIN + SCATTER + 2 * GAP)
    _stamp(page, below, top + SCATTER + GAP, MARGIN)
    square = page[top : top + SCATTER, MARGIN : MARGIN + SCATTER]
    if isinstance(points, str):
        reason = _paragraph(points, SCATTER - 4 * GAP, LABEL)
        square[:] = MISSING
        _stamp(square, reason, (SCATTER - len(reason)) // 2, 2 * GAP)
    else:
        square[:] = _FRAME
        square[1:-1, 1:-1] = _PAPER
        room = SCATTER - MARK - 2 * GAP  # a mark at the edge is whole
        places = np.rint(np.column_stack([1 - points[:, 1], points[:, 0]]) * room).astype(int) + GAP
        for i in np.random.default_rng(0).permutation(len(points)):
            (y, x), mark = places[i], _mark(int(groups[i]))
            np.copyto(square[y : y + MARK, x : x + MARK], mark, where=mark != MISSING)
    return _coloured(page, _MARKED)


@dataclass(frozen=True, eq=False)
class CheckedRow:
    """A row of `checks_table`.

    cells   for each check a word, such as pass, fail or undecided, and the number it goes by; "" for none
    curve   (s,) values from 0 to 1 over the stages, `chance` (s,) the same of what is worth nothing; None: `note` is written instead
    """

    name: str
    cells: Sequence[tuple[str, str]]
    curve: Float64 | None
    chance: Float64 | None
    note: str = ""


def checks_table(
    rows: Sequence[CheckedRow], checks: Sequence[str], stages: Sequence[str], title: str, curve_label: str, notes: Sequence[str]
) -> UInt8:
    """A row for each of some methods, with the words of each check and a curve over stages: (h, w, 3).

    Verdicts are words. "fail" is white on black, so that it stands out without a colour. Curves run from 0, the lower line, to 1, the
    upper one, and are cut off there; the dashed grey line is the chance. Below the last one stand the first and the last stage.

    Raises ValueError for no rows, and for rows with another number of cells than there are checks.
    """
    if not rows or any(len(row.cells) != len(checks) for row in rows):
        raise ValueError(f"a table of {len(rows)} rows has {[len(row.cells) for row in rows]} cells for the checks {list(checks)}; expected one each")
    cell, curve, tall = 190, 300, 2 * _line(SMALL) + 2 * GAP
    side = max(_text(_shortened(row.name, 200, LABEL), LABEL).shape[1] for row in rows) + 2 * GAP
    places = [MARGIN + side + i * (cell + GAP) for i in range(len(checks))]
    beside = MARGIN + side + len(checks) * (cell + GAP) + GAP
    width = beside + curve - MARGIN
    heading = _paragraph(title, width, TITLE)
    written = [_paragraph(note, width, SMALL) for note in notes]
    headers = [_heading(check, cell) for check in checks] + [_heading(curve_label, curve)]
    top = MARGIN + len(heading) + GAP + max(len(header) for header in headers) + GAP
    foot = top + len(rows) * (tall + GAP)
    page = _blank(foot + _line(SMALL) + GAP + sum(len(note) for note in written) + MARGIN, width + 2 * MARGIN)
    _stamp(page, heading, MARGIN, MARGIN)
    for header, x in zip(headers, (*places, beside)):
        _stamp(page, header, top - GAP - len(header), x)
    for i, row in enumerate(rows):
        y = top + i * (tall + GAP)
        _stamp(page, _text(_shortened(row.name, 200, LABEL), LABEL), y + (tall - _line(LABEL)) // 2, MARGIN)
        for (word, number), x in zip(row.cells, places):
            page[y : y + tall, x : x + cell] = _verdict(word, number, cell, tall)
        page[y : y + tall, beside : beside + curve] = _FRAME if row.curve is not None else _PAPER
        if row.curve is not None:
            page[y + 1 : y + tall - 1, beside : beside + curve] = _curves(row.curve, row.chance, curve, tall - 2)
        else:
            note = _paragraph(row.note, curve, SMALL)[:tall]
            _stamp(page, note, y + (tall - len(note)) // 2, beside)
    first, last = (_text(_shortened(stages[i], curve // 2 - GAP, SMALL), SMALL) for i in (0, -1))
    _stamp(page, first, foot - GAP // 2, beside)
    _stamp(page, last, foot - GAP // 2, beside + curve - last.shape[1])
    y = foot + _line(SMALL) + GAP
    for note in written:
        _stamp(page, note, y, MARGIN)
        y += len(note)
    return _coloured(page, SEQUENTIAL)


def png(image: UInt8) -> bytes:
    """The PNG of a picture (h, w, 3): exactly these pixels, and the same bytes for the same pixels.

    A picture of at most 256 colours is stored with a palette, which is several times faster and smaller than RGB.

    Raises ValueError for anything but (h, w, 3) uint8 with at least one pixel.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"picture has shape {image.shape} and dtype {image.dtype}; expected (h, w, 3) uint8 with at least one pixel")
    pixels, file = Image.fromarray(image), io.BytesIO()
    colours = pixels.getcolors(256)
    if colours is None:
        pixels.save(file, "PNG", compress_level=1)
        return file.getvalue()
    palette = np.array(sorted(colour for _, colour in colours), dtype=np.uint8)
    index = np.empty(1 << 24, dtype=np.uint8)  # 16 MB that are reserved, of which only the pages of these colours are touched
    index[palette @ (1, 1 << 8, 1 << 16)] = np.arange(len(palette))
    packed = np.frombuffer(pixels.tobytes("raw", "RGBX"), dtype="<u4") & 0xFFFFFF
    indexed = Image.fromarray(index.take(packed).reshape(image.shape[:2]))
    indexed.putpalette(palette.tobytes())
    indexed.save(file, "PNG", compress_level=1, compress_type=zlib.Z_RLE)  # maps hardly repeat, so searching for repeats only costs time
    return file.getvalue()


def _levels(values: Float64, limit: float, span: int, zero: int) -> UInt8:
    """The nearest of the levels zero - span ... zero + span, cut to the scale, for values between -limit and limit."""
    if not (np.isfinite(limit) and limit >= 0):
        raise ValueError(f"colour limit is {limit}; expected a finite number of at least 0, the value at the end of the scale")
    values = np.asarray(values, dtype=np.float64)
    with np.errstate(over="ignore"):  # what overflows lies far beyond the scale's end, where it is drawn
        scaled = values / limit * span if limit > 0 else np.sign(values) * span
    missing = np.isnan(scaled)
    np.rint(scaled, out=scaled)
    scaled += zero
    np.clip(scaled, 0, LEVELS - 1, out=scaled)
    scaled[missing] = MISSING
    levels: UInt8 = scaled.astype(np.uint8)
    return levels


def _checked_maps(what: str, maps: Float64, groups: int) -> Float64:
    maps = np.asarray(maps, dtype=np.float64)
    if maps.ndim != 3 or maps.shape[1] != maps.shape[2] or len(maps) != groups or maps.size == 0:
        raise ValueError(
            f"{what} have shape {maps.shape} and there are {groups} group names; expected (g, r, r), one square map per name and at least one"
        )
    return maps


def _enlarged(maps: Float64) -> Float64:
    """Maps of at least 64 pixels, every pixel repeated by a whole factor."""
    factor = -(-64 // maps.shape[1])
    return maps if factor == 1 else maps.repeat(factor, axis=1).repeat(factor, axis=2)


def _blank(height: int, width: int) -> UInt8:
    return np.full((height, width), _PAPER, dtype=np.uint8)


def _coloured(page: UInt8, palette: UInt8) -> UInt8:
    return np.take(palette, page, axis=0)


@lru_cache
def _font(size: int, plain: bool) -> ImageFont.FreeTypeFont:
    """Pillow's own font, or for letters it has not got, DejaVu Sans from matplotlib's files (found without importing matplotlib)."""
    found = None if plain else importlib.util.find_spec("matplotlib")
    if found is not None and found.submodule_search_locations:
        path = Path(found.submodule_search_locations[0]) / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if path.is_file():
            return ImageFont.truetype(str(path), size - 1)
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


@lru_cache
def _line(size: int) -> int:
    """Height in pixels of a line of text, the same for all texts of the size."""
    return size + 5


@lru_cache(maxsize=4096)
def _text(text: str, size: int) -> UInt8:
    """Palette indices (_line(size), w) of a line of text on paper; not to be written to."""
    font = _font(size, text.isascii() or all(letter in "\u00b7\u00b1" for letter in text if not letter.isascii()))
    width = max(1, int(np.ceil(font.getlength(text))) + 1)
    canvas = Image.new("L", (width, _line(size)), 0)
    ImageDraw.Draw(canvas).text((0, size), text, font=font, fill=255, anchor="ls")
    drawn = (np.asarray(canvas, dtype=np.uint16) * 15 + 127) // 255 + _INK
    bitmap: UInt8 = drawn.astype(np.uint8)
    bitmap.flags.writeable = False
    return bitmap


@lru_cache(maxsize=4096)
def _shortened(text: str, width: int, size: int) -> str:
    """The text, without as much of its middle as it takes to fit into the width."""
    if _text(text, size).shape[1] <= width:
        return text
    for kept in range(len(text) - 1, 0, -1):
        shorter = text[: -(-kept // 2)] + "..." + text[len(text) - kept // 2 :]
        if _text(shorter, size).shape[1] <= width:
            return shorter
    return ""


@lru_cache(maxsize=4096)
def _paragraph(text: str, width: int, size: int) -> UInt8:
    """Palette indices (h, width) of a text broken into lines at its spaces; words too long for a line lose their middle."""
    lines = _broken(text, width, size)
    block = _blank(len(lines) * _line(size), width)
    for position, line in enumerate(lines):
        _stamp(block, _text(line, size), position * _line(size), 0)
    block.flags.writeable = False
    return block


@lru_cache(maxsize=4096)
def _heading(text: str, width: int) -> UInt8:
    """A paragraph (h, width) of label size with its lines in the middle."""
    lines = _broken(text, width, LABEL)
    block = _blank(len(lines) * _line(LABEL), width)
    for position, line in enumerate(lines):
        _centre(block, _text(line, LABEL), position * _line(LABEL), 0, width)
    block.flags.writeable = False
    return block


def _broken(text: str, width: int, size: int) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and _text(joined, size).shape[1] <= width:
            lines[-1] = joined
        else:
            lines.append(_shortened(word, width, size))
    return lines


def _stamp(page: UInt8, bitmap: UInt8, y: int, x: int) -> None:
    """Write a bitmap of text over the page, as far as it lies on it, leaving the page where the bitmap is paper."""
    target = page[y : y + bitmap.shape[0], x : x + bitmap.shape[1]]
    cut = bitmap[: target.shape[0], : target.shape[1]]
    np.copyto(target, cut, where=cut != _PAPER)


def _centre(page: UInt8, bitmap: UInt8, y: int, x: int, width: int) -> None:
    """Write a bitmap of text in the middle of the width that begins at x."""
    _stamp(page, bitmap, y, x + (width - bitmap.shape[1]) // 2)


@lru_cache
def _mark(group: int) -> UInt8:
    """Palette indices (MARK, MARK) of a point of the group in its white edge, MISSING around it; not to be written to."""
    y, x = np.abs(np.indices((MARK, MARK)) - MARK // 2)
    down = np.indices((MARK, MARK))[0] - MARK // 2
    shapes = (
        y**2 + x**2 <= 12,
        np.maximum(y, x) <= 3,
        (np.abs(down) <= 3) & (x <= (down + 3) // 2 + 0.5),
        y + 2 * x <= 4,
        (np.minimum(y, x) <= 1) & (np.maximum(y, x) <= 4),
        (np.abs(y - x) <= 1) & (np.maximum(y, x) <= 3),
        (np.abs(down) <= 3) & (x <= (3 - down) // 2 + 0.5),
        (y**2 + x**2 <= 18) & (y**2 + x**2 >= 8),
        (np.maximum(y, x) <= 4) & (np.maximum(y, x) >= 3),
        (y <= 1) & (x <= 4),
    )
    last = group >= len(HUES) * len(shapes)
    shape = y**2 + x**2 <= 2 if last else shapes[group // len(HUES)]
    mark: UInt8 = np.full((MARK, MARK), MISSING, dtype=np.uint8)
    mark[binary_dilation(shape)] = _PAPER
    mark[shape] = _INK + 15 if last else group % len(HUES)
    mark.flags.writeable = False
    return mark


def _legend(names: Sequence[str], counts: Sequence[int]) -> UInt8:
    """Palette indices (SCATTER, w) of the groups' marks, names and numbers of points, in columns."""
    marks = min(len(names), 10 * len(HUES))
    lines = [(_shortened(name, 140, SMALL), count) for name, count in zip(names[:marks], counts)]
    if len(names) > marks:
        lines.append((f"{len(names) - marks} more", sum(counts[marks:])))
    written = [_text(f"{name} ({count})", SMALL) for name, count in lines]
    height = max(MARK, _line(SMALL))
    rows = SCATTER // height
    columns = [written[start : start + rows] for start in range(0, len(written), rows)]
    widths = [MARK + GAP + max(line.shape[1] for line in column) + 2 * GAP for column in columns]
    legend = _blank(SCATTER, sum(widths))
    for i, line in enumerate(written):
        column, row = divmod(i, rows)
        x, mark = sum(widths[:column]), _mark(i)
        np.copyto(legend[row * height + 3 :, x:][:MARK, :MARK], mark, where=mark != MISSING)
        _stamp(legend, line, row * height, x + MARK + GAP)
    return legend


def _verdict(word: str, number: str, width: int, height: int) -> UInt8:
    """A word over its number in the middle of a frame; a fail is white on black."""
    box = _blank(height, width)
    lines = [_text(_shortened(line, width - 2 * GAP, size), size) for line, size in ((word, LABEL), (number, SMALL)) if line]
    y = (height - sum(len(line) for line in lines)) // 2
    for line in lines:
        _centre(box, line, y, 0, width)
        y += len(line)
    if word == "fail":
        return np.asarray(2 * _INK + 15 - box.astype(int), np.uint8)  # paper and ink change places
    box[[0, -1]] = _FRAME
    box[:, [0, -1]] = _FRAME
    return box


def _curves(values: Float64, chance: Float64 | None, width: int, height: int) -> UInt8:
    """Palette indices (height, width) of a dark line, and a dashed grey one for the chance, from 0 at the lower end to 1 at the upper one."""
    fine = 4  # times, so that lines are smooth
    canvas = Image.new("L", (fine * width, fine * height), 0)
    draw = ImageDraw.Draw(canvas)
    x = np.linspace(3, width - 4, len(values)) * fine if len(values) > 1 else np.array([width * fine / 2])
    for line, shade, dashed in ((chance, 110, True), (values, 255, False)):
        if line is None:
            continue
        y = (3 + (1 - np.clip(line, 0, 1)) * (height - 7)) * fine
        points = [(float(a), float(b)) for a, b in zip(x, y) if np.isfinite(b)]
        for start, end in pairwise(points):
            for part in _dashes(start, end, 5 * fine) if dashed else [(start, end)]:
                draw.line(part, fill=shade, width=2 * fine)
        if not dashed:
            for across, down in points:
                draw.ellipse((across - 2.5 * fine, down - 2.5 * fine, across + 2.5 * fine, down + 2.5 * fine), fill=shade)
    shades = np.asarray(canvas.resize((width, height), Image.Resampling.BOX), np.uint16)
    return np.asarray((shades * 15 + 127) // 255 + _INK, np.uint8)


def _dashes(start: tuple[float, float], end: tuple[float, float], length: float) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Every other piece of about that length of the way from start to end, beginning with the first."""
    a, b = np.asarray(start), np.asarray(end)
    pieces = max(1, round(float(np.hypot(*(b - a))) / length)) | 1
    ends = [(float(x), float(y)) for x, y in a + (b - a) * np.linspace(0, 1, pieces + 1)[:, None]]
    return list(zip(ends[:-1:2], ends[1::2]))


def _number(value: float) -> str:
    """Three significant digits; whole numbers in full up to a million; no negative zero."""
    return f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value + 0.0:.3g}"


def _bar_height() -> int:
    return 12 + _line(SMALL)


def _bar_width(unit_label: str) -> int:
    """Width in pixels of a colour bar and what is written beside it, at least what a short title needs."""
    needed: int = BAR + 2 * GAP + _text(unit_label, SMALL).shape[1]
    return max(420, needed)


def _colour_bar(page: UInt8, y: int, numbers: tuple[str, str, str], unit_label: str) -> None:
    """Draw all levels from left to right with the numbers of both ends and the middle below and the unit beside, then what grey means."""
    page[y : y + 12, MARGIN : MARGIN + BAR] = _FRAME
    page[y + 1 : y + 11, MARGIN + 1 : MARGIN + BAR - 1] = np.arange(BAR - 2) * LEVELS // (BAR - 2)
    for number, place in zip(numbers, (0.0, 0.5, 1.0)):
        bitmap = _text(number, SMALL)
        _stamp(page, bitmap, y + 13, MARGIN + round(place * (BAR - bitmap.shape[1])))
    beside = MARGIN + BAR + 2 * GAP
    _stamp(page, _text(unit_label, SMALL), y - 3, beside)
    page[y + 16 : y + 26, beside : beside + 10] = MISSING
    _stamp(page, _text("no data", SMALL), y + 12, beside + 16)
