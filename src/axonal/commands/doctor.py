"""The doctor at work: on recipes and trained models, on planted faults, and on a deep network."""

import json
from pathlib import Path

import torch

from ..core import files
from ..core.errors import InputError
from ..learn.doctor import Report, Treatment, batch_of, examine, fix
from ..models.base import Model
from ..recipes.training import CARD, TRAININGS


def doctor(what: str, mend: bool = False, out: Path | None = None) -> Report | Treatment:
    """Examine a recipe's network at its beginning, or a trained one, with a batch of its data.

    Args:
        what: a recipe, or a folder that `train` made.
        mend: apply what is safe; to a folder's network, whose weights then go to `out`.
        out: a folder.

    Raises:
        InputError: neither a recipe nor such a folder, or a folder is to be mended without `out`.
        FileError: a file is missing, or can't be written.
    """
    name, folder = what, Path(what)
    if trained := what not in TRAININGS:
        try:
            name = json.loads((folder / CARD).read_text())["recipe"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{what!r} is no recipe and no folder that train made; recipes are "
                f"{', '.join(TRAININGS)}"
            ) from error
        if mend and out is None:
            raise InputError("say with --out where the mended network is to be written")
    training = TRAININGS.get(name)
    if training is None or training.after:
        raise InputError(f"recipe {name!r} starts from another's result; examine that one")
    recipe = training.recipe(0)
    torch.manual_seed(recipe.seed)
    network, batch = recipe.build(), batch_of(recipe)
    if trained:
        assert isinstance(network, Model)
        network = type(network).load(folder).train()
    if not mend:
        return examine(network, batch, recipe.loss, recipe.seed)
    found = fix(network, batch, recipe.loss, recipe.seed)
    if out is not None:
        assert isinstance(found.network, Model)
        found.network.save(out)
        if trained:
            files.write(out / CARD, (folder / CARD).read_bytes())
    return found
