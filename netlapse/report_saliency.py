"""Where the network looks, on the time-lapse page: the fixed inputs, those chosen at each step, and their maps.

The panel holds the same inputs at every step. The chosen ones are others at each step, so they travel as entries: an entry is
one input at one step, with its map by every method. An input that is chosen again has its picture once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby

import numpy as np

from netlapse.packing import Json, evenly, grey_levels, left_out, packed, reduced, rounded, rows_at
from netlapse.recording import Recording
from netlapse.types import Array, Float64, Int64, ProbeSet, UInt8

DENSITY_LIMIT = 6.0  # times an even spread, at full colour
SIDES = (112, 56, 32)  # pixels of a map or an input on the page: the largest at which all have room, larger ones are averaged down
PANEL_BYTES = 16_000_000  # of all that is carried of the panel
CHOSEN_BYTES = 8_000_000  # of all that is carried of the chosen inputs

Arrays = Mapping[str, Array]


def saliency(recording: Recording, probe: ProbeSet | None) -> dict[str, Json] | None:
    """The fixed inputs with what the network says of them, every method's maps, and the chosen inputs; None when there is no panel."""
    by_step = {step: f.arrays for step, f in sorted(recording.findings.get("saliency", {}).items()) if "panel" in f.arrays}
    if not by_step:
        return None
    last = by_step[max(by_step)]
    panel = np.asarray(last["panel"], np.float64)
    inputs = len(panel)
    by_step = {step: arrays for step, arrays in by_step.items() if np.shape(arrays["panel"]) == panel.shape}
    found = list(by_step)
    names = list(dict.fromkeys(name.removeprefix("maps/") for arrays in by_step.values() for name in arrays if name.startswith("maps/")))
    shapes = {name: _shape_of(name, by_step, inputs) for name in names}

    def size(side: int, steps: Sequence[int]) -> int:
        return inputs * (_pixels(panel.shape[1:3], side) * int(panel.shape[3]) + len(steps) * sum(_pixels(shape, side) for shape in shapes.values()))

    side, steps = _fitting(found, size, PANEL_BYTES)

    def each(name: str) -> list[Json]:
        return [_none_below_zero(by_step[step].get(name, np.full(inputs, np.nan))) for step in steps]

    low, high = _range(panel)
    return {
        "at": rows_at(recording.steps, steps),
        "left_out": left_out(recording.steps, found, steps),
        "size": list(panel.shape[1:3]),
        "side": side,
        "panel": packed(grey_levels(panel, side, low, high)),
        "inputs": [rounded(v) for v in np.asarray(last.get("inputs", np.arange(inputs))).tolist()],
        "labels": _none_below_zero(last.get("labels", np.full(inputs, np.nan))),
        "predictions": each("predictions"),
        "confidence": each("confidence"),
        "explained": _explained(last),
        "methods": [_method(recording, name, {step: by_step[step] for step in steps}, shapes[name], side) for name in names],
        "chosen": _chosen(recording, by_step, shapes, probe),
    }


def _shape_of(method: str, by_step: Mapping[int, Arrays], inputs: int) -> tuple[int, int]:
    """(h, w) of a method's maps, as at the last step that has them."""
    shape = np.shape([arrays for arrays in by_step.values() if f"maps/{method}" in arrays][-1][f"maps/{method}"])
    if len(shape) != 3 or shape[0] != inputs:
        raise ValueError(f"the maps of saliency method {method!r} have shape {shape}; expected ({inputs}, h, w), one map per input of the panel")
    return shape[1], shape[2]


def _method(recording: Recording, method: str, by_step: Mapping[int, Arrays], shape: tuple[int, int], side: int) -> dict[str, Json]:
    maps = {step: arrays[f"maps/{method}"] for step, arrays in by_step.items() if _has(arrays, f"maps/{method}", shape)}
    drawn = [_density(values, side) for values in maps.values()]
    return {
        "name": method,
        "at": rows_at(recording.steps, list(maps)),
        "density": packed(np.stack([density for density, _ in drawn]) if drawn else np.zeros((0, 0, *shape), np.uint8)),
        "mean": [mean for _, mean in drawn],
        "size": list(shape),
    }


def _has(arrays: Arrays, name: str, shape: tuple[int, int]) -> bool:
    """Whether there are maps of that name and size."""
    return name in arrays and arrays[name].shape[1:] == shape


def _density(maps: Array, side: int) -> tuple[UInt8, list[float]]:
    """Maps (n, h, w) as |map| / mean |map|, and that mean: 0 where a map is zero everywhere, NaN where it holds what is no number."""
    values = reduced(np.abs(np.asarray(maps, np.float64)), side)
    mean = values.mean(axis=(1, 2))
    spread = np.divide(values, mean[:, None, None], out=np.zeros_like(values), where=(mean > 0)[:, None, None] & np.isfinite(values))
    return np.rint(np.clip(spread / DENSITY_LIMIT, 0, 1) * 255).astype(np.uint8), [rounded(v) for v in mean.tolist()]


def _explained(arrays: Arrays) -> str | None:
    """Whether the maps explain the predicted or the labelled class; None where that was not recorded or cannot be told."""
    alike = [name for name in ("predictions", "labels") if "classes" in arrays and np.array_equal(arrays["classes"], arrays.get(name, np.empty(0)))]
    return {"predictions": "predicted", "labels": "labelled"}[alike[0]] if len(alike) == 1 else None


# ------------------------------------------------------------------------------------------------------ chosen inputs


def _chosen(recording: Recording, by_step: Mapping[int, Arrays], shapes: Mapping[str, tuple[int, int]], probe: ProbeSet | None) -> Json:
    """The inputs chosen at each step, by why; None where none were asked for."""
    found = [step for step, arrays in by_step.items() if {"inputs_chosen", "why_chosen", "panel_chosen"} <= arrays.keys()]
    if not found:
        return None
    places = {step: np.asarray(by_step[step]["inputs_chosen"], np.int64) for step in found}
    # An input that is lacking still holds a row in the arrays.
    rows = {step: np.flatnonzero(places[step] >= 0) for step in found}
    image = np.shape(by_step[found[-1]]["panel_chosen"])[1:]

    def size(side: int, steps: Sequence[int]) -> int:
        different = len({int(place) for step in steps for place in places[step][rows[step]]})
        entries = sum(len(rows[step]) for step in steps)
        return different * _pixels(image[:2], side) * int(image[2]) + entries * sum(_pixels(shape, side) for shape in shapes.values())

    side, steps = _fitting(found, size, CHOSEN_BYTES)
    pictures = {int(place): by_step[step]["panel_chosen"][row] for step in steps for row in rows[step] for place in [places[step][row]]}
    numbers = {place: number for number, place in enumerate(sorted(pictures))}
    shown = np.stack([np.asarray(pictures[place], np.float64) for place in numbers]) if numbers else np.zeros((0, *image))
    reasons = [str(why) for why, _ in groupby(np.asarray(by_step[found[-1]]["why_chosen"]).tolist())]
    before = dict(zip(found[1:], found))
    return {
        "at": rows_at(recording.steps, steps),
        "left_out": left_out(recording.steps, found, steps),
        "side": side,
        "inputs": list(numbers),
        "pictures": packed(grey_levels(shown, side, *_range(shown))),
        "why": reasons,
        "asked": len(places[found[-1]]) // max(len(reasons), 1),
        "steps": [_step(recording, by_step, step, before.get(step), rows[step], numbers, reasons, probe) for step in steps],
        "methods": [_entries(method, shape, [(by_step[step], rows[step]) for step in steps], side) for method, shape in shapes.items()],
    }


def _step(
    recording: Recording,
    by_step: Mapping[int, Arrays],
    step: int,
    before: int | None,
    rows: Int64,
    numbers: Mapping[int, int],
    reasons: Sequence[str],
    probe: ProbeSet | None,
) -> dict[str, Json]:
    """The entries of one step, of how many inputs of each reason they are, and at which step these were asked before."""
    arrays = by_step[step]
    places = np.asarray(arrays["inputs_chosen"], np.int64)[rows]
    earlier = _predictions(by_step[before]) if before is not None else None
    now = _predictions(arrays)
    if now is None or earlier is None or earlier.shape != now.shape:
        earlier = None
    return {
        "before": None if before is None or earlier is None else recording.steps.index(before),
        "of": _of_each(arrays, earlier, reasons, probe),
        "why": [reasons.index(str(why)) for why in np.asarray(arrays["why_chosen"])[rows].tolist()],
        "picture": [numbers[place] for place in places.tolist()],
        **{one: _none_below_zero(arrays[f"{many}_chosen"][rows]) for one, many in _SAID.items() if f"{many}_chosen" in arrays},
        "was": None if earlier is None else _none_below_zero(earlier[places]),
    }


_SAID = {"label": "labels", "prediction": "predictions", "confidence": "confidence"}


def _predictions(arrays: Arrays) -> Int64 | None:
    return np.asarray(arrays["predictions_probe"], np.int64) if "predictions_probe" in arrays else None


def _of_each(arrays: Arrays, earlier: Int64 | None, reasons: Sequence[str], probe: ProbeSet | None) -> list[int | None]:
    """How many inputs outside the panel there are of each reason, as `chosen_of` tells them apart; None where that is not known."""
    now = _predictions(arrays)
    if now is None:
        return [None] * len(reasons)
    free = ~np.isin(np.arange(len(now)), np.asarray(arrays.get("inputs", ()), np.int64))
    changed = np.zeros(len(now), bool) if earlier is None else now != earlier
    right = now == probe.labels if probe is not None and len(probe.labels) == len(now) else None
    of = {"changed": changed} if right is None else {"changed": changed, "wrong": ~changed & ~right, "right": ~changed & right}
    return [int((free & of[why]).sum()) if why in of else None for why in reasons]


def _entries(method: str, shape: tuple[int, int], steps: Sequence[tuple[Arrays, Int64]], side: int) -> dict[str, Json]:
    """The maps of all entries, step by step; `seen` says which there are, as a method may be lacking at a step."""
    name = f"maps_chosen/{method}"
    seen = [_has(arrays, name, shape) for arrays, _ in steps]
    drawn = [_density(arrays[name][rows] if here else np.zeros((len(rows), *shape)), side) for here, (arrays, rows) in zip(seen, steps)]
    return {
        "density": packed(np.concatenate([density for density, _ in drawn])),
        "mean": [mean for _, means in drawn for mean in means],
        "seen": [here for here, (_, rows) in zip(seen, steps) for _ in rows],
    }


# --------------------------------------------------------------------------------------------------------------- size


def _fitting(steps: Sequence[int], size: Callable[[int, Sequence[int]], int], room: int) -> tuple[int, list[int]]:
    """The side of pictures and the steps at which a size in bytes has room as text: smaller pictures first, then fewer steps."""
    for side in SIDES:
        if size(side, steps) * 4 / 3 <= room:
            return side, list(steps)
    fewer = (evenly(steps, many) for many in range(len(steps) - 1, 1, -1))
    return SIDES[-1], next((kept for kept in fewer if size(SIDES[-1], kept) * 4 / 3 <= room), evenly(steps, 2))


def _pixels(shape: Sequence[int], side: int) -> int:
    """How many an image (h, w) has after `netlapse.packing.reduced`."""
    return int(np.prod([-(-size // -(-size // side)) for size in shape]))


# ------------------------------------------------------------------------------------------------------------ numbers


def _range(images: Float64) -> tuple[float, float]:
    finite = images[np.isfinite(images)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


def _none_below_zero(values: Array) -> list[float]:
    """-1 is no label and no prediction."""
    row = np.asarray(values, np.float64)
    return [rounded(v) for v in np.where(row < 0, np.nan, row).tolist()]
