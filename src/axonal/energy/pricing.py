"""Prices of counts in joules: with a range, its sources, and what is left out.

They are modelled, not measured. On a datapath an operation costs its multiplier and adder, and a
word fetched its share of a 64-bit access:

    E = multiplies E_mul + adds E_add + (weight_reads / R) E_sram(bits)
        + (state_reads + state_writes) E_sram(state bits)

with R the uses of a weight between two fetches. Low, nominal and high may stand for memories of
different sizes; compare two networks within one of them, never across. On a chip

    E = synops E_synop + spikes (E_spike + hops E_hop) + sites E_update + seconds P_static
"""

import math
from dataclasses import dataclass

import numpy as np

from ..core.errors import InputError
from ..core.meter import FIELDS, Counts
from .tables import CostTable, Range, datapath, load

PARTS = ("multiplies", "adds", "weight_reads", "state_reads", "state_writes")
EVENT_STATE_BITS = {8: 16, 16: 16, 32: 32}  # sums kept between events outgrow int8


@dataclass(frozen=True, kw_only=True)
class Energy:
    """Joules of one sample.

    Attributes:
        parts: joules by `PARTS` or, on a chip, by its rows; those that are known.
        evidence: class of the figures; "modelled" for a table of operator energies.
        basis: the process or chip, and what low, nominal and high stand for.
        sources: of every number used.
        omits: what is not in these joules.
        unknown: parts that no figure is known for, and why; the total is then a lower bound.
        reuse: R, uses of a weight between two fetches.
    """

    parts: dict[str, Range]
    evidence: str
    basis: str
    sources: tuple[str, ...]
    omits: tuple[str, ...]
    unknown: tuple[str, ...] = ()
    reuse: float = 1.0

    @property
    def total(self) -> Range:
        """The sum of the parts, joules."""
        return sum(self.parts.values(), Range(0.0, 0.0, 0.0))

    def __str__(self) -> str:
        low, nominal, high = (f"{value:.3g}" for value in self.total)
        bound = "at least " if self.unknown else ""
        unknown = f" Unknown: {'; '.join(self.unknown)}." if self.unknown else ""
        return (
            f"{bound}{nominal} J ({low} to {high}), {self.evidence}: {self.basis}; "
            f"{'; '.join(self.sources)}. Left out: {'; '.join(self.omits)}.{unknown}"
        )


@dataclass(frozen=True)
class BreakEven:
    """The share of events at which an event-driven run costs what the dense one costs.

    Attributes:
        share: break-even events / sites in each memory scenario, over the layers that are
            `event_driven`; above 1 it can't lose, and None when nothing follows the events.
        measured: events / sites of the run, over the same layers.
        verdict: a sentence; it may be that spiking loses.
    """

    share: Range | None
    measured: float
    verdict: str


def price(
    counts: Counts,
    table: CostTable | None = None,
    bits: int = 8,
    reuse: float = 1.0,
    state_bits: int | None = None,
    *,
    hops: float | None = None,
    seconds: float | None = None,
) -> Energy:
    """Joules of one sample of `counts`.

    Args:
        counts: what a run executed.
        table: a datapath or a chip; the shipped `cmos45` by default.
        bits: datapath and weights: 8 (int8), 16 (fp16) or 32 (fp32). A chip has its own.
        reuse: R >= 1, uses of a weight between two fetches. An event-driven run has 1; a dense
            one has what its tiling gives it: declare it.
        state_bits: width of a word of state; `bits` by default. `EVENT_STATE_BITS` holds it for
            runs that keep their sums in memory between events.
        hops: that a spike takes on a chip, the mean; None while the placement is unknown.
        seconds: that a sample takes on a chip, times the chips in use; None while unknown.

    Raises:
        InputError: the table has no such datapath, `reuse` is below 1, `hops` or `seconds` are no
            numbers >= 0 or are not a chip's; no layer works by events, as all do on a chip, or
            spikes carry values that those of the chip can't.
    """
    table = load() if table is None else table
    if not 1 <= reuse < math.inf:
        raise InputError(f"price: reuse {reuse} is not a number of uses >= 1")
    for name, value in {"hops": hops, "seconds": seconds}.items():
        if value is not None and not (table.kind == "chip" and 0 <= value < math.inf):
            raise InputError(f"price: {name} {value} for {table.title}; give a chip's, >= 0")
    if table.kind == "chip":
        parts, omits, unknown = _on_chip(counts, table, hops, seconds)
        rows = {key: key for key in parts}
    else:
        datapath(table, (bits,))
        rows = dict.fromkeys(PARTS, "sram")
        rows |= {"multiplies": f"multiply.{bits}", "adds": f"add.{bits}"}
        word = {part: bits if part == "weight_reads" else state_bits or bits for part in PARTS}
        uses = {part: reuse if part == "weight_reads" else 1.0 for part in PARTS}
        parts = {p: table[rows[p]].si(word[p]) * (counts.total(p) / uses[p]) for p in PARTS}
        omits, unknown = (), ()
    scenes = ", ".join(f"{name}: {scene}" for name, scene in table.scenarios.items())
    return Energy(
        parts=parts,
        evidence=table.evidence,
        basis=f"{table.title} ({scenes})",
        sources=tuple(dict.fromkeys(table[key].source for key in rows.values())),
        omits=table.omits + omits,
        unknown=unknown,
        reuse=reuse,
    )


def _on_chip(
    counts: Counts, chip: CostTable, hops: float | None, seconds: float | None
) -> tuple[dict[str, Range], tuple[str, ...], tuple[str, ...]]:
    """The parts that are known, what else is left out, and the parts that are unknown."""
    driven = event_driven(counts)
    work = dict(zip(FIELDS, counts.table.sum(0).T / counts.samples, strict=True))  # field: [L]
    if not (driven & (work["sites"] > 0)).any():
        raise InputError(f"price: no layer works by events, and {chip.title} runs no others")
    if not chip.graded and (graded := driven & (work["multiplies"] > 0)).any():
        layer = counts.layers[int(graded.argmax())]
        raise InputError(
            f"price: {layer} reads spikes that carry values, which those of {chip.title} don't"
        )
    total = {field: float(values[driven].sum()) for field, values in work.items()}
    sent = total["spikes"]
    amounts = {"synop": total["synops"], "spike": sent, "update": total["sites"]}
    amounts |= {} if hops is None else {"hop": hops * sent}
    amounts |= {} if seconds is None else {"static": seconds}
    missing = {"hop": "no hops a spike are given", "static": "no seconds a sample are given"}
    unknown = {**chip.unknown, **{k: missing[k] for k in chip.costs if k not in amounts}}
    parts = {k: cost.si() * amounts[k] for k, cost in chip.costs.items() if k in amounts}
    omits = ()
    if dense := float(work["synops"][~driven].sum()):
        names = ", ".join(n for n, event in zip(counts.layers, driven, strict=True) if not event)
        omits = (f"{dense:.3g} multiply-adds beside the chip, of layers without events: {names}",)
    return parts, omits, tuple(f"{key}: {why}" for key, why in unknown.items())


def event_driven(counts: Counts) -> np.ndarray:
    """Whether each layer [L] works by events: it stores a sum at every synaptic operation.

    A dense layer stores each output once; so does one that skips zeros.
    """
    work, stored = (counts.table[..., FIELDS.index(f)].sum(0) for f in ("synops", "state_writes"))
    return stored >= work


def scale_events(counts: Counts, factor: float) -> Counts:
    """The counts of a run whose neurons send `factor` times as many events.

    What an event causes scales: its multiplies and weight fetches and, a synaptic operation,
    one add, one read and one write of state. What is counted beyond that is the neurons' own
    work in every step (leak, comparison, membrane) and stays; so do the layers that are not
    `event_driven`, as in the conventional shell of a hybrid.

    Raises:
        InputError: `factor` is negative or not finite.
    """
    if not 0 <= factor < math.inf:
        raise InputError(f"scale_events: factor {factor} is not a number >= 0")
    table, driven = counts.table.copy(), event_driven(counts)
    synops = counts.table[..., FIELDS.index("synops")]
    for i, field in enumerate(FIELDS):
        if field == "sites":
            continue
        caused = table[..., i]
        if field in ("adds", "state_reads", "state_writes"):
            caused = np.minimum(caused, synops)
        table[..., i] += (factor - 1) * caused * driven
    return Counts(counts.layers, table, counts.samples)


def break_even(
    events: Counts, dense: Counts, table: CostTable | None = None, bits: int = 8, reuse: float = 1.0
) -> BreakEven:
    """The share of events at which an event-driven run costs what the dense one costs.

    Energy is linear in the events, F + s V, so that s* = (E_dense - F) / V, times the share
    that was measured. Both sides have the same datapath; `reuse` is the dense run's.

    Raises:
        InputError: `table` is a chip's, or as `price`.
    """
    table, state_bits = datapath(table), EVENT_STATE_BITS.get(bits)
    fixed = price(scale_events(events, 0.0), table, bits, 1.0, state_bits).total
    total = price(events, table, bits, 1.0, state_bits).total
    other = price(dense, table, bits, reuse).total
    measured = _share(events)
    if measured == 0 or min(e - f for e, f in zip(total, fixed, strict=True)) <= 0:
        return BreakEven(None, measured, "unknown: no work in this run follows its events")
    share = Range(
        *(measured * max(0.0, d - f) / (e - f) for d, f, e in zip(other, fixed, total, strict=True))
    )
    return BreakEven(share, measured, _verdict(share, measured))


def _share(counts: Counts) -> float:
    driven = event_driven(counts)
    spikes, sites = (
        float((counts.table[..., FIELDS.index(f)] * driven).sum()) for f in ("spikes", "sites")
    )
    return spikes / sites if sites else 0.0


def _verdict(share: Range, measured: float) -> str:
    low, high = min(share), max(share)
    sent = f"it sends {measured:.1%} of the events it could"
    span = f"{low:.1%}" if f"{low:.1%}" == f"{high:.1%}" else f"{low:.1%} to {high:.1%}"
    if high == 0:
        return "spiking loses here at any sparsity: its neurons' own updates cost more than the ANN"
    if measured > high:
        return f"spiking loses here: {sent}, and would have to send less than {span}"
    if measured < low:
        return f"spiking pays: {sent}, and may send up to {span}"
    return f"it depends on the memory: {sent}, the break-even is {span}"
