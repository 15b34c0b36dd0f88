"""Laws of the observer: it folds pure functions over snapshots, hands on what they find, and lets nothing of theirs through but findings."""

from __future__ import annotations

import logging
import time
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from netlapse.analysis import default_analyses
from netlapse.backends.torch import TorchNetwork
from netlapse.observer import Observer
from netlapse.tracking.memory import MemoryTracker
from netlapse.tracking.probes import from_bytes
from netlapse.types import Analysis, Findings, ProbeSet, Snapshot, checked_by


def network(seed: int = 0) -> TorchNetwork:
    torch.manual_seed(seed)
    return TorchNetwork(nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 3)))


def probe() -> ProbeSet:
    return ProbeSet(np.random.default_rng(0).random((9, 4, 4, 1), np.float32), np.arange(9) % 3)


def counting(snapshot: Snapshot, previous: Findings | None) -> Findings:
    """How often it was called, known from nothing but its own last findings."""
    return Findings({"calls": np.array(1 if previous is None else int(previous.arrays["calls"]) + 1)}, {"step": snapshot.step})


def test_an_analysis_is_given_its_own_findings_at_the_checkpoint_before() -> None:
    tracker = MemoryTracker()
    observer = Observer(probe(), [counting], tracker)
    observer.start(network())
    for step in (0, 3, 5):
        observer.observe(network(), step)
    assert [int(found.arrays["calls"]) for found in tracker.findings["counting"].values()] == [1, 2, 3]


def test_an_observer_that_starts_anew_goes_on_from_what_was_logged() -> None:
    tracker = MemoryTracker()
    for steps in ((0, 1), (2, 3)):
        observer = Observer(probe(), {"counting": counting}, tracker)
        observer.start(network(), resume=steps[0] > 0)
        for step in steps:
            observer.observe(network(), step)
    assert int(tracker.findings["counting"][3].arrays["calls"]) == 4


def test_a_record_is_one_trainings_with_one_probe() -> None:
    tracker = MemoryTracker()
    observer = Observer(probe(), [counting], tracker)
    observer.start(network())
    Observer(probe(), [counting], tracker).start(network())  # nothing was found yet
    observer.observe(network(), 0)
    observer.observe(network(), 3)
    with pytest.raises(ValueError, match=r"holds findings already, of steps 0 to 3 \(memory\); observe a new training into a record of its own"):
        Observer(probe(), [counting], tracker).start(network())
    other = ProbeSet(probe().inputs, probe().labels[::-1])
    with pytest.raises(ValueError, match=rf"of another probe: its hash is {probe().hash}, and {other.hash} this one's"):
        Observer(other, [counting], tracker).start(network(), resume=True)
    created = tracker.manifest["created"] = "long ago"
    Observer(probe(), [counting], tracker).start(network(), resume=True)
    assert tracker.manifest["created"] == created


def following(snapshot: Snapshot, previous: Findings | None) -> Findings:
    """The steps that led here."""
    return Findings({"path": np.array([*(previous.arrays["path"].tolist() if previous else []), snapshot.step])})


def test_a_training_that_was_cut_off_may_begin_anew_in_its_record_in_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a cluster starts one again that was killed before its first checkpoint."""

    def left(ending: list[bool | None], model: str = "A") -> MemoryTracker:
        tracker = MemoryTracker()
        observer = Observer(probe(), [counting], tracker)
        observer.start(network(), {"model": model, "command": "before"})
        for step in (0, 1):
            observer.observe(network(), step)
        for failed in ending:
            observer.finish(failed=failed)
        return tracker

    def again(tracker: MemoryTracker, shown: ProbeSet | None = None) -> Observer:
        observer = Observer(shown or probe(), [counting], tracker)
        observer.start(network(), {"model": "A", "command": "again"})
        return observer

    for ending in ([], [None]):  # killed, and interrupted
        tracker = left(ending)
        with pytest.raises(ValueError, match="holds findings already"):
            again(tracker)  # it may still be going on
        with monkeypatch.context() as later:
            later.setattr("netlapse.observer._process", lambda: "another")
            with pytest.raises(ValueError, match="of another probe"):
                again(tracker, ProbeSet(probe().inputs, probe().labels[::-1]))
            observer = again(tracker)
            for step in (0, 1, 2):
                observer.observe(network(), step)
        assert [int(found.arrays["calls"]) for found in tracker.findings["counting"].values()] == [1, 2, 3]
        assert list(tracker.findings["cost"]) == [0, 1, 2]
    monkeypatch.setattr("netlapse.observer._process", lambda: "another")
    cut_off = left([])
    monkeypatch.setattr("netlapse.observer._process", lambda: "a third")
    for tracker in (left([False]), left([True]), left([], model="B")):
        tracker.manifest["process"] = "another"
        with pytest.raises(ValueError, match="holds findings already"):
            again(tracker)
    again(cut_off)


def test_only_what_is_missing_at_a_step_is_looked_for() -> None:
    tracker = MemoryTracker()
    alone = Observer(probe(), [counting], tracker)
    alone.start(network())
    alone.observe(network(), 2)
    both = Observer(probe(), {"counting": counting, "other": counting}, tracker)
    both.start(network(), resume=True)
    found = both.observe(network(), 2, missing_only=True, extra={"training": Findings()})
    assert set(found) == {"other", "training"}
    assert both.observe(network(), 2, missing_only=True, extra={"training": Findings()}) == {}
    cost = tracker.findings["cost"][2]
    assert set(both.observe(network(), 2)) == {"counting", "other"}
    assert tracker.findings["cost"][2] is cost
    assert set(both.observe(network(), 3)) == {"counting", "other", "cost"}


def test_a_gap_that_is_filled_makes_what_came_after_it_be_found_anew() -> None:
    """The record ends up as if nothing had ever been missing, wherever the work is interrupted."""

    def run(tracker: MemoryTracker) -> Observer:
        observer = Observer(probe(), [following], tracker)
        observer.start(network(), resume=True)
        return observer

    whole, gap = MemoryTracker(), MemoryTracker()
    for step in (0, 1, 2, 3, 4):
        run(whole).observe(network(), step)
    for step in (0, 2, 3, 4):
        run(gap).observe(network(), step)
    assert run(gap).wanting([0, 2, 3]) == {}
    assert run(gap).wanting(range(5)) == {step: ["following"] for step in (1, 2, 3, 4)}
    run(gap).observe(network(), 1, only=["following"])
    assert run(gap).wanting(range(5)) == {step: ["following"] for step in (2, 3, 4)}  # what was found after step 0 and not after step 1
    assert run(gap).wanting([0, 1, 3, 4]) == {}
    once = run(gap)
    for step in (2, 3):
        once.observe(network(), step, only=["following"])
    assert run(gap).wanting(range(5)) == {4: ["following"]}
    once.observe(network(), 4, only=["following"])
    assert run(gap).wanting(range(5)) == {}
    assert run(gap).wanting(range(5), force=True) == {step: ["following"] for step in range(5)}
    for step in range(5):
        assert (
            gap.findings["following"][step].arrays["path"].tolist()
            == whole.findings["following"][step].arrays["path"].tolist()
            == list(range(step + 1))
        )


def test_the_step_before_is_the_records_also_where_this_observer_skipped_it() -> None:
    tracker = MemoryTracker()
    observer = Observer(probe(), [following], tracker)
    observer.start(network())
    for step in (0, 1, 2, 3):
        observer.observe(network(), step)
    again = Observer(probe(), [following], tracker)
    for step in (1, 3):
        again.observe(network(), step, only=["following"])
    assert tracker.findings["following"][3].arrays["path"].tolist() == [0, 1, 2, 3]


def test_what_is_gone_on_with_remains_what_it_was_and_says_when_more_was_found() -> None:
    tracker = MemoryTracker()
    Observer(probe(), {"first": counting}, tracker, layers="0").start(network(), {"command": "a", "model": "Net"})
    before = dict(tracker.manifest)
    Observer(probe(), {"second": counting}, tracker, layers="1").start(network(), {"command": "b", "model": "Other"}, resume=True)
    assert [layer["name"] for layer in before["layers"]] == ["0"]  # type: ignore[attr-defined]
    assert [layer["name"] for layer in tracker.manifest["layers"]] == ["0", "1"]  # type: ignore[attr-defined]
    assert tracker.manifest["analyses"] == ["first", "second"]
    changed = {key for key in before if tracker.manifest[key] != before[key]}
    assert changed == {"layers", "analyses", "history", "asked"}
    assert [(entry["analyses"], entry["command"]) for entry in tracker.manifest["history"]] == [(["first"], "a"), (["second"], "b")]  # type: ignore[attr-defined]


def test_findings_that_cannot_be_read_back_cost_no_analysis(caplog: pytest.LogCaptureFixture) -> None:
    class Forgetful(MemoryTracker):
        def latest(self, analysis: str, before: int) -> Findings | None:
            raise ConnectionError("gone")

    tracker = Forgetful()
    tracker.log("counting", 0, Findings({"calls": np.array(7)}))
    observer = Observer(probe(), [counting], tracker)
    observer.start(network(), resume=True)
    for step in (1, 2):
        observer.observe(network(), step)
    assert [int(found.arrays["calls"]) for found in tracker.findings["counting"].values()] == [7, 1, 2]
    assert tracker.failures == [{"what": "tracker, reading counting", "message": "ConnectionError: gone"}]


def test_what_an_analysis_can_know_before_training_is_said_then() -> None:
    seen: dict[str, object] = {}

    def check(snapshot: Snapshot, **options: object) -> None:
        seen.update(options)
        if options.get("limit") == 0:
            raise ValueError("limit is 0")

    @checked_by(check)
    def limited(snapshot: Snapshot, previous: Findings | None, *, limit: int = 1, depth: int = 0) -> Findings:
        return Findings()

    Observer(probe(), [limited], MemoryTracker()).start(network())
    assert seen == {"limit": 1, "depth": 0}
    Observer(probe(), [partial(partial(limited, limit=3, depth=1), limit=2)], MemoryTracker()).start(network())
    assert seen == {"limit": 2, "depth": 1}
    with pytest.raises(ValueError, match="limit is 0"):
        Observer(probe(), [partial(limited, limit=0)], MemoryTracker()).start(network())


def test_an_option_that_an_analysis_has_not_got_is_told_of_before_training() -> None:
    def limited(snapshot: Snapshot, previous: Findings | None, *, limit: int = 1, depth: int = 0) -> Findings:
        return Findings()

    def anything(snapshot: Snapshot, previous: Findings | None, **options: object) -> Findings:
        return Findings()

    tracker = MemoryTracker()
    with pytest.raises(ValueError, match=r"analysis 'mine' was given limits; its options are \['limit', 'depth'\]"):
        Observer(probe(), {"mine": partial(limited, limits=3)}, tracker).start(network())
    assert not tracker.manifest
    Observer(probe(), {"mine": partial(limited, limit=3), "any": partial(anything, limits=3)}, MemoryTracker()).start(network())


def test_after_a_failure_the_last_good_findings_are_the_previous_ones() -> None:
    def sometimes(snapshot: Snapshot, previous: Findings | None) -> Findings:
        if snapshot.step == 1:
            raise RuntimeError("not now")
        return counting(snapshot, previous)

    tracker = MemoryTracker()
    observer = Observer(probe(), {"sometimes": sometimes}, tracker)
    observer.start(network())
    for step in range(3):
        observer.observe(network(), step)
    assert {step: int(found.arrays["calls"]) for step, found in tracker.findings["sometimes"].items()} == {0: 1, 2: 2}


def test_the_default_analyses_find_the_same_twice_byte_for_byte() -> None:
    pictures = []
    for _ in range(2):
        tracker = MemoryTracker()
        observer = Observer(probe(), default_analyses(probe()), tracker, strict=True)
        observer.start(network())
        for step in (0, 1):
            observer.observe(network(step), step)
        found = [found for name, by_step in sorted(tracker.findings.items()) if name != "cost" for found in by_step.values()]
        pictures.append([(name, a.tobytes()) for one in found for name, a in [*one.arrays.items(), *one.images.items()]])
    assert pictures[0] == pictures[1]
    assert any(name == "storyboard" for name, _ in pictures[0])


def test_observing_changes_nothing_of_what_the_same_step_finds_alone() -> None:
    together, alone = MemoryTracker(), MemoryTracker()
    for tracker, analyses in ((together, default_analyses(probe())), (alone, {"saliency": default_analyses(probe())["saliency"]})):
        observer = Observer(probe(), analyses, tracker, strict=True)
        observer.start(network())
        observer.observe(network(), 0)
    a, b = together.findings["saliency"][0], alone.findings["saliency"][0]
    for name in a.arrays:
        np.testing.assert_array_equal(a.arrays[name], b.arrays[name])


def test_costs_add_up_to_less_than_the_observation_and_overhead_is_their_share() -> None:
    tracker = MemoryTracker()
    observer = Observer(probe(), default_analyses(probe()), tracker)
    observer.start(network())
    began = time.perf_counter()
    observer.observe(network(), 0)
    time.sleep(0.2)
    observer.observe(network(), 1)
    elapsed = time.perf_counter() - began
    cost = tracker.findings["cost"][1].scalars
    parts = sum(cost[f"cost/{name}"] for name in ("nap", "topomap", "saliency", "predictions", "forward"))
    assert 0 < parts <= cost["cost/observation"]
    both = cost["cost/observation"] + tracker.findings["cost"][0].scalars["cost/observation"]
    # Between the two nothing happened but a sleep of 0.2 s, which the operating system may draw out.
    assert both / elapsed < cost["cost/overhead"] <= both / 0.2
    assert "cost/overhead" not in tracker.findings["cost"][0].scalars  # of the time before any training it is no share


def test_a_failure_is_said_once_however_often_it_happens(caplog: pytest.LogCaptureFixture) -> None:
    tracker = MemoryTracker()
    observer = Observer(probe(), {"broken": partial(_broken)}, tracker)
    observer.start(network())
    with caplog.at_level(logging.WARNING):
        for step in range(3):
            observer.observe(network(), step)
    assert len(caplog.records) == 1
    assert tracker.failures == [{"what": "broken", "message": "RuntimeError: no"}]


def _broken(snapshot: Snapshot, previous: Findings | None) -> Findings:
    raise RuntimeError("no")


def test_what_is_no_findings_is_refused() -> None:
    wrong: Analysis = lambda snapshot, previous: {"a": 1}  # type: ignore[assignment, return-value]  # noqa: E731
    observer = Observer(probe(), {"wrong": wrong}, MemoryTracker(), strict=True)
    observer.start(network())
    with pytest.raises(TypeError, match=r"analysis 'wrong' returned a dict; expected netlapse.types.Findings"):
        observer.observe(network(), 0)


@pytest.mark.parametrize("name", ["a/b", "", "cost", "training", "../x", "a b"])
def test_a_name_that_is_no_file_name_or_is_taken_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="analyses cannot be named"):
        Observer(probe(), {name: counting}, MemoryTracker())


def test_the_same_function_twice_needs_two_names() -> None:
    with pytest.raises(ValueError, match=r"analyses cannot be named \['counting', 'counting'\]"):
        Observer(probe(), [counting, partial(counting)], MemoryTracker())


def test_the_page_is_drawn_at_the_end_also_when_analyses_failed() -> None:
    tracker = MemoryTracker()
    observer = Observer(probe(), {"counting": counting, "broken": _broken}, tracker)
    observer.start(network())
    observer.observe(network(), 0)
    observer.finish(failed=True)
    assert "RuntimeError: no" in tracker.documents["timelapse.html"]
    assert tracker.manifest["failed"] is True


def test_the_manifest_says_what_was_observed() -> None:
    tracker = MemoryTracker()
    Observer(probe(), [counting], tracker, layers="ReLU").start(network(), {"command": "here"})
    assert tracker.manifest["layers"] == [{"name": "2", "kind": "ReLU", "shape": [6], "role": "activation"}]
    assert tracker.manifest["probe"] == {"inputs": 9, "shape": [4, 4, 1], "hash": probe().hash, "grouping": "by_label", "batch_size": 64}
    assert tracker.manifest["command"] == "here"
    assert "torch" in tracker.manifest["versions"]  # type: ignore[operator]
    assert tracker.manifest["asked"] == {"counting": {"analysis": "counting", "layers": "2", "grouping": "by_label"}}
    kept = tracker.read("probe.npz")
    assert kept is not None
    assert from_bytes(kept).hash == probe().hash
