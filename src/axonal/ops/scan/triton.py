"""The scan on GPUs: each program takes a block of neurons through all of time, in registers.

As on CPUs a kernel is a `Program` printed into a frame; the backward kernel goes from mark to
mark, runs the steps between them again and keeps their states in scratch memory. Multiplications
and additions are not fused, so that spikes are equal to the reference's to the last bit (but for
kinds with an exponential).
"""

import os
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ..codegen import Program, frame, module, program
from .marks import MARK, Rules, new_marks

BLOCK = 128  # neurons of one program

NEURONS = """
import triton
import triton.language as tl


@triton.jit
def {name}({arguments}, steps, rows, neurons, every, BLOCK: tl.constexpr):
    rows = tl.cast(rows, tl.int64)
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    here = n < rows
    number = marks.dtype.element_ty
    zero = tl.zeros([BLOCK], number)
    {constants}
    {begin}
"""

FORWARD = """
    for t in range(steps):
        if t % every == 0:
            {marks}
        at = t * rows + n
        x_ = tl.load(x + at, mask=here, other=0.0).to(number)
        {forward}
        tl.store(spikes + at, s_, mask=here)
        {next}
    {end}
"""

BACKWARD = """
    chunks = (steps + every - 1) // every
    for c in range(chunks):
        chunk = chunks - 1 - c
        start = chunk * every
        size = tl.minimum(every, steps - start)
        {marks}
        for i in range(size):
            x_ = tl.load(x + (start + i) * rows + n, mask=here, other=0.0).to(number)
            {store}
            {forward}
            {next}
        for j in range(size):
            i = size - 1 - j
            at = (start + i) * rows + n
            x_ = tl.load(x + at, mask=here, other=0.0).to(number)
            grad_s = tl.load(grad_spikes + at, mask=here, other=0.0).to(number)
            {load}
            {backward}
            tl.store(to_x + at, zero + grad_x, mask=here)
            {before}
    {end}
"""


def _constants(p: Program) -> list[str]:
    """Statements that load the constants: one a neuron of a sample, or single numbers."""
    fixed = [f"{name}_ = tl.load(fixed + {i})" for i, name in enumerate(("slope", *p.fixed))]
    place = "n % neurons"
    return fixed + [
        f"{name}_ = tl.load(varying + {i} * neurons + {place}, mask=here, other=1.0)"
        for i, name in enumerate(p.varying)
    ]


def _load(array: str, k: str | int) -> str:
    return f"tl.load({array} + ({k}) * rows + n, mask=here, other=0.0)"


def _store(array: str, k: str | int, value: str) -> str:
    return f"tl.store({array} + ({k}) * rows + n, {value}, mask=here)"


def _source(p: Program, text: str, **parts: list[str] | str) -> str:
    """The text of a module with a kernel, of the parts that both passes share and of others."""
    return frame(
        NEURONS + text[1:],
        constants=_constants(p),
        forward=list(p.forward),
        next=[f"{name}_ = zero + next_{name}" for name in p.states],
        **parts,
    )


def forward_source(p: Program) -> str:
    """The text of the module with the kernel `forward`."""
    count, states = len(p.states), list(enumerate(p.states))
    return _source(
        p,
        FORWARD,
        name="forward",
        arguments="x, state, fixed, varying, spikes, final, marks",
        begin=[f"{name}_ = {_load('state', k)}" for k, name in states],
        marks=[_store("marks", f"t // every * {count} + {k}", f"{name}_") for k, name in states],
        end=[_store("final", k, f"{name}_") for k, name in states],
    )


def backward_source(p: Program) -> str:
    """The text of the module with the kernel `backward`; `scratch` has the states between marks."""
    count, states = len(p.states), list(enumerate(p.states))
    place = [f"i * {count} + {k}" for k, _ in states]
    return _source(
        p,
        BACKWARD,
        name="backward",
        arguments="x, marks, fixed, varying, scratch, grad_spikes, grad_state, to_x, to_varying",
        begin=[
            *(f"grad_{name} = {_load('grad_state', k)}" for k, name in states),
            *(f"sum_{name} = zero" for name in p.varying),
        ],
        marks=[f"{name}_ = {_load('marks', f'chunk * {count} + {k}')}" for k, name in states],
        store=[_store("scratch", place[k], f"{name}_") for k, name in states],
        load=[f"{name}_ = {_load('scratch', place[k])}" for k, name in states],
        backward=list(p.backward),
        before=[
            *(f"grad_{name} = zero + before_{name}" for name in p.states),
            *(f"sum_{name} += part_{name}" for name in p.varying),
        ],
        end=[
            *(_store("grad_state", k, f"grad_{name}") for k, name in states),
            *(_store("to_varying", i, f"sum_{name}") for i, name in enumerate(p.varying)),
        ],
    )


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
    """Run a kernel on `x`, `state` (of which marks are the backward's) and the rest."""
    steps, batch, neurons = x.shape
    if not (rows := batch * neurons):
        return
    p = program(*rules[:3], "triton")
    fixed = torch.tensor([rules[3], *p.fixed.values()], dtype=state.dtype, device=x.device)
    # Fused multiply-adds round once where the reference rounds twice.
    options = {} if interpreted() else {"enable_fp_fusion": False}
    grid = (-(-rows // BLOCK),)
    arrays = (x, state, fixed, varying, *rest)
    _kernel(name, rules[:3])[grid](*arrays, steps, rows, neurons, MARK, BLOCK=BLOCK, **options)


def forward(
    rules: Rules, x: Tensor, state: Tensor, varying: Tensor, steps: int
) -> tuple[Tensor, Tensor, Tensor]:
    """As `cpu.forward`."""
    x = x.expand(steps, -1, -1)
    x, state, varying = (tensor.contiguous() for tensor in (x, state, varying))
    spikes, final, marks = torch.empty_like(x), torch.empty_like(state), new_marks(steps, state)
    _launch("forward", rules, x, state, varying, spikes, final, marks)
    return spikes, final, marks


def backward(
    rules: Rules, grad_spikes: Tensor, grad_final: Tensor, x: Tensor, marks: Tensor, varying: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """As `cpu.backward`."""
    held, x = len(x) < len(grad_spikes), x.expand(len(grad_spikes), -1, -1)
    x, marks, varying, sent = (t.contiguous() for t in (x, marks, varying, grad_spikes))
    grad_state = grad_final.clone(memory_format=torch.contiguous_format)
    grad_x, grads = torch.empty_like(x), marks.new_empty(len(varying), *x.shape[1:])
    scratch = marks.new_empty(min(len(x), MARK), *grad_state.shape)
    _launch("backward", rules, x, marks, varying, scratch, sent, grad_state, grad_x, grads)
    return grad_x.sum(0, keepdim=True) if held else grad_x, grad_state, grads.sum(1)
