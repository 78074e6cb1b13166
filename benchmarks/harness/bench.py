"""What a bench is, and how it runs: measured, written as JSON, shown as a page."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from axonal.core import files
from axonal.core.errors import InputError
from axonal.report.provenance import facts

from . import results
from .results import Figures, Results

RESULTS, RUNS = Path("benchmarks/results"), Path("runs")
LEAST_ROUNDS = 3  # that have a spread


@dataclass(frozen=True)
class Run:
    """One run of a bench.

    Attributes:
        provenance: machine, versions, seed and command.
        results: folder of the results, for drawings.
        store: folder for what an interrupted run of this bench and seed goes on from.
        peers: folder of the other frameworks' environments.
    """

    provenance: Mapping[str, Any]
    results: Path
    store: Path
    peers: Path

    def measure(self, parts: Mapping[str, Callable[[], Figures]]) -> Figures:
        """Measure each part that an earlier run of this command hasn't finished.

        Raises:
            FileError: the store can't be written.
        """
        figures, command = {}, self.provenance["command"]
        for name, part in parts.items():
            figures |= results.cached(self.store / f"{name}.json", command, part)
        return figures


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A row of the table of benches.

    Attributes:
        name: of the command, of the results NAME.json, of the page NAME.md, and of its template
            NAME.md.j2, beside `measure`.
        measure: gets `run` and the bench's options by keyword, and returns its results. Its
            docstring is the command's help.
        tables: gets the results, and returns what the template names beside them: tables in
            Markdown, and what its sentences say.
    """

    name: str
    measure: Callable[..., Results]
    tables: Callable[[Results], Mapping[str, Any]]

    @property
    def options(self) -> list[inspect.Parameter]:
        """The options of the command, in order."""
        parameters = inspect.signature(self.measure).parameters.values()
        return [parameter for parameter in parameters if parameter.name != "run"]

    @property
    def template(self) -> Path:
        """The page's template."""
        return Path(inspect.getfile(self.measure)).parent / f"{self.name}.md.j2"

    def command(self, options: Mapping[str, Any]) -> str:
        """The command that measures with these options."""
        words = ["python -m benchmarks", self.name]
        for name, value in options.items():
            shown = f"{value:g}" if isinstance(value, float) else value
            words.append(f"--{name.replace('_', '-')} {shown}")
        return " ".join(words)


def perform(bench: Bench, out: Path = RESULTS, runs: Path = RUNS, **options: Any) -> Path:
    """Measure a bench and write its results, `NAME.json`, to `out`.

    Args:
        bench: which.
        out: folder of the results.
        runs: folder of environments and of what interrupted runs have finished.
        options: of the bench; the others have their defaults.

    Returns:
        The file.

    Raises:
        InputError: fewer rounds than have a spread, or as the bench. FileError: `out` can't be
            written, or as the bench.
    """
    options = {parameter.name: parameter.default for parameter in bench.options} | options
    if (rounds := options.get("rounds", LEAST_ROUNDS)) < LEAST_ROUNDS:
        raise InputError(f"{rounds} rounds have no spread; take at least {LEAST_ROUNDS}")
    files.writable(out)
    if "threads" in options:
        torch.set_num_threads(options["threads"])
    seed = options["seed"]
    run = Run(
        provenance=facts(bench.command(options), seed),
        results=out,
        store=runs / f"bench-{bench.name}" / f"seed-{seed}",
        peers=runs / "peers",
    )
    measured = bench.measure(run=run, **options)
    return results.write(out / f"{bench.name}.json", measured | run.provenance)
