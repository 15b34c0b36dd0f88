"""The processes of a distributed training at one observation: the first leads, the others do what it asks.

What must hold here: every process takes part in the same exchanges in the same order, whatever fails in any of them;
else one of them waits for ever. So nothing is exchanged but by `Processes`, a failure travels like any result, and the
others are told when the observation is over. Objects travel through the training's own process group, as bytes in
tensors on the device its backend takes (gloo: the CPU, NCCL: the GPU), since wherever a training runs that works.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar, cast

from torch import distributed

T = TypeVar("T")
Task = Callable[..., object]


@dataclass(frozen=True)
class Failure:
    """What failed in a process, as text: not every exception survives being sent."""

    process: int
    message: str
    details: str

    @classmethod
    def of(cls, process: int, error: BaseException) -> Failure:
        return cls(process, f"{type(error).__name__}: {error}", "".join(traceback.format_exception(error)))

    def raised(self) -> RuntimeError:
        error = RuntimeError(f"in process {self.process} of the training: {self.message}")
        error.add_note(self.details)
        return error


class Processes:
    """All processes of this training; made in each of them once its process group stands. One alone needs none.

    rank   which one this is, from 0        size   how many there are
    """

    def __init__(self) -> None:
        joined = distributed.is_available() and distributed.is_initialized()
        self.rank, self.size = (distributed.get_rank(), distributed.get_world_size()) if joined else (0, 1)
        self._tasks: Mapping[str, Task] = {}

    def led(self, lead: Callable[[], T], tasks: Mapping[str, Task]) -> T | None:
        """What `lead` returns in the first process; the others do the tasks it asks for meanwhile, and return None.

        What `lead` raises is raised in all of them: as it is in the first, as RuntimeError in the others.
        """
        self._tasks = tasks
        if self.rank > 0:
            self._follow()
            return None
        try:
            result = lead()
        except Exception as error:
            self._broadcast(Failure.of(0, error))
            raise
        self._broadcast(None)
        return result

    def together(self, task: str, *args: object) -> list[object]:
        """What the task returns in each process, in their order; asked for by the first one, within `led`.

        Raises what failed in this process, else RuntimeError for what failed in another, once all are done.
        """
        self._broadcast((task, args))
        own: object = None
        failed: Exception | None = None
        try:
            own = self._tasks[task](*args)
        except Exception as error:
            failed = error
        results = self._gather(own)
        if failed is not None:
            raise failed
        for result in results:
            if isinstance(result, Failure):
                raise result.raised()
        return results

    def from_first(self, make: Callable[[], T]) -> T:
        """What `make` returns in the first process, in all of them; what it raises there is raised in all of them."""
        made: object = None
        failed: Exception | None = None
        if self.rank == 0:
            try:
                made = make()
            except Exception as error:
                made, failed = Failure.of(0, error), error
        made = self._broadcast(made)
        if failed is not None:
            raise failed
        if isinstance(made, Failure):
            raise made.raised()
        return cast(T, made)

    def _follow(self) -> None:
        while (request := self._broadcast(None)) is not None:
            if isinstance(request, Failure):
                raise request.raised()
            task, args = cast(tuple[str, tuple[object, ...]], request)
            result: object
            try:
                result = self._tasks[task](*args)
            except Exception as error:  # it is the first process that reports it
                result = Failure.of(self.rank, error)
            self._gather(result)

    def _broadcast(self, value: object) -> object:
        """The first process's value, in every process."""
        values = [value]
        if self.size > 1:
            distributed.broadcast_object_list(values, src=0)
        return values[0]

    def _gather(self, value: object) -> list[object]:
        """Every process's value, in the first one; nothing in the others."""
        if self.size == 1:
            return [value]
        values: list[object] | None = [None] * self.size if self.rank == 0 else None
        distributed.gather_object(value, values, dst=0)
        return values or []
