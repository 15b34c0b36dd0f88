"""Laws of what the time-lapse page carries of saliency: the findings' numbers, and no more of them than has room."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import netlapse.report as report
import netlapse.report_saliency as report_saliency
from netlapse.recording import Recording
from netlapse.report import page
from netlapse.types import Findings

sys.path.insert(0, str(Path(__file__).parent))
from page_recording import made_up_probe, made_up_run
from test_report import carried, unpacked


def small(**options: object) -> Recording:
    """A run whose saliency is all there is to it."""
    return made_up_run(**{"layers": {"x": 2}, "groups": 3, "side": 8, "inputs": 4} | options)


def test_every_chosen_input_is_carried_with_its_map_its_picture_and_what_was_said_of_it() -> None:
    run = small(steps=4, chosen=3)
    chosen = carried(page(run))["saliency"]["chosen"]
    pictures = unpacked(chosen["pictures"]) / 255
    every = np.concatenate([f.arrays["panel_chosen"][f.arrays["inputs_chosen"] >= 0] for f in run.findings["saliency"].values()])
    low, high = every.min(), every.max()
    entry = 0
    for step, found in run.findings["saliency"].items():
        arrays, here = found.arrays, chosen["steps"][chosen["at"][step]]
        rows = np.flatnonzero(arrays["inputs_chosen"] >= 0)
        assert [chosen["why"][why] for why in here["why"]] == arrays["why_chosen"][rows].tolist()
        assert [chosen["inputs"][picture] for picture in here["picture"]] == arrays["inputs_chosen"][rows].tolist()
        assert here["label"] == arrays["labels_chosen"][rows].tolist()
        assert here["prediction"] == arrays["predictions_chosen"][rows].tolist()
        np.testing.assert_allclose(here["confidence"], arrays["confidence_chosen"][rows], rtol=1e-6)
        for picture, row in zip(here["picture"], rows):
            assert np.abs(pictures[picture] - (arrays["panel_chosen"][row] - low) / (high - low)).max() <= 0.5 / 255 + 1e-6
        for method, of in zip(("gradient", "grad_cam"), chosen["methods"]):
            shown = unpacked(of["density"])[entry : entry + len(rows)].astype(float) * 6 / 255
            assert np.abs(shown - np.minimum(arrays[f"maps_chosen/{method}"][rows], 6)).max() <= 3 / 255 + 1e-6  # their means are 1
        entry += len(rows)
    assert len(unpacked(chosen["methods"][0]["density"])) == entry > 20
    assert 0 in chosen["inputs"]  # the first of the probe is an input as any other
    assert len(pictures) == len(set(chosen["inputs"])) < entry  # an input that is chosen again has its picture once


def test_how_many_there_are_of_each_reason_is_counted_over_the_probe_without_the_panel() -> None:
    run, probe = small(steps=3, chosen=2), made_up_probe(groups=3, side=8)
    run = Recording({}, run.findings)
    found = [f.arrays for f in run.findings["saliency"].values()]
    others = [place for place in range(500) if place not in found[0]["inputs"]]
    said = carried(page(run, probe))["saliency"]["chosen"]["steps"]
    for step, here in enumerate(said):
        now = found[step]["predictions_probe"]
        changed = [place for place in others if step and now[place] != found[step - 1]["predictions_probe"][place]]
        same = [place for place in others if place not in changed]
        wrong = [place for place in same if now[place] != probe.labels[place]]
        assert here["of"] == [len(changed), len(wrong), len(same) - len(wrong)]
        assert here["before"] == (step - 1 if step else None)
        places = found[step]["inputs_chosen"][found[step]["inputs_chosen"] >= 0]
        assert here["was"] == (found[step - 1]["predictions_probe"][places].tolist() if step else None)
    # Of labels that are not at hand nothing is said.
    assert [here["of"][1:] for here in carried(page(run))["saliency"]["chosen"]["steps"]] == [[None, None]] * 3


def test_a_run_that_chose_no_inputs_carries_none_and_a_step_without_any_is_empty() -> None:
    assert carried(page(small(steps=2)))["saliency"]["chosen"] is None
    run = small(steps=2, chosen=2)
    none = {name: values for name, values in run.findings["saliency"][1].arrays.items() if not name.startswith("maps_chosen/")}
    none |= {"inputs_chosen": np.full(6, -1)}
    chosen = carried(page(Recording({}, {"saliency": {**run.findings["saliency"], 1: Findings(none)}})))["saliency"]["chosen"]
    assert chosen["steps"][1]["picture"] == []
    assert len(unpacked(chosen["methods"][0]["density"])) == len(chosen["steps"][0]["picture"])


def test_a_method_that_is_lacking_at_a_step_is_not_seen_there() -> None:
    run = small(steps=2, chosen=2)
    lacking = {name: values for name, values in run.findings["saliency"][0].arrays.items() if name != "maps_chosen/grad_cam"}
    chosen = carried(page(Recording({}, {"saliency": {**run.findings["saliency"], 0: Findings(lacking)}})))["saliency"]["chosen"]
    first = len(chosen["steps"][0]["picture"])
    assert chosen["methods"][0]["seen"] == [True] * len(chosen["methods"][0]["seen"])
    assert chosen["methods"][1]["seen"] == [False] * first + [True] * (len(chosen["methods"][1]["seen"]) - first)


def text_of(values: object) -> int:
    """Bytes of all numbers that were packed in a part of the page."""
    if isinstance(values, dict):
        return len(values["data"]) if "data" in values else sum(text_of(value) for value in values.values())
    return sum(text_of(value) for value in values) if isinstance(values, list) else 0


@pytest.mark.parametrize("part", ["panel", "chosen"])
def test_what_has_no_room_is_made_smaller_first_and_then_thinned_evenly_between_the_first_and_last_step(monkeypatch, part: str) -> None:
    run = small(steps=9, chosen=2, side=112)
    sizes = []
    for room in (10**9, 700_000, 250_000, 120_000, 60_000):
        monkeypatch.setattr(report_saliency, f"{part.upper()}_BYTES", room)
        whole = carried(page(run))["saliency"]
        data = whole if part == "panel" else whole["chosen"]
        assert text_of(whole) - text_of(whole["chosen"]) <= room if part == "panel" else text_of(data) <= room
        kept = [step for step, row in enumerate(data["at"]) if row >= 0]
        assert sorted(kept + data["left_out"]) == list(range(9))
        assert (kept[0], kept[-1]) == (0, 8)
        assert np.ptp(np.diff(kept)) <= 1
        assert len(kept) == 9 or data["side"] == 32
        sizes.append((data["side"], len(kept)))
        assert data["methods"][0]["density"]["shape"][-2:] == [{112: 112, 56: 56, 32: 28}[data["side"]]] * 2  # blocks are whole pixels
    assert sizes == sorted(sizes, reverse=True)
    assert {side for side, _ in sizes} == {112, 56, 32}
    assert sizes[-1][1] < 9


def test_smaller_maps_are_means_of_blocks() -> None:
    maps = np.random.default_rng(0).random((2, 112, 112))
    run = Recording({}, {"saliency": {0: Findings({"panel": np.zeros((2, 112, 112, 1)), "maps/m": maps})}})
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(report_saliency, "PANEL_BYTES", 20_000)
        data = carried(page(run))["saliency"]
    assert data["side"] == 56
    blocks = maps.reshape(2, 56, 2, 56, 2).mean(axis=(2, 4))
    shown = unpacked(data["methods"][0]["density"])[0].astype(float) * 6 / 255
    assert np.abs(shown - blocks / blocks.mean(axis=(1, 2), keepdims=True)).max() <= 3 / 255 + 1e-9


def test_fifty_epochs_of_many_methods_with_chosen_inputs_stay_below_fifty_megabytes() -> None:
    methods = tuple(f"method_{number}" for number in range(6))
    run = small(steps=2, side=112, channels=3, inputs=12, methods=methods, chosen=4)
    first, later = run.findings["saliency"].values()
    run = Recording({}, {"saliency": {0: first} | dict.fromkeys(range(1, 51), later)})
    whole = 51 * len(methods) * (12 + 12) * 112**2 * 4 / 3
    assert whole > report.LIMIT
    assert len(page(run).encode()) < 30_000_000


def test_the_default_run_with_chosen_inputs_stays_below_three_megabytes() -> None:
    run, probe = made_up_run(chosen=3), made_up_probe()
    run = Recording({**run.manifest, "probe": {"hash": probe.hash, "grouping": "by_label"}}, run.findings)
    assert len(page(run, probe).encode()) < 3_000_000


def test_chosen_inputs_are_the_first_that_a_page_too_large_goes_without(monkeypatch) -> None:
    run = small(steps=2, chosen=2)
    monkeypatch.setattr(report, "LIMIT", len(page(run).encode()) - 1)
    document = carried(page(run))
    assert document["left_out"] == ["the inputs chosen at each step"]
    assert document["saliency"]["chosen"] is None
    assert document["saliency"]["methods"] != []
