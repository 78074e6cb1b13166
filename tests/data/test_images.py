import gzip
import hashlib
import io
import tarfile
import threading
import time
import tracemalloc
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from axonal.core.errors import FileError, InputError
from axonal.data import images
from axonal.data.images import Remote, fetch, read_idx, root


def idx(array: np.ndarray) -> bytes:
    dims = np.array(array.shape, ">u4").tobytes()
    return b"\0\0\x08" + bytes([array.ndim]) + dims + array.tobytes()


PIXELS = np.random.default_rng(0).integers(0, 256, (3, 28, 28), np.uint8)
LABELS = np.array([7, 0, 9], np.uint8)
UNPACKED = idx(PIXELS)
PACKED = gzip.compress(UNPACKED, mtime=0)


@pytest.fixture
def data(tmp_path, monkeypatch):
    """An empty data folder, with tiny files standing in for the data sets' digests and sizes."""
    monkeypatch.setenv("AXONAL_DATA", str(tmp_path))
    for split in ("train", "t10k"):
        for kind, array in (("images-idx3", PIXELS), ("labels-idx1", LABELS)):
            name = f"{split}-{kind}"
            digest = hashlib.sha256(idx(array)).hexdigest()
            monkeypatch.setitem(images.MNIST, name, replace(images.MNIST[name], sha256=digest))
    monkeypatch.setattr(images, "_BATCH_SHAPE", (4, 3073))
    return tmp_path


def place_mnist(folder, level=9):
    (folder / "mnist").mkdir()
    for name, remote in images.MNIST.items():
        array = PIXELS if "images" in name else LABELS
        (folder / remote.place).write_bytes(gzip.compress(idx(array), level))


def batches():
    rng = np.random.default_rng(1)
    for i, name in enumerate(images.CIFAR10_FILES["train"] + images.CIFAR10_FILES["test"]):
        table = rng.integers(0, 256, (4, 3073), np.uint8)
        table[:, 0] = i
        yield name, table


def archive(members) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for info, content in members:
            info = tarfile.TarInfo(info) if isinstance(info, str) else info
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


@pytest.fixture
def serve(monkeypatch):
    """serve(content, status, announced, pause) -> the address of a server that answers so."""
    monkeypatch.setenv("no_proxy", "*")
    servers, done = [], threading.Event()

    def start(content=b"", status=200, announced=None, pause=0.0) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                done.wait(pause)
                self.send_response(status)
                if announced != "none":
                    self.send_header("Content-Length", str(announced or len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_):
                """Clients that hang up on purpose are no news."""

        server = Server(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/train-images-idx3-ubyte.gz"

    yield start
    done.set()
    for server in servers:
        server.shutdown()
        server.server_close()


def remote(url: str, content: bytes = UNPACKED, limit: int = 1_000_000) -> Remote:
    digest = hashlib.sha256(content).hexdigest()
    return Remote(url, "mnist/train-images-idx3-ubyte.gz", digest, limit)


def test_the_data_folder_is_named_by_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("AXONAL_DATA", raising=False)
    assert root() == tmp_path / ".cache" / "axonal"
    monkeypatch.setenv("AXONAL_DATA", "")
    assert root() == tmp_path / ".cache" / "axonal"
    monkeypatch.setenv("AXONAL_DATA", "~")
    assert root() == tmp_path
    monkeypatch.setenv("AXONAL_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(FileError, match=r"AXONAL_DATA=.*nowhere is no folder; make it, or unset"):
        images.mnist("train")


@pytest.mark.parametrize("level", [0, 1, 9])
@pytest.mark.parametrize("split", ["train", "test"])
def test_mnist_is_known_by_its_unpacked_content(data, split, level):
    place_mnist(data, level)
    dataset = images.mnist(split)
    assert len(dataset) == 3
    assert dataset.pixels.shape == (3, 1, 28, 28) and dataset.pixels.dtype == np.uint8
    assert (dataset.pixels[:, 0] == PIXELS).all()
    assert dataset.labels.tolist() == [7, 0, 9] and dataset.labels.dtype == np.int64
    assert dataset.pixels.flags.writeable and dataset.labels.flags.writeable


def test_another_file_in_mnists_place_is_refused(data):
    place_mnist(data)
    path = data / "mnist" / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(idx(PIXELS ^ 1)))
    with pytest.raises(FileError, match=r"can't use .*t10k-images.*another SHA-256.*remove it"):
        images.mnist("test")
    images.mnist("train")


def test_mnist_is_fetched_when_it_is_missing(data, monkeypatch, serve):
    place_mnist(data)
    path = data / "mnist" / "train-images-idx3-ubyte.gz"
    path.unlink()
    monkeypatch.setitem(images.MNIST, "train-images-idx3", remote(serve(PACKED)))
    assert (images.mnist("train").pixels[:, 0] == PIXELS).all()
    assert path.read_bytes() == PACKED
    path.unlink()
    monkeypatch.setitem(images.MNIST, "train-images-idx3", remote(serve(PACKED[:-9])))
    before = sorted(data.rglob("*"))
    with pytest.raises(FileError, match="place the data in"):
        images.mnist("train")
    assert sorted(data.rglob("*")) == before


def test_unknown_splits_are_refused():
    for read in images.DATASETS.values():
        with pytest.raises(InputError, match="split 'valid' is not 'train' or 'test'"):
            read("valid")


def test_idx_files_of_every_dimension_come_back(tmp_path):
    for shape in ((5,), (2, 3), (0, 28, 28), (2, 1, 3, 2)):
        array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
        (tmp_path / "x.gz").write_bytes(gzip.compress(idx(array)))
        stored = read_idx(tmp_path / "x.gz")
        assert stored.shape == shape and (stored == array).all() and stored.flags.writeable


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"plain text", "Not a gzipped file"),
        (PACKED[:-12], "ended before"),
        (PACKED[:-8] + b"\0" * 8, "CRC"),
        (gzip.compress(b""), "no IDX file"),
        (gzip.compress(b"\0\0\x0d\x01" + bytes(8)), "no IDX file of bytes"),
        (gzip.compress(b"\0\0\x08\x03\0\0\0\x01"), r"announces the shape \[1\]"),
        (gzip.compress(b"\0\0\x08\x04" + b"\xff" * 16), "announces the shape"),
        (gzip.compress(UNPACKED[:-1]), "2,351 of the 2,352 bytes"),
        (gzip.compress(UNPACKED + b"\0"), "more than the 2,352 bytes"),
    ],
    ids=["text", "cut", "crc", "empty", "floats", "no shape", "huge", "short", "long"],
)
def test_damaged_idx_files_are_refused_with_the_reason(tmp_path, content, message):
    (tmp_path / "x.gz").write_bytes(content)
    with pytest.raises(FileError, match=rf"can't use .*x.gz: .*{message}.*; put a whole copy"):
        read_idx(tmp_path / "x.gz")


def test_folders_and_missing_files_are_no_idx_files(tmp_path):
    for path in (tmp_path, tmp_path / "missing.gz"):
        with pytest.raises(FileError, match="can't use"):
            read_idx(path)


def read_or_refuse(path, content: bytes):
    path.write_bytes(content)
    try:
        return read_idx(path)
    except FileError:
        return None


@given(st.binary(max_size=200), st.booleans())
@example(b"\0\0\x08\x01" + bytes(4), True)
def test_random_bytes_are_read_or_refused(tmp_path, content, pack):
    read_or_refuse(tmp_path / "x.gz", gzip.compress(content) if pack else content)


@given(st.integers(0, len(PACKED) - 1))
def test_truncations_are_refused(tmp_path, length):
    assert read_or_refuse(tmp_path / "x.gz", PACKED[:length]) is None


@given(st.integers(0, len(PACKED) * 8 - 1))
def test_flipped_bits_never_change_the_pixels(tmp_path, bit):
    content = bytearray(PACKED)
    content[bit // 8] ^= 1 << bit % 8
    pixels = read_or_refuse(tmp_path / "x.gz", bytes(content))
    assert pixels is None or (pixels == PIXELS).all()


@given(st.integers(0, 16 * 8 - 1))
def test_flipped_header_bits_are_refused(tmp_path, bit):
    content = bytearray(UNPACKED)
    content[bit // 8] ^= 1 << bit % 8
    assert read_or_refuse(tmp_path / "x.gz", gzip.compress(bytes(content), 1)) is None


def test_memory_follows_the_content_and_not_the_header(tmp_path):
    announced = b"\0\0\x08\x01" + (1 << 30).to_bytes(4, "big")
    (tmp_path / "x.gz").write_bytes(gzip.compress(announced + bytes(1000)))
    tracemalloc.start()
    try:
        with pytest.raises(FileError, match="1,000 of the"):
            read_idx(tmp_path / "x.gz")
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_fetch_returns_what_the_server_holds(data, serve):
    assert fetch(remote(serve(PACKED))) == PACKED
    assert fetch(remote(serve(PACKED, announced="none"))) == PACKED
    plain = replace(remote(serve(b"tar"), b"tar"), url=serve(b"tar") + "?tar")
    assert fetch(plain) == b"tar"


def test_fetch_refuses_what_is_not_expected(data, serve):
    with pytest.raises(FileError, match=r"where .* is expected: the file was changed on its way"):
        fetch(remote(serve(gzip.compress(idx(PIXELS ^ 1)))))
    with pytest.raises(FileError, match=r"can't download .*Not a gzipped file"):
        fetch(remote(serve(b"<html>log in to this network first</html>")))
    with pytest.raises(FileError, match=r"can't download .*ended before"):
        fetch(remote(serve(PACKED[:-9], announced="none")))
    with pytest.raises(FileError, match=r"Connection broken|was cut off after"):
        fetch(remote(serve(PACKED[:-9], announced=len(PACKED))))
    with pytest.raises(FileError, match="404"):
        fetch(remote(serve(status=404)))


def test_fetch_bounds_what_it_accepts(data, serve):
    for announced in (None, "none"):
        with pytest.raises(FileError, match="it is longer than 1,000 bytes"):
            fetch(remote(serve(PACKED, announced=announced), limit=1000))


def test_fetch_says_where_to_place_what_it_can_not_get(data, serve):
    began = time.monotonic()
    with pytest.raises(
        FileError, match=rf"timed out; try again, or place the data in {data}/mnist"
    ):
        fetch(remote(serve(PACKED, pause=30)), timeout=0.2)
    assert time.monotonic() - began < 5
    for url in ("http://127.0.0.1:1/x", "http://127.0.0.1:port/x", "nothing"):
        with pytest.raises(FileError, match="can't download"):
            fetch(remote(url))


def test_cifar10_is_read_from_its_batches(data):
    (data / images.CIFAR10.place).mkdir()
    tables = dict(batches())
    for name, table in tables.items():
        table.tofile(data / images.CIFAR10.place / name)
    train, test = images.cifar10("train"), images.cifar10("test")
    assert train.pixels.shape == (20, 3, 32, 32) and test.pixels.shape == (4, 3, 32, 32)
    assert test.labels.tolist() == [5] * 4 and test.labels.dtype == np.int64
    assert (test.pixels.reshape(4, -1) == tables["test_batch.bin"][:, 1:]).all()
    assert test.pixels.flags.writeable and test.labels.flags.writeable


def test_damaged_batches_of_cifar10_are_refused(data):
    folder = data / images.CIFAR10.place
    folder.mkdir()
    for name, table in batches():
        table.tofile(folder / name)
    path = folder / "test_batch.bin"
    table = np.fromfile(path, np.uint8)
    table[0] = 10
    table.tofile(path)
    with pytest.raises(FileError, match=r"test_batch.bin as a batch.*label 10.*remove it"):
        images.cifar10("test")
    path.write_bytes(b"short")
    with pytest.raises(FileError, match="it holds 5 bytes, not 12,292"):
        images.cifar10("test")
    path.unlink()
    path.mkdir()
    with pytest.raises(FileError, match="remove it to download it again"):
        images.cifar10("test")


def test_cifar10_is_fetched_and_nothing_lands_outside(data, monkeypatch, serve):
    link = tarfile.TarInfo("batches/test_batch.bin")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    members = [(f"../../{name}", table.tobytes()) for name, table in batches()]
    content = archive([*members, ("../../outside.bin", b"x"), (link, b"")])
    url = serve(content) + "?tar"
    monkeypatch.setattr(
        images, "CIFAR10", replace(remote(url, content), place="cifar-10-batches-bin")
    )
    assert images.cifar10("test").labels.tolist() == [5] * 4
    folder = data / "cifar-10-batches-bin"
    assert list(data.iterdir()) == [folder]
    assert sorted(p.name for p in folder.iterdir()) == sorted(name for name, _ in batches())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no archive", "can't unpack"),
        (archive([("a", b"b")]), "no whole data_batch_1.bin"),
        (archive([(name, t.tobytes()) for name, t in batches()])[:-200], "can't unpack"),
        (archive([(name, t.tobytes()[:-1]) for name, t in batches()]), "no whole"),
    ],
    ids=["text", "another", "cut", "short"],
)
def test_archives_that_are_not_cifar10_leave_nothing(data, monkeypatch, serve, content, message):
    plain = replace(remote(serve(content) + "?tar", content), place="cifar-10-batches-bin")
    monkeypatch.setattr(images, "CIFAR10", plain)
    with pytest.raises(FileError, match=message):
        images.cifar10("train")
    assert not list(data.iterdir())
