"""The training runs by name, and what each leaves behind: a network with its card."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..core import files
from ..core.errors import InputError
from ..data import LICENCES
from ..learn.distributed import Processes
from ..learn.logging import read_log
from ..learn.loop import fit
from ..learn.recipe import Recipe
from . import generators, spiking_classifiers
from . import image_classifiers as images

CARD = "card.json"


@dataclass(frozen=True)
class Training:
    """A recipe with what comes before and after it.

    Attributes:
        recipe: from the seed and, if there is an `after`, the folder of its result.
        save: writes the network of a recipe to a folder; returns figures for its card.
        data: the source of the data and their licence.
        after: the training whose result this one starts from.
    """

    recipe: Callable[..., Recipe]
    save: Callable[[nn.Module, Recipe, Path], dict[str, Any]]
    data: str = LICENCES["mnist"]
    after: str | None = None


TRAININGS: dict[str, Training] = {
    "mnist": Training(generators.mnist, generators.save_convertible),
    "mnist-guided": Training(generators.mnist_guided, generators.save_model),
    "mnist-sigma-delta": Training(
        generators.mnist_sigma_delta, generators.save_sigma_delta, after="mnist-guided"
    ),
    "mnist-spiking": Training(generators.mnist_spiking, generators.save_model),
    "cifar10": Training(generators.cifar10, generators.save_model, LICENCES["cifar10"]),
    "mnist-classifier": Training(images.mnist_classifier, images.save_classifier),
    "cifar10-classifier": Training(
        images.cifar10_classifier, images.save_classifier, LICENCES["cifar10"]
    ),
}
TRAININGS |= {
    name: Training(partial(spiking_classifiers.recipe, name), spiking_classifiers.save, t.licence)
    for name, t in spiking_classifiers.TASKS.items()
}
TRAININGS |= {
    name: Training(partial(images.picture, name), images.save_picture, LICENCES[p.data])
    for name, p in images.PICTURES.items()
}
TRAININGS |= {
    name: replace(TRAININGS[base], recipe=partial(images.quantised, name), after=base)
    for name, (base, _) in images.QUANTISED.items()
}


def train(
    name: str,
    out: Path,
    seed: int = 0,
    device: str = "cpu",
    tensorboard: bool = False,
    status: Callable[[str], AbstractContextManager] = nullcontext,
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
    training, folder, options = TRAININGS[name], out / "model", (seed, device, tensorboard, status)
    first = [training.after] if training.after else []
    recipe = training.recipe(seed, *(train(n, out.parent / n, *options) for n in first))
    network = fit(recipe, out, device, tensorboard=tensorboard).cpu()
    processes = Processes.from_environment(device)
    with processes.guard(f"what was trained is in {out}"):
        if processes.rank == 0:
            with status(f"writing {name}, and measuring what was written"):
                _save_card(recipe, network, training.save(network, recipe, folder), out)
        processes.barrier()
    return folder


def _save_card(recipe: Recipe, network: nn.Module, figures: dict[str, Any], out: Path) -> None:
    rows = read_log(out)
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
