"""Laws of the torch DB-VAE: its loss is the published one, masked input by input, and analyses see a plain classifier with a layer `means`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.utils.data import DataLoader, TensorDataset

from netlapse.analysis.fairness import sampling_weights
from netlapse.analysis.fullgradient import full_gradient
from netlapse.analysis.nap import activation_profiles
from netlapse.analysis.saliency import gradient
from netlapse.backends.torch import TorchNetwork
from netlapse.callbacks.lightning_sampling import AdaptiveSampler, AdaptiveSampling
from netlapse.models.torch_dbvae import DBVAE
from netlapse.training.lightning import Classifier

SMALL = {"channels": (4,), "hidden": (16,), "latent": 3}
SHAPES = [(28, 28, 1), (29, 31, 3), (64, 64, 3), (8, 8, 1), (5, 2, 1), (64,), (1,)]
LABELS = torch.tensor([0, 1, 2, 1, 1, 0])


def made(shape: tuple[int, ...] = (9, 8, 2), k: int = 3, **options: object) -> DBVAE:
    torch.manual_seed(0)
    return DBVAE(shape, k, **{**SMALL, **({"channels": None} if len(shape) == 1 else {}), **options}).double()  # type: ignore[arg-type]


def batch(shape: tuple[int, ...] = (9, 8, 2), n: int = 6) -> Tensor:
    inputs = torch.rand(n, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return inputs.movedim(-1, 1) if len(shape) == 3 else inputs


def noise(n: int = 6, d: int = 3) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


# ---- the network ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("options", [{}, {"channels": (), "hidden": (7, 5)}], ids=["default", "dense"])
def test_the_decoder_gives_inputs_of_any_shape_back(shape: tuple[int, ...], options: dict[str, object]) -> None:
    network, inputs = DBVAE(shape, 4, **options).eval().double(), batch(shape, 2)  # type: ignore[arg-type]
    assert network(inputs).shape == (2, 4)
    codes = network.means(network.encoder(inputs))
    assert codes.shape == (2, 100)
    assert network.decoder(codes).shape == inputs.shape


def test_each_block_halves_height_and_width_rounded_up_and_the_decoder_goes_the_same_way_back() -> None:
    network, shapes = DBVAE((29, 31, 3), 4, channels=(2, 3, 5)), {}
    for name, module in [*network.encoder.named_children(), *network.decoder.named_children()]:
        path = f"{'encoder' if module in network.encoder else 'decoder'}.{name}"
        module.register_forward_hook(lambda _, __, output, path=path: shapes.update({path: tuple(output.shape[1:])}))
    network.decoder(network.means(network.encoder(torch.rand(2, 3, 29, 31))))
    assert [shapes[f"encoder.conv{i}"] for i in (1, 2, 3)] == [(2, 15, 16), (3, 8, 8), (5, 4, 4)]
    assert shapes["decoder.unflatten"] == (5, 4, 4)
    assert [shapes[f"decoder.conv{i}"] for i in (3, 2, 1)] == [(3, 8, 8), (2, 15, 16), (3, 29, 31)]


def test_it_has_the_parameters_counted_by_hand() -> None:
    encoder = 25 * (1 * 12 + 12 * 24 + 24 * 48 + 48 * 72) + 2 * (12 + 24 + 48 + 72) + (2 * 2 * 72 + 1) * 512
    heads = 513 * (100 + 100 + 10)
    decoder = 101 * 512 + 513 * 288 + 25 * (72 * 48 + 48 * 24 + 24 * 12 + 12 * 1) + 48 + 24 + 12 + 1
    assert sum(each.numel() for each in DBVAE((28, 28, 1), 10).parameters()) == encoder + heads + decoder
    assert sum(each.numel() for each in DBVAE((20,), 3, hidden=(5,), latent=2).parameters()) == 21 * 5 + 6 * (2 + 2 + 3) + 3 * 5 + 6 * 20


def test_a_forward_gives_the_logits_and_runs_neither_decoder_nor_log_variances() -> None:
    network, called = made().eval(), set()
    for name, module in network.named_modules():
        module.register_forward_hook(lambda *_, name=name: called.add(name))
    logits = network(batch())
    assert {"means", "output"} <= called
    assert not {name for name in called if name.startswith(("decoder", "log_variances"))}
    torch.testing.assert_close(logits, network.input_losses(batch(), LABELS)[1], rtol=0, atol=0)


# ---- the loss -------------------------------------------------------------------------------------------------------


def literally(network: DBVAE, x: Tensor, y: Tensor, eps: Tensor, vae: set[int], c: tuple[float, float, float], power: int) -> list[float]:
    """Input by input, as it is printed: c1 CE + 1[y in vae] (c2 R + c3 KL)."""
    losses = []
    for image, label, e in zip(x, y.tolist(), eps):
        hidden = network.encoder(image[None])
        mu, s, logits = (part(hidden)[0].detach().numpy() for part in (network.means, network.log_variances, network.output))
        loss = c[0] * (np.log(np.sum(np.exp(logits))) - logits[label])
        if label in vae:
            z = mu + np.sqrt(np.exp(s)) * e.numpy()
            again = network.decoder(torch.from_numpy(z)[None])[0].detach().numpy()
            loss += c[1] * np.mean(np.abs(image.numpy() - again) ** power)
            loss += c[2] * sum(0.5 * (np.exp(b) + a * a - 1 - b) for a, b in zip(mu, s))
        losses.append(float(loss))
    return losses


@pytest.mark.parametrize("shape", [(9, 8, 2), (20,)])
@pytest.mark.parametrize(("reconstruction", "power"), [("absolute", 1), ("squared", 2)])
@pytest.mark.parametrize("vae", [None, [1], [0, 2]])
def test_the_loss_of_each_input_is_the_published_one(shape: tuple[int, ...], reconstruction: str, power: int, vae: list[int] | None) -> None:
    weights = (0.7, 1.3, 0.2)
    options = dict(zip(("c1", "c2", "c3"), weights))
    network = made(shape, reconstruction=reconstruction, vae_classes=vae, **options).eval()
    losses, _, parts = network.input_losses(batch(shape), LABELS, noise=noise())
    expected = literally(network, batch(shape), LABELS, noise(), set(vae or range(3)), weights, power)
    np.testing.assert_allclose(losses.detach().numpy(), expected, rtol=1e-10)
    total = sum(weight * float(parts[name]) for weight, name in zip(weights, ("cross_entropy", "reconstruction", "divergence")))
    assert float(losses.detach().mean()) == pytest.approx(total, rel=1e-12)


def test_the_divergence_is_the_one_of_torchs_normal_distributions() -> None:
    network = made(c1=0.0, c2=0.0, c3=1.0).eval()
    features = network.encoder(batch())
    posterior = Normal(network.means(features), (network.log_variances(features) / 2).exp())
    expected = kl_divergence(posterior, Normal(0.0, 1.0)).sum(dim=1)
    assert float(expected.min().detach()) > 0
    torch.testing.assert_close(network.input_losses(batch(), LABELS)[0], expected, rtol=1e-10, atol=1e-12)


def test_the_usual_weights_are_those_of_mits_course() -> None:
    network = made().eval()
    losses, _, parts = network.input_losses(batch(), LABELS)
    expected = parts["cross_entropy"] + parts["reconstruction"] + 0.0005 * parts["divergence"]
    torch.testing.assert_close(losses.mean(), expected, rtol=1e-12, atol=0)


def test_inputs_of_other_classes_have_cross_entropy_alone_and_teach_decoder_means_and_variances_nothing() -> None:
    network = made(vae_classes=[1]).train()
    others = LABELS != 1
    losses, logits, _ = network.input_losses(batch(), LABELS)
    torch.testing.assert_close(losses[others], nn.functional.cross_entropy(logits[others], LABELS[others], reduction="none"), rtol=0, atol=0)
    losses[others].mean().backward()
    for part in (network.decoder, network.means, network.log_variances):
        assert all(not parameter.grad.any() for parameter in part.parameters() if parameter.grad is not None)
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in [*network.encoder.parameters(), *network.output.parameters()])


def test_every_parameter_is_learnt() -> None:
    network = made().train()
    network.input_losses(batch(), LABELS)[0].mean().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())


def test_the_mask_is_of_inputs_and_the_mean_is_over_all_of_the_batch() -> None:
    """So the VAE's share of the loss is that of its classes' inputs, and its gradient the sum of what each gives."""
    network = made((20,), vae_classes=[1]).eval()
    mine = LABELS == 1
    grads = []
    for inputs, labels in ((batch((20,)), LABELS), (batch((20,))[mine], LABELS[mine])):
        network.zero_grad()
        network.input_losses(inputs, labels)[0].mean().backward()
        grads.append([parameter.grad.clone() for parameter in network.decoder.parameters() if parameter.grad is not None])
    assert grads[0]
    for all_of_it, alone in zip(*grads):
        torch.testing.assert_close(all_of_it, alone * mine.double().mean())


# ---- randomness -----------------------------------------------------------------------------------------------------


def test_nothing_is_drawn_but_the_noise_of_a_training_loss() -> None:
    network = made().eval()
    before = torch.get_rng_state()
    without, at_the_mean = (network.input_losses(batch(), LABELS, noise=given)[0] for given in (None, torch.zeros(6, 3).double()))
    network(batch())
    network.train()(batch())
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(without, at_the_mean)
    torch.manual_seed(5)
    drawn, _, _ = network.train().input_losses(batch(), LABELS)
    torch.manual_seed(5)
    given, _, _ = network.input_losses(batch(), LABELS, noise=torch.randn(6, 3, dtype=torch.float64))
    torch.testing.assert_close(drawn, given, rtol=0, atol=0)
    assert not torch.equal(torch.get_rng_state(), before)


# ---- as a classifier that is trained and observed -------------------------------------------------------------------


def test_it_is_trained_on_its_own_loss_whose_parts_are_logged() -> None:
    network = DBVAE((20,), 3, hidden=(8,), latent=2, c1=0.5, c2=2.0, c3=0.25)
    data = TensorDataset(batch((20,)).float(), LABELS)
    quiet: dict[str, bool] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = pl.Trainer(max_epochs=2, accelerator="cpu", **quiet)  # type: ignore[arg-type]
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    trainer.fit(Classifier(network), DataLoader(data, 3), DataLoader(data, 6))
    assert [name for name, tensor in network.state_dict().items() if torch.equal(tensor, before[name])] == []
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    for part in ("train", "val"):
        expected = 0.5 * logged[f"{part}_cross_entropy"] + 2 * logged[f"{part}_reconstruction"] + 0.25 * logged[f"{part}_divergence"]
        assert logged[f"{part}_loss"] == pytest.approx(expected, rel=1e-5)
    with torch.no_grad():
        losses, logits, _ = network.eval().input_losses(*data.tensors)
    assert logged["val_loss"] == pytest.approx(float(losses.mean()), rel=1e-5)
    assert logged["val_accuracy"] == pytest.approx(float((logits.argmax(1) == LABELS).float().mean()))


def test_adaptive_sampling_draws_by_the_posterior_means() -> None:
    torch.manual_seed(0)
    inputs, labels = torch.rand(60, 1, 8, 8), torch.arange(60) % 2
    network, sampler = DBVAE((8, 8, 1), 2, **SMALL), AdaptiveSampler(60, seed=3)  # type: ignore[arg-type]
    callback = AdaptiveSampling(sampler, TensorDataset(inputs, labels), layer="means", module="network")
    quiet: dict[str, bool] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", callbacks=[callback], **quiet)  # type: ignore[arg-type]
    trainer.fit(Classifier(network), DataLoader(TensorDataset(inputs, labels), 20, sampler=sampler))
    with torch.no_grad():
        means = network.eval().means(network.encoder(inputs)).numpy()
    np.testing.assert_allclose(sampler.weights, sampling_weights(means, labels.numpy()), rtol=1e-6)
    assert np.ptp(sampler.weights) > 0


def test_what_its_vae_learns_is_the_inputs() -> None:
    """Better than answering with the mean of all, which is as far as it gets without a code."""
    torch.manual_seed(0)
    corner = torch.rand(64, 2)
    inputs = torch.cat([corner, 1 - corner, corner * 0.5], dim=1)  # two degrees of freedom
    network, labels = DBVAE((6,), 2, hidden=(32,), latent=2, c1=0.0, reconstruction="squared"), torch.zeros(64, dtype=torch.int64)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(300):
        optimizer.zero_grad()
        network.input_losses(inputs, labels)[0].mean().backward()
        optimizer.step()
    with torch.no_grad():
        error = float(network.eval().input_losses(inputs, labels)[2]["reconstruction"])
    assert error < 0.2 * float((inputs - inputs.mean(dim=0)).square().mean())


@pytest.mark.parametrize("shape", [(9, 8, 2), (20,)])
def test_analyses_see_a_classifier(shape: tuple[int, ...]) -> None:
    network = made(shape).eval()
    images = np.moveaxis(batch(shape).numpy(), 1, -1) if len(shape) == 3 else batch(shape).numpy()
    observed, classes = TorchNetwork(network), np.array([0, 1, 2, 1, 1, 0])
    with torch.no_grad():
        logits, means = network(batch(shape)), network.means(network.encoder(batch(shape)))
    np.testing.assert_allclose(observed.outputs(images), logits, rtol=1e-6)
    profiles = activation_profiles(observed, images, classes, ["means"])
    expected = np.stack([means[torch.from_numpy(classes == k)].mean(dim=0) for k in range(3)])
    np.testing.assert_allclose(profiles["means"], expected, rtol=1e-5, atol=1e-7)
    assert {"means", "output"} <= set(observed.layers)
    by_input, terms = full_gradient(observed, images, classes)
    total = (by_input * images).reshape(6, -1).sum(axis=1) + sum(term.reshape(6, -1).sum(axis=1) for term in terms.values())
    np.testing.assert_allclose(total, logits.numpy()[np.arange(6), classes], rtol=1e-6)
    if len(shape) == 3:
        wanted = torch.autograd.grad(network(x := batch(shape).requires_grad_())[torch.arange(6), torch.from_numpy(classes)].sum(), x)[0]
        np.testing.assert_allclose(gradient(observed, images, classes), wanted.abs().sum(dim=1), rtol=1e-5)
    by_means = observed.vjp(images, "means", np.eye(3)[0], ["input"])["input"]
    x = batch(shape).requires_grad_()
    wanted = torch.autograd.grad(network.means(network.encoder(x))[:, 0].sum(), x)[0]
    np.testing.assert_allclose(by_means, np.moveaxis(wanted.numpy(), 1, -1) if len(shape) == 3 else wanted, rtol=1e-5, atol=1e-9)
    with pytest.raises(ValueError, match="log_variances"):
        observed.activations(images, ["log_variances"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DBVAE((8, 8), 10), r"dbvae: input_shape is \(8, 8\); expected \(h, w, c\) for images or \(f,\) for vectors"),
        (
            lambda: DBVAE((8,), 10, channels=(4,)),
            r"dbvae: input_shape is \(8,\); expected \(h, w, c\), an image's; for vectors \(f,\) use channels=\(\)",
        ),
        (lambda: DBVAE((8, 8, 1), 10, channels=(0,)), r"dbvae: channels holds \[0\]; expected positive integers"),
        (lambda: DBVAE((8, 8, 1), 10, hidden=()), r"dbvae: hidden holds \[\]; expected positive integers"),
        (lambda: DBVAE((8, 8, 1), 10, latent=0), r"dbvae: latent holds \[0\]; expected positive integers"),
        (lambda: DBVAE((8, 8, 1), 10, reconstruction="l2"), r"dbvae: reconstruction is 'l2'; allowed are \('absolute', 'squared'\)"),  # type: ignore[arg-type]
        (lambda: DBVAE((8, 8, 1), 10, c3=-1.0), "dbvae: c3 is -1.0; expected a weight of a part of the loss, a finite number of at least 0"),
        (lambda: DBVAE((8, 8, 1), 10, c1=float("nan")), "dbvae: c1 is nan; expected a weight"),
        (lambda: DBVAE((8, 8, 1), 2, vae_classes=[2]), r"dbvae: vae_classes is \[2\]; expected one or more of the classes 0 to 1, or None"),
        (lambda: DBVAE((8, 8, 1), 2, vae_classes=[]), r"dbvae: vae_classes is \[\]; expected one or more"),
    ],
)
def test_it_says_what_is_wrong(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
