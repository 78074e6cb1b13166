"""The scan on CPUs: each thread takes blocks of neurons through all of time, in cache.

A kernel is a `Program` printed into one of the two frames below and compiled by Numba. The
backward pass runs its block forward again and keeps the states in the block's scratch, so that
training stores its inputs alone. Arithmetic follows the reference operation by operation, so
that spikes are equal to the last bit (but for kinds with an exponential).
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import count

import llvmlite.binding
import numpy as np
import torch
from torch import Tensor

from ..generated import module
from .program import Program, Rules, frame, program

SCRATCH = 2**17  # values of one scratch array, [T, width]: a few of them fit a core's L2 cache
LANES = 64  # neurons that blocks come in multiples of: whole vector registers, whole cache lines
ALONE = 2**15  # values up to which a second thread costs more than it brings
SHARES = 8  # of the work, for each thread
# LLVM vectorises a loop over more arrays than its default only if it may check for more overlaps.
llvmlite.binding.set_option("axonal", "-runtime-memory-check-threshold=128")

HEAD = """
import numpy as np
from numba import njit

F = np.{dtype}


@njit(error_model="numpy", nogil=True, cache=True)
def {name}(first, last, width, {arguments}):
    steps, _, neurons = x.shape
    blocks = -(-neurons // width)
    {constants}
    for task in range(first, last):
        b, lo = task // blocks, task % blocks * width
        hi = min(lo + width, neurons)
        size = hi - lo
        {begin}
        for t in range(steps):
            {rows}
            for n in range(size):
                {loads}
                {forward}
                {stores}
            {after}
        {end}
"""

BACK = """
        {begin}
        for t in range(steps - 1, -1, -1):
            {rows}
            for n in range(size):
                {loads}
                {backward}
                {stores}
            {after}
        {end}
"""


def _constants(p: Program) -> list[str]:
    return [f"{name}_ = fixed[{i}]" for i, name in enumerate(("slope", *p.fixed))]


def _begin(p: Program) -> list[str]:
    """Local copies of the state, and views of the constants that vary."""
    states = [f"all_{name} = state[{k}, b, lo:hi].copy()" for k, name in enumerate(p.states)]
    return states + [f"all_{name} = varying[{i}, lo:hi]" for i, name in enumerate(p.varying)]


def _loads(names: tuple[str, ...]) -> list[str]:
    return [f"{name}_ = all_{name}[n]" for name in names]


# bfloat16 is the upper half of a float32: kernels read it as bits, and round to even (as torch).
def _open(row: str, source: str, half: bool, step: str = "t") -> list[str]:
    """Statements that make `row` the float values of `source`, at a step."""
    if not half:
        return [f"{row} = {source}[{step}, b, lo:hi]"]
    return [
        f"bits = {source}[{step}, b, lo:hi]",
        "for n in range(size):",
        f"    wide_{row}[n] = np.uint32(bits[n]) << np.uint32(16)",
    ]


def _close(row: str, target: str, half: bool) -> list[str]:
    """Statements that hand what `row` holds to `target`, at step t."""
    if not half:
        return []
    return [
        f"bits = {target}[t, b, lo:hi]",
        "for n in range(size):",
        f"    u = wide_{row}[n]",
        "    even = (u >> np.uint32(16)) & np.uint32(1)",
        "    bits[n] = (u + np.uint32(0x7FFF) + even) >> np.uint32(16)",
    ]


def _wide(half: bool, *rows: str) -> list[str]:
    """Statements that make room for the float values of `rows`."""
    return [
        statement
        for row in rows * half
        for statement in (f"wide_{row} = np.empty(size, np.uint32)", f"{row} = wide_{row}.view(F)")
    ]


def forward_source(p: Program, dtype: str) -> str:
    """The text of the module with the kernel `forward`."""
    half = dtype == "bfloat16"
    return frame(
        HEAD,
        dtype="float32" if half else dtype,
        name="forward",
        arguments="fixed, varying, x, state, spikes, final",
        constants=_constants(p),
        begin=[*_begin(p), *_wide(half, "all_x", "all_s")],
        rows=_open("all_x", "x", half) + ([] if half else ["all_s = spikes[t, b, lo:hi]"]),
        loads=_loads(("x", *p.states, *p.varying)),
        forward=list(p.forward),
        stores=["all_s[n] = s_", *(f"all_{name}[n] = next_{name}" for name in p.states)],
        after=_close("all_s", "spikes", half),
        end=[f"final[{k}, b, lo:hi] = all_{name}" for k, name in enumerate(p.states)],
    )


def backward_source(p: Program, dtype: str) -> str:
    """The text of the module with the kernel `backward`."""
    half = dtype == "bfloat16"
    return _again(p, half, "float32" if half else dtype) + _through(p, half)


def _again(p: Program, half: bool, dtype: str) -> str:
    """Forward, keeping the states before each step."""
    return frame(
        HEAD,
        dtype=dtype,
        name="backward",
        arguments="fixed, varying, x, state, grad_spikes, grad_state, to_x, to_varying",
        constants=_constants(p),
        begin=[
            *_begin(p),
            f"kept = np.empty(({len(p.states)}, steps, size), F)",
            *_wide(half, "all_x", "grads_s", "out"),
        ],
        rows=[
            *_open("all_x", "x", half),
            *(f"kept_{name} = kept[{k}, t]" for k, name in enumerate(p.states)),
        ],
        loads=_loads(("x", *p.states, *p.varying)),
        forward=list(p.forward),
        stores=[
            statement
            for name in p.states
            for statement in (f"kept_{name}[n] = {name}_", f"all_{name}[n] = next_{name}")
        ],
        after=[],
        end=[],
    )


def _through(p: Program, half: bool) -> str:
    """Backward through all steps."""
    return frame(
        BACK,
        begin=[
            *(f"grads_{n} = grad_state[{k}, b, lo:hi].copy()" for k, n in enumerate(p.states)),
            *(f"sum_{name} = np.zeros(size, F)" for name in p.varying),
        ],
        rows=[
            *_open("all_x", "x", half),
            *_open("grads_s", "grad_spikes", half, "min(t, len(grad_spikes) - 1)"),
            *([] if half else ["out = to_x[t, b, lo:hi]"]),
            *(f"all_{name} = kept[{k}, t]" for k, name in enumerate(p.states)),
        ],
        loads=[
            *_loads(("x", *p.states, *p.varying)),
            "grad_s = grads_s[n]",
            *(f"grad_{name} = grads_{name}[n]" for name in p.states),
        ],
        backward=list(p.backward),
        stores=[
            "out[n] = grad_x",
            *(f"grads_{name}[n] = before_{name}" for name in p.states),
            *(f"sum_{name}[n] += part_{name}" for name in p.varying),
        ],
        after=_close("out", "to_x", half),
        end=[
            *(f"grad_state[{k}, b, lo:hi] = grads_{n}" for k, n in enumerate(p.states)),
            *(f"to_varying[{i}, b, lo:hi] = sum_{name}" for i, name in enumerate(p.varying)),
        ],
    )


@lru_cache(maxsize=1024)
def _kernel(name: str, rules: Rules, dtype: torch.dtype) -> tuple[Callable[..., None], np.ndarray]:
    """The compiled kernel, and the values of the constants that don't vary."""
    p, number = program(*rules[:3]), str(dtype).removeprefix("torch.")
    source = {"forward": forward_source, "backward": backward_source}[name](p, number)
    exact = "float64" if dtype == torch.float64 else "float32"
    return getattr(module(source), name), np.array([rules[3], *p.fixed.values()], exact)


def _array(tensor: Tensor) -> np.ndarray:
    """The memory of a tensor; bfloat16, which numpy lacks, as its bits."""
    bits = tensor.dtype == torch.bfloat16
    return (tensor.detach().view(torch.uint16) if bits else tensor.detach()).numpy()


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="axonal-scan")


def _launch(name: str, rules: Rules, varying: Tensor, *tensors: Tensor) -> None:
    """Runs a kernel on the memory of `tensors`, x first, on as many threads as torch's."""
    kernel, fixed = _kernel(name, rules, tensors[0].dtype)
    if not len(varying):  # all neurons are alike: the samples are one long row
        tensors = tuple(tensor.flatten(1).unsqueeze(1) for tensor in tensors)
    steps, batch, neurons = tensors[0].shape
    width = max(1, min(neurons, max(LANES, SCRATCH // steps // LANES * LANES)))
    tasks, threads = batch * -(-neurons // width), torch.get_num_threads()
    arrays = (width, fixed, *map(_array, (varying, *tensors)))
    if threads == 1 or tasks == 1 or steps * batch * neurons <= ALONE:
        kernel(0, tasks, *arrays)
        return
    shares, next_share = min(tasks, SHARES * threads), count()

    def work() -> None:
        while (i := next(next_share)) < shares:
            kernel(tasks * i // shares, tasks * (i + 1) // shares, *arrays)

    # This thread works, too, and whoever is faster does more: torch's own threads spin for a while
    # after each of its operations, and leave some cores half free.
    helpers = [_pool(threads - 1).submit(work) for _ in range(threads - 1)]
    work()
    for helper in helpers:  # one that never began has nothing left to do, or no thread after a fork
        if not helper.cancel():
            helper.result()


def forward(rules: Rules, x: Tensor, state: Tensor, varying: Tensor) -> tuple[Tensor, Tensor]:
    """The scan of x [T, B, N] from state [K, B, N] with constants varying [P, N].

    Returns:
        Spikes [T, B, N] and the last state [K, B, N].
    """
    x, state, varying = (tensor.contiguous() for tensor in (x, state, varying))
    spikes, final = torch.empty_like(x), torch.empty_like(state)
    _launch("forward", rules, varying, x, state, spikes, final)
    return spikes, final


def backward(
    rules: Rules, grad_spikes: Tensor, grad_final: Tensor, x: Tensor, state: Tensor, varying: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, of the first state and of the constants that vary."""
    if not grad_spikes.stride(0):  # a mean or sum over time sends every step the same
        grad_spikes = grad_spikes[:1]
    x, state, varying, sent = (t.contiguous() for t in (x, state, varying, grad_spikes))
    grad_state = grad_final.clone(memory_format=torch.contiguous_format)
    grad_x, grads = torch.empty_like(x), state.new_empty(len(varying), *x.shape[1:])
    _launch("backward", rules, varying, x, state, sent, grad_state, grad_x, grads)
    return grad_x, grad_state, grads.sum(1)
