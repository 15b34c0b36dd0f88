"""What became of each input from checkpoint to checkpoint: always right, learned, forgotten, or stuck on one wrong class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from netlapse.types import Int64

Bools = NDArray[np.bool_]
Kind = Literal["always_right", "always_wrong", "stuck", "learned", "forgotten"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, eq=False)
class History:
    """Each input's history up to the last checkpoint, as far as the next one needs it.

    recent           (m, n) the predictions at the last checkpoints, the last of them last, at most `patience`; -1 for none
    right, wrong     (n,) at every checkpoint since training began: at step 0 a network is right by chance, which does not count
    counted          how many checkpoints that were
    times_forgotten  (n,) forgetting events so far: right at one checkpoint and wrong at the next (Toneva et al., 2019)
    right_since      (n,) the step since which an input is right without a break; -1 while it is not
    """

    recent: Int64
    right: Bools
    wrong: Bools
    counted: int
    times_forgotten: Int64
    right_since: Int64

    def of_kind(self, labels: Int64, patience: int) -> dict[Kind, Bools]:
        """Which inputs (n,) are of each kind; an input may be of several.

        always_right, always_wrong  at every checkpoint since training began, if there was any
        stuck       predicted as one and the same wrong class at the last `patience` checkpoints
        learned     right now and not at the checkpoint before         forgotten  the reverse
        """
        last = self.recent[-patience:]
        now = last[-1] == labels
        before = last[-2] == labels if len(last) > 1 else now
        same = (last == last[-1]).all(axis=0) & (last[-1] >= 0) & (len(last) == patience)
        begun = self.counted > 0
        return {
            "always_right": self.right & begun,
            "always_wrong": self.wrong & begun,
            "stuck": same & ~now,
            "learned": now & ~before,
            "forgotten": before & ~now,
        }


def extended(before: History | None, predictions: Int64, labels: Int64, step: int, patience: int) -> History:
    """The history with one more checkpoint, at which the inputs were predicted as (n,) these classes; -1 is no prediction, which is not right."""
    now: Bools = np.asarray(predictions == labels)
    n = len(labels)
    if before is None:
        before = History(
            np.empty((0, n), np.int64),
            np.ones(n, bool),
            np.ones(n, bool),
            0,
            np.zeros(n, np.int64),
            np.full(n, -1),
        )
    was: Bools = np.asarray(before.recent[-1] == labels) if len(before.recent) else now
    counts = step > 0
    return History(
        recent=np.concatenate([before.recent, predictions[None]])[-patience:],
        right=before.right & now if counts else before.right,
        wrong=before.wrong & ~now if counts else before.wrong,
        counted=before.counted + counts,
        times_forgotten=before.times_forgotten + (was & ~now).astype(np.int64),
        right_since=np.where(now, np.where(before.right_since < 0, step, before.right_since), -1).astype(np.int64),
    )
