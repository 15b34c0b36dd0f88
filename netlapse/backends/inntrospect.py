"""Activations that another program recorded, seen as a network: a folder in the layout of iNNtrospect.

    corpus.csv                        without a header, a line for each batch: file,group or file,group,label
    acts/layer000/batch0000.npy       (n, ...) float32, channels-last; layer000 is the input and the last layer the output
    grads/layer000/batch0000.npy      by each layer but the output: the gradient of the output of the predicted class
    group_name_to_files.json, group_name_to_index.json, index_to_group_name.json
    layer_names.json                  the layers' own names, which only `netlapse.export` writes

A network that was recorded need not be here, nor the framework it ran in: means and sums are all that is left to compute.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netlapse.backends import checked_classes, checked_groups
from netlapse.backends.heights import among_largest, heights
from netlapse.types import (
    Array,
    Attributions,
    Exact,
    Explained,
    Field,
    Float32,
    FullGradient,
    Height,
    Int64,
    Layer,
    Magnitude,
    NoField,
    Occluded,
    Occlusion,
    Peaks,
    ProbeSet,
    Responses,
    Spatial,
)

CORPUS = "corpus.csv"
LAYER_NAMES = "layer_names.json"
_BATCH = re.compile(r"batch[0-9]{4,}\.npy")

Kind = Literal["acts", "grads"]


def layer_folder(index: int) -> str:
    """The name of a layer's folder; 0 is the input."""
    return f"layer{index:03d}"


def batch_file(index: int) -> str:
    """The name of a batch's file in every layer's folder."""
    return f"batch{index:04d}.npy"


def group_index(files: Mapping[str, Sequence[str]]) -> dict[str, dict[str, object]]:
    """File name -> contents of the three JSON files that say the same as corpus.csv; `files` is group -> its batch files."""
    groups = sorted(files)
    return {
        "group_name_to_files.json": {group: list(files[group]) for group in groups},
        "group_name_to_index.json": {group: str(i) for i, group in enumerate(groups)},
        "index_to_group_name.json": {str(i): group for i, group in enumerate(groups)},
    }


def read(folder: str | Path) -> tuple[RecordedNetwork, ProbeSet]:
    """The network that was recorded in a folder, and the inputs that it was recorded for.

    The probe's classes are the groups, in sorted order; `attributes["group"]` holds their names, and `attributes["label"]`
    the third column of corpus.csv where there is one. Whether the groups are also what the network's outputs stand for,
    the layout does not say: groupings by outcome and confusion mean something only if they are.

    Every file is opened for its shape, and only the inputs are read. The JSON files may be left out, and so may grads/
    or a layer in it.

    Raises FileNotFoundError for a missing corpus.csv, layer or batch file. Raises ValueError, naming the file, for a
    corpus.csv of other columns, other file names than batch0000.npy, batch0001.npy, ... or gaps among these, a batch file
    of no group, JSON files that say otherwise than corpus.csv, arrays that are not float32 (Python objects are never
    loaded), layers that differ in their rows, and inputs that are NaN or infinite.
    """
    place = Path(folder).expanduser().absolute()  # files are read later, wherever the process is then
    corpus = _corpus(place / CORPUS)
    _check_group_index(place, corpus)
    sizes, shapes = _layer_shapes(place, corpus)
    sources = _gradient_sources(place, corpus, shapes)
    names = _layer_names(place / LAYER_NAMES, len(shapes))
    inputs = np.empty((sum(sizes), *shapes[0]), np.float32)
    for batch, size, stop in zip(corpus, sizes, np.cumsum(sizes)):
        inputs[stop - size : stop] = _finite(place / "acts" / layer_folder(0) / batch.file)
    network = RecordedNetwork(place, {batch.file: size for batch, size in zip(corpus, sizes)}, names, shapes, sources, inputs)
    classes, labels = np.unique(np.repeat([batch.group for batch in corpus], sizes), return_inverse=True)
    attributes = {"group": classes[labels]}
    if corpus[0].label is not None:
        attributes["label"] = np.repeat([str(batch.label) for batch in corpus], sizes)
    ids = np.array([f"{batch.file}:{row}" for batch, size in zip(corpus, sizes) for row in range(size)])
    return network, ProbeSet(inputs, labels, tuple(classes.tolist()), attributes, ids)


class RecordedNetwork:
    """A network that answers for the inputs it was recorded for, and for no others; satisfies `netlapse.types.Network`.

    `read` makes it. Inputs are recognised by their values; of those recorded more than once, the first answers. Layers go
    by the names in layer_names.json, without which they are called layer000, layer001, ...; "input" and "output" name
    the first and the last as well. Activations stay on disk: a question reads the rows it is about, one layer after another. What the
    network itself computed, NaN and infinity among it, is passed on as it is.
    """

    def __init__(
        self,
        folder: Path,
        sizes: Mapping[str, int],
        names: Sequence[str],
        shapes: Sequence[tuple[int, ...]],
        sources: Sequence[int],
        inputs: Float32,
    ) -> None:
        self.folder = folder
        self._files = tuple(sizes)
        self._batch = np.repeat(np.arange(len(sizes)), list(sizes.values()))
        self._row = np.concatenate([np.arange(size) for size in sizes.values()])
        self._shapes = tuple(shapes)
        self._index = {name: i for i, name in enumerate(names)}
        self._sources = frozenset(sources)
        self._recorded: dict[bytes, int] = {}
        for i, digest in enumerate(_digests(inputs)):
            self._recorded.setdefault(digest, i)
        last = len(names) - 1
        self._layers = tuple(
            Layer(name, "recorded", shapes[i], "other" if i == 0 else "output" if i == last else "activation")
            for name, i in self._index.items()
            if 1 <= len(shapes[i]) <= 4
        )
        seen = {layer.name for layer in self._layers}
        self._refused = {
            name: f"each of its activations has shape {shapes[i]}; expected 1 to 4 axes, of which the last counts units"
            for name, i in self._index.items()
            if name not in seen
        }

    @property
    def layers(self) -> tuple[str, ...]:
        """Every observable layer, in the order of their folders."""
        return tuple(layer.name for layer in self._layers)

    @property
    def refused(self) -> Mapping[str, str]:
        """Layers that were recorded but cannot be observed -> the reason."""
        return self._refused

    def describe(self, inputs: Array) -> tuple[Layer, ...]:
        """Every observable layer. Which ones lie between input and output somebody chose before us: their role is "activation"."""
        self._places(inputs)
        return self._layers

    def undisturbed(self) -> AbstractContextManager[object]:
        """Nothing: there is nothing here to disturb."""
        return nullcontext()

    def outputs(self, inputs: Array) -> Float32:
        """(n, k) what the last layer recorded; raises ValueError where that has another shape."""
        self.n_classes(inputs)  # for its error
        return self._rows("acts", len(self._shapes) - 1, self._places(inputs))

    def n_classes(self, inputs: Array) -> int:
        """k of the outputs (n, k); raises ValueError where the last layer recorded another shape."""
        shape = self._shapes[len(self._shapes) - 1]
        if len(shape) != 1:
            raise ValueError(f"the network's output has shape {(len(inputs), *shape)}; expected (n, k), one score per class")
        return shape[0]

    def activations(self, inputs: Array, layers: Sequence[str]) -> dict[str, Float32]:
        """{layer: (n, h, w, u) | (n, t, u) | (n, u)} as they were recorded."""
        places = self._places(inputs)
        return {name: self._rows("acts", index, places) for name, index in self._chosen(layers).items()}

    @np.errstate(invalid="ignore")  # a diverged network: infinity minus infinity is NaN, which is what it is
    def responses(self, inputs: Array, layers: Sequence[str]) -> Responses:
        """The mean, lowest and highest activation of each unit over positions, per input, and the output where it is (n, k)."""
        places = self._places(inputs)
        mean: dict[str, Float32] = {}
        low: dict[str, Float32] = {}
        high: dict[str, Float32] = {}
        for name, index in self._chosen(layers).items():
            activation = self._rows("acts", index, places)
            positions = tuple(range(1, activation.ndim - 1))
            mean[name], low[name], high[name] = _mean(activation), activation.min(axis=positions), activation.max(axis=positions)
        last = len(self._shapes) - 1
        return Responses(mean, low, high, self._rows("acts", last, places) if len(self._shapes[last]) == 1 else None)

    def peaks(self, inputs: Array, layers: Sequence[str], k: int, floors: Mapping[str, Float32], by: Height = "maximum") -> Peaks:
        """Each unit's value for each input, and where, of the k largest, those above the unit's floor (u,) have their maximum."""
        found = {name: heights(values, by) for name, values in self.activations(inputs, layers).items()}
        return Peaks({name: v for name, (v, _) in found.items()}, {name: among_largest(v, p, k, floors[name]) for name, (v, p) in found.items()})

    @np.errstate(invalid="ignore", over="ignore")
    def group_sums(self, inputs: Array, groups: Int64, n_groups: int, layers: Sequence[str], spatial: Spatial = "mean") -> dict[str, Float32]:
        """{layer: (g, u)} sums over each group's inputs of the mean over positions; "keep": (g, h, w, u), every position.

        Summed in float32 and in the order of the inputs, as the frameworks do.
        """
        groups = checked_groups(groups, n_groups, len(inputs))
        places = self._places(inputs)
        sums: dict[str, Float32] = {}
        for name, index in self._chosen(layers).items():
            activation = self._rows("acts", index, places)
            rows = _mean(activation) if spatial == "mean" else activation
            sums[name] = np.zeros((n_groups, *rows.shape[1:]), np.float32)
            for group, row in zip(groups, rows):
                sums[name][group] += row
        return sums

    def vjp(self, inputs: Array, layer: str, cotangent: Array, wrt: Sequence[str]) -> dict[str, Float32]:
        """{name: gradient of sum(cotangent * output)} for the one cotangent whose gradients were recorded.

        That is (n, k) with a one at each input's largest output and zeros elsewhere; `layer` is "output" or the last layer's
        name, and wrt names the layers before it, or "input". An input whose outputs are not all finite has no
        predicted class: whatever its cotangent, its gradient is NaN.
        Raises ValueError for any other question, saying what was recorded.
        """
        last = len(self._shapes) - 1
        if layer != "output" and self._index.get(layer) != last:
            raise ValueError(f"no gradient of {layer!r} was recorded in {self.folder}, only of the output, {list(self._index)[last]!r}")
        named = {"input": 0, "output": last} | self._index
        if any(named.get(name) == last for name in wrt):
            raise ValueError("no gradient by 'output', which nothing depends on; `wrt` names layers, or 'input'")
        sources = {name: named[name] for name in wrt if named.get(name) in self._sources}
        missing = [name for name in wrt if name not in sources]
        if missing:
            held = [name for name, index in self._index.items() if index in self._sources]
            raise ValueError(f"no gradient by {missing} was recorded: {self.folder / 'grads'} holds those by {held}; record the others too")
        places = self._places(inputs)
        logits = self.outputs(inputs)
        finite = np.asarray(np.isfinite(logits).all(axis=1))
        self._check_cotangent(logits, finite, cotangent)
        found = {name: self._rows("grads", index, places) for name, index in sources.items()}
        for values in found.values():
            values[~finite] = np.nan
        return found

    def explained(self, inputs: Array, layers: Sequence[str], classes: Int64 | None = None) -> Explained:
        """The recorded activations of layers and gradients by them; classes other than the predicted ones raise ValueError as in `vjp`."""
        logits = self.outputs(inputs)
        chosen = logits.argmax(axis=1) if classes is None else checked_classes(classes, *logits.shape)
        cotangent = np.asarray(chosen[:, None] == np.arange(logits.shape[1]), np.float32)
        return Explained(self.activations(inputs, layers), self.vjp(inputs, "output", cotangent, layers), logits)

    def full_gradient(self, inputs: Array, classes: Int64) -> FullGradient:
        """Raises ValueError: activations and gradients were recorded, and no biases."""
        raise ValueError(self._without_biases())

    def attributions(
        self, inputs: Array, classes: Int64, *, gradient: bool = False, biases: Collection[Magnitude] = (), layers: Sequence[str] = ()
    ) -> Attributions:
        """Of the recorded gradients what is asked for; raises ValueError for biases as `full_gradient`, and as `vjp`."""
        if biases:
            raise ValueError(self._without_biases())
        logits = self.outputs(inputs)
        chosen = checked_classes(classes, *logits.shape)
        cotangent = np.asarray(chosen[:, None] == np.arange(logits.shape[1]), np.float32)
        found = self.vjp(inputs, "output", cotangent, [*(["input"] if gradient else []), *layers])
        activations = self.activations(inputs, layers)
        maps = {}
        for name in layers:
            alpha = found[name].mean(axis=tuple(range(1, found[name].ndim - 1)))
            maps[name] = np.asarray(np.einsum("nu,n...u->n...", alpha, activations[name]), np.float32)
        return Attributions(logits[np.arange(len(logits)), chosen], found.get("input"), {}, maps)

    def full_gradient_gaps(self, inputs: Array, classes: Int64) -> dict[str, Exact]:
        """Raises ValueError as `full_gradient`."""
        raise ValueError(self._without_biases())

    def fields(self, inputs: Array) -> Mapping[str, Field | NoField]:
        """No field: what was recorded does not say what the layers compute."""
        return {layer.name: NoField("what was recorded", layer.name) for layer in self.describe(inputs) if len(layer.shape) == 3}

    def occluded(self, occlusion: Occlusion, *, batch_size: int = 64) -> Occluded:
        """Raises ValueError: images with something covered were not recorded."""
        raise ValueError(f"what was recorded in {self.folder} answers the recorded inputs alone, and none with a part covered; take a network")

    def occluded_at(self, occlusion: Occlusion, *, batch_size: int = 64) -> Float32:
        """Raises ValueError as `occluded`."""
        return self.occluded(occlusion).at

    def parametrised(self, inputs: Array) -> tuple[str, ...]:
        """Nothing: what was recorded has no parameters."""
        return ()

    def randomised(self, modules: Sequence[str], seed: int) -> AbstractContextManager[Mapping[str, str]]:
        """Raises ValueError: what was recorded has no parameters."""
        raise ValueError(f"what was recorded in {self.folder} has no parameters to draw anew; take a network")

    def shifted(self, shift: Array) -> AbstractContextManager[object]:
        """Raises ValueError: other inputs were not recorded."""
        raise ValueError(f"what was recorded in {self.folder} answers the recorded inputs alone; take a network")

    def _without_biases(self) -> str:
        return f"no full gradient of what was recorded in {self.folder}: there are activations and gradients, and no biases; use saliency.gradient"

    def _check_cotangent(self, logits: Float32, finite: NDArray[np.bool_], cotangent: Array) -> None:
        try:
            weights = np.broadcast_to(np.asarray(cotangent), logits.shape)
        except ValueError as error:
            raise ValueError(f"vjp was given a cotangent {np.shape(cotangent)}; the output is {logits.shape}") from error
        predicted = logits.argmax(axis=1)
        other = np.flatnonzero(finite & (weights != (predicted[:, None] == np.arange(logits.shape[1]))).any(axis=1))
        if len(other):
            first = int(other[0])
            raise ValueError(
                f"the gradients in {self.folder} are of the output of the predicted class, and for {len(other)} of {len(logits)} inputs another "
                f"cotangent was asked for, first at index {first}: {weights[first].tolist()[:12]}, where class {predicted[first]} is predicted; "
                "explain the predicted class, as saliency does with target='predicted'"
            )

    # ---- looking up -------------------------------------------------------------------------------------------------

    def _places(self, inputs: Array) -> Int64:
        """(n,) which of the recorded inputs each input is."""
        shown = np.asarray(inputs)
        if shown.shape[1:] != self._shapes[0]:
            raise ValueError(f"inputs have shape {shown.shape}; those recorded in {self.folder} have (n, {', '.join(map(str, self._shapes[0]))})")
        found = [self._recorded.get(digest) for digest in _digests(shown)]
        unknown = [i for i, place in enumerate(found) if place is None]
        if unknown:
            raise ValueError(
                f"{len(unknown)} of {len(found)} inputs were not recorded in {self.folder}, first at index {unknown[0]}; a recorded network "
                "answers for the inputs of the probe that was read with it, any of them and in any order, but unchanged"
            )
        return np.array(found, np.int64)

    def _chosen(self, layers: Sequence[str]) -> dict[str, int]:
        reasons = [f"{name!r} cannot be observed: {self._refused[name]}" for name in layers if name in self._refused]
        missing = [name for name in layers if name not in self._index]
        if missing:
            reasons.append(f"no layer named {missing}; this network has {list(self.layers)}")
        if reasons:
            raise ValueError("; ".join(reasons))
        return {name: self._index[name] for name in layers}

    def _rows(self, kind: Kind, index: int, places: Int64) -> Float32:
        """(n, ...) what was recorded of a layer for these of the recorded inputs; a copy."""
        rows = np.empty((len(places), *self._shapes[index]), np.float32)
        for batch in np.unique(self._batch[places]):
            here = self._batch[places] == batch
            # Opened anew for each question: all layers' batches can be more files than a process may hold open.
            rows[here] = _opened(self.folder / kind / layer_folder(index) / self._files[batch])[self._row[places[here]]]
        return rows


def _mean(activation: Float32) -> Float32:
    """(n, u) over positions; in float64 on the way, which no order of adding changes noticeably."""
    positions = tuple(range(1, activation.ndim - 1))
    return activation.mean(axis=positions, dtype=np.float64).astype(np.float32) if positions else activation


def _digests(inputs: Array) -> Iterator[bytes]:
    """What tells inputs apart: a sha256 of each one's float32 values."""
    for row in np.asarray(inputs, np.float32):
        yield hashlib.sha256(row.tobytes()).digest()


# ---- files -----------------------------------------------------------------------------------------------------------


class _Batch(NamedTuple):
    file: str
    group: str
    label: str | None


def _corpus(path: Path) -> list[_Batch]:
    """The lines of corpus.csv, checked; in their order, which is that of the inputs."""
    if not path.is_file():
        raise FileNotFoundError(
            f"no recorded activations in {path.parent}: it holds no {path.name}; copy the one of the data folder beside acts/, "
            "a line file,group for each batch"
        )
    batches: list[_Batch] = []
    for number, line in enumerate(_text(path).splitlines(), 1):
        fields = line.split(",")
        if len(fields) not in (2, 3):
            raise ValueError(
                f"{path}, line {number}, has {len(fields)} fields: {line!r}; expected file,group or file,group,label, "
                "where no name of a group or label holds a comma"
            )
        batches.append(_Batch(fields[0], fields[1], fields[2] if len(fields) == 3 else None))
    files = [batch.file for batch in batches]
    if not files:
        raise ValueError(f"{path} is empty; expected a line file,group for each batch")
    if len({batch.label is None for batch in batches}) > 1:
        raise ValueError(
            f"{path} has lines of 2 and of 3 fields; expected file,group or file,group,label throughout, "
            "where no name of a group or label holds a comma"
        )
    if foreign := [file for file in files if not _BATCH.fullmatch(file)]:
        raise ValueError(f"{path} names the files {foreign[:3]}; batch files are named {batch_file(0)}, {batch_file(1)}, ..., without folders")
    if missing := sorted({batch_file(i) for i in range(len(files))} - set(files)):
        raise ValueError(
            f"{path} has {len(files)} lines and none for {missing[:3]}; expected {batch_file(0)} to {batch_file(len(files) - 1)}, once each"
        )
    if unknown := [batch.file for batch in batches if not batch.group]:
        raise ValueError(f"{path} gives {unknown[:3]} no group; expected file,group with a name for the group of each batch")
    return batches


def _check_group_index(place: Path, corpus: Sequence[_Batch]) -> None:
    files: dict[str, list[str]] = {}
    for batch in corpus:
        files.setdefault(batch.group, []).append(batch.file)
    for name, expected in group_index(files).items():
        if (place / name).exists() and (found := _json(place / name)) != expected:
            raise ValueError(
                f"{place / name} says {found}, and {CORPUS} says {expected}; remove the file that is wrong (the JSON files may be left out)"
            )


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text: {error}; expected UTF-8") from error


def _json(path: Path) -> object:
    try:
        return json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}; write it anew, or remove it, as it may be left out") from error


def _layer_shapes(place: Path, corpus: Sequence[_Batch]) -> tuple[list[int], list[tuple[int, ...]]]:
    """The number of inputs in each batch, and the shape of one input's activation in each layer."""
    acts = place / "acts"
    found = sorted(path.name for path in acts.iterdir() if path.is_dir()) if acts.is_dir() else []
    if len(found) < 2 or set(found) != {layer_folder(i) for i in range(len(found))}:
        raise FileNotFoundError(
            f"{acts} holds the folders {found}; expected {layer_folder(0)} with the inputs, {layer_folder(1)}, ... without gaps, "
            "the last with the outputs"
        )
    sizes: list[int] = []
    shapes = []
    for i in range(len(found)):
        arrays = [array.shape for array in _arrays(acts / layer_folder(i), corpus)]
        sizes = sizes or [shape[0] for shape in arrays]
        for batch, shape, size in zip(corpus, arrays, sizes):
            if shape != (size, *arrays[0][1:]):
                raise ValueError(
                    f"{acts / layer_folder(i) / batch.file} has shape {shape}; expected {(size, *arrays[0][1:])}, the rows that {batch.file} has in "
                    f"{layer_folder(0)} and the axes that {corpus[0].file} has in {layer_folder(i)}"
                )
        shapes.append(arrays[0][1:])
    return sizes, shapes


def _gradient_sources(place: Path, corpus: Sequence[_Batch], shapes: Sequence[tuple[int, ...]]) -> list[int]:
    """The layers by which gradients were recorded; each gradient has the shape of the activation."""
    sources = [i for i in range(len(shapes) - 1) if (place / "grads" / layer_folder(i)).is_dir()]
    for i in sources:
        for batch, gradient in zip(corpus, _arrays(place / "grads" / layer_folder(i), corpus)):
            expected = _opened(place / "acts" / layer_folder(i) / batch.file).shape
            if gradient.shape != expected:
                path = place / "grads" / layer_folder(i) / batch.file
                raise ValueError(f"{path} has shape {gradient.shape}; expected {expected}, that of the activations in acts/")
    return sources


def _arrays(folder: Path, corpus: Sequence[_Batch]) -> Iterator[Float32]:
    """The batches of one layer, left on disk."""
    wanted, held = {batch.file for batch in corpus}, {path.name for path in folder.glob("*.npy")}
    if extra := sorted(held - wanted):
        raise ValueError(f"{folder} holds {extra[:3]}, of unknown group: {CORPUS} has no line for them; add one each, or remove the files")
    if missing := sorted(wanted - held):
        raise FileNotFoundError(f"{folder} lacks {missing[:3]}, which {CORPUS} names; every layer holds one file for each of its lines")
    for batch in corpus:
        yield _opened(folder / batch.file)


def _opened(path: Path) -> Float32:
    """A file's (n, ...) array, left on disk; files of Python objects, which need not be arrays at all, are not loaded."""
    try:
        values: Float32 = np.lib.format.open_memmap(path, mode="r")
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is no file of a numpy array of numbers: {error}; write it with numpy.save, as float32") from error
    if values.dtype != np.float32 or values.ndim < 1:
        raise ValueError(f"{path} holds an array of shape {values.shape} and dtype {values.dtype}; expected (n, ...) float32")
    return values


def _finite(path: Path) -> Float32:
    """The inputs of one batch, left on disk."""
    values = _opened(path)
    bad = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
    if len(bad):
        raise ValueError(f"{path} holds NaN or infinity in {len(bad)} of {len(values)} inputs, first in row {bad[0]}; inputs are finite numbers")
    return values


def _layer_names(path: Path, n: int) -> list[str]:
    """The names of n layers: those in the file, or the names of their folders where there is no file."""
    folders = [layer_folder(i) for i in range(n)]
    if not path.exists():
        return folders
    found = _json(path)
    names = [found.get(folder) for folder in folders] if isinstance(found, dict) and len(found) == n else []
    given = [name for name in names if isinstance(name, str)]
    if len(set(given)) < n or "input" in given[1:] or "output" in given[:-1]:
        raise ValueError(
            f"{path} says {found}; expected a name for each of {folders}, all distinct, 'input' for none but the first and 'output' for none "
            "but the last; write it anew, or remove it, as it may be left out"
        )
    return given
