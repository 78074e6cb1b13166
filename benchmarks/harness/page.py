"""Pages of results: a template beside each bench, filled from its JSON and from nothing else."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from axonal.core import files

from . import results as stored
from .bench import RESULTS, Bench

PAGES = Path("docs/benchmarks")
INDEX = "README.md"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    first, *others = (f"| {' | '.join(cells)} |" for cells in (head, *rows))
    return "\n".join([first, "|---" * len(head) + "|", *others])


def shown(figure: Any, spec: str = ".2f", scale: float = 1) -> str:
    """A figure as text: a number, or "value (low–high)".

    Args:
        figure: a number, or {"value", "low", "high"}.
        spec: how each number is formatted.
        scale: what each is multiplied by.
    """

    def text(number: float) -> str:
        return format(scale * number, spec).replace("%", " %")

    if not isinstance(figure, Mapping):
        return text(figure)
    value, low, high = (text(figure[key]) for key in ("value", "low", "high"))
    return f"{value} ({low}–{high})"


def render(bench: Bench, results: Path = RESULTS, pages: Path = PAGES) -> Path:
    """Write a bench's page, `NAME.md`, from its results.

    Raises:
        FileError: the results can't be read, or the page can't be written.
    """
    template, values = _filled(bench, results, pages)
    return files.write(pages / f"{bench.name}.md", template.render(values))


def render_index(benches: Iterable[Bench], results: Path = RESULTS, pages: Path = PAGES) -> Path:
    """Write the index of all pages, with a headline of each.

    Raises:
        FileError: results can't be read, or the index can't be written.
    """
    rows = []
    for bench in benches:
        template, values = _filled(bench, results, pages)
        context = template.new_context(values)
        title, headline = (
            "".join(template.blocks[block](context)) for block in ("title", "headline")
        )
        rows.append({"name": bench.name, "title": title, "headline": headline})
    layout = _environment().get_template("index.md.j2")
    return files.write(pages / INDEX, layout.render(benches=rows))


def headline(bench: Bench, results: Path = RESULTS) -> str:
    """The sentence that a bench's results come to.

    Raises:
        FileError: the results can't be read.
    """
    template, values = _filled(bench, results, results)
    return "".join(template.blocks["headline"](template.new_context(values)))


def _filled(bench: Bench, results: Path, pages: Path) -> tuple[Template, dict[str, Any]]:
    """A bench's template, and what it is filled with."""
    values = stored.read(results / f"{bench.name}.json")
    values |= bench.tables(values)
    relative = Path(os.path.relpath(results, pages)).as_posix()
    values |= {"name": bench.name, "folder": "" if relative == "." else f"{relative}/"}
    return _environment(bench.template.parent).get_template(bench.template.name), values


def _environment(*folders: Path) -> Environment:
    """Templates of the harness, and of these folders."""
    environment = Environment(
        loader=FileSystemLoader([Path(__file__).parent, *folders]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["shown"] = shown
    return environment
