"""Which of the things that were varied in a sweep did it: each parameter beside each metric, ranked, with chance beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from netlapse.summaries.runs import parameters, runs_of
from netlapse.sweep import Sweep, as_csv
from netlapse.types import Float64, Int64, Tracker

PERMUTATIONS = 999
ETA, SPEARMAN = "eta squared", "Spearman"
_LEFT_OUT = ("cost/",)
"""What the names of metrics begin with that are of the machine and not of the network."""
_SHOWN = 5


@dataclass(frozen=True)
class Association:
    """How much of a metric goes with a parameter.

    measure   "eta squared": the share of the variance over runs that lies between the parameter's values, 0 to 1. "Spearman": the absolute rank
              correlation, for numbers of three values at least
    strength  NaN where it is not defined: for fewer than two values, a metric that is the same in all runs, and where no value has two runs
    p         how often chance finds anything as strong in the whole table; NaN where the strength is
    runs      that have the metric
    """

    parameter: str
    metric: str
    measure: str
    strength: float
    p: float
    runs: int


def associations(tracker: Tracker, sweep: Sweep) -> None:
    """Puts the ranked table `parameters` (and `parameters.csv`) of the finished runs into the parent, and prints its first lines."""
    runs = [run for run in runs_of(sweep) if run.finished]
    last = [{name: float(series.values[-1]) for name, series in run.curves.items() if _inside(name)} for run in runs]
    metrics = list(dict.fromkeys(name for each in last for name in each))
    values = np.array([[each.get(name, np.nan) for name in metrics] for each in last]).reshape(len(runs), len(metrics))
    given = {key: [run.given.get(key, "") for run in runs] for key in parameters(runs)}
    if not metrics or not given:
        return
    found = ranked(given, dict(zip(metrics, values.T)))
    columns = ("parameter", "metric", "measure", "strength", "p", "runs")
    table = {name: [None if (value := getattr(one, name)) != value else value for one in found] for name in columns}
    tracker.table("parameters", table)
    tracker.document("parameters.csv", as_csv(table))
    print(report(found))


def ranked(
    given: Mapping[str, Sequence[str]], metrics: Mapping[str, Float64], *, permutations: int = PERMUTATIONS, seed: int = 0
) -> list[Association]:
    """Each parameter (its value in each of n runs) with each metric (n,), NaN where a run has none: the surest first, then the strongest.

    A parameter whose values are three or more numbers is a scale, but for seeds; any other is a set of names. p is of the whole table
    (Westfall and Young, 1993, "Resampling-based multiple testing", single-step maxT): in each of the permutations the runs' parameters are given
    to other runs, and the largest strength of the table counts, in standard deviations of what chance makes of it, so that a parameter of many
    values, which explains much by chance, hides no other.

    Raises ValueError for parameters and metrics of other numbers of runs.
    """
    sizes = {len(words) for words in given.values()} | {len(values) for values in metrics.values()}
    if len(sizes) > 1:
        raise ValueError(f"ranked was given parameters and metrics of {sorted(sizes)} runs; expected one value for each of the same runs")
    keys = np.random.default_rng(seed).random((permutations + 1, max(sizes, default=0)))
    keys[0] = np.arange(keys.shape[1])  # the order there is, which is one of those that chance makes
    found: list[tuple[str, str, str, int, Float64]] = []
    for having, names in _by_runs(metrics).items():
        place = np.array(having, np.int64)
        orders = np.argsort(keys[:, place], axis=1)
        columns = np.stack([metrics[name][place] for name in names], axis=1)
        for parameter, words in given.items():
            measure, strengths = _strengths([words[n] for n in having], _is_seed(parameter), columns, orders)
            found += [(parameter, name, measure, len(having), strengths[:, n]) for n, name in enumerate(names)]
    p = _corrected(np.array([strengths for *_, strengths in found]))
    all_ = [Association(parameter, name, measure, float(s[0]), float(at), n) for (parameter, name, measure, n, s), at in zip(found, p)]
    return sorted(all_, key=lambda one: (np.isnan(one.p), one.p, -one.strength if one.strength == one.strength else 0.0))


def eta_squared(labels: Int64, values: Float64) -> float:
    """The share of the variance of values (n,) that lies between the groups of labels (n,): between groups over total sum of squares.

    NaN where there are fewer than two groups, where none has two members, and where the values are all the same.
    """
    return float(_eta_squared(labels, values[:, None], np.arange(len(values))[None])[0, 0])


def report(found: Sequence[Association]) -> str:
    """The first lines of the table, for a person."""
    shown = [one for one in found if one.strength == one.strength][:_SHOWN]
    if not shown:
        return "\nNo parameter has two values with several runs, or three that are numbers: nothing is told of what did it."
    lines = [f"  {one.parameter}: {one.metric}: {one.measure} {one.strength:.2f}, p = {one.p:.3f} ({one.runs} runs)" for one in shown]
    return "\n".join(["\nWhat goes with what was varied, the surest first (p is corrected for the whole table):", *lines])


def _inside(name: str) -> bool:
    return not name.startswith(_LEFT_OUT) and not name.rpartition("/")[0].endswith("_null")


def _is_seed(parameter: str) -> bool:
    return parameter.lstrip("+").rpartition(".")[2] == "seed"


def _by_runs(metrics: Mapping[str, Float64]) -> dict[tuple[int, ...], list[str]]:
    """The metrics by the runs that have them."""
    having: dict[tuple[int, ...], list[str]] = {}
    for name, values in metrics.items():
        having.setdefault(tuple(np.flatnonzero(np.isfinite(values)).tolist()), []).append(name)
    return having


def _strengths(words: Sequence[str], seed: bool, columns: Float64, orders: Int64) -> tuple[str, Float64]:
    """The measure, and the strengths (b, m) of metrics (n, m) with a parameter whose values (n,) are given to runs in b orders."""
    numbers = None if seed else _numbers(words)
    if numbers is not None and len(set(numbers.tolist())) > 2:
        return SPEARMAN, np.abs(_correlations(rankdata(numbers), rankdata(columns, axis=0), orders))
    return ETA, _eta_squared(np.unique(words, return_inverse=True)[1] if words else np.zeros(0, np.int64), columns, orders)


def _numbers(words: Sequence[str]) -> Float64 | None:
    try:
        numbers = np.array([float(word) for word in words])
    except ValueError:
        return None
    return numbers if np.isfinite(numbers).all() else None


def _correlations(scale: Float64, columns: Float64, orders: Int64) -> Float64:
    """(b, m) the correlations of columns (n, m) with a scale (n,) in other orders; NaN for a column that does not vary."""
    away, moved = scale - scale.mean(), columns - columns.mean(axis=0)
    length = np.linalg.norm(away) * np.linalg.norm(moved, axis=0)
    return np.asarray((away[orders] @ moved) / np.where(length > 0, length, np.nan))


def _eta_squared(labels: Int64, columns: Float64, orders: Int64) -> Float64:
    """(b, m) the shares of the variances of columns (n, m) that lie between groups, of labels (n,) in other orders."""
    counts = np.bincount(labels)
    nothing = np.full((len(orders), columns.shape[1]), np.nan)
    if len(counts) < 2 or counts.max() < 2:
        return nothing
    away = columns - columns.mean(axis=0)
    total = np.square(away).sum(axis=0)
    varies = np.ptp(columns, axis=0) > 0
    groups = np.eye(len(counts))[labels]
    for row, order in enumerate(orders):
        between = (np.square(groups[order].T @ away) / counts[:, None]).sum(axis=0)
        nothing[row, varies] = between[varies] / total[varies]
    return nothing


def _corrected(strengths: Float64) -> Float64:
    """(t,) the p-values of a table's strengths (t, b), of which the first are those there are; NaN where they are not defined."""
    p = np.full(len(strengths), np.nan)
    if not strengths.size or not (defined := np.isfinite(strengths[:, 0])).any():
        return p
    known = strengths[defined]
    spread = known.std(axis=1, keepdims=True)
    # What is the same in every order tells of nothing: p is 1.
    standard = np.where(spread > 1e-9, (known - known.mean(axis=1, keepdims=True)) / np.where(spread > 1e-9, spread, 1), 0.0)
    largest = standard.max(axis=0)
    p[defined] = (largest[None] >= standard[:, :1] - 1e-9).mean(axis=1)
    return p
