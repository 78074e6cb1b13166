"""One self-contained HTML page: what the spiking generator saves, and at what price."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..core import files
from ..core.errors import InputError
from ..energy.price import EVENT_STATE_BITS, PARTS, break_even, price
from ..energy.tables import Table, load
from ..generate.runs import Run, Saving, best, saving
from . import figures
from .charts import si
from .figures import interval

TOLERANCE = 1.05  # Frechet distances within this factor are of equal quality
REUSES = (1, 16, 64)
DATAPATHS = {8: "int8", 32: "fp32"}


@dataclass(frozen=True)
class Comparison:
    """The runs that the report is about.

    Attributes:
        spiking: the spiking run that saves most at equal quality; where every one is better than
            all ANN runs, the spiking run with the lowest Frechet distance.
        best: the ANN run with the lowest Frechet distance.
        equal: against the cheapest ANN run of the spiking run's quality; None: none reaches it.
        skipping: the same against ANNs that skip zero activations.
        trained: the best run of the trained spiking core, if there is one.
    """

    spiking: Run
    best: Run
    equal: Saving | None
    skipping: Saving | None
    trained: Run | None

    @property
    def dense(self) -> Run:
        """The ANN run to compare with: equal in quality, else the best there is."""
        return self.equal.baseline if self.equal else self.best

    @property
    def sparse(self) -> Run | None:
        """The ANN run that skips zeros; None when no run's zeros were counted."""
        if self.skipping:
            return self.skipping.baseline
        return self.best if self.best.zero_skipping is not None else None


def compare(runs: Sequence[Run]) -> Comparison:
    """Choose what to compare.

    Raises:
        InputError: no ANN run, no spiking run, two runs of one name, or one without operations.
    """
    anns = [run for run in runs if run.family == "ann"]
    spiking = [run for run in runs if run.family != "ann"]
    if not anns or not spiking:
        raise InputError(f"report: {len(anns)} ANN and {len(spiking)} spiking runs; give both")
    if len({run.name for run in runs}) < len(runs):
        raise InputError("report: two runs have the same name; names must tell them apart")
    if idle := [run.name for run in runs if run.work == 0]:
        raise InputError(f"report: {idle[0]} counts no synaptic operations; meter the run")
    top = best(anns)
    savings = [(found.saving, run) for run in spiking if (found := saving(run, anns, TOLERANCE))]
    chosen = max(savings, key=lambda pair: pair[0])[1] if savings else best(spiking)
    trained = [run for run in spiking if run.family == "trained_spiking"]
    return Comparison(
        chosen,
        top,
        saving(chosen, anns, TOLERANCE),
        saving(chosen, anns, TOLERANCE, skipping=True),
        best(trained) if trained else None,
    )


def render(
    runs: Sequence[Run],
    certificate: Mapping[str, Any],
    title: str,
    facts: Mapping[str, Any],
    alone: Mapping[str, float] | None = None,
) -> str:
    """The report as one HTML page that loads nothing.

    Args:
        runs: at least one ANN run and one spiking run.
        certificate: of the conversion: figures by name, and under "layers" a list of mappings
            with "name", "threshold", "error", "share"; anything may be missing.
        title: of the page.
        facts: machine, versions, seed, command, sample count: printed as they are.
        alone: seconds of one image made alone, by what made it.

    Raises:
        InputError: as `compare`.
    """
    choice, table = compare(runs), load()
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"si": si, "interval": interval}
    return environment.get_template("generation.html.j2").render(
        title=title,
        choice=choice,
        verdict=verdict(choice),
        energy_verdict=_energy_verdict(choice),
        numbers=_numbers(choice),
        samples=_samples(choice),
        quality=figures.quality_chart(runs),
        steps=figures.step_chart(choice.spiking, choice.dense),
        layers=_layers(choice, certificate),
        certificate=_certificate(certificate),
        energies=[_energies(choice, table, bits) for bits in DATAPATHS],
        break_evens=_break_evens(choice, table),
        alone=alone or {},
        table=table,
        state_bits=EVENT_STATE_BITS,
        parts=[part.replace("_", " ") for part in PARTS],
        runs=sorted(runs, key=lambda run: (run.family, run.name)),
        families=figures.FAMILIES,
        facts=facts,
        tolerance=TOLERANCE,
    )


def write(
    path: str | Path,
    runs: Sequence[Run],
    certificate: Mapping[str, Any],
    title: str,
    facts: Mapping[str, Any],
    alone: Mapping[str, float] | None = None,
) -> Path:
    """Write what `render` makes to `path`.

    Raises:
        InputError: as `render`. FileError: `path` can't be written.
    """
    return files.write(path, render(runs, certificate, title, facts, alone))


def verdict(choice: Comparison) -> str:
    """The result in a sentence or two; it may be that spiking loses."""
    run, fd = choice.spiking, choice.spiking.fd.value
    if choice.equal is None:
        ratio = run.work / choice.best.work
        return (
            f"No ANN run reaches the quality of {run.name} (FD {fd:.2f}): it is better than every "
            f"one of them. Of the best, {choice.best.name} (FD {choice.best.fd.value:.2f}), it "
            f"needs {ratio:.0%} of the synaptic operations."
        )
    base, gain = choice.equal.baseline, choice.equal.saving
    head = "Spiking pays in operations" if gain > 0 else "Spiking loses in operations"
    text = (
        f"{head}: {run.name} (FD {fd:.2f}) needs {1 - gain:.0%} of the synaptic operations of "
        f"{base.name} (FD {base.fd.value:.2f}), the cheapest ANN run of its quality."
    )
    if choice.skipping is None:
        return text
    rest = choice.skipping.saving
    against = "saves" if rest > 0 else "loses"
    return f"{text} Against an ANN that skips its zero activations it {against} {abs(rest):.0%}."


def _energy_verdict(choice: Comparison) -> str:
    """Where the modelled energy agrees with the operations, int8, in a sentence."""
    found: dict[str, list[str]] = {}
    for reuse in REUSES:
        result = break_even(choice.spiking.counts, choice.dense.counts, reuse=reuse)
        found.setdefault(_outcome(result.verdict), []).append(str(reuse))
    told = "; ".join(f"{outcome} at R = {', '.join(where)}" for outcome, where in found.items())
    return f"Modelled energy (int8, ANN weights used R times a fetch): {told}."


def _outcome(text: str) -> str:
    """ "pays", "loses", "depends on the memory" or "unknown"."""
    if text.startswith("spiking"):
        return text.split()[1].rstrip(":")
    return "depends on the memory" if text.startswith("it depends") else "unknown"


def _numbers(choice: Comparison) -> list[tuple[str, str, str]]:
    """Big figure, what it is, and what it compares with."""

    def row(what: str, found: Saving | None) -> tuple[str, str, str]:
        if found is None:
            return "–", what, "no ANN run of this quality to compare with"
        sign = "−" if found.saving < 0 else ""
        return f"{sign}{abs(found.saving):.0%}", what, f"against {found.baseline.name}"

    ratio = choice.spiking.fd.value / choice.best.fd.value if choice.best.fd.value else 1.0
    return [
        row("operations saved at equal quality", choice.equal),
        row("saved if the ANN skips zeros", choice.skipping),
        (f"{ratio:.2f}×", "Fréchet distance of the best ANN", f"that is {choice.best.name}"),
    ]


def _samples(choice: Comparison) -> list[dict[str, Any]]:
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
            panels[run.name] = {"role": role, "run": run, "picture": figures.picture(run)}
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
    """Any value of a certificate: numbers to three digits, a dash for what is missing."""
    if value is None:
        return "–"
    plain = isinstance(value, float | int) and not isinstance(value, bool)
    return f"{value:.3g}" if plain else str(value)


def _energies(choice: Comparison, table: Table, bits: int) -> dict[str, Any]:
    """Rows of one datapath: the ANN at every R, the ANN that skips zeros, the spiking runs."""
    listed = [
        (run, counts, reuse, bits, kind)
        for run, counts, kind in _baselines(choice)
        for reuse in REUSES
    ]
    events = {run.name: run for run in (choice.spiking, choice.trained) if run}
    listed += [
        (run, run.counts, 1, EVENT_STATE_BITS[bits], figures.FAMILIES[run.family])
        for run in events.values()
    ]
    own = price(choice.spiking.counts, table, bits, 1, EVENT_STATE_BITS[bits]).total.nominal
    rows = []
    for run, counts, reuse, state_bits, kind in listed:
        energy = price(counts, table, bits, reuse, state_bits)
        total = energy.total
        rows.append(
            {
                "name": run.name,
                "kind": kind,
                "reuse": reuse,
                "total": total,
                "times": total.nominal / own if own else None,
                "parts": [part.nominal for part in energy.parts.values()],
                "energy": energy,
            }
        )
    return {
        "datapath": DATAPATHS[bits],
        "bits": bits,
        "rows": rows,
        "most": max(row["total"].nominal for row in rows) or 1.0,
    }


def _break_evens(choice: Comparison, table: Table) -> list[dict[str, Any]]:
    return [
        {
            "datapath": DATAPATHS[bits],
            "kind": kind,
            "reuse": reuse,
            "result": (found := break_even(choice.spiking.counts, counts, table, bits, reuse)),
            "outcome": _outcome(found.verdict),
        }
        for bits in DATAPATHS
        for _, counts, kind in _baselines(choice)
        for reuse in REUSES
    ]


def _baselines(choice: Comparison) -> list[tuple[Run, Any, str]]:
    rows = [(choice.dense, choice.dense.counts, "ANN, dense")]
    if choice.sparse is not None and choice.sparse.zero_skipping is not None:
        rows.append((choice.sparse, choice.sparse.zero_skipping, "ANN, zeros skipped"))
    return rows
