"""The loop over steps and nodes, and how threads share a heavy node, in compiled code.

A node's cells are cut into a part for each thread, the same in every step, whose memory then stays
in its cache. Who has done its own part does those that others have not begun: a thread that comes
late finds nothing to do, and one that never comes is not waited for. Where others keep a processor
busy, a thread may lose it in the midst of a part, so that the rest wait; after such a wait nodes
run in one thread for a while.
"""

import numpy as np
from numba import cfunc, njit

from axonal.deploy.engine.codegen import FIRING
from axonal.deploy.engine.memory import DELAY, INPUT, PASS
from axonal.deploy.engine.signatures import (
    CELLS,
    LEAVE,
    OPTIONS,
    PART,
    RELAY,
    STORE,
    VISIT,
    kinds,
)
from axonal.ops import pointers

# Words that threads share: those that several write have lines of their own. `JOB` numbers the
# nodes that are shared; from `BEGUN` on, a line a part, is the last job of which that was begun.
DONE, JOB, RUNNING, NODE, STEP, PARTS, REST, PENALTY, CLOCK, NUMBER, SLEEP = (
    0,
    8,
    16,
    *range(24, 32),
)
BEGUN = 32
KEEN, PATIENT, NAP = 2_000_000, 5_000_000, 50  # ns of waiting awake, ns until it goes; us asleep
LATE = 20_000  # ns that threads may wait for each other beyond what they work
SHORTEST, LONGEST = 8, 1024  # heavy nodes in one thread after a wait that was too long

call_edge, call_gather = pointers.caller(kinds("dense")), pointers.caller(kinds("gather"))
call_relay, call_visit = pointers.caller(kinds("relay")), pointers.caller(kinds("visit"))
call_store, call_leave = pointers.caller(kinds("store")), pointers.caller(kinds("leave"))
call_part, load_part = pointers.caller(kinds("part")), pointers.loader(kinds("part"))


@njit(**OPTIONS)
def _copy(idx, val, begin, end, to_idx, to_val, at):
    """Copy events to where `at` is, which may be before them; where they end."""
    for e in range(begin, end):  # as slices they would bring the texts of errors
        to_idx[at], to_val[at] = idx[e], val[e]
        at += 1
    return at


@cfunc(pointers.ENTRY, **OPTIONS)
def part(pointer):
    """Carry what reaches the cells of a node from first to last - 1, and let them answer.

    Of `result` the first is where the part's events end, then touched neurons and spikes.
    """
    calls, tables, memory, i, first, last, t, scale, work, result = load_part(pointer)
    nodes, edges, weights, consts, ints = tables
    acc, mark, seen, state, idx, val, sizes, rows, lit = memory
    node = nodes[i]
    room = node.cells * node.width
    own, marks = acc[node.at : node.at + room], mark[node.mark : node.mark + node.cells]
    into, of = idx[node.at : node.at + room], val[node.at : node.at + room]
    result[:3] = 0.0
    for e in range(node.first_edge, node.first_edge + node.edges):
        edge = edges[e]
        source = nodes[edge.source]
        if edge.op == CELLS:
            above = rows[source.at : source.at + source.cells * source.width]
            lights = lit[source.mark : source.mark + source.cells]
            args = (edge, first, last, node.width, above, lights, ints, consts, own, marks)
            call_gather(calls[CELLS], args)
        elif sizes[edge.source]:
            count = sizes[edge.source]
            come, size = idx[source.at : source.at + count], val[source.at : source.at + count]
            args = (edge, first, last, node.width, come, size, count, weights, consts, ints)
            call_edge(calls[edge.op], (*args, own, marks, work[e : e + 1]))
    if node.kind == PASS:
        above, lights = rows[node.at : node.at + room], lit[node.mark : node.mark + node.cells]
        args = (node, first, last, own, marks, consts, above, lights, into, of, result)
        call_relay(calls[RELAY], args)
    else:
        old = seen[node.mark : node.mark + node.cells]
        args = (node, first, last, t, scale, own, marks, old, state[node.state :], consts)
        call_visit(calls[VISIT + node.kind], (*args, into, of, result))


@njit(**OPTIONS)
def work_on(calls, team, tables, memory, room, scale, me):
    """Do my part of the job, and others that nobody has begun; how many."""
    works, results = room
    job, parts, done = pointers.read(team, JOB), team[PARTS], 0
    for k in range(parts):
        p = (me + k) % parts
        if not pointers.swap(team, BEGUN + 8 * p, job - 1, job):
            continue
        node = tables[0][team[NODE]]
        lines = node.cells // node.wide
        first, last = lines * p // parts * node.wide, lines * (p + 1) // parts * node.wide
        results[p, 3] = first * node.width
        args = (calls, tables, memory, team[NODE], first, last, team[STEP], scale, works[p])
        call_part(calls[PART], (*args, results[p]))
        pointers.add(team, DONE, 1)
        done += 1
    return done


@njit(**OPTIONS)
def assist(calls, team, tables, memory, room, scale, me):
    """Help with jobs while there are any, and for a little while after."""
    time, job = np.zeros(2, np.int64), np.int64(0)
    last = pointers.clock(team[CLOCK], team[NUMBER], time)
    while True:
        if pointers.read(team, JOB) != job:
            job = pointers.read(team, JOB)
            work_on(calls, team, tables, memory, room, scale, me)
            last = pointers.clock(team[CLOCK], team[NUMBER], time)
            continue
        idle = pointers.clock(team[CLOCK], team[NUMBER], time) - last
        if idle > PATIENT and not pointers.read(team, RUNNING):
            return
        if idle > KEEN:
            pointers.pause(team[SLEEP], NAP)


@njit(**OPTIONS)
def share(calls, team, tables, memory, room, i, t, scale, work, result):
    """As `part`, of a whole node, together with whoever helps."""
    works, results = room
    _, _, _, _, idx, val, _, _, _ = memory
    node, time = tables[0][i], np.zeros(2, np.int64)
    parts = max(1, min(len(works), node.cells // node.wide))
    works[:parts] = 0.0
    team[NODE], team[STEP], team[PARTS] = i, t, parts
    job = team[JOB] + 1
    for p in range(parts, len(works)):
        team[BEGUN + 8 * p] = job  # who comes late to an earlier job finds it begun
    pointers.write(team, DONE, 0)
    began = pointers.clock(team[CLOCK], team[NUMBER], time)
    pointers.write(team, JOB, job)
    done = work_on(calls, team, tables, memory, room, scale, 0)
    waits = pointers.clock(team[CLOCK], team[NUMBER], time)
    while pointers.read(team, DONE) < parts:
        pass
    if done < parts:
        waited = pointers.clock(team[CLOCK], team[NUMBER], time) - waits
        if waited > LATE + (waits - began):
            team[PENALTY] = min(LONGEST, max(SHORTEST, 2 * team[PENALTY]))
            team[REST] = team[PENALTY]
        else:
            team[PENALTY] //= 2
    at = node.at
    result[:3] = 0.0
    for p in range(parts):
        for e in range(len(work)):
            work[e] += works[p, e]
        begin, end = node.at + np.int64(results[p, 3]), node.at + np.int64(results[p, 0])
        at = _copy(idx, val, begin, end, idx, val, at)
        result[1] += results[p, 1]
        result[2] += results[p, 2]
    result[0] = at - node.at


@njit(**OPTIONS)
def _load(node, edges, sizes):
    """How many operations a node takes in this step."""
    load = 0
    for e in range(node.first_edge, node.first_edge + node.edges):
        load += sizes[edges[e].source] * edges[e].fan
    return load + FIRING * min(load, node.cells * node.width)


@njit(**OPTIONS)
def run(
    calls, team, tables, memory, rings, room, inputs, sent, tally, work, begin, t, at, steps, scale,
    shares, heavy,
):  # fmt: skip
    """Run steps from t on, nodes from `at` on; where it ended, for want of room for outputs."""
    nodes, edges, _, _, ints = tables
    _, _, _, _, idx, val, sizes, _, _ = memory
    starts, input_idx, input_val = inputs
    ring_idx, ring_val, ring_n = rings
    out_t, out_node, out_idx, out_val, out_n = sent
    result = np.zeros(4)
    while t < steps:
        for i in range(at, len(nodes)):
            node = nodes[i]
            space = node.cells * node.width
            into, of = idx[node.at : node.at + space], val[node.at : node.at + space]
            if node.output >= 0 and len(out_t) - out_n[0] < space:
                return t, i  # no room for what it may send
            if node.kind == INPUT:
                a, b = starts[node.source, t], starts[node.source, t + 1]
                result[0] = b - a
                _copy(input_idx, input_val, a, b, into, of, 0)
            elif node.kind == DELAY:
                if not node.early:
                    args = (node, nodes[node.source], begin + t, idx, val, sizes, ints)
                    call_store(calls[STORE], (*args, ring_idx, ring_val, ring_n))
                args = (node, begin + t, ring_idx, ring_val, ring_n, into, of, result)
                call_leave(calls[LEAVE], args)
            else:
                load = _load(node, edges, sizes)
                if shares and load > heavy and team[REST] <= 0:
                    share(calls, team, tables, memory, room, i, begin + t, scale, work, result)
                else:
                    team[REST] -= load > heavy
                    first = np.int64(0)
                    args = (calls, tables, memory, i, first, node.cells, begin + t, scale)
                    call_part(calls[PART], (*args, work, result))
                tally[i, 0] += result[1]
                tally[i, 1] += result[2]
            size = np.int64(result[0])
            sizes[i] = size
            if node.output >= 0:
                end = out_n[0]
                out_t[end : end + size], out_node[end : end + size] = t, node.output
                out_n[0] = _copy(into, of, 0, size, out_idx, out_val, end)
        at = 0
        for j in range(len(nodes)):
            if nodes[j].kind == DELAY and nodes[j].early:
                args = (nodes[j], nodes[nodes[j].source], begin + t, idx, val, sizes, ints)
                call_store(calls[STORE], (*args, ring_idx, ring_val, ring_n))
        t += 1
    return steps, 0
