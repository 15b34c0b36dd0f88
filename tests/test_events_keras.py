"""Laws of stopping a Keras training by events: after the step that is recorded, and never unless asked."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from netlapse.callbacks.keras import ObserverCallback, steps_taken
from netlapse.schedule import at, every_steps
from netlapse.tracking.folder import FolderTracker
from netlapse.tracking.memory import MemoryTracker
from tests.keras_training import data, probe, train
from tests.test_events import noticing


def stopping(tracker: Any, **options: Any) -> ObserverCallback:
    analyses = {"bell": partial(noticing, at=(1, 2), kind="change"), "other": partial(noticing, at=(0,))}
    return ObserverCallback(probe(), analyses, tracker=tracker, **options)


def test_a_training_ends_after_the_step_at_which_an_event_of_a_chosen_kind_began_and_the_record_says_why() -> None:
    tracker = MemoryTracker()
    model = train([stopping(tracker, stop_on=["bell/*"])], epochs=4)
    assert len(model.history.epoch) == 1
    assert {name: set(found) for name, found in tracker.findings.items()} == {"bell": {0, 1}, "other": {0, 1}, "training": {1}, "cost": {0, 1}}
    assert tracker.manifest["stopped"] == "by bell/change at step 1: it rang at 1"
    assert tracker.manifest["failed"] is False


def test_unless_asked_no_event_ends_a_training() -> None:
    tracker = MemoryTracker()
    assert len(train([stopping(tracker)], epochs=3).history.epoch) == 3
    assert "stopped" not in tracker.manifest


def test_at_the_first_step_keras_trains_one_more_batch_which_is_recorded_as_no_epoch() -> None:
    tracker = MemoryTracker()
    model = train([stopping(tracker, stop_on=["other/alarm"])], epochs=3)
    assert steps_taken(model) == 1
    assert tracker.recording().steps == (0,)


def test_where_steps_are_counted_a_training_ends_amid_an_epoch() -> None:
    tracker = MemoryTracker()
    model = train([stopping(tracker, stop_on=["bell/change"], schedule=every_steps(1))], epochs=3)
    assert steps_taken(model) == 1
    assert tracker.recording().steps == (0, 1)


def test_a_stopped_training_may_go_on() -> None:
    tracker = MemoryTracker()
    model = train([stopping(tracker, stop_on=["bell/change"])], epochs=4)
    model.fit(*data(), batch_size=8, initial_epoch=1, epochs=5, callbacks=[stopping(tracker, stop_on=["bell/change"])], verbose=0)
    assert tracker.recording().steps == (0, 1, 2)  # the next one ends it again
    assert tracker.manifest["stopped"] == "by bell/change at step 2: it rang at 2"


def test_events_that_nobody_tells_of_are_refused_before_the_first_batch() -> None:
    with pytest.raises(ValueError, match=re.escape("no event is of the kinds ['fairness/gap']; the analyses ['bell', 'other'] tell of")):
        train([stopping(MemoryTracker(), stop_on=["fairness/gap"])])


# ---- what follows an event -------------------------------------------------------------------------------------------


def test_after_an_event_steps_are_observed_that_are_not_due_and_the_record_says_which() -> None:
    tracker = MemoryTracker()
    train([stopping(tracker, schedule=at([0, 2, 9], "step"), after_event=2)], epochs=3)
    assert set(tracker.findings["bell"]) == {0, 1, 2, 3, 4, 9}  # rung at 0, 1 and 2
    assert tracker.manifest["added"] == {"after_event": 2, "steps": [1, 3, 4]}


def test_a_checkpoint_is_kept_of_the_steps_of_chosen_events_and_of_no_others(tmp_path: Path) -> None:
    tracker = FolderTracker(tmp_path / "record")
    train([stopping(tracker, save_on=["bell/change"])], epochs=4)
    assert [path.name for path in sorted(tracker.checkpoint_folder.iterdir())] == ["step_00000001.keras", "step_00000002.keras"]
    assert list(tracker.manifest["checkpoints"]) == ["1", "2"]  # type: ignore[call-overload]
