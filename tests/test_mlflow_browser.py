"""Laws of comparing runs and steps in MLflow's own pages, worked in a real browser against a real server, with a sweep of two seeds.

`NETLAPSE_SCREENSHOTS=docs` puts the pictures that the docs show into that folder.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
import pytest
from mlflow import MlflowClient

sys.path.insert(0, str(Path(__file__).parent))
from browser import Tab, browsing, click, close, kept, needs_browser, pixels, still, wait
from servers import mlflow_server

pytestmark = needs_browser

ROOT = Path(__file__).parent.parent
SWEEP = ["-m", "seed=1,2", "data=digits", "model=cnn_tiny", "trainer=quick", "trainer.progress=false", "probe.per_class=4"]
STEPS = [0, 1, 2]

CARD = "[...document.querySelectorAll('[data-testid=experiment-view-compare-runs-card]')].find(c => c.querySelector('h4').title === {})"
ROW = "[...document.querySelectorAll('[role=row]')].find(r => r.textContent.includes({}))"
HEADERS = "[...document.querySelectorAll('[data-testid=experiment-view-compare-runs-section-header]')]"
DIALOG = "[...document.querySelectorAll('[role=dialog]')].find(d => d.getBoundingClientRect().width > 0)"


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, list[str]]]:
    """The server's address, the sweep's parent, and its two runs, of which each has its seed in its name."""
    folder = tmp_path_factory.mktemp("mlflow")
    with mlflow_server(folder) as server:
        environment = os.environ | {"MLFLOW_TRACKING_URI": server.uri, "NETLAPSE_HOME": str(folder / "home")}
        result = subprocess.run([sys.executable, ROOT / "train.py", *SWEEP], env=environment, capture_output=True, text=True, timeout=600)
        assert result.returncode == 0, result.stderr
        runs = MlflowClient(server.uri).search_runs(["1"])
        (parent,) = [run.info.run_id for run in runs if "mlflow.parentRunId" not in run.data.tags]
        children = sorted((run.data.params["seed"], run.info.run_id) for run in runs if run.info.run_id != parent)
        yield server.uri, parent, [run_id for _, run_id in children]


def charts(tab: Tab) -> None:
    """Unfold the sweep in the experiment's chart view, which shows charts of the runs that are listed."""
    click(tab, ROW.format("'sweep of'") + "?.querySelector('button')")
    wait(tab, "!!" + ROW.format("'seed=2'"))
    close(tab)
    search = "document.querySelector('input[placeholder=\"Search metric charts\"]')"
    click(tab, search)
    tab.send("Input.insertText", text="no such metric")  # pictures stay: fewer charts are to be drawn


def card_of(tab: Tab, key: str) -> str:
    """An expression for the card of a key; sections are filled when they are scrolled to."""
    card = CARD.format(json.dumps(key))
    title = json.dumps(key.rpartition("/")[0] or "Model metrics")
    header = f"{HEADERS}.find((h) => h.innerText.split('\\n')[0] === {title})"
    wait(tab, f"(card => card ? (card.scrollIntoView({{ block: 'center' }}), true) : ({header}?.scrollIntoView(), false))({card})")
    wait(tab, f"!!({card})?.querySelector('[role=slider]')")
    return card


def pictures(tab: Tab, within: str) -> list[dict[str, Any]]:
    """Of each picture in an element its run, key, step and place, when all are there."""
    found = still(
        tab,
        f"(images => images.length === 2 && images.every((i) => i.complete && i.naturalWidth) && images.map(i => "
        f"({{ address: i.src, box: i.getBoundingClientRect().toJSON() }})))([...({within}).querySelectorAll('img')])",
    )
    shown = []
    for one in found:
        query = parse_qs(urlsplit(one["address"]).query)
        key, _, rest = unquote(query["path"][0]).removeprefix("images/").partition("+step+")
        shown.append({"run": query["run_uuid"][0], "key": key.replace("~", "/"), "step": int(rest.split("+")[0]), "box": one["box"]})
    return shown


def test_pictures_of_a_sweep_are_cards_whose_slider_goes_through_the_steps(sweep: tuple[str, str, list[str]], tmp_path: Path) -> None:
    uri, _, runs = sweep
    with browsing(f"{uri}/#/experiments/1/runs?compareRunsMode=CHART", tmp_path, ours=False) as tab:
        charts(tab)
        for key in ("topomap/relu1", "topomap/relu2", "saliency/gradient", "storyboard"):
            card = card_of(tab, key)
            slider = wait(tab, f"(s => s && [s.ariaValueMin, s.ariaValueMax])(({card}).querySelector('[role=slider]'))")
            assert slider == [str(STEPS[0]), str(STEPS[-1])]
            shown = pictures(tab, card)
            assert sorted(one["run"] for one in shown) == sorted(runs)
            assert {one["key"] for one in shown} == {key}
        tab.tell(f"({card}).querySelector('[role=slider]').focus()")
        tab.key("ArrowRight")
        wait(tab, f"({card}).querySelector('[role=slider]').ariaValueNow === '1'")
        wait(tab, f"[...({card}).querySelectorAll('img')].every((i) => decodeURIComponent(i.src).includes('+step+1+'))")
        assert {(one["run"], one["step"]) for one in pictures(tab, card)} == {(run, 1) for run in runs}


def test_a_card_in_full_screen_shows_both_runs_side_by_side_under_one_slider(sweep: tuple[str, str, list[str]], tmp_path: Path) -> None:
    uri, _, runs = sweep
    with browsing(f"{uri}/#/experiments/1/runs?compareRunsMode=CHART", tmp_path, size=(1280, 720), ours=False) as tab:
        charts(tab)
        card = card_of(tab, "topomap/relu3")
        click(tab, f"({card})?.querySelector('[data-testid=experiment-view-compare-runs-card-menu]')")
        click(tab, "[...document.querySelectorAll('[role=menuitem]')].find((item) => item.textContent.includes('Configure'))")
        # Runs are as wide as the line of their parameters, and would stand one above the other.
        click(tab, f"[...({DIALOG})?.querySelectorAll('label, button') ?? []].find((e) => e.textContent.includes('Show run parameters'))")
        click(tab, f"[...({DIALOG}).querySelectorAll('button')].find((button) => button.textContent.includes('Save'))")
        wait(tab, f"!({DIALOG})")
        click(tab, f"({card})?.querySelector('button')")
        wait(tab, f"!!({DIALOG})?.querySelector('[role=slider]')")
        seen = {}
        for step in STEPS:
            wait(tab, f"[...({DIALOG}).querySelectorAll('img')].every((i) => decodeURIComponent(i.src).includes('+step+{step}+'))")
            shown = pictures(tab, DIALOG)
            assert {(one["run"], one["key"], one["step"]) for one in shown} == {(run, "topomap/relu3", step) for run in runs}
            left, right = sorted((one["box"] for one in shown), key=lambda box: box["left"])
            assert left["top"] == right["top"]  # side by side, and both to be seen
            assert 0 < left["left"] < left["right"] < right["left"] < right["right"] < 1280
            assert 0 < left["top"] < left["bottom"] < 720
            screen = pixels(tab)
            seen[step] = [screen[int(b["top"]) : int(b["bottom"]), int(b["left"]) : int(b["right"])] for b in (left, right)]
            if step < STEPS[-1]:
                tab.tell(f"({DIALOG}).querySelector('[role=slider]').focus()")
                tab.key("ArrowRight")
        kept(tab, "mlflow_compare.png")
    for side in (0, 1):
        first, second, third = (seen[step][side].astype(int) for step in STEPS)
        assert np.abs(first - second).max() > 50
        assert np.abs(second - third).max() > 50


def test_the_page_opens_in_the_artifact_viewer_and_its_slider_moves(sweep: tuple[str, str, list[str]], tmp_path: Path) -> None:
    uri, _, (run, _) = sweep
    with browsing(f"{uri}/#/experiments/1/runs/{run}/artifacts/timelapse.html", tmp_path, size=(1280, 800), ours=False) as tab:
        wait(tab, "document.querySelector('iframe')?.src.startsWith('blob:')")
        close(tab)
        with tab.frame() as page:
            wait(page, "!!document.querySelector('.track input') && !!document.querySelector('.map canvas')")
            assert page.tell("document.querySelector('.step-now').textContent").endswith(str(STEPS[-1]))
            before = page.tell("document.querySelector('.map canvas').toDataURL()")
            page.focus(".track input")
            page.key("ArrowLeft")
            assert page.tell("document.querySelector('.track input').value") == str(STEPS[-2])
            assert page.tell("document.querySelector('.step-now').textContent").endswith(str(STEPS[-2]))
            assert page.tell("document.querySelector('.map canvas').toDataURL()") != before
            assert page.errors == []
            page.press(".layer-list button:nth-child(3)")
            page.tell("document.querySelector('.map').scrollIntoView({ block: 'center', behavior: 'instant' })")
            page.settle()
        kept(tab, "mlflow_page.png")
