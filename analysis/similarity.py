"""How alike two representations of the same inputs are, whatever the units they are written in: centred kernel alignment (CKA).

Layers of one network, of one network at two checkpoints and of two networks are compared alike: only what they tell about pairs of
inputs counts. What the analysis records of each layer is enough to compare runs afterwards, and to match their units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from netlapse.probe import panel_of
from netlapse.render.heatmap import heatmap
from netlapse.statistics import KEPT, kept_inputs
from netlapse.types import Array, Exact, Findings, Float32, Float64, Int64, Snapshot, UInt8, checked_by, ungrouped

LEAST = 4
"""Inputs below which debiased CKA is not defined."""


def cka(x: Exact, y: Exact, *, debiased: bool = False) -> float:
    """Linear CKA of two representations x (n, f) and y (n, f2) of the same n inputs: HSIC(x, y) / sqrt(HSIC(x, x) HSIC(y, y)).

    0 to 1, 1 where one is an orthogonal transformation of the other, scaled and shifted. With few inputs for their features any two
    representations look alike: independent ones have an expected value of about f / n and not 0. `debiased` takes HSIC without bias: about
    0 for independent ones, also below, and -1 to 1.

    NaN where one of the two is the same for all inputs, or not finite. Raises ValueError for other shapes, and where debiased for fewer
    than 4 inputs.
    Source: Kornblith et al., 2019, "Similarity of neural network representations revisited", eqs. 1-5. Debiased: Song et al., 2012, eq. 5,
    in the place of HSIC (Nguyen et al., 2021, "Do wide and deep networks learn the same things?", eq. 3).
    """
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or 0 in (*x.shape, *y.shape):
        raise ValueError(f"cka was given x {x.shape} and y {y.shape}; expected (n, f) and (n, f2), of the same inputs in the same order")
    _check_inputs("cka", len(x), debiased)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return float("nan")
    a, b = centred(x), centred(y)
    if len(x) <= max(x.shape[1], y.shape[1]):
        return float(alignments([a @ a.T], [b @ b.T], debiased=debiased)[0, 0])
    # Of many inputs the pairs are never written down: n f f2 operations in place of n n (f + f2).
    xx, xy, yy = (_hsic(one, other, debiased) for one, other in ((a, a), (a, b), (b, b)))
    return float(xy / np.sqrt(xx) / np.sqrt(yy)) if xx > 0 and yy > 0 else float("nan")


def centred(rows: Exact) -> Float64:
    """The representation (n, f) about its mean; features that vary by no more than rounding become 0."""
    values = np.asarray(rows, np.float64)
    away: Float64 = values - values.mean(axis=0)
    away[:, ~varying(rows)] = 0
    return away


def varying(rows: Exact) -> NDArray[np.bool_]:
    """(f,) which features of (n, f) are not the same for all inputs, up to the rounding of their own precision; NaN does not vary."""
    epsilon = np.finfo(np.float64 if rows.dtype == np.float64 else np.float32).eps
    with np.errstate(invalid="ignore"):
        return np.asarray(np.ptp(rows, axis=0) > 4 * epsilon * np.abs(rows).max(axis=0))


def gram(rows: Exact) -> Float64:
    """(n, n) the inner products of all pairs of inputs of a representation (n, f), centred; NaN where it is not finite."""
    if not np.isfinite(rows).all():
        return np.full((len(rows), len(rows)), np.nan)
    away = centred(rows)
    return away @ away.T


def alignments(grams: Sequence[Float64], others: Sequence[Float64], *, debiased: bool = False) -> Float64:
    """(l, l2) the CKA of each representation with each of the others, from their `gram` matrices (n, n); NaN as `cka`.

    Raises ValueError where they are not of as many inputs, and where debiased for fewer than 4.
    """
    sizes = {matrix.shape for matrix in (*grams, *others)}
    if len(sizes) > 1:
        raise ValueError(f"alignments were asked of Gram matrices of shapes {sorted(sizes)}; expected (n, n), all of the same inputs")
    _check_inputs("alignments", next(iter(sizes))[0] if sizes else LEAST, debiased)
    rows = np.stack([_direction(matrix, debiased) for matrix in grams])
    columns = rows if others is grams else np.stack([_direction(matrix, debiased) for matrix in others])
    return np.clip(rows @ columns.T, -1, 1)


def packed(responses: Float32) -> tuple[UInt8, Float32]:
    """Responses (m, u) in a quarter of the room: in 255ths of each unit's range (m, u), and the lowest and highest of each (2, u); see `unpacked`.

    Linear measures change by less than a thousandth: what is rounded is at most a 510th of a unit's range. A unit with a response that is
    not finite has a range of NaN.
    """
    with np.errstate(invalid="ignore"):
        ends = np.stack([responses.min(axis=0), responses.max(axis=0)]).astype(np.float64)
        ends[:, ~np.isfinite(ends).all(axis=0)] = np.nan
        size = ends[1] - ends[0]
        levels = (responses - ends[0]) * (255 / np.where(size > 0, size, 1))
    return np.rint(np.where(np.isfinite(levels), levels, 0)).astype(np.uint8), ends.astype(np.float32)


def unpacked(arrays: Mapping[str, Array], layer: str, name: str = "responses") -> Float64 | None:
    """(m, u) the responses of a layer as the analysis recorded them, or under another name; NaN for units of which one was not finite.

    None where there are none of this layer.
    """
    if f"{name}/{layer}" not in arrays:
        return None
    ends = np.asarray(arrays[f"{name}_range/{layer}"], np.float64)
    return np.asarray(ends[0] + np.asarray(arrays[f"{name}/{layer}"], np.float64) * ((ends[1] - ends[0]) / 255), np.float64)


def _check(snapshot: Snapshot, *, debiased: bool, inputs: int) -> None:
    if not LEAST <= inputs <= KEPT:
        raise ValueError(f"similarity was given inputs={inputs}; expected from {LEAST} to {KEPT}")
    _check_inputs("similarity", len(_shown(snapshot, inputs)), debiased)


@ungrouped
@checked_by(_check)
def similarity(snapshot: Snapshot, previous: Findings | None, *, debiased: bool = True, inputs: int = KEPT) -> Findings:
    """How alike layers are to each other, to the checkpoint before and to the first one; and what comparing runs takes.

    A unit of a layer with positions counts by its mean over them, as in profiles. All comes of the forward pass that analyses share.
    debiased  see `cka`; without it numbers of layers of different width or of few inputs cannot be compared
    inputs    of the probe, evenly of all classes, from 4 to 256: twice as many take twice the room

    arrays    `inputs` (m,) indices into the probe, `labels` (m,), `layers` (l,) names, `cka` (l, l) between layers.
              `responses/<layer>` (m, u) and `responses_range/<layer>` (2, u), see `packed`; `responses_first/<layer>` and
              `responses_first_range/<layer>` those of the first checkpoint, `step_first` () its step
    scalars   `similarity/previous/<layer>` to the checkpoint before, `similarity/first/<layer>` to the first one; absent at that. NaN where
              a layer responds alike to all inputs, or to one with what is not finite
    images    `similarity`, of `cka`

    Raises ValueError where debiased for a probe of fewer than 4 inputs.
    """
    _check(snapshot, debiased=debiased, inputs=inputs)
    shown, layers = _shown(snapshot, inputs), snapshot.layer_names
    rows = np.searchsorted(kept_inputs(snapshot.probe.labels), shown)
    earlier = previous.arrays if previous is not None and np.array_equal(previous.arrays["inputs"], shown) else {}
    arrays: dict[str, Array] = {"inputs": shown, "labels": snapshot.probe.labels[shown], "layers": np.array(layers)}
    arrays["step_first"] = earlier.get("step_first", np.array(snapshot.step))
    scalars: dict[str, float] = {}
    grams: list[Float64] = []
    for layer in layers:
        arrays[f"responses/{layer}"], arrays[f"responses_range/{layer}"] = packed(snapshot.statistics.kept[layer][rows])
        now = gram(_recorded(arrays, layer))  # of what is recorded, so that the numbers can be had from the record
        grams.append(now)
        for name, recorded in (("previous", "responses"), ("first", "responses_first")):
            if (then := unpacked(earlier, layer, recorded)) is not None:
                scalars[f"similarity/{name}/{layer}"] = float(alignments([now], [gram(then)], debiased=debiased)[0, 0])
        for part in ("", "_range"):
            arrays[f"responses_first{part}/{layer}"] = earlier.get(f"responses_first{part}/{layer}", arrays[f"responses{part}/{layer}"])
    between = alignments(grams, grams, debiased=debiased)
    arrays["cka"] = between
    title = f"CKA between layers \u00b7 {len(shown)} inputs \u00b7 step {snapshot.step}"
    return Findings(arrays, scalars, {"similarity": heatmap(between, layers, layers, title, UNIT_LABEL[debiased])})


UNIT_LABEL = {True: "debiased CKA, 1 the same", False: "CKA, 1 the same"}


def _shown(snapshot: Snapshot, inputs: int) -> Int64:
    kept = kept_inputs(snapshot.probe.labels)
    return np.sort(kept[panel_of(snapshot.probe.labels[kept], inputs)])


def _recorded(arrays: Mapping[str, Array], layer: str) -> Float64:
    found = unpacked(arrays, layer)
    assert found is not None
    return found


def _direction(gram: Float64, debiased: bool) -> Float64:
    """(n n,) the matrix as a vector of length 1, so that CKA is a cosine; NaN where there is nothing to point in a direction."""
    n = len(gram)
    matrix = gram
    if debiased:
        # n (n - 3) times the unbiased HSIC is the inner product of matrices centred so (Szekely and Rizzo, 2014, "Partial distance
        # correlation with methods for dissimilarities", eqs. 2.5 and 2.7).
        matrix = gram - np.diag(np.diag(gram))
        sums = matrix.sum(axis=0)
        matrix = matrix - (sums[:, None] + sums) / (n - 2) + sums.sum() / ((n - 1) * (n - 2))
        np.fill_diagonal(matrix, 0)
    length = np.linalg.norm(matrix)
    return np.asarray(matrix.ravel() / (length if length > _nothing(n) * np.linalg.norm(gram) else np.nan), np.float64)


def _hsic(a: Float64, b: Float64, debiased: bool) -> float:
    """Up to a factor that only n decides, of centred representations (n, f); 0 where it is rounding."""
    products = float(np.square(a.T @ b).sum())
    if not debiased:
        return products
    n, first, second = len(a), np.square(a).sum(axis=1), np.square(b).sum(axis=1)
    # Song et al. (2012), eq. 5, where all sums over rows of the centred Gram matrices are 0 before their diagonals are left out.
    found = products - n / (n - 2) * float(first @ second) + float(first.sum() * second.sum()) / ((n - 1) * (n - 2))
    return found if a is not b or found > _nothing(n) ** 2 * products else 0.0


def _nothing(n: int) -> float:
    """The share of a length that n terms leave behind as rounding."""
    return float(n * np.finfo(np.float64).eps)


def _check_inputs(who: str, n: int, debiased: bool) -> None:
    if debiased and n < LEAST:
        raise ValueError(f"{who} was given {n} inputs; debiased CKA is defined for at least {LEAST}: show more, or take debiased=False")
