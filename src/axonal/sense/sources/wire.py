"""The wire format of rows, in frames that say how many rows their sender sent before.

A frame is one datagram, one MQTT message, or a piece of a stream. All is little-endian:

    bytes 0-1    "AX"
    byte 2       version, 1
    byte 3       channels: 0 for events, else how many values a sample has
    bytes 4-5    count: the rows that follow
    bytes 6-7    session: drawn anew when a sender starts
    bytes 8-15   total: rows sent in this session before this frame. It numbers the frames, and a
                 gap in it names exactly how many rows were lost
    bytes 16-23  t of the first row, signed, in microseconds
    from 24      rows: microseconds since t (4 bytes), then x (2), y (2), p (1), or the channels'
                 values as float32
"""

import secrets
import socket
import struct
from collections.abc import Iterable

import numpy as np

from ...core.errors import InputError
from ..stream import EVENT, channels_of, sample_type

MAGIC = b"AX\x01"
HEADER = struct.Struct("<3sBHHQq")
EVENT_ROW = np.dtype([("dt", "<u4"), ("x", "<u2"), ("y", "<u2"), ("p", "u1")])
LARGEST = 1 << 20  # bytes of a frame
DATAGRAM = 1400  # bytes that pass an Ethernet unbroken
FARTHEST = 1 << 61  # of times and totals: sums stay in an int64


def _row(channels: int) -> np.dtype:
    """The type of a row on the wire."""
    return np.dtype([("dt", "<u4"), ("value", "<f4", (channels,))]) if channels else EVENT_ROW


def encode(
    packet: np.ndarray, total: int = 0, session: int = 0, size: int = DATAGRAM
) -> list[bytes]:
    """Encode a packet as frames of at most `size` bytes or one row each.

    Raises:
        InputError: more than 255 channels.
    """
    channels = channels_of(packet)
    if channels > 255:
        raise InputError(f"encode: {channels} channels; a frame holds at most 255")
    row, t, frames, start = _row(channels), packet["t"], [], 0
    most = max(1, min((min(size, LARGEST) - HEADER.size) // row.itemsize, 65535))
    while start < len(packet):
        first = int(t[start])
        reach = np.searchsorted(t, min(first + 2**32 - 1, 2**63 - 1), "right")
        piece = packet[start : min(start + most, int(reach))]
        rows = np.empty(len(piece), row)
        rows["dt"] = piece["t"] - first
        for name in (row.names or ())[1:]:
            rows[name] = piece[name]
        head = HEADER.pack(MAGIC, channels, len(rows), session, total + start, first)
        frames.append(head + rows.tobytes())
        start += len(piece)
    return frames


def send(
    packets: Iterable[np.ndarray],
    address: tuple[str, int],
    total: int = 0,
    session: int | None = None,
    size: int = DATAGRAM,
) -> int:
    """Send packets by UDP to (host, port); returns the total to go on with in this session."""
    session = secrets.randbelow(1 << 16) if session is None else session
    family = socket.getaddrinfo(*address, type=socket.SOCK_DGRAM)[0][0]
    with socket.socket(family, socket.SOCK_DGRAM) as out:
        for packet in packets:
            for frame in encode(packet, total, session, size):
                out.sendto(frame, address)
            total += len(packet)
    return total


def length(data: bytes, start: int = 0) -> int:
    """The bytes of the frame at `start`; a header's, if that is incomplete or damaged."""
    if len(data) - start < HEADER.size:
        return HEADER.size
    magic, channels, count, *_ = HEADER.unpack_from(data, start)
    size = HEADER.size + count * _row(channels).itemsize
    return size if magic == MAGIC and size <= LARGEST else HEADER.size


def decode(frame: bytes) -> tuple[int, int, np.ndarray] | None:
    """Decode a frame: session, total and packet of one row or more; None if it is damaged."""
    if not HEADER.size < len(frame) == length(frame):
        return None
    _, channels, count, session, total, t = HEADER.unpack_from(frame)
    rows = np.frombuffer(frame, _row(channels), count, HEADER.size)
    if total > FARTHEST or abs(t) > FARTHEST or (rows["dt"][1:] < rows["dt"][:-1]).any():
        return None
    if not (np.isfinite(rows["value"]) if channels else rows["p"] <= 1).all():
        return None
    packet = np.empty(count, sample_type(channels) if channels else EVENT)
    packet["t"] = rows["dt"] + np.int64(t)
    for name in (rows.dtype.names or ())[1:]:
        packet[name] = rows[name]
    return session, total, packet
