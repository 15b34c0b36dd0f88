"""Laws of the inputs that units respond to most, and of where they do."""

import numpy as np
import pytest
import torch
from torch import nn

from netlapse.analysis.receptive_field import TopInputs, in_batches, top_images, top_inputs
from netlapse.backends.torch import TorchNetwork
from netlapse.types import Float32, Height


def small(seed: int = 0) -> TorchNetwork:
    torch.manual_seed(seed)
    return TorchNetwork(
        nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 5, 2), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 9, 4))
    )


def images(n: int = 50, seed: int = 0, side: int = 10) -> Float32:
    return np.random.default_rng(seed).normal(size=(n, side, side, 1)).astype(np.float32)


def by_definition(activations: Float32, k: int, by: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """From all activations (n, h, w, u), one unit at a time."""
    n, _, w, units = activations.shape
    values, inputs, positions = [], [], []
    for u in range(units):
        maps = activations[..., u].reshape(n, -1)
        heights = maps.max(axis=1) if by == "maximum" else maps.mean(axis=1, dtype=np.float32)
        best = sorted(range(n), key=lambda i: (-heights[i], i))[:k]
        values.append([heights[i] for i in best])
        inputs.append(best)
        positions.append([divmod(int(maps[i].argmax()), w) for i in best])
    return np.array(values), np.array(inputs), np.array(positions)


@pytest.mark.parametrize("layer", ["0", "1", "2", "4"])
@pytest.mark.parametrize("by", ["maximum", "mean"])
@pytest.mark.parametrize("batch_size", [7, 64])
def test_they_are_those_of_the_definition_however_the_inputs_are_batched(layer: str, by: Height, batch_size: int) -> None:
    network, shown = small(), images()
    values, inputs, positions = by_definition(network.activations(shown, [layer])[layer], 8, by)
    found = top_images(network, shown, layer, 8, by=by, batch_size=batch_size)
    np.testing.assert_allclose(found[0], values, rtol=1e-6)
    np.testing.assert_array_equal(found[1], inputs)
    np.testing.assert_array_equal(found[2], positions)


def test_equal_values_go_by_the_index_and_equal_positions_by_row_and_column() -> None:
    """A dead unit responds 0 to every input everywhere."""
    network = small()
    with torch.no_grad():
        network.module[0].bias[2] = -1e3
    values, inputs, positions = top_images(network, images(), "1", 5, batch_size=8)
    np.testing.assert_array_equal(values[2], 0)
    np.testing.assert_array_equal(inputs[2], range(5))
    np.testing.assert_array_equal(positions[2], 0)
    backwards = [(np.arange(a, a + 10), images()[a : a + 10]) for a in (40, 20, 30, 0, 10)]
    np.testing.assert_array_equal(top_inputs(network, backwards, ["1"], 5).inputs["1"][2], range(5))


def test_a_nan_is_above_infinity() -> None:
    def part(values: list[float], first: int) -> TopInputs:
        rows = np.array([values], np.float32)
        return TopInputs({"a": rows}, {"a": np.array([[first, first + 1]])}, {"a": np.zeros((1, 2, 2), np.int64)})

    merged = part([np.inf, 1.0], 0).merge(part([np.nan, np.inf], 2))
    np.testing.assert_array_equal(merged.inputs["a"], [[2, 0]])


def test_parts_of_a_data_set_may_come_in_any_order_and_be_merged() -> None:
    network, shown = small(), images()
    shown[30:40] = shown[5:15]  # equal values in several parts
    whole = top_inputs(network, in_batches(shown, 64), ["1", "4", "6"], 9)
    parts = [(np.arange(a, b), shown[a:b]) for a, b in ((40, 50), (0, 10), (25, 40), (10, 25))]
    streamed = top_inputs(network, parts, ["1", "4", "6"], 9)
    merged = top_inputs(network, parts[:2], ["1", "4", "6"], 9).merge(top_inputs(network, parts[2:], ["1", "4", "6"], 9))
    resumed = top_inputs(network, parts[2:], ["1", "4", "6"], 9, start=top_inputs(network, parts[:2], ["1", "4", "6"], 9))
    for layer in whole.values:
        for other in (streamed, merged, resumed):
            np.testing.assert_allclose(other.values[layer], whole.values[layer], rtol=1e-6)
            np.testing.assert_array_equal(other.inputs[layer], whole.inputs[layer])
            np.testing.assert_array_equal(other.positions[layer], whole.positions[layer])


def test_where_there_are_fewer_inputs_the_rest_is_marked() -> None:
    values, inputs, positions = top_images(small(), images(3), "1", 5)
    np.testing.assert_array_equal(inputs >= 0, [[True, True, True, False, False]] * 6)
    np.testing.assert_array_equal(positions[:, 3:], -1)
    np.testing.assert_array_equal(values[:, 3:], -np.inf)


def test_a_dense_layer_has_one_position_and_a_token_layer_its_tokens() -> None:
    values, inputs, positions = top_images(small(), images(), "6", 3)
    assert values.shape == (4, 3)
    assert not positions.any()
    torch.manual_seed(0)
    tokens = TorchNetwork(nn.Sequential(nn.Linear(3, 5), nn.ReLU()))
    shown = np.random.default_rng(0).normal(size=(20, 7, 3)).astype(np.float32)
    values, inputs, positions = top_images(tokens, shown, "0", 3)
    activations = tokens.activations(shown, ["0"])["0"]
    for u in range(5):
        for value, i, (row, t) in zip(values[u], inputs[u], positions[u]):
            assert (row, t) == (0, activations[i, :, u].argmax())
            assert value == pytest.approx(activations[i, :, u].max(), rel=1e-6)


def test_an_input_that_is_no_number_stands_first_and_shows() -> None:
    network, shown = small(), images()
    shown[33, 2, 2] = np.nan
    values, inputs, _ = top_images(network, shown, "0", 4, batch_size=16)
    np.testing.assert_array_equal(inputs[:, 0], 33)
    np.testing.assert_array_equal(np.isnan(values), [[True, False, False, False]] * 6)


def test_only_what_may_be_among_the_top_is_located() -> None:
    """Locating every maximum costs several times the pass."""
    network, shown = small(), images(64)
    high = network.responses(shown, ["1"]).high["1"]
    floor = np.sort(high, axis=0)[-3].astype(np.float32)
    places = network.peaks(shown, ["1"], 10, {"1": floor}).places["1"]
    np.testing.assert_array_equal((places >= 0).sum(axis=0), 2)
    np.testing.assert_array_equal(places >= 0, high > floor)
    unbounded = network.peaks(shown, ["1"], 10, {"1": np.full_like(floor, -np.inf)}).places["1"]
    np.testing.assert_array_equal((unbounded >= 0).sum(axis=0), 10)


def test_what_cannot_be_is_refused() -> None:
    network = small()
    with pytest.raises(ValueError, match="k=0"):
        top_images(network, images(), "1", 0)
    with pytest.raises(ValueError, match="by='median'"):
        top_images(network, images(), "1", 3, by="median")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least one batch"):
        top_inputs(network, [], ["1"], 3)
    with pytest.raises(ValueError, match="no_such"):
        top_images(network, images(), "no_such", 3)
    a, b = (top_inputs(network, in_batches(images(), 64), ["1"], k) for k in (3, 4))
    with pytest.raises(ValueError, match="cannot merge"):
        a.merge(b)
    assert isinstance(a, TopInputs)
