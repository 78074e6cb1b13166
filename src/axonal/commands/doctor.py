"""`axonal doctor`: faults of a recipe's network at its beginning, or of a trained one."""

import json
from pathlib import Path

import torch

from ..core import files
from ..core.errors import InputError
from ..learn import doctor as learn_doctor
from ..learn.data import sample_batch
from ..learn.doctor import Report, Treatment
from ..models.base import Model
from ..recipes.training import CARD, TRAININGS


def doctor(model: str, fix: bool = False, out: Path | None = None) -> Report | Treatment:
    """Examine a recipe's network at its beginning, or a trained one, with a batch of its data.

    Raises:
        InputError: neither a recipe nor such a folder, or a folder is to be fixed without `out`.
        FileError: a file is missing, or can't be written.
    """
    name, folder = model, Path(model)
    if trained := model not in TRAININGS:
        try:
            name = json.loads((folder / CARD).read_text())["recipe"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{model!r} is no recipe and no folder that train made; recipes are "
                f"{', '.join(TRAININGS)}"
            ) from error
        if fix and out is None:
            raise InputError("say with --out where the mended network is to be written")
    training = TRAININGS.get(name)
    if training is None or training.after:
        raise InputError(f"recipe {name!r} starts from another's result; examine that one")
    recipe = training.recipe(0)
    torch.manual_seed(recipe.seed)
    network, batch = recipe.build(), sample_batch(recipe)
    if trained:
        assert isinstance(network, Model)
        network = type(network).load(folder).train()
    if not fix:
        return learn_doctor.examine(network, batch, recipe.loss, recipe.seed)
    treatment = learn_doctor.fix(network, batch, recipe.loss, recipe.seed)
    if out is not None:
        assert isinstance(treatment.network, Model)
        treatment.network.save(out)
        if trained:
            files.write(out / CARD, (folder / CARD).read_bytes())
    return treatment
