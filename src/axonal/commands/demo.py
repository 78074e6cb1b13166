"""`axonal demo`: the generators side by side, and a report with pictures."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..core import files, png
from ..core.errors import InputError
from ..data import ASSETS
from ..energy import CostTable, datapath, load
from ..generate import Generator
from ..generate.evaluation import Evaluation, Setting, evaluate
from ..generate.pretrained import read_certificates
from ..generate.quality import Reference, reference
from ..generate.runs import Comparison, compare
from ..report import generation
from ..report.provenance import facts
from .console import console

ANN, TUNED, SPIKING = "mnist", "mnist-sigma-delta", "mnist-spiking"
TITLE = "MNIST digits from a conventional and from a spiking generator"


def demo(out: Path, samples: int = 1000, seed: int = 0, table: str = "cmos45") -> str:
    """Generate, measure and price a handful of runs; write the report and the pictures to `out`.

    Raises:
        InputError: too few samples, or a table of a chip or without int8 and fp32. FileError:
            there is no such table, or `out` can't be written.
    """
    began = time.monotonic()
    costs = datapath(load(table), tuple(generation.DATAPATHS))
    check(samples, out)
    evaluations = evaluate_all(demo_settings(), samples, seed, reference(ANN))
    command = f"axonal demo --samples {samples} --seed {seed} --table {table}"
    about = facts(command, seed) | {"samples": samples}
    page = report(out / "report.html", evaluations, about, costs)
    choice = compare([evaluation.run for evaluation in evaluations])
    for name, run in (("ann", choice.dense), ("spiking", choice.spiking)):
        files.write(out / f"{name}.png", png.encode(png.grid(run.images, 10)))
    return (
        f"{choice.verdict} The report is {page.resolve()} (made in "
        f"{time.monotonic() - began:.0f} s). Distances of {samples} images and a few ANN runs are "
        "rough; in a clone, `python -m benchmarks generate` has them all."
    )


def demo_settings() -> list[Setting]:
    """A handful of runs that show the shape of the comparison."""
    ann = [("euler", 4), ("euler", 8), ("euler", 16), ("multistep", 8), ("multistep", 16)]
    tuned = sigma_delta_settings()
    return [
        *(Setting(generator=ANN, sampler=name, steps=count) for name, count in ann),
        *tuned,
        Setting(generator=SPIKING, sampler=tuned[0].sampler, steps=tuned[0].steps),
    ]


def sigma_delta_settings(budgets: Sequence[float] | None = None) -> list[Setting]:
    """The tuned generator with its own sampler and steps, at `budgets` or at all that it has."""
    about = read_certificates(ASSETS / TUNED)
    sampler, steps = about["sampler"], about["steps"]
    known = [certificate.budget for certificate in about["certificates"]]
    return [
        Setting(generator=TUNED, sampler=sampler, steps=steps, budget=budget)
        for budget in (known if budgets is None else budgets)
    ]


def check(samples: int, *folders: Path) -> None:
    """Check that there are enough samples and that the folders can be written.

    Raises:
        InputError: fewer than 100 samples. FileError: a folder can't be written.
    """
    if samples < 100:
        raise InputError(f"{samples} samples are too few to measure quality; take at least 100")
    for folder in folders:
        files.writable(folder)


def evaluate_all(
    settings: Sequence[Setting],
    samples: int,
    seed: int,
    real: Reference,
    evaluate: Callable[..., Evaluation] = evaluate,
) -> list[Evaluation]:
    """Evaluate each of `settings` by `evaluate`, with progress bars."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    evaluations = []
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        total = bar.add_task("all runs", total=len(settings))
        for setting in settings:
            task = bar.add_task(setting.name, total=samples)
            evaluations.append(
                evaluate(setting, samples, seed, real, lambda n, t=task: bar.advance(t, n))
            )
            if not console.is_terminal:
                console.print(f"{setting.name}: {samples:,} images made and measured")
            bar.remove_task(task)
            bar.advance(total)
    return evaluations


def report(
    path: Path,
    evaluations: Sequence[Evaluation],
    facts: dict[str, Any],
    table: CostTable | None = None,
) -> Path:
    """Write the page about runs of the generators, with the time that one image takes here.

    Raises:
        InputError: as `generation.html`. FileError: `path` can't be written.
    """
    runs = [evaluation.run for evaluation in evaluations]
    choice = compare(runs)
    rows = read_certificates(ASSETS / TUNED)["certificates"]
    certificate = next((c.to_dict() for c in rows if c.budget == choice.spiking.budget), {})
    page = generation.html(runs, certificate, TITLE, facts, _seconds(choice), table)
    return files.write(path, page)


def _seconds(choice: Comparison) -> dict[str, float]:
    """Seconds of one image by itself: by the ANN of the same quality, and by the spiking run."""
    base, own = choice.dense, choice.spiking
    ann = Generator.from_pretrained(ANN, 0)
    seconds = {f"{base.name}, torch": ann.seconds(base.steps, base.sampler)}
    for backend in ("torch", "engine") if own.family == "sigma_delta" else ():
        name = ANN if "untuned" in own.name else TUNED
        generator = Generator.from_pretrained(name, own.budget, backend)
        seconds[f"{own.name}, {backend}"] = generator.seconds(own.steps, own.sampler)
    return seconds
