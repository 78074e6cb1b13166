"""Provenance of figures: machine, versions, seed and command."""

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any


def facts(command: str, seed: int) -> dict[str, Any]:
    """Machine, versions, seed and command of a run, as its results and its page state them."""
    names = ("axonal", "torch", "numpy", "numba")
    return {
        "machine": f"{_processor()}, {platform.system()} {platform.machine()}",
        "versions": {"python": platform.python_version()} | {n: version(n) for n in names},
        "seed": seed,
        "command": command,
    }


def _processor() -> str:
    """The processor's name, and the threads that torch uses of it."""
    import torch

    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), "CPU")
    return f"{model}, {torch.get_num_threads()} threads"
