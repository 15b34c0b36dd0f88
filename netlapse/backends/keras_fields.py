"""Theoretical receptive fields of Keras models, from their graph and their layers' settings.

No forward is made, so that both backends give the same. What a subclassed model or layer does inside its `call` is in no
graph until it is called with symbols; where they do not go through it, and after a layer or an operation that is in no
list, the field is not known and what hides it is named.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from inspect import signature
from typing import Any

import keras
import numpy as np
from keras.src.backend.common import global_state
from keras.src.ops.function import Function

from netlapse.backends.receptive import Along, Seen, collapsed, image_axis, moved, renamed, seen_through, windowed
from netlapse.types import Array, NoField

L = keras.layers
State = Seen | NoField

_POINTWISE = (
    L.Activation, L.ReLU, L.LeakyReLU, L.PReLU, L.ELU, L.Dropout, L.SpatialDropout2D, L.GaussianDropout, L.GaussianNoise, L.AlphaDropout,
    L.Identity, L.ActivityRegularization, L.BatchNormalization, L.Rescaling, L.Normalization,
    L.Add, L.Subtract, L.Multiply, L.Average, L.Maximum, L.Minimum,
)  # fmt: skip
_CONVOLUTIONS = (L.Conv1D, L.Conv2D, L.Conv3D, L.DepthwiseConv1D, L.DepthwiseConv2D, L.SeparableConv1D, L.SeparableConv2D)
_POOLS = (L.MaxPooling1D, L.MaxPooling2D, L.MaxPooling3D, L.AveragePooling1D, L.AveragePooling2D, L.AveragePooling3D)
_GLOBAL_POOLS = (L.GlobalAveragePooling2D, L.GlobalMaxPooling2D)
_ADAPTIVE_POOLS = (L.AdaptiveAveragePooling2D, L.AdaptiveMaxPooling2D)
# Of keras.ops, by the names of their classes.
_ELEMENTWISE_NAMES = """
    Add Subtract Multiply Divide TrueDivide Maximum Minimum Power Negative Absolute Abs Square Sqrt Rsqrt Reciprocal Exp Expm1 Log Log1p Clip Where
    Sign Sin Cos Relu Relu6 Sigmoid HardSigmoid Silu HardSilu Gelu Elu Selu Celu LeakyRelu Softplus Softsign SoftShrink HardShrink TanhShrink
    HardTanh Tanh LogSigmoid Threshold Cast Copy Identity
"""
_REDUCTIONS = ("Mean", "Sum", "Max", "Min", "Amax", "Amin")


def states(model: keras.Layer, names: Mapping[keras.Layer, str], image: Sequence[int | None], rows: int, columns: int) -> dict[str, State]:
    """Call of a layer -> what its output sees of images (None, ...) whose rows and columns are on these axes."""
    found: dict[str, State] = {}
    with _forgotten(model):
        graph = _graph(model) or _called(model, [keras.Input(batch_shape=image)], {})
        if graph is not None:
            seen = tuple(image_axis(axis, image[axis] or 0) for axis in (rows, columns))
            _walk(graph, [(seen[0], seen[1])], names, {}, found, "")
    return found


def _graph(layer: object) -> Any:
    """The functional model that a model is or holds; None for what has no graph."""
    graph = getattr(layer, "_functional", None) if isinstance(layer, keras.Sequential) else layer
    return graph if hasattr(graph, "_nodes_by_depth") and type(layer).__module__.startswith("keras.") else None


def _called(layer: keras.Layer, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """The graph of what a layer does in its call, which is called with symbols in place of these; None where that fails."""
    symbols: dict[int, Any] = {}

    def symbol(value: Any) -> Any:
        if isinstance(value, keras.KerasTensor):
            return symbols.setdefault(id(value), keras.Input(batch_shape=value.shape, dtype=value.dtype))
        return value

    accepted = signature(layer.call).parameters
    try:
        args = keras.tree.map_structure(symbol, list(args))
        named = {name: keras.tree.map_structure(symbol, value) for name, value in kwargs.items() if name in accepted}
        outputs = layer.call(*args, **(named | ({"training": False} if "training" in accepted else {})))
        return Function(list(symbols.values()), outputs)
    except Exception:  # whatever the user's own code makes of symbols: its layers' fields are not known, which is said
        return None


@contextmanager
def _forgotten(model: keras.Layer) -> Iterator[None]:
    """What calls with symbols leave behind is gone afterwards: nodes of layers, and numbers in the names that Keras gives."""
    layers = [model, *model._flatten_layers(include_self=False)]
    nodes = [(layer, list(layer._inbound_nodes), list(layer._outbound_nodes)) for layer in layers]
    numbers = dict(global_state.get_global_attribute("object_name_uids", defaultdict(int), set_to_default=True))
    try:
        yield
    finally:
        for layer, inbound, outbound in nodes:
            layer._inbound_nodes[:] = inbound
            layer._outbound_nodes[:] = outbound
        known = global_state.get_global_attribute("object_name_uids")
        known.clear()
        known.update(numbers)


def _walk(
    graph: Any, inputs: Sequence[State], names: Mapping[keras.Layer, str], counts: dict[keras.Layer, int], found: dict[str, State], outer: str
) -> list[State]:
    """What the outputs of a graph see, and each layer in it, whose inputs see this; `outer` is the call it is in."""
    known: dict[int, State] = dict(zip(map(id, graph.inputs), inputs))
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        for node in graph._nodes_by_depth[depth]:
            if node.is_input:
                continue
            operation = node.operation
            given = [known[id(tensor)] for tensor in node.input_tensors]
            call = names.get(operation, outer)
            inner = _graph(operation)
            if inner is None and isinstance(operation, keras.Layer) and not type(operation).__module__.startswith("keras."):
                inner = _called(operation, node.arguments.args, node.arguments.kwargs)
                distinct = {id(tensor): state for tensor, state in zip(node.input_tensors, given)}
                given = list(distinct.values())
            if inner is not None:
                made = _walk(inner, given, names, counts, found, call)
            else:
                made = [_after(operation, node, given, call) or NoField(type(operation).__name__, call)] * len(node.outputs)
            known.update(zip(map(id, node.outputs), made))
            if operation in names:
                counts[operation] = counts.get(operation, 0) + 1
                number = counts[operation]
                found[names[operation] if number == 1 else f"{names[operation]}.call{number}"] = made[0]
    return [known[id(tensor)] for tensor in graph.outputs]


def _after(operation: Any, node: Any, given: Sequence[State], call: str) -> State | None:
    """What the output of an operation sees; None where that is not known."""
    name = type(operation).__name__
    if not type(operation).__module__.startswith("keras."):
        return None
    hidden = next((state for state in given if isinstance(state, NoField)), None)
    if hidden is not None or not given:
        return hidden
    ndims, ndim = [len(tensor.shape) for tensor in node.input_tensors], len(node.outputs[0].shape)
    unknown = NoField(name, call)
    is_function = type(operation).__module__.startswith("keras.src.ops")
    if isinstance(operation, _POINTWISE) or (is_function and name in _ELEMENTWISE_NAMES.split()):
        return seen_through(given, ndims, ndim, unknown)
    if isinstance(operation, L.Concatenate):
        axis = operation.axis % ndim
        joins_places = any(axis in part.axes for state in given if not isinstance(state, NoField) for part in state)
        return None if joins_places else seen_through(given, ndims, ndim, unknown)
    if isinstance(operation, L.MultiHeadAttention):
        mixed = [state if i == 0 else _each(state, lambda part: collapsed(part, range(1, ndim))) for i, state in enumerate(given)]
        return seen_through(mixed, ndims, ndim, unknown)
    state = given[0]
    if len({id(one) for one in given}) > 1:
        return None
    shape = [1, *node.input_tensors[0].shape[1:]]
    if isinstance(operation, (*_CONVOLUTIONS, *_POOLS)):
        return _slid(operation, state, ndims[0])
    if isinstance(operation, _GLOBAL_POOLS):
        gone = [axis for axis in range(1, ndims[0]) if axis != _units(operation, ndims[0])]
        pooled = _each(state, lambda part: collapsed(part, gone))
        return pooled if operation.keepdims else _each(pooled, lambda part: _without(part, gone))
    if isinstance(operation, _ADAPTIVE_POOLS):
        axes = [axis for axis in range(1, ndims[0]) if axis != _units(operation, ndims[0])]
        return _each(state, lambda part: _adapted(part, dict(zip(axes, operation.output_size)), axes))
    if isinstance(operation, (L.ZeroPadding2D, L.Cropping2D)):
        sign, amounts = (1, operation.padding) if isinstance(operation, L.ZeroPadding2D) else (-1, operation.cropping)
        axes = [axis for axis in range(1, ndims[0]) if axis != _units(operation, ndims[0])]
        return _each(state, lambda part: _padded(part, {axis: [sign * cells for cells in pair] for axis, pair in zip(axes, amounts)}))
    if is_function and name == "Pad" and operation.mode == "constant":
        return _each(state, lambda part: _padded(part, dict(enumerate(np.broadcast_to(operation.pad_width, (ndims[0], 2)).tolist()))))
    if isinstance(operation, L.Dense):
        return _each(state, lambda part: collapsed(part, [ndims[0] - 1]))
    if isinstance(operation, L.GroupNormalization):
        return _each(state, lambda part: collapsed(part, range(1, ndims[0])))
    if isinstance(operation, (L.LayerNormalization, L.RMSNormalization, L.UnitNormalization, L.Softmax)):
        axis = operation.axis
        over = [int(one) % ndims[0] for one in (axis if isinstance(axis, (list, tuple)) else [axis])]
        return _each(state, lambda part: collapsed(part, over))
    if is_function and name in _REDUCTIONS:
        axis = operation.axis
        gone = list(range(ndims[0])) if axis is None else [one % ndims[0] for one in (axis if isinstance(axis, (list, tuple)) else [axis])]
        reduced = _each(state, lambda part: collapsed(part, gone))
        return reduced if operation.keepdims else _each(reduced, lambda part: _without(part, gone))
    move = _moving(operation, node, shape, is_function)
    return None if move is None or None in shape else _each(state, lambda part: moved(part, shape, move, unknown))


def _each(state: State, change: Callable[[Along], Along]) -> State:
    return state if isinstance(state, NoField) else (change(state[0]), change(state[1]))


def _units(operation: Any, ndim: int) -> int:
    return 1 if getattr(operation, "data_format", "channels_last") == "channels_first" else ndim - 1


def _without(part: Along, gone: Sequence[int]) -> Along:
    return renamed(part, lambda axis: axis - sum(other < axis for other in gone))


def _slid(operation: Any, state: State, ndim: int) -> State | None:
    """Through the windows of a convolution or a pooling; by "same", TensorFlow's rule: what is missing, the smaller half before."""
    units = _units(operation, ndim)
    axes = [axis for axis in range(1, ndim) if axis != units]
    pools = isinstance(operation, _POOLS)
    kernel, stride = operation.pool_size if pools else operation.kernel_size, operation.strides
    dilation = (1,) * len(axes) if pools else operation.dilation_rate
    if operation.padding not in ("valid", "same") or isinstance(state, NoField):
        return None
    if hidden := next((part.scattered for part in state if part.scattered and part.axes & set(axes)), None):
        return hidden

    def through(part: Along) -> Along:
        (axis,) = part.axes if part.grid else (-1,)
        if axis not in axes:
            return part if pools else collapsed(part, [units])
        k, s, d = (int(np.broadcast_to(size, len(axes))[axes.index(axis)]) for size in (kernel, stride, dilation))
        reach = d * (k - 1) + 1
        if operation.padding == "valid":
            return windowed(part, k, s, d, 0, (part.length - reach) // s + 1)
        length = -(-part.length // s)
        return windowed(part, k, s, d, max((length - 1) * s + reach - part.length, 0) // 2, length)

    return _each(state, through)


def _adapted(part: Along, sizes: Mapping[int, int], axes: Sequence[int]) -> Along:
    """Windows of one size where they divide the axis; else every unit is said to see what all see."""
    (axis,) = part.axes if part.grid else (-1,)
    if axis not in sizes:
        return collapsed(part, axes)
    if sizes[axis] > 1 and part.length % sizes[axis] == 0:
        kernel = part.length // sizes[axis]
        return windowed(part, kernel, kernel, 1, 0, sizes[axis])
    return collapsed(part, [axis])


def _padded(part: Along, amounts: Mapping[int, Sequence[int]]) -> Along:
    (axis,) = part.axes if part.grid else (-1,)
    if axis not in amounts:
        return part
    before, after = amounts[axis]
    return replace(part, offset=part.offset - before * part.stride, length=part.length + before + after)


def _moving(operation: Any, node: Any, shape: Sequence[int], is_function: bool) -> Callable[[Array], Array] | None:
    """What an operation that only moves elements does to a numpy array; None for all others."""
    name = type(operation).__name__
    if isinstance(operation, (L.Reshape, L.Flatten)) or (is_function and name == "Reshape"):
        new = (1, *node.outputs[0].shape[1:])
        return None if None in new else lambda indices: indices.reshape(new)
    if isinstance(operation, L.Permute):
        return lambda indices: indices.transpose(0, *operation.dims)
    if is_function and name == "Transpose" and operation.axes is not None and operation.axes[0] == 0:
        return lambda indices: indices.transpose(operation.axes)
    if is_function and name == "GetItem":
        key = (*node.arguments.args, *node.arguments.kwargs.values())[1]
        return lambda indices: indices[key]
    return None
