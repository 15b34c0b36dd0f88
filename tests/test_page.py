"""Laws of the time-lapse page as a reader works it, in a real browser: what is chosen, read and ordered is what the findings say."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from netlapse.analysis import groups as clustering
from netlapse.analysis.nap import contrast
from netlapse.analysis.regions import Disc, Polygon, units_in
from netlapse.recording import Recording
from netlapse.report import page
from netlapse.types import Findings, ProbeSet

sys.path.insert(0, str(Path(__file__).parent))
from browser import Tab, needs_browser, opened
from page_recording import made_up_probe, made_up_run

pytestmark = needs_browser


def chosen(tab: Tab) -> list[int]:
    """The units that the page has chosen together."""
    numbers = tab.text(".unit-numbers")
    return [int(number) for number in numbers.split(", ")] if numbers else []


def in_python(tab: Tab, recording: Recording) -> list[int]:
    """What the line of Python that the page offers gives for the recording."""
    return eval(tab.text(".python"), {"run": recording, "units_in": units_in, "Disc": Disc, "Polygon": Polygon}).tolist()


def scattered(positions: np.ndarray, groups: int = 2) -> Recording:
    """One layer whose units lie at given places."""
    profile = np.random.default_rng(0).normal(size=(groups, len(positions)))
    nap = {0: Findings({"groups": np.array([f"group {g}" for g in range(groups)]), "profile/conv": profile, "scale/conv": np.float64(1)})}
    return Recording({}, {"nap": nap, "topomap": {0: Findings({"positions/conv": positions, "layout_step/conv": np.int64(0)})}})


def cells(tab: Tab, row: int) -> list[str]:
    return tab.tell(f"[...document.querySelectorAll('.region-table tbody tr')[{row}].querySelectorAll('.shade')].map((cell) => cell.textContent)")


def number(text: str) -> float:
    return float(text.replace("\u2212", "-"))


# ------------------------------------------------------------------------------------------------------------- regions


def test_a_disc_that_is_dragged_chooses_the_units_that_units_in_does(tmp_path):
    rng = np.random.default_rng(1)
    run = scattered(rng.random((300, 2)), groups=3)
    sizes = []
    with opened(page(run), tmp_path) as tab:
        tab.press('[data-key="disc"]')
        for group in (0, 1, 2, 1, 0):
            centre, angle, radius = rng.uniform(0.2, 0.8, 2), rng.uniform(0, 6.3), rng.uniform(0.03, 0.5)
            tab.drag(centre, centre + radius * np.array([np.cos(angle), np.sin(angle)]), group)
            sizes.append(len(chosen(tab)))
            assert chosen(tab) == in_python(tab, run)
            drawn = eval(tab.text(".python").partition("), ")[2][:-1], {"Disc": Disc})
            np.testing.assert_allclose([*drawn.centre, drawn.radius], [*centre, radius], atol=0.01)  # a pixel of a map of 190
    assert min(sizes) < max(sizes)


def test_a_polygon_that_is_clicked_chooses_the_units_that_units_in_does_also_where_it_crosses_itself(tmp_path):
    rng = np.random.default_rng(2)
    run = scattered(rng.random((300, 2)))
    angles = np.pi / 2 + 2 * np.pi * np.arange(5) * 2 / 5
    pentagram = 0.5 + 0.45 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    with opened(page(run), tmp_path) as tab:
        tab.press('[data-key="polygon"]')
        around = np.linspace(0, 2 * np.pi, 9)[:8]
        star = 0.5 + rng.uniform(0.1, 0.45, (8, 1)) * np.stack([np.cos(around), np.sin(around)], axis=1)
        for corners in (pentagram, star, star[[0, 3, 5]]):
            for corner in corners:
                tab.click(corner)
            tab.press_named("Close polygon")
            assert chosen(tab) == in_python(tab, run) != []
        for corner in [*pentagram, pentagram[0]]:  # a click on the first corner closes it as well
            tab.click(corner)
        assert chosen(tab) == in_python(tab, run)
        middle = np.flatnonzero(np.hypot(*(run.findings["topomap"][0].arrays["positions/conv"] - 0.5).T) < 0.1)
        assert len(middle)
        assert not {*middle.tolist()} & {*chosen(tab)}  # encircled twice


def test_units_on_the_border_of_a_region_are_in_it(tmp_path):
    # The keyboard's disc is 0.12 wide around the middle; one place is 2e-4 outside.
    run = scattered(np.array([[0.62, 0.5], [0.5, 0.38], [0.5 + 0.072, 0.5 + 0.096], [0.6202, 0.5], [0.5, 0.6202], [0.1, 0.1], [0.9, 0.2]]))
    with opened(page(run), tmp_path) as tab:
        tab.press('[data-key="disc"]')
        tab.focus(".map[tabindex='0']")
        tab.key("Enter")
        assert chosen(tab) == in_python(tab, run) == [0, 1, 2]
    # Its polygon is (0.5, 0.5), (0.7, 0.5), (0.7, 0.7): a corner, two sides, the slope, and places beside each.
    on = [[0.5, 0.5], [0.7, 0.7], [0.6, 0.5], [0.7, 0.6], [0.6, 0.6]]
    beside = [[0.4998, 0.5], [0.6, 0.4998], [0.7002, 0.6], [0.6, 0.6003], [0.7, 0.7003]]
    run = scattered(np.array(on + beside))
    with opened(page(run), tmp_path) as tab:
        tab.press('[data-key="polygon"]')
        tab.focus(".map[tabindex='0']")
        tab.key("Enter")
        for arrow in ("ArrowRight", "ArrowUp"):
            for _ in range(8):
                tab.key(arrow)
            tab.key("Enter")
        tab.press_named("Close polygon")
        assert chosen(tab) == in_python(tab, run) == [0, 1, 2, 3, 4]


def test_the_chosen_units_stay_chosen_and_are_marked_where_they_lie_at_every_step(tmp_path):
    run = made_up_run(steps=4, layers={"conv": 64, "other": 9})
    with opened(page(run), tmp_path) as tab:
        tab.press('[data-key="disc"]')
        tab.drag((0.5, 0.5), (0.72, 0.5), 3)
        units, shown = chosen(tab), []
        assert 3 < len(units) < 40
        for step in (3, 2, 0):
            tab.step(step)
            assert chosen(tab) == in_python(tab, run) == units
            border = [[0.5 + 0.22 * np.cos(angle), 0.5 + 0.22 * np.sin(angle)] for angle in np.linspace(0, 6, 40)]
            drawn = tab.tell(_DRAWN.replace("PLACES", str(np.array(border).tolist())))
            assert (drawn > 0.95) == (step == 3)  # the outline, where the units lie as they did when it was drawn
            places = run.findings["topomap"][step].arrays["positions/conv"]
            for group in (0, 9):
                marked = tab.tell(_MARKED.replace("GROUP", str(group)).replace("PLACES", str(places.tolist())))
                assert {unit for unit in range(64) if marked[unit]} >= {*units}
                if step == 0:  # elsewhere the outline of the region may run through another unit's place
                    assert [unit for unit in range(64) if marked[unit]] == units
            shown.append(places[units].tolist())
        assert shown[0] != shown[2]
        tab.press("#layers .layer-list button:nth-of-type(2)")
        assert chosen(tab) == []
        tab.press("#layers .layer-list button:nth-of-type(1)")
        assert chosen(tab) == units
        tab.press_named("Clear region")
        assert chosen(tab) == []
        assert tab.tell("[...document.querySelectorAll('.marks')].every((canvas) => canvas.hidden)")


# Whether something is drawn on a ring around each place.
_MARKED = """(() => {
  const canvas = document.querySelectorAll(".marks")[GROUP];
  const r = canvas.width, data = canvas.getContext("2d").getImageData(0, 0, r, r).data;
  const size = Math.max(Math.min(r / 55, (0.3 * r) / 8), r / 160);
  return PLACES.map(([x, y]) => Array.from({ length: 8 }, (_, i) => i * Math.PI / 4).every((angle) => {
    const [column, row] = [x * r + size * Math.cos(angle), (1 - y) * r + size * Math.sin(angle)].map(Math.floor);
    return data[4 * (row * r + column) + 3] > 0;
  }));
})()"""


# At which share of the places something is drawn.
_DRAWN = """(() => {
  const canvas = document.querySelector(".marks");
  const r = canvas.width, data = canvas.getContext("2d").getImageData(0, 0, r, r).data;
  const drawn = PLACES.map(([x, y]) => data[4 * (Math.floor((1 - y) * r) * r + Math.floor(x * r)) + 3] > 0);
  return drawn.filter(Boolean).length / drawn.length;
})()"""


def test_a_region_tells_the_values_that_its_maps_show_also_as_a_difference(tmp_path):
    run, probe = made_up_run(steps=3, layers={"conv": 64}), made_up_probe()
    run = Recording({**run.manifest, "probe": {"hash": probe.hash, "grouping": "by_label"}}, run.findings)
    value = {step: contrast(f.arrays["profile/conv"]) / f.arrays["scale/conv"] for step, f in run.findings["nap"].items()}
    with opened(page(run, probe), tmp_path) as tab:
        tab.press('[data-key="disc"]')
        tab.drag((0.5, 0.5), (0.7, 0.5))
        units = chosen(tab)

        def read() -> np.ndarray:
            return np.array([[number(text) for text in cells(tab, row)] for row in range(len(units) + 1)]).T

        for step in (2, 1):
            tab.step(step)
            np.testing.assert_allclose(read(), np.column_stack([value[step][:, units].mean(axis=1), value[step][:, units]]), atol=0.0051)
            top = run.findings["nap"][step].arrays["top/conv"][units[0]]
            told = tab.tell("[...document.querySelectorAll('.region-table tbody tr')[1].querySelectorAll('img')].map((picture) => picture.alt)")
            assert told == [f"input image {i}, label {probe.labels[i]}" for i in top.tolist()]
        tab.press('[data-key="step"]')
        np.testing.assert_allclose(read()[:, 1:], (value[1] - value[0])[:, units], atol=0.0051)
        tab.press('[data-key="group"]')
        np.testing.assert_allclose(read()[:, 1:], (value[1] - value[1][0])[:, units], atol=0.0051)


def test_a_region_without_units_says_so(tmp_path):
    with opened(page(scattered(np.array([[0.1, 0.1], [0.9, 0.1], [0.5, 0.9]]))), tmp_path) as tab:
        tab.press('[data-key="disc"]')
        tab.drag((0.5, 0.4), (0.55, 0.4))
        assert "0 units" in tab.text("#region h4")
        assert "No unit lies in this region" in tab.text("#region")


def test_escape_gives_up_a_polygon_and_leaves_the_pin(tmp_path):
    with opened(page(made_up_run(steps=1, layers={"conv": 9})), tmp_path) as tab:
        tab.click((0.5, 0.5))
        tab.press('[data-key="polygon"]')
        tab.click((0.2, 0.2))
        tab.focus(".map[tabindex='0']")
        tab.key("Escape")
        assert tab.text("#unit h4") is not None
        tab.click((0.8, 0.2))
        assert "1 corner;" in tab.text(".readout") or tab.tell("!!document.querySelector('.tools button:not([hidden])')")
        tab.key("Escape")
        tab.key("Escape")
        assert tab.text("#unit h4") is None


# --------------------------------------------------------------------------------------------------------------- units


def test_the_unit_that_is_pointed_at_tells_its_mean_error_and_share_in_every_group(tmp_path):
    run = made_up_run(steps=2, layers={"conv": 16}, constant=(15,))
    found = run.findings["nap"][1].arrays
    places = run.findings["topomap"][1].arrays["positions/conv"]
    with opened(page(run), tmp_path) as tab:
        for unit in (3, 15):
            tab.point("mouseMoved", places[unit], 4)
            tab.settle()
            assert f"conv, unit {unit}" in tab.text(".readout")
            assert ("constant over the probe" in tab.text(".readout")) == (unit == 15)
            for group, text in enumerate(tab.tell("[...document.querySelectorAll('.map-grid .value')].map((node) => node.innerText)")):
                mean, error = (number(part) for part in text.split("sd")[1].split("active")[0].split(" ± "))
                np.testing.assert_allclose(mean, found["profile/conv"][group, unit], rtol=0.006)
                largest = found["error/conv"].max()
                np.testing.assert_allclose(error, found["error/conv"][group, unit], rtol=0.06, atol=largest / 254**2)
                share = float(text.split("active")[1].strip(" %<"))
                assert abs(share - 100 * found["sparsity/conv"][group, unit]) <= 0.7


def test_of_many_groups_the_one_pointed_at_tells_its_error_and_share_and_those_never_seen_are_named(tmp_path):
    run = made_up_run(steps=2, layers={"conv": 16}, groups=14, empty=(0, 5))
    found = run.findings["nap"][1].arrays
    with opened(page(run), tmp_path) as tab:
        tab.point("mouseMoved", run.findings["topomap"][1].arrays["positions/conv"][7], 9)
        tab.settle()
        mean, error = (number(part) for part in tab.text(".readout").split("group 9: ")[1].split(",")[0].split(" ± "))
        np.testing.assert_allclose(mean, found["profile/conv"][9, 7], rtol=0.006)
        np.testing.assert_allclose(error, found["error/conv"][9, 7], rtol=0.06, atol=np.nanmax(found["error/conv"]) / 254**2)
        assert "2 groups have no inputs at any epoch" in tab.text(".never")
        assert tab.text(".never").endswith("0, 5")
        # The keyboard reaches a map that is there.
        assert tab.tell("[...document.querySelectorAll('.map')].findIndex((map) => map.tabIndex === 0)") == 1


def test_a_group_of_too_few_inputs_is_drawn_as_that(tmp_path):
    run = made_up_run(steps=1, layers={"conv": 16}, groups=4, empty=(2,))
    counts = Findings({**run.findings["nap"][0].arrays, "counts": np.array([125, 3, 0, 125])})
    run = Recording({**run.manifest, "asked": {"topomap": {"min_inputs": "5"}}}, {**run.findings, "nap": {0: counts}})
    with opened(page(run), tmp_path) as tab:
        said = tab.tell("[...document.querySelectorAll('.nothing')].slice(0, 4).map((node) => (node.hidden ? null : node.textContent))")
        assert said == [None, "too few inputs: 3 of at least 5", "no inputs", None]


# --------------------------------------------------------------------------------------------------------------- order


def test_maps_are_in_the_order_of_the_clustering_at_each_step_or_at_the_last(tmp_path):
    run = made_up_run(steps=3, layers={"conv": 16}, empty=(4,))
    rng = np.random.default_rng(0)
    nap = {
        step: Findings({**f.arrays, "profile/conv": f.arrays["profile/conv"] + rng.normal(0, 0.5, (10, 16))})
        for step, f in run.findings["nap"].items()
    }
    run = Recording(run.manifest, {**run.findings, "nap": nap})
    expected = {step: [str(g) for g in clustering.order(contrast(f.arrays["profile/conv"]))] for step, f in nap.items()}
    assert expected[0] != expected[2]
    names = "[...document.querySelectorAll('.map-grid .group-name')].map((node) => node.textContent)"
    with opened(page(run), tmp_path) as tab:
        assert tab.tell(names) == [str(g) for g in range(10)]
        tab.choose("Groups", "now")
        for step in (2, 0):
            tab.step(step)
            assert tab.tell(names) == expected[step]
            assert tab.tell("[...document.querySelectorAll('.dendrogram text')].map((node) => node.firstChild.textContent)") == expected[step][:-1]
        tab.choose("Groups", "last")
        assert tab.tell(names) == expected[2]
        # Every joint is as high as its two ends are apart, and each of these is a leaf at the bottom or a joint below.
        tree = clustering.linkage(contrast(nap[2].arrays["profile/conv"]))
        paths = tab.tell("[...document.querySelectorAll('.branch')].map((node) => node.getAttribute('d'))")
        heights = [44 - float(path.split("V")[1].split("H")[0]) for path in paths]
        np.testing.assert_allclose(np.array(heights) / max(heights), tree[:, 2] / tree[:, 2].max(), atol=1e-5)
        ends = [[44 - float(path.split("V")[0].split(",")[1]), 44 - float(path.rsplit("V")[-1])] for path in paths]
        below = [0.0] * 9 + heights
        np.testing.assert_allclose(ends, [[below[int(a)], below[int(b)]] for a, b in tree[:, :2]], atol=1e-9)


# -------------------------------------------------------------------------------------------------------------- inputs


def test_the_map_of_inputs_tells_the_input_pointed_at_by_id_label_answer_and_group(tmp_path):
    run, probe = made_up_run(steps=2, layers={"conv": 16}), made_up_probe()
    run = Recording({**run.manifest, "probe": {"hash": probe.hash, "grouping": "by_label"}}, run.findings)
    found = run.findings["samples"][1].arrays
    with opened(page(run, probe), tmp_path) as tab:
        tab.focus(".scatter canvas")
        for at in range(3):
            tab.key("ArrowDown")
            told, input, answer = tab.text(".input-told"), found["inputs"][at], found["predictions"][at]
            assert f"input image {input}" in told
            assert f"label {probe.labels[input]}" in told
            assert f"says {answer}" in told
            assert f"group {found['groups'][at]}" in told
            assert ("✓" in told) == (answer == probe.labels[input])
    without = {name: by_step for name, by_step in run.findings.items() if name != "samples"}
    with opened(page(Recording({}, without)), tmp_path) as tab:
        assert tab.tell("document.querySelector('#samples') === null")


def test_inputs_that_are_no_pictures_are_named(tmp_path):
    run, probe = made_up_run(steps=1, layers={"conv": 16}, inputs=0), made_up_probe()
    vectors = ProbeSet(probe.inputs.reshape(len(probe), -1), probe.labels, ids=probe.ids)
    with opened(page(Recording({}, run.findings), vectors), tmp_path) as tab:
        tab.click((0.5, 0.5))
        top = run.findings["nap"][0].arrays["top/conv"]
        unit = int(tab.tell("document.querySelector('#unit input').value"))
        named = tab.tell("[...document.querySelectorAll('#unit .input-name')].map((node) => node.textContent)")
        assert named == [
            f"#image {i}, label {vectors.labels[i]}, group {_group(run, i)}".replace(f", group {vectors.labels[i]}", "") for i in top[unit].tolist()
        ]


def _group(run: Recording, input: int) -> int:
    found = run.findings["samples"][0].arrays
    at = np.flatnonzero(found["inputs"] == input)
    return int(found["groups"][at[0]]) if len(at) else input % 10


# -------------------------------------------------------------------------------------------------------------- curves


def test_a_measure_and_its_null_share_a_chart_and_the_details_of_layouts_are_closed(tmp_path):
    measures = ("trustworthiness", "continuity", "morans_i")
    scalars = {f"layout/{measure}{null}/conv": 0.5 for measure in measures for null in ("", "_null")} | {"layout/motion/conv": 0.1}
    run = made_up_run(steps=2, layers={"conv": 16})
    topomap = {step: Findings(f.arrays, scalars) for step, f in run.findings["topomap"].items()}
    with opened(page(Recording(run.manifest, {**run.findings, "topomap": topomap})), tmp_path) as tab:
        titles = "[...document.querySelectorAll('#curves .curve strong')].map((node) => node.textContent)"
        before = tab.tell(titles)
        assert [title for title in before if "Layout" in title] == ["Layout trustworthiness", "Layout motion"]
        tab.press("#curves summary")
        opened_ones = [title for title in tab.tell(titles) if title not in before]
        assert opened_ones == ["Layout continuity", "Smoothness of the maps"]
        assert tab.tell("document.querySelectorAll('#curves .line.chance').length") == 3


# ----------------------------------------------------------------------------------------------------- every condition


@pytest.mark.parametrize("size", [(1280, 720), (390, 844)])
@pytest.mark.parametrize("groups", [1, 10, 40])
def test_nothing_is_wider_than_the_screen_and_everything_that_can_be_used_has_a_name(tmp_path, size, groups):
    run, probe = made_up_run(steps=3, layers={"conv": 64, "one": 1}, groups=groups), made_up_probe(groups=groups)
    run = Recording({key: value for key, value in run.manifest.items() if key != "probe"}, run.findings)
    with opened(page(run, probe), tmp_path, size=size) as tab:
        tab.press('[data-key="disc"]')
        tab.drag((0.4, 0.5), (0.75, 0.5))
        assert len(chosen(tab)) > 10
        if groups > 2:
            tab.choose("Groups", "now")
        for layer in (1, 2):
            tab.press(f"#layers .layer-list button:nth-of-type({layer})")
            assert tab.tell("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
            nameless = tab.tell(
                "[...document.querySelectorAll('button, input, select, [tabindex], img, canvas:not([aria-hidden])')].filter((node) => "
                "!node.closest('[hidden]') && "
                "!(node.getAttribute('aria-label') || node.alt || node.textContent.trim() || (node.labels && node.labels.length)))"
                ".map((node) => node.outerHTML.slice(0, 80))"
            )
            assert nameless == []
