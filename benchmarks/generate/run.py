"""Spiking generators beside an ANN at every sampler, step count and error budget."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from axonal.commands.demo import (
    ANN,
    SPIKING,
    TUNED,
    check,
    evaluate_all,
    report,
    sigma_delta_settings,
)
from axonal.generate.evaluation import Evaluation, Setting
from axonal.generate.quality import reference
from axonal.generate.runs import Interval, compare

from ..harness.bench import Run
from ..harness.page import shown, table
from ..harness.results import Figures, Results
from .evaluations import ratio_interval, saving_interval, stored

ANN_STEPS = (2, 4, 8, 16, 32, 64)

SAMPLERS = ("euler", "multistep", "heun")

BUDGETS = {0.2: (8, 16, 24), 0.22: (8,), 0.26: (8,)}  # error: steps

UNTUNED = {0.05: (64,), 0.15: (32,)}


def measure(*, run: Run, samples: int = 10_000, seed: int = 0) -> Results:
    """Generate digits in every way, at equal quality; hours.

    Each sampler, step count and error budget is a generation of its own.

    Args:
        run: where; it goes on from generations that are finished.
        samples: images of each generation.
        seed: of the noise.

    Raises:
        InputError: too few samples. FileError: the MNIST test set is missing, or a folder of the
            run can't be written.
    """
    check(samples, run.results, run.store)
    evaluated = evaluate_all(
        settings(), samples, seed, reference(ANN, data=True), partial(stored, store=run.store)
    )
    choice = compare([e.run for e in evaluated])
    compared = {"spiking": choice.spiking.name, "ann": choice.dense.name, "best": choice.best.name}
    report(run.results / "generate.html", evaluated, {**run.provenance, "samples": samples})
    figures = comparison(evaluated) | {"demo_seconds": _time_demo()}
    return {"figures": figures, "compared": compared, "samples": samples}


def settings() -> list[Setting]:
    """List every generation that is compared.

    The ANN that the sigma-delta network was tuned from and the tuned one, run densely, are both
    baselines: whichever is cheaper at a quality counts.
    """
    (dense,) = sigma_delta_settings([0.0])
    return (
        [
            Setting(generator=name, sampler=dense.sampler, steps=n, budget=budget)
            for name, table in ((ANN, UNTUNED), (TUNED, BUDGETS))
            for budget, counts in table.items()
            for n in counts
        ]
        + [Setting(generator=SPIKING, sampler="euler", steps=16)]
        + [dense]
        + [
            Setting(generator=ANN, sampler=name, steps=count)
            for count in ANN_STEPS
            for name in SAMPLERS
        ]
    )


def comparison(evaluated: Sequence[Evaluation]) -> Figures:
    """Figures of the generations: savings, distances and operations, by name."""
    choice = compare([e.run for e in evaluated])
    by_name = {e.run.name: e for e in evaluated}
    anns = [e for e in evaluated if e.run.family == "ann"]
    spiking, top = by_name[choice.spiking.name], by_name[choice.best.name]
    nearest = min((e for e in evaluated if e.run.family != "ann"), key=lambda e: e.run.fd.value)
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
    for generated in (e.run for e in evaluated):
        name = generated.name
        figures[f"fd [{name}]"] = generated.fd
        figures[f"precision [{name}]"] = generated.quality["precision"]
        figures[f"recall [{name}]"] = generated.quality["recall"]
        figures[f"mmac [{name}]"] = generated.work / 1e6
        if generated.skipping_work is not None:
            figures[f"mmac skipping zeros [{name}]"] = generated.skipping_work / 1e6
    return {name: _rounded(value) for name, value in figures.items() if value is not None}


def _time_demo() -> float:
    """Wall seconds of `axonal demo` in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        command = [sys.executable, "-m", "axonal", "demo", "--out", folder]
        # With all cores, as a user starts it, also from a bench that was given fewer.
        environment = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
        return round(time.monotonic() - began, 1)


def _rounded(value: float | Interval) -> float | dict[str, float]:
    if isinstance(value, Interval):
        parts = {"value": value.value, "low": value.low, "high": value.high}
        return {name: round(float(part), 5) for name, part in parts.items()}
    return round(float(value), 5)


SAVINGS = {
    "operations saved at equal quality": "saving_at_equal_quality",
    "… against an ANN that skips zeros": "saving_vs_zero_skipping",
    "its Fréchet distance / the best ANN's": "fd_ratio",
    "lowest spiking Fréchet distance / the best ANN's": "fd_ratio_best",
    "operations that this run saves": "saving_of_lowest_fd",
}


def tables(results: Results) -> dict[str, str]:
    """`savings`, and `runs`: operations and quality of the spiking runs and of the ANN's best."""
    figures, compared = results["figures"], results["compared"]
    rows = [[title, _saving(figures.get(key), key)] for title, key in SAVINGS.items()]
    rows.append(["seconds for `axonal demo`", f"{figures['demo_seconds']:.0f}"])
    names = [key[4:-1] for key in figures if key.startswith("fd [")]
    return {
        "savings": table(["", "figure (95 % interval)"], rows),
        "runs": table(
            ["run", "million operations an image", "… skipping zeros", "Fréchet distance"],
            [_run(figures, name, compared) for name in names if _is_shown(name, compared)],
        ),
    }


def _saving(figure: Any, key: str) -> str:
    if figure is None:
        return "no ANN run reaches this quality"
    if key.startswith("fd"):
        return shown(figure)
    value, interval = shown(figure, ".1f", 100).split(" ")
    return f"{value} % {interval}"


def _is_shown(name: str, compared: dict[str, str]) -> bool:
    """All spiking runs; of the ANN the multistep sampler, and what the others are compared with."""
    return name in compared.values() or name.startswith(
        ("sigma-delta", "spiking", "ANN tuned", "ANN, m")
    )


def _run(figures: Figures, name: str, compared: dict[str, str]) -> list[str]:
    skipping = figures.get(f"mmac skipping zeros [{name}]")
    bold = "**" if name == compared["spiking"] else ""
    return [
        f"{bold}{name}{bold}",
        f"{figures[f'mmac [{name}]']:.1f}",
        "–" if skipping is None else f"{skipping:.1f}",
        shown(figures[f"fd [{name}]"]),
    ]
