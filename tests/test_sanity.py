"""Sanity checks of saliency methods: textbook methods pass and fail as they must, and the network is left as it was."""

from __future__ import annotations

import os
import re
import subprocess
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from netlapse.analysis import sanity as checks
from netlapse.analysis.saliency import fullgrad, grad_cam, gradient, gradient_times_input, integrated_gradients, occlusion
from netlapse.analysis.sanity import sanity
from netlapse.backends.torch import TorchNetwork
from netlapse.data import digits
from netlapse.figures import sanity as figure
from netlapse.figures import save
from netlapse.models.torch import cnn, mlp
from netlapse.probe import from_data
from netlapse.recording import Recording
from netlapse.render.checks import CheckedRow, checks_table
from netlapse.tracking.memory import MemoryTracker
from netlapse.types import Array, Findings, Float32, Int64, Network, ProbeSet, Snapshot
from tests.test_torch_sanity import everything


@cache
def trained() -> tuple[nn.Module, ProbeSet]:
    """A small network that has learnt its digits, and some of those."""
    data = digits()
    torch.manual_seed(0)
    module = cnn(data.input_shape, 10, channels=(8, 16), hidden=32, dropout=0.0)
    optimizer = torch.optim.Adam(module.parameters(), 0.01)
    x, y = torch.tensor(data.train_inputs).permute(0, 3, 1, 2), torch.tensor(data.train_labels)
    for batch in torch.randperm(len(x)).repeat(6).split(64):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(x[batch]), y[batch]).backward()
        optimizer.step()
    return module, from_data(data, per_class=3)


def copying(network: Network, inputs: Array, classes: Int64) -> Float32:
    """Asks nothing of the network."""
    return np.abs(np.asarray(inputs, np.float32)).sum(axis=-1)


def constant(network: Network, inputs: Array, classes: Int64) -> Float32:
    return np.broadcast_to(np.arange(64, dtype=np.float32).reshape(8, 8), inputs.shape[:3])


METHODS = {
    "gradient": gradient,
    "gradient_times_input": gradient_times_input,
    "integrated_gradients": integrated_gradients,
    "grad_cam": grad_cam,
    "fullgrad": fullgrad,
    "occlusion": occlusion,
    "copying": copying,
    "constant": constant,
}


@cache
def found() -> Findings:
    module, probe = trained()
    return sanity(Snapshot(TorchNetwork(module), probe, 6), None, methods=METHODS, panel=20)


def verdict(findings: Findings, method: str) -> tuple[str, str]:
    row = findings.arrays["methods"].tolist().index(method)
    randomised, shifted = findings.arrays["verdicts"][row].tolist()
    return randomised, shifted


# ---- textbook facts --------------------------------------------------------------------------------------------------


def test_what_copies_the_input_fails_and_the_gradient_of_a_trained_network_passes() -> None:
    assert verdict(found(), "copying") == ("fail", "fail")
    assert verdict(found(), "gradient") == ("pass", "pass")
    np.testing.assert_allclose(found().arrays["kept/copying"], 1, rtol=1e-12)
    assert found().arrays["kept/gradient"][2] < 0.5


@pytest.mark.parametrize("method", ["gradient_times_input", "integrated_gradients"])
def test_what_is_multiplied_by_the_input_keeps_its_edges_and_moves_with_a_shift(method: str) -> None:
    assert verdict(found(), method) == ("fail", "fail")
    assert found().scalars[f"sanity/kept/{method}"] > 0.8
    assert abs(found().scalars[f"sanity/similarity_signed/{method}"]) < 0.3  # what is kept is where, not the sign


@pytest.mark.parametrize("method", ["fullgrad", "occlusion"])
def test_an_input_term_and_a_zero_that_hides_move_with_a_shift(method: str) -> None:
    assert verdict(found(), method)[1] == "fail"
    assert found().scalars[f"sanity/change/{method}"] > 0.01


def test_class_activation_maps_do_not_move_with_a_shift() -> None:
    assert verdict(found(), "grad_cam")[1] == "pass"
    assert found().scalars["sanity/change/grad_cam"] < 1e-5


def test_maps_that_are_the_same_for_all_inputs_are_not_decided_on() -> None:
    assert verdict(found(), "constant") == ("undecided", "pass")
    assert np.isnan(found().scalars["sanity/kept/constant"])


def test_a_shifted_gradient_times_input_moves_by_shift_times_gradient() -> None:
    module, probe = trained()
    network, arrays = TorchNetwork(module), found().arrays
    images, classes = probe.inputs[arrays["inputs"][:1]], arrays["classes"][:1]
    assert np.ptp(probe.inputs[arrays["inputs"]]) == 1.0  # so that the shift is 1
    moved = arrays["maps_shifted/gradient_times_input"] - arrays["maps/gradient_times_input"][0]
    weights = np.eye(10, dtype=np.float32)[classes]
    np.testing.assert_allclose(moved, network.vjp(images, "output", weights, ["input"])["input"].sum(axis=-1), atol=1e-4)
    assert found().scalars["sanity/logits"] < 1e-6


# ---- the cascade -----------------------------------------------------------------------------------------------------


def test_the_cascade_goes_from_the_output_to_the_input_and_begins_at_likeness() -> None:
    arrays = found().arrays
    assert arrays["modules"].tolist() == ["output", "dense", "norm2", "conv2", "norm1", "conv1"]
    assert arrays["how"].tolist() == ["drawn"] * 6
    assert arrays["stages"].tolist() == [0, 1, 2, 3, 4, 5, 6]
    for method in METHODS:
        for number in ("similarity", "similarity_signed"):
            first = arrays[f"{number}/{method}"][0]
            np.testing.assert_allclose(first[~np.isnan(first)], 1, rtol=1e-12)  # NaN where a class activation map is blank
            assert np.isnan(first).sum() <= (3 if method == "grad_cam" else 0)
        assert arrays[f"similarity/{method}"].shape == arrays[f"similarity_null/{method}"].shape == (7, 20)


def test_stages_are_thinned_evenly_and_end_with_everything() -> None:
    module, probe = trained()
    few = sanity(Snapshot(TorchNetwork(module), probe, 6), None, methods=[gradient], panel=20, stages=3, repeats=1).arrays
    assert few["stages"].tolist() == [0, 1, 4, 6] or few["stages"].tolist() == [0, 1, 3, 6]
    whole = sanity(Snapshot(TorchNetwork(module), probe, 6), None, methods=[gradient], panel=20, repeats=1).arrays
    np.testing.assert_array_equal(few["similarity/gradient"], whole["similarity/gradient"][few["stages"]])


def test_a_stage_is_the_map_of_the_network_so_randomised_and_repeats_are_other_networks() -> None:
    module, probe = trained()
    network, arrays = TorchNetwork(module), found().arrays
    images, classes = probe.inputs[arrays["inputs"]], arrays["classes"]
    seeds = checks._seeds(0, 3)
    assert len({0, *seeds}) == 4  # not that of the training
    own, similarities = gradient(network, images, classes), []
    for seed in seeds:
        with network.randomised(arrays["modules"].tolist(), seed):
            maps = gradient(network, images, classes)
        if seed == seeds[0]:
            np.testing.assert_array_equal(maps[:1], arrays["maps/gradient"][-1])
        similarities.append([spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(own, maps)])
    np.testing.assert_allclose(arrays["similarity/gradient"][-1], np.mean(similarities, axis=0), rtol=1e-10)


def test_ranks_correlate_as_spearman_says_with_ties_and_are_missing_where_a_map_is_not_finite() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 4, size=(3, 5, 6)).astype(np.float32) for _ in range(2))
    expected = [spearmanr(x.ravel(), y.ravel()).statistic for x, y in zip(a, b)]
    np.testing.assert_allclose(checks.similarity(checks.ranks(a), checks.ranks(b)), expected, rtol=1e-12)
    a[1, 0, 0] = np.nan
    assert np.isnan(checks.ranks(a)).all(axis=(1, 2)).tolist() == [False, True, False]


# ---- the verdict -----------------------------------------------------------------------------------------------------


def test_kept_is_the_share_between_chance_and_likeness_with_an_interval_over_inputs() -> None:
    null = np.full(10, 0.2)
    for similarity, share in ((1.0, 1.0), (0.2, 0.0), (0.6, 0.5)):
        np.testing.assert_allclose(checks._kept(np.full(10, similarity), null, 0), share, atol=1e-12)
    rng = np.random.default_rng(1)
    spread = rng.normal(0.4, 0.1, 400)
    share, low, high = checks._kept(spread, np.zeros(400), 0)
    assert share == pytest.approx(spread.mean())
    # As the normal interval of a mean.
    assert [low, high] == pytest.approx([share - 1.96 * 0.1 / 20, share + 1.96 * 0.1 / 20], abs=0.003)
    assert np.isnan(checks._kept(np.array([0.5, np.nan]), np.zeros(2), 0)).all()


@pytest.mark.parametrize(
    ("interval", "said"), [((0.1, 0.4), "pass"), ((0.6, 0.9), "fail"), ((0.4, 0.6), "undecided"), ((np.nan, np.nan), "undecided")]
)
def test_a_method_passes_where_the_interval_ends_below_the_limit_and_fails_where_it_begins_above(interval: tuple[float, float], said: str) -> None:
    assert checks._randomised(np.array([np.mean(interval), *interval]), 0.5) == said


def test_a_shift_is_passed_where_half_of_the_maps_move_by_no_more_than_the_tolerance() -> None:
    assert checks._shifted(np.array([0.0, 1e-4, 0.3]), 1e-3) == "pass"
    assert checks._shifted(np.array([0.0, 2e-3, 0.3]), 1e-3) == "fail"
    assert checks._shifted(np.array([np.nan]), 1e-3) == "undecided"


# ---- what does not apply ---------------------------------------------------------------------------------------------


def test_a_method_that_does_not_apply_and_a_network_that_cannot_be_shifted_say_why() -> None:
    data = digits()
    torch.manual_seed(0)
    probe = from_data(data, per_class=1)
    dense = sanity(Snapshot(TorchNetwork(mlp(data.input_shape, 10, hidden=(8,))), probe, 0), None, methods=[gradient, grad_cam], repeats=1)
    assert verdict(dense, "grad_cam") == ("does not apply", "does not apply")
    assert "no layer of this network is spatial" in str(dense.arrays["reasons"][1, 0])
    assert "similarity/grad_cam" not in dense.arrays
    first = nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(64, 10))
    findings = sanity(Snapshot(TorchNetwork(first), probe, 0), None, methods=[gradient], repeats=1)
    assert verdict(findings, "gradient")[1] == "does not apply"
    assert "'relu', which is not affine" in str(findings.arrays["reasons"][0, 1])
    assert np.isnan(findings.scalars["sanity/logits"])


def test_a_shift_that_is_not_made_up_for_is_said_and_not_judged() -> None:
    assert "miss those of the inputs by 0.5 of the largest" in checks._why_not_shifted(np.asarray(0.5))
    assert "something other than the network's first layer" in checks._why_not_shifted(np.asarray(np.nan))
    assert checks._why_not_shifted(np.asarray(1e-6)) == ""


def test_all_methods_that_apply_are_checked_when_none_is_named() -> None:
    module, probe = trained()
    quick = sanity(Snapshot(TorchNetwork(module), probe.take(np.arange(0, 30, 8)), 0), None, panel=2, stages=1, repeats=1)
    assert quick.arrays["methods"].tolist() == list(checks.METHODS)
    assert "does not apply" not in quick.arrays["verdicts"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"panel": 1}, "a panel of 1 of 30 inputs; expected at least 2"),
        ({"stages": 0}, "stages=0, repeats=3 and examples=1; expected at least 1, 1 and 0"),
        ({"limit": 1.0}, "limit=1.0, tolerance=0.001 and shift=1.0; expected a limit between 0 and 1"),
        ({"shift": 0.0}, "shift=0.0; expected .* a shift other than 0"),
        ({"methods": []}, "was given no method"),
        ({"target": "dog"}, "target is 'dog'"),
    ],
)
def test_options_that_cannot_be_are_named(options: dict[str, object], said: str) -> None:
    module, probe = trained()
    snapshot = Snapshot(TorchNetwork(module), probe, 0)
    with pytest.raises(ValueError, match=said):
        sanity(snapshot, None, **options)  # type: ignore[arg-type]
    if "methods" not in options:
        with pytest.raises(ValueError, match=said):
            sanity.check(snapshot, **options)  # type: ignore[attr-defined]


def test_a_probe_of_vectors_and_a_network_without_parameters_are_refused() -> None:
    vectors = ProbeSet(np.zeros((4, 3), np.float32), np.arange(4) % 2)
    with pytest.raises(ValueError, match=r"sanity checks are of maps of images \(n, h, w, c\)"):
        sanity(Snapshot(TorchNetwork(nn.Linear(3, 2)), vectors, 0), None)
    pictures = ProbeSet(np.random.default_rng(0).random((4, 2, 1, 1)).astype(np.float32), np.arange(4) % 2)
    with pytest.raises(ValueError, match="this network has none"):
        sanity(Snapshot(TorchNetwork(nn.Flatten()), pictures, 0), None)


# ---- do no harm ------------------------------------------------------------------------------------------------------


def test_the_network_is_bit_for_bit_what_it_was_also_when_a_method_raises_in_mid_cascade() -> None:
    module, probe = trained()
    module.train()
    module.norm1.eval()
    module.conv1.weight.grad = torch.ones_like(module.conv1.weight)
    before, asked = everything(module), []

    def failing(network: Network, inputs: Array, classes: Int64) -> Float32:
        asked.append(network.outputs(inputs))
        if len(asked) == 3:
            raise ArithmeticError("in mid cascade")
        return copying(network, inputs, classes)

    snapshot = Snapshot(TorchNetwork(module), probe, 0)
    with pytest.raises(ArithmeticError, match="in mid cascade"):
        sanity(snapshot, None, methods={"failing": failing})
    assert everything(module) == before
    assert not np.array_equal(asked[0], asked[2])
    one, other = (sanity(snapshot, None, methods=METHODS, panel=4, repeats=2) for _ in range(2))
    assert everything(module) == before
    for name, values in one.arrays.items():
        np.testing.assert_array_equal(values, other.arrays[name])
    np.testing.assert_array_equal(one.images["sanity"], other.images["sanity"])
    module.conv1.weight.grad = None


# ---- the picture -----------------------------------------------------------------------------------------------------


def row(word: str, height: float) -> CheckedRow:
    return CheckedRow("method", [(word, "0.5")], np.full(3, height), None)


def table(*rows: CheckedRow) -> Array:
    return checks_table(rows, ["check"], ["first", "last"], "title", "curve", ["note"]).mean(axis=2)


def test_a_fail_is_dark_where_all_else_is_light_and_curves_stand_at_their_values() -> None:
    passed, failed, undecided = (table(row(word, 0.5)) for word in ("pass", "fail", "undecided"))
    assert (failed < 100).mean() > (passed < 100).mean() + 0.05
    assert abs((undecided < 100).mean() - (passed < 100).mean()) < 0.01
    low, middle, high = (np.flatnonzero((table(row("pass", height))[:, -200:-20] < 60).sum(axis=1) > 150) for height in (0, 0.5, 1))
    assert high.max() < middle.min() <= middle.max() < low.min()
    assert (low.mean() + high.mean()) / 2 == pytest.approx(middle.mean(), abs=1)


def test_a_table_without_rows_or_of_other_checks_is_refused() -> None:
    for rows in ((), (row("pass", 0.0), CheckedRow("other", [], None, None))):
        with pytest.raises(ValueError, match=r"for the checks \['check'\]; expected one each"):
            table(*rows)


# ---- the figure and the docs -----------------------------------------------------------------------------------------


def recording(findings: Findings) -> Recording:
    tracker = MemoryTracker()
    tracker.start({"step_unit": "epoch"})
    tracker.log("sanity", 6, findings)
    return tracker.recording()


def test_the_figure_says_what_the_findings_say(tmp_path: Path) -> None:
    drawn = figure(recording(found()))
    said = [text.get_text().replace("\n", " ") for text in drawn.texts]
    verdicts = found().arrays["verdicts"].ravel().tolist()
    assert [text for text in said if text in ("pass", "fail", "undecided")] == verdicts
    assert "gradient times input" in said
    assert "as it is" in said
    assert "all random" in said
    assert said[0] == "8 saliency methods \u00b7 20 inputs \u00b7 epoch 6"
    save(drawn, tmp_path / "one.pdf")
    save(figure(recording(found())), tmp_path / "other.pdf")
    assert (tmp_path / "one.pdf").read_bytes() == (tmp_path / "other.pdf").read_bytes()


def test_the_figure_refuses_what_is_not_there() -> None:
    for options, said in (
        ({"step": 3}, r"no sanity checks at step 3; there are some of the steps \[6\]"),
        ({"analysis": "nap"}, "no sanity checks by an analysis 'nap'"),
        ({"maps": 1}, "1 maps do not fit"),
    ):
        with pytest.raises(ValueError, match=said):
            figure(recording(found()), **options)


ROOT = Path(__file__).parent.parent
DOCS = [line for block in re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / "sanity.md").read_text(), flags=re.DOTALL) for line in block.splitlines()]


def test_the_commands_of_the_docs_do_what_they_say(tmp_path: Path, own_place: Path) -> None:
    short = "data=digits model=cnn_tiny trainer.max_epochs=1 trainer.progress=false probe.per_class=1"
    places = {"NETLAPSE_HOME": str(own_place), "FIGURES": str(tmp_path), "LAST": "1", "OMP_NUM_THREADS": "1"}
    for command in (f"./run train {short}", *DOCS):
        words = f"{command} {short} analyses.sanity.repeats=1" if "experiment=sanity" in command else command
        result = subprocess.run(["bash", "-c", words], cwd=ROOT, env=os.environ | places, capture_output=True, text=True, timeout=600)
        assert result.returncode == 0, result.stdout + result.stderr
        places.setdefault("RUN", result.stdout.split("Recorded in run ")[-1].split()[0])
    assert (tmp_path / "sanity.pdf").stat().st_size > 10_000


def test_a_verdict_goes_by_the_interval_and_not_by_its_middle() -> None:
    said = [checks._randomised(np.array(kept), 0.5) for kept in ([0.4, 0.3, 0.45], [0.4, 0.3, 0.6], [0.6, 0.4, 0.7], [0.6, 0.55, 0.7], [np.nan] * 3)]
    assert said == ["pass", "undecided", "undecided", "fail", "undecided"]


def test_logits_that_a_shift_moves_are_measured_against_the_largest_and_silence_the_check() -> None:
    class Unshifted:
        """A network whose shift is made up for nowhere."""

        def outputs(self, images: Float32) -> Float32:
            return images.sum(axis=(1, 2, 3))[:, None] * np.array([[1.0, -3.0]], np.float32)

        def shifted(self, shift: Float32) -> AbstractContextManager[None]:
            return nullcontext()

    images = np.full((2, 2, 2, 1), 0.5, np.float32)
    network = cast(Network, Unshifted())
    missed = checks._missed(network, images, np.float32(0.25), network.outputs(images), 1)
    assert float(missed) == pytest.approx(0.25 * 4 * 3 / (2.0 * 3))
    assert "miss those of the inputs by 0.5 of the largest" in checks._why_not_shifted(missed)
    assert not checks._why_not_shifted(np.asarray(1e-5))
