"""The runs of a study in one table, and in one figure per measure; `netlapse.tracking.study` finds them.

A method is what the runs were told apart by on the command line, beside their seeds: `layout=pca` and `layout=flas`, say. Its runs are
its repeats. Beside each number stands what a random layout of the same units gives, where the runs recorded that.
"""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from netlapse.analysis.topomap import MEASURES
from netlapse.figures import save, violins
from netlapse.tracking.names import mlflow_key
from netlapse.types import Float64

SAME = frozenset({"name", "strict", "trainer.progress"})
"""What may differ between the repeats of a method: it changes no number."""
COLUMNS = 4
"""Measures beside each other in a printed table."""


@dataclass(frozen=True, eq=False)
class Repeat:
    """One run of a study.

    run      its id, or the folder of its record
    words    what was given on the command line, as key=value; None where that was not recorded
    numbers  name of a metric -> (step, value)
    """

    run: str
    words: tuple[str, ...] | None
    numbers: Mapping[str, tuple[int, float]]


@dataclass(frozen=True, eq=False)
class Cell:
    """One measure of one layer, over the repeats of a method.

    values   (n,) where it is defined     null  (m,) the same of a random layout; none where that was not recorded
    repeats  how many runs there are of the method
    """

    method: str
    layer: str
    measure: str
    values: Float64
    null: Float64
    repeats: int

    @property
    def mean(self) -> float:
        return _mean(self.values)

    @property
    def deviation(self) -> float:
        """The standard deviation of the runs, unbiased (n - 1); NaN for fewer than two."""
        return _deviation(self.values)

    def __str__(self) -> str:
        if not len(self.values):
            return "undefined"
        spread = f" \u00b1 {self.deviation:.3f}" if len(self.values) > 1 else ""
        return f"{self.mean:.3f}{spread}" + (f" ({_mean(self.null):.3f})" if len(self.null) else "")


def distinct(repeats: Sequence[Repeat]) -> list[Repeat]:
    """The repeats without those that were run again later with the same words, seeds among them: the last of each counts."""
    last = {repeat.run if repeat.words is None else frozenset(_settings(repeat.words).items()): repeat for repeat in repeats}
    kept = {id(repeat) for repeat in last.values()}
    return [repeat for repeat in repeats if id(repeat) in kept]


def methods(repeats: Sequence[Repeat]) -> list[str]:
    """What each repeat is of: the words, but for seeds, that not all repeats have in common; without its key where there is one key.

    A repeat whose words were not recorded is a method of its own.
    """
    settings = [
        {"run": repeat.run} if repeat.words is None else {key: value for key, value in _settings(repeat.words).items() if not _is_seed(key)}
        for repeat in repeats
    ]
    keys = dict.fromkeys(key for each in settings for key in each)
    differing = [key for key in keys if len({each.get(key) for each in settings}) > 1]
    if len(differing) == 1:
        return [each.get(differing[0], "as configured") for each in settings]
    return [" ".join(f"{key}={each[key]}" for key in differing if key in each) or "as configured" for each in settings]


def summarised(repeats: Sequence[Repeat], measures: Sequence[str] = MEASURES, layers: Sequence[str] | None = None) -> list[Cell]:
    """Every measure of every layer of every method, in the order in which methods and layers first appear.

    measures  those of `netlapse.analysis.topomap`, or what other metrics' names begin with, as nap/separability
    layers    None: all that have one of the measures

    Raises ValueError, with what there is, for a measure that no run has, and for layers without any.
    """
    if missing := [measure for measure in measures if not _layers(repeats, [measure])]:
        there = sorted({name.rpartition("/")[0] for repeat in repeats for name in repeat.numbers} - {""})
        raise ValueError(f"none of the {len(repeats)} runs has the measures {missing}; they have {there or 'none'}")
    known = _layers(repeats, measures)
    if layers is not None and (unknown := [layer for layer in layers if layer not in known]):
        raise ValueError(f"none of the {len(repeats)} runs has layers {unknown}; they have {known}")
    named = methods(repeats)
    cells = []
    for layer in known if layers is None else layers:
        for method in dict.fromkeys(named):
            of = [repeat for repeat, name in zip(repeats, named, strict=True) if name == method]
            for measure in measures:
                cells.append(Cell(method, layer, measure, _values(of, measure, layer), _values(of, f"{measure}_null", layer), len(of)))
    return cells


def table(cells: Sequence[Cell]) -> str:
    """The cells as text, a block per layer and four measures: mean \u00b1 standard deviation, in brackets a random layout's mean."""
    blocks = []
    for layer in dict.fromkeys(cell.layer for cell in cells):
        of = [cell for cell in cells if cell.layer == layer]
        names = list(dict.fromkeys(cell.measure for cell in of))
        for start in range(0, len(names), COLUMNS):
            shown = names[start : start + COLUMNS]
            rows = [[layer, "n", *shown]]
            for method in dict.fromkeys(cell.method for cell in of):
                found = {cell.measure: cell for cell in of if cell.method == method}
                numbers = sorted({len(found[measure].values) for measure in shown})
                rows.append([method, "-".join(map(str, numbers[:: max(1, len(numbers) - 1)])), *(str(found[measure]) for measure in shown)])
            blocks.append(_aligned(rows))
    return "\n\n".join(blocks)


def as_csv(cells: Sequence[Cell]) -> str:
    """The cells as comma-separated values, one in a line; what is undefined is empty."""
    header = ("method", "layer", "measure", "mean", "standard_deviation", "n", "repeats", "null_mean", "null_standard_deviation")
    rows = [
        (c.method, c.layer, c.measure, c.mean, c.deviation, len(c.values), c.repeats, _mean(c.null), _deviation(c.null)) for c in cells
    ]  # fmt: skip
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerows([header, *([("" if isinstance(value, float) and np.isnan(value) else value) for value in row] for row in rows)])
    return file.getvalue()


def runs_csv(repeats: Sequence[Repeat], measures: Sequence[str] = MEASURES) -> str:
    """The measures of every run, and those of a random layout, as comma-separated values for statistics of one's own."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("run", "method", "words", "metric", "step", "value"))
    begins = tuple(metric(measure) for measure in measures)
    for repeat, method in zip(repeats, methods(repeats), strict=True):
        words = shlex.join(repeat.words or ())
        writer.writerows(
            (repeat.run, method, words, name, step, value) for name, (step, value) in sorted(repeat.numbers.items()) if name.startswith(begins)
        )
    return file.getvalue()


def figures(cells: Sequence[Cell], folder: Path) -> list[Path]:
    """A violin figure of each measure and layer, <measure>_<layer>.pdf and .png: methods from the top, last a random layout.

    A method whose measure is undefined in every run is not drawn; a figure of none is not made.
    """
    drawn = []
    for layer, measure in dict.fromkeys((cell.layer, cell.measure) for cell in cells):
        of = [cell for cell in cells if (cell.layer, cell.measure) == (layer, measure)]
        values = {cell.method: cell.values for cell in of if len(cell.values)}
        null = np.concatenate([cell.null for cell in of])
        if not values:
            continue
        if len(null):
            values["(random layout)"] = null
        sheet = violins(values, label=measure.replace("_", " "), title=layer)
        stem = mlflow_key(f"{measure}_{layer}".replace("/", ":"))  # a layer's name may hold slashes
        drawn += [save(sheet, folder / f"{stem}.{kind}") for kind in ("pdf", "png")]
    return drawn


def _settings(words: Iterable[str]) -> dict[str, str]:
    """key -> value of the words of a command line; of a key given twice the last counts, as with Hydra."""
    pairs = (word.partition("=")[::2] for word in words)
    return {key: value for key, value in pairs if key not in SAME}


def _is_seed(key: str) -> bool:
    return key.rpartition(".")[2] == "seed"


def metric(measure: str) -> str:
    """What the names of a measure's metrics begin with; after it comes the layer."""
    return measure if "/" in measure else f"layout/{measure}"


def _layers(repeats: Sequence[Repeat], measures: Sequence[str]) -> list[str]:
    begins = [f"{metric(measure)}/" for measure in measures]
    found = (name.removeprefix(begin) for repeat in repeats for name in repeat.numbers for begin in begins if name.startswith(begin))
    return list(dict.fromkeys(found))


def _values(repeats: Sequence[Repeat], measure: str, layer: str) -> Float64:
    name = f"{metric(measure)}/{layer}"
    values = np.array([repeat.numbers[name][1] for repeat in repeats if name in repeat.numbers], np.float64)
    return values[np.isfinite(values)]


def _mean(values: Float64) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _deviation(values: Float64) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else float("nan")


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]) for row in rows]
    return "\n".join(line.rstrip() for line in lines)
