"""Offline: the analyses of saved checkpoints, into the record they belong to, as if they had been run while it was made.

Live training and this differ in where the network comes from and in nothing else: both call `Observer`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from netlapse.observer import Observer
from netlapse.statistics import GroupStatistics
from netlapse.tracking.folder import packed, unpacked, write
from netlapse.types import Answers, Array, Findings, Network

T = TypeVar("T")
Load = Callable[[Path], None]
"""Puts the weights of a checkpoint into the network."""


@dataclass(frozen=True)
class Done:
    """What a reanalysis did.

    found    step -> the analyses that found something there
    failed   step -> those that were to and did not
    unread   step -> why its checkpoint could not be read
    """

    found: dict[int, list[str]] = field(default_factory=dict)
    failed: dict[int, list[str]] = field(default_factory=dict)
    unread: dict[int, str] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether all that was to be found was found."""
        return not self.failed and not self.unread


def reanalyse(
    observer: Observer,
    network: Network,
    checkpoints: Mapping[int, Path],
    load: Load,
    *,
    force: bool = False,
    answers: Path | None = None,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> Done:
    """Run the observer's analyses on each checkpoint, step by step; only what its record lacks, or with `force` everything.

    An analysis goes by what it found at the step before, whenever that was found: what is found after a gap is found anew
    once the gap is filled. A checkpoint that cannot be read, or an analysis that fails, keeps nothing else from being done.

    answers   a folder of what `prepare` wrote, so that the network need not be asked again
    progress  wraps the steps, to show how far it is
    """
    wanted, done = observer.wanting(checkpoints, force=force), Done()
    for step in progress(list(wanted)):
        try:
            load(checkpoints[step])
        except (OSError, ValueError) as error:
            observer.report(f"the checkpoint of step {step}", error)
            done.unread[step] = str(error)
            continue
        kept = None if answers is None else read_answers(answers / _name(step))
        found = observer.observe(network, step, only=wanted[step], answers=kept)
        if there := [name for name in wanted[step] if name in found]:
            done.found[step] = there
        if lost := [name for name in wanted[step] if name not in found]:
            done.failed[step] = lost
    return done


def prepare(observer: Observer, network: Network, checkpoints: Mapping[int, Path], load: Load, folder: Path, *, force: bool = False) -> None:
    """Ask the network at each checkpoint what `reanalyse` will need to know, and write its answers to a folder.

    This is what several processes may do at once, in any order: no answer depends on another checkpoint. A checkpoint that
    cannot be read is left for `reanalyse` to report.
    """
    for step, names in observer.wanting(checkpoints, force=force).items():
        try:
            load(checkpoints[step])
        except (OSError, ValueError):
            continue
        write_answers(folder / _name(step), observer.ask(network, step, names))


def write_answers(path: Path, answers: Answers) -> None:
    """Answers as an npz file, exactly."""
    arrays = {f"answer/{name}": values for name, values in answers.arrays.items()}
    if (statistics := answers.statistics) is not None:
        arrays |= {"names": np.array(statistics.names), "counts": statistics.counts, "groups": statistics.groups}
        arrays["seconds"] = np.array(statistics.seconds)
        if statistics.logits is not None:
            arrays["logits"] = statistics.logits
        arrays |= {f"{part}/{layer}": values for part in _PER_LAYER for layer, values in getattr(statistics, part).items()}
    write(path, packed(Findings(arrays)))


def read_answers(path: Path) -> Answers | None:
    """The inverse of `write_answers`; None where there is no such file."""
    if not path.is_file():
        return None
    arrays = unpacked(path.read_bytes()).arrays
    asked = {name.removeprefix("answer/"): values for name, values in arrays.items() if name.startswith("answer/")}
    if "counts" not in arrays:
        return Answers(None, asked)
    per_layer = {part: {name.partition("/")[2]: v for name, v in arrays.items() if name.startswith(f"{part}/")} for part in _PER_LAYER}
    names = tuple(arrays["names"].tolist())
    rest: dict[str, Array | None] = {"counts": arrays["counts"], "groups": arrays["groups"], "logits": arrays.get("logits")}
    return Answers(GroupStatistics(names=names, seconds=float(arrays["seconds"]), **per_layer, **rest), asked)  # type: ignore[arg-type]


_PER_LAYER = ("sums", "squares", "low", "high", "active", "peaks", "top", "top_values", "broken", "kept")


def _name(step: int) -> str:
    return f"step_{step:08d}.npz"
