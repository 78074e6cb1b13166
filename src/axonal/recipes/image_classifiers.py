"""Training runs of image classifiers: the one that ships, and those that `convert` takes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..data.images import DATASETS
from ..generate.features import network_features
from ..generate.quality import REFERENCE, Reference, measure
from ..learn import losses
from ..learn.data import images
from ..learn.loop import accuracy
from ..learn.recipe import Recipe
from ..models.base import Model
from ..models.classifier import Classifier, ClassifierConfig
from ..models.resnet import ResNet, ResNetConfig
from ..models.vgg import VGG, VGGConfig
from ..models.vit import ViT, ViTConfig

ROWS, FLOOR = 2000, 10_000


def _classifier(data: str, seed: int, **sizes: int) -> Recipe:
    return Recipe(
        name=f"{data}-classifier",
        build=lambda: Classifier(ClassifierConfig(**sizes)),
        data=lambda: images(data),
        loss=losses.cross_entropy(shift=2),
        steps=2500,
        lr=3e-3,
        seed=seed,
    )


def mnist_classifier(seed: int = 0) -> Recipe:
    """The classifier whose features judge generated digits: under 3 minutes on two CPU cores."""
    return _classifier("mnist", seed)


def cifar10_classifier(seed: int = 0) -> Recipe:
    """The same network for CIFAR-10, twice as wide; no weights of it ship."""
    return _classifier("cifar10", seed, channels=3, size=32, width=32)


def save_classifier(network: nn.Module, recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Write a classifier in float16, and the test set's `Reference` as that network sees it.

    Returns:
        Figures for its card, all of the float16 weights, read back. The floor measures training
        images, drawn with the seed, as if they had been generated.
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


@dataclass(frozen=True)
class Picture:
    """A conventional classifier to convert: its data, its kind and sizes, and how long it learns.

    Attributes:
        data: "mnist" or "cifar10".
        kind: class of the network.
        config: its sizes.
        steps: of training, 128 images each.
        lr: of training.
    """

    data: str
    kind: type[Model]
    config: Any
    steps: int
    lr: float = 3e-3


PICTURES: Mapping[str, Picture] = {
    "mnist-vgg": Picture("mnist", VGG, VGGConfig(channels=1, size=28, widths=(16, 32, 64)), 1500),
    "cifar10-vgg": Picture("cifar10", VGG, VGGConfig(), 5000),
    "cifar10-resnet": Picture("cifar10", ResNet, ResNetConfig(), 4000),
    "cifar10-vit": Picture("cifar10", ViT, ViTConfig(), 5000, lr=1e-3),
}
QCFS_LEVELS = {4: 0.8, 8: 0.4}  # and the share of the network's own steps that learning takes
QCFS_LR = 1e-3
QUANTISED: Mapping[str, tuple[str, int]] = {
    f"{name}-qcfs{levels}": (name, levels)
    for name in ("mnist-vgg", "cifar10-vgg", "cifar10-resnet")
    for levels in QCFS_LEVELS
}


def picture(name: str, seed: int = 0, **options: Any) -> Recipe:
    """The training of a conventional classifier."""
    task = PICTURES[name]
    plain = {"steps": task.steps, "lr": task.lr, "precision": "float32", "compile": False}
    return Recipe(
        name=name,
        build=lambda: task.kind(task.config),
        data=lambda: images(task.data),
        loss=losses.cross_entropy(2 if task.data == "mnist" else 4, flip=task.data != "mnist"),
        seed=seed,
        **plain | options,
    )


def quantised(name: str, seed: int = 0, start: Path = Path()) -> Recipe:
    """The light training of a classifier whose activations are clipped and quantised.

    It starts from the weights in `start`, which were trained with ReLU.
    """
    base, levels = QUANTISED[name]
    task = PICTURES[base]

    def build() -> Model:
        network = task.kind(replace(task.config, levels=levels))
        network.load_state_dict(task.kind.load(start).state_dict(), strict=False)
        return network

    steps = int(QCFS_LEVELS[levels] * task.steps)
    return replace(picture(base, seed, steps=steps, lr=QCFS_LR), name=name, build=build)


def save_picture(network: nn.Module, recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Write a classifier in float16.

    Returns:
        Figures for its card, of the float16 weights, read back.
    """
    assert isinstance(network, Model)
    network = type(network).load(network.save(folder, torch.float16))
    base = QUANTISED.get(recipe.name, (recipe.name, 0))[0]
    test = images(PICTURES[base].data, "test")
    figures = {"test_accuracy": accuracy(network, test["image"], test["label"])}
    return figures | {"test_images": len(test["label"])}
