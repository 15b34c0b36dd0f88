"""The inputs that each unit responds to most, and where: one pass over data of any size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from netlapse.types import Array, Float32, Height, Int64, Network, Peaks

_Parts = tuple[Float32, Int64, Int64]


@dataclass(frozen=True, eq=False)
class TopInputs:
    """The k inputs with the highest value of each unit, by layer; the highest first, of equal ones the lowest index.

    values     layer -> (u, k) the unit's highest activation over the layer's positions, or their mean; -inf where there
               are fewer inputs. A NaN is above every number, minus infinity is none.
    inputs     layer -> (u, k) the inputs' indices; -1 where there are fewer
    positions  layer -> (u, k, 2) row and column of the unit's highest activation, of equal ones the first in row-major
               order; (0, t) in token t, (0, 0) for a dense layer, (-1, -1) where there are fewer inputs
    """

    values: Mapping[str, Float32]
    inputs: Mapping[str, Int64]
    positions: Mapping[str, Int64]

    def merge(self, other: TopInputs) -> TopInputs:
        """The top inputs of both parts of a data set, whatever the order of the parts; raises ValueError where layers or k differ."""
        shapes = [{layer: values.shape for layer, values in part.values.items()} for part in (self, other)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"cannot merge top inputs of {shapes[0]} and of {shapes[1]}: layers, units and k must be the same")
        return _by_part({layer: _merged(self._of(layer), other._of(layer)) for layer in self.values})

    def _floor(self, layer: str, first: int) -> Float32:
        """(u,) what an input has to exceed to be among the top, where no index is below `first`."""
        lowest, last = self.values[layer][:, -1], self.inputs[layer][:, -1]
        # What is as high but has a lower index goes before it.
        return np.where(last > first, np.nextafter(lowest, np.float32(-np.inf)), lowest)

    def _of(self, layer: str) -> _Parts:
        return self.values[layer], self.inputs[layer], self.positions[layer]


def top_inputs(
    network: Network,
    batches: Iterable[tuple[Int64, Array]],
    layers: Sequence[str],
    k: int = 10,
    *,
    by: Height = "maximum",
    start: TopInputs | None = None,
) -> TopInputs:
    """The k top inputs of every unit of the layers: batch after batch is shown once and forgotten.

    batches  (indices (b,), inputs (b, ...)) as many as there are; all inputs of one shape
    by       what is compared: the unit's "maximum" over positions, or their "mean"
    start    what was found before, which is gone on from

    Raises ValueError for k below 1, for another `by`, for no batches where there is no start, and what the network raises.
    """
    if k < 1 or by not in ("maximum", "mean"):
        raise ValueError(f"top inputs were asked with k={k} and by={by!r}; expected k of at least 1, and by='maximum' or 'mean'")
    found = start
    with network.undisturbed():
        for indices, inputs in batches:
            shapes = {layer.name: layer.shape for layer in network.describe(inputs[:2])}
            known = found if found is not None else _nothing({layer: shapes[layer][-1] for layer in layers if layer in shapes}, k)
            peaks = network.peaks(inputs, layers, k, {layer: known._floor(layer, int(np.min(indices))) for layer in known.values}, by)
            columns = {layer: shapes[layer][-2] if len(shapes[layer]) > 1 else 1 for layer in layers}
            found = _added(known, np.asarray(indices), peaks, columns)
    if found is None:
        raise ValueError("top inputs were asked of no inputs; give at least one batch")
    return found


def top_images(
    network: Network, inputs: Array, layer: str, k: int = 10, *, by: Height = "maximum", batch_size: int = 64
) -> tuple[Float32, Int64, Int64]:
    """values (u, k), indices (u, k) and positions (u, k, 2) of the inputs (n, ...) that each unit responds to most; see `TopInputs`.

    After Zhou et al., "Object detectors emerge in deep scene CNNs" (2015), section 3.2. Raises as `top_inputs`.
    """
    found = top_inputs(network, in_batches(inputs, batch_size), [layer], k, by=by)
    return found.values[layer], found.inputs[layer], found.positions[layer]


def in_batches(inputs: Array, batch_size: int) -> Iterator[tuple[Int64, Array]]:
    """(indices, inputs) by consecutive batches."""
    for start in range(0, len(inputs), batch_size):
        stop = min(start + batch_size, len(inputs))
        yield np.arange(start, stop), inputs[start:stop]


def _nothing(units: Mapping[str, int], k: int) -> TopInputs:
    return TopInputs(
        {layer: np.full((u, k), -np.inf, np.float32) for layer, u in units.items()},
        {layer: np.full((u, k), -1, np.int64) for layer, u in units.items()},
        {layer: np.full((u, k, 2), -1, np.int64) for layer, u in units.items()},
    )


def _added(known: TopInputs, indices: Int64, peaks: Peaks, columns: Mapping[str, int]) -> TopInputs:
    """Those of the batch joined to what is known. Few inputs of a late batch, and for few units, are sorted at all."""
    joined = {layer: known._of(layer) for layer in known.values}
    for layer, (values, inputs, positions) in joined.items():
        units, rows = np.nonzero(peaks.places[layer].T >= 0)
        if not len(units):
            continue
        # Row by row those of one unit, as many as there are; what is left of the row is absent.
        touched, first, count = np.unique(units, return_index=True, return_counts=True)
        row, column = np.repeat(np.arange(len(touched)), count), np.arange(len(units)) - np.repeat(first, count)
        size = len(touched), int(count.max())
        new = np.full(size, -np.inf, np.float32), np.full(size, -1, np.int64), np.full((*size, 2), -1, np.int64)
        new[0][row, column], new[1][row, column] = peaks.values[layer][rows, units], indices[rows]
        new[2][row, column] = np.stack(np.divmod(peaks.places[layer][rows, units], columns[layer]), axis=-1)
        joined[layer] = values, inputs, positions = values.copy(), inputs.copy(), positions.copy()
        values[touched], inputs[touched], positions[touched] = _merged((values[touched], inputs[touched], positions[touched]), new)
    return _by_part(joined)


def _by_part(parts: Mapping[str, _Parts]) -> TopInputs:
    return TopInputs(
        {layer: values for layer, (values, _, _) in parts.items()},
        {layer: inputs for layer, (_, inputs, _) in parts.items()},
        {layer: positions for layer, (_, _, positions) in parts.items()},
    )


def _merged(one: _Parts, other: _Parts) -> _Parts:
    """The k largest of the candidates (u, k) and (u, c), by value and then by index; what is absent is minus infinity."""
    values, inputs, positions = (np.concatenate([one[part], other[part]], axis=1) for part in range(3))
    numbers = ~np.isnan(values)
    order = np.lexsort((inputs, -np.where(numbers, values, np.inf), numbers), axis=1)[:, : one[0].shape[1]]
    return np.take_along_axis(values, order, 1), np.take_along_axis(inputs, order, 1), np.take_along_axis(positions, order[:, :, None], 1)
