"""The nouns everything else speaks in: probe set, layer, network, snapshot, findings, analysis, tracker.

numpy arrays, channels-last, cross every border here; no framework is imported. Shape letters: n inputs, g groups,
u units, h w c image axes, t tokens, k classes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from netlapse.recording import Recording
    from netlapse.statistics import GroupStatistics

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Exact = Float32 | Float64
"""In the precision of the network, but at least float32."""
Int64 = NDArray[np.int64]
UInt8 = NDArray[np.uint8]
Array = NDArray[np.generic]
A = TypeVar("A", bound=Array)
Spatial = Literal["mean", "keep"]
Magnitude = Literal["terms", "gradients"]
Height = Literal["maximum", "mean"]
LARGEST_RESPONSES = 2 * 2**30
"""Bytes of responses to single inputs above which `Snapshot.responses` refuses to start."""
Role = Literal["activation", "block", "output", "weights", "other"]


@dataclass(frozen=True, eq=False)
class ProbeSet:
    """The fixed inputs a network is shown at every checkpoint.

    inputs      (n, ...) float32, channels-last; integers only where they are token ids (n, t)
    labels      (n,) integers, the index of each input's class
    class_names one name per class; when empty, the classes are named by their numbers
    attributes  name -> (n,) strings, for groupings by attribute
    ids         (n,) strings that tell the inputs apart across data sets; the position when not given

    Raises ValueError for a wrong shape or length, NaN or infinite inputs, labels out of range, repeated ids.
    """

    inputs: Array
    labels: Int64
    class_names: Sequence[str] = ()
    attributes: Mapping[str, NDArray[np.str_]] = field(default_factory=dict)
    ids: NDArray[np.str_] | None = None

    def __post_init__(self) -> None:
        inputs, labels = np.asarray(self.inputs), np.asarray(self.labels)
        if inputs.ndim < 2 or len(inputs) == 0:
            raise ValueError(f"probe inputs have shape {inputs.shape}; expected (n, ...) with n >= 1 and at least one more axis")
        if np.issubdtype(inputs.dtype, np.integer) and inputs.ndim == 2:
            inputs = inputs.astype(np.int64)  # token ids stay integers: an embedding looks them up
        elif np.issubdtype(inputs.dtype, np.floating):
            inputs = inputs.astype(np.float32)
        else:
            raise ValueError(
                f"probe inputs have dtype {inputs.dtype} and shape {inputs.shape}; expected floats, scaled as in training "
                "(integers are taken as token ids and only in two dimensions)"
            )
        if inputs.dtype == np.float32:
            bad = np.flatnonzero(~np.isfinite(inputs).reshape(len(inputs), -1).all(axis=1))
            if len(bad):
                raise ValueError(f"probe inputs hold NaN or infinity in {len(bad)} of {len(inputs)} inputs, first at index {bad[0]}")
        if labels.shape != (len(inputs),) or not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(
                f"probe labels have shape {labels.shape} and dtype {labels.dtype}; expected ({len(inputs)},) integers, one class index per input"
            )
        names = tuple(str(name) for name in self.class_names) or tuple(str(k) for k in range(int(labels.max()) + 1))
        outside = labels[(labels < 0) | (labels >= len(names))]
        if len(outside):
            raise ValueError(
                f"probe labels hold {sorted(set(outside.tolist()))[:5]}; allowed are 0 to {len(names) - 1}, for the classes {list(names)[:12]}"
            )
        attributes = {str(name): np.asarray(values).astype(str) for name, values in self.attributes.items()}
        for name, values in attributes.items():
            if values.shape != labels.shape:
                raise ValueError(f"probe attribute {name!r} has shape {values.shape}; expected {labels.shape}, one value per input")
        ids = np.arange(len(labels)).astype(str) if self.ids is None else np.asarray(self.ids).astype(str)
        if ids.shape != labels.shape or len(np.unique(ids)) != len(ids):
            raise ValueError(f"probe ids have shape {ids.shape} with {len(np.unique(ids))} distinct values; expected {labels.shape}, all distinct")
        for name, value in (
            ("inputs", inputs),
            ("labels", labels.astype(np.int64)),
            ("class_names", names),
            ("attributes", attributes),
            ("ids", ids),
        ):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def hash(self) -> str:
        """sha256 over inputs, labels, class names, attributes and ids: equal hashes, equal probes, and the reverse."""
        digest = hashlib.sha256()
        arrays = {"inputs": self.inputs, "labels": self.labels, "class_names": np.asarray(self.class_names), "ids": np.asarray(self.ids)}
        arrays |= {f"attribute {name}": values for name, values in sorted(self.attributes.items())}
        for name, values in arrays.items():
            if values.dtype.kind == "U":
                values = np.array(values.tolist())  # equal strings may lie in wider and narrower arrays
            digest.update(f"{name} {values.dtype.str} {values.shape}".encode())
            digest.update(np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()

    def take(self, indices: NDArray[np.integer]) -> ProbeSet:
        """The probe of the chosen inputs, with the same classes."""
        assert self.ids is not None
        attributes = {name: values[indices] for name, values in self.attributes.items()}
        return ProbeSet(self.inputs[indices], self.labels[indices], self.class_names, attributes, self.ids[indices])


@dataclass(frozen=True)
class Layer:
    """One observable place in a network.

    shape  of one input's activation, channels-last: (h, w, u), (t, u) or (u,)
    role   "activation" (the output of a nonlinearity), "block" (a container that ends in something of its own, as a
           residual sum), "output" (the network's own output), "weights" (has parameters), "other"
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    role: Role

    @property
    def units(self) -> int:
        return self.shape[-1]


@dataclass(frozen=True, eq=False)
class Responses:
    """What one batch made each unit do, reduced over positions: every field layer -> (n, u) float32.

    mean, low, high   over the layer's positions (all three are the value itself for a dense layer)
    outputs           (n, k) the network's logits (see `Network.outputs`); None where its output is not of that shape
    """

    mean: Mapping[str, Float32]
    low: Mapping[str, Float32]
    high: Mapping[str, Float32]
    outputs: Float32 | None


@dataclass(frozen=True, eq=False)
class Peaks:
    """Where one batch activated each unit most: every field layer -> (n, u).

    values  float32 the highest activation over the layer's positions, or their mean
    places  integers, the position of the highest in row-major order, of equal ones the first (a NaN is highest), 0 for a
            dense layer; -1 where the value is not among the unit's k largest of this batch, or not above its floor
    """

    values: Mapping[str, Float32]
    places: Mapping[str, Int64]


@dataclass(frozen=True, eq=False)
class Explained:
    """What one batch made layers do, and what the logit of each input's class makes of it.

    activations, gradients   layer -> (n, h, w, u) | (n, t, u) | (n, u) float32      outputs   (n, k) the logits
    """

    activations: Mapping[str, Float32]
    gradients: Mapping[str, Float32]
    outputs: Float32


@dataclass(frozen=True)
class Field:
    """The theoretical receptive field of a layer's units (Araujo, Norris & Sim, 2019): what of an image each of them can see.

    The unit at position (i, j) sees rows offset[0] + i * stride[0] and so on, size[0] of them, and columns likewise. Some may
    lie outside of the image, at padding. A stride of 0: all units see the same, as after a mean over all positions.
    """

    size: tuple[int, int]
    stride: tuple[int, int]
    offset: tuple[int, int]


@dataclass(frozen=True)
class NoField:
    """Why the theoretical field of a layer is not known: the operation that hides it, and the layer (module call) it ran in."""

    operation: str
    layer: str


@dataclass(frozen=True, eq=False)
class Occlusion:
    """Squares of an image in which another is seen, one after the other, and which units of a layer are looked at meanwhile.

    image        (h, w, c)
    layer        whose activation is (h', w', u)
    corners      (p, 2) row and column of each occluder's upper left pixel; it may lie partly outside of the image
    side         of the occluder, in pixels
    replacement  (h, w, c) what is seen inside: a constant, noise and a blur are all the same
    units        (m,) indices            places  (m, 2) row and column of each one's own place on the layer
    """

    image: Float32
    layer: str
    corners: Int64
    side: int
    replacement: Float32
    units: Int64
    places: Int64


@dataclass(frozen=True, eq=False)
class Occluded:
    """What occluders make of the units of a layer: one row for each occluder.

    at       (p, u) each unit's activation at its own place
    highest  (p, u) its highest activation at any place
    batched  why whole images were shown to the network, which gives the same numbers and takes longer; "" where they were not
    """

    at: Float32
    highest: Float32
    batched: str = ""


@dataclass(frozen=True, eq=False)
class FullGradient:
    """The score of each input's class as a sum: of gradient x input, and of the terms, over everything but the batch.

    gradient  (n, ...) by the inputs; float64 only where all of the network computes in it
    terms     layer, or operation in it -> (n, ...) channels-last, the gradient by its output x its bias
    scores    (n,) the logits of the classes
    images    the names of the terms (n, h, w, u) whose h and w are those of an image
    """

    gradient: Exact
    terms: Mapping[str, Exact]
    scores: Exact
    images: frozenset[str]


@dataclass(frozen=True, eq=False)
class Sizes:
    """Absolute values (n, h, w, u): their sum over units `map` (n, h, w), the lowest `low` and the highest `high` of each input (n,)."""

    map: Exact
    low: Exact
    high: Exact


@dataclass(frozen=True, eq=False)
class BiasMagnitude:
    """What maps take of one term of a full gradient.

    shape   of one input's term, channels-last
    total   (n,) the term's sum         mass  (n,) the sum of its absolute values
    sizes   of the term, of the gradient at its bias, as was asked for; empty where the term is not that of an image
    """

    shape: tuple[int, ...]
    total: Exact
    mass: Exact
    sizes: Mapping[Magnitude, Sizes] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Attributions:
    """What one forward and one backward tell of the score of each input's class, reduced to what maps take; nothing that was not asked for.

    scores    (n,) the logits of the classes
    gradient  (n, ...) by the inputs; float64 only where all of the network computes in it
    terms     of a `FullGradient`, by their names
    maps      layer -> (n, h, w) float32, the sum over units of activation x mean over positions of the gradient by it
    """

    scores: Exact
    gradient: Exact | None = None
    terms: Mapping[str, BiasMagnitude] = field(default_factory=dict)
    maps: Mapping[str, Float32] = field(default_factory=dict)


class Network(Protocol):
    """A network as analyses see it: numpy in, numpy out, channels-last, and nothing about it changed afterwards."""

    @property
    def layers(self) -> tuple[str, ...]: ...

    @property
    def refused(self) -> Mapping[str, str]:
        """Layers that exist but cannot be observed -> why."""
        ...

    def describe(self, inputs: Array) -> tuple[Layer, ...]:
        """Every observable layer in execution order, learnt from the first inputs shown."""
        ...

    def undisturbed(self) -> AbstractContextManager[object]:
        """Evaluation mode inside; modes, buffers, random states and gradients as before outside. Re-entrant."""
        ...

    def outputs(self, inputs: Array) -> Float32:
        """(n, k) the logits: the network's output, or what goes into the softmax or sigmoid that it ends in."""
        ...

    def n_classes(self, inputs: Array) -> int:
        """k, learnt from the first inputs shown; raises ValueError where the output is no score per class."""
        ...

    def activations(self, inputs: Array, layers: Sequence[str]) -> dict[str, Float32]: ...

    def responses(self, inputs: Array, layers: Sequence[str]) -> Responses: ...

    def peaks(self, inputs: Array, layers: Sequence[str], k: int, floors: Mapping[str, Float32], by: Height = "maximum") -> Peaks:
        """Each unit's value for each input, and where, of the k largest, those above the unit's floor (u,) have their maximum."""
        ...

    def group_sums(self, inputs: Array, groups: Int64, n_groups: int, layers: Sequence[str], spatial: Spatial = "mean") -> dict[str, Float32]: ...

    def vjp(self, inputs: Array, layer: str, cotangent: Array, wrt: Sequence[str]) -> dict[str, Float32]: ...

    def explained(self, inputs: Array, layers: Sequence[str], classes: Int64 | None = None) -> Explained:
        """Activations, and the gradient by them of the logit of each input's class (None: the predicted one), in one pass."""
        ...

    def full_gradient(self, inputs: Array, classes: Int64) -> FullGradient:
        """The logit of each input's class as the sum of an input term and of one term for every bias, in one pass."""
        ...

    def attributions(
        self, inputs: Array, classes: Int64, *, gradient: bool = False, biases: Collection[Magnitude] = (), layers: Sequence[str] = ()
    ) -> Attributions:
        """Of the logit of each input's class what is asked for, in one pass.

        gradient  by the inputs     biases  the full gradient, with the sizes of its terms, of the gradients at biases; and the gradient
        layers    whose class activation maps
        """
        ...

    def full_gradient_gaps(self, inputs: Array, classes: Int64) -> Mapping[str, Exact]:
        """Layer -> (n,) what it adds to the score that no term accounts for; "" is the network's own forward."""
        ...

    def fields(self, inputs: Array) -> Mapping[str, Field | NoField]:
        """Every layer (h, w, u) -> the theoretical receptive field of its units, for images of this size, from the actual graph."""
        ...

    def occluded(self, occlusion: Occlusion, *, batch_size: int = 64) -> Occluded:
        """What occluders make of the units of a layer; where whole images are shown, so many at a time."""
        ...

    def occluded_at(self, occlusion: Occlusion, *, batch_size: int = 64) -> Float32:
        """(p, m) the same at each unit's own place alone, for a few units."""
        ...

    def parametrised(self, inputs: Array) -> tuple[str, ...]:
        """What has parameters of its own, in execution order; "" is the network itself."""
        ...

    def randomised(self, modules: Sequence[str], seed: int) -> AbstractContextManager[Mapping[str, str]]:
        """Inside, the parameters of these are drawn anew; gives how, by name: drawn, permuted, or both."""
        ...

    def shifted(self, shift: Array) -> AbstractContextManager[object]:
        """Inside, the network answers inputs + shift, of one input's shape, as it answers the inputs outside."""
        ...


class Grouping(Protocol):
    """(probe, logits (n, k) | None) -> (groups (n,) integers, group names).

    With an attribute `reads_logits` that is False it is called once per probe, with None. Otherwise it is called for
    each batch of a streaming pass, so the group of an input may depend on that input's row alone, and the names on
    nothing but the classes.
    """

    def __call__(self, probe: ProbeSet, logits: Float32 | None, /) -> tuple[Int64, tuple[str, ...]]: ...


@dataclass(eq=False)
class Answers:
    """What a network was asked at one snapshot, so that it is asked once.

    statistics  of the forward pass that all analyses share; None until one asks
    arrays      the rest, by scope and name: see `Snapshot.once`
    show        makes that pass, where several processes share it; None: this process makes it alone
    """

    statistics: GroupStatistics | None = None
    arrays: dict[str, Array] = field(default_factory=dict)
    show: Callable[[Snapshot], GroupStatistics] | None = None


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A network at one step, and what to show it: all an analysis may look at.

    step 0 is the initialised network, step e is after e epochs (or e optimiser steps, where the schedule counts those).
    `statistics` is computed by the first analysis that asks and shared by all: one forward pass of the probe.

    scope  the name of the analysis that is looking, for what is its own among the answers
    """

    network: Network
    probe: ProbeSet
    step: int
    layers: str | Sequence[str] = "auto"
    grouping: Grouping | None = None
    batch_size: int = 64
    answers: Answers = field(default_factory=Answers)
    scope: str = ""

    @cached_property
    def layer_names(self) -> tuple[str, ...]:
        from netlapse.layers import select

        return select(self.network.describe(self.probe.inputs[:2]), self.layers, refused=self.network.refused)

    @property
    def statistics(self) -> GroupStatistics:
        from netlapse.probe import by_label
        from netlapse.statistics import group_statistics

        if self.answers.statistics is None:
            self.answers.statistics = (
                self.answers.show(self)
                if self.answers.show is not None
                else group_statistics(self.network, self.probe, self.grouping or by_label, self.layer_names, batch_size=self.batch_size)
            )
        return self.answers.statistics

    @property
    def responses(self) -> Mapping[str, Float32]:
        """layer -> (n, u) each unit's response, its mean activation over positions, to each input: a forward pass of its own, made once.

        For what cannot be told from sums. Raises ValueError where they would take more than 2 GiB.
        """
        known = self.answers.arrays
        if any(f"responses/{layer}" not in known for layer in self.layer_names):
            units = sum(layer.units for layer in self.network.describe(self.probe.inputs[:2]) if layer.name in self.layer_names)
            size = 4 * len(self.probe) * units
            if size > LARGEST_RESPONSES:
                raise ValueError(
                    f"the responses of {units} units in {len(self.layer_names)} layers to {len(self.probe)} inputs would take "
                    f"{len(self.probe)} x {units} x 4 bytes = {size / 2**30:.1f} GiB, more than {LARGEST_RESPONSES / 2**30:.0f}; "
                    "observe fewer layers or show fewer inputs"
                )
            parts: dict[str, list[Float32]] = {layer: [] for layer in self.layer_names}
            with self.network.undisturbed():
                for start in range(0, len(self.probe), self.batch_size):
                    shown = self.network.responses(self.probe.inputs[start : start + self.batch_size], self.layer_names)
                    for layer, rows in parts.items():
                        rows.append(shown.mean[layer])
            known |= {f"responses/{layer}": np.concatenate(rows) for layer, rows in parts.items()}
        return {layer: cast(Float32, known[f"responses/{layer}"]) for layer in self.layer_names}

    def once(self, name: str, compute: Callable[[], A]) -> A:
        """What `compute` returns, computed once per analysis of an observer and name; each time where no observer is.

        For what is costly to ask of the network and depends on this snapshot alone: where checkpoints are analysed in
        parallel, it is this that is done in parallel, and what depends on the checkpoint before is added in order.
        """
        if not self.scope:  # the options of whoever asks are not known to be the same the next time
            return cast(A, np.asarray(compute(), order="C"))
        key = f"{self.scope}/{name}"
        if key not in self.answers.arrays:
            self.answers.arrays[key] = np.asarray(compute(), order="C")
        return cast(A, self.answers.arrays[key])

    def within(self, scope: str) -> Snapshot:
        """The same, looked at by the analysis of this name."""
        return replace(self, scope=scope)


@dataclass(frozen=True, eq=False)
class Findings:
    """What an analysis found at one step.

    arrays   name -> array, stored raw and exactly; no objects, so that no pickle is ever needed
    scalars  metric name -> number; NaN where a value is undefined
    images   image key -> (h, w, 3) uint8

    Raises ValueError for an object array and for an image that is not (h, w, 3) uint8.
    """

    arrays: Mapping[str, Array] = field(default_factory=dict)
    scalars: Mapping[str, float] = field(default_factory=dict)
    images: Mapping[str, UInt8] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # In one order: a sum over an array depends in its last bit on how it lies in memory, and from a file it comes in this one.
        arrays = {name: np.asarray(values, order="C") for name, values in self.arrays.items()}
        for name, values in arrays.items():
            if values.dtype.hasobject:
                raise ValueError(f"findings array {name!r} holds Python objects; expected numbers, booleans or strings")
        for key, image in self.images.items():
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise ValueError(f"findings image {key!r} has shape {image.shape} and dtype {image.dtype}; expected (h, w, 3) uint8")
        object.__setattr__(self, "arrays", arrays)
        object.__setattr__(self, "scalars", {name: float(value) for name, value in self.scalars.items()})


Analysis = Callable[[Snapshot, Findings | None], Findings]
"""A pure function of a snapshot and of its own findings at the checkpoint before (None at the first)."""


F = TypeVar("F", bound=Callable[..., Findings])


def checked_by(check: Callable[..., None]) -> Callable[[F], F]:
    """Marks an analysis with what can be known before training: `check(snapshot, **options)` is called once and raises ValueError for what
    would fail at every step. The options are those bound to the analysis, and of all others its own defaults."""

    def marked(analysis: F) -> F:
        defaults = {name: option.default for name, option in signature(analysis).parameters.items() if option.default is not option.empty}

        def checked(snapshot: Snapshot, **options: object) -> None:
            check(snapshot, **{**defaults, **options})

        analysis.check = checked  # type: ignore[attr-defined]
        return analysis

    return marked


def ungrouped(analysis: F) -> F:
    """Marks an analysis whose findings are the same whatever the grouping: asked for with another one, it is the same question."""
    analysis.ungrouped = True  # type: ignore[attr-defined]
    return analysis


class Tracker(Protocol):
    """Where findings go. `log` may be called again for an analysis and step: the later call wins.

    What goes wrong is raised, and is for the caller to survive.
    """

    @property
    def manifest(self) -> Mapping[str, object]:
        """What the record says about itself so far; empty where it is new."""
        ...

    @property
    def steps(self) -> Mapping[str, set[int]]:
        """Analysis -> the steps at which the record holds findings of it."""
        ...

    def start(self, manifest: Mapping[str, object]) -> None:
        """Open the record, also one that was finished, and describe it."""
        ...

    def describe(self, manifest: Mapping[str, object]) -> None:
        """Add to the manifest: later entries replace earlier ones, but those that are mappings are joined."""
        ...

    def log(self, analysis: str, step: int, findings: Findings) -> None: ...

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """The training's own metrics, at its own steps."""
        ...

    def latest(self, analysis: str, before: int) -> Findings | None:
        """The analysis' findings at its last step before the given one: what a resumed training goes on from."""
        ...

    def recording(self) -> Recording:
        """Everything logged so far."""
        ...

    def document(self, name: str, content: str | bytes) -> None:
        """A file beside the findings, as `timelapse.html`; a later one of the same name replaces it."""
        ...

    def read(self, name: str) -> bytes | None:
        """A document of the record; None where it has none of this name."""
        ...

    def table(self, name: str, columns: Mapping[str, Sequence[object]]) -> None:
        """A document `<name>.json` with a table, column by column; a later one of the same name replaces it."""
        ...

    def fetch_checkpoints(self, folder: Path) -> Path | None:
        """A folder with the checkpoints that the record itself keeps, fetched into the given one if need be; None where it keeps none."""
        ...

    def failure(self, what: str, message: str) -> None:
        """Make a failure visible beside the results."""
        ...

    def finish(self, *, failed: bool | None = False) -> None:
        """Close the record; `failed` where the training ended in an error, None where it was interrupted and somebody waits
        for the process to end. A second call does nothing."""
        ...

    def close(self) -> None:
        """Let go of the record, and leave how its training ended as it is known. A second call does nothing."""
        ...

    @property
    def checkpoint_folder(self) -> Path | None:
        """Where the checkpoints of what is recorded belong; None where nothing is written."""
        ...

    @property
    def place(self) -> str:
        """Where to look, for a person."""
        ...
