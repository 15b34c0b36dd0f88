"""Laws of what the page carries of predictions: the findings, within the rounding that is promised, in the room that there is."""

from __future__ import annotations

import base64
import sys
from pathlib import Path

import numpy as np

import netlapse.report_predictions as report_predictions
from netlapse.analysis.predictions import KINDS
from netlapse.recording import Recording
from netlapse.report import page
from netlapse.report_inputs import Inputs
from netlapse.report_predictions import LISTED, listed, predictions
from netlapse.types import Array, Findings, ProbeSet

sys.path.insert(0, str(Path(__file__).parent))
from page_recording import made_up_probe, made_up_run, with_predictions


def unpacked(packed: dict[str, object]) -> Array:
    data = str(packed["data"])
    return np.frombuffer(base64.b64decode(data + "=" * (-len(data) % 4)), str(packed["type"])).reshape(packed["shape"])  # type: ignore[call-overload]


def made(steps: int = 4, groups: int = 5) -> tuple[Recording, object]:
    probe = made_up_probe(groups=groups, side=8)
    return with_predictions(made_up_run(layers={"x": 4}, groups=groups, side=8, steps=steps), probe), probe


def test_what_is_carried_is_what_was_found() -> None:
    run, probe = made()
    carried = predictions(run, None)
    assert carried is not None
    found = [run.findings["predictions"][step].arrays for step in run.steps]
    np.testing.assert_array_equal(unpacked(carried["said"]), [one["predictions"] for one in found])  # type: ignore[arg-type]
    np.testing.assert_array_equal(unpacked(carried["labels"]), probe.labels)  # type: ignore[arg-type, attr-defined]
    np.testing.assert_allclose(unpacked(carried["confidence"]), [one["confidence"] for one in found], rtol=1e-7)  # type: ignore[arg-type]
    bits = unpacked(carried["kinds"])  # type: ignore[arg-type]
    for row in range(len(KINDS)):
        np.testing.assert_array_equal(bits >> row & 1, [one["kinds"][row] for one in found])
    for row, name in enumerate(carried["score_names"]):  # type: ignore[arg-type, call-overload]
        np.testing.assert_allclose(unpacked(carried["scores"])[:, row], [np.asarray(one[name], float) for one in found], rtol=1e-6)  # type: ignore[arg-type]
    for name in ("roc", "precision_recall"):
        values = unpacked(carried["thresholds"][name])  # type: ignore[index]
        np.testing.assert_allclose(values / 254, [one[name] for one in found], atol=0.5 / 254 + 1e-9)
    ranks = unpacked(carried["rank"])  # type: ignore[arg-type]
    for one, rank in zip(found, ranks):
        assert rank[one["errors"]].tolist() == list(range(len(one["errors"])))
        assert (rank == len(rank)).sum() == len(rank) - len(one["errors"])


def test_every_input_that_is_listed_has_its_place_among_the_pages_inputs() -> None:
    run, _ = made(steps=6)
    at = {*Inputs(Recording(run.manifest, {"predictions": run.findings["predictions"]}), {}, ()).at.tolist()}
    for found in run.findings["predictions"].values():
        assert {*np.asarray(found.arrays["errors"])[:LISTED].tolist()} <= at
        for of_it in found.arrays["kinds"]:
            inputs = np.flatnonzero(of_it)
            confident = inputs[np.argsort(-np.asarray(found.arrays["confidence"])[inputs], kind="stable")][:LISTED]
            assert {*confident.tolist()} <= at
    assert at == {int(input) for inputs in listed(run) for input in inputs}
    assert len(at) < 500


def test_a_run_that_was_recorded_before_labels_were_takes_them_from_the_probe() -> None:
    run, probe = made(steps=2)
    old = {s: Findings({k: v for k, v in f.arrays.items() if k != "labels"}) for s, f in run.findings["predictions"].items()}
    run = Recording(run.manifest, {"predictions": old})
    assert predictions(run, None)["labels"] is None  # type: ignore[index]
    np.testing.assert_array_equal(unpacked(predictions(run, probe)["labels"]), probe.labels)  # type: ignore[index, arg-type, attr-defined]


def test_steps_of_other_inputs_or_classes_than_the_last_are_left_out() -> None:
    run, _ = made(steps=3)
    fewer = with_predictions(made_up_run(layers={"x": 4}, groups=5, side=8, steps=3), made_up_probe(groups=5, side=8).take(np.arange(100)))
    mixed = {0: fewer.findings["predictions"][0], 1: run.findings["predictions"][1], 2: run.findings["predictions"][2]}
    carried = predictions(Recording({}, {"predictions": mixed}), None)
    assert carried is not None
    assert carried["at"] == [-1, 0, 1]


def test_what_has_no_room_is_thinned_evenly_and_curves_that_have_none_are_left_out(monkeypatch) -> None:
    run, _ = made(steps=9)
    monkeypatch.setattr(report_predictions, "INPUTS_BYTES", 5 * 500 * 11 * 4 // 3 + 20)
    monkeypatch.setattr(report_predictions, "CURVES_BYTES", 5 * 5 * 101 * 2 * 4 // 3 - 1)
    carried = predictions(run, None)
    assert carried is not None
    assert [step for step, row in enumerate(carried["at"]) if row >= 0] == [0, 2, 4, 6, 8]  # type: ignore[arg-type]
    assert carried["left_out"] == [1, 3, 5, 7]
    assert carried["thresholds"] is None
    monkeypatch.setattr(report_predictions, "CURVES_BYTES", 5 * 5 * 101 * 2 * 4 // 3 + 1)
    assert predictions(run, None)["thresholds"] is not None  # type: ignore[index]


def test_fifty_epochs_of_many_inputs_and_classes_stay_far_below_fifty_megabytes() -> None:
    probe = made_up_probe(groups=100, side=8)
    many = np.tile(np.arange(500), 20)
    probe = ProbeSet(probe.inputs[many], probe.labels[many], probe.class_names)
    run = with_predictions(made_up_run(layers={"x": 4}, groups=100, side=8, steps=3, inputs=0), probe)
    found = run.findings["predictions"]
    run = Recording({}, {"predictions": {step: found[min(step, 2)] for step in range(51)}})
    assert len(page(run, probe).encode()) < 16_000_000


def test_the_default_run_with_predictions_stays_below_three_megabytes() -> None:
    run, probe = made_up_run(), made_up_probe()
    run = with_predictions(Recording({**run.manifest, "probe": {"hash": probe.hash, "grouping": "by_label"}}, run.findings), probe)
    assert len(page(run, probe).encode()) < 3_000_000
