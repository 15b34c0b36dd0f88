"""Groups as pictures: their rates with intervals, where in a network they are told apart, and inputs it hardly knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from netlapse import render
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
    written = [render._shortened(f"{name} (n = {count})", NAME + 60, render.LABEL) for name, count in zip(names, counts)]
    side = max(render._text(line, render.LABEL).shape[1] for line in written) + 2 * render.GAP
    number = render._text("0.00", render.SMALL).shape[1] + render.GAP
    pitch = COLUMN + number + 3 * render.GAP
    width = side + len(rates) * pitch
    heading, below = render._paragraph(title, width, render.TITLE), render._paragraph(note, width, render.SMALL)
    headers = [render._heading(rate.name, COLUMN) for rate in rates]
    top = render.MARGIN + len(heading) + render.GAP + max(len(header) for header in headers) + render.GAP
    foot = top + len(names) * ROW
    page = render._blank(foot + render._line(render.SMALL) + render.GAP + len(below) + render.MARGIN, width + 2 * render.MARGIN)
    render._stamp(page, heading, render.MARGIN, render.MARGIN)
    render._stamp(page, below, foot + render._line(render.SMALL) + render.GAP, render.MARGIN)
    for row, line in enumerate(written):
        render._stamp(page, render._text(line, render.LABEL), top + row * ROW + (ROW - render._line(render.LABEL)) // 2, render.MARGIN)
    for place, (rate, header) in enumerate(zip(rates, headers)):
        x = render.MARGIN + side + place * pitch
        render._stamp(page, header, top - render.GAP - len(header), x)
        for share, end in ((0.0, "0"), (0.5, "0.5"), (1.0, "1")):
            at = x + round(share * (COLUMN - 1))
            page[top:foot, at] = render._FRAME
            label = render._text(end, render.SMALL)
            render._stamp(page, label, foot + 1, at - label.shape[1] // 2)
        for row, count in enumerate(counts):
            y = top + row * ROW + ROW // 2
            value = float(rate.values[row])
            if count < max(least, 1) or np.isnan(value):
                why = "no inputs" if count == 0 else "too few" if count < least else "undefined"
                render._stamp(page, render._text(why, render.SMALL), y - render._line(render.SMALL) // 2, x + render.GAP)
                continue
            if rate.low is not None and rate.high is not None and np.isfinite([rate.low[row], rate.high[row]]).all():
                start, end_at = (x + round(float(np.clip(bound, 0, 1)) * (COLUMN - 1)) for bound in (rate.low[row], rate.high[row]))
                page[y, start : end_at + 1] = render._INK + 9
                page[y - 3 : y + 4, [start, end_at]] = render._INK + 9
            at = x + round(float(np.clip(value, 0, 1)) * (COLUMN - 1))
            page[y - 3 : y + 4, max(at - 2, 0) : at + 3] = page[y - 2 : y + 3, at - 3 : at + 4] = render._INK + 15
            render._stamp(page, render._text(f"{value:.2f}", render.SMALL), y - render._line(render.SMALL) // 2, x + COLUMN + 2 * render.GAP)
    return render._coloured(page, render.SEQUENTIAL)


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

    Raises ValueError for shapes that do not belong together, and a limit as in `render.sequential`.
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
    side = max(render._text(render._shortened(name, NAME, render.LABEL), render.LABEL).shape[1] for name in rows) + 2 * render.GAP
    width = max(side + wide * len(steps), render._bar_width(unit_label), 520)
    heading, below = render._paragraph(title, width, render.TITLE), render._paragraph(note, width, render.SMALL)
    top = render.MARGIN + len(heading) + render.GAP
    foot = top + tall * len(rows)
    under = foot + render._line(render.SMALL) + 2 * render.GAP
    page = render._blank(under + render._bar_height() + render.GAP + len(below) + render.MARGIN, width + 2 * render.MARGIN)
    render._stamp(page, heading, render.MARGIN, render.MARGIN)
    left = render.MARGIN + side
    levels = render.sequential(values.T, limit).repeat(tall, axis=0).repeat(wide, axis=1)
    page[top - 1 : foot + 1, left - 1 : left + levels.shape[1] + 1] = render._FRAME
    page[top:foot, left : left + levels.shape[1]] = levels
    for row, name in enumerate(rows):
        y = top + row * tall + (tall - render._line(render.LABEL)) // 2
        render._stamp(page, render._text(render._shortened(name, NAME, render.LABEL), render.LABEL), y, render.MARGIN)
    for step, row in np.argwhere(marked).tolist():
        y, x = top + row * tall + tall // 2, left + step * wide + wide // 2
        radius = min(3, max(wide // 2 - 1, 0))
        page[y - radius - 1 : y + radius + 2, x - radius - 1 : x + radius + 2] = render._PAPER  # seen on dark cells too
        page[y - radius : y + radius + 1, x - radius : x + radius + 1] = render._INK + 15
    free = 0
    for step, number in enumerate(steps):
        label = render._text(str(number), render.SMALL)
        x = left + step * wide + (wide - label.shape[1]) // 2
        if x >= free:
            render._stamp(page, label, foot + 2, max(x, 0))
            free = x + label.shape[1] + render.GAP
    render._colour_bar(page, under, ("0", "", render._number(limit)), unit_label)
    render._stamp(page, below, under + render._bar_height() + render.GAP, render.MARGIN)
    return render._coloured(page, render.SEQUENTIAL)


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
    slot = max(wide, 88) + 2 * render.GAP
    columns = min(8, len(images))
    width = max(columns * slot, 420)
    heading, below = render._paragraph(title, width, render.TITLE), render._paragraph(note, width, render.SMALL)
    written = [render._paragraph(caption, slot - render.GAP, render.SMALL) for caption in captions]
    pitch = tall + max(len(one) for one in written) + 2 * render.GAP
    top = render.MARGIN + len(heading) + render.GAP
    foot = top + -(-len(images) // columns) * pitch
    page = render._blank(foot + len(below) + render.MARGIN, width + 2 * render.MARGIN)
    render._stamp(page, heading, render.MARGIN, render.MARGIN)
    render._stamp(page, below, foot, render.MARGIN)
    places = [(top + i // columns * pitch, render.MARGIN + i % columns * slot) for i in range(len(images))]
    for (y, x), caption in zip(places, written):
        page[y - 1 : y + tall + 1, x - 1 : x + wide + 1] = render._FRAME
        render._stamp(page, caption, y + tall + 2, x)
    picture = render._coloured(page, render.SEQUENTIAL)
    for (y, x), shown in zip(places, pictures):
        picture[y : y + tall, x : x + wide] = shown
    return picture
