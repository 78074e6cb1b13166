"""A real MQTT broker for tests, and a watch over threads that nobody ended."""

import os
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

UNPACKED = Path(__file__).parents[2] / ".venv" / "mosquitto" / "mosquitto"


class Broker:
    """Mosquitto on a port of its own, without memory of what it had before a restart."""

    def __init__(self, folder: Path):
        found = os.environ.get("AXONAL_MOSQUITTO") or shutil.which("mosquitto")
        self.program = found or str(UNPACKED)
        if not Path(self.program).exists():
            raise FileNotFoundError(
                "no mosquitto on PATH, in $AXONAL_MOSQUITTO or in .venv/mosquitto; "
                "run: tests/mosquitto.sh .venv/mosquitto"
            )
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.host, self.port = free.getsockname()
        self.settings = folder / "mosquitto.conf"
        listener = f"listener {self.port} {self.host}"
        self.settings.write_text(f"{listener}\nallow_anonymous true\nlog_type error\n")
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [self.program, "-c", str(self.settings)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while True:
            try:
                socket.create_connection((self.host, self.port), 1).close()
                return
            except OSError:
                if self.process.poll() is not None:
                    told = self.process.communicate()[1].decode()
                    raise RuntimeError(f"mosquitto ended: {told}") from None
                time.sleep(0.01)

    def stop(self) -> None:
        """End it as a power failure would."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None

    def restart(self) -> None:
        """Stop and start it."""
        self.stop()
        self.start()


@pytest.fixture
def broker(tmp_path_factory):
    """A `Broker` that runs: host, port, start, stop, restart."""
    one = Broker(tmp_path_factory.mktemp("broker"))
    one.start()
    yield one
    one.stop()


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    """Threads that a test starts end with it."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
        assert not thread.is_alive(), thread.name
