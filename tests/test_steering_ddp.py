"""Laws of steering a training of two processes: both do what the first is told, after the same batch, and none waits for ever."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from netlapse.steering.boxes import FolderBox
from netlapse.steering.orders import Answer, read_answers
from netlapse.tracking.folder import FolderTracker
from tests.apart import run_apart


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_apart("ddp_steering", tmp_path_factory.mktemp("ddp"), seconds=400)


def reports(folder: Path) -> list[dict[str, Any]]:
    error = folder / "error"
    assert not error.exists(), error.read_text()
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def answers(folder: Path) -> list[Answer]:
    return list(reversed(read_answers(FolderBox(folder / "record").read()).answers))


def test_a_training_that_was_paused_and_one_that_nobody_steered_end_bit_for_bit_alike(tried: Path) -> None:
    assert [answer.state for answer in answers(tried / "paused")] == ["done", "done"]
    for paused, untouched in zip(reports(tried / "paused"), reports(tried / "untouched"), strict=True):
        assert paused == untouched


def test_a_rate_is_set_in_both_after_the_same_batch(tried: Path) -> None:
    first, second = reports(tried / "set")
    assert first["rates"] == second["rates"]
    assert first["rates"][2:4] == [0.05, 0.001]
    assert first["fingerprint"]["weights"] == second["fingerprint"]["weights"]
    assert first["fingerprint"]["weights"] != reports(tried / "untouched")[0]["fingerprint"]["weights"]


def test_all_is_answered_once_by_the_first(tried: Path) -> None:
    said = answers(tried / "set")
    assert [(answer.command, answer.state, answer.step) for answer in said] == [
        ("lr=0.001", "done", 3), ("nonsense", "refused", 3), ("checkpoint", "done", 3), ("observe", "done", 3),
    ]  # fmt: skip
    assert len(torch.load(said[2].message.removeprefix("saved "), weights_only=True)["state_dict"]) > 0
    assert FolderTracker(tried / "set" / "record").steps["training"] == {3}  # of both processes' metrics; no analyses were asked for


def test_both_end_where_it_is_stopped(tried: Path) -> None:
    first, second = reports(tried / "stopped")
    assert len(first["rates"]) == len(second["rates"]) == 7
    (answer,) = answers(tried / "stopped")
    saved = torch.load(answer.message.rpartition(" ")[2], weights_only=True)
    assert saved["global_step"] == answer.step == 7
    assert saved["optimizer_states"]
