"""Laws of comparing what runs recorded: of the same inputs, by CKA, and on one layout by matched units."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import netlapse
from netlapse.analysis import default_analyses
from netlapse.analysis.similarity import cka, similarity, unpacked
from netlapse.analysis.topomap import interpolate
from netlapse.backends.torch import TorchNetwork
from netlapse.comparison import (
    MapsOfRuns,
    last_shared_step,
    layer_similarity,
    maps_of_runs,
    matched,
    medoid,
    places_of_runs,
    run_similarity,
    saliency_similarity,
    shared_layers,
)
from netlapse.matching import by_index
from netlapse.observer import Observer
from netlapse.recording import Recording
from netlapse.render.colours import BLUE_WHITE_RED, MISSING, diverging, palette
from netlapse.render.runboard import storyboard_of_runs
from netlapse.tracking.memory import MemoryTracker
from netlapse.types import Array, Findings, ProbeSet

UNITS = 12


class Net(nn.Module):
    def __init__(self, units: int = UNITS, head: str = "head") -> None:
        super().__init__()
        self.conv, self.relu, self.flat = nn.Conv2d(1, units, 3), nn.ReLU(), nn.Flatten()
        self.add_module(head, nn.Linear(units * 16, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = list(self.children())[-1](self.flat(self.relu(self.conv(x))))
        return out


def made(seed: int, units: int = UNITS, head: str = "head") -> Net:
    torch.manual_seed(seed)
    net = Net(units, head)
    with torch.no_grad():
        net.conv.bias += 0.5  # few units are silent
    return net


def reordered(net: Net, order: Array) -> Net:
    """The same network with the units of its first layer in another order."""
    other = made(0, len(order))
    with torch.no_grad():
        other.conv.weight.copy_(net.conv.weight[order])
        other.conv.bias.copy_(net.conv.bias[order])  # type: ignore[index, arg-type]
        head, source = list(other.children())[-1], list(net.children())[-1]
        assert isinstance(head, nn.Linear)
        assert isinstance(source, nn.Linear)
        head.weight.copy_(source.weight.reshape(3, -1, 16)[:, order].reshape(3, -1))
        head.bias.copy_(source.bias)
    return other


def probe(seed: int = 0) -> ProbeSet:
    inputs = np.random.default_rng(seed).normal(size=(45, 6, 6, 1)).astype(np.float32)
    return ProbeSet(inputs, np.arange(45) % 3, ("ring", "stroke", "dot"))


def recording(nets: Sequence[Net], shown: ProbeSet | None = None, steps: Sequence[int] | None = None) -> Recording:
    """What a run of these networks, one for each step, recorded."""
    shown, tracker = shown or probe(), MemoryTracker()
    observer = Observer(shown, {**default_analyses(shown), "similarity": similarity}, tracker, layers=["relu", "Linear"], strict=True)
    observer.start(TorchNetwork(nets[0]))
    for step, net in zip(range(len(nets)) if steps is None else steps, nets, strict=True):
        observer.observe(TorchNetwork(net), step)
    return tracker.recording()


ORDER = np.random.default_rng(3).permutation(UNITS)


@pytest.fixture(scope="module")
def runs() -> list[Recording]:
    """A run, the same with its units in another order, and one of another seed; two steps each."""
    first = [made(1), made(2)]
    return [recording(first), recording([reordered(net, ORDER) for net in first]), recording([made(3), made(4)])]


def test_runs_are_as_alike_as_their_responses_and_the_order_of_units_says_nothing(runs: list[Recording]) -> None:
    assert shared_layers(runs) == ["relu", "head"]
    for step in (0, 1):
        found = run_similarity(runs, "relu", step)
        assert found[0, 1] == pytest.approx(1, abs=1e-4)
        responses = [unpacked(run.findings["similarity"][step].arrays, "relu") for run in runs]
        assert responses[0] is not None
        assert responses[2] is not None
        assert found[0, 2] == pytest.approx(cka(responses[0], responses[2], debiased=True), abs=1e-12)
        assert found[0, 2] < 0.98
        np.testing.assert_allclose(found, found.T)
        biased = run_similarity(runs, "relu", step, debiased=False)
        assert biased[0, 2] == pytest.approx(cka(responses[0], responses[2]), abs=1e-12)
    np.testing.assert_array_equal(run_similarity(runs, "relu"), run_similarity(runs, "relu", 1))
    assert (run_similarity(runs, "relu", 0) != run_similarity(runs, "relu", 1)).any()


def test_layers_of_two_runs_are_compared_all_with_all_whatever_their_names_and_widths(runs: list[Recording]) -> None:
    other = recording([made(5, 7, "out")])
    assert shared_layers([runs[0], other]) == ["relu"]
    names, others, found = layer_similarity(runs[0], other, 0)
    assert (names, others, found.shape) == (["relu", "head"], ["relu", "out"], (2, 2))
    assert found[0, 0] == pytest.approx(run_similarity([runs[0], other], "relu", 0)[0, 1])
    _, _, own = layer_similarity(runs[0], runs[0], 1)
    np.testing.assert_allclose(own, runs[0].findings["similarity"][1].arrays["cka"], atol=1e-12)
    with pytest.raises(ValueError, match=r"run 1 recorded no responses of layer 'head'; it has \['relu', 'out'\]; compare .* with layer_similarity"):
        run_similarity([runs[0], other], "head", 0)


def test_runs_that_were_shown_other_inputs_are_refused_and_told_what_to_do(runs: list[Recording]) -> None:
    other = recording([made(1)], probe(seed=1))
    hashes = [str(run.manifest["probe"]["hash"])[:12] for run in (runs[0], other)]  # type: ignore[index]
    with pytest.raises(ValueError, match=rf"runs \[1\] were shown other inputs than run 0: .*'{hashes[0]}', '{hashes[1]}'.*; .* probe.seed=0"):
        run_similarity([runs[0], other], "relu", 0)
    with pytest.raises(ValueError, match="shown other inputs"):
        matched([runs[0], other], "relu", 0)
    with pytest.raises(ValueError, match="'unknown'"):
        run_similarity([runs[0], replace(runs[0], manifest={})], "relu", 0)
    few = with_findings(runs[0], "similarity", 0, inputs=np.arange(45)[::-1])
    with pytest.raises(ValueError, match=r"runs \[1\] recorded similarity of other inputs of the probe than run 0; record it with the same options"):
        run_similarity([runs[0], few], "relu", 0)


def with_findings(run: Recording, analysis: str, step: int, **arrays: Any) -> Recording:
    found = run.findings[analysis][step]
    changed = Findings({**found.arrays, **arrays}, found.scalars)
    by_step: Mapping[int, Findings] = {**run.findings[analysis], step: changed}
    return replace(run, findings={**run.findings, analysis: by_step})


def test_a_step_that_not_all_runs_have_is_refused_with_those_there_are(runs: list[Recording]) -> None:
    short, late = recording([made(1)]), recording([made(1)], steps=[5])
    assert last_shared_step([runs[0], short], "similarity") == 0
    with pytest.raises(ValueError, match=r"runs \[1\] have no findings of 'similarity' at step 1; the last step that all have is 0"):
        run_similarity([runs[0], short], "relu", 1)
    with pytest.raises(ValueError, match=r"2 runs have no step in common at which all recorded .* 'similarity'; .*: \[\[0, 1\], \[5\]\]; record it"):
        run_similarity([runs[0], late], "relu")
    with pytest.raises(ValueError, match="2 runs have no step in common"):
        run_similarity([runs[0], Recording(runs[0].manifest, {})], "relu")


def test_saliency_of_runs_is_compared_by_the_maps_they_recorded(runs: list[Recording]) -> None:
    found = saliency_similarity(runs, "gradient")
    assert found[0, 1] == pytest.approx(1, abs=1e-4)
    maps = [np.asarray(run.findings["saliency"][1].arrays["maps/gradient"], np.float64).reshape(16, -1) for run in runs]
    assert found[0, 2] == pytest.approx(cka(maps[0], maps[2], debiased=True), abs=1e-9)
    holed = runs[2].findings["saliency"][1].arrays["maps/gradient"].copy()
    holed[3] = np.nan
    some = np.arange(16) != 3
    without = saliency_similarity([runs[0], with_findings(runs[2], "saliency", 1, **{"maps/gradient": holed})], "gradient")
    assert without[0, 1] == pytest.approx(cka(maps[0][some], maps[2][some], debiased=True), abs=1e-9)
    with pytest.raises(ValueError, match=r"runs \[0, 1, 2\] have no saliency maps by 'fullgrad'; run by run there are \[\['gradient', 'grad_cam'\]"):
        saliency_similarity(runs, "fullgrad")


def test_the_medoid_is_most_like_the_others() -> None:
    table = np.array([[1.0, 0.2, 0.3], [0.2, 1.0, 0.9], [0.3, 0.9, 1.0]])
    assert medoid(table) == 2
    table[2] = table[:, 2] = np.nan
    assert medoid(table) == 0


@pytest.mark.parametrize("by", ["responses", "profiles"])
def test_units_in_another_order_are_matched_and_their_maps_are_the_same_to_the_pixel(runs: list[Recording], by: Any) -> None:
    found = matched(runs, "relu", by=by, permutations=19)
    silent = set(found[0].unmatchable[0].tolist())
    assert len(silent) < UNITS // 2
    if by == "responses":  # three groups cannot tell all units apart
        assert [(a, int(ORDER[b])) for a, b in found[1].pairs.tolist()] == [(a, a) for a in range(UNITS) if a not in silent]
    assert found[1].mean == pytest.approx(1, abs=1e-4)
    assert found[1].p == 1 / 20 if by == "responses" else found[1].p <= 1
    assert np.isnan(found[0].p)
    assert found[2].mean < 1 - 1e-3
    places = places_of_runs(runs, "relu", found)
    maps = maps_of_runs(runs, "relu", places, resolution=20)
    assert maps.maps.shape == (3, 2, 3, 20, 20)
    if by == "responses":
        np.testing.assert_allclose(maps.maps[1], maps.maps[0], atol=1e-5)
    assert np.nanmax(np.abs(maps.maps[2] - maps.maps[0])) > 0.1
    unmatched = maps_of_runs(runs, "relu", places_of_runs(runs, "relu", [by_index(UNITS, UNITS)] * 3), resolution=20)
    assert np.nanmax(np.abs(unmatched.maps[1] - unmatched.maps[0])) > 0.1


def test_the_reference_has_the_maps_it_has_in_its_own_topomap(runs: list[Recording]) -> None:
    """At the step whose layout is taken; the topomap lays out silent units apart, and draws none of them either."""
    arrays = runs[2].findings["topomap"][1].arrays
    scale = float(np.asarray(runs[2].findings["nap"][1].arrays["scale/relu"], np.float64))
    drawn = ~np.asarray(runs[2].findings["nap"][1].arrays["constant/relu"], bool)
    values, positions = np.asarray(arrays["contrast/relu"], np.float64), np.asarray(arrays["positions/relu"], np.float64)
    expected = interpolate(positions[drawn], values[:, drawn] / scale, 24)
    found = maps_of_runs(
        runs, "relu", places_of_runs(runs, "relu", matched(runs, "relu", reference=2, permutations=0), reference=2), [1], resolution=24
    )
    np.testing.assert_allclose(found.maps[2, 0], expected, atol=1e-12)
    assert found.left_out[2, 0] == (~drawn).sum()
    assert found.groups == ("ring", "stroke", "dot")


def test_a_wider_run_is_drawn_as_far_as_its_units_have_counterparts_and_what_is_missing_is_counted(runs: list[Recording]) -> None:
    wide = recording([made(6, UNITS + 5), made(7, UNITS + 5)])
    both = [runs[0], wide]
    found = matched(both, "relu", permutations=0)
    maps = maps_of_runs(both, "relu", places_of_runs(both, "relu", found), resolution=16)
    assert found[1].sizes == (UNITS, UNITS + 5)
    assert maps.left_out[1, 1] >= 5
    assert np.isfinite(maps.maps[1, 1]).any()
    stricter = maps_of_runs(both, "relu", places_of_runs(both, "relu", found, least=0.9), resolution=16)
    assert stricter.left_out[1, 1] > maps.left_out[1, 1]


def test_a_unit_that_is_silent_at_one_step_has_no_part_in_the_map_of_that_step_alone(runs: list[Recording]) -> None:
    places = places_of_runs(runs[:1], "relu", matched(runs[:1], "relu", permutations=0))
    before = maps_of_runs(runs[:1], "relu", places, resolution=10).left_out
    constant = np.asarray(runs[0].findings["nap"][0].arrays["constant/relu"], bool).copy()
    constant[np.flatnonzero(~constant & np.isfinite(places[0]).all(axis=1))[0]] = True
    after = maps_of_runs([with_findings(runs[0], "nap", 0, **{"constant/relu": constant})], "relu", places, resolution=10).left_out
    assert (after - before).tolist() == [[1, 0]]


def test_what_a_run_has_not_recorded_is_no_data_and_of_other_groups_is_refused(runs: list[Recording]) -> None:
    short = recording([made(8)])
    both = [runs[0], short]
    places = places_of_runs(both, "relu", matched(both, "relu", 0, permutations=0))
    maps = maps_of_runs(both, "relu", places, [0, 1], resolution=10)
    assert np.isnan(maps.maps[1, 1]).all()
    assert np.isfinite(maps.maps[1, 0]).any()
    assert maps.left_out[1, 1] == UNITS
    assert maps_of_runs(both, "relu", places, resolution=10).steps == (0,)
    other = with_findings(runs[2], "nap", 1, groups=np.array(["a", "b", "c"]))
    with pytest.raises(ValueError, match=r"run 1 has the groups \['a', 'b', 'c'\] and run 0 \['ring', 'stroke', 'dot'\]; expected the same in all"):
        maps_of_runs([runs[0], other], "relu", places)
    with pytest.raises(ValueError, match=r"runs \[1\] have the groups \['a', 'b', 'c'\] and run 0"):
        matched([runs[0], other], "relu", by="profiles")
    with pytest.raises(ValueError, match=r"run 0 has no profiles of layer 'conv9'; it has those of \['relu', 'head'\]"):
        maps_of_runs(both, "conv9", places)
    with pytest.raises(ValueError, match=r"run 1 has 12 units in layer 'relu', and was given places \(3, 2\)"):
        maps_of_runs(both, "relu", [places[0], np.zeros((3, 2))])
    with pytest.raises(ValueError, match=r"run 0 has no layout of layer 'relu' at step 9; the analysis topomap recorded it at \[0, 1\]"):
        places_of_runs(both, "relu", [], step=9)
    with pytest.raises(ValueError, match=r"matched was given by='names' and the reference 0 among 2 runs; expected one of"):
        matched(both, "relu", by="names")  # type: ignore[arg-type]


def test_a_group_without_inputs_in_one_run_is_no_part_of_its_profile(runs: list[Recording]) -> None:
    nap = runs[2].findings["nap"][1].arrays
    grown = {"groups": np.array([*nap["groups"].tolist(), "none"]), "counts": np.array([*nap["counts"].tolist(), 0])}
    none = np.full((1, UNITS), np.nan)
    empty = [
        with_findings(run, "nap", 1, **grown, **{"profile/relu": np.vstack([run.findings["nap"][1].arrays["profile/relu"], none])})
        for run in (runs[0], runs[2])
    ]
    found = matched(empty, "relu", by="profiles", permutations=0)[1]
    np.testing.assert_allclose(found.correlations, matched([runs[0], runs[2]], "relu", by="profiles", permutations=0)[1].correlations)


def board(maps: Array, **options: Any) -> Array:
    sizes = maps.shape
    runs, groups = [f"run {i}" for i in range(sizes[0])], [chr(97 + i) for i in range(sizes[2])]
    return storyboard_of_runs(np.asarray(maps, np.float64), runs, list(range(sizes[1])), groups, 2.0, "title", "deviations", **options)


def test_each_map_is_drawn_once_in_its_colour_and_nothing_else_is() -> None:
    values = np.array([-2.0, -1.5, -0.9, -0.4, 0.3, 0.7, 1.2, 1.9]).reshape(2, 2, 2)
    picture = board(np.broadcast_to(values[..., None, None], (2, 2, 2, 40, 40)))
    colours = palette(BLUE_WHITE_RED)[diverging(values, 2.0)]
    corners = {}
    for place in np.ndindex(2, 2, 2):
        inside = np.argwhere((picture == colours[place]).all(axis=2))
        blocks = [tuple(one) for one in inside.tolist() if (picture[one[0] : one[0] + 40, one[1] : one[1] + 40] == colours[place]).all()]
        corners[place] = min(block for block in blocks if picture[block[0] : block[0] + 40, block[1] : block[1] + 40].shape[:2] == (40, 40))
    for (run, step, group), (y, x) in corners.items():
        assert (run > 0) == (y > corners[0, 0, 0][0])
        assert x == corners[0, step, group][1]
        assert (x > corners[0, 0, 0][1]) == (step > 0 or group > 0)
    assert corners[0, 1, 0][1] > corners[0, 0, 1][1]


def test_what_a_run_lacks_is_grey_and_says_so() -> None:
    maps = np.zeros((2, 2, 1, 40, 40))
    maps[1, 0] = np.nan
    grey = (board(maps, notes=["", "cut off"]) == palette(BLUE_WHITE_RED)[MISSING]).all(axis=2).sum()
    whole = (board(np.zeros((2, 2, 1, 40, 40)), notes=["", "cut off"]) == palette(BLUE_WHITE_RED)[MISSING]).all(axis=2).sum()
    assert 40 * 40 * 0.8 < grey - whole < 40 * 40  # the words cover some
    for wrong in ((2, 2, 1, 40, 30), (2, 2, 40, 40), (0, 2, 1, 4, 4)):
        with pytest.raises(ValueError, match=r"a storyboard of .* was given maps \(.*\); expected \(runs, steps, g, r, r\)"):
            storyboard_of_runs(np.zeros(wrong), ["a"] * wrong[0], [0, 1], ["x"], 2.0, "", "")
    with pytest.raises(ValueError, match="a storyboard of 2 runs was given 1 notes; expected one about each"):
        board(maps, notes=["one"])


def test_a_sweep_of_many_runs_is_a_picture_that_opens() -> None:
    found = MapsOfRuns(np.zeros((100, 5, 10, 40, 40)), tuple(range(5)), tuple("abcdefghij"), np.zeros((100, 5), np.int64))
    height, width, _ = board(found.maps).shape
    assert height < 100 * 100 + 200
    assert width < 1500


# ---- the docs --------------------------------------------------------------------------------------------------------

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "similarity.md").read_text()
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, flags=re.DOTALL) for line in block.splitlines()]
(CODE,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


def test_the_docs_do_what_they_say(own_place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = "data=digits model=cnn_tiny trainer.max_epochs=1 trainer.progress=false probe.per_class=6 strict=true"
    environment = os.environ | {"NETLAPSE_HOME": str(own_place), "OMP_NUM_THREADS": "1"}

    def run(command: str, **more: str) -> list[str]:
        result = subprocess.run(["bash", "-c", command], cwd=ROOT, env=environment | more, capture_output=True, text=True, timeout=600)
        assert result.returncode == 0, result.stdout + result.stderr
        return re.findall(r"Recorded in run (\w+)", result.stdout)

    sweep, again = COMMANDS
    run_ids = [run_id for run_id in run(f"{sweep} {short}") if netlapse.load(run_id).findings.get("similarity")]  # without the sweep's own
    assert len(run_ids) == 3
    (older,) = run(f"./run train seed=4 {short}")
    run(again, RUN=older)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"run_ids": [*run_ids, older]}
    exec(CODE, names)
    assert names["alike"].shape == (4, 4)
    assert np.isfinite(names["alike"]).all()
    assert names["explained"].shape == (4, 4)
    assert names["layers"].shape == (len(names["names"]), len(names["others"]))
    assert names["maps"].maps.shape[:3] == (4, 2, 10)
    assert (tmp_path / "relu2.png").stat().st_size > 1000


def test_what_is_recorded_is_in_the_docs(runs: list[Recording]) -> None:
    found = runs[0].findings["similarity"][1]
    assert {"/".join(name.split("/")[:2]) for name in found.scalars} == {"similarity/previous", "similarity/first"}
    assert all(f"`{'/'.join(name.split('/')[:2])}/<layer>`" in PAGE for name in found.scalars)
    for name in ("responses/<layer>", "responses_range/<layer>", "cka"):
        assert f"`{name}`" in PAGE
