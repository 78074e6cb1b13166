"""Evaluations of generators that an interrupted bench goes on from, and what they save."""

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from axonal.core import files
from axonal.core.meter import Counts
from axonal.data import ASSETS
from axonal.generate.evaluation import Evaluation, Setting, evaluate
from axonal.generate.quality import Reference
from axonal.generate.runs import TOLERANCE, Interval, Run, saving


def stored(
    setting: Setting,
    samples: int,
    seed: int,
    reference: Reference,
    advance: Callable[[int], None] = lambda images: None,
    *,
    store: Path,
) -> Evaluation:
    """Evaluate as `generate.evaluation.evaluate`, or read what did so before.

    Args:
        setting, samples, seed, reference, advance: as there.
        store: a folder that keeps evaluations; one of the same weights, setting, samples and seed
            is read instead of run again.

    Raises:
        InputError, FileError: as there, or `store` can't be written.
    """
    path = store / f"{_digest(setting, samples, seed)}.npz"
    if (earlier := _read(path, setting)) is not None:
        advance(samples)
        return earlier
    evaluation = evaluate(setting, samples, seed, reference, advance)
    files.write(path, lambda partial: _save(partial, evaluation.run, evaluation.draws))
    return evaluation


def saving_interval(
    run: Evaluation,
    baselines: Sequence[Evaluation],
    tolerance: float = TOLERANCE,
    skipping: bool = False,
) -> Interval | None:
    """`generate.runs.saving` with a 95 % interval: who reaches whose quality is drawn again.

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
        run = Run(
            name=setting.name,
            family=setting.family,
            sampler=setting.sampler,
            steps=setting.steps,
            budget=setting.budget,
            quality={name: Interval(**values) for name, values in figures["quality"].items()},
            counts=Counts.from_dict(figures["counts"]),
            zero_skipping=None if skipping is None else Counts.from_dict(skipping),
            images=images,
            seconds=figures["seconds"],
        )
        return Evaluation(run, draws)
    except Exception:  # numpy and zipfile meet damage with exceptions of a dozen kinds
        return None
