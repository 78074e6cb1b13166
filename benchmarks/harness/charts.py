"""Drawings of results."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from markupsafe import Markup

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
    write(path, charts.scatter(series, x_name, y_name, 720, 380), series)


def write(path: Path, chart: Markup, series: Sequence[charts.Series]) -> None:
    """Write a chart as a file of its own, with its legend above it and the colours of the page.

    Raises:
        FileError: it can't be written.
    """
    style = (Path(charts.__file__).with_name("templates") / "chart.css").read_text()
    text, room = str(chart), 18 * len(series) + 10
    width, height = map(int, re.findall(r"\d+", text[: text.index(" role")])[2:])
    entry = Markup('<text x="20" y="{}" style="fill:var(--{})" class="label">{}</text>')
    legend = [entry.format(22 + 18 * i - room, s.tone, s.name) for i, s in enumerate(series)]
    start = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 {} {} {}" role="img">'
    plate = '<rect y="{}" width="100%" height="100%" style="fill:var(--card)"/>'
    head = start.format(-room, width, height + room) + f"<style>{style}</style>"
    body = text[text.index(">") + 1 :].replace("</svg>", "".join(legend) + "</svg>")
    files.write(path, f"{head}{plate.format(-room)}{body}\n")
