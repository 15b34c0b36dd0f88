"""Laws of what reaches MLflow: each thing once, whoever sends it, whatever the server, the disk or the process does meanwhile."""

from __future__ import annotations

import logging
import math
import os
import resource
import shutil
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, RunData
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from PIL import Image

import netlapse
from netlapse.tracking import claim, sync, uploads
from netlapse.tracking import mlflow as tracking
from netlapse.tracking.contents import Contents
from netlapse.tracking.folder import FolderTracker
from netlapse.tracking.mlflow import MlflowTracker, mlflow_key, upload
from netlapse.tracking.secrecy import discreet, scrubbed
from netlapse.tracking.uploads import Uploads
from netlapse.types import Findings
from tests.servers import MlflowServer, mlflow_server, proxy
from tests.test_tracking import findings, pictures, points, same

ROOT = Path(__file__).parent.parent
ENVIRONMENT = {"PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    with mlflow_server(tmp_path_factory.mktemp("server")) as started:
        yield started


@pytest.fixture(params=["local store", "server"])
def uri(request: pytest.FixtureRequest) -> str | None:
    return None if request.param == "local store" else str(request.getfixturevalue("server").uri)


class Run(NamedTuple):
    uri: str
    run_id: str


def image_files(tracker: MlflowTracker | Run) -> list[str]:
    """The names of all files of pictures in the run, without the folder."""
    return sorted(item.path.removeprefix("images/") for item in MlflowClient(tracker.uri).list_artifacts(tracker.run_id, "images"))


def recorded(uri: str | None = None, steps: tuple[int, ...] = (0, 1), run_id: str | None = None) -> MlflowTracker:
    """A finished tracker that logged these steps."""
    tracker = MlflowTracker(run_id, uri=uri)
    tracker.start({})
    for step in steps:
        tracker.log("nap", step, findings(step))
    tracker.finish()
    return tracker


def drawn(seed: int) -> Findings:
    return Findings(images={"topomap/a": np.random.default_rng(seed).integers(0, 255, (5, 6, 3), np.uint8)})


def killed(uri: str | None = None, *, step: int = 0) -> Path:
    """The spool that a killed process leaves: findings of one step, of which MLflow knows nothing, and nobody who holds it.

    A test of the trackers kills a real one.
    """
    with pytest.MonkeyPatch.context() as during:
        during.setattr(uploads.Uploader, "wake", lambda self: None)
        during.setattr(tracking, "in_background", lambda uri: None)
        tracker = MlflowTracker(uri=uri)
        tracker.start({})
        tracker.log("nap", step, findings(step))
        tracker._uploader._let_go()
    return tracker.spool.folder


def until(condition: Callable[[], bool]) -> None:
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen within 60 s")


# ---- pictures -----------------------------------------------------------------------------------------------------------


def test_a_picture_that_another_process_drew_again_is_not_added(uri: str | None) -> None:
    first = recorded(uri)
    before = image_files(first)
    assert len(before) == 4
    time.sleep(0.01)  # another time, and so another name, were it sent
    again = recorded(uri, (0, 1, 2), first.run_id)
    after = image_files(again)
    assert [name for name in after if "+step+2+" not in name] == before
    assert len(after) == 6


def test_a_picture_that_has_changed_replaces_the_one_before_without_a_gap(uri: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = recorded(uri)
    before = image_files(tracker)
    there_at_each_deletion: list[bool] = []

    def watched(artifact_uri: str, tracking_uri: str) -> object:
        repository = get_artifact_repository(artifact_uri, tracking_uri=tracking_uri)
        delete = repository.delete_artifacts

        def deleted(path: str) -> None:
            new = [name for name in image_files(tracker) if "+step+1+" in name and name not in before]
            there_at_each_deletion.append(len(new) == 2)
            delete(path)

        return SimpleNamespace(delete_artifacts=deleted)

    monkeypatch.setattr(uploads, "get_artifact_repository", watched)
    again = MlflowTracker(tracker.run_id, uri=uri)
    again.start({})
    again.log("nap", 1, drawn(7))
    again.finish()
    assert there_at_each_deletion == [True, True]
    after = image_files(tracker)
    assert [name for name in after if "+step+0+" in name] == [name for name in before if "+step+0+" in name]
    new = [name for name in after if "+step+1+" in name]
    assert [name.rpartition("+timestamp+")[0] for name in new] == ["topomap~a+step+1"] * 2
    assert not set(new) & set(before)
    with Image.open(MlflowClient(tracker.uri).download_artifacts(tracker.run_id, f"images/{new[1]}")) as image:
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), drawn(7).images["topomap/a"])


@pytest.mark.parametrize("cut", ["after one file", "before the deletion", "in the deletion"])
def test_an_upload_that_was_cut_off_ends_with_one_picture(cut: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = recorded(None, (0,))
    again = MlflowTracker(tracker.run_id)
    with monkeypatch.context() as during:
        if cut == "after one file":
            log_artifacts = again._client.log_artifacts

            def half(run_id: str, folder: str, path: str) -> None:
                next(Path(folder).glob("*.webp")).unlink()
                log_artifacts(run_id, folder, path)
                raise SystemExit

            during.setattr(again._client, "log_artifacts", half)
        elif cut == "before the deletion":
            during.setattr(Uploads, "_delete", lambda *_: sys.exit())
        else:

            def one(artifact_uri: str, tracking_uri: str) -> object:
                repository = get_artifact_repository(artifact_uri, tracking_uri=tracking_uri)
                return SimpleNamespace(delete_artifacts=lambda path: (repository.delete_artifacts(path), sys.exit()))

            during.setattr(uploads, "get_artifact_repository", one)
        again.spool.log("nap", 0, drawn(7))
        with pytest.raises(SystemExit):
            again._uploads.everything()
    assert len(image_files(tracker)) == (4 if cut == "before the deletion" else 3)  # of the one before and the new
    again._uploader._let_go()
    time.sleep(0.01)
    third = MlflowTracker(tracker.run_id)
    third.spool.log("nap", 0, drawn(7))  # drawn again, at another time
    third.finish()
    after = image_files(tracker)
    assert [Path(name).suffix for name in after] == [".webp", ".png"]
    assert len({name.removesuffix(".png").removesuffix("+compressed.webp") for name in after}) == 1
    assert pictures(tracker) == ["topomap~a+step+0"]


def test_a_picture_of_which_half_was_refused_is_replaced_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = recorded(None, (0,))
    again = MlflowTracker(tracker.run_id)
    log_artifacts = again._client.log_artifacts

    def half(run_id: str, folder: str, path: str) -> None:
        next(Path(folder).glob("*.webp")).unlink()
        log_artifacts(run_id, folder, path)
        raise ValueError("no room")

    again.spool.log("nap", 0, drawn(7))
    with monkeypatch.context() as full:
        full.setattr(again._client, "log_artifacts", half)
        with pytest.raises(ValueError, match="no room"):
            again._uploads.everything()
    assert len(image_files(tracker)) == 3  # of the one before and the new
    again.spool.log("nap", 0, drawn(8))
    again.finish()
    after = image_files(tracker)
    assert [Path(name).suffix for name in after] == [".webp", ".png"]
    assert len({name.removesuffix(".png").removesuffix("+compressed.webp") for name in after}) == 1


def test_pictures_that_others_log_under_the_same_key_and_step_are_theirs() -> None:
    tracker = recorded(None, (0,))
    MlflowClient(tracker.uri).log_image(tracker.run_id, np.zeros((2, 2, 3), np.uint8), key="topomap/a", step=0)
    theirs = set(image_files(tracker))
    again = MlflowTracker(tracker.run_id)
    again.start({})
    again.log("nap", 0, drawn(7))
    again.finish()
    assert len(set(image_files(tracker)) & theirs) == 2
    assert len(image_files(tracker)) == 4


def test_a_store_that_deletes_nothing_is_spoken_of_once_and_takes_the_rest(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    class Keeping:
        def delete_artifacts(self, path: str) -> None:
            raise NotImplementedError("not here")

    tracker = recorded()
    monkeypatch.setattr(uploads, "get_artifact_repository", lambda *_, **__: Keeping())
    again = MlflowTracker(tracker.run_id)
    again.start({})
    with caplog.at_level(logging.WARNING):
        for step in (0, 1):
            again.log("nap", step, drawn(7 + step))
            until(lambda at=step: pictures(tracker).count(f"topomap~a+step+{at}") == 2)
        again.finish()
    told = [record.getMessage() for record in caplog.records if record.name.startswith("netlapse")]
    assert len(told) == 1
    assert "its store deletes none (NotImplementedError: not here)" in told[0]
    assert not again.spool.folder.exists()


def test_a_run_of_our_own_is_never_asked_what_it_holds_and_another_once(server: MlflowServer) -> None:
    with proxy(server.uri) as between:
        tracker = MlflowTracker(uri=between.uri)
        tracker.start({})
        for step in (0, 1, 2):
            tracker.log("nap", step, findings(step))
            tracker.metrics({"val_loss": 1.0}, step)
            until(lambda at=step: ("nap/drift/a", at) in {(m, p[0]) for m in ["nap/drift/a"] for p in points(tracker, m)})
        tracker.log("nap", 2, findings(2))  # nothing new: the same
        between.calls.clear()
        tracker.log("nap", 3, findings(3))
        tracker.finish()
        questions = ("artifacts?", "get-history", "runs/get?")
        assert not [path for method, path in between.calls if method == "GET" and any(question in path for question in questions)]
        again = MlflowTracker(tracker.run_id, uri=between.uri)
        again.start({})
        between.calls.clear()
        for step in (4, 5, 6):
            again.log("nap", step, findings(step))
            until(lambda at=step: any(f"+step+{at}+" in path for _, path in between.calls if "images/" in path))
        again.finish()
        asked = [path for method, path in between.calls if method == "GET" and "experiments/search" not in path and "findings" not in path]
        assert len([path for path in asked if "images" in path]) == 1
        assert not [path for path in asked if "get-history" in path]


# ---- points -------------------------------------------------------------------------------------------------------------


def test_a_point_that_the_run_holds_is_not_sent_again_and_a_changed_value_is_a_second_point(uri: str | None) -> None:
    def scalars(step: int, b: float = 2.0) -> Findings:
        return Findings(scalars={"nap/a": 1.0 + step, "nap/b": b, "nap/nan": math.nan, "nap/inf": math.inf})

    first = MlflowTracker(uri=uri)
    first.start({})
    for step in (0, 1, 2):
        first.log("nap", step, scalars(step))
        first.log("cost", step, Findings(scalars={"cost/nap": 0.1 + step}))
        first.metrics({"val_loss": 1 / 3, "epoch": step}, step)
    first.finish()
    again = MlflowTracker(first.run_id, uri=uri)
    again.start({})
    for path in (again.spool.folder / "findings").rglob("*.npz"):
        path.unlink()  # as a process whose findings did not arrive, though its points did
    (again.spool.folder / "uploaded.txt").unlink()
    again._uploads._ledger.clear()
    for step in (0, 1, 2, 3):
        again.log("nap", step, scalars(step, b=5.0 if step == 1 else 2.0))
        again.log("cost", step, Findings(scalars={"cost/nap": 0.7 + step}))
        again.metrics({"val_loss": 1 / 3, "epoch": step}, step)
    again.finish()
    assert points(first, "nap/a") == [(0, 1.0), (1, 2.0), (2, 3.0), (3, 4.0)]
    assert sorted(points(first, "nap/b")) == [(0, 2.0), (1, 2.0), (1, 5.0), (2, 2.0), (3, 2.0)]
    assert [step for step, _ in points(first, "nap/nan")] == [0, 1, 2, 3]
    assert [step for step, _ in points(first, "nap/inf")] == [0, 1, 2, 3]
    assert points(first, "cost/nap") == [(0, 0.1), (1, 1.1), (2, 2.1), (3, 3.7)]
    assert points(first, "epoch") == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert points(first, "val_loss") == [(step, 1 / 3) for step in (0, 1, 2, 3)]


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("seed", range(20))
def test_of_any_points_in_any_order_those_are_taken_that_were_not_there(seed: int, new: bool) -> None:
    """Against the definition: a point is new if no point of its key, step and value was held or taken before it."""
    rng = np.random.default_rng(seed)
    values = [0.0, -0.0, 1.5, math.nan, math.inf, sys.float_info.max]
    held: list[Metric] = []

    def drawn_points(n: int) -> list[Metric]:
        return [Metric(rng.choice(["a", "b"]), values[rng.integers(len(values))], int(time), int(rng.integers(4))) for time in range(n)]

    def latest(_: str) -> object:
        by_key: dict[str, Metric] = {}
        for point in held:
            if point.key not in by_key or (point.step, point.timestamp) >= (by_key[point.key].step, by_key[point.key].timestamp):
                by_key[point.key] = point
        return SimpleNamespace(data=RunData(metrics=list(by_key.values())))

    def known(point: Metric) -> tuple[str, int, str]:
        value = sys.float_info.max if point.value == math.inf else point.value
        return point.key, point.step, "nan" if math.isnan(value) else str(value + 0.0)

    client = SimpleNamespace(get_run=latest, get_metric_history=lambda _, key: [point for point in held if point.key == key])
    if not new:
        held += drawn_points(6)
    contents = Contents(client, "run", new=new)  # type: ignore[arg-type]  # as much of a client as it needs
    for _ in range(8):
        batch = drawn_points(rng.integers(1, 5))
        if rng.random() < 0.2:
            contents.forget_points()
        there = {known(point) for point in held}
        expected = []
        for point in batch:
            if known(point) not in there:
                expected.append(point)
                there.add(known(point))
        taken = contents.take(batch)
        assert [known(point) for point in taken] == [known(point) for point in expected]
        held += taken


# ---- sync ---------------------------------------------------------------------------------------------------------------


def synced(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "netlapse.tracking.sync", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | ENVIRONMENT | environment,
        timeout=300,
    )


def test_sync_uploads_once_what_killed_processes_left_and_leaves_living_ones_alone(server: MlflowServer, own_place: Path) -> None:
    living = MlflowTracker()
    living.start({})
    living.log("nap", 0, findings(0))
    local, remote, spare = killed(), killed(server.uri), killed(step=1)
    (spare / "mlflow.json").write_text((spare / "mlflow.json").read_text().replace("sqlite:////", "http://127.0.0.1:9/?"))
    done = synced()
    assert done.returncode == 1
    lines = {line.split(":")[0]: line for line in done.stdout.splitlines()}
    assert len(lines) == 4
    assert lines[f"run {local.name}"] == f"run {local.name}: uploaded to sqlite:///{own_place / 'mlflow.db'}"
    assert lines[f"run {remote.name}"] == f"run {remote.name}: uploaded to {server.uri}"
    assert lines[f"run {living.run_id}"] == f"run {living.run_id}: left alone, another process is writing or uploading it"
    assert lines[str(spare)].startswith(f"{spare}: kept, ConnectionError: no MLflow server answers at http://127.0.0.1:9/")
    assert {path.name for path in (own_place / "spool").iterdir()} == {spare.name, living.run_id}
    for spool, uri in ((local, None), (remote, server.uri)):
        same(netlapse.load(spool.name, uri).findings["nap"][0], findings(0))
        assert MlflowClient(uri or living.uri).get_run(spool.name).info.status == "KILLED"
    living.finish()
    shutil.rmtree(spare)
    again = synced()
    assert (again.returncode, again.stdout) == (0, f"nothing is left to upload in {own_place / 'spool'}\n")


def test_sync_takes_folders_and_says_when_one_is_no_spool(tmp_path: Path) -> None:
    one, other = killed(), killed()
    done = synced(str(one), str(tmp_path))
    assert done.returncode == 1
    assert done.stdout.splitlines()[0].startswith(f"run {one.name}: uploaded")
    assert f"{tmp_path}: kept, FileNotFoundError: {tmp_path} is no spool of netlapse" in done.stdout
    assert other.is_dir()


def test_the_script_has_the_command(own_place: Path) -> None:
    done = subprocess.run(["./run", "sync"], cwd=ROOT, capture_output=True, text=True, timeout=600, env=os.environ)
    assert (done.returncode, done.stdout) == (0, f"nothing is left to upload in {own_place / 'spool'}\n")


def test_the_next_training_uploads_what_is_left_of_its_store_and_of_no_other(server: MlflowServer) -> None:
    local, remote = killed(), killed(server.uri)
    tracker = MlflowTracker()
    until(lambda: not local.exists())
    assert MlflowClient(tracker.uri).get_run(local.name).info.status == "KILLED"
    assert pictures(Run(tracker.uri, local.name)) == ["topomap~a+step+0"]
    assert remote.is_dir()
    tracker.finish()


def test_what_is_left_neither_delays_nor_fails_the_next_training(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    spool, waiting = killed(), threading.Event()

    def stuck(folder: Path, uri: str) -> str:
        waiting.wait(60)
        raise RuntimeError("broken")

    monkeypatch.setattr(sync, "upload", stuck)
    with caplog.at_level(logging.WARNING):
        recorded()
        assert not caplog.records  # a whole training while it is stuck
        waiting.set()
        until(lambda: any(f"left in {spool} could not be uploaded (RuntimeError: broken)" in record.getMessage() for record in caplog.records))


def test_a_killed_process_is_gone_on_with_and_its_run_ended() -> None:
    spool = killed()
    again = MlflowTracker(spool.name)
    again.start({})
    assert again.spool.folder == spool
    assert again.steps == {"nap": {0}}
    again.log("nap", 1, findings(1))
    again.finish()
    assert MlflowClient(again.uri).get_run(spool.name).info.status == "FINISHED"
    assert points(again, "nap/drift/a") == [(0, 0.5), (1, 1.5)]


def test_two_that_write_to_one_run_have_a_spool_each_and_nobody_uploads_a_held_one() -> None:
    first = MlflowTracker()
    second = MlflowTracker(first.run_id)
    assert first.spool.folder != second.spool.folder
    for step, tracker in enumerate((first, second)):
        tracker.start({})
        tracker.log("nap", step, findings(step))
        with pytest.raises(BlockingIOError, match="is being written or uploaded by another process; wait for its end"):
            upload(tracker.spool.folder)
    assert set(netlapse.load(first.run_id).findings["nap"]) == {0, 1}
    second.finish()
    first.finish()
    assert points(first, "nap/drift/a") == [(0, 0.5), (1, 1.5)]
    assert pictures(first) == ["topomap~a+step+0", "topomap~a+step+1"]


def test_a_lock_on_a_folder_that_was_removed_meanwhile_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flock = claim.fcntl.flock
    spool = tmp_path / "spool"
    spool.mkdir()

    def removed_before(file: object, how: int) -> None:
        shutil.rmtree(spool, ignore_errors=True)
        flock(file, how)

    monkeypatch.setattr(claim.fcntl, "flock", removed_before)
    with pytest.raises(FileNotFoundError):
        claim.claim(spool)


def test_a_file_system_without_locks_fails_no_training_and_is_not_synced_blindly(monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = MlflowTracker()
    tracker.finish()
    monkeypatch.setattr(claim.fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(38, "Function not implemented")))
    folder, lock = claim.claimed(tracker.run_id)
    assert (folder.name, lock) == (tracker.run_id, None)
    (folder / "mlflow.json").write_text('{"uri": "sqlite:///x", "run_id": "a", "owned": true}')
    with pytest.raises(OSError, match=r"cannot be locked .*another process may be writing it"):
        upload(folder)


# ---- servers that do not work -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("behaviour", ["refuse", "hang"])
def test_a_server_that_does_not_work_is_refused_within_seconds(behaviour: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with proxy(behaviour=behaviour) as broken:  # type: ignore[arg-type]
        started = time.monotonic()
        why = "it answers 500" if behaviour == "refuse" else "no answer within 5 s"
        with pytest.raises(ConnectionError, match=rf"no MLflow server answers at {broken.uri} \({why}"):
            MlflowTracker(uri=broken.uri)
        assert time.monotonic() - started < 20


def test_a_name_that_nobody_knows_is_refused_within_seconds() -> None:
    with pytest.raises(ConnectionError, match=r"no MLflow server answers at http://no-such-host.invalid \(.*[Rr]esol"):
        MlflowTracker(uri="http://no-such-host.invalid")


@pytest.mark.parametrize("behaviour", ["refuse", "hang", "no name"])
def test_a_server_that_stops_working_holds_nobody_up_and_gets_everything_once_later(
    behaviour: str, server: MlflowServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(uploads, "RETRY_SECONDS", 0.2)
    with proxy(server.uri) as between:
        tracker = MlflowTracker(uri=between.uri)
        tracker.start({})
        tracker.log("nap", 0, findings(0))
        until(lambda: not [*tracker._uploads._missing_numbers(), *tracker._uploads._missing_files()])
        time.sleep(0.5)  # no call is under way, which MLflow's client would go on with for minutes
        with monkeypatch.context() as gone, caplog.at_level(logging.WARNING):
            if behaviour == "no name":
                gone.setattr(socket, "getaddrinfo", lambda *_, **__: (_ for _ in ()).throw(socket.gaierror(-2, "Name or service not known")))
            else:
                between.behaviour = behaviour  # type: ignore[assignment]
            for step in (1, 2):
                started = time.monotonic()
                tracker.log("nap", step, findings(step))
                assert time.monotonic() - started < 2
            until(lambda: tracker._uploader.failure is not None)
            time.sleep(1.0)  # several more trials, which are not spoken of
            started = time.monotonic()
            tracker.finish()
            assert time.monotonic() - started < 25
        told = [record.getMessage() for record in caplog.records if record.name.startswith("netlapse")]
        assert len(told) == 2, told
        assert "refuses" in told[0]
        assert told[1].endswith(f"Upload it with: {sync.command('sync')} {tracker.spool.folder}")
        between.behaviour = "pass"
        until(lambda: _uploaded(tracker.spool.folder))
    assert points(Run(server.uri, tracker.run_id), "nap/drift/a") == [(0, 0.5), (1, 1.5), (2, 2.5)]
    assert pictures(Run(server.uri, tracker.run_id)) == [f"topomap~a+step+{step}" for step in (0, 1, 2)]


def _uploaded(folder: Path) -> bool:
    """Upload a spool, once its thread has let go of it."""
    try:
        upload(folder)
    except BlockingIOError:
        return False
    return True


def test_a_server_that_takes_no_files_keeps_no_point_waiting_and_the_end_does_not_wait_for_it(
    server: MlflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow's client tries the first file, the manifest of the start, for four minutes: nothing here may wait as long."""
    monkeypatch.setattr(uploads, "STALL_SECONDS", 3.0)
    with proxy(server.uri, behaviour="refuse files") as between:
        tracker = MlflowTracker(uri=between.uri)
        tracker.start({})
        until(lambda: any("artifacts" in path for _, path in between.calls))
        for step in (0, 1):
            tracker.log("nap", step, findings(step))
            until(lambda at=step: len(points(tracker, "nap/drift/a")) == at + 1)
        tracker.failure("nap", "broken")
        tracker.metrics({"val_loss": 1.0}, 1)
        until(lambda: points(tracker, "val_loss") == [(1, 1.0)])
        until(lambda: MlflowClient(server.uri).get_run(tracker.run_id).data.tags.get("netlapse.failure.nap") == "broken")
        started = time.monotonic()
        tracker.finish()
        assert time.monotonic() - started < 60
        assert points(tracker, "nap/drift/a") == [(0, 0.5), (1, 1.5)]
        assert image_files(Run(server.uri, tracker.run_id)) == []
        with pytest.raises(BlockingIOError):  # a thread is at it still
            upload(tracker.spool.folder)


@pytest.mark.parametrize("call", ["log_batch", "log_artifact", "log_artifacts"])
@pytest.mark.parametrize("ended", [False, True])
def test_what_was_refused_is_sent_again_by_itself_and_kept_where_it_was_the_last_trial(
    call: str, ended: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(uploads, "RETRY_SECONDS", 3600.0 if ended else 0.05)
    tracker = MlflowTracker()
    allowed, refused = getattr(tracker._client, call), []

    def picky(*what: object, **more: object) -> None:
        if ended or len(refused) < 2:
            refused.append(what)
            raise ValueError("not now")
        allowed(*what, **more)

    def arrived() -> bool:
        there = MlflowClient(tracker.uri).list_artifacts(tracker.run_id, "findings/nap")
        return points(tracker, "nap/drift/a") == [(0, 0.5)] and len(image_files(tracker)) == 2 and len(there) == 1

    tracker.start({})
    with monkeypatch.context() as now:
        now.setattr(tracker._client, call, picky)
        tracker.log("nap", 0, findings(0))
        if ended:
            with caplog.at_level(logging.WARNING):
                tracker.finish()
            assert f"(ValueError: not now); it is kept. Upload it with: {sync.command('sync')} {tracker.spool.folder}" in caplog.text
        else:
            until(arrived)
            assert len(refused) == 2
    if ended:
        assert not arrived()
        upload(tracker.spool.folder)
    else:
        tracker.finish()
    assert arrived()
    same(netlapse.load(tracker.run_id).findings["nap"][0], findings(0))
    assert not tracker.spool.folder.exists()


def test_a_run_that_could_not_be_ended_is_ended_later(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    tracker = MlflowTracker()
    tracker.start({})
    with monkeypatch.context() as now, caplog.at_level(logging.WARNING):
        now.setattr(Uploads, "end", lambda *_: (_ for _ in ()).throw(ValueError("not now")))
        tracker.finish()
    assert f"(ValueError: not now); it is kept. Upload it with: {sync.command('sync')} {tracker.spool.folder}" in caplog.text
    assert MlflowClient(tracker.uri).get_run(tracker.run_id).info.status == "RUNNING"
    upload(tracker.spool.folder)
    assert MlflowClient(tracker.uri).get_run(tracker.run_id).info.status == "FINISHED"


def test_what_fails_after_the_end_has_told_of_it_is_not_told_again(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    under_way, given_up = threading.Event(), threading.Event()

    def stuck(self: Uploads) -> None:
        under_way.set()
        given_up.wait(60)
        raise ValueError("no room")

    monkeypatch.setattr(uploads, "STALL_SECONDS", 0.1)
    monkeypatch.setattr(Uploads, "files", stuck)
    tracker = MlflowTracker()
    with caplog.at_level(logging.WARNING):
        tracker.start({})
        assert under_way.wait(60)
        tracker.finish()
        given_up.set()
        until(lambda: tracker._uploader.failure == "ValueError: no room")
        until(tracker._uploader._ended.is_set)
    told = [record.getMessage() for record in caplog.records if record.name.startswith("netlapse")]
    assert len(told) == 1, told
    assert "not everything reached MLflow" in told[0]


def test_findings_arrive_after_their_points_or_after_these_were_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who goes on elsewhere takes the points of findings that arrived to have arrived too."""

    def arrived() -> list[str]:
        return [item.path for item in MlflowClient(tracker.uri).list_artifacts(tracker.run_id, "findings/nap")]

    def refuse(*_: object, **__: object) -> None:
        raise ValueError("no such points")

    with monkeypatch.context() as still:
        still.setattr(uploads.Uploader, "wake", lambda self: None)
        tracker = MlflowTracker()
        tracker.start({})
        tracker.log("nap", 0, findings(0))
        tracker._uploads.files()
        assert (pictures(tracker), arrived()) == (["topomap~a+step+0"], [])
        tracker._uploads.numbers()
        tracker.log("nap", 1, findings(1))
        tracker._uploads.files()
        assert arrived() == ["findings/nap/step_00000000.npz"]
        with monkeypatch.context() as refusing:
            refusing.setattr(tracker._client, "log_batch", refuse)
            with pytest.raises(ValueError, match="no such points"):
                tracker._uploads.everything()
        assert arrived() == ["findings/nap/step_00000000.npz", "findings/nap/step_00000001.npz"]
        assert points(tracker, "nap/drift/a") == [(0, 0.5)]
    tracker.finish()
    assert points(tracker, "nap/drift/a") == [(0, 0.5), (1, 1.5)]
    assert len(image_files(tracker)) == 4


def test_a_slow_server_holds_nobody_up_and_gets_everything_once(server: MlflowServer) -> None:
    with proxy(server.uri, seconds=0.2) as slow:
        tracker = MlflowTracker(uri=slow.uri)
        tracker.start({})
        before, started = len(slow.calls), time.monotonic()
        for step in range(3):
            tracker.log("nap", step, findings(step))
        logged, calls = time.monotonic() - started, len(slow.calls) - before
        tracker.finish()
        assert logged < 0.2 * (len(slow.calls) - before - calls)  # the calls were made while nobody waited
    assert points(Run(server.uri, tracker.run_id), "nap/drift/a") == [(0, 0.5), (1, 1.5), (2, 2.5)]
    assert len(image_files(Run(server.uri, tracker.run_id))) == 6


def test_a_server_that_is_killed_and_started_again_in_mid_run_gets_everything_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "RETRY_SECONDS", 0.2)
    with mlflow_server(tmp_path) as own:
        tracker = MlflowTracker(uri=own.uri)
        tracker.start({})
        tracker.log("nap", 0, findings(0))
        until(lambda: bool(points(tracker, "nap/drift/a")))
        own.kill()
        tracker.log("nap", 1, findings(1))
        own.start()
        tracker.log("nap", 2, findings(2))
        tracker.finish()
        if tracker.spool.folder.exists():  # a call was under way when it died, and MLflow's client is still trying
            until(lambda: _uploaded(tracker.spool.folder))
        assert points(tracker, "nap/drift/a") == [(0, 0.5), (1, 1.5), (2, 2.5)]
        assert pictures(tracker) == [f"topomap~a+step+{step}" for step in (0, 1, 2)]
        assert netlapse.load(tracker.run_id, own.uri).steps == (0, 1, 2)


# ---- disks that take nothing --------------------------------------------------------------------------------------------


def test_a_disk_that_is_full_for_a_while_costs_nothing(server: MlflowServer) -> None:
    """A real one, for this process: no file may grow beyond some bytes, and those that fit are written."""
    tracker = MlflowTracker(uri=server.uri)
    tracker.start({})
    tracker.log("nap", 0, findings(0))
    tracker.metrics({"val_loss": 0.0}, 0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tracker.spool.folder / "metrics.jsonl").stat().st_size + 10, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            tracker.log("nap", 1, findings(1))
        with pytest.raises(OSError, match="too large"):
            tracker.metrics({"val_loss": 1.0}, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tracker.spool.folder / "metrics.jsonl").read_bytes()[-1:] != b"\n"  # half a line was
    tracker.log("nap", 2, findings(2))
    tracker.metrics({"val_loss": 2.0}, 2)
    tracker.finish()
    assert points(tracker, "val_loss") == [(0, 0.0), (1, 1.0), (2, 2.0)]
    assert points(tracker, "nap/drift/a") == [(0, 0.5), (1, 1.5), (2, 2.5)]
    assert pictures(tracker) == [f"topomap~a+step+{step}" for step in (0, 1, 2)]
    assert not tracker.spool.folder.exists()


def test_a_folder_that_takes_no_files_costs_nothing_and_the_end_uploads_from_memory() -> None:
    tracker = MlflowTracker()
    tracker.start({})
    (tracker.spool.folder / "findings").mkdir()
    (tracker.spool.folder / "findings" / "nap").write_text("in the way")  # even for the superuser, whom no permission stops
    (tracker.spool.folder / "metrics.jsonl").mkdir()
    with pytest.raises(OSError):
        tracker.log("nap", 0, findings(0))
    with pytest.raises(OSError):
        tracker.metrics({"val_loss": 1.0}, 0)
    tracker.finish()
    assert points(tracker, "nap/drift/a") == [(0, 0.5)]
    assert points(tracker, "val_loss") == [(0, 1.0)]
    assert pictures(tracker) == ["topomap~a+step+0"]


def test_a_ledger_that_cannot_be_written_doubles_nothing() -> None:
    tracker = MlflowTracker()
    tracker.start({})
    (tracker.spool.folder / "uploaded.txt").symlink_to("/dev/full")
    for step in (0, 1):
        tracker.log("nap", step, findings(step))
        until(lambda at=step: len(pictures(tracker)) == at + 1)
    tracker._uploader.close(None)
    assert points(tracker, "nap/drift/a") == [(0, 0.5), (1, 1.5)]
    (tracker.spool.folder / "uploaded.txt").unlink()
    tracker._uploader.release()
    upload(tracker.spool.folder)  # another process, which knows of nothing that arrived
    assert points(tracker, "nap/drift/a") == [(0, 0.5), (1, 1.5)]
    assert len(image_files(tracker)) == 4


# ---- secrets ------------------------------------------------------------------------------------------------------------

SECRETS = [
    ("http://me:s3cret@host:5000/x", "http://host:5000/x"),
    ("https://me:s3@cret@host/x?y=1", "https://host/x?y=1"),
    ("http://me:s3/cret@host/x", "http://host/x"),
    ("http://t0ken@host", "http://host"),
    ("postgresql+psycopg2://me:s3cret@host/db?sslpassword=s3cret&z=1", "postgresql+psycopg2://host/db?sslpassword=***&z=1"),
    ("mssql+pyodbc:///?odbc_connect=UID%3Dme%3BPWD%3Ds3cret%3BX%3D1", "mssql+pyodbc:///?odbc_connect=UID%3Dme%3BPWD%3D***%3BX%3D1"),
    ("said 'http://me:s3cret@host/a' and \"http://me:s3cret@host/b\", to a@b", "said 'http://host/a' and \"http://host/b\", to a@b"),
]
PLAIN = ["sqlite:////home/a@b/x.db", "http://host:5000/a@b", "http://[::1]:5000/a@b", "s3://bucket/key", "me@host", "a?step=1&key=b", "C:\\x"]


@pytest.mark.parametrize(("text", "expected"), [*SECRETS, *((text, text) for text in PLAIN)])
def test_an_address_loses_its_secrets_and_nothing_else(text: str, expected: str) -> None:
    assert scrubbed(text) == expected
    assert scrubbed(expected) == expected


def test_an_error_loses_its_secrets_and_stays_the_same_error() -> None:
    with pytest.raises(KeyError) as plain, discreet():
        raise KeyError("http://host/x")
    assert plain.value.args == ("http://host/x",)

    def told_by_its_cause() -> None:
        with discreet():
            try:
                raise RuntimeError("http://me:s3cret@host")
            except RuntimeError as cause:
                raise ValueError("at http://me:s3cret@host/x failed") from cause

    with pytest.raises(ValueError, match="at http://host/x failed") as caught:
        told_by_its_cause()
    printed = "".join(traceback.format_exception(caught.value))
    assert "s3cret" not in "".join(line for line in printed.splitlines() if "raise " not in line)  # this file's own lines have it


def test_a_password_in_the_address_works_and_stands_nowhere(server: MlflowServer, own_place: Path) -> None:
    """A whole life in a process of its own: all it says, writes and sends is searched, with every logger at its most talkative."""
    program = """
import logging, os, time, traceback
logging.basicConfig(level=logging.DEBUG)
import netlapse
from netlapse.observer import Observer
from netlapse.tracking.mlflow import MlflowTracker
from netlapse.tracking import uploads
from tests.test_tracking import findings
from netlapse.types import ProbeSet
import numpy as np
uri = os.environ["MLFLOW_TRACKING_URI"]
nowhere, unescaped = uri.replace("@127.0.0.1", "@no-such-host.invalid"), uri.replace("s3cret", "s3cret/x")
T, missing = MlflowTracker, "0" * 32
for wrong in (lambda: T(missing), lambda: netlapse.load(missing), lambda: T(uri=nowhere), lambda: T(uri=unescaped)):
    try: wrong()
    except Exception: traceback.print_exc()
    else: raise SystemExit("it went well")
tracker = MlflowTracker()
tracker.start({"title": "a", "params": {"p": 1}, "command": f"python train.py tracker.uri={uri}"})
tracker.log("nap", 0, findings(0))
Observer(ProbeSet(np.zeros((4, 2), np.float32), np.arange(4) % 2), [], tracker).report("analysis", ConnectionError(f"no answer from {uri}/api"))
tracker.document("config.yaml", f"tracker: {{uri: '{uri}'}}")
tracker.document("page.html", "<p></p>")
print(tracker.place)
if os.environ.get("END") == "well": tracker.finish()
else:
    while not (tracker.spool.folder / "uploaded.txt").is_file(): time.sleep(0.05)
    uploads.DRAIN_SECONDS = 0.0
    tracker.finish()
    os._exit(0)
"""
    with proxy(server.uri, password="me:s3cret") as guarded:
        said = ""
        for end in ("well", "badly"):
            environment = os.environ | ENVIRONMENT | {"MLFLOW_TRACKING_URI": guarded.uri, "END": end}
            result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=300)
            assert result.returncode == 0, result.stderr
            said += result.stdout + result.stderr
        spools = list((own_place / "spool").iterdir())
        assert len(spools) == 1  # the second one's
        files = {path: path.read_bytes() for path in own_place.rglob("*") if path.is_file()}
        without = synced(MLFLOW_TRACKING_URI="")
        assert without.returncode == 1
        assert "401" in without.stdout
        with_password = synced(MLFLOW_TRACKING_URI=guarded.uri)
        assert with_password.returncode == 0, with_password.stdout
        said += without.stdout + without.stderr + with_password.stdout + with_password.stderr
    client = MlflowClient(server.uri)
    run_ids = [line.split()[1] for line in said.splitlines() if line.startswith("run ") and " at " in line]
    assert len(run_ids) == 2
    for run_id in run_ids:
        run = client.get_run(run_id)
        seen = f"{guarded.uri.replace('me:s3cret@', '')}/#/experiments/{run.info.experiment_id}/runs/{run_id}"
        assert f"See it at {seen}\n  or all on one page at {seen}/artifacts/page.html\n" in said
        said += str(run.to_dictionary())
        assert "netlapse.failure.analysis" in run.data.tags
        local = Path(client.download_artifacts(run_id, ""))
        files |= {path: path.read_bytes() for path in local.rglob("*") if path.is_file()}
    assert any(path.name == "config.yaml" for path in files)
    assert "s3cret" not in said
    assert not [path for path, content in files.items() if b"s3cret" in content]
    assert "View run" not in said  # MLflow's client would print the address


# ---- names --------------------------------------------------------------------------------------------------------------

BAD_NAMES = ["../x", "/etc/x", "..", ".", "a/../../x", "a\\..\\x", "", "a\0b", "~/x", ".hidden"]


@pytest.mark.parametrize("name", [*BAD_NAMES, "topomap/../../x", "a/./b", "./a", "a/b/", "x" * 300])
def test_an_image_key_leads_nowhere_but_into_the_images_of_its_record(name: str, tmp_path: Path) -> None:
    tracker = FolderTracker(tmp_path / "record")
    images = tmp_path / "record" / "images"
    path = tracker.image_path(name, 3)
    assert path.resolve() == path
    assert images in path.parents
    keys = ["topomap/a", "a/b", "a", "_", "__/x", "topomap/__/__/x", name]
    assert len({tracker.image_path(key, 3) for key in keys}) == len(keys)  # no two become one
    assert mlflow_key(mlflow_key(name)) == mlflow_key(name)
    tracker.log("nap", 3, Findings(images={name: np.zeros((2, 2, 3), np.uint8)}))
    assert list(tmp_path.rglob("*.png")) == [path]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_no_name_of_an_analysis_document_or_run_leads_out_of_its_folder(name: str, tmp_path: Path) -> None:
    tracker = FolderTracker(tmp_path / "record")
    for door in (
        lambda: tracker.findings_path(name, 0),
        lambda: tracker.log(name, 0, findings(0)),
        lambda: tracker.latest(name, 5),
        lambda: tracker.document(name, "x"),
        lambda: claim.spools_of(name),
    ):
        with pytest.raises(ValueError, match="cannot be named"):
            door()
    assert [path.name for path in tmp_path.rglob("*")] == ["record"]


@pytest.mark.parametrize("name", ["manifest.json", "metrics.jsonl", "uploaded.txt", "mlflow.json"])
def test_no_document_takes_the_place_of_what_a_record_keeps_itself(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"a document cannot be named '{name}'.* and none of \['manifest.json'"):
        FolderTracker(tmp_path).document(name, "x")


def test_of_a_foreign_run_only_what_is_ours_is_read(own_place: Path) -> None:
    tracker = recorded(None, (0,))
    artifacts = next(own_place.rglob(f"{tracker.run_id}/artifacts"))
    (artifacts / "findings" / "evil.sh").write_text("x")
    (artifacts / "findings" / "nap" / "step_abc.npz").write_text("x")
    (artifacts / "findings" / "a b;c").mkdir()
    shutil.copy(artifacts / "findings/nap/step_00000000.npz", artifacts / "findings" / "a b;c" / "step_00000001.npz")
    (artifacts / "manifest.json").write_text('{"findings": {"../../x": [0], "nap": [0]}, "title": "<script>"}')
    again = MlflowTracker(tracker.run_id)
    kept = {path.relative_to(again.spool.folder).as_posix() for path in again.spool.folder.rglob("*") if path.is_file()}
    assert kept == {".lock", "mlflow.json", "manifest.json", "uploaded.txt", "findings/nap/step_00000000.npz"}
    with pytest.raises(ValueError, match="cannot be named"):
        again.latest("../../x", 1)
    assert netlapse.load(tracker.run_id).steps == (0,)
    again.start({})
    again.finish()
    assert netlapse.load(tracker.run_id).steps == (0,)


def test_a_manifest_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"manifest.json is no manifest of netlapse: it holds a list, not an object"):
        FolderTracker(tmp_path)
