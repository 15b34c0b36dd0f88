"""Every block of the README is executed, and what it promises is true."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

import netlapse
from netlapse.data import digits

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
PYTHON = [code for language, code in BLOCKS if language == "python"]
COMMANDS = [line for language, code in BLOCKS if language == "bash" for line in code.splitlines()]


def test_every_block_is_of_a_language_that_a_test_here_executes() -> None:
    assert {language for language, _ in BLOCKS} == {"bash", "python"}


@pytest.mark.parametrize("command", [line for line in COMMANDS if not line.endswith(("ui", "test"))])
def test_every_command_does_what_it_says(command: str, own_place: Path) -> None:
    quiet = [] if command == "./run train" else ["trainer.progress=false"]
    result = subprocess.run(
        [*shlex.split(command), *quiet], cwd=ROOT, capture_output=True, text=True, timeout=900, env=os.environ | {"NETLAPSE_HOME": str(own_place)}
    )
    assert result.returncode == 0, result.stderr
    if "checkpoints" in command:
        assert len(list((own_place / "checkpoints").rglob("*.ckpt"))) > 3
    else:
        run_id = result.stdout.split("Recorded in run ")[1].split()[0]
        assert netlapse.load(run_id).manifest.get("failures", []) == []
    if command == "./run train":
        assert re.search(r"Observed 11 epochs \(0 to 10\) of 4 layers: relu1, relu2, relu3, relu4", result.stdout)
        page = next(own_place.glob("artifacts/*/*/artifacts/timelapse.html"))
        assert page.stat().st_size < 3_000_000


def test_ui_serves_the_local_store(own_place: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        ["./run", "ui", "--port", str(port)], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        for _ in range(1800):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as page:
                    assert b"MLflow" in page.read()
                # Nobody but this machine is served, nor a page of another site that a browser on it shows (DNS rebinding).
                listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines() if f":{port:04X} 00000000:0000 0A" in line]
                assert [columns[1].split(":")[0] for columns in listening] == ["0100007F"]
                for header in ({"Host": "evil.example"}, {"Origin": "http://evil.example", "Content-Type": "application/json"}):
                    body = None if "Host" in header else b'{"name": "taken"}'
                    request = urllib.request.Request(f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/create", data=body, headers=header)
                    with pytest.raises(urllib.error.HTTPError) as refused:
                        urllib.request.urlopen(request, timeout=5)
                    assert refused.value.code == 403
                break
            except urllib.error.HTTPError:
                raise
            except OSError:
                time.sleep(0.1)
        else:
            raise AssertionError("nothing was served within 180 s")
    finally:
        os.killpg(process.pid, 9)
        process.wait()


def test_test_is_what_ci_runs() -> None:
    assert "./run test" in COMMANDS
    assert "exec ./run test" in (ROOT / ".ci" / "run").read_text()


def test_the_lines_for_ones_own_script_and_the_additions_run(own_place: Path) -> None:
    import keras
    from mlflow import MlflowClient
    from pytorch_lightning import Trainer

    from netlapse.models.torch import cnn
    from netlapse.training.lightning import Classifier

    data = digits()
    x, y = torch.from_numpy(data.test_inputs[:60]).permute(0, 3, 1, 2), torch.from_numpy(data.test_labels[:60])
    loader = DataLoader(TensorDataset(x, y), 20)

    def quiet(**options: Any) -> Trainer:
        return Trainer(**options, logger=False, enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False)

    model = Classifier(cnn(data.input_shape, 10, channels=(4, 8), hidden=16))
    names: dict[str, Any] = {"x": x, "y": y, "model": model, "loader": loader, "Trainer": quiet}
    exec(PYTHON[0], names)
    client = MlflowClient(f"sqlite:///{own_place / 'mlflow.db'}")
    names["run_id"] = client.search_runs(["1"])[0].info.run_id
    exec(PYTHON[1].replace("/relu1", "/network.relu1"), names)
    assert names["recording"].steps == (0, 1, 2)
    assert names["profile"].values.shape == (3, 10, 4)
    assert names["drift"].steps.tolist() == [1, 2]
    keras_model = keras.Sequential([keras.Input(data.input_shape), keras.layers.Conv2D(4, 3, activation="relu"), keras.layers.Flatten(),
                                    keras.layers.Dense(10)])  # fmt: skip
    keras_model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    exec(PYTHON[2], names | {"keras_model": keras_model, "keras_x": data.test_inputs[:60], "keras_y": data.test_labels[:60]})
    recording = netlapse.load(client.search_runs(["1"])[0].info.run_id)
    assert recording.steps == (0, 1, 2)
    assert recording.manifest["framework"] == "keras"
    exec(PYTHON[3], names)
    quiet(max_epochs=1, callbacks=[names["observer"]]).fit(model, loader)
    scalars = netlapse.load(client.search_runs(["1"])[0].info.run_id).scalars
    assert scalars["sparsity/network.relu1"].steps.tolist() == [0, 1]
    assert "saliency/similarity/gradient_times_input" in scalars


DOCS = [
    block
    for page in ("reanalysis", "saliency", "units", "sweeps", "predictions", "penalties")
    for block in re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / f"{page}.md").read_text(), flags=re.DOTALL)
]


def test_the_terms_of_a_full_gradient_in_the_docs_add_up() -> None:
    from netlapse.backends.torch import TorchNetwork
    from netlapse.models.torch import cnn

    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "saliency.md").read_text(), flags=re.DOTALL)
    torch.manual_seed(0)
    exec(code, {"network": TorchNetwork(cnn((8, 8, 1), 10))})


def test_the_functions_about_units_in_the_docs_run() -> None:
    from netlapse.backends.torch import TorchNetwork
    from netlapse.models.torch import cnn

    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "units.md").read_text(), flags=re.DOTALL)
    network = TorchNetwork(cnn((8, 8, 1), 10, channels=(4, 8), hidden=16))
    names = {"network": network, "images": digits().test_inputs[:20], "layer": "relu2"}
    exec(code, names)
    assert (names["change"].shape[1:], names["found"].fields.shape[1:]) == ((3, 3), (5, 5))
    assert names["gradients"].shape == (2, 15, 15)


@pytest.fixture(scope="module")
def old_run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A home with a run in it, its checkpoints, a place to export to, activations that somebody recorded, and photographs."""
    from netlapse.backends.torch import TorchNetwork
    from netlapse.export import activations_to_inntrospect
    from netlapse.models.torch import cnn
    from netlapse.probe import from_data

    home = tmp_path_factory.mktemp("old")
    data = digits()
    places = {"NETLAPSE_HOME": str(home), "EXPORT": str(home / "export"), "ACTIVATIONS": str(home / "activations"), "PHOTOS": str(home / "photos")}
    for i, pixels in enumerate(data.test_inputs[:40, :, :, 0]):
        place = home / "photos" / f"day {i % 3}" / f"{i}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 255).astype("uint8")).resize((20, 15)).save(place)
    (home / "photos" / "broken.jpg").write_text("no image")
    places["MASKS"] = str(home / "masks.npz")
    ids = np.concatenate([data.train_ids, data.test_ids])
    np.savez(places["MASKS"], ids=ids, masks=np.ones((len(ids), 8, 8)))
    activations_to_inntrospect(
        TorchNetwork(cnn(data.input_shape, 10, channels=(4, 8), hidden=16)), from_data(data, per_class=3), "auto", places["ACTIVATIONS"]
    )
    train = ["./run", "train", "data=digits", "model=cnn_tiny", "trainer=quick", "trainer.progress=false", "probe.per_class=4"]
    result = subprocess.run(train, cwd=ROOT, capture_output=True, text=True, timeout=600, env=os.environ | places, check=True)
    run = result.stdout.split("Recorded in run ")[1].split()[0]
    return places | {"RUN": run, "CHECKPOINTS": str(home / "checkpoints" / run)}


@pytest.mark.parametrize("command", [line for block in DOCS for line in block.splitlines()])
def test_every_command_of_the_docs_does_what_it_says(command: str, old_run: dict[str, str]) -> None:
    result = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=600, env=os.environ | old_run)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    assert re.search(r"Recorded in|Exported to|checkpoints: ", result.stdout)
