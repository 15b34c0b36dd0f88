"""Any torch module seen as a `netlapse.types.Network`, and left exactly as it was.

What must hold here: nothing a training can notice changes (modes per module, buffers, random states, `.grad`, hooks);
activations are reduced while the forward runs, so memory does not grow with the number of inputs; a module called
twice, an in-place operation after the observed layer, a batch that is not the first axis inside and a compiled module
give the right numbers or an error.
"""

from __future__ import annotations

import logging
import random
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from netlapse.backends import Part, checked_classes, checked_groups, torch_fields, torch_fullgrad, torch_occlusion, torch_sanity
from netlapse.backends.receptive import field_of
from netlapse.backends.torch_maps import ActivationMaps, constant_parameters, score_of
from netlapse.backends.torch_trace import Reached, Trace, recorded
from netlapse.occlusion import batched, check
from netlapse.types import (
    Array,
    Attributions,
    Exact,
    Explained,
    Field,
    Float32,
    FullGradient,
    Height,
    Int64,
    Layer,
    Magnitude,
    NoField,
    Occluded,
    Occlusion,
    Peaks,
    Responses,
    Role,
    Spatial,
)

Found = TypeVar("Found")

log = logging.getLogger(__name__)

Seen = Callable[[str, Tensor], Tensor | None]
Hook = Callable[[nn.Module, tuple[object, ...], object], object]

# Modules that fix where the unit axis of their output is; all others keep the order of what they are given. A layer norm
# over (c, h, w), or a subclass that permutes, keeps channels first: it is channels-last only where nothing is known.
_CHANNELS_FIRST = (nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.GroupNorm)
_CHANNELS_LAST = (nn.Linear, nn.Embedding, nn.MultiheadAttention, nn.RNNBase, nn.TransformerEncoderLayer)
_CHANNELS_LAST_IF_UNKNOWN = (nn.LayerNorm, nn.RMSNorm)
_NOT_ACTIVATIONS = (nn.Softmax, nn.LogSoftmax, nn.Softmax2d, nn.Softmin)


class TorchNetwork:
    """A torch module as a network of named layers; satisfies `netlapse.types.Network`.

    module          any eager torch module that takes the batch first, wherever it puts it inside; DDP and `torch.compile`
                    wrappers are looked through
    example         (n, ...) inputs; with them `layers` is known at once, and exactly
    output          which output is the logits where the module returns several: a key of the dict or an index of the tuple
    channels_first  whether the module wants (n, c, ...); None: yes for images, and for (n, length, c) where its first
                    layer with weights is a convolution; no for tokens and vectors
    memory_format   how images (n, c, h, w) lie in memory when the module is asked; as a training's do, it is as fast as the training

    Layer names are the module's own qualified names; the second call of a module used twice is `name.call2`. "output"
    names the network's logits: its output, or what goes into the softmax or sigmoid that it ends in. Raises TypeError for a
    scripted module, which takes no hooks.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        example: Array | None = None,
        output: str | int | None = None,
        channels_first: bool | None = None,
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> None:
        if isinstance(module, torch.jit.ScriptModule):
            raise TypeError("a scripted module (torch.jit) cannot be observed, its layers take no hooks; pass the eager module it was made from")
        self.module = _unwrapped(module)
        self._output = output
        self._channels_first = channels_first
        self._memory_format = memory_format
        self._described: tuple[Layer, ...] | None = None
        self._refused: dict[str, str] = {}
        self._axes: dict[str, tuple[int, int]] = {}  # layer -> its batch axis, and its unit axis once the batch is first
        self._ends_in_probabilities = False
        self._output_shape: tuple[int, ...] = ()
        self._depth = 0
        if example is not None:
            self.describe(example)

    # ---- layers -----------------------------------------------------------------------------------------------------

    @property
    def layers(self) -> tuple[str, ...]:
        """Every observable layer, in execution order.

        Exact once inputs were shown (`describe`, `example`, any question). Before that, what a symbolic trace tells: every
        call of a module without children, observable or not, and no container, although one that ends in something of its
        own (a residual sum) is a layer. Raises RuntimeError where `forward` cannot be traced.
        """
        if self._described is not None:
            return tuple(layer.name for layer in self._described)
        return _traced_layers(self.module)

    @property
    def refused(self) -> Mapping[str, str]:
        """Modules that ran or exist but cannot be observed -> the reason."""
        return self._refused

    def describe(self, inputs: Array) -> tuple[Layer, ...]:
        """Every observable layer with its kind, shape and role; the first time, `inputs` (n, ...) are run through twice."""
        if self._described is None:
            self._described = self._discover(inputs)
        return self._described

    def _discover(self, inputs: Array) -> tuple[Layer, ...]:
        self._refused, self._axes = {}, {}
        names = {module: name for name, module in _named_modules(self.module) if name}
        scripted = {module: name for module, name in names.items() if isinstance(module, torch.jit.ScriptModule)}
        self._refused |= dict.fromkeys(scripted.values(), "a scripted module (torch.jit) takes no hooks; use the eager module it was made from")
        # Two batches of different sizes tell the batch axis from every other, whichever size those happen to have.
        few, many = (self.to_tensor(inputs[np.arange(n) % len(inputs)]) for n in (2, 3))
        shapes: dict[str, tuple[int, ...]] = {}
        calls: dict[str, int] = {}

        def measure(module: nn.Module, args: tuple[object, ...], output: object) -> None:
            tensor = _first_tensor(output)
            shapes[_call_name(names[module], calls)] = () if tensor is None else tuple(tensor.shape)

        axes: dict[tuple[int, int], tuple[Tensor, int, int]] = {}  # address and number of axes -> the tensor, kept alive, and as `_axes`
        found: list[tuple[Layer, Tensor, int]] = []  # the layer, its activation, and that tensor's version: in-place operations raise it
        last_axis = {3: 2, 4: 1, 5: 1}
        sequences = [m for m in self.module.modules() if isinstance(m, (nn.ModuleList, nn.Sequential))]
        items = {child for sequence in sequences for child in sequence if not isinstance(child, nn.Sequential)}
        ends: set[str] = set()  # layers that are the last thing a block of a sequence of blocks does

        def describe(module: nn.Module, args: tuple[object, ...], output: object) -> None:
            nonlocal ends
            name = _call_name(names[module], calls)
            tensor = _first_tensor(output)
            if tensor is None or not tensor.is_floating_point():
                self._refused[name] = f"its output is {_outline(output)}, which holds no floating-point tensor"
                return
            if name not in shapes:
                self._refused[name] = "it ran for one batch of inputs and not for another; its forward takes another path"
                return
            batch = _batch_axis(shapes[name], tuple(tensor.shape))
            if batch is None or tensor.ndim not in (2, 3, 4, 5):
                self._refused[name] = (
                    f"its output has shape {shapes[name]} for a batch of 2 and {tuple(tensor.shape)} for one of 3; "
                    "expected 2 to 5 axes, of which one, the batch, has these sizes and the others do not change"
                )
                return
            given = next((a for a in args if isinstance(a, Tensor)), None)
            known = _axis_of(tensor, batch, axes)
            passed_on = _axis_of(given, batch, axes) if given is not None and given.ndim == tensor.ndim else None
            if tensor.ndim == 2:
                axis = 1
            elif known is not None:
                axis = known
            elif isinstance(module, _CHANNELS_LAST):
                axis = tensor.ndim - 1
            elif isinstance(module, _CHANNELS_FIRST):
                axis = 1
            elif passed_on is not None:
                axis = passed_on
            elif isinstance(module, _CHANNELS_LAST_IF_UNKNOWN) or batch != 0:  # what precedes the batch is a sequence, of vectors
                axis = tensor.ndim - 1
            else:
                axis = last_axis[tensor.ndim]
            last_axis[tensor.ndim] = axis
            axes[tensor.data_ptr(), tensor.ndim] = tensor, batch, axis
            same = [layer.name for layer, t, version in reversed(found) if t is tensor and version == tensor._version]
            if any(True for _ in module.children()):
                inner = next((inner for inner in same if inner.startswith(names[module] + ".")), None)
                if inner is not None:
                    ends |= {inner} if module in items else set()
                    self._refused[name] = f"its output is that of layer {inner!r}; observe that one"
                    return
            self._axes[name] = batch, axis
            shape = tuple(tensor.movedim(batch, 0).movedim(axis, -1).shape[1:])
            role = "other" if tensor is given and same else _role(module, given, tensor)  # what changes nothing is no nonlinearity
            found.append((Layer(name, type(module).__name__, shape, role), tensor, tensor._version))

        if many.ndim in (3, 4, 5):
            last_axis[many.ndim] = 1 if self._is_channels_first(many.ndim) else many.ndim - 1
            axes[many.data_ptr(), many.ndim] = many, 0, last_axis[many.ndim]
        observable = [module for module in names if module not in scripted]
        with self.undisturbed(), torch.no_grad():
            self._hooked(few, dict.fromkeys(observable, measure))
        calls.clear()
        with self.undisturbed(), torch.no_grad(), Scores() as scores:  # anew, as what the first one wrote into a buffer may be of its size
            result = self._logits(self._hooked(many, dict.fromkeys(observable, describe)))
        self._ends_in_probabilities = scores.behind(result) is not result
        self._output_shape = tuple(result.shape)
        is_output = {layer.name for layer, t, version in found if t is result and version == result._version}
        for name in {"input", "output"} & {layer.name for layer, _, _ in found} - (is_output - {"input"}):
            self._refused[name] = f"the name {name!r} stands for the network's own {name}; rename the submodule"
        found = [entry for entry in found if entry[0].name not in self._refused]
        seen = {layer.name for layer, _, _ in found} | set(self._refused)
        for name in names.values():
            if name not in seen:
                self._refused[name] = "its own forward was not called (another module uses its parameters, or it does not run in evaluation mode)"
        order = [layer.name for layer, _, _ in found]
        twice = sorted({name for name in order if order.count(name) > 1})
        if twice:
            raise RuntimeError(f"two layers share a name: {twice}; rename a submodule that ends in 'call2', 'call3', ...")
        layers = [replace(a, role="block") if a.name in ends and a.role != "activation" else a for a, _, _ in found]
        return tuple(replace(a, role="output") if a.name in is_output else a for a in layers)

    # ---- what analyses ask ------------------------------------------------------------------------------------------

    def outputs(self, inputs: Array) -> Float32:
        """(n, k) the network's logits, also where it ends in a softmax or sigmoid.

        Raises ValueError where its output has another shape or is several tensors.
        """
        with self.undisturbed(), torch.no_grad():
            with Scores() as scores:
                logits = self._logits(self._call(self.to_tensor(inputs)))
            return _numpy(_matrix(scores.behind(logits)))

    def n_classes(self, inputs: Array) -> int:
        """k of the logits (n, k), known once `describe` is; raises ValueError where the network's output has another shape."""
        self.describe(inputs)
        if len(self._output_shape) != 2:
            raise ValueError(f"the network's output has shape {(len(inputs), *self._output_shape[1:])}; expected (n, k), one score per class")
        return self._output_shape[1]

    def activations(self, inputs: Array, layers: Sequence[str]) -> dict[str, Float32]:
        """{layer: (n, h, w, u) | (n, t, u) | (n, u)} channels-last copies."""
        found: dict[str, Float32] = {}

        def keep(name: str, tensor: Tensor) -> None:
            found[name] = _numpy(tensor.movedim(self._axes[name][1], -1))

        self._observe(inputs, layers, keep)
        return {name: found[name] for name in layers}

    def responses(self, inputs: Array, layers: Sequence[str]) -> Responses:
        """The mean, lowest and highest activation of each unit over positions, per input, and the logits; one forward."""
        means: dict[str, Float32] = {}
        lows: dict[str, Float32] = {}
        highs: dict[str, Float32] = {}

        def reduce(name: str, tensor: Tensor) -> None:
            positions = _positions(tensor, self._axes[name][1])
            means[name] = _numpy(tensor.mean(dim=positions, dtype=_summed(tensor)) if positions else tensor)
            lows[name] = _numpy(tensor.amin(dim=positions)) if positions else means[name]
            highs[name] = _numpy(tensor.amax(dim=positions)) if positions else means[name]

        logits = self._observe(inputs, layers, reduce)
        return Responses(means, lows, highs, None if logits is None or logits.ndim != 2 else _numpy(logits))

    def peaks(self, inputs: Array, layers: Sequence[str], k: int, floors: Mapping[str, Float32], by: Height = "maximum") -> Peaks:
        """Each unit's value for each input, and where, of the k largest, those above the unit's floor (u,) have their maximum; one forward.

        Only of these, few once the floors have risen, is the position looked for: everywhere it would cost several times the values.
        """
        values: dict[str, Float32] = {}
        places: dict[str, Int64] = {}

        def find(name: str, tensor: Tensor) -> None:
            axis = self._axes[name][1]
            positions = _positions(tensor, axis)
            # NaN stands above every number, as in amax: it is met here as the first there is, and shows.
            height = tensor if not positions else tensor.amax(dim=positions) if by == "maximum" else tensor.mean(dim=positions, dtype=_summed(tensor))
            height = height.float()
            least = height.topk(min(k, len(height)), dim=0).values[-1]
            above = ~(height < least) & ~(height <= torch.as_tensor(floors[name], device=height.device))
            found = torch.full(height.shape, -1, dtype=torch.int64, device=height.device)
            found[above] = tensor.movedim(axis, 1)[above].flatten(1).argmax(dim=1) if positions else 0
            values[name], places[name] = _numpy(height), found.cpu().numpy()

        self._observe(inputs, layers, find)
        return Peaks(values, places)

    def group_sums(self, inputs: Array, groups: Int64, n_groups: int, layers: Sequence[str], spatial: Spatial = "mean") -> dict[str, Float32]:
        """{layer: (g, u)} sums over each group's inputs of the mean over positions; "keep": (g, h, w, u), every position.

        Summed by `index_add` inside torch: activations never leave it, and the cost does not grow with the number of groups.
        """
        groups = checked_groups(groups, n_groups, len(inputs))
        sums: dict[str, Tensor] = {}
        index: Tensor | None = None

        def add(name: str, tensor: Tensor) -> None:
            nonlocal index
            if index is None:
                index = torch.tensor(groups, device=tensor.device)
            axis = self._axes[name][1]
            if spatial == "mean" and (positions := _positions(tensor, axis)):
                tensor, axis = tensor.mean(dim=positions, dtype=_summed(tensor)), 1
            channels_last = tensor.movedim(axis, -1)
            # Added in the order they lie in memory: index_add_ is twenty times slower across it.
            rows = channels_last if channels_last.is_contiguous() else tensor.contiguous()
            total = torch.zeros((n_groups, *rows.shape[1:]), dtype=torch.float32, device=rows.device).index_add_(0, index, rows.float())
            sums[name] = total if rows is channels_last else total.movedim(axis, -1)

        self._observe(inputs, layers, add)
        return {name: _numpy(sums[name]) for name in layers}

    def vjp(self, inputs: Array, layer: str, cotangent: Array, wrt: Sequence[str]) -> dict[str, Float32]:
        """{name: gradient of sum(cotangent * activation[layer])}; wrt names layers, or "input" for the inputs.

        cotangent broadcasts against the activation of `layer`, (n, h, w, u) | (n, t, u) | (n, u); "output" names the logits.
        Raises ValueError where the activation does not depend on a name in `wrt`, the cotangent has another shape, or the
        inputs are token ids.
        """
        if "output" in wrt:
            raise ValueError("no gradient by 'output', which nothing depends on; `wrt` names layers, or 'input'")

        def score(seen: Mapping[str, Tensor]) -> Tensor:
            activation = seen[layer].movedim(self._axis(layer, seen[layer]), -1)
            try:
                weights = np.broadcast_to(cotangent, tuple(activation.shape))
            except ValueError as error:
                raise ValueError(
                    f"vjp was given a cotangent {np.shape(cotangent)}; the activation of {layer!r} is {tuple(activation.shape)}"
                ) from error
            return (activation * torch.tensor(weights, dtype=activation.dtype, device=activation.device)).sum()

        _, gradients = self._differentiated(inputs, dict.fromkeys((*wrt, layer)), wrt, score)
        missing = [name for name in wrt if name not in gradients]
        if missing:
            raise ValueError(f"the activation of {layer!r} does not depend on {missing}; layers run in the order {list(self.layers)}")
        return gradients

    def explained(self, inputs: Array, layers: Sequence[str], classes: Int64 | None = None) -> Explained:
        """The activations of layers, and the gradient by them of the logit of each input's class; one forward, one backward.

        classes  (n,) integers; None: the class the network predicts for each input
        Raises ValueError for classes that are no outputs, and for layers that the logits do not depend on.
        """

        def score(seen: Mapping[str, Tensor]) -> Tensor:
            logits = _matrix(seen["output"])
            chosen = logits.detach().argmax(dim=1) if classes is None else torch.tensor(checked_classes(classes, *logits.shape), device=logits.device)
            return logits.gather(1, chosen[:, None]).sum()

        seen, gradients = self._differentiated(inputs, dict.fromkeys((*layers, "output")), layers, score)
        missing = [name for name in layers if name not in gradients]
        if missing:
            raise ValueError(f"the logits do not depend on {missing}; layers run in the order {list(self.layers)}")
        activations = {name: _numpy(seen[name].movedim(self._axis(name, seen[name]), -1)) for name in layers}
        return Explained(activations, gradients, _numpy(seen["output"]))

    def full_gradient(self, inputs: Array, classes: Int64) -> FullGradient:
        """The logit of each input's class as a sum of an input term and of one term for every bias; one forward, one backward.

        classes  (n,) integers

        A term goes by the name of its layer, where that is a module without modules inside, and has one bias; else by that and
        the operation's (`block.tanh`, `tanh` in the network's own forward), the second with `.call2`. Raises ValueError for token
        ids, for classes that are no outputs, for logits that no gradient connects with the inputs, and for an operation with a
        bias whose output has no axis of the inputs.
        """
        gradient, terms, scores, _ = self._decomposed(inputs, classes, "values")
        images = frozenset(name for name, (_, is_image) in terms.items() if is_image)
        return FullGradient(gradient, {name: term for name, (term, _) in terms.items()}, scores, images)

    def attributions(
        self, inputs: Array, classes: Int64, *, gradient: bool = False, biases: Collection[Magnitude] = (), layers: Sequence[str] = ()
    ) -> Attributions:
        """Of the logit of each input's class what is asked for; one forward, and one backward that goes no further than what is asked for.

        classes   (n,) integers     gradient  by the inputs
        biases    the full gradient, with the sizes of its terms, of the gradients at its biases; the gradient is beside them
        layers    whose class activation maps
        Raises ValueError as `full_gradient` where there are biases, for token ids, for classes that are no outputs, and for inputs
        and layers that the logits do not depend on.
        """
        if not biases:
            return self._attributed(inputs, classes, gradient, layers)
        self._check_layers(inputs, layers)
        by_inputs, terms, scores, maps = self._decomposed(inputs, classes, tuple(biases), layers)
        # What does not depend on the inputs cannot be watched beside biases, nor what is overwritten by no operation of torch's.
        if others := [name for name in layers if name not in maps]:
            maps |= self._attributed(inputs, classes, False, others).maps
        return Attributions(scores, by_inputs, terms, {name: maps[name] for name in layers})

    def full_gradient_gaps(self, inputs: Array, classes: Int64) -> dict[str, Exact]:
        """{module call: (n,)} what it adds to the scores that no term accounts for, apart from calls inside it; "" is the network's own."""
        return self._decomposed(inputs, classes, "gaps")[1]

    def fields(self, inputs: Array) -> dict[str, Field | NoField]:
        """Every layer (h, w, u) -> the theoretical receptive field of its units, for images (n, h, w, c) of this size; one forward.

        Through strides, dilation, padding, pooling, shortcuts (what is seen through either path), and whatever mixes all
        positions. Where it is not an interval that moves by whole pixels from unit to unit, or an operation is not known, the
        `NoField` names that. Adaptive pooling whose windows differ in size: what all its units see together.
        """
        if np.ndim(inputs) != 4:
            raise ValueError(f"receptive fields are those of images (n, h, w, c); the inputs have shape {np.shape(inputs)}")
        layers = {layer.name: layer for layer in self.describe(inputs) if len(layer.shape) == 3}
        trace = self.trace(inputs[:1])
        rows, columns = (2, 3) if self._axis("input", trace.values[0]) == 1 else (1, 2)
        states = torch_fields.states(trace, rows, columns)
        found: dict[str, Field | NoField] = {}
        for name in layers:
            if name not in trace.layers:
                found[name] = NoField(trace.escaped or "an operation that torch functions do not show", name)
                continue
            batch, axis = self._axes[name]
            order = [i for i in range(4) if i != batch]
            del order[axis - 1]
            found[name] = field_of(states[trace.layers[name]], order, name)
        return found

    def occluded(self, occlusion: Occlusion, *, batch_size: int = 64) -> Occluded:
        """Activations of a layer under occluders, computed only where they change anything; what whole images give, to rounding.

        Where an operation on the way to the layer is not known, whole images are shown in batches, the result says why and a
        warning names it. Raises ValueError for a layer that is not (h, w, u) and for what does not fit.
        """
        try:
            return Occluded(*self._followed(torch_occlusion.occlude, occlusion))
        except torch_occlusion.Unknown as unknown:
            log.warning("netlapse: occlusion of layer %r shows whole images, as it does not know how to follow %s", occlusion.layer, unknown.reason)
            with self.undisturbed():
                return batched(partial(self._until, layer=occlusion.layer), occlusion, batch_size, unknown.reason)

    def occluded_at(self, occlusion: Occlusion, *, batch_size: int = 64) -> Float32:
        """(p, m) what `occluded` has `at` each unit's own place, and no more: for a few units, many times as fast.

        Only occluders that meet a unit's theoretical field are looked at, and only what the unit sees of what they change.
        """
        try:
            return self._followed(torch_occlusion.occlude_at, occlusion)
        except torch_occlusion.Unknown:
            return self.occluded(occlusion, batch_size=batch_size).at

    def _followed(self, occlude: Callable[..., Found], asked: Occlusion) -> Found:
        """What a function of `torch_occlusion` finds on the way from the image to the layer."""
        described = self.describe(asked.image[None])
        if asked.layer in self._refused and asked.layer not in {layer.name for layer in described}:
            raise ValueError(self._unknown_layers([asked.layer]))
        check(described, asked)
        with self.undisturbed(), torch.no_grad():
            trace, target = self._traced(asked.image, asked.layer)
            return occlude(trace, target, asked.corners, asked.side, self.to_tensor(asked.replacement[None]), asked.units, asked.places)

    def _traced(self, image: Array, layer: str) -> tuple[Trace, int]:
        """The way from an image to a layer, and the layer's number on it; both channels-first."""
        if self._axes[layer] != (0, 1) or not self._is_channels_first(4):
            raise torch_occlusion.Unknown("an order of axes that is not (n, u, h, w)", layer)
        trace = self.trace(np.asarray(image)[None], layer)
        if layer not in trace.layers:
            raise torch_occlusion.Unknown(trace.escaped or "an operation that torch functions do not show", layer)
        return trace, trace.layers[layer]

    def _until(self, inputs: Array, layer: str) -> Float32:
        """The activation of one layer, by a forward that ends there."""
        found: list[Float32] = []

        def seen(name: str, tensor: Tensor) -> None:
            found.append(_numpy(tensor.movedim(self._axes[name][1], -1)))
            raise Reached

        with suppress(Reached):
            self._observe(inputs, [layer], seen)
        return found[0]

    def trace(self, inputs: Array, last: str | None = None) -> Trace:
        """The operations of one forward, up to the layer `last` where it is named; see `torch_trace`."""
        names = {module: name for name, module in _named_modules(self.module) if name}
        with self.undisturbed():
            return recorded(names, self._call, self.to_tensor(inputs), _first_tensor, last)

    def _attributed(self, inputs: Array, classes: Int64, gradient: bool, layers: Sequence[str]) -> Attributions:
        maps, sources = ActivationMaps(), list[Tensor]()

        def keep(name: str, activation: Tensor) -> Tensor:
            if not activation.requires_grad:  # the backward ends here
                activation = activation.detach().requires_grad_()
                sources.append(activation)
            return maps.copy(name, activation, 0, self._axes[name][1])

        with self.undisturbed(), torch.enable_grad(), constant_parameters(self.module):
            tensor = self.to_tensor(inputs)
            if gradient:
                if not tensor.is_floating_point():
                    raise ValueError("no gradient by token ids: they are integers; explain a network that takes floats")
                sources.append(tensor.requires_grad_())
            # A copy, because autograd refuses a network that begins by overwriting the very tensor we differentiate by.
            logits = self._observe(inputs, layers, keep, tensor=tensor.clone())
            assert logits is not None
            scores = score_of(logits, classes)
            # autograd.grad, because backward() would add to the .grad the optimiser is accumulating.
            found = torch.autograd.grad(scores.sum(), sources, allow_unused=True) if scores.requires_grad else [None] * len(sources)
        by_inputs = found[0] if gradient else None
        missing = [name for name in layers if name not in maps.found] + (["input"] if gradient and by_inputs is None else [])
        if missing:
            raise ValueError(f"the logits do not depend on {missing}; layers run in the order {list(self.layers)}")
        channels_last = None if by_inputs is None else torch_fullgrad.to_numpy(by_inputs.movedim(self._axis("input", by_inputs), -1))
        return Attributions(torch_fullgrad.to_numpy(scores), channels_last, {}, {name: maps.found[name] for name in layers})

    def _decomposed(
        self, inputs: Array, classes: Int64, of: Part, layers: Sequence[str] = ()
    ) -> tuple[Exact, dict[str, Any], Exact, dict[str, Float32]]:
        names = {module: name for name, module in _named_modules(self.module) if name and not isinstance(module, torch.jit.ScriptModule)}

        def forward(tensor: Tensor, told: torch_fullgrad.Calls) -> Tensor:
            counts: dict[str, int] = {}

            def entered(module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
                whole = not any(True for _ in module.children()) or type(module).__module__.startswith("torch.nn.")
                return told.entered(_call_name(names[module], counts), args, kwargs, whole=whole)

            def left(module: nn.Module, args: object, output: object) -> object:
                replaced = told.left(output, lambda call: (_first_tensor(output), *self._axes[call]) if call in layers else None)
                return None if replaced is None else _replace_first(output, *replaced)

            handles = [module.register_forward_pre_hook(entered, with_kwargs=True) for module in names]
            try:
                with Scores() as scores:  # asked before the mode around us, it sees none of what that computes
                    logits: Tensor = scores.behind(self._logits(self._hooked(tensor, dict.fromkeys(names, left))))
                    return logits
            finally:
                for handle in handles:
                    handle.remove()

        with self.undisturbed():
            tensor = self.to_tensor(inputs)
            units = self._axis("input", tensor)
            gradient, found, scores, maps = torch_fullgrad.decomposed(self.module, forward, tensor, units, classes, of)
        by_inputs: Exact = np.moveaxis(gradient, units, -1).copy()
        return by_inputs, found, scores, maps

    def _differentiated(
        self, inputs: Array, names: Iterable[str], wrt: Sequence[str], score: Callable[[Mapping[str, Tensor]], Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Float32]]:
        """The named activations of one forward, and the gradients of `score(activations)` by those in `wrt` that it depends on."""
        seen: dict[str, Tensor] = {}

        def keep(name: str, tensor: Tensor) -> Tensor:
            tensor = tensor if tensor.requires_grad else tensor.detach().requires_grad_()
            seen[name] = tensor
            return tensor.clone()  # so that an in-place operation further on overwrites the clone and not what we differentiate by

        with self.undisturbed(), torch.inference_mode(False), torch.enable_grad():
            tensor = self.to_tensor(inputs)
            if "input" in wrt:
                if not tensor.is_floating_point():
                    raise ValueError("no gradient by token ids: they are integers; name the embedding layer in `wrt` instead")
                tensor.requires_grad_()
                seen["input"] = tensor
            # A copy, because autograd refuses a network that begins by overwriting the very tensor we differentiate by.
            logits = self._observe(inputs, [name for name in names if name not in ("input", "output")], keep, tensor=tensor.clone())
            if "output" in names and logits is not None:
                seen["output"] = logits
            total = score(seen)
            sources = [seen[name] for name in wrt]
            # autograd.grad, because backward() would add to the .grad the optimiser is accumulating.
            found = torch.autograd.grad(total, sources, allow_unused=True) if total.requires_grad else [None] * len(sources)
            return seen, {name: _numpy(grad.movedim(self._axis(name, grad), -1)) for name, grad in zip(wrt, found) if grad is not None}

    # ---- what is asked of others in its place ------------------------------------------------------------------------

    def parametrised(self, inputs: Array) -> tuple[str, ...]:
        """The modules that have parameters of their own, in the order in which they begin in a forward; "" is the network itself."""
        with self.undisturbed(), torch.no_grad():
            tensor = self.to_tensor(inputs[:2])
            return torch_sanity.in_order(list(_named_modules(self.module)), lambda: self._call(tensor))

    @contextmanager
    def randomised(self, modules: Sequence[str], seed: int) -> Iterator[dict[str, str]]:
        """Inside, the parameters of these modules, and the statistics of norms, are drawn anew; yields how, by module.

        drawn     by the module's own `reset_parameters`: with all modules as `torch.manual_seed(seed)` and building the network,
                  where that initialises by it; what one module gets does not depend on which others are named
        permuted  where that writes none, or there is none: the parameter's own values in another order
        Raises ValueError for unknown modules.
        """
        there = dict(_named_modules(self.module))
        if unknown := [name for name in modules if name not in there]:
            raise ValueError(f"no modules named {unknown}; this network has {list(there)}")
        chosen = [there[name] for name in modules]
        with self.undisturbed(), restored_random_states(), torch_sanity.randomised(self.module, chosen, seed) as how:
            yield dict(zip(modules, how))

    @contextmanager
    def shifted(self, shift: Array) -> Iterator[None]:
        """Inside, the network answers inputs + shift (...), of one input's shape, as it answers the inputs outside.

        What the shift adds to the first affine operations on the inputs is taken from them, at each position by itself. Raises
        ValueError inside, when inputs are shown, where the first operation is not affine, and for token ids.
        """
        with self.undisturbed():
            tensor = self.to_tensor(np.asarray(shift)[None])
            with torch_sanity.shifted(self.module, tensor):
                yield

    # ---- leaving no trace -------------------------------------------------------------------------------------------

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Every submodule in evaluation mode inside; outside, modes, buffers and random states are as before."""
        if self._depth:
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
            return
        lazy = [name for name, t in chain(self.module.named_parameters(), self.module.named_buffers()) if nn.parameter.is_lazy(t)]
        if lazy:
            raise ValueError(f"{lazy} have no shape yet, and observing them would initialise them; call the module on one batch first")
        modules = list(self.module.modules())
        # One flag per submodule: `train()` would wake a batch norm that the user froze.
        modes = [(module, module.training) for module in modules]
        buffers = [(module, dict(module._buffers.items())) for module in modules]
        states = _random_states()
        fast_path = torch.backends.mha.get_fastpath_enabled()
        self._depth = 1
        try:
            # The attribute and not `eval()`: some modules override that with lasting effects, such as merging adapters.
            for module, _ in modes:
                module.training = False
            torch.backends.mha.set_fastpath_enabled(False)  # the fused encoder path calls no submodule, so no hook would fire
            # Where dynamo was not imported nothing is compiled, and importing it takes seconds.
            eager = torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
            with torch.inference_mode(False), torch.autocast(self._device().type, enabled=False), eager:
                # Copies stand in for the buffers: whatever a forward does to them (write, resize, replace, add), it does to those.
                copies: dict[int, Tensor] = {}
                for module, own in buffers:
                    for name, buffer in own.items():
                        if buffer is not None:
                            module._buffers[name] = copies.setdefault(id(buffer), buffer.detach().clone())
                yield
        finally:
            self._depth = 0
            torch.backends.mha.set_fastpath_enabled(fast_path)
            for module, mode in modes:
                module.training = mode
            for module, own in buffers:
                for name in set(module._buffers.keys()) - set(own):
                    del module._buffers[name]
                for name, buffer in own.items():
                    module._buffers[name] = buffer
            _restore_random_states(states)

    # ---- inside -----------------------------------------------------------------------------------------------------

    def to_tensor(self, inputs: Array) -> Tensor:
        """(n, ...) channels-last numpy as the module wants it: on its device, in its dtype, channels first where it expects that."""
        array = np.asarray(inputs)
        if array.ndim > 2 and self._is_channels_first(array.ndim):
            array = np.moveaxis(array, -1, 1)
        # A copy whose strides are those that were asked for: with one channel, numpy's own contiguous array would pass for channels-last
        # in torch, and every layer after it would compute in that order.
        if array.ndim == 4 and self._memory_format is torch.channels_last:
            given = torch.from_numpy(np.ascontiguousarray(array))
            tensor = torch.empty(given.shape, dtype=given.dtype, memory_format=torch.channels_last).copy_(given).to(self._device())
        else:
            tensor = torch.from_numpy(np.array(array, order="C")).to(self._device())
        return tensor.to(self._dtype()) if tensor.is_floating_point() else tensor

    def to_array(self, inputs: Tensor) -> Array:
        """(n, ...) inputs as this module takes them, as channels-last numpy: the inverse of `to_tensor`."""
        array = inputs.detach().cpu().numpy()
        return np.moveaxis(array, 1, -1) if array.ndim > 2 and self._is_channels_first(array.ndim) else array

    def _observe(self, inputs: Array, layers: Sequence[str], seen: Seen, *, tensor: Tensor | None = None) -> Tensor | None:
        """One forward in which `seen(layer, activation)` is called as each layer finishes; returns the logits if there are any.

        The activation comes with its batch first, wherever the layer has it. What `seen` returns takes its place
        downstream; `None` changes nothing.
        """
        self._check_layers(inputs, layers)
        wanted = set(layers)
        calls: dict[str, int] = {}
        modules = dict(_named_modules(self.module))
        bases = {name if name in modules else name.rpartition(".")[0] for name in wanted}

        def hooked(base: str) -> Hook:
            def hook(module: nn.Module, args: tuple[object, ...], output: object) -> object:
                name = _call_name(base, calls)
                if name not in wanted:
                    return None
                activation = _first_tensor(output)
                if activation is None:
                    raise RuntimeError(f"layer {name!r} returned {_outline(output)}, which holds no tensor, but did when it was first run")
                batch = self._axes[name][0]
                replacement = seen(name, activation.movedim(batch, 0))
                return None if replacement is None else _replace_first(output, activation, replacement.movedim(0, batch))

            return hook

        gradients = nullcontext() if tensor is not None else torch.no_grad()
        with self.undisturbed(), gradients:
            scores = Scores() if self._ends_in_probabilities else None
            with scores or nullcontext():
                result = self._hooked(self.to_tensor(inputs) if tensor is None else tensor, {modules[base]: hooked(base) for base in bases})
        missing = [name for name in wanted if not _was_called(name, calls, modules)]
        if missing:
            raise RuntimeError(
                f"layers {sorted(missing)} ran when the network was first shown inputs but not this time; its forward takes another path"
            )
        try:
            logits = self._logits(result)
            return scores.behind(logits) if scores else logits
        except ValueError:
            if self._output is not None or tensor is not None:
                raise
            return None

    def _hooked(self, tensor: Tensor, hooks: Mapping[nn.Module, Hook]) -> object:
        """What the module returns; the forward hooks are gone afterwards."""
        handles = [module.register_forward_hook(hook) for module, hook in hooks.items()]
        try:
            return self._call(tensor)
        finally:
            for handle in handles:
                handle.remove()

    def _call(self, tensor: Tensor) -> object:
        try:
            return self.module(tensor)
        except NotImplementedError as error:
            children = [name for name, _ in self.module.named_children()]
            raise ValueError(
                f"{type(self.module).__name__} has no forward of its own ({error}); define forward(x), or observe one of its submodules: {children}"
            ) from error

    def _logits(self, result: object) -> Tensor:
        if self._output is not None:
            try:
                result = result[self._output]  # type: ignore[index]
            except (KeyError, IndexError, TypeError) as error:
                raise ValueError(f"the network's output has no {self._output!r}; it is {_outline(result)}") from error
        if not isinstance(result, Tensor):
            raise ValueError(
                f"the network returns {_outline(result)} and not one tensor; say which is the logits: TorchNetwork(module, output=<key or index>)"
            )
        return result

    def _axis(self, name: str, tensor: Tensor) -> int:
        if name == "output":
            return 1
        if name == "input":
            return 1 if tensor.ndim > 2 and self._is_channels_first(tensor.ndim) else tensor.ndim - 1
        return self._axes[name][1]

    def _is_channels_first(self, ndim: int) -> bool:
        if self._channels_first is not None:
            return self._channels_first
        if ndim == 3:
            first = next((m for m in self.module.modules() if next(m.parameters(recurse=False), None) is not None), None)
            return isinstance(first, _CHANNELS_FIRST)
        return ndim > 3

    def _check_layers(self, inputs: Array, layers: Sequence[str]) -> None:
        names = {layer.name for layer in self.describe(inputs)}
        if unknown := [name for name in layers if name not in names]:
            raise ValueError(self._unknown_layers(unknown))

    def _unknown_layers(self, unknown: Sequence[str]) -> str:
        reasons = [f"{name!r} cannot be observed: {self._refused[name]}" for name in unknown if name in self._refused]
        missing = [name for name in unknown if name not in self._refused]
        if missing:
            reasons.append(f"no layer named {missing}; this network has {list(self.layers)}")
        return "; ".join(reasons)

    def _device(self) -> torch.device:
        tensor = next(self.module.parameters(), next(self.module.buffers(), None))
        return torch.device("cpu") if tensor is None else tensor.device

    def _dtype(self) -> torch.dtype:
        return next((p.dtype for p in self.module.parameters() if p.is_floating_point()), torch.float32)


class Scores(TorchFunctionMode):
    """Remembers, while a forward runs, what each softmax or sigmoid was given, so that the logits behind probabilities are found."""

    _PROBABILITIES = ("softmax", "log_softmax", "special_softmax", "special_log_softmax", "sigmoid", "special_expit")
    _COPIES = ("clone", "movedim", "moveaxis")  # of ours, in place of an observed layer's output

    def __init__(self) -> None:
        super().__init__()
        self._given: dict[int, tuple[Tensor, Tensor]] = {}  # by the id of what came out -> that, kept alive, and what went in

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if name in self._PROBABILITIES:
            given = args[0] if args else (kwargs or {})["input"]
            self._given[id(result)] = result, given
        elif name in self._COPIES and id(args[0]) in self._given:
            self._given[id(result)] = result, self._given[id(args[0])][1]
        return result

    def behind(self, output: Tensor) -> Tensor:
        """What the output was made from, where it is a softmax's or sigmoid's; else the output itself."""
        return self._given[id(output)][1] if id(output) in self._given else output


def _unwrapped(module: nn.Module) -> nn.Module:
    while True:
        parallel = isinstance(module, (nn.parallel.DistributedDataParallel, nn.DataParallel))
        inner = module.module if parallel else getattr(module, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            return module
        module = inner


def _named_modules(root: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Qualified names without the `_orig_mod` that torch.compile puts in, each module once, under its first name."""
    for name, module in root.named_modules():
        if isinstance(getattr(module, "_orig_mod", None), nn.Module):
            continue
        yield ".".join(part for part in name.split(".") if part != "_orig_mod"), module


def _call_name(base: str, calls: dict[str, int]) -> str:
    calls[base] = calls.get(base, 0) + 1
    return base if calls[base] == 1 else f"{base}.call{calls[base]}"


def _was_called(name: str, calls: Mapping[str, int], modules: Mapping[str, nn.Module]) -> bool:
    if name in modules:
        return calls.get(name, 0) >= 1
    base, _, call = name.rpartition(".call")
    return calls.get(base, 0) >= int(call)


def _traced_layers(module: nn.Module) -> tuple[str, ...]:
    order: list[str] = []
    calls: dict[str, int] = {}

    class Order(torch.fx.Tracer):
        def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
            return not any(True for _ in m.children())

        def call_module(self, m: nn.Module, forward: Callable[..., object], args: tuple[object, ...], kwargs: dict[str, object]) -> object:
            result = super().call_module(m, forward, args, kwargs)
            if not any(True for _ in m.children()):
                order.append(_call_name(self.path_of_module(m), calls))
            return result

    try:
        Order().trace(module)
    except Exception as error:  # any error of the user's own forward under tracing
        raise RuntimeError(
            f"the layers of {type(module).__name__} are known only after a forward, as it cannot be traced ({error}); "
            "pass inputs: TorchNetwork(module, example=inputs)"
        ) from error
    return tuple(order)


def _role(module: nn.Module, given: Tensor | None, output: Tensor) -> Role:
    if isinstance(module, nn.MultiheadAttention):
        return "weights"
    if any(True for _ in module.children()):
        return "block"
    if next(module.parameters(recurse=False), None) is not None and not isinstance(module, nn.PReLU):
        return "weights"
    if type(module).__module__ == "torch.nn.modules.activation":
        return "other" if isinstance(module, _NOT_ACTIVATIONS) else "activation"
    # A nonlinearity somebody wrote as a module: no weights, shape kept. torch's own (dropout, identity, norms, ...) are not.
    own = not type(module).__module__.startswith("torch.")
    return "activation" if own and given is not None and given.shape == output.shape else "other"


def _first_tensor(output: object) -> Tensor | None:
    """The activation: a tensor, or the first floating-point tensor of a tuple, list or dict."""
    if isinstance(output, Tensor):
        return output
    values = list(output.values()) if isinstance(output, Mapping) else list(output) if isinstance(output, (tuple, list)) else []
    return next((v for v in values if isinstance(v, Tensor) and v.is_floating_point()), None)


def _replace_first(output: object, old: Tensor, new: Tensor) -> object:
    if isinstance(output, Tensor):
        return new
    if isinstance(output, Mapping):
        return type(output)({key: new if value is old else value for key, value in output.items()})  # type: ignore[call-arg]
    assert isinstance(output, (tuple, list))
    values = [new if value is old else value for value in output]
    return type(output)(*values) if hasattr(output, "_fields") else type(output)(values)


def _outline(output: object) -> str:
    if isinstance(output, Tensor):
        return f"a tensor {tuple(output.shape)} of {output.dtype}"
    if isinstance(output, Mapping):
        return f"a {type(output).__name__} with keys {list(output)}"
    if isinstance(output, (tuple, list)):
        return f"a {type(output).__name__} of {len(output)}"
    return f"a {type(output).__name__}"


def _matrix(logits: Tensor) -> Tensor:
    if logits.ndim != 2:
        raise ValueError(f"the network's output has shape {tuple(logits.shape)}; expected (n, k), one score per class")
    return logits


def _batch_axis(few: tuple[int, ...], many: tuple[int, ...]) -> int | None:
    """The axis of size 2 for two inputs and of size 3 for three; None where that is not the only one that changes."""
    changed = [axis for axis, sizes in enumerate(zip(few, many)) if sizes[0] != sizes[1]]
    return changed[0] if len(few) == len(many) and [(few[axis], many[axis]) for axis in changed] == [(2, 3)] else None


def _axis_of(tensor: Tensor, batch: int, axes: Mapping[tuple[int, int], tuple[Tensor, int, int]]) -> int | None:
    """The unit axis, once the batch is first, of a tensor that is one of `axes` or a permuted view of one; None where it is neither.

    None, too, where `batch` is not its batch axis.
    """
    base, batch_of_base, axis = axes.get((tensor.data_ptr(), tensor.ndim), (None, 0, 0))
    if base is None:
        return None
    if base is tensor:
        return axis if batch == batch_of_base else None
    strides, known = (list(zip(rows.stride(), rows.shape)) for rows in (tensor.movedim(batch, 0), base.movedim(batch_of_base, 0)))
    unit = known[axis]
    return strides.index(unit) if strides[0] == known[0] and sorted(strides) == sorted(known) and strides.count(unit) == 1 else None


def _summed(tensor: Tensor) -> torch.dtype:
    """The type in which means are taken: float32, where a network computes in half precision."""
    return torch.float32 if tensor.dtype in (torch.float16, torch.bfloat16) else tensor.dtype


def _positions(tensor: Tensor, unit_axis: int) -> tuple[int, ...]:
    return tuple(axis for axis in range(1, tensor.ndim) if axis != unit_axis)


def _numpy(tensor: Tensor) -> Float32:
    # A copy, because on the CPU numpy would share memory that an in-place operation further on, or the next training step, overwrites.
    return np.array(tensor.detach().float().cpu().numpy(), order="C")


def _random_states() -> tuple[object, ...]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]
    mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda, mps  # noqa: NPY002 - the user's, not ours


@contextmanager
def restored_random_states() -> Iterator[None]:
    """Python's, numpy's and torch's global random states are afterwards what they were before."""
    states = _random_states()
    try:
        yield
    finally:
        _restore_random_states(states)


def _restore_random_states(states: tuple[object, ...]) -> None:
    python, numpy_state, cpu, cuda, mps = states
    random.setstate(python)  # type: ignore[arg-type]
    np.random.set_state(numpy_state)  # type: ignore[arg-type]  # noqa: NPY002 - the user's, not ours
    torch.set_rng_state(cpu)  # type: ignore[arg-type]
    if cuda is not None:
        torch.cuda.set_rng_state_all(cuda)  # type: ignore[arg-type]
    if mps is not None:
        torch.mps.set_rng_state(mps)  # type: ignore[arg-type]
