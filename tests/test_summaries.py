"""Laws of what a sweep ends in: the units of its runs on one layout, how alike the runs are, and what is said of those that cannot be compared."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import f_oneway, kstest, spearmanr

from netlapse.comparison import maps_of_runs, places_of_runs, run_similarity, saliency_similarity
from netlapse.matching import by_index
from netlapse.recording import Recording
from netlapse.render.courses import HIGH, WIDE, courses, mean_and_spread
from netlapse.render.runboard import storyboard_of_runs
from netlapse.summaries.association import ETA, SPEARMAN, associations, eta_squared, ranked
from netlapse.summaries.curves import MOST, curves, main_metrics
from netlapse.summaries.likeness import alike, explained, likeness
from netlapse.summaries.page import page_of_sweep
from netlapse.summaries.runs import layers_of, parameters, runs_of
from netlapse.summaries.shared import shared
from netlapse.summaries.storyboards import MOST_RUNS, NOTICE, RESOLUTION, storyboard, storyboards
from netlapse.sweep import Child
from netlapse.tracking.folder import FolderTracker
from netlapse.types import Findings, Int64

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


def test_runs_that_differ_in_their_layouts_are_each_on_their_own() -> None:
    """On one layout all would look alike, and what was asked is which layout shows most."""
    runs = runs_of(
        sweep_of(*(child(f"layout={layout} seed=0", recorded_run(1, orders=orders)) for layout, orders in (("flas", {}), ("pca", ORDERS))))
    )
    found = shared(runs, "fc1")
    assert (found.by, found.members, found.left_out) == ("own", (0, 1), {})
    for run, places in zip(runs, found.places):
        last = run.recording.findings["topomap"][max(run.recording.findings["topomap"])]
        np.testing.assert_array_equal(places, last.arrays["positions/fc1"])


def test_names_of_runs_are_short_where_they_stay_distinct() -> None:
    given = ["seed=1 model.channels=[16,8]", "seed=0 model.channels=[16,8]", "seed=0 model.channels=[8,16]"]
    runs = runs_of(sweep_of(*(child(each, None) for each in given)))
    assert [run.name for run in runs] == ["channels=[8,16] seed=0", "channels=[16,8] seed=0", "channels=[16,8] seed=1"]
    runs = runs_of(sweep_of(child("a.rate=1 b.rate=2", None), child("a.rate=2 b.rate=1", None)))
    assert [run.name for run in runs] == ["a.rate=1 b.rate=2", "a.rate=2 b.rate=1"]


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
    for found in (shared(runs, "conv1"), alike(runs, "conv1")):
        assert [runs[place].name for place in found.members] == ["model=a seed=1", "model=a seed=2", "model=b seed=1"]


def test_runs_that_were_shown_other_inputs_are_matched_by_profiles_where_they_are_many() -> None:
    others = [child(f"seed={seed}", recorded_run(seed, probe=str(seed) * 64)) for seed in (1, 2, 3)]
    found = shared(runs_of(sweep_of(*others)), "fc1")
    assert (found.by, found.members) == ("profiles", (0, 1, 2))
    most = [others[0], *(child(f"seed={seed}", recorded_run(seed)) for seed in (5, 6))]
    found = shared(runs_of(sweep_of(*most)), "fc1")
    assert (found.by, found.members) == ("responses", (1, 2))
    assert "inputs" in found.left_out[0]
    found = shared(runs_of(sweep_of(*most, *others[1:])), "fc1")  # two of five are no more than half
    assert (found.by, found.members) == ("profiles", (0, 1, 2, 3, 4))


def test_the_run_of_reference_is_the_one_most_like_the_others_and_said_to_be() -> None:
    noises = (1.0, 0.8, 0.02, 0.9)
    runs = runs_of(sweep_of(*(child(f"seed={seed}", recorded_run(seed, noise=noise)) for seed, noise in enumerate(noises))))
    found = shared(runs, "fc1")
    assert (found.reference, found.notes[2]) == (2, "the run most like the others")
    assert all(note.startswith("correlation 0.") for place, note in enumerate(found.notes) if place != 2)


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
    for summary in (storyboards, likeness, associations, page_of_sweep, curves):
        summary(tracker, sweep_of(*children))
    assert not [path for path in tmp_path.rglob("*.png") if path.parent.name != "curves"]
    assert (tmp_path / "sweep.html").is_file() == (len(children) == 1 and children[0].state == "FINISHED")


# ------------------------------------------------------------------------------------------- parameters beside metrics


def test_eta_squared_is_what_it_is_by_hand() -> None:
    # Means 2 and 5 about 3.5: between 6 * 1.5^2 = 13.5; within (1 + 0 + 1) * 2 = 4.
    assert eta_squared(np.array([0, 0, 0, 1, 1, 1]), np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])) == pytest.approx(13.5 / 17.5, abs=1e-12)
    # Groups of other sizes: 1 and 4, 4, 4, 7 about 4: between 9 + 4 * 0.5625 = 11.25 about the mean 4.
    labels, values = np.array([0, 1, 1, 1, 1]), np.array([1.0, 4.0, 4.0, 4.0, 7.0])
    assert eta_squared(labels, values) == pytest.approx((9 + 4 * 0.75**2) / 18, abs=1e-12)


def test_eta_squared_is_that_of_the_one_way_analysis_of_variance() -> None:
    rng = np.random.default_rng(0)
    labels, values = rng.integers(0, 4, 30), rng.normal(size=30)
    f = f_oneway(*(values[labels == group] for group in range(4))).statistic
    assert eta_squared(labels, values) == pytest.approx(f * 3 / (f * 3 + 26), rel=1e-12)


@pytest.mark.parametrize(("labels", "values"), [([0, 0, 0], [1, 2, 3]), ([0, 1, 2], [1, 2, 3]), ([0, 0, 1], [2, 2, 2])])
def test_eta_squared_is_not_defined_without_two_groups_one_of_several_or_for_what_does_not_vary(labels: list[int], values: list[int]) -> None:
    assert np.isnan(eta_squared(np.array(labels), np.array(values, float)))


def test_of_numbers_it_is_the_rank_correlation_but_not_of_seeds() -> None:
    rng = np.random.default_rng(1)
    rate, metric = [0.1, 0.01, 1.0, 0.01, 0.1, 10.0], rng.normal(size=6)
    found = {one.parameter: one for one in ranked({"rate": list(map(str, rate)), "seed": ["1", "2", "3", "1", "2", "3"]}, {"m": metric})}
    assert found["rate"].measure == SPEARMAN
    assert found["rate"].strength == pytest.approx(abs(spearmanr(rate, metric).statistic), abs=1e-12)
    assert found["seed"].measure == ETA
    assert found["seed"].strength == pytest.approx(eta_squared(np.array([0, 1, 2, 0, 1, 2]), metric), abs=1e-12)


def test_a_metric_that_is_a_function_of_a_parameter_ranks_first_also_beside_parameters_of_many_values() -> None:
    rng = np.random.default_rng(2)
    layout = ["flas", "umap"] * 12
    given = {"seed": [str(n // 2) for n in range(24)], "layout": layout, "rate": [str(n) for n in rng.permutation(24)]}
    metrics = {f"noise/{n}": rng.normal(size=24) for n in range(20)} | {"inside": np.where(np.array(layout) == "flas", 1.0, 3.0)}
    first, second, *_ = ranked(given, metrics)
    assert (first.parameter, first.metric, first.measure, first.strength) == ("layout", "inside", ETA, pytest.approx(1.0))
    assert first.p <= 0.002 < 0.05 < second.p
    rising = ranked(given, metrics | {"inside": np.exp([float(value) / 9 for value in given["rate"]])})
    assert (rising[0].parameter, rising[0].metric, rising[0].measure, rising[0].strength) == ("rate", "inside", SPEARMAN, pytest.approx(1.0))


def test_a_parameter_that_explains_much_by_chance_hides_no_other() -> None:
    rng = np.random.default_rng(4)
    two = np.arange(24) % 2
    metrics = {f"noise/{n}": rng.normal(size=24) for n in range(40)} | {"inside": two + rng.normal(size=24) * 0.35}
    # Twelve seeds of two runs each explain half of any metric.
    found = ranked({"seed": [str(n // 2) for n in range(24)], "layout": ["flas" if one else "umap" for one in two]}, metrics)
    by_seed = [one.strength for one in found if one.parameter == "seed"]
    assert (found[0].parameter, found[0].metric) == ("layout", "inside")
    assert found[0].strength < max(by_seed)
    assert found[0].p <= 0.02


def test_the_smallest_p_of_a_table_of_chance_is_uniform() -> None:
    smallest = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        given = {"a": ["x", "y", "z", "w"] * 4, "b": [str(value) for value in rng.permutation(16)], "c": ["0", "1"] * 8}
        shared_part = rng.normal(size=16)
        metrics = {f"m{n}": rng.normal(size=16) + shared_part for n in range(5)} | {"half": np.where(np.arange(16) < 9, rng.normal(size=16), np.nan)}
        smallest.append(ranked(given, metrics, permutations=99, seed=seed)[0].p)
    assert kstest(smallest, "uniform").pvalue > 0.01
    assert 0.01 <= np.mean(np.array(smallest) <= 0.05) <= 0.1


def test_what_is_not_defined_comes_last_and_is_no_number() -> None:
    given = {"one": ["a"] * 4, "two": ["a", "a", "b", "b"]}
    found = ranked(given, {"m": np.array([1.0, 2.0, 5.0, 7.0]), "same": np.ones(4), "rare": np.array([1.0, np.nan, 2.0, np.nan])})
    assert [(one.parameter, one.metric) for one in found if one.strength == one.strength] == [("two", "m")]
    assert all(np.isnan(one.p) for one in found[1:])
    assert {one.metric: one.runs for one in found} == {"m": 4, "same": 4, "rare": 2}
    with pytest.raises(ValueError, match=r"\[3, 4\] runs"):
        ranked(given, {"m": np.zeros(3)})


def test_the_table_of_a_sweep_has_the_last_value_of_every_metric_of_the_inside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    children = [child(f"layout={layout} seed={seed}", _valued(seed, layout == "umap")) for layout in ("flas", "umap") for seed in range(1, 6)]
    children.append(child("layout=umap seed=9", _valued(9, False), state="FAILED"))
    associations(FolderTracker(tmp_path), sweep_of(*children))
    rows = list(csv.DictReader(io.StringIO((tmp_path / "parameters.csv").read_text())))
    assert (rows[0]["parameter"], rows[0]["metric"], float(rows[0]["strength"]), rows[0]["runs"]) == (
        "layout",
        "nap/inside/fc1",
        pytest.approx(1.0),
        "10",
    )
    assert {row["metric"] for row in rows} == {"nap/inside/fc1", "nap/noise/fc1"}
    assert json.loads((tmp_path / "parameters.json").read_text())["columns"][:2] == ["parameter", "metric"]
    assert "layout: nap/inside/fc1: eta squared 1.00, p = 0.0" in capsys.readouterr().out


def _valued(seed: int, umap: bool) -> Recording:
    noise = np.random.default_rng(seed + 50 * umap).normal()
    last = {"nap/inside/fc1": float(umap), "nap/noise/fc1": noise, "cost/nap": noise, "layout/trustworthiness_null/fc1": noise}
    return Recording({}, {"nap": {0: Findings({}, {"nap/inside/fc1": noise}), 1: Findings({}, last)}})


# --------------------------------------------------------------------------------------------------------------- curves


def test_the_curves_of_a_sweep_are_every_value_of_every_run_and_the_mean_and_spread_of_the_main_ones(tmp_path: Path) -> None:
    series = {1: [1.0, 2.0, 6.0], 2: [3.0, 2.0], 3: [8.0, float("nan"), 7.0]}
    children = [child(f"seed={seed}", _course(values)) for seed, values in series.items()]
    children.append(child("seed=4", _course([100.0]), state="FAILED"))
    tracker = FolderTracker(tmp_path)
    curves(tracker, sweep_of(*children))
    rows = [row for row in csv.DictReader(io.StringIO((tmp_path / "curves.csv").read_text())) if row["metric"] == "training/loss"]
    told = {(row["run"], int(row["step"])): float(row["value"]) for row in rows}
    assert told == pytest.approx({(f"seed={s}", n): v for s, vs in {**series, 4: [100.0]}.items() for n, v in enumerate(vs)}, nan_ok=True)
    scalars = tracker.recording().scalars
    assert {*scalars} == {"mean/training/loss", "sd/training/loss"}  # cost is not of the network
    np.testing.assert_allclose(scalars["mean/training/loss"].values, [4.0, 2.0, 6.5])
    np.testing.assert_allclose(scalars["sd/training/loss"].values, [np.std([1, 3, 8], ddof=1), 0.0, np.std([6, 7], ddof=1)])
    assert [path.parent.name for path in tmp_path.rglob("*.png")] == ["curves"]


def _course(values: list[float]) -> Recording:
    return Recording({}, {"training": {n: Findings({}, {"training/loss": v, "cost/nap": 1.0}) for n, v in enumerate(values)}})


def test_a_spread_takes_two_runs() -> None:
    mean, spread = mean_and_spread(np.array([[1.0, np.nan, np.nan], [4.0, 2.0, np.nan]]))
    np.testing.assert_array_equal(mean, [2.5, 2.0, np.nan])
    np.testing.assert_array_equal(spread, [np.std([1, 4], ddof=1), np.nan, np.nan])


def test_of_a_deep_network_each_kind_of_metric_has_its_share_of_the_picture() -> None:
    found = {f"nap/{kind}/layer{n}": 1.0 for kind in ("drift", "separability") for n in range(40)} | {"training/loss": 1.0}
    runs = runs_of(sweep_of(*(child(f"seed={s}", Recording({}, {"nap": {0: Findings({}, found)}})) for s in (1, 2))))
    shown = main_metrics(runs)
    assert shown[0] == "training/loss"
    assert [len([name for name in shown if kind in name]) for kind in ("separability", "drift")] == [MOST // 3, MOST // 3]
    assert "nap/drift/layer39" in shown


def test_the_lines_of_a_picture_of_curves_are_where_the_values_are() -> None:
    steps = np.arange(5)
    picture = courses({"rising": (steps, np.array([[0.0, 1.0, 2.0, 3.0, 4.0]] * 2))}, "title").astype(int)
    blue = (np.abs(picture - [24, 60, 110]).max(axis=2) < 12).nonzero()
    rows, columns = blue
    assert np.corrcoef(rows, columns)[0, 1] < -0.999  # one straight line that rises
    assert np.ptp(columns) > 0.9 * WIDE
    assert np.ptp(rows) > 0.85 * HIGH
    with pytest.raises(ValueError, match="no panels"):
        courses({}, "title")
    with pytest.raises(ValueError, match=r"steps \(5,\) and values \(2, 4\)"):
        courses({"other": (steps, np.zeros((2, 4)))}, "title")


def test_the_summaries_of_the_config_are_these(tmp_path: Path) -> None:
    from hydra import compose, initialize_config_module
    from hydra.utils import instantiate

    with initialize_config_module("netlapse.conf", version_base=None):
        asked, none = compose("train").summaries, compose("train", ["summaries=none"]).summaries
    assert [instantiate(one).func for one in asked.values()] == [storyboards, likeness, curves, associations, page_of_sweep]
    assert not none


def test_the_ground_about_a_mean_is_one_standard_deviation_to_each_side() -> None:
    values = np.repeat(np.array([[0.0], [10.0], [5.0], [5.0], [5.0]]), 3, axis=1)
    picture = courses({"flat": (np.arange(3), values)}, "title").astype(int)
    ground = np.flatnonzero((np.abs(picture - [206, 221, 240]).max(axis=2) < 3).any(axis=1))
    # Of the panel's height, less 5 pixels above and below, 10 stand for the lines from 0 to 10.
    assert np.ptp(ground) == pytest.approx(2 * np.sqrt(50 / 4) / 10 * (HIGH - 10), abs=2)
