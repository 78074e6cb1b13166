"""Evaluation of generators: the same noise, classes and measures for every one of them."""

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..core import files
from ..core.config import Config
from ..core.meter import Counts
from .features import ASSETS
from .pipeline import Generator
from .quality import Reference, measure
from .runs import TOLERANCE, Family, Interval, Run, saving

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
        """What computes."""
        if self.budget:
            return "sigma_delta"
        return "trained_spiking" if self.generator.endswith("-spiking") else "ann"

    @property
    def name(self) -> str:
        """For people; unique among settings of one data set."""
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
    store: Path | None = None,
    advance: Callable[[int], None] = lambda images: None,
) -> Evaluation:
    """Generate `samples` images, classes in turn, and measure them.

    Args:
        setting: what runs.
        samples, seed: of the noise.
        reference: the real images.
        store: a folder that keeps finished evaluations; one of the same weights, setting,
            samples and seed is read instead of run again.
        advance: called with the number of images done.

    Raises:
        InputError, FileError: as `Generator` and `measure`.
    """
    path = None if store is None else store / f"{_digest(setting, samples, seed)}.npz"
    if path is not None and (earlier := _read(path, setting)) is not None:
        advance(samples)
        return earlier
    generator = Generator.from_pretrained(setting.generator, setting.budget)
    classes = torch.arange(samples) % generator.model.config.classes
    output = generator(
        classes,
        steps=setting.steps,
        sampler=setting.sampler,
        seed=seed,
        metered=METERED,
        advance=advance,
    )
    quality = measure(output.samples, reference, seed)
    run = _run(
        setting,
        quality=dict(quality),
        counts=output.counts,
        zero_skipping=output.zero_skipping,
        images=output.samples[:IMAGES],
        seconds=output.seconds / samples,
    )
    if path is not None:
        files.write(path, lambda partial: _save(partial, run, quality.draws))
    return Evaluation(run, quality.draws)


def saving_interval(
    run: Evaluation,
    baselines: Sequence[Evaluation],
    tolerance: float = TOLERANCE,
    skipping: bool = False,
) -> Interval | None:
    """`runs.saving` with a 95 % interval: who reaches whose quality is drawn again.

    Returns:
        None when no baseline reaches the quality of `run`, in the figures as they are.
    """
    result = saving(run.run, [b.run for b in baselines], tolerance, skipping)
    if result is None:
        return None
    work = np.array(
        [(b.run.skipping_work if skipping else b.run.work) or np.inf for b in baselines]
    )
    reached = np.array([b.draws for b in baselines]) <= tolerance * run.draws
    cheapest = np.where(reached, work[:, None], np.inf).min(0)
    savings = 1 - run.run.work / cheapest[np.isfinite(cheapest)]
    draws = savings if len(savings) else np.array([result.saving])
    return _interval(result.saving, draws)


def ratio_interval(run: Evaluation, base: Evaluation) -> Interval:
    """The Frechet distance of `run` in units of that of `base`, with a 95 % interval."""
    return _interval(run.run.fd.value / base.run.fd.value, run.draws / base.draws)


def _interval(value: float, draws: np.ndarray) -> Interval:
    """The 95 % interval of `draws`, widened to hold `value`."""
    low, high = np.quantile(draws, [0.025, 0.975])
    return Interval(value, min(float(low), value), max(float(high), value))


def _run(setting: Setting, **figures: Any) -> Run:
    """The run of a setting, with what it gave and took."""
    return Run(
        name=setting.name,
        family=setting.family,
        sampler=setting.sampler,
        steps=setting.steps,
        budget=setting.budget,
        **figures,
    )


def _digest(setting: Setting, samples: int, seed: int) -> str:
    about = {**setting.to_dict(), "samples": samples, "seed": seed}
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for path in sorted((ASSETS / setting.generator).glob("*")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:24]


def _save(path: Path, run: Run, draws: np.ndarray) -> None:
    skipping = None if run.zero_skipping is None else run.zero_skipping.to_dict()
    about = {
        "quality": {name: asdict(interval) for name, interval in run.quality.items()},
        "counts": run.counts.to_dict(),
        "zero_skipping": skipping,
        "seconds": run.seconds,
    }
    with path.open("wb") as file:
        np.savez(file, images=run.images, draws=draws, about=np.array(json.dumps(about)))


def _read(path: Path, setting: Setting) -> Evaluation | None:
    """What `_save` wrote; None if it is not there or not readable, to be evaluated again."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            about, images, draws = (arrays[name] for name in ("about", "images", "draws"))
        figures = json.loads(str(about))
        skipping = figures["zero_skipping"]
        run = _run(
            setting,
            quality={name: Interval(**values) for name, values in figures["quality"].items()},
            counts=Counts.from_dict(figures["counts"]),
            zero_skipping=None if skipping is None else Counts.from_dict(skipping),
            images=images,
            seconds=figures["seconds"],
        )
        return Evaluation(run, draws)
    except Exception:  # numpy and zipfile meet damage with exceptions of a dozen kinds
        return None
