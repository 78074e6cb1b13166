"""The reference as a target: plain numpy, every value in every step."""

from ...core.errors import InputError
from ...graph.graph import Graph
from ..engine import reference
from ..engine.values import GraphState, Values, rest
from .base import Result, Target
from .counts import count


class Reference(Target):
    """The definition of what a graph computes, and of what that takes."""

    name, evidence = "reference", "bit-exact"
    exact = streams = True

    def execute(self, graph: Graph, x: Values, state: GraphState | None) -> Result:
        """Every node on dense values, step by step."""
        fresh = {name: value.shape for name, value in rest(graph).items()}
        if state is not None and {name: value.shape for name, value in state.items()} != fresh:
            raise InputError("reference: the state is of another graph; pass back what it gave")
        values, after = reference.run(graph, x, state)
        outputs = {name: values[name] for name in graph.outputs}
        return Result(outputs, count(graph, values), after)
