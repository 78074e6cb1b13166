"""The page about a generator: what its spiking form saves, and at what price."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from ..core import png
from ..core.meter import Counts
from ..energy import EVENT_STATE_BITS, PARTS, CostTable, break_even, datapath, price
from ..generate.runs import TOLERANCE, Comparison, Interval, Run, Saving, compare
from . import charts
from .page import page

REUSES = (1, 16, 64)
DATAPATHS = {8: "int8", 32: "fp32"}
TONES = {"ann": "ann", "sigma_delta": "delta", "trained_spiking": "spike"}
MARKS = {"ann": 0, "sigma_delta": 3, "trained_spiking": 2}
FAMILIES = {"ann": "ANN", "sigma_delta": "sigma-delta", "trained_spiking": "trained spiking"}
WIDE, NARROW = (1040, 500), (400, 430)
PICTURE = 16  # samples a picture


def html(
    runs: Sequence[Run],
    certificate: Mapping[str, Any],
    title: str,
    facts: Mapping[str, Any],
    seconds: Mapping[str, float] | None = None,
    table: CostTable | None = None,
) -> str:
    """The report as one HTML page that loads nothing.

    Args:
        runs: at least one ANN run and one spiking run.
        certificate: of the conversion: figures by name, and under "layers" a list of mappings
            with "name", "threshold", "error", "share"; anything may be missing.
        title: of the page.
        facts: machine, versions, seed, command, sample count: printed as they are.
        seconds: of one image made by itself, by what made it.
        table: prices of operators and memories; the shipped `cmos45` by default.
    """
    choice, table = compare(runs), datapath(table, tuple(DATAPATHS))
    return page(
        "generation.html.j2",
        {"interval": interval},
        title=title,
        choice=choice,
        energy_verdict=_energy_verdict(choice, table),
        numbers=_numbers(choice),
        samples=_samples(choice),
        quality=quality_chart(runs),
        steps=step_chart(choice.spiking, choice.dense),
        layers=_layers(choice, certificate),
        certificate=_certificate(certificate),
        energies=[_energies(choice, table, bits) for bits in DATAPATHS],
        break_evens=_break_evens(choice, table),
        seconds=seconds or {},
        table=table,
        state_bits=EVENT_STATE_BITS,
        parts=[part.replace("_", " ") for part in PARTS],
        runs=sorted(runs, key=lambda run: (run.family, run.name)),
        families=FAMILIES,
        facts=facts,
        tolerance=TOLERANCE,
    )


def interval(figure: Interval | None) -> str:
    """ "3.42 (3.10 to 3.80)", or a dash for what is not known."""
    if figure is None:
        return "–"
    return f"{figure.value:.2f} ({figure.low:.2f} to {figure.high:.2f})"


def picture(run: Run) -> Markup:
    """The first samples of a run as an inline PNG."""
    images = run.images[:PICTURE]
    if not len(images):
        return Markup("<p>no samples</p>")
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
        rank = list(TONES).index(run.family)
        steps = run.steps if changes else 0
        groups.setdefault((rank, run.family, kind, run.sampler, steps), []).append(run)
    series, used = [], dict.fromkeys(TONES, 0)
    for (_, family, kind, sampler, steps), members in sorted(groups.items(), key=lambda g: g[0]):
        points = tuple(_point(run) for run in sorted(members, key=lambda run: run.work))
        name = f"{kind}, {sampler}" + (f", {steps} steps" if steps else "")
        tone = f"{TONES[family]}-{used[family] % 3}"
        series.append(charts.Series(name, points, tone, MARKS[family] + used[family]))
        used[family] += 1
    names = "synaptic operations an image", "Fréchet distance"
    return {
        "legend": [(charts.key(one), one.name) for one in series],
        "charts": [charts.scatter(series, *names, *size) for size in (WIDE, NARROW)],
    }


def _point(run: Run) -> charts.Point:
    label = str(run.steps)
    if run.family == "sigma_delta":
        label = "" if run.budget is None else f"{run.budget:g}"
    title = f"{run.name}: FD {interval(run.fd)}, {charts.si(run.work)} operations"
    left = run.skipping_work or None
    return charts.Point(run.work, run.fd.value, run.fd.low, run.fd.high, label, title, left)


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


def _energy_verdict(choice: Comparison, table: CostTable) -> str:
    """Where the modelled energy agrees with the operations, int8, in a sentence."""
    reuses: dict[str, list[str]] = {}
    for reuse in REUSES:
        result = break_even(choice.spiking.counts, choice.dense.counts, table, reuse=reuse)
        reuses.setdefault(_outcome(result.verdict), []).append(str(reuse))
    text = "; ".join(f"{outcome} at R = {', '.join(where)}" for outcome, where in reuses.items())
    return f"Modelled energy (int8, ANN weights used R times a fetch): {text}."


def _outcome(text: str) -> str:
    """ "pays", "loses", "depends on the memory" or "unknown"."""
    if text.startswith("spiking"):
        return text.split()[1].rstrip(":")
    return "depends on the memory" if text.startswith("it depends") else "unknown"


def _numbers(choice: Comparison) -> list[tuple[str, str, str]]:
    """Big figures, each with its name and what it compares with."""

    def row(name: str, gain: Saving | None) -> tuple[str, str, str]:
        if gain is None:
            return "–", name, "no ANN run of this quality to compare with"
        sign = "−" if gain.saving < 0 else ""
        return f"{sign}{abs(gain.saving):.0%}", name, f"against {gain.baseline.name}"

    ratio = choice.spiking.fd.value / choice.best.fd.value if choice.best.fd.value else 1.0
    return [
        row("operations saved at equal quality", choice.equal),
        row("saved if the ANN skips zeros", choice.skipping),
        (f"{ratio:.2f}×", "Fréchet distance of the best ANN", f"that is {choice.best.name}"),
    ]


def _samples(choice: Comparison) -> list[dict[str, Any]]:
    """The runs whose samples are shown, each once, with its roles."""
    roles = [
        ("best ANN", choice.best),
        ("cheapest ANN of equal quality", choice.equal.baseline if choice.equal else None),
        ("spiking", choice.spiking),
        ("trained spiking core", choice.trained),
    ]
    panels: dict[str, dict[str, Any]] = {}
    for role, run in roles:
        if run is None:
            continue
        if run.name in panels:
            panels[run.name]["role"] += f", and {role}"
        else:
            panels[run.name] = {"role": role, "run": run, "picture": picture(run)}
    return list(panels.values())


def _layers(choice: Comparison, certificate: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows in order of execution; None where a row has no such figure."""
    run = choice.spiking.counts
    spikes, sites, work = (run.by_layer(field) for field in ("spikes", "sites", "synops"))
    dense = choice.dense.counts.by_layer("synops")
    thresholds = {
        str(layer["name"]): layer.get("threshold")
        for layer in _mappings(certificate)
        if "name" in layer
    }
    return [
        {
            "name": name,
            "sites": sites[name] or None,
            "events": spikes[name] if sites[name] else None,
            "share": spikes[name] / sites[name] if sites[name] else None,
            "dense": _same_layer(name, dense) or None,
            "spiking": work[name] if work[name] or _same_layer(name, dense) else None,
            "threshold": _figure(_same_layer(name, thresholds)),
        }
        for name in run.layers
    ]


def _same_layer(name: str, values: Mapping[str, Any]) -> Any:
    """The value under `name`, or under what stands behind the name of a wrapping module."""
    ends = [key for key in values if name == key or name.endswith(f".{key}")]
    return values[max(ends, key=len)] if ends else None


def _mappings(certificate: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [row for row in certificate.get("layers") or () if isinstance(row, Mapping)]


def _certificate(certificate: Mapping[str, Any]) -> dict[str, Any]:
    rows = _mappings(certificate)
    columns = list(dict.fromkeys(["name"] * bool(rows) + [str(key) for row in rows for key in row]))
    return {
        "figures": {key: _figure(v) for key, v in certificate.items() if key != "layers"},
        "columns": columns,
        "rows": [[_figure(row.get(column)) for column in columns] for row in rows],
    }


def _figure(value: Any) -> str:
    """A value of a certificate as text: numbers to three digits, a dash for what is missing."""
    if value is None:
        return "–"
    plain = isinstance(value, float | int) and not isinstance(value, bool)
    return f"{value:.3g}" if plain else str(value)


def _energies(choice: Comparison, table: CostTable, bits: int) -> dict[str, Any]:
    """Rows of one datapath: the ANN at every R, the ANN that skips zeros, the spiking runs."""
    listed = [
        (run, counts, reuse, bits, kind)
        for run, counts, kind in _baselines(choice)
        for reuse in REUSES
    ]
    events = {run.name: run for run in (choice.spiking, choice.trained) if run}
    listed += [
        (run, run.counts, 1, EVENT_STATE_BITS[bits], FAMILIES[run.family])
        for run in events.values()
    ]
    own = price(choice.spiking.counts, table, bits, 1, EVENT_STATE_BITS[bits]).total.nominal
    rows = []
    for run, counts, reuse, state_bits, kind in listed:
        energy = price(counts, table, bits, reuse, state_bits)
        total = energy.total
        row = {"name": run.name, "kind": kind, "reuse": reuse, "total": total}
        row["times"] = total.nominal / own if own else None
        row["parts"] = [part.nominal for part in energy.parts.values()]
        rows.append(row)
    most = max(row["total"].nominal for row in rows) or 1.0
    return {"datapath": DATAPATHS[bits], "rows": rows, "most": most}


def _break_evens(choice: Comparison, table: CostTable) -> list[dict[str, Any]]:
    """Rows of the headline run against each baseline, by datapath and R."""
    return [
        {
            "datapath": DATAPATHS[bits],
            "kind": kind,
            "reuse": reuse,
            "result": (result := break_even(choice.spiking.counts, counts, table, bits, reuse)),
            "outcome": _outcome(result.verdict),
        }
        for bits in DATAPATHS
        for _, counts, kind in _baselines(choice)
        for reuse in REUSES
    ]


def _baselines(choice: Comparison) -> list[tuple[Run, Counts, str]]:
    """The ANN runs to price, with what they executed and how."""
    rows = [(choice.dense, choice.dense.counts, "ANN, dense")]
    if choice.sparse is not None and choice.sparse.zero_skipping is not None:
        rows.append((choice.sparse, choice.sparse.zero_skipping, "ANN, zeros skipped"))
    return rows
