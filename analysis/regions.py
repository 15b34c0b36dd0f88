"""Units of a part of a map: choose a disc or a polygon and learn which units lie in it, or where a map responds most.

Regions are in map coordinates, as positions are: [0, 1], x to the right, y up. A picture's row is 1 - y and its column x
(`netlapse.field`), so that a region read off a picture is the region of the units drawn there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import convolve

from netlapse.field import finite_positions, pixel_centres
from netlapse.types import Float64, Int64

BORDER = 1e-9
"""How far, in map widths, a point may lie off a region's border and still be on it: rounding, and no pixel is as small."""


@dataclass(frozen=True)
class Disc:
    """All points at most the radius away from the centre (x, y), both in map widths.

    Raises ValueError for a centre that is not two finite numbers and for a radius that is not positive and finite.
    """

    centre: tuple[float, float]
    radius: float

    def __post_init__(self) -> None:
        centre = np.asarray(self.centre, dtype=np.float64)
        if centre.shape != (2,) or not np.isfinite(centre).all():
            raise ValueError(f"a disc's centre is {self.centre}; expected two finite numbers (x, y) in map coordinates")
        if not (np.isfinite(self.radius) and self.radius > 0):
            raise ValueError(f"a disc's radius is {self.radius}; expected a finite number above 0, in map widths")
        object.__setattr__(self, "centre", (float(centre[0]), float(centre[1])))
        object.__setattr__(self, "radius", float(self.radius))

    def holds(self, points: Float64) -> NDArray[np.bool_]:
        """Which points (u, 2) lie in the region (u,); its border belongs to it."""
        inside: NDArray[np.bool_] = np.hypot(*(points - self.centre).T) <= self.radius + BORDER
        return inside


@dataclass(frozen=True, eq=False)
class Polygon:
    """All points within the closed line through the points (m, 2), the last joined to the first.

    The line may cross itself, as one drawn by hand does: a point is within if a ray from it crosses the line an odd number of
    times (the even-odd rule), so what is encircled twice is outside.

    Raises ValueError for fewer than three points, points that are not (m, 2), and NaN or infinity.
    """

    points: ArrayLike

    def __post_init__(self) -> None:
        points = np.array(self.points, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != 2 or len(points) < 3:
            raise ValueError(f"a polygon's points have shape {points.shape}; expected (m, 2) with m >= 3, one corner (x, y) per row")
        bad = np.flatnonzero(~np.isfinite(points).all(axis=1))
        if len(bad):
            raise ValueError(f"a polygon's points hold NaN or infinity in {len(bad)} of {len(points)} corners, first at corner {bad[0]}")
        object.__setattr__(self, "points", points)

    def holds(self, points: Float64) -> NDArray[np.bool_]:
        """Which points (u, 2) lie in the region (u,); its border belongs to it."""
        starts = np.asarray(self.points, dtype=np.float64)
        inside = np.zeros(len(points), dtype=bool)
        border = np.zeros(len(points), dtype=bool)
        for start, end in zip(starts, np.roll(starts, -1, axis=0)):
            side, apart = end - start, points - start
            length = side @ side
            along = np.clip(apart @ side / length, 0, 1) if length > 0 else np.zeros(len(points))
            border |= np.hypot(*(apart - along[:, None] * side).T) <= BORDER
            # One end of a side counts and the other does not, so that a ray through a corner crosses once or twice as it should.
            crosses = (start[1] > points[:, 1]) != (end[1] > points[:, 1])
            turn = side[0] * apart[:, 1] - side[1] * apart[:, 0]
            inside ^= crosses & ((turn > 0) == (side[1] > 0))
        return inside | border


Region = Disc | Polygon


def units_in(positions: Float64, region: Region) -> Int64:
    """The indices (m,), ascending, of the units whose positions (u, 2) lie in the region or on its border.

    Raises ValueError for positions that are not (u, 2) with u >= 1, or not finite.
    """
    return np.flatnonzero(region.holds(finite_positions(positions)))


def most_responsive(field: Float64, positions: Float64, size: float = 0.25) -> tuple[Disc, Int64]:
    """The disc where a map (r, r) responds most, and the units (m,) whose positions (u, 2) lie in it.

    The map is smoothed by a mean filter, the disc of the given size, and the centre of the disc is where the result is
    largest in absolute value: a region of one sign, strong throughout. Pixels that are not covered count neither as
    centres nor in a mean. Among equals the first pixel counts, row by row from the top left.

    size  the disc's diameter, in map widths (published: 25 of 100 pixels)

    Raises ValueError for a field that is not (r, r), holds infinity or covers no pixel, for positions that are not finite
    (u, 2), and for a size that is not above 0 and at most 1.
    """
    field, positions = np.asarray(field, dtype=np.float64), finite_positions(positions)
    if field.ndim != 2 or field.shape[0] != field.shape[1]:
        raise ValueError(f"field has shape {field.shape}; expected (r, r), the map of one group")
    covered = ~np.isnan(field)
    if np.isinf(field).any() or not covered.any():
        raise ValueError(
            f"field holds infinity in {int(np.isinf(field).sum())} pixels and covers {int(covered.sum())} of {field.size}; "
            "expected finite numbers, and NaN outside the hull only (a group without inputs has no map)"
        )
    if not 0 < size <= 1:
        raise ValueError(f"size is {size}; expected above 0 and at most 1, the disc's diameter in map widths")
    resolution = len(field)
    reach = int(size / 2 * resolution)
    across, down = np.meshgrid(np.arange(-reach, reach + 1), np.arange(-reach, reach + 1))
    disc = (np.hypot(across, down) <= size / 2 * resolution + BORDER).astype(np.float64)
    sums, counts = (convolve(np.where(covered, values, 0.0), disc, mode="constant") for values in (field, 1.0))
    means = np.divide(np.abs(sums), counts, out=np.full_like(field, -1.0), where=covered)
    x, y = pixel_centres(resolution)[int(np.argmax(means))]
    found = Disc((x, y), size / 2)
    return found, units_in(positions, found)
