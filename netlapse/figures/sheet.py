"""A figure measured in centimetres, its words, its colour bar, and its files.

A figure for a paper has a width that is given, and letters that may not shrink below 6 points; so everything has its place in
centimetres from the top left corner, and what does not fit is broken into lines or shortened, and never made smaller.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle
from matplotlib.textpath import text_to_path

from netlapse.render.colours import BLUE_WHITE_RED, LEVELS, palette
from netlapse.types import Float64

COLUMN, PAGE = 8.5, 17.5
"""Widths in centimetres of a column and of a page of a journal."""
TITLE, LABEL, SMALL = 8.0, 7.0, 6.0
"""Sizes of letters in points."""
GAP = 0.15
INK, FAINT, EMPTY = "#18181c", "#6e6e76", "#ededed"
"""Colours of letters and lines, of what stands back, and of a place where there is nothing to draw."""
CENTIMETRES = 2.54  # in an inch
BAR_HEIGHT = 1.2
"""Centimetres that a colour bar takes with its words."""
FORMATS = ("pdf", "svg", "png")
FONT = "DejaVu Sans"  # matplotlib carries it: the same letters everywhere


class Sheet(Figure):
    """A figure of a width and a height in centimetres. Places on it are in centimetres from its top left corner."""

    def __init__(self, width: float, height: float) -> None:
        super().__init__(figsize=(width / CENTIMETRES, height / CENTIMETRES), dpi=150, facecolor="white")
        self.width, self.height = width, height

    def place(self, x: float, y: float, width: float, height: float) -> Axes:
        """Empty axes, without a frame, whose top left corner is at x, y."""
        axes = self.add_axes((x / self.width, 1 - (y + height) / self.height, width / self.width, height / self.height))
        axes.set_axis_off()
        return axes

    def write(self, text: str, x: float, y: float, size: float = LABEL, *, ha: str = "left", va: str = "top", **options: Any) -> None:
        """A line or lines of text, of which that point is at x, y which `ha` and `va` say; never taken for mathematics."""
        style: Any = {"color": INK, "linespacing": 1.15, "parse_math": False, **options}
        self.text(x / self.width, 1 - y / self.height, text, size=size, ha=ha, va=va, **style)

    def _repr_png_(self) -> bytes:
        """What a notebook shows; a Figure that pyplot does not know would be shown there as its name."""
        file = io.BytesIO()
        with own_style():
            self.savefig(file, format="png", dpi=150)
        return file.getvalue()


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure to a .pdf, .svg or .png (300 dots per inch) file and return its path; folders are made, a file is replaced.

    The same figure gives the same bytes: no dates, no random names. Text stays text that can be searched and edited.
    Raises ValueError for a file of another kind.
    """
    path = Path(path).expanduser()
    kind = path.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise ValueError(f"a figure cannot be saved as {path.name!r}; expected a file that ends in one of {[f'.{known}' for known in FORMATS]}")
    dates = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}[kind]
    file = io.BytesIO()
    with own_style():
        figure.savefig(file, format=kind, dpi=300, metadata=dates)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(file.getvalue())
    return path


@contextmanager
def own_style() -> Iterator[None]:
    """matplotlib's own settings with ours inside, whatever the user has set; the user's again outside."""
    ours: Any = {"font.family": FONT, "pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "netlapse", "axes.linewidth": 0.5}
    with matplotlib.style.context("default"), matplotlib.rc_context(ours):
        yield


@lru_cache(maxsize=4096)
def text_width(text: str, size: float) -> float:
    """Centimetres that a line of text takes."""
    width, _, _ = text_to_path.get_text_width_height_descent(text, FontProperties(family=FONT, size=size), ismath=False)
    return 1.03 * float(width) / 72 * CENTIMETRES  # on a screen, letters stand on whole pixels and take up to that much more


def text_height(text: str, size: float) -> float:
    """Centimetres that lines of text take; no lines take none."""
    return (text.count("\n") + 1) * size * 1.25 / 72 * CENTIMETRES if text else 0.0


def broken(text: str, width: float, size: float, lines: int = 3) -> str:
    """The text in lines, at most so many, that fit into the width; what is too long loses its middle."""
    done: list[str] = []
    for word in text.split():
        if done and (len(done) == lines or text_width(f"{done[-1]} {word}", size) <= width):
            done[-1] += f" {word}"
        else:
            done.append(word)
    return "\n".join(_shortened(line, width, size) for line in done)


def _shortened(text: str, width: float, size: float) -> str:
    kept = len(text)
    shorter = text
    while kept > 1 and text_width(shorter, size) > width:
        kept -= 1
        shorter = text[: -(-kept // 2)] + "\u2026" + text[len(text) - kept // 2 :]
    return shorter


def number(value: float) -> str:
    """A number as it is written on a figure, with a true minus."""
    return f"{value:.3g}".replace("-", "\u2212")


def colour_bar(sheet: Sheet, y: float, limit: float, beyond: bool, label: str, colours: str = BLUE_WHITE_RED) -> None:
    """The scale from -limit to limit, in the middle of the sheet, with its numbers and what they are.

    beyond  whether some values shown are outside of the scale: then its ends are written as what they stand for
    """
    width = min(5.0, sheet.width * 0.5)
    x = (sheet.width - width) / 2
    axes = sheet.place(x, y, width, 0.22)
    axes.imshow(palette(colours)[None, :LEVELS], aspect="auto", interpolation="none")
    _framed(axes)
    ends = ("\u2264 ", "\u2265 ") if beyond else ("", "")
    for where, text in ((0.0, ends[0] + number(-limit)), (0.5, "0"), (1.0, ends[1] + number(limit))):
        sheet.write(text, x + where * width, y + 0.28, SMALL, ha="center")
    sheet.write(broken(label, sheet.width - 2 * GAP, SMALL, 2), sheet.width / 2, y + 0.58, SMALL, ha="center")


def empty(sheet: Sheet, x: float, y: float, width: float, height: float, words: str) -> None:
    """A grey place that says why nothing is drawn there, if the words fit."""
    axes = sheet.place(x, y, width, height)
    axes.add_patch(Rectangle((0, 0), 1, 1, facecolor=EMPTY, linewidth=0))
    lines = broken(words, width, SMALL, max(1, int(height / text_height("x", SMALL))))
    if "\u2026" not in lines:
        sheet.write(lines, x + width / 2, y + height / 2, SMALL, ha="center", va="center", color=FAINT)


def _framed(axes: Axes) -> None:
    axes.set_axis_on()
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(linewidth=0.4, color=FAINT)


def limit_of(limit: float | Literal["max"], values: Float64) -> tuple[float, bool]:
    """The end of a colour scale, and whether some of the values lie beyond it.

    Raises ValueError for a limit that is neither "max" nor a finite number above 0.
    """
    largest = float(np.max(np.abs(values), initial=0.0, where=np.isfinite(values)))
    if limit == "max":
        return largest, False
    if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not (np.isfinite(limit) and limit > 0):
        raise ValueError(f"the limit of the colour scale is {limit!r}; expected a number above 0, in standard deviations of the layer, or 'max'")
    return float(limit), largest > limit


def checked_width(width: float) -> float:
    """Raises ValueError for a width at which nothing would be legible."""
    if isinstance(width, str) or not 4 <= width <= 200:
        raise ValueError(f"the width of the figure is {width}; expected 4 to 200 centimetres, as {COLUMN} for a column or {PAGE} for a page")
    return width
