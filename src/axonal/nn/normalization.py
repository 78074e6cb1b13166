"""Normalisation for spiking networks: of currents, over time, of membranes and of weights."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

from ..core.errors import InputError
from ..core.neurons import Leaky
from .neurons import Neuron
from .stateful import Stateful


class ThresholdBatchNorm(_BatchNorm):
    """Batch normalisation that begins at the scale of the threshold (tdBN).

        y = gamma (x - mu) / sigma + beta,   gamma = alpha threshold at first

    Statistics are over time, batch and space, which `Sequential` folds into one batch (Zheng et
    al. 2021, arXiv 2011.05280, eq. 5-9).

    Args:
        channels: C, of x [B, C, ...].
        threshold: of the neurons behind it.
        alpha: 1, or 1 / sqrt(n) where n branches are added.
        options: of `torch.nn.BatchNorm2d`.
    """

    def __init__(self, channels: int, threshold: float = 1.0, alpha: float = 1.0, **options):
        super().__init__(channels, **options)
        nn.init.constant_(self.weight, alpha * threshold)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise InputError(f"ThresholdBatchNorm: input {list(input.shape)} must be [B, C, ...]")


class TemporalBatchNorm(Stateful):
    """Batch normalisation with a learned scale for each step (TEBN).

        y[t] = p[t] (gamma (x[t] - mu) / sigma + beta)

    with statistics that all steps share (Duan et al. 2022, NeurIPS, Temporal Effective Batch
    Normalization). The state counts the steps before.

    Args:
        channels: C.
        steps: T, for which scales are learned, from 1.
        threshold, options: as of `ThresholdBatchNorm`.
    """

    def __init__(self, channels: int, steps: int, threshold: float = 1.0, **options):
        super().__init__()
        self.norm = ThresholdBatchNorm(channels, threshold, **options)
        self.scale = nn.Parameter(torch.ones(steps))

    def forward(self, x: Tensor, state: int | None = None) -> tuple[Tensor, int]:
        """x [T, B, C, ...] and the number of steps before -> y, and that number.

        Raises:
            InputError: more steps than there are scales.
        """
        begin = state or 0
        if begin + len(x) > len(self.scale):
            raise InputError(
                f"TemporalBatchNorm: step {begin + len(x)}, but scales are learned for "
                f"{len(self.scale)}; build it with more steps"
            )
        y = self.norm(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        scale = self.scale[begin : begin + len(x)]
        return y * scale.reshape(-1, *x[0].dim() * [1]), begin + len(x)


class MembraneNorm(Stateful):
    """Leaky neurons whose membrane is normalised before it fires (MPBN).

        h = decay v + x,   s = [gamma (h - mu) / sigma + beta >= threshold],   v = h [s = 0]

    (Guo et al. 2023, arXiv 2308.08359). While training, the statistics of a step are those of
    its batch and space, so that neurons can't be scanned apart from each other. Gradients do not
    pass the reset.

    Args:
        channels: C.
        decay, threshold, surrogate, slope: as of `LIF`.
        options: of `torch.nn.BatchNorm2d`.

    Raises:
        InputError: a constant out of range.
    """

    def __init__(
        self,
        channels: int,
        decay: float = 0.9,
        *,
        threshold: float = 1.0,
        surrogate: str = "atan",
        slope: float | None = None,
        **options,
    ):
        super().__init__()
        self.dynamics = Leaky(decay=decay, threshold=threshold, reset="zero")
        self.norm = ThresholdBatchNorm(channels, threshold, **options)
        # Fires what it is handed, from rest: spikes and surrogates stand in one place.
        instant = Leaky(decay=0.0, threshold=threshold, reset="none")
        self.neuron = Neuron(instant, surrogate, slope)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x [T, B, C, ...] and the membranes [B, C, ...] -> spikes, and these."""
        v, spikes = torch.zeros_like(x[0]) if state is None else state, []
        for x_t in x:
            h = self.dynamics.decay * v + x_t
            y, _ = self.neuron(self.norm(h)[None])
            v = h * (1 - y[0].detach())
            spikes.append(y[0])
        return torch.stack(spikes), v

    def fold(self, space: int = 0) -> Neuron:
        """Neurons without normalisation that fire as these do in evaluation.

        Their threshold is (threshold - beta) sigma / gamma + mu, a channel.

        Args:
            space: dimensions behind the channels: 2 for images.

        Raises:
            InputError: a channel has no such neuron: with gamma < 0 it fires *below* a level
                (negate the weights that drive it, and gamma, mu with them), with gamma = 0
                always or never, and with a threshold up to 0 it would fire at rest.
        """
        norm = self.norm
        assert norm.running_mean is not None and norm.running_var is not None
        sigma = (norm.running_var + norm.eps).sqrt()
        value = (self.dynamics.threshold - norm.bias) * sigma / norm.weight + norm.running_mean
        if bad := int(((norm.weight <= 0) | ~(value > 0)).sum()):
            raise InputError(
                f"MembraneNorm: {bad} of {len(value)} channels fire below their level or at rest "
                "(gamma or the folded threshold is not above 0); negate what drives the first "
                "kind, and train on with a smaller bias for the second"
            )
        values = {"threshold": value.reshape(-1, *space * [1])}
        neuron = Neuron(self.dynamics, self.neuron.surrogate, self.neuron.slope, values=values)
        return neuron.to(value)


class Standardised(nn.Module):
    """The weights of a layer, standardised for each output; use `standardise`."""

    def __init__(self, weight: Tensor, gain: float):
        super().__init__()
        self.gain = nn.Parameter(torch.full_like(weight.flatten(1)[:, :1], gain))

    def forward(self, weight: Tensor) -> Tensor:
        """W [O, ...] -> gain (W - mu) / (sigma sqrt(N))."""
        rows = weight.flatten(1)
        rows = F.normalize(rows - rows.mean(1, keepdim=True), eps=1e-6)
        return (self.gain * rows).reshape(weight.shape)


def standardise(layer: nn.Module, gain: float = 1.0) -> nn.Module:
    """Train a layer through scaled weight standardisation, which knows no batch and no time.

        W^ = gain (W - mu) / (sigma sqrt(N)),   a gain learned for each output, N its fan-in

    (Brock et al. 2021, arXiv 2101.08692; for online rules Xiao et al. 2022, arXiv 2210.04195.)
    `torch.nn.utils.parametrize.remove_parametrizations(layer, "weight")` folds it away.

    Args:
        layer: with a weight [O, ...], such as `nn.Linear` or `nn.Conv2d`.
        gain: at first.

    Returns:
        `layer` itself.
    """
    weight = layer.get_parameter("weight")
    parametrize.register_parametrization(layer, "weight", Standardised(weight, gain))
    return layer
