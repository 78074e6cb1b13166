"""Steps of the engine while other processes keep the cores busy."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from axonal.core.events import Events
from axonal.core.neurons import Leaky
from axonal.deploy.engine import Engine
from axonal.graph.graph import Graph, Node
from axonal.graph.ops import Conv, Input, Neurons

from ..harness.results import Figures
from ..harness.timing import spread

SETTLE, STEPS, BUSY = 0.5, 200, (0, 1, 2)


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """So many processes that do nothing but compute."""
    command = [sys.executable, "-c", "while True: pass"]
    running = [subprocess.Popen(command) for _ in range(processes)]
    try:
        time.sleep(SETTLE if running else 0)
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def figures(rounds: int, seed: int, threads: int) -> Figures:
    """Mean milliseconds of a step with `threads`, over those in one, in each round."""
    generator = np.random.default_rng(seed)
    kernel, one = (0.1 * generator.standard_normal((64, 32, 3, 3))).astype(np.float32), (1, 1)
    nodes = [Node("x", Input((32, 32, 32))), Node("c", Conv(kernel, one, (one, one), one), ("x",))]
    graph = Graph([*nodes, Node("n", Neurons(Leaky(decay=0.9)), ("c",))], ["n"])
    x = Events.from_dense((generator.random((1, 32, 32, 32)) < 0.15).astype(np.float32))
    result: Figures = {}
    for processes in BUSY:
        with busy(processes):
            ratios = [
                _mean(Engine(graph, threads=threads), x) / _mean(Engine(graph, threads=1), x)
                for _ in range(rounds)
            ]
        result[f"{threads} threads over 1, {processes} busy processes beside"] = spread(ratios)
    return result


def _mean(engine: Engine, x: Events) -> float:
    """Seconds of a step."""
    stream = engine.stream()
    for _ in range(STEPS // 10):
        stream.push({"x": x})
    began = time.perf_counter()
    for _ in range(STEPS):
        stream.push({"x": x})
    return (time.perf_counter() - began) / STEPS
