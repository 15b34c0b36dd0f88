"""A storyboard of several runs: one layer's maps, a row for each run and a column for each step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from netlapse.render import ink
from netlapse.render.colours import BLUE_WHITE_RED, MISSING, diverging, palette
from netlapse.types import Float64, UInt8

NAME = 170
"""Pixels of width for the names of runs, at most, and for what is said about them."""

BETWEEN = 2
"""Pixels between the maps of one run and step."""


def storyboard_of_runs(
    maps: Float64,
    runs: Sequence[str],
    steps: Sequence[int],
    groups: Sequence[str],
    limit: float,
    title: str,
    unit_label: str,
    notes: Sequence[str] | None = None,
    colours: str = BLUE_WHITE_RED,
) -> UInt8:
    """The maps (runs, steps, g, r, r) of one layer: a row for each run, a column for each step, in each cell a map for each group: (h, w, 3).

    Groups have the same places in every cell, which the first row names. All maps share one colour scale, from -limit to limit. NaN is
    grey; a cell of nothing but NaN says "no data".
    notes   a line about each run, which stands under its name

    Raises ValueError where the maps are not of as many runs, steps and groups, or not square; for other numbers of notes; for a limit as in
    `diverging`, and colours as in `palette`.
    """
    maps, said = np.asarray(maps, np.float64), [""] * len(runs) if notes is None else list(notes)
    if maps.ndim != 5 or maps.shape[:3] != (len(runs), len(steps), len(groups)) or maps.shape[3] != maps.shape[4] or not maps.size:
        raise ValueError(
            f"a storyboard of {len(runs)} runs, {len(steps)} steps and {len(groups)} groups was given maps {maps.shape}; "
            "expected (runs, steps, g, r, r)"
        )
    if len(said) != len(runs):
        raise ValueError(f"a storyboard of {len(runs)} runs was given {len(said)} notes; expected one about each")
    tile = maps.shape[3]
    across = int(np.ceil(np.sqrt(2 * len(groups))))  # about twice as wide as high
    down = -(-len(groups) // across)
    pitch = tile + BETWEEN
    wide, tall = across * pitch - BETWEEN, max(down * pitch - BETWEEN, 2 * ink.line_height(ink.SMALL))
    line = ink.line_height(ink.SMALL)
    side = NAME + 2 * ink.GAP
    width = max(side + len(steps) * (wide + 2 * ink.GAP), ink.bar_width(unit_label))
    heading = ink.paragraph(title, width, ink.TITLE)
    top = ink.MARGIN + len(heading) + ink.GAP
    first = top + line + down * line + 2 * ink.GAP  # under the row that names the groups
    foot = first + len(runs) * (tall + 2 * ink.GAP)
    page = ink.blank(foot + ink.bar_height() + ink.MARGIN, width + 2 * ink.MARGIN)
    ink.stamp(page, heading, ink.MARGIN, ink.MARGIN)
    cells = [ink.MARGIN + side + column * (wide + 2 * ink.GAP) for column in range(len(steps))]
    for x, step in zip(cells, steps):
        ink.centre(page, ink.words(f"step {step}", ink.SMALL), top, x, wide)
        for number, group in enumerate(groups):
            row, column = divmod(number, across)
            written = ink.words(ink.shortened(group, tile, ink.SMALL), ink.SMALL)
            ink.centre(page, written, top + line + row * line, x + column * pitch, tile)
    levels = diverging(maps, limit)
    for run, (name, note) in enumerate(zip(runs, said)):
        y = first + run * (tall + 2 * ink.GAP)
        ink.stamp(page, ink.words(ink.shortened(name, NAME, ink.LABEL), ink.LABEL), y, ink.MARGIN)
        words = ink.paragraph(note, NAME, ink.SMALL)[: max(tall - line, 0)] if note else ink.blank(0, 0)
        ink.stamp(page, words, y + line + 2, ink.MARGIN)
        for x, of_step in zip(cells, levels[run]):
            for number, one in enumerate(of_step):
                row, column = divmod(number, across)
                page[y + row * pitch : y + row * pitch + tile, x + column * pitch : x + column * pitch + tile] = one
            if (of_step == MISSING).all():
                ink.centre(page, ink.words("no data", ink.SMALL), y + (tall - line) // 2, x, wide)
    ink.colour_bar(page, foot, (ink.number(-limit), "0", ink.number(limit)), unit_label)
    return ink.coloured(page, palette(colours))
