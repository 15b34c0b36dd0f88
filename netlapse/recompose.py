"""The config of an old run with what is asked for now in its place, and nothing run that nobody vouched for.

A config names functions and classes to be called. Whoever may write to a run on a server may put any there, so those that
the shipped configs do not name are called only where somebody says so.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, cast

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

DELETED = object()
"""What was asked to be left out."""


def chosen(cfg: DictConfig, overrides: Sequence[str]) -> dict[str, object]:
    """What the overrides of a config asked for, by its dotted key, with interpolations left as they are."""
    values = plain(cfg)
    asked: dict[str, object] = {}
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        key = (override.package or override.key_or_group).replace("/", ".")  # a group put elsewhere, as layout@analyses.samples.layout
        asked[key] = DELETED if override.is_delete() else functools.reduce(lambda node, part: node[part], key.split("."), values)
    return asked


def recomposed(
    cfg: DictConfig, asked: Mapping[str, object], saved: str | None, framework: object = None, replaced: Mapping[str, object] | None = None
) -> DictConfig:
    """A run's own config, with what was asked for in its place.

    cfg        what is the case where the run says nothing; the tracker is taken from it
    saved      the run's config as it was written; None where it has none, and then
    framework  "torch" or "keras", the one it was trained in
    replaced   name -> config of the analyses that were asked for otherwise since, and replaced what the run had; each is the run's
               own, but where it is asked for otherwise now

    Raises ValueError where the run's config, or what replaced some of it, calls what neither the shipped configs nor somebody now names.
    """
    values = plain(cfg)
    if saved is not None:
        own = plain(OmegaConf.create(saved))
        values |= {key: value for key, value in own.items() if key != "tracker"}
    elif "framework" not in asked and framework in ("torch", "keras"):
        values["framework"] = yaml.safe_load((files("netlapse.conf") / "framework" / f"{framework}.yaml").read_text())
    before = analyses_of(OmegaConf.create(values)) if replaced else {}
    for key, value in asked.items():
        *path, last = key.split(".")
        node = functools.reduce(lambda found, part: found.setdefault(part, {}), path, values)
        if value is DELETED:
            node.pop(last, None)
        else:
            node[last] = value
    if replaced:
        now = analyses_of(OmegaConf.create(values))
        kept = [name for name in now.keys() & replaced.keys() if now[name] == before.get(name) or "analyses" not in asked]
        values["analyses"] |= {name: replaced[name] for name in kept if not _wanted(values, f"analyses.{name}", asked)}
    result = OmegaConf.create(values)
    if (saved is not None or replaced) and not cfg.trust:
        _check_calls(result, asked)
    return result


def _wanted(values: Mapping[str, Any], key: str, asked: Collection[str]) -> bool:
    """Whether some of what is at the dotted key of an analysis, or of what that refers to, is asked for; a set of analyses asks for none of it."""
    known: set[str] = set()
    new = [key]
    while new:
        known.add(key := new.pop())
        node = functools.reduce(lambda found, part: found.get(part) if isinstance(found, Mapping) else None, key.split("."), cast(Any, values))
        new += {*re.findall(r"\$\{([\w.]+)\}", str(node))} - known
    return any(f"{given}.".startswith(f"{key}.") or f"{key}.".startswith(f"{given}.") for key in known for given in asked if given != "analyses")


def analyses_of(cfg: DictConfig) -> dict[str, object]:
    """The config of each analysis, by its name, as it is asked for: what it refers to is in its place."""
    analyses = OmegaConf.to_container(cfg.analyses, resolve=True) if cfg.get("analyses") else {}
    assert isinstance(analyses, dict)
    return {str(name): analysis for name, analysis in analyses.items()}


def plain(cfg: object) -> dict[str, Any]:
    """A config as dicts and lists, with interpolations as they are written."""
    values = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def _check_calls(cfg: DictConfig, asked: Collection[str]) -> None:
    shipped = _shipped()
    for key, name in _calls(OmegaConf.to_container(cfg, resolve=True, throw_on_missing=False)):
        if name not in shipped and not any(key == given or key.startswith(f"{given}.") for given in asked):
            raise ValueError(
                f"the run's config calls {name!r} at {key}, which is no part of netlapse; whoever may write to the run may have put it "
                f"there: name it yourself, as {key}={name}, or add trust=true if you trust them"
            )


def _calls(node: object, key: str = "") -> Iterator[tuple[str, str]]:
    """(dotted key, name) of everything that a config, without interpolations, names to be called."""
    if isinstance(node, dict):
        for part, value in node.items():
            here = f"{key}.{part}" if key else str(part)
            if part == "_target_" or (part == "path" and "_target_" in node):
                yield here, str(value)
            elif part == "_args_" and str(node.get("_target_")).startswith("hydra."):  # what is to be fetched by its name
                yield from ((here, str(name)) for name in value)
            else:
                yield from _calls(value, here)
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from _calls(value, f"{key}.{number}")


@functools.cache
def _shipped() -> frozenset[str]:
    """What the shipped configs call, in each framework."""
    configs = [yaml.safe_load(file.read_text()) for file in _yamls(files("netlapse.conf"))]
    names = {name for config in configs for _, name in _calls(config)}
    for group in ("models", "callbacks"):
        modules = [config[group] for config in configs if isinstance(config, dict) and isinstance(config.get(group), str)]
        names |= {name.replace(f"${{framework.{group}}}", module) for name in names for module in modules}
    return frozenset(names)


def _yamls(folder: Traversable) -> Iterator[Traversable]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _yamls(entry)
        elif entry.name.endswith(".yaml"):
            yield entry
