"""Price counts in joules: with a range, its sources, and what is left out. Modelled, not measured.

An operation costs its multiplier and adder; a word fetched costs its share of a 64-bit access:

    E = multiplies E_mul + adds E_add + (weight_reads / R) E_sram(bits)
        + (state_reads + state_writes) E_sram(state bits)

with R the uses of a weight between two fetches. Low, nominal and high put weights and state into
an 8 KiB, a 32 KiB and a 1 MiB memory; compare two networks within one of them, never across.
"""

import math
from dataclasses import dataclass

import numpy as np

from ..core.errors import InputError
from ..core.meter import FIELDS, Counts
from .tables import Range, Table, load

PARTS = ("multiplies", "adds", "weight_reads", "state_reads", "state_writes")
EVENT_STATE_BITS = {8: 16, 16: 16, 32: 32}  # sums kept between events outgrow int8


@dataclass(frozen=True)
class Energy:
    """Joules of one sample.

    Attributes:
        parts: joules by `PARTS`.
        bits: of the datapath: 8 (int8), 16 (fp16) or 32 (fp32).
        reuse: R, uses of a weight between two fetches.
        evidence: class of the figures; "modelled" for a table of operator energies.
        basis: the process, and what low, nominal and high stand for.
        sources: of every number used.
        omits: what is not in these joules.
    """

    parts: dict[str, Range]
    bits: int
    reuse: float
    evidence: str
    basis: str
    sources: tuple[str, ...]
    omits: tuple[str, ...]

    @property
    def total(self) -> Range:
        """The sum of the parts, joules."""
        return sum(self.parts.values(), Range(0.0, 0.0, 0.0))

    def __str__(self) -> str:
        low, nominal, high = (f"{value:.3g}" for value in self.total)
        return (
            f"{nominal} J ({low} to {high}), {self.evidence}: {self.basis}; "
            f"{'; '.join(self.sources)}. Left out: {'; '.join(self.omits)}."
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
    table: Table | None = None,
    bits: int = 8,
    reuse: float = 1.0,
    state_bits: int | None = None,
) -> Energy:
    """Joules of one sample of `counts`.

    Args:
        counts: what a run executed.
        table: operator energies; the shipped `cmos45` by default.
        bits: datapath and weights: 8 (int8), 16 (fp16) or 32 (fp32).
        reuse: R >= 1, uses of a weight between two fetches. An event-driven run has 1; a dense
            one has what its tiling gives it: declare it.
        state_bits: width of a word of state; `bits` by default. `EVENT_STATE_BITS` holds it for
            runs that keep their sums in memory between events.

    Raises:
        InputError: the table has no such datapath, or `reuse` is below 1.
    """
    table = table or load()
    if not 1 <= reuse < math.inf:
        raise InputError(f"price: reuse {reuse} is not a number of uses >= 1")
    if f"multiply.{bits}" not in table.rows:
        raise InputError(f"price: {table.title} has no {bits}-bit datapath; use 8, 16 or 32")
    rows = dict.fromkeys(PARTS, "sram")
    rows |= {"multiplies": f"multiply.{bits}", "adds": f"add.{bits}"}
    word = {part: bits if part == "weight_reads" else state_bits or bits for part in PARTS}
    uses = {part: reuse if part == "weight_reads" else 1.0 for part in PARTS}
    parts = {
        part: table[rows[part]].joules(word[part]) * (counts.total(part) / uses[part])
        for part in PARTS
    }
    scenes = ", ".join(f"{name}: {scene}" for name, scene in table.scenarios.items())
    sources = tuple(dict.fromkeys(table[key].source for key in rows.values()))
    basis = f"{table.title} ({scenes})"
    return Energy(parts, bits, reuse, table.evidence, basis, sources, table.omits)


def event_driven(counts: Counts) -> np.ndarray:
    """[L] whether each layer works by events: it stores a sum at every synaptic operation.

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
        moving = table[..., i]
        if field in ("adds", "state_reads", "state_writes"):
            moving = np.minimum(moving, synops)
        table[..., i] += (factor - 1) * moving * driven
    return Counts(counts.layers, table, counts.samples)


def break_even(
    events: Counts,
    dense: Counts,
    table: Table | None = None,
    bits: int = 8,
    reuse: float = 1.0,
) -> BreakEven:
    """How sparse the event-driven run must be to cost no more than the dense one.

    Energy is linear in the events, F + s V, so that s* = (E_dense - F) / V, times the share
    that was measured. Both sides have the same datapath; `reuse` is the dense run's.

    Raises:
        InputError: as `price`.
    """
    wide = EVENT_STATE_BITS.get(bits)
    fixed = price(scale_events(events, 0.0), table, bits, 1.0, wide).total
    whole = price(events, table, bits, 1.0, wide).total
    other = price(dense, table, bits, reuse).total
    measured = _share(events)
    if measured == 0 or min(w - f for w, f in zip(whole, fixed, strict=True)) <= 0:
        return BreakEven(None, measured, "unknown: no work in this run follows its events")
    share = Range(
        *(measured * max(0.0, d - f) / (w - f) for d, f, w in zip(other, fixed, whole, strict=True))
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
