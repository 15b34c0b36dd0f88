"""Laws of what a sweep ends in: the units of its runs on one layout, how alike the runs are, and what is said of those that cannot be compared."""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path

import numpy as np
import pytest

from netlapse.comparison import maps_of_runs, places_of_runs, run_similarity, saliency_similarity
from netlapse.matching import by_index
from netlapse.render.runboard import storyboard_of_runs
from netlapse.summaries.likeness import alike, explained, likeness
from netlapse.summaries.page import page_of_sweep
from netlapse.summaries.runs import layers_of, parameters, runs_of
from netlapse.summaries.shared import shared
from netlapse.summaries.storyboards import MOST_RUNS, NOTICE, RESOLUTION, storyboard, storyboards
from netlapse.sweep import Child
from netlapse.tracking.folder import FolderTracker
from netlapse.types import Int64

sys.path.insert(0, str(Path(__file__).parent))
from sweep_recordings import child, recorded_run, sweep_of


def order(units: int, seed: int) -> Int64:
    return np.random.default_rng(seed).permutation(units).astype(np.int64)


ORDERS = {"conv1": order(12, 1), "fc1": order(20, 2)}


# ----------------------------------------------------------------------------------------------------------------- runs


def test_runs_are_named_by_what_differs_and_ordered_by_size() -> None:
    given = ["data=digits seed=10 layout=umap", "data=digits seed=2 layout=umap", "data=digits seed=2 layout=flas"]
    runs = runs_of(sweep_of(*(child(words, None) for words in given)))
    assert [run.name for run in runs] == ["layout=flas seed=2", "layout=umap seed=2", "layout=umap seed=10"]
    assert parameters(runs) == ["layout", "seed"]


def test_what_comparing_takes_is_kept_and_nothing_else() -> None:
    whole = recorded_run()
    (kept, _) = runs_of(sweep_of(child("seed=1", whole), child("seed=2", recorded_run(1))))
    assert {*kept.recording.findings} == {"nap", "topomap", "similarity", "saliency"}
    for name in ("profile/fc1", "scale/fc1", "groups", "constant/fc1"):
        np.testing.assert_array_equal(kept.recording.findings["nap"][2].arrays[name], whole.findings["nap"][2].arrays[name])
    assert not [name for name in kept.recording.findings["nap"][2].arrays if name.startswith(("top/", "error/", "sparsity/"))]
    assert [*kept.recording.findings["saliency"]] == [3]
    np.testing.assert_array_equal(kept.curves["nap/drift/fc1"].values, whole.scalars["nap/drift/fc1"].values)


def test_a_run_that_recorded_nothing_is_a_run() -> None:
    (run, _) = runs_of(sweep_of(child("seed=1", None, state="FAILED", why="no memory"), child("seed=2", recorded_run())))
    assert (run.state, run.why, run.curves, run.recording.findings) == ("FAILED", "no memory", {}, {})


def test_of_a_job_that_was_tried_twice_the_finished_run_counts() -> None:
    sweep = sweep_of(child("seed=1", recorded_run()), child("seed=1", None, state="FAILED", started=9), child("seed=2", recorded_run()))
    assert [(run.name, run.state) for run in runs_of(sweep)] == [("seed=1", "FINISHED"), ("seed=2", "FINISHED")]


# --------------------------------------------------------------------------------------------------------- one layout


@pytest.mark.parametrize("similarity", [True, False])
def test_units_in_another_order_lie_where_their_counterparts_do(similarity: bool) -> None:
    same = recorded_run(1, noise=0.02, similarity=similarity)
    other = recorded_run(2, noise=0.02, orders=ORDERS, similarity=similarity)
    runs = runs_of(sweep_of(child("seed=1", same), child("seed=2", other)))
    for layer, permutation in ORDERS.items():
        found = shared(runs, layer)
        assert found.by == ("responses" if similarity else "profiles")
        assert found.members == (0, 1)
        # Unit j of the second run is unit permutation[j] of the first.
        np.testing.assert_array_equal(found.places[1], found.places[0][permutation])


def test_a_storyboard_shows_runs_with_units_in_another_order_alike() -> None:
    runs = runs_of(sweep_of(child("seed=1", recorded_run(1)), child("seed=2", recorded_run(2, orders=ORDERS))))
    found = shared(runs, "fc1")
    recordings = [run.recording for run in runs]
    matched, by_number = (
        maps_of_runs(recordings, "fc1", places, resolution=RESOLUTION)
        for places in (found.places, places_of_runs(recordings, "fc1", [by_index(20, 20)] * 2))
    )
    np.testing.assert_array_equal(matched.maps[0], matched.maps[1])
    assert not np.array_equal(by_number.maps[0], by_number.maps[1], equal_nan=True)
    step, picture = storyboard(runs, found)
    assert step == 3
    title = "fc1: 2 runs, units where their counterparts by responses lie"
    unit = "standard deviations of the layer"
    again = storyboard_of_runs(matched.maps, ["seed=1", "seed=2"], [0, 1, 2, 3], ["0", "1", "2", "3"], 2.0, title, unit, found.notes)
    np.testing.assert_array_equal(picture, again)


def test_runs_without_the_layer_or_that_did_not_finish_are_left_out_and_told_of(tmp_path: Path) -> None:
    children = [
        child("model=a seed=1", recorded_run(1)),
        child("model=a seed=2", recorded_run(2)),
        child("model=b seed=1", recorded_run(3, layers={"conv1": 12, "dense": 9})),
        child("model=c seed=1", recorded_run(4, layers={"other": 9})),
        child("model=a seed=3", recorded_run(5), state="FAILED", why="nothing"),
    ]
    tracker = FolderTracker(tmp_path)
    storyboards(tracker, sweep_of(*children))
    runs = runs_of(sweep_of(*children))
    assert layers_of(runs) == ["conv1", "fc1"]
    assert {path.name for path in (tmp_path / "images" / "runs").iterdir()} == {"conv1", "fc1"}
    said = (tmp_path / NOTICE).read_text().splitlines()
    assert "layer conv1: model=a seed=3: it did not finish (failed)" in said
    assert "layer fc1: model=b seed=1, model=c seed=1: it has no layer 'fc1'" in said
    assert "layer any: model=c seed=1: it shares no layer with another run" in said
    assert [runs[place].name for place in shared(runs, "conv1").members] == ["model=a seed=1", "model=a seed=2", "model=b seed=1"]


def test_runs_that_were_shown_other_inputs_are_matched_by_profiles_where_they_are_many() -> None:
    others = [child(f"seed={seed}", recorded_run(seed, probe=str(seed) * 64)) for seed in (1, 2, 3)]
    found = shared(runs_of(sweep_of(*others)), "fc1")
    assert (found.by, found.members) == ("profiles", (0, 1, 2))
    most = [*(child(f"seed={seed}", recorded_run(seed)) for seed in (1, 2)), others[2]]
    found = shared(runs_of(sweep_of(*most)), "fc1")
    assert (found.by, found.members) == ("responses", (0, 1))
    assert "inputs" in found.left_out[2]


def test_units_of_other_widths_are_matched_in_part() -> None:
    wide = recorded_run(1, layers={"fc1": 20})
    narrow = recorded_run(2, layers={"fc1": 12})
    found = shared(runs_of(sweep_of(child("width=12", narrow), child("width=20", wide))), "fc1")
    assert [len(places) for places in found.places] == [12, 20]
    assert np.isnan(found.places[1 - found.reference]).any(axis=1).sum() >= 8 * (found.reference == 0)


def test_of_many_runs_a_storyboard_shows_some_and_says_so(tmp_path: Path) -> None:
    children = [child(f"seed={seed}", recorded_run(seed, layers={"fc1": 6}, steps=2)) for seed in range(MOST_RUNS + 4)]
    found = shared(runs_of(sweep_of(*children)), "fc1")
    _, picture = storyboard(runs_of(sweep_of(*children)), found)
    _, fewer = storyboard(runs_of(sweep_of(*children[:MOST_RUNS])), shared(runs_of(sweep_of(*children[:MOST_RUNS])), "fc1"))
    assert len(found.members) == MOST_RUNS + 4
    assert 0 <= picture.shape[0] - fewer.shape[0] < 60  # one more line of title at most, and no more runs


# ----------------------------------------------------------------------------------------------------------- likeness


def test_the_likeness_of_runs_is_their_cka_at_every_step(tmp_path: Path) -> None:
    whole = [recorded_run(seed, noise=noise, orders=ORDERS if seed == 2 else {}) for seed, noise in ((1, 0.1), (2, 0.3), (3, 1.0))]
    sweep = sweep_of(*(child(f"seed={seed}", one) for seed, one in enumerate(whole, 1)))
    found = alike(runs_of(sweep), "fc1")
    assert (found.members, found.steps) == ((0, 1, 2), (0, 1, 2, 3))
    for row, step in enumerate(found.steps):
        np.testing.assert_allclose(found.values[row], run_similarity(whole, "fc1", step), rtol=0, atol=1e-12)
    np.testing.assert_allclose(explained(runs_of(sweep), "gradient").values[-1], saliency_similarity(whole, "gradient"), rtol=0, atol=1e-12)
    likeness(tracker := FolderTracker(tmp_path), sweep)
    kept = tracker.recording().findings["run_similarity"][3]
    np.testing.assert_array_equal(kept.arrays["cka/fc1"], found.values)
    rows = [row for row in csv.DictReader(io.StringIO((tmp_path / "similarity.csv").read_text())) if row["of"] == "fc1"]
    assert {(row["run"], row["other"]): float(row["cka"]) for row in rows} == {
        (f"seed={a + 1}", f"seed={b + 1}"): found.values[-1, a, b] for a in range(3) for b in range(a)
    }
    pictures = {path.parent.relative_to(tmp_path / "images").as_posix() for path in (tmp_path / "images").rglob("*.png")}
    assert pictures == {f"similarity/{of}" for of in ("conv1", "fc1", "saliency/gradient", "saliency/grad_cam")}


def test_runs_of_other_inputs_have_no_likeness() -> None:
    runs = runs_of(sweep_of(*(child(f"seed={seed}", recorded_run(seed, probe=str(seed) * 64)) for seed in (1, 2))))
    assert alike(runs, "fc1").members == explained(runs, "gradient").members == ()


@pytest.mark.parametrize("children", [[], [child("seed=1", None, state="FAILED")], [child("seed=1", recorded_run())]])
def test_of_fewer_than_two_runs_there_is_nothing_to_compare_and_nothing_fails(children: list[Child], tmp_path: Path) -> None:
    tracker = FolderTracker(tmp_path)
    for summary in (storyboards, likeness, page_of_sweep):
        summary(tracker, sweep_of(*children))
    assert not list(tmp_path.rglob("*.png"))
    assert (tmp_path / "sweep.html").is_file() == (len(children) == 1 and children[0].state == "FINISHED")
