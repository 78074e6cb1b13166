"""The training loop: one recipe in, averaged weights out, interrupted and resumed exactly.

Batches and noise are functions of (seed, step), so that a run killed at any moment goes on from
its last checkpoint with the losses it would have had; also on another number of processes, but
for noise, which each draws for its own rows. Each normalises batches over its own rows too.
"""

import math
from collections.abc import Collection, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ..core import files
from ..core.errors import FileError, InputError, NotFinite
from .distributed import Processes, fill, part, whole
from .logging import bar, interrupts, log
from .nonfinite import culprit
from .recipe import Batch, Batches, Recipe, length, tiles

CHECKPOINT = "checkpoint.safetensors"
LOOK = 16  # steps between two looks at what a GPU has done; each look waits for it


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
        held = recipe.held_out() if recipe.held_out else {}
        lines = nullcontext(lambda *row: None) if us.rank else log(folder, start, tensorboard)
        shown = bar(recipe.name, start, recipe.steps, us.rank == 0)
        with lines as write, shown as advance, interrupts() as asked:
            for step in range(start, recipe.steps):
                if run.over:
                    break
                figures = run.step(step, batches(step), asked)
                last = step + 1 == recipe.steps
                logs = last or step % recipe.log_every == 0
                checks = last or (step + 1) % recipe.evaluate_every == 0
                stores = last or (step + 1) % recipe.checkpoint_every == 0
                looks = us.device.type == "cpu" or step % LOOK == LOOK - 1
                if not (logs or checks or stores or looks):
                    advance({})
                    continue
                if (first := int(run.failed)) >= 0:
                    word = run.culprit(first, batches(first))
                    raise InputError(
                        f"{recipe.name}: {word}; the last checkpoint in {folder} is intact"
                    )
                advance(values := run.mean(figures))
                if logs:
                    write(step, values)
                if checks and held:
                    write(step, {"held_out": run.evaluate(held)})
                if checks and recipe.checkup and not run.sharded:
                    write(step, {"checkup": recipe.checkup(run.network)})
                if stores or run.over or run.asked:
                    run.store(folder / CHECKPOINT, step + 1)
                if run.asked:
                    raise KeyboardInterrupt
        return run.result()


def evaluate(network: nn.Module, recipe: Recipe, data: Batch) -> dict[str, float]:
    """The recipe's loss and figures of a network, averaged over all samples of `data`.

    The network runs where it is, in evaluation mode, without gradients. The noise of the loss is
    always the same.

    Raises:
        InputError: the data are empty or of several lengths.
    """
    us = Processes(device=next(network.parameters()).device)
    return _evaluated(Step(network, recipe, us), recipe, data)


@torch.no_grad()
def _evaluated(objective: "Step", recipe: Recipe, data: Batch) -> dict[str, float]:
    us, training, sums = objective.us, objective.network.training, {}
    count = length(recipe, data)
    objective.eval()
    for index, rows in enumerate(torch.arange(count).split(recipe.batch)):
        mine = rows[us.rank :: us.count]
        # Who has no row left still takes part: sharded weights need every process.
        picked = mine if len(mine) else rows[:1]
        batch = {name: tensor[picked].to(us.device) for name, tensor in data.items()}
        with recipe.autocast(us.device):
            loss, figures = objective(batch, recipe.generator(2, index, us.device, us.rank))
        for name, value in {"loss": loss, **figures}.items():
            sums[name] = sums.get(name, 0.0) + len(mine) * float(value)
    objective.train(training)
    us.average([means := torch.tensor([*sums.values()], dtype=torch.float64) / count])
    return dict(zip(sums, (means * us.count).tolist(), strict=True))


class Step(nn.Module):
    """The recipe's loss as a module, so that one call is one step, whatever the loss does."""

    def __init__(self, network: nn.Module, recipe: Recipe, us: Processes):
        super().__init__()
        self.network, self.loss, self.us = network, recipe.loss, us
        self.sharded = recipe.shard and us.count > 1

    def forward(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and figures of this process's rows."""
        try:
            loss, figures = self.loss(self.network, batch, generator)
        except NotFinite:
            # A scan that found NaN ends the step as a loss of NaN does, in all processes alike.
            if self.sharded or not self.training:
                raise
            loss, figures = math.nan * self._nothing(), {}
        # DDP would wait for the parameters that a loss doesn't use.
        return loss + self._nothing() if self.us.count > 1 and not self.sharded else loss, figures

    def _nothing(self) -> Tensor:
        return 0 * torch.stack([p.sum() for p in self.parameters() if p.requires_grad]).sum()


class Run:
    """What changes during a run: the network, its average, the optimiser, the best figure."""

    def __init__(self, recipe: Recipe, us: Processes):
        self.recipe, self.us = recipe, us
        self.sharded = recipe.shard and us.count > 1
        order = torch.contiguous_format if self.sharded else torch.channels_last
        network: Any = recipe.build()
        self.network: nn.Module = network.to(us.device, memory_format=order).train()
        compiled = tiles(us.device) if recipe.compile is None else recipe.compile
        called: Any = torch.compile(self.network) if compiled else self.network
        self.objective = Step(called, recipe, us)
        self.forward = us.spread(self.objective, self.network, recipe.shard)
        state = self.network.state_dict(keep_vars=True)
        self.live = {k: v.detach() for k, v in state.items() if v.is_floating_point()}
        self.average = {k: v.clone() for k, v in self.live.items()}
        self.best = {k: v.clone() for k, v in self.live.items()} if recipe.patience else {}
        self.lowest, self.since = math.inf, 0
        self.asked, self.failed = torch.zeros(()), torch.tensor(-1, device=us.device)
        sharded = [p for p in self.network.parameters() if part(p) is not p]
        others = [p for p in self.network.parameters() if part(p) is p]
        self.groups = [group for group in (sharded, others) if group]
        self.optimiser: Any = torch.optim.AdamW(
            [{"params": group} for group in self.groups],
            lr=recipe.lr,
            betas=(0.9, 0.99),
            weight_decay=recipe.weight_decay,
            fused=True,
        )
        self.tensors = self._tensors()

    @property
    def over(self) -> bool:
        """Whether patience has ended."""
        return 0 < self.recipe.patience <= self.since

    def step(self, step: int, batch: Batch, asked: Collection) -> dict[str, Tensor]:
        """Learn from a batch; returns the loss of all processes, and the figures of this one.

        Sets `failed`, the first step that was not finite, and `asked`, whether any process was by
        its end: both may still be under way on a GPU.
        """
        self.optimiser.zero_grad()
        loss, figures = self._loss(self.forward, step, batch)
        loss.backward()
        norm, loss = self._clip(), loss.detach()
        self.asked = torch.full((), float(bool(asked)), device=self.us.device)
        buffers = (b for b in self.network.buffers() if b.is_floating_point())
        self.us.average([loss, self.asked, *buffers])
        # A step that is not finite changes nothing, nor do those after it, until someone looks.
        bad = (self.failed < 0) & ~(torch.isfinite(loss) & torch.isfinite(norm))
        self.failed = torch.where(bad, step, self.failed)
        self.optimiser.found_inf = (self.failed >= 0).float()
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.rate(step)
        self.optimiser.step()
        keep = min(self.recipe.ema, (1 + step) / (10 + step))
        average, live = ([part(v) for v in s.values()] for s in (self.average, self.live))
        get_ema_multi_avg_fn(keep)(average, live, None)
        return {"loss": loss, **figures}

    def _loss(self, forward: nn.Module, step: int, batch: Batch) -> tuple[Tensor, dict]:
        rank, device = self.us.rank, self.us.device
        torch.manual_seed(self.recipe.number(3, step, rank))  # of dropout
        with self.recipe.autocast(device):
            return forward(batch, self.recipe.generator(1, step, device, rank))

    def _clip(self) -> Tensor:
        """Clip the gradients of all processes together; returns their norm."""
        if self.sharded:
            self.us.average(p.grad for p in self.groups[-1] if part(p) is p and p.grad is not None)
        grads = [[p.grad for p in group if p.grad is not None] for group in self.groups]
        norm = torch.stack([whole(nn.utils.get_total_norm(some)) for some in grads]).norm()
        for group in self.groups:
            nn.utils.clip_grads_with_norm_(group, self.recipe.clip, norm)
        return norm

    def culprit(self, step: int, batch: Batch) -> str:
        """What was the first not to be finite in `step`, in any process."""
        self.objective.network = self.network  # hooks don't reach what is compiled
        word = culprit(self.network, batch, partial(self._loss, self.objective, step, batch), step)
        # A loss comes before the gradients, which all processes share.
        words = sorted(filter(None, self.us.words(word)), key=lambda word: "gradient" in word)
        return words[0] if words else f"step {step} was not finite, but is when run again"

    def mean(self, figures: Mapping[str, Tensor | float]) -> dict[str, float]:
        """Figures of a step over all processes, as numbers; the first, the loss, is so already."""
        values = [torch.as_tensor(v, device=self.us.device).detach() for v in figures.values()]
        stacked = torch.stack([v.float() for v in values])
        if len(values) > 1:  # processes wait for each other in every exchange
            self.us.average([stacked[1:]])
        return dict(zip(figures, stacked.tolist(), strict=True))

    def evaluate(self, data: Batch) -> dict[str, float]:
        """The figures of the average, which is kept if its loss is the lowest so far."""
        kept = {name: part(value).clone() for name, value in self.live.items()}
        _copy(self.average, self.live)
        figures = _evaluated(self.objective, self.recipe, data)
        _copy(kept, self.live)
        self.since += 1
        if figures["loss"] < self.lowest:
            self.lowest, self.since = figures["loss"], 0
            _copy(self.average, self.best)
        return figures

    def result(self) -> nn.Module:
        """The network with the average that is the result; whole, on the CPU, if it was sharded."""
        best = self.best if math.isfinite(self.lowest) else {}
        _copy(best or self.average, self.live)
        if not self.sharded:
            return self.network.eval()
        state = {name: whole(value).cpu() for name, value in self.network.state_dict().items()}
        network = self.recipe.build()
        network.load_state_dict(state)
        return network.eval()

    def store(self, path: Path, step: int) -> None:
        """Write all this, whole, so that any number of processes can go on after `step` steps.

        Raises:
            FileError: it can't be written; an older checkpoint stays.
        """
        if self.us.rank and not self.sharded:
            return
        tensors = {k: whole(v).cpu().contiguous() for k, v in self.tensors.items()}
        about = {"recipe": self.recipe.name, "seed": self.recipe.seed, "step": step}
        about |= {"lowest": self.lowest, "since": self.since}
        if self.us.rank == 0:
            files.write(path, save(tensors, {name: str(value) for name, value in about.items()}))

    def restore(self, path: Path) -> int:
        """Take all this from a checkpoint; returns the step to go on with.

        Raises:
            FileError: it is damaged, or of another run.
        """
        try:
            with safe_open(path, "pt", device="cpu") as file:
                about = file.metadata() or {}
                theirs = f"recipe {about.get('recipe')!r}, seed {about.get('seed')}"
                if theirs != f"recipe {self.recipe.name!r}, seed {self.recipe.seed}":
                    raise ValueError(f"it was made by {theirs}")
                if not 0 <= (step := int(about.get("step", -1))) <= self.recipe.steps:
                    raise ValueError(f"its step {step} is not one of this run")
                self.lowest = float(about.get("lowest", math.inf))
                self.since = int(about.get("since", 0))
                names = {*file.keys()}
                for key, own in self.tensors.items():
                    if key not in names or tuple(file.get_slice(key).get_shape()) != own.shape:
                        raise ValueError(f"it holds no {key} of shape {tuple(own.shape)}")
                    fill(own, file.get_tensor(key))
                if others := names - self.tensors.keys():
                    raise ValueError(f"it holds {min(others)}, which the network lacks")
        except (OSError, SafetensorError, ValueError) as error:
            raise FileError(
                f"can't resume from {path}: {error}; choose another folder, or remove the file "
                "to start again"
            ) from error
        return step

    def _tensors(self) -> dict[str, Tensor]:
        """All that a checkpoint holds, by name; steps change it in place."""
        kinds = {"network": self.network.state_dict(), "average": self.average, "best": self.best}
        found = {f"{kind}.{name}": v for kind, of in kinds.items() for name, v in of.items()}
        for name, p in self.network.named_parameters():
            if p.requires_grad:
                # The fused optimiser pairs numbers by address: its state lies as weights do.
                state = {kind: torch.zeros_like(p) for kind in ("exp_avg", "exp_avg_sq")}
                state["step"] = torch.zeros((), device=p.device)
                self.optimiser.state[p] = state
                found |= {f"{kind}.{name}": value for kind, value in state.items()}
        return found


def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, value in target.items():
            part(value).copy_(part(source[name]))
