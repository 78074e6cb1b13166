"""Clips: the rows before a wake, in words and as a picture."""

import math
from collections import deque
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from ..core import png
from ..core.errors import InputError
from .stream import State, channels_of

LARGEST = 1024  # pixels of a picture's side, by default
LANE = 64  # pixels of a channel's height, by default
CHUNK = 1024  # rows: packets smaller than this are joined


class Preroll:
    """The last `seconds` of a stream, at most its newest `limit` rows; twice as many are stored."""

    def __init__(self, seconds: float, limit: int = 1 << 20):
        if not 0 <= seconds < math.inf or limit < 1:
            raise InputError(f"Preroll: {seconds} seconds and {limit} rows can't be stored")
        self.span, self.limit, self.size = round(seconds * 1e6), limit, 0
        self.chunks: deque[np.ndarray] = deque()

    def add(self, packet: np.ndarray) -> None:
        """Add a packet; one from before the last begins anew, as does one of another type."""
        if not len(packet):
            return
        last = self.chunks[-1] if self.chunks else packet[:1]
        if packet["t"][0] < last["t"][-1] or packet.dtype != last.dtype:
            self.chunks.clear()
            self.size = 0
        # Windows that this packet will close may end as early as where the packet before it did.
        while self.chunks and self.chunks[0]["t"][-1] < last["t"][-1] - self.span:
            self.size -= len(self.chunks.popleft())
        packet = packet[-self.limit :]
        self.size += len(packet)
        if self.chunks and len(self.chunks[-1]) + len(packet) <= CHUNK:
            packet = np.concatenate([self.chunks.pop(), packet])
        self.chunks.append(packet.copy())
        while self.size - len(self.chunks[0]) >= self.limit:
            self.size -= len(self.chunks.popleft())

    def clip(self, t_us: int) -> np.ndarray | None:
        """The rows from `seconds` before t_us up to it; None before the first packet."""
        if not self.chunks:
            return None
        rows = np.concatenate(list(self.chunks))[-self.limit :]
        begin = np.searchsorted(rows["t"], t_us - self.span, "left")
        return rows[begin : np.searchsorted(rows["t"], t_us, "right")].copy()

    def state(self) -> State:
        """The stored rows."""
        return {"rows": np.concatenate(list(self.chunks))} if self.chunks else {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on with the rows of `state()`."""
        self.chunks.clear()
        self.size = 0
        if state:
            self.add(state["rows"])


def summary(event: Mapping[str, Any], clip: np.ndarray | None) -> str:
    """Describe a wake (its CloudEvent) and its clip to people and language models."""
    data = event["data"]
    sentences = [
        f"Event {data['id']} of {data['source']}: {data['type']}, because of: {data['reason']}.",
        f"Score {data['score']}, threshold {data['threshold']}.",
        f"It began at {data['t_start_us'] / 1e6:.3f} s and has lasted "
        f"{(data['t_end_us'] - data['t_start_us']) / 1e6:.3f} s; the filters kept "
        f"{data['n_events_out']} of its {data['n_events_in']} events.",
    ]
    if clip is None or not len(clip):
        return " ".join(sentences)
    seconds = (float(clip["t"][-1]) - float(clip["t"][0])) / 1e6
    sentences.append(f"The clip has {len(clip)} rows in {seconds:.3f} s, up to the wake.")
    tenths = np.bincount(_place(clip["t"], 10), minlength=10)
    sentences.append(f"Rows in each tenth of it: {tenths.tolist()}.")
    if not channels_of(clip):
        share, x, y = np.mean(clip["p"] != 0), clip["x"], clip["y"]
        sentences.append(f"{share:.0%} are ON; x {x.min()} to {x.max()}, mean {x.mean():.0f};")
        sentences.append(f"y {y.min()} to {y.max()}, mean {y.mean():.0f} (0 is the top).")
        return " ".join(sentences)
    for name, value in enumerate(clip["value"].T.astype(np.float64)):
        value = value[np.isfinite(value)]
        if len(value):
            sentences.append(
                f"Channel {name}: {value.min():.4g} to {value.max():.4g}, mean {value.mean():.4g}, "
                f"standard deviation {value.std():.4g}."
            )
    return " ".join(sentences)


def picture(clip: np.ndarray, width: int | None = None, height: int | None = None) -> bytes:
    """Draw a clip as a PNG file.

    Events of a camera are drawn where they happened, ON red and OFF blue, brighter for more; of
    one line of addresses (a cochlea's), over time, the first address at the bottom. Samples are
    drawn as a strip a channel, over time, each from its least to its greatest value.

    Args:
        clip: rows.
        width, height: of the picture; None for what the clip fills, at most `LARGEST`. What a
            larger camera sees is drawn smaller, never cut.

    Raises:
        InputError: no rows, or a picture without pixels.
    """
    if not len(clip) or any(n is not None and n < 1 for n in (width, height)):
        raise InputError("picture: it needs a clip with rows, a width and a height")
    if channels := channels_of(clip):
        return png.encode(_strips(clip, width or LARGEST, height or min(LARGEST, LANE * channels)))
    x, y = clip["x"].astype(np.int64), clip["y"].astype(np.int64)
    wide, high = int(x.max()) + 1, int(y.max()) + 1
    if high == 1:
        wide, high, y = min(len(clip), LARGEST), wide, wide - 1 - x
        x = _place(clip["t"], wide)
    width, height = width or min(wide, LARGEST), height or min(high, LARGEST)
    shrink = max(-(-wide // width), -(-high // height))
    at = y // shrink * width + x // shrink
    image = np.zeros((height * width, 3))
    for colour, mask in ((0, clip["p"] != 0), (2, clip["p"] == 0)):
        image[:, colour] = np.log1p(np.bincount(at[mask], minlength=len(image)))
    image *= 255 / image.max()
    return png.encode(image.astype(np.uint8).reshape(height, width, 3))


def _strips(clip: np.ndarray, width: int, height: int) -> np.ndarray:
    """Draw each channel over time, in a strip of its own."""
    image = np.full((height, width), 255, np.uint8)
    value, column = clip["value"].astype(np.float64), _place(clip["t"], width)
    rows = np.linspace(0, height, value.shape[1] + 1).astype(np.int64)
    for channel, (top, bottom) in enumerate(pairwise(rows)):
        finite = np.isfinite(value[:, channel])
        if top == bottom or not finite.any():
            continue
        v, where = value[finite, channel], column[finite]
        scale = (bottom - top - 1) / (np.ptp(v) or 1.0)
        line = bottom - 1 - np.round((v - v.min()) * scale).astype(np.int64)
        # A line through all points: between two columns it runs from one level to the other.
        level = np.round(np.interp(np.arange(width), where, line)).astype(np.int64)
        high, low = level.copy(), level.copy()
        np.minimum.at(high, where, line)
        np.maximum.at(low, where, line)
        high[1:], low[1:] = np.minimum(high[1:], level[:-1]), np.maximum(low[1:], level[:-1])
        y = np.arange(height)[:, None]
        image[(high <= y) & (y <= low)] = 0
    return image


def _place(t: np.ndarray, parts: int) -> np.ndarray:
    """The index, below `parts`, of the equal span of the clip that each row lies in."""
    since = t.astype(np.float64) - float(t[0])
    return np.minimum(since * parts / (since[-1] + 1), parts - 1).astype(np.int64)
