"""Charts as SVG text, without a plotting library: scatter with intervals, and bars by step.

Colours are CSS variables (`--ann-0`, `--delta-0`, ...), so that the page sets them for light and
dark; markers and dashes differ as well, so that no series is told by colour alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from markupsafe import Markup

GLYPH = 6.6  # mean width of a character at 12 px, in px
MARKERS = (  # corners around a point; none is a circle
    (),
    ((-4.5, -4.5), (4.5, -4.5), (4.5, 4.5), (-4.5, 4.5)),
    ((0, -5.8), (5.4, 4.2), (-5.4, 4.2)),
    ((0, -6.2), (6.2, 0), (0, 6.2), (-6.2, 0)),
)
DASHES = ("", "7 4", "2 4", "9 3 2 3")


@dataclass(frozen=True)
class Point:
    """A mark at (x, y) with an interval [low, high] in y.

    Attributes:
        label: a few characters beside the mark.
        title: what a pointer resting on it shows.
        left: a second x, drawn as an open mark tied to this one; None for none.
    """

    x: float
    y: float
    low: float
    high: float
    label: str
    title: str
    left: float | None = None


@dataclass(frozen=True)
class Series:
    """Points under one name: `tone` is a CSS variable, `mark` picks the marker and the dash."""

    name: str
    points: tuple[Point, ...]
    tone: str
    mark: int = 0


@dataclass
class _Axis:
    """A map of [low, high] to pixels, straight or in decades."""

    low: float
    high: float
    start: float
    end: float
    log: bool

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.log:
            value, low, high = math.log(max(value, low)), math.log(low), math.log(high)
        return self.start + (value - low) / (high - low) * (self.end - self.start)


@dataclass
class _Frame:
    """The plot's box, its axes, and the boxes that marks and labels take up."""

    width: int
    height: int
    x: _Axis
    y: _Axis
    taken: list[tuple[float, float, float, float]] = field(default_factory=list)

    def free(self, box: tuple[float, float, float, float]) -> bool:
        left, top, right, bottom = box
        if left < self.x.start or right > self.width or top < 0 or bottom > self.y.start:
            return False
        return all(
            right < other[0] or left > other[2] or bottom < other[1] or top > other[3]
            for other in self.taken
        )


def si(value: float, unit: str = "") -> str:
    """`value` to three digits with its SI prefix: 3.41e8 -> "341 M"; with unit "J", "341 MJ"."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g} {unit}".strip()
    power = min(4, max(-5, math.floor(math.log10(abs(value)) / 3 + 1e-12)))
    scaled = float(f"{value / 1000.0**power:.3g}")
    if abs(scaled) >= 1000 and power < 4:
        power, scaled = power + 1, scaled / 1000
    prefix = {-5: "f", -4: "p", -3: "n", -2: "µ", -1: "m", 0: "", 1: "k", 2: "M", 3: "G", 4: "T"}
    return f"{scaled:g} {prefix[power]}{unit}".strip()


def ticks(low: float, high: float, log: bool, most: int = 8) -> list[float]:
    """Round numbers within [low, high]: 1-2-5 steps, or on a log axis 1, 2, 5 (or 1) a decade."""
    if not log:
        rough = (high - low) / most or 1.0
        decade = 10.0 ** math.floor(math.log10(rough))
        step = next(decade * m for m in (1, 2, 5, 10) if decade * m >= rough)
        return [step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values: list[float] = []
    for digits in ((1, 2, 3, 4, 5, 6, 7, 8, 9), (1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        values = [d * 10.0**p for p in decades for d in digits if low <= d * 10.0**p <= high]
        if len(values) <= most:
            return values
    return values[:: math.ceil(len(values) / most)]


def scatter(
    series: Sequence[Series],
    x_name: str,
    y_name: str,
    width: int,
    height: int,
    straight: bool = False,
) -> Markup:
    """Series over a log x axis, lines between their points, whiskers for their intervals.

    The y axis is logarithmic when its values span more than a factor of five. If `straight`, both
    axes begin at 0 and are linear.
    """
    points = [point for one in series for point in one.points]
    lefts = [point.left for point in points if point.left]
    frame = _frame(
        [point.x for point in points] + lefts,
        [end for point in points for end in (point.y, point.low, point.high)],
        width,
        height,
        straight,
    )
    for point in points:
        x, y = frame.x(point.x), frame.y(point.y)
        frame.taken.append((x - 5, y - 5, x + 5, y + 5))
    parts = [_axes(frame, x_name, y_name)]
    for draw in (_line, _whiskers, _marks):
        parts += [draw(frame, one) for one in series]
    parts += [_labels(frame, one) for one in reversed(series)]
    return _svg(frame, f"{y_name} against {x_name}", parts)


def steps(
    bars: Series, lines: Sequence[Series], x_name: str, y_name: str, width: int, height: int
) -> Markup:
    """`bars` one a step from zero, with `lines` drawn over them as staircases; x = 1, 2, ..."""
    points = [point for one in (bars, *lines) for point in one.points]
    count = max(point.x for point in points)
    top = max(point.y for point in points) * 1.08 or 1.0
    x = _Axis(0.5, count + 0.5, 62, width - 14, False)
    frame = _Frame(width, height, x, _Axis(0, top, height - 48, 12, False))
    parts = [_axes(frame, x_name, y_name)]
    gap = 0.14 * (x(2) - x(1))
    for point in bars.points:
        left, upper = x(point.x - 0.5) + gap, frame.y(point.y)
        box = {"width": x(point.x + 0.5) - gap - left, "height": frame.y(0) - upper}
        title = _tag("title", point.title)
        parts.append(_tag("rect", title, x=left, y=upper, **box, rx=2, style=_fill(bars)))
    for one in lines:
        path = " ".join(
            f"{'L' if i else 'M'}{x(p.x - 0.5):.1f} {frame.y(p.y):.1f}H{x(p.x + 0.5):.1f}"
            for i, p in enumerate(one.points)
        )
        parts.append(_path(path, one))
    return _svg(frame, f"{y_name} in each {x_name}", parts)


def key(one: Series, bar: bool = False) -> Markup:
    """A little drawing of a series for a legend."""
    if bar:
        drawn = _tag("rect", x=8, y=1, width=12, height=12, rx=2, style=_fill(one))
    else:
        drawn = _path("M1 7H27", one)
        drawn += _mark(14, 7, one) if any(point.label for point in one.points) else ""
    return _tag("svg", drawn, class_="key", viewBox="0 0 28 14")


def by_step(values: np.ndarray, name: str) -> tuple[Point, ...]:
    """Points 1, 2, ... of a figure for each step."""
    return tuple(
        Point(i, float(v), float(v), float(v), "", f"{name}, step {i}: {si(float(v))}")
        for i, v in enumerate(values, 1)
    )


def _tag(name: str, *children: Markup | str, **attributes: str | float) -> Markup:
    """An SVG element; numbers with a fraction to a tenth of a pixel, text escaped."""
    text = Markup(f"<{name}")
    for attribute, value in attributes.items():
        digits = f"{value:.1f}" if isinstance(value, float) else value
        text += Markup(' {}="{}"').format(attribute.rstrip("_").replace("_", "-"), digits)
    if not children:
        return text + Markup("/>")
    return text + Markup(">{}</{}>").format(Markup("").join(children), Markup(name))


def _fill(one: Series) -> str:
    return f"fill:var(--{one.tone})"


def _frame(
    xs: list[float], ys: list[float], width: int, height: int, straight: bool = False
) -> _Frame:
    """The axes that hold all of `xs` and `ys`."""
    if straight:
        x = _Axis(0.0, 1.05 * max(xs), 62, width - 14, False)
        return _Frame(width, height, x, _Axis(0.0, 1.1 * max(ys), height - 48, 12, False))
    low, high = min(xs), max(xs)
    pad = max((high / low) ** 0.07, 1.12)
    x = _Axis(low / pad, high * pad, 62, width - 14, True)
    bottom, top = min(ys), max(ys)
    log = bottom > 0 and top / bottom > 5
    if log:
        y = _Axis(bottom / 1.12, top * 1.15, height - 48, 12, True)
    else:
        span = (top - bottom) or abs(top) or 1.0
        y = _Axis(max(0.0, bottom - 0.1 * span), top + 0.1 * span, height - 48, 12, False)
    return _Frame(width, height, x, y)


def _axes(frame: _Frame, x_name: str, y_name: str) -> Markup:
    x, y = frame.x, frame.y
    numbers = x.log or x.low == 0  # and not steps, which are counted from 1
    if numbers:
        places = ticks(x.low, x.high, x.log, max(4, int((x.end - x.start) / 85)))
    else:
        stride = max(1, math.ceil(x.high / max(4, (x.end - x.start) / 34)))
        places = [float(i) for i in range(1, int(x.high) + 1) if i == 1 or i % stride == 0]
    parts = []
    for at, number in ((x(value), si(value)) for value in places):
        rule = {"x1": at, "x2": at, "y1": y.start, "y2": y.end}
        parts.append(_tag("line", class_="grid" if numbers else "none", **rule))
        parts.append(_tag("text", number, x=at, y=y.start + 18, text_anchor="middle"))
    values = ticks(y.low, y.high, y.log, max(3, int((y.start - y.end) / 45)))
    for at, number in ((y(value), si(value)) for value in values):
        parts.append(_tag("line", class_="grid", x1=x.start, x2=x.end, y1=at, y2=at))
        parts.append(_tag("text", number, x=x.start - 8, y=at + 4, text_anchor="end"))
    line = {"x1": x.start, "x2": x.end, "y1": y.start, "y2": y.start}
    turned = f"translate(14 {y.end}) rotate(-90)"
    parts.append(_tag("line", class_="axis", **line))
    below = {"x": x.end, "y": frame.height - 8}
    parts.append(_tag("text", x_name, class_="name", **below, text_anchor="end"))
    parts.append(_tag("text", y_name, class_="name", transform=turned, text_anchor="end"))
    return Markup("").join(parts)


def _path(path: str, one: Series) -> Markup:
    stroke = {"style": f"stroke:var(--{one.tone})", "stroke_dasharray": DASHES[one.mark % 4]}
    return _tag("path", class_="line", d=path, **stroke)


def _line(frame: _Frame, one: Series) -> Markup:
    spots = " L".join(f"{frame.x(p.x):.1f} {frame.y(p.y):.1f}" for p in one.points)
    return _path(f"M{spots}", one)


def _whiskers(frame: _Frame, one: Series) -> Markup:
    parts = []
    for point in one.points:
        x, y = frame.x(point.x), frame.y(point.y)
        ends = frame.y(point.low), frame.y(point.high)
        path = f"M{x:.1f} {ends[0]:.1f}V{ends[1]:.1f}"
        path += "".join(f"M{x - 3:.1f} {end:.1f}h6" for end in ends)
        circle = Markup("")
        if point.left:
            left = frame.x(point.left)
            path += f"M{x:.1f} {y:.1f}H{left + 3:.1f}"
            circle = _tag("circle", class_="open", cx=left, cy=y, r=3)
        style = f"stroke:var(--{one.tone})"
        parts.append(_tag("g", _tag("path", d=path), circle, class_="whisker", style=style))
    return Markup("").join(parts)


def _marks(frame: _Frame, one: Series) -> Markup:
    return Markup("").join(
        _tag("g", _mark(frame.x(p.x), frame.y(p.y), one), _tag("title", p.title))
        for p in one.points
    )


def _mark(x: float, y: float, one: Series) -> Markup:
    about = {"class_": "mark", "style": _fill(one)}
    corners = MARKERS[one.mark % len(MARKERS)]
    if not corners:
        return _tag("circle", cx=float(x), cy=float(y), r=5, **about)
    return _tag(
        "polygon", points=" ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners), **about
    )


def _labels(frame: _Frame, one: Series) -> Markup:
    parts = []
    for point in one.points:
        x, y, wide = frame.x(point.x), frame.y(point.y), GLYPH * len(point.label)
        # Right above, left below, right below, left above; then higher and lower.
        for dx, dy in ((7, -6), (-7 - wide, 15), (7, 15), (-7 - wide, -6), (7, -18), (7, 27)):
            box = (x + dx, y + dy - 10, x + dx + wide, y + dy + 2)
            if point.label and frame.free(box):
                frame.taken.append(box)
                place = {"x": box[0], "y": y + dy}
                parts.append(_tag("text", point.label, class_="label", **place, style=_fill(one)))
                break
    return Markup("").join(parts)


def _svg(frame: _Frame, title: str, parts: Sequence[Markup]) -> Markup:
    box = f"0 0 {frame.width} {frame.height}"
    return _tag("svg", _tag("title", title), *parts, viewBox=box, role="img")
