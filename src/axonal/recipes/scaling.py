"""How much faster two processes train than one, each with one thread; torchrun runs this file."""

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

from ..core.errors import FileError
from ..learn.loop import Recipe, fit
from ..nn import LIF, Sequential
from .contest import spread

STEPS, SKIPPED, TIME, SIDE = 14, 4, 8, 32  # the first steps compile kernels


def ddp(rounds: int, seed: int = 0, batch: int = 32) -> dict[str, Any]:
    """Seconds of a step of one process over those of two, of the same batches.

    Args:
        rounds: how often each is started, in turn.
        seed: of weights and images.
        batch: samples of a step, over all processes.

    Returns:
        The figures "ddp_speedup" and "seconds a step [processes]", each with its spread.

    Raises:
        FileError: a process failed, with its last words.
    """
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        for count, found in seconds.items():
            found.append(_seconds(count, seed, batch))
    ratios = [one / two for one, two in zip(seconds[1], seconds[2], strict=True)]
    each = {f"seconds a step [{count}]": spread(found) for count, found in seconds.items()}
    return {"ddp_speedup": spread(ratios)} | each


def _seconds(count: int, seed: int, batch: int) -> float:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={count}", "-m", __name__, str(seed), str(batch)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    # Buffers that go back to the system after every step would cost as much as the step.
    environment |= {"MALLOC_MMAP_THRESHOLD_": "4294967296"}
    environment |= {"MALLOC_TRIM_THRESHOLD_": "68719476736"}
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {"env": environment, "capture_output": True, "text": True}
        done = subprocess.run([*command, folder], **options)
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:] or ["no message"]
            raise FileError(f"training with {count} processes failed: {last[0]}")
        return json.loads((Path(folder) / "seconds.json").read_text())


def _recipe(seed: int, batch: int, began: list[float]) -> Recipe:
    def build() -> nn.Module:
        maps = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 64, 3, 2, padding=1)
        last = nn.Linear(64 * (SIDE // 2) ** 2, 10)
        return Sequential(maps[0], LIF(), maps[1], LIF(), nn.Flatten(), last)

    def data() -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        image = torch.randn(4 * batch, 3, SIDE, SIDE, generator=generator)
        return {"image": image, "label": torch.arange(4 * batch) % 10}

    def loss(network, batch, generator):
        began.append(time.perf_counter())
        image = batch["image"]
        logits = network(image.expand(TIME, *image.shape))[0].mean(0)
        return F.cross_entropy(logits, batch["label"]), {}

    options = {"steps": STEPS, "batch": batch, "seed": seed, "precision": "float32"}
    return Recipe(name="scaling", build=build, data=data, loss=loss, compile=False, **options)


def _work(seed: int, batch: int, folder: Path) -> None:
    began: list[float] = []
    fit(_recipe(seed, batch, began), folder)
    if os.environ["RANK"] == "0":
        steps = [b - a for a, b in zip(began[SKIPPED:], began[SKIPPED + 1 :], strict=False)]
        (folder / "seconds.json").write_text(json.dumps(statistics.median(steps)))


if __name__ == "__main__":
    _work(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
