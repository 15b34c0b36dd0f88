"""Units as particles that similarity draws together and crowding drives apart: the layout `swarm`."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist

from netlapse.analysis.layout.base import checked, filled, metric_space
from netlapse.analysis.layout.forces import BLOCK, NOISE, local_force, schedule
from netlapse.types import Float64


def swarm(profiles: Float64, *, seed: int = 0, previous: Float64 | None = None, metric: str = "euclidean", steps: int = 1000) -> Float64:
    """The published particle swarm (u, 2): units gather by the similarity of their profiles first and spread to an even disc later.

    From uniformly random positions in [0, 1], at step k of `steps`, for t_k from -3 to 6 and a = (1 + tanh(t_k)) / 2, each
    unit moves by the mean over all units, at offsets d and distances r, of d * (a * f(r) + (1 - a) * G) / 2. The local force f
    (`pair_force`) knows places only; the global one, G = 1.5 * (1 - (D / max D)**3) - 0.5 * exp(-D / 2), knows the profiles'
    distances D only: `metric`'s, that is one minus the cosine or correlation for these (a half for a row without a direction).

    With `previous` the units start where they were and t at -2: similarity still moves them wherever they have to go, but not for
    so long that they forget where they came from. (The published swarm drops G where it is given positions, and so spreads
    them without a look at the profiles; that is `spread` with no spacing.) Units at one place, which no force can part, are moved
    by a seeded millionth of the map.

    Beyond 1,024 units the local forces are taken on a grid (see `local_force`). The swarm is chaotic: rounding decides where a
    unit ends after hundreds of steps, so that the same arguments promise the same bytes on the same machine only. A step takes
    O(u^2) time; 300 steps are about as good as 1,000. The result is scaled by one factor to fill [0, 1], where the
    published one scales each axis. A single unit lies at the centre.

    Raises ValueError as `metric_space` does, for a previous layout of another shape, for fewer steps than 1, and for so many
    units that their u * u * 8 bytes of global forces are more than 2 GiB (16,384 units).
    Source: Krug, Ratul, Olson and Stober, 2023, "Visualizing deep neural networks with topographic activation maps".
    """
    rows = metric_space(profiles, metric)
    previous = checked(previous, len(rows))
    if steps < 1:
        raise ValueError(f"steps is {steps}; expected at least 1, as published 1000")
    if (needed := len(rows) ** 2 * 8) > MEMORY:
        raise ValueError(
            f"swarm of {len(rows):,} units takes {len(rows):,} x {len(rows):,} x 8 bytes = {needed / 2**30:.1f} GiB of forces between all units; "
            f"at most {MEMORY / 2**30:.0f} GiB ({int((MEMORY // 8) ** 0.5):,} units) are allowed; use flas, whose memory grows with the units alone"
        )
    rng = np.random.default_rng(seed)
    points = rng.random((len(rows), 2)) if previous is None else _parted(previous, rng)
    forces = _global_forces(rows, metric)
    total = forces.sum(axis=1, keepdims=True)
    for weight in schedule(steps) if previous is None else schedule(steps, RESTART):
        global_force = (forces @ points - total * points) / len(points)
        points = points + (weight * local_force(points) + (1 - weight) * global_force) / 2
    return filled(points)


MEMORY = 2**31  # bytes of global forces, at most
RESTART = -2.0  # the first t from a previous layout: from -1 a bad one would last, from -3 the units often forget any


def _global_forces(rows: Float64, metric: str) -> Float64:
    """G (u, u) between rows of `metric_space`: 1 for identical rows, least for the two farthest apart."""
    forces: Float64 = cdist(rows, rows)
    if metric != "euclidean":
        forces **= 2
        forces /= 2
    largest = forces.max()
    for start in range(0, len(rows), BLOCK):  # in place, in blocks: half of the memory would go to what lies between
        apart = forces[start : start + BLOCK]
        far = apart / largest if largest > 0 else apart
        forces[start : start + BLOCK] = 1.5 * (1 - far * far * far) - 0.5 * np.exp(-apart / 2)
    return forces


def _parted(points: Float64, rng: np.random.Generator) -> Float64:
    """The points (u, 2), those at the place of an earlier one moved by NOISE."""
    _, first = np.unique(points, axis=0, return_index=True)
    repeated = np.ones(len(points), dtype=bool)
    repeated[first] = False
    return points + repeated[:, None] * rng.normal(scale=NOISE, size=points.shape)
