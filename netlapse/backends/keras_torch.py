"""What `KerasNetwork` asks of torch where that is Keras's backend: everything runs eagerly."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from netlapse.backends import Part
from netlapse.backends.torch import Scores, TorchNetwork
from netlapse.backends.torch_fullgrad import Calls, decomposed
from netlapse.backends.torch_maps import activation_map, constant_parameters
from netlapse.types import Array, Exact, Float32, Int64

Seen = Callable[[str, Tensor], Tensor | None]
Forward = Callable[[Tensor, Seen], Tensor]


class Torch:
    """Runs functions of tensors with numpy arrays; a Keras model on this backend is a torch module, with all its states."""

    def __init__(self, model: nn.Module) -> None:
        self._network = TorchNetwork(model)

    def run(self, key: object, body: Callable[..., Mapping[str, Tensor]], *arrays: Array) -> dict[str, Array]:
        """What `body(*tensors)` returns, as numpy."""
        device = self._network._device()
        with torch.inference_mode(False), torch.no_grad():
            found = body(*(torch.from_numpy(np.array(array, order="C")).to(device) for array in arrays))
        return {name: (value.float() if value.dtype == torch.bfloat16 else value).detach().cpu().numpy() for name, value in found.items()}

    def hidden(self, tensor: Tensor) -> str | None:
        """Why a tensor met in a forward cannot be observed; None where it can."""
        return None

    def mean(self, tensor: Tensor, positions: tuple[int, ...]) -> Tensor:
        """Over the positions."""
        return tensor.mean(dim=positions)

    def extremes(self, tensor: Tensor, positions: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """The lowest and the highest over the positions."""
        return tensor.amin(dim=positions), tensor.amax(dim=positions)

    def highest_place(self, rows: Tensor) -> Tensor:
        """(n, u) where along the positions of (n, p, u) the highest is, of equal ones the first; a NaN is highest."""
        return rows.argmax(dim=1)

    def segment_sum(self, rows: Tensor, groups: Tensor, n_groups: Tensor) -> Tensor:
        """(g, ...) sums of the rows (n, ...) of each group; index_add_ is many times slower across the order in memory."""
        return rows.new_zeros((int(n_groups), *rows.shape[1:])).index_add_(0, groups, rows.contiguous())

    def gradients(
        self, forward: Forward, score: Callable[[Mapping[str, Tensor]], Tensor], wrt: Sequence[str], tensor: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor | None]]:
        """The activations met in a forward, and the gradient of their score by each name: None where it does not depend on one."""
        seen: dict[str, Tensor] = {}

        def keep(name: str, activation: Tensor) -> Tensor:
            # An alias of what depends on the inputs, so that the gradient is by this use of it alone.
            seen[name] = activation.view_as(activation) if activation.requires_grad else activation.detach().requires_grad_()
            return seen[name].clone()  # so that an in-place operation further on overwrites the clone and not what we differentiate by

        with torch.enable_grad(), constant_parameters(self._network.module):
            if "input" in wrt:
                seen["input"] = tensor.requires_grad_()
            seen["output"] = forward(tensor.clone(), keep)
            total = score(seen)
            sources = [seen[name] for name in wrt]
            # autograd.grad, because backward() would add to the .grad the optimiser is accumulating.
            found = torch.autograd.grad(total, sources, allow_unused=True) if total.requires_grad else [None] * len(sources)
        return seen, dict(zip(wrt, found))

    def activation_map(self, activation: Tensor, gradient: Tensor, units: int) -> Tensor:
        """(n, h, w) the sum over units of the activation x the mean over positions of the gradient by it."""
        return activation_map(activation, gradient, units)

    def full_gradient(
        self, forward: Callable[[Tensor, Calls], Tensor], array: Array, units: int, classes: Int64, of: Part, layers: Sequence[str]
    ) -> tuple[Exact, dict[str, Any], Exact, dict[str, Float32]]:
        """The gradient of the classes' logits by the inputs, what is asked for of each bias, these logits, and maps; see `torch_fullgrad`."""
        tensor = torch.from_numpy(np.array(array, order="C")).to(self._network._device())
        with torch.inference_mode(False):
            return decomposed(self._network.module, forward, tensor, units, classes, of)

    @contextmanager
    def scores(self) -> Iterator[Callable[[Tensor], Tensor]]:
        """Inside, what finds the logits behind the probabilities that a forward returns; what are none it returns as they are."""
        with Scores() as scores:
            yield lambda output: getattr(output, "_keras_logits", scores.behind(output))

    def undisturbed(self) -> AbstractContextManager[None]:
        """Modes per module, buffers and random states are afterwards what they were before."""
        return self._network.undisturbed()
