"""Laws of the Keras DB-VAE: with the same weights it is the torch one, in what it answers, in its loss and in what a step of training does."""

from __future__ import annotations

import inspect
from pathlib import Path

import keras
import numpy as np
import pytest
import torch

from netlapse.analysis.fullgradient import full_gradient
from netlapse.analysis.nap import activation_profiles
from netlapse.analysis.saliency import gradient
from netlapse.backends.keras import KerasNetwork
from netlapse.backends.torch import TorchNetwork
from netlapse.models.keras_dbvae import DBVAE
from netlapse.models.torch_dbvae import DBVAE as TorchDBVAE

# Odd and even sides, a side of one pixel before the last halving, dense layers alone, vectors.
CASES: list[tuple[tuple[int, ...], dict[str, object]]] = [
    ((9, 8, 2), {"channels": (4, 6), "hidden": (16,)}),
    ((2, 5, 1), {"channels": (3, 4, 5), "hidden": (8, 7)}),
    ((4, 3, 2), {"channels": (), "hidden": (8,)}),
    ((20,), {"hidden": (8, 7)}),
]
LABELS = np.array([0, 1, 2, 1, 1, 0])
NAMES = {"kernel": "weight", "gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


def batch(shape: tuple[int, ...], n: int = 6) -> np.ndarray:
    return np.random.default_rng(0).random((n, *shape)).astype(np.float32)


def as_torch(inputs: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.moveaxis(inputs, -1, 1).copy() if inputs.ndim == 4 else inputs)


def numbers(tensor: object) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(tensor))


def twins(shape: tuple[int, ...], **options: object) -> tuple[DBVAE, TorchDBVAE]:
    """Both of them with the same weights, each of which goes by the same name in both."""
    torch.manual_seed(0)
    model, network = (DBVAE(shape, 3, **{"latent": 3, **options}), TorchDBVAE(shape, 3, **{"latent": 3, **options}))  # type: ignore[arg-type]
    with torch.no_grad():
        network.log_variances.bias += torch.tensor([0.5, -1.0, 0.3])
    give(model, network)
    return model, network


def give(model: DBVAE, network: TorchDBVAE) -> None:
    for variable, values in zip(model.weights, arrays(model, network), strict=True):
        variable.assign(values)


def arrays(model: DBVAE, network: TorchDBVAE) -> list[np.ndarray]:
    """The torch network's weights as the Keras model has them, in the order of its own."""
    state = {key: tensor.numpy() for key, tensor in network.state_dict().items() if tensor.is_floating_point()}
    layers = list(network.decoder.children())
    code = next(layer.unflattened_size for layer in layers if isinstance(layer, torch.nn.Unflatten))
    last = f"decoder.dense{sum(isinstance(layer, torch.nn.Linear) for layer in layers)}"
    found = []
    for variable in model.weights:
        *path, kind = variable.path.removeprefix(f"{model.name}/").split("/")
        name = ".".join(path)
        values = state.pop(f"{name}.{NAMES.get(kind, kind)}")
        # torch flattens (c, h, w), Keras (h, w, c).
        if name == "encoder.dense1" and kind == "kernel" and len(code) == 3:
            values = np.moveaxis(values.reshape(len(values), *code), 1, -1).reshape(len(values), -1)
        if name == last and len(code) == 3:
            values = np.moveaxis(values.reshape(*code, *values.shape[1:]), 0, 2).reshape(values.shape)
        if kind == "kernel":
            values = values.transpose(2, 3, 1, 0) if values.ndim == 4 else values.T
        found.append(values)
    assert not state
    return found


@pytest.mark.parametrize(("shape", "options"), CASES)
@pytest.mark.parametrize("more", [{}, {"vae_classes": [1], "reconstruction": "squared", "c1": 0.5, "c2": 2.0, "c3": 0.3}], ids=["usual", "other"])
def test_with_the_same_weights_and_noise_answers_losses_and_parts_are_those_of_torch(
    shape: tuple[int, ...], options: dict[str, object], more: dict[str, object]
) -> None:
    model, network = twins(shape, **options, **more)
    inputs, noise = (batch(shape), np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32))
    found = model.run(inputs, noise=noise)
    assert found["reconstruction"].shape == inputs.shape
    for given in (noise, None):
        losses, logits, parts = model.input_losses(inputs, LABELS, noise=given)
        eps = None if given is None else torch.from_numpy(given)
        with torch.no_grad():
            expected = network.eval().input_losses(as_torch(inputs), torch.from_numpy(LABELS), noise=eps)
        np.testing.assert_allclose(numbers(losses), expected[0], rtol=1e-4)
        np.testing.assert_allclose(numbers(logits), expected[1], rtol=1e-4, atol=1e-5)
        assert list(parts) == list(expected[2])
        np.testing.assert_allclose([numbers(part) for part in parts.values()], [float(part) for part in expected[2].values()], rtol=1e-4)
    np.testing.assert_allclose(numbers(model(inputs)), numbers(logits), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("shape", "options"), [CASES[0], CASES[3]])
def test_a_step_of_training_changes_the_weights_as_in_torch(
    shape: tuple[int, ...], options: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By Keras's own `train_on_batch`, with the noise of both set to the same; moving variances apart, of which torch's are the unbiased ones."""
    options = {**options, "vae_classes": [1, 2], "c3": 0.1}
    model, network = twins(shape, **options)
    noise = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)
    monkeypatch.setattr(keras.random, "normal", lambda *_, **__: keras.ops.convert_to_tensor(noise))
    model.compile(keras.optimizers.SGD(0.5))
    said = model.train_on_batch(batch(shape), LABELS, return_dict=True)
    losses, _, parts = network.train().input_losses(as_torch(batch(shape)), torch.from_numpy(LABELS), noise=torch.from_numpy(noise))
    losses.mean().backward()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter -= 0.5 * parameter.grad
    for variable, expected in zip(model.weights, arrays(model, network), strict=True):
        if not variable.path.endswith("moving_variance"):
            np.testing.assert_allclose(numbers(variable), expected, rtol=1e-3, atol=1e-5, err_msg=variable.path)
    assert float(said["loss"]) == pytest.approx(float(losses.detach().mean()), rel=1e-4)
    for name, part in parts.items():
        assert float(said[name]) == pytest.approx(float(part), rel=1e-4)


def test_arguments_and_defaults_are_those_of_torch() -> None:
    ours, theirs = (list(inspect.signature(each).parameters.values()) for each in (DBVAE, TorchDBVAE))
    assert ours[:-1] == theirs
    assert ours[-1].kind is inspect.Parameter.VAR_KEYWORD  # name, dtype, trainable


def test_fit_and_evaluate_tell_the_parts_of_the_loss_over_all_inputs() -> None:
    keras.utils.set_random_seed(0)
    shape, options = CASES[0]
    model = DBVAE(shape, 3, latent=3, vae_classes=[1], c3=0.25, **options)  # type: ignore[arg-type]
    inputs, labels = batch(shape, 10), np.arange(10) % 3
    before = [numbers(weight) for weight in model.trainable_weights]
    model.compile("adam", metrics=[keras.metrics.SparseCategoricalAccuracy("accuracy")])
    history = model.fit(inputs, labels, batch_size=4, epochs=1, validation_data=(inputs, labels), verbose=0).history
    for old, weight in zip(before, model.trainable_weights):
        assert not np.array_equal(old, numbers(weight)), weight.path
    losses, logits, parts = model.input_losses(inputs, labels)
    assert history["val_loss"][0] == pytest.approx(numbers(losses).mean(), rel=1e-4)
    assert history["val_accuracy"][0] == pytest.approx((numbers(logits).argmax(axis=1) == labels).mean())
    for name, part in parts.items():
        assert history[f"val_{name}"][0] == pytest.approx(float(part), rel=1e-4)
    told = {name: history[name][0] for name in ("loss", "cross_entropy", "reconstruction", "divergence")}
    assert told["loss"] == pytest.approx(told["cross_entropy"] + told["reconstruction"] + 0.25 * told["divergence"], rel=1e-4)


def test_sample_weights_count_in_the_loss() -> None:
    shape, options = CASES[3]
    model, _ = twins(shape, **options)
    model.compile("sgd")
    weights = np.array([0, 1, 2, 0, 3, 1], np.float32)
    losses = numbers(model.input_losses(batch(shape), LABELS)[0])
    found = model.evaluate(batch(shape), LABELS, sample_weight=weights, verbose=0, return_dict=True)
    assert found["loss"] == pytest.approx((losses * weights).mean(), rel=1e-5)


def test_nothing_is_drawn_but_the_noise_of_training() -> None:
    shape, options = CASES[3]
    model, _ = twins(shape, **options)
    model.compile("sgd")
    before = numbers(model.noise.state).copy()
    model(batch(shape))
    model.predict(batch(shape), verbose=0)
    model.evaluate(batch(shape), LABELS, verbose=0)
    KerasNetwork(model, example=batch(shape)).outputs(batch(shape))
    np.testing.assert_array_equal(numbers(model.noise.state), before)
    first, second = (numbers(model.run(batch(shape), training=True)["reconstruction"]) for _ in range(2))
    assert not np.array_equal(numbers(model.noise.state), before)
    assert not np.array_equal(first, second)


def test_its_noise_is_standard_normal(monkeypatch: pytest.MonkeyPatch) -> None:
    model = DBVAE((2,), 2, hidden=(2,), latent=4000)
    for layer, bias in ((model.means, 3.0), (model.log_variances, 2 * np.log(0.5))):
        layer.kernel.assign(np.zeros((2, 4000)))
        layer.bias.assign(np.full(4000, bias))
    codes: list[np.ndarray] = []
    monkeypatch.setattr(model.decoder, "call", lambda tensor, **_: codes.append(numbers(tensor)) or tensor)  # type: ignore[func-returns-value]
    model.run(np.zeros((5, 2), np.float32), training=True)
    assert codes[0].mean() == pytest.approx(3, abs=0.02)
    assert codes[0].std() == pytest.approx(0.5, abs=0.02)


def test_a_loaded_model_is_the_saved_one_and_goes_on_training(tmp_path: Path) -> None:
    shape, options = CASES[0]
    model, _ = twins(shape, vae_classes=[2], c3=0.5, reconstruction="squared", **options)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    model.train_on_batch(batch(shape), LABELS)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded) is DBVAE
    assert loaded.get_config() == model.get_config()
    assert [weight.path for weight in loaded.weights] == [weight.path for weight in model.weights]
    assert len({weight.path for weight in model.weights}) == len(model.weights)
    loaded.noise.state.assign(model.noise.state)  # which files do not hold, as they do not hold a dropout's
    for _ in range(2):  # the second on weights that the first has changed
        said, expected = (each.train_on_batch(batch(shape), LABELS, return_dict=True) for each in (loaded, model))
        assert {name: float(value) for name, value in said.items()} == pytest.approx({name: float(value) for name, value in expected.items()})
    for ours, theirs in zip(loaded.weights, model.weights):
        np.testing.assert_allclose(numbers(ours), numbers(theirs), rtol=1e-6)
    assert KerasNetwork(loaded, example=batch(shape)).layers == KerasNetwork(model, example=batch(shape)).layers


@pytest.mark.parametrize(("shape", "options"), [CASES[0], CASES[3]])
def test_analyses_see_the_classifier_that_they_see_in_torch(shape: tuple[int, ...], options: dict[str, object]) -> None:
    model, network = twins(shape, **options)
    inputs, ours, theirs = (batch(shape), KerasNetwork(model), TorchNetwork(network.eval()))
    described = {layer.name: layer.role for layer in ours.describe(inputs)}
    expected = {layer.name: layer.role for layer in theirs.describe(inputs)}
    assert described["means"] == "weights"
    assert {name: role for name, role in described.items() if ".pad" not in name} == expected
    np.testing.assert_allclose(ours.outputs(inputs), theirs.outputs(inputs), rtol=1e-4, atol=1e-5)
    profiles, wanted = (activation_profiles(each, inputs, LABELS, ["means"])["means"] for each in (ours, theirs))
    np.testing.assert_allclose(profiles, wanted, rtol=1e-4, atol=1e-6)
    for (by_input, terms), network_seen in ((full_gradient(each, inputs, LABELS), each) for each in (ours, theirs)):
        total = (by_input * inputs).reshape(6, -1).sum(axis=1) + sum(term.reshape(6, -1).sum(axis=1) for term in terms.values())
        np.testing.assert_allclose(total, network_seen.outputs(inputs)[np.arange(6), LABELS], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(full_gradient(ours, inputs, LABELS)[0], full_gradient(theirs, inputs, LABELS)[0], rtol=1e-3, atol=1e-6)
    if len(shape) == 3:
        np.testing.assert_allclose(gradient(ours, inputs, LABELS), gradient(theirs, inputs, LABELS), rtol=1e-3, atol=1e-6)
    by_means, wanted = (each.vjp(inputs, "means", np.eye(3)[0], ["input"])["input"] for each in (ours, theirs))
    np.testing.assert_allclose(by_means, wanted, rtol=1e-3, atol=1e-6)
    with pytest.raises(ValueError, match="log_variances"):
        ours.activations(inputs, ["log_variances"])


@pytest.mark.parametrize(
    ("shape", "options"),
    [((8, 8), {}), ((8,), {"channels": (4,)}), ((8,), {"reconstruction": "l2"}), ((8,), {"c3": -1.0}), ((8,), {"vae_classes": [3]})],
)
def test_it_says_what_is_wrong_as_in_torch(shape: tuple[int, ...], options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"^dbvae: ") as theirs:
        TorchDBVAE(shape, 3, **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^dbvae: ") as ours:
        DBVAE(shape, 3, **options)  # type: ignore[arg-type]
    assert str(ours.value) == str(theirs.value)
