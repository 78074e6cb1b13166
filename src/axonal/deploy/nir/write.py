"""A `Graph` as a network of NIR: one rule an op, in `RULES`."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...core import files
from ...core.errors import InputError
from ...core.extras import require
from ...core.neurons import Current, Leaky
from ...graph.graph import Graph, Node
from ...graph.ops import Add, Bias, Conv, Delay, Dense, Input, Neurons, Op, Pool, Scale, Select
from .conventions import Convention, convention

Array = np.ndarray
Parts = dict[str, tuple[str, dict[str, Any]]]  # nodes of NIR by name: kind, parameters
Edges = list[tuple[str, str]]


def write(graph: Graph, path: str | Path, *, dt: float, discretisation: str) -> Path:
    """Write `graph` as a NIR file for others, and for `read`.

    They find in it NIR's own equations, which make the same spikes up to rounding where they are
    cut into steps by the same convention. What is not one of NIR's nodes is written as several, if
    they do the same: softly reset membranes, for one, as an integrator, a Threshold, and a Delay
    of one step that brings the reset back. A population that fires at its threshold in a
    convention that fires above it, or the other way round, gets the next number as its threshold.
    To keep a graph as it is, whatever it holds, use `axonal.graph.save`.

    Args:
        graph: the network.
        path: of the file.
        dt: seconds of a step.
        discretisation: a name out of `CONVENTIONS`, of those whose spikes do not leave late.
            Written as "norse", "sinabs" or "rockpool", a file means what these make of it. What
            the importers of the first two would leave out is folded into weights, or refused.

    Raises:
        InputError: NIR can't say something without losing it; the message names the node.
        FileError: the file can't be written.
        MissingExtra: nir is not installed.
    """
    nir = require("nir", "nir")
    network = to_nir(graph, dt=dt, discretisation=discretisation)
    return files.write(path, lambda partial: nir.write(partial, network))


def to_nir(graph: Graph, *, dt: float, discretisation: str) -> Any:
    """Turn a graph into a `nir.NIRGraph`, as `write`."""
    nir = require("nir", "nir")
    parts, edges = _parts(graph, convention(dt, discretisation), dt)
    nodes = {
        name: getattr(nir, kind)(**_arguments(kind, values))
        for name, (kind, values) in parts.items()
    }
    return nir.NIRGraph(nodes=nodes, edges=edges, type_check=False)


def _arguments(kind: str, values: dict[str, Any]) -> dict[str, Any]:
    """The parameters as the class of `nir` wants them."""
    if kind in ("Input", "Output"):
        return {f"{kind.lower()}_type": {kind.lower(): values["shape"]}}
    return values


class Writer:
    """A network of NIR under construction, and between which of its nodes a node of ours stands.

    Attributes:
        parts, edges: so far.
        into, out: where what a node reads has to go, and where what it computes comes from.
    """

    def __init__(self, graph: Graph, convention: Convention, dt: float):
        self.graph, self.convention, self.dt = graph, convention, dt
        self.parts: Parts = {}
        self.edges: Edges = []
        self.into: dict[str, str] = {}
        self.out: dict[str, str] = {}
        self.taken, self.twins = set(graph.nodes), Counter[str]()

    def part(self, name: str, kind: str, *sources: str, **values: Any) -> str:
        """Add a node of NIR, and edges to it."""
        self.parts[name] = (kind, values)
        self.edges += [(source, name) for source in sources]
        return name

    def spare(self, name: str) -> str:
        """`name`, or with a number behind it if that is taken."""
        base = name
        while name in self.taken:
            self.twins[base] += 1
            name = f"{base}_{self.twins[base]}"
        self.taken.add(name)
        return name

    def put(self, node: Node, kind: str, **values: Any) -> None:
        """Add a node that is one of NIR's."""
        self.into[node.name] = self.out[node.name] = self.part(node.name, kind, **values)

    def full(self, node: Node, value: Any, dtype: Any = np.float32) -> Array:
        """`value`, broadcast to the node's shape."""
        return np.broadcast_to(np.asarray(value, dtype), self.graph.shapes[node.name]).copy()


def _parts(graph: Graph, rules: Convention, dt: float) -> tuple[Parts, Edges]:
    """The nodes of NIR that are `graph`, and their edges.

    Raises:
        InputError: NIR has no words for a node, or the importer that it is for leaves one out.
    """
    if rules.late:
        raise InputError("nir: in this discretisation spikes leave late; write in another")
    w = Writer(graph, rules, dt)
    for name in graph.nodes:
        if "/" in name or "\0" in name or name in (".", ""):
            raise InputError(f"nir: {name!r} can't be a name in a file; leave / out")
    sums = _dissolved(graph)
    for node in graph:
        try:
            if node.name not in sums:
                RULES.get(type(node.op), _unknown)(w, node)
        except InputError as error:
            raise InputError(f"nir: {node.name!r}: {error}") from error
    several = len(graph.outputs) > 1
    for i, name in enumerate(graph.outputs):
        shape = np.array(graph.shapes[name], np.int64)
        end = w.part(w.spare(f"output.{i}" if several else "output"), "Output", shape=shape)
        if name in sums:
            w.into[name] = end
        else:
            w.edges.append((w.out[name], end))
    _wire(w, sums)
    for name, (kind, _) in w.parts.items():
        if not rules.knows(kind):
            raise InputError(
                f"nir: {name!r} would be a {kind}, which this simulator's importer leaves out "
                f"without a word; it has {', '.join(sorted(rules.nodes or ()))}"
            )
    return w.parts, w.edges


def _dissolved(graph: Graph) -> set[str]:
    """The sums that need no node, as all they are is the input of one other."""
    ends = {name: len(graph.readers[name]) + graph.outputs.count(name) for name in graph.nodes}
    return {node.name for node in graph if isinstance(node.op, Add) and ends[node.name] == 1}


def _wire(w: Writer, sums: set[str]) -> None:
    """Add the edges of the graph, between NIR's nodes; each pair once, as NIR has it."""
    for node in w.graph:
        if node.name not in w.into and node.name not in sums:
            continue
        target = node.name
        while target in sums and target not in w.into:
            (target,) = w.graph.readers[target]
        for source in node.inputs:
            if source not in sums:
                w.edges.append((w.out[source], w.into[target]))
    seen = set()
    for i, (source, target) in enumerate(w.edges):
        if (source, target) in seen:
            ones = np.ones(w.graph.shapes[source], np.float32)
            again = w.part(w.spare(f"{source}.again"), "Scale", source, scale=ones)
            w.edges[i] = (again, target)
        seen.add((source, target))


def _lost(reason: str) -> InputError:
    """The refusal of what NIR can't say."""
    return InputError(f"{reason}; axonal.graph.save keeps the graph as it is")


def _unknown(w: Writer, node: Node) -> None:
    raise _lost(f"NIR has no {type(node.op).__name__}")


def _input(w: Writer, node: Node) -> None:
    w.put(node, "Input", shape=np.array(w.graph.shapes[node.name], np.int64))


def _weighted(w: Writer, node: Node) -> None:
    """Add weights alone, or with the bias that is all that reads them."""
    readers = [w.graph.nodes[name] for name in w.graph.readers[node.name]]
    lone = len(readers) == 1 and node.name not in w.graph.outputs
    bias = readers[0] if lone and isinstance(readers[0].op, Bias) else None
    value = None if bias is None else _channels(w, bias)
    if bias is None or value is None:
        kind, values = _weights(w, node, np.zeros(node.op.arrays()["weight"].shape[0], np.float32))
        return w.put(node, kind, **values)
    kind, values = _weights(w, node, value)
    w.into[node.name] = w.out[bias.name] = w.part(bias.name, kind, **values)


def _channels(w: Writer, bias: Node) -> Array | None:
    """The values of a bias by channel, None if they differ within one."""
    value = w.full(bias, bias.op.arrays()["value"])
    flat = value.reshape(len(value), -1)
    return flat[:, 0].copy() if (flat == flat[:, :1]).all() else None


def _weights(w: Writer, node: Node, bias: Array) -> tuple[str, dict[str, Any]]:
    op = node.op
    if not isinstance(op, Conv):
        affine = bias.any() or not w.convention.knows("Linear")
        return ("Affine", op.arrays() | {"bias": bias}) if affine else ("Linear", op.arrays())
    dims = op.weight.ndim - 2
    total = [d * (k - 1) for d, k in zip(op.dilation, op.weight.shape[2:], strict=True)]
    if all(before == after for before, after in op.padding):
        padding = _sizes(p[0] for p in op.padding)
    elif max(op.stride) == 1 and op.padding == tuple((t // 2, t - t // 2) for t in total):
        padding = "same"
    else:
        raise _lost(f"NIR pads both sides alike, not {op.padding}; pad within the network")
    return f"Conv{dims}d", {
        "input_shape": _sizes(w.graph.shapes[node.inputs[0]][1:]),
        "weight": op.weight,
        "stride": _sizes(op.stride),
        "padding": padding,
        "dilation": _sizes(op.dilation),
        "groups": op.groups,
        "bias": bias,
    }


def _sizes(values: Iterable[int]) -> Any:
    """A number for a dimension alone, an array for two, as NIR has them."""
    sizes = np.array(list(values), np.int64)
    return int(sizes[0]) if len(sizes) == 1 else sizes


def _bias(w: Writer, node: Node) -> None:
    """Add a bias without weights before it: weights of one."""
    if node.name in w.out:
        return
    value, shape = _channels(w, node), w.graph.shapes[node.name]
    if len(shape) == 1 and shape[0] <= 4096:
        eye = np.eye(shape[0], dtype=np.float32)
        w.put(node, "Affine", weight=eye, bias=w.full(node, node.op.arrays()["value"]))
    elif len(shape) > 1 and value is not None:
        ones = (1,) * (len(shape) - 1)
        weight = np.ones((shape[0], 1, *ones), np.float32)
        op = Conv(weight, ones, ((0, 0),) * len(ones), ones, shape[0])
        kind, values = _weights(w, Node(node.name, op, node.inputs), value)
        w.put(node, kind, **values)
    else:
        raise _lost("NIR has no bias apart from weights; add it to those of a layer before")


def _pool(w: Writer, node: Node) -> None:
    op = node.op
    assert isinstance(op, Pool)
    if len(op.size) != 2 or any(before != after for before, after in op.padding):
        raise _lost("NIR pools in two dimensions, and pads both sides alike")
    sizes = {"kernel_size": op.size, "stride": op.stride, "padding": [p[0] for p in op.padding]}
    kind = "AvgPool2d" if op.average else "SumPool2d"
    w.put(node, kind, **{key: np.array(value, np.int64) for key, value in sizes.items()})


def _select(w: Writer, node: Node) -> None:
    old, new = w.graph.shapes[node.inputs[0]], w.graph.shapes[node.name]
    assert isinstance(node.op, Select)
    for start in range(len(old)):
        for end in range(start, len(old)):
            flat = (*old[:start], math.prod(old[start : end + 1]), *old[end + 1 :])
            if flat == new and node.op.reshapes:
                shape = np.array(old, np.int64)
                return w.put(node, "Flatten", input_type=shape, start_dim=start, end_dim=end)
    raise _lost("NIR moves no values but by Flatten; reorder the weights that read them")


def _delay(w: Writer, node: Node) -> None:
    w.put(node, "Delay", delay=w.full(node, node.op.arrays()["steps"] * w.dt))


def _scale(w: Writer, node: Node) -> None:
    factor = 1.0 if isinstance(node.op, Add) else node.op.arrays()["factor"]
    w.put(node, "Scale", scale=w.full(node, factor))


def _neurons(w: Writer, node: Node) -> None:
    """Add a population: one node if the convention knows its spikes and reset, else its parts."""
    assert isinstance(node.op, Neurons)
    d, c = node.op.dynamics, w.convention
    if type(d) not in (Leaky, Current):
        raise _lost(f"NIR has no {type(d).__name__} neurons; it has Leaky and Current")
    if d.refractory:
        raise _lost("NIR has no refractory time; train without")
    constants = d.constants() | dict(node.op.values)
    p = {key: w.full(node, value, np.float64) for key, value in constants.items()}
    binary, direct = d.emit == c.emit == "binary", (d.emit, d.levels) == (c.emit, c.levels)
    resets = {reset for _, reset in c.kinds.values()}
    if binary and isinstance(d, Leaky) and d.reset != "late" and not p["decay"].any():
        w.into[node.name] = _gained(
            w, node, p["gain"], w.part(node.name, "Threshold", threshold=_level(w, node, p))
        )
        w.out[node.name] = node.name
    elif direct and d.reset in resets:
        _fired(w, node, p)
    elif binary and "zero" in resets and d.reset != "zero":
        _assembled(w, node, p)
    else:
        raise _lost(
            f"NIR, in this discretisation, has no {d.emit} spikes with the reset {d.reset!r}; "
            'those that it has are "binary" with "zero", or, as "sinabs" or "rockpool", '
            '"multiple" with "subtract"'
        )


def _level(w: Writer, node: Node, p: Mapping[str, Array]) -> Array:
    """The threshold; the next number where the convention fires at it and we above, or we at it."""
    assert isinstance(node.op, Neurons)
    level = p["threshold"].astype(np.float32)
    if node.op.dynamics.above == w.convention.above or w.convention.emit != "binary":
        return level
    away = np.float32(np.inf if node.op.dynamics.above else 0)
    return np.nextafter(level, away)


def _gained(w: Writer, node: Node, gain: Array, target: str) -> str:
    """Where input goes that is to be scaled before it reaches `target`."""
    (source,) = node.inputs
    lone = w.graph.readers[source] == (node.name,) and source not in w.graph.outputs
    fold = lone and not w.convention.knows("Scale")
    if (gain == 1).all() or (fold and _folded(w, w.out.get(source), gain)):
        return target
    first = w.part(w.spare(f"{node.name}.gain"), "Scale", scale=gain.astype(np.float32))
    w.edges.append((first, target))
    return first


def _folded(w: Writer, name: str | None, gain: Array) -> bool:
    """Whether the weights called `name` could take up what scales their values, one a channel.

    For simulators whose importer leaves out a Scale.
    """
    kind, values = w.parts.get(name or "", ("", {}))
    flat = gain.reshape(len(gain), -1)
    if "weight" not in values or (flat != flat[:, :1]).any():
        return False
    factor, weight = flat[:, 0].astype(np.float32), values["weight"]
    scaled = {"weight": weight * factor.reshape(-1, *(1 for _ in weight.shape[1:]))}
    scaled |= {"bias": values["bias"] * factor} if "bias" in values else {}
    w.parts[name or ""] = kind, values | scaled
    return True


def _leak(w: Writer, decay: Array, key: str = "tau") -> dict[str, Array]:
    """The time constant of a decay, none of what does not decay.

    Raises:
        InputError: there is none for some, or a decay of 0 that only Euler's steps have.
    """
    if (decay == 1).all():
        return {}
    if (decay == 1).any():
        raise _lost("some neurons never decay and others do; make two populations of them")
    if w.convention.decay == "exponential" and not decay.all():
        raise InputError('a decay of 0 has no time constant here; write it as "euler"')
    return {key: w.convention.tau(decay, w.dt).astype(np.float32)}


def _how(w: Writer, kind: str) -> str:
    """The gain that the convention gives a kind of neuron."""
    if kind not in w.convention.kinds:
        raise InputError(f"there is no {kind} in this discretisation")
    return w.convention.kinds[kind][0]


def _fired(w: Writer, node: Node, p: Mapping[str, Array]) -> None:
    """Add a population as IF, LIF or CubaLIF; or its current as LI, before one of these."""
    leak, zero = _leak(w, p["decay"]), np.zeros(p["decay"].shape, np.float32)
    now = {"v_threshold": _level(w, node, p), "v_reset": zero} | ({"v_leak": zero} if leak else {})
    gain, first = p["gain"], None
    if "drive" in p:
        slow = _leak(w, p["synapse"], "tau_syn")
        if slow and leak and not w.convention.split:
            return _cuba(w, node, p, now | slow | {"tau_mem": leak["tau"]})
        first = _integrator(w, f"{node.name}.current", p["synapse"], gain)
        gain = p["drive"]
    kind = "LIF" if leak else "IF"
    per, how, one = (1 - p["decay"]) if leak else w.dt, _how(w, kind), np.ones_like(gain)
    if how == "equation":
        r, gain = gain / per, np.ones(())
    elif how == "unit":  # up to the rounding of a decay in float32
        r, gain = one, np.where(abs(gain - per) < 2**-23, 1, gain / per)
    else:  # of a simulator that ignores r, but for Rockpool, which finds its dt by it
        r = leak["tau"] / w.dt - 1 if leak else one
    w.out[node.name] = w.part(node.name, kind, r=r.astype(np.float32), **leak, **now)
    entry = _gained(w, node, gain, node.name)
    if first:
        w.edges.append((first, entry))
    w.into[node.name] = first or entry
    return None


def _cuba(w: Writer, node: Node, p: Mapping[str, Array], now: dict[str, Array]) -> None:
    """Add a population as CubaLIF."""
    gain, drive, ones = p["gain"], p["drive"], np.ones(p["gain"].shape)
    how = _how(w, "CubaLIF")
    if how == "equation":
        r, weight, gain = drive / (1 - p["decay"]), gain / (1 - p["synapse"]), ones
    else:
        r, weight, gain = now["tau_mem"] / w.dt - 1, ones, gain * drive
        gain = gain / p["synapse"] if how == "decayed" else gain
    r, weight = r.astype(np.float32), weight.astype(np.float32)
    w.out[node.name] = w.part(node.name, "CubaLIF", r=r, w_in=weight, **now)
    w.into[node.name] = _gained(w, node, gain, node.name)


def _integrator(w: Writer, name: str, decay: Array, gain: Array) -> str:
    """Add an integrator: y <- decay y + gain x."""
    leak = _leak(w, decay)
    r = (gain / ((1 - decay) if leak else w.dt)).astype(np.float32)
    more = leak | ({"v_leak": np.zeros(r.shape, np.float32)} if leak else {})
    return w.part(w.spare(name), "LI" if leak else "I", r=r, **more)


def _assembled(w: Writer, node: Node, p: Mapping[str, Array]) -> None:
    """Add a population with a soft reset, a late one, or none, of primitives.

    The membrane h before the reset is h <- decay h + gain x - c s[t - 1], where c is what the
    reset takes away one step later: decay threshold for "subtract", as the rest leaks before it is
    seen again; threshold for "late". An integrator computes that of x - c/gain s[t - 1].
    """
    assert isinstance(node.op, Neurons)
    gain, source = p["gain"], None
    if "drive" in p:
        source = _integrator(w, f"{node.name}.current", p["synapse"], gain)
        gain = p["drive"]
    membrane = _integrator(w, f"{node.name}.membrane", p["decay"], gain)
    if source:
        w.edges.append((source, membrane))
    w.part(node.name, "Threshold", membrane, threshold=_level(w, node, p))
    taken = {"subtract": p["decay"] * p["threshold"], "late": p["threshold"], "none": 0 * gain}
    back = taken[node.op.dynamics.reset]
    if back.any():
        if not gain.all():
            raise _lost("a population that ignores its input can't be reset through it")
        step = np.full(back.shape, w.dt, np.float32)
        late = w.part(w.spare(f"{node.name}.late"), "Delay", node.name, delay=step)
        again = (-back / gain).astype(np.float32)
        w.edges.append(
            (w.part(w.spare(f"{node.name}.reset"), "Scale", late, scale=again), membrane)
        )
    w.into[node.name], w.out[node.name] = source or membrane, node.name


RULES: dict[type[Op], Callable[[Writer, Node], None]] = {
    Input: _input,
    Dense: _weighted,
    Conv: _weighted,
    Bias: _bias,
    Pool: _pool,
    Select: _select,
    Scale: _scale,
    Add: _scale,
    Delay: _delay,
    Neurons: _neurons,
}
