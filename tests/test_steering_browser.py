"""A training is watched in MLflow's own pages and steered, in a real browser and a real shell, against a real server: the session of docs/session.md.

It takes minutes, and more where the machine does other things beside: `pytest -m long tests/test_steering_browser.py`.
`NETLAPSE_SCREENSHOTS=docs` puts the pictures that the docs show into that folder.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

sys.path.insert(0, str(Path(__file__).parent))
from browser import Tab, browsing, click, close, kept, needs_browser, wait
from servers import mlflow_server

pytestmark = [needs_browser, pytest.mark.long]

ROOT = Path(__file__).parent.parent
TRAINING = ["data=digits", "model=cnn_tiny", "trainer.max_epochs=50000", "trainer.progress=false", "schedule.n=20", "probe.per_class=5"]
TRAINING += ["layers=[relu3]"]
DIALOG = "document.querySelector('[role=dialog]')"


class Session:
    """A training that runs, its server, and a shell beside it."""

    def __init__(self, uri: str, home: Path) -> None:
        self.uri, self.client = uri, MlflowClient(uri)
        self._environment = os.environ | {"MLFLOW_TRACKING_URI": uri, "NETLAPSE_HOME": str(home), "OMP_NUM_THREADS": "1"}
        self.training = subprocess.Popen(
            [sys.executable, str(ROOT / "train.py"), *TRAINING],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=lambda: os.nice(10),  # pages are drawn meanwhile, on as few cores
        )
        assert self.training.stdout is not None
        lines = []
        for line in self.training.stdout:
            lines.append(line)
            if found := re.search(r"steer this training with .* run=(\w+)", line):
                self.run = found[1]
                return
        raise AssertionError(f"the training did not say how it is steered: {''.join(lines)}")

    def steer(self, *commands: str) -> list[str]:
        """What the shell says of commands, a line each."""
        words = [sys.executable, "-m", "netlapse.tracking.steer", f"run={self.run}", *commands]
        said = subprocess.run(words, cwd=ROOT, env=self._environment, capture_output=True, text=True, timeout=200)
        assert said.returncode == 0, said.stderr
        print(said.stdout)
        return said.stdout.splitlines()

    def tag(self, name: str) -> str:
        return self.client.get_run(self.run).data.tags.get(name, "")

    def metric(self, name: str) -> list[tuple[int, float]]:
        return [(point.step, point.value) for point in self.client.get_metric_history(self.run, name)]


def until(condition: Callable[[], Any]) -> Any:
    end = time.monotonic() + 120
    while not (value := condition()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.2)
    return value


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    with mlflow_server(tmp_path) as server:
        running = Session(server.uri, tmp_path / "home")
        try:
            yield running
        finally:
            running.training.kill()
            running.training.communicate()


def type_tag(tab: Tab, key: str, value: str) -> None:
    """What somebody does in MLflow's tag editor."""
    click(tab, 'document.querySelector(\'button[aria-label="Edit tags"], button[aria-label="Add tags"]\')')
    click(tab, f"{DIALOG}?.querySelector('input[role=combobox]')")
    tab.send("Input.insertText", text=key)
    wait(tab, f"[...document.querySelectorAll('[role=option]')].some((o) => o.textContent === {json.dumps(key)})")
    tab.key("Enter")
    click(tab, f"{DIALOG}.querySelector('input[name=value]')")
    tab.send("Input.insertText", text=value)
    click(tab, f"{DIALOG}.querySelector('button[aria-label=\"Add tag\"]')")
    click(tab, f"[...{DIALOG}.querySelectorAll('button')].find((b) => b.textContent.includes('Save tags') && !b.disabled)")
    wait(tab, f"!{DIALOG}")


def test_a_training_is_watched_paused_changed_and_stopped(session: Session, tmp_path: Path) -> None:
    run = f"{session.uri}/#/experiments/1/runs/{session.run}"
    until(lambda: len(session.metric("predictions/f1")) > 2)

    with browsing(run, tmp_path / "first", size=(1280, 800), ours=False) as tab:
        close(tab)
        type_tag(tab, "netlapse.command", "pause")
        answer = until(lambda: session.tag("netlapse.answer").startswith("[paused] #1 pause: done") and session.tag("netlapse.answer"))
        tab.send("Page.reload")
        wait(tab, "document.body?.innerText.includes('[paused] #1 pause: done')")
        kept(tab, "session_paused.png")
    held = int(re.search(r"at step (\d+)", answer)[1])  # type: ignore[index]

    said = session.steer("lr=0.0005", "class_weight.8=2.0", "penalise.8->1=3.0", "resume")
    assert [re.sub(r" at step.*", "", line) for line in said] == [
        f"#{number} {command}: done" for number, command in enumerate(("lr=0.0005", "class_weight.8=2.0", "penalise.8->1=3.0", "resume"), 2)
    ]
    assert all(f"at step {held}," in line for line in said)  # it was held all the while
    assert session.metric("control/lr") == [(held, 0.0005)]

    seen = len(session.metric("predictions/f1"))
    until(lambda: len(session.metric("predictions/f1")) > seen + 2)
    with browsing(f"{run}/model-metrics", tmp_path / "second", size=(1280, 800), ours=False) as tab:
        close(tab)
        search = "document.querySelector('input[placeholder=\"Search metric charts\"]')"
        click(tab, search)
        tab.send("Input.insertText", text="predictions/(f1|auc|precision)")
        wait(tab, "document.body.innerText.includes('predictions (3)') && document.querySelectorAll('.js-plotly-plot').length > 2")
        kept(tab, "session_watched.png")

    (bye,) = session.steer("stop")
    assert "the training ends; it can go on from" in bye
    output, _ = session.training.communicate(timeout=300)
    assert session.training.returncode == 0, output
    assert session.client.get_run(session.run).info.status == "FINISHED"
    table = json.loads(Path(session.client.download_artifacts(session.run, "steering.json", str(tmp_path))).read_text())
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    told = [(row["sequence"], row["command"], row["state"]) for row in rows]
    assert told == [
        (number, command, "done")
        for number, command in enumerate(("pause", "lr=0.0005", "class_weight.8=2.0", "penalise.8->1=3.0", "resume", "stop"), 1)
    ]

    with browsing(f"{run}/artifacts/steering.json", tmp_path / "third", size=(1280, 800), ours=False) as tab:
        close(tab)
        wait(tab, "document.body.innerText.includes('penalise.8->1=3.0')")
        kept(tab, "session_table.png")
    with browsing(f"{run}/artifacts/timelapse.html", tmp_path / "fourth", size=(1280, 900), ours=False) as tab:
        wait(tab, "document.querySelector('iframe')?.src.startsWith('blob:')")
        close(tab)
        with tab.frame() as page:
            wait(page, "!!document.querySelector('.track input') && !!document.querySelector('#predictions table')")
            page.tell("document.querySelector('#predictions').scrollIntoView({ block: 'start', behavior: 'instant' })")
            page.settle()
            assert page.errors == []
        kept(tab, "session_page.png")
