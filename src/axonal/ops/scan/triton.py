"""The scan on GPUs: each program takes a block of neurons through all of time, in registers.

As on CPUs a kernel is a `Program` printed into a frame; the backward kernel runs forward again and
keeps the states in scratch memory of its own. Multiplications and additions are not fused, so
that spikes are equal to the reference's to the last bit (but for kinds with an exponential).
"""

import os
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ..generated import module
from .program import Program, Rules, frame, program

BLOCK = 128  # neurons of one program

HEAD = """
import triton
import triton.language as tl


@triton.jit
def {name}({arguments}, steps, rows, neurons, BLOCK: tl.constexpr):
    rows = tl.cast(rows, tl.int64)
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    here = n < rows
    number = state.dtype.element_ty
    zero = tl.zeros([BLOCK], number)
    {constants}
    {begin}
    for t in range(steps):
        at = t * rows + n
        x_ = tl.load(x + at, mask=here, other=0.0).to(number)
        {forward}
        {stores}
"""

BACK = """
    {begin}
    for i in range(steps):
        t = steps - 1 - i
        at = t * rows + n
        x_ = tl.load(x + at, mask=here, other=0.0).to(number)
        grad_s = tl.load(grad_spikes + at, mask=here, other=0.0).to(number)
        {loads}
        {backward}
        {stores}
    {end}
"""


def _constants(p: Program) -> list[str]:
    """Those of a neuron lie at its place in a sample; all others are single numbers."""
    fixed = [f"{name}_ = tl.load(fixed + {i})" for i, name in enumerate(("slope", *p.fixed))]
    place = "n % neurons"
    return fixed + [
        f"{name}_ = tl.load(varying + {i} * neurons + {place}, mask=here, other=1.0)"
        for i, name in enumerate(p.varying)
    ]


def _load(array: str, k: int) -> str:
    return f"tl.load({array} + {k} * rows + n, mask=here, other=0.0)"


def _head(p: Program, name: str, arguments: str, stores: list[str]) -> str:
    """A kernel's way forward, with what it stores in each step."""
    return frame(
        HEAD,
        name=name,
        arguments=arguments,
        constants=_constants(p),
        begin=[f"{name}_ = {_load('state', k)}" for k, name in enumerate(p.states)],
        forward=list(p.forward),
        stores=[*stores, *(f"{name}_ = zero + next_{name}" for name in p.states)],
    )


def forward_source(p: Program) -> str:
    """The text of the module with the kernel `forward`."""
    head = _head(
        p,
        "forward",
        "x, state, fixed, varying, spikes, final",
        stores=["tl.store(spikes + at, s_, mask=here)"],
    )
    ends = (
        f"    tl.store(final + {k} * rows + n, {name}_, mask=here)\n"
        for k, name in enumerate(p.states)
    )
    return head + "".join(ends)


def backward_source(p: Program) -> str:
    """The text of the module with the kernel `backward`."""
    count = len(p.states)
    again = _head(
        p,
        "backward",
        "x, state, fixed, varying, kept, grad_spikes, grad_state, to_x, to_varying",
        stores=[
            f"tl.store(kept + ({count} * t + {k}) * rows + n, {name}_, mask=here)"
            for k, name in enumerate(p.states)
        ],
    )
    through = frame(
        BACK,
        begin=[
            *(f"grad_{name} = {_load('grad_state', k)}" for k, name in enumerate(p.states)),
            *(f"sum_{name} = zero" for name in p.varying),
        ],
        loads=[
            f"{name}_ = tl.load(kept + ({count} * t + {k}) * rows + n, mask=here, other=0.0)"
            for k, name in enumerate(p.states)
        ],
        backward=list(p.backward),
        stores=[
            "tl.store(to_x + at, zero + grad_x, mask=here)",
            *(f"grad_{name} = zero + before_{name}" for name in p.states),
            *(f"sum_{name} += part_{name}" for name in p.varying),
        ],
        end=[
            *(
                f"tl.store(grad_state + {k} * rows + n, grad_{name}, mask=here)"
                for k, name in enumerate(p.states)
            ),
            *(
                f"tl.store(to_varying + {i} * rows + n, sum_{name}, mask=here)"
                for i, name in enumerate(p.varying)
            ),
        ],
    )
    return again + through


def interpreted() -> bool:
    """Whether Triton was told to run its kernels in Python, on a CPU, to test them."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@lru_cache(maxsize=1)
def available() -> bool:
    """Whether Triton is installed."""
    try:
        import triton  # noqa: F401
    except ImportError:
        return False
    return True


@lru_cache(maxsize=1024)
def _kernel(name: str, rules: tuple[str, str, str]) -> Any:
    source = {"forward": forward_source, "backward": backward_source}[name]
    return getattr(module(source(program(*rules, "triton"))), name)


def _launch(name: str, rules: Rules, x: Tensor, state: Tensor, varying: Tensor, *rest: Tensor):
    steps, batch, neurons = x.shape
    if not (rows := batch * neurons):
        return
    p = program(*rules[:3], "triton")
    fixed = torch.tensor([rules[3], *p.fixed.values()], dtype=state.dtype, device=x.device)
    # Fused multiply-adds round once where the reference rounds twice.
    options = {} if interpreted() else {"enable_fp_fusion": False}
    grid = (-(-rows // BLOCK),)
    arrays = (x, state, fixed, varying, *rest)
    _kernel(name, rules[:3])[grid](*arrays, steps, rows, neurons, BLOCK=BLOCK, **options)


def forward(rules: Rules, x: Tensor, state: Tensor, varying: Tensor) -> tuple[Tensor, Tensor]:
    """As `cpu.forward`."""
    x, state, varying = (tensor.contiguous() for tensor in (x, state, varying))
    spikes, final = torch.empty_like(x), torch.empty_like(state)
    _launch("forward", rules, x, state, varying, spikes, final)
    return spikes, final


def backward(
    rules: Rules, grad_spikes: Tensor, grad_final: Tensor, x: Tensor, state: Tensor, varying: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """As `cpu.backward`."""
    x, state, varying, sent = (t.contiguous() for t in (x, state, varying, grad_spikes))
    grad_state = grad_final.clone(memory_format=torch.contiguous_format)
    grad_x, grads = torch.empty_like(x), state.new_empty(len(varying), *x.shape[1:])
    kept = state.new_empty(len(x), *state.shape)
    _launch("backward", rules, x, state, varying, kept, sent, grad_state, grad_x, grads)
    return grad_x, grad_state, grads.sum(1)
