"""Laws of drawing adaptively in several processes: they share one draw, by one and the same weights, and the work of making them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from netlapse.analysis.fairness import sampling_weights
from netlapse.backends.torch import TorchNetwork
from netlapse.callbacks import sampling
from tests.apart import run_apart
from tests.ddp_sampling import BATCH, N, Noted
from tests.training import Lit

PROCESSES = {"one": 1, "two": 2, "three": 3, "gone on": 2, "apart": 2}


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[int, dict[str, Any]]]]:
    """For each training of `tests/ddp_sampling.py` what each process says of each epoch."""
    folder = run_apart("ddp_sampling", tmp_path_factory.mktemp("ddp"))

    def of(name: str, process: int) -> dict[int, dict[str, Any]]:
        return {int(epoch): values for epoch, values in json.loads((folder / name / f"{process}.json").read_text()).items()} | {-1: folder / name}

    return {name: [of(name, process) for process in range(processes)] for name, processes in PROCESSES.items()}


def epochs(process: dict[int, dict[str, Any]]) -> list[int]:
    return sorted(epoch for epoch in process if epoch >= 0)


def drawn(weights: list[float], epoch: int, processes: int) -> list[int]:
    total = -(-N // processes) * processes
    found: list[int] = sampling.drawn(np.array(weights), total, seed=3, epoch=epoch).tolist()
    return found


@pytest.mark.parametrize("name", PROCESSES)
def test_processes_train_on_their_shares_of_one_draw_by_the_same_weights(name: str, tried: dict[str, Any]) -> None:
    """Each on its share once, and not on a share of its share."""
    processes = tried[name]
    for epoch in epochs(processes[0]):
        weights = processes[0][epoch]["weights"]
        whole = drawn(weights, epoch, len(processes))
        for rank, process in enumerate(processes):
            assert process[epoch]["weights"] == weights
            assert process[epoch]["drawn"] == whole[rank :: len(processes)]


@pytest.mark.parametrize("name", ["two", "three"])
def test_the_first_epoch_of_several_is_that_of_one(name: str, tried: dict[str, Any]) -> None:
    alone, processes = tried["one"][0][0], tried[name]
    assert processes[0][0]["weights"] == alone["weights"]
    together = [index for step in zip(*(process[0]["drawn"] for process in processes)) for index in step]
    assert together[:N] == alone["drawn"]


@pytest.mark.parametrize("name", PROCESSES)
def test_weights_are_bit_for_bit_what_one_process_finds_in_the_first_ones_checkpoint(name: str, tried: dict[str, Any]) -> None:
    first = tried[name][0]
    images = Noted().images
    for epoch in (1, 2):
        before = first[-1] if (first[-1] / f"{epoch - 1}.ckpt").exists() else tried["two"][0][-1]
        module = Lit()
        module.load_state_dict(torch.load(before / f"{epoch - 1}.ckpt", weights_only=True)["state_dict"])
        network = TorchNetwork(module)
        parts = [network.to_array(images[start : start + BATCH]) for start in range(0, N, BATCH)]
        features = np.concatenate([network.responses(part, ["net.norm2"]).mean["net.norm2"] for part in parts])
        assert first[epoch]["weights"] == sampling_weights(features, np.arange(N) % 3).tolist()


def test_buffers_of_the_processes_do_differ_so_that_it_matters_whose_are_observed(tried: dict[str, Any]) -> None:
    first, second = tried["two"]
    assert first[0]["buffers"] != second[0]["buffers"]


@pytest.mark.parametrize("name", ["one", "two", "three"])
def test_processes_share_the_forward_pass_batch_by_batch(name: str, tried: dict[str, Any]) -> None:
    processes = tried[name]
    batches = [list(range(start, min(start + BATCH, N))) for start in range(0, N, BATCH)]
    for epoch in epochs(processes[0]):
        for rank, process in enumerate(processes):
            assert process[epoch]["shown"] == [index for batch in batches[rank :: len(processes)] for index in batch]


def test_a_process_that_trains_other_weights_leaves_its_share_to_the_first(tried: dict[str, Any]) -> None:
    first, second = tried["apart"]
    assert len(first[0]["shown"]) + len(second[0]["shown"]) == N
    assert sorted(first[1]["shown"]) == list(range(N))
    assert second[1]["shown"] == []


def test_a_training_of_several_processes_that_goes_on_draws_what_it_would_have_drawn(tried: dict[str, Any]) -> None:
    for on, whole in zip(tried["gone on"], tried["two"]):
        assert epochs(on) == [1, 2]
        for epoch in (1, 2):
            for what in ("weights", "drawn"):
                assert on[epoch][what] == whole[epoch][what]
