"""Laws of events: told once, wherever they are read; the record, its tag and its page say what the findings say; a training stops by them cleanly."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from torch import nn

import netlapse
from netlapse.backends.torch import TorchNetwork
from netlapse.callbacks.lightning import ObserverCallback
from netlapse.events import Event, begun, chosen, events_in, in_a_tag, kinds_of, listed, telling, told
from netlapse.observer import Observer
from netlapse.recording import Recording
from netlapse.report import page
from netlapse.schedule import every_epoch, every_steps
from netlapse.tracking.folder import FolderTracker, packed, unpacked
from netlapse.tracking.memory import MemoryTracker
from netlapse.tracking.mlflow import MlflowTracker
from netlapse.types import Findings, ProbeSet, Snapshot
from tests.training import probe as digits
from tests.training import train

sys.path.insert(0, str(Path(__file__).parent))
from browser import needs_browser, opened
from page_recording import EVENTS, made_up_run


def network() -> TorchNetwork:
    torch.manual_seed(0)
    return TorchNetwork(nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 3)))


def probe() -> ProbeSet:
    return ProbeSet(np.random.default_rng(0).random((9, 4, 4, 1), np.float32), np.arange(9) % 3)


@telling("alarm", "change")
def noticing(snapshot: Snapshot, previous: Findings | None, *, at: Sequence[int] = (2,), kind: str = "alarm") -> Findings:
    """An alarm at chosen steps, told of from then on."""
    events = list(events_in(previous))
    if snapshot.step in at:
        events.append(Event(snapshot.step, kind, "side", "1", f"it rang at {snapshot.step}"))
    return Findings(told(events))


def rang(step: int) -> Event:
    return Event(step, "alarm", "side", "1", f"it rang at {step}")


def observed(tracker: Any, steps: Sequence[int], *, resume: bool = False, **options: Any) -> None:
    observer = Observer(probe(), {"bell": partial(noticing, **options)}, tracker, strict=True, replaces=True)
    observer.start(network(), resume=resume)
    for step in steps:
        observer.observe(network(), step)


# ---- in findings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("events", [(), (rang(3),), (rang(3), Event(1, "change", "", "", "“anything”, also\nthis"))])
def test_events_come_out_of_a_file_of_findings_as_they_went_in(events: tuple[Event, ...]) -> None:
    assert events_in(unpacked(packed(Findings(told(events))))) == events


def test_findings_that_tell_of_no_events_have_none() -> None:
    assert events_in(None) == events_in(Findings({"events": np.array(["mine"])})) == ()


def test_what_begins_is_what_the_step_before_did_not_tell_of() -> None:
    first, second = Findings(told([rang(1)])), Findings(told([rang(1), rang(4)]))
    assert begun(first, None) == (rang(1),)
    assert begun(second, first) == (rang(4),)
    assert begun(second, second) == ()


# ---- in a record -----------------------------------------------------------------------------------------------------


def test_an_event_is_said_once_in_the_log_and_named_in_the_manifest(caplog: pytest.LogCaptureFixture) -> None:
    tracker = MemoryTracker()
    with caplog.at_level(logging.WARNING):
        observed(tracker, range(5), at=(1, 3))
    assert [record.message for record in caplog.records] == ["netlapse: bell, step 1: it rang at 1", "netlapse: bell, step 3: it rang at 3"]
    assert tracker.manifest["events"] == {"bell": listed([rang(1), rang(3)])}
    assert tracker.recording().events == (("bell", rang(1)), ("bell", rang(3)))


def test_that_there_are_none_so_far_is_named_only_where_an_analysis_would_tell() -> None:
    tracker = MemoryTracker()
    observed(tracker, range(2), at=())
    assert tracker.manifest["events"] == {"bell": []}
    silent = MemoryTracker()
    observer = Observer(probe(), {"silent": lambda snapshot, previous: Findings()}, silent, strict=True)
    observer.start(network())
    observer.observe(network(), 0)
    assert "events" not in silent.manifest


def test_a_training_that_goes_on_says_nothing_twice(caplog: pytest.LogCaptureFixture) -> None:
    tracker = MemoryTracker()
    observed(tracker, range(3), at=(1, 4))
    caplog.clear()
    observed(tracker, range(1, 6), resume=True, at=(1, 4))  # the step at which it rang once more, as after a kill
    assert [record.message for record in caplog.records] == ["netlapse: bell, step 4: it rang at 4"]
    assert tracker.recording().events == (("bell", rang(1)), ("bell", rang(4)))


def test_the_record_names_what_its_last_findings_tell_of_also_where_they_are_replaced() -> None:
    tracker = MemoryTracker()
    observed(tracker, range(5), at=(1, 3))
    observed(tracker, range(4), resume=True, at=(2,))
    assert tracker.manifest["events"] == {"bell": listed([rang(1), rang(3)])}  # of step 4, until that is found anew
    observed(tracker, [4], resume=True, at=(2,))
    assert tracker.manifest["events"] == {"bell": listed([rang(2)])}
    assert tracker.recording().events == (("bell", rang(2)),)


def test_events_are_in_the_order_of_their_steps_whoever_tells_of_them() -> None:
    findings = {"b": {3: Findings(told([rang(2), rang(1)]))}, "a": {0: Findings(told([rang(0)])), 5: Findings(told([rang(2)]))}}
    assert Recording({}, findings).events == (("b", rang(1)), ("a", rang(2)), ("b", rang(2)))


def test_what_follows_an_event_follows_once_and_cannot_end_an_observation() -> None:
    heard: list[tuple[str, Event]] = []
    tracker = MemoryTracker()

    def listen(name: str, event: Event) -> None:
        heard.append((name, event))
        raise LookupError("no luck")

    observer = Observer(probe(), {"bell": partial(noticing, at=(1,))}, tracker, on_event=listen)
    observer.start(network())
    for step in range(4):
        observer.observe(network(), step)
    assert heard == [("bell", rang(1))]
    assert tracker.failures == [{"what": "what follows an event", "message": "LookupError: no luck"}]


def test_a_folder_names_them_in_its_manifest_and_gives_them_back(tmp_path: Path) -> None:
    observed(FolderTracker(tmp_path), range(4), at=(1,))
    again = FolderTracker(tmp_path)
    assert again.manifest["events"] == {"bell": listed([rang(1)])}
    assert again.recording().events == (("bell", rang(1)),)


def test_the_runs_tag_says_what_the_record_does_and_follows_it(own_place: Path) -> None:
    def tag() -> str | None:
        return MlflowClient(tracker.uri).get_run(tracker.run_id).data.tags.get("netlapse.events")

    tracker = MlflowTracker()
    observed(tracker, range(3), at=())
    tracker.finish()
    assert tag() == "none"
    for at in ((0, 2), (0, 2), (1,)):
        tracker = MlflowTracker(tracker.run_id, uri=tracker.uri)
        observed(tracker, range(3), resume=True, at=at)
        tracker.finish()
        assert tag() == "\n".join(f"step {step}, bell/alarm: it rang at {step}" for step in at)
    assert netlapse.load(tracker.run_id).events == (("bell", rang(1)),)


def test_a_tag_tells_by_step_and_not_by_analysis() -> None:
    assert in_a_tag({"b": listed([rang(10)]), "a": listed([rang(11), rang(2)])}).splitlines() == [
        "step 2, a/alarm: it rang at 2",
        "step 10, b/alarm: it rang at 10",
        "step 11, a/alarm: it rang at 11",
    ]


# ---- choosing them ---------------------------------------------------------------------------------------------------


def test_kinds_are_chosen_by_name_or_pattern_among_those_the_analyses_tell_of() -> None:
    analyses = {"bell": partial(partial(noticing, at=(1,)), kind="change"), "silent": lambda snapshot, previous: Findings()}
    assert kinds_of(analyses) == ("bell/alarm", "bell/change")
    assert chosen(["bell/alarm"], analyses) == {"bell/alarm"}
    assert chosen(["bell/*"], analyses) == chosen(["*"], analyses) == {"bell/alarm", "bell/change"}
    assert chosen([], analyses) == frozenset()
    with pytest.raises(
        ValueError, match=re.escape("no event is of the kinds ['bell/ring', 'silent/*']; the analyses ['bell', 'silent'] tell of ['bell/")
    ):
        chosen(["bell/alarm", "bell/ring", "silent/*"], analyses)
    with pytest.raises(ValueError, match=r"chosen by the string 'bell/\*'; expected a list"):
        chosen("bell/*", analyses)


# ---- stopping a training ---------------------------------------------------------------------------------------------


def stopping(tracker: Any, **options: Any) -> ObserverCallback:
    analyses = {"bell": partial(noticing, at=(1, 2), kind="change"), "other": partial(noticing, at=(0, 1))}
    return ObserverCallback(digits(), analyses, tracker=tracker, **options)


def test_a_training_ends_after_the_step_at_which_an_event_of_a_chosen_kind_began_and_the_record_says_why() -> None:
    tracker = MemoryTracker()
    _, trainer = train([stopping(tracker, stop_on=["bell/*"])], epochs=4)
    assert trainer.current_epoch == 1
    assert {name: set(found) for name, found in tracker.findings.items()} == {
        "bell": {0, 1},
        "other": {0, 1},
        "training": {1},
        "cost": {0, 1},
    }
    assert tracker.manifest["stopped"] == "by bell/change at step 1: it rang at 1"
    assert tracker.manifest["failed"] is False
    assert "The training was stopped" in page(tracker.recording())


def test_unless_asked_no_event_ends_a_training() -> None:
    tracker = MemoryTracker()
    _, trainer = train([stopping(tracker)], epochs=3)
    assert trainer.current_epoch == 3
    assert "stopped" not in tracker.manifest


def test_an_event_at_the_first_step_ends_a_training_before_its_first_batch() -> None:
    tracker = MemoryTracker()
    _, trainer = train([stopping(tracker, stop_on=["other/alarm"], schedule=every_epoch())], epochs=3, min_epochs=0)
    assert trainer.global_step == 0
    assert tracker.recording().steps == (0,)


def test_where_steps_are_counted_a_training_ends_amid_an_epoch() -> None:
    tracker = MemoryTracker()
    _, trainer = train([stopping(tracker, stop_on=["bell/change"], schedule=every_steps(1))], epochs=3, min_epochs=0)
    assert trainer.global_step == 1
    assert tracker.recording().steps == (0, 1)


def test_a_stopped_training_may_go_on(tmp_path: Path) -> None:
    def observer() -> ObserverCallback:
        return stopping(FolderTracker(tmp_path / "record"), stop_on=["bell/change"])

    module, trainer = train([observer()], epochs=4)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    again = observer()
    from pytorch_lightning import Trainer
    from torch.utils.data import DataLoader

    from tests.training import Digits

    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "enable_model_summary": False}
    second = Trainer(max_epochs=4, callbacks=[again], **quiet)
    second.fit(module, DataLoader(Digits(), 8), ckpt_path=tmp_path / "last.ckpt")
    assert second.current_epoch == 2  # the next one ends it again
    assert FolderTracker(tmp_path / "record").manifest["stopped"] == "by bell/change at step 2: it rang at 2"


def test_events_that_nobody_tells_of_are_refused_before_the_first_batch() -> None:
    with pytest.raises(ValueError, match=re.escape("no event is of the kinds ['fairness/gap']; the analyses ['bell', 'other'] tell of")):
        train([stopping(MemoryTracker(), stop_on=["fairness/gap"])])


# ---- in the page -----------------------------------------------------------------------------------------------------


@needs_browser
def test_the_page_lists_every_event_and_leads_to_its_step_and_layer_by_pointer_and_keyboard(tmp_path: Path) -> None:
    run = made_up_run(steps=9, layers={"conv": 16, "fc1": 8})
    assert [event for _, event in run.events] == list(EVENTS)
    with opened(page(run), tmp_path) as tab:

        def step() -> str | None:
            return tab.text(".step-now strong")

        items = "[...document.querySelectorAll('#happened li')].map((item) => item.textContent)"
        for item, event in zip(tab.tell(items), EVENTS, strict=True):
            assert f"epoch {event.step}" in item
            assert event.sentence in item
            assert f"notes / {event.kind}" in item
        names = tab.tell("[...document.querySelectorAll('#happened button')].map((button) => button.getAttribute('aria-label'))")
        assert names == [f"Go to epoch {event.step}: {event.sentence}" for event in EVENTS]
        for index, event in enumerate(EVENTS):
            tab.step(0)
            tab.focus(f"#happened li:nth-of-type({index + 1}) button")
            tab.key("Enter")
            assert step() == str(event.step)
            assert tab.text(".event-text") == event.sentence
            current = tab.tell("[...document.querySelectorAll('#happened li')].map((item) => item.getAttribute('aria-current'))")
            assert [place for place, said in enumerate(current) if said] == [index]
            tab.step(0)
            tab.press(f".events button:nth-of-type({index + 1})")
            assert step() == str(event.step)
        assert "fc1" in str(tab.text("#layers [aria-current], #layers [aria-pressed='true']"))


@needs_browser
def test_marks_lie_over_the_step_on_the_slider_and_on_every_curve_also_between_two_steps(tmp_path: Path) -> None:
    run = made_up_run(steps=5, layers={"conv": 16})
    between = {"notes": {4: Findings(told([Event(1, "a", "", "", "first"), Event(3, "b", "", "", "<b>second</b>")]))}}
    findings = {name: {step: found for step, found in by_step.items() if step != 3} for name, by_step in (dict(run.findings) | between).items()}
    with opened(page(Recording(run.manifest, findings)), tmp_path) as tab:
        slider = tab.tell(
            "(() => { const box = (node) => node.getBoundingClientRect(); const track = box(document.querySelector('.track'));"
            "const middle = (node) => box(node).left + box(node).width / 2;"
            "return [...document.querySelectorAll('.events button')].map((b) => (middle(b) - track.left - 9) / (track.width - 18)); })()"
        )
        np.testing.assert_allclose(slider, [1 / 3, 2.5 / 3], atol=0.002)
        places = tab.tell(
            "[...document.querySelectorAll('#curves .chart')].map((chart) => {"
            "const x = (path) => Number(/M([\\d.]+),[\\d.]+V/.exec(path.getAttribute('d'))[1]); const grid = chart.querySelector('.grid, .axis');"
            "const [low, high] = ['x1', 'x2'].map((end) => Number(grid.getAttribute(end)));"
            "return [...chart.querySelectorAll('.event')].map((path) => (x(path) - low) / (high - low)); })"
        )
        assert len(places) > 3
        np.testing.assert_allclose(places, [[0.25, 0.75]] * len(places), atol=1e-6)
        tab.press(".events button:nth-of-type(2)")
        assert tab.text(".step-now strong") == "4"  # the first that was observed after it
        assert "<b>second</b>" in str(tab.text("#happened"))


@needs_browser
@pytest.mark.parametrize(("findings", "said"), [({}, "No analysis of this run tells of events."), (told([]), "Nothing that notes would tell of.")])
def test_where_nothing_happened_the_page_says_whether_anybody_would_have_told(findings: dict[str, Any], said: str, tmp_path: Path) -> None:
    run = made_up_run(steps=2, layers={"conv": 16})
    with opened(page(Recording(run.manifest, {**run.findings, "notes": {1: Findings(findings)}})), tmp_path) as tab:
        assert said in str(tab.text("#happened"))
        assert tab.tell("document.querySelectorAll('.events button, .chart .event').length") == 0
