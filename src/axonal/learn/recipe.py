"""A training run as data."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..core.errors import InputError

Batch = dict[str, Tensor]
Loss = Callable[[nn.Module, Batch, torch.Generator], tuple[Tensor, dict[str, Tensor]]]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole training run as data.

    Attributes:
        name: what the run is called in files and on screen.
        build: function that returns the untrained network.
        data: function that returns the training tensors, all of one length along dimension 0.
            Integers [N] named "label" are taken for classes.
        loss: (network, batch, generator) -> (loss, figures to log); also evaluates, the network
            then in evaluation mode and gradients off.
        steps, batch: optimiser steps, and samples in each, over all processes.
        lr, warmup, weight_decay, clip: AdamW with linear warm-up, cosine decay, gradient clipping.
        ema: decay of the averaged weights and statistics, which are the result.
        seed: of initialisation, order and noise.
        precision: "float32", "bfloat16", or "auto": bfloat16 where the machine has tiles for it.
        compile: use torch.compile; None: on GPUs, where it was measured to pay.
        log_every, checkpoint_every, evaluate_every: steps from one to the next.
        held_out: function that returns the tensors to evaluate the average on, if any.
        checkup: figures of the network to log where it is evaluated, such as `doctor.checkup`;
            leaves it as it is. Not called with a network that is sharded.
        patience: end after so many evaluations without a lower loss, with the average that had
            the lowest; 0 never ends early.
        shard: where there are several processes, shard the parameters over them too. For that
            the loss may only call the network, and take no gradients itself.

    Raises:
        InputError: a number out of range, or patience with nothing held out.
    """

    name: str
    build: Callable[[], nn.Module]
    data: Callable[[], Batch]
    loss: Loss
    steps: int
    batch: int = 128
    lr: float = 1e-3
    warmup: int = 200
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.999
    seed: int = 0
    precision: str = "auto"
    compile: bool | None = None
    log_every: int = 50
    checkpoint_every: int = 500
    held_out: Callable[[], Batch] | None = None
    evaluate_every: int = 500
    checkup: Callable[[nn.Module], dict[str, float]] | None = None
    patience: int = 0
    shard: bool = False

    def __post_init__(self):
        intervals = (self.log_every, self.checkpoint_every, self.evaluate_every)
        if min(self.steps, self.batch, *intervals) < 1:
            raise InputError(f"recipe {self.name}: steps, batch and intervals must be at least 1")
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise InputError(f"recipe {self.name}: precision {self.precision!r} is unknown")
        if self.patience < 0 or (self.patience and not self.held_out):
            raise InputError(f"recipe {self.name}: patience is below 0, or lacks held_out")

    def rate(self, step: int) -> float:
        """The learning rate of `step`."""
        warm = min(1.0, (step + 1) / max(1, self.warmup))
        return self.lr * warm * 0.5 * (1 + math.cos(math.pi * step / self.steps))

    def number(self, *purpose: int) -> int:
        """A seed that depends on the recipe's seed, a purpose, and on nothing else."""
        return hash((self.seed, *purpose)) & 0x7FFF_FFFF_FFFF_FFFF

    def generator(
        self, purpose: int, index: int, device: torch.device, rank: int = 0
    ) -> torch.Generator:
        """A generator that depends on the seed, a purpose, an index and the process."""
        seed = self.number(purpose, index, *([rank] if rank else []))
        return torch.Generator(device).manual_seed(seed)

    def autocast(self, device: torch.device) -> torch.autocast:
        """The context of the recipe's precision."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self._mixed(device))

    def compiles(self, device: torch.device) -> bool:
        """Whether the network is compiled.

        Raises:
            InputError: it is asked for in bfloat16 on a CPU, where torch 2.13 gets gradients wrong:
                what scatters them (nearest upsampling, maxima) is read before it is written.
        """
        wrong = device.type == "cpu" and self._mixed(device)
        if self.compile and wrong:
            raise InputError(
                f"recipe {self.name}: on CPUs torch.compile in bfloat16 makes gradients zero; "
                "set compile=False, or precision='float32'"
            )
        return device.type == "cuda" if self.compile is None else self.compile

    def _mixed(self, device: torch.device) -> bool:
        return has_tiles(device) if self.precision == "auto" else self.precision == "bfloat16"


def has_tiles(device: torch.device) -> bool:
    """Whether the machine multiplies bfloat16 in tiles."""
    return device.type == "cuda" or torch.cpu._is_amx_tile_supported()
