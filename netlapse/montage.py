"""A layer's units as a picture: the inputs that each responds to most, with its field outlined, and the field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_dilation, binary_erosion

from netlapse import render
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
    across = render.GAP + wide
    label = "share of the activation that covering takes"
    fields = any(row.field is not None for row in rows)
    left = render.MARGIN + ABOUT
    width = max(ABOUT + (k + 1) * across + render.GAP, render._bar_width(label)) if fields else ABOUT + max(k, 4) * across
    heading, said = render._paragraph(title, width, render.TITLE), render._paragraph(note, width, render.SMALL) if note else None
    top = render.MARGIN + len(heading) + (len(said) if said is not None else 0) + render.GAP
    line = render._line(render.SMALL)
    pitch = max(tall, 4 * line) + render.GAP
    page = render._blank(top + line + len(rows) * pitch + fields * render._bar_height() + render.MARGIN, width + 2 * render.MARGIN)
    render._stamp(page, heading, render.MARGIN, render.MARGIN)
    if said is not None:
        render._stamp(page, said, render.MARGIN + len(heading), render.MARGIN)
    # Between the inputs and the field is twice the gap.
    last = left + k * across + 2 * render.GAP
    render._stamp(
        page, render._text(render._shortened("top inputs, the strongest first", k * across, render.SMALL), render.SMALL), top, left + render.GAP
    )
    if fields:
        render._centre(page, render._text("field", render.SMALL), top, last, wide)
    pictures: list[tuple[int, int, UInt8]] = []
    for place, row in enumerate(rows):
        y = top + line + place * pitch
        for number, words in enumerate([row.name, *row.about]):
            size = render.LABEL if number == 0 else render.SMALL
            render._stamp(page, render._text(render._shortened(words, ABOUT, size), size), y + number * line, render.MARGIN)
        for rank, (image, outline) in enumerate(zip(row.images, row.outlines)):
            grey = np.nan_to_num(np.clip((reduced(image, step) - low) / (high - low if high > low else 1.0), 0, 1) * 255)
            tile = np.broadcast_to(np.rint(grey).astype(np.uint8), (*grey.shape[:2], 3)).repeat(factor, axis=0).repeat(factor, axis=1)
            inside = outline[::step, ::step].repeat(factor, axis=0).repeat(factor, axis=1)
            tile[binary_dilation(inside) & ~binary_erosion(inside, border_value=1)] = OUTLINE
            pictures.append((y, left + render.GAP + rank * across, tile))
        if row.field is None:
            continue
        field = render.diverging(row.field[::step, ::step], 1.0).repeat(factor, axis=0).repeat(factor, axis=1)
        page[y - 1 : y + tall + 1, last - 1 : last + wide + 1] = render._FRAME
        page[y : y + tall, last : last + wide] = render.MISSING if row.missing else field
        if row.missing:
            render._centre(page, render._text(render._shortened(row.missing, wide, render.SMALL), render.SMALL), y + (tall - line) // 2, last, wide)
    if fields:
        render._colour_bar(page, top + line + len(rows) * pitch, ("-100 %", "0", "100 %"), label)
    picture = render._coloured(page, render.palette(render.BLUE_WHITE_RED))
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
