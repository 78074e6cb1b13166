"""The training loop: one recipe in, averaged weights out, interrupted and resumed exactly.

Batches and noise are functions of (seed, step), so that a run killed at any moment goes on from
its last checkpoint with the losses it would have had.
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..core import files
from ..core.errors import FileError, InputError

Batch = dict[str, Tensor]
Loss = Callable[[nn.Module, Batch, torch.Generator], tuple[Tensor, dict[str, Tensor]]]
CHECKPOINT = "checkpoint.safetensors"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole training run as data.

    Attributes:
        name: what the run is called in files and on screen.
        build: makes the untrained network.
        data: makes the training tensors, all of one length along dimension 0.
        loss: (network, batch, generator) -> (loss, figures to log).
        steps, batch: optimiser steps, and samples in each.
        lr, warmup, weight_decay, clip: AdamW with linear warm-up, cosine decay, gradient clipping.
        ema: decay of the averaged weights, which are the result.
        seed: of initialisation, order and noise.
        precision: "float32", "bfloat16", or "auto": bfloat16 where the machine has tiles for it.
        compile: use torch.compile; None lets the precision decide, where it was measured to pay.
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

    def __post_init__(self):
        if min(self.steps, self.batch, self.log_every, self.checkpoint_every) < 1:
            raise InputError(f"recipe {self.name}: steps, batch and intervals must be at least 1")
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise InputError(f"recipe {self.name}: precision {self.precision!r} is unknown")

    def rate(self, step: int) -> float:
        """The learning rate of `step`."""
        warm = min(1.0, (step + 1) / max(1, self.warmup))
        return self.lr * warm * 0.5 * (1 + math.cos(math.pi * step / self.steps))

    def generator(self, purpose: int, index: int, device: torch.device) -> torch.Generator:
        """A generator that depends on the seed, a purpose and an index, and on nothing else."""
        generator = torch.Generator(device)
        return generator.manual_seed(hash((self.seed, purpose, index)) & 0x7FFF_FFFF_FFFF_FFFF)


def fit(recipe: Recipe, folder: str | Path, device: str | torch.device = "cpu") -> nn.Module:
    """Run `recipe`, or go on with it if `folder` holds a checkpoint of it.

    Writes `checkpoint.safetensors` (state to go on from) and `log.jsonl` into `folder`.

    Returns:
        The network with averaged weights, in evaluation mode.

    Raises:
        FileError: the folder can't be written, or its checkpoint belongs to another run.
        InputError: the loss became NaN or infinite; the last checkpoint is kept.
    """
    folder, device = Path(folder), torch.device(device)
    torch.manual_seed(recipe.seed)
    run = _Run(recipe, device)
    start = run.restore(folder / CHECKPOINT) if (folder / CHECKPOINT).exists() else 0
    batches = _batches(recipe, recipe.data(), start, device)
    step = start
    try:
        with _log(folder, start) as log, _progress(recipe.name, start, recipe.steps) as advance:
            for step, batch in enumerate(batches, start):
                loss, figures = run.step(step, batch)
                last = step + 1 == recipe.steps
                if step % recipe.log_every == 0 or last:
                    if not math.isfinite(value := loss.item()):
                        raise InputError(
                            f"{recipe.name}: the loss is {value} at step {step}; lower the "
                            f"learning rate; the last checkpoint in {folder} is intact"
                        )
                    log({"step": step, "loss": value} | {k: float(v) for k, v in figures.items()})
                advance(f"loss {value:.4f}")
                if (step + 1) % recipe.checkpoint_every == 0 or last:
                    run.store(folder / CHECKPOINT, step + 1)
    except KeyboardInterrupt:
        run.store(folder / CHECKPOINT, step)
        raise
    return run.averaged()


class _Run:
    """What changes during a run: the network, its average and the optimiser."""

    def __init__(self, recipe: Recipe, device: torch.device):
        tiles = device.type == "cuda" or torch.cpu._is_amx_tile_supported()
        auto = "bfloat16" if tiles else "float32"
        self.precision = auto if recipe.precision == "auto" else recipe.precision
        self.recipe, self.device = recipe, device
        self.network = recipe.build().to(device, memory_format=torch.channels_last).train()
        compiled = tiles if recipe.compile is None else recipe.compile
        self.forward = torch.compile(self.network) if compiled else self.network
        self.parameters = dict(self.network.named_parameters())
        self.average = {k: p.detach().clone() for k, p in self.parameters.items()}
        self.optimiser = torch.optim.AdamW(
            self.parameters.values(),
            lr=recipe.lr,
            betas=(0.9, 0.99),
            weight_decay=recipe.weight_decay,
            fused=True,
        )

    def step(self, step: int, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        generator = self.recipe.generator(1, step, self.device)
        mixed = self.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=mixed):
            loss, figures = self.recipe.loss(self.forward, batch, generator)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters.values(), self.recipe.clip)
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.rate(step)
        if torch.isfinite(norm):
            self.optimiser.step()
        self.optimiser.zero_grad()
        keep = min(self.recipe.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            now = [p.detach() for p in self.parameters.values()]
            torch._foreach_lerp_(list(self.average.values()), now, 1 - keep)
        return loss.detach(), figures

    def averaged(self) -> nn.Module:
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(self.average[name])
        return self.network.eval()

    def _tensors(self) -> Batch:
        state = self.optimiser.state
        return (
            {f"network.{k}": v for k, v in self.network.state_dict().items()}
            | {f"average.{k}": v for k, v in self.average.items()}
            | {f"{kind}.{k}": state[p][kind] for k, p in self.parameters.items() for kind in state[p]}
        )

    def store(self, path: Path, step: int) -> None:
        tensors = {k: v.detach().cpu().contiguous() for k, v in self._tensors().items()}
        about = {"recipe": self.recipe.name, "seed": str(self.recipe.seed), "step": str(step)}
        files.write(path, lambda partial: save_file(tensors, partial, about))

    def restore(self, path: Path) -> int:
        try:
            with safe_open(path, "pt", device=str(self.device)) as file:
                about = file.metadata() or {}
                saved = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            mine = (self.recipe.name, str(self.recipe.seed))
            if (about.get("recipe"), about.get("seed")) != mine:
                raise ValueError(f"it was made by recipe {about.get('recipe')!r}, seed {about.get('seed')}")
            step = int(about["step"])
            with torch.no_grad():
                own = self.network.state_dict()
                self.network.load_state_dict({k: saved[f"network.{k}"] for k in own})
                for name, parameter in self.parameters.items():
                    self.average[name].copy_(saved[f"average.{name}"])
                    if step:
                        kinds = ("step", "exp_avg", "exp_avg_sq")
                        self.optimiser.state[parameter] = {k: saved[f"{k}.{name}"] for k in kinds}
        except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
            raise FileError(
                f"can't resume from {path}: {error}; choose another folder, or remove the file "
                "to start again"
            ) from error
        return step


def _batches(recipe: Recipe, data: Batch, start: int, device: torch.device) -> Iterator[Batch]:
    data = {name: tensor.to(device) for name, tensor in data.items()}
    count = len(next(iter(data.values())))
    each = count // recipe.batch
    if each < 1:
        raise InputError(f"recipe {recipe.name}: {count} samples are less than one batch")
    epoch, order = -1, torch.empty(0)
    for step in range(start, recipe.steps):
        if step // each != epoch:
            epoch = step // each
            order = torch.randperm(count, generator=recipe.generator(0, epoch, torch.device("cpu")))
        pick = order[(step % each) * recipe.batch :][: recipe.batch].to(device)
        yield {name: tensor[pick] for name, tensor in data.items()}


class _log:
    """Appends JSON lines to `folder/log.jsonl`, dropping what an earlier run wrote after `start`."""

    def __init__(self, folder: Path, start: int):
        self.path = folder / "log.jsonl"
        lines = self.path.read_text().splitlines() if start and self.path.exists() else []
        kept = [line for line in lines if json.loads(line)["step"] < start]
        files.write(self.path, "".join(line + "\n" for line in kept))

    def __enter__(self):
        self.file, self.began = self.path.open("a", buffering=1), time.monotonic()
        return self

    def __call__(self, row: dict) -> None:
        row["seconds"] = round(time.monotonic() - self.began, 1)
        self.file.write(json.dumps(row) + "\n")

    def __exit__(self, *_):
        self.file.close()


class _progress:
    """A rich progress bar as a function to call once a step."""

    def __init__(self, name: str, start: int, total: int):
        columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        self.bar = Progress(*columns, TextColumn("{task.fields[note]}"))
        self.task = self.bar.add_task(name, total=total, completed=start, note="")

    def __enter__(self):
        self.bar.start()
        return lambda note: self.bar.update(self.task, advance=1, note=note)

    def __exit__(self, *_):
        self.bar.stop()
