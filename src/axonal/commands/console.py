"""Consoles of the commands: results on standard output, messages and progress on standard error."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.status import Status

# Brackets and colons in messages are paths and shapes, not markup.
console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)


def show(result: RenderableType) -> None:
    """Print a result, as wide as the terminal is now."""
    Console().print(result)


@contextmanager
def status(text: str) -> Iterator[None]:
    """A line that turns while work goes on; in a file, one as it begins and one as it ends."""
    if console.is_terminal:
        with Status(text, console=console):
            yield
        return
    console.print(f"{text} ...")
    begin = time.monotonic()
    yield
    console.print(f"{text}: done in {time.monotonic() - begin:.1f} s")
