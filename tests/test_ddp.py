"""Laws of observing a training of several processes: they find what one finds, are left as they were, and none waits for ever."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy, ParallelStrategy, Strategy
from pytorch_lightning.strategies.xla import XLAStrategy
from torch import nn

from netlapse.analysis import default_analyses
from netlapse.backends.torch import TorchNetwork
from netlapse.backends.torch_processes import Processes
from netlapse.backends.torch_shared import fingerprint
from netlapse.callbacks.lightning import ObserverCallback
from netlapse.observer import Observer
from netlapse.probe import by_outcome
from netlapse.tracking.folder import FolderTracker
from netlapse.tracking.memory import MemoryTracker
from tests.apart import run_apart
from tests.training import Lit, probe, train


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each training of `tests/ddp_training.py`."""
    return run_apart("ddp_training", tmp_path_factory.mktemp("ddp"))


def reports(folder: Path, processes: int = 2, *, ended: bool = False) -> list[dict[str, Any]]:
    """What each process says at the end of a training that ended in an error, or did not."""
    error = folder / "error"
    assert error.exists() == ended, error.read_text() if error.exists() else "it ended well"
    return [json.loads((folder / f"{i}.json").read_text()) for i in range(processes)]


def failures(folder: Path) -> dict[str, str]:
    return {entry["what"]: entry["message"] for entry in FolderTracker(folder / "record").manifest.get("failures", ())}  # type: ignore[attr-defined]


def assert_left_alone(folder: Path, untouched: Path) -> None:
    """Every process goes on and ends as it does without: weights, buffers, optimizer, metrics, data, modes, hooks, random states."""
    for found, expected in zip(reports(folder), reports(untouched), strict=True):
        for what in ("fingerprint", "losses", "buffers"):
            assert found[what] == expected[what]


def assert_as_offline(folder: Path) -> None:
    """Everything that was found live is bit for bit what one process finds in the checkpoints."""
    live, offline = FolderTracker(folder / "record").recording(), MemoryTracker()
    module = Lit()
    network = TorchNetwork(module)
    observer = Observer(probe(), default_analyses(probe()), offline, grouping=by_outcome, batch_size=5, strict=True)
    observer.start(network)
    for step in range(3):
        weights = torch.load(folder / "weights" / f"step_{step:08d}.ckpt", weights_only=True)["state_dict"]
        module.load_state_dict(weights, strict=False)
        observer.observe(network, step)
    assert live.steps == (0, 1, 2)
    for analysis in ("nap", "topomap", "saliency", "predictions"):
        for step, expected in offline.findings[analysis].items():
            found = live.findings[analysis][step]
            assert sorted(found.arrays) == sorted(expected.arrays)
            for name, values in expected.arrays.items():
                np.testing.assert_array_equal(found.arrays[name], values, err_msg=f"{analysis} {name} at step {step}")


def test_two_processes_find_bit_for_bit_what_one_finds_in_the_checkpoints(tried: Path) -> None:
    first, second = reports(tried / "observed")
    assert first["buffers"][1] != second["buffers"][1]  # so that it matters whose batch norms are observed
    assert_as_offline(tried / "observed")


def test_three_processes_do_so_too(tried: Path) -> None:
    assert all(report["shown"] for report in reports(tried / "three", 3))
    assert_as_offline(tried / "three")


def test_where_processes_train_other_weights_the_first_ones_are_observed(tried: Path) -> None:
    first, second = reports(tried / "apart")
    assert first["fingerprint"]["weights"] != second["fingerprint"]["weights"]
    assert_as_offline(tried / "apart")


def test_every_process_is_left_as_it_would_be_without(tried: Path) -> None:
    assert_left_alone(tried / "observed", tried / "untouched")


def test_every_process_takes_part_and_no_input_is_shown_twice(tried: Path) -> None:
    assert [report["shown"] for report in reports(tried / "untouched")] == [[], []]
    # The second one is shown what its layers are found by, once, and then its share at each of three steps.
    assert reports(tried / "observed")[1]["shown"] == [2, 3, *[5, 2] * 3]
    counts = FolderTracker(tried / "observed" / "record").recording().array("nap", "counts")
    for step in (0, 1, 2):
        assert counts.at(step).sum() == len(probe())


def test_metrics_over_all_processes_are_recorded_as_such(tried: Path) -> None:
    processes = reports(tried / "observed")
    recorded = FolderTracker(tried / "observed" / "record").recording().scalars
    batches = len(processes[0]["losses"]) // 2
    assert batches == 5  # of 17 inputs in each process: one of the 33 is trained on twice
    for step, epoch in ((1, slice(0, batches)), (2, slice(batches, None))):
        losses = [loss for process in processes for loss in process["losses"][epoch]]
        # Means in float32; Lightning's own weighs batches by their inputs, a metric's does not.
        assert recorded["training/mean"].at(step) == pytest.approx(np.mean(losses), rel=1e-6)
        assert recorded["training/loss_of_all"].at(step) == pytest.approx(np.average(losses, weights=[4, 4, 4, 4, 1] * 2), rel=1e-6)


def test_what_is_drawn_from_a_data_set_is_one_draw(tried: Path) -> None:
    hashes = {(tried / "drawn" / f"hash {i}").read_text() for i in range(2)}
    assert hashes == {FolderTracker(tried / "drawn" / "record").manifest["probe"]["hash"]}  # type: ignore[index]


# ---- what fails -----------------------------------------------------------------------------------------------------


def test_a_share_that_fails_is_the_analyses_failure_and_training_goes_on(tried: Path) -> None:
    assert_left_alone(tried / "a_share", tried / "untouched")
    message = "RuntimeError: in process 1 of the training: LookupError: no luck"
    assert failures(tried / "a_share") == {"nap": message, "topomap": message, "predictions": message}
    found = FolderTracker(tried / "a_share" / "record").recording().findings
    assert sorted(found["saliency"]) == [0, 1, 2]  # which needs no statistics


@pytest.mark.parametrize("name", ["an_analysis", "the_tracker"])
def test_what_fails_in_the_first_process_alone_keeps_none_waiting(name: str, tried: Path) -> None:
    assert_left_alone(tried / name, tried / "untouched")
    assert failures(tried / "an_analysis") == {"broken": "LookupError: no luck"}
    assert failures(tried / "the_tracker")["tracker, logging nap"] == "OSError: [Errno 28] No space left on device"


@pytest.mark.parametrize(
    ("name", "message", "kept"),
    [
        ("a_checkpoint_that_is_written_and_cannot_be_kept", r"IsADirectoryError: .*step_00000001.ckpt'", [0, 2]),
        ("a_checkpoint_of_the_first", "LookupError: no luck", [0, 1]),
        ("a_checkpoint_of_the_second", "RuntimeError: in process 1 of the training: LookupError: no luck", [0, 1, 2]),
    ],
)
def test_a_checkpoint_that_fails_in_one_process_keeps_none_waiting(name: str, message: str, kept: list[int], tried: Path) -> None:
    assert_left_alone(tried / name, tried / "untouched")
    failed = failures(tried / name)
    assert list(failed) == ["checkpoint"]
    assert re.fullmatch(message, failed["checkpoint"])
    for folder in ("weights", "others"):  # the observer's, and the other callback's
        files = [path.name for path in sorted((tried / name / folder).iterdir()) if path.is_file()]
        assert files == [f"step_{step:08d}.ckpt" for step in kept]


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("strict_share", "RuntimeError: in process 1 of the training: LookupError: no luck"),
        ("strict_analysis", "LookupError: no luck"),
        ("strict_tracker", r"OSError: \[Errno 28\] No space left on device"),
        ("strict_checkpoint", "RuntimeError: in process 1 of the training: LookupError: no luck"),
        ("layers_that_are_not_there", "ValueError: no layer named, matching or of type 'conv9'; .*"),
    ],
)
def test_what_ends_one_process_ends_all_with_the_same_error(name: str, first: str, tried: Path) -> None:
    errors = [report["error"] for report in reports(tried / name, ended=True)]
    assert re.fullmatch(first, errors[0])
    assert errors[1] == f"RuntimeError: in process 0 of the training: {errors[0]}"


def test_an_event_stops_all_processes_after_the_same_step(tried: Path) -> None:
    one_epoch, two = ([len(report["losses"]) for report in reports(tried / name)] for name in ("stopped", "untouched"))
    assert [2 * losses for losses in one_epoch] == two
    record = FolderTracker(tried / "stopped" / "record")
    assert record.recording().steps == (0, 1)
    assert record.manifest["stopped"] == "by bell/alarm at step 1: it rang at 1"


def test_one_process_alone_leads_itself() -> None:
    def lead() -> list[object]:
        return [*processes.together("half", 3), *processes.together("half", 5)]

    processes = Processes()
    assert (processes.rank, processes.size) == (0, 1)
    assert processes.led(lead, {"half": lambda value: value / 2}) == [1.5, 2.5]
    assert processes.from_first(lambda: "made") == "made"
    for failing in (lambda: processes.led(lead, {"half": lambda value: value / 0}), lambda: processes.from_first(lambda: 1 / 0)):
        with pytest.raises(ZeroDivisionError):
            failing()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64], ids=str)
def test_a_fingerprint_is_another_for_every_other_last_bit(dtype: torch.dtype) -> None:
    module = nn.ParameterList([torch.randn(3, 2, dtype=dtype), torch.randn((), dtype=dtype)])
    same, before = copy.deepcopy(module), fingerprint(module)
    assert fingerprint(same) == before
    for weight in same.parameters():
        with torch.no_grad():
            bits = torch.view_as_real(weight) if weight.is_complex() else weight
            bits.view({8: torch.int64, 4: torch.int32, 2: torch.int16}[bits.element_size()]).view(-1)[-1] ^= 1
        assert fingerprint(same) != before
        same.load_state_dict(module.state_dict())
    diverged = nn.ParameterList([torch.full((3,), np.nan, dtype=dtype)])
    assert fingerprint(diverged) == fingerprint(copy.deepcopy(diverged))  # although NaN is not NaN


# ---- strategies -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "reason"),
    [
        (FSDPStrategy, "each process may hold a part of each weight"),
        (ModelParallelStrategy, "each process may hold a part of each weight"),
        (DeepSpeedStrategy, "each process may hold a part of each weight"),
        (XLAStrategy, "its processes are joined by torch_xla"),
    ],
)
def test_strategies_under_which_no_process_holds_the_network_are_refused_in_setup(strategy: type[Strategy], reason: str) -> None:
    # Of that class and nothing else, as the packages and devices they are made with are not on every machine.
    trainer: Any = SimpleNamespace(strategy=strategy.__new__(strategy))
    callback = ObserverCallback(probe(), tracker=MemoryTracker())
    with pytest.raises(
        ValueError, match=f"cannot observe under {strategy.__name__}: {reason}.*; train on one device or with DDP, or save checkpoints"
    ):
        callback.setup(trainer, Lit(), "fit")
    callback.setup(trainer, Lit(), "test")  # where nothing is observed


def test_a_training_with_such_a_strategy_is_refused_before_the_first_batch() -> None:
    module = Lit()
    with pytest.raises(ValueError, match="cannot observe under ModelParallelStrategy"):
        train([ObserverCallback(probe(), tracker=MemoryTracker())], module=module, strategy=ModelParallelStrategy(), accelerator="cpu", devices=1)
    torch.distributed.destroy_process_group()  # Lightning leaves it to the end of the process
    assert module.seen.hexdigest() == Lit().seen.hexdigest()


def test_a_strategy_nobody_has_heard_of_is_refused() -> None:
    class Unheard(ParallelStrategy):
        pass

    Unheard.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]
    trainer: Any = SimpleNamespace(strategy=object.__new__(Unheard))
    with pytest.raises(ValueError, match="cannot observe under Unheard: whether each process holds the whole network is not known of it"):
        ObserverCallback(probe(), tracker=MemoryTracker()).setup(trainer, Lit(), "fit")
