"""What a run keeps, by its id or folder, for figures."""

from __future__ import annotations

import tempfile
from pathlib import Path

from netlapse.recording import Recording
from netlapse.tracking.folder import MANIFEST, read
from netlapse.tracking.probes import PROBE, from_bytes
from netlapse.types import ProbeSet


def recorded(run: str | Path, tracking_uri: str | None = None) -> Recording:
    """What a run recorded: its id in MLflow, or the folder of a record.

    Raises as `netlapse.load`, and FileNotFoundError for a path that is no folder of a record.
    """
    if _is_path(run):
        return read(Path(run).expanduser())
    from netlapse import load

    return load(str(run), tracking_uri)


def recorded_probe(run: str | Path, tracking_uri: str | None = None) -> ProbeSet:
    """The probe that a run keeps: its id in MLflow, or the folder of a record.

    Raises FileNotFoundError where it keeps none, as a probe of more than 100 MB is not kept.
    """
    data = _from_folder(Path(run).expanduser()) if _is_path(run) else _from_mlflow(str(run), tracking_uri)
    if data is None:
        raise FileNotFoundError(f"run {run} keeps no probe ({PROBE}); hand the figure its inputs as arrays")
    return from_bytes(data)


def _is_path(run: str | Path) -> bool:
    return isinstance(run, Path) or "/" in run or (Path(run) / MANIFEST).is_file()


def _from_folder(folder: Path) -> bytes | None:
    return (folder / PROBE).read_bytes() if (folder / PROBE).is_file() else None


def _from_mlflow(run_id: str, uri: str | None) -> bytes | None:
    from netlapse.tracking.claim import spools_of
    from netlapse.tracking.secrecy import discreet
    from netlapse.tracking.store import client_for
    from netlapse.tracking.store import tracking_uri as usual

    for spool in spools_of(run_id):  # what a server that was away has not got yet
        if (data := _from_folder(spool)) is not None:
            return data
    with discreet(), tempfile.TemporaryDirectory() as folder:
        client = client_for(uri or usual())
        if PROBE not in {item.path for item in client.list_artifacts(run_id)}:
            return None
        return Path(client.download_artifacts(run_id, PROBE, folder)).read_bytes()
