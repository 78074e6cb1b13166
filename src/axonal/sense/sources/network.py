"""Live sources: standard input, UDP, TCP and MQTT.

All take the frames of `wire`; given `channels`, also text, a sample a line of numbers with commas,
in brackets (a JSON list) or not: `t,value,...` with t in whole microseconds, or `value,...` and
the time of arrival. Nothing that arrives raises: what can't be used is counted in `refused`.
"""

import os
import select
import socket
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import ClassVar

import numpy as np

from ...core.errors import InputError
from ..broker import mqtt_client
from ..stream import EVENT, sample_type
from .wire import FARTHEST, LARGEST, MAGIC, decode, length

POLL_S = 0.1  # `close` ends a source this soon
CHUNK = 1 << 16  # bytes read at once
RECEIVED = 1 << 23  # bytes of datagrams that the system may hold meanwhile
BATCH = 256  # datagrams joined to one packet, if they are there
BACKOFF_S = 0.1, 30.0  # the first pause before connecting again, doubled up to the longest
CONNECT_S = 2.0
LAG_US = 500_000  # what may still be on its way
LARGEST_VALUE = float(np.finfo(np.float32).max)


class Live(ABC):
    """Base of sources that wait for a peer.

    One sender at a time: a new session takes over, and its clock, if it was set back, is shifted
    to go on after the last row; an older session, duplicates and late frames are ignored (what
    was late is in `dropped` already). A frame or line with a place outside the sensor, a number
    that is not finite, or a time before the last row's is refused.

    Args:
        width, height: of a camera, whose events come; or
        channels: of samples that come.
        clock: nanoseconds since 1970, for samples that bring no time.

    Attributes:
        dropped: rows missing between frames; after `seek(position)` from there to the first frame.
        refused: frames, lines or pieces of garbage that could not be used.
        position: rows of the sender's session that were seen or dropped.
        status: of the peer, in words.

    Raises:
        InputError: neither a size nor channels, or too large ones.
    """

    def __init__(
        self,
        width: int = 0,
        height: int = 0,
        channels: int = 0,
        clock: Callable[[], int] = time.time_ns,
    ):
        self.width, self.height = (channels, 1) if channels else (width, height)
        if not (1 <= self.width <= 65535 and 1 <= self.height <= 65535 and 0 <= channels <= 255):
            raise InputError(
                f"{type(self).__name__}: {width} x {height}, {channels} channels; give width and "
                "height up to 65535 for events, or 1 to 255 channels for samples"
            )
        self._dtype = sample_type(channels) if channels else EVENT
        self._channels, self._clock = channels, clock
        self.dropped = self.refused = self.position = 0
        self.status = "waiting"
        self._session: int | None = None
        self._past: deque[int] = deque(maxlen=16)
        self._joined, self._last, self._shift = False, -FARTHEST, 0
        self._latest: tuple[int, int] | None = None  # the last row's t, and `clock` when it came
        self._buffer = b""
        self._lock, self._closed = threading.Lock(), threading.Event()

    def seek(self, position: int) -> None:
        """Count what is missing from `position` on; before iterating."""
        self.position, self._joined = position, True

    def since(self, t_us: int) -> None:
        """Go on after t_us: a clock that was set back meanwhile is shifted."""
        self._last = t_us

    @property
    def now(self) -> int | None:
        """The time in the stream, in microseconds, less LAG_US; None before it began."""
        if self._latest is None:
            return None
        return self._latest[0] + (self._clock() - self._latest[1]) // 1000 - LAG_US

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield packets as they come, and an empty one when nothing did for POLL_S."""
        while True:
            with self._lock:
                packets = None if self._closed.is_set() else self._poll()
            if packets is None:
                return
            packet = np.concatenate([np.empty(0, self._dtype), *packets])
            yield packet
            if len(packet):
                self._latest = self._last, self._clock()

    def close(self) -> None:
        self._closed.set()
        with self._lock:
            self._release()

    @abstractmethod
    def _poll(self) -> list[np.ndarray] | None:
        """The packets that arrive within POLL_S; None at the end."""

    @abstractmethod
    def _release(self) -> None:
        """End the connection."""

    def message(self, payload: bytes) -> np.ndarray:
        """The rows of a datagram or message, none if it is refused."""
        if self._channels and not payload.startswith(MAGIC):
            return self._lines(payload)
        frame = decode(payload)
        return self._frame(*frame) if frame else self._refuse()

    def feed(self, data: bytes, ended: bool = False) -> list[np.ndarray]:
        """The rows of a stream that goes on with `data`; after garbage, from the next frame."""
        data, start, packets = self._buffer + data, 0, []
        while start < len(data):
            text = self._channels and not MAGIC.startswith(data[start : start + len(MAGIC)])
            end = data.find(b"\n", start) + 1 if text else start + length(data, start)
            if not start < end <= len(data):
                if not ended and len(data) - start <= LARGEST:
                    break
                end = len(data)
            before = self.refused
            packets.append(self.message(data[start:end]))
            if self.refused > before and not text:
                next_frame = data.find(MAGIC, start + 1)
                end = next_frame if next_frame > 0 else len(data)
            start = end
        self._buffer = data[start:]
        return packets

    def _refuse(self) -> np.ndarray:
        self.refused += 1
        return np.empty(0, self._dtype)

    def _frame(self, session: int, total: int, packet: np.ndarray) -> np.ndarray:
        """The rows of a frame, none if it is late or refused; counts what is missing before it."""
        t = int(packet["t"][0])
        known, shift = self.position if self._joined else total, self._shift
        if session in self._past or (session == self._session and total < known):
            return packet[:0]
        if session != self._session:
            shift = max(0, self._last + 1 - t)
            if self._session is not None or total < known:
                known = 0  # it began anew, and counts from 0
        if not self._fits(packet) or not self._last <= t + shift <= FARTHEST:
            return self._refuse()
        if session != self._session and self._session is not None:
            self._past.append(self._session)
        self._session, self._shift, self._joined = session, shift, True
        self.dropped += total - known
        self.position = total + len(packet)
        packet["t"] += shift
        self._last = int(packet["t"][-1])
        return packet

    def _fits(self, packet: np.ndarray) -> bool:
        if packet.dtype != self._dtype or self._channels:
            return packet.dtype == self._dtype
        return bool(packet["x"].max() < self.width and packet["y"].max() < self.height)

    def _lines(self, text: bytes) -> np.ndarray:
        rows = [row for line in text.split(b"\n") if line.strip() and (row := self._line(line))]
        self.position += len(rows)
        return np.array(rows, self._dtype)

    def _line(self, line: bytes) -> tuple[int, list[float]] | None:
        try:
            fields = line.decode("ascii").strip(" \r\t[]").split(",")
            t = max(self._clock() // 1000, self._last)
            if len(fields) == self._channels + 1:
                t = int(fields.pop(0))
            values = [float(field) for field in fields]
        except ValueError:
            values, t = [], 0
        fine = len(values) == self._channels and self._last <= t <= FARTHEST
        if not fine or not all(abs(value) <= LARGEST_VALUE for value in values):
            self.refused += 1
            return None
        self._last = t
        return t, values


class Listener(Live):
    """Base of sources with a socket of this `KIND` at `host`:`port`.

    Port 0 takes a free one, which is in `address`.

    Raises:
        InputError: as `Live`, or the address can't be had.
    """

    KIND: ClassVar[socket.SocketKind]

    def __init__(self, host: str = "127.0.0.1", port: int = 0, **options):
        super().__init__(**options)
        self._socket = _bind(host, port, self.KIND)
        self._socket.setblocking(False)
        self.address = self._socket.getsockname()[:2]

    def _release(self) -> None:
        self._socket.close()


class Udp(Listener):
    """Datagrams from any sender, see `Listener`."""

    KIND = socket.SOCK_DGRAM

    def _poll(self) -> list[np.ndarray]:
        packets = []
        select.select([self._socket], [], [], POLL_S)
        with suppress(BlockingIOError):
            while len(packets) < BATCH:
                packets.append(self.message(self._socket.recv(CHUNK)))
        self.status = "receiving" if packets else "waiting"
        return packets


class Tcp(Listener):
    """A stream from any peer, one at a time, see `Listener`.

    A peer that has died may not say so: the newest connection takes the place of the one before.
    """

    KIND = socket.SOCK_STREAM
    _peer: socket.socket | None = None

    def _poll(self) -> list[np.ndarray]:
        packets = []
        ready = select.select([s for s in (self._socket, self._peer) if s], [], [], POLL_S)[0]
        if self._peer in ready:
            try:
                data = self._peer.recv(CHUNK)
            except OSError:
                data = b""
            packets = self.feed(data, ended=not data)
            if not data:
                self._hang_up()
        if self._socket in ready and self._peer not in ready:  # what a peer has sent is read first
            packets = self.feed(b"", ended=True)
            self._hang_up()
            with suppress(OSError):  # it may have gone again
                self._peer, name = self._socket.accept()
                self.status = f"connected to {name[0]}:{name[1]}"
        return packets

    def _hang_up(self) -> None:
        if self._peer:
            self._peer.close()
        self._peer, self.status = None, "waiting"

    def _release(self) -> None:
        self._hang_up()
        super()._release()


class Stdin(Live):
    """A pipe, to its end; `file` is anything with a descriptor, by default standard input."""

    def __init__(self, file=None, **options):
        super().__init__(**options)
        self._file = sys.stdin.fileno() if file is None else file.fileno()
        self._ended = False

    def _poll(self) -> list[np.ndarray] | None:
        if self._ended:
            return None
        if not select.select([self._file], [], [], POLL_S)[0]:
            return []
        data = os.read(self._file, CHUNK)
        self._ended, self.status = not data, "receiving" if data else "ended"
        return self.feed(data, self._ended)

    def _release(self) -> None:
        """The owner of the file closes it."""


class Mqtt(Live):
    """Messages under `topic` at a broker; connects again, with growing pauses, when it is gone.

    With a `client_id` the broker keeps what is sent while nobody listens.

    Args:
        host, port, topic: what is subscribed to, and where.
        client_id: of a session that lasts.
        username, password_env, password_file, tls, ca: as of `broker.mqtt_client`.

    Raises:
        InputError: as `Live`. InputError, FileError, MissingExtra: as `broker.mqtt_client`.
    """

    def __init__(
        self,
        host: str,
        port: int = 1883,
        topic: str = "#",
        client_id: str = "",
        username: str = "",
        password_env: str = "",
        password_file: str = "",
        tls: bool = False,
        ca: str = "",
        **options,
    ):
        super().__init__(**options)
        session = {"client_id": client_id, "clean_session": not client_id}
        self._client = mqtt_client(username, password_env, password_file, tls, ca, **session)
        self._client.connect_timeout = CONNECT_S
        self._client.on_connect, self._client.on_message = self._subscribe, self._receive
        self._client.on_subscribe = self._confirm
        self._client.connect_async(host, port)
        self._topic, self._inbox = topic, []
        self._pause, self._due, self._why = BACKOFF_S[0], 0.0, ""

    def _poll(self) -> list[np.ndarray]:
        if self._client.is_connected() or self._client.socket():
            if self._client.loop(POLL_S):
                self._wait(self._why or "connection lost")
        elif time.monotonic() < self._due:
            self._closed.wait(POLL_S)
        else:
            self._why = ""
            try:
                self._client.reconnect()
            except OSError as error:
                self._wait(str(error))
        packets, self._inbox = self._inbox, []
        return packets

    def _wait(self, reason: str) -> None:
        self.status = f"{reason}; connecting again in {self._pause:.1f} s"
        self._due = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, BACKOFF_S[1])

    def _subscribe(self, client, userdata, flags, reason, properties) -> None:
        if reason.is_failure:  # the broker hangs up then, which says less
            self._why = f"the broker refuses: {reason}"
            self._wait(self._why)
            return
        client.subscribe(self._topic, qos=1)

    def _confirm(self, *_) -> None:
        self.status, self._pause = "connected", BACKOFF_S[0]

    def _receive(self, client, userdata, message) -> None:
        self._inbox.append(self.message(message.payload))

    def _release(self) -> None:
        self._client.disconnect()


def _bind(host: str, port: int, kind: socket.SocketKind) -> socket.socket:
    try:
        if not 0 <= port <= 65535:
            raise OSError("ports go from 0 to 65535")
        family, *_, address = socket.getaddrinfo(host, port, type=kind)[0]
        if kind == socket.SOCK_STREAM:
            return socket.create_server(address, family=family)
        server = socket.socket(family, kind)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVED)  # or what is allowed
        try:
            server.bind(address)
        except OSError:
            server.close()
            raise
        return server
    except OSError as error:
        raise InputError(f"can't listen on {host}:{port}: {error}; choose another") from error
