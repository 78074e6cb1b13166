"""The engine's pieces, compiled one by one: populations from their equations, kernels, the loop.

A population is a `Program` printed into a function that visits cells. Cells that no event reached
sleep, where the dynamics allow it: a `Leaky` or `Signed` membrane catches up with its decay when it
is next visited (multiplied step by step, as it would have been), a `Delta` neuron has nothing to
do. All other kinds, and populations with a bias, are visited in every step.
"""

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import numpy as np

from ...core.neurons import Delta, Dynamics, Leaky, Signed
from ...ops import pointers, simd
from ...ops.codegen import frame, module, program
from . import signatures

Array = np.ndarray
FIRING = 8  # operations that take as long as a neuron

VISIT = """
load = pointers.loader(signatures.kinds("visit"))
F = np.float32
RUN = 1024  # neurons that are computed at once, in cells side by side


@cfunc(pointers.ENTRY, **signatures.OPTIONS)
def entry(pointer):
    node, first, last, t, scale, acc, mark, seen, state, consts, idx, val, result = load(pointer)
    width, room = node.width, node.cells * node.width
    begin = at = first * width
    touched, sent = 0, 0.0
    most = max(1, RUN // width)
    {constants}
    c = first
    while c < last:
        if node.lazy and not mark[c]:
            c += 1
            continue
        gap, cell = t - 1 - seen[c], c
        while c < last and c - cell < most and (mark[c] or not node.lazy) and seen[c] == seen[cell]:
            c += 1
        base, size = cell * width, (c - cell) * width
        all_x = acc[base : base + size]
        {rows}
        {catch_up}
        if node.bias >= 0:
            bias = consts[node.bias + base : node.bias + base + size]
            for n in range(size):
                all_x[n] += bias[n]
        touched += simd.nonzero(all_x, size)
        for n in range(size):
            {loads}
            {forward}
            all_x[n] = s_
            {stores}
        stir = False
        {restless}
        mark[cell:c] = stir
        seen[cell:c] = t
        at = simd.emit(all_x, size, base, at, (idx, val))
        for n in range(size):
            all_x[n] = F(0.0)
    for e in range(begin, at):
        sent += {spike}
    result[0], result[1], result[2] = at, touched, sent
"""

HEAD = """
# {digest}
import numpy as np
from numba import cfunc, types
from axonal.deploy.engine import signatures
from axonal.ops import pointers, simd
"""

PIECE = """
import {kernels} as kernels

load = pointers.loader(signatures.kinds("{name}"))
view = pointers.viewer(types.{form})


@cfunc(pointers.ENTRY, **signatures.OPTIONS)
def entry(pointer):
    {arguments} = load(pointer)
    kernels.{name}({passed})
"""

CATCH_UP = """
while gap > 0:
    if not simd.nonzero(all_v, size):
        break
    for _ in range(min(gap, 16)):
        for n in range(size):
            all_v[n] = {decay} * all_v[n]
    gap -= 16
"""
# The least membrane, in thresholds, that may fire a spike without more input.
LEAST = {"binary": 1.0, "ternary": 1.0, "integer": 0.5, "multiple": 1.0}
FADING = (Leaky, Signed)  # whose membrane decays, and nothing else, where nothing reaches it


def sleeps(dynamics: Dynamics) -> bool:
    """Whether a neuron that nothing reaches needs no visits."""
    return isinstance(dynamics, (*FADING, Delta)) and dynamics.emit != "membrane"


@lru_cache(maxsize=1024)
def population(dynamics: Dynamics, varying: tuple[str, ...]) -> str:
    """Write the function that visits a population.

    Args:
        dynamics: the equations; which of their constants differ between neurons is `varying`.
        varying: names of constants.
    """
    p = program(dynamics.text, ",".join(varying), "atan")
    names = dynamics.constants()
    rows = [f"all_{s} = state[{k} * room + base :][:size]" for k, s in enumerate(p.states)]
    rows += [
        f"all_{name} = consts[node.varying + {i} * room + base :][:size]"
        for i, name in enumerate(n for n in names if n in varying)
    ]
    threshold = "all_threshold[n] * scale" if "threshold" in varying else "threshold_"
    return frame(
        VISIT,
        constants=[
            f"{name}_ = consts[node.fixed + {i}]" + " * scale" * (name == "threshold")
            for i, name in enumerate(n for n in names if n not in varying)
        ],
        rows=rows,
        catch_up=_catch_up(dynamics, varying),
        loads=[
            "x_ = all_x[n]",
            *(f"{name}_ = all_{name}[n]" for name in (*p.states, *varying) if name != "threshold"),
            *([f"threshold_ = {threshold}"] if "threshold" in varying else []),
        ],
        forward=list(p.forward),
        stores=[f"all_{name}[n] = next_{name}" for name in p.states],
        spike="1.0" if dynamics.graded else "abs(val[e])",
        restless=_restless(dynamics, varying, threshold),
    )


def _catch_up(dynamics: Dynamics, varying: tuple[str, ...]) -> list[str]:
    """Statements that decay membranes for the steps in which they slept."""
    if not isinstance(dynamics, FADING) or (dynamics.decay == 1 and "decay" not in varying):
        return []
    decay = "all_decay[n]" if "decay" in varying else "decay_"
    return frame(CATCH_UP, decay=decay).strip().splitlines()


def _restless(dynamics: Dynamics, varying: tuple[str, ...], threshold: str) -> list[str]:
    """Statements that tell whether neurons have to be visited in the next step, whatever comes."""
    if not isinstance(dynamics, FADING) or not sleeps(dynamics):
        return []
    least = LEAST.get(dynamics.emit, 0.75 * 2.0 ** (1 - dynamics.levels))
    v = "abs(all_v[n])" if dynamics.emit in ("ternary", "graded") else "all_v[n]"
    if isinstance(dynamics, Signed):
        slope = "all_negative_slope[n]" if "negative_slope" in varying else "negative_slope_"
        v = f"max(all_v[n], -{slope} * all_v[n])"
    lines = ["for n in range(size):", f"    stir |= {v} >= {threshold} * F({least!r})"]
    return lines + ["    stir |= all_wait[n] > F(0.0)"] * bool(dynamics.refractory)


def addresses(
    edges: Iterable[int], others: Iterable[int], kinds: Iterable[str], form: str
) -> Array:
    """Compile what a graph needs, or take it from the cache: the addresses that the loop calls.

    Args:
        edges, others: which pieces, as of `signatures`.
        kinds: the functions of populations, as of `population`.
        form: of the weights, a type of Numba.
    """
    calls = [0] * (signatures.VISIT + 1)
    for number in edges:
        calls[number] = _piece(signatures.NAMES[number], form)
    for number in others:
        calls[number] = _piece(signatures.NAMES[number], "float32")
    calls[signatures.PART] = loop().part.address
    return np.array(calls + [_visit(kind) for kind in kinds], np.int64)


@lru_cache(maxsize=1)
def loop() -> ModuleType:
    """The module `loop`, compiled in the cache."""
    return _copied("loop")


@lru_cache(maxsize=1)
def kernels() -> ModuleType:
    """The module `kernels`, compiled in the cache."""
    return _copied("kernels")


def _copied(name: str) -> ModuleType:
    """A module of this room as one in the cache, so that what is compiled survives."""
    return module(f"# {_digest()}\n" + Path(__file__).with_name(f"{name}.py").read_text())


@lru_cache(maxsize=1)
def _digest() -> str:
    """What compiled code depends on beside its own file, where alone Numba looks for changes."""
    files = [Path(str(part.__file__)) for part in (signatures, pointers, simd)]
    files += [Path(__file__).with_name(name) for name in ("kernels.py", "memory.py")]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


@lru_cache(maxsize=64)
def _piece(name: str, form: str) -> int:
    """The address of one of the kernels."""
    arguments = ", ".join(signatures.ARGUMENTS[name].split())
    parts = {"name": name, "form": form, "arguments": arguments, "kernels": kernels().__name__}
    passed = arguments.replace("weights", "view(weights)")
    source = frame(HEAD + PIECE, digest=_digest(), passed=passed, **parts)
    return module(source).entry.address


@lru_cache(maxsize=1024)
def _visit(kind: str) -> int:
    """The address of the function of a population."""
    return module(frame(HEAD, digest=_digest()) + kind).entry.address
