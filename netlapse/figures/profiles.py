"""Profiles as they are, unit by unit, and how alike they make the groups: heat maps and dendrograms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from scipy.cluster import hierarchy

from netlapse.analysis.groups import linkage, order, present
from netlapse.figures.recorded import SCALE, LayerContrasts, contrasts
from netlapse.figures.sheet import (
    BAR_HEIGHT,
    EMPTY,
    FAINT,
    GAP,
    INK,
    LABEL,
    PAGE,
    SMALL,
    TITLE,
    Sheet,
    broken,
    checked_width,
    colour_bar,
    limit_of,
    number,
    own_style,
    text_height,
    text_width,
)
from netlapse.recording import Recording
from netlapse.render.colours import BLUE_WHITE_RED, diverging, palette
from netlapse.types import Float64, Int64

ROW = 0.36
"""Centimetres that a group's row is high: its name must fit."""
TREE = 1.6
"""Centimetres that a dendrogram beside a heat map takes."""


def heat_map(
    recording: Recording,
    layer: str,
    step: int | None = None,
    *,
    groups: Sequence[str] | None = None,
    limit: float | Literal["max"] = 2.0,
    title: str | None = None,
    colours: str = BLUE_WHITE_RED,
    width: float = PAGE,
) -> Sheet:
    """Groups x units, both in their own order, the units with their numbers: for layers with few units.

    Arguments and errors as of `netlapse.figures.topomap_row`.
    """
    shown = contrasts(recording, layer, step).drawable().of(groups)
    return _heat(shown, np.arange(shown.values.shape[1]), None, None, limit, title, colours, width)


def clustered_heat_map(
    recording: Recording,
    layer: str,
    step: int | None = None,
    *,
    groups: Sequence[str] | None = None,
    metric: str = "cosine",
    method: str = "average",
    limit: float | Literal["max"] = 2.0,
    title: str | None = None,
    colours: str = BLUE_WHITE_RED,
    width: float = PAGE,
) -> Sheet:
    """Groups x units, each in the order of their clustering, whose trees are beside them; groups without inputs are left out, and named.

    metric, method  of both clusterings, see `netlapse.analysis.groups`

    Other arguments and errors as of `netlapse.figures.topomap_row`; ValueError also where no group has inputs.
    """
    shown = contrasts(recording, layer, step).drawable().of(groups)
    seen = _with_inputs(shown)
    rows, columns = linkage(seen.values, metric=metric, method=method), linkage(seen.values.T, metric=metric, method=method)
    arranged = seen.take(order(seen.values, metric=metric, method=method))
    units = order(seen.values.T, metric=metric, method=method)
    return _heat(arranged, units, rows, columns, limit, title, colours, width, note=_left_out(shown))


def dendrogram(
    recording: Recording,
    layer: str,
    step: int | None = None,
    *,
    groups: Sequence[str] | None = None,
    metric: str = "cosine",
    method: str = "average",
    title: str | None = None,
    width: float = 8.5,
) -> Sheet:
    """How alike a layer makes the groups: the tree of their clustering, with the distance at which they are joined.

    metric, method  see `netlapse.analysis.groups`

    Groups without inputs are left out, and named. Other arguments and errors as of `netlapse.figures.topomap_row`; ValueError
    also where fewer than two groups have inputs.
    """
    shown = contrasts(recording, layer, step).drawable().of(groups)
    seen = _with_inputs(shown)
    tree = linkage(seen.values, metric=metric, method=method)
    if not len(tree):
        raise ValueError(f"a dendrogram joins groups, and of {list(shown.names)} only {list(seen.names)} has inputs; choose others")
    names = seen.take(order(seen.values, metric=metric, method=method)).names
    width = checked_width(width)
    heading = broken(shown.title if title is None else title, width - 2 * GAP, TITLE)
    note = broken(_left_out(shown), width - 2 * GAP, SMALL)
    side = min(width * 0.4, max(text_width(name, LABEL) for name in names) + 2 * GAP)
    top = GAP + (text_height(heading, TITLE) + GAP if heading else 0)
    height = ROW * len(names)
    with own_style():
        sheet = Sheet(width, top + height + 1.0 + text_height(note, SMALL) + GAP)
        sheet.write(heading, GAP, GAP, TITLE)
        axes = sheet.place(2.5 * GAP, top, width - side - 3 * GAP, height)
        _tree(axes, tree, "left", linewidth=0.8)
        axes.set_axis_on()
        axes.spines[["left", "right", "top"]].set_visible(False)
        axes.set_yticks([])
        axes.tick_params("x", labelsize=SMALL, width=0.5, length=2)
        axes.xaxis.set_major_formatter(lambda value, _: number(value))
        axes.set_xlabel(f"{metric} distance, {method} linkage", size=SMALL, labelpad=2, parse_math=False)
        _names(sheet, names, width - side, top, side - GAP)
        sheet.write(note, GAP, top + height + 1.0, SMALL, color=FAINT)
    return sheet


def _heat(
    shown: LayerContrasts,
    units: Int64,
    rows: Float64 | None,
    columns: Float64 | None,
    limit: float | Literal["max"],
    title: str | None,
    colours: str,
    width: float,
    note: str = "",
) -> Sheet:
    """The heat map of the units in this order, with the trees of groups and units where there are any."""
    width = checked_width(width)
    values = shown.values[:, units]
    bound, beyond = limit_of(limit, values)
    heading = broken(shown.title if title is None else title, width - 2 * GAP, TITLE)
    note = broken(note, width - 2 * GAP, SMALL)
    side = min(width * 0.3, max(text_width(name, LABEL) for name in shown.names) + 2 * GAP)
    left = GAP + (0.0 if rows is None else min(TREE, width * 0.12))
    top = GAP + (text_height(heading, TITLE) + GAP if heading else 0) + (0.0 if columns is None else TREE * 0.7)
    across, down = width - left - side, ROW * len(values)
    words = "unit" if columns is None else "units, clustered"
    ticks = _numbered(units, across, thinned=columns is None)
    below = 0.4 if len(ticks) else 0.08
    foot = top + down + below + 0.35
    with own_style():
        sheet = Sheet(width, foot + text_height(note, SMALL) + BAR_HEIGHT)
        sheet.write(heading, GAP, GAP, TITLE)
        axes = sheet.place(left, top, across, down)
        pixels = palette(colours)[diverging(values, bound)]
        axes.imshow(pixels, aspect="auto", interpolation="none")
        axes.set_axis_on()
        axes.set_yticks([])
        axes.spines[:].set(linewidth=0.4, color=FAINT)
        for row in np.flatnonzero(shown.counts == 0).tolist():
            axes.axhspan(row - 0.5, row + 0.5, color=EMPTY, linewidth=0)
            axes.text(len(units) / 2 - 0.5, row, "no inputs", size=SMALL, color=FAINT, ha="center", va="center")
        axes.set_xticks(ticks, [str(unit) for unit in units[ticks]], size=SMALL)
        axes.tick_params("x", width=0.4, length=1.5, pad=1.5)
        sheet.write(words, left + across / 2, top + down + below, SMALL, ha="center")
        if rows is not None and len(rows):
            _tree(sheet.place(GAP, top, left - GAP - 0.05, down), rows, "left", linewidth=0.6)
        if columns is not None and len(columns):
            _tree(sheet.place(left, top - TREE * 0.7, across, TREE * 0.7 - 0.05), columns, "top", linewidth=0.4)
        _names(sheet, shown.names, width - side, top, side - GAP)
        sheet.write(note, GAP, foot, SMALL, color=FAINT)
        colour_bar(sheet, sheet.height - BAR_HEIGHT + 0.1, bound, beyond, SCALE, colours)
    return sheet


def _numbered(units: Int64, across: float, *, thinned: bool) -> Int64:
    """The columns under which a unit's number is written: as many as fit, or where some would not mean the others, all or none."""
    room = text_width(str(int(units.max())), SMALL) + 0.1
    least = int(np.ceil(room * len(units) / across))
    every = next(nice for nice in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, least) if nice >= least)
    return np.arange(0, len(units) if thinned or every == 1 else 0, every)


def _names(sheet: Sheet, names: Sequence[str], x: float, top: float, room: float) -> None:
    for row, name in enumerate(names):
        sheet.write(broken(name, room, LABEL, 1), x + 0.08, top + (row + 0.5) * ROW, LABEL, va="center_baseline")


def _tree(axes: Axes, tree: Float64, side: Literal["left", "top"], **style: Any) -> None:
    """A dendrogram with its root to that side; leaf i in the middle of the ith of as many equal parts, from the left or the top."""
    drawn = hierarchy.dendrogram(tree, no_plot=True)
    for at, height in zip(drawn["icoord"], drawn["dcoord"]):
        leaf = np.array(at) / 10 - 0.5  # scipy has leaves at 5, 15, 25, ...
        axes.plot(*((height, leaf) if side == "left" else (leaf, height)), color=INK, solid_joinstyle="miter", **style)
    most = float(tree[:, 2].max())
    most = 1.02 * most if most > 0 else 1.0
    leaves = (-0.5, len(tree) + 0.5)
    if side == "left":
        axes.set(xlim=(most, 0), ylim=leaves[::-1])
    else:
        axes.set(xlim=leaves, ylim=(0, most))


def _with_inputs(shown: LayerContrasts) -> LayerContrasts:
    there = present(shown.values)
    if not len(there):
        raise ValueError(
            f"none of the groups {list(shown.names)} has inputs at {shown.unit} {shown.step}, so there is nothing to cluster; choose others"
        )
    return shown.take(there)


def _left_out(shown: LayerContrasts) -> str:
    names = [name for name, count in zip(shown.names, shown.counts) if count == 0]
    return "" if not names else f"without inputs: {', '.join(names)}" if len(names) <= 20 else f"{len(names)} groups without inputs are left out"
