"""Training in two processes beside one, each with one thread; torchrun runs this file."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from axonal.core.errors import ProcessError
from axonal.learn.loop import fit
from axonal.learn.recipe import Recipe
from axonal.nn import LIF, Sequential

from ..harness.results import Figures
from ..harness.timing import ratio, spread, take_turns

STEPS, SKIPPED, BATCH, TIME, SIDE = 28, 4, 32, 8, 32  # the first steps compile kernels
# Buffers that go back to the system after every step would cost as much as the step.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"} | {
    f"MALLOC_{kind}_THRESHOLD_": str(1 << 32) for kind in ("MMAP", "TRIM")
}


def figures(rounds: int, seed: int = 0) -> Figures:
    """Compare the seconds of a step of one process with those of two, of the same batches.

    Each is started `rounds` times, in turn; `seed` is that of weights and images.

    Returns:
        The figures "ddp_speedup" and "seconds a step [processes]", each with its spread.

    Raises:
        ProcessError: a process failed, with its last words.
    """
    jobs = {count: lambda count=count: _seconds(count, seed) for count in (1, 2)}
    seconds = take_turns(jobs, rounds)
    steps = {f"seconds a step [{count}]": spread(own) for count, own in seconds.items()}
    return {"ddp_speedup": ratio(seconds[1], seconds[2])} | steps


def _seconds(count: int, seed: int) -> float:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={count}", "-m", __name__, str(seed)]
    options: dict[str, Any] = {"env": os.environ | ENVIRONMENT, "capture_output": True}
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.run([*command, folder], text=True, **options)
        if process.returncode:
            last = process.stderr.strip().splitlines()[-1:] or ["no message"]
            raise ProcessError(f"training with {count} processes failed: {last[0]}")
        return json.loads((Path(folder) / "seconds.json").read_text())


def _work(seed: int, folder: Path) -> None:
    def build() -> nn.Module:
        maps = nn.Conv2d(3, 32, 3, 1, 1), LIF(), nn.Conv2d(32, 64, 3, 2, 1), LIF()
        return Sequential(*maps, nn.Flatten(), nn.Linear(64 * (SIDE // 2) ** 2, 10))

    def data() -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        image = torch.randn(4 * BATCH, 3, SIDE, SIDE, generator=generator)
        return {"image": image, "label": torch.arange(4 * BATCH) % 10}

    def loss(network, batch, generator):
        began.append(time.perf_counter())
        logits = network(batch["image"].expand(TIME, *batch["image"].shape))[0].mean(0)
        return F.cross_entropy(logits, batch["label"]), {}

    began: list[float] = []
    options = {"steps": STEPS, "batch": BATCH, "seed": seed, "precision": "float32"}
    fit(Recipe(name="scaling", build=build, data=data, loss=loss, compile=False, **options), folder)
    if os.environ["RANK"] == "0":
        steps = [b - a for a, b in zip(began[SKIPPED:], began[SKIPPED + 1 :], strict=False)]
        (folder / "seconds.json").write_text(json.dumps(statistics.median(steps)))


if __name__ == "__main__":
    _work(int(sys.argv[1]), Path(sys.argv[2]))
