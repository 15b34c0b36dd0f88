"""What input shapes, sizes and rates the networks can have, said once, so that every framework raises the same errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

Reconstruction = Literal["absolute", "squared"]


def check_mlp(input_shape: Sequence[int], n_classes: int, hidden: Sequence[int], dropout: float) -> None:
    if len(input_shape) not in (1, 3):
        raise ValueError(f"mlp: input_shape is {tuple(input_shape)}; expected (h, w, c) for images or (f,) for vectors")
    _check_sizes("mlp", input_shape=input_shape, n_classes=(n_classes,), hidden=hidden)
    _check_rate("mlp", dropout)


def check_cnn(input_shape: Sequence[int], n_classes: int, channels: Sequence[int], hidden: int, dropout: float) -> None:
    height, width, _ = _image_shape("cnn", input_shape)
    _check_sizes("cnn", input_shape=input_shape, n_classes=(n_classes,), channels=channels, hidden=(hidden,))
    _check_rate("cnn", dropout)
    if min(height, width) < 2 ** len(channels):
        raise ValueError(
            f"cnn: images of {height} x {width} cannot be halved {len(channels)} times, once per entry of channels; "
            f"expected at least {2 ** len(channels)} pixels on a side, or fewer channels"
        )


def check_resnet18(input_shape: Sequence[int], n_classes: int, width: int) -> None:
    height, breadth, _ = _image_shape("resnet18", input_shape)
    _check_sizes("resnet18", input_shape=input_shape, n_classes=(n_classes,), width=(width,))
    if min(height, breadth) < 8:
        raise ValueError(f"resnet18: images are {height} x {breadth}; expected at least 8 x 8, because three stages halve them")


def check_transformer(input_shape: Sequence[int], n_classes: int, width: int, depth: int, heads: int, patch: int) -> None:
    height, breadth, _ = _image_shape("transformer", input_shape)
    _check_sizes("transformer", input_shape=input_shape, n_classes=(n_classes,), width=(width,), depth=(depth,), heads=(heads,), patch=(patch,))
    if height % patch or breadth % patch:
        raise ValueError(
            f"transformer: images of {height} x {breadth} do not divide into patches of {patch} x {patch}; choose a patch that divides both sides"
        )
    if width % heads:
        raise ValueError(f"transformer: width {width} does not divide among {heads} heads; choose a multiple of {heads}")


def check_dbvae(
    input_shape: Sequence[int],
    n_classes: int,
    channels: Sequence[int] | None,
    hidden: Sequence[int],
    latent: int,
    reconstruction: str,
    weights: Sequence[float],
    vae_classes: Sequence[int] | None,
) -> None:
    if len(input_shape) not in (1, 3):
        raise ValueError(f"dbvae: input_shape is {tuple(input_shape)}; expected (h, w, c) for images or (f,) for vectors")
    _check_sizes("dbvae", input_shape=input_shape, n_classes=(n_classes,), hidden=hidden, latent=(latent,))
    if channels:
        _image_shape("dbvae", input_shape, "channels=()")
        _check_sizes("dbvae", channels=channels)
    if reconstruction not in get_args(Reconstruction):
        raise ValueError(f"dbvae: reconstruction is {reconstruction!r}; allowed are {get_args(Reconstruction)}")
    for name, weight in zip(("c1", "c2", "c3"), weights):
        if not 0 <= weight < float("inf"):
            raise ValueError(f"dbvae: {name} is {weight}; expected a weight of a part of the loss, a finite number of at least 0")
    if vae_classes is not None and (not len(vae_classes) or set(vae_classes) - set(range(n_classes))):
        raise ValueError(
            f"dbvae: vae_classes is {list(vae_classes)}; expected one or more of the classes 0 to {n_classes - 1}, or None, which is all of them"
        )


def halved(input_shape: Sequence[int], times: int) -> list[tuple[int, int]]:
    """(height, width) of an image before each halving, which rounds up, and after the last."""
    sizes = [(input_shape[0], input_shape[1])]
    for _ in range(times):
        sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
    return sizes


def _image_shape(factory: str, input_shape: Sequence[int], for_vectors: str = "mlp") -> tuple[int, int, int]:
    if len(input_shape) != 3:
        raise ValueError(f"{factory}: input_shape is {tuple(input_shape)}; expected (h, w, c), an image's; for vectors (f,) use {for_vectors}")
    return input_shape[0], input_shape[1], input_shape[2]


def _check_sizes(factory: str, **sizes: Sequence[int]) -> None:
    """Raises ValueError, naming the argument, unless every size is a positive integer."""
    for name, values in sizes.items():
        if isinstance(values, str | int) or not values or not all(isinstance(value, int) and value > 0 for value in values):
            raise ValueError(f"{factory}: {name} holds {values if isinstance(values, str | int) else list(values)}; expected positive integers")


def _check_rate(factory: str, dropout: float) -> None:
    if not 0 <= dropout < 1:
        raise ValueError(f"{factory}: dropout is {dropout}; expected 0 <= dropout < 1")
