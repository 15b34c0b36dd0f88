"""Neuron activation profiles (NAPs): the mean activation of each unit over groups of inputs (Krug et al. 2023)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
    groups = np.asarray(groups)
    if groups.shape != (len(inputs),) or not len(inputs) or not np.issubdtype(groups.dtype, np.integer) or groups.min() < 0:
        raise ValueError(
            f"groups have shape {groups.shape} and dtype {groups.dtype}; expected ({len(inputs)},) integers from 0, one per input, at least one"
        )
    n_groups = int(groups.max()) + 1
    shapes = {layer.name: layer.shape if spatial == "keep" else layer.shape[-1:] for layer in network.describe(inputs[:2])}
    size = sum(8 * n_groups * int(np.prod(shapes[layer])) for layer in layers if layer in shapes)
    if size > LARGEST_PROFILES:
        raise ValueError(
            f"profiles of {n_groups} groups and layers {list(layers)} with spatial={spatial!r} would take {size / 2**30:.1f} GiB, "
            f"more than {LARGEST_PROFILES / 2**30:.0f}; take fewer layers or groups, or spatial='mean'"
        )
    sums: dict[str, Float64] = {}
    with network.undisturbed():
        for start in range(0, len(inputs), batch_size):
            batch = slice(start, start + batch_size)
            for layer, batch_sums in network.group_sums(inputs[batch], groups[batch], n_groups, layers, spatial).items():
                if layer in sums:
                    sums[layer] += batch_sums
                else:
                    sums[layer] = batch_sums.astype(np.float64)
    counts = np.bincount(groups, minlength=n_groups).astype(np.float64)
    counts[counts == 0] = np.nan
    return {layer: sums[layer] / counts.reshape(-1, *[1] * (sums[layer].ndim - 1)) for layer in layers}


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
    flat = saliency.reshape(n, -1)
    peaks = np.stack(np.unravel_index(flat.argmax(axis=1), sizes), axis=1)
    shifts = peaks - np.array(sizes) // 2
    shifts[flat.min(axis=1) == flat.max(axis=1)] = 0
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


def nap(snapshot: Snapshot, previous: Findings | None) -> Findings:
    """The profiles of every observed layer, and how they change.

    arrays    `groups` (g,) names, `counts` (g,), `profile/<layer>` (g, u), `first/<layer>` the profile at the first
              checkpoint, `scale/<layer>` () see `scale`
    scalars   `nap/drift/<layer>` from the checkpoint before, `nap/drift_from_start/<layer>`, `nap/separability/<layer>`,
              `nap/dead_units/<layer>` the number of units whose activation is one and the same finite number at every
              position of every input: 0 for a ReLU that never fires, and any other number as well.
              `nap/nonfinite_units/<layer>` the number of units whose response, the mean activation over positions, to at
              least one input is NaN or infinite; absent where there is none. Separability is NaN there
    """
    statistics = snapshot.statistics
    arrays: dict[str, Array] = {"groups": np.array(statistics.names), "counts": statistics.counts}
    scalars: dict[str, float] = {}
    earlier: Mapping[str, Array] = previous.arrays if previous else {}
    for layer in snapshot.layer_names:
        profile = statistics.profile(layer)
        first = np.asarray(earlier.get(f"first/{layer}", profile), np.float64)
        arrays |= {f"profile/{layer}": profile, f"first/{layer}": first, f"scale/{layer}": np.array(scale(statistics, layer))}
        before = earlier.get(f"profile/{layer}")
        if before is not None:
            scalars[f"nap/drift/{layer}"] = drift(profile, np.asarray(before, np.float64))
            scalars[f"nap/drift_from_start/{layer}"] = drift(profile, first)
        scalars[f"nap/separability/{layer}"] = separability(statistics, layer)
        scalars[f"nap/dead_units/{layer}"] = float(statistics.constant(layer).sum())
        if broken := int((~statistics.finite(layer)).sum()):
            scalars[f"nap/nonfinite_units/{layer}"] = broken
    return Findings(arrays, scalars)
