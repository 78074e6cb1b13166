"""A small image classifier of convolutions and ReLU, whose features also judge generated images.

No normalisation: He initialisation keeps the scale (He et al. 2015, arXiv 1502.01852), so that
an image's features depend on that image alone.

Shapes: images [B, C, H, W] in [-1, 1], logits [B, classes], features [B, F].
"""

from dataclasses import dataclass

from torch import Tensor, nn

from ..core.config import Config
from ..core.errors import InputError
from .base import Model


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig(Config):
    """Sizes of a `Classifier`: `width` channels in its first layer, `features` in its last but one.

    Raises:
        InputError: a size below 1, or images smaller than the eightfold shrinking needs.
    """

    channels: int = 1
    size: int = 28
    width: int = 16
    features: int = 64
    classes: int = 10

    def __post_init__(self):
        if min(self.channels, self.width, self.features, self.classes) < 1:
            raise InputError("ClassifierConfig: every size must be at least 1")
        if self.size < 8:
            raise InputError(f"ClassifierConfig: size {self.size} is below 8")


class Classifier(Model):
    """Four convolutions that shrink the map eightfold, a layer of features, and the classes."""

    Config = ClassifierConfig

    def __init__(self, config: ClassifierConfig):
        super().__init__(config)
        widths = (config.channels, config.width, *(config.width * k for k in (2, 4, 2)))
        side = -(-config.size // 8)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(width, after, 3, stride, padding=1)
            for width, after, stride in zip(widths, widths[1:], (1, 2, 2, 2), strict=False)
        )
        self.hidden = nn.Linear(widths[-1] * side * side, config.features)
        self.head = nn.Linear(config.features, config.classes)
        for layer in (*self.convolutions, self.hidden):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)

    def features(self, x: Tensor) -> Tensor:
        """The activations [B, F] before the last layer, all at least 0.

        Raises:
            InputError: `x` is not a batch of images of the configured shape.
        """
        shape = (self.config.channels, self.config.size, self.config.size)
        if x.ndim != 4 or x.shape[1:] != shape:
            raise InputError(f"Classifier: {tuple(x.shape)} is no batch of {shape} images")
        for convolution in self.convolutions:
            x = convolution(x).relu()
        return self.hidden(x.flatten(1)).relu()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))
