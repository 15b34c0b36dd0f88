"""Laws of the figures for papers: what is drawn where, that it can be read, and that nothing stays behind."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from PIL import Image
from scipy.cluster.hierarchy import leaves_list

from netlapse.analysis.groups import linkage, order
from netlapse.analysis.nap import contrast, nap
from netlapse.analysis.topomap import topomap
from netlapse.data import digits
from netlapse.figures import (
    COLUMN,
    PAGE,
    Sheet,
    clustered_heat_map,
    dendrogram,
    example_inputs,
    groups_of,
    heat_map,
    mean_inputs,
    recorded,
    recorded_probe,
    save,
    storyboard,
    topomap_grid,
    topomap_row,
    violins,
)
from netlapse.figures.__main__ import FIGURES, main
from netlapse.figures.sheet import own_style
from netlapse.observer import Observer
from netlapse.probe import by_confusion, by_label, by_outcome, from_data
from netlapse.recording import Recording
from netlapse.render.colours import BLUE_WHITE_RED, COLOURS
from netlapse.tracking.folder import FolderTracker
from netlapse.tracking.probes import PROBE, to_bytes
from netlapse.types import Findings, Float64, ProbeSet, UInt8
from tests.page_recording import made_up_run

ROOT = Path(__file__).parent.parent
LOWEST, ZERO, HIGHEST = (COLOURS[BLUE_WHITE_RED][level].tolist() for level in (0, 100, 200))
CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])


def run(profile: Float64, names: list[str], *, counts: list[int] | None = None, scale: float = 1.0, **manifest: object) -> Recording:
    """One step, 7, of one layer "fc", whose four units are at the corners of the map and whose deviation is `scale`."""
    arrays = {
        "groups": np.array(names),
        "counts": np.array(counts if counts is not None else [2] * len(names)),
        "profile/fc": profile,
        "scale/fc": np.array(scale),
    }
    places = {"positions/fc": CORNERS[: profile.shape[1]], "layout_step/fc": np.array(5)}
    return Recording({"step_unit": "epoch", **manifest}, {"nap": {7: Findings(arrays)}, "topomap": {7: Findings(places)}})


def shown(sheet: Sheet) -> list[Text]:
    """The words that are drawn: not those of axes that are off, nor of ticks beyond their ends."""
    found = [text for text in sheet.texts if text.get_text().strip()]
    for axes in sheet.axes:
        found += axes.texts
        if axes.axison:
            low, high = sorted(axes.get_xlim())
            found += [axes.xaxis.label, *(label for label in axes.get_xticklabels() if low <= label.get_position()[0] <= high)]
    return [text for text in found if text.get_text()]


def words(sheet: Sheet) -> list[str]:
    return [text.get_text() for text in shown(sheet)]


def maps(sheet: Sheet) -> list[tuple[Axes, UInt8]]:
    """The pictures with an alpha channel, which maps alone have, row by row from the top left."""
    found = [(axes, image.get_array()) for axes in sheet.axes for image in axes.images if image.get_array().shape[-1] == 4]
    return sorted(found, key=lambda one: (-round(one[0].get_position().y0, 3), one[0].get_position().x0))


def at(image: UInt8, x: float, y: float) -> list[int]:
    """The colour of the point (x, y), 0 to 1 from the lower left."""
    r = len(image)
    return image[min(r - 1, int((1 - y) * r)), min(r - 1, int(x * r)), :3].tolist()


# ------------------------------------------------------------------------------------------------------ what is drawn


def test_a_unit_is_drawn_where_it_lies_in_the_colour_of_its_contrast_in_deviations():
    # Contrasts of the first group: (-3, 0, 3, 6) halved by the deviation: -1.5, 0, 1.5, 3; of the second their opposites.
    profile = np.array([[-3.0, 0.0, 3.0, 6.0], [3.0, 0.0, -3.0, -6.0]])
    first, second = (image for _, image in maps(topomap_row(run(profile, ["a", "b"], scale=2.0), "fc", kind="nearest")))
    seen = [at(first, x, y) for x, y in CORNERS]
    assert seen == [COLOURS[BLUE_WHITE_RED][25].tolist(), ZERO, COLOURS[BLUE_WHITE_RED][175].tolist(), HIGHEST]
    assert at(second, 1, 1) == LOWEST
    assert at(second, 0, 0) == seen[2]


def test_the_scale_of_max_ends_at_the_largest_value_of_all_groups_and_says_so():
    profile = np.array([[-3.0, 0.0, 3.0, 6.0], [3.0, 0.0, -3.0, -6.0]])
    sheet = topomap_row(run(profile, ["a", "b"]), "fc", limit="max", kind="nearest")
    image = maps(sheet)[0][1]
    assert [at(image, x, y) for x, y in CORNERS] == [COLOURS[BLUE_WHITE_RED][level].tolist() for level in (50, 100, 150, 200)]
    assert {"\u22126", "0", "6"} <= set(words(sheet))
    assert {"\u2264 \u22122", "\u2265 2"} <= set(words(topomap_row(run(profile, ["a", "b"]), "fc")))
    assert {"\u22127", "7"} <= set(words(topomap_row(run(profile, ["a", "b"]), "fc", limit=7)))


def test_outside_of_the_layout_nothing_is_drawn_and_a_line_tells_it_from_zero():
    triangle = run(np.array([[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]), ["a", "b"])
    (axes, image), _ = maps(topomap_row(triangle, "fc"))
    alpha = image[..., 3]
    r = len(alpha)
    assert alpha[int(0.9 * r), int(0.05 * r)] == 255  # by (0, 0)
    assert alpha[int(0.05 * r), int(0.9 * r)] == 0  # by (1, 1)
    line = np.concatenate([path.vertices for collection in axes.collections for path in collection.get_paths()])
    assert np.abs(line.sum(axis=1) - 1).min() < 0.02
    assert line.min() < 0.02
    assert (line.sum(axis=1) < 1.03).all()


def test_a_group_without_inputs_says_so_and_has_no_map():
    profile = np.array([[1.0, 2, 3, 4], [np.nan] * 4, [4.0, 3, 2, 1]])
    sheet = topomap_row(run(profile, ["a", "b", "c"], counts=[3, 0, 5]), "fc")
    assert len(maps(sheet)) == 2
    assert words(sheet).count("no inputs") == 1
    assert {"n = 3", "n = 0", "n = 5"} <= set(words(sheet))


def test_the_title_says_layer_units_step_and_whose_layout():
    recording = run(np.eye(4), list("abcd"))
    assert "fc \u00b7 4 units \u00b7 epoch 7, layout of epoch 5" in words(topomap_row(recording, "fc"))
    assert "Figure 1" in words(topomap_row(recording, "fc", title="Figure 1"))
    assert not any("fc" in word for word in words(topomap_row(recording, "fc", title="")))
    joint = {**recording.findings, "topomap_joint": {7: Findings({"positions/fc": CORNERS[::-1], "layout_step/fc": np.array(-1)})}}
    again = topomap_row(Recording(recording.manifest, joint), "fc", layout="topomap_joint", kind="nearest")
    assert any("one layout for all epochs" in word for word in words(again))
    assert at(maps(again)[0][1], 1, 1) == at(maps(topomap_row(recording, "fc", kind="nearest"))[0][1], 0, 0)


def test_groups_come_as_given_or_in_the_order_of_their_clustering():
    profile = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0.1], [1, 0.1, 0, 0], [0, 0, 1, 0.0]])
    recording = run(profile, list("abcd"))

    def named(**options):
        return [text.get_text() for text in topomap_row(recording, "fc", **options).texts if text.get_text() in "abcd"]

    assert named() == list("abcd")
    assert named(groups=["d", "a"]) == ["d", "a"]
    clustered = named(order="clustered")
    assert clustered == ["abcd"[group] for group in order(contrast(profile))]
    assert sorted([{*clustered[:2]}, {*clustered[2:]}], key=min) == [{"a", "c"}, {"b", "d"}]
    assert named(order="clustered", groups=["d", "a", "b"]) in (["d", "b", "a"], ["b", "d", "a"], ["a", "d", "b"], ["a", "b", "d"])


def test_colour_bar_and_dots_are_there_when_asked_for():
    recording = run(np.eye(4), list("abcd"))
    bare, full = topomap_row(recording, "fc", colour_bar=False), topomap_row(recording, "fc", dots=True)
    assert not any("standard deviations" in word for word in words(bare))
    assert any("standard deviations" in word for word in words(full))
    assert bare.height < full.height
    axes, _ = maps(full)[0]
    np.testing.assert_array_equal(np.transpose(axes.lines[0].get_data()), CORNERS)
    assert not maps(bare)[0][0].lines


@pytest.mark.parametrize("chosen", [None, ["dog", "a cat"]])
def test_a_confusion_matrix_has_true_down_and_predicted_across(chosen):
    classes = ["a cat", "dog", "as is"]
    names = [f"{true} as {predicted}" for true in classes for predicted in classes]
    profile = np.stack([np.arange(9.0) - 4, np.zeros(9), np.zeros(9), np.zeros(9)], axis=1)
    recording = run(profile, names, class_names=classes)
    drawn = chosen or classes
    images = [image for _, image in maps(topomap_grid(recording, "fc", classes=chosen, kind="nearest", limit=4))]
    expected = [COLOURS[BLUE_WHITE_RED][25 * names.index(f"{true} as {predicted}")].tolist() for true in drawn for predicted in drawn]
    assert [at(image, 0, 0) for image in images] == expected


def test_groups_by_outcome_are_two_rows():
    names = ["x correct", "x wrong", "y correct", "y wrong"]
    profile = np.array([[-2.0, 0, 0, 0], [-1, 0, 0, 0], [np.nan] * 4, [3, 0, 0, 0]])
    sheet = topomap_grid(run(profile, names, counts=[4, 1, 0, 2], class_names=["x", "y"]), "fc", kind="nearest", limit=4)
    levels = [np.flatnonzero((COLOURS[BLUE_WHITE_RED][:201] == at(image, 0, 0)).all(axis=1))[0] for _, image in maps(sheet)]
    assert levels == [50, 75, 175]  # correct x; wrong x and y
    assert words(sheet).count("no inputs") == 1
    assert {"correct", "wrong", "x", "y", "n = 4", "n = 1", "n = 2"} <= set(words(sheet))


def test_a_storyboard_has_layers_down_and_steps_across_and_says_what_is_missing():
    recording = made_up_run(steps=3, layers={"one": 12, "two": 30}, inputs=0)
    broken = {name: values.copy() for name, values in recording.findings["nap"][1].arrays.items()}
    broken["profile/two"][0, 3] = np.nan
    nap = {**recording.findings["nap"], 1: Findings(broken)}
    recording = Recording(recording.manifest, {**recording.findings, "nap": nap})
    sheet = storyboard(recording, ["two", "one"], [2, 1], "4")
    drawn = [image for _, image in maps(sheet)]
    assert len(drawn) == 3
    assert any("1 of 30 units is not" in word.replace("\n", " ") for word in words(sheet))
    for image, layer, step in zip(drawn, ["two", "one", "one"], [2, 2, 1]):
        alone = maps(storyboard(recording, [layer], [step, step], "4"))[0][1]
        centre = len(image) // 2
        np.testing.assert_array_equal(image[centre, centre], alone[len(alone) // 2, len(alone) // 2])
    assert "group 4, each epoch in its own layout" in words(sheet)


def beside(sheet: Sheet) -> list[str]:
    """The names at the right edge, from the top."""
    return [text.get_text() for text in sorted(sheet.texts, key=lambda text: -text.get_position()[1]) if text.get_position()[0] > 0.85]


def heat(sheet: Sheet) -> UInt8:
    """The pixels of the heat map, the only picture of more than one row."""
    (found,) = [image.get_array() for axes in sheet.axes for image in axes.images if image.get_array().shape[0] > 1]
    return np.asarray(found)


def test_a_heat_map_has_groups_down_and_units_across():
    profile = np.array([[-2.0, -1, 0, 1], [np.nan] * 4, [2.0, 1, 0, -1]])
    sheet = heat_map(run(profile, ["a", "b", "c"], counts=[1, 0, 1]), "fc")
    assert heat(sheet)[0].tolist() == [COLOURS[BLUE_WHITE_RED][level].tolist() for level in (0, 50, 100, 150)]
    assert heat(sheet)[2].tolist() == [COLOURS[BLUE_WHITE_RED][level].tolist() for level in (200, 150, 100, 50)]
    axes = next(axes for axes in sheet.axes for image in axes.images if image.get_array().shape[0] > 1)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "1", "2", "3"]
    assert beside(sheet) == ["a", "b", "c"]
    assert "no inputs" in words(sheet)


def test_a_clustered_heat_map_is_the_heat_map_with_rows_and_columns_moved_with_their_names():
    recording = made_up_run(steps=2, layers={"one": 9}, groups=6, empty=(2,), inputs=0)
    plain, clustered = heat_map(recording, "one", limit=1), clustered_heat_map(recording, "one", limit=1)
    axes = next(axes for axes in clustered.axes for image in axes.images if image.get_array().shape[0] > 1)
    units = [int(label.get_text()) for label in axes.get_xticklabels()]
    groups = [int(name) for name in beside(clustered)]
    assert sorted(units) == list(range(9))
    assert sorted(groups) == [0, 1, 3, 4, 5]
    assert units != sorted(units)
    np.testing.assert_array_equal(heat(clustered), heat(plain)[groups][:, units])
    assert "without inputs: 2" in words(clustered)


def test_a_dendrogram_joins_its_groups_at_their_distance():
    recording = made_up_run(steps=2, layers={"one": 9}, groups=6, empty=(2,), inputs=0)
    sheet = dendrogram(recording, "one")
    profile = np.asarray(recording.findings["nap"][1].arrays["profile/one"])
    contrasts = (profile - np.nanmean(profile, axis=0))[[0, 1, 3, 4, 5]]
    tree = linkage(contrasts)
    joints = sorted(max(line.get_xdata()) for axes in sheet.axes for line in axes.lines)
    np.testing.assert_allclose(joints, sorted(tree[:, 2]), rtol=1e-9)
    leaves = [str(np.array([0, 1, 3, 4, 5])[leaf]) for leaf in leaves_list(tree)]
    assert beside(sheet) == leaves
    assert "without inputs: 2" in words(sheet)
    assert "cosine distance, average linkage" in words(sheet)
    heights = {text.get_text(): text.get_position()[1] for text in sheet.texts}
    first = next(axes for axes in sheet.axes if axes.lines)
    ends = [y for line in first.lines for x, y in zip(*line.get_data()) if x == 0]
    to_sheet = [first.transData.transform((0, y))[1] / sheet.bbox.height for y in sorted(ends)]
    np.testing.assert_allclose(to_sheet, [heights[name] for name in leaves], atol=1e-6)


def test_violins_show_every_repeat_and_the_median():
    values = {"b": np.array([0.3, 0.1, 0.2, 0.9]), "a": np.array([0.5]), "same": np.full(4, 0.25)}
    sheet = violins(values, label="trustworthiness", title="Layouts")
    (axes,) = sheet.axes
    points = [line.get_data() for line in axes.lines if line.get_marker() == "."]
    medians = [line.get_data() for line in axes.lines if line.get_marker() != "."]
    for row, (repeats, (x, y), (middle, _)) in enumerate(zip(values.values(), points, medians)):
        np.testing.assert_array_equal(x, repeats)
        assert (np.abs(y - row) < 0.5).all()
        assert set(middle) == {np.median(repeats)}
    assert len(np.unique(points[2][1])) == 4  # equal values do not hide each other
    bodies = [path.vertices for collection in axes.collections for path in collection.get_paths() if len(path.vertices) > 9]
    assert len(bodies) == 1
    assert (bodies[0][:, 0].min(), bodies[0][:, 0].max()) == (0.1, 0.9)
    assert {"b", "a", "same", "trustworthiness", "Layouts", "n = 4", "n = 1"} <= set(words(sheet))
    for x, y in zip(*points[0]):
        inside = bodies[0][np.abs(bodies[0][:, 0] - x) < 0.005, 1]
        assert inside.min() <= y <= inside.max()


# ------------------------------------------------------------------------------------------------------------- inputs


def probe() -> ProbeSet:
    rng = np.random.default_rng(0)
    attributes = {"size": np.array(["S", "L", "S", "L", "S"]), "hue": np.array(["b", "b", "b", "r", "r"])}
    return ProbeSet(rng.random((5, 3, 2, 1)), np.array([1, 0, 1, 1, 0]), ["zero", "one"], attributes)


def test_examples_are_the_first_of_their_group_and_means_their_mean():
    asked = probe()
    groups = np.array([2, 0, 2, 2, 0])
    examples, means = example_inputs(asked, groups, 4), mean_inputs(asked, groups, 4)
    np.testing.assert_array_equal(examples[[0, 2]], asked.inputs[[1, 0]])
    np.testing.assert_allclose(means[2], (asked.inputs[0].astype(float) + asked.inputs[2] + asked.inputs[3]) / 3, rtol=1e-7)
    assert np.isnan(examples[[1, 3]]).all()
    assert np.isnan(means[[1, 3]]).all()


def test_groups_of_label_and_attributes_are_known_from_the_record():
    asked = probe()
    recording = run(np.eye(2, 4), ["zero", "one"], probe={"grouping": "by_label", "hash": asked.hash})
    assert groups_of(recording, asked)[0].tolist() == [1, 0, 1, 1, 0]
    recording = run(np.eye(2, 4), ["?"], probe={"grouping": "by_attribute(size, hue)", "hash": asked.hash})
    groups, names = groups_of(recording, asked)
    assert [names[group] for group in groups] == ["S / b", "L / b", "S / b", "L / r", "S / r"]
    with pytest.raises(ValueError, match="the probe is not the one of this recording"):
        groups_of(recording, ProbeSet(asked.inputs, asked.labels))
    with pytest.raises(ValueError, match=r"not known from the record for the grouping 'by_outcome'; ask the network, as in groups, names ="):
        groups_of(run(np.eye(2, 4), ["?"], probe={"grouping": "by_outcome"}), asked)


def centre(axes: Axes) -> float:
    return float(axes.get_position().x0 + axes.get_position().x1) / 2


def test_the_inputs_of_a_group_stand_over_its_map():
    pictures = np.linspace(0, 1, 3)[:, None, None, None] * np.ones((3, 2, 2, 1))
    recording = run(np.eye(3, 4), list("abc"))
    sheet = topomap_row(recording, "fc", inputs=pictures, groups=["c", "a"])
    over = {axes: image.get_array() for axes in sheet.axes for image in axes.images if image.get_array().shape == (2, 2, 3)}
    assert len(over) == 2
    for (axes, _), brightness in zip(maps(sheet), (255, 0)):
        (above,) = [one for one in over if abs(centre(one) - centre(axes)) < 1e-6]
        assert above.get_position().y0 >= axes.get_position().y1
        assert (over[above] == brightness).all()
    by_probe = run(np.eye(2, 4), ["one", "zero"], probe={"grouping": "by_label"})
    drawn = topomap_row(by_probe, "fc", inputs="mean", probe=probe())
    pictured = [image.get_array() for axes in drawn.axes for image in axes.images if image.get_array().shape == (3, 2, 3)]
    means = mean_inputs(probe(), probe().labels, 2)
    expected = np.rint((means - means.min()) / (means.max() - means.min()) * 255)
    np.testing.assert_array_equal([picture[..., :1] for picture in pictured], expected[[1, 0]])


# ------------------------------------------------------------------------------------------------- that it can be read


LONG = ["Middle Eastern / Female / 20-29", "East Asian", "unpronounceablylongclassname_of_one_word", "$x_1$ and $x$", "tr_ue"]


def drawings() -> dict[str, Sheet]:
    plain = made_up_run(steps=3, layers={"conv1": 4, "a.very.long.qualified.name.of.a_layer.relu": 40}, empty=(3,), inputs=0)
    layers = ["conv1", "a.very.long.qualified.name.of.a_layer.relu"]
    rng = np.random.default_rng(0)
    long = run(rng.normal(size=(5, 4)), LONG)
    classes = ["airplane", "automobile", "ox"]
    confusion = run(rng.normal(size=(9, 4)), [f"{a} as {b}" for a in classes for b in classes], counts=[1000] * 9, class_names=classes)
    ten = [f"{a} as {b}" for a in range(10) for b in range(10)]
    holes = np.where(np.arange(100)[:, None] % 7 == 0, rng.normal(size=(100, 4)), np.nan)
    matrix = run(holes, ten, counts=[19 * (i % 7 == 0) for i in range(100)], class_names=[str(i) for i in range(10)])
    sheets = {}
    for width in (COLUMN, PAGE):
        sheets |= {
            f"row {width}": topomap_row(plain, layers[1], width=width),
            f"row with inputs {width}": topomap_row(long, "fc", inputs=rng.random((5, 9, 4, 3)), width=width),
            f"row of one {width}": topomap_row(long, "fc", groups=LONG[:1], width=width),
            f"confusion {width}": topomap_grid(confusion, "fc", width=width),
            f"matrix {width}": topomap_grid(matrix, "fc", width=width),
            f"storyboard {width}": storyboard(plain, layers, [0, 1, 2] * 2, "1", width=width),
            f"storyboard of one {width}": storyboard(plain, layers[1:], [2], "3", width=width),
            f"heat {width}": heat_map(plain, layers[1], width=width),
            f"long heat {width}": heat_map(long, "fc", width=width),
            f"clustered {width}": clustered_heat_map(plain, layers[1], width=width),
            f"long clustered {width}": clustered_heat_map(long, "fc", width=width),
            f"one group clustered {width}": clustered_heat_map(long, "fc", groups=LONG[:1], width=width),
            f"dendrogram {width}": dendrogram(long, "fc", width=width),
            f"empty dendrogram {width}": dendrogram(plain, layers[0], width=width),
            f"violins {width}": violins({name: rng.normal(size=9) for name in LONG}, label="trustworthiness", title="Layouts " * 12, width=width),
        }
    return sheets


def test_words_are_large_enough_within_the_sheet_and_never_over_each_other():
    for name, sheet in drawings().items():
        with own_style():
            FigureCanvasAgg(sheet).draw()
        assert all(text.get_fontsize() >= 6 for text in shown(sheet)), name
        boxes = {(i, text.get_text()): text.get_window_extent() for i, text in enumerate(shown(sheet))}
        assert boxes
        for (_, text), box in boxes.items():
            slack = 0.02 * sheet.dpi  # half a millimetre, for the slant of a letter
            assert -slack <= box.x0 <= box.x1 <= sheet.bbox.width + slack, (name, text)
            assert -slack <= box.y0 <= box.y1 <= sheet.bbox.height + slack, (name, text)
        for (one, a), (other, b) in itertools.combinations(boxes.items(), 2):
            across, down = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
            assert across < 0.03 * sheet.dpi or down < 0.03 * sheet.dpi, (name, one, other)


def test_a_figure_is_as_wide_as_it_is_printed(tmp_path):
    sheet = topomap_row(run(np.eye(4), list("abcd")), "fc", width=COLUMN)
    with Image.open(save(sheet, tmp_path / "new" / "figure.png")) as image:
        assert abs(image.width - COLUMN / 2.54 * 300) <= 1
    box = re.search(rb"/MediaBox \[ ?0 0 ([\d.]+) ([\d.]+)", save(sheet, tmp_path / "figure.pdf").read_bytes())
    assert box is not None
    assert float(box[1]) == pytest.approx(COLUMN / 2.54 * 72, abs=0.1)


def test_text_stays_text(tmp_path):
    sheet = topomap_row(run(np.eye(4), ["aa < b", "$x_1$", "c", "d"]), "fc")
    svg = save(sheet, tmp_path / "figure.svg").read_text()
    assert re.search(r"<text[^>]*>fc · 4 units · epoch 7, layout of epoch 5</text>", svg)
    assert re.search(r"<text[^>]*>aa &lt; b</text>", svg)
    assert re.search(r"<text[^>]*>\$x_1\$</text>", svg)
    label = save(violins({"a": np.arange(3.0)}, label="$ per $", title="100 % of $y$"), tmp_path / "label.svg").read_text()
    assert re.search(r"<text[^>]*>\$ per \$</text>", label)
    pdf = save(sheet, tmp_path / "figure.pdf").read_bytes()
    assert b"/Type3" not in pdf
    assert b"/FontFile2" in pdf  # TrueType, as it can be edited


# ------------------------------------------------------------------------------------------------ nothing stays behind


DRAW = """
import hashlib, sys, numpy as np
from pathlib import Path
from netlapse.figures import clustered_heat_map, save, storyboard, topomap_row, violins
from tests.page_recording import made_up_run
recording = made_up_run(steps=2, layers={"one": 30}, inputs=0)
sheets = [topomap_row(recording, "one", order="clustered"), clustered_heat_map(recording, "one"), storyboard(recording, ["one"], [0, 1], "3"),
          violins({"a": np.arange(9.0), "b": np.arange(5.0)}, label="x")]
for sheet in sheets:
    for kind in ("pdf", "svg", "png"):
        print(hashlib.sha256(save(sheet, Path(sys.argv[1]) / f"figure.{kind}").read_bytes()).hexdigest())
assert "matplotlib.pyplot" not in sys.modules
"""


def test_the_same_figure_is_the_same_bytes_in_any_process_and_at_any_time_and_needs_no_pyplot(tmp_path):
    drawn = []
    for seed, epoch in (("1", "1000000000"), ("2", "1700000000")):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "SOURCE_DATE_EPOCH": epoch}
        result = subprocess.run([sys.executable, "-c", DRAW, tmp_path], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        drawn.append(result.stdout.split())
    assert len(drawn[0]) == 12
    assert drawn[0] == drawn[1]


def test_settings_of_matplotlib_neither_change_a_figure_nor_are_changed(tmp_path):
    def drawn():
        row = topomap_row(run(np.eye(4), list("abcd")), "fc", dots=True)
        bytes_of = [save(row, tmp_path / f"figure.{kind}").read_bytes() for kind in ("png", "svg", "pdf")]
        return [*bytes_of, save(dendrogram(run(np.eye(4), list("abcd")), "fc"), tmp_path / "figure.png").read_bytes(), row._repr_png_()]

    plain = drawn()
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black", "savefig.bbox": "tight", "font.family": "serif", "svg.fonttype": "path"}):
        before = dict(matplotlib.rcParams)
        assert drawn() == plain
        assert dict(matplotlib.rcParams) == before


def test_a_notebook_shows_the_figure():
    picture = topomap_row(run(np.eye(4), list("abcd")), "fc", width=COLUMN)._repr_png_()
    assert picture.startswith(b"\x89PNG")


# ------------------------------------------------------------------------------------------------------ what is refused


def test_errors_say_what_was_received_and_what_there_is():
    recording = run(np.eye(4), list("abcd"))
    for layer, step, options, message in (
        ("conv", None, {}, r"no profile of layer 'conv' at epoch 7; there are profiles of \['fc'\]"),
        ("fc", 3, {}, r"no profiles of epoch 3; there are profiles of the epochs \[7\]"),
        ("fc", 7, {"groups": ["a", "x"]}, r"groups are \['a', 'x'\]; expected a list of one or more of \['a', 'b', 'c', 'd'\]"),
        ("fc", 7, {"groups": []}, r"groups are \[\]; expected a list of one or more"),
        ("fc", 7, {"order": "best"}, r"unknown order of groups 'best'; allowed are \['given', 'clustered'\]"),
        ("fc", 7, {"kind": "cubic"}, r"unknown kind of interpolation 'cubic'"),
        ("fc", 7, {"limit": 0}, "the limit of the colour scale is 0; expected a number above 0, in standard deviations of the layer, or 'max'"),
        ("fc", 7, {"limit": "most"}, "the limit of the colour scale is 'most'"),
        ("fc", 7, {"width": 1}, "the width of the figure is 1; expected 4 to 200 centimetres"),
        ("fc", 7, {"colours": "jet"}, "no colours named 'jet'"),
        ("fc", 7, {"layout": "topomap_last"}, r"no layout of layer 'fc' at step 7 by the analysis 'topomap_last'; there are .*\{'topomap': \[7\]\}"),
        ("fc", 7, {"inputs": "mean"}, "inputs='mean' needs the probe; pass probe="),
        ("fc", 7, {"inputs": "median"}, r"inputs are 'median'; allowed are \['example', 'mean'\]"),
        ("fc", 7, {"inputs": np.zeros((3, 2, 2, 1))}, r"inputs have shape \(3, 2, 2, 1\); expected \(4, h, w, c\)"),
    ):
        with pytest.raises(ValueError, match=message):
            topomap_row(recording, layer, step, **options)
    with pytest.raises(ValueError, match=r"no findings of analysis 'nap', only of \['topomap'\]"):
        topomap_row(Recording({}, {"topomap": {}}), "fc")
    with pytest.raises(ValueError, match=r"a grid has groups by confusion .* this recording has the groups \['a', 'b', 'c', 'd'\]; train or"):
        topomap_grid(recording, "fc")
    with pytest.raises(ValueError, match=r"classes are \['z'\]; expected one or more of \['a'\]"):
        topomap_grid(run(np.eye(4), list("abcd"), class_names=["a"]), "fc", classes=["z"])
    with pytest.raises(ValueError, match=r"30 steps do not fit into 7\.\d cm; choose at most 10, or more width"):
        storyboard(recording, ["fc"], [7] * 30, "a", width=COLUMN)
    with pytest.raises(ValueError, match="expected a list of one or more of each"):
        storyboard(recording, [], [7], "a")


def test_units_that_never_change_are_dots_with_no_part_in_a_map():
    recording = run(np.eye(4), list("abcd"))
    arrays = {**recording.findings["nap"][7].arrays, "constant/fc": np.array([False, False, False, True])}
    silent = Recording(recording.manifest, {**recording.findings, "nap": {7: Findings(arrays)}})
    (axes, image), (_, whole) = maps(topomap_row(silent, "fc"))[0], maps(topomap_row(recording, "fc"))[0]
    covered = [(picture[..., 3] == 255).mean() for picture in (image, whole)]
    assert covered[0] == pytest.approx(covered[1] / 2, abs=0.02), "a square's map without a corner is a triangle"
    marked = [line.get_xydata().tolist() for line in axes.lines]
    assert marked == [[CORNERS[3].tolist()]]


def test_a_layer_with_nothing_to_draw_says_why():
    broken = np.eye(4)
    broken[1, :2] = np.nan, np.inf
    with pytest.raises(ValueError, match="layer 'fc' cannot be drawn at epoch 7: 2 of 4 units are not finite; take another step or layer"):
        heat_map(run(broken, list("abcd")), "fc")
    with pytest.raises(ValueError, match="every unit responds alike to every input"):
        topomap_row(run(np.ones((4, 4)), list("abcd"), scale=0.0), "fc")
    nobody = run(np.full((2, 4), np.nan), ["a", "b"], counts=[0, 0])
    with pytest.raises(ValueError, match="layer 'fc' cannot be drawn at epoch 7: no group has inputs; take another step or layer"):
        clustered_heat_map(nobody, "fc")
    some = run(np.vstack([np.eye(4)[:1], np.full((2, 4), np.nan)]), list("abc"), counts=[2, 0, 0])
    with pytest.raises(ValueError, match=r"none of the groups \['b', 'c'\] has inputs at epoch 7"):
        clustered_heat_map(some, "fc", groups=["b", "c"])
    with pytest.raises(ValueError, match=r"a dendrogram joins groups, and of \['b'\] only \['b'\] has inputs"):
        dendrogram(run(np.eye(4), list("abcd")), "fc", groups=["b"])


def test_what_cannot_be_saved_or_drawn_as_violins_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"a figure cannot be saved as 'figure\.gif'; expected a file that ends in one of \['\.pdf', '\.svg', '\.png'\]"
    ):
        save(violins({"a": np.ones(3)}, label="x"), tmp_path / "figure.gif")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="violins were asked for of no method"):
        violins({}, label="x")
    with pytest.raises(ValueError, match=r"the values of 'a' have shape \(2,\), 1 of them not finite"):
        violins({"a": np.array([1, np.nan])}, label="x")
    with pytest.raises(ValueError, match=r"inputs have shape \(4, 3\), which are no images"):
        example_inputs(ProbeSet(np.zeros((4, 3)), np.zeros(4, int)), np.zeros(4, int), 1)


# ---------------------------------------------------------------------------------------------------------- the shell


@pytest.fixture
def record(tmp_path):
    """The folder of a record of two layers, one of which is named by a number, with its probe."""
    made = made_up_run(steps=2, layers={"one": 12, "0": 5}, groups=2, inputs=0)
    asked = probe()
    about = {"grouping": "by_label", "hash": asked.hash}
    tracker = FolderTracker(tmp_path / "record")
    asked = ProbeSet(asked.inputs, asked.labels)
    tracker.start({**made.manifest, "probe": {**about, "hash": asked.hash}})
    for analysis in ("nap", "topomap"):
        for step, found in made.findings[analysis].items():
            tracker.log(analysis, step, found)
    tracker.document(PROBE, to_bytes(asked))
    return tracker.folder


ARGUMENTS = {
    "topomap_row": ["layer=0", "step=0", "groups=[1,0]", "inputs=mean", "dots=true"],
    "storyboard": ["layers=[one,0]", "steps=[0,1]", "group=1"],
    "heat_map": ["layer=one", "limit=1.5"],
    "clustered_heat_map": ["layer=one", "limit=max", "metric=correlation"],
    "dendrogram": ["layer=one", "title=A tree", "width=10"],
}


@pytest.mark.parametrize("what", ARGUMENTS)
def test_figures_are_drawn_from_the_shell(what, record, tmp_path, capsys):
    main([f"run={record}", f"what={what}", *ARGUMENTS[what], f"to={tmp_path / 'f.png'}"])
    assert capsys.readouterr().out == f"Drawn to {tmp_path / 'f.png'}\n"
    if what == "topomap_row":
        here = topomap_row(recorded(record), "0", 0, groups=["1", "0"], inputs="mean", probe=recorded_probe(record), dots=True)
        assert save(here, tmp_path / "here.png").read_bytes() == (tmp_path / "f.png").read_bytes()


def test_every_figure_of_a_recording_is_known_to_the_shell(record, tmp_path):
    assert {*FIGURES} == {*ARGUMENTS, "topomap_grid", "samples", "sanity"}  # the last two in tests/test_figures_samples.py and tests/test_sanity.py
    with pytest.raises(SystemExit, match=r"netlapse: a grid has groups by confusion"):
        main([f"run={record}", "what=topomap_grid", "layer=one", f"to={tmp_path / 'figure.pdf'}"])


def test_the_shell_says_what_is_wrong_in_a_line(record, tmp_path):
    to, of = f"to={tmp_path / 'figure.pdf'}", f"run={record}"
    for given, message in (
        ([], "netlapse: a figure needs run=<id or folder> what=<one of topomap_row, .*samples, sanity> to=<file.pdf, .svg or .png>; got nothing"),
        ([of, to, "what=pie"], "what=<one of topomap_row"),
        (
            [of, to, "what=topomap_row"],
            r"topomap_row needs layer=; this run has the layers \['one', '0'\], the steps \[0, 1\] and the groups \['0', '1'\]",
        ),
        ([of, to, "what=storyboard", "layers=one"], "storyboard needs steps=, group=;"),
        ([of, to, "what=topomap_row", "layer=two"], r"no profile of layer 'two' at epoch 1; there are profiles of \['one', '0'\]"),
        ([of, to, "what=topomap_row", "layer=one", "size=3"], r"topomap_row has no argument \['size'\]; it has \['layer', 'step', "),
        ([of, to, "what=topomap_row", "one"], r"cannot make out \['one'\]; every word is name=value"),
        ([f"run={tmp_path / 'none'}", to, "what=topomap_row", "layer=one"], "no recording in .*none: it holds no manifest.json"),
    ):
        with pytest.raises(SystemExit, match=message):
            main(given)
    with pytest.raises(SystemExit, match=r"run 'abc' cannot be read: .*abc not found"):
        main(["run=abc", to, "what=topomap_row", "layer=one"])
    (record / PROBE).unlink()
    with pytest.raises(SystemExit, match=r"keeps no probe \(probe.npz\); hand the figure its inputs as arrays"):
        main([of, to, "what=topomap_row", "layer=one", "inputs=mean"])


def test_the_probe_of_a_run_in_mlflow_is_read_from_there_or_from_what_is_not_uploaded_yet():
    from netlapse.tracking.mlflow import MlflowTracker

    tracker = MlflowTracker()
    tracker.start({"title": "a run"})
    with pytest.raises(FileNotFoundError, match=f"run {tracker.run_id} keeps no probe"):
        recorded_probe(tracker.run_id)
    tracker.document(PROBE, to_bytes(probe()))
    assert recorded_probe(tracker.run_id).hash == probe().hash
    tracker.finish()
    assert not tracker.spool.folder.exists()
    assert recorded_probe(tracker.run_id).hash == probe().hash
    assert recorded(tracker.run_id).manifest["title"] == "a run"


# ----------------------------------------------------------------------------------------------------------- the docs


DOCS = re.findall(r"```(\w+)\n(.*?)```", (ROOT / "docs" / "figures.md").read_text(), flags=re.DOTALL)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The folders of what an observer records of a network before and after its weights change, in groups by label, confusion and outcome."""
    import torch

    from netlapse.backends.torch import TorchNetwork
    from netlapse.models.torch import cnn

    data = digits()
    folders = {}
    for grouping in (by_label, by_confusion, by_outcome):
        torch.manual_seed(0)
        model = cnn(data.input_shape, 10, channels=(4, 8), hidden=16)
        folder = folders[grouping.name] = tmp_path_factory.mktemp(grouping.name)
        observer = Observer(from_data(data, per_class=4), {"nap": nap, "topomap": topomap}, FolderTracker(folder), grouping=grouping)
        observer.start(TorchNetwork(model), {"step_unit": "epoch"})
        observer.observe(TorchNetwork(model), 0)
        with torch.no_grad():
            for weights in model.parameters():
                weights.mul_(1.1)
        observer.observe(TorchNetwork(model), 1)
    return {name.removeprefix("by_"): str(folder) for name, folder in folders.items()}


def test_the_code_of_the_docs_draws_what_it_says(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"run": runs["label"], "confusion": runs["confusion"], "outcome": runs["outcome"]}
    code = [block for language, block in DOCS if language == "python"]
    for block in code:
        exec(block, names)
    files = re.findall(r'"(\w+\.(?:png|pdf|svg))"', "".join(code))
    assert len(files) == 8
    assert {path.name for path in tmp_path.iterdir()} == set(files)


def test_the_commands_of_the_docs_draw_what_they_say(runs, tmp_path):
    commands = [line for language, block in DOCS if language == "bash" for line in block.splitlines()]
    assert {language for language, _ in DOCS} == {"bash", "python"}
    for command in commands:
        environment = {**os.environ, "RUN": runs["label"], "FIGURES": str(tmp_path)}
        result = subprocess.run(["bash", "-c", command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
        assert result.returncode == 0, result.stderr
        assert Path(result.stdout.removeprefix("Drawn to ").strip()).stat().st_size > 1000
