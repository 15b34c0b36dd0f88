"""Where commands and answers lie: entries beside a record, written by whoever steers and by the training."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from netlapse.steering.orders import TYPED
from netlapse.tracking.folder import MANIFEST, FolderTracker, write
from netlapse.types import Tracker

FOLDER = "steering"
"""Of a record in a folder: where its entries are, each a file named like a tag without `netlapse.`"""

_NAME = re.compile(r"(command(\.\d{1,12}-[0-9a-f]{8})?|answers?)")


class Box(Protocol):
    """The entries of one run. Each call is tried once and takes seconds at most, or raises what its store does.

    address  what is given as `run=` to reach it        run  how its orders name it
    """

    address: str
    run: str

    def read(self) -> dict[str, str]: ...

    def write(self, entries: Mapping[str, str]) -> None: ...

    def delete(self, key: str) -> None: ...


class FolderBox:
    """Entries as files in a record's folder."""

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder).expanduser().absolute()
        self.address, self.run = str(self._folder), self._folder.name

    def read(self) -> dict[str, str]:
        found = {}
        for path in sorted((self._folder / FOLDER).glob("*")):
            if _NAME.fullmatch(path.name):
                with suppress(FileNotFoundError, IsADirectoryError):  # answered and cleared away in between
                    found[f"netlapse.{path.name}"] = path.read_text(errors="replace")
        return found

    def write(self, entries: Mapping[str, str]) -> None:
        for key, text in entries.items():
            write(self._path(key), text.encode())

    def delete(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        name = key.removeprefix("netlapse.")
        if not _NAME.fullmatch(name):
            raise ValueError(f"{key!r} is no entry of commands or answers; expected {TYPED}, {TYPED}.<number>-<id> or an answer's")
        return self._folder / FOLDER / name


def box_of(tracker: Tracker) -> Box:
    """The box beside a tracker's record.

    Raises ValueError for a tracker whose record nobody else can reach, such as one in memory.
    """
    if isinstance(tracker, FolderTracker):
        return FolderBox(tracker.folder)
    run_id, uri = getattr(tracker, "run_id", None), getattr(tracker, "uri", None)
    if isinstance(run_id, str) and isinstance(uri, str):
        from netlapse.tracking.tags import TagBox

        return TagBox(run_id, uri)
    raise ValueError(
        f"SteeringCallback cannot listen at a {type(tracker).__name__}: nobody else reaches its record; "
        "take an MlflowTracker or a FolderTracker, or leave the callback out"
    )


def box_at(run: str, tracking_uri: str | None = None) -> Box:
    """The box of a run's id, or of the folder of a record.

    Raises ValueError for what is neither, and what asking the store raises.
    """
    folder = Path(run).expanduser()
    if folder.is_dir():
        if not (folder / MANIFEST).is_file():
            raise ValueError(f"{folder} is no record of netlapse: it holds no {MANIFEST}")
        return FolderBox(folder)
    if not re.fullmatch(r"[A-Za-z0-9_\-]+", run):
        raise ValueError(f"there is no folder {run}, and a run's id is letters, digits, '_' and '-'")
    from netlapse.tracking.tags import TagBox

    return TagBox(run, tracking_uri)
