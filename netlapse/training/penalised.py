"""Penalties in torch: a loss whose inputs count by their classes and confusions, and one for looking where the class is not."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from netlapse.penalties import Penalties

Loss = Callable[..., Tensor]

_REDUCED: Mapping[str, Callable[[Tensor], Tensor]] = {"none": lambda losses: losses, "mean": torch.mean, "sum": torch.sum}


def penalised(
    loss: Loss, n_classes: int, *, class_weights: Sequence[float] | None = None, confusions: Mapping[str, float] | None = None
) -> Penalised:
    """The loss, to be used as before, and as an attribute of a LightningModule: `self.loss = penalised(cross_entropy, n_classes=10)`.

    loss   (logits (n, k), targets) -> what `Penalised` says; the others are those of `netlapse.penalties.Penalties`

    Raises ValueError for what either of the two does.
    """
    return Penalised(loss, Penalties(n_classes, class_weights, confusions))


class Penalised(nn.Module):
    """A loss in which inputs count by `penalties`, whose changes hold from the next call on; checkpoints of the module have them.

    loss       of logits (n, k) and targets, classes (n,) or a share of each (n, k). One of torch's, a function or a module, or any that takes a
               `reduction`, is reduced as it would be alone; any other gives the loss of each input (n,), and so does this

    Where all penalties are 1, the loss is called and nothing else. A "mean" is over inputs, as Keras has it: torch's own `weight=` divides by
    the sum of weights, so that a class has no weight in a batch of its own, and a batch in parts is not the batch.
    A file of a training that had no penalties leaves them as they are.

    Raises ValueError for a loss with weights of its own that reduces by "mean".
    """

    def __init__(self, loss: Loss, penalties: Penalties) -> None:
        super().__init__()
        self.loss, self.penalties = loss, penalties
        self.each, self.reduction = _each(loss)
        self._made: tuple[object, Tensor, Tensor] | None = None

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """What the loss alone returns: one number, or (n,) where it is not reduced.

        Raises ValueError for a loss that gives anything but (n,) of its inputs, and for logits of another shape than (n, k).
        """
        if self.penalties.neutral and self.reduction is not None:
            return self.loss(logits, targets)
        losses = self.each(logits, targets)
        if losses.shape != logits.shape[:1]:
            raise ValueError(
                f"a loss that is penalised gave {tuple(losses.shape)} for logits {tuple(logits.shape)}; expected ({len(logits)},), the loss of each "
                "input: return it before its mean, or give the loss a parameter reduction='mean' and heed 'none'"
            )
        return _REDUCED[self.reduction or "none"](self.weigh(losses, logits, targets))

    def weigh(self, losses: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
        """(n,) the losses (n,) of inputs, each as often as it counts; for losses that are known already.

        Raises ValueError for logits of another shape than (n, k).
        """
        if self.penalties.neutral:
            return losses
        k = self.penalties.n_classes
        if logits.ndim != 2 or logits.shape[1] != k:
            raise ValueError(f"penalties of {k} classes were given logits {tuple(logits.shape)}; expected (n, {k})")
        weights, excess = self._tensors(losses)
        probabilities = logits.to(losses.dtype).softmax(dim=1)
        if targets.is_floating_point():
            weights, excess = targets.to(losses.dtype) @ weights, targets.to(losses.dtype) @ excess
        else:
            weights, excess = weights[targets], excess[targets]
        return losses * weights * (1 + (excess * probabilities).sum(dim=1))

    def _tensors(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """(k,) class weights and (k, k) what confusions count beyond 1; made once for each change."""
        key = (self.penalties.version, like.device, like.dtype)
        if self._made is None or self._made[0] != key:
            weights, excess = torch.from_numpy(self.penalties.class_weights), torch.from_numpy(self.penalties.confusions - 1)
            self._made = (key, weights.to(like), excess.to(like))
        return self._made[1], self._made[2]

    def get_extra_state(self) -> dict[str, Any]:
        # Not buffers: those would be rounded to a module's half precision, and one of torch's files may hold lists.
        return {"class_weights": self.penalties.class_weights.tolist(), "confusions": self.penalties.confusions.tolist()}

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        self.penalties.restore(**state)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        state_dict.setdefault(f"{prefix}_extra_state", self.get_extra_state())
        super()._load_from_state_dict(state_dict, prefix, *rest)  # type: ignore[no-untyped-call]


def _each(loss: Loss) -> tuple[Loss, str | None]:
    """What gives the loss of each input, and how the loss itself reduces them: "mean", "sum", "none", or None where it does not say."""
    if isinstance(loss, nn.Module):
        if not isinstance(reduction := getattr(loss, "reduction", None), str):
            return loss, None
        each: Loss = copy.copy(loss)
        each.reduction = "none"  # type: ignore[attr-defined]
        weight = getattr(loss, "weight", None)
    else:
        parameters = inspect.signature(loss).parameters
        if "reduction" not in parameters:
            return loss, None
        reduction = parameters["reduction"].default
        weight = parameters["weight"].default if "weight" in parameters else None

        def each(logits: Tensor, targets: Tensor) -> Tensor:
            return loss(logits, targets, reduction="none")

    if reduction not in _REDUCED:
        raise ValueError(f"a loss with reduction={reduction!r} cannot be penalised; allowed are {list(_REDUCED)}")
    if reduction == "mean" and weight is not None:
        raise ValueError("a loss with weights of its own divides by their sum, and penalties by the number of inputs; give it class_weights instead")
    return each, reduction


def right_reasons(logits: Tensor, inputs: Tensor, masks: Tensor) -> Tensor:
    """(n,) how much each input's prediction hangs on what lies outside its mask: Ross, Hughes and Doshi-Velez (2017), eq. 1, without its factor.

    The sum over an input's values of ((1 - mask) x derivative of the sum of log probabilities)^2. To be added to the loss:

        inputs = inputs.requires_grad_()
        logits = self(inputs)
        loss = self.loss(logits, targets) + weight * right_reasons(logits, inputs, masks).mean()

    logits   (n, k) of these inputs, in the same graph
    inputs   (n, ...) that require a gradient, channels-first where they are images
    masks    (n, h, w), or of the inputs' shape; from 0 to 1, 1 where it may look

    Raises ValueError for masks of another shape and for inputs that require no gradient.
    """
    if not inputs.requires_grad:
        raise ValueError("right_reasons was given inputs that require no gradient; call inputs.requires_grad_() before the module sees them")
    if inputs.ndim == 4 and masks.ndim == 3:
        masks = masks.unsqueeze(1)
    fits = masks.ndim == inputs.ndim and len(masks) == len(inputs) and all(own in (1, its) for own, its in zip(masks.shape[1:], inputs.shape[1:]))
    if not fits:
        raise ValueError(f"right_reasons was given masks {tuple(masks.shape)} for inputs {tuple(inputs.shape)}; expected one for each, of its size")
    (gradient,) = torch.autograd.grad(logits.log_softmax(dim=1).sum(), inputs, create_graph=True)
    return ((1 - masks.to(gradient)) * gradient).square().flatten(1).sum(dim=1)
