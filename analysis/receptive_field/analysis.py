"""The analysis: what each unit responds to most, what it is for, and how far it looks, at every checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from netlapse.analysis.receptive_field.discrepancy import Fill, check_spatial, grids, replacement, usual_occluder
from netlapse.analysis.receptive_field.fields import ReceptiveFields, centres, field_numbers, fields_of, theoretical_field
from netlapse.analysis.receptive_field.top import in_batches, top_inputs
from netlapse.analysis.receptive_field.views import region, resampled, segmentation
from netlapse.render.montage import UnitRow, montage
from netlapse.types import Array, Findings, Float32, Float64, Height, Int64, Snapshot, UInt8, checked_by, ungrouped

DRAWN = 12
"""How many units of a layer are drawn in its picture, the same at every step."""

FAINT = 0.35
"""How much of its contrast an image keeps outside of a segmentation."""

NULL_DRAWS = 200
"""Of how many random draws of inputs the purity by chance is the mean."""


def _check(
    snapshot: Snapshot,
    *,
    layers: Sequence[str] | None,
    k: int,
    occluder: int | None,
    stride: int | None,
    fill: Fill,
    limit_units: int | None,
    **options: object,
) -> None:
    """The layers are there and spatial, the occluder fits, and the numbers are numbers."""
    inputs = snapshot.probe.inputs
    if not isinstance(k, int) or k < 1 or (limit_units is not None and limit_units < 1):
        raise ValueError(f"receptive_field was given k={k!r} and limit_units={limit_units!r}; expected at least 1 each")
    _layers(snapshot, layers)
    side, step = usual_occluder(inputs.shape[1:], occluder, stride)
    grids(inputs.shape[1:], side, step)
    replacement(np.asarray(inputs[0], np.float32), fill, side, 0)


@ungrouped
@checked_by(_check)
def receptive_field(
    snapshot: Snapshot,
    previous: Findings | None,
    *,
    layers: Sequence[str] | None = None,
    k: int = 5,
    by: Height = "maximum",
    occluder: int | None = None,
    stride: int | None = None,
    fill: Fill = "mean",
    seed: int = 0,
    limit_units: int | None = None,
    fields: bool = True,
    segmented: bool = False,
) -> Findings:
    """The probe's inputs that each unit of the spatial layers responds to most, how pure their labels are, and its receptive field.

    layers       of those observed; None: all that are spatial
    k, by        top inputs of a unit, see `top_images`
    occluder     its side in pixels; None: 11, but at most an eighth of the image's longer side, rounded up, and at least 2
    stride       pixels between occluders; None: three elevenths of the occluder, rounded up
    fill, seed   as for `discrepancy_maps`
    limit_units  of how many units per layer, spread evenly, a field is found; None: of all
    fields       False: no fields, only top inputs, which costs one pass of the probe
    segmented    the pictures show what the unit picks out of its top inputs (Zhou et al., 2015, figure 5; see `segmentation`), and the rest
                 faintly, instead of the field where it lies

    arrays       `labels` (n,) of the probe; for each layer `top/<layer>` (u, k) indices into it, `top_values/<layer>` (u, k),
                 `top_positions/<layer>` (u, k, 2); `class/<layer>` (u,) the label most of them have, the lowest of equally many, and -1
                 for a dead unit; `purity/<layer>` (u,) the share that has it; `since/<layer>` (u,) the first step from which on it is that label;
                 `stability/<layer>` (u,) the share of the top inputs that were among them at the checkpoint before, NaN at the first.
                 Of those with a field, `units/<layer>` (m,), `fields/<layer>` and the numbers of `field_numbers` as `area/<layer>` ... (m,);
                 `theory/<layer>` (2, 3) size, stride and offset along rows and columns, absent where not known;
                 `occluder`, `stride`
    scalars      `receptive_field/<number>/<layer>` the median over units of area, diameter, eccentricity, offset and ratio, NaN where
                 no unit has one; `receptive_field/dead/<layer>` the share of units that respond with one number everywhere. The means
                 `purity`, beside `purity_null` of inputs drawn at random, and `stability`, beside `stability_null`
    images       `receptive_field/<layer>`: some units' top inputs with the field outlined, and the field as the share of the
                 activation that covering takes

    Raises ValueError for a probe that is not of images, layers that are not spatial or not observed, a network without spatial
    layers, and an occluder that does not fit.
    """
    probe, network = snapshot.probe, snapshot.network
    names = _layers(snapshot, layers)
    side, step = usual_occluder(probe.inputs.shape[1:], occluder, stride)
    images = np.asarray(probe.inputs, np.float32)
    arrays: dict[str, Array] = {"labels": probe.labels, "occluder": np.asarray(side), "stride": np.asarray(step)}
    scalars: dict[str, float] = {}
    drawn: dict[str, UInt8] = {}
    top = _Top(snapshot, names, k, by)
    for layer in names:
        values, inputs, positions = top.of(layer)
        dead = snapshot.statistics.constant(layer)
        arrays |= {f"top/{layer}": inputs, f"top_values/{layer}": values, f"top_positions/{layer}": positions}
        found, numbers = _labels(layer, probe.labels, inputs, dead, previous, snapshot.step)
        arrays |= found
        scalars |= {f"receptive_field/{name}/{layer}": value for name, value in numbers.items()}
        scalars[f"receptive_field/dead/{layer}"] = float(dead.mean())
        if not fields:
            continue
        units = _spread(len(values), limit_units)
        of_units = (values[units], inputs[units], positions[units])
        find = partial(_fields, snapshot, images, layer, units, of_units, side, step, fill, seed)
        maps = np.asarray(snapshot.once(f"fields/{layer}", find), np.float32)
        theory = theoretical_field(network, images[:2], layer)
        fielded = ReceptiveFields(units, maps, step, side, *of_units, theory, np.asarray(np.isnan(maps).all(axis=(1, 2))))
        numbers_of = field_numbers(fielded, (images.shape[1], images.shape[2]))
        arrays |= {f"units/{layer}": units, f"fields/{layer}": maps}
        arrays |= {f"{name}/{layer}": row for name, row in numbers_of.items()}
        if theory is not None:
            arrays[f"theory/{layer}"] = np.array([theory.size, theory.stride, theory.offset]).T
        scalars |= {f"receptive_field/{name}/{layer}": _median(row) for name, row in numbers_of.items()}
        drawn[f"receptive_field/{layer}"] = _picture(snapshot, images, layer, fielded, arrays, numbers_of, segmented)
    return Findings(arrays, scalars, drawn)


def _layers(snapshot: Snapshot, asked: Sequence[str] | None) -> list[str]:
    """The spatial layers among the observed ones."""
    inputs = snapshot.probe.inputs
    if inputs.ndim != 4:
        raise ValueError(f"receptive fields need images (n, h, w, c); this probe's inputs have shape {inputs.shape}; leave this analysis out")
    if asked is not None:
        if unobserved := [name for name in asked if name not in snapshot.layer_names]:
            raise ValueError(f"receptive_field was given layers {unobserved}; this run observes {list(snapshot.layer_names)}: add them to `layers`")
        for name in asked:
            check_spatial(snapshot.network, inputs[:2], name)
        return list(asked)
    found = [layer.name for layer in snapshot.network.describe(inputs[:2]) if layer.name in snapshot.layer_names and len(layer.shape) == 3]
    if not found:
        raise ValueError(f"no observed layer has positions in an image, (h, w, u), among {list(snapshot.layer_names)}; leave receptive_field out")
    return found


class _Top:
    """The top inputs of all layers, from one pass that is made when it is first asked for."""

    def __init__(self, snapshot: Snapshot, layers: Sequence[str], k: int, by: Height) -> None:
        self._snapshot, self._layers, self._k, self._by = snapshot, layers, k, by
        self._found: Mapping[str, Float64] | None = None

    def of(self, layer: str) -> tuple[Float32, Int64, Int64]:
        """values (u, k), inputs (u, k) and positions (u, k, 2)."""
        packed = np.asarray(self._snapshot.once(f"top/{layer}", partial(self._packed, layer)), np.float64)
        return packed[..., 0].astype(np.float32), packed[..., 1].astype(np.int64), packed[..., 2:].astype(np.int64)

    def _packed(self, layer: str) -> Float64:
        if self._found is None:
            snapshot = self._snapshot
            batches = in_batches(snapshot.probe.inputs, snapshot.batch_size)
            top = top_inputs(snapshot.network, batches, self._layers, self._k, by=self._by)
            self._found = {
                name: np.concatenate([values[..., None], top.inputs[name][..., None], top.positions[name]], axis=2, dtype=np.float64)
                for name, values in top.values.items()
            }
        return self._found[layer]


def _fields(
    snapshot: Snapshot, images: Float32, layer: str, units: Int64, top: tuple[Float32, Int64, Int64], side: int, step: int, fill: Fill, seed: int
) -> Float32:
    found = fields_of(snapshot.network, images, layer, units, top, occluder=side, stride=step, fill=fill, seed=seed, batch_size=snapshot.batch_size)
    return found.fields


def _labels(
    layer: str, labels: Int64, inputs: Int64, dead: np.ndarray[tuple[int], np.dtype[np.bool_]], previous: Findings | None, step: int
) -> tuple[dict[str, Array], dict[str, float]]:
    """What the top inputs (u, k) of units have in common, and with those of the checkpoint before."""
    u, k = inputs.shape
    present = inputs >= 0
    classes = int(labels.max()) + 1
    counts = np.zeros((u, classes), np.int64)
    np.add.at(counts, (np.nonzero(present)[0], labels[inputs[present]]), 1)
    shares = counts.max(axis=1) / present.sum(axis=1)
    purity = np.where(dead, np.nan, shares)
    of_class = np.where(dead, -1, counts.argmax(axis=1)).astype(np.int64)
    since, stability = np.full(u, step), np.full(u, np.nan)
    before = previous.arrays if previous is not None else {}
    if f"top/{layer}" in before and np.shape(before[f"top/{layer}"]) == (u, k):
        since = np.where(before[f"class/{layer}"] == of_class, before[f"since/{layer}"], step)
        earlier = before[f"top/{layer}"]
        kept = np.array([np.isin(now[now >= 0], then).mean() for now, then in zip(inputs, earlier)])
        stability = np.where(dead | (before[f"class/{layer}"] == -1), np.nan, kept)
    arrays: dict[str, Array] = {f"class/{layer}": of_class, f"purity/{layer}": purity, f"since/{layer}": since, f"stability/{layer}": stability}
    numbers = {"purity": _mean(purity), "purity_null": purity_by_chance(labels, k)}
    if previous is not None:
        numbers |= {"stability": _mean(stability), "stability_null": min(1.0, k / len(labels))}
    return arrays, numbers


def purity_by_chance(labels: Int64, k: int) -> float:
    """The mean share of the commonest label among k inputs that are drawn at random, of 200 seeded draws."""
    random, k = np.random.default_rng(0), min(k, len(labels))
    draws = [labels[random.choice(len(labels), k, replace=False)] for _ in range(NULL_DRAWS)]
    return float(np.mean([np.bincount(draw).max() / k for draw in draws]))


def _spread(n: int, limit: int | None) -> Int64:
    """All of n, or as many as the limit allows, spread evenly."""
    return np.arange(n) if limit is None or limit >= n else np.unique(np.linspace(0, n - 1, limit).round().astype(np.int64))


def _median(values: Float64) -> float:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else float("nan")


def _mean(values: Float64) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _picture(
    snapshot: Snapshot,
    images: Float32,
    layer: str,
    found: ReceptiveFields,
    arrays: Mapping[str, Array],
    numbers: Mapping[str, Float64],
    segmented: bool,
) -> UInt8:
    probe = snapshot.probe
    size = (images.shape[1], images.shape[2])
    shape = check_spatial(snapshot.network, images[:2], layer)
    middle = np.array([(size[0] - 1) / 2, (size[1] - 1) / 2])
    rows, lowest = [], float(images.min())
    for row in _spread(len(found.units), DRAWN):
        unit, present = int(found.units[row]), found.inputs[row] >= 0
        present &= not found.dead[row]  # which inputs are first of equal ones says nothing
        inputs = found.inputs[row][present]
        places = centres(found.positions[row][present], found.theory, shape[:2], size)
        label, purity = int(arrays[f"class/{layer}"][unit]), float(arrays[f"purity/{layer}"][unit])
        dead = bool(found.dead[row] or label < 0)
        mean = 0.0 if dead else float(found.values[row][present].mean())
        name = probe.class_names[label] if 0 <= label < len(probe.class_names) else str(label)
        diameter = numbers["diameter"][row]
        about = [] if dead else [f"{purity:.0%} are {name}", *([f"field {diameter:.0f} px wide"] if np.isfinite(diameter) else [])]
        share = resampled(found.fields[row], found.stride, middle, size) / mean if mean > 0 else np.full(size, np.nan)
        shown = _shades(images[inputs])
        if segmented and len(inputs):
            activations = snapshot.network.activations(images[inputs], [layer])[layer][..., unit]
            outlines = np.array([segmentation(activation, found, int(row), size) for activation in activations])
            shown = np.where(outlines[..., None], shown, lowest + FAINT * (shown - lowest))
        else:
            outlines = np.array([region(found.fields[row], found.stride, place, size) for place in places], bool).reshape(-1, *size)
        why = "dead" if dead else "never above 0" if mean <= 0 else ""
        rows.append(UnitRow(f"unit {unit}", about, shown, outlines, np.where(np.isfinite(share), share, np.nan), why))
    title = f"{layer} \u00b7 top inputs and receptive fields of {len(rows)} of {len(arrays[f'top/{layer}'])} units \u00b7 step {snapshot.step}"
    theory = found.theory
    note = f"Outlined: where a square of {found.occluder} pixels takes at least half of what it takes most"
    note += ", around every position at which the unit is at least half as active as anywhere." if segmented else "."
    if theory is not None:
        note += f" A unit can see {theory.size[0]} x {theory.size[1]} pixels."
    return montage(rows, title, note)


def _shades(images: Float32) -> Float64:
    """As they are drawn: what has other than 1 or 3 channels as their mean."""
    pictures = np.asarray(images, np.float64)
    return pictures if pictures.shape[3] in (1, 3) else pictures.mean(axis=3, keepdims=True)
