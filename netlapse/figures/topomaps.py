"""Topomaps side by side: of the groups of a step, of a confusion matrix, of the steps of a training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from netlapse.analysis.groups import order as clustered_order
from netlapse.field import Kind, covered, fields, interpolation
from netlapse.figures.inputs import example_inputs, groups_of, mean_inputs
from netlapse.figures.recorded import SCALE, TOPOMAP, LayerContrasts, contrasts, layout_in_words, places
from netlapse.figures.sheet import (
    BAR_HEIGHT,
    CENTIMETRES,
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
    empty,
    limit_of,
    own_style,
    text_height,
    text_width,
)
from netlapse.recording import Recording
from netlapse.render.colours import BLUE_WHITE_RED, diverging, palette
from netlapse.types import Array, Float64, ProbeSet, UInt8

Order = Literal["given", "clustered"]
Inputs = Literal["example", "mean"]
LEAST, MOST = 1.4, 2.6
"""Centimetres that a map of a row is wide."""
SMALLEST = 0.6
"""Centimetres below which a map of a grid shows nothing."""


def topomap_row(
    recording: Recording,
    layer: str,
    step: int | None = None,
    *,
    groups: Sequence[str] | None = None,
    order: Order = "given",
    kind: Kind = "linear",
    dots: bool = False,
    limit: float | Literal["max"] = 2.0,
    inputs: Inputs | Array | None = None,
    probe: ProbeSet | None = None,
    layout: str = TOPOMAP,
    title: str | None = None,
    colour_bar: bool = True,
    colours: str = BLUE_WHITE_RED,
    width: float = PAGE,
) -> Sheet:
    """A map for each group, in one colour scale, under the group's name and over its number of inputs.

    step        None: the last that has profiles
    groups      names of the groups to show; None: all of them
    order       "clustered": similar groups next to each other, see `netlapse.analysis.groups.order`
    kind        how values are drawn between the units, see `netlapse.field.interpolation`
    dots        whether the units are marked; those that do one and the same for all inputs always are, and have no part in the map
    limit       the end of the colour scale, in standard deviations of the layer; "max": the largest value shown
    inputs      "example": the first input of each group, "mean": the mean over them, both of `probe`, in groups by label or by
                attributes; or arrays (g, h, w, c), one for each group of the recording in its order
    layout      the analysis whose layout is taken, as "topomap_last" after a relayout
    title       None: layer, units, step, and the step whose layout it is; "": none
    width       centimetres, in print

    Raises ValueError, saying what there is, for a layer, step, group or layout that the recording has not, for a layer with
    nothing to draw at this step, and for other options than those above.
    """
    all_groups = contrasts(recording, layer, step).drawable()
    shown = _ordered(all_groups.of(groups), order)
    positions, made = places(recording, layer, shown.step, layout)
    pictures = _pictures(recording, all_groups, inputs, probe)
    bound, beyond = limit_of(limit, shown.values)
    heading = f"{shown.title}, {layout_in_words([made], shown.unit)}" if title is None else title
    width = checked_width(width)
    columns = _columns(len(shown.names), width)
    rows = -(-len(shown.names) // columns)
    tile = min(MOST, (width - 2 * GAP + GAP) / columns - GAP)
    left = (width - columns * (tile + GAP) + GAP) / 2
    names = [broken(name, tile + 0.1, LABEL) for name in shown.names]
    name_height, count_height = max(text_height(name, LABEL) for name in names), text_height("n", SMALL) + 0.05
    picture_height = 0.0 if pictures is None else 0.6 * tile + GAP / 2
    pitch = name_height + picture_height + tile + count_height + 1.5 * GAP
    heading = broken(heading, width - 2 * GAP, TITLE)
    top = GAP + (text_height(heading, TITLE) + GAP if heading else 0)
    with own_style():
        sheet = Sheet(width, top + rows * pitch + (BAR_HEIGHT if colour_bar else 0))
        sheet.write(heading, GAP, GAP, TITLE)
        brush = _Brush(sheet, positions, kind, dots, bound, colours)
        for i, name in enumerate(names):
            row, column = divmod(i, columns)
            x, y = left + column * (tile + GAP), top + row * pitch + name_height
            sheet.write(name, x + tile / 2, y, LABEL, ha="center", va="bottom")
            if pictures is not None:
                _picture(sheet, pictures[shown.names[i]], x + 0.2 * tile, y + GAP / 3, 0.6 * tile)
            y += picture_height
            brush.map(shown, i, x, y, tile)
            sheet.write(f"n = {shown.counts[i]}", x + tile / 2, y + tile + 0.03, SMALL, ha="center", color=FAINT)
        if colour_bar:
            _bar(sheet, bound, beyond, colours)
    return sheet


def topomap_grid(
    recording: Recording,
    layer: str,
    step: int | None = None,
    *,
    classes: Sequence[str] | None = None,
    kind: Kind = "linear",
    dots: bool = False,
    limit: float | Literal["max"] = 2.0,
    layout: str = TOPOMAP,
    title: str | None = None,
    colour_bar: bool = True,
    colours: str = BLUE_WHITE_RED,
    width: float = PAGE,
) -> Sheet:
    """The maps of groups by confusion, a row for each true and a column for each predicted class; or of groups by outcome, two rows.

    classes  names of the classes to show; None: all of them

    Under each map is its number of inputs. Other arguments and errors as of `topomap_row`; ValueError also where the
    recording's groups are others, and where the classes are too many for the width.
    """
    shown = contrasts(recording, layer, step).drawable()
    names = _classes(recording, classes)
    rows, columns, cells = _cells(shown, names)
    across, down = ("predicted", "true") if rows == names else ("class", "outcome")
    positions, made = places(recording, layer, shown.step, layout)
    inside = shown.take(np.array([cell for line in cells for cell in line]))
    bound, beyond = limit_of(limit, inside.values)
    width = checked_width(width)
    side = 0.45 + min(2.5, max(text_width(name, LABEL) for name in rows))
    tile = _tile(len(columns), width - side - 2 * GAP, "classes", GAP / 2)
    heading = f"{shown.title}, {layout_in_words([made], shown.unit)}" if title is None else title
    heading = broken(heading, width - 2 * GAP, TITLE)
    labels = [broken(name, tile + GAP / 4, LABEL) for name in columns]
    top = GAP + (text_height(heading, TITLE) + GAP if heading else 0)
    grid = top + 0.35 + max(text_height(label, LABEL) for label in labels) + GAP / 2
    across_pitch, pitch = tile + GAP / 2, tile + text_height("n", SMALL) + GAP / 2
    prefix = "n = " if text_width(f"n = {inside.counts.max()}", SMALL) <= tile else ""
    with own_style():
        sheet = Sheet(width, grid + len(rows) * pitch + GAP + (BAR_HEIGHT if colour_bar else 0))
        sheet.write(heading, GAP, GAP, TITLE)
        left = GAP + side + (width - side - 2 * GAP - len(columns) * across_pitch + GAP / 2) / 2
        across += "" if prefix else " (numbers of inputs are under the maps)"
        sheet.write(across, left + len(columns) * across_pitch / 2, top, LABEL, ha="center", color=FAINT)
        sheet.write(down, left - side, grid + len(rows) * pitch / 2, LABEL, va="center", rotation=90, color=FAINT)
        for j, label in enumerate(labels):
            sheet.write(label, left + j * across_pitch + tile / 2, grid - GAP / 3, LABEL, ha="center", va="bottom")
        brush = _Brush(sheet, positions, kind, dots, bound, colours)
        for i, name in enumerate(rows):
            y = grid + i * pitch
            sheet.write(broken(name, side - 0.45, LABEL), left - GAP / 2, y + tile / 2, LABEL, ha="right", va="center")
            for j, cell in enumerate(cells[i]):
                x = left + j * across_pitch
                brush.map(shown, cell, x, y, tile)
                if shown.counts[cell] or text_width("inputs", SMALL) > tile:  # else it says so itself
                    sheet.write(f"{prefix}{shown.counts[cell]}", x + tile / 2, y + tile + 0.02, SMALL, ha="center", color=FAINT)
        if colour_bar:
            _bar(sheet, bound, beyond, colours)
    return sheet


def storyboard(
    recording: Recording,
    layers: Sequence[str],
    steps: Sequence[int],
    group: str,
    *,
    kind: Kind = "linear",
    dots: bool = False,
    limit: float | Literal["max"] = 2.0,
    layout: str = TOPOMAP,
    title: str | None = None,
    colour_bar: bool = True,
    colours: str = BLUE_WHITE_RED,
    width: float = PAGE,
) -> Sheet:
    """How the maps of one group come about: a row for each layer, a column for each step, one colour scale.

    A layer with nothing to draw at a step says why. Other arguments and errors as of `topomap_row`; ValueError also where the
    steps are too many for the width, and where no layer or step is named.
    """
    if not len(layers) or not len(steps) or isinstance(layers, str):
        raise ValueError(f"a storyboard was asked for of the layers {layers!r} and the steps {list(steps)}; expected a list of one or more of each")
    shown = [[contrasts(recording, layer, step).of([group]) for step in steps] for layer in layers]
    laid_out = [[places(recording, one.layer, one.step, layout) if not one.missing else None for one in row] for row in shown]
    every = [one.values.ravel() for row in shown for one in row if not one.missing]
    bound, beyond = limit_of(limit, np.concatenate(every) if every else np.zeros(1))
    width = checked_width(width)
    side = min(width / 4, max(text_width(layer, LABEL) for layer in layers)) + GAP
    tile = min(MOST, _tile(len(steps), width - side - 2 * GAP, "steps", GAP))
    unit = shown[0][0].unit
    made = [place[1] for row in laid_out for place in row if place is not None]
    heading = f"group {group}" + (f", {layout_in_words(made, unit)}" if made else "") if title is None else title
    heading = broken(heading, width - 2 * GAP, TITLE)
    top = GAP + (text_height(heading, TITLE) + GAP if heading else 0)
    grid = top + text_height(unit, LABEL) + GAP / 2
    left = GAP + side + (width - side - 2 * GAP - len(steps) * (tile + GAP) + GAP) / 2
    with own_style():
        sheet = Sheet(width, grid + len(layers) * (tile + GAP) + GAP + (BAR_HEIGHT if colour_bar else 0))
        sheet.write(heading, GAP, GAP, TITLE)
        long = text_width(f"{unit} {max(steps)}", LABEL) <= tile
        for j, step in enumerate(steps):
            words = f"{unit} {step}" if long else str(step)
            sheet.write(words, left + j * (tile + GAP) + tile / 2, grid - GAP / 2, LABEL, ha="center", va="bottom")
        if not long:
            sheet.write(unit, left - GAP, grid - GAP / 2, LABEL, ha="right", va="bottom", color=FAINT)
        for i, layer in enumerate(layers):
            y = grid + i * (tile + GAP)
            sheet.write(broken(layer, side - GAP, LABEL), left - GAP, y + tile / 2, LABEL, ha="right", va="center")
            for j, (one, place) in enumerate(zip(shown[i], laid_out[i])):
                x = left + j * (tile + GAP)
                if place is None:
                    empty(sheet, x, y, tile, tile, one.missing)
                else:
                    _Brush(sheet, place[0], kind, dots, bound, colours).map(one, 0, x, y, tile)
        if colour_bar:
            _bar(sheet, bound, beyond, colours)
    return sheet


class _Brush:
    """Draws maps of one layout in one scale."""

    def __init__(self, sheet: Sheet, positions: Float64, kind: Kind, dots: bool, limit: float, colours: str) -> None:
        self.sheet, self.positions, self.kind, self.dots, self.limit = sheet, positions, kind, dots, limit
        self.colours: UInt8 = palette(colours)

    def map(self, shown: LayerContrasts, group: int, x: float, y: float, side: float) -> None:
        """The map of a group, or that it has no inputs, in the square whose top left corner is at x, y."""
        if shown.counts[group] == 0:
            empty(self.sheet, x, y, side, side, "no inputs")
            return
        resolution = max(64, round(side / CENTIMETRES * 300))
        living = ~shown.silent
        operator = interpolation(self.positions[living], resolution, self.kind)
        levels = diverging(fields(operator, shown.values[group][None, living])[0], self.limit)
        inside = covered(operator).reshape(resolution, resolution)
        axes = self.sheet.place(x, y, side, side)
        axes.imshow(np.dstack([self.colours[levels], np.where(inside, 255, 0).astype(np.uint8)]), extent=(0, 1, 0, 1), interpolation="none")
        # White is zero inside and nothing outside: the line tells which.
        centres = (np.arange(-1, resolution + 1) + 0.5) / resolution
        axes.contour(centres, centres[::-1], np.pad(inside, 1).astype(float), levels=[0.5], colors=FAINT, linewidths=0.3)
        marked = self.positions[np.full(len(self.positions), self.dots) | shown.silent]
        if len(marked):
            size = min(2.0, 10 * side / float(np.sqrt(len(self.positions))))
            axes.plot(*marked.T, ".", color=INK, markersize=size, markeredgewidth=0, clip_on=False)
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))


def _ordered(shown: LayerContrasts, order: Order) -> LayerContrasts:
    if order not in get_args(Order):
        raise ValueError(f"unknown order of groups {order!r}; allowed are {list(get_args(Order))}")
    return shown if order == "given" else shown.take(clustered_order(shown.values))


def _pictures(recording: Recording, shown: LayerContrasts, inputs: Inputs | Array | None, probe: ProbeSet | None) -> dict[str, UInt8] | None:
    """Group -> the picture of its inputs (h, w, 3), all in one scale; None where none are asked for."""
    if inputs is None:
        return None
    if isinstance(inputs, str):
        if inputs not in get_args(Inputs):
            raise ValueError(f"inputs are {inputs!r}; allowed are {list(get_args(Inputs))}, an array, or None")
        if probe is None:
            raise ValueError(
                f"inputs={inputs!r} needs the probe; pass probe=, as netlapse.figures.recorded_probe(run) reads it, or the inputs themselves"
            )
        groups, names = groups_of(recording, probe)
        images = (example_inputs if inputs == "example" else mean_inputs)(probe, groups, len(names))
    else:
        names, images = shown.names, np.asarray(inputs, np.float64)
    if images.ndim != 4 or len(images) != len(names) or images.shape[3] not in (1, 3):
        raise ValueError(f"inputs have shape {images.shape}; expected ({len(names)}, h, w, c), an image of 1 or 3 channels for each of {list(names)}")
    low, high = float(np.nanmin(images)), float(np.nanmax(images))
    shades = np.broadcast_to(np.clip((images - low) / (high - low if high > low else 1.0), 0, 1), (*images.shape[:3], 3))
    white = np.where(np.isnan(shades), 1.0, shades)
    return {name: np.rint(white[i] * 255).astype(np.uint8) for i, name in enumerate(names)}


def _picture(sheet: Sheet, image: UInt8, x: float, y: float, side: float) -> None:
    """An image in the middle of a square."""
    axes = sheet.place(x, y, side, side)
    h, w = np.array(image.shape[:2]) / max(image.shape[:2])
    axes.imshow(image, extent=((1 - w) / 2, (1 + w) / 2, (1 - h) / 2, (1 + h) / 2), interpolation="none")
    axes.set(xlim=(0, 1), ylim=(0, 1))


def _columns(groups: int, width: float) -> int:
    """How many maps stand next to each other, so that as few rows as can be are as even as can be."""
    columns = max(1, int((width - GAP) / (LEAST + GAP)))
    rows = -(-groups // columns)
    return -(-groups // rows)


def _tile(count: int, width: float, what: str, gap: float) -> float:
    """The width of one of so many maps; raises ValueError where it would be too small."""
    tile = (width + gap) / count - gap
    if tile < SMALLEST:
        raise ValueError(f"{count} {what} do not fit into {width:.1f} cm; choose at most {int((width + gap) / (SMALLEST + gap))}, or more width")
    return min(tile, MOST)


def _classes(recording: Recording, chosen: Sequence[str] | None) -> list[str]:
    listed = recording.manifest.get("class_names")
    known = [str(name) for name in listed] if isinstance(listed, Sequence) else []
    unknown = [name for name in chosen or () if name not in known]
    if unknown or (chosen is not None and not len(chosen)):
        raise ValueError(f"classes are {chosen!r}; expected one or more of {known}, the classes of this recording")
    return known if chosen is None else list(chosen)


def _cells(shown: LayerContrasts, classes: Sequence[str]) -> tuple[list[str], list[str], list[list[int]]]:
    """Names of the rows, of the columns, and the group of each cell."""
    confusion = [[f"{true} as {predicted}" for predicted in classes] for true in classes]
    outcome = [[f"{name} {outcome}" for name in classes] for outcome in ("correct", "wrong")]
    for rows, names in ((list(classes), confusion), (["correct", "wrong"], outcome)):
        if classes and {name for line in names for name in line} <= set(shown.names):
            return rows, list(classes), [[shown.names.index(name) for name in line] for line in names]
    raise ValueError(
        f"a grid has groups by confusion ('3 as 5') or by outcome ('3 wrong'), and this recording has the groups {list(shown.names)[:12]}; "
        "train or reanalyse with grouping=confusion or grouping=outcome, or draw a topomap_row"
    )


def _bar(sheet: Sheet, limit: float, beyond: bool, colours: str) -> None:
    colour_bar(sheet, sheet.height - BAR_HEIGHT + 0.1, limit, beyond, SCALE, colours)
