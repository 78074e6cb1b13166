"""What a run shows and leaves while it goes on: its bar, its log, and how it is interrupted."""

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ..core import files
from ..core.extras import require

LOG = "log.jsonl"


def logged(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run's log, but for the half one that a kill can leave behind."""
    rows = []
    for line in (folder / LOG).read_text().splitlines():
        with suppress(ValueError):
            rows.append(json.loads(line))
    return rows


@contextmanager
def log(
    folder: Path, start: int, tensorboard: bool
) -> Iterator[Callable[[int, Mapping[str, Any]], None]]:
    """Appends rows to a run's log: a function of a step and its figures, or tables of them.

    Rows that an earlier run wrote from step `start` on go. With `tensorboard` the same figures
    are written into `folder/tensorboard`.

    Raises:
        FileError: the log can't be written. MissingExtra: TensorBoard is not installed.
    """
    path = folder / LOG
    board: Any = require("torch.utils.tensorboard", "track") if tensorboard else None
    board = board and board.SummaryWriter(str(folder / "tensorboard"), purge_step=start)
    earlier = logged(folder) if start and path.exists() else []
    kept = [row for row in earlier if row["step"] < start]
    files.write(path, "".join(json.dumps(row) + "\n" for row in kept))
    began = time.monotonic() - (kept[-1]["seconds"] if kept else 0)

    def write(step: int, figures: Mapping[str, Any]) -> None:
        seconds = round(time.monotonic() - began, 1)
        file.write(json.dumps({"step": step, **figures, "seconds": seconds}) + "\n")
        for name, value in figures.items() if board else ():
            for part, number in value.items() if isinstance(value, dict) else [("", value)]:
                board.add_scalar(f"{name}/{part}".rstrip("/"), number, step)

    with path.open("a", buffering=1) as file, board or nullcontext():
        yield write


@contextmanager
def interrupts() -> Iterator[list[int]]:
    """Makes Ctrl-C and SIGTERM wait for the end of a step, whose state is whole; but not twice.

    Off the main thread, where Python delivers no signals, it does nothing.
    """
    asked: list[int] = []

    def ask(number: int, _) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    main = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGINT, signal.SIGTERM) if main else ()
    before = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def bar(
    name: str, start: int, total: int, shown: bool
) -> Iterator[Callable[[Mapping[str, float]], None]]:
    """A progress bar: a function to call once a step with its figures; without, the last stay."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[note]}"), disable=not shown) as progress:
        task = progress.add_task(name, total=total, completed=start, note="")

        def advance(figures: Mapping[str, float]) -> None:
            if note := "  ".join(f"{name} {value:.4g}" for name, value in figures.items()):
                progress.update(task, note=note)
            progress.advance(task)

        yield advance
