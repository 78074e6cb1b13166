"""The conformance kit: what every operator, neuron and target, ours or yours, is held to.

Each check returns nothing and raises AssertionError with what differs.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from .core.errors import InputError
from .core.neurons import Delta, Leaky
from .deploy.targets import TARGETS, Result, Target
from .graph.graph import Graph, Node
from .graph.ops import Add, Bias, Conv, Delay, Dense, Input, Neurons, Pool, reshape
from .nn import Neuron

Function = Callable[..., tuple[Tensor, ...]]


@contextmanager
def poisoned() -> Iterator[None]:
    """Fill the memory of `torch.empty` with NaN, so that what is read unwritten shows."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def check_op(
    fused: Function, reference: Function, inputs: Sequence[Tensor], *, rtol=1e-4, atol=1e-5
) -> None:
    """Check that two functions agree on every output and on every gradient of `inputs`.

    Args:
        fused, reference: functions of `inputs` that return tensors; one that yields no gradient
            for an input counts as zero.
        inputs: floating tensors.
        rtol, atol: tolerance, relative to and beside the reference.
    """
    with poisoned():
        results, expected = _run(fused, inputs), _run(reference, inputs)
    names = [f"output {i}" for i in range(len(results) - len(inputs))]
    names += [f"the gradient of input {i}" for i in range(len(inputs))]
    for name, a, b in zip(names, results, expected, strict=True):
        _close(name, a, b, rtol, atol)


def _run(function: Function, inputs: Sequence[Tensor]) -> list[Tensor]:
    inputs = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    outputs = function(*inputs)
    loss = inputs[0].new_zeros(())
    for output in outputs:
        weights = torch.linspace(-1, 1.5, output.numel(), dtype=output.dtype, device=output.device)
        loss = loss + (output * weights.view_as(output)).sum()
    grads = torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True)
    return [*(output.detach() for output in outputs), *grads]


def _close(name: str, actual: Tensor, expected: Tensor, rtol: float = 0, atol: float = 0) -> None:
    torch.testing.assert_close(
        actual, expected, rtol=rtol, atol=atol, msg=lambda text: f"{name} differs: {text}"
    )


@torch.no_grad()
def check_neuron(neuron: Neuron, x: Tensor) -> None:
    """Check that `neuron` keeps the contract, on the input x [T >= 2, B >= 2, ..., N >= 2].

    State is a value (chunks equal the whole, nothing is mutated or kept inside), samples and
    neurons don't see each other, silence stays silent, and a saved neuron is the same neuron.
    """
    original = x.clone()
    with poisoned():
        y, final = neuron(x)
        half = len(x) // 2
        first, middle = neuron(x[:half])
        keep = middle.clone()
        second, last = neuron(x[half:], load(save({"state": middle}))["state"])
        _close("a run in two chunks", torch.cat([first, second]), y)
        _close("the state after two chunks", last, final)
        _close("the state that was passed in", middle, keep)
        _close("x, after the run,", x, original)
        _close("a second run", neuron(x)[0], y)
        _close("a sample alone", neuron(x[:, 1:2])[0], y[:, 1:2])
        _check_permutation(neuron, x, y)
        quiet, rest = neuron(torch.zeros_like(x))
        _close("the answer to silence", quiet, torch.zeros_like(quiet))
        if not any(neuron.dynamics.rest):
            rest = rest[[name != "clock" for name in neuron.dynamics.state_names]]  # time goes on
            _close("the state after silence", rest, torch.zeros_like(rest))
        _close("a saved and loaded neuron", _reloaded(neuron)(x)[0], y)


def _check_permutation(neuron: Neuron, x: Tensor, y: Tensor) -> None:
    order = torch.arange(x.shape[-1] - 1, -1, -1, device=x.device)
    shuffled = copy.deepcopy(neuron)
    for value in shuffled.state_dict().values():
        if value.dim() and value.shape[-1] == len(order):
            value.copy_(value[..., order].clone())
    _close("neurons in another order", shuffled(x[..., order])[0], y[..., order])


def _reloaded(neuron: Neuron) -> Neuron:
    weights = load(save(neuron.state_dict()))
    blank = copy.deepcopy(neuron)
    for value in blank.state_dict().values():
        value.fill_(torch.nan)
    blank.load_state_dict(weights)
    return blank


def check_target(target: Target, graphs: Sequence[Graph] = (), seed: int = 0) -> None:
    """`target` keeps the contract of `deploy.targets` on graphs, at least one of which it accepts.

    Refusals name a node and a reason, and `run` refuses what `check` does, and unknown inputs.
    Outputs have the shapes of their nodes, counts are of the graph's layers, a second run is equal,
    and the inputs are left as they were. Silence gives silence, where it does in the reference. An
    exact target sends and counts what the reference does; a run in two parts equals the whole on
    one that streams.

    Args:
        target: what is checked.
        graphs: for it to run, with weights whose sums are exact in float32; without any, a
            convolutional network, a recurrent one with delays, and one of sigma-delta neurons.
        seed: of weights and inputs.
    """
    accepted = 0
    for graph in graphs or _sample_graphs(seed):
        generator = np.random.default_rng(seed)
        x = {name: generator.integers(0, 3, (9, *graph.shapes[name])) for name in graph.inputs}
        x = {name: (value * (value > 1)).astype(np.float32) for name, value in x.items()}
        if refusals := target.check(graph):
            assert set(refusals) <= set(graph.nodes), f"refusals {refusals} of no node"
            assert all(refusals.values()), f"refusals {refusals} without a reason"
            _check_refusal(target, graph, x, *refusals)
        else:
            accepted += 1
            _check_refusal(target, graph, {"no such input": np.zeros((9, 1), np.float32)})
            _check_run(target, graph, x)
    assert accepted, f"{target.name} accepts no graph; pass some that it can run"


def _check_refusal(target: Target, graph: Graph, x: dict[str, np.ndarray], *nodes: str) -> None:
    reason = ""
    try:
        target.run(graph, x)
    except InputError as error:
        reason = str(error)
    assert reason, f"{target.name} runs what it should refuse: {nodes or tuple(x)}"
    assert all(repr(node) in reason for node in nodes), f"{reason!r} names not all of {nodes}"


def _check_run(target: Target, graph: Graph, x: dict[str, np.ndarray]) -> None:
    copies = {name: value.copy() for name, value in x.items()}
    result, expected = target.run(graph, x), TARGETS["reference"].run(graph, x)
    assert list(result.outputs) == list(graph.outputs), f"outputs {list(result.outputs)}"
    for name, value in result.outputs.items():
        assert value.shape == (9, *graph.shapes[name]), f"{name!r} has the shape {value.shape}"
    assert set(result.counts.layers) <= set(graph.nodes), f"counts of {result.counts.layers}"
    assert result.counts.samples == 1, f"counts of {result.counts.samples} samples, not of one"
    _same_outputs("a second run", target.run(graph, x).outputs, result.outputs)
    _same_outputs("an input, after the run,", x, copies)
    if target.exact:
        _same_outputs("the answer", result.outputs, expected.outputs)
        for field in ("synops", "spikes", "sites"):
            ours, theirs = result.counts.by_layer(field), expected.counts.by_layer(field)
            assert ours == theirs, f"{field} are {ours}, and in the reference {theirs}"
    quiet = {name: np.zeros_like(value) for name, value in x.items()}
    silent = TARGETS["reference"].run(graph, quiet).counts.total("spikes") == 0
    if silent:
        answer = target.run(graph, quiet).counts.totals()
        assert not answer["spikes"] and not answer["synops"], f"silence takes {answer}"
    if target.streams:
        _check_stream(target, graph, x, result)


def _check_stream(target: Target, graph: Graph, x: dict[str, np.ndarray], result: Result) -> None:
    first = target.run(graph, {name: value[:4] for name, value in x.items()})
    assert first.state is not None, f"{target.name} streams, and gives no state"
    copies = {name: np.copy(value) for name, value in first.state.items()}
    second = target.run(graph, {name: value[4:] for name, value in x.items()}, first.state)
    _same_outputs("the state that was passed in", first.state, copies)
    joined = {n: np.concatenate([first.outputs[n], second.outputs[n]]) for n in result.outputs}
    _same_outputs("a run in two parts", joined, result.outputs)
    for field, total in result.counts.totals().items():
        parts = first.counts.total(field) + second.counts.total(field)
        assert parts == total, f"{field} of two parts are {parts}, and of the whole {total}"


def _same_outputs(
    name: str, values: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]
) -> None:
    for node, value in expected.items():
        np.testing.assert_array_equal(values[node], value, f"{name} differs at {node!r}")


def _sample_graphs(seed: int) -> list[Graph]:
    """Small graphs whose weights are multiples of 1/64."""
    generator = np.random.default_rng(seed)

    def weights(*shape: int) -> np.ndarray:
        return (generator.integers(-16, 48, shape) / 64).astype(np.float32)

    leaky, ones = Neurons(Leaky(decay=0.5, threshold=0.5)), (1, 1)
    convolutional = [
        Node("x", Input((2, 6, 6))),
        Node("conv", Conv(weights(3, 2, 3, 3), ones, (ones, ones), ones), ("x",)),
        Node("bias", Bias(weights(3, 1, 1)), ("conv",)),
        Node("lif", leaky, ("bias",)),
        Node("pool", Pool((2, 2), (2, 2), ((0, 0), (0, 0)), average=False), ("lif",)),
        Node("flat", reshape((27,)), ("pool",)),
        Node("fc", Dense(weights(4, 27)), ("flat",)),
        Node("out", Neurons(Leaky(decay=0.5, reset="zero")), ("fc",)),
    ]
    recurrent = [
        Node("x", Input((5,))),
        Node("fc", Dense(weights(4, 5)), ("x",)),
        Node("sum", Add(), ("fc", "back")),
        Node("lif", leaky, ("sum",)),
        Node("late", Delay(np.array([1, 2, 2, 3])), ("lif",)),
        Node("back", Dense(weights(4, 4) / 4), ("late",)),
    ]
    changes = [
        Node("x", Input((5,))),
        Node("fc", Dense(weights(4, 5)), ("x",)),
        Node("delta", Neurons(Delta(threshold=0.25)), ("fc",)),
        Node("last", Dense(weights(2, 4)), ("delta",)),
    ]
    return [
        Graph(convolutional, ["out"]),
        Graph(recurrent, ["lif", "late"]),
        Graph(changes, ["last"]),
    ]
