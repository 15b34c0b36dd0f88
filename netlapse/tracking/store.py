"""The MLflow store: which one, whether it answers, and a client of it.

Only `MlflowClient` with explicit run ids: the fluent API keeps a current run per thread, and its asynchronous image
logging can hang the interpreter at exit.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request, verify_rest_response
from requests import Response

from netlapse.home import home, writable
from netlapse.tracking.names import mlflow_key
from netlapse.tracking.secrecy import brief, scrubbed

ANSWER_SECONDS = 5.0
"""How long a server may take to answer the question whether it works."""

_BROKEN = (408, 429)  # what MLflow's client asks again after, as after every 5xx


def tracking_uri() -> str:
    """`$MLFLOW_TRACKING_URI`, else the local store: an sqlite file in `netlapse.home.home()`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or local_store()


def local_store() -> str:
    return f"sqlite:///{home() / 'mlflow.db'}"


def silence(uri: str) -> str | None:
    """Why no server works at this address, asked for at most `ANSWER_SECONDS`; None where one does, or it is no server's.

    It is asked what MLflow itself would ask, once: a server may call itself healthy and refuse everything else, and MLflow's
    client then goes on asking for four minutes. Who is turned away by a server that works hears so from MLflow.
    """
    if not is_server(uri):
        return None
    started = time.monotonic()
    try:
        status = ask(uri, "GET", "experiments/search", params={"max_results": 1})
    except Exception as error:  # no name, no route, no answer, no certificate, no address
        waited = time.monotonic() - started
        return brief(error) if waited < ANSWER_SECONDS else f"no answer within {waited:.0f} s"
    return f"it answers {status}" if status in _BROKEN or status >= 500 else None


def ask(uri: str, method: str, call: str, **content: object) -> int:
    """The HTTP status of one call of MLflow's REST API with MLflow's own credentials, tried once.

    Raises MlflowException where there is no answer within `ANSWER_SECONDS`.
    """
    return int(_asked(uri, method, call, **content).status_code)


def said(uri: str, method: str, call: str, **content: object) -> dict[str, Any]:
    """What one call of MLflow's REST API answers, tried once.

    Raises MlflowException where it is refused or there is no answer within `ANSWER_SECONDS`.
    """
    answer: dict[str, Any] = verify_rest_response(_asked(uri, method, call, **content), call).json()  # type: ignore[no-untyped-call]
    return answer


def _asked(uri: str, method: str, call: str, **content: object) -> Response:
    credentials = get_default_host_creds(uri)  # type: ignore[no-untyped-call]
    answer: Response = http_request(  # type: ignore[no-untyped-call]
        credentials, f"/api/2.0/mlflow/{call}", method, max_retries=0, timeout=ANSWER_SECONDS, raise_on_status=False, **content
    )
    return answer


def is_server(uri: str) -> bool:
    return uri.startswith(("http://", "https://"))


def client_for(uri: str) -> MlflowClient:
    """A client of a store that answers.

    A new sqlite store is made under a lock: several processes making one at once corrupt it.
    Raises ConnectionError within seconds where no server works, and PermissionError where the store cannot be written.
    """
    if (why := silence(uri)) is not None:
        raise ConnectionError(
            f"no MLflow server answers at {scrubbed(uri)} ({why}); start it, or unset MLFLOW_TRACKING_URI to use the local store, "
            "or take tracker=folder"
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


@contextmanager
def _quiet() -> Iterator[None]:
    """Only warnings: making the tables tells of each, through loggers that set up their own levels on the way."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.INFO))
    try:
        yield
    finally:
        logging.disable(before)
