"""The images of a folder of any size that each unit responds to most, as an analysis of its own.

They are labelled by nobody and no part of the probe, so they are asked about offline; `netlapse.analysis.streaming` shows
them to the network. After Zhou et al., "Object detectors emerge in deep scene CNNs" (2015), section 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from netlapse.analysis.receptive_field.discrepancy import Fill, grids, replacement, usual_occluder
from netlapse.analysis.receptive_field.fields import ReceptiveFields, centres, field_numbers, fields_of, theoretical_field
from netlapse.analysis.receptive_field.top import TopInputs
from netlapse.analysis.receptive_field.views import region, resampled
from netlapse.analysis.streaming import Asked, Seen
from netlapse.data.stream import chosen
from netlapse.render.montage import UnitRow, montage
from netlapse.types import Array, Field, Findings, Float32, Int64, Network, UInt8

THUMBNAILS = 100_000_000
"""Bytes that the thumbnails of a step may take; where they would take more they are smaller."""

Mask = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]


@dataclass(frozen=True)
class Fields:
    """How the receptive fields of the drawn units are found; see `receptive_fields`. None: as the analysis of that name has it."""

    occluder: int | None = None
    stride: int | None = None
    fill: Fill = "mean"


def as_findings(
    network: Network,
    asked: Asked,
    seen: Seen,
    step: int,
    *,
    name: str = "top_images",
    units: int = 12,
    thumbnails: int = 64,
    fields: Fields | None = None,
    threads: int = 4,
) -> Findings:
    """What `stream` saw, for the record: of the images, only those that are among the top of some unit are read again.

    units       of a layer that are drawn, spread evenly
    thumbnails  pixels of their longer side, at most; 0: none
    fields      None: the drawn units' receptive fields are not found

    arrays      `ids` (d,) the paths of the images that are among any unit's top, and `indices` (d,) their places among all;
                `thumbnails` (d, h', w', c) uint8 as the network sees them, smaller. For each layer `top/<layer>` (u, k) indices into
                `ids`, -1 where there are fewer images, `top_values/<layer>` (u, k), `top_positions/<layer>` (u, k, 2), see `TopInputs`.
                `unread` (m,) paths and `unread_why` (m,). With fields, for each spatial layer `units/<layer>` (r,) those drawn,
                `fields/<layer>` and the numbers of `field_numbers` as `area/<layer>` ... (r,), `theory/<layer>` (2, 3) size, stride and
                offset along rows and columns, absent where not known; `occluder`, `stride`
    scalars     `<name>/images` and `<name>/unread`; `<name>/alike/<layer>` the share of units that respond to all their top images with
                one number: dead, or saturated, and which images these are says nothing. With fields the medians `<name>/<number>/<layer>`
    images      `<name>/<layer>`: units with their top images

    Raises ValueError for numbers out of range, an image that can no longer be read, and what `receptive_fields` raises.
    """
    if units < 1 or thumbnails < 0:
        raise ValueError(f"top images were to be drawn of {units} units, with thumbnails of {thumbnails} pixels; expected at least 1, and 0 for none")
    top = seen.top
    assert top is not None
    size, few = asked.shown.shape[:2], np.zeros((2, *asked.shown.shape), np.float32)
    shapes = {layer.name: layer.shape for layer in network.describe(few)}
    all_inputs = np.concatenate([found.ravel() for found in top.inputs.values()])
    indices = np.unique(all_inputs[all_inputs >= 0])
    arrays: dict[str, Array] = {
        "ids": np.array([asked.images.shown(int(index)) for index in indices]),
        "indices": indices,
        "unread": np.array([asked.images.shown(index) for index in seen.unread], np.str_),
        "unread_why": np.array(list(seen.unread.values()), np.str_),
    }
    if thumbnails:
        small = replace(asked.shown, shape=_thumbnail(asked.shown.shape, thumbnails, len(indices)), mean=(), deviation=())
        arrays["thumbnails"] = chosen(asked.images, small, indices, threads=threads)
    scalars = {f"{name}/images": float(seen.stop - len(seen.unread)), f"{name}/unread": float(len(seen.unread))}
    drawn: dict[str, UInt8] = {}
    for layer, values in top.values.items():
        inputs, positions = top.inputs[layer], top.positions[layer]
        arrays |= {
            f"top/{layer}": np.where(inputs < 0, -1, np.searchsorted(indices, inputs)),
            f"top_values/{layer}": values,
            f"top_positions/{layer}": positions,
        }
        scalars[f"{name}/alike/{layer}"] = float(_alike(values, inputs).mean())
        rows = np.unique(np.linspace(0, len(values) - 1, min(units, len(values))).round().astype(np.int64))
        of_rows, used = _among(rows, top, layer)
        pixels = chosen(asked.images, asked.shown, used, threads=threads)
        spatial = len(shapes[layer]) == 3
        found = None if fields is None or not spatial else _fields(network, asked, layer, rows, of_rows, pixels, fields)
        if found is not None:
            more, numbers = _numbers(found, size)
            arrays |= {f"{key}/{layer}": value for key, value in more.items()}
            arrays |= {"occluder": np.array(found.occluder), "stride": np.array(found.stride)}
            scalars |= {f"{name}/{key}/{layer}": value for key, value in numbers.items()}
        place = _Place(layer, shapes[layer], size, theoretical_field(network, few, layer) if spatial else None)
        drawn[f"{name}/{layer}"] = _picture(seen, place, rows, len(values), of_rows, pixels, found, step)
    return Findings(arrays, scalars, drawn)


Top = tuple[Float32, Int64, Int64]
"""values (r, k), indices (r, k) and positions (r, k, 2) of some units' top images."""


def _thumbnail(shape: tuple[int, int, int], longest: int, n: int) -> tuple[int, int, int]:
    height, width, channels = shape
    scale = min(1.0, longest / max(height, width), (THUMBNAILS / (n * height * width * channels)) ** 0.5)
    return max(1, int(height * scale)), max(1, int(width * scale)), channels


def _alike(values: Float32, inputs: Int64) -> Mask:
    """(u,) whether one number is the response to all of at least two top images."""
    present = inputs >= 0
    lowest = np.where(present, values, np.inf).min(axis=1)
    return np.asarray((present.sum(axis=1) > 1) & (values[:, 0] == lowest))


def _among(rows: Int64, top: TopInputs, layer: str) -> tuple[Top, Int64]:
    """The top images of some units, by their place among those images, and which these are."""
    inputs = top.inputs[layer][rows]
    used = np.unique(inputs[inputs >= 0])
    return (top.values[layer][rows], np.where(inputs < 0, -1, np.searchsorted(used, inputs)), top.positions[layer][rows]), used


def _fields(network: Network, asked: Asked, layer: str, rows: Int64, top: Top, pixels: UInt8, fields: Fields) -> ReceptiveFields:
    occluder, stride = square(asked.shown.shape, fields)
    images = asked.shown.scaled(pixels)
    return fields_of(network, images, layer, rows, top, occluder=occluder, stride=stride, fill=fields.fill, batch_size=asked.batch_size)


def square(shape: tuple[int, int, int], fields: Fields) -> tuple[int, int]:
    """The occluder's side and stride in pixels, by default as the analysis `receptive_field` has them.

    Raises ValueError where the occluder does not fit, or for a fill that is none.
    """
    occluder, stride = usual_occluder(shape, fields.occluder, fields.stride)
    grids(shape, occluder, stride)
    replacement(np.zeros(shape, np.float32), fields.fill, occluder, 0)
    return occluder, stride


def _numbers(found: ReceptiveFields, image: tuple[int, int]) -> tuple[dict[str, Array], dict[str, float]]:
    numbers = field_numbers(found, image)
    arrays: dict[str, Array] = {"units": found.units, "fields": found.fields, **numbers}
    if found.theory is not None:
        arrays["theory"] = np.array([found.theory.size, found.theory.stride, found.theory.offset]).T
    return arrays, {key: float(np.median(row[~np.isnan(row)])) if not np.isnan(row).all() else float("nan") for key, row in numbers.items()}


def _picture(seen: Seen, place: _Place, rows: Int64, n: int, top: Top, pixels: UInt8, found: ReceptiveFields | None, step: int) -> UInt8:
    values, inputs, positions = top
    alike, drawn = _alike(values, inputs), []
    for row, unit in enumerate(rows):
        present = (inputs[row] >= 0) & ~alike[row]  # which images are first of equal ones says nothing
        responses = values[row][present]
        about = [f"{values[row, 0]:.3g} for all of them:", "none is shown"] if alike[row] else []
        if len(responses):
            about = [f"responds {responses[0]:.3g} to {responses[-1]:.3g}"]
        images = pixels[inputs[row][present]].astype(np.float64) / 255
        if found is None:
            drawn.append(UnitRow(f"unit {unit}", about, images, place.boxes(positions[row][present])))
            continue
        mean, middle = 0.0 if alike[row] else float(responses.mean()), (np.array(place.size) - 1) / 2
        centre = centres(positions[row][present], found.theory, place.shape[:2], place.size)
        outlines = np.array([region(found.fields[row], found.stride, at, place.size) for at in centre], bool).reshape(-1, *place.size)
        share = resampled(found.fields[row], found.stride, middle, place.size) / mean if mean > 0 else np.full(place.size, np.nan)
        why = "dead" if found.dead[row] else "all alike" if alike[row] else "never above 0" if mean <= 0 else ""
        drawn.append(UnitRow(f"unit {unit}", about, images, outlines, share, why))
    title = f"{place.layer} \u00b7 top images of {len(rows)} of {n} units, among {seen.stop - len(seen.unread):,} images \u00b7 step {step}"
    note = f"Outlined: where a square of {found.occluder} pixels takes at least half of what it takes most." if found is not None else place.note
    return montage(drawn, title, note)


@dataclass(frozen=True)
class _Place:
    """Where in images (h, w) the units of a layer are."""

    layer: str
    shape: tuple[int, ...]
    size: tuple[int, int]
    theory: Field | None

    def boxes(self, positions: Int64) -> Mask:
        """(k, h, w) True in the theoretical fields at positions (k, 2); False where these are not known."""
        found: Mask = np.zeros((len(positions), *self.size), bool)
        if self.theory is not None:
            for mask, position in zip(found, positions):
                first = np.array(self.theory.offset) + position * np.array(self.theory.stride)
                last = np.maximum(first + self.theory.size, 0)
                mask[tuple(slice(max(0, int(a)), int(b)) for a, b in zip(first, last))] = True
        return found

    @property
    def note(self) -> str:
        """What `boxes` shows, in words."""
        if self.theory is None:
            return ""
        return f"Outlined: the {self.theory.size[0]} x {self.theory.size[1]} pixels that the unit can see from where it responds most."
