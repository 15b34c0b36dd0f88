"""Where the units of a layer are drawn: functions from profiles to positions.

A layout only decides places; what is drawn there is a topomap (`netlapse.analysis.topomap`). Every layout is a function
`(profiles (u, f), *, seed=0, previous=None, metric="euclidean") -> positions (u, 2)` in [0, 1], so that they can be exchanged.
`previous` is the layout of the checkpoint before, for the same units in the same order: a map that jumps between checkpoints
cannot be followed, so what a layout owes to the one before is part of each function's description.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from netlapse.types import Float64, Int64

METRICS = ("euclidean", "cosine", "correlation")


def metric_space(profiles: Float64, metric: str = "euclidean") -> Float64:
    """Rows (u, f) whose Euclidean distances order the profiles as the metric does.

    "euclidean" leaves the profiles as they are; "cosine" scales every row to unit length, "correlation" does so after
    subtracting the row's mean (squared Euclidean distance is then twice the cosine or correlation distance). A row without a
    direction (zero; for "correlation" constant up to rounding) becomes the zero vector, at distance 1 from every other row.

    Raises ValueError for an unknown metric, profiles that are not (u, f) with u, f >= 1, and NaN or infinite profiles.
    """
    profiles = np.asarray(profiles, dtype=np.float64)
    if metric not in METRICS:
        raise ValueError(f"unknown metric {metric!r}; allowed are {list(METRICS)}")
    if profiles.ndim != 2 or 0 in profiles.shape:
        raise ValueError(f"profiles have shape {profiles.shape}; expected (u, f) with u, f >= 1, one row per unit (transpose group profiles (g, u))")
    bad = ~np.isfinite(profiles)
    if bad.any():
        units, columns = np.flatnonzero(bad.any(axis=1)), np.flatnonzero(bad.any(axis=0))
        raise ValueError(
            f"profiles hold NaN or infinity in {len(units)} of {len(profiles)} units, {units[:5].tolist()} first, "
            f"and in {len(columns)} of {profiles.shape[1]} columns, {columns[:5].tolist()} first; drop the columns of empty groups before laying out"
        )
    if metric == "euclidean":
        return profiles
    size = np.abs(profiles).max(axis=1, keepdims=True)
    rows = np.divide(profiles, size, out=np.zeros_like(profiles), where=size > 0)
    if metric == "correlation":
        rows = rows - rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    # What is left of a constant row after its mean is rounding error, which must not be blown up to a direction.
    unit_rows: Float64 = np.divide(rows, length, out=np.zeros_like(rows), where=length > 1e-13 * np.sqrt(profiles.shape[1]))
    return unit_rows


def random(profiles: Float64, *, seed: int = 0, previous: Float64 | None = None, metric: str = "euclidean") -> Float64:
    """Uniformly random positions (u, 2) in [0, 1]: the baseline that knows nothing of the profiles.

    They depend on the seed and the number of units alone, so the layout stands still over checkpoints as long as the seed is
    the same; `previous` and `metric` are checked as everywhere and have nothing to act on.

    Raises ValueError as `metric_space` does, and for a previous layout of another shape.
    """
    rows = metric_space(profiles, metric)
    _checked(previous, len(rows))
    return np.random.default_rng(seed).random((len(rows), 2))


def pca(profiles: Float64, *, seed: int = 0, previous: Float64 | None = None, metric: str = "euclidean") -> Float64:
    """The profiles' first two principal components as positions (u, 2), scaled by one factor so that the longer side fills [0, 1].

    Components have no sign and no fixed order in time, so with `previous` the scores are rotated and reflected to lie as close
    to it as they can (see `procrustes`) before they are scaled; size and centre are not taken over. Without it each component
    is turned so that the sum of its cubed scores is positive. Profiles that vary in one direction only fall on a line,
    identical ones on the centre. Nothing is random; `seed` only matters beyond 512 features, see `_components`.

    Raises ValueError as `metric_space` does, and for a previous layout of another shape.
    """
    rows = metric_space(profiles, metric)
    previous = _checked(previous, len(rows))
    scores = np.zeros((len(rows), 2))
    found = _components(rows, 2, seed)
    scores[:, : found.shape[1]] = found
    return _fill(scores if previous is None else scores @ _rotation(scores, previous))


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
    previous = _checked(previous, len(rows))
    if not (np.isfinite(movement_penalty) and movement_penalty >= 0):
        raise ValueError(f"movement_penalty is {movement_penalty}; expected a finite number of at least 0, where 0 lets units move freely")
    cells = _disc(len(rows))
    places = _fill(cells.astype(np.float64))
    components = _components(rows, COMPONENTS, seed)
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


def procrustes(positions: Float64, reference: Float64) -> Float64:
    """The positions (u, 2) rotated, reflected, shifted and scaled by one factor to lie closest to the reference (u, 2).

    Closest in the sum of squared distances; the result may leave [0, 1]. Positions that are all the same are moved to the
    reference's centroid.

    Raises ValueError for shapes that are not (u, 2), differ, or hold NaN or infinity.
    Source: Schoenemann and Carroll, 1970, "Fitting one matrix to another under choice of a central dilation and a rigid motion".
    """
    positions = np.asarray(positions, dtype=np.float64)
    if positions.ndim != 2 or positions.shape[1] != 2 or len(positions) == 0 or not np.isfinite(positions).all():
        raise ValueError(f"positions have shape {positions.shape}; expected (u, 2) with u >= 1, all finite")
    checked = _checked(reference, len(positions), "reference")
    assert checked is not None
    centred = positions - positions.mean(axis=0)
    turned = centred @ _rotation(positions, checked)
    size = (turned**2).sum()
    scale = (turned * (checked - checked.mean(axis=0))).sum() / size if size > 0 else 1.0
    aligned: Float64 = turned * scale + checked.mean(axis=0)
    return aligned


COMPONENTS = 8  # of the profiles, in which cells and units are compared
BLOCK = 64  # cells that exchange their units in one exact assignment; its cost grows with the cube
START, RESTART = 0.25, 0.1  # first radius of a cell's neighbourhood over the disc's diameter, from nothing and from a previous layout
SMALLEST = 2.0  # that radius at least, in cells, so that small discs are sorted as well
DECAY = 0.93  # of that radius from round to round, until it is one cell


def _checked(positions: Float64 | None, units: int, name: str = "previous") -> Float64 | None:
    if positions is None:
        return None
    positions = np.asarray(positions, dtype=np.float64)
    if positions.shape != (units, 2) or not np.isfinite(positions).all():
        raise ValueError(
            f"{name} layout has shape {positions.shape} and {int((~np.isfinite(positions)).sum())} values that are not finite; "
            f"expected ({units}, 2), all finite, for the same units in the same order"
        )
    return positions


def _fill(points: Float64) -> Float64:
    """Points (u, 2) moved and scaled by one factor so that their bounding box is centred in the unit square and fills its longer side."""
    low, high = points.min(axis=0), points.max(axis=0)
    side = (high - low).max()
    filled: Float64 = np.clip((points - (low + high) / 2) / (side if side > 0 else 1.0) + 0.5, 0, 1)
    return filled


def _rotation(positions: Float64, reference: Float64) -> Float64:
    """The rotation or reflection (2, 2) to apply from the right that brings centred positions closest to the centred reference."""
    left, _, right = np.linalg.svd((positions - positions.mean(axis=0)).T @ (reference - reference.mean(axis=0)))
    rotation: Float64 = left @ right
    return rotation


def _components(rows: Float64, count: int, seed: int) -> Float64:
    """The scores (u, <= count) on the first principal components, the sum of each one's cubed scores not negative.

    Exact when the smaller side of the matrix is at most 512; beyond, by a seeded random range finder with four power
    iterations (Halko, Martinsson and Tropp, 2011, algorithm 4.4), which for the leading components is as good as exact.
    """
    centred = rows - rows.mean(axis=0)
    size = np.abs(centred).max()
    if size <= 1e-13 * np.abs(rows).max():
        return np.zeros((len(rows), min(count, rows.shape[1])))
    centred = centred / size
    if min(centred.shape) > 512:
        basis = np.random.default_rng(seed).normal(size=(centred.shape[1], count + 8))
        for _ in range(4):
            basis, _ = np.linalg.qr(centred.T @ (centred @ basis))
        centred = centred @ basis
    if centred.shape[1] <= centred.shape[0]:
        _, directions = np.linalg.eigh(centred.T @ centred)
        scores = centred @ directions[:, ::-1][:, :count]
    else:
        powers, directions = np.linalg.eigh(centred @ centred.T)
        scores = directions[:, ::-1][:, :count] * np.sqrt(np.maximum(powers[::-1][:count], 0))
    signed: Float64 = scores * np.where((scores**3).sum(axis=0) < 0, -1, 1) * size
    return signed


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
