"""Laws of the tables of predictions: every row is what the findings say, and the record and MLflow's pages can read it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

import netlapse.tables as module
from netlapse.analysis.predictions import KINDS
from netlapse.recording import Recording
from netlapse.tables import tables
from netlapse.tracking.folder import FolderTracker
from netlapse.types import Findings

sys.path.insert(0, str(Path(__file__).parent))
from page_recording import made_up_probe, made_up_run, with_predictions

PROBE = made_up_probe(groups=4, side=8)
RUN = with_predictions(made_up_run(layers={"x": 4}, groups=4, side=8, steps=6), PROBE)
LAST = {name: np.asarray(values) for name, values in RUN.findings["predictions"][5].arrays.items()}


def test_scores_have_a_row_for_each_step_and_class() -> None:
    scores = tables(RUN, PROBE)["predictions_scores"]
    assert list(zip(scores["step"], scores["class"])) == [(step, str(k)) for step in range(6) for k in range(4)]
    for name, key in {"precision": "precision", "auc": "auc", "f1": "f1", "recall": "recall", "inputs": "support"}.items():
        expected = np.concatenate([np.asarray(RUN.findings["predictions"][step].arrays[key]) for step in range(6)])
        np.testing.assert_array_equal(np.array(scores[name], float), expected)


def test_inputs_are_listed_by_kind_the_most_confident_first(monkeypatch) -> None:
    found = tables(RUN, PROBE)["predictions_inputs"]
    rows = [dict(zip(found, row)) for row in zip(*found.values(), strict=True)]
    for kind in (*KINDS, "error"):
        of_it = [row for row in rows if row["kind"] == kind]
        inputs = {*(np.flatnonzero(LAST["kinds"][KINDS.index(kind)]) if kind != "error" else LAST["errors"]).tolist()}
        assert {row["input"] for row in of_it} == inputs if len(inputs) <= 200 else len(of_it) == 200
        assert [row["confidence"] for row in of_it] == sorted((row["confidence"] for row in of_it), reverse=True)
        for row in of_it:
            input = row["input"]
            assert row["id"] == f"image {input}"
            assert row["label"] == str(PROBE.labels[input])
            assert row["prediction"] == str(LAST["predictions"][input])
            assert row["times_forgotten"] == LAST["times_forgotten"][input]
            assert row["right_since"] == (None if LAST["right_since"][input] < 0 else LAST["right_since"][input])
    assert {row["kind"] for row in rows} == {*KINDS, "error"}
    monkeypatch.setattr(module, "MOST", 3)
    assert len(tables(RUN)["predictions_inputs"]["kind"]) <= 18
    assert tables(RUN)["predictions_inputs"]["id"][0] == str(tables(RUN)["predictions_inputs"]["input"][0])


def test_what_is_undefined_is_none_and_not_a_number_that_json_does_not_know() -> None:
    arrays = {name: values for name, values in LAST.items() if name not in ("precision", "recall", "f1", "auc", "average_precision", "support")}
    n = len(PROBE)
    diverged = arrays | {"predictions": np.full(n, -1), "confidence": np.full(n, np.nan), "errors": np.zeros(0, int)}
    found = tables(Recording({}, {"predictions": {0: Findings(diverged)}}))
    assert set(found["predictions_scores"]["auc"]) == {None}
    assert set(found["predictions_inputs"]["confidence"]) == set(found["predictions_inputs"]["prediction"]) == {None}
    partly = Findings({**LAST, "auc": np.array([np.nan, 0.5, 0.5, 0.5])})
    assert tables(Recording({}, {"predictions": {0: partly}}))["predictions_scores"]["auc"] == [None, 0.5, 0.5, 0.5]


def test_a_run_without_predictions_has_none() -> None:
    assert tables(Recording({}, {"nap": RUN.findings["nap"]})) == {}


def test_a_record_keeps_them_as_mlflow_reads_them(tmp_path: Path) -> None:
    tracker = FolderTracker(tmp_path / "record")
    for name, columns in tables(RUN, PROBE).items():
        tracker.table(name, columns)
        written = json.loads((tmp_path / "record" / f"{name}.json").read_text(), parse_constant=lambda constant: 1 / 0)
        assert written["columns"] == list(columns)
        assert [list(row) for row in zip(*columns.values())] == written["data"]
