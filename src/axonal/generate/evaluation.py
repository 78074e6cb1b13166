"""Generators side by side: the same noise, classes and measures for every one of them."""

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from ..core import files
from ..core.config import Config
from ..core.meter import Counts
from .features import ASSETS
from .pipeline import Generator
from .quality import Reference, measure
from .runs import Family, Interval, Run, saving

SHOWN = 40  # images of each run that are kept to look at
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
class Evaluated:
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
) -> Evaluated:
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
    kept = None if store is None else store / f"{_digest(setting, samples, seed)}.npz"
    if kept is not None and (found := _read(kept, setting)) is not None:
        advance(samples)
        return found
    generator = Generator.from_pretrained(setting.generator, setting.budget)
    classes = torch.arange(samples) % generator.model.config.classes
    made = generator(
        classes,
        steps=setting.steps,
        sampler=setting.sampler,
        seed=seed,
        metered=METERED,
        advance=advance,
    )
    quality = measure(made.images, reference, seed)
    run = Run(
        name=setting.name,
        family=setting.family,
        sampler=setting.sampler,
        steps=setting.steps,
        budget=setting.budget,
        quality=dict(quality),
        counts=made.counts,
        zero_skipping=made.zero_skipping,
        images=made.images[:SHOWN],
        seconds=made.seconds / samples,
    )
    if kept is not None:
        files.write(kept, lambda path: _save(path, run, quality.draws))
    return Evaluated(run, quality.draws)


def saving_interval(
    run: Evaluated, baselines: Sequence[Evaluated], tolerance: float = 1.05, skipping: bool = False
) -> Interval | None:
    """`energy.runs.saving` with a 95 % interval: who reaches whose quality is drawn again.

    Returns:
        None when no baseline reaches the quality of `run`, in the figures as they are.
    """
    found = saving(run.run, [b.run for b in baselines], tolerance, skipping)
    if found is None:
        return None
    work = np.array(
        [(b.run.skipping_work if skipping else b.run.work) or np.inf for b in baselines]
    )
    reached = np.array([b.draws for b in baselines]) <= tolerance * run.draws
    cheapest = np.where(reached, work[:, None], np.inf).min(0)
    savings = 1 - run.run.work / cheapest[np.isfinite(cheapest)]
    low, high = np.quantile(savings, [0.025, 0.975]) if len(savings) else (found.saving,) * 2
    return Interval(found.saving, min(float(low), found.saving), max(float(high), found.saving))


def ratio_interval(run: Evaluated, base: Evaluated) -> Interval:
    """The Frechet distance of `run` in units of that of `base`, with a 95 % interval."""
    value = run.run.fd.value / base.run.fd.value
    low, high = np.quantile(run.draws / base.draws, [0.025, 0.975])
    return Interval(value, min(float(low), value), max(float(high), value))


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


def _read(path: Path, setting: Setting) -> Evaluated | None:
    """What `_save` wrote; None if it is not there or not readable, to be made again."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as kept:
            about, images, draws = json.loads(str(kept["about"])), kept["images"], kept["draws"]
        skipping = about["zero_skipping"]
        run = Run(
            name=setting.name,
            family=setting.family,
            sampler=setting.sampler,
            steps=setting.steps,
            budget=setting.budget,
            quality={name: Interval(**values) for name, values in about["quality"].items()},
            counts=Counts.from_dict(about["counts"]),
            zero_skipping=None if skipping is None else Counts.from_dict(skipping),
            images=images,
            seconds=about["seconds"],
        )
        return Evaluated(run, draws)
    except Exception:  # numpy and zipfile meet damage with exceptions of a dozen kinds
        return None
