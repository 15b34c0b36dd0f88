"""The full gradient of a score in torch: what the bias of each operation of a forward adds to it.

For an operation y = f(x) with the Jacobian J at x the bias is y - J x, and the score is the sum of (its gradient by the
inputs) x inputs and, over all operations, (its gradient by y) x (y - J x) (Srinivas & Fleuret, 2019). Operations are met
and not modules, because modules do not see what a `forward` does between them. That of the usual ones is known: the bias
of a convolution, nothing for a ReLU. Of all others it is computed in forward mode, so no list of operations has to be complete.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import TreeSpec, tree_flatten, tree_map, tree_unflatten
from torch.utils.weak import WeakTensorKeyDictionary

from netlapse.backends import Part, half_precision
from netlapse.backends.torch_maps import ActivationMaps, constant_parameters, score_of
from netlapse.types import BiasMagnitude, Exact, Float32, Int64, Magnitude, Sizes

# f(t x) = t f(x) for t > 0 in all tensors together, so that J x = f(x) and the bias is zero. Names as torch has them, which
# name a function of torch.nn.functional and a method of a tensor alike. What is missing here is computed, and costs more.
_HOMOGENEOUS = """
    relu relu_ leaky_relu leaky_relu_ dropout dropout1d dropout2d dropout3d feature_dropout
    max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
    adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d mean sum amax amin cat concat stack
    flatten view reshape unflatten squeeze unsqueeze permute transpose movedim moveaxis t contiguous clone expand expand_as repeat
    chunk split unbind __getitem__ to float double neg abs pixel_shuffle channel_shuffle
"""
_KINDS = {
    "homogeneous": _HOMOGENEOUS,
    "bilinear": "mul mul_ multiply multiply_ __mul__ __rmul__ __imul__ matmul __matmul__ __rmatmul__ mm bmm",
    "quotient": "div div_ divide divide_ __truediv__ __itruediv__ true_divide true_divide_",
    "sum": "add add_ __add__ __iadd__ __radd__",
    "difference": "sub sub_ subtract subtract_ __sub__ __isub__",
    "difference from": "rsub __rsub__",
    "convolution": "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d",
    "linear": "linear",
    "batch norm": "batch_norm",
}
_KIND = {name: kind for kind, names in _KINDS.items() for name in names.split()}

_CHANNELS_FIRST = (*_KINDS["convolution"].split(), "batch_norm", "group_norm", "instance_norm")
_CHANNELS_LAST = ("linear", "embedding", "multi_head_attention_forward", "scaled_dot_product_attention")
_PERMUTING = ("permute", "transpose", "movedim", "moveaxis", "swapaxes", "swapdims", "t", "adjoint", "__get__")  # __get__: x.T, x.mT
_SIZES = (2, 3, 5, 7, 11, 13, 17, 19)  # of a tensor whose axes are told apart by their sizes

Flat = list[Any]


@dataclass(frozen=True)
class Layout:
    """Which axes of a tensor are the batch and the units, and whether its other two are those of an image."""

    batch: int
    units: int
    image: bool


@dataclass(eq=False)
class Operation:
    """One operation of a forward that has a bias.

    call      the module call it ran in, as layers are named; "" in the network's own forward
    name      of the function
    bias      broadcasts against the output
    constant  whether the bias is the network's own (that of a convolution) and does not depend on the input
    found     what `Operations` made of it and of the gradient by the output; None where the score does not depend on it
    """

    call: str
    name: str
    bias: Tensor
    constant: bool
    layout: Layout
    found: Any = None


class Operations(TorchFunctionMode):
    """Meets the operations of one forward that depend on the input, and their gradients in the backward after it.

    n            the number of inputs
    made         (operation, gradient by its output) -> what is to be kept of them
    overwritten  is told of a tensor before an operation overwrites it

    Only what requires a gradient counts as depending on the input: see `decomposed`.
    Raises ValueError where something of it is in half precision.
    """

    def __init__(self, n: int, made: Callable[[Operation, Tensor], object], overwritten: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.n = n
        self._made = made
        self._overwritten = overwritten
        self.exact = True  # whether all that was met is in float64
        self._calls = [""]
        self._layouts = WeakTensorKeyDictionary()
        self._met: list[Operation] = []
        self._whole: set[str] = set()

    def entered(self, call: str, *, whole: bool) -> None:
        """A module's call begins; `whole`: where it has one bias, that is the module's, and goes by its name."""
        self._calls.append(call)
        if whole:
            self._whole.add(call)

    def left(self) -> str:
        """The call that began last ends: its name."""
        return self._calls.pop()

    @property
    def call(self) -> str:
        """The module call that is running."""
        return self._calls[-1]

    def watch(self, inputs: Tensor, units: int) -> None:
        """The inputs have the batch first and the units on this axis."""
        self._layouts[inputs] = Layout(0, units, inputs.ndim == 4)

    def layout(self, tensor: Tensor) -> Layout:
        """That of a tensor that was met; for any other, what it most likely is."""
        known = self._layouts.get(tensor)  # type: ignore[no-untyped-call]
        return known if isinstance(known, Layout) else Layout(0, max(tensor.ndim - 1, 0), False)

    def found(self) -> dict[str, Any]:
        """After the backward: what was made of each bias that the score depends on, by the name of its module call, or of both."""
        used = [operation for operation in self._met if operation.found is not None]
        in_call = Counter(operation.call for operation in used)
        counts: Counter[str] = Counter()
        named = {}
        for operation in used:
            alone = operation.call in self._whole and in_call[operation.call] == 1
            name = operation.call if alone else f"{operation.call}.{operation.name}".removeprefix(".")
            counts[name] += 1
            named[name if counts[name] == 1 else f"{name}.call{counts[name]}"] = operation.found
        return named

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", str(func))
        return self._meet(func, name, args, kwargs or {}, constant=False)

    def met_whole(self, function: Callable[..., Any], name: str, args: Any, kwargs: Any, *, constant: bool) -> Any:
        """A function as if it were one operation; `constant`: whether its bias is the network's own, also where it is zero."""

        def alone(*args: Any, **kwargs: Any) -> Any:
            with torch._C.DisableTorchFunction():
                return function(*args, **kwargs)

        return self._meet(alone, name, args, kwargs, constant=constant, known_by_name=False)

    def _meet(self, func: Any, name: str, args: Any, kwargs: Mapping[str, Any], *, constant: bool, known_by_name: bool = True) -> Any:
        flat, spec = tree_flatten((args, kwargs))
        dependent = [i for i, value in enumerate(flat) if _depends(value)]
        if not dependent:
            return func(*args, **kwargs)
        known = _known_bias(name, args, kwargs, flat, dependent) if known_by_name else None
        overwrites = known_by_name and _overwrites(name, kwargs)
        before = [value.detach().clone() if isinstance(value, Tensor) else value for value in flat] if known is None and overwrites else flat
        source = flat[dependent[0]]
        given = [self.layout(flat[i]) for i in dependent]
        if overwrites:
            self._overwritten(args[0])
        returned = func(*args, **kwargs)
        outputs = [args[0]] if overwrites else tree_flatten(returned)[0]
        if not any(_depends(output) for output in outputs):
            return returned
        tangents = _tangents(func, before, spec, dependent, overwrites) if known is None else [None] * len(outputs)
        for output, tangent in zip(outputs, tangents):
            if not _depends(output):
                continue
            self._check_precision(name, output)
            self.exact = self.exact and output.dtype == torch.float64
            layout = self._layouts[output] = _layout(func, name, args, kwargs, source, given, output, self.n)
            bias = known if known is not None else output.detach() if tangent is None else output.detach() - tangent
            if isinstance(bias, Tensor) and (constant or known is not None or bool(bias.any())):
                self._wait(Operation(self.call, name.strip("_"), bias, constant or known is not None, layout), output, overwrites)
        return returned

    def _check_precision(self, name: str, output: Tensor) -> None:
        if output.dtype in (torch.float16, torch.bfloat16):
            raise ValueError(half_precision(name, self.call, str(output.dtype).removeprefix("torch.")))

    def _wait(self, operation: Operation, output: Tensor, overwritten: bool) -> None:
        if overwritten and output._is_view():
            # What comes after may use the tensor it is a view of, and never the view.
            base = output._base
            assert base is not None
            bias = torch.empty_strided(base.shape, base.stride(), dtype=base.dtype, device=base.device).zero_()
            offset = output.storage_offset() - base.storage_offset()
            bias.as_strided(output.shape, output.stride(), offset).copy_(operation.bias.broadcast_to(output.shape))
            operation.bias, operation.layout, output = bias, self.layout(base), base
        self._met.append(operation)

        def arrived(gradient: Tensor) -> None:
            operation.found = self._made(operation, gradient)

        output.register_hook(arrived)  # type: ignore[no-untyped-call]


class Audit:
    """What each module call adds to the scores beside what the operations in it account for: where a full gradient is incomplete.

    A call adds <gradient, value> of what it returns, less that of what it is given, less what its operations and the calls
    inside it add. Where all is met, nothing is left.
    """

    def __init__(self, operations: Operations) -> None:
        self.gaps: dict[str, Tensor] = {}
        self._operations = operations

    def account(self, call: str, amount: Tensor) -> None:
        self.gaps[call] = self.gaps[call] + amount if call in self.gaps else amount

    def met(self, operation: Operation, gradient: Tensor) -> None:
        self.account(operation.call, -_arranged(gradient * operation.bias, operation.layout, self._operations.n).flatten(1).sum(dim=1))

    def given(self, call: str, outer: str, value: object) -> object:
        """What stands in for an argument of a call, so that there is a gradient by this use of it alone."""
        if not _depends(value):
            return value
        assert isinstance(value, Tensor)
        own = value.clone()
        self._weigh(call, outer, own, -1)
        return own

    def returned(self, call: str, outer: str, value: object) -> None:
        if _depends(value):
            assert isinstance(value, Tensor)
            self._weigh(call, outer, value, 1)

    def _weigh(self, call: str, outer: str, tensor: Tensor, sign: int) -> None:
        value, layout = tensor.detach().clone(), self._operations.layout(tensor)

        def arrived(gradient: Tensor) -> None:
            amount = sign * _arranged(gradient * value, layout, self._operations.n).flatten(1).sum(dim=1)
            self.account(call, amount)
            self.account(outer, -amount)

        tensor.register_hook(arrived)  # type: ignore[no-untyped-call]


class Calls:
    """What a forward tells of the calls of its modules as they begin and end."""

    def __init__(self, operations: Operations, audit: Audit | None, maps: ActivationMaps) -> None:
        self._operations = operations
        self._audit = audit
        self._maps = maps
        self._given: list[Flat] = []
        self._in_atom = False

    def entered(self, call: str, args: Any, kwargs: Any, *, whole: bool) -> tuple[Any, Any]:
        """A call begins; returns the arguments to go on with. `whole`: a bias that is its only one goes by its name alone."""
        if self._in_atom:
            return args, kwargs
        outer = self._operations.call
        self._given.append(tree_flatten((args, kwargs))[0])
        self._operations.entered(call, whole=whole)
        return (args, kwargs) if self._audit is None else tree_map(partial(self._audit.given, call, outer), (args, kwargs))  # type: ignore[return-value]

    def atom(self, function: Callable[..., Any], name: str, args: Any, kwargs: Any, *, constant: bool) -> Any:
        """What a function returns, which has one bias, whatever operations it is made of; calls inside it are not told of."""
        if self._in_atom:
            return function(*args, **kwargs)
        self._in_atom = True
        try:
            return self._operations.met_whole(function, name, args, kwargs, constant=constant)
        finally:
            self._in_atom = False

    def left(
        self, output: object, watched: Callable[[str], tuple[Tensor | None, int, int] | None] = lambda call: None
    ) -> tuple[Tensor, Tensor] | None:
        """The call that began last ends with an output; returns a tensor of it, and what is to go on in its place. None: nothing is.

        watched  (call) -> the activation whose map is asked for, its axis of the batch, and of units once that is first; None: none is
        There is no map of what does not depend on the inputs.
        """
        if self._in_atom:
            return None
        call, given = self._operations.left(), self._given.pop()
        if self._audit is not None:
            tree_map(partial(self._audit.returned, call, self._operations.call), output)
        activation, batch, units = watched(call) or (None, 0, 0)
        if activation is None or not activation.requires_grad:
            return None
        # What the call was given others have too; and of a view, what comes after may use the tensor it is a view of.
        if activation._is_view() or any(value is activation for value in given):
            return activation, self._maps.copy(call, activation, batch, units)
        self._maps.watch(call, activation, batch, units)
        return None


def decomposed(
    module: nn.Module, forward: Callable[[Tensor, Calls], Tensor], tensor: Tensor, units: int, classes: Int64, of: Part
) -> tuple[Exact, dict[str, Any], Exact, dict[str, Float32]]:
    """The gradient by the inputs of the logit of each input's class, what is asked for of every bias, these logits (n,), and class activation maps.

    forward  from the inputs to the logits of a module
    units    the axis of the inputs that is their units, which is the gradient's too
    of       "values": (numpy (n, ..., u), whether it is an image's); "gaps": (n,) by call; else BiasMagnitude with these sizes
    The maps are of the layers that `forward` shows and that depend on the inputs.
    """
    if not tensor.is_floating_point():
        raise ValueError("no full gradient by token ids: they are integers; explain a network that takes floats")
    n = len(tensor)
    made = partial(_term, n=n) if of == "values" else _Magnitudes(n, () if of == "gaps" else of)
    maps = ActivationMaps()
    operations = Operations(n, lambda operation, gradient: audit.met(operation, gradient) if audit else made(operation, gradient), maps.preserve)
    audit = Audit(operations) if of == "gaps" else None
    with torch.enable_grad(), constant_parameters(module):
        tensor = tensor.detach().requires_grad_()
        shown = tensor.clone()  # which the network may overwrite
        operations.watch(shown, units)
        with operations:
            logits = forward(shown, Calls(operations, audit, maps))
        score = score_of(logits, classes)
        if not score.requires_grad:
            raise ValueError(
                "no full gradient: the logits do not depend on the inputs by anything that has a gradient; "
                "take detach() or no_grad() out of the network's forward"
            )
        (gradient,) = torch.autograd.grad(score.sum(), tensor)
    if audit is not None:
        audit.account("", score.detach() - (gradient * tensor.detach()).flatten(1).sum(dim=1))
    found = operations.found() if audit is None else {call: to_numpy(gap) for call, gap in audit.gaps.items()}
    return to_numpy(gradient if operations.exact else gradient.float()), found, to_numpy(score), maps.found


def _term(operation: Operation, gradient: Tensor, n: int) -> tuple[Exact, bool]:
    """(n, ..., u) gradient x bias, and whether it is that of an image."""
    return to_numpy(_arranged(gradient * operation.bias, operation.layout, n)), operation.layout.image


class _Magnitudes:
    """The absolute values of gradient x bias, and of the gradient where there is a bias, without their units.

    All are computed in one piece of memory: fresh memory costs more than what is computed in it.
    """

    def __init__(self, n: int, of: Collection[Magnitude]) -> None:
        self._n = n
        self._of = of
        self._memory = torch.empty(0)

    def __call__(self, operation: Operation, gradient: Tensor) -> BiasMagnitude:
        if not operation.layout.image:
            added = _arranged(gradient * operation.bias, operation.layout, self._n)
            return BiasMagnitude(tuple(added.shape[1:]), to_numpy(added.flatten(1).sum(dim=1)), to_numpy(added.flatten(1).abs().sum(dim=1)))
        shape = tuple(_arranged(gradient, operation.layout, self._n).shape[1:])
        size = torch.mul(gradient, operation.bias, out=self._room(gradient)).movedim(operation.layout.batch, 0)
        total = size.sum(dim=(1, 2, 3))
        mass = size.abs_().sum(dim=(1, 2, 3))
        sizes: dict[Magnitude, Sizes] = {}
        if "terms" in self._of:
            sizes["terms"] = self._sizes(size, operation.layout)
        if "gradients" in self._of:
            size = torch.abs(gradient, out=self._room(gradient)).movedim(operation.layout.batch, 0)
            if not operation.constant:  # whether an input met a bias must not depend on the others of its batch
                size *= operation.bias.movedim(operation.layout.batch, 0).flatten(1).any(dim=1)[:, None, None, None]
            sizes["gradients"] = self._sizes(size, operation.layout)
        return BiasMagnitude(shape, to_numpy(total), to_numpy(mass), sizes)

    def _sizes(self, size: Tensor, layout: Layout) -> Sizes:
        """Of absolute values with the batch first."""
        # Two passes, because aminmax, which takes one, is twenty times slower along an axis.
        low, high = size.amin(dim=(1, 2, 3)), size.amax(dim=(1, 2, 3))
        over_units = _arranged(size.movedim(0, layout.batch), layout, self._n).sum(dim=-1)
        return Sizes(to_numpy(over_units), to_numpy(low), to_numpy(high))

    def _room(self, like: Tensor) -> Tensor:
        if self._memory.numel() < like.numel() or self._memory.dtype != like.dtype or self._memory.device != like.device:
            self._memory = torch.empty(like.numel(), dtype=like.dtype, device=like.device)
        return self._memory[: like.numel()].view(like.shape)


def _arranged(tensor: Tensor, layout: Layout, n: int) -> Tensor:
    """Batch first and units last; where the batch's axis counts parts of the inputs, as windows, these come second."""
    if tensor.ndim == 0 or tensor.shape[layout.batch] % n:
        raise ValueError(
            f"no full gradient: an operation with a bias returns {tuple(tensor.shape)} for {n} inputs, and none of its axes is theirs; "
            "it mixes the inputs of a batch, and so no score is that of one input"
        )
    if tensor.ndim == 1:
        return tensor.reshape(n, -1)
    rows = tensor.movedim((layout.batch, layout.units), (0, -1))
    return rows if rows.shape[0] == n else rows.reshape(n, -1, *rows.shape[1:])


def to_numpy(tensor: Tensor) -> Exact:
    """In the precision of the network, but at least float32."""
    tensor = tensor.detach()
    return np.array((tensor if tensor.dtype == torch.float64 else tensor.float()).cpu().numpy(), order="C")


# ---- biases ----------------------------------------------------------------------------------------------------------


def _depends(value: object) -> bool:
    return isinstance(value, Tensor) and value.requires_grad and value.is_floating_point()


def _overwrites(name: str, kwargs: Mapping[str, object]) -> bool:
    """Whether an operation changes its first argument."""
    if name.startswith("__"):
        return name == "__setitem__" or (name.startswith("__i") and name not in ("__invert__", "__index__", "__int__"))
    return name.endswith("_") or kwargs.get("inplace") is True


def _known_bias(name: str, args: Any, kwargs: Mapping[str, Any], flat: Flat, dependent: Sequence[int]) -> Tensor | float | None:
    """What y - J x is without computing it: a tensor that broadcasts, 0.0 for none; None where that is not known."""
    kind, first, alone = _KIND.get(name), args[0] if args else None, len(dependent) == 1
    if kind == "homogeneous":
        return 0.0 if all(_depends(value) for value in flat if isinstance(value, Tensor) and value.is_floating_point()) else None
    added = kind in ("sum", "difference", "difference from")
    if added and not alone:
        return 0.0
    if kind is None or not alone:
        return None
    if kind == "bilinear":
        return 0.0
    if added and len(args) == 2:
        own, other = args if _depends(first) else args[::-1]
        constant: Tensor = torch.as_tensor(other, dtype=own.dtype, device=own.device).detach()
        if kind == "difference from" or own is not first:
            return constant
        constant = constant * kwargs.get("alpha", 1)
        return -constant if kind == "difference" else constant
    if not _depends(first):  # the others tell their arguments apart
        return None
    assert isinstance(first, Tensor)
    if kind == "quotient":
        return 0.0
    if kind == "linear":
        bias = _argument(args, kwargs, 2, "bias")
        return 0.0 if bias is None else bias.detach()
    if kind == "convolution" and first.ndim == args[1].ndim:
        bias = _argument(args, kwargs, 2, "bias")
        return 0.0 if bias is None else bias.detach().reshape(-1, *[1] * (first.ndim - 2))
    if kind == "batch norm" and kwargs.get("training") is False:
        mean, variance = args[1:3]
        scale = (variance + kwargs["eps"]).rsqrt() * (1 if kwargs["weight"] is None else kwargs["weight"])
        shift = (0 if kwargs["bias"] is None else kwargs["bias"]) - mean * scale
        found: Tensor = shift.detach().reshape(-1, *[1] * (first.ndim - 2))
        return found
    return None


def _argument(args: Sequence[Any], kwargs: Mapping[str, Any], index: int, name: str) -> Any:
    return args[index] if len(args) > index else kwargs.get(name)


def _tangents(func: Any, before: Flat, spec: TreeSpec, dependent: Sequence[int], overwrites: bool) -> list[Tensor | None]:
    """J x for each output of a function: its derivative in the direction of its own inputs; None where that is zero."""

    def outputs(inputs: Sequence[Tensor]) -> list[Any]:
        given = list(before)
        for i, value in zip(dependent, inputs):
            given[i] = value
        args, kwargs = tree_unflatten(given, spec)
        returned = func(*args, **kwargs)
        return [args[0]] if overwrites else tree_flatten(returned)[0]

    # Some kernels, as that of the group norm, know the forward mode of contiguous tensors only; of attention's, one knows it.
    inputs = [before[i].detach().contiguous() for i in dependent]
    with sdpa_kernel(SDPBackend.MATH):
        try:
            with forward_ad.dual_level():
                found = outputs([_dual(value, value.clone() if overwrites else value) for value in inputs])
                return [_tangent(output) if isinstance(output, Tensor) else None for output in found]
        except NotImplementedError:  # what has no forward mode has, as a rule, a second derivative
            sources = [value.clone().requires_grad_() for value in inputs]
            return [_tangent_by_gradients(output, inputs, sources) for output in outputs([source.clone() for source in sources])]


def _dual(value: Tensor, tangent: Tensor) -> Tensor:
    return forward_ad.make_dual(value, tangent)  # type: ignore[no-untyped-call,no-any-return]


def _tangent(dual: Tensor) -> Tensor | None:
    return forward_ad.unpack_dual(dual).tangent  # type: ignore[no-untyped-call,no-any-return]


def _tangent_by_gradients(output: object, inputs: Sequence[Tensor], sources: Sequence[Tensor]) -> Tensor | None:
    """J x as the gradient by v of v J x, where v J is itself a gradient."""
    if not _depends(output):
        return None
    assert isinstance(output, Tensor)
    v = torch.zeros_like(output, requires_grad=True)
    pulled = torch.autograd.grad(output, sources, v, create_graph=True, allow_unused=True)
    total = torch.stack([(p * x).sum() for p, x in zip(pulled, inputs) if p is not None]).sum()
    return torch.autograd.grad(total, v)[0]


# ---- axes ------------------------------------------------------------------------------------------------------------


def _layout(func: Any, name: str, args: Any, kwargs: Any, source: Tensor, given: Sequence[Layout], output: Tensor, n: int) -> Layout:
    """Where the batch and the units of an output are, from where they are in what an operation was given."""
    ndim = output.ndim
    batch, units = given[0].batch, given[0].units
    image = ndim == 4 and (name in _CHANNELS_FIRST or (source.ndim == 4 and any(layout.image for layout in given)))
    if name in _PERMUTING and source.ndim == ndim <= len(_SIZES):
        order = _order(func, args, kwargs, ndim)
        batch, units = order.index(batch), order.index(units)
    elif source.ndim != ndim:
        kept = units < source.ndim - 1 and units < ndim and output.shape[units] == source.shape[units]
        units = units if kept else ndim - 1
    if name in _CHANNELS_FIRST and ndim > 2:
        units = 1
    elif name in _CHANNELS_LAST:
        units = ndim - 1
    # The axis may count parts of the inputs, as windows; that it is where it was is certain only where it is the first, or none came or went.
    divides = batch < ndim and output.shape[batch] % n == 0
    if not (divides and (batch == 0 or source.ndim == ndim)):
        batch = next((axis for axis in range(ndim) if output.shape[axis] == n and axis != units), batch if divides else 0)
    return Layout(batch, units, image and output.shape[batch] == n)


def _order(func: Any, args: Any, kwargs: Any, ndim: int) -> list[int]:
    """The axes of what is permuted, in the order in which they come out."""
    moved = func(torch.empty(_SIZES[:ndim], device="meta"), *args[1:], **kwargs)
    shape = tuple(moved.shape) if isinstance(moved, Tensor) else ()
    return [_SIZES.index(size) for size in shape] if sorted(shape) == list(_SIZES[:ndim]) else list(range(ndim))
