"""The neurons of other frameworks, with their exact dynamics, conventions and defaults.

Each function takes what the other framework's class takes and returns the layer that fires in
the same steps. What they share and where they differ, such as a spike at the threshold or only
above it, a reset before or after the leak, or one spike a step or many, is the `Dynamics` of the
layer; its surrogate is their default. `python -m benchmarks parity` runs the frameworks themselves
beside these, in a clone, and compares spikes and gradients, but for Lava, which is checked by its
golden train alone.
"""

from typing import Literal

from ..core.errors import InputError
from ..core.neurons import Current, Leaky, Reset, decay_from_tau
from .layers import Delay
from .neurons import Neuron
from .sequential import Sequential

MANY = 2**20  # levels of neurons whose spikes a step have no limit


def snntorch_leaky(
    beta: float, threshold: float = 1.0, reset_mechanism: Literal["subtract", "zero"] = "subtract"
) -> Neuron:
    """snnTorch's `Leaky`: fires above the threshold; its subtraction comes a step late."""
    reset: Reset = "late" if reset_mechanism == "subtract" else "zero"
    return Neuron(Leaky(decay=beta, threshold=threshold, reset=reset, above=True), "atan")


def snntorch_synaptic(alpha: float, beta: float, threshold: float = 1.0) -> Neuron:
    """snnTorch's `Synaptic` with its default reset."""
    options = {"threshold": threshold, "reset": "late", "above": True}
    return Neuron(Current(decay=beta, synapse=alpha, **options), "atan")


def spikingjelly_lif(
    tau: float = 2.0,
    decay_input: bool = True,
    v_threshold: float = 1.0,
    v_reset: float | None = 0.0,
    detach_reset: bool = False,
) -> Neuron:
    """SpikingJelly's `LIFNode`: hard reset to 0, or soft with `v_reset=None`.

    Raises:
        InputError: `tau` is not above 1, or `v_reset` neither 0 nor None.
    """
    if not tau > 1:
        raise InputError(f"spikingjelly_lif: tau {tau} must be above 1")
    if v_reset not in (0.0, None):
        raise InputError(f"spikingjelly_lif: v_reset {v_reset}; give 0, or shift the threshold")
    dynamics = Leaky(
        decay=1 - 1 / tau,
        gain=1 / tau if decay_input else 1.0,
        threshold=v_threshold,
        reset="subtract" if v_reset is None else "zero",
        detach_reset=detach_reset,
    )
    return Neuron(dynamics, "sigmoid")


def norse_lif(
    tau_mem_inv: float = 100.0, tau_syn_inv: float = 200.0, v_th: float = 1.0, dt: float = 1e-3
) -> Neuron:
    """Norse's `LIF` (`lif_step`): a current that decays after it has driven the membrane."""
    dynamics = Current(
        decay=1 - dt * tau_mem_inv,
        synapse=1 - dt * tau_syn_inv,
        drive=dt * tau_mem_inv,
        threshold=v_th,
        reset="zero",
        above=True,
        detach_reset=False,
    )
    return Neuron(dynamics, "super_spike")


def norse_lif_box(tau_mem_inv: float = 100.0, v_th: float = 1.0, dt: float = 1e-3) -> Neuron:
    """Norse's `LIFBox`: the membrane alone, its input scaled by the leak."""
    leak = dt * tau_mem_inv
    options = {"threshold": v_th, "reset": "zero", "above": True, "detach_reset": False}
    return Neuron(Leaky(decay=1 - leak, gain=leak, **options), "super_spike")


def sinabs_lif(
    tau_mem: float,
    tau_syn: float | None = None,
    spike_threshold: float = 1.0,
    norm_input: bool = True,
) -> Neuron:
    """Sinabs' `LIF`: as many spikes a step as thresholds fit into the membrane.

    Gradients of these go straight through (see `Dynamics`); Sinabs' fade away from the threshold.
    """
    decay = decay_from_tau(tau_mem)
    drive = 1 - decay if norm_input else 1.0
    options = {"threshold": spike_threshold, "emit": "multiple", "levels": MANY}
    options |= {"detach_reset": False}
    if tau_syn is None:
        return Neuron(Leaky(decay=decay, gain=drive, **options))
    synapse = decay_from_tau(tau_syn)
    return Neuron(Current(decay=decay, synapse=synapse, gain=synapse, drive=drive, **options))


def rockpool_lif(
    tau_mem: float = 0.02, tau_syn: float = 0.02, threshold: float = 1.0, dt: float = 1e-3
) -> Neuron:
    """Rockpool's `LIFTorch`, whose current decays before it drives the membrane.

    Gradients go straight through above 0 (see `Dynamics`), Rockpool's above half the threshold.
    """
    synapse = decay_from_tau(tau_syn, dt)
    dynamics = Current(
        decay=decay_from_tau(tau_mem, dt),
        synapse=synapse,
        gain=synapse,
        threshold=threshold,
        emit="multiple",
        levels=MANY,
        detach_reset=False,
    )
    return Neuron(dynamics)


def lava_cuba(current_decay: float, voltage_decay: float, threshold: float = 1.0) -> Neuron:
    """Lava-DL's CUBA neuron in real numbers; the chip's 12-bit rounding is left out."""
    dynamics = Current(
        decay=1 - voltage_decay, synapse=1 - current_decay, threshold=threshold, reset="zero"
    )
    return Neuron(dynamics, "exponential")


def spyx_lif(beta: float, threshold: float = 1.0) -> Sequential:
    """Spyx's `LIF`: it fires first and charges then, so that every spike leaves a step late."""
    options = {"threshold": threshold, "reset": "late", "above": True}
    return Sequential(Neuron(Leaky(decay=beta, **options), "fast_sigmoid", 25.0), Delay(1))
