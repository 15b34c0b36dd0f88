from __future__ import annotations

import copy
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from netlapse.analysis.saliency import (
    concentration,
    density,
    grad_cam,
    gradient,
    one_hot,
    panel_of,
    resize,
    saliency,
    similarity,
    spatial_layer,
)
from netlapse.backends.torch import TorchNetwork
from netlapse.types import Findings, Float32, Int64, ProbeSet, Snapshot

CLASSES = np.array([0, 1, 2, 3, 1])


def images(n: int = 5, h: int = 9, w: int = 7, c: int = 2, seed: int = 0) -> Float32:
    return np.random.default_rng(seed).normal(size=(n, h, w, c)).astype(np.float32)


def small_cnn(c: int = 2, *, inplace: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(c, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, padding=1),
        nn.ReLU(inplace),
        nn.Dropout2d(0.5),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.LazyLinear(4),
    )
    net(torch.zeros(2, c, 9, 7))
    norm = net[1]
    assert isinstance(norm, nn.BatchNorm2d)
    nn.init.normal_(norm.running_mean)
    return net


def linear(h: int = 9, w: int = 7, c: int = 2) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(h * w * c, 4))


def probe(n: int = 12, classes: int = 4, c: int = 1) -> ProbeSet:
    return ProbeSet(images(n, c=c, seed=3), np.arange(n) % classes, tuple("abcd"[:classes]))


# ---- the input gradient ----------------------------------------------------------------------------------------------


def test_gradient_of_a_linear_network_is_the_size_of_its_weights() -> None:
    net = linear()
    weights = net[1].weight.detach().numpy().reshape(4, 2, 9, 7)
    found = gradient(TorchNetwork(net), images(), CLASSES)
    np.testing.assert_allclose(found, np.abs(weights[CLASSES]).sum(axis=1), rtol=1e-6)


def test_gradient_is_the_finite_difference_of_the_logit() -> None:
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(3 * 3 * 2, 3)).double()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.5, generator=torch.Generator().manual_seed(4))
    network = TorchNetwork(net)
    inputs, step = images(2, 5, 4), 1e-4
    classes = np.array([2, 0])
    expected = np.zeros((2, 5, 4))
    with torch.no_grad():
        for n in range(2):
            for y in range(5):
                for x in range(4):
                    for c in range(2):
                        higher, lower = (torch.tensor(np.moveaxis(inputs[n : n + 1], -1, 1), dtype=torch.float64) for _ in "+-")
                        higher[0, c, y, x] += step
                        lower[0, c, y, x] -= step
                        expected[n, y, x] += abs(float((net(higher) - net(lower))[0, classes[n]]) / (2 * step))
    # 1e-6: the maps are float32, and the central difference is off by step squared.
    np.testing.assert_allclose(gradient(network, inputs, classes), expected, rtol=1e-5, atol=1e-6)


def test_gradient_of_a_network_that_begins_by_overwriting_its_input() -> None:
    torch.manual_seed(0)
    dense = nn.Linear(9 * 7 * 2, 4)
    first, plain = (nn.Sequential(nn.ReLU(inplace=inplace), nn.Flatten(), dense) for inplace in (True, False))
    inputs = images()
    before = inputs.copy()
    np.testing.assert_array_equal(gradient(TorchNetwork(first), inputs, CLASSES), gradient(TorchNetwork(plain), inputs, CLASSES))
    np.testing.assert_array_equal(inputs, before)


# ---- Grad-CAM --------------------------------------------------------------------------------------------------------


def slow_grad_cam(first: nn.Module, rest: nn.Module, inputs: Float32, classes: Int64) -> Float32:
    """Selvaraju et al., 2017, eqs. 1 and 2, written out: one input, unit and position after the other."""
    maps = []
    for image, k in zip(inputs, classes):
        activation = first(torch.tensor(np.moveaxis(image, -1, 0)[None])).detach().requires_grad_()
        (by_unit,) = torch.autograd.grad(rest(activation)[0, int(k)], activation)
        _, units, height, width = activation.shape
        total = np.zeros((height, width))
        for u in range(units):
            alpha = 0.0
            for i in range(height):
                for j in range(width):
                    alpha += float(by_unit[0, u, i, j]) / (height * width)
            for i in range(height):
                for j in range(width):
                    total[i, j] += alpha * activation[0, u, i, j].item()
        maps.append(np.where(total > 0, total, 0))
    return np.stack(maps).astype(np.float32)


@pytest.mark.parametrize("cut", [1, 3, 6])
def test_grad_cam_is_the_papers_equations(cut: int) -> None:
    net = small_cnn(inplace=False).eval()
    found = grad_cam(TorchNetwork(net), images(), CLASSES, layer=str(cut - 1), upsample=False)
    expected = slow_grad_cam(net[:cut], net[cut:], images(), CLASSES)
    assert expected.max() > 0
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_grad_cam_explains_a_layer_before_the_in_place_relu_that_follows_it() -> None:
    kept, overwritten = (TorchNetwork(small_cnn(inplace=inplace)) for inplace in (False, True))
    for layer in ("0", "1", "4"):
        np.testing.assert_array_equal(*(grad_cam(network, images(), CLASSES, layer=layer) for network in (kept, overwritten)))
    assert (grad_cam(kept, images(), CLASSES, layer="4") != grad_cam(kept, images(), CLASSES, layer="5")).any()


def test_upsampled_grad_cam_is_the_resized_one() -> None:
    network = TorchNetwork(small_cnn())
    small, large = (grad_cam(network, images(), CLASSES, upsample=upsample) for upsample in (False, True))
    assert small.shape == (5, 4, 3)
    np.testing.assert_array_equal(large, resize(small, (9, 7)).astype(np.float32))


@pytest.mark.parametrize("method", [gradient, grad_cam])
def test_a_batch_is_explained_as_its_inputs_one_by_one(method: partial[Float32]) -> None:
    network = TorchNetwork(small_cnn())
    whole = method(network, images(), CLASSES)
    single = np.concatenate([method(network, images()[i : i + 1], CLASSES[i : i + 1]) for i in range(5)])
    # 1e-6: matrix products of other shapes add up in another order.
    np.testing.assert_allclose(whole, single, atol=1e-6)
    np.testing.assert_allclose(whole, method(network, images(), CLASSES, batch_size=2), atol=1e-6)
    assert (whole != method(network, images(), (CLASSES + 1) % 4)).any()


class Branches(nn.Module):
    """A convolution declared last and run first, whose rectified activation is computed outside any module."""

    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(3, 4)
        self.second = nn.Conv2d(3, 3, 3, padding=1)
        self.first = nn.Conv2d(2, 3, 3, padding=1)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.output(self.second(self.first(inputs).relu()).relu().mean(dim=(2, 3)))


def test_the_default_layer_is_the_last_spatial_one_to_run_that_is_not_pooling_or_dropout() -> None:
    assert spatial_layer(TorchNetwork(small_cnn()), images()) == "5"
    assert spatial_layer(TorchNetwork(Branches()), images()) == "second"
    assert spatial_layer(TorchNetwork(nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(4 * 3 * 2, 4))), images()) == "0"


# ---- resizing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(9, 7), (4, 3), (13, 20), (1, 1), (2, 31)])
def test_resize_is_torchs_bilinear_interpolation(size: tuple[int, int]) -> None:
    maps = np.random.default_rng(0).random((3, 4, 3))
    expected = nn.functional.interpolate(torch.tensor(maps)[:, None], size, mode="bilinear", align_corners=False)[:, 0]
    np.testing.assert_allclose(resize(maps, size), expected.numpy(), rtol=1e-12)


def test_resize_of_a_map_that_is_infinite_somewhere_is_undefined_without_an_error() -> None:
    maps = np.ones((2, 4, 4))
    maps[0, 1, 1] = np.inf
    found = resize(maps, (9, 7))
    assert not np.isfinite(found[0]).all()
    np.testing.assert_allclose(found[1], 1)


def test_resize_to_the_same_size_changes_nothing_and_a_constant_stays() -> None:
    maps = images(3, 5, 4, 1)[..., 0]
    np.testing.assert_array_equal(resize(maps, (5, 4)), maps)
    np.testing.assert_allclose(resize(np.full((1, 3, 2), 7.0), (11, 5)), 7)


# ---- numbers ---------------------------------------------------------------------------------------------------------


def test_concentration_of_an_even_spread_is_a_tenth_at_any_size() -> None:
    for shape in ((1, 1), (2, 2), (3, 5), (10, 10), (28, 28)):
        np.testing.assert_allclose(concentration(np.full((2, *shape), 0.3, np.float32)), 0.1)


def test_concentration_by_hand() -> None:
    one = np.zeros((1, 4, 5), np.float32)
    one[0, 1, 2] = 3
    four = np.zeros((1, 4, 5), np.float32)
    four[0, 0, :4] = 2, 1, -3, 2  # a tenth of 20 positions are two: (3 + 2) of 8
    ten = np.arange(15, dtype=np.float32).reshape(1, 3, 5)  # one and a half: (14 + 13 / 2) of 105
    np.testing.assert_allclose(concentration(np.concatenate([one, four])), [1, 5 / 8])
    np.testing.assert_allclose(concentration(ten), [20.5 / 105])


def test_a_map_without_mass_has_no_concentration_no_density_and_no_similarity() -> None:
    maps = np.ones((3, 2, 2), np.float32)
    maps[0] = 0
    maps[1, 0, 0] = np.inf
    maps[2, 0, 1] = 2
    assert np.isnan(concentration(maps)).tolist() == [True, True, False]
    assert np.isnan(density(maps)).all(axis=(1, 2)).tolist() == [True, True, False]
    assert np.isnan(similarity(maps, np.roll(maps, 1, axis=2))).tolist() == [True, True, False]


def test_density_has_mean_one_and_does_not_depend_on_the_maps_scale() -> None:
    maps = np.abs(images(4, c=1)[..., 0])
    np.testing.assert_allclose(density(maps).mean(axis=(1, 2)), 1)
    np.testing.assert_allclose(density(maps * 1000), density(maps), rtol=1e-6)


def test_similarity_is_pearsons_correlation() -> None:
    a, b = images(4, c=1, seed=1)[..., 0], images(4, c=1, seed=2)[..., 0]
    expected = [np.corrcoef(x.ravel(), y.ravel())[0, 1] for x, y in zip(a, b)]
    np.testing.assert_allclose(similarity(a, b), expected)
    np.testing.assert_allclose(similarity(a, 3 * a + 1), 1, rtol=1e-6)
    np.testing.assert_allclose(similarity(a, -a), -1)
    # 0.1 has no exact float, so its deviations from its mean are rounding and not zero.
    assert np.isnan(similarity(np.full((1, 9, 7), 0.1, np.float32), a[:1])).all()


# ---- the analysis ----------------------------------------------------------------------------------------------------


def test_panel_takes_the_classes_in_turn_and_passes_over_those_that_run_out() -> None:
    labels = np.array([2, 2, 2, 0, 2, 0, 1])
    assert panel_of(labels, 5).tolist() == [3, 6, 0, 5, 1]
    assert panel_of(labels, 99).tolist() == [3, 6, 0, 5, 1, 2, 4]
    counts = np.bincount(np.arange(1000)[::-1][panel_of(np.arange(1000)[::-1] % 10, 16)] % 10, minlength=10)
    assert counts.max() - counts.min() <= 1


def test_the_panel_is_the_same_whatever_the_network_has_learnt() -> None:
    first, second = (saliency(Snapshot(TorchNetwork(net), probe(), 0), None, panel=6) for net in (linear(c=1), small_cnn(1)))
    for name in ("inputs", "panel", "labels"):
        np.testing.assert_array_equal(first.arrays[name], second.arrays[name])
    np.testing.assert_array_equal(first.arrays["panel"], probe().inputs[first.arrays["inputs"]])


def test_saliency_finds_maps_predictions_and_confidence_of_the_panel() -> None:
    net = small_cnn(1).eval()
    found = saliency(Snapshot(TorchNetwork(net), probe(), 3), None, panel=6)
    with torch.no_grad():
        chances = net(torch.tensor(np.moveaxis(probe().inputs[:6], -1, 1))).softmax(dim=1).numpy()
    assert found.arrays["inputs"].tolist() == [0, 1, 2, 3, 4, 5]
    np.testing.assert_array_equal(found.arrays["predictions"], chances.argmax(axis=1))
    np.testing.assert_allclose(found.arrays["confidence"], chances.max(axis=1), rtol=1e-5)
    network = TorchNetwork(net)
    np.testing.assert_array_equal(found.arrays["maps/gradient"], gradient(network, probe().inputs[:6], probe().labels[:6]))
    np.testing.assert_array_equal(found.arrays["maps/grad_cam"], grad_cam(network, probe().inputs[:6], probe().labels[:6]))
    assert set(found.images) == {"saliency/gradient", "saliency/grad_cam"}
    assert found.scalars["saliency/concentration/gradient"] == pytest.approx(concentration(found.arrays["maps/gradient"]).mean())
    assert not [name for name in found.scalars if "similarity" in name]


def test_the_predicted_class_is_explained_where_that_is_asked_for() -> None:
    snapshot = Snapshot(TorchNetwork(small_cnn(1)), probe(), 0)
    by_label, by_prediction = (saliency(snapshot, None, target=target).arrays for target in ("label", "predicted"))
    np.testing.assert_array_equal(by_label["classes"], by_label["labels"])
    np.testing.assert_array_equal(by_prediction["classes"], by_prediction["predictions"])
    assert (by_label["maps/gradient"] != by_prediction["maps/gradient"]).any()


def test_similarity_is_to_the_maps_of_the_checkpoint_before() -> None:
    net = small_cnn(1)
    first = saliency(Snapshot(TorchNetwork(net), probe(), 0), None)
    again = saliency(Snapshot(TorchNetwork(net), probe(), 1), first)
    assert again.scalars["saliency/similarity/gradient"] == pytest.approx(1)
    other = copy.deepcopy(net)
    nn.init.normal_(other[9].weight, generator=torch.Generator().manual_seed(9))
    changed = saliency(Snapshot(TorchNetwork(other), probe(), 1), first)
    expected = similarity(changed.arrays["maps/gradient"], first.arrays["maps/gradient"]).mean()
    assert changed.scalars["saliency/similarity/gradient"] == pytest.approx(expected)
    assert expected < 0.99


def test_there_is_no_similarity_to_maps_of_other_inputs_or_another_size() -> None:
    snapshot = Snapshot(TorchNetwork(small_cnn(1)), probe(), 1)
    other = ProbeSet(probe().inputs + 1, probe().labels)
    elsewhere = saliency(Snapshot(snapshot.network, other, 0), None)
    smaller = saliency(snapshot, None, methods={"grad_cam": partial(grad_cam, upsample=False)})
    for previous in (elsewhere, smaller):
        assert "saliency/similarity/grad_cam" not in saliency(snapshot, previous).scalars


def test_a_network_that_answers_everything_alike_has_blank_maps_and_undefined_numbers() -> None:
    net = linear(c=1)
    nn.init.zeros_(net[1].weight)
    snapshot = Snapshot(TorchNetwork(net), probe(), 1)
    found = saliency(snapshot, saliency(snapshot, None))
    assert found.scalars["saliency/blank/gradient"] == 1
    assert np.isnan(found.scalars["saliency/concentration/gradient"])
    assert np.isnan(found.scalars["saliency/similarity/gradient"])


@pytest.mark.parametrize("target", ["label", "predicted"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_input_whose_logits_are_not_finite_has_no_prediction_and_no_map_and_says_so(
    value: float, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[list[str], list[str]]] = []

    def strip(inputs: Float32, maps: Float32, captions: list[str], limit: float, title: str, *, missing: list[str]) -> np.ndarray:
        drawn.append((captions, missing))
        assert np.isnan(maps).all(axis=(1, 2)).tolist() == [False, True, False, False]
        return np.zeros((1, 1, 3), np.uint8)

    class Overflowing(nn.Module):
        """A second logit that is not finite for the brightest inputs."""

        def __init__(self) -> None:
            super().__init__()
            self.net = linear(c=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            bright = (x.mean((1, 2, 3)) > 5)[:, None]
            return torch.where(bright & (torch.arange(4) == 1), value, self.net(x))

    some = probe()
    inputs = np.array(some.inputs)
    inputs[1] += 10
    shot = Snapshot(TorchNetwork(Overflowing()), ProbeSet(inputs, some.labels, some.class_names), 0)
    whole = saliency(shot, None, panel=4, target=target)
    assert "saliency/gradient" in whole.images
    monkeypatch.setattr("netlapse.analysis.saliency.analysis.saliency_strip", strip)
    found = saliency(shot, whole, panel=4, target=target)
    assert (found.arrays["predictions"] == -1).tolist() == np.isnan(found.arrays["confidence"]).tolist() == [False, True, False, False]
    assert np.isnan(found.arrays["maps/gradient"]).all(axis=(1, 2)).tolist() == [False, True, False, False]
    assert np.isfinite(found.scalars["saliency/similarity/gradient"])  # of the others
    assert found.scalars["saliency/blank/gradient"] == 0
    assert drawn[0][0][1] == "b -> not finite"
    assert drawn[0][1][1] == "not finite"


def test_maps_that_are_zero_and_maps_that_are_not_finite_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    reasons: list[list[str]] = []

    def method(network: object, inputs: Float32, classes: Int64) -> Float32:
        maps = np.ones(inputs.shape[:3], np.float32)
        maps[0], maps[1, 0, 0], maps[2, 0, 0] = 0, np.nan, np.inf
        return maps

    monkeypatch.setattr(
        "netlapse.analysis.saliency.analysis.saliency_strip", lambda *_, missing: reasons.append(missing) or np.zeros((1, 1, 3), np.uint8)
    )
    saliency(Snapshot(TorchNetwork(linear(c=1)), probe(), 0), None, methods={"m": method}, panel=4)
    assert reasons[0][:3] == ["zero", "not finite", "not finite"]


@pytest.mark.parametrize("weights", [np.nan, np.inf, 1e38])
def test_saliency_of_a_network_that_diverged_is_drawn(weights: float) -> None:
    net = small_cnn(1)
    with torch.no_grad():
        next(module for module in net.modules() if isinstance(module, nn.Conv2d)).weight.fill_(weights)
        net[-1].weight.mul_(weights)
    snapshot = Snapshot(TorchNetwork(net), probe(), 1)
    found = saliency(snapshot, saliency(snapshot, None))
    assert np.isnan(found.scalars["saliency/concentration/grad_cam"])
    assert np.isnan(found.scalars["saliency/similarity/gradient"])
    assert set(found.images) == {"saliency/gradient", "saliency/grad_cam"}


def test_probes_of_one_input_and_with_empty_classes_are_explained() -> None:
    for some in (ProbeSet(probe().inputs[:1], np.array([2]), tuple("abcd")), ProbeSet(probe().inputs, np.full(12, 3), tuple("abcd"))):
        snapshot = Snapshot(TorchNetwork(small_cnn(1)), some, 0)
        found = saliency(snapshot, saliency(snapshot, None))
        assert np.isfinite(found.arrays["maps/gradient"]).all()


def test_a_dense_network_over_images_is_explained_by_its_gradient_alone() -> None:
    found = saliency(Snapshot(TorchNetwork(linear(c=1)), probe(), 0), None)
    assert [name for name in found.arrays if name.startswith("maps/")] == ["maps/gradient"]


def test_the_same_network_gives_the_same_bytes() -> None:
    first, second = (saliency(Snapshot(TorchNetwork(small_cnn(1)), probe(), 0), None) for _ in range(2))
    for name in first.arrays:
        assert first.arrays[name].tobytes() == second.arrays[name].tobytes()
    for name in first.images:
        assert first.images[name].tobytes() == second.images[name].tobytes()


def test_methods_go_by_their_key_or_their_own_name() -> None:
    snapshot = Snapshot(TorchNetwork(small_cnn(1)), probe(), 0)
    early = partial(grad_cam, layer="2", upsample=False)
    assert list(saliency(snapshot, None, methods=[gradient, early]).images) == ["saliency/gradient", "saliency/grad_cam"]
    found = saliency(snapshot, None, methods={"early": early}, panel=3)
    assert list(found.images) == ["saliency/early"]
    assert found.arrays["maps/early"].shape == (3, 9, 7)  # the resolution of layer "2"


def test_the_picture_names_method_layer_and_step(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[list[str], float, str]] = []

    def strip(inputs: Float32, maps: Float32, captions: list[str], limit: float, title: str, *, missing: list[str]) -> np.ndarray:
        assert inputs.shape[:3] == maps.shape
        drawn.append((captions, limit, title))
        return np.zeros((1, 1, 3), np.uint8)

    monkeypatch.setattr("netlapse.analysis.saliency.analysis.saliency_strip", strip)
    found = saliency(Snapshot(TorchNetwork(small_cnn(5)), probe(c=5), 7), None, panel=1)
    saliency(Snapshot(TorchNetwork(small_cnn(1)), probe(), 7), None, methods={"early": partial(grad_cam, layer="2", upsample=False)})
    assert [title for _, _, title in drawn] == ["gradient, step 7", "grad_cam, layer 5, step 7", "early, layer 2, step 7"]
    prediction, confidence = "abcd"[int(found.arrays["predictions"][0])], found.arrays["confidence"][0]
    assert drawn[0][0] == [f"a -> {prediction} {confidence:.0%}"]
    assert {limit for _, limit, _ in drawn} == {6}


# ---- do no harm ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [gradient, grad_cam])
def test_explaining_leaves_no_trace_on_a_network_in_training(method: partial[Float32]) -> None:
    net = small_cnn().train()
    net[1].training = False  # a frozen batch norm
    net[0].weight.requires_grad_(False)
    net[4].weight.grad = torch.ones_like(net[4].weight)
    state = copy.deepcopy(net.state_dict())
    grads = [copy.deepcopy(p.grad) for p in net.parameters()]
    modes, flags = [m.training for m in net], [p.requires_grad for p in net.parameters()]
    rng = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    method(TorchNetwork(net), images(), CLASSES)
    assert all(torch.equal(state[name], value) for name, value in net.state_dict().items())
    assert [m.training for m in net] == modes
    assert [p.requires_grad for p in net.parameters()] == flags
    for parameter, grad in zip(net.parameters(), grads):
        assert parameter.grad is None if grad is None else torch.equal(parameter.grad, grad)
    assert torch.equal(torch.get_rng_state(), rng[0])
    np.testing.assert_array_equal(np.random.get_state()[1], rng[1])  # noqa: NPY002
    assert not [module for module in net if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks]


# ---- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [gradient, grad_cam])
def test_what_is_no_image_is_refused(method: partial[Float32]) -> None:
    vectors = np.zeros((5, 8), np.float32)
    with pytest.raises(ValueError, match=r"saliency maps need images \(n, h, w, c\), at least one, and were given inputs of shape \(5, 8\)"):
        method(TorchNetwork(nn.Linear(8, 4)), vectors, CLASSES)
    with pytest.raises(ValueError, match=r"this probe's inputs have shape \(5, 8\)"):
        saliency(Snapshot(TorchNetwork(nn.Linear(8, 4)), ProbeSet(vectors, CLASSES), 0), None, methods=[method])


def test_classes_of_the_wrong_shape_kind_or_range_are_refused() -> None:
    network = TorchNetwork(linear())
    with pytest.raises(ValueError, match=r"classes have shape \(3,\) and dtype int64; expected \(5,\) integers"):
        one_hot(network, images(), CLASSES[:3])
    with pytest.raises(ValueError, match="dtype float64; expected"):
        one_hot(network, images(), CLASSES.astype(float))
    for wrong in (4, -1):
        with pytest.raises(ValueError, match=rf"classes hold \[{wrong}\]; this network has 4 outputs, so allowed are 0 to 3"):
            one_hot(network, images(), np.array([0, 1, wrong, 2, 3]))


def test_grad_cam_says_which_layers_it_can_explain() -> None:
    with pytest.raises(ValueError, match=r"no layer of this network is spatial.*\{'0': \(126,\), '1': \(4,\)\}; use saliency.gradient"):
        grad_cam(TorchNetwork(linear()), images(), CLASSES)
    network = TorchNetwork(small_cnn())
    with pytest.raises(ValueError, match=r"layer '9': its activation is \(4,\); spatial.* are \['0', '1', '2', '3', '4', '5', '6', '7'\]"):
        grad_cam(network, images(), CLASSES, layer="9")
    with pytest.raises(ValueError, match="layer 'conv9': there is no layer of that name; spatial"):
        grad_cam(network, images(), CLASSES, layer="conv9")


def test_saliency_refuses_arguments_that_cannot_be() -> None:
    snapshot = Snapshot(TorchNetwork(linear(c=1)), probe(), 0)
    with pytest.raises(ValueError, match="target is 'labels'; allowed are 'label' and 'predicted', 'runner_up', and a class: 0 to 3, or one of"):
        saliency(snapshot, None, target="labels")
    with pytest.raises(ValueError, match="a panel of 0 inputs; expected at least 1"):
        saliency(snapshot, None, panel=0)
    with pytest.raises(ValueError, match="given no method; name one"):
        saliency(snapshot, None, methods={})
    with pytest.raises(ValueError, match=r"named \['gradient', 'gradient'\]; give each a name of its own"):
        saliency(snapshot, None, methods=[gradient, partial(gradient, batch_size=1)])
    with pytest.raises(ValueError, match=r"method 'flat' returned maps of shape \(12,\); expected \(12, h, w\)"):
        saliency(snapshot, None, methods={"flat": lambda network, inputs, classes: np.zeros(len(inputs), np.float32)})


def test_there_is_no_similarity_to_a_checkpoint_without_maps() -> None:
    snapshot = Snapshot(TorchNetwork(linear(c=1)), probe(), 5)
    assert "saliency/similarity/gradient" not in saliency(snapshot, Findings()).scalars
