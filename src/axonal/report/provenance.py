"""What results say of themselves: machine, versions, seed and command."""

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any


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
