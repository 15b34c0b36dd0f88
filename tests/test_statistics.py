"""Sums per group from one pass of the probe."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest
from sklearn.feature_selection import f_classif

from netlapse.analysis.nap import scale, separability
from netlapse.probe import NamedGrouping, by_attribute, by_confusion, by_label, by_outcome
from netlapse.statistics import KEPT, TOP, GroupStatistics, group_statistics, kept_inputs, share_of_statistics, total
from netlapse.types import Layer, ProbeSet, Responses


class Table:
    """A network of two layers: `image`, two units over four positions each, and `dense`, three units; and three logits."""

    layers = ("image", "dense")
    refused = MappingProxyType({})

    def __init__(self, logits: bool = True) -> None:
        self.has_logits = logits
        self.forwards: list[int] = []

    def describe(self, inputs: np.ndarray) -> tuple[Layer, ...]:
        return Layer("image", "Any", (2, 2, 2), "weights"), Layer("dense", "Any", (3,), "output")

    def undisturbed(self) -> object:
        return nullcontext()

    def outputs(self, inputs: np.ndarray) -> np.ndarray:
        raise ValueError("the network's output has another shape; expected (n, k)")

    def values(self, inputs: np.ndarray) -> dict[str, np.ndarray]:
        return {"image": np.tanh(inputs[:, :8]).reshape(-1, 2, 2, 2), "dense": np.maximum(inputs[:, 8:11], 0)}

    def responses(self, inputs: np.ndarray, layers: list[str]) -> Responses:
        self.forwards.append(len(inputs))
        flat = {name: a.reshape(len(a), -1, a.shape[-1]) for name, a in self.values(inputs).items() if name in layers}
        reduced = ({name: reduce(a, axis=1) for name, a in flat.items()} for reduce in (np.mean, np.min, np.max))
        return Responses(*reduced, inputs[:, 11:14] if self.has_logits else None)


class Rows(Table):
    """A network of one layer `x`, whose responses are its inputs."""

    def responses(self, inputs: np.ndarray, layers: list[str]) -> Responses:
        values = {"x": inputs}
        return Responses(values, values, values, None)


def probe(n: int = 37, classes: int = 3, seed: int = 0) -> ProbeSet:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    inputs = rng.normal(size=(n, 14)).astype(np.float32) + labels[:, None] * 0.3
    colour = rng.choice(["red", "blue"], n)
    return ProbeSet(inputs, labels, ("a", "b", "c", "none of these"), {"colour": colour})


LAYERS = ["image", "dense"]


@pytest.mark.parametrize("batch_size", [1, 5, 37, 256])
@pytest.mark.parametrize("grouping", [by_label, by_attribute("colour"), by_outcome], ids=lambda g: g.name)
def test_statistics_are_a_literal_double_loop_for_any_batch_size(grouping: NamedGrouping, batch_size: int) -> None:
    shown, network = probe(), Table()
    groups, names = grouping(shown, shown.inputs[:, 11:14])
    found = group_statistics(network, shown, grouping, LAYERS, batch_size=batch_size)
    assert found.names == names
    assert found.groups.tolist() == groups.tolist()
    for layer, values in network.values(shown.inputs).items():
        units = values.shape[-1]
        sums, squares = np.zeros((len(names), units)), np.zeros((len(names), units))
        counts, low, high = np.zeros(len(names), int), np.full(units, np.inf), np.full(units, -np.inf)
        for i, group in enumerate(groups):
            counts[group] += 1
            for unit in range(units):
                positions = [float(v) for v in values[i, ..., unit].reshape(-1)]
                response = sum(positions) / len(positions)
                sums[group, unit] += response
                squares[group, unit] += response**2
                low[unit], high[unit] = min(low[unit], *positions), max(high[unit], *positions)
        assert found.counts.tolist() == counts.tolist()
        # Responses are means in float32 (2 ** -24 of a value of at most 3), sums in float64.
        np.testing.assert_allclose(found.sums[layer], sums, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(found.squares[layer], squares, rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(found.low[layer], low.astype(np.float32))
        np.testing.assert_array_equal(found.high[layer], high.astype(np.float32))
        assert found.sums[layer].dtype == found.squares[layer].dtype == np.float64


@pytest.mark.parametrize("batch_size", [1, 5, 37, 256])
def test_spread_sparsity_peaks_and_top_inputs_are_their_definitions_for_any_batch_size(batch_size: int) -> None:
    shown, network = probe(), Table()
    found = group_statistics(network, shown, by_label, LAYERS, batch_size=batch_size)
    for layer, values in network.values(shown.inputs).items():
        flat = values.reshape(len(shown), -1, values.shape[-1])
        responses, highest = flat.astype(np.float64).mean(axis=1), flat.max(axis=1)
        for group in range(3):
            mine = shown.labels == group
            # Sums of squares of float32 responses of order 1: the difference of two sums keeps seven digits of them.
            np.testing.assert_allclose(found.variance(layer)[group], responses[mine].var(axis=0, ddof=1), rtol=1e-4, atol=1e-6)
            error = responses[mine].std(axis=0, ddof=1) / np.sqrt(mine.sum())
            np.testing.assert_allclose(found.standard_error(layer)[group], error, rtol=1e-4, atol=1e-6)
            np.testing.assert_array_equal(found.sparsity(layer)[group], (highest[mine] > 0).mean(axis=0))
            np.testing.assert_array_equal(found.highest(layer)[group], highest[mine].max(axis=0))
        for of_an_empty_group in (found.variance(layer), found.standard_error(layer), found.sparsity(layer), found.highest(layer)):
            assert np.isnan(of_an_empty_group[3]).all()
        for unit in range(values.shape[-1]):
            best = sorted(range(len(shown)), key=lambda i, unit=unit, highest=highest: (-highest[i, unit], i))[:TOP]  # type: ignore[misc]
            assert found.top[layer][unit].tolist() == best
            np.testing.assert_array_equal(found.top_values[layer][unit], highest[best, unit])
        assert found.broken[layer] == -1


def test_groups_times_units_that_would_not_fit_are_refused_with_the_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    from netlapse import statistics

    monkeypatch.setattr(statistics, "LARGEST", 8 * 4 * 5)
    group_statistics(Table(), probe(), by_label, LAYERS)
    monkeypatch.setattr(statistics, "LARGEST", 8 * 4 * 5 - 1)
    with pytest.raises(ValueError, match=r"by_label makes 4 groups, and 2 layers have 5 units: 4 x 5 x 8 bytes = 0\.0 GiB"):
        group_statistics(Table(), probe(), by_label, LAYERS)


def test_more_groups_than_inputs_leave_most_of_them_empty() -> None:
    shown = ProbeSet(probe().inputs[:5], np.array([3, 90, 3, 41, 7]), tuple(map(str, range(100))))
    found = group_statistics(Table(), shown, by_label, LAYERS)
    assert np.flatnonzero(found.counts).tolist() == [3, 7, 41, 90]
    assert (~np.isnan(found.profile("dense")).all(axis=1)).sum() == 4


def test_equal_activations_rank_by_the_order_of_the_inputs_and_few_inputs_leave_places_empty() -> None:
    class Alike(Table):
        def values(self, inputs: np.ndarray) -> dict[str, np.ndarray]:
            return {"image": np.ones((len(inputs), 2, 2, 3), np.float32), "dense": -inputs[:, :3] * 0}

    for batch_size in (2, 3, 64):
        found = group_statistics(Alike(), probe(), by_label, LAYERS, batch_size=batch_size)
        assert (found.top["image"] == np.arange(TOP)).all()
        assert (found.sparsity("image")[:3] == 1).all()
        assert (found.sparsity("dense")[:3] == 0).all(), "zero does not activate"
        assert (found.variance("image")[:3] == 0).all()
    few = group_statistics(Alike(), probe().take(np.array([4, 9])), by_label, LAYERS, batch_size=1)
    assert few.top["image"].tolist() == [[0, 1, -1, -1]] * 3
    assert np.isnan(few.variance("image")[few.counts < 2]).all()


def test_the_first_input_with_a_response_that_is_no_number_is_named() -> None:
    class Broken(Table):
        def values(self, inputs: np.ndarray) -> dict[str, np.ndarray]:
            found = super().values(inputs)
            found["dense"] = found["dense"].copy()
            found["dense"][inputs[:, 0] == marked[0], 1] = np.nan
            found["dense"][inputs[:, 0] == marked[1], 2] = np.inf
            return found

    shown = probe()
    marked = shown.inputs[[23, 30], 0]
    for batch_size in (1, 5, 64):
        found = group_statistics(Broken(), shown, by_label, LAYERS, batch_size=batch_size)
        assert (int(found.broken["image"]), int(found.broken["dense"])) == (-1, 23)


@pytest.mark.parametrize("grouping", [by_label, by_confusion, by_outcome], ids=lambda g: g.name)
def test_there_is_one_forward_per_batch_whether_or_not_a_grouping_reads_logits(grouping: NamedGrouping) -> None:
    shown = probe().take(np.flatnonzero(probe().labels < 3))
    shown = ProbeSet(shown.inputs, shown.labels, ("a", "b", "c"))
    network = Table()
    group_statistics(network, shown, grouping, LAYERS, batch_size=10)
    assert network.forwards == [10, 10, 10, 7]


def test_logits_are_kept_in_the_probes_order() -> None:
    shown = probe()
    found = group_statistics(Table(), shown, by_label, LAYERS, batch_size=5)
    np.testing.assert_array_equal(found.logits, shown.inputs[:, 11:14])
    assert group_statistics(Table(logits=False), shown, by_label, LAYERS).logits is None


def test_statistics_of_two_parts_merge_to_those_of_the_whole() -> None:
    shown, network = probe(), Table()
    whole = group_statistics(network, shown, by_label, LAYERS)
    left, right = (group_statistics(network, shown.take(part), by_label, LAYERS) for part in (np.arange(11), np.arange(11, 37)))
    for merged in (left.merge(right), right.merge(left)):
        assert merged.names == whole.names
        assert merged.counts.tolist() == whole.counts.tolist()
        for layer in LAYERS:
            # Float64 sums of the same numbers in another order.
            np.testing.assert_allclose(merged.sums[layer], whole.sums[layer], rtol=1e-12, atol=1e-12)
            np.testing.assert_allclose(merged.squares[layer], whole.squares[layer], rtol=1e-12, atol=1e-12)
            np.testing.assert_array_equal(merged.low[layer], whole.low[layer])
            np.testing.assert_array_equal(merged.high[layer], whole.high[layer])
    np.testing.assert_array_equal(left.merge(right).groups, whole.groups)
    np.testing.assert_array_equal(left.merge(right).logits, whole.logits)
    assert left.merge(right).seconds == left.seconds + right.seconds
    assert left.merge(replace(right, logits=None)).logits is None


def test_statistics_of_other_groups_or_layers_do_not_merge() -> None:
    shown = probe()
    found = group_statistics(Table(), shown, by_label, LAYERS)
    for other in (group_statistics(Table(), shown, by_attribute("colour"), LAYERS), group_statistics(Table(), shown, by_label, ["dense"])):
        with pytest.raises(ValueError, match=r"cannot merge statistics of groups .*'none of these'.* layers \['image', 'dense'\]"):
            found.merge(other)


def test_a_group_without_inputs_is_nan_with_count_zero() -> None:
    found = group_statistics(Table(), probe(), by_label, LAYERS)
    assert found.counts[3] == 0
    for layer in LAYERS:
        profile = found.profile(layer)
        assert np.isnan(profile[3]).all()
        assert np.isfinite(profile[:3]).all()
    assert np.isfinite(separability(found, "dense"))


def test_a_profile_is_the_mean_over_a_groups_inputs() -> None:
    shown, network = probe(), Table()
    found = group_statistics(network, shown, by_label, LAYERS, batch_size=7)
    for layer, values in network.values(shown.inputs).items():
        means = np.stack([values[shown.labels == g].reshape(-1, values.shape[-1]).mean(axis=0) for g in range(3)])
        np.testing.assert_allclose(found.profile(layer)[:3], means, rtol=1e-5, atol=1e-6)


def test_a_unit_is_constant_only_if_it_is_at_every_position_of_every_input() -> None:
    class Constants(Table):
        def values(self, inputs: np.ndarray) -> dict[str, np.ndarray]:
            image = np.zeros((len(inputs), 2, 2, 3), np.float32)
            image[..., 1] = 0.1  # constant, and not representable exactly
            image[:, 0, 0, 2], image[:, 1, 1, 2] = 1, -1  # the same mean for all inputs, yet not constant
            return {"image": image, "dense": np.repeat(inputs[:, :1], 3, axis=1) * [0, 0, 1e-3]}

    found = group_statistics(Constants(), probe(), by_label, LAYERS, batch_size=4)
    assert found.constant("image").tolist() == [True, True, False]
    assert found.constant("dense").tolist() == [True, True, False]
    total, between = found.sums_of_squares("image")
    np.testing.assert_array_equal(total, 0)
    np.testing.assert_array_equal(between, 0)
    assert np.isnan(separability(found, "image"))
    assert scale(found, "image") == 0


# ---- several processes ----------------------------------------------------------------------------------------------


def assert_equal(found: GroupStatistics, expected: GroupStatistics) -> None:
    """Bit for bit, but for the time it took."""
    assert found.names == expected.names
    for field in ("counts", "groups", "logits"):
        np.testing.assert_array_equal(getattr(found, field), getattr(expected, field))
    for field in ("sums", "squares", "low", "high"):
        of_found, of_expected = getattr(found, field), getattr(expected, field)
        assert list(of_found) == list(of_expected)
        for layer in of_expected:
            np.testing.assert_array_equal(of_found[layer], of_expected[layer])


@pytest.mark.parametrize("n", [1, 8, 37, 64])
@pytest.mark.parametrize("grouping", [by_label, by_outcome], ids=lambda g: g.name)
def test_shares_of_the_batches_add_up_bit_for_bit_to_the_whole_however_many_there_are(n: int, grouping: NamedGrouping) -> None:
    shown, network = probe(n), Table()
    whole = group_statistics(network, shown, grouping, LAYERS, batch_size=3)
    alone = list(network.forwards)
    for shares in range(1, 16):
        network.forwards.clear()
        found = [share_of_statistics(network, shown, grouping, LAYERS, batch_size=3, share=i, shares=shares) for i in range(shares)]
        assert_equal(total(subtotal for share in found for subtotal in share), whole)
        assert network.forwards == alone  # no batch is left out, shown twice or of another size


def test_sums_over_batches_are_those_of_pairs_of_pairs() -> None:
    """The order of additions, re-implemented recursively; a sum in another order differs in the last bits."""
    rng = np.random.default_rng(0)
    # Of very different sizes: sums of some float32 numbers of one size are exact in float64, in any order.
    values = (rng.normal(size=(53, 4)) * 10 ** rng.uniform(-8, 8, (53, 4))).astype(np.float32).astype(np.float64)

    def paired(rows: np.ndarray) -> np.ndarray:
        if len(rows) == 1:
            return rows[0]
        half = 2 ** int(np.ceil(np.log2(len(rows))) - 1)
        return paired(rows[:half]) + paired(rows[half:])

    found = group_statistics(Rows(), ProbeSet(values.astype(np.float32), np.zeros(53, int)), by_label, ["x"], batch_size=1)
    np.testing.assert_array_equal(found.sums["x"][0], paired(values))
    assert (found.sums["x"][0] != np.add.accumulate(values)[-1]).any()


def test_a_share_keeps_few_subtotals_however_long_the_probe() -> None:
    for n in (100, 1000):
        shown = ProbeSet(np.ones((n, 2), np.float32), np.arange(n) % 2)
        for shares in (1, 3):
            for i in range(shares):
                assert len(share_of_statistics(Rows(), shown, by_label, ["x"], batch_size=1, share=i, shares=shares)) <= 2 * np.log2(n)


# ---- separability ---------------------------------------------------------------------------------------------------


def statistics(responses: np.ndarray, groups: np.ndarray, n_groups: int | None = None) -> GroupStatistics:
    """Of one layer `x` whose responses (n, u) are given."""
    names = tuple(str(g) for g in range(n_groups or int(groups.max()) + 1))
    shown = ProbeSet(responses.astype(np.float32), groups, names)
    return group_statistics(Rows(), shown, by_label, ["x"], batch_size=13)


def varied(seed: int = 0, offset: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 4, 60)
    return (rng.normal(size=(60, 5)) + groups[:, None] * rng.normal(size=5) + offset).astype(np.float32), groups


def test_sums_of_squares_and_separability_are_the_textbooks_analysis_of_variance() -> None:
    values, groups = varied()
    found = statistics(values, groups)
    wide = values.astype(np.float64)
    total = ((wide - wide.mean(axis=0)) ** 2).sum(axis=0)
    between = sum((groups == g).sum() * (wide[groups == g].mean(axis=0) - wide.mean(axis=0)) ** 2 for g in range(4))
    np.testing.assert_allclose(found.sums_of_squares("x")[0], total, rtol=1e-10)
    np.testing.assert_allclose(found.sums_of_squares("x")[1], between, rtol=1e-10)
    assert separability(found, "x") == pytest.approx(float(between.sum() / total.sum()), rel=1e-10)
    assert scale(found, "x") == pytest.approx(float(np.sqrt(wide.var(axis=0).mean())), rel=1e-10)


def test_separability_of_one_unit_agrees_with_scikit_learns_f_statistic() -> None:
    values, groups = varied()
    n, g = len(values), 4
    for unit in range(5):
        f = f_classif(values[:, unit : unit + 1].astype(np.float64), groups)[0][0]
        assert separability(statistics(values[:, unit : unit + 1], groups), "x") == pytest.approx(f * (g - 1) / (f * (g - 1) + n - g), rel=1e-9)


def test_separability_is_zero_for_equal_group_means_and_one_without_variance_within() -> None:
    values = np.tile(np.array([[1.0, 5.0], [3.0, -2.0], [-4.0, 0.0]]), (3, 1))
    assert separability(statistics(values, np.repeat([0, 1, 2], 3)), "x") == pytest.approx(0, abs=1e-12)
    assert separability(statistics(values, np.tile([0, 1, 2], 3)), "x") == pytest.approx(1, rel=1e-12)
    assert 0.05 < separability(statistics(values, np.array([0, 0, 1] * 3)), "x") < 0.95


def test_the_total_sum_of_squares_does_not_depend_on_the_grouping() -> None:
    values, groups = varied()
    total, _ = statistics(values, groups).sums_of_squares("x")
    for other in (np.zeros(60, int), np.arange(60), np.random.default_rng(1).permutation(groups)):
        again, between = statistics(values, other).sums_of_squares("x")
        np.testing.assert_allclose(again, total, rtol=1e-10)
        assert (between <= total * (1 + 1e-10)).all()
    assert separability(statistics(values, np.zeros(60, int)), "x") == pytest.approx(0, abs=1e-12)
    assert separability(statistics(values, np.arange(60)), "x") == pytest.approx(1, rel=1e-12)


def test_a_large_mean_does_not_drown_the_variance() -> None:
    values, groups = varied(offset=1000.0)
    wide = values.astype(np.float64)
    # Sums of squares of 1e6 in float64 lose 6 of 16 digits.
    np.testing.assert_allclose(statistics(values, groups).sums_of_squares("x")[0], wide.var(axis=0) * 60, rtol=1e-8)


def test_units_that_respond_alike_to_every_input_deviate_by_exactly_nothing() -> None:
    rng = np.random.default_rng(0)
    for n in (2, 9, 566, 1541):
        same = np.repeat(rng.normal(size=(1, 5)), n, axis=0)
        for n_groups in (1, 4, 7):
            found = statistics(same, rng.integers(0, n_groups, n), n_groups)
            found = replace(found, low={"x": found.low["x"] - 1})  # as of a layer whose positions differ, so that no unit is constant
            np.testing.assert_array_equal(found.sums_of_squares("x"), 0)
            assert np.isnan(separability(found, "x"))
            assert scale(found, "x") == 0
    # The counterpart: a deviation of a hundred-thousandth is no rounding, and is kept.
    close = (1 + 1e-5 * rng.normal(size=(1541, 5))).astype(np.float32)
    expected = float(np.sqrt(close.astype(np.float64).var(axis=0).mean()))
    assert scale(statistics(close, rng.integers(0, 4, 1541)), "x") == pytest.approx(expected, rel=1e-2)


def test_separability_never_leaves_zero_to_one() -> None:
    rng = np.random.default_rng(0)
    for offset in (0.0, 10.0, 1e4):
        for _ in range(100):
            groups = np.arange(12) % rng.integers(1, 13)
            values = groups[:, None] * rng.normal(size=2) + offset  # nothing varies within groups
            found = separability(statistics(values, groups), "x")
            assert np.isnan(found) or 0 <= found <= 1


def test_separability_of_random_groups_is_about_g_minus_1_over_n_minus_1() -> None:
    rng = np.random.default_rng(0)
    found = [separability(statistics(rng.normal(size=(60, 50)), rng.permutation(np.repeat(np.arange(4), 15))), "x") for _ in range(20)]
    # The mean of 1,000 beta variables of mean 3 / 59 and standard deviation 0.04.
    assert np.mean(found) == pytest.approx(3 / 59, abs=5 * 0.04 / np.sqrt(1000))


# ---- groupings that cannot be ---------------------------------------------------------------------------------------


def grouping(assign: Callable[..., object], reads_logits: bool = False) -> NamedGrouping:
    return NamedGrouping("mine", assign, reads_logits)  # type: ignore[arg-type]


@pytest.mark.parametrize("reads_logits", [False, True])
@pytest.mark.parametrize(
    "assign",
    [
        lambda p, _: (np.zeros(len(p) + 1, int), ("a",)),
        lambda p, _: (np.zeros(len(p)), ("a",)),
        lambda p, _: (np.full(len(p), -1), ("a",)),
        lambda p, _: (np.full(len(p), 1), ("a",)),
        lambda p, _: (np.zeros(len(p), int), ()),
    ],
    ids=["length", "floats", "negative", "beyond the names", "no names"],
)
def test_groups_that_cannot_be_are_refused(assign: Callable[..., object], reads_logits: bool) -> None:
    with pytest.raises(ValueError, match=r"a grouping gave groups of shape .* names; expected \(.*\) integers from 0"):
        group_statistics(Table(), probe(), grouping(assign, reads_logits), LAYERS, batch_size=10)


def test_a_grouping_that_names_other_groups_for_another_batch_is_refused() -> None:
    by_value = grouping(lambda p, logits: (np.zeros(len(p), int), tuple(f"{v}" for v in p.inputs[:, 0])), reads_logits=True)
    with pytest.raises(ValueError, match="grouping mine named 10 groups for one batch and 10 for another; name the same ones for any inputs"):
        group_statistics(Table(), probe(), by_value, LAYERS, batch_size=10)


def test_a_plain_function_is_called_with_each_batchs_logits() -> None:
    def by_sign(shown: ProbeSet, logits: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
        return (logits[:, 0] > 0).astype(int), ("negative", "positive")

    shown = probe()
    found = group_statistics(Table(), shown, by_sign, LAYERS, batch_size=10)  # type: ignore[arg-type]
    np.testing.assert_array_equal(found.groups, shown.inputs[:, 11] > 0)


def test_a_grouping_by_prediction_of_a_network_without_logits_is_an_error() -> None:
    with pytest.raises(ValueError, match="the network's output has another shape"):
        group_statistics(Table(logits=False), probe(), by_outcome, LAYERS)


def test_the_whole_pass_runs_undisturbed() -> None:
    entered: list[str] = []

    class Watched(Table):
        def undisturbed(self) -> object:
            entered.append("entered")
            return nullcontext()

    group_statistics(Watched(), probe(), by_label, LAYERS, batch_size=5)
    assert entered == ["entered"]


def test_a_network_that_diverged_gives_undefined_values_and_no_error() -> None:
    for value in (np.nan, np.inf):

        class Diverged(Table):
            def values(self, inputs: np.ndarray, value: float = value) -> dict[str, np.ndarray]:
                found = super().values(inputs)
                found["image"][..., 1] = np.copysign(value, inputs[:, :1, None])  # infinities of both signs
                return found

        for batch_size in (1, 5, 256):
            found = group_statistics(Diverged(), probe(), by_label, LAYERS, batch_size=batch_size)
            assert found.finite("image").tolist() == [True, False]
            assert found.finite("dense").all()
            assert np.isfinite(found.profile("image")[:3, 0]).all()
            assert not np.isfinite(found.profile("image")[:, 1]).any()
            assert np.isnan(separability(found, "image"))
            assert np.isnan(scale(found, "image"))
            assert np.isfinite(separability(found, "dense"))


def test_a_unit_that_is_infinite_for_every_input_is_neither_finite_nor_constant() -> None:
    found = statistics(np.ones((6, 2)), np.arange(6) % 2)
    fields = {field: {"x": getattr(found, field)["x"] * [1, np.inf]} for field in ("sums", "squares", "low", "high")}
    infinite = replace(found, **fields)
    assert infinite.finite("x").tolist() == [True, False]
    assert infinite.constant("x").tolist() == [True, False]
    np.testing.assert_array_equal(infinite.sums_of_squares("x"), [[0, np.nan], [0, np.nan]])


@pytest.mark.parametrize("batch_size", [7, 64, 1000])
def test_the_responses_that_are_kept_are_those_to_some_inputs_of_every_class_however_the_probe_is_dealt_out(batch_size: int) -> None:
    shown, network = probe(600), Table()
    kept = kept_inputs(shown.labels)
    assert len(kept) == KEPT == len(set(kept.tolist()))
    assert (np.diff(kept) > 0).all()
    counts = np.bincount(shown.labels[kept], minlength=3)
    assert counts.max() - counts.min() <= 1
    whole = network.responses(shown.inputs, LAYERS).mean
    shares = [share_of_statistics(network, shown, by_label, LAYERS, batch_size=batch_size, share=i, shares=3) for i in range(3)]
    dealt = total([subtotal for share in shares for subtotal in share])
    for found in (dealt, group_statistics(network, shown, by_label, LAYERS, batch_size=batch_size)):
        for layer in LAYERS:
            np.testing.assert_array_equal(found.kept[layer], whole[layer][kept])


def test_of_a_small_probe_the_responses_to_all_inputs_are_kept() -> None:
    shown, network = probe(37), Table()
    found = group_statistics(network, shown, by_label, LAYERS, batch_size=8)
    np.testing.assert_array_equal(found.kept["dense"], network.responses(shown.inputs, LAYERS).mean["dense"])
