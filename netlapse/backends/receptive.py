"""What part of the image the elements of a tensor see along one axis of it: arithmetic of intervals, without a framework.

Araujo, Norris & Sim, 2019, "Computing receptive fields of convolutional neural networks": a unit sees an interval of a
size that begins at an offset and moves by a stride from unit to unit. Padding is seen as if the image went on there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from netlapse.types import Array, Field, NoField


@dataclass(frozen=True)
class Along:
    """What the elements of a tensor see of the image along one of its axes.

    axes       of the tensor, by which what is seen differs; none where all its elements see the same
    length     of that axis, where it is one and a grid
    size, stride, offset
               element i sees offset + i * stride and so on, size of them; where this is no grid stride is 0, and none sees more
    scattered  the operation after which it is not known what each element sees of that; None where it is known
    """

    axes: frozenset[int]
    length: int
    size: int = 1
    stride: int = 1
    offset: int = 0
    scattered: NoField | None = None

    @property
    def grid(self) -> bool:
        """Whether elements see different parts, and which is known."""
        return bool(self.axes) and not self.scattered

    @property
    def hull(self) -> tuple[int, int]:
        """From where to before where all elements together see."""
        return self.offset, self.offset + (self.length - 1) * self.stride + self.size


def image_axis(axis: int, length: int) -> Along:
    """Of the image itself, in which these are on this axis."""
    return Along(frozenset({axis}), length)


def windowed(given: Along, kernel: int, stride: int, dilation: int, before: int, length: int) -> Along:
    """Through windows along its axis, the first of which begins `before` elements before the first one."""
    if not given.grid:
        return given
    size = given.size + (kernel - 1) * dilation * given.stride
    return replace(given, length=length, size=size, stride=given.stride * stride, offset=given.offset - before * given.stride)


def collapsed(given: Along, axes: Collection[int]) -> Along:
    """Where each element sees what all along these axes see."""
    left = given.axes - frozenset(axes)
    return given if left == given.axes else _hull(given, left, given.scattered if left else None)


def scattered(given: Along, axes: Collection[int], operation: NoField) -> Along:
    """Where elements differ along these axes in what they see, and it is not known how."""
    return _hull(given, frozenset(axes), (given.scattered or operation) if axes else None)


def _hull(given: Along, axes: frozenset[int], operation: NoField | None) -> Along:
    low, high = given.hull
    return Along(axes, 1, high - low, 0, low, operation)


def renamed(given: Along, axis: Callable[[int], int]) -> Along:
    """The same of a tensor whose axes are others."""
    return replace(given, axes=frozenset(axis(known) for known in given.axes))


def joined(a: Along, b: Along, operation: NoField) -> Along | None:
    """What is seen through both, element by element; None where their strides differ, so that no one size is that of all."""
    for whole, other in ((a, b), (b, a)):
        if not whole.axes and whole.hull[0] <= other.hull[0] and whole.hull[1] >= other.hull[1]:
            return whole
    if a.grid and b.grid and a.axes == b.axes and a.length == b.length:
        if a.stride != b.stride and a.length > 1:
            return None
        low, high = min(a.offset, b.offset), max(a.offset + a.size, b.offset + b.size)
        return replace(a, offset=low, size=high - low)
    low, high = min(a.hull[0], b.hull[0]), max(a.hull[1], b.hull[1])
    axes = a.axes | b.axes
    return Along(axes, 1, high - low, 0, low, (a.scattered or b.scattered or operation) if axes else None)


def moved(given: Along, shape: Sequence[int], move: Callable[[Array], Array], operation: NoField) -> Along:
    """Through a function that only moves elements, told by where it takes the indices of a tensor of this shape."""
    if not given.axes:
        return given
    varying, parts = set[int](), []
    for axis in given.axes:
        indices = np.arange(shape[axis]).reshape([-1 if i == axis else 1 for i in range(len(shape))])
        found = np.asarray(move(np.broadcast_to(indices, tuple(shape))))
        own = [i for i in range(found.ndim) if (found != found.take([0], axis=i)).any()]
        varying.update(own)
        parts.append((found, own))
    found, own = parts[0]
    if not given.grid or len(own) > 1 or found.size == 0:
        return scattered(given, varying, operation)
    first = int(found.flat[0])
    if not own:
        return Along(frozenset(), 1, given.size, 0, given.offset + first * given.stride)
    line = found[tuple(slice(None) if i == own[0] else 0 for i in range(found.ndim))]
    steps = np.diff(line)
    if (steps != steps[0]).any() or steps[0] < 0:
        return scattered(given, varying, operation)
    return Along(frozenset(own), len(line), given.size, given.stride * int(steps[0]), given.offset + first * given.stride)


Seen = tuple[Along, Along]
"""What the elements of a tensor see of an image: along its rows, and along its columns."""


def seen_through(states: Sequence[Seen | NoField], ndims: Sequence[int], ndim: int, operation: NoField) -> Seen | NoField:
    """Of what is made of several tensors element by element, their last axes the same."""
    aligned: list[tuple[Along, ...]] = []
    for state, n in zip(states, ndims):
        if isinstance(state, NoField):
            return state
        aligned.append(tuple(renamed(part, lambda axis, by=ndim - n: axis + by) for part in state))  # type: ignore[misc]
    together: list[Along] = []
    for parts in zip(*aligned):
        total: Along | None = parts[0]
        for part in parts[1:]:
            total = None if total is None else joined(total, part, operation)
        if total is None:
            return NoField(f"{operation.operation}, of paths with different strides", operation.layer)
        together.append(total)
    return together[0], together[1]


def field_of(seen: Seen | NoField, axes: Sequence[int], call: str) -> Field | NoField:
    """That of a layer whose positions are counted along these two axes of its tensor."""
    if isinstance(seen, NoField):
        return seen
    for part, axis in zip(seen, axes):
        if part.scattered:
            return part.scattered
        if part.axes - {axis}:
            return NoField("a permutation that puts columns before rows", call)
    rows, columns = seen
    return Field((rows.size, columns.size), (rows.stride, columns.stride), (rows.offset, columns.offset))
