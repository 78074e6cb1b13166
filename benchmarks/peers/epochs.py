"""A training step of two networks of snnTorch's tutorials, in one framework.

Networks, losses and constants are those of tutorial 5 (fully connected; the cross-entropy of the
output neurons' membranes, summed over steps) and tutorial 6 (convolutional; `ce_rate_loss` of the
output spikes), https://snntorch.readthedocs.io/en/latest/tutorials. snnTorch runs as they do.
SpikingJelly runs its multi-step mode with soft resets and its own arc tangent, in the order of its
`conv_fashion_mnist` example. Ours runs the dynamics of either. Two things favour the others: all
use the fused Adam, and the pass over a test batch in every step of tutorial 5 is left out.

`hoisted`: what comes before the first neurons runs once, as its input is the same at every step,
and maps of images lie channels last, as ours do and as our training loop lays them.

Jobs, answered by `worker.py`; `data` is a .npz with `images` [N, ...], `labels` [N] and the
initial parameters `p0`, `p1`, ... in the order of the network:

    {"do": "epoch", "network", "data", "dynamics", "out": FILE.npz}      of one batch: the output
                                          `spikes` [T, B, 10], the `loss`, and gradients `p0`, ...
    {"do": "epoch", "network", "data", "dynamics", "hoisted", "batches"}   seconds of training steps

`dynamics` names the framework whose neurons ours has.
"""

import time
from types import SimpleNamespace

import numpy as np

NETWORKS = {
    "fully connected": SimpleNamespace(beta=0.95, steps=25, lr=5e-4, read="membrane", first=1),
    "convolutional": SimpleNamespace(beta=0.5, steps=50, lr=1e-2, read="spikes", first=2),
}
BATCH = 128


def maps(network, nn):
    """Build the layers between neurons of a framework's own."""
    if network == "fully connected":
        return [[nn.Linear(784, 1000)], [nn.Linear(1000, 10)]]
    return [
        [nn.Conv2d(1, 12, 5), nn.MaxPool2d(2)],
        [nn.Conv2d(12, 64, 5), nn.MaxPool2d(2)],
        [nn.Flatten(), nn.Linear(64 * 4 * 4, 10)],
    ]


def snntorch(network, hoisted, dynamics):
    import snntorch as snn
    import torch
    from snntorch import surrogate, utils

    own = NETWORKS[network]
    grad = surrogate.atan() if network == "fully connected" else surrogate.fast_sigmoid(slope=25)
    options = {"beta": own.beta, "spike_grad": grad, "init_hidden": True}
    stages = maps(network, torch.nn)
    parts = [part for stage in stages[:-1] for part in (*stage, snn.Leaky(**options))]
    net = torch.nn.Sequential(*parts, *stages[-1], snn.Leaky(**options, output=True))
    first, rest = (net[: own.first], net[own.first :]) if hoisted else (lambda x: x, net)

    def run(x):
        utils.reset(net)
        x, spikes, membranes = first(x), [], []
        for _ in range(own.steps):
            spike, membrane = rest(x)
            spikes.append(spike)
            membranes.append(membrane)
        return torch.stack(spikes), torch.stack(membranes)

    return net, run


def snntorch_loss(network, spikes, membranes, labels):
    """The loss as the tutorials write it."""
    import torch
    from snntorch import functional

    if network == "convolutional":
        return functional.ce_rate_loss()(spikes, labels)
    loss, total = torch.nn.CrossEntropyLoss(), torch.zeros(1)
    for membrane in membranes:
        total += loss(membrane, labels)
    return total[0]


def spikingjelly(network, hoisted, dynamics):
    import torch
    from spikingjelly.activation_based import functional, layer, neuron, surrogate

    own = NETWORKS[network]

    def lif(**options):
        options |= {"tau": 1 / (1 - own.beta), "decay_input": False, "v_reset": None}
        atan = surrogate.ATan()
        return neuron.LIFNode(surrogate_function=atan, detach_reset=True, **options)

    stages = maps(network, layer)
    parts = [part for stage in stages[:-1] for part in (*stage, lif())]
    last = lif(store_v_seq=own.read == "membrane")
    net = torch.nn.Sequential(*parts, *stages[-1], last)
    functional.set_step_mode(net, "m")
    first, rest = net[: own.first if hoisted else 0], net[own.first if hoisted else 0 :]

    def run(x):
        functional.reset_net(net)
        x = first(x[None]) if hoisted else x[None]
        spikes = rest(x.expand(own.steps, *x.shape[1:]))
        return spikes, last.v_seq

    return net, run


def axonal(network, hoisted, dynamics):
    from torch import nn

    from axonal.nn import LI, Conv2d, Neuron, Sequential, presets

    own = NETWORKS[network]
    if dynamics == "snntorch":
        neuron = presets.snntorch_leaky(own.beta).dynamics
        grad = ("atan",) if network == "fully connected" else ("fast_sigmoid", 25.0)
    else:
        soft = {"decay_input": False, "v_reset": None, "detach_reset": True}
        neuron, grad = presets.spikingjelly_lif(1 / (1 - own.beta), **soft).dynamics, ("atan",)
    layers = SimpleNamespace(**vars(nn) | {"Conv2d": Conv2d})  # ours follows spikes and gradients
    *stages, end = maps(network, layers)
    parts = [part for stage in stages for part in (*stage, Neuron(neuron, *grad))]
    net, last, integrate = Sequential(*parts, *end), Neuron(neuron, *grad), LI(own.beta)

    def run(x):
        current, _ = net(x.expand(own.steps, *x.shape))
        if own.read == "spikes":
            return last(current)[0], None
        # Neither framework's gradient goes through the reset, so that the membrane is the sum of
        # what comes in less what spikes took: of the step before, where the reset is late.
        spikes, _ = last(current.detach())
        taken = spikes
        if neuron.reset == "late":
            taken = nn.functional.pad(spikes[:-1], (0, 0, 0, 0, 1, 0))
        return spikes, integrate(current - taken)[0]

    return net, run


def loss_at_once(network, spikes, membranes, labels):
    """The same losses, of all steps at once."""
    from torch.nn.functional import cross_entropy

    read = spikes if membranes is None else membranes
    mean = cross_entropy(read.flatten(0, 1), labels.repeat(len(read)))
    return mean if membranes is None else len(read) * mean


def answer(name, do, network, data, dynamics, hoisted=False, batches=None, out=None):
    """Answer a job."""
    import torch

    with np.load(data) as file:
        images, labels = torch.from_numpy(file["images"]), torch.from_numpy(file["labels"])
        start = [torch.from_numpy(file[f"p{i}"]) for i in range(len(file.files) - 2)]
    make = {"axonal": axonal, "snntorch": snntorch, "spikingjelly": spikingjelly}[name]
    net, run = make(network, hoisted, dynamics)
    if hoisted or name == "axonal":
        net.to(memory_format=torch.channels_last)
    parameters = list(net.parameters())
    with torch.no_grad():
        for parameter, value in zip(parameters, start, strict=True):
            parameter.copy_(value)
    optimiser = torch.optim.Adam(parameters, lr=NETWORKS[network].lr, fused=True)
    loss_of = snntorch_loss if name == "snntorch" else loss_at_once

    def step(i):
        x, label = images[i * BATCH :][:BATCH], labels[i * BATCH :][:BATCH]
        spikes, membranes = run(x)
        loss = loss_of(network, spikes, membranes, label)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return spikes.detach(), loss.item()

    spikes, loss = step(0)
    if out:
        grads = {f"p{i}": p.grad.numpy() for i, p in enumerate(parameters)}
        np.savez(out, spikes=spikes.numpy(), loss=loss, **grads)
        return {"loss": loss}
    began = time.perf_counter()
    for i in range(1, batches + 1):
        step(i)
    return {"seconds": time.perf_counter() - began}
