"""When to observe."""

from __future__ import annotations

import pickle

import pytest

from netlapse.schedule import Clock, Schedule, at, every_epoch, every_steps, log_spaced


def due(schedule: Schedule, until: int) -> list[int]:
    return [step for step in range(until) if schedule.due(step)]


def test_every_epoch_is_step_0_and_every_nth() -> None:
    assert due(every_epoch(), 4) == [0, 1, 2, 3]
    assert due(every_epoch(3), 10) == [0, 3, 6, 9]
    assert every_epoch(3).unit == "epoch"


def test_every_steps_counts_optimiser_steps() -> None:
    assert due(every_steps(100), 301) == [0, 100, 200, 300]
    assert every_steps(100).unit == "step"


def test_at_is_due_at_the_listed_steps_and_no_others() -> None:
    assert due(at([7, 0, 3]), 20) == [0, 3, 7]
    assert at([1]).unit == "epoch"
    assert at([1], unit="step").unit == "step"


def test_at_does_not_follow_changes_to_the_list_it_was_given() -> None:
    steps = [1]
    schedule = at(steps)
    steps.append(2)
    assert due(schedule, 5) == [1]


def test_log_spaced_doubles() -> None:
    assert due(log_spaced(), 1025) == [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]
    assert log_spaced().unit == "step"
    assert log_spaced(unit="epoch").unit == "epoch"


def test_log_spaced_has_as_many_steps_per_octave_as_asked() -> None:
    for per_octave in (1, 2, 3, 5):
        steps = due(log_spaced(per_octave), 4096)
        assert sum(2**10 < step <= 2**11 for step in steps) == per_octave
        assert {0, 1, 2, 4, 2048} <= set(steps)
    assert due(log_spaced(2), 40) == [0, 1, 2, 3, 4, 6, 8, 11, 16, 23, 32]


@pytest.mark.parametrize(
    "schedule", [every_epoch(2), every_steps(5), at([1, 3]), log_spaced(2)], ids=["every_epoch", "every_steps", "at", "log_spaced"]
)
def test_a_schedule_survives_pickling_as_a_trainer_that_spawns_demands(schedule: Schedule) -> None:
    copy = pickle.loads(pickle.dumps(schedule))
    assert copy.unit == schedule.unit
    assert due(copy, 50) == due(schedule, 50)
    assert type(schedule.due(1)) is bool


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "2", None])
def test_counts_that_are_no_positive_integer_are_refused(value: object) -> None:
    for make, name in ((every_epoch, "n"), (every_steps, "n"), (log_spaced, "per_octave")):
        with pytest.raises(ValueError, match=rf"schedule: {name} is .*; expected an integer of at least 1"):
            make(value)  # type: ignore[operator]


@pytest.mark.parametrize("steps", [[], [-1, 2], [0.5], [1, 2.5]])
def test_listed_steps_that_cannot_be_are_refused(steps: list[float]) -> None:
    with pytest.raises(ValueError, match=r"schedule: the listed steps are \[.*\]; expected at least one integer, none negative"):
        at(steps)  # type: ignore[arg-type]


def test_unknown_units_are_refused() -> None:
    for make in (lambda: at([1], unit="batch"), lambda: log_spaced(unit="batch")):  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="schedule: unit is 'batch'; allowed are 'epoch' and 'step'"):
            make()


def test_a_clock_that_watches_strikes_at_the_next_steps_due_or_not_and_then_as_before() -> None:
    clock = Clock(every_steps(10))
    struck = []
    for step in range(41):
        if clock.strikes("step", step):
            struck.append(step)
            if step == 20:
                clock.watch(3)
    assert struck == [0, 10, 20, 21, 22, 23, 30, 40]
