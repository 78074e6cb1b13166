"""Samples of channels: wav and IDX."""

import gzip
import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from ...core.errors import InputError
from ..stream import samples
from .reading import Damage, Options
from .tables import row_name

CHANNELS, VALUES = 1024, 1 << 20  # of sound, of a record
WHOLE, FLOAT, EXTENSIBLE, OPEN = 1, 3, 0xFFFE, 0xFFFFFFFF  # forms of wav; a length of any
WAVE_FORMS = {*((WHOLE, bits) for bits in (8, 16, 24, 32)), (FLOAT, 32), (FLOAT, 64)}
IDX_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def _packet(first: int, rate: float, values: np.ndarray) -> np.ndarray:
    """A packet of rows at `rate` a second, of which the first is number `first`; values [N, C]."""
    return samples(np.arange(first, first + len(values)) * 1e6 / rate, values)


def wav(path: Path, head: bytes, options: Options, damage: Damage) -> Iterator[Any]:
    """Sound, in [-1, 1): whole numbers of 8 to 32 bits, or float32 or float64 as they are.

    A length of 0 or 2^32 - 1, which what is piped announces, is until the end.
    """
    with path.open("rb") as file:
        form, channels, rate, width, announced = _wav_header(file)
        damage.rate = float(rate)
        if options.rate and options.rate != rate:
            raise InputError(f"it has {rate} samples a second, and rate says {options.rate:g}")
        yield None, channels
        step, at, frame = max(1, options.packet // channels), 0, channels * width
        left = announced if announced not in (0, OPEN) else math.inf
        while left >= frame and (raw := file.read(int(min(step * frame, left)) // frame * frame)):
            left -= len(raw)
            rows = len(raw) // frame
            yield (
                _packet(at, rate, _wave_values(raw[: rows * frame], form, width, channels)),
                row_name(at),
            )
            at += rows
            if len(raw) % frame:
                break
        if math.isfinite(left) and left >= frame:
            total = announced // frame
            damage(total - at, f"frame {at}: the end, of {total} announced")


def _wav_header(file: IO[bytes]) -> tuple[int, int, int, int, int]:
    """Read up to the data: form, channels, rate, bytes of a number, bytes announced.

    http://soundfile.sapp.org/doc/WaveFormat; "extensible" has the form behind its size.
    """
    file.read(12)
    chunk, found = b"", None
    while len(about := file.read(8)) == 8:
        name, size = about[:4], int.from_bytes(about[4:], "little")
        if name == b"data" and found:
            return *found, size
        if name == b"data":
            break
        chunk = file.read(min(size, 64))
        file.seek(max(0, size - 64) + size % 2, 1)
        if name == b"fmt " and len(chunk) >= 16:
            form, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", chunk)
            form = int.from_bytes(chunk[24:26], "little") if form == EXTENSIBLE else form
            if (form, bits) not in WAVE_FORMS or not 1 <= channels <= CHANNELS or rate < 1:
                raise ValueError(
                    f"it has {channels} channels of {bits} bits at {rate} Hz, in form {form}; "
                    "numbers of 8, 16, 24 or 32 bits are read, or floats of 32 or 64"
                )
            found = form, channels, rate, bits // 8
    raise ValueError("it has no form and data")


def _wave_values(raw: bytes, form: int, width: int, channels: int) -> np.ndarray:
    """The numbers [N, channels] of frames."""
    if form == FLOAT:
        return np.frombuffer(raw, f"<f{width}").reshape(-1, channels)
    small = np.frombuffer(raw, np.uint8).reshape(-1, width)
    # Into the upper bytes of 32 bits; those of 8 bits count from 128.
    wide = np.zeros((len(small), 4), np.uint8)
    wide[:, 4 - width :] = small ^ 128 if width == 1 else small
    return wide.view("<i4").reshape(-1, channels) / 2**31


def idx(path: Path, head: bytes, options: Options, damage: Damage) -> Iterator[Any]:
    """MNIST's format, packed by gzip or not: one row a record, its numbers the channels.

    There are no times in it: `Options.rate` says how many records are one second.
    """
    if not options.rate:
        raise InputError("it has no times; pass rate=, in records a second")
    shape = idx_shape(head)
    if not shape or math.prod(shape[1:]) > VALUES:
        raise ValueError(f"byte 0: no IDX header of records of at most {VALUES} numbers")
    rows, channels = shape[0], math.prod(shape[1:])
    yield None, channels
    record = np.dtype((IDX_TYPES[_plain(head)[2]], (channels,)))
    step = max(1, options.packet // channels)
    with (gzip.open if head[:2] == b"\x1f\x8b" else open)(path, "rb") as file:
        file.read(4 + 4 * len(shape))
        for at in range(0, rows, step):
            count = min(step, rows - at)
            raw = file.read(count * record.itemsize)
            values = np.frombuffer(raw, record, len(raw) // record.itemsize)
            yield _packet(at, options.rate, values), row_name(at)
            if len(values) < count:
                damage(rows - at - len(values), f"row {at + len(values)}: the end, of {rows} rows")
                return


def idx_shape(head: bytes) -> tuple[int, ...] | None:
    """The shape that a header announces, None if it is none of IDX."""
    plain = _plain(head)
    if plain[:2] != b"\0\0" or len(plain) < 4 or plain[2] not in IDX_TYPES:
        return None
    shape = np.frombuffer(plain[4 : 4 + 4 * plain[3]].ljust(4 * plain[3], b"\0"), ">u4").tolist()
    return tuple(shape) if shape and all(shape[1:]) else None


def _plain(head: bytes) -> bytes:
    """The first bytes of a file, unpacked if it is packed by gzip."""
    if head[:2] != b"\x1f\x8b":
        return head
    try:
        return zlib.decompressobj(31).decompress(head, 2048)
    except zlib.error:
        return b""
