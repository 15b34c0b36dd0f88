"""What a run keeps of a training, taken up again: its record and config, its probe, its network and the checkpoints to put into it.

Nothing here knows a framework: the config group `framework` names the functions that do.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import cast

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from netlapse.data.dataset import Dataset
from netlapse.recompose import recomposed
from netlapse.schedule import Unit
from netlapse.tracking.checkpoints import find, sha256
from netlapse.tracking.folder import FolderTracker
from netlapse.tracking.probes import PROBE, from_bytes
from netlapse.types import Network, ProbeSet, Tracker


def record(cfg: DictConfig) -> Tracker | None:
    """The record of the run, open to be written; None where there is no run yet."""
    if cfg.run is None:
        return None
    if (Path(str(cfg.run)) / "manifest.json").is_file():
        return FolderTracker(str(cfg.run))
    tracker: Tracker = instantiate(cfg.tracker, run_id=str(cfg.run))
    return tracker


def own_config(cfg: DictConfig, asked: Mapping[str, object], tracker: Tracker | None) -> DictConfig:
    """The run's own config, with what was asked for in its place; see `recomposed`. What is given, where there is no run."""
    if tracker is None:
        return cfg
    saved, replaced = tracker.read("config.yaml"), tracker.manifest.get("replaced")
    return recomposed(
        cfg, asked, None if saved is None else saved.decode(), tracker.manifest.get("framework"), replaced if isinstance(replaced, Mapping) else None
    )


def probe_of(cfg: DictConfig, asked: Iterable[str], tracker: Tracker) -> ProbeSet:
    """The probe that the record holds; else, or where data or probe were asked for, that of the config.

    Raises ValueError where there is neither.
    """
    another = any(key.partition(".")[0] in ("data", "probe") for key in asked)
    if not another and (saved := tracker.read(PROBE)) is not None:
        return from_bytes(saved)
    if cfg.get("data") is None:
        raise ValueError("the record holds no probe and data is null; name the data that the network is to be shown, as data=mnist5000")
    data: Dataset = instantiate(cfg.data)
    probe: ProbeSet = instantiate(cfg.probe)(data)
    return probe


def network_of(cfg: DictConfig, probe: ProbeSet, tracker: Tracker, checkpoints: Mapping[int, Path]) -> tuple[Network, Callable[..., None]]:
    """The network, and what puts the weights of a file into it; raises ValueError where nothing says how it is built."""
    instantiate(cfg.framework.seed)(cfg.seed)
    load = instantiate(cfg.framework.load)
    if cfg.get("model") is not None:
        model = instantiate(cfg.model)
        if isinstance(model, functools.partial):
            model = model(probe.inputs.shape[1:], len(probe.class_names))
    elif cfg.framework.saved is not None:
        model = instantiate(cfg.framework.saved)(next(iter(checkpoints.values())))
        if (part := tracker.manifest.get("module")) is not None:
            load, model = functools.partial(load, model=model), model.get_layer(part)
    else:
        raise ValueError(
            "model is null, and these checkpoints hold weights alone; name what builds the network, as model=cnn or +model._target_=my.module.build"
        )
    options = {name: (cfg.get("callback") or {}).get(name) for name in ("output", "channels_first")}
    network: Network = instantiate(cfg.framework.network)(model, **options)
    return network, load


def checkpoints_of(cfg: DictConfig, tracker: Tracker | None, folder: Path) -> tuple[dict[int, Path], dict[Path, str]]:
    """The files by step, ascending, and the sha256 of those of which it is known.

    They are in the folder that was named; else where the record says, or beside the store; else in the record itself, from
    where they are fetched into `folder`. One that is nowhere keeps its place, so that it is told of.

    Raises FileNotFoundError where there are none, ValueError where nothing names any and for steps that have none.
    """
    hashes: dict[Path, str] = {}
    if cfg.checkpoints is not None:
        found = find(str(cfg.checkpoints), unit=unit_of(cfg, tracker), pattern=cfg.pattern)
    elif tracker is None or cfg.run is None:
        raise ValueError("run and checkpoints are null; name a run, as run=<id>, or the folder of checkpoints, as checkpoints=<folder>")
    else:
        named = tracker.manifest.get("checkpoints")
        entries = {int(step): entry for step, entry in named.items()} if isinstance(named, Mapping) else {}
        found = {step: _place(Path(entry["path"]), tracker) for step, entry in entries.items()}
        if not found or not all(path.is_file() for path in found.values()):
            fetched = tracker.fetch_checkpoints(folder)
            within = {} if fetched is None else find(fetched, unit=unit_of(cfg, tracker), pattern=cfg.pattern)
            found = within | {step: path for step, path in found.items() if path.is_file() or step not in within}
        hashes = {path: entries[step]["sha256"] for step, path in found.items() if step in entries}
        if not found:
            raise FileNotFoundError(f"run {cfg.run} names no checkpoints and holds none; say where they are: checkpoints=<folder>")
    if cfg.step is not None:
        steps = {int(step) for step in (cfg.step if OmegaConf.is_list(cfg.step) else [cfg.step])}
        if unknown := steps - found.keys():
            raise ValueError(f"there is no checkpoint of step {sorted(unknown)}; there are those of {sorted(found)}")
        found = {step: path for step, path in found.items() if step in steps}
    return dict(sorted(found.items())), hashes


def _place(path: Path, tracker: Tracker) -> Path:
    """Where the file of this path is: there, or beside the store, if that has moved."""
    beside = tracker.checkpoint_folder / path.name if tracker.checkpoint_folder is not None else path
    return path if path.is_file() or not beside.is_file() else beside


def unit_of(cfg: DictConfig, tracker: Tracker | None) -> Unit:
    """What a step of the run counts; raises ValueError for anything but "epoch" and "step"."""
    unit = (tracker.manifest.get("step_unit") if tracker is not None else None) or cfg.unit
    if unit not in ("epoch", "step"):
        raise ValueError(f"unit is {unit!r}; allowed are 'epoch' and 'step'")
    return cast(Unit, unit)


def checked(network: Network, load: Callable[[Network, Path], None], hashes: Mapping[Path, str]) -> Callable[[Path], None]:
    """Puts the weights of a file into the network; raises ValueError for one that is not the file that was saved."""

    def loaded(path: Path) -> None:
        if hashes.get(path) not in (None, sha256(path)):
            raise ValueError(f"{path} is not the file that was saved: its sha256 is {sha256(path)}, and the manifest's {hashes[path]}")
        load(network, path)

    return loaded
