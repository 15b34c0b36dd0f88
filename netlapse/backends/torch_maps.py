"""Class activation maps in torch, made as the gradients arrive: neither activations nor gradients leave the framework, or outlive it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from netlapse.backends import checked_classes
from netlapse.types import Float32, Int64


@dataclass
class _Kept:
    """An activation as it was when its layer returned it, while its version is this one."""

    value: Tensor
    version: int


class ActivationMaps:
    """Of layers that a forward is watched at, after the backward: layer -> `found` (n, h, w). `units` is the axis once the batch is first."""

    def __init__(self) -> None:
        self.found: dict[str, Float32] = {}
        self._kept: list[_Kept] = []

    def watch(self, layer: str, activation: Tensor, batch: int, units: int) -> None:
        """Waits for the gradient by an activation that is no view, and that nobody else has.

        Who overwrites it says so before, to `preserve`; where somebody did not, nothing is found.
        """
        self._wait(layer, activation, activation.detach(), batch, units)

    def copy(self, layer: str, activation: Tensor, batch: int, units: int) -> Tensor:
        """The same of any activation; returns what is to go on in its place, so that the gradient is by this use of it alone."""
        own = activation.clone()
        self._wait(layer, own, activation.detach(), batch, units)
        return own

    def preserve(self, tensor: Tensor) -> None:
        """A tensor is about to be overwritten: what is watched and lies in its memory is copied. Copying all would cost as much as the maps."""
        memory = tensor.untyped_storage().data_ptr()
        for kept in self._kept:
            if kept.value.untyped_storage().data_ptr() == memory:
                kept.value = kept.value.clone()
                kept.version = kept.value._version

    def _wait(self, layer: str, differentiated: Tensor, value: Tensor, batch: int, units: int) -> None:
        kept = _Kept(value, value._version)
        self._kept.append(kept)

        def arrived(gradient: Tensor) -> None:
            if kept.value._version == kept.version:
                self.found[layer] = activation_map(kept.value.movedim(batch, 0), gradient.movedim(batch, 0), units).cpu().numpy()

        # It must not be held by its own hook, which would keep it alive.
        differentiated.register_hook(arrived)  # type: ignore[no-untyped-call]


def activation_map(activation: Tensor, gradient: Tensor, units: int) -> Tensor:
    """(n, h, w) float32 the sum over units of the activation x the mean over positions of the gradient by it; batch first."""
    rows, by_rows = (tensor.detach().movedim(units, 1) for tensor in (activation, gradient))
    precise = torch.promote_types(rows.dtype, torch.float32)
    flat, by_flat = (tensor.reshape(*rows.shape[:2], -1) for tensor in (rows, by_rows))
    alpha = by_flat.mean(dim=2, dtype=precise)
    return (alpha[:, None] @ flat.to(precise)).reshape(len(rows), *rows.shape[2:]).float()


def score_of(logits: Tensor, classes: Int64) -> Tensor:
    """(n,) the logit of each input's class; raises ValueError where the output is no score per class, and for classes that are no outputs."""
    if logits.ndim != 2:
        raise ValueError(f"the network's output has shape {tuple(logits.shape)}; expected (n, k), one score per class")
    chosen = torch.tensor(checked_classes(classes, *logits.shape), device=logits.device)
    return logits.gather(1, chosen[:, None])[:, 0]


@contextmanager
def constant_parameters(module: nn.Module) -> Iterator[None]:
    """Nothing of the module requires a gradient inside, so that only what depends on the inputs does; afterwards as before."""
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    try:
        for parameter in learning:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
