"""What units respond to: their top inputs, what in these they see, and how far their field reaches."""

from netlapse.analysis.receptive_field.analysis import purity_by_chance, receptive_field
from netlapse.analysis.receptive_field.discrepancy import corners, discrepancy_maps
from netlapse.analysis.receptive_field.fields import ReceptiveFields, field_numbers, fields_of, recentred, receptive_fields
from netlapse.analysis.receptive_field.top import TopInputs, in_batches, top_images, top_inputs
from netlapse.analysis.receptive_field.views import effective_fields, region, resampled, segmentation

__all__ = [
    "ReceptiveFields",
    "TopInputs",
    "corners",
    "discrepancy_maps",
    "effective_fields",
    "field_numbers",
    "fields_of",
    "in_batches",
    "purity_by_chance",
    "recentred",
    "receptive_field",
    "receptive_fields",
    "region",
    "resampled",
    "segmentation",
    "top_images",
    "top_inputs",
]
