"""Seconds from an import to the first spikes: `python -m benchmarks.engine.startup` prints them.

Then those of the first network with another kind of neuron, in the same process.
"""

import time


def main() -> None:
    """Import the engine, run two small graphs, and print the seconds of each."""
    began = time.perf_counter()
    import numpy as np

    from axonal.core.neurons import Delta, Dynamics, Leaky
    from axonal.deploy.engine import Engine
    from axonal.graph.graph import Graph, Node
    from axonal.graph.ops import Dense, Input, Neurons

    def run(dynamics: Dynamics) -> None:
        weight = np.ones((512, 512), np.float32)
        nodes = [Node("x", Input((512,))), Node("d", Dense(weight), ("x",))]
        graph = Graph([*nodes, Node("n", Neurons(dynamics), ("d",))], ["n"])
        Engine(graph).run({"x": np.ones((3, 512), np.float32)})

    run(Leaky(decay=0.9))
    first, began = time.perf_counter() - began, time.perf_counter()
    run(Delta(threshold=0.5))
    print(first, time.perf_counter() - began)  # noqa: T201


if __name__ == "__main__":
    main()
