"""Which Keras files are loaded, what is read of them, and what is said of the others."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from netlapse.analysis import default_analyses
from netlapse.backends.keras import KerasNetwork
from netlapse.backends.keras_files import load_model, load_weights, read_weights
from netlapse.callbacks.keras import ObserverCallback
from netlapse.observer import Observer
from netlapse.tracking.checkpoints import find
from netlapse.tracking.memory import MemoryTracker
from netlapse.types import Findings
from tests.keras_training import model as training_model
from tests.keras_training import probe, train

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


# ---- weights --------------------------------------------------------------------------------------------------------

SUFFIXES = [".keras", ".h5", ".weights.h5"]


def save(saved: keras.Model, path: Path) -> Path:
    saved.save_weights(path) if path.name.endswith(".weights.h5") else saved.save(path)
    return path


def values(saved: keras.Model) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(variable) for variable in saved.variables]


def same(a: keras.Model, b: keras.Model) -> bool:
    return all(x.tobytes() == y.tobytes() for x, y in zip(values(a), values(b), strict=True))


def nested(seed: int = 0) -> keras.Model:
    encoder = keras.Sequential([keras.Input((6,)), L.Dense(5, name="open"), L.Dense(4, name="shut", trainable=False)], name="encoder")
    inputs = keras.Input((6,))
    made = keras.Model(inputs, L.Dense(2, name="head")(encoder(inputs)))
    rng = np.random.default_rng(seed)
    made.set_weights([rng.normal(size=value.shape) for value in made.get_weights()])
    return made


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("compiled", [False, True])
def test_what_is_read_are_the_models_arrays_bit_for_bit_and_not_the_optimizers(tmp_path: Path, suffix: str, compiled: bool) -> None:
    saved = model()
    if compiled:
        saved.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
        saved.fit(images(), np.zeros((4, 2)), batch_size=2, epochs=3, verbose=0)
    weights = read_weights(save(saved, tmp_path / f"m{suffix}"))
    assert sorted(array.tobytes() for array in weights.arrays.values()) == sorted(array.tobytes() for array in values(saved))
    assert {(array.dtype, array.shape) for array in weights.arrays.values()} == {(array.dtype, array.shape) for array in values(saved)}
    assert weights.position == ({"step": 6} if compiled else {})


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_steps_are_the_inner_optimizers_where_another_scales_the_loss(tmp_path: Path, suffix: str) -> None:
    saved = model()
    saved.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(), dynamic_growth_steps=2), "mse")
    saved.fit(images(), np.zeros((4, 2)), batch_size=2, epochs=3, verbose=0)
    assert read_weights(save(saved, tmp_path / f"m{suffix}")).position == {"step": 6}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_trainable_is_what_the_layers_say_also_inside_others(tmp_path: Path, suffix: str) -> None:
    saved = nested()
    weights = read_weights(save(saved, tmp_path / f"m{suffix}"))
    if suffix == ".weights.h5":
        assert weights.trainable is None
        return
    shut = {array.tobytes() for array in map(keras.ops.convert_to_numpy, saved.get_layer("encoder").get_layer("shut").weights)}
    assert weights.trainable == {name for name, array in weights.arrays.items() if array.tobytes() not in shut}
    assert len(weights.trainable) == len(weights.arrays) - 2 == 4
    saved.trainable = False
    assert read_weights(save(saved, tmp_path / f"m{suffix}")).trainable == frozenset()


def test_bfloat16_becomes_float32_with_the_same_values(tmp_path: Path) -> None:
    saved = keras.Sequential([keras.Input((4,)), L.Dense(3, dtype="bfloat16")])
    saved.set_weights([np.array([[1.5, -2.0, 2.0**100]] * 4), np.array([0.0, -0.0, 3.0])])
    arrays = list(read_weights(save(saved, tmp_path / "m.keras")).arrays.values())
    np.testing.assert_array_equal(arrays[0], np.array([[1.5, -2.0, 2.0**100]] * 4, np.float32), strict=True)
    np.testing.assert_array_equal(arrays[1], np.array([0.0, -0.0, 3.0], np.float32), strict=True)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_cut_off_anywhere_is_named(tmp_path: Path, suffix: str) -> None:
    whole = save(model(), tmp_path / f"whole{suffix}").read_bytes()
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / f"cut{suffix}").write_bytes(whole[:length])
        for read in (read_weights, lambda path: load_weights(KerasNetwork(model()), path)):
            with pytest.raises(ValueError, match=r"cut\S+ cannot be read: it is cut off, damaged, or not a file of Keras"):
                read(tmp_path / f"cut{suffix}")


def test_a_damaged_member_of_the_archive_is_noticed(tmp_path: Path) -> None:
    path = save(model(), tmp_path / "m.keras")
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo("model.weights.h5")
    content = bytearray(path.read_bytes())
    content[member.header_offset + 1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"m\.keras cannot be read.*Bad CRC-32"):
        read_weights(path)


@pytest.mark.parametrize("read", [read_weights, lambda path: load_weights(KerasNetwork(model()), path)], ids=["read", "load"])
@pytest.mark.parametrize("suffix", [".h5", ".weights.h5"])
def test_a_file_that_refers_to_others_is_refused(tmp_path: Path, suffix: str, read: Callable[[Path], object]) -> None:
    saved = model()
    secret = save(saved, tmp_path / f"secret{suffix}")
    with h5py.File(secret) as file:
        names: list[str] = []
        file.visit(names.append)
    where = next(name for name in names if name.endswith(("dense/bias", "dense/vars/1")))
    raw = tmp_path / "raw"
    raw.write_bytes(bytes(8))
    source = h5py.VirtualSource(secret, where, (2,), np.float32)
    layout = h5py.VirtualLayout((2,), np.float32)
    layout[:] = source

    def outside(group: h5py.Group) -> None:
        group.create_dataset("x", (2,), np.float32, external=[(raw, 0, 8)])

    ways: list[Callable[[h5py.Group], object]] = [
        lambda group: group.__setitem__("x", h5py.ExternalLink(secret, where)),
        lambda group: group.__setitem__("x", h5py.SoftLink(f"/{where}")),
        lambda group: group.create_virtual_dataset("x", layout),
        outside,
    ]
    for way in ways:
        path = save(saved, tmp_path / f"m{suffix}")
        with h5py.File(path, "r+") as file:
            parent, name = file[where].parent, where.rpartition("/")[2]
            del parent[name]
            way(parent)
            parent.move("x", name)
        entry = where.removeprefix("model_weights/")
        with pytest.raises(ValueError, match=rf"m\S+ cannot be read: entry '{entry}' is not in the file but elsewhere"):
            read(path)


def test_the_whole_layout_elsewhere_is_refused_too(tmp_path: Path) -> None:
    secret = save(model(), tmp_path / "secret.h5")
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["model_weights"] = h5py.ExternalLink(secret, "model_weights")
    with pytest.raises(ValueError, match="entry 'model_weights' is not in the file but elsewhere"):
        read_weights(tmp_path / "m.h5")


def test_arrays_and_archives_that_claim_what_is_not_there_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m.weights.h5", "w") as file:
        file.create_dataset("layers/dense/vars/0", (1 << 20, 1 << 20), np.float32)
    with pytest.raises(ValueError, match=r"entry 'layers/dense/vars/0' claims 4398046511104 bytes, of which 0 are there"):
        read_weights(tmp_path / "m.weights.h5")
    with zipfile.ZipFile(tmp_path / "m.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", bytes(200 << 20))
    with pytest.raises(ValueError, match=r"its weights would grow from \d+ to 209715200 bytes"):
        read_weights(tmp_path / "m.keras")


def test_no_file_and_files_of_something_else_are_refused(tmp_path: Path) -> None:
    for read in (read_weights, lambda path: load_weights(KerasNetwork(model()), path)):
        with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*none\.keras"):
            read(tmp_path / "none.keras")
        with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
            archive.writestr("readme", "")
        with pytest.raises(ValueError, match=r"m\.keras cannot be read.*no item named 'model\.weights\.h5'"):
            read(tmp_path / "m.keras")


# ---- loading --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_network_answers_for_the_weights_it_was_given_through_what_it_has_traced(tmp_path: Path, suffix: str) -> None:
    saved, other = model(), model()
    saved.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    saved.fit(images(), np.zeros((4, 2)), verbose=0)
    path = save(saved, tmp_path / f"m{suffix}")
    network = KerasNetwork(other)
    before = network.activations(images(), network.layers)
    traced = list(getattr(network._backend, "_programs", {}).values())
    load_weights(network, path)
    assert same(other, saved)
    a, b = network.activations(images(), network.layers), KerasNetwork(saved).activations(images(), network.layers)
    for name in network.layers:
        assert a[name].tobytes() == b[name].tobytes()
        assert a[name].tobytes() != before[name].tobytes()
    assert list(getattr(network._backend, "_programs", {}).values()) == traced  # nothing was traced anew


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_optimizer_of_a_model_that_is_loaded_into_stays_as_it_is(tmp_path: Path, suffix: str) -> None:
    saved, other = model(), model()
    for made, epochs in ((saved, 3), (other, 1)):
        made.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
        made.fit(images(), np.ones((4, 2)), epochs=epochs, verbose=0)
    before = [keras.ops.convert_to_numpy(variable) for variable in other.optimizer.variables]
    load_weights(KerasNetwork(other), save(saved, tmp_path / f"m{suffix}"))
    assert same(other, saved)
    for variable, value in zip(other.optimizer.variables, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), value)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_part_of_the_saved_model_is_observed_with_its_weights(tmp_path: Path, suffix: str) -> None:
    saved, other = nested(0), nested(1)
    path = save(saved, tmp_path / f"m{suffix}")
    network = KerasNetwork(other.get_layer("encoder"))
    with pytest.raises(ValueError, match="does not fit model 'encoder'"):
        load_weights(network, path)
    load_weights(network, path, model=other)
    inputs = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)
    np.testing.assert_array_equal(network.outputs(inputs), KerasNetwork(saved.get_layer("encoder")).outputs(inputs))
    with pytest.raises(ValueError, match=r"'head' is a layer; pass model=, what it was saved in"):
        load_weights(KerasNetwork(other.get_layer("head")), path)


def test_a_file_with_a_lambda_is_loaded_into_the_model_in_hand_and_its_code_not_read(tmp_path: Path) -> None:
    def made() -> keras.Model:
        return keras.Sequential([keras.Input((3,)), L.Lambda(lambda x: x * 2), L.Dense(2)])

    saved, other = made(), made()
    load_weights(KerasNetwork(other), save(saved, tmp_path / "m.keras"))
    assert same(other, saved)


def dense(*units: int, dtype: str = "float32") -> keras.Model:
    return keras.Sequential([keras.Input((4,)), *(L.Dense(n, dtype=dtype) for n in units)])


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("saved", "why", "legacy"),
    [
        ((4,), "layers/dense_1/vars/0 is missing", "it holds 2 arrays, and the model has 4 variables"),
        ((4, 4, 4), "layers/dense_2/vars/0 is not in the model", "it holds 6 arrays, and the model has 4 variables"),
        ((4, 3), r"layers/dense_1/vars/0 is \(4, 3\), and the model's is \(4, 4\)", r"kernel is \(4, 3\), and the model's is \(4, 4\)"),
        ((4, 4, "float64"), "is float64, which would be rounded to the model's float32", "is float64, which would be rounded to the model's float32"),
    ],
)
def test_weights_that_do_not_fit_are_refused_and_the_model_stays_as_it_was(
    tmp_path: Path, suffix: str, saved: tuple[int, ...], why: str, legacy: str
) -> None:
    *units, dtype = saved if isinstance(saved[-1], str) else (*saved, "float32")
    path = save(dense(*units, dtype=dtype), tmp_path / f"m{suffix}")
    other = dense(4, 4)
    before = values(other)
    with pytest.raises(ValueError, match=rf"m\S+ does not fit model 'sequential\S*': .*{legacy if suffix == '.h5' else why}.*; build the model with"):
        load_weights(KerasNetwork(other), path)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(values(other), before, strict=True))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_narrower_weights_are_widened_exactly(tmp_path: Path, dtype: str) -> None:
    saved, other = dense(4, 4, dtype=dtype), dense(4, 4)
    load_weights(KerasNetwork(other), save(saved, tmp_path / "m.keras"))
    for a, b in zip(saved.variables, other.variables, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(keras.ops.cast(a, "float32")), keras.ops.convert_to_numpy(b))
    with pytest.raises(ValueError, match="is float32, which would be rounded to the model's"):
        load_weights(KerasNetwork(saved), save(other, tmp_path / "m.keras"))


def test_a_model_without_weights_is_refused(tmp_path: Path) -> None:
    class Subclassed(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.dense = L.Dense(2)

        def call(self, x: object) -> object:
            return self.dense(x)

    path = save(dense(2), tmp_path / "m.weights.h5")
    with pytest.raises(ValueError, match=r"cannot be loaded: 'subclassed\S*' has no weights yet; call it on one batch"):
        load_weights(KerasNetwork(Subclassed()), path)


def test_findings_of_loaded_weights_are_those_of_the_training_bit_for_bit(tmp_path: Path) -> None:
    live, offline = MemoryTracker(), MemoryTracker()
    train([ObserverCallback(probe(), tracker=live, checkpoints=tmp_path, strict=True)])
    network = KerasNetwork(training_model())
    observer = Observer(probe(), default_analyses(probe()), offline, strict=True)
    observer.start(network)
    for step, path in find(tmp_path).items():
        load_weights(network, path)
        observer.observe(network, step)
    for analysis in ("nap", "topomap", "saliency"):
        assert list(live.findings[analysis]) == list(offline.findings[analysis]) == [0, 1, 2]
        for step, findings in live.findings[analysis].items():
            assert in_bytes(findings) == in_bytes(offline.findings[analysis][step])


def in_bytes(findings: Findings) -> dict[str, object]:
    return {name: array.tobytes() for name, array in {**findings.arrays, **findings.images}.items()} | {"scalars": str(dict(findings.scalars))}


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="it starts this file on the other backend")
def test_all_of_this_holds_on_the_torch_backend_too() -> None:
    environment = os.environ | {"KERAS_BACKEND": "torch"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(Path(__file__))]
    program = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=Path(__file__).parent.parent, timeout=600)
    assert program.returncode == 0, program.stdout[-5000:]
