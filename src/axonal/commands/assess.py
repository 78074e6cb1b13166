"""`axonal assess`: whether spiking would pay for a network."""

from pathlib import Path

from rich.console import Console, Group
from rich.status import Status
from rich.text import Text

from ..convert.assess import assess
from ..convert.assessment import short
from ..core import files
from ..core.errors import InputError
from ..energy import tables
from ..report.assessment import _layers, _memories, _place, _told, outcome
from ..report.page import page
from .resolve import network, samples


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
