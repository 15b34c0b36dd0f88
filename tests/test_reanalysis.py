"""Law: what is found offline in a saved checkpoint is what was found live, or would have been, whoever stopped whatever when."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

import netlapse
from netlapse.analysis.__main__ import run_reanalysis
from netlapse.cli import run_training
from netlapse.reanalysis import prepare, read_answers, reanalyse, write_answers
from netlapse.recompose import chosen
from netlapse.recording import Recording
from netlapse.statistics import GroupStatistics
from netlapse.tracking.folder import FolderTracker, packed, read
from netlapse.types import Answers
from tests.test_conf import ROOT, composed

TRAINED = (
    "data=digits",
    "model=cnn_tiny",
    "trainer.max_epochs=3",
    "trainer.batch_size=256",
    "trainer.progress=false",
    "probe.per_class=4",
    "strict=true",
)
NAP2 = ("+analyses.nap2._target_=netlapse.analysis.nap.nap", "+analyses.nap2._partial_=true")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A record with its checkpoints."""
    record = tmp_path_factory.mktemp("trained") / "record"
    run_training(composed([*TRAINED, "tracker=folder", f"tracker.folder={record}"]))
    return record


@pytest.fixture
def record(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "record"))


def reanalysed(*overrides: str) -> bool:
    cfg = composed(list(overrides), "reanalyse")
    return run_reanalysis(cfg, chosen(cfg, overrides))


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def assert_same(a: Recording, b: Recording, *names: str) -> None:
    for name in names:
        assert a.findings[name].keys() == b.findings[name].keys()
        for step, found in a.findings[name].items():
            other = b.findings[name][step]
            for part in ("arrays", "scalars"):
                mine, theirs = getattr(found, part), getattr(other, part)
                assert list(mine) == list(theirs)
                for key in mine:
                    np.testing.assert_array_equal(mine[key], theirs[key], f"{name}, step {step}, {key}")


def test_offline_is_live_bit_for_bit(trained: Path, tmp_path: Path) -> None:
    """Into a new record, of checkpoints that need never have seen netlapse: the data are named and not remembered."""
    new = tmp_path / "new"
    assert reanalysed(f"checkpoints={trained / 'checkpoints'}", "model=cnn_tiny", "data=digits", "probe.per_class=4", "tracker=folder",
                      f"tracker.folder={new}")  # fmt: skip
    live, offline = read(trained), read(new)
    assert live.steps == offline.steps == (0, 1, 2, 3)
    assert_same(live, offline, "nap", "topomap", "saliency")
    pictures = files(trained / "images")
    assert pictures
    assert files(new / "images") == pictures
    assert (new / "timelapse.html").is_file()
    assert [live.manifest[key] for key in ("layers", "class_names", "analyses", "asked")] == [
        offline.manifest[key] for key in ("layers", "class_names", "analyses", "asked")
    ]


@pytest.fixture(scope="module")
def trained_in_keras(tmp_path_factory: pytest.TempPathFactory) -> Path:
    record = tmp_path_factory.mktemp("keras") / "record"
    run_training(composed([*TRAINED, "framework=keras", "trainer.max_epochs=2", "tracker=folder", f"tracker.folder={record}"]))
    return record


def test_offline_is_live_bit_for_bit_in_keras(trained_in_keras: Path, tmp_path: Path) -> None:
    """Once with the model of the run's config, once with that of the files."""
    live = read(trained_in_keras)
    for number, model in enumerate((["model=cnn_tiny"], [])):
        new = tmp_path / str(number)
        assert reanalysed("framework=keras", f"checkpoints={trained_in_keras / 'checkpoints'}", "data=digits", "probe.per_class=4", "tracker=folder",
                          f"tracker.folder={new}", *model)  # fmt: skip
        assert_same(live, read(new), "nap", "topomap", "saliency")
        assert files(new / "images") == files(trained_in_keras / "images")
    record = Path(shutil.copytree(trained_in_keras, tmp_path / "record"))
    assert reanalysed(f"run={record}", *NAP2)
    for step, found in live.findings["nap"].items():
        assert packed(found) == packed(read(record).findings["nap2"][step])


def test_a_part_of_a_keras_model_is_found_again_in_the_whole_that_was_saved(tmp_path: Path) -> None:
    import keras

    from netlapse.callbacks.keras import ObserverCallback

    inner = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(3, 3, activation="relu", name="conv"), keras.layers.Flatten(),
                              keras.layers.Dense(3, name="scores")], name="inner")  # fmt: skip
    model = keras.Sequential([keras.Input((8, 8, 1)), inner])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    rng = np.random.default_rng(0)
    x, y = rng.random((12, 8, 8, 1), np.float32), np.arange(12) % 3
    record = tmp_path / "record"
    observer = ObserverCallback((x, y), module="inner", tracker=FolderTracker(record), checkpoints=record / "checkpoints", strict=True)
    model.fit(x, y, epochs=2, verbose=0, callbacks=[observer])
    assert reanalysed(f"run={record}", *NAP2)
    recording = read(record)
    for step, found in recording.findings["nap"].items():
        assert packed(found) == packed(recording.findings["nap2"][step])
    assert sorted(recording.findings["nap2"]) == [0, 1, 2]


def test_what_is_there_stays_as_it_is(record: Path) -> None:
    before = files(record)
    assert reanalysed(f"run={record}")
    assert files(record) == before


def test_only_what_is_missing_is_found_and_as_it_was_live(trained: Path, record: Path) -> None:
    for step in (1, 2):
        (record / "findings" / "nap" / f"step_{step:08d}.npz").unlink()
    shutil.rmtree(record / "findings" / "saliency")
    manifest = json.loads((record / "manifest.json").read_text())
    (record / "manifest.json").write_text(json.dumps(manifest | {"findings": {}}))
    (record / "timelapse.html").unlink()
    times = {path: path.stat().st_mtime_ns for path in (record / "findings" / "topomap").iterdir()}
    assert reanalysed(f"run={record}")
    assert_same(read(trained), read(record), "nap", "topomap", "saliency", "training", "cost")
    assert times == {path: path.stat().st_mtime_ns for path in (record / "findings" / "topomap").iterdir()}
    assert (record / "timelapse.html").is_file()
    after = json.loads((record / "manifest.json").read_text())
    assert {key: manifest[key] for key in manifest if key not in ("history", "outdated")} == {
        key: after[key] for key in manifest if key not in ("history", "outdated")
    }


def test_a_new_question_is_answered_at_all_steps_from_what_the_run_itself_keeps(record: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The data may be gone: the probe lies in the record."""
    monkeypatch.setattr("netlapse.data.digits", None)
    before = read(record)
    assert reanalysed(f"run={record}", *NAP2)
    after = read(record)
    assert set(after.findings) == {*before.findings, "nap2"}
    for step, found in before.findings["nap"].items():
        assert packed(found) == packed(after.findings["nap2"][step])
    assert after.manifest["analyses"] == ["nap", "topomap", "saliency", "predictions", "nap2"]


def test_what_is_asked_for_takes_the_place_of_the_runs_own_choices(record: Path) -> None:
    with pytest.raises(
        ValueError, match=r"analysis 'topomap' is in the record with layout=flas\(.*\), and is asked for with layout=pca\(metric=euclidean\)"
    ):
        reanalysed(f"run={record}", "layout=pca")
    with pytest.raises(ValueError, match=r"analysis 'topomap' .* limit=2.0, and is asked for with limit=3.0"):
        reanalysed(f"run={record}", "analyses.topomap.limit=3.0")
    other = ("+analyses.turned._target_=netlapse.analysis.topomap.topomap", "+analyses.turned._partial_=true", "+analyses.turned.layout=${layout}")
    assert reanalysed(f"run={record}", "~analyses.topomap", "layout=pca", *other)
    from netlapse.analysis.layout import pca

    found = read(record).findings["turned"][0].arrays
    np.testing.assert_array_equal(found["positions/relu1"], pca(np.asarray(found["contrast/relu1"], np.float64).T))


def test_force_replaces_and_leaves_no_gap(record: Path) -> None:
    live = read(record)
    assert reanalysed(f"run={record}", "force=true", "analyses.topomap.limit=3.0", "layout=pca")
    after = read(record)
    assert_same(live, after, "nap", "saliency", "cost")
    assert after.findings["topomap"].keys() == live.findings["topomap"].keys()
    for step, found in live.findings["topomap"].items():
        assert packed(found) != packed(after.findings["topomap"][step])
    assert "pca(metric=euclidean)" in after.manifest["asked"]["topomap"]["layout"]  # type: ignore[index]
    before = files(record / "findings")
    assert reanalysed(f"run={record}", "analyses.topomap.limit=3.0", "layout=pca")  # what is recorded now
    assert files(record / "findings") == before


def test_what_is_replaced_is_replaced_at_every_step_or_not_at_all(record: Path) -> None:
    before = files(record)
    with pytest.raises(ValueError, match=r"topomap.* layout=pca\(.*, but not at step 0, 1, 3, where it would stay"):
        reanalysed(f"run={record}", "force=true", "layout=pca", "step=2")
    assert files(record) == before
    assert reanalysed(f"run={record}", "force=true", "step=2")  # asked as it was
    assert files(record / "findings") == {name.removeprefix("findings/"): each for name, each in before.items() if name.startswith("findings/")}
    assert reanalysed(f"run={record}", "force=true", "layout=pca", "step=[0,1,2,3]")


def test_what_replaced_the_runs_own_is_the_runs_own_from_then_on(record: Path) -> None:
    own = read(record)
    assert reanalysed(f"run={record}", "force=true", "layout=pca", "analyses.nap.resamples=3")
    replaced = read(record)
    assert reanalysed(f"run={record}", *NAP2)  # asks for neither, and so for what is there
    assert reanalysed(f"run={record}", "analyses=samples")  # a set that has both as the run had them
    with pytest.raises(ValueError, match=r"saliency.* panel=16, and is asked for with panel=4"):
        reanalysed(f"run={record}", "analyses=default", "analyses.saliency.panel=4")
    (record / "findings" / "topomap" / "step_00000003.npz").unlink()
    manifest = json.loads((record / "manifest.json").read_text())
    (record / "manifest.json").write_text(json.dumps(manifest | {"findings": {}}))
    assert reanalysed(f"run={record}")
    assert_same(replaced, read(record), "nap", "topomap", "saliency", "predictions")
    with pytest.raises(ValueError, match=r"topomap.* layout=pca\(.*, and is asked for with layout=flas"):
        reanalysed(f"run={record}", "layout=flas")
    assert reanalysed(f"run={record}", "force=true", "layout=flas")
    assert_same(own, read(record), "topomap", "saliency", "predictions")
    assert_same(replaced, read(record), "nap")


def test_another_grouping_is_another_question_only_where_it_is_looked_at(record: Path) -> None:
    before = files(record / "findings")
    with pytest.raises(ValueError, match=r"analysis 'nap' is in the record with grouping=by_label, and is asked for with grouping=by_outcome"):
        reanalysed(f"run={record}", "grouping=outcome")
    manifest = json.loads((record / "manifest.json").read_text())
    assert [name for name, asked in manifest["asked"].items() if "grouping" not in asked] == ["saliency", "predictions"]
    manifest["asked"]["saliency"]["grouping"] = "by_label"  # as earlier versions said of all
    (record / "manifest.json").write_text(json.dumps(manifest))
    assert reanalysed(f"run={record}", "grouping=outcome", "~analyses.nap", "~analyses.topomap")
    assert files(record / "findings") == before


@pytest.mark.parametrize("order", [["2,0,3,1"], ["3", "0,1,2"]])
def test_jobs_side_by_side_find_what_one_finds_in_order(order: list[str], trained: Path, record: Path, tmp_path: Path) -> None:
    shutil.rmtree(record / "findings" / "saliency")
    shutil.rmtree(record / "findings" / "topomap")
    manifest = json.loads((record / "manifest.json").read_text())
    (record / "manifest.json").write_text(json.dumps(manifest | {"findings": {}}))
    environment = os.environ | {"NETLAPSE_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    for steps in order:
        program = [sys.executable, "-m", "netlapse.analysis", "-m", f"run={record}", f"step={steps}"]
        done = subprocess.run(program, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=600)
        assert done.returncode == 0, done.stderr
    if len(order) > 1:
        assert reanalysed(f"run={record}")  # what was found at step 3 was not found after step 2
    assert_same(read(trained), read(record), "nap", "topomap", "saliency")
    assert not list((tmp_path / "home" / "answers").iterdir())


def test_jobs_of_one_step_each_replace_at_all_steps_together(record: Path, tmp_path: Path) -> None:
    environment = os.environ | {"NETLAPSE_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    program = [sys.executable, "-m", "netlapse.analysis", "-m", f"run={record}", "force=true", "layout=pca"]
    done = subprocess.run([*program, "step=0,2"], capture_output=True, text=True, env=environment, cwd=ROOT, timeout=600)
    assert done.returncode == 1
    assert "not at step 1, 3, where it would stay" in done.stderr
    one = Path(shutil.copytree(record, tmp_path / "one"))
    assert reanalysed(f"run={one}", "force=true", "layout=pca")
    done = subprocess.run([*program, "step=0,1,2,3"], capture_output=True, text=True, env=environment, cwd=ROOT, timeout=600)
    assert done.returncode == 0, done.stderr
    assert_same(read(one), read(record), "nap", "topomap", "saliency", "predictions")


def test_what_the_network_has_answered_it_is_not_asked_again(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done by the jobs side by side is all that is costly: the passes of the probe and the maps."""
    from netlapse.analysis import default_analyses
    from netlapse.backends.torch import TorchNetwork
    from netlapse.backends.torch_files import load_weights
    from netlapse.models.torch import cnn
    from netlapse.observer import Observer
    from netlapse.tracking.checkpoints import find
    from netlapse.tracking.memory import MemoryTracker
    from netlapse.tracking.probes import from_bytes

    probe, checkpoints = from_bytes((trained / "probe.npz").read_bytes()), find(trained / "checkpoints")
    network = TorchNetwork(cnn((8, 8, 1), 10, channels=(4, 8), hidden=16))

    def load(path: Path) -> None:
        load_weights(network, path)

    def observer() -> Observer:
        made = Observer(probe, default_analyses(probe), MemoryTracker(), strict=True)
        made.start(network)
        return made

    prepare(observer(), network, dict(reversed(checkpoints.items())), load, tmp_path)
    last = observer()

    def asked(*args: object, **kwargs: object) -> None:
        raise AssertionError("asked again")

    for method in ("responses", "vjp", "activations", "outputs", "group_sums"):
        monkeypatch.setattr(TorchNetwork, method, asked)
    done = reanalyse(last, network, checkpoints, lambda path: None, answers=tmp_path)
    assert done.whole
    assert sorted(done.found) == [0, 1, 2, 3]
    assert_same(read(trained), last.tracker.recording(), "nap", "topomap", "saliency")


def test_answers_of_a_network_come_out_of_their_file_as_they_went_in(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    layers = {"a/b": rng.random((2, 3)), "": rng.random((2, 1))}
    low = {name: values[0].astype(np.float32) for name, values in layers.items()}
    whole = {name: np.arange(values.size).reshape(values.shape) for name, values in layers.items()}
    first = {name: np.asarray(-1) for name in layers}
    logits = rng.random((3, 2)).astype(np.float32)
    extremes = {name: values.astype(np.float32) for name, values in layers.items()}
    statistics = GroupStatistics(
        ("x", "y"), np.array([1, 2]), layers, layers, low, low, whole, extremes, whole, extremes, first, np.array([0, 1, 1]), logits, 0.5, extremes
    )
    write_answers(tmp_path / "a.npz", Answers(statistics, {"saliency/maps/g": rng.random((2, 2))}))
    found = read_answers(tmp_path / "a.npz")
    assert found is not None
    assert found.statistics is not None
    for part in ("names", "counts", "groups", "logits", "seconds"):
        np.testing.assert_array_equal(getattr(found.statistics, part), getattr(statistics, part))
    for part in ("sums", "squares", "low", "high", "active", "peaks", "top", "top_values", "broken", "kept"):
        assert list(getattr(found.statistics, part)) == ["a/b", ""]
        for layer, values in getattr(statistics, part).items():
            np.testing.assert_array_equal(getattr(found.statistics, part)[layer], values)
    assert list(found.arrays) == ["saliency/maps/g"]
    assert read_answers(tmp_path / "b.npz") is None
    write_answers(tmp_path / "c.npz", Answers(None, {"a/x": np.ones(2)}))
    assert read_answers(tmp_path / "c.npz").statistics is None  # type: ignore[union-attr]


def test_what_a_runs_config_calls_is_called_only_if_it_is_ours_or_vouched_for(record: Path, tmp_path: Path) -> None:
    """Anybody who may write to a run may have changed it."""
    proof = tmp_path / "proof"
    text = (record / "config.yaml").read_text()
    before = files(record)
    for planted in (
        text.replace("_target_: ${framework.models}.cnn", f"_target_: subprocess.getoutput\n  cmd: touch {proof}"),
        text.replace("_target_: ${framework.models}.cnn", f"_target_: netlapse.sweep.os.system\n  command: touch {proof}"),
        text.replace("path: netlapse.probe.by_label", "path: os.system"),
        text.replace("path: netlapse.probe.by_label", "_args_: [os.system]"),
        text + f"analyses:\n  nap:\n    _target_: subprocess.getoutput\n    cmd: touch {proof}\n" if "\nanalyses:" not in text else text.replace(
            "_target_: netlapse.analysis.nap.nap", f"_target_: subprocess.getoutput\n    cmd: touch {proof}"),
        text.replace("framework:\n", f"framework:\n  extra:\n    _target_: subprocess.getoutput\n    cmd: touch {proof}\n"),
    ):  # fmt: skip
        assert planted != text
        (record / "config.yaml").write_text(planted)
        with pytest.raises(ValueError, match=r"the run's config calls '.*' at .*, which is no part of netlapse; .* trust=true"):
            reanalysed(f"run={record}", *NAP2)
        assert not proof.exists()
    own = text.replace("_target_: ${framework.models}.cnn", "_target_: tests.test_reanalysis.own_cnn")
    (record / "config.yaml").write_text(own)
    with pytest.raises(ValueError, match=r"'tests.test_reanalysis.own_cnn' at model._target_"):
        reanalysed(f"run={record}", *NAP2)
    (record / "config.yaml").write_text(text)
    assert files(record) == before
    (record / "config.yaml").write_text(own)
    assert reanalysed(f"run={record}", "trust=true", *NAP2)
    assert_same(read(record), Recording({}, {"nap": read(record).findings["nap2"]}), "nap")


@pytest.mark.parametrize("configured", [True, False])
def test_what_replaced_the_runs_own_is_called_only_if_it_is_ours_or_vouched_for(record: Path, tmp_path: Path, configured: bool) -> None:
    proof = tmp_path / "proof"
    manifest = json.loads((record / "manifest.json").read_text())
    manifest["replaced"] = {"nap": {"_target_": "subprocess.getoutput", "cmd": f"touch {proof}"}}
    (record / "manifest.json").write_text(json.dumps(manifest))
    if not configured:
        (record / "config.yaml").unlink()
    with pytest.raises(ValueError, match=r"the run's config calls 'subprocess.getoutput' at .*analyses.nap._target_, which is no part of netlapse"):
        reanalysed(f"run={record}", "model=cnn_tiny", "data=digits", "probe.per_class=4")
    assert not proof.exists()


def own_cnn(*args: object, **kwargs: object) -> torch.nn.Module:
    from netlapse.models.torch import cnn

    return cnn(*args, **kwargs)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------- in MLflow


@pytest.fixture
def run_id(own_place: Path, tmp_path: Path, trained: Path) -> Iterator[str]:
    """The same training, as an MLflow run of a local store."""
    from netlapse.tracking.mlflow import MlflowTracker

    recording = read(trained)
    tracker = MlflowTracker()
    tracker.start({key: value for key, value in recording.manifest.items() if key not in ("findings", "failed", "run_id")})
    for name in ("config.yaml", "probe.npz", "predictions_scores.json", "predictions_inputs.json"):
        tracker.document(name, (trained / name).read_bytes())
    live = FolderTracker(trained)
    for name, by_step in recording.findings.items():
        for step, found in by_step.items():
            from PIL import Image

            images = {}
            for path in (trained / "images").rglob(f"step_{step:08d}.png"):
                key = path.parent.relative_to(trained / "images").as_posix()
                if key.startswith("saliency") == (name == "saliency") and name in ("saliency", "topomap"):
                    images[key] = np.asarray(Image.open(path).convert("RGB"))
            tracker.log(name, step, netlapse.types.Findings(found.arrays, found.scalars, images))
    assert live.manifest["findings"] == tracker.spool.manifest["findings"]
    tracker.finish()
    return tracker.run_id


def store(home: Path) -> tuple[dict[str, str], list[tuple[object, ...]]]:
    """Every artifact and every metric, parameter and tag of a local store."""
    import sqlite3

    with closing(sqlite3.connect(home / "mlflow.db")) as database:
        rows = [
            (table, *row) for table in ("metrics", "params", "tags", "runs") for row in database.execute(f"select * from {table} order by 1, 2, 3")
        ]
    return files(home / "artifacts"), rows


def test_a_second_call_adds_nothing_to_an_mlflow_run(run_id: str, own_place: Path) -> None:
    assert reanalysed(f"run={run_id}", *NAP2)
    before = store(own_place)
    assert sum("findings/nap2" in name for name in before[0]) == 4
    assert reanalysed(f"run={run_id}", *NAP2)
    assert store(own_place) == before


def test_what_is_found_again_as_it_was_is_nothing_new_to_mlflow(run_id: str, own_place: Path) -> None:
    artifacts, rows = store(own_place)
    assert reanalysed(f"run={run_id}", "force=true")
    again, rows_again = store(own_place)
    texts = {name for name in again if name.endswith(("manifest.json", "timelapse.html"))}
    assert {name: digest for name, digest in again.items() if name not in texts} == {n: d for n, d in artifacts.items() if n not in texts}
    assert [row for row in rows_again if row[0] == "metrics"] == [row for row in rows if row[0] == "metrics"]
    assert [row for row in rows_again if row[0] == "runs"] == [row for row in rows if row[0] == "runs"]  # still as it ended


def test_other_pictures_take_the_place_of_those_that_were_there(run_id: str, own_place: Path) -> None:
    def pictures() -> dict[tuple[str, int], int]:
        names = [Path(name).name.split("+") for name in store(own_place)[0] if "/images/" in f"/{name}" and name.endswith(".png")]
        return {(key, int(step)): sum(other[:3] == [key, "step", step] for other in names) for key, _, step, *_ in names}

    before = pictures()
    assert reanalysed(f"run={run_id}", "force=true", "analyses.topomap.limit=3.0")
    assert pictures() == before
    assert set(before.values()) == {1}


def test_checkpoints_may_lie_in_the_run_itself(run_id: str, own_place: Path, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from mlflow import MlflowClient

    from netlapse.tracking.mlflow import MlflowTracker

    tracker = MlflowTracker(run_id)
    named = tracker.manifest["checkpoints"]
    tracker.describe({"checkpoints": {step: {**entry, "path": "/nowhere/" + Path(entry["path"]).name} for step, entry in named.items()}})  # type: ignore[attr-defined]
    tracker.close()
    assert not reanalysed(f"run={run_id}", *NAP2)
    assert capsys.readouterr().out.count("Not read, step ") == 4
    client = MlflowClient(f"sqlite:///{own_place / 'mlflow.db'}")
    client.log_artifacts(run_id, str(trained / "checkpoints"), "some/where")
    assert reanalysed(f"run={run_id}", *NAP2)
    assert_same(read(trained), netlapse.load(run_id), "nap")
    assert sorted(netlapse.load(run_id).findings["nap2"]) == [0, 1, 2, 3]


# ------------------------------------------------------------------------------------------- what does not fit together


def test_a_checkpoint_that_cannot_be_read_keeps_no_other_from_being_read(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = record / "checkpoints" / "step_00000002.ckpt"
    named = json.loads((record / "manifest.json").read_text())["checkpoints"]
    assert Path(named["2"]["path"]).parent != record / "checkpoints"
    tracker = FolderTracker(record)
    tracker.describe(
        {"checkpoints": {step: {**entry, "path": str(record / "checkpoints" / Path(entry["path"]).name)} for step, entry in named.items()}}
    )
    saved.write_bytes(saved.read_bytes()[:-100])
    assert not reanalysed(f"run={record}", *NAP2)
    said = capsys.readouterr().out
    assert f"Not read, step 2: {saved} is not the file that was saved: its sha256 is" in said
    assert sorted(read(record).findings["nap2"]) == [0, 1, 3]
    assert not reanalysed(f"run={record}", f"checkpoints={record / 'checkpoints'}", *NAP2)
    assert "Not read, step 2" in capsys.readouterr().out


def test_a_step_found_late_is_what_the_later_ones_go_by(trained: Path, record: Path) -> None:
    """A checkpoint turns up that was not there at first: everything ends as if it had been."""
    steps = sorted((record / "checkpoints").iterdir())
    aside = record.parent / "aside"
    steps[1].rename(aside)
    others = ("+analyses.maps._target_=netlapse.analysis.topomap.topomap", "+analyses.maps._partial_=true", f"checkpoints={record / 'checkpoints'}")
    assert reanalysed(f"run={record}", *others)
    assert sorted(read(record).findings["maps"]) == [0, 2, 3]
    aside.rename(steps[1])
    assert reanalysed(f"run={record}", *others)
    live = read(trained).findings["topomap"]
    for step, found in read(record).findings["maps"].items():
        assert packed(found) == packed(live[step])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["step=7"], r"there is no checkpoint of step \[7\]; there are those of \[0, 1, 2, 3\]"),
        (["probe.per_class=3", "data=digits"], r"of another probe: its hash is"),
        (["checkpoints=/nowhere"], r"no folder of checkpoints at /nowhere"),
        (["model=mlp_tiny", *NAP2], r"layers"),
    ],
)
def test_what_does_not_fit_the_run_is_said_and_changes_nothing(overrides: list[str], message: str, record: Path) -> None:
    before = files(record)
    with pytest.raises((ValueError, OSError), match=message):
        reanalysed(f"run={record}", *overrides)
    assert files(record) == before


def test_without_a_run_or_a_model_it_is_said_what_to_name(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="run and checkpoints are null; name a run"):
        reanalysed()
    with pytest.raises(ValueError, match="the record holds no probe and data is null; name the data"):
        reanalysed(f"checkpoints={trained / 'checkpoints'}")
    with pytest.raises(ValueError, match="model is null, and these checkpoints hold weights alone"):
        reanalysed(f"checkpoints={trained / 'checkpoints'}", "data=digits")


def test_a_run_of_somebodys_own_script_is_asked_with_the_network_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but the callback knew of the training: layers, probe and batches are read from the record."""
    from netlapse.callbacks.lightning import ObserverCallback
    from tests.training import Net, probe, train

    record = tmp_path / "own"
    callback = ObserverCallback(
        probe(), tracker=FolderTracker(record), checkpoints=record / "checkpoints", module="net", layers="*norm*", batch_size=5
    )
    train([callback])
    live = read(record)
    shutil.rmtree(record / "findings" / "nap")
    manifest = json.loads((record / "manifest.json").read_text())
    (record / "manifest.json").write_text(json.dumps(manifest | {"findings": {}}))
    torch.manual_seed(123)
    assert reanalysed(f"run={record}", f"+model._target_={Net.__module__}.Net")
    assert_same(live, read(record), "nap", "topomap", "saliency")


# ------------------------------------------------------------------------------------------- what needs no analysis


def test_the_audit_is_a_table_of_the_run_and_says_whether_all_is_well(
    run_id: str, own_place: Path, record: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    assert reanalysed(f"run={run_id}", "audit=true")
    assert "4 checkpoints: nothing is wrong" in capsys.readouterr().out
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{own_place / 'mlflow.db'}")  # where it looks, whatever the client's store
    client = MlflowClient()
    table = client.load_table(client.get_run(run_id).info.experiment_id, "checkpoints.json", [run_id])
    assert table["step"].tolist() == [0, 1, 2, 3]
    assert len(set(table["sha256"])) == len(set(table["weights"])) == 4
    saved = sorted((record / "checkpoints").iterdir())
    shutil.copyfile(saved[1], saved[2])
    assert not reanalysed(f"run={record}", f"checkpoints={record / 'checkpoints'}", "audit=true")
    assert "identical" in capsys.readouterr().out
    rows = json.loads((record / "checkpoints.json").read_text())
    problem = rows["columns"].index("problems")
    assert ["identical" in row[problem] for row in rows["data"]] == [False, True, True, False]


def test_maps_are_laid_out_anew_beside_those_that_were_observed(record: Path) -> None:
    before = read(record)
    assert reanalysed(f"run={record}", "relayout=last")
    after = read(record)
    assert set(after.findings) == {*before.findings, "topomap_last"}
    assert_same(before, after, *before.findings)
    for found in after.findings["topomap_last"].values():
        np.testing.assert_array_equal(found.arrays["positions/relu1"], after.findings["topomap_last"][3].arrays["positions/relu1"])
    assert len(list((record / "images" / "topomap_last" / "relu1").iterdir())) == 4
    assert "fixed at epoch 3" in (record / "timelapse.html").read_text() or "topomap_last" in (record / "timelapse.html").read_text()
    there = files(record)
    assert reanalysed(f"run={record}", "relayout=last")
    assert files(record) == there
    pictures = (record / "images" / "topomap_last" / "relu1").iterdir()
    before = {path.name: path.read_bytes() for path in pictures}
    assert reanalysed(f"run={record}", "relayout=last", "analyses.topomap.dots=true")  # what is recorded beside the pictures stays the same
    assert all(path.read_bytes() != before[path.name] for path in (record / "images" / "topomap_last" / "relu1").iterdir())
    assert reanalysed(f"run={record}", "relayout=2")
    assert sorted(read(record).findings["topomap_at_2"]) == [0, 1, 2, 3]


def test_one_run_in_which_something_is_wrong_does_not_keep_the_others_from_being_audited(record: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    shutil.copytree(record, wrong)
    saved = sorted((wrong / "checkpoints").iterdir())
    shutil.copyfile(saved[1], saved[2])
    environment = os.environ | {"NETLAPSE_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    # The folders stand for the runs' own: a record that was copied names its checkpoints where they were.
    program = [sys.executable, "-m", "netlapse.analysis", "-m", "audit=true", f"checkpoints={wrong}/checkpoints,{record}/checkpoints"]
    done = subprocess.run(program, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=600)
    assert done.returncode != 0
    assert "identical" in done.stdout
    assert "4 checkpoints: nothing is wrong" in done.stdout, done.stdout + done.stderr


def test_recorded_activations_are_analysed_and_findings_exported(record: Path, tmp_path: Path) -> None:
    from netlapse.backends.torch import TorchNetwork
    from netlapse.export import activations_to_inntrospect
    from netlapse.models.torch import cnn
    from netlapse.tracking.probes import from_bytes

    probe = from_bytes((record / "probe.npz").read_bytes())
    network = TorchNetwork(cnn((8, 8, 1), 10, channels=(4, 8), hidden=16))
    activations_to_inntrospect(network, probe, ["relu1", "relu3"], tmp_path / "theirs")
    new = tmp_path / "new"
    assert reanalysed(f"activations={tmp_path / 'theirs'}", "step=7", "analyses=profiles", "tracker=folder", f"tracker.folder={new}")
    found = read(new)
    assert found.steps == (7,)
    from netlapse.analysis.nap import activation_profiles

    labels = probe.labels
    expected = activation_profiles(network, probe.inputs, labels, ["relu1", "relu3"])
    for layer, profile in expected.items():
        np.testing.assert_allclose(found.findings["nap"][7].arrays[f"profile/{layer}"], profile, rtol=1e-5, atol=1e-6)
    assert reanalysed(f"run={record}", f"export={tmp_path / 'export'}", "step=2")
    sizes = np.load(tmp_path / "export" / "group_sizes.npy")
    np.testing.assert_array_equal(sizes, read(record).findings["nap"][2].arrays["counts"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["run=nonsense"], "netlapse: config key 'tracker': Run with id=nonsense not found"),
        (["run={record}", "step=9"], "netlapse: there is no checkpoint of step [9]; there are those of [0, 1, 2, 3]"),
        (["run={record}", "audit=true", "step=9"], "netlapse: there is no checkpoint of step [9]"),
        (["run={record}", "relayout=9"], "netlapse: "),
        (["run={record}", "analyses=nope"], "nope"),
        ([], "netlapse: run and checkpoints are null; name a run, as run=<id>"),
    ],
)
def test_the_program_says_in_one_message_what_is_wrong(overrides: list[str], message: str, record: Path, own_place: Path) -> None:
    program = [sys.executable, "-m", "netlapse.analysis", *(override.format(record=record) for override in overrides)]
    environment = os.environ | {"NETLAPSE_HOME": str(own_place), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(program, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=300)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
