"""Topographic activation maps: a group's profile drawn over the layout of a layer's units."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from netlapse.analysis.layout import flas
from netlapse.analysis.nap import contrast, scale
from netlapse.analysis.quality import motion, trustworthiness
from netlapse.field import fields, interpolation
from netlapse.render import maps_row, storyboard
from netlapse.types import Array, Findings, Float64, Snapshot, UInt8, checked_by


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


def _check(snapshot: Snapshot, *, layout: Layout = flas, seed: int = 0, **options: object) -> None:
    """The layout can be made, of any profiles: unknown metrics and wrong options show here."""
    profiles = np.random.default_rng(0).random((16, 3))
    positions = layout(profiles, seed=seed, previous=None)
    if np.shape(positions) != (16, 2):
        raise ValueError(f"layout returned positions of shape {np.shape(positions)} for 16 units; expected (16, 2)")


@checked_by(_check)
def topomap(
    snapshot: Snapshot,
    previous: Findings | None,
    *,
    layout: Layout = flas,
    seed: int = 0,
    resolution: int = 64,
    limit: float = 2.0,
) -> Findings:
    """Each group's contrast drawn over the layer's units, laid out so that similar ones are neighbours.

    layout      places units by their contrasts; it is handed the positions of the checkpoint before
    resolution  pixels a map is wide and high, in the images; the positions are what is recorded
    limit       the colour scale reaches from -limit to +limit standard deviations of the layer's responses over all
                inputs, so that one scale, known beforehand, serves all groups, layers, checkpoints and runs: the mean
                square over groups and units is the layer's separability, which is at most 1

    arrays      `positions/<layer>` (u, 2), `contrast/<layer>` (g, u), `layout_step/<layer>` () the step whose profiles
                the layout is made from
    scalars     `layout/trustworthiness/<layer>`, `layout/motion/<layer>` (from the checkpoint before)
    images      `topomap/<layer>`, one map per group; `storyboard`, all layers

    A layer in which a unit's response to some input is NaN or infinite is not laid out, and its pictures say so instead of
    maps: it keeps the layout of the checkpoint before, if there is one, and its trustworthiness is NaN.
    """
    statistics = snapshot.statistics
    arrays: dict[str, Array] = {}
    scalars: dict[str, float] = {}
    images: dict[str, UInt8] = {}
    rows: list[tuple[str, Float64 | str]] = []
    for layer in snapshot.layer_names:
        places, made = f"positions/{layer}", f"layout_step/{layer}"
        kept = {name: previous.arrays[name] for name in (places, made) if previous and name in previous.arrays}
        before = np.asarray(kept[places], np.float64) if kept else None
        values, deviation = contrast(statistics.profile(layer)), scale(statistics, layer)
        broken = int((~statistics.finite(layer)).sum())
        units = values.shape[1]
        shown = np.full((len(values), resolution, resolution), np.nan)
        trusted, missing = float("nan"), ""
        if broken:
            missing = f"{broken} of {units} units {'is' if broken == 1 else 'are'} not finite"
            arrays |= kept
        else:
            features = values[~np.isnan(values).all(axis=1)].T
            positions = layout(features, seed=seed, previous=before)
            trusted = trustworthiness(features, positions)
            arrays |= {places: positions, made: np.array(snapshot.step)}
            if deviation > 0:
                shown = interpolate(positions, values / deviation, resolution)
            else:
                missing = "every unit responds alike to every input"
        arrays[f"contrast/{layer}"] = values
        scalars[f"layout/trustworthiness/{layer}"] = trusted
        if before is not None:
            scalars[f"layout/motion/{layer}"] = motion(np.asarray(arrays[places], np.float64), before)
        rows.append((layer, missing or shown))
        title = f"{layer} · {units} units · step {snapshot.step}" + (f": {missing}" if missing else f", layout of step {snapshot.step}")
        images[f"topomap/{layer}"] = maps_row(shown, statistics.names, statistics.counts.tolist(), limit, title, UNIT)
    images["storyboard"] = storyboard(rows, statistics.names, limit, f"step {snapshot.step}", UNIT)
    return Findings(arrays, scalars, images)
