"""Laws of the Keras callbacks: they do no harm, nothing of theirs ends a training, and what they saw is there afterwards."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import netlapse
from netlapse.analysis import default_analyses
from netlapse.analysis.layout import flas
from netlapse.analysis.topomap import topomap
from netlapse.backends.keras import KerasNetwork
from netlapse.callbacks.keras import CheckpointCallback, ObserverCallback
from netlapse.probe import by_outcome
from netlapse.schedule import at, every_epoch, every_steps
from netlapse.tracking.folder import FolderTracker
from netlapse.tracking.memory import MemoryTracker
from netlapse.types import Findings, ProbeSet
from tests.keras_training import data, fingerprint, model, probe, train

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def untouched() -> dict[str, str]:
    return fingerprint(train())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"schedule": every_steps(1), "grouping": by_outcome},
        {"analyses": {"broken": lambda snapshot, previous: 1 / 0}},
        {"checkpoints": "checkpoints"},
    ],
    ids=["defaults", "every step", "a failing analysis", "checkpoints"],
)
def test_training_is_bit_for_bit_what_it_is_without(untouched: dict[str, str], options: dict[str, Any], tmp_path: Path) -> None:
    if "checkpoints" in options:
        options = options | {"checkpoints": tmp_path}
    tracker = MemoryTracker()
    assert fingerprint(train([ObserverCallback(probe(), tracker=tracker, **options)])) == untouched
    assert tracker.recording().steps[0] == 0  # it did observe
    assert tracker.failures == ([{"what": "broken", "message": "ZeroDivisionError: division by zero"}] if "analyses" in options else [])


def test_a_callback_that_calls_in_training_mode_is_noticed(untouched: dict[str, str]) -> None:
    class Careless(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            self.model(probe().inputs, training=True)

    assert fingerprint(train([Careless()]))["weights"] != untouched["weights"]


def test_training_compiled_by_xla_is_the_same_too() -> None:
    tracker = MemoryTracker()
    alone = fingerprint(train(jit_compile=True))
    assert fingerprint(train([ObserverCallback(probe(), tracker=tracker)], jit_compile=True)) == alone
    assert tracker.recording().steps == (0, 1, 2)
    assert tracker.failures == []


def test_on_the_torch_backend_training_is_the_same_too() -> None:
    environment = os.environ | {"KERAS_BACKEND": "torch", "PYTHONPATH": str(ROOT)}
    program = subprocess.run([sys.executable, "-m", "tests.keras_training"], capture_output=True, text=True, env=environment, cwd=ROOT, timeout=600)
    assert program.returncode == 0, program.stderr[-3000:]
    result = json.loads(program.stdout.splitlines()[-1])
    assert result["backend"] == "torch"
    assert result["same"] == [True, True]
    assert result["steps"] == [[0, 1, 2], list(range(13))]
    assert result["found"] == ["cost", "nap", "predictions", "saliency", "topomap", "training"]


def test_on_tensorflow_torch_is_not_loaded() -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    program = subprocess.run([sys.executable, "-m", "tests.keras_training"], capture_output=True, text=True, env=environment, cwd=ROOT, timeout=600)
    assert program.returncode == 0, program.stderr[-3000:]
    result = json.loads(program.stdout.splitlines()[-1])
    assert result["backend"] == "tensorflow"
    assert result["same"] == [True, True]
    assert not result["torch"]


def test_steps_are_epochs_from_zero_or_optimizer_steps() -> None:
    epochs, steps = MemoryTracker(), MemoryTracker()
    train(
        [
            ObserverCallback(probe(), tracker=epochs, schedule=every_epoch(2)),
            ObserverCallback(probe(), tracker=steps, schedule=at([0, 1, 8], "step")),
        ],
        epochs=4,
    )
    assert epochs.recording().steps == (0, 2, 4)
    assert steps.recording().steps == (0, 1, 8)
    assert steps.manifest["step_unit"] == "step"


def test_step_zero_is_the_initialised_network_and_what_is_recorded_is_what_the_model_gives() -> None:
    tracker = MemoryTracker()
    keras.utils.set_random_seed(0)
    network = model()
    before = KerasNetwork(network).responses(probe().inputs, ["conv"]).mean["conv"].astype(np.float64)
    trained = train([ObserverCallback(probe(), tracker=tracker)], epochs=1)
    after = KerasNetwork(trained).responses(probe().inputs, ["conv"]).mean["conv"].astype(np.float64)
    profile = tracker.recording().array("nap", "profile/conv")
    for step, expected in ((0, before), (1, after)):
        for group in range(3):  # float32 responses, averaged here in another order
            np.testing.assert_allclose(profile.at(step)[group], expected[probe().labels == group].mean(axis=0), rtol=1e-6)
    assert not np.array_equal(before, after)


def test_the_trainings_own_metrics_have_the_names_they_have_in_lightning() -> None:
    tracker = MemoryTracker()
    network = train([ObserverCallback(probe(), tracker=tracker)])
    scalars = tracker.recording().scalars
    assert {name for name in scalars if name.startswith("training/")} == {
        f"training/{part}_{name}" for part in ("train", "val") for name in ("loss", "accuracy")
    }
    assert scalars["training/val_loss"].steps.tolist() == [1, 2]
    assert scalars["training/val_loss"].values.tolist() == network.history.history["val_loss"]


def test_a_callback_alone_writes_to_a_local_run_of_its_own(own_place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train([ObserverCallback(probe=(probe().inputs, probe().labels))])
    run_id = capsys.readouterr().out.split("netlapse: recorded in run ")[1].split()[0]
    recording = netlapse.load(run_id)
    assert recording.steps == (0, 1, 2)
    assert recording.manifest["framework"] == "keras"
    assert set(recording.findings) == {"nap", "topomap", "saliency", "predictions", "training", "cost"}


def test_the_run_that_mlflow_has_open_is_used(own_place: Path) -> None:
    import mlflow

    uri = f"sqlite:///{own_place / 'elsewhere.db'}"
    mlflow.set_tracking_uri(uri)
    mlflow.create_experiment("mine", artifact_location=str(own_place / "files"))
    with mlflow.start_run(experiment_id=mlflow.get_experiment_by_name("mine").experiment_id) as run:
        train([ObserverCallback(probe())])
        assert mlflow.active_run() is not None  # it is the user's to end
    assert netlapse.load(run.info.run_id, uri).steps == (0, 1, 2)


def test_a_failing_analysis_is_reported_once_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    tracker = MemoryTracker()
    analyses = {**default_analyses(probe()), "broken": lambda snapshot, previous: 1 / 0}
    with caplog.at_level(logging.WARNING):
        train([ObserverCallback(probe(), analyses, tracker=tracker)])  # type: ignore[arg-type]
    assert [record.message for record in caplog.records if "broken" in record.message] == [
        "netlapse: broken failed, and training goes on without it: ZeroDivisionError: division by zero"
    ]
    assert sorted(tracker.findings) == ["cost", "nap", "predictions", "saliency", "topomap", "training"]
    with pytest.raises(ZeroDivisionError):
        train([ObserverCallback(probe(), analyses, tracker=MemoryTracker(), strict=True)])  # type: ignore[arg-type]


def test_a_failing_tracker_does_not_end_a_training(untouched: dict[str, str]) -> None:
    class Full(MemoryTracker):
        def log(self, analysis: str, step: int, findings: Findings) -> None:
            raise OSError(28, "No space left on device")

        def failure(self, what: str, message: str) -> None:
            raise OSError(28, "No space left on device")

        def finish(self, *, failed: bool = False) -> None:
            raise OSError(28, "No space left on device")

    assert fingerprint(train([ObserverCallback(probe(), tracker=Full())])) == untouched


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": ["conv9"]}, r"no layer named, matching or of type 'conv9'; this network has the layers \['conv'"),
        ({"module": "body"}, r"No such layer: body"),
        (
            {"probe": ProbeSet(np.zeros((4, 8, 8, 3), np.float32), np.arange(4) % 3)},
            r"cannot be observed on the probe's inputs of shape \(n, 8, 8, 3\)",
        ),
        ({"probe": ProbeSet(probe().inputs, probe().labels + 1)}, r"probe labels hold 3, and the network has 3 outputs"),
        ({"analyses": [partial(topomap, layout=partial(flas, metric="cosin"))]}, "unknown metric 'cosin'"),
    ],
    ids=["layer", "module", "shape", "labels", "metric"],
)
def test_what_cannot_work_is_said_before_the_first_batch(options: dict[str, Any], message: str) -> None:
    network = model()
    with pytest.raises(ValueError, match=message):
        train([ObserverCallback(**({"probe": probe(), "tracker": MemoryTracker()} | options))], network=network)
    assert int(network.optimizer.iterations) == 0


def test_a_training_that_goes_on_finds_nothing_twice_and_a_second_one_is_refused(tmp_path: Path) -> None:
    network = train([ObserverCallback(probe(), tracker=FolderTracker(tmp_path))])
    before = (tmp_path / "findings/nap/step_00000002.npz").stat().st_mtime_ns
    again = ObserverCallback(probe(), tracker=FolderTracker(tmp_path))
    network.fit(*data(), batch_size=8, initial_epoch=2, epochs=3, callbacks=[again], verbose=0)
    assert FolderTracker(tmp_path).recording().steps == (0, 1, 2, 3)
    assert (tmp_path / "findings/nap/step_00000002.npz").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="the record holds findings already, of steps 0 to 3"):
        train([ObserverCallback(probe(), tracker=FolderTracker(tmp_path))])


def test_a_training_that_ends_in_an_error_keeps_what_was_found() -> None:
    class Interrupted(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            if epoch == 1:
                raise RuntimeError("power cut")

    tracker = MemoryTracker()
    observer = ObserverCallback(probe(), tracker=tracker)
    with pytest.raises(RuntimeError, match="power cut"):
        train([observer, Interrupted()])
    observer.abandon()  # what the end of the interpreter calls
    assert tracker.recording().steps == (0, 1)
    assert tracker.manifest["failed"] is True
    assert "timelapse.html" in tracker.documents


def test_a_shipped_training_that_ends_in_an_error_ends_its_run_and_one_that_cannot_begin_too(own_place: Path) -> None:
    from mlflow import MlflowClient

    from netlapse.data import digits
    from netlapse.models.keras import mlp
    from netlapse.tracking.mlflow import MlflowTracker
    from netlapse.training.keras import fit

    class Interrupted(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            if epoch == 1:
                raise KeyboardInterrupt

    images, tracker = digits(), MlflowTracker()
    observer = ObserverCallback((images.test_inputs[:20], images.test_labels[:20]), tracker=tracker)
    with pytest.raises(KeyboardInterrupt):
        fit(mlp(images.input_shape, 10, hidden=(8,)), images, callbacks=[observer, Interrupted()], metrics=tracker.metrics, progress=False)
    client = MlflowClient(tracker.uri)
    assert client.get_run(tracker.run_id).info.status == "FAILED"
    assert {"timelapse.html", "findings"} <= {item.path for item in client.list_artifacts(tracker.run_id)}
    assert not tracker.spool.folder.exists()
    assert {"train_loss", "val_accuracy"} <= set(client.get_run(tracker.run_id).data.metrics)
    with pytest.raises(ValueError, match="no layer named"):
        train([ObserverCallback(probe(), layers=["conv9"])])
    assert {run.info.status for run in client.search_runs([tracker.run.experiment_id])} == {"FAILED"}


def test_checkpoints_are_keras_files_of_the_model_at_their_step(tmp_path: Path) -> None:
    network = train([CheckpointCallback(tmp_path, at([0, 2]))])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_00000000.keras", "step_00000002.keras"]
    first, last = (keras.models.load_model(tmp_path / f"step_0000000{step}.keras") for step in (0, 2))
    for saved, weight in zip(last.get_weights(), network.get_weights()):
        np.testing.assert_array_equal(saved, weight)
    keras.utils.set_random_seed(0)
    for saved, weight in zip(first.get_weights(), model().get_weights()):
        np.testing.assert_array_equal(saved, weight)


def test_the_manifest_names_the_checkpoint_of_every_observed_step(tmp_path: Path) -> None:
    tracker = MemoryTracker()
    train([ObserverCallback(probe(), tracker=tracker, checkpoints=tmp_path)])
    assert list(tracker.manifest["checkpoints"]) == ["0", "1", "2"]  # type: ignore[call-overload]
    assert all(Path(entry["path"]).is_file() for entry in tracker.manifest["checkpoints"].values())  # type: ignore[attr-defined]


def test_a_nested_model_can_be_observed_by_itself() -> None:
    inner = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(4, 3, name="conv"), keras.layers.ReLU(name="relu"),
                              keras.layers.Flatten(), keras.layers.Dense(3)], name="inner")  # fmt: skip
    outer = keras.Sequential([keras.Input((8, 8, 1)), inner, keras.layers.Rescaling(2.0)])
    tracker = MemoryTracker()
    train([ObserverCallback(probe(), tracker=tracker, module="inner", strict=True)], network=outer, epochs=1)
    assert [layer["name"] for layer in tracker.manifest["layers"]] == ["relu"]  # type: ignore[attr-defined]
