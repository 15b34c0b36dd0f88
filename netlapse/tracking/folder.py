"""Findings in a folder: the spool every other tracker writes to first, and a record of its own.

    manifest.json                                what was observed, with which probe, versions, checkpoints; which findings exist
    findings/<analysis>/step_00000012.npz        arrays and scalars of one analysis at one step, no pickles
    images/<key>/step_00000012.png
    metrics.jsonl                                the training's own metrics, a line each time it tells of some
    timelapse.html, config.yaml, ...             documents

Every file is written beside its place and then moved there, so that a reader never sees half of one, whenever the
process is killed. Names that would lead out of the folder are refused, image keys mapped to ones that do not.
"""

from __future__ import annotations

import io
import json
import os
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from netlapse.home import writable
from netlapse.recording import Recording, merged
from netlapse.render.ink import png
from netlapse.tracking.names import document_name, mlflow_key, plain_name
from netlapse.tracking.secrecy import scrubbed
from netlapse.types import Array, Findings

SCHEMA = 1
MANIFEST = "manifest.json"
METRICS = "metrics.jsonl"
LEDGER = "uploaded.txt"
TARGET = "mlflow.json"
OWN_FILES = frozenset({MANIFEST, METRICS, LEDGER, TARGET})
"""What a record or a spool keeps beside its documents."""

Wanted = Callable[[str, str], bool]
"""Whether an array of an analysis is to be read, by the names of both."""

_OURS = _NAMES, _VALUES, _SCHEMA = "__scalar_names__", "__scalar_values__", "__schema__"


class FolderTracker:
    """A `netlapse.types.Tracker` that writes to a folder, and goes on in one that holds a record already.

    Raises PermissionError where the folder cannot be written, and ValueError where its manifest is none. Findings, documents
    and images of names that are no names of files are refused with a ValueError or mapped; see `netlapse.tracking.names`.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = writable(Path(folder).expanduser().absolute())
        self.manifest: dict[str, object] = read_manifest(self.folder)

    def start(self, manifest: Mapping[str, object]) -> None:
        self.manifest.pop("failed", None)  # how it ends is open again
        self.describe({"schema": SCHEMA, **manifest})

    def describe(self, manifest: Mapping[str, object]) -> None:
        self.manifest = merged(self.manifest, manifest)
        self.write_manifest()

    def log(self, analysis: str, step: int, findings: Findings) -> None:
        data, path = packed(findings), self.findings_path(analysis, step)
        for key, image in findings.images.items():
            write(self.image_path(key, step), png(image))
        write(path, data)  # last: a step that has its findings is taken to be whole, also by who goes on after a kill
        self.write_manifest()

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        line = json.dumps({"step": step, "time": int(time.time() * 1000), "values": {name: float(value) for name, value in values.items()}})
        with (self.folder / METRICS).open("ab") as file:
            # A line cut off by a full disk or a killed process costs itself, not the one after it.
            cut = file.tell() > 0 and not _ends_line(self.folder / METRICS)
            file.write(("\n" * cut + line + "\n").encode())

    def findings_path(self, analysis: str, step: int) -> Path:
        return self.folder / "findings" / plain_name("an analysis", analysis) / f"step_{step:08d}.npz"

    def image_path(self, key: str, step: int) -> Path:
        return self.folder / "images" / mlflow_key(key) / f"step_{step:08d}.png"

    def latest(self, analysis: str, before: int) -> Findings | None:
        earlier = [step for step in steps(self.folder, analysis) if step < before]
        return unpacked(self.findings_path(analysis, max(earlier)).read_bytes()) if earlier else None

    def recording(self) -> Recording:
        return read(self.folder)

    def document(self, name: str, content: str | bytes) -> None:
        """Write a file; secrets in a text that tells of a config are left out, those of a page in its manifest are already."""
        if isinstance(content, str):
            content = (content if name.endswith(".html") else scrubbed(content)).encode()
        write(self.folder / document_name(name, OWN_FILES), content)

    def read(self, name: str) -> bytes | None:
        path = self.folder / document_name(name, OWN_FILES)
        return path.read_bytes() if path.is_file() else None

    def table(self, name: str, columns: Mapping[str, Sequence[object]]) -> None:
        self.document(f"{plain_name('a table', name)}.json", tabled(columns))

    def fetch_checkpoints(self, folder: Path) -> Path | None:
        return self.checkpoint_folder if self.checkpoint_folder.is_dir() else None

    def failure(self, what: str, message: str) -> None:
        failures = self.manifest.get("failures")
        self.manifest["failures"] = [*(failures if isinstance(failures, list) else []), {"what": what, "message": message}]
        self.write_manifest()

    def finish(self, *, failed: bool | None = False) -> None:
        self.manifest["failed"] = failed
        self.write_manifest()

    def close(self) -> None:
        pass

    @property
    def checkpoint_folder(self) -> Path:
        """Where the checkpoints of what is recorded here belong."""
        return self.folder / "checkpoints"

    @property
    def place(self) -> str:
        """Where to look, for a person."""
        pages = [page for name in ("sweep.html", "timelapse.html") if (page := self.folder / name).is_file()]
        return "\n".join([str(self.folder), *(f"Open {page} in a browser." for page in pages[:1])])

    @property
    def manifest_path(self) -> Path:
        return self.folder / MANIFEST

    @property
    def steps(self) -> dict[str, set[int]]:
        known = self.manifest.get("findings")  # also where the files have gone on to MLflow
        found = {str(name): set(at) for name, at in known.items()} if isinstance(known, dict) else {}
        for path in (self.folder / "findings").glob("*"):
            found.setdefault(path.name, set()).update(steps(self.folder, path.name))
        return dict(sorted(found.items()))

    def write_manifest(self) -> None:
        self.manifest["findings"] = {name: sorted(at) for name, at in self.steps.items()}
        text = scrubbed(json.dumps(self.manifest, indent=1, default=str))  # the command that was run may name a server
        write(self.manifest_path, text.encode())


def steps(folder: Path, analysis: str) -> tuple[int, ...]:
    """The steps at which an analysis has findings in a folder, ascending."""
    files = (folder / "findings" / plain_name("an analysis", analysis)).glob("step_*.npz")
    return tuple(sorted(int(path.stem.removeprefix("step_")) for path in files))


def metrics_from(folder: Path, start: int) -> tuple[list[dict[str, Any]], int]:
    """The training's own metrics in a folder from a byte on, each with its step, time and values; and the byte to go on from.

    What is no line of ours is left out: one that was cut off.
    """
    path = folder / METRICS
    if not path.is_file():
        return [], start
    with path.open("rb") as file:
        file.seek(start)
        text = file.read()
    whole = text[: text.rfind(b"\n") + 1]
    rows = []
    for line in whole.splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows, start + len(whole)


def _ends_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


def everything(analysis: str, array: str) -> bool:
    return True


def scalars_alone(analysis: str, array: str) -> bool:
    return False


def read(folder: Path, wanted: Wanted = everything) -> Recording:
    """The recording in a folder, of its arrays those that are wanted; raises FileNotFoundError where there is none."""
    if not (folder / MANIFEST).is_file():
        raise FileNotFoundError(f"no recording in {folder}: it holds no manifest.json")
    findings = {
        path.name: {step: unpacked((path / f"step_{step:08d}.npz").read_bytes(), partial(wanted, path.name)) for step in steps(folder, path.name)}
        for path in sorted((folder / "findings").glob("*"))
    }
    return Recording(read_manifest(folder), findings)


def read_manifest(folder: Path) -> dict[str, object]:
    """What a folder's manifest says, nothing where it has none; raises ValueError where it is no JSON object."""
    path = folder / MANIFEST
    manifest = json.loads(path.read_text()) if path.is_file() else {}
    if not isinstance(manifest, dict):
        raise ValueError(f"{path} is no manifest of netlapse: it holds a {type(manifest).__name__}, not an object")
    return manifest


def packed(findings: Findings) -> bytes:
    """Arrays and scalars as an npz file's bytes, the same each time; images are files of their own.

    Raises ValueError for an array named like one of ours.
    """
    ours = {
        _SCHEMA: np.array(SCHEMA),
        _NAMES: np.array(list(findings.scalars), np.str_),
        _VALUES: np.array(list(findings.scalars.values()), np.float64),
    }
    if taken := ours.keys() & findings.arrays.keys():
        raise ValueError(f"findings arrays cannot be named {sorted(taken)}: the file keeps its own things under these names")
    buffer = io.BytesIO()
    # numpy's own savez takes the names as keyword arguments, among which some are its own.
    with zipfile.ZipFile(buffer, "w") as file:
        for name, values in (ours | dict(findings.arrays)).items():
            array = io.BytesIO()
            np.lib.format.write_array(array, np.asarray(values), allow_pickle=False)
            file.writestr(zipfile.ZipInfo(f"{name}.npy"), array.getvalue(), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def unpacked(data: bytes, wanted: Callable[[str], bool] = lambda name: True) -> Findings:
    """The inverse of `packed`, exactly, of the arrays that are wanted by their names; raises ValueError for a file of a newer schema."""
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        contents: dict[str, Array] = {name: file[name] for name in file.files if name in _OURS or wanted(name)}
    schema = int(contents.pop(_SCHEMA))  # type: ignore[call-overload]
    if schema > SCHEMA:
        raise ValueError(f"findings are of schema {schema}; this netlapse reads up to {SCHEMA}, take a newer one")
    names, values = contents.pop(_NAMES), contents.pop(_VALUES)
    return Findings(contents, dict(zip(names.tolist(), values.tolist())))


def tabled(columns: Mapping[str, Sequence[object]]) -> str:
    """A table as MLflow's pages read it."""
    return json.dumps({"columns": list(columns), "data": [list(row) for row in zip(*columns.values(), strict=True)]}, default=str)


def write(path: Path, data: bytes) -> None:
    """Write a whole file or none of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(data)
        os.replace(beside, path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
