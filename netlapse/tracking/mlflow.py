"""Findings in an MLflow run, through a local spool.

Every finding is a file in the spool before MLflow is asked anything; threads upload it. So a slow server never holds
up a training, a dead one never ends it, and what could not be uploaded is still there: for `./run sync`, and for the next
training, which uploads it by itself.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Param, RunTag

from netlapse.home import home
from netlapse.recording import Recording
from netlapse.tracking.checkpoints import SUFFIXES
from netlapse.tracking.claim import claimed, discard, spools_of
from netlapse.tracking.contents import Contents
from netlapse.tracking.folder import MANIFEST, TARGET, FolderTracker, Wanted, everything, read, write
from netlapse.tracking.names import mlflow_key, plain_name
from netlapse.tracking.secrecy import brief, discreet, scrubbed
from netlapse.tracking.store import client_for, experiment_id, local_store, silence, sqlite_folder, tracking_uri
from netlapse.tracking.sync import command, in_background, upload
from netlapse.tracking.uploads import INTERRUPTED_SECONDS, Uploader, Uploads, status
from netlapse.types import Findings

log = logging.getLogger(__name__)

PARENT, JOB, OVERRIDES = "mlflow.parentRunId", "netlapse.job", "netlapse.overrides"
"""The tags of a run that is a job of a sweep."""


class MlflowTracker:
    """A `netlapse.types.Tracker` that writes to an MLflow run.

    run_id      an existing run, which is left open at the end; None makes one, and ends it
    uri         the tracking server; None: `$MLFLOW_TRACKING_URI`, else the local store
    experiment  for a new run; None: `$MLFLOW_EXPERIMENT_NAME`, else "netlapse"
    own         whether the run is ended at the end; None: where it was made here. An existing run that is to be ended runs again until then

    What an existing run recorded is fetched into the spool first. After `finish`, `start` opens the same run again. What a
    killed process left of the run is gone on with, and the run then ended if that process had made it; what others left in
    this store is uploaded meanwhile. Nothing is sent that the run holds already; of what has changed, findings, documents and
    pictures replace what was, and a metric becomes a second point, since MLflow deletes none.

    Raises ConnectionError, PermissionError or MlflowException where the store cannot be reached or has no such run.
    """

    def __init__(self, run_id: str | None = None, *, uri: str | None = None, experiment: str | None = None, own: bool | None = None) -> None:
        self.uri = uri or tracking_uri()
        self._held: list[tuple[str, int, Findings]] = []  # what a full disk would not take
        self._held_metrics: list[tuple[Mapping[str, float], int]] = []
        self._finished = False
        self._page: str | None = None  # the last one that was written from here
        with discreet():
            self._client = client_for(self.uri)
            new = run_id is None
            self._owned = new if own is None else own
            if run_id is None:
                run_id = self._made(experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "netlapse")
            self.run_id = plain_name("a run", run_id)
            self.run = self._client.get_run(run_id).info
            self._contents = Contents(self._client, run_id, new=new)
            self._open(new=new)
            if self._owned and not new:
                self._client.update_run(self.run_id, status="RUNNING")
        in_background(self.uri)

    def _made(self, experiment: str) -> str:
        # A name of our own: MLflow draws its from Python's global random state, which belongs to the training.
        made = self._client.create_run(experiment_id(self._client, self.uri, experiment), run_name=time.strftime("%Y-%m-%d %H:%M:%S"))
        return str(made.info.run_id)

    def _open(self, *, new: bool = False) -> None:
        folder, lock = claimed(self.run_id)
        if (folder / TARGET).is_file():  # a process was killed before it could end the run
            self._owned = self._owned or bool(json.loads((folder / TARGET).read_text()).get("owned"))
        self.spool = FolderTracker(folder)
        write(folder / TARGET, json.dumps({"uri": scrubbed(self.uri), "run_id": self.run_id, "owned": self._owned}).encode())
        self._uploads = Uploads(self._client, self.uri, self.run_id, folder, self._contents)
        if not new and (fetched := _fetch(self._client, self.run_id, folder)):
            self._uploads.arrived(fetched)
            self.spool = FolderTracker(folder)
        self._uploader = Uploader(self._uploads, self.uri, folder, lock)

    # ---- the tracker ------------------------------------------------------------------------------------------------

    @property
    def manifest(self) -> Mapping[str, object]:
        return self.spool.manifest

    @property
    def steps(self) -> dict[str, set[int]]:
        found = self.spool.steps
        for name, step, _ in self._held:
            found.setdefault(name, set()).add(step)
        return found

    def start(self, manifest: Mapping[str, object]) -> None:
        if (why := silence(self.uri)) is not None:
            raise ConnectionError(f"the MLflow server at {scrubbed(self.uri)} no longer answers ({why}); start it again, or take tracker=folder")
        with discreet():
            self._start(manifest)
        self._uploader.wake()

    def _start(self, manifest: Mapping[str, object]) -> None:
        if self._finished:
            self._open()
            if self._owned:
                self._client.update_run(self.run_id, status="RUNNING")
            self._finished = False
        title = manifest.get("title")
        if title and self._owned:
            self._client.update_run(self.run_id, name=str(title))
        params = manifest.get("params")
        if isinstance(params, Mapping):  # a curated few: MLflow shows them all in its headers
            self._client.log_batch(self.run_id, params=[Param(str(key), str(value)) for key, value in params.items()])
        if isinstance(sweep := manifest.get("sweep"), Mapping) and "parent" in sweep:  # now: what is killed later is to be found
            words = json.dumps(sweep["overrides"])
            tags = {PARENT: str(sweep["parent"]), JOB: str(sweep["job"]), OVERRIDES: words if len(words) <= 5000 else "[]"}
            self._client.log_batch(self.run_id, tags=[RunTag(key, value) for key, value in tags.items()])
        self.spool.start({"run_id": self.run_id, **manifest, "title": title or self.spool.manifest.get("title") or self.run.run_name})

    def describe(self, manifest: Mapping[str, object]) -> None:
        self.spool.describe(manifest)
        self._uploader.wake()

    def log(self, analysis: str, step: int, findings: Findings) -> None:
        """Spool and wake the upload; what a full disk refuses is kept in memory, spooled later, or uploaded from there at the end."""
        self._held.append((analysis, step, findings))
        self._spool_held()

    def _spool_held(self) -> None:
        while self._held:
            try:
                self.spool.log(*self._held[0])
            except OSError:
                raise  # it is held, and tried again with the next
            except Exception:
                self._held.pop(0)  # what is wrong with it stays wrong
                raise
            self._held.pop(0)
            self._uploader.wake()

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Spool and wake the upload; what a full disk refuses is kept in memory, and spooled with the next or at the end."""
        self._held_metrics.append((values, step))
        self._spool_held_metrics()

    def _spool_held_metrics(self) -> None:
        while self._held_metrics:
            self.spool.metrics(*self._held_metrics[0])
            self._held_metrics.pop(0)
            self._uploader.wake()

    def latest(self, analysis: str, before: int) -> Findings | None:
        held = [(step, found) for name, step, found in self._held if name == analysis and step < before]
        return max(held, key=lambda pair: pair[0])[1] if held else self.spool.latest(analysis, before)

    def recording(self) -> Recording:
        return self.spool.recording() if self.spool.folder.is_dir() else load(self.run_id, self.uri)

    def document(self, name: str, content: str | bytes) -> None:
        self.spool.document(name, content)
        self._page = name if name.endswith(".html") else self._page
        self._uploader.wake()

    def read(self, name: str) -> bytes | None:
        if (here := self.spool.read(name)) is not None:
            return here
        with discreet(), tempfile.TemporaryDirectory() as folder:
            if name not in {item.path for item in self._client.list_artifacts(self.run_id)}:
                return None
            return Path(self._client.download_artifacts(self.run_id, name, folder)).read_bytes()

    def table(self, name: str, columns: Mapping[str, Sequence[object]]) -> None:
        self.spool.table(name, columns)
        listed = self.manifest.get("tables")
        self.spool.describe({"tables": sorted({*(listed if isinstance(listed, list) else []), f"{name}.json"})})
        self._uploader.wake()

    def fetch_checkpoints(self, folder: Path) -> Path | None:
        """Checkpoints that were logged as artifacts, by MLflow's own callbacks or by hand, wherever in the run."""
        with discreet():
            there = list(_artifacts(self._client, self.run_id, SUFFIXES))
            for name in there:
                place = folder / Path(name).parent.name  # of `checkpoints/epoch_3/checkpoint.pth` the folder tells the epoch
                place.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryDirectory(dir=folder) as fetched:
                    shutil.move(self._client.download_artifacts(self.run_id, name, fetched), place / Path(name).name)
        return folder if there else None

    def failure(self, what: str, message: str) -> None:
        self.spool.failure(what, message)
        self._uploader.wake()

    @property
    def checkpoint_folder(self) -> Path | None:
        """Beside the store: where the checkpoints of this run belong."""
        return (sqlite_folder(self.uri) or home()) / "checkpoints" / self.run_id

    @property
    def place(self) -> str:
        """Where to look, for a person."""
        uri = scrubbed(self.uri)
        remote = uri.startswith("http")
        run = f"{uri.rstrip('/') if remote else 'http://127.0.0.1:5000'}/#/experiments/{self.run.experiment_id}/runs/{self.run_id}"
        page = "" if self._page is None else f"\n  or all on one page at {run}/artifacts/{self._page}"
        if remote:
            return f"run {self.run_id} at {uri}\nSee it at {run}{page}"
        other = "" if uri == local_store() else f"MLFLOW_TRACKING_URI={uri} "
        return f"run {self.run_id} of {uri}\nSee it with: {other}{command('ui')}\n  and then {run}/model-metrics{page}"

    def finish(self, *, failed: bool | None = False) -> None:
        """Wait for the uploads, for a bounded time; end a run of our own; say what is left, where, and how to upload it."""
        ended = status(failed) if self._owned else None
        self._end(partial(self.spool.finish, failed=failed), ended, INTERRUPTED_SECONDS if failed is None else None)

    def close(self) -> None:
        self._end(None, None, None)

    def _end(self, last: Callable[[], None] | None, ended: str | None, seconds: float | None) -> None:
        if self._finished:
            return
        self._finished = True
        problems: list[str] = []
        for step in (self._spool_held, self._spool_held_metrics, *([last] if last else [])):
            try:
                step()
            except Exception as error:
                problems.append(brief(error))
        if self._held or self._held_metrics:
            problems += self._uploaded_from_memory()
        left = self._uploader.close(ended, seconds=seconds)
        if left is None and not self._held:
            discard(self.spool.folder)  # the run holds all of it
        self._uploader.release()
        if self._held:
            log.warning("netlapse: no disk and no server took %s; they are lost (%s)", self._names_held(), "; ".join(problems))
        if left is not None:
            log.warning(
                "netlapse: not everything reached MLflow at %s (%s); it is kept. Upload it with: %s %s",
                scrubbed(self.uri),
                left,
                command("sync"),
                self.spool.folder,
            )

    def _uploaded_from_memory(self) -> list[str]:
        """Upload findings that no disk would take, from a folder in memory where the system has one; returns what went wrong."""
        try:
            with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
                spool = FolderTracker(folder)
                for analysis, step, findings in self._held:
                    spool.log(analysis, step, findings)
                for values, step in self._held_metrics:
                    spool.metrics(values, step)
                spool.manifest_path.unlink(missing_ok=True)  # it knows of nothing but these
                if (why := silence(self.uri)) is not None:
                    return [why]
                Uploads(self._client, self.uri, self.run_id, Path(folder), self._contents).everything()
        except Exception as error:
            return [brief(error)]
        self._held.clear()
        self._held_metrics.clear()
        return []

    def _names_held(self) -> str:
        return ", ".join(f"{name} at step {step}" for name, step, _ in self._held)


def active_run() -> tuple[str, str] | None:
    """(tracking uri, run id) of the run that the user's program has open in MLflow's fluent API; None where it has none."""
    run = mlflow.active_run()
    return None if run is None else (mlflow.get_tracking_uri(), str(run.info.run_id))


def load(run_id: str, uri: str | None = None, wanted: Wanted = everything) -> Recording:
    """Everything a run recorded, of its arrays those that are wanted: what MLflow has of it, and what is still in the local spool.

    Raises FileNotFoundError where the run holds no findings of netlapse, MlflowException where there is no such run.
    """
    parts: list[Recording] = []
    with discreet():
        client = client_for(uri or tracking_uri())
        client.get_run(run_id)
        there = sorted(item.path for item in client.list_artifacts(run_id))
        with tempfile.TemporaryDirectory() as folder:
            if _fetch(client, run_id, Path(folder)):
                parts.append(read(Path(folder), wanted))
    parts += [read(spool, wanted) for spool in spools_of(run_id) if (spool / MANIFEST).is_file()]
    if not parts:
        raise FileNotFoundError(f"run {run_id} holds no recording of netlapse (no manifest.json); its artifacts are {there}")
    findings: dict[str, dict[int, Findings]] = {}
    for part in parts:
        for analysis, by_step in part.findings.items():
            findings.setdefault(analysis, {}).update(by_step)
    return Recording(parts[-1].manifest, findings)


def _artifacts(client: MlflowClient, run_id: str, suffixes: tuple[str, ...], within: str | None = None) -> Iterator[str]:
    """The paths of a run's artifacts that end in one of the suffixes; pictures and findings are not looked through."""
    for item in client.list_artifacts(run_id, within):
        if item.is_dir and item.path not in ("images", "findings"):
            yield from _artifacts(client, run_id, suffixes, item.path)
        elif not item.is_dir and item.path.endswith(suffixes):
            yield item.path


def _fetch(client: MlflowClient, run_id: str, folder: Path) -> list[Path]:
    """The files of a run's manifest and findings that were brought into a folder: all but those it has already.

    Whoever may write to the run may have put anything there: what does not look like a file of ours is left out.
    """
    names = {item.path for item in client.list_artifacts(run_id)}
    if MANIFEST not in names:
        return []
    moved = []
    with tempfile.TemporaryDirectory() as fetched:
        for name in sorted(names & {"findings", MANIFEST}):
            client.download_artifacts(run_id, name, fetched)
        for path in sorted(Path(fetched).rglob("*")):
            place = path.relative_to(fetched)
            here = folder / place
            if _OURS.fullmatch(place.as_posix()) and path.is_file() and not here.exists():
                here.parent.mkdir(parents=True, exist_ok=True)
                moved.append(Path(shutil.move(path, here)))
    return moved


_OURS = re.compile(r"manifest\.json|findings/[A-Za-z0-9_\-]+/step_\d{8,}\.npz")

__all__ = ["MlflowTracker", "load", "mlflow_key", "upload"]
