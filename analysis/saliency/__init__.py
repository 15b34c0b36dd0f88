"""Saliency: which positions of an image the score of a class depends on, for the same images at every checkpoint.

A method is a plain function (network, inputs (n, h, w, c), classes (n,)) -> maps (n, h, w), raw: what is scaled per
image cannot be compared over checkpoints. Everything here asks the network for outputs, activations and gradients only.
"""

from netlapse.analysis.saliency.analysis import DENSITY_LIMIT, saliency
from netlapse.analysis.saliency.base import Method, batches, one_hot, resize
from netlapse.analysis.saliency.cam import grad_cam, spatial_layer
from netlapse.analysis.saliency.gradients import gradient
from netlapse.analysis.saliency.maps import STRONGEST, concentration, density, similarity
from netlapse.analysis.saliency.panel import panel_of

__all__ = [
    "DENSITY_LIMIT",
    "STRONGEST",
    "Method",
    "batches",
    "concentration",
    "density",
    "grad_cam",
    "gradient",
    "one_hot",
    "panel_of",
    "resize",
    "saliency",
    "similarity",
    "spatial_layer",
]
