"""Where netlapse is and how it is called there, and the one absolute place where it keeps what it makes when nobody says otherwise."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def home() -> Path:
    """`$NETLAPSE_HOME`, else `netlapse` in the user's data folder (`$XDG_DATA_HOME` or `~/.local/share`); it need not exist."""
    chosen = os.environ.get("NETLAPSE_HOME")
    if chosen:
        return Path(chosen).expanduser().absolute()
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share").expanduser().absolute() / "netlapse"


def command(name: str) -> str:
    """The command of this name, from where this process runs: `./run sync` in a clone."""
    script = Path(__file__).resolve().parents[1] / "run"
    if not script.is_file():  # installed, not a clone
        return f"{sys.executable} -m netlapse.tracking.{name}"
    return f"./run {name}" if Path.cwd() == script.parent else f"{script} {name}"


def writable(folder: Path) -> Path:
    """The folder, made if need be; raises PermissionError, saying what to set, where nothing can be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial = folder / f".trial-{os.getpid()}"
        trial.write_bytes(b"")
        trial.unlink()
    except OSError as error:
        raise PermissionError(
            f"cannot write to {folder} ({error.strerror or error}); make it writable, or name another place (NETLAPSE_HOME for all "
            "that netlapse keeps, MLFLOW_TRACKING_URI for the store)"
        ) from error
    return folder
