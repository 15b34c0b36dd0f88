"""Metrics of several runs over the steps as a picture: a panel for each, in it a thin line for each run, their mean and its spread."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw

from netlapse.render import ink
from netlapse.render.colours import BLUE_WHITE_RED, palette
from netlapse.types import Array, Float64, UInt8

WIDE, HIGH, ACROSS = 300, 130, 3
"""Pixels of a panel, and how many stand beside each other."""
LEFT = 52
"""Pixels for the numbers beside a panel."""
FINER = 3
"""Lines are drawn so many times larger, and made smaller smoothly."""
_RUN, _MEAN, _BAND, _AXIS = (150, 158, 170), (24, 60, 110), (206, 221, 240), (210, 214, 220)


def courses(panels: Mapping[str, tuple[Array, Float64]], title: str) -> UInt8:
    """A panel for each name: steps (s,) and values (r, s) of r runs at them, NaN where a run has none: (h, w, 3).

    The dark line is the mean over the runs that have a value, the ground about it one standard deviation to each side.
    Raises ValueError where there are no panels, and for values that are not (r, s).
    """
    for name, (steps, values) in panels.items():
        if np.ndim(values) != 2 or np.shape(values)[1:] != np.shape(steps) or not np.size(values):
            raise ValueError(f"panel {name!r} was given steps {np.shape(steps)} and values {np.shape(values)}; expected (s,) and (r, s)")
    if not panels:
        raise ValueError("courses was given no panels; expected one at least")
    across = min(ACROSS, len(panels))
    line, width = ink.line_height(ink.SMALL), min(ACROSS, len(panels)) * (LEFT + WIDE + 2 * ink.MARGIN)
    heading = ink.paragraph(title, width, ink.TITLE)
    pitch = HIGH + 2 * line + 3 * ink.GAP
    top = ink.MARGIN + len(heading) + ink.GAP
    page = ink.blank(top + -(-len(panels) // across) * pitch + ink.MARGIN, width + 2 * ink.MARGIN)
    ink.stamp(page, heading, ink.MARGIN, ink.MARGIN)
    drawn = []
    for number, (name, (steps, values)) in enumerate(panels.items()):
        y, x = top + number // across * pitch, ink.MARGIN + number % across * (LEFT + WIDE + 2 * ink.MARGIN)
        ink.stamp(page, ink.words(ink.shortened(name, LEFT + WIDE, ink.SMALL), ink.SMALL), y, x)
        low, high = _ends(values)
        for value, at in ((high, y + line), (low, y + line + HIGH - line)):
            words = ink.words(ink.number(value), ink.SMALL)
            ink.stamp(page, words, at, x + LEFT - ink.GAP - words.shape[1])
        first, last = (ink.words(str(int(step)), ink.SMALL) for step in (steps[0], steps[-1]))
        ink.stamp(page, first, y + line + HIGH, x + LEFT)
        if len(steps) > 1:
            ink.stamp(page, last, y + line + HIGH, x + LEFT + WIDE - last.shape[1])
        drawn.append((y + line, x + LEFT, _panel(np.asarray(steps, np.float64), values, low, high)))
    picture = ink.coloured(page, palette(BLUE_WHITE_RED))
    for y, x, panel in drawn:
        picture[y : y + HIGH, x : x + WIDE] = panel
    return picture


def mean_and_spread(values: Float64) -> tuple[Float64, Float64]:
    """(s,) the mean over the runs that have a value of (r, s), and their standard deviation, unbiased; NaN for none and for fewer than two."""
    known = np.isfinite(values)
    many = known.sum(axis=0)
    mean = np.where(known, values, 0).sum(axis=0) / np.where(many > 0, many, np.nan)
    squares = np.square(np.where(known, values - mean, 0)).sum(axis=0)
    return mean, np.sqrt(squares / np.where(many > 1, many - 1, np.nan))


def _ends(values: Float64) -> tuple[float, float]:
    mean, spread = mean_and_spread(values)
    shown = np.concatenate([values.ravel(), mean - spread, mean + spread])
    finite = shown[np.isfinite(shown)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _panel(steps: Float64, values: Float64, low: float, high: float) -> UInt8:
    """(HIGH, WIDE, 3) the lines of one panel."""
    canvas = Image.new("RGB", (WIDE * FINER, HIGH * FINER), (255, 255, 255))
    pen = ImageDraw.Draw(canvas)
    span = steps[-1] - steps[0]
    x = (steps - steps[0]) / span * (WIDE - 9) + 4 if span else np.full(1, WIDE / 2)

    def y(numbers: Float64) -> Float64:
        return HIGH - 5 - (numbers - low) / (high - low) * (HIGH - 10)

    mean, spread = mean_and_spread(values)
    band = np.where(np.isfinite(spread), spread, 0)
    for piece in _pieces(mean):
        outline = [*_points(x[piece], y((mean + band)[piece])), *_points(x[piece], y((mean - band)[piece]))[::-1]]
        if len(piece) > 1:
            pen.polygon(outline, fill=_BAND)
    pen.line([(0, HIGH * FINER - 1), (WIDE * FINER, HIGH * FINER - 1)], fill=_AXIS, width=FINER)
    for numbers, colour, thick in [*((run, _RUN, 1) for run in values), (mean, _MEAN, 2)]:
        for piece in _pieces(numbers):
            points = _points(x[piece], y(numbers[piece]))
            if len(points) > 1:
                pen.line(points, fill=colour, width=thick * FINER, joint="curve")
            else:
                pen.ellipse([points[0][0] - 2 * FINER, points[0][1] - 2 * FINER, points[0][0] + 2 * FINER, points[0][1] + 2 * FINER], fill=colour)
    return np.asarray(canvas.resize((WIDE, HIGH), Image.Resampling.BOX), np.uint8)


def _pieces(values: Float64) -> list[Array]:
    """The places of the stretches of values that are finite."""
    known = np.flatnonzero(np.isfinite(values))
    return [piece for piece in np.split(known, np.flatnonzero(np.diff(known) > 1) + 1) if len(piece)]


def _points(x: Float64, y: Float64) -> list[tuple[float, float]]:
    return [(float(a) * FINER, float(b) * FINER) for a, b in zip(x, y)]
