"""Which inputs are explained at a checkpoint, and the score of which class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from netlapse.probe import panel_of, softmax
from netlapse.types import Float32, Float64, Int64

WHY = ("changed", "wrong", "right")
"""What an input is chosen for at a checkpoint: its prediction just changed; it is wrong, or right, and was so before."""

Target = str | int
"""'label', 'predicted', 'runner_up', or a class by its index or name."""


def chosen_of(labels: Int64, predictions: Int64, before: Int64 | None, size: int, without: Int64) -> Int64:
    """(3 * size,) indices of inputs worth a look at this checkpoint, `size` for each reason in `WHY`, in that order; -1 where there are less.

    Each as `panel_of` among those of one reason, an input for one reason only. Predictions (n,) are -1 where there is none.
    before   (n,) the predictions at the checkpoint before; None: none has changed
    without  indices that are explained anyway
    """
    free = ~np.isin(np.arange(len(labels)), without)
    changed = np.zeros(len(labels), bool) if before is None else predictions != before
    reasons = changed, ~changed & (predictions != labels), ~changed & (predictions == labels)
    chosen = np.full((len(WHY), size), -1)
    for row, reason in zip(chosen, reasons):
        candidates = np.flatnonzero(free & reason)
        found = candidates[panel_of(labels[candidates], size)]
        row[: len(found)] = found
    return chosen.ravel()


def answers(logits: Float32) -> tuple[Int64, Float64]:
    """(n,) the predicted class and (n,) its softmax probability; -1 and NaN for logits that are not all finite."""
    finite = np.isfinite(logits).all(axis=1)
    predictions = np.where(finite, logits.argmax(axis=1), -1).astype(np.int64)
    confidence = np.full(len(logits), np.nan)
    confidence[finite] = softmax(logits[finite]).max(axis=1)
    return predictions, confidence


def check_target(target: object, class_names: Sequence[str], k: int | None = None) -> None:
    """Raises ValueError for what is no target, and for a class that a network of k outputs does not have."""
    if target in ("label", "predicted", "runner_up"):
        if target == "runner_up" and k == 1:
            raise ValueError("saliency target is 'runner_up', and the network has 1 output, which has no runner-up; take 'label' or 'predicted'")
        return
    number = isinstance(target, int) and not isinstance(target, bool) and 0 <= target < (k or len(class_names))
    if not number and target not in class_names:
        raise ValueError(
            f"saliency target is {target!r}; allowed are 'label' and 'predicted', 'runner_up', and a class: 0 to {(k or len(class_names)) - 1}, "
            f"or one of {list(class_names)[:12]}"
        )
    if k is not None and isinstance(target, str) and class_names.index(target) >= k:
        raise ValueError(
            f"saliency target is {target!r}, class {class_names.index(target)}; the network has {k} outputs, so allowed are 0 to {k - 1}"
        )


def explained_classes(target: Target, labels: Int64, logits: Float32, class_names: Sequence[str]) -> Int64:
    """(n,) the class whose score is explained for each input; -1 where that depends on logits that are not all finite.

    label       that of the input              predicted   the class of the largest logit, the first of equal ones
    runner_up   the class of the second largest: what the network nearly said
    a class     by index or name, the same for every input

    Raises ValueError for another target.
    """
    check_target(target, class_names, logits.shape[1])
    if target == "label":
        return labels
    predictions, _ = answers(logits)
    if target == "predicted":
        return predictions
    if target == "runner_up":
        others = np.where(np.arange(logits.shape[1]) == predictions[:, None], -np.inf, logits)
        return np.where(predictions < 0, -1, others.argmax(axis=1))
    return np.full(len(labels), target if isinstance(target, int) else class_names.index(target))
