"""The engine's source for the populations of a graph: their equations, and the loop over steps.

A population is a `Program` printed into a function that visits cells. Cells that no event reached
sleep, where the dynamics allow it: a `Leaky` or `Signed` membrane catches up with its decay when it
is next visited (multiplied step by step, as it would have been), a `Delta` neuron has nothing to
do. All other kinds, and populations with a bias, are visited in every step.
"""

import hashlib
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from ...core.neurons import Delta, Dynamics, Leaky, Signed
from ...ops import simd
from ...ops.codegen import frame, module, program
from . import kernels

VISIT = """
@njit(**kernels.OPTIONS)
def {name}(node, first, last, t, scale, acc, mark, seen, state, consts, idx, val):
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
    return at, touched, sent
"""

MODULE = """
# {digest}
import numpy as np
from numba import njit, prange
from axonal.deploy.engine import kernels
from axonal.ops import simd

F = np.float32
RUN = 1024  # neurons that are computed at once, in cells side by side
FIRING = 8  # operations that take as long as a neuron
INPUT, DELAY, PASS = -2, -1, 0

{functions}
@njit(**kernels.OPTIONS)
def visit(node, first, last, t, scale, acc, mark, seen, state, consts, idx, val):
    {choice}
    return first * node.width, 0, 0.0


@njit(**kernels.OPTIONS)
def part(tables, memory, i, first, last, t, scale, work):
    nodes, edges, weights, consts, ints = tables
    acc, mark, seen, state, idx, val, sizes, rows, lit = memory
    node = nodes[i]
    room = node.cells * node.width
    own = acc[node.at : node.at + room]
    marks = mark[node.mark : node.mark + node.cells]
    for e in range(node.first_edge, node.first_edge + node.edges):
        edge = edges[e]
        source = nodes[edge.source]
        if edge.op == kernels.CELLS:
            kernels.gather(
                edge, first, last, node.width,
                rows[source.at : source.at + source.cells * source.width],
                lit[source.mark : source.mark + source.cells], ints, consts, own, marks,
            )
        elif sizes[edge.source]:
            work[e] += kernels.scatter(
                edge, first, last, node.width,
                idx[source.at : source.at + sizes[edge.source]],
                val[source.at : source.at + sizes[edge.source]],
                sizes[edge.source], weights, consts, ints, own, marks,
            )
    if node.kind == PASS:
        end = kernels.relay(
            node, first, last, own, marks, consts, rows[node.at : node.at + room],
            lit[node.mark : node.mark + node.cells], idx[node.at : node.at + room],
            val[node.at : node.at + room],
        )
        return end, 0, 0.0
    return visit(
        node, first, last, t, scale, own, marks, seen[node.mark : node.mark + node.cells],
        state[node.state :], consts, idx[node.at : node.at + room], val[node.at : node.at + room],
    )


@njit(parallel=True, **kernels.OPTIONS)
def share(tables, memory, i, threads, t, scale, work):
    acc, mark, seen, state, idx, val, sizes, rows, lit = memory
    node = tables[0][i]
    wide, width, begin = node.wide, node.width, node.at  # a loop in parallel can't hold a record
    lines = node.cells // wide
    parts = max(1, min(threads, lines))
    works, tallies = np.zeros((parts, len(work))), np.zeros((parts, 3))
    begins, ends = np.zeros(parts, np.int64), np.zeros(parts, np.int64)
    for p in prange(parts):
        first, last = lines * p // parts * wide, lines * (p + 1) // parts * wide
        begins[p] = first * width
        ends[p], tallies[p, 0], tallies[p, 1] = part(
            tables, memory, i, first, last, t, scale, works[p]
        )
    for p in range(parts):
        work += works[p]
    into, of = idx[begin : begin + ends[-1]], val[begin : begin + ends[-1]]
    return kernels.join(into, of, begins, ends), tallies[:, 0].sum(), tallies[:, 1].sum()


@njit(**kernels.OPTIONS)
def run(
    tables, memory, rings, inputs, sent, tally, work, begin, t, i, steps, scale, threads, heavy
):
    nodes, edges, weights, consts, ints = tables
    acc, mark, seen, state, idx, val, sizes, rows, lit = memory
    starts, input_idx, input_val = inputs
    out_t, out_node, out_idx, out_val, out_n = sent
    for t in range(t, steps):
        for i in range(i, len(nodes)):
            node = nodes[i]
            room = node.cells * node.width
            into, of = idx[node.at : node.at + room], val[node.at : node.at + room]
            if node.output >= 0 and len(out_t) - out_n[0] < room:
                return t, i  # no room for what it may send
            if node.kind == INPUT:
                a, b = starts[node.source, t], starts[node.source, t + 1]
                sizes[i] = b - a
                into[: b - a], of[: b - a] = input_idx[a:b], input_val[a:b]
            elif node.kind == DELAY:
                if not node.early:
                    source = nodes[node.source]
                    kernels.store(node, source, begin + t, idx, val, sizes, ints, rings)
                sizes[i] = kernels.leave(node, begin + t, rings, into, of)
            else:
                load = 0
                for e in range(node.first_edge, node.first_edge + node.edges):
                    load += sizes[edges[e].source] * edges[e].fan
                load += FIRING * min(load, room)
                if threads > 1 and load > heavy:
                    sizes[i], touched, spikes = share(
                        tables, memory, i, threads, begin + t, scale, work
                    )
                else:
                    first = np.int64(0)  # as a literal it would compile all kernels once more
                    sizes[i], many, spikes = part(
                        tables, memory, i, first, node.cells, begin + t, scale, work
                    )
                    touched = float(many)
                tally[i, 0] += touched
                tally[i, 1] += spikes
            if node.output >= 0:
                a, b = out_n[0], out_n[0] + sizes[i]
                out_t[a:b], out_node[a:b] = t, node.output
                out_idx[a:b], out_val[a:b] = into[: sizes[i]], of[: sizes[i]]
                out_n[0] = b
        i = 0
        for j in range(len(nodes)):
            if nodes[j].kind == DELAY and nodes[j].early:
                source = nodes[nodes[j].source]
                kernels.store(nodes[j], source, begin + t, idx, val, sizes, ints, rings)
    return steps, 0
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
    """Write the function `{name}` that visits a population, its name left open.

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


def compiled(kinds: list[str]) -> ModuleType:
    """Compile the module that runs populations of these kinds, or take it from the cache.

    Its function is `run`; the text names what it calls, for Numba looks for changes
    in one file alone.
    """
    text = b"".join(Path(str(part.__file__)).read_bytes() for part in (kernels, simd))
    digest = hashlib.sha256(text).hexdigest()
    functions = [text.replace("{name}", f"visit_{i}") for i, text in enumerate(kinds, 1)]
    arguments = "node, first, last, t, scale, acc, mark, seen, state, consts, idx, val"
    choice = [
        line
        for i in range(1, len(kinds) + 1)
        for line in (f"if node.kind == {i}:", f"    return visit_{i}({arguments})")
    ]
    source = frame(MODULE, digest=digest, choice=choice)
    return module(source.replace("{functions}", "\n\n".join(functions)))
