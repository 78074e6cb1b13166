"""The log, the progress bar and the interruption of a training."""

import itertools
import json
import signal
import sys
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
PARTS = 20  # of a run that is written to a file


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The rows of a training's log, but for the half one that a kill can leave behind."""
    rows = []
    for line in (folder / LOG).read_text().splitlines():
        with suppress(ValueError):
            rows.append(json.loads(line))
    return rows


@contextmanager
def log(
    folder: Path, start: int, tensorboard: bool
) -> Iterator[Callable[[int, Mapping[str, Any]], None]]:
    """Open the log of a training.

    Rows that an earlier run wrote from step `start` on go. With `tensorboard` the same figures
    are written into `folder/tensorboard`.

    Returns:
        A function that appends a row: of a step and its figures, or tables of them.

    Raises:
        FileError: the log can't be written. MissingExtra: TensorBoard is not installed.
    """
    path = folder / LOG
    board: Any = require("torch.utils.tensorboard", "track") if tensorboard else None
    board = board and board.SummaryWriter(str(folder / "tensorboard"), purge_step=start)
    earlier = read_log(folder) if start and path.exists() else []
    earlier = [row for row in earlier if row["step"] < start]
    files.write(path, "".join(json.dumps(row) + "\n" for row in earlier))
    began = time.monotonic() - (earlier[-1]["seconds"] if earlier else 0)

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
    """Let Ctrl-C and SIGTERM wait for the end of a step, whose state is complete; but not twice.

    Off the main thread, where Python delivers no signals, it does nothing.

    Returns:
        The list that a signal's number is appended to.
    """
    signals: list[int] = []

    def handle(number: int, _) -> None:
        if signals:
            raise KeyboardInterrupt
        signals.append(number)

    main = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGINT, signal.SIGTERM) if main else ()
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def progress_bar(
    name: str, start: int, total: int, shown: bool
) -> Iterator[Callable[[Mapping[str, float]], None]]:
    """Show a progress bar; where that can't be seen, a line for each of `PARTS` parts.

    Returns:
        A function to call once a step with its figures; without, the last ones stay.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[note]}"), disable=not shown) as progress:
        task = progress.add_task(name, total=total, completed=start, note="")
        done, unseen = itertools.count(start + 1), shown and not progress.console.is_terminal

        def advance(figures: Mapping[str, float]) -> None:
            step = next(done)
            if note := "  ".join(f"{name} {value:.4g}" for name, value in figures.items()):
                progress.update(task, note=note)
            if unseen and step * PARTS % total < PARTS:
                sys.stderr.write(f"{name}: step {step:,} of {total:,}  {note}\n")
            progress.advance(task)

        yield advance
