"""How a number is distributed over repeats, method beside method: what a comparison of methods stands on."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.stats import gaussian_kde

from netlapse.figures.sheet import FAINT, GAP, INK, LABEL, SMALL, TITLE, Sheet, broken, checked_width, number, own_style, text_height, text_width
from netlapse.types import Array, Float64

ROW = 0.75
"""Centimetres that a method takes."""
FILL, POINT = "#a9ceee", "#2166ac"


def violins(values: Mapping[str, Array], *, label: str, title: str = "", width: float = 8.5) -> Sheet:
    """The repeats of each method as points, their density around them, and their median as a line.

    values  name of the method -> (repeats,) finite numbers, in the order in which they are drawn from the top
    label   what the numbers are, under their axis
    title   "": none                width   centimetres, in print

    The density is that of normal kernels (Scott's rule), each as high as the others, over the range of the points; fewer than
    three different numbers have none.
    Raises ValueError for no methods, and for values that are not (repeats,) or not finite, naming the method.
    """
    numbers = {str(name): np.asarray(repeats, np.float64) for name, repeats in values.items()}
    if not numbers:
        raise ValueError("violins were asked for of no method; expected name -> (repeats,), one or more")
    for name, repeats in numbers.items():
        if repeats.ndim != 1 or not len(repeats) or not np.isfinite(repeats).all():
            raise ValueError(
                f"the values of {name!r} have shape {repeats.shape}, {int((~np.isfinite(repeats)).sum())} of them not finite; "
                "expected (repeats,) finite numbers, one or more; leave out the repeats at which the quality is undefined"
            )
    width = checked_width(width)
    heading = broken(title, width - 2 * GAP, TITLE)
    counts = [f"n = {len(repeats)}" for repeats in numbers.values()]
    names = [broken(name, width * 0.35, LABEL, 2) for name in numbers]
    side = max(text_width(line, LABEL) for name in names for line in name.split("\n")) + 2 * GAP
    margin = max(text_width(count, SMALL) for count in counts) + 2 * GAP
    top = GAP + (text_height(heading, TITLE) + GAP if heading else 0)
    height = ROW * len(numbers)
    with own_style():
        sheet = Sheet(width, top + height + 1.0)
        sheet.write(heading, GAP, GAP, TITLE)
        axes = sheet.place(side, top, width - side - margin, height)
        axes.set_axis_on()
        axes.spines[["left", "right", "top"]].set_visible(False)
        axes.grid(axis="x", linewidth=0.3, color="#dddddd")
        axes.set_axisbelow(True)
        for row, (name, count, repeats) in enumerate(zip(names, counts, numbers.values())):
            line, density = _density(repeats)
            axes.fill_between(line, row - 0.4 * density, row + 0.4 * density, color=FILL, linewidth=0)
            axes.plot([np.median(repeats)] * 2, [row - 0.4, row + 0.4], color=INK, linewidth=1.0, solid_capstyle="butt")
            within = np.interp(repeats, line, density) if len(line) else 1.0
            axes.plot(repeats, row + 0.36 * within * _spread(len(repeats)), ".", color=POINT, markersize=3, markeredgewidth=0)
            y = top + (row + 0.5) * ROW
            sheet.write(name, side - GAP, y, LABEL, ha="right", va="center")
            sheet.write(count, width - GAP, y, SMALL, ha="right", va="center", color=FAINT)
        axes.set(ylim=(len(numbers) - 0.5, -0.5))
        axes.set_yticks([])
        axes.margins(x=0.04)
        axes.tick_params("x", labelsize=SMALL, width=0.5, length=2)
        axes.xaxis.set_major_formatter(lambda value, _: number(value))
        axes.set_xlabel(label, size=LABEL, labelpad=2, parse_math=False)
    return sheet


def _density(repeats: Float64) -> tuple[Float64, Float64]:
    """Where, and how dense the numbers are there, at most 1; nothing where they are too few to say."""
    if len(np.unique(repeats)) < 3:
        return np.zeros(0), np.zeros(0)
    line = np.linspace(repeats.min(), repeats.max(), 200)
    density = np.asarray(gaussian_kde(repeats)(line), np.float64)
    return line, density / density.max()


def _spread(count: int) -> Float64:
    """(count,) numbers from -1 to 1 that keep points apart, the same each time: multiples of the golden ratio."""
    return np.asarray(2 * (np.arange(count) * 0.6180339887498949 % 1) - 1 if count > 1 else np.zeros(count), np.float64)
