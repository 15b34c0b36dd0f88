"""Laws of the page of a sweep as a reader works it, in a real browser: every map, number and colour is what the runs recorded."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import netlapse.summaries.page as page_of
from netlapse.comparison import maps_of_runs, run_similarity
from netlapse.recording import Recording
from netlapse.render.colours import BLUE_WHITE_RED, LEVELS, SEQUENTIAL, diverging, palette
from netlapse.summaries.page import page
from netlapse.summaries.runs import runs_of
from netlapse.summaries.shared import shared
from netlapse.types import Float64, Int64

sys.path.insert(0, str(Path(__file__).parent))
from browser import Tab, needs_browser, opened
from sweep_recordings import child, recorded_run, sweep_of

ORDER: dict[str, Int64] = {"conv1": np.random.default_rng(1).permutation(12), "fc1": np.random.default_rng(2).permutation(20)}
WHOLE: list[Recording] = [recorded_run(1, noise=0.1), recorded_run(2, noise=0.4, orders=ORDER), recorded_run(3, noise=0.8)]
SWEEP = sweep_of(
    *(child(f"data=digits seed={seed}", one) for seed, one in enumerate(WHOLE, 1)),
    child("data=digits seed=4", None, state="FAILED", why="ValueError: the loss is no number\nand more"),
)
RUNS = runs_of(SWEEP)


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with opened(page(RUNS, {"title": "three <seeds>"}), tmp_path_factory.mktemp("sweep")) as tab:
        yield tab


def shown(tab: Tab, run: int, number: int = 0) -> Float64:
    """(h, w, 4) the pixels of a map of a run."""
    canvas = f"document.querySelectorAll('.run')[{run}].querySelectorAll('canvas')[{number}]"
    tab.tell(f"{canvas}.scrollIntoView({{ block: 'center', behavior: 'instant' }})")
    tab.settle()
    found = tab.tell(f"(() => {{ const c = {canvas}; return [c.width, [...c.getContext('2d').getImageData(0, 0, c.width, c.width).data]]; }})()")
    return np.array(found[1], float).reshape(found[0], found[0], 4)


@needs_browser
@pytest.mark.parametrize("layer", ["conv1", "fc1"])
def test_a_map_is_that_of_its_run_on_the_layout_that_all_share(tab: Tab, layer: str) -> None:
    tab.choose("Layer", str(["conv1", "fc1"].index(layer)))
    tab.choose("Group", "2")
    places = shared(RUNS, layer).places
    for step in (0, 3):
        tab.step(step)
        for run in range(3):
            seen = shown(tab, run)
            maps = maps_of_runs(WHOLE, layer, places, [step], resolution=len(seen)).maps[run, 0, 2]
            wanted = palette(BLUE_WHITE_RED)[diverging(maps, 2.0)]
            inside = np.isfinite(maps) & (seen[..., 3] == 255)
            away = np.abs(seen[..., :3] - wanted).max(axis=2)[inside]
            assert inside.sum() > 0.9 * np.isfinite(maps).sum() > 100
            assert np.quantile(away, 0.9) <= 6  # the outline is drawn over the rest


@needs_browser
def test_all_groups_stand_beside_each_other(tab: Tab) -> None:
    tab.choose("Group", "-1")
    assert tab.tell("document.querySelectorAll('.run')[1].querySelectorAll('canvas').length") == 4
    assert tab.tell("[...document.querySelectorAll('.run')[1].querySelectorAll('figcaption')].map((n) => n.textContent)") == ["0", "1", "2", "3"]
    every = [shown(tab, 1, number) for number in range(4)]
    tab.choose("Group", "3")
    assert all(not np.array_equal(every[0], other) for other in every[1:])


@needs_browser
def test_a_run_that_failed_is_a_row_that_says_why(tab: Tab) -> None:
    assert tab.tell("document.querySelectorAll('.run').length") == 4
    said = str(tab.tell("document.querySelectorAll('.run')[3].textContent"))
    assert "seed=4" in said
    assert "failed: ValueError: the loss is no number" in said
    assert "and more" not in said
    assert "no map: it did not finish" in said
    assert tab.text("h1") == "three <seeds>"


@needs_browser
def test_the_number_of_a_run_is_its_metric_at_the_step(tab: Tab) -> None:
    tab.choose("Metric", "nap/separability")
    for layer, name in enumerate(["conv1", "fc1"]):
        tab.choose("Layer", str(layer))
        for step in (1, 3):
            tab.step(step)
            for run, recording in enumerate(WHOLE):
                said = str(tab.tell(f"document.querySelectorAll('.run .metric')[{run}].textContent"))
                assert float(said.split(": ")[1]) == pytest.approx(float(recording.scalars[f"nap/separability/{name}"].at(step)), rel=5e-3)


@needs_browser
def test_the_matrix_is_the_cka_of_the_layer_at_the_step(tab: Tab) -> None:
    tab.choose("Layer", "1")
    for step in (0, 2):
        tab.step(step)
        wanted = run_similarity(WHOLE, "fc1", step)
        canvas = "document.querySelector('#likeness canvas')"
        for a, b in np.ndindex(3, 3):
            pixel = tab.tell(f"[...{canvas}.getContext('2d').getImageData({b} * 80 + 3, {a} * 80 + 3, 1, 1).data]")[:3]
            level = SEQUENTIAL[round(float(np.clip(wanted[a, b], 0, 1)) * (LEVELS - 1))]
            assert np.abs(np.array(pixel, int) - level).max() <= 3
        assert f"epoch {step}" in str(tab.text("#likeness .hint"))


@needs_browser
def test_keys_go_through_steps_layers_and_groups(tab: Tab) -> None:
    tab.choose("Layer", "0")
    tab.choose("Group", "-1")
    tab.step(2)
    tab.tell("document.activeElement.blur()")
    tab.key("ArrowRight")
    assert tab.text(".step-now strong") == "3"
    tab.key("l")
    tab.key("g")
    values = "[...document.querySelectorAll('#controls select')].slice(0, 2).map((s) => s.value)"
    assert tab.tell(values) == ["1", "0"]
    for key in ("L", "G"):
        tab.key(key, shift=True)
    assert tab.tell(values) == ["0", "-1"]


@needs_browser
def test_nothing_is_wider_than_a_telephone(tmp_path: Path) -> None:
    with opened(page(RUNS, {"title": "seeds"}), tmp_path, size=(390, 844)) as tab:
        assert tab.tell("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0


@needs_browser
def test_runs_without_anything_in_common_are_still_rows_with_curves(tmp_path: Path) -> None:
    alone = runs_of(sweep_of(child("model=a", recorded_run(1, layers={"a": 9})), child("model=b", recorded_run(2, layers={"b": 9}))))
    with opened(page(alone, {}), tmp_path) as tab:
        assert tab.tell("document.querySelectorAll('.run').length") == 2
        assert tab.tell("document.querySelectorAll('#course path.line').length") == 2
        assert "could be compared" in str(tab.text("header .notice"))


def carried(document: str) -> dict[str, object]:
    return dict(json.loads(re.findall(r'id="recording">(.*?)</script>', document, re.DOTALL)[0]))


def test_a_page_that_would_be_too_large_leaves_out_steps_then_runs_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = page(RUNS, {})
    assert carried(whole)["left_out"] == []
    assert "src=" not in whole.replace("img-src", "")
    monkeypatch.setattr(page_of, "FEW", 2)
    monkeypatch.setattr(page_of, "LIMIT", len(whole.encode()) - 1)
    fewer = page(RUNS, {})
    assert len(fewer.encode()) < len(whole.encode())
    assert (carried(fewer)["left_out"], carried(fewer)["steps"]) == (["2 of 4 steps"], [0, 3])
    monkeypatch.setattr(page_of, "LIMIT", len(fewer.encode()) - 1)
    assert carried(page(RUNS, {}))["left_out"] == ["2 of 4 steps", "2 of 4 runs"]
    monkeypatch.setattr(page_of, "LIMIT", 1000)
    with pytest.raises(ValueError, match=r"2 runs at 2 steps.*fewer layers or groups"):
        page(RUNS, {})
