"""Drawings of results."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from axonal.core import files
from axonal.report import charts

TONES = ("ann-0", "delta-0", "spike-0", "delta-1", "spike-1")


def line_chart(
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
