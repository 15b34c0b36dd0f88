"""A layer's units as a picture: the inputs that each responds to most, with its field outlined, and the field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_dilation, binary_erosion

from netlapse.render import ink
from netlapse.render.colours import BLUE_WHITE_RED, FRAME, MISSING, diverging, palette
from netlapse.types import Float64, UInt8

OUTLINE = (255, 149, 0)
"""Around a field: far from every grey, and from the blue and red of the fields, by hue and by lightness."""

TILE = 88
"""Pixels a side that images are enlarged or reduced to, nearly."""

ABOUT = 132
"""Pixels of width for what is said about a unit."""


@dataclass(frozen=True, eq=False)
class UnitRow:
    """One unit in a `montage`.

    name, about   its name, and lines about it
    images        (k, h, w, 1 or 3) its top inputs         outlines  (k, h, w) True inside of its field in each
    field         (h, w) its field as a share of the activation, at the images' scale with the unit in the middle; NaN where unknown;
                  None in all rows: nothing was asked about fields, and there is no place for them
    missing       why there is no field, in a word or two; "" where there is one
    """

    name: str
    about: Sequence[str]
    images: Float64
    outlines: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
    field: Float64 | None = None
    missing: str = ""


def montage(rows: Sequence[UnitRow], title: str, note: str = "") -> UInt8:
    """A row for each unit: what is said about it, its top inputs with the field outlined, its field from -100 to 100 %: (h, w, 3).

    The images share one scale of grey, from their smallest to their largest value. Raises ValueError for no rows.
    """
    if not rows:
        raise ValueError("a montage was given no units; expected at least one row")
    shown = np.concatenate([row.images.ravel() for row in rows])
    finite = shown[np.isfinite(shown)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    h, w = rows[0].outlines.shape[1:]
    step = max(1, -(-max(h, w) // (TILE + TILE // 2)))
    factor = max(1, round(TILE * step / max(h, w)))
    tall, wide = -(-h // step) * factor, -(-w // step) * factor
    k = max(len(row.images) for row in rows)
    across = ink.GAP + wide
    label = "share of the activation that covering takes"
    fields = any(row.field is not None for row in rows)
    left = ink.MARGIN + ABOUT
    width = max(ABOUT + (k + 1) * across + ink.GAP, ink.bar_width(label)) if fields else ABOUT + max(k, 4) * across
    heading, said = ink.paragraph(title, width, ink.TITLE), ink.paragraph(note, width, ink.SMALL) if note else None
    top = ink.MARGIN + len(heading) + (len(said) if said is not None else 0) + ink.GAP
    line = ink.line_height(ink.SMALL)
    pitch = max(tall, 4 * line) + ink.GAP
    page = ink.blank(top + line + len(rows) * pitch + fields * ink.bar_height() + ink.MARGIN, width + 2 * ink.MARGIN)
    ink.stamp(page, heading, ink.MARGIN, ink.MARGIN)
    if said is not None:
        ink.stamp(page, said, ink.MARGIN + len(heading), ink.MARGIN)
    # Between the inputs and the field is twice the gap.
    last = left + k * across + 2 * ink.GAP
    ink.stamp(page, ink.words(ink.shortened("top inputs, the strongest first", k * across, ink.SMALL), ink.SMALL), top, left + ink.GAP)
    if fields:
        ink.centre(page, ink.words("field", ink.SMALL), top, last, wide)
    pictures: list[tuple[int, int, UInt8]] = []
    for place, row in enumerate(rows):
        y = top + line + place * pitch
        for number, words in enumerate([row.name, *row.about]):
            size = ink.LABEL if number == 0 else ink.SMALL
            ink.stamp(page, ink.words(ink.shortened(words, ABOUT, size), size), y + number * line, ink.MARGIN)
        for rank, (image, outline) in enumerate(zip(row.images, row.outlines)):
            grey = np.nan_to_num(np.clip((reduced(image, step) - low) / (high - low if high > low else 1.0), 0, 1) * 255)
            tile = np.broadcast_to(np.rint(grey).astype(np.uint8), (*grey.shape[:2], 3)).repeat(factor, axis=0).repeat(factor, axis=1)
            inside = outline[::step, ::step].repeat(factor, axis=0).repeat(factor, axis=1)
            tile[binary_dilation(inside) & ~binary_erosion(inside, border_value=1)] = OUTLINE
            pictures.append((y, left + ink.GAP + rank * across, tile))
        if row.field is None:
            continue
        field = diverging(row.field[::step, ::step], 1.0).repeat(factor, axis=0).repeat(factor, axis=1)
        page[y - 1 : y + tall + 1, last - 1 : last + wide + 1] = FRAME
        page[y : y + tall, last : last + wide] = MISSING if row.missing else field
        if row.missing:
            ink.centre(page, ink.words(ink.shortened(row.missing, wide, ink.SMALL), ink.SMALL), y + (tall - line) // 2, last, wide)
    if fields:
        ink.colour_bar(page, top + line + len(rows) * pitch, ("-100 %", "0", "100 %"), label)
    picture = ink.coloured(page, palette(BLUE_WHITE_RED))
    for y, x, tile in pictures:
        picture[y : y + tall, x : x + wide] = tile
    return picture


def reduced(image: Float64, step: int) -> Float64:
    """(ceil(h / step), ceil(w / step), c) the means of blocks of an image (h, w, c); those at the end may be smaller."""
    if step == 1:
        return image
    rows, columns = (np.arange(0, size, step) for size in image.shape[:2])
    sums = np.add.reduceat(np.add.reduceat(image, rows, axis=0), columns, axis=1)
    counts = np.outer(np.diff([*rows, image.shape[0]]), np.diff([*columns, image.shape[1]]))
    return np.asarray(sums / counts[..., None], np.float64)
