"""Laws of where groups are looked at: a share that moved is told as that share, and what has nothing to do with groups is chance."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from netlapse.analysis.fairness import fairness
from netlapse.analysis.fairness.representation import displaced, masses, relabellings
from netlapse.analysis.saliency import gradient
from netlapse.backends.torch import TorchNetwork
from netlapse.types import Array, Findings, Float64, Int64, Network, ProbeSet, Snapshot

CLASSES = np.arange(80) % 2
GROUPS = np.arange(80) // 2 % 2


def literally(shares: Float64, groups: Int64, classes: Int64) -> float:
    total = 0.0
    for label in set(classes.tolist()):
        for group in set(groups.tolist()):
            members = (classes == label) & (groups == group)
            common = np.minimum(shares[members].mean(axis=0), shares[classes == label].mean(axis=0)).sum()
            total += members.sum() / len(shares) * (1 - common)
    return float(total)


def test_what_is_displaced_is_what_group_and_class_do_not_have_in_common() -> None:
    shares = masses(np.random.default_rng(0).gamma(1, size=(80, 4, 5)))
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    relabelled = relabellings(GROUPS, CLASSES, 20, 0)
    found = displaced(shares, relabelled, CLASSES)
    np.testing.assert_allclose(found, [literally(shares, one, CLASSES) for one in relabelled], atol=1e-12)


def test_by_hand_a_group_that_is_looked_at_elsewhere_altogether_is_half_displaced_from_its_class_and_classes_alone_are_not() -> None:
    def at(place: Int64) -> Float64:
        return masses(np.eye(4)[place].reshape(-1, 2, 2))

    assert displaced(at(GROUPS), GROUPS[None], CLASSES) == pytest.approx([0.5])
    assert displaced(at(CLASSES), GROUPS[None], CLASSES) == pytest.approx([0.0])
    assert displaced(masses(np.ones((80, 2, 2)) * -3.0), GROUPS[None], CLASSES) == pytest.approx([0.0])


def test_a_map_without_any_saliency_has_no_shares() -> None:
    maps = np.ones((3, 2, 2))
    maps[1], maps[2, 0, 0] = 0, np.inf
    np.testing.assert_array_equal(np.isnan(masses(maps)).all(axis=1), [False, True, True])


def look(step: int = 0, previous: Findings | None = None, method: object = None, seed: int = 0) -> Findings:
    torch.manual_seed(0)
    network = TorchNetwork(nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.Tanh(), nn.Linear(6, 2)))
    inputs = np.random.default_rng(seed).normal(size=(80, 3, 4, 1)).astype(np.float32)
    probe = ProbeSet(inputs, CLASSES, ("a", "b"), {"side": np.array(["left", "right"])[GROUPS]})
    return fairness(Snapshot(network, probe, step), previous, permutations=99, folds=0, saliency=method or gradient)  # type: ignore[arg-type]


def towards(strength: float) -> object:
    """Noise, and for the inputs of the right more of it in the first column."""

    def method(network: Network, inputs: Array, classes: Int64) -> Array:
        start = int(np.flatnonzero((look_inputs() == np.asarray(inputs[0])).all(axis=(1, 2, 3)))[0])
        maps = np.random.default_rng(start).gamma(1, size=inputs.shape[:3])
        maps[GROUPS[start : start + len(maps)] == 1, :, 0] *= 1 + strength
        return maps

    return method


def look_inputs() -> Array:
    return np.random.default_rng(0).normal(size=(80, 3, 4, 1)).astype(np.float32)


def test_groups_that_are_looked_at_elsewhere_are_told_from_chance_and_others_are_not() -> None:
    found, same = look(method=towards(3.0)), look(method=towards(0.0))
    assert found.scalars["fairness/saliency_p/side"] == pytest.approx(0.01)
    assert found.scalars["fairness/saliency_difference/side"] > 2 * found.scalars["fairness/saliency_by_chance/side"]
    assert same.scalars["fairness/saliency_p/side"] > 0.05
    left, right = np.asarray(found.arrays["saliency_by_group/side"], np.float64)
    assert (right[:, 0] > 0.3).all()
    np.testing.assert_allclose(left, -right, atol=1e-5)  # of as many inputs in every class
    np.testing.assert_allclose([left.sum(), right.sum()], 0, atol=1e-4)
    assert found.images["fairness/side/saliency"].shape[2] == 3
    assert found.scalars["fairness/alarm/side"] == 0


def test_p_is_corrected_over_the_steps_so_far_and_history_survives() -> None:
    first = look(0, None, towards(3.0))
    second = look(2, first, towards(0.0))
    for name in ("difference", "by_chance", "score"):
        assert second.arrays[f"saliency_{name}/side"].shape == (2,)
        assert second.arrays[f"saliency_{name}/side"][0] == first.arrays[f"saliency_{name}/side"][0]
    maxima = np.asarray(second.arrays["saliency_maxima/side"])
    assert (maxima >= np.asarray(first.arrays["saliency_maxima/side"])).all()
    assert second.arrays["saliency_p/side"][0] >= first.arrays["saliency_p/side"][0]


def test_unless_asked_no_maps_are_made() -> None:
    torch.manual_seed(0)
    network = TorchNetwork(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)))
    probe = ProbeSet(np.random.default_rng(0).normal(size=(80, 3)).astype(np.float32), CLASSES, ("a", "b"), {"side": GROUPS.astype(str)})
    assert not [name for name in fairness(Snapshot(network, probe, 0), None, permutations=40, folds=0).arrays if name.startswith("saliency")]
    message = r"inputs have shape \(80, 3\); expected images \(n, h, w, c\), or saliency=null"
    with pytest.raises(ValueError, match=message):
        fairness.check(Snapshot(network, probe, 0), saliency=gradient)  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=message):
        fairness(Snapshot(network, probe, 0), None, saliency=gradient)
