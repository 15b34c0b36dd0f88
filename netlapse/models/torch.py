"""Networks to start from: plain torch modules that take channels-first tensors and return logits (n, k).

Every nonlinearity is a module of its own with a readable name, so that each can be observed and named on a picture.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from netlapse.models.checks import check_cnn, check_mlp, check_resnet18, check_transformer


class MLP(nn.Sequential):
    """Dense layers: (n, ...) -> logits (n, k)."""


class CNN(nn.Sequential):
    """Blocks of convolution, batch norm, ReLU and max pooling, then a dense layer: (n, c, h, w) -> logits (n, k)."""


class ResNet(nn.Sequential):
    """A residual network: (n, c, h, w) -> logits (n, k)."""


class VisionTransformer(nn.Sequential):
    """A transformer over patches: (n, c, h, w) -> tokens (n, t, d) -> logits (n, k)."""


def mlp(input_shape: Sequence[int], n_classes: int, *, hidden: Sequence[int] = (512, 256), dropout: float = 0.2) -> MLP:
    """Dense layers with ReLU and dropout, for images (h, w, c) or vectors (f,).

    Raises ValueError for a shape, size or rate that cannot be.
    """
    check_mlp(input_shape, n_classes, hidden, dropout)
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    features = torch.Size(input_shape).numel()
    for index, width in enumerate(hidden, 1):
        layers[f"dense{index}"] = nn.Linear(features, width)
        layers[f"relu{index}"] = nn.ReLU()
        layers[f"dropout{index}"] = nn.Dropout(dropout)
        features = width
    layers["output"] = nn.Linear(features, n_classes)
    return MLP(layers)


def cnn(input_shape: Sequence[int], n_classes: int, *, channels: Sequence[int] = (32, 64, 128), hidden: int = 128, dropout: float = 0.25) -> CNN:
    """A small convolutional network; each block halves height and width, and what is left is flattened.

    Raises ValueError for a shape, size or rate that cannot be, and for images too small to be halved once per block.
    """
    check_cnn(input_shape, n_classes, channels, hidden, dropout)
    height, width, features = input_shape
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index, units in enumerate(channels, 1):
        layers[f"conv{index}"] = nn.Conv2d(features, units, 3, padding=1, bias=False)  # the norm after it has a bias
        layers[f"norm{index}"] = nn.BatchNorm2d(units)
        layers[f"relu{index}"] = nn.ReLU()
        layers[f"pool{index}"] = nn.MaxPool2d(2)
        features = units
    layers["flatten"] = nn.Flatten()
    layers["dense"] = nn.Linear(features * (height >> len(channels)) * (width >> len(channels)), hidden)
    layers[f"relu{len(channels) + 1}"] = nn.ReLU()
    layers["dropout"] = nn.Dropout(dropout)
    layers["output"] = nn.Linear(hidden, n_classes)
    return CNN(layers)


def resnet18(input_shape: Sequence[int], n_classes: int, *, width: int = 64) -> ResNet:
    """ResNet-18 (He et al., 2016, table 1) as it is used for 32 x 32 images: a 3 x 3 stem of stride 1 and no max pooling.

    width is the number of channels of the first stage; each later stage has twice as many at half the size.

    Raises ValueError for a shape or size that cannot be, and for images smaller than 8 x 8.
    """
    check_resnet18(input_shape, n_classes, width)
    features = input_shape[-1]
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(features, width, 3, padding=1, bias=False), norm1=nn.BatchNorm2d(width), relu1=nn.ReLU()
    )
    features = width
    for stage in range(4):
        units = width * 2**stage
        first = BasicBlock(features, units, stride=1 if stage == 0 else 2)
        layers[f"stage{stage + 1}"] = nn.Sequential(OrderedDict(block1=first, block2=BasicBlock(units, units, stride=1)))
        features = units
    layers |= {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "output": nn.Linear(features, n_classes)}
    return ResNet(layers)


class BasicBlock(nn.Module):
    """Two convolutions around which the input is added (He et al., 2016, figure 2 and eqs. 1-2): (n, c, h, w) -> (n, c', h / stride, w / stride).

    Where shape changes, the shortcut is a 1 x 1 convolution with batch norm (the paper's option B). The two ReLUs are
    two modules: a module called twice has two outputs and one name.
    """

    def __init__(self, features: int, units: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, units, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(units)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(units, units, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(units)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or features != units:
            self.shortcut = nn.Sequential(OrderedDict(conv=nn.Conv2d(features, units, 1, stride, bias=False), norm=nn.BatchNorm2d(units)))
        self.relu2 = nn.ReLU()

    def forward(self, inputs: Tensor) -> Tensor:
        residual = self.norm2(self.conv2(self.relu1(self.norm1(self.conv1(inputs)))))
        outputs: Tensor = self.relu2(residual + self.shortcut(inputs))
        return outputs


def transformer(input_shape: Sequence[int], n_classes: int, *, width: int = 64, depth: int = 4, heads: int = 4, patch: int = 4) -> VisionTransformer:
    """A small vision transformer (Dosovitskiy et al., 2021, eqs. 1-4) that averages its tokens instead of adding a class token.

    width   features d of a token, divided evenly among the heads; the dense layers inside a block have 4 d
    patch   side of the square patches, of which there are t = (h / patch) (w / patch)

    Raises ValueError for a shape or size that cannot be, and where heads or patch do not divide evenly.
    """
    check_transformer(input_shape, n_classes, width, depth, heads, patch)
    layers: OrderedDict[str, nn.Module] = OrderedDict(embed=PatchEmbedding(input_shape, width, patch))
    for index in range(1, depth + 1):
        layers[f"block{index}"] = TransformerBlock(width, heads)
    layers |= {"norm": nn.LayerNorm(width), "pool": TokenMean(), "output": nn.Linear(width, n_classes)}
    return VisionTransformer(layers)


class PatchEmbedding(nn.Module):
    """A linear map of each patch plus a learnt vector for its place: (n, c, h, w) -> (n, t, d), in reading order."""

    def __init__(self, input_shape: Sequence[int], width: int, patch: int) -> None:
        super().__init__()
        height, breadth, features = input_shape
        self.project = nn.Conv2d(features, width, patch, stride=patch)
        self.position = nn.Parameter(torch.empty(1, (height // patch) * (breadth // patch), width))
        # At the usual 0.02 the places are hard to tell apart at first: 77 instead of 90 % of mnist5000 after six epochs (one seed).
        nn.init.trunc_normal_(self.position, std=0.3)

    def forward(self, inputs: Tensor) -> Tensor:
        tokens: Tensor = self.project(inputs).flatten(2).transpose(1, 2)
        return tokens + self.position


class TransformerBlock(nn.Module):
    """Attention and two dense layers, each normalised before and added to its input: (n, t, d) -> (n, t, d)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.dense1 = nn.Linear(width, 4 * width)
        self.gelu = nn.GELU()
        self.dense2 = nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attention(self.norm1(tokens))
        outputs: Tensor = tokens + self.dense2(self.gelu(self.dense1(self.norm2(tokens))))
        return outputs


class Attention(nn.Module):
    """Multi-head self-attention (Vaswani et al., 2017, eq. 1): (n, t, d) -> (n, t, d).

    Written out, because nn.MultiheadAttention returns a tuple and takes fused paths without forward-mode derivatives,
    which FullGrad needs.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        n, t, d = tokens.shape
        query, key, value = self.query_key_value(tokens).view(n, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        weights = (query @ key.transpose(-2, -1) / (d // self.heads) ** 0.5).softmax(dim=-1)
        outputs: Tensor = self.project((weights @ value).transpose(1, 2).reshape(n, t, d))
        return outputs


class TokenMean(nn.Module):
    """The mean over tokens: (n, t, d) -> (n, d)."""

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens.mean(dim=1)
