"""Laws of steering a Keras training: what it is told it does, between two batches, and else nothing changes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from netlapse.callbacks.keras import CheckpointCallback, ObserverCallback
from netlapse.callbacks.keras_steering import SteeringCallback
from netlapse.penalties import Penalties
from netlapse.schedule import every_epoch, every_steps
from netlapse.steering.boxes import Box, FolderBox
from netlapse.steering.orders import Answer, read_answers
from netlapse.tracking.folder import FolderTracker, metrics_from
from tests.keras_training import fingerprint, model, probe, train
from tests.steered import Person, arrives

BATCHES = 6
"""Of an epoch of `tests.keras_training`."""


class Told(keras.callbacks.Callback):  # type: ignore[misc]
    """Before a batch, counted from 1 over all epochs, has commands arrive; the first of the callbacks."""

    async_safe = True

    def __init__(self, steering: SteeringCallback, box: Box, commands: Mapping[int, Sequence[str]]) -> None:
        super().__init__()
        self.steering, self.box, self.commands = steering, box, commands
        self.batches, self.rates, self.ends = 0, list[float](), list[int]()

    def on_train_batch_begin(self, batch: int, logs: object = None) -> None:
        self.batches += 1
        self.rates.append(float(self.model.optimizer.learning_rate))
        for command in self.commands.get(self.batches, ()):
            assert self.steering._steering is not None
            arrives(self.steering._steering.orders, self.box, command)

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        self.ends.append(self.batches)


class Steered:
    """A training that is told these commands before these batches; what became of it."""

    def __init__(
        self, folder: Path, commands: Mapping[int, Sequence[str]], *others: keras.callbacks.Callback, observed: bool = True, **options: Any
    ) -> None:
        self.folder, self.box, tracker = folder, FolderBox(folder), FolderTracker(folder)
        steering = SteeringCallback(tracker)
        self.told = Told(steering, self.box, commands)
        schedule = options.pop("schedule", None)
        observers = [ObserverCallback(probe(), [profiles], tracker=tracker, schedule=schedule, strict=True)] if observed else []
        self.network = train([self.told, *observers, *others, steering], **options)
        self.tracker = tracker

    @property
    def answers(self) -> list[Answer]:
        return list(reversed(read_answers(self.box.read()).answers))


def profiles(snapshot: Any, previous: object) -> Any:
    from netlapse.types import Findings

    return Findings(scalars={"sum": float(np.abs(snapshot.network.outputs(snapshot.probe.inputs)).sum())})


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netlapse.steering.inbox.POLL_SECONDS", 0.01)
    monkeypatch.setattr("netlapse.steering.sending.ASK_SECONDS", 0.01)


def test_a_training_that_was_paused_and_one_that_nobody_steered_end_bit_for_bit_alike(tmp_path: Path) -> None:
    person = Person(FolderBox(tmp_path), ["resume", "resume"], before=paused(FolderBox(tmp_path)))
    steered = Steered(tmp_path, {4: ["pause"], 9: ["pause"]})
    assert [answer.state for answer in person.join()] == ["done"] * 2
    assert steered.told.batches == 2 * BATCHES
    assert fingerprint(steered.network) == fingerprint(train())


def paused(box: Box) -> Callable[[], bool]:
    return lambda: read_answers(box.read()).state == "paused"


def test_a_paused_training_takes_no_batch(tmp_path: Path) -> None:
    box = FolderBox(tmp_path)
    steering = SteeringCallback(FolderTracker(tmp_path))
    told = Told(steering, box, {3: ["pause"]})
    person = Person(box, ["lr=0.5", "resume"], before=paused(box))
    train([told, steering])
    assert [answer.step for answer in person.join()] == [2, 2]  # the third is about to begin
    assert told.rates[2:4] == pytest.approx([0.05, 0.5])


def test_the_rate_that_is_set_is_that_of_the_batches_after(tmp_path: Path) -> None:
    steered = Steered(tmp_path, {4: ["lr=0.001"]})
    assert steered.told.rates == pytest.approx([0.05] * 4 + [0.001] * (2 * BATCHES - 4))
    (answer,) = steered.answers
    assert (answer.state, answer.step, answer.epoch) == ("done", 3, 0)
    assert "was 0.05" in answer.message
    rows, _ = metrics_from(tmp_path, 0)
    assert [(row["step"], row["values"]) for row in rows] == [(3, {"control/lr": 0.001})]


def test_a_rate_that_a_schedule_gives_is_refused(tmp_path: Path) -> None:
    network = model()
    steering = SteeringCallback(FolderTracker(tmp_path))
    told = Told(steering, FolderBox(tmp_path), {2: ["lr=0.001"]})
    network.compile(keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)), "mse")
    network.fit(np.zeros((16, 8, 8, 1)), np.zeros((16, 3)), batch_size=4, verbose=0, callbacks=[told, steering])
    (answer,) = read_answers(FolderBox(tmp_path).read()).answers
    assert answer.state == "refused"
    assert "given by a ExponentialDecay for every step" in answer.message


def test_a_weight_decay_that_is_set_shrinks_the_weights_from_then_on(tmp_path: Path) -> None:
    """With a loss of nothing the weights change by decay alone: by the rate times it at each batch after."""
    network = model()
    steering = SteeringCallback(FolderTracker(tmp_path))
    told = Told(steering, FolderBox(tmp_path), {3: ["weight_decay=0.5"]})
    network.compile(keras.optimizers.SGD(0.1), lambda labels, logits: 0.0 * keras.ops.sum(logits))
    before = network.get_layer("head").kernel.numpy()
    network.fit(np.zeros((16, 8, 8, 1), np.float32), np.zeros(16), batch_size=4, verbose=0, callbacks=[told, steering])
    np.testing.assert_allclose(network.get_layer("head").kernel.numpy(), before * (1 - 0.1 * 0.5) ** 2, rtol=1e-6)


def test_stop_ends_within_an_epoch_and_leaves_what_training_can_go_on_from(tmp_path: Path) -> None:
    saving = CheckpointCallback(tmp_path / "epochs")
    steered = Steered(tmp_path / "record", {BATCHES + 2: ["stop"]}, saving, epochs=5)
    assert steered.told.batches == BATCHES + 2
    (answer,) = steered.answers
    assert (answer.state, answer.step, answer.epoch) == ("done", BATCHES + 2, 1)
    path = Path(answer.message.rpartition(" ")[2])
    loaded = keras.models.load_model(path)
    assert int(loaded.optimizer.iterations) == BATCHES + 2
    for kept, trained in zip(loaded.optimizer.variables, steered.network.optimizer.variables, strict=True):
        np.testing.assert_array_equal(kept.numpy(), trained.numpy())
    for weights, trained in zip(loaded.get_weights(), steered.network.get_weights(), strict=True):
        np.testing.assert_array_equal(weights, trained)
    # The epoch that it ended within is none.
    assert steered.tracker.steps["profiles"] == {0, 1}
    assert sorted(saving.checkpoints.saved) == ["0", "1"]
    assert steered.tracker.manifest["failed"] is False


def test_stop_before_the_last_batch_of_an_epoch_ends_a_whole_one(tmp_path: Path) -> None:
    steered = Steered(tmp_path, {BATCHES: ["stop"]}, epochs=5)
    assert steered.told.batches == BATCHES
    assert steered.tracker.steps["profiles"] == {0, 1}
    assert (steered.answers[0].step, steered.answers[0].epoch) == (BATCHES, 1)


def test_where_no_checkpoint_can_be_saved_training_goes_on(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "steered" / "stop" / f"step_{2:08d}.keras" / "in the way").mkdir(parents=True)
    steered = Steered(tmp_path, {2: ["stop"]}, observed=False)
    assert steered.answers[0].state == "failed"
    assert "not stopped" in steered.answers[0].message
    assert steered.told.ends == [2, 2 + BATCHES]  # Keras had ended that epoch


def test_observe_is_the_step_of_a_schedule_that_counts_steps(tmp_path: Path) -> None:
    steered = Steered(tmp_path, {4: ["observe"]}, schedule=every_steps(5))
    assert steered.tracker.steps["profiles"] == {0, 3, 5, 10}
    assert steered.answers[0].message == "observed as step 3"


def test_observe_within_an_epoch_is_its_end(tmp_path: Path) -> None:
    steered = Steered(tmp_path, {4: ["observe"]}, schedule=every_epoch(5), epochs=3)
    assert steered.tracker.steps["profiles"] == {0, 1}
    assert steered.answers[0].message == "it will be observed at the end of this epoch, as step 1"
    rows = steered.tracker.recording().scalars["training/train_loss"]
    assert rows.steps.tolist() == [1]


def test_penalties_are_set(tmp_path: Path) -> None:
    network = model()
    network.penalties = Penalties(3)
    Steered(tmp_path, {2: ["class_weight.1=2.5", "penalise.0->2=3", "class_weight.7=1"]}, network=network)
    assert network.penalties.class_weights.tolist() == [1, 2.5, 1]
    assert network.penalties.confusions[0, 2] == 3
    states = [answer.state for answer in reversed(read_answers(FolderBox(tmp_path).read()).answers)]
    assert states == ["done", "done", "refused"]


def test_a_training_without_a_run_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="SteeringCallback knows no run to steer"):
        train([SteeringCallback()])


def test_it_steers_what_the_first_observer_records_wherever_it_stands(tmp_path: Path) -> None:
    observer = ObserverCallback(probe(), [profiles], tracker=FolderTracker(tmp_path))
    steering = SteeringCallback()
    told = Told(steering, FolderBox(tmp_path), {3: ["checkpoint"]})
    train([steering, told, observer])
    written = read_answers(FolderBox(tmp_path).read())
    assert written.state == "over"
    loaded = keras.models.load_model(written.answers[0].message.removeprefix("saved "))
    assert int(loaded.optimizer.iterations) == written.answers[0].step == 3  # it stands before who tells it


def test_the_table_tells_of_all_that_was_said(tmp_path: Path) -> None:
    Steered(tmp_path, {2: ["lr=0.01"], 5: ["lr=much"]})
    table = json.loads((tmp_path / "steering.json").read_text())
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert [(row["sequence"], row["command"], row["state"], row["step"], row["epoch"], row["by"]) for row in rows] == [
        (1, "lr=0.01", "done", 1, 0, "a test"),
        (2, "lr=much", "refused", 4, 0, "a test"),
    ]
    assert all(row["sent"] <= row["taken"] for row in rows)
