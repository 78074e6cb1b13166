"""`axonal train`: a training by its name, with a line about the network that it leaves."""

import os
from pathlib import Path

from ..recipes import training
from .console import status


def train(name: str, out: Path | None, seed: int, device: str, tensorboard: bool) -> str:
    """Run a training, or go on with one; only the first process of torchrun tells the result."""
    folder = training.train(name, out or Path("runs") / name, seed, device, tensorboard, status)
    if os.environ.get("RANK", "0") != "0":
        return ""
    return f"Trained {name}: the network and its card lie in {folder.resolve()}."
