"""Receptive fields: discrepancy maps moved onto the unit's own position, and averaged; and what they measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from netlapse.analysis.receptive_field.discrepancy import Fill, check_spatial, discrepancy_maps, grids
from netlapse.analysis.receptive_field.top import top_images
from netlapse.types import Array, Field, Float32, Float64, Height, Int64, Network

NUMBERS = ("area", "diameter", "eccentricity", "offset", "ratio")


@dataclass(frozen=True, eq=False)
class ReceptiveFields:
    """The receptive fields of a layer's units.

    units      (u,) their indices
    fields     (u, 2 rows - 1, 2 columns - 1) the mean change, with the occluder's centre displaced by multiples of the
               stride from the unit's centre, which is in the middle; NaN where no top image has anything
    stride     pixels between neighbours of a field              occluder  its side in pixels
    values, inputs, positions   (u, k), (u, k), (u, k, 2) the top images, see `TopInputs`
    theory     the theoretical field; None where it is not known
    dead       (u,) whether the unit's activation was one number in all its top images, and stays it when they are covered: it has no field
    """

    units: Int64
    fields: Float32
    stride: int
    occluder: int
    values: Float32
    inputs: Int64
    positions: Int64
    theory: Field | None
    dead: np.ndarray[tuple[int], np.dtype[np.bool_]]


def receptive_fields(
    network: Network,
    inputs: Array,
    layer: str,
    *,
    units: Sequence[int] | None = None,
    k: int = 10,
    by: Height = "maximum",
    occluder: int = 11,
    stride: int = 3,
    fill: Fill = 0.0,
    seed: int = 0,
    batch_size: int = 64,
) -> ReceptiveFields:
    """Where units look, from what covering parts of their k top images changes.

    Zhou et al., "Object detectors emerge in deep scene CNNs" (2015), section 3.2: each top image's discrepancy map is moved so that
    the unit's own position is in the middle, and the maps are averaged. The position's place in the image is the centre of its
    theoretical field; where that is not known, it is taken in proportion to the sizes of layer and image.

    inputs   (n, h, w, c) among which the top images are found; the rest as for `top_images` and `discrepancy_maps`

    An image that is among the top of many units is occluded once for all of them. Raises as `top_images` and `discrepancy_maps`.
    """
    inputs = np.asarray(inputs, np.float32)
    grids(inputs.shape[1:], occluder, stride)
    shape = check_spatial(network, inputs[:2], layer)
    values, indices, positions = top_images(network, inputs, layer, k, by=by, batch_size=batch_size)
    chosen = np.arange(shape[2]) if units is None else np.asarray(units, np.int64)
    top = values[chosen], indices[chosen], positions[chosen]
    return fields_of(network, inputs, layer, chosen, top, occluder=occluder, stride=stride, fill=fill, seed=seed, batch_size=batch_size)


def fields_of(
    network: Network,
    inputs: Array,
    layer: str,
    units: Int64,
    top: tuple[Float32, Int64, Int64],
    *,
    occluder: int,
    stride: int,
    fill: Fill = 0.0,
    seed: int = 0,
    batch_size: int = 64,
) -> ReceptiveFields:
    """`receptive_fields` of units (u,) whose top images are known: values (u, k), indices (u, k), positions (u, k, 2)."""
    values, indices, positions = top
    height, width = inputs.shape[1:3]
    rows, columns = (len(axis) for axis in grids(inputs.shape[1:], occluder, stride))
    theory = theoretical_field(network, inputs[:2], layer)
    shape = check_spatial(network, inputs[:2], layer)
    total = np.zeros((len(units), 2 * rows - 1, 2 * columns - 1))
    count = np.zeros_like(total)
    low, high = np.full(len(units), np.inf), np.full(len(units), -np.inf)
    for image in np.unique(indices[indices >= 0]):
        asked, rank = np.nonzero(indices == image)
        maps = discrepancy_maps(
            network, inputs[image], layer, units=units[asked], occluder=occluder, stride=stride, fill=fill, seed=seed, batch_size=batch_size
        )
        clean = network.activations(inputs[image][None], [layer])[layer][0].reshape(-1, shape[2])[:, units[asked]]
        low[asked], high[asked] = np.minimum(low[asked], clean.min(axis=0)), np.maximum(high[asked], clean.max(axis=0))
        places = centres(positions[asked, rank], theory, shape[:2], (height, width))
        for unit, map_, centre in zip(asked, maps, places):
            moved = recentred(map_, centre, occluder, stride)
            seen = ~np.isnan(moved)
            total[unit][seen] += moved[seen]
            count[unit] += seen
    mean = np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)
    dead = (low == high) & ~np.nan_to_num(mean).any(axis=(1, 2))
    mean[dead] = np.nan
    return ReceptiveFields(units, mean, stride, occluder, values, indices, positions, theory, dead)


def theoretical_field(network: Network, inputs: Array, layer: str) -> Field | None:
    """What each of the layer's units can see; None where that is not known (`Network.fields` says why)."""
    found = network.fields(inputs)[layer]
    return found if isinstance(found, Field) else None


def centres(positions: Int64, theory: Field | None, shape: tuple[int, ...], image: tuple[int, int]) -> Float64:
    """(m, 2) the pixel in the image, counted from the first one's centre, that lies in the middle of what positions (m, 2) see."""
    if theory is not None:
        return np.asarray(theory.offset + positions * np.asarray(theory.stride) + (np.asarray(theory.size) - 1) / 2, np.float64)
    return np.asarray((positions + 0.5) * np.asarray(image) / np.asarray(shape) - 0.5, np.float64)


def recentred(map_: Float32, centre: Float64, occluder: int, stride: int) -> Float64:
    """(2 rows - 1, 2 columns - 1) a discrepancy map (rows, columns) with the given pixel in the middle; NaN where it has nothing.

    Between occluders it is linear.
    """
    found = np.asarray(map_, np.float64)
    for axis in range(2):
        n = found.shape[axis]
        # In strides, where the occluder's centre has to lie for each displacement from the unit's.
        wanted = (centre[axis] - (occluder - 1) / 2) / stride + np.arange(-(n - 1), n)
        inside = (wanted > -1e-9) & (wanted < n - 1 + 1e-9)  # what is on the border but for rounding is inside
        low = np.clip(np.floor(wanted).astype(int), 0, max(n - 2, 0))
        share = np.clip(wanted - low, 0.0, 1.0).reshape((-1, 1) if axis == 0 else (1, -1))
        low_values, high_values = np.take(found, low, axis), np.take(found, np.minimum(low + 1, n - 1), axis)
        found = np.where(share == 0, low_values, np.where(share == 1, high_values, (1 - share) * low_values + share * high_values))
        found[(~inside, slice(None)) if axis == 0 else (slice(None), ~inside)] = np.nan
    return found


def field_numbers(found: ReceptiveFields, image: tuple[int, int]) -> Mapping[str, Float64]:
    """number -> (u,), of the positive part of each field: where covering takes from the unit; NaN where it has none, or is dead.

    area          in square pixels, where it is at least half its maximum
    diameter      in pixels, of the disc as large as the fewest places that hold 95 % of it
    eccentricity  from 0, round, to below 1, drawn out: of the ellipse with its second moments; NaN for a single place
    offset        in pixels, from the unit's centre to its centre of mass
    ratio         those places beside all that could hold anything, because an occluder inside of a top image touches the theoretical
                  field there; at most 1, NaN where that field is unknown

    What covers is as large as the occluder, so a field is that much wider than what the unit sees: one of a single pixel has the
    diameter of a disc as large as the occluder.
    """
    columns = [_numbers_of(field, found.stride) for field in found.fields]
    numbers = {name: np.array([row[name] for row in columns], np.float64) for name in ("area", "diameter", "eccentricity", "offset", "places")}
    places = numbers.pop("places")
    reachable = np.full(len(found.units), np.nan)
    if found.theory is not None:
        reachable = _reachable(found, found.theory, image)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {**numbers, "ratio": np.where(reachable > 0, places / reachable, np.nan)}


def largest_diameter(theory: Field, occluder: int, stride: int, grid: tuple[int, int]) -> float:
    """Which `diameter` no unit that sees no more than its theoretical field can exceed, whatever it responds to.

    grid   the rows and columns of occluders; a field has 2 rows - 1 by 2 columns - 1 places

    Between occluders a moved map is linear, so that what one at the very edge takes may lie almost a stride farther out.
    """
    many = 1
    for axis, n in enumerate(grid):
        many *= int((np.abs(np.arange(-(n - 1), n) * stride) < (theory.size[axis] + occluder) / 2 + stride).sum())
    return float(2 * np.sqrt(many * stride**2 / np.pi))


def _reachable(found: ReceptiveFields, theory: Field, image: tuple[int, int]) -> Float64:
    """(u,) how many places of each field a touched theoretical field could put anything: those of an indicator of touching, moved as a map is."""
    rows, columns = ((n + 1) // 2 for n in found.fields.shape[1:])
    middles = [np.arange(n) * found.stride + (found.occluder - 1) / 2 for n in (rows, columns)]
    counts = np.zeros(len(found.units))
    for unit, (inputs, positions) in enumerate(zip(found.inputs, found.positions)):
        reached = np.zeros(found.fields.shape[1:], bool)
        for centre in centres(positions[inputs >= 0], theory, (), image):
            touched = [np.abs(middles[axis] - centre[axis]) < (theory.size[axis] + found.occluder) / 2 for axis in range(2)]
            reached |= recentred(np.outer(*touched).astype(np.float32), centre, found.occluder, found.stride) > 0
        counts[unit] = reached.sum()
    return counts


def _numbers_of(field: Float32, stride: int) -> dict[str, float]:
    mass = np.where(np.isnan(field), 0.0, np.maximum(field, 0.0)).astype(np.float64)
    total = mass.sum()
    if not total > 0 or not np.isfinite(total):
        return dict.fromkeys(("area", "diameter", "eccentricity", "offset", "places"), float("nan"))
    area = float((mass >= mass.max() / 2).sum() * stride**2)
    descending = np.sort(mass, axis=None)[::-1].cumsum()
    places = int(np.searchsorted(descending, 0.95 * total * (1 - 1e-12)) + 1)
    diameter = 2 * np.sqrt(places * stride**2 / np.pi)
    y, x = (np.arange(-(n // 2), n // 2 + 1) * float(stride) for n in mass.shape)
    weight = mass / total
    centre = np.array([weight.sum(axis=1) @ y, weight.sum(axis=0) @ x])
    dy, dx = y - centre[0], x - centre[1]
    mixed = dy @ weight @ dx
    small, large = np.linalg.eigvalsh([[weight.sum(axis=1) @ dy**2, mixed], [mixed, weight.sum(axis=0) @ dx**2]])
    eccentricity = np.sqrt(1 - max(small, 0.0) / large) if large > 0 else float("nan")
    numbers = area, float(diameter), float(eccentricity), float(np.hypot(*centre)), float(places)
    return dict(zip(("area", "diameter", "eccentricity", "offset", "places"), numbers))
