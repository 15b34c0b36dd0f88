"""Laws of the cards of units as a reader works them, in a real browser: every tile, outline, field and number is what the findings say."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, binary_erosion

import netlapse.report_units as report_units
from netlapse.analysis.receptive_field.fields import centres, largest_diameter
from netlapse.analysis.receptive_field.views import region, resampled
from netlapse.recording import Recording
from netlapse.render.colours import BLUE_WHITE_RED, MISSING, palette
from netlapse.render.montage import OUTLINE, TILE
from netlapse.report import page
from netlapse.types import Array, Field, Findings, Float64, ProbeSet

sys.path.insert(0, str(Path(__file__).parent))
from browser import Tab, needs_browser, opened
from page_recording import made_up_run, with_responses

pytestmark = needs_browser

UNITS = 6


def shown_probe(h: int = 12, w: int = 10, channels: int = 1, n: int = 40) -> ProbeSet:
    inputs = np.random.default_rng(1).random((n, h, w, channels)).astype(np.float32)
    return ProbeSet(inputs, np.arange(n) % 3, ("a", "b", "c"), ids=np.array([f"image {i}" for i in range(n)]))


def made(probe: ProbeSet, *, steps: int = 3, layers: dict[str, tuple[int, int]] | None = None, **options: object) -> Recording:
    layers = {"conv": (5, 4)} if layers is None else layers
    run = made_up_run(steps=steps, layers=dict.fromkeys([*layers, "fc"], UNITS), groups=3, inputs=0, manifest={"class_names": ["a", "b", "c"]})
    nap = {
        s: Findings({k: v % len(probe.labels) if k.startswith("top/") else v for k, v in f.arrays.items()}) for s, f in run.findings["nap"].items()
    }
    findings = {name: found for name, found in run.findings.items() if name not in ("samples", "saliency")} | {"nap": nap}
    return with_responses(Recording(run.manifest, findings), probe, layers=layers, **options)  # type: ignore[arg-type]


def arrays_of(run: Recording, step: int) -> dict[str, Array]:
    return dict(run.findings["receptive_field"][step].arrays)


def changed(run: Recording, by_step: dict[int, dict[str, Array] | None]) -> Recording:
    """With other findings of `receptive_field` at some steps; None: without any."""
    found = {**run.findings["receptive_field"]} | {s: Findings(arrays) for s, arrays in by_step.items() if arrays is not None}
    return Recording(run.manifest, {**run.findings, "receptive_field": {s: f for s, f in found.items() if by_step.get(s, {}) is not None}})


def pin(tab: Tab, unit: int, layer: int = 0) -> None:
    tab.press(f".layer-list button:nth-child({layer + 1})")
    if not tab.tell("!!document.querySelector('#unit input')"):
        tab.click((0.5, 0.5))
    tab.tell(f"{{ const n = document.querySelector('#unit input'); n.value = {unit}; n.dispatchEvent(new Event('change')); }}")
    tab.settle()


def pixels(tab: Tab, canvas: str) -> Float64:
    """(h, w, 3) what a canvas shows."""
    found = tab.tell(
        f"(() => {{ const c = {canvas}; return [c.height, c.width, [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]]; }})()"
    )
    return np.array(found[2], float).reshape(*found[:2], 4)[..., :3]


def tile(rank: int) -> str:
    return f"document.querySelectorAll('#unit .top-tile canvas')[{rank}]"


FIELD = "document.querySelector('#unit .field-map canvas')"


def enlarged(values: Array, size: tuple[int, int]) -> Array:
    step = max(1, -(-max(size) // (TILE + TILE // 2)))
    factor = max(1, round(TILE * step / max(size)))
    return values[::step, ::step].repeat(factor, axis=0).repeat(factor, axis=1)


def places(arrays: dict[str, Array], unit: int, size: tuple[int, int], shape: tuple[int, int]) -> Float64:
    known = arrays.get("theory/conv")
    theory = None if known is None else Field(*(tuple(int(v) for v in row) for row in known.T))  # type: ignore[arg-type]
    return centres(np.asarray(arrays["top_positions/conv"][unit]), theory, shape, size)


def coloured(share: Float64) -> Float64:
    """Of what covering takes as a share of the activation, grey where it is not known."""
    known = np.clip(np.nan_to_num(share), -1, 1)
    tones = [[int(tone[i : i + 2], 16) for i in (0, 2, 4)] for tone in TONES]
    ramp = np.stack([np.interp((known + 1) * 4, range(9), [tone[c] for tone in tones]) for c in range(3)], axis=2)
    return np.where(np.isnan(share)[..., None], palette(BLUE_WHITE_RED)[MISSING], ramp)


def assert_field_shown(tab: Tab, field: Array, height: float, stride: int, size: tuple[int, int]) -> None:
    middle = np.array([(size[0] - 1) / 2, (size[1] - 1) / 2])
    step = max(1, -(-max(size) // 132))
    share = (resampled(np.asarray(field, np.float32), stride, middle, size) / height)[::step, ::step]
    shown = pixels(tab, FIELD)
    np.testing.assert_array_equal((shown == 237).all(axis=2), np.isnan(share))
    assert np.abs(shown - coloured(share)).max() <= 2.5  # a level of 127 is at most 2.4 levels of a tone, of which half is rounding


TONES = ("08306b", "2166ac", "5c9bd6", "a9ceee", "ffffff", "f6bdad", "e17a69", "b82c33", "71001a")


# ---------------------------------------------------------------------------------------------------- what is drawn


@pytest.mark.parametrize("size", [(12, 10), (11, 30), (150, 60)])
@pytest.mark.parametrize("theory", [(5, 2, -1), None])
def test_the_outline_is_the_region_and_the_field_the_share_of_the_activation(tmp_path, size, theory):
    probe = shown_probe(*size, channels=3 if theory else 1)
    run = made(probe, theory=theory, stride=2 if max(size) < 100 else 5, steps=2)
    outlined = 0
    with opened(page(run, probe), tmp_path) as tab:
        for step, unit in ((1, 0), (1, 4), (0, 2)):
            tab.step(step)
            pin(tab, unit)
            arrays = arrays_of(run, step)
            stride, field = int(arrays["stride"]), np.asarray(arrays["fields/conv"][unit], np.float32)
            for rank, centre in enumerate(places(arrays, unit, size, (5, 4))):
                inside = enlarged(region(field, stride, centre, size), size)
                edge = binary_dilation(inside) & ~binary_erosion(inside, border_value=1)
                found = pixels(tab, tile(rank))
                np.testing.assert_array_equal((found == OUTLINE).all(axis=2), edge)
                outlined += int(edge.any())
                if max(size) <= 48:  # the picture under it is the input
                    image = probe.inputs[int(arrays["top/conv"][unit, rank])]
                    levels = np.broadcast_to(255 * (image - probe.inputs.min()) / np.ptp(probe.inputs), (*size, 3))
                    assert np.abs(found - enlarged(levels, size))[~edge].max() <= 0.51
            assert_field_shown(tab, field, float(arrays["top_values/conv"][unit].mean(dtype=np.float64)), stride, size)
    assert outlined > 4


def test_what_is_at_half_of_the_highest_is_within_and_what_is_just_below_is_not(tmp_path):
    probe = shown_probe()
    run = made(probe, steps=1)
    arrays = arrays_of(run, 0)
    field = np.full(arrays["fields/conv"].shape, -100, np.float32)  # what is far below zero leaves few of 127 levels to the rest
    field[:, 4, 3], field[:, 4, 4], field[:, 4, 2] = 1e-3, 0.5e-3, np.nextafter(np.float32(0.5e-3), np.float32(0))
    arrays["fields/conv"] = field
    arrays["top_positions/conv"][:] = 2
    run = changed(run, {0: arrays})
    with opened(page(run, probe), tmp_path) as tab:
        pin(tab, 3)
        [centre] = places(arrays, 3, (12, 10), (5, 4))[:1]
        inside = region(field[3], 2, centre, (12, 10))
        assert inside.sum() == 2 * 2 * 2  # two places of two by two pixels
        grown = enlarged(inside, (12, 10))
        edge = binary_dilation(grown) & ~binary_erosion(grown, border_value=1)
        np.testing.assert_array_equal((pixels(tab, tile(0)) == OUTLINE).all(axis=2), edge)


# ------------------------------------------------------------------------------------------------------ what is said


def facts(tab: Tab) -> dict[str, str]:
    return dict(tab.tell("[...document.querySelectorAll('.card-facts > div')].map((d) => [d.children[0].textContent, d.children[1].textContent])"))


def test_the_card_says_what_the_findings_say_of_the_unit_at_the_step(tmp_path):
    probe = shown_probe()
    run = made(probe, steps=4)
    with opened(page(run, probe), tmp_path) as tab:
        for step, unit in ((3, 1), (3, 5), (2, 5), (0, 0)):
            tab.step(step)
            pin(tab, unit)
            arrays = arrays_of(run, step)
            labels = probe.labels[arrays["top/conv"][unit]]
            kind = "abc"[int(arrays["class/conv"][unit])]
            assert tab.tell("[...document.querySelectorAll('#unit .top-tile figcaption')].map((c) => c.textContent)") == ["abc"[k] for k in labels]
            assert tab.tell("[...document.querySelectorAll('#unit .top-tile figcaption.is')].map((c) => c.textContent)") == [
                kind for k in labels if "abc"[k] == kind
            ]
            titles = tab.tell("[...document.querySelectorAll('#unit .top-tile')].map((c) => c.title)")
            assert [title.split(",")[0] for title in titles] == [f"input image {i}" for i in arrays["top/conv"][unit]]
            said = facts(tab)
            since = int(arrays["since/conv"][unit])
            count = round(float(arrays["purity/conv"][unit]) * 3)
            assert (
                said["What it is for"] == f"class {kind}: {count} of its 3 top inputs · {'from the start' if since == 0 else f'since epoch {since}'}"
            )
            assert ("How steady" in said) == (step > 0)
            if step:
                assert said["How steady"] == f"{round(float(arrays['stability/conv'][unit]) * 3)} of 3 were among them at epoch {step - 1}"
            diameter, ratio = (float(arrays[f"{name}/conv"][unit]) for name in ("diameter", "ratio"))
            width = float(re.match(r"([\d.]+) px", said["Width of its field"])[1])  # type: ignore[index]
            assert abs(width - diameter) <= (0.05 if diameter < 10 else 0.5) + 1e-6
            area = float(re.match(r"([\d.]+) px²", said["Its strongest part"])[1])  # type: ignore[index]
            assert area == pytest.approx(float(arrays["area/conv"][unit]), rel=0.006)
            assert said["What it can see, by theory"].startswith("5 × 5 px")
            assert abs(int(re.search(r"(\d+) %", said["What it can see, by theory"])[1]) - 100 * ratio) <= 0.51  # type: ignore[index]


def test_a_dead_unit_says_so_and_shows_neither_inputs_nor_a_field(tmp_path):
    probe = shown_probe()
    run = made(probe, dead={1: (2,)})
    with opened(page(run, probe), tmp_path) as tab:
        tab.step(1)
        pin(tab, 2)
        assert tab.text("#unit .dead").startswith("Dead: at epoch 1 ")
        assert tab.tell("document.querySelectorAll('#unit .top-tile, #unit .field-map, .card-facts').length") == 0
        assert tab.tell("[...document.querySelectorAll('.field-step')].map((b) => !!b.querySelector('canvas'))") == [True, False, True]
        assert tab.text(".field-step:nth-child(2) .no-field") == "dead"
        tab.step(2)
        assert tab.tell("document.querySelectorAll('#unit .top-tile').length") == 3


def test_a_unit_without_a_field_says_why_and_leads_to_one_that_has(tmp_path):
    probe = shown_probe()
    few = made(probe, limit=3)  # units 0, 2 and 5
    with opened(page(few, probe), tmp_path) as tab:
        pin(tab, 4)
        assert "measured for 3 of the 6 units, spread evenly (limit_units)" in tab.text("#unit .no-field")
        assert tab.tell("document.querySelectorAll('#unit .top-tile').length") == 3
        assert not (pixels(tab, tile(0)) == OUTLINE).all(axis=2).any()
        assert tab.tell("document.querySelectorAll('.field-step, .card-course').length") == 0
        assert tab.tell("[...document.querySelectorAll('#unit .no-field button')].map((b) => b.textContent)") == ["unit 2", "unit 5"]
        tab.press("#unit .no-field button")
        assert tab.tell("document.querySelector('#unit input').value") == "2"
        arrays = arrays_of(few, 2)
        assert_field_shown(tab, arrays["fields/conv"][1], float(arrays["top_values/conv"][2].mean(dtype=np.float64)), 2, (12, 10))
    with opened(page(made(probe, fields=False), probe), tmp_path) as tab:
        pin(tab, 1)
        assert "asked for top inputs alone" in tab.text("#unit .no-field")
        assert tab.tell("document.querySelectorAll('#unit .top-tile').length") == 3
    run = made(probe)
    arrays = arrays_of(run, 2)
    arrays["top_values/conv"][0], arrays["diameter/conv"][1] = -1, np.nan
    with opened(page(changed(run, {2: arrays}), probe), tmp_path) as tab:
        pin(tab, 0)
        assert "nowhere above 0" in tab.text("#unit .no-field")
        pin(tab, 1)
        assert "nothing is taken" in tab.text("#unit .no-field")


def test_layers_and_steps_without_the_analysis_show_the_inputs_of_the_profiles(tmp_path):
    probe = shown_probe()
    run = changed(made(probe), {1: None})
    with opened(page(run, probe), tmp_path) as tab:

        def of_profiles(layer: str, step: int, unit: int) -> list[str]:
            return [f"input image {i}" for i in run.findings["nap"][step].arrays[f"top/{layer}"][unit]]

        titles = "[...document.querySelectorAll('#unit .top-tile')].map((i) => i.title.split(',')[0])"
        pin(tab, 2, layer=1)  # without positions
        assert tab.tell(titles) == of_profiles("fc", 2, 2)
        labels = ["abc"[probe.labels[i]] for i in run.findings["nap"][2].arrays["top/fc"][2]]
        assert tab.tell("[...document.querySelectorAll('#unit .top-tile figcaption')].map((c) => c.textContent)") == labels
        pin(tab, 2)
        tab.step(1)
        assert tab.tell(titles) == of_profiles("conv", 1, 2)
        assert "What it responds to most was not observed at epoch 1." in tab.text("#unit .unit-card")
        assert tab.tell("[...document.querySelectorAll('.field-step .at')].map((a) => a.lastChild.textContent)") == ["0", "2"]
    failed = Recording(
        {**run.manifest, "failures": [{"what": "receptive_field", "message": "no memory"}]},
        {k: v for k, v in run.findings.items() if k != "receptive_field"},
    )
    with opened(page(failed, probe), tmp_path) as tab:
        pin(tab, 2)
        assert "No fields: the analysis “receptive_field” failed: no memory." in tab.text("#unit .unit-card")


def test_a_unit_that_the_profiles_know_as_constant_has_no_top_inputs_there_either(tmp_path):
    probe = shown_probe()
    run = made(probe, steps=1)
    arrays = {**run.findings["nap"][0].arrays, "constant/fc": np.arange(UNITS) == 4}
    run = Recording(run.manifest, {**run.findings, "nap": {0: Findings(arrays)}})
    with opened(page(run, probe), tmp_path) as tab:
        for unit in (4, 3):
            pin(tab, unit, layer=1)
            assert (tab.text("#unit .dead") or "").startswith("Dead: at epoch 0 ") == (unit == 4)
            assert tab.tell("document.querySelectorAll('#unit .top-tile').length") == (0 if unit == 4 else 4)


def test_without_the_probe_inputs_are_named_and_labelled_and_fields_drawn(tmp_path):
    probe = shown_probe()
    run = made(probe, steps=1)
    with opened(page(run), tmp_path) as tab:
        pin(tab, 3)
        assert tab.tell("[...document.querySelectorAll('#unit .top-tile')].map((t) => t.textContent)") == [
            f"#{i}, label {'abc'[probe.labels[i]]}" for i in arrays_of(run, 0)["top/conv"][3]
        ]
        assert tab.tell("!!document.querySelector('#unit .field-map canvas')")
        assert "One epoch was observed" in tab.text(".card-strip")


# ---------------------------------------------------------------------------------------------------------- over steps


def test_the_strip_holds_every_step_s_field_and_leads_there_also_by_keys(tmp_path):
    probe = shown_probe()
    run = made(probe, steps=4)
    with opened(page(run, probe), tmp_path) as tab:
        pin(tab, 1)
        assert tab.tell("[...document.querySelectorAll('.field-step')].map((b) => Number(b.dataset.step))") == [0, 1, 2, 3]
        strip = [pixels(tab, f"document.querySelectorAll('.field-step canvas')[{i}]") for i in range(4)]
        for step in (2, 0):
            tab.press(f'.field-step[data-step="{step}"]')
            assert tab.text(".step-now strong") == str(step)
            assert tab.tell("[...document.querySelectorAll('.field-step[aria-current=step]')].map((b) => b.dataset.step)") == [str(step)]
            np.testing.assert_array_equal(pixels(tab, FIELD), strip[step])
        assert not np.array_equal(strip[0], strip[2])
        tab.focus('.field-step[data-step="3"]')
        tab.press('.field-step[data-step="3"]')
        assert tab.tell("document.activeElement.dataset.step") == "3"  # drawn anew, and still the one
        tab.key("ArrowLeft")
        assert tab.tell("[document.querySelector('.step-now strong').textContent, document.activeElement.dataset.step]") == ["2", "3"]
        course = tab.tell("document.querySelector('.card-course svg').getAttribute('aria-label')")
        first, last = (float(arrays_of(run, step)["diameter/conv"][1]) for step in (0, 3))
        found = [float(v) for v in re.search(r"unit 1 from ([\d.]+) to ([\d.]+)", course).groups()]  # type: ignore[union-attr]
        assert found == pytest.approx([first, last], rel=0.006)


def test_steps_that_have_no_room_in_the_strip_are_thinned_with_the_one_of_the_slider(tmp_path):
    probe = shown_probe()
    with opened(page(made(probe, steps=30), probe), tmp_path, size=(390, 844)) as tab:
        pin(tab, 1)
        for step in (29, 13, 0):
            tab.step(step)
            held = tab.tell("[...document.querySelectorAll('.field-step')].map((b) => Number(b.dataset.step))")
            assert len(held) == 5
            assert {0, 29, step} <= {*held}
            assert tab.tell("[...document.querySelectorAll('.field-step')].every((b) => b.getBoundingClientRect().right <= innerWidth)")
            assert "5 of 30 have room" in tab.text(".card-strip")


# --------------------------------------------------------------------------------------------------------- pointed at


def test_a_unit_that_is_pointed_at_shows_its_inputs_and_moves_nothing(tmp_path):
    probe = shown_probe()
    run = made(probe, dead={2: (3,)})
    layout = (
        "[document.documentElement.scrollHeight, scrollX, ...[...document.querySelectorAll('.map, #unit, #curves')]"
        ".map((n) => n.getBoundingClientRect().top + scrollY)]"
    )
    positions = run.findings["topomap"][2].arrays["positions/conv"]
    with opened(page(run, probe), tmp_path) as tab:
        before = tab.tell(layout)
        assert tab.tell("document.querySelector('.peek').hidden")
        for unit in (0, 5, 3):
            tab.point("mouseMoved", positions[unit])
            tab.settle()
            assert tab.text(".peek strong") == f"unit {unit}"
            titles = tab.tell("[...document.querySelectorAll('.peek .top-tile')].map((t) => t.title.split(',')[0])")
            assert titles == ([] if unit == 3 else [f"input image {i}" for i in arrays_of(run, 2)["top/conv"][unit]])
            assert ("Dead" in tab.text(".peek")) == (unit == 3)
            assert tab.tell(layout) == before
            over = "document.querySelector('.peek').getBoundingClientRect()"
            assert tab.tell(f"[...document.querySelectorAll('.map')].every((m) => m.getBoundingClientRect().left >= {over}.right)")
        tab.point("mouseMoved", (0.5, 3))
        tab.settle()
        assert tab.tell("document.querySelector('.peek').hidden")


# --------------------------------------------------------------------------------------------------------------- curves


def test_widths_are_spread_by_quartiles_below_the_bound_of_theory_under_a_heading(tmp_path):
    probe = shown_probe()
    run = made(probe, steps=3, layers={"one": (5, 4), "two": (3, 3)}, dead={1: (0, 1, 2, 3, 4, 5)})
    scalars = {
        f"receptive_field/{name}/{layer}": 0.5
        for name in ("purity", "purity_null", "stability", "stability_null", "diameter")
        for layer in ("one", "two")
    }
    run = Recording(
        run.manifest, {**run.findings, "receptive_field": {s: Findings(f.arrays, scalars) for s, f in run.findings["receptive_field"].items()}}
    )
    with opened(page(run, probe), tmp_path) as tab:
        heads = tab.tell(
            "[...document.querySelectorAll('#curves > h3')].map((h) => [h.textContent, "
            "[...h.nextSibling.querySelectorAll('.curve')].map((c) => c.dataset.key)])"
        )
        assert heads == [
            ["What units respond to: how pure and how steady", ["receptive_field/purity", "receptive_field/stability"]],
            ["Receptive fields: how far units look", [f"receptive_field/diameter{of}" for of in ("/one", "/two", "")]],
        ]
        for key in ("purity", "stability"):  # each beside its null, which is the same for all layers
            assert tab.tell(f"document.querySelectorAll(\"[data-key='receptive_field/{key}'] .line.chance\").length") == 1
            assert "dashed: inputs drawn at random" in tab.text(f"[data-key='receptive_field/{key}'] figcaption")
        for layer in ("one", "two"):
            chart = f"[data-key='receptive_field/diameter/{layer}']"
            path = tab.tell(f'document.querySelector("{chart} .band").getAttribute("d")')
            drawn = np.array([[float(v) for v in point.split(",")] for point in re.findall(r"-?[\d.]+,-?[\d.]+", path)])
            found = [arrays_of(run, step)[f"diameter/{layer}"] for step in (0, 2)]
            quartiles = np.array([np.quantile(row, (0.75, 0.25)) for row in found])
            # At step 1 all units are dead: two pieces of one step each, from above to below.
            middle = tab.tell(f'document.querySelector("{chart} .line:not(.chance)").getAttribute("d")')
            median = np.array([[float(v) for v in point.split(",")] for point in re.findall(r"-?[\d.]+,-?[\d.]+", middle)])
            line = tab.tell(f'document.querySelector("{chart} .line.chance").getAttribute("d")')
            bound = largest_diameter(Field((5, 5), (2, 2), (-1, -1)), 4, 2, (5, 4))
            levels = [*quartiles.ravel(), *(np.median(row) for row in found), bound]
            heights = [*drawn[:, 1], *median[:, 1], float(re.search(r",([\d.]+)", line)[1])]  # type: ignore[index]
            slope, start = np.polyfit(levels, heights, 1)
            assert slope < 0
            assert np.abs(np.polyval((slope, start), levels) - heights).max() <= 0.11  # tenths of a pixel


# ----------------------------------------------------------------------------------------------------------------- size


def carried(document: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="recording">(.*?)</script>', document, re.DOTALL)[1])  # type: ignore[index]


def sizes(document: str) -> list[int]:
    of = [layer["responds"]["fields"] for layer in carried(document)["layers"] if layer["responds"]]
    return [len(fields[name]["data"]) for fields in of for name in ("share", "inside")]


def test_fields_without_room_are_of_fewer_steps_then_of_fewer_units_and_the_page_says_so(tmp_path, monkeypatch):
    probe = shown_probe()
    run = made(probe, steps=9, layers={"conv": (5, 4), "deep": (3, 3)})
    whole = sum(sizes(page(run, probe)))
    for room, most_steps, most_units in ((whole * 2 // 3, 8, 6), (whole // 8, 2, 5)):
        monkeypatch.setattr(report_units, "FIELD_BYTES", room)
        document = page(run, probe)
        assert room / 3 <= sum(sizes(document)) <= room
        fields = carried(document)["layers"][0]["responds"]["fields"]
        kept = [step for step, row in enumerate(fields["at"]) if row >= 0]
        assert 2 <= len(kept) <= most_steps
        assert (kept[0], kept[-1]) == (0, 8)
        assert sorted([*kept, *fields["left_out"]]) == list(range(9))
        units = fields["units"]["shape"][0]
        assert units <= most_units
        with opened(document, tmp_path) as tab:
            pin(tab, 0)
            tab.step(gone := fields["left_out"][0])
            assert f"The field of epoch {gone} is in the findings, and left out here to keep this page small." in tab.text("#unit .no-field")
            assert f"it holds fields of {len(kept)} of the 9 epochs" in tab.text(".card-strip")
            assert tab.tell("document.querySelectorAll('#unit .top-tile').length") == 3
            tab.press("#unit .no-field button")
            assert tab.text(".step-now strong") in {str(step) for step in kept}
            assert tab.tell("!!document.querySelector('#unit .field-map canvas')")
            if units < UNITS:
                left = next(u for u in range(UNITS) if u not in np.rint(np.linspace(0, UNITS - 1, units)))
                pin(tab, left)
                assert "left out here to keep this page small" in tab.text("#unit .no-field")
                tab.press("#unit .no-field button")
                assert tab.tell("!!document.querySelector('#unit .field-map canvas')")


def test_no_picture_is_carried_twice():
    probe = shown_probe()
    run = made(probe)
    inputs = carried(page(run, probe))["inputs"]
    named = [f.arrays[k] for of in ("nap", "receptive_field") for f in run.findings[of].values() for k in f.arrays if k.startswith("top/")]
    assert inputs["at"] == sorted({int(i) for tops in named for i in tops.ravel()})
    assert inputs["pictures"]["data"]["shape"][0] == len(inputs["at"])
    assert sorted(inputs["pictures"]["row"]) == list(range(len(inputs["at"])))


# ----------------------------------------------------------------------------------------------------- every condition


@pytest.mark.parametrize("size", [(1280, 720), (390, 844)])
def test_nothing_is_wider_than_the_screen_and_everything_that_can_be_used_has_a_name(tmp_path, size):
    probe = shown_probe()
    run = made(probe, steps=12, k=8, dead={3: (1,)})
    with opened(page(run, probe), tmp_path, size=size) as tab:
        pin(tab, 1)
        for step in (11, 3, 0):
            tab.step(step)
            assert tab.tell("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
            assert tab.tell("[...document.querySelectorAll('.unit-card *')].every((n) => n.getBoundingClientRect().right <= innerWidth)")
            assert tab.tell(
                "[...document.querySelectorAll('#unit button, #unit canvas, #unit input')]"
                ".every((n) => n.getAttribute('aria-label') || n.textContent.trim())"
            )
