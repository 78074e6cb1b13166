"""Cameras' own formats: a header of text, then words that a kernel decodes."""

import bisect
import re
import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..stream import EVENT, events
from . import kernels
from .reading import Damage, Options, Size

HEAD = 1 << 20  # bytes of a header, at most: some have all settings of a camera
CHIPS = {"dvs128": (128, 128), "davis240": (240, 180), "davis346": (346, 260)}
# Of cameras whose recordings lack their size, by the plugin that recorded.
PLUGINS = {"gen3": (640, 480), "gen4": (1280, 720), "imx636": (1280, 720), "genx320": (320, 320)}
CAMERAS = ((128, 128), (240, 180), (304, 240), (346, 260), (640, 480), (1280, 720))
ATIS, NMNIST = (304, 240), (34, 34)
Decoder = Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[int, int]]  # of `kernels`
# The camera's size if it is known, the first byte of the words, their type, decoder and its state.
Layout = tuple[Size | None, int, str, Decoder, list[int]]


def words(
    layout: Callable[[bytes, Options], Layout],
    path: Path,
    head: bytes,
    options: Options,
    damage: Damage,
) -> Iterator[Any]:
    """Decode the words of a file in bounded memory, by the layout that its head tells."""
    camera, start, kind, decode, begin = layout(head, options)
    blocks = partial(_blocks, path, start, np.dtype(kind), decode, begin, options.packet)
    if camera is None and options.size is None:
        camera = _camera_that_holds(blocks())
        if camera is not None:
            size = f"{camera[0]} x {camera[1]}"
            damage.notes[:] = [f"size: {size}, of the least camera that has all its events"]
    yield camera, 0
    yield from blocks(damage)


def _blocks(
    path: Path,
    start: int,
    record: np.dtype,
    decode: Decoder,
    begin: list[int],
    packet: int,
    damage: Callable[[int, str], None] = lambda lost, reason: None,
) -> Iterator[Any]:
    """The blocks of words from the byte `start` on."""
    state, size = np.array(begin), record.itemsize
    with path.open("rb") as file:
        at, rest = file.seek(start), b""
        while raw := file.read(packet * (size if size > 1 else 5)):
            rest += raw
            block = np.frombuffer(rest, record, len(rest) // size)
            block = block.astype(block.dtype.newbyteorder("="), copy=False)
            while len(block):
                before, out = state.copy(), np.empty(packet, EVENT)
                used, count = decode(block, state, out)
                yield out[:count], partial(_where, decode, block, before, packet, at, size)
                block, rest, at = block[used:], rest[used * size :], at + used * size
                if not used:
                    break
        if rest:
            damage(1, f"byte {at}: the end within a record")


def _camera_that_holds(blocks: Iterator[Any]) -> Size | None:
    """The size of the least camera in `CAMERAS` with all places of events, else that of these."""
    wide = high = -1
    for rows, _ in blocks:
        if len(rows):
            wide, high = max(wide, int(rows["x"].max())), max(high, int(rows["y"].max()))
    if wide < 0:
        return None
    fits = [(w, h) for w, h in CAMERAS if wide < w and high < h]
    return fits[0] if fits else (wide + 1, high + 1)


def _where(
    decode: Decoder,
    block: np.ndarray,
    state: np.ndarray,
    packet: int,
    at: int,
    size: int,
    event: int,
) -> str:
    """Name the byte of an event: of the last of the words that it takes to decode it."""

    def decoded(count: int) -> int:
        return decode(block[:count], state.copy(), np.empty(packet, EVENT))[1]

    count = bisect.bisect_left(range(len(block)), event + 1, key=decoded)
    return f"byte {at + (count - 1) * size}"


def prophesee(head: bytes, options: Options, version: int) -> Layout:
    """EVT 2.0 and 3.0 (`version`), with the header of Prophesee's RAW files or without one.

    https://docs.prophesee.ai/stable/data/file_formats/raw.html
    """
    lines, start = _header(head, b"% ", "end")
    if re.search(r"(?m)^endianness big", lines):
        raise ValueError("it is big-endian; record it little-endian")
    plugin = re.search(r"(?m)^plugin_name .*(gen3|gen4|imx636|genx320)", lines)
    camera = _size(lines) or (PLUGINS[plugin[1]] if plugin else None)
    if version == 2:
        return camera, start, "<u4", kernels.evt2, [-1, 0]
    return camera, start, "<u2", kernels.evt3, [-1, 0, 0, 0, 0, 0]


def dat(head: bytes, options: Options) -> Layout:
    """DAT 2 with 2D events: https://docs.prophesee.ai/stable/data/file_formats/dat.html."""
    lines, start = _header(head, b"% ", "end")
    if head[start : start + 2] not in (b"\0\x08", b"\x0c\x08"):
        raise ValueError(f"byte {start}: no 2D events of 8 bytes, which alone are read")
    state = [0, 0, 0, 0, 0, 14, -1, 14, 14, -1, 28, 1, -1]
    return _size(lines) or ATIS, start + 2, "(2,)<u4", kernels.pairs, state


def aedat2(head: bytes, options: Options) -> Layout:
    """AEDAT 2.0 of a DVS128 (which counts y from below) or of a DAVIS (both from the other side).

    https://docs.inivation.com/software/software-advanced-usage/file-formats/aedat-2.0.html
    """
    lines, start = _header(head, b"#", "End Of ASCII Header")
    width, height = size = options.size or _chip(lines) or CHIPS["dvs128"]
    state = [0, 0, 1, 1 << 31 | 1 << 10, 12, 10, width - 1, 22, 9, height - 1, 11, 1, -1]
    if size == CHIPS["dvs128"]:
        state = [0, 0, 1, 1 << 15, 1, 7, -1, 8, 7, height - 1, 0, 1, -1]
    return size, start, "(2,)>u4", kernels.pairs, state


def nmnist(head: bytes, options: Options) -> Layout:
    """N-MNIST, and other 40-bit recordings of an ATIS, whose size has to be given."""
    return NMNIST, 0, "(5,)u1", kernels.atis, [0]


def event_stream(head: bytes, options: Options) -> Layout:
    """Event Stream 2 of DVS and ATIS; generic and colour events have no polarity."""
    if len(head) < 20 or head[12] != 2 or head[15] not in (1, 2):
        raise ValueError("it holds other events than those of version 2 for DVS and ATIS")
    width, height = struct.unpack_from("<HH", head, 16)
    return (width, height), 20, "u1", kernels.event_stream, [0, head[15], height - 1]


def aedat3(path: Path, head: bytes, options: Options, damage: Damage) -> Iterator[Any]:
    """AEDAT 3.1, as DVS Gesture has it: its polarity events.

    https://docs.inivation.com/software/software-advanced-usage/file-formats/aedat-3.1.html
    """
    lines, start = _header(head, b"#", "!END-HEADER")
    if (form := re.search(r"(?m)^Format: *(\w+)", lines)) and form[1] != "RAW":
        raise ValueError(f"it has the format {form[1]}; only RAW is read")
    yield _chip(lines), 0
    end, packet = path.stat().st_size, options.packet
    with path.open("rb") as file:
        at = file.seek(start)
        while header := file.read(28):
            kind, _, size, _, wraps, room, number, _ = struct.unpack("<hhiiiiii", header.ljust(28))
            fits = size == 8 if kind == 1 else size > 0
            if len(header) < 28 or not (fits and wraps >= 0 and 0 <= number <= room):
                damage(1, f"byte {at}: no header of a packet of events")
                return
            at += 28
            complete = min(number, (end - at) // 8) if kind == 1 else 0
            for first in range(at, at + 8 * complete, 8 * packet):
                raw = file.read(min(8 * packet, at + 8 * complete - first))
                data, t = np.frombuffer(raw, "<u4").reshape(-1, 2).T
                valid = np.flatnonzero(data & 1)
                data, t = data[valid], t[valid] + (np.int64(wraps) << 31)
                rows = events(t, data >> 17, data >> 2 & 0x7FFF, data >> 1 & 1)
                yield rows, lambda i, place=first + 8 * valid: f"byte {place[i]}"
            at += room * size
            if at > end:
                damage(1, f"byte {end}: the end within a packet of events")
                return
            file.seek(at)


def _header(head: bytes, mark: bytes, end: str) -> tuple[str, int]:
    """The leading lines that begin with `mark`, without it, up to `end`; and where data begin.

    Data may begin with the mark, too, where no line says that they follow: a line of the header
    is text.
    """
    lines, at = [], 0
    while head.startswith(mark, at) and (stop := head.find(b"\n", at)) >= 0:
        if not re.fullmatch(rb"[\t\x20-\x7e\x80-\xff]*\r?", head[at:stop]):
            break
        lines.append(head[at + len(mark) : stop].decode("latin-1").strip())
        at = stop + 1
        if lines[-1] == end:
            break
    return "\n".join(lines), at


def _size(lines: str) -> Size | None:
    """The width and height that a header states."""
    both = re.search(r"(?m)^geometry (\d{1,5})x(\d{1,5})", lines)
    sides = [re.search(rf"(?i)\b{side}[ =](\d{{1,5}})\b", lines) for side in ("width", "height")]
    size = both.groups() if both else [side[1] for side in sides if side]
    return (int(size[0]), int(size[1])) if len(size) == 2 else None


def _chip(lines: str) -> Size | None:
    """The size of the camera's chip, if a header names one."""
    named = " ".join(re.findall(r"(?m)^(?:AEChip|Source \d+):(.*)$", lines)).lower()
    return next((size for chip, size in CHIPS.items() if chip in named), None)
