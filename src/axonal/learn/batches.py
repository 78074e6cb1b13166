"""The samples of each step: a function of the seed, the step and the process."""

import sys
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..core.errors import InputError
from .processes import Processes

if TYPE_CHECKING:
    from .loop import Recipe

Batch = dict[str, Tensor]
UNEVEN = 10  # how much larger than the smallest the largest class may be, unmentioned


class Batches:
    """The rows of each step that are this process's."""

    def __init__(self, recipe: "Recipe", us: Processes):
        data = recipe.data()
        self.recipe, self.us, self.count = recipe, us, length(recipe, data)
        if self.count < recipe.batch:
            raise InputError(
                f"recipe {recipe.name}: {self.count} samples are less than one batch of "
                f"{recipe.batch}"
            )
        if recipe.batch % us.count:
            raise InputError(
                f"recipe {recipe.name}: a batch of {recipe.batch} can't be shared by {us.count} "
                "processes; choose a multiple"
            )
        if us.first and (warning := _unbalanced(data.get("label"))):
            sys.stderr.write(f"{recipe.name}: {warning}\n")
        self.data = {name: tensor.to(us.device) for name, tensor in data.items()}
        self.epoch, self.order = -1, torch.empty(0)

    def __call__(self, step: int) -> Batch:
        epoch, index = divmod(step, self.count // self.recipe.batch)
        if epoch != self.epoch:
            generator = self.recipe.generator(0, epoch, torch.device("cpu"))
            self.epoch, self.order = epoch, torch.randperm(self.count, generator=generator)
        rows = self.order[index * self.recipe.batch :][: self.recipe.batch]
        mine = rows[self.us.rank :: self.us.count].to(self.us.device)
        return {name: tensor[mine] for name, tensor in self.data.items()}


def length(recipe: "Recipe", data: Batch) -> int:
    counts = {len(tensor) for tensor in data.values()}
    if len(counts) != 1:
        raise InputError(f"recipe {recipe.name}: its data have the lengths {sorted(counts)}")
    if counts == {0}:
        raise InputError(f"recipe {recipe.name}: its data hold no samples; see where they are read")
    return counts.pop()


def _unbalanced(label: Tensor | None) -> str:
    """What is to be said about classes with few samples or none, if there are any."""
    if label is None or label.is_floating_point() or label.dim() != 1 or label.min() < 0:
        return ""
    counts = torch.bincount(label.long())
    if empty := torch.nonzero(counts == 0).flatten().tolist():
        shown = ", ".join(map(str, empty[:5])) + (" and more" if empty[5:] else "")
        return f"{len(empty)} of {len(counts)} classes have no samples ({shown}); check the labels"
    most, least = int(counts.argmax()), int(counts.argmin())
    if counts[most] > UNEVEN * counts[least]:
        return (
            f"class {most} has {counts[most]} samples and class {least} only {counts[least]}; "
            "a network may learn to ignore it"
        )
    return ""
