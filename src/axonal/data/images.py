"""MNIST and CIFAR-10 from their canonical files, read without torch or torchvision.

Files are looked for under `$AXONAL_DATA`, else in `~/.cache/axonal`, and fetched there from
their canonical address when they are missing; every file fetched must have the digest below.
MNIST: LeCun, Cortes, Burges, http://yann.lecun.com/exdb/mnist (CC BY-SA 3.0).
CIFAR-10: Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html.
"""

import gzip
import hashlib
import io
import os
import tarfile
import urllib.request
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import Progress

from ..core import files
from ..core.errors import FileError, InputError


@dataclass(frozen=True)
class Remote:
    """A file at its canonical address, with the SHA-256 of its bytes."""

    url: str
    sha256: str


@dataclass(frozen=True)
class Images:
    """Labelled images: `pixels` [N, C, H, W] uint8 and `labels` [N] int64."""

    pixels: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.pixels)


_MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist/"
MNIST = {
    "train-images-idx3-ubyte.gz": Remote(
        _MNIST + "train-images-idx3-ubyte.gz",
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    ),
    "train-labels-idx1-ubyte.gz": Remote(
        _MNIST + "train-labels-idx1-ubyte.gz",
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    ),
    "t10k-images-idx3-ubyte.gz": Remote(
        _MNIST + "t10k-images-idx3-ubyte.gz",
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    ),
    "t10k-labels-idx1-ubyte.gz": Remote(
        _MNIST + "t10k-labels-idx1-ubyte.gz",
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
}
CIFAR10 = Remote(
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
)
CIFAR10_FILES = {
    "train": [f"data_batch_{i}.bin" for i in range(1, 6)],
    "test": ["test_batch.bin"],
}


def root() -> Path:
    """The data folder: `$AXONAL_DATA`, or `~/.cache/axonal` when it is unset.

    Raises:
        FileError: `$AXONAL_DATA` names a folder that does not exist.
    """
    if "AXONAL_DATA" not in os.environ:
        return Path.home() / ".cache" / "axonal"
    path = Path(os.environ["AXONAL_DATA"]).expanduser()
    if not path.is_dir():
        raise FileError(f"AXONAL_DATA={path} is no folder; make it, or unset it to download")
    return path


def fetch(remote: Remote, timeout: float = 30.0) -> bytes:
    """Download `remote` with a progress bar and check its digest.

    Raises:
        FileError: no answer, or the bytes are not those expected. Nothing is kept then.
    """
    digest, parts = hashlib.sha256(), []
    try:
        with urllib.request.urlopen(remote.url, timeout=timeout) as reply, Progress() as bar:
            task = bar.add_task(remote.url, total=int(reply.headers["Content-Length"] or 0) or None)
            while part := reply.read(1 << 20):
                digest.update(part)
                parts.append(part)
                bar.advance(task, len(part))
    except OSError as error:
        raise FileError(
            f"can't download {remote.url} ({error}); place the file under {root()} by hand"
        ) from error
    if digest.hexdigest() != remote.sha256:
        raise FileError(
            f"{remote.url} has SHA-256 {digest.hexdigest()}, not {remote.sha256}; "
            "the file was changed or cut off on its way: try again, or place it by hand"
        )
    return b"".join(parts)


def read_idx(path: Path) -> np.ndarray:
    """Read a gzipped IDX file of unsigned bytes (format: LeCun's MNIST page).

    Raises:
        FileError: not gzip, not IDX, or its length is not what its header announces.
    """
    try:
        with gzip.open(path) as file:
            head = file.read(4)
            if len(head) != 4 or head[:3] != b"\0\0\x08" or not 1 <= head[3] <= 4:
                raise FileError(f"{path} is no IDX file of bytes; fetch it again")
            shape = np.frombuffer(file.read(4 * head[3]), ">u4").astype(np.int64)
            size = int(np.prod(shape, dtype=object)) if len(shape) == head[3] else -1
            if not 0 <= size <= 1 << 30:
                raise FileError(f"{path} announces shape {shape.tolist()}; fetch it again")
            body = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"can't read {path} ({error}); fetch it again") from error
    if len(body) != size:
        raise FileError(f"{path} holds {len(body)} bytes where its header says {size}; fetch again")
    return np.frombuffer(body, np.uint8).reshape(shape)


def mnist(split: str) -> Images:
    """MNIST's `split` ("train", 60,000, or "test", 10,000) as 1 x 28 x 28 images.

    Raises:
        InputError: another split. FileError: files missing, damaged, or not MNIST.
    """
    _check_split(split)
    folder = root() / "mnist"
    arrays = []
    for kind in ("images-idx3", "labels-idx1"):
        name = f"{'train' if split == 'train' else 't10k'}-{kind}-ubyte.gz"
        if not (folder / name).exists():
            files.write(folder / name, fetch(MNIST[name]))
        arrays.append(read_idx(folder / name))
    pixels, labels = arrays
    if pixels.ndim != 3 or pixels.shape[1:] != (28, 28) or labels.shape != pixels.shape[:1]:
        raise FileError(f"{folder} holds {pixels.shape} images, {labels.shape} labels; not MNIST")
    return Images(pixels[:, None], labels.astype(np.int64))


def cifar10(split: str) -> Images:
    """CIFAR-10's `split` ("train", 50,000, or "test", 10,000) as 3 x 32 x 32 images.

    Raises:
        InputError: another split. FileError: files missing or damaged.
    """
    _check_split(split)
    folder = root() / "cifar-10-batches-bin"
    if not all((folder / name).exists() for names in CIFAR10_FILES.values() for name in names):
        _unpack_cifar10(folder, fetch(CIFAR10))
    rows = []
    for name in CIFAR10_FILES[split]:
        raw = np.fromfile(folder / name, np.uint8)
        if raw.size != 10_000 * 3073 or raw[::3073].max() > 9:
            raise FileError(f"{folder / name} is no CIFAR-10 batch; remove it to fetch it again")
        rows.append(raw.reshape(-1, 3073))
    table = np.concatenate(rows)
    return Images(table[:, 1:].reshape(-1, 3, 32, 32), table[:, 0].astype(np.int64))


def _unpack_cifar10(folder: Path, archive: bytes) -> None:
    wanted = {name for names in CIFAR10_FILES.values() for name in names}
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            if (name := Path(member.name).name) in wanted and (file := tar.extractfile(member)):
                files.write(folder / name, file.read())


def _check_split(split: str) -> None:
    if split not in ("train", "test"):
        raise InputError(f"split {split!r} is not 'train' or 'test'")


DATASETS = {"mnist": mnist, "cifar10": cifar10}
