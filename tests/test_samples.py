"""Laws of sample maps: where inputs lie, what is counted of them, how they are drawn."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist, pdist
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from torch import nn

from netlapse.analysis.layout import flas, pca, random, tsne
from netlapse.analysis.quality import motion, same_group, same_group_by_chance
from netlapse.analysis.samples import balanced, samples
from netlapse.backends.torch import TorchNetwork
from netlapse.probe import by_confidence
from netlapse.render import ink
from netlapse.render.colours import HUES
from netlapse.render.ink import png
from netlapse.render.scatter import MARK, SCATTER, _mark, scatter
from netlapse.types import Findings, Float64, ProbeSet, Snapshot, UInt8
from tests.test_render import LACKING, decoded, linear

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(30, 6)).astype(np.float32) * [1, 1, 2, 3, 5, 8]
LABELS = np.arange(30) % 3
QUARTER = np.array([[0.0, 1.0], [-1.0, 0.0]])
MIRROR = np.array([[1.0, 0.0], [0.0, -1.0]])
ANY = np.array([[0.8, 0.6], [-0.6, 0.8]])


def snapshot(rows: Float64, labels: object = LABELS, step: int = 0, classes: tuple[str, ...] = ("a", "b", "c"), **options: object) -> Snapshot:
    """A network of which layer "0" responds to input i with row i of (n, u), all of them numbers of float32."""
    n, u = rows.shape
    layer = nn.Linear(n, u, bias=False)
    layer.weight.data = torch.tensor(np.asarray(rows, np.float32).T)
    network = TorchNetwork(nn.Sequential(layer, nn.Identity(), nn.Linear(u, 3)))
    probe = ProbeSet(np.eye(n, dtype=np.float32), np.asarray(labels), classes)
    return Snapshot(network, probe, step, ["0"], **options)  # type: ignore[arg-type]


def places(found: Findings, layer: str = "0") -> Float64:
    return np.asarray(found.arrays[f"samples/{layer}"], np.float64)


def placed(found: Findings, positions: Float64) -> Findings:
    """The findings as if the inputs had been at these positions."""
    return Findings({**found.arrays, "samples/0": positions})


def turned(positions: Float64, by: Float64) -> Float64:
    return (positions - 0.5) @ by + 0.5


# ---- where inputs lie ------------------------------------------------------------------------------------------------


def test_by_default_inputs_lie_at_their_principal_components_of_the_balanced_responses() -> None:
    found = places(samples(snapshot(ROWS), None))
    expected = PCA(2, svd_solver="full").fit_transform(balanced(ROWS))
    np.testing.assert_allclose(pdist(found) / pdist(found).max(), pdist(expected) / pdist(expected).max(), atol=1e-6)
    assert np.ptp(found, axis=0).max() == pytest.approx(1)
    raw = PCA(2, svd_solver="full").fit_transform(ROWS)
    as_they_are = places(samples(snapshot(ROWS), None, balance=False))
    np.testing.assert_allclose(pdist(as_they_are) / pdist(as_they_are).max(), pdist(raw) / pdist(raw).max(), atol=1e-6)


def test_balanced_is_its_definition() -> None:
    responses = np.column_stack([ROWS, np.full(30, 0.1)]).astype(np.float32)
    deviations = [float(np.std([float(value) for value in responses[:, unit]])) for unit in range(7)]
    median = sorted(deviations[:6])
    middle = (median[2] + median[3]) / 2
    for unit in range(7):
        column = responses[:, unit].astype(np.float64)
        expected = (column - column.mean()) / max(deviations[unit], middle) if unit < 6 else np.zeros(30)
        np.testing.assert_allclose(balanced(responses)[:, unit], expected, atol=1e-12)


def test_a_loud_unit_made_louder_and_a_whole_layer_made_louder_change_nothing() -> None:
    plain = places(samples(snapshot(ROWS), None))
    np.testing.assert_allclose(places(samples(snapshot(ROWS * [1, 1, 1, 1, 1, 1000]), None)), plain, atol=1e-5)
    np.testing.assert_allclose(places(samples(snapshot(1000 * ROWS), None)), plain, atol=1e-5)
    loud = places(samples(snapshot(ROWS * [1, 1, 1, 1, 1, 1000]), None, balance=False))
    assert np.abs(loud - plain).max() > 0.1


def test_a_quiet_unit_parts_no_inputs_that_all_others_respond_alike_to() -> None:
    rows = ROWS.copy()
    rows[8] = rows[7]
    rows[:, 0] = 0
    rows[7, 0] = 0.01
    found = places(samples(snapshot(rows), None))
    assert 0 < np.linalg.norm(found[7] - found[8]) < 0.005
    standardised = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    assert np.linalg.norm(np.diff(pca(standardised)[[7, 8]], axis=0)) > 0.1


@pytest.mark.parametrize("layout", [pca, tsne])
def test_rounding_is_no_pattern(layout: object) -> None:
    steady = np.where(RNG.random((30, 6)) < 0.5, np.float32(1), np.nextafter(np.float32(1), np.float32(2)))
    assert not balanced(steady.astype(np.float32)).any()
    assert "samples/0" not in samples(snapshot(steady), None, layout=layout).arrays  # type: ignore[arg-type]


def test_inputs_with_the_same_responses_lie_on_each_other() -> None:
    found = places(samples(snapshot(np.vstack([ROWS[:29], ROWS[4]])), None))
    np.testing.assert_allclose(found[29], found[4], atol=1e-9)
    assert np.sort(pdist(found))[1] > 1e-3


@pytest.mark.parametrize("by", [QUARTER, MIRROR, QUARTER @ MIRROR, QUARTER @ QUARTER])
@pytest.mark.parametrize("layout", [pca, random])
def test_the_map_before_turned_or_mirrored_turns_or_mirrors_the_map(by: Float64, layout: object) -> None:
    now, first = snapshot(ROWS + 0.1, step=1), samples(snapshot(ROWS), None, layout=pca)
    plain = samples(now, first, layout=layout)  # type: ignore[arg-type]
    other = samples(now, placed(first, turned(places(first), by)), layout=layout)  # type: ignore[arg-type]
    np.testing.assert_allclose(places(other), turned(places(plain), by), atol=1e-9)
    assert np.abs(places(other) - places(plain)).max() > 0.1


@pytest.mark.parametrize("layout", [pca, random])
def test_the_map_before_turned_by_any_angle_turns_the_map_but_for_its_size(layout: object) -> None:
    now, first = snapshot(ROWS, step=1), samples(snapshot(ROWS), None, layout=pca)
    plain, other = (
        places(samples(now, placed(first, before), layout=layout))  # type: ignore[arg-type]
        for before in (places(first), turned(places(first), ANY))
    )
    plain, other = (plain - plain.mean(axis=0)) @ ANY, other - other.mean(axis=0)
    np.testing.assert_allclose(other / np.linalg.norm(other), plain / np.linalg.norm(plain), atol=1e-9)


def test_no_turned_or_mirrored_map_lies_closer_to_the_one_before_and_without_procrustes_one_may() -> None:
    def centred(points: Float64) -> Float64:
        points = points - points.mean(axis=0)
        return points / np.linalg.norm(points)

    first = samples(snapshot(ROWS), None)
    aligned, free = (centred(places(samples(snapshot(ROWS), first, layout=random, procrustes=on))) for on in (True, False))
    angles = np.linspace(0, 2 * np.pi, 721)
    turns = [np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]]) @ flip for a in angles for flip in (np.eye(2), MIRROR)]
    best, least = (min(np.linalg.norm(points @ turn - centred(places(first))) for turn in turns) for points in (aligned, free))
    assert np.linalg.norm(aligned - centred(places(first))) == pytest.approx(best, abs=1e-5)
    assert np.linalg.norm(free - centred(places(first))) > least + 0.01


def test_a_layout_is_handed_the_positions_of_the_checkpoint_before_of_the_same_inputs_alone() -> None:
    handed: list[Float64 | None] = []

    def listening(profiles: Float64, *, seed: int, previous: Float64 | None) -> Float64:
        handed.append(previous)
        return pca(profiles, seed=seed, previous=previous)

    first = samples(snapshot(ROWS), None, layout=listening)
    samples(snapshot(ROWS, step=1), first, layout=listening)
    samples(snapshot(ROWS, step=1), first, layout=listening, limit_inputs=12)
    assert handed[0] is None
    np.testing.assert_array_equal(handed[1], places(first))
    assert handed[2] is None


def test_the_inputs_shown_are_the_first_of_each_class_then_the_second_and_so_on() -> None:
    labels = np.array([2, 2, 2, 2, 0, 0, 0, 1, 1, 2])
    for limit, expected in ((1, [4]), (3, [0, 4, 7]), (4, [0, 4, 5, 7]), (8, [0, 1, 2, 4, 5, 6, 7, 8]), (500, list(range(10)))):
        found = samples(snapshot(ROWS[:10], labels), None, limit_inputs=limit)
        assert found.arrays["inputs"].tolist() == expected
        assert found.arrays["labels"].tolist() == labels[expected].tolist()
        assert places(found).shape == (len(expected), 2)


# ---- what is counted -------------------------------------------------------------------------------------------------


def test_motion_is_that_of_layouts_and_needs_a_checkpoint_before() -> None:
    first = samples(snapshot(ROWS), None)
    assert not [name for name in first.scalars if "motion" in name]
    second = samples(snapshot(ROWS + 0.5 * RNG.normal(size=ROWS.shape), step=1), first)
    assert second.scalars["samples/motion/0"] == motion(places(second), places(first)) > 0.01


@pytest.mark.parametrize("k", [1, 4, 10])
def test_the_shares_are_those_of_nearest_neighbours_by_scikit_learn(k: int) -> None:
    def share(points: Float64) -> float:
        near = NearestNeighbors(n_neighbors=k + 1).fit(points).kneighbors(points, return_distance=False)[:, 1:]
        return float((LABELS[near] == LABELS[:, None]).mean())

    rows = ROWS + 3 * np.eye(3, 6)[LABELS]
    found = samples(snapshot(rows), None, k=k)
    assert found.scalars["samples/same_group/0"] == pytest.approx(share(balanced(rows.astype(np.float32))))
    assert found.scalars["samples/same_group_map/0"] == pytest.approx(share(places(found)))
    assert found.scalars["samples/same_group/0"] != found.scalars["samples/same_group_map/0"]


def test_the_share_in_the_layer_is_in_the_metric_of_the_layout() -> None:
    found = samples(snapshot(ROWS), None, layout=partial(pca, metric="cosine"), k=3)
    rows = balanced(ROWS.astype(np.float32))
    near = np.argsort(cdist(rows, rows, "cosine") + 9 * np.eye(30), axis=1)[:, :3]
    assert found.scalars["samples/same_group/0"] == pytest.approx((LABELS[near] == LABELS[:, None]).mean())


def test_equally_near_points_share_the_places_and_chance_is_the_mean_over_all_ways_to_deal_out_groups() -> None:
    line = np.array([[0.0], [1.0], [2.0], [10.0], [11.0]])
    # The nearest of 1 are 0 and 2, equally: half of its one place is the a at 0. Of the others: 0 -> 1 yes, 2 -> 1 no, 10 and 11 yes.
    assert same_group(line, np.array([0, 0, 1, 2, 2]), k=1) == pytest.approx((1 + 0.5 + 0 + 1 + 1) / 5)
    deals = set(itertools.permutations([0, 0, 1, 2, 2]))
    mean = np.mean([same_group(line, np.array(deal), k=2) for deal in deals])
    assert same_group_by_chance(np.array([0, 0, 1, 2, 2])) == pytest.approx(mean) == pytest.approx(0.2)
    assert same_group(np.zeros((40, 2)), np.arange(40) % 4) == pytest.approx(same_group_by_chance(np.arange(40) % 4))


def test_one_group_is_always_at_home_and_a_group_apart_from_others_too() -> None:
    assert same_group(ROWS, np.zeros(30, int)) == same_group_by_chance(np.zeros(30, int)) == 1
    assert same_group(np.vstack([ROWS, ROWS + 1e3]), np.repeat([0, 1], 30)) == 1
    assert same_group_by_chance(np.repeat([0, 1], 30)) == pytest.approx(29 / 59)


def test_shares_of_too_few_points_are_undefined_and_groups_that_are_not_one_each_are_refused() -> None:
    assert np.isnan(same_group(ROWS[:3], np.zeros(3, int)))
    assert np.isnan(same_group_by_chance(np.zeros(1, int)))
    with pytest.raises(ValueError, match=r"groups have shape \(4,\); expected \(30,\), one for each point"):
        same_group(ROWS, np.zeros(4, int))


def test_predictions_are_where_the_logits_are_largest_and_minus_one_where_there_are_none() -> None:
    torch.manual_seed(0)
    shot = snapshot(ROWS)
    logits = shot.network.outputs(shot.probe.inputs)
    assert samples(shot, None).arrays["predictions"].tolist() == logits.argmax(axis=1).tolist()
    torch.manual_seed(0)
    few = samples(snapshot(ROWS, np.sort(LABELS)), None, limit_inputs=5).arrays
    assert few["predictions"].tolist() == logits.argmax(axis=1)[[0, 1, 10, 11, 20]].tolist()
    broken = snapshot(ROWS)
    broken.network.module[2].bias.data[1] = np.nan  # type: ignore[attr-defined]
    found = samples(broken, None)
    assert found.arrays["predictions"].tolist() == [-1] * 30
    np.testing.assert_array_equal(places(found), places(samples(shot, None)))
    silent = Snapshot(TorchNetwork(nn.Sequential(nn.Linear(30, 4), nn.Unflatten(1, (2, 2)))), shot.probe, 0, ["0"])
    assert samples(silent, None).arrays["predictions"].tolist() == [-1] * 30


def test_groups_are_those_of_the_grouping_at_this_step() -> None:
    shot = snapshot(ROWS, grouping=by_confidence(2))
    found = samples(shot, None, limit_inputs=9)
    chosen = found.arrays["inputs"].astype(int)
    groups, names = by_confidence(2)(shot.probe, shot.network.outputs(shot.probe.inputs))
    assert found.arrays["groups"].tolist() == groups[chosen].tolist()
    assert found.arrays["names"].tolist() == list(names)


# ---- what cannot be drawn --------------------------------------------------------------------------------------------


def said(monkeypatch: pytest.MonkeyPatch, shot: Snapshot, previous: Findings | None = None, **options: object) -> tuple[object, str, str]:
    """What is handed to the picture of layer 0: points or reason, title, note."""
    handed: list[object] = []
    with monkeypatch.context() as patch:
        patch.setattr("netlapse.analysis.samples.scatter", lambda *given: handed.append(given) or np.zeros((1, 1, 3), np.uint8))
        samples(shot, previous, **options)  # type: ignore[arg-type]
    points, _, _, title, *note = handed[0]  # type: ignore[misc]
    return points, title, "".join(note)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_layer_that_is_not_finite_says_so_keeps_its_positions_and_goes_on_from_them(value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    first, lost = samples(snapshot(ROWS, step=3), None), Snapshot(infinite(value), snapshot(ROWS).probe, 4, ["0"])
    reason, title, note = said(monkeypatch, lost, first)
    assert re.match(r"responses to 30 of 30 inputs are not finite, first to input 0", str(reason))
    assert (title, note) == ("0 \u00b7 6 units \u00b7 step 4", "")
    found = samples(lost, first)
    assert "samples/0" not in found.arrays
    np.testing.assert_array_equal(found.arrays["kept/0"], places(first))
    assert np.isnan([found.scalars[f"samples/{name}/0"] for name in ("same_group", "same_group_map", "same_group_null")]).all()
    assert "samples/motion/0" not in found.scalars
    still = samples(lost, found)
    again = samples(snapshot(ROWS, step=5), still)
    np.testing.assert_allclose(places(again), places(first), atol=1e-9)
    assert again.scalars["samples/motion/0"] == pytest.approx(0, abs=1e-9)
    assert "kept/0" not in again.arrays
    assert not {"samples/0", "kept/0"} & set(samples(lost, None).arrays)


def infinite(value: float) -> TorchNetwork:
    network = snapshot(ROWS).network
    assert isinstance(network, TorchNetwork)
    network.module[0].weight.data[2, 0] = value  # type: ignore[index]
    return network


def test_a_layer_that_responds_alike_to_every_input_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert said(monkeypatch, snapshot(np.full((30, 6), 0.3)))[0] == "every unit responds alike to every input"


@pytest.mark.parametrize("layout", [pca, tsne, flas, random])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_few_inputs_are_drawn(layout: object, n: int) -> None:
    first = samples(snapshot(ROWS[:n], LABELS[:n]), None, layout=layout)  # type: ignore[arg-type]
    second = samples(snapshot(ROWS[:n], LABELS[:n], step=1), first, layout=layout)  # type: ignore[arg-type]
    for found in (first, second):
        assert places(found).shape == (n, 2)
        assert np.isfinite(places(found)).all()
        assert len(shown(found.images["samples/0"])) == n


def test_a_layer_of_one_unit_is_a_line_in_the_order_of_its_responses() -> None:
    found = places(samples(snapshot(ROWS[:, :1]), None))
    assert np.ptp(found[:, 1]) == 0
    assert np.argsort(found[:, 0]).tolist() in (np.argsort(ROWS[:, 0]).tolist(), np.argsort(-ROWS[:, 0]).tolist())


def test_the_picture_says_layer_step_layout_and_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    points, title, note = said(monkeypatch, snapshot(ROWS, step=2), k=5, layout=partial(pca, metric="cosine"))
    assert np.shape(points) == (30, 2)
    assert title == "0 \u00b7 6 units \u00b7 step 2, pca of 30 inputs"
    found = samples(snapshot(ROWS, step=2), None, k=5, layout=partial(pca, metric="cosine"))
    own, on_map, chance = (f"{found.scalars[f'samples/{name}/0']:.0%}" for name in ("same_group", "same_group_map", "same_group_null"))
    assert note == f"How many of an input's 5 nearest are of its own group: {own} in the layer, {on_map} on the map, {chance} by chance"
    assert said(monkeypatch, snapshot(ROWS[:3], LABELS[:3]))[2] == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limit_inputs": 0}, "limit_inputs=0; expected a number of inputs, at least 1"),
        ({"k": 2.5}, "k=2.5; expected a number of inputs, at least 1"),
        ({"layout": partial(pca, metric="cosin")}, "unknown metric 'cosin'"),
        ({"layout": lambda rows, **_: rows}, r"layout returned positions of shape \(16, 3\) for 16 inputs; expected \(16, 2\)"),
    ],
)
def test_options_that_cannot_be_are_refused_before_training(options: Mapping[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        samples.check(snapshot(ROWS), **options)  # type: ignore[attr-defined]


# ---- pictures --------------------------------------------------------------------------------------------------------


def square(picture: UInt8) -> UInt8:
    """The part of a picture with the points, inside its frame, whose first row is the first of one colour that is not paper."""
    rows = picture[:, ink.MARGIN : ink.MARGIN + SCATTER]
    top = int(np.argmax((rows == rows[:, :1]).all(axis=(1, 2)) & (rows[:, 0] < 255).all(axis=1)))
    return rows[top + 1 : top + SCATTER - 1, 1:-1]


def shown(picture: UInt8) -> list[tuple[float, float, int]]:
    """(x, y, group) of the discs in a picture that touch no other, of the first ten groups."""
    from scipy.ndimage import center_of_mass, label

    inside, found = square(picture), []
    for group, hue in enumerate(HUES):
        regions, count = label((inside == hue).all(axis=2))
        found += [(x, y, group) for y, x in center_of_mass(regions > 0, regions, range(1, count + 1))]
    return found


def test_each_point_is_drawn_at_its_place_in_the_colour_of_its_group() -> None:
    points = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.3, 0.6], [1.0, 1.0]])
    found = {group: (x, y) for x, y, group in shown(scatter(points, np.array([0, 1, 2, 3, 9]), [str(i) for i in range(10)], "title"))}
    assert sorted(found) == [0, 1, 2, 3, 9]
    across, down = found[1][0] - found[0][0], found[0][1] - found[2][1]
    assert across == down > 0.9 * SCATTER
    for group, place in zip((0, 1, 2, 3, 9), points):
        drawn = (found[group][0] - found[0][0]) / across, (found[0][1] - found[group][1]) / down
        np.testing.assert_allclose(drawn, place, atol=0.5 / across)


def test_ten_colours_are_told_apart_with_any_kind_of_colour_vision_and_from_paper() -> None:
    to_xyz = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]])
    for cones in (np.eye(3), *map(np.array, LACKING.values())):
        seen = np.clip(linear(np.array([*HUES, (255, 255, 255)], float)) @ cones.T, 0, 1)
        relative = seen @ to_xyz.T / to_xyz.sum(axis=1)
        f = np.where(relative > 216 / 24389, np.cbrt(relative), (24389 / 27 * relative + 16) / 116)
        lab = np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)
        assert pdist(lab).min() > 15  # CIE 1976; of tab10, without red cones, two are 5 apart


def test_a_hundred_groups_have_a_hundred_marks_and_all_others_one_more() -> None:
    marks = [_mark(group) for group in range(102)]
    assert len({mark.tobytes() for mark in marks}) == 101
    assert marks[100] is not marks[99]
    np.testing.assert_array_equal(marks[100], marks[101])
    shapes = [(mark < 10) for mark in marks[:100:10]]
    assert all(1 < shape.sum() < MARK**2 for shape in shapes)
    for one, other in itertools.combinations(shapes, 2):
        assert (one != other).sum() >= 8


def test_a_group_keeps_its_mark_whether_others_have_points_or_not() -> None:
    points, names = np.array([[0.2, 0.2], [0.8, 0.8]]), ["a", "b", "c", "d"]
    one, other = scatter(points, np.array([0, 3]), names, "t"), scatter(points, np.array([1, 3]), names, "t")
    assert [group for *_, group in shown(one)] == [0, 3]
    assert [group for *_, group in shown(other)] == [1, 3]
    assert one.shape == other.shape


def test_which_point_covers_which_has_nothing_to_do_with_groups() -> None:
    points, groups = np.repeat([[0.1, 0.5], [0.3, 0.5], [0.5, 0.5], [0.7, 0.5], [0.9, 0.5]], 2, axis=0), np.arange(10) % 2
    above, swapped = (sorted(shown(scatter(points, given, ["a", "b"], "t"))) for given in (groups, 1 - groups))
    assert [group for *_, group in above] == [1 - group for *_, group in swapped]
    assert len({group for *_, group in above}) == 2


def test_a_reason_stands_in_the_place_of_points() -> None:
    picture = scatter("nothing to see", np.array([0, 1]), ["a", "b"], "t")
    inside = picture[60 : SCATTER - 60, ink.MARGIN + 20 : SCATTER - 20]
    assert (inside == (237, 237, 237)).all(axis=2).mean() > 0.9
    assert not (inside == HUES[0]).all(axis=2).any()
    assert (inside == (24, 24, 28)).all(axis=2).any()
    assert (picture != scatter("something else", np.array([0, 1]), ["a", "b"], "t")).any()


def test_a_picture_is_a_small_palette_png_and_the_same_each_time() -> None:
    points, groups = RNG.random((500, 2)), RNG.integers(0, 30, 500)
    picture = scatter(points, groups, [str(i) for i in range(30)], "t", "n")
    assert len(png(picture)) < 100_000
    np.testing.assert_array_equal(decoded(png(picture)), picture)
    np.testing.assert_array_equal(scatter(points, groups, [str(i) for i in range(30)], "t", "n"), picture)


@pytest.mark.parametrize(
    ("points", "groups", "names", "message"),
    [
        (np.zeros((2, 3)), np.zeros(2, int), ["a"], r"points have shape \(2, 3\); expected \(2, 2\), all in \[0, 1\]"),
        (np.full((2, 2), 1.1), np.zeros(2, int), ["a"], r"all in \[0, 1\]"),
        (np.full((2, 2), np.nan), np.zeros(2, int), ["a"], r"all in \[0, 1\]"),
        (np.zeros((2, 2)), np.array([0, 1]), ["a"], r"groups have shape \(2,\) and there are 1 names"),
        (np.zeros((2, 2)), np.array([0, -1]), ["a"], "indices of the names"),
        ("why", np.zeros(0, int), [], "at least one name"),
    ],
)
def test_points_that_cannot_be_drawn_are_refused(points: Float64 | str, groups: object, names: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scatter(points, np.asarray(groups), names, "t")


# ---- recorded --------------------------------------------------------------------------------------------------------


def test_live_is_offline_bit_for_bit_and_a_layout_for_samples_leaves_that_of_topomaps_alone(tmp_path: Path) -> None:
    from netlapse.cli import run_training
    from netlapse.recompose import chosen
    from netlapse.tracking.folder import read
    from tests.test_conf import composed
    from tests.test_reanalysis import TRAINED, assert_same, files, reanalysed

    live, offline = tmp_path / "live", tmp_path / "offline"
    own = ["analyses=samples", "layout@analyses.samples.layout=tsne", "analyses.samples.limit_inputs=20"]
    run_training(composed([*TRAINED, "trainer.max_epochs=1", "layout=pca", *own, "tracker=folder", f"tracker.folder={live}"]))
    assert reanalysed(f"checkpoints={live / 'checkpoints'}", "model=cnn_tiny", "data=digits", "probe.per_class=4", "layout=pca", *own,
                      "tracker=folder", f"tracker.folder={offline}")  # fmt: skip
    assert_same(read(live), read(offline), "samples", "topomap")
    assert files(live / "images") == files(offline / "images")
    assert read(live).findings["samples"][1].arrays["samples/relu1"].shape == (20, 2)
    asked = chosen(composed(own, "reanalyse"), own)
    assert "layout" not in asked
    assert "tsne" in str(asked["analyses.samples.layout"])
