"""Laws of penalties in torch: what an input counts is the definition, 1 is the loss itself, and checkpoints carry what was set."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, multi_margin_loss, one_hot
from torch.utils.data import DataLoader, TensorDataset

from netlapse.penalties import Penalties, penalties_of
from netlapse.training.penalised import Penalised, penalised, right_reasons
from tests.training import Lit, fingerprint, train

K, N = 4, 9


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(N, K, generator=generator, dtype=torch.float64)
    return logits.requires_grad_(), torch.randint(K, (N,), generator=generator)


def literal(penalties: Penalties, losses: Tensor, logits: Tensor, targets: Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Input by input: its class's weight times the expected cost under softmax(logits), times its loss."""
    counted = []
    for loss, row, label in zip(losses.tolist(), logits.tolist(), targets.tolist()):
        raised = [np.exp(value) for value in row]
        cost = sum(value / sum(raised) * penalties.confusions[label, j] for j, value in enumerate(raised))
        counted.append(penalties.class_weights[label] * cost * loss)
    return np.array(counted)


def focal(logits: Tensor, targets: Tensor) -> Tensor:
    losses = cross_entropy(logits, targets, reduction="none")
    return (1 - torch.exp(-losses)) ** 2 * losses


LOSSES: dict[str, Any] = {
    "cross entropy": cross_entropy,
    "module": nn.CrossEntropyLoss(label_smoothing=0.1),
    "sum": nn.CrossEntropyLoss(reduction="sum"),
    "each": functools.partial(cross_entropy, reduction="none"),
    "margin": multi_margin_loss,
    "own": focal,
}


@pytest.mark.parametrize("name", LOSSES)
def test_at_one_it_is_the_loss_itself_bit_for_bit_and_so_are_its_gradients(name: str) -> None:
    loss = LOSSES[name]
    for wrapped in (penalised(loss, K), penalised(loss, K, class_weights=[1] * K, confusions={"3->1": 1.0})):
        found = []
        for function in (loss, wrapped):
            logits, targets = batch()
            value = function(logits, targets)
            (gradient,) = torch.autograd.grad(value.sum(), logits)
            found.append((value.detach().numpy().tobytes(), gradient.numpy().tobytes()))
        assert found[0] == found[1]


@pytest.mark.parametrize("name", LOSSES)
def test_what_an_input_counts_is_the_definition_and_the_reduction_the_losss_own(name: str) -> None:
    loss, (logits, targets) = LOSSES[name], batch()
    wrapped = penalised(loss, K, class_weights=[1, 0.5, 3, 0], confusions={"2->1": 4.0, "0->3": 0.0})
    own = loss(logits, targets)
    each = own if own.ndim else wrapped.each(logits, targets)
    expected = literal(wrapped.penalties, each, logits, targets)
    reduced = expected if own.ndim else expected.sum() if name == "sum" else expected.mean()
    np.testing.assert_allclose(wrapped(logits, targets).detach().numpy(), reduced, rtol=1e-12)
    assert not np.allclose(own.detach().numpy(), reduced)


def test_a_confusion_that_is_certain_counts_as_often_as_it_says_and_half_of_it_half() -> None:
    wrapped = penalised(cross_entropy, 10, confusions={"3->5": 2.0})
    logits = torch.full((1, 10), -100.0, dtype=torch.float64)
    logits[0, 5] = 0
    assert wrapped(logits, torch.tensor([3])).item() == pytest.approx(2 * cross_entropy(logits, torch.tensor([3])).item())
    logits[0, 3] = 0
    assert wrapped(logits, torch.tensor([3])).item() == pytest.approx(1.5 * np.log(2))
    assert wrapped(logits, torch.tensor([5])).item() == pytest.approx(np.log(2))  # a 5 that is taken for a 3 is another confusion


def test_class_weights_are_torchs_before_the_mean_whose_divisor_is_the_number_of_inputs() -> None:
    (logits, targets), weights = batch(), torch.tensor([1.0, 0.5, 3.0, 0.0], dtype=torch.float64)
    wrapped = penalised(cross_entropy, K, class_weights=weights.tolist())
    by_sum = cross_entropy(logits, targets, weight=weights)
    expected = cross_entropy(logits, targets, weight=weights, reduction="sum") / N
    assert wrapped(logits, targets).item() == pytest.approx(expected.item(), rel=1e-12)
    assert wrapped(logits, targets).item() == pytest.approx((by_sum * weights[targets].sum() / N).item(), rel=1e-12)
    # So a batch is the mean of its halves, of which torch's own is none.
    halves = [wrapped(logits[part], targets[part]).item() for part in (slice(0, 4), slice(4, 8))]
    assert np.mean(halves) == pytest.approx(wrapped(logits[:8], targets[:8]).item(), rel=1e-12)


def test_shares_of_classes_count_by_their_shares() -> None:
    logits, targets = batch()
    wrapped = penalised(cross_entropy, K, class_weights=[1, 0.5, 3, 0], confusions={"2->1": 4.0})
    assert wrapped(logits, one_hot(targets, K).double()).item() == pytest.approx(wrapped(logits, targets).item(), rel=1e-12)
    mixed = torch.tensor([[0.25, 0, 0.75, 0]], dtype=torch.float64)
    p = logits[:1].softmax(1)[0]
    count = (0.25 * 1 + 0.75 * 3) * (1 + 0.75 * 3 * p[1])
    assert wrapped(logits[:1], mixed).item() == pytest.approx((count * cross_entropy(logits[:1], mixed)).item(), rel=1e-12)


def test_the_gradient_is_that_of_the_number_that_is_returned() -> None:
    wrapped = penalised(cross_entropy, K, class_weights=[1, 0.5, 3, 2], confusions={"2->1": 4.0, "0->3": 0.5, "1->0": 7.0})
    logits, targets = batch()
    assert torch.autograd.gradcheck(lambda z: wrapped(z, targets), (logits,))


def test_a_change_holds_from_the_next_call_on() -> None:
    wrapped, (logits, targets) = penalised(cross_entropy, K), batch()
    label = int(targets[0])
    values = []
    for weight in (1.0, 5.0, 0.0, 1.0):
        penalties = penalties_of(wrapped)
        assert penalties is not None
        penalties.set(f"class_weight.{label}", weight)
        values.append(wrapped(logits[:1], targets[:1]).item())
    assert values == pytest.approx([values[0], 5 * values[0], 0.0, values[0]], rel=1e-12)


def test_half_precision_loses_nothing_of_the_weights_nor_of_what_files_have() -> None:
    wrapped, (logits, targets) = penalised(cross_entropy, K, class_weights=[1.1] * K).half(), batch()
    assert wrapped(logits, targets).item() == pytest.approx(1.1 * cross_entropy(logits, targets).item(), rel=1e-12)
    assert wrapped.state_dict()["_extra_state"]["class_weights"] == [1.1] * K


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda logits, targets: cross_entropy(logits, targets), r"gave \(\) for logits \(9, 4\); expected \(9,\), the loss of each input: return"),
        (lambda logits, targets: logits, r"gave \(9, 4\) for logits \(9, 4\)"),
    ],
)
def test_a_loss_that_is_not_of_each_input_is_refused_at_the_first_batch_with_the_way_out(loss: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        penalised(loss, K)(*batch())


def test_losses_that_would_divide_by_something_else_are_refused() -> None:
    for loss in (nn.CrossEntropyLoss(weight=torch.ones(K)), functools.partial(cross_entropy, weight=torch.ones(K))):
        with pytest.raises(ValueError, match=r"divides by their sum, and penalties by the number of inputs; give it class_weights"):
            penalised(loss, K)
    with pytest.raises(ValueError, match=r"reduction='batchmean' cannot be penalised; allowed are \['none', 'mean', 'sum'\]"):
        penalised(functools.partial(cross_entropy, reduction="batchmean"), K)
    with pytest.raises(ValueError, match=r"of 5 classes were given logits \(9, 4\); expected \(n, 5\)"):
        penalised(cross_entropy, 5, class_weights=[2.0] * 5)(*batch())


def test_the_users_loss_is_left_as_it_was() -> None:
    loss = nn.CrossEntropyLoss()
    penalised(loss, K, class_weights=[2.0] * K)(*batch())
    assert loss.reduction == "mean"


def test_a_copy_has_penalties_of_its_own() -> None:
    wrapped, (logits, targets) = penalised(cross_entropy, K, class_weights=[2.0] * K), batch()
    twin = copy.deepcopy(wrapped)
    twin.penalties.restore(np.ones(K), np.ones((K, K)))
    assert wrapped(logits, targets).item() == pytest.approx(2 * twin(logits, targets).item())


# ---- in a LightningModule -------------------------------------------------------------------------------------------


class Mine(Lit):
    """The loss as a user has it, after one changed line."""

    def __init__(self, **weights: Any) -> None:
        super().__init__()
        self.loss = penalised(cross_entropy, n_classes=3, **weights)

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        x, y = batch
        self.seen.update(x.numpy().tobytes())
        loss = self.loss(self(x), y)
        self.log("train_loss", loss, on_epoch=True)
        return loss


def seeded(kind: type[Lit], **weights: Any) -> Any:
    pl.seed_everything(0, verbose=False)
    return kind(**weights)


class At(pl.Callback):
    """Sets a penalty before a batch, as `netlapse.steer` does."""

    def __init__(self, batch: int, name: str, value: float) -> None:
        self.batch, self.name, self.value = batch, name, value

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: object, batch_index: int) -> None:
        if trainer.current_epoch * 6 + batch_index == self.batch:
            penalties = penalties_of(pl_module)
            assert penalties is not None
            penalties.set(self.name, self.value)


def test_a_training_with_neutral_penalties_is_the_same_bit_for_bit() -> None:
    without, with_ = fingerprint(*_plain(*train(module=seeded(Lit)))), fingerprint(*_plain(*train(module=seeded(Mine))))
    for name in ("weights", "optimizer", "metrics", "data", "random states", "gradients"):
        assert with_[name] == without[name]


def _plain(module: Lit, trainer: pl.Trainer) -> tuple[Lit, pl.Trainer]:
    """Without the state that a penalised loss adds."""
    plain = Lit()
    plain.load_state_dict({name: value for name, value in module.state_dict().items() if not name.endswith("_extra_state")})
    plain.seen = module.seen
    for own, theirs in zip(plain.parameters(), module.parameters()):
        own.grad = theirs.grad
    return plain, trainer


def test_what_is_set_in_between_changes_the_training_from_that_batch_on() -> None:
    plain, _ = train(module=seeded(Mine))
    early, _ = train([At(0, "class_weight.1", 3.0)], module=seeded(Mine))
    given, _ = train(module=seeded(Mine, class_weights=[1, 3, 1]))
    never, _ = train([At(99, "class_weight.1", 3.0)], module=seeded(Mine))
    late, _ = train([At(10, "class_weight.1", 3.0)], module=seeded(Mine))
    weights = [module.net.head.weight.detach().numpy().tobytes() for module in (plain, early, given, never, late)]
    assert weights[1] == weights[2]
    assert weights[0] == weights[3]
    assert len(set(weights)) == 3


def test_a_training_that_goes_on_has_the_penalties_that_were_set(tmp_path: Path) -> None:
    whole, _ = train([At(3, "penalise.2->1", 5.0)], module=seeded(Mine), epochs=4, workers=0)
    first, trainer = train([At(3, "penalise.2->1", 5.0)], module=seeded(Mine), epochs=2)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    again = Mine.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    assert again.loss.penalties.confusions[2, 1] == 5.0
    assert whole.loss.penalties.confusions.tolist() == again.loss.penalties.confusions.tolist()
    fresh = Mine()
    pl.Trainer(max_epochs=2, logger=False, enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False).fit(
        fresh, DataLoader(TensorDataset(torch.rand(8, 1, 8, 8), torch.zeros(8, dtype=torch.long)), 4), ckpt_path=tmp_path / "last.ckpt"
    )
    assert fresh.loss.penalties.confusions[2, 1] == 5.0
    logits, targets = torch.randn(6, 3), torch.arange(6) % 3
    assert fresh.loss(logits, targets).item() == first.loss(logits, targets).item() != cross_entropy(logits, targets).item()


def test_a_file_from_before_there_were_penalties_leaves_them_as_they_are() -> None:
    module = Mine(class_weights=[1, 2, 3])
    module.load_state_dict(Lit().state_dict())
    assert module.loss.penalties.class_weights.tolist() == [1, 2, 3]


# ---- right for the right reasons ------------------------------------------------------------------------------------


def smooth() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(3 * 9, 3)).double()


def test_right_reasons_are_the_definition_by_finite_differences() -> None:
    module, generator = smooth(), torch.Generator().manual_seed(1)
    inputs = torch.rand(3, 2, 5, 5, generator=generator, dtype=torch.float64)
    masks = torch.rand(3, 5, 5, generator=generator, dtype=torch.float64)
    found = right_reasons(module(inputs.requires_grad_()), inputs, masks)
    expected, step = np.zeros(3), 1e-6
    with torch.no_grad():
        for n, c, row, column in np.ndindex(3, 2, 5, 5):
            logs = []
            for sign in (1, -1):
                moved = inputs[n : n + 1].clone()
                moved[0, c, row, column] += sign * step
                logs.append(torch.log(module(moved).softmax(1)).sum().item())
            expected[n] += ((1 - masks[n, row, column].item()) * (logs[0] - logs[1]) / (2 * step)) ** 2
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-6)


def test_the_penaltys_gradient_by_the_weights_is_that_of_its_value() -> None:
    module, inputs = smooth(), torch.rand(2, 2, 5, 5, dtype=torch.float64)
    masks = (torch.arange(25).reshape(1, 5, 5) % 2).repeat(2, 1, 1)

    def penalty(weight: Tensor) -> Tensor:
        asked = inputs.clone().requires_grad_()
        hidden = torch.nn.functional.conv2d(asked, weight, module[0].bias)  # type: ignore[index, arg-type]
        return right_reasons(module[1:](hidden), asked, masks).mean()  # type: ignore[index]

    assert torch.autograd.gradcheck(penalty, (module[0].weight.detach().requires_grad_(),))  # type: ignore[index]


def test_a_mask_of_everything_penalises_nothing_and_none_the_whole_gradient() -> None:
    module, inputs = smooth(), torch.rand(2, 2, 5, 5, dtype=torch.float64).requires_grad_()
    logits = module(inputs)
    assert right_reasons(logits, inputs, torch.ones(2, 5, 5)).tolist() == [0, 0]
    (gradient,) = torch.autograd.grad(logits.log_softmax(1).sum(), inputs, retain_graph=True)
    np.testing.assert_allclose(right_reasons(logits, inputs, torch.zeros(2, 1, 5, 5)).detach(), gradient.square().sum((1, 2, 3)), rtol=1e-12)


def test_inputs_without_gradient_and_masks_of_other_inputs_are_refused() -> None:
    module, inputs = smooth(), torch.rand(2, 2, 5, 5, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"require no gradient; call inputs.requires_grad_\(\) before the module sees them"):
        right_reasons(module(inputs), inputs, torch.ones(2, 5, 5))
    inputs.requires_grad_()
    for masks in (torch.ones(3, 5, 5), torch.ones(2, 4, 5), torch.ones(1, 5, 5)):
        with pytest.raises(ValueError, match=r"was given masks \(.*\) for inputs \(2, 2, 5, 5\); expected one for each, of its size"):
            right_reasons(module(inputs), inputs, masks)


def test_penalised_is_found_however_deep() -> None:
    inner = Penalised(cross_entropy, Penalties(3))
    assert penalties_of(nn.Sequential(nn.Linear(2, 3), nn.ModuleDict({"deep": inner}))) is inner.penalties
    assert penalties_of(nn.Linear(2, 3)) is None
