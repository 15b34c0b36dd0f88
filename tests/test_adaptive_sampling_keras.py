"""Laws of drawing adaptively in Keras: the indices are those of torch, what the weights say is what is drawn, also after going on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from netlapse.analysis.fairness import effective_sample_size, sampling_weights
from netlapse.backends.keras import KerasNetwork
from netlapse.callbacks import sampling
from netlapse.callbacks.keras import ObserverCallback
from netlapse.callbacks.keras_sampling import AdaptiveBatches, AdaptiveSampling, WeightedSampling
from netlapse.schedule import every_epoch
from netlapse.tracking.memory import MemoryTracker
from netlapse.types import Array, Float64, ProbeSet

N = 60
SEEN: list[int] = []
"""The numbers of the inputs that were trained on."""


def data() -> tuple[Array, Array]:
    """Vectors of two classes, some of them far off, with their own number as a last value that no weight sees."""
    inputs = np.random.default_rng(0).normal(size=(N, 6)).astype(np.float32)
    inputs[:4, 2] += 6
    inputs[:, 5] = np.arange(N)
    return inputs, np.arange(N) % 2


@keras.saving.register_keras_serializable("tests")
class Numbered(keras.layers.Layer):  # type: ignore[misc]
    """Notes the last value of each input that is trained on, and passes the others on."""

    def call(self, inputs: Any, training: bool = False) -> Any:
        if training and not isinstance(inputs, keras.KerasTensor) and hasattr(inputs, "numpy"):
            SEEN.extend(int(value) for value in keras.ops.convert_to_numpy(inputs[:, 5]))
        return inputs[:, :5]


def network(dropout: float = 0.0) -> keras.Model:
    """Without dropout, of whose random state Keras keeps nothing in its files."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    hidden = [layers.BatchNormalization(momentum=0.9), layers.Dense(8, activation="relu", name="hidden"), layers.Dropout(dropout, seed=1)]
    made = keras.Sequential([keras.Input((6,)), Numbered(), *hidden, layers.Dense(2, name="head")])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    made.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss, run_eagerly=True)
    return made


class Watched(keras.callbacks.Callback):  # type: ignore[misc]
    """The last of the callbacks: notes the weights of each epoch, what it sees, and the layer's responses before it."""

    def __init__(self, batches: AdaptiveBatches, stop: int | None = None) -> None:
        super().__init__()
        self.batches, self.stop = batches, stop
        self.used: dict[int, Float64] = {}
        self.seen: dict[int, list[int]] = {}
        self.responses: dict[int, Array] = {}

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        if epoch == self.stop:
            raise InterruptedError
        self.used[epoch] = self.batches.weights.copy()
        self.responses[epoch] = KerasNetwork(self.model).responses(data()[0], ["hidden"]).mean["hidden"]
        SEEN.clear()

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        self.seen[epoch] = list(SEEN)


def fitted(
    epochs: int, *, model: keras.Model | None = None, before: Sequence[Any] = (), after: Sequence[Any] = (), stop: int | None = None,
    first: int = 0, workers: dict[str, Any] | None = None, sampling: type[AdaptiveSampling] = AdaptiveSampling, **options: Any,
) -> tuple[keras.Model, Watched]:  # fmt: skip
    model = model or network()
    batches = AdaptiveBatches(*data(), batch_size=7, seed=3, **(workers or {}))
    watched = Watched(batches, stop)
    callbacks = [*before, sampling(batches, **options), *after, watched]
    try:
        model.fit(batches, epochs=epochs, initial_epoch=first, callbacks=callbacks, shuffle=False, verbose=0)
    except InterruptedError:
        assert stop is not None
    return model, watched


def drawn(weights: Float64, epoch: int) -> list[int]:
    found: list[int] = sampling.drawn(weights, N, seed=3, epoch=epoch).tolist()
    return found


@pytest.mark.parametrize(
    "workers", [{}, {"workers": 3, "max_queue_size": 20}, {"workers": 2, "use_multiprocessing": True}], ids=["alone", "threads", "processes"]
)
def test_every_epoch_is_drawn_by_weights_of_the_network_as_it_stands_before_it(workers: dict[str, Any]) -> None:
    _, watched = fitted(3, workers=workers)
    for epoch in range(3):
        assert watched.seen[epoch] == drawn(watched.used[epoch], epoch)
        np.testing.assert_allclose(watched.used[epoch], sampling_weights(watched.responses[epoch], data()[1]), rtol=1e-6)
    assert np.abs(watched.used[2] - watched.used[0]).max() > 1e-4


@pytest.mark.parametrize("workers", [{"workers": 3}, {"workers": 2, "use_multiprocessing": True}], ids=["threads", "processes"])
def test_what_keras_looks_at_before_the_first_epoch_is_not_trained_on(workers: dict[str, Any]) -> None:
    """On the torch backend, each time a model is compiled, at a batch through its workers, who read more."""
    model = network()
    for _ in range(2):
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"], run_eagerly=True)
        _, watched = fitted(2, model=model, workers=workers)
        assert watched.seen == {epoch: drawn(weights, epoch) for epoch, weights in watched.used.items()}


def test_the_indices_are_those_of_torch_by_the_same_weights_and_by_the_same_network() -> None:
    import torch
    from torch import nn

    from netlapse.analysis.fairness.sampling import last_hidden
    from netlapse.backends.torch import TorchNetwork
    from netlapse.callbacks.lightning_sampling import AdaptiveSampler

    _, watched = fitted(2)
    sampler = AdaptiveSampler(N, seed=3)
    for epoch in range(2):
        sampler.weights = watched.used[epoch]
        sampler.set_epoch(epoch)
        assert list(sampler) == watched.seen[epoch]
    kernel, bias = network().get_layer("hidden").get_weights()
    twin = nn.Sequential(nn.BatchNorm1d(5, eps=1e-3), nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 2))
    with torch.no_grad():
        twin[1].weight.copy_(torch.from_numpy(kernel.T))
        twin[1].bias.copy_(torch.from_numpy(bias))
    seen = TorchNetwork(twin)
    inputs = data()[0][:, :5]
    features = seen.responses(inputs, [last_hidden(seen, inputs)]).mean["2"]
    sampler.weights = sampling_weights(features, data()[1])
    sampler.set_epoch(0)
    assert list(sampler) == watched.seen[0]


def test_the_options_are_those_of_the_weights() -> None:
    _, watched = fitted(1, rule="product", bins=4, alpha=0.5, layer="head", batch_size=11)
    features = KerasNetwork(network()).responses(data()[0], ["head"]).mean["head"]
    np.testing.assert_allclose(watched.used[0], sampling_weights(features, data()[1], rule="product", bins=4, alpha=0.5), rtol=1e-6)
    _, watched = fitted(1, rule="product", target_ess=0.4)
    assert effective_sample_size(watched.used[0]) / N == pytest.approx(0.4, abs=2e-3)


# ---- going on -------------------------------------------------------------------------------------------------------


def assert_goes_on(whole: tuple[keras.Model, Watched], on: tuple[keras.Model, Watched], epochs: Sequence[int]) -> None:
    assert sorted(on[1].seen) == list(epochs)
    for epoch in epochs:
        np.testing.assert_array_equal(on[1].used[epoch], whole[1].used[epoch])
        assert on[1].seen[epoch] == whole[1].seen[epoch]
    for found, expected in zip(on[0].get_weights(), whole[0].get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_training_that_is_restored_is_bit_for_bit_the_one_that_was_not_interrupted(tmp_path: Path) -> None:
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    fitted(4, after=[backup], stop=2)
    on = fitted(4, after=[keras.callbacks.BackupAndRestore(tmp_path / "backup")])
    assert_goes_on(fitted(4), on, [2, 3])


def test_a_training_that_goes_on_from_a_file_is_bit_for_bit_the_one_that_was_not_interrupted(tmp_path: Path) -> None:
    half, _ = fitted(2)
    half.save(tmp_path / "half.keras")
    loaded = keras.models.load_model(tmp_path / "half.keras")
    assert_goes_on(fitted(4), fitted(4, model=loaded, first=2), [2, 3])


def test_weights_may_be_refreshed_more_rarely_and_are_never_guessed() -> None:
    model, watched = fitted(4, every_n_epochs=2)
    np.testing.assert_array_equal(watched.used[1], watched.used[0])
    np.testing.assert_array_equal(watched.used[3], watched.used[2])
    assert np.abs(watched.used[2] - watched.used[0]).max() > 1e-4
    with pytest.raises(ValueError, match=r"goes on at epoch 3 with weights of epoch 2.*every_n_epochs=2 divides, or refresh them every epoch"):
        fitted(4, model=model, first=3, every_n_epochs=2)
    batches = AdaptiveBatches(*data(), batch_size=7, seed=3)
    sampling, again = AdaptiveSampling(batches, every_n_epochs=2), Watched(batches)
    model = network()
    for first, last in ((0, 1), (1, 2)):  # whoever has them goes on with them
        model.fit(batches, initial_epoch=first, epochs=last, callbacks=[sampling, again], shuffle=False, verbose=0)
    assert again.seen == {epoch: watched.seen[epoch] for epoch in (0, 1)}
    with pytest.raises(ValueError, match="goes on at epoch 1 with weights of epoch 0"):  # of another network
        network().fit(batches, initial_epoch=1, epochs=2, callbacks=[sampling], shuffle=False, verbose=0)


# ---- what is left of it ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [True, False], ids=["before the observer", "after the observer"])
def test_what_is_logged_is_of_the_weights_that_were_drawn_by_whoever_comes_first(first: bool) -> None:
    inputs, labels = data()
    tracker = MemoryTracker()
    observer = ObserverCallback(ProbeSet(inputs[:10], labels[:10]), {}, tracker=tracker, schedule=every_epoch())
    kind = np.where(np.arange(N) < 4, "rare", "common")
    model, watched = fitted(3, **{"after" if first else "before": [observer]}, groups={"kind": kind})
    scalars = tracker.recording().scalars
    for epoch, weights in watched.used.items():
        expected = {
            "sampling/ess": effective_sample_size(weights) / N,
            "sampling/largest": weights.max() * N,
            "sampling/share/kind/rare": weights[:4].sum(),
            "sampling/share/kind/common": weights[4:].sum(),
        }
        for name, value in expected.items():
            assert scalars[f"training/{name}"].at(epoch + 1) == pytest.approx(value, rel=1e-9)
            assert model.history.history[name][epoch] == pytest.approx(value, rel=1e-9)
    assert scalars["training/sampling/ess"].steps.tolist() == [1, 2, 3]
    assert watched.used[0][:4].sum() > 1.5 * 4 / N


def test_a_draw_that_few_inputs_take_is_said(caplog: pytest.LogCaptureFixture) -> None:
    fitted(1, rule="product", alpha=0.0, least_ess=0.9)
    assert "the sampling weights for epoch 0 are as good as a draw from" in caplog.text
    assert "target_ess=0.5" in caplog.text


class Replayed(WeightedSampling):
    """Draws by weights that are known, without a look at the network."""

    def __init__(self, batches: AdaptiveBatches, weights: dict[int, Float64]) -> None:
        super().__init__(batches)
        self.known = weights

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.batches.weights = self.known[epoch]
        super().on_epoch_begin(epoch, logs)


def test_looking_at_the_features_changes_nothing_of_the_training() -> None:
    model, watched = fitted(3, model=network(0.2))
    random = [np.random.get_state()[1].copy(), keras.ops.convert_to_numpy(keras.random.uniform((3,)))]  # type: ignore[union-attr]  # noqa: NPY002
    same, again = fitted(3, model=network(0.2), sampling=Replayed, weights=watched.used)  # type: ignore[arg-type]
    assert again.seen == watched.seen
    after = [np.random.get_state()[1], keras.ops.convert_to_numpy(keras.random.uniform((3,)))]  # type: ignore[union-attr]  # noqa: NPY002
    for one, other in zip([*model.get_weights(), *random], [*same.get_weights(), *after], strict=True):
        np.testing.assert_array_equal(one, other)


def test_weights_that_are_given_are_drawn_by_in_every_epoch_anew() -> None:
    batches = AdaptiveBatches(*data(), batch_size=7, seed=3)
    batches.weights = np.where(np.arange(N) < 20, 0.05, 0.0)
    watched = Watched(batches)
    network().fit(batches, epochs=2, callbacks=[WeightedSampling(batches), watched], shuffle=False, verbose=0)
    assert watched.seen == {epoch: drawn(batches.weights, epoch) for epoch in (0, 1)}
    assert watched.seen[0] != watched.seen[1]
    assert max(watched.seen[0]) < 20


def test_without_a_callback_every_epoch_is_an_even_draw_of_its_own() -> None:
    batches = AdaptiveBatches(*data(), batch_size=7, seed=3)
    watched = Watched(batches)
    network().fit(batches, epochs=10, callbacks=[watched], shuffle=False, verbose=0)
    assert len({tuple(seen) for seen in watched.seen.values()}) == 10
    assert all(sorted(seen) == list(range(N)) for seen in watched.seen.values())


def test_labels_may_be_one_hot_and_inputs_a_memory_map(tmp_path: Path) -> None:
    inputs, labels = data()
    np.save(tmp_path / "inputs.npy", inputs)
    found = []
    for given in ((inputs, labels), (np.load(tmp_path / "inputs.npy", mmap_mode="r"), np.eye(2, dtype=np.float32)[labels])):
        model = network()
        if given[1].ndim == 2:
            model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True))
        batches = AdaptiveBatches(*given)
        model.fit(batches, callbacks=[AdaptiveSampling(batches)], shuffle=False, verbose=0)
        found.append(batches.weights)
    np.testing.assert_array_equal(found[1], found[0])


# ---- what cannot be -------------------------------------------------------------------------------------------------


def stream() -> Iterator[tuple[Array, Array]]:
    yield data()


def test_data_that_have_no_rows_are_refused() -> None:
    given: list[Any] = [stream(), AdaptiveBatches(*data())]
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        given.append(tf.data.Dataset.from_tensor_slices(data()))
    for each in given:
        with pytest.raises(TypeError, match=rf"{type(each).__name__}, whose inputs cannot be drawn one by one; .*weigh the loss of each input"):
            AdaptiveBatches(each)
    with pytest.raises(TypeError, match="was given a NoneType"):
        AdaptiveBatches(data()[0])


def test_what_cannot_be_is_refused() -> None:
    inputs, labels = data()
    with pytest.raises(ValueError, match="60 inputs, 59 labels and batch_size=64; expected as many of both"):
        AdaptiveBatches(inputs, labels[:59])
    with pytest.raises(ValueError, match="0 inputs, 0 labels"):
        AdaptiveBatches(inputs[:0], labels[:0])
    with pytest.raises(ValueError, match="batch_size=0"):
        AdaptiveBatches(inputs, labels, batch_size=0)
    batches = AdaptiveBatches(inputs, labels)
    with pytest.raises(ValueError, match=r"draws from 60 inputs.*groups of other lengths: \{'kind': 3\}"):
        AdaptiveSampling(batches, groups={"kind": np.array(["a", "b", "c"])})
    with pytest.raises(ValueError, match="every_n_epochs=0; expected at least 1"):
        AdaptiveSampling(batches, every_n_epochs=0)


def refused(message: str, *given: Any, callbacks: Sequence[Any], **options: Any) -> None:
    model = network()
    with pytest.raises(ValueError, match=message):
        model.fit(*given, callbacks=list(callbacks), verbose=0, **options)
    assert int(model.optimizer.iterations) == 0


def test_what_cannot_work_is_said_before_the_first_batch() -> None:
    inputs, labels = data()
    batches = AdaptiveBatches(inputs, labels)
    sampling = AdaptiveSampling(batches)
    refused("draws from other data than AdaptiveSampling; train on its batches", inputs, labels, callbacks=[sampling])
    network().fit(batches, callbacks=[sampling], shuffle=False, verbose=0)
    refused("draws from other data than AdaptiveSampling; train on its batches", inputs, labels, callbacks=[sampling])  # although an earlier one did
    for steps in (2, 5):
        few = AdaptiveBatches(inputs, labels, batch_size=20)
        refused(f"steps_per_epoch={steps}, and 3 batches are drawn", few, callbacks=[AdaptiveSampling(few)], steps_per_epoch=steps)
    refused(r"no layer named \['conv9'\]", batches, callbacks=[AdaptiveSampling(batches, layer="conv9")])
    unbuilt = keras.Sequential([keras.layers.Dense(8), keras.layers.Dense(2)])
    unbuilt.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    if keras.backend.backend() == "tensorflow":  # torch has built it by then
        with pytest.raises(ValueError, match=r"no weights yet.*call the model on one batch first"):
            unbuilt.fit(batches, callbacks=[AdaptiveSampling(batches)], verbose=0)
    broken = inputs.copy()
    broken[7, 0] = np.nan
    batches = AdaptiveBatches(broken, labels)
    refused("the features of 1 of 60 inputs hold NaN or infinity, first of input 7", batches, callbacks=[AdaptiveSampling(batches)])


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="this is it")
def test_all_of_this_holds_on_the_torch_backend() -> None:
    root = Path(__file__).parent.parent
    program = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", str(Path(__file__))],
        capture_output=True, text=True, cwd=root, timeout=600, env=os.environ | {"KERAS_BACKEND": "torch", "PYTHONPATH": str(root)},
    )  # fmt: skip
    assert program.returncode == 0, program.stdout[-4000:]
