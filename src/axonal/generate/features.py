"""Features of images, as a network sees them: what the quality measures compare.

A `Features` is a function from images [N, C, H, W] uint8 (numpy or torch) to [N, D] float64.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..core.errors import InputError
from ..data import ASSETS
from ..models.classifier import Classifier

Features = Callable[[np.ndarray | Tensor], np.ndarray]


def classifier_features(name: str = "mnist") -> Features:
    """The penultimate activations of the classifier that ships for the data set `name`.

    Raises:
        InputError: no classifier of that name ships. FileError: its files are damaged.
    """
    return network_features(Classifier.load(asset(name)))


def network_features(network: Classifier) -> Features:
    """The penultimate activations of `network`, in evaluation mode and on the device it is on.

    Returns:
        A `Features` for images of the network's shape; it raises InputError for others.
    """

    def features(images: np.ndarray | Tensor) -> np.ndarray:
        device, rows = network.head.weight.device, []
        with torch.inference_mode():
            for pixels in _batches(images, 500):
                x = pixels.to(device).float().div(127.5).sub(1)
                rows.append(network.features(x).double().cpu().numpy())
        return np.concatenate(rows)

    return features


def asset(name: str) -> Path:
    """The folder of the classifier that ships for the data set `name`.

    Raises:
        InputError: none ships.
    """
    folder = ASSETS / f"{name}-classifier"
    if not folder.is_dir():
        raise InputError(
            f"no classifier of {name!r} ships; pass `features`, as of `network_features`, with "
            "data=True"
        )
    return folder


def _batches(images: np.ndarray | Tensor, batch: int) -> Iterator[Tensor]:
    pixels = images.detach().cpu().numpy() if isinstance(images, Tensor) else np.asarray(images)
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1] not in (1, 3):
        raise InputError(
            f"images are {pixels.dtype} {pixels.shape}; they must be uint8 [N, C, H, W] "
            "with 1 or 3 channels"
        )
    if not len(pixels):
        raise InputError("images: there are none")
    for start in range(0, len(pixels), batch):
        yield torch.tensor(pixels[start : start + batch])
