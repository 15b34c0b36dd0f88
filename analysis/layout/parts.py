"""Units that say nothing, laid out apart from the others: `apart`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from netlapse.analysis.layout.base import checked, filled
from netlapse.analysis.layout.calm import Layout
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
    """Positions (u, 2) in [0, 1]: the living units by the layout of them alone, and the dead (u,) in rings around them.

    Dead units are all alike. Among the others they would take the middle of a map or pull it out of shape; left out they could
    not be counted.

    Rings have the middle of the square as their centre and are a fixed pitch apart: the spacing of u units that fill the disc
    in the square. The innermost is the first that is at least one pitch away from every living unit. Each has as many places
    as are a pitch apart along it, and is filled before the next is begun, from the bottom to both sides. Then all is scaled about
    the centre by one factor, by which the outermost ring touches the square's sides: it is the same as long as that ring is the
    same. With `previous`, units that stay dead stay where they are as far as their places remain.

    Without dead units this is the layout itself. Without living ones it is the full disc of `flas`.

    previous  positions (u, 2) as this function gave them. The layout is handed those of the living, scaled by one factor to
              fill the square again, which is where they were if the same units live and the layout fills the square

    Raises ValueError for `dead` that is not (u,) of bool and for a previous layout of another shape, beside what the layout raises.
    """
    units = len(profiles)
    if np.shape(dead) != (units,) or np.asarray(dead).dtype != np.bool_:
        raise ValueError(f"dead has shape {np.shape(dead)} and type {np.asarray(dead).dtype}; expected ({units},) of bool, one for each unit")
    previous = checked(previous, units)
    if not dead.any():
        return layout(profiles, seed=seed, previous=previous)
    if dead.all():
        return flas(np.zeros((units, 1)), seed=seed, previous=previous)
    before = None if previous is None else filled(previous[~dead])
    living = layout(profiles[~dead], seed=seed, previous=before) - 0.5
    pitch = np.sqrt(np.pi / 4 / units)
    ring, places = rings(int(dead.sum()), int(np.ceil(np.linalg.norm(living, axis=1).max() / pitch)) + 1)
    positions = np.empty((units, 2))
    positions[~dead] = 0.5 + living * (0.5 / (ring * pitch))
    places = 0.5 + places * (0.5 / ring)
    positions[dead] = places if previous is None else places[_nearest(previous[dead], places)]
    return np.clip(positions, 0, 1)


def rings(count: int, first: int) -> tuple[int, Float64]:
    """The radius of the outermost of the rings that hold `count` places, and the places (count, 2) about the centre.

    Rings have the radii first, first + 1, ...; places on them are at least 1 apart, in the order in which they are taken.
    """
    places: list[Float64] = []
    radius = first
    while True:
        size = int(2 * np.pi * radius)
        turn = np.arange(min(size, count))
        # 0, 1, -1, 2, -2, ... places from the bottom, so that one unit more moves no other.
        side = np.where(turn % 2, (turn + 1) // 2, -(turn // 2))
        angle = -np.pi / 2 + 2 * np.pi * side / size
        places.append(radius * np.column_stack([np.cos(angle), np.sin(angle)]))
        count -= size
        if count <= 0:
            return radius, np.concatenate(places)
        radius += 1


def _nearest(previous: Float64, places: Float64) -> Int64:
    """Which place each unit takes (d,), at least total distance from where it was; beyond 1,024 units, those it has as long as they remain.

    Distances and not their squares, under which all units of a ring would move on by one to make room.
    """
    if len(places) <= 1024:
        return np.asarray(linear_sum_assignment(np.linalg.norm(previous[:, None] - places[None], axis=-1))[1], dtype=np.int64)
    found = np.full(len(places), -1)
    free = {tuple(place): index for index, place in enumerate(np.round(places, 6).tolist())}
    for unit, place in enumerate(np.round(previous, 6).tolist()):
        found[unit] = free.pop(tuple(place), -1)
    found[found < 0] = sorted(free.values())
    return found
