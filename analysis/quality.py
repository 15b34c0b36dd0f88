"""How well a layout shows a layer: numbers for one layout of its units, and between two.

Three questions, which no single number answers. Are neighbours on the map alike (trustworthiness), and alike units neighbours
(continuity, neighbour preservation)? Are the maps drawn on it smooth (Moran's I on the units; resize error, blur error and components
on the pictures)? How much of the picture is there to see (hull coverage): a map of a small hull is mostly empty and looks
smooth for that. What such a number is worth shows beside the same of a random layout, `null_measures`.

Regular maps are full of ties. Units tied for the last of k places share it equally, which is the mean over all ways to break
the tie, so no number depends on the order of the units, and no unit is ever its own neighbour. Distances count as tied when
they agree to about nine digits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import scipy.sparse as sp
from scipy.ndimage import gaussian_filter1d, label
from scipy.spatial import ConvexHull, cKDTree

from netlapse.analysis.layout import metric_space, random
from netlapse.field import fields, finite_positions, interpolation, span_area
from netlapse.types import Float64, Int64

SAMPLE, LEAST, PAIRS = 2048, 256, 2**22
"""Units that are judged at most and at least, and distances that are looked at: means over more units are estimated from a sample."""

SIZES = tuple(range(55, 5, -5))
"""The published widths, in pixels, that a map is resized to and back."""

BLURS = tuple((2 * k + 2) / 300 for k in range(10))
"""The published standard deviations of the blur, 2 to 20 pixels of a map about 300 wide, in widths of the map."""

RESOLUTION = 64
"""Of the pictures that `measures` looks at: the one `netlapse.analysis.topomap` draws by default, so that operators are shared."""


def trustworthiness(profiles: Float64, positions: Float64, *, k: int = 10, metric: str = "euclidean", seed: int = 0) -> float:
    """How many of a unit's k nearest neighbours on the map (u, 2) are near it among the profiles (u, f) too: 1 all, about 0.5 at random.

    A map neighbour that is r-th nearest by profile, r > k, costs r - k; the sum is scaled to at most 1. k is lowered to
    (u - 1) // 2, above which the scale is undefined; with fewer than four units the result is NaN.

    Units tied for the last of the k places on the map share it. Units equally near by profile share the better rank, so
    identical profiles are no one's false neighbours.

    With more than 2,048 units the mean over all units is estimated from a seeded sample, each judged among all units: of 2**22 / u
    units and at least 256, so that time does not grow with the square of u.

    Raises ValueError as `metric_space` does, for positions that are not finite (u, 2) and for k below 1.
    Source: Venna and Kaski, 2001, "Neighborhood preservation in nonlinear projection methods", eq. 1.
    """
    rows, places, k = _checked(profiles, positions, k, metric)
    misplaced = sum(_near(places, some, k).misplaced(_near(rows, some, k)) for some in _blocks(len(rows), seed))
    return _rank_measure(misplaced, len(rows), k)


def continuity(profiles: Float64, positions: Float64, *, k: int = 10, metric: str = "euclidean", seed: int = 0) -> float:
    """How many of a unit's k nearest neighbours among the profiles (u, f) are near it on the map (u, 2) too: 1 all, about 0.5 at random.

    `trustworthiness` with the two exchanged: units tied by profile share the last places, units equally near on the map share
    the better rank. k, few units, many units and what is raised are as there.

    Source: Venna and Kaski, 2001, eq. 2.
    """
    rows, places, k = _checked(profiles, positions, k, metric)
    misplaced = sum(_near(rows, some, k).misplaced(_near(places, some, k)) for some in _blocks(len(rows), seed))
    return _rank_measure(misplaced, len(rows), k)


def neighbour_preservation(profiles: Float64, positions: Float64, *, k: int = 10, metric: str = "euclidean", seed: int = 0) -> float:
    """The mean share of a unit's k nearest neighbours among the profiles (u, f) that are so on the map (u, 2) too: 1 all, k / (u - 1) at random.

    Ties are broken on either side without regard to the other, so where all profiles are identical this is what chance gives.
    k, few units, many units and what is raised are as in `trustworthiness`.

    Source: Lee and Verleysen, 2009, "Quality assessment of dimensionality reduction: rank-based criteria", Q_NX.
    """
    rows, places, k = _checked(profiles, positions, k, metric)
    return _preserved(sum(_near(rows, some, k).in_common(_near(places, some, k)) for some in _blocks(len(rows), seed)), len(rows), k)


def morans_i(values: Float64, positions: Float64, *, k: int = 10, seed: int = 0) -> float:
    """How alike the values (g, u) of neighbours on the map (u, 2) are: near 1 at most, -1 / (u - 1) at random, below where they alternate.

    For each group the mean product of a unit's and a neighbour's deviation from the group's mean over all units, divided by
    their variance; a unit's k nearest weigh 1, those tied for the last places share them, all others 0. The mean over the
    groups whose values are not all the same (nor NaN: an empty group); NaN if there is none, or fewer than four units.
    k is lowered to (u - 1) // 2 and many units are sampled as in `trustworthiness`.

    Raises ValueError for positions that are not finite (u, 2), for values that are not (g, u), or NaN or infinite in part of a
    group, and for k below 1.
    Source: Moran, 1950, "Notes on continuous stochastic phenomena".
    """
    places, k = _centred(finite_positions(positions)), _lowered(k, len(positions))
    standard = _standardised(values, len(places))
    products = sum((_near(places, some, k).products(standard, some) for some in _blocks(len(places), seed)), np.zeros(len(standard)))
    return _autocorrelation(products, len(places), k)


def same_group(points: Float64, groups: Int64, *, k: int = 10, metric: str = "euclidean", seed: int = 0) -> float:
    """The mean share of a point's k nearest neighbours among the points (m, f) that are of its own group (m,): 1 where groups lie apart.

    A group of k points or fewer cannot reach 1; what chance gives is `same_group_by_chance`. The points may be inputs on a map or in a
    layer, or units. Ties, k, few points, many points and what is raised of points are as in `trustworthiness`.

    Raises ValueError also for groups that are not (m,), one for each point.
    """
    rows, k = _centred(metric_space(points, metric)), _lowered(k, len(points))
    groups = np.asarray(groups)
    if groups.shape != (len(rows),):
        raise ValueError(f"groups have shape {groups.shape}; expected ({len(rows)},), one for each point")
    together = sum(float(_near(rows, some, k).share[groups[some, None] == groups].sum()) for some in _blocks(len(rows), seed))
    return _preserved(together, len(rows), k)


def same_group_by_chance(groups: Int64) -> float:
    """The `same_group` to be expected where neighbours have nothing to do with groups (m,): the share of pairs that are of one group.

    NaN for fewer than two points.
    """
    sizes = np.unique(np.asarray(groups), return_counts=True)[1]
    pairs = len(groups) * (len(groups) - 1)
    return float((sizes * (sizes - 1)).sum() / pairs) if pairs else float("nan")


def resize_error(maps: Float64) -> float:
    """How much maps (g, r, r) lose when they are made smaller and large again: the lower, the smoother; 0 for nothing, about 9 for all.

    Each map is resized to 55, 50, ... 10 pixels and back, bicubically and with its kernel widened to the scale (antialiased), and
    the mean squared difference divided by the map's variance, so that it does not depend on the values' scale. The area
    under the curve over the ten sizes, by the trapezoid rule with steps of 1; the mean over the groups.

    NaN is not covered: such a pixel takes the value of the nearest covered one (the mean of those equally near), so that the
    edge of the hull is no edge in the values, and counts neither in the difference nor in the variance. Maps of NaN (empty
    groups) and maps that are the same everywhere have no error and are left out; NaN if no other is left. Report
    `hull_coverage` beside it.

    Raises ValueError for maps that are not (g, r, r) with r >= 55, or hold infinity.
    Source: Krug, Ratul, Olson and Stober, 2023, "Visualizing deep neural networks with topographic activation maps"; their program squares
    differences modulo 256, here as in the definition they are numbers.
    """
    maps = _checked_maps(maps, SIZES[0])
    return _lost(*_continued(maps), _resizing(maps.shape[-1]))


def blur_error(maps: Float64) -> float:
    """How much maps (g, r, r) lose when they are blurred: the lower, the smoother; 0 for nothing, about 9 for all.

    As `resize_error`, for ten Gaussian blurs whose standard deviations are 2, 4, ... 20 three-hundredths of the map's width (published
    as pixels of a map about 300 wide); beyond the picture its outermost pixels continue.

    Raises ValueError for maps that are not (g, r, r), or hold infinity.
    Source: as `resize_error`.
    """
    maps = _checked_maps(maps, 1)
    return _lost(*_continued(maps), _blurring(maps.shape[-1]))


def components(maps: Float64, *, limit: float | None = None, threshold: float = 0.1) -> tuple[float, float]:
    """How many regions of one sign maps (g, r, r) have on average, and how large one is on average, as a share of the covered map.

    A region is a set of pixels above threshold * limit, or below minus that, connected over sides and corners, that fills at
    least a thousandth of the picture (published: 10 of 100 x 100 pixels).

    limit      what the colour scale reaches; the largest absolute value of all maps when not given
    threshold  from which part of it a colour tells from white (published: 26 of 255 shades)

    The number is a mean over the groups with a map; NaN if all are NaN. The size is a mean over all regions; NaN if there is none.

    Raises ValueError for maps that are not (g, r, r), or hold infinity, for a limit that is negative or not finite and for a
    threshold outside 0 to 1.
    Source: as `resize_error`; there the sign is read off the colours, and the background is counted with the regions.
    """
    maps = _checked_maps(maps, 1)
    if limit is not None and not (np.isfinite(limit) and limit >= 0):
        raise ValueError(f"limit is {limit}; expected a finite number of at least 0, the largest value of the colour scale")
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold is {threshold}; expected 0 to 1, a part of the limit")
    maps = maps[~np.isnan(maps).all(axis=(1, 2))]
    if len(maps) == 0:
        return float("nan"), float("nan")
    least = threshold * (np.nanmax(np.abs(maps)) if limit is None else limit)
    sizes: list[float] = []
    for shown in maps:
        covered = (~np.isnan(shown)).sum()
        for signed in (shown, -shown):
            regions, _ = label(signed > least, np.ones((3, 3)))
            pixels = np.bincount(regions.ravel())[1:]
            sizes += (pixels[pixels >= shown.size / 1000] / covered).tolist()
    return len(sizes) / len(maps), float(np.mean(sizes)) if sizes else float("nan")


def hull_coverage(positions: Float64) -> float:
    """The share of the picture that the convex hull of the positions (u, 2) covers: 1 for a full square, about pi / 4 for a full disc.

    The picture shows [0, 1]; of positions that leave it the whole hull is counted. 0 for units that span no area.

    Raises ValueError for positions that are not finite (u, 2).
    """
    positions = finite_positions(positions)
    return float(ConvexHull(positions).volume) if span_area(positions) else 0.0


def motion(positions: Float64, previous: Float64) -> float:
    """Mean displacement of the units between two layouts (u, 2), in root mean square radii of the previous about its centroid.

    NaN where the previous layout has no extent (a single unit). Units that swap places at random give about 1.25 on a disc.

    Raises ValueError for shapes that are not (u, 2) with u >= 1, or differ.
    """
    positions, previous = np.asarray(positions, dtype=np.float64), np.asarray(previous, dtype=np.float64)
    if previous.ndim != 2 or previous.shape[1] != 2 or len(previous) == 0 or positions.shape != previous.shape:
        raise ValueError(
            f"positions have shape {positions.shape} and previous {previous.shape}; expected (u, 2) twice, the same units in the same order"
        )
    radius = np.sqrt(((previous - previous.mean(axis=0)) ** 2).sum(axis=1).mean())
    return float(np.linalg.norm(positions - previous, axis=1).mean() / radius) if radius > 0 else float("nan")


def measures(profiles: Float64, positions: Float64, values: Float64, *, k: int = 10, metric: str = "euclidean", seed: int = 0) -> dict[str, float]:
    """All that is measured of one layout (u, 2) of units with profiles (u, f), which shows the values (g, u), by name.

    Each number is what the function of its name returns; `components` and `component_area` are the two of that function. Those of
    pictures are of linear ones, 64 pixels wide. Neighbours are searched for once.

    Raises ValueError as those functions do.
    """
    return _of_neighbours(profiles, positions, values, k, metric, seed) | _of_pictures(positions, values)


def null_measures(profiles: Float64, values: Float64, *, k: int = 10, metric: str = "euclidean", seed: int = 0) -> dict[str, float]:
    """`measures` of a random layout of the same units: what each number is worth nothing at.

    The layout is `netlapse.analysis.layout.random` with the seed, so that it is the same at all steps and for all layers of as many
    units. What is measured of pictures is that of ten groups of random values on it, worked out once: values that are
    strewn at random make a picture that has nothing to do with what they are, as those errors are in its own variance.

    Raises ValueError as `measures` does.
    """
    units = len(metric_space(profiles, metric))
    return _of_neighbours(profiles, _random_places(units, seed), values, k, metric, seed) | _null_of_pictures(units, seed)


@lru_cache(maxsize=256)
def _null_of_pictures(units: int, seed: int) -> dict[str, float]:
    return _of_pictures(_random_places(units, seed), np.random.default_rng(seed).normal(size=(10, units)))


def _of_neighbours(profiles: Float64, positions: Float64, values: Float64, k: int, metric: str, seed: int) -> dict[str, float]:
    rows, places, k = _checked(profiles, positions, k, metric)
    standard = _standardised(values, len(rows))
    intruding = missing = in_common = 0.0
    products = np.zeros(len(standard))
    for some in _blocks(len(rows), seed):
        apart, shown = _near(rows, some, k), _near(places, some, k)
        intruding += shown.misplaced(apart)
        missing += apart.misplaced(shown)
        in_common += apart.in_common(shown)
        products += shown.products(standard, some)
    return {
        "trustworthiness": _rank_measure(intruding, len(rows), k),
        "continuity": _rank_measure(missing, len(rows), k),
        "neighbour_preservation": _preserved(in_common, len(rows), k),
        "morans_i": _autocorrelation(products, len(rows), k),
    }


def _of_pictures(positions: Float64, values: Float64) -> dict[str, float]:
    maps = fields(interpolation(positions, RESOLUTION), values)
    continued = _continued(maps)
    number, area = components(maps)
    return {
        "resize_error": _lost(*continued, _resizing(RESOLUTION)),
        "blur_error": _lost(*continued, _blurring(RESOLUTION)),
        "hull_coverage": hull_coverage(positions),
        "components": number,
        "component_area": area,
    }


@lru_cache(maxsize=64)
def _random_places(units: int, seed: int) -> Float64:
    places = random(np.zeros((units, 1)), seed=seed)
    places.flags.writeable = False  # all who ask are handed the same array
    return places


@dataclass(frozen=True, eq=False)
class _Near:
    """How far b judged units are from all u, in one of the two spaces.

    distances  (b, u) squared, infinite to itself
    tie        the largest difference between two of them that still counts as none
    """

    distances: Float64
    tie: float
    k: int

    @cached_property
    def share(self) -> Float64:
        """(b, u) 1 for a unit's k nearest neighbours, equal parts for those tied for the last places, 0 for others; rows sum to k."""
        last = np.partition(self.distances, self.k - 1, axis=1)[:, self.k - 1 : self.k]
        sure, tied = self.distances < last - self.tie, np.abs(self.distances - last) <= self.tie
        parts: Float64 = sure + tied * ((self.k - sure.sum(axis=1)) / tied.sum(axis=1))[:, None]
        return parts

    @cached_property
    def ordered(self) -> Float64:
        return np.sort(self.distances, axis=1)

    def misplaced(self, other: _Near) -> float:
        """By how many ranks the units' k nearest neighbours here are beyond the k nearest in the other space, in all."""
        total = 0.0
        for share, nearest, distances in zip(self.share, other.ordered, other.distances):
            neighbours = np.flatnonzero(share)
            ranks = 1 + np.searchsorted(nearest, distances[neighbours] - other.tie)
            total += float(share[neighbours] @ np.maximum(ranks - other.k, 0))
        return total

    def in_common(self, other: _Near) -> float:
        """How many of the units' k nearest neighbours here are among the k nearest in the other space, in all."""
        return float((self.share * other.share).sum())

    def products(self, values: Float64, some: Int64) -> Float64:
        """(g,) the products of the judged units' values (g, u) with their k nearest neighbours', in all."""
        products: Float64 = (values[:, some] * (values @ self.share.T)).sum(axis=1)
        return products


def _near(points: Float64, some: Int64, k: int) -> _Near:
    """Some of the centred points (u, f) judged among all."""
    squares = (points**2).sum(axis=1)
    distances = squares[some, None] + squares - 2 * points[some] @ points.T
    distances[np.arange(len(some)), some] = np.inf
    return _Near(distances, 1e-9 * float(squares.max()), k)


def _blocks(units: int, seed: int) -> list[Int64]:
    """The judged units in blocks of at most 256, so that memory stays linear in the units; none where there are too few to judge."""
    if units < 4:
        return []
    judged = np.arange(units)
    if units > _judged(units):
        judged = np.sort(np.random.default_rng(seed).choice(units, _judged(units), replace=False))
    return np.array_split(judged, -(-len(judged) // 256))


def _judged(units: int) -> int:
    """How many units are judged among all: so many that the distances to all are PAIRS, but not fewer than LEAST."""
    return min(units, SAMPLE, max(LEAST, PAIRS // units))


def _rank_measure(misplaced: float, units: int, k: int) -> float:
    """1 minus the ranks by which neighbours are misplaced, scaled by the most that can be."""
    if units < 4:
        return float("nan")
    return 1 - 2 * misplaced / (_judged(units) * k * (2 * units - 3 * k - 1))


def _preserved(in_common: float, units: int, k: int) -> float:
    return in_common / (_judged(units) * k) if units >= 4 else float("nan")


def _autocorrelation(products: Float64, units: int, k: int) -> float:
    """The mean over groups (g,) of the products of standardised values with their neighbours'."""
    return float(products.mean()) / (_judged(units) * k) if units >= 4 and len(products) else float("nan")


def _checked(profiles: Float64, positions: Float64, k: int, metric: str) -> tuple[Float64, Float64, int]:
    """The profiles in the metric's space and the positions, both centred, and the number of neighbours to look at."""
    rows = metric_space(profiles, metric)
    positions = np.asarray(positions, dtype=np.float64)
    if positions.shape != (len(rows), 2) or not np.isfinite(positions).all():
        raise ValueError(f"positions have shape {positions.shape}; expected ({len(rows)}, 2), all finite, one point per profile")
    return _centred(rows), _centred(positions), _lowered(k, len(rows))


def _centred(points: Float64) -> Float64:
    """Points about their mean, the largest coordinate 1: neighbours stay, and squares neither overflow nor vanish."""
    points = points - points.mean(axis=0)
    size = np.abs(points).max()
    return points / size if size > 0 else points


def _lowered(k: int, units: int) -> int:
    if k < 1:
        raise ValueError(f"k is {k}; expected at least 1 neighbour")
    return min(k, (units - 1) // 2)


def _standardised(values: Float64, units: int) -> Float64:
    """The groups' values (g, u) with mean 0 and variance 1, without groups of NaN and groups whose values are all the same."""
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != units:
        raise ValueError(f"values have shape {values.shape}; expected (g, {units}), one row per group and one column per unit")
    values = values[~np.isnan(values).all(axis=1)]
    bad = np.flatnonzero(~np.isfinite(values).all(axis=0))
    if len(bad):
        raise ValueError(
            f"values hold NaN or infinity in {len(bad)} of {units} units, first at unit {bad[0]}; "
            "expected finite values, or NaN in all units of a group (an empty one)"
        )
    centred = values - values.mean(axis=1, keepdims=True)
    # What is left of equal values is rounding error, which must not be blown up to a pattern.
    centred = centred[np.abs(centred).max(axis=1) > 1e-12 * np.abs(values).max(axis=1)]
    centred = centred / np.abs(centred).max(axis=1, keepdims=True)
    standard: Float64 = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True))
    return standard


def _checked_maps(maps: Float64, least: int) -> Float64:
    maps = np.asarray(maps, dtype=np.float64)
    if maps.ndim != 3 or maps.shape[1] != maps.shape[2] or maps.shape[1] < least:
        raise ValueError(f"maps have shape {maps.shape}; expected (g, r, r) with r >= {least}, one square picture per group")
    if np.isinf(maps).any():
        raise ValueError(
            f"maps hold infinity in {int(np.isinf(maps).any(axis=(1, 2)).sum())} of {len(maps)} groups; expected numbers, and NaN outside the hull"
        )
    return maps


def _continued(maps: Float64) -> tuple[Float64, Float64]:
    """The maps (g, r, r) that vary, with mean 0 and variance 1, continued to every pixel; and the weights (g, r, r) of a mean over covered ones."""
    pictures, weights = [], []
    for shown in maps[~np.isnan(maps).all(axis=(1, 2))]:
        inside = ~np.isnan(shown)
        values = _standardised(shown[inside][None], int(inside.sum()))
        if len(values):
            pictures.append((_continuation(inside.tobytes(), len(inside)) @ values[0]).reshape(shown.shape))
            weights.append(inside / inside.sum())
    return np.array(pictures), np.array(weights)


@lru_cache(maxsize=64)
def _continuation(mask: bytes, width: int) -> sp.csr_matrix:
    """The operator (r * r, covered pixels) that gives every pixel the value of the nearest covered one, or the mean of those equally near.

    The mean, so that a map and its mirror image are continued alike.
    """
    inside = np.frombuffer(mask, dtype=bool).reshape(width, width)
    tree, missing = cKDTree(np.argwhere(inside)), np.argwhere(~inside)
    # Squared distances between pixels are whole numbers: the margin parts no ties and makes none.
    nearest = tree.query_ball_point(missing, tree.query(missing)[0] + 1e-6)
    counts = np.array([len(near) for near in nearest], dtype=np.int64)
    rows = np.concatenate([np.flatnonzero(inside), np.repeat(np.flatnonzero(~inside), counts)])
    columns = np.concatenate([np.arange(tree.n), *nearest]).astype(np.int64)
    weights = np.concatenate([np.ones(tree.n), np.repeat(1 / counts, counts)])
    return sp.csr_matrix((weights, (rows, columns)), shape=(width**2, tree.n))


def _lost(maps: Float64, weights: Float64, operators: Float64) -> float:
    """The area under the curve of mean squared differences between maps and what each of the operators (10, r, r) makes of them along both axes."""
    if len(maps) == 0:
        return float("nan")
    # In float32, which is twice as fast: of a variance of 1, seven digits are more than a map tells.
    side, shares = maps.shape[-1], weights.astype(np.float32)
    narrow = np.ascontiguousarray(maps, np.float32)
    curve = []
    for operator in operators.astype(np.float32):
        across = (narrow.reshape(-1, side) @ operator.T).reshape(narrow.shape)
        lost = operator @ across - narrow
        curve.append(float(np.einsum("gij,gij,gij->", lost, lost, shares, optimize=False)) / len(maps))
    return float(np.trapezoid(curve))


@lru_cache(maxsize=8)
def _resizing(width: int) -> Float64:
    """The operators (10, r, r) that resize a row of pixels to each of the published sizes and back."""
    return np.stack([_bicubic(width, size) @ _bicubic(size, width) for size in SIZES])


@lru_cache(maxsize=8)
def _blurring(width: int) -> Float64:
    """The operators (10, r, r) that blur a row of pixels with each of the published widths."""
    return np.stack([gaussian_filter1d(np.eye(width), blur * width, axis=0, mode="nearest") for blur in BLURS])


def _bicubic(after: int, before: int) -> Float64:
    """The operator (after, before) that resizes a row of pixels by cubic convolution, its kernel widened where it shrinks.

    Source: Keys, 1981, "Cubic convolution interpolation for digital image processing", the kernel with a = -1/2;
    widened and, at the border, cut and scaled to a sum of one as in Pillow.
    """
    scale = before / after
    centres = (np.arange(after)[:, None] + 0.5) * scale
    x = np.abs(np.arange(before) + 0.5 - centres) / max(scale, 1)
    kernel = np.where(x < 1, (1.5 * x - 2.5) * x**2 + 1, np.where(x < 2, ((-0.5 * x + 2.5) * x - 4) * x + 2, 0))
    weights: Float64 = kernel / kernel.sum(axis=1, keepdims=True)
    return weights
