"""The scan on CPUs: each thread takes blocks of neurons through all of time, in cache.

A kernel is a `Program` printed into one of the two frames below and compiled by Numba. The
forward pass marks the state of every few steps; the backward pass goes from mark to mark, runs
these steps again and keeps the states of a strip of neurons, so that training stores little more
than its inputs. Arithmetic follows the reference operation by operation, so that spikes are
equal to the last bit (but for kinds with an exponential).
"""

from collections.abc import Callable
from functools import lru_cache

import llvmlite.binding
import numpy as np
import torch
from torch import Tensor

from ..codegen import Program, frame, module, program
from ..threads import run_in_parts
from .marks import MARK, Rules, new_marks

WIDTH = 2048  # neurons of a block
STRIP = 256  # of these at a time: the states between two marks stay in a core's nearest caches
AHEAD = 2  # steps between asking for memory and its use
LANES = 64  # neurons that blocks come in multiples of: whole vector registers, whole cache lines
ALONE = 2**15  # values up to which a second thread costs more than it brings
SHARES = 8  # of the work, for each thread
# LLVM vectorises a loop over more arrays than its default only if it may check for more overlaps.
llvmlite.binding.set_option("axonal", "-runtime-memory-check-threshold=128")

HERE = "b, left:right"  # the neurons of a block
NEXT, PREVIOUS = f"min(t + {AHEAD}, steps - 1)", f"max(t - {AHEAD}, 0)"

BLOCKS = """
import numpy as np
from numba import njit

from axonal.ops.scan.prefetch import prefetch

F = np.{dtype}
STRIP = {strip}


@njit(error_model="numpy", nogil=True, cache=True)
def {name}(first, last, width, every, steps, {arguments}):
    neurons = x.shape[2]
    blocks = -(-neurons // width)
    {constants}
    for task in range(first, last):
        b, left = task // blocks, task % blocks * width
        right = min(left + width, neurons)
        {begin}
"""

FORWARD = """
        for t in range(steps):
            if t % every == 0:
                {marks}
            for lo in range(left, right, STRIP):
                hi = min(lo + STRIP, right)
                {rows}
                for n in range(hi - lo):
                    {loads}
                    {forward}
                    {stores}
                {after}
"""

BACKWARD = """
        for chunk in range((steps - 1) // every, -1, -1):
            start = chunk * every
            count = min(every, steps - start)
            for lo in range(left, right, STRIP):
                hi = min(lo + STRIP, right)
                {marks}
                for i in range(count):
                    t = start + i
                    {again_rows}
                    for n in range(hi - lo):
                        {loads}
                        {forward}
                        {again_stores}
                for i in range(count - 1, -1, -1):
                    t = start + i
                    {rows}
                    for n in range(hi - lo):
                        {loads}
                        {grads}
                        {backward}
                        {stores}
                    {after}
"""


def _constants(p: Program) -> list[str]:
    return [f"{name}_ = fixed[{i}]" for i, name in enumerate(("slope", *p.fixed))]


def _strip(p: Program, states: str) -> list[str]:
    """Statements that name the rows of a strip's states and of its constants that vary."""
    rows = [f"all_{name} = {states.format(k)}" for k, name in enumerate(p.states)]
    return rows + [f"all_{name} = varying[{i}, lo:hi]" for i, name in enumerate(p.varying)]


def _loads(names: tuple[str, ...]) -> list[str]:
    return [f"{name}_ = all_{name}[n]" for name in names]


def _held(array: str, step: str = "t") -> str:
    """The step of an array: the only one, if it stays the same."""
    return f"min({step}, len({array}) - 1)"


def _prefetch(array: str, step: str, write: bool = False) -> str:
    return f"prefetch({array}[{step}, b, lo:hi], {int(write)})"


# bfloat16 is the upper half of a float32: kernels read it as bits, and round to even (as torch).
def _open(row: str, source: str, half: bool, step: str = "t") -> list[str]:
    """Statements that make `row` the float values of `source`, at a step."""
    if not half:
        return [f"{row} = {source}[{step}, b, lo:hi]"]
    return [
        f"bits = {source}[{step}, b, lo:hi]",
        "for n in range(hi - lo):",
        f"    wide_{row}[n] = np.uint32(bits[n]) << np.uint32(16)",
    ]


def _close(row: str, target: str, half: bool) -> list[str]:
    """Statements that hand what `row` holds to `target`, at step t."""
    if not half:
        return []
    return [
        f"bits = {target}[t, b, lo:hi]",
        "for n in range(hi - lo):",
        f"    u = wide_{row}[n]",
        "    even = (u >> np.uint32(16)) & np.uint32(1)",
        "    bits[n] = (u + np.uint32(0x7FFF) + even) >> np.uint32(16)",
    ]


def _wide(half: bool, *rows: str) -> list[str]:
    """Statements that make room for the float values of `rows`."""
    return [
        statement
        for row in rows * half
        for statement in (f"wide_{row} = np.empty(STRIP, np.uint32)", f"{row} = wide_{row}.view(F)")
    ]


def _source(p: Program, dtype: str, text: str, **parts: list[str] | str) -> str:
    """The text of a module with a kernel, of the parts that both passes share and of others."""
    return frame(
        BLOCKS + text[1:],
        dtype="float32" if dtype == "bfloat16" else dtype,
        strip=str(STRIP),
        constants=_constants(p),
        loads=_loads(("x", *p.states, *p.varying)),
        forward=list(p.forward),
        **parts,
    )


def forward_source(p: Program, dtype: str) -> str:
    """The text of the module with the kernel `forward`; `final` has the states as they are."""
    half, count = dtype == "bfloat16", len(p.states)
    return _source(
        p,
        dtype,
        FORWARD,
        name="forward",
        arguments="fixed, varying, x, state, spikes, final, marks",
        begin=[
            *(f"final[{k}, {HERE}] = state[{k}, {HERE}]" for k in range(count)),
            *_wide(half, "all_x", "all_s"),
        ],
        marks=[
            f"marks[t // every * {count} + {k}, {HERE}] = final[{k}, {HERE}]" for k in range(count)
        ],
        rows=[
            *_open("all_x", "x", half, _held("x")),
            *([] if half else ["all_s = spikes[t, b, lo:hi]"]),
            *_strip(p, "final[{}, b, lo:hi]"),
            _prefetch("x", _held("x", NEXT)),
            _prefetch("spikes", NEXT, write=True),
        ],
        stores=["all_s[n] = s_", *(f"all_{name}[n] = next_{name}" for name in p.states)],
        after=_close("all_s", "spikes", half),
    )


def backward_source(p: Program, dtype: str, held: bool) -> str:
    """The text of the module with the kernel `backward`; `trace` has the states between marks.

    If x is `held`, one row for all steps, its gradient is added up over them.
    """
    half, states = dtype == "bfloat16", list(enumerate(p.states))
    trace, out = "trace[{}, i, : hi - lo]", "0" if held else "{}"
    return _source(
        p,
        dtype,
        BACKWARD,
        name="backward",
        arguments="fixed, varying, x, marks, grad_spikes, grad_state, to_x, to_varying",
        begin=[
            f"trace = np.empty(({len(states)}, min(every, steps) + 1, STRIP), F)",
            *(f"to_varying[{i}, {HERE}] = 0" for i in range(len(p.varying))),
            *_wide(half, "all_x", "grads_s", "out"),
        ],
        marks=[
            f"trace[{k}, 0, : hi - lo] = marks[chunk * {len(states)} + {k}, b, lo:hi]"
            for k, _ in states
        ],
        again_rows=[
            *_open("all_x", "x", half, _held("x")),
            *_strip(p, trace),
            *(f"after_{name} = {trace.replace('i,', 'i + 1,').format(k)}" for k, name in states),
            _prefetch("x", _held("x", NEXT)),
        ],
        again_stores=[f"after_{name}[n] = next_{name}" for name in p.states],
        rows=[
            *_open("all_x", "x", half, _held("x")),
            *_open("grads_s", "grad_spikes", half, _held("grad_spikes")),
            *([] if half else [f"out = to_x[{out.format('t')}, b, lo:hi]"]),
            *_strip(p, trace),
            *(f"grads_{name} = grad_state[{k}, b, lo:hi]" for k, name in states),
            *(f"sum_{name} = to_varying[{i}, b, lo:hi]" for i, name in enumerate(p.varying)),
            _prefetch("grad_spikes", _held("grad_spikes", PREVIOUS)),
            _prefetch("to_x", out.format(PREVIOUS), write=True),
        ],
        grads=["grad_s = grads_s[n]", *(f"grad_{name} = grads_{name}[n]" for name in p.states)],
        backward=list(p.backward),
        stores=[
            f"out[n] {'+' * held}= grad_x",
            *(f"grads_{name}[n] = before_{name}" for name in p.states),
            *(f"sum_{name}[n] += part_{name}" for name in p.varying),
        ],
        after=_close("out", "to_x", half),
    )


@lru_cache(maxsize=1024)
def _kernel(
    name: str, rules: Rules, dtype: torch.dtype, held: bool
) -> tuple[Callable[..., None], np.ndarray]:
    """The compiled kernel, and the values of the constants that don't vary."""
    p, number = program(*rules[:3]), str(dtype).removeprefix("torch.")
    source = forward_source(p, number) if name == "forward" else backward_source(p, number, held)
    exact = "float64" if dtype == torch.float64 else "float32"
    return getattr(module(source), name), np.array([rules[3], *p.fixed.values()], exact)


def _array(tensor: Tensor) -> np.ndarray:
    """The memory of a tensor; bfloat16, which numpy lacks, as its bits."""
    bits = tensor.dtype == torch.bfloat16
    return (tensor.detach().view(torch.uint16) if bits else tensor.detach()).numpy()


def _launch(name: str, rules: Rules, steps: int, varying: Tensor, *tensors: Tensor) -> None:
    """Run a kernel on the memory of `tensors`, x first, on as many threads as torch's."""
    kernel, fixed = _kernel(name, rules, tensors[0].dtype, len(tensors[0]) < steps)
    arrays = [_array(tensor) for tensor in tensors]
    _, batch, neurons = arrays[0].shape
    if not len(varying):  # all neurons are alike: the samples are one long row
        arrays = [array.reshape(len(array), 1, batch * neurons) for array in arrays]
        batch, neurons = 1, batch * neurons
    threads = torch.get_num_threads()
    fair = -(-batch * neurons // threads // LANES) * LANES  # enough blocks for all threads
    width = max(LANES, min(neurons, WIDTH, fair))
    tasks = batch * -(-neurons // width)
    arguments = (width, MARK, steps, fixed, _array(varying), *arrays)
    if threads == 1 or tasks == 1 or steps * batch * neurons <= ALONE:
        kernel(0, tasks, *arguments)
        return

    def work(_: int, first: int, last: int) -> None:
        kernel(first, last, *arguments)

    run_in_parts(work, tasks, min(tasks, SHARES * threads), threads)


def forward(
    rules: Rules, x: Tensor, state: Tensor, varying: Tensor, steps: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The scan of x [T, B, N] from state [K, B, N] with constants varying [P, N].

    Of one step of x, for so many `steps` that it stays the same.

    Returns:
        Spikes [T, B, N], the last state [K, B, N] and the marks [M K, B, N]: the states before
        every `MARK`th step.
    """
    x, state, varying = (tensor.contiguous() for tensor in (x, state, varying))
    spikes, final = x.new_empty(steps, *x.shape[1:]), torch.empty_like(state)
    marks = new_marks(steps, state)
    _launch("forward", rules, steps, varying, x, state, spikes, final, marks)
    return spikes, final, marks


def backward(
    rules: Rules, grad_spikes: Tensor, grad_final: Tensor, x: Tensor, marks: Tensor, varying: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, of the first state and of the constants that vary."""
    steps = len(grad_spikes)
    if len(x) < steps and x.dtype == torch.bfloat16:  # which is too narrow to add up in
        each = backward(rules, grad_spikes, grad_final, x.expand(steps, -1, -1), marks, varying)
        return each[0].sum(0, keepdim=True), each[1], each[2]
    if not grad_spikes.stride(0):  # a mean or sum over time sends every step the same
        grad_spikes = grad_spikes[:1]
    x, marks, varying, sent = (t.contiguous() for t in (x, marks, varying, grad_spikes))
    grad_state = grad_final.clone(memory_format=torch.contiguous_format)
    grad_x = torch.zeros_like(x) if len(x) < steps else torch.empty_like(x)
    grads = marks.new_empty(len(varying), *x.shape[1:])
    _launch("backward", rules, steps, varying, x, marks, sent, grad_state, grad_x, grads)
    return grad_x, grad_state, grads.sum(1)
