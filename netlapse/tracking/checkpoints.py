"""Saved weights of observed steps: where they are, and what they were when they were written."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from netlapse.home import writable


class Checkpoints:
    """A folder of checkpoints, one per step, named `step_00000012<suffix>`.

    saved  step -> {"path", "sha256"}, for the manifest

    Raises PermissionError where the folder cannot be written.
    """

    def __init__(self, folder: str | Path, suffix: str) -> None:
        self.folder = writable(Path(folder).expanduser().absolute())
        self.suffix = suffix
        self.saved: dict[str, dict[str, str]] = {}

    def path(self, step: int) -> Path:
        return self.folder / f"step_{step:08d}{self.suffix}"

    def save(self, step: int, write: Callable[[Path], None]) -> Path:
        """Have `write` write the step's file, and take it in once it is whole."""
        path = self.path(step)
        partial = self.folder / f".partial-{path.name}"
        try:
            write(partial)
            digest = hashlib.sha256(partial.read_bytes()).hexdigest()
            os.replace(partial, path)
            self.saved[str(step)] = {"path": str(path), "sha256": digest}
        finally:
            partial.unlink(missing_ok=True)
        return path
