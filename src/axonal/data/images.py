"""MNIST and CIFAR-10 from their canonical files, read without torch or torchvision.

Files are looked for under `$AXONAL_DATA`, else in `~/.cache/axonal`, and fetched there from
their canonical address when they are missing.

MNIST's digests are those of the unpacked files, because people re-pack the .gz. CIFAR-10's is
that of the archive and is checked on download; batch files already there are checked by their
structure alone, because people hold re-encoded copies.

MNIST: http://yann.lecun.com/exdb/mnist. CIFAR-10: https://www.cs.toronto.edu/~kriz/cifar.html.
"""

import gzip
import hashlib
import io
import math
import os
import tarfile
import urllib.request
import zlib
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from ..core import files
from ..core.errors import FileError, InputError


@dataclass(frozen=True)
class Remote:
    """A file at its canonical address.

    Attributes:
        url: the address.
        place: path of the file (or of an archive's folder) in the data folder.
        sha256: of the content; of an IDX file, unpacked.
        limit: the most bytes to accept.
    """

    url: str
    place: str
    sha256: str
    limit: int


@dataclass(frozen=True)
class Images:
    """Labelled images: `pixels` [N, C, H, W] uint8 and `labels` [N] int64."""

    pixels: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.pixels)


_DIGESTS = {
    "train-images-idx3": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
MNIST = {
    name: Remote(
        url=f"https://ossci-datasets.s3.amazonaws.com/mnist/{name}-ubyte.gz",
        place=f"mnist/{name}-ubyte.gz",
        sha256=digest,
        limit=12_000_000,
    )
    for name, digest in _DIGESTS.items()
}
CIFAR10 = Remote(
    url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    place="cifar-10-batches-bin",
    sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    limit=200_000_000,
)
CIFAR10_FILES = {"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]}
_BATCH_SHAPE = (10_000, 1 + 3 * 32 * 32)


def root() -> Path:
    """The data folder: `$AXONAL_DATA`, or `~/.cache/axonal` when it is unset or empty.

    Raises:
        FileError: `$AXONAL_DATA` names a folder that does not exist.
    """
    if not (name := os.environ.get("AXONAL_DATA")):
        return Path(os.path.expanduser("~/.cache/axonal"))
    path = Path(os.path.expanduser(name))
    if not path.is_dir():
        raise FileError(f"AXONAL_DATA={name} is no folder; make it, or unset it to use ~/.cache")
    return path


def fetch(remote: Remote, timeout: float = 30.0) -> bytes:
    """Download `remote` with a progress bar and check its digest.

    Raises:
        FileError: no answer, too many bytes, or not those expected. Nothing is kept then.
    """
    remedy = f"try again, or place the data in {root() / remote.place} by hand"
    try:
        content = _download(remote, timeout)
        digest = _digest(content, packed=remote.url.endswith("-ubyte.gz"))
    except (OSError, HTTPException, ValueError, EOFError, zlib.error) as error:
        raise FileError(f"can't download {remote.url}: {error}; {remedy}") from error
    if digest != remote.sha256:
        raise FileError(
            f"{remote.url} has SHA-256 {digest} where {remote.sha256} is expected: the file was "
            f"changed on its way; {remedy}"
        )
    return content


def _digest(content: bytes, packed: bool) -> str:
    digest, raw = hashlib.sha256(), io.BytesIO(content)
    with gzip.GzipFile(fileobj=raw) if packed else raw as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def _download(remote: Remote, timeout: float) -> bytes:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    # On stderr, so that a command's output can be piped on.
    bar = Progress(*columns, TransferSpeedColumn(), console=Console(stderr=True), transient=True)
    content = bytearray()
    with urllib.request.urlopen(remote.url, timeout=timeout) as reply, bar:
        announced = int(reply.headers["Content-Length"] or 0)
        task = bar.add_task(remote.place, total=announced or None)
        while part := reply.read1(1 << 16):
            content += part
            if max(len(content), announced) > remote.limit:
                raise ValueError(f"it is longer than {remote.limit:,} bytes")
            bar.update(task, completed=len(content))
    if announced and len(content) != announced:
        raise ValueError(f"it was cut off after {len(content):,} of {announced:,} bytes")
    return bytes(content)


def read_idx(path: Path, sha256: str | None = None) -> np.ndarray:
    """Read a gzipped IDX file of unsigned bytes (format: LeCun's MNIST page).

    Args:
        path: the .gz file.
        sha256: of the unpacked file, if it is known.

    Returns:
        A writable uint8 array of 1 to 4 dimensions and at most 1 GiB.

    Raises:
        FileError: not gzip, not IDX, its length is not what its header announces, or its digest
            is another.
    """
    try:
        with gzip.open(path) as file:
            head = file.read(4)
            if head[:3] != b"\0\0\x08" or not 1 <= head[-1] <= 4 or len(head) != 4:
                raise ValueError("it is no IDX file of bytes")
            head += file.read(4 * head[3])
            shape = np.frombuffer(head[4 : len(head) & ~3], ">u4").tolist()
            size = math.prod(shape)
            if len(shape) != head[3] or size > 1 << 30:
                raise ValueError(f"its header announces the shape {shape}")
            body = bytearray()
            # In pieces, so that memory follows what the file holds and not what it announces;
            # one byte more than announced, so that gzip checks its own checksum at the end.
            while part := file.read(min(1 << 20, size + 1 - len(body))):
                body += part
        if len(body) != size:
            more = "more than " if len(body) > size else f"{len(body):,} of "
            raise ValueError(f"it holds {more}the {size:,} bytes its header announces")
        if sha256 and hashlib.sha256(head + body).hexdigest() != sha256:
            raise ValueError("its unpacked content has another SHA-256 than the original")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise FileError(
            f"can't use {path}: {error}; put a whole copy there, or remove it to download it again"
        ) from error
    return np.frombuffer(body, np.uint8).reshape(shape)


def mnist(split: str) -> Images:
    """MNIST's `split` ("train", 60,000, or "test", 10,000) as 1 x 28 x 28 images.

    Raises:
        InputError: another split.
        FileError: files can't be fetched, are damaged, or are not MNIST.
    """
    check_split(split)
    arrays = []
    for kind in ("images-idx3", "labels-idx1"):
        remote = MNIST[f"{'train' if split == 'train' else 't10k'}-{kind}"]
        path = root() / remote.place
        if not path.exists():
            files.write(path, fetch(remote))
        arrays.append(read_idx(path, remote.sha256))
    pixels, labels = arrays
    return Images(pixels[:, None], labels.astype(np.int64))


def cifar10(split: str) -> Images:
    """CIFAR-10's `split` ("train", 50,000, or "test", 10,000) as 3 x 32 x 32 images.

    Raises:
        InputError: another split.
        FileError: files can't be fetched, or are damaged.
    """
    check_split(split)
    folder = root() / CIFAR10.place
    if not all((folder / name).exists() for names in CIFAR10_FILES.values() for name in names):
        _unpack_cifar10(folder, fetch(CIFAR10))
    table = np.concatenate([_read_batch(folder / name) for name in CIFAR10_FILES[split]])
    return Images(table[:, 1:].reshape(-1, 3, 32, 32), table[:, 0].astype(np.int64))


def _read_batch(path: Path) -> np.ndarray:
    try:
        size = path.stat().st_size
        if size != math.prod(_BATCH_SHAPE):
            raise ValueError(f"it holds {size:,} bytes, not {math.prod(_BATCH_SHAPE):,}")
        table = np.fromfile(path, np.uint8).reshape(_BATCH_SHAPE)
        if table[:, 0].max() > 9:
            raise ValueError(f"it has a label {table[:, 0].max()}, above 9")
    except (OSError, ValueError) as error:
        raise FileError(
            f"can't use {path} as a batch of CIFAR-10: {error}; remove it to download it again"
        ) from error
    return table


def _unpack_cifar10(folder: Path, archive: bytes) -> None:
    names = {name for names in CIFAR10_FILES.values() for name in names}
    contents = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            for member in tar:
                # Only the last part of a name is used: nothing is written outside `folder`.
                name = Path(member.name).name
                complete = member.isfile() and member.size == math.prod(_BATCH_SHAPE)
                if name in names and complete and (file := tar.extractfile(member)):
                    contents[name] = file.read()
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise FileError(f"can't unpack {CIFAR10.url}: {error}; try again") from error
    if missing := sorted(names - set(contents)):
        raise FileError(f"{CIFAR10.url} holds no whole {missing[0]}; place it in {folder} by hand")
    for name, content in contents.items():
        files.write(folder / name, content)


def check_split(split: str) -> None:
    """Refuse any split but "train" and "test".

    Raises:
        InputError: it is another.
    """
    if split not in ("train", "test"):
        raise InputError(f"split {split!r} is not 'train' or 'test'")


DATASETS = {"mnist": mnist, "cifar10": cifar10}
