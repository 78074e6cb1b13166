"""Filters of events: what they tell from noise, and how fast.

The protocol of Guo and Delbruck, IEEE TPAMI 45 (2023) 1: recordings get Poisson noise of a known
rate, and the area under the ROC curve judges scores. Noise of the recordings' own counts as signal.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from axonal.core.errors import InputError
from axonal.core.extras import require
from axonal.sense.filters import FILTERS, STCF, BackgroundActivity, LIFTrace, TimeSurface
from axonal.sense.stream import events

from ..harness.results import Figures
from ..harness.timing import ratio, spread, time_in_turn
from .waking import arrays

CLIPS = "sensor/dvs128_clips/dvs128_clips.npz"
SIDE, LASTS = 128, 1_450_000  # pixels and microseconds of a clip
RATES = (1, 5, 10)  # of added noise, events per second and pixel
PARTS = {"whole clips": LASTS, "first 300 ms": 300_000}
NAMED: Mapping[str, Callable[..., Any]] = {
    "background activity": BackgroundActivity,
    "STCF, k = 2": partial(STCF, k=2),
    "STCF, k = 3": partial(STCF, k=3),
    "STCF, k = 2, same polarity": partial(STCF, k=2, same_polarity=True),
    "time surface": TimeSurface,
    "LIF trace": LIFTrace,
}
BEST = "STCF, best for each clip"
SUPPORT = {1: (1, 2, 3, 4), 2: (2, 4, 6, 8), 3: (4, 6, 8, 10, 12)}  # k that it has, by radius
OFFERED = [
    partial(STCF, radius=radius, k=k, same_polarity=same, own=own)
    for radius, ks in SUPPORT.items()
    for k, same, own in product(ks, (False, True), (False, True))
]
LARGE = (346, 260)  # pixels of the sensor that speed is measured with
PEER, DURATIONS = "dv-processing", (20, 2)  # ms: as our filters have, and its own default
PEER_SPEED = f"Mev/s [{PEER}, {DURATIONS[0]} ms]"


def figures(seed: int = 0, rounds: int = 7) -> Figures:
    """Measure areas under the ROC curve, and millions of events a second.

    Every filter is the same for all clips and rates but one, `BEST`: of all that is `OFFERED`, with
    any age as its limit, that which has the largest area, for each clip and rate anew.

    Args:
        seed: of the noise.
        rounds: of timing.

    Returns:
        "filter_auc_[R]hz", the LIF trace's mean, least and most over whole clips;
        "filter_margin_min_[R]hz", its least advantage over `BEST` in any, and
        "filter_margin_min", that at 5 Hz; "AUC [filter, R Hz, part]", means; and as `speed`.

    Raises:
        FileError: the clips are missing. InputError, MissingExtra: as `speed`.
    """
    recordings, figures = clips(), {}
    for (part, end), rate in product(PARTS.items(), RATES):
        drawn = [add_noise(c[c["t"] < end], end, rate, (seed, i)) for i, c in enumerate(recordings)]
        areas = {name: _areas(make, drawn) for name, make in NAMED.items()}
        areas[BEST] = np.max([_areas(make, drawn) for make in OFFERED], 0).tolist()
        means = {name: round(float(np.mean(each)), 4) for name, each in areas.items()}
        figures |= {f"AUC [{name}, {rate} Hz, {part}]": mean for name, mean in means.items()}
        if end == LASTS:
            own, least = areas["LIF trace"], np.subtract(areas["LIF trace"], areas[BEST]).min()
            figures[f"filter_auc_{rate}hz"] = spread(own) | {"value": means["LIF trace"]}
            figures[f"filter_margin_min_{rate}hz"] = round(float(least), 4)
    figures["filter_margin_min"] = figures["filter_margin_min_5hz"]
    return figures | speed(seed, rounds)


def clips() -> list[np.ndarray]:
    """Read the recordings, each from 0 to less than `LASTS`.

    Raises:
        FileError: they are missing or damaged.
    """
    columns = arrays(CLIPS, (*"txyp", "offsets"))
    return np.split(events(*(columns[name] for name in "txyp")), columns["offsets"][1:-1])


def add_noise(clip: np.ndarray, end: int, rate: int, seed: Sequence[int]) -> tuple[np.ndarray, ...]:
    """Add noise of `rate` events per second and pixel up to `end`; also say what is signal."""
    random = np.random.default_rng([*seed, rate])
    count = random.poisson(rate * SIDE**2 * end * 1e-6)
    drawn = (random.integers(0, top, count) for top in (end, SIDE, SIDE, 2))
    packet = np.concatenate([clip, events(*drawn)])
    order = np.argsort(packet["t"], kind="stable")
    return packet[order], order < len(clip)


def _areas(make, drawn):
    return [auc(make(SIDE, SIDE).score(packet), signal) for packet, signal in drawn]


def auc(scores: np.ndarray, signal: np.ndarray) -> float:
    """Area under the ROC curve: how often a signal's score is above a noise's, ties counting half.

    Mann and Whitney, Annals of Mathematical Statistics 18 (1947) 1.
    """
    order = np.argsort(scores)
    ranked, hits, n = scores[order], signal[order], int(signal.sum())
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    sizes = np.diff(np.r_[starts, len(ranked)])
    ranks = np.repeat(starts + (sizes + 1) / 2, sizes)
    return float((ranks[hits].sum() - n * (n + 1) / 2) / (n * (len(hits) - n)))


def speed(seed: int, rounds: int) -> Figures:
    """Measure millions of events a second through each filter, each on one thread, in turn.

    They are those of six clips with noise of 5 Hz, side by side on a sensor of `LARGE`.

    Returns:
        "Mev/s [filter]", also of the peer's background activity filter, "dv-processing, N ms", and
        "lif_filter_mev_s", "lif_filter_vs_dv" and "lif_filter_vs_dv_2ms" of the LIF trace.

    Raises:
        InputError: the peer keeps other events than our filter of that kind. FileError: the clips
            are missing. MissingExtra: the peer is not installed.
    """
    packet = _beside(
        [add_noise(clip, LASTS, 5, (seed, i))[0] for i, clip in enumerate(clips()[:6])]
    )
    calls = {n: lambda make=make: make(*LARGE)(packet) for n, make in FILTERS.items()}
    peer = _peer(packet)
    for ms in DURATIONS:
        calls[f"{PEER}, {ms} ms"] = partial(peer, ms)
        ours, theirs = BackgroundActivity(*LARGE, threshold=1 - 1000 * ms)(packet), peer(ms).numpy()
        if ours.tolist() != theirs.tolist():
            raise InputError(f"{PEER} keeps {len(theirs)} events, we {len(ours)}; compare equals")
    seconds = time_in_turn(calls, rounds).seconds
    figures = {f"Mev/s [{n}]": spread([len(packet) * 1e-6 / s for s in seconds[n]]) for n in calls}
    for title, ms in zip(("lif_filter_vs_dv", "lif_filter_vs_dv_2ms"), DURATIONS, strict=True):
        figures[title] = ratio(seconds[f"{PEER}, {ms} ms"], seconds["lif_trace"])
    return figures | {"lif_filter_mev_s": figures["Mev/s [lif_trace]"]}


def _beside(packets: Sequence[np.ndarray]) -> np.ndarray:
    packet, i = np.concatenate(packets), np.repeat(np.arange(len(packets)), [*map(len, packets)])
    packet["t"] += LASTS  # the peer takes its clock's 0 for an event of every pixel
    packet["x"] += (i % 3 * ((LARGE[0] - SIDE) // 2)).astype(np.uint16)
    packet["y"] += (i // 3 * (LARGE[1] - SIDE)).astype(np.uint16)
    return packet[np.argsort(packet["t"], kind="stable")]


def _peer(packet: np.ndarray) -> Callable[[int], Any]:
    dv = require("dv_processing", "events")
    store = dv.EventStore()
    for t, x, y, p in packet.tolist():
        store.push_back(t, x, y, p > 0)

    def filtered(ms: int):  # by a new filter each time, as ours
        one = dv.noise.BackgroundActivityNoiseFilter(LARGE, timedelta(milliseconds=ms))
        one.accept(store)
        return one.generateEvents()

    return filtered
