"""Training runs of the image generators."""

import torch

from ..data.images import DATASETS
from ..learn import losses
from ..learn.loop import Batch, Recipe
from ..models.flow import FlowConfig, FlowUNet


def _images(name: str, split: str = "train") -> Batch:
    images = DATASETS[name](split)
    pixels = torch.from_numpy(images.pixels).float().div(127.5).sub(1)
    return {"image": pixels, "label": torch.from_numpy(images.labels)}


def mnist(seed: int = 0) -> Recipe:
    """The ANN generator of MNIST: under 40 minutes on two CPU cores."""
    return Recipe(
        name="mnist",
        build=lambda: FlowUNet(FlowConfig()),
        data=lambda: _images("mnist"),
        loss=losses.flow_matching(),
        steps=9000,
        lr=2e-3,
        seed=seed,
    )
