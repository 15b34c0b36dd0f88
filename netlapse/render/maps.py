"""Maps and saliency as pages: a row of groups, groups by steps, inputs by methods."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from netlapse.render import ink
from netlapse.render.colours import BLUE_WHITE_RED, FRAME, INK, MISSING, SEQUENTIAL, diverging, palette, sequential
from netlapse.types import Float64, UInt8


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
    written = [ink.heading(name, tile) for name in names]
    name_height, count_height = max(len(one) for one in written), ink.line_height(ink.SMALL)
    pitch = name_height + tile + count_height + ink.GAP
    width = max(columns * (tile + ink.GAP) - ink.GAP, ink.bar_width(unit_label))
    heading = ink.paragraph(title, width, ink.TITLE)
    top = ink.MARGIN + len(heading) + ink.GAP
    page = ink.blank(top + rows * pitch + ink.GAP + ink.bar_height() + ink.MARGIN, width + 2 * ink.MARGIN)
    ink.stamp(page, heading, ink.MARGIN, ink.MARGIN)
    for position, (content, name, count) in enumerate(zip(tiles, written, counts)):
        row, column = divmod(position, columns)
        y, x = top + row * pitch, ink.MARGIN + column * (tile + ink.GAP)
        ink.stamp(page, name, y + name_height - len(name), x)
        y += name_height
        page[y : y + tile, x : x + tile] = content
        if count < max(least, 1):
            page[y : y + tile, x : x + tile] = MISSING
            ink.centre(page, ink.words("no inputs" if count == 0 else "too few", ink.SMALL), y + (tile - count_height) // 2, x, tile)
        elif (content == MISSING).all():
            ink.centre(page, ink.words("no data", ink.SMALL), y + (tile - count_height) // 2, x, tile)
        elif dots is not None:
            down, across = np.clip((np.column_stack([1 - dots[:, 1], dots[:, 0]]) * tile).astype(int), 0, tile - 1).T
            page[y + down, x + across] = INK + 15
        ink.centre(page, ink.words(f"n = {count}", ink.SMALL), y + tile + 1, x, tile)
    ink.colour_bar(page, top + rows * pitch + ink.GAP, (ink.number(-limit), "0", ink.number(limit)), unit_label)
    return ink.coloured(page, palette(colours))


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
    side = min(180, max(ink.words(name, ink.LABEL).shape[1] for name, _ in rows)) + 2 * ink.GAP
    unit_label = unit_label if shared else f"{unit_label} (each layer's limit is under its name)"
    width = max(side + len(names) * (tile + ink.GAP) - ink.GAP, ink.bar_width(unit_label))
    heading = ink.paragraph(title, width, ink.TITLE)
    written = [ink.heading(name, tile) for name in names]
    top = ink.MARGIN + len(heading) + ink.GAP + max(len(one) for one in written)
    page = ink.blank(top + len(rows) * (tile + ink.GAP) + ink.GAP + ink.bar_height() + ink.MARGIN, width + 2 * ink.MARGIN)
    ink.stamp(page, heading, ink.MARGIN, ink.MARGIN)
    for column, one in enumerate(written):
        ink.stamp(page, one, top - len(one), ink.MARGIN + side + column * (tile + ink.GAP))
    for row, ((name, _), content, bound) in enumerate(zip(rows, drawn, limits)):
        y = top + row * (tile + ink.GAP)
        label = [ink.words(ink.shortened(name, side - 2 * ink.GAP, ink.LABEL), ink.LABEL)] + (
            [] if shared or isinstance(content, str) else [ink.words(f"\u00b1{ink.number(bound)}", ink.SMALL)]
        )
        start = y + (tile - sum(len(line) for line in label)) // 2
        for line in label:
            ink.stamp(page, line, start, ink.MARGIN)
            start += len(line)
        if isinstance(content, str):
            reason = ink.paragraph(content, width - side - 2 * ink.GAP, ink.SMALL)[:tile]
            page[y : y + tile, ink.MARGIN + side : ink.MARGIN + width] = MISSING
            ink.stamp(page, reason, y + (tile - len(reason)) // 2, ink.MARGIN + side + ink.GAP)
        else:
            for column, one in enumerate(content):
                x = ink.MARGIN + side + column * (tile + ink.GAP)
                page[y : y + tile, x : x + tile] = one
                if (one == MISSING).all():
                    ink.centre(page, ink.words("no data", ink.SMALL), y + (tile - ink.line_height(ink.SMALL)) // 2, x, tile)
    ends = (ink.number(-limits[0]), "0", ink.number(limits[0])) if shared else ("-limit", "0", "+limit")
    ink.colour_bar(page, top + len(rows) * (tile + ink.GAP) + ink.GAP, ends, unit_label)
    return ink.coloured(page, palette(colours))


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
    slot = max(wide, 96) + ink.GAP  # narrow images still get room for their captions
    columns = min(len(tiles), max(1, (1200 - 2 * ink.MARGIN + ink.GAP) // slot))
    rows = -(-len(tiles) // columns)
    columns = -(-len(tiles) // rows)
    written = [ink.paragraph(caption, slot - ink.GAP, ink.SMALL) for caption in captions]
    caption_height = max(len(one) for one in written)
    pitch = caption_height + 2 * tall + ink.GAP // 2 + 2 * ink.GAP
    width = max(columns * slot - ink.GAP, ink.bar_width(unit_label))
    heading = ink.paragraph(title, width, ink.TITLE)
    top = ink.MARGIN + len(heading) + ink.GAP
    page = ink.blank(top + rows * pitch + ink.bar_height() + ink.MARGIN, width + 2 * ink.MARGIN)
    ink.stamp(page, heading, ink.MARGIN, ink.MARGIN)
    places = [(top + row * pitch, ink.MARGIN + column * slot) for row, column in (divmod(position, columns) for position in range(len(tiles)))]
    for (y, x), caption, tile, saliency, reason in zip(places, written, tiles, maps, reasons):
        ink.stamp(page, caption, y + caption_height - len(caption), x)
        y += caption_height + tall + ink.GAP // 2
        page[y - 1 : y + tall + 1, x - 1 : x + wide + 1] = FRAME
        page[y : y + tall, x : x + wide] = tile
        if np.isnan(saliency).all():
            ink.centre(page, ink.words(reason, ink.SMALL), y + (tall - ink.line_height(ink.SMALL)) // 2, x, wide)
    ink.colour_bar(page, top + rows * pitch, ("0", "", ink.number(limit)), unit_label)
    picture = ink.coloured(page, SEQUENTIAL)
    for (y, x), shown in zip(places, pictures):
        picture[y + caption_height : y + caption_height + tall, x : x + wide] = shown
    return picture


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
