"""The training runs by name, and what each leaves behind: a network with its card."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import rich.status
import torch
from torch import nn

from ..convert.calibrate import Run, calibrate
from ..convert.methods.sigma_delta import DeltaNetwork
from ..core import files
from ..core.errors import InputError
from ..generate.features import ASSETS
from ..generate.pipeline import delta_network, delta_step
from ..generate.pretrained import CERTIFICATES
from ..learn.distributed import Processes
from ..learn.logging import logged
from ..learn.loop import fit
from ..learn.recipe import Recipe
from ..models.base import Model
from ..models.flow import FlowUNet
from . import generators, image_classifiers, spiking_classifiers

CARD = "card.json"
SAMPLER = "euler"
# Budgets are errors of the velocity; a default of 0 is the network as it is.
UNTUNED: dict[str, Any] = {"steps": 32, "budgets": (0.05, 0.15), "default": 0}
TUNED: dict[str, Any] = {
    "steps": generators.MOMENTS,
    "budgets": (0.18, 0.2, 0.22, 0.26),
    "default": 0.2,
}
CALIBRATION, HELD_OUT = 40, 100  # samples; classes in turn
MNIST_LICENCE = "MNIST (LeCun, Cortes, Burges), CC BY-SA 3.0"
LICENCES = {"mnist": MNIST_LICENCE, "cifar10": "CIFAR-10 (Krizhevsky 2009)"}


def save_model(network: nn.Module, recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Write a generator in float16; returns its card's figures."""
    assert isinstance(network, Model)
    network.save(folder, torch.float16)
    return {}


def save_convertible(network: nn.Module, recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Write a generator, and certificates of its sigma-delta form as it is, without tuning.

    The output that a budget is about is the velocity, along the generator's own trajectories.
    """
    save_model(network, recipe, folder)
    model, steps = FlowUNet.load(folder), UNTUNED["steps"]
    runs = []
    for walks, seed in _samples(recipe):
        batch = generators.trajectories(model, walks, steps, seed, finer=1)
        runs.append(_along(batch["path"].transpose(0, 1), batch["label"]))
    return _save_certificates(delta_network(model), runs, None, UNTUNED, folder)


def save_sigma_delta(network: nn.Module, recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Write a tuned generator and its certificates.

    The output that a budget is about is the velocity, and the error its distance from the
    velocity of the generator that this one was tuned from, along that one's trajectories.
    """
    save_model(network, recipe, folder)
    teacher, runs, targets = FlowUNet.load(ASSETS / "mnist"), [], []
    delta = generators.unfold(FlowUNet.load(folder), teacher, recipe.seed)
    for walks, seed in _samples(recipe):
        batch = generators.trajectories(teacher, walks, TUNED["steps"], seed)
        path = batch["path"].transpose(0, 1)
        runs.append(_along(path, batch["label"]))
        targets.append(torch.diff(path, dim=0) * TUNED["steps"])
    return _save_certificates(delta, runs, (targets[0], targets[1]), TUNED, folder)


def _samples(recipe: Recipe) -> list[tuple[int, int]]:
    """How many samples calibrate and how many check, and the seeds of their noise."""
    return [(CALIBRATION, recipe.seed + 2), (HELD_OUT, recipe.seed + 3)]


def _along(path: torch.Tensor, label: torch.Tensor) -> Run:
    return lambda delta: velocity(delta, path, label)


def _save_certificates(
    delta: DeltaNetwork, runs: list[Run], target: Any, about: Mapping[str, Any], folder: Path
) -> dict[str, Any]:
    found = []
    for budget in about["budgets"]:
        with rich.status.Status(f"thresholds for an error of {budget:g}"):
            found.append(calibrate(delta, runs[0], runs[1], budget, target))
    table = {"sampler": SAMPLER, "steps": about["steps"], "default": about["default"]}
    table |= {"certificates": [certificate.to_dict() for certificate in found]}
    files.write(folder / CERTIFICATES, json.dumps(table, indent=1) + "\n")
    return {"error": {c.budget: c.output_error for c in found}}


def velocity(delta: DeltaNetwork, path: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """The velocity [T, B, ...] that a sigma-delta generator sees at points [T + 1, B, ...]."""
    network, state, steps = delta_step(delta), delta.start(label), len(path) - 1
    found = []
    for i in range(steps):
        estimate, state = network(path[i], i / steps, state)
        found.append((estimate - path[i]) / (1 - i / steps))
    return torch.stack(found)


@dataclass(frozen=True)
class Training:
    """A recipe, how its result is written, and the training whose result it starts from.

    The recipe is made from the seed and, if there is an `after`, the folder of that result.
    """

    recipe: Callable[..., Recipe]
    save: Callable[[nn.Module, Recipe, Path], dict[str, Any]]
    data: str = MNIST_LICENCE
    after: str | None = None


TRAININGS: dict[str, Training] = {
    "mnist": Training(generators.mnist, save_convertible),
    "mnist-guided": Training(generators.mnist_guided, save_model),
    "mnist-sigma-delta": Training(
        generators.mnist_sigma_delta, save_sigma_delta, after="mnist-guided"
    ),
    "mnist-spiking": Training(generators.mnist_spiking, save_model),
    "cifar10": Training(generators.cifar10, save_model, LICENCES["cifar10"]),
    "mnist-classifier": Training(
        image_classifiers.mnist_classifier, image_classifiers.save_classifier
    ),
    "cifar10-classifier": Training(
        image_classifiers.cifar10_classifier, image_classifiers.save_classifier, LICENCES["cifar10"]
    ),
}
TRAININGS |= {
    name: Training(partial(spiking_classifiers.recipe, name), spiking_classifiers.save, task.about)
    for name, task in spiking_classifiers.TASKS.items()
}
TRAININGS |= {
    name: Training(
        partial(image_classifiers.picture, name), image_classifiers.save_picture, LICENCES[p.data]
    )
    for name, p in image_classifiers.PICTURES.items()
}
TRAININGS |= {
    name: Training(
        lambda seed, start, name=name: image_classifiers.quantised(name, seed, start),
        image_classifiers.save_picture,
        LICENCES[image_classifiers.PICTURES[base].data],
        after=base,
    )
    for name, (base, _) in image_classifiers.QUANTISED.items()
}


def train(
    name: str, out: Path, seed: int = 0, device: str = "cpu", tensorboard: bool = False
) -> Path:
    """Run the training `name` in `out`, going on where an earlier one stopped.

    The training whose result it starts from, if any, runs in a folder of that name beside `out`.

    Of the processes that torchrun starts, the first writes the result, and the others wait.

    Returns:
        The folder with the network, its configuration and its card.

    Raises:
        InputError: no training of that name, or no such device. FileError, MissingExtra,
            ProcessError: as `learn.loop.fit`.
    """
    if name not in TRAININGS:
        raise InputError(f"no recipe {name!r}; there are {', '.join(TRAININGS)}")
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # how torch refuses, by version and device
        raise InputError(
            f"there is no device {device!r} here; leave out --device to train on the CPU"
        ) from error
    training, folder = TRAININGS[name], out / "model"
    before = [training.after] if training.after else []
    start = [train(first, out.parent / first, seed, device, tensorboard) for first in before]
    recipe = training.recipe(seed, *start)
    network, us = fit(recipe, out, device, tensorboard=tensorboard).cpu(), Processes.joined(device)
    with us.together(f"what was trained is in {out}"):
        if us.rank == 0:
            _save_card(recipe, network, training.save(network, recipe, folder), out)
        us.words("saved")
    return folder


def _save_card(recipe: Recipe, network: nn.Module, figures: dict[str, Any], out: Path) -> None:
    rows = logged(out)
    last = [row for row in rows if "loss" in row][-1]
    card = {
        "recipe": recipe.name,
        "seed": recipe.seed,
        "steps": rows[-1]["step"] + 1,
        "batch": recipe.batch,
        "parameters": sum(p.numel() for p in network.parameters()),
        "loss": last["loss"],
        "seconds": last["seconds"],
        "data": TRAININGS[recipe.name].data,
        "command": f"axonal train {recipe.name} --seed {recipe.seed}",
    }
    files.write(out / "model" / CARD, json.dumps(card | figures, indent=2) + "\n")
