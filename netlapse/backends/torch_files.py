"""Torch checkpoints: their weights, read without running anything a file names, and put into a network that stands."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from netlapse.audit import Weights
from netlapse.backends.torch import TorchNetwork
from netlapse.types import Array

_STATE_DICTS = ("state_dict", "model_state_dict", "model")
_COMPILED = "_orig_mod."  # what torch.compile puts before the names of what it wraps
_NUMPY_FLOATS = (torch.float16, torch.float32, torch.float64)


def read_weights(path: str | Path) -> Weights:
    """The weights of a file of `torch.save`: Lightning's checkpoint, a state dict, or one under "model" or "model_state_dict".

    Mapped into memory where the file allows it. Floats that numpy has not (bfloat16, float8) become float32, which changes no
    value. The position is what the file says: epochs that are over and optimiser steps; no epoch in the middle of one.

    Raises FileNotFoundError, and ValueError for a file that is cut off or damaged, that holds other objects than weights
    (nothing of it is run), or no state dict.
    """
    entries, around = _read(Path(path))
    arrays: dict[str, Array] = {}
    for name, value in entries.items():
        if isinstance(value, Tensor):
            try:
                arrays[name] = _array(value)
            except (RuntimeError, TypeError, NotImplementedError) as error:
                raise ValueError(f"{path}: entry {name!r}, {value.dtype} on {value.device}, has no values to read: {error}") from error
    return Weights(arrays, position=_position(around))


def load_weights(network: TorchNetwork, path: str | Path, *, prefix: str | None = None) -> None:
    """Put the weights of a file into the network's module, in place; the file may hold more than those.

    prefix  what the module's names have before them in the file, as "network." in the checkpoint of a LightningModule that
            has it as `network`; None: the one prefix under which all of the module's entries are. `torch.compile`'s
            `_orig_mod.` may be anywhere.

    Raises what `read_weights` does, and ValueError where the weights fit under no prefix, or under several and are not the
    same; the module is then as it was. Weights are never rounded: float64 does not fit a float32 module.
    """
    module = network.module
    state = module.state_dict()
    wanted = {_plain(name): name for name in state}
    entries = {_plain(name): value for name, value in _read(Path(path))[0].items()}
    own = {plain: state[name] for plain, name in wanted.items()}
    try:
        before = _prefix(entries, own) if prefix is None else _checked(prefix, entries, own)
    except ValueError as error:
        raise ValueError(f"{path} does not fit {type(module).__name__}: {error}") from error
    for plain, name in wanted.items():
        state[name] = entries[before + plain]
    module.load_state_dict(state)


# ---- reading --------------------------------------------------------------------------------------------------------


def _read(path: Path) -> tuple[Mapping[str, object], Mapping[str, object]]:
    """The state dict of a file, and the dict it lies in; the latter is empty where there is none."""
    loaded = _loaded(path)
    if not isinstance(loaded, Mapping):
        raise ValueError(f"{path} holds a {type(loaded).__name__}; expected a state dict, as torch.save(module.state_dict(), path) writes it")
    if _is_state_dict(loaded):
        return loaded, {}
    found = [key for key in _STATE_DICTS if _is_state_dict(loaded.get(key))]
    if len(found) != 1:
        which = f"state dicts under {found}" if found else f"no state dict but {sorted(map(str, loaded))}"
        raise ValueError(f"{path} holds {which}; expected one state dict, by itself or under one of {list(_STATE_DICTS)}; save that one alone")
    return loaded[found[0]], loaded


def _is_state_dict(value: object) -> bool:
    if not isinstance(value, Mapping) or not value:
        return False
    return all(isinstance(name, str) and (isinstance(item, Tensor) or name.endswith("_extra_state")) for name, item in value.items())


def _loaded(path: Path) -> object:
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    zipped = zipfile.is_zipfile(path)
    with path.open("rb") as file:
        start = file.read(4)
    if not start or (start == b"PK\x03\x04" and not zipped):
        raise ValueError(f"{path} is cut off: {path.stat().st_size} bytes, and the end is missing; copy it again, or leave it out")
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:
        if isinstance(error, pickle.UnpicklingError) and (names := _refused(path, zipped, error)):
            raise ValueError(
                f"{path} holds, beside weights, what only code of {', '.join(names)} can rebuild. Reading that could run anything whoever wrote "
                "the file wanted, so nothing was read. Save the weights alone, as torch.save(module.state_dict(), path), or, where you trust "
                f"the file and these names, allow them first: torch.serialization.add_safe_globals([{', '.join(names)}])"
            ) from error
        what = (str(error).splitlines() or [""])[0][:200]
        raise ValueError(f"{path} cannot be read: it is damaged, cut off, or not a file of torch.save ({type(error).__name__}: {what})") from error


def _refused(path: Path, zipped: bool, error: pickle.UnpicklingError) -> list[str]:
    """What a file names that is no weights, found without importing it."""
    if zipped:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    return re.findall(r"nsupported (?:global: )?GLOBAL (\S+\w)(?!\S)", str(error))  # one that ends in a dot is cut off


def _array(tensor: Tensor) -> Array:
    tensor = tensor.detach()
    tensor = tensor.dequantize() if tensor.is_quantized else tensor.to_dense() if tensor.layout != torch.strided else tensor
    if tensor.is_floating_point() and tensor.dtype not in _NUMPY_FLOATS:
        tensor = tensor.float()
    return tensor.resolve_conj().resolve_neg().numpy()


def _position(around: Mapping[str, object]) -> dict[str, int]:
    told = {"epoch": around.get("epoch"), "step": around.get("global_step", around.get("step"))}
    if "pytorch-lightning_version" in around:
        told["epoch"] = _whole_epochs(around.get("loops"))
    return {name: value for name, value in told.items() if isinstance(value, int) and not isinstance(value, bool)}


def _whole_epochs(loops: object) -> int | None:
    """How many epochs are over, of the state of Lightning's loops; None in the middle of one.

    Not Lightning's own "epoch": that is 0 before the first epoch, and still 0 where a callback saves at the end of it.
    """
    try:
        current = loops["fit_loop"]["epoch_progress"]["current"]  # type: ignore[index]
        return int(current["processed"]) if current["ready"] == current["processed"] else None
    except (KeyError, TypeError):
        return None


# ---- fitting --------------------------------------------------------------------------------------------------------


def _plain(name: str) -> str:
    return name.replace(_COMPILED, "")


def _prefix(entries: Mapping[str, object], own: Mapping[str, object]) -> str:
    """The one prefix under which all of the module's own entries are; the empty one before any other."""
    if not own or not _misfits("", entries, own):
        return ""
    first = next(iter(own))
    ends = [name.removesuffix(first) for name in entries if name.endswith(f".{first}")]
    fitting = [prefix for prefix in ends if not _misfits(prefix, entries, own)]
    if not fitting:
        raise ValueError(_no_fit(entries, own))
    # A network that two attributes hold is in the file twice, and is one.
    if any(not _is_same(entries[fitting[0] + name], entries[prefix + name]) for prefix in fitting[1:] for name in own):
        raise ValueError(f"its entries are there under each of {fitting}, with different weights; say which are meant: prefix={fitting[0]!r}")
    return fitting[0]


def _checked(prefix: str, entries: Mapping[str, object], own: Mapping[str, object]) -> str:
    prefix = _plain(prefix)
    if misfits := _misfits(prefix, entries, own):
        raise ValueError(f"under the prefix {prefix!r} {_listed(misfits)}; the prefixes there are: {_prefixes(entries, own)}")
    return prefix


def _misfits(prefix: str, entries: Mapping[str, object], own: Mapping[str, object]) -> list[str]:
    """What keeps the entries under a prefix from being the module's, each in words."""
    misfits = []
    for name, value in own.items():
        if prefix + name not in entries:
            misfits.append(f"{prefix + name} is missing")
        elif isinstance(value, Tensor) and (why := _misfit(entries[prefix + name], value)):
            misfits.append(f"{prefix + name} is {why}")
    return misfits


def _misfit(saved: object, own: Tensor) -> str | None:
    if not isinstance(saved, Tensor):
        return f"a {type(saved).__name__}, and the module's is a tensor"
    if not nn.parameter.is_lazy(own) and saved.shape != own.shape:
        return f"{tuple(saved.shape)}, and the module's is {tuple(own.shape)}"
    return None if _is_exact(saved.dtype, own.dtype) else f"{saved.dtype}, which would be rounded to the module's {own.dtype}"


def _is_exact(saved: torch.dtype, own: torch.dtype) -> bool:
    """Whether every value of one type is one of the other's."""
    if saved == own:
        return True
    if saved.is_floating_point and own.is_floating_point:
        a, b = torch.finfo(saved), torch.finfo(own)
        return b.eps <= a.eps and b.tiny <= a.tiny
    return False


def _is_same(a: object, b: object) -> bool:
    return isinstance(a, Tensor) and isinstance(b, Tensor) and a.data_ptr() == b.data_ptr()


def _no_fit(entries: Mapping[str, object], own: Mapping[str, object]) -> str:
    prefixes = _prefixes(entries, own)
    if not prefixes:
        return f"none of its entries is there; it has {_listed(list(own))}, and the file {_listed(list(entries))}"
    misfits = _misfits(prefixes[0], entries, own)
    others = f"; the prefixes there are: {prefixes}" if len(prefixes) > 1 else ""
    return f"under the prefix {prefixes[0]!r} {_listed(misfits)}{others}; build the network with the options it was trained with"


def _prefixes(entries: Mapping[str, object], own: Mapping[str, object]) -> list[str]:
    """What stands before names of the module's in the file, the most frequent first."""
    tails = {name.rpartition(".")[2] for name in own}
    saved = [name for name in entries if name.rpartition(".")[2] in tails]
    found = Counter(name.removesuffix(end) for end in own for name in saved if f".{name}".endswith(f".{end}"))
    return [prefix for prefix, _ in found.most_common(8)]


def _listed(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
