"""Keras files: models and weights read without running what a file names, and why some hold none that can be observed."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from weakref import WeakKeyDictionary

import h5py
import keras
import numpy as np

from netlapse.audit import Weights
from netlapse.backends.keras import KerasNetwork
from netlapse.backends.keras_hdf5 import BFLOAT16, array, datasets, frozen, is_legacy, opened, steps_taken

Kind = tuple[tuple[int, ...], np.dtype[np.generic]]


def load_model(path: str | Path, *, custom_objects: Mapping[str, type] | None = None) -> keras.Model:
    """The model of a `.keras` or `.h5` file, without its optimizer; custom_objects: name -> class, as `keras.models.load_model` takes them.

    Raises FileNotFoundError, and ValueError for what cannot be loaded or observed: a SavedModel folder, weights without a
    model, a file with a lambda, which would run code of whoever wrote it. Safe mode is never turned off.
    """
    path = Path(path)
    if (path / "saved_model.pb").is_file():
        raise ValueError(
            f"{path} is a SavedModel. Keras 3 can only call it, through keras.layers.TFSMLayer({str(path)!r}, call_endpoint='serve'), a single layer "
            "with nothing inside to observe. Rebuild the model in code, assign it the variables of "
            f"tf.saved_model.load({str(path)!r}).variables, whose names say which is which, and save it as a .keras file"
        )
    if not path.is_file():
        raise FileNotFoundError(f"no model at {path}; expected a .keras or .h5 file")
    if path.name.endswith(".weights.h5"):
        raise ValueError(f"{path} holds weights and no model; build the model in code and call its load_weights({str(path)!r})")
    if path.suffix not in (".keras", ".h5", ".hdf5"):
        raise ValueError(f"{path} is not a Keras model; expected a .keras or .h5 file")
    if _holds_a_lambda(path):
        raise ValueError(
            f"{path} holds a Lambda layer of a Python lambda: loading it would run code of whoever wrote the file, and netlapse does not turn "
            "Keras's safe mode off. Write the lambda as a Layer class, or as a function with keras.saving.register_keras_serializable, "
            "rebuild the model with it, load the weights and save it again"
        )
    return keras.models.load_model(path, custom_objects=custom_objects and dict(custom_objects), compile=False, safe_mode=True)


def read_weights(path: str | Path) -> Weights:
    """The weights of a `.keras`, `.h5` or `.weights.h5` file, without its optimizer's; no model is built.

    They go by their names in the file (`layers/conv2d_1/vars/0`). bfloat16 becomes float32, which changes no value. What is
    to be trained is known where the file holds a model, the number of optimiser steps where it holds an optimizer.

    Raises FileNotFoundError, and ValueError for a file that is cut off or damaged, or that refers to others.
    """
    with opened(Path(path)) as (file, config):
        try:
            arrays = {name: array(dataset) for name, dataset in datasets(file).items()}
            trainable = None if config is None else frozenset(arrays) - frozen(file, config)
            steps = steps_taken(file)
        except (OSError, KeyError, RuntimeError, ValueError) as error:
            raise ValueError(f"{path} cannot be read: {error}; it is damaged, or not a file of Keras") from error
    return Weights(arrays, trainable=trainable, position={} if steps is None else {"step": steps})


def load_weights(network: KerasNetwork, path: str | Path, *, model: keras.Model | None = None) -> None:
    """Put the weights of a `.keras`, `.h5` or `.weights.h5` file into the network's model, in place; its optimizer is left alone.

    model  the model that was saved, where the network is a part of it (`model.get_layer("encoder")`); None: the network's own

    What the network has traced serves on. The config in the file is not read, so nothing in it is run. Raises what
    `read_weights` does, and ValueError where the weights do not fit; the model is then as it was. Weights are never
    rounded: float64 does not fit a float32 model.
    """
    model = network.model if model is None else model
    if not isinstance(model, keras.Model) or not model.built:
        what = "has no weights yet; call it on one batch" if isinstance(model, keras.Model) else "is a layer; pass model=, what it was saved in"
        raise ValueError(f"{path} cannot be loaded: {model.name!r} {what}")
    with opened(Path(path)) as (file, _), tempfile.TemporaryDirectory() as folder:
        legacy = is_legacy(file)
        try:
            saved = {name: (dataset.shape, dataset.dtype) for name, dataset in datasets(file).items()}
        except (OSError, KeyError, RuntimeError, ValueError) as error:
            raise ValueError(f"{path} cannot be read: {error}; it is damaged, or not a file of Keras") from error
        misfits = _legacy_misfits(list(saved.items()), model) if legacy else _misfits(saved, _entries(model))
        if misfits:
            listed = ", ".join(misfits[:6]) + (f" and {len(misfits) - 6} more" if len(misfits) > 6 else "")
            raise ValueError(f"{path} does not fit model {model.name!r}: {listed}; build the model with the options it was trained with")
        # Keras tells the layouts apart by the suffix, and leaves the optimizer alone in one of them only.
        link = Path(folder) / ("model.h5" if legacy else "model.weights.h5")
        link.symlink_to(Path(file.filename).absolute())
        optimizers = [layer.optimizer for layer in model._flatten_layers() if getattr(layer, "optimizer", None) is not None]
        try:
            model.load_weights(link, **({} if legacy else {"objects_to_skip": optimizers}))
        except Exception as error:
            raise ValueError(f"{path} does not fit model {model.name!r}: {type(error).__name__}: {error}") from error


# Asked of Keras once per model, because layers may write what they like.
_written: WeakKeyDictionary[keras.Model, dict[str, Kind]] = WeakKeyDictionary()


def _entries(model: keras.Model) -> dict[str, Kind]:
    """What Keras writes of a model: name -> shape and type."""
    if model not in _written:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.weights.h5"
            model.save_weights(path)
            with h5py.File(path) as file:
                _written[model] = {name: (dataset.shape, dataset.dtype) for name, dataset in datasets(file).items()}
    return _written[model]


def _misfits(saved: Mapping[str, Kind], own: Mapping[str, Kind]) -> list[str]:
    """What keeps the arrays of a file from being the model's, each in words; Keras itself would pass over what is too many."""
    missing = [f"{name} is missing" for name in own if name not in saved]
    unknown = [f"{name} is not in the model" for name in saved if name not in own]
    return missing + unknown + [f"{name} is {why}" for name in own if name in saved and (why := _misfit(saved[name], own[name]))]


def _legacy_misfits(saved: list[tuple[str, Kind]], model: keras.Model) -> list[str]:
    """In a legacy file arrays belong to variables by their order, not by their names."""
    variables = [variable for layer in model.layers for variable in layer.trainable_weights + layer.non_trainable_weights]
    variables += [v for v in model._trainable_variables + model._non_trainable_variables if any(v is weight for weight in model.weights)]
    if len(saved) != len(variables):
        return [f"it holds {len(saved)} arrays, and the model has {len(variables)} variables"]
    types = [keras.backend.standardize_dtype(variable.dtype) for variable in variables]
    own = [(tuple(v.shape), BFLOAT16 if name == "bfloat16" else np.dtype(name)) for v, name in zip(variables, types)]
    return [f"{name} is {why}" for (name, kind), other in zip(saved, own) if (why := _misfit(kind, other))]


def _misfit(saved: Kind, own: Kind) -> str | None:
    (shape, kind), (own_shape, own_kind) = saved, own
    if shape != own_shape:
        return f"{shape}, and the model's is {own_shape}"
    widened = np.dtype(np.float32) if kind == BFLOAT16 and own_kind != BFLOAT16 else kind
    if widened == own_kind or (np.can_cast(widened, own_kind) and widened.kind == own_kind.kind):
        return None
    return f"{_name(kind)}, which would be rounded to the model's {_name(own_kind)}"


def _name(kind: np.dtype[np.generic]) -> str:
    return "bfloat16" if kind == BFLOAT16 else str(kind)


def _holds_a_lambda(path: Path) -> bool:
    """Read from the file, because `keras.config.enable_unsafe_deserialization` overrules the argument `safe_mode`."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            config = archive.read("config.json").decode()
    else:
        with h5py.File(path) as file:
            config = str(file.attrs.get("model_config", ""))
    return '"__lambda__"' in config or '"function_type": "lambda"' in config
