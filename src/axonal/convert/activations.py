"""Samples of the values of a network over calibration data, channel by channel."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, fx

from ..core import files
from ..core.errors import InputError
from ..nn.interpreter import record

BATCH = 50  # samples that run together
VALUES = 4096  # values of each channel
FILE = "calibration.safetensors"


@dataclass(frozen=True, eq=False)
class Calibration:
    """Calibration data, and what is asked of a method.

    Attributes:
        x: samples [N, ...], checked.
        steps: T.
        folder: where work under way is stored; None for nowhere.
    """

    x: Tensor
    steps: int
    folder: Path | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample."""
        return tuple(self.x.shape[1:])


@dataclass(frozen=True, eq=False)
class Observed:
    """Values of one node.

    Attributes:
        values: [C, K], drawn at random, of each channel of a picture; C is 1 for other values.
        most: [C], the largest size of all.
        dims: of one sample.
    """

    values: Tensor
    most: Tensor
    dims: int

    def shaped(self, channels: Tensor) -> Tensor:
        """A number for each channel [C] as it broadcasts to one sample; none is 0."""
        floor = channels.max().clamp_min(1e-12)  # a channel that is always 0 never fires
        channels = torch.where(channels > 0, channels, floor)
        return channels.reshape(-1, 1, 1) if self.dims == 3 else channels.max()


def observe(
    dense: fx.GraphModule, names: Sequence[str], x: Tensor, folder: Path | None = None
) -> dict[str, Observed]:
    """Run `dense` over `x` [N, ...] and draw from what the nodes `names` return.

    Args:
        folder: where what was seen is stored, so that an interrupted run goes on; None for nowhere.

    Raises:
        InputError: a value is not finite. FileError: the folder can't be written.
    """
    samples = _Samples(names, len(x), _fingerprint(dense, names, x), folder)
    for batch in x.split(BATCH)[samples.batches :]:
        samples.add(values_of(dense, names, batch)[0])
    return samples.observed()


@torch.no_grad()
def values_of(
    dense: fx.GraphModule, names: Sequence[str], x: Tensor
) -> tuple[dict[str, Tensor], Tensor]:
    """What the nodes `names` of `dense` return for x [B, ...], and what the network does."""
    seen, output = record(dense, names, x)
    return {name: returned for name, (_, returned) in seen.items()}, output


class _Samples:
    """The values drawn so far, in memory and in a file."""

    def __init__(self, names: Sequence[str], total: int, fingerprint: str, folder: Path | None):
        self.names, self.fingerprint = names, fingerprint
        self.total, self.share = -(-total // BATCH), -(-VALUES * BATCH // total)
        self.path = folder / FILE if folder else None
        self.tensors, self.batches = self._stored()

    def add(self, values: dict[str, Tensor]) -> None:
        for name in self.names:
            value = values[name]
            if not bool(value.isfinite().all()):
                raise InputError(f"{name} is not finite in calibration; look at its weights")
            rows = value.transpose(0, 1).flatten(1) if value.dim() == 4 else value.reshape(1, -1)
            draw = torch.Generator().manual_seed(self.batches)
            pick = torch.randint(rows.shape[1], (self.share,), generator=draw)
            most = rows.abs().amax(1)
            drawn, top = f"{name}.values", f"{name}.most"
            if drawn in self.tensors:
                self.tensors[drawn] = torch.cat([self.tensors[drawn], rows[:, pick]], 1)
                self.tensors[top] = torch.maximum(self.tensors[top], most)
            else:
                self.tensors |= {drawn: rows[:, pick].clone(), top: most}
                self.tensors[f"{name}.dims"] = torch.tensor(value.dim() - 1)
        self.batches += 1
        if self.path is not None:
            about = {"fingerprint": self.fingerprint, "batches": str(self.batches)}
            files.write(self.path, save(self.tensors, about))

    def observed(self) -> dict[str, Observed]:
        t = self.tensors
        return {
            n: Observed(t[f"{n}.values"], t[f"{n}.most"], int(t[f"{n}.dims"])) for n in self.names
        }

    def _stored(self) -> tuple[dict[str, Tensor], int]:
        """What another run of the same left behind; nothing if it was another, or is damaged."""
        if self.path is None or not self.path.exists():
            return {}, 0
        try:
            with safe_open(self.path, "pt", device="cpu") as file:
                about = file.metadata() or {}
                if about.get("fingerprint") != self.fingerprint:
                    return {}, 0
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            batches = int(about["batches"])
            widths = {tensors[f"{name}.values"].shape[1] for name in self.names}
        except (OSError, SafetensorError, ValueError, KeyError, IndexError):
            return {}, 0
        complete = 0 < batches <= self.total and widths == {batches * self.share}
        keys = {f"{name}.{part}" for name in self.names for part in ("values", "most", "dims")}
        return (tensors, batches) if complete and keys == {*tensors} else ({}, 0)


def _fingerprint(dense: fx.GraphModule, names: Sequence[str], x: Tensor) -> str:
    digest = hashlib.sha256(" ".join(names).encode())
    for tensor in (*dense.state_dict().values(), x):
        digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
