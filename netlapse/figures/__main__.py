"""`./run figure run=<id> what=topomap_row layer=relu1 step=5 to=figure.pdf`: a figure of a run, from the shell.

The words after `what` are the arguments of the function of that name in `netlapse.figures`.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf

from netlapse import figures
from netlapse.cli import explained
from netlapse.figures.recorded import layers_of
from netlapse.figures.run import recorded, recorded_probe
from netlapse.recording import Recording
from netlapse.tracking.secrecy import scrubbed

T = TypeVar("T")

FIGURES: dict[str, Callable[..., figures.Sheet]] = {
    function.__name__: function
    for function in (
        figures.topomap_row,
        figures.topomap_grid,
        figures.storyboard,
        figures.heat_map,
        figures.clustered_heat_map,
        figures.dendrogram,
        figures.samples,
        figures.sanity,
    )
}
NAMES = {"layer", "group", "layout", "analysis", "title"}
"""Arguments that are names, also where they look like numbers; those below are lists of names."""
LISTS = {"layers", "groups", "classes"}


def main(arguments: Sequence[str]) -> None:
    """Draw the figure, save it, and print where it is; what is wrong with the words ends the program in one message."""
    explained(_run, arguments)


def _run(arguments: Sequence[str]) -> None:
    given = _words(arguments)
    what, run, to = (given.pop(name, None) for name in ("what", "run", "to"))
    if what not in FIGURES or run is None or to is None:
        raise ValueError(
            f"a figure needs run=<id or folder> what=<one of {', '.join(FIGURES)}> to=<file.pdf, .svg or .png>; "
            f"got {scrubbed(' '.join(arguments)) or 'nothing'}"
        )
    function = FIGURES[str(what)]
    options = _options(function, given)
    recording = _found(recorded, str(run))
    if isinstance(options.get("inputs"), str):
        options["probe"] = _found(recorded_probe, str(run))
    _check_required(function, options, recording)
    print(f"Drawn to {figures.save(function(recording, **options), Path(str(to)))}")


def _words(arguments: Sequence[str]) -> dict[str, object]:
    without = [word for word in arguments if "=" not in word]
    if without:
        raise ValueError(f"cannot make out {without}; every word is name=value, as in what=topomap_row layer=relu1 step=5")
    # One by one: a name holds no dots here, and what follows a file's or a layer's stays one value.
    pairs = (word.partition("=")[::2] for word in arguments)
    return {name: OmegaConf.to_container(OmegaConf.from_dotlist([f"value={value}"]))["value"] for name, value in pairs}  # type: ignore[call-overload, index]


def _options(function: Callable[..., object], given: Mapping[str, object]) -> dict[str, Any]:
    """The words as arguments of the function; raises ValueError for one that it has not."""
    known = [name for name in inspect.signature(function).parameters if name not in ("recording", "probe")]
    if unknown := [name for name in given if name not in known]:
        raise ValueError(f"{function.__name__} has no argument {unknown}; it has {known}")
    options: dict[str, Any] = dict(given)
    for name, value in given.items():
        if name in NAMES and value is not None:
            options[name] = str(value)
        elif name in LISTS and value is not None:
            options[name] = [str(one) for one in (value if isinstance(value, list) else [value])]
        elif name == "steps":
            options[name] = value if isinstance(value, list) else [value]
    return options


def _check_required(function: Callable[..., object], options: Mapping[str, object], recording: Recording) -> None:
    parameters = inspect.signature(function).parameters.values()
    needed = [one.name for one in parameters if one.default is inspect.Parameter.empty and one.name != "recording"]
    if missing := [name for name in needed if name not in options]:
        by_step = recording.findings.get("nap", {})
        groups = by_step[max(by_step)].arrays["groups"].tolist() if by_step else []
        raise ValueError(
            f"{function.__name__} needs {', '.join(f'{name}=' for name in missing)}; this run has the layers "
            f"{layers_of(recording, max(by_step)) if by_step else []}, the steps {sorted(by_step)} and the groups {groups}"
        )


def _found(read: Callable[[str], T], run: str) -> T:
    """What is read of the run; MLflow's own errors, of an unknown run for one, as a line that ends the program."""
    try:
        return read(run)
    except Exception as error:
        if type(error).__module__.partition(".")[0] != "mlflow":
            raise
        raise ValueError(f"run {run!r} cannot be read: {error}; a run is named by its id, or by the folder of a record") from error


if __name__ == "__main__":
    main(sys.argv[1:])
