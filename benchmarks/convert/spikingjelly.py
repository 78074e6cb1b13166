"""Conversions by SpikingJelly's recipes: `benchmarks/peers/convert.py` says how."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track

from axonal.core.errors import InputError
from axonal.data.images import DATASETS, Images
from axonal.recipes.image_classifiers import PICTURES

from ..harness import peers

NAME = "spikingjelly"
# What the worker runs, and with how many images it calibrates. Local thresholds grow with every
# batch, so that their number matters: 50,000 images are its ImageNet example's.
RECIPES: Mapping[str, tuple[str, int]] = {
    "robust_layer": ("robust_layer", 2000),
    "robust": ("robust", 2000),
    "ltb": ("ltb", 50_000),
    "ltb_short": ("ltb", 5000),
    "sta": ("sta", 2000),
}
PROOF, LARGEST_ERROR = 8, 1e-4  # images whose logits must be ours, and to how much
Cell = tuple[str, int]  # a network and a number of steps
Answers = Mapping[tuple[str, str], Mapping[str, Any]]  # of the worker, by network and recipe


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The networks as SpikingJelly converts them.

    Attributes:
        figures: by name.
        reasons: why it can't convert a network, in its own words, by "RECIPE [NETWORK]".
        accuracy: the share of images named right, by recipe and cell.
    """

    figures: dict[str, float]
    reasons: dict[str, str]
    accuracy: dict[tuple[str, Cell], float]


def compare(
    networks: Mapping[str, Path],
    steps: Sequence[int],
    threads: int,
    root: Path,
    count: int,
    seed: int,
    batch: int,
) -> Comparison:
    """Convert every network by every recipe; that it is ours there is proved first, by its logits.

    Args:
        networks: folders of trained ones, by their names in `image_classifiers.PICTURES`.
        steps: numbers of time steps.
        threads: of SpikingJelly.
        root: folder of the other frameworks' environments.
        count, seed: of the test images, see `draw`.
        batch: test images at a time.

    Returns:
        Figures "sj_RECIPE_accuracy [NETWORK, T N]" (RECIPE_delayed reads the same run later),
        "sj_RECIPE_ms_an_image [NETWORK, T N]", "sj_RECIPE_seconds_to_convert [NETWORK]" and
        "sj_dense_accuracy [NETWORK]"; and why some are missing.

    Raises:
        InputError: SpikingJelly has another network. FileError: its environment can't be made, its
            worker died, or weights or images are missing.
    """
    answers: dict[tuple[str, str], Mapping[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name, peers.worker(NAME, root, threads) as peer:
        for network, weights in networks.items():
            job = write(Path(name), network, weights, count, seed)
            for title, (recipe, seen) in track(RECIPES.items(), f"{NAME}, {network}"):
                options = {"steps": list(steps), "batch": batch, "calibration": seen}
                answer = answers[network, title] = peer.ask(**job, recipe=recipe, **options)
                if not (error := answer["difference"]) <= LARGEST_ERROR:
                    raise InputError(f"{network}: logits of {NAME} are off by {error:.2g}")
    return summary(answers, steps)


def draw(data: str, split: str, count: int, seed: int) -> Images:
    """Draw so many images of a data set, or all if it has fewer, in an order of the seed."""
    images = DATASETS[data](split)
    rows = np.random.default_rng(seed).permutation(len(images))[:count]
    return Images(images.pixels[rows], images.labels[rows])


def write(folder: Path, name: str, weights: Path, count: int, seed: int) -> dict[str, Any]:
    """Write a network and images, and return what of the worker's job says which they are."""
    task = PICTURES[name]
    network, test = task.kind.load(weights), draw(task.data, "test", count, seed)
    seen = draw(task.data, "train", max(most for _, most in RECIPES.values()), seed).pixels
    with torch.inference_mode():
        logits = network(torch.from_numpy(test.pixels[:PROOF]).float().div(127.5).sub(1))
    state = {key: value.numpy() for key, value in network.state_dict().items()}
    np.savez(model := folder / "model.npz", logits=logits.numpy(), **state)
    np.savez(data := folder / "data.npz", calibration=seen, images=test.pixels, labels=test.labels)
    own = {"kind": task.kind.__name__, "config": network.config.to_dict()}
    return {"do": "convert", "model": str(model), "data": str(data)} | own


def summary(answers: Answers, steps: Sequence[int]) -> Comparison:
    """Collect figures and reasons of the worker's answers."""
    result = Comparison(figures={}, reasons={}, accuracy={})
    for (network, recipe), answer in answers.items():
        result.figures[f"sj_dense_accuracy [{network}]"] = answer["ann_accuracy"]
        if "error" in answer:
            result.reasons[f"{recipe} [{network}]"] = answer["error"]
            continue
        result.figures[f"sj_{recipe}_seconds_to_convert [{network}]"] = answer["seconds_to_convert"]
        for t, took in zip(steps, answer["seconds_an_image"], strict=True):
            result.figures[f"sj_{recipe}_ms_an_image [{network}, T {t}]"] = 1e3 * took
        for reading, shares in answer["accuracy"].items():
            title = f"{recipe}_{reading}" if reading else recipe
            for t, share in zip(steps, shares, strict=True):
                result.figures[f"sj_{title}_accuracy [{network}, T {t}]"] = share
                result.accuracy[title, (network, t)] = share
    return result


def behind(
    ours: Mapping[Cell, float], theirs: Mapping[tuple[str, Cell], float]
) -> tuple[int, list[Cell]]:
    """Count the cells in which ours is below the best of theirs, and list them."""
    worse = [cell for (_, cell), share in theirs.items() if ours[cell] < share]
    return len(set(worse)), sorted(set(worse))
