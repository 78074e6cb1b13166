"""Spiking classifiers, feed-forward or recurrent, in the shorthand of the literature.

`layers=("32c5p2", "64c5p2", "256", "128r")` is a convolution of 32 channels, 5 x 5, whose sums are
averaged over 2 x 2, then one of 64; then 256 neurons that see all, then 128 that also see each
other's last spikes. Each is followed by neurons; a linear map reads the last ones out. `s2` in a
convolution is its stride. The class whose output sums highest over time wins.

Shapes: images [B, C, H, W] in [-1, 1] or events [B, T, ...], spikes [T, B, ...], logits
[B, classes].
"""

import math
import re
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor, nn

from ..core.config import Config, renamed
from ..core.errors import InputError
from ..core.neurons import RENAMED, AdaptiveThreshold, Leaky
from ..nn import LI, Neuron, Recurrent, Sequential
from .base import Model

LAYER = re.compile(r"(?P<n>\d+)(?:c(?P<k>\d+)(?:s(?P<s>\d+))?(?:p(?P<p>\d+))?|(?P<r>r))?")
Coding = Literal["regular", "constant", "events"]


@dataclass(frozen=True, kw_only=True)
class SpikingConfig(Config):
    """Sizes and neurons of a `SpikingClassifier`.

    Attributes:
        shape: of one sample in one step, [C, H, W] or [N].
        layers: populations, as this file's first lines say.
        classes: how many.
        steps: of time that an image is shown; events bring their own.
        coding: of a sample as spikes. "regular": a pixel of brightness p in [0, 1] sends `rate` p
            spikes a step, evenly spaced. "constant": p itself in every step, so that the first
            layer turns it into spikes. "events": samples are spikes [T, ...].
        rate: spikes a step of the brightest pixel, in (0, 1].
        decay: of the membranes, per step.
        adaptive: whether thresholds rise with spikes: `AdaptiveThreshold`, else `Leaky`.
        rho, beta: of such thresholds.
        learn: constants of the neurons to train, one a neuron or channel.
        surrogate, slope: of the spikes; None for the default.
        norm: whether batch normalisation follows every layer's weights.
        dropout: share of spikes dropped behind populations that see all.
        boost: of the initial weights; sparse spikes need larger ones than dense values.
        recurrent: the same of the weights between neurons of one population.
        readout: decay of a leaky integrator behind the last weights; None for none.

    Raises:
        InputError: a layer that can't be read, a size below 1, or a constant out of range.
    """

    shape: tuple[int, ...] = (1, 28, 28)
    layers: tuple[str, ...] = ("16c5s2", "32c3s2", "128")
    classes: int = 10
    steps: int = 12
    coding: Coding = "regular"
    rate: float = 0.25
    decay: float = 0.9
    adaptive: bool = False
    rho: float = 0.97
    beta: float = 0.2
    learn: tuple[str, ...] = ()
    surrogate: str = "triangle"
    slope: float | None = None
    norm: bool = False
    dropout: float = 0.0
    boost: float = 3.0
    recurrent: float = 0.1
    readout: float | None = None

    def __post_init__(self):
        for layer in self.layers:
            if not (match := LAYER.fullmatch(layer)) or "0" in match.groupdict().values():
                raise InputError(
                    f"SpikingConfig: layer {layer!r} is not like 32c5, 32c5s2, 32c5p2, 128 or 128r"
                )
        kinds = ["c" in layer for layer in self.layers]
        if kinds != sorted(kinds, reverse=True) or (any(kinds) and len(self.shape) != 3):
            raise InputError("SpikingConfig: convolutions come first, of samples [C, H, W]")
        if min(self.classes, self.steps, *self.shape) < 1:
            raise InputError("SpikingConfig: classes, steps and shape must be at least 1")
        if self.coding not in get_args(Coding):
            raise InputError(f"SpikingConfig: coding {self.coding!r} is not {get_args(Coding)}")
        if not (0 < self.rate <= 1 and 0 <= self.dropout < 1 and self.boost > 0):
            raise InputError("SpikingConfig: rate in (0, 1], dropout in [0, 1), boost above 0")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """As `Config.from_dict`; the adaptive threshold's constants may have their names of before.

        Raises:
            InputError: as `Config.from_dict`.
        """
        if isinstance(values, dict):
            names = RENAMED["AdaptiveThreshold"]
            values = renamed(values, names)
            if isinstance(learn := values.get("learn"), list | tuple):
                values["learn"] = tuple(names.get(name, name) for name in learn)
        return super().from_dict(values)


class SpikingClassifier(Model):
    """Weights with neurons between them, and a linear read-out.

    Attributes:
        network: `y, state = network(spikes, state)`, y [T, B, classes].
    """

    Config = SpikingConfig
    config: SpikingConfig

    def __init__(self, config: SpikingConfig):
        super().__init__(config)
        layers: list[nn.Module] = []
        shape = config.shape
        for layer in config.layers:
            parts, shape = self._population(layer, shape)
            layers += parts
        layers += [nn.Flatten()] if len(shape) > 1 else []
        layers.append(nn.Linear(math.prod(shape), config.classes, bias=False))
        layers += [LI(config.readout, gain=1 - config.readout)] if config.readout else []
        self.network = Sequential(*layers)

    def _population(
        self, layer: str, shape: tuple[int, ...]
    ) -> tuple[list[nn.Module], tuple[int, ...]]:
        """The modules that `layer` stands for, behind values of `shape`, and their own shape."""
        match, c = LAYER.fullmatch(layer), self.config
        assert match
        n, options = int(match["n"]), {"bias": False}
        if match["k"]:
            k, stride, pool = int(match["k"]), int(match["s"] or 1), int(match["p"] or 1)
            weights = nn.Conv2d(shape[0], n, k, stride, padding=k // 2, **options)
            sides = tuple(((side + 2 * (k // 2) - k) // stride + 1) // pool for side in shape[1:])
            if min(sides) < 1:
                raise InputError(f"SpikingClassifier: nothing is left of {shape} after {layer!r}")
            parts = [weights, *([nn.BatchNorm2d(n)] if c.norm else [])]
            parts += [nn.AvgPool2d(pool)] if pool > 1 else []
            shape, each = (n, *sides), (n, 1, 1)
        else:
            weights = nn.Linear(math.prod(shape), n, **options)
            parts = [nn.Flatten()] if len(shape) > 1 else []
            parts += [weights, *([nn.BatchNorm1d(n)] if c.norm else [])]
            shape, each = (n,), (n,)
        with torch.no_grad():
            weights.weight *= c.boost
        neuron: nn.Module = self._neuron(each)
        if match["r"]:
            assert isinstance(neuron, Neuron)
            connection = nn.Linear(n, n, **options)
            with torch.no_grad():
                connection.weight *= c.recurrent
            neuron = Recurrent(neuron, connection)
        dropped = [nn.Dropout(c.dropout)] if c.dropout and not match["k"] else []
        return [*parts, neuron, *dropped], shape

    def _neuron(self, each: tuple[int, ...]) -> Neuron:
        c = self.config
        kind = AdaptiveThreshold(decay=c.decay, rho=c.rho, beta=c.beta)
        dynamics = kind if c.adaptive else Leaky(decay=c.decay)
        constants = dynamics.constants()
        values = {name: torch.full(each, constants.get(name, 0.0)) for name in c.learn}
        return Neuron(dynamics, c.surrogate, c.slope, values=values, learn=c.learn)

    def encode(self, x: Tensor) -> Tensor:
        """The network's input [T, B, ...] for images [B, C, H, W] or events [B, T, ...].

        Raises:
            InputError: `x` is not a batch of the configured shape.
        """
        c = self.config
        events = c.coding == "events"
        if x.ndim != len(c.shape) + 1 + events or x.shape[1 + events :] != c.shape:
            each = "[T, *shape]" if events else "of shape"
            raise InputError(f"SpikingClassifier: {list(x.shape)} is no batch {each} {c.shape}")
        if events:
            return x.transpose(0, 1).to(torch.get_default_dtype())
        bright = (x + 1) / 2
        if c.coding == "constant":
            return bright.expand(c.steps, *bright.shape)
        times = torch.arange(c.steps + 1, device=x.device, dtype=x.dtype)
        sent = torch.floor(times.reshape(-1, *(1 for _ in x.shape)) * bright * c.rate + 1e-4)
        return sent.diff(dim=0)

    def forward(self, x: Tensor) -> Tensor:
        """The logits: the read-out, summed over time."""
        return self.network(self.encode(x))[0].sum(0)
