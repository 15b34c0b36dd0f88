"""Laws of the remedies in a Keras training: what is drawn, and what a loss counts, is what their definitions say."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from netlapse.analysis.fairness import effective_sample_size, sampling_weights
from netlapse.backends.keras import KerasNetwork
from netlapse.callbacks.keras import ObserverCallback
from netlapse.data.dataset import Dataset
from netlapse.tracking.memory import MemoryTracker
from netlapse.training.keras import fit
from netlapse.training.keras_remedies import GroupDROLoss, LabelAccuracy
from netlapse.training.remedies import JTT, Adaptive, GroupBalanced, GroupDRO, Remedy, group_dro_shares, group_dro_weights, groups_of
from netlapse.types import Array, Float64, ProbeSet

N = 90


def data() -> Dataset:
    """Vectors of two classes, their own numbers the last values; one in ten is rare, and the other way round."""
    random = np.random.default_rng(0)
    labels, rare = np.arange(N) % 2, np.arange(N) % 10 < 2
    inputs = random.normal(size=(N, 6)).astype(np.float32)
    inputs[:, 0] += np.where(rare, -2, 2) * (2 * labels - 1)
    inputs[rare, 1] += 4
    inputs[:, 5] = np.arange(N)
    kind = {"kind": np.where(rare, "rare", "common")}
    return Dataset("pairs", inputs, labels, inputs[:20], labels[:20], ("a", "b"), kind, {"kind": kind["kind"][:20]})


@keras.saving.register_keras_serializable("tests")
class Without(keras.layers.Layer):  # type: ignore[misc]
    """Without the last value."""

    def call(self, inputs: Any) -> Any:
        return inputs[:, :5]


def network() -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = keras.layers
    hidden = [layers.Dense(8, activation="relu", name="hidden"), layers.BatchNormalization(), layers.Dropout(0.2, name="dropout")]
    return keras.Sequential([keras.Input((6,)), Without(), *hidden, layers.Dense(2, name="head")])


def trained(remedy: Remedy | None, epochs: int = 3, **options: Any) -> tuple[keras.Model, dict[str, list[float]], list[Mapping[str, float]]]:
    model, told = network(), []
    history = fit(
        model, data(), remedy=remedy, max_epochs=epochs, batch_size=16, progress=False, learning_rate=1e-2,
        metrics=lambda values, step: told.append(values), **options,
    )  # fmt: skip
    return model, history.history, told


def test_adaptive_draws_by_the_features_and_tells_everybody() -> None:
    tracker = MemoryTracker()
    observer = ObserverCallback(ProbeSet(data().test_inputs, data().test_labels), {}, tracker=tracker)
    _, history, told = trained(Adaptive(alpha=0.01), callbacks=[observer])
    weights = sampling_weights(KerasNetwork(network()).responses(data().train_inputs, ["dropout"]).mean["dropout"], data().train_labels, alpha=0.01)
    for name, value in (("ess", effective_sample_size(weights) / N), ("share/kind/rare", weights[np.arange(N) % 10 < 2].sum())):
        assert told[0][f"sampling/{name}"] == pytest.approx(value, rel=1e-5)
        assert history[f"sampling/{name}"][0] == told[0][f"sampling/{name}"]
        assert tracker.recording().scalars[f"training/sampling/{name}"].at(1) == told[0][f"sampling/{name}"]
    assert told[1]["sampling/ess"] != told[0]["sampling/ess"]
    assert {"train_loss", "train_accuracy", "val_loss", "val_accuracy"} <= set(told[0])


def test_group_balanced_gives_every_group_the_same_share() -> None:
    _, _, told = trained(GroupBalanced("kind"))
    # Of the ninety two of each ten are rare, one of each class.
    assert told[2]["sampling/share/kind/rare"] == pytest.approx(1 / 2, rel=1e-9)
    assert told[2]["sampling/ess"] == pytest.approx(1 / (N * (2 / 16 / 9 + 2 / 16 / 36)), rel=1e-9)
    with pytest.raises(ValueError, match=r"goes by attribute 'age'.*pairs has \['kind'\]"):
        trained(GroupBalanced("age"))


# ---- group DRO ------------------------------------------------------------------------------------------------------


def literal(weights: Float64, losses: Float64, groups: Array, step_size: float) -> tuple[Float64, float]:
    """Sagawa et al. (2020), algorithm 1, over the groups of a batch."""
    means = [losses[groups == group].mean() if (groups == group).any() else 0.0 for group in range(len(weights))]
    raised = np.array([weight * np.exp(step_size * mean) for weight, mean in zip(weights, means)])
    raised /= raised.sum()
    return raised, float(sum(weight * mean for weight, mean in zip(raised, means)))


def cross_entropies(logits: Array, labels: Array) -> Float64:
    logits = logits.astype(np.float64)
    found: Float64 = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(labels)), labels]
    return found


def test_the_loss_is_the_definition_batch_after_batch_also_without_a_group() -> None:
    random = np.random.default_rng(0)
    loss, weights = GroupDROLoss(["a", "b", "c", "d"], 0.3), np.full(4, 0.25)
    for size in (12, 9, 1):
        labels, groups = random.integers(0, 3, size), random.integers(0, 3, size)  # nobody is of the fourth
        logits = random.normal(size=(size, 3)).astype(np.float32) * 3
        found = float(loss(np.stack([labels, groups], axis=1), ops.convert_to_tensor(logits)))
        losses = cross_entropies(logits, labels)
        sums, sizes = np.bincount(groups, losses, 4), np.bincount(groups, minlength=4).astype(float)
        shared = group_dro_weights(weights, sums, sizes, 0.3)  # what torch's training goes by
        shares = group_dro_shares(shared, groups, sizes)
        weights, expected = literal(weights, losses, groups, 0.3)
        np.testing.assert_allclose(ops.convert_to_numpy(loss.group_weights), weights, rtol=1e-5)
        np.testing.assert_allclose(shared, weights, rtol=1e-12)
        assert found == pytest.approx(expected, rel=1e-5)
        assert found == pytest.approx(float(shares @ losses), rel=1e-5)
    labels, logits = np.array([0, 2, 1]), random.normal(size=(3, 3)).astype(np.float32)
    assert float(loss(labels, ops.convert_to_tensor(logits))) == pytest.approx(cross_entropies(logits, labels).mean(), rel=1e-5)
    np.testing.assert_allclose(ops.convert_to_numpy(loss.group_weights), weights, rtol=1e-5)  # validation changes nothing


def test_a_training_by_group_dro_is_that_of_its_definition() -> None:
    """One step of SGD a batch, of a linear network whose gradient is known; the batches are all inputs."""
    step_size, rate = 2.0, 0.2
    groups, names = groups_of(data(), "kind", "label_and_attribute")
    layers = keras.layers
    model = keras.Sequential([keras.Input((6,)), Without(), layers.Dense(2, kernel_initializer="zeros")])
    told: list[Mapping[str, float]] = []
    fit(model, data(), remedy=GroupDRO("kind", step_size=step_size), max_epochs=4, batch_size=N, optimizer="sgd", learning_rate=rate,
        progress=False, metrics=lambda values, step: told.append(values))  # fmt: skip
    inputs, labels = data().train_inputs[:, :5].astype(np.float64), data().train_labels
    kernel, bias, weights = np.zeros((5, 2)), np.zeros(2), np.full(4, 0.25)
    for epoch in range(4):
        logits = inputs @ kernel + bias
        weights, loss = literal(weights, cross_entropies(logits, labels), groups, step_size)
        assert told[epoch]["train_loss"] == pytest.approx(loss, rel=1e-5)
        for name, weight in zip(names, weights):
            assert told[epoch][f"group_dro/weight/{name}"] == pytest.approx(weight, rel=1e-5)
        assert told[epoch]["train_accuracy"] == pytest.approx((logits.argmax(axis=1) == labels).mean(), rel=1e-6)
        share = weights[groups] / np.bincount(groups)[groups]
        slope = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True) - np.eye(2)[labels]) * share[:, None]
        kernel, bias = kernel - rate * inputs.T @ slope, bias - rate * slope.sum(axis=0)
        validated = data().test_inputs[:, :5] @ kernel + bias
        assert told[epoch]["val_loss"] == pytest.approx(cross_entropies(validated, data().test_labels).mean(), rel=1e-4)
    np.testing.assert_allclose(model.get_weights()[0], kernel, rtol=1e-4, atol=1e-6)
    assert weights.max() > 1.2 * weights.min()


def test_group_dro_of_a_network_with_a_loss_of_its_own_is_refused() -> None:
    class Own(keras.Sequential):  # type: ignore[misc]
        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            return super().compute_loss(*args, **kwargs)

    with pytest.raises(ValueError, match="weighs the cross entropy of each input, and Own has a loss of its own"):
        fit(Own([keras.Input((6,)), keras.layers.Dense(2)]), data(), remedy=GroupDRO("kind"))


def test_accuracy_is_of_the_labels_whether_or_not_groups_stand_beside_them() -> None:
    labels, logits = np.array([0, 1, 1, 0]), np.eye(2, dtype=np.float32)[[0, 1, 0, 0]]
    for given in (labels, np.stack([labels, [5, 5, 6, 7]], axis=1)):
        metric = LabelAccuracy("accuracy")
        metric.update_state(given, logits)
        assert float(metric.result()) == 0.75


# ---- JTT ------------------------------------------------------------------------------------------------------------


def test_jtt_draws_more_of_exactly_what_the_first_training_has_wrong_and_trains_from_the_same_weights() -> None:
    first, _, _ = trained(None, epochs=1)
    wrong = KerasNetwork(first).outputs(data().train_inputs).argmax(axis=1) != data().train_labels
    assert 5 < wrong.sum() < N - 5
    seen: list[list[Array]] = []

    class Begins(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_begin(self, logs: Any = None) -> None:
            seen.append([ops.convert_to_numpy(variable).copy() for variable in self.model.variables[: len(network().variables)]])

    _, _, told = trained(JTT(epochs=1, upweight=5.0), callbacks=[Begins()])
    assert len(told) == 3  # of the second training alone
    weights = np.where(wrong, 5.0, 1.0)
    assert told[0]["sampling/ess"] == pytest.approx(effective_sample_size(weights) / N, rel=1e-9)
    assert told[0]["sampling/largest"] == pytest.approx(5 * N / weights.sum(), rel=1e-9)
    rare = np.arange(N) % 10 < 2
    assert told[2]["sampling/share/kind/rare"] == pytest.approx(weights[rare].sum() / weights.sum(), rel=1e-9)
    assert len(seen) == 1
    for found, expected in zip(seen[0], network().variables, strict=True):
        np.testing.assert_array_equal(found, ops.convert_to_numpy(expected))


def test_jtt_refuses_what_has_no_weights_or_diverges() -> None:
    with pytest.raises(ValueError, match="trains 'fresh' twice from the same weights, and it has none yet"):
        fit(keras.Sequential([keras.layers.Dense(2)], name="fresh"), data(), remedy=JTT())
    with pytest.raises(ValueError, match="first training of JTT diverged"):
        fit(network(), data(), remedy=JTT(), optimizer="sgd", learning_rate=1e30, progress=False)


def test_a_training_without_a_remedy_is_the_one_it_has_always_been() -> None:
    model, history, _ = trained(None)
    again = network()
    keras.utils.set_random_seed(0)
    again.compile(
        keras.optimizers.Adam(1e-2, epsilon=1e-8), keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy("accuracy")],
    )  # fmt: skip
    given = data()
    expected = again.fit(given.train_inputs, given.train_labels, batch_size=16, epochs=3, verbose=0,
                         validation_data=(given.test_inputs, given.test_labels)).history  # fmt: skip
    assert history == expected
    for one, other in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("remedy", [Adaptive(), GroupBalanced("kind"), GroupDRO("kind"), JTT(epochs=1)], ids=lambda remedy: type(remedy).__name__)
def test_a_seed_makes_the_same_training_again(remedy: Remedy) -> None:
    one, other = trained(remedy), trained(remedy)
    assert one[2] == other[2]
    for found, expected in zip(one[0].get_weights(), other[0].get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="this is it")
def test_all_of_this_holds_on_the_torch_backend() -> None:
    root = Path(__file__).parent.parent
    program = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", str(Path(__file__))],
        capture_output=True, text=True, cwd=root, timeout=600, env=os.environ | {"KERAS_BACKEND": "torch", "PYTHONPATH": str(root)},
    )  # fmt: skip
    assert program.returncode == 0, program.stdout[-4000:]
