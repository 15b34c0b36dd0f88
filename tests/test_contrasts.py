"""What groups are compared with, and what maps and layouts make of it."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from netlapse.analysis.contrasts import contrasted
from netlapse.analysis.layout import apart, flas, pca, random
from netlapse.analysis.nap import activation_profiles, aligned_profiles, contrast, nap
from netlapse.analysis.quality import measures, null_measures
from netlapse.analysis.relayout import relayout
from netlapse.analysis.topomap import MEASURES, interpolate, metric_of, topomap
from netlapse.backends.torch import TorchNetwork
from netlapse.observer import Observer
from netlapse.probe import by_label, by_outcome
from netlapse.render.colours import MISSING, palette
from netlapse.render.maps import maps_row
from netlapse.tracking.memory import MemoryTracker
from netlapse.types import Findings, Float64, ProbeSet, Snapshot

RNG = np.random.default_rng(0)
NAMES = ("a", "b", "c", "d")
COUNTS = np.array([5, 2, 0, 13])
PROFILE = np.where(COUNTS[:, None] > 0, RNG.normal(size=(4, 6)), np.nan)


def of(**options: object) -> tuple[list[str], list[int], Float64]:
    names, counts, values = contrasted(NAMES, COUNTS, {"x": PROFILE}, **options)  # type: ignore[arg-type]
    return names, counts.tolist(), values["x"]


def test_uniform_contrasts_are_against_the_mean_of_groups_and_by_size_against_that_of_inputs() -> None:
    names, counts, values = of()
    assert (names, counts) == (list(NAMES), COUNTS.tolist())
    np.testing.assert_allclose(values[[0, 1, 3]], PROFILE[[0, 1, 3]] - PROFILE[[0, 1, 3]].mean(axis=0))
    assert np.isnan(values[2]).all()
    weighted = (5 * PROFILE[0] + 2 * PROFILE[1] + 13 * PROFILE[3]) / 20
    np.testing.assert_allclose(of(against="size")[2][[0, 1, 3]], PROFILE[[0, 1, 3]] - weighted)


def test_chosen_groups_are_compared_among_themselves() -> None:
    names, counts, values = of(groups=["d", "a"])
    assert (names, counts) == (["d", "a"], [13, 5])
    np.testing.assert_allclose(values, np.stack([PROFILE[3] - PROFILE[0], PROFILE[0] - PROFILE[3]]) / 2)
    sized = of(groups=["d", "a"], against="size")[2]
    np.testing.assert_allclose(sized[0], PROFILE[3] - (13 * PROFILE[3] + 5 * PROFILE[0]) / 18)


def test_a_pair_is_the_first_minus_the_second_and_as_large_as_the_smaller() -> None:
    names, counts, values = of(against=[("a", "d"), ("b", "c")])
    assert (names, counts) == (["a - d", "b - c"], [5, 0])
    np.testing.assert_array_equal(values[0], PROFILE[0] - PROFILE[3])
    assert np.isnan(values[1]).all()


def test_by_outcome_is_wrong_minus_correct_of_each_class() -> None:
    profile = RNG.normal(size=(4, 3))
    names = ("3 correct", "3 wrong", "5 correct", "5 wrong")
    rows, counts, values = contrasted(names, np.array([4, 2, 7, 0]), {"x": profile}, against="outcome")
    assert rows == ["3 wrong - 3 correct", "5 wrong - 5 correct"]
    assert counts.tolist() == [2, 0]
    np.testing.assert_array_equal(values["x"][0], profile[1] - profile[0])
    assert np.isnan(values["x"][1]).all()


def test_groups_of_too_few_inputs_are_in_no_mean() -> None:
    values = of(least=3)[2]
    np.testing.assert_allclose(values[[0, 3]], PROFILE[[0, 3]] - PROFILE[[0, 3]].mean(axis=0))
    assert np.isnan(values[[1, 2]]).all()
    assert np.isnan(of(least=14)[2]).all()
    assert np.isnan(of(least=14, against="size")[2]).all()
    assert np.isnan(of(least=3, against=[("a", "b")])[2]).all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"against": "best"}, r"against 'best'; allowed are \['uniform', 'size', 'outcome'\], or pairs"),
        ({"against": "outcome"}, r"grouping by_outcome\); there are \['a', 'b', 'c', 'd'\]"),
        ({"against": [("a", "z")]}, r"the groups \['z'\]; there are"),
        ({"against": [("a", "b", "c")]}, "each of two group names"),
        ({"against": []}, "at least one"),
        ({"groups": ["a", "y"]}, r"the groups \['y'\]; there are"),
        ({"groups": []}, r"the groups \[\]; there are"),
    ],
)
def test_what_cannot_be_compared_is_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        of(**options)


# ---- in the maps -----------------------------------------------------------------------------------------------------


def network() -> TorchNetwork:
    torch.manual_seed(0)
    return TorchNetwork(nn.Sequential(nn.Conv2d(2, 20, 3), nn.ReLU(), nn.Flatten(), nn.Linear(320, 24), nn.ReLU(), nn.Linear(24, 3)))


def probe(n: int = 40) -> ProbeSet:
    rng = np.random.default_rng(1)
    labels = np.concatenate([np.arange(3), rng.integers(0, 2, n - 3)])  # class 2 has one input
    return ProbeSet(rng.normal(size=(n, 6, 6, 2)).astype(np.float32) + labels[:, None, None, None], labels, ("a", "b", "c"))


def snapshot(step: int = 0, **options: object) -> Snapshot:
    return Snapshot(network(), probe(), step, ["1", "4"], **options)  # type: ignore[arg-type]


def places(found: Findings, layer: str) -> Float64:
    return np.asarray(found.arrays[f"positions/{layer}"], np.float64)


def test_layouts_are_by_what_was_asked_for() -> None:
    shot = snapshot()
    dead = shot.statistics.constant("1")
    shown, groups = shot.probe.inputs, shot.probe.labels
    aligned = contrast(aligned_profiles(shot.network, shown, groups, ["1"])["1"])
    kept = contrast(activation_profiles(shot.network, shown, groups, ["1"], spatial="keep")["1"])
    expected = {
        "profiles": contrast(shot.statistics.profile("1")).T,
        "positions": np.stack([kept[..., unit].reshape(-1) for unit in range(20)]),
        "aligned": np.stack([aligned[..., unit].reshape(-1) for unit in range(20)]),
        "inputs": shot.network.responses(shown, ["1"]).mean["1"].T.astype(np.float64),
    }
    found = {features: topomap(snapshot(), None, features=features, layout=pca, quality=False) for features in expected}  # type: ignore[arg-type]
    for features, profiles in expected.items():
        # Sums over batches of 64 and of 256 differ by float32 rounding.
        np.testing.assert_allclose(places(found[features], "1"), apart(profiles, dead, layout=pca), atol=1e-4)
        np.testing.assert_array_equal(found[features].arrays["contrast/1"], found["profiles"].arrays["contrast/1"])
    assert len({places(one, "1").round(2).tobytes() for one in found.values()}) == 4


def test_every_measure_stands_beside_that_of_a_random_layout() -> None:
    shot = snapshot()
    found = topomap(shot, None, layout=partial(pca, metric="cosine"))
    features, values = contrast(shot.statistics.profile("4")).T, contrast(shot.statistics.profile("4"))
    own, null = measures(features, places(found, "4"), values, metric="cosine"), null_measures(features, values, metric="cosine")
    for name in MEASURES:
        assert found.scalars[f"layout/{name}/4"] == pytest.approx(own[name], nan_ok=True)
        assert found.scalars[f"layout/{name}_null/4"] == pytest.approx(null[name], nan_ok=True)
    alone = topomap(shot, None, quality=False)
    assert [name for name in alone.scalars if name.endswith("/4")] == ["layout/trustworthiness/4"]


def test_units_that_never_change_have_no_part_in_what_a_layout_is_worth() -> None:
    net = network()
    with torch.no_grad():
        net.module[0].weight[[3, 7]] = 0  # type: ignore[index]
        net.module[0].bias[[3, 7]] = -1  # type: ignore[index]
    shot = Snapshot(net, probe(), 0, ["1"])
    found = topomap(shot, None, layout=pca)
    living = np.delete(np.arange(20), [3, 7])
    values = contrast(shot.statistics.profile("1"))[:, living]
    own, null = measures(values.T, pca(values.T), values), null_measures(values.T, values)
    for name in MEASURES:
        # Scaled about the middle and back, positions round.
        assert found.scalars[f"layout/{name}/1"] == pytest.approx(own[name], rel=1e-4)
        assert found.scalars[f"layout/{name}_null/1"] == null[name]


def test_the_metric_of_a_layout_is_the_one_bound_to_it_or_to_the_layout_inside() -> None:
    assert metric_of(flas) == "euclidean"
    assert metric_of(partial(pca, metric="cosine")) == "cosine"
    assert metric_of(partial(apart, layout=partial(pca, metric="correlation"))) == "correlation"


def test_the_largest_contrast_so_far_is_the_limit_and_is_recorded() -> None:
    first = topomap(snapshot(0), None, limit="max")
    shot = snapshot(0)
    scaled = contrast(shot.statistics.profile("4")) / np.sqrt(shot.statistics.sums_of_squares("4")[0].mean() / 40)
    assert float(first.arrays["limit/4"]) == pytest.approx(np.abs(scaled).max())  # type: ignore[arg-type]
    smaller = replaced_limit(first, 0.5)
    larger = replaced_limit(first, 99.0)
    assert float(topomap(snapshot(1), smaller, limit="max").arrays["limit/4"]) == float(first.arrays["limit/4"])  # type: ignore[arg-type]
    assert float(topomap(snapshot(1), larger, limit="max").arrays["limit/4"]) == 99  # type: ignore[arg-type]
    assert float(topomap(snapshot(1), larger).arrays["limit/4"]) == 2  # type: ignore[arg-type]


def replaced_limit(found: Findings, limit: float) -> Findings:
    return Findings({name: np.array(limit) if name.startswith("limit/") else values for name, values in found.arrays.items()})


def test_a_group_of_too_few_inputs_says_so_and_moves_no_unit() -> None:
    found = topomap(snapshot(), None, min_inputs=2, layout=pca)
    assert np.isnan(found.arrays["contrast/4"][2]).all()
    np.testing.assert_array_equal(places(found, "4"), places(topomap(snapshot(), None, groups=["a", "b"], layout=pca), "4"))
    tiles = np.zeros((2, 8, 8))
    few, empty, enough = (maps_row(tiles, ("a", "b"), (5, n), 2.0, "t", "u", least=3) for n in (2, 0, 3))
    assert (few != enough).any()
    assert (few[:-60] != empty[:-60]).any(), "too few is another word than no inputs"


def test_where_no_group_has_enough_inputs_the_maps_say_so_and_nothing_ends() -> None:
    found = topomap(snapshot(), None, min_inputs=1000)
    assert "positions/4" not in found.arrays
    assert np.isnan(found.scalars["layout/trustworthiness/4"])


def test_dots_mark_where_units_are_on_every_map_that_is_there() -> None:
    maps = np.zeros((3, 64, 64))
    maps[1] = np.nan
    dots = np.array([[0.25, 0.75], [1.0, 0.0]])
    plain, dotted = (maps_row(maps, NAMES[:3], (1, 0, 1), 2.0, "t", "u", dots=given) for given in (None, dots))
    changed = np.argwhere((plain != dotted).any(axis=2))
    assert len(changed) == 4
    down, across = changed[:, 0] - changed[:, 0].min(), changed[:, 1] - changed[:, 1].min()
    assert sorted(zip(down.tolist(), across.tolist()))[:2] == [(0, 0), (0, 2 * 70)]
    assert (63 - 16, 63 - 16) in list(zip(down.tolist(), across.tolist()))
    assert MISSING


def test_layers_aligned_with_each_other_lie_closer_to_the_first() -> None:
    from netlapse.analysis.layout import turned

    def disagreement(found: Findings) -> float:
        shot = snapshot()
        values = {layer: contrast(shot.statistics.profile(layer)) for layer in ("1", "4")}
        again = turned(places(found, "4"), values["4"], places(found, "1"), values["1"])
        return float(np.linalg.norm(again - places(found, "4"), axis=1).mean())

    plain, aligned = (topomap(snapshot(), None, layout=pca, align_layers=on, quality=False) for on in (False, True))
    np.testing.assert_array_equal(places(plain, "1"), places(aligned, "1"))
    assert disagreement(aligned) < 0.1 * disagreement(plain)


def test_relayout_repeats_every_option_of_the_live_maps() -> None:
    tracker = MemoryTracker()
    options: dict[str, object] = {"against": "outcome", "min_inputs": 2, "limit": "max", "kind": "nearest", "dots": True, "align_layers": True}
    shown = probe()
    observer = Observer(shown, {"nap": nap, "topomap": partial(topomap, **options)}, tracker, layers=["1", "4"], grouping=by_outcome, strict=True)  # type: ignore[arg-type]
    net = network()
    observer.start(net)  # type: ignore[call-arg]
    for step in range(2):
        observer.observe(net, step)
    recording = tracker.recording()
    # Afterwards the largest contrast is known from the first step on; here it is the same at both.
    name, found = relayout(recording, **options)  # type: ignore[arg-type]
    for step in range(2):
        live = recording.findings["topomap"][step]
        for key, values in live.arrays.items():
            np.testing.assert_array_equal(found[step].arrays[key], values)
        for key, picture in live.images.items():
            if key != "storyboard":
                np.testing.assert_array_equal(found[step].images[key.replace("topomap/", f"{name}/")], picture)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"features": "labels"}, r"features='labels'; allowed are \['profiles', 'positions', 'aligned', 'inputs'\]"),
        ({"kind": "cubic"}, r"kind='cubic'; allowed are \['linear', 'nearest', 'gaussian'\]"),
        ({"limit": "largest"}, "limit='largest'; expected a number of at least 0, in standard deviations, or 'max'"),
        ({"min_inputs": 0}, "min_inputs=0; expected at least 1"),
    ],
)
def test_options_that_cannot_be_are_refused_before_training(options: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        topomap.check(snapshot(), **options)  # type: ignore[attr-defined]


def test_units_that_never_change_lie_outside_all_others() -> None:
    net = network()
    with torch.no_grad():
        net.module[0].weight[[3, 7]] = 0  # type: ignore[index]
        net.module[0].bias[[3, 7]] = -1  # type: ignore[index]
    found = topomap(Snapshot(net, probe(), 0, ["1", "4"]), None, layout=random)
    out = np.linalg.norm(places(found, "1") - 0.5, axis=1)
    assert sorted(np.argsort(out)[-2:].tolist()) == [3, 7]
    # Their place is marked, and no map reaches out to it: it is that of the others alone.
    living = np.delete(np.arange(20), [3, 7])
    scaled = contrast(np.asarray(found.arrays["contrast/1"], np.float64))[:, living]
    field = interpolate(places(found, "1")[living], scaled, 64)
    grey = palette("blue_white_red")[MISSING]
    tile = found.images["topomap/1"][:, 12:76]
    top = next(row for row in range(len(tile)) if (tile[row] == grey).all())
    np.testing.assert_array_equal((tile[top : top + 62] == grey).all(axis=2), np.isnan(field[0])[:62])
    marks = np.argwhere((tile[top : top + 64] == palette("blue_white_red")[217]).all(axis=2))
    assert len(marks) == 2
    assert by_label.name == "by_label"
