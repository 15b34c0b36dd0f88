"""What Hydra is asked to do for a sweep: to make its parent before the first job, and to tell each job whose it is.

Hydra calls a callback when several runs start, and in each job, in whatever process a launcher runs it. It calls none at the end if any
job failed: so a program that may turn out to be a sweep is run by `swept`, which closes the parent however it ends.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf

from netlapse import sweep
from netlapse.sweep import Job
from netlapse.tracking.folder import write
from netlapse.tracking.secrecy import scrubbed

if TYPE_CHECKING:
    from netlapse.tracking.sweep import Record

log = logging.getLogger(__name__)

EXTRAS = {
    "launcher": {"joblib": "joblib", "submitit_local": "submitit", "submitit_slurm": "submitit", "ray": "ray"},
    "sweeper": {"optuna": "optuna"},
}
"""The extra of netlapse that brings each of Hydra's launchers and sweepers."""


_record: Record | None = None
"""Of the sweep that this process is the parent of."""


class Parent(Callback):  # type: ignore[misc]
    """Makes the parent of a sweep, with the store that its jobs write to, and tells each job of it.

    It travels to the jobs' processes with what it knows, as a pickle: a cluster need not forward any variable.
    """

    def __init__(self) -> None:
        self._job: Job | None = None

    def on_multirun_start(self, config: DictConfig, **kwargs: object) -> None:
        # Hydra makes a warning of what a callback raises, and goes on; an exit it lets through.
        try:
            self._job = _begun(config)
        except Exception as error:
            log.debug("netlapse: the sweep could not begin", exc_info=True)
            raise SystemExit(f"netlapse: the sweep cannot begin: {scrubbed(str(error.__cause__ or error))}") from error

    def on_job_start(self, config: DictConfig, **kwargs: object) -> None:
        if self._job is not None:
            sweep.begin(replace(self._job, overrides=tuple(config.hydra.overrides.task)))

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: object) -> None:
        sweep.begin(None)


class Outcomes(Callback):  # type: ignore[misc]
    """Leaves what became of each job in the folder that the jobs share, `answers`, for who waits for all of them: see `outcomes`."""

    def on_multirun_start(self, config: DictConfig, **kwargs: object) -> None:
        if config.answers is not None:
            write(Path(config.answers) / "jobs.txt", json.dumps(planned(config)).encode())

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: object) -> None:
        if config.answers is not None:
            failed = job_return.status == JobStatus.FAILED
            said = {"job": list(config.hydra.overrides.task), "why": sweep.reason(job_return._return_value) if failed else None}
            write(Path(config.answers) / f"outcome-{uuid.uuid4().hex}.txt", json.dumps(said).encode())


def outcomes(answers: Path) -> list[tuple[tuple[str, ...], str | None]]:
    """What was given for each job, and why it failed, None where it did not, of those that `Outcomes` told of in this folder."""
    told = [json.loads(path.read_text()) for path in sorted(answers.glob("outcome-*.txt"))]
    ended = {sweep.words(one["job"]): one["why"] for one in told}
    jobs = json.loads((answers / "jobs.txt").read_text()) if (answers / "jobs.txt").is_file() else []
    unheard = {sweep.words(job): sweep.BY_ITSELF for job in jobs if sweep.words(job) not in ended}
    return [*ended.items(), *unheard.items()]


def swept(program: Callable[[], object]) -> None:
    """Run a program of Hydra's; where it turns out to be a sweep, end its parent with what became of the jobs, however it ends.

    Raises SystemExit for a launcher or sweeper whose package is not installed, naming the extra that brings it.
    """
    global _record
    installed(sys.argv[1:])
    ended: BaseException | None = None
    try:
        program()
    except BaseException as error:
        ended = error
        raise
    finally:
        sweep.begin(None)
        if _record is not None:
            record, _record = _record, None
            record.end(ended)


def installed(arguments: Sequence[str]) -> None:
    """Raises SystemExit, naming the extra, for a launcher or sweeper of Hydra's that is asked for and not installed."""
    for word in arguments:
        key, _, value = word.partition("=")
        kind = key.removeprefix("hydra/")
        extra = EXTRAS.get(kind, {}).get(value) if key.startswith("hydra/") else None
        if extra is not None and not _is_there(f"hydra_plugins.hydra_{extra}_{kind}"):
            raise SystemExit(f"netlapse: {word} needs a package that is not installed: pip install 'netlapse[{extra}]'")


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package that it would be in
        return False


def planned(config: DictConfig) -> list[list[str]]:
    """What is given for each job, where Hydra's own sweeper makes them; another's are known when they come."""
    if not str(config.hydra.sweeper._target_).endswith("BasicSweeper"):
        return []
    return [job for batch in BasicSweeper.split_arguments(_given(config), None) for job in batch]


# --------------------------------------------------------------------------------------------------- beginning and end


def _begun(config: DictConfig) -> Job | None:
    """Open the parent; None, with a warning, for a tracker that is not netlapse's. Exits where nothing is left to be done."""
    from netlapse.tracking.sweep import Record, has_parent  # MLflow, for which a single run into a folder need not wait

    global _record
    kind = get_class(config.tracker._target_)
    if not has_parent(kind):
        log.warning("netlapse: the runs of this sweep have no parent: it is kept in MLflow or a folder, and the tracker is %s", kind.__name__)
        return None
    given, jobs = _given(config), planned(config)
    swept_words = [override for override in given if override.is_sweep_override()]
    shown = scrubbed(" ".join(str(override.input_line) for override in swept_words))
    title = f"sweep: {config.name}" if config.name else f"sweep of {shown}, {time.strftime('%Y-%m-%d %H:%M:%S')}"
    summaries = {str(name): instantiate(summary) for name, summary in (config.summaries or {}).items()}
    tracker, resumed = tracker_of(config)
    _record = Record.opened(tracker, jobs, title, " ".join(sys.argv), resumed=resumed, objective=config.objective, summaries=summaries)
    if jobs and all(sweep.job_key(job) in _record.done for job in jobs):
        print(f"netlapse: all {len(jobs)} jobs of sweep {_record.parent} are finished; nothing is run, and its summary made anew")
        raise SystemExit(0)
    keys = frozenset(override.get_key_element().lstrip("+") for override in swept_words)
    return Job(_record.parent, (), keys, _record.folder, _record.done)


def tracker_of(config: DictConfig) -> tuple[Any, bool]:
    """The parent's tracker, and whether its record is gone on with.

    Raises ValueError where the jobs would not share one folder, and where `resume` names another than the tracker's.
    """
    resume = config.resume
    if "folder" not in config.tracker:
        return (instantiate(config.tracker), False) if resume is None else (instantiate(config.tracker, run_id=str(resume), own=True), True)
    told = str(OmegaConf.to_container(config.tracker, resolve=False)["folder"])  # type: ignore[call-overload, index]
    if "${" in told:
        raise ValueError(f"tracker.folder is {told!r}; of a sweep it is one folder, in which each job gets one of its own: name it without ${{...}}")
    if resume is not None and _absolute(resume) != _absolute(told):
        raise ValueError(f"resume={resume} and tracker.folder={told} are not the same folder; a sweep goes on in the folder of its record")
    return instantiate(config.tracker), resume is not None


def _absolute(folder: object) -> Path:
    return Path(str(folder)).expanduser().absolute()


def _given(config: DictConfig) -> list[Override]:
    words = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    overrides: list[Override] = parser.parse_overrides([*words, *config.hydra.overrides.task])
    return overrides
