"""Laws of the Keras networks: they are the torch ones, layer for layer, and Keras can save, load and train them on either backend."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from netlapse.backends.keras import KerasNetwork
from netlapse.backends.torch import TorchNetwork
from netlapse.models import keras as keras_models
from netlapse.models import torch as torch_models

ROOT = Path(__file__).resolve().parent.parent
OTHER_BACKEND = "torch" if keras.backend.backend() == "tensorflow" else "tensorflow"
SIZES: dict[str, dict[str, object]] = {
    "mlp": {"hidden": (8, 5), "dropout": 0.5},
    "cnn": {"channels": (4, 6), "hidden": 8, "dropout": 0.5},
    "resnet18": {"width": 2},
    "transformer": {"width": 8, "depth": 2, "heads": 2, "patch": 2},
}
SHAPE = (8, 12, 2)
# Where a convolution strides over an even number of pixels, "same" is not torch's padding of 1; over an odd number it is.
CASES = [*((name, SHAPE) for name in SIZES), ("mlp", (5,)), ("cnn", (9, 13, 2)), ("resnet18", (9, 13, 2))]
TORCH_NAMES = {"kernel": "weight", "gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}

# Of float64; but Keras's gelu on TensorFlow has a square root of float32, and on torch its matmul computes in float32.
CLOSE = {"rtol": 1e-8, "atol": 1e-8} if keras.backend.backend() == "tensorflow" else {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture
def float64() -> Iterator[None]:
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_dtype_policy(policy)


def batch(shape: tuple[int, ...], n: int = 4) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, *shape)).astype(np.float32)


def torch_twin(name: str, shape: tuple[int, ...], **sizes: object) -> nn.Module:
    """A torch network of float64 whose weights and moving statistics are nothing in particular; variances positive."""
    network: nn.Module = getattr(torch_models, name)(shape, 3, **SIZES[name] | sizes).double()
    rng = np.random.default_rng(1)
    for key, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            values = rng.normal(size=tensor.shape) * 0.4
            tensor.copy_(torch.from_numpy(np.abs(values) + 0.3 if key.endswith("running_var") else values))
    return network


def twins(name: str, shape: tuple[int, ...], **sizes: object) -> tuple[keras.Model, nn.Module]:
    """The Keras and the torch network of one kind with the same weights, each of which goes by the same name in both."""
    model, network = getattr(keras_models, name)(shape, 3, **SIZES[name] | sizes), torch_twin(name, shape, **sizes)
    state = {key: tensor.numpy() for key, tensor in network.state_dict().items() if tensor.is_floating_point()}
    for variable in model.weights:
        *path, kind = variable.path.removeprefix(f"{model.name}/").split("/")
        values = state.pop(".".join([*path, TORCH_NAMES.get(kind, kind)]))
        if kind == "kernel" and path in (["dense1"], ["dense"]) and len(shape) == 3:  # the first after flatten, of (c, h, w) in torch
            halvings = 2 if name == "cnn" else 0
            values = values.reshape(len(values), -1, shape[0] >> halvings, shape[1] >> halvings)
            values = values.transpose(2, 3, 1, 0).reshape(-1, len(values))
        elif kind == "kernel":
            values = values.transpose(2, 3, 1, 0) if values.ndim == 4 else values.T
        assert values.shape == tuple(variable.shape)
        variable.assign(values)
    assert not state
    return model, network


def keras_logits(model: keras.Model, inputs: np.ndarray, *, training: bool = False) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(model(inputs, training=training)))


def torch_logits(network: nn.Module, inputs: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        found: np.ndarray = network(torch.from_numpy(np.moveaxis(inputs, -1, 1).copy()).double()).numpy()
    return found


# ---- the same networks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "shape"), CASES)
@pytest.mark.usefixtures("float64")
def test_with_the_same_weights_the_logits_are_those_of_torch(name: str, shape: tuple[int, ...]) -> None:
    model, network = twins(name, shape)
    inputs = batch(shape)
    logits = keras_logits(model, inputs)
    assert logits.shape == (4, 3)
    assert (logits < 0).any()  # logits, not probabilities
    np.testing.assert_allclose(logits, torch_logits(network.eval(), inputs), **CLOSE)


@pytest.mark.parametrize("name", SIZES)
def test_every_layer_has_the_name_the_place_the_shape_the_role_and_the_activations_of_torch(name: str) -> None:
    model, network = twins(name, SHAPE)
    inputs = batch(SHAPE)
    ours, theirs = KerasNetwork(model), TorchNetwork(network.float().eval())
    described, expected = ([(layer.name, layer.shape, layer.role) for layer in each.describe(inputs)] for each in (ours, theirs))
    assert described == expected
    names = [layer for layer in ours.layers if layer != "flatten"]  # whose order is each framework's own
    found, wanted = ours.activations(inputs, names), theirs.activations(inputs, names)
    for layer in names:  # a float32 forward of each framework, through up to 20 convolutions
        np.testing.assert_allclose(found[layer], wanted[layer], rtol=1e-4, atol=1e-4 * np.abs(wanted[layer]).max(), err_msg=layer)


@pytest.mark.parametrize("name", ["cnn", "resnet18"])
@pytest.mark.usefixtures("float64")
def test_moving_means_follow_the_batches_as_fast_as_in_torch(name: str) -> None:
    """Variances do so too, but torch's is the unbiased one."""
    model, network = twins(name, SHAPE, **({"dropout": 0.0} if name == "cnn" else {}))
    inputs = batch(SHAPE)
    np.testing.assert_allclose(keras_logits(model, inputs, training=True), torch_logits(network.train(), inputs), **CLOSE)
    means = {key.removesuffix(".running_mean"): value for key, value in network.state_dict().items() if key.endswith("running_mean")}
    ours = {variable.path: variable for variable in model.weights if variable.path.endswith("/moving_mean")}
    assert len(ours) == len(means) > 1
    for path, variable in ours.items():
        key = path.removeprefix(f"{model.name}/").removesuffix("/moving_mean").replace("/", ".")
        np.testing.assert_allclose(keras.ops.convert_to_numpy(variable), means[key], **CLOSE)


@pytest.mark.parametrize("name", SIZES)
def test_arguments_and_defaults_are_those_of_torch(name: str) -> None:
    ours, theirs = (inspect.signature(getattr(models, name)).parameters for models in (keras_models, torch_models))
    assert list(ours.values()) == list(theirs.values())


@pytest.mark.parametrize("name", SIZES)
def test_dropout_and_parameters_are_as_many_as_in_torch(name: str) -> None:
    model: keras.Model = getattr(keras_models, name)(SHAPE, 3)
    network: nn.Module = getattr(torch_models, name)(SHAPE, 3)
    assert sum(int(np.prod(weight.shape)) for weight in model.trainable_weights) == sum(each.numel() for each in network.parameters())
    rates = [module.p for module in network.modules() if isinstance(module, nn.Dropout)]
    assert [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)] == rates


@pytest.mark.parametrize(
    ("name", "shape", "n_classes", "sizes"),
    [
        ("mlp", (8, 8), 10, {}),
        ("mlp", (8,), 10, {"hidden": (0,)}),
        ("mlp", (8,), 10, {"hidden": 5}),
        ("mlp", (8,), 10, {"dropout": 1.0}),
        ("cnn", (28,), 10, {}),
        ("cnn", (28, 28, 1), 0, {}),
        ("cnn", (28, 28, 1), 10, {"dropout": -0.1}),
        ("cnn", (7, 28, 1), 10, {}),
        ("resnet18", (4, 8, 3), 10, {}),
        ("resnet18", (32, 32, 3), 10, {"width": -1}),
        ("transformer", (28, 30, 1), 10, {}),
        ("transformer", (28, 28, 1), 10, {"width": 10}),
    ],
)
def test_networks_say_what_is_wrong_as_in_torch(name: str, shape: tuple[int, ...], n_classes: int, sizes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"^{name}: ") as theirs:
        getattr(torch_models, name)(shape, n_classes, **sizes)
    with pytest.raises(ValueError, match=f"^{name}: ") as ours:
        getattr(keras_models, name)(shape, n_classes, **sizes)
    assert str(ours.value) == str(theirs.value)


def test_every_model_configuration_makes_its_keras_network() -> None:
    for path in sorted((ROOT / "conf" / "model").glob("*_tiny.yaml")):
        config = OmegaConf.create({"framework": {"models": "netlapse.models.keras"}, "model": OmegaConf.load(path)})
        model = instantiate(config.model)((28, 28, 1), 10)
        assert model.name == path.stem.removesuffix("_tiny")
        assert keras_logits(model, batch((28, 28, 1), 2)).shape == (2, 10)


# ---- as Keras models ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SIZES)
def test_every_parameter_is_learnt_and_has_a_path_of_its_own(name: str) -> None:
    keras.utils.set_random_seed(0)
    model: keras.Model = getattr(keras_models, name)(SHAPE, 3, **SIZES[name])
    before = [keras.ops.convert_to_numpy(weight) for weight in model.trainable_weights]
    model.compile(keras.optimizers.SGD(1.0), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.train_on_batch(batch(SHAPE), np.array([0, 1, 2, 0]))
    for old, weight in zip(before, model.trainable_weights):
        assert not np.array_equal(old, keras.ops.convert_to_numpy(weight)), weight.path
    assert len({weight.path for weight in model.weights}) == len(model.weights)


@pytest.mark.parametrize("name", SIZES)
def test_a_loaded_network_is_the_saved_one_whatever_the_dtype_policy(
    name: str, tmp_path: Path, request: pytest.FixtureRequest, recwarn: pytest.WarningsRecorder
) -> None:
    model: keras.Model = getattr(keras_models, name)(SHAPE, 3, **SIZES[name])
    request.getfixturevalue("float64")
    doubled, _ = twins(name, SHAPE)
    doubled.save(tmp_path / "doubled.keras")
    keras.config.set_dtype_policy("float32")
    loaded = keras.saving.load_model(tmp_path / "doubled.keras")
    inputs = batch(SHAPE)
    np.testing.assert_array_equal(keras_logits(loaded, inputs), keras_logits(doubled, inputs))
    assert {str(weight.dtype).split(".")[-1] for weight in loaded.weights} == {"float64"}
    assert KerasNetwork(loaded).layers == KerasNetwork(doubled).layers == KerasNetwork(model).layers
    assert len({weight.path for weight in loaded.weights}) == len(loaded.weights)
    assert not [str(warning.message) for warning in recwarn if "build" in str(warning.message)]


def test_saved_networks_load_and_train_on_the_other_backend(tmp_path: Path) -> None:
    """In a fresh process; mlp and cnn without netlapse."""
    for name in SIZES:
        model, _ = twins(name, SHAPE)
        model.save(tmp_path / f"{name}.keras")
        np.save(tmp_path / f"{name}.npy", keras_logits(model, batch(SHAPE)))
    np.save(tmp_path / "inputs.npy", batch(SHAPE))
    program = """
import sys
from pathlib import Path
import keras, numpy as np
folder, inputs = Path(sys.argv[1]), np.load(sys.argv[1] + "/inputs.npy")
for name in ("mlp", "cnn", "resnet18", "transformer"):
    if name == "resnet18":
        assert "netlapse" not in sys.modules
        import netlapse.models.keras
    model = keras.saving.load_model(folder / f"{name}.keras")
    logits, expected = keras.ops.convert_to_numpy(model(inputs, training=False)), np.load(folder / f"{name}.npy")
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4 * abs(expected).max())
    made = getattr(sys.modules.get("netlapse.models.keras"), name, None)
    if made is not None:
        model = made(inputs.shape[1:], 3)
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        model.train_on_batch(inputs, np.array([0, 1, 2, 0]))
print(keras.backend.backend())
"""
    environment = os.environ | {"KERAS_BACKEND": OTHER_BACKEND, "PYTHONPATH": str(ROOT)}
    result = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split()[-1] == OTHER_BACKEND
