"""Opens a page in a real browser and works it with a real pointer and keys: what its script does is tested where it runs.

Spoken to over the browser's own debugging pipe, so that no library is needed beside the browser.
"""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

BROWSER = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome on this machine to open the page in")

OPTIONS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update"]
KEYS = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Enter": 13, "Escape": 27}


SECONDS = 120.0
"""How long a page of MLflow's may take to show what it is waited for."""


class Tab:
    """A page that is open in a browser; places are those of the maps, [0, 1], x to the right and y up.

    ours  whether an error of the page is one of the test; pages of others say what they like
    """

    def __init__(self, commands: int, answers: int, *, ours: bool = True) -> None:
        self.ours = ours
        self._commands, self._answers, self._read, self._sent, self._session, self._target = commands, answers, b"", 0, "", ""
        self.errors: list[str] = []

    def open(self, address: str, size: tuple[int, int]) -> None:
        self._attach(self.send("Target.createTarget", url="about:blank")["targetId"])
        self.send("Emulation.setDeviceMetricsOverride", width=size[0], height=size[1], deviceScaleFactor=1, mobile=False)
        self.send("Page.navigate", url=address)
        while self.tell("document.readyState === 'complete' && location.href") in (False, "about:blank"):
            pass
        self.settle()

    def _attach(self, target: str) -> None:
        self._target, self._session = target, self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.send("Runtime.enable")
        self.send("Log.enable")

    def send(self, method: str, **parameters: object) -> dict[str, Any]:
        """The browser's answer to a command."""
        self._sent += 1
        command = {"id": self._sent, "method": method, "params": parameters} | ({"sessionId": self._session} if self._session else {})
        os.write(self._commands, json.dumps(command).encode() + b"\0")
        while (answer := self._next()).get("id") != self._sent:
            if answer.get("sessionId", "") != self._session:
                continue  # of the page about this one, or the page in it
            if answer.get("method") == "Runtime.exceptionThrown":
                self.errors.append(answer["params"]["exceptionDetails"]["exception"]["description"])
            if answer.get("method") == "Log.entryAdded" and answer["params"]["entry"]["level"] == "error":
                self.errors.append(answer["params"]["entry"]["text"])  # also what the page's own policy forbids it to load
        assert "error" not in answer, answer
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._read:
            part = os.read(self._answers, 1 << 16)
            assert part, "the browser has closed"
            self._read += part
        message, _, self._read = self._read.partition(b"\0")
        return json.loads(message)

    def tell(self, script: str) -> Any:
        """The value of an expression in the page."""
        answer = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        assert self.errors == [] or not self.ours
        return answer["result"].get("value")

    @contextmanager
    def frame(self, *, seconds: float = 60.0) -> Iterator[Tab]:
        """The page in the page, which runs apart from it, as a tab of its own, once it is there."""
        end = time.monotonic() + seconds
        while not (found := [one for one in self.send("Target.getTargets")["targetInfos"] if one.get("parentFrameId") == self._target]):
            assert time.monotonic() < end, "there is no page in this page"
            self.settle()
        within = Tab(self._commands, self._answers)
        within._sent = self._sent
        within._attach(found[0]["targetId"])
        yield within
        self._sent = within._sent

    def settle(self) -> None:
        """Wait until the page has drawn what was last changed."""
        self.tell("new Promise((next) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(next))))")

    def text(self, selector: str) -> str | None:
        return self.tell(f"(document.querySelector({json.dumps(selector)}) || {{ textContent: null }}).textContent")

    def press(self, selector: str) -> None:
        self.tell(f"document.querySelector({json.dumps(selector)}).click()")
        self.settle()

    def press_named(self, name: str) -> None:
        self.tell(f"[...document.querySelectorAll('#maps button')].find((b) => b.textContent === {json.dumps(name)} && !b.hidden).click()")
        self.settle()

    def choose(self, label: str, value: str) -> None:
        self.tell(
            f"{{ const select = [...document.querySelectorAll('label.choice')].find((c) => c.textContent.startsWith({json.dumps(label)}))"
            f".querySelector('select'); select.value = {json.dumps(value)}; select.dispatchEvent(new Event('change')); }}"
        )
        self.settle()

    def step(self, index: int) -> None:
        self.tell(f"{{ const s = document.querySelector('.track input'); s.value = {index}; s.dispatchEvent(new Event('input')); }}")
        self.settle()

    def key(self, name: str, *, shift: bool = False) -> None:
        code: dict[str, Any] = {"windowsVirtualKeyCode": KEYS[name]} if name in KEYS else {"text": name}
        if name == "Enter":
            code["text"] = "\r"  # without it the browser presses no button
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=name, modifiers=8 * shift, **code)
        self.settle()

    def focus(self, selector: str) -> None:
        self.tell(f"document.querySelector({json.dumps(selector)}).focus()")

    def point(self, kind: str, at: Sequence[float], group: int = 0) -> None:
        """A pointer event, "mousePressed", "mouseMoved" or "mouseReleased", at a place of a group's map."""
        box = self.tell(
            f"(() => {{ const map = document.querySelectorAll('.map')[{group}]; map.scrollIntoView({{ block: 'center', behavior: 'instant' }}); "
            "const b = map.getBoundingClientRect(); return [b.left, b.top, b.width, b.height]; })()"
        )
        x, y = box[0] + at[0] * box[2], box[1] + (1 - at[1]) * box[3]
        button = {"button": "none"} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
        self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, **button)

    def click(self, at: Sequence[float], group: int = 0) -> None:
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.point(kind, at, group)
        self.settle()

    def nameless(self, section: str) -> list[str]:
        """What can be pressed, chosen, reached or looked at in a section, and has no name to be told by; the start of its text."""
        found = self.tell(
            f"[...document.querySelectorAll('{section} :is(button, select, input, canvas, svg[role=img], [tabindex])')]"
            ".filter((node) => !node.closest('[hidden]') && !(node.getAttribute('aria-label') || node.textContent.trim() "
            "|| (node.labels && node.labels.length))).map((node) => node.outerHTML.slice(0, 80))"
        )
        assert isinstance(found, list)
        return found

    def fetched(self) -> list[str]:
        """The addresses of all that the page has loaded from elsewhere."""
        found = self.tell("performance.getEntriesByType('resource').filter((one) => !one.name.startsWith('data:')).map((one) => one.name)")
        assert isinstance(found, list)
        return found

    def drag(self, start: Sequence[float], end: Sequence[float], group: int = 0) -> None:
        for kind, at in (("mouseMoved", start), ("mousePressed", start), ("mouseMoved", end), ("mouseReleased", end)):
            self.point(kind, at, group)
        self.settle()


@contextmanager
def opened(document: str, folder: Path, *, size: tuple[int, int] = (1280, 900)) -> Iterator[Tab]:
    """A document in a browser of its own, which is closed at the end."""
    file = folder / "page.html"
    file.write_text(document, encoding="utf-8")
    with browsing(file.as_uri(), folder, size=size) as tab:
        yield tab
        assert tab.errors == []


@contextmanager
def browsing(address: str, folder: Path, *, size: tuple[int, int] = (1280, 900), ours: bool = True) -> Iterator[Tab]:
    """A page in a browser of its own, whose files lie in the folder, and which is closed at the end."""
    assert BROWSER is not None
    (their_commands, commands), (answers, their_answers) = os.pipe(), os.pipe()
    line = ["bash", "-c", f'exec "$@" 3<&{their_commands} 4>&{their_answers}', "bash", BROWSER, *OPTIONS]
    own = [f"--user-data-dir={folder / 'browser'}", "--remote-debugging-pipe", "about:blank"]
    running = subprocess.Popen([*line, *own], pass_fds=(their_commands, their_answers), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for theirs in (their_commands, their_answers):
        os.close(theirs)
    tab = Tab(commands, answers, ours=ours)
    try:
        tab.open(address, size)
        yield tab
    finally:
        running.terminate()
        running.wait(20)
        os.close(commands)
        os.close(answers)


# ---- MLflow's pages --------------------------------------------------------------------------------------------------


def wait(tab: Tab, expression: str) -> Any:
    """The value of an expression in the page as soon as it is true of it."""
    end = time.monotonic() + SECONDS
    while not (value := tab.tell(expression)):
        assert time.monotonic() < end, f"the page has not come to {expression}; it says {tab.tell('document.body.innerText')[:2000]}"
    return value


def still(tab: Tab, expression: str) -> Any:
    """The value of an expression that is true and has stopped changing: what slides in is not where it will be."""
    value = wait(tab, expression)
    for _ in range(2):
        tab.settle()
        while value != (now := wait(tab, expression)):
            value = now
            tab.settle()
    return value


def click(tab: Tab, element: str) -> None:
    """A click with the pointer on an element, once it is there and stands still."""
    centre = "(b => [b.left + b.width / 2, b.top + b.height / 2])(e.getBoundingClientRect())"
    box = f"(e => e && (e.scrollIntoView({{ block: 'center' }}), {centre}))({element})"
    place = still(tab, box)
    for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
        button = {"button": "none"} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
        tab.send("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], **button)
    tab.settle()


def close(tab: Tab) -> None:
    """The assistant that new experiments open with."""
    wait(tab, "document.querySelector('button[aria-label=Close]') && (document.querySelector('button[aria-label=Close]').click(), true)")


def pixels(tab: Tab) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """What the tab shows, (h, w, 3)."""
    shot = base64.b64decode(tab.send("Page.captureScreenshot", format="png")["data"])
    return np.array(Image.open(io.BytesIO(shot)).convert("RGB"))


def kept(tab: Tab, name: str) -> None:
    """The tab's picture for the docs, where they are asked for."""
    if folder := os.environ.get("NETLAPSE_SCREENSHOTS"):
        Image.fromarray(pixels(tab)).save(Path(folder) / name, optimize=True)
