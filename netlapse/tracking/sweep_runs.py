"""The runs of a sweep's jobs in MLflow, whose parent is a run too."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from functools import partial

from mlflow import MlflowClient
from mlflow.entities import Run

from netlapse.sweep import BY_ITSELF, FAILED, RUNNING, TRAINING, Child
from netlapse.tracking.claim import spools_of
from netlapse.tracking.mlflow import JOB, OVERRIDES, PARENT, MlflowTracker, load
from netlapse.tracking.secrecy import discreet
from netlapse.tracking.store import client_for
from netlapse.tracking.sync import upload

log = logging.getLogger(__name__)

_TAG_OF_FAILURE = f"netlapse.failure.{TRAINING}"


def children_of(tracker: MlflowTracker, given: Mapping[str, tuple[str, ...]]) -> list[Child]:
    """The runs of a parent's jobs as they are now; `given` is what was given for each job, by its key."""
    with discreet():
        return [_child(run, tracker.uri, given) for run in runs_of(client_for(tracker.uri), tracker.run_id)]


def end_running(tracker: MlflowTracker) -> None:
    """End the runs of a parent that still run, with what they left in this machine's spool, as failed."""
    client = client_for(tracker.uri)
    for run in runs_of(client, tracker.run_id):
        if run.info.status == RUNNING:
            _end(client, tracker.uri, str(run.info.run_id))


def _end(client: MlflowClient, uri: str, run_id: str) -> None:
    for spool in spools_of(run_id):
        try:
            upload(spool, uri=uri)
        except Exception as error:  # what is left stays, for `./run sync`
            log.warning("netlapse: what run %s left in %s was not uploaded: %s", run_id, spool, error)
    client.set_tag(run_id, _TAG_OF_FAILURE, BY_ITSELF)
    client.set_terminated(run_id, FAILED)


def runs_of(client: MlflowClient, parent: str) -> list[Run]:
    """All runs whose parent it is, in whatever experiment."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    found: list[Run] = []
    token = None
    while True:
        page = client.search_runs(experiments, f"tags.`{PARENT}` = '{parent}'", max_results=1000, page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def _child(run: Run, uri: str, given: Mapping[str, tuple[str, ...]]) -> Child:
    tags, info = run.data.tags, run.info
    key = tags.get(JOB, "")
    overrides = given.get(key) or tuple(json.loads(tags.get(OVERRIDES, "[]")))  # a tag has room for a few
    return Child(
        run=str(info.run_id),
        key=key,
        overrides=overrides,
        state=str(info.status),
        started=info.start_time / 1000,
        seconds=(info.end_time - info.start_time) / 1000 if info.end_time else None,
        metrics=dict(run.data.metrics),
        why=tags.get(_TAG_OF_FAILURE),
        recording=partial(load, str(info.run_id), uri),
    )
