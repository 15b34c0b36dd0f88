"""Figures for papers, drawn from a recording: matplotlib, without pyplot, without a state that stays behind.

What a training shows of itself is rasterised in milliseconds by `netlapse.render`; here is drawn afterwards, in centimetres as they
are printed, with text that stays text. Every function returns a matplotlib Figure, which a notebook shows and `save` writes.
"""

from netlapse.figures.inputs import example_inputs, groups_of, mean_inputs
from netlapse.figures.profiles import clustered_heat_map, dendrogram, heat_map
from netlapse.figures.run import recorded, recorded_probe
from netlapse.figures.samples import samples
from netlapse.figures.sanity import sanity
from netlapse.figures.sheet import COLUMN, PAGE, Sheet, save
from netlapse.figures.topomaps import storyboard, topomap_grid, topomap_row
from netlapse.figures.violins import violins

__all__ = [
    "COLUMN",
    "PAGE",
    "Sheet",
    "clustered_heat_map",
    "dendrogram",
    "example_inputs",
    "groups_of",
    "heat_map",
    "mean_inputs",
    "recorded",
    "recorded_probe",
    "samples",
    "sanity",
    "save",
    "storyboard",
    "topomap_grid",
    "topomap_row",
    "violins",
]
