"""The methods that every framework's networks have: against closed forms, against their own definitions, and against captum's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from netlapse.analysis.saliency import (
    Method,
    gradient,
    gradient_times_input,
    integrated_gradients,
    occlusion,
    saliency,
    smooth_gradient,
)
from netlapse.backends.torch import TorchNetwork
from netlapse.types import Array, Float32, Int64, ProbeSet, Snapshot
from tests.test_saliency import CLASSES, images, linear, small_cnn

METHODS: dict[str, Method] = {
    "gradient_times_input": gradient_times_input,
    "smooth_gradient": partial(smooth_gradient, samples=4),
    "integrated_gradients": partial(integrated_gradients, steps=4),
    "occlusion": partial(occlusion, window=3, stride=2),
}
every = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


class Quadratic(nn.Module):
    """logit_k = sum of weight_k * input ** 2, whose gradient is 2 * weight_k * input."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(np.random.default_rng(5).normal(size=(4, 2, 9, 7)), dtype=torch.float32))

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.einsum("kchw,nchw->nk", self.weight, inputs**2)

    @property
    def of_classes(self) -> Float32:
        return np.moveaxis(self.weight.detach().numpy(), 1, -1)[CLASSES]


def linear_weights(net: nn.Sequential) -> Float32:
    """(n, h, w, c) those of each input's class."""
    return np.moveaxis(net[1].weight.detach().numpy().reshape(4, 2, 9, 7), 1, -1)[CLASSES]


def smooth_cnn() -> nn.Sequential:
    """Without kinks, so that quadrature converges fast."""
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 7 * 5, 4))


def logits(net: nn.Module, inputs: Array, classes: Int64 = CLASSES) -> Array:
    with torch.no_grad():
        return net.eval()(torch.tensor(np.moveaxis(np.asarray(inputs, np.float32), -1, 1))).numpy()[np.arange(len(inputs)), classes]


# ---- closed forms ----------------------------------------------------------------------------------------------------


def test_on_a_linear_network_the_products_are_weight_times_input_and_add_up_to_the_logit() -> None:
    net = linear()
    found = gradient_times_input(TorchNetwork(net), images(), CLASSES)
    np.testing.assert_allclose(found, (linear_weights(net) * images()).sum(axis=-1), atol=1e-6)
    bias = net[1].bias.detach().numpy()[CLASSES]
    np.testing.assert_allclose(found.sum(axis=(1, 2)), logits(net, images()) - bias, atol=1e-5)
    assert found.min() < 0


def test_on_a_linear_network_noise_changes_nothing() -> None:
    network = TorchNetwork(linear())
    np.testing.assert_allclose(smooth_gradient(network, images(), CLASSES, samples=3), gradient(network, images(), CLASSES), rtol=1e-5)


def test_without_noise_smooth_gradient_is_the_gradient() -> None:
    network = TorchNetwork(small_cnn())
    found = smooth_gradient(network, images(), CLASSES, sigma=0, samples=2)
    np.testing.assert_allclose(found, gradient(network, images(), CLASSES), rtol=1e-5, atol=1e-6)


def test_smooth_gradient_of_a_quadratic_network_is_the_gradient_at_the_mean_of_the_noisy_inputs() -> None:
    net = Quadratic()
    noise = np.random.default_rng(7).normal(size=(6, 9, 7, 2)).mean(axis=0)
    spread = np.array([0.3 * (image.max() - image.min()) for image in images()])[:, None, None, None]
    expected = np.abs(2 * net.of_classes * (images() + spread * noise)).sum(axis=-1)
    found = smooth_gradient(TorchNetwork(net), images(), CLASSES, sigma=0.3, samples=6, seed=7)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("steps", [1, 5])
def test_integrated_gradients_of_a_quadratic_network_is_exact_with_one_step(steps: int) -> None:
    """The gradient is linear on the line, so its mean is that in the middle: weight * (input ** 2 - baseline ** 2)."""
    net, baseline = Quadratic(), images(seed=9)
    found = integrated_gradients(TorchNetwork(net), images(), CLASSES, baseline=baseline, steps=steps)
    np.testing.assert_allclose(found, (net.of_classes * (images() ** 2 - baseline**2)).sum(axis=-1), rtol=1e-4, atol=1e-4)


def test_occlusion_of_single_pixels_of_a_linear_network_is_its_products() -> None:
    net = linear()
    found = occlusion(TorchNetwork(net), images(), CLASSES, window=1)
    np.testing.assert_allclose(found, (linear_weights(net) * images()).sum(axis=-1), atol=2e-6)


# ---- definitions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("baseline", [0.0, 0.7, "channels", "images"])
def test_integrated_gradients_add_up_to_the_logit_minus_that_of_the_baseline(baseline: float | str) -> None:
    given = {"channels": np.array([0.5, -1]), "images": images(seed=8)}.get(str(baseline), baseline)
    net = smooth_cnn()
    found = integrated_gradients(TorchNetwork(net), images(), CLASSES, baseline=given)  # type: ignore[arg-type]
    expected = logits(net, images()) - logits(net, np.broadcast_to(np.asarray(given), images().shape))
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found.sum(axis=(1, 2)), expected, atol=1e-5)


@pytest.mark.parametrize(("window", "stride"), [(3, 2), (4, 4), (2, 1), (9, 5), (None, None)])
def test_occlusion_is_its_definition(window: int | None, stride: int | None) -> None:
    """One window after the other, and for each position the mean over those that cover it."""
    net, network = small_cnn(inplace=False), TorchNetwork(small_cnn(inplace=False))
    side, step = (2, 1) if window is None else (window, stride)  # an eighth of 9 rounded up, and half of that
    assert step is not None
    total, times, baseline = np.zeros((5, 9, 7)), np.zeros((9, 7)), images(seed=6)
    y = 0
    while True:
        x = 0
        while True:
            covered = images()
            covered[:, y : y + side, x : x + side] = baseline[:, y : y + side, x : x + side]
            total[:, y : y + side, x : x + side] += (logits(net, images()) - logits(net, covered))[:, None, None]
            times[y : y + side, x : x + side] += 1
            if x + side >= 7:
                break
            x += step
        if y + side >= 9:
            break
        y += step
    found = occlusion(network, images(), CLASSES, window=window, stride=stride, baseline=baseline)
    np.testing.assert_allclose(found, total / times, atol=1e-5)
    assert found.std() > 1e-3


@every
def test_a_batch_is_explained_as_its_inputs_one_by_one(method: Callable[..., Float32]) -> None:
    network = TorchNetwork(small_cnn())
    whole = method(network, images(), CLASSES)
    assert whole.shape == (5, 9, 7)
    assert whole.dtype == np.float32
    single = np.concatenate([method(network, images()[i : i + 1], CLASSES[i : i + 1]) for i in range(5)])
    # 1e-6: matrix products of other shapes add up in another order.
    np.testing.assert_allclose(whole, single, atol=2e-6)
    np.testing.assert_allclose(whole, method(network, images(), CLASSES, batch_size=3), atol=2e-6)
    assert (whole != method(network, images(), (CLASSES + 1) % 4)).any()


def test_the_noise_comes_from_the_seed() -> None:
    network = TorchNetwork(small_cnn())
    first, again, other = (smooth_gradient(network, images(), CLASSES, samples=2, seed=seed) for seed in (1, 1, 2))
    assert first.tobytes() == again.tobytes()
    assert (first != other).any()


# ---- captum ----------------------------------------------------------------------------------------------------------


def captum_of(net: nn.Module) -> tuple[object, Tensor, Tensor]:
    attr = pytest.importorskip("captum.attr", reason="captum is not installed: pip install captum")
    net.eval()
    return attr, torch.tensor(np.moveaxis(images(), -1, 1)), torch.tensor(CLASSES)


def test_gradient_and_its_product_with_the_input_are_captums() -> None:
    net = small_cnn(inplace=False)
    attr, inputs, classes = captum_of(net)
    expected = attr.InputXGradient(net).attribute(inputs.clone(), target=classes).sum(dim=1).detach().numpy()  # type: ignore[attr-defined]
    np.testing.assert_allclose(gradient_times_input(TorchNetwork(net), images(), CLASSES), expected, atol=1e-5)
    expected = attr.Saliency(net).attribute(inputs.clone(), target=classes).sum(dim=1).numpy()  # type: ignore[attr-defined]
    np.testing.assert_allclose(gradient(TorchNetwork(net), images(), CLASSES), expected, atol=1e-5)


def test_integrated_gradients_are_captums() -> None:
    net = small_cnn(inplace=False)
    attr, inputs, classes = captum_of(net)
    found = integrated_gradients(TorchNetwork(net), images(), CLASSES, baseline=0.3, steps=20)
    expected = attr.IntegratedGradients(net).attribute(inputs, 0.3, target=classes, n_steps=20).sum(dim=1)  # type: ignore[attr-defined]
    np.testing.assert_allclose(found, expected.detach().numpy(), atol=1e-5)


def test_occlusion_is_captums() -> None:
    net = small_cnn(inplace=False)
    attr, inputs, classes = captum_of(net)
    expected = attr.Occlusion(net).attribute(inputs, (2, 4, 4), (2, 3, 3), 0.1, classes)[:, 0].numpy()  # type: ignore[attr-defined]
    np.testing.assert_allclose(occlusion(TorchNetwork(net), images(), CLASSES, window=4, stride=3, baseline=0.1), expected, atol=1e-5)


# ---- do no harm, and errors ------------------------------------------------------------------------------------------


@every
def test_a_network_in_training_is_left_as_it_was(method: Method) -> None:
    net = small_cnn().train()
    net[1].training = False
    state, modes = {name: value.clone() for name, value in net.state_dict().items()}, [module.training for module in net]
    rng, inputs = (torch.get_rng_state(), np.random.get_state()[1].tobytes()), images()  # noqa: NPY002
    method(TorchNetwork(net), inputs, CLASSES)
    assert all(torch.equal(state[name], value) for name, value in net.state_dict().items())
    assert [module.training for module in net] == modes
    assert all(parameter.grad is None for parameter in net.parameters())
    assert torch.equal(torch.get_rng_state(), rng[0])
    assert np.random.get_state()[1].tobytes() == rng[1]  # noqa: NPY002
    np.testing.assert_array_equal(inputs, images())


@every
@pytest.mark.parametrize("value", [np.nan, 1e38])
def test_a_network_that_diverged_has_maps_that_say_so(method: Method, value: float) -> None:
    net = linear(c=1)
    with torch.no_grad():
        net[1].weight.mul_(value)
    probe = ProbeSet(1e4 * images(4, c=1), np.arange(4))
    found = saliency(Snapshot(TorchNetwork(net), probe, 0), None, methods={"m": method})
    assert np.isnan(found.arrays["maps/m"]).all()


@every
def test_what_is_no_image_is_refused(method: Method) -> None:
    with pytest.raises(ValueError, match=r"saliency maps need images \(n, h, w, c\)"):
        method(TorchNetwork(nn.Linear(8, 4)), np.zeros((5, 8), np.float32), CLASSES)


def test_options_that_cannot_be_are_refused() -> None:
    network = TorchNetwork(linear())
    given = network, images(), CLASSES
    with pytest.raises(ValueError, match=r"smooth_gradient was given sigma=-1 and samples=25; expected a sigma of at least 0"):
        smooth_gradient(*given, sigma=-1)
    with pytest.raises(ValueError, match="samples=0; expected a sigma of at least 0 and at least one sample"):
        smooth_gradient(*given, samples=0)
    with pytest.raises(ValueError, match="integrated_gradients was given steps=0; expected at least one"):
        integrated_gradients(*given, steps=0)
    with pytest.raises(ValueError, match=r"baseline has shape \(3,\); expected a number, or what broadcasts to the inputs \(5, 9, 7, 2\)"):
        integrated_gradients(*given, baseline=np.zeros(3))
    with pytest.raises(ValueError, match="baseline holds NaN or infinity"):
        occlusion(*given, baseline=np.nan)
    with pytest.raises(ValueError, match="a window of 10 pixels; expected 1 to 9 for images of 9 x 7"):
        occlusion(*given, window=10)
    with pytest.raises(ValueError, match="a stride of 4 pixels; expected 1 to 3, the window, so that every position is covered"):
        occlusion(*given, window=3, stride=4)
