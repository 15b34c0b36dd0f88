"""Saliency: which positions of an image the score of a class depends on, for the same images at every checkpoint.

A method is a plain function (network, inputs (n, h, w, c), classes (n,)) -> maps (n, h, w), raw: what is scaled per
image cannot be compared over checkpoints. Everything here asks the network for outputs, activations and gradients only.
"""

from netlapse.analysis.fullgradient import full_gradient, fullgrad, simple_fullgrad, smooth_fullgrad
from netlapse.analysis.onepass import Method
from netlapse.analysis.saliency.analysis import DENSITY_LIMIT, default_methods, saliency
from netlapse.analysis.saliency.base import batches, one_hot, resize
from netlapse.analysis.saliency.cam import grad_cam, spatial_layer
from netlapse.analysis.saliency.faithfulness import (
    area,
    average_drop,
    distance_to_others,
    faithfulness_correlation,
    perturbation_curves,
    random_maps,
    sensitivity,
)
from netlapse.analysis.saliency.gradients import gradient, gradient_times_input, integrated_gradients, smooth_gradient
from netlapse.analysis.saliency.maps import STRONGEST, boxes, concentration, density, distance, entropy, mass_inside, similarity, similarity_to_others
from netlapse.analysis.saliency.masks import Masks, masks_from_boxes, masks_from_file, masks_from_folder
from netlapse.analysis.saliency.measures import MEASURES
from netlapse.analysis.saliency.occluding import occlusion
from netlapse.analysis.saliency.panel import WHY, Target, chosen_of, explained_classes
from netlapse.probe import panel_of

__all__ = [
    "DENSITY_LIMIT",
    "MEASURES",
    "STRONGEST",
    "WHY",
    "Masks",
    "Method",
    "Target",
    "area",
    "average_drop",
    "batches",
    "boxes",
    "chosen_of",
    "concentration",
    "default_methods",
    "density",
    "distance",
    "distance_to_others",
    "entropy",
    "explained_classes",
    "faithfulness_correlation",
    "full_gradient",
    "fullgrad",
    "grad_cam",
    "gradient",
    "gradient_times_input",
    "integrated_gradients",
    "masks_from_boxes",
    "masks_from_file",
    "masks_from_folder",
    "mass_inside",
    "occlusion",
    "one_hot",
    "panel_of",
    "perturbation_curves",
    "random_maps",
    "resize",
    "saliency",
    "sensitivity",
    "similarity",
    "similarity_to_others",
    "simple_fullgrad",
    "smooth_fullgrad",
    "smooth_gradient",
    "spatial_layer",
]
