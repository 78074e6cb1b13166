"""A simulated day for `axonal watch`: floods, drop-outs, a broker that restarts, and kills.

The day is recorded to a file and watched by the command in a process of its own, once undisturbed
and once killed (SIGKILL) and started again while the broker restarts; then a sender floods a UDP
source. What counts: every event was watched or named as dropped, and each wake came once.
"""

import getpass
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from axonal.core import files
from axonal.core.errors import FileError, ProcessError
from axonal.core.extras import require
from axonal.sense import checkpoint
from axonal.sense.formats import save
from axonal.sense.sources import encode
from axonal.sense.stream import events
from axonal.sense.watch import STATE_FILE

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


class Broker:
    """Mosquitto on a port of its own.

    Args:
        folder: for its settings, and for what it keeps.
        keeps: whether it remembers over a restart what it owes to those who are away.

    Raises:
        FileError: there is no mosquitto in $AXONAL_MOSQUITTO, on PATH, or with this Python.
    """

    host = "127.0.0.1"

    def __init__(self, folder: Path, keeps: bool = True):
        beside = Path(sys.prefix) / "mosquitto" / "mosquitto"
        self.program = os.environ.get("AXONAL_MOSQUITTO") or shutil.which("mosquitto") or beside
        if not Path(self.program).exists():
            raise FileError(
                "no mosquitto in $AXONAL_MOSQUITTO or on PATH; install Debian's package of that "
                "name, or run: tests/mosquitto.sh .venv/mosquitto"
            )
        with socket.socket() as free:
            free.bind((self.host, 0))
            self.port = free.getsockname()[1]
        text = f"listener {self.port} {self.host}\nallow_anonymous true\nlog_type error\n"
        text += f"user {getpass.getuser()}\n"  # else root's becomes another, who can't write there
        kept = f"persistence true\npersistence_location {folder.resolve()}/\n" if keeps else ""
        self.settings = files.write(folder / "mosquitto.conf", text + kept)
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        """Start it, and wait until it answers.

        Raises:
            ProcessError: it ended, with its last words.
        """
        command = [str(self.program), "-c", str(self.settings)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while True:
            try:
                return socket.create_connection((self.host, self.port), 1).close()
            except OSError as error:
                if self.process.poll() is not None:
                    told = self.process.communicate()[1].decode().strip()
                    raise ProcessError(f"mosquitto ended: {told}") from error
                time.sleep(0.01)

    def stop(self, kill: bool = False) -> None:
        """End it: in order, or as a power failure would."""
        if self.process is not None:
            (self.process.kill if kill else self.process.terminate)()
            self.process.communicate()
            self.process = None

    def restart(self, kill: bool = False) -> None:
        """Stop and start it."""
        self.stop(kill)
        self.start()


class Ears:
    """Who listens to all wakes at a broker, and is told again what came while it was cut off."""

    def __init__(self, port: int):
        paho = require("paho.mqtt.client", "watch")
        self.heard: list[tuple[str, str, str]] = []  # prefix, id, type
        self.client = paho.Client(
            paho.CallbackAPIVersion.VERSION2, client_id="ears", clean_session=False
        )
        self.client.on_connect = lambda client, *_: client.subscribe("+/events", qos=1)
        self.client.on_message = self._hear
        self.client.reconnect_delay_set(1, 1)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()

    def _hear(self, client: Any, user: Any, message: Any) -> None:
        said = json.loads(message.payload)
        self.heard.append((message.topic.split("/")[0], said["after"]["id"], said["type"]))

    def wakes(self, prefix: str) -> Counter[str]:
        """How often each event was said to be new, by its id."""
        return Counter(i for p, i, kind in self.heard if p == prefix and kind == "new")

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def day(seconds: int, seed: int) -> Iterator[np.ndarray]:
    """A camera that looks at a yard, a packet a second: noise of 0.2 Hz a pixel, and every three
    minutes or so somebody who crosses it in two seconds; six floods of a second, four drop-outs.
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
        found = [(draw.integers(0, 1_000_000, count), place % SIDE, place // SIDE)]
        if visited[max(k - 1, 0) : k + 1].any():
            t = draw.integers(0, 1_000_000, 4000)
            x = t * (SIDE - 6) // 1_000_000 + draw.integers(0, 6, len(t))
            found.append((t, x, SIDE // 2 + draw.integers(0, 6, len(t))))
        t, x, y = (np.concatenate(column) for column in zip(*found, strict=True))
        order = np.argsort(t, kind="stable")
        yield events(t[order] + k * 1_000_000, x[order], y[order], np.zeros(len(t)))


class Command:
    """`axonal watch` on settings, in a process that can be killed and started again."""

    def __init__(self, settings: Path, text: str):
        self.settings = files.write(settings, text)
        self.state = settings.with_suffix("") / STATE_FILE
        self.resident: list[int] = []  # bytes, whenever it was looked at
        self.start()

    def start(self) -> None:
        """Start it; it goes on from its state. What it frees goes back, so that memory is told."""
        command = [sys.executable, "-m", "axonal.cli", "watch", str(self.settings), "--quiet"]
        plain = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=plain)

    def kill(self) -> None:
        """SIGKILL, and wait."""
        self.process.kill()
        self.process.communicate()

    def look(self) -> bool:
        """Note its memory; whether it runs."""
        if self.process.poll() is not None:
            return False
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
            self.resident += [int(r.split()[1]) << 10 for r in status.splitlines() if "VmRSS" in r]
        except OSError:
            pass  # it has just ended
        return True

    def end(self, terminate: bool = False) -> dict[str, Any]:
        """Wait for it, after SIGTERM if asked for; its tally.

        Raises:
            ProcessError: it failed, with its last words.
        """
        if terminate:
            self.process.terminate()
        _, said = self.process.communicate()
        if self.process.returncode not in (0, 130):
            raise ProcessError(f"axonal watch failed: {said.strip()[-400:]}")
        return checkpoint.read(self.state)["watch"]["tally"]


def figures(folder: Path, hours: float, seed: int, kills: int = 4, restarts: int = 3) -> dict:
    """The day undisturbed and disturbed, then a flood by UDP.

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
    ears = Ears(broker.port)
    try:
        found = disturbed(folder, broker, ears, sent, seed, kills, restarts)
        return found | flood(folder, broker, seed)
    finally:
        ears.close()
        broker.stop()
        (folder / "day.raw").unlink()


def disturbed(
    folder: Path, broker: Broker, ears: Ears, sent: int, seed: int, kills: int, restarts: int
) -> dict[str, Any]:
    about = {"source": f'url = "{folder / "day.raw"}"', "checkpoint": 600.0, "threshold": 0.5}
    about |= {"port": broker.port}
    calm = Command(folder / "calm.toml", SETTINGS.format(**about, prefix="calm"))
    began = time.monotonic()
    while calm.look():
        time.sleep(0.2)
    lasted, tally = time.monotonic() - began, calm.end()
    draw = np.random.default_rng(seed)
    due = [(float(at), "kill") for at in draw.uniform(0.1, 0.9, kills) * lasted]
    due += [(float(at), "restart") for at in draw.uniform(0.1, 0.9, restarts) * lasted]
    rough = Command(folder / "rough.toml", SETTINGS.format(**about, prefix="rough"))
    began = time.monotonic()
    for at, what in sorted(due):
        while time.monotonic() - began < at and rough.look():
            time.sleep(0.2)
        if what == "kill":
            rough.kill()
            rough.start()
        else:
            broker.restart()
    while rough.look():
        time.sleep(0.2)
    again = rough.end()
    whole = ears.wakes("calm")
    for _ in range(300):  # ears that were cut off hear again in a while
        if not set(whole) - set(heard := ears.wakes("rough")):
            break
        time.sleep(0.1)
    memory = np.array(calm.resident)
    half = len(memory) // 2
    return {
        "soak_hours": tally["last_us"] / 3.6e9,
        "soak_events": sent,
        "soak_events_lost": sent - again["events_in"] - again["dropped"],
        "soak_wakes": len(whole),
        "soak_missing_wakes": len(set(whole) - set(heard)),
        "soak_duplicate_wakes": len(set(heard) - set(whole)),
        "soak_redelivered": sum(heard.values()) - len(heard),
        "soak_kills": kills,
        "soak_broker_restarts": restarts,
        "soak_seconds": lasted,
        "soak_memory_first_half_mb": float(memory[:half].max(initial=0)) / 1e6,
        "soak_memory_second_half_mb": float(memory[half:].max(initial=0)) / 1e6,
    }


def flood(folder: Path, broker: Broker, seed: int, seconds: int = 5) -> dict[str, Any]:
    """A UDP source that gets `FLOOD` events a second for so long, and is killed once meanwhile."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        address = free.getsockname()
    source = f'url = "udp://{address[0]}:{address[1]}"\nwidth = {SIDE}\nheight = {SIDE}'
    text = SETTINGS.format(
        source=source, checkpoint=0.5, threshold=0.9, port=broker.port, prefix="flood"
    )
    live = Command(folder / "flood.toml", text)
    draw, total, took = np.random.default_rng(seed), 0, 1.0
    place = draw.integers(0, SIDE**2, FLOOD // 10)
    packet = events(np.zeros(len(place)), place % SIDE, place // SIDE, np.zeros(len(place)))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:

        def send(count: int) -> None:
            nonlocal total
            for frame in encode(packet[:count], total, 7, DATAGRAM):
                out.sendto(frame, address)
            total += count

        while not _taken(address) and live.look():  # until it listens
            time.sleep(0.1)
        while not live.state.exists() and live.look():  # until it watches
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
    live.look()
    tally = live.end(terminate=True)
    return {
        "flood_events": total,
        "flood_mev_s": 10 * seconds * len(packet) / took / 1e6,
        "flood_watched": tally["events_in"],
        "flood_dropped": tally["dropped"],
        "flood_memory_mb": live.resident[-1] / 1e6,
        "flood_events_lost": total - tally["events_in"] - tally["dropped"],
    }


def _taken(address: tuple[str, int]) -> bool:
    """Whether somebody listens there."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(address)
        except OSError:
            return True
    return False
