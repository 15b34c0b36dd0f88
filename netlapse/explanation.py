"""What the score of a class depends on in one input, at several checkpoints, by several methods: asked of saved networks by somebody who looks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from netlapse.analysis.onepass import Method, answered
from netlapse.analysis.saliency import DENSITY_LIMIT, density, explained_classes, resize
from netlapse.analysis.saliency.panel import Target, answers
from netlapse.data.stream import Fit, Look
from netlapse.render.explanation import Column, explanation_grid
from netlapse.types import Array, Float32, Network, ProbeSet, UInt8


@dataclass(frozen=True, eq=False)
class Asked:
    """The input that is explained.

    image  (h, w, c) as the network sees it        label  its class; None for an image of which nobody said
    name   in words                                slug   for the name of a file
    notes  what was done to make it the network's input, and what may be wrong with that
    """

    image: Float32
    label: int | None
    name: str
    slug: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Explanation:
    """What is predicted of one input at each of `steps`, and by each method the map (s, h, w) of the score of `classes` (s,).

    An input whose logits are not all finite at a step has the prediction -1, and NaN for its confidence and maps.
    """

    asked: Asked
    steps: tuple[int, ...]
    predictions: Array
    confidence: Array
    classes: Array
    maps: Mapping[str, Float32]


def asked_for(wanted: str, probe: ProbeSet, *, fit: Fit = "stretch", mean: tuple[float, ...] = (), deviation: tuple[float, ...] = ()) -> Asked:
    """An input of the probe by its place or id, or an image file made what the network sees, as `Look` does.

    A number is a place. Raises ValueError for a probe that is not of images, and for what is neither a place, an id nor a file,
    saying what there is; and what `Look` raises of an image.
    """
    if probe.inputs.ndim != 4:
        raise ValueError(f"only images can be explained, (n, h, w, c); this run's inputs have shape {probe.inputs.shape}")
    ids = np.asarray(probe.ids).tolist()
    place = int(wanted) if wanted.isdigit() else ids.index(wanted) if wanted in ids else None
    if place is not None and place < len(probe):
        name = f"input {place}" if ids[place] == str(place) else f"input {place} ({ids[place]})"
        return Asked(np.asarray(probe.inputs[place]), int(probe.labels[place]), name, str(place))
    path = Path(wanted).expanduser()
    if not path.is_file():
        raise ValueError(
            f"input is {wanted!r}; expected a place in the probe, 0 to {len(probe) - 1}, an id of one of its inputs, such as "
            f"{', '.join(ids[:3])}, or an image file: there is none at {path.absolute()}"
        )
    return _of_file(path, probe, fit, mean, deviation)


def _of_file(path: Path, probe: ProbeSet, fit: Fit, mean: tuple[float, ...], deviation: tuple[float, ...]) -> Asked:
    h, w, c = probe.inputs.shape[1:]
    look = Look((h, w, c), fit, mean, deviation)
    pixels = look.read(path)
    image = look.scaled(pixels[None])[0]
    with Image.open(path) as opened:
        width, height = opened.size
    how = "as it is" if (width, height) == (w, h) else f"{'cut and scaled' if fit == 'crop' else 'stretched'} to {w} x {h}"
    notes = [f"{path.name}, {width} x {height} pixels: {how}, {'grey' if c == 1 else 'RGB'}, values from {image.min():.3g} to {image.max():.3g}"]
    low, high = float(probe.inputs.min()), float(probe.inputs.max())
    if not mean and not deviation and (low < -0.01 or high > 1.01):
        notes.append(
            f"the inputs of this run go from {low:.3g} to {high:.3g}, and images from 0 to 1: if it was trained on (image - mean) / deviation, "
            "give mean=[...] and deviation=[...]"
        )
    return Asked(image, None, path.name, path.stem, tuple(notes))


def explain(
    network: Network,
    checkpoints: Mapping[int, Path],
    load: Callable[[Path], None],
    asked: Asked,
    methods: Mapping[str, Method],
    target: Target,
    class_names: tuple[str, ...],
) -> Explanation:
    """Put each checkpoint into the network, and ask it about the input.

    target  the class whose score is explained, as in `saliency`; of an input without a label not "label"

    Raises ValueError for an unknown target or a method that cannot explain this network, and what `load` raises.
    """
    if target == "label" and asked.label is None:
        raise ValueError(f"{asked.name} has no label; explain the predicted class, of=predicted, or a class by its name or number")
    images = np.asarray(asked.image)[None]
    labels = np.array([-1 if asked.label is None else asked.label])
    said: list[tuple[int, float, int]] = []
    maps: dict[str, list[Float32]] = {name: [] for name in methods}
    for path in checkpoints.values():
        load(path)
        logits = network.outputs(images)
        (prediction,), (confidence,) = answers(logits)
        (explained,) = explained_classes(target, labels, logits, class_names)
        if explained >= logits.shape[1]:
            raise ValueError(f"class {explained} was to be explained, and the network has {logits.shape[1]} outputs, 0 to {logits.shape[1] - 1}")
        said.append((int(prediction), float(confidence), int(explained)))
        answer = answered(methods, network, images, np.maximum([explained], 0))
        for name in methods:
            found = np.asarray(answer(name), np.float32)[0]
            maps[name].append(found if prediction >= 0 else np.full_like(found, np.nan))
    predictions, confidence, classes = (np.array(values) for values in zip(*said))
    return Explanation(asked, tuple(checkpoints), predictions, confidence, classes, {name: np.stack(found) for name, found in maps.items()})


def drawn(explanation: Explanation, class_names: tuple[str, ...], unit: str, title: str) -> UInt8:
    """A column for each step, with what was predicted there, and a row for each method: (h, w, 3)."""
    asked, label = explanation.asked, explanation.asked.label

    def name(k: int) -> str:
        return class_names[k] if k < len(class_names) else str(k)

    columns = []
    for step, said, sure, explained in zip(
        explanation.steps, explanation.predictions.tolist(), explanation.confidence.tolist(), explanation.classes.tolist()
    ):
        verdict = "" if label is None else "right: " if said == label else "wrong: "
        lines = [f"{verdict}{name(said)}, {sure:.0%}" if said >= 0 else "no prediction"]
        if explained not in (said, label):
            lines.append(f"explains {name(explained)}" if explained >= 0 else "explains nothing")
        columns.append(Column(f"{unit} {step}", tuple(lines)))
    image = np.asarray(asked.image, np.float64)
    size = image.shape[:2]
    rows = {method: resize(density(maps), size) for method, maps in explanation.maps.items()}
    missing = {method: ["zero" if zero else "not finite" for zero in (maps == 0).all(axis=(1, 2))] for method, maps in explanation.maps.items()}
    shown = image if image.shape[2] in (1, 3) else image.mean(axis=2, keepdims=True)
    below = asked.name if label is None else f"{asked.name}, label {name(label)}"
    return explanation_grid(shown, below, columns, rows, DENSITY_LIMIT, title, missing=missing)
