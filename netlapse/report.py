"""The time-lapse page: one self-contained HTML document drawn from what a run recorded.

The page carries numbers and draws its pictures in the browser, so that one file serves every step, layer, group and
difference. How the numbers travel, in the JSON of the element `#recording` (typed arrays are little-endian base64
without padding, `{"type", "shape", "data"}`):

contrast   (s, g, u) int16 per layer: value = number * scale[s]; -32768 where there is no value (a group without inputs)
mean       (s, u) float32 per layer: the mean over the groups that have inputs; profile = mean + contrast
points     (v, 2) uint16 per geometry: position = number / 65535; `triangles` (t, 3) are its Delaunay triangulation
vertex     (u,) per layout: the point each unit sits at; layouts that permute the same places share their geometry
laid_out   per layer, for each of the run's `layouts` (the observed one first): which layout holds at each step, or -1
density    (s, m, h, w) uint8 per saliency method: |map| / mean |map| = number * 6 / 255, above 6 it saturates
panel      (m, h, w, c) uint8: the inputs, the whole panel scaled by its own smallest and largest value

The exact values stay in the findings. Contrast and mean travel apart so that a contrast of exactly zero stays zero and
a small contrast survives beside a large activation.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypedDict, cast

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import Delaunay

from netlapse.analysis.topomap import ALL_STEPS
from netlapse.recording import Recording
from netlapse.types import Array, Findings, Float64, UInt8

LIMIT = 50_000_000  # bytes; MLflow's artifact viewer shows nothing larger
DENSITY_LIMIT = 6.0  # times an even spread, at full colour
MAP_SIDE = 112  # pixels of a saliency map or an input on the page; larger ones are averaged down
SD_LIMIT = 2.0  # standard deviations of the layer, at full colour
MISSING = -32768
OBSERVED = "topomap"  # the analysis whose layouts were made while the network was seen

_FOLDER = Path(__file__).parent / "page"
_SCRIPTS = ("data.js", "colour.js", "raster.js", "charts.js", "header.js", "layers.js", "maps.js", "units.js", "saliency.js", "curves.js", "page.js")
_FACTS = ("title", "model", "data", "created", "command", "step_unit", "class_names", "probe", "versions", "run_id", "failures", "events")

Json = object


def page(recording: Recording) -> str:
    """The whole time-lapse as one HTML document that needs no network, no storage and no other file.

    Raises ValueError when the recording holds no findings, and when the page would exceed 50 MB, naming what is large.
    """
    if not recording.steps:
        raise ValueError(
            f"nothing to draw: the recording holds no findings at any step (analyses: {sorted(recording.findings) or 'none'}); "
            "observe at least one checkpoint, or check the run id it was loaded from"
        )
    title = str(recording.manifest.get("title") or "netlapse time-lapse")
    parts = {
        "title": html.escape(title),
        "style": (_FOLDER / "page.css").read_text(encoding="utf-8"),
        "recording": _json(_document(recording)),
        "script": "\n".join((_FOLDER / name).read_text(encoding="utf-8") for name in _SCRIPTS),
    }
    # One pass, so that a placeholder in someone's title is text and not a placeholder.
    document = re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], (_FOLDER / "page.html").read_text(encoding="utf-8"))
    size = len(document.encode())
    if size > LIMIT:
        raise ValueError(_too_large(recording, size))
    return document


def _document(recording: Recording) -> dict[str, Json]:
    geometries = _Geometries()
    profiles = _profiles(recording, geometries)
    repeated = {*_laying_out(recording)} - {layout["analysis"] for layout in profiles["layouts"]}
    return {
        "schema": 1,
        "manifest": {key: recording.manifest[key] for key in _FACTS if key in recording.manifest},
        "steps": list(recording.steps),
        **profiles,
        "geometries": geometries.packed,
        "saliency": _saliency(recording),
        "curves": {
            name: {"steps": series.steps.tolist(), "values": [_number(value) for value in series.values.tolist()]}
            for name, series in recording.scalars.items()
            if name.partition("/")[0] not in repeated
        },
        "analyses": {name: sorted(by_step) for name, by_step in recording.findings.items() if by_step},
        "limits": {"sd": SD_LIMIT, "density": DENSITY_LIMIT},
    }


# --------------------------------------------------------------------------------------------- profiles and layouts


class _Profiles(TypedDict):
    groups: list[str]
    counts: list[Json]
    layouts: list[dict[str, Json]]
    layers: list[dict[str, Json]]


def _profiles(recording: Recording, geometries: _Geometries) -> _Profiles:
    """Groups with their counts, the layouts there are to choose from, and every layer's contrast, mean, deviation and places."""
    found = {step: findings for step, findings in sorted(recording.findings.get("nap", {}).items()) if "groups" in findings.arrays}
    names: list[str] = []
    for findings in found.values():
        names += [name for name in map(str, findings.arrays["groups"].tolist()) if name not in names]
    counts: list[Json] = []
    for step in recording.steps:
        if step not in found or "counts" not in found[step].arrays:
            counts.append(None)
            continue
        here = dict(zip(map(str, found[step].arrays["groups"].tolist()), found[step].arrays["counts"].tolist()))
        counts.append([int(here.get(name, 0)) for name in names])
    analyses = _laying_out(recording)
    layers = [_layer(recording, found, names, description, analyses, geometries) for description in _described_layers(recording, found)]
    # The same places in other colours are no other layout.
    distinct: dict[str, int] = {}
    laid_out = [cast("list[dict[str, Json]]", layer["laid_out"]) for layer in layers]
    for number in range(len(analyses)):
        distinct.setdefault(json.dumps([one[number]["at"] for one in laid_out]), number)
    for layer, one in zip(layers, laid_out):
        layer["laid_out"] = [one[number] for number in distinct.values()]
    return {"groups": names, "counts": counts, "layouts": [_in_words(recording, analyses[n]) for n in distinct.values()], "layers": layers}


def _laying_out(recording: Recording) -> list[str]:
    """The analyses that laid out layers, the observed one first; where there is none, the one that would have."""
    found = [
        name for name, by_step in recording.findings.items() if any(key.startswith("layout_step/") for f in by_step.values() for key in f.arrays)
    ]
    return sorted(found, key=lambda name: (name != OBSERVED, name)) or [OBSERVED]


def _in_words(recording: Recording, analysis: str) -> dict[str, Json]:
    """How a reader is offered the layouts of an analysis, and whether they are fixed: the same at every step."""
    if analysis == OBSERVED:
        return {"analysis": analysis, "words": "as observed", "fixed": False}
    unit = str(recording.manifest.get("step_unit") or "step")
    made: dict[str, set[int]] = {}
    for findings in recording.findings[analysis].values():
        for name, values in findings.arrays.items():
            if name.startswith("layout_step/"):
                made.setdefault(name, set()).add(int(np.asarray(values, np.int64)))
    fixed = all(len(steps) == 1 for steps in made.values())
    words = f"each {unit} its own"
    if fixed:
        steps = sorted(set.union(*made.values()))
        words = f"one for all {unit}s" if steps == [ALL_STEPS] else f"fixed at {unit}{'s' * (len(steps) > 1)} {', '.join(map(str, steps))}"
    # What its source does not tell: `topomap_last_pca` is fixed at a step, and pca.
    rest = re.sub(r"^topomap_((each|joint|last|at_\d+)(_|$))?", "", analysis).replace("_", " ")
    return {"analysis": analysis, "words": f"{words}, {rest}" if rest else words, "fixed": fixed}


def _described_layers(recording: Recording, found: Mapping[int, Findings]) -> list[dict[str, Json]]:
    """The layers that have a profile, in the manifest's order, then in the order they were found."""
    having = list(dict.fromkeys(name.removeprefix("profile/") for f in found.values() for name in f.arrays if name.startswith("profile/")))
    listed = recording.manifest.get("layers")
    described = {str(layer["name"]): dict(layer) for layer in listed if "name" in layer} if isinstance(listed, Sequence) else {}
    order = [name for name in described if name in having] + [name for name in having if name not in described]
    return [{key: described.get(name, {}).get(key) for key in ("kind", "shape", "role")} | {"name": name} for name in order]


def _layer(
    recording: Recording,
    found: Mapping[int, Findings],
    names: Sequence[str],
    description: Mapping[str, Json],
    analyses: Sequence[str],
    geometries: _Geometries,
) -> dict[str, Json]:
    name = str(description["name"])
    profiles = {step: np.asarray(f.arrays[f"profile/{name}"], np.float64) for step, f in found.items() if f"profile/{name}" in f.arrays}
    shapes = [profile.shape for profile in profiles.values() if profile.ndim == 2]
    if not shapes:
        received = next(iter(profiles.values())).shape
        raise ValueError(f"the profile of layer {name!r} has shape {received}; the page draws (groups, units): average over positions first")
    units = shapes[-1][1]
    steps = [step for step, profile in profiles.items() if profile.ndim == 2 and profile.shape[1] == units]
    contrasts, means = np.full((len(steps), len(names), units), np.nan), np.full((len(steps), units), np.nan)
    for row, step in enumerate(steps):
        place = [names.index(str(group)) for group in found[step].arrays["groups"].tolist()]
        means[row], contrasts[row, place] = _contrast(profiles[step], found[step].arrays.get("counts"))
    numbers, scale = _quantised(contrasts)
    sd = [_number(float(found[step].arrays.get(f"scale/{name}", np.float64(np.nan)))) for step in steps]
    limit = float(np.max(np.abs(contrasts), initial=0.0, where=np.isfinite(contrasts)))
    return dict(description) | {
        "units": units,
        "at": _rows(recording.steps, steps),
        "contrast": _packed(numbers),
        "scale": scale.tolist(),
        "mean": _packed(means.astype(np.float32)),
        "sd": sd,
        "limit": limit,
        **_layouts(recording, name, units, analyses, geometries),
    }


def _contrast(profile: Float64, counts: Array | None) -> tuple[Float64, Float64]:
    """The mean (u,) over the groups that have inputs, and each group's distance (g, u) from it."""
    present: NDArray[np.bool_] = np.asarray(np.isfinite(profile).any(axis=1)) if counts is None else np.asarray(counts, np.int64) > 0
    if not present.any():
        return np.full(profile.shape[1], np.nan), np.full(profile.shape, np.nan)
    with np.errstate(invalid="ignore"):  # a diverged network: inf - inf is missing, and the page says so
        mean: Float64 = profile[present].mean(axis=0)
        equal = (profile[present] == profile[present][0]).all(axis=0)  # exactly zero, where rounding of the mean would leave a trace
        contrast = np.where(present[:, None], np.where(equal, 0.0, profile - mean), np.nan)
    return mean, contrast


def _quantised(values: Float64) -> tuple[NDArray[np.int16], Float64]:
    """(s, g, u) as int16 with one scale per step: value = number * scale, exact at zero, within half a scale elsewhere."""
    finite = np.isfinite(values)
    scale = np.max(np.abs(values), axis=(1, 2), initial=0.0, where=finite) / 32767
    with np.errstate(over="ignore"):
        ratio = np.where(finite, values, 0.0) / np.where(scale > 0, scale, 1.0)[:, None, None]
    return np.where(finite, np.rint(ratio), MISSING).astype(np.int16), scale


def _layouts(recording: Recording, name: str, units: int, analyses: Sequence[str], geometries: _Geometries) -> dict[str, Json]:
    """The layer's distinct layouts, and for each analysis which of them holds at each step, and why none does if so."""
    layouts: list[Json] = []
    seen: dict[tuple[int, bytes, int], int] = {}
    laid_out: list[dict[str, Json]] = []
    for analysis in analyses:
        by_step = {step: f.arrays for step, f in sorted(recording.findings.get(analysis, {}).items()) if f"positions/{name}" in f.arrays}
        where: dict[int, int] = {}
        reason = None if by_step else "no layout was recorded for this layer"
        for step, arrays in by_step.items():
            positions = np.asarray(arrays[f"positions/{name}"], np.float64)
            if positions.shape != (units, 2) or not np.isfinite(positions).all():
                reason = f"the layout of step {step} has shape {positions.shape} or holds values that are not numbers; expected ({units}, 2)"
                continue
            geometry, vertex = geometries.place(positions)
            made = int(np.asarray(arrays.get(f"layout_step/{name}", np.int64(step)), np.int64))
            key = (geometry, vertex.tobytes(), made)
            if key not in seen:
                seen[key] = len(layouts)
                layouts.append({"geometry": geometry, "vertex": _packed(vertex), "step": None if made == ALL_STEPS else made})
            where[step] = seen[key]
        laid_out.append({"at": [where.get(step, -1) for step in recording.steps], "missing": reason})
    return {"layouts": layouts, "laid_out": laid_out}


class _Geometries:
    """The distinct sets of places units sit at, each triangulated once, in order of first use."""

    def __init__(self) -> None:
        self.packed: list[dict[str, Json]] = []
        self._index: dict[bytes, int] = {}

    def place(self, positions: Float64) -> tuple[int, Array]:
        """The geometry the positions (u, 2) belong to, and the point (u,) of it that each unit sits at."""
        numbers = np.rint(np.clip(positions, 0, 1) * 65535).astype(np.uint16)
        points, first, vertex = np.unique(numbers, axis=0, return_index=True, return_inverse=True)
        key = points.tobytes()
        if key not in self._index:
            self._index[key] = len(self.packed)
            self.packed.append({"points": _packed(points), "triangles": _packed(_triangles(positions[first]))})
        return self._index[key], _indices(vertex.reshape(-1))


def _triangles(points: Float64) -> Array:
    """The Delaunay triangulation (t, 3) of the points (v, 2); without triangles where they are fewer than 3 or on a line.

    The points come unrounded and sorted, as in `netlapse.field`, so that a lattice is cut along the same diagonals.
    """
    if len(points) < 3:
        return np.zeros((0, 3), np.uint16)
    spans = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    if spans[1] <= 1e-7 * spans[0]:
        return np.zeros((0, 3), np.uint16)
    return _indices(Delaunay(points).simplices)


def _indices(values: Array) -> Array:
    numbers = np.asarray(values, np.int64)
    return numbers.astype(np.uint16 if np.max(numbers, initial=0) < 65536 else np.uint32)


# --------------------------------------------------------------------------------------------------------- saliency


def _saliency(recording: Recording) -> Json:
    """The fixed inputs with what the network says of them, and every method's maps; None when there is no panel."""
    by_step = {step: f.arrays for step, f in sorted(recording.findings.get("saliency", {}).items()) if "panel" in f.arrays}
    if not by_step:
        return None
    last = by_step[max(by_step)]
    panel = np.asarray(last["panel"], np.float64)
    steps = [step for step, arrays in by_step.items() if np.shape(arrays["panel"]) == panel.shape]
    inputs = len(panel)

    def each(name: str) -> list[Json]:
        rows = (np.asarray(by_step[step].get(name, np.full(inputs, np.nan)), np.float64) for step in steps)
        return [[_number(v) for v in np.where(row < 0, np.nan, row).tolist()] for row in rows]  # -1 is no prediction

    methods = list(dict.fromkeys(name.removeprefix("maps/") for arrays in by_step.values() for name in arrays if name.startswith("maps/")))
    return {
        "at": _rows(recording.steps, steps),
        "size": list(panel.shape[1:3]),
        "panel": _packed(_panel(panel)),
        "inputs": [_number(v) for v in np.asarray(last.get("inputs", np.arange(inputs))).tolist()],
        "labels": [_number(v) for v in np.asarray(last.get("labels", np.full(inputs, np.nan)), np.float64).tolist()],
        "predictions": each("predictions"),
        "confidence": each("confidence"),
        "explained": _explained(last),
        "methods": [_method(recording, by_step, method, inputs) for method in methods],
    }


def _explained(arrays: Mapping[str, Array]) -> str | None:
    """Whether the maps explain the predicted or the labelled class; None where that was not recorded or cannot be told."""
    alike = [name for name in ("predictions", "labels") if "classes" in arrays and np.array_equal(arrays["classes"], arrays.get(name, np.empty(0)))]
    return {"predictions": "predicted", "labels": "labelled"}[alike[0]] if len(alike) == 1 else None


def _method(recording: Recording, by_step: Mapping[int, Mapping[str, Array]], method: str, inputs: int) -> dict[str, Json]:
    maps = {step: np.abs(np.asarray(arrays[f"maps/{method}"], np.float64)) for step, arrays in by_step.items() if f"maps/{method}" in arrays}
    shape = maps[max(maps)].shape
    if len(shape) != 3 or shape[0] != inputs:
        raise ValueError(f"the maps of saliency method {method!r} have shape {shape}; expected ({inputs}, h, w), one map per input of the panel")
    steps = [step for step, values in maps.items() if values.shape == shape]
    values = np.stack([_reduced(maps[step]) for step in steps])
    mean = values.mean(axis=(2, 3))  # 0 where a map is zero everywhere, NaN where it holds a value that is not a number
    density = np.divide(values, mean[..., None, None], out=np.zeros_like(values), where=(mean > 0)[..., None, None] & np.isfinite(values))
    numbers = np.rint(np.clip(density / DENSITY_LIMIT, 0, 1) * 255).astype(np.uint8)
    means = [[_number(v) for v in row] for row in mean.tolist()]
    return {"name": method, "at": _rows(recording.steps, steps), "density": _packed(numbers), "mean": means, "size": list(shape[1:])}


def _panel(panel: Float64) -> UInt8:
    finite = panel[np.isfinite(panel)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    span = high - low if high > low else 1.0
    images = _reduced(np.moveaxis(np.nan_to_num((panel - low) / span), 3, 1))
    return np.rint(np.clip(np.moveaxis(images, 1, 3), 0, 1) * 255).astype(np.uint8)


def _reduced(images: Float64) -> Float64:
    """(..., h, w) averaged over blocks of pixels until neither side exceeds MAP_SIDE."""
    for axis in (-2, -1):
        size = images.shape[axis]
        factor = -(-size // MAP_SIDE)
        starts = np.arange(0, size, factor)
        lengths = np.diff(np.append(starts, size)).reshape((-1, 1) if axis == -2 else (-1,))
        images = np.add.reduceat(images, starts, axis=axis) / lengths
    return images


# --------------------------------------------------------------------------------------------------------- encoding


def _rows(steps: Iterable[int], having: Sequence[int]) -> list[int]:
    """For every step of the run, the row at which it is stored, or -1."""
    row = {step: index for index, step in enumerate(having)}
    return [row.get(step, -1) for step in steps]


def _packed(values: Array) -> dict[str, Json]:
    little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    # Without padding: the browser needs none, and no data can then end in a telltale "=".
    data = base64.b64encode(little.tobytes()).decode("ascii").rstrip("=")
    return {"type": values.dtype.name, "shape": list(values.shape), "data": data}


def _number(value: float) -> float:
    """Seven digits are enough for the page."""
    return value if isinstance(value, int) else float(f"{value:.7g}")


def _json(document: Json) -> str:
    """JSON that is inert inside a script element, whatever the names in it."""
    text = json.dumps(_finite(document), default=str, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _finite(document: Json) -> Json:
    """The document with every NaN and infinity in it as None: a manifest may hold them."""
    if isinstance(document, Mapping):
        return {str(key): _finite(value) for key, value in document.items()}
    if isinstance(document, list | tuple):
        return [_finite(value) for value in document]
    if isinstance(document, float) and not np.isfinite(document):
        return None
    return document


def _too_large(recording: Recording, size: int) -> str:
    per_value = {"profile": 8 / 3, "maps": 4 / 3, "positions": 4 / 3}  # base64 bytes: int16, uint8, one index for two coordinates
    bytes_of: dict[str, float] = {}
    for analysis, by_step in recording.findings.items():
        for findings in by_step.values():
            for name, values in findings.arrays.items():
                weight = values.size * per_value.get(name.split("/")[0], 0.0)
                bytes_of[f"{analysis} {name}"] = bytes_of.get(f"{analysis} {name}", 0.0) + weight
    largest = sorted(bytes_of.items(), key=lambda item: -item[1])[:3]
    return (
        f"the time-lapse page would be {size / 1e6:.0f} MB; at most {LIMIT / 1e6:.0f} MB can be shown. Largest: "
        + ", ".join(f"{name} ({weight / 1e6:.0f} MB over {len(recording.steps)} steps)" for name, weight in largest)
        + "; observe fewer layers, groups, inputs or steps"
    )
