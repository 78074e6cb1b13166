"""`axonal assess`: whether spiking would pay for a network."""

from pathlib import Path

from rich.console import Group

from ..convert.assess import assess as assess_network
from ..core import files
from ..core.errors import InputError
from ..energy import datapath, load
from ..report import assessment
from .console import status
from .resolve import network, samples


def assess(
    model: str,
    data: str,
    count: int,
    steps: int,
    stream: bool,
    seed: int,
    out: Path,
    table: str = "cmos45",
) -> tuple[Group, str]:
    """Assess a network on `count` samples, and write the page.

    Raises:
        InputError: `out` ends otherwise than in .html, the table is a chip's, or as `resolve` and
            `convert.assess`. FileError: as `resolve` and `energy.load`, or `out` can't be written.
    """
    if out.suffix != ".html":
        raise InputError(f"{out} is no name for a page; let it end in .html")
    costs = datapath(load(table))
    files.writable(out.parent)
    module, _ = network(model)
    ((x, _),) = samples(data, [count], seed, stream)
    with status("looking at what the layers read"):
        result = assess_network(module, x, steps=steps, stream=stream, table=costs)
    page, text = assessment.views(result, model, data, stream, costs)
    files.write(out, page)
    return text, f"The page is {out.resolve()}."
