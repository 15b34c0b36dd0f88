"""Saliency by covering parts of the input and asking the network again."""

from __future__ import annotations

import numpy as np

from netlapse.analysis.saliency.base import batches, class_logits, one_hot, unwarned
from netlapse.analysis.saliency.gradients import baseline_of
from netlapse.types import Array, Float32, Int64, Network


@unwarned()
def occlusion(
    network: Network,
    inputs: Array,
    classes: Int64,
    *,
    window: int | None = None,
    stride: int | None = None,
    baseline: Array | float = 0.0,
    batch_size: int = 64,
) -> Float32:
    """(n, h, w) by how much the logit of each input's class falls when a window that covers the position hides what is there.

    Zeiler & Fergus, 2014, section 4.2. Windows lie at multiples of the stride from the upper left, the last ones cut off by
    the border; a position has the mean over the windows that cover it. Signed: negative where covering helps the class.
    window    its side in pixels; None: an eighth of the longer side of the image, rounded up
    stride    in pixels, at most the window, so that each position is covered; None: half the window, rounded up
    baseline  what is seen instead, as for `integrated_gradients`

    The network is asked about (h / stride) * (w / stride) copies of each input. Raises ValueError as `gradient`, for a window
    larger than the image, and for a stride that leaves positions uncovered.
    """
    one_hot(network, inputs, classes)  # for its errors
    inputs, classes = np.asarray(inputs, np.float32), np.asarray(classes)
    n, h, w, _ = inputs.shape
    window = -(-max(h, w) // 8) if window is None else window
    stride = -(-window // 2) if stride is None else stride
    if not 1 <= window <= max(h, w):
        raise ValueError(f"occlusion was given a window of {window} pixels; expected 1 to {max(h, w)} for images of {h} x {w}")
    if not 1 <= stride <= window:
        raise ValueError(f"occlusion was given a stride of {stride} pixels; expected 1 to {window}, the window, so that every position is covered")
    hidden = baseline_of(inputs, baseline)
    places = [(slice(y, y + window), slice(x, x + window)) for y in _corners(h, window, stride) for x in _corners(w, window, stride)]
    of_input, of_place = np.divmod(np.arange(n * len(places)), len(places))
    falls, covered = np.zeros((n, h, w)), np.zeros((h, w))
    for place in places:
        covered[place] += 1
    with network.undisturbed():
        whole = np.concatenate([class_logits(network, inputs[b], classes[b]) for b in batches(n, batch_size)])
        for batch in batches(len(of_input), batch_size):
            i, p = of_input[batch], of_place[batch]
            shown = inputs[i]
            for row, (source, place) in enumerate(zip(i, p)):
                shown[row][places[place]] = hidden[source][places[place]]
            for source, place, fall in zip(i, p, whole[i] - class_logits(network, shown, classes[i])):
                falls[source][places[place]] += fall
    return np.asarray(falls / covered, np.float32)


def _corners(size: int, window: int, stride: int) -> range:
    """Multiples of the stride, the last one the first whose window reaches the border."""
    return range(0, max(size - window, 0) + stride, stride)
