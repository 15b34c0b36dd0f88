"""Units that say nothing, laid out apart from the others: `apart`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from netlapse.analysis.layout.base import checked, filled
from netlapse.analysis.layout.calm import Layout, fixed, method
from netlapse.analysis.layout.disc import flas
from netlapse.types import Float64, Int64


def apart(
    profiles: Float64,
    dead: NDArray[np.bool_],
    *,
    layout: Layout,
    seed: int = 0,
    previous: Float64 | None = None,
) -> Float64:
    """Positions (u, 2) in [0, 1]: the living units by the layout of them alone, and the dead (u,) on a rim around them.

    Dead units are all alike. Among the others they would take the middle of a map or pull it out of shape; left out they could
    not be counted.

    The rim is the circle in the square. It has 64 places, or 128, 256, ... where there are more dead units, and they are taken
    from the bottom to both sides. The living are scaled about the middle of the square by one factor, so that the outermost of
    them is at 0.42, a gap from the rim that is the same however many are dead. With `previous`, units that stay dead stay where
    they are as far as their places remain.

    Without dead units this is the layout itself, and so it is for `fixed`, under which no unit leaves its place. Without living
    ones it is the full disc of `flas`.

    previous  positions (u, 2) as this function gave them. The layout is handed those of the living, scaled by one factor to
              fill the square again, which is where they were if the same units live and the layout fills the square

    Raises ValueError for `dead` that is not (u,) of bool and for a previous layout of another shape, beside what the layout raises.
    """
    units = len(profiles)
    if np.shape(dead) != (units,) or np.asarray(dead).dtype != np.bool_:
        raise ValueError(f"dead has shape {np.shape(dead)} and type {np.asarray(dead).dtype}; expected ({units},) of bool, one for each unit")
    previous = checked(previous, units)
    if not dead.any() or method(layout) is fixed:
        return layout(profiles, seed=seed, previous=previous)
    if dead.all():
        return flas(np.zeros((units, 1)), seed=seed, previous=previous)
    before = None if previous is None else filled(previous[~dead])
    living = layout(profiles[~dead], seed=seed, previous=before) - 0.5
    reach = np.linalg.norm(living, axis=1).max()
    places = rim(int(dead.sum()))
    positions = np.empty((units, 2))
    positions[~dead] = 0.5 + living * (REACH / reach if reach > 0 else 1.0)
    positions[dead] = places if previous is None else places[_nearest(previous[dead], places)]
    return positions


REACH = 0.42
"""How far from the middle of the square the outermost living unit is, where there are dead ones, whose rim is at 0.5."""
PLACES = 64


def rim(count: int) -> Float64:
    """The first `count` places (count, 2) of the rim, in the order in which they are taken."""
    size = PLACES
    while size < count:
        size *= 2
    turn = np.arange(count)
    # 0, 1, -1, 2, -2, ... places from the bottom, so that one unit more moves no other.
    side = np.where(turn % 2, (turn + 1) // 2, -(turn // 2))
    angle = -np.pi / 2 + 2 * np.pi * side / size
    places: Float64 = 0.5 + 0.5 * np.column_stack([np.cos(angle), np.sin(angle)])
    return np.clip(places, 0, 1)


def _nearest(previous: Float64, places: Float64) -> Int64:
    """Which place each unit takes (d,), at least total distance from where it was; beyond 1,024 units, those it has as long as they remain.

    Distances and not their squares, under which all units of a rim would move on by one to make room.
    """
    if len(places) <= 1024:
        return np.asarray(linear_sum_assignment(np.linalg.norm(previous[:, None] - places[None], axis=-1))[1], dtype=np.int64)
    found = np.full(len(places), -1)
    free = {tuple(place): index for index, place in enumerate(np.round(places, 6).tolist())}
    for unit, place in enumerate(np.round(previous, 6).tolist()):
        found[unit] = free.pop(tuple(place), -1)
    found[found < 0] = sorted(free.values())
    return found
