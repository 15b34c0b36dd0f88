"""The analysis: numbers from inside at every checkpoint, a window of them, what is unusual in it, and the places to look at so far."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from netlapse.analysis.changes.detection import KINDS, MOST, Look, Window, looks, standing
from netlapse.analysis.changes.measures import DRIFT, MEASURES, apart, inside, pairs_of, told_apart
from netlapse.analysis.nap import drift
from netlapse.events import Event, events_in, telling, told
from netlapse.probe import panel_of
from netlapse.types import Array, Exact, Findings, Float64, Int64, Network, ProbeSet, Snapshot, checked_by

Saliency = Callable[[Network, Array, Int64], Exact]
WINDOW = 10
"""Checkpoints of a course, now among them."""

TABLE_FROM = 0.5
"""How unusual a place is that the table lists."""


def _check(
    snapshot: Snapshot,
    *,
    sensitivity: float,
    plateau: float,
    plateau_saliency: float,
    patience: int,
    attributes: Sequence[str] | None,
    saliency: Saliency | None,
    panel: int,
    shown: int,
) -> None:
    if not 0 < sensitivity < np.inf or not min(plateau, plateau_saliency) >= 0 or not 1 <= patience < WINDOW or panel < 1 or shown < 0:
        raise ValueError(
            f"changes was given sensitivity={sensitivity}, plateau={plateau}, plateau_saliency={plateau_saliency}, patience={patience}, "
            f"panel={panel} and shown={shown}; expected a sensitivity above 0, plateaus of at least 0, a patience from 1 to {WINDOW - 1}, "
            "a panel of at least 1 input and at least 0 rows"
        )
    _attributes(snapshot.probe, attributes)
    if saliency is not None and snapshot.probe.inputs.ndim != 4:
        raise ValueError(
            f"changes was given a saliency method, and the probe's inputs have shape {snapshot.probe.inputs.shape}; "
            "expected images (n, h, w, c), or saliency=null"
        )


@telling(*KINDS)
@checked_by(_check)
def changes(
    snapshot: Snapshot,
    previous: Findings | None,
    *,
    sensitivity: float = 1.0,
    plateau: float = 0.02,
    plateau_saliency: float = 0.05,
    patience: int = 3,
    attributes: Sequence[str] | None = None,
    saliency: Saliency | None = None,
    panel: int = 16,
    shown: int = 20,
) -> Findings:
    """Where a training left its own course: which layer, since when, in which number. All comes of the forward pass that analyses share.

    sensitivity  2: half of what is unusual otherwise will do
    plateau      what share of its size a profile moves by where it stands still
    plateau_saliency  of a map, between checkpoints
    patience     checkpoints in a row at which all layers' profiles, or all maps, stand still
    attributes   of the probe; None: all
    saliency     a method of `netlapse.analysis.saliency`, asked of some inputs for their labels; None: maps are not looked at
    panel        so many inputs, of all classes in turn
    shown        rows of the table of places to look at

    Events, of kinds

    change       a layer, or the whole network, moves much farther than its course so far promised; groups are told apart less in a layer
    still        a layer's profiles stand still, and moved before: exactly, or all but
    collapse     units of a layer do one and the same, groups differ in fewer directions, its responses vary less or are no numbers
    merging      two groups come together in a layer, and no others
    attribute    layers tell an attribute apart more, the classes held fixed
    plateau      the profiles of all layers, or the saliency maps, stand still

    are told at the step at which they are noticed, at least five checkpoints after the first (plateaus sooner), and not again while that is
    within the last nine. A layer that is frozen alone, between layers that learn, does not stand still: its inputs change.

    arrays    `layers` (l,), `groups` (g,) names, `pairs` (p, 2) of groups that are followed, none of more than 50 groups; `steps` (w,) the
              last checkpoints, at most 10, and of these `window/<measure>` (w, l) for separability, scale, rank, dead and drift,
              `window/attribute/<name>` (w, l), `window/saliency` (w,), and float32 `apart/<layer>` (w, p). `profile/<layer>` (g, u), float64;
              `maps` (m, h, w) of the panel.
              The table, the most unusual first: `look_steps`, `look_kinds`, `look_about`, `look_layers`, `look_unusual`, `look_sentences`,
              (k,), from 0.5 on, where 1 is an event and 4 the most. `events` and the rest of `netlapse.events.told`
    scalars   `changes/unusual/<layer>` of the most unusual thing about a layer now, `changes/unusual` of the network as a whole;
              `changes/rank/<layer>`, in how many directions groups differ; `changes/told_apart/<attribute>/<layer>`; `changes/saliency` how
              far the maps are from those before, as `nap.drift`; `changes/events` how many so far

    Raises ValueError for options out of their ranges, an attribute that the probe has not, and a saliency method where inputs are no images.
    """
    _check(
        snapshot, sensitivity=sensitivity, plateau=plateau, plateau_saliency=plateau_saliency, patience=patience, attributes=attributes,
        saliency=saliency, panel=panel, shown=shown,
    )  # fmt: skip
    names = _attributes(snapshot.probe, attributes)
    maps = None if saliency is None else _maps(snapshot, saliency, panel)
    before = _continued(previous, snapshot, names)
    arrays = _extended(snapshot, before, names, maps)
    window = _window(snapshot, arrays, names)
    now = [*_scaled(looks(window), sensitivity), *standing(window, profiles=plateau, maps=plateau_saliency, patience=patience)]
    now = [look for look in now if not _lasting(look, before, window)]
    events = list(events_in(previous)) + [Event(look.step, look.kind, look.about, look.layer, look.sentence) for look in now if look.unusual >= 1]
    listed = [*_listed(previous), *(look for look in now if look.unusual >= TABLE_FROM)]
    ranked = sorted(listed, key=lambda look: (-look.unusual, look.step))[:shown]
    return Findings({**arrays, **_table(ranked), **told(events)}, _scalars(window, now, len(events)))


def _attributes(probe: ProbeSet, chosen: Sequence[str] | None) -> tuple[str, ...]:
    if isinstance(chosen, str) or (unknown := sorted(set(chosen or ()) - set(probe.attributes))):
        raise ValueError(
            f"changes was asked for the attributes {chosen if isinstance(chosen, str) else unknown}; "
            f"expected a list of some of the probe's, {sorted(probe.attributes)}"
        )
    return tuple(probe.attributes) if chosen is None else tuple(chosen)


def _maps(snapshot: Snapshot, saliency: Saliency, panel: int) -> Array:
    labels = snapshot.probe.labels
    of = panel_of(labels, panel)
    return snapshot.once("maps", lambda: np.asarray(saliency(snapshot.network, snapshot.probe.inputs[of], labels[of]), np.float32))


# ---- the window ------------------------------------------------------------------------------------------------------


def _continued(previous: Findings | None, snapshot: Snapshot, attributes: Sequence[str]) -> Mapping[str, Array]:
    """What was found before, where it is of the same layers, groups and attributes; else nothing: a course begins anew."""
    arrays = {} if previous is None else previous.arrays
    same = (
        bool(arrays)
        and tuple(arrays["layers"].tolist()) == snapshot.layer_names
        and tuple(arrays["groups"].tolist()) == snapshot.statistics.names
        and all(f"window/attribute/{name}" in arrays for name in attributes)
    )
    return arrays if same else {}


def _extended(snapshot: Snapshot, before: Mapping[str, Array], attributes: Sequence[str], maps: Array | None) -> dict[str, Array]:
    """The arrays of the window, with a row for now."""
    statistics, layers, probe = snapshot.statistics, snapshot.layer_names, snapshot.probe
    rows: dict[str, Array] = {"steps": np.array(snapshot.step)}
    profiles = {layer: statistics.profile(layer) for layer in layers}
    numbers = [inside(statistics, layer) | {DRIFT: _drift(profiles[layer], before.get(f"profile/{layer}"))} for layer in layers]
    rows |= {f"window/{measure}": np.array([of[measure] for of in numbers]) for measure in numbers[0]}
    for name in attributes:
        rows[f"window/attribute/{name}"] = np.array([told_apart(statistics.kept[layer], probe, name) for layer in layers])
    rows |= {f"apart/{layer}": apart(statistics, layer).astype(np.float32) for layer in layers}
    rows["window/saliency"] = np.array(np.nan if maps is None else _moved(maps, before.get("maps")))
    arrays = {name: _joined(before.get(name), row) for name, row in rows.items()}
    arrays |= {"layers": np.array(layers), "groups": np.array(statistics.names)}
    arrays["pairs"] = np.array(pairs_of(len(statistics.names)), np.int64).reshape(-1, 2)
    arrays |= {f"profile/{layer}": profile for layer, profile in profiles.items()}
    return arrays | ({} if maps is None else {"maps": maps})


def _joined(rows: Array | None, row: Array) -> Array:
    return row[None] if rows is None else np.concatenate([rows[1 - WINDOW :], row[None]])


def _drift(profile: Float64, before: Array | None) -> float:
    return float("nan") if before is None else drift(profile, np.asarray(before, np.float64))


def _moved(maps: Array, before: Array | None) -> float:
    if before is None or before.shape != maps.shape:
        return float("nan")
    return drift(*(np.asarray(of, np.float64).reshape(len(of), -1) for of in (maps, before)))


def _window(snapshot: Snapshot, arrays: Mapping[str, Array], attributes: Sequence[str]) -> Window:
    layers = snapshot.layer_names
    return Window(
        steps=np.asarray(arrays["steps"], np.int64),
        layers=layers,
        groups=snapshot.statistics.names,
        units=[arrays[f"profile/{layer}"].shape[1] for layer in layers],
        numbers={measure: np.asarray(arrays[f"window/{measure}"], np.float64) for measure in MEASURES},
        apart={layer: np.asarray(arrays[f"apart/{layer}"], np.float64) for layer in layers},
        pairs=[(int(one), int(other)) for one, other in arrays["pairs"]],
        attributes={name: np.asarray(arrays[f"window/attribute/{name}"], np.float64) for name in attributes},
        maps=np.asarray(arrays["window/saliency"], np.float64),
    )


# ---- the table -------------------------------------------------------------------------------------------------------


def _scaled(found: Iterable[Look], sensitivity: float) -> Iterable[Look]:
    return (Look(look.step, look.kind, look.about, look.layer, min(sensitivity * look.unusual, MOST), look.sentence) for look in found)


def _listed(previous: Findings | None) -> list[Look]:
    if previous is None:
        return []
    columns = (previous.arrays[f"look_{name}"].tolist() for name in _COLUMNS)
    return [Look(*row) for row in zip(*columns, strict=True)]


def _table(ranked: Sequence[Look]) -> dict[str, Array]:
    types = {"steps": np.int64, "unusual": np.float64}
    return {f"look_{name}": np.array([getattr(look, part) for look in ranked], types.get(name, np.str_)) for name, part in _COLUMNS.items()}


_COLUMNS = {"steps": "step", "kinds": "kind", "about": "about", "layers": "layer", "unusual": "unusual", "sentences": "sentence"}


def _lasting(look: Look, before: Mapping[str, Array], window: Window) -> bool:
    """Whether it was told of at one of the last checkpoints."""
    if not before:
        return False
    columns = (before[name].tolist() for name in ("event_steps", "event_kinds", "event_about", "event_layers"))
    return any(step >= window.steps[0] and (kind, about, layer) == look.subject for step, kind, about, layer in zip(*columns, strict=True))


def _scalars(window: Window, now: Sequence[Look], events: int) -> dict[str, float]:
    most = {layer: max((look.unusual for look in now if look.layer == layer), default=0.0) for layer in ("", *window.layers)}
    scalars = {f"changes/unusual/{layer}" if layer else "changes/unusual": value for layer, value in most.items()}
    scalars |= {f"changes/rank/{layer}": float(value) for layer, value in zip(window.layers, window.numbers["rank"][-1], strict=True)}
    for name, shares in window.attributes.items():
        scalars |= {f"changes/told_apart/{name}/{layer}": float(share) for layer, share in zip(window.layers, shares[-1], strict=True)}
    if len(window.maps) > 1 and np.isfinite(window.maps[-1]):
        scalars["changes/saliency"] = float(window.maps[-1])
    return scalars | {"changes/events": float(events)}
