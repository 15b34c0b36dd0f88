"""What netlapse recorded or can observe, written for programs that read iNNtrospect's layout; `netlapse.backends.inntrospect` reads it back.

An export is a new folder, which appears when all of it is written.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from netlapse.analysis.nap import contrast
from netlapse.analysis.topomap import interpolate
from netlapse.backends.inntrospect import CORPUS, LAYER_NAMES, batch_file, group_index, layer_folder
from netlapse.home import writable
from netlapse.layers import select
from netlapse.recording import Recording
from netlapse.types import Array, Float32, Float64, Int64, Network, ProbeSet

RESOLUTION = 100
"""Pixels that a topomap in their layout is wide and high."""


def findings_to_inntrospect(recording: Recording, folder: str | Path, *, step: int | None = None) -> Path:
    """The profiles and maps of one step, by default the last that has profiles, in a new folder; returns that.

    naps/layerLLL.npy                 (g, u) float64, or (g, h, w, u) where positions were kept    group_sizes.npy  (g,) int64
    contrastive_naps/layerLLL.npy     the same minus the mean over groups                          .../group_names.npy  (g,) strings
    vis_data/topomap/layerLLL_*.npy   coordinates (u, 2) float32, activations (g, u) float64 (the contrast, its mean over
                                      positions), interpolated_activations (g, 100, 100) float64; .../group_names.npy
    group_name_to_files.json (no files: findings know no batches), group_name_to_index.json, index_to_group_name.json
    layer_names.json                  folder name -> the layer's own; the numbers start at 1, as 0 is their input layer

    As theirs have it, groups are in sorted order and have inputs, those without are left out; a map's row is 1 - x and its
    column 1 - y, ours turned by 90 degrees; and it is 0 outside the hull, where ours is NaN. Pixel centres lie at
    (i + 0.5) / 100. vis_data has the layers for which analysis topomap has a layout at this step and whose profiles are
    finite.

    Raises KeyError, saying what there is, where the recording has no findings of analysis nap at the step; ValueError where
    two groups share a name; FileExistsError where the folder is not empty.
    """
    step, profiles = _profiles(recording, step)
    layout = recording.findings.get("topomap", {}).get(step)
    names = [str(name) for name in profiles["groups"]]
    filled = [i for i in sorted(range(len(names)), key=names.__getitem__) if int(profiles["counts"][i]) > 0]
    groups = np.array([names[i] for i in filled])
    if len(set(names)) < len(names):
        raise ValueError(f"groups are named {names}; their layout tells groups apart by their names, so give each its own")
    layers = [name.removeprefix("profile/") for name in profiles if name.startswith("profile/")]
    target = Path(folder).expanduser().absolute()
    with _whole(target) as place:
        _save(place / "group_sizes.npy", np.asarray(profiles["counts"], np.int64)[filled])
        _save(place / "contrastive_naps" / "group_names.npy", groups)
        for number, layer in enumerate(layers, 1):
            name = layer_folder(number)
            profile = np.asarray(profiles[f"profile/{layer}"], np.float64)
            contrasts = contrast(profile)[filled]
            _save(place / "naps" / f"{name}.npy", profile[filled])
            _save(place / "contrastive_naps" / f"{name}.npy", contrasts)
            positions = layout.arrays.get(f"positions/{layer}") if layout else None
            if positions is not None and np.isfinite(contrasts).all():
                maps = place / "vis_data" / "topomap"
                _save(maps / "group_names.npy", groups)
                _save_map(maps / name, np.asarray(positions, np.float64), contrasts)
        _write_json(place, {**group_index({group: [] for group in groups.tolist()}), LAYER_NAMES: _numbered(layers, 1)})
    return target


def activations_to_inntrospect(network: Network, probe: ProbeSet, layers: str | Sequence[str], folder: str | Path, *, batch_size: int = 128) -> Path:
    """What the network does with each input of the probe, in a new folder; returns that.

    layers      "auto", or names, globs or types, see `netlapse.layers.select`; input and output are always recorded
    batch_size  inputs in a file, at most; they are all of one class, which is their group, and classes come in sorted order

    corpus.csv                      a line file,group for each batch
    acts/layerLLL/batchBBBB.npy     (n, ...) float32, channels-last; layer000 is the input, the last one the output
    grads/layerLLL/batchBBBB.npy    the gradient of the output of the predicted class; NaN for an input whose outputs are not all
                                    finite. None of the output
    the three JSON files, and layer_names.json with the layers' own names, "input" for the first

    Batches are written as they are computed: memory does not grow with the probe. Its attributes and ids are not written.

    Raises ValueError for inputs that are token ids, class names that corpus.csv cannot hold, a batch size below 1, unknown layers, layers the
    output does not depend on, and a network whose output is not (n, k); FileExistsError where the folder is not empty.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; expected at least 1 input in a file")
    if not np.issubdtype(probe.inputs.dtype, np.floating):
        raise ValueError("token ids cannot be exported: the layout holds the gradient by the input, and they are integers; record profiles instead")
    described = network.describe(probe.inputs[:2])
    # The last one: what follows the output unchanged, as a dropout does, is output too.
    output = next((layer.name for layer in reversed(described) if layer.role == "output"), "output")
    hidden = [name for name in select(described, layers, refused=network.refused) if name != output]
    files: dict[str, list[str]] = {}
    lines: list[str] = []
    target = Path(folder).expanduser().absolute()
    with _whole(target) as place, network.undisturbed():
        for group, chosen in _batches(probe, batch_size):
            file = batch_file(len(lines))
            lines.append(f"{file},{group}\n")
            files.setdefault(group, []).append(file)
            for kind, arrays in _observed(network, probe.inputs[chosen], hidden).items():
                for i, values in enumerate(arrays):
                    _save(place / kind / layer_folder(i) / file, np.asarray(values, np.float32))
        (place / CORPUS).write_text("".join(lines), "utf-8")
        _write_json(place, {**group_index(files), LAYER_NAMES: _numbered(["input", *hidden, output], 0)})
    return target


def _observed(network: Network, inputs: Array, hidden: Sequence[str]) -> dict[str, Sequence[Array]]:
    """The files of one batch: activations from input to output, and gradients by all but the output."""
    logits = network.outputs(inputs)
    finite = np.isfinite(logits).all(axis=1)
    predicted: Float32 = np.asarray(logits.argmax(axis=1)[:, None] == np.arange(logits.shape[1]), np.float32)
    activations = network.activations(inputs, hidden)
    by = network.vjp(inputs, "output", predicted, ["input", *hidden])
    gradients = [np.array(by[name]) for name in ("input", *hidden)]
    for gradient in gradients:
        gradient[~finite] = np.nan  # no class is predicted
    return {"acts": [inputs, *(activations[name] for name in hidden), logits], "grads": gradients}


def _batches(probe: ProbeSet, batch_size: int) -> Iterator[tuple[str, Int64]]:
    """The name and the inputs of each batch, one class after another, in the order of the names."""
    names = tuple(probe.class_names)
    bad = sorted({name for name in names if not name or names.count(name) > 1 or name != name.strip() or any(c in name for c in ",#\r\n")})
    if bad:
        raise ValueError(
            f"classes are named {bad}, which {CORPUS} cannot hold: names are distinct and not empty, without commas, '#', line breaks or "
            "spaces around them; rename them in the probe"
        )
    for label in sorted(np.unique(probe.labels), key=lambda label: names[label]):
        members = np.flatnonzero(probe.labels == label)
        for start in range(0, len(members), batch_size):
            yield names[label], members[start : start + batch_size]


def _profiles(recording: Recording, step: int | None) -> tuple[int, Mapping[str, Array]]:
    """The step, and what analysis nap found at it."""
    by_step = recording.findings.get("nap", {})
    if not by_step:
        raise KeyError(f"no profiles to export: this recording has no findings of analysis 'nap', only of {sorted(recording.findings)}")
    step = max(by_step) if step is None else step
    if step not in by_step:
        raise KeyError(f"no profiles to export at step {step}: analysis 'nap' has findings at steps {sorted(by_step)}")
    return step, by_step[step].arrays


def _save_map(stem: Path, positions: Float64, contrasts: Float64) -> None:
    activations = contrasts.mean(axis=tuple(range(1, contrasts.ndim - 1))) if contrasts.ndim > 2 else contrasts
    # Row 1 - y and column x turned against the clock: row 1 - x, column 1 - y.
    maps = np.rot90(interpolate(positions, activations, RESOLUTION), axes=(1, 2))
    _save(stem.with_name(f"{stem.name}_coordinates.npy"), positions.astype(np.float32))
    _save(stem.with_name(f"{stem.name}_activations.npy"), activations)
    _save(stem.with_name(f"{stem.name}_interpolated_activations.npy"), np.where(np.isnan(maps), 0.0, maps))


@contextmanager
def _whole(place: Path) -> Iterator[Path]:
    """A folder to write into, which becomes the named one if all goes well and is gone if not: nobody sees half an export."""
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise FileExistsError(f"{place} exists and is not an empty folder; an export is a folder of its own, so name a new one, or empty this one")
    beside = writable(place.parent) / f".{place.name}.{os.getpid()}"
    shutil.rmtree(beside, ignore_errors=True)  # of a process that was killed
    beside.mkdir()
    try:
        yield beside
        os.replace(beside, place)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _save(path: Path, values: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.ascontiguousarray(values), allow_pickle=False)


def _numbered(layers: Sequence[str], start: int) -> dict[str, str]:
    return {layer_folder(number): layer for number, layer in enumerate(layers, start)}


def _write_json(place: Path, contents: Mapping[str, Mapping[str, object]]) -> None:
    for name, content in contents.items():
        (place / name).write_text(json.dumps(content, indent=1), "utf-8")
