"""What may be changed of a training so that it serves small groups too, said once for both frameworks.

A remedy changes which inputs are drawn, or what each counts in the loss. The trainings carry it out; what it computes is here, of arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from netlapse.analysis.fairness.sampling import Rule

Of = Literal["label_and_attribute", "attribute"]


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
    of          what a group is: "label_and_attribute", every attribute's value within every class, as Sagawa et al. (2020) have it and as a
                shortcut needs it, which is an attribute that goes with the class; or "attribute", its values alone, for a few inputs
                that look different in all classes: those have ten times as many groups with the labels, of a tenth of the inputs
    """

    attribute: str
    of: Of = "label_and_attribute"

    def __post_init__(self) -> None:
        if self.of not in get_args(Of):
            raise ValueError(f"remedy.of is {self.of!r}; allowed are {get_args(Of)}")


@dataclass(frozen=True)
class GroupBalanced(_ByGroup):
    """Every group has the same share of the draw, with replacement."""


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
