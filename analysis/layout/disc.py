"""A full disc of cells, sorted: the layout `flas`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from netlapse.analysis.layout.base import checked, filled, metric_space, principal_components
from netlapse.types import Float64, Int64


def flas(
    profiles: Float64,
    *,
    seed: int = 0,
    previous: Float64 | None = None,
    metric: str = "euclidean",
    movement_penalty: float = 0.2,
) -> Float64:
    """A full disc of square-lattice cells, one unit in each, sorted so that similar profiles lie side by side: positions (u, 2).

    Fast linear assignment sorting: every cell asks for the local mean of the profiles around it, blocks of nearby cells
    hand out their units by exact linear assignment, and the neighbourhood shrinks from round to round. The wish of a cell is
    taken in the space of the profiles' first eight principal components.

    Without `previous` the disc is filled from the first two principal components and the neighbourhood starts at a quarter of
    the disc. With it the units start where they were and the neighbourhood starts small; besides the squared distance between
    its profile and its cell's wish, a unit at a distance d from its previous place (in radii of the disc) costs
    movement_penalty * spread * d**2, where the profiles are scaled to a mean squared distance of 1 from their mean and spread is
    the root mean squared distance of the round's wishes from theirs. 0 lets units move freely, larger values trade order for
    rest. A restart finds its way from any layout, but not always as far as a layout from nothing would. Previous positions
    that are not this disc's cells (those of another layout) are first assigned to cells: at least total squared distance for
    up to 1,024 units, by recursive bisection beyond.

    The same arguments give the same bytes. The longest row and column of cells reach from 0 to 1; cells are as far apart
    vertically as horizontally. A single unit lies at the centre. Identical profiles end up together, in no promised order.

    Raises ValueError as `metric_space` does, for a previous layout of another shape, and for a negative penalty.
    Source: Barthel, Hezel, Jung and Schall, 2023, "Improved evaluation and generation of grid layouts using distance
    preservation quality and linear assignment sorting", section 4, there on rectangles and without time.
    """
    rows = metric_space(profiles, metric)
    previous = checked(previous, len(rows))
    if not (np.isfinite(movement_penalty) and movement_penalty >= 0):
        raise ValueError(f"movement_penalty is {movement_penalty}; expected a finite number of at least 0, where 0 lets units move freely")
    cells = _disc(len(rows))
    places = filled(cells.astype(np.float64))
    components = principal_components(rows, COMPONENTS, seed)
    power = (components**2).sum(axis=1).mean()
    if power > 0:
        components = components / np.sqrt(power)
    side = int(np.ptp(cells, axis=0).max()) + 1
    if previous is None:
        held = _bisect(components[:, :2], places)
        return places[_sorted(components, cells, held, max(side * START, SMALLEST), np.zeros_like(places), seed)]
    held = _snap(previous, places)
    pull = np.sqrt(movement_penalty) * 2 * (places - 0.5)
    return places[_sorted(components, cells, held, max(side * RESTART, SMALLEST), pull, seed)]


COMPONENTS = 8  # of the profiles, in which cells and units are compared
BLOCK = 64  # cells that exchange their units in one exact assignment; its cost grows with the cube
START, RESTART = 0.25, 0.1  # first radius of a cell's neighbourhood over the disc's diameter, from nothing and from a previous layout
SMALLEST = 2.0  # that radius at least, in cells, so that small discs are sorted as well
DECAY = 0.93  # of that radius from round to round, until it is one cell


def _disc(units: int) -> Int64:
    """The cells (u, 2) of a square lattice that are nearest to a centre: a cell, an edge or a corner, whichever gives the rounder disc."""
    reach = int(np.ceil(np.sqrt(units / np.pi))) + 2
    lattice = np.stack(np.meshgrid(np.arange(-reach, reach + 1), np.arange(-reach, reach + 1)), axis=-1).reshape(-1, 2)
    discs = []
    for centre in ((0.0, 0.0), (0.5, 0.0), (0.5, 0.5)):
        distance = ((lattice - centre) ** 2).sum(axis=1)
        nearest = np.sort(np.lexsort((-lattice[:, 0], np.abs(lattice[:, 1]), distance))[:units])
        disc = lattice[nearest]
        discs.append((float(((disc - disc.mean(axis=0)) ** 2).sum()), disc))
    return min(discs, key=lambda rated: rated[0])[1].astype(np.int64)


def _bisect(points: Float64, places: Float64) -> Int64:
    """Which point each place gets (u,), by halving points and places together along the places' longer side.

    `points` may have one column only. O(u log(u)^2); keeps the order along both axes roughly, not any distance.
    """
    if points.shape[1] == 1:
        points = np.column_stack([points, np.zeros(len(points))])
    units, cells = np.arange(len(points)), np.arange(len(points))
    edges = np.array([0, len(points)])
    while (sizes := np.diff(edges)).max() > 1:
        part = np.repeat(np.arange(len(sizes)), sizes)
        boxes = np.maximum.reduceat(places[cells], edges[:-1]) - np.minimum.reduceat(places[cells], edges[:-1])
        axis = (boxes[:, 1] > boxes[:, 0] + 1e-9).astype(np.int64)[part]
        units = units[np.lexsort((points[units, 1 - axis], points[units, axis], part))]
        cells = cells[np.lexsort((places[cells, 1 - axis], places[cells, axis], part))]
        edges = np.union1d(edges, edges[:-1] + sizes // 2)
    held = np.empty(len(points), dtype=np.int64)
    held[cells] = units
    return held


def _snap(previous: Float64, places: Float64) -> Int64:
    """Which unit each place gets (u,), given where the units were: exactly, if that was on the places."""
    order, lattice = np.lexsort(np.round(previous, 6).T), np.lexsort(np.round(places, 6).T)
    held = np.empty(len(places), dtype=np.int64)
    held[lattice] = order
    if np.allclose(previous[held], places, rtol=0, atol=1e-6):
        return held
    if len(places) > 1024:
        return _bisect(previous, places)
    distances = ((places[:, None] - previous[None]) ** 2).sum(axis=-1)
    return np.asarray(linear_sum_assignment(distances)[1], dtype=np.int64)


def _sorted(components: Float64, cells: Int64, held: Int64, radius: float, pull: Float64, seed: int) -> Int64:
    """Which cell each unit ends up in (u,), starting from the unit `held` by each cell.

    `pull` (u, 2) are the cells' own positions in the scale of the movement penalty: half the squared distance between a
    cell's and the one a unit came from, times the spread of the wishes, is what the move costs, beside minus the product of the
    unit's components with the cell's wish. (Squared lengths of units and wishes add the same to every assignment and are left out.)
    """
    rng = np.random.default_rng(seed)
    units, low = len(cells), cells.min(axis=0)
    row, column = (cells - low).T
    shape = tuple(np.ptp(cells, axis=0) + 1)
    occupied = np.zeros(shape)
    occupied[row, column] = 1
    origin = np.empty_like(pull)
    origin[held] = pull
    wants = np.hstack([components, origin])
    grid = np.zeros((*shape, components.shape[1]))
    while radius >= 1:
        window = round(radius)
        across, down = _kernel(shape[0], window), _kernel(shape[1], window)
        grid[row, column] = components[held]
        blurred = np.matmul(down, np.tensordot(across, grid, axes=1))
        wishes = blurred[row, column] / (across @ occupied @ down)[row, column, None]
        # The fewer the cells, the more alike are their wishes, and a fixed price of moving would freeze a small disc.
        spread = np.sqrt(((wishes - wishes.mean(axis=0)) ** 2).sum(axis=1).mean())
        offers = np.hstack([wishes, spread * pull])
        for block in _blocks(cells, max(2 * window, 8), rng):
            taken = held[block]
            # Centring changes no assignment's rank; it starts the solver near its goal, a third faster.
            wanted, offered = (side - side.mean(axis=1, keepdims=True) for side in (wants[taken], offers[block]))
            for one, candidates, cost in zip(block, taken, -wanted @ offered.transpose(0, 2, 1)):
                who, where = linear_sum_assignment(cost)
                held[one[where]] = candidates[who]
        radius *= DECAY
    found = np.empty(units, dtype=np.int64)
    found[held] = np.arange(units)
    return found


def _kernel(size: int, window: int) -> Float64:
    """The matrix (size, size) that blurs with a triangle of half-width 2 * window + 1 (a box of that width, twice)."""
    apart = np.abs(np.subtract.outer(np.arange(size), np.arange(size)))
    kernel: Float64 = np.maximum(2 * window + 1 - apart, 0).astype(np.float64)
    return kernel


def _blocks(cells: Int64, tile: int, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """The cells in random blocks of BLOCK, each drawn from one tile of a randomly shifted tiling as far as tiles are full.

    A list of arrays (blocks, BLOCK), the second for the rest: one batched product each.
    """
    rows, columns = ((cells + rng.integers(0, tile, 2)) // tile).T
    order = rng.permutation(len(cells))
    order = order[np.lexsort((columns[order] * np.where(rows[order] % 2, -1, 1), rows[order]))]
    full = len(cells) // BLOCK * BLOCK
    return [block for block in (order[:full].reshape(-1, BLOCK), order[None, full:]) if block.size]
