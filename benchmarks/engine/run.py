"""How fast the engine is beside torch, and whether its spikes are the same (`bench engine`)."""

import copy
import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.status import Status
from torch import Tensor, nn

from axonal.core import files
from axonal.core.errors import InputError
from axonal.core.neurons import Leaky
from axonal.deploy.engine import Engine
from axonal.deploy.from_torch import trace
from axonal.nn import LIF, Neuron, Sequential
from axonal.report.provenance import facts

from ..harness.timing import contest, spread
from . import networks
from .networks import Figures, pusher

ACTIVITIES = (0.001, 0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
DRIVES = 8  # different inputs of a layer, in turn
NARROW = 0.05  # the activity of the rows in bfloat16
SIZES = (1024, 2048, 4096)  # of the layers whose cost is drawn


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
        "a network of 3 x 256 neurons": networks.small_network,
        "a classifier of digits": networks.digits,
        "recordings of an event camera": networks.recordings,
        "a generator": lambda *given: networks.generator(out, *given),
        "a start": lambda *_: _start(),
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
        found = contest({"engine": pusher(engine, x)} | others, rounds)
        figures[f"{name}_{_percent(activity)}"] = found.speedup
        micro = [1e6 * s for s in found.seconds["engine"]]
        figures[f"microseconds [{name} {_percent(activity)}]"] = spread(micro)
        if activity == NARROW:
            narrow = Engine(graph, threads=threads, weights="bfloat16")
            half = Step(copy.deepcopy(linear), dynamics).bfloat16()
            others = _steppers(half, x)
            found = contest({"engine": pusher(narrow, x)} | others, rounds)
            figures[f"{name}_{_percent(activity)}_bfloat16"] = found.speedup
    return figures


def _steppers(step: Step, x: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Torch's ways to run a layer step by step, with inputs in turn."""
    dtype = next(step.parameters()).dtype
    drives = [torch.from_numpy(one[None]).to(dtype) for one in x]
    found = {"torch": _torch_stepper(step, drives)}
    if x.ndim == 4:
        last = copy.deepcopy(step).to(memory_format=torch.channels_last)
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


def _mismatches(name: str, engine: Engine, x: np.ndarray, step: Step) -> Figures:
    """Neurons and steps in which the engine's spikes are not torch's, from rest."""
    (given,), (output,) = engine.graph.inputs, engine.graph.outputs
    v, spikes = torch.zeros(()), []
    for one in x:
        s, v = step(torch.from_numpy(one[None]), v)
        spikes.append(s[0].numpy())
    found = engine.run({given: x})[0][output]
    return {f"mismatches [{name}]": int((found != np.stack(spikes)).sum())}


START = """
import time
began = time.perf_counter()
import numpy as np
from axonal.core.neurons import Leaky
from axonal.deploy.engine import Engine
from axonal.deploy.graph import Dense, Graph, Input, Neurons, Node
weight = np.ones((512, 512), np.float32)
nodes = [Node("x", Input((512,))), Node("d", Dense(weight), ("x",))]
graph = Graph([*nodes, Node("n", Neurons(Leaky(decay=0.9)), ("d",))], ["n"])
Engine(graph).run({"x": np.ones((3, 512), np.float32)})
print(time.perf_counter() - began)
"""


def _start() -> Figures:
    """Seconds from an import to the first spikes, in processes that find compiled code."""
    found = [
        float(subprocess.run([sys.executable, "-c", START], capture_output=True, check=True).stdout)
        for _ in range(4)
    ]
    return {"seconds to start": spread(found[1:])}  # the first may have compiled


def _cost(out: Path, rounds: int, seed: int, threads: int) -> Figures:
    """The time of a step against its events, for layers of three sizes, drawn in `engine.svg`."""
    from axonal.report import charts

    figures, series = {}, []
    for i, size in enumerate(SIZES):
        torch.manual_seed(seed)
        layer = Sequential(nn.Linear(size, size, bias=False), LIF(0.9))
        engine = Engine(trace(layer, torch.zeros(1, 1, size)), threads=1)
        points = list(_points(engine, size, rounds, seed))
        events, micro = (np.array(column) for column in zip(*points, strict=True))
        (slope, base), *_ = np.polyfit(events, micro, 1, full=True)
        explained = np.corrcoef(events, micro)[0, 1] ** 2
        figures[f"nanoseconds an event [{size}]"] = round(1000 * float(slope), 1)
        figures[f"microseconds of a silent step [{size}]"] = round(float(base), 1)
        figures[f"straight line, r2 [{size}]"] = round(float(explained), 4)
        marks = tuple(
            charts.Point(e, m, m, m, "", f"{e:.0f} events: {m:.0f} us") for e, m in points
        )
        series.append(charts.Series(f"{size} x {size}", marks, f"delta-{i}", i))
    chart = charts.scatter(series, "events in a step", "microseconds", 900, 420, straight=True)
    files.write(out / "engine.svg", charts.standalone(chart, series))
    return figures


def _points(engine: Engine, size: int, rounds: int, seed: int) -> Iterator[tuple[float, float]]:
    """Events of a step, and the microseconds that it takes."""
    generator = np.random.default_rng(seed)
    for activity in (0.01, 0.02, 0.04, 0.06, 0.08, 0.1):
        x = (generator.random((DRIVES, size)) < activity).astype(np.float32)
        found = contest({"engine": pusher(engine, x)}, rounds)
        yield float(x.sum() / DRIVES), 1e6 * float(np.median(found.seconds["engine"]))


def _percent(activity: float) -> str:
    return f"{100 * activity:g}pct"
