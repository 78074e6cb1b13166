"""Bearings that wear out: a spiking detector beside a threshold on loudness.

Run to failure: bearing 1_1 of PRONOSTIA (Nectoux et al. 2012), a snapshot every 10 s until it
broke. Faults: the drive end bearings of Case Western Reserve University's data center, 12 kHz.
Both detectors learn healthy life alone, without labels, and one kind of budget sets thresholds.
"""

import numpy as np

from axonal.sense.detectors import Budget
from axonal.sense.wake import Policy

from ..harness.results import Figures
from .voices import decimate
from .waking import arrays, surprises, wake_intervals

FAILURE, FAULTS = "sensor/pronostia/Bearing1_1.npz", "sensor/cwru/cwru_de.npz"
SECONDS, MINUTES = 10.0, (1, 3, 5)  # of a snapshot; what medians are taken over
HEALTHY = (0.2, 0.25, 0.3)  # shares of a life that are learned; the rest is watched
SOUND = (0.35, 0.4, 0.45)  # shares of a life in which a wake counts as false
RUNNING_IN = 60  # snapshots that no threshold is set by
BUDGETS = {"failure": 1.0, "faults": 60.0}  # false wakes an hour; there are 2.5 s to set the last
LASTING = Policy(windows=3, postroll=300.0, longest=np.inf, off_ratio=1.0)
RATE, WIDTH, HOP, BANDS, TOP = 12_000, 1024, 512, 16, 5000  # Hz, two in samples, -, Hz
FAINT = (-5, -10, -15)  # decibels of a fault's vibration beside the healthy machine's


def medians(values: np.ndarray, count: int) -> np.ndarray:
    """Take the median of each of [T, F] and those before it, `count` in all, against shocks."""
    padded = np.concatenate([np.repeat(values[:1], count - 1, 0), values])
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, count, 0), -1)


def wear(snapshots: np.ndarray, minutes: int) -> tuple[np.ndarray, np.ndarray]:
    """Make features of snapshots [T, 6], as medians over so many minutes.

    Returns:
        Logarithms of level, crest factor and kurtosis, both axes, [T, 6]; and the logarithm of the
        level of both together, [T, 1].
    """
    level, peak, kurtosis = (np.log(snapshots[:, i : i + 2]) for i in (0, 2, 4))
    loud = 0.5 * np.log(np.square(snapshots[:, :2]).mean(1, keepdims=True))
    count = round(60 * minutes / SECONDS)
    x = np.concatenate([level, peak - level, kurtosis], 1)
    return medians(x, count), medians(loud, count)


def alarms(scores: np.ndarray, begun: int, learned: int) -> list[float]:
    """List the shares of the life at which one is woken after `learned`.

    The threshold is what the scores from `begun` to there have set.
    """
    budget = Budget(BUDGETS["failure"], merge=60.0, memory=12.0)
    limit = budget.fit(scores[begun:learned], (learned - begun) * SECONDS)
    ends = (np.arange(learned, len(scores)) + 1) * round(SECONDS * 1e6)
    wakes = wake_intervals(ends, scores[learned:], limit, LASTING)
    return [start / SECONDS / len(scores) for start, _ in wakes]


def failure() -> Figures:
    """Watch a life: hours from the first wake to the end, and false wakes, in several definitions.

    Raises:
        FileError: the file is missing or damaged.
    """
    snapshots = arrays(FAILURE)["features"][:, 1:].astype(np.float64)
    hours = len(snapshots) * SECONDS / 3600
    first: dict[str, dict[tuple, list[float]]] = {"evolving": {}, "loudness": {}}
    for minutes in MINUTES:
        x, loud = wear(snapshots, minutes)
        for share in HEALTHY:
            learned = int(share * len(snapshots))
            key = minutes, share
            first["evolving"][key] = alarms(surprises(x, learned), learned // 2, learned)
            first["loudness"][key] = alarms(loud[:, 0], RUNNING_IN, learned)
    figures: Figures = {"bearing_life_hours": round(hours, 2)}
    for name, wakes in first.items():
        lead = {k: hours * (1 - w[0]) if w else 0.0 for k, w in wakes.items()}
        chosen = lead[MINUTES[1], HEALTHY[-1]]
        spread = {"value": chosen, "low": min(lead.values()), "high": max(lead.values())}
        figures[f"bearing_lead_hours_{name}"] = {k: round(v, 2) for k, v in spread.items()}
        for sound in SOUND:
            false = [sum(wake < sound for wake in w) for w in wakes.values()]
            at = sum(wake < sound for wake in wakes[MINUTES[1], HEALTHY[-1]])
            counts = {"value": at, "low": min(false), "high": max(false)}
            figures[f"bearing_false_wakes_{name}_{round(100 * sound)}"] = counts
    return figures


def spectra(signal: np.ndarray) -> np.ndarray:
    """Make features of windows, [T, 3 + BANDS].

    They are logarithms of level, crest factor, kurtosis, and each band's share of the power.
    """
    windows = np.lib.stride_tricks.sliding_window_view(signal, WIDTH)[::HOP]
    square = np.square(windows).mean(1)
    power = np.abs(np.fft.rfft(windows * np.hanning(WIDTH))) ** 2
    f = np.fft.rfftfreq(WIDTH, 1 / RATE)
    edges = np.searchsorted(f, np.linspace(0, TOP, BANDS + 1))
    bands = np.add.reduceat(power[:, : edges[-1]], edges[:-1], 1)
    crest = np.abs(windows).max(1) / np.sqrt(square)
    kurtosis = (windows - windows.mean(1, keepdims=True)) ** 4
    shape = np.stack([square, crest, kurtosis.mean(1) / windows.var(1) ** 2], 1)
    return np.log(np.concatenate([shape, bands / power.sum(1, keepdims=True)], 1))


def fault_signals() -> tuple[np.ndarray, dict[str, list[np.ndarray]]]:
    """Read healthy vibration at 12 kHz, and what the machine does afterwards, by variant.

    "as recorded"; "as loud", brought to the healthy level; and "-[D] dB", a fault's vibration
    added, so much fainter, to the healthy one's second half, and brought to its level too.

    Raises:
        FileError: the file is missing or damaged.
    """
    recordings = {name: x.astype(np.float64) for name, x in arrays(FAULTS).items()}
    normal = next(decimate(decimate(x)) for name, x in recordings.items() if "Normal" in name)
    faults = [x for name, x in recordings.items() if "Normal" not in name]
    later = normal[len(normal) // 2 :]

    def level(x: np.ndarray, of: np.ndarray) -> np.ndarray:
        return x * (of.std() / x.std())

    variants = {"as_recorded": faults, "as_loud": [level(x, normal) for x in faults]}
    for decibel in FAINT:
        both = [later + 10 ** (decibel / 20) * level(x[: len(later)], later) for x in faults]
        variants[f"{-decibel}db_below"] = [level(x, later) for x in both]
    return normal, variants


def faults() -> Figures:
    """Count faults that wake within a second, windows until then, and windows that woke without.

    Raises:
        FileError: the file is missing or damaged.
    """
    normal, variants = fault_signals()
    calm, quiet = (spectra(part) for part in np.array_split(normal, 2))
    half, second = len(calm), round(RATE / HOP)
    judges = {
        "evolving": lambda x: surprises(np.concatenate([calm, x]), half),
        "loudness": lambda x: np.concatenate([calm, x])[:, 0],
    }
    figures: Figures = {"faults": len(variants["as_loud"]), "fault_sound_windows": len(quiet)}
    for name, judge in judges.items():
        known, sound = judge(calm[:0])[half // 4 :], judge(quiet)[half:]
        budget = Budget(BUDGETS["faults"], merge=HOP / RATE, memory=0.1)
        limit = budget.fit(known, len(known) * HOP / RATE)
        figures[f"fault_false_windows_{name}"] = int((sound >= limit).sum())
        for variant, signals in variants.items():
            scores = np.array([judge(spectra(x)[:second])[half:] for x in signals])
            woken = (scores >= limit).any(1)
            figures[f"faults_woken_{variant}_{name}"] = int(woken.sum())
            figures[f"faults_above_sound_{variant}_{name}"] = int(
                (scores.max(1) > sound.max()).sum()
            )
            if woken.any():
                first = (scores[woken] >= limit).argmax(1) + 1
                figures[f"fault_latency_windows_{variant}_{name}"] = float(np.median(first))
    return figures


def figures() -> Figures:
    """Measure what bearings show, run to failure and faulty.

    Returns:
        "bearing_lead_hours_[D]": hours from detector D's first wake to the end of the life, of
        medians over `MINUTES[1]` and the longest healthy part; low and high over all of `MINUTES`
        and `HEALTHY`. "bearing_false_wakes_[D]_[X]": wakes in the first X % of the life, behind
        what was learned, in the same form. "faults_woken_[variant]_[D]": of "faults", those that
        wake within a second; "fault_false_windows_[D]" of the "fault_sound_windows" without one;
        "faults_above_sound_[variant]_[D]": those that a threshold would wake on which no sound
        window reaches, whatever the budget says; "fault_latency_windows_[variant]_[D]", medians.

    Raises:
        FileError: a file is missing or damaged.
    """
    return failure() | faults()
