"""Fields drawn upon images: where a unit's field lies in one, what of it the unit picks out, and the field that gradients see."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from netlapse.analysis.receptive_field.discrepancy import check_spatial
from netlapse.analysis.receptive_field.fields import ReceptiveFields, centres, recentred, theoretical_field
from netlapse.types import Array, Float32, Float64, Int64, Network

Mask = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]


def region(field: Float32, stride: int, centre: Float64, image: tuple[int, int], level: float = 0.5) -> Mask:
    """(h, w) the pixels at which an occluder's centre takes at least `level` of what it takes most from the unit.

    field   (2 rows - 1, 2 columns - 1) with the unit in the middle, at multiples of the stride; NaN where nothing is known
    centre  (2,) the pixel of the unit's centre, counted from the first one's; see `centres`
    A pixel has what the nearest place has, and those farther than half a stride from any known place nothing. All False for a
    field that is nowhere positive.
    """
    values = resampled(field, stride, centre, image)
    highest = np.nanmax(np.nan_to_num(np.asarray(field, np.float64), nan=0.0))
    return np.asarray(np.nan_to_num(values, nan=-1.0) >= level * highest) if highest > 0 else np.zeros(image, bool)


def resampled(field: Float32, stride: int, centre: Float64, image: tuple[int, int]) -> Float64:
    """(h, w) a field with its middle at a pixel: each pixel has the nearest place's value, NaN beyond half a stride from any."""
    inside, places = [], []
    for axis in range(2):
        n = field.shape[axis]
        nearest = np.floor((np.arange(image[axis]) - centre[axis]) / stride + 0.5).astype(int) + n // 2
        inside.append((nearest >= 0) & (nearest < n))
        places.append(np.clip(nearest, 0, n - 1))
    return np.where(np.outer(*inside), np.asarray(field, np.float64)[np.ix_(*places)], np.nan)


def segmentation(
    activation: Float32, found: ReceptiveFields, unit: int, image: tuple[int, int], *, threshold: float = 0.5, level: float = 0.5
) -> Mask:
    """(h, w) what of an image a unit picks out: its field's `region`, at every position where it is at least `threshold` of its highest.

    After the segmentations of Zhou et al. (2015), figure 5. activation (h', w') is the unit's map for the image; `unit` is its row in
    `found`. All False where the unit is nowhere above 0.
    """
    mask: Mask = np.zeros(image, bool)
    if not activation.max() > 0:
        return mask
    rows, columns = np.nonzero(activation >= threshold * activation.max())
    for centre in centres(np.stack([rows, columns], axis=1), found.theory, activation.shape, image):
        mask |= region(found.fields[unit], found.stride, centre, image, level)
    return mask


def effective_fields(
    network: Network, inputs: Array, layer: str, units: Sequence[int], indices: Int64, positions: Int64, *, batch_size: int = 64
) -> Float64:
    """(u, 2 h - 1, 2 w - 1) the mean |gradient| of each unit's activation at its position by the pixels of its top images.

    Luo et al., "Understanding the effective receptive field in deep convolutional neural networks" (2016), of the unit's top images
    (u, k) and positions (u, k, 2), as `top_images` finds them, instead of random inputs; summed over channels. The unit's centre is
    in the middle; NaN where no image has a pixel.
    """
    inputs = np.asarray(inputs, np.float32)
    h, w = inputs.shape[1:3]
    shape = check_spatial(network, inputs[:2], layer)
    theory = theoretical_field(network, inputs[:2], layer)
    asked, rank = np.nonzero(indices >= 0)
    total, count = (np.zeros((len(units), 2 * h - 1, 2 * w - 1)) for _ in range(2))
    for start in range(0, len(asked), batch_size):
        rows, ranks = asked[start : start + batch_size], rank[start : start + batch_size]
        places = positions[rows, ranks]
        cotangent = np.zeros((len(rows), *shape), np.float32)
        cotangent[np.arange(len(rows)), places[:, 0], places[:, 1], np.asarray(units)[rows]] = 1
        gradients = network.vjp(inputs[indices[rows, ranks]], layer, cotangent, ["input"])["input"]
        for row, gradient, centre in zip(rows, np.abs(gradients).sum(axis=3), centres(places, theory, shape[:2], (h, w))):
            moved = recentred(gradient, centre, 1, 1)
            seen = ~np.isnan(moved)
            total[row][seen] += moved[seen]
            count[row] += seen
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
