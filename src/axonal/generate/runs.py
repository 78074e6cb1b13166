"""Quality and work of one run of a generator, and the comparison at equal quality."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from ..core.errors import InputError
from ..core.meter import Counts

Family = Literal["ann", "sigma_delta", "trained_spiking"]
FD = "fd"
TOLERANCE = 1.05  # Frechet distances within this factor are of equal quality


@dataclass(frozen=True)
class Interval:
    """A figure with the ends of its confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Run:
    """One network, one sampler, one setting.

    Attributes:
        name: for people, unique in a report: the network, a comma, its setting ("ANN, euler 8").
        family: what computes.
        sampler: "euler", "heun", ...
        steps: of the sampler.
        budget: error budget of a sigma-delta run; None elsewhere.
        quality: intervals by metric: "fd" (Frechet distance, lower is better) must be there;
            "precision" and "recall" in [0, 1].
        counts: what it executed.
        zero_skipping: the counts if multiplications by zero are skipped; None if not known.
        images: samples, [n, C, H, W] uint8, C 1 or 3; the same noise and class in every run.
        seconds: wall time of the whole run, divided by its samples; software, not a chip.

    Raises:
        InputError: an unknown family, no Frechet distance, or images of another form.
    """

    name: str
    family: Family
    sampler: str
    steps: int
    budget: float | None
    quality: dict[str, Interval]
    counts: Counts
    zero_skipping: Counts | None
    images: np.ndarray
    seconds: float

    def __post_init__(self):
        if self.family not in get_args(Family):
            raise InputError(f"Run {self.name}: family {self.family!r} is not one of {Family}")
        if FD not in self.quality:
            raise InputError(f'Run {self.name}: quality lacks "{FD}", the Frechet distance')
        shape, kind = self.images.shape, self.images.dtype
        if len(shape) != 4 or shape[1] not in (1, 3) or kind != np.uint8:
            raise InputError(f"Run {self.name}: {kind} {shape} is not uint8 [n, 1|3, H, W]")

    @property
    def fd(self) -> Interval:
        """Frechet distance to the real images; lower is better."""
        return self.quality[FD]

    @property
    def work(self) -> float:
        """Synaptic operations of one image."""
        return self.counts.total("synops")

    @property
    def skipping_work(self) -> float | None:
        """Synaptic operations if multiplications by zero are skipped; None where not known."""
        return None if self.zero_skipping is None else self.zero_skipping.total("synops")


@dataclass(frozen=True)
class Saving:
    """The ANN run compared with, and 1 - work / its work (negative when spiking does more)."""

    baseline: Run
    saving: float


def best(runs: Sequence[Run]) -> Run:
    """The run with the lowest Frechet distance; of equals the one with less work.

    Raises:
        InputError: no runs.
    """
    if not runs:
        raise InputError("best: there are no runs to choose from")
    return min(runs, key=lambda run: (run.fd.value, run.work))


def saving(
    run: Run, baselines: Sequence[Run], tolerance: float = TOLERANCE, skipping: bool = False
) -> Saving | None:
    """The saving of `run` against the cheapest baseline that reaches its quality.

    Args:
        run: whose work and Frechet distance count.
        baselines: e.g. the same ANN with every sampler and step count.
        tolerance: a baseline qualifies when its FD <= tolerance times the run's.
        skipping: whether the baselines skip zero activations; those of which that is not
            known don't qualify then.

    Returns:
        None when no baseline qualifies: `run` is then better than every one of them.
    """
    reached = []
    for base in baselines:
        work = base.skipping_work if skipping else base.work
        if work and base.fd.value <= tolerance * run.fd.value:
            reached.append((work, base))
    if not reached:
        return None
    work, cheapest = min(reached, key=lambda pair: pair[0])
    return Saving(cheapest, 1 - run.work / work)


@dataclass(frozen=True)
class Comparison:
    """The runs of generators that a comparison is about.

    Attributes:
        spiking: the spiking run that saves most at equal quality; where every one is better than
            all ANN runs, the spiking run with the lowest Frechet distance.
        best: the ANN run with the lowest Frechet distance.
        equal: against the cheapest ANN run of the spiking run's quality; None: none reaches it.
        skipping: the same against ANNs that skip zero activations.
        trained: the best run of the trained spiking core, if there is one.
    """

    spiking: Run
    best: Run
    equal: Saving | None
    skipping: Saving | None
    trained: Run | None

    @property
    def dense(self) -> Run:
        """The ANN run to compare with: equal in quality, else the best there is."""
        return self.equal.baseline if self.equal else self.best

    @property
    def sparse(self) -> Run | None:
        """The ANN run that skips zeros; None when no run's zeros were counted."""
        if self.skipping:
            return self.skipping.baseline
        return self.best if self.best.zero_skipping is not None else None

    @property
    def verdict(self) -> str:
        """The result in a sentence or two; it may be that spiking loses."""
        run, fd = self.spiking, self.spiking.fd.value
        if self.equal is None:
            ratio = run.work / self.best.work
            return (
                f"No ANN run reaches the quality of {run.name} (FD {fd:.2f}): it is better than "
                f"every one of them. Of the best, {self.best.name} (FD {self.best.fd.value:.2f}), "
                f"it needs {ratio:.0%} of the synaptic operations."
            )
        base, gain = self.equal.baseline, self.equal.saving
        head = "Spiking pays in operations" if gain > 0 else "Spiking loses in operations"
        text = (
            f"{head}: {run.name} (FD {fd:.2f}) needs {1 - gain:.0%} of the synaptic operations of "
            f"{base.name} (FD {base.fd.value:.2f}), the cheapest ANN run of its quality."
        )
        if self.skipping is None:
            return text
        rest = self.skipping.saving
        gains = "saves" if rest > 0 else "loses"
        return f"{text} Against an ANN that skips its zero activations it {gains} {abs(rest):.0%}."


def compare(runs: Sequence[Run]) -> Comparison:
    """Choose what to compare.

    Raises:
        InputError: no ANN run, no spiking run, two runs of one name, or one without operations.
    """
    anns = [run for run in runs if run.family == "ann"]
    spiking = [run for run in runs if run.family != "ann"]
    if not anns or not spiking:
        raise InputError(f"compare: {len(anns)} ANN and {len(spiking)} spiking runs; give both")
    if len({run.name for run in runs}) < len(runs):
        raise InputError("compare: two runs have the same name; names must tell them apart")
    if idle := [run.name for run in runs if run.work == 0]:
        raise InputError(f"compare: {idle[0]} counts no synaptic operations; meter the run")
    savings = [(gain.saving, run) for run in spiking if (gain := saving(run, anns))]
    headline = max(savings, key=lambda pair: pair[0])[1] if savings else best(spiking)
    trained = [run for run in spiking if run.family == "trained_spiking"]
    return Comparison(
        headline,
        best(anns),
        saving(headline, anns),
        saving(headline, anns, skipping=True),
        best(trained) if trained else None,
    )
