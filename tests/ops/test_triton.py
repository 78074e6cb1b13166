"""The GPU kernels, run by Triton's interpreter on the CPU: same text, same arithmetic."""

import pytest
import torch

from axonal.core.neurons import Dynamics, Leaky
from axonal.ops.scan import cpu, triton
from axonal.ops.scan.marks import MARK
from axonal.testing import poisoned

KINDS = [*(kind() for kind in Dynamics.KINDS.values())]
KINDS += [
    Leaky(decay=0.9, emit="ternary", refractory=2),
    Leaky(decay=0.9, emit="integer", levels=3, detach_reset=False),
    Leaky(decay=0.9, emit="graded", levels=3),
    Leaky(decay=0.9, reset="late", above=True),
]


CASES = [(dynamics, torch.float32, True) for dynamics in KINDS]
CASES += [(dynamics, torch.float64, False) for dynamics in KINDS[::2]]
CASES += [(dynamics, torch.bfloat16, False) for dynamics in KINDS[:2]]


@pytest.mark.parametrize(("dynamics", "dtype", "vary"), CASES, ids=repr)
def test_kernels_equal_those_of_the_cpu(dynamics, dtype, vary):
    torch.manual_seed(0)
    work = torch.float64 if dtype == torch.float64 else torch.float32
    constants = dynamics.constants()
    x = (3 * torch.randn(MARK + 3, 2, 70)).to(dtype)
    state = torch.randn(dynamics.state_size, 2, 70, dtype=work)
    state += torch.tensor(dynamics.rest, dtype=work)[:, None, None]
    near = [value * (0.9 + 0.1 * torch.rand(70, dtype=work)) for value in constants.values()]
    varying = torch.stack(near) if vary else torch.empty(0, 70, dtype=work)
    rules = (dynamics.text, ",".join(constants) if vary else "", "atan", 2.0)
    with poisoned():
        forward = [each.forward(rules, x, state, varying, len(x)) for each in (triton, cpu)]
        sent = torch.randn(MARK + 3, 2, 70).to(dtype)
        grads = torch.randn_like(state)
        backward = [
            each.backward(rules, sent, grads, x, marks, varying)
            for each, (_, _, marks) in zip((triton, cpu), forward, strict=True)
        ]
    exact = {"rtol": 0, "atol": 0} if work == torch.float32 else {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(*forward, **exact)
    close = (
        {"rtol": 1e-2, "atol": 1e-2} if dtype == torch.bfloat16 else {"rtol": 1e-4, "atol": 1e-5}
    )
    torch.testing.assert_close(*backward, **close)


def test_more_neurons_than_a_block_and_none():
    rules = (Leaky(decay=0.9).text, "", "atan", 2.0)
    for size in (triton.BLOCK + 1, 0):
        x, state = torch.rand(3, 1, size), torch.zeros(1, 1, size)
        results = triton.forward(rules, x, state, torch.empty(0, size), len(x))
        torch.testing.assert_close(
            results, cpu.forward(rules, x, state, torch.empty(0, size), len(x))
        )
