"""Laws of the process: killed at any moment a training goes on to the same record, and however it ends, it ends, with its record closed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient

import netlapse
from netlapse.recording import Recording
from netlapse.tracking import folder
from netlapse.tracking.folder import FolderTracker, read, write
from netlapse.tracking.store import client_for, experiment_id
from netlapse.types import Findings
from tests.servers import MlflowServer, mlflow_server, proxy
from tests.survival import EPOCHS, FAULTS, HALF, Fault, Nursery, Order


@dataclass
class Place:
    """One framework's nursery, a store, and what an uninterrupted training gave there."""

    nursery: Nursery
    folder: Path
    framework: str
    counts: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    reference: Held | None = None

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.folder / 'mlflow.db'}"

    @property
    def client(self) -> MlflowClient:
        return client_for(self.uri)

    def order(self, name: str, *, own: bool = False, **options: Any) -> Order:
        """A training with a folder of its own, into a run that is there already, or one that it makes."""
        run = None if own else self.client.create_run(experiment_id(self.client, self.uri, "survival")).info.run_id
        return Order(str(self.folder / name), self.uri, run, **options)

    def log(self, order: Order) -> str:
        return (Path(order.folder) / "log.txt").read_text()


@dataclass
class Held:
    """What a run holds: the recording, how often each point and picture, and documents."""

    recording: Recording
    points: Counter[tuple[str, int]]
    values: dict[tuple[str, int], float]
    pictures: Counter[tuple[str, str]]
    documents: set[str]
    page: str


def held(place: Place, run_id: str) -> Held:
    with sqlite3.connect(place.folder / "mlflow.db") as store:  # past MLflow, whose API might hide what is there twice
        rows = store.execute("SELECT key, step, value FROM metrics WHERE run_uuid = ?", (run_id,)).fetchall()
    client = place.client
    names = [item.path for item in client.list_artifacts(run_id, "images")]
    found = [re.fullmatch(r"images/(.+)\+timestamp\+\d+\+(.+)", name) for name in names]
    return Held(
        netlapse.load(run_id, place.uri),
        Counter((key, step) for key, step, _ in rows),
        {(key, step): value for key, step, value in rows},
        Counter((match[1], match[2]) for match in found if match),
        {item.path for item in client.list_artifacts(run_id)},
        Path(client.download_artifacts(run_id, "timelapse.html")).read_text(),
    )


def same(one: Held, other: Held) -> None:
    """All but what it cost is equal, to the last bit, and nothing is there twice."""
    assert one.recording.steps == other.recording.steps == tuple(range(EPOCHS + 1))
    assert sorted(one.recording.findings) == sorted(other.recording.findings) == ["cost", "nap", "predictions", "saliency", "topomap", "training"]
    for name, by_step in other.recording.findings.items():
        assert list(one.recording.findings[name]) == list(by_step), name
        if name == "cost":
            continue
        for step, findings in by_step.items():
            mine = one.recording.findings[name][step]
            assert dict(mine.scalars) == pytest.approx(dict(findings.scalars), rel=0, abs=0, nan_ok=True), (name, step)
            assert list(mine.arrays) == list(findings.arrays)
            for array, values in findings.arrays.items():
                assert mine.arrays[array].dtype == values.dtype
                np.testing.assert_array_equal(mine.arrays[array], values, err_msg=f"{name} {step} {array}")
    twice = {point: times for point, times in one.points.items() if times > 1}
    assert twice == {}
    # A process cannot tell what its first observation is of the time since that.
    assert {point for point in one.points if point[0] != "cost/overhead"} == {point for point in other.points if point[0] != "cost/overhead"}
    assert {at: value for at, value in one.values.items() if not at[0].startswith("cost/")} == pytest.approx(
        {at: value for at, value in other.values.items() if not at[0].startswith("cost/")}, rel=0, abs=0, nan_ok=True
    )
    assert one.pictures == other.pictures
    assert set(one.pictures.values()) == {1}
    assert {"findings", "images", "manifest.json", "timelapse.html"} <= one.documents
    assert one.recording.manifest["findings"] == other.recording.manifest["findings"]
    assert "failures" not in one.recording.manifest
    assert one.recording.manifest["failed"] is False


@pytest.fixture(scope="module", params=["lightning", "keras"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp(request.param)
    environment = {**os.environ, "NETLAPSE_HOME": str(folder), "OMP_NUM_THREADS": "1"}
    place = Place(Nursery(f"tests.survival_{request.param}", environment), folder, request.param)
    order = place.order("uninterrupted", counts=str(folder / "counts.json"))
    place.nursery.start(order)
    started = time.monotonic()
    assert place.nursery.code() == 0, place.log(order)
    place.seconds = time.monotonic() - started
    place.counts = json.loads((folder / "counts.json").read_text())
    place.reference = held(place, order.run_id or "")
    yield place
    place.nursery.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    with mlflow_server(tmp_path_factory.mktemp("server")) as server:
        yield server


def test_an_uninterrupted_training_comes_through_every_place_where_it_can_be_killed(place: Place) -> None:
    assert set(place.counts) == set(FAULTS)
    assert place.reference is not None
    same(place.reference, place.reference)


def survive(place: Place, name: str, ends: list[Fault | float]) -> str:
    """Kill a training once in each of these ways, at a fault or after so many seconds, start it again until it finishes, and compare.

    Returns where it was killed.
    """
    order = place.order(name)
    told = []
    for end in ends:
        attempt = replace(order, fault=end if isinstance(end, Fault) else None)
        pid = place.nursery.start(attempt)
        if not isinstance(end, Fault):
            time.sleep(end)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        code = place.nursery.code()
        assert code in (0, -signal.SIGKILL), place.log(order)
        told.append(f"{end if isinstance(end, Fault) else f'{end:.2f} s'}: {'killed' if code else 'came to its end'}")
    assert place.nursery.run(order) == 0, place.log(order)
    assert place.reference is not None
    same(held(place, order.run_id or ""), place.reference)
    assert not list((place.folder / "spool").glob(f"{order.run_id}*"))  # nothing is left to upload
    return "; ".join(told)


@pytest.mark.parametrize(
    "ends",
    [
        [Fault("an analysis", 1), Fault("an analysis", 4)],  # before the first checkpoint, and after it
        [Fault("half a file", 20)],
        [Fault("sending points", 3, "after"), Fault("sending pictures", 2, "after")],  # arrived, and not in the ledger
        [Fault("the page", 1)],  # after the last checkpoint: no epoch is left to train
        [Fault("removing the spool", 1, "half")],
    ],
    ids=["analysis", "half a file", "arrived unnoticed", "page", "half a spool"],
)
def test_a_training_that_is_killed_and_goes_on_gives_what_an_uninterrupted_one_gives(
    place: Place, ends: list[Fault | float], request: pytest.FixtureRequest
) -> None:
    survive(place, request.node.callspec.id, ends)


@pytest.mark.long
@pytest.mark.parametrize("case", range(12))
def test_a_training_that_is_killed_at_random_moments_gives_what_an_uninterrupted_one_gives(
    place: Place, case: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """12 trainings in each framework, each killed at 3 random moments: 72 in all, of which a few come after its end."""
    rng = np.random.default_rng(case)

    def moment() -> Fault | float:
        if rng.random() < 0.4:
            return float(rng.uniform(0, place.seconds))
        name = str(rng.choice(list(FAULTS)))
        when = str(rng.choice(["before", "half" if name in HALF else "after"]))
        return Fault(name, int(rng.integers(1, place.counts[name] + 1)), when)

    told = survive(place, f"random_{case}", [moment() for _ in range(3)])
    with capsys.disabled():
        print(f"\n{place.framework} {case}: {told}")


def ends(place: Place, order: Order, seconds: float = 300) -> int:
    """The exit code of a training that has to end within so many seconds from now; generous, since machines may be busy."""
    try:
        return place.nursery.code(timeout=seconds)
    except TimeoutError:
        os.kill(place.nursery.pid, signal.SIGKILL)
        place.nursery.code()
        raise


def first_epoch(order: Order) -> None:
    """Wait for its end, and not for long."""
    for _ in range(3000):
        if (Path(order.folder) / "epoch_0").exists():
            return
        time.sleep(0.02)
    raise AssertionError("no epoch came to its end within a minute")


def recorded(place: Place, order: Order) -> tuple[str, tuple[int, ...], bool]:
    """(status of the run, steps of the record, whether the page shows the last of them)"""
    run = (Path(order.folder) / "run.txt").read_text()
    client = client_for(order.uri)
    recording = netlapse.load(run, order.uri)
    page = Path(client.download_artifacts(run, "timelapse.html")).read_text()
    shown = re.search(r'"steps":\s*\[([0-9, ]+)\]', page)
    steps = tuple(int(step) for step in shown[1].split(",")) if shown else ()
    return client.get_run(run).info.status, recording.steps, steps == recording.steps


@pytest.mark.parametrize(("raises", "code", "status", "steps"), [("", 0, "FINISHED", 3), ("error", 1, "FAILED", 2), ("exit", 7, "ended", 2)])
def test_a_process_ends_with_its_own_exit_code_and_a_closed_record(place: Place, raises: str, code: int, status: str, steps: int) -> None:
    order = place.order(f"ends_{raises}", own=True, raises=raises)
    place.nursery.start(order)
    assert ends(place, order) == code, place.log(order)
    found, known, drawn = recorded(place, order)
    assert found == status if status != "ended" else found in ("FAILED", "KILLED")
    assert known == tuple(range(steps + 1))
    assert drawn


CODES = {
    # Lightning ends with 1 after Ctrl-C, and by its own exception without a code after SIGTERM; Python tells the system of a Ctrl-C.
    ("lightning", signal.SIGINT): 1,
    ("lightning", signal.SIGTERM): 0,
    ("keras", signal.SIGINT): -signal.SIGINT,
    ("keras", signal.SIGTERM): 143,
}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_training_that_is_interrupted_ends_within_seconds_with_all_that_was_observed(place: Place, number: signal.Signals) -> None:
    slow = 100.0 if place.framework == "keras" else 2.0  # Lightning heeds SIGTERM where the epoch ends
    order = place.order(f"interrupted_{number}", own=True, slow=slow)
    pid = place.nursery.start(order)
    first_epoch(order)
    time.sleep(0.2)
    os.kill(pid, number)
    assert ends(place, order, 60) == CODES[place.framework, number], place.log(order)
    epochs = len(list(Path(order.folder).glob("epoch_*")))
    assert recorded(place, order) == ("KILLED", tuple(range(epochs + 1)), True)
    assert epochs < EPOCHS
    assert not list((place.folder / "spool").glob((Path(order.folder) / "run.txt").read_text() + "*"))


@pytest.mark.parametrize("way", ["dies", "hangs", "hangs, interrupted"])
def test_a_process_ends_whatever_has_become_of_its_server(place: Place, way: str, server: MlflowServer) -> None:
    with proxy(server.uri) as between:
        order = Order(str(place.folder / way), server.uri if way == "dies" else between.uri, slow=1.0)
        pid = place.nursery.start(order)
        first_epoch(order)
        if way == "dies":
            server.kill()
        else:
            between.behaviour = "hang"
        if way == "hangs, interrupted":
            os.kill(pid, signal.SIGTERM)
            assert ends(place, order, 90) == CODES[place.framework, signal.SIGTERM], place.log(order)
        else:
            assert ends(place, order, 180) == 0, place.log(order)
    if way == "dies":
        server.start()  # for the next one
    run = (Path(order.folder) / "run.txt").read_text()
    spool = read(place.folder / "spool" / run)
    epochs = len(list(Path(order.folder).glob("epoch_*")))
    assert spool.steps == tuple(range(epochs + 1))  # nothing is lost: it waits to be uploaded
    assert "not everything reached MLflow" in place.log(order)


@pytest.mark.parametrize("written", range(4))
def test_where_the_findings_of_a_step_are_their_pictures_are(written: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it was cut off: what is there is not looked for again."""
    calls: list[Path] = []

    def cut_off(path: Path, data: bytes) -> None:
        if len(calls) == written:
            raise KeyboardInterrupt
        calls.append(path)
        write(path, data)

    tracker = FolderTracker(tmp_path)
    monkeypatch.setattr(folder, "write", cut_off)
    with pytest.raises(KeyboardInterrupt):
        tracker.log("nap", 3, Findings(images={key: np.zeros((2, 2, 3), np.uint8) for key in ("a", "b")}))
    pictures = {path.parent.name for path in tmp_path.rglob("*.png")}
    assert ("nap" not in tracker.steps) or pictures == {"a", "b"}
    assert len(calls) == written
