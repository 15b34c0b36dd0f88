"""Findings in an MLflow run, through a local spool.

Every finding is a file in the spool before MLflow is asked anything; a thread uploads it. So a slow server never holds
up a training, a dead one never ends it, and what could not be uploaded is still there: `upload(folder)`.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Param

from netlapse.home import home
from netlapse.recording import Recording
from netlapse.tracking.folder import FolderTracker, read, write
from netlapse.tracking.store import brief, client_for, experiment_id, local_store, mlflow_key, sqlite_folder, tracking_uri
from netlapse.tracking.uploads import TARGET, Uploader, Uploads
from netlapse.types import Findings

log = logging.getLogger(__name__)


class MlflowTracker:
    """A `netlapse.types.Tracker` that writes to an MLflow run.

    run_id      an existing run, which is left open at the end; None makes one, and ends it
    uri         the tracking server; None: `$MLFLOW_TRACKING_URI`, else the local store
    experiment  for a new run; None: `$MLFLOW_EXPERIMENT_NAME`, else "netlapse"

    What an existing run recorded is fetched into the spool first. After `finish`, `start` opens the same run again.
    Raises ConnectionError, PermissionError or MlflowException where the store cannot be reached or has no such run.
    """

    def __init__(self, run_id: str | None = None, *, uri: str | None = None, experiment: str | None = None) -> None:
        self.uri = uri or tracking_uri()
        self._client = client_for(self.uri)
        self._owned = run_id is None
        if run_id is None:
            name = experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "netlapse"
            # A name of our own: MLflow draws its from Python's global random state, which belongs to the training.
            made = self._client.create_run(experiment_id(self._client, self.uri, name), run_name=time.strftime("%Y-%m-%d %H:%M:%S"))
            run_id = str(made.info.run_id)
        self.run = self._client.get_run(run_id).info
        self.run_id = run_id
        self._held: list[tuple[str, int, Findings]] = []  # what a full disk would not take
        self._finished = False
        self._open()

    def _open(self) -> None:
        self.spool = FolderTracker(home() / "spool" / self.run_id)
        write(self.spool.folder / TARGET, json.dumps({"uri": self.uri, "run_id": self.run_id, "owned": self._owned}).encode())
        self._uploads = Uploads(self._client, self.uri, self.run_id, self.spool.folder)
        if fetched := _fetch(self._client, self.run_id, self.spool.folder):
            self._uploads.arrived(fetched)
            self.spool = FolderTracker(self.spool.folder)
        self._uploader = Uploader(self._uploads, self.uri, self.spool.folder)

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
        self.spool.start({"run_id": self.run_id, **manifest, "title": title or self.spool.manifest.get("title") or self.run.run_name})
        self._uploader.wake()

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
        self.spool.metrics(values, step)
        self._uploader.wake()

    def latest(self, analysis: str, before: int) -> Findings | None:
        held = [(step, found) for name, step, found in self._held if name == analysis and step < before]
        return max(held, key=lambda pair: pair[0])[1] if held else self.spool.latest(analysis, before)

    def recording(self) -> Recording:
        return self.spool.recording() if self.spool.folder.is_dir() else load(self.run_id, self.uri)

    def document(self, name: str, text: str) -> None:
        self.spool.document(name, text)
        self._uploader.wake()

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
        path = f"#/experiments/{self.run.experiment_id}/runs/{self.run_id}"
        if self.uri.startswith("http"):
            return f"run {self.run_id} at {self.uri}\nSee it at {self.uri.rstrip('/')}/{path}"
        other = "" if self.uri == local_store() else f"MLFLOW_TRACKING_URI={self.uri} "
        return f"run {self.run_id} of {self.uri}\nSee it with: {other}{_ui()}\n  and then http://127.0.0.1:5000/{path}/model-metrics"

    def finish(self, *, failed: bool = False) -> None:
        """Wait for the uploads, for a bounded time; end a run of our own; say what is left, where, and how to upload it."""
        if self._finished:
            return
        self._finished = True
        problems: list[str] = []
        try:
            self._spool_held()
        except Exception as error:
            problems.append(brief(error))
        try:
            self.spool.finish(failed=failed)
        except Exception as error:
            problems.append(brief(error))
        if self._held:
            problems += self._uploaded_from_memory()
        left = self._uploader.close(("FAILED" if failed else "FINISHED") if self._owned else None)
        if left is None and not self._held:
            shutil.rmtree(self.spool.folder, ignore_errors=True)  # the run holds all of it
            return
        if self._held:
            log.warning("netlapse: no disk and no server took %s; they are lost (%s)", self._names_held(), "; ".join(problems))
        if left is not None:
            log.warning(
                "netlapse: not everything reached MLflow at %s (%s); it is kept in %s. Upload it with: %s -m netlapse.tracking.mlflow %s",
                self.uri,
                left,
                self.spool.folder,
                sys.executable,
                self.spool.folder,
            )

    def _uploaded_from_memory(self) -> list[str]:
        """Upload findings that no disk would take, from a folder in memory where the system has one; returns what went wrong."""
        try:
            with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
                spool = FolderTracker(folder)
                for analysis, step, findings in self._held:
                    spool.log(analysis, step, findings)
                spool.manifest_path.unlink()  # it knows of nothing but these
                Uploads(self._client, self.uri, self.run_id, Path(folder)).everything()
        except Exception as error:
            return [brief(error)]
        self._held.clear()
        return []

    def _names_held(self) -> str:
        return ", ".join(f"{name} at step {step}" for name, step, _ in self._held)


def _ui() -> str:
    """The command that shows the store, from where this process runs."""
    script = Path(__file__).resolve().parents[2] / "run"
    if not script.is_file():  # installed, not a clone
        return f"{sys.executable} -m netlapse.tracking.ui"
    return "./run ui" if Path.cwd() == script.parent else f"{script} ui"


def active_run() -> tuple[str, str] | None:
    """(tracking uri, run id) of the run that the user's program has open in MLflow's fluent API; None where it has none."""
    run = mlflow.active_run()
    return None if run is None else (mlflow.get_tracking_uri(), str(run.info.run_id))


def upload(folder: str | Path) -> str:
    """Upload what a spool folder holds and its run does not; returns the run id and removes the folder.

    A run that netlapse made is ended, with what is known of how its training went: KILLED where it never came to an end.
    Raises FileNotFoundError where the folder is not a spool, ConnectionError where the server does not answer, and what
    MLflow raises where it refuses something; then the folder stays.
    """
    folder = Path(folder)
    if not (folder / TARGET).is_file():
        raise FileNotFoundError(f"{folder} is no spool of netlapse: it holds no {TARGET}; spools are in {home() / 'spool'}")
    target = json.loads((folder / TARGET).read_text())
    uploads = Uploads(client_for(target["uri"]), target["uri"], target["run_id"], folder)
    uploads.everything()
    if target["owned"]:
        failed = FolderTracker(folder).manifest.get("failed")
        uploads.end("KILLED" if failed is None else "FAILED" if failed else "FINISHED")
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
        if _fetch(client, run_id, Path(folder)):
            parts.append(read(Path(folder)))
    spool = home() / "spool" / run_id
    if (spool / "manifest.json").is_file():
        parts.append(read(spool))
    if not parts:
        there = sorted(item.path for item in client.list_artifacts(run_id))
        raise FileNotFoundError(f"run {run_id} holds no recording of netlapse (no manifest.json); its artifacts are {there}")
    findings: dict[str, dict[int, Findings]] = {}
    for part in parts:
        for analysis, by_step in part.findings.items():
            findings.setdefault(analysis, {}).update(by_step)
    return Recording(parts[-1].manifest, findings)


def _fetch(client: MlflowClient, run_id: str, folder: Path) -> list[Path]:
    """The files of a run's manifest and findings that were brought into a folder: all but those it has already."""
    names = {item.path for item in client.list_artifacts(run_id)}
    if "manifest.json" not in names:
        return []
    moved = []
    with tempfile.TemporaryDirectory() as fetched:
        for name in sorted(names & {"findings", "manifest.json"}):
            client.download_artifacts(run_id, name, fetched)
        for path in sorted(Path(fetched).rglob("*")):
            here = folder / path.relative_to(fetched)
            if path.is_file() and not here.exists():
                here.parent.mkdir(parents=True, exist_ok=True)
                moved.append(Path(shutil.move(path, here)))
    return moved


__all__ = ["MlflowTracker", "load", "mlflow_key", "upload"]

if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print(f"uploaded into run {upload(argument)}")
