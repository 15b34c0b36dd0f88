"""Laws of centred kernel alignment, and of the analysis that records what it takes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

import numpy as np
import pytest
import torch
from torch import nn

from netlapse.analysis.similarity import alignments, cka, gram, packed, similarity, unpacked
from netlapse.backends.torch import TorchNetwork
from netlapse.observer import Observer
from netlapse.render.colours import FRAME, MISSING, SEQUENTIAL, sequential
from netlapse.render.heatmap import CELL, heatmap
from netlapse.statistics import kept_inputs
from netlapse.tracking.memory import MemoryTracker
from netlapse.types import Array, Findings, Float64, ProbeSet, Snapshot


def normal(*shape: int, seed: int = 0) -> Float64:
    return np.random.default_rng(seed).normal(size=shape)


def rotation(f: int, seed: int = 0) -> Float64:
    return np.linalg.qr(normal(f, f, seed=seed))[0]


def hsic(k: Float64, l: Float64) -> float:  # noqa: E741
    """Gretton et al. (2005), as Kornblith et al. (2019) write it: tr(K H L H) / (n - 1)^2."""
    n = len(k)
    h = np.eye(n) - np.ones((n, n)) / n
    return float(np.trace(k @ h @ l @ h) / (n - 1) ** 2)


def unbiased_hsic(k: Float64, l: Float64) -> float:  # noqa: E741
    """Song et al. (2012), eq. 5, term by term."""
    n = len(k)
    k, l = k - np.diag(np.diag(k)), l - np.diag(np.diag(l))  # noqa: E741
    one = np.ones(n)
    terms = np.trace(k @ l), (one @ k @ one) * (one @ l @ one) / ((n - 1) * (n - 2)), -2 / (n - 2) * (one @ k @ l @ one)
    return float(sum(terms) / (n * (n - 3)))


def literal(x: Float64, y: Float64, debiased: bool) -> float:
    by, k, l = unbiased_hsic if debiased else hsic, x @ x.T, y @ y.T  # noqa: E741
    return by(k, l) / np.sqrt(by(k, k) * by(l, l))


SHAPES = [(40, 3, 7), (12, 30, 5), (9, 20, 40), (4, 2, 2)]
"""More inputs than features and fewer, so that both ways to compute it are taken."""


@pytest.mark.parametrize("debiased", [False, True])
@pytest.mark.parametrize(("n", "f", "f2"), SHAPES)
def test_cka_is_its_definition_with_gram_matrices(n: int, f: int, f2: int, debiased: bool) -> None:
    x, noise = normal(n, f) + 3, normal(n, f2, seed=1) - 5
    y = noise + 2 * x[:, :1]
    found = cka(x, y, debiased=debiased)
    assert found == pytest.approx(literal(x, y, debiased), abs=1e-10)
    assert found == pytest.approx(float(alignments([gram(x)], [gram(y)], debiased=debiased)[0, 0]), abs=1e-10)


@pytest.mark.parametrize("debiased", [False, True])
@pytest.mark.parametrize(("n", "f", "f2"), SHAPES)
def test_cka_is_blind_to_rotation_scale_and_shift_and_to_nothing_else(n: int, f: int, f2: int, debiased: bool) -> None:
    x, y = normal(n, f), normal(n, f2, seed=1)
    y[:, 0] += x[:, 0]
    like = partial(cka, debiased=debiased)
    assert like(x, x) == pytest.approx(1, abs=1e-12)
    assert like(x, -7 * x @ rotation(f) + 100) == pytest.approx(1, abs=1e-10)
    assert like(x @ rotation(f), y) == pytest.approx(like(x, y), abs=1e-10)
    assert like(y, x) == pytest.approx(like(x, y), abs=1e-12)
    shuffled = np.random.default_rng(0).permutation(n)
    assert like(x[shuffled], y[shuffled]) == pytest.approx(like(x, y), abs=1e-10)
    if n > 4:  # four inputs are all but alike when debiased
        assert like(x[np.roll(np.arange(n), 1)], x) < 0.9
        assert like(x * np.r_[5.0, np.ones(f - 1)], x) < 1 - 1e-3


def test_by_hand() -> None:
    """Centred, x is (-1, 0, 1) and y (1, -2, 1): their product is 0. With z = (0, 1, 5) it is 5; the squares are 2 and 14."""
    x, y, z = (np.array(values, float)[:, None] for values in ((1, 2, 3), (1, -2, 1), (0, 1, 5)))
    assert cka(x, y) == pytest.approx(0)
    assert cka(x, z) == pytest.approx(5**2 / (2 * 14))


def test_of_independent_responses_only_the_debiased_one_is_about_zero() -> None:
    found = {
        debiased: [cka(normal(40, 80, seed=2 * seed), normal(40, 80, seed=2 * seed + 1), debiased=debiased) for seed in range(50)]
        for debiased in (False, True)
    }
    # Its standard deviation over such draws is about 1 / n.
    assert abs(np.mean(found[True])) < 0.01
    assert np.std(found[True]) < 0.05
    assert min(found[False]) > 0.5


def test_debiased_says_the_same_whatever_the_number_of_inputs() -> None:
    def mean(n: int, debiased: bool) -> float:
        both = [normal(n, 30, seed=seed) for seed in range(40)]
        return float(np.mean([cka(x, x + 1.5 * normal(n, 30, seed=100 + seed), debiased=debiased) for seed, x in enumerate(both)]))

    large = mean(2000, True)
    assert mean(20, True) == pytest.approx(large, abs=0.04)
    assert mean(20, False) > large + 0.15


@pytest.mark.parametrize("n", [6, 50])
def test_what_does_not_vary_or_is_not_finite_has_no_similarity(n: int) -> None:
    x = normal(n, 3)
    for other in (np.full((n, 2), 0.1), np.where(np.arange(n)[:, None] == 2, np.nan, x), np.where(np.arange(n)[:, None] == 2, np.inf, x)):
        for debiased in (False, True):
            assert np.isnan(cka(x, other, debiased=debiased))
            assert np.isnan(cka(other, x, debiased=debiased))
    assert cka(np.hstack([x, np.full((n, 2), 1e9)]), x) == pytest.approx(1)
    # Each input a direction of its own, all of one length: no pair is nearer than another.
    assert np.isnan(cka(np.eye(n), x, debiased=True))


@pytest.mark.parametrize(("x", "y"), [((3, 2), (4, 2)), ((3,), (3, 2)), ((3, 0), (3, 2)), ((0, 2), (0, 2))])
def test_representations_of_other_inputs_are_refused(x: tuple[int, ...], y: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"cka was given x \(.*\) and y \(.*\); expected \(n, f\) and \(n, f2\), of the same inputs"):
        cka(np.zeros(x), np.zeros(y))


def test_too_few_inputs_to_be_debiased_are_refused() -> None:
    with pytest.raises(ValueError, match=r"cka was given 3 inputs; debiased CKA is defined for at least 4: show more, or take debiased=False"):
        cka(normal(3, 2), normal(3, 2), debiased=True)
    with pytest.raises(ValueError, match=r"Gram matrices of shapes \[\(4, 4\), \(5, 5\)\]; expected \(n, n\), all of the same inputs"):
        alignments([np.eye(4)], [np.eye(5)])
    with pytest.raises(ValueError, match=r"similarity was given 3 inputs; debiased CKA"):
        similarity(snapshot(n=3), None)
    assert np.isfinite(similarity(snapshot(n=3), None, debiased=False).arrays["cka"]).all()
    with pytest.raises(ValueError, match=r"similarity was given inputs=257; expected from 4 to 256"):
        similarity(snapshot(), None, inputs=257)


def test_a_quarter_of_the_room_changes_no_number_that_anybody_looks_at() -> None:
    x = (np.maximum(normal(200, 64), 0) * np.exp(3 * normal(64, seed=1)) + 1000).astype(np.float32)
    x[:, 0] = 7
    x[3, 1] = np.inf
    levels, ends = packed(x)
    assert levels.nbytes * 4 == x.nbytes
    found = unpacked({"responses/a/b": levels, "responses_range/a/b": ends}, "a/b")
    assert found is not None
    assert np.isnan(found[:, 1]).all()
    kept = np.arange(64) != 1
    off = np.abs(found - x)[:, kept] / np.maximum(np.ptp(x[:, kept], axis=0), 1e-30)
    assert off.max() < 1 / 509
    assert (found[:, 0] == 7).all()
    for y in (x[:, kept][:, :20] ** 2, normal(200, 64, seed=2)):
        assert cka(found[:, kept], y, debiased=True) == pytest.approx(cka(x[:, kept], y, debiased=True), abs=1e-3)
    assert unpacked({}, "a/b") is None


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu, self.flat, self.head = nn.Conv2d(1, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.flat(self.relu(self.conv(x))))
        return out


def network(seed: int = 0) -> TorchNetwork:
    torch.manual_seed(seed)
    return TorchNetwork(Net())


def probe(n: int = 30) -> ProbeSet:
    return ProbeSet(np.random.default_rng(0).random((n, 6, 6, 1), np.float32), np.arange(n) % 3)


def snapshot(of: TorchNetwork | None = None, n: int = 30, step: int = 0) -> Snapshot:
    return Snapshot(of or network(), probe(n), step, layers=["relu", "head"], batch_size=8)


def test_the_analysis_finds_the_cka_of_what_layers_do_and_have_done() -> None:
    nets = [network(seed) for seed in range(3)]
    previous: Findings | None = None
    found: list[Findings] = []
    for step, net in enumerate(nets):
        previous = similarity(snapshot(net, step=step), previous)
        found.append(previous)
    means = [{layer: net.responses(probe().inputs, ["relu", "head"]).mean[layer].astype(float) for layer in ("relu", "head")} for net in nets]
    for step, one in enumerate(found):
        assert one.arrays["layers"].tolist() == ["relu", "head"]
        expected = [[cka(means[step][a], means[step][b], debiased=True) for b in ("relu", "head")] for a in ("relu", "head")]
        np.testing.assert_allclose(one.arrays["cka"], expected, atol=2e-3)  # as much as is rounded in the record
        assert int(one.arrays["step_first"]) == 0
        names = {f"similarity/{to}/{layer}" for to in ("previous", "first") for layer in ("relu", "head")} if step else set()
        assert set(one.scalars) == names
        for name, value in one.scalars.items():
            _, to, layer = name.split("/")
            then = means[step - 1 if to == "previous" else 0][layer]
            assert value == pytest.approx(cka(means[step][layer], then, debiased=True), abs=2e-3)
    assert abs(found[2].scalars["similarity/previous/relu"] - found[2].scalars["similarity/first/relu"]) > 5e-3


def test_a_network_that_stays_as_it_is_is_exactly_like_itself_and_the_biased_one_is_asked_for() -> None:
    first = similarity(snapshot(), None)
    assert similarity(snapshot(step=1), first).scalars == pytest.approx(dict.fromkeys(MOVES, 1.0), abs=1e-12)
    usual = similarity(snapshot(), None, debiased=False).arrays["cka"]
    assert usual[0, 1] > first.arrays["cka"][0, 1]
    relu, head = (unpacked(first.arrays, layer) for layer in ("relu", "head"))
    assert relu is not None
    assert head is not None
    assert usual[0, 1] == pytest.approx(cka(relu, head))


MOVES = [f"similarity/{to}/{layer}" for to in ("previous", "first") for layer in ("relu", "head")]


def test_the_network_is_shown_the_probe_once_and_fewer_inputs_are_some_of_every_class(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    shown = TorchNetwork.responses

    def counted(self: TorchNetwork, inputs: Array, layers: list[str]) -> object:
        seen.append(len(inputs))
        return shown(self, inputs, layers)

    monkeypatch.setattr(TorchNetwork, "responses", counted)
    one = snapshot(n=300)
    assert one.statistics is not None
    found = similarity(one, None, inputs=9)
    assert sum(seen) == 300
    assert found.arrays["labels"].tolist() == one.probe.labels[found.arrays["inputs"]].tolist()
    assert np.bincount(found.arrays["labels"]).tolist() == [3, 3, 3]
    assert found.arrays["responses/relu"].shape == (9, 5)
    np.testing.assert_array_equal(similarity(snapshot(n=300), None).arrays["inputs"], kept_inputs(probe(300).labels))


def test_the_numbers_are_those_of_the_inputs_they_are_said_to_be_of() -> None:
    shown = ProbeSet(probe(300).inputs, np.repeat([0, 1, 2], 100))  # the nine are not the first of those that are kept
    found = similarity(Snapshot(network(), shown, 0, layers=["relu", "head"]), None, inputs=9)
    assert found.arrays["inputs"].tolist() == [0, 1, 2, 100, 101, 102, 200, 201, 202]
    means = network().responses(shown.inputs[found.arrays["inputs"]], ["relu"]).mean["relu"]
    relu = unpacked(found.arrays, "relu")
    assert relu is not None
    np.testing.assert_allclose(relu, means, atol=np.ptp(means, axis=0).max() / 500)


def test_findings_of_other_inputs_are_none_of_before() -> None:
    other = similarity(snapshot(), None, inputs=12)
    found = similarity(snapshot(step=1), other)
    assert found.scalars == {}
    assert int(found.arrays["step_first"]) == 1


def test_a_layer_that_is_broken_is_nan_and_grey_and_the_others_are_not() -> None:
    net = network()
    before = similarity(snapshot(net), None)
    with torch.no_grad():
        net.module.head.weight[1] = float("nan")  # type: ignore[union-attr, operator]
    found = similarity(snapshot(net, step=1), before)
    assert np.isnan(found.arrays["cka"]).tolist() == [[False, True], [True, True]]
    assert [np.isnan(found.scalars[name]) for name in MOVES] == [False, True, False, True]
    assert (found.images["similarity"] == SEQUENTIAL[MISSING]).all(axis=2).sum() > 2 * CELL**2
    with torch.no_grad():
        net.module.head.weight[1] = 0.0  # type: ignore[union-attr, operator]
    after = similarity(snapshot(net, step=2), found).scalars
    assert [np.isnan(after[name]) for name in MOVES] == [False, True, False, False]


def test_an_observer_records_it_and_gives_the_axes_names() -> None:
    tracker = MemoryTracker()
    observer = Observer(probe(), {"similarity": similarity}, tracker, layers=["relu", "head"], strict=True)
    net = network()
    observer.start(net)
    for step in range(2):
        observer.observe(net, step)
    recording = tracker.recording()
    assert recording.array("similarity", "cka").axes == ("step", "layer", "other")
    assert recording.array("similarity", "responses/relu").axes == ("step", "input", "unit")
    assert recording.scalars["similarity/first/relu"].values.tolist() == pytest.approx([1.0])


def test_a_heatmap_has_the_colours_of_its_numbers_on_a_scale_that_never_changes() -> None:
    values = np.array([[0.0, 0.25, 1.0], [np.nan, -0.5, 2.0]])
    picture = heatmap(values, ["first", "second"], ["a", "b", "c"], "title", "CKA")
    expected: Mapping[tuple[int, int], tuple[int, ...]] = MappingProxyType(
        {place: tuple(SEQUENTIAL[sequential(np.array([value]), 1.0)][0].tolist()) for place, value in np.ndenumerate(values)}
    )
    corners = _cells(picture, 2, 3)
    assert {place: tuple(corner.tolist()) for place, corner in corners.items()} == expected
    small = heatmap(values / 100, ["first", "second"], ["a", "b", "c"], "title", "CKA")
    assert all((corner >= 240).all() or place == (1, 0) for place, corner in _cells(small, 2, 3).items())
    many = heatmap(np.eye(300), [str(i) for i in range(300)], [str(i) for i in range(300)], "title", "CKA")
    assert max(many.shape) < 300 * 4 + 400
    with pytest.raises(ValueError, match=r"a heatmap of 1 rows and 2 columns was given values \(2, 1\); expected as many, at least one"):
        heatmap(np.zeros((2, 1)), ["a"], ["b", "c"], "", "")


def _cells(picture: Array, rows: int, columns: int) -> dict[tuple[int, int], Array]:
    """The colour at the corner of each cell: found from the frame around them, whose upper left corner is the first pixel of its colour."""
    frame = (picture == SEQUENTIAL[FRAME]).all(axis=2)
    y, x = next((int(y), int(x)) for y, x in np.argwhere(frame) if frame[y, x : x + columns * CELL].all() and frame[y : y + rows * CELL, x].all())
    return {(row, column): picture[y + 3 + row * CELL, x + 3 + column * CELL] for row in range(rows) for column in range(columns)}
