"""Keras models from files, and why some files hold none that can be observed."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import keras


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


def _holds_a_lambda(path: Path) -> bool:
    """Read from the file, because `keras.config.enable_unsafe_deserialization` overrules the argument `safe_mode`."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            config = archive.read("config.json").decode()
    else:
        import h5py

        with h5py.File(path) as file:
            config = str(file.attrs.get("model_config", ""))
    return '"__lambda__"' in config or '"function_type": "lambda"' in config
