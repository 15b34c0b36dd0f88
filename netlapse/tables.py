"""What a run found as tables that MLflow shows: the scores of each class at each step, the inputs by their history, and where to look first."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from netlapse.analysis.predictions.history import KINDS
from netlapse.looks import Place, look_here
from netlapse.recording import Recording
from netlapse.types import Array, Findings, ProbeSet

SCORES = ("precision", "recall", "f1", "auc", "average_precision")
MOST = 200
"""Inputs of each kind."""

Columns = dict[str, list[object]]


def tables(recording: Recording, probe: ProbeSet | None = None) -> dict[str, Columns]:
    """Name -> column -> values; those that somebody asked for. A number that is undefined is None.

    predictions_scores  a row for each step and class: how well it is told from the others
    predictions_inputs  as of the last step, a row for each kind of history and each input of it, the most confident first, at most
                        `MOST` of each; `kind` is that of `History.of_kind`, or "error" for what is wrong now

    look_here           where to look first, see `netlapse.looks.Place`, a row each

    probe  whose ids tell inputs apart; without it their places do
    """
    places = [dict(place) for place in look_here(recording)]
    looks: dict[str, Columns] = {"look_here": {name: [place[name] for place in places] for name in Place.__annotations__}} if places else {}
    found = {step: findings for step, findings in sorted(recording.findings.get("predictions", {}).items()) if "kinds" in findings.arrays}
    if not found:
        return looks
    return looks | {"predictions_scores": _scores(found), "predictions_inputs": _inputs(found[max(found)].arrays, probe)}


def _scores(found: Mapping[int, Findings]) -> Columns:
    columns: Columns = {name: [] for name in ("step", "class", "inputs", *SCORES)}
    for step, findings in found.items():
        arrays = findings.arrays
        classes = np.asarray(arrays["classes"]).tolist()
        columns["step"] += [step] * len(classes)
        columns["class"] += classes
        for name, key in {"inputs": "support", **{name: name for name in SCORES}}.items():
            # Where no logit was a number, nothing has a score.
            columns[name] += _plain(arrays[key]) if key in arrays else [None] * len(classes)
    return columns


def _inputs(arrays: Mapping[str, Array], probe: ProbeSet | None) -> Columns:
    said, sure = np.asarray(arrays["predictions"], np.int64), np.asarray(arrays["confidence"], np.float64)
    order = np.argsort(-np.nan_to_num(sure, nan=-1.0), kind="stable")
    lists = {kind: order[np.asarray(of_it, bool)[order]] for kind, of_it in zip(KINDS, arrays["kinds"])} | {
        "error": np.asarray(arrays["errors"], np.int64)
    }
    kinds = [kind for kind, inputs in lists.items() for _ in inputs[:MOST]]
    rows = np.concatenate([np.asarray(inputs[:MOST], np.int64) for inputs in lists.values()])
    classes = np.asarray(arrays["classes"]).tolist()
    labels = arrays["labels"] if "labels" in arrays else probe.labels if probe is not None and len(probe) == len(said) else np.full(len(said), -1)
    return {
        "kind": list(kinds),
        "input": rows.tolist(),
        "id": np.asarray(probe.ids)[rows].tolist() if probe is not None and len(probe) == len(said) else [str(row) for row in rows],
        "label": _named(np.asarray(labels, np.int64)[rows], classes),
        "prediction": _named(said[rows], classes),
        "confidence": _plain(sure[rows]),
        "times_forgotten": np.asarray(arrays["times_forgotten"])[rows].tolist(),
        "right_since": [None if since < 0 else since for since in np.asarray(arrays["right_since"])[rows].tolist()],
    }


def _named(values: Array, classes: list[str]) -> list[object]:
    return [None if k < 0 else classes[k] for k in values.tolist()]


def _plain(values: Array) -> list[object]:
    """As JSON knows numbers: NaN is none."""
    return [None if value != value else value for value in np.asarray(values).tolist()]
