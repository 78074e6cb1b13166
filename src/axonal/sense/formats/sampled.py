"""Samples of channels: wav and IDX."""

import gzip
import math
import wave
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import InputError
from ..stream import samples
from .reading import Damage, Options
from .tables import row_name

CHANNELS, VALUES = 1024, 1 << 20  # of sound, of a record
IDX_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def _packet(first: int, rate: float, values: np.ndarray) -> np.ndarray:
    """A packet of rows at `rate` a second, of which the first is number `first`; values [N, C]."""
    return samples(np.arange(first, first + len(values)) * 1e6 / rate, values)


def wav(path: Path, head: bytes, options: Options, damage: Damage) -> Iterator[Any]:
    """Sound, in [-1, 1): whole numbers of 8 to 32 bits."""
    with wave.open(str(path)) as file:
        channels, width, rate = file.getparams()[:3]
        if channels > CHANNELS or width > 4 or rate < 1:
            raise ValueError(f"it has {channels} channels of {width} bytes at {rate} Hz")
        yield None, channels
        step, at = max(1, options.packet // channels), 0
        while raw := file.readframes(step):
            rows = len(raw) // (channels * width)
            raw = np.frombuffer(raw, np.uint8, rows * channels * width).reshape(-1, width)
            # Into the upper bytes of 32 bits; those of 8 bits count from 128.
            wide = np.zeros((len(raw), 4), np.uint8)
            wide[:, 4 - width :] = raw ^ 128 if width == 1 else raw
            values = wide.view("<i4").reshape(-1, channels) / 2**31
            yield _packet(at, rate, values), row_name(at)
            at += rows
        if at < file.getnframes():
            damage(file.getnframes() - at, f"frame {at}: the end, of {file.getnframes()} announced")


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
