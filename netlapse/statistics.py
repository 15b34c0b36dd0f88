"""What one forward pass of the probe leaves behind: sums per group, mergeable, independent of the number of inputs."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

import numpy as np

from netlapse.probe import panel_of
from netlapse.types import Float32, Float64, Grouping, Int64, Network, ProbeSet, Responses


@dataclass(frozen=True, eq=False)
class GroupStatistics:
    """Sufficient statistics of each unit's response (its mean activation over positions) per group of inputs.

    names    (g,) the groups' names           counts   (g,) inputs in each
    sums     layer -> (g, u) of responses     squares  layer -> (g, u) of squared responses, both float64
    low, high   layer -> (u,) over all inputs and positions
    active   layer -> (g, u) inputs that activate the unit: its activation is above 0 at some position
    peaks    layer -> (g, u) the highest activation at any position of any input; -inf in a group without inputs
    top, top_values   layer -> (u, m) the m inputs with the highest activation of the unit, as indices into the probe, the
             highest first and of equal ones the first; and that activation. -1 and -inf where there are fewer inputs
    broken   layer -> () the first input with a response that is NaN or infinite; -1 where there is none
    groups   (n,) each input's group          logits   (n, k), None where the network has none
    seconds  what the pass took
    kept     layer -> (m, u) the responses to the inputs `kept_inputs`: a sample of what sums cannot tell, whatever the probe's size
    """

    names: tuple[str, ...]
    counts: Int64
    sums: Mapping[str, Float64]
    squares: Mapping[str, Float64]
    low: Mapping[str, Float32]
    high: Mapping[str, Float32]
    active: Mapping[str, Int64]
    peaks: Mapping[str, Float32]
    top: Mapping[str, Int64]
    top_values: Mapping[str, Float32]
    broken: Mapping[str, Int64]
    groups: Int64
    logits: Float32 | None
    seconds: float = 0.0
    kept: Mapping[str, Float32] = field(default_factory=dict)

    def profile(self, layer: str) -> Float64:
        """(g, u) the mean response of each unit over each group's inputs; NaN rows for groups without inputs."""
        counts = np.where(self.counts > 0, self.counts, np.nan)[:, None]
        return np.asarray(self.sums[layer] / counts, np.float64)

    @np.errstate(invalid="ignore")
    def variance(self, layer: str) -> Float64:
        """(g, u) the sample variance of the responses within each group; NaN for groups of fewer than two inputs."""
        counts = np.where(self.counts > 1, self.counts, np.nan)[:, None]
        squares = self.squares[layer]
        within = squares - self.sums[layer] ** 2 / counts
        # What is left of equal responses is the rounding of n terms.
        within = np.where(within <= counts * np.finfo(np.float64).eps * squares, np.where(np.isnan(within), np.nan, 0.0), within)
        return np.asarray(within / (counts - 1), np.float64)

    def standard_error(self, layer: str) -> Float64:
        """(g, u) of the profile: the standard deviation of the responses over the root of their number; NaN as `variance`."""
        return np.asarray(np.sqrt(self.variance(layer) / np.maximum(self.counts, 1)[:, None]), np.float64)

    def sparsity(self, layer: str) -> Float64:
        """(g, u) the share of each group's inputs that activate the unit; NaN rows for groups without inputs."""
        counts = np.where(self.counts > 0, self.counts, np.nan)[:, None]
        return np.asarray(self.active[layer] / counts, np.float64)

    def highest(self, layer: str) -> Float64:
        """(g, u) the highest activation at any position of any input of each group; NaN rows for groups without inputs."""
        return np.where(self.counts[:, None] > 0, self.peaks[layer], np.nan).astype(np.float64)

    def constant(self, layer: str) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """(u,) whether a unit's activation was one and the same finite number at every position of every input: a ReLU that never fires, for one."""
        return np.asarray((self.low[layer] == self.high[layer]) & np.isfinite(self.low[layer]))

    def finite(self, layer: str) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """(u,) whether a unit's response was a number, neither NaN nor infinite, to every input."""
        return np.asarray(np.isfinite(self.sums[layer]).all(axis=0))

    # Decorated where a diverged network's infinities of both signs, which add up to NaN, are no accident.
    @np.errstate(invalid="ignore")
    def sums_of_squares(self, layer: str) -> tuple[Float64, Float64]:
        """(u,) total and between-group sums of squared deviations of the responses from their mean over all inputs.

        NaN for units that are not `finite`.
        """
        n, total = self.counts.sum(), self.sums[layer].sum(axis=0)
        filled = self.counts > 0
        squares = self.squares[layer].sum(axis=0)
        overall = squares - total**2 / n
        between = (self.sums[layer][filled] ** 2 / self.counts[filled, None]).sum(axis=0) - total**2 / n
        # A unit that responds alike to every input deviates by nothing; what the differences leave of it is the rounding of n terms.
        overall = np.where(overall <= n * np.finfo(np.float64).eps * squares, 0.0, overall)
        return overall, np.clip(between, 0.0, overall)

    @np.errstate(invalid="ignore")
    def merge(self, other: GroupStatistics) -> GroupStatistics:
        """The statistics of both parts of a probe; raises ValueError where they are not of the same groups and layers."""
        if self.names != other.names or list(self.sums) != list(other.sums):
            raise ValueError(f"cannot merge statistics of groups {self.names} and {other.names}, layers {list(self.sums)} and {list(other.sums)}")
        logits = None if self.logits is None or other.logits is None else np.concatenate([self.logits, other.logits])
        n = len(self.groups)
        tops = {layer: _top_of_both(v, self.top_values[layer], other.top[layer], other.top_values[layer], n) for layer, v in self.top.items()}
        return GroupStatistics(
            self.names,
            self.counts + other.counts,
            {layer: s + other.sums[layer] for layer, s in self.sums.items()},
            {layer: s + other.squares[layer] for layer, s in self.squares.items()},
            {layer: np.minimum(v, other.low[layer]) for layer, v in self.low.items()},
            {layer: np.maximum(v, other.high[layer]) for layer, v in self.high.items()},
            {layer: v + other.active[layer] for layer, v in self.active.items()},
            {layer: np.maximum(v, other.peaks[layer]) for layer, v in self.peaks.items()},
            {layer: one[0] for layer, one in tops.items()},
            {layer: one[1] for layer, one in tops.items()},
            {layer: v if v >= 0 else np.where(other.broken[layer] >= 0, other.broken[layer] + n, -1) for layer, v in self.broken.items()},
            np.concatenate([self.groups, other.groups]),
            logits,
            self.seconds + other.seconds,
            {layer: np.concatenate([rows, other.kept[layer]]) for layer, rows in self.kept.items()},
        )


@dataclass(frozen=True, eq=False)
class Subtotal:
    """The statistics of the batches from `index * 2**level` up to `(index + 1) * 2**level`, or to the last one."""

    level: int
    index: int
    statistics: GroupStatistics


def group_statistics(network: Network, probe: ProbeSet, grouping: Grouping, layers: Sequence[str], *, batch_size: int = 64) -> GroupStatistics:
    """Show the network the probe once, batch by batch.

    Responses are float32 per batch, sums float64 across batches. Raises ValueError where a grouping that reads logits
    meets a network without (n, k) logits, or names other groups for another part of the probe.
    """
    started = time.perf_counter()
    subtotals = share_of_statistics(network, probe, grouping, layers, batch_size=batch_size)
    return replace(total(subtotals), seconds=time.perf_counter() - started)


def share_of_statistics(
    network: Network, probe: ProbeSet, grouping: Grouping, layers: Sequence[str], *, batch_size: int = 64, share: int = 0, shares: int = 1
) -> list[Subtotal]:
    """What one of several processes adds: as `group_statistics`, of the `share`-th of `shares` blocks of the batches.

    The batches are the same however many shares there are, so a probe of fewer batches leaves some shares empty. Of b
    batches no more than 2 log2(b) subtotals are kept. Raises what `group_statistics` does.
    """
    fixed = None if getattr(grouping, "reads_logits", True) else _checked(grouping(probe, None), len(probe))
    names = fixed[1] if fixed else None
    subtotals: list[Subtotal] = []
    kept = kept_inputs(probe.labels)
    n_batches = -(-len(probe) // batch_size)
    with network.undisturbed():
        for index in range(n_batches * share // shares, n_batches * (share + 1) // shares):
            start, stop = index * batch_size, min((index + 1) * batch_size, len(probe))
            responses = network.responses(probe.inputs[start:stop], layers)
            if fixed is not None:
                groups, names = fixed[0][start:stop], fixed[1]
            else:
                logits = responses.outputs if responses.outputs is not None else network.outputs(probe.inputs[start:stop])
                groups, found = _checked(grouping(probe.take(np.arange(start, stop)), logits), stop - start)
                if names is not None and found != names:
                    raise ValueError(
                        f"grouping {_name(grouping)} named {len(found)} groups for one batch and {len(names)} for another; "
                        "name the same ones for any inputs"
                    )
                names = found
            if not subtotals:
                _check_size(len(names), {layer: responses.mean[layer].shape[1] for layer in layers}, _name(grouping))
            batch = _of_batch(responses, groups, names, layers, kept[(kept >= start) & (kept < stop)] - start)
            _add(subtotals, Subtotal(0, index, batch))
    return subtotals


def total(subtotals: Iterable[Subtotal]) -> GroupStatistics:
    """The statistics of all batches, from the subtotals of all shares in their order.

    Bit for bit the same however the batches were dealt out: they are always added in pairs, the pairs in pairs, and so on.
    Raises ValueError where the shares are not of the same groups and layers.
    """
    joined: list[Subtotal] = []
    for subtotal in subtotals:
        _add(joined, subtotal)
    *earlier, last = (subtotal.statistics for subtotal in joined)
    return reduce(lambda later, before: before.merge(later), reversed(earlier), last)


def _add(subtotals: list[Subtotal], new: Subtotal) -> None:
    """Append it, once it is joined with all those before it that it completes a pair with."""
    while new.index % 2 and subtotals and (subtotals[-1].level, subtotals[-1].index) == (new.level, new.index - 1):
        new = Subtotal(new.level + 1, new.index // 2, subtotals.pop().statistics.merge(new.statistics))
    subtotals.append(new)


LARGEST = 2 * 2**30
"""Bytes that one sum for each group and unit may take; there are about four of them, and one more set for each doubling of the batches."""


def _check_size(groups: int, units: Mapping[str, int], grouping: str) -> None:
    size = 8 * groups * sum(units.values())
    if size > LARGEST:
        raise ValueError(
            f"grouping {grouping} makes {groups:,} groups, and {len(units)} layers have {sum(units.values()):,} units: {groups:,} x "
            f"{sum(units.values()):,} x 8 bytes = {size / 2**30:,.1f} GiB, more than {LARGEST / 2**30:.0f}; group by less, or observe fewer layers"
        )


TOP = 4
"""How many of the inputs that activate a unit most are remembered."""

KEPT = 256
"""How many inputs the responses to which are kept, at most."""


def kept_inputs(labels: Int64) -> Int64:
    """(m,) the inputs of a probe with these labels (n,) to which the responses are kept, ascending: `KEPT` of them, or all; see `panel_of`."""
    return np.sort(panel_of(labels, KEPT))


@np.errstate(invalid="ignore")
def _of_batch(responses: Responses, groups: Int64, names: tuple[str, ...], layers: Sequence[str], kept: Int64) -> GroupStatistics:
    # Rows sorted by group are added up in runs: the cost does not grow with the number of groups.
    order = np.argsort(groups, kind="stable")
    present, starts = np.unique(groups[order], return_index=True)
    g = len(names)
    parts = ("sums", "squares", "low", "high", "active", "peaks", "top", "top_values", "broken", "kept")
    found: dict[str, dict[str, Any]] = {part: {} for part in parts}
    for layer in layers:
        mean, highest = responses.mean[layer][order].astype(np.float64), responses.high[layer]
        units = mean.shape[1]
        for part, rows in (("sums", mean), ("squares", mean**2), ("active", (highest[order] > 0).astype(np.int64))):
            found[part][layer] = np.zeros((g, units), rows.dtype)
            found[part][layer][present] = np.add.reduceat(rows, starts, axis=0)
        found["peaks"][layer] = np.full((g, units), -np.inf, np.float32)
        found["peaks"][layer][present] = np.maximum.reduceat(highest[order], starts, axis=0)
        found["low"][layer], found["high"][layer] = responses.low[layer].min(axis=0), highest.max(axis=0)
        found["top"][layer], found["top_values"][layer] = _top(np.arange(len(groups)), highest)
        found["kept"][layer] = responses.mean[layer][kept]
        finite = np.isfinite(found["sums"][layer]).all()
        found["broken"][layer] = np.asarray(-1 if finite else np.flatnonzero(~np.isfinite(responses.mean[layer]).all(axis=1))[0])
    counts = np.bincount(groups, minlength=g).astype(np.int64)
    return GroupStatistics(names, counts, groups=groups, logits=responses.outputs, seconds=0.0, **found)


def _top(inputs: Int64, values: Float32) -> tuple[Int64, Float32]:
    """The TOP of the candidates' values (c, u) for each unit, (u, TOP), with the inputs (c,) or (c, u) they belong to.

    The largest again and again, as few are wanted of many: several times faster than sorting. NaN is largest.
    """
    values, inputs = values.copy(), np.broadcast_to(inputs.reshape(len(values), -1), values.shape)
    units = np.arange(values.shape[1])
    top, top_values = np.full((len(units), TOP), -1), np.full((len(units), TOP), -np.inf, np.float32)
    for place in range(min(TOP, len(values))):
        row = values.argmax(axis=0)
        top[:, place], top_values[:, place] = inputs[row, units], values[row, units]
        values[row, units] = -np.inf
    top[top_values == -np.inf] = -1
    return top, top_values


def _top_of_both(first: Int64, first_values: Float32, second: Int64, second_values: Float32, n: int) -> tuple[Int64, Float32]:
    """Of both parts' top inputs (u, TOP) those of the whole, where the second part's inputs come after the first's n."""
    inputs = np.concatenate([first.T, np.where(second < 0, -1, second + n).T])
    return _top(inputs, np.concatenate([first_values.T, second_values.T]))


def _checked(found: tuple[Int64, tuple[str, ...]], n: int) -> tuple[Int64, tuple[str, ...]]:
    groups, names = np.asarray(found[0]), tuple(found[1])
    if groups.shape != (n,) or not np.issubdtype(groups.dtype, np.integer) or groups.min() < 0 or groups.max() >= len(names):
        raise ValueError(
            f"a grouping gave groups of shape {groups.shape}, {groups.dtype}, for {n} inputs and {len(names)} names; "
            f"expected ({n},) integers from 0 to {len(names) - 1}"
        )
    return groups.astype(np.int64), names


def _name(grouping: Grouping) -> str:
    return str(getattr(grouping, "name", getattr(grouping, "__name__", type(grouping).__name__)))
