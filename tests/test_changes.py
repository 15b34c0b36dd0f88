"""Laws of changes: a course goes on and nothing is told; what leaves it is told once, at its step, of its layer; nothing but findings is kept."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import theilslopes
from torch import nn

import netlapse
from netlapse.analysis.changes import Window, apart, beyond_level, beyond_line, beyond_others, changes, looks, rank, standing, told_apart
from netlapse.analysis.changes.detection import MOST
from netlapse.analysis.saliency import gradient
from netlapse.backends.torch import TorchNetwork
from netlapse.callbacks.lightning import ObserverCallback
from netlapse.events import events_in, kinds_of
from netlapse.looks import look_here
from netlapse.observer import Observer
from netlapse.probe import by_label
from netlapse.recording import Recording
from netlapse.report import page
from netlapse.schedule import at, every_epoch, every_steps
from netlapse.statistics import GroupStatistics, group_statistics, kept_inputs
from netlapse.tables import tables
from netlapse.tracking.folder import FolderTracker, packed, unpacked
from netlapse.tracking.memory import MemoryTracker
from netlapse.types import Findings, Float64, ProbeSet, Snapshot
from tests.test_events import noticing
from tests.training import probe as digits
from tests.training import train

sys.path.insert(0, str(Path(__file__).parent))
from browser import needs_browser, opened
from page_recording import made_up_run

LAYERS = ("a", "b", "c")
PAIRS = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))

# ---- courses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("power", [0.0, -0.7, -1.5])
def test_a_power_of_the_step_goes_on_as_it_did_and_what_is_beyond_it_is_told_in_full(power: float) -> None:
    times = np.log(np.arange(1, 9) - 0.5)
    values = 3 + power * times
    assert beyond_line(times, values) == pytest.approx((0, 0), abs=1e-12)
    assert beyond_line(times, values + np.log(5) * (np.arange(8) == 7)) == pytest.approx((np.log(5), 0), abs=1e-12)


def test_a_line_is_theils_and_its_noise_the_median_distance() -> None:
    rng = np.random.default_rng(0)
    times = np.sort(rng.random(9))
    values = -0.8 * times + 0.05 * rng.normal(size=9)
    slope, _, *_ = theilslopes(values[:-1], times[:-1])
    rest = values[:-1] - slope * times[:-1]
    expected = values[-1] - slope * times[-1] - np.median(rest)
    assert beyond_line(times, values) == pytest.approx((expected, 1.4826 * np.median(np.abs(rest - np.median(rest)))))


def test_one_odd_checkpoint_moves_neither_line_nor_level() -> None:
    times, odd = np.log(np.arange(1, 10) - 0.5), 5.0 * (np.arange(9) == 5)
    assert beyond_line(times, -times + odd)[0] == pytest.approx(0, abs=1e-12)
    assert beyond_level(np.full(9, 2.0) + odd)[0] == 0


def test_a_line_does_not_rise_and_a_level_goes_on_from_the_last_four() -> None:
    assert beyond_line(np.arange(6.0), np.arange(6.0))[0] == 5 - 2  # from the median of 0 to 4
    assert beyond_level(np.array([9.0, 9, 1, 2, 3, 4, 7])) == pytest.approx((7 - 2.5, 0))  # most steps between them are of 1


@pytest.mark.parametrize("values", [[1.0, 2, 3, 4], [1, np.nan, 2, 3, 9], [1, 2, 3, 4, 5, np.inf]])
def test_of_fewer_than_four_numbers_and_of_none_nothing_is_known(values: list[float]) -> None:
    assert np.isnan(beyond_level(np.array(values))).all()
    assert np.isnan(beyond_line(np.arange(float(len(values))), np.array(values))).all()


def test_what_all_pairs_do_is_no_pairs_own() -> None:
    rows = np.random.default_rng(0).normal(size=(7, 15)) * 0.01
    moved, noise = beyond_others(rows)
    own = rows - np.median(rows[:-1], axis=0)
    own -= np.median(own, axis=1, keepdims=True)
    np.testing.assert_allclose(moved, own[-1], atol=1e-12)
    assert noise == pytest.approx(1.4826 * np.median(np.abs(own[:-1])))
    np.testing.assert_allclose(beyond_others(rows + 3 * (np.arange(7) == 6)[:, None])[0], moved, atol=1e-12)
    rows[-1, 4] -= 2
    assert beyond_others(rows)[0][4] == pytest.approx(moved[4] - 2, abs=0.01)
    rows[2, 3] = np.nan
    assert np.flatnonzero(np.isnan(beyond_others(rows)[0])).tolist() == [3]
    assert np.isnan(beyond_others(rows[:5])[0]).all()


# ---- numbers from inside ---------------------------------------------------------------------------------------------


def test_groups_on_a_line_differ_in_one_direction_and_the_corners_of_a_simplex_in_one_less_than_there_are() -> None:
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    assert rank(np.outer(rng.normal(size=5), rng.normal(size=6)) + 3) == pytest.approx(1)
    assert rank(np.eye(6)[:5]) == pytest.approx(4)
    assert rank(7 * np.eye(6)[:5] @ turn + 2) == pytest.approx(4)
    assert rank(np.vstack([np.eye(6)[:5], np.full((1, 6), np.nan)])) == pytest.approx(4)  # a group without inputs is none
    assert np.isnan(rank(np.ones((4, 3))))


def shown(n: int = 60, attributes: Mapping[str, Any] | None = None) -> tuple[TorchNetwork, ProbeSet]:
    rng = np.random.default_rng(0)
    return TorchNetwork(nn.Sequential(nn.Identity(), nn.Identity())), ProbeSet(
        rng.normal(size=(n, 5)).astype(np.float32), np.arange(n) % 4, attributes=dict(attributes or {})
    )


def statistics(network: TorchNetwork, probe: ProbeSet) -> GroupStatistics:
    return group_statistics(network, probe, by_label, ["0"])


def test_groups_are_apart_by_the_distance_of_their_means_over_the_spread_within_them() -> None:
    network, probe = shown()
    x, y = probe.inputs.astype(np.float64), probe.labels
    spread = np.mean([x[y == k].var(axis=0, ddof=1) for k in range(4)], axis=0).sum()
    expected = [np.linalg.norm(x[y == i].mean(axis=0) - x[y == j].mean(axis=0)) / np.sqrt(spread) for i in range(4) for j in range(i + 1, 4)]
    np.testing.assert_allclose(apart(statistics(network, probe), "0"), expected, rtol=1e-5)


def test_what_is_told_of_an_attribute_is_what_the_class_does_not_tell() -> None:
    colour = np.where(np.random.default_rng(1).random(60) < 0.5, "red", "blue")
    _, probe = shown(attributes={"colour": colour, "class": (np.arange(60) % 4).astype(str)})
    kept, of = probe.inputs[kept_inputs(probe.labels)], probe.labels[:, None]
    by_class, by_colour = 5.0 * of, 3.0 * (colour == "red")[:, None]
    assert told_apart((kept + by_class).astype(np.float32), probe, "colour") == pytest.approx(told_apart(kept, probe, "colour"), abs=1e-5)
    assert told_apart(kept, probe, "class") == pytest.approx(0, abs=1e-6)
    assert told_apart((kept + by_colour).astype(np.float32), probe, "colour") > 0.5 > 0.2 > told_apart(kept, probe, "colour")
    rows = kept - np.array([kept[probe.labels == k].mean(axis=0) for k in probe.labels])
    left = sum(np.square(rows[colour == c] - rows[colour == c].mean(axis=0)).sum() for c in ("red", "blue"))
    assert told_apart(kept, probe, "colour") == pytest.approx(1 - left / np.square(rows).sum(), abs=1e-5)
    assert np.isnan(told_apart(np.ones_like(kept), probe, "colour"))


# ---- what leaves its course ------------------------------------------------------------------------------------------


def window(w: int = 10, *, steps: Any = None, drifts: Float64 | None = None, **last: Any) -> Window:
    """Three layers that go on as they did, with a little noise, but for the last values given: (l,) of a number, or of `apart`, `colour`."""
    rng = np.random.default_rng(3)
    steps = np.arange(w) + 2 if steps is None else np.asarray(steps)
    quiet = {"separability": 0.7, "scale": 2.0, "rank": 5.0, "dead": 0.1}
    numbers = {name: level * np.exp(0.01 * rng.normal(size=(w, 3))) for name, level in quiet.items()}
    numbers["drift"] = 0.8 * steps[:, None] ** -0.7 * np.exp(0.05 * rng.normal(size=(w, 3))) if drifts is None else drifts
    for name, values in last.items():
        if name in numbers:
            numbers[name][-1] = np.where(np.isnan(values), numbers[name][-1], values)
    pairs = {layer: 3 * np.exp(0.02 * rng.normal(size=(w, 6))) for layer in LAYERS}
    for layer, pair in last.get("apart", {}).items():
        pairs[layer][-1, pair] *= 0.4
    colour = 0.3 * np.exp(0.01 * rng.normal(size=(w, 3)))
    colour[-1] = last.get("colour", colour[-1])
    return Window(steps, LAYERS, ("0", "1", "2", "3"), (10, 20, 40), numbers, pairs, PAIRS, {"colour": colour}, np.full(w, np.nan))


def told_of(of: Window) -> list[tuple[str, str, str]]:
    return [look.subject for look in looks(of) if look.unusual >= 1]


KEEP = np.nan
LEFT = {
    "a jump of all": ({"drift": [2.0, 1.5, 1.8]}, [("change", "drift", "")]),
    "a jump of one": ({"drift": [KEEP, 1.5, KEEP]}, [("change", "drift", "b")]),
    "one frozen": ({"drift": [0, KEEP, KEEP]}, [("still", "", "a")]),
    "all frozen": ({"drift": [0, 0, 0]}, [("still", "", "")]),
    "one all but frozen": ({"drift": [KEEP, KEEP, 1e-4]}, [("still", "", "c")]),
    "units that died": ({"dead": [KEEP, KEEP, 0.5]}, [("collapse", "dead units", "c")]),
    "fewer directions": ({"rank": [KEEP, 1.2, KEEP]}, [("collapse", "rank", "b")]),
    "what varies no more": ({"scale": [0.01, KEEP, KEEP]}, [("collapse", "scale", "a")]),
    "groups told apart less": ({"separability": [KEEP, KEEP, 0.4]}, [("change", "separability", "c")]),
    "a pair that merged": ({"apart": {"c": 4}}, [("merging", "1, 3", "c")]),
    "an attribute that is taken up": ({"colour": [0.5, 0.45, 0.5]}, [("attribute", "colour", "")]),
}


def test_what_goes_on_as_it_did_is_no_event() -> None:
    assert told_of(window()) == []


@pytest.mark.parametrize("case", LEFT)
def test_what_leaves_its_course_is_told_of_its_layer_and_nothing_else_is(case: str) -> None:
    last, expected = LEFT[case]
    found = window(**last)
    assert told_of(found) == expected
    first = looks(found)[0]
    assert (first.step, first.subject) == (11, expected[0])
    assert 1 <= first.unusual <= MOST


def test_responses_that_are_numbers_no_more_are_told_of() -> None:
    broken = window()
    broken.numbers["scale"][-1, 1] = broken.numbers["drift"][-1, 1] = np.nan
    assert told_of(broken) == [("collapse", "numbers", "b")]


def test_a_falling_rate_and_a_better_network_are_no_events() -> None:
    falling = window(drift=[0.02, 0.02, 0.02])  # a tenth of its course, in all layers
    assert told_of(falling) == []
    assert told_of(window(separability=[0.9, 0.9, 0.9], rank=[9, 9, 9], dead=[0, 0, 0], colour=[0.1, 0.1, 0.1])) == []


def test_one_unit_of_a_small_layer_is_no_collapse() -> None:
    assert told_of(window(dead=[0.2, KEEP, KEEP])) == []  # of ten units
    assert told_of(window(dead=[0.3, KEEP, KEEP])) == [("collapse", "dead units", "a")]


@pytest.mark.parametrize("wander", [1.0, 0.5])
@pytest.mark.parametrize("steps", [[*range(1, 702, 100), 702, 703], [*range(1, 10), 109], [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]])
def test_how_far_apart_checkpoints_lie_makes_no_event(steps: list[int], wander: float) -> None:
    ways = np.diff([0, *steps])
    drifts = 0.1 * (ways**wander)[:, None] * np.array([1, 2, 0.5])
    for last in range(6, 11):
        assert told_of(window(last, steps=steps[:last], drifts=drifts[:last])) == []


def test_a_course_of_few_checkpoints_tells_of_nothing_but_standing_still() -> None:
    for w in range(1, 5):
        assert told_of(window(w, drift=[9.0, 9, 9], dead=[1, 1, 1], rank=[1, 1, 1], apart={"c": 4}, colour=[0.9, 0.9, 0.9])) == []


def test_a_plateau_begins_where_all_layers_stood_still_often_enough_and_not_again_while_they_do() -> None:
    drifts = np.full((10, 3), 0.01)
    drifts[[0, 5], [0, 1]] = np.nan, 0.5

    def begins(last: int) -> bool:
        of = window(last, drifts=drifts[:last])
        return bool(standing(of, profiles=0.02, maps=0.02, patience=3))

    assert [last - 1 for last in range(1, 11) if begins(last)] == [3, 8]


def test_a_plateau_of_maps_is_told_as_one() -> None:
    of = Window(np.arange(4), LAYERS, (), (1, 1, 1), window(4).numbers, {}, (), {}, np.array([np.nan, 0.04, 0.03, 0.04]))
    assert [look.about for look in standing(of, profiles=1e-9, maps=0.05, patience=3)] == ["saliency"]
    assert standing(of, profiles=1e-9, maps=0.04, patience=3) == []


# ---- the analysis ----------------------------------------------------------------------------------------------------


class Taught:
    """A small network whose layers drift, less and less; a layer that is frozen and those before it do not."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 3)
        )
        self.noise = torch.Generator().manual_seed(1)

    def step(self, number: int, frozen: int = 0) -> None:
        with torch.no_grad():
            for index in (1, 3, 5, 7):
                weight = self.model[index].weight
                weight += (index > frozen) * 0.02 * number**-0.5 * torch.randn(weight.shape, generator=self.noise)


def course(steps: int = 12, *, frozen_from: int = 99, killed_at: int = 99, through_a_file: bool = False, **options: Any) -> list[Findings]:
    taught, found = Taught(), None
    every: list[Findings] = []
    for step in range(steps):
        if step:
            taught.step(step, frozen=3 if step >= frozen_from else 0)
        if step == killed_at:
            with torch.no_grad():
                taught.model[3].bias[::3] = -100
        found = changes(Snapshot(TorchNetwork(taught.model), digits(24), step), found, **options)
        found = unpacked(packed(found)) if through_a_file else found
        every.append(found)
    return every


def test_layers_that_are_frozen_are_told_at_their_step_and_come_first_in_the_table() -> None:
    last = course(frozen_from=8)[-1]
    assert {(event.step, event.kind, event.layer) for event in events_in(last)} == {(8, "still", "2"), (8, "still", "4")}
    assert last.arrays["look_steps"][0] == 8
    assert last.arrays["look_layers"][0] in ("2", "4")


def test_units_that_are_killed_are_told_at_their_step_once() -> None:
    every = course(killed_at=7)
    assert [(e.step, e.layer) for e in events_in(every[-1]) if e.about == "dead units"] == [(7, "4")]
    dead = [round(20 * share) for share in every[7].arrays["window/dead"][:, every[7].arrays["layers"].tolist().index("4")]]
    more = dead[-1] - sorted(dead[-5:-1])[1]  # a unit may have done nothing before
    assert more >= 5
    assert f"{more} more of 20 units of 4" in next(e.sentence for e in events_in(every[-1]) if e.about == "dead units")
    assert every[7].scalars["changes/unusual/4"] >= 1
    assert every[6].scalars["changes/events"] == 0


def test_a_clean_course_tells_of_nothing() -> None:
    assert events_in(course()[-1]) == ()


def test_what_is_found_is_told_by_what_was_found_before_and_nothing_else() -> None:
    for straight, resumed in zip(course(killed_at=7, saliency=gradient), course(killed_at=7, saliency=gradient, through_a_file=True), strict=True):
        assert straight.scalars == pytest.approx(resumed.scalars, nan_ok=True, rel=0, abs=0)
        assert straight.arrays.keys() == resumed.arrays.keys()
        for name, values in straight.arrays.items():
            np.testing.assert_array_equal(values, resumed.arrays[name])


def test_the_table_is_ranked_holds_every_event_and_no_more_rows_than_asked() -> None:
    last = course(killed_at=7)[-1]
    unusual = last.arrays["look_unusual"]
    assert (np.diff(unusual) <= 0).all()
    assert {s for s, u in zip(last.arrays["look_sentences"], unusual, strict=True) if u >= 1} == {event.sentence for event in events_in(last)}
    assert len(course(killed_at=7, shown=1)[-1].arrays["look_steps"]) == 1


def test_sensitivity_counts_as_unusual_what_is_so_by_less() -> None:
    one, two = (course(killed_at=7, sensitivity=s)[7].scalars for s in (0.5, 0.25))
    for name, value in one.items():
        if name.startswith("changes/unusual") and 0 < value < MOST / 2:
            assert two[name] == pytest.approx(value / 2)
    assert events_in(course(killed_at=7, sensitivity=1e-3)[-1]) == ()


def test_findings_do_not_grow_with_the_steps() -> None:
    sizes = [len(packed(found)) for found in course(24, shown=0)]
    assert max(sizes[12:]) - min(sizes[12:]) < 2000


def test_of_other_layers_a_course_begins_anew_and_the_events_stay() -> None:
    before = course(8, killed_at=6)[-1]
    taught = Taught()
    found = changes(Snapshot(TorchNetwork(taught.model), digits(24), 8, layers=["2"]), before)
    assert found.arrays["steps"].tolist() == [8]
    assert events_in(found) == events_in(before) != ()


def test_maps_stand_still_where_the_network_does() -> None:
    taught, found = Taught(), None
    for step in range(5):
        found = changes(Snapshot(TorchNetwork(taught.model), digits(24), step), found, saliency=gradient, panel=6)
    assert found is not None
    assert found.scalars["changes/saliency"] == 0
    assert found.arrays["maps"].shape == (6, 8, 8)
    assert {(e.step, e.kind, e.about) for e in events_in(found)} == {(3, "plateau", "profiles"), (3, "plateau", "saliency")}


def test_live_and_offline_are_the_same_and_one_pass_is_made() -> None:
    live, offline = MemoryTracker(), MemoryTracker()
    passes = []
    for tracker, order in ((live, range(9)), (offline, range(9))):
        taught = Taught()
        observer = Observer(digits(24), {"changes": changes}, tracker, strict=True)
        network = TorchNetwork(taught.model)
        observer.start(network)
        made = network.responses
        network.responses = lambda *given, made=made: passes.append(1) or made(*given)  # type: ignore[method-assign,func-returns-value,misc]
        for step in order:
            if step:
                taught.step(step)
            observer.observe(network, step)
    assert len(passes) == 2 * 9
    for step in range(9):
        for name, values in live.findings["changes"][step].arrays.items():
            np.testing.assert_array_equal(values, offline.findings["changes"][step].arrays[name])


def test_its_kinds_can_be_chosen() -> None:
    known = kinds_of({"mine": partial(changes, patience=2)})
    assert known == tuple(f"mine/{kind}" for kind in ("change", "still", "collapse", "merging", "attribute", "plateau"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sensitivity": 0}, "changes was given sensitivity=0"),
        ({"patience": 10}, "a patience from 1 to 9"),
        ({"plateau": -1.0}, "plateaus of at least 0"),
        ({"attributes": ["hue"]}, "changes was asked for the attributes ['hue']; expected a list of some of the probe's, []"),
        ({"attributes": "hue"}, "changes was asked for the attributes hue"),
        ({"saliency": gradient}, "expected images (n, h, w, c), or saliency=null"),
    ],
)
def test_what_cannot_be_asked_is_said_before_training(options: Mapping[str, Any], message: str) -> None:
    network, probe = shown()
    with pytest.raises(ValueError, match=re.escape(message)):
        Observer(probe, {"changes": partial(changes, **options)}, MemoryTracker()).start(network)


# ---- what follows an event -------------------------------------------------------------------------------------------


def rings(tracker: Any, **options: Any) -> ObserverCallback:
    return ObserverCallback(digits(), {"bell": partial(noticing, at=(2, 5))}, tracker=tracker, **options)


def test_after_an_event_steps_are_observed_that_are_not_due_and_the_record_says_which() -> None:
    tracker = MemoryTracker()
    train([rings(tracker, schedule=at([0, 2, 9], "step"), after_event=2)], epochs=4)
    assert set(tracker.findings["bell"]) == {0, 2, 3, 4, 9}  # the bell of step 5 is not heard
    assert tracker.manifest["added"] == {"after_event": 2, "steps": [3, 4]}
    prolonged = MemoryTracker()
    train([rings(prolonged, schedule=at([0, 2, 9], "step"), after_event=3)], epochs=4)
    assert set(prolonged.findings["bell"]) == {0, 2, 3, 4, 5, 6, 7, 8, 9}
    assert prolonged.manifest["added"] == {"after_event": 3, "steps": [3, 4, 5, 6, 7, 8]}


def test_epochs_are_added_where_epochs_are_counted_and_none_unless_asked() -> None:
    tracker, unasked = MemoryTracker(), MemoryTracker()
    train([rings(tracker, schedule=every_epoch(2), after_event=1)], epochs=4)
    train([rings(unasked, schedule=every_epoch(2))], epochs=4)
    assert set(tracker.findings["bell"]) == {0, 2, 3, 4}
    assert set(unasked.findings["bell"]) == {0, 2, 4}
    assert "added" not in unasked.manifest


def test_a_checkpoint_is_kept_of_the_steps_of_chosen_events_and_of_no_others(tmp_path: Path) -> None:
    tracker = FolderTracker(tmp_path / "record")
    train([rings(tracker, schedule=every_steps(1), save_on=["bell/alarm"])], epochs=3)
    assert [path.name for path in sorted(tracker.checkpoint_folder.iterdir())] == ["step_00000002.ckpt", "step_00000005.ckpt"]
    assert set(tracker.manifest["checkpoints"]) == {"2", "5"}  # type: ignore[call-overload]
    train([rings(MemoryTracker(), schedule=every_steps(1), save_on=["bell/change"], checkpoints=tmp_path / "none")], epochs=3)
    assert list((tmp_path / "none").iterdir()) == []


def test_what_cannot_be_saved_or_added_is_refused_before_the_first_batch() -> None:
    with pytest.raises(ValueError, match=re.escape("ObserverCallback is to save on ['bell/alarm'], and this record has no place for checkpoints")):
        train([rings(MemoryTracker(), save_on=["bell/alarm"])])
    with pytest.raises(ValueError, match=re.escape("no event is of the kinds ['bell/gap']")):
        train([rings(MemoryTracker(), save_on=["bell/gap"])])
    with pytest.raises(ValueError, match="after_event=-1; expected how many further steps are observed, 0 for none"):
        rings(MemoryTracker(), after_event=-1)


# ---- where to look ---------------------------------------------------------------------------------------------------


def killed() -> Recording:
    found = dict(enumerate(course(frozen_from=7)))
    return Recording({"step_unit": "epoch"}, {**made_up_run(steps=12, layers={"2": 20, "4": 20, "6": 20}).findings, "odd": found})


def test_the_table_of_a_recording_has_the_places_of_its_last_findings_by_how_unusual_they_are() -> None:
    recording = killed()
    last = recording.findings["odd"][11].arrays
    columns = tables(recording)["look_here"]
    assert columns["unusual"] == sorted(columns["unusual"], reverse=True) == last["look_unusual"].tolist()  # type: ignore[type-var]
    assert columns["sentence"] == last["look_sentences"].tolist()
    assert set(columns["analysis"]) == {"odd"}
    assert (columns["step"][0], columns["layer"][0], columns["kind"][0]) == (7, "2", "still")
    assert look_here(Recording()) == []
    assert "look_here" not in tables(Recording())


@needs_browser
def test_the_page_lists_the_places_and_each_leads_to_its_step_and_layer(tmp_path: Path) -> None:
    recording = killed()
    with opened(page(recording), tmp_path) as tab:
        rows = tab.tell("[...document.querySelectorAll('#happened ol.looks li')].map((row) => row.textContent)")
        places = look_here(recording)[:12]
        assert len(rows) == len(places)
        for row, place in zip(rows, places, strict=True):
            assert f"epoch {place['step']}" in row
            assert place["sentence"] in row
            assert ("of an event" in row) == (place["unusual"] < 1)
        tab.press("#happened details.looks summary")
        tab.press("#happened ol.looks li button")
        assert tab.text(".step-now strong") == "7"
        assert "layer 2" in str(tab.text("#layers [aria-current], #layers [aria-pressed='true']"))
        tab.press("#happened ol.looks li:nth-child(2) button")
        assert "layer 4" in str(tab.text("#layers [aria-current], #layers [aria-pressed='true']"))
        assert tab.tell("document.querySelectorAll('.events button').length") == len(recording.events)


ROOT = Path(__file__).parent.parent
TOLD = (ROOT / "docs" / "changes.md").read_text()
DOCS = [line for block in re.findall(r"```bash\n(.*?)```", TOLD, flags=re.DOTALL) for line in block.splitlines()]


def test_the_commands_of_the_docs_do_what_they_say(own_place: Path) -> None:
    short = "data=digits model=cnn_tiny trainer.max_epochs=3 trainer.progress=false probe.per_class=6 strict=true"
    places = {"NETLAPSE_HOME": str(own_place), "OMP_NUM_THREADS": "1"}
    for command in DOCS:
        result = subprocess.run(["bash", "-c", f"{command} {short}"], cwd=ROOT, env=os.environ | places, capture_output=True, text=True, timeout=600)
        assert result.returncode == 0, result.stdout + result.stderr
        record = netlapse.load(result.stdout.split("Recorded in run ")[-1].split()[0])
        assert "changes" in record.manifest["events"]  # type: ignore[operator]


def test_every_kind_and_number_is_in_the_docs() -> None:
    assert [kind for kind in kinds_of({"changes": changes}) if f"`{kind}`" not in TOLD] == []
    names = {"/".join(name.split("/")[:2]) for name in course(2, saliency=gradient)[-1].scalars}
    assert [name for name in sorted(names) if f"`{name}" not in TOLD] == []
