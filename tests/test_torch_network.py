"""A torch module seen as a network of named layers: the right numbers, an error where there are none, and no trace left behind."""

from __future__ import annotations

import random
import warnings
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netlapse.backends.torch import TorchNetwork

# Two runs of the same float32 forward differ only where another memory layout sums in another order: a few units in the last place.
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def images(n: int = 5, side: int = 8, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, side, side, channels)).astype(np.float32)


def vectors(n: int = 6, features: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, features)).astype(np.float32)


def convnet(inplace: bool = False, seed: int = 0) -> nn.Sequential:
    """Convolution, batch norm that has seen data, ReLU, pooling, dropout, a dense layer: (n, 3, 8, 8) -> (n, 4)."""
    torch.manual_seed(seed)
    module = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=inplace), nn.MaxPool2d(2), nn.Dropout(0.5), nn.Flatten(), nn.Linear(54, 4)
    )
    module(torch.randn(16, 3, 8, 8))
    return module


def hooked_literally(module: nn.Module, tensor: Tensor, *names: str) -> dict[str, np.ndarray]:
    """Each layer's output in evaluation mode, cloned by a hook, channels-last where it has four axes."""
    found: dict[str, np.ndarray] = {}
    handles = []
    for name in names:

        def hook(_: nn.Module, __: object, output: Tensor, name: str = name) -> None:
            found[name] = output.detach().clone().numpy()

        handles.append(module.get_submodule(name).register_forward_hook(hook))
    modes = [(m, m.training) for m in module.modules()]
    module.eval()
    with torch.no_grad():
        module(tensor)
    for m, mode in modes:
        m.training = mode
    for handle in handles:
        handle.remove()
    return {name: np.moveaxis(a, 1, -1) if a.ndim == 4 else a for name, a in found.items()}


def channels_first(inputs: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(inputs, -1, 1)))


# ---- activations ----------------------------------------------------------------------------------------------------


def test_activations_are_those_of_a_forward_with_hooks_channels_last() -> None:
    module, inputs = convnet(), images()
    names = [name for name, _ in module.named_children()]
    expected = hooked_literally(module, channels_first(inputs), *names)
    network = TorchNetwork(module)
    found = network.activations(inputs, names)
    assert network.layers == tuple(names)
    for name in names:
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], expected[name], **CLOSE)
    np.testing.assert_allclose(network.outputs(inputs), expected["6"], **CLOSE)


def test_layers_are_in_execution_order_before_and_after_a_forward() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.middle, self.first = nn.Linear(5, 2), nn.Sequential(nn.ReLU(), nn.Linear(4, 5)), nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.middle(self.first(x)))

    network = TorchNetwork(Backwards())
    assert network.layers == ("first", "middle.0", "middle.1", "last")
    network.describe(vectors())
    assert network.layers == ("first", "middle.0", "middle.1", "last")
    assert TorchNetwork(Backwards(), example=vectors()).layers == network.layers


def test_layers_before_a_forward_are_the_calls_of_modules_without_children() -> None:
    network = TorchNetwork(nn.Sequential(Residual(inplace=False), nn.Sequential(nn.Flatten(), nn.Linear(192, 2))))
    leaves = ("0.body.inner.0", "0.body.inner.1", "1.0", "1.1")
    assert network.layers == leaves
    network.describe(images())
    assert network.layers == (*leaves[:2], "0", *leaves[2:])  # the sum, which belongs to no module without children


def test_layers_of_a_module_that_cannot_be_traced_are_known_after_a_forward() -> None:
    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x) if x.sum() > 0 else self.fc(-x)

    network = TorchNetwork(Branch())
    with pytest.raises(RuntimeError, match=r"layers of Branch are known only after a forward.*example=inputs"):
        _ = network.layers
    network.describe(vectors())
    assert network.layers == ("fc",)


class Residual(nn.Module):
    """x + f(x), f nested two deep; the sum is added in place when asked to."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.body = nn.ModuleDict({"inner": nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Tanh())})
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        y = self.body["inner"](x)
        if self.inplace:
            y += x
            return y
        return y + x


@pytest.mark.parametrize("inplace", [False, True])
def test_a_block_is_observed_as_its_sum_and_not_as_its_last_layer(inplace: bool) -> None:
    torch.manual_seed(0)
    module, inputs = nn.Sequential(Residual(inplace), Residual(inplace)), images()
    network = TorchNetwork(module)
    described = {layer.name: layer for layer in network.describe(inputs)}
    found = network.activations(inputs, ["0.body.inner.1", "0"])
    np.testing.assert_allclose(found["0"], found["0.body.inner.1"] + inputs, **CLOSE)
    assert described["0"].role == "block"
    assert described["1"].role == "output"
    assert "observe that one" in network.refused["0.body.inner"]


def test_a_module_used_twice_has_two_layers() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.act = nn.Linear(3, 3), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.act(self.fc(self.act(self.fc(x))))

    torch.manual_seed(0)
    module, inputs = Twice(), vectors()
    network = TorchNetwork(module)
    expected = ("fc", "act", "fc.call2", "act.call2")
    assert network.layers == expected
    found = network.activations(inputs, ["act.call2", "fc.call2", "act", "fc"])
    assert network.layers == expected
    with torch.no_grad():
        first = module.fc(torch.from_numpy(inputs))
        second = module.fc(first.relu())
    for name, value in (("fc", first), ("act", first.relu()), ("fc.call2", second), ("act.call2", second.relu())):
        np.testing.assert_allclose(found[name], value.numpy(), **CLOSE)
    only_second = network.activations(inputs, ["fc.call2"])["fc.call2"]
    np.testing.assert_array_equal(only_second, found["fc.call2"])


def test_a_submodule_named_like_a_second_call_is_refused() -> None:
    class Alike(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = Scaled()

        def forward(self, x: Tensor) -> Tensor:
            return self.block(self.block(x))

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.call2 = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.call2(x) * 2

    with pytest.raises(RuntimeError, match=r"two layers share a name: \['block.call2'\]; rename a submodule"):
        TorchNetwork(Alike(), example=vectors())


class AfterConv(nn.Module):
    """A convolution, then something done in place to its output."""

    def __init__(self, what: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.act, self.fc, self.what = nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Linear(4, 2), what

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.what == "module":
            x = self.act(x)
        elif self.what == "relu_":
            F.relu_(x)
        else:
            x.add_(1.0).mul_(2.0)
        return self.fc(x.mean((2, 3)))


@pytest.mark.parametrize("what", ["module", "relu_", "add_"])
def test_an_inplace_operation_after_a_layer_does_not_reach_what_is_observed(what: str) -> None:
    module, inputs = AfterConv(what), images()
    network = TorchNetwork(module)
    with torch.no_grad():
        conv = np.moveaxis(module.conv(channels_first(inputs)).numpy(), 1, -1)
    assert (conv < 0).any()
    groups = np.array([0, 1, 1, 0, 2])
    np.testing.assert_allclose(network.activations(inputs, ["conv"])["conv"], conv, **CLOSE)
    responses = network.responses(inputs, ["conv"])
    np.testing.assert_allclose(responses.mean["conv"], conv.mean((1, 2)), **CLOSE)
    np.testing.assert_allclose(responses.low["conv"], conv.min((1, 2)), **CLOSE)
    np.testing.assert_allclose(responses.high["conv"], conv.max((1, 2)), **CLOSE)
    sums = network.group_sums(inputs, groups, 3, ["conv"], "keep")["conv"]
    np.testing.assert_allclose(sums, np.stack([conv[groups == g].sum(0) for g in range(3)]), **CLOSE)
    # The gradient by the activation before the operation, which itself is differentiated through.
    a = torch.from_numpy(np.moveaxis(conv, -1, 1).copy()).requires_grad_()
    after = (a + 1.0) * 2.0 if what == "add_" else a.relu()
    (expected,) = torch.autograd.grad(module.fc(after.mean((2, 3)))[:, 1].sum(), a)
    cotangent = np.array([0.0, 1.0])
    np.testing.assert_allclose(network.vjp(inputs, "fc", cotangent, ["conv"])["conv"], np.moveaxis(expected.numpy(), 1, -1), **CLOSE)
    # d sum(conv * conv) / d conv with the cotangent held: the cotangent itself.
    np.testing.assert_allclose(network.vjp(inputs, "conv", conv, ["conv"])["conv"], conv, **CLOSE)


def test_a_dense_layer_overwritten_in_place_is_observed_as_it_was() -> None:
    class Overwritten(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x).fill_(7.0)

    module, inputs = Overwritten(), vectors()
    network = TorchNetwork(module)
    with torch.no_grad():
        expected = module.fc(torch.from_numpy(inputs)).numpy()
    responses = network.responses(inputs, ["fc"])
    for found in (network.activations(inputs, ["fc"])["fc"], responses.mean["fc"], responses.low["fc"], responses.high["fc"]):
        np.testing.assert_allclose(found, expected, **CLOSE)
    np.testing.assert_array_equal(network.outputs(inputs), 7.0)


def test_responses_and_group_sums_are_the_activations_reduced() -> None:
    module, inputs = convnet(inplace=True), images(9)
    network = TorchNetwork(module)
    names = list(network.layers)
    activations, responses = network.activations(inputs, names), network.responses(inputs, names)
    groups = np.array([3, 0, 0, 1, 3, 3, 0, 1, 1])
    kept, means = (network.group_sums(inputs, groups, 5, names, spatial) for spatial in ("keep", "mean"))
    for name in names:
        a = activations[name]
        positions = tuple(range(1, a.ndim - 1))
        np.testing.assert_allclose(responses.mean[name], a.mean(positions), **CLOSE)
        np.testing.assert_allclose(responses.low[name], a.min(positions), **CLOSE)
        np.testing.assert_allclose(responses.high[name], a.max(positions), **CLOSE)
        np.testing.assert_allclose(kept[name], np.stack([a[groups == g].sum(0) for g in range(5)]), **CLOSE)
        np.testing.assert_allclose(means[name], np.stack([a[groups == g].mean(positions).sum(0) for g in range(5)]), **CLOSE)
    assert responses.outputs is not None
    np.testing.assert_allclose(responses.outputs, activations["6"], **CLOSE)


def test_groups_of_another_length_or_range_are_refused() -> None:
    network = TorchNetwork(convnet())
    for groups in (np.zeros(4, int), np.array([0, 1, 2, 0, 0]), np.array([0, -1, 0, 0, 0])):
        with pytest.raises(ValueError, match=r"groups have shape .* expected \(5,\) in 0 to 1"):
            network.group_sums(images(), groups, 2, ["0"])


def test_everything_that_leaves_the_network_is_numpy() -> None:
    network, inputs = TorchNetwork(convnet()), images()
    responses = network.responses(inputs, ["0", "6"])
    left = [
        network.outputs(inputs),
        *network.activations(inputs, ["0", "6"]).values(),
        *[value for field in (responses.mean, responses.low, responses.high) for value in field.values()],
        responses.outputs,
        *network.group_sums(inputs, np.zeros(5, int), 1, ["0", "6"]).values(),
        *network.vjp(inputs, "6", np.float32(1), ["0", "input"]).values(),
    ]
    assert {type(value) for value in left} == {np.ndarray}
    assert {value.dtype for value in left} == {np.dtype(np.float32)}
    for layer in network.describe(inputs):
        assert all(type(size) is int for size in layer.shape)


def test_read_only_inputs_groups_and_cotangents_are_taken_without_a_warning() -> None:
    network, inputs, groups, cotangent = TorchNetwork(convnet()), images(), np.zeros(5, np.int64), np.ones((5, 4), np.float32)
    for array in (inputs, groups, cotangent):
        array.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network.group_sums(inputs, groups, 1, ["0"])
        network.vjp(inputs, "6", cotangent, ["input"])


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_group_sums_do_not_depend_on_the_order_activations_lie_in(order: torch.memory_format) -> None:
    module = nn.Sequential(convnet(), nn.Unflatten(1, (2, 2)), Permute(0, 2, 1)).to(memory_format=order)
    network, inputs, groups = TorchNetwork(module), images(), np.array([0, 2, 2, 0, 1])
    names = ["0.0", "0.2", "0.6", "1", "2"]
    for name, a in network.activations(inputs, names).items():
        expected = np.stack([a[groups == g].sum(axis=0) for g in range(3)])
        np.testing.assert_allclose(network.group_sums(inputs, groups, 3, names, "keep")[name], expected, **CLOSE)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_network_that_writes_into_its_input_leaves_the_probe_as_it_was(channels: int) -> None:
    module, inputs = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(channels, 2, 3)), images(channels=channels)
    kept = inputs.copy()
    network = TorchNetwork(module)
    network.activations(inputs, ["0", "1"])
    network.responses(inputs, ["1"])
    np.testing.assert_array_equal(inputs, kept)


@pytest.mark.parametrize("channels", [1, 3])
def test_inputs_are_computed_in_the_order_a_users_own_are(channels: int) -> None:
    torch.manual_seed(0)
    module, inputs = nn.Sequential(nn.Conv2d(channels, 4, 3), nn.Flatten(), nn.Linear(144, 3)), images(channels=channels)
    tensor = torch.empty(5, channels, 8, 8).copy_(channels_first(inputs))
    network = TorchNetwork(module)
    assert network.to_tensor(inputs).stride() == tensor.stride()  # one channel, moved, would have those of channels-last
    with torch.no_grad():
        np.testing.assert_array_equal(network.outputs(inputs), module(tensor).numpy())


def test_means_of_a_half_precision_network_are_taken_in_float32() -> None:
    module = nn.Sequential(nn.Conv2d(1, 1, 1)).bfloat16()
    inputs = np.random.default_rng(0).uniform(1, 2, (2, 16, 16, 1)).astype(np.float32)
    network = TorchNetwork(module)
    a = network.activations(inputs, ["0"])["0"]
    expected = a.mean((1, 2))
    # bfloat16 keeps 8 bits: a mean rounded to it would be off by up to 2 ** -9, four times as far as this.
    assert np.abs(expected - torch.from_numpy(expected).bfloat16().float().numpy()).max() > 1e-4
    np.testing.assert_allclose(network.responses(inputs, ["0"]).mean["0"], expected, rtol=1e-5)
    np.testing.assert_allclose(network.group_sums(inputs, np.array([0, 1]), 2, ["0"])["0"], expected, rtol=1e-5)


# ---- where the units are --------------------------------------------------------------------------------------------


class Permute(nn.Module):
    def __init__(self, *axes: int) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.axes)


class LayerNorm2d(nn.LayerNorm):
    """As torchvision's and timm's: normalises channels, takes and gives them first."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@pytest.mark.parametrize(
    ("module", "units"),
    [
        (
            nn.Sequential(nn.Conv2d(3, 5, 3), Permute(0, 2, 3, 1), nn.LayerNorm(5), nn.Linear(5, 7), nn.GELU(), Permute(0, 3, 1, 2), nn.ReLU()),
            [5, 5, 5, 7, 7, 7, 7],
        ),
        (nn.Sequential(nn.Conv2d(3, 5, 3), LayerNorm2d(5), nn.GELU()), [5, 5, 5]),
        (nn.Sequential(nn.Conv2d(3, 5, 3), nn.LayerNorm([5, 6, 6]), nn.ReLU()), [5, 5, 5]),
        (
            nn.Sequential(nn.Conv2d(3, 5, 3), nn.GroupNorm(1, 5), nn.Dropout2d(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(20, 3)),
            [5, 5, 5, 5, 20, 3],
        ),
        (nn.Sequential(nn.Conv1d(3, 5, 3), Permute(0, 2, 1), nn.ReLU(), nn.Linear(5, 4), Permute(0, 2, 1), nn.Conv1d(4, 2, 1)), [5, 5, 5, 4, 4, 2]),
    ],
    ids=["convnext", "layer norm of channels", "layer norm of an image", "convolutions", "sequence"],
)
def test_units_are_found_on_whichever_axis_a_layer_puts_them(module: nn.Sequential, units: list[int]) -> None:
    inputs = images() if isinstance(module[0], nn.Conv2d) else images()[:, 0]
    network = TorchNetwork(module)
    described = network.describe(inputs)
    assert [layer.units for layer in described] == units
    found = network.activations(inputs, network.layers)
    assert [found[layer.name].shape for layer in described] == [(5, *layer.shape) for layer in described]


def test_activations_before_and_after_a_permutation_are_the_same_channels_last() -> None:
    network = TorchNetwork(nn.Sequential(nn.Conv2d(3, 5, 3), Permute(0, 2, 3, 1), nn.Identity()))
    found = network.activations(images(), ["0", "1", "2"])
    np.testing.assert_array_equal(found["1"], found["0"])
    np.testing.assert_array_equal(found["2"], found["0"])


def test_a_one_dimensional_convolution_takes_inputs_channels_last() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(20, 3))
    inputs = np.random.default_rng(0).normal(size=(5, 7, 2)).astype(np.float32)  # (n, length, c)
    network = TorchNetwork(module)
    found = network.activations(inputs, ["0", "3"])
    with torch.no_grad():
        conv = module[0](torch.from_numpy(inputs.transpose(0, 2, 1).copy()))
        np.testing.assert_allclose(found["0"], conv.numpy().transpose(0, 2, 1), **CLOSE)
        np.testing.assert_allclose(found["3"], module[3](conv.relu().flatten(1)).numpy(), **CLOSE)
    np.testing.assert_array_equal(network.to_array(network.to_tensor(inputs)), inputs)
    gradient = network.vjp(inputs, "3", np.float32(1), ["input"])["input"]
    assert gradient.shape == inputs.shape


def test_token_ids_stay_integers_and_are_looked_up() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(24, 2))
    tokens = np.random.default_rng(0).integers(0, 10, (5, 6))
    network = TorchNetwork(module)
    assert [layer.shape for layer in network.describe(tokens)] == [(6, 4), (24,), (2,)]
    np.testing.assert_array_equal(network.activations(tokens, ["0"])["0"], module[0].weight.detach().numpy()[tokens])
    by_embedding = network.vjp(tokens, "2", np.array([1.0, 0.0]), ["0"])["0"]
    np.testing.assert_allclose(by_embedding, np.broadcast_to(module[2].weight.detach()[0].numpy().reshape(6, 4), (5, 6, 4)), **CLOSE)
    with pytest.raises(ValueError, match=r"no gradient by token ids.*embedding layer"):
        network.vjp(tokens, "2", np.float32(1), ["input"])


# ---- modules that return several things -----------------------------------------------------------------------------


class Several(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.kind = nn.Linear(3, 2), kind

    def forward(self, x: Tensor) -> object:
        logits = self.fc(x)
        return {"dict": {"loss": logits.sum(), "logits": logits}, "tuple": (logits, x), "nested": {"a": (logits, x)}}[self.kind]


@pytest.mark.parametrize(
    ("kind", "message"), [("dict", r"a dict with keys \['loss', 'logits'\]"), ("tuple", "a tuple of 2"), ("nested", r"a dict with keys \['a'\]")]
)
def test_several_outputs_are_refused_by_name(kind: str, message: str) -> None:
    for ask in (lambda n: n.outputs(vectors()), lambda n: n.activations(vectors(), ["fc"])):
        with pytest.raises(ValueError, match=rf"the network returns {message}.*TorchNetwork\(module, output="):
            ask(TorchNetwork(Several(kind)))


@pytest.mark.parametrize(("kind", "output"), [("dict", "logits"), ("tuple", 0), ("tuple", -2)])
def test_one_of_several_outputs_is_the_logits_when_named(kind: str, output: str | int) -> None:
    module, inputs = Several(kind), vectors()
    network = TorchNetwork(module, output=output)
    with torch.no_grad():
        expected = module.fc(torch.from_numpy(inputs)).numpy()
    np.testing.assert_allclose(network.outputs(inputs), expected, **CLOSE)
    outputs = network.responses(inputs, ["fc"]).outputs
    assert outputs is not None
    np.testing.assert_allclose(outputs, expected, **CLOSE)
    assert [layer.role for layer in network.describe(inputs)] == ["output"]


@pytest.mark.parametrize(("kind", "output"), [("dict", "scores"), ("tuple", 2), ("tuple", "logits")])
def test_an_output_that_is_not_there_is_an_error(kind: str, output: str | int) -> None:
    with pytest.raises(ValueError, match=rf"the network's output has no {output!r}; it is a {kind}"):
        TorchNetwork(Several(kind), output=output).outputs(vectors())


def test_layers_inside_may_return_tuples() -> None:
    class Sequence(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(3, 4, batch_first=True)
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
            self.fc = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            x, _ = self.lstm(x)
            x, _ = self.attention(x, x, x)
            return self.fc(x[:, -1])

    torch.manual_seed(0)
    module = Sequence()
    inputs = np.random.default_rng(0).normal(size=(4, 7, 3)).astype(np.float32)
    network = TorchNetwork(module)
    found = network.activations(inputs, ["lstm", "attention", "fc"])
    with torch.no_grad():
        hidden, _ = module.lstm(torch.from_numpy(inputs))
        attended, _ = module.attention(hidden, hidden, hidden)
    for name, value in (("lstm", hidden), ("attention", attended), ("fc", module.fc(attended[:, -1]).detach())):
        np.testing.assert_allclose(found[name], value.numpy(), **CLOSE)
    assert "its own forward was not called" in network.refused["attention.out_proj"]
    a = attended.clone().requires_grad_()
    (expected,) = torch.autograd.grad(module.fc(a[:, -1])[:, 0].sum(), a)
    np.testing.assert_allclose(network.vjp(inputs, "fc", np.array([1.0, 0.0]), ["attention"])["attention"], expected.numpy(), **CLOSE)


def test_every_layer_of_a_transformer_encoder_is_observed_in_spite_of_its_fused_path() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.1, batch_first=True)
    module = nn.TransformerEncoder(layer, 2)
    inputs = np.random.default_rng(0).normal(size=(3, 5, 4)).astype(np.float32)
    network = TorchNetwork(module)
    found = network.activations(inputs, ["layers.0.linear1", "layers.0.norm2", "layers.1.norm2"])
    module.eval()
    with torch.no_grad():
        first = module.layers[0](torch.from_numpy(inputs))
        np.testing.assert_allclose(found["layers.0.norm2"], first.numpy(), rtol=1e-4, atol=1e-5)  # the fused kernel sums in another order
        np.testing.assert_allclose(found["layers.1.norm2"], module(torch.from_numpy(inputs)).numpy(), rtol=1e-4, atol=1e-5)
    assert found["layers.0.linear1"].shape == (3, 5, 8)
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize("kind", ["named tuple", "list", "dict"])
def test_what_a_layer_inside_returns_keeps_its_type(kind: str) -> None:
    class Pair(NamedTuple):
        index: Tensor
        value: Tensor

    class Inner(nn.Module):
        def forward(self, x: Tensor) -> object:
            index = torch.arange(len(x))
            return {"named tuple": Pair(index, x.tanh()), "list": [index, x.tanh()], "dict": {"index": index, "value": x.tanh()}}[kind]

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Inner()

        def forward(self, x: Tensor) -> Tensor:
            found = self.inner(x)
            return 3 * (found["value"] if isinstance(found, dict) else found.value if isinstance(found, Pair) else found[1])

    network = TorchNetwork(Outer())
    np.testing.assert_allclose(network.activations(vectors(), ["inner"])["inner"], np.tanh(vectors()), **CLOSE)
    np.testing.assert_array_equal(network.vjp(vectors(), "output", np.float32(1), ["inner"])["inner"], 3)


def test_logits_do_not_depend_on_which_layers_are_observed() -> None:
    torch.manual_seed(0)
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2)
    module = nn.Sequential(encoder, nn.Flatten(), nn.Linear(80, 3))
    inputs = np.random.default_rng(0).normal(size=(4, 5, 16)).astype(np.float32)
    network = TorchNetwork(module)
    for layers in (["0.layers.0.linear1"], ["2"], []):
        np.testing.assert_array_equal(network.responses(inputs, layers).outputs, network.outputs(inputs))
    module.eval()
    with torch.no_grad():  # the counterpart: the fused path torch takes where nothing is hooked rounds otherwise
        assert np.abs(module(torch.from_numpy(inputs)).numpy() - network.outputs(inputs)).max() > 0


# ---- where the batch is ---------------------------------------------------------------------------------------------


class Encoder(nn.Module):
    """A recurrent layer and two encoder layers over sequences (n, t, 4), with the batch first inside or second; the same weights either way."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.batch_first = batch_first
        self.rnn = nn.GRU(4, 6, batch_first=batch_first)
        self.drop = nn.Dropout(0.1)
        self.encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(6, 2, 8, batch_first=batch_first, norm_first=True), 2, enable_nested_tensor=False
        )
        self.act, self.fc = nn.Tanh(), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.batch_first else x.transpose(0, 1)
        x = self.drop(self.rnn(x)[0] + 1)  # the sum has no unit axis known from a module
        x = self.act(self.encoder(x) * 2)
        return self.fc(x.mean(1 if self.batch_first else 0))


@pytest.mark.parametrize("length", [1, 2, 3, 7])
@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_a_network_that_puts_the_sequence_first_is_its_batch_first_twin(n: int, length: int) -> None:
    rng = np.random.default_rng(0)
    inputs, groups = rng.normal(size=(n, length, 4)).astype(np.float32), np.arange(n) % 2
    second, first = TorchNetwork(Encoder(batch_first=False)), TorchNetwork(Encoder(batch_first=True))
    assert second.describe(inputs) == first.describe(inputs)
    assert second.refused == first.refused
    names = list(first.layers)
    assert {"rnn", "drop", "encoder.layers.0.linear1", "encoder.layers.1", "act"} <= set(names)
    shapes = {layer.name: (n, *layer.shape) for layer in first.describe(inputs)}
    found, expected = (network.activations(inputs, names) for network in (second, first))
    for name in names:
        assert found[name].shape == shapes[name]
        np.testing.assert_allclose(found[name], expected[name], **CLOSE)
    found_responses, expected_responses = (network.responses(inputs, names) for network in (second, first))
    for field in ("mean", "low", "high"):
        for name in names:
            np.testing.assert_allclose(getattr(found_responses, field)[name], getattr(expected_responses, field)[name], **CLOSE)
    for spatial in ("mean", "keep"):
        found, expected = (network.group_sums(inputs, groups, 3, names, spatial) for network in (second, first))
        for name in names:
            np.testing.assert_allclose(found[name], expected[name], **CLOSE)
    wrt = ["input", "rnn", "encoder.layers.0.linear1", "encoder.layers.0", "act"]
    for layer, cotangent in (("output", np.array([1.0, -2.0])), ("act", rng.normal(size=(n, length, 6)))):
        found, expected = (network.vjp(inputs, layer, cotangent, wrt) for network in (second, first))
        for name in wrt:
            np.testing.assert_allclose(found[name], expected[name], **CLOSE)
            assert np.abs(expected[name]).max() > 0


@pytest.mark.parametrize("axes", [(1, 0, 2, 3), (2, 3, 0, 1), (1, 2, 3, 0), (2, 0, 3, 1)])
def test_a_permutation_that_moves_the_batch_changes_no_answer(axes: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    back = tuple(np.argsort(axes).tolist())
    module = nn.Sequential(nn.Conv2d(3, 3, 3), Permute(*axes), nn.ReLU(), Permute(*back), nn.Conv2d(3, 2, 6), nn.Flatten())
    inputs = images(3, side=8)  # 3 inputs of 3 channels: the batch is no size of its own
    network = TorchNetwork(module)
    assert [layer.shape for layer in network.describe(inputs)] == [(6, 6, 3)] * 4 + [(1, 1, 2), (2,)]
    found = network.activations(inputs, network.layers)
    np.testing.assert_array_equal(found["1"], found["0"])
    np.testing.assert_array_equal(found["2"], np.maximum(found["0"], 0))
    gradients = network.vjp(inputs, "output", np.array([1.0, 2.0]), ["0", "1", "3"])
    np.testing.assert_allclose(gradients["1"], gradients["0"], **CLOSE)
    np.testing.assert_allclose(gradients["1"], gradients["3"] * (found["0"] > 0), **CLOSE)


@pytest.mark.parametrize("axes", [(1, 0, 2, 3), (2, 3, 0, 1), (1, 2, 3, 0), (2, 0, 3, 1)])
def test_units_are_found_behind_a_permutation_that_is_no_module(axes: tuple[int, ...]) -> None:
    class Moved(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.act = nn.Conv2d(3, 3, 3), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.act(self.conv(x).permute(axes)).permute(tuple(np.argsort(axes).tolist())).mean((2, 3))

    found = TorchNetwork(Moved()).activations(images(), ["conv", "act"])
    np.testing.assert_array_equal(found["act"], np.maximum(found["conv"], 0))


@pytest.mark.parametrize("view", [False, True])
def test_units_of_a_sequence_that_comes_first_are_last_even_after_a_convolution(view: bool) -> None:
    class Copied(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.permute(2, 0, 1) * 2

    class Convolved(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.copy, self.act, self.fc = nn.Conv1d(2, 4, 3), Copied(), nn.Tanh(), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            return self.fc(self.act(self.copy(x[:] if view else x) + 1).mean(0))

    inputs = np.random.default_rng(0).normal(size=(5, 7, 2)).astype(np.float32)
    found = TorchNetwork(Convolved()).activations(inputs, ["conv", "copy", "act"])
    np.testing.assert_array_equal(found["copy"], 2 * found["conv"])
    np.testing.assert_allclose(found["act"], np.tanh(2 * found["conv"] + 1), **CLOSE)


@pytest.mark.parametrize("size", [2, 3])
def test_an_axis_that_only_has_the_size_of_the_batch_is_not_taken_for_it(size: int) -> None:
    class Positions(nn.Module):
        """Vectors for `size` places, which no input reaches, and windows, of which every input has `size`."""

        def __init__(self) -> None:
            super().__init__()
            self.place, self.window, self.fc = nn.Embedding(size, 4), nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = x + self.place(torch.arange(size))
            return self.fc(self.window(x.reshape(-1, 4)).reshape(x.shape).mean(1))

    network = TorchNetwork(Positions())
    inputs = np.zeros((size, size, 4), np.float32)
    assert [layer.name for layer in network.describe(inputs)] == ["fc"]
    with pytest.raises(
        ValueError, match=rf"'place' cannot be observed: its output has shape \({size}, 4\) for a batch of 2 and \({size}, 4\) for one of 3"
    ):
        network.activations(inputs, ["place"])
    with pytest.raises(
        ValueError, match=rf"'window' cannot be observed: its output has shape \({2 * size}, 4\) for a batch of 2 and \({3 * size}, 4\)"
    ):
        network.activations(inputs, ["window"])


def test_a_layer_that_runs_for_some_inputs_only_is_refused() -> None:
    class Third(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.extra = nn.Linear(3, 2), nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.fc(x)
            return self.extra(x) if len(x) == 3 else x

    network = TorchNetwork(Third())
    with pytest.raises(ValueError, match=r"'extra' cannot be observed: it ran for one batch of inputs and not for another"):
        network.activations(vectors(), ["extra"])


def test_a_network_that_remembers_its_last_batch_in_a_buffer_is_described() -> None:
    class Remembering(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 2)
            self.register_buffer("last", None)

        def forward(self, x: Tensor) -> Tensor:
            x = self.fc(x)
            self.last = x if self.last is None else self.last + x
            return self.last

    network = TorchNetwork(Remembering())
    assert [layer.name for layer in network.describe(vectors())] == ["fc"]


# ---- wrappers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("called_before", [False, True])
@pytest.mark.parametrize("how", ["root", "submodule", "in place", "forward"])  # the last is what Lightning makes of a compiled root
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_module_is_observed_as_the_eager_one_and_not_compiled_anew(backend: str, how: str, called_before: bool) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.body: nn.Module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout(0.5))
            self.fc = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.body(x).mean((2, 3)))

    compiled = []

    def counting(graph: torch.fx.GraphModule, example: list[Tensor]) -> object:
        compiled.append(graph)
        return torch._dynamo.lookup_backend(backend)(graph, example)

    torch._dynamo.reset()
    inputs = images()
    names = ["body.0", "body.1", "body.2", "body.3", "fc"]
    eager, inner = Net(), Net()
    module: nn.Module = inner
    if how == "root":
        module = torch.compile(inner, backend=counting)
    elif how == "submodule":
        inner.body = torch.compile(inner.body, backend=counting)
    elif how == "forward":
        inner.forward = torch.compile(inner.forward, backend=counting)
    else:
        inner.compile(backend=counting)
    if called_before:
        module(channels_first(inputs))
        eager(channels_first(inputs))
    before = len(compiled)
    modes = [m.training for m in module.modules()]
    network = TorchNetwork(module)
    found, expected = (n.activations(inputs, names) for n in (network, TorchNetwork(eager)))
    assert network.layers == tuple(names)
    for name in names:
        np.testing.assert_allclose(found[name], expected[name], **CLOSE)
    wrt = ["input", "body.0"]
    found, expected = (n.vjp(inputs, "fc", np.float32(1), wrt) for n in (network, TorchNetwork(eager)))
    for name in wrt:
        np.testing.assert_allclose(found[name], expected[name], **CLOSE)
    assert len(compiled) == before
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())
    assert [m.training for m in module.modules()] == modes == [True] * len(modes)
    module(channels_first(inputs))
    assert len(compiled) == 1  # what was compiled in training still is, and nothing was compiled for us


def test_data_parallel_wrappers_are_looked_through() -> None:
    module, inputs = convnet(), images()
    expected = TorchNetwork(module).activations(inputs, ["2"])["2"]
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        wrappers = [nn.DataParallel(module), nn.parallel.DistributedDataParallel(module), torch.compile(nn.DataParallel(module), backend="eager")]
        for wrapper in wrappers:
            network = TorchNetwork(wrapper)
            assert network.module is module
            np.testing.assert_array_equal(network.activations(inputs, ["2"])["2"], expected)
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_a_scripted_module_is_a_type_error_and_a_scripted_submodule_is_refused() -> None:
    scripted = torch.jit.script(nn.Sequential(nn.BatchNorm2d(4), nn.Dropout(0.5)))
    with pytest.raises(TypeError, match=r"scripted module .* cannot be observed.*eager module"):
        TorchNetwork(scripted)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), scripted)
    network, inputs = TorchNetwork(module), images()
    module.train()
    found = network.activations(inputs, ["0"])["0"]
    with torch.no_grad():
        np.testing.assert_allclose(found, np.moveaxis(module[0](channels_first(inputs)).numpy(), 1, -1), **CLOSE)
    with pytest.raises(ValueError, match=r"'1' cannot be observed: a scripted module"):
        network.activations(inputs, ["1"])
    assert all(m.training for m in module.modules())
    assert int(dict(module.named_buffers())["1.0.num_batches_tracked"]) == 0


# ---- refusals -------------------------------------------------------------------------------------------------------


def test_a_module_without_a_forward_is_an_error_that_names_its_submodules() -> None:
    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.head = nn.Linear(3, 2), nn.Linear(2, 2)

    with pytest.raises(ValueError, match=r"Bag has no forward of its own.*\['encoder', 'head'\]"):
        TorchNetwork(Bag()).outputs(vectors())


def test_an_unknown_layer_is_an_error_that_names_what_exists() -> None:
    network = TorchNetwork(convnet())
    inputs = images()
    for ask in (
        lambda: network.activations(inputs, ["conv9"]),
        lambda: network.responses(inputs, ["0", "conv9"]),
        lambda: network.group_sums(inputs, np.zeros(5, int), 1, ["conv9"]),
        lambda: network.vjp(inputs, "conv9", np.float32(1), ["input"]),
        lambda: network.vjp(inputs, "6", np.float32(1), ["conv9"]),
    ):
        with pytest.raises(ValueError, match=r"no layer named \['conv9'\]; this network has \['0', '1', '2', '3', '4', '5', '6'\]"):
            ask()


def test_a_container_that_only_passes_on_its_last_layer_is_refused_and_says_which() -> None:
    network = TorchNetwork(nn.Sequential(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), nn.Linear(4, 2)))
    with pytest.raises(ValueError, match=r"'0' cannot be observed: its output is that of layer '0.1'; observe that one"):
        network.activations(vectors(), ["0"])


@pytest.mark.parametrize("name", ["input", "output"])
def test_names_of_the_networks_own_input_and_output_are_reserved(name: str) -> None:
    class Reserved(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.add_module(name, nn.Linear(3, 3))
            self.last = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.get_submodule(name)(x))

    network = TorchNetwork(Reserved())
    with pytest.raises(ValueError, match=rf"the name '{name}' stands for the network's own {name}; rename the submodule"):
        network.activations(vectors(), [name])
    assert network.layers == ("last",)


def test_a_last_layer_named_output_is_the_output() -> None:
    module = nn.Sequential()
    module.add_module("hidden", nn.Linear(3, 4))
    module.add_module("output", nn.Linear(4, 2))
    network = TorchNetwork(module)
    np.testing.assert_array_equal(network.activations(vectors(), ["output"])["output"], network.outputs(vectors()))


def test_a_module_without_shapes_yet_is_refused_and_not_initialised() -> None:
    module = nn.Sequential(nn.LazyLinear(4), nn.LazyBatchNorm1d())
    with pytest.raises(ValueError, match=r"\['0.weight'.* have no shape yet.*call the module on one batch"):
        TorchNetwork(module).outputs(vectors())
    assert module[0].has_uninitialized_params()


def test_logits_of_another_shape_are_an_error_and_none_in_responses() -> None:
    network, inputs = TorchNetwork(nn.Sequential(nn.Conv2d(3, 4, 3))), images()
    assert network.responses(inputs, ["0"]).outputs is None
    with pytest.raises(ValueError, match=r"the network's output has shape \(5, 4, 6, 6\); expected \(n, k\)"):
        network.outputs(inputs)


def test_a_layer_that_does_not_run_again_is_an_error() -> None:
    class Sometimes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x) if x.sum() > 0 else self.b(x)

    network = TorchNetwork(Sometimes(), example=np.ones((2, 3), np.float32))
    with pytest.raises(RuntimeError, match=r"layers \['a'\] ran when the network was first shown inputs but not this time"):
        network.activations(-np.ones((2, 3), np.float32), ["a"])


def test_a_failed_description_leaves_nothing_behind_for_the_next() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    network = TorchNetwork(module)
    with pytest.raises(RuntimeError):
        network.describe(np.ones((2, 5), np.float32))
    with pytest.raises(RuntimeError):
        network.describe(np.ones((2, 7, 9, 3), np.float32))
    assert [layer.shape for layer in network.describe(vectors())] == [(4,), (2,)]
    assert network.refused == {}


# ---- roles ----------------------------------------------------------------------------------------------------------


def test_roles_tell_nonlinearities_from_what_changes_nothing() -> None:
    class Swish(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * x.sigmoid()

    class DropPath(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 0 if self.training else x

    module = nn.Sequential(
        nn.Linear(3, 4), Swish(), DropPath(), nn.Dropout(), nn.PReLU(), nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Softmax(1), nn.Linear(4, 2)
    )
    roles = [layer.role for layer in TorchNetwork(module).describe(vectors())]
    assert roles == ["weights", "activation", "other", "other", "activation", "weights", "activation", "other", "output"]


# ---- vector-Jacobian products ---------------------------------------------------------------------------------------


def test_vjp_is_the_gradient_by_hand_by_the_input_and_by_layers() -> None:
    module, inputs = convnet(inplace=True), images()
    cotangent = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
    found = TorchNetwork(module).vjp(inputs, "6", cotangent, ["input", "0", "2", "6"])
    conv, norm, _, pool, _, flatten, dense = convnet(inplace=False).eval()
    x = channels_first(inputs).requires_grad_()
    a0 = conv(x)
    a2 = norm(a0).relu()
    a6 = dense(flatten(pool(a2)))
    expected = torch.autograd.grad((a6 * torch.from_numpy(cotangent)).sum(), [x, a0, a2, a6])
    for name, gradient in zip(("input", "0", "2", "6"), expected):
        by_hand = gradient.numpy()
        np.testing.assert_allclose(found[name], np.moveaxis(by_hand, 1, -1) if by_hand.ndim == 4 else by_hand, **CLOSE)
    assert list(found) == ["input", "0", "2", "6"]


def test_vjp_agrees_with_finite_differences() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 2)).double()
    inputs = np.random.default_rng(0).normal(size=(2, 4, 4, 2))
    cotangent = np.random.default_rng(1).normal(size=(2, 2))
    found = TorchNetwork(module).vjp(inputs, "3", cotangent, ["input"])["input"]

    def score(x: np.ndarray) -> float:
        with torch.no_grad():
            return float((module(channels_first(x)).numpy() * cotangent).sum())

    step = 1e-5
    for where in np.ndindex(inputs.shape):
        up, down = inputs.copy(), inputs.copy()
        up[where] += step
        down[where] -= step
        # The central difference is off by step squared, in float64 by rounding / step; the result is rounded to float32.
        assert found[where] == pytest.approx((score(up) - score(down)) / (2 * step), rel=1e-5, abs=1e-7)


def test_output_names_the_logits_and_a_cotangent_broadcasts() -> None:
    network, inputs = TorchNetwork(convnet()), images()
    by_name = network.vjp(inputs, "output", np.array([0.0, 1.0, 0.0, 0.0]), ["input"])["input"]
    by_layer = network.vjp(inputs, "6", np.tile([0.0, 1.0, 0.0, 0.0], (5, 1)), ["input"])["input"]
    np.testing.assert_array_equal(by_name, by_layer)
    assert np.abs(by_name).max() > 0


@pytest.mark.parametrize("shape", [(3,), (5, 3), (7, 5, 4), (4, 5)])
def test_a_cotangent_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    network = TorchNetwork(convnet())
    with pytest.raises(ValueError, match=r"vjp was given a cotangent .* the activation of '6' is \(5, 4\)"):
        network.vjp(images(), "6", np.ones(shape), ["input"])


def test_vjp_by_a_layer_it_does_not_depend_on_is_an_error() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x) + self.b(x)

    network = TorchNetwork(Branches())
    with pytest.raises(ValueError, match=r"the activation of 'a' does not depend on \['b'\]; layers run in the order \['a', 'b'\]"):
        network.vjp(vectors(), "a", np.float32(1), ["input", "b"])
    with pytest.raises(ValueError, match=r"no gradient by 'output', which nothing depends on"):
        network.vjp(vectors(), "a", np.float32(1), ["output"])


def test_vjp_works_where_every_parameter_is_frozen() -> None:
    module, frozen, inputs = convnet(), convnet(), images()
    for parameter in frozen.parameters():
        parameter.requires_grad_(False)
    names = ["0", "2"]
    found, expected = (TorchNetwork(m).vjp(inputs, "6", np.float32(1), names) for m in (frozen, module))
    for name in names:
        np.testing.assert_allclose(found[name], expected[name], **CLOSE)


# ---- do no harm -----------------------------------------------------------------------------------------------------


class Disturbing(nn.Module):
    """Does to its surroundings, even in evaluation mode, everything a forward can."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.frozen, self.drop = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4), nn.Dropout(0.3)
        self.fc = nn.Linear(4, 2)
        self.register_buffer("written", torch.zeros(2))
        self.register_buffer("replaced", torch.zeros(2))
        self.register_buffer("resized", torch.zeros(0))
        self.register_buffer("unseen", torch.zeros(2))
        self.register_buffer("empty", None)
        self.register_buffer("tied", self.written)
        self.fails = False

    def forward(self, x: Tensor) -> Tensor:
        self.written.add_(1.0)
        self.replaced = self.replaced + 1.0
        self.resized.resize_(3).fill_(2.0)
        self.unseen.data.add_(1.0)  # raises no version
        self.empty = torch.ones(2)
        self.register_buffer("new", torch.ones(2))
        torch.rand(3), np.random.rand(3), random.random()  # noqa: NPY002
        x = self.drop(self.frozen(self.norm(self.conv(x)))).relu_()
        if self.fails:
            raise ArithmeticError("in the middle of the forward")
        return self.fc(x.mean((2, 3)))


def disturbing() -> Disturbing:
    """In training, one batch norm frozen, one parameter frozen, and gradients accumulated."""
    torch.manual_seed(0)
    module = Disturbing()
    module.train()
    module.frozen.eval()
    module.conv.bias.requires_grad_(False)
    module.fc.weight.grad = torch.randn(2, 4)
    module.conv.weight.grad = torch.randn(4, 3, 3, 3)
    return module


def trace(module: nn.Module) -> dict[str, object]:
    """Everything about a module and its surroundings that a training could notice, as comparable values."""

    def exact(tensor: Tensor | None) -> object:
        return None if tensor is None else (tuple(tensor.shape), tensor.detach().clone().numpy().tobytes())

    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    numpy_state = np.random.get_state()  # noqa: NPY002
    return {
        "modes": [(name, m.training) for name, m in module.named_modules()],
        "buffers": [(name, key, id(b), exact(b)) for name, m in module.named_modules() for key, b in m._buffers.items()],
        "parameters": [(name, id(p), exact(p), p.requires_grad, id(p.grad), exact(p.grad)) for name, p in module.named_parameters()],
        "hooks": [(name, len(getattr(m, kind))) for name, m in module.named_modules() for kind in hooks],
        "state": list(module.state_dict()),
        "random": (random.getstate(), numpy_state[1].tobytes(), numpy_state[2:], torch.get_rng_state().numpy().tobytes()),
        "gradient modes": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")),
        "fast path": torch.backends.mha.get_fastpath_enabled(),
    }


QUESTIONS = {
    "describe": lambda n: n.describe(images()),
    "outputs": lambda n: n.outputs(images()),
    "activations": lambda n: n.activations(images(), ["conv", "norm"]),
    "responses": lambda n: n.responses(images(), ["conv", "norm"]),
    "group_sums": lambda n: n.group_sums(images(), np.zeros(5, int), 1, ["conv"], "keep"),
    "vjp": lambda n: n.vjp(images(), "fc", np.float32(1), ["input", "norm"]),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_asking_a_network_changes_nothing_a_training_could_notice(question: str) -> None:
    module = disturbing()
    before = trace(module)
    QUESTIONS[question](TorchNetwork(module))
    assert trace(module) == before
    module(torch.randn(2, 3, 8, 8))  # the counterpart: the module itself disturbs all of this
    after = trace(module)
    assert {key for key in before if before[key] != after[key]} == {"buffers", "state", "random"}


@pytest.mark.parametrize("question", QUESTIONS)
def test_an_exception_in_the_middle_of_a_forward_leaves_no_trace_either(question: str) -> None:
    module = disturbing()
    network = TorchNetwork(module)
    if question != "describe":
        network.describe(images())
    module.fails = True
    before = trace(module)
    with pytest.raises(ArithmeticError, match="in the middle"):
        QUESTIONS[question](network)
    assert trace(module) == before
    module.fails = False
    QUESTIONS[question](network)


@pytest.mark.parametrize(
    "context", [torch.inference_mode, torch.no_grad, lambda: torch.autocast("cpu", dtype=torch.bfloat16)], ids=["inference", "no_grad", "autocast"]
)
def test_the_callers_context_changes_no_answer_and_is_left_as_it_was(context: object) -> None:
    inputs = images()
    module = disturbing()
    expected = {question: ask(TorchNetwork(module)) for question, ask in QUESTIONS.items() if question in ("activations", "vjp", "group_sums")}
    outputs = TorchNetwork(module).outputs(inputs)
    with context():  # type: ignore[operator]
        before = trace(module)
        network = TorchNetwork(module)
        for question, values in expected.items():
            for name, value in QUESTIONS[question](network).items():
                np.testing.assert_array_equal(value, values[name])
        np.testing.assert_array_equal(network.outputs(inputs), outputs)
        assert trace(module) == before
    module.zero_grad()
    module(torch.randn(2, 3, 8, 8)).sum().backward()  # nothing caught in inference mode stays behind
    assert module.fc.weight.grad is not None


def test_training_with_and_without_being_asked_gives_the_same_weights() -> None:
    def train(observed: bool) -> list[bytes]:
        torch.manual_seed(3)
        module = convnet(inplace=True)
        optimiser = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
        network = TorchNetwork(module)
        for _ in range(3):
            loss = module(torch.randn(4, 3, 8, 8)).square().sum()
            loss.backward()
            if observed:
                for ask in (
                    lambda: network.responses(images(), ["0", "2"]),
                    lambda: network.vjp(images(), "6", np.float32(1), ["input", "0"]),
                    lambda: network.group_sums(images(), np.zeros(5, int), 1, ["0"], "keep"),
                ):
                    ask()
            optimiser.step()
        return [value.numpy().tobytes() for value in module.state_dict().values()]

    assert train(observed=True) == train(observed=False)


def test_undisturbed_can_be_nested_and_restores_at_the_outermost() -> None:
    module = disturbing()
    network, before = TorchNetwork(module), trace(module)
    with network.undisturbed():
        with network.undisturbed():
            assert not any(m.training for m in module.modules())
        assert not any(m.training for m in module.modules())
        with pytest.raises(KeyError), network.undisturbed():
            raise KeyError
        network.outputs(images())
        assert not any(m.training for m in module.modules())
    assert trace(module) == before
    with pytest.raises(KeyError), network.undisturbed():
        raise KeyError
    assert trace(module) == before


def test_two_networks_of_one_module_leave_it_as_it_was() -> None:
    module = disturbing()
    before = trace(module)
    with TorchNetwork(module).undisturbed():
        TorchNetwork(module).outputs(images())
        assert not module.training
    assert trace(module) == before


def test_tied_buffers_stay_tied_inside() -> None:
    module = disturbing()
    with TorchNetwork(module).undisturbed():
        assert module.tied is module.written


def test_train_and_eval_of_a_users_module_are_not_called() -> None:
    class Merging(nn.Linear):
        def train(self, mode: bool = True) -> Merging:
            raise AssertionError("merges its adapters")

        eval = train  # type: ignore[assignment]

    module = nn.Sequential(Merging(3, 2))
    network = TorchNetwork(module)
    network.activations(vectors(), ["0"])
    network.vjp(vectors(), "0", np.float32(1), ["input"])
    assert module[0].training


def test_dropout_and_batch_norm_are_in_evaluation_mode_while_a_training_module_is_asked() -> None:
    module, inputs = convnet(), images()
    module.train()
    network = TorchNetwork(module)
    np.testing.assert_array_equal(network.outputs(inputs), network.outputs(inputs))
    # In evaluation mode an input's activation does not depend on the others beside it.
    alone = np.concatenate([network.outputs(inputs[i : i + 1]) for i in range(5)])
    np.testing.assert_allclose(network.outputs(inputs), alone, **CLOSE)


def test_a_users_own_hook_stays_and_what_it_returns_is_observed() -> None:
    module = nn.Sequential(nn.Linear(3, 2))
    module[0].register_forward_hook(lambda m, args, output: output * 0 + 5)
    np.testing.assert_array_equal(TorchNetwork(module).activations(vectors(), ["0"])["0"], 5)
    assert len(module[0]._forward_hooks) == 1


def test_each_question_costs_one_forward() -> None:
    module = convnet()
    network = TorchNetwork(module, example=images())
    forwards = []
    module[0].register_forward_hook(lambda *_: forwards.append(1))
    names = list(network.layers)
    for ask in (
        lambda: network.activations(images(), names),
        lambda: network.responses(images(), names),
        lambda: network.group_sums(images(), np.zeros(5, int), 1, names),
        lambda: network.vjp(images(), "output", np.float32(1), ["input", *names]),
    ):
        forwards.clear()
        ask()
        assert len(forwards) == 1
