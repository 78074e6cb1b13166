"""The processes of a run: one alone, or as many as `torchrun` started, on any machines."""

import atexit
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..core.errors import InputError, ProcessError

GRACE = 5  # seconds from a SIGTERM to the end


@dataclass(frozen=True, kw_only=True)
class Processes:
    """This process among those of a run.

    Attributes:
        device: that this process computes on.
        rank: its number; 0 writes the files and speaks for all.
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
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            if device.index >= (there := torch.cuda.device_count()):
                raise InputError(
                    f"process {device.index} of this machine has no GPU, there are {there}; start "
                    "as many processes with --nproc-per-node, or choose --device cpu"
                )
            torch.cuda.set_device(device)
        if not dist.is_initialized():
            dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
            atexit.register(dist.destroy_process_group)
            if threading.current_thread() is threading.main_thread():
                # torchrun stops who is left when one fails; they may say why they end.
                signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE))
        return cls(device=device, rank=dist.get_rank(), count=dist.get_world_size())

    def spread(self, objective: nn.Module, network: nn.Module, shard: bool) -> nn.Module:
        """What to call in the place of `objective` in training, so that gradients are averaged.

        With `shard` the parameters of `network`, a part of it, are spread too, each layer's on
        its own (FSDP2: Zhao et al. 2023, arXiv 2304.11277); else every process has all (DDP: Li
        et al. 2020, arXiv 2006.15704).
        """
        if self.count == 1:
            return objective
        if not shard:
            return DistributedDataParallel(objective, gradient_as_bucket_view=True)
        # Loading this takes the better part of a second: only who shards waits for it.
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        lonely = {p for p in network.parameters() if p.ndim == 0}  # FSDP2 splits no scalars
        mesh = init_device_mesh(self.device.type, (self.count,))
        # Evaluation changes weights in their parts: no whole ones may outlive a call.
        options = {"mesh": mesh, "ignored_params": lonely, "reshard_after_forward": True}
        lists = (nn.Sequential, nn.ModuleList)
        # A layer takes what the layers in it have not yet taken: the innermost come first.
        for parent in reversed([m for m in network.modules() if isinstance(m, lists)]):
            for layer in parent:
                if not isinstance(layer, lists) and {*layer.parameters()} - lonely:
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
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.detach().copy_(part.view_as(tensor))

    def words(self, word: str) -> list[str]:
        """What each of them has to say."""
        words = [word] * self.count
        if self.count > 1:
            dist.all_gather_object(words, word)
        return words

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


def part(tensor: Tensor) -> Tensor:
    """What this process has of a tensor, in the same memory."""
    return getattr(tensor, "to_local", lambda: tensor)()


def whole(tensor: Tensor) -> Tensor:
    """The tensor with the parts of all processes, which all have to ask for it."""
    return getattr(tensor, "full_tensor", lambda: tensor)()


def fill(own: Tensor, value: Tensor) -> None:
    """Copy the whole `value` into `own`, of which this process may have a part."""
    if part(own) is not own:
        from torch.distributed.tensor import distribute_tensor

        value, mesh = value.to(own.device), own.device_mesh
        value = distribute_tensor(value, mesh, own.placements, src_data_rank=None)
    own.detach().copy_(value)
