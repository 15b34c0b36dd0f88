"""One input over steps as a page: what is predicted at each, and its saliency map by each method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from netlapse.render import ink
from netlapse.render.colours import FRAME, SEQUENTIAL, sequential
from netlapse.types import Float64, UInt8

SIDE = 104  # pixels that the longer side of an image comes near to, in whole factors
NARROWEST = 104  # pixels of a column, for what is written above it


@dataclass(frozen=True)
class Column:
    """A column's heading, and lines about it."""

    heading: str
    lines: tuple[str, ...]


def explanation_grid(
    image: Float64,
    caption: str,
    columns: Sequence[Column],
    rows: Mapping[str, Float64],
    limit: float,
    title: str,
    *,
    unit_label: str = "x even spread",
    missing: Mapping[str, Sequence[str]] | None = None,
) -> UInt8:
    """The image (h, w, 1 or 3) and beside it a grid of maps: a column for each step, a row (s, h, w) for each method: (h, w, 3).

    All maps share the scale from white at 0 to dark at the limit. On a map of nothing but NaN is written why: `missing`, by
    row a reason for each map, or "no data".

    Raises ValueError for an image of another shape or with NaN, no columns or rows, and maps that do not belong to them.
    """
    image = np.asarray(image, np.float64)
    if image.ndim != 3 or image.shape[2] not in (1, 3) or not np.isfinite(image).all():
        raise ValueError(f"an explanation was given an image of shape {image.shape}; expected (h, w, 1 or 3) without NaN")
    expected = (len(columns), *image.shape[:2])
    if not columns or not rows or (wrong := {name: maps.shape for name, maps in rows.items() if maps.shape != expected}):
        raise ValueError(f"an explanation was given maps of shape {wrong if columns and rows else 'none'}; expected {expected}, at least one")
    factor = max(1, round(SIDE / max(image.shape[:2])))
    low, high = float(image.min()), float(image.max())
    shades = np.rint((image - low) / (high - low if high > low else 1.0) * 255).astype(np.uint8)
    picture = np.broadcast_to(shades, (*shades.shape[:2], 3)).repeat(factor, axis=0).repeat(factor, axis=1)
    tall, wide = picture.shape[:2]
    slot = max(wide, NARROWEST) + ink.GAP
    below = ink.paragraph(caption, slot - ink.GAP, ink.SMALL)
    above = [
        [ink.paragraph(column.heading, slot - ink.GAP, ink.LABEL), *(ink.paragraph(line, slot - ink.GAP, ink.SMALL) for line in column.lines)]
        for column in columns
    ]
    head = max(tall + 2 + len(below), *(sum(map(len, lines)) for lines in above)) + ink.GAP
    left = ink.MARGIN + slot + ink.GAP
    width = max(slot + ink.GAP + slot * len(columns), ink.bar_width(unit_label))
    heading = ink.paragraph(title, width, ink.TITLE)
    top = ink.MARGIN + len(heading) + ink.GAP
    pitch = tall + ink.GAP
    foot = top + head + pitch * len(rows) + ink.GAP
    page = ink.blank(foot + ink.bar_height() + ink.MARGIN, width + 2 * ink.MARGIN)
    ink.stamp(page, heading, ink.MARGIN, ink.MARGIN)
    page[top - 1 : top + tall + 1, ink.MARGIN - 1 : ink.MARGIN + wide + 1] = FRAME
    ink.stamp(page, below, top + tall + 2, ink.MARGIN)
    for column, lines in enumerate(above):
        y = top + head - ink.GAP - sum(map(len, lines))  # on the maps, not under the title
        for line in lines:
            ink.stamp(page, line, y, left + column * slot)
            y += len(line)
    for row, (name, maps) in enumerate(rows.items()):
        y = top + head + row * pitch
        said = ink.paragraph(name, slot - ink.GAP, ink.LABEL)
        ink.stamp(page, said, y + (tall - len(said)) // 2, ink.MARGIN)
        levels = sequential(maps, limit).repeat(factor, axis=1).repeat(factor, axis=2)
        for column, (tile, values) in enumerate(zip(levels, maps)):
            x = left + column * slot
            page[y - 1 : y + tall + 1, x - 1 : x + wide + 1] = FRAME
            page[y : y + tall, x : x + wide] = tile
            if np.isnan(values).all():
                reason = missing[name][column] if missing is not None else "no data"
                ink.centre(page, ink.words(reason, ink.SMALL), y + (tall - ink.line_height(ink.SMALL)) // 2, x, wide)
    ink.colour_bar(page, foot, ("0", "", ink.number(limit)), unit_label)
    drawn = ink.coloured(page, SEQUENTIAL)
    drawn[top : top + tall, ink.MARGIN : ink.MARGIN + wide] = picture
    return drawn
