"""Training runs of spiking classifiers of images, event cameras and speech."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..data import LICENCES
from ..data.recordings import cochlea, delta_spikes, fsdd, nmnist
from ..learn.data import images
from ..learn.loop import accuracy
from ..learn.losses import (
    Objective,
    Penalty,
    activity,
    energy,
    membrane_cross_entropy,
    rate_cross_entropy,
    spiking,
)
from ..learn.recipe import Batch, Recipe
from ..models.spiking import SpikingClassifier, SpikingConfig
from ..nn.hooks import rates, tally

MILLISECONDS = {"nmnist": 20, "fsdd": 10}
STEPS = {"nmnist": 16, "fsdd": 80}
CHANNELS, RISE = 40, 1.0  # of the cochlea; what a delta spike stands for, in nepers of power
EACH_STEP = membrane_cross_entropy()


def recordings_as_frames(split: str) -> Batch:
    """N-MNIST in frames: {"events" [N, T, 2, 34, 34] uint8, "label" [N]}."""
    data = nmnist(split)
    frames = data.frames(STEPS["nmnist"], MILLISECONDS["nmnist"] / 1000)
    return {"events": torch.from_numpy(frames), "label": torch.from_numpy(data.labels)}


def sounds_as_spikes(split: str) -> Batch:
    """Spoken digits as delta spikes of a cochlea: {"events" [N, T, 2 x 40] uint8, "label" [N]}."""
    data = fsdd(split)
    events = np.zeros((len(data), STEPS["fsdd"], 2 * CHANNELS), np.uint8)
    for row, signal in zip(events, data.signals, strict=True):
        power = cochlea(signal, data.rate, CHANNELS, MILLISECONDS["fsdd"] / 1000)
        spikes = delta_spikes(power, RISE)[: len(row)]
        row[: len(spikes)] = spikes
    return {"events": torch.from_numpy(events), "label": torch.from_numpy(data.labels)}


@dataclass(frozen=True, kw_only=True)
class Task:
    """A data set, the network that learns it, and how.

    Attributes:
        data: from a split to its {"image" or "events", "label"}.
        config: of the network.
        objective, penalties, shift: as of `learn.losses.spiking`.
        licence: of the data.
        options: of the `Recipe`.
    """

    data: Callable[[str], Batch]
    config: SpikingConfig
    objective: Objective = EACH_STEP
    penalties: tuple[Penalty, ...] = ()
    shift: int = 0
    licence: str = LICENCES["mnist"]
    options: Mapping[str, Any] = field(default_factory=dict)


def _digits(*layers: str, **options: Any) -> SpikingConfig:
    defaults = {"coding": "constant", "steps": 4, "decay": 0.5, "norm": True, "boost": 1.0}
    return SpikingConfig(layers=layers, **defaults | options)


TASKS: Mapping[str, Task] = {
    "mnist-spiking-classifier": Task(  # of a few per cent activity: for the engine
        data=lambda split: images("mnist", split),
        config=SpikingConfig(),
        objective=rate_cross_entropy(12),
        shift=2,
        options={"steps": 2000, "lr": 2e-3},
    ),
    "mnist-fc": Task(
        data=lambda split: images("mnist", split),
        config=_digits("512", "512"),
        shift=1,
        options={"steps": 3000, "lr": 2e-3},
    ),
    "mnist-conv": Task(
        data=lambda split: images("mnist", split),
        config=_digits("32c5s2", "64c3", "64c3s2", "256", steps=3),
        shift=2,
        options={"steps": 3000, "lr": 3e-3},
    ),
    "nmnist": Task(
        data=recordings_as_frames,
        config=SpikingConfig(
            shape=(2, 34, 34),
            layers=("16c5s2", "32c3s2", "64c3s2", "128"),
            coding="events",
            decay=0.8,
            norm=True,
            boost=1.0,
        ),
        objective=rate_cross_entropy(),
        shift=2,
        licence=LICENCES["nmnist"],
        options={"steps": 800, "batch": 32, "lr": 2e-3, "warmup": 50, "ema": 0.99},
    ),
    "fsdd": Task(
        data=sounds_as_spikes,
        config=SpikingConfig(
            shape=(2 * CHANNELS,),
            layers=("256", "128r"),
            coding="events",
            adaptive=True,
            learn=("decay", "rho"),
            surrogate="e_prop",
            norm=True,
            boost=1.0,
        ),
        objective=rate_cross_entropy(),
        penalties=(activity(0.01, 0.04),),
        licence=LICENCES["fsdd"],
        options={"steps": 800, "batch": 64, "lr": 3e-3, "warmup": 50, "ema": 0.99},
    ),
    "cifar10-spiking": Task(
        data=lambda split: images("cifar10", split),
        config=_digits(
            "32c3", "64c3s2", "64c3", "128c3s2", "128c3", "256", shape=(3, 32, 32), steps=3
        ),
        shift=4,
        licence=LICENCES["cifar10"],
        options={"steps": 2000, "lr": 3e-3},
    ),
}


def recipe(name: str, seed: int = 0, weight: float = 0.0, **options: Any) -> Recipe:
    """The training of a task, with other `options` of the `Recipe`.

    With `weight`, a nanojoule of its modelled spikes costs so much (see `learn.losses.energy`).
    """
    task = TASKS[name]
    penalties = (*task.penalties, *([energy(weight)] if weight else []))
    loss = spiking(task.objective, penalties=penalties, shift=task.shift)
    plain = {"precision": "float32", "compile": False, "checkpoint_every": 200}
    return Recipe(
        name=name,
        build=lambda: SpikingClassifier(task.config),
        data=lambda: task.data("train"),
        loss=loss,
        seed=seed,
        **plain | dict(task.options) | options,
    )


def save(network: nn.Module, recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Write a spiking classifier in float16.

    Returns:
        Figures for its card, of the float16 weights, read back: accuracy on the test set, and
        the spikes a neuron and step of every population.
    """
    assert isinstance(network, SpikingClassifier)
    network = SpikingClassifier.load(network.save(folder, torch.float16))
    return evaluate(network, TASKS[recipe.name].data("test"))


def evaluate(network: SpikingClassifier, test: Batch) -> dict[str, Any]:
    """Accuracy on a test set, spikes a sample, and spikes a neuron and step.

    The last are of all neurons ("spike_rate") and of each population ("activity").
    """
    (x,), label = (test[name] for name in test if name != "label"), test["label"]
    with tally(network) as sums:
        right = accuracy(network, x, label)
    spikes, sites = torch.stack([*sums.values()]).sum(0).tolist()
    return {
        "test_accuracy": right,
        "test_samples": len(label),
        "spikes": spikes / len(label),
        "spike_rate": spikes / sites,
        "activity": list(rates(sums).values()),
    }
