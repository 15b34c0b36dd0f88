"""What units respond to: their top inputs, what in these they see, and how far their field reaches."""

from netlapse.analysis.receptive_field.top import TopInputs, in_batches, top_images, top_inputs

__all__ = ["TopInputs", "in_batches", "top_images", "top_inputs"]
