"""Ways to keep a layout calm over checkpoints, for every layout alike: `over_time`, and the calmest of them, `fixed`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial

import numpy as np

from netlapse.analysis.layout.base import checked, filled, metric_space, rotation
from netlapse.analysis.layout.disc import flas
from netlapse.analysis.layout.spreading import spread as spread_out
from netlapse.types import Float64

Layout = Callable[..., Float64]
"""(profiles (u, f), *, seed, previous) -> positions (u, 2) in [0, 1]"""


def fixed(
    profiles: Float64,
    *,
    seed: int = 0,
    previous: Float64 | None = None,
    metric: str = "euclidean",
    positions: Float64 | None = None,
    layout: Layout = flas,
) -> Float64:
    """Positions (u, 2) that stay: those given, else the previous ones, else those of `layout` at the first checkpoint.

    `layout` is handed the seed and the metric. What the profiles become later moves no unit.

    Raises ValueError as `metric_space` does, and for positions or a previous layout that are not (u, 2), all in [0, 1].
    """
    rows = metric_space(profiles, metric)
    for name, given in (("positions: this", positions), ("previous", previous)):
        places = checked(given, len(rows), name)
        if places is not None:
            if places.min() < 0 or places.max() > 1:
                raise ValueError(f"{name} layout reaches from {places.min():g} to {places.max():g}; expected positions in [0, 1]")
            return places.copy()
    return layout(profiles, seed=seed, previous=None, metric=metric)


def over_time(
    profiles: Float64,
    *,
    layout: Layout,
    seed: int = 0,
    previous: Float64 | None = None,
    warm: bool = True,
    procrustes: bool = False,
    movement_penalty: float | None = None,
    spread: bool = False,
    **options: object,
) -> Float64:
    """The positions (u, 2) of any layout, at rest with those of the checkpoint before in the ways that are asked for.

    layout            a function of `netlapse.analysis.layout` or the user's own; it is handed `options`, as `metric`
    warm              the layout is handed the previous positions; without it, it starts from nothing at every checkpoint
    procrustes        the positions are rotated or reflected to lie closest to the previous ones. Their size and centre remain the
                      layout's, the longer side filling [0, 1]: taken from the layout before, a map could shrink, never grow
    movement_penalty  lambda: each unit goes to (new + lambda * previous) / (1 + lambda), the minimiser of |p - new|^2 +
                      lambda |p - previous|^2 after rotation or reflection as above. A layout that has a penalty of its own
                      (`flas`) is handed it instead. None is that layout's own default, and 0 for the others
    spread            the positions are spread out evenly, see `spread`, after all else, unless they are the previous ones

    At the first checkpoint nothing but `spread` changes what the layout gives.

    Raises ValueError for a penalty that is negative or not finite, and for a previous layout of another shape, beside what the
    layout raises.
    """
    previous = checked(previous, len(profiles))
    if movement_penalty is not None and not (np.isfinite(movement_penalty) and movement_penalty >= 0):
        raise ValueError(f"movement_penalty is {movement_penalty}; expected a finite number of at least 0, where 0 lets units move freely")
    weight = movement_penalty or 0.0
    if movement_penalty is not None and _has_a_penalty(layout):
        options["movement_penalty"], weight = movement_penalty, 0.0
    positions = layout(profiles, seed=seed, previous=previous if warm else None, **options)
    if previous is not None and (procrustes or weight > 0):
        positions = filled(positions @ rotation(positions, previous))
    if previous is not None and weight > 0:
        positions = (positions + weight * previous) / (1 + weight)
    # What stands still was spread before, and would move if it were spread once more.
    stands = previous is not None and np.array_equal(positions, previous)
    return spread_out(positions, seed=seed) if spread and not stands else positions


def steady(
    layout: Layout,
    *,
    warm: bool = True,
    procrustes: bool = False,
    movement_penalty: float | None = None,
    spread: bool = False,
    **options: object,
) -> Layout:
    """The layout with all its options bound, in `over_time` where that has something to add: what the YAML files in `conf/layout/` make.

    So a layout is the same, and says so in the record, whether it is named in a YAML file or handed over in a script.
    """
    if movement_penalty is not None and _has_a_penalty(layout):
        options["movement_penalty"], movement_penalty = movement_penalty, None
    if warm and not (procrustes or movement_penalty or spread):
        return partial(layout, **options)
    return partial(
        over_time, layout=partial(layout, **options), warm=warm, procrustes=procrustes, movement_penalty=movement_penalty or 0.0, spread=spread
    )


def method(layout: Layout) -> Layout:
    """The function that makes the layout, without what is bound to it and without `over_time` around it."""
    while isinstance(layout, partial):
        layout = layout.keywords["layout"] if layout.func is over_time and "layout" in layout.keywords else layout.func
    return layout


def _has_a_penalty(layout: Layout) -> bool:
    return "movement_penalty" in inspect.signature(layout).parameters
