"""Laws of the penalties that a training is begun with, in Lightning: what is chosen is what is trained with, and without a choice nothing changes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from netlapse.analysis.saliency import gradient, mass_inside
from netlapse.backends.torch import TorchNetwork
from netlapse.data import digits as bundled_digits
from netlapse.data.dataset import Dataset
from netlapse.models.torch import cnn
from netlapse.penalties import penalties_of
from netlapse.training.lightning import Classifier, fit, seed_everything
from netlapse.training.penalty import Penalty, balanced
from netlapse.training.penalty import right_reasons as right_reasons_of
from netlapse.training.remedies import GroupDRO
from netlapse.types import Float32, Int64, ProbeSet

N = 60


def data(n: int = N) -> Dataset:
    """Images of three classes by which pixel of the first row is bright, one in twelve of the last class."""
    random = np.random.default_rng(0)
    labels = np.where(np.arange(n) % 12 == 0, 2, np.arange(n) % 2)
    images = random.uniform(0, 0.6, (n, 4, 4, 1)).astype(np.float32)
    images[np.arange(n), 0, labels] += 0.3
    ids = np.char.add("picture ", np.arange(2 * n).astype(str))
    kind = {"kind": np.where(np.arange(n) % 3 == 0, "rare", "common")}
    return Dataset("bright", images, labels, images, labels, ("a", "b", "c"), kind, kind, ids[:n], ids[n:])


def network() -> nn.Module:
    seed_everything(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 3))


def trained(penalty: Penalty | None, epochs: int = 2, **options: Any) -> tuple[nn.Module, pl.Trainer, list[Mapping[str, float]]]:
    told: list[Mapping[str, float]] = []
    module = network()
    metrics = lambda values, step: told.append(values)  # noqa: E731
    trainer = fit(module, data(), penalty=penalty, max_epochs=epochs, batch_size=16, progress=False, learning_rate=1e-2, metrics=metrics, **options)
    return module, trainer, told


def weights_of(module: nn.Module) -> bytes:
    return b"".join(value.detach().numpy().tobytes() for value in module.state_dict().values())


class Hand(pl.LightningModule):
    """The training that `fit` runs, written out without anything of netlapse's, with another loss."""

    def __init__(self, module: nn.Module, loss: Any) -> None:
        super().__init__()
        self.network, self.loss = module, loss

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        result: Tensor = self.loss(self.network, *batch)
        return result

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        """To iterate a loader draws from torch's random state."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-2, weight_decay=0.0)


def by_hand(loss: Any, epochs: int = 2, *more: Tensor) -> bytes:
    module = network()
    seed_everything(0)
    tensors = [torch.from_numpy(np.moveaxis(data().train_inputs, -1, 1).copy()), torch.from_numpy(data().train_labels), *more]
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*tensors), 16, shuffle=True, generator=torch.Generator().manual_seed(0))
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "num_sanity_val_steps": 0}
    pl.Trainer(max_epochs=epochs, **quiet).fit(Hand(module, loss), loader, torch.utils.data.DataLoader(tensors[1], 256))
    return weights_of(module)


def test_without_a_penalty_the_training_is_the_plain_one_bit_for_bit_and_carries_what_can_be_set() -> None:
    plain = by_hand(lambda net, x, y: cross_entropy(net(x), y, reduction="none").mean())
    for penalty in (None, Penalty(), Penalty([1, 1, 1], ["0->1=1.0"])):
        module, trainer, _ = trained(penalty)
        assert weights_of(module) == plain
        penalties = penalties_of(trainer.lightning_module)
        assert penalties is not None
        assert penalties.neutral
        assert penalties.n_classes == 3


def test_class_weights_and_confusions_train_as_their_definition_written_out() -> None:
    def loss(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        logits = net(x)
        weights, cost = torch.tensor([1.0, 1.0, 4.0])[y], torch.ones(len(y))
        cost = torch.where(y == 2, 1 + (3.0 - 1) * logits.softmax(1)[:, 0], cost)
        return (cross_entropy(logits, y, reduction="none") * weights * cost).sum() / len(y)

    module, _, told = trained(Penalty({2: 4.0}, {"2->0": 3.0}))
    own = torch.cat([value.flatten() for value in module.state_dict().values()]).numpy()
    expected = np.frombuffer(by_hand(loss), np.float32)
    np.testing.assert_allclose(own, expected, atol=1e-5)
    assert weights_of(trained(Penalty([1, 1, 4], ["2->0=3.0"]))[0]) == weights_of(module) != weights_of(trained(None)[0])
    assert "train_right_reasons" not in told[0]


def test_balanced_weights_give_all_classes_the_same_sum() -> None:
    weights = balanced(data().train_labels, data().class_names)
    sizes = np.bincount(data().train_labels)
    np.testing.assert_allclose(weights * sizes, N / 3)
    assert (weights[data().train_labels]).mean() == pytest.approx(1)
    np.testing.assert_array_equal(Penalty("balanced").penalties(data()).class_weights, weights)
    with pytest.raises(ValueError, match=r"divides by the sizes of classes, and \['b'\] have no training input"):
        balanced(np.array([0, 0, 2]), ["a", "b", "c"])


def first_row(inputs: ProbeSet) -> Float32:
    masks = np.zeros(inputs.inputs.shape[:3], np.float32)
    masks[:, 0] = 1
    return masks


def test_right_reasons_train_as_their_definition_written_out_and_tell_their_number() -> None:
    def loss(net: nn.Module, x: Tensor, y: Tensor, masks: Tensor) -> Tensor:
        asked = x.clone().requires_grad_()
        logits = net(asked)
        (gradient,) = torch.autograd.grad(torch.log_softmax(logits, 1).sum(), asked, create_graph=True)
        outside = ((1 - masks[:, None]) * gradient) ** 2
        return cross_entropy(logits, y) + 0.3 * outside.sum() / len(y)

    masks = torch.zeros(N, 4, 4)
    masks[:, 0] = 1
    module, trainer, told = trained(Penalty(masks=first_row, weight=0.3))
    own = torch.cat([value.flatten() for value in module.state_dict().values()]).numpy()
    np.testing.assert_allclose(own, np.frombuffer(by_hand(loss, 2, masks), np.float32), atol=1e-5)
    assert told[-1]["train_right_reasons"] > 0
    assert "val_right_reasons" not in told[-1]
    assert penalties_of(trainer.lightning_module) is not None


def test_masks_are_asked_for_the_training_inputs_by_their_ids() -> None:
    seen = []

    def masks(inputs: ProbeSet) -> Float32:
        seen.append(inputs)
        return first_row(inputs)

    found = Penalty(masks=masks).masks_of(data())
    assert seen[0].ids.tolist() == [f"picture {i}" for i in range(N)]
    np.testing.assert_array_equal(seen[0].inputs, data().train_inputs)
    np.testing.assert_array_equal(found, first_row(seen[0]))
    assert Penalty().masks_of(data()) is None


def test_what_cannot_be_says_why() -> None:
    wrong: list[tuple[Any, str]] = [
        (lambda: Penalty("even").penalties(data()), r"class_weights is 'even'; expected 'balanced', a number for each class, or class -> number"),
        (lambda: Penalty({7: 2.0}).penalties(data()), r"'class_weight.7' names class 7; allowed are 0 to 2"),
        (lambda: Penalty(confusions=["0->1"]).penalties(data()), r"holds '0->1'; expected such as '3->5=2.0'"),
        (lambda: Penalty(weight=0), r"penalty.weight is 0; expected a finite number above 0, or penalty=none"),
        (lambda: right_reasons_of(None), r"needs masks of the training inputs: add masks=boxes, masks=file or masks=folder"),
        (lambda: Penalty(masks=lambda inputs: np.ones((2, 4, 4))).masks_of(data()), r"gave \(2, 4, 4\); expected \(60, 4, 4\)"),
        (lambda: Penalty(masks=lambda inputs: 2 * first_row(inputs)).masks_of(data()), r"from 0 \(outside\) to 1 \(inside\)"),
        (lambda: trained(Penalty(), remedy=GroupDRO("kind")), r"remedy=group_dro weighs losses by their groups.*expected one of the two"),
    ]
    for made, message in wrong:
        with pytest.raises(ValueError, match=message):
            made()
    vectors = Dataset("v", np.ones((4, 3), np.float32), np.arange(4) % 2, np.ones((2, 3), np.float32), np.arange(2), ("a", "b"))
    with pytest.raises(ValueError, match=r"are of images \(n, h, w, c\); inputs of v have shape \(3,\)"):
        Penalty(masks=first_row).masks_of(vectors)


def marked() -> tuple[Dataset, Float32]:
    """Real digits beside which a mark says what they are, and in the test images anything; and the mask of the digit alone."""
    digits, random = bundled_digits(), np.random.default_rng(0)

    def beside(images: Float32, said: Int64) -> Float32:
        wide = np.zeros((len(images), 8, 10, 1), np.float32)
        wide[:, :, :8] = images
        wide[np.arange(len(images)), np.minimum(said, 7), 8 + (said >= 8)] = 1
        return wide

    train = beside(digits.train_inputs, digits.train_labels)
    test = beside(digits.test_inputs, random.integers(0, 10, len(digits.test_labels)))
    mask = np.zeros((8, 10), np.float32)
    mask[:, :8] = 1
    return Dataset("marked digits", train, digits.train_labels, test, digits.test_labels, digits.class_names), mask


def test_a_network_that_may_not_look_at_a_mark_looks_at_the_digit_and_is_right_where_the_mark_lies() -> None:
    shown, mask = marked()
    accuracy, outside = [], []
    for penalty in (None, Penalty(masks=lambda inputs: np.tile(mask, (len(inputs), 1, 1)))):
        seed_everything(0)
        module = cnn((8, 10, 1), 10, channels=(8, 16), hidden=32)
        fit(module, shown, penalty=penalty, max_epochs=4, progress=False, learning_rate=3e-3)
        asked = TorchNetwork(module.eval())
        accuracy.append((asked.outputs(shown.test_inputs).argmax(axis=1) == shown.test_labels).mean())
        maps = gradient(asked, shown.test_inputs, shown.test_labels)
        outside.append(1 - mass_inside(maps, np.tile(mask, (len(maps), 1, 1))).mean())
    assert accuracy[0] < 0.6 < 0.85 < accuracy[1]
    assert outside[1] < outside[0] / 3


def test_the_lines_of_the_docs_run_in_ones_own_module() -> None:
    import netlapse.training.penalised as ours

    page = (Path(__file__).parents[1] / "docs" / "penalties.md").read_text()
    blocks = [block for block in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL) if "model" not in block]
    module, x, y = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(16, 10))), torch.rand(6, 1, 4, 4), torch.arange(6)
    names = {"self": module, "x": x, "y": y, "inputs": x, "targets": y, "masks": torch.zeros(6, 4, 4), "torch": torch}
    names |= {"penalised": ours.penalised, "right_reasons": ours.right_reasons, "penalties_of": penalties_of}
    assert len(blocks) == 2
    for block in blocks:
        exec(block, names)
    found = penalties_of(module)
    assert found is not None
    assert found.confusions[3, 5] == 2
    assert names["loss"].requires_grad
