"""Trainings of several processes, run as a program of their own: they fork, and a fault of theirs may hang."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path


def run_apart(program: str, folder: Path, *, seconds: float = 900) -> Path:
    """The folder that `python -m tests.<program>` was given, and has written to; raises TimeoutExpired where it does not end."""
    running = subprocess.Popen(
        [sys.executable, "-m", f"tests.{program}", str(folder)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True, cwd=Path(__file__).parent.parent, env=os.environ | {"NETLAPSE_HOME": str(folder / "home")},
    )  # fmt: skip
    try:
        said, _ = running.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(running.pid, signal.SIGKILL)  # those that were forked from it, too
        raise
    assert running.returncode == 0, said[-4000:]
    return folder
