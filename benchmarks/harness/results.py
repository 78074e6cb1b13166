"""Results that are kept, and drawn."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from axonal.core import files
from axonal.report import charts

Figures = dict[str, Any]

TONES = ("ann-0", "delta-0", "spike-0", "delta-1", "spike-1")


def kept(path: Path, command: str, part: Callable[[], Figures]) -> Figures:
    """What `part` finds, or what `path` has of it from an earlier run of the same command.

    Raises:
        FileError: it can't be written.
    """
    try:
        found = json.loads(path.read_text())
        if found["command"] == command:
            return found["figures"]
    except (OSError, ValueError, KeyError):
        pass  # it was not finished
    found = part()
    files.write(path, json.dumps({"command": command, "figures": found}) + "\n")
    return found


def chart(
    path: Path, lines: Mapping[str, Sequence[tuple[float, float, str]]], x_name: str, y_name: str
) -> None:
    """Draw named lines of (x, y, label) to an SVG.

    Raises:
        FileError: it can't be written.
    """
    series = [
        charts.Series(
            name,
            tuple(
                charts.Point(x, y, y, y, label, f"{name} {label}: {y:g}") for x, y, label in points
            ),
            TONES[i],
            i,
        )
        for i, (name, points) in enumerate(lines.items())
    ]
    files.write(path, charts.standalone(charts.scatter(series, x_name, y_name, 720, 380), series))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table in Markdown."""
    first, *others = (f"| {' | '.join(cells)} |" for cells in (head, *rows))
    return [first, "|---" * len(head) + "|", *others]
