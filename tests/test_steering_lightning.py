"""Laws of steering a Lightning training: what it is told it does, between two batches, and else nothing changes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import MLFlowLogger
from torch.utils.data import DataLoader

import netlapse
from netlapse.callbacks.interruption import DEFAULT
from netlapse.callbacks.lightning import CheckpointCallback, ObserverCallback
from netlapse.callbacks.lightning_steering import SteeringCallback
from netlapse.penalties import Penalties
from netlapse.schedule import every_epoch, every_steps
from netlapse.steering.boxes import Box, FolderBox
from netlapse.steering.orders import TYPED, Answer, read_answers
from netlapse.tracking.folder import FolderTracker, metrics_from
from netlapse.tracking.memory import MemoryTracker
from netlapse.tracking.mlflow import MlflowTracker
from netlapse.tracking.store import client_for, experiment_id, local_store
from netlapse.tracking.tags import TagBox
from netlapse.types import Findings, Snapshot
from tests.steered import Person, arrives, until
from tests.training import Digits, Lit, fingerprint, probe, train

BATCHES = 6
"""Of an epoch of `tests.training`; the optimizer steps at every second."""


class Told(pl.Callback):
    """After a batch, counted from 1 over all epochs, has commands arrive; before the callback that takes them."""

    def __init__(self, steering: SteeringCallback, box: Box, commands: Mapping[int, Sequence[str]]) -> None:
        self.steering, self.box, self.commands = steering, box, commands
        self.batches, self.settings = 0, list[tuple[float, float]]()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: object) -> None:
        self.batches += 1
        group = trainer.optimizers[0].param_groups[0]
        self.settings.append((group["lr"], group["weight_decay"]))
        for command in self.commands.get(self.batches, ()):
            assert self.steering._steering is not None
            arrives(self.steering._steering.orders, self.box, command)


def loss_of(snapshot: Snapshot, previous: Findings | None) -> Findings:
    return Findings(scalars={"sum": float(abs(snapshot.network.outputs(snapshot.probe.inputs)).sum())})


class Steered:
    """A training that is told these commands after these batches; what became of it."""

    def __init__(self, folder: Path, commands: Mapping[int, Sequence[str]], *others: pl.Callback, **options: Any) -> None:
        self.box, self.tracker = FolderBox(folder), FolderTracker(folder)
        steering, schedule = SteeringCallback(), options.pop("schedule", None)
        self.told = Told(steering, self.box, commands)
        observer = ObserverCallback(probe(), [loss_of], tracker=self.tracker, schedule=schedule, strict=True)
        self.module, self.trainer = train([self.told, *others, steering, observer], **options)

    @property
    def answers(self) -> list[Answer]:
        return list(reversed(read_answers(self.box.read()).answers))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netlapse.steering.inbox.POLL_SECONDS", 0.01)
    monkeypatch.setattr("netlapse.steering.sending.ASK_SECONDS", 0.01)


@pytest.fixture(scope="module")
def untouched() -> dict[str, str]:
    return fingerprint(*train())


def paused(box: Box) -> Callable[[], bool]:
    return lambda: read_answers(box.read()).state == "paused"


# ---- pause ----------------------------------------------------------------------------------------------------------


def test_a_training_that_was_paused_and_one_that_nobody_steered_end_bit_for_bit_alike(tmp_path: Path, untouched: dict[str, str]) -> None:
    person = Person(FolderBox(tmp_path), ["observe", "checkpoint", "resume", "resume"], before=paused(FolderBox(tmp_path)))
    steered = Steered(tmp_path, {3: ["pause"], 8: ["pause"]})
    assert [answer.state for answer in person.join()] == ["done"] * 4
    assert steered.told.batches == 2 * BATCHES
    assert fingerprint(steered.module, steered.trainer) == untouched


def test_a_rate_that_is_changed_does_change_how_a_training_ends(tmp_path: Path, untouched: dict[str, str]) -> None:
    assert fingerprint(*_ended(Steered(tmp_path, {3: ["lr=0.04"]})))["weights"] != untouched["weights"]


def _ended(steered: Steered) -> tuple[Lit, pl.Trainer]:
    return steered.module, steered.trainer


def test_a_paused_training_takes_no_batch(tmp_path: Path) -> None:
    person = Person(FolderBox(tmp_path), ["pause", "lr=0.5", "resume"], before=paused(FolderBox(tmp_path)))
    steered = Steered(tmp_path, {2: ["resume"], 4: ["pause"]})
    answers = person.join()
    assert [answer.step for answer in answers] == [2] * 3
    assert [(answer.state, answer.message) for answer in (answers[0], steered.answers[0])] == [
        ("refused", "it is paused already"),
        ("refused", "it is not paused"),
    ]
    assert [rate for rate, _ in steered.told.settings[3:5]] == [0.05, 0.5]


def test_a_paused_training_stops(tmp_path: Path) -> None:
    person = Person(FolderBox(tmp_path), ["stop"], before=paused(FolderBox(tmp_path)))
    steered = Steered(tmp_path, {4: ["pause"]})
    assert [answer.state for answer in person.join()] == ["done"]
    assert steered.told.batches == 4


@pytest.fixture
def heard() -> Iterator[None]:
    """Signals are not ignored, as they are where a shell began the tests in the background."""
    before = {number: signal.getsignal(number) for number in DEFAULT}
    for number, default in DEFAULT.items():
        signal.signal(number, default)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_paused_training_is_interrupted_as_any(tmp_path: Path, number: signal.Signals, heard: None) -> None:
    box = FolderBox(tmp_path)

    def interrupt() -> None:
        until(paused(box), "a pause")
        os.kill(os.getpid(), number)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(BaseException) as ended:  # SystemExit, or what Lightning raises for SIGTERM
        Steered(tmp_path, {4: ["pause"]})
    assert type(ended.value).__name__ in ("SystemExit", "SIGTERMException", "KeyboardInterrupt")
    assert read_answers(box.read()).state == "over"
    assert FolderTracker(tmp_path).manifest["failed"] in (None, True)


# ---- stop, checkpoint -----------------------------------------------------------------------------------------------


def test_stop_ends_within_an_epoch_and_leaves_what_training_can_go_on_from(tmp_path: Path) -> None:
    saving = CheckpointCallback(tmp_path / "epochs")
    steered = Steered(tmp_path / "record", {BATCHES + 2: ["stop"]}, saving, epochs=5)
    assert steered.told.batches == BATCHES + 2
    (answer,) = steered.answers
    assert (answer.state, answer.step, answer.epoch) == ("done", 4, 1)
    path = Path(answer.message.rpartition(" ")[2])
    saved = torch.load(path, weights_only=True)
    momenta = saved["optimizer_states"][0]["state"]
    for index, state in steered.trainer.optimizers[0].state_dict()["state"].items():
        assert torch.equal(state["momentum_buffer"], momenta[index]["momentum_buffer"])
    for name, weights in steered.module.state_dict().items():
        assert torch.equal(weights, saved["state_dict"][name])
    # The epoch that it ended within is none.
    assert steered.tracker.steps["loss_of"] == {0, 1}
    assert sorted(saving.checkpoints.saved) == ["0", "1"]
    assert steered.tracker.manifest["failed"] is False


def test_training_goes_on_from_what_stop_saved_where_it_was_stopped(tmp_path: Path) -> None:
    stopped = Steered(tmp_path, {BATCHES + 2: ["stop"]}, epochs=3)
    path = stopped.answers[0].message.rpartition(" ")[2]
    steps = list[int]()

    class Counted(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *args: object) -> None:
            steps.append(trainer.global_step)

    pl.seed_everything(0, verbose=False)
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "enable_model_summary": False}
    trainer = pl.Trainer(max_epochs=3, accumulate_grad_batches=2, callbacks=[Counted()], limit_val_batches=0, **quiet)
    trainer.fit(Lit(), DataLoader(Digits(), 8), ckpt_path=path)
    assert steps == [4, 5, 5, 6, 6, 7, 7, 8, 8, 9][-len(steps) :]
    assert len(steps) == 3 * BATCHES - (BATCHES + 2)


def test_where_no_checkpoint_can_be_saved_training_goes_on(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "steered" / "stop" / f"step_{1:08d}.ckpt" / "in the way").mkdir(parents=True)
    steered = Steered(tmp_path, {2: ["stop"]})
    assert steered.answers[0].state == "failed"
    assert "not stopped" in steered.answers[0].message
    assert steered.told.batches == 2 * BATCHES


def test_a_checkpoint_has_the_weights_of_its_step_and_no_more(tmp_path: Path) -> None:
    weights = dict[str, torch.Tensor]()

    class Copy(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: object) -> None:
            if trainer.global_step == 2 and not weights:
                weights.update({name: value.clone() for name, value in pl_module.state_dict().items()})

    steered = Steered(tmp_path, {4: ["checkpoint"]}, Copy())
    saved = torch.load(steered.answers[0].message.removeprefix("saved "), weights_only=True)
    assert all(torch.equal(value, saved["state_dict"][name]) for name, value in weights.items())
    assert "optimizer_states" not in saved


# ---- settings -------------------------------------------------------------------------------------------------------


def test_what_is_set_holds_from_the_next_batch_on_in_all_groups_of_all_optimizers(tmp_path: Path) -> None:
    class Two(Lit):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch: Any, index: int) -> None:  # type: ignore[override]
            pass

        def configure_optimizers(self) -> Any:
            first, *others = self.parameters()
            return torch.optim.SGD([{"params": [first], "lr": 0.2}, {"params": others}], lr=0.1), torch.optim.Adam([first], lr=0.3)

    module = Two()
    steered = Steered(tmp_path, {3: ["lr=0.007", "weight_decay=0.5"]}, module=module, accumulate_grad_batches=1)
    groups = [group for optimizer in steered.trainer.optimizers for group in optimizer.param_groups]
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(0.007, 0.5)] * 3
    assert steered.told.settings[2:4] == [(0.2, 0), (0.007, 0.5)]
    assert steered.answers[0].message == "lr is 0.007 in 3 parameter groups, and was 0.1, 0.2, 0.3"


def test_what_is_set_is_a_metric_at_its_step_and_a_scheduler_is_told_of(tmp_path: Path) -> None:
    steered = Steered(tmp_path, {4: ["lr=0.01", "weight_decay=0.002"]})
    rows, _ = metrics_from(tmp_path, 0)
    assert [(row["step"], row["values"]) for row in rows] == [(2, {"control/lr": 0.01}), (2, {"control/weight_decay": 0.002})]
    assert "StepLR may change it at its next step" in steered.answers[0].message
    assert "StepLR" not in steered.answers[1].message


def test_penalties_are_set_where_there_are_some(tmp_path: Path) -> None:
    module = Lit()
    module.penalties = Penalties(3)
    steered = Steered(tmp_path / "with", {2: ["class_weight.1=2.5", "penalise.0->2=3", "class_weight.7=1"]}, module=module)
    assert module.penalties.class_weights.tolist() == [1, 2.5, 1]
    assert module.penalties.confusions[0, 2] == 3
    assert [answer.state for answer in steered.answers] == ["done", "done", "refused"]
    assert "allowed are 0 to 2" in steered.answers[2].message
    rows, _ = metrics_from(tmp_path / "with", 0)
    assert [row["values"] for row in rows] == [{"control/class_weight/1": 2.5}, {"control/penalise/0-2": 3.0}]
    without = Steered(tmp_path / "without", {2: ["class_weight.1=2.5"]})
    assert without.answers[0].state == "refused"
    assert "carries no penalties" in without.answers[0].message


# ---- observe --------------------------------------------------------------------------------------------------------


def test_observe_is_the_step_of_a_schedule_that_counts_steps(tmp_path: Path) -> None:
    steered = Steered(tmp_path, {4: ["observe"]}, schedule=every_steps(5))
    assert steered.tracker.steps["loss_of"] == {0, 2, 5}
    assert steered.answers[0].message == "observed as step 2"


def test_observe_within_an_epoch_is_its_end(tmp_path: Path) -> None:
    steered = Steered(tmp_path, {4: ["observe"]}, schedule=every_epoch(5), epochs=3)
    assert steered.tracker.steps["loss_of"] == {0, 1}
    assert steered.answers[0].message == "it will be observed at the end of this epoch, as step 1"


# ---- commands that must change nothing ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", ["halt", "lr=-1", "lr=0", "lr=nan", "lr=inf", "lr=fast", "lr", "weight_decay=-0.1", "pause=1", "momentum=0.5", ""]
)
def test_what_is_no_command_changes_nothing_and_is_answered(tmp_path: Path, untouched: dict[str, str], command: str) -> None:
    steered = Steered(tmp_path, {3: [command]})
    assert fingerprint(steered.module, steered.trainer) == untouched
    assert [(answer.command, answer.state) for answer in steered.answers] == [(command, "refused")]


# ---- whose commands are taken ---------------------------------------------------------------------------------------


def test_it_steers_the_run_of_the_logger_where_nobody_observes(own_place: Path) -> None:
    uri = local_store()
    client = client_for(uri)
    run = client.create_run(experiment_id(client, uri, "mine")).info.run_id
    box, steering = TagBox(run, uri), SteeringCallback()
    told = Told(steering, box, {3: ["lr=0.01"]})
    train([told, steering], logger=MLFlowLogger(run_id=run, tracking_uri=uri))
    written = read_answers(box.read())
    assert [(answer.state, answer.step) for answer in written.answers] == [("done", 1)]
    assert [point.value for point in client.get_metric_history(run, "control/lr")] == [0.01]
    assert "steering.json" in {item.path for item in client.list_artifacts(run)}
    assert not [key for key in box.read() if key.startswith(TYPED)]  # what was answered is cleared away


def test_a_training_whose_run_nobody_reaches_says_so_before_it_begins() -> None:
    with pytest.raises(ValueError, match="SteeringCallback knows no run to steer"):
        train([SteeringCallback()])
    with pytest.raises(ValueError, match="cannot listen at a MemoryTracker"):
        train([SteeringCallback(MemoryTracker())])


def test_by_hand_a_tag_is_taken_once_until_it_is_changed(own_place: Path) -> None:
    tracker = MlflowTracker()
    client, steering = client_for(tracker.uri), SteeringCallback(tracker)

    class Hand(pl.Callback):
        batches = 0

        def on_train_batch_end(self, *args: object) -> None:
            self.batches += 1
            text = {2: "lr=0.01", 6: "lr=0.01 #2", 8: "lr = 0.02"}.get(self.batches)
            if text is not None:
                assert steering._steering is not None
                client.set_tag(tracker.run_id, TYPED, text)
                until(lambda: steering._steering.orders, "the arrival of a tag")  # type: ignore[union-attr]

    train([Hand(), steering])
    tracker.finish()
    answers = list(reversed(read_answers(TagBox(tracker.run_id).read()).answers))
    assert [(answer.sequence, answer.command, answer.state, answer.step) for answer in answers] == [
        (1, "lr=0.01", "done", 1), (2, "lr=0.01 #2", "done", 3), (3, "lr = 0.02", "done", 4),
    ]  # fmt: skip
    assert "netlapse.answer" in client.get_run(tracker.run_id).data.tags


def test_netlapse_steer_answers_what_the_training_does(own_place: Path) -> None:
    tracker = MlflowTracker()
    answers = list[object]()

    def person() -> None:
        until(lambda: read_answers(TagBox(tracker.run_id).read()).state == "training", "a training that listens")
        answers.append(netlapse.steer(tracker.run_id, "lr=0.002"))
        answers.append(netlapse.steer(tracker.run_id, "stop"))

    thread = threading.Thread(target=person, daemon=True)
    thread.start()
    _, trainer = train([SteeringCallback(tracker)], epochs=10_000)
    thread.join(60)
    tracker.finish()
    assert [answer.state for answer in answers] == ["done", "done"]  # type: ignore[attr-defined]
    assert trainer.optimizers[0].param_groups[0]["initial_lr"] == 0.05
    with pytest.raises(ValueError, match="takes no commands: its training is over"):
        netlapse.steer(tracker.run_id, "pause")
