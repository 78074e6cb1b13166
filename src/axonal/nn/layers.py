"""Layers with a state beside neurons: recurrent connections, delays and noise."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import InputError
from .neurons import Neuron
from .stateful import Stateful


class Recurrent(Stateful):
    """Neurons that also receive their own last spikes through `connection`.

    Steps run one by one: what a step receives is a linear map of all spikes of the step before,
    so that neurons can't be scanned apart from each other.

    Args:
        neuron: the population, N neurons.
        connection: [B, N...] -> [B, N...], such as `nn.Linear(N, N)`.
    """

    def __init__(self, neuron: Neuron, connection: nn.Module):
        super().__init__()
        self.neuron, self.connection = neuron, connection

    def forward(
        self, x: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """x [T, B, ...] and (the neurons' state, last spikes [B, ...]) -> spikes and the state.

        Raises:
            InputError: no step, or as `ops.scan.scan`.
        """
        if not len(x):
            raise InputError(f"Recurrent: x {list(x.shape)} has no time step")
        spikes = []
        for x_t in x:
            inner, last = state or (None, torch.zeros_like(x_t))
            y, inner = self.neuron((x_t + self.connection(last))[None], inner)
            state = inner, y[0]
            spikes.append(y[0])
        assert state
        return torch.stack(spikes), state


class Delay(Stateful):
    """A delay of each channel's input by some steps (axonal delays).

    Delays that are learned lie on a Gaussian over the steps: y_t = sum_d w_d x_{t-d} with w_d
    proportional to exp(-(d - delay)^2 / (2 width^2)); lower `width` as training goes on, to 0 at
    last, where the nearest step alone counts (Hammouamri et al. 2024, DCLS, arXiv 2306.17670).

    Args:
        delay: steps, >= 0: one for all channels, or [C]; channels are dimension 2 of [T, B, C...].
        most: the longest delay that learning may reach; None for the longest in `delay`.
        learn: whether the delays are parameters.
        width: of the Gaussian; 0 rounds to the nearest step.

    Raises:
        InputError: a delay is negative, not finite or above `most`, or the width negative.
    """

    def __init__(
        self,
        delay: int | Tensor,
        *,
        most: int | None = None,
        learn: bool = False,
        width: float = 0.0,
    ):
        super().__init__()
        self.delay, self.most, self.width = _delays(self, delay, most, learn, width)
        self.same = delay if isinstance(delay, int) and not learn and width == 0 else None

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x [T, B, C...] and the last inputs [most, B, C...] -> the delayed x, and these.

        Raises:
            InputError: the channels or the state don't fit.
        """
        if self.delay.dim() and (x.dim() < 3 or x.shape[2] != len(self.delay)):
            raise InputError(f"Delay: {len(self.delay)} delays for x {list(x.shape)}")
        line = _line(x, state, self.most)
        if self.same is not None:
            return line[self.most - self.same : self.most - self.same + len(x)], line[len(x) :]
        taps = _taps(self.delay, self.most, self.width)  # [D + 1, C] or [D + 1]
        y = x.new_zeros(x.shape)
        for d, tap in enumerate(taps):
            scale = tap.reshape(-1, *(1 for _ in x.shape[3:])) if tap.dim() else tap
            y = y + scale * line[self.most - d : self.most - d + len(x)]
        return y, line[len(x) :]


class DelayedLinear(Stateful):
    """A linear map whose synapses have delays: y_t[o] = sum_i w[o, i] x[t - delay[o, i], i].

    Args:
        inputs, outputs: N and O.
        most: the longest delay; delays begin uniform in [0, most].
        learn: whether delays are trained, on a Gaussian as `Delay` says.
        width: of the Gaussian.
        bias: whether there is one.

    Raises:
        InputError: as `Delay`.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        most: int,
        *,
        learn: bool = True,
        width: float = 0.5,
        bias: bool = True,
    ):
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias)
        delay = torch.rand(outputs, inputs) * most
        self.delay, self.most, self.width = _delays(self, delay, most, learn, width)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x [T, B, N] and the last inputs [most, B, N] -> y [T, B, O], and these.

        Raises:
            InputError: x or the state doesn't fit.
        """
        if x.dim() != 3 or x.shape[2] != self.linear.in_features:
            raise InputError(
                f"DelayedLinear: x {list(x.shape)}; give [T, B, {self.linear.in_features}]"
            )
        line = _line(x, state, self.most)
        taps = _taps(self.delay, self.most, self.width).flip(0)  # the oldest step first
        kernel = (taps * self.linear.weight).permute(1, 2, 0)
        y = F.conv1d(line.permute(1, 2, 0), kernel, self.linear.bias)
        return y.permute(2, 0, 1), line[len(x) :]


class Noise(Stateful):
    """Gaussian noise added to the input of neurons, equal for a seed, a step and a place.

    Args:
        deviation: of the noise, >= 0.
        seed: of the noise.

    Raises:
        InputError: the deviation is negative or not finite.
    """

    def __init__(self, deviation: float, seed: int = 0):
        super().__init__()
        if not 0 <= deviation < float("inf"):
            raise InputError(f"Noise: deviation {deviation} must be finite and at least 0")
        self.deviation, self.seed = deviation, seed

    def forward(self, x: Tensor, state: int | None = None) -> tuple[Tensor, int]:
        """x [T, B, ...] and the number of steps before -> x with noise, and that number."""
        begin, noise = state or 0, torch.empty(x.shape, dtype=x.dtype)
        for t, step in enumerate(noise):
            generator = torch.Generator().manual_seed(hash((self.seed, begin + t)) % 2**63)
            step.normal_(0, self.deviation, generator=generator)
        return x + noise.to(x.device), begin + len(x)


def _delays(
    module: nn.Module, delay: int | Tensor, most: int | None, learn: bool, width: float
) -> tuple[Tensor, int, float]:
    value = torch.as_tensor(delay, dtype=torch.get_default_dtype()).detach().clone()
    longest = most or 0
    if most is None and bool(value.isfinite().all()) and value.numel():
        longest = int(value.max().ceil())
    if not (bool(((value >= 0) & (value <= longest)).all()) and width >= 0):
        raise InputError(
            f"{type(module).__name__}: delays must lie in [0, {longest}] steps, and their width "
            f"{width} be at least 0"
        )
    if learn:
        return nn.Parameter(value), longest, width
    module.register_buffer("delay", value)
    return module.get_buffer("delay"), longest, width


def _taps(delay: Tensor, most: int, width: float) -> Tensor:
    """The weight of each step back, [most + 1, ...] for delays [...]; their sum is 1."""
    delay = delay.clamp(0, most)
    back = torch.arange(most + 1, device=delay.device).reshape(-1, *(1 for _ in delay.shape))
    if width == 0:
        return (back == delay.round()).to(delay.dtype)
    return torch.softmax(-(((back - delay) / width) ** 2) / 2, 0)


def _line(x: Tensor, state: Tensor | None, most: int) -> Tensor:
    """The last inputs and x, [most + T, B, ...]."""
    shape = (most, *x.shape[1:])
    if state is None:
        state = x.new_zeros(shape)
    if state.shape != shape:
        raise InputError(f"the state of a delay is {list(state.shape)}; {list(shape)} is needed")
    return torch.cat([state, x])
