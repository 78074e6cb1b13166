"""Every sampler, step count and error budget of the generators."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
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
from axonal.core import files
from axonal.generate.evaluation import Evaluation, Setting, ratio_interval, saving_interval
from axonal.generate.quality import reference
from axonal.generate.runs import Interval, compare
from axonal.report.provenance import facts

ANN_STEPS = (2, 4, 8, 16, 32, 64)

SAMPLERS = ("euler", "multistep", "heun")

BUDGETS = {0.2: (8, 16, 24), 0.22: (8,), 0.26: (8,)}  # error: steps

UNTUNED = {0.05: (64,), 0.15: (32,)}


def bench_settings() -> list[Setting]:
    """Every run behind the figures in the README.

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
    check(samples, out, store)
    real = reference(ANN, data=True)
    found = evaluate_all(bench_settings(), samples, seed, real, store)
    command = f"axonal bench generate --samples {samples} --seed {seed}"
    about = facts(command, seed) | {"samples": samples}
    figures = bench_figures(found) | {"demo_seconds": _time_demo()}
    choice = compare([e.run for e in found])
    compared = {"spiking": choice.spiking.name, "ann": choice.dense.name, "best": choice.best.name}
    result = {"figures": figures, "compared": compared} | about
    path = files.write(out / "generate.json", json.dumps(result, indent=1) + "\n")
    report(out / "generate.html", found, about)
    return f"{choice.verdict} Every figure lies in {path.resolve()}."


def bench_figures(found: Sequence[Evaluation]) -> dict[str, Any]:
    """The bench's figures by name: numbers, or {"value", "low", "high"}."""
    choice = compare([e.run for e in found])
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
