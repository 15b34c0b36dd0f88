"""Where the units of a layer are drawn: functions from profiles to positions.

A layout only decides places; what is drawn there is a topomap (`netlapse.analysis.topomap`). Every layout is a function
`(profiles (u, f), *, seed=0, previous=None, metric="euclidean") -> positions (u, 2)` in [0, 1], so that they can be exchanged.
`previous` is the layout of the checkpoint before, for the same units in the same order: a map that jumps between checkpoints
cannot be followed, so what a layout owes to the one before is part of each function's description.
"""

from netlapse.analysis.layout.base import METRICS, metric_space, procrustes
from netlapse.analysis.layout.calm import fixed, method, over_time, steady
from netlapse.analysis.layout.disc import flas
from netlapse.analysis.layout.embedding import mds, pacmap, tsne, umap
from netlapse.analysis.layout.lattice import som
from netlapse.analysis.layout.layers import turned
from netlapse.analysis.layout.particles import swarm
from netlapse.analysis.layout.parts import apart
from netlapse.analysis.layout.projection import pca, random
from netlapse.analysis.layout.spreading import spread
from netlapse.analysis.layout.springs import graph

__all__ = [
    "METRICS",
    "apart",
    "fixed",
    "flas",
    "graph",
    "mds",
    "method",
    "metric_space",
    "over_time",
    "pacmap",
    "pca",
    "procrustes",
    "random",
    "som",
    "spread",
    "steady",
    "swarm",
    "tsne",
    "turned",
    "umap",
]
