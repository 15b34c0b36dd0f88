"""Neuron activation profiles (NAPs): the mean activation of each unit over groups of inputs (Krug et al. 2023)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from netlapse.statistics import GroupStatistics
from netlapse.types import Array, Findings, Float32, Float64, Int64, Network, Snapshot, Spatial

LARGEST_PROFILES = 8 * 2**30
"""Bytes of float64 profiles above which `activation_profiles` refuses to start."""


def activation_profiles(
    network: Network, inputs: Array, groups: Int64, layers: Sequence[str], *, spatial: Spatial = "mean", batch_size: int = 256
) -> dict[str, Float64]:
    """{layer: (g, u)} the mean activation of each unit over each group's inputs and, "mean", over positions; float64.

    inputs   (n, ...) channels-last          groups  (n,) integers; g is the largest plus one
    spatial  "keep": (g, h, w, u), every position by itself

    Summed in float32 within a batch and float64 across: memory does not grow with n. A group without inputs is NaN.
    Raises ValueError where inputs and groups differ in length or are empty, a group is negative, or the profiles would
    take more than 8 GiB.
    """
    groups = checked_groups(groups, len(inputs))
    n_groups = int(groups.max()) + 1
    check_size(network, inputs, n_groups, layers, spatial)
    sums: dict[str, Float64] = {}
    with network.undisturbed():
        for start in range(0, len(inputs), batch_size):
            batch = slice(start, start + batch_size)
            for layer, batch_sums in network.group_sums(inputs[batch], groups[batch], n_groups, layers, spatial).items():
                if layer in sums:
                    sums[layer] += batch_sums
                else:
                    sums[layer] = batch_sums.astype(np.float64)
    return {layer: _means(sums[layer], groups) for layer in layers}


def aligned_profiles(
    network: Network,
    inputs: Array,
    groups: Int64,
    layers: Sequence[str],
    *,
    target: Literal["predicted", "label"] | int = "predicted",
    labels: Int64 | None = None,
    batch_size: int = 64,
) -> dict[str, Float64]:
    """{layer: (g, *s, u)} as `activation_profiles` of every position, of activations moved by `align`; float64.

    Each input's saliency (*s) in a layer is the mean over units of |gradient of a class's logit by the activation|, and each
    layer moves by its own. What a layer without positions does is averaged as it is, (g, u).
    target   whose logit: that of the class the network predicts for the input ("predicted"), of its label, or of one class
    labels   (n,), for "label"

    Streamed: one forward and one backward for each batch, nothing kept but the sums.
    Raises ValueError as `activation_profiles` and `Network.explained`, for another target, and for "label" without labels.
    Source: Krug and Stober, 2019, "Siri visualisiert"; Krug et al., 2023, section 3.
    """
    groups = checked_groups(groups, len(inputs))
    if target == "label" and labels is None:
        raise ValueError("aligned_profiles was asked to align by the label's gradient and given no labels; pass labels (n,), or target='predicted'")
    if target not in ("predicted", "label") and not isinstance(target, (int, np.integer)):
        raise ValueError(f"aligned_profiles was given the target {target!r}; expected 'predicted', 'label' or the number of a class")
    classes = None if target == "predicted" else np.asarray(labels) if target == "label" else np.full(len(inputs), target)
    n_groups = int(groups.max()) + 1
    check_size(network, inputs, n_groups, layers, "keep")
    sums: dict[str, Float64] = {}
    with network.undisturbed():
        for start in range(0, len(inputs), batch_size):
            batch = slice(start, start + batch_size)
            found = network.explained(inputs[batch], layers, None if classes is None else classes[batch])
            for layer, activations in found.activations.items():
                total = sums.setdefault(layer, np.zeros((n_groups, *activations.shape[1:])))
                sizes = np.array(activations.shape[1:-1])
                shifts = _shifts(np.abs(found.gradients[layer]).mean(axis=-1)) if len(sizes) else np.zeros((len(activations), 0), np.int64)
                begins, ends = np.maximum(shifts, 0), np.minimum(sizes + shifts, sizes)
                # Input by input: what is added is read once, where gathering it first would read and write it three times.
                for group, activation, shift, begin, end in zip(groups[batch], activations, shifts, begins, ends):
                    here = tuple(map(slice, begin, end))
                    there = tuple(map(slice, begin - shift, end - shift))
                    total[group][there] += activation[here]
    return {layer: _means(sums[layer], groups) for layer in layers}


def checked_groups(groups: Int64, n: int) -> Int64:
    """(n,) groups as an array; raises ValueError where they are not n integers from 0, or there is none."""
    groups = np.asarray(groups)
    if groups.shape != (n,) or not n or not np.issubdtype(groups.dtype, np.integer) or groups.min() < 0:
        raise ValueError(f"groups have shape {groups.shape} and dtype {groups.dtype}; expected ({n},) integers from 0, one per input, at least one")
    return groups


def check_size(network: Network, inputs: Array, n_groups: int, layers: Sequence[str], spatial: Spatial) -> None:
    """Raises ValueError, with the arithmetic, where profiles would take more than LARGEST_PROFILES bytes."""
    shapes = {layer.name: layer.shape if spatial == "keep" else layer.shape[-1:] for layer in network.describe(inputs[:2])}
    size = sum(8 * n_groups * int(np.prod(shapes[layer])) for layer in layers if layer in shapes)
    if size > LARGEST_PROFILES:
        units = sum(int(np.prod(shapes[layer])) for layer in layers if layer in shapes)
        raise ValueError(
            f"profiles of {n_groups} groups and layers {list(layers)} with spatial={spatial!r} would take {n_groups} groups x {units} units x 8 "
            f"bytes = {size / 2**30:.1f} GiB, more than {LARGEST_PROFILES / 2**30:.0f}; take fewer layers or groups, or spatial='mean'"
        )


def _means(sums: Float64, groups: Int64) -> Float64:
    counts = np.bincount(groups, minlength=len(sums)).astype(np.float64)
    counts[counts == 0] = np.nan
    return np.asarray(sums / counts.reshape(-1, *[1] * (sums.ndim - 1)), np.float64)


@np.errstate(invalid="ignore")  # a diverged network: infinity minus infinity is NaN, which is what it is
def contrast(profile: Float64, weights: Float64 | None = None) -> Float64:
    """How each group's profile (g, ...) differs from the mean over groups; with equal weights it sums to zero over groups.

    weights  (g,) non-negative, for a weighted mean; the group sizes, for one
    Groups that are NaN all over (without inputs) stay NaN and are left out of the mean, which is NaN where there are no
    others. Raises ValueError for weights of another shape, negative, or zero over all groups that have inputs.
    """
    profile = np.asarray(profile, np.float64)
    filled = ~np.isnan(profile).all(axis=tuple(range(1, profile.ndim)))
    weights = np.ones(len(profile)) if weights is None else np.asarray(weights, np.float64)
    if weights.shape != (len(profile),) or (weights < 0).any() or (filled.any() and not weights[filled].sum() > 0):
        raise ValueError(
            f"contrast was given weights {weights.tolist()}; expected {len(profile)}, none negative, some above 0 among the groups with inputs"
        )
    mean = np.tensordot(weights[filled] / weights[filled].sum(), profile[filled], axes=1)
    return np.asarray(profile - mean, np.float64)


def align(activations: Float32, saliency: Float32) -> Float32:
    """Each input's activation (n, *s, u) translated so that its most salient position comes to the centre, s // 2.

    saliency (n, *s); the first maximum counts. What is moved in from outside is zero; an input whose saliency is the
    same everywhere stays where it is. Only the spatial axes move (Krug et al., as defined; their program moves the
    channels too). Raises ValueError where the shapes do not belong together.
    """
    activations, saliency = np.asarray(activations), np.asarray(saliency)
    if activations.ndim < 3 or saliency.shape != activations.shape[:-1]:
        raise ValueError(
            f"align was given activations {activations.shape} and saliency {saliency.shape}; expected (n, *s, u) with at least one s, and (n, *s)"
        )
    n, sizes = len(saliency), saliency.shape[1:]
    shifts = _shifts(saliency)
    rows = np.arange(n).reshape(-1, *[1] * len(sizes))
    index: list[Int64] = []
    inside = np.ones(saliency.shape, bool)
    for axis, size in enumerate(sizes):
        along = np.arange(size).reshape([-1 if i == axis else 1 for i in range(len(sizes))])
        source = along[None] + shifts[:, axis].reshape(-1, *[1] * len(sizes))
        inside &= (source >= 0) & (source < size)
        index.append(np.clip(source, 0, size - 1))
    aligned = activations[(rows, *index)]
    return np.where(inside[..., None], aligned, np.zeros((), activations.dtype))


def _shifts(saliency: Float32) -> Int64:
    """(n, d) from the centre of each map (n, *s) of d axes to its first maximum; zero where it is the same everywhere."""
    sizes, flat = saliency.shape[1:], saliency.reshape(len(saliency), -1)
    peaks = np.stack(np.unravel_index(flat.argmax(axis=1), sizes), axis=1)
    shifts: Int64 = (peaks - np.array(sizes) // 2).astype(np.int64)
    shifts[flat.min(axis=1) == flat.max(axis=1)] = 0
    return shifts


def bootstrap(
    responses: Float32, groups: Int64, n_groups: int, *, repeats: int = 1000, level: float = 0.95, seed: int = 0
) -> tuple[Float64, Float64]:
    """(g, u) twice: the ends of the intervals that hold the profiles of a share `level` of resampled probes.

    responses  (n, u) of each input, as `Snapshot.responses`          groups   (n,) integers from 0
    Inputs are drawn with replacement within each group, `repeats` times, and the percentiles taken of the means (Efron, 1979).
    A group of one input has an interval of no width, one without inputs NaN.
    Raises ValueError for shapes that do not belong together, fewer than one repeat, and a level not between 0 and 1.
    """
    responses, groups = np.asarray(responses), np.asarray(groups)
    if responses.ndim != 2 or groups.shape != responses.shape[:1] or repeats < 1 or not 0 < level < 1:
        raise ValueError(
            f"bootstrap was given responses {responses.shape}, groups {groups.shape}, {repeats} repeats and the level {level}; "
            "expected (n, u), (n,), at least 1 and a number between 0 and 1"
        )
    rng = np.random.default_rng(seed)
    low, high = np.full((2, n_groups, responses.shape[1]), np.nan)
    for group in range(n_groups):
        mine = responses[groups == group].astype(np.float64)
        if len(mine):
            drawn = rng.multinomial(len(mine), np.full(len(mine), 1 / len(mine)), size=repeats)
            means = drawn @ mine / len(mine)
            low[group], high[group] = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


@np.errstate(invalid="ignore")
def drift(profile: Float64, reference: Float64) -> float:
    """How far a profile (g, u) is from another, from 0 (equal) to 2 (opposite): |a - b| / ((|a| + |b|) / 2), Frobenius norms.

    Over the groups that are not NaN all over (without inputs) in either; NaN where no group is left, both profiles are zero
    or one holds a value that is not finite.
    """
    both = ~(np.isnan(profile).all(axis=1) | np.isnan(reference).all(axis=1))
    a, b = profile[both], reference[both]
    size = (np.linalg.norm(a) + np.linalg.norm(b)) / 2
    return float(np.linalg.norm(a - b) / size) if size > 0 else float("nan")


def separability(statistics: GroupStatistics, layer: str) -> float:
    """The share of the variance of a layer's responses that lies between groups, 0 to 1, over all units.

    The correlation ratio eta squared (Pearson, 1905), of sums of squares pooled over units. NaN where nothing varies, and
    where a unit's responses are not finite.
    Groups drawn at random give about (g - 1) / (n - 1).
    """
    total, between = (float(s.sum()) for s in statistics.sums_of_squares(layer))
    return between / total if total > 0 else float("nan")


def scale(statistics: GroupStatistics, layer: str) -> float:
    """The standard deviation of a layer's responses over all inputs, pooled over units: the unit in which maps are drawn.

    0 where every unit responds alike to every input, NaN where a unit's responses are not finite.
    """
    total, _ = statistics.sums_of_squares(layer)
    return float(np.sqrt(total.mean() / statistics.counts.sum()))


def nap(snapshot: Snapshot, previous: Findings | None, *, resamples: int = 0, level: float = 0.95, seed: int = 0) -> Findings:
    """The profiles of every observed layer, how sure they are, and how they change.

    resamples  how many times the probe is resampled for intervals of the profiles, see `bootstrap`; 0: no intervals. They cost
               a second forward pass and the responses to all inputs in memory
    level      what share of them an interval holds

    arrays    `groups` (g,) names, `counts` (g,), `profile/<layer>` (g, u), `first/<layer>` the profile at the first
              checkpoint, `scale/<layer>` () see `scale`. float32: `variance/<layer>`, `error/<layer>` the standard error of the
              profile, `sparsity/<layer>` the share of inputs that activate the unit, `highest/<layer>` the highest activation,
              all (g, u) and NaN for groups without inputs (variance and error also for a single one). `constant/<layer>` (u,)
              units that do one and the same, see below. `broken/<layer>` () the first input with a response that is no number, -1
              where there is none. `top/<layer>` (u, m) the inputs of the highest activation, as
              indices into the probe, -1 where there are fewer. With resamples `low/<layer>`, `high/<layer>` (g, u)
    scalars   `nap/drift/<layer>` from the checkpoint before, `nap/drift_from_start/<layer>`, `nap/separability/<layer>`,
              `nap/sparsity/<layer>` the mean share of inputs that activate a unit: activation above 0 at some position,
              `nap/dead_units/<layer>` the number of units whose activation is one and the same finite number at every
              position of every input: 0 for a ReLU that never fires, and any other number as well.
              `nap/nonfinite_units/<layer>` the number of units whose response, the mean activation over positions, to at
              least one input is NaN or infinite, and `nap/nonfinite_input/<layer>` the first such input, as an index into the
              probe; absent where there is none. Separability is NaN there
    """
    statistics = snapshot.statistics
    arrays: dict[str, Array] = {"groups": np.array(statistics.names), "counts": statistics.counts}
    scalars: dict[str, float] = {}
    earlier: Mapping[str, Array] = previous.arrays if previous else {}
    for layer in snapshot.layer_names:
        profile = statistics.profile(layer)
        first = np.asarray(earlier.get(f"first/{layer}", profile), np.float64)
        arrays |= {f"profile/{layer}": profile, f"first/{layer}": first, f"scale/{layer}": np.array(scale(statistics, layer))}
        details = {name: getattr(statistics, of)(layer) for name, of in _DETAILS.items()}
        with np.errstate(over="ignore"):  # the square of a response is beyond float32 sooner than the response
            arrays |= {f"{name}/{layer}": values.astype(np.float32) for name, values in details.items()}
        arrays |= {f"constant/{layer}": statistics.constant(layer), f"broken/{layer}": statistics.broken[layer]}
        arrays[f"top/{layer}"] = statistics.top[layer].astype(np.int32)
        if resamples:
            low, high = bootstrap(snapshot.responses[layer], statistics.groups, len(statistics.names), repeats=resamples, level=level, seed=seed)
            arrays |= {f"low/{layer}": low, f"high/{layer}": high}
        before = earlier.get(f"profile/{layer}")
        if before is not None:
            scalars[f"nap/drift/{layer}"] = drift(profile, np.asarray(before, np.float64))
            scalars[f"nap/drift_from_start/{layer}"] = drift(profile, first)
        scalars[f"nap/separability/{layer}"] = separability(statistics, layer)
        scalars[f"nap/sparsity/{layer}"] = float(statistics.active[layer].sum() / (statistics.counts.sum() * profile.shape[1]))
        scalars[f"nap/dead_units/{layer}"] = float(statistics.constant(layer).sum())
        if broken := int((~statistics.finite(layer)).sum()):
            scalars[f"nap/nonfinite_units/{layer}"] = broken
            scalars[f"nap/nonfinite_input/{layer}"] = int(statistics.broken[layer])
    return Findings(arrays, scalars)


_DETAILS = {"variance": "variance", "error": "standard_error", "sparsity": "sparsity", "highest": "highest"}
