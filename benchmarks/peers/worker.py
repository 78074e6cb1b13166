"""One framework's neurons, in an environment of its own.

`python worker.py NAME` answers JSON lines on standard input with JSON lines on standard output:

    {"do": "variants"}                                                  the names of its variants
    {"do": "run", "variant", "x": FILE.npy [T, B, N], "out": FILE.npz}  its spikes for a drive, and
                                                   the gradient of x, if it has one, as `grad`
    {"do": "time", "what": "layer" | "neuron" | "linear" | "copy", "n", "steps", "batch", ...}
    {"do": "memory", "n", "steps", "batch", "layers", "recompute"}      peak of a training step
    {"do": "nir" | "networks" | "export" | "versions", ...}             see `exchange.py`
    {"do": "epoch", ...}                                                see `epochs.py`
    {"do": "convert", ...}                                              see `convert.py`
    {"do": "decode", ...}                                               see `sensors.py`

What is timed is the variant "bench": decay 0.9, threshold 1, one spike a step, reset to zero,
input as it is, with no gradient through the reset where it has that option; ours is "bench of X"
with the surrogate and the reset's gradient of X. The other variants are the framework's own
conventions, as `axonal.nn.presets` claims them.
"""

import ctypes
import importlib
import json
import math
import resource
import sys
import threading
import time

import numpy as np

DECAY = 0.9
TAU = -1 / math.log(DECAY)


def axonal():
    from axonal.nn import LIF, presets

    makers = {
        "bench": lambda: LIF(DECAY, reset="zero"),
        "bench of snntorch": lambda: LIF(DECAY, reset="zero"),
        "bench of spikingjelly": lambda: LIF(DECAY, reset="zero"),
        "bench of norse": lambda: LIF(
            DECAY, reset="zero", detach_reset=False, surrogate="super_spike"
        ),
        "bench of sinabs": lambda: LIF(DECAY, reset="zero", surrogate="exponential"),
        "snntorch subtract": lambda: presets.snntorch_leaky(DECAY),
        "snntorch zero": lambda: presets.snntorch_leaky(DECAY, reset_mechanism="zero"),
        "snntorch synaptic": lambda: presets.snntorch_synaptic(0.8, DECAY),
        "spikingjelly hard": lambda: presets.spikingjelly_lif(10.0),
        "spikingjelly soft": lambda: presets.spikingjelly_lif(10.0, v_reset=None),
        "spikingjelly input not decayed": lambda: presets.spikingjelly_lif(10.0, False),
        "norse lif": presets.norse_lif,
        "norse lif box": presets.norse_lif_box,
        "sinabs lif": lambda: presets.sinabs_lif(TAU),
        "sinabs lif with current": lambda: presets.sinabs_lif(TAU, 5.0),
        "rockpool lif": presets.rockpool_lif,
        "spyx lif": lambda: presets.spyx_lif(DECAY),
    }
    return {name: lambda make=make: _axonal_run(make()) for name, make in makers.items()}


def _axonal_run(neuron):
    return lambda x: neuron(x)[0]


def snntorch():
    import snntorch as snn
    from snntorch import surrogate

    def leaky(reset):
        options = {"reset_mechanism": reset, "spike_grad": surrogate.atan(alpha=2.0)}
        neuron = snn.Leaky(beta=DECAY, **options)
        return _stepped(lambda x, mem: neuron(x, mem), 1)

    def synaptic():
        neuron = snn.Synaptic(alpha=0.8, beta=DECAY)
        return _stepped(lambda x, syn, mem: neuron(x, syn, mem), 2)

    return {
        "bench": lambda: leaky("zero"),
        "snntorch subtract": lambda: leaky("subtract"),
        "snntorch zero": lambda: leaky("zero"),
        "snntorch synaptic": synaptic,
    }


def _stepped(step, states):
    """Loop over time, which the framework leaves to its user."""
    import torch

    def run(x):
        state, spikes = [torch.zeros_like(x[0]) for _ in range(states)], []
        for x_t in x:
            spike, *state = step(x_t, *state)
            spikes.append(spike)
        return torch.stack(spikes)

    return run


def spikingjelly():
    from spikingjelly.activation_based import functional, neuron, surrogate

    def node(decay_input, v_reset, **options):
        own = {"decay_input": decay_input, "v_reset": v_reset, "step_mode": "m"}
        lif = neuron.LIFNode(tau=1 / (1 - DECAY), **own, **options)

        def run(x):
            functional.reset_net(lif)
            return lif(x)

        return run

    detached = {"surrogate_function": surrogate.ATan(), "detach_reset": True}
    return {
        "bench": lambda: node(False, 0.0, **detached),
        "spikingjelly hard": lambda: node(True, 0.0),
        "spikingjelly soft": lambda: node(True, None),
        "spikingjelly input not decayed": lambda: node(False, 0.0),
    }


def norse():
    import torch
    from norse.torch import LIF, LIFBoxCell, LIFBoxParameters, Lift

    def box(scale):
        leak = torch.as_tensor((1 - DECAY) * 1000)
        neuron = Lift(LIFBoxCell(LIFBoxParameters(tau_mem_inv=leak)))
        return lambda x: neuron(x * scale if scale != 1 else x)[0]

    return {
        # Its input is scaled by the leak; the drive is scaled back, at the cost of one product.
        "bench": lambda: box(1 / (1 - DECAY)),
        "norse lif box": lambda: box(1),
        "norse lif": lambda: _axonal_run(LIF()),
    }


def sinabs():
    import sinabs.activation as sina
    import sinabs.layers as sl

    def lif(**options):
        neuron = sl.LIF(tau_mem=TAU, **options)
        for parameter in neuron.parameters():
            parameter.requires_grad_(False)

        def run(x):
            neuron.reset_states()
            return neuron(x.transpose(0, 1)).transpose(0, 1)

        return run

    single = {"spike_fn": sina.SingleSpike, "reset_fn": sina.MembraneReset(), "norm_input": False}
    return {
        "bench": lambda: lif(**single),
        "sinabs lif": lif,
        "sinabs lif with current": lambda: lif(tau_syn=5.0),
    }


def rockpool():
    from rockpool.nn.modules import LIFTorch

    def lif():
        def run(x):
            options = {"tau_mem": 0.02, "tau_syn": 0.02, "threshold": 1.0, "dt": 1e-3}
            neuron = LIFTorch(x.shape[2], noise_std=0.0, **options)
            return neuron(x.transpose(0, 1))[0].transpose(0, 1)

        return run

    return {"rockpool lif": lif}


def spyx():
    import jax
    import jax.numpy as jnp
    import spyx.nn as snn
    from flax import nnx

    def lif():
        def run(x):
            import torch

            neuron = snn.LIF((x.shape[2],), beta=DECAY, rngs=nnx.Rngs(0))

            def step(v, x_t):
                spikes, v = neuron(x_t, v)
                return v, spikes

            drive = jnp.asarray(x.detach().numpy())
            return torch.from_numpy(
                np.array(jax.lax.scan(step, jnp.zeros(drive.shape[1:]), drive)[1])
            )

        return run

    return {"spyx lif": lif}


MODULES = {  # of jobs
    "anomalies": "anomalies",
    "decode": "sensors",
    "epoch": "epochs",
    "convert": "convert",
    **dict.fromkeys(("nir", "networks", "export", "versions"), "exchange"),
}
PEERS = {f.__name__: f for f in (axonal, snntorch, spikingjelly, norse, sinabs, rockpool, spyx)}


def layer(run, n, layers=1):
    """Build linear maps, each followed by neurons; also return their parameters."""
    import torch

    maps = [torch.nn.Linear(n, n) for _ in range(layers)]

    def network(x):
        for linear in maps:
            x = run(linear(x))
        return x

    return network, [p for linear in maps for p in linear.parameters()]


def time_passes(run, what, n, steps, batch, compile=False, repeats=1):
    """Time a forward and a backward pass, each of `repeats` after one that warms up."""
    import torch

    torch.manual_seed(0)
    x = torch.randn(steps, batch, n, requires_grad=what == "neuron")
    network, parameters = layer((lambda y: y) if what == "linear" else run, n)
    if what == "neuron":
        network, parameters = run, [x]
    if what == "copy":  # of as many bytes as a neuron's passes move at least: five times x
        return time_copy(5 * x.numel(), repeats)
    if compile:
        network = torch.compile(network)
    # Neurons alone get a gradient that lies in memory: a sum would be one more pass over spikes.
    sent, seconds = torch.randn_like(x) if what == "neuron" else None, []
    for _ in range(repeats + 1):
        for parameter in parameters:
            parameter.grad = None
        began = time.perf_counter()
        y = network(x) if what == "neuron" else network(x).sum()
        y.backward(sent)
        seconds.append(time.perf_counter() - began)
    return seconds[1:]


def time_copy(values, repeats):
    """Time a copy, in which half of `values` floats are read and half are written."""
    import torch

    a, seconds = torch.ones(values // 2), []
    b = torch.empty_like(a)
    for _ in range(repeats + 1):
        began = time.perf_counter()
        b.copy_(a)
        seconds.append(time.perf_counter() - began)
    return seconds[1:]


def time_spyx(what, n, steps, batch, repeats=1):
    """Time the same of Spyx: a compiled step of value and gradient, waited for."""
    import jax
    import jax.numpy as jnp
    import spyx.nn as snn
    from flax import nnx

    neuron = snn.LIF((n,), beta=DECAY, rngs=nnx.Rngs(0))
    keys = jax.random.split(jax.random.key(0), 2)
    x = jax.random.normal(keys[0], (steps, batch, n))
    weight = jax.random.uniform(keys[1], (n, n), minval=-1, maxval=1) / math.sqrt(n)

    def loss(parameters):
        def step(v, x_t):
            spikes, v = neuron(x_t, v)
            return v, spikes

        drive = x @ parameters["weight"] + parameters["bias"]
        return jax.lax.scan(step, jnp.zeros((batch, n)), drive)[1].sum()

    run, parameters = jax.jit(jax.value_and_grad(loss)), {"weight": weight, "bias": jnp.zeros(n)}
    seconds = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        jax.block_until_ready(run(parameters))
        seconds.append(time.perf_counter() - began)
    return seconds[1:]


def recomputed(n, layers):
    """Build Axonal's layers in the form that stores a bit for each spike."""
    from torch.nn import Linear

    from axonal.nn import LIF, Sequential

    parts = [part for _ in range(layers) for part in (Linear(n, n), LIF(DECAY, reset="zero"))]
    network = Sequential(*parts, recompute=True)
    return lambda x: network(x)[0]


def peak(run, n, steps, batch, layers, recompute=False):
    """Bytes that a training step adds to the process at its peak."""
    import torch

    torch.manual_seed(0)
    network = recomputed(n, layers) if recompute else layer(run, n, layers)[0]
    network(torch.randn(2, batch, n)).sum().backward()  # compilers and libraries are loaded
    x, sizes, done = torch.randn(steps, batch, n), [], threading.Event()
    ctypes.CDLL(None).malloc_trim(0)  # what was freed so far would hide what is used now

    def watch():
        while not done.wait(0.0005):
            sizes.append(resident())

    before, watcher = resident(), threading.Thread(target=watch)
    watcher.start()
    network(x).sum().backward()
    done.set()
    watcher.join()
    return max(sizes) - before


def resident():
    """Bytes of this process in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def answer(name, do, variant="bench", **job):
    """Answer a job."""
    if do in MODULES:
        return importlib.import_module(MODULES[do]).answer(name, do, **job)
    import torch

    if do == "variants":
        return {"variants": [variant for variant in PEERS[name]() if variant != "bench"]}
    if name == "spyx" and do == "time":
        return {"seconds": time_spyx(**job)}
    run = PEERS[name]()[variant]()
    if do == "time":
        return {"seconds": time_passes(run, **job)}
    if do == "memory":
        return {"bytes": peak(run, **job)}
    x = torch.from_numpy(np.load(job["x"])).requires_grad_()
    spikes = run(x)
    arrays = {"spikes": spikes.detach().numpy()}
    if spikes.requires_grad:
        spikes.backward(torch.linspace(-1, 1.5, spikes.numel()).view_as(spikes))
        arrays["grad"] = x.grad.numpy()
    np.savez(job["out"], **arrays)
    return {"rate": float(arrays["spikes"].mean())}


def main() -> None:
    """Answer jobs until standard input ends."""
    for line in sys.stdin:
        sys.stdout.write(json.dumps(answer(sys.argv[1], **json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
