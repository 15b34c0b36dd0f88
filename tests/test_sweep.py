"""A sweep is one parent and a run per job, whatever launcher runs them and however they end; what is missing can be run later."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run
from omegaconf import OmegaConf

import netlapse
from netlapse import multirun, sweep
from netlapse.cli import run_training
from netlapse.recording import Recording
from netlapse.sweep import BY_ITSELF, Child, Sweep, children_table, failed_table, job_key
from netlapse.tracking.folder import FolderTracker, read, read_manifest
from netlapse.tracking.sweep import Record
from tests.sweep_jobs import OVERRIDES, STEPS, found

ROOT = Path(__file__).parent.parent
LAUNCHERS = {
    "basic": [],
    "joblib": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
    "submitit_local": ["hydra/launcher=submitit_local"],
    "submitit_slurm": ["hydra/launcher=submitit_slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.timeout_min=20"],
    "ray": ["hydra/launcher=ray", "+hydra.launcher.ray.init.num_cpus=2", "+hydra.launcher.ray.init.include_dashboard=false"],
}


def environment(home: Path, fates: dict[int, str] | None = None) -> dict[str, str]:
    (home / "user").mkdir(exist_ok=True)  # Ray keeps a token in the user's home
    own = {
        "NETLAPSE_HOME": str(home),
        "HOME": str(home / "user"),
        "PYTHONPATH": str(ROOT),
        "FATES": json.dumps(fates or {}),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    return os.environ | own


def swept(home: Path, *words: str, fates: dict[int, str] | None = None, real: bool = False) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "train.py"), "-m", *([] if real else OVERRIDES), *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment(home, fates), cwd=home, timeout=600)


def client(home: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{home / 'mlflow.db'}")


def family(home: Path) -> tuple[Run, list[Run]]:
    """The one parent there is, and its children."""
    runs = client(home).search_runs(["1"])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(children) == len(runs) - 1
    return parent, sorted(children, key=lambda run: run.info.start_time)


def table(home: Path, run: Run, name: str) -> list[dict[str, Any]]:
    path = client(home).download_artifacts(run.info.run_id, f"{name}.json")
    content = json.loads(Path(path).read_text())
    rows = [dict(zip(content["columns"], row)) for row in content["data"]]
    beside = Path(client(home).download_artifacts(run.info.run_id, f"{name}.csv")).read_text()
    as_text = [{key: "" if value is None else str(value) for key, value in row.items()} for row in rows]
    assert list(csv.DictReader(io.StringIO(beside))) == as_text
    return rows


def seed_of(run: Run) -> int:
    (word,) = [word for word in json.loads(run.data.tags["netlapse.overrides"]) if word.startswith("seed=")]
    return int(word.removeprefix("seed="))


def assert_whole(home: Path, run: Run) -> None:
    """All that the training of this seed found is in the store, bit for bit, and each of its points once."""
    seed = seed_of(run)
    recording = netlapse.load(run.info.run_id)
    assert recording.steps == tuple(range(STEPS))
    for step in range(STEPS):
        expected = found(seed, step)
        for name, values in expected.arrays.items():
            np.testing.assert_array_equal(recording.findings["training"][step].arrays[name], values)
        assert recording.findings["training"][step].scalars == expected.scalars
    points = client(home).get_metric_history(run.info.run_id, "training/val_accuracy")
    assert sorted((point.step, point.value) for point in points) == [(step, seed + step / 100) for step in range(STEPS)]
    assert len({item.path for item in client(home).list_artifacts(run.info.run_id, "images") if item.path.endswith(".png")}) == STEPS


# ------------------------------------------------------------------------------------------------------------ launchers


def slurm_answers() -> bool:
    return shutil.which("sinfo") is not None and subprocess.run(["timeout", "30", "sinfo", "-h"], capture_output=True).returncode == 0


needs_slurm = pytest.mark.skipif(not slurm_answers(), reason="no SLURM cluster answers here; Debian's slurm-wlm on this machine alone will do")


@pytest.mark.parametrize(
    ("launcher", "other"),
    [
        ("basic", "joblib"),
        ("joblib", "basic"),
        ("submitit_local", "basic"),
        ("ray", "basic"),
        pytest.param("submitit_slurm", "basic", marks=needs_slurm),
    ],
)
def test_a_failed_job_leaves_the_others_running_and_is_all_that_is_run_again(launcher: str, other: str, own_place: Path) -> None:
    first = swept(own_place, "seed=0,1,2,3", *LAUNCHERS[launcher], fates={1: "fails"})
    assert first.returncode == 1, first.stdout + first.stderr
    parent, children = family(own_place)
    assert parent.info.status == "FAILED"
    assert {seed_of(run): run.info.status for run in children} == {0: "FINISHED", 1: "FAILED", 2: "FINISHED", 3: "FINISHED"}, (
        first.stdout + first.stderr
    )
    (failed,) = [run for run in children if run.info.status == "FAILED"]
    (row,) = table(own_place, parent, "failed")
    assert (row["run"], row["why"].splitlines()[0]) == (failed.info.run_id, "LookupError: no luck with seed 1")
    assert "seed=1" in row["overrides"].split()
    traceback = Path(client(own_place).download_artifacts(failed.info.run_id, row["traceback"])).read_text()
    assert "in fit" in traceback
    assert f"failed: seed=1: LookupError: no luck with seed 1 (run {failed.info.run_id})" in first.stdout
    rows = table(own_place, parent, "children")
    assert {row["run"]: (int(row["seed"]), row["state"]) for row in rows} == {run.info.run_id: (seed_of(run), run.info.status) for run in children}
    assert {int(row["seed"]): row["training/val_accuracy"] for row in rows} == {0: 0.05, 1: 1.02, 2: 2.05, 3: 3.05}
    assert all(row["seconds"] > 0 for row in rows)

    # The words may stand in another order, and the jobs run elsewhere.
    again = swept(own_place, f"resume={parent.info.run_id}", *LAUNCHERS[other], "seed=0,1,2,3")
    assert again.returncode == 0, again.stdout + again.stderr
    same, more = family(own_place)
    assert (same.info.run_id, same.info.status) == (parent.info.run_id, "FINISHED")
    (new,) = [run for run in more if run.info.run_id not in {run.info.run_id for run in children}]
    assert (seed_of(new), new.info.status) == (1, "FINISHED")
    assert table(own_place, same, "failed") == []
    if other == "basic":
        assert again.stdout.count("Skipped, as it is finished: seed=") == 3
    for run in more:
        if run.info.status == "FINISHED":
            assert_whole(own_place, run)

    if launcher == "basic":
        last = swept(own_place, "seed=0,1,2,3", f"resume={parent.info.run_id}", fates=dict.fromkeys(range(4), "fails"))
        assert last.returncode == 0, last.stdout + last.stderr
        assert "all 4 jobs of sweep" in last.stdout
        assert len(family(own_place)[1]) == 5
        assert family(own_place)[0].info.status == "FINISHED"


def test_a_job_killed_outright_has_failed_and_those_it_took_with_it_are_told_of(own_place: Path) -> None:
    done = swept(own_place, "seed=0,1,2,3", *LAUNCHERS["joblib"], fates={0: "killed", 1: "waits"})
    assert done.returncode == 1, done.stdout + done.stderr
    parent, children = family(own_place)
    assert parent.info.status == "FAILED"
    killed = next(run for run in children if seed_of(run) == 0)
    assert killed.info.status == "FAILED"
    assert len(netlapse.load(killed.info.run_id).steps) == 3  # what it had found is uploaded
    failed = table(own_place, parent, "failed")
    rows = {word: row for row in failed for word in row["overrides"].split() if word.startswith("seed=")}
    assert rows["seed=0"]["why"] == BY_ITSELF
    assert (rows["seed=3"]["state"], rows["seed=3"]["run"]) == ("not started", "")
    assert "TerminatedWorkerError" in rows["seed=3"]["why"]


def test_an_interrupted_sweep_is_killed_and_not_failed(own_place: Path) -> None:
    command = [sys.executable, str(ROOT / "train.py"), "-m", *OVERRIDES, "seed=0,1"]
    # Where the tests run in the background, SIGINT is ignored, and would be in the command too.
    heeding: dict[str, Any] = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(own_place, {0: "waits"}), cwd=own_place, **heeding
    )
    try:
        for _ in range(1200):
            if (own_place / "waiting").exists():
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode not in (0, None)
    parent, children = family(own_place)
    assert [parent.info.status, *(run.info.status for run in children)] == ["KILLED", "KILLED"]
    assert [row["state"] for row in table(own_place, parent, "failed")] == ["KILLED", "not started"]


def test_a_sweep_into_a_folder_has_a_folder_per_job_and_goes_on_there(own_place: Path) -> None:
    place = own_place / "sweep"
    words = ["seed=0,1", "tracker=folder", f"tracker.folder={place}"]
    assert swept(own_place, *words, fates={1: "fails"}).returncode == 1
    assert read_manifest(place)["failed"] is True
    records = sorted(path.parent for path in place.glob("*/manifest.json"))
    assert [(record.name.rpartition("-")[0], read_manifest(record)["failed"]) for record in records] == [("seed-0", False), ("seed-1", True)]
    anew = swept(own_place, *words)
    assert (anew.returncode, f"{place} holds a record already; go on with it, with resume={place}" in anew.stderr) == (1, True)
    part = swept(own_place, "seed=0", *words[1:], f"resume={place}")  # nothing is left of what is asked for, and yet of the sweep
    assert (part.returncode, read_manifest(place)["failed"]) == (0, True)
    again = swept(own_place, *words, f"resume={place}")
    assert again.returncode == 0, again.stdout + again.stderr
    assert read_manifest(place)["failed"] is False
    more = sorted(path.parent for path in place.glob("*/manifest.json"))
    assert [read(record).steps for record in more] == [tuple(range(STEPS)), (0, 1, 2), tuple(range(STEPS))]
    assert json.loads((place / "failed.json").read_text())["data"] == []


# ------------------------------------------------------------------------------------------------ objective and summary


def test_optuna_is_told_the_last_value_of_the_objective(own_place: Path) -> None:
    words = ["hydra/sweeper=optuna", "hydra/sweeper/sampler=grid", "hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=1", "seed=choice(2,1,3)"]
    done = swept(own_place, *words, "hydra.sweeper.direction=maximize", "objective=training/val_accuracy")
    assert done.returncode == 0, done.stdout + done.stderr
    parent, children = family(own_place)
    assert parent.info.status == "FINISHED"
    assert sorted(map(seed_of, children)) == [1, 2, 3]  # of a grid, each point once
    best = yaml.safe_load((own_place / "sweeps" / "optimization_results.yaml").read_text())
    assert best == {"name": "optuna", "best_params": {"seed": 3}, "best_value": 3 + (STEPS - 1) / 100}

    again = swept(own_place, *words, "hydra.sweeper.direction=minimize", "objective=training/val_accuracy", f"resume={parent.info.run_id}")
    assert again.stdout.count("Skipped, as it is finished: seed=") == 3
    assert len(family(own_place)[1]) == 3
    best = yaml.safe_load((own_place / "sweeps" / "optimization_results.yaml").read_text())
    assert best == {"name": "optuna", "best_params": {"seed": 1}, "best_value": 1 + (STEPS - 1) / 100}


def test_an_objective_that_was_not_recorded_fails_the_job_and_names_those_there_are(own_place: Path) -> None:
    done = swept(own_place, "seed=0,1", "objective=fairness/gap")
    assert done.returncode == 1
    parent, children = family(own_place)
    assert {run.info.status for run in children} == {"FAILED"}
    expected = "ValueError: objective is 'fairness/gap', and this run recorded no such metric; it has ['nap/sparsity/a', 'training/val_accuracy']"
    assert [row["why"] for row in table(own_place, parent, "failed")] == [expected] * 2


def test_a_summary_is_given_the_parent_and_the_recordings_and_one_that_fails_changes_no_state(own_place: Path) -> None:
    summaries = [f"+summaries.{name}={{_target_: tests.sweep_jobs.{name}, _partial_: true}}" for name in ("broken", "told")]
    done = swept(own_place, "seed=0,1", *summaries, fates={1: "fails"})
    parent, children = family(own_place)
    assert parent.data.tags["netlapse.failure.summary broken"] == "LookupError: no luck with the summary"
    assert "summary 'broken' of the sweep failed" in done.stderr
    told = json.loads(Path(client(own_place).download_artifacts(parent.info.run_id, "told.json")).read_text())
    assert told["parent"] == parent.info.run_id
    assert [(run, state, steps) for run, _, state, steps in told["children"]] == [
        (children[0].info.run_id, "FINISHED", list(range(STEPS))),
        (children[1].info.run_id, "FAILED", [0, 1, 2]),
    ]
    assert [f"seed={seed}" in words for seed, (_, words, _, _) in enumerate(told["children"])] == [True, True]

    again = swept(own_place, "seed=0,1", *summaries, f"resume={parent.info.run_id}")
    assert again.returncode == 0, again.stdout + again.stderr
    parent, children = family(own_place)
    assert parent.info.status == "FINISHED"
    told = json.loads(Path(client(own_place).download_artifacts(parent.info.run_id, "told.json")).read_text())
    assert [child[2] for child in told["children"]] == ["FINISHED", "FAILED", "FINISHED"]


# ------------------------------------------------------------------------------------------------------------- trainings


def test_jobs_of_two_processes_train_one_after_the_other_and_are_recorded_once(own_place: Path) -> None:
    options = ["+trainer.options.accelerator=cpu", "+trainer.options.devices=2", "+trainer.options.strategy=ddp"]
    small = ["data=digits", "model=mlp_tiny", "trainer.max_epochs=1", "trainer.progress=false", "probe.per_class=2", "analyses=profiles"]
    done = swept(own_place, "seed=0,1", *small, "analyses.topomap.quality=false", *options, real=True)
    assert done.returncode == 0, done.stdout + done.stderr
    parent, children = family(own_place)
    assert parent.info.status == "FINISHED"
    assert sorted(map(seed_of, children)) == [0, 1]
    for run in children:
        assert netlapse.load(run.info.run_id).steps == (0, 1)
        steps = {point.step for point in client(own_place).get_metric_history(run.info.run_id, "train_loss")}
        assert steps == {-(-1437 // 128) - 1}  # half of the 1,437 inputs in batches of 64: two processes took them


def test_reanalyses_side_by_side_tell_which_of_them_failed_and_why(own_place: Path) -> None:
    words = ["-m", f"run={own_place / 'a'},{own_place / 'b'}", "audit=true", f"checkpoints={own_place}"]
    done = subprocess.run(
        [sys.executable, "-m", "netlapse.analysis", *words], capture_output=True, text=True, env=environment(own_place), cwd=ROOT, timeout=600
    )
    assert done.returncode == 1
    assert "2 jobs: 0 went well, 2 failed." in done.stdout, done.stdout + done.stderr
    assert f"  failed: run={own_place / 'b'}: " in done.stdout


# ------------------------------------------------------------------------------------------------------------ pure parts


def test_a_job_is_known_by_what_was_given_for_it_in_any_order() -> None:
    key = job_key(["seed=1", "layout=flas"])
    assert key == job_key(["layout=flas", "resume=0123", "seed=1", "tracker=folder", "tracker.folder=/x", "trainer.progress=false"])
    others = [
        ["seed=2", "layout=flas"],
        ["seed=1", "layout=umap"],
        ["seed=1"],
        ["seed=1", "layout=flas", "trainer.max_epochs=2"],
        ["seed=1layout=flas"],
    ]
    assert len({key, *map(job_key, others)}) == 6


def child(run: str, seed: int, state: str, why: str | None = None) -> Child:
    given = (f"seed={seed}",)
    return Child(run, job_key(given), given, state, float(ord(run)), 1.25, {"training/val_loss": seed / 2, "nap/x": 1.0}, why, Recording)


def test_what_is_missing_of_a_sweep_is_what_no_run_of_it_finished() -> None:
    planned = tuple((f"seed={seed}",) for seed in range(4))
    ends = [("a", 0, "FINISHED", None), ("b", 0, "FAILED", "late"), ("c", 1, "FAILED", "first"), ("d", 1, "FAILED", "last"), ("e", 9, "KILLED", None)]
    runs = tuple(child(*end) for end in ends)
    one = Sweep("p", planned, runs)
    assert one.missing == [job_key([f"seed={seed}"]) for seed in (1, 2, 3, 9)]
    assert one.last[job_key(["seed=0"])].run == "a"
    rows = failed_table(one, "no more room")
    assert rows["state"] == ["FAILED", "not started", "not started", "KILLED"]
    assert rows["why"] == ["last", "no more room", "no more room", BY_ITSELF]
    assert rows["run"] == ["d", "", "", "e"]
    assert "Sweep of 5 jobs: 1 finished, 4 not" in sweep.report(one, rows, 2.0)
    assert Sweep("p", planned[:1], (replace(runs[0]),)).missing == []


def test_the_table_of_children_has_a_column_for_what_differs_and_the_main_metrics() -> None:
    runs = tuple(replace(child(run, seed, "FINISHED"), overrides=("data=digits", f"seed={seed}")) for run, seed in (("a", 0), ("b", 1)))
    found = children_table(Sweep("p", (), runs, objective="nap/x"))
    assert found == {
        "run": ["a", "b"], "seed": ["0", "1"], "state": ["FINISHED"] * 2, "seconds": [1.2, 1.2], "nap/x": [1.0, 1.0], "training/val_loss": [0.0, 0.5],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("word", "extra"),
    [
        ("hydra/launcher=joblib", "joblib"),
        ("hydra/launcher=submitit_slurm", "submitit"),
        ("hydra/launcher=ray", "ray"),
        ("hydra/sweeper=optuna", "optuna"),
    ],
)
def test_a_launcher_that_is_not_installed_is_named_with_the_extra_that_brings_it(word: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    multirun.installed(["-m", word, "seed=1,2"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=rf"{word} needs a package that is not installed: pip install 'netlapse\[{extra}\]'"):
        multirun.installed(["-m", word])
    multirun.installed(["-m", "hydra/launcher=basic", "seed=1,2"])


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"])
def test_the_first_of_several_processes_keeps_the_record(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not sweep.follower()
    monkeypatch.setenv(name, "0")
    assert not sweep.follower()
    monkeypatch.setenv(name, "2")
    assert sweep.follower()


def test_a_sweep_goes_on_only_in_the_record_of_a_sweep(tmp_path: Path) -> None:
    FolderTracker(tmp_path).start({"title": "a training of its own"})
    with pytest.raises(ValueError, match=f"resume={tmp_path} is no record of a sweep; name the parent of its runs"):
        Record.opened(FolderTracker(tmp_path), [["seed=1"]], "t", "c", resumed=True)
    with pytest.raises(ValueError, match=f"{tmp_path} holds a record already; go on with it, with resume={tmp_path}"):
        Record.opened(FolderTracker(tmp_path), [["seed=1"]], "t", "c")
    with pytest.raises(ValueError, match=r"resume=0123 goes on with a sweep; repeat the sweep's command, with -m"):
        run_training(OmegaConf.create({"resume": "0123"}))


@pytest.mark.parametrize(
    ("folder", "resume", "said"),
    [
        ("${name}/x", None, r"tracker.folder is '\$\{name\}/x'; of a sweep it is one folder, .* name it without \$\{"),
        ("/a/b", "/a/c", "resume=/a/c and tracker.folder=/a/b are not the same folder"),
    ],
)
def test_the_jobs_of_a_sweep_share_one_folder(folder: str, resume: str | None, said: str) -> None:
    config = {"name": "n", "resume": resume, "tracker": {"_target_": "netlapse.tracking.folder.FolderTracker", "folder": folder}}
    with pytest.raises(ValueError, match=said):
        multirun.tracker_of(OmegaConf.create(config))
