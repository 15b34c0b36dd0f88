"""Laws of the saliency panel as a reader works it, in a real browser: every tile, answer and curve is what the findings say."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

import netlapse.report_saliency as report_saliency
from netlapse.recording import Recording
from netlapse.report import page
from netlapse.types import Array, Findings, Float64

sys.path.insert(0, str(Path(__file__).parent))
from browser import Tab, needs_browser, opened
from page_recording import made_up_probe, made_up_run

pytestmark = needs_browser

SCALE = [[int(tone[i : i + 2], 16) for i in (0, 2, 4)] for tone in ("ffffff", "fdd49e", "ec843e", "ac381e", "3e0c1c")]  # of 0, 1.5, 3, 4.5 and 6


def coloured(maps: Array) -> Float64:
    """(h, w, 3) the colours of a map: its absolute value over its own mean, from white at 0 to dark at 6."""
    share = np.minimum(np.abs(np.asarray(maps, float)) / np.abs(maps).mean() / 6, 1)
    return np.stack([np.interp(share * 4, range(5), [tone[c] for tone in SCALE]) for c in range(3)], axis=2)


def small(**options: object) -> Recording:
    """A run that is saliency and little else."""
    return made_up_run(**{"layers": {"x": 4}, "groups": 3, "side": 8, "inputs": 4} | options)


def bare(tab: Tab) -> None:
    """The maps alone, without the inputs under them."""
    tab.tell("{ const s = document.querySelector('#saliency .section-head input'); s.value = 100; s.dispatchEvent(new Event('input')); }")
    tab.settle()


def pixels(tab: Tab, canvas: str) -> Float64 | None:
    """(h, w, 3) what a canvas shows; None for one that is hidden, as there is no map."""
    found = tab.tell(
        f"(() => {{ const c = {canvas}; const all = () => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]; "
        "return c.hidden ? null : [c.height, c.width, all()]; })()"
    )
    return None if found is None else np.array(found[2], float).reshape(*found[:2], 4)[..., :3]


def assert_shows(tab: Tab, canvas: str, maps: Array) -> None:
    shown = pixels(tab, canvas)
    assert (shown is None) == (not np.any(maps)), canvas
    if shown is not None:  # a level of 255 is at most 2.2 levels of a tone on this scale, of which half is rounding
        assert np.abs(shown - coloured(maps)).max() <= 2.2, canvas


def cell(row: int, column: int) -> str:
    return f"document.querySelectorAll('.epoch-table tbody tr')[{row}].querySelectorAll('td')[{column}].querySelector('canvas')"


def press_cut(tab: Tab, cut: str) -> None:
    tab.press(f'#saliency .switches [data-key="{cut}"]')


def columns(tab: Tab) -> list[int]:
    """The steps that are shown beside each other."""
    return tab.tell("[...document.querySelectorAll('.epoch-table thead button[data-step]')].map((button) => Number(button.lastChild.textContent))")


def marked(tab: Tab) -> list[int]:
    """The steps that are marked as the slider's, by the head and by the column's ground alike."""
    heads = tab.tell("[...document.querySelectorAll('.epoch-table [aria-current=step]')].map((button) => Number(button.lastChild.textContent))")
    now = tab.tell(
        "[...document.querySelectorAll('.epoch-table tbody tr')].map((row) => [...row.querySelectorAll('td')]"
        ".map((cell, i) => (cell.classList.contains('now') ? i : -1)).filter((i) => i >= 0))"
    )
    assert all([columns(tab)[i] for i in row] == heads for row in now)
    return heads


def current(tab: Tab) -> int:
    return int(tab.text(".step-now strong"))


def answers(tab: Tab, selector: str) -> list[str]:
    return tab.tell(f"[...document.querySelectorAll({selector!r})].map((node) => node.innerText.replace(/\\s+/g, ' ').trim())")


def answer(label: int, said: int, sure: float) -> str:
    percent = "> 99 %" if 0.995 <= sure < 1 else f"{np.floor(sure * 100 + 0.5):.0f} %"
    return f"{'✓ right, says' if label == said else '✗ wrong, says'} {said} confidence {percent}"


# ------------------------------------------------------------------------------------------------------ over the steps


def test_one_input_over_the_epochs_shows_its_map_by_every_method_and_what_was_answered(tmp_path):
    run = small(steps=5)
    found = {step: f.arrays for step, f in run.findings["saliency"].items()}
    for step, sure in enumerate((0.994, 0.995, 0.9999, 1.0)):
        found[step]["confidence"][2] = sure  # nearly sure is not sure
    with opened(page(run), tmp_path) as tab:
        bare(tab)
        tab.press(".panel-column:nth-of-type(3) .tile button")  # the names are in a div, columns are figures
        for input, go in ((2, None), (3, "button"), (2, "ArrowUp"), (1, "ArrowUp"), (0, "select")):
            if go == "button":
                tab.press(".picker button[aria-label='Next input']")
                tab.focus(".picker button[aria-label='Next input']")
            elif go == "select":
                tab.tell("{ const s = document.querySelector('.picker select'); s.value = 0; s.dispatchEvent(new Event('change')); }")
                tab.settle()
            elif go:
                tab.key(go)
            arrays = found[0]
            assert f"input {arrays['inputs'][input]}, label {arrays['labels'][input]}" in tab.text(".epoch-table caption")
            assert columns(tab) == list(found)
            for row, method in enumerate(("gradient", "grad_cam")):
                for column, step in enumerate(found):
                    assert_shows(tab, cell(row, column), found[step][f"maps/{method}"][input])
            said = [answer(a["labels"][input], a["predictions"][input], a["confidence"][input]) for a in found.values()]
            assert answers(tab, ".epoch-table tfoot td") == said
        # The first is the first: there is none before it, and up leaves it.
        assert tab.tell("document.querySelector('.picker button').getAttribute('aria-disabled')") == "true"


def test_one_method_over_the_epochs_shows_its_map_of_every_input(tmp_path):
    run = small(steps=4)
    found = {step: f.arrays for step, f in run.findings["saliency"].items()}
    with opened(page(run), tmp_path) as tab:
        bare(tab)
        tab.press(".panel-names button[title^=grad_cam]")
        for method, key in (("grad_cam", None), ("gradient", "ArrowUp")):
            if key:
                tab.focus(".picker button[aria-label='Previous method']")
                tab.key(key)
            assert method.replace("_", " ") in tab.tell("[...document.querySelectorAll('.epoch-table caption')].map((c) => c.textContent).join()")
            for input in range(4):
                for column, step in enumerate(found):
                    assert_shows(tab, cell(input, column), found[step][f"maps/{method}"][input])
            said = [answer(a["labels"][i], a["predictions"][i], a["confidence"][i]) for i in range(4) for a in found.values()]
            assert answers(tab, ".epoch-table tbody td .said") == said
        tab.press(".epoch-table tbody tr:nth-child(3) th button")  # from an input to that input by every method
        assert f"input {found[0]['inputs'][2]}" in tab.text(".epoch-table caption")
        assert tab.tell("document.querySelector('#saliency .switches [aria-pressed=true]').dataset.key") == "input"


@pytest.mark.parametrize("cut", ["input", "method"])
def test_an_epoch_that_is_pressed_is_gone_to_and_the_column_of_the_slider_is_marked(tmp_path, cut):
    with opened(page(small(steps=6)), tmp_path) as tab:
        press_cut(tab, cut)
        assert marked(tab) == [5]
        tab.press('.epoch-table [data-step="2"]')
        assert (current(tab), marked(tab)) == (2, [2])
        tab.tell(f"{cell(1, 4)}.click()")
        tab.settle()
        assert (current(tab), marked(tab)) == (4, [4])
        tab.focus('.epoch-table [data-step="1"]')
        tab.key("ArrowLeft")
        assert (current(tab), marked(tab)) == (3, [3])
        tab.step(0)
        assert marked(tab) == [0]


@pytest.mark.parametrize("size", [(1280, 720), (390, 844)])
def test_epochs_that_have_no_room_are_thinned_evenly_always_with_the_one_of_the_slider(tmp_path, size):
    with opened(page(small(steps=51)), tmp_path, size=size) as tab:
        press_cut(tab, "input")
        many = len(columns(tab))
        assert 3 < many < 51
        for step in (50, 49, 25, 13, 7, 1, 0):
            tab.step(step)
            shown = columns(tab)
            assert len(shown) == many
            assert (shown[0], shown[-1]) == (0, 50)
            assert marked(tab) == [step]
            gaps = np.diff(shown)
            assert gaps.min() >= 1
            assert gaps.max() <= 2 * 50 / (many - 1) + 1
            even = {int(np.floor(i * 50 / (many - 1) + 0.5)) for i in range(many)}
            assert {*shown} - even <= {step}  # the others stay where they are as the slider moves
            assert f"{many} of 51 have room" in tab.text(".epochs-note")
        tab.press(f'.epoch-table [data-step="{shown[1]}"]')
        assert current(tab) == shown[1]
    with opened(page(small(steps=3)), tmp_path) as tab:
        press_cut(tab, "input")
        assert "have room" not in tab.text(".epochs-note")


def test_tiles_are_large_enough_to_be_seen_and_none_is_cut_off(tmp_path):
    for size in ((1280, 720), (390, 844)):
        with opened(page(small(steps=51)), tmp_path, size=size) as tab:
            for cut in ("input", "method"):
                press_cut(tab, cut)
                boxes = tab.tell(
                    "[...document.querySelectorAll('.epoch-table td .tile')].map((tile) => tile.getBoundingClientRect())"
                    ".map((box) => [box.left, box.right, box.width])"
                )
                left, right, width = np.array(boxes).T
                assert left.min() >= 0
                assert right.max() <= size[0]
                assert width.min() >= 50
                assert tab.tell("[...document.querySelectorAll('.epoch-table .sure')].every((node) => node.scrollWidth <= node.clientWidth + 1)")


def test_where_one_epoch_was_observed_there_is_nothing_to_compare(tmp_path):
    with opened(page(small(steps=1)), tmp_path) as tab:
        press_cut(tab, "method")
        assert columns(tab) == [0]
        assert "One epoch was observed: there is nothing to compare it with." in tab.tell(
            "[...document.querySelectorAll('.epochs-note')][1].textContent"
        )


def test_an_epoch_at_which_saliency_was_not_observed_has_no_column_and_says_so(tmp_path):
    run = small(steps=4)
    run = Recording({**run.manifest}, {**run.findings, "saliency": {s: f for s, f in run.findings["saliency"].items() if s in (1, 3)}})
    with opened(page(run), tmp_path) as tab:
        press_cut(tab, "input")
        assert columns(tab) == [1, 3]
        for step, said, held in (
            (3, "", [3]),
            (2, "Saliency was not observed at epoch 2. Shown, faded: epoch 1", [1]),
            (0, "Nothing was observed before. Next: epoch 1", []),
        ):
            tab.step(step)
            notices = " ".join(answers(tab, "#saliency > div:not([hidden]) .notices"))
            assert said in notices
            assert bool(notices) == bool(said)
            assert marked(tab) == held


def test_a_map_that_is_no_number_or_zero_says_so_and_one_that_a_method_did_not_make_too(tmp_path):
    run = small(steps=2)
    arrays = dict(run.findings["saliency"][1].arrays)
    broken = arrays["maps/gradient"].copy()
    broken[0, 3, 3], broken[1] = np.nan, 0
    lacking = {name: values for name, values in run.findings["saliency"][0].arrays.items() if name != "maps/gradient"}
    run = Recording(run.manifest, {**run.findings, "saliency": {0: Findings(lacking), 1: Findings({**arrays, "maps/gradient": broken})}})
    with opened(page(run), tmp_path) as tab:
        press_cut(tab, "method")
        tab.tell(
            "{ const s = document.querySelectorAll('.picker select')[1]; s.value = [...s.options].findIndex((o) => o.text === 'gradient'); "
            "s.dispatchEvent(new Event('change')); }"
        )
        tab.settle()
        said = tab.tell(
            "[...document.querySelectorAll('.epoch-table tbody tr')].map((row) => [...row.querySelectorAll('.nothing')]"
            ".map((nothing) => (nothing.hidden ? null : nothing.textContent)))"
        )
        assert said == [["not observed", "not a number"], ["not observed", "zero everywhere"], ["not observed", None], ["not observed", None]]


# ------------------------------------------------------------------------------------------------------- chosen inputs


def chosen_shown(tab: Tab, why: str) -> list[dict]:
    """Of each chosen input of a reason its title and what is said below it."""
    return tab.tell(
        f"[...document.querySelectorAll('.chosen-group[data-why={why}] .panel-column')].map((c) => ({{ title: c.querySelector('.tile').title, "
        "said: c.querySelector('.said').innerText.replace(/\\s+/g, ' ').trim() }))"
    )


def test_the_inputs_chosen_at_each_step_stand_in_their_groups_with_their_maps_and_answers(tmp_path):
    run, probe = small(steps=4, chosen=2), made_up_probe(groups=3, side=8)
    run = Recording({key: value for key, value in run.manifest.items() if key != "probe"}, run.findings)
    found = [f.arrays for f in run.findings["saliency"].values()]
    with opened(page(run, probe), tmp_path) as tab:
        bare(tab)
        for step in (3, 1, 0):
            tab.step(step)
            now, before = found[step], found[step - 1] if step else None
            for why in ("changed", "wrong", "right"):
                rows = [row for row in range(6) if now["why_chosen"][row] == why and now["inputs_chosen"][row] >= 0]
                shown = chosen_shown(tab, why)
                assert [one["title"] for one in shown] == [f"input {now['inputs_chosen'][row]}, label {now['labels_chosen'][row]}" for row in rows]
                for at, (row, one) in enumerate(zip(rows, shown)):
                    label, said = now["labels_chosen"][row], now["predictions_chosen"][row]
                    was = before["predictions_probe"][now["inputs_chosen"][row]] if before else said
                    changed = f" before: {was}" if was != said else ""
                    assert one["said"] == f"{label} {answer(label, said, now['confidence_chosen'][row])}{changed}"
                    assert bool(changed) == (why == "changed")
                    for number, method in enumerate(("gradient", "grad_cam")):
                        canvas = (
                            f"document.querySelectorAll('.chosen-group[data-why={why}] .panel-column')[{at}].querySelectorAll('canvas')[{1 + number}]"
                        )
                        assert_shows(tab, canvas, now[f"maps_chosen/{method}"][row])


def test_a_group_of_chosen_inputs_that_is_empty_says_why(tmp_path):
    run = small(steps=3, chosen=2)
    found = {step: dict(f.arrays) for step, f in run.findings["saliency"].items()}
    found[2]["predictions_probe"] = found[1]["predictions_probe"]
    found[2]["inputs_chosen"] = np.where(found[2]["why_chosen"] == "right", found[2]["inputs_chosen"], -1)
    run = Recording(run.manifest, {**run.findings, "saliency": {step: Findings(arrays) for step, arrays in found.items()}})
    with opened(page(run), tmp_path) as tab:
        empty = "[...document.querySelectorAll('.chosen-group')].map((g) => (g.querySelector('.none-chosen') || { textContent: null }).textContent)"
        assert tab.tell(empty) == [
            "No prediction changed since epoch 1, apart from the 4 fixed inputs.",
            "No prediction that was so before is wrong, apart from the 4 fixed inputs.",
            None,
        ]
        tab.step(0)
        assert tab.tell(empty) == ["This is the first epoch at which inputs were chosen: nothing can have changed.", None, None]


def test_a_run_that_chose_no_inputs_says_how_to_have_them(tmp_path):
    with opened(page(small(steps=2)), tmp_path) as tab:
        assert "analyses.saliency.chosen=3" in tab.text(".chosen-head")
        assert tab.tell("document.querySelectorAll('.chosen-group').length") == 0


def test_steps_that_had_no_room_are_named_with_ways_to_those_that_have(tmp_path, monkeypatch):
    run = small(steps=9, chosen=2, side=28)
    whole = len(page(run).encode())
    monkeypatch.setattr(report_saliency, "PANEL_BYTES", 45_000)
    monkeypatch.setattr(report_saliency, "CHOSEN_BYTES", 60_000)
    thinned = page(run)
    assert len(thinned.encode()) < whole
    with opened(thinned, tmp_path) as tab:
        press_cut(tab, "input")
        panel = columns(tab)
        assert 2 <= len(panel) < 9
        assert f"it holds {len(panel)} of the 9 epochs that were recorded" in tab.text("#saliency .section-head")
        press_cut(tab, "step")
        assert "of the 9 epochs that were recorded" in tab.text(".chosen-head")
        missing = next(step for step in range(9) if step not in panel)
        tab.step(missing)
        assert f"Saliency of epoch {missing} is in the findings, and left out here" in tab.text("#saliency .notices")
        tab.press("#saliency .notices button")
        assert current(tab) == max(step for step in panel if step < missing)
        gone = []
        for step in range(9):
            tab.step(step)
            said = tab.text(".chosen") or ""
            if not tab.tell("document.querySelectorAll('.chosen-group').length"):
                assert f"The choice of inputs of epoch {step} is in the findings, and left out here" in said
                gone.append(step)
        assert 0 < len(gone) < 8


# -------------------------------------------------------------------------------------------------------------- curves


def with_scalars(run: Recording, names: Iterable[str]) -> Recording:
    """Every named number over the steps, each with a course of its own."""
    found = {
        step: Findings(f.arrays, {name: 0.1 * place + 0.05 * step**1.5 for place, name in enumerate(names)})
        for step, f in run.findings["saliency"].items()
    }
    return Recording(run.manifest, {**run.findings, "saliency": found})


MEASURED = ["deletion", "insertion", "average_drop", "faithfulness", "sensitivity"]
COMPARED = ["similarity_first", "similarity"]
DESCRIBED = ["mass_inside", "concentration", "entropy", "blank"]


def test_the_numbers_of_saliency_stand_in_order_each_beside_its_null(tmp_path):
    methods = ("gradient", "grad_cam")
    nulls = [*MEASURED, "similarity", "mass_inside"]
    names = [f"saliency/{number}/{method}" for number in (*DESCRIBED, *COMPARED, *MEASURED) for method in methods]
    names += [f"saliency/{number}_null/{method}" for number in nulls for method in methods]
    names += [f"saliency/agreement{null}/gradient and grad_cam" for null in ("", "_null")]
    with opened(page(with_scalars(small(steps=3), names)), tmp_path) as tab:
        charts = tab.tell("[...document.querySelectorAll('#curves .curve[data-key^=saliency]')].map((c) => c.dataset.key)")
        assert charts == [f"saliency/{number}" for number in (*MEASURED, *COMPARED, "agreement", *DESCRIBED)]
        for key in charts:
            lines = tab.tell(
                f"[...document.querySelectorAll(\"[data-key='{key}'] .line\")].map((l) => [l.classList.contains('chance'), l.getAttribute('stroke')])"
            )
            number = key.removeprefix("saliency/")
            of_chance = {"agreement": 1, "concentration": 1, "entropy": 1}.get(number, 2 if number in nulls else 0)
            assert sum(chance for chance, _ in lines) == of_chance
            assert len(lines) - of_chance == (1 if number == "agreement" else 2)
            assert ("dashed:" in tab.text(f"[data-key='{key}'] figcaption")) == (of_chance > 0)
            assert "random layout" not in tab.text(f"[data-key='{key}'] figcaption")
            if of_chance == 2:  # in the tone of the method that it is of
                assert {tone for chance, tone in lines if chance} == {tone for chance, tone in lines if not chance}
        tones = [
            tab.tell(f"[...document.querySelectorAll(\"[data-key='saliency/{n}'] .line:not(.chance)\")].map((l) => l.getAttribute('stroke'))")
            for n in (*MEASURED, *COMPARED, *DESCRIBED)
        ]
        assert len({tuple(sorted(pair)) for pair in tones}) == 1  # a method has the same tone in every chart


def test_a_null_that_is_the_same_for_all_methods_is_drawn_once(tmp_path):
    run = with_scalars(small(steps=3), ["saliency/deletion/gradient", "saliency/deletion/grad_cam"])
    found = {
        s: Findings(f.arrays, {**f.scalars, **{f"saliency/deletion_null/{m}": 0.5 + s for m in ("gradient", "grad_cam")}})
        for s, f in run.findings["saliency"].items()
    }
    with opened(page(Recording(run.manifest, {**run.findings, "saliency": found})), tmp_path) as tab:
        assert tab.tell("document.querySelectorAll(\"[data-key='saliency/deletion'] .line.chance\").length") == 1
        assert tab.text("[data-key='saliency/deletion'] .line.chance title") == "all, random maps"
        assert "0.5" in tab.tell("document.querySelector(\"[data-key='saliency/deletion'] svg\").getAttribute('aria-label')")


# ----------------------------------------------------------------------------------------------------- every condition


@pytest.mark.parametrize("size", [(1280, 720), (390, 844)])
@pytest.mark.parametrize("many", [2, 6])
def test_nothing_is_wider_than_the_screen_nothing_is_nameless_and_nothing_is_fetched(tmp_path, size, many):
    methods = tuple(f"a_method_of_a_longer_name_{number}" for number in range(many))
    run = small(steps=14, chosen=many, inputs=9, methods=methods, manifest={"class_names": ["a class of a long name", "b", "ctenophora"]})
    with opened(page(run), tmp_path, size=size) as tab:
        for cut in ("step", "input", "method"):
            press_cut(tab, cut)
            for step in (13, 4, 0):
                tab.step(step)
                assert tab.tell("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
            assert tab.nameless("#saliency") == []
        assert tab.fetched() == []
