"""The README's tables, made from the benches' results and from nothing else."""

import json
import re
from pathlib import Path
from typing import Any

from ..core import files
from ..core.errors import FileError

KEYS = ("figures", "compared", "machine", "versions", "seed", "command")
MARK = re.compile(r"(<!-- bench:generate -->\n)(.*?)(<!-- /bench -->)", re.DOTALL)


def renew(readme: Path, results: Path) -> None:
    """Put the table of `results`/generate.json between the marks in `readme`, if it has any.

    Raises:
        FileError: the results can't be read, or the file can't be written.
    """
    if readme.exists() and MARK.search(text := readme.read_text()):
        made = table(read(results / "generate.json"))
        files.write(readme, MARK.sub(lambda found: found[1] + made + found[3], text))


def read(path: Path) -> dict[str, Any]:
    """A bench's results.

    Raises:
        FileError: the file is missing or damaged.
    """
    try:
        found = json.loads(path.read_text())
        return {key: found[key] for key in KEYS}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FileError(f"can't read {path} ({error}); run the bench again") from error


def table(results: dict[str, Any]) -> str:
    """The table of `axonal bench generate`, in Markdown."""
    figures, compared = results["figures"], results["compared"]
    rows = [
        ("operations saved at equal quality", _percent(figures.get("saving_at_equal_quality"))),
        ("… against an ANN that skips zeros", _percent(figures.get("saving_vs_zero_skipping"))),
        ("its Fréchet distance / the best ANN's", _number(figures["fd_ratio"])),
        ("lowest spiking Fréchet distance / the best ANN's", _number(figures["fd_ratio_best"])),
        ("operations that this run saves", _percent(figures.get("saving_of_lowest_fd"))),
        ("seconds for `axonal demo`", f"{figures['demo_seconds']:.0f}"),
    ]
    lines = ["| | figure (95 % interval) |", "|---|---|", *(f"| {a} | {b} |" for a, b in rows), ""]
    lines += [
        "| run | million operations an image | … skipping zeros | Fréchet distance |",
        "|---|---|---|---|",
    ]
    names = [key[4:-1] for key in figures if key.startswith("fd [")]
    shown = [
        n
        for n in names
        if n in compared.values() or n.startswith(("ANN, m", "ANN tuned", "spiking"))
    ]
    shown += [n for n in names if n.startswith("sigma-delta") and n not in shown]
    for name in sorted(shown, key=names.index):
        skipped = figures.get(f"mmac skipping zeros [{name}]")
        work, fd = figures[f"mmac [{name}]"], _number(figures[f"fd [{name}]"])
        bold = "**" if name == compared["spiking"] else ""
        zeros = "–" if skipped is None else f"{skipped:.1f}"
        lines.append(f"| {bold}{name}{bold} | {work:.1f} | {zeros} | {fd} |")
    lines += ["", f"Measured by `{results['command']}` on {results['machine']}.", ""]
    return "\n".join(lines)


def _number(figure: dict[str, float]) -> str:
    return f"{figure['value']:.2f} ({figure['low']:.2f}–{figure['high']:.2f})"


def _percent(figure: dict[str, float] | None) -> str:
    if figure is None:
        return "no ANN run reaches this quality"
    low, high = 100 * figure["low"], 100 * figure["high"]
    return f"{100 * figure['value']:.1f} % ({low:.1f}–{high:.1f})"
