from __future__ import annotations

import copy
import random
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchcam.methods import activation, gradient

from netlapse.analysis.saliency import grad_cam, saliency
from netlapse.backends.torch import TorchNetwork
from netlapse.backends.torchcam import METHODS, torchcam
from netlapse.types import Float32, ProbeSet, Snapshot

CLASSES = np.array([0, 1, 2, 3, 1])
SINGLE = sorted(set(METHODS) - {"LeGrad", "RefineCAM"})
QUICK = {"SSCAM": {"num_samples": 2}, "ISCAM": {"num_samples": 2}}


def images(n: int = 5, h: int = 8, w: int = 6, c: int = 2, seed: int = 0) -> Float32:
    return np.random.default_rng(seed).normal(size=(n, h, w, c)).astype(np.float32)


def pooled_cnn(*, inplace: bool = True) -> nn.Sequential:
    """Global average pooling into one dense layer, so that every method of torchcam's for CNNs applies."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, padding=1),
        nn.ReLU(inplace),
        nn.Dropout2d(0.5),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 4),
    )
    nn.init.normal_(net[1].running_mean)
    return net


class Block(nn.Module):
    """A transformer block as torchcam's LeGrad asks for it, on tokens (n, t, d)."""

    def __init__(self) -> None:
        super().__init__()
        self.self_attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.dense = nn.Linear(8, 8)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.self_attention(tokens, tokens, tokens, need_weights=False)[0]
        return tokens + self.dense(tokens)


class Transformer(nn.Module):
    """Patches of 2 x 2, two blocks, the mean over tokens, one dense layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(2, 8, 2, stride=2)
        self.blocks = nn.Sequential(Block(), Block())
        self.head = nn.Linear(8, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.score(self.blocks(self.embed(inputs).flatten(2).transpose(1, 2)))

    def score(self, tokens: Tensor) -> Tensor:
        return self.head(tokens.mean(dim=1))


def transformer() -> Transformer:
    torch.manual_seed(0)
    return Transformer()


def project(module: nn.Module, tokens: Tensor) -> Tensor:
    assert isinstance(module, Transformer)
    return module.score(tokens)


def every_method() -> list[tuple[str, nn.Module, dict[str, object]]]:
    cases: list[tuple[str, nn.Module, dict[str, object]]] = [(method, pooled_cnn(), dict(QUICK.get(method, {}))) for method in SINGLE]
    cases.append(("RefineCAM", pooled_cnn(), {"layer": ["2", "5"], "base_method": "LayerCAM"}))
    cases.append(
        ("LeGrad", transformer(), {"layer": ["blocks.0", "blocks.1"], "score_projection": project, "prefix_tokens": 0, "grid_shape": (4, 3)})
    )
    return cases


every = pytest.mark.parametrize(("method", "net", "options"), every_method(), ids=lambda value: value if isinstance(value, str) else "")


def state_of(net: nn.Module) -> list[object]:
    """Everything a training could notice."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs")
    return [
        {name: value.numpy().tobytes() for name, value in net.state_dict().items()},
        [None if p.grad is None else p.grad.numpy().tobytes() for p in net.parameters()],
        [p.requires_grad for p in net.parameters()],
        [module.training for module in net.modules()],
        [getattr(module, "inplace", None) for module in net.modules()],
        [list(getattr(module, name)) for module in net.modules() for name in hooks],
        [sorted(vars(module)) for module in net.modules()],
        torch.get_rng_state().numpy().tobytes(),
        np.random.get_state()[1].tobytes(),  # noqa: NPY002 - the user's, not ours
        random.getstate(),
        torch.is_grad_enabled(),
        torch.backends.mha.get_fastpath_enabled(),
    ]


def in_training(net: nn.Module) -> nn.Module:
    """In training mode but for one frozen module, with one frozen parameter and gradients half accumulated."""
    net.train()
    next(net.children()).training = False
    for index, parameter in enumerate(net.parameters()):
        parameter.requires_grad_(index != 1)
        parameter.grad = torch.ones_like(parameter) if index % 2 else None
    return net


# ---- what is computed ------------------------------------------------------------------------------------------------


def test_every_method_torchcam_has_is_tried_here() -> None:
    exported = {*activation.__all__, *gradient.__all__}
    assert set(METHODS) == exported == {method for method, _, _ in every_method()}


@every
def test_every_method_gives_a_map_per_input_at_the_inputs_resolution(method: str, net: nn.Module, options: dict[str, object]) -> None:
    maps = torchcam(method, **options)(TorchNetwork(net), images(), CLASSES)  # type: ignore[arg-type]
    assert maps.shape == (5, 8, 6)
    assert maps.dtype == np.float32
    assert (maps.max(axis=(1, 2)) > maps.min(axis=(1, 2))).sum() >= 3  # ReLU may leave a map all zero, and does for two
    assert torchcam(method, upsample=False, **options)(TorchNetwork(net), images(), CLASSES).shape[1:] in ((4, 3), (8, 6))  # type: ignore[arg-type]


@every
def test_every_method_explains_a_batch_as_its_inputs_one_by_one(method: str, net: nn.Module, options: dict[str, object]) -> None:
    explain = torchcam(method, **options)  # type: ignore[arg-type]
    network = TorchNetwork(net)
    whole = explain(network, images(), CLASSES)
    single = np.concatenate([explain(network, images()[i : i + 1], CLASSES[i : i + 1]) for i in range(5)])
    # 1e-5 of the largest value: matrix products of other shapes add up in another order.
    np.testing.assert_allclose(whole, single, atol=1e-5 * np.abs(whole).max())
    two = torchcam(method, batch_size=2, **options)(network, images(), CLASSES)  # type: ignore[arg-type]
    np.testing.assert_allclose(whole, two, atol=1e-5 * np.abs(whole).max())
    assert (whole != explain(network, images(), (CLASSES + 1) % 4)).any()


@every
def test_every_method_gives_the_same_bytes_again_whatever_was_drawn_before(method: str, net: nn.Module, options: dict[str, object]) -> None:
    explain, network = torchcam(method, **options), TorchNetwork(net)  # type: ignore[arg-type]
    first = explain(network, images(), CLASSES)
    torch.rand(7)
    assert explain(network, images(), CLASSES).tobytes() == first.tobytes()


@pytest.mark.parametrize("method", ["SmoothGradCAMpp", "SSCAM"])
def test_another_seed_gives_other_noise(method: str) -> None:
    network = TorchNetwork(pooled_cnn())
    first, second = (torchcam(method, seed=seed, num_samples=2)(network, images(), CLASSES) for seed in (0, 1))
    assert (first != second).any()


@pytest.mark.parametrize("upsample", [True, False])
@pytest.mark.parametrize("layer", ["0", "1", "2", "3", "4", "5"])
def test_torchcams_grad_cam_is_ours(layer: str, upsample: bool) -> None:
    network = TorchNetwork(pooled_cnn())
    ours = grad_cam(network, images(), CLASSES, layer=layer, upsample=upsample)
    assert ours.max() > 0
    np.testing.assert_allclose(torchcam("GradCAM", layer=layer, upsample=upsample)(network, images(), CLASSES), ours, atol=1e-5 * ours.max())
    if layer == "5":
        np.testing.assert_array_equal(grad_cam(network, images(), CLASSES, upsample=upsample), ours)


def test_what_we_return_is_what_torchcam_returns_when_called_as_its_manual_says() -> None:
    net = pooled_cnn(inplace=False).eval()
    tensor = torch.tensor(np.moveaxis(images(), -1, 1))
    for method in ("GradCAMpp", "LayerCAM", "XGradCAM", "ScoreCAM", "FinerCAM"):
        with METHODS[method](net, "5") as extractor:
            scores = net(tensor)
            expected = extractor(CLASSES.tolist(), scores, normalized=False)[0].numpy()
        found = torchcam(method, upsample=False)(TorchNetwork(net), images(), CLASSES)
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_cam_is_grad_cam_times_the_number_of_positions_on_a_pooled_network() -> None:
    """Zhou et al., 2016, against Selvaraju et al., 2017, section 3.1; CAM keeps what speaks against the class."""
    network = TorchNetwork(pooled_cnn())
    cam = torchcam("CAM", upsample=False)(network, images(), CLASSES)
    assert cam.min() < 0
    np.testing.assert_allclose(np.maximum(cam, 0), 12 * grad_cam(network, images(), CLASSES, upsample=False), atol=1e-6)


def test_layer_cam_is_its_equation() -> None:
    """Jiang et al., 2021, eqs. 5-6: ReLU(sum over units of ReLU(gradient) * activation), each position by itself."""
    network = TorchNetwork(pooled_cnn())
    activation = network.activations(images(), ["2"])["2"]
    by_unit = network.vjp(images(), "output", np.eye(4, dtype=np.float32)[CLASSES], ["2"])["2"]
    expected = np.maximum((np.maximum(by_unit, 0) * activation).sum(axis=-1), 0)
    np.testing.assert_allclose(torchcam("LayerCAM", layer="2")(network, images(), CLASSES), expected, atol=1e-6)


def test_legrad_is_the_positive_gradient_by_the_attention() -> None:
    """Bousselham et al., 2025: per block ReLU of the gradient of its own score by its attention, averaged over heads, queries and blocks."""
    net = transformer().eval()
    options: dict[str, object] = {"score_projection": project, "prefix_tokens": 0, "grid_shape": (4, 3)}
    found = torchcam("LeGrad", layer="blocks.0", upsample=False, **options)(TorchNetwork(net), images(1), CLASSES[:1])  # type: ignore[arg-type]
    block = net.blocks[0]
    assert isinstance(block, Block)
    attention = block.self_attention
    tokens = net.embed(torch.tensor(np.moveaxis(images(1), -1, 1))).flatten(2).transpose(1, 2)
    query, key, value = (tokens @ attention.in_proj_weight.T + attention.in_proj_bias).view(1, 12, 3, 2, 4).permute(2, 0, 3, 1, 4)
    weights = (query @ key.transpose(-2, -1) / 2).softmax(dim=-1)
    mixed = tokens + attention.out_proj((weights @ value).transpose(1, 2).reshape(1, 12, 8))
    (by_weight,) = torch.autograd.grad(net.score(mixed + block.dense(mixed))[0, int(CLASSES[0])], weights)
    np.testing.assert_allclose(found[0], by_weight.relu().mean(dim=(0, 1, 2)).view(4, 3).numpy(), atol=1e-6)


# CAM is defined for the layer before the pooling only.
PLACES = [(method, layer) for method in SINGLE for layer in ("0", "1", "4", None) if method != "CAM" or layer is None]


@pytest.mark.parametrize(("method", "layer"), PLACES)
def test_an_in_place_operation_after_the_layer_changes_nothing(method: str, layer: str | None) -> None:
    explain = torchcam(method, layer=layer, **QUICK.get(method, {}))  # type: ignore[arg-type]
    kept, overwritten = (explain(TorchNetwork(pooled_cnn(inplace=inplace)), images(), CLASSES) for inplace in (False, True))
    np.testing.assert_array_equal(kept, overwritten)


class Overwriting(nn.Module):
    """In-place operations that are no modules: on the inputs, and after the convolution."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.dense = nn.Conv2d(2, 5, 3), nn.Linear(5, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.dense(self.conv(inputs.sub_(0.5)).relu_().mean(dim=(2, 3)))


class Careful(Overwriting):
    def forward(self, inputs: Tensor) -> Tensor:
        return self.dense(self.conv(inputs - 0.5).relu().mean(dim=(2, 3)))


@pytest.mark.parametrize("method", sorted(set(SINGLE) - {"CAM"}))
def test_an_in_place_operation_that_is_no_module_changes_nothing(method: str) -> None:
    explain = torchcam(method, layer="conv", **QUICK.get(method, {}))  # type: ignore[arg-type]
    np.testing.assert_array_equal(*(explain(TorchNetwork(net), images(), CLASSES) for net in (Overwriting(), Careful())))


def test_a_network_with_every_parameter_frozen_is_explained_all_the_same() -> None:
    net, frozen = pooled_cnn(), pooled_cnn().requires_grad_(False)
    for method in ("GradCAMpp", "SmoothGradCAMpp"):
        np.testing.assert_array_equal(*(torchcam(method)(TorchNetwork(one), images(), CLASSES) for one in (net, frozen)))


@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("method", ["GradCAM", "SmoothGradCAMpp", "ScoreCAM"])
def test_a_caller_who_has_switched_gradients_off_gets_the_same_maps(method: str, guard: type[torch.no_grad]) -> None:
    network = TorchNetwork(pooled_cnn())
    expected = torchcam(method)(network, images(), CLASSES), grad_cam(network, images(), CLASSES)
    with guard():
        found = torchcam(method)(network, images(), CLASSES), grad_cam(network, images(), CLASSES)
    np.testing.assert_array_equal(found, expected)


class Several(nn.Module):
    """A network that returns its logits beside something else."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        return {"features": inputs, "logits": self.net(inputs)}


@pytest.mark.parametrize("method", ["GradCAM", "SmoothGradCAMpp", "ScoreCAM"])
def test_the_logits_are_found_among_several_outputs(method: str) -> None:
    several = TorchNetwork(Several(pooled_cnn()), output="logits")
    np.testing.assert_array_equal(*(torchcam(method)(network, images(), CLASSES) for network in (several, TorchNetwork(pooled_cnn()))))


class ChannelsLast(nn.Module):
    """A dense layer applied to each position, its units last: (n, c, h, w) -> (n, h, w, 5) -> (n, 4)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.mix, self.relu, self.dense = nn.Linear(2, 5), nn.ReLU(), nn.Linear(5, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.dense(self.relu(self.mix(inputs.movedim(1, -1))).square().mean(dim=(1, 2)))


def test_a_layer_that_keeps_its_units_last_is_explained_as_any() -> None:
    network = TorchNetwork(ChannelsLast())
    ours = grad_cam(network, images(), CLASSES)
    np.testing.assert_allclose(torchcam("GradCAM")(network, images(), CLASSES), ours, atol=1e-5 * ours.max())


class Permute(nn.Module):
    def __init__(self, *axes: int) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.permute(self.axes)


def test_a_layer_that_keeps_its_batch_last_is_explained_as_any() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 5, 3), Permute(2, 3, 1, 0), nn.Tanh(), Permute(3, 2, 0, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4)
    )
    network = TorchNetwork(net)
    ours = grad_cam(network, images(), CLASSES, layer="2")
    np.testing.assert_allclose(torchcam("GradCAM", layer="2")(network, images(), CLASSES), ours, atol=1e-5 * ours.max())
    with pytest.raises(
        ValueError, match=r"keep batch and units in different axes, \[\(0, 1\), \(3, 3\)\]; torchcam's RefineCAM combines layers that agree"
    ):
        torchcam("RefineCAM", layer=["0", "2"])(network, images(), CLASSES)


def test_tokens_are_explained_where_they_are_given_their_places() -> None:
    def on_grid(tokens: Tensor) -> Tensor:
        return tokens.transpose(1, 2).unflatten(2, (4, 3))

    network = TorchNetwork(transformer())
    maps = torchcam("LayerCAM", layer="blocks.0", upsample=False, reshape_transform=on_grid)(network, images(), CLASSES)
    by_token = network.vjp(images(), "output", np.eye(4, dtype=np.float32)[CLASSES], ["blocks.0"])["blocks.0"]
    expected = np.maximum((np.maximum(by_token, 0) * network.activations(images(), ["blocks.0"])["blocks.0"]).sum(axis=-1), 0)
    np.testing.assert_allclose(maps, expected.reshape(5, 4, 3), atol=1e-6)


class Twice(nn.Module):
    """One rectifier, called after each of two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.relu, self.dense = nn.Conv2d(2, 3, 3), nn.Conv2d(3, 3, 3), nn.ReLU(inplace=True), nn.Linear(3, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.dense(self.relu(self.second(self.relu(self.first(inputs)))).mean(dim=(2, 3)))


def test_of_a_module_called_twice_the_last_call_is_explained_and_the_first_refused() -> None:
    network = TorchNetwork(Twice())
    ours = grad_cam(network, images(), CLASSES, layer="relu.call2")
    np.testing.assert_allclose(torchcam("GradCAM")(network, images(), CLASSES), ours, atol=1e-5 * ours.max())
    with pytest.raises(ValueError, match=r"keeps a module's last call, 'relu.call2', and cannot explain 'relu'; .*grad_cam can"):
        torchcam("GradCAM", layer="relu")(network, images(), CLASSES)


def test_an_input_whose_logits_are_not_numbers_has_a_map_that_is_not_either() -> None:
    inputs = images()
    inputs[2, 0, 0, 0] = np.nan
    for method in ("GradCAM", "ScoreCAM"):
        assert np.isnan(torchcam(method)(TorchNetwork(pooled_cnn()), inputs, CLASSES)).all(axis=(1, 2)).tolist() == [False, False, True, False, False]


def test_saliency_takes_torchcams_methods_by_their_names() -> None:
    probe = ProbeSet(images(c=2), CLASSES)
    found = saliency(Snapshot(TorchNetwork(pooled_cnn()), probe, 0), None, methods=[torchcam("LayerCAM"), torchcam("RefineCAM", layer=["2", "5"])])
    assert list(found.images) == ["saliency/LayerCAM", "saliency/RefineCAM"]


# ---- do no harm ------------------------------------------------------------------------------------------------------


@every
def test_every_method_leaves_no_trace_on_a_network_in_training(method: str, net: nn.Module, options: dict[str, object]) -> None:
    net = in_training(copy.deepcopy(net))
    before = state_of(net)
    torchcam(method, **options)(TorchNetwork(net), images(), CLASSES)  # type: ignore[arg-type]
    assert state_of(net) == before


class Failing(nn.Module):
    """Passes its input on until it is called for the third time by whoever armed it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = [0]
        self.armed = [False]

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls[0] += self.armed[0]
        if self.calls[0] == 3:
            raise RuntimeError("out of memory")
        return inputs


@every
def test_every_method_leaves_no_trace_when_the_network_fails_in_the_middle(method: str, net: nn.Module, options: dict[str, object]) -> None:
    failing = Failing()
    net = in_training(nn.Sequential(failing, copy.deepcopy(net)))
    network = TorchNetwork(net)
    network.describe(images())
    layers = options.get("layer")
    options = dict(options) | {"layer": [f"1.{name}" for name in layers] if isinstance(layers, list) else None}
    if method == "LeGrad":
        options["score_projection"] = lambda module, tokens: project(module[1], tokens)
    before = state_of(net)
    failing.armed[0] = True
    with pytest.raises(RuntimeError, match="out of memory"):
        torchcam(method, batch_size=1, **options)(network, images(), CLASSES)  # type: ignore[arg-type]
    assert state_of(net) == before


@pytest.mark.parametrize("options", [{"std": -1.0}, {"std": "wide"}])
def test_no_hook_stays_where_torchcams_constructor_fails(options: dict[str, object]) -> None:
    """It registers its hooks first and looks at this option afterwards."""
    net = pooled_cnn()
    before = state_of(net)
    # Which of them depends on whether somebody switched the checks of torch.distributions off, as Lightning does.
    with pytest.raises((ValueError, TypeError, AttributeError, RuntimeError)):
        torchcam("SmoothGradCAMpp", **options)(TorchNetwork(net), images(), CLASSES)  # type: ignore[arg-type]
    assert state_of(net) == before


class Merging(nn.Module):
    """As adapters do: going into evaluation mode by `eval()` changes the weights for good."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def train(self, mode: bool = True) -> Merging:
        raise AssertionError("the mode was changed by a call")

    def forward(self, inputs: Tensor) -> Tensor:
        return self.net(inputs)


@pytest.mark.parametrize(("method", "options"), [("ScoreCAM", {}), ("RefineCAM", {"layer": ["net.2", "net.5"], "base_method": "ScoreCAM"})])
def test_modes_are_set_without_calling_eval(method: str, options: dict[str, object]) -> None:
    torchcam(method, **options)(TorchNetwork(Merging(pooled_cnn())), images(), CLASSES)  # type: ignore[arg-type]


# ---- errors ----------------------------------------------------------------------------------------------------------


def test_a_method_torchcam_does_not_have_is_refused_with_those_it_has() -> None:
    with pytest.raises(ValueError, match=r"torchcam has no method 'GradCAM\+\+'; it has \['CAM', 'FinerCAM', 'GradCAM', 'GradCAMpp'"):
        torchcam("GradCAM++")
    with pytest.raises(ValueError, match=r"torchcam has no method 'Grad'; it has"):
        torchcam("RefineCAM", layer=["a", "b"], base_method="Grad")


def test_an_option_torchcam_does_not_take_is_refused_with_those_it_takes() -> None:
    with pytest.raises(
        ValueError, match=r"torchcam's SmoothGradCAMpp takes no option \['samples'\]; it takes \['num_samples', 'reshape_transform', 'std'\]"
    ):
        torchcam("SmoothGradCAMpp", samples=3)
    with pytest.raises(ValueError, match=r"takes no option \['input_shape'\]; it takes \['reshape_transform'\]"):
        torchcam("GradCAM", input_shape=(1, 2, 3))
    torchcam("RefineCAM", layer=["a", "b"], base_method="SmoothGradCAMpp", std=0.1)


def test_the_wrong_number_of_layers_is_refused() -> None:
    with pytest.raises(ValueError, match=r"RefineCAM multiplies the maps of several layers and was given \['2'\]; name two or more"):
        torchcam("RefineCAM", layer="2")
    with pytest.raises(ValueError, match=r"LayerCAM explains one layer here and was given \['2', '5'\]; name one"):
        torchcam("LayerCAM", layer=["2", "5"])
    for method in ("LeGrad", "RefineCAM"):
        with pytest.raises(ValueError, match=rf"{method} with options \[\] has no default layer; name it"):
            torchcam(method)


def test_a_layer_that_is_unknown_or_not_spatial_is_refused_with_those_that_are() -> None:
    network = TorchNetwork(pooled_cnn())
    with pytest.raises(ValueError, match=r"layer '9': its activation is \(4,\); spatial.* are \['0', "):
        torchcam("LayerCAM", layer="9")(network, images(), CLASSES)
    with pytest.raises(ValueError, match=r"no layer named \['blocks.7'\]; this network has"):
        torchcam("LayerCAM", layer="blocks.7", reshape_transform=torch.clone)(network, images(), CLASSES)
    with pytest.raises(ValueError, match=r"LeGrad explains blocks with a `self_attention`.* and not \['5'\]; this network has \[\]"):
        torchcam("LeGrad", layer="5", score_projection=project)(network, images(), CLASSES)


def test_cam_is_refused_where_the_logits_are_no_dense_layer_of_the_means() -> None:
    squared = nn.Sequential(nn.Conv2d(2, 6, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Softplus(), nn.Linear(6, 4))
    for net, layer in ((squared, None), (pooled_cnn(), "4"), (pooled_cnn(), "2")):
        with pytest.raises(ValueError, match="CAM is defined where the logits are a dense layer of the layer's means over positions"):
            torchcam("CAM", layer=layer)(TorchNetwork(net), images(), CLASSES)
    two = nn.Sequential(nn.Conv2d(2, 6, 3), nn.Flatten(), nn.LazyLinear(5), nn.Linear(5, 4))
    two(torch.zeros(1, 2, 8, 6))
    with pytest.raises(ValueError, match=r"one dense layer and was given fc_layer=None; this network's dense layers are \['2', '3'\]"):
        torchcam("CAM")(TorchNetwork(two), images(), CLASSES)
    named = torchcam("CAM", fc_layer="9")(TorchNetwork(pooled_cnn()), images(), CLASSES)
    np.testing.assert_array_equal(named, torchcam("CAM")(TorchNetwork(pooled_cnn()), images(), CLASSES))


class Pair(nn.Module):
    def forward(self, inputs: Tensor) -> tuple[Tensor, int]:
        return inputs * 2, 1


class ReturnsPair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pair, self.dense = Pair(), nn.Linear(2, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.dense(self.pair(inputs)[0].mean(dim=(2, 3)))


def test_a_layer_that_returns_several_things_is_refused() -> None:
    with pytest.raises(TypeError, match="layers that return one tensor; this Pair returns a tuple"):
        torchcam("GradCAM")(TorchNetwork(ReturnsPair()), images(), CLASSES)


def test_inputs_classes_and_networks_are_checked_as_for_our_own_methods() -> None:
    explain = torchcam("GradCAM")
    with pytest.raises(ValueError, match="saliency maps need images"):
        explain(TorchNetwork(nn.Linear(3, 4)), np.zeros((5, 3), np.float32), CLASSES)
    with pytest.raises(ValueError, match=r"classes hold \[9\]; this network has 4 outputs"):
        explain(TorchNetwork(pooled_cnn()), images(), CLASSES + 8 * (CLASSES == 1))
    with pytest.raises(TypeError, match=r"GradCAM explains torch networks and was given a object; netlapse.analysis.saliency.grad_cam"):
        partial(explain)(object(), images(), CLASSES)  # type: ignore[arg-type]
