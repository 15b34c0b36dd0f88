"""Findings in an MLflow run, through a local spool.

Every finding is a file in the spool before MLflow is asked anything; a thread uploads it. So a slow server never holds
up a training, a dead one never ends it, and what could not be uploaded is still there: `upload(folder)`.

Only `MlflowClient` with explicit run ids: the fluent API keeps a current run per thread, and its asynchronous image
logging can hang the interpreter at exit.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import queue
import re
import shutil
import socket
import sys
import tempfile
import threading
import time
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from PIL import Image

from netlapse.home import home, writable
from netlapse.recording import Recording
from netlapse.tracking.folder import FolderTracker, read, read_manifest, steps, unpacked
from netlapse.types import Findings

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# Retries draw their jitter from Python's global random state, which belongs to the training.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "0")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException

log = logging.getLogger(__name__)

DRAIN_SECONDS = 60.0
"""How long the end of a training waits for uploads that still go through."""

_LEDGER = "uploaded.jsonl"
_TARGET = "mlflow.json"


def tracking_uri() -> str:
    """`$MLFLOW_TRACKING_URI`, else the local store: an sqlite file in `netlapse.home.home()`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home() / 'mlflow.db'}"


def client_for(uri: str) -> MlflowClient:
    """A client of a store that answers.

    A new sqlite store is made under a lock: several processes making one at once corrupt it.
    Raises ConnectionError within seconds where no server answers, and PermissionError where the store cannot be written.
    """
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https"):
        try:
            socket.create_connection((parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)), timeout=5).close()
        except OSError as error:
            raise ConnectionError(
                f"no MLflow server answers at {uri} ({error}); start it, or unset MLFLOW_TRACKING_URI to use the local store, or take tracker=folder"
            ) from error
        return MlflowClient(uri)
    if parts.scheme == "sqlite":
        folder = writable(_sqlite_folder(uri) or home())
        with (folder / ".store.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            client = MlflowClient(uri)
            with _quiet("mlflow.store.db.utils", "alembic"):
                client.search_experiments(max_results=1)  # makes the tables, and tells of each
        return client
    return MlflowClient(uri)


def experiment_id(client: MlflowClient, uri: str, name: str) -> str:
    """The id of the experiment of this name, made if need be; a local store's artifacts lie beside it."""
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    beside = _sqlite_folder(uri)
    location = beside / "artifacts" / name if beside else None
    try:
        return str(client.create_experiment(name, artifact_location=location.as_uri() if location else None))
    except MlflowException:  # another process made it in between
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return str(found.experiment_id)


@contextmanager
def _quiet(*loggers: str) -> Iterator[None]:
    levels = {name: logging.getLogger(name).level for name in loggers}
    for name in loggers:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _sqlite_folder(uri: str) -> Path | None:
    return Path(uri.removeprefix("sqlite:///")).absolute().parent if uri.startswith("sqlite:///") else None


class MlflowTracker:
    """A `netlapse.types.Tracker` that writes to an MLflow run.

    run_id      an existing run, which is left open at the end; None makes one, and ends it
    uri         the tracking server; None: `tracking_uri()`
    experiment  for a new run; None: `$MLFLOW_EXPERIMENT_NAME`, else "netlapse"

    Raises ConnectionError, PermissionError or MlflowException where the store cannot be reached or has no such run.
    """

    def __init__(
        self,
        run_id: str | None = None,
        *,
        uri: str | None = None,
        experiment: str | None = None,
    ) -> None:
        self.uri = uri or tracking_uri()
        self._client = client_for(self.uri)
        self._owns_run = run_id is None
        if run_id is None:
            name = experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "netlapse"
            run_id = str(self._client.create_run(experiment_id(self._client, self.uri, name)).info.run_id)
        self.run = self._client.get_run(run_id).info
        self.run_id = run_id
        self.spool = FolderTracker(home() / "spool" / run_id)
        (self.spool.folder / _TARGET).write_text(json.dumps({"uri": self.uri, "run_id": run_id}))
        self._unspooled: list[tuple[str, int, Findings]] = []
        self._queue: queue.Queue[tuple[Callable[[], object], bool] | None] = queue.Queue()
        self._broken: str | None = None
        self._finished = False
        self._uploads = Uploads(self._client, run_id, self.spool.folder)
        self._thread: threading.Thread | None = None

    # ---- the tracker ------------------------------------------------------------------------------------------------

    def start(self, manifest: Mapping[str, object]) -> None:
        if not self._owns_run:
            self.spool.manifest = _uploaded_manifest(self._client, self.run_id) | self.spool.manifest
        title = manifest.get("title")
        if title and self._owns_run:
            self._client.set_tag(self.run_id, "mlflow.runName", str(title))
        params = manifest.get("params")
        if isinstance(params, Mapping):  # a curated few: MLflow shows them all in its headers
            self._client.log_batch(self.run_id, params=[Param(str(key), str(value)) for key, value in params.items()])
        self.spool.start({"run_id": self.run_id, **manifest, "title": title or self.spool.manifest.get("title") or self.run.run_name})
        self._submit(partial(self._uploads.document, "manifest.json"))

    def log(self, analysis: str, step: int, findings: Findings) -> None:
        """Spool and queue; where the disk is full the findings are kept in memory, uploaded from there, and spooled later."""
        self._unspooled.append((analysis, step, findings))
        while self._unspooled:
            self.spool.log(*self._unspooled[0])  # an OSError leaves this and the rest for the next call
            name, at, _ = self._unspooled.pop(0)
            self._submit(partial(self._upload_findings, name, at))

    def latest(self, analysis: str, before: int) -> Findings | None:
        held = [(step, found) for name, step, found in self._unspooled if name == analysis and step < before]
        if held:
            return max(held, key=lambda pair: pair[0])[1]
        return self.spool.latest(analysis, before) or _latest_uploaded(self._client, self.run_id, analysis, before)

    def recording(self) -> Recording:
        known = self.spool.manifest.get("findings", {})
        whole = isinstance(known, dict) and all(steps(self.spool.folder, name) == tuple(at) for name, at in known.items())
        return self.spool.recording() if whole and self.spool.folder.is_dir() else load(self.run_id, self.uri)

    def document(self, name: str, text: str) -> None:
        self.spool.document(name, text)
        self._submit(partial(self._uploads.document, name))

    def failure(self, what: str, message: str) -> None:
        self._submit(partial(self._client.set_tag, self.run_id, f"netlapse.failure.{mlflow_key(what)}", message[:5000]))
        self.spool.failure(what, message)

    @property
    def checkpoint_folder(self) -> Path:
        """Beside the store: where the checkpoints of this run belong."""
        return (_sqlite_folder(self.uri) or home()) / "checkpoints" / self.run_id

    @property
    def place(self) -> str:
        """Where to look, for a person."""
        path = f"#/experiments/{self.run.experiment_id}/runs/{self.run_id}"
        if self.uri.startswith("http"):
            return f"run {self.run_id} at {self.uri}\nSee it at {self.uri.rstrip('/')}/{path}"
        return f"run {self.run_id} of {self.uri}\nSee it with: ./run ui\n  and then http://127.0.0.1:5000/{path}/model-metrics"

    @property
    def mlflow_run(self) -> tuple[str, str] | None:
        """(tracking uri, run id)"""
        return self.uri, self.run_id

    def finish(self, *, failed: bool = False) -> None:
        """Wait for the uploads, at most `DRAIN_SECONDS`; end a run of our own; say what is left, where, and how to upload it."""
        if self._finished:
            return
        self._finished = True
        for held in list(self._unspooled):
            try:
                self.log(*self._unspooled.pop(self._unspooled.index(held)))
            except OSError:
                self._upload_held(*held)
        try:
            self.spool.finish(failed=failed)
            self._submit(partial(self._uploads.document, "manifest.json"))
        except OSError as error:
            log.warning("netlapse: the manifest could not be written: %s", error)
        if self._owns_run:
            self._submit(partial(self._client.set_terminated, self.run_id, "FAILED" if failed else "FINISHED"), always=True)
        drained = self._drain()
        if drained and self._broken is None and not self._unspooled:
            shutil.rmtree(self.spool.folder, ignore_errors=True)  # the run holds all of it
            return
        log.warning(
            "netlapse: not everything reached MLflow at %s (%s); it is kept in %s. Upload it with: %s -m netlapse.tracking.mlflow %s",
            self.uri,
            self._broken or f"uploads took longer than {DRAIN_SECONDS:.0f} s",
            self.spool.folder,
            Path(sys.executable).name,
            self.spool.folder,
        )

    # ---- uploading --------------------------------------------------------------------------------------------------

    def _submit(self, job: Callable[[], object], *, always: bool = False) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._work, name="netlapse-upload", daemon=True)
            self._thread.start()
        self._queue.put((job, always))

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            job, always = item
            # The breaker: after a failure nothing is tried until the end, when all that is missing is tried once more.
            if self._broken is not None and not always:
                continue
            try:
                job()
            except Exception as error:  # whatever the client raises must not end the thread: the spool still holds the findings
                if self._broken is None:
                    log.warning("netlapse: MLflow at %s refuses (%s); findings are kept in %s", self.uri, _brief(error), self.spool.folder)
                self._broken = _brief(error)

    def _upload_findings(self, analysis: str, step: int) -> None:
        self._uploads.findings(analysis, step)
        self._uploads.document("manifest.json")

    def _retry(self) -> None:
        self._uploads.everything()
        self._broken = None

    def _upload_held(self, analysis: str, step: int, findings: Findings) -> None:
        """Upload findings that no disk would take, from a folder in memory if the system has one."""
        self._unspooled.append((analysis, step, findings))
        try:
            with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
                FolderTracker(folder).log(analysis, step, findings)
                Uploads(self._client, self.run_id, Path(folder)).findings(analysis, step)
            self._unspooled.remove((analysis, step, findings))
        except Exception as error:  # reported at the end of finish(), with everything else that is left
            self._broken = _brief(error)

    def _drain(self) -> bool:
        if self._broken is not None:
            self._submit(self._retry, always=True)
        self._queue.put(None)
        if self._thread is None:
            return True
        self._thread.join(DRAIN_SECONDS)
        return not self._thread.is_alive()


class Uploads:
    """From a spool folder to a run, each thing once: a ledger beside the spool remembers what has arrived.

    MLflow keeps two images or two points where the same key and step are logged twice.
    """

    def __init__(self, client: MlflowClient, run_id: str, folder: Path) -> None:
        self._client, self._run_id, self._folder = client, run_id, folder
        ledger = folder / _LEDGER
        self._done: set[str] = set(ledger.read_text().splitlines()) if ledger.is_file() else set()

    def findings(self, analysis: str, step: int) -> None:
        """Metrics in one call, then the images, then the arrays."""
        path = self._folder / "findings" / analysis / f"step_{step:08d}.npz"
        found = unpacked(path.read_bytes())
        now = int(time.time() * 1000)
        if found.scalars and self._is_new(item := f"metrics {analysis} {step}"):
            metrics = [Metric(mlflow_key(name), value, now, step) for name, value in found.scalars.items()]
            for start in range(0, len(metrics), 1000):  # the most MLflow takes at once
                self._client.log_batch(self._run_id, metrics=metrics[start : start + 1000])
            self._remember(item)
        if self._is_new(item := f"arrays {analysis} {step}"):
            self._client.log_artifact(self._run_id, str(path), f"findings/{analysis}")
            self._remember(item)
        self._images(step)

    def _images(self, step: int) -> None:
        """What `MlflowClient.log_image` does, for all pictures of a step at once.

        Theirs encodes each picture anew and writes a tag for each: a sixth of a second for the pictures of one step, more
        than the analyses take. A test compares names, tag and files with theirs.
        """
        new = []
        for path in sorted((self._folder / "images").rglob(f"step_{step:08d}.png")):
            key = path.parent.relative_to(self._folder / "images").as_posix()
            if f"image {key} {step}" not in self._done:
                new.append((key, path))
        if not new:
            return
        with tempfile.TemporaryDirectory() as folder:
            for key, path in new:
                name = f"{mlflow_key(key).replace('/', '~')}+step+{step}+timestamp+{int(time.time() * 1000)}+{uuid.uuid4()}"
                shutil.copyfile(path, Path(folder) / f"{name}.png")
                with Image.open(path) as image:
                    small = image.convert("RGB")
                small.resize(_thumbnail(small.size)).save(Path(folder) / f"{name}+compressed.webp", method=0)
            self._client.log_artifacts(self._run_id, folder, "images")
        self._client.set_tag(self._run_id, "mlflow.loggedImages", "True")
        for key, _ in new:
            self._remember(f"image {key} {step}")

    def document(self, name: str) -> None:
        self._client.log_artifact(self._run_id, str(self._folder / name))

    def everything(self) -> None:
        """All that the ledger does not know of."""
        for path in sorted((self._folder / "findings").glob("*")):
            for step in steps(self._folder, path.name):
                self.findings(path.name, step)
        for path in sorted(self._folder.iterdir()):
            if path.is_file() and path.name not in (_LEDGER, _TARGET) and not path.name.startswith("."):
                self.document(path.name)
        for failure in read_manifest(self._folder).get("failures", []):  # type: ignore[attr-defined]
            self._client.set_tag(self._run_id, f"netlapse.failure.{mlflow_key(failure['what'])}", failure["message"][:5000])

    def _is_new(self, item: str) -> bool:
        return item not in self._done

    def _remember(self, item: str) -> None:
        self._done.add(item)
        with (self._folder / _LEDGER).open("a") as ledger:
            ledger.write(item + "\n")


def _thumbnail(size: tuple[int, int]) -> tuple[int, int]:
    """The longer side as MLflow's grids show it, 256 pixels."""
    width, height = size
    return (256, max(1, int(height * 256 / width))) if width > height else (max(1, int(width * 256 / height)), 256)


def upload(folder: str | Path) -> str:
    """Upload what a spool folder holds and its run does not; returns the run id and removes the folder.

    Raises FileNotFoundError where the folder is not a spool, ConnectionError where the server does not answer.
    """
    folder = Path(folder)
    if not (folder / _TARGET).is_file():
        raise FileNotFoundError(f"{folder} is no spool of netlapse: it holds no {_TARGET}; spools are in {home() / 'spool'}")
    target = json.loads((folder / _TARGET).read_text())
    Uploads(client_for(target["uri"]), target["run_id"], folder).everything()
    shutil.rmtree(folder)
    return str(target["run_id"])


def load(run_id: str, uri: str | None = None) -> Recording:
    """Everything a run recorded: what MLflow has of it, and what is still in the local spool.

    Raises FileNotFoundError where the run holds no findings of netlapse, MlflowException where there is no such run.
    """
    client = client_for(uri or tracking_uri())
    client.get_run(run_id)
    parts: list[Recording] = []
    with tempfile.TemporaryDirectory() as folder:
        names = {item.path for item in client.list_artifacts(run_id)}
        for name in sorted(names & {"findings", "manifest.json"}):
            client.download_artifacts(run_id, name, folder)
        if "manifest.json" in names:
            parts.append(read(Path(folder)))
    spool = home() / "spool" / run_id
    if (spool / "manifest.json").is_file():
        parts.append(read(spool))
    if not parts:
        raise FileNotFoundError(f"run {run_id} holds no recording of netlapse (no manifest.json); its artifacts are {sorted(names)}")
    findings: dict[str, dict[int, Findings]] = {}
    for part in parts:
        for analysis, by_step in part.findings.items():
            findings.setdefault(analysis, {}).update(by_step)
    return Recording(parts[-1].manifest, findings)


def _latest_uploaded(client: MlflowClient, run_id: str, analysis: str, before: int) -> Findings | None:
    files = {int(Path(item.path).stem.removeprefix("step_")): item.path for item in client.list_artifacts(run_id, f"findings/{analysis}")}
    earlier = [step for step in files if step < before]
    if not earlier:
        return None
    with tempfile.TemporaryDirectory() as folder:
        return unpacked(Path(client.download_artifacts(run_id, files[max(earlier)], folder)).read_bytes())


def _uploaded_manifest(client: MlflowClient, run_id: str) -> dict[str, object]:
    if "manifest.json" not in {item.path for item in client.list_artifacts(run_id)}:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        client.download_artifacts(run_id, "manifest.json", folder)
        return read_manifest(Path(folder))


def mlflow_key(name: str) -> str:
    """A name as MLflow takes it as an image key or metric: letters, digits, `_-. /`, at most 120 characters.

    Names that had to be changed end in a checksum of the name itself, so that no two become one.
    """
    clean = re.sub(r"[^A-Za-z0-9_\-./ ]", "_", name)
    clean = re.sub(r"/{2,}", "/", clean.replace("..", "__")).strip("/")
    return name if clean == name and len(name) <= 120 else f"{clean[:110]}-{zlib.crc32(name.encode()):08x}"


def _brief(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0][:300] if str(error) else ''}"


__all__ = ["MlflowTracker", "load", "mlflow_key", "upload"]

if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print(f"uploaded into run {upload(argument)}")
