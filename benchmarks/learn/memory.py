"""Memory of a training step under each rule of learning, against the number of steps.

`python -m benchmarks.learn.memory RULE T` prints the bytes that one step adds at its peak.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.progress import track
from torch import nn

from axonal.core.errors import FileError
from axonal.learn.rules import rule_named
from axonal.nn import LIF, Sequential

from ..harness.results import Figures

RULES = {name: rule_named(name) for name in ("bptt", "sltt", "ottt", "e-prop")}
RULES |= {"truncated 10": rule_named("truncated", steps=10)}
STEPS = (10, 30, 100, 300, 1000)
WIDTH, LAYERS, BATCH = 200, 3, 32


def figures(threads: int = 1) -> Figures:
    """Measure what a training step adds, {"MB [rule, T n]"}, each in a process of its own.

    The network has three populations of 200 LIF neurons and reads out 10 classes, for 32 samples.
    The input and what backends load at their first call are not counted.

    Raises:
        FileError: a process died.
    """
    # What is freed goes back to the system: else it can't be told from memory in use.
    limits = dict.fromkeys(("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"), "131072")
    environment = os.environ | limits | {"OMP_NUM_THREADS": str(threads)}
    megabytes = {}
    for name, steps in track([(name, t) for name in RULES for t in STEPS], "memory of rules"):
        command = [sys.executable, "-m", __name__, name, str(steps)]
        process = subprocess.run(command, env=environment, capture_output=True, text=True)
        if process.returncode:
            last = process.stderr.strip()[-200:]
            raise FileError(f"the process that measures {name} died: {last}")
        megabytes[f"MB [{name}, T {steps}]"] = round(int(process.stdout) / 2**20, 2)
    return megabytes


def peak(name: str, steps: int) -> int:
    """Bytes that a training step of `steps` steps under the rule adds to this process, on Linux."""
    torch.manual_seed(0)
    hidden = [part for _ in range(LAYERS) for part in (nn.Linear(WIDTH, WIDTH), LIF(0.9))]
    network = Sequential(*hidden, nn.Linear(WIDTH, 10))
    x, label = (torch.rand(steps, BATCH, WIDTH) < 0.3).float(), torch.randint(10, (BATCH,))
    before = 0
    for part in (x[:2], x):  # the first call loads libraries and makes room for gradients
        network.zero_grad(set_to_none=False)
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = _memory("VmRSS")
        RULES[name](network, part, lambda y: F.cross_entropy(y.mean(0), label))[0].backward()
    return _memory("VmHWM") - before


def _memory(field: str) -> int:
    (kilobytes,) = re.findall(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return 1024 * int(kilobytes)


if __name__ == "__main__":
    print(peak(sys.argv[1], int(sys.argv[2])))  # noqa: T201
