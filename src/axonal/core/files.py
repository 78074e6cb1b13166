"""Files that are whole or absent: everything Axonal writes goes through here."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from .errors import FileError


def write(path: str | Path, content: bytes | str | Callable[[Path], None]) -> Path:
    """Write `path` in one step: a reader sees the old file or the whole new one.

    Args:
        path: where to write; missing parent folders are made.
        content: bytes, text, or a function that fills the path it is given.

    Raises:
        FileError: the folder can't be written or the disk is full; no partial file stays.
    """
    path, partial = Path(path), None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        partial = Path(name)
        if callable(content):
            content(partial)
        else:
            partial.write_bytes(content.encode() if isinstance(content, str) else content)
        partial.chmod(0o644)
        os.replace(partial, path)
    except OSError as error:
        raise FileError(
            f"can't write {path}: {error.strerror or error}; free space or choose another folder"
        ) from error
    finally:
        if partial is not None:
            partial.unlink(missing_ok=True)
    return path


def readable(path: str | Path, empty: bool = False) -> Path:
    """See that `path` is a file that can be read and, unless it may be `empty`, holds something.

    Raises:
        FileError: there is none, it is a folder, it may not be read, or it is empty.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise FileError(f"{path} is a folder, not a file")
        if not path.exists():
            raise FileError(f"there is no file {path}")
        with path.open("rb") as file:
            if path.is_file() and not empty and not file.read(1):
                raise FileError(f"{path} is empty")
    except FileError:
        raise
    except OSError as error:
        raise FileError(f"can't read {path}: {error.strerror or error}") from error
    return path


def writable(folder: str | Path) -> Path:
    """Make `folder` if need be, and see that files can be written there, before long work begins.

    Raises:
        FileError: they can't.
    """
    probe = write(Path(folder) / ".axonal-probe", b"")
    probe.unlink()
    return Path(folder)
