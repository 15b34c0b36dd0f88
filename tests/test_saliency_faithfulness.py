"""Numbers that say whether to believe a map: against closed forms, their definitions written out, and torchcam's and captum's."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchcam.methods import GradCAM
from torchcam.metrics import ClassificationMetric, DeletionInsertionMetric

from netlapse.analysis.saliency import (
    area,
    average_drop,
    boxes,
    distance,
    distance_to_others,
    entropy,
    faithfulness_correlation,
    grad_cam,
    gradient,
    gradient_times_input,
    mass_inside,
    perturbation_curves,
    random_maps,
    sensitivity,
    similarity,
    similarity_to_others,
)
from netlapse.backends.torch import TorchNetwork
from netlapse.types import Array, Float32, Float64, Int64
from tests.test_saliency import CLASSES, images, linear, small_cnn
from tests.test_saliency_methods import Quadratic, linear_weights, logits


def flat_cnn() -> nn.Sequential:
    """Without pooling before the explained layer, so that its maps are at the inputs' resolution."""
    torch.manual_seed(2)
    return nn.Sequential(nn.Conv2d(2, 5, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4)).eval()


def chances(net: nn.Module, inputs: Array) -> Float64:
    with torch.no_grad():
        found = net.eval()(torch.tensor(np.moveaxis(np.asarray(inputs, np.float32), -1, 1))).double().softmax(dim=1).numpy()
    return np.asarray(found[np.arange(len(inputs)), CLASSES])


def as_tensor(inputs: Array) -> Tensor:
    return torch.tensor(np.moveaxis(inputs, -1, 1))


def visible(net: nn.Module, layer: str) -> Int64:
    """For each input the class whose Grad-CAM is strongest: torchcam counts blank maps as maps, and here they have no number."""
    network = TorchNetwork(net)
    strength = [grad_cam(network, images(), np.full(5, k), layer=layer).max(axis=(1, 2)) for k in range(4)]
    assert np.min(np.max(strength, axis=0)) > 0
    return np.argmax(strength, axis=0)


# ---- deletion and insertion ------------------------------------------------------------------------------------------


def test_the_curves_are_their_definition() -> None:
    """Position by position in the map's order, one input at a time."""
    net, maps = small_cnn(inplace=False), random_maps((5, 9, 7), seed=3)
    shares, deletion, insertion = perturbation_curves(TorchNetwork(net), images(), CLASSES, maps, steps=9, baseline=0.2, batch_size=7)
    assert shares.tolist() == [*(7 * i / 63 for i in range(9)), 1]  # 63 positions in parts of 7
    for n in range(5):
        ordered = sorted(((y, x) for y in range(9) for x in range(7)), key=lambda place, n=n: -maps[n][place])
        without, only = images().copy(), np.full((5, 9, 7, 2), 0.2, np.float32)
        for step in range(10):
            np.testing.assert_allclose(deletion[n, step], chances(net, without)[n], atol=1e-6)
            np.testing.assert_allclose(insertion[n, step], chances(net, only)[n], atol=1e-6)
            for y, x in ordered[7 * step : 7 * step + 7]:
                without[n, y, x], only[n, y, x] = 0.2, images()[n, y, x]
    assert (deletion[:, 0] != deletion[:, -1]).all()


def test_equal_values_are_taken_row_by_row() -> None:
    steps = np.zeros((5, 9, 7), np.float32)
    steps[:, 4:] = 1
    strict = np.where(steps > 0, 10.0, 0) - np.linspace(0, 1, 63).reshape(9, 7)
    network = TorchNetwork(small_cnn())
    a, b = (perturbation_curves(network, images(), CLASSES, maps.astype(np.float32)) for maps in (steps, strict))
    np.testing.assert_array_equal(a[1], b[1])
    np.testing.assert_array_equal(a[2], b[2])


@pytest.mark.parametrize("steps", [4, 20, 100])
def test_areas_are_torchcams(steps: int) -> None:
    net = small_cnn(inplace=False).eval()
    classes = visible(net, "5")
    with GradCAM(net, "5") as extractor:
        metric = DeletionInsertionMetric(extractor, partial(torch.softmax, dim=-1), steps=steps, baseline=torch.tensor(0.1))
        metric.update(as_tensor(images()), classes.tolist())
        (cam,) = extractor(classes.tolist(), net(as_tensor(images())).softmax(dim=-1))
    maps = nn.functional.interpolate(cam[:, None], (9, 7), mode="bilinear", align_corners=False)[:, 0].detach().numpy()
    shares, deletion, insertion = perturbation_curves(TorchNetwork(net), images(), classes, maps, steps=steps, baseline=0.1)
    expected = metric.summary()
    assert area(shares, deletion).mean() == pytest.approx(expected["deletion_auc"], abs=1e-5)
    assert area(shares, insertion).mean() == pytest.approx(expected["insertion_auc"], abs=1e-5)
    assert expected["deletion_auc"] != pytest.approx(expected["insertion_auc"], abs=1e-3)


def test_of_a_linear_network_no_order_deletes_faster_than_that_of_its_products() -> None:
    net = linear()
    network, products = TorchNetwork(net), (linear_weights(net) * images()).sum(axis=-1)
    best = perturbation_curves(network, images(), CLASSES, products, steps=63)
    for other in (random_maps((5, 9, 7)), np.abs(products), -products):
        worse = perturbation_curves(network, images(), CLASSES, other, steps=63)
        # Logits are what add up, and probabilities of other classes change as well: on the whole, and not for each.
        assert area(*best[:2]).mean() < area(*worse[:2]).mean()
        assert area(best[0], best[2]).mean() > area(worse[0], worse[2]).mean()


def test_area_by_hand() -> None:
    np.testing.assert_allclose(area(np.array([0, 0.5, 1]), np.array([[1.0, 0, 0], [1, 1, 1]])), [0.25, 1])


# ---- average drop ----------------------------------------------------------------------------------------------------


def test_average_drop_is_torchcams() -> None:
    net = flat_cnn()
    classes = visible(net, "1")
    with GradCAM(net, "1") as extractor:
        metric = ClassificationMetric(extractor, partial(torch.softmax, dim=-1))
        metric.update(as_tensor(images()), classes.tolist())
        (cam,) = extractor(classes.tolist(), net(as_tensor(images())).softmax(dim=-1))
    found = average_drop(TorchNetwork(net), images(), classes, cam.detach().numpy())
    assert found.mean() == pytest.approx(metric.summary()["avg_drop"], abs=1e-5)
    assert found.mean() > 0.01


def test_a_map_that_keeps_the_input_loses_nothing() -> None:
    """Where the input is not zero, the map is one."""
    inputs = images()
    inputs[:, ::2] = 0
    found = average_drop(TorchNetwork(small_cnn()), inputs, CLASSES, 5 + 3 * (inputs[..., 0] != 0).astype(np.float32))
    np.testing.assert_allclose(found, 0, atol=1e-6)


def test_average_drop_is_its_definition() -> None:
    net, maps = small_cnn(inplace=False), random_maps((5, 9, 7), seed=1) * 4 - 1
    low, high = maps.min(axis=(1, 2), keepdims=True), maps.max(axis=(1, 2), keepdims=True)
    masked = chances(net, images() * ((maps - low) / (high - low))[..., None])
    expected = np.maximum(0, chances(net, images()) - masked) / chances(net, images())
    assert (expected > 0).any()
    np.testing.assert_allclose(average_drop(TorchNetwork(net), images(), CLASSES, maps, batch_size=2), expected, atol=1e-6)


# ---- faithfulness correlation ----------------------------------------------------------------------------------------


def test_on_a_linear_network_its_products_are_perfectly_faithful_and_their_opposite_perfectly_wrong() -> None:
    net = linear()
    network = TorchNetwork(net)
    maps = gradient_times_input(network, images(), CLASSES)
    np.testing.assert_allclose(faithfulness_correlation(network, images(), CLASSES, maps), 1, atol=1e-5)
    np.testing.assert_allclose(faithfulness_correlation(network, images(), CLASSES, -2 * maps), -1, atol=1e-5)
    shifted = (linear_weights(net) * (images() - 0.5)).sum(axis=-1)
    np.testing.assert_allclose(faithfulness_correlation(network, images(), CLASSES, shifted, baseline=0.5), 1, atol=1e-5)
    assert np.abs(faithfulness_correlation(network, images(), CLASSES, maps, baseline=0.5)).max() < 0.999


def test_of_random_maps_it_is_nothing_but_chance() -> None:
    network = TorchNetwork(small_cnn())
    found = [faithfulness_correlation(network, images(), CLASSES, random_maps((5, 9, 7), seed)).mean() for seed in range(12)]
    # Of 60 correlations over 50 subsets, whose standard deviation is about 1 / 7: three standard errors.
    assert abs(np.mean(found)) < 3 / 7 / np.sqrt(12)


def test_faithfulness_is_pearsons_correlation_over_subsets_of_the_share_asked_for() -> None:
    net, maps = small_cnn(inplace=False), random_maps((5, 9, 7))
    hidden_counts = []

    class Watched(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            hidden_counts.extend((inputs == 9).all(dim=1).sum(dim=(1, 2)).tolist())
            return net.eval()(inputs)

    found = faithfulness_correlation(TorchNetwork(Watched()), images(), CLASSES, maps, subsets=6, share=0.1, baseline=9, seed=4, batch_size=4)
    assert {count for count in hidden_counts if count} == {6}  # a tenth of 63 positions
    drawn = np.random.default_rng(4).permuted(np.tile(np.arange(63), (6, 1)), axis=1) < 6
    for n in range(5):
        lost = []
        for subset in drawn.reshape(6, 9, 7):
            shown = images()
            shown[:, subset] = 9
            lost.append((logits(net, images()) - logits(net, shown))[n])
        expected = np.corrcoef([maps[n][subset].sum() for subset in drawn.reshape(6, 9, 7)], lost)[0, 1]
        assert found[n] == pytest.approx(expected, abs=1e-5)


# ---- sensitivity -----------------------------------------------------------------------------------------------------


def test_a_linear_networks_gradient_does_not_depend_on_the_input_and_a_quadratic_ones_does() -> None:
    assert sensitivity(TorchNetwork(linear()), images(), CLASSES, gradient).max() < 1e-6
    found = sensitivity(TorchNetwork(Quadratic()), images(), CLASSES, gradient)
    assert found.min() > 0.01
    assert (sensitivity(TorchNetwork(Quadratic()), images(), CLASSES, gradient, radius=0.04) > 1.5 * found).all()
    np.testing.assert_array_equal(sensitivity(TorchNetwork(small_cnn()), images(), CLASSES, gradient, radius=0), 0)


def test_sensitivity_is_captums() -> None:
    metrics = pytest.importorskip("captum.metrics", reason="captum is not installed: pip install captum")
    net = small_cnn(inplace=False).eval()
    network = TorchNetwork(net)
    noise = np.random.default_rng(6).uniform(-0.1, 0.1, (3, 9, 7, 2))
    ranges = np.array([image.max() - image.min() for image in images()])[:, None, None, None]
    drawn = iter(noise)

    def bare(inputs: Tensor | tuple[Tensor]) -> Tensor:
        return inputs if isinstance(inputs, Tensor) else inputs[0]

    def explain(inputs: Tensor | tuple[Tensor]) -> tuple[Tensor]:
        return (torch.tensor(gradient(network, np.moveaxis(bare(inputs).detach().numpy(), 1, -1), CLASSES)),)

    def perturbed(inputs: Tensor | tuple[Tensor]) -> Tensor:
        return bare(inputs) + as_tensor((ranges * next(drawn)).astype(np.float32))

    expected = metrics.sensitivity_max(explain, as_tensor(images()), perturbed, n_perturb_samples=3, max_examples_per_batch=5)
    found = sensitivity(network, images(), CLASSES, gradient, radius=0.1, draws=3, seed=6)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4)


def test_the_null_of_sensitivity_is_the_mean_distance_to_the_other_maps() -> None:
    maps = images(4, c=1)[..., 0]
    every = [[np.linalg.norm(maps[j] - maps[i]) / np.linalg.norm(maps[i]) for j in range(4) if j != i] for i in range(4)]
    np.testing.assert_allclose(distance_to_others(maps), np.mean(every, axis=1), rtol=1e-5)
    np.testing.assert_allclose(distance(maps, 3 * maps), 2, rtol=1e-6)
    assert np.isnan(distance_to_others(maps[:1])).all()


# ---- numbers of maps alone -------------------------------------------------------------------------------------------


def test_the_null_of_similarity_is_the_mean_one_with_the_maps_of_other_inputs() -> None:
    a, b = images(4, c=1, seed=1)[..., 0], images(4, c=1, seed=2)[..., 0]
    expected = [np.mean([np.corrcoef(a[i].ravel(), b[j].ravel())[0, 1] for j in range(4) if j != i]) for i in range(4)]
    np.testing.assert_allclose(similarity_to_others(a, b), expected, rtol=1e-5)
    same = np.repeat(a[:1], 4, axis=0)  # the maps of a method that does not look at its input
    np.testing.assert_allclose(similarity_to_others(same, same), 1)
    np.testing.assert_allclose(similarity(same, same), 1)
    assert np.isnan(similarity_to_others(a[:1], b[:1])).all()


def test_entropy_by_hand() -> None:
    maps = np.zeros((5, 2, 2), np.float32)
    maps[0], maps[1, 0, 0], maps[2, 0] = 3, -2, (1, -1)
    maps[4, 0, 0] = np.nan
    np.testing.assert_allclose(entropy(maps), [1, 0, 0.5, np.nan, np.nan])
    assert np.isnan(entropy(np.ones((1, 1, 1), np.float32))).all()
    found = entropy(random_maps((1, 40, 40)))  # 1 - (log 2 - 1/2) / log 1600 in expectation
    np.testing.assert_allclose(found, 1 - (np.log(2) - 0.5) / np.log(1600), atol=2e-3)


def test_mass_inside_a_box_by_hand_and_of_an_even_spread_is_its_share_of_the_area() -> None:
    masks = boxes(np.array([[0, 1, 2, 3], [1, 0, 3, 1]]), (3, 4))
    assert masks.sum(axis=(1, 2)).tolist() == [4, 2]
    assert masks[0].tolist() == [[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    maps = np.zeros((2, 3, 4), np.float32)
    maps[0, 0, 0], maps[0, 1, 2], maps[1, 2, 0] = 3, -1, 5
    np.testing.assert_allclose(mass_inside(maps, masks), [0.25, 1])
    np.testing.assert_allclose(mass_inside(np.full((2, 3, 4), 7, np.float32), masks), masks.mean(axis=(1, 2)))
    assert np.isnan(mass_inside(np.zeros_like(maps), masks)).all()


# ---- what has no number, and errors ----------------------------------------------------------------------------------


def test_maps_that_order_nothing_have_no_numbers_and_the_others_keep_theirs() -> None:
    maps = random_maps((5, 9, 7))
    alone = maps.copy()
    maps[0], maps[1, 2, 2] = 0.3, np.inf
    network = TorchNetwork(small_cnn())

    def numbers(of: Float32) -> list[Float64]:
        shares, deletion, insertion = perturbation_curves(network, images(), CLASSES, of)
        others = average_drop(network, images(), CLASSES, of), faithfulness_correlation(network, images(), CLASSES, of)
        return [area(shares, deletion), area(shares, insertion), *others]

    for found, expected in zip(numbers(maps), numbers(alone)):
        assert np.isnan(found).tolist() == [True, True, False, False, False]
        np.testing.assert_array_equal(found[2:], expected[2:])


@pytest.mark.parametrize("weight", [np.nan, np.inf, 1e38])
def test_a_network_that_diverged_has_no_numbers(weight: float) -> None:
    net = linear()
    nn.init.constant_(net[1].weight, weight)
    net = nn.Sequential(nn.Hardtanh(0.5, 1), net)  # of inputs above zero, whose sum is infinite
    network, maps = TorchNetwork(net), random_maps((5, 9, 7))
    _, deletion, insertion = perturbation_curves(network, images(), CLASSES, maps)
    for found in (deletion, insertion, average_drop(network, images(), CLASSES, maps), faithfulness_correlation(network, images(), CLASSES, maps)):
        assert np.isnan(found).all()


def test_beside_a_logit_that_is_not_finite_no_probability_is_a_number() -> None:
    net = linear()
    with torch.no_grad():
        net[1].bias[3] = np.inf
    _, deletion, insertion = perturbation_curves(TorchNetwork(net), images(), CLASSES, random_maps((5, 9, 7)))
    assert np.isnan(deletion).all()
    assert np.isnan(insertion).all()


def test_maps_that_are_not_finite_have_no_sensitivity() -> None:
    net = linear()
    nn.init.constant_(net[1].weight, np.inf)
    assert np.isnan(sensitivity(TorchNetwork(net), images(), CLASSES, gradient)).all()


def test_what_cannot_be_is_refused() -> None:
    network, maps = TorchNetwork(linear()), random_maps((5, 9, 7))
    given = network, images(), CLASSES
    for number in (perturbation_curves, average_drop, faithfulness_correlation):
        with pytest.raises(ValueError, match=r"maps have shape \(5, 4, 3\); expected \(5, 9, 7\), one for each at its resolution; see"):
            number(*given, maps[:, :4, :3])
    with pytest.raises(ValueError, match="perturbation_curves was given steps=0; expected at least 1"):
        perturbation_curves(*given, maps, steps=0)
    with pytest.raises(ValueError, match=r"subsets=1 and share=0.2; expected at least 2, and a share between 0 and 1"):
        faithfulness_correlation(*given, maps, subsets=1)
    with pytest.raises(ValueError, match="share=1"):
        faithfulness_correlation(*given, maps, share=1)
    with pytest.raises(ValueError, match=r"sensitivity was given radius=-1 and draws=5; expected a radius of at least 0 and at least one draw"):
        sensitivity(*given, gradient, radius=-1)
    with pytest.raises(ValueError, match="draws=0"):
        sensitivity(*given, gradient, draws=0)
    with pytest.raises(ValueError, match=r"masks have shape \(5, 2, 2\); expected \(5, 9, 7\)"):
        mass_inside(maps, np.zeros((5, 2, 2)))
    with pytest.raises(ValueError, match=r"masks hold values from 0.0 to 255.0; expected 0 \(outside\) to 1"):
        mass_inside(maps, np.where(maps > 0.5, 255, 0))
    with pytest.raises(ValueError, match=r"boxes have shape \(4,\); expected \(n, 4\): top, left, bottom, right"):
        boxes(np.array([0, 0, 1, 1]), (3, 4))
    for wrong in ([0, 0, 0, 1], [0, 0, 4, 1], [0, 3, 1, 5], [-1, 0, 1, 1]):
        with pytest.raises(ValueError, match=r"without a pixel, or beyond the image: expected 0 <= top < bottom <= 3, 0 <= left < right <= 4"):
            boxes(np.array([wrong]), (3, 4))
