"""Occlusion in torch that computes only what an occluder changes: exact, and many times cheaper than whole images.

Of each tensor on the way to a layer an occluder changes a box; outside of it the tensor is that of the clean image. Each
operation is made again for the cells of the box alone. The boxes of many occluders, whatever their sizes, lie one cell
below another in one matrix (cells, channels): a convolution gathers the cells under its windows, from boxes and from the
clean image alike, into a matrix and multiplies it once; what is element by element needs no more than the matrix itself.
Krypton (Nakandala et al., 2019) named the idea; there, boxes have one size and one occluder costs one pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from netlapse.backends.torch_fields import CONVOLUTION, POINTWISE, windows
from netlapse.backends.torch_trace import Operation, Trace
from netlapse.types import Float32, Int64

GATHERED = 1 << 24
"""Bytes of cells under the windows of one operation that are gathered at once: about what a processor's caches hold."""
NEARLY_WHOLE = 0.9
"""The share of a tensor's cells that occluders change on average from which on whole tensors are computed."""

_OVER_CHANNELS = ("softmax", "log_softmax")
_ELEMENTWISE = POINTWISE | {"batch_norm", "local_response_norm", *_OVER_CHANNELS}
_CHANNEL_WISE = ("batch_norm", "prelu")  # their one-dimensional constants are one number for each channel
_MAXIMUM = ("max_pool2d",)
_AVERAGE = ("avg_pool2d",)
_SLIDING = ("conv2d", *_MAXIMUM, *_AVERAGE)
_TOGETHER = ("cat", "concat", "concatenate")
# What treats the images of a batch one by one whatever their number, so that it may be made again of whole tensors.
_WHOLE = frozenset(
    f"adaptive_{kind}_pool2d" for kind in ("avg", "max")
) | {"linear", "group_norm", "interpolate", "pixel_shuffle", "conv_transpose2d", "pad", *_SLIDING, *_TOGETHER}  # fmt: skip
_INVALID = -(1 << 29)


class Unknown(Exception):
    """An operation of which it is not known how to make it again for a box."""

    def __init__(self, operation: str, call: str) -> None:
        super().__init__(operation, call)
        self.reason = f"{operation} in {call or 'the forward of the network'!r}" if call else f"{operation} in the network's own forward"


Spans = tuple[Int64, Int64]
"""From where to before where, one for each occluder."""


@dataclass(frozen=True, eq=False)
class Boxes:
    """What occluders change of one tensor: rows and columns. Where there is nothing, `low` is not below `high`."""

    rows: Spans
    columns: Spans

    @property
    def sizes(self) -> tuple[Int64, Int64]:
        return tuple(np.maximum(high - low, 0) for low, high in (self.rows, self.columns))  # type: ignore[return-value]

    @property
    def cells(self) -> Int64:
        heights, widths = self.sizes
        return heights * widths

    def take(self, chosen: Int64) -> Boxes:
        return Boxes(*((low[chosen], high[chosen]) for low, high in (self.rows, self.columns)))


@dataclass(frozen=True, eq=False)
class Step:
    """One operation of the way to the layer: what is known of it before any occluder.

    windows  (kernel, stride, dilation, padding before) along rows and columns of what slides
    last     the inputs that no later operation needs
    """

    operation: Operation
    output: int
    windows: tuple[tuple[int, int, int, int], ...] = ()
    last: frozenset[int] = frozenset()


class Layout:
    """How the cells of the boxes of one tensor lie in a matrix: cell (y, x) of box p in row origin[p] + y * pitch[p] + x.

    Box behind box, each row by row; where `pitch` is given, all boxes are parts of one picture of that width.
    """

    def __init__(self, boxes: Boxes, device: torch.device, pitch: int | None = None) -> None:
        heights, widths = boxes.sizes
        self.cells = heights * widths
        self.starts = np.cumsum(self.cells) - self.cells
        self.n = int(self.cells.sum())
        top, left = boxes.rows[0], boxes.columns[0]
        self._spans = top, top + heights, left, left + widths
        self._pitch = pitch
        self._device = device

    @cached_property
    def addresses(self) -> Tensor:
        """(6, p) origin, pitch, first row, row behind the last, and the same of columns."""
        top, _, left, end = self._spans
        pitch = end - left if self._pitch is None else np.full(len(top), self._pitch)
        origin = self.starts - top * pitch - left if self._pitch is None else np.zeros(len(top))
        return torch.from_numpy(np.stack([origin, pitch, *self._spans]).astype(np.int32)).to(self._device)

    @cached_property
    def of(self) -> Tensor:
        """(cells,) the occluder that each cell belongs to."""
        return torch.from_numpy(np.repeat(np.arange(len(self.cells), dtype=np.int32), self.cells)).to(self._device)

    @cached_property
    def places(self) -> tuple[Tensor, Tensor]:
        """(cells,) the row and the column of each cell."""
        top, _, left, end = self._spans
        own = torch.from_numpy(np.stack([self.starts, top, left, end - left]).astype(np.int32)).to(self._device).index_select(1, self.of)
        within = torch.arange(self.n, dtype=torch.int32, device=self._device) - own[0]
        down = torch.div(within, own[3], rounding_mode="floor")
        return own[1] + down, own[2] + within - down * own[3]

    def same(self, other: Layout) -> bool:
        """Whether the same cells lie at the same rows."""
        own = self._pitch == other._pitch
        return self is other or (own and all(np.array_equal(a, b) for a, b in zip(self._spans, other._spans)))


@dataclass(eq=False)
class Table:
    """The cells of a tensor of the clean image, with padding around it, and room for those of boxes below.

    rows  (padded h * padded w + room, c)
    """

    rows: Tensor
    clean: int
    pitch: int
    before: tuple[int, int]
    held: Tensor | None = None

    def filled(self, cells: Tensor) -> Tensor:
        """With these cells of boxes."""
        if cells is self.held:
            return self.rows
        n, self.held = self.clean + len(cells), cells
        if n > len(self.rows):
            self.rows = torch.cat([self.rows[: self.clean], self.rows.new_empty((2 * len(cells), self.rows.shape[1]))])
        self.rows[self.clean : n] = cells
        return self.rows


@dataclass(eq=False)
class Cells:
    """A tensor under some occluders: the cells of their boxes, or, where `layout` is None, whole tensors (p, ...)."""

    layout: Layout | None
    values: Tensor


@dataclass(eq=False)
class Program:
    """The way from the image to a layer, and what is computed of it once for all occluders of one image."""

    trace: Trace
    target: int
    steps: tuple[Step, ...]
    tables: dict[object, Table] = field(default_factory=dict)
    constants: dict[int, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, trace: Trace, target: int) -> Program:
        """Raises Unknown for an operation on the way that cannot be made again for a box."""
        if trace.escaped:
            raise Unknown(trace.escaped, "")
        needed = trace.towards(target)
        last = {number: index for index, operation in enumerate(needed) for number in operation.inputs}
        steps = []
        for index, operation in enumerate(needed):
            output = operation.outputs[0]
            _check(operation, trace, output, target, needed)
            gone = frozenset(number for number in operation.inputs if last[number] == index)
            steps.append(Step(operation, output, _windows(operation), gone))
        return cls(trace, target, tuple(steps))

    def size(self, number: int) -> tuple[int, int]:
        h, w = self.trace.values[number].shape[2:]
        return int(h), int(w)

    def length(self, number: int, axis: int) -> int:
        """Of the rows' (0) or the columns' (1) axis; 1 where a tensor has none."""
        shape = self.trace.values[number].shape
        return int(shape[2 + axis]) if len(shape) == 4 else 1

    def table(self, number: int, before: tuple[int, int], after: tuple[int, int], value: float) -> Table:
        """Of a tensor, padded by this value."""
        key = number, before, after, value
        if key not in self.tables:
            padded = torch.nn.functional.pad(self.trace.values[number], (before[1], after[1], before[0], after[0]), value=value)[0]
            c, h, w = padded.shape
            self.tables[key] = Table(padded.permute(1, 2, 0).reshape(h * w, c).contiguous(), h * w, w, before)
        return self.tables[key]

    def constant(self, number: int, make: Callable[[], Any]) -> Any:
        """What is computed once for the operation that returns a tensor."""
        if number not in self.constants:
            self.constants[number] = make()
        return self.constants[number]


def occlude(
    trace: Trace,
    target: int,
    corners: Int64,
    occluder: int,
    replacement: Tensor,
    units: Int64,
    places: Int64,
) -> tuple[Float32, Float32]:
    """(p, u) each unit's activation at its place (u, 2), and the highest at any, under an occluder at each of the corners.

    replacement  (1, c, h, w) what is seen inside of an occluder
    Raises Unknown where an operation cannot be made again for a box.
    """
    program = Program.of(trace, target)
    clean = trace.values[target][0, torch.from_numpy(units).to(replacement.device)]  # (u, h, w)
    rows, columns = (torch.from_numpy(places[:, axis]).to(replacement.device) for axis in (0, 1))
    every = torch.arange(len(units), device=replacement.device)
    at = clean[every, rows, columns].repeat(len(corners), 1)
    highest = clean.amax((1, 2)).repeat(len(corners), 1)
    boxes = _reached(program, corners, occluder, {})
    touched = boxes[target].cells > 0
    _highest_outside(clean, boxes[target], touched, highest)
    chosen = torch.from_numpy(units).to(replacement.device)
    for batch, found in _batches(program, boxes, touched, replacement):
        index = torch.from_numpy(batch).to(replacement.device)
        if found.layout is None:
            maps = found.values.index_select(1, chosen)
            at[index] = maps[:, every, rows, columns]
            highest[index] = maps.amax((2, 3))
            continue
        values = found.values if len(units) == found.values.shape[1] and (units == np.arange(len(units))).all() else found.values[:, chosen]
        at[index] = _at_places(found.layout, values, rows.int(), columns.int(), at[index])
        highest[index] = torch.maximum(highest[index], _highest(found.layout, values))
    return at.float().cpu().numpy(), highest.float().cpu().numpy()


def occlude_at(trace: Trace, target: int, corners: Int64, occluder: int, replacement: Tensor, units: Int64, places: Int64) -> Float32:
    """(p, u) the first of these alone, by what each unit's own place needs: of occluders that meet its field, and in it."""
    program = Program.of(trace, target)
    clean = trace.values[target][0]
    at = clean[units, places[:, 0], places[:, 1]].repeat(len(corners), 1)
    for place in np.unique(places, axis=0):
        here = np.flatnonzero((places == place).all(axis=1))
        boxes = _reached(program, corners, occluder, _needed(program, place))
        of_units = torch.from_numpy(units[here]).to(at.device)
        for batch, found in _batches(program, boxes, boxes[target].cells > 0, replacement):
            whole = found.values[:, :, place[0], place[1]] if found.layout is None else found.values
            at[torch.from_numpy(batch)[:, None], torch.from_numpy(here)] = whole[:, of_units]
    return at.float().cpu().numpy()


# ---- what is touched --------------------------------------------------------------------------------------------------


def _check(operation: Operation, trace: Trace, output: int, target: int, needed: Sequence[Operation]) -> None:
    """Raises Unknown for what is not understood."""

    def refuse() -> None:
        raise Unknown(operation.name, operation.call)

    name, inputs = operation.name, operation.inputs
    shapes = [tuple(trace.values[number].shape) for number in (*inputs, output)]
    spatial = all(len(shape) == 4 and shape[0] == 1 for shape in shapes)
    if len(operation.outputs) > 1 and any(number in other.inputs for number in operation.outputs[1:] for other in needed):
        refuse()
    if operation.outputs[0] != output or len(operation.outputs) > 1 or shapes[-1][:1] != (1,):
        refuse()
    if name in _SLIDING:
        if not spatial or len(set(inputs)) > 1:
            refuse()
    elif name in _TOGETHER:
        if not spatial or operation.arguments("tensors dim").get("dim", 0) not in (1, -3):
            refuse()
        if any(isinstance(leaf, Tensor) for leaf in tree_leaves(operation.args)):
            refuse()
    elif name in _ELEMENTWISE:
        if _is_random(operation) or not all(_fits(leaf, name, len(shapes[-1])) for leaf in tree_leaves((operation.args, dict(operation.kwargs)))):
            refuse()
        if any(len(shape) != len(shapes[-1]) for shape in shapes):
            refuse()
        if name in _OVER_CHANNELS and operation.arguments("input dim").get("dim") not in (1, 1 - len(shapes[0])):
            refuse()
    elif name == "mean" and (dim := operation.arguments("input dim").get("dim")) is not None:
        if 0 in {d % len(shapes[0]) for d in ([dim] if isinstance(dim, int) else dim)}:
            refuse()
    elif name == "pad":
        if operation.arguments("input pad mode value").get("mode", "constant") != "constant" or not spatial:
            refuse()
    elif name == "instance_norm" or name not in _WHOLE:
        refuse()


def _windows(operation: Operation) -> tuple[tuple[int, int, int, int], ...]:
    if operation.name in _SLIDING:
        return tuple(windows(operation, 4) or ())
    if operation.name == "pad":  # windows of one cell, the first of which begin in the padding
        pad = [*operation.arguments("input pad mode value")["pad"], 0, 0]
        return (1, 1, 1, int(pad[2])), (1, 1, 1, int(pad[0]))
    return ()


def _is_random(operation: Operation) -> bool:
    """Whether it draws, or normalises by the statistics of a batch."""
    if "dropout" in operation.name:
        return operation.arguments("input p training").get("training", True) is not False
    if operation.name == "batch_norm":
        return operation.arguments("input running_mean running_var weight bias training").get("training") is not False
    return operation.name == "rrelu" and operation.arguments("input lower upper training").get("training", False) is not False


def _fits(leaf: object, name: str, ndim: int) -> bool:
    """Whether an argument of what is element by element is the same at each position."""
    if not isinstance(leaf, Tensor) or leaf.numel() == 1 or name in _CHANNEL_WISE:
        return True
    shape = (1,) * (ndim - leaf.ndim) + tuple(leaf.shape)
    return ndim == 4 and shape[0] == 1 and shape[2:] == (1, 1)


def _reached(program: Program, corners: Int64, occluder: int, needed: Mapping[int, tuple[tuple[int, int], tuple[int, int]]]) -> dict[int, Boxes]:
    """By tensor, what each occluder changes of it, as far as it is needed."""
    spans = []
    for axis in (0, 1):
        unique, inverse = np.unique(corners[:, axis], return_inverse=True)
        found = _spans(program, axis, unique, occluder, {number: need[axis] for number, need in needed.items()})
        spans.append({number: (low[inverse], high[inverse]) for number, (low, high) in found.items()})
    return {number: Boxes(spans[0][number], spans[1][number]) for number in spans[0]}


def _spans(program: Program, axis: int, first: Int64, occluder: int, needed: Mapping[int, tuple[int, int]]) -> dict[int, Spans]:
    def clipped(number: int, low: Int64, high: Int64) -> Spans:
        start, end = needed.get(number, (0, size(number)))
        low, high = np.maximum(low, start), np.minimum(high, end)
        empty = low >= high
        return np.where(empty, size(number), low), np.where(empty, 0, high)

    def size(number: int) -> int:
        return program.length(number, axis)

    found = {0: clipped(0, first, first + occluder)}
    for step in program.steps:
        name, output = step.operation.name, step.output
        inputs = list(dict.fromkeys(step.operation.inputs))
        low = np.minimum.reduce([found[number][0] for number in inputs])
        high = np.maximum.reduce([found[number][1] for number in inputs])
        empty = low >= high
        if step.windows:
            kernel, stride, dilation, before = step.windows[axis]
            low = -((-(low + before - dilation * (kernel - 1))) // stride)
            high = (high - 1 + before) // stride + 1
        elif name not in _TOGETHER and (name not in _ELEMENTWISE or len({size(number) for number in (*inputs, output)}) > 1):
            low, high = np.zeros_like(low), np.full_like(high, size(output))  # all of it
        low, high = np.where(empty, size(output), low), np.where(empty, 0, high)
        found[output] = clipped(output, low, high)
    return found


def _needed(program: Program, place: Int64) -> dict[int, tuple[tuple[int, int], tuple[int, int]]]:
    """By tensor, the rows and columns from which what is at one place of the layer is made."""
    needed = [{program.target: (int(place[axis]), int(place[axis]) + 1)} for axis in (0, 1)]
    for step in reversed(program.steps):
        for axis, spans in enumerate(needed):
            low, high = spans[step.output]
            for number in step.operation.inputs:
                length = program.length(number, axis)
                if step.windows:
                    kernel, stride, dilation, before = step.windows[axis]
                    own = low * stride - before, (high - 1) * stride - before + dilation * (kernel - 1) + 1
                elif step.operation.name in (*_ELEMENTWISE, *_TOGETHER) and length == program.length(step.output, axis):
                    own = low, high
                else:
                    own = 0, length
                known = spans.get(number, own)
                spans[number] = max(min(known[0], own[0]), 0), min(max(known[1], own[1]), length)
    return {number: (needed[0][number], needed[1][number]) for number in needed[0]}


# ---- making it again --------------------------------------------------------------------------------------------------


def _batches(program: Program, boxes: Mapping[int, Boxes], touched: Any, replacement: Tensor) -> Iterator[tuple[Int64, Cells]]:
    """(occluders, the layer under them), until all that touch it were met."""
    if program.target == 0:
        raise Unknown("nothing", "")
    live = np.flatnonzero(touched)
    # By the number of cells, so that boxes of as many can be reduced together.
    live = live[np.argsort(boxes[program.target].cells[live], kind="stable")]
    if not len(live):
        return
    whole = _computed_whole(program, boxes, live)
    costs = np.zeros(len(live))
    for step in program.steps:
        shape = program.trace.values[step.output].shape
        c = program.trace.values[step.operation.inputs[0]].shape[1]
        size = program.trace.values[0].element_size()
        if step.output in whole:
            costs = np.maximum(costs, 4 * float(np.prod(shape)) * size)
        else:
            kernel = step.windows[0][0] * step.windows[1][0] if step.windows else 2
            costs = np.maximum(costs, boxes[step.output].cells[live] * kernel * c * size)
    group = np.cumsum(costs) // GATHERED
    for batch in np.split(live, np.flatnonzero(np.diff(group)) + 1):
        yield batch, _run(program, boxes, batch, whole, replacement)


def _computed_whole(program: Program, boxes: Mapping[int, Boxes], live: Int64) -> set[int]:
    """The tensors that are computed whole: those that must be, those that are nearly so, and what comes after these."""
    whole = set[int]()
    for step in program.steps:
        name = step.operation.name
        shapes = [program.trace.values[number].shape for number in (*step.operation.inputs, step.output)]
        plain = bool(step.windows) or name in _TOGETHER or (name in _ELEMENTWISE and len({shape[2:] for shape in shapes}) == 1)
        share = boxes[step.output].cells[live].mean() / max(np.prod(shapes[-1][2:]), 1)
        if not plain or len(shapes[-1]) != 4 or share >= NEARLY_WHOLE or whole.intersection(step.operation.inputs):
            whole.add(step.output)
    return whole


def _run(program: Program, boxes: Mapping[int, Boxes], batch: Int64, whole: set[int], replacement: Tensor) -> Cells:
    device = replacement.device
    known: dict[int, Cells] = {0: _replaced(program, boxes[0].take(batch), replacement)}
    for step in program.steps:
        inputs = {number: known[number] for number in step.operation.inputs}
        if step.output in whole:
            found = Cells(None, step.operation({number: _whole(program, number, cells, len(batch)) for number, cells in inputs.items()}))
        elif step.windows:
            found = _slid(program, step, inputs, Layout(boxes[step.output].take(batch), device))
        else:
            found = _elementwise(program, step, inputs, boxes[step.output].take(batch))
        for number in step.last:
            del known[number]
        known[step.output] = found
    return known[program.target]


def _replaced(program: Program, boxes: Boxes, replacement: Tensor) -> Cells:
    """The image: every box is part of the one replacement, whose cells lie as in an image."""
    h, w = replacement.shape[2:]
    cells = program.constant(0, lambda: replacement[0].permute(1, 2, 0).reshape(h * w, -1).contiguous())
    return Cells(Layout(boxes, replacement.device, pitch=w), cells)


def _whole(program: Program, number: int, cells: Cells, p: int) -> Tensor:
    if cells.layout is None:
        return cells.values
    clean = program.trace.values[number]
    _, c, h, w = clean.shape
    full = clean.permute(0, 2, 3, 1).reshape(1, h * w, c).repeat(p, 1, 1).view(p * h * w, c)
    rows, columns = cells.layout.places
    full[(cells.layout.of * (h * w) + rows * w + columns).long()] = _under(program, number, cells, cells.layout)
    return full.view(p, h, w, c).permute(0, 3, 1, 2)


def _under(program: Program, number: int, cells: Cells, layout: Layout) -> Tensor:
    """A tensor at the cells of other boxes than its own."""
    assert cells.layout is not None
    if number and cells.layout.same(layout):
        return cells.values
    table = program.table(number, (0, 0), (0, 0), 0.0)
    rows, columns = layout.places
    return table.filled(cells.values).index_select(0, _addresses(table, cells.layout, layout.of, rows[None], columns[None])[0, 0])


def _addresses(table: Table, source: Layout, of: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(i, j, cells) where in a table lies row i, column j of what is under each cell: rows (i, cells), columns (j, cells).

    In a box, or else in the clean image; boxes lie behind the clean image, so that the higher address is the one.
    """
    origin, pitch, top, bottom, left, right = source.addresses.index_select(1, of)
    boxed_rows = torch.where((rows >= top) & (rows < bottom), origin + rows * pitch + table.clean, _INVALID)
    boxed_columns = torch.where((columns >= left) & (columns < right), columns, _INVALID)
    clean_rows, clean_columns = (rows + table.before[0]) * table.pitch, columns + table.before[1]
    found = boxed_rows[:, None] + boxed_columns[None]
    return torch.maximum(found, clean_rows[:, None] + clean_columns[None], out=found)


def _slid(program: Program, step: Step, inputs: Mapping[int, Cells], layout: Layout) -> Cells:
    ((number, cells),) = inputs.items()
    assert cells.layout is not None
    operation, sizes = step.operation, step.windows
    given, made = program.size(number), program.size(step.output)
    before = sizes[0][3], sizes[1][3]
    after = [(n - 1) * s + d * (k - 1) + 1 - b - length for (k, s, d, b), n, length in zip(sizes, made, given)]
    if operation.name != "pad":
        after = [max(0, cells) for cells in after]  # the last window may end before the last cell
    padding = -torch.inf if operation.name in _MAXIMUM else 0.0
    if operation.name == "pad":
        padding = operation.arguments("input pad mode value").get("value") or 0.0
    table = program.table(number, before, (after[0], after[1]), padding)
    rows, columns = layout.places
    reads = []
    for places, (kernel, stride, dilation, first) in zip((rows, columns), sizes):
        steps = torch.arange(kernel, dtype=torch.int32, device=places.device) * dilation
        reads.append(places * stride - first + steps[:, None])
    at = _addresses(table, cells.layout, layout.of, *reads).flatten(0, 1).t().contiguous()
    under = table.filled(cells.values).index_select(0, at.view(-1)).view(layout.n, at.shape[1], table.rows.shape[1])  # (cells, windows, c)
    if operation.name == "pad":
        return Cells(layout, under[:, 0])
    if operation.name in _MAXIMUM:
        return Cells(layout, under.amax(1))
    if operation.name in _AVERAGE:
        share = program.constant(step.output, lambda: _shares(program, step, number))
        return Cells(layout, under.sum(1) * share[(rows * made[1] + columns).long()][:, None])
    weight, bias = program.constant(step.output, lambda: _kernel(operation))
    if weight.ndim == 2:
        flat = under.flatten(1)
        return Cells(layout, flat @ weight if bias is None else torch.addmm(bias, flat, weight))
    grouped = (
        under.view(layout.n, at.shape[1], weight.shape[0], under.shape[2] // weight.shape[0]).permute(2, 0, 1, 3).flatten(2)
    )  # (g, cells, windows * c of a group)
    found = torch.bmm(grouped, weight).permute(1, 0, 2).flatten(1)
    return Cells(layout, found if bias is None else found + bias)


def _kernel(operation: Operation) -> tuple[Tensor, Tensor | None]:
    """The weights as (windows * c, u), or where there are groups (g, windows * c of a group, u of a group); and the bias."""
    given = operation.arguments(CONVOLUTION)
    weight, groups = given["weight"].detach(), given.get("groups", 1)
    u = weight.shape[0]
    by_group = weight.reshape(groups, u // groups, *weight.shape[1:]).permute(0, 3, 4, 2, 1).reshape(groups, -1, u // groups).contiguous()
    bias = given.get("bias")
    return by_group[0] if groups == 1 else by_group, None if bias is None else bias.detach()


def _shares(program: Program, step: Step, number: int) -> Tensor:
    """(h * w,) by what the sum under each window is multiplied: at the border windows may count fewer cells."""
    ones = torch.ones_like(program.trace.values[number][:, :1])
    average = step.operation({number: ones})[0, 0].flatten()
    sizes, (h, w) = step.windows, program.size(number)
    counts = []
    for (kernel, stride, dilation, before), length, made in zip(sizes, (h, w), program.size(step.output)):
        at = torch.arange(made)[:, None] * stride - before + torch.arange(kernel) * dilation
        counts.append(((at >= 0) & (at < length)).sum(1))
    share: Tensor = average / (counts[0][:, None] * counts[1]).flatten().to(average)
    return share


def _elementwise(program: Program, step: Step, inputs: Mapping[int, Cells], boxes: Boxes) -> Cells:
    operation = step.operation
    if len(inputs) == 1 and 0 not in inputs:
        ((number, cells),) = inputs.items()
        assert cells.layout is not None
        layout, values = cells.layout, {number: cells.values}
    else:
        layout = Layout(boxes, program.trace.values[0].device)
        values = {number: _under(program, number, cells, layout) for number, cells in inputs.items()}
    if operation.name == "batch_norm":
        scale, shift = program.constant(step.output, lambda: _affine(operation))
        (value,) = values.values()
        return Cells(layout, torch.addcmul(shift, value, scale))
    if operation.name == "relu":
        (value,) = values.values()
        return Cells(layout, torch.relu(value))
    if operation.name in _TOGETHER:
        return Cells(layout, torch.cat([values[number] for number in operation.inputs], 1))
    found = step.operation({number: value[:, :, None, None] for number, value in values.items()})
    return Cells(layout, found[:, :, 0, 0])


def _affine(operation: Operation) -> tuple[Tensor, Tensor]:
    """What a batch norm by fixed statistics multiplies by, and what it adds."""
    given = operation.arguments("input running_mean running_var weight bias training momentum eps")
    scale = (given["running_var"] + given.get("eps", 1e-5)).rsqrt()
    scale = scale if given.get("weight") is None else scale * given["weight"]
    shift = -given["running_mean"] * scale
    return scale.detach(), (shift if given.get("bias") is None else shift + given["bias"]).detach()


# ---- what is read off it ----------------------------------------------------------------------------------------------


def _at_places(layout: Layout, values: Tensor, rows: Tensor, columns: Tensor, clean: Tensor) -> Tensor:
    """(p, u) at each unit's place, in the box or else as on the clean image."""
    origin, pitch, top, bottom, left, right = layout.addresses[:, :, None]
    inside = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
    address = torch.where(inside, origin + rows * pitch + columns, 0).long()
    return torch.where(inside, values.gather(0, address), clean)


def _highest(layout: Layout, values: Tensor) -> Tensor:
    """(p, u) the highest in each box."""
    parts, sizes = [], layout.cells
    cuts = np.flatnonzero(np.diff(sizes)) + 1
    for first, last in zip([0, *cuts], [*cuts, len(sizes)]):
        start, n = int(layout.starts[first]), int(sizes[first])
        parts.append(values[start : start + n * (last - first)].view(last - first, n, -1).amax(1))
    return torch.cat(parts)


def _highest_outside(clean: Tensor, boxes: Boxes, touched: Any, highest: Tensor) -> None:
    """Writes (p, u) the highest of each unit outside of each box, of the clean maps (u, h, w)."""
    by_row = torch.nn.functional.pad(clean.amax(2), (1, 1), value=-torch.inf)
    above, below = by_row[:, :-1].cummax(1).values, by_row[:, 1:].flip(1).cummax(1).values.flip(1)
    live = np.flatnonzero(touched)
    spans, inverse = np.unique(np.stack([boxes.rows[0][live], boxes.rows[1][live]], axis=1), axis=0, return_inverse=True)
    order = np.argsort(inverse.ravel(), kind="stable")
    for (top, bottom), members in zip(spans, np.split(live[order], np.cumsum(np.bincount(inverse.ravel()))[:-1])):
        band = torch.nn.functional.pad(clean[:, top:bottom].amax(1), (1, 1), value=-torch.inf)
        before, after = band[:, :-1].cummax(1).values, band[:, 1:].flip(1).cummax(1).values.flip(1)
        beside = torch.maximum(before[:, boxes.columns[0][members]], after[:, boxes.columns[1][members]])
        rest = torch.maximum(above[:, top], below[:, bottom])
        highest[torch.from_numpy(members).to(clean.device)] = torch.maximum(beside, rest[:, None]).t()
