"""The programs behind `./run train` and `./run checkpoints`: read a config, build what it names, hand it on.

Nothing here knows a framework: the config group `framework` names the functions that do.
"""

from __future__ import annotations

import functools
import gc
import logging
import shlex
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any, TypeVar

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException
from hydra.types import RunMode
from hydra.utils import get_method, instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from netlapse import sweep
from netlapse.data.dataset import Dataset
from netlapse.home import home
from netlapse.multirun import swept
from netlapse.recording import Recording
from netlapse.schedule import Schedule, shortened
from netlapse.tracking.folder import FolderTracker
from netlapse.tracking.memory import MemoryTracker
from netlapse.tracking.secrecy import scrubbed
from netlapse.types import Tracker

T = TypeVar("T")
R = TypeVar("R")

log = logging.getLogger(__name__)

# Hydra notes each sweep in a file; it belongs where netlapse keeps things, and not where somebody happens to be.
OmegaConf.register_new_resolver("netlapse_home", lambda: str(home()), replace=True)


def train() -> None:
    """Train and observe, once or, with -m, as a sweep; prints what was recorded, where, and how to see it."""
    swept(_train)


@hydra.main(version_base="1.3", config_path="pkg://netlapse.conf", config_name="train")
def _train(cfg: DictConfig) -> float | None:
    return explained(run_training, cfg)


@hydra.main(version_base="1.3", config_path="pkg://netlapse.conf", config_name="checkpoints")
def checkpoints(cfg: DictConfig) -> None:
    """Train and save a checkpoint at each scheduled step, without analysis; prints where they are."""
    explained(run_checkpoints, cfg)


def run_training(cfg: DictConfig) -> float | None:
    """What `train` does, of a config composed by anybody; returns the last value of the metric that `objective` names.

    A job of a sweep that was finished before is not run again.
    """
    started, job = time.perf_counter(), sweep.current()
    if job is None and cfg.resume is not None:
        raise ValueError(f"resume={cfg.resume} goes on with a sweep; repeat the sweep's command, with -m, and add it")
    if job is None and HydraConfig.initialized() and (varied := HydraConfig.get().sweeper.get("params")):
        print(f"One run: with -m, experiment={HydraConfig.get().runtime.choices.get('experiment')} varies {', '.join(varied)}.", flush=True)
    if job is not None and (done := job.done.get(job.key)) is not None:
        print(f"Skipped, as it is finished: {job.name} (run {done.run})", flush=True)
        return done.objective
    try:
        data, network = _data_and_network(cfg)
        probe = instantiate(cfg.probe)(data) if cfg.callback else None
    except Exception as error:
        if job is not None:
            _failed_before(cfg, job, error)
        raise
    tracker = _tracker(cfg, job)
    failed: bool | None = True
    try:
        params = _params(cfg)
        title = cfg.name or f"{params['model']} on {data.name}, {job.name if job else time.strftime('%Y-%m-%d %H:%M:%S')}"
        tracker.start({"title": title, "data": data.name, "params": params, **_of_sweep(job)})
        tracker.document("config.yaml", OmegaConf.to_yaml(cfg))  # unresolved: a reanalysis may replace what others refer to
        callbacks = []
        if probe is not None:
            kept = tracker.checkpoint_folder if cfg.checkpoint.keep else None
            callbacks.append(instantiate(cfg.callback)(probe=probe, tracker=tracker, checkpoints=kept))
        if cfg.steer and cfg.framework.get("steering"):  # a training of the user's own need not have one
            callbacks.append(instantiate(cfg.framework.steering)(run=tracker))
        with _one_job(cfg, job):
            instantiate(cfg.framework.fit)(network, data, callbacks=callbacks, metrics=tracker.metrics, **_chosen(cfg), **_trainer(cfg))
        returned = None if cfg.objective is None else last_value(tracker.recording(), str(cfg.objective))
        failed = False
    except (KeyboardInterrupt, SystemExit):
        failed = None
        raise
    except Exception as error:
        _tell(tracker, error)
        raise
    finally:
        tracker.finish(failed=failed)
    print(summary(tracker.recording(), tracker.place, time.perf_counter() - started))
    return returned


def run_checkpoints(cfg: DictConfig) -> None:
    """What `checkpoints` does, of a config composed by anybody."""
    data, network = _data_and_network(cfg)
    schedule: Schedule = instantiate(cfg.schedule)
    folder = Path(cfg.folder) if cfg.folder else home() / "checkpoints" / time.strftime("%Y-%m-%d_%H-%M-%S")
    callback = instantiate(cfg.callback)(folder=folder, schedule=schedule)
    instantiate(cfg.framework.fit)(network, data, callbacks=[callback], **_chosen(cfg), **_trainer(cfg))
    saved = sorted(callback.checkpoints.saved, key=int)
    if not saved:
        raise SystemExit(f"netlapse: the schedule was due at no step of this training; no checkpoint in {folder}")
    print(f"\n{len(saved)} checkpoints, of the {schedule.unit}s {', '.join(saved)}, in\n  {folder}")


def import_for(function: str) -> None:
    """Import what a function that a config names takes, without looking for garbage in it, then or later.

    Importing torch makes half a million objects, all of them in use to the end. Looking through them while they are made takes a sixth of
    the time of importing, each time later 0.4 s, and at the end of the process 1.5 s. What cannot be imported is told of by who calls it,
    with the key of the config.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        with suppress(Exception):
            get_method(function)
    finally:
        if not gc.get_freeze_count():  # once: what an earlier job of this process left behind is not to be kept
            gc.freeze()
        if collecting:
            gc.enable()


def _one_job(cfg: DictConfig, job: sweep.Job | None) -> AbstractContextManager[None]:
    """What a framework needs around the training of a job of a sweep: it is told the words that run this job alone."""
    made: AbstractContextManager[None]
    if job is None or cfg.framework.get("job") is None:
        made = nullcontext()
    else:
        hydra_config = HydraConfig.get()
        folders = [source.path for source in hydra_config.runtime.config_sources if source.provider == "command-line"]
        found = [word for word in hydra_config.overrides.hydra if word.lstrip("+").startswith("hydra.searchpath")]
        words = [*(word for folder in folders for word in ("--config-dir", folder)), *job.overrides, *found, "hydra.mode=RUN", "resume=null"]
        made = instantiate(cfg.framework.job)(words)
    return made


def last_value(recording: Recording, metric: str) -> float:
    """A metric at the last step it has; raises ValueError, with those there are, where it was not recorded."""
    scalars = recording.scalars
    if metric not in scalars:
        raise ValueError(f"objective is {metric!r}, and this run recorded no such metric; it has {sorted(scalars)}")
    return float(scalars[metric].values[-1])


def _tracker(cfg: DictConfig, job: sweep.Job | None) -> Tracker:
    """The record of this training: of a sweep's jobs, each in a folder of its own; in the first of several processes."""
    if sweep.follower():
        return MemoryTracker()
    if job is not None and job.folder is not None:
        return FolderTracker(sweep.job_folder(job))
    tracker: Tracker = instantiate(cfg.tracker)
    return tracker


def _of_sweep(job: sweep.Job | None) -> dict[str, object]:
    return {} if job is None else {"sweep": {**job.about, "started": time.time()}}


def _failed_before(cfg: DictConfig, job: sweep.Job, error: Exception) -> None:
    """A record of a job that failed before it came to its training: the sweep is to tell why."""
    tracker = _tracker(cfg, job)
    try:
        tracker.start({"title": job.name, "params": _study(), **_of_sweep(job)})
        tracker.document("config.yaml", OmegaConf.to_yaml(cfg))
        _tell(tracker, error)
    finally:
        tracker.finish(failed=True)


def _tell(tracker: Tracker, error: Exception) -> None:
    """Put into the record what the training failed of."""
    try:
        cause = error.__cause__ if isinstance(error, InstantiationException) and error.__cause__ is not None else error
        tracker.document("traceback.txt", "".join(traceback.format_exception(error)))
        tracker.failure(sweep.TRAINING, sweep.reason(cause))
    except Exception as another:  # it is the first that is raised
        log.warning("netlapse: why the training failed was not recorded: %s: %s", type(another).__name__, another)


def _data_and_network(cfg: DictConfig) -> tuple[Dataset, object]:
    """The data set, and the network with weights drawn from the seed; a factory is told the shape of an input and the number of classes."""
    import_for(cfg.framework.fit._target_)
    data: Dataset = instantiate(cfg.data)
    instantiate(cfg.framework.seed)(cfg.seed)
    network = instantiate(cfg.model)
    if isinstance(network, functools.partial):
        network = network(data.input_shape, data.n_classes)
    return data, network


def _trainer(cfg: DictConfig) -> dict[str, Any]:
    options = OmegaConf.to_container(cfg.trainer, resolve=True)
    assert isinstance(options, dict)
    return {str(name): value for name, value in options.items()}


def _chosen(cfg: DictConfig) -> dict[str, object]:
    """The keywords of `fit` that were chosen: a training of the user's own need not know them."""
    return {name: instantiate(cfg[name]) for name in ("remedy", "penalty") if cfg.get(name)}


def _params(cfg: DictConfig) -> dict[str, object]:
    """The few choices worth a column in MLflow; the whole config is the artifact `config.yaml`."""
    chosen = {name: cfg[name].get("_target_", "").rpartition(".")[2] for name in ("data", "model", "layout", "remedy", "penalty") if cfg.get(name)}
    if "layout" in (cfg.get("layout") or {}):  # what `over_time` is around
        chosen["layout"] = cfg.layout.layout.get("_target_", "").rpartition(".")[2]
    chosen["grouping"] = str(cfg.grouping.get("path", cfg.grouping._target_)).rpartition(".")[2]
    trainer = {name: cfg.trainer[name] for name in ("max_epochs", "batch_size", "optimizer", "learning_rate") if name in cfg.trainer}
    return {**chosen, **trainer, "seed": cfg.seed, **_study()}


def _study() -> dict[str, str]:
    """The experiment, and what was given on the command line beside it: by these `netlapse.summary` finds runs and tells them apart."""
    if not HydraConfig.initialized():
        return {}
    experiment = HydraConfig.get().runtime.choices.get("experiment")
    given = [word for word in HydraConfig.get().overrides.task if not word.startswith(("experiment=", "tracker", "resume="))]
    return {**({"experiment": str(experiment)} if experiment else {}), "overrides": scrubbed(shlex.join(given))}


def summary(recording: Recording, place: str, seconds: float) -> str:
    """What was recorded, where, and the command that shows it."""
    lines = [f"\nTrained in {seconds:.0f} s."]
    if recording.findings:
        manifest, steps = recording.manifest, _seen(recording)
        layers = [layer["name"] for layer in manifest["layers"]]  # type: ignore[index, attr-defined]
        lines += [
            f"Observed {len(steps)} {manifest['step_unit']}s ({steps[0]} to {steps[-1]}) of {len(layers)} layers: {', '.join(layers)}",
            f"Analyses: {', '.join(name for name in recording.findings if name not in ('training', 'cost'))}",
        ]
        if left_out := [step for step in _thinned(manifest) if step not in steps]:
            unseen = f"{manifest['step_unit']}s {shortened(left_out)}"
            lines.append(f"Left out to stay within max_overhead: {unseen}; ./run reanalyse fills them in from checkpoints")
        scalars = recording.scalars
        for name in sorted(scalars):
            if name.startswith("training/val") or name == "cost/overhead":
                lines.append(f"  {name}: {scalars[name].values[-1]:.4f}")
        for failure in manifest.get("failures", []):  # type: ignore[attr-defined]
            lines.append(f"  failed: {failure['what']}: {failure['message']}")
    else:
        lines.append("Nothing was observed (callback=none).")
    return "\n".join([*lines, f"Recorded in {place}"])


def _seen(recording: Recording) -> list[int]:
    """The steps at which an analysis found something: of others there are the training's own numbers."""
    found = {step for name, by_step in recording.findings.items() if name not in ("training", "cost") for step in by_step}
    return sorted(found) or list(recording.steps)


def _thinned(manifest: Mapping[str, object]) -> list[int]:
    thinned = manifest.get("thinned")
    return list(thinned["steps"]) if isinstance(thinned, Mapping) else []


def explained(program: Callable[[T], R], cfg: T) -> R:
    """Run the program; what netlapse or Hydra has to say about the config ends it in one message, with the key it is about.

    An error from anywhere else, such as the user's own network, keeps its traceback. One job of several ends itself alone.
    """
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        return program(cfg)
    except InstantiationException as error:
        cause = error.__cause__ or error
        if error.__cause__ is not None and not _is_ours(error.__cause__):
            raise
        key = next((line.removeprefix("full_key: ") for line in str(error).splitlines() if line.startswith("full_key: ")), "")
        raise _end(f"netlapse: config key {key!r}: {cause}" if key else f"netlapse: {cause}") from error
    except (ValueError, TypeError, OSError, OmegaConfBaseException, HydraException) as error:
        if not _is_ours(error):
            raise
        raise _end(f"netlapse: {error}") from error


def _end(message: str) -> BaseException:
    """What ends the program; Hydra takes no SystemExit of a job for that job's alone."""
    several = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
    return RuntimeError(message) if several else SystemExit(message)


def _is_ours(error: BaseException) -> bool:
    """Whether the error was raised by netlapse, or by Hydra, omegaconf or MLflow, which say what is wrong with a config or a run."""
    last = list(traceback.walk_tb(error.__traceback__))[-1][0].f_globals
    spec = last.get("__spec__")  # of a module that was started as a program it has the name
    return str(spec.name if spec is not None else last.get("__name__", "")).partition(".")[0] in ("netlapse", "hydra", "omegaconf", "mlflow")


if __name__ == "__main__":  # what the other processes of a training in a sweep are started as
    train()
