"""What the losses of a training's inputs count for: weights of classes and of confusions, changed while it trains.

They are plain numbers: `netlapse.training.penalised` and `netlapse.training.keras_penalised` put them into a loss, `netlapse.steer` changes
them from outside. In a training of several processes each has its own, and each is to be told the same.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from netlapse.types import Float64

_CLASS_WEIGHT, _CONFUSION = re.compile(r"class_weight\.(\d+)"), re.compile(r"penalise\.(\d+)->(\d+)")


class Penalties:
    """How many times an input's loss counts, by its class and by what it is taken for; 1 everywhere is as without.

    n_classes      k, at least 2
    class_weights  k numbers, of all inputs of a class; None: 1 each
    confusions     "3->5" -> what the loss of an input of class 3 counts where it is taken for class 5

    With the network's probabilities p (k,) for an input of class y, its loss counts class_weights[y] x sum over j of confusions[y, j] p_j times:
    at confusions[3, 5] = 2 twice as much for a 3 that is certainly taken for a 5, and one and a half times where p_5 is a half. It is the
    expected cost of Elkan (2001, eq. 1) under the network's own probabilities, which Galdran et al. (2020, eq. 2) add to the loss. Here it
    multiplies it, as a cost has no meaning beside a loss of any unit. A mean over inputs divides by how many they are, and not by their weights.

    Raises ValueError for what `set` does, and for a number of weights other than k.
    """

    def __init__(self, n_classes: int, class_weights: Sequence[float] | Float64 | None = None, confusions: Mapping[str, float] | None = None) -> None:
        if not isinstance(n_classes, int) or n_classes < 2:
            raise ValueError(f"penalties were given n_classes={n_classes!r}; expected the number of classes, an integer of at least 2")
        self.n_classes, self.version = n_classes, 0
        self._listeners: list[Callable[[], None]] = []
        self._class_weights, self._confusions = np.ones(n_classes), np.ones((n_classes, n_classes))
        weights = [] if class_weights is None else list(class_weights)
        if class_weights is not None and len(weights) != n_classes:
            raise ValueError(f"penalties were given {len(weights)} class weights; expected {n_classes}, one for each class")
        given = {f"class_weight.{label}": weight for label, weight in enumerate(weights)}
        given |= {f"penalise.{pair}": weight for pair, weight in (confusions or {}).items()}
        for name, value in given.items():
            self._write(name, value)

    @property
    def class_weights(self) -> Float64:
        """(k,) a copy."""
        return self._class_weights.copy()

    @property
    def confusions(self) -> Float64:
        """(k, k), row is the class, column what it is taken for; 1 on the diagonal; a copy."""
        return self._confusions.copy()

    @property
    def neutral(self) -> bool:
        """Whether everything counts once, so that the loss is the unpenalised one."""
        return bool((self._class_weights == 1).all() and (self._confusions == 1).all())

    def set(self, name: str, value: float) -> None:
        """Change one number, which holds from the next batch on; `version` then is one more, also where it was that number before.

        name   "class_weight.3", or "penalise.3->5" for an input of class 3 that is taken for class 5
        value  how many times the loss counts, finite and at least 0; 1 is as without

        Raises ValueError for another name or value; nothing is changed then.
        """
        self._write(name, value)
        self._changed()

    def restore(self, class_weights: Float64, confusions: Float64) -> None:
        """Put all numbers, (k,) and (k, k), back as `class_weights` and `confusions` gave them, such as those of a checkpoint.

        Raises ValueError for other shapes, for numbers that are not finite and at least 0, and for a diagonal that is not 1.
        """
        k, weights, matrix = self.n_classes, np.array(class_weights, np.float64), np.array(confusions, np.float64)
        if weights.shape != (k,) or matrix.shape != (k, k):
            raise ValueError(
                f"penalties of {k} classes were given class weights {weights.shape} and confusions {matrix.shape}; expected ({k},), ({k}, {k})"
            )
        if not all((np.isfinite(values) & (values >= 0)).all() for values in (weights, matrix)) or (np.diag(matrix) != 1).any():
            raise ValueError("penalties were given numbers that are not finite or below 0, or a diagonal of confusions other than 1")
        self._class_weights, self._confusions = weights, matrix
        self._changed()

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call it after each change, in the thread that makes it."""
        self._listeners.append(listener)

    def _changed(self) -> None:
        self.version += 1
        for listener in self._listeners:
            listener()

    def _write(self, name: str, value: float) -> None:
        # Whoever reads meanwhile has the numbers before or after.
        if match := _CLASS_WEIGHT.fullmatch(name):
            (label,) = self._classes(name, match)
            weights = self.class_weights
            weights[label] = _number(name, value)
            self._class_weights = weights
        elif match := _CONFUSION.fullmatch(name):
            label, predicted = self._classes(name, match)
            if label == predicted:
                raise ValueError(f"{name!r} is no confusion: it takes a class for itself; expected two different classes, or class_weight.{label}")
            matrix = self.confusions
            matrix[label, predicted] = _number(name, value)
            self._confusions = matrix
        else:
            raise ValueError(f"no penalty is named {name!r}; expected class_weight.<class> or penalise.<class>-><class>, such as penalise.3->5")

    def _classes(self, name: str, match: re.Match[str]) -> list[int]:
        classes = [int(number) for number in match.groups()]
        if max(classes) >= self.n_classes:
            raise ValueError(f"{name!r} names class {max(classes)}; allowed are 0 to {self.n_classes - 1}")
        return classes


def penalties_of(model: object) -> Penalties | None:
    """The penalties that a module or model carries: as its attribute `penalties`, or that of a part of it or of the loss it was compiled with.

    Raises ValueError where its parts carry several that are not the same.
    """
    modules = getattr(model, "modules", None)  # torch's; Keras's models on torch have it too
    parts: Iterable[object] = modules() if callable(modules) else ()
    found = {id(carried): carried for part in [model, *parts, *_losses(model)] if isinstance(carried := getattr(part, "penalties", None), Penalties)}
    if len(found) > 1:
        raise ValueError(f"{type(model).__name__} carries {len(found)} different penalties, and which are meant is not known; expected one")
    return next(iter(found.values()), None)


def _losses(model: object) -> list[object]:
    """What a Keras model was compiled with: one loss, or several in a list or dict."""
    loss = getattr(model, "loss", None)
    if isinstance(loss, Mapping):
        return list(loss.values())
    return list(loss) if isinstance(loss, list | tuple) else [loss]


def _number(name: str, value: float) -> float:
    number = float(value) if isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool) else math.nan
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"{name} was given {value!r}; expected how many times the loss counts, a finite number of at least 0 (1 is as without)")
    return number
