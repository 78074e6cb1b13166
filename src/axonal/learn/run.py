"""The state of a training run: stepped, evaluated, stored and restored."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ..core import files
from ..core.errors import FileError, InputError
from .batches import Batch, length
from .finite import culprit
from .processes import Processes, fill, part, reaching, whole
from .progress import Interrupt

if TYPE_CHECKING:
    from .loop import Recipe

Loss = Callable[[nn.Module, Batch, torch.Generator], tuple[Tensor, dict[str, Tensor]]]


class Objective(nn.Module):
    """The recipe's loss as a module, so that one call is one step, whatever the loss does.

    Attributes:
        called: the network, perhaps compiled.
        sharded: whether the network's parameters are spread over processes.
    """

    def __init__(self, called: nn.Module, loss: Loss):
        super().__init__()
        self.called, self.loss, self.sharded = called, loss, False

    def forward(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and figures of this process's rows."""
        parameters = [p for p in self.parameters() if p.requires_grad]
        try:
            loss, figures = self.loss(self.called, batch, generator)
        except InputError as error:
            # A scan that found NaN ends the step as a loss of NaN does, in all processes alike.
            if "NaN" not in str(error) or self.sharded or not self.called.training:
                raise
            loss, figures = parameters[0].new_full((), math.nan), {}
        return (loss if self.sharded else reaching(loss, parameters)), figures


@torch.no_grad()
def evaluated(
    objective: nn.Module, recipe: "Recipe", data: Batch, us: Processes, batch: int | None = None
) -> dict[str, float]:
    """Loss and figures over all samples, shared by the processes; see `learn.loop.evaluate`."""
    sums: dict[str, float] = {}
    count = length(recipe, data)
    for index, rows in enumerate(torch.arange(count).split(batch or recipe.batch)):
        mine = rows[us.rank :: us.count]
        # Who has no row left still takes part: sharded weights need every process.
        picked = mine if len(mine) else rows[:1]
        given = {name: tensor[picked].to(us.device) for name, tensor in data.items()}
        with recipe.autocast(us.device):
            loss, figures = objective(given, recipe.generator(2, index, us.device, us.rank))
        for name, value in {"loss": loss, **figures}.items():
            sums[name] = sums.get(name, 0.0) + len(mine) * float(value)
    us.average([means := torch.tensor([*sums.values()], dtype=torch.float64) / count])
    return dict(zip(sums, (means * us.count).tolist(), strict=True))


class Run:
    """What changes during a run: the network, its average, the optimiser, the best figure."""

    def __init__(self, recipe: "Recipe", us: Processes):
        self.recipe, self.us = recipe, us
        self.sharded = recipe.shard and us.count > 1
        order = torch.contiguous_format if self.sharded else torch.channels_last
        network: Any = recipe.build()
        self.network: nn.Module = network.to(us.device, memory_format=order).train()
        compiled = tiles(us.device) if recipe.compile is None else recipe.compile
        called: Any = torch.compile(self.network) if compiled else self.network
        self.objective = Objective(called, recipe.loss)
        self.objective.sharded = self.sharded
        self.forward = us.spread(self.objective, self.network, recipe.shard)
        self.parameters = dict(self.network.named_parameters())
        state = self.network.state_dict(keep_vars=True)
        self.live = {k: v.detach() for k, v in state.items() if v.is_floating_point()}
        self.average = {k: v.clone() for k, v in self.live.items()}
        self.best = {k: v.clone() for k, v in self.live.items()} if recipe.patience else {}
        self.lowest, self.since = math.inf, 0
        self.asked, self.failed = False, torch.tensor(-1, device=us.device)
        parts = [p for p in self.parameters.values() if part(p) is not p]
        others = [p for p in self.parameters.values() if part(p) is p]
        self.groups = [group for group in (parts, others) if group]
        self.optimiser: Any = torch.optim.AdamW(
            [{"params": group} for group in self.groups],
            lr=recipe.lr,
            betas=(0.9, 0.99),
            weight_decay=recipe.weight_decay,
            fused=True,
        )

    @property
    def over(self) -> bool:
        """Whether patience has ended."""
        return 0 < self.recipe.patience <= self.since

    def step(self, step: int, batch: Batch, interrupt: Interrupt) -> dict[str, Tensor]:
        """Learn from a batch; returns the loss and the figures of this process.

        Sets `failed`, the first step that was not finite, and `asked`, whether to stop: both may
        still be under way on a GPU.
        """
        self.optimiser.zero_grad()
        loss, figures = self._loss(self.forward, step, batch)
        loss.backward()
        norm, loss = self._clip(), loss.detach()
        self.asked = interrupt.asked
        if self.us.count > 1:
            self.asked = torch.full((), float(interrupt.asked), device=self.us.device)
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

    def _loss(self, forward: nn.Module, step: int, batch: Batch):
        rank, device = self.us.rank, self.us.device
        torch.manual_seed(self.recipe.number(3, step, rank))  # of dropout
        with self.recipe.autocast(device):
            return forward(batch, self.recipe.generator(1, step, device, rank))

    def _clip(self) -> Tensor:
        """Clip the gradients of all processes together; returns their norm."""
        if self.sharded:
            self.us.average(p.grad for p in self.groups[-1] if part(p) is p and p.grad is not None)
        grads = [[p.grad for p in group if p.grad is not None] for group in self.groups]
        norms = [whole(nn.utils.get_total_norm(some)) for some in grads]
        norm = torch.stack(norms).norm()
        for group in self.groups:
            nn.utils.clip_grads_with_norm_(group, self.recipe.clip, norm)
        return norm

    def culprit(self, step: int, batch: Batch) -> str:
        """What was the first not to be finite in `step`, in any process."""
        self.objective.called = self.network  # hooks don't reach what is compiled
        word = culprit(
            self.network, batch, lambda: self._loss(self.objective, step, batch)[0], step
        )
        # A loss comes before the gradients, which all processes share.
        words = sorted(filter(None, self.us.words(word)), key=lambda word: "gradient" in word)
        return words[0] if words else f"step {step} was not finite, but is when run again"

    def mean(self, figures: Mapping[str, Tensor | float]) -> dict[str, float]:
        """Figures of a step over all processes, as numbers."""
        values = [torch.as_tensor(v, device=self.us.device).float() for v in figures.values()]
        self.us.average([stacked := torch.stack([v.detach() for v in values])])
        return dict(zip(figures, stacked.tolist(), strict=True))

    def evaluate(self, data: Batch) -> dict[str, float]:
        """The figures of the average, and whether they are the best."""
        with self._averaged():
            figures = evaluated(self.objective, self.recipe, data, self.us)
        self.since += 1
        if figures["loss"] < self.lowest:
            self.lowest, self.since = figures["loss"], 0
            _copy(self.average, self.best)
        return figures

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        kept = {name: part(value).clone() for name, value in self.live.items()}
        _copy(self.average, self.live)
        self.network.eval()
        yield
        _copy(kept, self.live)
        self.network.train()

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
        if not (self.us.first or self.sharded):
            return
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.items()}
        tensors |= {f"best.{k}": v for k, v in self.best.items()}
        for name, parameter in self.parameters.items():
            state = self.optimiser.state.get(parameter, {})
            tensors |= {f"{kind}.{name}": value for kind, value in state.items()}
        tensors = {k: whole(v.detach()).cpu().contiguous() for k, v in tensors.items()}
        about = {"recipe": self.recipe.name, "seed": self.recipe.seed, "step": step}
        about |= {"lowest": self.lowest, "since": self.since}
        if self.us.first:
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
                self._adopt(file)
        except (OSError, SafetensorError, ValueError) as error:
            raise FileError(
                f"can't resume from {path}: {error}; choose another folder, or remove the file "
                "to start again"
            ) from error
        return step

    def _adopt(self, file) -> None:
        names = set(file.keys())

        def take(key: str, own: Tensor) -> Tensor:
            if key not in names or tuple(file.get_slice(key).get_shape()) != own.shape:
                raise ValueError(f"it holds no {key} of shape {tuple(own.shape)}")
            names.remove(key)
            return fill(own, file.get_tensor(key))

        for key, own in self.network.state_dict().items():
            take(f"network.{key}", own)
        for kind, tensors in (("average", self.average), ("best", self.best)):
            for key, own in tensors.items():
                take(f"{kind}.{key}", own)
        for name, parameter in self.parameters.items():
            if f"step.{name}" in names:  # not before its first gradient
                # The fused optimiser pairs numbers by address: its state must lie as weights do.
                own = {k: torch.empty_like(parameter.detach()) for k in ("exp_avg", "exp_avg_sq")}
                own["step"] = torch.zeros((), device=self.us.device)
                self.optimiser.state[parameter] = {
                    kind: take(f"{kind}.{name}", value) for kind, value in own.items()
                }
        if names:
            raise ValueError(f"it holds {min(names)}, which the network lacks")


def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, value in target.items():
            part(value).copy_(part(source[name]))


def tiles(device: torch.device) -> bool:
    """Whether the machine multiplies bfloat16 in tiles."""
    return device.type == "cuda" or torch.cpu._is_amx_tile_supported()
