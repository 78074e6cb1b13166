"""Whole networks in the engine beside torch.

Each runs step by step, as events come, and with all steps known beforehand, where torch multiplies
them in one go; both ways one sample at a time.
"""

import itertools
import json
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from axonal.core.errors import FileError
from axonal.core.events import Events
from axonal.data import ASSETS
from axonal.data.images import mnist, root
from axonal.data.recordings import SIZE, nmnist
from axonal.deploy import nir
from axonal.deploy.certify import certify, sent
from axonal.deploy.engine import Engine
from axonal.deploy.from_torch import trace
from axonal.generate.pipeline import Generator
from axonal.generate.samplers import sample
from axonal.graph.graph import Graph
from axonal.graph.ops import Conv, Dense, Neurons, Pool, Select
from axonal.models.spiking import SpikingClassifier
from axonal.nn import LIF, Neuron, Sequential

from ..harness.results import Figures
from ..harness.timing import spread, time_in_turn

STEP = 1e-3  # seconds of a step of the event camera
IMAGES = 200  # of the classifier, whose spikes are compared


def small_network(rounds: int, seed: int, threads: int, steps: int = 500) -> Figures:
    """Time 20-256-256-256-35, thresholds set so that 3 % of the neurons fire in a step."""
    torch.manual_seed(seed)
    x = (torch.rand(steps, 1, 20) < 0.03).float()
    layers, y = [], x
    for inside, outside in itertools.pairwise((20, 256, 256, 256, 35)):
        linear = nn.Linear(inside, outside, bias=False)
        neuron = LIF(0.9, threshold=_threshold(linear(y), 0.03))
        y = neuron(linear(y))[0]
        layers += [linear, neuron]
    network = Sequential(*layers)
    return _network("lif256_3pct", network, x, rounds, threads)


def _threshold(drive: Tensor, rate: float) -> float:
    """The threshold at which leaky neurons of that drive fire at `rate`, by bisection."""
    low, high = 1e-3, 100.0
    for _ in range(30):
        middle = (low * high) ** 0.5
        more = float(LIF(0.9, threshold=middle)(drive)[0].mean()) > rate
        low, high = (middle, high) if more else (low, middle)
    return high


def _network(name: str, network: Sequential, x: Tensor, rounds: int, threads: int) -> Figures:
    """A network on x [T, B, ...]: its spikes on all, and its time on the first sample.

    That is taken step by step, and with all steps at once.
    """
    engine = Engine(trace(network, x[:1]), threads=threads)
    rates = [float(spikes.mean()) for spikes in sent(network, x).values()]
    figures: Figures = {f"activity [{name}]": round(float(np.mean(rates)), 4)}
    figures[f"mismatches [{name}]"] = sum(certify(network, x, engine).different.values())
    x = x[:, :1]
    (source,), drives = engine.graph.inputs, x[:, 0].numpy()
    events = Events.from_dense(drives)
    torch.compiler.reset()
    compiled = torch.compile(network)
    at_once = time_in_turn(
        {
            "engine": lambda: engine.stream().push({source: events}),
            "torch": lambda: network(x),
            "torch, compiled": lambda: compiled(x),
            **({"torch, step by step": lambda: _stepwise(network, x)} if len(x) < 50 else {}),
        },
        rounds,
    )
    figures[f"{name}_whole"] = at_once.speedup
    figures[f"microseconds a step [{name}]"] = spread(
        [1e6 * s / len(x) for s in at_once.seconds["engine"]]
    )
    torch.compiler.reset()
    one_step = torch.compile(network)
    streams = time_in_turn(
        {
            "engine": pusher(engine, drives),
            "torch": _torch_streamer(network, x),
            "torch, compiled": _torch_streamer(one_step, x),
        },
        rounds,
    )
    micro = [1e6 * s for s in streams.seconds["engine"]]
    return figures | {
        name: streams.speedup,
        f"microseconds of a step alone [{name}]": spread(micro),
    }


def _stepwise(network: nn.Module, x: Tensor) -> None:
    state = None
    for one in x:
        _, state = network(one[None], state)


def _torch_streamer(network: Any, x: Tensor) -> Callable[[], None]:
    turns, state = itertools.cycle(x.split(1)), [network(x[:1])[1]]

    def call() -> None:
        _, state[0] = network(next(turns), state[0])

    return call


def digits(rounds: int, seed: int, threads: int) -> Figures:
    """Time the spiking classifier that ships, at its own activity."""
    model, test = SpikingClassifier.load(ASSETS / "mnist-spiking-classifier"), mnist("test")
    images = torch.from_numpy(test.pixels[:IMAGES]).float() / 127.5 - 1
    figures = _network("mnist_snn", model.network, model.encode(images), rounds, threads)
    right = model(images).argmax(1) == torch.from_numpy(test.labels[:IMAGES])
    return figures | {"mnist_snn_accuracy": float(right.float().mean())}


def recordings(rounds: int, seed: int, threads: int) -> Figures:
    """Time the N-MNIST network of the NIR paper, read from its file, on a test set's recordings.

    Sinabs' conventions, which it was trained in; steps of 1 ms; the class with most spikes wins.
    """
    graph = nir.read(_file("nir/cnn_sinabs.nir"), dt=STEP, discretisation="sinabs")
    engine, (source,), (output,) = Engine(graph, threads=threads), graph.inputs, graph.outputs
    test = nmnist("test")
    recorded = [_events(*steps) for steps in test.steps(STEP)]
    right, seconds, spent = 0, 0.0, 0.0
    engine.run({source: recorded[0]})  # compiles, once
    for events, label in zip(recorded, test.labels, strict=True):
        began = time.perf_counter()
        spikes = engine.stream().push({source: events})[output]
        spent += time.perf_counter() - began
        seconds += STEP * events.shape[0]
        right += int(spikes.to_dense().sum(0).argmax() == label)
    x = torch.from_numpy(recorded[0].to_dense())[:, None]
    figures = _network("nmnist_cnn", _as_torch(graph), x, rounds, threads)
    figures["nmnist_cnn_vs_torch"] = figures.pop("nmnist_cnn")
    figures["nmnist_cnn_accuracy"] = right / len(test)
    return figures | {"nmnist_cnn_times_real_time": round(seconds / spent, 1)}


def _file(name: str) -> Path:
    path = root() / name
    if not path.exists():
        raise FileError(f"{path} is missing; set AXONAL_DATA to a folder that has {name}")
    return path


def _events(step: np.ndarray, place: np.ndarray) -> Events:
    order, shape = np.argsort(step, kind="stable"), (int(step.max()) + 1, *SIZE)
    return Events(step[order], place[order], np.ones(len(order), np.float32), shape)


def _as_torch(graph: Graph) -> Sequential:
    """A chain of convolutions, pools, linear maps and neurons as torch layers."""
    layers: list[nn.Module] = []
    for node in graph:
        match node.op:
            case Conv() as op:
                padding = tuple(before for before, _ in op.padding)
                layer = nn.Conv2d(
                    op.weight.shape[1], len(op.weight), op.weight.shape[2:], op.stride, padding,
                    bias=False,
                )  # fmt: skip
                layer.weight.copy_(torch.from_numpy(op.weight))
                layers.append(layer)
            case Pool() as op:
                layers.append(nn.AvgPool2d(op.size, op.stride, divisor_override=1))
            case Dense() as op:
                layer = nn.Linear(*op.weight.shape[::-1], bias=False)
                layer.weight.copy_(torch.from_numpy(op.weight))
                layers.append(layer)
            case Select():
                layers.append(nn.Flatten())
            case Neurons() as op:
                layers.append(Neuron(op.dynamics))
    return Sequential(*layers)


def chosen_generators(out: Path) -> dict[str, str]:
    """Read which runs the bench of generators compares: "spiking", "ann".

    Raises:
        FileError: `out` does not hold its results.
    """
    path = out / "generate.json"
    try:
        return json.loads(path.read_text())["compared"]
    except (OSError, ValueError, KeyError) as error:
        raise FileError(
            f"{path} does not say what to compare ({error}); run `python -m benchmarks generate` "
            "first"
        ) from error


def generator(compared: Mapping[str, str], rounds: int, seed: int, threads: int) -> Figures:
    """Time a spiking run of the generator in the engine, and an ANN's of its quality in torch."""
    chosen = re.findall(r"sigma-delta ([\d.]+), (\w+) (\d+)", compared["spiking"])
    budget, sampler, steps = chosen[0]
    solver, evaluations = re.findall(r"ANN, (\w+) (\d+)", compared["ann"])[0]
    spiking = Generator.from_pretrained("mnist-sigma-delta", float(budget), "engine")
    noise = torch.randn(1, *spiking.shape, generator=torch.Generator().manual_seed(seed))
    backend, label = spiking.engine, torch.tensor([3])
    assert backend is not None
    backend.start(3)
    model = Generator.from_pretrained("mnist", 0).model

    def ann(network: Any) -> Callable[[], Tensor]:
        return lambda: sample(
            lambda x, t, state: (network(x, label), None),
            noise,
            steps=int(evaluations),
            sampler=solver,
        )

    torch.compiler.reset()
    calls = {
        "engine": lambda: backend(noise[0], 3, int(steps), sampler),
        "torch": ann(model),
        "torch, compiled": ann(torch.compile(model)),
        "torch, channels last": ann(
            Generator.from_pretrained("mnist", 0).model.to(memory_format=torch.channels_last)
        ),
    }
    timings = time_in_turn(calls, rounds)
    milli = spread([1e3 * s for s in timings.seconds["engine"]])
    return {"generator_speedup": timings.speedup, "milliseconds [generator]": milli}


def pusher(engine: Engine, x: np.ndarray) -> Callable[[], None]:
    """Return a call that pushes the next step of x [T, ...] into one stream."""
    (name,) = engine.graph.inputs
    turns = itertools.cycle([{name: Events.from_dense(one[None])} for one in x])
    stream = engine.stream()

    def call() -> None:
        stream.push(next(turns))
        stream.pushes.clear()

    return call
