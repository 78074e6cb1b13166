"""A class-conditional flow-matching U-Net of linear maps and ReLU: all of it in this file.

- Predicts the clean image x1 from x_t = t x1 + (1 - t) x0; the samplers turn that into a flow.
- No time embedding: the noise level is read off the image (Sun et al. 2025, arXiv 2502.13129),
  so that nothing inside moves between two steps but what the image moves.
- No normalisation: residual branches start with weights of zero (Zhang et al. 2019, Fixup).
- Every weight but the stem's reads a ReLU, so the whole network turns into sigma-delta events.
- `core="spiking"` puts integer-LIF neurons in the inner levels: a spiking core in an ANN shell.

Shapes: images [B, C, H, W] in [-1, 1], labels [B] int64.
"""

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from ..core.config import Config
from ..core.errors import InputError
from ..nn import IntegerLIF, OneStep
from .base import Model


@dataclass(frozen=True, kw_only=True)
class FlowConfig(Config):
    """Sizes of a `FlowUNet`.

    Attributes:
        channels, size: of the image, which is `size` x `size`.
        patch: pixels on a side that the stem folds into channels.
        widths, depths: channels, and residual blocks on the way in, of each level, outer first.
        classes: how many.
        core: what the inner level computes with.
        levels, threshold: of its integer-LIF neurons, if it is spiking.

    Raises:
        InputError: sizes that don't fit together.
    """

    channels: int = 1
    size: int = 28
    patch: int = 2
    widths: tuple[int, ...] = (48, 96)
    depths: tuple[int, ...] = (1, 3)
    classes: int = 10
    core: Literal["relu", "spiking"] = "relu"
    levels: int = 4
    threshold: float = 0.25

    def __post_init__(self):
        stride = self.patch * 2 ** (len(self.widths) - 1)
        if len(self.widths) != len(self.depths) or not self.widths:
            raise InputError(f"FlowConfig: {len(self.widths)} widths but {len(self.depths)} depths")
        if min(self.channels, self.size, self.patch, self.classes, *self.widths) < 1:
            raise InputError("FlowConfig: every size must be at least 1")
        if min(self.depths) < 0 or self.levels < 1 or not self.threshold > 0:
            raise InputError("FlowConfig: depths must be at least 0, levels 1, threshold above 0")
        if self.size % stride:
            raise InputError(f"FlowConfig: size {self.size} is not a multiple of {stride}")
        if self.core not in ("relu", "spiking"):
            raise InputError(f"FlowConfig: core {self.core!r} is not 'relu' or 'spiking'")


class Block(nn.Module):
    """x + conv(act(conv(act(x)) + class bias)), the last convolution's weights starting at zero."""

    def __init__(self, width: int, classes: int, activation):
        super().__init__()
        self.act1, self.act2 = activation(), activation()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.label = nn.Embedding(classes, width)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.label.weight)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        h = self.conv1(self.act1(x)) + self.label(label)[:, :, None, None]
        return x + self.conv2(self.act2(h))


class Resample(nn.Module):
    """act, convolution, and for `up` a nearest-neighbour doubling of the smaller map."""

    def __init__(self, in_channels: int, out_channels: int, up: bool, activation):
        super().__init__()
        self.act, self.up = activation(), up
        kernel, stride, padding = (1, 1, 0) if up else (3, 2, 1)
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(self.act(x))
        return F.interpolate(y, scale_factor=2.0, mode="nearest") if self.up else y


class FlowUNet(Model):
    """The network: `model(x, label)` estimates the clean image behind `x`."""

    Config = FlowConfig
    config: FlowConfig

    def __init__(self, config: FlowConfig):
        super().__init__(config)
        widths, pixels = config.widths, config.channels * config.patch**2
        inner = len(widths) - 1

        def activation(level: int):
            if level == inner and config.core == "spiking":
                return lambda: OneStep(IntegerLIF(config.levels, config.threshold))
            return nn.ReLU

        def blocks(level: int, count: int) -> nn.ModuleList:
            return nn.ModuleList(
                Block(widths[level], config.classes, activation(level)) for _ in range(count)
            )

        self.stem = nn.Conv2d(pixels, widths[0], 3, padding=1)
        self.down = nn.ModuleList(blocks(i, config.depths[i]) for i in range(inner))
        self.shrink = nn.ModuleList(
            Resample(widths[i], widths[i + 1], False, activation(i)) for i in range(inner)
        )
        self.middle = blocks(inner, config.depths[inner])
        self.grow = nn.ModuleList(
            Resample(widths[i + 1], widths[i], True, activation(i + 1)) for i in range(inner)
        )
        self.up = nn.ModuleList(blocks(i, config.depths[i]) for i in range(inner))
        self.act = nn.ReLU()
        self.head = nn.Conv2d(widths[0], pixels, 3, padding=1)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        x = self.stem(F.pixel_unshuffle(x, self.config.patch))
        skips = []
        for blocks, shrink in zip(self.down, self.shrink, strict=True):
            for block in blocks:
                x = block(x, label)
            skips.append(x)
            x = shrink(x)
        for block in self.middle:
            x = block(x, label)
        for skip, blocks, grow in reversed(list(zip(skips, self.up, self.grow, strict=True))):
            x = skip + grow(x)
            for block in blocks:
                x = block(x, label)
        return F.pixel_shuffle(self.head(self.act(x)), self.config.patch)
