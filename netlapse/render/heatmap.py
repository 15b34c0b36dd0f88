"""A table of numbers from 0 to 1 as a picture, such as how alike layers or runs are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from netlapse.render import ink
from netlapse.render.colours import FRAME, INK, PAPER, SEQUENTIAL, sequential
from netlapse.types import Float64, UInt8

CELL, SMALLEST = 40, 4
"""Pixels a side of a cell in which its number is legible, and of one in a table of very many."""

WIDEST = 900
"""Pixels of all cells together, as long as they need not be smaller than the smallest."""

NAME = 240
"""Pixels of width for the names of rows, at most."""


def heatmap(values: Float64, rows: Sequence[str], columns: Sequence[str], title: str, unit_label: str, note: str = "") -> UInt8:
    """A cell for each row and column (r, c), from white at 0 and below to dark at 1, whatever the values: (h, w, 3).

    Up to about twenty columns each number but zero is written into its cell. Columns with names that do not fit have numbers instead: those of
    the rows where both are the same, and else their own. NaN is grey.

    Raises ValueError for values that are not (r, c) with a row and a column at least.
    """
    values = np.asarray(values, np.float64)
    if values.shape != (len(rows), len(columns)) or not values.size:
        raise ValueError(f"a heatmap of {len(rows)} rows and {len(columns)} columns was given values {values.shape}; expected as many, at least one")
    cell = int(np.clip(WIDEST // max(values.shape), SMALLEST, CELL))
    fit = all(ink.words(name, ink.SMALL).shape[1] + 2 <= cell for name in columns)
    same = list(rows) == list(columns)
    named = [f"{number} {name}" for number, name in enumerate(rows, 1)] if same and not fit else list(rows)
    heads = list(columns) if fit else [str(number) for number in range(1, len(columns) + 1)]
    listed = "" if same or fit else "Columns: " + ", ".join(f"{head} {name}" for head, name in zip(heads, columns)) + ". "
    side = max(ink.words(ink.shortened(name, NAME, ink.SMALL), ink.SMALL).shape[1] for name in named) + 2 * ink.GAP
    width = max(side + cell * len(columns), ink.bar_width(unit_label))
    heading, below = ink.paragraph(title, width, ink.TITLE), ink.paragraph(listed + note, width, ink.SMALL)
    line = ink.line_height(ink.SMALL)
    top, left = ink.MARGIN + len(heading) + ink.GAP + line, ink.MARGIN + side
    foot = top + cell * len(rows) + 2 * ink.GAP
    page = ink.blank(foot + ink.bar_height() + ink.GAP + len(below) + ink.MARGIN, width + 2 * ink.MARGIN)
    ink.stamp(page, heading, ink.MARGIN, ink.MARGIN)
    levels = sequential(values, 1.0)
    page[top - 1 : top + cell * len(rows) + 1, left - 1 : left + cell * len(columns) + 1] = FRAME
    page[top : top + cell * len(rows), left : left + cell * len(columns)] = levels.repeat(cell, axis=0).repeat(cell, axis=1)
    every = -(-line // cell)  # where cells are lower than a line of text, some of the names are left out
    for row in range(0, len(rows), every):
        words = ink.words(ink.shortened(named[row], NAME, ink.SMALL), ink.SMALL)
        ink.stamp(page, words, top + row * cell + (cell - line) // 2, ink.MARGIN)
    every = -(-max(ink.words(head, ink.SMALL).shape[1] + 2 for head in heads) // cell)
    for column in range(0, len(columns), every):
        ink.centre(page, ink.words(heads[column], ink.SMALL), top - line, left + column * cell, cell)
    if cell == CELL:
        for (row, column), value in np.ndenumerate(values):
            if np.isfinite(value) and value != 0:
                number = _number(float(value))
                y, x = top + row * cell + (cell - line) // 2, left + column * cell
                _write(page, number, y, x, cell, light=bool(value > 0.6))
    ink.colour_bar(page, foot, ("0", "0.5", "1"), unit_label)
    ink.stamp(page, below, foot + ink.bar_height() + ink.GAP, ink.MARGIN)
    return ink.coloured(page, SEQUENTIAL)


def _number(value: float) -> str:
    """Two decimals, without the zero before them: cells are narrow."""
    return f"{value:.2f}".replace("0.", ".", 1) if abs(value) < 0.995 else f"{value:.0f}"


def _write(page: UInt8, text: str, y: int, x: int, width: int, *, light: bool) -> None:
    """Write a number in the middle of a cell: white on dark, dark on light, without the grey edges of a text on paper."""
    bitmap = ink.words(text, ink.SMALL)
    inside = bitmap >= PAPER + 8
    target = page[y : y + bitmap.shape[0], x + (width - bitmap.shape[1]) // 2 :][:, : bitmap.shape[1]]
    np.copyto(target, np.uint8(PAPER if light else INK + 15), where=inside)
