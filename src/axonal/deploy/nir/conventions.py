"""How NIR's neurons, which are differential equations, are cut into steps, and by whom."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ...core.errors import InputError
from ...core.neurons import Emit, Reset

Gain = Literal["equation", "unit", "one", "decayed"]


@dataclass(frozen=True, kw_only=True)
class Convention:
    """One way to cut a neuron into steps, with a = exp(-dt/tau) or 1 - dt/tau for a leak.

    Attributes:
        decay: what a is.
        kinds: what becomes of each kind of spiking neuron: the gain of its input, and its reset.
            The gain is as the "equation" has it, or would with the "unit" 1 for r, or "one",
            whatever r says; "decayed" is one, of a current that decays before it acts. A kind left
            out is refused.
        above: spikes above the threshold alone, as NIR has it, and not at it.
        emit, levels: what a spike is, as of `Dynamics`.
        late: steps by which spikes leave late.
        potentials: whether v_leak and v_reset count; otherwise other values than 0 are refused.
        nodes: of NIR that are written, of a simulator whose importer leaves out others without a
            word; None for all.
        split: solve a current and its membrane together, as a filter before a `Leaky`; otherwise
            the membrane sees the current at the end of the step, all through it, as `Current` does.
    """

    decay: Literal["exponential", "euler"]
    kinds: Mapping[str, tuple[Gain, Reset]]
    above: bool = True
    emit: Emit = "binary"
    levels: int = 1
    late: int = 0
    potentials: bool = True
    nodes: frozenset[str] | None = None
    split: bool = False

    def knows(self, kind: str) -> bool:
        """Whether a node of that kind may be written."""
        return self.nodes is None or kind in self.nodes

    def leak(self, tau: np.ndarray, dt: float) -> np.ndarray:
        """The leak of a step, 1 - a.

        Raises:
            InputError: tau is not above 0, or by Euler below dt.
        """
        if not (tau > 0).all():
            raise InputError("a time constant is not above 0")
        if self.decay == "euler" and (tau < dt).any():
            raise InputError(f"a time constant is below dt {dt}; choose a smaller dt")
        return -np.expm1(-dt / tau) if self.decay == "exponential" else dt / tau

    def tau(self, decay: np.ndarray, dt: float) -> np.ndarray:
        """The time constant of a decay within (0, 1), or by Euler [0, 1)."""
        return -dt / np.log(decay) if self.decay == "exponential" else dt / (1 - decay)


Kinds = dict[str, tuple[Gain, Reset]]
_HARD: Kinds = dict.fromkeys(("IF", "LIF", "CubaLIF"), ("equation", "zero"))
_JUMPS: Kinds = {**_HARD, "IF": ("one", "zero")}
_COMMON = ("Input", "Output", "Affine", "Conv2d", "Flatten", "IF", "LIF", "SumPool2d")
_MANY: dict[str, Any] = {"emit": "multiple", "levels": 2**20, "above": False, "potentials": False}

CONVENTIONS: dict[str, Convention] = {
    # Exact between spikes, for inputs that are constant through a step; resets at its end.
    "exact": Convention(decay="exponential", kinds=_HARD, split=True),
    "exponential": Convention(decay="exponential", kinds=_HARD),
    "euler": Convention(decay="euler", kinds=_HARD),
    # What simulators make of a file, by their sources: Norse 1.1.0 (whose LIF ignores r), snnTorch
    # 1.0.0 (dt is 1e-4; its IF leaks and does not run, so it is refused), SpikingJelly 2.0.0,
    # Sinabs 3.1.3 (time constants in steps: dt = 1; the floor under its IF is not followed),
    # Rockpool 3.1.0, Spyx 1.0.0. `python -m benchmarks nir` compares the first four with us.
    "norse": Convention(
        decay="euler",
        kinds={**_JUMPS, "LIF": ("unit", "zero")},
        potentials=False,
        nodes=frozenset((*_COMMON, "CubaLIF", "Linear")),
    ),
    "snntorch": Convention(
        decay="euler",
        kinds=dict.fromkeys(("LIF", "CubaLIF"), ("equation", "zero")),
        potentials=False,
    ),
    "spikingjelly": Convention(decay="euler", kinds=_HARD, above=False),
    "sinabs": Convention(
        decay="exponential",
        kinds=dict.fromkeys(("IF", "LIF"), ("one", "subtract")),
        nodes=frozenset(_COMMON),
        **_MANY,
    ),
    "rockpool": Convention(
        decay="exponential",
        kinds={"LIF": ("one", "subtract"), "CubaLIF": ("decayed", "subtract")},
        **_MANY,
    ),
    "spyx": Convention(
        decay="euler",
        kinds={"IF": ("one", "late"), "LIF": ("one", "late"), "CubaLIF": ("one", "subtract")},
        late=1,
        potentials=False,
    ),
    # By the traces of NIR's authors alone; Lava is archived.
    "lava": Convention(decay="euler", kinds=_HARD, above=False, late=1, potentials=False),
}


def convention(dt: float, name: str) -> Convention:
    """Look up a convention, and check `dt`.

    Raises:
        InputError: there is none, or `dt` is not above 0.
    """
    if not 0 < dt < float("inf"):
        raise InputError(f"nir: dt {dt} must be seconds above 0")
    if name not in CONVENTIONS:
        raise InputError(f"nir: no discretisation {name!r}; there are {', '.join(CONVENTIONS)}")
    return CONVENTIONS[name]
