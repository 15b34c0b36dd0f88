"""Laws of the torch networks: their sizes are the published ones and their parts compute what the papers say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from netlapse.models.torch import Attention, BasicBlock, PatchEmbedding, TransformerBlock, cnn, mlp, resnet18, transformer

CONF = Path(__file__).resolve().parent.parent / "conf" / "model"
TINY: dict[str, Callable[..., nn.Module]] = {
    "mlp": lambda shape, k: mlp(shape, k, hidden=(8,), dropout=0.0),
    "cnn": lambda shape, k: cnn(shape, k, channels=(4, 6), hidden=8),
    "resnet18": lambda shape, k: resnet18(shape, k, width=2),
    "transformer": lambda shape, k: transformer(shape, k, width=8, depth=2, heads=2, patch=2),
}


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3), (8, 12, 2)])
def test_every_network_gives_one_logit_per_class(name: str, shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    h, w, c = shape
    logits = TINY[name](shape, 7).eval()(torch.randn(5, c, h, w))
    assert logits.shape == (5, 7)
    assert (logits < 0).any()  # logits, not probabilities


@pytest.mark.parametrize("name", TINY)
def test_every_parameter_is_learnt(name: str) -> None:
    torch.manual_seed(0)
    network = TINY[name]((8, 8, 1), 3)
    nn.functional.cross_entropy(network(torch.rand(4, 1, 8, 8)), torch.tensor([0, 1, 2, 0])).backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in network.parameters())


@pytest.mark.parametrize("name", TINY)
def test_no_module_is_called_twice_in_one_pass(name: str) -> None:
    """Otherwise one name would stand for two activations."""
    network = TINY[name]((8, 8, 1), 3)
    calls: dict[str, int] = {}
    for path, module in network.named_modules():
        module.register_forward_hook(lambda *_, path=path: calls.update({path: calls.get(path, 0) + 1}))
    network(torch.rand(2, 1, 8, 8))
    assert calls == {path: 1 for path, _ in network.named_modules()}


def test_resnet18_has_the_parameters_published_for_cifar10() -> None:
    assert parameters(resnet18((32, 32, 3), 10)) == 11_173_962  # kuangliu/pytorch-cifar


def test_mlp_has_the_parameters_counted_by_hand() -> None:
    assert parameters(mlp((28, 28, 1), 10)) == 785 * 512 + 513 * 256 + 257 * 10
    assert parameters(mlp((20,), 3, hidden=(5,))) == 21 * 5 + 6 * 3


def test_cnn_has_the_parameters_counted_by_hand() -> None:
    blocks = 9 * (1 * 32 + 32 * 64 + 64 * 128) + 2 * (32 + 64 + 128)
    assert parameters(cnn((28, 28, 1), 10)) == blocks + (3 * 3 * 128 + 1) * 128 + 129 * 10


def test_transformer_has_the_parameters_counted_by_hand() -> None:
    d, t = 64, 49
    block = 2 * 2 * d + (d + 1) * 3 * d + (d + 1) * d + (d + 1) * 4 * d + (4 * d + 1) * d
    assert parameters(transformer((28, 28, 1), 10)) == (16 + 1) * d + t * d + 4 * block + 2 * d + (d + 1) * 10


def test_mlp_takes_vectors() -> None:
    assert mlp((20,), 3, hidden=(5,))(torch.rand(2, 20)).shape == (2, 3)


def test_cnn_halves_the_image_in_every_block() -> None:
    network = cnn((28, 20, 1), 10, channels=(2, 3, 4))
    shapes = {}
    for name, module in network.named_children():
        module.register_forward_hook(lambda _, __, output, name=name: shapes.update({name: tuple(output.shape[1:])}))
    network(torch.rand(2, 1, 28, 20))
    assert (shapes["conv1"], shapes["pool1"], shapes["pool2"], shapes["pool3"]) == ((2, 28, 20), (2, 14, 10), (3, 7, 5), (4, 3, 2))


def test_resnet_stages_halve_the_image_three_times_and_double_the_channels() -> None:
    network = resnet18((32, 32, 3), 10, width=2)
    shapes = {}
    for name, module in network.named_children():
        module.register_forward_hook(lambda _, __, output, name=name: shapes.update({name: tuple(output.shape[1:])}))
    network(torch.rand(2, 3, 32, 32))
    assert [shapes[f"stage{i}"] for i in (1, 2, 3, 4)] == [(2, 32, 32), (4, 16, 16), (8, 8, 8), (16, 4, 4)]


def test_residual_block_whose_convolutions_are_zero_is_the_relu_of_its_input() -> None:
    block = BasicBlock(3, 3, stride=1).eval()
    nn.init.zeros_(block.conv1.weight)
    nn.init.zeros_(block.conv2.weight)
    inputs = torch.randn(2, 3, 5, 5)
    torch.testing.assert_close(block(inputs), inputs.relu(), rtol=0, atol=0)


def test_patch_embedding_moves_with_the_image_by_whole_patches() -> None:
    torch.manual_seed(0)
    embed = PatchEmbedding((8, 12, 2), width=5, patch=4)
    nn.init.zeros_(embed.position)
    image = torch.randn(1, 2, 8, 12)
    tokens, moved = embed(image).view(2, 3, 5), embed(image.roll((4, 8), (2, 3))).view(2, 3, 5)  # in reading order: rows, then columns
    torch.testing.assert_close(moved, tokens.roll((1, 2), (0, 1)))
    assert not torch.allclose(moved, tokens)


def test_attention_is_the_one_torch_ships() -> None:
    torch.manual_seed(0)
    ours, theirs = Attention(12, heads=3).double(), nn.MultiheadAttention(12, 3, batch_first=True).double()
    theirs.in_proj_weight.data, theirs.in_proj_bias.data = ours.query_key_value.weight.data, ours.query_key_value.bias.data
    theirs.out_proj.load_state_dict(ours.project.state_dict())
    tokens = torch.randn(2, 5, 12, dtype=torch.float64)
    torch.testing.assert_close(ours(tokens), theirs(tokens, tokens, tokens)[0], rtol=1e-12, atol=1e-12)


def test_transformer_block_is_the_pre_norm_one_torch_ships() -> None:
    torch.manual_seed(0)
    ours = TransformerBlock(12, heads=3).double()
    theirs = nn.TransformerEncoderLayer(12, 3, 48, dropout=0.0, activation="gelu", batch_first=True, norm_first=True).double()
    theirs.self_attn.in_proj_weight.data, theirs.self_attn.in_proj_bias.data = (
        ours.attention.query_key_value.weight.data,
        ours.attention.query_key_value.bias.data,
    )
    for name, part in (("self_attn.out_proj", ours.attention.project), ("linear1", ours.dense1), ("linear2", ours.dense2)):
        theirs.get_submodule(name).load_state_dict(part.state_dict())
    tokens = torch.randn(2, 5, 12, dtype=torch.float64)
    torch.testing.assert_close(ours(tokens), theirs(tokens), rtol=1e-12, atol=1e-12)


def test_transformer_without_places_does_not_see_the_order_of_patches() -> None:
    torch.manual_seed(0)
    network = transformer((8, 8, 1), 3, width=8, depth=2, heads=2, patch=4).double()
    image = torch.randn(1, 1, 8, 8, dtype=torch.float64)
    swapped = image.roll(4, dims=3)
    assert not torch.allclose(network(image), network(swapped))
    nn.init.zeros_(network.embed.position)  # type: ignore[union-attr, arg-type]
    torch.testing.assert_close(network(image), network(swapped), rtol=1e-12, atol=1e-12)


def test_attention_has_forward_mode_derivatives() -> None:
    """FullGrad subtracts jvp(m; x, x) from m(x) for whatever is not affine."""
    tokens = torch.randn(2, 5, 12, dtype=torch.float64)
    module = Attention(12, heads=3).double()
    _, derivative = torch.func.jvp(module, (tokens,), (tokens,))
    step = 1e-6
    torch.testing.assert_close(derivative, (module(tokens * (1 + step)) - module(tokens * (1 - step))) / (2 * step), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mlp((8, 8), 10), r"mlp: input_shape is \(8, 8\); expected \(h, w, c\) for images or \(f,\) for vectors"),
        (lambda: mlp((8,), 10, hidden=(0,)), r"mlp: hidden holds \[0\]; expected positive integers"),
        (lambda: mlp((8,), 10, hidden=()), r"mlp: hidden holds \[\]; expected positive integers"),
        (lambda: mlp((8,), 10, hidden=5), "mlp: hidden holds 5; expected positive integers"),
        (lambda: mlp((8,), 10, dropout=1.0), "mlp: dropout is 1.0; expected 0 <= dropout < 1"),
        (lambda: cnn((28,), 10), r"cnn: input_shape is \(28,\); expected \(h, w, c\), an image's; for vectors \(f,\) use mlp"),
        (lambda: cnn((28, 28, 1), 0), r"cnn: n_classes holds \[0\]; expected positive integers"),
        (lambda: cnn((28, 28, 1), 10, dropout=-0.1), "cnn: dropout is -0.1; expected"),
        (lambda: cnn((7, 28, 1), 10), r"cnn: images of 7 x 28 cannot be halved 3 times.*expected at least 8 pixels on a side, or fewer channels"),
        (lambda: resnet18((4, 8, 3), 10), "resnet18: images are 4 x 8; expected at least 8 x 8"),
        (lambda: resnet18((32, 32, 3), 10, width=-1), r"resnet18: width holds \[-1\]; expected positive integers"),
        (
            lambda: transformer((28, 30, 1), 10),
            "transformer: images of 28 x 30 do not divide into patches of 4 x 4; choose a patch that divides both sides",
        ),
        (lambda: transformer((28, 28, 1), 10, width=10), "transformer: width 10 does not divide among 4 heads; choose a multiple of 4"),
    ],
)
def test_networks_say_what_is_wrong(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_every_model_configuration_makes_its_network() -> None:
    names = {path.stem for path in CONF.glob("*.yaml")}
    assert names == {f"{name}{size}" for name in (*TINY, "dbvae") for size in ("", "_tiny")}  # tests/test_dbvae.py has its laws
    for name in sorted(names):
        assert (CONF / f"{name}.yaml").read_text().startswith("# ")
        config = OmegaConf.create({"framework": {"models": "netlapse.models.torch"}, "model": OmegaConf.load(CONF / f"{name}.yaml")})
        network = instantiate(config.model)((28, 28, 1), 10)
        assert network(torch.rand(2, 1, 28, 28)).shape == (2, 10)
        if name.endswith("_tiny"):
            assert parameters(network) < 60_000


@pytest.mark.parametrize(("name", "factory"), [("mlp", mlp), ("cnn", cnn), ("resnet18", resnet18), ("transformer", transformer)])
def test_configured_defaults_are_the_factory_defaults(name: str, factory: Callable[..., nn.Module]) -> None:
    config = OmegaConf.create({"framework": {"models": "netlapse.models.torch"}, "model": OmegaConf.load(CONF / f"{name}.yaml")})
    assert str(instantiate(config.model)((32, 32, 3), 10)) == str(factory((32, 32, 3), 10))


@pytest.mark.long
def test_default_cnn_learns_mnist5000() -> None:
    from netlapse.data import mnist5000

    data = mnist5000()
    torch.manual_seed(0)
    inputs, test = (torch.from_numpy(np.moveaxis(each, -1, 1).copy()) for each in (data.train_inputs, data.test_inputs))
    labels, network, best = torch.from_numpy(data.train_labels), cnn(data.input_shape, data.n_classes), 0.0
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(10):
        network.train()
        for batch in torch.randperm(len(inputs)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(inputs[batch]), labels[batch]).backward()
            optimizer.step()
        network.eval()
        with torch.no_grad():
            best = max(best, float((network(test).argmax(1).numpy() == data.test_labels).mean()))
    assert best > 0.97
