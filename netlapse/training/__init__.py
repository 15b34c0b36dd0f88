"""The trainings that `train.py` and `create_checkpoints.py` run, one file per framework; here is what they have in common."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

log = logging.getLogger(__name__)

Metrics = Callable[[Mapping[str, float], int], None]
"""Is told values by name and the optimiser's step."""


def check_choices(max_epochs: object, batch_size: object, optimizer: object, learning_rate: float, optimizers: Mapping[str, object]) -> None:
    """Raises ValueError, naming the key and what is allowed, for choices that no training can have."""
    for name, value in (("max_epochs", max_epochs), ("batch_size", batch_size)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"trainer.{name} is {value!r}; expected an integer of at least 1")
    if optimizer not in optimizers:
        raise ValueError(f"trainer.optimizer is {optimizer!r}; allowed are {sorted(optimizers)}")
    if not learning_rate > 0:
        raise ValueError(f"trainer.learning_rate is {learning_rate}; expected a number above 0")


def surviving(metrics: Metrics) -> Metrics:
    """The same, but what it raises is said once, in the log, and goes no further: nothing we do can end a training."""
    failed = False

    def told(values: Mapping[str, float], step: int) -> None:
        nonlocal failed
        try:
            metrics(values, step)
        except Exception as error:
            if not failed:
                log.warning("netlapse: the training's metrics were not recorded: %s: %s", type(error).__name__, error)
            failed = True

    return told
