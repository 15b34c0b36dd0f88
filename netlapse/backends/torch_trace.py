"""One forward of a torch module written down: its operations in order, what each was given, and what it returned.

Operations are met and not modules, because modules do not see what a `forward` does between them. A tensor is known by
its identity and its version, so that one that is overwritten is another from then on. What cannot be followed (a write
through a view, a value that leaves for Python) is in the trace as an operation that nobody knows, and no guess is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

# Questions about a tensor whose answers do not depend on its values.
_METADATA = """
    size dim ndimension numel nelement stride len hash is_floating_point is_contiguous is_complex is_signed is_pinned is_inference is_conj is_neg
    get_device element_size storage_offset type data_ptr untyped_storage is_same_size has_names requires_grad register_hook format repr
    """
_SHAPED = "zeros_like ones_like empty_like full_like new_zeros new_ones new_empty new_full new_tensor"
OVERWRITTEN = "overwritten"
"""The name of what made a tensor that was written to by something the trace did not see write to it."""


@dataclass(frozen=True)
class Value:
    """Stands among an operation's arguments for the tensor of this number; 0 is the input."""

    number: int


@dataclass(frozen=True, eq=False)
class Operation:
    """One operation of a forward that was given something that depends on the input.

    call        the module call it ran in, as layers are named; "" in the network's own forward
    name        of the function, without the underscores at its ends; of a property, that of the property
    args        as given, with a `Value` for each tensor that depends on the input; likewise kwargs
    outputs     the numbers of the tensors it returned, in order
    overwrites  whether it writes its output into its first argument
    """

    call: str
    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outputs: tuple[int, ...]
    overwrites: bool = False

    @property
    def inputs(self) -> tuple[int, ...]:
        return tuple(leaf.number for leaf in tree_leaves((self.args, dict(self.kwargs))) if isinstance(leaf, Value))

    def arguments(self, names: str) -> dict[str, Any]:
        """By name, for a function that takes these, in this order; what was not given is missing."""
        return dict(zip(names.split(), self.args)) | dict(self.kwargs)

    def __call__(self, values: Mapping[int, Tensor]) -> Any:
        """What the function returns of other tensors."""
        args, kwargs = tree_map_only(Value, lambda value: values[value.number], (self.args, dict(self.kwargs)))
        return self.function(*args, **kwargs)


@dataclass(frozen=True, eq=False)
class Trace:
    """The operations of one forward, from the input to the layer it was stopped at.

    values   by number, each as it was before anything overwrote it
    layers   module call -> the number of what it returned; those that are missing returned nothing that was followed
    escaped  the name of an operation that gave Python a value that depends on the input, so that another input may take
             another path; "" where there was none
    """

    operations: tuple[Operation, ...]
    values: tuple[Tensor, ...]
    layers: Mapping[str, int]
    escaped: str

    def towards(self, number: int) -> tuple[Operation, ...]:
        """The operations that a value is made by, in order."""
        needed, chosen = {number}, list[Operation]()
        for operation in reversed(self.operations):
            if needed.intersection(operation.outputs):
                chosen.append(operation)
                needed.update(operation.inputs)
        return tuple(reversed(chosen))


class Reached(Exception):
    """Raised to end a forward at the layer that it was wanted for."""


class Recorder(TorchFunctionMode):
    """Writes down what happens to a tensor while it is active; entered and left are to be told of the modules' calls."""

    def __init__(self, tensor: Tensor) -> None:
        super().__init__()
        self._calls = [""]
        self._operations: list[Operation] = []
        self._values: list[Tensor] = []
        self._alive: list[Tensor] = []  # so that no other tensor gets an id or a storage that is known
        self._known: dict[int, tuple[int, int]] = {}  # id -> the tensor's number, and its version then
        self._storages: dict[int, list[int]] = {}  # address -> the numbers of what lies there
        self._layers: dict[str, int] = {}
        self._escaped = ""
        self._number(tensor)

    @property
    def trace(self) -> Trace:
        return Trace(tuple(self._operations), tuple(self._values), self._layers, self._escaped)

    def entered(self, call: str) -> None:
        self._calls.append(call)

    def left(self, output: Tensor | None) -> None:
        """The call that began last ends; its activation, where it has one that is a tensor."""
        call = self._calls.pop()
        with torch._C.DisableTorchFunction():
            if output is not None and (number := self._lookup(output)) is not None:
                self._layers[call] = number

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        numbers = {id(tensor): number for tensor in given if (number := self._lookup(tensor)) is not None}
        if not numbers:
            return func(*args, **kwargs)
        name = name_of(func)
        if name in _SHAPED.split():
            return func(*args, **kwargs)  # takes its shape, and nothing of its values
        written = args[0] if overwrites(getattr(func, "__name__", ""), kwargs) else kwargs.get("out")
        if isinstance(written, Tensor):
            self._preserve(written)
        returned = func(*args, **kwargs)
        outputs = [leaf for leaf in tree_leaves(returned) if isinstance(leaf, Tensor)]
        if isinstance(written, Tensor):
            outputs = [written]  # also where it returns nothing, as an assignment to a slice
        elif not outputs:
            if name not in _METADATA.split() and getattr(func, "__name__", "") != "__get__":
                self._escaped = self._escaped or name
            return returned
        elif all(id(output) in numbers for output in outputs):
            return returned  # it changed nothing, as a dropout that is off
        symbols, named = tree_map_only(Tensor, lambda tensor: Value(numbers[id(tensor)]) if id(tensor) in numbers else tensor, (args, kwargs))
        made = tuple(self._number(output) for output in outputs)
        self._operations.append(Operation(self._calls[-1], name, func, symbols, named, made, isinstance(written, Tensor)))
        return returned

    def _lookup(self, tensor: Tensor) -> int | None:
        """The number of a tensor as it is now; None where it does not depend on the input."""
        number, version = self._known.get(id(tensor), (None, -1))
        if number is not None and version == tensor._version:
            return number
        source = self._storages.get(_address(tensor)) if tensor.numel() else None
        if source is None:
            return None
        # It lies where something known lies, and was written to through that, or it through this.
        before = Value(source[-1] if number is None else number)
        made = self._number(tensor)
        self._operations.append(Operation(self._calls[-1], OVERWRITTEN, torch.clone, (before,), {}, (made,)))
        return made

    def _number(self, tensor: Tensor) -> int:
        number = len(self._values)
        self._values.append(tensor.detach())
        self._alive.append(tensor)
        self._known[id(tensor)] = number, tensor._version
        self._storages.setdefault(_address(tensor), []).append(number)
        return number

    def _preserve(self, tensor: Tensor) -> None:
        """A tensor is about to be overwritten: whatever lies where it lies is copied."""
        for number in self._storages.get(_address(tensor), ()):
            if _address(self._values[number]) == _address(tensor):
                self._values[number] = self._values[number].clone()


def recorded(
    modules: Mapping[nn.Module, str],
    forward: Callable[[Tensor], object],
    tensor: Tensor,
    activation: Callable[[object], Tensor | None],
    last: str | None = None,
) -> Trace:
    """The trace of `forward(tensor)`, which ends after the call `last` of a module; None: which runs to its end.

    modules     those whose calls are told apart, and their names
    activation  what of a module's output is the layer's
    """
    scripted = [name for module, name in modules.items() if isinstance(module, torch.jit.ScriptModule)]
    counts: dict[str, int] = {}
    # A copy, which the network may overwrite.
    with torch.inference_mode(False), torch.no_grad():
        tensor = tensor.clone()
        recorder = Recorder(tensor)

    def entered(module: nn.Module, args: object) -> None:
        base = modules[module]
        counts[base] = counts.get(base, 0) + 1
        recorder.entered(base if counts[base] == 1 else f"{base}.call{counts[base]}")

    def left(module: nn.Module, args: object, output: object) -> None:
        call = recorder._calls[-1]
        recorder.left(activation(output))
        if call == last:
            raise Reached

    hooked = [module for module in modules if not isinstance(module, torch.jit.ScriptModule)]
    handles = [module.register_forward_pre_hook(entered) for module in hooked]
    handles += [module.register_forward_hook(left) for module in hooked]
    try:
        with torch.inference_mode(False), torch.no_grad(), recorder:
            forward(tensor)
    except Reached:
        pass
    finally:
        for handle in handles:
            handle.remove()
    trace = recorder.trace
    return trace if not scripted else Trace(trace.operations, trace.values, trace.layers, f"torch.jit in {scripted[0]!r}")


def name_of(function: Callable[..., Any]) -> str:
    """A function's name without the underscores at its ends: `add` for `__add__` and `add_`; of a property, that of the property."""
    name = getattr(function, "__name__", str(function))
    if name == "__get__":
        name = getattr(getattr(function, "__self__", None), "__name__", name)
    return str(name).strip("_")


def overwrites(name: str, kwargs: Mapping[str, object]) -> bool:
    """Whether a function of this name changes its first argument."""
    if name.startswith("__"):
        return name == "__setitem__" or (name.startswith("__i") and name not in ("__invert__", "__index__", "__int__"))
    return (name.endswith("_") and name != "requires_grad_") or kwargs.get("inplace") is True


def pair(value: int | Sequence[int], n: int = 2) -> tuple[int, ...]:
    """A number for each axis, where one may be given for all."""
    values = (value,) if isinstance(value, int) else tuple(int(size) for size in value)
    return values * n if len(values) == 1 else values


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
