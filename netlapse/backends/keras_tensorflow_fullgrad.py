"""The full gradient of a score in TensorFlow: what the bias of each operation of a traced forward adds to it.

See `netlapse.backends.torch_fullgrad` for what it is. A trace has every operation in a graph, so none has to be
intercepted; what an operation's own Jacobian J makes of its input x is the gradient by v of v J x, where v J is a gradient.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from netlapse.backends import Part, half_precision
from netlapse.types import Array, BiasMagnitude, Exact, Float32, Magnitude, Sizes

# f(t x) = t f(x) for t > 0, in all inputs together: no bias. What is missing is computed, and costs more.
_HOMOGENEOUS = frozenset(
    (
        *("Relu", "LeakyRelu", "MaxPool", "MaxPoolV2", "AvgPool", "Mean", "Sum", "Max", "Min", "Neg", "Abs", "AddN", "Cast", "Identity"),
        *("Reshape", "Transpose", "Squeeze", "ExpandDims", "ConcatV2", "Pack", "Unpack", "Pad", "Slice", "StridedSlice", "Split", "SplitV"),
        *("Tile", "BroadcastTo", "GatherV2", "SpaceToBatchND", "BatchToSpaceND", "SpaceToDepth", "DepthToSpace"),
    )
)
_BILINEAR = frozenset(("Mul", "MatMul", "BatchMatMulV2", "Conv2D", "Conv3D", "DepthwiseConv2dNative", "Einsum"))
_SUMS = frozenset(("AddV2", "Add", "BiasAdd", "Sub"))
_IMAGES = frozenset(("Conv2D", "DepthwiseConv2dNative", "Conv2DBackpropInput", "MaxPool", "AvgPool", "FusedBatchNormV3"))


@dataclass(frozen=True)
class _Layout:
    """Which axes of a tensor are the batch and the units, and whether its other two are those of an image."""

    batch: int
    units: int
    image: bool


@dataclass(frozen=True, eq=False)
class _Bias:
    """One bias of a forward: in which layer call, of what, of which output, and whether it is the network's own (a convolution's)."""

    call: str
    name: str
    output: tf.Tensor
    bias: tf.Tensor
    constant: bool


class Calls:
    """What a traced forward tells of its layers' calls as they begin and end."""

    def __init__(self, audited: bool) -> None:
        self.weighed: list[tuple[str, str, tf.Tensor, int]] = []  # call, the call around it, what it is given or returns, -1 or 1
        self.whole: set[str] = set()
        self.layers: dict[str, tuple[tf.Tensor, int]] = {}  # whose maps are asked for: the activation, and its axis of units
        self._audited = audited
        self._graph = tf.compat.v1.get_default_graph()
        self._stack = [""]
        self._begun: list[tuple[int, str]] = [(0, "")]  # from which operation on, which call
        self._in_atom = False
        self.atoms: list[tuple[range, str, str, list[tf.Tensor], list[tf.Tensor], bool]] = []

    def entered(self, call: str, args: Any, kwargs: Any, *, whole: bool) -> tuple[Any, Any]:
        """A call begins; returns the arguments to go on with. `whole`: a bias that is its only one goes by its name alone."""
        if self._in_atom:
            return args, kwargs
        if whole:
            self.whole.add(call)
        if self._audited:
            outer = self._stack[-1]

            def given(value: object) -> object:
                if not _is_float(value):
                    return value
                own = tf.identity(value)
                if (logits := getattr(value, "_keras_logits", None)) is not None:
                    own._keras_logits = logits
                self.weighed.append((call, outer, own, -1))
                return own

            args, kwargs = tf.nest.map_structure(given, (args, kwargs))
        self._go_on_in([*self._stack, call])
        return args, kwargs

    def left(
        self, output: object, watched: Callable[[str], tuple[tf.Tensor, int, int] | None] = lambda call: None
    ) -> tuple[tf.Tensor, tf.Tensor] | None:
        """The call that began last ends with an output; returns a tensor of it, and what is to go on in its place. None: nothing is.

        watched  (call) -> the activation whose map is asked for, its axis of the batch, 0, and of units; None: none is
        """
        if self._in_atom:
            return None
        call = self._stack[-1]
        self._go_on_in(self._stack[:-1])
        if self._audited:
            self.weighed += [(call, self._stack[-1], value, 1) for value in tf.nest.flatten(output) if _is_float(value)]
        if (found := watched(call)) is None:
            return None
        own = tf.identity(found[0])  # so that the gradient is by this use of it alone
        self.layers[call] = own, found[2]
        return found[0], own

    def atom(self, function: Callable[..., Any], name: str, args: Any, kwargs: Any, *, constant: bool) -> Any:
        """What a function returns, which has one bias, whatever operations it is made of, and calls inside it are not told of."""
        if self._in_atom:
            return function(*args, **kwargs)
        inputs = [value for value in tf.nest.flatten((args, kwargs)) if _is_float(value)]
        start = self.position()
        self._in_atom = True
        try:
            output = function(*args, **kwargs)
        finally:
            self._in_atom = False
        outputs = [value for value in tf.nest.flatten(output) if _is_float(value)]
        self.atoms.append((range(start, self.position()), self._stack[-1], name, inputs, outputs, constant))
        return output

    def position(self) -> int:
        """How many operations there are."""
        return len(self._graph.get_operations())

    def operations(self) -> list[tuple[tf.Operation, str]]:
        """Every operation since this object was made, in order, with the call it ran in."""
        found = []
        calls = iter([*self._begun[1:], (self.position() + 1, "")])
        call, (until, following) = "", next(calls)
        for i, operation in enumerate(self._graph.get_operations()):
            while i >= until:
                call, (until, following) = following, next(calls)
            found.append((operation, call))
        return found

    def _go_on_in(self, stack: list[str]) -> None:
        self._stack = stack
        self._begun.append((self.position(), stack[-1]))


def decomposed(forward: Callable[[tf.Tensor, Calls], tf.Tensor], tensor: tf.Tensor, units: int, classes: tf.Tensor, of: Part) -> dict[str, tf.Tensor]:
    """Traced: "gradient" by the inputs, "scores", of each layer that is seen its "layer", and of each bias, by name after a blank, what is asked for.

    of  "values": "value"; the sizes: "total", "mass", "shape", and of an image "terms.map", "terms.low", "terms.high"; beside
        either, "image" where it is one, and "own" of a bias that is the network's; "gaps": by layer call, and no biases
    """
    tensor = tf.identity(tensor)
    calls = Calls(of == "gaps")
    logits = forward(tensor, calls)
    score = tf.reduce_sum(logits * tf.one_hot(classes, tf.shape(logits)[1], dtype=logits.dtype), axis=1)
    biases, layouts = _biases(tensor, units, calls)
    n = tf.shape(tensor)[0]
    shown = [activation for activation, _ in calls.layers.values()]
    weighed = [tensor, *(bias.output for bias in biases), *(value for _, _, value, _ in calls.weighed), *shown]
    gradients = [None if found is None else tf.convert_to_tensor(found) for found in tf.gradients(score, weighed)]
    if gradients[0] is None:
        raise ValueError(
            "no full gradient: the logits do not depend on the inputs by anything that has a gradient; take stop_gradient out of the network's call"
        )
    exact = all(met.dtype == tf.float64 for met in (ref.deref() for ref in layouts) if met.dtype.is_floating)
    found = {"gradient": gradients[0] if exact else tf.cast(gradients[0], tf.float32), "scores": score}
    for (layer, (activation, axis)), gradient in zip(calls.layers.items(), gradients[len(gradients) - len(shown) :]):
        found |= {} if gradient is None else {f"layer {layer}": activation_map(activation, gradient, axis)}
    used = [(bias, gradient) for bias, gradient in zip(biases, gradients[1:]) if gradient is not None]
    if of == "gaps":
        return found | _gaps(calls, used, gradients, weighed, score, n)
    for name, (bias, gradient) in zip(_names([bias for bias, _ in used], calls.whole), used):
        found |= {f"{what} {name}": value for what, value in _part(bias, gradient, layouts[bias.output.ref()], n, of).items()}
    return found


def activation_map(activation: tf.Tensor, gradient: tf.Tensor, units: int) -> tf.Tensor:
    """(n, h, w) float32 the sum over units of the activation x the mean over positions of the gradient by it; batch first."""
    precise = activation.dtype if activation.dtype == tf.float64 else tf.float32
    rank = activation.shape.rank
    positions = [axis for axis in range(1, rank) if axis != units % rank]
    alpha = tf.reduce_mean(tf.cast(gradient, precise), positions, keepdims=True)
    return tf.cast(tf.reduce_sum(alpha * tf.cast(activation, precise), units), tf.float32)


def gathered(found: Mapping[str, Array], n: int, of: Part) -> tuple[Exact, dict[str, Any], Exact, dict[str, Float32]]:
    """What `decomposed` found, once it has numbers, as `torch_fullgrad.decomposed` gives it."""
    by_name: dict[str, dict[str, Any]] = {}
    maps: dict[str, Float32] = {}
    for key, value in found.items():
        what, _, name = key.partition(" ")
        if what == "layer":
            maps[name] = np.asarray(value, np.float32)
        else:
            by_name.setdefault(name, {})[what] = value
    gradient, scores = by_name[""].pop("gradient"), by_name[""].pop("scores")
    if of == "gaps":
        return gradient, {name: parts["gap"] for name, parts in by_name.items()}, scores, maps
    size = "value" if of == "values" else "mass"
    met = {name: parts for name, parts in by_name.items() if parts and ("own" in parts or parts[size].any())}  # a ReLU is an atom without a bias
    if of == "values":
        rows = {name: value if len(value := parts["value"]) == n else value.reshape(n, -1, *value.shape[1:]) for name, parts in met.items()}
        return gradient, {name: (rows[name], "image" in parts) for name, parts in met.items()}, scores, maps
    terms = {}
    for name, parts in met.items():
        sizes: dict[Magnitude, Sizes] = {
            what: Sizes(*(parts[f"{what}.{size}"] for size in ("map", "low", "high"))) for what in ("terms", "gradients") if f"{what}.map" in parts
        }
        terms[name] = BiasMagnitude(tuple(parts["shape"].tolist()), parts["total"], parts["mass"], sizes)
    return gradient, terms, scores, maps


def _part(bias: _Bias, gradient: tf.Tensor, layout: _Layout, n: tf.Tensor, of: Part) -> dict[str, tf.Tensor]:
    term = _arranged(gradient * bias.bias, layout)
    marks = {name: tf.constant(1) for name, yes in (("image", layout.image), ("own", bias.constant)) if yes}
    if of == "values":
        return {"value": term, **marks}
    rows = tf.reshape(term, [n, -1])
    found = {"total": tf.reduce_sum(rows, 1), "mass": tf.reduce_sum(tf.abs(rows), 1), "shape": tf.shape(term)[1:], **marks}
    if not layout.image:
        return found
    if "terms" in of:
        found |= _sizes("terms", tf.abs(term))
    if "gradients" in of:
        size = tf.abs(_arranged(gradient, layout))
        if not bias.constant:  # whether an input met a bias must not depend on the others of its batch
            own = tf.broadcast_to(bias.bias, tf.shape(gradient))
            size *= tf.cast(tf.reduce_any(_arranged(own, layout) != 0, axis=(1, 2, 3), keepdims=True), size.dtype)
        found |= _sizes("gradients", size)
    return found


def _sizes(name: Magnitude, size: tf.Tensor) -> dict[str, tf.Tensor]:
    parts = {"map": tf.reduce_sum(size, 3), "low": tf.reduce_min(size, (1, 2, 3)), "high": tf.reduce_max(size, (1, 2, 3))}
    return {f"{name}.{what}": value for what, value in parts.items()}


def _gaps(
    calls: Calls,
    used: Sequence[tuple[_Bias, tf.Tensor]],
    gradients: Sequence[tf.Tensor | None],
    weighed: Sequence[tf.Tensor],
    score: tf.Tensor,
    n: tf.Tensor,
) -> dict[str, tf.Tensor]:
    """What each call adds to the scores beside what the biases in it, and the calls inside it, account for."""

    def per_input(values: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(tf.reshape(values, [n, -1]), axis=1)

    gaps = {"": score - per_input(gradients[0] * weighed[0])}

    def account(call: str, amount: tf.Tensor) -> None:
        gaps[call] = gaps[call] + amount if call in gaps else amount

    for bias, gradient in used:
        account(bias.call, -per_input(gradient * bias.bias))
    first = len(gradients) - len(calls.layers) - len(calls.weighed)
    for (call, outer, value, sign), gradient in zip(calls.weighed, gradients[first:]):
        if gradient is not None:
            amount = sign * per_input(gradient * value)
            account(call, amount)
            account(outer, -amount)
    return {f"gap {call}": gap for call, gap in gaps.items()}


def _names(biases: Sequence[_Bias], whole: set[str]) -> list[str]:
    in_call, counts, names = Counter(bias.call for bias in biases), Counter[str](), []
    for bias in biases:
        name = bias.call if bias.call in whole and in_call[bias.call] == 1 else f"{bias.call}.{bias.name}".removeprefix(".")
        counts[name] += 1
        names.append(name if counts[name] == 1 else f"{name}.call{counts[name]}")
    return names


# ---- biases ----------------------------------------------------------------------------------------------------------


def _biases(tensor: tf.Tensor, units: int, calls: Calls) -> tuple[list[_Bias], Mapping[Any, _Layout]]:
    """Every bias after a tensor, in order, and where the axes are of everything that depends on it."""
    layouts = {tensor.ref(): _Layout(0, units, tensor.shape.rank == 4)}
    found: list[_Bias] = []
    operations = calls.operations()
    atoms = {i: atom for atom in calls.atoms for i in atom[0]}
    for i, (operation, call) in enumerate(operations):
        dependent = [value for value in operation.inputs if value.ref() in layouts]
        outputs = [value for value in operation.outputs if value.dtype.is_floating and operation.type != "Shape"] if dependent else []
        for output in outputs:
            if output.dtype in (tf.float16, tf.bfloat16):
                raise ValueError(half_precision(_called(operation), call, output.dtype.name))
            layouts[output.ref()] = _layout(operation, dependent[0], layouts, output)
        if i in atoms:
            span, name, what, inputs, results, constant = atoms[i]
            if i == span[-1]:
                given = [value for value in inputs if value.ref() in layouts]
                for result in results if given else ():
                    # What is inside does not tell: a reshape on the way and back, a loop over a list of tensors.
                    same = result.shape.rank == given[0].shape.rank
                    layouts[result.ref()] = layouts[given[0].ref()] if same else _Layout(0, (result.shape.rank or 1) - 1, False)
                    found.append(_Bias(name, what, result, result - _tangent(result, given), constant))
            continue
        for output in outputs:
            known = _known_bias(operation, dependent)
            if known is None and not _is_none(operation, dependent):
                known = output - _tangent(output, dependent)
            if known is not None:
                found.append(_Bias(call, _called(operation), output, known, operation.type in _SUMS))
    return found, layouts


def _called(operation: tf.Operation) -> str:
    kind: str = operation.type.lower()
    return {"addv2": "add", "biasadd": "add", "batchmatmulv2": "matmul"}.get(kind, kind)


def _known_bias(operation: tf.Operation, dependent: Sequence[tf.Tensor]) -> tf.Tensor | None:
    """The constant that is added to a tensor; None for all else."""
    if operation.type not in _SUMS or len(dependent) != 1:
        return None
    first, second = operation.inputs
    if operation.type == "BiasAdd" and operation.get_attr("data_format") == b"NCHW":
        return tf.reshape(second, [-1, *[1] * (first.shape.rank - 2)])
    return first if second is dependent[0] else -second if operation.type == "Sub" else second


def _is_none(operation: tf.Operation, dependent: Sequence[tf.Tensor]) -> bool:
    """Whether an operation is known to have no bias."""
    alone = len(dependent) == 1
    if operation.type in _SUMS:
        return True  # of two tensors that depend on the input
    if operation.type in _BILINEAR:
        return alone
    if operation.type in ("RealDiv", "Conv2DBackpropInput"):
        return alone and dependent[0] is operation.inputs[0 if operation.type == "RealDiv" else 2]
    refs = {value.ref() for value in dependent}
    return operation.type in _HOMOGENEOUS and all(value.ref() in refs for value in operation.inputs if value.dtype.is_floating)


def _tangent(output: tf.Tensor, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
    """J x: the derivative of an output in the direction of what it was made from."""
    v = tf.zeros_like(output)
    pulled = tf.gradients(output, list(inputs), v, stop_gradients=list(inputs))
    total = tf.add_n([tf.reduce_sum(tf.convert_to_tensor(p) * x) for p, x in zip(pulled, inputs) if p is not None] or [tf.zeros([], output.dtype)])
    (found,) = tf.gradients(total, v)
    return tf.zeros_like(output) if found is None else tf.convert_to_tensor(found)


# ---- axes ------------------------------------------------------------------------------------------------------------


def _layout(operation: tf.Operation, given: tf.Tensor, layouts: Mapping[Any, _Layout], output: tf.Tensor) -> _Layout:
    """Where the batch and the units of an output are, from where they are in what an operation was given."""
    known, rank = layouts[given.ref()], output.shape.rank or 0
    batch, units = known.batch, known.units
    images = [layouts[value.ref()].image for value in operation.inputs if value.ref() in layouts]
    image = rank == 4 and (operation.type in _IMAGES or (given.shape.rank == 4 and any(images)))
    if operation.type == "Transpose":
        order = tf.get_static_value(operation.inputs[1])
        if order is not None:
            batch, units = order.tolist().index(batch), order.tolist().index(units)
    elif given.shape.rank != rank:
        batch, units = 0, max(rank - 1, 0)
    if operation.type in _IMAGES:
        units = 1 if operation.get_attr("data_format") == b"NCHW" else 3
    return _Layout(batch, units, image)


def _arranged(tensor: tf.Tensor, layout: _Layout) -> tf.Tensor:
    """Batch first and units last."""
    if not tensor.shape.rank:
        raise ValueError(
            "no full gradient: an operation with a bias returns one number for all inputs; "
            "it mixes the inputs of a batch, and so no score is that of one input"
        )
    middle = [axis for axis in range(tensor.shape.rank) if axis not in (layout.batch, layout.units)]
    order = [layout.batch, *middle, *([layout.units] if layout.units != layout.batch else [])]
    return tensor if order == sorted(order) else tf.transpose(tensor, order)


def _is_float(value: object) -> bool:
    return bool(tf.is_tensor(value) and value.dtype.is_floating)  # type: ignore[attr-defined]
