"""Laws of what the page says of predictions, as a reader works it in a real browser: every number, list and map is what the findings say."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from netlapse.analysis.predictions import KINDS
from netlapse.analysis.predictions.scores import GRID
from netlapse.recording import Recording
from netlapse.report import page
from netlapse.report_predictions import LISTED
from netlapse.types import Findings, ProbeSet

sys.path.insert(0, str(Path(__file__).parent))
from browser import Tab, needs_browser, opened
from page_recording import made_up_probe, made_up_run, with_predictions

pytestmark = needs_browser


def small(steps: int = 5, groups: int = 4, **options: object) -> tuple[Recording, ProbeSet]:
    probe = made_up_probe(groups=groups, side=8)
    run = made_up_run(**{"layers": {"x": 4}, "groups": groups, "side": 8, "inputs": 4, "steps": steps} | options)
    run = Recording(
        {key: value for key, value in run.manifest.items() if key != "probe"} | {"asked": {"predictions": {"patience": "3"}}}, run.findings
    )
    return with_predictions(run, probe), probe


def found_in(run: Recording, step: int) -> dict[str, np.ndarray]:
    return {name: np.asarray(values) for name, values in run.findings["predictions"][step].arrays.items()}


def matrix(tab: Tab, step: int) -> list[list[int]]:
    rows = tab.tell(
        f"[...document.querySelectorAll('.beside[data-step=\"{step}\"] .confusion tbody tr')]"
        ".map((row) => [...row.querySelectorAll('td')].map((cell) => cell.textContent))"
    )
    return [[int(text or 0) for text in row] for row in rows]


def beside(tab: Tab) -> list[int]:
    return tab.tell("[...document.querySelectorAll('.beside')].map((one) => Number(one.dataset.step))")


def add(tab: Tab, what: str, value: int) -> None:
    tab.tell(
        f"{{ const s = document.querySelector('#predictions select[aria-label=\"Add {what}\"]'); s.value = {value}; "
        "s.dispatchEvent(new Event('change')); }"
    )
    tab.settle()


def shown_inputs(tab: Tab) -> list[int]:
    return tab.tell("[...document.querySelectorAll('.history button')].map((one) => Number(one.dataset.input))")


def choose_kind(tab: Tab, kind: str) -> None:
    tab.press(f'.histories [data-kind="{kind}"]')


def scores(tab: Tab) -> list[list[float]]:
    rows = tab.tell(
        "[...document.querySelectorAll('.score-table tbody tr')].map((row) => [...row.querySelectorAll('td')].map((cell) => cell.textContent))"
    )
    return [[np.nan if text == "–" else float(text) for text in row] for row in rows]


def test_confusion_matrices_of_the_chosen_steps_stand_side_by_side(tmp_path):
    run, probe = small(steps=6)
    with opened(page(run, probe), tmp_path) as tab:
        assert beside(tab) == [0, 5]
        add(tab, "an epoch", 2)
        tab.step(3)
        assert beside(tab) == [0, 2, 3]
        for step in (0, 2, 3):
            found = found_in(run, step)
            assert matrix(tab, step) == found["confusion"].tolist()
            right = np.trace(found["confusion"]) / found["confusion"].sum()
            assert f"{right:.3f} right of 500 inputs" in tab.text(f'.beside[data-step="{step}"] caption')
        tab.press("button[aria-label='Take epoch 0 away']")
        tab.step(2)  # a step that is kept is there once
        assert beside(tab) == [2]
        assert tab.tell("document.querySelector('.beside.now').dataset.step") == "2"


def test_of_many_classes_those_chosen_have_rows_and_the_others_are_summed(tmp_path):
    run, probe = small(steps=2, groups=25)
    with opened(page(run, probe), tmp_path) as tab:
        own = tab.tell("[...document.querySelectorAll('.beside[data-step=\"1\"] .confusion tbody th')].map((head) => head.textContent)")
        found = found_in(run, 1)
        lowest = sorted(np.argsort(np.nan_to_num(found["f1"].astype(float)), kind="stable")[:3].tolist())
        assert own == [*map(str, lowest), "others"]
        add(tab, "a class", next(k for k in range(25) if k not in lowest))
        own = [int(name) for name in tab.tell("[...document.querySelectorAll('.beside.now .confusion tbody th')].map((h) => h.textContent)")[:-1]]
        assert len(own) == 4
        place = np.full(25, 4)
        place[own] = np.arange(4)
        expected = np.zeros((5, 5), int)
        np.add.at(expected, (place[:, None], place[None]), found["confusion"])
        assert matrix(tab, 1) == expected.tolist()


def test_the_table_of_scores_is_that_of_the_findings_also_where_they_are_undefined(tmp_path):
    run, probe = small(steps=3)
    later = dict(run.findings["predictions"][2].arrays)
    later["precision"] = np.where(np.arange(4) == 1, np.nan, np.asarray(later["precision"], float))
    run = Recording(run.manifest, {**run.findings, "predictions": {**run.findings["predictions"], 2: Findings(later)}})
    with opened(page(run, probe), tmp_path) as tab:
        shown = scores(tab)
        columns = [found_in(run, step)[name].astype(float) for step in (0, 2) for name in ("precision", "recall", "f1", "auc")]
        np.testing.assert_allclose(shown[:4], np.stack(columns, axis=1), atol=5.1e-4)
        assert np.isnan(shown[1][4])
        np.testing.assert_allclose(shown[4], [np.nanmean(column) for column in columns], atol=5.1e-4)


def test_curves_are_those_of_the_findings_for_the_chosen_classes(tmp_path):
    run, probe = small(steps=3)
    with opened(page(run, probe), tmp_path) as tab:
        for k in range(4):  # all four are shown after this
            if tab.tell(f"document.querySelector('[data-focus=\"row {k}\"]').getAttribute('aria-pressed')") == "false":
                tab.press(f'[data-focus="row {k}"]')
        for step in (0, 2):
            for kind in ("roc", "precision_recall"):
                for k in range(4):
                    path = tab.tell(
                        f"document.querySelector('.beside[data-step=\"{step}\"] [data-kind={kind}] [data-class=\"{k}\"]').getAttribute('d')"
                    )
                    points = np.array([[float(one) for one in pair.split(",")] for pair in path[1:].split("L")])
                    box = tab.tell(
                        f"(() => {{ const l = [...document.querySelectorAll('.beside[data-step=\"{step}\"] [data-kind={kind}] line.axis')]"
                        ".map((a) => ['x1', 'x2', 'y1', 'y2'].map((n) => Number(a.getAttribute(n)))); return [l[0], l[1]]; })()"
                    )
                    (x0, x1, zero, _), (_, _, y0, y1) = box
                    assert zero == y0
                    np.testing.assert_allclose((points[:, 0] - x0) / (x1 - x0), GRID, atol=1e-3)
                    values = found_in(run, step)[kind][k].astype(float)
                    np.testing.assert_allclose((y0 - points[:, 1]) / (y0 - y1), values, atol=0.5 / 254 + 1e-3)
        # Each class has its own tone and its own dashes.
        drawn = tab.tell(
            "[...document.querySelectorAll('.beside.now [data-kind=roc] [data-class]')]"
            ".map((p) => [p.getAttribute('stroke'), p.getAttribute('stroke-dasharray')])"
        )
        assert len({tone for tone, _ in drawn}) == len({dash for _, dash in drawn}) == 4
        tab.press("button[aria-label='Take 2 away']")
        assert tab.tell("document.querySelectorAll('.beside.now [data-kind=roc] [data-class]').length") == 3


def test_lists_are_the_histories_at_the_slider_s_step(tmp_path):
    run, probe = small(steps=7)
    seen = set()
    with opened(page(run, probe), tmp_path) as tab:
        for step in (6, 3, 0):
            tab.step(step)
            found = found_in(run, step)
            order = np.argsort(-found["confidence"].astype(np.float32), kind="stable")
            lists = {kind: order[found["kinds"][row].astype(bool)[order]] for row, kind in enumerate(KINDS)} | {"errors": found["errors"]}
            for kind, inputs in lists.items():
                choose_kind(tab, kind)
                assert shown_inputs(tab) == inputs[:LISTED].tolist(), (kind, step)
                assert tab.text(f'.histories [data-kind="{kind}"] .count') == str(len(inputs))
                if len(inputs):
                    seen.add(kind)
                    first = int(inputs[0])
                    said = tab.tell("document.querySelector('.history .said').innerText.replace(/\\s+/g, ' ').trim()")
                    label, named = probe.labels[first], int(found["predictions"][first])
                    assert said.startswith(f"{label} {'✓ right' if label == named else '✗ wrong'}, says {named} confidence")
                    # A picture of every listed input, and no other's.
                    assert tab.tell("[...document.querySelectorAll('.history button')].every((one) => one.querySelector('img'))")
                else:
                    assert tab.text(".histories > .hint").startswith("None: ")
    assert seen == {*KINDS, "errors"}


def test_show_all_shows_all(tmp_path):
    run, probe = small(steps=4)
    with opened(page(run, probe), tmp_path) as tab:
        assert len(shown_inputs(tab)) == LISTED
        tab.press(".histories > button.link")
        assert shown_inputs(tab) == found_in(run, 3)["errors"].tolist()


def test_a_number_of_the_matrix_opens_its_inputs_by_pointer_and_by_keys(tmp_path):
    run, probe = small(steps=3)
    found = found_in(run, 2)
    with opened(page(run, probe), tmp_path) as tab:
        tab.focus('.beside.now .confusion td[tabindex="0"]')
        for key in ("ArrowDown", "ArrowDown", "ArrowRight", "ArrowUp"):
            tab.key(key)
        assert int(tab.text(".step-now strong")) == 2  # the arrows were not the slider's
        tab.key("Enter")
        inputs = np.flatnonzero((probe.labels == 1) & (found["predictions"] == 1))
        assert tab.text('.histories [data-kind="cell"] .count') == str(len(inputs)) == str(found["confusion"][1, 1])
        assert {*shown_inputs(tab)} <= {*inputs.tolist()}
        assert tab.tell("document.activeElement.getAttribute('aria-label')") == f"label 1, predicted 1: {len(inputs)} of {(probe.labels == 1).sum()}"
        tab.tell("document.querySelectorAll('.beside.now .confusion tbody tr')[3].querySelectorAll('td')[0].click()")
        tab.settle()
        wrong = np.flatnonzero((probe.labels == 3) & (found["predictions"] == 0))
        assert sorted(shown_inputs(tab)) == wrong.tolist()
        tab.step(0)  # the same number at another step
        assert tab.text('.histories [data-kind="cell"] .count') == str(found_in(run, 0)["confusion"][3, 0])


def density_shown(tab: Tab, row: int, column: int) -> str | None:
    """Which array a tile of the followed input's grid is drawn from, by its label; None for one that has none."""
    return tab.tell(
        f"(() => {{ const tile = document.querySelectorAll('#followed tbody tr')[{row}].querySelectorAll('td')[{column}]; "
        "const nothing = tile.querySelector('.nothing'); return nothing.hidden ? null : nothing.textContent; })()"
    )


def test_an_input_is_followed_over_the_steps_with_its_maps_wherever_they_were_recorded(tmp_path):
    run, probe = small(steps=5, chosen=2)
    arrays = {step: f.arrays for step, f in run.findings["saliency"].items()}
    fixed = int(arrays[0]["inputs"][2])
    chosen_at: dict[int, list[int]] = {}
    for step, found in arrays.items():
        for input in np.asarray(found["inputs_chosen"]).tolist():
            chosen_at.setdefault(input, []).append(step)
    chosen_at.pop(-1, None)
    other = next(input for input, steps in chosen_at.items() if 1 < len(steps) < 5)
    with opened(page(run, probe), tmp_path) as tab:
        tab.tell("{ const s = document.querySelector('#saliency .section-head input'); s.value = 100; s.dispatchEvent(new Event('input')); }")
        offered = tab.tell("[...document.querySelectorAll('#followed select option')].map((one) => one.value).filter((v) => v !== '').map(Number)")
        assert sorted(offered) == sorted({*np.asarray(arrays[0]["inputs"]).tolist(), *chosen_at})
        for input, steps, note in (
            (fixed, range(5), "One of the fixed inputs"),
            (other, chosen_at[other], f"Chosen at {len(chosen_at[other])} epochs"),
        ):
            tab.tell(f"{{ const s = document.querySelector('#followed select'); s.value = {input}; s.dispatchEvent(new Event('change')); }}")
            tab.settle()
            assert tab.text("#followed > .hint").startswith(note)
            assert tab.text("#followed caption") == f"input {input} (image {input}), label {probe.labels[input]}"
            for row, method in enumerate(("gradient", "grad_cam")):
                for step in range(5):
                    why = density_shown(tab, row, step)
                    if step not in steps:
                        assert why == "no map"
                        continue
                    found = arrays[step]
                    maps = (
                        found[f"maps/{method}"][2]
                        if input == fixed
                        else found[f"maps_chosen/{method}"][np.asarray(found["inputs_chosen"]).tolist().index(input)]
                    )
                    if not np.any(maps):
                        assert why == "zero everywhere"
                        continue
                    assert why is None
                    shown = np.array(tab.tell(
                        f"(() => {{ const c = document.querySelectorAll('#followed tbody tr')[{row}].querySelectorAll('td canvas')[{step}]; "
                        "return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]; })()"
                    )).reshape(8, 8, 4)[..., 2]  # fmt: skip
                    share = np.minimum(np.abs(maps) / np.abs(maps).mean() / 6, 1)
                    blue = np.interp(share * 4, range(5), [255, 158, 62, 30, 28])
                    assert np.abs(shown - blue).max() <= 2.2
            said = [found_in(run, step)["predictions"][input] for step in range(5)]
            texts = tab.tell("[...document.querySelectorAll('#followed tfoot td')].map((cell) => cell.innerText.replace(/\\s+/g, ' ').trim())")
            assert [text.split("says ")[1].split(" ")[0] for text in texts] == [str(k) for k in said]
        tab.press('#followed [data-step="1"]')
        assert int(tab.text(".step-now strong")) == 1
        assert tab.tell("[...document.querySelectorAll('#followed [aria-current=step]')].map((one) => one.dataset.step)") == ["1"]


def test_an_input_without_maps_says_how_to_have_them(tmp_path):
    run, probe = small(steps=3)
    with opened(page(run, probe), tmp_path) as tab:
        free = next(i for i in found_in(run, 2)["errors"].tolist() if i not in np.asarray(run.findings["saliency"][0].arrays["inputs"]))
        tab.press(f'.history [data-input="{free}"]')
        note = tab.text("#followed > .hint")
        assert "No maps: they were recorded of 4 fixed inputs" in note
        assert f"./run explain run={run.manifest['run_id']} input={free}" in note
        assert tab.tell("document.querySelectorAll('#followed tbody tr').length") == 0
        assert tab.tell("document.querySelectorAll('#followed tfoot td').length") == 3
        tab.press(f'.history [data-input="{free}"]')  # pressed again, it is let go
        assert tab.tell("document.querySelectorAll('#followed table').length") == 0
    bare = Recording(run.manifest, {name: found for name, found in run.findings.items() if name != "saliency"})
    with opened(page(bare, probe), tmp_path) as tab:
        tab.press(".history button")
        assert "this run recorded no saliency" in tab.text("#followed > .hint")
        assert tab.tell("document.querySelector('#followed select').disabled")


def test_what_is_missing_is_said(tmp_path):
    run, probe = small(steps=4)
    without = Recording(run.manifest, {name: found for name, found in run.findings.items() if name != "predictions"})
    with opened(page(without, probe), tmp_path) as tab:
        assert "was not part of this run" in tab.text("#predictions")
        assert f"./run reanalyse run={run.manifest['run_id']}" in tab.text("#predictions")
    failed = Recording({**run.manifest, "failures": [{"what": "predictions", "message": "ValueError: no logits"}]}, without.findings)
    with opened(page(failed, probe), tmp_path) as tab:
        assert "failed: ValueError: no logits" in tab.text("#predictions")
    later = Recording(run.manifest, {**run.findings, "predictions": {s: f for s, f in run.findings["predictions"].items() if s in (1, 3)}})
    with opened(page(later, probe), tmp_path) as tab:
        tab.step(2)
        assert "What is predicted was not observed at epoch 2. Shown, faded: epoch 1" in tab.text("#predictions .notices")
        assert beside(tab) == [1]
        tab.step(0)
        assert "Nothing was predicted at epoch 0 or before" in tab.text(".histories > .hint")
    diverged = {s: Findings({**f.arrays}) for s, f in run.findings["predictions"].items()}
    last = diverged[3].arrays
    for name in ("precision", "recall", "f1", "auc", "average_precision", "roc", "precision_recall"):
        last.pop(name)  # as the analysis does where no logit is a number
    n = len(probe)
    last |= {"predictions": np.full(n, -1), "confidence": np.full(n, np.nan), "errors": np.zeros(0, int), "kinds": np.zeros((5, n), bool)}
    with opened(page(Recording(run.manifest, {**run.findings, "predictions": diverged}), probe), tmp_path) as tab:
        assert "nothing was predicted" in tab.text(".beside.now caption")
        assert {text for row in scores(tab) for text in map(str, row[4:])} == {"nan"}


def test_a_choice_that_is_made_by_keys_keeps_the_focus(tmp_path):
    run, probe = small(steps=4)
    with opened(page(run, probe), tmp_path) as tab:
        tab.focus('[data-focus="row 0"]')
        before = tab.tell("document.querySelectorAll('.beside.now [data-kind=roc] [data-class]').length")
        tab.key("Enter")
        assert tab.tell("document.activeElement.dataset.focus") == "row 0"
        assert tab.tell("document.querySelectorAll('.beside.now [data-kind=roc] [data-class]').length") != before
        tab.focus('.histories [data-kind="stuck"]')
        tab.key("Enter")
        assert tab.tell("document.activeElement.dataset.kind") == "stuck"
        tab.key("ArrowLeft")  # the slider's, as elsewhere on the page
        assert (int(tab.text(".step-now strong")), tab.tell("document.activeElement.dataset.kind")) == (2, "stuck")


@pytest.mark.parametrize("size", [(1280, 720), (390, 844)])
@pytest.mark.parametrize("groups", [3, 12, 25])
def test_nothing_is_wider_than_the_screen_nothing_is_nameless_and_nothing_is_fetched(tmp_path, size, groups):
    names = ["a class of a long name", "b", "ctenophora", *map(str, range(3, groups))]
    run, probe = small(steps=9, groups=groups, chosen=2, manifest={"class_names": names})
    probe = ProbeSet(probe.inputs, probe.labels, names, ids=probe.ids)
    run = with_predictions(run, probe)
    with opened(page(run, probe), tmp_path, size=size) as tab:
        for step in (2, 4, 6):
            add(tab, "an epoch", step)
        for k in range(groups):
            if tab.tell(f"document.querySelectorAll('.few [data-focus=\"a class {k}\"]').length") == 0:
                add(tab, "a class", k)
        for kind in ("errors", "always_right"):
            choose_kind(tab, kind)
        tab.press(".history button")
        for step in (8, 1):
            tab.step(step)
            assert tab.tell("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        assert tab.nameless("#predictions") == []
        assert tab.fetched() == []
