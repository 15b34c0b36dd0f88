"""What a run recorded, as arrays over steps."""

from __future__ import annotations

import numpy as np
import pytest

from netlapse.analysis.saliency import saliency
from netlapse.recording import Recording, Series
from netlapse.types import Findings, ProbeSet, Snapshot


def recording() -> Recording:
    profiles = {step: np.full((2, 3), float(step)) for step in (0, 2, 10)}
    nap = {step: Findings({"profile/conv": values, "counts": np.array([1, 2])}, {"nap/drift/conv": step / 2}) for step, values in profiles.items()}
    late = {10: Findings({"own": np.zeros((2, 2))}, {"own/metric": 1.0}), 4: Findings({}, {"own/metric": 0.5})}
    return Recording({"model": "m"}, {"nap": dict(reversed(nap.items())), "own": late})


def test_steps_are_those_of_any_analysis_ascending() -> None:
    assert recording().steps == (0, 2, 4, 10)
    assert Recording().steps == ()


def test_an_array_is_stacked_over_the_steps_at_which_it_was_found() -> None:
    series = recording().array("nap", "profile/conv")
    assert series.steps.tolist() == [0, 2, 10]
    assert series.values.shape == (3, 2, 3)
    assert series.axes == ("step", "group", "unit")
    np.testing.assert_array_equal(series.values[:, 0, 0], [0, 2, 10])
    assert recording().array("own", "own").steps.tolist() == [10]


def test_axes_of_an_unknown_array_are_numbered() -> None:
    assert recording().array("own", "own").axes == ("step", "axis 0", "axis 1")
    assert recording().array("nap", "counts").axes == ("step", "group")
    kept = Recording({}, {"nap": {0: Findings({"profile/conv": np.zeros((2, 4, 4, 3))})}})
    assert kept.array("nap", "profile/conv").axes == ("step", "group", "row", "column", "unit")


def test_every_array_of_saliency_says_what_its_axes_count() -> None:
    torch = pytest.importorskip("torch")
    from netlapse.backends.torch import TorchNetwork

    torch.manual_seed(0)
    sizes = {"input": 5, "measured": 3, "chosen": 6, "probe": 12, "row": 9, "column": 7, "channel": 2}
    inputs = np.random.default_rng(0).normal(size=[sizes[axis] for axis in ("probe", "row", "column", "channel")]).astype(np.float32)
    network = TorchNetwork(torch.nn.Sequential(torch.nn.Conv2d(2, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(252, 3)))
    probe = ProbeSet(inputs, np.arange(12) % 3, ("a", "b", "c"))
    found = saliency(Snapshot(network, probe, 0), None, panel=5, chosen=2, measures=["deletion"], limit_measured=3)
    run = Recording({}, {"saliency": {0: found}})
    named = {name: run.array("saliency", name).axes for name in found.arrays}
    assert {name.split("/")[0] for name in named} >= {
        "maps",
        "maps_first",
        "maps_chosen",
        "measures",
        "measures_null",
        "why_chosen",
        "predictions_probe",
    }
    for name, axes in named.items():
        assert tuple(sizes[axis] for axis in axes[1:]) == found.arrays[name].shape, name  # each axis is as long as there are of what it counts
    assert named["maps_chosen/gradient"] == ("step", "chosen", "row", "column")
    assert named["measures_null/deletion/gradient"] == ("step", "measured")


def test_every_array_of_receptive_fields_says_what_its_axes_count() -> None:
    torch = pytest.importorskip("torch")
    from netlapse.analysis.receptive_field import receptive_field
    from netlapse.backends.torch import TorchNetwork

    torch.manual_seed(0)
    # Of 9 x 7 pixels, a square of 2 every 1: 8 x 6 places, and a field is twice as large less one.
    sizes = {"input": 12, "unit": 4, "rank": 5, "coordinate": 2, "fielded": 3, "down": 15, "right": 11, "direction": 2, "size stride offset": 3}
    network = TorchNetwork(torch.nn.Sequential(torch.nn.Conv2d(2, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(252, 3)))
    probe = ProbeSet(np.random.default_rng(0).normal(size=(12, 9, 7, 2)).astype(np.float32), np.arange(12) % 3, ("a", "b", "c"))
    found = receptive_field(Snapshot(network, probe, 0), None, limit_units=3)
    run = Recording({}, {"receptive_field": {0: found}})
    for name, values in found.arrays.items():
        axes = run.array("receptive_field", name).axes
        assert tuple(sizes[axis] for axis in axes[1:]) == values.shape, name


def test_steps_with_another_shape_than_the_last_are_left_out() -> None:
    found = {0: Findings({"a": np.zeros(2)}), 1: Findings({"a": np.zeros(3)}), 2: Findings({}), 3: Findings({"a": np.ones(3)})}
    series = Recording({}, {"x": found}).array("x", "a")
    assert series.steps.tolist() == [1, 3]
    np.testing.assert_array_equal(series.values, [[0, 0, 0], [1, 1, 1]])


def test_scalars_are_ordered_by_step_and_come_from_every_analysis() -> None:
    scalars = recording().scalars
    assert list(scalars) == ["nap/drift/conv", "own/metric"]
    assert scalars["nap/drift/conv"].steps.tolist() == [0, 2, 10]
    np.testing.assert_array_equal(scalars["nap/drift/conv"].values, [0, 1, 5])
    assert scalars["own/metric"].steps.tolist() == [4, 10]
    np.testing.assert_array_equal(scalars["own/metric"].values, [0.5, 1.0])
    assert scalars["own/metric"].axes == ("step",)


def test_a_value_is_taken_at_its_step_and_not_at_its_position() -> None:
    series = Series(np.array([0, 2, 10]), np.array([[1.0], [2.0], [3.0]]), ("step", "unit"))
    np.testing.assert_array_equal(series.at(2), [2.0])
    with pytest.raises(KeyError, match=r"nothing found at step 1; this quantity has steps \[0, 2, 10\]"):
        series.at(1)


def test_what_was_never_found_is_an_error_that_says_what_was() -> None:
    with pytest.raises(KeyError, match=r"no analysis 'topomap' in this run; it has \['nap', 'own'\]"):
        recording().array("topomap", "maps")
    with pytest.raises(KeyError, match=r"analysis 'nap' found no array 'profile/fc'; it has \['counts', 'profile/conv'\]"):
        recording().array("nap", "profile/fc")


@pytest.mark.parametrize("called", ["fairness", "bias"])
def test_every_array_of_fairness_says_what_its_axes_count_whatever_the_analysis_is_called(called: str) -> None:
    torch = pytest.importorskip("torch")
    from netlapse.analysis.fairness import fairness
    from netlapse.backends.torch import TorchNetwork

    torch.manual_seed(0)
    sizes = {"attribute": 1, "group": 3, "class": 4, "label": 4, "prediction": 4, "bin": 10, "layer": 2, "unit": 7, "input": 60, "labelling": 41}
    sizes |= {"observed": 5, "checkpoint": 3, "value low high": 3, "inputs confidence right": 3, "gap growing": 2, "event": 0}
    network = TorchNetwork(torch.nn.Sequential(torch.nn.Linear(6, 7), torch.nn.ReLU(), torch.nn.Linear(7, 4)))
    inputs = np.random.default_rng(0).normal(size=(60, 6)).astype(np.float32)
    probe = ProbeSet(inputs, np.arange(60) % 4, ("a", "b", "c", "d"), {"side": np.array(["x", "y", "z"])[np.arange(60) // 4 % 3]})
    found = None
    for step in range(5):
        found = fairness(Snapshot(network, probe, step, layers=["0", "1"]), found, permutations=40, folds=3, checkpoints=2)
    assert found is not None
    run = Recording({"asked": {called: {"analysis": "fairness"}}}, {called: {4: found}})
    assert len(found.arrays["layers"]) == 2
    for name, values in found.arrays.items():
        series = run.array(called, name)
        assert series.values.shape[1:] == values.shape == tuple(sizes[axis] for axis in series.axes[1:]), (name, series.axes)


def test_every_array_of_the_sanity_checks_says_what_its_axes_count() -> None:
    torch = pytest.importorskip("torch")
    from netlapse.analysis.saliency import gradient
    from netlapse.analysis.sanity import sanity
    from netlapse.backends.torch import TorchNetwork

    torch.manual_seed(0)
    modules = [
        torch.nn.Conv2d(2, 4, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(252, 9),
        torch.nn.ReLU(),
        torch.nn.Linear(9, 3),
    ]
    sizes = {"method": 1, "check": 2, "limit tolerance": 2, "stage": 4, "module": 3, "input": 8, "example": 2, "row": 9, "column": 7, "channel": 2}
    probe = ProbeSet(np.random.default_rng(0).normal(size=(12, 9, 7, 2)).astype(np.float32), np.arange(12) % 3, ("a", "b", "c"))
    found = sanity(Snapshot(TorchNetwork(torch.nn.Sequential(*modules)), probe, 0), None, methods={"gradient": gradient}, panel=8, examples=2)
    run = Recording({}, {"sanity": {0: found}})
    for name, values in found.arrays.items():
        axes = run.array("sanity", name).axes[1:]
        assert values.shape == tuple({**sizes, "value low high": 3}[axis] for axis in axes), (name, axes)
