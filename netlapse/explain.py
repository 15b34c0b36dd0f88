"""`./run explain`: one input at several epochs by several saliency methods, of a run's saved checkpoints; `python -m netlapse.explain`.

Nothing here knows a framework: the config group `framework` names the functions that do.
"""

from __future__ import annotations

import re
import sys
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from netlapse import saved
from netlapse.analysis import saliency
from netlapse.analysis.onepass import Method
from netlapse.cli import explained
from netlapse.explanation import Asked, asked_for, drawn, explain
from netlapse.packing import evenly
from netlapse.recompose import chosen
from netlapse.render.ink import png
from netlapse.types import Network, ProbeSet, Tracker

METHODS = (
    "gradient",
    "gradient_times_input",
    "smooth_gradient",
    "integrated_gradients",
    "grad_cam",
    "fullgrad",
    "simple_fullgrad",
    "smooth_fullgrad",
    "occlusion",
)
"""What may be asked for whatever the run's config holds, with the options these have by themselves."""
SHOWN = 6
"""How many epochs are shown where none are named."""


@hydra.main(version_base="1.3", config_path="pkg://netlapse.conf", config_name="explain")
def job(cfg: DictConfig) -> None:
    """The program, of what the command line says."""
    overrides = list(HydraConfig.get().overrides.task)
    explained(lambda given: run_explanation(given, chosen(given, overrides)), cfg)


def main() -> None:
    """The program; lists and names may be written as they are, without the quotes and brackets that Hydra asks for."""
    sys.argv[1:] = [spelled(word) for word in sys.argv[1:]]
    job()


def spelled(word: str) -> str:
    """An argument as Hydra reads it: `epochs=0,5` is a list, and what stands after `input=` and `out=` is a text, whatever is in it."""
    key, _, value = word.partition("=")
    if key in ("epochs", "methods") and not value.startswith("["):
        return f"{key}=[{value}]" if value != "null" else word
    if key in ("input", "out") and value != "null" and not re.fullmatch(r"(['\"]).*\1", value):
        text = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"{key}='{text}'"
    return word


def run_explanation(cfg: DictConfig, asked: Mapping[str, object] | None = None) -> Path | None:
    """What the program does, of a config composed by anybody; returns the file it wrote, None where it was told of none.

    asked  what of the config was asked for, see `chosen`: the rest gives way to the run's own config

    Raises ValueError for an input, epoch, method or class that there is not, saying what there is, and FileNotFoundError for a run
    without checkpoints.
    """
    if cfg.run is None or cfg.input is None:
        raise ValueError("run or input is null; name a run and an input, as run=<id> input=17, or an image file, as input=photo.png")
    tracker = saved.record(cfg)
    assert tracker is not None
    try:
        return _explained(saved.own_config(cfg, asked or {}, tracker), list(asked or {}), tracker)
    finally:
        tracker.close()


def _explained(cfg: DictConfig, asked: Sequence[str], tracker: Tracker) -> Path | None:
    with tempfile.TemporaryDirectory() as folder:
        files, hashes = saved.checkpoints_of(cfg, tracker, Path(folder))
        probe = saved.probe_of(cfg, asked, tracker)
        shown = asked_for(str(cfg.input), probe, fit=cfg.fit, mean=_each(cfg.mean), deviation=_each(cfg.deviation))
        steps = _steps(cfg, list(files))
        network, load = saved.network_of(cfg, probe, tracker, files)
        methods = _methods(cfg, network, probe)
        target = _target(cfg, shown, probe.class_names)
        of = {step: files[step] for step in steps}
        found = explain(network, of, saved.checked(network, load, hashes), shown, methods, target, tuple(probe.class_names))
    unit = saved.unit_of(cfg, tracker)
    words = {"label": "its label", "predicted": "the predicted class", "runner_up": "the runner-up"}.get(str(target), f"class {target}")
    title = f"What the score of {words} depends on: {tracker.manifest.get('title') or tracker.place.splitlines()[0]}"
    picture = png(drawn(found, tuple(probe.class_names), unit, title))
    name = _file_name(shown, steps, unit, list(methods), None if cfg.of is None else str(cfg.of))
    tracker.document(name, picture)
    out = None if cfg.out is None else Path(str(cfg.out)).expanduser()
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(picture)
    print("\n".join([*shown.notes, *([f"Written to {out}"] if out is not None else []), f"{name}: Recorded in {tracker.place}"]))
    return out


def _steps(cfg: DictConfig, there: Sequence[int]) -> list[int]:
    if cfg.epochs is None:
        return evenly(there, SHOWN)
    wanted = list(cfg.epochs) if OmegaConf.is_list(cfg.epochs) else [cfg.epochs]
    if unknown := [one for one in wanted if one not in there]:
        raise ValueError(f"epochs holds {unknown}, of which there is no checkpoint; there are those of {list(there)}")
    if not wanted:
        raise ValueError(f"epochs is empty; name some of {list(there)}, or leave it out for at most {SHOWN} of them")
    return sorted({int(one) for one in wanted})


def _methods(cfg: DictConfig, network: Network, probe: ProbeSet) -> dict[str, Method]:
    """Those that are asked for, as the run's own saliency has them, else as they are by themselves."""
    analysis = (cfg.get("analyses") or {}).get("saliency") or {}
    own: dict[str, Method] = dict(instantiate(analysis["methods"]) or {}) if analysis.get("methods") is not None else {}
    if cfg.methods is None:
        return own or saliency.default_methods(network, probe.inputs)
    wanted = [str(name) for name in (cfg.methods if OmegaConf.is_list(cfg.methods) else [cfg.methods])]
    there = [*own, *(name for name in METHODS if name not in own)]
    if not wanted or (unknown := [name for name in wanted if name not in there]):
        raise ValueError(f"methods holds {unknown if wanted else 'none'}; there are {', '.join(there)}")
    return {name: own[name] if name in own else cast(Method, getattr(saliency, name)) for name in wanted}


def _target(cfg: DictConfig, shown: Asked, class_names: Sequence[str]) -> saliency.Target:
    """What is asked for; else what the run's saliency explains, and of an image without a label the predicted class."""
    if cfg.of is not None:
        # A class that is named by a number is meant by its name, as everywhere.
        return str(cfg.of) if not isinstance(cfg.of, int) or str(cfg.of) in class_names else cfg.of
    analysis = (cfg.get("analyses") or {}).get("saliency") or {}
    own = analysis.get("target") or "label"
    return "predicted" if own == "label" and shown.label is None else cast(saliency.Target, own)


def _file_name(shown: Asked, steps: Sequence[int], unit: str, methods: Sequence[str], of: str | None) -> str:
    """A name that another question does not have."""
    whole = "_".join(["explained", shown.slug, *([] if of is None else ["of", of]), unit, *map(str, steps), *methods])
    plain = re.sub(r"[^A-Za-z0-9_\-]", "_", whole)
    return f"{plain}.png" if len(plain) <= 100 and plain == whole else f"{plain[:90]}_{zlib.crc32(whole.encode()):08x}.png"


def _each(values: object) -> tuple[float, ...]:
    return () if values is None else tuple(float(value) for value in (values if OmegaConf.is_list(values) else [values]))  # type: ignore[attr-defined, arg-type]


if __name__ == "__main__":
    main()
