"""Laws of the summary of a study: which runs count, what they are repeats of, and the numbers of each method."""

from __future__ import annotations

import csv
import io
import os
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

import netlapse
from netlapse import summary
from netlapse.summary import Repeat, as_csv, distinct, figures, methods, runs_csv, summarised, table
from netlapse.tracking import study
from netlapse.tracking.folder import FolderTracker
from netlapse.tracking.store import client_for, experiment_id, tracking_uri
from netlapse.tracking.study import main, recorded_repeat, repeats_of
from netlapse.types import Findings

ROOT = Path(__file__).parent.parent


def repeat(run: str, words: str | None = "", **numbers: float) -> Repeat:
    """A run with measures of the layer fc; `_` in a name before `null` stays."""
    return Repeat(run, None if words is None else tuple(words.split()), {f"layout/{name}/fc": (5, value) for name, value in numbers.items()})


STUDY = [
    repeat("r1", "layout=pca seed=0", trustworthiness=0.7, trustworthiness_null=0.5),
    repeat("r2", "layout=flas seed=0", trustworthiness=0.9, trustworthiness_null=0.52),
    repeat("r3", "layout=pca seed=1", trustworthiness=0.8, trustworthiness_null=0.51),
    repeat("r4", "layout=flas seed=1", trustworthiness=0.96, trustworthiness_null=0.47),
    repeat("r5", "layout=pca seed=2", trustworthiness=0.6, trustworthiness_null=0.49),
]


# ---- what is a repeat of what ----------------------------------------------------------------------------------------


def test_methods_are_what_the_runs_differ_in_beside_their_seeds() -> None:
    assert methods(STUDY) == ["pca", "flas", "pca", "flas", "pca"]
    words = ["model=mlp layout=pca layout.spread=true seed=0", "model=mlp layout=pca layout.spread=false seed=1", "model=mlp layout=som probe.seed=3"]
    assert methods([repeat(str(i), each) for i, each in enumerate(words)]) == [
        "layout=pca layout.spread=true",
        "layout=pca layout.spread=false",
        "layout=som",
    ]


def test_a_run_that_was_asked_for_nothing_is_as_configured() -> None:
    assert methods([repeat("a", "seed=1"), repeat("b", "layout=pca seed=1")]) == ["as configured", "pca"]
    assert methods([repeat("a", "seed=1"), repeat("b", "seed=2")]) == ["as configured", "as configured"]


def test_of_a_word_given_twice_the_last_counts_and_what_changes_no_number_tells_no_method() -> None:
    assert methods([repeat("a", "layout=som layout=pca"), repeat("b", "layout=flas name=mine trainer.progress=false")]) == ["pca", "flas"]


def test_runs_whose_words_were_not_recorded_are_never_taken_for_repeats_of_each_other() -> None:
    unknown = [repeat("a", None), repeat("b", None)]
    assert methods(unknown) == ["a", "b"]
    assert distinct(unknown) == unknown


def test_of_runs_with_the_same_words_and_seeds_the_last_counts() -> None:
    first, second, other = repeat("a", "layout=pca seed=0"), repeat("b", "seed=0 layout=pca strict=true"), repeat("c", "layout=pca seed=1")
    assert distinct([first, other, second]) == [other, second]


# ---- the numbers -----------------------------------------------------------------------------------------------------


def test_means_and_deviations_are_those_of_the_statistics_module() -> None:
    pca, flas = summarised(STUDY, ["trustworthiness"])
    assert (pca.method, pca.layer, pca.measure, pca.repeats) == ("pca", "fc", "trustworthiness", 3)
    for cell, values, null in ((pca, [0.7, 0.8, 0.6], [0.5, 0.51, 0.49]), (flas, [0.9, 0.96], [0.52, 0.47])):
        assert cell.values.tolist() == values
        assert cell.null.tolist() == null
        assert cell.mean == pytest.approx(statistics.mean(values))
        assert cell.deviation == pytest.approx(statistics.stdev(values))
    assert str(pca) == "0.700 \u00b1 0.100 (0.500)"


def test_an_undefined_number_is_in_no_mean_and_a_single_one_has_no_deviation() -> None:
    (cell,) = summarised([repeat("a", motion=0.25), repeat("b", "seed=1", motion=float("nan")), repeat("c", "seed=2")], ["motion"])
    assert (cell.values.tolist(), cell.repeats) == ([0.25], 3)
    assert np.isnan(cell.deviation)
    assert str(cell) == "0.250"
    (cell,) = summarised([repeat("b", motion=float("nan"))], ["motion"])
    assert str(cell) == "undefined"


def test_the_printed_table_has_a_line_per_method_and_says_how_many_repeats_each_number_is_of() -> None:
    lines = [line.split("  ") for line in table(summarised(STUDY, ["trustworthiness"])).splitlines()]
    assert [[word.strip() for word in line if word.strip()] for line in lines] == [
        ["fc", "n", "trustworthiness"],
        ["pca", "3", "0.700 \u00b1 0.100 (0.500)"],
        ["flas", "2", "0.930 \u00b1 0.042 (0.495)"],
    ]
    uneven = [repeat("a", "seed=0", motion=1.0, components=2.0), repeat("b", "seed=1", motion=3.0)]
    assert table(summarised(uneven, ["motion", "components"])).splitlines()[1].split()[2] == "1-2"


def test_the_csv_files_hold_the_very_numbers() -> None:
    cells = summarised(STUDY, ["trustworthiness"])
    rows = list(csv.DictReader(io.StringIO(as_csv(cells))))
    assert [(row["method"], float(row["mean"]), float(row["standard_deviation"]), int(row["n"])) for row in rows] == [
        (cell.method, cell.mean, cell.deviation, len(cell.values)) for cell in cells
    ]
    assert float(rows[1]["null_mean"]) == pytest.approx(0.495)
    assert next(csv.DictReader(io.StringIO(as_csv(summarised(STUDY[:1], ["trustworthiness"])))))["standard_deviation"] == ""
    runs = list(csv.DictReader(io.StringIO(runs_csv(STUDY, ["trustworthiness"]))))
    assert len(runs) == 10
    assert (runs[0]["run"], runs[0]["method"], runs[0]["words"], runs[0]["step"]) == ("r1", "pca", "layout=pca seed=0", "5")
    assert {float(row["value"]) for row in runs if row["metric"] == "layout/trustworthiness/fc"} == {0.7, 0.9, 0.8, 0.96, 0.6}


def test_layers_are_told_apart_and_may_be_chosen_and_a_measure_may_be_any_metric() -> None:
    numbers = {"nap/separability/a/b": (1, 0.25), "nap/separability/c": (1, 0.5), "nap/separability_null/c": (1, 0.0)}
    cells = summarised([Repeat("r", (), numbers)], ["nap/separability"])
    assert [(cell.layer, cell.mean, len(cell.null)) for cell in cells] == [("a/b", 0.25, 0), ("c", 0.5, 1)]
    assert [cell.layer for cell in summarised([Repeat("r", (), numbers)], ["nap/separability"], ["c"])] == ["c"]


def test_what_no_run_has_is_named_with_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"none of the 5 runs has the measures \['motion'\]; they have \['layout/trustworthiness', "):
        summarised(STUDY, ["trustworthiness", "motion"])
    with pytest.raises(ValueError, match=r"none of the 5 runs has layers \['conv'\]; they have \['fc'\]"):
        summarised(STUDY, ["trustworthiness"], ["conv"])


def test_a_figure_shows_each_method_s_repeats_and_last_a_random_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    violins = summary.violins
    monkeypatch.setattr(summary, "violins", lambda values, **options: drawn.append((values, options)) or violins(values, **options))
    broken = [*STUDY, repeat("r6", "layout=som seed=0", trustworthiness=float("nan"), motion=float("nan"))]
    paths = figures(summarised(broken, ["trustworthiness", "motion"]), tmp_path)
    ((values, options),) = drawn  # there is no figure of motion, which is undefined everywhere
    assert {name: shown.tolist() for name, shown in values.items()} == {
        "pca": [0.7, 0.8, 0.6],
        "flas": [0.9, 0.96],
        "(random layout)": [0.5, 0.51, 0.49, 0.52, 0.47],
    }
    assert options == {"label": "trustworthiness", "title": "fc"}
    assert [path.name for path in paths] == ["trustworthiness_fc.pdf", "trustworthiness_fc.png"]
    assert paths[0].read_bytes().startswith(b"%PDF")
    assert paths[1].read_bytes().startswith(b"\x89PNG")


# ---- where runs are found --------------------------------------------------------------------------------------------


def made(client: MlflowClient, words: str, values: list[float], *, experiment: str = "study", name: str = "one", status: str = "FINISHED") -> str:
    """A run whose trustworthiness of fc had these values at the steps 0, 1, ..."""
    run = client.create_run(experiment_id(client, tracking_uri(), "netlapse"), run_name=name).info.run_id
    client.log_param(run, "experiment", experiment)
    client.log_param(run, "overrides", words)
    for step, value in enumerate(values):
        client.log_metric(run, "layout/trustworthiness/fc", value, step=step)
    client.set_terminated(run, status)
    return str(run)


def test_the_finished_runs_of_an_experiment_are_found_oldest_first_with_their_last_or_a_chosen_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "PAGE", 2)
    client = client_for(tracking_uri())
    runs = [made(client, f"layout=pca seed={seed}", [seed + 0.5, seed + 0.25]) for seed in range(5)]
    made(client, "layout=pca seed=9", [9.0], status="FAILED")
    made(client, "layout=pca seed=9", [9.0], experiment="another")
    found = repeats_of("experiment", "study", ["layout/trustworthiness"])
    assert [each.run for each in found] == runs
    assert [each.words for each in found] == [("layout=pca", f"seed={seed}") for seed in range(5)]
    assert [each.numbers["layout/trustworthiness/fc"] for each in found] == [(1, seed + 0.25) for seed in range(5)]
    at_zero = repeats_of("experiment", "study", ["layout/trustworthiness"], 0)
    assert [each.numbers["layout/trustworthiness/fc"] for each in at_zero] == [(0, seed + 0.5) for seed in range(5)]


def test_runs_are_found_by_name_also_with_quotation_marks() -> None:
    client = client_for(tracking_uri())
    names = ["plain", "it's", 'so "called"']
    runs = {name: made(client, "", [1.0], name=name) for name in names}
    for name, run in runs.items():
        assert [each.run for each in repeats_of("name", name, [])] == [run]
    with pytest.raises(ValueError, match="MLflow takes names with one kind of quotation marks; give their ids with runs="):
        repeats_of("name", 'it\'s "so"', [])


def test_where_no_run_is_found_the_error_says_which_there_are() -> None:
    client = client_for(tracking_uri())
    with pytest.raises(ValueError, match=r"no finished run of the experiment 'study' in sqlite:.*; there are 0 runs"):
        repeats_of("experiment", "study", [])
    made(client, "", [1.0], status="FAILED")
    made(client, "", [1.0], experiment="another", name="two")
    with pytest.raises(ValueError, match=r"1 of it did not finish; among the 2 runs there are those of \['another', 'study'\]"):
        repeats_of("experiment", "study", [])
    with pytest.raises(ValueError, match=r"no finished run of the name 'three' .*those of \['one', 'two'\]"):
        repeats_of("name", "three", [])


def record(folder: Path) -> Path:
    tracker = FolderTracker(folder)
    tracker.start({"params": {"overrides": "layout=pca 'probe.part=a b'"}})
    for step, value in enumerate([0.5, 0.75]):
        tracker.log("topomap", step, Findings({}, {"layout/trustworthiness/fc": value, **({"layout/motion/fc": 0.1} if step == 1 else {})}))
    tracker.finish()
    return folder


def test_a_folder_is_read_as_a_run_is(tmp_path: Path) -> None:
    folder = record(tmp_path / "record")
    last, first = recorded_repeat(folder), recorded_repeat(folder, 0)
    assert last.words == ("layout=pca", "probe.part=a b")
    assert last.numbers == {"layout/trustworthiness/fc": (1, 0.75), "layout/motion/fc": (1, 0.1)}
    assert first.numbers == {"layout/trustworthiness/fc": (0, 0.5)}
    assert recorded_repeat(folder, 7).numbers == {}


# ---- the program -----------------------------------------------------------------------------------------------------


def test_the_program_writes_what_it_prints(capsys: pytest.CaptureFixture[str], own_place: Path, tmp_path: Path) -> None:
    client = client_for(tracking_uri())
    for layout, offset in (("pca", 0.5), ("flas", 0.75)):
        for seed in range(3):
            made(client, f"layout={layout} seed={seed}", [0.0, offset + seed / 8])
    made(client, "layout=pca seed=0", [0.0, 0.5])  # once more
    main(["experiment=study", "measures=trustworthiness"])
    printed = capsys.readouterr().out
    assert "6 runs at step 1" in printed
    assert {"pca 3 0.625 \u00b1 0.125", "flas 3 0.875 \u00b1 0.125"} <= {" ".join(line.split()) for line in printed.splitlines()}
    assert "1 earlier runs with the same words, seeds among them, do not count" in printed
    folder = own_place / "summaries" / "study"
    assert f"Written to {folder}: summary.csv, runs.csv and 2 figures" in printed
    assert {path.name for path in folder.iterdir()} == {"summary.csv", "runs.csv", "trustworthiness_fc.pdf", "trustworthiness_fc.png"}
    main([f"runs={record(tmp_path / 'a')},{record(tmp_path / 'b')}", "measures=[trustworthiness]", "step=0", f"to={tmp_path / 'out'}"])
    assert "1 runs at step 0" in capsys.readouterr().out  # of two records with the same words the last counts
    assert (tmp_path / "out" / "summary.csv").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "a summary needs one of experiment=, name= or runs=<ids or folders, separated by commas>, .*; got nothing"),
        (["experiment=study", "name=one"], "needs one of .*; got experiment=study name=one"),
        (["experiment=study", "measure=x"], "may have measures=, layers=, step= and to=<folder>; got experiment=study measure=x"),
        (["experiment=study", "step=last"], "step is 'last'; expected a number of at least 0"),
        (["experiment=study", "measures=trustworthiness", "step=7"], r"none of the 1 runs has \['trustworthiness'\] at step 7; .* are \[1\]"),
        (["experiment=study", "measures=trust"], r"none of the 1 runs has the measures \['trust'\]; they have \['layout/trustworthiness'\]"),
        (["runs=0123"], "run '0123' cannot be read: .*; a run is named by its id, or by the folder of a record"),
        (["runs=no/where"], "no recording in no/where"),
    ],
)
def test_what_is_wrong_with_the_words_ends_the_program_in_one_message(words: list[str], message: str) -> None:
    made(client_for(tracking_uri()), "seed=0", [0.25, 0.5])
    with pytest.raises(SystemExit, match=f"netlapse: .*{message}"):
        main(words)


def test_a_sweep_is_found_again_and_its_methods_are_its_layouts(own_place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The chain as a user has it: train with -m, then summarise; the numbers are those that the runs recorded."""
    short = ["data=digits", "trainer.max_epochs=1", "probe.per_class=5", "trainer.progress=false", "strict=true"]
    command = [sys.executable, str(ROOT / "train.py"), "-m", "experiment=layout_methods", "layout=random,pca", "seed=0,1", *short]
    done = subprocess.run(command, capture_output=True, text=True, cwd=own_place, timeout=600, env=os.environ)
    assert done.returncode == 0, done.stderr
    main(["experiment=layout_methods", "measures=morans_i,trustworthiness"])
    rows = list(csv.DictReader((own_place / "summaries" / "layout_methods" / "summary.csv").open()))
    assert [(row["method"], row["layer"], row["measure"], row["n"]) for row in rows] == [
        (method, "relu1", measure, "2") for method in ("random", "pca") for measure in ("morans_i", "trustworthiness")
    ]
    client = client_for(tracking_uri())
    of = {
        layout: [
            netlapse.load(run.info.run_id).scalars["layout/morans_i/relu1"].at(1) for run in client.search_runs(["1"], f"params.layout = '{layout}'")
        ]
        for layout in ("random", "pca")
    }
    assert float(rows[0]["mean"]) == pytest.approx(np.mean(of["random"]))  # type: ignore[arg-type]
    assert float(rows[2]["mean"]) == pytest.approx(np.mean(of["pca"]))  # type: ignore[arg-type]
    assert float(rows[2]["mean"]) > float(rows[2]["null_mean"]) + 0.1
    capsys.readouterr()
