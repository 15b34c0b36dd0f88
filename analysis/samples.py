"""Sample maps: the inputs of the probe as a layer tells them apart, each a point, coloured by its group."""

from __future__ import annotations

from functools import partial

import numpy as np

from netlapse.analysis.layout import method, over_time, pca
from netlapse.analysis.quality import motion, same_group, same_group_by_chance
from netlapse.analysis.topomap import Layout, metric_of
from netlapse.probe import panel_of
from netlapse.render.scatter import scatter
from netlapse.types import Array, Findings, Float32, Float64, Int64, Snapshot, UInt8, checked_by


def balanced(responses: Float32) -> Float64:
    """The responses (m, u) about each unit's mean, those of the louder half of the units scaled down to the layer's median loudness.

    A unit's loudness is the standard deviation of its responses over the inputs; the median is taken over the units that do not
    respond alike to all inputs, which become 0. Loud units then weigh no more than others. Quiet ones are left quiet: brought up to the
    others, a unit that fires for a single input would be a direction of its own, in which all other inputs lie on one point.
    """
    rows = np.asarray(responses, dtype=np.float64)
    centred: Float64 = rows - rows.mean(axis=0)
    varying = _varying(rows)
    centred[:, ~varying] = 0
    if varying.any():
        loudness = centred.std(axis=0)
        centred /= np.maximum(loudness, np.median(loudness[varying]))
    return centred


def _varying(rows: Float32 | Float64) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """(u,) which units respond differently to some of the inputs, by more than the rounding of float32."""
    return np.asarray(np.ptp(rows, axis=0) > 4 * np.finfo(np.float32).eps * np.abs(rows).max(axis=0))


def _check(snapshot: Snapshot, *, layout: Layout, seed: int, limit_inputs: int, k: int, **options: object) -> None:
    """The layout can be made, of any responses, and the numbers are counts: unknown metrics and wrong options show here."""
    positions = layout(np.random.default_rng(0).random((16, 3)), seed=seed, previous=None)
    if np.shape(positions) != (16, 2):
        raise ValueError(f"layout returned positions of shape {np.shape(positions)} for 16 inputs; expected (16, 2)")
    for name, given in (("limit_inputs", limit_inputs), ("k", k)):
        if not isinstance(given, int) or given < 1:
            raise ValueError(f"samples was given {name}={given!r}; expected a number of inputs, at least 1")


@checked_by(_check)
def samples(
    snapshot: Snapshot,
    previous: Findings | None,
    *,
    layout: Layout = pca,
    seed: int = 0,
    limit_inputs: int = 500,
    balance: bool = True,
    procrustes: bool = True,
    k: int = 10,
) -> Findings:
    """Each input of the probe as a point for each layer, near to those that the layer responds to alike.

    layout        a function of `netlapse.analysis.layout`, for which a row is an input and a column a unit's response to it (its
                  mean activation over positions); it is handed the positions of the checkpoint before
    limit_inputs  how many inputs are shown, the same at every checkpoint: the first of each class, then the second of each, ...
    balance       loud units weigh no more than the layer's median one, see `balanced`. How loud a unit is, is no property of what the
                  network computes: scale a unit before a ReLU, and the next layer's weights can undo it. False: as they are
    procrustes    the map is rotated or reflected to lie closest to the one before, see `netlapse.analysis.layout.over_time`
    k             how many nearest inputs are looked at for the numbers below

    arrays        `inputs` (m,) indices into the probe, `groups` (m,) indices into `names` (g,), `labels` (m,), `predictions` (m,),
                  -1 for an input whose logits are not finite or where the network has none; `samples/<layer>` (m, 2) the positions
                  in [0, 1]; instead of it, `kept/<layer>` (m, 2) those of the last checkpoint at which the layer had a map
    scalars       `samples/same_group/<layer>` the share of an input's k nearest in the layer that are of its own group, in the rows
                  and the metric of the layout; `samples/same_group_map/<layer>` that share on the map, so that it shows what the
                  map loses or makes up; `samples/same_group_null/<layer>` what chance gives, see `netlapse.analysis.quality.same_group`;
                  `samples/motion/<layer>` from the checkpoint before, see `netlapse.analysis.quality.motion`
    images        `samples/<layer>`

    A layer with a response that is NaN or infinite, or that responds alike to every input, has no map, and its picture says why:
    the next map goes on from the last there was, and its shares are NaN.

    Raises ValueError where the responses take too much memory (see `Snapshot.responses`), beside what the layout raises.
    """
    probe, statistics = snapshot.probe, snapshot.statistics
    inputs = np.sort(panel_of(probe.labels, limit_inputs))
    groups, names = statistics.groups[inputs], statistics.names
    arrays: dict[str, Array] = {"inputs": inputs, "groups": groups, "names": np.array(names), "labels": probe.labels[inputs]}
    arrays["predictions"] = _predictions(statistics.logits, inputs)
    scalars: dict[str, float] = {}
    images: dict[str, UInt8] = {}
    for layer, of_all in snapshot.responses.items():
        responses, before = of_all[inputs], _before(previous, layer, inputs)
        title = f"{layer} \u00b7 {_count(responses.shape[1], 'unit')} \u00b7 step {snapshot.step}"
        if missing := _without_map(responses, inputs):
            arrays |= {} if before is None else {f"kept/{layer}": before}
            scalars |= {f"samples/{name}/{layer}": float("nan") for name in SHARES}
            images[f"samples/{layer}"] = scatter(missing, groups, names, title)
            continue
        rows = balanced(responses) if balance else responses.astype(np.float64)
        positions = over_time(rows, layout=layout, seed=seed, previous=before, procrustes=procrustes)
        arrays[f"samples/{layer}"] = positions
        near = partial(same_group, groups=groups, k=k)
        shares = near(rows, metric=metric_of(layout)), near(positions), same_group_by_chance(groups)
        scalars |= {f"samples/{name}/{layer}": share for name, share in zip(SHARES, shares)}
        if before is not None:
            scalars[f"samples/motion/{layer}"] = motion(positions, before)
        title += f", {_name(layout)} of {_count(len(inputs), 'input')}"
        images[f"samples/{layer}"] = scatter(positions, groups, names, title, _in_words(*shares, k=min(k, (len(inputs) - 1) // 2)))
    return Findings(arrays, scalars, images)


SHARES = ("same_group", "same_group_map", "same_group_null")


def _without_map(responses: Float32, inputs: Int64) -> str:
    """Why a layer with these responses (m, u) has no map; empty where it has one."""
    broken = inputs[~np.isfinite(responses).all(axis=1)]
    if len(broken):
        return f"responses to {len(broken)} of {_count(len(inputs), 'input')} are not finite, first to input {broken[0]}"
    return "" if len(inputs) == 1 or _varying(responses).any() else "every unit responds alike to every input"


def _before(previous: Findings | None, layer: str, inputs: Int64) -> Float64 | None:
    """Where these inputs (m,) were on the last map of the layer, (m, 2); None where it was of others, or there was none."""
    if previous is None or not np.array_equal(previous.arrays["inputs"], inputs):
        return None
    found = previous.arrays.get(f"samples/{layer}", previous.arrays.get(f"kept/{layer}"))
    return None if found is None else np.asarray(found, np.float64)


def _predictions(logits: Float32 | None, inputs: Int64) -> Int64:
    """(m,) the class that each input's logits (n, k) are largest for; -1 where they are not finite, or there are none."""
    if logits is None:
        return np.full(len(inputs), -1)
    logits = logits[inputs]
    return np.where(np.isfinite(logits).all(axis=1), logits.argmax(axis=1), -1).astype(np.int64)


def _name(layout: Layout) -> str:
    function = method(layout)
    return str(getattr(function, "__name__", type(function).__name__))


def _in_words(own: float, on_map: float, chance: float, k: int) -> str:
    """The shares for a reader of the picture; empty where the inputs are too few for any."""
    if np.isnan(own):
        return ""
    nearest = "How often an input's nearest one is" if k == 1 else f"How many of an input's {k} nearest are"
    return f"{nearest} of its own group: {own:.0%} in the layer, {on_map:.0%} on the map, {chance:.0%} by chance"


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"
