"""Training tensors that more than one recipe uses."""

import torch

from ..data.images import DATASETS
from ..learn.recipe import Batch


def images(name: str, split: str = "train") -> Batch:
    """A data set's {"image" [N, C, H, W] float32 in [-1, 1], "label" [N] int64}."""
    found = DATASETS[name](split)
    pixels = torch.tensor(found.pixels).float().div(127.5).sub(1)
    return {"image": pixels, "label": torch.from_numpy(found.labels)}
