"""Cameras' own formats: a header of text, then words that a kernel decodes."""

import bisect
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..stream import EVENT, events
from . import kernels
from .reading import Block, Content, Damage, Options, Size

HEAD = 1 << 20  # bytes of a header, at most: some have all settings of a camera
CHIPS = {"dvs128": (128, 128), "davis240": (240, 180), "davis346": (346, 260)}
# Of cameras whose recordings don't say their size, by the plugin that recorded.
PLUGINS = {"gen3": (640, 480), "gen4": (1280, 720), "imx636": (1280, 720), "genx320": (320, 320)}
ATIS, NMNIST = (304, 240), (34, 34)


def prophesee(path: Path, head: bytes, options: Options, version: int) -> Content:
    """EVT 2.0 and 3.0 (`version`), with the header of Prophesee's RAW files or without one.

    https://docs.prophesee.ai/stable/data/file_formats/raw.html
    """
    lines, start = _header(head, b"% ", "end")
    if re.search(r"(?m)^endianness big", lines):
        raise ValueError("it is big-endian; record it little-endian")
    plugin = re.search(r"(?m)^plugin_name .*(gen3|gen4|imx636|genx320)", lines)
    size = _size(lines) or (PLUGINS[plugin[1]] if plugin else None)
    if version == 2:
        return Content(size, Words(path, start, "<u4", kernels.evt2, [-1, 0], options.packet))
    state = [-1, 0, 0, 0, 0, 0]
    return Content(size, Words(path, start, "<u2", kernels.evt3, state, options.packet))


def dat(path: Path, head: bytes, options: Options) -> Content:
    """DAT 2 with 2D events: https://docs.prophesee.ai/stable/data/file_formats/dat.html."""
    lines, start = _header(head, b"% ", "end")
    if head[start : start + 2] not in (b"\0\x08", b"\x0c\x08"):
        raise ValueError(f"byte {start}: no 2D events of 8 bytes, which alone are read")
    state = [0, 0, 0, 0, 0, 14, -1, 14, 14, -1, 28, 1, -1]
    words = Words(path, start + 2, "(2,)<u4", kernels.pairs, state, options.packet)
    return Content(_size(lines) or ATIS, words)


def aedat2(path: Path, head: bytes, options: Options) -> Content:
    """AEDAT 2.0 of a DVS128 (which counts y from below) or of a DAVIS (both from the other side).

    https://docs.inivation.com/software/software-advanced-usage/file-formats/aedat-2.0.html
    """
    lines, start = _header(head, b"#", "End Of ASCII Header")
    width, height = size = options.size or _chip(lines) or CHIPS["dvs128"]
    state = [0, 0, 1, 1 << 31 | 1 << 10, 12, 10, width - 1, 22, 9, height - 1, 11, 1, -1]
    if size == CHIPS["dvs128"]:
        state = [0, 0, 1, 1 << 15, 1, 7, -1, 8, 7, height - 1, 0, 1, -1]
    return Content(size, Words(path, start, "(2,)>u4", kernels.pairs, state, options.packet))


def aedat3(path: Path, head: bytes, options: Options) -> Content:
    """AEDAT 3.1, as DVS Gesture has it: its polarity events.

    https://docs.inivation.com/software/software-advanced-usage/file-formats/aedat-3.1.html
    """
    lines, start = _header(head, b"#", "!END-HEADER")
    if (form := re.search(r"(?m)^Format: *(\w+)", lines)) and form[1] != "RAW":
        raise ValueError(f"it has the format {form[1]}; only RAW is read")
    return Content(_chip(lines), partial(_aedat3, path, start, options.packet))


def _aedat3(path: Path, start: int, packet: int, damage: Damage) -> Iterator[Block]:
    end = path.stat().st_size
    with path.open("rb") as file:
        at = file.seek(start)
        while head := file.read(28):
            kind, _, size, _, wraps, room, number, _ = struct.unpack("<hhiiiiii", head.ljust(28))
            fits = size == 8 if kind == 1 else size > 0
            if len(head) < 28 or not (fits and wraps >= 0 and 0 <= number <= room):
                damage(1, f"byte {at}: no header of a packet of events")
                return
            at += 28
            there = min(number, (end - at) // 8) if kind == 1 else 0
            for first in range(at, at + 8 * there, 8 * packet):
                raw = file.read(min(8 * packet, at + 8 * there - first))
                data, t = np.frombuffer(raw, "<u4").reshape(-1, 2).T
                keep = np.flatnonzero(data & 1)  # valid
                data, t = data[keep], t[keep] + (np.int64(wraps) << 31)
                found = events(t, data >> 17, data >> 2 & 0x7FFF, data >> 1 & 1)
                yield found, lambda i, place=first + 8 * keep: f"byte {place[i]}"
            at += room * size
            if at > end:
                damage(1, f"byte {end}: the end within a packet of events")
                return
            file.seek(at)


def nmnist(path: Path, head: bytes, options: Options) -> Content:
    """N-MNIST, and other 40-bit recordings of an ATIS, whose size has to be given."""
    return Content(NMNIST, Words(path, 0, "(5,)u1", kernels.atis, [0], options.packet))


def event_stream(path: Path, head: bytes, options: Options) -> Content:
    """Event Stream 2 of DVS and ATIS; generic and colour events have no polarity."""
    if len(head) < 20 or head[12] != 2 or head[15] not in (1, 2):
        raise ValueError("it holds other events than those of version 2 for DVS and ATIS")
    width, height = struct.unpack_from("<HH", head, 16)
    state = [0, head[15], height - 1]
    words = Words(path, 20, "u1", kernels.event_stream, state, options.packet)
    return Content((width, height), words)


def _header(head: bytes, mark: bytes, end: str) -> tuple[str, int]:
    """The leading lines that begin with `mark`, without it, up to `end`; and where data begin."""
    lines, at = [], 0
    while head.startswith(mark, at) and (stop := head.find(b"\n", at)) >= 0:
        lines.append(head[at + len(mark) : stop].decode("latin-1").strip())
        at = stop + 1
        if lines[-1] == end:
            break
    return "\n".join(lines), at


def _size(lines: str) -> Size | None:
    both = re.search(r"(?m)^geometry (\d{1,5})x(\d{1,5})", lines)
    sides = [re.search(rf"(?i)\b{side}[ =](\d{{1,5}})\b", lines) for side in ("width", "height")]
    found = both.groups() if both else [side[1] for side in sides if side]
    return (int(found[0]), int(found[1])) if len(found) == 2 else None


def _chip(lines: str) -> Size | None:
    named = " ".join(re.findall(r"(?m)^(?:AEChip|Source \d+):(.*)$", lines)).lower()
    return next((size for chip, size in CHIPS.items() if chip in named), None)


@dataclass(frozen=True)
class Words:
    """The events of the words of type `record` from byte `start` on, in bounded memory."""

    path: Path
    start: int
    record: str
    decode: Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[int, int]]
    state: list[int]
    packet: int

    def __call__(self, damage: Damage) -> Iterator[Block]:
        record, state = np.dtype(self.record), np.array(self.state)
        size = record.itemsize
        with self.path.open("rb") as file:
            at, rest = file.seek(self.start), b""
            while raw := file.read(self.packet * (size if size > 1 else 5)):
                rest += raw
                words = np.frombuffer(rest, record, len(rest) // size)
                words = words.astype(words.dtype.newbyteorder("="), copy=False)
                while len(words):
                    before, out = state.copy(), np.empty(self.packet, EVENT)
                    used, made = self.decode(words, state, out)
                    yield out[:made], self._finder(words, before, at)
                    words, rest, at = words[used:], rest[used * size :], at + used * size
                    if not used:
                        break
            if rest:
                damage(1, f"byte {at}: the end within a record")

    def _finder(self, words: np.ndarray, state: np.ndarray, at: int) -> Callable[[int], str]:
        """Names the byte of an event: of the last of the words that it takes to decode it."""

        def made(count: int) -> int:
            return self.decode(words[:count], state.copy(), np.empty(self.packet, EVENT))[1]

        def where(event: int) -> str:
            count = bisect.bisect_left(range(len(words)), event + 1, key=made)
            return f"byte {at + (count - 1) * np.dtype(self.record).itemsize}"

        return where
