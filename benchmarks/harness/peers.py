"""Other frameworks, each in an environment of its own, that run beside ours in the benches."""

import json
import os
import select
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from rich.status import Status

from axonal.core import files
from axonal.core.errors import FileError, InputError

TORCH = "torch==2.13.0"
COMMON = (TORCH, "numpy")
NIR = ("nir==1.0.8", "nirtorch==2.6")
# What to install, and what without its requirements: torchvision and torchaudio, which several
# ask for and none of these layers uses, don't work beside every torch.
PEERS: Mapping[str, tuple[Sequence[str], Sequence[str]]] = {
    "snntorch": ([*COMMON, *NIR], ["snntorch==1.0.0"]),
    "spikingjelly": (
        [*COMMON, *NIR, "scipy", "tqdm", "matplotlib", "loguru<1", "packaging", "h5py", "requests"],
        ["spikingjelly==2.0.0"],
    ),
    "norse": ([*COMMON, *NIR], ["norse==1.1.0"]),
    "sinabs": ([*COMMON, *NIR, "matplotlib", "pbr"], ["sinabs==3.1.3"]),
    "rockpool": ([*COMMON, "scipy", "rockpool==3.1.0"], []),
    "spyx": ([*COMMON, "spyx==1.0.0"], []),
    "faery": (["numpy", "faery==0.7.1"], []),
    "dv-processing": (["numpy", "dv-processing==2.0.4"], []),
}
WORKER = Path("benchmarks/peers/worker.py")


def python(name: str, root: Path) -> Path:
    """The interpreter of the environment of the peer `name`, made in `root` if it isn't there.

    Raises:
        InputError: no peer of that name. FileError: it can't be installed.
    """
    if name == "axonal":
        return Path(sys.executable)
    if name not in PEERS:
        raise InputError(f"no peer {name!r}; there are {', '.join(PEERS)}")
    folder, (needed, alone) = files.writable(root) / name, PEERS[name]
    found, stamp = folder / "bin" / "python", folder / ".complete"
    wanted = json.dumps([needed, alone])
    if stamp.exists() and stamp.read_text() == wanted:
        return found
    pip = [str(found), "-m", "pip", "install", "--quiet"]
    with Status(f"installing {name} in {folder}"):
        venv.create(folder, with_pip=True, clear=True)
        for command in [[*pip, *needed], *([[*pip, "--no-deps", *alone]] if alone else [])]:
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                reason = done.stderr.strip().splitlines()[-1:] or ["pip failed"]
                raise FileError(f"can't install {name} in {folder}: {reason[0]}")
    files.write(stamp, wanted)
    return found


class Peer:
    """A framework at work: `peer.ask(do="time", ...)`, see `benchmarks/peers/worker.py`."""

    def __init__(self, name: str, process: subprocess.Popen, said: IO[str]):
        self.name, self.process, self.said = name, process, said

    def ask(self, *, limit: float | None = None, **job: Any) -> dict[str, Any]:
        """The worker's answer to a job.

        Raises:
            FileError: the worker died, with its own last words, or took more than `limit` seconds.
        """
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin and stdout
        try:
            stdin.write(json.dumps(job) + "\n")
            stdin.flush()
        except BrokenPipeError:
            pass  # it has died; what it said is read below
        if limit is not None and not select.select([stdout], [], [], limit)[0]:
            raise FileError(f"the worker of {self.name} took more than {limit:.0f} s for {job}")
        if not (line := stdout.readline()):
            self.said.seek(0)
            last = self.said.read().strip().splitlines()[-1:] or ["no message"]
            raise FileError(f"the worker of {self.name} died at {job}: {last[0]}")
        return json.loads(line)


@contextmanager
def working(name: str, root: Path, threads: int, hoard: bool = True) -> Iterator[Peer]:
    """A worker of the peer `name`, with so many threads, that ends with the context.

    If it may `hoard`, memory that is freed stays with the process, which is faster; if not, what
    is in use can be measured.

    Raises:
        InputError: the worker's script is not here. FileError: as `python`.
    """
    if not WORKER.exists():
        raise InputError(f"{WORKER} is not here; run the bench in a clone of the repository")
    count = str(threads)
    kept = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    environment = kept | {"OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count}
    limits = ("4294967296", "68719476736") if hoard else ("131072", "131072")
    environment |= zip(("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"), limits, strict=True)
    command = [str(python(name, root)), str(WORKER), name]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with tempfile.TemporaryFile("w+") as said:  # a pipe that nobody reads would fill and block
        process = subprocess.Popen(command, stderr=said, env=environment, **pipes)
        try:
            yield Peer(name, process, said)
        finally:
            process.kill()
            process.communicate()


def compare(
    ours: Peer, theirs: Peer, folder: Path, x: Path, own: str, variant: str
) -> dict[str, float]:
    """Our variant `own` and theirs on the drive at `x`, with `folder` for what they find.

    Returns:
        `equal`: the share of equal steps; `spikes`: theirs a step; and, where both have gradients,
        `gradient`: the norm of the difference between those of x over the norm of theirs.

    Raises:
        FileError: a worker died.
    """
    found = []
    for who, name in ((ours, own), (theirs, variant)):
        out = folder / f"{who.name}.npz"
        who.ask(do="run", variant=name, x=str(x), out=str(out))
        with np.load(out) as file:
            found.append(dict(file))
    a, b = found
    result = {
        "equal": float((a["spikes"] == b["spikes"]).mean()),
        "spikes": float(b["spikes"].mean()),
    }
    if "grad" in a and "grad" in b:
        difference = np.linalg.norm(a["grad"] - b["grad"])
        result["gradient"] = float(difference / np.linalg.norm(b["grad"]))
    return result
