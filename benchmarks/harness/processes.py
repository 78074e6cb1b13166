"""Processes that a test or a bench starts, kills and starts again: a broker, and `axonal watch`."""

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from axonal.core import files
from axonal.core.errors import FileError, ProcessError
from axonal.sense import checkpoint
from axonal.sense.watch import STATE_FILE


class Broker:
    """Mosquitto on a port of its own.

    Args:
        folder: for its settings, and for what it stores.
        persistent: whether it remembers over a restart what it owes to those who are away.
        passwords: a file of those who may connect; None for anybody.

    Raises:
        FileError: there is no mosquitto in $AXONAL_MOSQUITTO, on PATH, or with this Python.
    """

    host = "127.0.0.1"

    def __init__(self, folder: Path, persistent: bool = True, passwords: Path | None = None):
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
        allowed = f"password_file {passwords}" if passwords else "allow_anonymous true"
        text = f"listener {self.port} {self.host}\n{allowed}\nlog_type error\n"
        text += f"user {getpass.getuser()}\n"  # else root's becomes another, who can't write there
        if persistent:
            text += f"persistence true\npersistence_location {folder.resolve()}/\n"
        self.settings = files.write(folder / "mosquitto.conf", text)
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
                    last = self.process.communicate()[1].decode().strip()
                    raise ProcessError(f"mosquitto ended: {last}") from error
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


class Watch:
    """`axonal watch` on settings, in a process that can be killed and started again.

    Attributes:
        state: the file that it goes on from.
        resident: bytes of its memory, whenever it was polled.
    """

    def __init__(self, settings: Path, text: str):
        self.settings = files.write(settings, text)
        self.state = settings.with_suffix("") / STATE_FILE
        self.resident: list[int] = []
        self.start()

    def start(self) -> None:
        """Start it; it goes on from its state. Memory that it frees goes back to the system."""
        command = [sys.executable, "-m", "axonal", "watch", str(self.settings), "--quiet"]
        plain = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=plain)

    def kill(self) -> None:
        """Kill it with SIGKILL, and wait."""
        self.process.kill()
        self.process.communicate()

    def poll(self) -> bool:
        """Note its memory, and return whether it runs."""
        if self.process.poll() is not None:
            return False
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
            self.resident += [int(r.split()[1]) << 10 for r in status.splitlines() if "VmRSS" in r]
        except OSError:
            pass  # it has just ended
        return True

    def end(self, terminate: bool = False) -> dict[str, Any]:
        """Wait for it, after SIGTERM if asked for, and return its tally.

        Raises:
            ProcessError: it failed, with its last words.
        """
        if terminate:
            self.process.terminate()
        _, stderr = self.process.communicate()
        if self.process.returncode not in (0, 130):
            raise ProcessError(f"axonal watch failed: {stderr.strip()[-400:]}")
        return checkpoint.read(self.state)["watch"]["tally"]
