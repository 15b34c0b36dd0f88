"""The dependency rule: who may import what, checked in a fresh interpreter and by reading every file."""

from __future__ import annotations

import ast
import gc
import subprocess
import sys
import weakref
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FAMILIES = {
    "torch": {"torch", "pytorch_lightning", "lightning", "torchcam", "torchmetrics"},
    "keras": {"keras", "tensorflow"},
    "mlflow": {"mlflow"},
    "hydra": {"hydra", "omegaconf"},
}
FILES = sorted(path for folder in ("netlapse", "analysis", "callbacks") for path in (ROOT / folder).rglob("*.py"))
TENSORS_ALLOWED = ("netlapse/backends/", "netlapse/models/", "netlapse/training/", "callbacks/")


def imported(path: Path, *, top_level: bool) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level else list(ast.walk(tree))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name.split(".")[0] for name in names}


def families(names: set[str]) -> set[str]:
    return {family for family, members in FAMILIES.items() if names & members}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_at_most_one_framework(path: Path) -> None:
    assert len(families(imported(path, top_level=True))) <= 1
    place = path.relative_to(ROOT).as_posix()
    if place.startswith("analysis/") and path.name != "__main__.py":
        assert families(imported(path, top_level=False)) == set()
    if not place.startswith(TENSORS_ALLOWED):
        assert "torch" not in families(imported(path, top_level=True))
        assert "keras" not in families(imported(path, top_level=True))


def _loaded_after(statement: str) -> set[str]:
    program = f"{statement}\nimport sys; print(' '.join(name for name in sys.modules if '.' not in name))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    return set(result.stdout.split())


def test_importing_netlapse_and_its_analyses_imports_no_framework() -> None:
    modules = ["observer", "report", "probe", "analysis.nap", "analysis.topomap", "analysis.saliency", "tracking.folder", "tracking.sweep", "data"]
    statement = f"import netlapse, {', '.join(f'netlapse.{module}' for module in modules)}"
    assert families(_loaded_after(statement)) == set()
    assert "matplotlib" not in _loaded_after(statement)


def test_a_lightning_training_never_imports_tensorflow_nor_torchvision() -> None:
    loaded = _loaded_after(
        "from tests.training import probe, train; from netlapse.callbacks.lightning import ObserverCallback; train([ObserverCallback(probe())])"
    )
    assert "torch" in loaded
    assert not loaded & {"tensorflow", "keras", "torchvision"}
    assert "sklearn" not in loaded  # which the usual analyses do not take, and which takes a second


KERAS_TRAINING = """
import keras, numpy as np
from netlapse.backends.keras import KerasNetwork
from netlapse.backends.keras_data import probe_set
x, y = np.random.rand(8, 6, 6, 1).astype("float32"), np.arange(8) % 2
layers = [keras.layers.Conv2D(2, 3, activation="relu", name="conv"), keras.layers.Flatten(), keras.layers.Dropout(0.5), keras.layers.Dense(2)]
model = keras.Sequential([keras.Input((6, 6, 1)), *layers])
model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
network = KerasNetwork(model)
probe = probe_set((x, y), network, per_class=2, seed=0)
def observe(epoch, logs):
    network.group_sums(probe.inputs, probe.labels, 2, ["conv"])
    network.vjp(probe.inputs, "output", np.ones(2), ["input"])
model.fit(x, y, epochs=1, verbose=0, callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=observe)])
"""


@pytest.mark.parametrize(("backend", "other"), [("tensorflow", "torch"), ("torch", "tensorflow")])
def test_a_keras_training_imports_the_framework_it_runs_on_and_no_other(backend: str, other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", backend)
    loaded = _loaded_after(KERAS_TRAINING)
    assert backend in loaded
    assert not loaded & {other, "pytorch_lightning", "torchvision"}


def test_a_module_is_one_and_the_same_by_whatever_way_it_is_imported() -> None:
    from netlapse.analysis import nap as by_package

    __import__("netlapse.analysis.nap")
    assert sys.modules["netlapse.analysis.nap"] is by_package
    assert Path(by_package.__file__ or "") == ROOT / "analysis" / "nap.py"


def test_garbage_is_not_looked_for_while_a_framework_is_imported_and_is_from_then_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from netlapse.cli import import_for

    (tmp_path / "own_training.py").write_text("import gc\nlooked_for = gc.isenabled()\n\ndef fit():\n    pass\n")
    (tmp_path / "own_broken.py").write_text("raise LookupError('of its own')\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert gc.isenabled()
    try:
        for function in ("own_training.fit", "own_broken.fit", "not_installed.fit"):
            import_for(function)
            assert gc.isenabled()
    finally:
        gc.unfreeze()
    assert sys.modules["own_training"].looked_for is False


def test_what_is_imported_first_is_never_looked_through_again_and_what_a_job_leaves_behind_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from netlapse.cli import import_for

    class Left:
        def __init__(self) -> None:
            self.itself = self

    (tmp_path / "own_first.py").write_text("made = [[]]\n\ndef fit():\n    pass\n")
    (tmp_path / "own_second.py").write_text("made = [[]]\n\ndef fit():\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)

    def looked_through(module: str) -> bool:
        return any(one is sys.modules[module].made for one in gc.get_objects())

    try:
        import_for("own_first.fit")
        assert not looked_through("own_first")
        left = weakref.ref(Left())
        import_for("own_second.fit")
        assert looked_through("own_second")
        gc.collect()
        assert left() is None
    finally:
        gc.unfreeze()
