"""Laws of the trackers: what goes in comes out exactly, in memory, in a folder and in MLflow, whatever fails on the way."""

from __future__ import annotations

import logging
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from PIL import Image

import netlapse
from netlapse.tracking import folder as folder_tracking
from netlapse.tracking import uploads
from netlapse.tracking.folder import FolderTracker, packed, read, unpacked
from netlapse.tracking.memory import MemoryTracker
from netlapse.tracking.mlflow import MlflowTracker, mlflow_key, upload
from netlapse.types import Findings, Tracker


def findings(step: int) -> Findings:
    rng = np.random.default_rng(step)
    arrays = {
        "profile/layer1.0.conv": rng.random((3, 4)),
        "groups": np.array(["ä", "b", "c"]),
        "counts": np.array([1, 0, 2]),
        "flags": np.array([True]),
        "half": rng.random(2).astype(np.float16),
    }
    return Findings(arrays, {"nap/drift/a": 0.5 + step, "nap/drift/b": np.nan}, {"topomap/a": rng.integers(0, 255, (5, 6, 3), np.uint8)})


def same(a: Findings, b: Findings) -> None:
    assert list(a.arrays) == list(b.arrays)
    assert list(a.scalars) == list(b.scalars)
    for name in a.arrays:
        assert a.arrays[name].dtype == b.arrays[name].dtype
        np.testing.assert_array_equal(a.arrays[name], b.arrays[name])
    np.testing.assert_array_equal(list(a.scalars.values()), list(b.scalars.values()))


def test_findings_come_out_of_their_file_as_they_went_in_and_the_file_is_the_same_each_time() -> None:
    same(unpacked(packed(findings(3))), findings(3))
    assert packed(findings(3)) == packed(findings(3))


@pytest.mark.parametrize("name", ["file", "allow_pickle", "self", "a/b.c", "ä"])
def test_an_array_may_have_any_name_but_those_the_file_uses_itself(name: str) -> None:
    same(unpacked(packed(Findings({name: np.arange(3)}))), Findings({name: np.arange(3)}))
    with pytest.raises(ValueError, match=r"arrays cannot be named \['__schema__'\]"):
        packed(Findings({"__schema__": np.arange(3)}))


def test_findings_of_a_newer_schema_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_tracking, "SCHEMA", 2)
    newer = packed(findings(0))
    monkeypatch.setattr(folder_tracking, "SCHEMA", 1)
    with pytest.raises(ValueError, match="findings are of schema 2; this netlapse reads up to 1"):
        unpacked(newer)


@pytest.fixture(params=["memory", "folder", "mlflow"])
def tracker(request: pytest.FixtureRequest, tmp_path: Path) -> Tracker:
    makers: dict[str, Callable[[], Tracker]] = {
        "memory": MemoryTracker,
        "folder": lambda: FolderTracker(tmp_path / "record"),
        "mlflow": MlflowTracker,
    }
    return makers[request.param]()


def test_every_tracker_gives_back_what_it_was_given(tracker: Tracker) -> None:
    tracker.start({"data": "digits"})
    for step in (0, 2, 10):
        tracker.log("nap", step, findings(step))
    tracker.failure("saliency", "ValueError: no")
    tracker.document("timelapse.html", "<p>")
    tracker.finish()
    tracker.finish()  # a second time changes nothing
    recording = tracker.recording()
    assert recording.steps == (0, 2, 10)
    assert recording.manifest["data"] == "digits"
    assert recording.manifest["failures"] == [{"what": "saliency", "message": "ValueError: no"}]
    for step in (0, 2, 10):
        same(recording.findings["nap"][step], findings(step))


def test_the_latest_findings_before_a_step_are_those_a_resumed_training_goes_on_from(tracker: Tracker) -> None:
    tracker.start({})
    assert tracker.latest("nap", 0) is None
    for step in (0, 2, 10):
        tracker.log("nap", step, findings(step))
    for before, step in ((1, 0), (2, 0), (3, 2), (10, 2), (11, 10)):
        latest = tracker.latest("nap", before)
        assert latest is not None
        same(latest, findings(step))
    assert tracker.latest("other", 5) is None


def test_a_later_log_of_the_same_step_wins(tracker: Tracker) -> None:
    tracker.start({})
    tracker.log("nap", 0, findings(0))
    tracker.log("nap", 0, findings(1))
    same(tracker.recording().findings["nap"][0], findings(1))


def test_a_folder_holds_pictures_manifest_and_no_half_files(tmp_path: Path) -> None:
    tracker = FolderTracker(tmp_path)
    tracker.start({})
    tracker.log("nap", 12, findings(12))
    with Image.open(tmp_path / "images/topomap/a/step_00000012.png") as image:
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), findings(12).images["topomap/a"])
    assert tracker.recording().manifest["findings"] == {"nap": [12]}
    assert (tmp_path / "findings/nap/step_00000012.npz").is_file()
    assert not list(tmp_path.rglob(".*"))


def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PermissionError, match=r"cannot write to .*file/record.*; make it writable, or name another place \(NETLAPSE_HOME"):
        FolderTracker(tmp_path / "file" / "record")


def test_an_unwritable_store_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NETLAPSE_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(PermissionError, match="cannot write to"):
        MlflowTracker()


def test_a_server_that_is_not_there_is_refused_within_seconds() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = time.monotonic()
    with pytest.raises(ConnectionError, match=rf"no MLflow server answers at http://127.0.0.1:{port} .*start it, or unset MLFLOW_TRACKING_URI"):
        MlflowTracker(uri=f"http://127.0.0.1:{port}")
    assert time.monotonic() - started < 10


def test_mlflow_has_pictures_metrics_and_arrays_at_their_steps_and_each_once() -> None:
    tracker = MlflowTracker()
    tracker.start({"title": "a name", "params": {"seed": 3}})
    for step in (0, 1):
        tracker.log("nap", step, findings(step))
    tracker.document("timelapse.html", "<p>")
    tracker.finish()
    client = MlflowClient(tracker.uri)
    run = client.get_run(tracker.run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "a name"
    assert run.data.params == {"seed": "3"}
    assert [(m.step, m.value) for m in client.get_metric_history(tracker.run_id, "nap/drift/a")] == [(0, 0.5), (1, 1.5)]
    images = [item.path for item in client.list_artifacts(tracker.run_id, "images") if item.path.endswith(".png")]
    assert sorted(path.split("+timestamp")[0] for path in images) == ["images/topomap~a+step+0", "images/topomap~a+step+1"]
    assert sorted(item.path for item in client.list_artifacts(tracker.run_id, "findings/nap")) == [f"findings/nap/step_{i:08d}.npz" for i in (0, 1)]
    assert {"manifest.json", "timelapse.html"} <= {item.path for item in client.list_artifacts(tracker.run_id)}
    assert not tracker.spool.folder.exists()  # nothing is kept twice


class Run(Protocol):
    @property
    def uri(self) -> str: ...

    @property
    def run_id(self) -> str: ...


def points(tracker: Run, name: str) -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in MlflowClient(tracker.uri).get_metric_history(tracker.run_id, name)]


def pictures(tracker: Run) -> list[str]:
    paths = [item.path for item in MlflowClient(tracker.uri).list_artifacts(tracker.run_id, "images")]
    return sorted(path.split("+timestamp")[0].removeprefix("images/") for path in paths if path.endswith(".png"))


def test_the_trainings_own_metrics_are_metrics_of_the_run_each_once() -> None:
    tracker = MlflowTracker()
    tracker.start({})
    for step in (49, 99):
        tracker.metrics({"val_loss": 1 / step, "epoch": step // 50}, step)
        _wait(lambda at=step: (at, 1 / at) in points(tracker, "val_loss"))
    tracker.finish()
    assert points(tracker, "val_loss") == [(49, 1 / 49), (99, 1 / 99)]
    assert points(tracker, "epoch") == [(49, 0), (99, 1)]


def test_what_is_logged_again_as_it_was_is_not_sent_again_and_what_has_changed_replaces_it() -> None:
    tracker = MlflowTracker()
    tracker.start({})
    for _ in range(2):
        tracker.log("nap", 0, findings(0))
        _wait(lambda: bool(pictures(tracker)))
    tracker.log("nap", 0, Findings({"other": np.arange(2)}))
    tracker.finish()
    assert points(tracker, "nap/drift/a") == [(0, 0.5)]
    assert pictures(tracker) == ["topomap~a+step+0"]
    same(netlapse.load(tracker.run_id).findings["nap"][0], Findings({"other": np.arange(2)}))


def test_what_mlflow_refuses_keeps_nothing_else_from_it_and_can_be_sent_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(uploads, "RETRY_SECONDS", 0.05)
    tracker = MlflowTracker()
    log_batch = tracker._client.log_batch

    def picky(run_id: str, metrics: Sequence[Metric] = (), params: Sequence[Param] = ()) -> None:
        if any(metric.key == "nap/drift/a" and metric.step == 1 for metric in metrics):
            raise MlflowException("not this one")
        log_batch(run_id, metrics=metrics, params=params)

    monkeypatch.setattr(tracker._client, "log_batch", picky)
    tracker.start({})
    for step in (0, 1, 2):
        tracker.log("nap", step, findings(step))
    tracker.failure("saliency", "ValueError: no")
    with caplog.at_level(logging.WARNING):
        tracker.finish()
    assert "not everything reached MLflow" in caplog.records[-1].getMessage()
    assert "not this one" in caplog.records[-1].getMessage()
    run = MlflowClient(tracker.uri).get_run(tracker.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["netlapse.failure.saliency"] == "ValueError: no"
    assert points(tracker, "nap/drift/a") == [(0, 0.5), (2, 2.5)]
    assert pictures(tracker) == [f"topomap~a+step+{step}" for step in (0, 1, 2)]
    upload(tracker.spool.folder)
    assert sorted(points(tracker, "nap/drift/a")) == [(0, 0.5), (1, 1.5), (2, 2.5)]
    assert pictures(tracker) == [f"topomap~a+step+{step}" for step in (0, 1, 2)]


def test_findings_that_cannot_be_written_stand_in_nobodys_way() -> None:
    tracker = MlflowTracker()
    tracker.start({})
    with pytest.raises(ValueError, match="cannot be named"):
        tracker.log("nap", 0, Findings({"__schema__": np.arange(2)}))
    tracker.log("nap", 1, findings(1))
    tracker.finish()
    assert netlapse.load(tracker.run_id).steps == (1,)


def test_a_run_whose_process_was_killed_is_completed_and_ended_by_upload(own_place: Path) -> None:
    program = (
        "import os, sys; from netlapse.tracking import uploads; from netlapse.tracking.mlflow import MlflowTracker as T;"
        "uploads.Uploader.wake = lambda self: None; from tests.test_tracking import findings;"
        "t = T(); t.start({}); t.log('nap', 0, findings(0)); print(t.spool.folder, flush=True); os.kill(os.getpid(), 9)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    killed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=300)
    run_id = upload(killed.stdout.strip())
    assert MlflowClient(f"sqlite:///{own_place / 'mlflow.db'}").get_run(run_id).info.status == "KILLED"
    same(netlapse.load(run_id).findings["nap"][0], findings(0))


def test_a_finished_tracker_that_is_started_again_goes_on_with_its_run() -> None:
    tracker = MlflowTracker()
    client = MlflowClient(tracker.uri)
    tracker.start({"data": "digits"})
    tracker.log("nap", 0, findings(0))
    tracker.finish(failed=True)
    assert client.get_run(tracker.run_id).info.status == "FAILED"
    tracker.start({})
    assert client.get_run(tracker.run_id).info.status == "RUNNING"
    assert tracker.steps == {"nap": {0}}
    tracker.log("nap", 1, findings(1))
    tracker.finish()
    assert client.get_run(tracker.run_id).info.status == "FINISHED"
    recording = netlapse.load(tracker.run_id)
    assert recording.steps == (0, 1)
    assert recording.manifest["data"] == "digits"
    assert points(tracker, "nap/drift/a") == [(0, 0.5), (1, 1.5)]


def test_making_a_run_draws_no_random_number_and_tells_nothing(own_place: Path) -> None:
    import random

    MlflowTracker().finish()
    before = random.getstate()
    MlflowTracker().finish()
    assert random.getstate() == before
    program = "from netlapse.tracking.mlflow import MlflowTracker as T; t = T(); t.start({}); t.finish()"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent), "NETLAPSE_HOME": str(own_place / "new")}
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=300, check=True)
    assert result.stdout + result.stderr == ""


@pytest.mark.parametrize("name", ["../above", "a/b", "/root", "..", "plain name"])
def test_artifacts_lie_beside_the_store_whatever_the_experiment_is_called(name: str, own_place: Path) -> None:
    tracker = MlflowTracker(experiment=name)
    tracker.start({})
    tracker.finish()
    experiment = MlflowClient(tracker.uri).get_experiment(tracker.run.experiment_id)
    assert experiment.name == name
    folders = [path.parents[1] for path in own_place.rglob("manifest.json")]
    assert [folder.name for folder in folders] == [tracker.run_id]
    assert folders[0].parents[1] == own_place / "artifacts"


def test_a_store_that_is_not_the_default_one_is_named_in_the_command_that_shows_it(tmp_path: Path) -> None:
    assert "MLFLOW_TRACKING_URI" not in MlflowTracker().place
    other = f"sqlite:///{tmp_path / 'mine.db'}"
    assert f"MLFLOW_TRACKING_URI={other} " in MlflowTracker(uri=other).place


def test_a_run_says_where_its_page_is_once_it_has_one() -> None:
    tracker = MlflowTracker()
    run = f"http://127.0.0.1:5000/#/experiments/{tracker.run.experiment_id}/runs/{tracker.run_id}"
    tracker.document("predictions.json", "{}")
    assert tracker.place.endswith(f"and then {run}/model-metrics")
    tracker.document("timelapse.html", "<p>")
    assert tracker.place.endswith(f"and then {run}/model-metrics\n  or all on one page at {run}/artifacts/timelapse.html")
    tracker.finish()


def test_load_reads_what_a_run_recorded_from_anywhere() -> None:
    tracker = MlflowTracker()
    tracker.start({})
    tracker.log("nap", 0, findings(0))
    same(netlapse.load(tracker.run_id).findings["nap"][0], findings(0))  # while it is still going on
    tracker.finish()
    same(netlapse.load(tracker.run_id, tracker.uri).findings["nap"][0], findings(0))


def test_load_says_when_a_run_is_none_of_ours() -> None:
    tracker = MlflowTracker()
    client = MlflowClient(tracker.uri)
    other = client.create_run(tracker.run.experiment_id).info.run_id
    with pytest.raises(FileNotFoundError, match=f"run {other} holds no recording of netlapse"):
        netlapse.load(other)


def test_the_environment_chooses_store_and_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mine.db'}")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "my experiment")
    tracker = MlflowTracker()
    tracker.start({})
    tracker.finish()
    client = MlflowClient(f"sqlite:///{tmp_path / 'mine.db'}")
    experiment = client.get_experiment_by_name("my experiment")
    assert experiment is not None
    assert client.get_run(tracker.run_id).info.experiment_id == experiment.experiment_id
    assert (tmp_path / "artifacts" / "my experiment").is_dir()  # beside the store


def test_a_run_that_is_gone_on_with_keeps_its_earlier_findings() -> None:
    first = MlflowTracker()
    first.start({"data": "digits"})
    first.log("nap", 0, findings(0))
    first.finish()
    again = MlflowTracker(first.run_id)
    again.start({})
    latest = again.latest("nap", 1)
    assert latest is not None
    same(latest, findings(0))
    again.log("nap", 1, findings(1))
    assert again.recording().steps == (0, 1)
    again.finish()
    recording = netlapse.load(first.run_id)
    assert recording.steps == (0, 1)
    assert recording.manifest["findings"] == {"nap": [0, 1]}
    assert recording.manifest["data"] == "digits"


def test_what_a_full_disk_refused_is_logged_as_soon_as_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = MlflowTracker()
    tracker.start({})
    tracker.log("nap", 0, findings(0))
    with monkeypatch.context() as full:
        full.setattr(folder_tracking, "write", _no_space)
        for step in (1, 2):
            with pytest.raises(OSError, match="No space left"):
                tracker.log("nap", step, findings(step))
        latest = tracker.latest("nap", 3)
        assert latest is not None
        same(latest, findings(2))
    tracker.log("nap", 3, findings(3))
    tracker.finish()
    recording = netlapse.load(tracker.run_id)
    assert recording.steps == (0, 1, 2, 3)
    same(recording.findings["nap"][2], findings(2))


def test_what_no_disk_took_until_the_end_is_uploaded_from_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = MlflowTracker()
    tracker.start({})
    spool, write = tracker.spool.folder, folder_tracking.write
    monkeypatch.setattr(folder_tracking, "write", lambda path, data: _no_space(path, data) if spool in path.parents else write(path, data))
    with pytest.raises(OSError, match="No space left"):
        tracker.log("nap", 1, findings(1))
    tracker.finish()
    client = MlflowClient(tracker.uri)
    assert [item.path for item in client.list_artifacts(tracker.run_id, "findings/nap")] == ["findings/nap/step_00000001.npz"]


def _wait(condition: Callable[[], bool]) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen within 30 s")


def _no_space(path: Path, data: bytes) -> None:
    raise OSError(28, "No space left on device")


def test_upload_says_when_a_folder_is_no_spool(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"is no spool of netlapse: it holds no mlflow.json; spools are in"):
        upload(tmp_path)


def test_four_processes_may_open_a_new_store_at_once(tmp_path: Path) -> None:
    program = "from netlapse.tracking.mlflow import MlflowTracker as T; t = T(); t.start({}); t.finish(); print(t.run_id)"
    environment = os.environ | {"NETLAPSE_HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parent.parent)}
    processes = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        for _ in range(4)
    ]
    results = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, results
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert {out.strip() for out, _ in results} == {run.info.run_id for run in client.search_runs(["1"])}


def test_mlflow_takes_every_key_and_no_two_names_become_one() -> None:
    names = ["layer1.0.conv", "a:b", "a%b", "a b", "a//b", "../a", "/a", "ä", "x" * 300, "x" * 301, "relu.call2"]
    keys = [mlflow_key(name) for name in names]
    assert len(set(keys)) == len(names)
    assert mlflow_key("topomap/layer1.0.conv") == "topomap/layer1.0.conv"
    tracker = MlflowTracker()
    client = MlflowClient(tracker.uri)
    for key in keys:
        client.log_metric(tracker.run_id, f"nap/drift/{key}", 1.0)
        client.log_image(tracker.run_id, np.zeros((2, 2, 3), np.uint8), key=f"topomap/{key}", step=0)


def test_pictures_lie_where_mlflows_own_log_image_puts_them_under_the_names_its_pages_read() -> None:
    ours, theirs = MlflowTracker(), MlflowTracker()
    picture = np.random.default_rng(0).integers(0, 255, (40, 300, 3), np.uint8)
    ours.start({})
    ours.log("nap", 7, Findings(images={"topomap/layer1.0 x": picture}))
    ours.finish()
    client = MlflowClient(ours.uri)
    client.log_image(theirs.run_id, picture, key="topomap/layer1.0 x", step=7, timestamp=1795260495656)
    described = []
    for run_id in (ours.run_id, theirs.run_id):
        paths = sorted(item.path for item in client.list_artifacts(run_id, "images"))
        shapes = []
        for path in paths:
            with Image.open(client.download_artifacts(run_id, path)) as image:
                shapes.append((image.format, image.size))
                if image.format == "PNG":
                    np.testing.assert_array_equal(np.asarray(image.convert("RGB")), picture)
        unlike = re.compile(r"\d{13}\+[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
        assert all(unlike.search(path) for path in paths)
        described.append((client.get_run(run_id).data.tags["mlflow.loggedImages"], sorted(unlike.sub("", path) for path in paths), shapes))
    assert described[0] == described[1]


def test_a_folder_says_which_page_to_open(tmp_path: Path) -> None:
    tracker = FolderTracker(tmp_path / "run")
    assert tracker.place == str(tmp_path / "run")
    tracker.document("timelapse.html", "<p>")
    assert tracker.place.endswith(f"Open {tmp_path / 'run' / 'timelapse.html'} in a browser.")
    tracker.document("sweep.html", "<p>")
    assert tracker.place.endswith(f"Open {tmp_path / 'run' / 'sweep.html'} in a browser.")


def test_of_a_recording_the_arrays_alone_are_read_that_are_wanted(tmp_path: Path) -> None:
    tracker = FolderTracker(tmp_path)
    tracker.start({})
    for analysis in ("nap", "topomap"):
        tracker.log(analysis, 3, Findings({"a/x": np.arange(3), "b/x": np.ones(2)}, {"nap/drift": 0.5}))
    asked = []

    def wanted(analysis: str, array: str) -> bool:
        asked.append((analysis, array))
        return (analysis, array) == ("topomap", "b/x")

    recording = read(tmp_path, wanted)
    assert sorted(asked) == [(analysis, array) for analysis in ("nap", "topomap") for array in ("a/x", "b/x")]
    assert {analysis: list(by_step[3].arrays) for analysis, by_step in recording.findings.items()} == {"nap": [], "topomap": ["b/x"]}
    np.testing.assert_array_equal(recording.findings["topomap"][3].arrays["b/x"], np.ones(2))
    assert all(dict(by_step[3].scalars) == {"nap/drift": 0.5} for by_step in recording.findings.values())
