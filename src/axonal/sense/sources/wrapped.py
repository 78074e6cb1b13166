"""What sources share that stand around another one."""

from typing import Any

from ..stream import Source


class Wrapped:
    """A source around another, with all that the other has and a subclass doesn't change.

    Attributes:
        source: the other.
        position: where the last packet ended that was handed on whole; of one that was cut, the
            parts taken before come once more after a restart.
    """

    dropped: int

    def __init__(self, source: Source):
        self.source, self.position = source, source.position
        self.width, self.height = source.width, source.height

    def __getattr__(self, name: str) -> Any:
        if name == "source":
            raise AttributeError(name)
        return getattr(self.source, name)

    def seek(self, position: int) -> None:
        """Goes on there; before iterating."""
        self.source.seek(position)
        self.position = position

    def close(self) -> None:
        """Ends the iteration, from any thread."""
        self.source.close()
