"""What `KerasNetwork` asks of TensorFlow: functions traced once and run for ever after, gradients, and random states."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from netlapse.backends import Part
from netlapse.backends.keras_tensorflow_fullgrad import Calls, activation_map, decomposed, gathered
from netlapse.types import Array, Exact, Float32, Int64

Seen = Callable[[str, tf.Tensor], tf.Tensor | None]
Forward = Callable[[tf.Tensor, Seen], tf.Tensor]
Body = Callable[..., Mapping[str, tf.Tensor]]


class TensorFlow:
    """Runs functions of tensors with numpy arrays, each traced once per shape of its inputs, whatever their number.

    A trace reads the model's variables and does not copy them, so that it serves every checkpoint. A model compiled with
    `run_eagerly=True` is run eagerly here too: its `call` may not be traceable.
    """

    def __init__(self, model: keras.Layer) -> None:
        self._model = model
        self._programs: dict[object, tuple[tf.types.experimental.ConcreteFunction, list[tf.Variable]]] = {}
        self._graph: tf.Graph | None = None

    def run(self, key: object, body: Body, *arrays: Array, traced: bool = False) -> dict[str, Array]:
        """What `body(*tensors)` returns, as numpy; traced anew where `key` is None or was not seen with these shapes.

        traced  whether `body` needs a trace, also of a model that is to run eagerly
        """
        tensors = [tf.convert_to_tensor(array) for array in arrays]
        if getattr(self._model, "run_eagerly", False) and not traced:
            return {name: value.numpy() for name, value in body(*tensors).items()}
        key = key and (key, *((array.shape[1:], array.dtype) for array in arrays))
        program, foreign = self._programs.get(key) or self._traced(body, tensors)
        if key is not None:
            self._programs[key] = program, foreign
        before = [variable.read_value() for variable in foreign]
        try:
            return {name: value.numpy() for name, value in program(*tensors).items()}
        finally:
            for variable, value in zip(foreign, before):
                variable.assign(value)

    def _traced(self, body: Body, tensors: Sequence[tf.Tensor]) -> tuple[tf.types.experimental.ConcreteFunction, list[tf.Variable]]:
        def traced(*given: tf.Tensor) -> Mapping[str, tf.Tensor]:
            self._graph = tf.compat.v1.get_default_graph()
            return body(*given)

        signature = [tf.TensorSpec([None, *tensor.shape[1:]] if tensor.shape.rank else [], tensor.dtype) for tensor in tensors]
        # Without autograph, as Keras traces a training step.
        program = tf.function(traced, input_signature=signature, autograph=False).get_concrete_function()
        # Keras's variables are safe in a StatelessScope; of a tf.Variable that a layer writes by itself, Keras knows nothing.
        known = {id(variable.value) for variable in self._model.variables}
        return program, [variable for variable in program.graph.variables if id(variable) not in known]

    def hidden(self, tensor: tf.Tensor) -> str | None:
        """Why a tensor met in a forward cannot be observed; None where it can."""
        if getattr(tensor, "graph", self._graph) is not self._graph and not isinstance(tensor, tf.__internal__.EagerTensor):
            return "it runs inside a loop, a branch or a tf.function of the model's own, whose tensors do not come out"
        return "the number of axes of its output is unknown before it runs" if tensor.shape.rank is None else None

    def mean(self, tensor: tf.Tensor, positions: tuple[int, ...]) -> tf.Tensor:
        """Over the positions. Row by row first: three times as fast as over both axes of an image at once, and as exact."""
        if _has_rows(tensor, positions):
            tensor = tf.nn.avg_pool2d(tensor, [1, tensor.shape[2]], 1, "VALID")
        return tf.reduce_mean(tensor, positions)

    def extremes(self, tensor: tf.Tensor, positions: tuple[int, ...]) -> tuple[tf.Tensor, tf.Tensor]:
        """The lowest and the highest over the positions."""
        if not _has_rows(tensor, positions):
            return tf.reduce_min(tensor, positions), tf.reduce_max(tensor, positions)
        low, high = tf.reduce_min(tensor, 1, keepdims=True), tf.nn.max_pool2d(tensor, [1, tensor.shape[2]], 1, "VALID")
        return tf.reduce_min(low, positions), tf.reduce_max(high, positions)

    def highest_place(self, rows: tf.Tensor) -> tf.Tensor:
        """(n, u) where along the positions of (n, p, u) the highest is, of equal ones the first; a NaN is highest."""
        highest = tf.reduce_max(rows, 1, keepdims=True)
        place = tf.range(tf.shape(rows)[1])[None, :, None]
        # A NaN equals nothing. Compared and counted, not by tf.argmax: that is several times slower along the middle axis.
        return tf.reduce_min(tf.where((rows == highest) | (rows != rows), place, tf.int32.max), 1)

    def segment_sum(self, rows: tf.Tensor, groups: tf.Tensor, n_groups: tf.Tensor) -> tf.Tensor:
        """(g, ...) sums of the rows (n, ...) of each group."""
        return tf.math.unsorted_segment_sum(rows, groups, n_groups)

    def gradients(
        self, forward: Forward, score: Callable[[Mapping[str, tf.Tensor]], tf.Tensor], wrt: Sequence[str], tensor: tf.Tensor
    ) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor | None]]:
        """The activations met in a forward, and the gradient of their score by each name: None where it does not depend on one."""
        seen = {"input": tensor}

        with tf.GradientTape(watch_accessed_variables=False) as tape:

            def keep(name: str, activation: tf.Tensor) -> tf.Tensor:
                seen[name] = tf.identity(activation)  # so that the gradient is by this use of it alone
                if name in wrt:
                    tape.watch(seen[name])
                return seen[name]

            if "input" in wrt:
                tape.watch(tensor)
            seen["output"] = forward(tensor, keep)
            total = score(seen)
        found = tape.gradient(total, {name: seen[name] for name in wrt})
        return seen, {name: None if gradient is None else tf.convert_to_tensor(gradient) for name, gradient in found.items()}

    def activation_map(self, activation: tf.Tensor, gradient: tf.Tensor, units: int) -> tf.Tensor:
        """(n, h, w) the sum over units of the activation x the mean over positions of the gradient by it."""
        return activation_map(activation, gradient, units)

    def full_gradient(
        self, forward: Callable[[tf.Tensor, Calls], tf.Tensor], array: Array, units: int, classes: Int64, of: Part, layers: Sequence[str]
    ) -> tuple[Exact, dict[str, Any], Exact, dict[str, Float32]]:
        """The gradient of the classes' logits by the inputs, what is asked for of each bias, these logits, and maps; see `torch_fullgrad`."""

        def body(tensor: tf.Tensor, classes: tf.Tensor) -> dict[str, tf.Tensor]:
            return decomposed(forward, tensor, units, classes, of)

        return gathered(self.run(("full gradient", of, *layers), body, array, classes, traced=True), len(array), of)

    @contextmanager
    def scores(self) -> Iterator[Callable[[tf.Tensor], tf.Tensor]]:
        """Inside, what finds the logits behind the probabilities that a forward returns; what are none it returns as they are."""
        yield _behind

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Python's and numpy's global random states are afterwards what they were before; a trace draws from no other.

        Not promised: what `tf.random` gives a model compiled with `run_eagerly=True`; draw by `keras.random`, or by a generator.
        """
        python, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 - the user's, not ours
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy_state)  # noqa: NPY002 - the user's, not ours


def _behind(output: tf.Tensor) -> tf.Tensor:
    # Keras itself marks what its softmax and sigmoid return, for its losses; in a graph the operation tells.
    logits = getattr(output, "_keras_logits", None)
    if logits is None and not isinstance(output, tf.__internal__.EagerTensor) and output.op.type in ("Softmax", "LogSoftmax", "Sigmoid"):
        logits = output.op.inputs[0]
    return output if logits is None else logits


def _has_rows(tensor: tf.Tensor, positions: tuple[int, ...]) -> bool:
    return positions == (1, 2) and tensor.shape.rank == 4 and tensor.shape[2] is not None and tensor.dtype == tf.float32


# ---- tf.data --------------------------------------------------------------------------------------------------------


def is_dataset(data: object) -> bool:
    return isinstance(data, tf.data.Dataset)


def batches(data: tf.data.Dataset, input_ndim: int | None) -> Generator[tuple[Array, Array], None, None]:
    """(inputs, labels) of a dataset of (input, label), batched or not, as they are; afterwards it yields what it would have.

    input_ndim  how many axes a batch of inputs has; None: not known, and taken from the labels

    Raises TypeError for other elements, ValueError for a dataset without an end or shuffled anew each time.
    """
    spec = data.element_spec
    if not (isinstance(spec, tuple) and len(spec) in (2, 3) and all(isinstance(part, tf.TensorSpec) for part in spec)):
        raise TypeError(f"the tf.data.Dataset given as probe holds {spec}; expected pairs (input, label) of tensors")
    if data.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise ValueError("the tf.data.Dataset given as probe has no end; pass it as it was before repeat(), or the first n of it: dataset.take(n)")
    stages = list(_stages(data))
    if any(getattr(stage, "_reshuffle_each_iteration", False) for stage in stages):
        raise ValueError(
            "the tf.data.Dataset given as probe is shuffled anew each time it is read, so that reading it would change the order in which "
            "training meets it; pass one that is not shuffled (shuffle=False, or before shuffle()): the probe is drawn with its own seed"
        )
    x, y = spec[0].shape, spec[1].shape
    batched = x.rank == input_ndim if input_ndim is not None and x.rank is not None else y.rank != 0 and x[0] == y[0]
    # Random layers in map() keep their seeds in variables.
    variables = [variable for stage in stages for function in stage._functions() for variable in function.function.graph.variables]
    before = [variable.read_value() for variable in variables]
    try:
        for element in data.as_numpy_iterator():
            yield (element[0], element[1]) if batched else (element[0][None], np.asarray(element[1])[None])
    finally:
        for variable, value in zip(variables, before):
            variable.assign(value)


def _stages(data: tf.data.Dataset) -> Iterator[tf.data.Dataset]:
    yield data
    for source in data._inputs():
        yield from _stages(source)
