"""Kinds of neurons that send whole numbers, each one event, in converted networks."""

from dataclasses import dataclass
from typing import Any, ClassVar

from .base import Algebra, Dynamics, Emit, State

# floor(x + HALF) rounds x; its ties lie where no short sums do, which floats may compute nearly.
HALF = 0.5000013


@dataclass(frozen=True, kw_only=True)
class Signed(Dynamics):
    """Integrate-and-fire with numbered spikes of both signs, rarer below 0.

        h = decay v + gain x,   a = clip(floor(h / threshold + 1/2), 0, levels)
        b = clip(floor(negative_slope (1/2 - h / threshold)), 0, levels)
        s = a - b,   v = h - threshold a + threshold / negative_slope b

    so that s threshold adds up to a leaky ReLU of the input: the imbalanced threshold of
    Spiking-YOLO (Kim et al. 2020, arXiv 1903.06530) with several levels. What a spike below 0 gives
    back never calls for one above. That is "integer"; "multiple" leaves both 1/2 out. A spike of
    several levels is one event with a number.

    Attributes:
        decay: of the membrane, per step, in [0, 1].
        negative_slope: in [0, 1]: 0 for a ReLU, 1 for the identity, between them a leaky ReLU.
    """

    UNIT: ClassVar = ("decay", "negative_slope")
    NUMBERED: ClassVar = True
    RESETS: ClassVar = ("subtract",)
    emit: Emit = "integer"
    decay: float = 1.0
    negative_slope: float = 0.0

    def equations(self, m: Algebra, x: Any, state: State, p: Any) -> tuple[Any, State]:
        (v,) = state
        h = p.decay * v + p.gain * x
        above = self.fire(m, h, p.threshold)
        late = 0.5 * (1 - p.negative_slope) * p.threshold if self.emit == "integer" else 0.0
        below = self.fire(m, -p.negative_slope * h - late, p.threshold)
        # Without a slope nothing is sent below 0, whatever is divided.
        unit = p.threshold / m.where(p.negative_slope > 0, p.negative_slope, 1.0)
        v = h - p.threshold * self.reset_spike(m, above) + unit * self.reset_spike(m, below)
        return above - below, (v,)


@dataclass(frozen=True, kw_only=True)
class Burst(Dynamics):
    """A neuron that gathers in one window of steps, fires in the next and is silent in others.

        h = v + gain x  in steps from opens - window to opens - 1,   h = v  in others
        s = fire(h)  in steps from opens to opens + window - 1,      s = 0  in others

    with `Leaky`'s fire and v = h - threshold s. What it sends in all is clip(floor(sum of gain x /
    threshold + 1/2), 0, levels window): the quantised activation of Bu et al. 2022 (arXiv
    2303.04347), exactly, for no spike leaves before all input is there and the order in which
    that came ("unevenness") can't matter.

    Attributes:
        opens: the step, counted from 0, from which it fires.
        window: steps of each, > 0.
    """

    STATE: ClassVar = ("v", "clock")
    UNIT: ClassVar = ()
    POSITIVE: ClassVar = ("window",)
    NUMBERED: ClassVar = True
    RESETS: ClassVar = ("subtract",)
    emit: Emit = "integer"
    opens: float = 4.0
    window: float = 4.0

    def equations(self, m: Algebra, x: Any, state: State, p: Any) -> tuple[Any, State]:
        v, clock = state
        gathers = (clock >= p.opens - p.window) & (clock < p.opens)
        fires = (clock >= p.opens) & (clock < p.opens + p.window)
        h = v + m.where(gathers, p.gain * x, 0.0)
        s = m.where(fires, self.fire(m, h, p.threshold), 0.0)
        return s, (self.apply_reset(m, h, s, p.threshold), clock + 1)
