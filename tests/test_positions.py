"""Profiles of every position."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from netlapse.analysis import nap as profiles_of
from netlapse.analysis.nap import activation_profiles, aligned_profiles
from netlapse.analysis.positions import _squares, position_statistics, positions
from netlapse.backends.torch import TorchNetwork
from netlapse.observer import Observer
from netlapse.probe import by_outcome
from netlapse.tracking.memory import MemoryTracker
from netlapse.types import ProbeSet, Snapshot

LAYERS = ["0", "1", "3"]


def network() -> TorchNetwork:
    torch.manual_seed(0)
    return TorchNetwork(nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)))


def probe(n: int = 23) -> ProbeSet:
    rng = np.random.default_rng(0)
    return ProbeSet(rng.normal(size=(n, 6, 6, 2)).astype(np.float32), rng.choice([0, 2], n), ("a", "b", "c", "nobody"))


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_position_statistics_are_their_definitions_for_any_batch_size(batch_size: int) -> None:
    shown, net = probe(), network()
    found = position_statistics(net, shown.inputs, shown.labels, LAYERS, batch_size=batch_size)
    for layer, activations in net.activations(shown.inputs, LAYERS).items():
        wide = activations.astype(np.float64)
        for group in (0, 2):
            mine = wide[shown.labels == group]
            # A convolution of a batch of one adds its products in another order: float32 rounding of numbers of size 1.
            np.testing.assert_allclose(found[layer].mean[group], mine.mean(axis=0), rtol=1e-6, atol=3e-7)
            np.testing.assert_allclose(found[layer].variance[group], mine.var(axis=0, ddof=1), rtol=1e-5, atol=1e-6)
            np.testing.assert_array_equal(found[layer].sparsity[group], (mine > 0).mean(axis=0))
            np.testing.assert_allclose(found[layer].highest[group], mine.max(axis=0), rtol=1e-6, atol=3e-7)
        for values in (found[layer].mean, found[layer].variance, found[layer].sparsity, found[layer].highest):
            assert np.isnan(values[1]).all()


def test_a_small_variance_beside_a_large_mean_survives() -> None:
    net = TorchNetwork(nn.Sequential(nn.Linear(1, 1), nn.Identity()))
    with torch.no_grad():
        net.module[0].weight.fill_(1)  # type: ignore[index]
        net.module[0].bias.fill_(0)  # type: ignore[index]
    inputs = (4096 + np.random.default_rng(0).integers(0, 8, (50, 1)) / 1024).astype(np.float32)
    found = position_statistics(net, inputs, np.zeros(50, np.int64), ["0"], batch_size=9)["0"]
    np.testing.assert_allclose(found.variance[0, 0], inputs.astype(np.float64).var(ddof=1), rtol=1e-9)


def test_the_analysis_records_the_profiles_of_every_position_and_their_drift() -> None:
    shown, net = probe(), network()
    found = positions(Snapshot(net, shown, 0, LAYERS), None)
    kept = activation_profiles(net, shown.inputs, shown.labels, LAYERS, spatial="keep")
    assert found.arrays["profile/1"].shape == (4, 4, 4, 4)
    np.testing.assert_allclose(found.arrays["profile/1"][:3], kept["1"], rtol=1e-5, atol=1e-6)
    assert np.isnan(found.arrays["profile/1"][3]).all(), "a last group without inputs is there too"
    assert set(found.images) == {"positions/0", "positions/1"}
    again = positions(Snapshot(net, shown, 1, LAYERS), found)
    assert again.scalars["positions/drift/1"] == 0
    changed = network()
    with torch.no_grad():
        changed.module[0].weight.mul_(-1)  # type: ignore[index]
    assert positions(Snapshot(changed, shown, 1, LAYERS), found).scalars["positions/drift/0"] > 0.5


@pytest.mark.parametrize("align", ["predicted", "label", 2])
def test_aligned_positions_are_the_aligned_profiles(align: object) -> None:
    shown, net = probe(), network()
    found = positions(Snapshot(net, shown, 0, LAYERS), None, align=align)  # type: ignore[arg-type]
    expected = aligned_profiles(net, shown.inputs, shown.labels, LAYERS, target=align, labels=shown.labels)  # type: ignore[arg-type]
    for layer in LAYERS:
        np.testing.assert_allclose(found.arrays[f"profile/{layer}"][:3], expected[layer], rtol=1e-6, atol=1e-7)


def test_groups_that_follow_the_network_are_those_of_the_profiles() -> None:
    shown, net, tracker = ProbeSet(probe().inputs, probe().labels, ("a", "b", "c")), network(), MemoryTracker()
    observer = Observer(shown, {"positions": partial(positions, align="predicted")}, tracker, layers=LAYERS, grouping=by_outcome, strict=True)
    observer.start(net)  # type: ignore[call-arg]
    found = observer.observe(net, 0)["positions"]
    predicted = net.outputs(shown.inputs).argmax(axis=1)
    wrong = (predicted != shown.labels) & (shown.labels == 0)
    assert found.arrays["groups"].tolist()[1] == "a wrong"
    assert found.arrays["counts"][1] == wrong.sum()


def test_what_would_not_fit_is_refused_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiles_of, "LARGEST_PROFILES", 8 * 3 * (64 + 3) - 1)
    with pytest.raises(ValueError, match=r"3 groups x 67 units x 8 bytes"):
        positions.check(Snapshot(network(), probe(), 0, ["1", "3"]))  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="align='best'; expected null, 'predicted', 'label' or the number of a class"):
        positions.check(Snapshot(network(), probe(), 0, ["3"]), align="best")  # type: ignore[attr-defined]


def test_maps_of_positions_keep_their_shape_in_a_square() -> None:
    maps = np.arange(12, dtype=float).reshape(1, 3, 4)
    square = _squares(maps)
    assert square.shape == (1, 64, 64)
    np.testing.assert_array_equal(square[0, 8:56:16, ::16], maps[0])
    assert np.isnan(square[0, :8]).all()
    assert np.isnan(square[0, 56:]).all()
