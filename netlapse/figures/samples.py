"""Sample maps of a layer, step beside step: how the inputs of a probe come apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from netlapse.figures.sheet import (
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
    empty,
    own_style,
    text_height,
    text_width,
)
from netlapse.recording import Recording
from netlapse.render.colours import HUES
from netlapse.types import Findings, Float64, Int64

LEAST, MOST = 3.7, 5.6
"""Centimetres that a map is wide."""
BAR = ((-1.0, -0.3), (1.0, -0.3), (1.0, 0.3), (-1.0, 0.3))
MARKS = ("o", "s", "^", "d", "P", "X", "v", "o", "s", BAR)
"""The shapes of `netlapse.render.scatter.scatter`, of which those in HOLLOW are not filled."""
HOLLOW = (7, 8)
SIZE = 3.0
"""How wide a point is, in points."""


def samples(
    recording: Recording,
    layer: str,
    steps: Sequence[int] | None = None,
    *,
    analysis: str = "samples",
    title: str | None = None,
    legend: bool = True,
    width: float = PAGE,
) -> Sheet:
    """A map for each step, on which every input of the probe is a point in the colour and the shape of its group, over a legend.

    steps     None: the last one
    analysis  the name under which `netlapse.analysis.samples.samples` was observed
    title     None: layer and number of inputs; "": none
    legend    whether groups and their marks are listed: those with inputs at any of the steps, at most a hundred
    width     centimetres, in print

    Under each map is the share of an input's nearest ones that are of its own group, in the layer and on the map, beside which the
    note has the share by chance at the last of the steps. A step at which the layer has no map says so.

    Raises ValueError, saying what there is, for an analysis, a layer or a step that the recording has not, and for no steps.
    """
    found, unit = _found(recording, layer, steps, analysis), str(recording.manifest.get("step_unit") or "step")
    width = checked_width(width)
    last = list(found.values())[-1]
    names = [str(name) for name in last.arrays["names"].tolist()]
    heading = f"{layer} \u00b7 {len(last.arrays['inputs'])} inputs" if title is None else title
    heading = broken(heading, width - 2 * GAP, TITLE)
    chance = last.scalars[f"samples/same_group_null/{layer}"]
    note = f"Below each map: the share of an input's nearest ones that are of its own group. By chance: {_share(chance)}."
    note = broken(note, width - 2 * GAP, SMALL)
    most = max(1, int((width - GAP) / (LEAST + GAP)))
    rows = -(-len(found) // most)
    columns = -(-len(found) // rows)
    tile = min(MOST, (width - GAP) / columns - GAP)
    left = (width - columns * (tile + GAP) + GAP) / 2
    top = GAP + (text_height(heading, TITLE) + GAP if heading else 0)
    above, below = text_height("x", LABEL), text_height("x", SMALL)
    pitch = above + tile + below + 2 * GAP
    entries = _entries(found, names) if legend else []
    line = text_height("x", SMALL) + 0.06
    each = max((text_width(text, SMALL) for text, _ in entries), default=1.0) + 0.55
    across = max(1, min(len(entries), int((width - 2 * GAP) / each)))
    foot = top + rows * pitch
    listed = -(-len(entries) // across) * line + (GAP if entries else 0)
    with own_style():
        sheet = Sheet(width, foot + listed + text_height(note, SMALL) + 2 * GAP)
        sheet.write(heading, GAP, GAP, TITLE)
        for i, (step, findings) in enumerate(found.items()):
            row, column = divmod(i, columns)
            x, y = left + column * (tile + GAP), top + row * pitch
            sheet.write(f"{unit} {step}", x + tile / 2, y, LABEL, ha="center")
            _map(sheet, findings, layer, x, y + above, tile)
        margin = (width - across * each) / 2
        for i, (text, group) in enumerate(entries):
            row, column = divmod(i, across)
            x, y = margin + column * each, foot + (row + 0.5) * line
            axes = sheet.place(x, y - 0.15, 0.3, 0.3)
            _draw(axes, np.full((1, 2), 0.5), np.array([group]))
            axes.set(xlim=(0, 1), ylim=(0, 1))
            sheet.write(text, x + 0.35, y, SMALL, va="center_baseline")
        sheet.write(note, GAP, foot + listed + GAP / 2, SMALL, color=FAINT)
    return sheet


def _found(recording: Recording, layer: str, steps: Sequence[int] | None, analysis: str) -> Mapping[int, Findings]:
    """The findings of the steps, in their order."""
    by_step = {step: found for step, found in recording.findings.get(analysis, {}).items() if f"samples/same_group/{layer}" in found.scalars}
    if not by_step:
        shares = "samples/same_group/"
        there = {
            name: sorted({key.removeprefix(shares) for one in found.values() for key in one.scalars if key.startswith(shares)})
            for name, found in recording.findings.items()
        }
        raise ValueError(
            f"no sample maps of layer {layer!r} by the analysis {analysis!r}; there are, by analysis, those of "
            f"{ {name: layers for name, layers in there.items() if layers} or 'none: observe netlapse.analysis.samples, as with analyses=samples' }"
        )
    chosen = [max(by_step)] if steps is None else list(steps)
    if not chosen or any(step not in by_step for step in chosen):
        raise ValueError(f"sample maps of layer {layer!r} were asked for of the steps {chosen}; there are some of {sorted(by_step)}")
    return {step: by_step[step] for step in chosen}


def _entries(found: Mapping[int, Findings], names: Sequence[str]) -> list[tuple[str, int]]:
    """The words of the legend, with the group whose mark they explain."""
    present = np.unique(np.concatenate([findings.arrays["groups"] for findings in found.values()])).astype(int).tolist()
    marks = len(HUES) * len(MARKS)
    more = [group for group in present if group >= marks]
    shortened = [(broken(names[group], 3.0, SMALL, 1), group) for group in present if group < marks]
    return shortened + ([(f"{len(more)} more", marks)] if more else [])


def _map(sheet: Sheet, findings: Findings, layer: str, x: float, y: float, tile: float) -> None:
    if f"samples/{layer}" not in findings.arrays:
        empty(sheet, x, y, tile, tile, "no map: responses are not finite, or all alike")
        return
    points, groups = np.asarray(findings.arrays[f"samples/{layer}"], np.float64), np.asarray(findings.arrays["groups"], np.int64)
    axes = sheet.place(x, y, tile, tile)
    axes.set_axis_on()
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xticks=[], yticks=[])
    axes.spines[:].set(linewidth=0.4, color=FAINT)
    shuffled = np.random.default_rng(0).permutation(len(points))  # which point covers which has nothing to do with groups
    _draw(axes, points[shuffled], groups[shuffled])
    layers, on_map = (_share(findings.scalars[f"samples/{name}/{layer}"]) for name in ("same_group", "same_group_map"))
    sheet.write(f"{layers} in the layer, {on_map} on the map", x + tile / 2, y + tile + 0.05, SMALL, ha="center", color=FAINT)


def _draw(axes: Axes, points: Float64, groups: Int64) -> None:
    """The marks of the groups (m,) at the points (m, 2), shape after shape."""
    shapes, hues = np.minimum(groups // len(HUES), len(MARKS)), np.array(HUES)[groups % len(HUES)] / 255
    for shape in np.unique(shapes).tolist():
        (x, y), colours = points[shapes == shape].T, hues[shapes == shape]
        style: dict[str, Any] = {"marker": "o", "s": SIZE**2 / 4, "c": INK, "linewidths": 0}
        if shape < len(MARKS):
            style = {"marker": MARKS[shape], "s": SIZE**2, "c": colours, "linewidths": 0.2, "edgecolors": "white"}
        if shape in HOLLOW:
            style |= {"c": "none", "linewidths": 0.8, "edgecolors": colours}
        axes.scatter(x, y, **style)


def _share(share: float) -> str:
    return "undefined" if np.isnan(share) else f"{share:.0%}"
