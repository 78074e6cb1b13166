"""Consoles of the commands: results on standard output, messages and progress on standard error."""

from rich.console import Console, RenderableType
from rich.status import Status

# Brackets and colons in messages are paths and shapes, not markup.
console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)


def show(result: RenderableType) -> None:
    """Print a result, as wide as the terminal is now."""
    Console().print(result)


def status(text: str) -> Status:
    """A line that turns while work goes on, in a `with` statement."""
    return Status(text, console=console)
