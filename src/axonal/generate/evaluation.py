"""Evaluation of generators: the same noise, classes and measures for every one of them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from ..core.config import Config
from ..core.errors import InputError
from .images import Images
from .pipeline import Generator
from .quality import Reference, measure
from .runs import Family, Run

IMAGES = 40  # images of each run, to look at
METERED = 1000  # images of each run whose operations are counted: counting takes time


@dataclass(frozen=True, kw_only=True)
class Setting(Config):
    """One generator, one sampler, one step count: what a `Run` comes from.

    With an error budget it runs in its sigma-delta form; without one, or with 0, densely.
    """

    generator: str
    sampler: str
    steps: int
    budget: float | None = None

    @property
    def family(self) -> Family:
        """The form of the network."""
        if self.budget:
            return "sigma_delta"
        return "trained_spiking" if self.generator.endswith("-spiking") else "ann"

    @property
    def name(self) -> str:
        """A name for people, unique among settings of one data set."""
        tuned = self.generator.endswith("-sigma-delta")
        form = {
            "sigma_delta": f"sigma-delta {'' if tuned else 'untuned '}{self.budget}",
            "trained_spiking": "spiking core",
            "ann": "ANN tuned" if tuned else "ANN",
        }
        return f"{form[self.family]}, {self.sampler} {self.steps}"


@dataclass(frozen=True)
class Evaluation:
    """A run, and the draws of its Frechet distance, paired between runs of one seed."""

    run: Run
    draws: np.ndarray


def evaluate(
    setting: Setting,
    samples: int,
    seed: int,
    reference: Reference,
    advance: Callable[[int], None] = lambda images: None,
) -> Evaluation:
    """Generate `samples` images, classes in turn, and measure them.

    Raises:
        InputError, FileError: it generates no images, or as `Generator` and `measure`.
    """
    generator = Generator.from_pretrained(setting.generator, setting.budget)
    if not isinstance(generator.medium, Images):
        raise InputError(f"{setting.generator} generates no images to measure")
    output = generator(
        torch.arange(samples) % generator.medium.classes,
        steps=setting.steps,
        sampler=setting.sampler,
        seed=seed,
        metered=METERED,
        advance=advance,
    )
    quality = measure(output.samples, reference, seed)
    run = Run(
        name=setting.name,
        family=setting.family,
        sampler=setting.sampler,
        steps=setting.steps,
        budget=setting.budget,
        quality=dict(quality),
        counts=output.counts,
        zero_skipping=output.zero_skipping,
        images=output.samples[:IMAGES],
        seconds=output.seconds / samples,
    )
    return Evaluation(run, quality.draws)
