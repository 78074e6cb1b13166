"""Sigma-delta generators in the engine: one sample at a time, with work that follows events."""

import numpy as np
import torch
from torch import Tensor

from ..convert.methods.sigma_delta import DeltaNetwork
from ..core.errors import InputError
from ..core.meter import Counts
from ..deploy.engine import Engine
from ..deploy.engine.values import GraphState
from ..deploy.from_torch import trace_changes
from .samplers import sample


class EngineBackend:
    """A sigma-delta network, told a class, whose estimates the engine computes.

    Raises:
        InputError: the network has other arguments, or as `trace_changes`.
    """

    def __init__(self, network: DeltaNetwork):
        self.graph = trace_changes(network)
        self.engine = Engine(self.graph)
        self.change, self.begin, *classes = self.graph.inputs
        if len(classes) != 1:
            raise InputError(
                f"EngineBackend: a network of a class, not of {', '.join(classes) or '-'}"
            )
        (self.label,), (self.output,) = classes, self.graph.outputs
        self._starts: dict[int, tuple[GraphState, np.ndarray]] = {}

    def start(self, label: int) -> tuple[GraphState, np.ndarray]:
        """The state and the estimate of a network that has seen the input zero for ever.

        Every value is sent once, exactly: with thresholds of zero.
        """
        if label not in self._starts:
            one_hot = np.zeros((1, *self.graph.shapes[self.label]), np.float32)
            one_hot[0, label] = 1
            stream = self.engine.stream(scale=0.0)
            inputs = {self.begin: np.ones((1, 1), np.float32), self.label: one_hot}
            estimate = stream.push(inputs)[self.output].to_dense()[0]
            self._starts[label] = stream.state(), estimate
        return self._starts[label]

    def __call__(
        self, noise: Tensor, label: int, steps: int, sampler: str
    ) -> tuple[Tensor, Counts]:
        """Solve the flow from `noise` [...]; its values [...], and the counts."""
        state, estimate = self.start(label)
        stream = self.engine.stream(state)
        estimate = estimate.copy()
        last, flat = np.zeros_like(estimate), estimate.reshape(-1)

        def step(x: np.ndarray, t: float, state: None) -> tuple[np.ndarray, None]:
            nonlocal last
            change, last = x - last, x
            sent = stream.push({self.change: change[None]})[self.output]
            flat[sent.address] += sent.value
            return estimate.copy(), None

        values = sample(step, noise.numpy(), steps=steps, sampler=sampler)
        return torch.from_numpy(values), stream.counts()
