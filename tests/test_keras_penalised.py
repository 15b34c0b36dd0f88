"""Laws of penalties in Keras: the numbers of torch, changes without another trace, files, and right for the right reasons; on both backends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from netlapse.callbacks.keras import CheckpointCallback
from netlapse.data.dataset import Dataset
from netlapse.penalties import penalties_of
from netlapse.training.keras import fit
from netlapse.training.keras_penalised import PenalisedLoss
from netlapse.training.keras_reasons import right_reasons
from netlapse.training.penalty import Penalty
from netlapse.training.remedies import JTT, GroupDRO
from netlapse.types import Array, Float32, Float64, ProbeSet

K, N = 4, 24
GIVEN: dict[str, Any] = {"class_weights": [1, 0.5, 3, 0], "confusions": {"2->1": 4.0, "0->3": 0.0, "1->0": 7.0}}


def batch() -> tuple[Float32, Array]:
    random = np.random.default_rng(0)
    return (2 * random.normal(size=(N, K))).astype(np.float32), random.integers(0, K, N)


def crossed() -> keras.losses.Loss:
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def softmax(logits: Float32) -> Float64:
    raised = np.exp(logits.astype(np.float64))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def literal(logits: Float32, labels: Array) -> Float64:
    """(n,) of GIVEN, input by input."""
    weights, matrix = np.array(GIVEN["class_weights"]), np.ones((K, K))
    matrix[2, 1], matrix[0, 3], matrix[1, 0] = 4, 0, 7
    return np.array([-np.log(row[y]) * weights[y] * (matrix[y] @ row) for row, y in zip(softmax(logits), labels)])


def test_the_loss_is_the_definition_for_labels_of_every_form() -> None:
    logits, labels = batch()
    expected = literal(logits, labels)
    one_hot = np.eye(K, dtype=np.float32)[labels]
    whole = keras.losses.CategoricalCrossentropy(from_logits=True)
    as_probabilities = keras.losses.SparseCategoricalCrossentropy()
    for loss, targets, outputs in (
        (crossed(), labels, logits),
        (crossed(), labels[:, None], logits),
        (whole, one_hot, logits),
        (as_probabilities, labels, softmax(logits).astype(np.float32)),
        (keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum"), labels, logits),
    ):
        found = float(PenalisedLoss(loss, K, **GIVEN)(targets, outputs))
        assert found == pytest.approx(expected.sum() if loss.reduction == "sum" else expected.mean(), rel=1e-5)
    named = PenalisedLoss("sparse_categorical_crossentropy", K, from_logits=False, **GIVEN)
    assert float(named(labels, softmax(logits).astype(np.float32))) == pytest.approx(expected.mean(), rel=1e-5)


def test_the_numbers_are_torchs() -> None:
    import torch
    from torch.nn.functional import cross_entropy

    from netlapse.training.penalised import penalised

    logits, labels = batch()
    ours = float(PenalisedLoss(crossed(), K, **GIVEN)(labels, logits))
    assert ours == pytest.approx(penalised(cross_entropy, K, **GIVEN)(torch.from_numpy(logits), torch.from_numpy(labels)).item(), rel=1e-6)


def network(k: int = K) -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(8, activation="tanh", name="hidden"), keras.layers.BatchNormalization(), keras.layers.Dropout(0.2)]
    return keras.Sequential([keras.Input((6,)), *layers, keras.layers.Dense(k, name="head")])


def vectors() -> tuple[Float32, Array]:
    random = np.random.default_rng(1)
    return random.normal(size=(N, 6)).astype(np.float32), random.integers(0, K, N)


def trained(loss: keras.losses.Loss, epochs: int = 2, callbacks: Any = (), **options: Any) -> tuple[keras.Model, dict[str, list[float]]]:
    model, (x, y) = network(), vectors()
    keras.utils.set_random_seed(1)
    model.compile(keras.optimizers.SGD(0.5, momentum=0.9), loss)
    return model, model.fit(x, y, batch_size=8, epochs=epochs, verbose=0, callbacks=list(callbacks), **options).history


def weights_of(model: keras.Model) -> bytes:
    return b"".join(value.tobytes() for value in model.get_weights())


def test_at_one_a_training_is_the_same_bit_for_bit() -> None:
    plain, history = trained(crossed())
    neutral, told = trained(PenalisedLoss(crossed(), K))
    assert weights_of(plain) == weights_of(neutral)
    assert history == told
    assert weights_of(trained(PenalisedLoss(crossed(), K, **GIVEN))[0]) != weights_of(plain)


def test_class_weights_are_those_of_fit() -> None:
    weights = [1.0, 0.5, 3.0, 0.0]
    ours, _ = trained(PenalisedLoss(crossed(), K, class_weights=weights))
    theirs, _ = trained(crossed(), class_weight=dict(enumerate(weights)))
    for own, their in zip(ours.get_weights(), theirs.get_weights()):
        np.testing.assert_allclose(own, their, atol=1e-6)


class At(keras.callbacks.Callback):  # type: ignore[misc]
    """Sets a penalty before a batch, and counts traces of the training step."""

    def __init__(self, batch: int, name: str, value: float) -> None:
        super().__init__()
        self.due, self.name, self.value, self.seen = batch, name, value, 0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if self.seen == self.due:
            penalties = penalties_of(self.model)
            assert penalties is not None
            penalties.set(self.name, self.value)
        self.seen += 1


class Counted(keras.losses.SparseCategoricalCrossentropy):  # type: ignore[misc]
    """How often it was called by Python: once for each trace."""

    calls = 0

    def call(self, y_true: Any, y_pred: Any) -> Any:
        self.calls += 1
        return super().call(y_true, y_pred)


def test_what_is_set_changes_the_compiled_training_from_that_batch_on_without_another_trace() -> None:
    plain, _ = trained(crossed())
    given, _ = trained(PenalisedLoss(crossed(), K, confusions={"2->1": 5.0}))
    counted = Counted(from_logits=True)
    early, _ = trained(PenalisedLoss(counted, K), callbacks=[At(0, "penalise.2->1", 5.0)])
    once = Counted(from_logits=True)
    late, _ = trained(PenalisedLoss(once, K), callbacks=[At(3, "penalise.2->1", 5.0)])
    never, _ = trained(PenalisedLoss(crossed(), K), callbacks=[At(99, "penalise.2->1", 5.0)])
    assert weights_of(early) == weights_of(given)
    assert weights_of(never) == weights_of(plain)
    assert len({weights_of(model) for model in (plain, early, late)}) == 3
    reference = Counted(from_logits=True)
    trained(PenalisedLoss(reference, K))
    assert counted.calls == once.calls == reference.calls
    if keras.backend.backend() == "tensorflow":
        assert once.calls < 6  # batches


def test_penalties_are_in_the_file_of_a_model_as_they_were_set(tmp_path: Path) -> None:
    model, _ = trained(PenalisedLoss(crossed(), K, class_weights=[1, 2, 3, 4]))
    penalties = penalties_of(model)
    assert penalties is not None
    penalties.set("penalise.0->3", 0.25)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    found = penalties_of(again)
    assert found is not None
    np.testing.assert_array_equal(found.class_weights, penalties.class_weights)
    np.testing.assert_array_equal(found.confusions, penalties.confusions)
    x, y = vectors()
    assert again.evaluate(x, y, verbose=0) == pytest.approx(model.evaluate(x, y, verbose=0))
    found.set("class_weight.0", 9.0)
    assert again.evaluate(x, y, verbose=0) != pytest.approx(model.evaluate(x, y, verbose=0))


def test_what_cannot_be_says_why() -> None:
    with pytest.raises(ValueError, match=r"'sparse_categorical_crossentropy', which does not say whether the model's outputs are logits"):
        PenalisedLoss("sparse_categorical_crossentropy", K)
    logits, labels = batch()
    with pytest.raises(ValueError, match=r"gave \(\); expected \(n,\), the loss of each input: return it before its mean"):
        PenalisedLoss(lambda y, z: ops.mean(z), K, from_logits=True)(labels, logits)
    with pytest.raises(ValueError, match=r"penalties of 5 classes were given outputs \(24, 4\); expected \(n, 5\)"):
        PenalisedLoss(crossed(), 5)(labels, logits)


# ---- right for the right reasons ------------------------------------------------------------------------------------


def data(n: int = N, k: int = 2) -> Dataset:
    random = np.random.default_rng(0)
    images = random.random((n, 4, 4, 1)).astype(np.float32)
    labels = np.arange(n) % k
    kind = {"kind": np.where(np.arange(n) % 3 == 0, "rare", "common")}
    return Dataset("random", images, labels, images[:8], labels[:8], [str(i) for i in range(k)], kind, {"kind": kind["kind"][:8]})


def convolved() -> keras.Model:
    keras.utils.set_random_seed(0)
    parts = [keras.layers.Conv2D(3, 3, activation="relu", name="conv"), keras.layers.BatchNormalization(), keras.layers.MaxPooling2D(2)]
    return keras.Sequential([keras.Input((4, 4, 1)), *parts, keras.layers.Flatten(), keras.layers.Dropout(0.2), keras.layers.Dense(2, name="head")])


def first_row(inputs: ProbeSet) -> Float32:
    masks = np.zeros(inputs.inputs.shape[:3], np.float32)
    masks[:, 0] = 1
    return masks


def run(penalty: Penalty | None, model: keras.Model | None = None, **options: Any) -> tuple[keras.Model, dict[str, list[float]]]:
    model = model or convolved()
    history = fit(model, data(), penalty=penalty, max_epochs=2, batch_size=8, progress=False, optimizer="sgd", learning_rate=0.1, **options)
    return model, history.history


def test_a_mask_of_everything_trains_as_usual_and_the_model_is_left_as_it_was() -> None:
    plain, history = run(None)
    everywhere, told = run(Penalty(masks=lambda inputs: np.ones(inputs.inputs.shape[:3])))
    for own, their in zip(everywhere.get_weights(), plain.get_weights()):
        np.testing.assert_allclose(own, their, atol=1e-6)
    assert told.pop("right_reasons") == [0, 0]
    assert set(told) == set(history)
    for name in history:
        np.testing.assert_allclose(told[name], history[name], rtol=1e-5)
    assert not {"train_step", "reset_metrics", "compute_loss", "compute_metrics"} & set(vars(everywhere))
    everywhere.fit(data().train_inputs, data().train_labels, verbose=0)


def smooth() -> keras.Model:
    keras.utils.set_random_seed(0)
    conv = keras.layers.Conv2D(3, 3, activation="tanh", name="conv")
    return keras.Sequential([keras.Input((4, 4, 1)), conv, keras.layers.Flatten(), keras.layers.Dense(2, name="head")])


def test_one_step_goes_down_the_gradient_of_the_definition_by_finite_differences() -> None:
    """By float64 and numpy alone: a convolution, tanh and a dense layer, whose penalised loss is a few lines."""
    model, rate, weight = smooth(), 0.01, 0.7
    x, y, masks = data().train_inputs, data().train_labels, first_row(ProbeSet(data().train_inputs, data().train_labels))
    masks[::2] = 0.25
    before = [value.astype(np.float64) for value in model.get_weights()]

    def logs(kernel: Float64, bias: Float64, dense: Float64, own: Float64, images: Float64) -> Float64:
        patches = np.lib.stride_tricks.sliding_window_view(images[..., 0], (3, 3), axis=(1, 2))
        hidden = np.tanh(np.einsum("nhwij,iju->nhwu", patches, kernel[:, :, 0]) + bias).reshape(len(images), -1)
        logits = hidden @ dense + own
        return np.asarray(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))

    def penalised_loss(values: list[Float64]) -> float:
        images, step, outside = x.astype(np.float64), 1e-5, np.zeros(N)
        for row, column in np.ndindex(4, 4):
            moved = np.zeros_like(images)
            moved[:, row, column] = step
            slope = (logs(*values, images + moved).sum(axis=1) - logs(*values, images - moved).sum(axis=1)) / (2 * step)
            outside += ((1 - masks[:, row, column]) * slope) ** 2
        return float(-logs(*values, images)[np.arange(N), y].mean() + weight * outside.mean())

    model.compile(keras.optimizers.SGD(rate), PenalisedLoss(crossed(), 2))
    with right_reasons(model, weight):
        history = model.fit(x, (y, masks), batch_size=N, epochs=1, verbose=0, shuffle=False).history
    assert history["loss"][0] == pytest.approx(penalised_loss(before), rel=1e-4)
    random = np.random.default_rng(3)
    for index, (old, new) in enumerate(zip(before, model.get_weights())):
        for place in random.choice(old.size, min(old.size, 5), replace=False):
            ends = []
            for sign in (1, -1):
                values = [value.copy() for value in before]
                values[index].flat[place] += sign * 1e-4
                ends.append(penalised_loss(values))
            assert (old.flat[place] - new.flat[place]) / rate == pytest.approx((ends[0] - ends[1]) / 2e-4, rel=2e-2, abs=2e-4)


def test_right_reasons_train_as_torch_does() -> None:
    """The weights after one step of both, from the same ones."""
    import torch
    from torch import nn

    from netlapse.training.lightning import fit as torch_fit

    model, penalty = smooth(), Penalty([1.0, 2.0], masks=first_row, weight=0.5)
    kernel, bias, dense, own = model.get_weights()
    theirs = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 2))
    order = np.arange(12).reshape(2, 2, 3).transpose(2, 0, 1).reshape(-1)  # channels-first of channels-last
    with torch.no_grad():
        theirs[0].weight.copy_(torch.from_numpy(kernel.transpose(3, 2, 0, 1)))
        theirs[0].bias.copy_(torch.from_numpy(bias))
        theirs[3].weight.copy_(torch.from_numpy(dense[order].T))
        theirs[3].bias.copy_(torch.from_numpy(own))
    same: dict[str, Any] = {"max_epochs": 2, "batch_size": N, "progress": False, "optimizer": "sgd", "learning_rate": 0.1, "penalty": penalty}
    fit(model, data(), **same)
    torch_fit(theirs, data(), **same)
    np.testing.assert_allclose(theirs[0].weight.detach().numpy().transpose(2, 3, 1, 0), model.get_weights()[0], atol=1e-6)
    np.testing.assert_allclose(theirs[3].weight.detach().numpy().T, model.get_weights()[2][order], atol=1e-6)


def test_right_reasons_that_cannot_be_say_why() -> None:
    model = convolved()
    with pytest.raises(ValueError, match=r"is not compiled; call its compile\(optimizer, loss\) first"), right_reasons(model, 1.0):
        pass
    model.compile("sgd", "sparse_categorical_crossentropy")
    with (
        pytest.raises(ValueError, match=r"does not say whether the outputs are logits; give right_reasons from_logits=True or False"),
        right_reasons(model, 1.0),
    ):
        pass
    model.compile("sgd", crossed())
    with pytest.raises(Exception, match=r"this training has labels alone; expected fit\(x, \(labels, masks\)\)"), right_reasons(model, 1.0):
        model.fit(data().train_inputs, data().train_labels, verbose=0)
    with pytest.raises(Exception, match=r"was given masks \(.*3, 4, 1\) for inputs \(.*4, 4, 1\)"), right_reasons(model, 1.0):
        model.fit(data().train_inputs, (data().train_labels, np.ones((N, 3, 4))), verbose=0)
    with pytest.raises(ValueError, match=r"what a remedy draws has no masks in Keras; expected penalty.masks or a remedy"):
        run(Penalty(masks=first_row), remedy=JTT())


# ---- in our own training --------------------------------------------------------------------------------------------


def test_every_training_carries_penalties_that_change_nothing_until_they_are_set_and_are_in_no_file(tmp_path: Path) -> None:
    by_hand = convolved()
    keras.utils.set_random_seed(0)
    by_hand.compile(keras.optimizers.SGD(0.1, weight_decay=None), crossed(), metrics=["accuracy"])
    x, y = data().train_inputs, data().train_labels
    by_hand.fit(x, y, batch_size=8, epochs=2, verbose=0, validation_data=(x[:8], y[:8]))
    model, _ = run(None, callbacks=[CheckpointCallback(tmp_path)])
    assert weights_of(model) == weights_of(by_hand)
    penalties = penalties_of(model)
    assert penalties is not None
    assert penalties.neutral
    program = "import sys, keras; m = keras.models.load_model(sys.argv[1]); print(type(m.loss).__name__, 'netlapse' in sys.modules)"
    file = str(sorted(tmp_path.iterdir())[-1])
    found = subprocess.run([sys.executable, "-c", program, file], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["SparseCategoricalCrossentropy", "False"]
    penalties.set("class_weight.1", 3.0)
    model.save(tmp_path / "set.keras")
    again = penalties_of(keras.models.load_model(tmp_path / "set.keras"))
    assert again is not None
    assert again.class_weights.tolist() == [1, 3]


def test_a_chosen_penalty_is_trained_with() -> None:
    plain, _ = run(None)
    chosen, _ = run(Penalty({1: 3.0}))
    by_hand = convolved()
    keras.utils.set_random_seed(0)
    by_hand.compile(keras.optimizers.SGD(0.1, weight_decay=None), crossed(), metrics=["accuracy"])
    x, y = data().train_inputs, data().train_labels
    by_hand.fit(x, y, batch_size=8, epochs=2, verbose=0, validation_data=(x[:8], y[:8]), class_weight={0: 1.0, 1: 3.0})
    for own, their in zip(chosen.get_weights(), by_hand.get_weights()):
        np.testing.assert_allclose(own, their, atol=1e-6)
    assert weights_of(plain) != weights_of(chosen)


def test_where_a_network_or_a_remedy_weighs_losses_itself_there_are_none_and_asking_for_them_is_refused() -> None:
    class Own(keras.Sequential):  # type: ignore[misc]
        def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True) -> Any:
            return ops.mean(ops.square(y_pred))

    def own() -> keras.Model:
        return Own([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(2)])

    model, _ = run(None, own())
    assert penalties_of(model) is None
    with pytest.raises(ValueError, match=r"Own has one of its own; expected penalty=none, a network without, or framework=torch"):
        run(Penalty(), own())
    grouped, _ = run(None, remedy=GroupDRO("kind"))
    assert penalties_of(grouped) is None
    with pytest.raises(ValueError, match=r"remedy=group_dro weighs losses by their groups"):
        run(Penalty(), remedy=GroupDRO("kind"))


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="this is the other process")
def test_all_of_this_holds_on_torch() -> None:
    root = Path(__file__).parents[1]
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__],
        capture_output=True, text=True, cwd=root, timeout=600, env=os.environ | {"KERAS_BACKEND": "torch"},
    )  # fmt: skip
    assert found.returncode == 0, found.stdout[-3000:]
