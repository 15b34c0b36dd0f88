"""Layouts that project the profiles, or do not look at them."""

from __future__ import annotations

import numpy as np

from netlapse.analysis.layout.base import checked, filled, metric_space, principal_components, rotation
from netlapse.types import Float64


def random(profiles: Float64, *, seed: int = 0, previous: Float64 | None = None, metric: str = "euclidean") -> Float64:
    """Uniformly random positions (u, 2) in [0, 1]: the baseline that knows nothing of the profiles.

    They depend on the seed and the number of units alone, so the layout stands still over checkpoints as long as the seed is
    the same; `previous` and `metric` are checked as everywhere and have nothing to act on.

    Raises ValueError as `metric_space` does, and for a previous layout of another shape.
    """
    rows = metric_space(profiles, metric)
    checked(previous, len(rows))
    return np.random.default_rng(seed).random((len(rows), 2))


def pca(profiles: Float64, *, seed: int = 0, previous: Float64 | None = None, metric: str = "euclidean") -> Float64:
    """The profiles' first two principal components as positions (u, 2), scaled by one factor so that the longer side fills [0, 1].

    Components have no sign and no fixed order in time, so with `previous` the scores are rotated and reflected to lie as close
    to it as they can (see `procrustes`) before they are scaled; size and centre are not taken over. Without it each component
    is turned so that the sum of its cubed scores is positive. Profiles that vary in one direction only fall on a line,
    identical ones on the centre. Nothing is random; `seed` only matters beyond 512 features, see `principal_components`.

    Raises ValueError as `metric_space` does, and for a previous layout of another shape.
    """
    rows = metric_space(profiles, metric)
    previous = checked(previous, len(rows))
    scores = np.zeros((len(rows), 2))
    found = principal_components(rows, 2, seed)
    scores[:, : found.shape[1]] = found
    return filled(scores if previous is None else scores @ rotation(scores, previous))
