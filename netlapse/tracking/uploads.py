"""From a spool folder to an MLflow run: each thing once, off the training's thread, as often as it takes.

What is to be sent is read off the folder and a ledger in it, never kept in a queue: so nothing is forgotten when a
server is away for an hour, when the process is killed, or when another process goes on with the upload.

Numbers (points, tags) and files go separate ways: a server keeps files in another place than numbers, and where that one
is broken, MLflow's client tries each file for four minutes, in which the curves go on.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import IO

from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from PIL import Image

from netlapse.events import in_a_tag
from netlapse.tracking.contents import PNG, WEBP, Contents, Picture
from netlapse.tracking.folder import LEDGER, MANIFEST, METRICS, OWN_FILES, metrics_from, read_manifest, unpacked
from netlapse.tracking.names import mlflow_key
from netlapse.tracking.secrecy import brief, scrubbed
from netlapse.tracking.store import ask, is_server, silence

log = logging.getLogger(__name__)

DRAIN_SECONDS = 60.0
"""How long the end of a training waits for uploads that still go through."""

INTERRUPTED_SECONDS = 10.0
"""The same where it was interrupted: a cluster that takes its machine back kills what has not ended after some seconds."""

RETRY_SECONDS = 15.0
"""How long a store that failed is left alone."""

STALL_SECONDS = 15.0
"""How long the end of a training waits where nothing arrives, though the server answers."""

GATHER_SECONDS = 0.05
"""How long what is logged in one go is waited for before the folder is looked through."""

PICTURES_AT_ONCE = 16
"""How many pictures are sent together: what an upload that is cut off may have to send again."""


TABLES_TAG = "mlflow.loggedArtifacts"

Item = tuple[dict[str, str], Callable[[], object]]
"""(what the ledger will say, how it is sent)"""


class Uploads:
    """What a folder holds, sent to a run: a ledger in the folder remembers what has arrived, and as what.

    MLflow keeps two images or two points where the same key and step are logged twice. So what the run holds already is
    not sent, whoever sent it; a picture that has changed is sent, and then the one before it deleted, so that the slider
    never has a gap. A value that has changed is a second point, since MLflow deletes none: its charts draw both, its tables
    show the later, and the findings hold nothing else. What a step cost is told once: it is never twice the same.

    contents  what is known of the run; None: it is asked where that matters
    """

    def __init__(self, client: MlflowClient, uri: str, run_id: str, folder: Path, contents: Contents | None = None) -> None:
        self._client, self._uri, self._run_id, self._folder = client, uri, run_id, folder
        self._contents = contents or Contents(client, run_id)
        self._logged_images, self._told_of_deleting = False, False
        self.progressed = time.monotonic()
        self._ledger: dict[str, str] = {}
        self._digests: dict[Path, tuple[tuple[int, int], str]] = {}
        self._scalars_read: dict[Path, tuple[str, Mapping[str, float], str]] = {}
        self._tried: dict[Path, str] = {}  # findings whose points were sent or refused, and which digest they had
        self._writing = threading.Lock()  # of the ledger: a line is whole
        if (folder / LEDGER).is_file():
            pairs = (line.split(" ", 1) for line in (folder / LEDGER).read_text().splitlines() if " " in line)
            self._ledger = {item: digest for digest, item in pairs}

    def everything(self) -> None:
        """Send all that the run does not have.

        What MLflow refuses keeps nothing else from being sent; the first such error is raised at the end. Raises at once
        where the server no longer answers, and TimeoutError where another thread is sending for long.
        """
        if refused := [*self.numbers(), *self.files()]:
            raise refused[0]

    def numbers(self) -> list[Exception]:
        """Send points and tags, which somebody may be waiting to see; what MLflow refused. Raises as `everything` does at once."""
        return self._send(self._missing_numbers, self._contents.sending_numbers, self._contents.forget_points)

    def files(self) -> list[Exception]:
        """Send pictures, findings and documents, findings only once their points were sent or refused; what MLflow refused.

        Raises as `everything` does at once.
        """
        return self._send(self._missing_files, self._contents.sending_files, self._contents.forget_files)

    def _send(self, missing: Callable[[], Iterator[Item]], lock: threading.Lock, forget: Callable[[], None]) -> list[Exception]:
        if not lock.acquire(timeout=STALL_SECONDS):
            raise TimeoutError(f"another upload to run {self._run_id} is under way")
        refused: list[Exception] = []
        try:
            for items, send in missing():
                try:
                    send()
                except Exception as error:
                    forget()
                    if silence(self._uri) is not None:
                        raise
                    refused.append(error)
                else:
                    self.remember(items)
                    self.progressed = time.monotonic()
        finally:
            lock.release()
        return refused

    def end(self, status: str) -> None:
        """End the run. MLflow's client would print the run's address, with the secrets in it, and try for minutes."""
        if not is_server(self._uri):
            self._client.set_terminated(self._run_id, status)
            return
        answer = ask(self._uri, "POST", "runs/update", json={"run_id": self._run_id, "status": status, "end_time": int(time.time() * 1000)})
        if answer != 200:
            raise MlflowException(f"the server answers {answer} when it is to end run {self._run_id}")

    def remember(self, items: Mapping[str, str]) -> None:
        """These have arrived. A disk that takes no more costs only that they may be sent again, and then as the same."""
        self._ledger |= items
        try:
            with self._writing, (self._folder / LEDGER).open("a") as ledger:
                ledger.writelines(f"{digest} {item}\n" for item, digest in items.items())
        except OSError as error:
            log.debug("netlapse: the ledger in %s could not be written: %s", self._folder, error)

    def arrived(self, paths: Iterable[Path]) -> None:
        """These files came from the run."""
        findings = {f"{path.parent.name}/{path.name}": path for path in paths if path.suffix == ".npz"}
        self.remember({f"arrays {name}": self._digest(path) for name, path in findings.items()})
        self.remember({f"metrics {name}": self._scalars(path)[1] for name, path in findings.items()})

    def _findings(self) -> list[Path]:
        return sorted((self._folder / "findings").glob("*/step_*.npz"), key=lambda path: path.name)

    def _missing_numbers(self) -> Iterator[Item]:
        for path in self._findings():
            name, step, written = f"{path.parent.name}/{path.name}", int(path.stem.removeprefix("step_")), self._digest(path)
            scalars, digest = self._scalars(path)
            if scalars and self._ledger.get(f"metrics {name}") != digest:
                points = [Metric(mlflow_key(key), value, _written(path), step) for key, value in scalars.items()]
                yield {f"metrics {name}": digest}, partial(self._points, points, once=path.parent.name == "cost")
            self._tried[path] = written
        sent = int(self._ledger.get(METRICS, 0))
        rows, end = metrics_from(self._folder, sent)
        if end > sent:
            points = [Metric(mlflow_key(key), value, row["time"], row["step"]) for row in rows for key, value in row["values"].items()]
            yield {METRICS: str(end)}, partial(self._points, points)
        failures = read_manifest(self._folder).get("failures", [])
        assert isinstance(failures, list)
        for failure in failures:
            told, message = f"failure {failure['what']}", failure["message"][:5000]
            if told not in self._ledger:
                key = f"netlapse.failure.{mlflow_key(failure['what'])}"
                yield {told: hashlib.sha256(message.encode()).hexdigest()}, partial(self._client.set_tag, self._run_id, key, message)
        for key, text in _tags(read_manifest(self._folder)).items():
            digest = hashlib.sha256(text.encode()).hexdigest()
            if self._ledger.get(f"tag {key}") != digest:
                yield {f"tag {key}": digest}, partial(self._client.set_tag, self._run_id, key, text)

    def _missing_files(self) -> Iterator[Item]:
        # Who goes on elsewhere takes the points and pictures of findings that arrived to have arrived too. A step's findings
        # are written last: listed before the pictures, they have theirs among them, and are sent after them.
        found = [path for path in self._findings() if self._tried.get(path) == self._digest(path)]
        pictures = sorted((self._folder / "images").rglob("step_*.png"), key=lambda path: (path.name, path))
        new = [(path, item) for path in pictures if (item := self._new(f"image {path.relative_to(self._folder / 'images').as_posix()}", path))]
        for start in range(0, len(new), PICTURES_AT_ONCE):
            some = new[start : start + PICTURES_AT_ONCE]
            yield {item: digest for _, entry in some for item, digest in entry.items()}, partial(self._pictures, [path for path, _ in some])
        for path in found:
            if item := self._new(f"arrays {path.parent.name}/{path.name}", path):
                yield item, partial(self._client.log_artifact, self._run_id, str(path), f"findings/{path.parent.name}")
        for path in sorted(path for path in self._folder.iterdir() if path.is_file()):
            is_document = not path.name.startswith(".") and path.name not in OWN_FILES - {MANIFEST}  # hidden is what is being written
            if is_document and (item := self._new(f"document {path.name}", path)):
                yield item, partial(self._client.log_artifact, self._run_id, str(path))
        tables = read_manifest(self._folder).get("tables", [])
        assert isinstance(tables, list)
        for name in tables:
            if f"table {name}" not in self._ledger:
                yield {f"table {name}": "listed"}, partial(self._list_table, str(name))

    def _list_table(self, name: str) -> None:
        """What `MlflowClient.log_table` does beside logging the file: MLflow's pages show as tables those that this tag lists."""
        listed = json.loads(self._client.get_run(self._run_id).data.tags.get(TABLES_TAG, "[]"))
        if (entry := {"path": name, "type": "table"}) not in listed:
            self._client.set_tag(self._run_id, TABLES_TAG, json.dumps([*listed, entry]))

    def _new(self, item: str, path: Path) -> dict[str, str]:
        """{item: digest of the file}, or nothing where the run has it as it is."""
        digest = self._digest(path)
        return {} if self._ledger.get(item) == digest else {item: digest}

    def _digest(self, path: Path) -> str:
        stat = path.stat()
        known, digest = self._digests.get(path, (None, ""))
        if known != (stat.st_mtime_ns, stat.st_size):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            self._digests[path] = (stat.st_mtime_ns, stat.st_size), digest
        return digest

    def _scalars(self, path: Path) -> tuple[Mapping[str, float], str]:
        """A file's scalars and their digest, which stays where only its arrays change."""
        of, scalars, digest = self._scalars_read.get(path, ("", {}, ""))
        if of != self._digest(path):
            scalars = unpacked(path.read_bytes(), lambda name: False).scalars
            digest = hashlib.sha256(repr(scalars).encode()).hexdigest()
            self._scalars_read[path] = self._digest(path), scalars, digest
        return scalars, digest

    def _points(self, points: list[Metric], *, once: bool = False) -> None:
        missing = self._contents.take(points, once=once)
        for start in range(0, len(missing), 1000):  # the most MLflow takes at once
            self._client.log_batch(self._run_id, metrics=missing[start : start + 1000])

    def _pictures(self, paths: list[Path]) -> None:
        """What `MlflowClient.log_image` does, for many pictures at once, and only for those the run does not have.

        Theirs encodes each picture anew and writes a tag for each: a sixth of a second for the pictures of one step, more
        than the analyses take. A test compares names, tag and files with theirs.
        """
        replaced: list[Picture] = []
        sent: list[Picture] = []
        with tempfile.TemporaryDirectory() as folder:
            for path in paths:
                data = path.read_bytes()
                picture = self._picture(path, data)
                there = self._contents.pictures(picture.slot)
                same = [other for other in there if other.id == picture.id]
                picture = next((other for other in same if self._contents.has(other)), same[0] if same else picture)
                replaced += [other for other in there if other != picture]
                if not self._contents.has(picture):
                    sent.append(picture)
                    (Path(folder) / (picture.stem + PNG)).write_bytes(data)
                    with Image.open(io.BytesIO(data)) as image:
                        small = image.convert("RGB")
                    small.resize(_thumbnail(small.size)).save(Path(folder) / (picture.stem + WEBP), method=0)
            if sent:
                self._client.log_artifacts(self._run_id, folder, "images")
        for picture in sent:
            self._contents.add(picture)
        if not self._logged_images:
            self._client.set_tag(self._run_id, "mlflow.loggedImages", "True")
            self._logged_images = True
        self._delete(replaced)

    def _picture(self, path: Path, data: bytes) -> Picture:
        key = mlflow_key(path.parent.relative_to(self._folder / "images").as_posix()).replace("/", "~")
        step, identifier = int(path.stem.removeprefix("step_")), uuid.uuid5(uuid.NAMESPACE_OID, hashlib.sha256(data).hexdigest())
        return Picture(f"{key}+step+{step}+timestamp+{_written(path)}+{identifier}")

    def _delete(self, pictures: list[Picture]) -> None:
        if not pictures:
            return
        try:
            # MLflow's client deletes no artifacts; its artifact repositories do.
            files = get_artifact_repository(self._client.get_run(self._run_id).info.artifact_uri, tracking_uri=self._uri)
            for picture in pictures:
                for name in self._contents.files(picture):
                    files.delete_artifacts(f"images/{name}")  # type: ignore[no-untyped-call]
                self._contents.remove(picture)
        except Exception as error:
            if silence(self._uri) is not None:
                raise
            if not self._told_of_deleting:
                log.warning(
                    "netlapse: pictures of run %s that were drawn anew stand beside the ones before them: its store deletes none (%s)",
                    self._run_id,
                    brief(error),
                )
            self._told_of_deleting = True


def _tags(manifest: Mapping[str, object]) -> dict[str, str]:
    """What a run's tags say of what happened in it: the events, and why it was stopped."""
    tags = {}
    if isinstance(events := manifest.get("events"), Mapping):
        tags["netlapse.events"] = in_a_tag(events)[:5000]
    if stopped := manifest.get("stopped"):
        tags["netlapse.stopped"] = str(stopped)[:5000]
    return tags


def status(failed: object) -> str:
    """MLflow's word for how a training ended; None: it was killed or interrupted."""
    return "KILLED" if failed is None else "FAILED" if failed else "FINISHED"


def _written(path: Path) -> int:
    """When, in milliseconds: a point or picture that is sent twice with one time is kept once."""
    return path.stat().st_mtime_ns // 1_000_000


def _thumbnail(size: tuple[int, int]) -> tuple[int, int]:
    """The longer side as MLflow's grids show it, 256 pixels."""
    width, height = size
    return (256, max(1, int(height * 256 / width))) if width > height else (max(1, int(width * 256 / height)), 256)


class Uploader:
    """Two threads that send whatever there is whenever they are woken, one the numbers and one the files; what fails is tried
    again later, and at the end.

    lock  what keeps the folder this process's own; it is held as long as a thread may send something
    """

    def __init__(self, uploads: Uploads, uri: str, folder: Path, lock: IO[str] | None = None) -> None:
        self._uploads, self._uri, self._folder, self._lock = uploads, uri, folder, lock
        self._numbers, self._files = _Worker("netlapse-numbers", self._send_numbers), _Worker("netlapse-files", self._send_files)
        self._status: str | None = None
        self._quiet = threading.Lock()  # taken by who warns, and by `close`, which tells what is left itself; never given back
        self._ended, self._released = threading.Event(), False
        self._failures: dict[str, str | None] = {"numbers": None, "files": None}

    @property
    def failure(self) -> str | None:
        """Why something was not sent when it was last tried; None where all was."""
        return self._failures["numbers"] or self._failures["files"]

    def wake(self) -> None:
        """There is something to send."""
        self._numbers.wake()

    def close(self, status: str | None, *, seconds: float | None = None) -> str | None:
        """Send the rest, for at most so many seconds (None: `DRAIN_SECONDS`) and only as long as it goes through; end the run
        where a status is given.

        Returns why something is left, None where nothing is. `release` lets go of the folder.
        """
        self._status = status
        self._quiet.acquire(blocking=False)
        self._numbers.close()
        drain = DRAIN_SECONDS if seconds is None else seconds
        started = now = time.monotonic()
        patience = 1.0  # what is stuck is asked about soon
        while now - started < drain:
            if self._ended.wait(min(patience, started + drain - now)):
                return self.failure
            if (why := silence(self._uri)) is not None:
                return self.failure or why
            now, patience = time.monotonic(), 5.0
            if now - max(started, self._uploads.progressed) > STALL_SECONDS:
                return self.failure or f"nothing arrived for {STALL_SECONDS:.0f} s"
        return f"uploads took longer than {drain:.0f} s"

    def release(self) -> None:
        """After `close`: let others upload what is left, as soon as no thread is at it any longer."""
        self._released = True
        if self._ended.is_set():
            self._let_go()

    def _let_go(self) -> None:
        if self._lock is not None:
            self._lock.close()

    def _send_numbers(self, last: bool) -> bool:
        """Whether they were sent; the files follow their numbers."""
        failure = self._tried(self._uploads.numbers)
        self._note("numbers", failure)
        (self._files.close if last else self._files.wake)()
        return failure is None

    def _send_files(self, last: bool) -> bool:
        """Whether they were sent; the end of the run comes after all of it."""
        failure = self._tried(self._uploads.files)
        if last and self._status is not None:
            failure = self._tried(partial(self._uploads.end, self._status)) or failure
        self._note("files", failure)
        if last:
            self._ended.set()  # before the question: whoever of the two comes second lets go
            if self._released:
                self._let_go()
        return failure is None

    def _note(self, what: str, failure: str | None) -> None:
        self._failures[what] = failure
        if failure and self._quiet.acquire(blocking=False):
            log.warning("netlapse: MLflow at %s refuses (%s); findings are kept in %s", scrubbed(self._uri), failure, self._folder)

    def _tried(self, send: Callable[[], list[Exception] | None]) -> str | None:
        """Why it failed. Nobody is asked who does not answer: MLflow's client would ask for minutes."""
        try:
            if (why := silence(self._uri)) is not None:
                return why
            refused = send()
        except Exception as error:  # whatever the client raises must not end the thread: the folder still holds all of it
            return brief(error)
        return brief(refused[0]) if refused else None


class _Worker:
    """A thread that does its work whenever it is woken, again after `RETRY_SECONDS` where that failed, and once more at the end.

    work  told whether this is the last time; returns whether it went well
    """

    def __init__(self, name: str, work: Callable[[bool], bool]) -> None:
        self._name, self._work = name, work
        self._news, self._closing = threading.Event(), threading.Event()
        self._starting, self._started = threading.Lock(), False

    def wake(self) -> None:
        self._news.set()
        with self._starting:
            if not self._started:
                self._started = True
                threading.Thread(target=self._run, name=self._name, daemon=True).start()

    def close(self) -> None:
        self._closing.set()
        self.wake()

    def _run(self) -> None:
        while True:
            self._news.wait()
            self._closing.wait(GATHER_SECONDS)
            self._news.clear()
            last = self._closing.is_set()
            well = self._work(last)
            if last:
                return
            if not well:
                self._closing.wait(RETRY_SECONDS)
                self._news.set()
