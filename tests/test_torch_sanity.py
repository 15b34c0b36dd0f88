"""Parameters drawn anew and inputs shifted, in torch: what they are, and that nothing of it stays."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netlapse.backends.torch import TorchNetwork
from netlapse.models.torch import cnn, resnet18
from tests.test_torch_network import convnet, disturbing, images, trace, vectors


def weights(module: nn.Module) -> dict[str, bytes]:
    return {name: value.detach().clone().numpy().tobytes() for name, value in (*module.named_parameters(), *module.named_buffers())}


def everything(module: nn.Module) -> dict[str, object]:
    """`trace`, and where each parameter lies, its version, and what else the modules hold."""
    places = [(name, p.data_ptr(), p._version) for name, p in module.named_parameters()]
    attributes = [(name, sorted(vars(m)), [id(v) for v in vars(m).values() if isinstance(v, Tensor)]) for name, m in module.named_modules()]
    return {**trace(module), "places": places, "attributes": attributes}


# ---- parameters drawn anew -------------------------------------------------------------------------------------------


def test_nothing_randomised_is_the_network_itself() -> None:
    module, inputs = convnet(), images()
    network = TorchNetwork(module)
    with network.randomised([], 0) as how:
        assert how == {}
        np.testing.assert_array_equal(network.outputs(inputs), TorchNetwork(module).outputs(inputs))
        assert weights(module) == weights(module)


@pytest.mark.parametrize("build", [lambda: cnn((8, 8, 3), 4, channels=(4, 8), hidden=16), lambda: resnet18((8, 8, 3), 4, width=4)])
def test_everything_randomised_is_a_network_initialised_with_that_seed(build: Callable[[], nn.Module]) -> None:
    torch.manual_seed(1)
    module = build()
    module.train()(torch.randn(6, 3, 8, 8))  # statistics of norms that have seen data
    torch.manual_seed(5)
    fresh = build()
    network, before = TorchNetwork(module), weights(module)
    with network.randomised(network.parametrised(images()), 5) as how:
        assert set(how.values()) == {"drawn"}
        assert weights(module) == weights(fresh)
        np.testing.assert_array_equal(network.outputs(images()), TorchNetwork(fresh).outputs(images()))
    assert weights(module) == before != weights(fresh)


def test_what_a_module_gets_depends_on_the_seed_and_not_on_which_others_are_randomised() -> None:
    module = convnet()
    network, found = TorchNetwork(module), {}
    for chosen, seed in ((("6",), 1), (("0", "1", "6"), 1), (("6",), 2)):
        with network.randomised(chosen, seed):
            found[chosen, seed] = weights(module)
    assert found[("6",), 1]["6.weight"] == found[("0", "1", "6"), 1]["6.weight"] != found[("6",), 2]["6.weight"]
    assert found[("6",), 1]["0.weight"] == weights(module)["0.weight"] != found[("0", "1", "6"), 1]["0.weight"]
    assert found[("6",), 1]["1.running_mean"] == weights(module)["1.running_mean"]


def test_modules_are_in_execution_order_and_one_that_is_not_called_follows_its_parent() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.first = nn.Linear(4, 2), nn.Linear(3, 4)
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
            self.scale = nn.Parameter(torch.ones(3))

        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x * self.scale)[:, None]
            return self.last(self.attention(y, y, y)[0][:, 0])

    module = Backwards()
    assert TorchNetwork(module).parametrised(vectors()) == ("", "first", "attention", "attention.out_proj", "last")
    assert TorchNetwork(nn.Sequential(nn.Flatten())).parametrised(vectors()) == ()


def test_a_parameter_that_nothing_initialises_has_its_own_values_in_another_order() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3, 4))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.weight

    class Half(nn.Linear):
        def __init__(self) -> None:
            super().__init__(4, 2)
            self.gain = nn.Parameter(torch.randn(40))

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * self.gain.sum()

    module = nn.Sequential(Own(), Half())
    own, gain = module[0].weight.detach().clone(), module[1].gain.detach().clone()
    with TorchNetwork(module).randomised(["0", "1"], 0) as how:
        assert how == {"0": "permuted", "1": "drawn and permuted"}
        for before, now in ((own, module[0].weight), (gain, module[1].gain)):
            assert not torch.equal(before, now)
            assert torch.equal(before.flatten().sort().values, now.flatten().sort().values)
    assert torch.equal(own, module[0].weight)


def test_a_reset_that_writes_replaces_and_remembers_leaves_no_trace() -> None:
    class Wild(nn.Linear):
        def reset_parameters(self) -> None:
            super().reset_parameters()
            if hasattr(self, "other"):
                self.weight = nn.Parameter(torch.randn(4, 4))
                self.remembered = 1
                self.seen.add_(1.0)
                self.plain.add_(1.0)
                self.other[0].bias.data.fill_(7.0)
                np.random.rand(3)  # noqa: NPY002

    module = nn.Sequential(Wild(4, 4), nn.Linear(4, 4))
    module[0].other = [module[1]]
    module[0].register_buffer("seen", torch.zeros(2))
    module[0].plain = torch.zeros(2)
    before = everything(module)
    with TorchNetwork(module).randomised(["0"], 0):
        assert everything(module) != before
        assert float(module[0].seen[0]) == 1.0
        assert float(module[1].bias.detach().max()) < 1.0
    assert everything(module) == before


def test_tied_weights_stay_tied_and_recurrent_ones_are_found_where_the_layer_keeps_them() -> None:
    tied = nn.Sequential(nn.Linear(3, 3, bias=False), nn.ReLU(), nn.Linear(3, 3, bias=False))
    tied[2].weight = tied[0].weight
    with TorchNetwork(tied).randomised(["2"], 0):
        assert tied[2].weight is tied[0].weight

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.memory = nn.LSTM(3, 4, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.memory(x)[0][:, -1]

    module = Recurrent()
    network, inputs = TorchNetwork(module, channels_first=False), np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    before = network.outputs(inputs)
    torch.manual_seed(4)
    fresh = TorchNetwork(Recurrent(), channels_first=False).outputs(inputs)
    with network.randomised(["memory"], 4):
        np.testing.assert_array_equal(network.outputs(inputs), fresh)
    np.testing.assert_array_equal(network.outputs(inputs), before)


def test_a_graph_that_waits_for_its_backward_still_has_it() -> None:
    module = convnet()
    score = module(torch.randn(2, 3, 8, 8)).sum()
    network = TorchNetwork(module)
    with network.randomised(network.parametrised(images()), 0):
        network.outputs(images())
    score.backward()
    assert module[0].weight.grad is not None


ASKED = {"randomised": lambda n: n.randomised(["conv", "norm", "fc"], 0), "shifted": lambda n: n.shifted(np.ones((8, 8, 3)))}


@pytest.mark.parametrize("context", ASKED)
@pytest.mark.parametrize("ending", ["none", "inside", "forward"])
def test_nothing_stays_of_it_whatever_happens_inside(context: str, ending: str) -> None:
    module = disturbing()
    network = TorchNetwork(module)
    network.describe(images())
    before = everything(module)

    def asked() -> None:
        with ASKED[context](network):
            network.vjp(images(), "fc", np.float32(1), ["input"])
            module.fails = ending == "forward"
            network.outputs(images())
            if ending == "inside":
                raise LookupError

    if ending == "none":
        asked()
    else:
        with pytest.raises(LookupError if ending == "inside" else ArithmeticError):
            asked()
    module.fails = False
    assert everything(module) == before
    with torch.inference_mode(), ASKED[context](network):
        network.vjp(images(), "fc", np.float32(1), ["input"])
    assert everything(module) == before
    np.testing.assert_array_equal(TorchNetwork(module).outputs(images()), network.outputs(images()))


def test_unknown_modules_are_named_with_those_there_are() -> None:
    with (
        pytest.raises(ValueError, match=r"no modules named \['conv9'\]; this network has \['', '0', '1'"),
        TorchNetwork(convnet()).randomised(["conv9"], 0),
    ):
        pass


# ---- shifted inputs --------------------------------------------------------------------------------------------------


class Functional(nn.Module):
    """What a forward does with its input itself, then a convolution."""

    def __init__(self, first: Callable[[Tensor], Tensor], channels: int = 3) -> None:
        super().__init__()
        self.first, self.conv, self.fc = first, nn.Conv2d(channels, 4, 3, padding=1), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.tanh(self.conv(self.first(x))).mean((2, 3)))


class Residual(nn.Module):
    """The input goes around the convolution too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.relu(x + self.conv(x)).mean((2, 3)))


class Gated(nn.Module):
    """A product of the input with what depends on it."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.fc = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc((x * torch.sigmoid(self.gate(x))).mean((2, 3)))


SHIFTABLE: dict[str, Callable[[], nn.Module]] = {
    "padded": lambda: cnn((8, 8, 3), 4, channels=(4, 8), hidden=16),
    "strided": lambda: nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=2, dilation=2, groups=3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4)),
    "circular": lambda: nn.Sequential(nn.Conv2d(3, 6, 3, padding=1, padding_mode="circular"), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4)),
    "dense": lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.Tanh(), nn.Linear(8, 4)),
    "norm first": lambda: nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(192, 4)),
    "normalised": lambda: Functional(lambda x: (x - 0.3) / torch.tensor([0.2, 0.5, 0.7], dtype=x.dtype)[:, None, None]),
    "patches": lambda: Functional(lambda x: x.permute(0, 2, 3, 1).reshape(len(x), 4, 2, 8, 3)[..., 0].permute(0, 2, 1, 3), channels=2),
    "residual": Residual,
    "gated": Gated,
}


@pytest.mark.parametrize("name", SHIFTABLE)
def test_a_shifted_input_is_answered_as_the_input_also_at_padded_borders(name: str) -> None:
    torch.manual_seed(0)
    module = SHIFTABLE[name]().double()
    module(torch.randn(6, 3, 8, 8, dtype=torch.float64))
    inputs = images()
    shift = np.array([0.5, -2.0, 3.0], np.float32) + np.zeros((8, 8, 3), np.float32)
    network = TorchNetwork(module)
    expected = network.outputs(inputs), network.vjp(inputs, "output", np.float32(1), ["input"])["input"]
    moved = network.outputs(inputs + shift)
    with network.shifted(shift):
        found = network.outputs(inputs + shift), network.vjp(inputs + shift, "output", np.float32(1), ["input"])["input"]
    # The inputs themselves are float32, in which input + shift is rounded.
    for one, other in zip(found, expected):
        np.testing.assert_allclose(one, other, rtol=2e-6, atol=2e-6)
    assert np.abs(moved - expected[0]).max() > 1e-2


def test_without_padding_it_is_the_network_whose_first_bias_makes_up_for_the_shift() -> None:
    module, inputs = convnet(), images()
    network = TorchNetwork(module)
    with network.shifted(np.full((8, 8, 3), 2.0)):
        found = network.activations(inputs, ["0", "6"])
    with torch.no_grad():
        module[0].bias -= 2.0 * module[0].weight.sum((1, 2, 3))
    literal = network.activations(inputs, ["0", "6"])
    for layer in ("0", "6"):
        np.testing.assert_allclose(found[layer], literal[layer], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("first", "name"),
    [
        (torch.relu, "relu"),
        (lambda x: x * x, "mul"),
        (lambda x: torch.div(torch.ones_like(x), x), "div"),
        (lambda x: x.mul_(2.0), "mul_"),
        (lambda x: F.max_pool2d(x, 2), "max_pool2d"),
        (lambda x: F.batch_norm(x, None, None, training=True), "batch_norm"),
    ],
)
def test_a_network_that_does_not_begin_affinely_is_refused_by_the_name_of_what_it_does(first: Callable[[Tensor], Tensor], name: str) -> None:
    network = TorchNetwork(Functional(first))
    before = everything(network.module)
    said = rf"the first thing this network does with its inputs is '\w*{name}', which is not affine"
    with pytest.raises(ValueError, match=said), network.shifted(np.ones((8, 8, 3))):
        network.outputs(images())
    assert everything(network.module) == before


def test_token_ids_cannot_be_shifted() -> None:
    network = TorchNetwork(nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 2)))
    with pytest.raises(ValueError, match="token ids cannot be shifted"), network.shifted(np.ones(3, int)):
        network.outputs(np.zeros((2, 3), int))
