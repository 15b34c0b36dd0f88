"""Theoretical receptive fields in torch, read off the trace of a forward: what of the image each tensor's elements can see.

Each kind of operation says once how what it returns sees the image. One that is in no list makes what comes after it
unknown, by its name, until every element of it has been summed over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from netlapse.backends.receptive import Along, Seen, collapsed, image_axis, moved, renamed, seen_through, windowed
from netlapse.backends.torch_trace import Operation, Trace, Value, pair
from netlapse.types import Array, NoField

State = Seen | NoField

# Each element of the output from the elements at the same place. Names as `torch_trace.name_of` gives them.
_POINTWISE_NAMES = """
    add radd iadd sub rsub isub mul rmul imul div rdiv truediv rtruediv itruediv true_divide pow ipow rpow neg abs square reciprocal sign
    exp expm1 log log1p sqrt rsqrt sin cos erf maximum minimum fmax fmin where lerp clamp clamp_min clamp_max clip masked_fill nan_to_num
    round floor ceil ge gt le lt eq ne logical_and logical_or logical_not addcmul addcdiv
    relu relu6 leaky_relu prelu rrelu elu selu celu gelu silu mish sigmoid tanh hardtanh hardswish hardsigmoid hardshrink softplus softshrink
    softsign tanhshrink logsigmoid threshold dropout alpha_dropout feature_alpha_dropout feature_dropout dropout1d dropout2d dropout3d
    clone contiguous detach data requires_grad_ to float double half bfloat16 type type_as positive
    """
_MOVING_NAMES = """
    view reshape view_as reshape_as flatten unflatten squeeze unsqueeze permute transpose swapaxes swapdims movedim moveaxis t T mT getitem narrow
    select index_select chunk split split_with_sizes tensor_split unbind expand expand_as repeat tile flip roll rot90 pixel_shuffle
    pixel_unshuffle channel_shuffle
    """
_REDUCING_NAMES = "mean sum nansum nanmean amax amin max min var std norm logsumexp prod median argmax argmin"
_ALONG = ("softmax", "log_softmax", "softmin", "cumsum", "glu")
_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")
_MAX_POOLS = frozenset(f"max_pool{n}d{indices}" for n in (1, 2, 3) for indices in ("", "_with_indices"))
_AVERAGE_POOLS = ("avg_pool1d", "avg_pool2d", "avg_pool3d")
_ADAPTIVE_POOLS = frozenset(f"adaptive_{kind}_pool{n}d{end}" for kind in ("avg", "max") for n in (1, 2, 3) for end in ("", "_with_indices"))
POINTWISE, _MOVING, _REDUCING = (frozenset(names.split()) for names in (_POINTWISE_NAMES, _MOVING_NAMES, _REDUCING_NAMES))

CONVOLUTION = "input weight bias stride padding dilation groups"
MAX_POOL = "input kernel_size stride padding dilation ceil_mode return_indices"
AVERAGE_POOL = "input kernel_size stride padding ceil_mode count_include_pad divisor_override"


def states(trace: Trace, rows: int, columns: int) -> dict[int, State]:
    """What the elements of every tensor of a trace see of the image, whose rows and columns are on these axes of the input."""
    shape = trace.values[0].shape
    known: dict[int, State] = {0: (image_axis(rows, shape[rows]), image_axis(columns, shape[columns]))}
    for operation in trace.operations:
        hidden = next((state for number in operation.inputs if isinstance(state := known[number], NoField)), None)
        for index, number in enumerate(operation.outputs):
            found = hidden or _after(operation, index, trace.values, known)
            known[number] = found or _unknown(operation)
    return known


def windows(operation: Operation, ndim: int) -> list[tuple[int, int, int, int]] | None:
    """(kernel, stride, dilation, padding before) along each of the last axes that an operation slides over; None where it does not."""
    if operation.name in _CONVOLUTIONS:
        given = operation.arguments(CONVOLUTION)
        kernel = tuple(given["weight"].shape[2:])
        n = len(kernel)
        stride, dilation = pair(given.get("stride", 1), n), pair(given.get("dilation", 1), n)
        padding = given.get("padding", 0)
        if padding == "same":
            before = tuple(d * (k - 1) // 2 for d, k in zip(dilation, kernel))
        else:
            before = pair(0 if padding == "valid" else padding, n)
    elif operation.name in _MAX_POOLS or operation.name in _AVERAGE_POOLS:
        given = operation.arguments(MAX_POOL if operation.name in _MAX_POOLS else AVERAGE_POOL)
        n = int(operation.name[operation.name.index("pool") + 4])
        kernel = pair(given["kernel_size"], n)
        stride, before = pair(given.get("stride") or kernel, n), pair(given.get("padding", 0), n)
        dilation = pair(given.get("dilation", 1), n)
    else:
        return None
    return list(zip(kernel, stride, dilation, before))


def _after(operation: Operation, index: int, values: Sequence[Tensor], known: Mapping[int, State]) -> State | None:
    """What an output of an operation sees, whose inputs' states are known; None where that is not."""
    name, output = operation.name, values[operation.outputs[index]]
    first = operation.args[0] if operation.args else operation.kwargs.get("input")
    if name in ("cat", "concat", "concatenate"):
        return _concatenated(operation, output, values, known)
    if name in POINTWISE or (name in ("max", "min") and len(operation.inputs) == 2) or _is_frozen_norm(operation):
        return _together(operation, operation.inputs, output.ndim, values, known)
    if name in ("scaled_dot_product_attention", "multi_head_attention_forward", "matmul", "bmm", "mm"):
        return _mixed(operation, output, values, known) if index == 0 else None
    if not isinstance(first, Value) or len(set(operation.inputs)) > 1:
        return None
    source, state = values[first.number], known[first.number]
    assert not isinstance(state, NoField)
    ndim = source.ndim

    def each(change: Callable[[Along], Along]) -> Seen:
        return change(state[0]), change(state[1])

    def slid(sizes: Sequence[tuple[int, int, int, int]]) -> Seen:
        axes = {ndim - len(sizes) + i: size for i, size in enumerate(sizes)}

        def through(part: Along) -> Along:
            (axis,) = part.axes if part.grid else (-1,)
            return windowed(part, *axes[axis], length=output.shape[axis]) if axis in axes else part

        return each(through)

    if (sizes := windows(operation, ndim)) is not None:
        if hidden := next((part.scattered for part in state if part.scattered and max(part.axes) >= ndim - len(sizes)), None):
            return hidden
        found = slid(sizes)
        mixed = [ndim - len(sizes) - 1] if name in _CONVOLUTIONS else []
        return collapsed(found[0], mixed), collapsed(found[1], mixed)
    if name in _ADAPTIVE_POOLS:
        n = int(name[name.index("pool") + 4])
        return each(lambda part: _adapted(part, source.shape, output.shape, n))
    if name == "pad":
        return _padded(operation, state, output)
    if name in _MOVING:
        return each(lambda part: moved(part, source.shape, lambda indices: _taken(operation, index, indices), _unknown(operation)))
    if name in _REDUCING:
        return each(lambda part: _reduced(part, operation, ndim, output.ndim))
    if name in _ALONG:
        dim = operation.arguments("input dim").get("dim")
        return each(lambda part: collapsed(part, [dim % ndim])) if isinstance(dim, int) else None
    if name == "normalize":
        return each(lambda part: collapsed(part, [operation.arguments("input p dim").get("dim", 1) % ndim]))
    if name == "local_response_norm":
        return each(lambda part: collapsed(part, [1]))
    if name == "linear":
        return each(lambda part: collapsed(part, [ndim - 1]))
    if name in ("group_norm", "instance_norm", "batch_norm"):
        return each(lambda part: collapsed(part, range(1 if name != "batch_norm" else 0, ndim)))
    if name in ("layer_norm", "rms_norm"):
        n = len(operation.arguments("input normalized_shape")["normalized_shape"])
        return each(lambda part: collapsed(part, range(ndim - n, ndim)))
    return None


def _unknown(operation: Operation) -> NoField:
    return NoField(operation.name, operation.call)


def _is_frozen_norm(operation: Operation) -> bool:
    """Whether it is a norm by statistics that are not those of its input."""
    if operation.name == "batch_norm":
        return operation.arguments("input running_mean running_var weight bias training").get("training") is False
    if operation.name == "instance_norm":
        return operation.arguments("input running_mean running_var weight bias use_input_stats").get("use_input_stats") is False
    return False


def _together(operation: Operation, numbers: Sequence[int], ndim: int, values: Sequence[Tensor], known: Mapping[int, State]) -> State:
    return seen_through([known[n] for n in numbers], [values[n].ndim for n in numbers], ndim, _unknown(operation))


def _concatenated(operation: Operation, output: Tensor, values: Sequence[Tensor], known: Mapping[int, State]) -> State | None:
    dim = operation.arguments("tensors dim").get("dim", 0)
    parts = [known[number] for number in operation.inputs]
    if not isinstance(dim, int) or any(dim % output.ndim in part.axes for state in parts if not isinstance(state, NoField) for part in state):
        return None
    return _together(operation, operation.inputs, output.ndim, values, known)


def _padded(operation: Operation, state: Seen, output: Tensor) -> Seen | None:
    given = operation.arguments("input pad mode value")
    if given.get("mode", "constant") not in ("constant", "reflect", "replicate") or any(part.scattered for part in state):
        return None
    before = {output.ndim - 1 - i: given["pad"][2 * i] for i in range(len(given["pad"]) // 2)}

    def shifted(part: Along) -> Along:
        (axis,) = part.axes or (-1,)
        return replace(part, offset=part.offset - before[axis] * part.stride, length=output.shape[axis]) if axis in before else part

    return shifted(state[0]), shifted(state[1])


def _adapted(part: Along, given: Sequence[int], output: Sequence[int], n: int) -> Along:
    """Windows of one size where they divide the axis; else every unit is said to see what all see."""
    (axis,) = part.axes if part.grid else (-1,)
    if axis < len(given) - n:
        return collapsed(part, range(len(given) - n, len(given)))
    if output[axis] > 1 and given[axis] % output[axis] == 0:
        kernel = given[axis] // output[axis]
        return windowed(part, kernel, kernel, 1, 0, output[axis])
    return collapsed(part, [axis])


def _reduced(part: Along, operation: Operation, ndim: int, output_ndim: int) -> Along:
    given = operation.arguments("input p dim" if operation.name == "norm" else "input dim")
    dim = given.get("dim", given.get("axis"))
    gone = sorted(range(ndim) if dim is None else {int(d) % ndim for d in ([dim] if isinstance(dim, int) else dim)})
    left = collapsed(part, gone)
    return left if output_ndim == ndim else renamed(left, lambda axis: axis - sum(d < axis for d in gone))


def _mixed(operation: Operation, output: Tensor, values: Sequence[Tensor], known: Mapping[int, State]) -> State | None:
    """Products of matrices, and attention: what is summed over is seen from everywhere."""
    given = [(arg if isinstance(arg, Value) else None) for arg in tree_leaves(operation.args)[: 3 if "attention" in operation.name else 2]]
    if any(value.number not in known for value in given if value) or len(given) < 2:
        return None
    if operation.name == "multi_head_attention_forward":  # sequence, batch, features
        gone: list[tuple[int, ...]] = [(-1,), (0, -1), (0, -1)]
    elif operation.name == "scaled_dot_product_attention":
        gone = [(-1,), (-2, -1), (-2,)]
    else:
        gone = [(-1,), (-2,)]
    found, ndims = list[State](), list[int]()
    for value, axes in zip(given, gone):
        if value is None:
            continue
        state, ndim = known[value.number], values[value.number].ndim
        assert not isinstance(state, NoField)
        negative = [axis % ndim for axis in axes]
        found.append((collapsed(state[0], negative), collapsed(state[1], negative)))
        ndims.append(ndim)
    return seen_through(found, ndims, output.ndim, _unknown(operation))


def _taken(operation: Operation, index: int, indices: Array) -> Array:
    """Where an operation that moves elements takes each of those of its output from."""
    first = operation.args[0] if operation.args else operation.kwargs["input"]
    with torch.no_grad():
        found: Any = operation({first.number: torch.from_numpy(np.array(indices))})
    return np.asarray(found.numpy() if isinstance(found, Tensor) else found[index].numpy())
