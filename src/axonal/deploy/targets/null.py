"""A target that does nothing: the smallest example, and the bottom of every comparison."""

import numpy as np

from ...core.meter import FIELDS, Counts
from ...graph.graph import Graph
from ..engine.values import GraphState, Values, steps_of
from .base import Result, Target


class Null(Target):
    """A machine that accepts every graph, sends nothing, and counts where it could have."""

    name, evidence = "null", "behaviour only"
    streams = True

    def execute(self, graph: Graph, x: Values, state: GraphState | None) -> Result:
        """Silence of the right shapes."""
        steps, neurons = steps_of(graph, x), graph.neurons
        table = np.zeros((1, len(neurons), len(FIELDS)))
        table[0, :, FIELDS.index("sites")] = [
            steps * graph.size(name) * op.dynamics.events for name, op in neurons.items()
        ]
        outputs = {n: np.zeros((steps, *graph.shapes[n]), np.float32) for n in graph.outputs}
        return Result(outputs, Counts(tuple(neurons), table, 1), {})
