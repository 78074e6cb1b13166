"""The training loop: one recipe in, averaged weights out, interrupted and resumed exactly.

Batches and noise are functions of (seed, step), so that a run killed at any moment goes on from
its last checkpoint with the losses it would have had.
"""

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ..core import files
from ..core.errors import FileError, InputError

Batch = dict[str, Tensor]
Loss = Callable[[nn.Module, Batch, torch.Generator], tuple[Tensor, dict[str, Tensor]]]
CHECKPOINT, LOG = "checkpoint.safetensors", "log.jsonl"


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
        KeyboardInterrupt: Ctrl-C was pressed; the step under way was finished and stored first.
    """
    folder, device = Path(folder), torch.device(device)
    torch.manual_seed(recipe.seed)
    run = _Run(recipe, device)
    start = run.restore(folder / CHECKPOINT) if (folder / CHECKPOINT).exists() else 0
    batches = _batches(recipe, recipe.data(), start, device)
    progress, note = _progress(recipe.name, start, recipe.steps), ""
    with _log(folder, start) as log, progress as advance, _interrupt() as interrupt:
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
                note = f"loss {value:.4f}"
            advance(note)
            if (step + 1) % recipe.checkpoint_every == 0 or last or interrupt.asked:
                run.store(folder / CHECKPOINT, step + 1)
            if interrupt.asked:
                raise KeyboardInterrupt
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
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.items()}
        for name, parameter in self.parameters.items():
            state = self.optimiser.state.get(parameter, {})
            tensors |= {f"{kind}.{name}": value for kind, value in state.items()}
        return tensors

    def store(self, path: Path, step: int) -> None:
        tensors = {k: v.detach().cpu().contiguous() for k, v in self._tensors().items()}
        about = {"recipe": self.recipe.name, "seed": str(self.recipe.seed), "step": str(step)}
        files.write(path, save(tensors, about))

    def restore(self, path: Path) -> int:
        try:
            with safe_open(path, "pt", device=str(self.device)) as file:
                about = file.metadata() or {}
                saved = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            theirs = f"recipe {about.get('recipe')!r}, seed {about.get('seed')}"
            if theirs != f"recipe {self.recipe.name!r}, seed {self.recipe.seed}":
                raise ValueError(f"it was made by {theirs}")
            if not 0 <= (step := int(about.get("step", -1))) <= self.recipe.steps:
                raise ValueError(f"its step {step} is not one of this run")
            self._adopt(saved)
        except (OSError, SafetensorError, ValueError) as error:
            raise FileError(
                f"can't resume from {path}: {error}; choose another folder, or remove the file "
                "to start again"
            ) from error
        return step

    def _adopt(self, saved: Batch) -> None:
        def take(key: str, own: Tensor) -> Tensor:
            if key not in saved or saved[key].shape != own.shape:
                raise ValueError(f"it holds no {key} of shape {tuple(own.shape)}")
            # The fused optimiser pairs numbers by address: its state must lie as the weights do.
            return torch.empty_like(own).copy_(saved.pop(key))

        state = self.network.state_dict()
        self.network.load_state_dict({k: take(f"network.{k}", v) for k, v in state.items()})
        self.average = {k: take(f"average.{k}", v) for k, v in self.average.items()}
        for name, parameter in self.parameters.items():
            if f"step.{name}" in saved:  # not before its first gradient
                own = parameter.detach()
                moments = {k: take(f"{k}.{name}", own) for k in ("exp_avg", "exp_avg_sq")}
                count = take(f"step.{name}", torch.zeros((), device=self.device))
                self.optimiser.state[parameter] = {"step": count} | moments
        if saved:
            raise ValueError(f"it holds {min(saved)}, which the network lacks")


def _batches(recipe: Recipe, data: Batch, start: int, device: torch.device) -> Iterator[Batch]:
    data = {name: tensor.to(device) for name, tensor in data.items()}
    counts = {len(tensor) for tensor in data.values()}
    if len(counts) != 1:
        raise InputError(f"recipe {recipe.name}: its data have the lengths {sorted(counts)}")
    each = (count := counts.pop()) // recipe.batch
    if each < 1:
        raise InputError(
            f"recipe {recipe.name}: {count} samples are less than one batch of {recipe.batch}"
        )
    epoch, order = -1, torch.empty(0)
    for step in range(start, recipe.steps):
        if step // each != epoch:
            epoch = step // each
            order = torch.randperm(count, generator=recipe.generator(0, epoch, torch.device("cpu")))
        pick = order[(step % each) * recipe.batch :][: recipe.batch].to(device)
        yield {name: tensor[pick] for name, tensor in data.items()}


class _log:
    """Appends JSON lines to `folder/log.jsonl`; what an earlier run wrote after `start` goes."""

    def __init__(self, folder: Path, start: int):
        self.path = folder / LOG
        lines = self.path.read_text().splitlines() if start and self.path.exists() else []
        kept = [line for line in lines if 0 <= _step_of(line) < start]
        self.before = float(json.loads(kept[-1]).get("seconds", 0.0)) if kept else 0.0
        files.write(self.path, "".join(line + "\n" for line in kept))

    def __enter__(self):
        self.file, self.began = self.path.open("a", buffering=1), time.monotonic()
        return self

    def __call__(self, row: dict) -> None:
        row["seconds"] = round(self.before + time.monotonic() - self.began, 1)
        self.file.write(json.dumps(row) + "\n")

    def __exit__(self, *_):
        self.file.close()


def _step_of(line: str) -> int:
    """The step of a line of the log, or -1: a run that is killed can leave half a line behind."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return -1


class _interrupt:
    """Lets Ctrl-C wait for the end of a step, whose state is whole; the second one does not wait.

    Off the main thread, where Python delivers no signals, it does nothing.
    """

    asked = False

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            self.before = signal.signal(signal.SIGINT, self._ask)
        return self

    def _ask(self, *_):
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def __exit__(self, *_):
        if hasattr(self, "before"):
            signal.signal(signal.SIGINT, self.before)


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
