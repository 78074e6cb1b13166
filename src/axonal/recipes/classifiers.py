"""Training runs of the classifiers, and how the one that ships was made."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..data.images import DATASETS
from ..generate.features import network_features
from ..generate.quality import REFERENCE, Reference, measure
from ..learn import losses
from ..learn.recipe import Recipe
from ..models.classifier import Classifier, ClassifierConfig
from .batches import images

ROWS, FLOOR = 2000, 10_000


def _classifier(data: str, config: ClassifierConfig, seed: int) -> Recipe:
    return Recipe(
        name=f"{data}-classifier",
        build=lambda: Classifier(config),
        data=lambda: images(data),
        loss=losses.cross_entropy(shift=2),
        steps=2500,
        lr=3e-3,
        seed=seed,
    )


def mnist_classifier(seed: int = 0) -> Recipe:
    """The classifier whose features judge generated digits: under 3 minutes on two CPU cores."""
    return _classifier("mnist", ClassifierConfig(), seed)


def cifar10_classifier(seed: int = 0) -> Recipe:
    """The same network for CIFAR-10, twice as wide; no weights of it ship."""
    return _classifier("cifar10", ClassifierConfig(channels=3, size=32, width=32), seed)


def save_classifier(network: nn.Module, recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Write a classifier in float16, and the test set's `Reference` as that network sees it.

    Returns:
        Figures for its card, all of the float16 weights, read back. The floor measures training
        images, drawn with the seed, as if they had been generated.

    Raises:
        FileError: the folder can't be written, or the data set is missing.
    """
    assert isinstance(network, Classifier)
    data = recipe.name.removesuffix("-classifier")
    network = Classifier.load(network.save(folder, torch.float16))
    train, test = (DATASETS[data](split) for split in ("train", "test"))
    real = Reference.of(test.pixels, network_features(network))
    real.save(folder / REFERENCE, min(ROWS, len(test)), recipe.seed)
    with torch.inference_mode():
        logits = network.head(torch.from_numpy(real.rows).float())
    right = logits.argmax(1).numpy() == test.labels
    count = min(FLOOR, len(train))
    pick = np.random.default_rng(recipe.seed).choice(len(train), count, replace=False)
    floor = measure(train.pixels[pick], real, recipe.seed)
    return {
        "test_accuracy": float(right.mean()),
        "test_images": len(test),
        "reference_rows": min(ROWS, len(test)),
        "floor": {name: [i.value, i.low, i.high] for name, i in floor.items()},
        "floor_images": count,
        "floor_rows": floor.rows,
    }
