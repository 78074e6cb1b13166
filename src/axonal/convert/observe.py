"""What the values of a network are like over calibration data: samples of each channel."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, fx

from ..core import files
from ..core.errors import InputError

BATCH = 50  # samples that run together
KEPT = 4096  # values of each channel
FILE = "calibration.safetensors"


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
    """Run `dense` over `x` [N, ...] and keep what the nodes `names` return.

    Args:
        folder: where what was seen is kept, so that an interrupted run goes on; None for nowhere.

    Raises:
        InputError: a value is not finite. FileError: the folder can't be written.
    """
    found = _Samples(names, _fingerprint(dense, names, x), folder)
    for index, batch in enumerate(x.split(BATCH)):
        if index >= found.batches:
            found.add(values_of(dense, names, batch), len(x))
    return found.observed()


@torch.no_grad()
def values_of(dense: fx.GraphModule, names: Sequence[str], x: Tensor) -> dict[str, Tensor]:
    """What the nodes `names` of `dense` return for x [B, ...], and the output as "output"."""
    recorder = _Recorder(dense, {*names})
    recorder.seen["output"] = recorder.run(x)
    return recorder.seen


class _Recorder(fx.Interpreter):
    def __init__(self, graph: fx.GraphModule, names: set[str]):
        super().__init__(graph)
        self.names, self.seen = names, {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.name in self.names:
            self.seen[n.name] = result
        return result


class _Samples:
    """What was seen so far, in memory and in a file."""

    def __init__(self, names: Sequence[str], fingerprint: str, folder: Path | None):
        self.names, self.fingerprint = names, fingerprint
        self.path = folder / FILE if folder else None
        self.batches, self.tensors = 0, {}
        if self.path is not None and self.path.exists():
            self.tensors = dict(self._stored())

    def add(self, values: dict[str, Tensor], total: int) -> None:
        share = -(-KEPT * BATCH // total)
        for name in self.names:
            value = values[name]
            if not bool(value.isfinite().all()):
                raise InputError(f"{name} is not finite in calibration; look at its weights")
            rows = value.transpose(0, 1).flatten(1) if value.dim() == 4 else value.reshape(1, -1)
            draw = torch.Generator().manual_seed(self.batches)
            pick = torch.randint(rows.shape[1], (share,), generator=draw)
            most = rows.abs().amax(1)
            kept, before = f"{name}.values", f"{name}.most"
            if kept in self.tensors:
                self.tensors[kept] = torch.cat([self.tensors[kept], rows[:, pick]], 1)
                self.tensors[before] = torch.maximum(self.tensors[before], most)
            else:
                self.tensors |= {kept: rows[:, pick].clone(), before: most}
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

    def _stored(self) -> Iterator[tuple[str, Tensor]]:
        """What another run of the same left behind; nothing if it was another, or is damaged."""
        try:
            with safe_open(self.path, "pt", device="cpu") as file:
                about = file.metadata() or {}
                if about.get("fingerprint") == self.fingerprint:
                    yield from [(key, file.get_tensor(key)) for key in file.keys()]  # noqa: SIM118
                    self.batches = int(about["batches"])
        except (OSError, SafetensorError, ValueError, KeyError):
            return


def _fingerprint(dense: fx.GraphModule, names: Sequence[str], x: Tensor) -> str:
    found = hashlib.sha256(" ".join(names).encode())
    for tensor in (*dense.state_dict().values(), x):
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()
