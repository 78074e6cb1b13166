"""Seconds from an import to the first spikes: `python -m benchmarks.engine.startup` prints them."""

import time


def main() -> None:
    """Import the engine, run a small graph, and print the seconds."""
    began = time.perf_counter()
    import numpy as np

    from axonal.core.neurons import Leaky
    from axonal.deploy.engine import Engine
    from axonal.graph.graph import Graph, Node
    from axonal.graph.ops import Dense, Input, Neurons

    weight = np.ones((512, 512), np.float32)
    nodes = [Node("x", Input((512,))), Node("d", Dense(weight), ("x",))]
    graph = Graph([*nodes, Node("n", Neurons(Leaky(decay=0.9)), ("d",))], ["n"])
    Engine(graph).run({"x": np.ones((3, 512), np.float32)})
    print(time.perf_counter() - began)  # noqa: T201


if __name__ == "__main__":
    main()
