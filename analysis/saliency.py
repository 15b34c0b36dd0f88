"""Saliency: which positions of an image the score of a class depends on, for the same images at every checkpoint.

A method is a plain function (network, inputs (n, h, w, c), classes (n,)) -> maps (n, h, w), raw: what is scaled per
image cannot be compared over checkpoints. Everything here asks the network for outputs, activations and vjps only.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Literal

import numpy as np

from netlapse.probe import softmax
from netlapse.render import saliency_strip
from netlapse.types import Array, Findings, Float32, Float64, Int64, Layer, Network, Snapshot, UInt8, checked_by

Method = Callable[[Network, Array, Int64], Float32]
"""(network, inputs (n, h, w, c), classes (n,)) -> (n, h, w). A keyword `layer`, where it has one, names the explained layer."""

STRONGEST = 0.1
"""The share of positions whose part of a map's mass is its concentration."""

DENSITY_LIMIT = 6.0
"""Times an even spread, at full colour."""


# ---- methods ---------------------------------------------------------------------------------------------------------


def gradient(network: Network, inputs: Array, classes: Int64, *, batch_size: int = 64) -> Float32:
    """(n, h, w) how much the logit of each input's class changes with each position: sum over channels of |d logit / d input|.

    Simonyan et al., 2014, section 3.1, who take the maximum over channels instead of the sum. Not normalised.
    Raises ValueError for inputs that are not images (n, h, w, c) and for classes that are not (n,) in 0 to k - 1.
    """
    wanted = one_hot(network, inputs, classes)
    with network.undisturbed():
        return np.concatenate(
            [np.abs(network.vjp(inputs[b], "output", wanted[b], ["input"])["input"]).sum(axis=-1) for b in batches(len(inputs), batch_size)]
        )


def grad_cam(network: Network, inputs: Array, classes: Int64, *, layer: str | None = None, upsample: bool = True, batch_size: int = 64) -> Float32:
    """(n, h, w) where the units of a layer that speak for a class are active: ReLU(sum over units of alpha * activation).

    alpha is the mean over positions of the gradient of the class's logit by the unit (Selvaraju et al., 2017, eqs. 1-2).
    layer     its name; None: see `spatial_layer`
    upsample  to the inputs' resolution (see `resize`); False: at the layer's own
    Not normalised. Raises ValueError as `gradient`, and where the layer is not spatial or the network has no such layer.
    """
    wanted = one_hot(network, inputs, classes)
    layer = spatial_layer(network, inputs, layer)
    maps = []
    with network.undisturbed():
        for batch in batches(len(inputs), batch_size):
            activation = network.activations(inputs[batch], [layer])[layer]
            alpha = network.vjp(inputs[batch], "output", wanted[batch], [layer])[layer].mean(axis=(1, 2))
            maps.append(np.maximum(np.einsum("nu,nhwu->nhw", alpha, activation), 0))
    found = np.concatenate(maps)
    return resize(found, inputs.shape[1:3]).astype(np.float32) if upsample else found


# ---- what methods share ----------------------------------------------------------------------------------------------


def one_hot(network: Network, inputs: Array, classes: Int64) -> Float32:
    """(n, k) ones at each input's class: the cotangent of its logit.

    Raises ValueError for inputs that are not (n, h, w, c) and for classes that are not (n,) integers in 0 to k - 1.
    """
    inputs, classes = np.asarray(inputs), np.asarray(classes)
    if inputs.ndim != 4 or not len(inputs):
        raise ValueError(
            f"saliency maps need images (n, h, w, c), at least one, and were given inputs of shape {inputs.shape}; "
            "for vectors and tokens observe activations instead (netlapse.analysis.nap)"
        )
    if classes.shape != (len(inputs),) or not np.issubdtype(classes.dtype, np.integer):
        raise ValueError(f"classes have shape {classes.shape} and dtype {classes.dtype}; expected ({len(inputs)},) integers, one class per input")
    k = network.outputs(inputs[:1]).shape[1]
    outside = classes[(classes < 0) | (classes >= k)]
    if len(outside):
        raise ValueError(f"classes hold {sorted(set(outside.tolist()))[:5]}; this network has {k} outputs, so allowed are 0 to {k - 1}")
    return np.asarray(classes[:, None] == np.arange(k), np.float32)


def spatial_layer(network: Network, inputs: Array, layer: str | None = None) -> str:
    """The layer a class activation map is made of: the named one, or the last spatial one.

    Spatial is an activation (h, w, u) with more than one position. The last one is the most abstract that still says
    where. Layers of role "other" (pooling, dropout) are passed over where there is anything else: pooling only loses
    positions. What is left ends, after a convolution and its norm, in the activation, as in the paper.

    Raises ValueError where the named layer is unknown or not spatial, and where no layer is.
    """
    layers = network.describe(inputs[:2])
    spatial = [found for found in layers if _is_spatial(found)]
    if layer is None:
        if not spatial:
            shapes = {found.name: found.shape for found in layers}
            raise ValueError(
                f"no layer of this network is spatial, (h, w, u) with h * w > 1: it has {shapes}; use saliency.gradient, which needs no such layer"
            )
        return ([found for found in spatial if found.role != "other"] or spatial)[-1].name
    if layer not in (names := [found.name for found in spatial]):
        shape = next((found.shape for found in layers if found.name == layer), None)
        why = network.refused.get(layer, "there is no layer of that name") if shape is None else f"its activation is {shape}"
        raise ValueError(f"no class activation map of layer {layer!r}: {why}; spatial, (h, w, u) with h * w > 1, are {names}")
    return layer


def _is_spatial(layer: Layer) -> bool:
    return len(layer.shape) == 3 and layer.shape[0] * layer.shape[1] > 1


def batches(n: int, batch_size: int) -> Iterator[slice]:
    """Consecutive slices of 0 to n, batch_size long, the last one shorter where it must be."""
    return (slice(start, start + batch_size) for start in range(0, n, batch_size))


@np.errstate(invalid="ignore")  # infinity times no share of it is NaN: what a diverged network's map is
def resize(maps: Float32 | Float64, size: tuple[int, ...]) -> Float64:
    """Maps (n, h, w) at another resolution, bilinear; pixels are areas, and beyond the outermost centres the value stays.

    What torch calls `interpolate(mode="bilinear", align_corners=False)`.
    """
    rows, columns = (_hats(old, new) for old, new in zip(maps.shape[1:], size))
    return np.asarray(np.einsum("yh,nhw,xw->nyx", rows, maps, columns, optimize=True), np.float64)


def _hats(old: int, new: int) -> Float64:
    """(new, old) how much of each old pixel each new one takes."""
    centres = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    return np.asarray(np.maximum(0, 1 - np.abs(centres[:, None] - np.arange(old))), np.float64)


# ---- numbers ---------------------------------------------------------------------------------------------------------


def similarity(maps: Float32, before: Float32) -> Float64:
    """(n,) Pearson's correlation over positions of each map with its counterpart; NaN where one of the two is constant or not finite."""
    a, b = (_deviations(_finite(m)) for m in (maps, before))
    return np.asarray((a * b).sum(axis=(1, 2)), np.float64)


def concentration(maps: Float32) -> Float64:
    """(n,) the share of each map's mass, |map|, in the strongest tenth of its positions: 0.1 where it is evenly spread, at most 1.

    Where a tenth is not a whole number of positions, the last one counts by its fraction. NaN for a map that is zero
    everywhere or not finite.
    """
    mass = np.sort(np.abs(_finite(maps)).reshape(len(maps), -1), axis=1)[:, ::-1]
    counted = np.clip(STRONGEST * mass.shape[1] - np.arange(mass.shape[1]), 0, 1)
    total = mass.sum(axis=1)
    return np.asarray(mass @ counted / np.where(total > 0, total, np.nan), np.float64)


def density(maps: Float32) -> Float64:
    """(n, h, w) each map as |map| / mean |map|, times an even spread; NaN for a map that is zero everywhere or not finite."""
    mass = np.abs(_finite(maps))
    mean = mass.mean(axis=(1, 2), keepdims=True)
    return np.asarray(mass / np.where(mean > 0, mean, np.nan), np.float64)


def _finite(maps: Float32) -> Float64:
    """float64, NaN all over where a map holds anything that is not finite."""
    return np.where(np.isfinite(maps).all(axis=(1, 2), keepdims=True), maps, np.nan).astype(np.float64)


def _deviations(maps: Float64) -> Float64:
    """From each map's mean, with norm 1; NaN for a constant map, whose deviations are rounding."""
    constant = maps.min(axis=(1, 2), keepdims=True) == maps.max(axis=(1, 2), keepdims=True)
    away = np.where(constant, np.nan, maps - maps.mean(axis=(1, 2), keepdims=True))
    return np.asarray(away / np.linalg.norm(away, axis=(1, 2), keepdims=True), np.float64)


def _mean(values: Float64) -> float:
    """Over the values that are defined; NaN where none is."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")


# ---- the analysis ----------------------------------------------------------------------------------------------------


def panel_of(labels: Int64, size: int) -> Int64:
    """(m,) indices of the inputs to explain: the first of each class, then the second of each, ..., until there are `size`.

    Classes take turns in ascending order; a class that has no more inputs is passed over. Nothing but the labels matters.
    """
    labels = np.asarray(labels)
    turn = np.zeros(len(labels), np.int64)
    for k in np.unique(labels):
        turn[labels == k] = np.arange((labels == k).sum())
    return np.lexsort((labels, turn))[:size].astype(np.int64)


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
            scalars[f"saliency/similarity/{name}"] = _mean(similarity(maps, np.asarray(before, np.float32)))
        scalars[f"saliency/concentration/{name}"] = _mean(concentration(maps))
        scalars[f"saliency/blank/{name}"] = float((maps == 0).all(axis=(1, 2)).mean())
        title = ", ".join([name, *_explained(method, network, images), f"step {snapshot.step}"])
        missing = ["zero" if zero else "not finite" for zero in (maps == 0).all(axis=(1, 2))]
        strip = saliency_strip(shown, resize(density(maps), images.shape[1:3]), captions, DENSITY_LIMIT, title, missing=missing)
        drawn[f"saliency/{name}"] = strip
    return Findings(arrays, scalars, drawn)


def _default(network: Network, inputs: Array) -> dict[str, Method]:
    spatial = any(_is_spatial(layer) for layer in network.describe(inputs[:2]))
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
