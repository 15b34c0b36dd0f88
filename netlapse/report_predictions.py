"""What the network says of the probe, on the time-lapse page: of every input at every step, how well classes are told apart, and histories.

Confusion matrices are not carried: the page counts them from labels and predictions, which cost less and tell which inputs they are of.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from netlapse.analysis.predictions.history import KINDS
from netlapse.packing import Json, evenly, indices, left_out, packed, rows_at, shares
from netlapse.recording import Recording
from netlapse.types import Array, Findings, Float32, Float64, Int64, ProbeSet

PREDICTIONS = "predictions"
LISTED = 12  # inputs of each kind that have a picture on the page
INPUTS_BYTES = 6_000_000  # of all that is carried of inputs
CURVES_BYTES = 4_000_000  # of the curves over thresholds
SCORES = ("precision", "recall", "f1", "auc", "average_precision")
CURVES = ("roc", "precision_recall")

Arrays = Mapping[str, Array]


def predictions(recording: Recording, probe: ProbeSet | None) -> dict[str, Json] | None:
    """Predictions, scores, curves and histories over the steps; None where nobody asked for predictions.

    said        (s, n) int16 or int32, -1 for none             confidence  (s, n) float32, NaN where there is none
    kinds       (s, n) uint8, a bit for each of `kind_names`   rank        (s, n) the place among the errors, n where it is none
    scores      (s, m, k) float32, of the m `score_names`      labels      (n,), None where the run does not tell
    thresholds  curves (s, k, 101) by their names, share = number / 254; None where they would be too large
    """
    found = _of_the_same_inputs(recording.findings.get(PREDICTIONS, {}))
    if not found:
        return None
    every = list(found)
    last = found[every[-1]]
    n, k = len(last["predictions"]), len(last["classes"])
    room = INPUTS_BYTES * 3 // 4 // (n * 11)
    steps = every if len(every) <= room else evenly(every, max(room, 2))
    kept = [found[step] for step in steps]
    labels = last["labels"] if "labels" in last else probe.labels if probe is not None and len(probe) == n else None
    curves = {name: np.stack([_whole(arrays, name, (k, 101)) for arrays in kept]) for name in CURVES}
    small = sum(values.size for values in curves.values()) * 4 / 3 <= CURVES_BYTES
    return {
        "at": rows_at(recording.steps, steps),
        "left_out": left_out(recording.steps, every, steps),
        "inputs": n,
        "classes": [str(name) for name in np.asarray(last["classes"]).tolist()],
        "labels": None if labels is None else packed(_classes(np.asarray(labels, np.int64), k)),
        "said": packed(_classes(np.stack([np.asarray(arrays["predictions"], np.int64) for arrays in kept]), k)),
        "confidence": packed(np.stack([_confidence(arrays) for arrays in kept])),
        "kind_names": list(KINDS),
        "kinds": packed(np.stack([_bits(arrays) for arrays in kept])),
        "rank": packed(indices(np.stack([_ranks(arrays, n) for arrays in kept]))),
        "score_names": list(SCORES),
        "scores": packed(np.stack([np.stack([_whole(arrays, name, (k,)) for name in SCORES]) for arrays in kept]).astype(np.float32)),
        "thresholds": {name: packed(shares(values)) for name, values in curves.items()} if small else None,
        "patience": _patience(recording),
    }


def listed(recording: Recording) -> list[Int64]:
    """The inputs that the page names in its lists: of each kind at each step the most confident ones."""
    shown: list[Int64] = []
    for arrays in _of_the_same_inputs(recording.findings.get(PREDICTIONS, {})).values():
        order = np.argsort(-np.nan_to_num(_confidence(arrays), nan=-1.0), kind="stable")
        shown += [order[of_it[order]][:LISTED] for of_it in np.asarray(arrays["kinds"], bool)]
        shown.append(np.asarray(arrays["errors"], np.int64)[:LISTED])
    return shown


def _of_the_same_inputs(by_step: Mapping[int, Findings]) -> dict[int, Arrays]:
    """What was found of as many inputs and classes as at the last step, ascending by step."""
    whole = {step: f.arrays for step, f in sorted(by_step.items()) if {"predictions", "confidence", "kinds", "errors", "classes"} <= f.arrays.keys()}
    sizes = {step: (arrays["predictions"].shape, arrays["classes"].shape) for step, arrays in whole.items()}
    return {step: arrays for step, arrays in whole.items() if sizes[step] == sizes[max(whole)]}


def _classes(values: Int64, k: int) -> Array:
    return values.astype(np.int16 if k < 32768 else np.int32)


def _confidence(arrays: Arrays) -> Float32:
    return np.asarray(arrays["confidence"], np.float32)


def _bits(arrays: Arrays) -> Array:
    """(n,) of each input one bit for each kind that it is of."""
    kinds = np.asarray(arrays["kinds"], np.uint8)
    return np.asarray((kinds << np.arange(len(kinds), dtype=np.uint8)[:, None]).sum(axis=0), np.uint8)


def _ranks(arrays: Arrays, n: int) -> Int64:
    ranks = np.full(n, n)
    ranks[np.asarray(arrays["errors"], np.int64)] = np.arange(len(arrays["errors"]))
    return ranks


def _whole(arrays: Arrays, name: str, shape: tuple[int, ...]) -> Float64:
    """An array of scores; NaN all over where nothing was predicted at all."""
    return np.asarray(arrays[name], np.float64) if name in arrays else np.full(shape, np.nan)


def _patience(recording: Recording) -> int | None:
    """At how many checkpoints in a row an input is said to be stuck, as far as the run tells."""
    asked = recording.manifest.get("asked")
    options = asked.get(PREDICTIONS) if isinstance(asked, Mapping) else None
    told = str(options.get("patience", "")) if isinstance(options, Mapping) else ""
    return int(told) if told.isdigit() else None
