"""Residual classifiers (He et al. 2016, arXiv 1512.03385): ResNet-18 for small pictures.

A 3 x 3 stem, stages of two blocks of two convolutions each, and the average over the map.

Shapes: images [B, C, H, W] in [-1, 1], logits [B, classes].
"""

from dataclasses import dataclass

from torch import Tensor, nn

from ..core.config import Config
from ..core.errors import InputError
from ..nn import rectifier
from .base import Model


@dataclass(frozen=True, kw_only=True)
class ResNetConfig(Config):
    """Sizes of a `ResNet`.

    Attributes:
        channels, classes: of the images.
        widths: of the stages; each after the first halves the map.
        blocks: in a stage.
        levels: of quantised activations (`nn.QCFS`); 0 for ReLU.

    Raises:
        InputError: a size below 1, or no stage.
    """

    channels: int = 3
    classes: int = 10
    widths: tuple[int, ...] = (16, 32, 64, 128)
    blocks: int = 2
    levels: int = 0

    def __post_init__(self):
        if min(self.channels, self.classes, self.blocks, *self.widths) < 1 or self.levels < 0:
            raise InputError("ResNetConfig: every size must be at least 1")
        if not self.widths:
            raise InputError("ResNetConfig: there must be a stage")


def _convolution(in_channels: int, out_channels: int, kernel: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels))


class Block(nn.Module):
    """y = relu(x + f(x)), f two convolutions; x by a 1 x 1 convolution where shapes differ."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, levels: int):
        super().__init__()
        self.first = _convolution(in_channels, out_channels, 3, stride)
        self.between = rectifier(levels)
        self.second = _convolution(out_channels, out_channels, 3, 1)
        same = in_channels == out_channels and stride == 1
        self.shortcut = (
            nn.Identity() if same else _convolution(in_channels, out_channels, 1, stride)
        )
        self.after = rectifier(levels)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.shortcut(x) + self.second(self.between(self.first(x))))


class ResNet(Model):
    """A stem, stages of blocks, and a linear map of the averaged channels."""

    Config = ResNetConfig

    def __init__(self, config: ResNetConfig):
        super().__init__(config)
        in_channels = config.widths[0]
        self.stem = nn.Sequential(
            _convolution(config.channels, in_channels, 3, 1), rectifier(config.levels)
        )
        blocks = []
        for stage, width in enumerate(config.widths):
            for index in range(config.blocks):
                stride = 2 if stage and not index else 1
                blocks.append(Block(in_channels, width, stride, config.levels))
                in_channels = width
        self.stages = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(in_channels, config.classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.stages(self.stem(x))).flatten(1))
