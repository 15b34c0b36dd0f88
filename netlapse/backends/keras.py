"""Any Keras 3 model seen as a `netlapse.types.Network`, on the TensorFlow and the torch backend, and left exactly as it was.

Functional, Sequential and subclassed models alike are observed by standing in for `layer.call` during one forward. On
TensorFlow that forward is a trace, whose graph reduces activations where they arise; it is run at every checkpoint, and
nothing of the model is touched again. What must hold beside that is what `netlapse.backends.torch` lists.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol

import keras
import numpy as np
from keras.src.backend.common import global_state
from keras.src.random.seed_generator import GLOBAL_SEED_GENERATOR

from netlapse.backends import Part, checked_classes, checked_groups, keras_fields, keras_sanity
from netlapse.backends.heights import among_largest
from netlapse.backends.receptive import field_of
from netlapse.occlusion import occluded
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
    Responses,
    Role,
    Spatial,
)

if TYPE_CHECKING:
    from keras import KerasTensor as Tensor  # of whichever backend
else:
    Tensor = object

_LOGITS = ""  # where no layer's name is
Seen = Callable[[str, Tensor], Tensor | None]
Body = Callable[..., Mapping[str, Tensor]]

_ACTIVATIONS = (keras.layers.Activation, keras.layers.ReLU, keras.layers.LeakyReLU, keras.layers.PReLU, keras.layers.ELU)
_NOT_NONLINEAR = (keras.activations.linear, keras.activations.softmax, keras.activations.log_softmax, keras.activations.sparsemax)
_STEPWISE = (keras.layers.RNN, keras.layers.TimeDistributed)
_CHANNELS_LAST = (keras.layers.Dense, keras.layers.EinsumDense, keras.layers.Embedding, keras.layers.MultiHeadAttention, keras.layers.RNN)
_DATA_FORMATS = {"channels_first": 1, "channels_last": -1}
# One bias each, and not one for each operation that a backend makes them of: as they are in torch.
_ATOMS = (
    *_ACTIVATIONS,
    keras.layers.Softmax,
    keras.layers.BatchNormalization,
    keras.layers.LayerNormalization,
    keras.layers.GroupNormalization,
    keras.layers.RMSNormalization,
    keras.layers.UnitNormalization,
    *_STEPWISE,
    keras.layers.Bidirectional,
)
_NORMS = (keras.layers.BatchNormalization, keras.layers.GroupNormalization)


class _Backend(Protocol):
    """What differs between the backends; see `keras_tensorflow` and `keras_torch`."""

    def run(self, key: object, body: Body, *arrays: Array) -> dict[str, Array]: ...

    def hidden(self, tensor: Tensor) -> str | None: ...

    def mean(self, tensor: Tensor, positions: tuple[int, ...]) -> Tensor: ...

    def extremes(self, tensor: Tensor, positions: tuple[int, ...]) -> tuple[Tensor, Tensor]: ...

    def highest_place(self, rows: Tensor) -> Tensor: ...

    def segment_sum(self, rows: Tensor, groups: Tensor, n_groups: Tensor) -> Tensor: ...

    def gradients(
        self, forward: Callable[[Tensor, Seen], Tensor], score: Callable[[Mapping[str, Tensor]], Tensor], wrt: Sequence[str], tensor: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor | None]]: ...

    def activation_map(self, activation: Tensor, gradient: Tensor, units: int) -> Tensor: ...

    def full_gradient(
        self, forward: Callable[[Tensor, Calls], Tensor], array: Array, units: int, classes: Int64, of: Part, layers: Sequence[str]
    ) -> tuple[Exact, dict[str, Any], Exact, dict[str, Float32]]: ...

    def scores(self) -> AbstractContextManager[Callable[[Tensor], Tensor]]: ...

    def undisturbed(self) -> AbstractContextManager[None]: ...


class Calls(Protocol):
    """What a backend is told of a layer's calls as they begin and end; it may change a call's arguments."""

    def entered(self, call: str, args: Any, kwargs: Any, *, whole: bool) -> tuple[Any, Any]: ...

    def atom(self, function: Callable[..., Any], name: str, args: Any, kwargs: Any, *, constant: bool) -> Any: ...

    def left(self, output: object, watched: Callable[[str], tuple[Tensor, int, int] | None] = ...) -> tuple[Tensor, Tensor] | None: ...


@dataclass(frozen=True, eq=False)
class _Call:
    """One call of a layer, as it happened in the first forward.

    given  the first tensor among its arguments    alone  whether that is the whole of the first argument
    """

    name: str
    layer: keras.Layer
    given: Tensor | None
    alone: bool
    activation: Tensor


@dataclass(frozen=True, eq=False)
class _Description:
    """What inputs of one shape find: the layers, and each one's unit axis in the tensors of the model itself."""

    layers: tuple[Layer, ...]
    unit_axis: Mapping[str, int]
    output_shape: tuple[int, ...]
    refused: Mapping[str, str]


class KerasNetwork:
    """A Keras model as a network of named layers; satisfies `netlapse.types.Network`.

    model           a built keras.Model (or Layer) of one input: functional, Sequential, nested or subclassed
    example         (n, ...) inputs; with them `layers` is known at once; needed where the model does not know its input's shape
    output          which output is the logits where the model returns several: a key of the dict or an index of the list
    channels_first  whether the model wants (n, c, ...); None: where its first layer with a data format does

    A layer goes by its Keras name, one inside others by the names on the way, joined by dots: `block1.conv`. An unnamed
    layer of a subclassed model or layer goes by its attribute (`encoder`, `blocks.0`), because Keras numbers the
    unnamed anew in each process. The second call of a layer used twice is `name.call2`; "output" names the network's
    logits: its output, or what goes into the softmax or sigmoid that it ends in. A layer with a fused activation is observed after it.

    Weights may change at will. What is no variable (layers, their settings) is read once, as by Keras's own train function:
    after changing it, make a new KerasNetwork.

    Raises TypeError for what is no Keras 3 layer, ValueError for a model of several inputs, RuntimeError on a backend other
    than TensorFlow and torch.
    """

    def __init__(
        self, model: keras.Model, *, example: Array | None = None, output: str | int | None = None, channels_first: bool | None = None
    ) -> None:
        if not isinstance(model, keras.Layer):
            raise TypeError(
                f"KerasNetwork was given a {type(model).__module__}.{type(model).__name__}; expected a model of Keras {keras.__version__}"
            )
        if len(names := [tensor.name for tensor in _inputs(model)]) > 1:
            raise ValueError(
                f"model {model.name!r} takes {len(names)} inputs, {names}, and a probe is one array; observe a model of one input that holds "
                "the others fixed, or the nested model that takes only one"
            )
        self.model = model
        self._backend = _backend(model)
        self._output = output
        self._given_format = channels_first
        self._names: dict[keras.Layer, str] = {}
        self._items: set[keras.Layer] = set()
        self._descriptions: dict[tuple[int, ...], _Description] = {}
        if example is not None:
            self.describe(example)

    # ---- layers -----------------------------------------------------------------------------------------------------

    @property
    def layers(self) -> tuple[str, ...]:
        """Every observable layer, in execution order; raises RuntimeError where no input was shown and the model's shape is unknown."""
        if not self._descriptions:
            shapes = [tuple(tensor.shape) for tensor in _inputs(self.model)]
            if not shapes or None in shapes[0][1:]:
                raise RuntimeError(
                    f"the layers of {type(self.model).__name__} are known only after a forward, as it does not know the shape of its inputs; "
                    "pass inputs: KerasNetwork(model, example=inputs)"
                )
            self.describe(self._moved(np.zeros((2, *shapes[0][1:]), np.float32), 1, -1))
        return tuple(layer.name for layer in self._first().layers)

    @property
    def refused(self) -> Mapping[str, str]:
        """Layers that ran or exist but cannot be observed -> the reason."""
        return self._first().refused if self._descriptions else {}

    def describe(self, inputs: Array) -> tuple[Layer, ...]:
        """Every observable layer with its kind, shape and role; `inputs` (n, ...) are run through once for each shape (...)."""
        return self._described(inputs).layers

    def _first(self) -> _Description:
        return next(iter(self._descriptions.values()))

    def _described(self, inputs: Array) -> _Description:
        shape = np.shape(inputs)[1:]
        if shape not in self._descriptions:
            with self.undisturbed():
                self._descriptions[shape] = self._discover(np.asarray(inputs))
        return self._descriptions[shape]

    def _discover(self, inputs: Array) -> _Description:
        # A batch of a size that no axis of the inputs has: a layer that puts the sequence first cannot pass for one with the batch first.
        fixed = [tensor.shape[0] for tensor in _inputs(self.model) if tensor.shape[0] is not None]
        n = fixed[0] if fixed else next(size for size in count(2) if size not in inputs.shape[1:])
        # Not before: a model may make its layers when it is built.
        self._names, self._items, refused = _named_layers(self.model)
        calls: list[_Call] = []
        ends: list[Tensor] = []  # the network's input and its output
        counts: dict[keras.Layer, int] = {}

        def record(layer: keras.Layer, args: tuple[object, ...], output: object) -> None:
            name = _call_name(layer, self._names, counts)
            activation = _first_tensor(output)
            if activation is None:
                refused[name] = f"its output is {_outline(output)}, which holds no floating-point tensor"
            elif why := self._backend.hidden(activation):
                refused[name] = why
            else:
                given = next(filter(keras.ops.is_tensor, keras.tree.flatten(args)), None)
                calls.append(_Call(name, layer, given, given is not None and given is args[0], activation))

        def body(tensor: Tensor) -> dict[str, Tensor]:
            with self._tapped(self._names, record):
                ends[:] = tensor, self._logits(self._call(tensor))
            activations = {call.name: call.activation for call in calls} | {_LOGITS: ends[1]}
            return {name: keras.ops.convert_to_tensor(keras.ops.shape(tensor), "int32") for name, tensor in activations.items()}

        batch = self._arranged(inputs[np.arange(n) % len(inputs)])
        shapes = {name: tuple(shape.tolist()) for name, shape in self._backend.run(None, body, batch).items()}
        if len(shapes) < len(calls) + 1:
            names = [call.name for call in calls]
            raise RuntimeError(f"two layers share a name: {sorted({name for name in names if names.count(name) > 1})}; rename one of each")
        found, unit_axis = self._analysed(calls, shapes, n, ends, refused)
        for name in self._names.values():
            if name not in unit_axis and name not in refused:
                refused[name] = "its own call did not run (another layer uses its weights, or it does not run in evaluation mode)"
        return _Description(found, unit_axis, shapes[_LOGITS][1:], refused)

    def _analysed(
        self, calls: Sequence[_Call], shapes: Mapping[str, tuple[int, ...]], n: int, ends: Sequence[Tensor], refused: dict[str, str]
    ) -> tuple[tuple[Layer, ...], dict[str, int]]:
        """The layers among the calls of a forward, and their unit axes; adds the others to `refused`."""
        model_input, model_output = ends
        last_axis = dict.fromkeys(range(2, 6), -1) | ({3: 1, 4: 1, 5: 1} if self._channels_first else {})
        axes = [(model_input, last_axis.get(len(model_input.shape), -1))]  # every tensor met, and its unit axis
        found: list[tuple[Layer, Tensor]] = []
        unit_axis: dict[str, int] = {}
        last_of_a_block: set[str] = set()
        for call in calls:
            name, layer, shape = call.name, call.layer, shapes[call.name]
            if len(shape) not in (2, 3, 4, 5) or shape[0] != n:
                refused[name] = f"its output has shape {shape} for a batch of {n}; expected the batch first and 2 to 5 axes"
                continue
            if isinstance(layer, keras.layers.TorchModuleWrapper) and len(shape) > 2:
                refused[name] = "a wrapped torch module does not say which axis its units are on; observe the torch module with TorchNetwork"
                continue
            passed_on = _axis_of(call.given, axes) if call.given is not None and len(call.given.shape) == len(shape) else None
            known = _axis_of(call.activation, axes)
            axis = known if known is not None else _declared_axis(layer, passed_on, len(shape))
            axis = last_axis[len(shape)] if axis is None else axis
            last_axis[len(shape)] = axis
            axes.append((call.activation, axis))
            same = [found_layer.name for found_layer, tensor in reversed(found) if tensor is call.activation]
            if _is_container(layer):
                inner = next((inner for inner in same if inner.startswith(self._names[layer] + ".")), None)
                if inner is not None:
                    last_of_a_block |= {inner} if layer in self._items else set()
                    refused[name] = f"its output is that of layer {inner!r}; observe that one"
                    continue
            if name == "input" or (name == "output" and call.activation is not model_output):
                refused[name] = f"the name {name!r} stands for the network's own {name}; rename the layer"
                continue
            positions = [size for i, size in enumerate(shape) if i not in (0, axis % len(shape))]
            role: Role = "other" if call.activation is call.given and same else _role(layer, call)  # what changes nothing is no nonlinearity
            found.append((Layer(name, type(layer).__name__, (*positions, shape[axis]), role), call.activation))
            unit_axis[name] = axis
        layers = (replace(a, role="block") if a.name in last_of_a_block and a.role != "activation" else a for a, _ in found)
        return tuple(replace(a, role="output") if tensor is model_output else a for a, (_, tensor) in zip(layers, found)), unit_axis

    # ---- what analyses ask ------------------------------------------------------------------------------------------

    def outputs(self, inputs: Array) -> Float32:
        """(n, k) the network's logits, also where it ends in a softmax or sigmoid; raises ValueError where its output has another shape."""
        self.n_classes(inputs)  # for its error
        return self._observed("outputs", inputs, [], lambda name, tensor: {})[_LOGITS]

    def n_classes(self, inputs: Array) -> int:
        """k of the logits (n, k), known once `describe` is; raises ValueError where the network's output has another shape."""
        shape = self._described(inputs).output_shape
        if len(shape) != 1:
            raise ValueError(f"the network's output has shape {(len(inputs), *shape)}; expected (n, k), one score per class")
        return shape[0]

    def activations(self, inputs: Array, layers: Sequence[str]) -> dict[str, Float32]:
        """{layer: (n, h, w, u) | (n, t, u) | (n, u)} channels-last copies."""
        axis = self._described(inputs).unit_axis

        def keep(name: str, tensor: Tensor) -> dict[str, Tensor]:
            return {name: keras.ops.copy(keras.ops.moveaxis(tensor, axis[name], -1))}

        found = self._observed("activations", inputs, layers, keep)
        return {name: found[name] for name in layers}

    def responses(self, inputs: Array, layers: Sequence[str]) -> Responses:
        """The mean, lowest and highest activation of each unit over positions, per input, and the logits; one forward."""
        described = self._described(inputs)

        def reduce(name: str, tensor: Tensor) -> dict[str, Tensor]:
            if positions := _positions(tensor, described.unit_axis[name]):
                low, high = self._backend.extremes(tensor, positions)
                return {f"mean {name}": self._backend.mean(_summable(tensor), positions), f"low {name}": low, f"high {name}": high}
            return {f"mean {name}": keras.ops.copy(tensor)}

        found = self._observed("responses", inputs, layers, reduce)
        mean, low, high = ({name: found.get(f"{what} {name}", found[f"mean {name}"]) for name in layers} for what in ("mean", "low", "high"))
        return Responses(mean, low, high, found.get(_LOGITS))

    def peaks(self, inputs: Array, layers: Sequence[str], k: int, floors: Mapping[str, Float32], by: Height = "maximum") -> Peaks:
        """Each unit's value for each input, and where, of the k largest, those above the unit's floor (u,) have their maximum; one forward."""
        described = self._described(inputs)

        def find(name: str, tensor: Tensor) -> dict[str, Tensor]:
            axis = described.unit_axis[name]
            positions = _positions(tensor, axis)
            if not positions:
                return {f"value {name}": keras.ops.copy(tensor)}
            height = self._backend.extremes(tensor, positions)[1] if by == "maximum" else self._backend.mean(_summable(tensor), positions)
            rows = keras.ops.moveaxis(tensor, axis, -1)
            flat = keras.ops.reshape(rows, (keras.ops.shape(rows)[0], -1, rows.shape[-1]))
            return {f"value {name}": height, f"place {name}": self._backend.highest_place(flat)}

        found = self._observed(f"peaks {by}", inputs, layers, find)
        values = {name: found[f"value {name}"].astype(np.float32) for name in layers}
        places = {name: among_largest(height, found.get(f"place {name}", 0), k, floors[name]) for name, height in values.items()}
        return Peaks(values, places)

    def group_sums(self, inputs: Array, groups: Int64, n_groups: int, layers: Sequence[str], spatial: Spatial = "mean") -> dict[str, Float32]:
        """{layer: (g, u)} sums over each group's inputs of the mean over positions; "keep": (g, h, w, u), every position.

        Summed inside the framework: activations never leave it, and the cost does not grow with the number of groups.
        """
        axis = self._described(inputs).unit_axis

        def add(name: str, tensor: Tensor, groups: Tensor, n_groups: Tensor) -> dict[str, Tensor]:
            positions = _positions(tensor, axis[name])
            rows = _summable(tensor)
            rows = self._backend.mean(rows, positions) if spatial == "mean" and positions else keras.ops.moveaxis(rows, axis[name], -1)
            return {name: self._backend.segment_sum(rows, groups, n_groups)}

        found = self._observed(f"group sums {spatial}", inputs, layers, add, checked_groups(groups, n_groups, len(inputs)), np.asarray(n_groups))
        return {name: found[name] for name in layers}

    def vjp(self, inputs: Array, layer: str, cotangent: Array, wrt: Sequence[str]) -> dict[str, Float32]:
        """{name: gradient of sum(cotangent * activation[layer])}; wrt names layers, or "input" for the inputs.

        cotangent broadcasts against the activation of `layer`, (n, h, w, u) | (n, t, u) | (n, u); "output" names the logits.
        Raises ValueError where the activation does not depend on a name in `wrt`, the cotangent has another shape, or the
        inputs are token ids.
        """
        if "output" in wrt:
            raise ValueError("no gradient by 'output', which nothing depends on; `wrt` names layers, or 'input'")
        if "input" in wrt and not np.issubdtype(np.asarray(inputs).dtype, np.floating):
            raise ValueError("no gradient by token ids: they are integers; name the embedding layer in `wrt` instead")
        wanted = [name for name in dict.fromkeys((*wrt, layer)) if name not in ("input", "output")]
        described = self._known(inputs, wanted)
        ends = {"input": 1 if self._channels_first and np.ndim(inputs) > 2 else -1, "output": -1}
        shapes = {found.name: found.shape for found in described.layers} | {"input": np.shape(inputs)[1:], "output": described.output_shape}
        axis = {**described.unit_axis, **ends}
        if layer in described.unit_axis or layer in ends:
            shape = (len(inputs), *shapes[layer])
        try:
            weights = np.broadcast_to(np.asarray(cotangent, np.float32), shape)
        except ValueError as error:
            raise ValueError(f"vjp was given a cotangent {np.shape(cotangent)}; the activation of {layer!r} is {shape}") from error

        def body(tensor: Tensor, cotangent: Tensor) -> dict[str, Tensor]:
            def score(seen: Mapping[str, Tensor]) -> Tensor:
                return keras.ops.sum(keras.ops.cast(cotangent, seen[layer].dtype) * seen[layer])

            _, found = self._backend.gradients(self._scoring(wanted), score, wrt, tensor)
            missing = [name for name in wrt if found[name] is None]
            if missing:
                raise ValueError(f"the activation of {layer!r} does not depend on {missing}; layers run in the order {list(self.layers)}")
            return {name: gradient for name, gradient in found.items() if gradient is not None}

        with self.undisturbed():
            key = "vjp", layer, tuple(wrt)
            found = self._backend.run(key, body, self._arranged(inputs), np.moveaxis(weights, -1, axis[layer]))
        return {name: _float32(np.moveaxis(found[name], axis[name], -1)) for name in wrt}

    def explained(self, inputs: Array, layers: Sequence[str], classes: Int64 | None = None) -> Explained:
        """The activations of layers, and the gradient by them of the logit of each input's class; one forward, one backward.

        classes  (n,) integers; None: the class the network predicts for each input
        Raises ValueError for classes that are no outputs, and for layers that the logits do not depend on.
        """
        described, k = self._known(inputs, layers), self.n_classes(inputs)
        given = [] if classes is None else [checked_classes(classes, len(inputs), k)]

        def body(tensor: Tensor, *given: Tensor) -> dict[str, Tensor]:
            def score(seen: Mapping[str, Tensor]) -> Tensor:
                logits = seen["output"]
                chosen = given[0] if given else keras.ops.argmax(logits, axis=1)
                return keras.ops.sum(logits * keras.ops.one_hot(chosen, logits.shape[1], dtype=logits.dtype))

            seen, gradients = self._backend.gradients(self._scoring(layers), score, layers, tensor)
            missing = [name for name in layers if gradients[name] is None]
            if missing:
                raise ValueError(f"the logits do not depend on {missing}; layers run in the order {list(self.layers)}")
            found = {f"gradient {name}": gradient for name, gradient in gradients.items() if gradient is not None}
            return found | {f"activation {name}": keras.ops.copy(seen[name]) for name in layers} | {_LOGITS: seen["output"]}

        with self.undisturbed():
            found = self._backend.run(("explained", *layers), body, self._arranged(inputs), *given)
        of = {
            what: {name: _float32(np.moveaxis(found[f"{what} {name}"], described.unit_axis[name], -1)) for name in layers}
            for what in ("activation", "gradient")
        }
        return Explained(of["activation"], of["gradient"], _float32(found[_LOGITS]))

    def full_gradient(self, inputs: Array, classes: Int64) -> FullGradient:
        """The logit of each input's class as a sum of an input term and of one term for every bias; one forward, one backward.

        classes  (n,) integers

        A term goes by the name of its layer, where that has no layers inside and one bias; else by that and the operation's
        (`block.tanh`, `tanh` in the network's own call), the second with `.call2`. Raises ValueError for token ids, for classes
        that are no outputs, for logits that no gradient connects with the inputs, and for an operation with a bias whose
        output has no axis of the inputs.
        """
        gradient, terms, scores, _ = self._decomposed(inputs, classes, "values")
        images = frozenset(name for name, (_, is_image) in terms.items() if is_image)
        return FullGradient(gradient, {name: term for name, (term, _) in terms.items()}, scores, images)

    def attributions(
        self, inputs: Array, classes: Int64, *, gradient: bool = False, biases: Collection[Magnitude] = (), layers: Sequence[str] = ()
    ) -> Attributions:
        """Of the logit of each input's class what is asked for; one forward, and one backward that goes no further than what is asked for.

        classes   (n,) integers     gradient  by the inputs
        biases    the full gradient, with the sizes of its terms, of the gradients at its biases; the gradient is beside them
        layers    whose class activation maps
        Raises ValueError as `full_gradient` where there are biases, for token ids, for classes that are no outputs, and for inputs
        and layers that the logits do not depend on.
        """
        if not biases:
            return self._attributed(inputs, classes, gradient, layers)
        self._known(inputs, layers)
        by_inputs, terms, scores, maps = self._decomposed(inputs, classes, tuple(biases), layers)
        # What does not depend on the inputs cannot be watched beside biases, nor, on torch, what is overwritten by no operation of its own.
        if others := [name for name in layers if name not in maps]:
            maps |= self._attributed(inputs, classes, False, others).maps
        return Attributions(scores, by_inputs, terms, {name: maps[name] for name in layers})

    def full_gradient_gaps(self, inputs: Array, classes: Int64) -> dict[str, Exact]:
        """{layer call: (n,)} what it adds to the scores that no term accounts for, apart from calls inside it; "" is the network's own."""
        return self._decomposed(inputs, classes, "gaps")[1]

    def fields(self, inputs: Array) -> dict[str, Field | NoField]:
        """Every layer (h, w, u) -> the theoretical receptive field of its units, for images (n, h, w, c) of this size.

        From the graph; padding "same" is TensorFlow's, with the smaller half before. Where a field is not an interval that moves
        by whole pixels from unit to unit, a layer is not known, or a `call` does not take symbols, the `NoField` names that.
        Adaptive pooling whose windows differ in size: what all its units see together.
        """
        if np.ndim(inputs) != 4:
            raise ValueError(f"receptive fields are those of images (n, h, w, c); the inputs have shape {np.shape(inputs)}")
        described = self._described(inputs)
        rows, columns = (2, 3) if self._channels_first else (1, 2)
        with self.undisturbed():
            states = keras_fields.states(self.model, self._names, (None, *self._arranged(inputs[:1]).shape[1:]), rows, columns)
        found: dict[str, Field | NoField] = {}
        for layer in described.layers:
            if len(layer.shape) == 3:
                axes = [axis for axis in (1, 2, 3) if axis != described.unit_axis[layer.name] % 4]
                state = states.get(layer.name, NoField("a call that does not take symbols", layer.name))
                found[layer.name] = field_of(state, axes, layer.name)
        return found

    def occluded(self, occlusion: Occlusion, *, batch_size: int = 64) -> Occluded:
        """Activations of a layer under occluders, by whole images in batches; see `TorchNetwork.occluded`."""
        return occluded(self, occlusion, batch_size=batch_size, why="a Keras model, for which nothing faster is there")

    def occluded_at(self, occlusion: Occlusion, *, batch_size: int = 64) -> Float32:
        """(p, m) what `occluded` has `at` each unit's own place."""
        return self.occluded(occlusion, batch_size=batch_size).at

    def _attributed(self, inputs: Array, classes: Int64, gradient: bool, layers: Sequence[str]) -> Attributions:
        described = self._known(inputs, layers)
        chosen = checked_classes(classes, len(inputs), self.n_classes(inputs))
        if gradient and not np.issubdtype(np.asarray(inputs).dtype, np.floating):
            raise ValueError("no gradient by token ids: they are integers; explain a network that takes floats")
        wrt = [*(["input"] if gradient else []), *layers]

        def body(tensor: Tensor, chosen: Tensor) -> dict[str, Tensor]:
            def scores(logits: Tensor) -> Tensor:
                return keras.ops.sum(logits * keras.ops.one_hot(chosen, logits.shape[1], dtype=logits.dtype), axis=1)

            seen, gradients = self._backend.gradients(self._scoring(layers), lambda seen: keras.ops.sum(scores(seen["output"])), wrt, tensor)
            missing = [name for name in wrt if gradients[name] is None]
            if missing:
                raise ValueError(f"the logits do not depend on {missing}; layers run in the order {list(self.layers)}")
            maps = {name: self._backend.activation_map(seen[name], gradients[name], described.unit_axis[name]) for name in layers}
            by_inputs = {"gradient": gradients["input"]} if gradient else {}
            return {"scores": scores(seen["output"])} | by_inputs | {f"map {name}": values for name, values in maps.items()}

        with self.undisturbed():
            found = self._backend.run(("attributions", *wrt), body, self._arranged(inputs), chosen)
        by_inputs = None if not gradient else _exact(np.moveaxis(found["gradient"], 1 if self._channels_first and np.ndim(inputs) > 2 else -1, -1))
        return Attributions(_exact(found["scores"]), by_inputs, {}, {name: _float32(found[f"map {name}"]) for name in layers})

    def _decomposed(
        self, inputs: Array, classes: Int64, of: Part, layers: Sequence[str] = ()
    ) -> tuple[Exact, dict[str, Any], Exact, dict[str, Float32]]:
        described = self._described(inputs)
        chosen = checked_classes(classes, len(inputs), self.n_classes(inputs))
        if not np.issubdtype(np.asarray(inputs).dtype, np.floating):
            raise ValueError("no full gradient by token ids: they are integers; explain a network that takes floats")

        def forward(tensor: Tensor, told: Calls) -> Tensor:
            counts: dict[keras.Layer, int] = {}

            def around(layer: keras.Layer, call: Callable[..., object], args: Any, kwargs: Any) -> object:
                name = _call_name(layer, self._names, counts)
                args, kwargs = told.entered(name, args, kwargs, whole=not _is_container(layer))
                if isinstance(layer, _ATOMS):
                    constant = isinstance(layer, keras.layers.BatchNormalization)
                    output = told.atom(call, layer.name, args, kwargs, constant=constant)
                else:
                    with _fused_activation(layer, name, told):
                        output = call(*args, **kwargs)
                replaced = told.left(output, lambda call: (_first_tensor(output), 0, described.unit_axis[call]) if call in layers else None)
                return output if replaced is None else _replaced(output, replaced[0], _marked(replaced[1], replaced[0]))

            with self._backend.scores() as behind, self._tapped(self._names, lambda layer, args, output: None, around):
                return behind(self._logits(self._call(tensor)))

        units = 1 if self._channels_first and np.ndim(inputs) > 2 else np.ndim(inputs) - 1
        with self.undisturbed():
            gradient, found, scores, maps = self._backend.full_gradient(forward, self._arranged(inputs), units, chosen, of, layers)
        by_inputs: Exact = np.moveaxis(gradient, units, -1).copy()
        return by_inputs, found, scores, maps

    def _scoring(self, layers: Sequence[str]) -> Callable[[Tensor, Seen], Tensor]:
        """The forward from a tensor to the logits, in which layers are seen."""

        def forward(tensor: Tensor, seen: Seen) -> Tensor:
            with self._backend.scores() as behind:
                return behind(self._logits(self._forward(tensor, layers, seen)))

        return forward

    # ---- what is asked of others in its place ------------------------------------------------------------------------

    def parametrised(self, inputs: Array) -> tuple[str, ...]:
        """The layers that have weights, in the order in which they begin in a call; "" is the model itself."""
        self._described(inputs)
        began: list[str] = [""]

        def around(layer: keras.Layer, call: Callable[..., object], args: Any, kwargs: Any) -> object:
            began.append(self._names[layer])
            return call(*args, **kwargs)

        def body(tensor: Tensor) -> dict[str, Tensor]:
            with self._tapped(self._names, lambda layer, args, output: None, around):
                return {_LOGITS: self._logits(self._call(tensor))}

        with self.undisturbed():
            self._backend.run(None, body, self._arranged(inputs[:2]))

        def place(name: str) -> tuple[int, bool]:
            nearest = name
            while nearest not in began:
                nearest = nearest.rpartition(".")[0]
            return began.index(nearest), nearest != name

        return tuple(sorted((name for name, layers in self._groups().items() if any(keras_sanity.own_variables(one) for one in layers)), key=place))

    @contextmanager
    def randomised(self, modules: Sequence[str], seed: int) -> Iterator[dict[str, str]]:
        """Inside, the weights of these layers, and the moving statistics of norms, are drawn anew; yields how, by layer.

        drawn     by building the layer again from its config: all layers as in a model that is built after
                  `keras.utils.set_random_seed(seed)`; what one layer gets does not depend on which others are named
        permuted  where it cannot be built so: its own weights in another order
        Raises ValueError for unknown layers.
        """
        groups = self._groups()
        if unknown := [name for name in modules if name not in groups]:
            raise ValueError(f"no layers named {unknown}; this network has {list(groups)}")
        with self.undisturbed(), keras_sanity.randomised(self.model, [groups[name] for name in modules], seed) as how:
            yield dict(zip(modules, how))

    @contextmanager
    def shifted(self, shift: Array) -> Iterator[None]:
        """Inside, the network answers inputs + shift (...), of one input's shape, as it answers the inputs outside.

        What the shift adds to the first affine layers is taken from them, at each position by itself. Raises ValueError inside,
        when inputs are shown, where the first layer is not affine, and for token ids.
        """
        backend = self._backend
        self._backend = _backend(self.model)  # with traces of its own
        try:
            with self.undisturbed(), keras_sanity.shifted(self.model, self._arranged(np.asarray(shift)[None])):
                yield
        finally:
            self._backend = backend

    def _groups(self) -> dict[str, list[keras.Layer]]:
        """Every named layer, and "" the model, with the layers inside that have no name here: the cells of a recurrent layer."""
        if not self._names:
            _ = self.layers
        groups: dict[str, list[keras.Layer]] = {}
        seen: set[keras.Layer] = set()

        def walk(layer: keras.Layer, name: str) -> None:
            if layer not in seen:
                seen.add(layer)
                groups.setdefault(name, []).append(layer)
                for child in _children(layer):
                    walk(child, self._names.get(child, name))

        walk(self.model, "")
        return groups

    # ---- leaving no trace -------------------------------------------------------------------------------------------

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Random states, and on torch the mode and the buffers of every module, are afterwards what they were before.

        Evaluation mode is an argument of every forward here, and what a forward assigns to Keras variables (moving
        statistics, seeds, states of recurrent layers) stays in a `keras.StatelessScope`.
        """
        with self._backend.undisturbed(), _global_seed_generator():
            yield

    # ---- inside -----------------------------------------------------------------------------------------------------

    @property
    def input_ndim(self) -> int | None:
        """How many axes a batch of inputs has; None where the model does not know it and was shown none."""
        shapes = [tensor.shape for tensor in _inputs(self.model)] or [(None, *shape) for shape in self._descriptions]
        return len(shapes[0]) if shapes else None

    def to_array(self, inputs: Tensor | Array) -> Array:
        """(n, ...) inputs as this model takes them, as channels-last numpy."""
        return self._moved(np.asarray(inputs) if not keras.ops.is_tensor(inputs) else keras.ops.convert_to_numpy(inputs), 1, -1)

    def _arranged(self, inputs: Array) -> Array:
        """(n, ...) channels-last numpy as the model wants it; Keras itself casts to what the first layer computes in."""
        array = self._moved(np.asarray(inputs), -1, 1)
        if np.issubdtype(array.dtype, np.floating):
            return array.astype("float64" if getattr(self.model, "variable_dtype", "float32") == "float64" else "float32", copy=False)
        return array

    @property
    def _channels_first(self) -> bool:
        if self._given_format is not None:
            return self._given_format
        formats = (getattr(layer, "data_format", None) for layer in self.model._flatten_layers())
        return next((data_format for data_format in formats if data_format in _DATA_FORMATS), None) == "channels_first"

    def _moved(self, array: Array, source: int, destination: int) -> Array:
        return np.moveaxis(array, source, destination) if self._channels_first and array.ndim > 2 else array

    def _known(self, inputs: Array, layers: Sequence[str]) -> _Description:
        described = self._described(inputs)
        unknown = [name for name in layers if name not in described.unit_axis]
        if unknown:
            reasons = [f"{name!r} cannot be observed: {described.refused[name]}" for name in unknown if name in described.refused]
            missing = [name for name in unknown if name not in described.refused]
            if missing:
                reasons.append(f"no layer named {missing}; this network has {[layer.name for layer in described.layers]}")
            raise ValueError("; ".join(reasons))
        return described

    def _observed(
        self, question: str, inputs: Array, layers: Sequence[str], reduced: Callable[..., dict[str, Tensor]], *others: Array
    ) -> dict[str, Float32]:
        """What `reduced(layer, activation, *others)` makes of each layer, and the logits if there are any, in one forward without gradients."""
        has_logits = len(self._known(inputs, layers).output_shape) == 1

        def body(tensor: Tensor, *others: Tensor) -> dict[str, Tensor]:
            found: dict[str, Tensor] = {}
            with self._backend.scores() as behind:
                result = self._forward(tensor, layers, lambda name, activation: found.update(reduced(name, activation, *others)))
                return found | ({_LOGITS: behind(self._logits(result))} if has_logits else {})

        with self.undisturbed():
            found = self._backend.run((question, *layers), body, self._arranged(inputs), *others)
        return {name: _float32(value) for name, value in found.items()}

    def _forward(self, tensor: Tensor, layers: Sequence[str], seen: Seen) -> object:
        """One forward in which `seen(layer, activation)` is called as each layer finishes; what it returns takes the activation's place."""
        wanted, counts = set(layers), dict[keras.Layer, int]()
        bases = {layer: base for layer, base in self._names.items() if any(name == base or name.startswith(f"{base}.call") for name in wanted)}

        def tap(layer: keras.Layer, args: tuple[object, ...], output: object) -> object:
            name = _call_name(layer, bases, counts)
            if name not in wanted:
                return None
            wanted.discard(name)
            activation = _first_tensor(output)
            replacement = seen(name, activation)
            return None if replacement is None else _replaced(output, activation, _marked(replacement, activation))

        with self._tapped(bases, tap):
            result = self._call(tensor)
        if wanted:
            raise RuntimeError(f"layers {sorted(wanted)} ran when the network was first shown inputs but not this time; its call takes another path")
        return result

    @contextmanager
    def _tapped(
        self,
        layers: Mapping[keras.Layer, str],
        tap: Callable[[keras.Layer, tuple[object, ...], object], object],
        around: Callable[[keras.Layer, Callable[..., object], Any, Any], object] = lambda layer, call, args, kwargs: call(*args, **kwargs),
    ) -> Iterator[None]:
        """`tap(layer, args, output)` is called after each call of the layers, and what it returns replaces the output; None does not.

        `around(layer, call, args, kwargs)` makes the call.
        """

        def tapped(layer: keras.Layer) -> Callable[..., object]:
            call = _plain_call(layer)

            @functools.wraps(call)
            def observed(*args: object, **kwargs: object) -> object:
                output = around(layer, call, args, kwargs)
                replacement = tap(layer, args, output)
                return output if replacement is None else replacement

            return observed

        def unbuilt(layer: keras.Layer) -> Callable[[object], None]:
            def build(input_shape: object) -> None:
                raise ValueError(f"layer {layer.name!r} has no weights yet, and observing would create them; call the model on one batch first")

            return build

        every = self.model._flatten_layers()
        stand_ins = [(layer, "call", tapped(layer) if layer in layers else _plain_call(layer)) for layer in every]
        stand_ins += [(layer, "build", unbuilt(layer)) for layer in every if not layer.built]
        # Past Keras's own setattr, which tracks what is assigned, and is locked once a layer is built.
        before = [vars(layer).get(method) for layer, method, _ in stand_ins]
        try:
            for layer, method, stand_in in stand_ins:
                vars(layer)[method] = stand_in
            yield
        finally:
            for (layer, method, _), own in zip(stand_ins, before):
                if own is None:
                    vars(layer).pop(method, None)
                else:
                    vars(layer)[method] = own

    def _call(self, tensor: Tensor) -> object:
        try:
            structure = self.model.input
        except (AttributeError, ValueError):  # a model that was never called on a keras.Input
            structure = None
        inputs = tensor if structure is None else keras.tree.map_structure(lambda _: tensor, structure)
        # A call begins by forgetting the losses of the one before, which may be the training's own.
        losses = [(layer, layer._losses[:], set(layer._loss_ids)) for layer in self.model._flatten_layers()]
        try:
            with keras.StatelessScope():
                return self.model(inputs, training=False)
        finally:
            for layer, values, ids in losses:
                layer._losses[:] = values
                layer._loss_ids.update(ids)

    def _logits(self, result: object) -> Tensor:
        if self._output is not None:
            try:
                result = result[self._output]  # type: ignore[index]
            except (KeyError, IndexError, TypeError) as error:
                raise ValueError(f"the network's output has no {self._output!r}; it is {_outline(result)}") from error
        elif isinstance(result, (list, tuple, Mapping)) and len(result) == 1:
            (result,) = result.values() if isinstance(result, Mapping) else result  # as keras.Model([inputs], {"scores": outputs}) returns it
        if not keras.ops.is_tensor(result):
            raise ValueError(
                f"the network returns {_outline(result)} and not one tensor; say which is the logits: KerasNetwork(model, output=<key or index>)"
            )
        return result


def _backend(model: keras.Layer) -> _Backend:
    name = keras.backend.backend()
    if name == "tensorflow":
        from netlapse.backends.keras_tensorflow import TensorFlow

        return TensorFlow(model)
    if name == "torch":
        from netlapse.backends.keras_torch import Torch

        return Torch(model)
    raise RuntimeError(
        f"Keras runs on {name!r} here, where its layers cannot be observed; netlapse observes Keras on 'tensorflow' and 'torch': "
        "set KERAS_BACKEND before Keras is imported (a .keras file saved on one backend loads on the others)"
    )


@contextmanager
def _global_seed_generator() -> Iterator[None]:
    """Keras makes it when something first draws without a seed; made inside a trace, nobody could draw from it outside."""
    if global_state.get_global_attribute(GLOBAL_SEED_GENERATOR) is not None:
        yield
        return
    global_state.set_global_attribute(GLOBAL_SEED_GENERATOR, keras.random.SeedGenerator(0, name="netlapse"))
    try:
        yield
    finally:
        global_state.set_global_attribute(GLOBAL_SEED_GENERATOR, None)  # the training's own is made when it first draws, as without us


def _inputs(model: keras.Layer) -> list[keras.KerasTensor]:
    """The symbolic inputs of a functional or built Sequential model; [] where there are none."""
    try:
        return list(model.inputs or [])
    except (AttributeError, ValueError):
        return []


# ---- names ----------------------------------------------------------------------------------------------------------


def _named_layers(model: keras.Layer) -> tuple[dict[keras.Layer, str], set[keras.Layer], dict[str, str]]:
    """Every layer inside a model with its name; those that are items of a sequence of layers; names that cannot be observed -> why."""
    names: dict[keras.Layer, str] = {}
    items: set[keras.Layer] = set()
    unobservable: dict[str, str] = {}

    def walk(parent: keras.Layer, prefix: str, why: str | None) -> None:
        children = _children(parent)
        for child, name in zip(children, _child_names(parent, children)):
            path = prefix + name
            if child in names:
                continue
            if why is not None or isinstance(child, keras.layers.InputLayer):
                unobservable[path] = why or "an input layer computes nothing; gradients by the network's input go by the name 'input'"
            else:
                names[child] = path
                if isinstance(parent, keras.Sequential) or _is_functional(parent) or re.search(r"\.\d+$", name):
                    items.add(child)
            inside = f"it runs once per time step inside {path!r}; observe that one" if isinstance(child, _STEPWISE) else why
            walk(child, f"{path}.", inside)

    walk(model, "", None)
    return names, items, unobservable


@contextmanager
def _fused_activation(layer: keras.Layer, call: str, told: Calls) -> Iterator[None]:
    """Inside, a layer's own activation is a call of its own, `<layer>.gelu`, with one bias: as if it were a layer after it."""
    function = vars(layer).get("activation")
    if not callable(function) or isinstance(function, keras.Layer) or isinstance(layer, keras.layers.RNN):
        yield
        return

    def activation(*args: Any, **kwargs: Any) -> object:
        name = getattr(function, "__name__", "activation")
        args, kwargs = told.entered(f"{call}.{name}", args, kwargs, whole=True)
        output = told.atom(function, name, args, kwargs, constant=False)
        told.left(output)
        return output

    vars(layer)["activation"] = activation  # past Keras's own setattr, as in `_tapped`
    try:
        yield
    finally:
        vars(layer)["activation"] = function


def _children(layer: keras.Layer) -> list[keras.Layer]:
    """The layers directly inside a layer, in the order they were set; only models have a public name for this."""
    return list(layer._flatten_layers(include_self=False, recursive=False))


def _child_names(parent: keras.Layer, children: Sequence[keras.Layer]) -> list[str]:
    if isinstance(parent, keras.Sequential) or _is_functional(parent):
        return [child.name for child in children]
    # On torch, layers that are attributes lie among torch's own modules.
    values = {**vars(parent), **vars(parent).get("_modules", {})}
    own = {key: value for key, value in values.items() if key not in ("_layers", "_modules") and not key.startswith("_self_")}
    attributes = {id(layer): path for path, layer in reversed(list(_layers_in(own)))}
    given = [child.name for child in children if not _is_automatic(child)]
    return [child.name if given.count(child.name) == 1 else attributes.get(id(child), child.name) for child in children]


def _layers_in(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, keras.Layer]]:
    if isinstance(value, keras.Layer):
        yield ".".join(path), value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _layers_in(item, (*path, str(key)))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _layers_in(item, (*path, str(index)))


def _is_automatic(layer: keras.Layer) -> bool:
    """Whether a layer's name is one that Keras gives, as `conv2d_3`."""
    snake = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", type(layer).__name__))
    return re.fullmatch(re.sub(r"([a-z])([A-Z])", r"\1_\2", snake).lower() + r"(_\d+)?", layer.name) is not None


def _is_functional(layer: keras.Layer) -> bool:
    return isinstance(layer, keras.Model) and not isinstance(layer, keras.Sequential) and bool(_inputs(layer))


def _plain_call(layer: keras.Layer) -> Callable[..., object]:
    """A layer's call, out of the tf.function around it: tensors of a graph other than ours could not be read."""
    return getattr(layer.call, "python_function", layer.call)  # type: ignore[no-any-return]


def _call_name(layer: keras.Layer, names: Mapping[keras.Layer, str], counts: dict[keras.Layer, int]) -> str:
    counts[layer] = counts.get(layer, 0) + 1
    return names[layer] if counts[layer] == 1 else f"{names[layer]}.call{counts[layer]}"


# ---- what a layer is ------------------------------------------------------------------------------------------------


def _is_container(layer: keras.Layer) -> bool:
    """A model, or a layer of the user's own that has layers inside; Keras's own composites, such as attention, are one layer."""
    return isinstance(layer, keras.Model) or (_is_users(layer) and bool(_children(layer)))


def _is_users(layer: keras.Layer) -> bool:
    return not type(layer).__module__.startswith("keras.")


def _role(layer: keras.Layer, call: _Call) -> Role:
    if _is_container(layer):
        return "block"
    function = None if isinstance(layer, keras.layers.RNN) else getattr(layer, "activation", None)
    if function in _NOT_NONLINEAR:
        return "weights" if layer.weights else "other"
    if isinstance(layer, _ACTIVATIONS) or callable(function):
        return "activation"
    if layer.weights:
        return "weights"
    # A nonlinearity somebody wrote as a layer: no weights, shape kept. Keras's own (dropout, pooling, ...) are not.
    shape = call.given.shape if call.alone and call.given is not None else None
    return "activation" if _is_users(layer) and shape == call.activation.shape else "other"


def _declared_axis(layer: keras.Layer, passed_on: int | None, ndim: int) -> int | None:
    """The unit axis of a layer's output as its settings have it, else that of what it was given; None where neither says."""
    if ndim == 2:
        return -1
    if (data_format := getattr(layer, "data_format", None)) in _DATA_FORMATS:
        return _DATA_FORMATS[data_format]
    if isinstance(layer, _CHANNELS_LAST):
        return -1
    if isinstance(layer, _NORMS) and isinstance(layer.axis, int):
        return int(layer.axis)
    if isinstance(layer, keras.layers.Permute) and passed_on is not None:
        return (0, *layer.dims).index(passed_on % ndim)
    return passed_on


def _axis_of(tensor: Tensor, axes: Sequence[tuple[Tensor, int]]) -> int | None:
    return next((axis for known, axis in reversed(axes) if known is tensor), None)


# ---- tensors --------------------------------------------------------------------------------------------------------


def _first_tensor(output: object) -> Tensor | None:
    """The activation: the output itself, or the first floating-point tensor in it."""
    tensors = (value for value in keras.tree.flatten(output) if keras.ops.is_tensor(value))
    return next((tensor for tensor in tensors if "float" in keras.backend.standardize_dtype(tensor.dtype)), None)


def _replaced(output: object, old: Tensor, new: Tensor) -> object:
    return keras.tree.map_structure(lambda value: new if value is old else value, output)


def _marked(replacement: Tensor, activation: Tensor) -> Tensor:
    """The replacement with Keras's mark of what a softmax returned, where the activation has it."""
    if (logits := getattr(activation, "_keras_logits", None)) is not None:
        vars(replacement)["_keras_logits"] = logits
    return replacement


def _outline(output: Tensor | object) -> str:
    if keras.ops.is_tensor(output):
        tensor: Tensor = output
        return f"a tensor {tuple(tensor.shape)} of {keras.backend.standardize_dtype(tensor.dtype)}"
    if isinstance(output, Mapping):
        return f"a dict with keys {list(output)}"
    if isinstance(output, (tuple, list)):
        return f"a {type(output).__name__} of {len(output)}"
    return f"a {type(output).__name__}"


def _positions(tensor: Tensor, unit_axis: int) -> tuple[int, ...]:
    ndim = len(tensor.shape)
    return tuple(axis for axis in range(1, ndim) if axis != unit_axis % ndim)


def _summable(tensor: Tensor) -> Tensor:
    """In float32, where a network computes in half precision."""
    return keras.ops.cast(tensor, "float32") if keras.backend.standardize_dtype(tensor.dtype) in ("float16", "bfloat16") else tensor


def _exact(values: Array) -> Exact:
    """In the precision of the network, but at least float32."""
    return np.ascontiguousarray(values, np.float64) if values.dtype == np.float64 else _float32(values)


def _float32(values: Array) -> Float32:
    return np.ascontiguousarray(values, np.float32)
