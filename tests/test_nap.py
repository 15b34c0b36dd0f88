"""Neuron activation profiles, their contrasts and how they drift."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from netlapse.analysis import nap as module
from netlapse.analysis.nap import activation_profiles, align, contrast, drift, nap
from netlapse.backends.torch import TorchNetwork
from netlapse.probe import by_label
from netlapse.statistics import group_statistics
from netlapse.types import ProbeSet, Snapshot


def network(seed: int = 0) -> TorchNetwork:
    torch.manual_seed(seed)
    return TorchNetwork(nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(64, 3)))


def inputs(n: int = 23) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, 6, 6, 2)).astype(np.float32)


def groups(n: int = 23) -> np.ndarray:
    """Four groups, of which the third has no inputs."""
    return np.random.default_rng(1).choice([0, 1, 3], n)


LAYERS = ["0", "1", "3"]


@pytest.mark.parametrize("spatial", ["mean", "keep"])
@pytest.mark.parametrize("batch_size", [1, 7, 256])
def test_activation_profiles_are_a_literal_mean_for_any_batch_size(spatial: str, batch_size: int) -> None:
    net, shown, g = network(), inputs(), groups()
    found = activation_profiles(net, shown, g, LAYERS, spatial=spatial, batch_size=batch_size)  # type: ignore[arg-type]
    assert list(found) == LAYERS
    for layer, activation in net.activations(shown, LAYERS).items():
        wide = activation.astype(np.float64)
        if spatial == "mean":
            wide = wide.mean(axis=tuple(range(1, wide.ndim - 1)))
        assert found[layer].dtype == np.float64
        assert found[layer].shape == (4, *wide.shape[1:])
        for group in (0, 1, 3):
            total = np.zeros(wide.shape[1:])
            for i in np.flatnonzero(g == group):
                total += wide[i]
            # Float32 sums of at most 23 values of size 1 within a batch: 23 * 2 ** -24 = 1.4e-6 at worst.
            np.testing.assert_allclose(found[layer][group], total / (g == group).sum(), rtol=1e-6, atol=1e-6)
        assert np.isnan(found[layer][2]).all()


def test_profiles_per_unit_are_the_means_over_positions_of_those_that_keep_them() -> None:
    net, shown, g = network(), inputs(), groups()
    kept = activation_profiles(net, shown, g, LAYERS, spatial="keep")
    for layer, profile in activation_profiles(net, shown, g, LAYERS).items():
        np.testing.assert_allclose(kept[layer].mean(axis=tuple(range(1, kept[layer].ndim - 1))), profile, rtol=1e-6, atol=1e-6)
    assert kept["0"].shape == (4, 4, 4, 4)


def test_activation_profiles_and_group_statistics_give_the_same_profiles() -> None:
    net, shown, g = network(), inputs(), groups()
    statistics = group_statistics(net, ProbeSet(shown, g, tuple("abcd")), by_label, LAYERS, batch_size=5)
    for layer, profile in activation_profiles(net, shown, g, LAYERS, batch_size=9).items():
        np.testing.assert_allclose(statistics.profile(layer), profile, rtol=1e-6, atol=1e-6)


def test_batches_are_summed_in_float64() -> None:
    shown = np.ones((1001, 1), np.float32)
    shown[0] = 1e8  # to which float32 cannot add 1
    net = TorchNetwork(nn.Sequential(nn.Identity(), nn.Linear(1, 1)))
    found = activation_profiles(net, shown, np.zeros(1001, int), ["0"], batch_size=1)["0"]
    assert found[0, 0] == pytest.approx((1e8 + 1000) / 1001, rel=1e-12)


def test_profiles_do_not_depend_on_the_batch_size() -> None:
    net, shown, g = network(), inputs(600), groups(600)
    for spatial in ("mean", "keep"):
        whole, pieces = (activation_profiles(net, shown, g, LAYERS, spatial=spatial, batch_size=size) for size in (600, 37))  # type: ignore[arg-type]
        for layer in LAYERS:
            np.testing.assert_allclose(pieces[layer], whole[layer], rtol=0, atol=1e-6)


def test_the_order_of_inputs_does_not_matter_and_their_groups_do() -> None:
    net, shown, g = network(), inputs(), groups()
    order = np.random.default_rng(2).permutation(len(g))
    found = activation_profiles(net, shown, g, ["0"])["0"]
    np.testing.assert_allclose(activation_profiles(net, shown[order], g[order], ["0"])["0"], found, rtol=1e-6, atol=1e-6)
    assert np.nanmax(np.abs(activation_profiles(net, shown, g[order], ["0"])["0"] - found)) > 1e-3


@pytest.mark.parametrize(
    "given",
    [np.zeros(22, int), np.zeros((23, 1), int), np.zeros(23), np.full(23, -1), np.zeros(23, bool)],
    ids=["length", "axes", "floats", "negative", "booleans"],
)
def test_groups_that_cannot_be_are_refused(given: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"groups have shape .* and dtype .*; expected \(23,\) integers from 0, one per input, at least one"):
        activation_profiles(network(), inputs(), given, LAYERS)


def test_no_inputs_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected \(0,\) integers from 0, one per input, at least one"):
        activation_profiles(network(), inputs()[:0], np.zeros(0, int), LAYERS)


def test_an_unknown_layer_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no layer named \['conv9'\]; this network has \['0', '1', '2', '3'\]"):
        activation_profiles(network(), inputs(), groups(), ["conv9"])


def test_profiles_too_large_to_hold_are_refused_before_anything_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network()
    monkeypatch.setattr(net, "group_sums", lambda *_: pytest.fail("a forward was run"))
    g = groups()
    g[5] = 2**24
    # 2 ** 24 + 1 groups of 64 positions and units of 8 bytes are 8 GiB and a little; of 4 units they are half a GiB.
    with pytest.raises(
        ValueError,
        match=r"profiles of 16777217 groups and layers \['0'\] with spatial='keep' would take 16777217 groups x 64 units x 8 bytes = 8\.0 GiB, more",
    ):
        activation_profiles(net, inputs(), g, ["0"], spatial="keep")
    monkeypatch.setattr(module, "LARGEST_PROFILES", 8 * 4 * 4 - 1)
    with pytest.raises(ValueError, match=r"spatial='mean' would take 4 groups x 4 units x 8 bytes = 0\.0 GiB"):
        activation_profiles(net, inputs(), groups(), ["0"])
    monkeypatch.undo()
    monkeypatch.setattr(module, "LARGEST_PROFILES", 8 * 4 * 4)
    activation_profiles(net, inputs(), groups(), ["0"])


MEMORY = """
import json, resource, sys
from pathlib import Path
import numpy as np, torch
from torch import nn
from netlapse.analysis.nap import activation_profiles
from netlapse.backends.torch import TorchNetwork

torch.set_num_threads(1)
network = TorchNetwork(nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(800, 10)))
inputs = np.random.default_rng(0).random((8000, 20, 20, 1), dtype=np.float32)
groups = np.arange(8000) % 10
layers = list(network.layers)
def peak():
    # Linux hands ru_maxrss down from the process that starts this one, which would hide all growth below the tests' own size.
    status = Path("/proc/self/status")
    if status.exists():
        return int(next(line for line in status.read_text().splitlines() if line.startswith("VmHWM")).split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)

for spatial in ("mean", "keep"):
    for _ in range(16):  # as much work as 8,000 inputs are: what the allocator takes for that is not what is measured
        activation_profiles(network, inputs[:500], groups[:500], layers, spatial=spatial, batch_size=100)
before = peak()
for spatial in ("mean", "keep"):
    activation_profiles(network, inputs, groups, layers, spatial=spatial, batch_size=100)
streamed = peak()
kept = [network.activations(inputs[i : i + 100], ["0"]) for i in range(0, 8000, 100)]
print(json.dumps([streamed - before, peak() - streamed]))
"""


def test_memory_does_not_grow_with_the_number_of_inputs() -> None:
    # With a fixed threshold glibc gives large blocks back at once: its own free lists grow in steps of an activation.
    exact = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    root = Path(__file__).parent.parent
    run = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True, cwd=root, env=exact, timeout=120)
    streamed, kept = json.loads(run.stdout)
    assert streamed <= 5
    # The counterpart: one layer's activations, kept, are 8,000 x 20 x 20 x 8 x 4 bytes = 98 MiB, and the same measure sees them.
    assert kept > 80


# ---- contrast -------------------------------------------------------------------------------------------------------


def profile(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape)


def test_contrasts_sum_to_zero_over_groups() -> None:
    for shape in ((5, 3), (5, 4, 4, 3), (1, 3)):
        np.testing.assert_allclose(contrast(profile(*shape)).sum(axis=0), 0, atol=1e-14)


def test_contrast_is_the_profile_minus_the_weighted_mean() -> None:
    p, w = profile(4, 3), np.array([3.0, 0.0, 1.0, 6.0])
    expected = np.array([[p[g, u] - sum(w[h] * p[h, u] for h in range(4)) / sum(w) for u in range(3)] for g in range(4)])
    np.testing.assert_allclose(contrast(p, w), expected, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(contrast(p, 7 * w), contrast(p, w), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose((w[:, None] * contrast(p, w)).sum(axis=0), 0, atol=1e-13)
    assert np.abs(contrast(p, w) - contrast(p)).max() > 0.1


def test_adding_the_same_to_every_group_changes_no_contrast() -> None:
    np.testing.assert_allclose(contrast(profile(4, 3) + np.arange(3.0)), contrast(profile(4, 3)), atol=1e-14)


def test_contrast_of_a_network_that_diverged_is_undefined_without_an_error() -> None:
    assert np.isnan(contrast(np.full((3, 2), np.nan))).all()
    np.testing.assert_array_equal(contrast(np.array([[np.inf, 1.0], [np.inf, 3.0], [1.0, 2.0]]))[:2], [[np.nan, -1], [np.nan, 1]])


def test_groups_without_inputs_stay_nan_and_out_of_the_mean() -> None:
    p = profile(4, 3)
    p[2] = np.nan
    found = contrast(p)
    assert np.isnan(found[2]).all()
    np.testing.assert_allclose(found[[0, 1, 3]], contrast(p[[0, 1, 3]]), rtol=1e-12)
    np.testing.assert_allclose(contrast(p, np.array([1.0, 2.0, 9.0, 3.0]))[3], contrast(p[[0, 1, 3]], np.array([1.0, 2.0, 3.0]))[2], rtol=1e-12)


def test_one_undefined_unit_leaves_the_others_defined() -> None:
    p = profile(4, 3)
    p[1, 2] = np.nan
    assert np.isnan(contrast(p)[:, 2]).all()
    np.testing.assert_allclose(contrast(p)[:, :2], contrast(p[:, :2]), rtol=1e-12)


@pytest.mark.parametrize("weights", [[1.0, 1.0], [1.0, -1.0, 1.0, 1.0], [0.0] * 4, [0.0, 0.0, 5.0, 0.0], [np.nan, 1.0, 1.0, 1.0]])
def test_weights_that_cannot_be_are_refused(weights: list[float]) -> None:
    p = profile(4, 3)
    p[2] = np.nan
    with pytest.raises(ValueError, match=r"contrast was given weights \[.*\]; expected 4, none negative, some above 0 among the groups with inputs"):
        contrast(p, np.array(weights))


# ---- align ----------------------------------------------------------------------------------------------------------


def aligned_literally(activation: np.ndarray, saliency: np.ndarray) -> np.ndarray:
    """out[j] = a[j + i* - d // 2], zero outside, for each input; i* the first maximum of its saliency (Krug et al.)."""
    out = np.zeros_like(activation)
    for n in range(len(activation)):
        sizes = saliency[n].shape
        peak = np.unravel_index(int(np.argmax(saliency[n])), sizes)
        if saliency[n].min() == saliency[n].max():
            out[n] = activation[n]
            continue
        for j in np.ndindex(*sizes):
            source = tuple(j[d] + int(peak[d]) - sizes[d] // 2 for d in range(len(sizes)))
            if all(0 <= source[d] < sizes[d] for d in range(len(sizes))):
                out[(n, *j)] = activation[(n, *source)]
    return out


@pytest.mark.parametrize("sizes", [(5, 4), (1, 6), (7,), (3, 4, 2), (1,)])
def test_align_is_the_definition(sizes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    activation = rng.normal(size=(30, *sizes, 3)).astype(np.float32)
    saliency = rng.integers(0, 9, (30, *sizes)).astype(np.float32)  # with ties
    np.testing.assert_array_equal(align(activation, saliency), aligned_literally(activation, saliency))
    assert align(activation, saliency).dtype == np.float32


def test_align_moves_the_most_salient_position_to_the_centre() -> None:
    rng = np.random.default_rng(0)
    activation = rng.normal(size=(20, 6, 5, 3)).astype(np.float32)
    saliency = rng.random((20, 6, 5)).astype(np.float32)
    found = align(activation, saliency)
    for i in range(20):
        row, column = np.unravel_index(saliency[i].argmax(), (6, 5))
        np.testing.assert_array_equal(found[i, 3, 2], activation[i, row, column])


def test_align_does_not_move_channels_as_the_published_program_does() -> None:
    rng = np.random.default_rng(0)
    activation, saliency = rng.uniform(1, 2, (4, 5, 5, 6)).astype(np.float32), rng.random((4, 5, 5)).astype(np.float32)
    found = align(activation, saliency)
    published = np.zeros_like(found)  # it keeps the saliency's channel axis, of size 1: i* = (.., 0), so channels move by c // 2 too
    published[..., 3:] = found[..., :3]
    assert np.abs(found - published).max() > 1
    for unit in range(6):
        np.testing.assert_array_equal(found[..., unit], align(activation[..., unit : unit + 1], saliency)[..., 0])


def test_align_leaves_an_input_of_even_saliency_where_it_is() -> None:
    activation = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype(np.float32)
    saliency = np.zeros((2, 4, 4), np.float32)
    saliency[1, 0, 0] = 1
    found = align(activation, saliency)
    np.testing.assert_array_equal(found[0], activation[0])
    assert not found[1, :2].any()
    np.testing.assert_array_equal(found[1, 2:, 2:], activation[1, :2, :2])


def test_align_does_not_write_into_what_it_is_given() -> None:
    activation, saliency = np.ones((1, 3, 3, 1), np.float32), np.arange(9, dtype=np.float32).reshape(1, 3, 3)
    align(activation, saliency)
    assert activation.all()
    np.testing.assert_array_equal(saliency.reshape(-1), np.arange(9))


@pytest.mark.parametrize(
    ("a", "s"), [((2, 3), (2,)), ((2, 4, 4, 3), (2, 4)), ((2, 4, 4, 3), (2, 4, 5)), ((2, 4, 4, 3), (3, 4, 4)), ((2, 4, 4, 3), (2, 4, 4, 1))]
)
def test_shapes_that_do_not_belong_together_are_refused(a: tuple[int, ...], s: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"align was given activations \(.*\) and saliency \(.*\); expected \(n, \*s, u\)"):
        align(np.zeros(a, np.float32), np.zeros(s, np.float32))


# ---- drift ----------------------------------------------------------------------------------------------------------


def test_drift_is_zero_for_equal_two_for_opposite_and_symmetric() -> None:
    a, b = profile(4, 3), np.random.default_rng(1).normal(size=(4, 3))
    assert drift(a, a) == 0
    assert drift(a, -a) == pytest.approx(2)
    assert drift(a, np.zeros_like(a)) == pytest.approx(2)
    assert drift(a, b) == drift(b, a)
    assert drift(a, 3 * a) == pytest.approx(2 * (3 - 1) / (3 + 1))
    assert drift(5 * a, 5 * b) == pytest.approx(drift(a, b))


def test_drift_is_the_norm_of_the_difference_over_the_mean_norm() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        a, b = rng.normal(size=(3, 4)), rng.normal(size=(3, 4)) * rng.exponential()
        difference, of_a, of_b = (sum(float(v) ** 2 for v in m.reshape(-1)) ** 0.5 for m in (a - b, a, b))
        assert drift(a, b) == pytest.approx(difference / ((of_a + of_b) / 2), rel=1e-12)
        assert 0 <= drift(a, b) <= 2


def test_drift_is_over_groups_that_have_inputs_in_both_and_undefined_without() -> None:
    a, b = profile(4, 3), profile(4, 3) + 1
    a[0], b[3] = np.nan, np.nan
    assert drift(a, b) == drift(a[1:3], b[1:3])
    assert np.isnan(drift(a[:1], b[:1]))
    assert np.isnan(drift(np.zeros((2, 3)), np.zeros((2, 3))))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_drift_is_undefined_where_a_unit_of_a_group_is_not_finite(value: float) -> None:
    a, b = profile(4, 3), profile(4, 3) + 1
    a[2, 1] = value
    assert np.isnan(drift(a, b))
    assert np.isnan(drift(b, a))
    assert np.isnan(drift(a, a))


# ---- the analysis ---------------------------------------------------------------------------------------------------


def snapshot(step: int, seed: int) -> Snapshot:
    return Snapshot(network(seed), ProbeSet(inputs(), groups(), ("a", "b", "c", "d")), step, layers=LAYERS)


def test_nap_finds_profiles_and_how_they_change_from_the_last_and_the_first() -> None:
    found = [nap(snapshot(0, 0), None)]
    for step in (1, 2):
        found.append(nap(snapshot(step, step), found[-1]))
    profiles = [f.arrays["profile/0"] for f in found]
    assert found[0].arrays["groups"].tolist() == ["a", "b", "c", "d"]
    assert found[0].arrays["counts"].tolist() == np.bincount(groups(), minlength=4).tolist()
    np.testing.assert_allclose(profiles[0], activation_profiles(network(0), inputs(), groups(), ["0"])["0"], rtol=1e-6, atol=1e-6)
    assert not any("drift" in name for name in found[0].scalars)
    assert found[1].scalars["nap/drift/0"] == drift(profiles[1], profiles[0]) == found[1].scalars["nap/drift_from_start/0"]
    assert found[2].scalars["nap/drift/0"] == drift(profiles[2], profiles[1])
    assert found[2].scalars["nap/drift_from_start/0"] == drift(profiles[2], profiles[0])
    np.testing.assert_array_equal(found[2].arrays["first/0"], profiles[0])
    for layer in LAYERS:
        assert 0 <= found[2].scalars[f"nap/separability/{layer}"] <= 1
        assert found[2].scalars[f"nap/dead_units/{layer}"] == 0


def test_nap_counts_the_units_whose_activation_is_one_number_at_every_position_of_every_input() -> None:
    shot = snapshot(0, 0)
    with torch.no_grad():
        conv = shot.network.module[0]  # type: ignore[attr-defined]
        conv.bias[1] = -100.0  # never above zero
        conv.weight[2] = 0.0  # always its bias
        conv.bias[2] = 0.5
    scalars = nap(shot, None).scalars
    assert scalars["nap/dead_units/0"] == 1
    assert scalars["nap/dead_units/1"] == 2


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e38])
def test_nap_of_a_network_that_diverged_counts_the_units_that_are_not_finite_and_leaves_other_layers_alone(value: float) -> None:
    healthy, shot = snapshot(0, 0), snapshot(1, 0)
    with torch.no_grad():
        shot.network.module[3].weight[1] = value  # type: ignore[attr-defined] # 1e38: finite itself, its products are not
    before, found = nap(healthy, None), nap(shot, nap(healthy, None))
    assert found.scalars["nap/nonfinite_units/3"] == 1
    assert found.scalars["nap/dead_units/3"] == 0
    for name in ("drift", "drift_from_start", "separability"):
        assert np.isnan(found.scalars[f"nap/{name}/3"])
    assert not any("nonfinite_units" in name for name in (*before.scalars, *found.scalars) if name != "nap/nonfinite_units/3")
    for layer in ("0", "1"):
        assert found.scalars[f"nap/separability/{layer}"] == before.scalars[f"nap/separability/{layer}"]
        np.testing.assert_array_equal(found.arrays[f"profile/{layer}"], before.arrays[f"profile/{layer}"])


def test_nap_is_a_pure_function_of_snapshot_and_previous_findings() -> None:
    first = nap(snapshot(0, 0), None)
    kept = {name: values.copy() for name, values in first.arrays.items()}
    once, twice = nap(snapshot(1, 1), first), nap(snapshot(1, 1), first)
    assert once.scalars == twice.scalars
    for name, values in once.arrays.items():
        np.testing.assert_array_equal(values, twice.arrays[name])
    for name, values in kept.items():
        np.testing.assert_array_equal(first.arrays[name], values)


# ---- aligned profiles, intervals, what else is found -----------------------------------------------------------------


@pytest.mark.parametrize("target", ["predicted", "label", 1])
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_aligned_profiles_are_the_mean_of_activations_aligned_by_the_targets_gradient(target: str | int, batch_size: int) -> None:
    net, shown, g = network(), inputs(), groups()
    labels = np.arange(len(shown)) % 3
    found = module.aligned_profiles(net, shown, g, LAYERS, target=target, labels=labels, batch_size=batch_size)  # type: ignore[arg-type]
    classes = {"predicted": net.outputs(shown).argmax(axis=1), "label": labels}.get(str(target), np.full(len(shown), 1))
    for layer, activation in net.activations(shown, LAYERS).items():
        if activation.ndim > 2:
            saliency = np.abs(net.vjp(shown, "output", np.eye(3, dtype=np.float32)[classes], [layer])[layer]).mean(axis=-1)
            activation = align(activation, saliency)
        for group in (0, 1, 3):
            # A convolution of a batch of one adds its products in another order: float32 rounding of numbers of size 1.
            np.testing.assert_allclose(found[layer][group], activation[g == group].astype(np.float64).mean(axis=0), rtol=1e-6, atol=2e-7)
        assert np.isnan(found[layer][2]).all()
    assert np.abs(found["0"][[0, 1, 3]] - activation_profiles(net, shown, g, ["0"], spatial="keep")["0"][[0, 1, 3]]).max() > 0.1, "nothing moved"


def test_aligned_profiles_of_predicted_and_labelled_classes_differ() -> None:
    net, shown, g = network(), inputs(), groups()
    labels = (net.outputs(shown).argmax(axis=1) + 1) % 3
    predicted, labelled = (module.aligned_profiles(net, shown, g, ["1"], target=t, labels=labels)["1"] for t in ("predicted", "label"))  # type: ignore[arg-type]
    assert not np.allclose(predicted, labelled, equal_nan=True)


def test_aligned_profiles_refuse_what_cannot_be_aligned() -> None:
    with pytest.raises(ValueError, match="given no labels; pass labels"):
        module.aligned_profiles(network(), inputs(), groups(), LAYERS, target="label")
    with pytest.raises(ValueError, match="target 'best'; expected 'predicted', 'label' or the number of a class"):
        module.aligned_profiles(network(), inputs(), groups(), LAYERS, target="best")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one of the network's 3 outputs for each input"):
        module.aligned_profiles(network(), inputs(), groups(), LAYERS, target=3)
    with pytest.raises(ValueError, match="groups have shape"):
        module.aligned_profiles(network(), inputs(), groups(5), LAYERS)


def test_bootstrap_intervals_cover_the_mean_as_often_as_they_say() -> None:
    """Of 400 samples of 60 normal numbers, the 90 % intervals of 360 +- 2.6 standard deviations of a binomial hold the true mean.

    A percentile interval of 60 is a little short: its quantiles are the normal's instead of Student's, 88.9 % of them hold it.
    """
    rng = np.random.default_rng(0)
    responses = rng.normal(loc=3, size=(60, 400)).astype(np.float32)
    low, high = module.bootstrap(responses, np.zeros(60, np.int64), 1, repeats=2000, level=0.9)
    covered = ((low[0] <= 3) & (high[0] >= 3)).sum()
    assert 400 * 0.889 - 2.6 * np.sqrt(400 * 0.889 * 0.111) <= covered <= 400 * 0.889 + 2.6 * np.sqrt(400 * 0.889 * 0.111)
    # For large samples the interval is the normal one: +-1.645 standard errors of the mean.
    error = responses.std(axis=0, ddof=1) / np.sqrt(60)
    np.testing.assert_allclose((high - low)[0].mean() / (2 * 1.645 * error.mean()), 1, atol=0.02)


def test_bootstrap_is_within_groups_seeded_and_of_no_width_for_one_input() -> None:
    rng = np.random.default_rng(0)
    responses = rng.normal(size=(11, 3)).astype(np.float32)
    labels = np.array([0] * 5 + [1] * 5 + [3])
    low, high = module.bootstrap(responses, labels, 4, repeats=200)
    again = module.bootstrap(responses, labels, 4, repeats=200)
    np.testing.assert_array_equal(low, again[0])
    for group in (0, 1):
        assert (responses[labels == group].min(axis=0) <= low[group]).all()
        assert (low[group] < responses[labels == group].mean(axis=0)).all()
        assert (responses[labels == group].mean(axis=0) < high[group]).all()
        assert (high[group] <= responses[labels == group].max(axis=0)).all()
    assert np.isnan(low[2]).all()
    np.testing.assert_array_equal(low[3], high[3])
    with pytest.raises(ValueError, match="the level 1; expected"):
        module.bootstrap(responses, labels, 4, level=1)


def test_nap_records_how_sure_a_profile_is() -> None:
    shown, labels = inputs(), groups()
    net = network()
    snapshot = Snapshot(net, ProbeSet(shown, labels, ("a", "b", "c", "d")), 0, ["1", "3"])
    found = nap(snapshot, None, resamples=50)
    for layer in ("1", "3"):
        rows = net.responses(shown, [layer])
        np.testing.assert_array_equal(snapshot.responses[layer], rows.mean[layer])
        deviation = rows.mean[layer][labels == 1].astype(np.float64).std(axis=0, ddof=1)
        np.testing.assert_allclose(found.arrays[f"variance/{layer}"][1], deviation**2, rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(found.arrays[f"error/{layer}"][1], deviation / np.sqrt((labels == 1).sum()), rtol=1e-4, atol=1e-7)
        np.testing.assert_array_equal(found.arrays[f"highest/{layer}"][1], rows.high[layer][labels == 1].max(axis=0))
        assert found.scalars[f"nap/sparsity/{layer}"] == pytest.approx((rows.high[layer] > 0).mean())
        np.testing.assert_array_equal(found.arrays[f"top/{layer}"][:, 0], rows.high[layer].argmax(axis=0))
        assert (found.arrays[f"low/{layer}"][[0, 1, 3]] <= found.arrays[f"profile/{layer}"][[0, 1, 3]]).all()
    assert found.arrays["constant/1"].tolist() == [False] * 4


def test_nap_names_the_first_input_whose_response_is_no_number() -> None:
    shown = inputs()
    net = network()
    spoiled = shown.copy()
    spoiled[[7, 11]] = 3e38  # finite, but what a convolution makes of it is not
    found = nap(Snapshot(net, ProbeSet(spoiled, groups(), ("a", "b", "c", "d")), 0, ["0", "3"]), None)
    assert found.scalars["nap/nonfinite_input/0"] == 7
    assert found.scalars["nap/nonfinite_units/0"] >= 1


def test_responses_to_every_input_are_refused_where_they_would_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    from netlapse import types

    monkeypatch.setattr(types, "LARGEST_RESPONSES", 4 * 23 * 7 - 1)
    snapshot = Snapshot(network(), ProbeSet(inputs(), groups(), ("a", "b", "c", "d")), 0, ["1", "3"])
    with pytest.raises(ValueError, match=r"7 units in 2 layers to 23 inputs would take 23 x 7 x 4 bytes"):
        _ = snapshot.responses
