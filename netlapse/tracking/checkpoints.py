"""Saved weights of observed steps: where they are, which step each is of, and what they were when they were written."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path

from netlapse.home import writable
from netlapse.schedule import Unit

log = logging.getLogger(__name__)

SUFFIXES = (".weights.h5", ".ckpt", ".pt", ".pth", ".keras", ".h5")

# Names that say what they count, Lightning's and MLflow's; both count epochs from 0 and save when the epoch is over.
_EPOCH_INDEX = re.compile(r"(?:^|[^a-z])epoch=(\d+)|^epoch_(\d+)/checkpoint$", re.IGNORECASE)
_STEPS = re.compile(r"(?:^|[^a-z])step=(\d+)|^global_step_(\d+)/checkpoint$", re.IGNORECASE)
_NUMBER = re.compile(r"\d+(?:\.\d+)*")
_VERSION = re.compile(r"-v\d+$")  # what Lightning adds to a name that was taken
_NO_STEP = ("last", "latest", "best", "final")


def find(folder: str | Path, *, unit: Unit = "epoch", pattern: str | None = None) -> dict[int, Path]:
    """The checkpoint files of a folder and of its direct subfolders, by step, ascending.

    unit     what a step is where a name tells both: `epoch=3-step=400` is of after 4 epochs, and of after 400 steps
    pattern  a regular expression whose one group is the step, searched for in the path below `folder` (`epoch_3/model.pt`);
             None: the step of a file that netlapse, Lightning or MLflow named, else the last integer of its name, or of its
             subfolder's name where its own has none

    Files without a step (`last.ckpt`) are left out, and the log says so. Raises FileNotFoundError where no file has one,
    ValueError for two files of one step and for a pattern that is none.
    """
    folder = Path(folder).expanduser().absolute()
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder of checkpoints at {folder}")
    step_of = _step if pattern is None else _matching(pattern)
    found: dict[int, Path] = {}
    left_out: list[str] = []
    for path in sorted(path for part in ("*", "*/*") for path in folder.glob(part) if path.name.endswith(SUFFIXES) and path.is_file()):
        name = path.relative_to(folder).as_posix()
        if any(part.startswith(".") for part in name.split("/")):
            continue  # half written, or somebody's trash
        step = step_of(name, unit)
        if step is None:
            left_out.append(name)
        elif step in found:
            raise ValueError(
                f"two checkpoints of {unit} {step} in {folder}: {found[step].relative_to(folder).as_posix()} and {name}; name those that are "
                r"meant by a regular expression whose group is the step, as pattern='model_(\d+)\.pt$'"
            )
        else:
            found[step] = path
    if not found:
        raise FileNotFoundError(_nothing_found(folder, unit, pattern, left_out))
    if left_out:
        log.warning("netlapse: left out, as their names tell no %s: %s", unit, _listed(left_out))
    return dict(sorted(found.items()))


def sha256(path: Path) -> str:
    """The sha256 of a file's bytes, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _step(name: str, unit: Unit) -> int | None:
    """The step in a checkpoint's path below the folder; None where there is none, or one of the other unit."""
    stem = _VERSION.sub("", name.removesuffix(next(suffix for suffix in SUFFIXES if name.endswith(suffix))))
    stem = stem.removesuffix(".weights")  # MLflow's checkpoint.weights.pth
    told = {"epoch": _EPOCH_INDEX.search(stem), "step": _STEPS.search(stem)}
    if any(told.values()):
        match = told[unit]
        return None if match is None else int(match[match.lastindex or 1]) + (unit == "epoch")
    *parents, own = stem.split("/")
    if own.lower() in _NO_STEP:
        return None
    numbers = (number for part in (own, *parents) for number in reversed(_NUMBER.findall(part)))
    return next((int(number) for number in numbers if number.isdigit()), None)


def _matching(pattern: str) -> Callable[[str, Unit], int | None]:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"pattern {pattern!r} is no regular expression: {error}") from error
    if expression.groups != 1:
        raise ValueError(rf"pattern {pattern!r} has {expression.groups} groups; expected one, the step, as in 'model_(\d+)\.pt$'")

    def step(name: str, unit: Unit) -> int | None:
        match = expression.search(name)
        if match is None:
            return None
        if not (match[1] or "").isdecimal():
            raise ValueError(f"pattern {pattern!r} finds the step {match[1]!r} in {name}; expected digits")
        return int(match[1])

    return step


def _nothing_found(folder: Path, unit: Unit, pattern: str | None, left_out: list[str]) -> str:
    if left_out:
        why = f"none matches {pattern!r}" if pattern is not None else f"none of their names tells {'an epoch' if unit == 'epoch' else 'a step'}"
        return rf"no checkpoints with a step in {folder}; it holds {_listed(left_out)}, and {why}; name the step by pattern=, as 'model_(\d+)\.pt$'"
    there = sorted(path.name for path in folder.iterdir())
    return f"no checkpoints in {folder}; expected {', '.join(SUFFIXES)} files in it or in its subfolders, and it holds {_listed(there)}"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "") if names else "nothing"


class Checkpoints:
    """A folder of checkpoints, one per step, named `step_00000012<suffix>`.

    saved  step -> {"path", "sha256"}, for the manifest

    Raises PermissionError where the folder cannot be written.
    """

    def __init__(self, folder: str | Path, suffix: str) -> None:
        self.folder = writable(Path(folder).expanduser().absolute())
        self.suffix = suffix
        self.saved: dict[str, dict[str, str]] = {}

    def path(self, step: int) -> Path:
        return self.folder / f"step_{step:08d}{self.suffix}"

    def save(self, step: int, write: Callable[[Path], None]) -> Path:
        """Have `write` write the step's file, and take it in once it is whole."""
        path = self.path(step)
        partial = self.folder / f".partial-{path.name}"
        try:
            write(partial)
            digest = sha256(partial)
            os.replace(partial, path)
            self.saved[str(step)] = {"path": str(path), "sha256": digest}
        finally:
            partial.unlink(missing_ok=True)
        return path
