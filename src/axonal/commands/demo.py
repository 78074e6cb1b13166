"""The generators side by side, in short (`axonal demo`) and in full (`axonal bench generate`)."""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..core import files, png
from ..core.errors import InputError
from ..generate.evaluation import Evaluated, Setting, evaluate, ratio_interval, saving_interval
from ..generate.features import ASSETS
from ..generate.pipeline import Generator, read_certificates
from ..generate.quality import Reference, reference
from ..generate.runs import Interval
from ..report import generation

ANN, TUNED, SPIKING = "mnist", "mnist-sigma-delta", "mnist-spiking"
ANN_STEPS = (2, 4, 8, 16, 32, 64)
SAMPLERS = ("euler", "multistep", "heun")
BUDGETS = {0.2: (8, 16, 24), 0.22: (8,), 0.26: (8,)}  # error: steps
UNTUNED = {0.05: (64,), 0.15: (32,)}
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


def bench_settings() -> list[Setting]:
    """Every run behind the figures in the README.

    The ANN that the sigma-delta network was tuned from and the tuned one, run densely, are both
    baselines: whichever is cheaper at a quality counts.
    """
    sampler, steps, _ = _converted()
    return (
        [
            Setting(generator=name, sampler=sampler, steps=n, budget=budget)
            for name, table in ((ANN, UNTUNED), (TUNED, BUDGETS))
            for budget, counts in table.items()
            for n in counts
        ]
        + [Setting(generator=SPIKING, sampler="euler", steps=16)]
        + [_sigma_delta(sampler, steps, 0.0)]
        + [
            Setting(generator=ANN, sampler=name, steps=count)
            for count in ANN_STEPS
            for name in SAMPLERS
        ]
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


def bench(
    out: Path, samples: int = 10_000, seed: int = 0, store: Path = Path("runs/bench-generate")
) -> str:
    """Measure the README's figures and write `generate.json`, and the report, to `out`.

    Finished runs are kept in `store`, so that an interrupted bench goes on where it stopped.

    Returns:
        A sentence: what was achieved and where it lies.

    Raises:
        InputError: too few samples. FileError: the MNIST test set is missing, or `out` or
            `store` can't be written.
    """
    _check(samples, out, store)
    real = reference(ANN, data=True)
    found = _evaluate(bench_settings(), samples, seed, real, store)
    command = f"axonal bench generate --samples {samples} --seed {seed}"
    about = facts(command, seed) | {"samples": samples}
    figures = bench_figures(found) | {"demo_seconds": _time_demo()}
    choice = generation.compare([e.run for e in found])
    compared = {"spiking": choice.spiking.name, "ann": choice.dense.name, "best": choice.best.name}
    result = {"figures": figures, "compared": compared} | about
    path = files.write(out / "generate.json", json.dumps(result, indent=1) + "\n")
    _report(out / "generate.html", found, about)
    return f"{generation.verdict(choice)} Every figure lies in {path.resolve()}."


def bench_figures(found: Sequence[Evaluated]) -> dict[str, Any]:
    """The bench's figures by name: numbers, or {"value", "low", "high"}."""
    choice = generation.compare([e.run for e in found])
    by_name = {e.run.name: e for e in found}
    anns = [e for e in found if e.run.family == "ann"]
    spiking, top = by_name[choice.spiking.name], by_name[choice.best.name]
    nearest = min((e for e in found if e.run.family != "ann"), key=lambda e: e.run.fd.value)
    figures: dict[str, Any] = {
        "saving_at_equal_quality": saving_interval(spiking, anns),
        "saving_vs_zero_skipping": saving_interval(spiking, anns, skipping=True),
        "saving_of_lowest_fd": saving_interval(nearest, anns),
        "fd_ratio": ratio_interval(spiking, top),
        "fd_ratio_best": ratio_interval(nearest, top),
        "fd_ann_best": top.run.fd,
        "fd_spiking": spiking.run.fd,
        "fd_trained_spiking": choice.trained.fd if choice.trained else None,
    }
    for e in found:
        run = e.run
        figures[f"fd [{run.name}]"] = run.fd
        figures[f"precision [{run.name}]"] = run.quality["precision"]
        figures[f"recall [{run.name}]"] = run.quality["recall"]
        figures[f"mmac [{run.name}]"] = run.work / 1e6
        if run.skipping_work is not None:
            figures[f"mmac skipping zeros [{run.name}]"] = run.skipping_work / 1e6
    return {name: _plain(value) for name, value in figures.items() if value is not None}


def picture(name: str | Path, classes: Sequence[int], out: Path, **options: Any) -> str:
    """Generate `classes` with the generator `name`; write a PNG grid and a JSON of counts.

    Args:
        name: as `Generator.from_pretrained` takes it.
        classes: of the images.
        out: the PNG; the counts go beside it, ending in .json.
        options: "budget", "backend", and those of a `Generator` call.

    Returns:
        A sentence: what was made and where it lies.

    Raises:
        InputError, FileError: as `Generator`.
    """
    if out.suffix != ".png":
        raise InputError(f"{out} is no name for a picture; let it end in .png")
    files.writable(out.parent)
    backend = options.pop("backend", "torch")
    generator = Generator.from_pretrained(name, options.pop("budget", None), backend)
    made = generator(classes, **options)
    files.write(out, png.encode(png.grid(made.images, 10)))
    about = {
        "generator": str(name),
        "classes": list(classes),
        "backend": backend,
        "seconds": made.seconds,
        "an_image": made.counts.totals(),
        "counts": made.counts.to_dict(),
    }
    counts = files.write(out.with_suffix(".json"), json.dumps(about) + "\n")
    work = made.counts.total("synops") / 1e6
    return (
        f"{len(made.images)} images at {work:.1f} million synaptic operations and "
        f"{1000 * made.seconds / len(made.images):.0f} ms each, by {backend}: "
        f"{out.resolve()}, counts in {counts.name}."
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


def facts(command: str, seed: int) -> dict[str, Any]:
    """What a bench's results say of themselves: machine, versions, seed and command."""
    names = ("axonal", "torch", "numpy", "numba")
    return {
        "machine": f"{_processor()}, {platform.system()} {platform.machine()}",
        "versions": {"python": platform.python_version()} | {n: version(n) for n in names},
        "seed": seed,
        "command": command,
    }


def _processor() -> str:
    import torch

    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), "CPU")
    return f"{model}, {torch.get_num_threads()} threads"


def _time_demo() -> float:
    """Wall seconds of `axonal demo` in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        command = [sys.executable, "-m", "axonal.cli", "demo", "--out", folder]
        # With all cores, as a user starts it, also from a bench that was given fewer.
        environment = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
        return round(time.monotonic() - began, 1)


def _plain(value: Any) -> Any:
    if isinstance(value, Interval):
        parts = {"value": value.value, "low": value.low, "high": value.high}
        return {name: round(float(part), 5) for name, part in parts.items()}
    return round(float(value), 5)
