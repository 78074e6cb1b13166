"""Targets: machines, real or simulated, that run a graph and count what they executed."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from ...core.errors import InputError
from ...core.meter import Counts
from ...core.neurons import Dynamics
from ...graph.graph import Graph
from ...graph.ops import Neurons, Op
from ...graph.summary import layers
from ..engine.values import GraphState, Values, steps_of

Evidence = Literal["bit-exact", "modelled energy", "unknown energy", "behaviour only"]


@dataclass(frozen=True, eq=False)
class Result:
    """Outputs, counts and state of a run.

    Attributes:
        outputs: values [T, ...] of each output node.
        counts: what was executed; a step of theirs may be any part of the run.
        state: after the last step, to go on from; None of a target that doesn't stream.
    """

    outputs: dict[str, np.ndarray]
    counts: Counts
    state: GraphState | None = None


class Target(ABC):
    """A machine that runs graphs. A subclass in a file of its own is all that a target takes.

    Attributes:
        name: as users choose it.
        evidence: how well it is known what the machine does: its arithmetic to the bit, a mapping
            with modelled or with unknown energy, or its behaviour alone.
        exact: whether outputs are those of the reference, to the bit, where sums of float32 are
            exact; and so are its counts of synaptic operations, spikes and sites.
        streams: whether a run goes on from the state of an earlier one.
        ops, dynamics: the kinds that it can run.
        limits: the most of a layer's `neurons`, `synapses`, `parameters`, `fan_in` or `fan_out`.
    """

    name: ClassVar[str]
    evidence: ClassVar[Evidence]
    exact: ClassVar[bool] = False
    streams: ClassVar[bool] = False
    ops: ClassVar[tuple[type[Op], ...]] = (Op,)
    dynamics: ClassVar[tuple[type[Dynamics], ...]] = (Dynamics,)
    limits: ClassVar[Mapping[str, int]] = {}

    def check(self, graph: Graph) -> dict[str, str]:
        """Find the nodes that the target can't run, each with the reason; none if it runs all."""
        refusals = {}
        for layer in layers(graph):
            op, reasons = graph.nodes[layer.name].op, []
            if not isinstance(op, self.ops):
                reasons.append(f"it has no {layer.kind}")
            elif isinstance(op, Neurons) and not isinstance(op.dynamics, self.dynamics):
                reasons.append(f"it has no {type(op.dynamics).__name__} neurons")
            for key, most in self.limits.items():
                size = getattr(layer, key)
                size = size[1] if isinstance(size, tuple) else size  # a fan: the mean, the most
                if size > most:
                    reasons.append(f"{size} {key.replace('_', '-')}, where {most} fit")
            if reasons:
                refusals[layer.name] = ", ".join(reasons)
        return refusals

    def run(self, graph: Graph, x: Values, state: GraphState | None = None) -> Result:
        """Run `graph` on inputs over time.

        Args:
            graph: the network.
            x: values [T, ...] of the graph's inputs; one left out is silent.
            state: of an earlier result; None for rest.

        Raises:
            InputError: `check` refuses a node, the inputs don't fit the graph, or the state is
                another graph's or can't be gone on from.
        """
        if refusals := self.check(graph):
            nodes = "; ".join(f"{node!r}: {reason}" for node, reason in refusals.items())
            raise InputError(f"{self.name} can't run this graph: {nodes}")
        if state is not None and not self.streams:
            raise InputError(f"{self.name} can't go on from a state; run all steps at once")
        steps_of(graph, x)
        return self.execute(graph, x, state)

    @abstractmethod
    def execute(self, graph: Graph, x: Values, state: GraphState | None) -> Result:
        """Run a graph on inputs, all of which `run` has checked."""
