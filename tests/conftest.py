"""Every test has a store, a home and random states of its own, and no network."""

from __future__ import annotations

import os
import random
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny networks: threads only wait for each other
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # TensorFlow's own default goes by the CPU: without it there is no channels-first there

# MLflow itself sets them where it is told a store or a run, and Lightning where a strategy is one of several processes; a program that
# inherits Lightning's waits for processes that it takes for started. They must not outlast a test, nor come from outside.
SET_BY_OTHERS = ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID")
SET_BY_OTHERS += ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE")
for name in SET_BY_OTHERS:
    os.environ.pop(name, None)

# What every test draws from, also in a pytest that a test starts. A law that holds for one draw alone is found by another number.
SEED = int(os.environ.setdefault("NETLAPSE_TEST_SEED", "0"))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Before a test's fixtures: what it draws is the same however the tests are ordered and shared among processes."""
    random.seed(SEED)
    np.random.seed(SEED)  # noqa: NPY002 - the global state, which libraries use
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(SEED)
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(SEED)


@pytest.fixture(autouse=True)
def own_place(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    home: Path = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("NETLAPSE_HOME", str(home))
    yield home
    if "mlflow" in sys.modules:
        sys.modules["mlflow"].set_tracking_uri(None)  # Lightning's logger for MLflow sets it for the whole process
    for name in SET_BY_OTHERS:
        os.environ.pop(name, None)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Law: nothing goes out at run time. Connections to this machine are allowed."""
    connect = socket.socket.connect

    def local_only(self: socket.socket, address: object) -> None:
        if self.family != socket.AF_UNIX and isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test tried to connect to {address}")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", local_only)
    return
