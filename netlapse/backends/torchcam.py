"""torchcam's class activation maps as saliency methods: batched, raw, and without a trace on the network.

torchcam brings the published methods; what it leaves to its user is done here. Its hooks are taken off whatever happens
(those of a constructor that failed too). What an in-place operation after the explained layer overwrites is a copy. Its
random numbers come from a seed. Networks that return several tensors or keep their units last work as well.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torchcam import methods

from netlapse.analysis.saliency import Method, batches, one_hot, resize, spatial_layer
from netlapse.backends.torch import TorchNetwork, _matrix, _named_modules, _numpy
from netlapse.types import Array, Float32, Int64, Network

METHODS: Mapping[str, type] = {name: found for name, found in vars(methods).items() if isinstance(found, type) and hasattr(found, "compute_cams")}
"""Every method torchcam has, by its name there."""

_SEVERAL_LAYERS = ("LeGrad", "RefineCAM")
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks_with_kwargs")
# What torchcam's constructors take that is settled here.
_SETTLED = {"self", "model", "target_layer", "input_shape", "enable_hooks", "batch_size", "base_cam"}


def torchcam(
    method: str, *, layer: str | Sequence[str] | None = None, upsample: bool = True, batch_size: int = 64, seed: int = 0, **options: object
) -> Method:
    """One of torchcam's methods as a saliency method (network, inputs (n, h, w, c), classes (n,)) -> (n, h, w), not normalised.

    method      its name in torchcam: one of `METHODS`
    layer       its name in the network; None: as `netlapse.analysis.saliency.spatial_layer`. Several for RefineCAM, which
                multiplies their maps, and LeGrad, which averages over transformer blocks; those two have no default
    upsample    to the inputs' resolution, bilinear; False: at the layer's own
    batch_size  inputs per forward, the masked ones of ScoreCAM, SSCAM and ISCAM included
    seed        for the noise of SmoothGradCAMpp and SSCAM; it is the same for every input
    options     of torchcam's constructor. `base_method` is a name, too. CAM's `fc_layer` is a name, None: the only dense
                layer. LeGrad's `score_projection` is called with the network's module and the tokens, because the module
                of a reloaded checkpoint is another object than the one in training.

    An input with a logit that is not finite has a map of NaN (torchcam adds up what is left). RefineCAM's factors are
    scaled to 0 to 1 per image and layer, by its definition. Like torchcam's, CAM's maps keep negative evidence,
    and SmoothGradCAMpp weighs the activations of its last noisy input, not those of the clean one (0.5.0).

    Raises ValueError for a method or an option torchcam does not have, and for the wrong number of layers. The method
    raises TypeError for a network that is not torch's, and ValueError for inputs and classes as
    `netlapse.analysis.saliency.gradient` does, a layer that is unknown, not spatial or called again later (torchcam keeps
    a module's last call), CAM where the logits are not a dense layer of the means over positions, and LeGrad where a
    block has no `self_attention`.
    """
    cam = _method(method)
    if "base_method" in options:
        options["base_method"] = _method(options["base_method"])
    allowed = sorted((_parameters(cam) | _parameters(_base(cam, options))) - _SETTLED)
    unknown = sorted(set(options) - set(allowed))
    if unknown:
        raise ValueError(f"torchcam's {method} takes no option {unknown}; it takes {allowed}")
    names = None if layer is None else [layer] if isinstance(layer, str) else list(layer)
    if names is None and (method in _SEVERAL_LAYERS or "reshape_transform" in options):
        raise ValueError(f"torchcam's {method} with options {sorted(options)} has no default layer; name it: torchcam({method!r}, layer=...)")
    if names is not None and method not in _SEVERAL_LAYERS and len(names) != 1:
        raise ValueError(
            f"torchcam's {method} explains one layer here and was given {names}; name one, or combine several by torchcam('RefineCAM', ...)"
        )
    if method == "RefineCAM" and len(names or ()) < 2:
        raise ValueError(f"torchcam's RefineCAM multiplies the maps of several layers and was given {names}; name two or more")
    explain = partial(
        _explain,
        method=method,
        layer=names[0] if names and len(names) == 1 else names,
        upsample=upsample,
        batch_size=batch_size,
        seed=seed,
        options=options,
    )
    explain.__name__ = method  # type: ignore[attr-defined]
    return explain


def _explain(
    network: Network,
    inputs: Array,
    classes: Int64,
    *,
    method: str,
    layer: str | Sequence[str] | None,
    upsample: bool,
    batch_size: int,
    seed: int,
    options: Mapping[str, object],
) -> Float32:
    if not isinstance(network, TorchNetwork):
        raise TypeError(
            f"torchcam's {method} explains torch networks and was given a {type(network).__name__}; "
            "netlapse.analysis.saliency.grad_cam explains those of any framework"
        )
    one_hot(network, inputs, classes)  # for its errors
    cam = METHODS[method]
    base = _base(cam, options)
    modules, (batch_axis, unit_axis) = _modules(network, inputs, method, layer, reshaped="reshape_transform" in options)
    options = dict(options)
    if (batch_axis, unit_axis) != (0, 1) and "reshape_transform" not in options:
        options["reshape_transform"] = lambda values: values.movedim(batch_axis, 0).movedim(unit_axis, 1)
    # One by one where torchcam draws noise, so that it is the same for every input, and where it makes a batch of every input.
    at_once = 1 if issubclass(base, (methods.SmoothGradCAMpp, methods.ScoreCAM)) else batch_size
    if "batch_size" in _parameters(base):
        options["batch_size"] = batch_size
    dense = _classifier(network, options.get("fc_layer")) if method == "CAM" else None
    if dense is not None:
        options["fc_layer"] = dense
    if callable(projection := options.get("score_projection")):
        options["score_projection"] = partial(projection, network.module)
    maps = []
    with network.undisturbed(), torch.enable_grad(), _hooks_removed(network.module):
        for module in modules:
            module.register_forward_hook(_check_output)  # before torchcam's own, which fail without a word of why
        # LeGrad reads its default projection from the module's attributes and never calls it.
        model = _Logits(network)
        extractor = cam(network.module if method == "LeGrad" else model, modules if method in _SEVERAL_LAYERS else modules[0], **options)
        # ScoreCAM and its kin call `eval()`, which some modules override with lasting effects; modes are set already.
        getattr(extractor, "base_cam", extractor)._eval_mode = nullcontext
        for module in modules:
            # After torchcam's hooks: what comes next works on a copy, in place or not.
            module.register_forward_hook(_copy_output)
        for batch in batches(len(inputs), at_once):
            # Not torch.manual_seed, which would seed the accelerators of a user who has not yet started one.
            torch.default_generator.manual_seed(seed)
            # The inputs require the gradient, so that a network with every parameter frozen has a graph.
            logits = model(network.to_tensor(inputs[batch]).requires_grad_())
            if dense is not None:
                _check_pooled(extractor.hook_a[0], dense, logits)
            (found,) = extractor([int(k) for k in classes[batch]], logits, normalized=False)
            if found.ndim != 3:
                raise ValueError(
                    f"torchcam's {method} gave maps of shape {tuple(found.shape)}; expected (n, h, w): let `reshape_transform` return (n, u, h, w)"
                )
            broken = ~torch.isfinite(logits).all(dim=1)
            maps.append(_numpy(torch.where(broken[:, None, None], torch.nan, found)))
    raw = np.concatenate(maps)
    return resize(raw, inputs.shape[1:3]).astype(np.float32) if upsample else raw


class _Logits(nn.Module):
    """The network as torchcam calls it: its logits alone, computed on a copy of the inputs, which it may overwrite."""

    def __init__(self, network: TorchNetwork) -> None:
        super().__init__()
        self.module = network.module
        self._of = network

    def forward(self, inputs: Tensor) -> Tensor:
        return _matrix(self._of._logits(self._of._call(inputs.clone())))


def _method(name: object) -> type:
    if not isinstance(name, str) or name not in METHODS:
        raise ValueError(f"torchcam has no method {name!r}; it has {sorted(METHODS)}")
    return METHODS[name]


def _base(cam: type, options: Mapping[str, object]) -> type:
    """The class that makes the maps: the method itself, or what RefineCAM and FinerCAM are built on."""
    parameter = inspect.signature(cam).parameters.get("base_method")
    base = cam if parameter is None else options.get("base_method", parameter.default)
    assert isinstance(base, type)
    return base


def _parameters(cam: type) -> set[str]:
    """The names a constructor takes, with those it hands on to the classes it inherits from."""
    names: set[str] = set()
    for base in cam.__mro__[:-1]:
        parameters = inspect.signature(base.__init__).parameters.values()  # type: ignore[misc]
        names |= {p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
        if not any(p.kind == p.VAR_KEYWORD for p in parameters):
            break
    return names


def _modules(
    network: TorchNetwork, inputs: Array, method: str, layer: str | Sequence[str] | None, *, reshaped: bool
) -> tuple[list[nn.Module], tuple[int, int]]:
    """The modules torchcam is to hook, and which axis of their outputs is the batch's and, once that is first, which the units'."""
    modules = dict(_named_modules(network.module))
    names = [layer] if layer is None or isinstance(layer, str) else layer
    if method == "LeGrad":
        blocks = [name for name, module in modules.items() if isinstance(getattr(module, "self_attention", None), nn.MultiheadAttention)]
        if unfit := [name for name in names if name not in blocks]:
            raise ValueError(
                f"torchcam's LeGrad explains blocks with a `self_attention` (torch.nn.MultiheadAttention) and not {unfit}; this network has {blocks}"
            )
        return [modules[str(name)] for name in names], (0, 1)
    found = []
    for name in names:
        if not reshaped:
            name = spatial_layer(network, inputs, name)
        elif name not in [described.name for described in network.describe(inputs)]:
            raise ValueError(network._unknown_layers([str(name)]))
        assert name is not None
        base = name if name in modules else name.rpartition(".call")[0]
        last = [other for other in network.layers if other == base or (other.startswith(base + ".call") and other not in modules)][-1]
        if name != last:
            raise ValueError(f"torchcam keeps a module's last call, {last!r}, and cannot explain {name!r}; netlapse.analysis.saliency.grad_cam can")
        found.append((modules[base], network._axes[name]))
    axes = {places for _, places in found}
    if len(axes) > 1:
        raise ValueError(f"layers {names} keep batch and units in different axes, {sorted(axes)}; torchcam's {method} combines layers that agree")
    return [module for module, _ in found], axes.pop()


def _classifier(network: TorchNetwork, name: object) -> nn.Module:
    """CAM's dense layer: the named module, or the only dense one there is."""
    modules = dict(_named_modules(network.module))
    dense = [other for other, module in modules.items() if isinstance(module, nn.Linear)]
    if name is None and len(dense) == 1:
        return modules[dense[0]]
    if not isinstance(name, str) or getattr(modules.get(name), "weight", None) is None:
        raise ValueError(
            f"torchcam's CAM reads the weights of one dense layer and was given fc_layer={name!r}; this network's dense layers are {dense}"
        )
    return modules[name]


def _check_pooled(activation: Tensor, dense: nn.Module, logits: Tensor) -> None:
    """Raises ValueError unless the logits are the dense layer of the activation's means over positions (Zhou et al., 2016, section 2)."""
    logits, pooled, weight = logits.detach(), activation.flatten(2).mean(-1), dense.get_parameter("weight").detach().flatten(1)
    bias = 0 if dense.bias is None else dense.get_parameter("bias").detach()
    expected = pooled @ weight.T + bias if weight.shape == (logits.shape[1], pooled.shape[1]) else None
    scale = float(logits.abs().nan_to_num().max())
    if expected is None or not torch.allclose(expected, logits, rtol=0, atol=scale * torch.finfo(logits.dtype).eps ** 0.5, equal_nan=True):
        raise ValueError(
            f"torchcam's CAM is defined where the logits are a dense layer of the layer's means over positions; this layer's {pooled.shape[1]} means "
            f"and the dense layer's weights {tuple(weight.shape)} do not give the logits; name the layer before the pooling, or take GradCAM"
        )


def _check_output(module: nn.Module, args: object, output: object) -> None:
    if not isinstance(output, Tensor):
        raise TypeError(
            f"torchcam explains layers that return one tensor; this {type(module).__name__} returns a {type(output).__name__}; name one inside it"
        )


def _copy_output(module: nn.Module, args: object, output: Tensor) -> Tensor:
    return output.clone()


@contextmanager
def _hooks_removed(root: nn.Module) -> Iterator[None]:
    """Outside, every submodule has the hooks it had before; torchcam's constructors leave theirs behind when they fail."""
    before = [(hooks, set(hooks)) for module in root.modules() for hooks in (getattr(module, name) for name in _HOOKS)]
    try:
        yield
    finally:
        for hooks, kept in before:
            for key in set(hooks) - kept:
                del hooks[key]
