"""Laws of maps laid out and drawn again from what was recorded."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from netlapse.analysis.layout import flas, pca, random
from netlapse.analysis.nap import contrast, nap
from netlapse.analysis.quality import trustworthiness
from netlapse.analysis.relayout import Source, relayout
from netlapse.analysis.topomap import Layout, interpolate, topomap
from netlapse.backends.torch import TorchNetwork
from netlapse.callbacks.lightning import ObserverCallback
from netlapse.probe import by_outcome
from netlapse.recording import Recording
from netlapse.render.maps import maps_row, storyboard
from netlapse.tracking.folder import packed, unpacked
from netlapse.tracking.memory import MemoryTracker
from netlapse.types import Analysis, Findings, Float64, ProbeSet, Snapshot
from tests.training import probe, train

UNIT = "standard deviations of the layer"
RNG = np.random.default_rng(0)
GROWING = [scale * RNG.random((3, 12)).astype(np.float32).astype(np.float64) for scale in (0.1, 1.0, 30.0, 5.0)]
"""The profiles of one layer, "1", at steps 0, 2, 4 and 6: other ones at every step, and much larger late."""


def snapshots(profiles: list[Float64]) -> list[Snapshot]:
    """Layer "1" has the given profiles (3, u) over three one-hot inputs, at steps 0, 2, ...; layer "2" is the output: its first four units."""
    found = []
    for index, weights in enumerate(profiles):
        hidden, head = nn.Linear(3, weights.shape[1], bias=False), nn.Linear(weights.shape[1], 4)
        hidden.weight.data, head.weight.data = torch.tensor(weights.T, dtype=torch.float32), torch.eye(4, weights.shape[1])
        head.bias.data = torch.zeros(4)
        shown = ProbeSet(np.eye(3, dtype=np.float32), np.arange(3), ("a", "b", "c", "nobody"))
        found.append(Snapshot(TorchNetwork(nn.Sequential(hidden, nn.ReLU(), head)), shown, 2 * index, layers=["1", "2"]))
    return found


def observed(shots: list[Snapshot], **options: object) -> Recording:
    """What a run that observed these snapshots recorded, written to files and read again, with the pictures."""
    findings: dict[str, dict[int, Findings]] = {"nap": {}, "topomap": {}}
    analyses: dict[str, Analysis] = {"nap": nap, "topomap": partial(topomap, **options)}  # type: ignore[arg-type]
    for name, analysis in analyses.items():
        previous = None
        for shot in shots:
            previous = analysis(shot, previous)
            findings[name][shot.step] = replace(unpacked(packed(previous)), images=previous.images)
    return Recording({}, findings)


RUN = observed(snapshots(GROWING))


def positions(found: Findings, layer: str = "1") -> Float64:
    return np.asarray(found.arrays[f"positions/{layer}"], np.float64)


def features(recording: Recording, step: int, layer: str = "1") -> Float64:
    """(u, f) the layer's contrasts among the groups that have inputs."""
    arrays = recording.findings["nap"][step].arrays
    values = contrast(np.asarray(arrays[f"profile/{layer}"], np.float64))
    return values[np.asarray(arrays["counts"], np.int64) > 0].T


def scale(recording: Recording, step: int, layer: str = "1") -> float:
    return float(np.asarray(recording.findings["nap"][step].arrays[f"scale/{layer}"], np.float64))


def assert_live_under_other_names(found: dict[int, Findings], name: str, live: dict[int, Findings]) -> None:
    assert list(found) == list(live)
    for step, there in live.items():
        assert list(found[step].arrays) == list(there.arrays)
        for array, values in there.arrays.items():
            np.testing.assert_array_equal(found[step].arrays[array], values, strict=True)
        scalars = {metric.replace("layout/", f"{name}/", 1): value for metric, value in there.scalars.items()}
        np.testing.assert_equal(dict(found[step].scalars), scalars)
        images = {f"{name}/storyboard" if key == "storyboard" else key.replace("topomap", name, 1): image for key, image in there.images.items()}
        assert list(found[step].images) == list(images)
        for key, image in images.items():
            np.testing.assert_array_equal(found[step].images[key], image)


# ---- each step ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grouping", [None, by_outcome])
def test_each_step_laid_out_again_is_what_was_seen_live_to_the_last_bit(grouping: object) -> None:
    tracker = MemoryTracker()
    options = {} if grouping is None else {"grouping": grouping}
    train([ObserverCallback(probe(24), tracker=tracker, strict=True, **options)], epochs=3)  # type: ignore[arg-type]
    recording = tracker.recording()
    name, found = relayout(recording)
    assert name == "topomap_each"
    assert_live_under_other_names(found, name, dict(recording.findings["topomap"]))


@pytest.mark.parametrize("layout", [flas, pca])
def test_what_is_not_finite_dead_or_empty_is_laid_out_again_as_live(layout: Layout) -> None:
    infinite, dead = GROWING[1].copy(), -GROWING[2]
    infinite[1, 3:5] = np.inf
    run = observed(snapshots([infinite, GROWING[0], infinite, dead, GROWING[3]]), layout=layout, resolution=20, limit=1.5, seed=3)
    name, found = relayout(run, layout=layout, resolution=20, limit=1.5, seed=3)
    assert_live_under_other_names(found, name, dict(run.findings["topomap"]))
    assert "positions/1" not in found[0].arrays
    assert int(found[4].arrays["layout_step/1"]) == 2  # type: ignore[call-overload]


def test_the_profiles_are_enough_and_stay_what_they_are() -> None:
    before = {step: packed(found) for step, found in RUN.findings["nap"].items()}
    name, found = relayout(Recording({}, {"nap": RUN.findings["nap"]}))
    assert_live_under_other_names(found, name, dict(RUN.findings["topomap"]))
    assert {step: packed(kept) for step, kept in RUN.findings["nap"].items()} == before


def test_another_method_and_seed_go_on_from_their_own_step_before() -> None:
    for options in ({"layout": pca}, {"layout": random, "seed": 5}, {"layout": partial(flas, movement_penalty=5.0)}):
        run = observed(snapshots(GROWING), **options)
        name, found = relayout(RUN, **options)  # type: ignore[arg-type]
        assert_live_under_other_names(found, name, dict(run.findings["topomap"]))


# ---- one layout for all steps --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("source", "made"), [("last", 6), ("joint", -1), (0, 0), (4, 4)])
def test_one_layout_serves_all_steps_and_nothing_moves(source: Source, made: int) -> None:
    _, found = relayout(RUN, source=source)
    assert list(found) == [0, 2, 4, 6]
    for step, one in found.items():
        np.testing.assert_array_equal(positions(one), positions(found[0]))
        assert int(one.arrays["layout_step/1"]) == made  # type: ignore[call-overload]
        assert [value for metric, value in one.scalars.items() if "motion" in metric] == ([] if step == 0 else [0.0, 0.0])
        np.testing.assert_array_equal(one.arrays["contrast/1"], RUN.findings["topomap"][step].arrays["contrast/1"])


@pytest.mark.parametrize("layout", [flas, pca, random])
@pytest.mark.parametrize("step", [0, 2, 4, 6])
def test_a_layout_fixed_at_a_step_is_made_from_its_profiles_alone(step: int, layout: Layout) -> None:
    alone = observed([snapshots(GROWING)[step // 2]], layout=layout, seed=2)
    _, found = relayout(RUN, source=step, layout=layout, seed=2)
    for layer in ("1", "2"):
        np.testing.assert_array_equal(positions(found[0], layer), positions(alone.findings["topomap"][step], layer))


def test_last_is_the_last_step() -> None:
    (_, last), (_, chosen) = relayout(RUN, source="last", name="topomap_x"), relayout(RUN, source=6, name="topomap_x")
    for step in last:
        assert packed(last[step]) == packed(chosen[step])
        for key, image in last[step].images.items():
            np.testing.assert_array_equal(image, chosen[step].images[key])


def test_a_joint_layout_sorts_units_by_all_steps_in_standard_deviations_of_each() -> None:
    side_by_side = np.hstack([features(RUN, step) / scale(RUN, step) for step in (0, 2, 4, 6)])
    for layout in (flas, random):
        _, found = relayout(RUN, source="joint", layout=layout, seed=4)
        np.testing.assert_array_equal(positions(found[0]), layout(side_by_side, seed=4))
    unscaled = np.hstack([features(RUN, step) for step in (0, 2, 4, 6)])
    assert not np.array_equal(flas(side_by_side), flas(unscaled))


def test_a_step_that_is_louder_has_no_more_say_in_a_joint_layout() -> None:
    louder = [GROWING[0], GROWING[1], 1024 * GROWING[2], GROWING[3]]  # a power of two, so that nothing is rounded
    (_, before), (_, after) = relayout(RUN, source="joint"), relayout(observed(snapshots(louder)), source="joint")
    np.testing.assert_array_equal(positions(after[0]), positions(before[0]))


def test_a_step_at_which_nothing_differs_has_no_say_in_a_joint_layout() -> None:
    dead = np.zeros_like(GROWING[0])
    infinite = np.where(np.arange(12) == 3, np.inf, GROWING[0])
    (_, before), (_, after) = relayout(RUN, source="joint"), relayout(observed(snapshots([dead, *GROWING, infinite])), source="joint")
    np.testing.assert_array_equal(positions(after[0]), positions(before[0]))


def test_trustworthiness_is_that_of_the_one_layout_for_each_steps_own_profiles() -> None:
    for source in ("joint", 2):
        name, found = relayout(RUN, source=source)  # type: ignore[arg-type]
        for step, one in found.items():
            assert one.scalars[f"{name}/trustworthiness/1"] == trustworthiness(features(RUN, step), positions(found[0]))


# ---- pictures and names --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("source", "words"), [("last", "layout of step 6"), (2, "layout of step 2"), ("joint", "one layout for all steps")])
def test_pictures_are_the_recorded_contrasts_on_the_layout_they_name(source: Source, words: str) -> None:
    name, found = relayout(RUN, source=source, resolution=24, limit=1.0, colours="teal_white_brown", name="topomap_x")
    names, counts = ("a", "b", "c", "nobody"), (1, 1, 1, 0)
    rows = []
    for layer in ("1", "2"):
        values = np.asarray(RUN.findings["topomap"][4].arrays[f"contrast/{layer}"], np.float64)
        shown = interpolate(positions(found[0], layer), values / scale(RUN, 4, layer), 24)
        title = f"{layer} · {values.shape[1]} units · step 4, {words}"
        np.testing.assert_array_equal(found[4].images[f"{name}/{layer}"], maps_row(shown, names, counts, 1.0, title, UNIT, "teal_white_brown"))
        rows.append((layer, shown))
    board = storyboard(rows, names, 1.0, f"step 4, {words}", UNIT, "teal_white_brown")
    np.testing.assert_array_equal(found[4].images[f"{name}/storyboard"], board)


def test_nothing_is_found_under_a_name_that_is_taken() -> None:
    taken = [{key for by_step in RUN.findings.values() for one in by_step.values() for key in kind(one)} for kind in (_metrics, _images)]
    name, found = relayout(RUN, source="joint")
    assert name not in RUN.findings
    for one in found.values():
        assert not taken[0] & _metrics(one)
        assert not taken[1] & _images(one)


def _metrics(found: Findings) -> set[str]:
    return set(found.scalars)


def _images(found: Findings) -> set[str]:
    return set(found.images)


def by_hand(profiles: Float64, *, seed: int = 0, previous: Float64 | None = None) -> Float64:
    return random(profiles, seed=seed)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "topomap_each"),
        ({"source": "last"}, "topomap_last"),
        ({"source": "joint"}, "topomap_joint"),
        ({"source": 4}, "topomap_at_4"),
        ({"layout": pca}, "topomap_pca"),
        ({"layout": partial(partial(by_hand))}, "topomap_by_hand"),
        ({"layout": lambda profiles, seed, previous: by_hand(profiles)}, "topomap_lambda"),
        ({"seed": 3}, "topomap_seed_3"),
        ({"colours": "purple_white_orange"}, "topomap_purple_white_orange"),
        ({"source": 4, "layout": pca, "seed": 3, "colours": "teal_white_brown"}, "topomap_at_4_pca_seed_3_teal_white_brown"),
        ({"source": np.int64(4)}, "topomap_at_4"),
        ({"name": "topomap_My-2"}, "topomap_My-2"),
    ],
)
def test_the_name_says_what_differs_from_the_live_maps(options: dict[str, object], expected: str) -> None:
    assert relayout(RUN, **options)[0] == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["topomap", "nap", "mine", "topomap_", "topomap_a/b", "topomap_..", "../topomap_x"])
def test_a_name_of_another_form_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"a relayout cannot be named .*; expected 'topomap_' and then"):
        relayout(RUN, name=name)


def test_an_observed_analysis_is_not_replaced_and_an_earlier_relayout_is() -> None:
    observed_too = Recording({}, {**RUN.findings, "topomap_pca": RUN.findings["topomap"]})
    with pytest.raises(ValueError, match=r"'topomap_pca' is an analysis observed in this run.*give the relayout another `name`"):
        relayout(observed_too, layout=pca)
    name, first = relayout(RUN, layout=pca)
    again, second = relayout(Recording({}, {**RUN.findings, name: first}), layout=pca)
    assert again == name
    assert [packed(one) for one in first.values()] == [packed(one) for one in second.values()]


# ---- layers and steps that are not as the others -------------------------------------------------------------------------


def _dead(weights: Float64) -> Float64:
    return -weights


def _infinite(weights: Float64) -> Float64:
    return np.where(np.arange(12) == 3, np.inf, weights)


@pytest.mark.parametrize("spoilt", [_dead, _infinite])
def test_a_layer_that_cannot_be_laid_out_at_the_last_step_has_the_layout_of_its_own_last(spoilt: object) -> None:
    assert callable(spoilt)
    run = observed(snapshots([*GROWING, spoilt(GROWING[0]), spoilt(GROWING[1])]))
    (_, found), (_, until) = relayout(run, source="last"), relayout(RUN, source="last")
    for one in found.values():
        np.testing.assert_array_equal(positions(one), positions(until[0]))
        assert int(one.arrays["layout_step/1"]) == 6  # type: ignore[call-overload]


def test_pictures_of_layers_with_layouts_of_several_steps_say_so() -> None:
    shots = snapshots([*GROWING, GROWING[0]])
    shots[-1] = replace(shots[-1], layers=["2"])
    run = observed(shots)
    _, found = relayout(run, source="last", name="topomap_x")
    _, same = relayout(RUN, source="last", name="topomap_x")
    made = [int(found[0].arrays[f"layout_step/{layer}"]) for layer in ("1", "2")]  # type: ignore[call-overload]
    assert made == [6, 8]
    np.testing.assert_array_equal(found[0].images["topomap_x/1"], same[0].images["topomap_x/1"])
    rows = [(layer, _map(found[2], layer)) for layer in ("1", "2")]
    board = storyboard(rows, ("a", "b", "c", "nobody"), 2.0, "step 2, layouts of steps 6, 8", UNIT)
    np.testing.assert_array_equal(found[2].images["topomap_x/storyboard"], board)
    alone = np.asarray(found[8].arrays["contrast/2"], np.float64) / scale(run, 8, "2")
    board = storyboard([("2", interpolate(positions(found[8], "2"), alone, 64))], ("a", "b", "c", "nobody"), 2.0, "step 8, layout of step 8", UNIT)
    np.testing.assert_array_equal(found[8].images["topomap_x/storyboard"], board)


def _map(found: Findings, layer: str) -> Float64:
    return interpolate(positions(found, layer), np.asarray(found.arrays[f"contrast/{layer}"], np.float64) / scale(RUN, 2, layer), 64)


@pytest.mark.parametrize("source", ["joint", "last"])
def test_a_layer_that_is_finite_at_no_step_is_drawn_as_missing_and_costs_no_other_its_layout(source: Source) -> None:
    shots = snapshots(GROWING)
    for shot in shots:
        shot.network.module[2].bias.data[:] = np.nan  # type: ignore[attr-defined]
    (name, found), (_, whole) = relayout(observed(shots), source=source), relayout(RUN, source=source)
    for step, one in found.items():
        assert "positions/2" not in one.arrays
        assert np.isnan(one.scalars[f"{name}/trustworthiness/2"])
        np.testing.assert_array_equal(positions(one), positions(whole[step]))


def test_a_layer_keeps_the_one_layout_at_a_step_at_which_it_is_not_finite_and_says_so() -> None:
    run = observed(snapshots([GROWING[0], _infinite(GROWING[1]), GROWING[2]]))
    name, found = relayout(run, source=0)
    np.testing.assert_array_equal(positions(found[2]), positions(found[0]))
    assert np.isnan(found[2].scalars[f"{name}/trustworthiness/1"])
    np.testing.assert_array_equal(found[2].images[f"{name}/1"], run.findings["topomap"][2].images["topomap/1"])


def test_a_layer_observed_at_some_steps_is_drawn_at_those() -> None:
    shots = snapshots(GROWING)
    shots[1] = replace(shots[1], layers=["2"])
    for source in ("each", "joint", "last"):
        name, found = relayout(observed(shots), source=source)  # type: ignore[arg-type]
        assert ["positions/1" in one.arrays for one in found.values()] == [True, False, True, True]
        assert [f"{name}/1" in one.images for one in found.values()] == [True, False, True, True]


def test_groups_that_come_and_go_are_told_apart_by_what_they_have() -> None:
    """Who is right and who is wrong changes with the steps: empty groups take no part in a layout, and are drawn as empty."""
    shots = [replace(shot, grouping=by_outcome) for shot in snapshots([GROWING[0], GROWING[1][:, ::-1].copy()])]
    run = observed(shots)
    filled = [np.asarray(run.findings["nap"][step].arrays["counts"], np.int64) > 0 for step in (0, 2)]
    assert not np.array_equal(*filled)
    _, found = relayout(run, source="joint")
    expected = flas(np.hstack([features(run, step) / scale(run, step) for step in (0, 2)]), seed=0)
    np.testing.assert_array_equal(positions(found[0]), expected)


@pytest.mark.parametrize("spoilt", ["not finite", "not observed"])
def test_a_step_at_which_a_layer_cannot_be_laid_out_is_refused_with_those_at_which_it_can(spoilt: str) -> None:
    shots = snapshots([GROWING[0], _infinite(GROWING[1]) if spoilt == "not finite" else GROWING[1], GROWING[2]])
    if spoilt == "not observed":
        shots[1] = replace(shots[1], layers=["2"])
    with pytest.raises(ValueError, match=r"layer '1' cannot be laid out from step 2; it has finite profiles at the steps \[0, 4\]: choose"):
        relayout(observed(shots), source=2)


@pytest.mark.parametrize("source", [1, "first", -1, "4"])
def test_an_unknown_source_is_refused_with_those_there_are(source: Source) -> None:
    with pytest.raises(ValueError, match=r"expected one of \['each', 'joint', 'last'\] or a step with profiles, which are \[0, 2, 4, 6\]"):
        relayout(RUN, source=source)


def test_other_units_at_other_steps_are_refused_by_layer() -> None:
    wide, narrow = RUN.findings["nap"], observed(snapshots([GROWING[0], GROWING[1][:, :7]])[1:]).findings["nap"]
    other = Recording({}, {"nap": {0: wide[0], 2: narrow[2]}})
    with pytest.raises(ValueError, match=r"layer '1' have the shapes \{0: \(4, 12\), 2: \(4, 7\)\} .*same units at every step"):
        relayout(other)
    kept = {0: Findings({"groups": np.array(["a"]), "counts": np.ones(1), "scale/x": np.ones(()), "profile/x": np.ones((1, 2, 2, 3))})}
    with pytest.raises(ValueError, match=r"profiles of step 0 have the shapes \{'x': \(1, 2, 2, 3\)\}; expected \(groups, units\)"):
        relayout(Recording({}, {"nap": kept}))


def test_a_recording_without_profiles_is_refused_with_what_it_has() -> None:
    with pytest.raises(ValueError, match=r"needs the profiles that the analysis 'nap' records; this recording has \['topomap'\]"):
        relayout(Recording({}, {"topomap": RUN.findings["topomap"]}))
    with pytest.raises(ValueError, match=r"this recording has nothing"):
        relayout(Recording())
    arrays = {name: values for name, values in RUN.findings["nap"][2].arrays.items() if name != "scale/1"}
    with pytest.raises(ValueError, match=r"a `profile/` and a `scale/` per layer .*; at step 2 there is no scale/1"):
        relayout(Recording({}, {"nap": {**RUN.findings["nap"], 2: Findings(arrays)}}))
    with pytest.raises(ValueError, match=r"at step 0 there is nothing"):
        relayout(Recording({}, {"nap": {0: Findings()}}))
    with pytest.raises(ValueError, match=r"at step 0 there is \['counts', 'groups'\]"):
        relayout(Recording({}, {"nap": {0: Findings({"groups": np.array(["a"]), "counts": np.ones(1, np.int64)})}}))


def test_unknown_colours_and_limits_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no colours named 'jet'"):
        relayout(RUN, colours="jet")
    with pytest.raises(ValueError, match=r"colour limit is -1"):
        relayout(RUN, limit=-1)


def test_the_largest_contrast_of_all_steps_is_the_limit_at_each() -> None:
    _, found = relayout(RUN, limit="max")
    contrasts = [np.asarray(findings.arrays["contrast/1"], np.float64) for findings in found.values()]
    deviations = [float(RUN.findings["nap"][step].arrays["scale/1"]) for step in found]  # type: ignore[arg-type]
    largest = [float(np.nanmax(np.abs(values))) / deviation for values, deviation in zip(contrasts, deviations)]
    assert max(largest) > 1.01 * min(largest)
    assert [float(findings.arrays["limit/1"]) for findings in found.values()] == pytest.approx([max(largest)] * len(largest))  # type: ignore[arg-type]
