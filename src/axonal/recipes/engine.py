"""How fast the engine is beside torch, and whether its spikes are the same (`bench engine`)."""

import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.status import Status
from torch import Tensor, nn

from ..core import files
from ..core.errors import FileError, InputError
from ..core.events import Events
from ..core.kinds import Leaky
from ..data.images import mnist
from ..deploy.engine import Engine
from ..deploy.graph import Graph
from ..deploy.trace import trace
from ..generate.features import ASSETS
from ..generate.images import Generator
from ..generate.samplers import sample
from ..models.spiking import SpikingClassifier
from ..nn import LIF, Neuron, Sequential
from .contest import contest, spread
from .showcase import facts

ACTIVITIES = (0.001, 0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
DRIVES = 8  # different inputs of a layer, in turn
NARROW = 0.05  # the activity of the rows in bfloat16
SIZES = (1024, 2048, 4096)  # of the layers whose cost is drawn
IMAGES = 200  # of the networks whose spikes are compared
Figures = dict[str, Any]


def bench(out: Path, rounds: int = 7, seed: int = 0, threads: int = 2) -> str:
    """Measure the README's figures of the engine; write `engine.json` and `engine.svg` to `out`.

    Torch runs eagerly, in channels last where there are channels, and compiled; a ratio is that
    of the fastest of them in the same round. All work on one sample at a time.

    Args:
        out: folder of the results.
        rounds: of timing.
        seed: of weights and drives.
        threads: of torch and of the engine.

    Returns:
        A sentence: what was achieved and where it lies.

    Raises:
        InputError: fewer than 3 rounds. FileError: MNIST is missing, or nothing can be written.
    """
    if rounds < 3:
        raise InputError(f"{rounds} rounds have no spread; take at least 3")
    files.writable(out)
    torch.set_num_threads(threads)
    figures: Figures = {}
    parts: Mapping[str, Callable[..., Figures]] = {
        "a layer of 4096 x 4096": _dense,
        "a convolution": _convolution,
        "a network of 3 x 256 neurons": _small_network,
        "a classifier of digits": _digits,
        "a generator": lambda *given: _generator(out, *given),
        "the cost of events": lambda *given: _cost(out, *given),
    }
    with torch.inference_mode():
        for name, part in parts.items():
            with Status(name):
                figures |= part(rounds, seed, threads)
    wrong = [key for key in figures if key.startswith("mismatches [")]
    figures["spike_mismatches"] = sum(figures[key] for key in wrong)
    command = f"axonal bench engine --rounds {rounds} --seed {seed} --threads {threads}"
    result = {"figures": figures} | facts(command, seed)
    path = files.write(out / "engine.json", json.dumps(result, indent=1) + "\n")
    return (
        f"At 5 % activity the engine is {figures['fc4096_5pct']['value']:.1f} times as fast as "
        f"torch in a layer of 4096 x 4096, and {figures['conv_5pct']['value']:.1f} times in a "
        f"convolution: {path.resolve()}."
    )


class Step(nn.Module):
    """One step of a linear map and leaky neurons behind it, as torch users write it."""

    def __init__(self, linear: nn.Module, dynamics: Leaky):
        super().__init__()
        self.linear, self.decay, self.threshold = linear, dynamics.decay, dynamics.threshold

    def forward(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        h = self.decay * v + self.linear(x)
        s = (h >= self.threshold).to(h.dtype)
        return s, h - self.threshold * s


def _dense(rounds: int, seed: int, threads: int) -> Figures:
    torch.manual_seed(seed)
    return _layer("fc4096", nn.Linear(4096, 4096, bias=False), (4096,), rounds, seed, threads)


def _convolution(rounds: int, seed: int, threads: int) -> Figures:
    torch.manual_seed(seed)
    found = _layer(
        "conv",
        nn.Conv2d(32, 64, 3, padding=1, bias=False),
        (32, 64, 64),
        rounds,
        seed,
        threads,
    )
    ratios = [found[f"conv_{_percent(a)}"]["value"] for a in ACTIVITIES]
    return found | {"conv_breakeven": round(_crossing(ACTIVITIES, ratios), 3)}


def _crossing(activities: tuple[float, ...], ratios: list[float]) -> float:
    """The activity from which on the ratio is below 1, between two that were measured."""
    if ratios[-1] >= 1:
        return 1.0
    last = max((i for i, ratio in enumerate(ratios) if ratio >= 1), default=None)
    if last is None:
        return 0.0
    logs = np.log(ratios[last]), np.log(ratios[last + 1])
    share = logs[0] / (logs[0] - logs[1])
    return float(np.exp(np.interp(share, (0, 1), np.log(activities[last : last + 2]))))


def _layer(
    name: str, linear: nn.Module, shape: tuple[int, ...], rounds: int, seed: int, threads: int
) -> Figures:
    """Ratios of a layer over the range of activities; its weights are drawn by torch."""
    dynamics, figures = Leaky(decay=0.9), {}
    graph = trace(Sequential(linear, Neuron(dynamics)), torch.zeros(1, 1, *shape))
    engine = Engine(graph, threads=threads)
    generator = np.random.default_rng(seed)
    for activity in ACTIVITIES:
        x = (generator.random((DRIVES, *shape)) < activity).astype(np.float32)
        step = Step(linear, dynamics)
        others = _steppers(step, x)
        figures |= _mismatches(f"{name} {_percent(activity)}", engine, x, step)
        found = contest({"engine": _pusher(engine, x)} | others, rounds)
        figures[f"{name}_{_percent(activity)}"] = found.speedup
        micro = [1e6 * s for s in found.seconds["engine"]]
        figures[f"microseconds [{name} {_percent(activity)}]"] = spread(micro)
        if activity == NARROW:
            narrow = Engine(graph, threads=threads, weights="bfloat16")
            half = Step(linear, dynamics).bfloat16()
            others = _steppers(half, x)
            found = contest({"engine": _pusher(narrow, x)} | others, rounds)
            figures[f"{name}_{_percent(activity)}_bfloat16"] = found.speedup
            linear.float()
    return figures


def _steppers(step: Step, x: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Torch's ways to run a layer step by step, with inputs in turn."""
    dtype = next(step.parameters()).dtype
    drives = [torch.from_numpy(one[None]).to(dtype) for one in x]
    found = {"torch": _torch_stepper(step, drives)}
    if x.ndim == 4:
        last = Step(step.linear, Leaky(decay=step.decay)).to(memory_format=torch.channels_last)
        drives = [d.contiguous(memory_format=torch.channels_last) for d in drives]
        found["torch, channels last"] = _torch_stepper(last, drives)
    torch.compiler.reset()
    return found | {"torch, compiled": _torch_stepper(torch.compile(step), drives)}


def _torch_stepper(step: Any, drives: list[Tensor]) -> Callable[[], None]:
    turns, state = itertools.cycle(drives), [torch.zeros(())]
    state[0] = torch.zeros_like(step(drives[0], state[0])[1])

    def call() -> None:
        _, state[0] = step(next(turns), state[0])

    return call


def _pusher(engine: Engine, x: np.ndarray) -> Callable[[], None]:
    (name,) = engine.graph.inputs
    turns = itertools.cycle([{name: Events.from_dense(one[None])} for one in x])
    stream = engine.stream()

    def call() -> None:
        stream.push(next(turns))
        stream.pushes.clear()

    return call


def _mismatches(name: str, engine: Engine, x: np.ndarray, step: Step) -> Figures:
    """Neurons and steps in which the engine's spikes are not torch's, from rest."""
    (given,), (output,) = engine.graph.inputs, engine.graph.outputs
    v, spikes = torch.zeros(()), []
    for one in x:
        s, v = step(torch.from_numpy(one[None]), v)
        spikes.append(s[0].numpy())
    found = engine.run({given: x})[0][output]
    return {f"mismatches [{name}]": int((found != np.stack(spikes)).sum())}


def _small_network(rounds: int, seed: int, threads: int, steps: int = 500) -> Figures:
    """20-256-256-256-35, thresholds set so that 3 % of the neurons fire in a step."""
    torch.manual_seed(seed)
    x = (torch.rand(steps, 1, 20) < 0.03).float()
    layers, y = [], x
    for inside, outside in itertools.pairwise((20, 256, 256, 256, 35)):
        linear = nn.Linear(inside, outside, bias=False)
        neuron = LIF(0.9, threshold=_threshold(linear(y), 0.03))
        y = neuron(linear(y))[0]
        layers += [linear, neuron]
    network = Sequential(*layers)
    found = _network("lif256_3pct", network, x, rounds, threads)
    rates = [float(s.mean()) for s in _populations(network, x).values()]
    return found | {"activity [lif256_3pct]": round(float(np.mean(rates)), 4)}


def _threshold(drive: Tensor, rate: float) -> float:
    """The threshold at which leaky neurons of that drive fire at `rate`, by bisection."""
    low, high = 1e-3, 100.0
    for _ in range(30):
        middle = (low * high) ** 0.5
        more = float(LIF(0.9, threshold=middle)(drive)[0].mean()) > rate
        low, high = (middle, high) if more else (low, middle)
    return high


def _populations(network: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """The spikes of every population."""
    found: dict[str, Tensor] = {}
    handles = [
        module.register_forward_hook(lambda m, a, y, n=name: found.__setitem__(n, y[0]))
        for name, module in network.named_modules()
        if isinstance(module, Neuron)
    ]
    network(x)
    for handle in handles:
        handle.remove()
    return found


def _network(name: str, network: Sequential, x: Tensor, rounds: int, threads: int) -> Figures:
    """A network on x [T, 1, ...]: all steps at once, and step by step."""
    graph = trace(network, x[:1])
    engine, drives = Engine(graph, threads=threads), x[:, 0].numpy()
    (given,), events = graph.inputs, Events.from_dense(x[:, 0].numpy())
    figures = {f"mismatches [{name}]": mismatches(graph, engine, network, x)}
    torch.compiler.reset()
    compiled = torch.compile(network)
    whole = contest(
        {
            "engine": lambda: engine.stream().push({given: events}),
            "torch": lambda: network(x),
            "torch, compiled": lambda: compiled(x),
            **({"torch, step by step": lambda: _stepwise(network, x)} if len(x) < 50 else {}),
        },
        rounds,
    )
    figures[name] = whole.speedup
    figures[f"microseconds a step [{name}]"] = spread(
        [1e6 * s / len(x) for s in whole.seconds["engine"]]
    )
    torch.compiler.reset()
    one_step = torch.compile(network)
    streams = contest(
        {
            "engine": _pusher(engine, drives),
            "torch": _torch_streamer(network, x),
            "torch, compiled": _torch_streamer(one_step, x),
        },
        rounds,
    )
    return figures | {f"{name}_streaming": streams.speedup}


def _stepwise(network: nn.Module, x: Tensor) -> None:
    state = None
    for one in x:
        _, state = network(one[None], state)


def _torch_streamer(network: Any, x: Tensor) -> Callable[[], None]:
    turns, state = itertools.cycle(x.split(1)), [network(x[:1])[1]]

    def call() -> None:
        _, state[0] = network(next(turns), state[0])

    return call


def mismatches(graph: Graph, engine: Engine, network: nn.Module, x: Tensor) -> int:
    """Spikes of any population in which the engine differs from torch, for x [T, 1, ...]."""
    watched = Engine(Graph(list(graph), list(graph.neurons)), threads=engine.threads)
    found, _ = watched.run({graph.inputs[0]: x[:, 0].numpy()})
    spikes = _populations(network, x)
    return int(sum((found[name] != spikes[name][:, 0].numpy()).sum() for name in found))


def _digits(rounds: int, seed: int, threads: int) -> Figures:
    """The spiking classifier that ships, at its own activity."""
    model, test = SpikingClassifier.load(ASSETS / "mnist-spiking-classifier"), mnist("test")
    images = torch.from_numpy(test.pixels[:IMAGES]).float() / 127.5 - 1
    spikes = model.spikes(images)
    figures = _network("mnist_snn", model.network, spikes[:, :1], rounds, threads)
    engine = Engine(graph := trace(model.network, spikes[:1, :1]), threads=threads)
    wrong = right = 0
    for i, label in enumerate(test.labels[:IMAGES]):
        wrong += mismatches(graph, engine, model.network, spikes[:, i : i + 1])
        found = engine.run({graph.inputs[0]: spikes[:, i].numpy()})[0]
        right += int(found[graph.outputs[0]].sum(0).argmax() == label)
    activity = [float(s.mean()) for s in _populations(model.network, spikes).values()]
    figures["activity [mnist_snn]"] = round(float(np.mean(activity)), 4)
    return figures | {"mismatches [mnist_snn]": wrong, "mnist_snn_accuracy": right / IMAGES}


def _generator(out: Path, rounds: int, seed: int, threads: int) -> Figures:
    """The spiking run of the README in the engine, and the ANN run of its quality in torch."""
    try:
        compared = json.loads((out / "generate.json").read_text())["compared"]
    except (OSError, ValueError, KeyError) as error:
        raise FileError(
            f"{out / 'generate.json'} does not say what to compare ({error}); run "
            "`axonal bench generate` first"
        ) from error
    budget, sampler, steps = re.findall(r"sigma-delta ([\d.]+), (\w+) (\d+)", compared["spiking"])[
        0
    ]
    solver, evaluations = re.findall(r"ANN, (\w+) (\d+)", compared["ann"])[0]
    spiking = Generator.from_pretrained("mnist-sigma-delta", float(budget), "engine")
    noise = torch.randn(1, *spiking.shape, generator=torch.Generator().manual_seed(seed))
    follower, label = spiking.follower, torch.tensor([3])
    assert follower is not None
    follower.start(3)
    model = Generator.from_pretrained("mnist", 0).model

    def ann(network: Any) -> Callable[[], Tensor]:
        return lambda: sample(
            lambda x, t, state: (network(x, label), None),
            noise,
            steps=int(evaluations),
            sampler=solver,
        )

    torch.compiler.reset()
    contenders = {
        "engine": lambda: follower(noise[0], 3, int(steps), sampler),
        "torch": ann(model),
        "torch, compiled": ann(torch.compile(model)),
        "torch, channels last": ann(
            Generator.from_pretrained("mnist", 0).model.to(memory_format=torch.channels_last)
        ),
    }
    found = contest(contenders, rounds)
    milli = spread([1e3 * s for s in found.seconds["engine"]])
    return {"generator_speedup": found.speedup, "milliseconds [generator]": milli}


def _cost(out: Path, rounds: int, seed: int, threads: int) -> Figures:
    """The time of a step against its events, for layers of three sizes, drawn in `engine.svg`."""
    from ..energy import svg

    figures, series = {}, []
    for i, size in enumerate(SIZES):
        torch.manual_seed(seed)
        layer = Sequential(nn.Linear(size, size, bias=False), LIF(0.9))
        engine = Engine(trace(layer, torch.zeros(1, 1, size)), threads=1, follow=True)
        points = list(_points(engine, size, rounds, seed))
        events, micro = (np.array(column) for column in zip(*points, strict=True))
        (slope, base), *_ = np.polyfit(events, micro, 1, full=True)
        explained = np.corrcoef(events, micro)[0, 1] ** 2
        figures[f"nanoseconds an event [{size}]"] = round(1000 * float(slope), 1)
        figures[f"microseconds of a silent step [{size}]"] = round(float(base), 1)
        figures[f"straight line, r2 [{size}]"] = round(float(explained), 4)
        marks = tuple(svg.Point(e, m, m, m, "", f"{e:.0f} events: {m:.0f} us") for e, m in points)
        series.append(svg.Series(f"{size} x {size}", marks, f"delta-{i}", i))
    chart = svg.scatter(series, "events in a step", "microseconds", 900, 420, straight=True)
    files.write(out / "engine.svg", svg.alone(chart, series))
    return figures


def _points(engine: Engine, size: int, rounds: int, seed: int) -> Iterator[tuple[float, float]]:
    """Events of a step, and the microseconds that it takes."""
    generator = np.random.default_rng(seed)
    for activity in (0.01, 0.02, 0.04, 0.06, 0.08, 0.1):
        x = (generator.random((DRIVES, size)) < activity).astype(np.float32)
        found = contest({"engine": _pusher(engine, x), "again": lambda: None}, rounds)
        yield float(x.sum() / DRIVES), 1e6 * float(np.median(found.seconds["engine"]))


def _percent(activity: float) -> str:
    return f"{100 * activity:g}pct"
