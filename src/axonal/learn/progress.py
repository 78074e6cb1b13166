"""What a run shows and leaves while it goes on: its bar, its log, and how it is interrupted."""

import json
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ..core import files
from ..core.extras import require

LOG, EVENTS = "log.jsonl", "tensorboard"


class Log:
    """Appends JSON lines to `folder/log.jsonl`; what an earlier run wrote after `start` goes.

    Args:
        folder: of the run.
        start: the first step of this one.
        tensorboard: write the same figures for TensorBoard into `folder/tensorboard`.

    Raises:
        FileError: the log can't be written. MissingExtra: TensorBoard is not installed.
    """

    def __init__(self, folder: Path, start: int, tensorboard: bool):
        self.path = folder / LOG
        board: Any = require("torch.utils.tensorboard", "track") if tensorboard else None
        self.board = board and board.SummaryWriter(str(folder / EVENTS), purge_step=start)
        lines = self.path.read_text().splitlines() if start and self.path.exists() else []
        kept = [line for line in lines if 0 <= _step_of(line) < start]
        self.before = float(json.loads(kept[-1]).get("seconds", 0.0)) if kept else 0.0
        files.write(self.path, "".join(line + "\n" for line in kept))

    def __enter__(self):
        self.file, self.began = self.path.open("a", buffering=1), time.monotonic()
        return self

    def __call__(self, step: int, figures: Mapping[str, Any]) -> None:
        """Write a line of figures, some of them a table themselves."""
        seconds = round(self.before + time.monotonic() - self.began, 1)
        self.file.write(json.dumps({"step": step, **figures, "seconds": seconds}) + "\n")
        for name, value in figures.items() if self.board else ():
            parts = value if isinstance(value, dict) else {"": value}
            for part, number in parts.items():
                self.board.add_scalar(f"{name}/{part}".rstrip("/"), number, step)

    def __exit__(self, *_):
        self.file.close()
        if self.board:
            self.board.close()


def _step_of(line: str) -> int:
    """The step of a line of the log, or -1: a run that is killed can leave half a line behind."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return -1


class Interrupt:
    """Lets Ctrl-C or SIGTERM wait for the end of a step, whose state is whole; not a second time.

    Off the main thread, where Python delivers no signals, it does nothing.
    """

    def __init__(self):
        self.asked, self.before = False, {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.before[number] = signal.signal(number, self._ask)
        return self

    def _ask(self, *_):
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def __exit__(self, *_):
        for number, handler in self.before.items():
            signal.signal(number, handler)


class Bar:
    """A rich progress bar as a function to call once a step with its figures."""

    def __init__(self, name: str, start: int, total: int, shown: bool):
        columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        self.bar = Progress(*columns, TextColumn("{task.fields[note]}"), disable=not shown)
        self.task = self.bar.add_task(name, total=total, completed=start, note="")

    def __enter__(self):
        self.bar.start()
        return self

    def __call__(self, figures: Mapping[str, float]) -> None:
        """Go on by a step; without figures the last ones stay."""
        if note := "  ".join(f"{name} {value:.4g}" for name, value in figures.items()):
            self.bar.update(self.task, note=note)
        self.bar.advance(self.task)

    def __exit__(self, *_):
        self.bar.stop()
