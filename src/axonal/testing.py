"""The conformance kit: what every operator and neuron, ours or yours, is held to.

Each check returns nothing and raises AssertionError with what differs.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from safetensors.torch import load, save
from torch import Tensor

from .nn import Neuron

Function = Callable[..., tuple[Tensor, ...]]


@contextmanager
def poisoned() -> Iterator[None]:
    """Fills the memory of `torch.empty` with NaN, so that what is read unwritten shows."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def check_op(
    fused: Function, reference: Function, inputs: Sequence[Tensor], *, rtol=1e-4, atol=1e-5
) -> None:
    """`fused` and `reference` agree on every output and on every gradient of `inputs`.

    Args:
        fused, reference: functions of `inputs` that return tensors; one that yields no gradient
            for an input counts as zero.
        inputs: floating tensors.
        rtol, atol: tolerance, relative to and beside the reference.
    """
    with poisoned():
        found, expected = _run(fused, inputs), _run(reference, inputs)
    names = [f"output {i}" for i in range(len(found) - len(inputs))]
    names += [f"the gradient of input {i}" for i in range(len(inputs))]
    for name, a, b in zip(names, found, expected, strict=True):
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


def _close(name: str, found: Tensor, expected: Tensor, rtol: float = 0, atol: float = 0) -> None:
    torch.testing.assert_close(
        found, expected, rtol=rtol, atol=atol, msg=lambda text: f"{name} differs: {text}"
    )


@torch.no_grad()
def check_neuron(neuron: Neuron, x: Tensor) -> None:
    """`neuron` keeps the contract of neurons on the input x [T >= 2, B >= 2, ..., N >= 2].

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
