"""What may be changed of a training so that it serves small groups too, said once for both frameworks.

A remedy changes which inputs are drawn, or what each counts in the loss. The trainings carry it out; what it computes is here, of arrays.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from netlapse.analysis.fairness.grouping import Of, named_groups
from netlapse.analysis.fairness.sampling import Rule
from netlapse.data.dataset import Dataset
from netlapse.types import Float32, Float64, Int64

log = logging.getLogger(__name__)

Bools = NDArray[np.bool_]
Strings = NDArray[np.str_]

MOST_GROUPS = 40
"""Of an attribute whose groups' shares of the draw are told."""


@dataclass(frozen=True)
class Adaptive:
    """What the network's own features say is rare is drawn more: no group is asked for (Amini et al., 2019).

    The arguments are those of `netlapse.callbacks.lightning_sampling.AdaptiveSampling`.
    """

    layer: str | None = None
    rule: Rule = "max"
    bins: int = 10
    alpha: float = 1e-3
    target_ess: float | None = None
    every_n_epochs: int = 1
    least_ess: float = 0.1


@dataclass(frozen=True)
class _ByGroup:
    """A remedy that is told the groups.

    attribute   of the training inputs
    of          what a group is: "label_and_attribute", a value within a class, or "attribute", a value; see `netlapse.analysis.fairness.grouping`
    """

    attribute: str
    of: Of = "label_and_attribute"

    def __post_init__(self) -> None:
        if self.of not in get_args(Of):
            raise ValueError(f"remedy.of is {self.of!r}; allowed are {get_args(Of)}")


@dataclass(frozen=True)
class GroupBalanced(_ByGroup):
    """Every group has the same share of the draw."""


@dataclass(frozen=True)
class GroupDRO(_ByGroup):
    """The loss of the worst group counts most: group distributionally robust optimisation (Sagawa et al., 2020, algorithm 1).

    step_size   of the exponentiated gradient; the published program's default
    """

    step_size: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.step_size > 0:
            raise ValueError(f"remedy.step_size is {self.step_size}; expected a number above 0")


@dataclass(frozen=True)
class JTT:
    """Just train twice: what a first, short training has wrong is drawn more in the second; no group is asked for (Liu et al., 2021).

    epochs    of the first training
    upweight  how many times as often its errors are drawn as the others. In the paper an epoch has them so many times; here it has as many
              inputs as without a remedy
    """

    epochs: int = 3
    upweight: float = 10.0

    def __post_init__(self) -> None:
        if self.epochs < 1 or not self.upweight >= 1:
            raise ValueError(f"remedy.epochs is {self.epochs} and remedy.upweight {self.upweight}; expected numbers of at least 1")


Remedy = Adaptive | GroupBalanced | GroupDRO | JTT


def groups_of(data: Dataset, attribute: str, of: Of) -> tuple[Int64, list[str]]:
    """(n,) the group of each training input, and the groups' names; only groups that have inputs.

    Raises ValueError for an attribute that the data have not got, and for inputs without a value of it. A group of one input, of which
    nothing general can be learnt however often it is drawn, is warned of.
    """
    if attribute not in data.train_attributes:
        raise ValueError(f"the remedy goes by attribute {attribute!r} of the training inputs; {data.name} has {sorted(data.train_attributes)}")
    values = data.train_attributes[attribute]
    groups, names = named_groups(values, data.train_labels, data.class_names, of)
    missing = np.flatnonzero(groups < 0)
    if len(missing):
        raise ValueError(
            f"the remedy goes by attribute {attribute!r}, which {len(missing)} of {len(values)} training inputs of {data.name} have no value of, "
            f"first input {missing[0]}: give them one, such as 'unknown', or leave them out"
        )
    sizes = np.bincount(groups)
    if (sizes == 1).any():
        alone = [name for name, size in zip(names, sizes) if size == 1]
        log.warning(
            "netlapse: %d of the %d groups that the remedy goes by have one training input, first %s: its weight goes to that input alone",
            len(alone), len(names), alone[:5],
        )  # fmt: skip
    return groups, names


def told_groups(data: Dataset) -> dict[str, Strings]:
    """The attributes of the training inputs whose groups' shares of the draw are worth a number each: those of a few values."""
    return {name: values for name, values in data.train_attributes.items() if len(np.unique(values)) <= MOST_GROUPS}


def group_balanced_weights(groups: Int64) -> Float64:
    """(n,) the probability of each input, summing to 1, where all groups (n,) that occur have the same share and so have all inputs within one."""
    _, numbers, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    return np.asarray(1 / (len(sizes) * sizes[numbers]), np.float64)


def errors(logits: Float32, labels: Int64) -> Bools:
    """(n,) whether the largest of the logits (n, k) that JTT's first training gives is another's than the label's (n,); warns where none is.

    Raises ValueError for logits that are not finite.
    """
    if not np.isfinite(logits).all():
        raise ValueError("the first training of JTT diverged: it gives logits that are not finite; lower trainer.learning_rate")
    wrong: Bools = logits.argmax(axis=1) != labels
    if not wrong.any():
        log.warning("netlapse: the first training of JTT has nothing wrong, and the second draws all inputs alike; give it fewer remedy.epochs")
    return wrong


def upweighted(wrong: Bools, upweight: float) -> Float64:
    """(n,) the probability of each input, summing to 1, where those that are wrong (n,) have `upweight` times that of the others."""
    weights = np.where(wrong, float(upweight), 1.0)
    return np.asarray(weights / weights.sum(), np.float64)


def group_dro_weights(weights: Float64, sums: Float64, sizes: Float64, step_size: float) -> Float64:
    """(g,) the groups' next weights, summing to 1: each multiplied by exp(step_size x its mean loss in the batch) (Sagawa et al., 2020, algorithm 1).

    weights  (g,) before the batch
    sums     (g,) of the losses of each group's inputs in the batch; sizes (g,) how many they are. A group without any has a loss of 0, as in
             the published program

    The batch's loss is then the sum over groups of weight x mean loss, see `group_dro_shares`.
    """
    means = np.divide(sums, sizes, out=np.zeros(len(weights)), where=sizes > 0)
    with np.errstate(divide="ignore"):  # a weight may have become 0, and stays
        logs = np.log(weights) + step_size * means
    raised = np.exp(logs - logs.max())  # of a loss of thousands, too
    return np.asarray(raised / raised.sum(), np.float64)


def group_dro_shares(weights: Float64, groups: Int64, sizes: Float64) -> Float64:
    """(m,) what the loss of each input of a batch counts: its group's weight (g,) over how many of the group the batch has (g,)."""
    return np.asarray(weights[groups] / sizes[groups], np.float64)
