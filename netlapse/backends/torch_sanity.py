"""A torch module with parameters drawn anew, and one that answers shifted inputs as it answered the inputs themselves.

What must hold beside what `netlapse.backends.torch` lists: a parameter keeps its object, its memory and its version, so that an
optimiser, a tied weight and a graph that waits for its backward find it as it was. So nothing is written into it: another
tensor's memory stands in for it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

Drawn = tuple[list[tuple[nn.Parameter, Tensor]], list[tuple[nn.Module, str, Tensor]], list[str]]

_RESETS = ("reset_parameters", "_reset_parameters")  # the second is that of torch's own attention
# Operations by what they do to a shifted tensor: "moves" values about, so that the shift goes along; "makes" something that depends on no
# values; is affine in one argument, or, the "sums", in all together. Names as torch has them.
_KINDS = {
    "moves": """
        flatten view reshape view_as reshape_as unflatten squeeze unsqueeze permute transpose movedim moveaxis swapaxes t T mT data contiguous
        clone expand to float double __getitem__ dropout dropout1d dropout2d dropout3d feature_dropout detach requires_grad_ chunk split unbind
    """,
    "makes": "ones_like zeros_like full_like empty_like rand_like randn_like new_ones new_zeros new_full new_empty new_tensor",
    "affine": """
        conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d linear batch_norm
        mul __mul__ __rmul__ matmul __matmul__ __rmatmul__ mm bmm einsum div __truediv__ true_divide neg mean sum pad unfold
        avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
    """,
    "sums": "add __add__ __radd__ sub __sub__ __rsub__ rsub cat concat stack",
}
_KIND = {name: kind for kind, names in _KINDS.items() for name in names.split()}


# ---- parameters drawn anew -------------------------------------------------------------------------------------------


def in_order(modules: Sequence[tuple[str, nn.Module]], run: Callable[[], object]) -> tuple[str, ...]:
    """The names of the modules that have parameters of their own, as they begin in `run`, one forward.

    One whose own forward is not called, as its parent computes with its weights, comes right after the nearest that is.
    """
    began: dict[str, int] = {}

    def hooked(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: object) -> None:
            began.setdefault(name, len(began))

        return hook

    handles = [module.register_forward_pre_hook(hooked(name)) for name, module in modules if not isinstance(module, torch.jit.ScriptModule)]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()

    def place(name: str) -> tuple[int, bool]:
        nearest = name
        while nearest and nearest not in began:
            nearest = nearest.rpartition(".")[0]
        return began.get(nearest, -1), nearest != name

    return tuple(sorted((name for name, module in modules if _own(module)), key=place))


@contextmanager
def randomised(root: nn.Module, chosen: Sequence[nn.Module], seed: int) -> Iterator[list[str]]:
    """Inside, the parameters of the chosen modules are drawn anew; yields for each how: "drawn", "permuted" or "drawn and permuted".

    The modules of `root` are initialised in the order in which they are made, from one stream: all of them are as after
    `torch.manual_seed(seed)` and building the network, and what one gets does not depend on which others are chosen.
    """
    parameters, buffers, how = _drawn(root, chosen, seed)
    before = [(parameter, parameter.data) for parameter, _ in parameters]
    buffers_before = [(module, name, module._buffers[name]) for module, name, _ in buffers]
    try:
        for parameter, value in parameters:
            parameter.data = value  # and no copy into it: that would raise its version
        for module, name, value in buffers:
            module._buffers[name] = value
        yield how
    finally:
        for parameter, data in before:
            parameter.data = data
        for module, name, buffer in buffers_before:
            module._buffers[name] = buffer


def _drawn(root: nn.Module, chosen: Sequence[nn.Module], seed: int) -> Drawn:
    modules = list(root.modules())
    # A `reset_parameters` may write wherever it likes: into copies.
    attributes = [(module, dict(vars(module))) for module in modules]
    tables: list[tuple[dict[str, Any], dict[str, Any]]] = [(table, dict(table)) for m in modules for table in (m._parameters, m._buffers)]
    copies: dict[int, Tensor] = {}

    def copy(tensor: Tensor) -> Tensor:
        if id(tensor) not in copies:
            twin = tensor.detach().clone()
            copies[id(tensor)] = nn.Parameter(twin, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else twin
        return copies[id(tensor)]

    parameters: dict[int, tuple[nn.Parameter, Tensor]] = {}
    buffers: list[tuple[nn.Module, str, Tensor]] = []
    how: list[str] = []
    try:
        for table, own in tables:
            table.update({name: copy(tensor) for name, tensor in own.items() if tensor is not None})
        for module, own in attributes:
            vars(module).update({name: value.detach().clone() for name, value in own.items() if isinstance(value, Tensor)})
        versions = {key: twin._version for key, twin in copies.items()}
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002 - what a user's own `reset_parameters` may draw from
        for module in _children_first(root):
            if any(tensor is not None for tensor in module._parameters.values()) and (reset := _reset(module)):
                reset()
        shuffle = torch.Generator().manual_seed(seed)
        own_tables = {id(table): own for table, own in tables}
        for module in chosen:
            ways = []
            for name, parameter in own_tables[id(module._parameters)].items():
                if parameter is None:
                    continue
                twin: Any = module._parameters[name]
                written = twin is not copies[id(parameter)] or twin._version > versions[id(parameter)]
                ways.append("drawn" if written else "permuted")
                value = twin.detach() if written else _permuted(parameter.detach(), shuffle)
                parameters[id(parameter)] = parameter, value
            for name, buffer in own_tables[id(module._buffers)].items():
                twin = module._buffers.get(name)
                if buffer is not None and twin is not None and (twin is not copies[id(buffer)] or twin._version > versions[id(buffer)]):
                    buffers.append((module, name, twin.detach()))
            how.append(" and ".join(sorted(set(ways))))
    finally:
        for module, own in attributes:
            vars(module).clear()
            vars(module).update(own)
        for table, own in tables:
            table.clear()
            table.update(own)
    return list(parameters.values()), buffers, how


def _own(module: nn.Module) -> bool:
    return next(module.parameters(recurse=False), None) is not None


def _children_first(module: nn.Module) -> Iterator[nn.Module]:
    """In the order in which modules are initialised: torch's attention makes its projections before its own weights."""
    seen: set[nn.Module] = set()

    def walk(module: nn.Module) -> Iterator[nn.Module]:
        if module not in seen:
            seen.add(module)
            for child in module.children():
                yield from walk(child)
            yield module

    return walk(module)


def _reset(module: nn.Module) -> Callable[[], object] | None:
    """What initialises a module's own parameters; None where it has nothing of the kind, or it wants to be told something."""
    for name in _RESETS:
        reset = getattr(module, name, None)
        if callable(reset):
            try:
                inspect.signature(reset).bind()
            except TypeError:
                continue
            return reset  # type: ignore[no-any-return]
    return None


def _permuted(tensor: Tensor, generator: torch.Generator) -> Tensor:
    order = torch.randperm(tensor.numel(), generator=generator).to(tensor.device)
    return tensor.flatten()[order].view(tensor.shape)


# ---- shifted inputs --------------------------------------------------------------------------------------------------


@contextmanager
def shifted(root: nn.Module, shift: Tensor) -> Iterator[None]:
    """Inside, the module answers inputs + shift (c, ...) as it answers the inputs outside; see `Compensation`."""
    modes: list[Compensation] = []

    # Hooks, so that whoever calls the module calls this one; inside of all other modes, which meet what is done here.
    def begin(module: nn.Module, args: tuple[Any, ...]) -> None:
        mode = Compensation(args[0], shift)
        mode.__enter__()  # type: ignore[no-untyped-call]
        modes.append(mode)

    def end(module: nn.Module, args: object, output: object) -> None:
        if modes:
            modes.pop().__exit__(None, None, None)  # type: ignore[no-untyped-call]

    handles = [root.register_forward_pre_hook(begin, prepend=True), root.register_forward_hook(end, prepend=True, always_call=True)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class Compensation(TorchFunctionMode):
    """Takes from the first affine operations of a forward on its inputs what a shift of these adds: y - (f(shift) - f(0)).

    At padded borders that is no one number, as zeros there are not shifted, so it is computed by the operation itself. What only
    moves values about, as a flattening does, is gone through.

    Raises ValueError for any other operation on the inputs.
    """

    def __init__(self, inputs: Tensor, shift: Tensor) -> None:
        super().__init__()
        self._shifts: dict[int, tuple[Tensor, Tensor]] = {}  # by the id of a tensor: it, kept alive, and by how much it is shifted
        self._note(inputs, shift.expand_as(inputs) if inputs.is_floating_point() else shift)
        if not inputs.is_floating_point():
            raise ValueError("token ids cannot be shifted: they are integers; leave out the check of shifted inputs")

    def _note(self, tensor: Tensor, shift: Tensor) -> None:
        self._shifts[id(tensor)] = tensor, shift

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        given = [value for value in _tensors((args, kwargs)) if id(value) in self._shifts]
        if not given or not _tensors(result):
            return result
        name = func.__name__ if func.__name__ != "__get__" else func.__self__.__name__
        kind = _KIND.get(name)
        if kind == "makes":
            return result
        if kind == "moves":
            for tensor, shift in zip(_tensors(result), _tensors(self._asked(func, args, kwargs, lambda shift: shift))):
                self._note(tensor, shift)
            return result
        affine = kind == "sums" or (kind == "affine" and len(given) == 1 and not _is_training(name, args, kwargs))
        affine = affine and not ("div" in name and given[0] is not next(iter(args), None))
        if not affine:
            raise ValueError(
                f"the first thing this network does with its inputs is {name!r}, which is not affine, so no bias can make up for a constant added "
                "to them; leave out the check of shifted inputs"
            )
        added = self._asked(func, args, kwargs, lambda shift: shift) - self._asked(func, args, kwargs, torch.zeros_like)
        return result - added

    def _asked(self, func: Any, args: Any, kwargs: Any, instead: Callable[[Tensor], Tensor]) -> Any:
        """What a function makes of others in place of its shifted arguments."""

        def swap(value: object) -> object:
            return instead(self._shifts[id(value)][1]) if isinstance(value, Tensor) and id(value) in self._shifts else value

        return func(*tree_map(swap, args), **tree_map(swap, kwargs))


def _is_training(name: str, args: Any, kwargs: Any) -> bool:
    return name == "batch_norm" and bool(kwargs.get("training", args[5] if len(args) > 5 else False))


def _tensors(values: object) -> list[Tensor]:
    found: list[Tensor] = []
    tree_map(lambda value: found.append(value) if isinstance(value, Tensor) else None, values)
    return found
