"""Which Keras files are loaded, and what is said of the others."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from netlapse.backends.keras import KerasNetwork
from netlapse.backends.keras_files import load_model

L = keras.layers


def model() -> keras.Model:
    layers = [L.Conv2D(3, 3, activation="relu", name="conv"), L.BatchNormalization(name="norm"), L.Flatten(name="flat"), L.Dense(2, name="dense")]
    made = keras.Sequential([keras.Input((5, 5, 1)), *layers])
    rng = np.random.default_rng(0)
    made.set_weights([np.abs(rng.normal(size=value.shape)) for value in made.get_weights()])
    return made


def images() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(4, 5, 5, 1)).astype(np.float32)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_loaded_model_is_observed_as_the_saved_one(tmp_path: Path, suffix: str) -> None:
    saved = model()
    saved.compile("adam", "mse")
    saved.save(tmp_path / f"m{suffix}")
    a, b = KerasNetwork(saved), KerasNetwork(load_model(tmp_path / f"m{suffix}"))
    assert a.layers == b.layers == ("conv", "norm", "flat", "dense")
    for name in a.layers:
        np.testing.assert_array_equal(a.activations(images(), [name])[name], b.activations(images(), [name])[name])


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="only TensorFlow writes a SavedModel")
def test_a_saved_model_folder_is_refused_and_rebuilding_it_as_the_error_says_works(tmp_path: Path) -> None:
    import tensorflow as tf

    saved = model()
    saved.export(tmp_path / "saved", verbose=False)
    with pytest.raises(ValueError, match=r"TFSMLayer.*nothing inside to observe\. Rebuild the model in code.*tf\.saved_model\.load\(.*\)\.variables"):
        load_model(tmp_path / "saved")
    values = {
        variable.name.partition("/")[2].partition(":")[0]: variable.numpy() for variable in tf.saved_model.load(str(tmp_path / "saved")).variables
    }
    rebuilt = model()
    rebuilt.set_weights([np.zeros_like(value) for value in rebuilt.get_weights()])
    for variable in rebuilt.variables:
        variable.assign(values[variable.path.partition("/")[2]])
    np.testing.assert_array_equal(KerasNetwork(rebuilt).outputs(images()), KerasNetwork(saved).outputs(images()))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("unsafe", [False, True], ids=["", "even where the process allows unsafe files"])
def test_a_lambda_is_refused(tmp_path: Path, suffix: str, unsafe: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    keras.Sequential([keras.Input((3,)), L.Lambda(lambda x: x * 2), L.Dense(2)]).save(tmp_path / f"m{suffix}")
    if unsafe:
        from keras.src.backend.common import global_state

        monkeypatch.setitem(vars(global_state.GLOBAL_STATE_TRACKER), "safe_mode_saving", False)  # as keras.config.enable_unsafe_deserialization
    with pytest.raises(ValueError, match=r"holds a Lambda layer.*run code of whoever wrote the file.*safe mode.*Layer class"):
        load_model(tmp_path / f"m{suffix}")


def test_other_paths_are_refused_with_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no model at .*none\.keras; expected a \.keras or \.h5 file"):
        load_model(tmp_path / "none.keras")
    model().save_weights(tmp_path / "m.weights.h5")
    with pytest.raises(ValueError, match=r"holds weights and no model.*load_weights"):
        load_model(tmp_path / "m.weights.h5")
    (tmp_path / "m.ckpt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"m\.ckpt is not a Keras model; expected a \.keras or \.h5 file"):
        load_model(tmp_path / "m.ckpt")
