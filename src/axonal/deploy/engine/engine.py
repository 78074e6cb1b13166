"""The engine: graphs run so that work follows events, in compiled code, without torch."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numba.core import config

from ...core.errors import InputError
from ...core.events import Events
from ...core.meter import FIELDS, Counts
from ...graph.graph import Graph
from ...graph.ops import Delay, Neurons
from . import codegen, signatures
from .layout import WEIGHTS, Tables
from .memory import DELAY, PASS, blank
from .stages import Stage, Staged, split
from .team import Team
from .values import SEPARATE, GraphState, named_inputs, rest, steps_of

HEAVY = 2**20  # operations of a node from which on a second thread pays
Inputs = Mapping[str, np.ndarray | Events] | np.ndarray | Events


class Engine:
    """A graph ready to run.

    Args:
        graph: the network.
        threads: that may share a heavy node; None for one a core, or `NUMBA_NUM_THREADS`. Where
            others keep the cores busy, fewer do, so that a step takes no longer than in one.
        weights: how they are kept: "float32", "bfloat16", or "int8" with a scale for each map.
            Sums are float32. (float16 would take as much memory as bfloat16, and longer to widen.)

    Raises:
        InputError: the graph has an operation without a rule or a cycle through a `Difference`,
            no threads, or unknown weights.
    """

    def __init__(
        self,
        graph: Graph,
        *,
        threads: int | None = None,
        weights: str = "float32",
    ):
        if weights not in WEIGHTS:
            raise InputError(f"Engine: weights {weights!r}; choose of {', '.join(WEIGHTS)}")
        self.graph, self.stages = graph, split(graph, weights)
        self.threads = threads if threads is not None else _cores()
        if self.threads < 1:
            raise InputError(f"Engine: {threads} threads")
        self.rest = rest(graph)
        self.awake = any(any(op.dynamics.rest) for op in graph.neurons.values())
        self.calls = [_calls(stage.tables) for stage in self.stages]

    def stream(self, state: GraphState | None = None, scale: float = 1.0) -> "Stream | Staged":
        """Begin a run that goes on as events come.

        Args:
            state: of an earlier run, of this engine or of the reference; None for rest.
            scale: multiplies the thresholds of every population.

        Raises:
            InputError: a state of another graph.
        """
        shapes = {name: value.shape for name, value in (state or {}).items()}
        if state is not None and shapes != {n: value.shape for n, value in self.rest.items()}:
            raise InputError("Stream: the state is of another graph; pass back what state() gave")
        both = zip(self.stages, self.calls, strict=True)
        runs = [Stream(self, stage, calls, state, scale) for stage, calls in both]
        if not any(stage.after for stage in self.stages):
            return runs[0]
        return Staged(self.graph, self.stages, runs, self.rest if state is None else state)

    def run(
        self, inputs: Inputs, state: GraphState | None = None, scale: float = 1.0
    ) -> tuple[dict[str, np.ndarray], GraphState]:
        """Compute the values of the output nodes, [T, ...] by name, and the state after them.

        Args:
            inputs: values [T, ...] or `Events` of the graph's inputs, by name; one left out is
                silent, and one that is all there is needs no name.
            state, scale: as `stream`.

        Raises:
            InputError: as `Stream.push`.
        """
        stream = self.stream(state, scale)
        sent = stream.push(inputs)
        return {name: events.to_dense() for name, events in sent.items()}, stream.state()


class Stream:
    """A network at work: `push` events in, take events out. `Engine.stream` begins one."""

    def __init__(
        self,
        engine: Engine,
        stage: Stage,
        calls: np.ndarray,
        state: GraphState | None,
        scale: float,
    ):
        self.engine, self.calls, self.scale = engine, calls, np.float32(scale)
        self.loop, self.kernels = codegen.loop(), codegen.kernels()
        self.graph, self.tables, self.begin = stage.graph, stage.tables, 0
        self.memory, self.rings = _blank(self.tables)
        t = self.tables
        self.constants = (t.nodes, t.edges, t.weights.view(np.uint8), t.constants, t.ints)
        self.team = Team(engine.threads if _heaviest(t) > HEAVY else 1, len(t.edges))
        room = sum(self.tables.layouts[name].room for name in self.graph.outputs)
        ints = [np.zeros(room, np.int64) for _ in range(3)]
        self.sent = (*ints, np.zeros(room, np.float32), np.zeros(1, np.int64))
        self.pushes: list[tuple[int, np.ndarray, np.ndarray]] = []
        self._load(state)

    def push(self, inputs: Inputs) -> dict[str, Events]:
        """Run the inputs' next steps, at least one, and return what the output nodes send.

        Args:
            inputs: as of `Engine.run`.

        Raises:
            InputError: an unknown input, another shape, values that are not finite, or inputs of
                different numbers of steps.
        """
        steps, parts = self._events_of(named_inputs(self.graph, inputs))
        self.sent[-1][0] = 0
        tally, work = np.zeros((len(self.tables.nodes), 2)), np.zeros(len(self.tables.edges))
        shared = self.calls, self.team.words, self.constants, self.memory
        if self.team.threads > 1:
            self.team.call(*shared, self.scale)
        try:
            self._run(shared, parts, steps, tally, work)
        finally:  # an interruption, too, must let the threads go
            self.team.release()
        self.begin += steps
        self.pushes.append((steps, tally, work))
        if len(self.pushes) > SEPARATE:
            self.pushes[:2] = [tuple(a + b for a, b in zip(*self.pushes[:2], strict=True))]
        return self._outputs(steps)

    def _run(
        self, shared: Any, parts: Any, steps: int, tally: np.ndarray, work: np.ndarray
    ) -> None:
        """Run so many steps of inputs, with more room whenever the outputs need it."""
        t = i = 0
        while True:
            t, i = self.loop.run(
                *shared,
                self.rings,
                self.team.room,
                parts,
                self.sent,
                tally,
                work,
                self.begin,
                t,
                i,
                steps,
                self.scale,
                self.team.threads > 1,
                HEAVY,
            )
            if t == steps:
                return
            self.sent = tuple(_grown(a) for a in self.sent[:-1]) + self.sent[-1:]

    def counts(self) -> Counts:
        """Count what was executed, a step for each push; the same that `nn.meter.Meter` counts.

        Of more than `SEPARATE` pushes the first step holds all before the last.

        Raises:
            InputError: nothing was pushed.
        """
        if not self.pushes:
            raise InputError("Stream: nothing was pushed")
        return Counts(tuple(name for name, *_ in self.tables.counted), self._counted(), 1)

    def state(self) -> GraphState:
        """The network's memory as a value: by name, as of `values.rest`.

        Of what is on its way through a delay it holds what has not left.
        """
        state = {}
        for name in self.tables.names:
            i, op = self.tables.index[name], self.graph.nodes[name].op
            layout, node = self.tables.layouts[name], self.tables.nodes[i]
            if isinstance(op, Neurons):
                values = self._values(name).copy()
                self._catch_up(op, values, name)
                state[name] = layout.channels_first(values).reshape(-1, *layout.shape).copy()
            elif isinstance(op, Delay):
                state[name] = self._line(op, node, layout)
        return state

    def _values(self, name: str) -> np.ndarray:
        """The memory of a population's state, [K, addresses]."""
        node, room = self.tables.nodes[self.tables.index[name]], self.tables.layouts[name].room
        size = self.tables.states(name) * room
        return self.memory[3][node["state"] : node["state"] + size].reshape(-1, room)

    def _catch_up(self, op: Neurons, values: np.ndarray, name: str) -> None:
        """Decay the membranes of cells that sleep, step by step as they would have."""
        node, layout = self.tables.nodes[self.tables.index[name]], self.tables.layouts[name]
        if not isinstance(op.dynamics, codegen.FADING):
            return
        seen = self.memory[2][node["mark"] : node["mark"] + node["cells"]]
        gap = np.repeat(self.begin - 1 - seen, layout.width)
        decay = layout.spread(op.constants(layout.shape)["decay"])
        if (decay == 1).all():
            return
        for step in range(int(gap.max(initial=0))):
            late = gap > step
            if not values[0][late].any():
                break
            values[0][late] *= decay[late]

    def _line(self, op: Delay, node: Any, layout: Any) -> np.ndarray:
        """What is on its way through a delay, [steps, ...], the oldest first."""
        longest = int(op.steps.max())
        line = np.zeros((longest, layout.room), np.float32)
        ring_idx, ring_val, ring_n = self.rings
        delays = self.tables.ints[node["ints"] : node["ints"] + layout.room]
        for ahead in range(node["slots"]):
            slot = (self.begin + ahead) % node["slots"]
            place = node["ring"] + slot * node["capacity"]
            count = ring_n[node["ring_n"] + slot]
            idx = ring_idx[place : place + count]
            back = delays[idx] - ahead
            line[longest - back, idx] = ring_val[place : place + count]
        return line[:, layout.address].reshape(longest, *layout.shape)

    def _load(self, state: GraphState | None) -> None:
        """Begin with a state, None for rest."""
        if state is None and not self.engine.awake:
            return
        state = self.engine.rest if state is None else state
        for name in self.tables.names:
            if not isinstance(self.graph.nodes[name].op, Neurons | Delay):
                continue
            layout, node = self.tables.layouts[name], self.tables.nodes[self.tables.index[name]]
            value = np.ascontiguousarray(state[name], np.float32)
            if node["kind"] != DELAY:
                into = layout.channels_first(self._values(name))
                into[:] = value.reshape(into.shape)
                continue
            flat = value.reshape(len(value), layout.size)
            delays = self.tables.ints[node["ints"] : node["ints"] + layout.room][layout.address]
            for back in range(len(flat), 0, -1):
                late = np.flatnonzero((flat[-back] != 0) & (delays >= back))
                self._put(node, layout.address[late], flat[-back][late], delays[late] - back)

    def _put(self, node: Any, address: np.ndarray, value: np.ndarray, ahead: np.ndarray) -> None:
        """Put values into a delay's ring, to leave so many steps from now."""
        ring_idx, ring_val, ring_n = self.rings
        for a, v, slot in zip(address, value, (self.begin + ahead) % node["slots"], strict=True):
            at = node["ring"] + slot * node["capacity"] + ring_n[node["ring_n"] + slot]
            ring_idx[at], ring_val[at] = a, v
            ring_n[node["ring_n"] + slot] += 1

    def _events_of(
        self, inputs: Mapping[str, np.ndarray | Events]
    ) -> tuple[int, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """The inputs' events by step: where each begins, addresses and values."""
        graph, steps = self.graph, steps_of(self.graph, inputs)
        starts = np.zeros((max(1, len(graph.inputs)), steps + 1), np.int64)
        parts, begin = [], 0
        for row, name in zip(starts, graph.inputs, strict=False):
            if name in inputs:
                parts.append(self._arranged(name, inputs[name], row))
                row += begin
                begin += len(parts[-1][0])
        addresses, values = zip(*parts, strict=True)
        if len(parts) == 1:
            return steps, (starts, addresses[0], values[0])
        return steps, (starts, np.concatenate(addresses), np.concatenate(values))

    def _arranged(
        self, name: str, value: np.ndarray | Events, starts: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The addresses and values of an input, in order; where steps begin goes to `starts`."""
        grid = self.tables.layouts[name].grid
        if not isinstance(value, Events):
            dense = np.ascontiguousarray(value, np.float32).reshape(len(value), -1)
            return self.kernels.listed(dense, *grid, starts)
        columns = value.t, value.address, np.ascontiguousarray(value.value, np.float32)
        to, of, ordered = self.kernels.arrange(*columns, *grid, starts)
        if not ordered:
            starts[:] = 0
            to, of, _ = self.kernels.arrange(*_merged(value), *grid, starts)
        return to, of

    def _outputs(self, steps: int) -> dict[str, Events]:
        """What the outputs sent in the last `steps`."""
        t, node, idx, val, end = self.sent
        outputs, count, alone = {}, int(end[0]), len(self.graph.outputs) == 1
        for i, name in enumerate(self.graph.outputs):
            mine: Any = slice(count) if alone else np.flatnonzero(node[:count] == i)
            layout = self.tables.layouts[name]
            place = layout.place[idx[mine]].astype(np.int64)
            shape = steps, *layout.shape
            outputs[name] = Events.unchecked(t[mine].copy(), place, val[mine].copy(), shape)
        return outputs

    def _counted(self) -> np.ndarray:
        """A table of counts: [pushes, layers, fields]."""
        t, at = self.tables, {field: i for i, field in enumerate(FIELDS)}
        steps, tally, work = (np.array(column) for column in zip(*self.pushes, strict=True))
        table = np.zeros((len(self.pushes), len(t.counted), len(FIELDS)))
        kinds = np.array([of == "edge" for _, of, _ in t.counted], bool)
        number = np.array([i for *_, i in t.counted], np.int64)
        edges, nodes = number[kinds], number[~kinds]
        for field in ("synops", "adds", "weight_reads", "state_reads", "state_writes"):
            table[:, kinds, at[field]] = work[:, edges]
        table[:, kinds, at["multiplies"]] = work[:, edges] * (t.edges["spiking"][edges] == 0)
        for field in ("adds", "state_reads"):
            table[:, ~kinds, at[field]] = 2 * tally[:, nodes, 0]
        for field in ("spikes", "state_writes"):
            table[:, ~kinds, at[field]] = tally[:, nodes, 1]
        most = [self.graph.neurons[t.names[i]].dynamics.events for i in nodes]
        sites = t.nodes["size"][nodes] * np.array(most, np.int64)
        table[:, ~kinds, at["sites"]] = sites * steps[:, None]
        return table


def _cores() -> int:
    # Numba's own function would start its threads, and change the number of torch's.
    return int(vars(config)["NUMBA_NUM_THREADS"])


def _calls(tables: Tables) -> np.ndarray:
    """The addresses of what a stage calls."""
    kinds, edges = tables.nodes["kind"], set(tables.edges["op"][: len(tables.layers)].tolist())
    others = {signatures.RELAY} if (kinds == PASS).any() else set()
    others |= {signatures.STORE, signatures.LEAVE} if (kinds == DELAY).any() else set()
    return codegen.addresses(edges, others, tables.kinds, tables.weights.dtype.name)


def _heaviest(tables: Tables) -> int:
    """The operations of the heaviest node, if all that it reads fires."""
    sizes, edges = tables.nodes["size"], tables.edges
    loads = [
        (sizes[part["source"]] * part["fan"]).sum()
        for node in tables.nodes
        for part in [edges[node["first_edge"] : node["first_edge"] + node["edges"]]]
    ]
    return int(max(loads, default=0)) + codegen.FIRING * int(sizes.max(initial=0))


def _blank(tables: Tables) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    """A stream's memory and rings before the first step, of neurons that rest at zero."""
    totals = tables.totals
    memory = (
        blank(totals["at"], np.float32),
        np.ones(totals["mark"], np.uint8),  # every cell is looked at once
        np.full(totals["mark"], -1, np.int64),
        blank(max(1, totals["state"]), np.float32),
        np.empty(totals["at"], np.int64),
        np.empty(totals["at"], np.float32),
        np.zeros(len(tables.nodes), np.int64),
        np.empty(totals["at"], np.float32),
        np.zeros(totals["mark"], np.uint8),
    )
    rings = (
        np.zeros(max(1, totals["ring"]), np.int64),
        np.zeros(max(1, totals["ring"]), np.float32),
        np.zeros(max(1, totals["ring_n"]), np.int64),
    )
    return memory, rings


def _merged(events: Events) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps, places and values in order, with one event at a time and place."""
    size = int(np.prod(events.shape[1:], dtype=np.int64))
    key = events.t.astype(np.int64) * size + events.address
    value = events.value.astype(np.float32)
    if len(key) > 1 and not (np.diff(key) > 0).all():
        key, where = np.unique(key, return_inverse=True)
        value = np.bincount(where, value, len(key)).astype(np.float32)
    return key // size, key % size, value


def _grown(array: np.ndarray) -> np.ndarray:
    return np.concatenate([array, np.zeros_like(array)])
