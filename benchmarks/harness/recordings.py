"""Writers of packets as they come, in bounded memory."""

import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from axonal.core import files
from axonal.core.errors import InputError
from axonal.sense.formats.kernels import HIGH2
from axonal.sense.stream import EVENT

SIDE2 = 2048  # columns and rows that EVT 2.0 can address
ROWS = 65_536  # that are copied at once


def save(path: str | Path, packets: Iterable[np.ndarray], width: int, height: int) -> Path:
    """Write packets to `path`: an .npz, or EVT 2.0 as .raw. What was written reads back equal.

    Args:
        path: whose suffix says which; the file appears once all packets are in it.
        packets: of events or, in an .npz, of samples.
        width, height: of the camera; of samples, the channels and 1.

    Raises:
        InputError: another suffix; events outside of the camera; time that runs backwards; for
            .raw, samples, a camera larger than 2048 x 2048, a first time below 0 or from 2^34 us
            (4.8 hours) on, or a gap of half of that.
        FileError: the file can't be written.
    """
    path = Path(path)
    if path.suffix not in WRITERS:
        raise InputError(f"save: {path.name} ends with none of {', '.join(WRITERS)}")
    valid = _check(packets, width, height)
    return files.write(path, lambda partial: WRITERS[path.suffix](partial, valid, width, height))


def _check(packets: Iterable[np.ndarray], width: int, height: int) -> Iterator[np.ndarray]:
    """Iterate over packets that are not empty; raise where one would not read back."""
    last, row, dtype = np.iinfo(np.int64).min, 0, None
    for packet in packets:
        if (dtype := dtype or packet.dtype) != packet.dtype:
            raise InputError(f"save: a packet of {packet.dtype} after one of {dtype}")
        bad = np.append(last, packet["t"][:-1])[: len(packet)] > packet["t"]
        if dtype == EVENT:
            bad |= (packet["x"] >= width) | (packet["y"] >= height) | (packet["p"] > 1)
        if bad.any():
            at = int(bad.argmax())
            raise InputError(
                f"save: row {row + at}, {packet[at]}, is outside of {width} x {height} or earlier "
                "than the one before; crop and sort the packets first"
            )
        if len(packet):
            last, row = packet["t"][-1], row + len(packet)
            yield packet


def _npz(path: Path, packets: Iterable[np.ndarray], width: int, height: int) -> None:
    dtype, count = EVENT, 0
    with tempfile.TemporaryFile(dir=path.parent) as rows, zipfile.ZipFile(path, "w") as archive:
        for packet in packets:
            dtype, count = packet.dtype, count + len(packet)
            rows.write(packet.tobytes())
        for name in dtype.names or ():
            column = np.empty(0, dtype)[name]
            head = np.lib.format.header_data_from_array_1_0(column)
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                shape = (count, *column.shape[1:])
                np.lib.format.write_array_header_1_0(file, head | {"shape": shape})
                rows.seek(0)
                while raw := rows.read(ROWS * dtype.itemsize):
                    file.write(np.frombuffer(raw, dtype)[name].tobytes())
        for name, side in (("width", width), ("height", height)):
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, np.array(side))


def _evt2(path: Path, packets: Iterable[np.ndarray], width: int, height: int) -> None:
    if not (1 <= width <= SIDE2 and 1 <= height <= SIDE2):
        raise InputError(f"save: EVT 2.0 can't hold {width} x {height} pixels; write an .npz")
    with path.open("wb") as file:
        file.write(f"% evt 2.0\n% geometry {width}x{height}\n% end\n".encode())
        last = -1
        for packet in packets:
            high = packet["t"] >> 6
            step = np.diff(high, prepend=last)
            far = step.max() >= HIGH2 // 2 or (last < 0 and not 0 <= high[0] < HIGH2)
            if packet.dtype != EVENT or far:
                raise InputError(f"save: EVT 2.0 can't hold {packet[0]} and after; write an .npz")
            fresh = step != 0
            at = np.arange(len(packet)) + np.cumsum(fresh)
            words = np.empty(at[-1] + 1, "<u4")
            x, y, p = (packet[name].astype(np.uint32) for name in "xyp")
            words[at] = p << 28 | (packet["t"] & 63).astype(np.uint32) << 22 | x << 11 | y
            words[at[fresh] - 1] = 8 << 28 | (high[fresh] & (HIGH2 - 1))
            file.write(words.tobytes())
            last = high[-1]


WRITERS = {".npz": _npz, ".raw": _evt2}
