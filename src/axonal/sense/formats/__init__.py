"""Files as sources of packets: a reader a format, recognised by content, then by name."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ...core.errors import InputError
from . import camera_raw, sampled, tables, text
from .reading import Damage, File, Options, file_errors
from .writing import save

__all__ = ["FORMATS", "File", "Format", "Options", "open_file", "save"]


@dataclass(frozen=True)
class Format:
    """A kind of file: how it is read, and how it is recognised.

    Attributes:
        read: takes the path of a file, its first `camera_raw.HEAD` bytes, the options, and what to
            call with rows that are lost and the reason. It first yields the size of the camera
            (None where the file doesn't say) and the channels of samples (0 where there are
            events), then blocks, see `reading.Block`.
        recognise: whether these first bytes are of this format.
        suffixes: ends of the names of files whose content has no mark.
    """

    read: Callable[[Path, bytes, Options, Damage], Iterator[Any]]
    recognise: Callable[[bytes], bool] = lambda head: False
    suffixes: tuple[str, ...] = ()


def _begins(mark: bytes) -> Callable[[bytes], bool]:
    """Recognise a file by its first bytes."""
    return lambda head: head.startswith(mark)


def _evt(version: int) -> Format:
    """EVT 2.0 or 3.0, by the two headers that either may have."""
    marks = (f"% evt {version}.0\n".encode(), f"% format EVT{version};".encode())
    return Format(
        partial(camera_raw.prophesee, version=version),
        lambda head: head.startswith(b"% ") and any(mark in head for mark in marks),
    )


FORMATS: Mapping[str, Format] = {
    "evt2": _evt(2),
    "evt3": _evt(3),
    "dat": Format(camera_raw.dat, _begins(b"% Data file containing"), (".dat",)),
    "aedat2": Format(camera_raw.aedat2, _begins(b"#!AER-DAT2.0")),
    "aedat3": Format(camera_raw.aedat3, _begins(b"#!AER-DAT3.1")),
    "aedat4": Format(tables.aedat4, _begins(b"#!AER-DAT4.0")),
    "es": Format(camera_raw.event_stream, _begins(b"Event Stream")),
    "npz": Format(tables.npz, _begins(b"PK\x03\x04")),
    "hdf5": Format(tables.hdf5, _begins(b"\x89HDF\r\n\x1a\n")),
    "wav": Format(sampled.wav, lambda head: head[:4] == b"RIFF" and head[8:12] == b"WAVE"),
    "nmnist": Format(camera_raw.nmnist, suffixes=(".bin",)),
    "csv": Format(text.csv, suffixes=(".csv", ".tsv", ".txt")),
    "idx": Format(sampled.idx, lambda h: bool(sampled.idx_shape(h)), (".idx", ".gz", "-ubyte")),
}


def open_file(path: str | Path, format: str | None = None, **options: Any) -> File:
    """Open a file as a source of packets; `Options` says what can be chosen.

    Args:
        path: of the file.
        format: a name in FORMATS; None to recognise it by the content, then by the name.
        options: of `Options`.

    Raises:
        InputError: no such format or option, or one that this file needs (its size, the unit of
            its times, its rate) is missing.
        FileError: the file can't be read, or what it announces can't be.
        MissingExtra: a package that its format needs is not installed.
    """
    path, chosen = Path(path), Options.from_dict(options)
    with file_errors(path):
        with path.open("rb") as file:
            head = file.read(camera_raw.HEAD)
        name = format or _recognise(path, head)
        if name is None or name not in FORMATS:
            raise InputError(f"pass format=, one of {', '.join(FORMATS)}; not {name!r}")
        return File(path, partial(FORMATS[name].read, path, head, chosen), chosen)


def _recognise(path: Path, head: bytes) -> str | None:
    """The name of the format, by content or else by name."""
    marked = (name for name, form in FORMATS.items() if form.recognise(head))
    named = (n for n, f in FORMATS.items() if path.name.lower().endswith(f.suffixes or ("\0",)))
    return next(marked, None) or next(named, None)
