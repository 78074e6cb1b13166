"""The charts and pictures of the report, from runs."""

from base64 import b64encode
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from ..core import png
from ..core.meter import Counts
from ..generate.runs import Interval, Run
from . import charts

TONES = {"ann": "ann", "sigma_delta": "delta", "trained_spiking": "spike"}
FAMILIES = {"ann": "ANN", "sigma_delta": "sigma-delta", "trained_spiking": "trained spiking"}
WIDE, NARROW = (1040, 500), (400, 430)
SHOWN = 16  # samples a picture


def interval(figure: Interval | None, digits: int = 2) -> str:
    """ "3.42 (3.10 to 3.80)", or a dash for what is not known."""
    if figure is None:
        return "–"
    return f"{figure.value:.{digits}f} ({figure.low:.{digits}f} to {figure.high:.{digits}f})"


def picture(run: Run) -> Markup:
    """Its first samples as an inline PNG."""
    images = run.images[:SHOWN]
    if not len(images):
        return Markup("<p>no samples kept</p>")
    data = b64encode(png.encode(png.grid(images, min(4, len(images))))).decode()
    return Markup('<img alt="samples of {}" src="data:image/png;base64,{}">').format(run.name, data)


def quality_chart(runs: Sequence[Run]) -> dict[str, Any]:
    """Frechet distance against work: a series a network and sampler, for sigma-delta a step count.

    Networks of one family go by what their runs' names say before the comma.
    """
    groups: dict[tuple, list[Run]] = {}
    for run in runs:
        changes = run.family == "sigma_delta"
        kind = FAMILIES[run.family] if changes else run.name.split(",")[0]
        steps = run.steps if changes else None
        groups.setdefault((run.family, kind, run.sampler, steps), []).append(run)
    series, used = [], dict.fromkeys(TONES, 0)
    for (family, kind, sampler, steps), members in sorted(groups.items(), key=_order):
        members = sorted(members, key=lambda run: run.work)
        rank = used[family]
        used[family] += 1
        name = f"{kind}, {sampler}" + (f", {steps} steps" if steps else "")
        points = tuple(_point(run) for run in members)
        series.append(
            charts.Series(name, points, f"{TONES[family]}-{rank % 3}", _mark(family, rank))
        )
    names = "synaptic operations an image", "Fréchet distance"
    return {
        "legend": [(charts.key(one), one.name) for one in series],
        "charts": [charts.scatter(series, *names, *size) for size in (WIDE, NARROW)],
    }


def step_chart(run: Run, dense: Run) -> dict[str, Any]:
    """Synaptic operations in each evaluation of the network: `run` as bars, `dense` as a line."""

    def series(counts: Counts, name: str, tone: str, mark: int = 0) -> charts.Series:
        return charts.Series(name, charts.by_step(counts.by_step("synops"), name), tone, mark)

    bars = series(run.counts, run.name, f"{TONES[run.family]}-0")
    lines = [series(dense.counts, dense.name, "ann-0")]
    if dense.zero_skipping is not None:
        lines.append(series(dense.zero_skipping, f"{dense.name}, zeros skipped", "ann-1", 1))
    names = "evaluation of the network", "synaptic operations"
    legend = [(charts.key(bars, True), bars.name)] + [(charts.key(one), one.name) for one in lines]
    return {
        "legend": legend,
        "charts": [charts.steps(bars, lines, *names, w, h - 140) for w, h in (WIDE, NARROW)],
    }


def _order(item: tuple[tuple, list[Run]]) -> tuple:
    family, kind, sampler, steps = item[0]
    return list(TONES).index(family), kind, sampler, steps or 0


def _mark(family: str, rank: int) -> int:
    return {"ann": 0, "sigma_delta": 3, "trained_spiking": 2}[family] + rank


def _point(run: Run) -> charts.Point:
    label = {
        "ann": str(run.steps),
        "sigma_delta": "" if run.budget is None else f"{run.budget:g}",
        "trained_spiking": str(run.steps),
    }[run.family]
    title = f"{run.name}: FD {interval(run.fd)}, {charts.si(run.work)} operations"
    skipped = run.skipping_work
    return charts.Point(
        run.work, run.fd.value, run.fd.low, run.fd.high, label, title, skipped or None
    )
