"""An assessment as a page, and as text and tables of a terminal."""

import math
from collections.abc import Iterator
from shlex import quote

from rich.console import Group
from rich.table import Table
from rich.text import Text

from ..convert.assess import GRADED, TOLERANCE
from ..convert.assessment import AssessedLayer, Assessment, Way, short
from ..energy import CostTable
from . import charts
from .page import page

AXIS = (1e-3, 10.0)  # of the page's drawings: events of a value

# Spikes a neuron and step below which 5 to 10 steps cost less than an ANN of as many bits (Yan et
# al., arXiv 2409.08290).
PUBLISHED = 0.064, range(5, 11)

SIGNS = {"pays": "<", "loses": ">", "depends": "~", "stays": "stays dense"}


def views(
    assessment: Assessment, model: str, data: str, stream: bool, table: CostTable
) -> tuple[str, Group]:
    """The assessment as one HTML page that loads nothing, and as text for a terminal."""
    sentences = _sentences(assessment, model, data, stream)
    about = {"assessment": assessment, "sentences": sentences, "outcome": outcome, "table": table}
    filters = {"short": short, "place": _place}
    html = page("assess.html.j2", filters, title=f"{model} on {data}", **about)
    tables = _layers(assessment), _memories(assessment, table)
    parts = [Text(assessment.verdict, "bold"), *tables, *map(Text, sentences)]
    return html, Group(*(line for part in parts for line in (part, "")))


def outcome(layer: AssessedLayer, way: Way) -> str:
    """Whether a layer "pays" by events, "loses", "depends" on the memory, or "stays" as it is."""
    if layer.sent[way.name] is None:
        return "stays"
    pays = layer.pays(way)
    return "pays" if all(pays) else "depends" if any(pays) else "loses"


def _sentences(assessment: Assessment, model: str, data: str, stream: bool) -> list[str]:
    """Sentences that say what the figures mean; one may end in a line with a command."""
    kind = "samples that follow each other" if stream else "strangers: these are no stream"
    sentences = [
        f"{assessment.mean('zeros'):.0%} of what layers read is 0, and "
        f"{assessment.mean('change'):.0%} moves by more than {TOLERANCE:g} of its spread from one "
        f"sample to the next ({kind}); {assessment.samples} samples.",
        "On a processor with dense int8 units, run the ANN: skipping its zeros saves at most "
        f"{1 - min(assessment.times()):.0%} there, if the units can. What events cost on it is "
        "unknown.",
    ]
    if assessment.apart:
        names = ", ".join(assessment.apart)
        sentences.append(f"In no figure: {names}, which stay dense by events, too.")
    if assessment.method:
        sentences += _advice(assessment, f"{quote(model)} {quote(data)}")
    return [*sentences, f"As an int8 ANN, each weight fetched once a sample: {assessment.ann}"]


def _advice(assessment: Assessment, named: str) -> Iterator[str]:
    """Advice on how to convert, beside the thresholds of others."""
    binary, lazy = assessment.ways[0], assessment.times(assessment.best, reuse=False)
    yield (
        f"Beside an ANN that fetched a weight for every use, {assessment.best.words} would cost "
        f"{short(min(lazy))} to {short(max(lazy))} times as much."
    )
    if binary.steps in PUBLISHED[1]:
        bits = math.ceil(math.log2(binary.steps + 1))
        yield (
            f"{binary.steps} binary steps tell as much as {bits} bits. Against an ANN of as many, "
            f"published (arXiv 2409.08290, 5 to 10 steps), spikes pay below {PUBLISHED[0]:.1%} a "
            f"neuron and step; here they would be {assessment.rate(binary):.1%}."
        )
    steps = GRADED.steps if assessment.method == "graded" else binary.steps
    command = f"axonal convert {named} --method {assessment.method} --steps {steps}"
    yield f"If you convert: by {assessment.method}; {assessment.why}.\n{command}"


def _layers(assessment: Assessment) -> Table:
    """A row a layer: what it reads, and by each way its events beside the break-even."""
    rows = Table(
        box=None, padding=(0, 1, 0, 0), caption="events a value beside the break-even, nominal"
    )
    for name in ("layer", "zeros", "moves", "mul-adds", "reuse"):
        rows.add_column(name, justify="left" if name == "layer" else "right", overflow="fold")
    for way in assessment.ways:
        rows.add_column(f"{way.name}, {way.steps}", justify="right")
    for layer in assessment.layers:
        shares = f"{layer.zeros:.0%}", f"{layer.change:.0%}"
        row = [*shares, charts.si(layer.dense), f"{layer.ann.reuse:.0f}"]
        for way in assessment.ways:
            sent, sign = layer.sent[way.name], SIGNS[outcome(layer, way)]
            even = short(layer.break_even[way.name].nominal)
            row.append(sign if sent is None else f"{short(sent)} {sign} {even}")
        rows.add_row(Text(layer.name), *row)
    return rows


def _memories(assessment: Assessment, table: CostTable) -> Table:
    """A row a memory: the ANN's joules, and the multiples of every way."""
    rows = Table(box=None, padding=(0, 1, 0, 0))
    ways = [way.name for way in assessment.ways]
    for name in ("event-driven chip, with", "int8 ANN", "zeros skipped", *ways, "would pay"):
        rows.add_column(name, overflow="fold")
    multiples = [[*assessment.times(way)] for way in (None, *assessment.ways)]
    memories = zip(table.scenarios.values(), assessment.ann.total, strict=True)
    for i, (memory, joules) in enumerate(memories):
        beside = [f"× {short(multiple[i])}" for multiple in multiples]
        layers = ", ".join(assessment.paying()[i]) or "no layer"
        rows.add_row(memory, charts.si(joules, "J"), *beside, Text(layers))
    return rows


def _place(events: float) -> float:
    """The place of a number of events on the axis of the page, in percent."""
    low, high = map(math.log10, AXIS)
    return 100 * (math.log10(min(max(events, AXIS[0]), AXIS[1])) - low) / (high - low)
