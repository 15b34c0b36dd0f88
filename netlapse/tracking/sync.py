"""Upload what is left in the local spool, each thing once: what `./run sync` does, and every new training by itself.

Something is left where a server was away or a process was killed. A spool that a living process writes is left alone.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

from netlapse.home import command as command
from netlapse.home import home
from netlapse.tracking.claim import claim, discard, spools
from netlapse.tracking.folder import TARGET, read_manifest
from netlapse.tracking.secrecy import brief, discreet, scrubbed
from netlapse.tracking.store import client_for, silence, tracking_uri
from netlapse.tracking.uploads import Uploads, status

log = logging.getLogger(__name__)


def upload(folder: str | Path, *, uri: str | None = None) -> str:
    """Upload what a spool folder holds and its run does not; returns the run id and removes the folder.

    uri  the run's store, with the password that a spool does not keep; None: `$MLFLOW_TRACKING_URI` where it names the same
         store, else what the spool names

    A run that netlapse made is ended, with what is known of how its training went: KILLED where it never came to an end.
    Raises FileNotFoundError where the folder is not a spool, BlockingIOError where a living process holds it,
    ConnectionError where the server does not work, and what MLflow raises where it refuses something; then the folder stays.
    """
    folder = Path(folder).expanduser().absolute()
    target = _target(folder)
    try:
        lock = claim(folder)
    except FileNotFoundError:
        raise FileNotFoundError(f"{folder} is gone: another process has uploaded it") from None
    except OSError as error:
        raise OSError(f"{folder} cannot be locked ({brief(error)}), and another process may be writing it; move it to a disk with locks") from error
    if lock is None:
        raise BlockingIOError(f"{folder} is being written or uploaded by another process; wait for its end")
    with lock, discreet():
        target = _target(folder)  # it may have been written in between
        run_id, place = str(target["run_id"]), uri or _with_password(str(target["uri"]))
        uploads = Uploads(client_for(place), place, run_id, folder)
        uploads.everything()
        if target["owned"]:
            uploads.end(status(read_manifest(folder).get("failed")))
        discard(folder)
    return run_id


def main(arguments: Sequence[str]) -> int:
    """Upload the spools named, or all there are, telling of each in a line; 1 where something could not be uploaded, else 0."""
    folders = [Path(argument) for argument in arguments] or spools()
    if not folders:
        print(f"nothing is left to upload in {home() / 'spool'}")
    left, silent = False, dict[str, str]()
    for folder in folders:
        line, failed = _synced(folder, silent)
        print(line, flush=True)
        left |= failed
    return int(left)


def in_background(uri: str) -> threading.Thread | None:
    """Upload what earlier processes left for this store, in a thread that nobody waits for; None where there is nothing."""
    left = [folder for folder in spools() if _is_for(folder, uri)]
    if not left:
        return None
    thread = threading.Thread(target=_quietly, args=(left, uri), name="netlapse-sync", daemon=True)
    thread.start()
    return thread


def _synced(folder: Path, silent: dict[str, str]) -> tuple[str, bool]:
    """What to tell of a spool, and whether something of it is left; a server that was found silent is not asked again."""
    try:
        uri = _with_password(str(_target(folder)["uri"]))
        name = f"run {_target(folder)['run_id']}"
        if uri not in silent and (why := silence(uri)) is not None:
            silent[uri] = why
        if uri in silent:
            raise ConnectionError(f"no MLflow server answers at {scrubbed(uri)} ({silent[uri]})")
        upload(folder, uri=uri)
    except BlockingIOError:
        return f"{name}: left alone, another process is writing or uploading it", False
    except Exception as error:
        return f"{folder}: kept, {brief(error)}", True
    return f"{name}: uploaded to {scrubbed(uri)}", False


def _quietly(folders: Iterable[Path], uri: str) -> None:
    for folder in folders:
        try:
            log.info("netlapse: run %s, which an earlier process left, is uploaded", upload(folder, uri=uri))
        except (BlockingIOError, FileNotFoundError):
            continue  # another process's
        except Exception as error:  # law: nothing we do can end a training
            log.warning(
                "netlapse: what an earlier process left in %s could not be uploaded (%s). Try: %s; or delete it if nobody wants it",
                folder,
                brief(error),
                command("sync"),
            )


def _is_for(folder: Path, uri: str) -> bool:
    try:
        return _target(folder)["uri"] == scrubbed(uri)
    except (OSError, ValueError):
        return False


def _target(folder: Path) -> dict[str, object]:
    """Which run of which store a spool is for, and whether netlapse made it."""
    if not (folder / TARGET).is_file():
        raise FileNotFoundError(f"{folder} is no spool of netlapse: it holds no {TARGET}; spools are in {home() / 'spool'}")
    target = json.loads((folder / TARGET).read_text())
    if not isinstance(target, dict) or not {"uri", "run_id", "owned"} <= target.keys():
        raise ValueError(f"{folder / TARGET} does not name a store and a run; delete the folder if nobody wants it")
    return target


def _with_password(uri: str) -> str:
    """The address with what a spool does not keep of it, where the environment names the same store."""
    chosen = tracking_uri()
    return chosen if scrubbed(chosen) == uri else uri


if __name__ == "__main__":
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # nobody's own logging is in this process: it need not try for minutes
    sys.exit(main(sys.argv[1:]))
