"""Laws of the analysis fairness: numbers by hand, alarms when there is reason and not otherwise, history that survives, bad input named."""

from __future__ import annotations

import os
import re
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import netlapse
from netlapse.analysis.fairness import fairness, gap_bound
from netlapse.analysis.fairness.alarms import growth_bound, lasting
from netlapse.analysis.rarest import rarest
from netlapse.backends.torch import TorchNetwork
from netlapse.observer import Observer
from netlapse.render.colours import SEQUENTIAL, sequential
from netlapse.render.gaps import Rate, gallery, grid_of_steps, rates_chart
from netlapse.tracking.memory import MemoryTracker
from netlapse.types import Array, Findings, Float64, Int64, ProbeSet, Snapshot

K = 2


def network(broken: bool = False) -> TorchNetwork:
    """Its logits are its inputs, through a tanh between."""
    module = nn.Sequential(nn.Linear(K, K, bias=False), nn.Tanh(), nn.Linear(K, K, bias=False))
    with torch.no_grad():
        for layer in (module[0], module[2]):
            assert isinstance(layer, nn.Linear)
            layer.weight.copy_(torch.eye(K) * (float("nan") if broken else 1.0))
    return TorchNetwork(module)


def probe(right: dict[str, tuple[int, int]], **attributes: Any) -> ProbeSet:
    """Of each group so many inputs that are predicted right, of so many; labels alternate; each input a little different."""
    labels = np.concatenate([np.arange(n) % K for _, n in right.values()])
    correct = np.concatenate([np.arange(n) < hits for hits, n in right.values()])
    predictions = np.where(correct, labels, 1 - labels)
    inputs = (np.eye(K)[predictions] + 0.2 * np.random.default_rng(0).random((len(labels), K))).astype(np.float32)
    groups = np.repeat(list(right), [n for _, n in right.values()])
    return ProbeSet(inputs, labels, ("no", "yes"), {"side": groups, **attributes})


def look(of: ProbeSet, step: int = 0, previous: Findings | None = None, **options: Any) -> Findings:
    return fairness(Snapshot(network(), of, step), previous, **{"permutations": 0, "folds": 0, **options})


EVEN = {"left": (38, 40), "right": (38, 40)}
WORSE = {"left": (38, 40), "right": (16, 40)}


def test_numbers_of_two_groups_by_hand() -> None:
    found = look(probe(WORSE))
    assert found.arrays["groups/side"].tolist() == ["left", "right"]
    assert found.arrays["worst/side"] == "right"
    np.testing.assert_array_equal(found.arrays["counts/side"], [[[19, 1], [1, 19]], [[8, 12], [12, 8]]])
    numbers = {name.split("/")[1]: value for name, value in found.scalars.items()}
    expected = {"accuracy_worst": 0.4, "accuracy_mean": 0.675, "gap": 0.55, "gap_low": gap_bound(np.array([38, 16]), np.array([40, 40]))}
    expected |= {"variance": 55**2 / 2, "demographic_parity": 0, "equal_opportunity": 0.55, "equalised_odds": 0.55}
    expected |= {"undefined": 0, "too_small": 0, "missing": 0, "no_prediction": 0, "alarm": 0}
    assert {name: numbers[name] for name in expected} == pytest.approx(expected)
    # All confidences lie in one bin, from 0.6 to 0.7.
    shown = np.tanh(probe(WORSE).inputs.astype(np.float64))
    sure = (1 / (1 + np.exp(-np.abs(shown[:, 1] - shown[:, 0])))).reshape(2, 40).mean(axis=1)
    assert numbers["calibration_gap"] == pytest.approx(abs(abs(sure[0] - 0.95) - abs(sure[1] - 0.4)), abs=1e-6)
    assert set(found.images) == {"fairness/side"}


def test_of_two_classes_the_second_is_positive_unless_another_is_named() -> None:
    of = probe(EVEN)
    labels = of.labels.copy()
    labels[:20] = 1  # of the left, inputs of "no" are among these and predicted "no"
    changed = ProbeSet(of.inputs, labels, of.class_names, of.attributes)
    second, first = look(changed), look(changed, positive="no")
    assert second.scalars["fairness/equal_opportunity/side"] == second.arrays["equal_opportunity/side"][1]
    assert first.scalars["fairness/equal_opportunity/side"] == first.arrays["equal_opportunity/side"][0]
    assert first.scalars["fairness/equal_opportunity/side"] != second.scalars["fairness/equal_opportunity/side"]


def test_over_more_classes_the_largest_difference_counts() -> None:
    of = probe(EVEN)
    inputs = np.concatenate([of.inputs, np.full((80, 1), -9, np.float32)], axis=1)
    module = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Tanh(), nn.Linear(3, 3, bias=False))
    with torch.no_grad():
        for layer in (module[0], module[2]):
            assert isinstance(layer, nn.Linear)
            layer.weight.copy_(torch.eye(3))
    of = ProbeSet(inputs, of.labels, ("a", "b", "c"), of.attributes)
    found = fairness(Snapshot(TorchNetwork(module), of, 0), None, permutations=0, folds=0)
    parity = found.arrays["demographic_parity/side"]
    assert found.scalars["fairness/demographic_parity/side"] == parity.max()
    assert np.isnan(found.arrays["equal_opportunity/side"][2])
    assert found.scalars["fairness/equal_opportunity/side"] == np.nanmax(found.arrays["equal_opportunity/side"])
    assert found.scalars["fairness/undefined/side"] == 4  # recall and precision of a class that is nobody's and never predicted


def test_a_group_of_one_member_is_counted_and_has_no_part_in_any_difference() -> None:
    found = look(probe({**EVEN, "alone": (0, 1)}))
    assert found.arrays["groups/side"].tolist() == ["alone", "left", "right"]
    assert found.arrays["accuracy/side"][0, 0] == 0
    assert found.scalars["fairness/too_small/side"] == 1
    assert found.scalars["fairness/gap/side"] == 0
    assert found.arrays["worst/side"] == "left"
    alone = look(probe({**EVEN, "alone": (0, 1)}), min_inputs=1)
    assert alone.arrays["worst/side"] == "alone"


@pytest.mark.parametrize("none", ["", "nan", "None"])
def test_inputs_without_a_value_are_left_out_of_the_attribute_and_counted(none: str) -> None:
    of = probe({**EVEN, none: (0, 30)}, other=["a", "b"] * 55)
    found = look(of, intersections=[["side", "other"]])
    assert found.arrays["groups/side"].tolist() == ["left", "right"]
    assert found.scalars["fairness/missing/side"] == found.scalars["fairness/missing/side x other"] == 30
    assert found.scalars["fairness/missing/other"] == 0
    assert found.scalars["fairness/gap/side"] == 0
    assert look(of, missing=[]).scalars["fairness/missing/side"] == 0
    assert found.arrays["groups/side x other"].tolist() == ["left / a", "left / b", "right / a", "right / b"]


def test_an_attribute_without_any_value_says_so() -> None:
    found = look(probe(EVEN, other=[""] * 80))
    assert found.scalars["fairness/missing/other"] == 80
    assert np.isnan(found.scalars["fairness/gap/other"])
    assert found.arrays["worst/other"] == ""
    assert "fairness/other" in found.images


def test_inputs_without_a_prediction_are_counted_and_those_with_one_are_as_without_them() -> None:
    snapshot = Snapshot(network(), probe(WORSE), 0)
    logits = snapshot.statistics.logits
    assert logits is not None
    logits[[0, 50]] = np.nan, np.inf
    found = fairness(snapshot, None, permutations=0, folds=0)
    assert found.scalars["fairness/no_prediction/side"] == 2
    assert found.arrays["counts/side"].sum() == 78
    assert found.arrays["right"][0, [0, 50]].tolist() == [-1, -1]
    rest = np.delete(np.arange(80), [0, 50])
    same = look(snapshot.probe.take(rest))
    np.testing.assert_array_equal(found.arrays["counts/side"], same.arrays["counts/side"])


def test_a_network_that_diverged_is_no_reason_to_fail() -> None:
    found = fairness(Snapshot(network(broken=True), probe(WORSE), 1), None, permutations=40)
    assert found.scalars["fairness/no_prediction/side"] == 80
    assert np.isnan(found.scalars["fairness/gap/side"])
    assert np.isnan(found.arrays["difference/side"]).all()
    assert np.isnan(found.arrays["p/side"]).all()
    assert np.isnan(found.arrays["decodability/side"]).all()


# ---- alarms ----------------------------------------------------------------------------------------------------------


def test_a_gap_is_an_alarm_at_the_third_checkpoint_and_only_once_until_it_ends() -> None:
    previous, alarms = None, []
    for step, right in enumerate([WORSE, WORSE, WORSE, WORSE, EVEN, WORSE, WORSE, WORSE]):
        previous = look(probe(right), step, previous, threshold=0.2)
        alarms.append(bool(previous.arrays["in_force/side"][0]))
    assert previous is not None
    assert alarms == [False, False, True, True, False, False, False, True]
    kinds, steps = previous.arrays["event_kinds"].tolist(), previous.arrays["event_steps"].tolist()
    assert [step for kind, step in zip(kinds, steps) if kind == "gap"] == [2, 7]
    assert "side: accuracy 0.40 for right, 0.55 below left; at least 0.3" in previous.arrays["events"][0]


def test_a_gap_that_may_be_chance_or_is_below_the_threshold_is_no_alarm() -> None:
    for right, threshold in (({"left": (11, 12), "right": (9, 12)}, 0.0), (WORSE, 0.5), (EVEN, 0.0)):
        previous = None
        for step in range(4):
            previous = look(probe(right), step, previous, threshold=threshold)
        assert previous is not None
        assert previous.scalars["fairness/alarm/side"] == 0
        assert len(previous.arrays["events"]) == 0


def test_a_gap_that_grows_is_an_alarm_only_while_the_mean_improves() -> None:
    def after(*rights: dict[str, tuple[int, int]]) -> Array:
        previous = None
        for step, right in enumerate(rights):
            previous = look(probe(right), step, previous, checkpoints=1, threshold=0.99)
        assert previous is not None
        return previous.arrays["in_force/side"]

    low, to_one, to_both = {"left": (20, 40), "right": (20, 40)}, {"left": (39, 40), "right": (20, 40)}, {"left": (39, 40), "right": (39, 40)}
    worse = {"left": (20, 40), "right": (1, 40)}
    assert after(low, to_one).tolist() == [False, True]
    assert after(low, to_both).tolist() == after(low, low).tolist() == after(to_one, to_both).tolist() == after(low, worse).tolist() == [False, False]


def test_the_bound_of_growth_is_above_0_by_chance_in_fewer_than_5_percent_of_cases() -> None:
    rng, groups = np.random.default_rng(0), np.repeat(np.arange(4), 30)
    above = [growth_bound(*(rng.random((2, 120)) < [[0.4], [0.7]]).astype(int), groups) > 0 for _ in range(1000)]
    assert np.mean(above) < 0.05
    sides = np.repeat([0, 1], 100)
    grew = [growth_bound((rng.random(200) < 0.4).astype(int), (rng.random(200) < np.where(sides, 0.5, 0.9)).astype(int), sides) for _ in range(1000)]
    assert np.mean(np.array(grew) <= 0.4) > 0.95
    assert np.mean(np.array(grew) > 0) > 0.9


def test_a_group_that_only_draws_level_with_the_one_ahead_of_it_is_no_growth() -> None:
    groups = np.repeat([0, 1], 100)
    before, now = np.where(groups == 0, np.tile([1, 0], 100), 1), np.ones(200, int)
    assert growth_bound(before, now, groups) == 0
    now[199] = 0  # the group that was behind by a half is ahead by a hundredth
    assert growth_bound(before, now, groups) == 0
    assert np.isnan(growth_bound(before[:5], now[:5], groups[:5]))


def test_nothing_lasts_that_is_undefined_or_has_not_been_seen_often_enough() -> None:
    assert lasting(np.array([0.0, 0.3, 0.3]), 0.2, 2)
    assert not lasting(np.array([0.3, 0.3]), 0.2, 3)
    assert not lasting(np.array([0.3, np.nan, 0.3]), 0.2, 3)
    assert not lasting(np.array([0.3, 0.2, 0.3]), 0.2, 3)


def test_the_layers_alone_are_never_an_alarm() -> None:
    previous = None
    for step in range(4):
        of = probe(EVEN)
        of.inputs[40:] *= 3.0  # type: ignore[misc]
        previous = fairness(Snapshot(network(), of, step), previous, permutations=40, folds=0)
    assert previous is not None
    assert (np.asarray(previous.arrays["p/side"], np.float64) <= 0.05).all()
    assert previous.scalars["fairness/alarm/side"] == 0


# ---- the layers over the steps ---------------------------------------------------------------------------------------


def test_what_is_found_step_by_step_is_what_a_resumed_training_finds_and_p_never_falls() -> None:
    of = probe(WORSE)
    analyse = partial(fairness, permutations=60, folds=3, checkpoints=2)
    first = analyse(Snapshot(network(), of, 0), None)
    second = analyse(Snapshot(network(), of, 3), first)
    loaded = Findings({name: np.array(values.tolist()) for name, values in first.arrays.items()})
    again = analyse(Snapshot(network(), of, 3), loaded)
    assert second.arrays.keys() == again.arrays.keys()
    for name, values in second.arrays.items():
        np.testing.assert_array_equal(values, again.arrays[name])
    assert second.arrays["steps"].tolist() == [0, 3]
    before, now = (np.asarray(one.arrays["p/side"], np.float64) for one in (first, second))
    assert now.shape == (2, len(second.arrays["layers"]))
    assert (now[0] >= before[0]).all()
    assert {f"fairness/{name}/side/{layer}" for name in ("p", "difference", "decodability") for layer in second.arrays["layers"]} <= set(
        second.scalars
    )
    assert second.images["fairness/side/layers"].shape[2] == 3


def test_a_step_of_which_nothing_can_be_told_leaves_the_p_values_of_those_before_as_they_were() -> None:
    of, analyse = probe(WORSE), partial(fairness, permutations=60, folds=0)
    first = analyse(Snapshot(network(), of, 0), None)
    second = analyse(Snapshot(network(broken=True), of, 1), first)
    np.testing.assert_array_equal(second.arrays["maxima/side"], first.arrays["maxima/side"])
    np.testing.assert_array_equal(np.asarray(second.arrays["p/side"])[:1], first.arrays["p/side"])


def test_findings_of_other_attributes_or_labellings_are_not_gone_on_with() -> None:
    of = probe(WORSE, other=["a", "b"] * 40)
    first = fairness(Snapshot(network(), of, 0), None, permutations=40, folds=0)
    for options in ({"attributes": ["side"], "permutations": 40}, {"permutations": 60}, {"permutations": 0}):
        found = fairness(Snapshot(network(), of, 1), first, folds=0, **options)  # type: ignore[arg-type]
        assert found.arrays["steps"].tolist() == [1]


def test_through_an_observer_it_finds_what_it_finds_alone() -> None:
    of, tracker = probe(WORSE), MemoryTracker()
    analyse = partial(fairness, permutations=40, folds=3)
    observer = Observer(of, {"fairness": analyse, "rarest": rarest}, tracker, strict=True)
    observer.start(network())
    observed = observer.observe(network(), 0)["fairness"]
    alone = analyse(Snapshot(network(), of, 0), None)
    for name, values in alone.arrays.items():
        np.testing.assert_array_equal(values, observed.arrays[name], err_msg=name)


# ---- the rarest ------------------------------------------------------------------------------------------------------


def test_the_rarest_input_is_the_one_far_from_all_others_whatever_the_labels() -> None:
    inputs = np.random.default_rng(0).normal(size=(60, K)).astype(np.float32) * 0.1
    inputs[17] = 2.0, -2.0
    found = [rarest(Snapshot(network(), ProbeSet(inputs, labels, ("a", "b")), 0), None, shown=5) for labels in (np.arange(60) % 2, np.zeros(60, int))]
    assert found[0].arrays["inputs"][0] == 17
    np.testing.assert_array_equal(found[0].arrays["distances"], found[1].arrays["distances"])
    assert found[0].scalars[f"rarest/largest/{found[0].arrays['layer']}"] > 5
    later = rarest(Snapshot(network(), ProbeSet(inputs, np.arange(60) % 2, ("a", "b")), 1), found[0], shown=5)
    assert later.scalars[f"rarest/kept/{later.arrays['layer']}"] == 1
    assert not found[0].images  # vectors


# ---- pictures --------------------------------------------------------------------------------------------------------


def _dark(picture: Array) -> Array:
    return np.asarray(np.asarray(picture, int).sum(axis=2) < 120)


def test_a_dot_lies_at_its_rate_on_a_scale_from_0_to_1_whatever_the_others_are() -> None:
    def columns(values: Float64) -> Int64:
        """Where the middles of the dots are, in pixels."""
        names, counts = ["a"] * len(values), [9] * len(values)
        picture = _dark(rates_chart([Rate("x", values)], names, counts, "t"))
        rows = [y for y in range(len(picture) - 4) if (runs := _runs(picture[y], 7)) and len(runs) == 1]
        return np.array([_runs(picture[y], 7)[0] for y in rows])

    def _runs(line: Array, length: int) -> list[int]:
        edges = np.flatnonzero(np.diff(np.concatenate([[0], np.asarray(line, int), [0]])))
        return [int(start + stop - 1) // 2 for start, stop in zip(edges[::2], edges[1::2]) if stop - start == length]

    at = {share: set(columns(np.array([share]))) for share in (0.0, 0.25, 0.5, 1.0)}
    assert all(len(places) == 1 for places in at.values())
    zero, quarter, half, one = (places.pop() for places in at.values())
    assert abs(half - (zero + one) / 2) <= 1
    assert abs(quarter - (zero + half) / 2) <= 1
    assert one - zero == 149
    assert set(columns(np.array([0.25, 0.5]))) == {quarter, half}


def test_a_grid_of_steps_shows_each_cell_its_level_and_a_dot_where_it_is_marked() -> None:
    values = np.array([[0.0, 1.0], [0.5, np.nan], [-3.0, 9.0]])
    marked = np.array([[False, True], [False, False], [False, False]])
    picture = grid_of_steps(values, marked, ["a", "b"], [0, 1, 2], 1.0, "t", "u")
    plain = grid_of_steps(values, np.zeros_like(marked), ["a", "b"], [0, 1, 2], 1.0, "t", "u")
    colours = SEQUENTIAL[sequential(values, 1.0)]
    cells = [np.argwhere((plain == colours[step, row]).all(axis=2)) for step, row in ((0, 1), (1, 0), (1, 1), (2, 1))]
    assert all(len(one) >= 34 * 22 for one in cells)
    dot = np.argwhere((picture != plain).any(axis=2))
    assert 0 < len(dot) < 34 * 22
    assert (plain[tuple(dot.T)] == colours[0, 1]).all()  # within the cell of the first step and the second row
    same = grid_of_steps(values * [[1, 1], [1, 1], [1, 1]], marked, ["a", "b"], [0, 1, 2], 1.0, "t", "u")
    np.testing.assert_array_equal(picture, same)
    assert grid_of_steps(np.zeros((2000, 1)), np.zeros((2000, 1), bool), ["a"], list(range(2000)), 1.0, "t", "u").shape[1] < 1300


# ---- what does not fit -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: look(ProbeSet(np.zeros((4, 2), np.float32), np.array([0, 1, 0, 1]))), "the probe has no attributes; give it some, ProbeSet("),
        (lambda: look(probe(EVEN), attributes=["age"]), "the probe has no ['age'], it has ['side']"),
        (lambda: look(probe(EVEN), intersections=[["side", "side"]]), "each once in an intersection"),
        (lambda: look(probe(EVEN), attributes="side"), "expected a list, and a list of lists"),
        (lambda: look(probe(EVEN), attributes=[]), "asked for the attributes []"),
        (lambda: look(probe(EVEN), positive="maybe"), "positive='maybe'; expected one of the classes ['no', 'yes']"),
        (lambda: look(probe(EVEN), permutations=5), "no p-value is below 1/6, and so none below alpha=0.05; expected at least 20"),
        (lambda: look(probe(EVEN), folds=1), "folds=1"),
        (lambda: look(probe(EVEN), threshold=1.5), "threshold=1.5; expected numbers between 0 and 1"),
        (lambda: rarest(Snapshot(network(), probe(EVEN), 0), None, layer="conv9"), "rarest was given layer='conv9'; observed are ["),
        (lambda: rarest(Snapshot(network(), probe(EVEN), 0), None, k=80), "k=80 and shown=24 for 80 inputs"),
        (lambda: rates_chart([Rate("a", np.zeros(2))], ["x"], [1], "t"), "a chart of 1 groups was given 1 counts and rates of shapes [(2,)]"),
        (lambda: grid_of_steps(np.zeros((1, 2)), np.zeros((2, 1), bool), ["a"], [0], 1.0, "t", "u"), "a grid of 1 steps and 1 rows"),
        (lambda: gallery(np.zeros((2, 3, 3, 2)), ["a", "b"], "t"), "a gallery was given images (2, 3, 3, 2) and 2 captions"),
    ],
)
def test_what_does_not_fit_is_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


def test_a_network_without_a_logit_for_each_class_is_named() -> None:
    single = TorchNetwork(nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)))
    with pytest.raises(ValueError, match=r"fairness needs a logit for each class: the network's output has shape \(80, 1\)"):
        fairness(Snapshot(single, probe(EVEN), 0), None)


def test_before_training_begins_it_is_said_that_there_are_no_attributes() -> None:
    bare = ProbeSet(np.zeros((4, 2), np.float32), np.array([0, 1, 0, 1]))
    with pytest.raises(ValueError, match="the probe has no attributes"):
        Observer(bare, {"fairness": partial(fairness, permutations=100)}, MemoryTracker()).start(network())


# ---- the docs --------------------------------------------------------------------------------------------------------

ROOT = Path(__file__).parent.parent
DOCS = [line for block in re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / "bias.md").read_text(), flags=re.DOTALL) for line in block.splitlines()]


def test_the_commands_of_the_docs_do_what_they_say(own_place: Path) -> None:
    short = "model=cnn_tiny trainer.max_epochs=1 trainer.progress=false probe.per_class=6 strict=true"
    places = {"NETLAPSE_HOME": str(own_place), "OMP_NUM_THREADS": "1"}
    for command in (f"./run train data=rotated analyses=profiles {short}", *DOCS):
        words = f"{command} {short}" if "experiment=fairness" in command else command
        result = subprocess.run(["bash", "-c", words], cwd=ROOT, env=os.environ | places, capture_output=True, text=True, timeout=600)
        assert result.returncode == 0, result.stdout + result.stderr
        places.setdefault("RUN", result.stdout.split("Recorded in run ")[-1].split()[0])
    recording = netlapse.load(places["RUN"])
    assert recording.scalars["fairness/accuracy_worst/rotated"].steps.tolist() == [0, 1]


def test_every_number_that_is_recorded_is_in_the_docs() -> None:
    page = (ROOT / "docs" / "bias.md").read_text()
    found = fairness(Snapshot(network(), probe(WORSE), 0), None, permutations=40, folds=3)
    names = {name.split("/")[1] for name in found.scalars} - {"p"}
    assert [name for name in sorted(names) if f"`{name}`" not in page and f"fairness/{name}/" not in page] == []
