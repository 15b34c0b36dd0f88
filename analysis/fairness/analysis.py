"""The analysis: how groups of the probe fare at every checkpoint, and in which layers they are told apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from netlapse.analysis.fairness.alarms import GROWING, LASTING, growth_bound, lasting
from netlapse.analysis.fairness.calibration import calibration_error, calibration_sums
from netlapse.analysis.fairness.counts import RATES, Disparities, disparities, group_counts, group_metrics
from netlapse.analysis.fairness.grouping import NO_VALUE
from netlapse.analysis.fairness.representation import (
    decodability,
    differences,
    displaced,
    exceeded,
    group_differences,
    masses,
    relabellings,
    standardised,
    within_classes,
)
from netlapse.events import Event, events_in, telling, told
from netlapse.probe import softmax
from netlapse.render.gaps import Rate, grid_of_steps, rates_chart
from netlapse.render.maps import maps_row
from netlapse.types import Array, Findings, Float32, Float64, Int64, Network, ProbeSet, Snapshot, UInt8, checked_by, ungrouped

Strings = NDArray[np.str_]
Bools = NDArray[np.bool_]
MOST_GROUPS = 40
"""In the picture of an attribute."""

Saliency = Callable[[Network, Array, Int64], Array]
"""A saliency method: (network, inputs (n, h, w, c), classes (n,)) -> (n, h, w)."""

SALIENCY_LIMIT = 1.0
"""Times an even spread of saliency, at full colour."""

EXCESS_LIMIT = 0.75
"""Standard deviations beyond chance, at full colour."""


def _check(
    snapshot: Snapshot,
    *,
    attributes: Sequence[str] | None,
    intersections: Sequence[Sequence[str]],
    positive: str | None,
    saliency: Saliency | None,
    **options: float,
) -> None:
    """The attributes are there and the options are possible."""
    _named(snapshot.probe, attributes, intersections)
    _check_saliency(snapshot.probe, saliency)
    _check_options(snapshot.probe, positive, **options)  # type: ignore[arg-type]


def _check_saliency(probe: ProbeSet, saliency: Saliency | None) -> None:
    if saliency is not None and probe.inputs.ndim != 4:
        raise ValueError(
            f"fairness was given a saliency method, and the probe's inputs have shape {probe.inputs.shape}; "
            "expected images (n, h, w, c), or saliency=null"
        )


def _check_options(
    probe: ProbeSet,
    positive: str | None,
    *,
    min_inputs: int,
    level: float,
    threshold: float,
    checkpoints: int,
    permutations: int,
    alpha: float,
    folds: int,
    **others: object,
) -> None:
    if positive is not None and str(positive) not in probe.class_names:
        raise ValueError(f"fairness was given positive={positive!r}; expected one of the classes {list(probe.class_names)[:12]}, or null for all")
    if min_inputs < 1 or checkpoints < 1 or permutations < 0 or (folds and folds < 2):
        raise ValueError(
            f"fairness was given min_inputs={min_inputs}, checkpoints={checkpoints}, permutations={permutations} and folds={folds}; expected at "
            "least 1, 1, 0 (none) and 2 (or 0: no probe)"
        )
    if not (0 < level < 1 and 0 < alpha < 1 and 0 <= threshold < 1):
        raise ValueError(f"fairness was given level={level}, alpha={alpha} and threshold={threshold}; expected numbers between 0 and 1")
    if permutations and alpha * (permutations + 1) < 1:
        raise ValueError(
            f"fairness was given permutations={permutations}: no p-value is below 1/{permutations + 1}, and so none below alpha={alpha}; "
            f"expected at least {int(np.ceil(1 / alpha))}"
        )


@telling(LASTING, GROWING)
@ungrouped
@checked_by(_check)
def fairness(
    snapshot: Snapshot,
    previous: Findings | None,
    *,
    attributes: Sequence[str] | None = None,
    intersections: Sequence[Sequence[str]] = (),
    positive: str | None = None,
    missing: Sequence[str] = NO_VALUE,
    min_inputs: int = 10,
    level: float = 0.95,
    threshold: float = 0.1,
    checkpoints: int = 3,
    permutations: int = 500,
    alpha: float = 0.05,
    folds: int = 5,
    seed: int = 0,
    saliency: Saliency | None = None,
) -> Findings:
    """How groups fare at this step, who is worst off, whether to be alarmed; and in which layers they are told apart since when.

    attributes     of the probe; None: all of them           intersections  of attributes, such as [[race, gender]]
    positive       the class whose rates the differences are of and the picture shows; None: of two classes the second, of more
                   the largest difference over all, each against the others
    missing        values that stand for none: such inputs are left out of the attribute's groups, and counted
    min_inputs     of a group, below which its rates are recorded and it has no part in any difference, alarm or test
    level          of all intervals and bounds
    threshold, checkpoints   an alarm: the lower bound of the gap is above the threshold at so many checkpoints in a row. The other: since
                   so many checkpoints ago, a group's lead has grown, by its lower bound, while the mean over groups rose
    permutations   of the attribute within each class, which are what the layers are compared with; 0: the layers are not looked at
    alpha          of the marks in the map of layers and steps
    folds          of the cross-validated linear probe; 0: none
    saliency       a method of `netlapse.analysis.saliency`, asked of every input for its label: where groups are looked at elsewhere than
                   their classes, beside what the same shuffled attributes give; None: no maps are made

    An input whose logits are not all finite has no prediction: it is left out of the rates, and counted.

    The layers. `difference` is how far the profiles of groups lie from those of their classes, see `differences`; a network shown
    other inputs by group answers differently before it has learnt anything, and so it is compared with what shuffling the attribute
    within classes gives. The labellings are the same at every step, as the probe is, so one maximum over layers and steps is kept
    for each: p is corrected over all layers and all steps so far, whatever their dependence (Westfall and Young, 1993,
    maxT). It rises for earlier steps as later ones are added: what was marked may be marked no more. At the last step, the
    probability that any cell is marked by chance is at most alpha; that any was at some time is not promised. No alarm goes by it.

    arrays    `attributes` (a,), `layers` (l,), `steps` (t,) observed so far, `classes` (k,) names. Of each attribute `<a>`:
              `groups/<a>` (g,) names, `counts/<a>` (g, k, k), `calibration/<a>` (g, b, 3) see `calibration_sums`;
              `accuracy/<a>` (3, g) and its interval, `recall/<a>`, `false_positive_rate/<a>`, `precision/<a>`, `selection_rate/<a>` (3, g, k);
              `worst/<a>` () the name of the worst group, "" where there is none; `demographic_parity/<a>`, `equal_opportunity/<a>`,
              `equalised_odds/<a>` (k,); `bounds/<a>` (t,) the lower bounds of the gap; `in_force/<a>` (2,) whether each alarm is.
              Of the layers `difference/<a>`, `by_chance/<a>` the mean of the shuffled ones, `score/<a>` standardised by them, and `p/<a>`, all
              (t, l); `maxima/<a>` (1 + permutations,); `decodability/<a>`, `decodability_baseline/<a>` (l,);
              `by_group/<a>/<layer>` (g, u) float32, see `group_differences`, 0 for units that do not vary, NaN for groups that are not looked at
              `events` (e,) sentences and what belongs to them, see `netlapse.events.told`: all alarms so far, about their attributes, when
              they began
              `right` (w, n) whether each input was, at the last checkpoints; -1 for no prediction
              Of saliency `saliency_difference/<a>`, see `displaced`, `saliency_by_chance/<a>`, `saliency_score/<a>`, `saliency_p/<a>`, all (t,)
              and corrected over the steps so far; `saliency_maxima/<a>` (1 + permutations,); `saliency_by_group/<a>` (g, h, w) float32 each
              group's mean map minus those of its classes, 1 is an even spread. Maps that are zero everywhere or not finite have no part
    scalars   `fairness/<number>/<a>`: accuracy_worst, accuracy_mean over groups, gap, gap_low, variance (of percentages),
              demographic_parity, equal_opportunity, equalised_odds, calibration_gap, undefined (how many of the rates of all groups and
              classes), too_small (groups), missing (inputs), no_prediction (inputs), alarm (how many are in force);
              with the layer last: `fairness/difference/<a>/<layer>`, `fairness/p/...`, `fairness/decodability/...`,
              `fairness/decodability_baseline/...`; `fairness/saliency_difference/<a>`, `saliency_by_chance`, `saliency_p`
    images    `fairness/<a>`: each group's rates with intervals. `fairness/<a>/layers`: differences beyond chance, layers x steps, from
              0 to 0.75 standard deviations, with a dot where p is at most alpha. `fairness/<a>/saliency`: `saliency_by_group`

    Raises ValueError for a probe without attributes, attributes it has not got, options out of their ranges, and a network without
    a logit for each class.
    """
    probe = snapshot.probe
    _check_saliency(probe, saliency)
    named = _named(probe, attributes, intersections)
    _check_options(
        probe, positive, min_inputs=min_inputs, level=level, threshold=threshold, checkpoints=checkpoints,
        permutations=permutations, alpha=alpha, folds=folds,
    )  # fmt: skip
    logits = _logits(snapshot)
    k = logits.shape[1]
    classes = tuple(probe.class_names) if len(probe.class_names) == k else tuple(str(c) for c in range(k))
    answered: Bools = np.asarray(np.isfinite(logits).all(axis=1))
    predictions = np.where(answered, np.where(answered[:, None], logits, 0).argmax(axis=1), -1)
    right = np.where(answered, predictions == probe.labels, -1).astype(np.int8)
    layers = snapshot.layer_names if permutations or folds else ()
    earlier = _earlier(previous, layers, len(probe), permutations, named)
    window = np.concatenate([earlier["right"], right[None]])[-(checkpoints + 1) :] if "right" in earlier else right[None]
    steps = np.append(earlier["steps"], snapshot.step) if "steps" in earlier else np.array([snapshot.step])
    arrays: dict[str, Array] = {"attributes": np.array(list(named)), "layers": np.array(layers, str), "classes": np.array(classes)}
    arrays |= {"steps": steps, "right": window}
    events = list(events_in(previous)) if earlier else []
    scalars: dict[str, float] = {}
    images: dict[str, UInt8] = {}
    shown = _positive(positive, classes)
    for name, values in named.items():
        groups, names = _grouped(values, missing)
        there = (groups >= 0) & answered
        counts = group_counts(groups[there], probe.labels[there], predictions[there], len(names), k)
        confidence = softmax(np.where(answered[:, None], logits, 0)).max(axis=1)
        sums = calibration_sums(groups[there], confidence[there], right[there] == 1, len(names))
        sizes: Int64 = counts.sum(axis=(1, 2))
        enough: Bools = np.asarray(sizes >= min_inputs)
        judged = np.where(enough[:, None, None], counts, 0)
        between = disparities(judged, level=level)
        calibration = np.where(enough, calibration_error(sums), np.nan)
        rates = group_metrics(counts, level=level)
        bounds = np.append(earlier.get(f"bounds/{name}", np.empty(0)), between.gap_low)
        alarms = (lasting(bounds, threshold, checkpoints), _growing(window, checkpoints, groups, _looked_at(groups, min_inputs), level))
        before = earlier.get(f"in_force/{name}", np.zeros(2, bool))
        for kind, on, was in zip((LASTING, GROWING), alarms, before.tolist()):
            if on and not was:
                events.append(Event(snapshot.step, kind, name, "", _said(kind, name, names, between, checkpoints, level)))
        arrays |= {f"groups/{name}": np.array(names), f"counts/{name}": counts, f"calibration/{name}": sums, f"bounds/{name}": bounds}
        arrays |= {f"{rate}/{name}": np.stack([rates[rate], rates[f"{rate}_low"], rates[f"{rate}_high"]]) for rate in ("accuracy", *RATES)}
        arrays |= {f"worst/{name}": np.array(names[between.worst] if between.worst >= 0 else ""), f"in_force/{name}": np.array(alarms)}
        arrays |= {f"{what}/{name}": getattr(between, what) for what in _CRITERIA}
        numbers = {"accuracy_worst": between.worst_accuracy, "accuracy_mean": between.mean_accuracy, "gap": between.gap, "gap_low": between.gap_low}
        numbers |= {"variance": between.variance, **{what: _largest(getattr(between, what), shown) for what in _CRITERIA}}
        numbers |= {"calibration_gap": _range(calibration), "undefined": disparities(counts, level=level).undefined, "too_small": (~enough).sum()}
        numbers |= {"missing": (groups < 0).sum(), "no_prediction": ((groups >= 0) & ~answered).sum(), "alarm": sum(alarms)}
        scalars |= {f"fairness/{number}/{name}": float(value) for number, value in numbers.items()}
        images[f"fairness/{name}"] = _chart(
            name, names, sizes, rates, calibration_error(sums), between, shown, classes, min_inputs, level, snapshot.step
        )
        if layers:
            looked = _looked_at(groups, min_inputs)
            found, more = _layers(snapshot, name, groups, names, looked, earlier, permutations, folds, seed)
            arrays |= found
            scalars |= more
            if permutations:
                images[f"fairness/{name}/layers"] = _emergence(name, arrays, layers, alpha)
        if saliency is not None and permutations:
            looked_elsewhere = _elsewhere(snapshot, saliency, name, groups, names, _looked_at(groups, min_inputs), earlier, permutations, seed)
            arrays |= looked_elsewhere.arrays
            scalars |= looked_elsewhere.scalars
            images |= looked_elsewhere.images
    return Findings(arrays | told(events), scalars, images)


_CRITERIA = ("demographic_parity", "equal_opportunity", "equalised_odds")


# ---- who is in which group -------------------------------------------------------------------------------------------


def _named(probe: ProbeSet, attributes: Sequence[str] | None, intersections: Sequence[Sequence[str]]) -> dict[str, Strings]:
    """Name -> (n, parts) values of each attribute, and of each intersection of attributes."""
    if not probe.attributes:
        raise ValueError(
            "fairness compares groups of inputs, and the probe has no attributes; give it some, ProbeSet(..., attributes={'age': [...]}), one value "
            "for each input, train on data that have them (data=rotated, data=fairface, attribute_columns=[...] of a table), or leave it out"
        )
    if isinstance(attributes, str) or isinstance(intersections, str) or any(isinstance(parts, str) for parts in intersections):
        raise ValueError(
            f"fairness was given attributes={attributes!r} and intersections={intersections!r}; expected a list, and a list of lists, of names "
            f"among {sorted(probe.attributes)}"
        )
    wanted = [(name,) for name in (probe.attributes if attributes is None else attributes)] + [tuple(parts) for parts in intersections]
    unknown = sorted({part for parts in wanted for part in parts if part not in probe.attributes})
    if unknown or not wanted or any(len(set(parts)) < len(parts) or not parts for parts in wanted):
        raise ValueError(
            f"fairness was asked for the attributes {[' x '.join(parts) for parts in wanted]}; the probe has no {unknown}, "
            f"it has {sorted(probe.attributes)}; expected some of these, each once in an intersection"
        )
    return {" x ".join(parts): np.stack([probe.attributes[part] for part in parts], axis=1) for parts in wanted}


def _grouped(values: Strings, missing: Sequence[str]) -> tuple[Int64, tuple[str, ...]]:
    """(n,) each input's group, -1 where a value is missing, and the groups' names, in sorted order."""
    there = ~np.isin(values, list(missing)).any(axis=1)
    groups = np.full(len(values), -1)
    names, groups[there] = np.unique(values[there], axis=0, return_inverse=True)
    return groups, tuple(" / ".join(row) for row in names.tolist())


def _looked_at(groups: Int64, min_inputs: int) -> Bools:
    """(n,) whether an input is of a group of at least so many."""
    sizes = np.bincount(groups[groups >= 0], minlength=1)
    return np.asarray((groups >= 0) & (sizes[np.maximum(groups, 0)] >= min_inputs))


def _logits(snapshot: Snapshot) -> Float32:
    logits, probe = snapshot.statistics.logits, snapshot.probe
    if logits is None or logits.ndim != 2 or logits.shape[1] <= max(1, int(probe.labels.max())):
        raise ValueError(
            f"fairness needs a logit for each class: the network's output has shape {None if logits is None else logits.shape}, and the probe has "
            f"{len(probe)} inputs with labels up to {probe.labels.max()}; leave this analysis out"
        )
    return logits


def _positive(positive: str | None, classes: Sequence[str]) -> int | None:
    return classes.index(str(positive)) if positive is not None else 1 if len(classes) == 2 else None


def _largest(differences: Float64, positive: int | None) -> float:
    """That of the positive class; the largest where there is none."""
    told = differences[~np.isnan(differences)] if positive is None else differences[[positive]]
    return float(told.max()) if len(told) else float("nan")


def _range(values: Float64) -> float:
    told = values[~np.isnan(values)]
    return float(np.ptp(told)) if len(told) > 1 else float("nan")


# ---- what it found before, and alarms --------------------------------------------------------------------------------


def _earlier(previous: Findings | None, layers: Sequence[str], n: int, permutations: int, named: Mapping[str, object]) -> Mapping[str, Array]:
    """The findings before, where they go on: of the same attributes, layers, labellings and number of inputs."""
    if previous is None or not {"steps", "layers", "attributes", "right"} <= previous.arrays.keys():
        return {}
    before = previous.arrays
    same = before["attributes"].tolist() == list(named) and before["layers"].tolist() == list(layers) and before["right"].shape[1] == n
    labellings = [len(before.get(f"maxima/{name}", ())) for name in named]
    return before if same and labellings == [1 + permutations if permutations else 0] * len(named) else {}


def _growing(window: Array, checkpoints: int, groups: Int64, looked: Bools, level: float) -> bool:
    if len(window) <= checkpoints:
        return False
    before, now = (np.asarray(window[row], np.int64) for row in (-1 - checkpoints, -1))
    there = looked & (before >= 0) & (now >= 0)
    bound = growth_bound(before[there], now[there], groups[there], level=level)
    if not bound > 0:
        return False
    means = [np.mean([right[there & (groups == group)].mean() for group in np.unique(groups[there])]) for right in (before, now)]
    return bool(means[1] > means[0])


def _said(kind: str, name: str, names: Sequence[str], between: Disparities, checkpoints: int, level: float) -> str:
    """The alarm in a sentence."""
    who = f"{name}: accuracy {between.worst_accuracy:.2f} for {names[between.worst]}, {between.gap:.2f} below {names[between.best]}"
    if kind == LASTING:
        return (
            f"{who}; at least {between.gap_low:.2f} with {level * 100:g} % confidence, and above the threshold at {checkpoints} checkpoints in a row"
        )
    return f"{who}; a lead over a group grew since {checkpoints} checkpoints ago while the mean over groups rose to {between.mean_accuracy:.2f}"


# ---- the layers ------------------------------------------------------------------------------------------------------


def _layers(
    snapshot: Snapshot,
    name: str,
    groups: Int64,
    names: Sequence[str],
    looked: Bools,
    earlier: Mapping[str, Array],
    permutations: int,
    folds: int,
    seed: int,
) -> tuple[dict[str, Array], dict[str, float]]:
    arrays: dict[str, Array] = {}
    scalars: dict[str, float] = {}
    layers, mine, labels = snapshot.layer_names, groups[looked], snapshot.probe.labels[looked]
    if folds:
        probed = snapshot.once(f"decodability/{name}", partial(_probed, snapshot, looked, mine, folds, seed))
        for column, what in enumerate(("decodability", "decodability_baseline")):
            arrays[f"{what}/{name}"] = probed[:, column]
            scalars |= {f"fairness/{what}/{name}/{layer}": float(value) for layer, value in zip(layers, probed[:, column])}
    if not permutations:
        return arrays, scalars
    relabelled = relabellings(mine, labels, permutations, seed)
    found = snapshot.once(f"differences/{name}", partial(_differences, snapshot, looked, relabelled, labels))
    scores = standardised(found)
    maxima = np.fmax(np.asarray(earlier.get(f"maxima/{name}", -np.inf), np.float64), np.fmax.reduce(scores, axis=0, initial=-np.inf))
    now = {"difference": found[:, 0], "by_chance": found[:, 1:].mean(axis=1), "score": scores[:, 0]}
    for what, values in now.items():
        arrays[f"{what}/{name}"] = np.concatenate([earlier.get(f"{what}/{name}", np.empty((0, len(layers)))), values[None]])
    p = exceeded(np.asarray(arrays[f"score/{name}"], np.float64), maxima)
    arrays |= {f"maxima/{name}": maxima, f"p/{name}": p}
    for layer, difference, one in zip(layers, found[:, 0], p[-1]):
        scalars |= {f"fairness/difference/{name}/{layer}": float(difference), f"fairness/p/{name}/{layer}": float(one)}
        deviations = within_classes(snapshot.responses[layer][looked], labels)
        arrays[f"by_group/{name}/{layer}"] = group_differences(deviations, mine, len(names)).astype(np.float32)
    return arrays, scalars


def _probed(snapshot: Snapshot, looked: Array, groups: Int64, folds: int, seed: int) -> Float64:
    """(l, 2) of each layer how well the groups are told by a linear probe, and by the commonest of them."""
    found = [decodability(snapshot.responses[layer][looked], groups, folds=folds, seed=seed) for layer in snapshot.layer_names]
    return np.array([(one.accuracy, one.baseline) for one in found], np.float64)


def _differences(snapshot: Snapshot, looked: Array, relabelled: Int64, labels: Int64) -> Float64:
    """(l, b) of each layer the differences of all labellings; NaN where there are fewer than two groups."""
    if len(np.unique(relabelled[0])) < 2:
        return np.full((len(snapshot.layer_names), len(relabelled)), np.nan)
    return np.stack([differences(within_classes(snapshot.responses[layer][looked], labels), relabelled, labels) for layer in snapshot.layer_names])


# ---- where it looks --------------------------------------------------------------------------------------------------


def _maps(snapshot: Snapshot, saliency: Saliency) -> Array:
    inputs, labels, size = snapshot.probe.inputs, snapshot.probe.labels, snapshot.batch_size
    parts = [saliency(snapshot.network, inputs[start : start + size], labels[start : start + size]) for start in range(0, len(inputs), size)]
    return np.concatenate(parts).astype(np.float32)


def _elsewhere(
    snapshot: Snapshot,
    saliency: Saliency,
    name: str,
    groups: Int64,
    names: Sequence[str],
    looked: Bools,
    earlier: Mapping[str, Array],
    permutations: int,
    seed: int,
) -> Findings:
    maps = snapshot.once("saliency", partial(_maps, snapshot, saliency))
    shares = masses(maps)
    # The labellings are those of all inputs that are looked at, at every step, whichever of them have a map.
    relabelled = relabellings(groups[looked], snapshot.probe.labels[looked], permutations, seed)
    told = ~np.isnan(shares[looked]).any(axis=1)
    mine, labels = shares[looked][told], snapshot.probe.labels[looked][told]
    found = np.full(1 + permutations, np.nan)
    if told.any() and len(np.unique(relabelled[0, told])) > 1:
        found = displaced(mine, relabelled[:, told], labels)
    scores = standardised(found)
    maxima = np.fmax(np.asarray(earlier.get(f"saliency_maxima/{name}", -np.inf), np.float64), scores)
    arrays: dict[str, Array] = {f"saliency_maxima/{name}": maxima}
    unseen = np.full(len(earlier["steps"]) if "steps" in earlier else 0, np.nan)
    for what, value in (("difference", found[0]), ("by_chance", found[1:].mean()), ("score", scores[0])):
        arrays[f"saliency_{what}/{name}"] = np.append(earlier.get(f"saliency_{what}/{name}", unseen), value)
    arrays[f"saliency_p/{name}"] = p = exceeded(np.asarray(arrays[f"saliency_score/{name}"], np.float64), maxima)
    h, w = maps.shape[1:]
    by_group = np.full((len(names), h, w), np.nan, np.float32)
    means = {label: mine[labels == label].mean(axis=0) for label in np.unique(labels)}
    for group in np.unique(relabelled[0, told]):
        members = relabelled[0, told] == group
        expected = np.stack([means[label] for label in labels[members]]).mean(axis=0)
        by_group[group] = ((mine[members].mean(axis=0) - expected) * h * w).reshape(h, w)
    arrays[f"saliency_by_group/{name}"] = by_group
    numbers = {"saliency_difference": found[0], "saliency_by_chance": found[1:].mean(), "saliency_p": p[-1]}
    title = f"{name}: where the network looks, beside the class \u00b7 step {snapshot.step}"
    sizes = [int((groups == group).sum()) for group in range(len(names))]
    square = np.full((len(names), max(h, w), max(h, w)), np.nan)
    square[:, (max(h, w) - h) // 2 :, (max(h, w) - w) // 2 :][:, :h, :w] = by_group
    images = {f"fairness/{name}/saliency": maps_row(square, list(names), sizes, SALIENCY_LIMIT, title, "times an even spread")} if names else {}
    return Findings(arrays, {f"fairness/{what}/{name}": float(value) for what, value in numbers.items()}, images)


# ---- the pictures ----------------------------------------------------------------------------------------------------


def _chart(
    name: str,
    names: Sequence[str],
    sizes: Int64,
    rates: Mapping[str, Float64],
    calibration: Float64,
    between: Disparities,
    positive: int | None,
    classes: Sequence[str],
    min_inputs: int,
    level: float,
    step: int,
) -> UInt8:
    columns = [Rate("accuracy", rates["accuracy"], rates["accuracy_low"], rates["accuracy_high"])]
    for rate in RATES:
        words = rate.replace("_", " ").replace("false positive", "false-positive")
        if positive is not None:
            columns.append(Rate(f"{words} of {classes[positive]}", *(rates[f"{rate}{end}"][:, positive] for end in ("", "_low", "_high"))))
        elif rate != "selection_rate":  # whose mean over classes is one over their number
            columns.append(Rate(f"{words}, mean over classes", rates[f"{rate}_macro"]))
    columns.append(Rate("calibration error", calibration))
    said = "no two groups to compare"
    if not np.isnan(between.gap):
        bound = f"at least {between.gap_low * 100:.0f} with {level * 100:g} % confidence"
        said = f"worst {names[between.worst]}, {between.gap * 100:.0f} points below {names[between.best]}, {bound}"
    note = f"Lines are {level * 100:g} % intervals (Wilson), where there are any. Groups of fewer than {min_inputs} inputs are not compared."
    if not names:
        return rates_chart([Rate("accuracy", np.array([np.nan]))], ["no input has a value"], [0], f"{name}, step {step}", note)
    kept = np.sort(np.argsort(-sizes, kind="stable")[:MOST_GROUPS])
    if len(names) > MOST_GROUPS:
        note += f" The {MOST_GROUPS} largest of {len(names)} groups."
    columns = [Rate(one.name, *(None if of is None else of[kept] for of in (one.values, one.low, one.high))) for one in columns]  # type: ignore[arg-type]
    names, sizes = [names[group] for group in kept], sizes[kept]
    return rates_chart(columns, names, sizes.tolist(), f"{name}, step {step}: {said}", note, least=min_inputs)


def _emergence(name: str, arrays: Mapping[str, Array], layers: Sequence[str], alpha: float) -> UInt8:
    difference, by_chance, p = (np.asarray(arrays[f"{what}/{name}"], np.float64) for what in ("difference", "by_chance", "p"))
    with np.errstate(invalid="ignore"):
        marked = p <= alpha
    return grid_of_steps(
        difference - by_chance,
        marked,
        layers,
        np.asarray(arrays["steps"], np.int64).tolist(),
        EXCESS_LIMIT,
        f"{name}: where its groups are told apart, beyond chance",
        "standard deviations",
        f"Within classes, minus what shuffled groups give. A dot: more than chance, p at most {alpha:g}, corrected over all layers and these steps. "
        "Groups may be told apart without being treated differently.",
    )
