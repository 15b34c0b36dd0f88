"""The inputs a network hardly knows: those far from all others in what its last hidden layer makes of them. No labels are asked."""

from __future__ import annotations

import numpy as np

from netlapse.render.gaps import gallery
from netlapse.types import Array, Exact, Findings, Float64, Int64, Snapshot, UInt8, checked_by, ungrouped


def neighbour_distances(features: Exact, k: int = 5) -> Float64:
    """(n,) the mean distance of each input to the k others nearest to it, over the median of these; NaN for inputs that are not finite.

    features  (n, d), each in its standard deviations over the finite inputs; those that do not vary are left out

    1 is usual. All are 1 where no feature varies or half of the distances are zero. Raises ValueError for fewer than k + 1 finite inputs.
    """
    from sklearn.neighbors import NearestNeighbors  # imports what takes a second

    values = np.asarray(features, np.float64)
    finite = np.isfinite(values).all(axis=1)
    if values.ndim != 2 or k < 1 or finite.sum() <= k:
        raise ValueError(
            f"distances to {k} neighbours were asked of features {values.shape}, {finite.sum()} of them finite; expected (n, d), more than k"
        )
    known = values[finite]
    deviation = known.std(axis=0)
    varies = deviation > 1e-12 * np.abs(known).max(axis=0)
    known = (known - known.mean(axis=0))[:, varies] / deviation[varies]
    found = np.full(len(values), np.nan)
    near = NearestNeighbors(n_neighbors=k).fit(known).kneighbors()[0].mean(axis=1) if known.shape[1] else np.zeros(len(known))
    median = float(np.median(near))
    found[finite] = near / median if median > 0 else 1.0
    return found


def _check(snapshot: Snapshot, *, layer: str | None, k: int, shown: int) -> None:
    if k < 1 or shown < 1 or len(snapshot.probe) <= k:
        raise ValueError(
            f"rarest was given k={k} and shown={shown} for {len(snapshot.probe)} inputs; expected at least 1 of each, and more inputs than k"
        )
    hidden_layer(snapshot, layer, "rarest")


@ungrouped
@checked_by(_check)
def rarest(snapshot: Snapshot, previous: Findings | None, *, layer: str | None = None, k: int = 5, shown: int = 24) -> Findings:
    """The inputs of the probe that are furthest from their neighbours in a layer, and which of them were so before.

    layer  in whose responses; None: the last one observed that is not the network's output
    k      neighbours          shown  how many inputs, the rarest first

    arrays    `layer` () its name, `inputs` (m,) indices into the probe, `distances` (n,) of all inputs, see `neighbour_distances`
    scalars   `rarest/largest/<layer>` the largest distance, `rarest/kept/<layer>` the share of these inputs that were among them at the
              checkpoint before, `rarest/nonfinite/<layer>` how many inputs have a response that is not finite, and so no distance
    images    `rarest`, for images of 1 or 3 channels: the inputs, with their labels and distances

    Rare is not wrong: a label that is wrong, an unusual input and one of a group of which there are few look alike. Raises ValueError
    for an unknown layer, a probe of at most k inputs, and where at most k have finite responses.
    """
    _check(snapshot, layer=layer, k=k, shown=shown)
    probe, name = snapshot.probe, hidden_layer(snapshot, layer, "rarest")
    distances = neighbour_distances(snapshot.responses[name], k)
    finite = int(np.isfinite(distances).sum())
    inputs: Int64 = np.argsort(-np.where(np.isnan(distances), -np.inf, distances), kind="stable")[: min(shown, finite)]
    arrays: dict[str, Array] = {"layer": np.array(name), "inputs": inputs, "distances": distances}
    scalars = {f"rarest/largest/{name}": float(distances[inputs[0]]), f"rarest/nonfinite/{name}": float(len(distances) - finite)}
    if previous is not None and str(previous.arrays["layer"]) == name and len(previous.arrays["distances"]) == len(probe):
        scalars[f"rarest/kept/{name}"] = float(np.isin(inputs, previous.arrays["inputs"]).mean())
    images: dict[str, UInt8] = {}
    if probe.inputs.ndim == 4 and probe.inputs.shape[3] in (1, 3):
        captions = [f"{probe.class_names[probe.labels[i]]}, {distances[i]:.1f} x" for i in inputs.tolist()]
        title = f"What {name} hardly knows, step {snapshot.step}"
        note = f"Of {len(probe)} inputs those furthest from their {k} nearest, the rarest first; label, and distance as a multiple of the median."
        images["rarest"] = gallery(np.asarray(probe.inputs[inputs], np.float64), captions, title, note)
    return Findings(arrays, scalars, images)


def hidden_layer(snapshot: Snapshot, layer: str | None, who: str) -> str:
    """The observed layer of this name; None: the last one observed that is not the network's output. Raises ValueError for an unknown one."""
    names = snapshot.layer_names
    if layer is not None:
        if layer not in names:
            raise ValueError(f"{who} was given layer={layer!r}; observed are {list(names)}")
        return layer
    outputs = {one.name for one in snapshot.network.describe(snapshot.probe.inputs[:2]) if one.role == "output"}
    return [*(name for name in names if name in outputs), *(name for name in names if name not in outputs)][-1]
