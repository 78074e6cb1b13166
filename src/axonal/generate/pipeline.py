"""Images from a generator, conventional or spiking, with the counts of what was executed."""

import math
import time
from collections.abc import Iterator, Sequence
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
from ..models.flow import FlowUNet
from ..nn.meter import Meter
from ..nn.stateful import State
from .engine_backend import EngineBackend
from .features import ASSETS
from .pretrained import CERTIFICATES, START, pretrained, read_certificates
from .samplers import Network, sample


@dataclass(frozen=True)
class Generated:
    """What a generator made, and what it took.

    Attributes:
        images: [N, C, H, W] uint8.
        counts: of the run, by step and layer. A sigma-delta network's first step and layer,
            "start", hold the one dense evaluation a class that its first state comes from.
        zero_skipping: what the same run costs if zero inputs are skipped; None for sigma-delta
            networks, which never carry any.
        seconds: wall time of sampling, counting included.
    """

    images: np.ndarray
    counts: Counts
    zero_skipping: Counts | None
    seconds: float


class Generator:
    """Makes images of given classes: `generator(classes, steps=16, seed=0)`.

    Args:
        model: the trained network.
        certificate: None to run it as it is; else it runs as a sigma-delta network with the
            thresholds of the certificate.
        sampler, steps: what a call uses unless it says otherwise.
        backend: "torch", or "engine" to run a sigma-delta network one image at a time so that
            work follows events.

    Raises:
        InputError: an unknown backend, or the engine for a network that sends no changes.
    """

    def __init__(
        self,
        model: FlowUNet,
        certificate: Certificate | None = None,
        *,
        sampler: str = "euler",
        steps: int = 16,
        backend: str = "torch",
    ):
        config = model.config
        self.model, self.certificate = model, certificate
        self.sampler, self.steps = sampler, steps
        self.shape = (config.channels, config.size, config.size)
        self.network: nn.Module = model
        if certificate is not None:
            self.network = changes(model)
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
        folder = ASSETS / str(name) if str(name) in pretrained() else Path(name)
        if not (folder / "config.json").exists() or "classifier" in folder.name:
            raise InputError(f"no generator {str(name)!r}; there are {', '.join(pretrained())}")
        model = FlowUNet.load(folder)
        if not (folder / CERTIFICATES).exists():
            if budget is not None:
                raise InputError(f"{name} has no sigma-delta form; leave out the error budget")
            return cls(model, backend=backend)
        found = read_certificates(folder)
        options = {"sampler": found["sampler"], "steps": found["steps"], "backend": backend}
        if (budget := found["default"] if budget is None else budget) == 0:
            return cls(model, **options)
        certificates = {c.budget: c for c in found["certificates"]}
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
        advance=lambda images: None,
    ) -> Generated:
        """Generate one image for each entry of `classes`.

        The noise depends on the seed and an image's place alone: every generator begins image i
        with the same noise.

        Args:
            classes: class of each image.
            steps, sampler: of the solver; None for this generator's own.
            seed: of the noise.
            batch: images at once, in torch.
            metered: count the operations of so many images, rounded up to whole batches, and
                run the others unwatched; None counts all, as the engine always does.
            advance: called with the number of images done after each batch.

        Raises:
            InputError: no classes, one out of range, or what `samplers.sample` refuses.
        """
        labels = self._labels(classes)
        steps, sampler = steps if steps is not None else self.steps, sampler or self.sampler
        noise = self._noise(len(labels), seed)
        began, parts, dense, skipping = time.perf_counter(), [], [], []
        with torch.inference_mode():
            starts, spent = self._starts(labels)
            if self.engine is None:
                runs = self._folded(noise, labels, starts, steps, sampler, batch, metered)
            else:
                runs = self._followed(self.engine, noise, labels, steps, sampler)
            for x, *found in runs:
                parts.append(((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy())
                for counts, kept in zip(found, (dense, skipping), strict=True):
                    kept += [counts] if counts else []
                advance(len(x))
        counts = sum(dense[1:], dense[0])
        return Generated(
            np.concatenate(parts),
            counts if spent is None else _with_start(counts, spent, counts.samples / len(labels)),
            sum(skipping[1:], skipping[0]) if skipping else None,
            time.perf_counter() - began,
        )

    def seconds(
        self, steps: int | None = None, sampler: str | None = None, count: int = 8
    ) -> float:
        """The median wall time of an image made alone, with nothing counted in torch.

        The first state of a sigma-delta network, which depends on the class alone, is there.

        Raises:
            InputError: as a call.
        """
        steps, sampler = steps if steps is not None else self.steps, sampler or self.sampler
        noise, labels = self._noise(count + 1, 0), torch.zeros(count + 1, dtype=torch.long)
        found = []
        with torch.inference_mode():
            starts, _ = self._starts(labels)
            for x, label in zip(noise.split(1), labels.split(1), strict=True):
                began = time.perf_counter()
                if self.engine is None:
                    self._run(x, label, starts, steps, sampler)
                else:
                    self.engine(x[0], int(label), steps, sampler)
                found.append(time.perf_counter() - began)
        return float(np.median(found[1:]))

    def _followed(
        self, backend: EngineBackend, noise: Tensor, labels: Tensor, steps: int, sampler: str
    ) -> Iterator[tuple[Tensor, Counts, None]]:
        """Image by image in the engine: [1, C, H, W] and its counts."""
        for x, label in zip(noise, labels.tolist(), strict=True):
            image, counts = backend(x, label, steps, sampler)
            yield image[None], counts, None

    def _folded(
        self,
        noise: Tensor,
        labels: Tensor,
        starts: State,
        steps: int,
        sampler: str,
        batch: int,
        metered: int | None,
    ) -> Iterator[tuple[Tensor, Counts | None, Counts | None]]:
        """Batch by batch in torch: [B, C, H, W], its counts, and those that skip zeros."""
        for rows in torch.arange(len(labels)).split(batch):
            meters = (Meter(self.network, *self._mode), Meter(self.model, "zeros"))
            with ExitStack() as stack:
                for meter in meters if metered is None or rows[0] < metered else ():
                    stack.enter_context(meter)
                x = self._run(noise[rows], labels[rows], starts, steps, sampler)
            yield x, *(meter.counts() if meter.steps else None for meter in meters)

    def _noise(self, count: int, seed: int) -> Tensor:
        # torch draws by sixteens, and what is left over differs with the count.
        size, generator = math.prod(self.shape), torch.Generator().manual_seed(seed)
        drawn = torch.randn((count, -(-size // 16) * 16), generator=generator)
        return drawn[:, :size].reshape(count, *self.shape)

    @property
    def _mode(self) -> tuple:
        return ("events", 1) if isinstance(self.network, DeltaNetwork) else ("dense", 0)

    def _labels(self, classes: Sequence[int] | Tensor) -> Tensor:
        labels = torch.as_tensor(classes)
        known = self.model.config.classes
        if labels.dim() != 1 or not len(labels) or labels.is_floating_point():
            raise InputError("classes must be a list of at least one class number")
        if labels.min() < 0 or labels.max() >= known:
            wrong = int(labels[(labels < 0) | (labels >= known)][0])
            raise InputError(f"class {wrong} does not exist; classes are 0 to {known - 1}")
        return labels.long()

    def _starts(self, labels: Tensor) -> tuple[State, Counts | None]:
        """The first state of every class in use, by class, and what making them took."""
        if not isinstance(self.network, DeltaNetwork):
            return {}, None
        classes = labels.unique()
        with Meter(self.network.dense) as meter:
            self.network.dense(torch.zeros(len(classes), *self.shape), classes)
        state = {}
        for name, value in self.network.start(classes).items():
            state[name] = value.new_zeros(len(value), self.model.config.classes, *value.shape[2:])
            state[name][:, classes] = value
        return state, meter.counts()

    def _run(
        self, noise: Tensor, labels: Tensor, starts: State, steps: int, sampler: str
    ) -> Tensor:
        if not isinstance(network := self.network, DeltaNetwork):
            return sample(
                lambda x, t, state: (network(x, labels), None), noise, steps=steps, sampler=sampler
            )

        state = {name: value[:, labels] for name, value in starts.items()}
        return sample(by_changes(network), noise, state, steps=steps, sampler=sampler)


def changes(model: FlowUNet) -> DeltaNetwork:
    """The sigma-delta form of `model`, with thresholds of zero.

    Raises:
        InputError: as `convert.sigma_delta.sigma_delta`.
    """
    config = model.config
    blank = torch.zeros(1, config.channels, config.size, config.size)
    return sigma_delta(model, blank, torch.zeros(1).long())


def by_changes(network: DeltaNetwork) -> Network:
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
