"""`./run summary experiment=layout_methods`: finds the runs of a study, in MLflow by one search, and summarises their numbers."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from netlapse.analysis.topomap import MEASURES
from netlapse.cli import explained
from netlapse.home import home, writable
from netlapse.summary import Repeat, as_csv, distinct, figures, metric, runs_csv, summarised, table
from netlapse.tracking.folder import read, write
from netlapse.tracking.names import mlflow_key
from netlapse.tracking.secrecy import discreet, scrubbed
from netlapse.tracking.store import client_for
from netlapse.tracking.store import tracking_uri as usual

WORDS = ("experiment", "name", "runs", "measures", "layers", "step", "to")
PAGE = 1000
"""Runs that MLflow is asked for at once."""


def repeats_of(what: str, value: str, prefixes: Sequence[str], step: int | None = None, tracking_uri: str | None = None) -> list[Repeat]:
    """The finished runs of an experiment of `conf/experiment`, or of a name, oldest first.

    what      "experiment" or "name"
    step      at which step; None: each metric's last
    prefixes  what the names of the metrics begin with that are read at a step: each is a question of its own

    Raises ValueError, with what there is, where no such run is finished; ConnectionError or PermissionError as any use of the store.
    """
    uri = tracking_uri or usual()
    with discreet():
        client = client_for(uri)
        key = "params.experiment" if what == "experiment" else "attributes.run_name"
        found = _search(client, f"{key} = {_quoted(value)}")
        finished = [run for run in found if run.info.status == "FINISHED"]
        if not finished:
            others = f"{len(found)} of it did not finish; " if found else ""
            raise ValueError(f"no finished run of the {what} {value!r} in {scrubbed(uri)}; {others}{_known(client, what)}")
        return [_repeat(client, run, tuple(prefixes), step) for run in sorted(finished, key=lambda run: run.info.start_time)]


def repeat_of(run_id: str, prefixes: Sequence[str], step: int | None = None, tracking_uri: str | None = None) -> Repeat:
    """One run by its id, finished or not; raises MlflowException where there is none."""
    with discreet():
        client = client_for(tracking_uri or usual())
        return _repeat(client, client.get_run(run_id), tuple(prefixes), step)


def recorded_repeat(folder: str | Path, step: int | None = None) -> Repeat:
    """The record in a folder as a repeat, at a step, or each of its numbers at its last.

    Raises FileNotFoundError where there is no record.
    """
    recording = read(Path(folder).expanduser())
    numbers = {}
    for name, series in recording.scalars.items():
        at = len(series.steps) - 1 if step is None else int(np.searchsorted(series.steps, step))
        if at < len(series.steps) and (step is None or series.steps[at] == step):
            numbers[name] = int(series.steps[at]), float(np.asarray(series.values[at], np.float64))
    params = recording.manifest.get("params")
    words = params.get("overrides") if isinstance(params, Mapping) else None
    return Repeat(str(folder), None if words is None else tuple(shlex.split(str(words))), numbers)


def main(arguments: Sequence[str]) -> None:
    """Print the table, write it and its figures, and say where; what is wrong with the words ends the program in one message."""
    explained(_run, arguments)


def _run(arguments: Sequence[str]) -> None:
    given = dict(word.partition("=")[::2] for word in arguments)
    chosen = [word for word in ("experiment", "name", "runs") if given.get(word)]
    if len(chosen) != 1 or set(given) - set(WORDS):
        raise ValueError(
            f"a summary needs one of experiment=, name= or runs=<ids or folders, separated by commas>, and may have measures=, layers=, "
            f"step= and to=<folder>; got {' '.join(arguments) or 'nothing'}"
        )
    if not (given.get("step", "0")).isdecimal():
        raise ValueError(f"step is {given['step']!r}; expected a number of at least 0; without it, each run's last")
    step = int(given["step"]) if "step" in given else None
    measures = _list(given.get("measures")) or list(MEASURES)
    begins = tuple(metric(measure) for measure in measures)
    found = _found(chosen[0], given[chosen[0]], begins, step)
    repeats = distinct(found)
    if step is not None and not any(repeat.numbers for repeat in repeats):
        last = sorted({at for repeat in _found(chosen[0], given[chosen[0]], [], None) for at, _ in repeat.numbers.values()})
        raise ValueError(f"none of the {len(repeats)} runs has {measures} at step {step}; the last steps of what they recorded are {last}")
    cells = summarised(repeats, measures, _list(given.get("layers")) or None)
    folder = writable(Path(given["to"]).expanduser() if given.get("to") else home() / "summaries" / mlflow_key(given[chosen[0]].replace("/", ":")))
    write(folder / "summary.csv", as_csv(cells).encode())
    write(folder / "runs.csv", runs_csv(repeats, measures).encode())
    drawn = figures(cells, folder)
    steps = sorted({at for repeat in repeats for name, (at, _) in repeat.numbers.items() if name.startswith(begins)})
    print(f"{len(repeats)} runs at step{'s' * (len(steps) > 1)} {', '.join(map(str, steps))}: mean \u00b1 standard deviation (random layout)\n")
    print(table(cells))
    if again := len(found) - len(repeats):
        print(f"\n{again} earlier runs with the same words, seeds among them, do not count: the last one of each does.")
    print(f"\nWritten to {folder}: summary.csv, runs.csv and {len(drawn)} figures")


def _found(what: str, value: str, prefixes: Sequence[str], step: int | None) -> list[Repeat]:
    if what != "runs":
        return repeats_of(what, value, prefixes, step)
    return [_one(run, prefixes, step) for run in _list(value)]


def _one(run: str, prefixes: Sequence[str], step: int | None) -> Repeat:
    if "/" in run or Path(run).is_dir():
        return recorded_repeat(run, step)
    try:
        return repeat_of(run, prefixes, step)
    except MlflowException as error:
        raise ValueError(f"run {run!r} cannot be read: {error}; a run is named by its id, or by the folder of a record") from error


def _list(words: str | None) -> list[str]:
    return [word.strip() for word in (words or "").strip("[]").split(",") if word.strip()]


def _search(client: MlflowClient, condition: str = "") -> list[Run]:
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    found: list[Run] = []
    token = None
    while True:
        page = client.search_runs(experiments, condition, max_results=PAGE, page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def _quoted(value: str) -> str:
    if '"' in value and "'" in value:
        raise ValueError(f"runs cannot be searched by {value!r}: MLflow takes names with one kind of quotation marks; give their ids with runs=")
    return f"'{value}'" if '"' in value else f'"{value}"'


def _known(client: MlflowClient, what: str) -> str:
    runs = _search(client)
    told = (run.data.params.get("experiment") if what == "experiment" else run.info.run_name for run in runs)
    names = {str(name) for name in told if name}
    return f"among the {len(runs)} runs there are those of {sorted(names)[:24]}" if names else f"there are {len(runs)} runs, none of any {what}"


def _repeat(client: MlflowClient, run: Run, prefixes: tuple[str, ...], step: int | None) -> Repeat:
    # The last value and its step: the dictionary that MLflow shows has no steps.
    latest = {point.key: (int(point.step), float(point.value)) for point in run.data.to_proto().metrics}
    if step is not None:
        histories = {key: client.get_metric_history(run.info.run_id, key) for key in latest if key.startswith(prefixes)}
        at_step = {key: [point.value for point in history if point.step == step] for key, history in histories.items()}
        latest = {key: (step, float(values[-1])) for key, values in at_step.items() if values}
    words = run.data.params.get("overrides")
    return Repeat(str(run.info.run_id), None if words is None else tuple(shlex.split(words)), latest)


if __name__ == "__main__":
    main(sys.argv[1:])
