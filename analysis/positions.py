"""Profiles of every position: what each unit of a convolution does where, for each group, as the images lie or aligned by gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from netlapse.analysis.nap import aligned_profiles, check_size, checked_groups, contrast, drift
from netlapse.probe import by_label
from netlapse.render.colours import BLUE_WHITE_RED
from netlapse.render.maps import maps_row
from netlapse.types import Array, Findings, Float32, Float64, Int64, Network, Snapshot, UInt8, checked_by

Align = Literal["predicted", "label"] | int | None
_CLASS = {"predicted": "the predicted class", "label": "the label"}
SIDE = 64
"""Pixels that a map of positions is at least wide."""


@dataclass(frozen=True, eq=False)
class PositionStatistics:
    """Of one layer, (g, *s, u) each, float64, over each group's inputs at each position; NaN for groups without inputs.

    variance is the sample variance, NaN for groups of one input; sparsity is the share of inputs whose activation is above 0
    """

    mean: Float64
    variance: Float64
    sparsity: Float64
    highest: Float64


@np.errstate(invalid="ignore")  # a diverged network: infinity minus infinity is NaN, which is what it is
def position_statistics(
    network: Network, inputs: Array, groups: Int64, layers: Sequence[str], *, batch_size: int = 64
) -> dict[str, PositionStatistics]:
    """layer -> what its units do at every position, group by group; one forward, nothing kept but sums.

    inputs (n, ...) channels-last, groups (n,) integers. Deviations are summed about the first batch's mean, so that a small
    variance beside a large mean survives. Raises ValueError as `netlapse.analysis.nap.activation_profiles`.
    """
    groups = checked_groups(groups, len(inputs))
    n_groups = int(groups.max()) + 1
    check_size(network, inputs, n_groups, layers, "keep")
    origins: dict[str, Float32] = {}
    sums: dict[str, Float64] = {}
    squares: dict[str, Float64] = {}
    active: dict[str, Float64] = {}
    highest: dict[str, Float64] = {}
    with network.undisturbed():
        for start in range(0, len(inputs), batch_size):
            batch = slice(start, start + batch_size)
            order = np.argsort(groups[batch], kind="stable")
            present, starts = np.unique(groups[batch][order], return_index=True)
            for layer, activations in network.activations(inputs[batch], layers).items():
                rows = activations[order]
                origin = origins.setdefault(layer, rows.mean(axis=0))
                apart = rows.astype(np.float64) - origin
                for total, added in ((sums, apart), (squares, apart**2), (active, (rows > 0).astype(np.float64))):
                    total.setdefault(layer, np.zeros((n_groups, *rows.shape[1:])))[present] += np.add.reduceat(added, starts, axis=0)
                peaks = highest.setdefault(layer, np.full((n_groups, *rows.shape[1:]), -np.inf))
                peaks[present] = np.maximum(peaks[present], np.maximum.reduceat(rows, starts, axis=0))
    sizes = np.bincount(groups, minlength=n_groups).astype(np.float64)
    found = {}
    for layer in layers:
        counts = np.where(sizes > 0, sizes, np.nan).reshape(-1, *[1] * (sums[layer].ndim - 1))
        away = sums[layer] / counts
        within = np.maximum(squares[layer] - counts * away**2, 0) / np.where(counts > 1, counts - 1, np.nan)
        found[layer] = PositionStatistics(away + origins[layer], within, active[layer] / counts, np.where(np.isnan(counts), np.nan, highest[layer]))
    return found


def _check(snapshot: Snapshot, *, align: Align, **options: object) -> None:
    if align is not None and align not in ("predicted", "label") and not isinstance(align, int):
        raise ValueError(f"positions was given align={align!r}; expected null, 'predicted', 'label' or the number of a class")
    groups = (snapshot.grouping or by_label)(snapshot.probe, None)[0] if not getattr(snapshot.grouping, "reads_logits", False) else None
    if groups is not None:
        check_size(snapshot.network, snapshot.probe.inputs, int(groups.max()) + 1, snapshot.layer_names, "keep")


@checked_by(_check)
def positions(snapshot: Snapshot, previous: Findings | None, *, align: Align = None, limit: float = 2.0, colours: str = BLUE_WHITE_RED) -> Findings:
    """What each unit does at every position, for each group of inputs.

    align    None: where the images have it; otherwise each input's activations are moved by `netlapse.analysis.nap.align`, so
             that what the gradient of the class's logit points at comes to the centre: "predicted", "label" or one class
    limit    of the colours, in standard deviations of the layer over inputs and positions

    arrays   `groups` (g,), `counts` (g,), `profile/<layer>` (g, *s, u) float32; where nothing is moved also `variance/<layer>`,
             `sparsity/<layer>`, `highest/<layer>`, see `PositionStatistics`
    scalars  `positions/drift/<layer>` from the checkpoint before, see `netlapse.analysis.nap.drift`
    images   `positions/<layer>`, for layers with an image's axes: each group's contrast, the mean over units, at every position

    A forward of its own (aligned: and a backward). Raises ValueError where the profiles would not fit, see `check_size`.
    """
    statistics, network, probe = snapshot.statistics, snapshot.network, snapshot.probe
    names, layers, n_groups = statistics.names, snapshot.layer_names, len(statistics.names)
    # A group that comes last and is empty has no input by which the passes below would know of it.
    padded = partial(_padded, n_groups=n_groups)
    arrays: dict[str, Array] = {"groups": np.array(names), "counts": statistics.counts}
    if align is None:
        found = position_statistics(network, probe.inputs, statistics.groups, layers, batch_size=snapshot.batch_size)
        for layer, of_layer in found.items():
            for name, values in (("profile", of_layer.mean), ("variance", of_layer.variance)):
                arrays[f"{name}/{layer}"] = padded(values)
            arrays |= {f"sparsity/{layer}": padded(of_layer.sparsity), f"highest/{layer}": padded(of_layer.highest)}
    else:
        moved = aligned_profiles(network, probe.inputs, statistics.groups, layers, target=align, labels=probe.labels, batch_size=snapshot.batch_size)
        arrays |= {f"profile/{layer}": padded(values) for layer, values in moved.items()}
    scalars: dict[str, float] = {}
    images: dict[str, UInt8] = {}
    earlier: Mapping[str, Array] = previous.arrays if previous else {}
    for layer in layers:
        profile = np.asarray(arrays[f"profile/{layer}"], np.float64)
        before = np.asarray(earlier.get(f"profile/{layer}", np.empty(0)), np.float64)
        if before.shape == profile.shape:
            scalars[f"positions/drift/{layer}"] = drift(profile.reshape(n_groups, -1), before.reshape(n_groups, -1))
        if profile.ndim == 4 and profile.shape[1] * profile.shape[2] > 1:
            title = f"{layer} \u00b7 {profile.shape[1]} x {profile.shape[2]} positions \u00b7 step {snapshot.step}"
            if align is not None:
                title += f", aligned by the gradient of {_CLASS.get(str(align), f'class {align}')}"
            maps = _squares(contrast(profile).mean(axis=-1))
            size = float(np.nanstd(maps))
            shown = maps / size if size > 0 else maps
            images[f"positions/{layer}"] = maps_row(
                shown, names, statistics.counts.tolist(), limit, title, "standard deviations of these maps, mean contrast over units", colours
            )
    return Findings(arrays, scalars, images)


def _padded(values: Float64, n_groups: int) -> Float32:
    with np.errstate(over="ignore"):  # a square may be beyond float32 where the activation is not
        rows = values.astype(np.float32)
    return np.concatenate([rows, np.full((n_groups - len(rows), *rows.shape[1:]), np.nan, np.float32)])


def _squares(maps: Float64) -> Float64:
    """Maps (g, h, w) enlarged by whole factors, and with NaN around where they are no squares."""
    factor = max(1, -(-SIDE // max(maps.shape[1:])))
    large = maps.repeat(factor, axis=1).repeat(factor, axis=2)
    side = max(large.shape[1:])
    square = np.full((len(maps), side, side), np.nan)
    top, left = ((side - size) // 2 for size in large.shape[1:])
    square[:, top : top + large.shape[1], left : left + large.shape[2]] = large
    return square
