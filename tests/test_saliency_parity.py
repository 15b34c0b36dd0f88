"""The same weights in Keras and torch have the same maps, whatever the method; and the same numbers about them."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from netlapse.analysis import saliency
from netlapse.backends.keras import KerasNetwork
from netlapse.backends.torch import TorchNetwork
from netlapse.types import Float32
from tests.test_parity import SAME, cnn, with_the_same_weights

METHODS: dict[str, saliency.Method] = {
    "gradient_times_input": saliency.gradient_times_input,
    "smooth_gradient": partial(saliency.smooth_gradient, samples=3),
    "integrated_gradients": partial(saliency.integrated_gradients, steps=4),
    "occlusion": saliency.occlusion,
}


@pytest.fixture(scope="module")
def networks() -> tuple[TorchNetwork, KerasNetwork, Float32]:
    inputs = np.random.default_rng(1).normal(size=(6, 8, 8, 3)).astype(np.float32)
    a, b = with_the_same_weights(*cnn("softmax"))
    return a, b, inputs


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_maps_are_the_same(method: saliency.Method, networks: tuple[TorchNetwork, KerasNetwork, Float32]) -> None:
    a, b, inputs = networks
    found, expected = (method(network, inputs, np.arange(6) % 4) for network in (b, a))
    np.testing.assert_allclose(found, expected, **SAME)
    assert np.abs(expected).max() > 1e-4
