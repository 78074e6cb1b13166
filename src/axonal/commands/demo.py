"""The generators side by side, in short (`axonal demo`) and in full (`axonal bench generate`)."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..core import files, png
from ..core.errors import InputError
from ..generate.evaluation import Evaluated, Setting, evaluate
from ..generate.features import ASSETS
from ..generate.pipeline import Generator
from ..generate.pretrained import read_certificates
from ..generate.quality import Reference, reference
from ..report import generation
from ..report.provenance import facts

ANN, TUNED, SPIKING = "mnist", "mnist-sigma-delta", "mnist-spiking"
TITLE = "MNIST digits from a conventional and from a spiking generator"


def demo_settings() -> list[Setting]:
    """A handful of runs that show the shape of the comparison."""
    ann = [("euler", 4), ("euler", 8), ("euler", 16), ("multistep", 8), ("multistep", 16)]
    sampler, steps, budgets = _converted()
    return (
        [Setting(generator=ANN, sampler=name, steps=count) for name, count in ann]
        + [_sigma_delta(sampler, steps, budget) for budget in budgets]
        + [Setting(generator=SPIKING, sampler=sampler, steps=steps)]
    )


def demo(out: Path, samples: int = 1000, seed: int = 0) -> str:
    """Generate, measure and price a handful of runs; write the report and the pictures to `out`.

    Returns:
        A sentence: what was achieved and where it lies.

    Raises:
        InputError: too few samples. FileError: `out` can't be written.
    """
    began = time.monotonic()
    _check(samples, out)
    found = _evaluate(demo_settings(), samples, seed, reference(ANN), None)
    command = f"axonal demo --samples {samples} --seed {seed}"
    page = _report(out / "report.html", found, facts(command, seed) | {"samples": samples})
    choice = generation.compare([e.run for e in found])
    for run in (choice.dense, choice.spiking):
        kind = "spiking" if run is choice.spiking else "ann"
        files.write(out / f"{kind}.png", png.encode(png.grid(run.images, 10)))
    took = time.monotonic() - began
    return (
        f"{generation.verdict(choice)} The report is {page.resolve()} (made in {took:.0f} s). "
        f"Distances of {samples} images and a few ANN runs are rough; "
        "`axonal bench generate` has them all."
    )


def _check(samples: int, *folders: Path) -> None:
    if samples < 100:
        raise InputError(f"{samples} samples are too few to measure quality; take at least 100")
    for folder in folders:
        files.writable(folder)


def _converted() -> tuple[str, int, list[float]]:
    found = read_certificates(ASSETS / TUNED)
    return found["sampler"], found["steps"], [c.budget for c in found["certificates"]]


def _sigma_delta(sampler: str, steps: int, budget: float) -> Setting:
    return Setting(generator=TUNED, sampler=sampler, steps=steps, budget=budget)


def _evaluate(
    settings: Sequence[Setting], samples: int, seed: int, real: Reference, store: Path | None
) -> list[Evaluated]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn()) as bar:
        whole = bar.add_task("all runs", total=len(settings))
        found = []
        for setting in settings:
            task = bar.add_task(setting.name, total=samples)
            found.append(
                evaluate(setting, samples, seed, real, store, lambda n, t=task: bar.advance(t, n))
            )
            bar.remove_task(task)
            bar.advance(whole)
    return found


def _report(path: Path, found: Sequence[Evaluated], facts: dict[str, Any]) -> Path:
    runs = [e.run for e in found]
    chosen = generation.compare(runs).spiking
    rows = read_certificates(ASSETS / TUNED)["certificates"]
    certificate = next((c.to_dict() for c in rows if c.budget == chosen.budget), {})
    return generation.write(path, runs, certificate, TITLE, facts, _alone(generation.compare(runs)))


def _alone(choice: generation.Comparison) -> dict[str, float]:
    """Seconds of an image made alone: by the ANN of the same quality, and by the spiking run."""
    base = choice.equal.baseline if choice.equal else choice.best
    own = choice.spiking
    found = {
        f"{base.name}, torch": Generator.from_pretrained(ANN, 0).seconds(base.steps, base.sampler)
    }
    for backend in ("torch", "engine") if own.family == "sigma_delta" else ():
        name = ANN if "untuned" in own.name else TUNED
        generator = Generator.from_pretrained(name, own.budget, backend)
        found[f"{own.name}, {backend}"] = generator.seconds(own.steps, own.sampler)
    return found
