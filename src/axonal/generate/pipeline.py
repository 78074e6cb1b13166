"""Samples from a generator, conventional or spiking, with the counts of what was executed."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from ..convert.certificate import Certificate
from ..convert.methods.sigma_delta import DeltaNetwork, sigma_delta
from ..core.errors import InputError
from ..core.meter import Counts
from ..nn.meter import Meter
from ..nn.stateful import State
from .engine_backend import EngineBackend
from .media import medium_of
from .pretrained import CERTIFICATES, START, generator_folder, load_network, read_certificates
from .samplers import Network, sample

Batch = tuple[Tensor, Counts | None, Counts | None]  # values, their counts, those without zeros


@dataclass(frozen=True)
class GeneratorOutput:
    """Samples, with the work and the time that they took.

    Attributes:
        samples: as the medium decodes them: images are [N, C, H, W] uint8.
        counts: of the run, by step and layer. A sigma-delta network's first step and layer,
            "start", hold the one dense evaluation a condition that its first state comes from.
        zero_skipping: what the same run costs if zero inputs are skipped; None for sigma-delta
            networks, which never carry any.
        seconds: wall time of sampling, counting included.
    """

    samples: np.ndarray
    counts: Counts
    zero_skipping: Counts | None
    seconds: float


class Generator:
    """Generate samples of a medium: `generator(classes, steps=16, seed=0)`.

    Args:
        model: the trained network, of a kind in `media.MEDIA`.
        certificate: None to run it as it is; else it runs as a sigma-delta network with the
            thresholds of the certificate.
        sampler, steps: what a call uses unless it says otherwise.
        backend: "torch", or "engine" to run a sigma-delta network one sample at a time so that
            work follows events.

    Raises:
        InputError: no generator, an unknown backend, or the engine for a network that sends no
            changes.
    """

    def __init__(
        self,
        model: nn.Module,
        certificate: Certificate | None = None,
        *,
        sampler: str = "euler",
        steps: int = 16,
        backend: str = "torch",
    ):
        self.model, self.certificate = model, certificate
        self.sampler, self.steps = sampler, steps
        self.medium = medium_of(model)
        self.shape = self.medium.shape
        self.network: nn.Module = model
        if certificate is not None:
            self.network = delta_network(model)
            self.network.set_thresholds(certificate.thresholds)
        if backend not in ("torch", "engine"):
            raise InputError(f"unknown backend {backend!r}; choose torch or engine")
        self.engine = None
        if backend == "engine":
            if not isinstance(self.network, DeltaNetwork):
                raise InputError(
                    "the engine runs generators that send changes; choose a sigma-delta one, or "
                    "an error budget above 0"
                )
            self.engine = EngineBackend(self.network)

    @classmethod
    def from_pretrained(
        cls, name: str | Path, budget: float | None = None, backend: str = "torch"
    ) -> Self:
        """The generator that ships as `name`, or that lies in the folder `name`.

        Args:
            name: "mnist" (conventional), "mnist-sigma-delta", "mnist-spiking", or a folder.
            budget: the output error of its sigma-delta form; None for its default ("mnist" has
                0), 0 for the network as it is, run densely.
            backend: what runs it.

        Raises:
            InputError: nothing of that name or budget, or as the constructor. FileError: its files
                are damaged.
        """
        folder = generator_folder(name)
        model = load_network(folder)
        if not (folder / CERTIFICATES).exists():
            if budget is not None:
                raise InputError(f"{name} has no sigma-delta form; leave out the error budget")
            return cls(model, backend=backend)
        about = read_certificates(folder)
        options = {"sampler": about["sampler"], "steps": about["steps"], "backend": backend}
        if (budget := about["default"] if budget is None else budget) == 0:
            return cls(model, **options)
        certificates = {c.budget: c for c in about["certificates"]}
        if budget not in certificates:
            known = ", ".join(f"{b:g}" for b in certificates)
            raise InputError(f"{name} has no thresholds for budget {budget:g}; choose of {known}")
        return cls(model, certificates[budget], **options)

    def __call__(
        self,
        classes: Sequence[int] | Tensor,
        *,
        steps: int | None = None,
        seed: int = 0,
        sampler: str | None = None,
        batch: int = 250,
        metered: int | None = None,
        advance: Callable[[int], None] = lambda samples: None,
    ) -> GeneratorOutput:
        """Generate one sample for each entry of `classes`.

        The noise depends on the seed and a sample's place alone: every generator begins sample i
        with the same noise.

        Args:
            classes: class of each sample, or what else the medium takes.
            steps, sampler: of the solver; None for this generator's own.
            seed: of the noise.
            batch: samples at once, in torch.
            metered: count the operations of so many samples, rounded up to full batches, and
                run the others unwatched; None counts all, as the engine always does.
            advance: called with the number of samples done after each batch.

        Raises:
            InputError: no classes, one out of range, or what `samplers.sample` refuses.
        """
        conditions = self.medium.conditions(classes)
        solver = self._solver(steps, sampler)
        noise = self._noise(len(conditions), seed)
        began, parts, dense, skipping = time.perf_counter(), [], [], []
        with torch.inference_mode():
            starts, spent = self._starts(conditions)
            if self.engine is None:
                limit = len(noise) if metered is None else metered
                batches = self._batches(noise, conditions, starts, solver, batch, limit)
            else:
                batches = self._singles(self.engine, noise, conditions, solver)
            for x, counts, without_zeros in batches:
                parts.append(self.medium.decode(x))
                dense += [counts] if counts else []
                skipping += [without_zeros] if without_zeros else []
                advance(len(x))
        counts = sum(dense[1:], dense[0])
        return GeneratorOutput(
            np.concatenate(parts),
            counts if spent is None else _with_start(counts, spent, counts.samples / len(noise)),
            sum(skipping[1:], skipping[0]) if skipping else None,
            time.perf_counter() - began,
        )

    def seconds(
        self, steps: int | None = None, sampler: str | None = None, count: int = 8
    ) -> float:
        """The median wall time of a sample by itself, with nothing counted in torch.

        The first state of a sigma-delta network, which depends on the condition alone, is there.

        Raises:
            InputError: as a call.
        """
        solver = self._solver(steps, sampler)
        noise = self._noise(count + 1, 0)
        conditions = self.medium.conditions([0] * len(noise))
        times = []
        with torch.inference_mode():
            starts, _ = self._starts(conditions)
            for rows in torch.arange(len(noise)).split(1):
                began = time.perf_counter()
                if self.engine is None:
                    self._run(noise[rows], conditions[rows], starts(rows), solver)
                else:
                    self.engine(noise[rows][0], int(conditions[rows]), *solver)
                times.append(time.perf_counter() - began)
        return float(np.median(times[1:]))

    def _batches(
        self,
        noise: Tensor,
        conditions: Tensor,
        starts: Callable[[Tensor], State],
        solver: tuple[int, str],
        batch: int,
        metered: int,
    ) -> Iterator[Batch]:
        """Run batch by batch in torch, and count the first `metered` samples."""
        mode = ("events", 1) if isinstance(self.network, DeltaNetwork) else ("dense", 0)
        for rows in torch.arange(len(noise)).split(batch):
            meters = (Meter(self.network, *mode), Meter(self.model, "zeros"))
            with ExitStack() as stack:
                for meter in meters if rows[0] < metered else ():
                    stack.enter_context(meter)
                x = self._run(noise[rows], conditions[rows], starts(rows), solver)
            counts, without_zeros = (meter.counts() if meter.steps else None for meter in meters)
            yield x, counts, without_zeros

    def _singles(
        self, engine: EngineBackend, noise: Tensor, conditions: Tensor, solver: tuple[int, str]
    ) -> Iterator[Batch]:
        """Run sample by sample in the engine."""
        for x, condition in zip(noise, conditions.tolist(), strict=True):
            image, counts = engine(x, condition, *solver)
            yield image[None], counts, None

    def _run(
        self, noise: Tensor, conditions: Tensor, start: State, solver: tuple[int, str]
    ) -> Tensor:
        """The values of one batch in torch."""
        network, (steps, sampler) = self.network, solver
        if isinstance(network, DeltaNetwork):
            return sample(delta_step(network), noise, start, steps=steps, sampler=sampler)
        return sample(
            lambda x, t, state: (network(x, conditions), None), noise, steps=steps, sampler=sampler
        )

    def _solver(self, steps: int | None, sampler: str | None) -> tuple[int, str]:
        return self.steps if steps is None else steps, sampler or self.sampler

    def _noise(self, count: int, seed: int) -> Tensor:
        # torch draws by sixteens, and what is left over differs with the count.
        size, generator = math.prod(self.shape), torch.Generator().manual_seed(seed)
        drawn = torch.randn((count, -(-size // 16) * 16), generator=generator)
        return drawn[:, :size].reshape(count, *self.shape)

    def _starts(self, conditions: Tensor) -> tuple[Callable[[Tensor], State], Counts | None]:
        """The first states of rows of `conditions`, and what computing them took."""
        if not isinstance(self.network, DeltaNetwork):
            return lambda rows: {}, None
        kinds, index = conditions.unique(dim=0, return_inverse=True)
        with Meter(self.network.dense) as meter:
            self.network.dense(torch.zeros(len(kinds), *self.shape), kinds)
        state = self.network.start(kinds)
        return (
            lambda rows: {name: value[:, index[rows]] for name, value in state.items()},
            meter.counts(),
        )


def delta_network(model: nn.Module) -> DeltaNetwork:
    """The sigma-delta form of a generator, with thresholds of zero."""
    medium = medium_of(model)
    return sigma_delta(model, torch.zeros(1, *medium.shape), medium.conditions([0]))


def delta_step(network: DeltaNetwork) -> Network:
    """A sigma-delta network as the samplers take one."""

    def step(x: Tensor, t: float, state: State) -> tuple[Tensor, State]:
        y, state = network(x[None], state)
        return y[0], state

    return step


def _with_start(counts: Counts, spent: Counts, share: float) -> Counts:
    """`counts` with a layer and a first step, "start", that hold a `share` of `spent`."""
    steps, layers, fields = counts.table.shape
    table = np.zeros((steps + 1, layers + 1, fields))
    table[0, 0] = share * spent.table.sum((0, 1))
    table[1:, 1:] = counts.table
    return Counts((START, *counts.layers), table, counts.samples)
