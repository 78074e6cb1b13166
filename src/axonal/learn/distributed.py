"""The processes of a training: one alone, or as many as `torchrun` started, on any machines."""

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
    """This process among those of a training.

    Attributes:
        device: that this process computes on.
        rank: its number; rank 0 writes the files and speaks for all.
        world_size: the number of processes.
    """

    device: torch.device
    rank: int = 0
    world_size: int = 1

    @classmethod
    def from_environment(cls, device: str | torch.device) -> "Processes":
        """Join the processes that torchrun started, over gloo or NCCL; else this one alone.

        Each takes the GPU of its local rank. They stay connected until they exit.

        Raises:
            InputError: there are fewer GPUs than processes on this machine.
        """
        device = torch.device(device)
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            return cls(device=device)
        if device.type == "cuda":
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            if device.index >= (gpus := torch.cuda.device_count()):
                raise InputError(
                    f"process {device.index} of this machine has no GPU, there are {gpus}; start "
                    "as many processes with --nproc-per-node, or choose --device cpu"
                )
            torch.cuda.set_device(device)
        if not dist.is_initialized():
            dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
            atexit.register(dist.destroy_process_group)
            if threading.current_thread() is threading.main_thread():
                # torchrun stops who is left when one fails; they may say why they end.
                signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE))
        return cls(device=device, rank=dist.get_rank(), world_size=dist.get_world_size())

    def parallelize(self, module: nn.Module, network: nn.Module, shard: bool) -> nn.Module:
        """The module to call in training in the place of `module`, so that gradients are averaged.

        With `shard` the parameters of `network`, a part of it, are sharded too, each layer's on
        its own (FSDP2: Zhao et al. 2023, arXiv 2304.11277); else every process has all (DDP: Li
        et al. 2020, arXiv 2006.15704).
        """
        if self.world_size == 1:
            return module
        if not shard:
            return DistributedDataParallel(module, gradient_as_bucket_view=True)
        # Loading this takes the better part of a second: only who shards waits for it.
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        scalars = {p for p in network.parameters() if p.ndim == 0}  # FSDP2 splits none of these
        mesh = init_device_mesh(self.device.type, (self.world_size,))
        # Evaluation changes weights in their shards: no full ones may outlive a call.
        options = {"mesh": mesh, "ignored_params": scalars, "reshard_after_forward": True}
        lists = (nn.Sequential, nn.ModuleList)
        # A layer takes what the layers in it have not yet taken: the innermost come first.
        for parent in reversed([m for m in network.modules() if isinstance(m, lists)]):
            for layer in parent:
                if not isinstance(layer, lists) and {*layer.parameters()} - scalars:
                    fully_shard(layer, **options)
        fully_shard(module, **options)
        return module

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace each floating tensor by its mean over the processes."""
        tensors = [t for t in tensors if t.is_floating_point()]
        if self.world_size == 1 or not tensors:
            return
        flat = torch.cat([t.detach().flatten() for t in tensors])
        dist.all_reduce(flat)
        parts = (flat / self.world_size).split([t.numel() for t in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.detach().copy_(part.view_as(tensor))

    def gather(self, text: str) -> list[str]:
        """Gather a string from every rank."""
        texts = [text] * self.world_size
        if self.world_size > 1:
            dist.all_gather_object(texts, text)
        return texts

    def barrier(self) -> None:
        """Wait until every rank is here."""
        self.gather("")

    @contextmanager
    def guard(self, hint: str) -> Iterator[None]:
        """Raise a sentence where another process is gone; `hint` says what is left to go on from.

        Raises:
            ProcessError: another process is gone.
        """
        try:
            yield
        except RuntimeError as error:
            lost = isinstance(error, dist.DistError) or "gloo" in str(error).lower()
            if self.world_size == 1 or not lost:
                raise
            raise ProcessError(
                f"process {self.rank} of {self.world_size} lost another one, which failed or was "
                f"killed; see its own message; {hint}; the same command goes on from there"
            ) from error


def to_local(tensor: Tensor) -> Tensor:
    """The shard of a tensor that this process holds, in the same memory; without shards, all."""
    return getattr(tensor, "to_local", lambda: tensor)()


def full_tensor(tensor: Tensor) -> Tensor:
    """Gather the shards of a tensor from all processes, which all have to call this."""
    return getattr(tensor, "full_tensor", lambda: tensor)()


def copy_full(target: Tensor, value: Tensor) -> None:
    """Copy the full `value` into `target`, of which this process may hold a shard."""
    if to_local(target) is not target:
        from torch.distributed.tensor import distribute_tensor

        value, mesh = value.to(target.device), target.device_mesh
        value = distribute_tensor(value, mesh, target.placements, src_data_rank=None)
    target.detach().copy_(value)
