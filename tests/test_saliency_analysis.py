"""The panel, the explained class and the numbers of the analysis, over checkpoints."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from netlapse.analysis import fullgradient
from netlapse.analysis.saliency import (
    MEASURES,
    WHY,
    Target,
    area,
    average_drop,
    boxes,
    chosen_of,
    distance_to_others,
    entropy,
    explained_classes,
    faithfulness_correlation,
    fullgrad,
    grad_cam,
    gradient,
    mass_inside,
    perturbation_curves,
    random_maps,
    resize,
    saliency,
    sensitivity,
    similarity,
    similarity_to_others,
    simple_fullgrad,
)
from netlapse.backends.torch import TorchNetwork
from netlapse.observer import Observer
from netlapse.probe import by_label
from netlapse.reanalysis import read_answers, write_answers
from netlapse.tracking.memory import MemoryTracker
from netlapse.types import Array, Attributions, Findings, Float32, Float64, Network, ProbeSet, Snapshot
from tests.test_saliency import linear, probe, small_cnn

LOGITS = np.array([[3, 1, 2], [0, 0, -1], [5, 9, 7], [1, np.nan, 2]], np.float32)


def trained(seed: int) -> nn.Sequential:
    """The small network with a head of its own."""
    net = small_cnn(1)
    nn.init.normal_(net[9].weight, generator=torch.Generator().manual_seed(seed))
    return net


def shaken(seed: int) -> nn.Sequential:
    """The network of seed 1 with a little noise on its head: some of its predictions change."""
    net = trained(1)
    with torch.no_grad():
        net[9].weight += 0.5 * torch.randn(net[9].weight.shape, generator=torch.Generator().manual_seed(seed))
    return net


def over(nets: list[nn.Sequential], **options: object) -> list[Findings]:
    found: list[Findings] = []
    for step, net in enumerate(nets):
        found.append(saliency(Snapshot(TorchNetwork(net), probe(), step), found[-1] if found else None, **options))  # type: ignore[arg-type]
    return found


# ---- the explained class ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "expected"),
    [("label", [2, 0, 0, 1]), ("predicted", [0, 0, 1, -1]), ("runner_up", [2, 1, 2, -1]), (1, [1, 1, 1, 1]), ("c", [2, 2, 2, 2])],
)
def test_the_explained_class_by_hand(target: Target, expected: list[int]) -> None:
    assert explained_classes(target, np.array([2, 0, 0, 1]), LOGITS, tuple("abc")).tolist() == expected


@pytest.mark.parametrize("target", ["runner_up", 2, "c"])
def test_the_class_asked_for_is_the_one_explained(target: Target) -> None:
    network = TorchNetwork(small_cnn(1))
    found = saliency(Snapshot(network, probe(), 0), None, target=target, panel=6).arrays
    expected = np.argsort(network.outputs(probe().inputs[:6]), axis=1)[:, -2] if target == "runner_up" else np.full(6, 2)
    np.testing.assert_array_equal(found["classes"], expected)
    np.testing.assert_array_equal(found["maps/gradient"], gradient(network, probe().inputs[:6], expected))


@pytest.mark.parametrize("target", [4, -1, True, "nobody"])
def test_a_class_that_is_not_there_is_refused(target: Target) -> None:
    snapshot = Snapshot(TorchNetwork(linear(c=1)), probe(), 0)
    with pytest.raises(ValueError, match=r"allowed are 'label' and 'predicted', 'runner_up', and a class: 0 to 3, or one of \['a', 'b', 'c', 'd'\]"):
        saliency(snapshot, None, target=target)
    with pytest.raises(ValueError, match="saliency target is"):
        saliency.check(snapshot, target=target)  # type: ignore[attr-defined]


def test_a_named_class_beyond_the_outputs_and_a_runner_up_of_one_output_are_refused() -> None:
    with pytest.raises(ValueError, match="target is 'c', class 2; the network has 2 outputs, so allowed are 0 to 1"):
        explained_classes("c", np.zeros(4, int), LOGITS[:, :2], tuple("abc"))
    with pytest.raises(ValueError, match="the network has 1 output, which has no runner-up"):
        explained_classes("runner_up", np.zeros(4, int), LOGITS[:, :1], tuple("abc"))


# ---- chosen inputs ---------------------------------------------------------------------------------------------------


def test_chosen_inputs_by_hand() -> None:
    #                       0  1  2  3  4  5  6   7
    labels = np.array([0, 1, 0, 1, 0, 1, 0, 1])
    before = np.array([0, 1, 1, 1, 0, 0, 0, 1])
    now = np.array([0, 1, 0, 0, 0, 0, 1, -1])  # 2, 3, 6 and 7 changed; 5 is wrong; 0, 1 and 4 are right
    assert chosen_of(labels, now, before, 2, np.array([0])).tolist() == [2, 3, 5, -1, 4, 1]
    assert chosen_of(labels, now, None, 2, np.array([0])).tolist() == [-1, -1, 6, 3, 2, 1]


def test_inputs_are_chosen_for_what_became_of_their_predictions() -> None:
    nets = [trained(1), shaken(5)]
    first, second = over(nets, chosen=2, panel=3)
    everything = [TorchNetwork(net).outputs(probe().inputs).argmax(axis=1) for net in nets]
    changed = everything[0] != everything[1]
    assert 0 < changed.sum() < 12
    assert first.arrays["inputs_chosen"][:2].tolist() == [-1, -1]
    for found, now, net in zip((first, second), everything, nets):
        arrays = found.arrays
        np.testing.assert_array_equal(arrays["predictions_probe"], now)
        assert arrays["why_chosen"].tolist() == [why for why in WHY for _ in range(2)]
        there = arrays["inputs_chosen"] >= 0
        inputs = arrays["inputs_chosen"][there]
        assert not set(inputs) & set(arrays["inputs"])
        assert len(set(inputs)) == len(inputs)
        for why, index in zip(arrays["why_chosen"][there], inputs):
            right = now[index] == probe().labels[index]
            just = found is second and changed[index]
            assert why == ("changed" if just else "right" if right else "wrong")
        np.testing.assert_array_equal(arrays["panel_chosen"][there], probe().inputs[inputs])
        np.testing.assert_array_equal(arrays["labels_chosen"][there], probe().labels[inputs])
        np.testing.assert_array_equal(arrays["predictions_chosen"][there], now[inputs])
        network = TorchNetwork(net)
        np.testing.assert_array_equal(arrays["maps_chosen/gradient"][there], gradient(network, probe().inputs[inputs], probe().labels[inputs]))
        assert np.isnan(arrays["maps_chosen/gradient"][~there]).all()
        assert (arrays["classes_chosen"][~there] == -1).all()
        assert {name for name in found.images if name.endswith("chosen")} == {"saliency/gradient/chosen", "saliency/grad_cam/chosen"}
    assert (second.arrays["why_chosen"][second.arrays["inputs_chosen"] >= 0] == "changed").any()


def test_where_all_inputs_are_in_the_panel_none_is_chosen() -> None:
    (found,) = over([trained(1)], chosen=1, panel=12)
    assert (found.arrays["inputs_chosen"] == -1).all()
    assert not [name for name in found.images if name.endswith("chosen")]


# ---- numbers over checkpoints ----------------------------------------------------------------------------------------


def test_maps_are_compared_with_those_of_the_first_step_however_long_ago() -> None:
    found = over([trained(seed) for seed in (1, 2, 3)])
    for name in ("gradient", "grad_cam"):
        first, before, last = (one.arrays[f"maps/{name}"] for one in found)
        np.testing.assert_array_equal(found[2].arrays[f"maps_first/{name}"], first)
        scalars = found[2].scalars
        assert scalars[f"saliency/similarity_first/{name}"] == pytest.approx(np.nanmean(similarity(last, first)))
        assert scalars[f"saliency/similarity/{name}"] == pytest.approx(np.nanmean(similarity(last, before)))
        assert scalars[f"saliency/similarity_null/{name}"] == pytest.approx(np.nanmean(similarity_to_others(last, before)))
        assert scalars[f"saliency/entropy/{name}"] == pytest.approx(np.nanmean(entropy(last)))
        assert not [key for key in found[0].scalars if "similarity" in key and key.endswith(name)]
    assert found[2].arrays["step_first"] == 0


def test_agreement_of_methods_is_the_likeness_of_their_sizes() -> None:
    def opposite(network: Network, inputs: Array, classes: np.ndarray) -> Float32:
        return -gradient(network, inputs, classes)

    small = partial(grad_cam, upsample=False)
    found = over([trained(1)], methods={"gradient": gradient, "opposite": opposite, "small": small})[0]
    assert found.scalars["saliency/agreement/gradient and opposite"] == pytest.approx(1)
    a, b = found.arrays["maps/gradient"], resize(found.arrays["maps/small"], (9, 7)).astype(np.float32)
    assert found.scalars["saliency/agreement/gradient and small"] == pytest.approx(np.nanmean(similarity(a, b)), abs=1e-6)
    assert found.scalars["saliency/agreement_null/gradient and small"] == pytest.approx(np.nanmean(similarity_to_others(a, b)), abs=1e-6)


def test_the_share_of_mass_inside_masks_and_its_null() -> None:
    masks = boxes(np.tile([2, 1, 7, 5], (12, 1)), (9, 7))
    masks[3] = 1
    sorted_by_class = ProbeSet(probe().inputs, np.arange(12) // 3)  # so that the panel is not the first inputs
    methods = {"small": partial(grad_cam, upsample=False)}
    found = saliency(Snapshot(TorchNetwork(trained(1)), sorted_by_class, 0), None, masks=masks, panel=6, methods=methods)
    assert found.arrays["inputs"].tolist() == [0, 3, 6, 9, 1, 4]
    large = resize(found.arrays["maps/small"], (9, 7)).astype(np.float32)
    expected = mass_inside(large, masks[found.arrays["inputs"]])
    assert found.scalars["saliency/mass_inside/small"] == pytest.approx(np.nanmean(expected))
    assert found.scalars["saliency/mass_inside_null/small"] == pytest.approx((5 * 20 / 63 + 1) / 6)


def expected_measures(network: Network, maps: Float32) -> dict[str, Float64]:
    inputs, classes = probe().inputs[:5], probe().labels[:5]
    shares, deletion, insertion = perturbation_curves(network, inputs, classes, maps, steps=10)
    return {
        "deletion": area(shares, deletion),
        "insertion": area(shares, insertion),
        "average_drop": average_drop(network, inputs, classes, maps),
        "faithfulness": faithfulness_correlation(network, inputs, classes, maps),
    }


def test_measures_are_those_of_the_first_inputs_beside_those_of_random_maps() -> None:
    network = TorchNetwork(trained(1))
    found = saliency(Snapshot(network, probe(), 0), None, panel=9, measures=MEASURES[::-1], limit_measured=5)
    random = expected_measures(network, random_maps((5, 9, 7)))
    for name, method in (("gradient", gradient), ("grad_cam", grad_cam)):
        maps = found.arrays[f"maps/{name}"][:5]
        expected = expected_measures(network, maps)
        expected["sensitivity"] = sensitivity(network, probe().inputs[:5], probe().labels[:5], method)
        for measure, values in expected.items():
            np.testing.assert_allclose(found.arrays[f"measures/{measure}/{name}"], values, atol=1e-5)
            assert found.scalars[f"saliency/{measure}/{name}"] == pytest.approx(np.nanmean(values), abs=1e-5)
            null = distance_to_others(maps) if measure == "sensitivity" else random[measure]
            np.testing.assert_allclose(found.arrays[f"measures_null/{measure}/{name}"], null, rtol=1e-5)
            assert found.scalars[f"saliency/{measure}_null/{name}"] == pytest.approx(np.nanmean(null), rel=1e-5)


def test_by_default_the_network_is_asked_for_logits_and_maps_and_nothing_else() -> None:
    asked: list[str] = []

    class Counting(TorchNetwork):
        def outputs(self, inputs: Array) -> Float32:
            asked.append(f"outputs of {len(inputs)}")
            return super().outputs(inputs)

        def vjp(self, *arguments: object) -> dict[str, Float32]:  # type: ignore[override]
            asked.append("vjp")
            return super().vjp(*arguments)  # type: ignore[arg-type]

        def attributions(self, inputs: Array, *arguments: object, **options: object) -> Attributions:  # type: ignore[override]
            asked.append(f"attributions of {len(inputs)}")
            return super().attributions(inputs, *arguments, **options)  # type: ignore[arg-type]

    saliency(Snapshot(Counting(trained(1)), probe(), 0), None)
    assert asked == ["outputs of 12", "attributions of 12"]


def test_what_was_asked_in_another_process_is_not_asked_again(tmp_path: Path) -> None:
    analyses = {"saliency": partial(saliency, measures=["deletion", "sensitivity"], limit_measured=3)}
    networks = [TorchNetwork(trained(seed)) for seed in (1, 2)]
    together, apart = MemoryTracker(), MemoryTracker()
    observer = Observer(probe(), analyses, together, grouping=by_label, strict=True)
    other = Observer(probe(), analyses, apart, grouping=by_label, strict=True)
    for step, network in enumerate(networks):
        observer.observe(network, step)
        write_answers(tmp_path / f"{step}.npz", observer.ask(network, step, analyses))
    for step in range(2):
        # Another network: whatever it is asked again it answers otherwise.
        other.observe(TorchNetwork(trained(9)), step, answers=read_answers(tmp_path / f"{step}.npz"))
        found, expected = (tracker.findings["saliency"][step] for tracker in (apart, together))
        assert found.scalars == pytest.approx(expected.scalars, nan_ok=True)


def test_fullgrad_is_a_method_as_any_other_and_is_measured() -> None:
    network = TorchNetwork(trained(1))
    found = saliency(Snapshot(network, probe(), 0), None, methods=[fullgrad, simple_fullgrad], measures=["insertion", "sensitivity"], panel=4)
    np.testing.assert_allclose(found.arrays["maps/fullgrad"], fullgradient.fullgrad(network, probe().inputs[:4], probe().labels[:4]), rtol=1e-6)
    assert found.arrays["maps/fullgrad"].dtype == np.float32
    assert np.isfinite(found.scalars["saliency/sensitivity/simple_fullgrad"])
    assert (found.arrays["maps/fullgrad"] != found.arrays["maps/simple_fullgrad"]).any()


def test_options_that_cannot_be_are_refused_before_training_and_at_every_step() -> None:
    snapshot = Snapshot(TorchNetwork(linear(c=1)), probe(), 0)
    for options, message in (
        ({"chosen": -1}, "chosen=-1 and limit_measured=8; expected at least 0 and at least 1"),
        ({"limit_measured": 0}, "limit_measured=0; expected"),
        ({"measures": ["deletion", "beauty"]}, r"the measures \['beauty'\]; expected a list of \['deletion', 'insertion'"),
        ({"measures": "deletion"}, "the measures deletion; expected a list of"),
        ({"masks": np.ones((3, 9, 7))}, r"masks of shape \(3, 9, 7\); expected \(12, 9, 7\), one for each of the probe's inputs"),
    ):
        for ask in (partial(saliency, snapshot, None), partial(saliency.check, snapshot)):  # type: ignore[attr-defined]
            with pytest.raises(ValueError, match=message):
                ask(**options)
