"""Laws of the Lightning callbacks: they do no harm, nothing of theirs ends a training, and what they saw is there afterwards."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import MLFlowLogger
from torch import nn
from torch.utils.data import TensorDataset

import netlapse
from netlapse.analysis import default_analyses
from netlapse.analysis.layout import flas
from netlapse.analysis.saliency import saliency
from netlapse.analysis.topomap import topomap
from netlapse.backends.torch import TorchNetwork
from netlapse.callbacks.lightning import CheckpointCallback, ObserverCallback
from netlapse.probe import by_outcome
from netlapse.schedule import at, every_epoch, every_steps
from netlapse.tracking.folder import FolderTracker
from netlapse.tracking.memory import MemoryTracker
from netlapse.tracking.mlflow import MlflowTracker
from netlapse.types import Findings, ProbeSet, Snapshot
from tests.training import Digits, Lit, Net, fingerprint, probe, train


@pytest.fixture(scope="module")
def untouched() -> dict[str, str]:
    return fingerprint(*train())


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
    module, trainer = train([ObserverCallback(probe(), tracker=tracker, **options)])
    assert fingerprint(module, trainer) == untouched
    assert tracker.recording().steps[0] == 0  # it did observe


def test_a_callback_that_forwards_in_training_mode_is_noticed(untouched: dict[str, str]) -> None:
    class Careless(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            pl_module(torch.rand(4, 1, 8, 8))

    changed = fingerprint(*train([Careless()]))
    assert changed["weights"] != untouched["weights"]
    assert changed["random states"] != untouched["random states"]


def test_loader_workers_see_the_same_data(untouched: dict[str, str]) -> None:
    alone = fingerprint(*train(workers=2))
    assert alone == fingerprint(*train([ObserverCallback(probe(), tracker=MemoryTracker())], workers=2))


def test_with_a_folder_of_findings_on_disk_and_mlflow_training_is_the_same_too(untouched: dict[str, str], tmp_path: Path) -> None:
    assert fingerprint(*train([ObserverCallback(probe(), tracker=FolderTracker(tmp_path))])) == untouched
    assert fingerprint(*train([ObserverCallback(probe())])) == untouched


def test_a_probe_that_augments_does_not_disturb_the_training(untouched: dict[str, str]) -> None:
    tracker = MemoryTracker()
    assert fingerprint(*train([ObserverCallback(Digits(), per_class=2, tracker=tracker)])) == untouched
    assert tracker.manifest["probe"]["inputs"] == 6  # type: ignore[index]


def test_steps_are_epochs_from_zero_or_optimizer_steps() -> None:
    epochs, steps = MemoryTracker(), MemoryTracker()
    train(
        [
            ObserverCallback(probe(), tracker=epochs, schedule=every_epoch(2)),
            ObserverCallback(probe(), tracker=steps, schedule=at([0, 1, 4], "step")),
        ],
        epochs=4,
    )
    assert epochs.recording().steps == (0, 2, 4)
    assert steps.recording().steps == (0, 1, 4)
    assert steps.manifest["step_unit"] == "step"


def test_step_zero_is_the_initialised_network() -> None:
    tracker = MemoryTracker()
    pl.seed_everything(0, verbose=False)
    module = Lit()
    expected = TorchNetwork(module).responses(probe().inputs, ["net.relu"]).mean["net.relu"].astype(np.float64)
    train([ObserverCallback(probe(), tracker=tracker)], module=module, epochs=1)
    profile = tracker.recording().array("nap", "profile/net.relu")
    for group in range(3):  # float32 responses, averaged here in another order
        np.testing.assert_allclose(profile.at(0)[group], expected[probe().labels == group].mean(axis=0), rtol=1e-6)
    assert not np.array_equal(profile.at(0), profile.at(1))


def test_the_trainings_own_metrics_are_in_the_record() -> None:
    tracker = MemoryTracker()
    _, trainer = train([ObserverCallback(probe(), tracker=tracker)])
    recorded = tracker.recording().scalars["training/val_loss"]
    assert recorded.steps.tolist() == [1, 2]  # there is none before training
    assert recorded.at(2) == float(trainer.callback_metrics["val_loss"])


def test_a_failing_analysis_is_reported_once_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    def broken(snapshot: Snapshot, previous: Findings | None) -> Findings:
        raise RuntimeError("no luck")

    tracker = MemoryTracker()
    with caplog.at_level(logging.WARNING):
        train([ObserverCallback(probe(), {**default_analyses(probe()), "broken": broken}, tracker=tracker)])
    assert [record.message for record in caplog.records if "broken" in record.message] == [
        "netlapse: broken failed, and training goes on without it: RuntimeError: no luck"
    ]
    assert tracker.failures == [{"what": "broken", "message": "RuntimeError: no luck"}]
    assert sorted(tracker.findings) == ["cost", "nap", "predictions", "saliency", "topomap", "training"]
    assert "no luck" in tracker.documents["timelapse.html"]


def test_strict_raises_what_fails() -> None:
    with pytest.raises(ZeroDivisionError):
        train([ObserverCallback(probe(), {"broken": lambda snapshot, previous: 1 / 0}, tracker=MemoryTracker(), strict=True)])  # type: ignore[dict-item, return-value]


def test_a_failing_tracker_does_not_end_a_training(untouched: dict[str, str]) -> None:
    class Full(MemoryTracker):
        def log(self, analysis: str, step: int, findings: Findings) -> None:
            raise OSError(28, "No space left on device")

        def failure(self, what: str, message: str) -> None:
            raise OSError(28, "No space left on device")

        def document(self, name: str, text: str) -> None:
            raise OSError(28, "No space left on device")

        def finish(self, *, failed: bool = False) -> None:
            raise OSError(28, "No space left on device")

    assert fingerprint(*train([ObserverCallback(probe(), tracker=Full())])) == untouched


def test_a_disk_that_takes_no_more_does_not_end_a_training(tmp_path: Path) -> None:
    program = textwrap.dedent("""
        import resource, sys
        from pathlib import Path
        from netlapse.callbacks.lightning import ObserverCallback
        from netlapse.tracking.folder import FolderTracker
        from tests.training import probe, train
        tracker = FolderTracker(sys.argv[1])
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))  # the system refuses every longer file
        module, trainer = train([ObserverCallback(probe(), tracker=tracker)])
        print("epochs", trainer.current_epoch)
    """)
    result = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "record")],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)},
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert "epochs 2" in result.stdout
    assert "File too large" in result.stderr
    assert not list((tmp_path / "record").rglob(".*.npz.*"))  # no half of a file stays behind


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": ["conv9"]}, r"no layer named, matching or of type 'conv9'; this network has the layers \['net.conv1'"),
        ({"module": "body"}, r"module 'body' is not in Lit; it has \['net'\]"),
        ({"analyses": {"a/b": lambda s, p: Findings()}}, "analyses cannot be named"),
        (
            {"probe": ProbeSet(probe().inputs, probe().labels + 1)},
            "probe labels hold 3, and the network has 3 outputs, so allowed are 0 to 2; for a network whose outputs are no",
        ),
        ({"analyses": [partial(topomap, layout=partial(flas, metric="cosin"))]}, "unknown metric 'cosin'; allowed are"),
        ({"analyses": [partial(saliency, target="labels")]}, "saliency target is 'labels'; allowed are 'label' and 'predicted'"),
    ],
)
def test_what_cannot_work_is_said_before_the_first_batch(options: dict[str, Any], message: str) -> None:
    module = Lit()
    with pytest.raises(ValueError, match=message):
        train([ObserverCallback(**({"probe": probe(), "tracker": MemoryTracker()} | options))], module=module)
    assert module.seen.hexdigest() == Lit().seen.hexdigest()


def test_a_probe_of_another_shape_is_refused_before_the_first_batch() -> None:
    wrong = ProbeSet(np.zeros((4, 8, 8, 3), np.float32), np.arange(4) % 3)
    module = Lit()
    with pytest.raises(ValueError, match=r"cannot be observed on the probe's inputs of shape \(n, 8, 8, 3\).*expected input.*1 channels"):
        train([ObserverCallback(wrong, tracker=MemoryTracker())], module=module)
    assert module.seen.hexdigest() == Lit().seen.hexdigest()


def test_a_grouping_by_an_attribute_that_is_not_there_is_refused_before_the_first_batch() -> None:
    from netlapse.probe import by_attribute

    with pytest.raises(ValueError, match="no attribute"):
        train([ObserverCallback(probe(), tracker=MemoryTracker(), grouping=by_attribute("race"))])


def test_probes_as_torch_users_hold_them_are_one_and_the_same() -> None:
    hashes = []
    channels_first = torch.from_numpy(np.moveaxis(probe().inputs, -1, 1).copy())  # type: ignore[arg-type]
    labels = torch.from_numpy(probe().labels)
    for data in [
        (channels_first, labels),
        (probe().inputs, probe().labels),
        TensorDataset(channels_first, labels),
    ]:
        tracker = MemoryTracker()
        train([ObserverCallback(data, tracker=tracker)], epochs=1)
        hashes.append(tracker.manifest["probe"]["hash"])  # type: ignore[index]
    assert len(set(hashes)) == 1
    with pytest.raises(TypeError, match=r"probe is a str; expected a netlapse.types.ProbeSet, a pair \(inputs, labels\)"):
        train([ObserverCallback("data", tracker=MemoryTracker())])  # type: ignore[arg-type]


def test_three_lines_write_to_a_local_run_of_their_own(own_place: Path) -> None:
    from mlflow import MlflowClient

    train([ObserverCallback(probe=(probe().inputs, probe().labels))])
    client = MlflowClient(f"sqlite:///{own_place / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("netlapse").experiment_id])  # type: ignore[union-attr]
    assert [run.info.status for run in runs] == ["FINISHED"]
    assert netlapse.load(runs[0].info.run_id).steps == (0, 1, 2)


def test_the_run_of_the_trainers_mlflow_logger_is_used(own_place: Path) -> None:
    uri = f"sqlite:///{own_place / 'elsewhere.db'}"
    logger = MLFlowLogger("mine", tracking_uri=uri, artifact_location=str(own_place / "files"))
    train([ObserverCallback(probe())], logger=logger)
    recording = netlapse.load(str(logger.run_id), uri)
    assert recording.steps == (0, 1, 2)
    metrics = logger.experiment.get_run(logger.run_id).data.metrics
    assert {"train_loss_epoch", "val_loss", "training/val_loss", "nap/drift/net.relu"} <= set(metrics)


def test_a_resumed_training_goes_on_from_the_last_findings(tmp_path: Path) -> None:
    whole, halves = MemoryTracker(), FolderTracker(tmp_path / "record")
    train([ObserverCallback(probe(), tracker=whole)], epochs=4)
    _, trainer = train([ObserverCallback(probe(), tracker=halves)], epochs=2)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    resumed([ObserverCallback(probe(), tracker=FolderTracker(tmp_path / "record"))], tmp_path / "half.ckpt", 3)
    recording = FolderTracker(tmp_path / "record").recording()
    assert recording.steps == (0, 1, 2, 3)
    # What happened before the interruption is what it was, and the drift from the start is still from step 0.
    for step in (0, 1, 2):
        np.testing.assert_array_equal(
            recording.array("nap", "profile/net.relu").at(step), whole.recording().array("nap", "profile/net.relu").at(step)
        )
    np.testing.assert_array_equal(recording.array("nap", "first/net.relu").at(3), whole.recording().array("nap", "profile/net.relu").at(0))


def resumed(callbacks: list[pl.Callback], checkpoint: Path, epochs: int) -> pl.Trainer:
    from torch.utils.data import DataLoader

    pl.seed_everything(0, verbose=False)
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "enable_model_summary": False}
    trainer = pl.Trainer(max_epochs=epochs, accumulate_grad_batches=2, callbacks=callbacks, **quiet)
    trainer.fit(Lit(), DataLoader(Digits(), 8), ckpt_path=checkpoint)
    return trainer


def test_a_resumed_training_finds_nothing_twice_and_forgets_no_checkpoint(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    first = MlflowTracker()
    _, trainer = train([ObserverCallback(probe(), tracker=first, checkpoints=tmp_path / "weights")], epochs=2)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    created = netlapse.load(first.run_id).manifest["created"]
    resumed([ObserverCallback(probe(), tracker=MlflowTracker(first.run_id), checkpoints=tmp_path / "weights")], tmp_path / "half.ckpt", 3)
    recording = netlapse.load(first.run_id)
    assert recording.steps == (0, 1, 2, 3)
    assert recording.manifest["created"] == created
    assert list(recording.manifest["checkpoints"]) == ["0", "1", "2", "3"]  # type: ignore[call-overload]
    client = MlflowClient(first.uri)
    assert [point.step for point in client.get_metric_history(first.run_id, "nap/dead_units/net.relu")] == [0, 1, 2, 3]
    pictures = [item.path for item in client.list_artifacts(first.run_id, "images") if "storyboard" in item.path and item.path.endswith(".png")]
    assert len(pictures) == 4


def test_weights_in_the_middle_of_an_epoch_are_not_taken_for_an_epochs(tmp_path: Path) -> None:
    class Saved(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *args: object) -> None:
            if trainer.current_epoch == 1 and trainer.fit_loop.epoch_loop.batch_idx == 3:
                trainer.save_checkpoint(tmp_path / "middle.ckpt")

    train([Saved()], epochs=2)
    tracker = MemoryTracker()
    resumed([ObserverCallback(probe(), tracker=tracker)], tmp_path / "middle.ckpt", 3)
    assert tracker.recording().steps == (2, 3)


def test_a_second_training_does_not_write_over_the_first(tmp_path: Path) -> None:
    train([ObserverCallback(probe(), tracker=FolderTracker(tmp_path))])
    module = Lit()
    with pytest.raises(ValueError, match=r"the record holds findings already, of steps 0 to 2 .*; observe a new training into a record of its own"):
        train([ObserverCallback(probe(), tracker=FolderTracker(tmp_path))], module=module)
    assert module.seen.hexdigest() == Lit().seen.hexdigest()


def test_two_callbacks_have_a_run_each_and_say_which(own_place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logger = MLFlowLogger("mine", tracking_uri=f"sqlite:///{own_place / 'mlflow.db'}", artifact_location=str(own_place / "files"))
    train([ObserverCallback(probe()), ObserverCallback(probe(6))], logger=logger, epochs=1)
    said = [line.split()[4] for line in capsys.readouterr().out.splitlines() if line.startswith("netlapse: recorded in run")]
    assert len(set(said)) == 2
    assert said[0] == logger.run_id
    assert [netlapse.load(run_id).manifest["probe"]["inputs"] for run_id in said] == [12, 6]  # type: ignore[index]


def test_the_metrics_of_a_shipped_training_are_told_and_whoever_takes_them_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    from netlapse.data import digits
    from netlapse.models.torch import mlp
    from netlapse.training.lightning import fit

    def dying(values: Mapping[str, float], step: int) -> None:
        told.append((step, dict(values)))
        raise ConnectionError("gone")

    told: list[tuple[int, dict[str, float]]] = []
    data = digits()
    with caplog.at_level(logging.WARNING):
        trainer = fit(mlp(data.input_shape, 10, hidden=(8,)), data, max_epochs=2, metrics=dying, progress=False)
    assert trainer.current_epoch == 2
    assert [record.getMessage() for record in caplog.records if "recorded" in record.getMessage()] == [
        "netlapse: the training's metrics were not recorded: ConnectionError: gone"
    ]
    names = {name for _, values in told for name in values}
    assert {"train_loss", "train_accuracy", "val_loss", "val_accuracy"} <= names
    assert told[-1][0] == trainer.global_step - 1  # Lightning counts its steps from 0


def test_checkpoints_are_plain_lightning_files_of_the_weights_at_their_step(tmp_path: Path) -> None:
    module, _ = train([CheckpointCallback(tmp_path, at([0, 2]))])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_00000000.ckpt", "step_00000002.ckpt"]
    last = torch.load(tmp_path / "step_00000002.ckpt", weights_only=True)
    assert "optimizer_states" not in last
    for name, value in module.state_dict().items():
        assert torch.equal(last["state_dict"][name], value)
    pl.seed_everything(0, verbose=False)
    first = Lit.load_from_checkpoint(tmp_path / "step_00000000.ckpt")
    pl.seed_everything(0, verbose=False)
    assert torch.equal(first.net.conv1.weight, Lit().net.conv1.weight)


def test_the_manifest_names_the_checkpoint_of_every_observed_step(tmp_path: Path) -> None:
    import hashlib

    tracker = MemoryTracker()
    train([ObserverCallback(probe(), tracker=tracker, checkpoints=tmp_path)])
    saved = tracker.manifest["checkpoints"]
    assert list(saved) == ["0", "1", "2"]  # type: ignore[call-overload]
    for entry in saved.values():  # type: ignore[attr-defined]
        assert hashlib.sha256(Path(entry["path"]).read_bytes()).hexdigest() == entry["sha256"]


def test_a_training_that_is_interrupted_keeps_what_was_found() -> None:
    class Interrupted(pl.Callback):
        def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            if trainer.current_epoch == 1:
                raise RuntimeError("power cut")

    tracker = MemoryTracker()
    with pytest.raises(RuntimeError, match="power cut"):
        train([ObserverCallback(probe(), tracker=tracker), Interrupted()])
    assert tracker.recording().steps == (0, 1)
    assert tracker.manifest["failed"] is True
    assert "timelapse.html" in tracker.documents


def test_a_compiled_module_is_observed_as_what_it_is() -> None:
    plain, compiled = MemoryTracker(), MemoryTracker()
    for tracker in (plain, compiled):
        pl.seed_everything(0, verbose=False)
        module = Lit()
        if tracker is compiled:
            module.net = torch.compile(module.net, backend="eager")  # type: ignore[assignment]
        train([ObserverCallback(probe(), tracker=tracker)], module=module, epochs=1)
    for step in (0, 1):
        np.testing.assert_array_equal(
            plain.recording().array("nap", "profile/net.relu").at(step), compiled.recording().array("nap", "profile/net.relu").at(step)
        )


def test_one_forward_pass_of_the_probe_serves_all_analyses_that_need_it() -> None:
    shown: list[int] = []
    net = Net()
    net.register_forward_pre_hook(lambda module, args: shown.append(len(args[0])))
    from netlapse.analysis.nap import nap
    from netlapse.analysis.topomap import topomap
    from netlapse.observer import Observer

    network = TorchNetwork(net)
    observer = Observer(probe(), [nap, topomap], MemoryTracker(), grouping=by_outcome, batch_size=5)
    observer.start(network)
    shown.clear()
    observer.observe(network, 0)
    assert shown == [5, 5, 2]


def test_a_transformer_gets_profiles_and_maps_over_its_features() -> None:
    class Tokens(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2)
            self.head = nn.Linear(16, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.head(self.encoder(x).mean(dim=1))
            return logits

    rng = np.random.default_rng(0)
    tokens = ProbeSet(rng.random((9, 5, 16), np.float32), np.arange(9) % 3)
    tracker = MemoryTracker()
    from netlapse.observer import Observer

    network = TorchNetwork(Tokens())
    observer = Observer(tokens, default_analyses(tokens), tracker, strict=True)
    observer.start(network)
    observer.observe(network, 0)
    layers = [layer["name"] for layer in tracker.manifest["layers"]]  # type: ignore[attr-defined]
    assert layers == ["encoder.layers.0.norm2", "encoder.layers.1.norm2"]
    assert tracker.findings["nap"][0].arrays["profile/encoder.layers.0.norm2"].shape == (3, 16)
    assert tracker.findings["topomap"][0].arrays["positions/encoder.layers.1.norm2"].shape == (16, 2)
    assert tracker.failures == []
