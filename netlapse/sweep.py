"""Many trainings of one command: its jobs, what became of each, and the tables that tell of it.

A job is told from another by what was given for it on the command line, whatever launcher ran it and in which order the words stood: so
a sweep that is gone on with knows what is still to be done. `netlapse.multirun` is what Hydra calls, `netlapse.tracking.sweep` the record.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from netlapse.recording import Recording
from netlapse.tracking.secrecy import scrubbed

FINISHED, FAILED, KILLED, RUNNING = "FINISHED", "FAILED", "KILLED", "RUNNING"
"""What may become of a run; MLflow's words."""

TRAINING = "training"
"""What the failure of a job's training is called in its record."""
NOT_STARTED = "not started"
BY_ITSELF = "its process ended without a word: killed from outside, perhaps because the memory was full"
ASIDE = re.compile(r"[+~]*(resume|tracker|summaries|trainer\.progress)(\.[^=]*)?(=.*)?", re.DOTALL)
"""What may be given for a job and changes nothing of what it finds."""
MAIN = ("training/val", "cost/overhead")
"""What the names of the metrics begin with that the table of children shows beside the objective."""
_RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")


def words(overrides: Sequence[str]) -> tuple[str, ...]:
    """What was given for a job, in one order and without what is aside; secrets are left out."""
    return tuple(sorted(scrubbed(word) for word in overrides if not ASIDE.fullmatch(word)))


def job_key(overrides: Sequence[str]) -> str:
    """16 characters that are the same where the same was given for a job, in any order."""
    return hashlib.sha256(json.dumps(words(overrides)).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Done:
    """A job that an earlier part of the sweep finished, with the last value of its objective, where there was one."""

    run: str
    objective: float | None


@dataclass(frozen=True)
class Job:
    """What a job of a sweep is told.

    parent     the id of the parent run, or the folder of its record
    overrides  what was given for it on the command line
    swept      those of their keys that have several values in this sweep
    folder     where the records of the jobs go; None: into MLflow
    done       the jobs that need not be run, by their key
    """

    parent: str
    overrides: tuple[str, ...]
    swept: frozenset[str] = frozenset()
    folder: str | None = None
    done: Mapping[str, Done] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return job_key(self.overrides)

    @property
    def about(self) -> dict[str, object]:
        """What the record of the job says of it."""
        return {"parent": self.parent, "job": self.key, "overrides": list(words(self.overrides))}

    @property
    def name(self) -> str:
        """What tells it from the others: seed=1 layout=flas."""
        return " ".join(word for word in self.overrides if word.partition("=")[0].lstrip("+") in self.swept) or " ".join(words(self.overrides))


def job_folder(job: Job) -> Path:
    """A folder for the record of a job that no other has, named by what tells it from the others."""
    assert job.folder is not None
    plain = "".join(letter if (letter.isalnum() and letter.isascii()) or letter in "_." else "-" for letter in job.name)[:80].strip("-.")
    place = Path(job.folder) / f"{plain}-{job.key[:8]}"
    number = 1
    while True:
        folder = place if number == 1 else place.with_name(f"{place.name}.{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return folder


_job: Job | None = None


def current() -> Job | None:
    """The job of a sweep that this process is at."""
    return _job


def begin(job: Job | None) -> None:
    """This process is at that job from now on; None: at none."""
    global _job
    _job = job


def follower() -> bool:
    """Whether another process of the same training keeps its record: this one is the second or a later one of several."""
    return any(os.environ.get(name, "0") not in ("", "0") for name in _RANKS)


# --------------------------------------------------------------------------------------------------------- what became


@dataclass(frozen=True, eq=False)
class Child:
    """The run of one job.

    run        its id, or the folder of its record
    key        of the job; several runs may be of one, where it was tried again
    started    in seconds since 1970
    seconds    how long it took; None where it has not ended
    metrics    the last value of each
    why        what it failed of
    recording  brings all that it recorded, when it is called, or with `wanted(analysis, array)` the arrays alone that are wanted, and all
               metrics, which is faster; raises FileNotFoundError where it recorded nothing
    """

    run: str
    key: str
    overrides: tuple[str, ...]
    state: str
    started: float
    seconds: float | None
    metrics: Mapping[str, float]
    why: str | None
    recording: Callable[..., Recording]


@dataclass(frozen=True, eq=False)
class Sweep:
    """A parent and its jobs, when they are through: what a summary is given.

    parent     the id of the parent run, or the folder of its record
    planned    what was given for each job, as far as that is known before they start
    children   all that were started, oldest first
    objective  the metric that the jobs returned; None: none
    """

    parent: str
    planned: tuple[tuple[str, ...], ...]
    children: tuple[Child, ...]
    objective: str | None = None

    @property
    def jobs(self) -> dict[str, tuple[str, ...]]:
        """What was given for each job, by its key."""
        planned = {job_key(overrides): words(overrides) for overrides in self.planned}
        return planned | {child.key: child.overrides for child in self.children if child.key not in planned}

    @property
    def last(self) -> dict[str, Child]:
        """The run that counts of each job that was started: the last that finished, else the last."""
        counts: dict[str, Child] = {}
        for child in self.children:
            if child.state == FINISHED or child.key not in counts or counts[child.key].state != FINISHED:
                counts[child.key] = child
        return counts

    @property
    def missing(self) -> list[str]:
        """The keys of the jobs that have no finished run."""
        return [key for key in self.jobs if key not in self.last or self.last[key].state != FINISHED]


def children_table(sweep: Sweep) -> dict[str, list[object]]:
    """A row per run: what was given that is not the same in all, its state, how long it took, and its main metrics at their last step."""
    children = sweep.children
    shown = sorted({name for child in children for name in child.metrics if name.startswith(MAIN) or name == sweep.objective})
    given = [dict(word.partition("=")[::2] for word in child.overrides) for child in children]
    keys = dict.fromkeys(key for each in given for key in each)
    differing = [key for key in keys if len({each.get(key) for each in given}) > 1]
    return {
        "run": [child.run for child in children],
        **{key: [each.get(key, "") for each in given] for key in differing},
        "state": [child.state for child in children],
        "seconds": [None if child.seconds is None else round(child.seconds, 1) for child in children],
        **{name: [child.metrics.get(name) for child in children] for name in shown},
    }


def failed_table(sweep: Sweep, cause: str | None = None) -> dict[str, list[object]]:
    """A row per job that is not finished; `cause` is why the sweep itself ended, for jobs that were not started."""
    rows = []
    for key in sweep.missing:
        child = sweep.last.get(key)
        if child is None:
            rows.append((" ".join(sweep.jobs[key]), NOT_STARTED, cause or "", "", ""))
        else:
            rows.append((" ".join(child.overrides), child.state, child.why or BY_ITSELF, child.run, "traceback.txt" if child.why else ""))
    columns = ("overrides", "state", "why", "run", "traceback")
    return {name: [row[i] for row in rows] for i, name in enumerate(columns)}


def as_csv(columns: Mapping[str, Sequence[object]]) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(columns)
    rows.writerows(zip(*columns.values()))
    return text.getvalue()


def report(sweep: Sweep, failed: Mapping[str, Sequence[object]], seconds: float) -> str:
    """What became of the sweep, in a line, and a line for each job that is not finished."""
    jobs, missing = len(sweep.jobs), len(sweep.missing)
    lines = [f"\nSweep of {jobs} job{'s' * (jobs != 1)}: {jobs - missing} finished, {missing} not, in {seconds:.0f} s."]
    alike = set.intersection(*map(set, sweep.jobs.values())) if jobs > 1 else set()
    for key, state, why, run in zip(sweep.missing, failed["state"], failed["why"], failed["run"]):
        name = " ".join(word for word in sweep.jobs[key] if word not in alike)
        first = str(why).strip().partition("\n")[0] or "the sweep ended before it"
        lines.append(f"  {str(state).lower()}: {name}: {first}" + f" (run {run})" * bool(run))
    return "\n".join(lines)


def reason(error: object) -> str:
    """What an error is, without secrets."""
    return scrubbed(f"{type(error).__name__}: {error}")


def interrupted(error: BaseException | None) -> bool:
    """Whether a person or a cluster ended what was done; Lightning makes an exit of the first."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt) or (isinstance(error, SystemExit) and error.code == 143):
            return True
        error = error.__cause__ or error.__context__
    return False
