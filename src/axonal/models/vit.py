"""A small vision transformer (Dosovitskiy et al. 2021, arXiv 2010.11929).

Tokens from a convolution over patches, learned places, pre-norm blocks, and the average of all
tokens instead of a class token.

Shapes: images [B, C, H, W] in [-1, 1], tokens [B, N, D], logits [B, classes].
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..core.config import Config
from ..core.errors import InputError
from .base import Model


@dataclass(frozen=True, kw_only=True)
class ViTConfig(Config):
    """Sizes of a `ViT`: `width` D of a token, `spread` times as wide inside the blocks' MLPs.

    Raises:
        InputError: a size below 1, or sizes that don't divide.
    """

    channels: int = 3
    size: int = 32
    classes: int = 10
    patch: int = 4
    width: int = 96
    depth: int = 4
    heads: int = 4
    spread: int = 2

    def __post_init__(self):
        sizes = (self.channels, self.classes, self.patch, self.depth, self.heads, self.spread)
        if min(*sizes, self.width, self.size) < 1:
            raise InputError("ViTConfig: every size must be at least 1")
        if self.size % self.patch or self.width % self.heads:
            raise InputError("ViTConfig: patch must divide size, and heads width")


class Attention(nn.Module):
    """Softmax attention between tokens, by matrix products that a conversion can follow."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, heads, N, D / heads]

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (self._split(f(x)) for f in (self.query, self.key, self.value))
        weights = torch.softmax(torch.matmul(query * self.scale, key.transpose(-2, -1)), -1)
        return self.out(torch.matmul(weights, value).transpose(1, 2).flatten(2))


class TransformerBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, heads: int, spread: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.mlp = nn.Sequential(
            nn.Linear(width, spread * width), nn.GELU(), nn.Linear(spread * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(Model):
    """Patches to tokens, blocks, the mean token, and a linear map."""

    Config = ViTConfig

    def __init__(self, config: ViTConfig):
        super().__init__(config)
        width, tokens = config.width, (config.size // config.patch) ** 2
        self.patches = nn.Conv2d(config.channels, width, config.patch, config.patch)
        self.places = nn.Parameter(0.02 * torch.randn(1, tokens, width))
        blocks = (TransformerBlock(width, config.heads, config.spread) for _ in range(config.depth))
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, config.classes)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.places
        return self.head(self.norm(self.blocks(tokens)).mean(1))
