"""What an audit says of real files of both frameworks, broken one way at a time."""

from __future__ import annotations

import hashlib
import math
import random
import weakref
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, pairwise
from pathlib import Path

import keras
import numpy as np
import pytest
import torch

from netlapse.audit import Audit, Problem, Weights, _out_of_line, audit
from netlapse.backends import keras_files, torch_files
from netlapse.callbacks.lightning import CheckpointCallback
from netlapse.tracking.checkpoints import find
from netlapse.types import Array
from tests.training import train

Arrays = dict[str, Array]
N = 5
FROZEN = ("net.norm1.running_*",)  # the batch norm that `tests.training` keeps in evaluation mode


def arrays(step: int) -> Arrays:
    """A dense layer, a batch norm and another layer, all of which move at every step."""
    rng = np.random.default_rng(0)
    shapes = {"0.weight": (4, 3), "0.bias": (4,), "1.weight": (4,), "1.bias": (4,), "1.mean": (4,), "1.var": (4,), "2.weight": (2, 4), "2.bias": (2,)}
    return {name: (rng.normal(size=shape) + 0.1 * step * rng.normal(size=shape)).astype(np.float32) for name, shape in shapes.items()}


class Torch:
    suffix = ".ckpt"
    read = staticmethod(torch_files.read_weights)

    @staticmethod
    def names(own: Sequence[str]) -> list[str]:
        return [f"net.{name.replace('mean', 'running_mean').replace('var', 'running_var')}" for name in own]

    def write(self, path: Path, content: Arrays, *, step: int) -> None:
        state = {name: torch.from_numpy(array) for name, array in zip(self.names(list(content)), content.values())}
        if "net.1.running_mean" in state:
            state["net.1.num_batches_tracked"] = torch.tensor(100 * step)
        torch.save({"global_step": 100 * step, "state_dict": state}, path)


class Keras:
    suffix = ".keras"
    read = staticmethod(keras_files.read_weights)

    @staticmethod
    def names(own: Sequence[str]) -> list[str]:
        layers = {"0": "dense", "1": "batch_normalization", "2": "dense_1"}
        variables = {"weight": 0, "bias": 1, "mean": 2, "var": 3}
        return [f"layers/{layers[name[0]]}/vars/{variables[name[2:]]}" for name in own]

    def write(self, path: Path, content: Arrays, *, step: int, frozen: Sequence[str] = ()) -> None:
        layers = [keras.layers.Dense(4, name="0"), keras.layers.BatchNormalization(name="1")]
        if "2.weight" in content:
            layers.append(keras.layers.Dense(content["2.weight"].shape[0], name="2"))
        for layer in layers:
            layer.trainable = layer.name not in frozen
        model = keras.Sequential([keras.Input((3,)), *layers])
        model.set_weights([array.T if name.endswith("weight") else array for name, array in content.items()])
        model.compile("sgd", "mse")
        model.optimizer.iterations.assign(100 * step)
        model.save(path)


@pytest.fixture(params=[Torch(), Keras()], ids=["torch", "keras"])
def made(request: pytest.FixtureRequest) -> Torch | Keras:
    return request.param  # type: ignore[no-any-return]


def series(made: Torch | Keras, folder: Path, content: Callable[[int], Arrays] = arrays, n: int = N) -> dict[int, Path]:
    for step in range(n):
        made.write(folder / f"step_{step:08d}{made.suffix}", content(step), step=step)
    return find(folder)


def shas(files: dict[int, Path]) -> dict[int, str]:
    return {step: hashlib.sha256(path.read_bytes()).hexdigest() for step, path in files.items()}


def only(found: Audit) -> Problem:
    assert len(found.problems) == 1, found.problems
    assert found.exit_code == (found.problems[0].severity == "error")
    return found.problems[0]


# ---- each kind ------------------------------------------------------------------------------------------------------


def test_of_a_sound_series_nothing_is_wrong(tmp_path: Path, made: Torch | Keras) -> None:
    files = series(made, tmp_path)
    found = audit(files, made.read, hashes=shas(files))
    assert found.problems == ()
    assert found.exit_code == 0
    assert "5 checkpoints: nothing is wrong" in found.report()


def test_the_same_weights_at_different_steps(tmp_path: Path, made: Torch | Keras) -> None:
    """Counters and optimizers go on, and the files differ; the weights of steps 1, 3 and 4 are those of step 1."""
    files = series(made, tmp_path, lambda step: arrays(1 if step >= 3 else step))
    assert len(set(shas(files).values())) == N
    assert only(audit(files, made.read)) == Problem((1, 3, 4), "identical", "the same weights in 3 files")


def test_weights_are_not_the_same_that_differ_in_a_name_a_shape_a_type_or_one_bit() -> None:
    base = {"a": np.arange(6, dtype=np.float32), "b": np.zeros(6, np.float32)}
    others = [
        {"b": base["a"], "a": base["b"]},
        {"a": base["a"].reshape(2, 3), "b": base["b"]},
        {"a": base["a"].astype(np.float64), "b": base["b"]},
        {"a": base["a"].view(np.int32), "b": base["b"]},  # the same bytes
        {"a": np.nextafter(base["a"], 9, dtype=np.float32), "b": base["b"]},
        {"a": base["a"], "b": -base["b"]},
    ]
    contents = [base, *others, {"b": base["b"], "a": np.asfortranarray(base["a"])}]
    files = {step: Path(__file__) for step in range(len(contents))}
    given = iter(contents)
    found = audit(files, lambda path: Weights(next(given)))
    assert [problem.steps for problem in found.problems if problem.kind == "identical"] == [(0, len(contents) - 1)]


def test_quantised_weights_are_weights_and_counters_are_not() -> None:
    def kinds(*contents: Arrays) -> list[str]:
        given = iter(contents)
        return [
            problem.kind for problem in audit({step: Path(__file__) for step in range(len(contents))}, lambda path: Weights(next(given))).problems
        ]

    weights = {"scale": np.ones(1, np.float32)}
    assert kinds({"int8": np.arange(9, dtype=np.int8)}, {"int8": np.arange(9, dtype=np.int8)[::-1]}) == []
    assert kinds(weights | {"seed": np.array([1, 2], np.uint32)}, weights | {"seed": np.array([1, 3], np.uint32)}) == ["identical"]


def test_a_file_that_is_cut_off(tmp_path: Path, made: Torch | Keras) -> None:
    files = series(made, tmp_path)
    files[2].write_bytes(files[2].read_bytes()[:-200])
    found = audit(files, made.read)
    problem = only(found)
    assert (problem.steps, problem.kind) == ((2,), "unreadable")
    assert f"{files[2]} " in problem.what
    assert "cut off" in problem.what
    assert math.isfinite(found.files[3].change)  # from step 1, which is the readable file before


def test_whatever_reading_raises_makes_one_file_unreadable(tmp_path: Path, made: Torch | Keras) -> None:
    files = series(made, tmp_path)

    def read(path: Path) -> Weights:
        if path == files[1]:
            raise ZeroDivisionError
        return made.read(path)

    assert only(audit(files, read)) == Problem((1,), "unreadable", "ZeroDivisionError")


def test_a_file_that_is_not_the_one_that_was_written(tmp_path: Path, made: Torch | Keras) -> None:
    files = series(made, tmp_path)
    before = shas(files)
    made.write(files[3], arrays(7), step=3)
    problem = only(audit(files, made.read, hashes=before))
    assert (problem.steps, problem.kind) == ((3,), "hash")
    assert problem.what == f"{files[3].name} has the sha256 {shas(files)[3][:12]}, and had {before[3][:12]} when it was written"


def test_files_that_are_not_there(tmp_path: Path, made: Torch | Keras) -> None:
    files = series(made, tmp_path)
    hashes = shas(files)
    files[1].unlink()
    found = audit({step: path for step, path in files.items() if step != 4}, made.read, hashes=hashes)
    assert found.problems == (
        Problem((1,), "missing", f"there is no {files[1]}"),
        Problem((4,), "missing", "the manifest names a file, and none was found"),
    )
    assert found.exit_code == 1
    assert [file.step for file in found.files] == [0, 1, 2, 3, 4]


def test_weights_that_are_not_finite(tmp_path: Path, made: Torch | Keras) -> None:
    def content(step: int) -> Arrays:
        found = arrays(step)
        if step == 2:
            found["0.weight"][1, :2] = np.nan, -np.inf
            found["2.bias"][0] = np.inf
        return found

    found = audit(series(made, tmp_path, content), made.read)
    weight, bias = made.names(["0.weight", "2.bias"])
    expected = f"{weight} (2 of 12 NaN or infinite), {bias} (1 of 2 NaN or infinite)"
    assert only(found) == Problem((2,), "non-finite", expected)
    assert [math.isnan(file.change) for file in found.files] == [True, False, True, True, False]


def test_parameters_that_never_move(tmp_path: Path, made: Torch | Keras) -> None:
    def content(step: int) -> Arrays:
        return arrays(step) | {name: arrays(0)[name] for name in ("0.weight", "0.bias")}

    files = series(made, tmp_path, content)
    still = made.names(["0.weight", "0.bias"])
    expected = f"{still[0]}, {still[1]} are the same in all files; name by frozen= what is not trained"
    assert only(audit(files, made.read)) == Problem((), "never moves", expected)
    assert audit(files, made.read, frozen=["net.0.*" if isinstance(made, Torch) else "layers/dense/*"]).problems == ()
    assert audit(files, made.read, frozen=still).problems == ()
    assert "never moves" in only(audit(files, made.read, frozen=still[:1])).kind


def test_a_parameter_that_moved_once_and_came_back_has_moved(tmp_path: Path, made: Torch | Keras) -> None:
    files = series(made, tmp_path, lambda step: arrays(step) | {"0.bias": arrays(step == 2)["0.bias"]})
    assert audit(files, made.read).problems == ()


def test_what_the_file_says_is_not_trained_may_stay(tmp_path: Path) -> None:
    made = Keras()
    for step in range(3):
        content = arrays(step) | {name: arrays(0)[name] for name in ("0.weight", "0.bias")}
        made.write(tmp_path / f"step_{step}.keras", content, step=step, frozen=["0"])
    assert audit(find(tmp_path), made.read).problems == ()


def test_of_two_equal_files_it_is_not_said_that_nothing_moves(tmp_path: Path, made: Torch | Keras) -> None:
    assert only(audit(series(made, tmp_path, lambda step: arrays(0), 2), made.read)).kind == "identical"


def test_entries_that_come_go_and_change_their_shape(tmp_path: Path, made: Torch | Keras) -> None:
    def content(step: int) -> Arrays:
        found = arrays(step)
        if step >= 3:
            found |= {"2.weight": np.ones((3, 4), np.float32) * step, "2.bias": np.ones(3, np.float32) * step}
        return {name: array for name, array in found.items() if step != 1 or name[0] != "2"}

    weight, bias = made.names(["2.weight", "2.bias"])
    old, new = ((2, 4), (3, 4)) if isinstance(made, Torch) else ((4, 2), (4, 3))
    found = audit(series(made, tmp_path, content), made.read)
    assert found.problems == (
        Problem((1,), "entries", f"gone: {weight}, {bias}"),
        Problem((2,), "entries", f"new: {weight}, {bias}"),
        Problem((3,), "entries", f"changed: {weight} from float32 {old} to float32 {new}, {bias} from float32 (2,) to float32 (3,)"),
    )
    assert found.exit_code == 1


# ---- order ----------------------------------------------------------------------------------------------------------


def test_optimiser_steps_that_do_not_ascend_with_the_epochs(tmp_path: Path, made: Torch | Keras) -> None:
    """The file of epoch 1 is overwritten with that of a later epoch: it alone is wrong, not all those after it."""
    files = series(made, tmp_path)
    made.write(files[1], arrays(9), step=9)
    expected = "the file says it is of step 900, which does not lie between those around it"
    assert only(audit(files, made.read)) == Problem((1,), "order", expected)


def test_optimiser_steps_that_are_not_those_of_the_names(tmp_path: Path, made: Torch | Keras) -> None:
    for step in range(N):
        made.write(tmp_path / f"m_{100 * step}{made.suffix}", arrays(step), step=step)
    files = find(tmp_path, unit="step")
    assert audit(files, made.read, unit="step").problems == ()
    made.write(files[200], arrays(8), step=3)
    assert only(audit(files, made.read, unit="step")) == Problem((200,), "order", "the file says it is of step 300")


def test_files_of_a_lightning_training_whose_names_were_exchanged(tmp_path: Path) -> None:
    train([CheckpointCallback(tmp_path)], epochs=4)
    files = find(tmp_path)
    assert audit(files, torch_files.read_weights, frozen=FROZEN).problems == ()
    one, two = files[1].read_bytes(), files[2].read_bytes()
    files[1].write_bytes(two)
    files[2].write_bytes(one)
    assert audit(files, torch_files.read_weights, frozen=FROZEN).problems == (
        Problem((1,), "order", "the file says it is of epoch 2"),
        Problem((2,), "order", "the file says it is of epoch 1"),
    )


def test_names_that_count_from_another_number_are_one_warning(tmp_path: Path) -> None:
    """As where somebody has Lightning name its files by the bare index of the epoch; and one of them is another's."""
    train([CheckpointCallback(tmp_path / "ours")], epochs=4)
    files = {step - 1: path for step, path in find(tmp_path / "ours").items() if step}
    warning = Problem(
        (), "order", "they say they are of 1 epoch after what their names say; rename them, or give a pattern, if that is so", "warning"
    )
    assert only(audit(files, torch_files.read_weights, frozen=FROZEN)) == warning
    found = audit({**files, 2: files[0]}, torch_files.read_weights, frozen=FROZEN)
    assert [problem for problem in found.problems if problem.kind == "order"] == [warning, Problem((2,), "order", "the file says it is of epoch 1")]
    two = audit({0: files[0], 1: files[1]}, torch_files.read_weights, frozen=FROZEN)  # too few to tell what is usual
    assert [problem.steps for problem in two.problems] == [(0,), (1,)]


def test_the_fewest_files_are_out_of_line() -> None:
    """Against every subset, of random orders of up to 8."""
    rng = random.Random(0)
    for _ in range(300):
        values = [rng.randrange(6) for _ in range(rng.randrange(9))]
        wrong = _out_of_line(values)
        rest = [value for index, value in enumerate(values) if index not in wrong]
        assert rest == sorted(rest)
        longer = combinations(values, len(rest) + 1)
        assert not any(list(chosen) == sorted(chosen) for chosen in longer)


# ---- what is measured and shown -------------------------------------------------------------------------------------


def test_the_table_holds_for_each_file_what_its_definition_says(tmp_path: Path, made: Torch | Keras) -> None:
    files = series(made, tmp_path, lambda step: arrays(min(step, 3)))
    found = audit(files, made.read)
    table = found.table()
    assert list(table) == ["step", "file", "sha256", "weights", "entries", "parameters", "change", "problems"]
    assert {len(column) for column in table.values()} == {N}
    assert table["step"] == list(range(N))
    assert table["file"] == [path.name for path in files.values()]
    assert table["sha256"] == [digest[:12] for digest in shas(files).values()]
    assert len(set(table["weights"])) == 4
    assert table["entries"] == [9 if isinstance(made, Torch) else 8] * N
    assert table["parameters"] == [42] * N
    assert table["problems"] == ["", "", "", *["identical: the same weights in 2 files"] * 2]
    flat = [np.concatenate([array.ravel().astype(np.float64) for array in arrays(min(step, 3)).values()]) for step in range(N)]
    expected = [float("nan"), *(np.linalg.norm(after - before) / np.linalg.norm(before) for before, after in pairwise(flat))]
    np.testing.assert_allclose(np.array(table["change"], float), expected, rtol=1e-12)  # both in float64; another order of adding


def test_what_concerns_all_files_stands_in_the_last_row(tmp_path: Path, made: Torch | Keras) -> None:
    files = series(made, tmp_path, lambda step: arrays(step) | {"0.bias": arrays(0)["0.bias"]})
    problems = audit(files, made.read).table()["problems"]
    assert problems[:-1] == [""] * (N - 1)
    assert str(problems[-1]).startswith(f"all files: never moves: {made.names(['0.bias'])[0]} is the same in all files")


def test_two_sets_of_weights_are_in_memory_at_a_time() -> None:
    alive: list[weakref.ref[np.ndarray]] = []
    most = 0

    def read(path: Path) -> Weights:
        nonlocal most
        array = np.random.default_rng(len(alive)).normal(size=1000)
        alive.append(weakref.ref(array))
        most = max(most, sum(reference() is not None for reference in alive))
        return Weights({"a": array})

    assert audit({step: Path(__file__) for step in range(10)}, read).problems == ()
    assert most == 2


def test_progress_sees_every_file_in_the_order_of_the_steps(tmp_path: Path) -> None:
    files = series(Torch(), tmp_path)
    seen: list[tuple[int, Path]] = []

    def progress(pairs: Sequence[tuple[int, Path]]) -> Iterator[tuple[int, Path]]:
        assert len(pairs) == N
        for pair in pairs:
            seen.append(pair)
            yield pair

    audit(dict(reversed(files.items())), torch_files.read_weights, progress=progress)
    assert seen == list(files.items())


def synthetic(n: int, content: Callable[[int], Arrays]) -> Audit:
    given = iter(range(n))
    return audit({10 * step: Path(__file__).with_name("test_audit.py") for step in range(n)}, lambda path: Weights(content(next(given))))


def test_a_report_is_aligned_and_names_the_runs_of_steps() -> None:
    found = synthetic(9, lambda step: {"a": np.full(1000, 1.0 if step in (2, 3, 4, 7) else 2.0 + step)})
    lines = found.report().splitlines()
    assert lines[0] == "9 checkpoints: 1 error"
    header = lines[2]
    for name in ("epoch", "entries", "parameters"):  # numbers end where their heading does
        end = header.index(name) + len(name)
        assert all(line[end - 1].isdigit() and line[end : end + 1] in ("", " ") for line in lines[3:12])
    start = header.index("problems")
    assert [line[start:] for line in lines[3:12]] == ["identical" if step in (2, 3, 4, 7) else "" for step in range(9)]
    assert lines[-2:] == ["errors", "  identical    epochs 20-40, 70: the same weights in 4 files"]


def test_a_long_report_shows_the_ends_and_what_surrounds_a_problem() -> None:
    found = synthetic(150, lambda step: {"a": np.full(10, np.nan if step == 70 else 1.0 + step)})
    lines = found.report().splitlines()
    rows = [line.split()[0] for line in lines[3:] if line and not line.startswith("  non") and line != "errors"]
    assert rows == ["0", "...", "690", "700", "710", "...", "1490"]
    assert lines[4].split(maxsplit=1)[1] == "68 more, nothing wrong with them"
    assert len(lines) < 20
