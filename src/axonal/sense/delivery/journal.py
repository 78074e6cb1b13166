"""A journal: numbered lines that survive whatever kills the process."""

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from ...core import files
from ...core.errors import FileError


class Journal:
    """Numbered lines of JSON, on disk when `append` returns; the newest `limit` of them stay.

    What a crash cut off is taken away, what was damaged left out. The file has at most twice
    `limit` lines.

    Raises:
        FileError: the file can't be opened.
    """

    def __init__(self, path: Path, limit: int):
        self.path, self.limit = path, limit
        self._load()

    def _load(self) -> None:
        self.lines: dict[int, tuple[int, int]] = {}  # number: where its line begins and ends
        self.ids: dict[str, int] = {}
        try:
            self.file = open(self.path, "a+b", buffering=0)  # noqa: SIM115
            self.file.seek(0)
            content = self.file.read()
            self.size = content.rfind(b"\n") + 1
            self.file.truncate(self.size)
        except OSError as error:
            raise FileError(f"can't open {self.path}: {error.strerror or error}") from error
        begin = 0
        for line in content[: self.size].splitlines(keepends=True):
            with suppress(ValueError, LookupError, TypeError, RecursionError):
                record = json.loads(line)
                self._index(int(record["n"]), str(record["id"]), begin, begin + len(line))
            begin += len(line)

    def _index(self, n: int, name: str, begin: int, end: int) -> None:
        self.lines[n], self.ids[name] = (begin, end), n

    def append(self, n: int, name: str, content: Mapping[str, Any]) -> None:
        """Add the line of number `n` and id `name`.

        Raises:
            FileError: the disk is full or gone; the file is as it was.
        """
        if len(self.lines) >= 2 * self.limit:
            self._compact()
        line = json.dumps({"n": n, "id": name, **content}).encode() + b"\n"
        try:
            written = 0
            while written < len(line):
                written += self.file.write(line[written:]) or 0
            os.fsync(self.file.fileno())
        except OSError as error:
            with suppress(OSError):
                self.file.truncate(self.size)
            raise FileError(f"can't write {self.path}: {error.strerror}; free space") from error
        self._index(n, name, self.size, self.size + len(line))
        self.size += len(line)

    def read(self, n: int) -> dict[str, Any] | None:
        """The line of number `n`; None if it is gone."""
        line = self._line(n) if n in self.lines else b""
        return json.loads(line) if line else None

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def _line(self, n: int) -> bytes:
        begin, end = self.lines[n]
        self.file.seek(begin)
        return self.file.read(end - begin) or b""

    def _compact(self) -> None:
        kept = [self._line(n) for n in sorted(self.lines)[-self.limit :]]
        self.close()
        with suppress(FileError):  # a full disk: the file stays as it is
            store(self.path, lambda file: file.writelines(kept))
        self._load()


def store(path: Path, fill: Callable[[BinaryIO], Any]) -> Path:
    """A file that is whole or absent, and on the disk."""

    def fill_and_sync(partial: Path) -> None:
        with open(partial, "wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())

    return files.write(path, fill_and_sync)
