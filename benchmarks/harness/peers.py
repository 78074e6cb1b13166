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

from axonal.commands.console import status
from axonal.core import files
from axonal.core.errors import FileError, InputError

TORCH = "torch==2.13.0"
COMMON = (TORCH, "numpy")
NIR = ("nir==1.0.8", "nirtorch==2.6")
# What to install, and what without its requirements: torchvision and torchaudio, which several
# ask for and none of these layers uses, don't work beside every torch.
Environments = Mapping[str, tuple[Sequence[str], Sequence[str]]]
FRAMEWORKS: Environments = {  # of spiking neurons
    "snntorch": ([*COMMON, *NIR], ["snntorch==1.0.0"]),
    "spikingjelly": (
        [*COMMON, *NIR, "scipy", "tqdm", "matplotlib", "loguru<1", "packaging", "h5py", "requests"],
        ["spikingjelly==2.0.0"],
    ),
    "norse": ([*COMMON, *NIR], ["norse==1.1.0"]),
    "sinabs": ([*COMMON, *NIR, "matplotlib", "pbr"], ["sinabs==3.1.3"]),
    "rockpool": ([*COMMON, "scipy", "rockpool==3.1.0"], []),
    "spyx": ([*COMMON, "spyx==1.0.0"], []),
}
READERS: Environments = {  # of recordings of event cameras
    "faery": (["numpy", "faery==0.7.1"], []),
    "dv-processing": (["numpy", "dv-processing==2.0.4"], []),
}
ANOMALIES: Environments = {  # detectors of anomalies
    "anomalies": (["numpy", "scikit-learn==1.9.1", "stumpy==1.14.1", "river==0.26.1"], []),
}
PEERS: Environments = {**FRAMEWORKS, **READERS, **ANOMALIES}
WORKER = Path(__file__).parents[1] / "peers" / "worker.py"


def interpreter(name: str, root: Path) -> Path:
    """Return the Python of the environment of the peer `name`, made in `root` if it isn't there.

    Raises:
        InputError: no peer of that name. FileError: it can't be installed.
    """
    if name == "axonal":
        return Path(sys.executable)
    if name not in PEERS:
        raise InputError(f"no peer {name!r}; there are {', '.join(PEERS)}")
    folder, (packages, alone) = files.writable(root) / name, PEERS[name]
    python, stamp = folder / "bin" / "python", folder / ".complete"
    contents = json.dumps([packages, alone])
    if stamp.exists() and stamp.read_text() == contents:
        return python
    pip = [str(python), "-m", "pip", "install", "--quiet"]
    with status(f"installing {name} in {folder}"):
        venv.create(folder, with_pip=True, clear=True)
        for command in [[*pip, *packages], *([[*pip, "--no-deps", *alone]] if alone else [])]:
            process = subprocess.run(command, capture_output=True, text=True)
            if process.returncode:
                reason = process.stderr.strip().splitlines()[-1:] or ["pip failed"]
                raise FileError(f"can't install {name} in {folder}: {reason[0]}")
    files.write(stamp, contents)
    return python


class Peer:
    """A framework at work: `peer.ask(do="time", ...)`, see `benchmarks/peers/worker.py`."""

    def __init__(self, name: str, process: subprocess.Popen, stderr: IO[str]):
        self.name, self.process, self.stderr = name, process, stderr

    def ask(self, *, limit: float | None = None, **job: Any) -> dict[str, Any]:
        """Give the worker a job, and return its answer.

        Raises:
            FileError: the worker died, with its own last words, or took more than `limit` seconds.
        """
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin and stdout
        try:
            stdin.write(json.dumps(job) + "\n")
            stdin.flush()
        except BrokenPipeError:
            pass  # it has died; what it wrote is read below
        if limit is not None and not select.select([stdout], [], [], limit)[0]:
            raise FileError(f"the worker of {self.name} took more than {limit:.0f} s for {job}")
        if not (line := stdout.readline()):
            self.stderr.seek(0)
            last = self.stderr.read().strip().splitlines()[-1:] or ["no message"]
            raise FileError(f"the worker of {self.name} died at {job}: {last[0]}")
        return json.loads(line)


@contextmanager
def worker(name: str, root: Path, threads: int, reuse_memory: bool = True) -> Iterator[Peer]:
    """Start a worker of the peer `name`, with so many threads, that ends with the context.

    If it may `reuse_memory`, what it frees stays with the process, which is faster; if not, what
    is in use can be measured.

    Raises:
        InputError, FileError: as `interpreter`.
    """
    count = str(threads)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    environment |= {"OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count}
    limits = ("4294967296", "68719476736") if reuse_memory else ("131072", "131072")
    environment |= zip(("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"), limits, strict=True)
    command = [str(interpreter(name, root)), str(WORKER), name]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with tempfile.TemporaryFile("w+") as stderr:  # a pipe that nobody reads would fill and block
        process = subprocess.Popen(command, stderr=stderr, env=environment, **pipes)
        try:
            yield Peer(name, process, stderr)
        finally:
            process.kill()
            process.communicate()


def compare(
    ours: Peer, theirs: Peer, folder: Path, x: Path, own: str, variant: str
) -> dict[str, float]:
    """Run our variant `own` and theirs on the drive at `x`, in files in `folder`.

    Returns:
        `equal`: the share of equal steps; `spikes`: theirs a step; and, where both have gradients,
        `gradient`: the norm of the difference between those of x over the norm of theirs.

    Raises:
        FileError: a worker died.
    """
    a, b = (
        arrays(peer, folder, do="run", variant=name, x=str(x))
        for peer, name in ((ours, own), (theirs, variant))
    )
    result = {
        "equal": float((a["spikes"] == b["spikes"]).mean()),
        "spikes": float(b["spikes"].mean()),
    }
    if "grad" in a and "grad" in b:
        difference = np.linalg.norm(a["grad"] - b["grad"])
        result["gradient"] = float(difference / np.linalg.norm(b["grad"]))
    return result


def arrays(peer: Peer, folder: Path, **job: Any) -> dict[str, np.ndarray]:
    """Give a peer a job that writes arrays, and return these.

    Raises:
        FileError: the worker died.
    """
    out = folder / f"{peer.name}.npz"
    peer.ask(**job, out=str(out))
    with np.load(out) as file:
        return dict(file)
