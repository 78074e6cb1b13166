"""Media: images, video, sound or text, as the pipeline has to know them."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn

from ..core.errors import InputError
from ..models.base import Model
from ..models.flow import FlowUNet
from .images import Images


class Medium(Protocol):
    """Samples between a network and people.

    `conditions` raises InputError for what there is not.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a sample as the network takes it."""
        ...

    def conditions(self, values: Sequence[int] | Tensor) -> Tensor:
        """The condition of each sample, [N, ...], as the network takes it, of a user's `values`."""
        ...

    def decode(self, x: Tensor) -> np.ndarray:
        """Samples [N, ...] as people take them, of the network's values x [N, ...]."""
        ...


# By the kind of the network, the medium of one such network.
MEDIA: dict[type[Model], Callable[[Any], Medium]] = {FlowUNet: Images.of}


def medium_of(model: nn.Module) -> Medium:
    """The medium that `model` generates.

    Raises:
        InputError: its kind is none of `MEDIA`.
    """
    for kind, medium in MEDIA.items():
        if isinstance(model, kind):
            return medium(model)
    known = ", ".join(kind.__name__ for kind in MEDIA)
    raise InputError(f"{type(model).__name__} is no generator; those are {known}")
