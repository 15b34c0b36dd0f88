"""Every YAML in conf/ is instantiated, every experiment is run, and wrong values get an error that says what is allowed."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import yaml
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from omegaconf import DictConfig

import netlapse
import netlapse.conf
from netlapse import cli
from netlapse.tracking.folder import FolderTracker
from netlapse.training.penalty import Penalty
from netlapse.training.remedies import Remedy

ROOT = Path(__file__).parent.parent
CONF = ROOT / "conf"
CHOICES = sorted((path.parent.name, path.stem) for path in CONF.glob("*/*.yaml"))

# What a choice needs from the user before it can be built.
NEEDS = {
    ("tracker", "folder"): ["tracker.folder={tmp}/record"],
    ("grouping", "attribute"): ["grouping._args_=[race]"],
    ("remedy", "group_balanced"): ["remedy.attribute=rotated"],
    ("remedy", "group_dro"): ["remedy.attribute=rotated"],
    ("penalty", "confusions"): ['penalty.confusions=["3->5=2.0","5->3=0.5"]'],
    ("penalty", "right_reasons"): ["masks=file", "masks.of.path={tmp}/masks.npz"],
    ("masks", "folder"): ["masks.of.folder={tmp}/images"],
    ("masks", "file"): ["masks.of.path={tmp}/masks.npz"],
    ("masks", "boxes"): ["masks.of.csv={tmp}/boxes.csv"],
    ("data", "image_folder"): ["data.root={tmp}/images"],
    ("data", "fairface"): ["data.root={tmp}"],
    ("data", "celeba"): ["data.root={tmp}"],
    ("data", "image_csv"): ["data.csv={tmp}/images.csv", "data.image_column=file", "data.label_column=label"],
}
# How an experiment is made small enough for a test, where a tiny network on digits is not it.
MLP = ["data=digits"]  # the published network is small
WRONG = ["data@data.data=digits", "analyses.topomap.min_inputs=1"]
REDUCED = {
    "resnet": ["data=digits", "model=resnet18_tiny", "~model.width"],
    **dict.fromkeys(("layout_methods", "spread_evaluation", "layout_from_inputs"), MLP),
    **dict.fromkeys(("label_errors", "training_confusion"), WRONG),
    "training_errors": [*WRONG, "probe.per_class=20"],
    "robustness": MLP,
    "fairness": ["model=cnn_tiny", "analyses.fairness.min_inputs=5"],
    "dbvae": ["model=dbvae_tiny", "analyses.fairness.min_inputs=5"],
    "attribute_bias": ["data.root={tmp}", "data.size=[8,8]", "model=cnn_tiny", "analyses.topomap.min_inputs=1"],
}
# Two values of each of what an experiment varies with -m, and how many jobs that makes.
SWEPT = {
    "robustness": (["data=digits", "model.hidden=[16]", "seed=0,1"], 2),
    "learning_rates": (["data=digits", "model=cnn_tiny", "trainer.learning_rate=0.001,0.01", "seed=0"], 2),
    "widths": (["data=digits", "model=cnn_tiny", "model.channels=[4,8],[4,12]", "seed=0"], 2),
    "frameworks": (["data=digits", "model=cnn_tiny", "seed=0"], 2),
}
# Data that are downloaded when they are not on the machine: built in tests/test_data.py from small caches made there.
DOWNLOADED = {"mnist", "fashion_mnist", "cifar10", "cifar100"}


def composed(overrides: list[str], name: str = "train") -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_module("netlapse.conf", version_base="1.3"):
        return compose(name, overrides=overrides)


def run(program: str, *overrides: str, home: Path) -> subprocess.CompletedProcess[str]:
    """What the program does, but in this process: importing takes longer than what most tests run. Other files run it as users do."""
    out, error, command = io.StringIO(), io.StringIO(), [str(ROOT / program), *overrides]
    code: object = 0
    with pytest.MonkeyPatch.context() as here, redirect_stdout(out), redirect_stderr(error):
        here.setenv("NETLAPSE_HOME", str(home))
        here.chdir(home)
        here.setattr(sys, "argv", command)
        try:
            {"train.py": cli.train, "create_checkpoints.py": cli.checkpoints}[program]()
        except SystemExit as ended:
            code = ended.code
    if isinstance(code, str):  # Python itself tells of it, where it ends
        error.write(code)
        code = 1
    return subprocess.CompletedProcess(command, int(str(code or 0)), out.getvalue(), error.getvalue())


@pytest.mark.parametrize(("group", "choice"), CHOICES, ids=["/".join(pair) for pair in CHOICES])
def test_every_choice_composes_and_can_be_built(group: str, choice: str, tmp_path: Path) -> None:
    if group == "data":
        _small_images(tmp_path)
    needs = [need.format(tmp=tmp_path) for need in NEEDS.get((group, choice), [])]
    program = "checkpoints" if (group, choice) == ("callback", "checkpoints") else "train"
    cfg = composed([f"{group}={choice}", *needs], program)
    if group == "model":
        network = instantiate(cfg.model)((32, 32, 3), 4)
        import torch

        assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 4)
    elif group == "data" and choice not in DOWNLOADED:
        data = instantiate(cfg.data)
        assert len(data.train_inputs)
        assert len(data.test_inputs)
    elif group == "callback" and cfg.callback:
        assert callable(instantiate(cfg.callback))
    elif group == "remedy" and cfg.remedy:
        assert isinstance(instantiate(cfg.remedy), Remedy)
    elif group == "penalty" and cfg.penalty:
        assert isinstance(instantiate(cfg.penalty), Penalty)
    elif group == "saliency":
        built = instantiate(cfg.saliency).methods
        assert built is None or all(callable(method) for method in built.values())
    elif group == "masks":
        assert instantiate(cfg.masks).of is None or callable(instantiate(cfg.analyses).saliency.keywords["masks"])
    elif group == "layout":
        assert instantiate(cfg.layout)(np.random.default_rng(0).random((9, 3))).shape == (9, 2)
    elif group in ("probe", "grouping", "analyses", "schedule", "tracker", "framework"):
        assert instantiate(cfg[group]) is not None


def test_the_package_lists_every_folder_that_holds_code_or_configs() -> None:
    import tomllib

    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    roots = {"netlapse": ROOT / "netlapse", "netlapse.callbacks": ROOT / "callbacks", "netlapse.analysis": ROOT / "analysis", "netlapse.conf": CONF}
    there = set()
    for name, folder in roots.items():
        for path in [folder, *(p for p in folder.rglob("*") if p.is_dir() and (any(p.glob("*.py")) or any(p.glob("*.yaml"))))]:
            there.add(".".join([name, *path.relative_to(folder).parts]))
    assert listed == there


@pytest.mark.parametrize("experiment", sorted(path.stem for path in (CONF / "experiment").glob("*.yaml")))
def test_every_experiment_runs_reduced(experiment: str, tmp_path: Path) -> None:
    _small_images(tmp_path)
    reduced = REDUCED.get(experiment, ["data=digits", "model=cnn_tiny"])
    short = ["trainer.max_epochs=1", "trainer.batch_size=256", "trainer.progress=false", "probe.per_class=2", "strict=true"]
    record = ["tracker=folder", f"tracker.folder={tmp_path / 'record'}"]
    result = run("train.py", f"experiment={experiment}", *(word.format(tmp=tmp_path) for word in reduced), *short, *record, home=tmp_path)
    assert result.returncode == 0, result.stderr
    assert ("One run: with -m" in result.stdout) == (experiment in SWEPT)
    assert (tmp_path / "record" / "timelapse.html").is_file()


@pytest.mark.parametrize(
    ("data", "attribute", "groups", "missing"), [("fairface", "race", ["Black", "Indian", "White"], 0), ("celeba", "Male", ["Male", "not Male"], 1)]
)
def test_bias_on_a_folder_of_faces_is_told_by_its_tables(data: str, attribute: str, groups: list[str], missing: int, tmp_path: Path) -> None:
    _small_images(tmp_path)
    words = [
        "experiment=fairness",
        f"data={data}",
        f"data.root={tmp_path}",
        "data.size=[8,8]",
        "model=cnn_tiny",
        "analyses.fairness.min_inputs=1",
        "~analyses.rarest",
    ]
    short = ["trainer.max_epochs=1", "trainer.progress=false", "probe.per_class=2", "strict=true", "callback.stop_on=[fairness/*]"]
    result = run("train.py", *words, *short, "tracker=folder", f"tracker.folder={tmp_path / 'record'}", home=tmp_path)
    assert result.returncode == 0, result.stderr
    record = FolderTracker(tmp_path / "record").recording()
    found = record.findings["fairness"][1]
    assert set(found.arrays[f"groups/{attribute}"].tolist()) <= set(groups)
    assert int(np.asarray(found.arrays[f"counts/{attribute}"]).sum()) + missing == 4
    assert found.scalars[f"fairness/missing/{attribute}"] == missing
    assert record.manifest["events"] == {"fairness": []}


def test_the_default_training_records_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run("train.py", "data=digits", "model=cnn_tiny", "trainer.max_epochs=2", "trainer.progress=false", "strict=true", home=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "Observed 3 epochs (0 to 2)" in result.stdout
    assert f"{ROOT / 'run'} ui" in result.stdout
    monkeypatch.setenv("NETLAPSE_HOME", str(tmp_path))
    run_id = result.stdout.split("Recorded in run ")[1].split()[0]
    recording = netlapse.load(run_id)
    assert set(recording.findings) == {"nap", "topomap", "saliency", "predictions", "training", "cost"}
    scalars = recording.scalars
    for layer in [layer["name"] for layer in recording.manifest["layers"]]:  # type: ignore[attr-defined]
        assert scalars[f"nap/drift/{layer}"].steps.tolist() == [1, 2]
        for metric in ("nap/separability", "nap/dead_units", "layout/trustworthiness"):
            assert scalars[f"{metric}/{layer}"].steps.tolist() == [0, 1, 2]
    assert {"cost/nap", "cost/topomap", "cost/saliency", "cost/forward", "cost/overhead", "training/val_accuracy", "training/train_loss"} <= set(
        scalars
    )
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    stored = client.get_run(run_id)
    assert stored.info.status == "FINISHED"
    assert {"val_accuracy", "train_loss"} <= set(stored.data.metrics)
    assert stored.data.params["seed"] == "0"
    assert len(stored.data.params) < 15
    names = {item.path for item in client.list_artifacts(run_id)}
    assert {"config.yaml", "manifest.json", "timelapse.html", "findings", "images"} <= names
    config = yaml.safe_load(Path(client.download_artifacts(run_id, "config.yaml", str(tmp_path))).read_text())
    assert config["trainer"]["max_epochs"] == 2
    keys = {item.path.split("+")[0].removeprefix("images/") for item in client.list_artifacts(run_id, "images")}
    assert {"storyboard", "saliency~gradient", "saliency~grad_cam", "topomap~relu1"} <= keys
    saved = recording.manifest["checkpoints"]
    assert [Path(entry["path"]).parent for entry in saved.values()] == [tmp_path / "checkpoints" / run_id] * 3  # type: ignore[attr-defined]
    assert not list((tmp_path / "spool").iterdir())


def test_the_experiments_that_vary_something_by_themselves_are_those_whose_sweeps_are_run() -> None:
    written = {path.stem: yaml.safe_load(path.read_text()) for path in (CONF / "experiment").glob("*.yaml")}
    assert {name for name, experiment in written.items() if "hydra" in experiment} == set(SWEPT)
    for name, (words, _) in SWEPT.items():
        assert {"similarity"} == {default["override /analyses"] for default in written[name]["defaults"] if "override /analyses" in default}
        given = {word.partition("=")[0] for word in words}
        assert given & {"seed", *written[name]["hydra"]["sweeper"]["params"]}


@pytest.mark.parametrize("experiment", sorted(SWEPT))
def test_an_experiment_varies_what_it_is_about_with_m(experiment: str, tmp_path: Path) -> None:
    words, jobs = SWEPT[experiment]
    short = ["trainer.max_epochs=1", "trainer.batch_size=256", "trainer.progress=false", "probe.per_class=2", "strict=true"]
    result = run(
        "train.py", "-m", f"experiment={experiment}", *words, *short, "tracker=folder", f"tracker.folder={tmp_path / 'sweep'}", home=tmp_path
    )
    assert result.returncode == 0, result.stderr
    assert f"Sweep of {jobs} jobs: {jobs} finished" in result.stdout
    assert "One run" not in result.stdout
    recordings = [FolderTracker(path.parent).recording() for path in (tmp_path / "sweep").glob("*/manifest.json")]
    assert len(recordings) == jobs
    assert all("similarity" in recording.findings for recording in recordings)


@pytest.mark.parametrize("choice", sorted(path.stem for path in (CONF / "model").glob("*.yaml")))
def test_every_network_is_there_in_keras_too(choice: str) -> None:
    cfg = composed(["framework=keras", f"model={choice}"])
    assert instantiate(cfg.model)((32, 32, 3), 4)(np.zeros((2, 32, 32, 3), np.float32)).shape == (2, 4)


def test_keras_records_what_lightning_records_under_the_same_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    monkeypatch.setenv("NETLAPSE_HOME", str(tmp_path))
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    found = {}
    for framework in ("torch", "keras"):
        short = ["data=digits", "model=cnn_tiny", "trainer.max_epochs=1", "trainer.progress=false", "strict=true"]
        result = run("train.py", f"framework={framework}", *short, home=tmp_path)
        assert result.returncode == 0, result.stderr
        run_id = result.stdout.split("Recorded in run ")[1].split()[0]
        recording, stored = netlapse.load(run_id), client.get_run(run_id)
        assert len(recording.manifest["checkpoints"]) == 2  # type: ignore[arg-type]
        found[framework] = {
            "arrays": {name: sorted(by_step[1].arrays) for name, by_step in recording.findings.items()},
            "shapes": {name: values.shape for name, values in recording.findings["nap"][1].arrays.items()},
            "metrics": sorted(stored.data.metrics),
            "params": sorted(stored.data.params),
            "images": sorted({item.path.split("+")[0] for item in client.list_artifacts(run_id, "images")}),
            "artifacts": sorted(item.path for item in client.list_artifacts(run_id)),
            "layers": recording.manifest["layers"],
        }
    assert found["torch"] == found["keras"]


def test_checkpoints_of_keras_are_saved_at_each_scheduled_step(tmp_path: Path) -> None:
    import keras

    result = run("create_checkpoints.py", "framework=keras", "data=digits", "model=mlp_tiny", "trainer.max_epochs=1", "trainer.progress=false",
                 "schedule=log_spaced", f"folder={tmp_path / 'weights'}", home=tmp_path)  # fmt: skip
    assert result.returncode == 0, result.stderr
    names = sorted(path.name for path in (tmp_path / "weights").iterdir())
    assert names == [f"step_{step:08d}.keras" for step in (0, 1, 2, 4, 8, 16)]
    first, second = (keras.models.load_model(tmp_path / "weights" / name).get_weights()[0] for name in names[:2])
    assert not np.array_equal(first, second)


def test_callback_none_trains_without_observing_and_checkpoint_none_keeps_no_weights(tmp_path: Path) -> None:
    short = ["data=digits", "model=mlp_tiny", "trainer.max_epochs=1", "trainer.progress=false"]
    result = run("train.py", *short, "callback=none", home=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "Nothing was observed" in result.stdout
    result = run("train.py", *short, "checkpoint=none", home=tmp_path)
    assert result.returncode == 0, result.stderr
    assert not (tmp_path / "checkpoints").exists()


def test_checkpoints_are_saved_at_each_scheduled_step(tmp_path: Path) -> None:
    import torch

    result = run("create_checkpoints.py", "data=digits", "model=mlp_tiny", "trainer.max_epochs=1", "trainer.progress=false", "schedule=log_spaced",
                 f"folder={tmp_path / 'weights'}", home=tmp_path)  # fmt: skip
    assert result.returncode == 0, result.stderr
    names = sorted(path.name for path in (tmp_path / "weights").iterdir())
    assert names == [f"step_{step:08d}.ckpt" for step in (0, 1, 2, 4, 8, 16)]
    weights = [torch.load(tmp_path / "weights" / name, weights_only=True)["state_dict"] for name in names]
    assert not torch.equal(next(iter(weights[0].values())), next(iter(weights[1].values())))
    assert "steps 0, 1, 2, 4, 8, 16" in result.stdout


def test_the_share_of_maps_inside_boxes_of_a_table_is_recorded(tmp_path: Path) -> None:
    rows = [f"{i},2,2,6,6" for i in range(1797)]
    (tmp_path / "boxes.csv").write_text("\n".join(["id,top,left,bottom,right", *rows]))
    record = ["tracker=folder", f"tracker.folder={tmp_path / 'record'}", "masks=boxes", f"masks.of.csv={tmp_path / 'boxes.csv'}"]
    short = ["data=digits", "model=cnn_tiny", "trainer.max_epochs=1", "trainer.progress=false", "strict=true"]
    result = run("train.py", *short, *record, home=tmp_path)
    assert result.returncode == 0, result.stderr
    scalars = FolderTracker(tmp_path / "record").recording().scalars
    assert scalars["saliency/mass_inside_null/gradient"].values.tolist() == [16 / 64] * 2
    assert 0 < scalars["saliency/mass_inside/gradient"].at(1) < 1
    (tmp_path / "boxes.csv").write_text("\n".join(["id,top,left,bottom,right", rows[0]]))
    for wrong, message in (
        (f"masks.of.csv={tmp_path / 'boxes.csv'}", "boxes.csv has no mask for 1[56] of 16 inputs"),
        ("masks.of.csv=nowhere", "no table at"),
    ):
        result = run("train.py", *short, "masks=boxes", wrong, "tracker=folder", f"tracker.folder={tmp_path / 'other'}", home=tmp_path)
        assert result.returncode != 0
        assert re.search(message, result.stderr), result.stderr
        assert "Traceback" not in result.stderr


def test_a_users_own_network_and_config_folder_from_outside_the_repository(tmp_path: Path) -> None:
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "own.yaml").write_text("_target_: own_networks.Own\nwidth: 5\n")
    (tmp_path / "own_networks.py").write_text(
        "from torch import nn\n\n\nclass Own(nn.Sequential):\n    def __init__(self, width):\n"
        "        super().__init__(nn.Flatten(), nn.Linear(64, width), nn.Tanh(), nn.Linear(width, 10))\n"
    )
    environment = os.environ | {"NETLAPSE_HOME": str(tmp_path), "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, str(ROOT / "train.py"), "--config-dir", str(tmp_path / "mine"), "model=own", "data=digits", "trainer.max_epochs=1"]
    command += ["tracker=folder", f"tracker.folder={tmp_path / 'record'}", "trainer.progress=false", "strict=true"]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=300)
    assert result.returncode == 0, result.stderr
    assert "of 1 layers: 2" in result.stdout  # the Tanh


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["layout=umbrella"], r"Could not find 'layout/umbrella'(.|\n)*flas(.|\n)*pca(.|\n)*random"),
        (["trainer.epochs=3"], r"Key 'epochs' is not in struct(.|\n)*trainer.epochs"),
        (["trainer.max_epochs=0"], r"trainer.max_epochs is 0; expected an integer of at least 1"),
        (["trainer.optimizer=lion"], r"trainer.optimizer is 'lion'; allowed are \['adam', 'adamw', 'sgd'\]"),
        (["schedule.n=0"], r"config key 'callback.schedule': .*n is 0; expected an integer of at least 1"),
        (["probe.per_class=0"], r"per_class is 0; a probe takes at least 1 input of each class"),
        (["probe.part=validation"], r"probe.part is 'validation'; allowed are 'test' and 'train'"),
        (["layers=[conv9]"], r"no layer named, matching or of type 'conv9'; this network has the layers"),
        (["model=mlp_tiny", "layout.metric=cosin"], r"unknown metric 'cosin'; allowed are \['euclidean', 'cosine', 'correlation'\]"),
        (["data=image_folder", "data.root=nowhere"], r"nowhere"),
        (["framework=caffe"], r"Could not find 'framework/caffe'(.|\n)*keras(.|\n)*torch"),
    ],
)
def test_wrong_values_are_named_with_what_is_allowed(overrides: list[str], message: str, tmp_path: Path) -> None:
    result = run(
        "train.py", "data=digits", "model=cnn_tiny", "trainer.max_epochs=1", "strict=true", "trainer.progress=false", *overrides, home=tmp_path
    )
    assert result.returncode != 0
    assert re.search(message, result.stderr), result.stderr
    assert "Traceback" not in result.stderr


def test_an_error_of_the_users_own_network_keeps_its_traceback_and_the_run_is_failed(tmp_path: Path) -> None:
    (tmp_path / "own_networks.py").write_text(
        "from torch import nn\n\n\nclass Own(nn.Sequential):\n    def __init__(self):\n        super().__init__(nn.Flatten(), nn.Linear(64, 10))\n"
        "    def forward(self, x):\n        if self.training:\n            raise ValueError('not like this')\n        return super().forward(x)\n"
    )
    environment = os.environ | {"NETLAPSE_HOME": str(tmp_path), "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, str(ROOT / "train.py"), "~model", "+model._target_=own_networks.Own", "data=digits", "trainer.progress=false"]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=300)
    assert result.returncode != 0
    assert "Traceback" in result.stderr
    assert "own_networks.py" in result.stderr
    from mlflow import MlflowClient

    assert [run.info.status for run in MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}").search_runs(["1"])] == ["FAILED"]


def test_a_probe_that_cannot_be_chosen_leaves_no_run_behind(tmp_path: Path) -> None:
    result = run("train.py", "data=digits", "model=mlp_tiny", "probe.per_class=few", home=tmp_path)
    assert result.returncode != 0
    assert "per_class is 'few'; a probe takes at least 1 input of each class" in result.stderr
    assert not (tmp_path / "mlflow.db").exists()


def _small_images(folder: Path) -> None:
    from PIL import Image

    rows = ["file,label"]
    for k in ("cat", "dog"):
        (folder / "images" / k).mkdir(parents=True)
        for i in range(5):
            Image.fromarray(np.full((4, 4, 3), 40 * i, np.uint8)).save(folder / "images" / k / f"{i}.png")
            rows.append(f"images/{k}/{i}.png,{k}")
    (folder / "images.csv").write_text("\n".join(rows))
    faces = [f"{path},20-29,{gender},{race},True" for path, gender, race in zip(
        [row.split(",")[0] for row in rows[1:]], ["Female", "Male"] * 5, ["Black", "White", "White", "Black", "Indian"] * 2
    )]  # fmt: skip
    for part, some in (("train", faces[:5]), ("val", faces[5:])):
        (folder / f"fairface_label_{part}.csv").write_text("\n".join(["file,age,gender,race,service_test", *some]))
    names = [f"{i:06}.png" for i in range(8)]
    (folder / "img_align_celeba").mkdir()
    for i, name in enumerate(names):
        Image.fromarray(np.full((4, 4, 3), 30 * i, np.uint8)).save(folder / "img_align_celeba" / name)
    values = [f"{name},{1 - 2 * (i % 2)},{'' if i == 5 else 1 - 2 * (i // 2 % 2)},1" for i, name in enumerate(names)]
    (folder / "list_attr_celeba.csv").write_text("\n".join(["image_id,Smiling,Male,Young", *values]))
    (folder / "list_eval_partition.csv").write_text("\n".join(["image_id,partition", *(f"{name},{2 * (i // 4)}" for i, name in enumerate(names))]))
