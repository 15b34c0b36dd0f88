"""The tags of an MLflow run as entries in which commands and answers travel, each call tried once."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import RunTag
from mlflow.exceptions import MlflowException

from netlapse.tracking.secrecy import discreet
from netlapse.tracking.store import is_server, said
from netlapse.tracking.store import tracking_uri as usual

_PREFIX = "netlapse."

_SETTLED = 1.0
"""Seconds after which a file's time tells two writes apart, on any file system."""


class TagBox:
    """A `netlapse.steering.boxes.Box` of a run's tags.

    A server is asked by REST and not through MLflow's client, which asks one that is silent again and again, for minutes. Any other
    store is a file or a database, and asked through that client; an sqlite file only where it was written to since it was last asked.
    """

    def __init__(self, run_id: str, tracking_uri: str | None = None) -> None:
        self._uri = tracking_uri or usual()
        self.address = self.run = run_id
        self._client = None if is_server(self._uri) else MlflowClient(self._uri)
        self._seen: tuple[object, dict[str, str]] | None = None

    def read(self) -> dict[str, str]:
        written = self._written()
        if self._seen is not None and written == self._seen[0]:
            return dict(self._seen[1])
        entries = self._read()
        self._seen = None if written is None else (written, dict(entries))
        return entries

    def _written(self) -> object:
        """What changes whenever something is written to an sqlite file; None where that cannot be told: for any other store, and just after."""
        if not self._uri.startswith("sqlite:///"):
            return None
        path = Path(self._uri.removeprefix("sqlite:///"))
        files = [file.stat() for file in (path, path.with_name(f"{path.name}-wal")) if file.exists()]
        if not files or max(file.st_mtime for file in files) > time.time() - _SETTLED:
            return None
        return [(file.st_mtime_ns, file.st_size, file.st_ino) for file in files]

    def _read(self) -> dict[str, str]:
        with discreet():
            if self._client is not None:
                tags = dict(self._client.get_run(self.run).data.tags)
            else:
                run = said(self._uri, "GET", "runs/get", params={"run_id": self.run})["run"]
                tags = {tag["key"]: tag.get("value", "") for tag in run["data"].get("tags", ())}
        return {key: value for key, value in tags.items() if key.startswith(_PREFIX)}

    def write(self, entries: Mapping[str, str]) -> None:
        with discreet():
            if self._client is not None:
                self._client.log_batch(self.run, tags=[RunTag(key, value) for key, value in entries.items()])
            else:
                tags = [{"key": key, "value": value} for key, value in entries.items()]
                said(self._uri, "POST", "runs/log-batch", json={"run_id": self.run, "tags": tags})

    def delete(self, key: str) -> None:
        try:
            with discreet():
                if self._client is not None:
                    self._client.delete_tag(self.run, key)
                else:
                    said(self._uri, "POST", "runs/delete-tag", json={"run_id": self.run, "key": key})
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":  # gone already is what was wanted
                raise
