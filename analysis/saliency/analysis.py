"""The analysis: maps of the same inputs at every checkpoint, how they change, and whether to believe them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import combinations

import numpy as np

from netlapse.analysis.onepass import Method, answered
from netlapse.analysis.saliency.base import batches, resize
from netlapse.analysis.saliency.cam import grad_cam, is_spatial, spatial_layer
from netlapse.analysis.saliency.gradients import gradient
from netlapse.analysis.saliency.maps import check_masks, concentration, density, entropy, mass_inside, mean_defined, similarity, similarity_to_others
from netlapse.analysis.saliency.masks import Masks
from netlapse.analysis.saliency.measures import MEASURES, measured, measured_null, null_of
from netlapse.analysis.saliency.panel import WHY, Target, answers, check_target, chosen_of, explained_classes
from netlapse.probe import panel_of
from netlapse.render.maps import saliency_strip
from netlapse.types import Array, Findings, Float32, Float64, Int64, Network, ProbeSet, Snapshot, UInt8, checked_by, ungrouped

DENSITY_LIMIT = 6.0
"""Times an even spread, at full colour."""


def _check(
    snapshot: Snapshot,
    *,
    panel: int,
    target: Target,
    chosen: int,
    measures: Sequence[str],
    limit_measured: int,
    masks: Masks | None,
    **options: object,
) -> None:
    """The panel and its labels fit the network, where that ends in scores of classes."""
    probe = snapshot.probe
    check_target(target, probe.class_names)
    _check_options(panel, chosen, measures, limit_measured)
    _masks_of(masks, probe, panel_of(probe.labels, panel))
    labels = probe.labels[panel_of(probe.labels, panel)]
    try:
        k = snapshot.network.n_classes(probe.inputs)
    except ValueError:  # an autoencoder has no classes: this analysis is reported, and the others go on
        return
    check_target(target, probe.class_names, k)
    if target == "label" and k <= labels.max():
        raise ValueError(
            f"probe labels hold {labels.max()}, and the network has {k} outputs, so allowed are 0 to {k - 1}; for a network whose outputs are no "
            "classes leave out the analysis saliency, or explain the predicted class with target='predicted'"
        )


@ungrouped
@checked_by(_check)
def saliency(
    snapshot: Snapshot,
    previous: Findings | None,
    *,
    methods: Mapping[str, Method] | Sequence[Method] | None = None,
    panel: int = 16,
    target: Target = "label",
    chosen: int = 0,
    measures: Sequence[str] = (),
    limit_measured: int = 8,
    masks: Masks | None = None,
) -> Findings:
    """Maps of a panel of the probe by each method, how they change and concentrate, and whether to believe them.

    methods   name -> method, or methods that have a `__name__`; None: `gradient`, and `grad_cam` where the network has a
              spatial layer
    panel     how many of the probe's inputs are explained, the same at every checkpoint; see `panel_of`
    target    the class whose score is explained: that of each input's label, the one predicted at this step, the runner-up,
              or one by its index or name; see `explained_classes`
    chosen    how many inputs are explained beside them because their prediction changed since the checkpoint before, as many
              because it is wrong, and as many because it is right; see `chosen_of`. It takes a forward pass of the probe, shared
              with the analyses that need one
    measures  names among `MEASURES`, which ask the network again: of each input and method, deletion and insertion 10 times
              each, average_drop twice, faithfulness 51 times, sensitivity 5 times for a map; and, but for the last, as often for random maps
    limit_measured   of how many inputs of the panel, the first ones, the measures are taken
    masks     (n, h, w) for the probe's inputs, from 0 to 1, 1 where the object is; see `boxes`. Or a function that gives
              them for a ProbeSet, which is asked for the panel's (m, h, w) alone; see `masks_from_folder`

    arrays    `inputs` (m,) indices into the probe, `panel` (m, h, w, c), `labels`, `predictions`, `confidence` (the
              prediction's softmax probability), `classes` (the explained ones), all (m,), `maps/<method>` (m, h, w) raw;
              `maps_first/<method>` those of the first step that was observed, `step_first`.
              An input whose logits are not all finite has the prediction -1, which is no class, and NaN for its
              confidence and maps.
              `measures/<measure>/<method>` and `measures_null/<measure>/<method>` one number for each measured input.
              Of the chosen inputs the same, as `inputs_chosen`, `maps_chosen/<method>` ..., in rows of equal number for each
              reason, `why_chosen`: where an input is lacking its index is -1 and its values are -1 or NaN; `predictions_probe` (n,)
    scalars   means over the panel's maps for which a number is defined, NaN where there is none, as `saliency/<number>/<method>`.
              `similarity` to the maps of the checkpoint before (of another class, where the prediction changed and is the
              target), absent where that has no maps of this panel and size; `similarity_null` of maps with those of other
              inputs; `similarity_first` to the first ones: where these are of the initialised network, a method that looks at
              what was learnt comes away from 1 (the sanity check of Adebayo et al., 2018).
              `concentration`, `entropy`; `blank`, the share of maps that are zero everywhere. With masks `mass_inside`, and its null.
              Each measure, and its null, as `deletion`, `deletion_null`.
              `saliency/agreement/<method> and <other>` the mean similarity of |map| by two methods, `agreement_null` with other inputs'
    images    `saliency/<method>`: `density`, from 0 to 6 times an even spread; maps that are zero everywhere or not finite
              have none, and say so. `saliency/<method>/chosen` of the chosen inputs, where there are any

    Raises ValueError for a probe that is not of images, an unknown target or measure, a panel of none, no methods, methods
    that are unnamed, named alike or return anything but (m, h, w), and masks that do not fit the probe.
    """
    probe, network = snapshot.probe, snapshot.network
    _check_options(panel, chosen, measures, limit_measured)
    fixed = panel_of(probe.labels, panel)
    images, labels = probe.inputs[fixed], probe.labels[fixed]
    if images.ndim != 4:
        raise ValueError(f"saliency maps need images (n, h, w, c); this probe's inputs have shape {probe.inputs.shape}; leave this analysis out")
    inside = _masks_of(masks, probe, fixed)
    logits = snapshot.once("logits", lambda: np.concatenate([network.outputs(images[b]) for b in batches(len(images), snapshot.batch_size)]))
    predictions, confidence = answers(logits)
    classes = explained_classes(target, labels, logits, probe.class_names)
    arrays: dict[str, Array] = {"inputs": fixed, "panel": images, "labels": labels}
    arrays |= {"predictions": predictions, "confidence": confidence, "classes": classes}
    scalars: dict[str, float] = {}
    drawn: dict[str, UInt8] = {}
    asked = np.maximum(classes, 0)
    captions = _captions(probe.class_names, labels, predictions, confidence)
    earlier: Mapping[str, Array] = previous.arrays if previous and np.array_equal(previous.arrays.get("panel", np.empty(0)), images) else {}
    arrays["step_first"] = np.asarray(earlier.get("step_first", snapshot.step))
    q = slice(limit_measured)
    random = None
    if measures:
        null = partial(measured_null, measures, network, images[q], asked[q], snapshot.batch_size)
        random = snapshot.once("measures_null", null)
    named = default_methods(network, images) if methods is None else _named(methods)
    answer = answered(named, network, images, asked)
    for name, method in named.items():
        maps = snapshot.once(f"maps/{name}", lambda: _checked_maps(name, answer(name), len(images)))  # noqa: B023 - called at once
        maps = np.where(predictions[:, None, None] < 0, np.float32(np.nan), maps)  # a score that is no number depends on nothing
        arrays[f"maps/{name}"] = maps
        first = earlier.get(f"maps_first/{name}")
        arrays[f"maps_first/{name}"] = maps if first is None or first.shape != maps.shape else first
        numbers = _numbers(maps, earlier.get(f"maps/{name}"), first)
        large = resize(maps, images.shape[1:3]).astype(np.float32)
        if inside is not None:
            numbers |= {"mass_inside": mass_inside(large, inside), "mass_inside_null": inside.mean(axis=(1, 2))}
        if random is not None:
            of = partial(measured, measures, network, images[q], asked[q], large[q], _at(method, images), snapshot.batch_size)
            for measure, values, null_values in zip(measures, snapshot.once(f"measures/{name}", of), random):
                beside = null_of(measure, large[q], null_values)
                numbers |= {measure: values, f"{measure}_null": beside}
                arrays |= {f"measures/{measure}/{name}": values, f"measures_null/{measure}/{name}": beside}
        scalars |= {f"saliency/{number}/{name}": mean_defined(values) for number, values in numbers.items()}
        title = ", ".join([name, *_explained(method, network, images), *_of_class(target), f"step {snapshot.step}"])
        drawn[f"saliency/{name}"] = _strip(images, maps, captions, title)
    scalars |= _agreement({name: arrays[f"maps/{name}"] for name in named}, images.shape[1:3])
    if chosen:
        more, pictures = _chosen(snapshot, earlier, named, chosen, target, fixed)
        arrays |= more
        drawn |= pictures
    return Findings(arrays, scalars, drawn)


def _check_options(panel: int, chosen: int, measures: Sequence[str], limit_measured: int) -> None:
    """What can be wrong whatever the network says."""
    if panel < 1:
        raise ValueError(f"saliency was given a panel of {panel} inputs; expected at least 1")
    if chosen < 0 or limit_measured < 1:
        raise ValueError(f"saliency was given chosen={chosen} and limit_measured={limit_measured}; expected at least 0 and at least 1")
    if isinstance(measures, str) or (unknown := [name for name in measures if name not in MEASURES]):
        raise ValueError(f"saliency was given the measures {measures if isinstance(measures, str) else unknown}; expected a list of {list(MEASURES)}")


def _masks_of(masks: Masks | None, probe: ProbeSet, panel: Int64) -> Float64 | None:
    """(m, h, w) those of the panel; of a function no others are asked, because somebody has to draw them."""
    if masks is None:
        return None
    asked, what = (probe.take(panel), "the panel's") if callable(masks) else (probe, "the probe's")
    found = np.asarray(masks(asked) if callable(masks) else masks, np.float64)
    if found.shape != asked.inputs.shape[:3]:
        raise ValueError(f"saliency was given masks of shape {found.shape}; expected {asked.inputs.shape[:3]}, one for each of {what} inputs")
    check_masks(found)
    return found if callable(masks) else found[panel]


def _checked_maps(name: str, found: Array, n: int) -> Float32:
    maps = np.asarray(found, np.float32)
    if maps.ndim != 3 or len(maps) != n:
        raise ValueError(f"saliency method {name!r} returned maps of shape {maps.shape}; expected ({n}, h, w), one map per input")
    return maps


def _at(method: Method, images: Array) -> Method:
    """The same method with maps at the images' resolution."""

    def resized(network: Network, inputs: Array, classes: Int64) -> Float32:
        return resize(np.asarray(method(network, inputs, classes), np.float32), images.shape[1:3]).astype(np.float32)

    return resized


def _numbers(maps: Float32, before: Array | None, first: Array | None) -> dict[str, Float64]:
    """What maps say by themselves and beside earlier ones (None, or of another size: no number)."""
    numbers = {"concentration": concentration(maps), "entropy": entropy(maps), "blank": (maps == 0).all(axis=(1, 2)).astype(np.float64)}
    if before is not None and before.shape == maps.shape:
        earlier = np.asarray(before, np.float32)
        numbers |= {"similarity": similarity(maps, earlier), "similarity_null": similarity_to_others(maps, earlier)}
    if first is not None and first.shape == maps.shape:
        numbers["similarity_first"] = similarity(maps, np.asarray(first, np.float32))
    return numbers


def _agreement(maps: Mapping[str, Array], size: tuple[int, ...]) -> dict[str, float]:
    sizes = {name: resize(np.abs(np.asarray(values, np.float32)), size).astype(np.float32) for name, values in maps.items()}
    found: dict[str, float] = {}
    for (a, one), (b, other) in combinations(sizes.items(), 2):
        found[f"saliency/agreement/{a} and {b}"] = mean_defined(similarity(one, other))
        found[f"saliency/agreement_null/{a} and {b}"] = mean_defined(similarity_to_others(one, other))
    return found


def _chosen(
    snapshot: Snapshot, earlier: Mapping[str, Array], methods: Mapping[str, Method], size: int, target: Target, fixed: Int64
) -> tuple[dict[str, Array], dict[str, UInt8]]:
    """The arrays and pictures of the inputs that are worth a look at this checkpoint."""
    probe, logits = snapshot.probe, snapshot.statistics.logits
    if logits is None:
        raise ValueError("saliency cannot choose inputs by their predictions: the network's output is no score per class (n, k); leave out `chosen`")
    predictions, confidence = answers(logits)
    before = earlier.get("predictions_probe")
    inputs = chosen_of(probe.labels, predictions, None if before is None else np.asarray(before, np.int64), size, fixed)
    there = inputs >= 0
    found = inputs[there]
    classes = explained_classes(target, probe.labels[found], logits[found], probe.class_names)
    why = np.repeat(WHY, size)

    def rows(values: Array, missing: float) -> Array:
        filled = np.full((len(inputs), *values.shape[1:]), missing, values.dtype)
        filled[there] = values
        return filled

    integers = {"labels": probe.labels[found], "predictions": predictions[found], "classes": classes}
    arrays: dict[str, Array] = {"predictions_probe": predictions, "inputs_chosen": inputs, "why_chosen": why}
    arrays |= {f"{name}_chosen": rows(values, -1) for name, values in integers.items()}
    arrays |= {"confidence_chosen": rows(confidence[found], np.nan), "panel_chosen": rows(probe.inputs[found], np.nan)}
    drawn: dict[str, UInt8] = {}
    if not len(found):
        return arrays, drawn
    said = _captions(probe.class_names, probe.labels[found], predictions[found], confidence[found])
    captions = [f"{reason}: {caption}" for reason, caption in zip(why[there], said)]
    answer = answered(methods, snapshot.network, probe.inputs[found], np.maximum(classes, 0))
    for name in methods:
        maps = _checked_maps(name, answer(name), len(found))
        maps = np.where(predictions[found][:, None, None] < 0, np.float32(np.nan), maps)
        arrays[f"maps_chosen/{name}"] = rows(maps, np.nan)
        title = ", ".join([f"{name} of chosen inputs", *_of_class(target), f"step {snapshot.step}"])
        drawn[f"saliency/{name}/chosen"] = _strip(probe.inputs[found], maps, captions, title)
    return arrays, drawn


def _strip(images: Array, maps: Float32, captions: Sequence[str], title: str) -> UInt8:
    # Grey and RGB are drawn as they are; what has other channels is drawn as their mean.
    pictures = np.asarray(images, np.float64)
    shown = pictures if pictures.shape[3] in (1, 3) else pictures.mean(axis=3, keepdims=True)
    missing = ["zero" if zero else "not finite" for zero in (maps == 0).all(axis=(1, 2))]
    return saliency_strip(shown, resize(density(maps), images.shape[1:3]), captions, DENSITY_LIMIT, title, missing=missing)


def _captions(names: Sequence[str], labels: Int64, predictions: Int64, confidence: Float64) -> list[str]:
    said = [f"{_class(names, k)} {c:.0%}" if k >= 0 else "not finite" for k, c in zip(predictions, confidence)]
    return [f"{_class(names, k)} -> {what}" for k, what in zip(labels, said)]


def _of_class(target: Target) -> list[str]:
    """Which class is explained, where that is neither the label's nor the predicted one; in words."""
    return [] if target in ("label", "predicted") else ["the runner-up" if target == "runner_up" else f"class {target}"]


def default_methods(network: Network, inputs: Array) -> dict[str, Method]:
    """`gradient`, and `grad_cam` where the network has a spatial layer, as it answers to inputs (n, h, w, c)."""
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
