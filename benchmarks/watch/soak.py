"""A simulated day for `axonal watch`: floods, drop-outs, a broker that restarts, and kills.

The day is recorded to a file and watched by the command in a process of its own, once undisturbed
and once killed (SIGKILL) and started again while the broker restarts; then a sender floods a UDP
source. What counts: every event was watched or named as dropped, and each wake came once.
"""

import json
import shutil
import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from axonal.core import files
from axonal.core.extras import require
from axonal.sense.sources import encode
from axonal.sense.stream import events

from ..harness.processes import Broker, Watch
from ..harness.recordings import save
from ..harness.results import Figures

SIDE = 64  # pixels of the simulated camera, squared
FLOOD = 10_000_000  # events a second
SILENCE = 600  # seconds of a drop-out
DATAGRAM = 60_000  # bytes
SETTINGS = """\
[watch]
name = "yard"
checkpoint = {checkpoint}

[source]
{source}

[[filter]]
kind = "lif_trace"
threshold = 6.0

[window]
seconds = 0.1

[[detector]]
kind = "rate"
threshold = {threshold}

[wake]
preroll = 1.0
postroll = 2.0

[[sink]]
kind = "mqtt"
host = "127.0.0.1"
port = {port}
prefix = "{prefix}"
reconnect = 0.1
"""


class Subscriber:
    """A client that gets all wakes of a broker, and again what came while it was cut off."""

    def __init__(self, port: int):
        paho = require("paho.mqtt.client", "watch")
        self.messages: list[tuple[str, str, str]] = []  # prefix, id, type
        self.client = paho.Client(
            paho.CallbackAPIVersion.VERSION2, client_id="soak", clean_session=False
        )
        self.client.on_connect = lambda client, *_: client.subscribe("+/events", qos=1)
        self.client.on_message = self._receive
        self.client.reconnect_delay_set(1, 1)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()

    def _receive(self, client: Any, user: Any, message: Any) -> None:
        content = json.loads(message.payload)
        prefix = message.topic.split("/")[0]
        self.messages.append((prefix, content["after"]["id"], content["type"]))

    def wakes(self, prefix: str) -> Counter[str]:
        """Count how often each wake was announced as new, by its id."""
        return Counter(i for p, i, kind in self.messages if p == prefix and kind == "new")

    def close(self) -> None:
        """End the connection."""
        self.client.disconnect()
        self.client.loop_stop()


def day(seconds: int, seed: int) -> Iterator[np.ndarray]:
    """Simulate a camera that looks at a yard, a packet a second.

    It sees noise of 0.2 Hz a pixel, and every three minutes or so somebody who crosses the yard in
    two seconds; there are six floods of a second, and four drop-outs.
    """
    draw = np.random.default_rng(seed)
    floods = set(draw.integers(seconds // 10, seconds, 6).tolist())
    silent, visited = np.zeros(seconds, bool), draw.random(seconds) < 1 / 180
    for start in draw.integers(seconds // 10, seconds, 4):
        silent[start : start + min(SILENCE, seconds // 10)] = True
    for k in range(seconds):
        if silent[k]:
            continue
        count = FLOOD if k in floods else int(draw.poisson(0.2 * SIDE**2))
        place = draw.integers(0, SIDE**2, count)
        parts = [(draw.integers(0, 1_000_000, count), place % SIDE, place // SIDE)]
        if visited[max(k - 1, 0) : k + 1].any():
            t = draw.integers(0, 1_000_000, 4000)
            x = t * (SIDE - 6) // 1_000_000 + draw.integers(0, 6, len(t))
            parts.append((t, x, SIDE // 2 + draw.integers(0, 6, len(t))))
        t, x, y = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.argsort(t, kind="stable")
        yield events(t[order] + k * 1_000_000, x[order], y[order], np.zeros(len(t)))


def figures(folder: Path, hours: float, seed: int, kills: int = 4, restarts: int = 3) -> Figures:
    """Watch the day undisturbed and disturbed, then a flood by UDP.

    Returns:
        `soak_events_lost`: events neither watched nor named as dropped, of both parts;
        `soak_duplicate_wakes`, `soak_missing_wakes`: beside the undisturbed day;
        `soak_redelivered`: messages that came twice with one id; and sizes, times, memory.

    Raises:
        FileError: no mosquitto, or `folder` can't be written. ProcessError: a process failed.
    """
    shutil.rmtree(folder, ignore_errors=True)
    seconds, sent = round(3600 * hours), 0

    def counted() -> Iterator[np.ndarray]:
        nonlocal sent
        for packet in track(day(seconds, seed), "recording a day", seconds, transient=True):
            sent += len(packet)
            yield packet

    save(files.writable(folder) / "day.raw", counted(), SIDE, SIDE)
    broker = Broker(folder)
    broker.start()
    subscriber = Subscriber(broker.port)
    try:
        disturbed = soak(folder, broker, subscriber, sent, seed, kills, restarts)
        return disturbed | flood(folder, broker, seed)
    finally:
        subscriber.close()
        broker.stop()
        (folder / "day.raw").unlink()


def soak(
    folder: Path,
    broker: Broker,
    subscriber: Subscriber,
    sent: int,
    seed: int,
    kills: int,
    restarts: int,
) -> Figures:
    """Watch `day.raw` in `folder`, of `sent` events, in peace and with kills and restarts.

    Raises:
        ProcessError: a watch failed.
    """
    about = {"source": f'url = "{folder / "day.raw"}"', "checkpoint": 600.0, "threshold": 0.5}
    about |= {"port": broker.port}
    calm = Watch(folder / "calm.toml", SETTINGS.format(**about, prefix="calm"))
    began = time.monotonic()
    while calm.poll():
        time.sleep(0.2)
    lasted, tally = time.monotonic() - began, calm.end()
    draw = np.random.default_rng(seed)
    due = [(float(at), "kill") for at in draw.uniform(0.1, 0.9, kills) * lasted]
    due += [(float(at), "restart") for at in draw.uniform(0.1, 0.9, restarts) * lasted]
    rough = Watch(folder / "rough.toml", SETTINGS.format(**about, prefix="rough"))
    began = time.monotonic()
    for at, disturbance in sorted(due):
        while time.monotonic() - began < at and rough.poll():
            time.sleep(0.2)
        if disturbance == "kill":
            rough.kill()
            rough.start()
        else:
            broker.restart()
    while rough.poll():
        time.sleep(0.2)
    again = rough.end()
    expected = subscriber.wakes("calm")
    for _ in range(300):  # a subscriber that was cut off gets the rest in a while
        if not set(expected) - set(received := subscriber.wakes("rough")):
            break
        time.sleep(0.1)
    memory = np.array(calm.resident)
    half = len(memory) // 2
    return {
        "soak_hours": tally["last_us"] / 3.6e9,
        "soak_events": sent,
        "soak_events_lost": sent - again["events_in"] - again["dropped"],
        "soak_wakes": len(expected),
        "soak_missing_wakes": len(set(expected) - set(received)),
        "soak_duplicate_wakes": len(set(received) - set(expected)),
        "soak_redelivered": sum(received.values()) - len(received),
        "soak_kills": kills,
        "soak_broker_restarts": restarts,
        "soak_seconds": lasted,
        "soak_memory_first_half_mb": float(memory[:half].max(initial=0)) / 1e6,
        "soak_memory_second_half_mb": float(memory[half:].max(initial=0)) / 1e6,
    }


def flood(folder: Path, broker: Broker, seed: int, seconds: int = 5) -> Figures:
    """Send a UDP source `FLOOD` events a second for so long, and kill the watch once meanwhile.

    Raises:
        ProcessError: the watch failed.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        address = free.getsockname()
    source = f'url = "udp://{address[0]}:{address[1]}"\nwidth = {SIDE}\nheight = {SIDE}'
    text = SETTINGS.format(
        source=source, checkpoint=0.5, threshold=0.9, port=broker.port, prefix="flood"
    )
    live = Watch(folder / "flood.toml", text)
    draw, total, took = np.random.default_rng(seed), 0, 1.0
    place = draw.integers(0, SIDE**2, FLOOD // 10)
    packet = events(np.zeros(len(place)), place % SIDE, place // SIDE, np.zeros(len(place)))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:

        def send(count: int) -> None:
            nonlocal total
            for frame in encode(packet[:count], total, 7, DATAGRAM):
                out.sendto(frame, address)
            total += count

        while not _is_taken(address) and live.poll():  # until it listens
            time.sleep(0.1)
        while not live.state.exists() and live.poll():  # until it watches
            packet["t"] += 100_000
            send(10)
            time.sleep(0.1)
        began = time.monotonic()
        for k in range(10 * seconds):
            packet["t"] = packet["t"][-1] + 1 + np.arange(len(packet)) * 100_000 // len(packet)
            send(len(packet))
            took = time.monotonic() - began
            time.sleep(max(0.1 * (k + 1) - took, 0))
            if k == 5 * seconds:
                live.kill()
                live.start()  # while the flood goes on
        for _ in range(100):  # so that what was lost at the end is named too
            packet["t"] += 100_000
            send(10)
            time.sleep(0.1)
    live.poll()
    tally = live.end(terminate=True)
    return {
        "flood_events": total,
        "flood_mev_s": 10 * seconds * len(packet) / took / 1e6,
        "flood_watched": tally["events_in"],
        "flood_dropped": tally["dropped"],
        "flood_memory_mb": live.resident[-1] / 1e6,
        "flood_events_lost": total - tally["events_in"] - tally["dropped"],
    }


def _is_taken(address: tuple[str, int]) -> bool:
    """Whether somebody listens there."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(address)
        except OSError:
            return True
    return False
