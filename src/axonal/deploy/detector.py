"""A spiking network in the engine as a detector of a watch."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..core.errors import InputError
from ..graph.graph import Graph
from ..sense.detectors import Classifier
from ..sense.stream import State
from .engine import Engine


class EngineDetector(Classifier):
    """A spiking network in the engine: a window is a step, and its features are the input.

    Args:
        graph: the network.
        target: the class that is looked for.
        windows: how many of the last ones are averaged.

    Raises:
        InputError: the graph has several inputs or outputs.
    """

    def __init__(self, graph: Graph, target: int, windows: int = 1):
        if len(graph.inputs) != 1 or len(graph.outputs) != 1:
            raise InputError(
                f"{len(graph.inputs)} inputs and {len(graph.outputs)} outputs; one of each works"
            )
        self.engine = Engine(graph, threads=1)
        self.stream, self.input = self.engine.stream(), graph.inputs[0]
        self.shape = graph.shapes[self.input]
        super().__init__(self._step, target, windows)

    def _step(self, x: np.ndarray) -> np.ndarray:
        """The output of the network's next step, [K]."""
        if x.size != math.prod(self.shape):
            raise InputError(f"a window has {x.size} features, the network takes {self.shape}")
        step = x.astype(np.float32).reshape(1, *self.shape)
        [output] = self.stream.push({self.input: step}).values()
        return output.to_dense().ravel()

    def state(self) -> State:
        """The network's state, and the probabilities that are averaged."""
        return super().state() | {"network": self.stream.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where the detector stood that gave `state`."""
        super().restore({k: v for k, v in state.items() if k != "network"})
        self.stream = self.engine.stream(dict(state.get("network", {})))
