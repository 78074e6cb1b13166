"""Plain convolutional classifiers (Simonyan and Zisserman 2015, arXiv 1409.1556), small.

Stages of 3 x 3 convolutions with batch normalisation, each halving the map by averages, which a
spiking network can follow exactly; then one linear map.

Shapes: images [B, C, H, W] in [-1, 1], logits [B, classes].
"""

from dataclasses import dataclass

from torch import Tensor, nn

from ..core.config import Config
from ..core.errors import InputError
from ..nn import rectifier
from .base import Model


@dataclass(frozen=True, kw_only=True)
class VGGConfig(Config):
    """Sizes of a `VGG`.

    Attributes:
        channels, size, classes: of the images.
        widths: of the stages.
        convolutions: in a stage.
        levels: of quantised activations (`nn.QCFS`); 0 for ReLU.

    Raises:
        InputError: a size below 1, or images that the stages shrink to nothing.
    """

    channels: int = 3
    size: int = 32
    classes: int = 10
    widths: tuple[int, ...] = (24, 48, 96)
    convolutions: int = 2
    levels: int = 0

    def __post_init__(self):
        sizes = (self.channels, self.classes, self.convolutions, *self.widths)
        if min(sizes) < 1 or self.levels < 0:
            raise InputError("VGGConfig: every size must be at least 1")
        if self.size >> len(self.widths) < 1:
            raise InputError(f"VGGConfig: {len(self.widths)} stages leave nothing of {self.size}")


class VGG(Model):
    """Convolutions, averages, and one linear map."""

    Config = VGGConfig

    def __init__(self, config: VGGConfig):
        super().__init__(config)
        layers, in_channels, side = [], config.channels, config.size
        for width in config.widths:
            for _ in range(config.convolutions):
                layers += [
                    nn.Conv2d(in_channels, width, 3, padding=1, bias=False),
                    nn.BatchNorm2d(width),
                    rectifier(config.levels),
                ]
                in_channels = width
            layers.append(nn.AvgPool2d(2))
            side //= 2
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(in_channels * side * side, config.classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).flatten(1))
