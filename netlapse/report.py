"""The time-lapse page: one self-contained HTML document drawn from what a run recorded.

The page carries numbers and draws its pictures in the browser, so that one file serves every step, layer, group and
difference. How the numbers travel, in the JSON of the element `#recording` (typed arrays are little-endian base64
without padding, `{"type", "shape", "data"}`):

contrast   (s, g, u) int16 per layer: value = number * scale[s]; -32768 where there is no value (a group without inputs)
mean       (s, u) float32 per layer: the mean over the groups that have inputs; profile = mean + contrast
points     (v, 2) uint16 per geometry: position = number / 65535; `triangles` (t, 3) are the Delaunay triangulation of those
           at which not all units are constant; `silent` (k,) are the others, dots with no part in the map
vertex     (u,) per layout: the point each unit sits at; layouts that permute the same places share their geometry
laid_out   per layer, for each of the run's `layouts` (the observed one first): which layout holds at each step, or -1
density    (s, m, h, w) uint8 per saliency method: |map| / mean |map| = number * 6 / 255, above 6 it saturates;
           of the chosen inputs (e, h, w), an entry for each chosen input at each step, in the order of the steps
panel      (m, h, w, c) uint8: the inputs, the whole panel scaled by its own smallest and largest value; `pictures` of the
           chosen ones likewise, each input once
sparsity   (s, g, u) uint8 per layer: the share of inputs that activate a unit = number / 254; 255 where there is none
error      (s, g, u) uint8 per layer: the profile's standard error = (number / 254)^2 * largest[s]; 255 where there is none
constant   (s, u) uint8 per layer: 1 where the unit does one and the same for all inputs
clusters   per layer and step: the groups' order (g,) by `netlapse.analysis.groups`, and the tree (m - 1, 3) of those with inputs
top        (s, u, m) per layer: the unit's top inputs, as places in `inputs`; one past the last where there are fewer
events     what happened, see `netlapse.events.Event`, by step; `telling` the analyses that tell of it, if anything did
looks      where to look first, see `netlapse.looks.Place`
predictions  see `netlapse.report_predictions`
responds   per layer what `receptive_field` found, its top inputs and where in them, classes and numbers; of its `fields`
           share (s, m, r, c) int8: what covering takes from the unit = number / 127 of its activation, -128 where unknown, the places
           around the middle that are drawn; inside (s, m, bits) those within the outline, of `extent` rows and columns

The exact values stay in the findings. Contrast and mean travel apart so that a contrast of exactly zero stays zero and
a small contrast survives beside a large activation.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import TypedDict, cast

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import Delaunay

from netlapse.analysis.groups import linkage, order
from netlapse.analysis.topomap import ALL_STEPS
from netlapse.events import tells
from netlapse.looks import look_here
from netlapse.packing import Json, indices, packed, places, quantised, roots, rounded, rows_at, shares
from netlapse.recording import Recording
from netlapse.report_inputs import Inputs
from netlapse.report_predictions import predictions
from netlapse.report_saliency import DENSITY_LIMIT, saliency
from netlapse.report_units import responses
from netlapse.types import Array, Findings, Float64, Int64, ProbeSet

LIMIT = 50_000_000  # bytes; MLflow's artifact viewer shows nothing larger
SD_LIMIT = 2.0  # standard deviations of the layer, at full colour
MOST_CLUSTERED = 64  # groups; a tree of more is not legible
OBSERVED = "topomap"  # the analysis whose layouts were made while the network was seen

_FOLDER = Path(__file__).parent / "page"
_SCRIPTS = (
    "data.js",
    "colour.js",
    "raster.js",
    "charts.js",
    "header.js",
    "layers.js",
    "maps.js",
    "units.js",
    "inputs.js",
    "fields.js",
    "cards.js",
    "regions.js",
    "order.js",
    "samples.js",
    "tiles.js",
    "saliency.js",
    "epochs.js",
    "chosen.js",
    "predictions.js",
    "thresholds.js",
    "histories.js",
    "followed.js",
    "happened.js",
    "curves.js",
    "bar.js",
    "page.js",
)
_FACTS = ("title", "model", "data", "created", "command", "step_unit", "class_names", "probe", "versions", "run_id", "failures", "stopped", "thinned")
_OPTIONAL = {
    "the inputs chosen at each step": "chosen",
    "the pictures of inputs": "pictures",
    "curves over thresholds": "thresholds",
    "standard errors": "error",
    "shares of inputs that activate a unit": "sparsity",
    "maps of inputs": "samples",
    "what units respond to": "responds",
    "top inputs": "top",
}
"""What a page that would be too large is drawn without, in this order: in words, and by its key."""


def page(recording: Recording, probe: ProbeSet | None = None) -> str:
    """The whole time-lapse as one HTML document that needs no network, no storage and no other file.

    probe  the inputs that were shown, where they are at hand: for pictures, ids and labels of units' top inputs

    A page that would exceed 50 MB is drawn without the details it can do without, and says without which.
    Raises ValueError when the recording holds no findings or is of another probe, and when the page would exceed 50 MB without
    those details too, naming what is large.
    """
    if not recording.steps:
        raise ValueError(
            f"nothing to draw: the recording holds no findings at any step (analyses: {sorted(recording.findings) or 'none'}); "
            "observe at least one checkpoint, or check the run id it was loaded from"
        )
    _check_probe(recording, probe)
    document = _document(recording, probe)
    drawn = _drawn(document)
    for words, key in _OPTIONAL.items():
        if len(drawn.encode()) <= LIMIT:
            return drawn
        if _without(document, key):
            cast("list[str]", document["left_out"]).append(words)
            drawn = _drawn(document)
    if (size := len(drawn.encode())) > LIMIT:
        raise ValueError(_too_large(recording, size))
    return drawn


def _check_probe(recording: Recording, probe: ProbeSet | None) -> None:
    shown = recording.manifest.get("probe")
    known = shown.get("hash") if isinstance(shown, Mapping) else None
    if probe is not None and known is not None and known != probe.hash:
        raise ValueError(
            f"the page was given a probe of hash {probe.hash}, and the recording is of {known}; hand over the probe that was shown, or none"
        )


def _drawn(document: Mapping[str, Json]) -> str:
    title = str(cast("Mapping[str, Json]", document["manifest"]).get("title") or "netlapse time-lapse")
    return assembled(document, title, _SCRIPTS)


def assembled(document: Json, title: str, scripts: Sequence[str], main: str = "page.html", styles: Sequence[str] = ("page.css",)) -> str:
    """What stands in the middle of a page, around it `shell.html` of `netlapse/page`, and in it a document of numbers, styles and scripts:
    one file that needs no other.
    """

    def joined(names: Sequence[str]) -> str:
        return "\n".join((_FOLDER / name).read_text(encoding="utf-8") for name in names)

    parts = {
        "title": html.escape(title), "style": joined(styles), "main": joined([main]), "recording": as_json(document), "script": joined(scripts),
    }  # fmt: skip
    # One pass, so that a placeholder in someone's title is text and not a placeholder.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], joined(["shell.html"]))


def _without(document: Mapping[str, Json], key: str) -> bool:
    """Take a detail out of the document, wherever it is; whether there was any."""
    holders = [document, document["inputs"], document["saliency"], document["predictions"], *cast("list[Json]", document["layers"])]
    having = [holder for holder in holders if isinstance(holder, dict) and holder.get(key) is not None]
    for holder in having:
        holder[key] = None
    return bool(having)


def _document(recording: Recording, probe: ProbeSet | None) -> dict[str, Json]:
    geometries = Geometries()
    profiles, inputs = _profiles(recording, geometries)
    responding = responses(recording, profiles["layers"], inputs, probe)
    for layer in profiles["layers"]:
        layer["responds"] = responding.get(str(layer["name"]))
    repeated = {*_laying_out(recording)} - {layout["analysis"] for layout in profiles["layouts"]}
    return {
        "schema": 1,
        "manifest": {key: recording.manifest[key] for key in _FACTS if key in recording.manifest},
        "steps": list(recording.steps),
        **profiles,
        "geometries": geometries.packed,
        "min_inputs": _least(recording),
        "inputs": inputs.described(recording, profiles["groups"], probe),
        "samples": inputs.maps(recording, [str(layer["name"]) for layer in profiles["layers"]]),
        "left_out": [],
        "saliency": saliency(recording, probe),
        "predictions": predictions(recording, probe),
        "curves": {
            name: {"steps": series.steps.tolist(), "values": [rounded(value) for value in series.values.tolist()]}
            for name, series in recording.scalars.items()
            if name.partition("/")[0] not in repeated
        },
        "events": [{"analysis": name, **asdict(event)} for name, event in recording.events],
        "looks": cast(Json, look_here(recording)),
        "telling": [name for name, by_step in recording.findings.items() if by_step and tells(by_step[max(by_step)])],
        "analyses": {name: sorted(by_step) for name, by_step in recording.findings.items() if by_step},
        "limits": {"sd": SD_LIMIT, "density": DENSITY_LIMIT},
    }


# --------------------------------------------------------------------------------------------- profiles and layouts


class _Profiles(TypedDict):
    groups: list[str]
    counts: list[Json]
    layouts: list[dict[str, Json]]
    layers: list[dict[str, Json]]


def _profiles(recording: Recording, geometries: Geometries) -> tuple[_Profiles, Inputs]:
    """Groups with their counts, the layouts there are to choose from, every layer's numbers and places, and the inputs they name."""
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
    described = _described_layers(recording, found)
    inputs = Inputs(recording, found, [str(description["name"]) for description in described])
    layers = [_layer(recording, found, names, description, analyses, geometries, inputs) for description in described]
    # The same places in other colours are no other layout.
    distinct: dict[str, int] = {}
    laid_out = [cast("list[dict[str, Json]]", layer["laid_out"]) for layer in layers]
    for number in range(len(analyses)):
        distinct.setdefault(json.dumps([one[number]["at"] for one in laid_out]), number)
    for layer, one in zip(layers, laid_out):
        layer["laid_out"] = [one[number] for number in distinct.values()]
    offered = [_in_words(recording, analyses[n]) for n in distinct.values()]
    return {"groups": names, "counts": counts, "layouts": offered, "layers": layers}, inputs


def _least(recording: Recording) -> int:
    """How many inputs a group must have to be estimated, as the topomaps were asked."""
    asked = recording.manifest.get("asked")
    topomap = asked.get(OBSERVED) if isinstance(asked, Mapping) else None
    least = str(topomap.get("min_inputs", 1)) if isinstance(topomap, Mapping) else "1"
    return max(int(least), 1) if least.isdigit() else 1


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
    geometries: Geometries,
    inputs: Inputs,
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
        means[row], contrasts[row, place] = _contrast(profiles[step], found[step].arrays.get("counts"), _least(recording))
    numbers, scale = quantised(contrasts)
    sd = [rounded(float(found[step].arrays.get(f"scale/{name}", np.float64(np.nan)))) for step in steps]
    limit = float(np.max(np.abs(contrasts), initial=0.0, where=np.isfinite(contrasts)))
    return dict(description) | {
        "units": units,
        "at": rows_at(recording.steps, steps),
        "contrast": packed(numbers),
        "scale": scale.tolist(),
        "mean": packed(means.astype(np.float32)),
        "sd": sd,
        "limit": limit,
        "clusters": _clusters(contrasts),
        "top": inputs.top_of(name, steps, units),
        **_details([found[step] for step in steps], name, names, units),
        **_layouts(recording, name, units, analyses, geometries, found),
    }


def _contrast(profile: Float64, counts: Array | None, least: int = 1) -> tuple[Float64, Float64]:
    """The mean (u,) over the groups that have at least so many inputs, and the distance (g, u) of each of them from it."""
    present: NDArray[np.bool_] = np.asarray(np.isfinite(profile).any(axis=1)) if counts is None else np.asarray(counts, np.int64) >= least
    if not present.any():
        return np.full(profile.shape[1], np.nan), np.full(profile.shape, np.nan)
    with np.errstate(invalid="ignore"):  # a diverged network: inf - inf is missing, and the page says so
        mean: Float64 = profile[present].mean(axis=0)
        equal = (profile[present] == profile[present][0]).all(axis=0)  # exactly zero, where rounding of the mean would leave a trace
        contrast = np.where(present[:, None], np.where(equal, 0.0, profile - mean), np.nan)
    return mean, contrast


def _details(found: Sequence[Findings], name: str, names: Sequence[str], units: int) -> dict[str, Json]:
    """What else is told of a unit: which share of each group's inputs activates it, the profile's error, whether it is constant."""

    def each(of: str) -> Float64 | None:
        """(s, g, u) in the order of the page's groups."""
        values = np.full((len(found), len(names), units), np.nan)
        for row, findings in enumerate(found):
            known = findings.arrays.get(f"{of}/{name}")
            if known is not None and np.shape(known) == (len(findings.arrays["groups"]), units):
                values[row, [names.index(str(group)) for group in findings.arrays["groups"].tolist()]] = known
        return values if np.isfinite(values).any() else None

    sparsity, error = each("sparsity"), each("error")
    constant = [np.asarray(f.arrays[f"constant/{name}"], np.uint8) for f in found if f"constant/{name}" in f.arrays]
    errors, largest = (None, None) if error is None else roots(error)
    return {
        "sparsity": None if sparsity is None else packed(shares(sparsity)),
        "error": None if errors is None else packed(errors),
        "largest_error": None if largest is None else largest.tolist(),
        "constant": packed(np.stack(constant)) if len(constant) == len(found) else None,
    }


def _clusters(contrasts: Float64) -> list[Json]:
    """At each step the groups' order by what sets them apart (s, g, u), and the tree behind it; None where there is none to tell."""
    return [_clustered(values) for values in contrasts]


_CLUSTERED: dict[bytes, Json] = {}
"""What `_clustered` found before: while a training runs, the page is drawn again and again, and only its last step is new."""


def _clustered(values: Float64) -> Json:
    """The order and the tree of one step's contrasts (g, u), of the units that are finite.

    The tree's rows are the two clusters joined, counted as `linkage` does, and how far they are apart.
    """
    present = ~np.isnan(values).all(axis=1)
    finite = np.isfinite(values[present]).all(axis=0)
    if not 2 <= present.sum() <= MOST_CLUSTERED or not finite.any():
        return None
    key = sha256(repr(values.shape).encode() + values.tobytes()).digest()
    if key not in _CLUSTERED:
        if len(_CLUSTERED) >= 4096:
            _CLUSTERED.clear()
        tree = linkage(values[:, finite])[:, :3].tolist()
        _CLUSTERED[key] = {"order": order(values[:, finite]).tolist(), "tree": [[int(a), int(b), rounded(apart)] for a, b, apart in tree]}
    return _CLUSTERED[key]


def _layouts(
    recording: Recording, name: str, units: int, analyses: Sequence[str], geometries: Geometries, found: Mapping[int, Findings]
) -> dict[str, Json]:
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
            constant = np.asarray(found[step].arrays.get(f"constant/{name}", np.zeros(units, bool)), bool) if step in found else np.zeros(units, bool)
            geometry, vertex = geometries.place(positions, constant)
            made = int(np.asarray(arrays.get(f"layout_step/{name}", np.int64(step)), np.int64))
            key = (geometry, vertex.tobytes(), made)
            if key not in seen:
                seen[key] = len(layouts)
                layouts.append({"geometry": geometry, "vertex": packed(vertex), "step": None if made == ALL_STEPS else made})
            where[step] = seen[key]
        laid_out.append({"at": [where.get(step, -1) for step in recording.steps], "missing": reason})
    return {"layouts": layouts, "laid_out": laid_out}


class Geometries:
    """The distinct sets of places units sit at, each triangulated once, in order of first use."""

    def __init__(self) -> None:
        self.packed: list[dict[str, Json]] = []
        self._index: dict[bytes, int] = {}

    def place(self, positions: Float64, constant: NDArray[np.bool_]) -> tuple[int, Array]:
        """The geometry the positions (u, 2) belong to, and the point (u,) of it that each unit sits at.

        Points at which all units are constant (u,) are left out of the map, unless that leaves none.
        """
        numbers = places(positions)
        points, first, vertex = np.unique(numbers, axis=0, return_index=True, return_inverse=True)
        vertex = vertex.reshape(-1)
        silent = np.bincount(vertex, ~constant) == 0
        silent &= not silent.all()
        key = points.tobytes() + silent.tobytes()
        if key not in self._index:
            self._index[key] = len(self.packed)
            shown = np.flatnonzero(~silent)
            triangles = indices(shown[_triangles(positions[first][shown])])
            self.packed.append({"points": packed(points), "triangles": packed(triangles), "silent": packed(indices(np.flatnonzero(silent)))})
        return self._index[key], indices(vertex)


def _triangles(points: Float64) -> Int64:
    """The Delaunay triangulation (t, 3) of the points (v, 2); without triangles where they are fewer than 3 or on a line.

    The points come unrounded and sorted, as in `netlapse.field`, so that a lattice is cut along the same diagonals.
    """
    if len(points) < 3:
        return np.zeros((0, 3), np.int64)
    spans = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    if spans[1] <= 1e-7 * spans[0]:
        return np.zeros((0, 3), np.int64)
    return np.asarray(Delaunay(points).simplices, np.int64)


# --------------------------------------------------------------------------------------------------------- encoding


def as_json(document: Json) -> str:
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
