"""Training tensors, and the rows of them that each process sees in each step."""

import sys

import torch
from torch import Tensor

from ..core.errors import InputError
from ..data.images import DATASETS
from .distributed import Processes
from .recipe import Batch, Recipe

UNEVEN = 10  # how much larger than another a class may be, unmentioned


def images(name: str, split: str = "train") -> Batch:
    """Images of `DATASETS`: {"image" [N, C, H, W] float32 in [-1, 1], "label" [N] int64}.

    Raises:
        InputError: another split. FileError: the data set is missing or damaged.
    """
    dataset = DATASETS[name](split)
    pixels = torch.tensor(dataset.pixels).float().div(127.5).sub(1)
    return {"image": pixels, "label": torch.from_numpy(dataset.labels)}


class Batches:
    """The rows of each step that are this process's: a function of the seed and the step.

    Raises:
        InputError: the data are empty or of several lengths, or don't fill a batch, or a batch
            can't be shared by the processes.
    """

    def __init__(self, recipe: Recipe, processes: Processes):
        data = recipe.data()
        self.recipe, self.processes = recipe, processes
        self.count, share = count_samples(recipe, data), processes.world_size
        batch = f"recipe {recipe.name}: a batch of {recipe.batch}"
        if self.count < recipe.batch:
            raise InputError(f"{batch} is more than the {self.count} samples; choose a smaller one")
        if recipe.batch % share:
            raise InputError(f"{batch} can't be shared by {share} processes; choose a multiple")
        if processes.rank == 0 and "label" in data and (warning := _uneven(data["label"])):
            sys.stderr.write(f"{recipe.name}: {warning}\n")
        self.data = {name: tensor.to(processes.device) for name, tensor in data.items()}
        self.epoch, self.order = -1, torch.empty(0)

    def __call__(self, step: int) -> Batch:
        epoch, index = divmod(step, self.count // self.recipe.batch)
        if epoch != self.epoch:
            self.epoch, self.order = epoch, _order(self.recipe, self.count, epoch)
        rows = self.order[index * self.recipe.batch :][: self.recipe.batch]
        own = rows[self.processes.rank :: self.processes.world_size].to(self.processes.device)
        return {name: tensor[own] for name, tensor in self.data.items()}


def sample_batch(recipe: Recipe) -> Batch:
    """A batch of the recipe's training data, drawn with its seed, of up to 64 samples."""
    data = recipe.data()
    order = _order(recipe, len(next(iter(data.values()))))[: min(64, recipe.batch)]
    return {name: tensor[order] for name, tensor in data.items()}


def count_samples(recipe: Recipe, data: Batch) -> int:
    """The number of samples in `data`.

    Raises:
        InputError: there are none, or the tensors have several lengths.
    """
    counts = {len(tensor) for tensor in data.values()}
    if len(counts) != 1:
        raise InputError(f"recipe {recipe.name}: its data have the lengths {sorted(counts)}")
    if counts == {0}:
        raise InputError(f"recipe {recipe.name}: its data hold no samples; see where they are read")
    return counts.pop()


def _order(recipe: Recipe, count: int, epoch: int = 0) -> Tensor:
    generator = recipe.generator(0, epoch, torch.device("cpu"))
    return torch.randperm(count, generator=generator)


def _uneven(label: Tensor) -> str:
    """A warning of classes with few samples or none; "" if there are none of them."""
    if label.is_floating_point() or label.dim() != 1 or label.min() < 0:
        return ""
    counts = torch.bincount(label.long())
    most, least = int(counts.argmax()), int(counts.argmin())
    if not (scarce := int((UNEVEN * counts < counts[most]).sum())):
        return ""
    return (
        f"{scarce} of {len(counts)} classes have few samples or none: class {least} has "
        f"{counts[least]}, class {most} has {counts[most]}; look at the labels, or balance them"
    )
