"""Claims that were checked, with their verdicts, as a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw

from netlapse.render import ink
from netlapse.render.colours import FRAME, INK, PAPER, SEQUENTIAL
from netlapse.types import Float64, UInt8


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
    cell, curve, tall = 190, 300, 2 * ink.line_height(ink.SMALL) + 2 * ink.GAP
    side = max(ink.words(ink.shortened(row.name, 200, ink.LABEL), ink.LABEL).shape[1] for row in rows) + 2 * ink.GAP
    places = [ink.MARGIN + side + i * (cell + ink.GAP) for i in range(len(checks))]
    beside = ink.MARGIN + side + len(checks) * (cell + ink.GAP) + ink.GAP
    width = beside + curve - ink.MARGIN
    heading = ink.paragraph(title, width, ink.TITLE)
    written = [ink.paragraph(note, width, ink.SMALL) for note in notes]
    headers = [ink.heading(check, cell) for check in checks] + [ink.heading(curve_label, curve)]
    top = ink.MARGIN + len(heading) + ink.GAP + max(len(header) for header in headers) + ink.GAP
    foot = top + len(rows) * (tall + ink.GAP)
    page = ink.blank(foot + ink.line_height(ink.SMALL) + ink.GAP + sum(len(note) for note in written) + ink.MARGIN, width + 2 * ink.MARGIN)
    ink.stamp(page, heading, ink.MARGIN, ink.MARGIN)
    for header, x in zip(headers, (*places, beside)):
        ink.stamp(page, header, top - ink.GAP - len(header), x)
    for i, row in enumerate(rows):
        y = top + i * (tall + ink.GAP)
        ink.stamp(page, ink.words(ink.shortened(row.name, 200, ink.LABEL), ink.LABEL), y + (tall - ink.line_height(ink.LABEL)) // 2, ink.MARGIN)
        for (word, number), x in zip(row.cells, places):
            page[y : y + tall, x : x + cell] = _verdict(word, number, cell, tall)
        page[y : y + tall, beside : beside + curve] = FRAME if row.curve is not None else PAPER
        if row.curve is not None:
            page[y + 1 : y + tall - 1, beside : beside + curve] = _curves(row.curve, row.chance, curve, tall - 2)
        else:
            note = ink.paragraph(row.note, curve, ink.SMALL)[:tall]
            ink.stamp(page, note, y + (tall - len(note)) // 2, beside)
    first, last = (ink.words(ink.shortened(stages[i], curve // 2 - ink.GAP, ink.SMALL), ink.SMALL) for i in (0, -1))
    ink.stamp(page, first, foot - ink.GAP // 2, beside)
    ink.stamp(page, last, foot - ink.GAP // 2, beside + curve - last.shape[1])
    y = foot + ink.line_height(ink.SMALL) + ink.GAP
    for note in written:
        ink.stamp(page, note, y, ink.MARGIN)
        y += len(note)
    return ink.coloured(page, SEQUENTIAL)


def _verdict(word: str, number: str, width: int, height: int) -> UInt8:
    """A word over its number in the middle of a frame; a fail is white on black."""
    box = ink.blank(height, width)
    lines = [ink.words(ink.shortened(line, width - 2 * ink.GAP, size), size) for line, size in ((word, ink.LABEL), (number, ink.SMALL)) if line]
    y = (height - sum(len(line) for line in lines)) // 2
    for line in lines:
        ink.centre(box, line, y, 0, width)
        y += len(line)
    if word == "fail":
        return np.asarray(2 * INK + 15 - box.astype(int), np.uint8)  # paper and ink change places
    box[[0, -1]] = FRAME
    box[:, [0, -1]] = FRAME
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
    return np.asarray((shades * 15 + 127) // 255 + INK, np.uint8)


def _dashes(start: tuple[float, float], end: tuple[float, float], length: float) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Every other piece of about that length of the way from start to end, beginning with the first."""
    a, b = np.asarray(start), np.asarray(end)
    pieces = max(1, round(float(np.hypot(*(b - a))) / length)) | 1
    ends = [(float(x), float(y)) for x, y in a + (b - a) * np.linspace(0, 1, pieces + 1)[:, None]]
    return list(zip(ends[:-1:2], ends[1::2]))
