"""The weights in Keras's files, read with h5py: no model is built, and no other file is opened.

Two layouts are met: Keras 3's (`layers/dense/vars/0`) and the older one of `.h5` files (`model_weights/dense/dense/kernel`).
"""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from netlapse.types import Array

BFLOAT16 = np.dtype("V2")
"""As HDF5 has it, which knows no such type."""


@contextmanager
def opened(path: Path) -> Iterator[tuple[h5py.File, object]]:
    """The weights of a file, unpacked where need be, and the model's config; None where it holds none.

    Raises FileNotFoundError, and ValueError for a file that is cut off, damaged or none of Keras's.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    with tempfile.TemporaryDirectory() as folder:
        config: object = None
        try:
            source = path
            if zipfile.is_zipfile(path):
                source = Path(folder) / "model.weights.h5"
                with zipfile.ZipFile(path) as archive:
                    _unpack(archive, source)
                    config = json.loads(archive.read("config.json"))
            file = h5py.File(source)
            if "model_config" in file.attrs:
                config = json.loads(file.attrs["model_config"])
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk is full, or the file may not be read
            raise ValueError(f"{path} cannot be read: it is cut off, damaged, or not a file of Keras ({type(error).__name__}: {error})") from error
        with file:
            yield file, config


def _unpack(archive: zipfile.ZipFile, to: Path) -> None:
    """Keras packs without compressing: what grows a hundredfold is there to fill the disk."""
    member = archive.getinfo("model.weights.h5")
    if member.file_size > 100 * max(member.compress_size, 1 << 20):
        raise zipfile.BadZipFile(f"its weights would grow from {member.compress_size} to {member.file_size} bytes")
    with archive.open(member) as packed, to.open("wb") as unpacked:
        shutil.copyfileobj(packed, unpacked, 1 << 20)


def is_legacy(file: h5py.File) -> bool:
    return "model_weights" in file or "layer_names" in file.attrs


def datasets(file: h5py.File) -> dict[str, h5py.Dataset]:
    """Every array of the model and its name, in the file's order; the optimizer's are none of them.

    Raises ValueError for what is not in the file itself.
    """
    root = _root(file)
    found = dict(_below(root, ""))
    if not is_legacy(file):
        return found
    layers = [*_names(root, "layer_names"), "top_level_model_weights"]
    return {f"{layer}/{name}": found[f"{layer}/{name}"] for layer in layers if layer in root for name in _names(root[layer], "weight_names")}


def array(dataset: h5py.Dataset) -> Array:
    """The values; bfloat16, which numpy has not, as float32."""
    values: Array = np.asarray(dataset[()])
    if values.dtype == BFLOAT16:
        return (values.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return values


def steps_taken(file: h5py.File) -> int | None:
    """The optimizer's count of its steps; None where the file holds no optimizer."""
    if "optimizer_weights" in file:
        names = _names(_inside(file, "optimizer_weights"), "weight_names")
        places = [f"optimizer_weights/{name}" for name in names if name.endswith("/iteration")]
    else:
        places = [place for place in ("optimizer/vars/0", "optimizer/inner_optimizer/vars/0") if place in file]
    # Where one optimizer scales the loss for another, the one inside, which comes last, counts.
    count = _inside(file, places[-1])[()] if places else None
    return int(count) if isinstance(count, np.integer) else None


def frozen(file: h5py.File, config: object) -> frozenset[str]:
    """The arrays of those layers that the model's config says are not to be trained, and of all within them."""
    layers = _frozen_layers(config)
    return frozenset(name for name in datasets(file) if not layers.isdisjoint(_layers_above(_root(file), name)))


def _root(file: h5py.File) -> h5py.Group:
    return _inside(file, "model_weights") if "model_weights" in file else file


def _inside(group: h5py.Group, path: str, called: str = "") -> h5py.Group | h5py.Dataset:
    """What is at a path, called so in the file; raises ValueError where that is not in the file itself."""
    for part in path.split("/"):
        outside = isinstance(group.get(part, getlink=True), (h5py.ExternalLink, h5py.SoftLink))
        item = None if outside else group[part]
        if item is None or (isinstance(item, h5py.Dataset) and (item.external or item.is_virtual)):
            raise ValueError(f"entry {(called or path)!r} is not in the file but elsewhere, which Keras never writes")
        group = item
    return group


def _below(group: h5py.Group, prefix: str) -> Iterator[tuple[str, h5py.Dataset]]:
    for name in group:
        path = prefix + name
        if name == "optimizer":
            continue
        item = _inside(group, name, path)
        if isinstance(item, h5py.Group):
            yield from _below(item, f"{path}/")
        elif item.nbytes > 1000 * max(stored := item.id.get_storage_size(), 1 << 20):
            raise ValueError(f"entry {path!r} claims {item.nbytes} bytes, of which {stored} are there")
        else:
            yield path, item


def _names(group: h5py.Group, attribute: str) -> list[str]:
    """A list of names; Keras spreads a long one over several attributes."""
    parts = [attribute] if attribute in group.attrs else [f"{attribute}{i}" for i in range(len(group.attrs)) if f"{attribute}{i}" in group.attrs]
    return [name.decode() if isinstance(name, bytes) else str(name) for part in parts for name in group.attrs[part]]


def _frozen_layers(config: object) -> frozenset[str]:
    """The names of the layers that are not to be trained, however deep in a config."""
    if isinstance(config, list):
        return frozenset(name for item in config for name in _frozen_layers(item))
    if not isinstance(config, Mapping):
        return frozenset()
    inside = _frozen_layers(list(config.values()))
    return inside | {str(config["name"])} if config.get("trainable") is False and "name" in config else inside


def _layers_above(root: h5py.Group, name: str) -> set[str]:
    """The names of the layers an array lies in: the folders of a legacy file, an attribute of the folders of others."""
    folders = name.split("/")
    paths = ["/".join((*folders[:depth], "vars")) for depth in range(len(folders))]
    attributes = [root[path].attrs for path in paths if path in root]
    return {*folders, *(str(attribute["name"]) for attribute in attributes if "name" in attribute)}
