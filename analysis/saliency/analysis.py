"""The analysis: maps of the same inputs at every checkpoint, how they change, and whether to believe them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal

import numpy as np

from netlapse.analysis.saliency.base import Method, batches, resize
from netlapse.analysis.saliency.cam import grad_cam, is_spatial, spatial_layer
from netlapse.analysis.saliency.gradients import gradient
from netlapse.analysis.saliency.maps import concentration, density, mean_defined, similarity
from netlapse.analysis.saliency.panel import panel_of
from netlapse.probe import softmax
from netlapse.render import saliency_strip
from netlapse.types import Array, Findings, Network, Snapshot, UInt8, checked_by

DENSITY_LIMIT = 6.0
"""Times an even spread, at full colour."""


def _check(snapshot: Snapshot, *, panel: int = 16, target: str = "label", **options: object) -> None:
    """The panel and its labels fit the network, where that ends in scores of classes."""
    if target not in ("label", "predicted"):
        raise ValueError(f"saliency target is {target!r}; allowed are 'label' and 'predicted'")
    labels = snapshot.probe.labels[panel_of(snapshot.probe.labels, panel)]
    try:
        k = snapshot.network.outputs(snapshot.probe.inputs[:2]).shape[1]
    except ValueError:  # an autoencoder has no classes: this analysis is reported, and the others go on
        return
    if target == "label" and k <= labels.max():
        raise ValueError(
            f"probe labels hold {labels.max()}, and the network has {k} outputs, so allowed are 0 to {k - 1}; for a network whose outputs are no "
            "classes leave out the analysis saliency, or explain the predicted class with target='predicted'"
        )


@checked_by(_check)
def saliency(
    snapshot: Snapshot,
    previous: Findings | None,
    *,
    methods: Mapping[str, Method] | Sequence[Method] | None = None,
    panel: int = 16,
    target: Literal["label", "predicted"] = "label",
) -> Findings:
    """Maps of a fixed panel of the probe by each method, and how they change and concentrate.

    methods   name -> method, or methods that have a `__name__`; None: `gradient`, and `grad_cam` where the network has a
              spatial layer
    panel     how many of the probe's inputs are explained, the same at every checkpoint; see `panel_of`
    target    whether the score of each input's label is explained or that of the class predicted at this step

    arrays    `inputs` (m,) indices into the probe, `panel` (m, h, w, c), `labels`, `predictions`, `confidence` (the
              prediction's softmax probability), `classes` (the explained ones), all (m,), `maps/<method>` (m, h, w) raw.
              An input whose logits are not all finite has the prediction -1, which is no class, and NaN for its
              confidence and maps
    scalars   `saliency/similarity/<method>` the mean `similarity` to the maps of the checkpoint before (of another class,
              where the prediction changed and is the target); absent where that has no maps of this panel and size.
              `saliency/concentration/<method>` the mean `concentration`. Both over the maps for which they are defined,
              NaN where there is none. `saliency/blank/<method>` the share of maps that are zero everywhere.
    images    `saliency/<method>`: `density`, from 0 to 6 times an even spread; maps that are zero everywhere or not finite
              have none, and say so

    Raises ValueError for a probe that is not of images, an unknown target, a panel of none, no methods, and methods that are
    unnamed, named alike or return anything but (m, h, w).
    """
    probe, network = snapshot.probe, snapshot.network
    if target not in ("label", "predicted"):
        raise ValueError(f"saliency was given the target {target!r}; expected 'label' or 'predicted'")
    if panel < 1:
        raise ValueError(f"saliency was given a panel of {panel} inputs; expected at least 1")
    chosen = panel_of(probe.labels, panel)
    images, labels = probe.inputs[chosen], probe.labels[chosen]
    if images.ndim != 4:
        raise ValueError(f"saliency maps need images (n, h, w, c); this probe's inputs have shape {probe.inputs.shape}; leave this analysis out")
    logits = snapshot.once("logits", lambda: np.concatenate([network.outputs(images[b]) for b in batches(len(images), snapshot.batch_size)]))
    finite = np.isfinite(logits).all(axis=1)
    predictions = np.where(finite, logits.argmax(axis=1), -1).astype(np.int64)
    confidence = np.full(len(logits), np.nan)
    confidence[finite] = softmax(logits[finite]).max(axis=1)
    classes = labels if target == "label" else predictions
    # Grey and RGB are drawn as they are; what has other channels is drawn as their mean.
    shown = images.astype(np.float64) if images.shape[3] in (1, 3) else images.mean(axis=3, keepdims=True, dtype=np.float64)
    arrays: dict[str, Array] = {"inputs": chosen, "panel": images, "labels": labels}
    arrays |= {"predictions": predictions, "confidence": confidence, "classes": classes}
    scalars: dict[str, float] = {}
    drawn: dict[str, UInt8] = {}
    said = [f"{_class(probe.class_names, k)} {c:.0%}" if k >= 0 else "not finite" for k, c in zip(predictions, confidence)]
    captions = [f"{_class(probe.class_names, k)} -> {what}" for k, what in zip(labels, said)]
    earlier: Mapping[str, Array] = previous.arrays if previous and np.array_equal(previous.arrays.get("panel", np.empty(0)), images) else {}
    for name, method in (_default(network, images) if methods is None else _named(methods)).items():
        asked = partial(method, network, images, np.maximum(classes, 0))
        maps = np.asarray(snapshot.once(f"maps/{name}", asked), np.float32)
        if maps.ndim != 3 or len(maps) != len(images):
            raise ValueError(f"saliency method {name!r} returned maps of shape {maps.shape}; expected ({len(images)}, h, w), one map per input")
        maps = np.where(finite[:, None, None], maps, np.float32(np.nan))  # a score that is no number depends on nothing
        arrays[f"maps/{name}"] = maps
        before = earlier.get(f"maps/{name}")
        if before is not None and before.shape == maps.shape:
            scalars[f"saliency/similarity/{name}"] = mean_defined(similarity(maps, np.asarray(before, np.float32)))
        scalars[f"saliency/concentration/{name}"] = mean_defined(concentration(maps))
        scalars[f"saliency/blank/{name}"] = float((maps == 0).all(axis=(1, 2)).mean())
        title = ", ".join([name, *_explained(method, network, images), f"step {snapshot.step}"])
        missing = ["zero" if zero else "not finite" for zero in (maps == 0).all(axis=(1, 2))]
        strip = saliency_strip(shown, resize(density(maps), images.shape[1:3]), captions, DENSITY_LIMIT, title, missing=missing)
        drawn[f"saliency/{name}"] = strip
    return Findings(arrays, scalars, drawn)


def _default(network: Network, inputs: Array) -> dict[str, Method]:
    spatial = any(is_spatial(layer) for layer in network.describe(inputs[:2]))
    return {"gradient": gradient, "grad_cam": grad_cam} if spatial else {"gradient": gradient}


def _named(methods: Mapping[str, Method] | Sequence[Method]) -> dict[str, Method]:
    if not methods:
        raise ValueError("saliency was given no method; name one, or leave `methods` out for gradient, and grad_cam where there is a spatial layer")
    if isinstance(methods, Mapping):
        return {str(name): method for name, method in methods.items()}
    # A functools.partial has no name, but what it binds has one.
    names = [getattr(method, "__name__", getattr(getattr(method, "func", None), "__name__", None)) for method in methods]
    if None in names or len(set(names)) != len(names):
        raise ValueError(f"saliency methods are named {names}; give each a name of its own: methods={{'name': method, ...}}")
    return {str(name): method for name, method in zip(names, methods)}


def _explained(method: Method, network: Network, inputs: Array) -> list[str]:
    """What a method's keyword `layer` says, in words; [] where it has none."""
    parameter = inspect.signature(method).parameters.get("layer")
    if parameter is None:
        return []
    if parameter.default is None:
        return [f"layer {spatial_layer(network, inputs)}"]
    return [f"layer {parameter.default}" if isinstance(parameter.default, str) else f"layers {', '.join(parameter.default)}"]


def _class(names: Sequence[str], index: int) -> str:
    """A class by its name; by its number where the network has more outputs than the probe has classes."""
    return names[index] if index < len(names) else str(index)
