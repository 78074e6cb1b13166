"""The training loop: one recipe in, averaged weights out, interrupted and resumed exactly.

Batches and noise are functions of (seed, step), so that a run killed at any moment goes on from
its last checkpoint with the losses it would have had; also on another number of processes, but
for noise, which each draws for its own rows. Each normalises batches over its own rows too.
"""

import copy
import math
import sys
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils import _pytree as pytree

from ..core import files
from ..core.errors import FileError, InputError, NotFinite
from .data import Batches, count_samples
from .distributed import Processes, copy_full, full_tensor, to_local
from .gradients import EARLY, Reached, some
from .logging import interrupts, log, progress_bar
from .recipe import Batch, Recipe

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
    folder, processes = Path(folder), Processes.from_environment(device)
    with processes.guard(f"what {folder} holds is intact"):
        torch.manual_seed(recipe.seed)
        batches, trainer = Batches(recipe, processes), Trainer(recipe, processes)
        start = trainer.restore(folder / CHECKPOINT) if (folder / CHECKPOINT).exists() else 0
        if len({*processes.gather(str(start))}) > 1:
            raise FileError(f"the processes don't see the same {folder}; put it on a shared disk")
        held_out = recipe.held_out() if recipe.held_out else {}
        first = processes.rank == 0
        lines = log(folder, start, tensorboard) if first else nullcontext(lambda *row: None)
        bar = progress_bar(recipe.name, start, recipe.steps, first)
        with lines as write, bar as advance, interrupts() as signals:
            for step in range(start, recipe.steps):
                if trainer.over:
                    break
                figures = trainer.step(step, batches(step), signals)
                last = step + 1 == recipe.steps
                if step + 1 == min(start + EARLY, recipe.steps):
                    trainer.check_gradients(step, batches(step))
                logs = last or step % recipe.log_every == 0
                checks = last or (step + 1) % recipe.evaluate_every == 0
                stores = last or (step + 1) % recipe.checkpoint_every == 0
                looks = processes.device.type == "cpu" or step % LOOK == LOOK - 1
                if not (logs or checks or stores or looks):
                    advance({})
                    continue
                if (failed := int(trainer.failed)) >= 0:
                    cause = trainer.cause(failed, batches(failed))
                    raise InputError(
                        f"{recipe.name}: {cause}; the last checkpoint in {folder} is intact"
                    )
                advance(values := trainer.mean(figures))
                if logs:
                    write(step, values)
                if checks and held_out:
                    write(step, {"held_out": trainer.evaluate(held_out)})
                if checks and recipe.checkup and not trainer.sharded:
                    write(step, {"checkup": recipe.checkup(trainer.network)})
                if stores or trainer.over or trainer.interrupted:
                    trainer.store(folder / CHECKPOINT, step + 1)
                if trainer.interrupted:
                    raise KeyboardInterrupt
        return trainer.result()


def evaluate(network: nn.Module, recipe: Recipe, data: Batch) -> dict[str, float]:
    """The recipe's loss and figures of a network, averaged over all samples of `data`.

    The network runs where it is, in evaluation mode, without gradients. The noise of the loss is
    always the same.

    Raises:
        InputError: the data are empty or of several lengths.
    """
    processes = Processes(device=next(network.parameters()).device)
    return _evaluate(LossModule(network, recipe, processes), recipe, data)


@torch.no_grad()
def accuracy(network: nn.Module, x: Tensor, label: Tensor) -> float:
    """The share of the samples x [N, ...] whose class, of `label` [N], gets the largest output."""
    batches = zip(x.split(250), label.split(250), strict=True)
    return sum(int((network(x).argmax(1) == y).sum()) for x, y in batches) / len(label)


@torch.no_grad()
def _evaluate(module: "LossModule", recipe: Recipe, data: Batch) -> dict[str, float]:
    processes, training, sums = module.processes, module.network.training, {}
    count, device = count_samples(recipe, data), processes.device
    module.eval()
    for index, rows in enumerate(torch.arange(count).split(recipe.batch)):
        own = rows[processes.rank :: processes.world_size]
        # Who has no row left still takes part: sharded weights need every process.
        picked = own if len(own) else rows[:1]
        batch = {name: tensor[picked].to(device) for name, tensor in data.items()}
        with recipe.autocast(device):
            loss, figures = module(batch, recipe.generator(2, index, device, processes.rank))
        for name, value in {"loss": loss, **figures}.items():
            sums[name] = sums.get(name, 0.0) + len(own) * float(value)
    module.train(training)
    processes.average([means := torch.tensor([*sums.values()], dtype=torch.float64) / count])
    return dict(zip(sums, (means * processes.world_size).tolist(), strict=True))


class LossModule(nn.Module):
    """The recipe's loss as a module, so that one call is one step, whatever the loss does."""

    def __init__(self, network: nn.Module, recipe: Recipe, processes: Processes):
        super().__init__()
        self.network, self.loss, self.processes = network, recipe.loss, processes
        self.sharded = recipe.shard and processes.world_size > 1

    def forward(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and figures of this process's rows."""
        try:
            loss, figures = self.loss(self.network, batch, generator)
        except NotFinite:
            # A scan that found NaN ends the step as a loss of NaN does, in all processes alike.
            if self.sharded or not self.training:
                raise
            loss, figures = math.nan * self._zero(), {}
        if self.processes.world_size > 1 and not self.sharded:
            loss = loss + self._zero()  # DDP would wait for the parameters that a loss doesn't use
        return loss, figures

    def _zero(self) -> Tensor:
        """0, with a gradient of 0 for every parameter."""
        return 0 * torch.stack([p.sum() for p in self.parameters() if p.requires_grad]).sum()


class Trainer:
    """All that changes in a training: the network, its average, the optimiser, the best figure."""

    def __init__(self, recipe: Recipe, processes: Processes):
        self.recipe, self.processes = recipe, processes
        self.sharded = recipe.shard and processes.world_size > 1
        order = torch.contiguous_format if self.sharded else torch.channels_last
        network: Any = recipe.build()
        self.network: nn.Module = network.to(processes.device, memory_format=order).train()
        self.compiles = recipe.compiles(processes.device)
        called: Any = torch.compile(self.network) if self.compiles else self.network
        self.module = LossModule(called, recipe, processes)
        self.forward = processes.parallelize(self.module, self.network, recipe.shard)
        state = self.network.state_dict(keep_vars=True)
        self.weights = {k: v.detach() for k, v in state.items() if v.is_floating_point()}
        self.average = {k: v.clone() for k, v in self.weights.items()}
        self.best = {k: v.clone() for k, v in self.weights.items()} if recipe.patience else {}
        self.lowest, self.since = math.inf, 0  # the lowest loss held out, and evaluations since
        self.reached = Reached(self.network, processes)
        self.interrupted = torch.zeros(())
        self.failed = torch.tensor(-1, device=processes.device)
        sharded = [p for p in self.network.parameters() if to_local(p) is not p]
        others = [p for p in self.network.parameters() if to_local(p) is p]
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

    def step(self, step: int, batch: Batch, signals: Collection) -> dict[str, Tensor]:
        """Learn from a batch; returns the loss of all processes, and the figures of this one.

        Sets `failed`, the first step that was not finite, and `interrupted`, whether any process
        had `signals` by its end: both may still be under way on a GPU.
        """
        self.optimiser.zero_grad()
        loss, figures = self._loss(self.forward, step, batch)
        loss.backward()
        self.reached.look()
        norm, loss = self._clip(), loss.detach()
        self.interrupted = torch.full((), float(bool(signals)), device=self.processes.device)
        buffers = (b for b in self.network.buffers() if b.is_floating_point())
        self.processes.average([loss, self.interrupted, *buffers])
        # A step that is not finite changes nothing, nor do those after it, until someone looks.
        bad = (self.failed < 0) & ~(torch.isfinite(loss) & torch.isfinite(norm))
        self.failed = torch.where(bad, step, self.failed)
        self.optimiser.found_inf = (self.failed >= 0).float()
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.rate(step)
        self.optimiser.step()
        decay = min(self.recipe.ema, (1 + step) / (10 + step))
        average, weights = ([to_local(v) for v in s.values()] for s in (self.average, self.weights))
        get_ema_multi_avg_fn(decay)(average, weights, None)
        return {"loss": loss, **figures}

    def _loss(self, forward: nn.Module, step: int, batch: Batch) -> tuple[Tensor, dict]:
        rank, device = self.processes.rank, self.processes.device
        torch.manual_seed(self.recipe.number(3, step, rank))  # of dropout
        with self.recipe.autocast(device):
            return forward(batch, self.recipe.generator(1, step, device, rank))

    def _clip(self) -> Tensor:
        """Clip the gradients of all processes together; returns their norm."""
        if self.sharded:
            others = (p for p in self.groups[-1] if to_local(p) is p and p.grad is not None)
            self.processes.average(p.grad for p in others)
        grads = [[p.grad for p in group if p.grad is not None] for group in self.groups]
        norm = torch.stack([full_tensor(nn.utils.get_total_norm(some)) for some in grads]).norm()
        for group in self.groups:
            nn.utils.clip_grads_with_norm_(group, self.recipe.clip, norm)
        return norm

    def cause(self, step: int, batch: Batch) -> str:
        """Name what was the first not to be finite in `step`, in any process."""
        self.module.network = self.network  # hooks don't reach what is compiled
        loss = partial(self._loss, self.module, step, batch)
        own = _first_nonfinite(self.network, batch, loss, step)
        # A loss comes before the gradients, which all processes share.
        causes = sorted(filter(None, self.processes.gather(own)), key=lambda c: "gradient" in c)
        return causes[0] if causes else f"step {step} was not finite, but is when run again"

    def check_gradients(self, step: int, batch: Batch) -> None:
        """Say which trained tensors no gradient has reached so far.

        Raises:
            InputError: one would have, were the network not compiled.
        """
        if not (missed := self.reached.missed()):
            return
        if self.compiles and not self.sharded:
            plain = copy.deepcopy(self.network)  # a run moves statistics
            module = LossModule(plain, self.recipe, self.processes)
            eager = Reached(plain, self.processes)
            self._loss(module, step, batch)[0].backward()
            eager.look()
            if wrong := sorted({*missed} - {*eager.missed()}):
                raise InputError(
                    f"{self.recipe.name}: torch.compile gives a gradient of exactly zero to "
                    f"{some(wrong)}, which have one without it; train with compile=False"
                )
        if self.processes.rank == 0:
            sys.stderr.write(
                f"{self.recipe.name}: no gradient has reached {some(missed)} by step {step + 1}, "
                "so that they learn nothing; `axonal doctor` looks for the cause\n"
            )

    def mean(self, figures: Mapping[str, Tensor | float]) -> dict[str, float]:
        """Average the figures of a step over all processes; the first, the loss, is so already."""
        device = self.processes.device
        values = [torch.as_tensor(v, device=device).detach() for v in figures.values()]
        stacked = torch.stack([v.float() for v in values])
        if len(values) > 1:  # processes wait for each other in every exchange
            self.processes.average([stacked[1:]])
        return dict(zip(figures, stacked.tolist(), strict=True))

    def evaluate(self, data: Batch) -> dict[str, float]:
        """Evaluate the average, which is the best if its loss is the lowest so far."""
        backup = {name: to_local(value).clone() for name, value in self.weights.items()}
        _copy(self.average, self.weights)
        figures = _evaluate(self.module, self.recipe, data)
        _copy(backup, self.weights)
        self.since += 1
        if figures["loss"] < self.lowest:
            self.lowest, self.since = figures["loss"], 0
            _copy(self.average, self.best)
        return figures

    def result(self) -> nn.Module:
        """The network with the average that is the result; on the CPU if it was sharded."""
        best = self.best if math.isfinite(self.lowest) else {}
        _copy(best or self.average, self.weights)
        if not self.sharded:
            return self.network.eval()
        state = {name: full_tensor(v).cpu() for name, v in self.network.state_dict().items()}
        network = self.recipe.build()
        network.load_state_dict(state)
        return network.eval()

    def store(self, path: Path, step: int) -> None:
        """Write a checkpoint, from which any number of processes can go on after `step` steps.

        Raises:
            FileError: it can't be written; an older checkpoint stays.
        """
        if self.processes.rank and not self.sharded:
            return
        tensors = {k: full_tensor(v).cpu().contiguous() for k, v in self.tensors.items()}
        about = {"recipe": self.recipe.name, "seed": self.recipe.seed, "step": step}
        about |= {"lowest": self.lowest, "since": self.since}
        if self.processes.rank == 0:
            files.write(path, save(tensors, {name: str(value) for name, value in about.items()}))

    def restore(self, path: Path) -> int:
        """Read a checkpoint; returns the step to go on with.

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
                    copy_full(own, file.get_tensor(key))
                if others := names - self.tensors.keys():
                    raise ValueError(f"it holds {min(others)}, which the network lacks")
        except (OSError, SafetensorError, ValueError) as error:
            raise FileError(
                f"can't resume from {path}: {error}; choose another folder, or remove the file "
                "to start again"
            ) from error
        return step

    def _tensors(self) -> dict[str, Tensor]:
        """The tensors of a checkpoint, by name; steps change them in place."""
        kinds = {"network": self.network.state_dict(), "average": self.average, "best": self.best}
        tensors = {f"{kind}.{name}": v for kind, of in kinds.items() for name, v in of.items()}
        for name, p in self.network.named_parameters():
            if p.requires_grad:
                # The fused optimiser pairs numbers by address: its state lies as weights do.
                state = {kind: torch.zeros_like(p) for kind in ("exp_avg", "exp_avg_sq")}
                state["step"] = torch.zeros((), device=p.device)
                self.optimiser.state[p] = state
                tensors |= {f"{kind}.{name}": value for kind, value in state.items()}
        return tensors


def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, value in target.items():
            to_local(value).copy_(to_local(source[name]))


def _first_nonfinite(
    network: nn.Module, batch: Batch, loss: Callable[[], tuple[Tensor, Any]], step: int
) -> str:
    """Run the loss of a step again and name the first not finite; "" if all of it is.

    The gradients of `network`, which `loss` runs, are overwritten.
    """
    running: list[str] = []
    causes: list[str] = []

    def enter(name, module, args):
        running.append(name)

    def leave(name, module, args, output):
        running.remove(name)
        if not causes and not _is_finite(output):
            causes.append(f"{name} is the first layer whose output is not finite")

    handles = []
    for path, module in network.named_modules():
        name = f"{path or 'network'} ({type(module).__name__})"
        handles.append(module.register_forward_pre_hook(partial(enter, name)))
        handles.append(module.register_forward_hook(partial(leave, name)))
    network.zero_grad()
    value, _ = loss()
    for handle in handles:
        handle.remove()
    value.backward()
    symptom = f"the loss is {value.item()} at step {step}: "
    if inputs := [name for name, tensor in batch.items() if not _is_finite(tensor)]:
        return f"{symptom}the input {inputs[0]!r} is not finite; repair the data"
    if running and not causes:  # a layer refused to go on
        causes.append(f"{running[-1]} is the first layer whose neurons are not finite")
    if causes:
        return f"{symptom}{causes[0]}; lower the learning rate"
    if not _is_finite(value):
        return f"{symptom}the output of every layer is finite; look at the loss itself"
    # Gradients run from the last layer to the first: the last is the nearest to the source.
    if names := [name for name, p in network.named_parameters() if not _is_finite(p.grad)]:
        return f"the gradient of {names[-1]} is not finite at step {step}; lower the learning rate"
    return ""


def _is_finite(value: object) -> bool:
    tensors = [to_local(t.detach()) for t in pytree.tree_leaves(value) if isinstance(t, Tensor)]
    return all(t.isfinite().all() for t in tensors)
