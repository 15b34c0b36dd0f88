"""A bound on what observing may cost: steps are left out to keep it, no more than needed, and the record says which."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

from netlapse.backends.torch import TorchNetwork
from netlapse.callbacks.lightning import ObserverCallback
from netlapse.callbacks.observing import Observing
from netlapse.cli import summary
from netlapse.overhead import Overhead
from netlapse.recording import Recording
from netlapse.report import page
from netlapse.schedule import Schedule, every_epoch
from netlapse.tracking.memory import MemoryTracker
from netlapse.training.lightning import Classifier
from netlapse.types import Findings, ProbeSet, Snapshot

sys.path.insert(0, str(Path(__file__).parent))
from browser import needs_browser, opened
from page_recording import made_up_run


class Clock:
    """A time that passes only where a test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    return clock


class Trained:
    """What frameworks' callbacks are made with."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule


class Callback(Observing, Trained):
    framework, suffix = "torch", ".ckpt"


def probe() -> ProbeSet:
    return ProbeSet(np.random.default_rng(0).random((6, 4), np.float32), np.arange(6) % 2)


def network() -> TorchNetwork:
    torch.manual_seed(0)
    return TorchNetwork(torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2)))


def observed(clock: Clock, costs: list[float], *, most: float | None, steps: int = 21, training: float = 3.0) -> tuple[MemoryTracker, list[int]]:
    """A training of so many steps of so many seconds; the i-th observation takes costs[i], the last of them again and again."""
    left = iter(costs)
    last = [costs[-1]]

    def slow(snapshot: Snapshot, previous: Findings | None) -> Findings:
        clock.now += next(left, last[0])
        return Findings(scalars={"slow": 1.0})

    tracker = MemoryTracker()
    callback = Callback(probe(), {"slow": slow}, tracker=tracker, max_overhead=most, strict=True)
    it = network()
    callback.open(it, "mlp", probe(), lambda: tracker, goes_on=False)
    callback.begun()
    for step in range(steps):
        clock.now += training if step else 0.0
        callback.observe(it, step, {"train_loss": float(step)})
    callback.close(failed=False)
    return tracker, sorted(tracker.findings["slow"])


def test_by_hand(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Of 1 s each after 3 s of training each: the k-th of them is afforded from step k / 0.3 on."""
    with caplog.at_level(logging.WARNING):
        tracker, steps = observed(clock, [1.0], most=0.1)
    assert steps == [0, 7, 10, 14, 17, 20]
    assert tracker.findings["cost"][20].scalars["cost/overhead"] == pytest.approx(6 / 60)
    assert tracker.manifest["thinned"] == {"max_overhead": 0.1, "steps": [step for step in range(21) if step not in steps]}
    assert sorted(tracker.findings["training"]) == list(range(21))  # the training's own numbers are there of every step
    assert [record.message for record in caplog.records] == [
        "netlapse: an observation takes 1 s: to stay within 10 % of the training's time not every scheduled epoch is observed; "
        "reanalysis fills them in from checkpoints"
    ]


def test_without_a_limit_and_below_it_nothing_is_left_out(clock: Clock) -> None:
    for most in (None, 0.5):
        tracker, steps = observed(clock, [1.0], most=most)
        assert steps == list(range(21)) if most is None else steps == [0, *range(2, 21)]  # step 0 is paid for by the first epoch
        assert ("thinned" in tracker.manifest) == (most is not None)


def test_what_is_left_out_to_the_end_is_told_too(clock: Clock) -> None:
    tracker, steps = observed(clock, [100.0], most=0.05)
    assert steps == [0]
    assert tracker.manifest["thinned"]["steps"] == list(range(1, 21))  # type: ignore[index]


@pytest.mark.parametrize("seed", range(20))
def test_the_share_is_kept_whatever_an_observation_costs_and_a_step_is_left_out_only_to_keep_it(clock: Clock, seed: int) -> None:
    draw = np.random.default_rng(seed)
    most, epochs = float(draw.uniform(0.02, 0.3)), 200
    costs = draw.lognormal(0, 0.5, epochs + 1)
    _, steps = observed(clock, costs.tolist(), most=most, steps=epochs + 1, training=float(draw.uniform(1, 20)))
    spent = np.cumsum(costs[: len(steps)])
    trained = np.array(steps) * (clock.now - spent[-1]) / epochs
    over = spent[1:] - most * trained[1:]  # the first is afforded before there is any training
    # It was afforded for an observation that costs what the one before did: beyond the limit is at most what it cost more.
    assert (over <= np.maximum(np.diff(costs[: len(steps)]), 0) + 1e-9).all()
    for step in set(range(1, epochs + 1)) - set(steps):
        k = np.searchsorted(steps, step)
        assert spent[k - 1] + costs[k - 1] > most * step * (clock.now - spent[-1]) / epochs - 1e-9


def test_drawing_the_page_counts_and_an_observation_is_as_long_as_the_last(clock: Clock) -> None:
    overhead = Overhead()
    assert overhead.affords(0.01)
    assert overhead.share is None
    for seconds in (1.0, 3.0):
        overhead.begin()
        clock.now += seconds
        overhead.observed(seconds)
    assert overhead.share is None  # nothing was trained yet
    clock.now += 2
    overhead.spent(2.0)
    clock.now += 60
    assert overhead.share == pytest.approx(6 / 60)
    assert overhead.affords(9 / 60)
    assert not overhead.affords(9 / 60 - 1e-9)


@pytest.mark.parametrize("share", [0, -0.1, float("nan"), float("inf")])
def test_a_limit_that_is_no_share_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match=f"max_overhead={share}; expected a share above 0, such as 0.05, or None"):
        Callback(probe(), max_overhead=share)


def test_in_a_training_checkpoints_are_kept_of_what_is_left_out_and_training_goes_on_as_without(clock: Clock, tmp_path: Path) -> None:
    def trained(**options: Any) -> tuple[MemoryTracker, dict[str, torch.Tensor]]:
        pl.seed_everything(0, verbose=False)
        module = Classifier(torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2)))
        data = TensorDataset(torch.rand(16, 4), torch.arange(16) % 2)
        tracker = MemoryTracker()
        callback = ObserverCallback(probe(), {"slow": slow}, tracker=tracker, module="network", schedule=every_epoch(), strict=True, **options)
        trainer = pl.Trainer(
            max_epochs=6, callbacks=[callback, Epochs()], logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, accelerator="cpu",
        )  # fmt: skip
        trainer.fit(module, DataLoader(data, 8, shuffle=True))
        return tracker, module.state_dict()

    def slow(snapshot: Snapshot, previous: Findings | None) -> Findings:
        clock.now += 1.0
        return Findings(scalars={"slow": 1.0})

    class Epochs(pl.Callback):
        def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            clock.now += 5.0

    tracker, thinned = trained(max_overhead=0.2, checkpoints=tmp_path)
    assert sorted(tracker.findings["slow"]) == [0, 2, 3, 4, 5, 6]
    assert tracker.manifest["thinned"] == {"max_overhead": 0.2, "steps": [1]}
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"step_{step:08d}.ckpt" for step in range(7)]
    _, whole = trained()
    assert all(torch.equal(thinned[name], whole[name]) for name in whole)


def test_the_terminal_says_what_was_left_out_and_what_was_observed() -> None:
    manifest = {"layers": [{"name": "conv"}], "step_unit": "epoch", "thinned": {"max_overhead": 0.05, "steps": [1, 2, 3]}}
    training = {step: Findings(scalars={"training/val_accuracy": 0.5}) for step in range(5)}
    said = summary(Recording(manifest, {"nap": {step: Findings() for step in (0, 2, 4)}, "training": training}), "here", 1.0)
    assert "Observed 3 epochs (0 to 4) of 1 layers: conv" in said
    assert "Left out to stay within max_overhead: epochs 1, 3; ./run reanalyse fills them in from checkpoints" in said


@needs_browser
def test_the_page_says_what_was_left_out_until_somebody_fills_it_in(tmp_path: Path) -> None:
    run = made_up_run()
    last = run.steps[-1]
    run = Recording({**run.manifest, "thinned": {"max_overhead": 0.05, "steps": [last, last + 1, last + 3]}}, run.findings)
    with opened(page(run), tmp_path) as tab:
        notices = tab.tell("[...document.querySelectorAll('#header .notice')].map((notice) => notice.textContent)")
    said = f"2 epochs not observed: {last + 1}, {last + 3}. Observing was to take at most 5 % of the training\u2019s time. "
    assert f"{said}Reanalysis fills them in from checkpoints." in notices
