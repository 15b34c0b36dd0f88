"""The forces of the published particle swarm between units at places: near ones repel, far ones attract each other.

Krug, Ratul, Olson and Stober, 2023, "Visualizing deep neural networks with topographic activation maps". They use them in two
ways, which are `spread` and `swarm` here.
"""

from __future__ import annotations

import numpy as np
from scipy import fft

from netlapse.types import Float64

NOISE = 1e-6  # that lets units at one place part: of the map's longer side, as published
EXACT = 1024  # units, up to which the forces are summed pair by pair: beyond, that is slower than the grid
BLOCK = 32  # units whose pairs with all others are looked at in one go: O(BLOCK * u) memory, few enough to stay in the cache
NODES = 128  # of the grid along each side


def schedule(steps: int, start: float = -3.0) -> Float64:
    """How much of each step's force is local (steps,): (1 + tanh(t)) / 2 for t from `start` to 6, from hardly any to all."""
    weights: Float64 = (1 + np.tanh(np.linspace(start, 6, steps))) / 2
    return weights


def pair_force(distance: Float64) -> Float64:
    """What the offset between two units is multiplied with, of any shape: repulsion (negative) up to a distance of about 24, then attraction.

    Distances below 0.01 count as 0.01.
    """
    distance = np.maximum(distance, 0.01)
    near = 1 / (1 + distance)
    force: Float64 = 1.5 * near * near * near - 15 * np.exp(-distance / 2)  # a power takes several times as long as two products
    return force


def local_force(points: Float64) -> Float64:
    """The mean force of all units on each (u, 2), mean_j of (p_j - p_i) * pair_force(|p_j - p_i|).

    Pair by pair up to 1,024 units, beyond on a grid with an error below a thousandth of the largest force.
    """
    return pairwise_force(points) if len(points) <= EXACT else mesh_force(points)


def pairwise_force(points: Float64) -> Float64:
    """`local_force` pair by pair, each pair once: O(u^2) time, O(u) memory."""
    sums = np.zeros_like(points)
    for start in range(0, len(points), BLOCK):
        one, rest, later = points[start : start + BLOCK], points[start:], points[start + BLOCK :]
        force = pair_force(np.sqrt((one[:, 0, None] - rest[:, 0]) ** 2 + (one[:, 1, None] - rest[:, 1]) ** 2))
        sums[start : start + BLOCK] += force @ rest - force.sum(axis=1)[:, None] * one
        back = force[:, BLOCK:]
        sums[start + BLOCK :] += back.T @ one - back.sum(axis=0)[:, None] * later
    return sums / len(points)


def mesh_force(points: Float64) -> Float64:
    """`local_force` by way of a grid: O(u) and a Fourier transform of the grid.

    Units are shared out to the 16 grid nodes around them with cubic weights, the nodes' forces on each other are one convolution, and
    the units get theirs back with the same weights (Hockney and Eastwood, 1988, "Computer simulation using particles", chapter 5).
    The force is smooth between nodes but for a kink where units touch, which weighs little in a mean over many. The points
    must not all be at one place.
    """
    low = points.min(axis=0)
    step = (points.max(axis=0) - low).max() / (NODES - 4)
    places = (points - low) / step + 1  # a node to spare below, two above, for the cubic weights
    nodes = places.astype(np.int64)
    across, down = _cubic(places - nodes).transpose(2, 0, 1)
    weights = (across[:, None] * down).reshape(16, -1)
    reach = np.arange(-1, 3)[:, None]
    rows, columns = nodes[:, 0] + reach, nodes[:, 1] + reach
    cells = (rows[:, None] * NODES + columns).reshape(16, -1)
    mass = np.bincount(cells.ravel(), weights.ravel(), NODES**2).reshape(NODES, NODES)
    # Twice the grid, so that the forces do not reach around its edges; both axes at once, as one complex number.
    offset = fft.fftfreq(2 * NODES, 1 / (2 * NODES)) * step
    kernel = -(offset[:, None] + 1j * offset) * pair_force(np.sqrt(offset[:, None] ** 2 + offset**2))
    field = fft.ifft2(fft.fft2(mass, (2 * NODES, 2 * NODES)) * fft.fft2(kernel))[:NODES, :NODES].ravel()
    force = (field[cells] * weights).sum(axis=0) / len(points)
    return np.column_stack([force.real, force.imag])


def _cubic(part: Float64) -> Float64:
    """Weights (4, ...) of the nodes at -1, 0, 1 and 2 in cubic interpolation at `part` (...) of the way from 0 to 1."""
    before, after, last = part + 1, part - 1, part - 2
    return np.stack([-part * after * last / 6, before * after * last / 2, -before * part * last / 2, before * part * after / 6])
