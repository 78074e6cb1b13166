"""A small spiking image classifier: convolutions and leaky neurons, spikes in, sums out.

A pixel of brightness p in [0, 1] sends `rate` p spikes a step, evenly spaced. The class whose
linear read-out of the last spikes sums highest wins.

Shapes: images [B, C, H, W] in [-1, 1], spikes [T, B, ...], logits [B, classes].
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..core.config import Config
from ..core.errors import InputError
from ..nn import LIF, Sequential
from .base import Model


@dataclass(frozen=True, kw_only=True)
class SpikingConfig(Config):
    """Sizes of a `SpikingClassifier`.

    Attributes:
        channels, size: of the images.
        widths: channels of the two convolutions, each of which halves the map.
        features: neurons of the last but one layer.
        classes: how many.
        steps: of time that an image is shown.
        rate: spikes a step of the brightest pixel, in (0, 1].
        decay: of the membranes, per step.

    Raises:
        InputError: a size below 1, or a rate or decay out of range.
    """

    channels: int = 1
    size: int = 28
    widths: tuple[int, ...] = (16, 32)
    features: int = 128
    classes: int = 10
    steps: int = 12
    rate: float = 0.25
    decay: float = 0.9

    def __post_init__(self):
        sizes = (self.channels, self.features, self.classes, self.steps, *self.widths)
        if len(self.widths) != 2 or min(sizes) < 1 or self.size < 4:
            raise InputError("SpikingConfig: two widths, and every size at least 1 (images 4)")
        if not (0 < self.rate <= 1 and 0 <= self.decay <= 1):
            raise InputError("SpikingConfig: rate must lie in (0, 1] and decay in [0, 1]")


class SpikingClassifier(Model):
    """Two convolutions and two linear maps with neurons between them.

    Attributes:
        network: `y, state = network(spikes, state)`, y [T, B, classes].
    """

    Config = SpikingConfig
    config: SpikingConfig

    def __init__(self, config: SpikingConfig):
        super().__init__(config)
        first, second = config.widths
        side = -(-config.size // 4)
        options = {"bias": False}
        maps = (
            nn.Conv2d(config.channels, first, 5, 2, padding=2, **options),
            nn.Conv2d(first, second, 3, 2, padding=1, **options),
            nn.Linear(second * side * side, config.features, **options),
            nn.Linear(config.features, config.classes, **options),
        )
        with torch.no_grad():
            for layer in maps[:3]:  # sparse spikes need larger weights than dense values
                layer.weight *= 3
        neurons = [LIF(config.decay, surrogate="triangle") for _ in range(3)]
        self.network = Sequential(
            maps[0], neurons[0], maps[1], neurons[1], nn.Flatten(), maps[2], neurons[2], maps[3]
        )

    def spikes(self, image: Tensor) -> Tensor:
        """What the pixels send, [T, B, C, H, W].

        Raises:
            InputError: `image` is not a batch of images of the configured shape.
        """
        shape = (self.config.channels, self.config.size, self.config.size)
        if image.ndim != 4 or image.shape[1:] != shape:
            raise InputError(f"SpikingClassifier: {tuple(image.shape)} is no batch of {shape}")
        a_step = (image + 1) / 2 * self.config.rate
        times = torch.arange(self.config.steps + 1, device=image.device, dtype=image.dtype)
        sent = torch.floor(times.reshape(-1, 1, 1, 1, 1) * a_step + 1e-4)
        return sent.diff(dim=0)

    def forward(self, image: Tensor) -> Tensor:
        """The logits: what the read-out sums over time."""
        return self.network(self.spikes(image))[0].sum(0)
