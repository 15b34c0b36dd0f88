"""Topographic activation maps: a group's profile drawn over the layout of a layer's units."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Literal, get_args

import numpy as np

from netlapse.analysis.contrasts import Against, Contrasts, contrasted
from netlapse.analysis.differences import attributes_of, difference_maps
from netlapse.analysis.layout import apart, flas, turned
from netlapse.analysis.layout.base import filled
from netlapse.analysis.nap import activation_profiles, aligned_profiles, contrast, scale
from netlapse.analysis.quality import measures, motion, null_measures, trustworthiness
from netlapse.field import Kind, fields, interpolation
from netlapse.render.colours import BLUE_WHITE_RED, palette
from netlapse.render.maps import maps_row, storyboard
from netlapse.types import Array, Findings, Float64, Snapshot, UInt8, checked_by

Features = Literal["profiles", "positions", "aligned", "inputs"]
"""What units are laid out by, see `topomap`."""


def interpolate(positions: Float64, values: Float64, resolution: int = 100, kind: Kind = "linear") -> Float64:
    """The maps (g, r, r) of the units' values (g, u) at their positions (u, 2); row = 1 - y, column = x, NaN outside the hull.

    Linear on the Delaunay triangles of the positions, or of another kind. A row of NaN (an empty group) gives a map of NaN. To
    draw many steps on one layout, keep the operator: `netlapse.field.interpolation` and `fields`, where the kinds and the
    degenerate cases are described.

    Raises ValueError for positions that are not finite (u, 2) and for values that are not (g, u).
    """
    return fields(interpolation(positions, resolution, kind), np.asarray(values, dtype=np.float64))


Layout = Callable[..., Float64]
"""A function of `netlapse.analysis.layout`: (profiles (u, f), *, seed, previous) -> positions (u, 2)."""

UNIT = "standard deviations of the layer"
ALL_STEPS = -1
"""The `layout_step` of a layout that is made from all steps together."""


@dataclass(frozen=True)
class Style:
    """How the maps of an analysis are drawn and measured, and under which names they are kept.

    resolution, limit, colours, kind, dots, quality  as in `topomap`
    limits                      layer -> the limit that is known beforehand, where `limit` is "max"
    metric                      in which the layout compares units
    images, metrics             what the images' and the metrics' names begin with
    storyboard                  the name of the picture of all layers
    """

    resolution: int = 64
    limit: float | Literal["max"] = 2.0
    colours: str = BLUE_WHITE_RED
    kind: Kind = "linear"
    dots: bool = False
    quality: bool = True
    metric: str = "euclidean"
    limits: Mapping[str, float] = field(default_factory=dict)
    images: str = "topomap"
    metrics: str = "layout"
    storyboard: str = "storyboard"


Places = Mapping[str, tuple[Float64, int]]
"""Layer -> the positions (u, 2) of its units and the step whose contrasts they are made from, or ALL_STEPS."""


def laid_out(seen: Contrasts, previous: Findings | None, layout: Layout, seed: int, *, align_layers: bool = False) -> Places:
    """Every layer laid out by its own contrasts, going on from the positions of the step before.

    Units that do one and the same for all inputs are laid out apart from the others, see `netlapse.analysis.layout.apart`. A
    layer that cannot be laid out (see `Contrasts.without_layout`) keeps the positions of the step before; without any it is
    left out. `align_layers`: a layer without positions before is turned so that its units lie where similar ones of the first
    layer do, and laid out once more from there.
    """
    places: dict[str, tuple[Float64, int]] = {}
    first: str | None = None
    for layer in seen.values:
        before = places_before(previous, layer)
        if not seen.without_layout(layer):
            features = seen.features(layer)
            place = partial(apart, features, seen.silent(layer), layout=layout, seed=seed)
            positions = place(previous=before and before[0])
            if align_layers and before is None and first is not None:
                rows = seen.estimable
                positions = place(previous=turned(positions, seen.values[layer][rows], places[first][0], seen.values[first][rows]))
            places[layer] = positions, seen.step
            first = first or layer
        elif before:
            places[layer] = before
    return places


def drawn(seen: Contrasts, places: Places, previous: Findings | None, style: Style, heading: str) -> Findings:
    """The findings of `topomap` at one step for layouts made anywhere, under the names of the style; `heading` stands over all layers.

    previous   the findings at the step before, from which motion is measured
    Every layer that can be laid out has its places.
    """
    arrays: dict[str, Array] = {"rows": np.array(seen.names), "counts": seen.counts}
    scalars: dict[str, float] = {}
    images: dict[str, UInt8] = {}
    rows: list[tuple[str, Float64 | str]] = []
    limits: list[float] = []
    for layer, values in seen.values.items():
        missing = seen.without_maps(layer)
        shown = np.full((len(values), style.resolution, style.resolution), np.nan)
        title = f"{layer} \u00b7 {values.shape[1]} units \u00b7 step {seen.step}"
        scaled = seen.scaled(layer)
        limits.append(_limit(layer, scaled, previous, style))
        scalars |= _measured(seen, layer, places, style)
        if missing:
            title += f": {missing}"
        else:
            positions, made = places[layer]
            # What does one and the same has no part in a map: it would draw the colours of its neighbours out to the rim.
            silent = seen.silent(layer)
            shown = interpolate(positions[~silent], scaled[:, ~silent], style.resolution, style.kind)
            if silent.any():
                title += f", {int(silent.sum())} constant"
            title += f", {origin(made)}"
        if layer in places:
            positions, made = places[layer]
            arrays |= {f"positions/{layer}": positions, f"layout_step/{layer}": np.array(made)}
            if before := places_before(previous, layer):
                scalars[f"{style.metrics}/motion/{layer}"] = motion(positions, before[0])
        arrays |= {f"contrast/{layer}": values, f"limit/{layer}": np.array(limits[-1])}
        rows.append((layer, missing or shown))
        dots = None if missing else places[layer][0][np.full(len(silent), style.dots) | silent]
        images[f"{style.images}/{layer}"] = maps_row(
            shown, seen.names, seen.counts.tolist(), limits[-1], title, UNIT, style.colours, least=seen.least, dots=dots
        )
    common: float | list[float] = limits if style.limit == "max" else style.limit
    images[style.storyboard] = storyboard(rows, seen.names, common, heading, UNIT, style.colours)
    return Findings(arrays, scalars, images)


def _limit(layer: str, scaled: Float64, previous: Findings | None, style: Style) -> float:
    """How far the colours of a layer reach: what was asked for, or the largest value so far or, where that is known, of all steps."""
    if style.limit != "max":
        return style.limit
    if layer in style.limits:
        return style.limits[layer]
    before = 0.0 if previous is None else float(np.asarray(previous.arrays.get(f"limit/{layer}", 0.0), np.float64))
    return max(before, largest(scaled))


def largest(values: Float64) -> float:
    """The largest absolute value that is a number; 0 where none is."""
    return float(np.abs(values).max(initial=0.0, where=np.isfinite(values)))


def _measured(seen: Contrasts, layer: str, places: Places, style: Style) -> dict[str, float]:
    """What the layout of a layer is worth for the contrasts of this step, and beside it what a random layout is worth.

    Units that do one and the same for all inputs have no part in it, as they have none in the map.
    """
    named = partial("{}/{}/{}".format, style.metrics)
    if seen.without_layout(layer):
        return {named(name, layer): float("nan") for name in (MEASURES if style.quality else MEASURES[:1])}
    features, positions, values = seen.features(layer), places[layer][0], seen.values[layer]
    silent = seen.silent(layer)
    if silent.any() and not silent.all():
        # As if the others were alone: on a map that fills its picture, as the random one beside it does.
        features, positions, values = features[~silent], filled(positions[~silent]), values[:, ~silent]
    if not style.quality:
        return {named("trustworthiness", layer): trustworthiness(features, positions, metric=style.metric)}
    found = measures(features, positions, values, metric=style.metric)
    null = null_measures(features, values, metric=style.metric)
    return {named(name, layer): found[name] for name in MEASURES} | {named(f"{name}_null", layer): null[name] for name in MEASURES}


MEASURES = ("trustworthiness", "continuity", "neighbour_preservation", "morans_i", "resize_error", "blur_error", "hull_coverage", "components")


def origin(made: int) -> str:
    """In words, what a layout with that `layout_step` is made from."""
    return "one layout for all steps" if made == ALL_STEPS else f"layout of step {made}"


def places_before(findings: Findings | None, layer: str) -> tuple[Float64, int] | None:
    """Where a layer's units were, if the findings say, and the step that layout was made from."""
    if findings is None or f"positions/{layer}" not in findings.arrays:
        return None
    positions, made = (findings.arrays[f"{name}/{layer}"] for name in ("positions", "layout_step"))
    return np.asarray(positions, np.float64), int(np.asarray(made, np.int64))


def metric_of(layout: Callable[..., object]) -> str:
    """The metric in which a layout compares units: what is bound to it, or to the layout it is made of; else euclidean."""
    while isinstance(layout, partial):
        if "metric" in layout.keywords:
            return str(layout.keywords["metric"])
        layout = layout.keywords.get("layout", layout.func)
    return "euclidean"


def _compared(snapshot: Snapshot, features: Features) -> dict[str, Float64]:
    """layer -> (u, f) what units are compared by, where that is not their contrasts."""
    if features == "profiles":
        return {}
    layers = snapshot.layer_names
    if features == "inputs":
        return {layer: rows.T.astype(np.float64) for layer, rows in snapshot.responses.items()}
    network, probe, groups = snapshot.network, snapshot.probe, snapshot.statistics.groups

    @cache
    def profiles() -> dict[str, Float64]:
        if features == "aligned":
            return aligned_profiles(network, probe.inputs, groups, layers, batch_size=snapshot.batch_size)
        return activation_profiles(network, probe.inputs, groups, layers, spatial="keep", batch_size=snapshot.batch_size)

    def columns(layer: str) -> Float64:
        values = contrast(profiles()[layer])
        filled = values[~np.isnan(values).all(axis=tuple(range(1, values.ndim)))]
        return np.moveaxis(filled, -1, 0).reshape(values.shape[-1], -1)

    return {layer: snapshot.once(f"{features}/{layer}", partial(columns, layer)) for layer in layers}


def _check(
    snapshot: Snapshot,
    *,
    layout: Layout,
    seed: int,
    colours: str,
    limit: float | str,
    kind: str,
    features: str,
    min_inputs: int,
    by: Sequence[str] | str,
    **options: object,
) -> None:
    """The layout can be made, of any profiles, and the colours are there: unknown metrics and wrong options show here."""
    profiles = np.random.default_rng(0).random((16, 3))
    positions = layout(profiles, seed=seed, previous=None)
    if np.shape(positions) != (16, 2):
        raise ValueError(f"layout returned positions of shape {np.shape(positions)} for 16 units; expected (16, 2)")
    palette(colours)
    for name, given, allowed in (("features", features, get_args(Features)), ("kind", kind, get_args(Kind))):
        if given not in allowed:
            raise ValueError(f"topomap was given {name}={given!r}; allowed are {list(allowed)}")
    if limit != "max" and not (isinstance(limit, (int, float)) and 0 <= limit < float("inf")):
        raise ValueError(f"topomap was given limit={limit!r}; expected a number of at least 0, in standard deviations, or 'max'")
    if min_inputs < 1:
        raise ValueError(f"topomap was given min_inputs={min_inputs}; expected at least 1")
    attributes_of(snapshot.probe, by)


@checked_by(_check)
def topomap(
    snapshot: Snapshot,
    previous: Findings | None,
    *,
    layout: Layout = flas,
    seed: int = 0,
    resolution: int = 64,
    limit: float | Literal["max"] = 2.0,
    colours: str = BLUE_WHITE_RED,
    kind: Kind = "linear",
    dots: bool = False,
    against: Against = "uniform",
    groups: Sequence[str] | None = None,
    min_inputs: int = 1,
    features: Features = "profiles",
    align_layers: bool = False,
    quality: bool = True,
    by: Sequence[str] | Literal["all"] = (),
) -> Findings:
    """Each group's contrast drawn over the layer's units, laid out so that similar ones are neighbours.

    layout      places units by their contrasts; it is handed the positions of the checkpoint before
    resolution  pixels a map is wide and high, in the images; the positions are what is recorded
    limit       the colour scale reaches from -limit to +limit standard deviations of the layer's responses over all
                inputs, so that one scale, known beforehand, serves all groups, layers, checkpoints and runs: the mean
                square over groups and units is the layer's separability, which is at most 1. "max": in each layer to the
                largest contrast so far, which is recorded
    colours     one of `netlapse.render.colours.COLOURS`
    kind        how values are spread between units, see `netlapse.field.interpolation`
    dots        whether the units themselves are drawn; those that do one and the same for all inputs always are
    against, groups   what groups are compared with, and which, see `netlapse.analysis.contrasts.contrasted`
    min_inputs  a group of fewer inputs is not estimated: it is in no mean and its map says so
    features    what units are laid out by: their contrasts ("profiles"), those of every position ("positions"), those of every
                position after `netlapse.analysis.nap.align` ("aligned"), or their responses to every single input of the
                probe, whose groups then play no part ("inputs")
    align_layers   whether layers are turned towards each other, see `laid_out`
    quality     whether all of `MEASURES` are taken, each beside that of a random layout, or trustworthiness alone
    by          attributes of the probe of which maps are drawn too, on the same layout, see `netlapse.analysis.differences`

    arrays      `rows` and `counts` (g,) what the maps are of; `positions/<layer>` (u, 2), `contrast/<layer>` (g, u),
                `limit/<layer>` () the colour limit, `layout_step/<layer>` () the step whose profiles the layout is made from
    scalars     `layout/<measure>/<layer>` and `layout/<measure>_null/<layer>`, see `netlapse.analysis.quality`;
                `layout/motion/<layer>` from the checkpoint before
    images      `topomap/<layer>`, one map per group; `storyboard`, all layers; `topomap_by/<attribute>/<layer>`

    A layer in which a unit's response to some input is NaN or infinite is not laid out, and its pictures say so instead of
    maps: it keeps the layout of the checkpoint before, if there is one, and its quality is NaN.
    """
    statistics, layers = snapshot.statistics, snapshot.layer_names
    profiles = {layer: statistics.profile(layer) for layer in layers}
    names, counts, values = contrasted(statistics.names, statistics.counts, profiles, against=against, groups=groups, least=min_inputs)
    seen = Contrasts(
        snapshot.step,
        names,
        counts,
        values,
        {layer: scale(statistics, layer) for layer in layers},
        min_inputs,
        {layer: statistics.constant(layer) for layer in layers},
        _compared(snapshot, features),
        {layer: int(statistics.broken[layer]) for layer in layers},
    )
    style = Style(resolution, limit, colours, kind, dots, quality, metric_of(layout))
    places = laid_out(seen, previous, layout, seed, align_layers=align_layers)
    found = drawn(seen, places, previous, style, heading=f"step {snapshot.step}")
    return replace(found, images={**found.images, **difference_maps(snapshot, by, places, resolution, kind, colours)})
