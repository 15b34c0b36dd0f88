"""Timing several functions fairly: in one process, in turn, so that what disturbs one disturbs all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median


def interleaved(functions: Mapping[str, Callable[[], object]], repeats: int, clock: Callable[[], float] = time.process_time) -> dict[str, float]:
    """Median seconds of each function over `repeats` rounds, after one round that is not counted.

    The default clock is the CPU time of this process; it counts every thread, so set OMP_NUM_THREADS=1 before Python starts.
    """
    for function in functions.values():
        function()
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            start = clock()
            function()
            seconds[name].append(clock() - start)
    return {name: median(values) for name, values in seconds.items()}


@dataclass(frozen=True)
class Row:
    """One claim of a benchmark: what was measured, what it is compared with (a floor or a peer), and the target it has to meet.

    `target` bounds `judged` ("measured" or "ratio", measured / reference) from above, or from below where `at_least`.
    """

    name: str
    measured: float
    reference: float
    reference_name: str
    target: float
    judged: str = "measured"
    at_least: bool = False

    @property
    def ratio(self) -> float:
        return self.measured / self.reference if self.reference else float("nan")

    @property
    def ok(self) -> bool:
        value = self.ratio if self.judged == "ratio" else self.measured
        return value >= self.target if self.at_least else value <= self.target


def table(rows: Sequence[Row]) -> str:
    """The rows as text, one line each."""
    lines = [f"{'what':44} {'measured':>10} {'reference':>10} {'ratio':>8}  {'target':>22}  ok  reference is"]
    for row in rows:
        target = f"{row.judged} {'>=' if row.at_least else '<='} {row.target:g}"
        numbers = f"{row.measured:10.4g} {row.reference:10.4g} {row.ratio:8.3g}"
        lines.append(f"{row.name:44} {numbers}  {target:>22}  {'yes' if row.ok else 'NO '} {row.reference_name}")
    return "\n".join(lines)
