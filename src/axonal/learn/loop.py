"""The training loop: one recipe in, averaged weights out, interrupted and resumed exactly.

Batches and noise are functions of (seed, step), so that a run killed at any moment goes on from
its last checkpoint with the losses it would have had; also on another number of processes, but
for noise, which each draws for its own rows.
"""

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ..core.errors import FileError, InputError
from .batches import Batch, Batches
from .processes import Processes
from .progress import Bar, Interrupt, Log
from .run import Loss, Objective, Run, evaluated, tiles

CHECKPOINT = "checkpoint.safetensors"
LOOK = 16  # steps between two looks at what a GPU has done; each look waits for it


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole training run as data.

    Over several processes batch normalisation sees the rows of its own; its running statistics
    are the mean of all.

    Attributes:
        name: what the run is called in files and on screen.
        build: makes the untrained network.
        data: makes the training tensors, all of one length along dimension 0.
        loss: (network, batch, generator) -> (loss, figures to log); also evaluates, the network
            then in evaluation mode and gradients off.
        steps, batch: optimiser steps, and samples in each, over all processes.
        lr, warmup, weight_decay, clip: AdamW with linear warm-up, cosine decay, gradient clipping.
        ema: decay of the averaged weights and statistics, which are the result.
        seed: of initialisation, order and noise.
        precision: "float32", "bfloat16", or "auto": bfloat16 where the machine has tiles for it.
        compile: use torch.compile; None lets the precision decide, where it was measured to pay.
        held_out: makes the tensors that the average is evaluated on, if any.
        evaluate_every: steps from one evaluation to the next.
        patience: end after so many evaluations without a lower loss, with the average that had
            the lowest; 0 never ends early.
        shard: where there are several processes, spread the parameters over them too. For that
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
    patience: int = 0
    shard: bool = False

    def __post_init__(self):
        intervals = (self.log_every, self.checkpoint_every, self.evaluate_every)
        if min(self.steps, self.batch, *intervals) < 1:
            raise InputError(f"recipe {self.name}: steps, batch and intervals must be at least 1")
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise InputError(f"recipe {self.name}: precision {self.precision!r} is unknown")
        if self.patience < 0 or (self.patience and self.held_out is None):
            raise InputError(
                f"recipe {self.name}: patience {self.patience} is below 0, or lacks held_out"
            )

    def rate(self, step: int) -> float:
        """The learning rate of `step`."""
        warm = min(1.0, (step + 1) / max(1, self.warmup))
        return self.lr * warm * 0.5 * (1 + math.cos(math.pi * step / self.steps))

    def number(self, *purpose: int) -> int:
        """A seed that depends on the recipe's, a purpose, and on nothing else."""
        return hash((self.seed, *purpose)) & 0x7FFF_FFFF_FFFF_FFFF

    def generator(
        self, purpose: int, index: int, device: torch.device, rank: int = 0
    ) -> torch.Generator:
        """A generator that depends on the seed, a purpose, an index and the process."""
        seed = self.number(purpose, index, *([rank] if rank else []))
        return torch.Generator(device).manual_seed(seed)

    def autocast(self, device: torch.device) -> torch.autocast:
        """The context of the recipe's precision."""
        mixed = tiles(device) if self.precision == "auto" else self.precision == "bfloat16"
        return torch.autocast(device.type, torch.bfloat16, enabled=mixed)


def fit(
    recipe: Recipe,
    folder: str | Path,
    device: str | torch.device = "cpu",
    *,
    tensorboard: bool = False,
) -> nn.Module:
    """Run `recipe`, or go on with it if `folder` holds a checkpoint of it.

    Writes `checkpoint.safetensors` (state to go on from) and `log.jsonl` into `folder`. Started
    by torchrun, every process calls this, takes its share of each batch and sees the same folder.

    Args:
        recipe: the run.
        folder: of its files.
        device: "cpu" or "cuda"; of several processes each takes a GPU of its own.
        tensorboard: write the log for TensorBoard too, into `folder/tensorboard`.

    Returns:
        The network with averaged weights, in evaluation mode; on the CPU if it was sharded.

    Raises:
        FileError: the folder can't be written, or its checkpoint belongs to another run.
        InputError: the data don't fit, or the loss or a gradient became NaN or infinite: says in
            which step and from which layer; the last checkpoint is kept.
        KeyboardInterrupt: Ctrl-C was pressed; the step under way was finished and stored first.
        MissingExtra: TensorBoard is not installed.
        ProcessError: another process has ended.
    """
    folder, us = Path(folder), Processes.joined(device)
    with us.together(f"what {folder} holds is intact"):
        torch.manual_seed(recipe.seed)
        batches, run = Batches(recipe, us), Run(recipe, us)
        start = run.restore(folder / CHECKPOINT) if (folder / CHECKPOINT).exists() else 0
        if len({*us.words(str(start))}) > 1:
            raise FileError(f"the processes don't see the same {folder}; put it on a shared disk")
        held = recipe.held_out() if recipe.held_out else None
        silent = nullcontext(lambda step, figures: None)
        log = Log(folder, start, tensorboard) if us.first else silent
        bar = Bar(recipe.name, start, recipe.steps, us.first)
        with log as log, bar as advance, Interrupt() as interrupt:
            for step in range(start, start if run.over else recipe.steps):
                figures = run.step(step, batches(step), interrupt)
                last = step + 1 == recipe.steps
                logs = last or step % recipe.log_every == 0
                checks = last or (step + 1) % recipe.evaluate_every == 0
                stores = last or (step + 1) % recipe.checkpoint_every == 0
                looks = us.device.type == "cpu" or step % LOOK == LOOK - 1
                if not (logs or (held and checks) or stores or looks):
                    advance({})
                    continue
                if (first := int(run.failed)) >= 0:
                    word = run.culprit(first, batches(first))
                    raise InputError(
                        f"{recipe.name}: {word}; the last checkpoint in {folder} is intact"
                    )
                advance(values := run.mean(figures))
                if logs:
                    log(step, values)
                if held and checks:
                    log(step, {"held_out": run.evaluate(held)})
                asked = bool(run.asked)
                if stores or asked or run.over:
                    run.store(folder / CHECKPOINT, step + 1)
                if asked:
                    raise KeyboardInterrupt
                if run.over:
                    break
        return run.result()


def evaluate(
    network: nn.Module,
    recipe: Recipe,
    data: Batch,
    device: str | torch.device = "cpu",
    batch: int | None = None,
) -> dict[str, float]:
    """The recipe's loss and figures of a network, averaged over all samples of `data`.

    The network runs in evaluation mode, without gradients, in batches of `batch` (the recipe's).
    The noise of the loss is always the same.

    Raises:
        InputError: the data are empty or of several lengths.
    """
    us, training = Processes(device=torch.device(device)), network.training
    try:
        return evaluated(Objective(network.eval(), recipe.loss), recipe, data, us, batch)
    finally:
        network.train(training)
