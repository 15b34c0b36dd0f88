"""What units respond to, on the time-lapse page: their top inputs, where in these they look, and what they are for.

What is small travels for every step: top inputs and where in them, labels, numbers. Fields are large; they travel as they
are drawn and no finer, of fewer steps, and then of fewer units, where not all have room.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from netlapse.analysis.receptive_field.fields import largest_diameter
from netlapse.packing import Json, evenly, indices, left_out, packed, rounded, rows_at
from netlapse.recording import Recording
from netlapse.report_inputs import RESPONSES, Inputs
from netlapse.types import Array, Field, Float64, Int64, ProbeSet

FIELD_BYTES = 8_000_000  # of all fields that are carried, as text
LEVEL = 0.5  # of a field's highest place: what is at least so high is within its outline
UNKNOWN = -128
"""Stands for no value among the int8 of a field."""

Arrays = Mapping[str, Array]


def responses(recording: Recording, layers: Sequence[Mapping[str, Json]], inputs: Inputs, probe: ProbeSet | None) -> dict[str, Json]:
    """Layer -> what its units respond to, of those layers of the page that `receptive_field` was asked about."""
    found = {str(layer["name"]): steps for layer in layers if (steps := _steps_of(recording, str(layer["name"]), layer["units"]))}
    image = _image(recording, probe)
    fields = {layer: made for layer, steps in found.items() if (made := _fields(layer, steps, image)) is not None}
    kept, limit = _fitting(fields)
    shapes = {str(layer["name"]): layer.get("shape") for layer in layers}
    return {
        layer: _top(recording, layer, steps, inputs)
        | _numbers(layer, steps)
        | {
            "image": image,
            "shape": shapes[layer],
            "theory": _last(steps, f"theory/{layer}"),
            "occluder": int(steps[max(steps)]["occluder"]),
            "stride": int(steps[max(steps)]["stride"]),
            "bound": _bound(layer, steps[max(steps)]),
            "fields": fields[layer].carried(recording, kept, limit) if layer in fields else None,
        }
        for layer, steps in found.items()
    }


def _steps_of(recording: Recording, layer: str, units: Json) -> dict[int, Arrays]:
    """Step -> arrays, of the steps at which the layer's top inputs are of as many, and its fields of the same units, as at the last."""
    every = {step: findings.arrays for step, findings in sorted(recording.findings.get(RESPONSES, {}).items())}
    having = {step: arrays for step, arrays in every.items() if f"top/{layer}" in arrays and len(arrays[f"top/{layer}"]) == units}
    if not having:
        return {}
    last = having[max(having)]

    def alike(arrays: Arrays) -> bool:
        same = all(
            np.array_equal(_or_none(arrays, name), _or_none(last, name)) for name in (f"units/{layer}", f"theory/{layer}", "occluder", "stride")
        )
        return same and all(_or_none(arrays, name).shape == _or_none(last, name).shape for name in (f"top/{layer}", f"fields/{layer}"))

    return {step: arrays for step, arrays in having.items() if alike(arrays)}


def _or_none(arrays: Arrays, name: str) -> Array:
    """An array, or one of no values where there is none."""
    return arrays.get(name, np.empty(0))


def _image(recording: Recording, probe: ProbeSet | None) -> list[int] | None:
    """(h, w) of the probe's images; None where they are not known to be images."""
    shown = recording.manifest.get("probe")
    listed = shown.get("shape") if isinstance(shown, Mapping) else None
    shape = probe.inputs.shape[1:] if probe is not None else listed
    return [int(side) for side in shape[:2]] if isinstance(shape, Sequence) and len(shape) == 3 else None


def _top(recording: Recording, layer: str, steps: Mapping[int, Arrays], inputs: Inputs) -> dict[str, Json]:
    """The top inputs (s, u, k), where in them (s, u, k, 2), and what these say of the unit (s, u)."""

    def every(name: str) -> Array:
        return np.stack([np.asarray(arrays[f"{name}/{layer}"]) for arrays in steps.values()])

    return {
        "at": rows_at(recording.steps, list(steps)),
        "top": packed(inputs.numbered(every("top"))),
        "positions": packed(indices(np.maximum(every("top_positions"), 0))),
        "class": packed(every("class").astype(np.int16)),
        "since": packed(indices(every("since"))),
        "purity": packed(every("purity").astype(np.float32)),
        "stability": packed(every("stability").astype(np.float32)),
        "height": packed(np.stack([_height(layer, arrays) for arrays in steps.values()]).astype(np.float32)),
    }


def _height(layer: str, arrays: Arrays) -> Float64:
    """(u,) the mean of the activations of the top inputs that there are."""
    there = np.asarray(arrays[f"top/{layer}"], np.int64) >= 0
    values = np.asarray(arrays[f"top_values/{layer}"], np.float64)
    return np.asarray(values.sum(axis=1, where=there) / there.sum(axis=1), np.float64)


def _numbers(layer: str, steps: Mapping[int, Arrays]) -> dict[str, Json]:
    """What was measured of the fields, (s, m) of the units (m,), and over these the quartiles of the diameters; None without fields."""
    if _last(steps, f"fields/{layer}", as_list=False) is None:
        return {"units": None, "numbers": None, "quartiles": None}

    def every(name: str) -> Array:
        return np.stack([np.asarray(arrays[f"{name}/{layer}"], np.float32) for arrays in steps.values()])

    known = [row[~np.isnan(row)] for row in every("diameter").astype(np.float64)]
    return {
        "units": packed(indices(steps[max(steps)][f"units/{layer}"])),
        "numbers": {name: packed(every(name)) for name in ("diameter", "area", "ratio")},
        "quartiles": [[rounded(v) for v in np.quantile(row, (0.25, 0.5, 0.75)).tolist()] if len(row) else [None] * 3 for row in known],
    }


def _last(steps: Mapping[int, Arrays], name: str, *, as_list: bool = True) -> Json:
    values = steps[max(steps)].get(name)
    return values.tolist() if values is not None and as_list else values


def _bound(layer: str, arrays: Arrays) -> float | None:
    if f"theory/{layer}" not in arrays or f"fields/{layer}" not in arrays:
        return None
    size, stride, offset = ((int(row), int(column)) for row, column in np.asarray(arrays[f"theory/{layer}"]).T)
    r, c = arrays[f"fields/{layer}"].shape[1:]
    return rounded(largest_diameter(Field(size, stride, offset), int(arrays["occluder"]), int(arrays["stride"]), ((r + 1) // 2, (c + 1) // 2)))


# ------------------------------------------------------------------------------------------------------------- fields


@dataclass(frozen=True, eq=False)
class _Fields:
    """A layer's fields as they are drawn.

    units    (m,) their indices
    shares   step -> (m, r, c) int8: what covering takes, as a share of the activation, = number / 127, beyond 1 it saturates; the
             places that are drawn with the unit in the middle of an image
    inside   step -> (m, b, d) bool: the places within the outline, none farther from the middle
    """

    units: Int64
    shares: Mapping[int, Array]
    inside: Mapping[int, Array]

    def size(self, steps: Sequence[int], limit: int) -> float:
        """In bytes as text, of at most so many units."""
        shares, inside = (next(iter(made.values())).shape[1:] for made in (self.shares, self.inside))
        each = np.prod(shares) + -(-np.prod(inside) // 8)
        return len({*steps} & self.shares.keys()) * min(len(self.units), limit) * float(each) * 4 / 3

    def carried(self, recording: Recording, kept: Sequence[int], limit: int) -> dict[str, Json]:
        steps = [step for step in kept if step in self.shares]
        rows = np.asarray(evenly(range(len(self.units)), limit), np.int64)
        inside = np.stack([np.asarray(self.inside[step][rows], np.bool_) for step in steps])
        return {
            "at": rows_at(recording.steps, steps),
            "left_out": left_out(recording.steps, list(self.shares), steps),
            "units": packed(indices(self.units[rows])),
            "share": packed(np.stack([self.shares[step][rows] for step in steps])),
            "inside": packed(np.packbits(inside.reshape(len(steps), len(rows), -1), axis=2, bitorder="little")),
            "extent": list(inside.shape[2:]),
        }


def _fields(layer: str, steps: Mapping[int, Arrays], image: Sequence[int] | None) -> _Fields | None:
    if image is None or _last(steps, f"fields/{layer}", as_list=False) is None:
        return None
    stride = int(steps[max(steps)]["stride"])
    units = np.asarray(steps[max(steps)][f"units/{layer}"], np.int64)
    inside = {step: _inside(np.asarray(arrays[f"fields/{layer}"], np.float64)) for step, arrays in steps.items()}
    rows, columns = (_reach(np.any([found.any(axis=(0, 2 - axis)) for found in inside.values()], axis=0)) for axis in range(2))
    return _Fields(
        units,
        {step: _share(layer, arrays, units, [int(np.floor((side - 1) / 2 / stride + 0.5)) for side in image]) for step, arrays in steps.items()},
        {step: _middle(found, (rows, columns)) for step, found in inside.items()},
    )


def _inside(fields: Float64) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """(m, r, c) the places that `netlapse.analysis.receptive_field.region` takes; worked out before anything is rounded."""
    highest = np.max(fields, axis=(1, 2), initial=0.0, where=~np.isnan(fields))[:, None, None]
    return np.asarray((highest > 0) & (np.nan_to_num(fields, nan=-1.0) >= LEVEL * highest))


def _share(layer: str, arrays: Arrays, units: Int64, reach: Sequence[int]) -> Array:
    height = _height(layer, arrays)[units][:, None, None]
    fields = _middle(np.asarray(arrays[f"fields/{layer}"], np.float64), reach)
    known = (height > 0) & ~np.isnan(fields)
    share = np.divide(fields, height, out=np.zeros_like(fields), where=known)
    return np.where(known, np.rint(np.clip(share, -1, 1) * 127), UNKNOWN).astype(np.int8)


def _middle(fields: Array, reach: Sequence[int]) -> Array:
    """The places (m, r, c) that are no farther from the one in the middle."""
    window = [slice(max(n // 2 - far, 0), n // 2 + far + 1) for n, far in zip(fields.shape[1:], reach)]
    return fields[:, window[0], window[1]]


def _reach(any_there: Array) -> int:
    """How far from the middle there is anything."""
    there = np.flatnonzero(any_there)
    return int(np.abs(there - len(any_there) // 2).max()) if len(there) else 0


def _fitting(fields: Mapping[str, _Fields]) -> tuple[list[int], int]:
    """The steps and how many units of each layer have room: fewer steps first, down to two, then fewer units."""
    steps = sorted({step for of in fields.values() for step in of.shares})
    most = max((len(of.units) for of in fields.values()), default=0)

    def fits(kept: Sequence[int], limit: int) -> bool:
        return sum(of.size(kept, limit) for of in fields.values()) <= FIELD_BYTES

    for many in range(len(steps), 1, -1):
        if fits(evenly(steps, many), most):
            return evenly(steps, many), most
    kept = evenly(steps, 2)
    return kept, next((limit for limit in range(most, 1, -1) if fits(kept, limit)), 1)
