"""A Keras model with weights drawn anew, and one that answers shifted inputs as it answered the inputs themselves."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from netlapse.types import Array

if TYPE_CHECKING:
    from keras import KerasTensor as Tensor  # of whichever backend
else:
    Tensor = object

L = keras.layers
# What only moves values about: the shift goes along.
_MOVES = (L.Flatten, L.Reshape, L.Permute, L.Identity, L.Dropout, L.SpatialDropout1D, L.SpatialDropout2D, L.SpatialDropout3D, L.GaussianNoise)
_AFFINE = (
    *(L.Conv1D, L.Conv2D, L.Conv3D, L.Conv1DTranspose, L.Conv2DTranspose, L.Conv3DTranspose, L.DepthwiseConv1D, L.DepthwiseConv2D),
    *(L.SeparableConv1D, L.SeparableConv2D, L.Dense, L.EinsumDense, L.BatchNormalization, L.Normalization, L.Rescaling),
    *(L.AveragePooling1D, L.AveragePooling2D, L.AveragePooling3D, L.GlobalAveragePooling1D, L.GlobalAveragePooling2D),
    *(L.ZeroPadding1D, L.ZeroPadding2D, L.ZeroPadding3D),
)


# ---- weights drawn anew ----------------------------------------------------------------------------------------------


def own_variables(layer: keras.Layer) -> list[keras.Variable]:
    """Those that a layer made itself: not those of layers inside, and no states of generators."""
    return [*layer._trainable_variables, *layer._non_trainable_variables]


@contextmanager
def randomised(model: keras.Layer, chosen: Sequence[Sequence[keras.Layer]], seed: int) -> Iterator[list[str]]:
    """Inside, the variables of each of the chosen groups of layers are drawn anew; yields how: "drawn", "permuted" or both.

    Every layer without layers inside, and every one with weights, is made and built again from its own config, in the order in
    which the model has them, after `random.seed(seed)`, where Keras takes its seeds from. So what a layer gets does not depend
    on which others are chosen.
    """
    drawn = _drawn(model, seed)
    before: list[tuple[keras.Variable, Array]] = []
    how = []
    try:
        for layers in chosen:
            ways = []
            for variable in (variable for layer in layers for variable in own_variables(layer)):
                value = drawn.get(id(variable))
                old = keras.ops.convert_to_numpy(variable.value)
                constant = not old.size or bool((old == old.flat[0]).all())
                if value is None or (np.array_equal(value, old) and not constant):
                    if not variable.trainable and id(variable) not in drawn:
                        continue  # a count, or what was measured of the data: nothing that is learnt
                    value = np.random.default_rng([seed, len(before)]).permutation(old.reshape(-1)).reshape(old.shape)
                    ways.append("permuted")
                else:
                    ways.append("drawn")
                before.append((variable, old))
                variable.assign(value)
            how.append(" and ".join(sorted(set(ways))))
        yield how
    finally:
        for variable, old in reversed(before):
            variable.assign(old)


def _drawn(model: keras.Layer, seed: int) -> dict[int, Array]:
    """By the id of a variable the value that building its layer again gives it; without those of layers that cannot be made again."""
    found: dict[int, Array] = {}
    random.seed(seed)
    for layer in _as_made(model):
        variables = own_variables(layer)
        if layer is model or isinstance(layer, L.InputLayer) or (not variables and list(layer._flatten_layers(include_self=False))):
            continue
        try:
            twin = type(layer).from_config(_unseeded(layer.get_config()))
            if variables:
                twin.build_from_config(layer.get_build_config())
        except Exception:  # whatever a user's own layer makes of that: its weights are permuted, which the record says
            continue
        values = own_variables(twin)
        if [tuple(value.shape) for value in values] == [tuple(variable.shape) for variable in variables]:
            found |= {id(variable): keras.ops.convert_to_numpy(value.value) for variable, value in zip(variables, values)}
    return found


def _as_made(layer: keras.Layer) -> Iterator[keras.Layer]:
    """A layer and those inside, in the order in which they were made; Keras's own list has those of a layer backwards."""
    yield layer
    for child in layer._flatten_layers(include_self=False, recursive=False):
        yield from _as_made(child)


def _unseeded(config: Any) -> Any:
    """A config whose initialisers have no seed of their own, by which they would draw the same again."""
    if isinstance(config, Mapping):
        return {key: None if key == "seed" else _unseeded(value) for key, value in config.items()}
    return [_unseeded(value) for value in config] if isinstance(config, list) else config


# ---- shifted inputs --------------------------------------------------------------------------------------------------


@contextmanager
def shifted(model: keras.Layer, shift: Array) -> Iterator[None]:
    """Inside, the model answers inputs + shift (1, ...) as it answers the inputs outside.

    From the layers that take the inputs, which must be affine, is taken what they make of the shift: y - (f(shift) - f(0)), before
    their own activation. Layers that only move values about are gone through.
    """
    shifts: dict[int, tuple[Tensor, Tensor]] = {}  # by the id of a tensor: it, kept alive, and by how much it is shifted

    def begin(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        shifts.clear()
        for tensor in filter(keras.ops.is_tensor, keras.tree.flatten(args[0])):
            if "float" not in keras.backend.standardize_dtype(tensor.dtype):
                raise ValueError("token ids cannot be shifted: they are integers; leave out the check of shifted inputs")
            shifts[id(tensor)] = tensor, keras.ops.convert_to_tensor(shift, tensor.dtype)
        return call(*args, **kwargs)

    def compensated(layer: keras.Layer, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if not args or id(args[0]) not in shifts:
            return call(*args, **kwargs)
        added, others = shifts[id(args[0])][1], args[1:]
        if isinstance(layer, _MOVES):
            result = call(*args, **kwargs)
            shifts[id(result)] = result, call(added, *others, **kwargs)
            return result
        if not isinstance(layer, _AFFINE):
            raise ValueError(
                f"the first thing this network does with its inputs is layer {layer.name!r}, a {type(layer).__name__}, which is not affine, so no "
                "bias can make up for a constant added to them; leave out the check of shifted inputs"
            )
        with _without_activation(layer) as activation:
            y = call(*args, **kwargs) - (call(added, *others, **kwargs) - call(keras.ops.zeros_like(added), *others, **kwargs))
        return activation(y)

    every = model._flatten_layers()
    before = [vars(layer).get("call") for layer in every]
    try:
        for layer in every:
            inside = list(layer._flatten_layers(include_self=False))
            call = getattr(layer.call, "python_function", layer.call)
            stand_in = functools.partial(begin, call) if layer is model else None if inside else functools.partial(compensated, layer, call)
            if stand_in is not None:
                vars(layer)["call"] = functools.wraps(call)(stand_in)  # past Keras's own setattr
        yield
    finally:
        for layer, own in zip(every, before):
            if own is None:
                vars(layer).pop("call", None)
            else:
                vars(layer)["call"] = own


@contextmanager
def _without_activation(layer: keras.Layer) -> Iterator[Callable[[Any], Any]]:
    """Inside, a layer's own activation does nothing; yields it."""
    own = vars(layer).get("activation")
    if not callable(own):
        yield lambda y: y
        return
    vars(layer)["activation"] = keras.activations.linear
    try:
        yield own
    finally:
        vars(layer)["activation"] = own
