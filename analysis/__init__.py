"""One file, one analysis: a pure function of a snapshot and of its own findings at the checkpoint before."""

from __future__ import annotations

from functools import partial

from netlapse.types import Analysis, ProbeSet


def default_analyses(probe: ProbeSet) -> dict[str, Analysis]:
    """What is worth knowing of any network: profiles, topomaps and predictions, and saliency where the inputs are images (n, h, w, c)."""
    from netlapse.analysis.nap import nap
    from netlapse.analysis.predictions import predictions
    from netlapse.analysis.saliency import saliency
    from netlapse.analysis.topomap import topomap

    analyses: dict[str, Analysis] = {"nap": nap, "topomap": topomap}
    analyses |= {"saliency": saliency} if probe.inputs.ndim == 4 else {}
    # Pictures of inputs cost ten times the rest; the page shows them without.
    return analyses | {"predictions": partial(predictions, shown=0)}
