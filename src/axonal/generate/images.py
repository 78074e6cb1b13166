"""Images of classes, as a medium of the pipeline."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from ..core.errors import InputError
from ..models.flow import FlowUNet


@dataclass(frozen=True)
class Images:
    """Square images: [C, H, W] in -1 to 1 for a network, uint8 for people; and their classes."""

    channels: int
    size: int
    classes: int

    @classmethod
    def of(cls, model: FlowUNet) -> Self:
        """The images that `model` generates."""
        return cls(model.config.channels, model.config.size, model.config.classes)

    @property
    def shape(self) -> tuple[int, ...]:
        """[C, H, W] of an image."""
        return self.channels, self.size, self.size

    def conditions(self, values: Sequence[int] | Tensor) -> Tensor:
        """The classes [N] of images, int64; of one image, the number will do.

        Raises:
            InputError: no classes, or one out of range.
        """
        try:
            labels = torch.as_tensor(values)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"classes are whole numbers, as [3, 1, 4]; not {values!r}") from error
        labels = labels[None] if not labels.dim() else labels
        if labels.dim() != 1 or not len(labels) or labels.is_floating_point():
            raise InputError("classes must be a list of at least one class number")
        if labels.min() < 0 or labels.max() >= self.classes:
            wrong = int(labels[(labels < 0) | (labels >= self.classes)][0])
            raise InputError(f"class {wrong} does not exist; classes are 0 to {self.classes - 1}")
        return labels.long()

    def decode(self, x: Tensor) -> np.ndarray:
        """Images [N, C, H, W] uint8 of values `x` [N, C, H, W]."""
        return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy()
