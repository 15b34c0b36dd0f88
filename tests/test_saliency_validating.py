"""Laws of asking in the middle of Lightning's validations, in inference mode and between accumulated gradients: nothing is disturbed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from netlapse.analysis import saliency
from netlapse.analysis.receptive_field import receptive_field
from netlapse.analysis.sanity import sanity
from netlapse.backends.torch import TorchNetwork
from netlapse.backends.torchcam import METHODS, torchcam
from netlapse.types import Array, Findings, ProbeSet, Snapshot
from tests.test_torch_sanity import everything
from tests.test_torchcam import Transformer
from tests.training import Digits, Lit, fingerprint, train

PROBE = ProbeSet(np.random.default_rng(3).random((4, 8, 8, 1), np.float32), np.array([0, 1, 2, 1]))
CHECKED: dict[str, Any] = {"methods": [saliency.gradient, saliency.fullgrad], "panel": 3, "stages": 2, "repeats": 1}


class Fragile(nn.Module):
    """Passes its input on, draws random numbers, counts in a buffer; and fails where it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.fails = ""

    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(1)
        torch.rand(1)
        if self.fails == "forward":
            raise ArithmeticError("in the middle of the forward")
        if self.fails == "backward" and x.requires_grad:
            x = x.clone()
            x.register_hook(self._broken)
        return x

    @staticmethod
    def _broken(gradient: Tensor) -> Tensor:
        raise ArithmeticError("in the middle of the backward")


class Pooled(nn.Module):
    """What all methods for CNNs apply to, with a batch norm that is frozen, dropout, and operations in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1, self.relu1 = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True)
        self.conv2, self.norm2, self.relu2 = nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5), nn.ReLU(inplace=True)
        self.drop, self.quiet = nn.Dropout2d(0.5), nn.Dropout(0.5)
        self.pool, self.flat, self.fragile, self.head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), Fragile(), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu1(self.norm1(self.conv1(x)))
        x = self.drop(self.relu2(self.norm2(self.conv2(x))))
        logits: Tensor = self.head(self.fragile(self.flat(self.pool(x))))
        return logits


class Attending(Transformer):
    """The transformer that LeGrad asks for, on digits."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Conv2d(1, 8, 2, stride=2), nn.Linear(8, 3)
        self.fragile, self.norm1, self.quiet = Fragile(), nn.BatchNorm2d(8), nn.Dropout(0.5)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.score(self.blocks(self.norm1(self.embed(inputs)).flatten(2).transpose(1, 2)))

    def score(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.head(self.fragile(tokens.mean(dim=1)))
        return logits


def lit(net: Callable[[], nn.Module]) -> Lit:
    pl.seed_everything(0, verbose=False)
    module = Lit()
    module.net = net()  # type: ignore[assignment]
    return module


Ask = Callable[[TorchNetwork], Array | Findings]


def by(method: saliency.Method, **options: object) -> Ask:
    return lambda network: method(network, PROBE.inputs, PROBE.labels, **options)


CAMS: dict[str, dict[str, Any]] = {name: {} for name in METHODS if name != "LeGrad"}
CAMS |= {"RefineCAM": {"layer": ["net.relu1", "net.relu2"]}, "SSCAM": {"num_samples": 2}, "ISCAM": {"num_samples": 2}}
ON_PIXELS: dict[str, Ask] = {
    "gradient": by(saliency.gradient),
    "gradient_times_input": by(saliency.gradient_times_input),
    "smooth_gradient": by(saliency.smooth_gradient, samples=2),
    "integrated_gradients": by(saliency.integrated_gradients, steps=2),
    "grad_cam": by(saliency.grad_cam),
    "fullgrad": by(saliency.fullgrad),
    "simple_fullgrad": by(saliency.simple_fullgrad),
    "smooth_fullgrad": by(saliency.smooth_fullgrad, samples=2),
    "occlusion": by(saliency.occlusion),
    "all of one pass": lambda network: saliency.saliency(Snapshot(network, PROBE, 0), None, methods=[saliency.gradient, saliency.fullgrad]),
    "sanity": lambda network: sanity(Snapshot(network, PROBE, 0), None, **CHECKED),
    "receptive_field": lambda network: receptive_field(Snapshot(network, PROBE, 0), None, k=2, limit_units=2),
    **{f"torchcam {name}": by(torchcam(name, **options)) for name, options in CAMS.items()},
}
ON_TOKENS: dict[str, Ask] = {
    "torchcam LeGrad": by(
        torchcam("LeGrad", layer=["net.blocks.0", "net.blocks.1"], prefix_tokens=0, score_projection=lambda module, tokens: module.net.score(tokens))
    ),
    "gradient": by(saliency.gradient),
    "occlusion": by(saliency.occlusion),
}
NETWORKS = pytest.mark.parametrize(("net", "questions"), [(Pooled, ON_PIXELS), (Attending, ON_TOKENS)], ids=["pixels", "tokens"])


class Asking(pl.Callback):
    """Asks everything after the first batch of each validation, and looks what that changed; `fails` says where in a pass an error is raised."""

    def __init__(self, questions: dict[str, Ask], fails: str = "") -> None:
        self.questions, self.fails = questions, fails
        self.answers: dict[str, Array | Findings] = {}
        self.failed: set[str] = set()
        self.half_way: list[bool] = []

    def on_validation_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: int) -> None:
        if batch_idx:
            return
        assert not torch.is_grad_enabled()
        assert torch.is_inference_mode_enabled() == (trainer.state.fn == "validate")  # a validation within a training only switches gradients off
        fragile = pl_module.get_submodule("net.fragile")
        self.half_way.append(any(p.grad is not None for p in pl_module.parameters()))
        known = TorchNetwork(pl_module)
        known.describe(PROBE.inputs)
        for name, ask in self.questions.items():
            for network in (known, TorchNetwork(pl_module)):
                before = everything(pl_module)
                fragile.fails = self.fails  # type: ignore[assignment]
                try:
                    self.answers[name] = ask(network)
                except ArithmeticError:
                    self.failed.add(name)
                finally:
                    fragile.fails = ""  # type: ignore[assignment]
                after = everything(pl_module)
                assert {key for key in before if before[key] != after[key]} == set(), name
                assert torch.overrides._get_current_function_mode() is None


def equal(one: Array | Findings, other: Array | Findings) -> None:
    if isinstance(one, Findings) and isinstance(other, Findings):
        assert one.arrays.keys() == other.arrays.keys()
        for name, values in one.arrays.items():
            np.testing.assert_array_equal(values, other.arrays[name], err_msg=name)
    else:
        np.testing.assert_array_equal(one, other)  # type: ignore[arg-type]


@NETWORKS
def test_validate_is_not_disturbed_and_answers_are_those_outside_inference_mode(net: type[nn.Module], questions: dict[str, Ask]) -> None:
    module, asking = lit(net), Asking(questions)
    module.net.norm1.running_mean.normal_()  # type: ignore[union-attr, operator]
    trainer = pl.Trainer(logger=False, enable_progress_bar=False, callbacks=[asking], enable_checkpointing=False, enable_model_summary=False)
    trainer.validate(module, DataLoader(Digits(12), 6), verbose=False)
    assert asking.answers.keys() == questions.keys()
    for name, ask in questions.items():
        equal(asking.answers[name], ask(TorchNetwork(module)))
    module.train()(torch.rand(4, 1, 8, 8)).sum().backward()  # no inference tensor stays in it


@NETWORKS
@pytest.mark.parametrize("fails", ["", "forward", "backward"])
def test_a_training_that_is_asked_in_the_middle_of_its_validations_is_bit_for_bit_what_it_is(
    net: type[nn.Module], questions: dict[str, Ask], fails: str
) -> None:
    asking = Asking(questions, fails)
    # After three of six batches, with gradients of every second one kept for the next.
    alone = fingerprint(*train(module=lit(net), epochs=1, val_check_interval=3))
    assert fingerprint(*train([asking], module=lit(net), epochs=1, val_check_interval=3)) == alone
    assert asking.half_way == [True, False]
    without_gradient = {"occlusion", "receptive_field", *(f"torchcam {name}" for name in ("CAM", "ScoreCAM", "SSCAM", "ISCAM"))}
    assert asking.failed == {"": set(), "forward": set(questions), "backward": set(questions) - without_gradient}[fails]


def test_asking_carelessly_in_a_validation_is_noticed() -> None:
    careless: dict[str, Ask] = {"careless": lambda network: network.module(torch.rand(2, 1, 8, 8)).numpy()}
    with pytest.raises(AssertionError, match="careless"):
        train([Asking(careless)], module=lit(Pooled), epochs=1)
