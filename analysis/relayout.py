"""Topomaps laid out and drawn again from what a run recorded: no network, no probe, no framework.

The live layout goes on from checkpoint to checkpoint and so is never the best one for the whole run. Afterwards all steps are
known: one layout can serve them all, so that a unit stays where it is and only colours change. What is found goes under a name
of its own, for the live maps are the evidence of what was seen.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal

import numpy as np

from netlapse.analysis.contrasts import Against, Contrasts, recorded
from netlapse.analysis.layout import apart, flas, method, turned
from netlapse.analysis.topomap import ALL_STEPS, Layout, Places, Style, drawn, laid_out, largest, metric_of, origin
from netlapse.field import Kind
from netlapse.recording import Recording
from netlapse.render.colours import BLUE_WHITE_RED
from netlapse.types import Findings, Float64

Source = Literal["each", "joint", "last"] | int
SOURCES = ("each", "joint", "last")


def relayout(
    recording: Recording,
    *,
    source: Source = "each",
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
    align_layers: bool = False,
    quality: bool = True,
    name: str | None = None,
) -> tuple[str, dict[int, Findings]]:
    """A name, and under it the findings of `topomap` at every step of a recording's `nap`, on layouts made from its profiles.

    source      "each": every step from its own profiles, going on from the step before, as live
                a step: one layout for all steps, from the profiles of that step
                "last": one layout for all steps, from the last one (the scheme of Krug et al., 2023). A layer of which a unit is
                not finite there, or that responds alike to every input, has the layout of its own last step that is better
                "joint": one layout for all steps, from the contrasts of all of them side by side, each step's in standard
                deviations of the layer's responses at that step. Activations grow in training, and as they are the last steps
                would decide alone; as standard deviations a step counts by its separability, by how much of what its units do
                tells the groups apart. Steps at which a unit is not finite are left out
    layout and what follows   as in `topomap`; a layout for all steps is made without a previous one, and limit "max" is the
                largest contrast of all steps
    name        letters, digits, '_' and '-' after "topomap_"; None puts it together from the source, and from the layout, the
                seed and the colours where they are not the usual ones: `topomap_last`, `topomap_at_5`, `topomap_joint_pca`.
                Options bound to the layout, the resolution and the limit do not show in it

    arrays      as of `topomap`; `layout_step/<layer>` is -1 (`ALL_STEPS`) for "joint"
    scalars     `<name>/trustworthiness/<layer>` of the layout for this step's profiles, `<name>/motion/<layer>`
    images      `<name>/<layer>`, `<name>/storyboard`

    A layer is drawn at the steps that have a profile of it. Where a unit is not finite its pictures say so, as live; a layout
    for all steps is recorded there all the same.

    Raises ValueError where the recording has no profiles, or not what belongs to them; for an unknown source or a step that is
    not recorded; where a layer has no finite profile at the chosen step, or other units at different steps; for a name of
    another form, or of an analysis that was observed; and for what layouts and pictures refuse.
    """
    seen = _recorded(recording, against, groups, min_inputs)
    source = _checked(source, seen)
    name = _default_name(source, layout, seed, colours) if name is None else name
    _check_name(name, recording)
    limits = {layer: max(largest(here.scaled(layer)) for here in seen.values() if layer in here.values) for layer in _layers(seen)}
    style = Style(
        resolution, limit, colours, kind, dots, quality, metric_of(layout), limits, images=name, metrics=name, storyboard=f"{name}/storyboard"
    )
    fixed = None if source == "each" else _for_all_steps(seen, source, layout, seed, align_layers)
    findings: dict[int, Findings] = {}
    previous: Findings | None = None
    for step, here in seen.items():
        if fixed is None:
            places, heading = laid_out(here, previous, layout, seed, align_layers=align_layers), f"step {step}"
        else:
            places = {layer: fixed[layer] for layer in here.values if layer in fixed}
            heading = f"step {step}{_origins(places)}"
        previous = findings[step] = drawn(here, places, previous, style, heading)
    return name, findings


def _recorded(recording: Recording, against: Against, groups: Sequence[str] | None, least: int) -> dict[int, Contrasts]:
    """What the recording's profiles say at each step, ascending; raises ValueError where they are not of the same units."""
    found = recording.findings.get("nap")
    if not found:
        raise ValueError(f"relayout needs the profiles that the analysis 'nap' records; this recording has {sorted(recording.findings) or 'nothing'}")
    seen = {step: recorded(step, findings.arrays, against=against, groups=groups, least=least) for step, findings in sorted(found.items())}
    for layer in _layers(seen):
        shapes = {step: here.values[layer].shape for step, here in seen.items() if layer in here.values}
        if len({shape[1] for shape in shapes.values()}) > 1:
            raise ValueError(
                f"the profiles of layer {layer!r} have the shapes {shapes} (step: shape); expected (groups, units) with the "
                "same units at every step, for a layout is of the units of one network"
            )
    return seen


def _layers(seen: Mapping[int, Contrasts]) -> list[str]:
    return list(dict.fromkeys(layer for here in seen.values() for layer in here.values))


def _checked(source: Source, seen: Mapping[int, Contrasts]) -> Source:
    if source in SOURCES:
        return source
    if isinstance(source, str) or operator.index(source) not in seen:
        raise ValueError(f"relayout got the source {source!r}; expected one of {list(SOURCES)} or a step with profiles, which are {list(seen)}")
    return operator.index(source)


def _for_all_steps(seen: Mapping[int, Contrasts], source: Source, layout: Layout, seed: int, align_layers: bool) -> Places:
    """One layout for each layer; layers that can be laid out at no step are left out."""
    places: dict[str, tuple[Float64, int]] = {}
    first: tuple[Float64, Float64] | None = None
    for layer in _layers(seen):
        if steps := _made_from(seen, layer, source):
            joint = source == "joint"
            features = np.hstack([_in_deviations(seen[step], layer) for step in steps]) if joint else seen[steps[0]].features(layer)
            here = seen[steps[-1]]
            constant = np.all([seen[step].silent(layer) for step in steps], axis=0)
            place = partial(apart, features, constant, layout=layout, seed=seed)
            positions, values = place(previous=None), here.values[layer][here.estimable]
            if align_layers and first is not None:
                positions = place(previous=turned(positions, values, *first))
            first = first or (positions, values)
            places[layer] = positions, ALL_STEPS if joint else steps[0]
    return places


def _made_from(seen: Mapping[int, Contrasts], layer: str, source: Source) -> list[int]:
    """The steps from which the layer's one layout is made: all that are finite, or one of them."""
    finite = [step for step, here in seen.items() if layer in here.values and not here.without_layout(layer)]
    if source == "joint":
        return finite
    if source == "last":
        return sorted(finite, key=lambda step: (seen[step].deviations[layer] > 0, step))[-1:]
    assert isinstance(source, int)
    if source not in finite:
        raise ValueError(
            f"layer {layer!r} cannot be laid out from step {source}; it has finite profiles at the steps {finite}: "
            "choose one of them, or 'last' for each layer's own last"
        )
    return [source]


def _in_deviations(here: Contrasts, layer: str) -> Float64:
    """(u, f) contrasts in standard deviations of the layer; where there is no deviation there is no contrast either."""
    return here.scaled(layer)[here.estimable].T


def _origins(places: Places) -> str:
    made = sorted({step for _, step in places.values()})
    if len(made) > 1:
        return f", layouts of steps {', '.join(map(str, made))}"
    return "".join(f", {origin(step)}" for step in made)


def _default_name(source: Source, layout: Callable[..., Float64], seed: int, colours: str) -> str:
    parts = [] if source == "each" else [source if isinstance(source, str) else f"at_{source}"]
    function = method(layout)
    if function is not flas:
        parts.append(str(getattr(function, "__name__", type(function).__name__)))
    parts += [f"seed_{seed}"] * (seed != 0) + [colours] * (colours != BLUE_WHITE_RED)
    return "topomap_" + re.sub(r"[^A-Za-z0-9_\-]", "", "_".join(parts or ["each"]))


def _check_name(name: str, recording: Recording) -> None:
    if not re.fullmatch(r"topomap_[A-Za-z0-9_\-]+", name):
        raise ValueError(f"a relayout cannot be named {name!r}; expected 'topomap_' and then letters, digits, '_' or '-'")
    there = recording.findings.get(name, {})
    if any(not any(metric.startswith(f"{name}/") for metric in found.scalars) for found in there.values()):
        raise ValueError(f"{name!r} is an analysis observed in this run, which a relayout must not replace; give the relayout another `name`")
