"""The MLflow store: which one, whether it answers, and a client of it.

Only `MlflowClient` with explicit run ids: the fluent API keeps a current run per thread, and its asynchronous image
logging can hang the interpreter at exit.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from netlapse.home import home, writable

ANSWER_SECONDS = 5.0
"""How long a server may take to say that it is there."""


def tracking_uri() -> str:
    """`$MLFLOW_TRACKING_URI`, else the local store: an sqlite file in `netlapse.home.home()`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or local_store()


def local_store() -> str:
    return f"sqlite:///{home() / 'mlflow.db'}"


def silence(uri: str) -> str | None:
    """Why nobody answers at this address, asked for at most `ANSWER_SECONDS`; None where somebody does, or it is no server's."""
    if not uri.startswith(("http://", "https://")):
        return None
    try:
        requests.get(f"{uri.rstrip('/')}/health", timeout=ANSWER_SECONDS)
    except requests.exceptions.SSLError:
        return None  # somebody is there; whether he is to be trusted is for MLflow's own settings
    except requests.exceptions.RequestException as error:
        return brief(error)
    return None


def client_for(uri: str) -> MlflowClient:
    """A client of a store that answers.

    A new sqlite store is made under a lock: several processes making one at once corrupt it.
    Raises ConnectionError within seconds where no server answers, and PermissionError where the store cannot be written.
    """
    if (why := silence(uri)) is not None:
        raise ConnectionError(
            f"no MLflow server answers at {uri} ({why}); start it, or unset MLFLOW_TRACKING_URI to use the local store, or take tracker=folder"
        )
    if (folder := sqlite_folder(uri)) is None:
        return MlflowClient(uri)
    with (writable(folder) / ".store.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with _quiet():
            client = MlflowClient(uri)
            client.search_experiments(max_results=1)  # makes the tables, and would tell of each
    return client


def experiment_id(client: MlflowClient, uri: str, name: str) -> str:
    """The id of the experiment of this name, made if need be; a local store's artifacts lie beside it."""
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    beside = sqlite_folder(uri)
    location = beside / "artifacts" / mlflow_key(name).replace("/", "_") if beside else None
    try:
        return str(client.create_experiment(name, artifact_location=location.as_uri() if location else None))
    except MlflowException:  # another process made it in between
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return str(found.experiment_id)


def sqlite_folder(uri: str) -> Path | None:
    """The folder of an sqlite store, absolute; None for any other store."""
    return Path(uri.removeprefix("sqlite:///")).absolute().parent if uri.startswith("sqlite:///") else None


def mlflow_key(name: str) -> str:
    """A name as MLflow takes it as an image key or metric: letters, digits, `_-. /`, at most 120 characters.

    Names that had to be changed end in a checksum of the name itself, so that no two become one.
    """
    clean = re.sub(r"[^A-Za-z0-9_\-./ ]", "_", name)
    clean = re.sub(r"/{2,}", "/", clean.replace("..", "__")).strip("/")
    return name if clean == name and len(name) <= 120 else f"{clean[:110]}-{zlib.crc32(name.encode()):08x}"


def brief(error: BaseException) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {str(error).splitlines()[0][:300] if str(error) else ''}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Only warnings: making the tables tells of each, through loggers that set up their own levels on the way."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.INFO))
    try:
        yield
    finally:
        logging.disable(before)
