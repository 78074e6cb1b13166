"""The engine beside torch: layers over the range of activity, and whole networks."""

import copy
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from axonal.commands.console import status
from axonal.core.neurons import Leaky
from axonal.deploy.engine import Engine
from axonal.deploy.from_torch import trace
from axonal.nn import LIF, Neuron, Sequential
from axonal.report import charts

from ..harness.bench import Run
from ..harness.charts import write
from ..harness.page import shown, table
from ..harness.results import Figures, Results
from ..harness.timing import spread, time_in_turn
from . import networks, shared, startup
from .networks import pusher

ACTIVITIES = (0.001, 0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
DRIVES = 8  # different inputs of a layer, in turn
NARROW = 0.05  # the activity of the rows in bfloat16
SIZES = (1024, 2048, 4096)  # of the layers whose cost is drawn


def measure(*, run: Run, rounds: int = 7, seed: int = 0, threads: int = 2) -> Results:
    """Time the engine beside torch, and compare their spikes.

    Torch runs eagerly, in channels last where there are channels, and compiled; a ratio is that
    of the fastest of them in the same round. All work on one sample at a time.

    Args:
        run: where; its results must hold generate.json.
        rounds: of timing, at least 3.
        seed: of weights and drives.
        threads: of torch and of the engine.

    Raises:
        FileError: data or generate.json are missing, or nothing can be written.
    """
    options, compared = (rounds, seed, threads), networks.chosen_generators(run.results)
    parts: Mapping[str, Callable[[], Figures]] = {
        "a layer of 4096 x 4096": lambda: _dense(*options),
        "a convolution": lambda: _convolution(*options),
        "a network of 3 x 256 neurons": lambda: networks.small_network(*options),
        "a classifier of digits": lambda: networks.digits(*options),
        "recordings of an event camera": lambda: networks.recordings(*options),
        "a generator": lambda: networks.generator(compared, *options),
        "a start": _start,
        "a bare installation": _bare,
        "shared cores": lambda: shared.figures(*options),
        "the cost of events": lambda: _cost(run.results, rounds, seed),
    }
    figures: Figures = {}
    with torch.inference_mode():
        for name, part in parts.items():
            with status(name):
                figures |= part()
    mismatches = [value for key, value in figures.items() if key.startswith("mismatches [")]
    return {"figures": figures | {"spike_mismatches": sum(mismatches)}}


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
    figures = _layer(
        "conv",
        nn.Conv2d(32, 64, 3, padding=1, bias=False),
        (32, 64, 64),
        rounds,
        seed,
        threads,
    )
    ratios = [figures[f"conv_{_percent(a)}"]["value"] for a in ACTIVITIES]
    return figures | {"conv_breakeven": round(_crossing(ACTIVITIES, ratios), 3)}


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
        timings = time_in_turn({"engine": pusher(engine, x)} | others, rounds)
        figures[f"{name}_{_percent(activity)}"] = timings.speedup
        micro = [1e6 * s for s in timings.seconds["engine"]]
        figures[f"microseconds [{name} {_percent(activity)}]"] = spread(micro)
        if activity == NARROW:
            narrow = Engine(graph, threads=threads, weights="bfloat16")
            half = Step(copy.deepcopy(linear), dynamics).bfloat16()
            others = _steppers(half, x)
            timings = time_in_turn({"engine": pusher(narrow, x)} | others, rounds)
            figures[f"{name}_{_percent(activity)}_bfloat16"] = timings.speedup
    return figures


def _steppers(step: Step, x: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Torch's ways to run a layer step by step, with inputs in turn."""
    dtype = next(step.parameters()).dtype
    drives = [torch.from_numpy(one[None]).to(dtype) for one in x]
    steppers = {"torch": _torch_stepper(step, drives)}
    if x.ndim == 4:
        last = copy.deepcopy(step).to(memory_format=torch.channels_last)
        drives = [d.contiguous(memory_format=torch.channels_last) for d in drives]
        steppers["torch, channels last"] = _torch_stepper(last, drives)
    torch.compiler.reset()
    return steppers | {"torch, compiled": _torch_stepper(torch.compile(step), drives)}


def _torch_stepper(step: Any, drives: list[Tensor]) -> Callable[[], None]:
    turns, state = itertools.cycle(drives), [torch.zeros(())]
    state[0] = torch.zeros_like(step(drives[0], state[0])[1])

    def call() -> None:
        _, state[0] = step(next(turns), state[0])

    return call


def _mismatches(name: str, engine: Engine, x: np.ndarray, step: Step) -> Figures:
    """Neurons and steps in which the engine's spikes are not torch's, from rest."""
    (source,), (output,) = engine.graph.inputs, engine.graph.outputs
    v, spikes = torch.zeros(()), []
    for one in x:
        s, v = step(torch.from_numpy(one[None]), v)
        spikes.append(s[0].numpy())
    ours = engine.run({source: x})[0][output]
    return {f"mismatches [{name}]": int((ours != np.stack(spikes)).sum())}


def _start() -> Figures:
    """Seconds from an import to the first spikes: where nothing is compiled yet, and after."""
    command = [sys.executable, "-m", startup.__name__]
    with tempfile.TemporaryDirectory() as cache:
        options: Any = {"capture_output": True, "check": True}
        options["env"] = os.environ | {"AXONAL_CACHE": cache}
        seconds = [
            [float(part) for part in subprocess.run(command, **options).stdout.split()]
            for _ in range(4)
        ]
    return {
        "seconds of the first compilation": round(seconds[0][0], 1),
        "seconds of another kind of neuron": round(seconds[0][1], 1),
        "seconds to start": spread([first for first, _ in seconds[1:]]),
    }


def _bare() -> Figures:
    """Seconds of the package without extras, in an environment of its own, as small computers are.

    Of the engine from an import to its first spikes, and of `axonal watch` from the start of the
    process to its end, for a table of a few rows: where nothing is compiled yet, and after.
    """
    with tempfile.TemporaryDirectory() as folder:
        table, python = Path(folder) / "log.csv", Path(folder) / "bare" / "bin" / "python"
        table.write_text("time,value\n" + "".join(f"{i},{i % 7}\n" for i in range(20)))
        venv.create(python.parents[1], with_pip=True)
        install = [python, "-m", "pip", "install", "--quiet", Path(__file__).parents[2]]
        subprocess.run(install, check=True, capture_output=True)
        watch = ["-m", "axonal", "watch", table, "--unit", "s", "--quiet", "--fresh"]
        figures: Figures = {}
        for name, command in {
            "the engine": ["-m", startup.__name__],
            "a watch": [*watch, "--state", Path(folder) / "state"],
        }.items():
            seconds = []
            for _ in range(4):
                began = time.perf_counter()
                environment = os.environ | {"AXONAL_CACHE": f"{folder}/cache", "PYTHONPATH": ""}
                options: Any = {"env": environment, "capture_output": True, "check": True}
                subprocess.run([python, *command], cwd=Path(__file__).parents[2], **options)
                seconds.append(time.perf_counter() - began)
            figures[f"seconds of {name} without extras, the first time"] = round(seconds[0], 1)
            figures[f"seconds of {name} without extras"] = spread(seconds[1:])
        packages = [python, "-m", "pip", "list", "--format", "json"]
        listed = json.loads(subprocess.run(packages, check=True, capture_output=True).stdout)
        figures["packages without extras"] = len(listed)
    return figures


def _cost(out: Path, rounds: int, seed: int) -> Figures:
    """The time of a step against its events, for layers of three sizes, drawn in `engine.svg`."""
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
    write(out / "engine.svg", chart, series)
    return figures


def _points(engine: Engine, size: int, rounds: int, seed: int) -> Iterator[tuple[float, float]]:
    """Events of a step, and the microseconds that it takes."""
    generator = np.random.default_rng(seed)
    for activity in (0.01, 0.02, 0.04, 0.06, 0.08, 0.1):
        x = (generator.random((DRIVES, size)) < activity).astype(np.float32)
        timings = time_in_turn({"engine": pusher(engine, x)}, rounds)
        yield float(x.sum() / DRIVES), 1e6 * float(np.median(timings.seconds["engine"]))


def _percent(activity: float) -> str:
    return f"{100 * activity:g}pct"


LAYERS = {"fc4096": "4096 x 4096", "conv": "3 x 3, 32 to 64 channels, 64 x 64"}
NETWORKS = {  # by the figures of steps that come one by one
    "lif256_3pct": "20-256-256-256-35 LIF, 3 % activity",
    "mnist_snn": "MNIST classifier, trained here",
    "nmnist_cnn_vs_torch": "N-MNIST network, from NIR",
    "generator_speedup": "sigma-delta generator, an image",
}


def tables(results: Results) -> dict[str, str]:
    """`layers` over their activity, and `networks`: how many times as long torch takes."""
    figures = results["figures"]
    shares = [key[len("conv_") :] for key in figures if re.fullmatch(r"conv_[\d.]+pct", key)]
    layers = [
        [title, *(f"{figures[f'{name}_{share}']['value']:.2g}" for share in shares)]
        for name, title in LAYERS.items()
    ]
    networks = []
    for name, title in NETWORKS.items():
        at_once = figures.get(f"{name.removesuffix('_vs_torch')}_whole")
        networks.append([title, shown(figures[name]), shown(at_once) if at_once else "–"])
    activities = [share.replace("pct", " %") for share in shares]
    return {
        "layers": table(["torch's time / ours, at the activity", *activities], layers),
        "networks": table(["torch's time / ours", "step by step", "all steps known"], networks),
    }
