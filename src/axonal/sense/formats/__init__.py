"""Files as sources of packets: a reader a format, recognised by content, then by name."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ...core import files
from ...core.errors import FileError, InputError
from . import sampled, tables, text
from .camera_raw import HEAD, aedat2, aedat3, dat, event_stream, nmnist, prophesee, words
from .reading import Damage, File, Options, file_errors

__all__ = ["FORMATS", "File", "Format", "Options", "open_file"]


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
    recognise: Callable[[bytes], Any] = lambda head: False
    suffixes: tuple[str, ...] = ()


def _begins(pattern: bytes) -> Callable[[bytes], Any]:
    """Recognise a file by a pattern of its first bytes."""
    return partial(re.match, pattern)


EVT = rb"(%% .*\n)*?%% (evt %d\.0\r?\n|format EVT%d;)"  # either header may state the version
FORMATS: Mapping[str, Format] = {
    "evt2": Format(partial(words, partial(prophesee, version=2)), _begins(EVT % (2, 2))),
    "evt3": Format(partial(words, partial(prophesee, version=3)), _begins(EVT % (3, 3))),
    "dat": Format(partial(words, dat), _begins(b"% Data file containing"), (".dat",)),
    "aedat2": Format(partial(words, aedat2), _begins(b"#!AER-DAT2.0")),
    "aedat3": Format(aedat3, _begins(b"#!AER-DAT3.1")),
    "aedat4": Format(tables.aedat4, _begins(b"#!AER-DAT4.0")),
    "es": Format(partial(words, event_stream), _begins(b"Event Stream")),
    "npz": Format(tables.npz, _begins(b"PK\x03\x04")),
    "hdf5": Format(tables.hdf5, _begins(b"\x89HDF\r\n\x1a\n")),
    "wav": Format(sampled.wav, _begins(b"(?s)RIFF.{4}WAVE")),
    "nmnist": Format(partial(words, nmnist), suffixes=(".bin",)),
    "csv": Format(text.csv, suffixes=(".csv", ".tsv", ".txt")),
    "idx": Format(sampled.idx, sampled.idx_shape, (".idx", ".gz", "-ubyte")),
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
    path, chosen = files.readable(path, empty=True), Options.from_dict(options)
    with file_errors(path):
        with path.open("rb") as file:
            head = file.read(HEAD)
        name = format or _recognise(path, head)
        if not head and name in (None, "csv"):
            raise FileError(f"{path} is empty")
        if name is None or name not in FORMATS:
            raise InputError(f"pass format=, one of {', '.join(FORMATS)}; not {name!r}")
        return File(path, partial(FORMATS[name].read, path, head, chosen), chosen)


def _recognise(path: Path, head: bytes) -> str | None:
    """The name of the format, by content or else by name."""
    marked = (name for name, form in FORMATS.items() if form.recognise(head))
    named = (n for n, f in FORMATS.items() if path.name.lower().endswith(f.suffixes or ("\0",)))
    return next(marked, None) or next(named, None)
