"""Which of a network's layers to observe: by name, glob, type, or `auto`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import numpy as np

from netlapse.types import Layer

AUTO_AT_MOST = 12


def select(layers: Sequence[Layer], choice: str | Sequence[str], *, refused: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """The names of the chosen layers, in execution order.

    choice   "auto", or one or several of: a layer's name; a glob (`layer?.*.relu*`); a type (`Conv2d`)
    refused  layers that cannot be observed -> the reason, for the error message

    Raises ValueError, saying what there is, where a part of the choice matches nothing.
    """
    if choice == "auto":
        return auto(layers)
    chosen: set[str] = set()
    for part in [choice] if isinstance(choice, str) else choice:
        names = {layer.name for layer in layers if part in (layer.name, layer.kind)} or {
            layer.name for layer in layers if fnmatchcase(layer.name, part)
        }
        if not names and part in (refused or {}):
            raise ValueError(f"layer {part!r} cannot be observed: {(refused or {})[part]}")
        if not names:
            kinds = sorted({layer.kind for layer in layers})
            raise ValueError(
                f"no layer named, matching or of type {part!r}; this network has the layers {[layer.name for layer in layers]} "
                f"of types {kinds}, or take 'auto'"
            )
        chosen |= names
    if not chosen:
        raise ValueError("no layer chosen; give names, globs or types, or 'auto'")
    return tuple(layer.name for layer in layers if layer.name in chosen)


def auto(layers: Sequence[Layer]) -> tuple[str, ...]:
    """The outputs of nonlinearities and of blocks; where there are none, of the hidden layers with weights.

    At most 12, evenly spread from the first to the last. The network's own output only where there is nothing before it.
    """
    for roles in (("activation", "block"), ("weights",), ("output",)):
        names = [layer.name for layer in layers if layer.role in roles]
        if names:
            break
    if not names:
        raise ValueError(f"'auto' finds no nonlinearity, no block and no layer with weights; name the layers: {[layer.name for layer in layers]}")
    spread = np.unique(np.linspace(0, len(names) - 1, min(len(names), AUTO_AT_MOST)).round().astype(int))
    return tuple(names[i] for i in spread)
