"""Law: what is said not to look at the grouping finds the same by any."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from netlapse.analysis import nap
from netlapse.analysis.fairness import fairness
from netlapse.analysis.last_layer import last_layer
from netlapse.analysis.predictions import predictions
from netlapse.analysis.rarest import rarest
from netlapse.analysis.receptive_field import receptive_field
from netlapse.analysis.saliency import saliency
from netlapse.analysis.sanity import sanity
from netlapse.analysis.similarity import similarity
from netlapse.backends.torch import TorchNetwork
from netlapse.data import digits
from netlapse.models.torch import cnn
from netlapse.probe import by_label, by_outcome, from_data
from netlapse.tracking.folder import packed
from netlapse.types import Analysis, Snapshot

UNGROUPED: dict[str, Analysis] = {
    "saliency": saliency,
    "predictions": predictions,
    "similarity": similarity,
    "rarest": rarest,
    "receptive_field": partial(receptive_field, limit_units=2, k=2),
    "last_layer": partial(last_layer, min_inputs=2),
    "fairness": partial(fairness, permutations=20),
    "sanity": partial(sanity, panel=4, stages=2, repeats=1),
}


def found(analysis: Analysis, grouping: object) -> bytes:
    """What an analysis finds in a network, as it is recorded."""
    torch.manual_seed(0)
    probe = from_data(digits(), per_class=6)
    probe = replace(probe, attributes={"half": np.where(np.arange(len(probe)) % 2, "odd", "even")})
    network = TorchNetwork(cnn((8, 8, 1), 10, channels=(4, 4), hidden=8))
    return packed(analysis(Snapshot(network, probe, 0, grouping=grouping), None))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", UNGROUPED)
def test_it_finds_the_same_by_another_grouping(name: str) -> None:
    assert getattr(UNGROUPED[name], "func", UNGROUPED[name]).ungrouped  # type: ignore[union-attr]
    assert found(UNGROUPED[name], by_label) == found(UNGROUPED[name], by_outcome)


def test_profiles_are_by_the_grouping() -> None:
    assert not hasattr(nap.nap, "ungrouped")
    assert found(nap.nap, by_label) != found(nap.nap, by_outcome)
