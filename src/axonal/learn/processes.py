"""The processes of a run: one alone, or as many as `torchrun` started, on any machines."""

import atexit
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from ..core.errors import AxonalError, InputError

GRACE = 5  # seconds from a SIGTERM to the end


class ProcessError(AxonalError, RuntimeError):
    """Another process of the run has ended, or can't be reached."""


@dataclass(frozen=True, kw_only=True)
class Processes:
    """This process among those of a run.

    Attributes:
        device: that this process computes on.
        rank: its number.
        count: how many there are.
    """

    device: torch.device
    rank: int = 0
    count: int = 1

    @classmethod
    def joined(cls, device: str | torch.device) -> "Processes":
        """The processes that torchrun started, met over gloo or NCCL; else this one alone.

        Each takes the GPU of its local number. They stay connected until they exit.

        Raises:
            InputError: there are fewer GPUs than processes on this machine.
        """
        device = torch.device(device)
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            return cls(device=device)
        if device.type == "cuda":
            local, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
            if local >= there:
                raise InputError(
                    f"process {local} of this machine has no GPU, there are {there}; start as "
                    "many processes with --nproc-per-node, or choose --device cpu"
                )
            device = torch.device("cuda", local)
            torch.cuda.set_device(device)
        if not dist.is_initialized():
            dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
            atexit.register(dist.destroy_process_group)
            if threading.current_thread() is threading.main_thread():
                # torchrun stops who is left when one fails; they may say why they end.
                signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE))
        return cls(device=device, rank=dist.get_rank(), count=dist.get_world_size())

    @property
    def first(self) -> bool:
        """Whether this one writes the files and speaks for all."""
        return self.rank == 0

    def spread(self, objective: nn.Module, network: nn.Module, shard: bool) -> nn.Module:
        """What to call in the place of `objective` in training, so that gradients are averaged.

        Args:
            objective: calls `network`, which is a part of it, and returns the loss.
            shard: spread the parameters too, each layer's on its own (FSDP2: Zhao et al. 2023,
                arXiv 2304.11277); else every process has all (DDP: Li et al. 2020, 2006.15704).
        """
        if self.count == 1:
            return objective
        if not shard:
            return DistributedDataParallel(objective)
        lonely = {p for p in network.parameters() if p.ndim == 0}  # FSDP2 splits no scalars
        kind = self.device.type
        mesh = init_device_mesh(kind, (self.count,))
        # Evaluation changes weights in their parts: no whole ones may outlive a call.
        options = {"mesh": mesh, "ignored_params": lonely, "reshard_after_forward": True}
        for parent in network.modules():
            for layer in parent.children() if _is_list(parent) else ():
                if not _is_list(layer) and {*layer.parameters()} - lonely:
                    fully_shard(layer, **options)
        fully_shard(objective, **options)
        return objective

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace each floating tensor by its mean over the processes."""
        tensors = [t for t in tensors if t.is_floating_point()]
        if self.count == 1 or not tensors:
            return
        flat = torch.cat([t.detach().flatten() for t in tensors])
        dist.all_reduce(flat)
        parts = (flat / self.count).split([t.numel() for t in tensors])
        with torch.no_grad():
            for tensor, part in zip(tensors, parts, strict=True):
                tensor.copy_(part.view_as(tensor))

    def words(self, word: str) -> list[str]:
        """What each of them has to say."""
        words = [word] * self.count
        if self.count > 1:
            dist.all_gather_object(words, word)
        return words

    def wait(self) -> None:
        """Wait until all have come here."""
        self.words("")

    @contextmanager
    def together(self, where: str) -> Iterator[None]:
        """Tell in a sentence that another process is gone; `where` says what is kept.

        Raises:
            ProcessError: it is.
        """
        try:
            yield
        except RuntimeError as error:
            lost = isinstance(error, dist.DistError) or "gloo" in str(error).lower()
            if self.count == 1 or not lost:
                raise
            raise ProcessError(
                f"process {self.rank} of {self.count} lost another one, which failed or was "
                f"killed; see its own message; {where}; the same command goes on from there"
            ) from error


class _Reaching(torch.autograd.Function):
    @staticmethod
    def forward(ctx, loss, *parameters):
        ctx.count = len(parameters)
        return loss.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient, *(None for _ in range(ctx.count))


def reaching(loss: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """The loss, its graph reaching all parameters: DDP would wait for those it doesn't use."""
    result = _Reaching.apply(loss, *parameters)
    assert isinstance(result, Tensor)
    return result


def part(tensor: Tensor) -> Tensor:
    """What this process has of a tensor, in the same memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """The tensor with the parts of all processes, which all have to ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def fill(own: Tensor, value: Tensor) -> Tensor:
    """Copy the whole `value` into `own`, of which this process may have a part."""
    if isinstance(own, DTensor):
        value = value.to(own.device)
        value = distribute_tensor(value, own.device_mesh, own.placements, src_data_rank=None)
    with torch.no_grad():
        return own.copy_(value)


def _is_list(module: nn.Module) -> bool:
    return isinstance(module, (nn.Sequential, nn.ModuleList))
