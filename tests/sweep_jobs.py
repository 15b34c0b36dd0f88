"""A training that takes no time and ends as `$FATES` says of its seed: all else of a sweep is what it is for a user."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from netlapse.data.dataset import Dataset
from netlapse.sweep import Sweep
from netlapse.types import Findings, Tracker

OVERRIDES = [
    "data=digits", "data._target_=tests.sweep_jobs.data", "~data.test_fraction", "~data.seed", "callback=none",
    "model._target_=tests.sweep_jobs.network", "model._partial_=false", "~model.dropout", "~model.hidden",
    "model=mlp_tiny", "framework.fit._target_=tests.sweep_jobs.fit", "framework.seed._target_=tests.sweep_jobs.seeded", "framework.job=null",
]  # fmt: skip
STEPS = 6


def data() -> Dataset:
    """Two inputs: scikit-learn, which brings the digits, takes each process longer to import than all the rest."""
    inputs, labels = np.zeros((2, 3), np.float32), np.array([0, 1])
    return Dataset("two", inputs, labels, inputs, labels, ("a", "b"))


def network() -> object:
    return object()


def seeded(seed: int) -> None:
    pass


def found(seed: int, step: int) -> Findings:
    rng = np.random.default_rng([seed, step])
    return Findings(
        arrays={f"profile/{layer}": rng.normal(size=(5, 40)) for layer in ("a", "b", "c")},
        scalars={"training/val_accuracy": seed + step / 100, "nap/sparsity/a": float(rng.random())},
        images={"topomap/a": rng.integers(0, 255, (20, 20, 3), dtype=np.uint8)},
    )


def fit(network: object, data: object, *, callbacks: object, metrics: Callable[..., None], seed: int, **options: Any) -> None:
    tracker: Tracker = metrics.__self__  # type: ignore[attr-defined]
    tracker.describe({"layers": [{"name": "a"}], "step_unit": "epoch"})
    fate = json.loads(os.environ.get("FATES", "{}")).get(str(seed))
    for step in range(STEPS):
        tracker.log("training", step, found(seed, step))
        metrics({"loss": float(step)}, step)
        if step == 2 and fate == "fails":
            raise LookupError(f"no luck with seed {seed}\nnor any reason")
        if step == 2 and fate == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if step == 2 and fate == "waits":
            Path(os.environ["NETLAPSE_HOME"], "waiting").touch()
            time.sleep(120)


def told(tracker: Tracker, sweep: Sweep) -> None:
    """A summary: what it is given, in a document."""
    rows = [[child.run, list(child.overrides), child.state, list(child.recording().steps)] for child in sweep.children]
    tracker.document("told.json", json.dumps({"parent": sweep.parent, "children": rows}))


def broken(tracker: Tracker, sweep: Sweep) -> None:
    raise LookupError("no luck with the summary")
