"""Laws of the time-lapse page: it carries the findings' numbers, and nothing in them can break it or reach outside."""

from __future__ import annotations

import base64
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import netlapse.report as report
import netlapse.report_inputs as report_inputs
from netlapse.analysis.groups import linkage, order
from netlapse.analysis.layout import flas, pca
from netlapse.analysis.nap import contrast
from netlapse.analysis.relayout import relayout
from netlapse.recording import Recording
from netlapse.report import page
from netlapse.types import Findings, ProbeSet

sys.path.insert(0, str(Path(__file__).parent))
from page_recording import LAYERS, made_up_probe, made_up_run


def carried(document: str) -> dict:
    """The data a page carries, as its script reads it."""
    return json.loads(re.search(r'<script type="application/json" id="recording">(.*?)</script>', document, re.S)[1])


def unpacked(packed: dict) -> np.ndarray:
    data = base64.b64decode(packed["data"] + "=" * (-len(packed["data"]) % 4))
    return np.frombuffer(data, np.dtype(packed["type"]).newbyteorder("<")).reshape(packed["shape"])


def contrasts(layer: dict) -> np.ndarray:
    """(s, g, u) as the page shows them, NaN where there is none."""
    numbers = unpacked(layer["contrast"]).astype(float)
    return np.where(numbers == -32768, np.nan, numbers * np.array(layer["scale"])[:, None, None])


def one_layer(profiles: list[np.ndarray], counts: list[int] | None = None, **arrays: np.ndarray) -> Recording:
    groups = np.array([f"group {g}" for g in range(len(profiles[0]))])
    nap = {}
    for step, profile in enumerate(profiles):
        found = {"groups": groups, "profile/conv": profile, "scale/conv": np.float64(0.5), **arrays}
        nap[step] = Findings(found | ({"counts": np.array(counts)} if counts else {}))
    return Recording({}, {"nap": nap})


def test_numbers_of_the_page_are_the_findings_within_half_a_quantisation_step():
    rng = np.random.default_rng(0)
    profiles = [rng.normal(scale=10.0**step, size=(4, 7)) + 1000 for step in range(-3, 2)]
    layer = carried(page(one_layer(profiles)))["layers"][0]
    shown, mean = contrasts(layer), unpacked(layer["mean"])
    for step, profile in enumerate(profiles):
        exact = profile - profile.mean(axis=0)
        assert np.abs(shown[step] - exact).max() <= layer["scale"][step] / 2 * (1 + 1e-9)
        np.testing.assert_allclose(mean[step], profile.mean(axis=0), rtol=1e-7)
        assert layer["scale"][step] <= np.abs(exact).max() / 32767 * (1 + 1e-9)
    assert layer["sd"] == [0.5] * 5
    np.testing.assert_allclose(layer["limit"], max(np.abs(p - p.mean(axis=0)).max() for p in profiles), rtol=1e-12)


def test_zero_contrast_stays_exactly_zero_beside_a_large_one():
    profile = np.array([[0.1, 5e6], [0.1, -3e6], [0.1, 2e6]])
    shown = contrasts(carried(page(one_layer([profile])))["layers"][0])[0]
    assert (shown[:, 0] == 0).all()
    assert (shown[:, 1] != 0).all()


def test_constant_layer_is_carried_as_zero_contrast_without_a_warning():
    layer = carried(page(one_layer([np.full((3, 4), 0.1)])))["layers"][0]  # the mean of three 0.1 is not 0.1
    assert (contrasts(layer) == 0).all()
    assert layer["limit"] == 0


@pytest.mark.parametrize("counts", [None, [5, 0, 3]])
def test_empty_group_is_missing_and_takes_no_part_in_the_mean(counts):
    profile = np.array([[1.0, 2.0], [np.nan, np.nan], [3.0, 6.0]])
    document = carried(page(one_layer([profile], counts)))
    layer = document["layers"][0]
    assert (unpacked(layer["contrast"])[0, 1] == -32768).all()
    np.testing.assert_allclose(contrasts(layer)[0, [0, 2]], [[-1, -2], [1, 2]], rtol=1e-4)
    np.testing.assert_array_equal(unpacked(layer["mean"])[0], [2, 4])
    assert document["counts"] == [counts]


def test_diverged_layer_is_carried_as_missing():
    layer = carried(page(one_layer([np.array([[1.0, np.inf], [2.0, 1.0]]), np.full((2, 2), np.nan)])))["layers"][0]
    shown = contrasts(layer)
    assert np.isnan(shown[0, :, 1]).all()
    assert np.isfinite(shown[0, :, 0]).all()
    assert np.isnan(shown[1]).all()


def test_groups_keep_their_identity_when_their_order_changes():
    first, second = np.array([[1.0], [3.0]]), np.array([[30.0], [10.0]])
    nap = {0: Findings({"groups": np.array(["a", "b"]), "profile/x": first}), 1: Findings({"groups": np.array(["b", "a"]), "profile/x": second})}
    document = carried(page(Recording({}, {"nap": nap})))
    assert document["groups"] == ["a", "b"]
    np.testing.assert_allclose(contrasts(document["layers"][0])[:, :, 0], [[-1, 1], [-10, 10]])


def test_a_step_that_an_analysis_did_not_observe_is_marked_as_such():
    run = made_up_run(steps=4)
    findings = {name: dict(by_step) for name, by_step in run.findings.items()}
    del findings["nap"][1], findings["topomap"][2], findings["saliency"][3]
    document = carried(page(Recording(run.manifest, findings)))
    assert document["steps"] == [0, 1, 2, 3]
    assert document["layers"][0]["at"] == [0, -1, 1, 2]
    assert [at >= 0 for at in document["layers"][0]["laid_out"][0]["at"]] == [True, True, False, True]
    assert document["saliency"]["at"] == [0, 1, 2, -1]
    assert document["counts"][1] is None


def test_layouts_that_permute_the_same_places_share_one_triangulation():
    run = made_up_run(steps=5)
    document = carried(page(run))
    assert len(document["geometries"]) == len(LAYERS)
    moved = {
        step: Findings(
            {
                name: np.clip(values + 0.01 * step * (np.arange(values.size).reshape(values.shape) % 3), 0, 1)
                if name.startswith("positions")
                else values
                for name, values in f.arrays.items()
            }
        )
        for step, f in run.findings["topomap"].items()
    }
    assert len(carried(page(Recording({}, {**run.findings, "topomap": moved})))["geometries"]) == 5 * len(LAYERS)


def test_every_unit_sits_where_the_findings_say():
    run = made_up_run(steps=3)
    document = carried(page(run))
    for layer in document["layers"]:
        for index, step in enumerate(document["steps"]):
            layout = layer["layouts"][layer["laid_out"][0]["at"][index]]
            places = unpacked(document["geometries"][layout["geometry"]]["points"])[unpacked(layout["vertex"])] / 65535
            exact = run.findings["topomap"][step].arrays[f"positions/{layer['name']}"]
            assert np.abs(places - exact).max() <= 0.5 / 65535 + 1e-12
            assert layout["step"] == step


@pytest.mark.parametrize("constant", [(), (0, 1, 5, 63)])
def test_maps_of_the_page_are_those_of_the_logged_pictures(constant):
    from netlapse.field import interpolation

    run = made_up_run(steps=1, layers={"conv": 64}, constant=constant)
    document = carried(page(run))
    layout = document["layers"][0]["layouts"][0]
    geometry = document["geometries"][layout["geometry"]]
    points, triangles = unpacked(geometry["points"]) / 65535, unpacked(geometry["triangles"]).astype(int)
    values = run.findings["nap"][0].arrays["profile/conv"][3]
    at_points = np.empty(64)
    at_points[unpacked(layout["vertex"])] = values
    centres = points[triangles].mean(axis=1)
    # The picture's pixel nearest to each triangle's centre, and the page's value there: linear on its own triangles.
    r = 400
    columns, rows = np.floor(centres[:, 0] * r).astype(int), np.floor((1 - centres[:, 1]) * r).astype(int)
    pixels = np.stack([(columns + 0.5) / r, 1 - (rows + 0.5) / r], axis=1)
    corners = np.concatenate([points[triangles], np.ones((len(triangles), 3, 1))], axis=2)
    weights = np.linalg.solve(corners.transpose(0, 2, 1), np.column_stack([pixels, np.ones(len(pixels))])[..., None])[..., 0]
    shown = (weights * at_points[triangles]).sum(axis=1)
    living = ~np.isin(np.arange(64), constant)  # as topomap draws them
    picture = (interpolation(run.findings["topomap"][0].arrays["positions/conv"][living], r) @ values[living]).reshape(r, r)
    assert set(unpacked(geometry["silent"]).tolist()) == {int(unpacked(layout["vertex"])[unit]) for unit in constant}
    np.testing.assert_allclose(shown, picture[rows, columns], atol=1e-3 * np.ptp(values))


@pytest.mark.parametrize(
    "positions",
    [np.array([[0.5, 0.5]]), np.array([[0.2, 0.5], [0.8, 0.5]]), np.stack([np.linspace(0.1, 0.9, 7)] * 2, axis=1), np.full((4, 2), 0.5)],
    ids=["one unit", "two units", "on a line", "all at one place"],
)
def test_units_that_span_no_area_come_without_triangles(positions):
    units = len(positions)
    nap = {0: Findings({"groups": np.array(["a", "b"]), "profile/x": np.arange(2.0 * units).reshape(2, units)})}
    topomap = {0: Findings({"positions/x": positions, "layout_step/x": np.int64(0)})}
    document = carried(page(Recording({}, {"nap": nap, "topomap": topomap})))
    assert unpacked(document["geometries"][0]["triangles"]).shape == (0, 3)


def test_a_layout_that_does_not_fit_its_layer_is_left_out_with_the_reason():
    run = one_layer([np.ones((2, 3))])
    topomap = {0: Findings({"positions/conv": np.full((3, 2), np.nan)})}
    layer = carried(page(Recording({}, {**run.findings, "topomap": topomap})))["layers"][0]
    assert layer["laid_out"][0]["at"] == [-1]
    assert "not numbers" in layer["laid_out"][0]["missing"]


def test_saliency_is_carried_as_density_within_half_a_step_up_to_the_limit():
    run = made_up_run(steps=2)
    document = carried(page(run))["saliency"]
    for method in document["methods"]:
        numbers = unpacked(method["density"]).astype(float) * 6 / 255
        for row in range(2):
            maps = run.findings["saliency"][row].arrays[f"maps/{method['name']}"].astype(float)
            for shown, exact, mean in zip(numbers[row], maps, method["mean"][row]):
                if not exact.any():
                    assert mean == 0
                    continue
                assert np.abs(shown - np.minimum(exact / exact.mean(), 6)).max() <= 3 / 255 + 1e-9
                np.testing.assert_allclose(mean, exact.mean(), rtol=1e-6)


def test_signed_saliency_is_drawn_by_its_size():
    run = made_up_run(steps=1)
    arrays = dict(run.findings["saliency"][0].arrays)
    flipped = {name: -values if name.startswith("maps/") else values for name, values in arrays.items()}
    both = [carried(page(Recording({}, {"saliency": {0: Findings(a)}})))["saliency"]["methods"] for a in (arrays, flipped)]
    assert both[0] == both[1]


def test_what_the_maps_explain_is_said_only_where_it_can_be_told():
    found = {"panel": np.zeros((2, 4, 4, 1)), "labels": np.array([0, 1]), "predictions": np.array([0, 0])}
    for classes, said in (([0, 0], "predicted"), ([0, 1], "labelled"), ([1, 1], None)):
        recording = Recording({}, {"saliency": {0: Findings({**found, "classes": np.array(classes)})}})
        assert carried(page(recording))["saliency"]["explained"] == said
    assert carried(page(Recording({}, {"saliency": {0: Findings(found)}})))["saliency"]["explained"] is None
    always_right = Findings({**found, "predictions": found["labels"], "classes": found["labels"]})
    assert carried(page(Recording({}, {"saliency": {0: always_right}})))["saliency"]["explained"] is None


def test_an_input_without_a_prediction_has_none_on_the_page():
    found = {"panel": np.zeros((2, 4, 4, 1)), "predictions": np.array([1, -1]), "confidence": np.array([0.5, np.nan])}
    said = carried(page(Recording({}, {"saliency": {0: Findings(found)}})))["saliency"]
    assert said["predictions"] == [[1, None]]
    assert said["confidence"] == [[0.5, None]]


def test_a_step_at_which_a_layer_was_not_laid_out_keeps_its_layout_or_has_none():
    positions = np.random.default_rng(0).random((3, 2))
    profiles = [np.full((2, 3), np.nan), np.arange(6.0).reshape(2, 3), np.full((2, 3), np.nan)]
    nap = {step: Findings({"groups": np.array(["a", "b"]), "counts": np.array([1, 1]), "profile/x": p}) for step, p in enumerate(profiles)}
    held = {"positions/x": positions, "layout_step/x": np.array(1)}
    layer = carried(page(Recording({}, {"nap": nap, "topomap": {0: Findings(), 1: Findings(held), 2: Findings(held)}})))["layers"][0]
    assert layer["laid_out"][0]["at"] == [-1, 0, 0]
    assert [layout["step"] for layout in layer["layouts"]] == [1]
    assert layer["laid_out"][0]["missing"] is None


def test_panel_spans_black_to_white_over_all_inputs_and_large_maps_are_means_of_blocks():
    rng = np.random.default_rng(1)
    panel, maps = rng.normal(size=(2, 224, 224, 3)), rng.random((2, 224, 224))
    found = Findings({"panel": panel, "maps/gradient": maps})
    document = carried(page(Recording({}, {"saliency": {0: found}})))["saliency"]
    shown = unpacked(document["methods"][0]["density"])[0].astype(float) * 6 / 255
    blocks = maps.reshape(2, 112, 2, 112, 2).mean(axis=(2, 4))
    assert np.abs(shown - blocks / blocks.mean(axis=(1, 2), keepdims=True)).max() <= 3 / 255 + 1e-9
    blocks = panel.reshape(2, 112, 2, 112, 2, 3).mean(axis=(2, 4))
    assert np.abs(unpacked(document["panel"]) / 255 - (blocks - panel.min()) / np.ptp(panel)).max() <= 0.5 / 255 + 1e-9
    small = panel[:, :28, :28]
    shown = unpacked(carried(page(Recording({}, {"saliency": {0: Findings({"panel": small})}})))["saliency"]["panel"])
    assert np.abs(shown / 255 - (small - small.min()) / np.ptp(small)).max() <= 0.5 / 255 + 1e-9
    assert (shown.min(), shown.max()) == (0, 255)


def test_page_refers_to_nothing_outside_itself():
    document = page(made_up_run())
    for forbidden in (
        "http://",
        "https://",
        "src=",
        "href=",
        "localStorage",
        "sessionStorage",
        "document.cookie",
        "fetch(",
        "XMLHttpRequest",
        "import(",
        "@import",
        "url(",
    ):
        assert forbidden not in document
    assert "default-src 'none'" in document
    assert not re.search(r"\{\{\w+\}\}", document)


def test_no_name_can_break_the_page():
    hostile = "</script><script>alert(1)</script><!--<b>&{{script}}\u2028"
    run = made_up_run(
        steps=2, groups=2, layers={hostile: 4}, methods=(hostile,), manifest={"title": hostile, "command": hostile, "class_names": [hostile, "b"]}
    )
    plain = made_up_run(steps=2, groups=2, layers={"x": 4}, methods=("m",), manifest={"title": "t", "command": "c", "class_names": ["a", "b"]})
    document = page(run)
    assert document.count("</script>") == page(plain).count("</script>")
    assert "<script>alert" not in document
    assert "<!--" not in document
    data = carried(document)
    assert data["layers"][0]["name"] == data["manifest"]["title"] == data["saliency"]["methods"][0]["name"] == hostile


def test_undefined_metrics_and_odd_manifests_are_carried():
    scalars = {0: Findings(scalars={"nap/drift/x": float("nan"), "cost/nap": float("inf")}), 2: Findings(scalars={"nap/drift/x": 0.25})}
    manifest = {"probe": {"inputs": np.int64(3), "score": float("nan")}, "versions": {"python": object}}
    document = carried(page(Recording(manifest, {"nap": scalars})))
    assert document["curves"]["nap/drift/x"] == {"steps": [0, 2], "values": [None, 0.25]}
    assert document["curves"]["cost/nap"]["values"] == [None]
    assert document["layers"] == []
    assert document["manifest"]["probe"]["score"] is None


def test_layers_follow_the_order_of_the_manifest():
    run = made_up_run(steps=1, manifest={"layers": [{"name": name} for name in reversed(LAYERS)]})
    assert [layer["name"] for layer in carried(page(run))["layers"]] == list(reversed(LAYERS))


def test_default_run_stays_under_three_megabytes():
    assert len(page(made_up_run()).encode()) < 1_000_000  # the promise is 3 MB; the default run keeps well below it


def test_same_recording_gives_the_same_page():
    assert page(made_up_run(steps=2)) == page(made_up_run(steps=2))


@pytest.mark.parametrize("findings", [{}, {"nap": {}}])
def test_empty_recording_is_refused(findings):
    with pytest.raises(ValueError, match=r"holds no findings at any step .*observe at least one checkpoint"):
        page(Recording({}, findings))


def test_page_too_large_is_refused_naming_what_is_large(monkeypatch):
    monkeypatch.setattr(report, "LIMIT", 300_000)
    with pytest.raises(ValueError, match=r"at most 0 MB can be shown\. Largest: saliency maps/gradient .*; observe fewer"):
        page(made_up_run())


def test_profile_with_positions_kept_is_refused_by_name():
    nap = {0: Findings({"groups": np.array(["a"]), "profile/conv": np.ones((1, 2, 2, 3))})}
    with pytest.raises(ValueError, match=r"layer 'conv' has shape \(1, 2, 2, 3\)"):
        page(Recording({}, {"nap": nap}))


def test_maps_that_do_not_belong_to_the_panel_are_refused_by_name():
    found = Findings({"panel": np.zeros((2, 4, 4, 1)), "maps/gradient": np.zeros((3, 4, 4))})
    with pytest.raises(ValueError, match=r"method 'gradient' have shape \(3, 4, 4\); expected \(2, h, w\)"):
        page(Recording({}, {"saliency": {0: found}}))


# ---- layouts made afterwards -----------------------------------------------------------------------------------------


def with_relayouts(run: Recording, *choices: dict) -> Recording:
    findings = dict(run.findings)
    for choice in choices:
        name, found = relayout(run, **choice)
        findings[name] = found
    return Recording(run.manifest, findings)


def test_a_run_that_was_not_laid_out_again_offers_what_was_observed_and_nothing_else():
    for run in (made_up_run(steps=2), one_layer([np.ones((2, 3))])):
        document = carried(page(run))
        assert document["layouts"] == [{"analysis": "topomap", "words": "as observed", "fixed": False}]
        assert all(len(layer["laid_out"]) == 1 for layer in document["layers"])


def test_layouts_are_offered_in_words_the_observed_one_first():
    choices = [{"source": 2}, {"source": "joint"}, {"layout": pca}, {"source": "last", "layout": pca}, {"source": 1, "name": "topomap_My-own"}]
    run = with_relayouts(made_up_run(steps=4), *choices)
    run = Recording(run.manifest, {**run.findings, "by_hand": relayout(run, source=0)[1]})
    offered = {layout["analysis"]: (layout["words"], layout["fixed"]) for layout in carried(page(run))["layouts"]}
    assert next(iter(offered)) == "topomap"
    assert offered == {
        "topomap": ("as observed", False),
        "topomap_at_2": ("fixed at epoch 2", True),
        "topomap_joint": ("one for all epochs", True),
        "topomap_pca": ("each epoch its own, pca", False),
        "topomap_last_pca": ("fixed at epoch 3, pca", True),
        "topomap_My-own": ("fixed at epoch 1, My-own", True),
        "by_hand": ("fixed at epoch 0, by hand", True),
    }
    counted_in_steps = Recording({**run.manifest, "step_unit": None}, run.findings)
    assert [layout["words"] for layout in carried(page(counted_in_steps))["layouts"]][2:4] == ["fixed at step 1, My-own", "fixed at step 2"]


def test_a_layout_is_not_fixed_because_one_layer_had_to_keep_its_own():
    run = made_up_run(steps=3, layers={"x": 5, "y": 6})
    nap = {
        step: Findings({**f.arrays, "profile/y": f.arrays["profile/y"] if step == 0 else np.full((10, 6), np.inf)})
        for step, f in run.findings["nap"].items()
    }
    run = with_relayouts(Recording(run.manifest, {**run.findings, "nap": nap}), {"layout": pca})
    assert carried(page(run))["layouts"][1] == {"analysis": "topomap_pca", "words": "each epoch its own, pca", "fixed": False}


def test_layers_fixed_at_steps_of_their_own_are_offered_as_that():
    run = made_up_run(steps=3, layers={"x": 5, "y": 6})
    diverged = dict(run.findings["nap"][2].arrays) | {"profile/y": np.full((10, 6), np.nan)}
    run = Recording(run.manifest, {**run.findings, "nap": {**run.findings["nap"], 2: Findings(diverged)}})
    document = carried(page(with_relayouts(run, {"source": "last"})))
    assert document["layouts"][1] == {"analysis": "topomap_last", "words": "fixed at epochs 1, 2", "fixed": True}


def test_in_every_layout_every_unit_sits_where_the_findings_say():
    run = with_relayouts(made_up_run(steps=3), {"source": 1, "seed": 1}, {"source": "joint"}, {"layout": pca})
    document = carried(page(run))
    for layer in document["layers"]:
        assert len(layer["laid_out"]) == 4
        for offered, laid_out in zip(document["layouts"], layer["laid_out"]):
            for index, step in enumerate(document["steps"]):
                found = run.findings[offered["analysis"]][step].arrays
                layout = layer["layouts"][laid_out["at"][index]]
                places = unpacked(document["geometries"][layout["geometry"]]["points"])[unpacked(layout["vertex"])] / 65535
                assert np.abs(places - found[f"positions/{layer['name']}"]).max() <= 0.5 / 65535 + 1e-12
                made = int(found[f"layout_step/{layer['name']}"])
                assert layout["step"] == (None if made == -1 else made)


def test_a_fixed_layout_is_carried_once_and_shares_the_places():
    run = made_up_run(steps=5)
    live = {step: Findings({**found.arrays, **disc}) for step, found in run.findings["topomap"].items() for disc in [_on_flas_disc(found)]}
    run = Recording(run.manifest, {**run.findings, "topomap": live})
    before, after = (carried(page(one)) for one in (run, with_relayouts(run, {"source": "last"})))
    assert len(after["geometries"]) == len(before["geometries"])
    for earlier, layer in zip(before["layers"], after["layers"]):
        assert len(layer["layouts"]) == len(earlier["layouts"]) + 1


def _on_flas_disc(found: Findings) -> dict:
    """Positions of the layout that is the default, as a run observes it: other units at the same places at every step."""
    moved = {}
    for name, values in found.arrays.items():
        if name.startswith("positions/"):
            places = flas(np.random.default_rng(0).random((len(values), 3)))
            moved[name] = places[np.lexsort(np.asarray(values, float).T)]
    return moved


def test_the_same_places_in_other_colours_are_offered_once_and_what_was_observed_not_again():
    run = with_relayouts(made_up_run(steps=3), {"source": "last"}, {"source": "last", "colours": "purple_white_orange"}, {"source": 2})
    run = Recording(run.manifest, {**run.findings, "topomap_seen": run.findings["topomap"]})
    document = carried(page(run))
    assert [layout["analysis"] for layout in document["layouts"]] == ["topomap", "topomap_at_2"]
    assert all(len(layer["laid_out"]) == 2 for layer in document["layers"])
    families = {name.split("/")[0] for name in document["curves"]}
    assert "topomap_at_2" in families
    assert not families & {"topomap_last", "topomap_last_purple_white_orange"}


def test_a_run_that_only_recorded_profiles_is_shown_in_the_layout_made_afterwards():
    run = made_up_run(steps=3)
    profiles = Recording(run.manifest, {"nap": run.findings["nap"]})
    document = carried(page(with_relayouts(profiles, {"source": "joint"})))
    assert [layout["analysis"] for layout in document["layouts"]] == ["topomap_joint"]
    assert all(layer["laid_out"][0]["at"] == [0, 0, 0] for layer in document["layers"])


def test_positions_of_something_else_are_no_layout():
    run = made_up_run(steps=1)
    fields = {0: Findings({f"positions/{layer}": np.zeros((units, 3, 2)) for layer, units in LAYERS.items()})}
    assert len(carried(page(Recording(run.manifest, {**run.findings, "receptive_field": fields})))["layouts"]) == 1


# ---- what else is told of units, groups and inputs ---------------------------------------------------------------------


def test_shares_and_errors_are_carried_within_half_a_quantisation_step_and_none_and_all_exactly():
    rng = np.random.default_rng(0)
    shares = np.array([[0, 1, 0.5, 0.123], [np.nan] * 4, [1 / 3, 0.999, 0.001, 0]])
    errors = [rng.gamma(1.0, size=(3, 4)) * 10.0**power for power in (-3, 4)]
    errors[0][1] = np.nan
    profiles = [rng.normal(size=(3, 4))] * 2
    run = one_layer(profiles, **{"sparsity/conv": shares})
    nap = {step: Findings({**f.arrays, "error/conv": errors[step]}) for step, f in run.findings["nap"].items()}
    layer = carried(page(Recording({}, {"nap": nap})))["layers"][0]
    numbers = unpacked(layer["sparsity"])
    for shown in numbers:
        np.testing.assert_array_equal(shown == 255, np.isnan(shares))
        assert np.nanmax(np.abs(np.where(shown == 255, np.nan, shown / 254) - shares)) <= 0.5 / 254 + 1e-12
        np.testing.assert_array_equal(shown[0, :2], [0, 254])
    for shown, exact, largest in zip(unpacked(layer["error"]), errors, layer["largest_error"]):
        np.testing.assert_array_equal(shown == 255, np.isnan(exact))
        assert largest == np.nanmax(exact)
        roots = np.where(shown == 255, np.nan, shown / 254)
        assert np.nanmax(np.abs(roots - np.sqrt(exact / largest))) <= 0.5 / 254 + 1e-12


def test_constant_units_are_carried_and_a_run_that_did_not_record_details_has_none():
    run = made_up_run(steps=2, constant=(0, 7))
    for layer in carried(page(run))["layers"]:
        for step, shown in enumerate(unpacked(layer["constant"])):
            np.testing.assert_array_equal(shown, run.findings["nap"][step].arrays[f"constant/{layer['name']}"])
    document = carried(page(one_layer([np.ones((2, 3))])))
    assert [document["layers"][0][name] for name in ("sparsity", "error", "constant", "top")] == [None] * 4
    assert document["inputs"] is None
    assert document["samples"] is None


def test_a_layer_of_constant_units_alone_keeps_its_map():
    run = made_up_run(steps=1, layers={"conv": 9}, constant=tuple(range(9)))
    geometry = carried(page(run))["geometries"][0]
    assert unpacked(geometry["silent"]).size == 0
    assert len(unpacked(geometry["triangles"])) == 8


def test_details_follow_their_groups_when_the_order_of_groups_changes():
    share = np.array([[0.0], [1.0]])
    nap = {
        step: Findings({"groups": np.array([*names]), "profile/x": np.ones((2, 1)), "sparsity/x": share}) for step, names in enumerate(["ab", "ba"])
    }
    shown = unpacked(carried(page(Recording({}, {"nap": nap})))["layers"][0]["sparsity"])
    np.testing.assert_array_equal(shown[:, :, 0], [[0, 254], [254, 0]])


def test_clusters_are_those_of_the_contrasts_and_groups_without_inputs_come_last():
    rng = np.random.default_rng(0)
    profile = rng.normal(size=(6, 5))
    profile[2] = np.nan
    clusters = carried(page(one_layer([profile, np.roll(profile, 1, axis=0)])))["layers"][0]["clusters"]
    for found, values in zip(clusters, (profile, np.roll(profile, 1, axis=0))):
        tree = linkage(contrast(values))
        assert found["order"] == order(contrast(values)).tolist()
        np.testing.assert_allclose(found["tree"], tree[:, :3], rtol=1e-6)
    assert clusters[0]["order"][-1] == 2
    assert clusters[1]["order"][-1] == 3


def test_groups_of_a_step_are_clustered_once_however_often_the_page_is_drawn(monkeypatch):
    asked = []
    monkeypatch.setattr(report, "linkage", lambda values: asked.append(values.shape) or linkage(values))
    profiles = [np.random.default_rng(seed).normal(size=(4, 5)) for seed in (101, 102, 103)]
    pages = [carried(page(one_layer(profiles[:steps]))) for steps in (1, 2, 3, 3)]
    assert len(asked) == 3
    assert pages[2] == pages[3]
    same = np.array([1.0, -1.0, -1.0, 1.0])  # the same contrasts, of two groups and of four
    orders = [carried(page(one_layer([same.reshape(groups, -1)])))["layers"][0]["clusters"][0]["order"] for groups in (2, 4)]
    assert [len(found) for found in orders] == [2, 4]


def test_clusters_leave_out_units_that_are_no_numbers_and_there_are_none_of_one_group():
    rng = np.random.default_rng(0)
    profile = rng.normal(size=(4, 5))
    broken = np.column_stack([profile, [np.inf, 1, 2, 3]])
    whole, part = (carried(page(one_layer([values])))["layers"][0]["clusters"] for values in (profile, broken))
    assert whole == part != [None]
    for values in (profile[:1], np.full((3, 2), np.nan), rng.normal(size=(65, 2))):
        assert carried(page(one_layer([values])))["layers"][0]["clusters"] == [None]


def test_a_group_below_the_least_number_of_inputs_is_missing_and_takes_no_part_in_the_mean():
    profile = np.array([[1.0, 2.0], [100.0, 100.0], [3.0, 6.0]])
    run = one_layer([profile], [5, 4, 6])
    asked = Recording({"asked": {"topomap": {"min_inputs": "5"}}}, run.findings)
    document = carried(page(asked))
    assert document["min_inputs"] == 5
    np.testing.assert_array_equal(unpacked(document["layers"][0]["mean"])[0], [2, 4])
    assert np.isnan(contrasts(document["layers"][0])[0, 1]).all()
    assert carried(page(run))["min_inputs"] == 1
    assert np.isfinite(contrasts(carried(page(run))["layers"][0])).all()


def with_probe(run: Recording, probe: ProbeSet) -> Recording:
    return Recording({**run.manifest, "probe": {"hash": probe.hash, "grouping": "by_label"}}, run.findings)


@pytest.mark.parametrize("channels", [1, 3])
def test_top_inputs_are_those_of_the_findings_with_what_the_probe_says_of_them(channels):
    run, probe = made_up_run(steps=3, layers={"conv": 9, "fc": 4}), made_up_probe(channels=channels)
    arrays = dict(run.findings["nap"][1].arrays)
    arrays["top/conv"] = np.where(np.arange(4) < 2, arrays["top/conv"], -1)
    run = with_probe(Recording(run.manifest, {"nap": {**run.findings["nap"], 1: Findings(arrays)}}), probe)
    document = carried(page(run, probe))
    inputs = document["inputs"]
    at = np.array([*inputs["at"], -1])
    for layer in document["layers"]:
        for step in range(3):
            np.testing.assert_array_equal(at[unpacked(layer["top"])[step]], run.findings["nap"][step].arrays[f"top/{layer['name']}"])
    some = {int(i) for f in run.findings["nap"].values() for layer in ("conv", "fc") for i in f.arrays[f"top/{layer}"].ravel() if i >= 0}
    assert set(inputs["at"]) == some  # no input that the page has no use for
    assert inputs["ids"] == [f"image {i}" for i in inputs["at"]]
    assert inputs["labels"] == inputs["groups"] == probe.labels[inputs["at"]].tolist()
    pictures = unpacked(inputs["pictures"]["data"])
    low, high = probe.inputs.min(), probe.inputs.max()
    for place, row in zip(inputs["at"], inputs["pictures"]["row"]):
        assert np.abs(pictures[row] / 255 - (probe.inputs[place] - low) / (high - low)).max() <= 0.5 / 255 + 1e-6


def test_pictures_that_have_no_room_are_left_out_the_rarest_first(monkeypatch):
    monkeypatch.setattr(report_inputs, "PICTURE_BYTES", 28 * 28 * 2)
    probe = made_up_probe()
    top = np.array([[4, 7], [7, 9], [9, 7]], np.int32)
    run = one_layer([np.ones((2, 3))], **{"top/conv": top})
    inputs = carried(page(run, probe))["inputs"]
    assert (inputs["at"], inputs["pictures"]["row"]) == ([4, 7, 9], [-1, 0, 1])


def test_large_pictures_are_means_of_blocks():
    probe = made_up_probe(side=96, channels=3)
    run = one_layer([np.ones((2, 1))], **{"top/conv": np.array([[5]], np.int32)})
    shown = unpacked(carried(page(run, probe))["inputs"]["pictures"]["data"])[0] / 255
    blocks = probe.inputs[5].reshape(48, 2, 48, 2, 3).mean(axis=(1, 3))
    assert np.abs(shown - (blocks - probe.inputs.min()) / np.ptp(probe.inputs)).max() <= 0.5 / 255 + 1e-6


def test_inputs_that_are_no_images_come_without_pictures_and_without_a_probe_they_are_numbers():
    run, probe = made_up_run(steps=1), made_up_probe()
    tokens = ProbeSet(np.ones((500, 6), np.int64), probe.labels, ids=probe.ids)
    run = Recording({}, run.findings)
    assert carried(page(run, tokens))["inputs"]["pictures"] is None
    assert carried(page(run, tokens))["inputs"]["ids"][0].startswith("image ")
    without = carried(page(run))["inputs"]
    assert (without["ids"], without["labels"], without["pictures"]) == (None, None, None)


def test_another_probe_is_refused():
    run = with_probe(made_up_run(steps=1), made_up_probe())
    with pytest.raises(ValueError, match=r"given a probe of hash .*, and the recording is of .*; hand over the probe that was shown, or none"):
        page(run, made_up_probe(seed=1))


def test_maps_of_inputs_are_those_of_the_findings():
    run = made_up_run(steps=3)
    found = dict(run.findings["samples"])
    turned = dict(found[1].arrays)
    turned["names"], turned["groups"] = turned["names"][::-1], 9 - np.asarray(turned["groups"])
    found[1] = Findings({name: values for name, values in turned.items() if name != "samples/conv1"})
    samples = carried(page(Recording({}, {**run.findings, "samples": found})))
    inputs, samples = samples["inputs"], samples["samples"]
    np.testing.assert_array_equal(np.array(inputs["at"])[samples["inputs"]], found[0].arrays["inputs"])
    assert [samples["layers"][layer]["at"] for layer in LAYERS] == [[0, -1, 1], [0, 1, 2], [0, 1, 2], [0, 1, 2]]
    for step, findings in found.items():
        names = np.array(samples["names"])[samples["groups"][step]]
        np.testing.assert_array_equal(names, np.asarray(findings.arrays["names"])[np.asarray(findings.arrays["groups"])])
        assert samples["predictions"][step] == findings.arrays["predictions"].tolist()
        for layer, carried_of in samples["layers"].items():
            if carried_of["at"][step] >= 0:
                shown = unpacked(carried_of["points"])[carried_of["at"][step]] / 65535
                assert np.abs(shown - findings.arrays[f"samples/{layer}"]).max() <= 0.5 / 65535 + 1e-12


def test_maps_of_other_inputs_than_the_last_are_left_out():
    run = made_up_run(steps=2)
    other = Findings({**run.findings["samples"][0].arrays, "inputs": np.asarray(run.findings["samples"][0].arrays["inputs"]) + 1})
    samples = carried(page(Recording({}, {**run.findings, "samples": {**run.findings["samples"], 0: other}})))["samples"]
    assert samples["at"] == [-1, 0]


def test_a_page_that_would_be_too_large_is_drawn_without_the_details_in_turn_and_says_so(monkeypatch):
    run, probe = made_up_run(steps=2, inputs=0), made_up_probe()
    run = with_probe(run, probe)
    whole = page(run, probe)
    size = len(whole.encode())
    monkeypatch.setattr(report, "LIMIT", size)
    assert page(run, probe) == whole
    assert carried(whole)["left_out"] == []
    monkeypatch.setattr(report, "LIMIT", size - 1)
    first = carried(page(run, probe))
    assert first["left_out"] == ["the pictures of inputs"]
    assert first["inputs"]["pictures"] is None
    assert first["layers"][0]["error"] is not None
    monkeypatch.setattr(report, "LIMIT", len(page(run, probe).encode()) - 1)
    second = carried(page(run, probe))
    assert second["left_out"] == ["the pictures of inputs", "standard errors"]
    assert all(layer["error"] is None and layer["sparsity"] is not None for layer in second["layers"])


def test_default_run_with_its_pictures_stays_under_three_megabytes():
    for channels, side in ((1, 28), (3, 32)):
        run, probe = made_up_run(side=side, channels=channels), made_up_probe(side=side, channels=channels)
        assert len(page(with_probe(run, probe), probe).encode()) < 3_000_000
