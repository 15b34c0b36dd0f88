"""Groups as pictures: their rates with intervals, where in a network they are told apart, and inputs it hardly knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from netlapse.render import ink
from netlapse.render.colours import FRAME, INK, PAPER, SEQUENTIAL, sequential
from netlapse.types import Float64, UInt8

COLUMN, ROW = 150, 24
"""Pixels of a rate's column, in which 1 is at the right end, and of a group's row."""

CELL = (34, 22)
"""Pixels of a cell of a `grid_of_steps`, across and down, where there is room."""

NAME = 180
"""Pixels of width for the names of rows, at most."""

TILE = 72
"""Pixels a side that images of a `gallery` are enlarged or reduced to, nearly."""


@dataclass(frozen=True, eq=False)
class Rate:
    """A column of `rates_chart`: (g,) numbers from 0 to 1, and the ends of their intervals where they have any; NaN where undefined."""

    name: str
    values: Float64
    low: Float64 | None = None
    high: Float64 | None = None


def rates_chart(rates: Sequence[Rate], names: Sequence[str], counts: Sequence[int], title: str, note: str = "", *, least: int = 1) -> UInt8:
    """A row for each group and a column for each rate, every one from 0 to 1 whatever the values: (h, w, 3).

    A dot is the rate, the line through it its interval, the number is written beside. Groups of fewer than `least` inputs say so.

    Raises ValueError for no groups or rates, and where rates, names and counts are not of as many groups.
    """
    if not rates or not names or len(counts) != len(names) or any(np.shape(rate.values) != (len(names),) for rate in rates):
        raise ValueError(
            f"a chart of {len(names)} groups was given {len(counts)} counts and rates of shapes {[np.shape(rate.values) for rate in rates]}; "
            "expected one of each for every group, at least one group and one rate"
        )
    written = [ink.shortened(f"{name} (n = {count})", NAME + 60, ink.LABEL) for name, count in zip(names, counts)]
    side = max(ink.words(line, ink.LABEL).shape[1] for line in written) + 2 * ink.GAP
    number = ink.words("0.00", ink.SMALL).shape[1] + ink.GAP
    pitch = COLUMN + number + 3 * ink.GAP
    width = side + len(rates) * pitch
    heading, below = ink.paragraph(title, width, ink.TITLE), ink.paragraph(note, width, ink.SMALL)
    headers = [ink.heading(rate.name, COLUMN) for rate in rates]
    top = ink.MARGIN + len(heading) + ink.GAP + max(len(header) for header in headers) + ink.GAP
    foot = top + len(names) * ROW
    page = ink.blank(foot + ink.line_height(ink.SMALL) + ink.GAP + len(below) + ink.MARGIN, width + 2 * ink.MARGIN)
    ink.stamp(page, heading, ink.MARGIN, ink.MARGIN)
    ink.stamp(page, below, foot + ink.line_height(ink.SMALL) + ink.GAP, ink.MARGIN)
    for row, line in enumerate(written):
        ink.stamp(page, ink.words(line, ink.LABEL), top + row * ROW + (ROW - ink.line_height(ink.LABEL)) // 2, ink.MARGIN)
    for place, (rate, header) in enumerate(zip(rates, headers)):
        x = ink.MARGIN + side + place * pitch
        ink.stamp(page, header, top - ink.GAP - len(header), x)
        for share, end in ((0.0, "0"), (0.5, "0.5"), (1.0, "1")):
            at = x + round(share * (COLUMN - 1))
            page[top:foot, at] = FRAME
            label = ink.words(end, ink.SMALL)
            ink.stamp(page, label, foot + 1, at - label.shape[1] // 2)
        for row, count in enumerate(counts):
            y = top + row * ROW + ROW // 2
            value = float(rate.values[row])
            if count < max(least, 1) or np.isnan(value):
                why = "no inputs" if count == 0 else "too few" if count < least else "undefined"
                ink.stamp(page, ink.words(why, ink.SMALL), y - ink.line_height(ink.SMALL) // 2, x + ink.GAP)
                continue
            if rate.low is not None and rate.high is not None and np.isfinite([rate.low[row], rate.high[row]]).all():
                start, end_at = (x + round(float(np.clip(bound, 0, 1)) * (COLUMN - 1)) for bound in (rate.low[row], rate.high[row]))
                page[y, start : end_at + 1] = INK + 9
                page[y - 3 : y + 4, [start, end_at]] = INK + 9
            at = x + round(float(np.clip(value, 0, 1)) * (COLUMN - 1))
            page[y - 3 : y + 4, max(at - 2, 0) : at + 3] = page[y - 2 : y + 3, at - 3 : at + 4] = INK + 15
            ink.stamp(page, ink.words(f"{value:.2f}", ink.SMALL), y - ink.line_height(ink.SMALL) // 2, x + COLUMN + 2 * ink.GAP)
    return ink.coloured(page, SEQUENTIAL)


def grid_of_steps(
    values: Float64,
    marked: np.ndarray[tuple[int, ...], np.dtype[np.bool_]],
    rows: Sequence[str],
    steps: Sequence[int],
    limit: float,
    title: str,
    unit_label: str,
    note: str = "",
) -> UInt8:
    """A cell for each row and step (s, rows), from white at 0 and below to dark at the limit, with a dot in those marked: (h, w, 3).

    Many steps make narrow cells, and at most 900 fit: beyond, some evenly spread are drawn, and the title says so. NaN is grey.

    Raises ValueError for shapes that do not belong together, and a limit as in `sequential`.
    """
    values, marked = np.asarray(values, np.float64), np.asarray(marked, bool)
    if values.shape != (len(steps), len(rows)) or marked.shape != values.shape or not values.size:
        raise ValueError(
            f"a grid of {len(steps)} steps and {len(rows)} rows was given values {values.shape} and marks {marked.shape}; expected as many"
        )
    if len(steps) > 900:
        kept = np.unique(np.linspace(0, len(steps) - 1, 900).round().astype(int))
        title, steps = f"{title} (900 of {len(steps)} steps)", [steps[i] for i in kept]
        values, marked = values[kept], marked[kept]
    wide, tall = max(1, min(CELL[0], 900 // len(steps))), CELL[1]
    side = max(ink.words(ink.shortened(name, NAME, ink.LABEL), ink.LABEL).shape[1] for name in rows) + 2 * ink.GAP
    width = max(side + wide * len(steps), ink.bar_width(unit_label), 520)
    heading, below = ink.paragraph(title, width, ink.TITLE), ink.paragraph(note, width, ink.SMALL)
    top = ink.MARGIN + len(heading) + ink.GAP
    foot = top + tall * len(rows)
    under = foot + ink.line_height(ink.SMALL) + 2 * ink.GAP
    page = ink.blank(under + ink.bar_height() + ink.GAP + len(below) + ink.MARGIN, width + 2 * ink.MARGIN)
    ink.stamp(page, heading, ink.MARGIN, ink.MARGIN)
    left = ink.MARGIN + side
    levels = sequential(values.T, limit).repeat(tall, axis=0).repeat(wide, axis=1)
    page[top - 1 : foot + 1, left - 1 : left + levels.shape[1] + 1] = FRAME
    page[top:foot, left : left + levels.shape[1]] = levels
    for row, name in enumerate(rows):
        y = top + row * tall + (tall - ink.line_height(ink.LABEL)) // 2
        ink.stamp(page, ink.words(ink.shortened(name, NAME, ink.LABEL), ink.LABEL), y, ink.MARGIN)
    for step, row in np.argwhere(marked).tolist():
        y, x = top + row * tall + tall // 2, left + step * wide + wide // 2
        radius = min(3, max(wide // 2 - 1, 0))
        page[y - radius - 1 : y + radius + 2, x - radius - 1 : x + radius + 2] = PAPER  # seen on dark cells too
        page[y - radius : y + radius + 1, x - radius : x + radius + 1] = INK + 15
    free = 0
    for step, number in enumerate(steps):
        label = ink.words(str(number), ink.SMALL)
        x = left + step * wide + (wide - label.shape[1]) // 2
        if x >= free:
            ink.stamp(page, label, foot + 2, max(x, 0))
            free = x + label.shape[1] + ink.GAP
    ink.colour_bar(page, under, ("0", "", ink.number(limit)), unit_label)
    ink.stamp(page, below, under + ink.bar_height() + ink.GAP, ink.MARGIN)
    return ink.coloured(page, SEQUENTIAL)


def gallery(images: Float64, captions: Sequence[str], title: str, note: str = "") -> UInt8:
    """Images (m, h, w, 1 or 3), eight in a row, each over its caption: (h, w, 3). One scale, from the smallest value to the largest.

    Raises ValueError for images of another shape, NaN in them, and another number of captions.
    """
    images = np.asarray(images, np.float64)
    if images.ndim != 4 or not len(images) or images.shape[3] not in (1, 3) or len(captions) != len(images) or not np.isfinite(images).all():
        raise ValueError(
            f"a gallery was given images {images.shape} and {len(captions)} captions; expected (m, h, w, 1 or 3) without NaN, at least one, "
            "and a caption for each"
        )
    low, high = float(images.min()), float(images.max())
    shades = np.rint((images - low) / (high - low if high > low else 1.0) * 255).astype(np.uint8)
    step = max(1, -(-max(images.shape[1:3]) // (TILE + TILE // 2)))
    factor = max(1, round(TILE * step / max(images.shape[1:3])))
    pictures = np.broadcast_to(shades[:, ::step, ::step], (*shades[:, ::step, ::step].shape[:3], 3)).repeat(factor, axis=1).repeat(factor, axis=2)
    tall, wide = pictures.shape[1:3]
    slot = max(wide, 88) + 2 * ink.GAP
    columns = min(8, len(images))
    width = max(columns * slot, 420)
    heading, below = ink.paragraph(title, width, ink.TITLE), ink.paragraph(note, width, ink.SMALL)
    written = [ink.paragraph(caption, slot - ink.GAP, ink.SMALL) for caption in captions]
    pitch = tall + max(len(one) for one in written) + 2 * ink.GAP
    top = ink.MARGIN + len(heading) + ink.GAP
    foot = top + -(-len(images) // columns) * pitch
    page = ink.blank(foot + len(below) + ink.MARGIN, width + 2 * ink.MARGIN)
    ink.stamp(page, heading, ink.MARGIN, ink.MARGIN)
    ink.stamp(page, below, foot, ink.MARGIN)
    places = [(top + i // columns * pitch, ink.MARGIN + i % columns * slot) for i in range(len(images))]
    for (y, x), caption in zip(places, written):
        page[y - 1 : y + tall + 1, x - 1 : x + wide + 1] = FRAME
        ink.stamp(page, caption, y + tall + 2, x)
    picture = ink.coloured(page, SEQUENTIAL)
    for (y, x), shown in zip(places, pictures):
        picture[y : y + tall, x : x + wide] = shown
    return picture
