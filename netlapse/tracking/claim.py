"""Who writes and uploads a spool: one process at a time, known by a lock that ends with it, however it ends."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
from pathlib import Path
from typing import IO

from netlapse.home import home, writable
from netlapse.tracking.names import plain_name

log = logging.getLogger(__name__)

LOCK = ".lock"


def spools() -> list[Path]:
    """The folders of what is waiting to be uploaded, or being written."""
    return sorted(path for path in (home() / "spool").glob("*") if path.is_dir() and not path.name.startswith("."))


def spools_of(run_id: str) -> list[Path]:
    """The spools of one run: one, and another for each process that wrote to the run while the first was held."""
    name = _spool(run_id).name
    return [path for path in spools() if path.name == name or path.name.startswith(f"{name}.")]


def claim(folder: Path) -> IO[str] | None:
    """A file that holds the folder until it is closed or its process ends; None where somebody else holds it.

    Raises FileNotFoundError where there is no such folder, OSError where its file system has no locks.
    """
    while True:
        file = (folder / LOCK).open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file.fileno()), (folder / LOCK).stat()):
                return file
            file.close()  # the folder was uploaded, removed and made anew in between
        except BlockingIOError:
            file.close()
            return None
        except OSError:
            file.close()
            raise


def discard(folder: Path) -> None:
    """Remove a spool; who looks at the same moment sees all of it or nothing."""
    gone = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        folder.rename(gone)
    except OSError as error:
        log.warning("netlapse: all of %s is uploaded, but it cannot be removed: %s", folder, error)
        return
    shutil.rmtree(gone, ignore_errors=True)


def claimed(run_id: str) -> tuple[Path, IO[str] | None]:
    """A spool for this process to write, with what holds it: the run's own, or one beside it where that is held.

    Where the file system has no locks it is the run's own, held by nothing. Raises PermissionError where it cannot be written.
    """
    number = 0
    while True:
        folder = _spool(run_id) if number == 0 else _spool(run_id).with_name(f"{run_id}.{number}")
        writable(folder)
        try:
            if (lock := claim(folder)) is not None:
                return folder, lock
        except FileNotFoundError:
            continue  # uploaded and removed in between
        except OSError:
            return _spool(run_id), None
        number += 1


def _spool(run_id: str) -> Path:
    return home() / "spool" / plain_name("a run", run_id)
