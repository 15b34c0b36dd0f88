"""A time-lapse of a neural network learning; importing this imports no framework."""

from __future__ import annotations

from pathlib import Path as _Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from netlapse.recording import Recording
    from netlapse.steering.orders import Answer

__version__ = "0.1.0"
__all__ = ["load", "steer"]

# In a clone, `callbacks/`, `analysis/` and `conf/` lie beside this folder; an installed package maps them (pyproject.toml).
_root = _Path(__file__).resolve().parent.parent
if (_root / "pyproject.toml").is_file() and (_root / "callbacks").is_dir():
    __path__.append(str(_root))


def load(run_id: str, tracking_uri: str | None = None) -> Recording:
    """Everything a run recorded, as arrays over steps; see `netlapse.tracking.mlflow.load`."""
    from netlapse.tracking.mlflow import load as load_run

    return load_run(run_id, tracking_uri)


def steer(run_id: str, command: str, tracking_uri: str | None = None, *, wait: float | None = 60.0) -> Answer | None:
    """Tell a training what to do, "pause" or "lr=0.01", and return what it answers; see `netlapse.tracking.steer.steer`."""
    from netlapse.tracking.steer import steer as steer_run

    return steer_run(run_id, command, tracking_uri, wait=wait)
