"""Laws of the remedies: each draws, or weighs, exactly what its definition says, in a training that is otherwise the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from netlapse.analysis.fairness import effective_sample_size, sampling_weights
from netlapse.backends.torch import TorchNetwork
from netlapse.callbacks import sampling
from netlapse.data import Dataset
from netlapse.training import remedies
from netlapse.training.lightning import Classifier, GroupDROClassifier, fit, seed_everything, wrong_of
from netlapse.training.remedies import (
    JTT,
    Adaptive,
    GroupBalanced,
    GroupDRO,
    Remedy,
    group_balanced_weights,
    group_dro_shares,
    group_dro_weights,
    groups_of,
    upweighted,
)

N, FEATURES = 90, 6


def data(**attributes: np.ndarray[Any, Any]) -> Dataset:
    """Vectors of three classes, of which one in nine is "odd" and far off; its own number is the last value."""
    rng = np.random.default_rng(0)
    labels = np.arange(N) % 3
    inputs = rng.normal(size=(N, FEATURES)).astype(np.float32)
    inputs[np.arange(N), labels] += 1.5
    odd = np.arange(N) % 9 == 1
    inputs[odd] *= -1
    inputs[:, -1] = np.arange(N)
    known = attributes or {"kind": np.where(odd, "odd", "even")}
    return Dataset("points", inputs, labels, inputs[:9], labels[:9], ("a", "b", "c"), known, {name: values[:9] for name, values in known.items()})


class Numbers(nn.Module):
    """Does not look at an input's last value, its number, but notes it while training."""

    def __init__(self, hidden: int = 8) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(FEATURES - 1, hidden), nn.ReLU(), nn.Linear(hidden, 3))
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen.extend(x[:, -1].long().tolist())
        found: Tensor = self.body(x[:, :-1])
        return found


Fitted = tuple[Numbers, pl.Trainer, list[Any]]


def fitted(remedy: Remedy | None, *, given: Dataset | None = None, epochs: int = 2, seed: int = 0, **more: Any) -> Fitted:
    seed_everything(1)
    network, told = Numbers(), list[Mapping[str, float]]()
    options = {"accelerator": "cpu", "devices": 1, **more.pop("options", {})}
    trainer = fit(network, given or data(), max_epochs=epochs, batch_size=15, remedy=remedy, seed=seed, progress=False, options=options,
                  metrics=lambda values, step: told.append(dict(values)), **more)  # fmt: skip
    return network, trainer, told


def drawn(weights: np.ndarray[Any, Any], epoch: int, seed: int = 0) -> list[int]:
    found: list[int] = sampling.drawn(weights, N, seed=seed, epoch=epoch).tolist()
    return found


# ---- what a group is -------------------------------------------------------------------------------------------------


def test_groups_are_values_or_values_within_classes() -> None:
    groups, names = groups_of(data(), "kind", "attribute")
    assert names == ["even", "odd"]
    np.testing.assert_array_equal(groups, np.arange(N) % 9 == 1)
    groups, names = groups_of(data(kind=np.where(np.arange(N) % 2, "x", "y")), "kind", "label_and_attribute")
    assert names == ["a / x", "a / y", "b / x", "b / y", "c / x", "c / y"]
    np.testing.assert_array_equal(groups, np.arange(N) % 3 * 2 + (np.arange(N) % 2 == 0))


@pytest.mark.parametrize("remedy", [GroupBalanced("kind"), GroupDRO("kind")])
def test_inputs_without_a_value_are_refused_and_so_is_an_attribute_that_is_not_there(remedy: Remedy) -> None:
    kind = np.where(np.arange(N) < 45, "x", "y").astype("<U4")
    for value in ("", "nan", "None"):
        kind[7] = kind[80] = value
        with pytest.raises(ValueError, match=r"attribute 'kind', which 2 of 90 training inputs of points have no value of, first input 7: give"):
            fitted(remedy, given=data(kind=kind))
    with pytest.raises(ValueError, match=r"goes by attribute 'kind' of the training inputs; points has \['age'\]"):
        fitted(remedy, given=data(age=kind))
    with pytest.raises(ValueError, match=r"points has \[\]"):
        fitted(remedy, given=replace(data(), train_attributes={}, test_attributes={}))


def test_a_group_of_one_is_warned_of_and_has_its_share(caplog: pytest.LogCaptureFixture) -> None:
    kind = np.where(np.arange(N) == 4, "alone", "other")
    groups, _ = groups_of(data(kind=kind), "kind", "attribute")
    assert "1 of the 2 groups that the remedy goes by have one training input, first ['alone']" in caplog.text
    assert group_balanced_weights(groups)[4] == 0.5
    caplog.clear()
    groups_of(data(), "kind", "attribute")
    assert not caplog.text


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: GroupBalanced("kind", of="both"), r"remedy.of is 'both'; allowed are \('label_and_attribute', 'attribute'\)"),  # type: ignore[arg-type]
        (lambda: GroupDRO("kind", of="both"), r"remedy.of is 'both'"),  # type: ignore[arg-type]
        (lambda: GroupDRO("kind", step_size=0.0), r"remedy.step_size is 0.0; expected a number above 0"),
        (lambda: JTT(epochs=0), r"remedy.epochs is 0 and remedy.upweight 10.0; expected numbers of at least 1"),
        (lambda: JTT(upweight=0.5), r"remedy.upweight 0.5"),
    ],
)
def test_options_that_cannot_be_are_refused(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


# ---- weights, by their definitions -----------------------------------------------------------------------------------


def test_balanced_groups_have_equal_shares_and_so_have_the_inputs_within_one() -> None:
    groups = np.random.default_rng(0).choice(4, 200, p=[0.7, 0.2, 0.07, 0.03])
    weights = group_balanced_weights(groups)
    for group in range(4):
        assert weights[groups == group].sum() == pytest.approx(0.25, abs=1e-15)
        assert np.ptp(weights[groups == group]) == 0
    with pytest.raises(AssertionError):  # the definition is no accident of even groups
        np.testing.assert_allclose(weights, 1 / 200)


def test_group_dro_weights_by_hand() -> None:
    """Groups of mean losses 2, 4 and one without inputs, at a step of log 2: even weights become 4 : 16 : 1."""
    weights = group_dro_weights(np.full(3, 1 / 3), np.array([6.0, 4.0, 0.0]), np.array([3.0, 1.0, 0.0]), float(np.log(2)))
    np.testing.assert_allclose(weights, np.array([4, 16, 1]) / 21, rtol=1e-12)
    again = group_dro_weights(weights, np.array([0.0, 1.0, 1.0]), np.array([2.0, 1.0, 1.0]), float(np.log(2)))
    np.testing.assert_allclose(again, np.array([4, 32, 2]) / 38, rtol=1e-12)


def test_group_dro_keeps_its_weights_where_all_groups_have_the_same_loss() -> None:
    weights = np.array([0.5, 0.3, 0.2])
    np.testing.assert_allclose(group_dro_weights(weights, np.array([2.0, 8.0, 1.0]), np.array([2.0, 8.0, 1.0]), 0.7), weights, rtol=1e-14)
    huge = group_dro_weights(weights, np.array([1e6, 0.0, 0.0]), np.ones(3), 1.0)
    np.testing.assert_array_equal(huge, [1.0, 0.0, 0.0])
    np.testing.assert_array_equal(group_dro_weights(huge, np.ones(3), np.ones(3), 1.0), huge)


def test_what_inputs_count_makes_the_sum_over_groups_of_weight_times_mean_loss() -> None:
    rng = np.random.default_rng(0)
    groups, losses, weights = rng.integers(0, 3, 20), rng.random(20), np.array([0.2, 0.5, 0.3])
    sizes = np.bincount(groups, minlength=3).astype(float)
    expected = sum(weights[group] * losses[groups == group].mean() for group in range(3))
    assert group_dro_shares(weights, groups, sizes) @ losses == pytest.approx(expected, rel=1e-12)


def test_upweighted_inputs_are_drawn_so_many_times_as_often() -> None:
    wrong = np.array([True, False, False, True, False])
    np.testing.assert_allclose(upweighted(wrong, 10), np.array([10, 1, 1, 10, 1]) / 23, rtol=1e-15)
    np.testing.assert_array_equal(upweighted(np.zeros(4, bool), 7), np.full(4, 0.25))


# ---- trainings -------------------------------------------------------------------------------------------------------


def test_without_a_remedy_every_input_is_seen_once_an_epoch() -> None:
    network, _, told = fitted(None)
    assert sorted(network.seen[:N]) == list(range(N))
    assert not any("sampling/ess" in values for values in told)


def test_group_balanced_training_draws_by_the_weights_and_tells_the_shares() -> None:
    network, _, told = fitted(GroupBalanced("kind", of="attribute"), seed=4)
    weights = group_balanced_weights((np.arange(N) % 9 == 1).astype(np.int64))
    assert network.seen == drawn(weights, 0, 4) + drawn(weights, 1, 4)
    said = next(values for values in told if "sampling/ess" in values)
    assert said["sampling/share/kind/odd"] == pytest.approx(0.5, abs=1e-6)
    assert said["sampling/ess"] == pytest.approx(effective_sample_size(weights) / N, rel=1e-6)
    assert 0.35 < np.isin(network.seen, np.flatnonzero(np.arange(N) % 9 == 1)).mean() < 0.65


def test_adaptive_training_draws_by_the_features_of_the_layer_named() -> None:
    seed_everything(1)
    known, own = data(), Numbers().eval()
    for layer in ("body.1", "body.0"):
        features = TorchNetwork(own).responses(known.train_inputs, [layer]).mean[layer]
        network, _, told = fitted(Adaptive(layer=layer, bins=5), epochs=1)
        assert network.seen == drawn(sampling_weights(features, known.train_labels, bins=5), 0)
        assert any("sampling/share/kind/odd" in values for values in told)
    with pytest.raises(ValueError, match=r"no layer named \['means'\]; this network has \['body.0', 'body.1', 'body.2'\]"):
        fitted(Adaptive(layer="means"))


def test_adaptive_training_at_a_huge_alpha_is_an_even_draw() -> None:
    network, _, told = fitted(Adaptive(alpha=1e9))
    assert next(values for values in told if "sampling/ess" in values)["sampling/ess"] == pytest.approx(1, abs=1e-6)
    assert network.seen[:N] == drawn(np.full(N, 1 / N), 0)


def test_jtt_draws_more_what_the_first_training_has_wrong_and_nothing_else() -> None:
    first, _, _ = fitted(None, epochs=1)
    known = data()
    with torch.no_grad():
        wrong = first.eval()(torch.from_numpy(known.train_inputs)).argmax(1).numpy() != known.train_labels
    assert 5 < wrong.sum() < N - 5
    np.testing.assert_array_equal(wrong_of(first, known), wrong)
    network, _, told = fitted(JTT(epochs=1, upweight=6), epochs=2)
    weights = np.where(wrong, 6.0, 1.0)
    assert network.seen == drawn(weights, 0) + drawn(weights, 1)
    assert len([values for values in told if "train_loss" in values]) == 2  # the first training is told to nobody


def test_jtt_trains_anew_from_the_same_initial_weights() -> None:
    """With nothing drawn more often, it is the training by an even draw."""
    network, _, _ = fitted(JTT(epochs=3, upweight=1))
    other, _, _ = fitted(Adaptive(alpha=1e12))
    assert network.seen == other.seen
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, other.state_dict()[name], rtol=0, atol=0)


def test_jtt_says_where_the_first_training_learnt_all_or_diverged(caplog: pytest.LogCaptureFixture) -> None:
    with torch.no_grad():
        perfect = Numbers()
        for parameter in perfect.parameters():
            parameter.zero_()
    known = data()
    wrong_of(perfect, replace(known, train_labels=np.zeros(N, np.int64)))
    assert "has nothing wrong" in caplog.text
    with torch.no_grad():
        perfect.body[2].bias[1] = float("nan")
    with pytest.raises(ValueError, match=r"the first training of JTT diverged.*lower trainer.learning_rate"):
        wrong_of(perfect, known)


def test_a_group_dro_training_is_the_published_algorithm_written_out() -> None:
    """Every batch: raise the groups' weights by their mean losses, then step on the sum of weight x mean loss."""
    known, options = data(), {"optimizer": "sgd", "learning_rate": 0.1}
    network, trainer, told = fitted(GroupDRO("kind", of="attribute", step_size=0.5), **options)
    groups = (np.arange(N) % 9 == 1).astype(np.int64)
    seed_everything(1)
    slow = Numbers()
    steps = torch.optim.SGD(slow.parameters(), 0.1)
    q = [0.5, 0.5]
    for batch in np.array(network.seen).reshape(-1, 15):
        losses = cross_entropy(slow(torch.from_numpy(known.train_inputs[batch])), torch.from_numpy(known.train_labels[batch]), reduction="none")
        of = torch.from_numpy(groups[batch])
        means = [losses[of == g].mean() if (of == g).any() else torch.zeros(()) for g in (0, 1)]
        q = [q[g] * float(np.exp(0.5 * means[g].item())) for g in (0, 1)]
        q = [each / sum(q) for each in q]
        steps.zero_grad()
        sum(q[g] * means[g] for g in (0, 1)).backward()  # type: ignore[union-attr]
        steps.step()
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, slow.state_dict()[name], rtol=1e-4, atol=1e-6)
    assert isinstance(trainer.lightning_module, GroupDROClassifier)
    np.testing.assert_allclose(trainer.lightning_module.group_weights.numpy(), q, rtol=1e-4)
    last = [values for values in told if "group_dro/weight/odd" in values][-1]
    assert last["group_dro/weight/odd"] == pytest.approx(q[1], rel=1e-4)
    assert abs(q[1] - 0.5) > 0.1  # they moved


def test_group_dro_with_one_group_is_the_usual_training() -> None:
    same = data(kind=np.full(N, "all"))
    network, _, _ = fitted(GroupDRO("kind", of="attribute"), given=same)
    plain, _, _ = fitted(None, given=same)
    assert network.seen == plain.seen
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, plain.state_dict()[name], rtol=1e-5, atol=1e-7)


def test_group_dro_weighs_the_losses_that_a_network_brings() -> None:
    class Own(Numbers):
        def input_losses(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
            logits = self(inputs)
            return 3 * cross_entropy(logits, labels, reduction="none"), logits, {}

    module = GroupDROClassifier(Own(), ["even", "odd"], 0.5)
    module.trainer = pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", devices=1)
    known = data()
    batch = [torch.from_numpy(known.train_inputs), torch.from_numpy(known.train_labels)]
    losses = module.losses(*batch)[0]
    groups = torch.from_numpy((np.arange(N) % 9 == 1).astype(np.int64))
    means = [losses[groups == g].mean().item() for g in (0, 1)]
    q = np.exp(0.5 * np.array(means)) / np.exp(0.5 * np.array(means)).sum()
    assert module.batch_loss(losses, groups).item() == pytest.approx(float(q @ means), rel=1e-5)
    assert module.batch_loss(losses).item() == pytest.approx(losses.mean().item())


@pytest.mark.parametrize("remedy", [Adaptive(), GroupBalanced("kind"), GroupDRO("kind"), JTT(1)], ids=lambda remedy: type(remedy).__name__)
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(remedy: Remedy) -> None:
    network, trainer, _ = fitted(remedy)
    again, _, _ = fitted(remedy)
    other, _, _ = fitted(remedy, seed=5)
    assert isinstance(trainer.lightning_module, Classifier)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, again.state_dict()[name], rtol=0, atol=0)
    assert network.seen == again.seen != other.seen


def test_attributes_of_very_many_values_are_not_told_one_by_one() -> None:
    known = data(kind=np.where(np.arange(N) % 9 == 1, "odd", "even"), name=np.arange(N).astype(str))
    assert list(remedies.told_groups(known)) == ["kind"]
