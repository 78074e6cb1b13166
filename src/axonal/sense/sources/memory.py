"""What sources and encoders share that remember, or stand around another source."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...core.errors import InputError
from ..stream import Source, State


class Memory:
    """Arrays, named in `_kept`, as the state of an object."""

    _kept: tuple[str, ...]

    def state(self) -> State:
        """What it remembers."""
        return {name: getattr(self, name).copy() for name in self._kept}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on as the one did that `state` is from.

        Raises:
            InputError: that had another configuration.
        """
        found = {name: np.asarray(state.get(name)) for name in self._kept}
        for name, value in found.items():
            mine = getattr(self, name)
            if mine.dtype != value.dtype or mine.shape != value.shape:
                raise InputError(f"{type(self).__name__}: the state's {name} doesn't fit")
        for name, value in found.items():
            setattr(self, name, value.copy())


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
