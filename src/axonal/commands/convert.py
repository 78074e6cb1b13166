"""What `axonal assess` and `axonal convert` show: a page, a table of layers, and a sentence."""

import inspect
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from shlex import quote

from rich.console import Console, Group
from rich.status import Status
from rich.table import Table
from rich.text import Text

from ..convert import METHODS, DeltaNetwork, checkpoint, convert
from ..convert.api import SIGMA_DELTA
from ..convert.assess import GRADED, TOLERANCE, assess
from ..convert.assessment import AssessedLayer, Assessment, Way, short
from ..convert.certificate import Certificate
from ..core import files
from ..core.errors import InputError
from ..energy import tables
from ..models.base import CONFIG, WEIGHTS
from ..recipes.training import CARD
from ..report import charts
from ..report.page import page
from .resolve import network, samples

AXIS = (1e-3, 10.0)  # of the page's drawings: events of a value
# Spikes a neuron and step below which 5 to 10 steps cost less than an ANN of as many bits (Yan et
# al., arXiv 2409.08290).
PUBLISHED = 0.064, range(5, 11)
SIGNS = {"pays": "<", "loses": ">", "depends": "~", "stays": "stays dense"}


def assessed(
    what: str, data: str, count: int, steps: int, stream: bool, seed: int, out: Path
) -> tuple[Group, str]:
    """Assess a network on so many samples, and write the page.

    Returns:
        What a terminal shows, and a sentence that says where the page is.

    Raises:
        InputError: `out` ends otherwise than in .html, or as `convertible` and `convert.assess`.
            FileError: as `convertible`, or `out` can't be written.
    """
    if out.suffix != ".html":
        raise InputError(f"{out} is no name for a page; let it end in .html")
    files.writable(out.parent)
    model, _ = network(what)
    ((x, _),) = samples(data, [count], seed, stream)
    with Status("looking at what the layers read", console=Console(stderr=True)):
        found = assess(model, x, steps=steps, stream=stream)
    told = _told(found, what, data, stream)
    about = {"title": f"{what} on {data}", "found": found, "told": told, "outcome": outcome}
    shorter = {"short": short, "place": _place}
    files.write(out, page("assess.html.j2", shorter, **about, table=tables.load()))
    parts = [Text(found.verdict, "bold"), _layers(found), _memories(found), *map(Text, told)]
    return Group(*(line for part in parts for line in (part, ""))), f"The page is {out.resolve()}."


def converted(
    what: str,
    data: str,
    counts: Sequence[int],
    method: str,
    steps: int,
    options: Mapping[str, str],
    seed: int,
    out: Path,
) -> tuple[Table, str]:
    """Convert a network; its plan, its certificate and, if it is one of ours, itself go to `out`.

    Args:
        counts: samples that calibrate, and samples that check.
        options: of the method, as they were typed.

    Returns:
        The certificate by layer, and a sentence.

    Raises:
        InputError, FileError: as `convertible` and `convert.convert`, or `out` can't be written.
    """
    given = {name.replace("-", "_"): text for name, text in options.items()}
    chosen = {name: _value(method, name, text) for name, text in given.items()}
    files.writable(out)
    model, folder = network(what)
    calibration, check = samples(data, counts, seed, method == SIGMA_DELTA)
    both = [x if labels is None else (x, labels) for x, labels in (calibration, check)]
    with Status(f"converting by {method}", console=Console(stderr=True)):
        made, certificate = convert(
            model, both[0], method=method, T=steps, held_out=both[1], folder=out, **chosen
        )
    if isinstance(made, DeltaNetwork):  # its thresholds are in the certificate
        for plan in (checkpoint.PLAN, checkpoint.TENSORS):
            (out / plan).unlink(missing_ok=True)
        files.write(
            out / checkpoint.CERTIFICATE, json.dumps(certificate.to_dict(), indent=1) + "\n"
        )
    else:
        checkpoint.save(made, certificate, out)
    if folder is not None:
        for name in (CONFIG, WEIGHTS, CARD):
            files.write(out / "model" / name, (folder / name).read_bytes())
    return _certificate(certificate), f"Converted by {certificate} All of it is in {out.resolve()}."


def _value(method: str, name: str, text: str) -> object:
    """An option's text as the type of its default; what is unknown is left to `convert`."""
    kind = float if method == SIGMA_DELTA else str
    if method in METHODS and name in (known := inspect.signature(METHODS[method]).parameters):
        kind = type(known[name].default)
    try:
        return kind(text)
    except ValueError as error:
        raise InputError(f"--{name} {text!r} is no {kind.__name__}") from error


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


def _certificate(certificate: Certificate) -> Table:
    fields = ("threshold", "spikes", "clip", "quantisation", "unevenness", "error")
    if certificate.method == SIGMA_DELTA:
        fields = ("threshold", "share", "synops", "error")
    table = Table("layer", *fields, box=None, padding=(0, 1, 0, 0))
    for layer in certificate.layers:
        table.add_row(Text(layer.name), *(f"{getattr(layer, field):.3g}" for field in fields))
    return table


def _place(events: float) -> float:
    """Where a number of events is on the axis of the page, in percent."""
    low, high = map(math.log10, AXIS)
    return 100 * (math.log10(min(max(events, AXIS[0]), AXIS[1])) - low) / (high - low)
