"""Folders in iNNtrospect's layout: read as a network, and written."""

from __future__ import annotations

import inspect
import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.interpolate import griddata
from torch import Tensor, nn

from netlapse.analysis.nap import activation_profiles, nap
from netlapse.analysis.saliency import grad_cam, gradient, saliency
from netlapse.analysis.topomap import topomap
from netlapse.backends.inntrospect import RecordedNetwork, read
from netlapse.backends.torch import TorchNetwork
from netlapse.export import activations_to_inntrospect, findings_to_inntrospect
from netlapse.observer import Observer
from netlapse.probe import by_label, by_outcome
from netlapse.recording import Recording
from netlapse.tracking.memory import MemoryTracker
from netlapse.types import Findings, Float32, Float64, Network, ProbeSet

# ---- a folder written by hand, and the network it is of --------------------------------------------------------------

GROUPS = ("dog", "cat", "dog", "ant")  # of the batches: neither sorted nor together
SIZES = (3, 2, 1, 4)
RNG = np.random.default_rng(0)
A = RNG.normal(size=(2, 5)).astype(np.float32)  # channels -> units, at each position
B = RNG.normal(size=(5, 3)).astype(np.float32)  # units, averaged over positions -> classes
INPUTS = RNG.normal(size=(sum(SIZES), 4, 3, 2)).astype(np.float32)
OF_GROUP = np.repeat(GROUPS, SIZES)


def hidden(inputs: Float32) -> Float32:
    return np.maximum(inputs @ A, 0)


def outputs(inputs: Float32) -> Float32:
    return hidden(inputs).mean(axis=(1, 2)) @ B


def gradients(inputs: Float32) -> tuple[Float32, Float32]:
    """Of the largest output, by the inputs and by the hidden layer: B / 12 for each unit, through those that fire."""
    by_hidden = np.broadcast_to(B[:, outputs(inputs).argmax(axis=1)].T[:, None, None] / 12, hidden(inputs).shape)
    return ((by_hidden * (hidden(inputs) > 0)) @ A.T).astype(np.float32), by_hidden.astype(np.float32)


def write(folder: Path, *, label: bool = False, groups: tuple[str, ...] = GROUPS, sizes: tuple[int, ...] = SIZES) -> Path:
    """The layout as it is described, without our own writer."""
    names = sorted(set(groups))
    files = {name: [f"batch{i:04d}.npy" for i, group in enumerate(groups) if group == name] for name in names}
    folder.mkdir()
    (folder / "corpus.csv").write_text("".join(f"batch{i:04d}.npy,{g}{f',{g[0]}' if label else ''}\n" for i, g in enumerate(groups)))
    (folder / "group_name_to_files.json").write_text(json.dumps(files))
    (folder / "group_name_to_index.json").write_text(json.dumps({name: str(i) for i, name in enumerate(names)}))
    (folder / "index_to_group_name.json").write_text(json.dumps({str(i): name for i, name in enumerate(names)}))
    for i, rows in enumerate(np.split(INPUTS[: sum(sizes)], np.cumsum(sizes)[:-1])):
        for kind, arrays in {"acts": (rows, hidden(rows), outputs(rows)), "grads": gradients(rows)}.items():
            for layer, values in enumerate(arrays):
                path = folder / kind / f"layer{layer:03d}" / f"batch{i:04d}.npy"
                path.parent.mkdir(parents=True, exist_ok=True)
                np.save(path, values)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "recorded")


ORDER = np.array([7, 0, 9, 4, 3, 5])
LAYERS = ["layer000", "layer001", "layer002"]

# ---- reading ---------------------------------------------------------------------------------------------------------


def test_the_probe_is_the_inputs_and_their_groups_the_classes(folder: Path, tmp_path: Path) -> None:
    _, probe = read(folder)
    np.testing.assert_array_equal(probe.inputs, INPUTS)
    assert probe.class_names == ("ant", "cat", "dog")
    assert [probe.class_names[label] for label in probe.labels] == OF_GROUP.tolist()
    assert {name: values.tolist() for name, values in probe.attributes.items()} == {"group": OF_GROUP.tolist()}
    assert probe.ids is not None
    assert probe.ids[:4].tolist() == ["batch0000.npy:0", "batch0000.npy:1", "batch0000.npy:2", "batch0001.npy:0"]
    _, labelled = read(write(tmp_path / "labelled", label=True))
    assert labelled.attributes["label"].tolist() == [group[0] for group in OF_GROUP]
    assert labelled.labels.tolist() == probe.labels.tolist()


def test_lines_of_the_corpus_may_come_in_any_order(folder: Path) -> None:
    lines = (folder / "corpus.csv").read_text().splitlines()
    (folder / "corpus.csv").write_text("\n".join([lines[3], *lines[:3]]))
    network, probe = read(folder)
    np.testing.assert_array_equal(probe.inputs, np.roll(INPUTS, 4, axis=0))
    assert probe.attributes["group"].tolist() == np.roll(OF_GROUP, 4).tolist()
    # The last bit of a product goes by where in the batch its row is, on some CPUs.
    np.testing.assert_allclose(network.outputs(probe.inputs), np.roll(outputs(INPUTS), 4, axis=0), rtol=1e-6)


def test_layers_are_those_of_the_folder(folder: Path) -> None:
    network, probe = read(folder)
    described = network.describe(probe.inputs[:2])
    assert [(layer.name, layer.shape, layer.role) for layer in described] == [
        ("layer000", (4, 3, 2), "other"),
        ("layer001", (4, 3, 5), "activation"),
        ("layer002", (3,), "output"),
    ]
    assert list(network.layers) == LAYERS
    assert network.refused == {}


def test_a_recorded_network_answers_with_what_was_recorded_for_any_inputs_in_any_order(folder: Path) -> None:
    network, probe = read(folder)
    for shown in (probe.inputs[ORDER], INPUTS[ORDER].astype(np.float64), np.asfortranarray(INPUTS[ORDER])):
        found = network.activations(shown, LAYERS[::-1])
        assert list(found) == LAYERS[::-1]
        for name, values in zip(LAYERS, (INPUTS, hidden(INPUTS), outputs(INPUTS))):
            # One input's product with a matrix may round otherwise among other inputs: by an ulp of values of size 1.
            np.testing.assert_allclose(found[name], values[ORDER], rtol=0, atol=1e-6)
            assert found[name].dtype == np.float32
        np.testing.assert_array_equal(network.outputs(shown), found["layer002"])
    twice = network.outputs(probe.inputs[[3, 3, 0]])
    np.testing.assert_array_equal(twice[0], twice[1])
    assert not np.array_equal(twice[0], twice[2])


def test_responses_are_mean_lowest_and_highest_over_positions(folder: Path) -> None:
    network, probe = read(folder)
    found = network.responses(probe.inputs[ORDER], LAYERS)
    wide = hidden(INPUTS[ORDER]).reshape(len(ORDER), 12, 5).astype(np.float64)
    np.testing.assert_allclose(found.mean["layer001"], wide.mean(axis=1), rtol=1e-6)
    np.testing.assert_allclose(found.low["layer001"], wide.min(axis=1), rtol=1e-6)
    np.testing.assert_allclose(found.high["layer001"], wide.max(axis=1), rtol=1e-6)
    assert found.outputs is not None
    for values in (found.mean, found.low, found.high):
        np.testing.assert_array_equal(values["layer002"], found.outputs)
        assert all(v.dtype == np.float32 for v in values.values())
    np.testing.assert_allclose(found.outputs, outputs(INPUTS[ORDER]), rtol=0, atol=1e-6)


def test_group_sums_are_sums_over_inputs(folder: Path) -> None:
    network, probe = read(folder)
    groups = np.array([2, 0, 2, 2, 0, 3])
    kept = network.group_sums(probe.inputs[ORDER], groups, 4, LAYERS, "keep")
    mean = network.group_sums(probe.inputs[ORDER], groups, 4, LAYERS)
    for group in range(4):
        members = INPUTS[ORDER[groups == group]]
        np.testing.assert_allclose(kept["layer001"][group], hidden(members).sum(axis=0), atol=1e-5)
        np.testing.assert_allclose(mean["layer001"][group], hidden(members).mean(axis=(1, 2)).sum(axis=0), atol=1e-5)
        np.testing.assert_allclose(mean["layer002"][group], outputs(members).sum(axis=0), atol=1e-5)
    assert kept["layer001"].dtype == mean["layer001"].dtype == np.float32
    with pytest.raises(ValueError, match=r"groups have shape \(6,\) and values \[0, 2, 3\]; expected \(6,\) in 0 to 2"):
        network.group_sums(probe.inputs[ORDER], groups, 3, LAYERS)


def test_a_question_reads_only_the_files_it_is_about(folder: Path) -> None:
    network, probe = read(folder)
    for kind, layer, batch in (("acts", 1, 0), ("acts", 0, 1), ("grads", 1, 1)):
        (folder / kind / f"layer{layer:03d}" / f"batch{batch:04d}.npy").write_bytes(b"gone")
    second = probe.inputs[3:5]  # of batch 1
    np.testing.assert_allclose(network.activations(second, ["layer001"])["layer001"], hidden(INPUTS[3:5]), atol=1e-6)
    wanted = np.eye(3)[network.outputs(second).argmax(axis=1)]
    np.testing.assert_allclose(network.vjp(second, "output", wanted, ["input"])["input"], gradients(INPUTS[3:5])[0], atol=1e-6)
    with pytest.raises(ValueError, match=r"batch0000\.npy is no file of a numpy array of numbers"):
        network.activations(probe.inputs[:1], ["layer001"])


def test_a_folder_is_found_again_from_wherever_the_process_is(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    network, probe = read(folder.name)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert network.outputs(probe.inputs).shape == (10, 3)


def test_answers_are_copies(folder: Path) -> None:
    network, probe = read(folder)
    before = network.outputs(probe.inputs).copy()
    network.outputs(probe.inputs)[:] = 0
    network.activations(probe.inputs, ["layer002"])["layer002"][:] = 0
    np.testing.assert_array_equal(network.outputs(probe.inputs), before)


def test_of_equal_inputs_the_first_answers_and_both_count(folder: Path) -> None:
    path = folder / "acts" / "layer000" / "batch0002.npy"
    np.save(path, INPUTS[1:2])
    network, probe = read(folder)
    assert len(probe) == 10
    np.testing.assert_array_equal(network.outputs(probe.inputs[5:6]), np.load(folder / "acts/layer002/batch0000.npy")[1:2])


def test_inputs_that_were_not_recorded_are_refused(folder: Path) -> None:
    network, probe = read(folder)
    changed = probe.inputs.copy()
    changed[4, 0, 0, 0] = np.nextafter(changed[4, 0, 0, 0], np.float32(9))
    questions: dict[str, Callable[[], object]] = {
        "describe": lambda: network.describe(changed),
        "outputs": lambda: network.outputs(changed),
        "activations": lambda: network.activations(changed, LAYERS),
        "responses": lambda: network.responses(changed, LAYERS),
        "group_sums": lambda: network.group_sums(changed, np.zeros(10, int), 1, LAYERS),
        "vjp": lambda: network.vjp(changed, "output", np.zeros(3), ["input"]),
    }
    for ask in questions.values():
        with pytest.raises(ValueError, match=r"1 of 10 inputs were not recorded in .*recorded, first at index 4; a recorded network answers for"):
            ask()
    with pytest.raises(ValueError, match=r"inputs have shape \(10, 4, 3\); those recorded in .* have \(n, 4, 3, 2\)"):
        network.outputs(INPUTS[..., 0])


def test_an_unknown_layer_is_refused(folder: Path) -> None:
    network, probe = read(folder)
    with pytest.raises(ValueError, match=r"no layer named \['layer003'\]; this network has \['layer000', 'layer001', 'layer002'\]"):
        network.activations(probe.inputs, ["layer001", "layer003"])


def test_a_layer_of_too_many_axes_is_refused_and_the_others_are_not(folder: Path) -> None:
    for kind in ("acts", "grads"):
        for i, size in enumerate(SIZES):
            np.save(folder / kind / "layer001" / f"batch{i:04d}.npy", np.zeros((size, 1, 2, 1, 2, 3), np.float32))
    network, probe = read(folder)
    assert network.layers == ("layer000", "layer002")
    assert dict(network.refused) == {
        "layer001": "each of its activations has shape (1, 2, 1, 2, 3); expected 1 to 4 axes, of which the last counts units"
    }
    with pytest.raises(ValueError, match=r"'layer001' cannot be observed: each of its activations has shape \(1, 2, 1, 2, 3\)"):
        network.responses(probe.inputs, ["layer001"])


def test_an_output_that_is_no_row_of_scores_is_refused_where_scores_are_needed(folder: Path) -> None:
    shutil.rmtree(folder / "acts" / "layer002")
    shutil.rmtree(folder / "grads" / "layer001")
    network, probe = read(folder)  # ends in the spatial layer001
    assert network.responses(probe.inputs, ["layer001"]).outputs is None
    for ask in (lambda: network.outputs(probe.inputs), lambda: network.vjp(probe.inputs, "output", np.zeros(1), ["input"])):
        with pytest.raises(ValueError, match=r"the network's output has shape \(10, 4, 3, 5\); expected \(n, k\), one score per class"):
            ask()


# ---- gradients -------------------------------------------------------------------------------------------------------


def predicted(inputs: Float32) -> Float64:
    return np.eye(3)[outputs(inputs).argmax(axis=1)]


def test_the_gradient_of_the_predicted_class_is_the_recorded_one(folder: Path) -> None:
    network, probe = read(folder)
    for layer in ("output", "layer002"):
        found = network.vjp(probe.inputs[ORDER], layer, predicted(INPUTS[ORDER]), ["input", "layer001", "layer000"])
        assert list(found) == ["input", "layer001", "layer000"]
        by_input, by_hidden = gradients(INPUTS)
        np.testing.assert_allclose(found["input"], by_input[ORDER], atol=1e-6)
        np.testing.assert_allclose(found["layer001"], by_hidden[ORDER], atol=1e-6)
        np.testing.assert_array_equal(found["layer000"], found["input"])


def test_a_cotangent_that_is_the_same_for_all_inputs_broadcasts(folder: Path) -> None:
    network, probe = read(folder)
    alike = np.flatnonzero(outputs(INPUTS).argmax(axis=1) == outputs(INPUTS)[0].argmax())
    found = network.vjp(probe.inputs[alike], "output", predicted(INPUTS[:1])[0], ["input"])["input"]
    np.testing.assert_allclose(found, gradients(INPUTS)[0][alike], atol=1e-6)


def test_any_other_gradient_is_refused_with_what_was_recorded(folder: Path) -> None:
    network, probe = read(folder)
    wanted = predicted(INPUTS)
    other, doubled, negative = wanted.copy(), wanted.copy(), wanted.copy()
    other[6] = np.roll(other[6], 1)
    doubled[6] *= 2
    negative[6] -= 1e-9 * (1 - wanted[6])
    k = int(wanted[6].argmax())
    for cotangent in (other, doubled, negative):
        with pytest.raises(
            ValueError,
            match=rf"of the predicted class, and for 1 of 10 inputs another cotangent was asked for, first at index 6: .* where class {k} is",
        ):
            network.vjp(probe.inputs, "output", cotangent, ["input"])
    with pytest.raises(ValueError, match=r"vjp was given a cotangent \(10, 4\); the output is \(10, 3\)"):
        network.vjp(probe.inputs, "output", np.zeros((10, 4)), ["input"])
    with pytest.raises(ValueError, match=r"no gradient of 'layer001' was recorded in .*, only of the output, 'layer002'"):
        network.vjp(probe.inputs, "layer001", np.ones(5), ["input"])
    for name in ("output", "layer002"):
        with pytest.raises(ValueError, match="no gradient by 'output', which nothing depends on"):
            network.vjp(probe.inputs, "output", wanted, [name])
    with pytest.raises(ValueError, match=r"no gradient by \['conv'\] was recorded: .*grads holds those by \['layer000', 'layer001'\]"):
        network.vjp(probe.inputs, "output", wanted, ["input", "conv"])


def test_without_gradients_only_they_are_missing(folder: Path) -> None:
    shutil.rmtree(folder / "grads" / "layer000")
    network, probe = read(folder)
    with pytest.raises(ValueError, match=r"no gradient by \['input'\] was recorded: .*grads holds those by \['layer001'\]; record the others too"):
        network.vjp(probe.inputs, "output", predicted(INPUTS), ["input"])
    assert network.vjp(probe.inputs, "output", predicted(INPUTS), ["layer001"])["layer001"].shape == (10, 4, 3, 5)
    shutil.rmtree(folder / "grads")
    network, probe = read(folder)
    assert network.outputs(probe.inputs).shape == (10, 3)
    with pytest.raises(ValueError, match=r"no gradient by \['layer001'\] was recorded: .*grads holds those by \[\]"):
        network.vjp(probe.inputs, "output", predicted(INPUTS), ["layer001"])


def test_where_no_class_is_predicted_the_gradient_is_nan(folder: Path) -> None:
    path = folder / "acts" / "layer002" / "batch0001.npy"
    values = np.load(path)
    values[1, 0] = np.nan
    np.save(path, values)
    network, probe = read(folder)
    cotangent = predicted(INPUTS)
    cotangent[4] = [7, 7, 7]
    found = network.vjp(probe.inputs, "output", cotangent, ["input"])["input"]
    assert np.isnan(found[4]).all()
    np.testing.assert_allclose(np.delete(found, 4, axis=0), np.delete(gradients(INPUTS)[0], 4, axis=0), atol=1e-6)


# ---- everything downstream -------------------------------------------------------------------------------------------


def explained(snapshot: object, previous: Findings | None) -> Findings:
    return saliency(snapshot, previous, target="predicted", panel=10)  # type: ignore[arg-type]


def observed(network: Network, probe: ProbeSet, **options: object) -> Recording:
    tracker = MemoryTracker()
    observer = Observer(probe, {"nap": nap, "topomap": topomap, "saliency": explained}, tracker, strict=True, **options)  # type: ignore[arg-type]
    observer.start(network)
    observer.observe(network, 3)
    observer.finish()
    assert "timelapse.html" in tracker.documents
    return tracker.recording()


def test_profiles_maps_and_saliency_of_a_recorded_network_are_those_of_the_network(folder: Path) -> None:
    network, probe = read(folder)
    findings = observed(network, probe, grouping=by_label).findings
    found = findings["nap"][3].arrays
    assert found["groups"].tolist() == ["ant", "cat", "dog"]
    assert found["counts"].tolist() == [4, 2, 4]
    assert [name for name in found if name.startswith("profile/")] == ["profile/layer001"]  # what `auto` takes: neither input nor output
    expected = [hidden(INPUTS[group == OF_GROUP]).astype(np.float64).mean(axis=(0, 1, 2)) for group in ("ant", "cat", "dog")]
    np.testing.assert_allclose(found["profile/layer001"], expected, rtol=1e-6)
    assert findings["topomap"][3].arrays["positions/layer001"].shape == (5, 2)
    assert set(findings["topomap"][3].images) == {"topomap/layer001", "storyboard"}
    explained = findings["saliency"][3].arrays
    panel = explained["inputs"]
    np.testing.assert_array_equal(explained["classes"], outputs(INPUTS)[panel].argmax(axis=1))
    by_input, by_hidden = gradients(INPUTS)
    np.testing.assert_allclose(explained["maps/gradient"], np.abs(by_input).sum(axis=-1)[panel], atol=1e-6)
    # 4 x 3 positions in the layer and in the image: nothing is resized.
    cam = np.maximum((by_hidden.mean(axis=(1, 2), keepdims=True) * hidden(INPUTS)).sum(axis=-1), 0)
    np.testing.assert_allclose(explained["maps/grad_cam"], cam[panel], atol=1e-6)


def test_groupings_that_read_outputs_read_the_recorded_ones(folder: Path) -> None:
    network, probe = read(folder)
    counts = observed(network, probe, grouping=by_outcome).findings["nap"][3].arrays["counts"].reshape(3, 2)
    right = outputs(INPUTS).argmax(axis=1) == probe.labels
    assert counts[:, 0].tolist() == np.bincount(probe.labels[right], minlength=3).tolist()
    assert counts.sum() == 10


def test_saliency_of_a_class_that_was_not_predicted_says_why_it_is_not_there(folder: Path) -> None:
    network, probe = read(folder)
    assert (outputs(INPUTS).argmax(axis=1) != probe.labels).any()
    tracker = MemoryTracker()
    observer = Observer(probe, [nap, saliency], tracker)
    observer.start(network)
    assert "nap" in observer.observe(network, 0)
    assert [failure["what"] for failure in tracker.failures] == ["saliency"]
    assert "explain the predicted class, as saliency does with target='predicted'" in tracker.failures[0]["message"]


def test_what_a_diverged_network_did_is_passed_on(folder: Path) -> None:
    path = folder / "acts" / "layer001" / "batch0003.npy"
    values = np.load(path)
    values[2, 1, 1, 4] = np.inf
    values[2, 0, 0, 4] = -np.inf
    values[3, 1, 1, 0] = np.nan
    np.save(path, values)
    network, probe = read(folder)
    recording = observed(network, probe)
    assert recording.findings["nap"][3].scalars["nap/nonfinite_units/layer001"] == 2
    assert np.isnan(recording.findings["nap"][3].arrays["profile/layer001"]).sum() == 2


def test_no_framework_is_imported(folder: Path) -> None:
    program = f"""
import sys
from netlapse.analysis.nap import nap
from netlapse.analysis.saliency import saliency
from netlapse.analysis.topomap import topomap
from netlapse.backends.inntrospect import read
from netlapse.export import activations_to_inntrospect, findings_to_inntrospect
from netlapse.observer import Observer
from netlapse.tracking.memory import MemoryTracker
network, probe = read({str(folder)!r})
tracker = MemoryTracker()
observer = Observer(probe, [nap, topomap], tracker, strict=True)
observer.start(network)
observer.observe(network, 0)
findings_to_inntrospect(tracker.recording(), {str(folder.parent / "findings")!r})
activations_to_inntrospect(network, probe, "auto", {str(folder.parent / "activations")!r})
print([name for name in sys.modules if name.split(".")[0] in ("torch", "tensorflow", "keras", "mlflow", "hydra", "pytorch_lightning")])
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_a_recorded_network_answers_all_that_a_network_is_asked() -> None:
    for name, member in inspect.getmembers(Network, lambda m: inspect.isfunction(m) or isinstance(m, property)):
        if not name.startswith("_"):
            ours = getattr(RecordedNetwork, name)
            assert isinstance(ours, type(member))
            if inspect.isfunction(member):
                assert list(inspect.signature(ours).parameters) == list(inspect.signature(member).parameters)


# ---- folders that cannot be ------------------------------------------------------------------------------------------


def corpus(folder: Path, old: str, new: str) -> None:
    text = (folder / "corpus.csv").read_text()
    assert old in text
    (folder / "corpus.csv").write_text(text.replace(old, new, 1))


def stored(folder: Path, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    np.save(folder / name, change(np.load(folder / name)), allow_pickle=True)


def json_of(folder: Path, name: str, content: object) -> None:
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))


FIRST = "acts/layer001/batch0001.npy"
NAMES = "layer_names.json"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "corpus.csv").unlink(), r"no recorded activations in .*recorded: it holds no corpus\.csv; copy the one of the data folder"),
        (lambda f: (f / "corpus.csv").write_text(""), r"corpus\.csv is empty; expected a line file,group"),
        (lambda f: (f / "corpus.csv").write_bytes(b"batch0000.npy,caf\xe9\n"), r"corpus\.csv is no text: .*; expected UTF-8"),
        (lambda f: corpus(f, ",cat", ""), r"corpus\.csv, line 2, has 1 fields: 'batch0001\.npy'; expected file,group or file,group,label"),
        (lambda f: corpus(f, ",cat", ",cat,large,grey"), r"line 2, has 4 fields: 'batch0001\.npy,cat,large,grey'; .* no name of a group .* a comma"),
        (lambda f: corpus(f, ",cat", ",cat, large"), r"corpus\.csv has lines of 2 and of 3 fields; .* no name of a group or label holds a comma"),
        (lambda f: corpus(f, ",cat", ","), r"corpus\.csv gives \['batch0001\.npy'\] no group"),
        (lambda f: corpus(f, "batch0001", "../batch0001"), r"corpus\.csv names the files \['\.\./batch0001\.npy'\]; .* without folders"),
        (
            lambda f: corpus(f, "batch0001.npy", "photos.npy"),
            r"names the files \['photos\.npy'\]; batch files are named batch0000\.npy, batch0001\.npy",
        ),
        (lambda f: corpus(f, "batch0002", "batch0004"), r"has 4 lines and none for \['batch0002\.npy'\]; expected batch0000\.npy to batch0003\.npy"),
        (lambda f: corpus(f, "batch0002", "batch0001"), r"has 4 lines and none for \['batch0002\.npy'\]; .*, once each"),
        (lambda f: corpus(f, "batch0002", "batch00002"), r"has 4 lines and none for \['batch0002\.npy'\]"),
        (lambda f: (f / FIRST).unlink(), r"layer001 lacks \['batch0001\.npy'\], which corpus\.csv names; every layer holds one file for each"),
        (lambda f: (f / "grads/layer001/batch0001.npy").unlink(), r"grads/layer001 lacks \['batch0001\.npy'\]"),
        (lambda f: shutil.copy(f / FIRST, f / "acts/layer001/batch0004.npy"), r"layer001 holds \['batch0004\.npy'\], of unknown group: corpus\.csv"),
        (lambda f: stored(f, FIRST, lambda a: a[:1]), r"layer001/batch0001\.npy has shape \(1, 4, 3, 5\); expected \(2, 4, 3, 5\), the rows"),
        (lambda f: stored(f, FIRST, lambda a: a[..., :4]), r"layer001/batch0001\.npy has shape \(2, 4, 3, 4\); expected \(2, 4, 3, 5\)"),
        (lambda f: stored(f, "acts/layer000/batch0001.npy", lambda a: a[:1]), r"layer001/batch0001\.npy has shape \(2, .*; expected \(1, "),
        (
            lambda f: stored(f, "grads/" + FIRST[5:], lambda a: a[:1]),
            r"grads/layer001/batch0001\.npy has shape \(1, 4, 3, 5\); expected \(2, 4, 3, 5\)",
        ),
        (lambda f: stored(f, FIRST, lambda a: a.astype(np.float64)), r"batch0001\.npy holds .* dtype float64; expected \(n, \.\.\.\) float32"),
        (lambda f: stored(f, FIRST, lambda a: a[0, 0, 0, 0]), r"batch0001\.npy holds an array of shape \(\) and dtype float32; expected"),
        (lambda f: stored(f, FIRST, lambda a: a.astype(object)), r"layer001/batch0001\.npy is no file of a numpy array of numbers: .*Python objects"),
        (lambda f: (f / FIRST).write_bytes((f / FIRST).read_bytes()[:-1]), r"layer001/batch0001\.npy is no file of a numpy array of numbers"),
        (lambda f: (f / FIRST).write_bytes(b""), r"layer001/batch0001\.npy is no file of a numpy array of numbers"),
        (
            lambda f: stored(f, "acts/layer000/batch0003.npy", lambda a: np.where(np.arange(4)[:, None, None, None] == 2, np.float32(np.nan), a)),
            r"acts/layer000/batch0003\.npy holds NaN or infinity in 1 of 4 inputs, first in row 2; inputs are finite numbers",
        ),
        (lambda f: shutil.rmtree(f / "acts"), r"acts holds the folders \[\]; expected layer000 with the inputs"),
        (lambda f: shutil.move(f / "acts/layer001", f / "acts/layer003"), r"acts holds the folders \['layer000', 'layer002', 'layer003'\]; .* gaps"),
        (lambda f: [shutil.rmtree(f / f"acts/layer00{i}") for i in (1, 2)], r"acts holds the folders \['layer000'\]; expected"),
        (
            lambda f: json_of(f, "group_name_to_index.json", {"ant": "0", "cat": "2", "dog": "1"}),
            r"to_index\.json says \{.*, and corpus\.csv says \{'ant'",
        ),
        (lambda f: json_of(f, "index_to_group_name.json", {"0": "ant", "1": "cat"}), r"index_to_group_name\.json says .*, and corpus\.csv says"),
        (
            lambda f: corpus(f, "0001.npy,cat", "0001.npy,dog"),
            r"group_name_to_files\.json says .*'cat': \['batch0001\.npy'\].* remove the file that is wrong",
        ),
        (
            lambda f: json_of(f, "group_name_to_files.json", "{"),
            r"group_name_to_files\.json cannot be read as JSON: .* remove it, as it may be left out",
        ),
        (lambda f: json_of(f, NAMES, {"layer000": "a", "layer001": "b"}), r"layer_names\.json says .*; expected a name for each of \['layer000', "),
        (lambda f: json_of(f, NAMES, dict(zip([*LAYERS, "layer003"], "abcd"))), r"layer_names\.json says .*; expected a name for each of"),
        (lambda f: json_of(f, NAMES, dict(zip(LAYERS, "aba"))), r"layer_names\.json says .* all distinct"),
        (lambda f: json_of(f, NAMES, dict(zip(LAYERS, ["a", "output", "c"]))), r"layer_names\.json says .* 'output' for none but the last"),
        (lambda f: json_of(f, NAMES, dict(zip(LAYERS, ["a", "input", "c"]))), r"layer_names\.json says .* 'input' for none but the first"),
        (lambda f: json_of(f, NAMES, dict(zip(LAYERS, ["a", 1, "c"]))), r"layer_names\.json says .* a name for each"),
        (lambda f: json_of(f, NAMES, ["a", "b", "c"]), r"layer_names\.json says \['a', 'b', 'c'\]; expected"),
    ],
)
def test_a_folder_that_cannot_be_is_refused(folder: Path, spoil: Callable[[Path], object], message: str) -> None:
    read(folder)
    spoil(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read(folder)


def test_a_missing_file_is_a_file_not_found(folder: Path, tmp_path: Path) -> None:
    (folder / FIRST).unlink()
    for place in (folder, tmp_path / "nowhere"):
        with pytest.raises(FileNotFoundError):
            read(place)


def test_no_pickle_is_ever_loaded(folder: Path, tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self) -> tuple[object, tuple[Path, bytes]]:
            return Path.write_bytes, (tmp_path / "ran", b"")

    np.save(folder / FIRST, np.array([Malicious()] * 2, object), allow_pickle=True)
    with pytest.raises(ValueError, match="Python objects"):
        read(folder)
    (folder / FIRST).write_bytes(pickle.dumps(Malicious()))
    with pytest.raises(ValueError, match="is no file of a numpy array of numbers"):
        read(folder)
    assert not (tmp_path / "ran").exists()
    pickle.loads((folder / FIRST).read_bytes())
    assert (tmp_path / "ran").exists()  # it would have


def test_a_corpus_of_one_line_is_a_corpus(tmp_path: Path) -> None:
    network, probe = read(write(tmp_path / "one", groups=("dog",), sizes=(1,)))
    assert len(probe) == 1
    assert probe.class_names == ("dog",)
    np.testing.assert_allclose(
        activation_profiles(network, probe.inputs, probe.labels, ["layer001"])["layer001"][0], hidden(INPUTS[0]).mean(axis=(0, 1)), rtol=1e-6
    )


def test_the_json_files_may_be_left_out(folder: Path) -> None:
    before = read(folder)[1].hash
    for path in folder.glob("*.json"):
        path.unlink()
    assert read(folder)[1].hash == before


def test_layers_go_by_their_own_names_where_these_are_known(folder: Path) -> None:
    json_of(folder, NAMES, {"layer002": "head", "layer000": "input", "layer001": "conv"})
    network, probe = read(folder)
    assert network.layers == ("input", "conv", "head")
    np.testing.assert_allclose(network.activations(probe.inputs, ["conv"])["conv"], hidden(INPUTS), atol=1e-6)
    assert set(network.vjp(probe.inputs, "head", predicted(INPUTS), ["input", "conv"])) == {"input", "conv"}


# ---- writing activations ---------------------------------------------------------------------------------------------


class Halved(nn.Module):
    """Sums of a few small integers and halves: exact in float32, in whatever order they are added."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu, self.head = nn.Conv2d(2, 4, 3), nn.ReLU(inplace=True), nn.Linear(64, 3)
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            parameter.data = torch.randint(-2, 3, parameter.shape, generator=generator) / 2

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.relu(self.conv(x)).flatten(1))
        return logits


def small(module: nn.Module | None = None) -> TorchNetwork:
    torch.manual_seed(3)
    return TorchNetwork(module or nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 3)))


def shown(n: int = 23, *, integers: bool = False) -> ProbeSet:
    rng = np.random.default_rng(1)
    inputs = rng.integers(-2, 3, (n, 6, 6, 2)) if integers else rng.normal(size=(n, 6, 6, 2))
    return ProbeSet(inputs.astype(np.float32), rng.choice([0, 2, 3], n), ("ring", "none", "dot", "cross"))


def test_profiles_of_an_export_are_those_of_the_network_bit_for_bit(tmp_path: Path) -> None:
    network, probe = small(Halved()), shown(integers=True)
    recorded, same = read(activations_to_inntrospect(network, probe, ["conv", "relu"], tmp_path / "out", batch_size=4))
    assert recorded.layers == ("input", "conv", "relu", "head")
    assert same.class_names == ("cross", "dot", "ring")  # those with inputs, sorted
    ours = [probe.class_names.index(name) for name in same.class_names]
    for spatial in ("mean", "keep"):
        for batch_size in (5, 256):
            live, read_back = (
                activation_profiles(net, p.inputs, p.labels, ["conv", "relu", "head"], spatial=spatial, batch_size=batch_size)  # type: ignore[arg-type]
                for net, p in ((network, probe), (recorded, same))
            )
            for layer, profile in live.items():
                assert np.abs(profile[ours]).max() > 0
                np.testing.assert_array_equal(read_back[layer], profile[ours])


def test_profiles_of_an_export_are_those_of_the_network_bit_for_bit_in_the_same_batches(tmp_path: Path) -> None:
    """Numbers of any size: the network rounds by how many inputs it is shown at once, so it is shown those of the files."""
    network, probe = small(), shown()
    recorded, same = read(activations_to_inntrospect(network, probe, ["0", "1"], tmp_path / "out", batch_size=4))
    for label, name in enumerate(same.class_names):
        live, read_back = (
            activation_profiles(net, chosen, np.zeros(len(chosen), int), ["0", "1", "4"], spatial="keep", batch_size=4)
            for net, chosen in (
                (network, probe.inputs[probe.labels == probe.class_names.index(name)]),
                (recorded, same.inputs[same.labels == label]),
            )
        )
        for layer, profile in live.items():
            np.testing.assert_array_equal(read_back[layer], profile)


def test_findings_of_an_export_are_those_of_the_network(tmp_path: Path) -> None:
    network, probe = small(), shown()
    recorded, same = read(activations_to_inntrospect(network, probe, "auto", tmp_path / "out", batch_size=4))
    live, offline = observed(network, replace(same, ids=None), layers=["1", "4"]).findings, observed(recorded, same, layers=["1", "4"]).findings
    for analysis in ("nap", "saliency"):
        assert set(live[analysis][3].arrays) == set(offline[analysis][3].arrays)
        for name, values in live[analysis][3].arrays.items():
            if values.dtype.kind == "f":
                np.testing.assert_allclose(offline[analysis][3].arrays[name], values, rtol=1e-5, atol=1e-6, err_msg=name)
            else:
                np.testing.assert_array_equal(offline[analysis][3].arrays[name], values, err_msg=name)


def test_files_of_an_export_are_as_the_layout_says(tmp_path: Path) -> None:
    network, probe = small(), shown()
    out = activations_to_inntrospect(network, probe, ["1", "0"], tmp_path / "made" / "out", batch_size=4)
    assert out == tmp_path / "made" / "out"
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    sizes = {name: int((probe.labels == k).sum()) for k, name in enumerate(probe.class_names) if name != "none"}
    lines = [line.split(",") for line in (out / "corpus.csv").read_text().splitlines()]
    assert [file for file, _ in lines] == [f"batch{i:04d}.npy" for i in range(len(lines))]
    assert [group for _, group in lines] == [name for name in sorted(sizes) for _ in range(-(-sizes[name] // 4))]
    assert {path.name for path in out.iterdir()} == {
        "acts", "grads", "corpus.csv", "group_name_to_files.json", "group_name_to_index.json", "index_to_group_name.json", NAMES
    }  # fmt: skip
    assert json.loads((out / NAMES).read_text()) == {"layer000": "input", "layer001": "0", "layer002": "1", "layer003": "4"}
    assert json.loads((out / "group_name_to_index.json").read_text()) == {"cross": "0", "dot": "1", "ring": "2"}
    assert json.loads((out / "index_to_group_name.json").read_text()) == {"0": "cross", "1": "dot", "2": "ring"}
    files = json.loads((out / "group_name_to_files.json").read_text())
    assert files == {name: [file for file, group in lines if group == name] for name in sorted(sizes)}
    assert sorted(path.name for path in (out / "acts").iterdir()) == ["layer000", "layer001", "layer002", "layer003"]
    assert sorted(path.name for path in (out / "grads").iterdir()) == ["layer000", "layer001", "layer002"]
    for name, of_group in files.items():
        members = probe.inputs[probe.labels == probe.class_names.index(name)]
        batches = [np.load(out / "acts/layer000" / file) for file in of_group]
        assert all(batch.dtype == np.float32 and len(batch) <= 4 for batch in batches)
        np.testing.assert_array_equal(np.concatenate(batches), members)
        x = torch.from_numpy(np.moveaxis(members, -1, 1).copy()).requires_grad_()
        module = network.module.eval()
        conv = module[0](x)  # type: ignore[index]
        fired = torch.relu(conv)
        logits = module[4](fired.flatten(1))  # type: ignore[index]
        for source, layer in ((x, 0), (conv, 1), (fired, 2)):
            activation = np.concatenate([np.load(out / "acts" / f"layer00{layer}" / file) for file in of_group])
            np.testing.assert_allclose(activation, np.moveaxis(source.detach().numpy(), 1, -1), atol=1e-6)
            (grad,) = torch.autograd.grad(logits.max(dim=1).values.sum(), source, retain_graph=True)
            stored = [np.load(out / "grads" / f"layer00{layer}" / file) for file in of_group]
            assert {batch.dtype for batch in stored} == {np.dtype(np.float32)}
            np.testing.assert_allclose(np.concatenate(stored), np.moveaxis(grad.numpy(), 1, -1), atol=1e-6)
        np.testing.assert_allclose(np.concatenate([np.load(out / "acts/layer003" / f) for f in of_group]), logits.detach().numpy(), atol=1e-6)


def test_an_output_no_layer_gives_is_recorded_as_output(tmp_path: Path) -> None:
    class Doubled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.flat, self.head = nn.Flatten(), nn.Linear(72, 3)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = 2 * self.head(self.flat(x))
            return logits

    network, probe = small(Doubled()), shown()
    recorded, same = read(activations_to_inntrospect(network, probe, ["head"], tmp_path / "out"))
    assert recorded.layers == ("input", "head", "output")
    np.testing.assert_array_equal(recorded.outputs(same.inputs), 2 * recorded.activations(same.inputs, ["head"])["head"])
    classes = recorded.outputs(same.inputs).argmax(axis=1)
    np.testing.assert_allclose(gradient(recorded, same.inputs, classes), gradient(network, same.inputs, classes), rtol=1e-5)


def test_the_layer_that_gives_the_output_is_recorded_once_and_last(tmp_path: Path) -> None:
    network, probe = small(), shown()
    recorded, _ = read(activations_to_inntrospect(network, probe, ["4", "1"], tmp_path / "chosen"))
    assert recorded.layers == ("input", "1", "4")
    twice = small(nn.Sequential(nn.Flatten(), nn.Linear(72, 3), nn.Identity()))
    assert [layer.role for layer in twice.describe(probe.inputs[:2])] == ["other", "output", "output"]
    recorded, same = read(activations_to_inntrospect(twice, probe, ["1", "2"], tmp_path / "twice"))
    assert recorded.layers == ("input", "1", "2")
    np.testing.assert_array_equal(recorded.outputs(same.inputs), recorded.activations(same.inputs, ["1"])["1"])


def test_a_class_activation_map_of_an_export_is_that_of_the_network(tmp_path: Path) -> None:
    network, probe = small(), shown()
    recorded, same = read(activations_to_inntrospect(network, probe, "auto", tmp_path / "out"))
    classes = network.outputs(same.inputs).argmax(axis=1)
    np.testing.assert_allclose(grad_cam(recorded, same.inputs, classes), grad_cam(network, same.inputs, classes, layer="1"), rtol=1e-4, atol=1e-6)


def test_an_export_of_what_was_read_is_the_same_files(tmp_path: Path) -> None:
    first = activations_to_inntrospect(small(), shown(), "auto", tmp_path / "first", batch_size=4)
    second = activations_to_inntrospect(*read(first), "auto", tmp_path / "second", batch_size=4)
    files = [{str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()} for out in (first, second)]
    assert len(files[0]) > 10
    assert files[0] == files[1]


def test_where_no_class_is_predicted_an_export_holds_nan_for_its_gradient(tmp_path: Path) -> None:
    network, probe = small(), shown()
    network.module[0].weight.data *= 1e6  # type: ignore[index, operator, union-attr]
    probe.inputs[0] = 1e38  # such products overflow
    recorded, same = read(activations_to_inntrospect(network, probe, "auto", tmp_path / "out"))
    broken = np.flatnonzero(~np.isfinite(recorded.outputs(same.inputs)).all(axis=1))
    np.testing.assert_array_equal(same.inputs[broken], probe.inputs[:1])
    by_input = np.concatenate([np.load(path) for path in sorted((tmp_path / "out/grads/layer000").iterdir())])
    assert np.flatnonzero(np.isnan(by_input).all(axis=(1, 2, 3))).tolist() == broken.tolist()
    assert np.isfinite(np.delete(by_input, broken, axis=0)).all()


@pytest.mark.parametrize("name", ["a,b", "", "a#b", "a\nb", " a", "dot"])
def test_class_names_that_the_corpus_cannot_hold_are_refused(tmp_path: Path, name: str) -> None:
    probe = replace(shown(), class_names=("ring", name, "dot", "cross"))
    with pytest.raises(ValueError, match=r"classes are named \[.*\], which corpus\.csv cannot hold: .*; rename them in the probe"):
        activations_to_inntrospect(small(), probe, "auto", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="batch_size is 0; expected at least 1 input in a file"):
        activations_to_inntrospect(small(), shown(), "auto", tmp_path / "out", batch_size=0)
    with pytest.raises(ValueError, match=r"no layer named, matching or of type 'conv9'"):
        activations_to_inntrospect(small(), shown(), ["conv9"], tmp_path / "out")
    tokens = ProbeSet(np.zeros((2, 3), int), np.zeros(2, int))
    with pytest.raises(ValueError, match="token ids cannot be exported: the layout holds the gradient by the input"):
        activations_to_inntrospect(small(), tokens, "auto", tmp_path / "out")
    with pytest.raises(ValueError, match="the network's output"):
        activations_to_inntrospect(small(nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU())), shown(), "auto", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_export_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, calls = small(), []
    answer = network.vjp

    def failing(*args: object) -> dict[str, Float32]:
        calls.append(sorted(path.name for path in tmp_path.iterdir()))
        if len(calls) == 3:
            raise RuntimeError("out of memory")
        return answer(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(network, "vjp", failing)
    with pytest.raises(RuntimeError, match="out of memory"):
        activations_to_inntrospect(network, shown(), "auto", tmp_path / "out", batch_size=4)
    assert list(tmp_path.iterdir()) == []
    assert len(calls[2]) == 1  # what is written so far lies beside
    assert calls[2] != ["out"]


def test_an_export_replaces_nothing(tmp_path: Path) -> None:
    held, file, empty = tmp_path / "held", tmp_path / "file", tmp_path / "empty"
    held.mkdir()
    (held / "mine.txt").write_text("mine")
    file.write_text("mine")
    empty.mkdir()
    recording = Recording({}, {"nap": {0: Findings({"groups": np.array(["a"]), "counts": np.array([1]), "profile/x": np.ones((1, 4))})}})
    for place in (held, file):
        with pytest.raises(FileExistsError, match=rf"{place.name} exists and is not an empty folder; .* name a new one, or empty this one"):
            activations_to_inntrospect(small(), shown(), "auto", place)
        with pytest.raises(FileExistsError, match="is not an empty folder"):
            findings_to_inntrospect(recording, place)
    assert (held / "mine.txt").read_text() == file.read_text() == "mine"
    assert len(list(held.iterdir())) == 1
    findings_to_inntrospect(recording, empty)
    assert (empty / "naps/layer001.npy").exists()


# ---- writing findings ------------------------------------------------------------------------------------------------

CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.5, 0.4]])


def findings(seed: int = 0) -> dict[str, Findings]:
    """Three groups out of order, of which one has no inputs; two layers, of which one has a layout."""
    rng = np.random.default_rng(seed)
    conv, dense = rng.normal(size=(3, 5)), rng.normal(size=(3, 2))
    conv[1] = dense[1] = np.nan
    profiles = {"groups": np.array(["dog", "bee", "ant"]), "counts": np.array([300, 0, 2]), "profile/conv": conv, "first/conv": conv}
    layout = {"positions/conv": CORNERS, "contrast/conv": conv - np.nanmean(conv, axis=0)}
    return {"nap": Findings(profiles | {"profile/dense": dense}), "topomap": Findings(layout)}


def recording() -> Recording:
    steps = {step: findings(step) for step in (12, 0, 5)}
    return Recording({}, {name: {step: found[name] for step, found in steps.items()} for name in ("nap", "topomap")})


def loaded(out: Path, name: str) -> np.ndarray:
    return np.asarray(np.load(out / name, allow_pickle=False))


def test_findings_are_written_as_the_layout_says(tmp_path: Path) -> None:
    out = findings_to_inntrospect(recording(), tmp_path / "out")
    found = findings(12)["nap"].arrays  # the last step
    conv, dense = found["profile/conv"][[2, 0]], found["profile/dense"][[2, 0]]  # ant, dog: sorted, and without the empty group
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()) == sorted(
        [
            "group_name_to_files.json", "group_name_to_index.json", "index_to_group_name.json", "layer_names.json", "group_sizes.npy",
            "naps/layer001.npy", "naps/layer002.npy",
            "contrastive_naps/layer001.npy", "contrastive_naps/layer002.npy", "contrastive_naps/group_names.npy",
            "vis_data/topomap/layer001_coordinates.npy", "vis_data/topomap/layer001_activations.npy",
            "vis_data/topomap/layer001_interpolated_activations.npy", "vis_data/topomap/group_names.npy",
        ]
    )  # fmt: skip
    np.testing.assert_array_equal(loaded(out, "naps/layer001.npy"), conv)
    np.testing.assert_array_equal(loaded(out, "naps/layer002.npy"), dense)
    for name, values in (("layer001", conv), ("layer002", dense)):
        contrastive = loaded(out, f"contrastive_naps/{name}.npy")
        np.testing.assert_allclose(contrastive, values - (values[0] + values[1]) / 2, atol=1e-15)
        assert contrastive.dtype == loaded(out, f"naps/{name}.npy").dtype == np.float64
    sizes = loaded(out, "group_sizes.npy")
    assert (sizes.dtype, sizes.tolist()) == (np.dtype("i8"), [2, 300])
    for name in ("contrastive_naps/group_names.npy", "vis_data/topomap/group_names.npy"):
        assert loaded(out, name).tolist() == ["ant", "dog"]
        assert loaded(out, name).dtype.kind == "U"
    assert json.loads((out / "group_name_to_files.json").read_text()) == {"ant": [], "dog": []}
    assert json.loads((out / "group_name_to_index.json").read_text()) == {"ant": "0", "dog": "1"}
    assert json.loads((out / "index_to_group_name.json").read_text()) == {"0": "ant", "1": "dog"}
    assert json.loads((out / "layer_names.json").read_text()) == {"layer001": "conv", "layer002": "dense"}
    coordinates = loaded(out, "vis_data/topomap/layer001_coordinates.npy")
    assert coordinates.dtype == np.float32
    np.testing.assert_allclose(coordinates, CORNERS, rtol=1e-7)
    activations = loaded(out, "vis_data/topomap/layer001_activations.npy")
    assert activations.dtype == np.float64
    np.testing.assert_array_equal(activations, loaded(out, "contrastive_naps/layer001.npy"))


def test_the_chosen_step_is_written(tmp_path: Path) -> None:
    out = findings_to_inntrospect(recording(), tmp_path / "out", step=5)
    np.testing.assert_array_equal(loaded(out, "naps/layer001.npy"), findings(5)["nap"].arrays["profile/conv"][[2, 0]])


def test_maps_have_row_1_minus_x_and_column_1_minus_y_and_are_0_outside_the_hull(tmp_path: Path) -> None:
    positions = np.random.default_rng(4).random((9, 2)) * [0.9, 0.5]
    values = np.random.default_rng(5).normal(size=(2, 9))
    nap_findings = {"groups": np.array(["a", "b"]), "counts": np.array([1, 1]), "profile/x": values}
    findings = {"nap": {0: Findings(nap_findings)}, "topomap": {0: Findings({"positions/x": positions})}}
    out = findings_to_inntrospect(Recording({}, findings), tmp_path / "out")
    maps = loaded(out, "vis_data/topomap/layer001_interpolated_activations.npy")
    assert (maps.dtype, maps.shape) == (np.float64, (2, 100, 100))
    centres = (np.arange(100) + 0.5) / 100
    x, y = np.meshgrid(1 - centres, 1 - centres, indexing="ij")  # the row tells x, the column y
    for one, value in zip(maps, values - values.mean(axis=0)):
        np.testing.assert_allclose(one, griddata(positions, value, (x, y), method="linear", fill_value=0.0), atol=1e-12)
    assert (maps[:, :, :50] == 0).all()  # y above 0.5: beyond the hull


def test_the_unit_at_1_0_lies_at_the_top_right_of_their_map(tmp_path: Path) -> None:
    contrast = np.array([[0.0, 1, 0, 0, 0], [0.0, -1, 0, 0, 0]])
    nap_findings = {"groups": np.array(["a", "b"]), "counts": np.array([1, 1]), "profile/x": contrast}
    findings = {"nap": {0: Findings(nap_findings)}, "topomap": {0: Findings({"positions/x": CORNERS})}}
    shown = loaded(findings_to_inntrospect(Recording({}, findings), tmp_path / "out"), "vis_data/topomap/layer001_interpolated_activations.npy")[0]
    assert np.unravel_index(shown.argmax(), shown.shape) == (0, 99)


def test_profiles_that_keep_positions_are_averaged_in_maps_only(tmp_path: Path) -> None:
    profile = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    nap_findings = {"groups": np.array(["a", "b"]), "counts": np.array([1, 1]), "profile/x": profile}
    findings = {"nap": {0: Findings(nap_findings)}, "topomap": {0: Findings({"positions/x": CORNERS})}}
    out = findings_to_inntrospect(Recording({}, findings), tmp_path / "out")
    np.testing.assert_array_equal(loaded(out, "naps/layer001.npy"), profile)
    half = (profile[0] - profile[1]).mean(axis=(0, 1)) / 2
    np.testing.assert_allclose(loaded(out, "vis_data/topomap/layer001_activations.npy"), [half, -half], atol=1e-15)


def test_a_layer_that_is_not_finite_has_profiles_and_no_map(tmp_path: Path) -> None:
    found = findings()
    profile = found["nap"].arrays["profile/conv"].copy()
    profile[0, 3] = np.inf
    nap_findings = Findings({**found["nap"].arrays, "profile/conv": profile})
    out = findings_to_inntrospect(Recording({}, {"nap": {0: nap_findings}, "topomap": {0: found["topomap"]}}), tmp_path / "out")
    np.testing.assert_array_equal(loaded(out, "naps/layer001.npy"), profile[[2, 0]])
    assert not (out / "vis_data").exists()


def test_findings_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match=r"no profiles to export: this recording has no findings of analysis 'nap', only of \['topomap'\]"):
        findings_to_inntrospect(Recording({}, {"topomap": {0: Findings()}}), tmp_path / "out")
    with pytest.raises(KeyError, match=r"no profiles to export at step 7: analysis 'nap' has findings at steps \[0, 5, 12\]"):
        findings_to_inntrospect(recording(), tmp_path / "out", step=7)
    doubled = Findings({**findings()["nap"].arrays, "groups": np.array(["dog", "bee", "dog"])})
    with pytest.raises(ValueError, match=r"groups are named \['dog', 'bee', 'dog'\]; .* give each its own"):
        findings_to_inntrospect(Recording({}, {"nap": {0: doubled}}), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_what_an_observer_finds_can_be_written(tmp_path: Path) -> None:
    network, probe = small(), shown()
    found = observed(network, probe, layers=["0", "1"])
    out = findings_to_inntrospect(found, tmp_path / "out")
    assert json.loads((out / "layer_names.json").read_text()) == {"layer001": "0", "layer002": "1"}
    arrays = found.findings["topomap"][3].arrays
    for layer, name in (("0", "layer001"), ("1", "layer002")):
        # cross, dot, ring; "none" has no inputs
        np.testing.assert_allclose(loaded(out, f"contrastive_naps/{name}.npy"), arrays[f"contrast/{layer}"][[3, 2, 0]], atol=1e-15)
        np.testing.assert_allclose(loaded(out, f"vis_data/topomap/{name}_coordinates.npy"), arrays[f"positions/{layer}"], rtol=1e-6)
