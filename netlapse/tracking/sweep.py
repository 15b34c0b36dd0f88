"""The record of a sweep: the parent of its runs, in MLflow or in a folder, and what became of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from netlapse.sweep import (
    BY_ITSELF,
    FAILED,
    FINISHED,
    KILLED,
    RUNNING,
    TRAINING,
    Child,
    Done,
    Sweep,
    as_csv,
    children_table,
    failed_table,
    interrupted,
    job_key,
    reason,
    report,
    words,
)  # fmt: skip
from netlapse.tracking.folder import MANIFEST, FolderTracker, read, read_manifest, scalars_alone
from netlapse.tracking.names import mlflow_key
from netlapse.tracking.secrecy import brief

if TYPE_CHECKING:
    from netlapse.tracking.mlflow import MlflowTracker

log = logging.getLogger(__name__)

SweepTracker: TypeAlias = "MlflowTracker | FolderTracker"
Summary = Callable[[SweepTracker, Sweep], object]
"""Makes something of a sweep that is through, and puts it into the parent's record."""


def has_parent(tracker: type) -> bool:
    """Whether a sweep whose jobs have this tracker can have a parent."""
    if issubclass(tracker, FolderTracker):
        return True  # a sweep of folders need not wait for MLflow
    from netlapse.tracking.mlflow import MlflowTracker

    return issubclass(tracker, MlflowTracker)


@dataclass(frozen=True, eq=False)
class Record:
    """The parent's record while its jobs run; `done` are those that need not be run."""

    tracker: SweepTracker
    parent: str
    done: Mapping[str, Done]
    objective: str | None
    summaries: Mapping[str, Summary]
    started: float

    @classmethod
    def opened(
        cls,
        tracker: SweepTracker,
        planned: Sequence[Sequence[str]],
        title: str,
        command: str,
        *,
        resumed: bool = False,
        objective: str | None = None,
        summaries: Mapping[str, Summary] | None = None,
    ) -> Record:
        """Begin the record of a sweep, or go on with one.

        planned    what is given for each job, as far as that is known
        objective  the metric that the jobs return
        summaries  by name; each is called when the jobs are through

        Raises ValueError where there is a record already and it is not to be gone on with, and where there is no sweep's and it is.
        """
        try:
            parent = str(tracker.folder) if isinstance(tracker, FolderTracker) else tracker.run_id
            known = tracker.manifest.get("sweep")
            if resumed and not (isinstance(known, dict) and "jobs" in known):
                raise ValueError(f"resume={parent} is no record of a sweep; name the parent of its runs, which the sweep told of at its end")
            if not resumed and tracker.manifest:
                raise ValueError(f"{parent} holds a record already; go on with it, with resume={parent}, or name another with tracker.folder=")
            before = [tuple(job) for job in known["jobs"]] if isinstance(known, dict) else []
            jobs = list(dict.fromkeys([*before, *(words(job) for job in planned)]))
            about: dict[str, object] = {} if resumed else {"title": title, "command": command, "params": {"jobs": len(jobs) or "as they come"}}
            tracker.start({**about, "sweep": {"jobs": jobs}})
            finished = [child for child in sweep_of(tracker).last.values() if child.state == FINISHED]
            done = {child.key: Done(child.run, _last(child, objective)) for child in finished}
        except BaseException:
            tracker.close()
            raise
        return cls(tracker, parent, done, objective, summaries or {}, time.time())

    @property
    def folder(self) -> str | None:
        """Where the records of the jobs go; None: into MLflow."""
        return self.parent if isinstance(self.tracker, FolderTracker) else None

    def end(self, ended: BaseException | None) -> None:
        """End it with its tables, its summaries and its state; nothing that goes wrong here changes what became of the jobs.

        ended  what ended the program; None: it came to its end
        """
        tracker = self.tracker
        came_to_its_end = ended is None or (isinstance(ended, SystemExit) and not ended.code)
        failed: bool | None = None if interrupted(ended) else not came_to_its_end
        try:
            if failed is not None:
                end_the_killed(tracker)
            sweep = sweep_of(tracker, self.objective)
            if failed is not None:
                failed = failed or bool(sweep.missing)
            cause = None if came_to_its_end or ended is None else reason(ended.__context__ or ended)
            tables = {"children": children_table(sweep), "failed": failed_table(sweep, cause)}
            for name, columns in tables.items():
                tracker.table(name, columns)
                tracker.document(f"{name}.csv", as_csv(columns))
            for name, summary in self.summaries.items():
                _summarised(name, summary, tracker, sweep)
            print(report(sweep, tables["failed"], time.time() - self.started))
            if sweep.missing:
                print(f"Run what is missing with the same command and resume={self.parent}")
        except Exception as error:
            log.warning("netlapse: the tables of the sweep could not be made: %s", brief(error))
            failed = True if failed is False else failed
        finally:
            tracker.finish(failed=failed)
            print(f"Recorded in {tracker.place}", flush=True)


def _last(child: Child, metric: str | None) -> float | None:
    return None if metric is None else child.metrics.get(metric, child.metrics.get(mlflow_key(metric)))


def _summarised(name: str, summary: Summary, tracker: SweepTracker, sweep: Sweep) -> None:
    try:
        summary(tracker, sweep)
    except Exception as error:
        log.warning("netlapse: summary %r of the sweep failed: %s", name, brief(error), exc_info=log.isEnabledFor(logging.DEBUG))
        tracker.failure(f"summary {name}", brief(error))


def sweep_of(tracker: SweepTracker, objective: str | None = None) -> Sweep:
    """The parent's jobs and runs as they are now."""
    known = tracker.manifest["sweep"]
    assert isinstance(known, dict)
    given = {job_key(job): tuple(job) for job in known["jobs"]}
    if isinstance(tracker, FolderTracker):
        parent = str(tracker.folder)
        children = [_recorded(path.parent) for path in tracker.folder.glob(f"*/{MANIFEST}") if "sweep" in read_manifest(path.parent)]
    else:
        from netlapse.tracking.sweep_runs import children_of

        parent, children = tracker.run_id, children_of(tracker, given)
    return Sweep(parent, tuple(tuple(job) for job in known["jobs"]), tuple(sorted(children, key=lambda child: child.started)), objective)


def end_the_killed(tracker: SweepTracker) -> None:
    """End the runs of jobs whose processes are gone: with what they left in this machine's spool, as failed.

    To be called when the launcher has come back, and so no job runs any more.
    """
    if isinstance(tracker, FolderTracker):
        for path in tracker.folder.glob(f"*/{MANIFEST}"):
            if "failed" not in (manifest := read_manifest(path.parent)) and "sweep" in manifest:
                record = FolderTracker(path.parent)
                record.failure(TRAINING, BY_ITSELF)
                record.finish(failed=True)
    else:
        from netlapse.tracking.sweep_runs import end_running

        end_running(tracker)


def _recorded(folder: Path) -> Child:
    manifest = read_manifest(folder)
    about = manifest["sweep"]
    assert isinstance(about, dict)
    state = {True: FAILED, False: FINISHED, None: KILLED}[manifest["failed"]] if "failed" in manifest else RUNNING  # type: ignore[index]
    failures = manifest.get("failures", [])
    assert isinstance(failures, list)
    whys = [str(failure["message"]) for failure in failures if failure["what"] == TRAINING]
    started = float(about["started"])
    return Child(
        run=str(folder),
        key=str(about["job"]),
        overrides=tuple(about["overrides"]),
        state=state,
        started=started,
        seconds=(folder / MANIFEST).stat().st_mtime - started if state != RUNNING else None,
        metrics={name: float(series.values[-1]) for name, series in read(folder, scalars_alone).scalars.items()},
        why=whys[-1] if whys else None,
        recording=partial(read, folder),
    )
