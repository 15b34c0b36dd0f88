"""Grad-CAM, and the layer that class activation maps are made of."""

from __future__ import annotations

import numpy as np

from netlapse.analysis.onepass import BATCH_SIZE, Recipe, made_by, maps_of_recipe
from netlapse.analysis.saliency.base import one_hot, resize
from netlapse.types import Array, Attributions, Float32, Int64, Layer, Network


def _recipe(network: Network, inputs: Array, classes: Int64, *, layer: str | None = None, upsample: bool = True) -> Recipe:
    one_hot(network, inputs, classes)  # for its errors
    explained = spatial_layer(network, inputs, layer)

    def made(network: Network, inputs: Array, classes: Int64, found: Attributions) -> Float32:
        raw = np.maximum(found.maps[explained], 0)
        return resize(raw, inputs.shape[1:3]).astype(np.float32) if upsample else raw

    return Recipe(made, layers=frozenset((explained,)))


@made_by(_recipe)
def grad_cam(
    network: Network, inputs: Array, classes: Int64, *, layer: str | None = None, upsample: bool = True, batch_size: int = BATCH_SIZE
) -> Float32:
    """(n, h, w) where the units of a layer that speak for a class are active: ReLU(sum over units of alpha * activation).

    alpha is the mean over positions of the gradient of the class's logit by the unit (Selvaraju et al., 2017, eqs. 1-2).
    layer     its name; None: see `spatial_layer`
    upsample  to the inputs' resolution (see `resize`); False: at the layer's own
    Not normalised. Raises ValueError as `gradient`, and where the layer is not spatial or the network has no such layer.
    """
    recipe = _recipe(network, inputs, classes, layer=layer, upsample=upsample)
    return np.asarray(maps_of_recipe(recipe, network, inputs, classes, batch_size), np.float32)


def spatial_layer(network: Network, inputs: Array, layer: str | None = None) -> str:
    """The layer a class activation map is made of: the named one, or the last spatial one.

    Spatial is an activation (h, w, u) with more than one position. The last one is the most abstract that still says
    where. Layers of role "other" (pooling, dropout) are passed over where there is anything else: pooling only loses
    positions. What is left ends, after a convolution and its norm, in the activation, as in the paper.

    Raises ValueError where the named layer is unknown or not spatial, and where no layer is.
    """
    layers = network.describe(inputs[:2])
    spatial = [found for found in layers if is_spatial(found)]
    if layer is None:
        if not spatial:
            shapes = {found.name: found.shape for found in layers}
            raise ValueError(
                f"no layer of this network is spatial, (h, w, u) with h * w > 1: it has {shapes}; use saliency.gradient, which needs no such layer"
            )
        return ([found for found in spatial if found.role != "other"] or spatial)[-1].name
    if layer not in (names := [found.name for found in spatial]):
        shape = next((found.shape for found in layers if found.name == layer), None)
        why = network.refused.get(layer, "there is no layer of that name") if shape is None else f"its activation is {shape}"
        raise ValueError(f"no class activation map of layer {layer!r}: {why}; spatial, (h, w, u) with h * w > 1, are {names}")
    return layer


def is_spatial(layer: Layer) -> bool:
    """Whether its activation is (h, w, u), with more than one position."""
    return len(layer.shape) == 3 and layer.shape[0] * layer.shape[1] > 1
