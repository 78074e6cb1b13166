"""An assessment as a page and as tables of a terminal."""

import math
from collections.abc import Iterator
from shlex import quote

from rich.table import Table
from rich.text import Text

from ..convert.assess import GRADED, TOLERANCE
from ..convert.assessment import AssessedLayer, Assessment, Way, short
from ..energy import tables
from . import charts

AXIS = (1e-3, 10.0)  # of the page's drawings: events of a value

# Spikes a neuron and step below which 5 to 10 steps cost less than an ANN of as many bits (Yan et
# al., arXiv 2409.08290).
PUBLISHED = 0.064, range(5, 11)

SIGNS = {"pays": "<", "loses": ">", "depends": "~", "stays": "stays dense"}


def outcome(layer: AssessedLayer, way: Way) -> str:
    """Whether a layer "pays" by events, "loses", "depends" on the memory, or "stays" as it is."""
    if layer.sent[way.name] is None:
        return "stays"
    pays = layer.pays(way)
    return "pays" if all(pays) else "depends" if any(pays) else "loses"


def _told(found: Assessment, what: str, data: str, stream: bool) -> list[str]:
    kind = "samples that follow each other" if stream else "strangers: these are no stream"
    told = [
        f"{found.mean('zeros'):.0%} of what layers read is 0, and {found.mean('change'):.0%} moves "
        f"by more than {TOLERANCE:g} of its spread from one sample to the next ({kind}); "
        f"{found.samples} samples.",
        "On a processor with dense int8 units, run the ANN: skipping its zeros saves at most "
        f"{1 - min(found.times()):.0%} there, if the units can. What events cost on it is unknown.",
    ]
    if found.apart:
        told.append(f"In no figure: {', '.join(found.apart)}, which stay dense by events, too.")
    if found.method:
        told += _advice(found, f"{quote(what)} {quote(data)}")
    return [*told, f"As an int8 ANN, each weight fetched once a sample: {found.ann}"]


def _advice(found: Assessment, named: str) -> Iterator[str]:
    binary, lazy = found.ways[0], found.times(found.best, reuse=False)
    yield (
        f"Beside an ANN that fetched a weight for every use, {found.best.words} would cost "
        f"{short(min(lazy))} to {short(max(lazy))} times as much."
    )
    if binary.steps in PUBLISHED[1]:
        bits = math.ceil(math.log2(binary.steps + 1))
        yield (
            f"{binary.steps} binary steps tell as much as {bits} bits. Against an ANN of as many, "
            f"published (arXiv 2409.08290, 5 to 10 steps), spikes pay below {PUBLISHED[0]:.1%} a "
            f"neuron and step; here they would be {found.rate(binary):.1%}."
        )
    steps = GRADED.steps if found.method == "graded" else binary.steps
    command = f"axonal convert {named} --method {found.method} --steps {steps}"
    yield f"If you convert: by {found.method}; {found.why}.\n{command}"


def _layers(found: Assessment) -> Table:
    table = Table(
        box=None, padding=(0, 1, 0, 0), caption="events a value beside the break-even, nominal"
    )
    for name in ("layer", "zeros", "moves", "mul-adds", "reuse"):
        table.add_column(name, justify="left" if name == "layer" else "right", overflow="fold")
    for way in found.ways:
        table.add_column(f"{way.name}, {way.steps}", justify="right")
    for layer in found.layers:
        shares = f"{layer.zeros:.0%}", f"{layer.change:.0%}"
        row = [*shares, charts.si(layer.dense), f"{layer.ann.reuse:.0f}"]
        for way in found.ways:
            sent, sign = layer.sent[way.name], SIGNS[outcome(layer, way)]
            even = short(layer.break_even[way.name].nominal)
            row.append(sign if sent is None else f"{short(sent)} {sign} {even}")
        table.add_row(Text(layer.name), *row)
    return table


def _memories(found: Assessment) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0))
    ways = [way.name for way in found.ways]
    for name in ("event-driven chip, with", "int8 ANN", "zeros skipped", *ways, "would pay"):
        table.add_column(name, overflow="fold")
    multiples = [[*found.times(way)] for way in (None, *found.ways)]
    for i, (place, joules) in enumerate(
        zip(tables.load().scenarios.values(), found.ann.total, strict=True)
    ):
        beside = [f"× {short(multiple[i])}" for multiple in multiples]
        paying = ", ".join(found.paying()[i]) or "no layer"
        table.add_row(place, charts.si(joules, "J"), *beside, Text(paying))
    return table


def _place(events: float) -> float:
    """Where a number of events is on the axis of the page, in percent."""
    low, high = map(math.log10, AXIS)
    return 100 * (math.log10(min(max(events, AXIS[0]), AXIS[1])) - low) / (high - low)
