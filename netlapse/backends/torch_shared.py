"""One forward pass of the probe that the processes of a distributed training share.

What must hold here: the pass is of the first process's network, since that is the one whose checkpoint is kept. The
others train the same weights; their buffers may differ, as each batch norm has seen the inputs of its own process alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from netlapse.backends.torch import TorchNetwork
from netlapse.backends.torch_processes import Processes, Task
from netlapse.statistics import GroupStatistics, Subtotal, share_of_statistics, total
from netlapse.types import Grouping, ProbeSet, Snapshot

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class SharedPass:
    """Made in every process, of the same probe and options; `tasks` are to be among those that the others do for the first one."""

    processes: Processes
    network: TorchNetwork
    probe: ProbeSet
    grouping: Grouping
    batch_size: int

    @property
    def tasks(self) -> dict[str, Task]:
        return {"share of the forward pass": self._share}

    def show(self, snapshot: Snapshot) -> GroupStatistics:
        """The statistics of the whole probe, bit for bit those of one process; in the first process, while it leads.

        Raises what failed in it, else RuntimeError for what failed in another.
        """
        started, module = time.perf_counter(), self.network.module
        found = self.processes.together("share of the forward pass", snapshot.layer_names, fingerprint(module), buffers(module))
        shares = cast(list[list[Subtotal] | None], found)
        subtotals = (share if share is not None else self._statistics(snapshot.layer_names, i) for i, share in enumerate(shares))
        return replace(total(chain.from_iterable(subtotals)), seconds=time.perf_counter() - started)

    def _share(self, layers: Sequence[str], weights: tuple[int, ...], values: Mapping[str, Tensor]) -> list[Subtotal] | None:
        return of_first(self.processes.rank, self.network, weights, values, partial(self._statistics, layers, self.processes.rank))

    def _statistics(self, layers: Sequence[str], share: int) -> list[Subtotal]:
        return share_of_statistics(
            self.network, self.probe, self.grouping, layers, batch_size=self.batch_size, share=share, shares=self.processes.size
        )


def of_first(rank: int, network: TorchNetwork, weights: tuple[int, ...], values: Mapping[str, Tensor], share: Callable[[], T]) -> T | None:
    """This process's share of what is asked of the first one's network; None where it trains others, as between two averagings of them.

    weights, values  the `fingerprint` and the `buffers` of that network
    """
    with network.undisturbed():
        if rank > 0:
            if fingerprint(network.module) != weights:
                return None
            write_buffers(network.module, values)  # into the copies that stand in for them here
        return share()


def fingerprint(module: nn.Module) -> tuple[int, ...]:
    """Per weight the sum of its bits as integers, for the cost of reading them: the same for the same weights, and hardly ever for others."""
    sums = [_integers(weight.detach()).sum(dtype=torch.int64) for weight in module.parameters()]
    return tuple(int(value) for value in sums)  # read once all are under way on the device


def buffers(module: nn.Module) -> dict[str, Tensor]:
    """Every buffer by its name, on the CPU."""
    return {name: buffer.detach().cpu() for name, buffer in module.named_buffers()}


def write_buffers(module: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Write what `buffers` gave in another process into this module's own."""
    with torch.no_grad():
        for name, buffer in module.named_buffers():
            buffer.copy_(values[name])


def _integers(tensor: Tensor) -> Tensor:
    real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return real.view({1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[real.element_size()])
