"""What every method is given."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Setting:
    """Calibration data and what is asked for.

    Attributes:
        x: samples [N, ...], checked.
        steps: T.
        folder: where work under way is kept; None for nowhere.
    """

    x: Tensor
    steps: int
    folder: Path | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample."""
        return tuple(self.x.shape[1:])
