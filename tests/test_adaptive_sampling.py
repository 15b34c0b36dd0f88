"""Laws of drawing adaptively in Lightning: what the weights say is what is drawn, from the first epoch on, and again after going on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from netlapse.analysis.fairness import effective_sample_size, sampling_weights
from netlapse.analysis.fairness.sampling import last_hidden
from netlapse.backends.torch import TorchNetwork
from netlapse.callbacks import sampling
from netlapse.callbacks.lightning_sampling import AdaptiveSampler, AdaptiveSampling
from netlapse.types import Float64

N = 60


def data(seed: int = 0) -> TensorDataset:
    """Vectors of two classes, some of them far off, with their own number as a last value that no weight sees."""
    random = np.random.default_rng(seed)
    inputs = random.normal(size=(N, 5)).astype(np.float32)
    inputs[:4, 2] += 6
    return TensorDataset(torch.from_numpy(inputs), torch.arange(N) % 2, torch.arange(N))


class Pairs(TensorDataset):
    """The same without the numbers: (input, label)."""

    def __getitem__(self, index: int) -> Any:
        return super().__getitem__(index)[:2]


class Learner(pl.LightningModule):
    """Notes which inputs it was given in each epoch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Dropout(0.0), nn.Linear(8, 2))
        self.seen: dict[int, list[int]] = {}

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.net(x)
        return found

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        x, y, number = batch
        self.seen.setdefault(self.current_epoch, []).extend(number.tolist())
        return nn.functional.cross_entropy(self(x), y)

    def validation_step(self, batch: list[Tensor], index: int) -> None:
        self(batch[0])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)


class Watched(AdaptiveSampling):
    """Notes the weights that each epoch is drawn by, and the network's own."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self.began = self.sampler.weights.copy()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.used = getattr(self, "used", {})
        self.used[trainer.current_epoch] = self.sampler.weights.copy()


def fitted(
    epochs: int, *, workers: int = 0, more: Sequence[pl.Callback] = (), resume: Path | None = None, **options: Any
) -> tuple[Learner, Watched, pl.Trainer]:
    sampler = AdaptiveSampler(N, seed=3)
    callback = Watched(sampler, Pairs(*data().tensors), **options)
    loader = DataLoader(data(), 10, sampler=sampler, num_workers=workers, persistent_workers=bool(workers))
    learner = Learner()
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = pl.Trainer(max_epochs=epochs, callbacks=[callback, *more], enable_checkpointing=False, **quiet)
    torch.manual_seed(1)
    trainer.fit(learner, loader, DataLoader(Pairs(*data().tensors), N), ckpt_path=resume)
    return learner, callback, trainer


def drawn(weights: Float64, epoch: int, processes: int = 1) -> list[int]:
    total = -(-N // processes) * processes
    found: list[int] = sampling.drawn(weights, total, seed=3, epoch=epoch).tolist()
    return found


@pytest.mark.parametrize("workers", [0, 2])
def test_every_epoch_is_drawn_by_weights_of_the_network_as_it_stands_before_it(workers: int) -> None:
    learner, callback, _ = fitted(3, workers=workers)
    for epoch in range(3):
        assert learner.seen[epoch] == drawn(callback.used[epoch], epoch)
    features = TorchNetwork(Learner().net).responses(data().tensors[0].numpy(), ["1"]).mean["1"]
    np.testing.assert_allclose(callback.used[0], sampling_weights(features, np.arange(N) % 2), rtol=1e-6)
    trained = TorchNetwork(learner.net).responses(data().tensors[0].numpy(), ["1"]).mean["1"]
    np.testing.assert_allclose(callback.sampler.weights, sampling_weights(trained, np.arange(N) % 2), rtol=1e-6)
    assert np.abs(callback.used[2] - callback.used[0]).max() > 1e-4


def test_the_options_are_those_of_the_weights() -> None:
    _, callback, _ = fitted(1, rule="product", bins=4, alpha=0.5)
    features = TorchNetwork(Learner().net).responses(data().tensors[0].numpy(), ["1"]).mean["1"]
    expected = sampling_weights(features, np.arange(N) % 2, rule="product", bins=4, alpha=0.5)
    np.testing.assert_allclose(callback.used[0], expected, rtol=1e-6)


def test_processes_share_one_draw() -> None:
    weights = np.random.default_rng(0).random(N)
    parts = []
    for rank in range(7):
        sampler = AdaptiveSampler(N, seed=3, num_replicas=7, rank=rank)
        sampler.weights = weights
        sampler.set_epoch(4)
        parts.append(list(sampler))
        assert len(sampler) == len(parts[-1]) == 9
    assert [parts[i % 7][i // 7] for i in range(63)] == drawn(weights, 4, 7)


def test_draws_follow_the_weights_and_differ_from_epoch_to_epoch() -> None:
    sampler = AdaptiveSampler(4, seed=0)
    sampler.weights = np.array([0.0, 0.2, 0.3, 0.5])
    counts = np.zeros(4)
    for epoch in range(3000):
        sampler.set_epoch(epoch)
        counts += np.bincount(list(sampler), minlength=4)
    # 12,000 draws: four standard deviations are 0.018.
    np.testing.assert_allclose(counts / counts.sum(), sampler.weights, atol=0.018)
    assert counts[0] == 0


class Saves(pl.Callback):
    """A checkpoint at a hook of an epoch."""

    def __init__(self, path: Path, hook: str, epoch: int) -> None:
        def save(trainer: pl.Trainer, *args: object) -> None:
            if trainer.current_epoch == epoch and not trainer.sanity_checking and (hook != "on_train_batch_end" or args[-1] == 3):
                trainer.save_checkpoint(path)

        setattr(self, hook, save)


@pytest.mark.parametrize("hook", ["on_train_epoch_end", "on_validation_end", "on_train_batch_end", "on_fit_end"])
def test_a_training_that_goes_on_draws_by_the_weights_it_would_have(hook: str, tmp_path: Path) -> None:
    """Whenever in the second of four epochs it was saved; where that was between epochs, it sees the same inputs too."""
    path = tmp_path / "half.ckpt"
    whole, callback, _ = fitted(4)
    saves = Saves(path, hook, 2 if hook == "on_fit_end" else 1)
    fitted(2, more=[saves])
    on, again, _ = fitted(4, resume=path)
    if hook == "on_train_batch_end":  # what is left of the epoch goes by the weights it began with
        np.testing.assert_array_equal(again.began, callback.used[1])
        return
    for epoch in (2, 3):
        np.testing.assert_array_equal(again.used[epoch], callback.used[epoch])
        assert on.seen[epoch] == whole.seen[epoch]


def test_weights_may_be_refreshed_more_rarely() -> None:
    _, callback, _ = fitted(4, every_n_epochs=2)
    np.testing.assert_array_equal(callback.used[1], callback.used[0])
    np.testing.assert_array_equal(callback.used[3], callback.used[2])
    assert np.abs(callback.used[2] - callback.used[0]).max() > 1e-4


def test_what_is_logged_is_of_the_weights_that_were_drawn_by() -> None:
    kind = np.where(np.arange(N) < 4, "rare", "common")
    _, callback, trainer = fitted(2, groups={"kind": kind})
    weights = callback.used[1]
    assert float(trainer.callback_metrics["sampling/ess"]) == pytest.approx(effective_sample_size(weights) / N, rel=1e-5)
    assert float(trainer.callback_metrics["sampling/largest"]) == pytest.approx(weights.max() * N, rel=1e-5)
    assert float(trainer.callback_metrics["sampling/share/kind/rare"]) == pytest.approx(weights[:4].sum(), rel=1e-5)
    assert weights[:4].sum() > 1.5 * 4 / N


def test_a_draw_that_few_inputs_take_is_said(caplog: pytest.LogCaptureFixture) -> None:
    fitted(1, rule="product", alpha=0.0, least_ess=0.9)
    assert "the sampling weights for epoch 0 are as good as a draw from" in caplog.text
    assert "target_ess=0.5" in caplog.text


def test_refreshing_leaves_the_network_and_the_random_states_as_they_were() -> None:
    sampler = AdaptiveSampler(N)
    callback = AdaptiveSampling(sampler, Pairs(*data().tensors))  # whose loader draws a seed of its own
    learner = Learner().train()
    trainer = pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    state, other = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    callback.on_fit_start(trainer, learner)
    assert all(torch.equal(before[name], value) for name, value in learner.state_dict().items())
    assert all(module.training for module in learner.modules())
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(np.random.get_state()[1], other)  # noqa: NPY002
    assert np.ptp(sampler.weights) > 0


def test_data_may_be_tensors_arrays_or_a_data_set() -> None:
    x, y, _ = data().tensors
    found = []
    for given in ((x, y), (x.numpy(), y.numpy()), Pairs(x, y, y)):
        sampler = AdaptiveSampler(N)
        trainer = pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
        AdaptiveSampling(sampler, given, batch_size=7).on_fit_start(trainer, Learner())
        found.append(sampler.weights)
    np.testing.assert_array_equal(found[1], found[0])
    np.testing.assert_array_equal(found[2], found[0])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_images_lie_in_memory_as_the_training_has_them(channels: int, memory_format: torch.memory_format) -> None:
    """Pooling of the one takes several times as long as of the other."""
    images = torch.empty(N, channels, 4, 5, memory_format=memory_format).normal_(generator=torch.Generator().manual_seed(0))
    strides = []

    class Looking(Learner):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Conv2d(channels, 3, 3), nn.Flatten(), nn.Linear(18, 2))
            self.register_forward_pre_hook(lambda _, args: strides.append(args[0].stride()))

    trainer = pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", devices=1)
    callback = AdaptiveSampling(AdaptiveSampler(N), (images, torch.arange(N) % 2), layer="net.1")
    learner = Looking()
    callback.on_fit_start(trainer, learner)
    assert set(strides) == {images.stride()}
    features = learner.net[:2](images).detach().numpy()
    np.testing.assert_allclose(callback.sampler.weights, sampling_weights(features, np.arange(N) % 2), rtol=1e-4)


def test_the_last_hidden_layer_is_what_the_output_is_made_from() -> None:
    network = TorchNetwork(nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 2)))
    assert last_hidden(network, np.zeros((3, 5), np.float32)) == "3"
    with pytest.raises(ValueError, match=r"no hidden layer to take features from, only \['0'\]; name a layer"):
        last_hidden(TorchNetwork(nn.Sequential(nn.Linear(5, 2))), np.zeros((3, 5), np.float32))


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter([])


def test_what_cannot_be_is_refused() -> None:
    sampler = AdaptiveSampler(N)
    with pytest.raises(TypeError, match=r"Stream, which has no length.*weigh the loss"):
        AdaptiveSampling(sampler, Stream())
    with pytest.raises(ValueError, match="draws from 60 inputs; its data have 59"):
        AdaptiveSampling(sampler, (np.zeros((59, 5), np.float32), np.zeros(59, int)))
    with pytest.raises(ValueError, match=r"groups of other lengths: \{'kind': 3\}"):
        AdaptiveSampling(sampler, Pairs(*data().tensors), groups={"kind": np.array(["a", "b", "c"])})
    with pytest.raises(ValueError, match="n=0"):
        AdaptiveSampler(0)
    learner = Learner()
    trainer = pl.Trainer(max_epochs=1, logger=False, enable_progress_bar=False, enable_checkpointing=False, accelerator="cpu",
                         callbacks=[AdaptiveSampling(sampler, Pairs(*data().tensors))])  # fmt: skip
    with pytest.raises(ValueError, match=r"draws by a RandomSampler.*DataLoader\(data, sampler=sampler\)"):
        trainer.fit(learner, DataLoader(data(), 10, shuffle=True))
    assert not learner.seen
    with pytest.raises(ValueError, match="of 60 inputs, and the sampler draws from 5"):
        AdaptiveSampling(AdaptiveSampler(5), (np.zeros((5, 5), np.float32), np.zeros(5, int))).load_state_dict(
            AdaptiveSampling(sampler, Pairs(*data().tensors)).state_dict()
        )
