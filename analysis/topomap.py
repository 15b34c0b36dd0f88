"""Topographic activation maps: a group's profile drawn over the layout of a layer's units."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from netlapse.analysis.layout import flas
from netlapse.analysis.nap import contrast, scale
from netlapse.analysis.quality import motion, trustworthiness
from netlapse.field import fields, interpolation
from netlapse.render import BLUE_WHITE_RED, maps_row, palette, storyboard
from netlapse.types import Array, Findings, Float64, Int64, Snapshot, UInt8, checked_by


def interpolate(positions: Float64, values: Float64, resolution: int = 100) -> Float64:
    """The maps (g, r, r) of the units' values (g, u) at their positions (u, 2); row = 1 - y, column = x, NaN outside the hull.

    Linear on the Delaunay triangles of the positions. A row of NaN (an empty group) gives a map of NaN. To draw many steps
    on one layout, keep the operator: `netlapse.field.interpolation` and `fields`, where the degenerate cases are described.

    Raises ValueError for positions that are not finite (u, 2) and for values that are not (g, u).
    """
    return fields(interpolation(positions, resolution), np.asarray(values, dtype=np.float64))


Layout = Callable[..., Float64]
"""A function of `netlapse.analysis.layout`: (profiles (u, f), *, seed, previous) -> positions (u, 2)."""

UNIT = "standard deviations of the layer"
ALL_STEPS = -1
"""The `layout_step` of a layout that is made from all steps together."""


@dataclass(frozen=True, eq=False)
class Contrasts:
    """What the topomaps of one step are made of, seen just now or recorded before.

    names       the g groups             counts      (g,) inputs in each
    values      layer -> (g, u) each group's contrast, NaN rows for groups without inputs
    deviations  layer -> the standard deviation of the layer's responses over all inputs
    """

    step: int
    names: Sequence[str]
    counts: Int64
    values: Mapping[str, Float64]
    deviations: Mapping[str, float]

    def not_finite(self, layer: str) -> int:
        """How many of a layer's units have a response to some input that is NaN or infinite: such a layer is not laid out."""
        return int((~np.isfinite(self.values[layer][self.counts > 0])).any(axis=0).sum())

    def features(self, layer: str) -> Float64:
        """(u, f) what a layout compares units by: their contrasts in the groups that have inputs."""
        values = self.values[layer]
        return values[~np.isnan(values).all(axis=1)].T


@dataclass(frozen=True)
class Style:
    """How the maps of an analysis are drawn, and under which names they are kept.

    resolution, limit, colours  as in `topomap`
    images, metrics             what the images' and the metrics' names begin with
    storyboard                  the name of the picture of all layers
    """

    resolution: int = 64
    limit: float = 2.0
    colours: str = BLUE_WHITE_RED
    images: str = "topomap"
    metrics: str = "layout"
    storyboard: str = "storyboard"


Places = Mapping[str, tuple[Float64, int]]
"""Layer -> the positions (u, 2) of its units and the step whose contrasts they are made from, or ALL_STEPS."""


def laid_out(seen: Contrasts, previous: Findings | None, layout: Layout, seed: int) -> Places:
    """Every layer laid out by its own contrasts, going on from the positions of the step before.

    A layer in which a unit is not finite keeps the positions of the step before; without any it is left out.
    """
    places = {}
    for layer in seen.values:
        before = _places(previous, layer)
        if not seen.not_finite(layer):
            places[layer] = layout(seen.features(layer), seed=seed, previous=before and before[0]), seen.step
        elif before:
            places[layer] = before
    return places


def drawn(seen: Contrasts, places: Places, previous: Findings | None, style: Style, heading: str) -> Findings:
    """The findings of `topomap` at one step for layouts made anywhere, under the names of the style; `heading` stands over all layers.

    previous   the findings at the step before, from which motion is measured
    Every layer that is finite has its places.
    """
    arrays: dict[str, Array] = {}
    scalars: dict[str, float] = {}
    images: dict[str, UInt8] = {}
    rows: list[tuple[str, Float64 | str]] = []
    for layer, values in seen.values.items():
        missing = _why_not(seen, layer)
        shown = np.full((len(values), style.resolution, style.resolution), np.nan)
        trusted = float("nan")
        title = f"{layer} \u00b7 {values.shape[1]} units \u00b7 step {seen.step}"
        if not seen.not_finite(layer):
            trusted = trustworthiness(seen.features(layer), places[layer][0])
        if missing:
            title += f": {missing}"
        else:
            positions, made = places[layer]
            shown = interpolate(positions, values / seen.deviations[layer], style.resolution)
            title += f", {origin(made)}"
        scalars[f"{style.metrics}/trustworthiness/{layer}"] = trusted
        if layer in places:
            positions, made = places[layer]
            arrays |= {f"positions/{layer}": positions, f"layout_step/{layer}": np.array(made)}
            if before := _places(previous, layer):
                scalars[f"{style.metrics}/motion/{layer}"] = motion(positions, before[0])
        arrays[f"contrast/{layer}"] = values
        rows.append((layer, missing or shown))
        images[f"{style.images}/{layer}"] = maps_row(shown, seen.names, seen.counts.tolist(), style.limit, title, UNIT, style.colours)
    images[style.storyboard] = storyboard(rows, seen.names, style.limit, heading, UNIT, style.colours)
    return Findings(arrays, scalars, images)


def origin(made: int) -> str:
    """In words, what a layout with that `layout_step` is made from."""
    return "one layout for all steps" if made == ALL_STEPS else f"layout of step {made}"


def _why_not(seen: Contrasts, layer: str) -> str:
    """Why there are no maps of a layer; empty where there are."""
    if broken := seen.not_finite(layer):
        return f"{broken} of {seen.values[layer].shape[1]} units {'is' if broken == 1 else 'are'} not finite"
    return "" if seen.deviations[layer] > 0 else "every unit responds alike to every input"


def _places(findings: Findings | None, layer: str) -> tuple[Float64, int] | None:
    """Where a layer's units were, if the findings say, and the step that layout was made from."""
    if findings is None or f"positions/{layer}" not in findings.arrays:
        return None
    positions, made = (findings.arrays[f"{name}/{layer}"] for name in ("positions", "layout_step"))
    return np.asarray(positions, np.float64), int(np.asarray(made, np.int64))


def _check(snapshot: Snapshot, *, layout: Layout = flas, seed: int = 0, colours: str = BLUE_WHITE_RED, **options: object) -> None:
    """The layout can be made, of any profiles, and the colours are there: unknown metrics and wrong options show here."""
    profiles = np.random.default_rng(0).random((16, 3))
    positions = layout(profiles, seed=seed, previous=None)
    if np.shape(positions) != (16, 2):
        raise ValueError(f"layout returned positions of shape {np.shape(positions)} for 16 units; expected (16, 2)")
    palette(colours)


@checked_by(_check)
def topomap(
    snapshot: Snapshot,
    previous: Findings | None,
    *,
    layout: Layout = flas,
    seed: int = 0,
    resolution: int = 64,
    limit: float = 2.0,
    colours: str = BLUE_WHITE_RED,
) -> Findings:
    """Each group's contrast drawn over the layer's units, laid out so that similar ones are neighbours.

    layout      places units by their contrasts; it is handed the positions of the checkpoint before
    resolution  pixels a map is wide and high, in the images; the positions are what is recorded
    limit       the colour scale reaches from -limit to +limit standard deviations of the layer's responses over all
                inputs, so that one scale, known beforehand, serves all groups, layers, checkpoints and runs: the mean
                square over groups and units is the layer's separability, which is at most 1
    colours     one of `netlapse.render.COLOURS`

    arrays      `positions/<layer>` (u, 2), `contrast/<layer>` (g, u), `layout_step/<layer>` () the step whose profiles
                the layout is made from
    scalars     `layout/trustworthiness/<layer>`, `layout/motion/<layer>` (from the checkpoint before)
    images      `topomap/<layer>`, one map per group; `storyboard`, all layers

    A layer in which a unit's response to some input is NaN or infinite is not laid out, and its pictures say so instead of
    maps: it keeps the layout of the checkpoint before, if there is one, and its trustworthiness is NaN.
    """
    statistics = snapshot.statistics
    values = {layer: contrast(statistics.profile(layer)) for layer in snapshot.layer_names}
    deviations = {layer: scale(statistics, layer) for layer in snapshot.layer_names}
    seen = Contrasts(snapshot.step, statistics.names, statistics.counts, values, deviations)
    style = Style(resolution, limit, colours)
    return drawn(seen, laid_out(seen, previous, layout, seed), previous, style, heading=f"step {snapshot.step}")
