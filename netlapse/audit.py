"""What is wrong with a series of checkpoints: found by reading each once, before anybody draws conclusions from them.

Framework-free: a backend's `read_weights` reads a file. Of all weights read, those of two files are in memory at a time;
of the others, digests.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

import numpy as np

from netlapse.schedule import Unit
from netlapse.tracking.checkpoints import sha256
from netlapse.types import Array

Kind = Literal["missing", "unreadable", "hash", "identical", "order", "non-finite", "never moves", "entries"]
Severity = Literal["error", "warning"]
Progress = Callable[[Sequence[tuple[int, Path]]], Iterable[tuple[int, Path]]]


@dataclass(frozen=True, eq=False)
class Weights:
    """What a checkpoint holds.

    arrays     name -> array, as the file names them; the optimizer's are none of them
    trainable  the names of those that are to be trained, where the file says so
    position   "epoch" and "step": after how many epochs and optimiser steps the file says it was saved, as far as it does
    """

    arrays: Mapping[str, Array]
    trainable: frozenset[str] | None = None
    position: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Problem:
    """steps  those whose files it concerns; () where it is the series' as a whole."""

    steps: tuple[int, ...]
    kind: Kind
    what: str
    severity: Severity = "error"


@dataclass(frozen=True)
class File:
    """One file of a series.

    sha256      of its bytes; "" where there is no file
    weights     sha256 over names, types, shapes and values of its arrays but counters; "" where it cannot be read
    entries     its arrays    parameters  the numbers in those of floats
    change      the relative L2 change of the parameters from the readable file before; NaN at the first one, and where
                parameters are not finite or all were zero
    """

    step: int
    path: Path | None
    sha256: str = ""
    weights: str = ""
    entries: int = 0
    parameters: int = 0
    change: float = float("nan")


@dataclass(frozen=True)
class Audit:
    """The files of a series, by step, and what is wrong with them."""

    files: tuple[File, ...]
    problems: tuple[Problem, ...]
    unit: Unit

    @property
    def exit_code(self) -> int:
        """1 where there is an error, else 0; warnings are none."""
        return int(any(problem.severity == "error" for problem in self.problems))

    def table(self) -> dict[str, list[object]]:
        """Columns of equal length, a row per file, as MLflow's table artifact takes them; what concerns all files stands in the last row."""
        problems = {file.step: [f"{p.kind}: {p.what}" for p in self.problems if file.step in p.steps] for file in self.files}
        if self.files:
            problems[self.files[-1].step] += [f"all files: {p.kind}: {p.what}" for p in self.problems if not p.steps]
        return {
            "step": [file.step for file in self.files],
            "file": [file.path.name if file.path is not None else "" for file in self.files],
            "sha256": [file.sha256[:12] for file in self.files],
            "weights": [file.weights[:12] for file in self.files],
            "entries": [file.entries for file in self.files],
            "parameters": [file.parameters for file in self.files],
            "change": [file.change for file in self.files],
            "problems": ["; ".join(problems[file.step]) for file in self.files],
        }

    def report(self) -> str:
        """For a terminal: the table, of a long series only what surrounds a problem, and below it what is wrong."""
        counts = Counter(problem.severity for problem in self.problems)
        verdict = ", ".join(_count(counts[severity], severity) for severity in ("error", "warning") if counts[severity]) or "nothing is wrong"
        lines = [f"{_count(len(self.files), 'checkpoint')}: {verdict}", "", *_rows(self)]
        for severity in ("error", "warning"):
            found = [problem for problem in self.problems if problem.severity == severity]
            if found:
                lines += ["", f"{severity}s"]
                lines += [f"  {problem.kind:<11}  {self._where(problem.steps)}: {problem.what}" for problem in found]
        return "\n".join(lines)

    def _where(self, steps: tuple[int, ...]) -> str:
        if not steps:
            return "all files"
        order = [file.step for file in self.files]
        runs: list[list[int]] = []
        for step in steps:
            if runs and order.index(step) == order.index(runs[-1][-1]) + 1:
                runs[-1].append(step)
            else:
                runs.append([step])
        ranges = [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
        return f"{self.unit if len(steps) == 1 else self.unit + 's'} {_listed(ranges, 12)}"


def audit(
    files: Mapping[int, Path],
    read: Callable[[Path], Weights],
    *,
    hashes: Mapping[int, str] | None = None,
    unit: Unit = "epoch",
    frozen: Collection[str] = (),
    progress: Progress = iter,
) -> Audit:
    """Read every checkpoint of a series once, and say what is wrong.

    files     step -> file    read  the backend's `read_weights`; whatever it raises makes a file an unreadable one
    hashes    step -> the sha256 its file had when it was written; a step without a file is missing
    unit      what a step is, for comparison with what a file says of itself
    frozen    entries that are meant to stay as they are, as names or globs (`encoder.*`)
    progress  is given the (step, file) pairs and yields them again

    An error is: a file that is missing, unreadable, not the one that was written, or saved at another step than its name
    says; weights that are not finite, or the same at different steps; entries that come, go or change their shape;
    parameters that never move, unless the file or `frozen` says that they are not trained. Where nearly all files say the
    same other step than their names, by a constant, that is one warning: they are named by another way of counting.
    """
    hashes = hashes or {}
    problems: list[Problem] = [Problem((step,), "missing", "the manifest names a file, and none was found") for step in hashes if step not in files]
    rows = [File(step, None) for step in hashes if step not in files]
    series = _Series(unit, frozen)
    for step, path in progress(sorted(files.items())):
        digest = ""
        try:
            digest = sha256(path)
            weights = read(path)
        except FileNotFoundError:
            problems.append(Problem((step,), "missing", f"there is no {path}"))
            rows.append(File(step, path))
        except Exception as error:
            problems.append(Problem((step,), "unreadable", str(error) or type(error).__name__))
            rows.append(File(step, path, digest))
        else:
            rows.append(series.take(File(step, path, digest), weights))
        if digest and hashes.get(step, digest) != digest:
            problems.append(Problem((step,), "hash", f"{path.name} has the sha256 {digest[:12]}, and had {hashes[step][:12]} when it was written"))
    problems += series.problems()
    # Stable: what was found of one file stays in the order in which it was looked for.
    return Audit(tuple(sorted(rows, key=lambda row: row.step)), tuple(sorted(problems, key=lambda problem: problem.steps[:1])), unit)


class _Series:
    """What has to be known of the files read so far."""

    def __init__(self, unit: Unit, frozen: Collection[str]) -> None:
        self._unit, self._frozen = unit, frozen
        self._found: list[Problem] = []
        self._before: Mapping[str, Array] | None = None
        self._steps: dict[str, list[int]] = {}  # digest of all weights -> where they were met
        self._positions: dict[int, Mapping[str, int]] = {}
        self._first: dict[str, str] = {}  # parameter -> its digest where it was first met
        self._met: Counter[str] = Counter()
        self._moved: set[str] = set()
        self._untrained: set[str] = set()

    def take(self, file: File, weights: Weights) -> File:
        """The file, described; weights are kept until the next are given."""
        arrays = weights.arrays
        parameters = {name: array for name, array in arrays.items() if _is_parameter(array)}
        digests = {name: _digest(name, array) for name, array in arrays.items() if not _is_counter(array)}
        whole = hashlib.sha256("".join(sorted(digests.values())).encode()).hexdigest()
        self._steps.setdefault(whole, []).append(file.step)
        self._positions[file.step] = weights.position
        for name in parameters:
            self._met[name] += 1
            if self._first.setdefault(name, digests[name]) != digests[name]:
                self._moved.add(name)
        if weights.trainable is not None:
            self._untrained |= arrays.keys() - weights.trainable
        if what := _not_finite(parameters):
            self._found.append(Problem((file.step,), "non-finite", what))
        change = float("nan")
        if self._before is not None:
            if what := _difference(self._before, arrays):
                self._found.append(Problem((file.step,), "entries", what))
            change = _change(self._before, parameters)
        self._before = arrays
        return File(file.step, file.path, file.sha256, whole, len(arrays), sum(array.size for array in parameters.values()), change)

    def problems(self) -> list[Problem]:
        identical = [
            Problem(tuple(steps), "identical", f"the same weights in {len(steps)} files") for steps in self._steps.values() if len(steps) > 1
        ]
        return self._found + identical + _out_of_order(self._positions, self._unit) + self._never_moving()

    def _never_moving(self) -> list[Problem]:
        meant = {name for name in self._met if any(fnmatchcase(name, pattern) for pattern in self._frozen)}
        still = [name for name, count in self._met.items() if count > 1 and name not in self._moved | self._untrained | meant]
        if not still or len(self._steps) < 2:  # of identical files nothing moves, and that is said already
            return []
        verb = "is" if len(still) == 1 else "are"
        return [Problem((), "never moves", f"{_listed(still)} {verb} the same in all files; name by frozen= what is not trained")]


# ---- one file, and two ----------------------------------------------------------------------------------------------


def _is_parameter(array: Array) -> bool:
    return np.issubdtype(array.dtype, np.inexact) and array.size > 0


def _is_counter(array: Array) -> bool:
    """A count of batches, or the state of a random generator, which Keras has in two numbers; training moves it, learning does not."""
    return not np.issubdtype(array.dtype, np.inexact) and array.size <= 2


def _digest(name: str, array: Array) -> str:
    digest = hashlib.sha256(f"{name}\n{array.dtype.str} {array.shape}\n".encode())
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _not_finite(parameters: Mapping[str, Array]) -> str:
    bad = {name: int(array.size - np.isfinite(array).sum()) for name, array in parameters.items()}
    return _listed([f"{name} ({count} of {parameters[name].size} NaN or infinite)" for name, count in bad.items() if count])


def _difference(before: Mapping[str, Array], after: Mapping[str, Array]) -> str:
    """How the entries of two files differ, in words."""

    kinds, were = ({name: f"{array.dtype} {array.shape}" for name, array in arrays.items()} for arrays in (after, before))
    changed = [f"{name} from {were[name]} to {kind}" for name, kind in kinds.items() if were.get(name, kind) != kind]
    parts = {"new": [name for name in kinds if name not in were], "gone": [name for name in were if name not in kinds], "changed": changed}
    return "; ".join(f"{what}: {_listed(names)}" for what, names in parts.items() if names)


def _change(before: Mapping[str, Array], parameters: Mapping[str, Array]) -> float:
    """||after - before|| / ||before|| over the parameters that both have in the same shape."""
    squares = [0.0, 0.0]
    with np.errstate(all="ignore"):  # of weights that are not finite, the change is none
        for name, after in parameters.items():
            if name in before and _is_parameter(before[name]) and before[name].shape == after.shape:
                wide = np.result_type(after.dtype, before[name].dtype, np.float64)
                old = before[name].astype(wide).ravel()
                difference = after.astype(wide).ravel() - old
                squares[0] += float(np.vdot(difference, difference).real)
                squares[1] += float(np.vdot(old, old).real)
    finite = np.isfinite(squares).all() and squares[1] > 0
    return float(np.sqrt(squares[0] / squares[1])) if finite else float("nan")


# ---- the series -----------------------------------------------------------------------------------------------------


def _out_of_order(positions: Mapping[int, Mapping[str, int]], unit: Unit) -> list[Problem]:
    """Files that say they are of another step than their names do, and those that stand in the way of an ascending order."""
    offsets = {step: position[unit] - step for step, position in positions.items() if unit in position}
    usual, files = Counter(offsets.values()).most_common(1)[0] if offsets else (0, 0)
    if files < 3 or 2 * files <= len(offsets):
        usual = 0
    found = []
    if usual:
        where = f"{_count(abs(usual), unit)} {'after' if usual > 0 else 'before'} what their names say"
        found.append(Problem((), "order", f"they say they are of {where}; rename them, or give a pattern, if that is so", "warning"))
    wrong = {step for step, offset in offsets.items() if offset != usual}
    found += [Problem((step,), "order", f"the file says it is of {unit} {positions[step][unit]}") for step in sorted(wrong)]
    for name in ("epoch", "step"):
        told = [(step, position[name]) for step, position in positions.items() if name in position and step not in wrong]
        for step, value in (told[index] for index in _out_of_line([value for _, value in told])):
            wrong.add(step)
            found.append(Problem((step,), "order", f"the file says it is of {name} {value}, which does not lie between those around it"))
    return found


def _out_of_line(values: Sequence[int]) -> list[int]:
    """The indices of the fewest values without which the rest never descends."""
    ends: list[int] = []  # the last value of the lowest-ending rest of each length, and its index
    last: list[int] = []
    before: list[int] = []
    for index, value in enumerate(values):
        length = bisect_right(ends, value)
        ends[length:] = [value, *ends[length + 1 :]]
        before.append(last[length - 1] if length else -1)
        last[length:] = [index, *last[length + 1 :]]
    kept, index = set(), last[-1] if last else -1
    while index >= 0:
        kept.add(index)
        index = before[index]
    return [index for index in range(len(values)) if index not in kept]


# ---- for people -----------------------------------------------------------------------------------------------------

_MANY = 40
"""Series longer than this are not shown whole."""


def _rows(audit: Audit) -> list[str]:
    kinds = {file.step: sorted({problem.kind for problem in audit.problems if file.step in problem.steps}) for file in audit.files}
    table = [[audit.unit, "file", "weights", "entries", "parameters", "change", "problems"]]
    for file in audit.files:
        change = "" if np.isnan(file.change) else f"{file.change:.2e}"
        name = "" if file.path is None else file.path.name
        counts = [str(file.entries), f"{file.parameters:,}"] if file.weights else ["", ""]
        table.append([str(file.step), name, file.weights[:8], *counts, change, ", ".join(kinds[file.step])])
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    lines = ["  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, "><<>>><", widths)).rstrip() for row in table]
    wrong = [index for index, file in enumerate(audit.files, 1) if kinds[file.step]]
    shown = {0, 1, len(audit.files)} | {near for index in wrong for near in (index - 1, index, index + 1)}
    result: list[str] = []
    skipped = 0
    for index, line in enumerate(lines):
        if len(audit.files) > _MANY and index not in shown:
            skipped += 1
            continue
        if skipped:
            result.append(f"{'...':>{widths[0]}}  {skipped} more, nothing wrong with them")
            skipped = 0
        result.append(line)
    return result


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"


def _listed(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
