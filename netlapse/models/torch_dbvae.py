"""The debiasing variational autoencoder of Amini, Soleimany, Schwarting, Bhatia & Rus (AIES 2019) in torch.

A classifier whose last hidden features are also those of a variational autoencoder. What it is for are the posterior means: inputs that are
rare among them are drawn more, see `netlapse.callbacks.lightning_sampling.AdaptiveSampling(layer="means")`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from netlapse.models.checks import Reconstruction, check_dbvae, halved

KERNEL = 5  # of all convolutions, as in the paper; MIT's course has two of 5 and two of 3


class DBVAE(nn.Module):
    """A DB-VAE for images (h, w, c) of any size, or vectors (f,): channels-first tensors (n, ...) -> logits (n, k).

    channels        of the convolution blocks, each of which halves height and width, rounded up; None: 12, 24, 48 and 72 as in MIT's course for
                    images, none for vectors; without any, all layers are dense
    hidden          widths of the dense layers after them, the last of which feeds the logits, the means and the log-variances
    latent          d, the number of latent variables
    reconstruction  the error of an input is the mean over its values of the "absolute" difference (MIT's course) or of the "squared" one
    c1, c2, c3      what cross entropy, reconstruction and the divergence from the prior count in the loss. The paper gives no numbers; these are
                    those of MIT's course (2024), whose images are between 0 and 1
    vae_classes     whose inputs the VAE learns; None: all. The paper's is of faces alone, the second of two classes: vae_classes=[1]

    The decoder is the encoder backwards, with transposed convolutions, without batch norm and linear at its end. A forward runs the encoder,
    the layers `means` and `output`; the decoder and `log_variances` are for the loss only.

    Raises ValueError for a shape, size, weight or class that cannot be.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        n_classes: int,
        *,
        channels: Sequence[int] | None = None,
        hidden: Sequence[int] = (512,),
        latent: int = 100,
        reconstruction: Reconstruction = "absolute",
        c1: float = 1.0,
        c2: float = 1.0,
        c3: float = 0.0005,
        vae_classes: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        check_dbvae(input_shape, n_classes, channels, hidden, latent, reconstruction, (c1, c2, c3), vae_classes)
        if channels is None:
            channels = (12, 24, 48, 72) if len(input_shape) == 3 else ()
        self.reconstruction, self.weights = reconstruction, (c1, c2, c3)
        self.encoder = _encoder(input_shape, channels, hidden)
        self.means = nn.Linear(hidden[-1], latent)
        self.log_variances = nn.Linear(hidden[-1], latent)
        self.output = nn.Linear(hidden[-1], n_classes)
        self.decoder = _decoder(input_shape, channels, hidden, latent)
        of_vae = torch.ones(n_classes) if vae_classes is None else torch.zeros(n_classes).index_fill(0, torch.tensor(list(vae_classes)), 1.0)
        self.register_buffer("of_vae", of_vae, persistent=False)
        self.of_vae: Tensor

    def forward(self, inputs: Tensor) -> Tensor:
        features = self.encoder(inputs)
        self.means(features)  # for those who observe this layer
        logits: Tensor = self.output(features)
        return logits

    def input_losses(self, inputs: Tensor, labels: Tensor, *, noise: Tensor | None = None) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """(n,) the loss of each input, (n, k) the logits, and the means over inputs of the loss's three parts, by name.

        c1 CE + [label is of the VAE] (c2 R + c3 KL), where R is of the decoder's answer to means + exp(log-variances / 2) noise,
        and KL = sum over d of (exp(log-variance) + mean^2 - 1 - log-variance) / 2, from the posterior to the standard normal. Inputs
        of other classes have R = KL = 0, also in the means over inputs, and give the decoder, means and log-variances no gradient.

        noise  (n, d); None: standard normal while training, and none else: then nothing is drawn
        """
        features = self.encoder(inputs)
        means, log_variances, logits = self.means(features), self.log_variances(features), self.output(features)
        if noise is None:
            noise = torch.randn_like(means) if self.training else torch.zeros_like(means)
        difference = self.decoder(means + (log_variances / 2).exp() * noise) - inputs
        difference = difference.abs() if self.reconstruction == "absolute" else difference.square()
        divergence = (log_variances.exp() + means.square() - 1 - log_variances).sum(dim=1) / 2
        of_vae = self.of_vae[labels]
        parts = {
            "cross_entropy": cross_entropy(logits, labels, reduction="none"),
            "reconstruction": of_vae * difference.flatten(1).mean(dim=1),
            "divergence": of_vae * divergence,
        }
        losses = sum(weight * part for weight, part in zip(self.weights, parts.values()))
        assert isinstance(losses, Tensor)
        return losses, logits, {name: part.detach().mean() for name, part in parts.items()}


def _encoder(input_shape: Sequence[int], channels: Sequence[int], hidden: Sequence[int]) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    features = input_shape[-1]
    for index, units in enumerate(channels, 1):
        layers[f"conv{index}"] = nn.Conv2d(features, units, KERNEL, stride=2, padding=KERNEL // 2, bias=False)  # the norm after it has a bias
        layers[f"norm{index}"] = nn.BatchNorm2d(units)
        layers[f"relu{index}"] = nn.ReLU()
        features = units
    layers["flatten"] = nn.Flatten()
    features = torch.Size(_code_shape(input_shape, channels)).numel()
    for index, width in enumerate(hidden, 1):
        layers[f"dense{index}"] = nn.Linear(features, width)
        layers[f"relu{len(channels) + index}"] = nn.ReLU()
        features = width
    return nn.Sequential(layers)


def _decoder(input_shape: Sequence[int], channels: Sequence[int], hidden: Sequence[int], latent: int) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    features = latent
    for index, width in enumerate(reversed(hidden), 1):
        layers[f"dense{index}"] = nn.Linear(features, width)
        layers[f"relu{index}"] = nn.ReLU()
        features = width
    shape = _code_shape(input_shape, channels)
    layers[f"dense{len(hidden) + 1}"] = nn.Linear(features, torch.Size(shape).numel())
    layers["unflatten"] = nn.Unflatten(1, shape)
    sizes = halved(input_shape, len(channels)) if channels else []
    for index in range(len(channels), 0, -1):
        layers[f"relu{len(hidden) + 1 + len(channels) - index}"] = nn.ReLU()
        # An even height is twice its half, an odd one a pixel less.
        more = tuple(1 - size % 2 for size in sizes[index - 1])
        units = channels[index - 2] if index > 1 else input_shape[-1]
        layers[f"conv{index}"] = nn.ConvTranspose2d(channels[index - 1], units, KERNEL, 2, KERNEL // 2, output_padding=more)  # type: ignore[arg-type]
    return nn.Sequential(layers)


def _code_shape(input_shape: Sequence[int], channels: Sequence[int]) -> tuple[int, ...]:
    """What the last convolution block makes of an input, or the input's own shape, channels-first."""
    if len(input_shape) == 1:
        return (input_shape[0],)
    return (channels[-1] if channels else input_shape[2], *halved(input_shape, len(channels))[-1])
