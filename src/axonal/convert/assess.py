"""Whether spiking would pay for a network, from one pass over samples and before any work is done.

Executed by events, a layer spends on every event and synapse a weight fetched, an addition (and a
multiplication, where events carry values) and an accumulator read and written, and on every neuron
and step an update. Executed as an int8 ANN at its best, it fetches each weight once a sample, reads
each input and writes each output once. `energy.price` prices both; the break-even is how many
events a site, a value that the layer reads, may send a sample, over all steps:

    events* = (E_ann - E_updates) / E_one event a site

What a site would send is told by the quantiser of the conversion: of a value y, with the ceiling
theta of least error, n = clip(floor(N |y| / theta + 1/2), 0, N), N levels in T steps, at most T.
A layer that reads the input, which is no spikes, works as the ANN's does, in every step.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, fx, nn

from ..core.errors import InputError
from ..core.meter import FIELDS, Counts
from ..energy import EVENT_STATE_BITS, CostTable, break_even, datapath, price, scale_events
from ..nn import QCFS
from ..nn.hooks import MAPS, watch_reads
from ..nn.interpreter import describe, module_of
from ..nn.meter import Meter
from .activations import BATCH, Observed
from .assessment import NOTHING, AssessedLayer, Assessment, Way
from .methods.graded import ceiling
from .methods.sigma_delta import sigma_delta
from .plain import plain
from .tracing import MAXIMA, Role, kind_of, prepared, rectifiers, roles

BITS = 8
GRADED, CHANGES = Way("graded", 2, 2**BITS - 1), Way("changes", 1, 0)
TOLERANCE = 0.1  # of the spread of what a layer reads: a value that moved by more has changed
DRAWN = 2**14  # values of a layer that tell what it would send


def assess(
    model: nn.Module,
    x: Tensor,
    *,
    steps: int = 8,
    stream: bool = False,
    table: CostTable | None = None,
) -> Assessment:
    """Look at what the layers of `model` read, and price them by events and as an ANN.

    Args:
        model: trained; torch.fx must be able to follow it. It is left as it is.
        x: samples [N, ...] as it takes them, 2 or more.
        steps: T of binary spikes.
        stream: whether samples follow each other in time; what changes between others is no
            reason to send changes.
        table: prices of operators and memories; the shipped `cmos45` by default.

    Raises:
        InputError: an operation without a rule (with its line), nothing to price, T below 1,
            samples that don't fit, or a table of a chip or without int8.
    """
    table = datapath(table, (BITS,))
    if steps < 1:
        raise InputError(f"assess: T is {steps}; it must be at least 1")
    if x.dim() < 2 or len(x) < 2 or not x.is_floating_point() or not bool(x.isfinite().all()):
        raise InputError(f"assess: samples {list(x.shape)} must be finite numbers [N, ...], N >= 2")
    dense = prepared(model)
    known, ways = roles(dense), (Way("binary", steps, 1), GRADED, CHANGES)
    dense_work, skipping, reads = _run(dense, x)
    nodes = {str(n.target): n for n in reversed(dense.graph.nodes) if n.op == "call_module"}
    layers = []
    for index, path in enumerate(dense_work.layers):
        counts = [Counts((path,), c.table[:, [index]], c.samples) for c in (dense_work, skipping)]
        direct = _reads_input(dense, nodes[path], known)
        size = dense.get_submodule(path).get_parameter("weight").numel()
        layers.append(_assessed(nodes[path].name, size, counts, reads[path], ways, direct, table))
    ways = ways if stream and _follows_changes(model, x) else ways[:2]
    parts = [layer.ann.parts for layer in layers]
    ann = replace(
        layers[0].ann,
        parts={key: sum((part[key] for part in parts), NOTHING) for key in parts[0]},
        reuse=sum(x.dense for x in layers) / sum(x.dense / x.ann.reuse for x in layers),
    )
    others = (describe(dense, n).split()[0] for n in known if known[n] in ("nonlinear", "product"))
    assessment = Assessment(
        samples=len(x),
        layers=tuple(layers),
        ways=ways,
        ann=ann,
        apart=tuple(dict.fromkeys(others)),
    )
    return _advised(assessment, dense, known)


def _run(dense: fx.GraphModule, x: Tensor) -> tuple[Counts, Counts, dict[str, "_Reads"]]:
    """The work of a sample, that of all samples without zeros, and what each layer reads."""
    if not any(isinstance(m, MAPS) for m in dense.modules()):
        raise InputError("assess: the model has no convolution or linear map; nothing to price")
    reads: dict[str, _Reads] = {}
    try:
        with torch.no_grad():
            with Meter(dense, "zeros") as meter:
                for batch in x.split(BATCH):
                    with watch_reads(dense) as read:
                        output = dense(batch)
                    for path, (inputs, *_) in read.items():  # of several calls the first
                        reads.setdefault(path, _Reads(len(x))).add(inputs)
            with Meter(dense, "dense") as ordinary:
                dense(x[:1])
    except RuntimeError as error:  # how torch refuses shapes
        raise InputError(f"assess: the model refuses samples {list(x.shape)}: {error}") from error
    if not bool(output.isfinite().all()):
        raise InputError("assess: the model's output is not finite; look at its weights")
    counts = meter.counts()
    return (
        ordinary.counts(),
        Counts(counts.layers, counts.table.sum(0, keepdims=True), len(x)),
        reads,
    )


def _assessed(
    name: str,
    weights: int,
    counts: list[Counts],
    reads: "_Reads",
    ways: tuple,
    direct: bool,
    costs: CostTable,
) -> AssessedLayer:
    """A layer of so many weights, counted whole and without zeros."""
    dense, skipping = counts
    work, outputs, sites = (dense.total(f) for f in ("synops", "state_writes", "sites"))
    reuse = max(1.0, work / weights)
    ann = price(dense, costs, bits=BITS, reuse=reuse)
    sent, even, joules = {}, {}, {}
    for way in ways:
        updates = 2 * way.steps * outputs  # as `nn.meter.Meter` counts them, of all neurons
        row = {"adds": work + updates, "state_reads": work + updates, "state_writes": work}
        row["multiplies"] = 0.0 if way.levels == 1 else work
        table = dense.table.copy()
        for field, value in row.items():
            table[..., FIELDS.index(field)] = value
        one = Counts(dense.layers, table, dense.samples)  # event a site
        stays = direct and way.levels > 0
        events = None if stays else reads.sent(way)
        own = price(
            scale_events(one, events or 0.0), costs, BITS, state_bits=EVENT_STATE_BITS[BITS]
        )
        sent[way.name] = events
        joules[way.name] = own.total + ann.total * (way.steps if stays else 0)
        even[way.name] = break_even(one, dense, costs, bits=BITS, reuse=reuse).share
    return AssessedLayer(
        name=name,
        sites=sites,
        zeros=1 - skipping.total("spikes") / sites,
        change=sent[CHANGES.name],
        dense=work,
        ann=ann,
        skipping=price(skipping, costs, bits=BITS, reuse=reuse).total,
        sent=sent,
        break_even=even,
        joules=joules,
    )


class _Reads:
    """What a layer reads, drawn at random: values, and how much they moved since a sample ago."""

    def __init__(self, samples: int):
        self.samples, self.dims = samples, 0
        self.draw = torch.Generator().manual_seed(0)
        self.last: Tensor | None = None
        self.drawn: list[Tensor] = []  # [2, C, K]

    def add(self, x: Tensor) -> None:
        before = torch.cat([x[:1] if self.last is None else self.last, x[:-1]])
        self.last, self.dims = x[-1:], x.dim() - 1
        both = torch.stack([x, x - before])
        rows = both.transpose(1, 2).flatten(2) if x.dim() == 4 else both.reshape(2, 1, -1)
        share = -(-DRAWN * len(x) // (self.samples * rows.shape[1]))
        if share < rows.shape[2]:
            rows = rows[..., torch.randint(rows.shape[2], (share,), generator=self.draw)]
        self.drawn.append(rows)

    def sent(self, way: Way) -> float:
        """Events of a site and sample."""
        values, moves = torch.cat(self.drawn, 2)
        if not way.levels:
            moved = float((moves.abs() > TOLERANCE * values.std()).float().mean())
            return moved * self.samples / (self.samples - 1)  # the first sample has none before it
        levels = way.levels * way.steps
        tops = ceiling(Observed(values, values.abs().amax(1), self.dims), levels).reshape(-1, 1)
        return float((values.abs() * levels / tops + 0.5).floor().clamp(max=way.steps).mean())


def _reads_input(dense: fx.GraphModule, node: fx.Node, known: Mapping[fx.Node, Role]) -> bool:
    """Whether the network's input comes to a layer through neither weights nor neurons."""
    waiting = [*node.all_input_nodes]
    while waiting:
        source = waiting.pop()
        if known[source] == "linear" and not isinstance(module_of(dense, source), MAPS):
            waiting.extend(source.all_input_nodes)
        elif known[source] == "input":
            return True
    return False


def _follows_changes(model: nn.Module, x: Tensor) -> bool:
    try:
        sigma_delta(plain(model), x[:1])
    except InputError:
        return False
    return True


def _advised(
    result: Assessment, dense: fx.GraphModule, known: Mapping[fx.Node, Role]
) -> Assessment:
    """With the method of `convert` for it, and why that one."""
    kinds = {known[n] for n in known if kind_of(dense, n) not in MAXIMA}
    if {"nonlinear", "product"} & kinds:
        return replace(result, method="transformer", why=f"it has {', '.join(result.apart)}")
    if "rectifier" not in kinds:
        return replace(result, why="the network has no activation, so that nothing in it can spike")
    if any(rectifiers(dense).values()):
        return replace(result, method="signed", why="its rectifiers leak, and need both signs")
    if result.best is CHANGES:
        return replace(result, method="sigma-delta", why="little changes from sample to sample")
    if any(isinstance(m, QCFS) for m in dense.modules()):
        return replace(result, method="qcfs", why="it was trained with quantised activations")
    why = "it needs no training; where spikes have to be binary, qcfs after training with levels"
    return replace(result, method="graded", why=why)
