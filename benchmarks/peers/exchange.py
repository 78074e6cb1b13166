"""NIR files into one framework and out of it: jobs of `worker.py`.

    {"do": "nir", "file", "x": FILE.npy [T, ...], "out": FILE.npz, "dt"}   spikes of what its own
                                                                   importer makes of the file
    {"do": "networks"}                                             names of networks of its own
    {"do": "export", "network", "file", "x", "out", "dt"}          spikes of one, which its own
                                                                   exporter writes to the file
    {"do": "versions"}

What the framework itself says where it fails is the answer, as `error`.
"""

import contextlib
import sys
import warnings
from importlib.metadata import version

import numpy as np


def steps(network, batch):
    """Run step by step with the state that it returns; `batch`: with an axis for samples."""
    import torch

    def run(x):
        state, spikes = None, []
        for x_t in x:
            out, state = network(x_t[None] if batch else x_t, state)
            spikes.append(out)
        return torch.stack(spikes)[:, 0] if batch else torch.stack(spikes)

    return run


class LeftOut(Exception):
    """The importer ignores a node."""


def complete(graph, make):
    """Make sure that the importer takes every node: nirtorch runs the others without it."""
    import nir

    for node in graph.nodes.values():
        if not isinstance(node, nir.Input | nir.Output) and make(node) is None:
            raise LeftOut(f"its importer leaves out {type(node).__name__} without a word")


def snntorch_in(graph, dt, length):
    from snntorch.import_nir import import_from_nir

    return steps(import_from_nir(graph), batch=False)


def norse_in(graph, dt, length):
    from norse.torch import from_nir
    from norse.torch.utils.import_nir import _import_norse_module

    complete(graph, _import_norse_module)
    return steps(from_nir(graph, dt=dt), batch=False)


def spikingjelly_in(graph, dt, length):
    from spikingjelly.activation_based.nir_exchange import import_from_nir

    return steps(import_from_nir(graph, dt=dt), batch=True)


def sinabs_in(graph, dt, length):
    from sinabs import from_nir
    from sinabs.nir import _import_sinabs_module

    complete(graph, lambda node: _import_sinabs_module(node, 1, length))
    network = from_nir(graph, batch_size=1, num_timesteps=length)
    return lambda x: network(x)[0]


SIZES, SHAPE, CHANNELS, FLAT = (12, 16), (2, 8, 8), 4, 64


def layers(neurons, pool=None):
    """Build a linear map, or with `pool` a convolutional network, before neurons(shape)."""
    from torch import nn

    last = (SIZES[1],)
    if pool is None:
        return [nn.Linear(*SIZES), neurons(last)]
    first = [nn.Conv2d(SHAPE[0], CHANNELS, 3, padding=1), neurons((CHANNELS, *SHAPE[1:]))]
    return [*first, pool, nn.Flatten(), nn.Linear(FLAT, *last), neurons(last)]


def scale(network, by):
    """Enlarge the weights, so that the network fires."""
    for module in network.modules():
        if hasattr(module, "weight"):
            module.weight.data *= by
    return network


def snntorch_out():
    import snntorch as snn
    from snntorch.export_nir import export_to_nir
    from torch import full, nn, stack

    def network(kind, pool=None, each=True, reset=None, **decays):
        def neurons(shape):
            values = {"threshold": 1.0} | decays
            values = {k: full(shape, v) if each else v for k, v in values.items()}
            return kind(init_hidden=True, **values, **(reset or {}))

        model = scale(nn.Sequential(*layers(neurons, pool)), 4)

        def write(x, dt):
            return export_to_nir(model, x[:1], ignore_dims=[0])

        return lambda x: stack([model(x_t[None])[0] for x_t in x]), write

    at_once = {"reset": {"reset_mechanism": "zero", "reset_delay": False}}
    return {
        "lif": lambda: network(snn.Leaky, beta=0.9, **at_once),
        "lif, one number for all": lambda: network(snn.Leaky, None, False, beta=0.9, **at_once),
        "lif, another reset": lambda: network(snn.Leaky, beta=0.9),
        "conv lif": lambda: network(snn.Leaky, nn.AvgPool2d(2), beta=0.9, **at_once),
        "cuba": lambda: network(snn.Synaptic, alpha=0.8, beta=0.9, **at_once),
    }


def norse_out():
    from norse.torch import (
        IAFCell,
        IAFParameters,
        LIFBoxCell,
        LIFBoxParameters,
        LIFCell,
        LIFParameters,
        SequentialState,
        to_nir,
    )
    from torch import full, nn

    def network(kind, parameters, pool=None, **values):
        def neurons(shape):
            return kind(parameters(**{k: full(shape, v) for k, v in values.items()}))

        model = scale(SequentialState(*layers(neurons, pool)), 4)

        def write(x, dt):
            # Time constants come out as dt / (1 / tau), which are seconds with a dt of 1 alone.
            return to_nir(model, x[0] if pool is None else x[:1], dt=1.0)

        return steps(model, pool is not None), write

    box = {"tau_mem_inv": 100.0, "v_leak": 0.0, "v_th": 0.2}
    cuba = {"tau_mem_inv": 100.0, "tau_syn_inv": 200.0, "v_leak": 0.0, "v_th": 0.5}
    return {
        "lif": lambda: network(LIFBoxCell, LIFBoxParameters, **box),
        "lif, one number for all": lambda: network(LIFBoxCell, LIFBoxParameters),
        "if": lambda: network(IAFCell, IAFParameters, v_th=1.0),
        "conv if": lambda: network(IAFCell, IAFParameters, nn.LPPool2d(1, 2), v_th=1.0),
        "cuba": lambda: network(LIFCell, LIFParameters, **cuba),
    }


def spikingjelly_out():
    from spikingjelly.activation_based import functional, layer, neuron
    from spikingjelly.activation_based.nir_exchange import export_to_nir
    from torch import nn, stack

    def network(kind, pool=None, by=4, **options):
        model = scale(nn.Sequential(*layers(lambda shape: kind(**options), pool)), by)

        def run(x):
            functional.reset_net(model)
            return stack([model(x_t[None])[0] for x_t in x])

        def write(x, dt):
            functional.reset_net(model)
            return export_to_nir(model, x[:1], dt=dt)

        return run, write

    return {
        "lif": lambda: network(neuron.LIFNode, None, 10, tau=10.0),
        "lif, another reset": lambda: network(neuron.LIFNode, None, 10, tau=10.0, v_reset=None),
        "if": lambda: network(neuron.IFNode),
        "conv if": lambda: network(neuron.IFNode, layer.AvgPool2d(2)),
        "cuba": lambda: network(neuron.CUBALIFNode, c_decay=0.8, v_decay=0.9),
    }


def sinabs_out():
    import sinabs.layers as sl
    from sinabs import to_nir
    from torch import full, nn

    def network(kind, pool=None, each=True, **options):
        def neurons(shape):
            values = {"spike_threshold": 1.0} | options
            values = {k: full(shape if each else (), v) for k, v in values.items()}
            own = {} if kind is sl.IAFSqueeze else {"norm_input": False}
            return kind(batch_size=1, **own, **values)

        model = scale(nn.Sequential(*layers(neurons, pool)), 2)

        def run(x):
            for part in model:
                if hasattr(part, "reset_states"):
                    part.reset_states()
            return model(x)

        def write(x, dt):
            graph = to_nir(model, x[:1])
            graph.infer_types()  # nir can't write what has no shape, as its Conv2d and Flatten
            return graph

        return run, write

    return {
        "lif": lambda: network(sl.LIFSqueeze, tau_mem=9.5),
        "lif, one number for all": lambda: network(sl.LIFSqueeze, None, False, tau_mem=9.5),
        "if": lambda: network(sl.IAFSqueeze),
        "conv if": lambda: network(sl.IAFSqueeze, sl.SumPool2d(2, 2)),
        "cuba": lambda: network(sl.LIFSqueeze, tau_mem=9.5, tau_syn=5.0),
    }


IN = {"snntorch": snntorch_in, "norse": norse_in, "spikingjelly": spikingjelly_in}
IN |= {"sinabs": sinabs_in}
OUT = {"snntorch": snntorch_out, "norse": norse_out, "spikingjelly": spikingjelly_out}
OUT |= {"sinabs": sinabs_out}


def imported(name, file, x, dt):
    """Run what the importer makes of a file."""
    import nir

    return IN[name](nir.read(file), dt, len(x))(x)


def exported(name, network, file, x, dt):
    """Run a network, and write it to a file."""
    import nir
    import torch

    torch.manual_seed(0)
    run, write = OUT[name]()[network]()
    spikes = run(x)
    nir.write(file, write(x, dt))
    return spikes


def answer(name, do, x=None, out=None, **job):
    """Answer a job."""
    import torch

    if do == "versions":
        return {key: version(key) for key in (name, "nir", "nirtorch")}
    if do == "networks":
        return {"networks": list(OUT[name]())}
    x = torch.from_numpy(np.load(x))
    try:
        with (
            torch.no_grad(),
            warnings.catch_warnings(),
            contextlib.redirect_stdout(sys.stderr),  # some print what they do
        ):
            warnings.simplefilter("ignore")
            spikes = {"nir": imported, "export": exported}[do](name, x=x, **job)
            np.savez(out, spikes=spikes.detach().numpy())
    except Exception as error:  # whatever the framework can't do is what we want to know
        kind = "" if isinstance(error, LeftOut) else f"{type(error).__name__}: "
        return {"error": kind + " ".join(str(error).split())}
    return {"rate": float(spikes.mean())}
