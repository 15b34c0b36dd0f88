"""From a spool folder to an MLflow run: each thing once, off the training's thread, as often as it takes.

What is to be sent is read off the folder and a ledger in it, never kept in a queue: so nothing is forgotten when a
server is away for an hour, when the process is killed, or when another process goes on with the upload.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric
from PIL import Image

from netlapse.tracking.folder import METRICS, read_manifest, unpacked
from netlapse.tracking.store import brief, mlflow_key, silence

log = logging.getLogger(__name__)

DRAIN_SECONDS = 60.0
"""How long the end of a training waits for uploads that still go through."""

RETRY_SECONDS = 15.0
"""How long a store that failed is left alone."""

LEDGER = "uploaded.txt"
TARGET = "mlflow.json"


class Uploads:
    """What a folder holds, sent to a run: a ledger in the folder remembers what has arrived, and as what.

    MLflow keeps two images or two points where the same key and step are logged twice, so a thing is sent again only
    where its content has changed, and with the time and the name it had, should it have arrived unnoticed.
    """

    def __init__(self, client: MlflowClient, uri: str, run_id: str, folder: Path) -> None:
        self._client, self._uri, self._run_id, self._folder = client, uri, run_id, folder
        self._ledger: dict[str, str] = {}
        self._digests: dict[Path, tuple[tuple[int, int], str]] = {}
        self._numbers: dict[Path, tuple[str, Mapping[str, float], str]] = {}
        if (folder / LEDGER).is_file():
            pairs = (line.split(" ", 1) for line in (folder / LEDGER).read_text().splitlines() if " " in line)
            self._ledger = {item: digest for digest, item in pairs}

    def everything(self) -> None:
        """Send all that the run does not have: metrics and pictures first, which somebody may be waiting to see.

        What MLflow refuses keeps nothing else from being sent; the first such error is raised at the end. Raises at once
        where the server no longer answers.
        """
        refused: list[Exception] = []
        for items, send in self._missing():
            try:
                send()
            except Exception as error:
                if silence(self._uri) is not None:
                    raise
                refused.append(error)
            else:
                self.remember(items)
        if refused:
            raise refused[0]

    def end(self, status: str) -> None:
        self._client.set_terminated(self._run_id, status)

    def remember(self, items: Mapping[str, str]) -> None:
        """These have arrived. A disk that takes no more costs only that they may be sent again, and then as the same."""
        self._ledger |= items
        try:
            with (self._folder / LEDGER).open("a") as ledger:
                ledger.writelines(f"{digest} {item}\n" for item, digest in items.items())
        except OSError as error:
            log.debug("netlapse: the ledger in %s could not be written: %s", self._folder, error)

    def arrived(self, paths: Iterable[Path]) -> None:
        """These files came from the run."""
        findings = {f"{path.parent.name}/{path.name}": path for path in paths if path.suffix == ".npz"}
        self.remember({f"arrays {name}": self._digest(path) for name, path in findings.items()})
        self.remember({f"metrics {name}": self._scalars(path)[1] for name, path in findings.items()})

    def _missing(self) -> Iterator[tuple[dict[str, str], Callable[[], object]]]:
        """(what the ledger will say, how it is sent)"""
        arrays: list[tuple[dict[str, str], Callable[[], object]]] = []
        for path in sorted((self._folder / "findings").glob("*/step_*.npz"), key=lambda path: path.name):
            name, step = f"{path.parent.name}/{path.name}", int(path.stem.removeprefix("step_"))
            if item := self._new(f"arrays {name}", path):
                arrays.append((item, partial(self._client.log_artifact, self._run_id, str(path), f"findings/{path.parent.name}")))
            scalars, digest = self._scalars(path)
            if scalars and self._ledger.get(f"metrics {name}") != digest:
                points = [Metric(mlflow_key(key), value, _written(path), step) for key, value in scalars.items()]
                yield {f"metrics {name}": digest}, partial(self._points, points)
        pictures = sorted((self._folder / "images").rglob("step_*.png"))
        new = {path: item for path in pictures if (item := self._new(f"image {path.relative_to(self._folder / 'images').as_posix()}", path))}
        if new:
            yield {item: digest for entry in new.values() for item, digest in entry.items()}, partial(self._pictures, list(new))
        yield from arrays
        if (path := self._folder / METRICS).is_file():
            text = path.read_text()
            whole, sent = text[: text.rfind("\n") + 1], int(self._ledger.get(METRICS, 0))
            if len(whole) > sent:
                rows = [json.loads(line) for line in whole[sent:].splitlines()]
                points = [Metric(mlflow_key(key), value, row["time"], row["step"]) for row in rows for key, value in row["values"].items()]
                yield {METRICS: str(len(whole))}, partial(self._points, points)
        failures = read_manifest(self._folder).get("failures", [])
        assert isinstance(failures, list)
        for failure in failures:
            told, message = f"failure {failure['what']}", failure["message"][:5000]
            if told not in self._ledger:
                key = f"netlapse.failure.{mlflow_key(failure['what'])}"
                yield {told: hashlib.sha256(message.encode()).hexdigest()}, partial(self._client.set_tag, self._run_id, key, message)
        for path in sorted(path for path in self._folder.iterdir() if path.is_file()):
            is_document = not path.name.startswith(".") and path.name not in (LEDGER, TARGET, METRICS)  # hidden is what is being written
            if is_document and (item := self._new(f"document {path.name}", path)):
                yield item, partial(self._client.log_artifact, self._run_id, str(path))

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
        of, scalars, digest = self._numbers.get(path, ("", {}, ""))
        if of != self._digest(path):
            scalars = unpacked(path.read_bytes()).scalars
            digest = hashlib.sha256(repr(scalars).encode()).hexdigest()
            self._numbers[path] = self._digest(path), scalars, digest
        return scalars, digest

    def _points(self, points: list[Metric]) -> None:
        for start in range(0, len(points), 1000):  # the most MLflow takes at once
            self._client.log_batch(self._run_id, metrics=points[start : start + 1000])

    def _pictures(self, paths: list[Path]) -> None:
        """What `MlflowClient.log_image` does, for all pictures there are at once.

        Theirs encodes each picture anew and writes a tag for each: a sixth of a second for the pictures of one step, more
        than the analyses take. A test compares names, tag and files with theirs.
        """
        with tempfile.TemporaryDirectory() as folder:
            for path in paths:
                key = mlflow_key(path.parent.relative_to(self._folder / "images").as_posix()).replace("/", "~")
                step = int(path.stem.removeprefix("step_"))
                name = f"{key}+step+{step}+timestamp+{_written(path)}+{uuid.uuid5(uuid.NAMESPACE_OID, self._digest(path))}"
                shutil.copyfile(path, Path(folder) / f"{name}.png")
                with Image.open(path) as image:
                    small = image.convert("RGB")
                small.resize(_thumbnail(small.size)).save(Path(folder) / f"{name}+compressed.webp", method=0)
            self._client.log_artifacts(self._run_id, folder, "images")
        self._client.set_tag(self._run_id, "mlflow.loggedImages", "True")


def _written(path: Path) -> int:
    """When, in milliseconds: a point or picture that is sent twice with one time is kept once."""
    return path.stat().st_mtime_ns // 1_000_000


def _thumbnail(size: tuple[int, int]) -> tuple[int, int]:
    """The longer side as MLflow's grids show it, 256 pixels."""
    width, height = size
    return (256, max(1, int(height * 256 / width))) if width > height else (max(1, int(width * 256 / height)), 256)


class Uploader:
    """A thread that sends everything whenever it is woken; what fails is tried again later, and at the end."""

    def __init__(self, uploads: Uploads, uri: str, folder: Path) -> None:
        self._uploads, self._uri, self._folder = uploads, uri, folder
        self._news, self._closing = threading.Event(), threading.Event()
        self._status: str | None = None
        self._thread: threading.Thread | None = None
        self.failure: str | None = None

    def wake(self) -> None:
        """There is something to send."""
        self._news.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="netlapse-upload", daemon=True)
            self._thread.start()

    def close(self, status: str | None) -> str | None:
        """Send the rest, for at most `DRAIN_SECONDS` and only as long as somebody answers; end the run where a status is given.

        Returns why something is left, None where nothing is.
        """
        self._status = status
        self._closing.set()
        self.wake()
        assert self._thread is not None
        until = time.monotonic() + DRAIN_SECONDS
        while self._thread.is_alive() and time.monotonic() < until:
            self._thread.join(min(5.0, DRAIN_SECONDS))
            if self._thread.is_alive() and (why := silence(self._uri)) is not None:
                return self.failure or why
        return f"uploads took longer than {DRAIN_SECONDS:.0f} s" if self._thread.is_alive() else self.failure

    def _work(self) -> None:
        while True:
            self._news.wait()
            self._news.clear()
            last = self._closing.is_set()
            failure = self._tried(self._uploads.everything)
            if last and self._status is not None:
                failure = self._tried(partial(self._uploads.end, self._status)) or failure
            if failure and self.failure is None and not last:
                log.warning("netlapse: MLflow at %s refuses (%s); findings are kept in %s", self._uri, failure, self._folder)
            self.failure = failure
            if last:
                return
            if failure:
                self._closing.wait(RETRY_SECONDS)
                self._news.set()

    def _tried(self, send: Callable[[], None]) -> str | None:
        """Why it failed. Nobody is asked who does not answer: MLflow's client would ask for minutes."""
        try:
            if (why := silence(self._uri)) is not None:
                return why
            send()
        except Exception as error:  # whatever the client raises must not end the thread: the folder still holds all of it
            return brief(error)
        return None
