"""This machine's processor as a target: the engine, whose work follows events."""

from ...graph.cycles import reached
from ...graph.difference import Difference
from ...graph.graph import Graph
from ..engine import Engine
from ..engine.values import GraphState, Values
from .base import Result, Target


class Cpu(Target):
    """The engine on this machine."""

    name, evidence = "cpu", "bit-exact"
    exact = streams = True

    def check(self, graph: Graph) -> dict[str, str]:
        """As `Target.check`; a `Difference`, which runs all steps at once, stands in no cycle."""
        cyclic = {
            node.name: "it stands in a cycle, and runs all steps at once"
            for node in graph
            if isinstance(node.op, Difference) and node.name in reached(graph.readers, node.name)
        }
        return super().check(graph) | cyclic

    def execute(self, graph: Graph, x: Values, state: GraphState | None) -> Result:
        """Events through compiled code."""
        stream = Engine(graph).stream(state)
        sent = stream.push(x)
        outputs = {name: events.to_dense() for name, events in sent.items()}
        return Result(outputs, stream.counts(), stream.state())
