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
    if before is None:
        recent, was = np.empty((0, len(labels)), np.int64), now
        right, wrong, counted, forgotten, since = np.ones(len(labels), bool), np.ones(len(labels), bool), 0, 0, np.full(len(labels), -1)
    else:
        recent, was = before.recent, before.recent[-1] == labels
        right, wrong, counted, forgotten, since = before.right, before.wrong, before.counted, before.times_forgotten, before.right_since
    counts = step > 0
    return History(
        recent=np.concatenate([recent, predictions[None]])[-patience:],
        right=right & now if counts else right,
        wrong=wrong & ~now if counts else wrong,
        counted=counted + counts,
        times_forgotten=forgotten + (was & ~now).astype(np.int64),
        right_since=np.where(now, np.where(since < 0, step, since), -1).astype(np.int64),
    )
