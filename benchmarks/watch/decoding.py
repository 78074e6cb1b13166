"""Reading recordings of event cameras, beside faery and dv-processing.

The recordings are real ones, under $AXONAL_DATA, repeated with their times moved on.
"""

import re
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from axonal.core.errors import FileError, InputError
from axonal.data import images

from ..harness import peers
from ..harness.results import Figures
from ..harness.timing import ratio, spread, take_turns

FOLDER, EVENTS, HOUR = "sensor/event_recordings", 20_000_000, 3_600_000_000
RECORDINGS = {
    "evt2": "faery_evt2.raw",
    "evt3": "expelliarmus_evt3.raw",
    "aedat4": "tonic_sample.aedat4",
}
DIGITS, OVERFLOW = "sensor/nmnist_small/raw_bin", bytes((0, 240, 0, 0, 0))  # of 2^13 us
# Bytes of a word, where its kind stands, kinds that hold an event, microseconds of a TIME_HIGH.
LAYOUTS = {"evt2": ("<u4", 28, (0, 1), 1 << 6), "evt3": ("<u2", 12, (2,), 1 << 12)}
AEDAT4_TIMES = 20
HELD = 12  # microseconds: less than these are the times of EVT3 that faery holds apart
JOBS = [(name, form) for form in LAYOUTS for name in ("axonal", "faery")]
JOBS += [("axonal", "nmnist"), ("axonal", "aedat4"), ("dv-processing", "aedat4")]


def figures(rounds: int, root: Path) -> Figures:
    """Measure millions of events a second on one core, from files in the system's cache.

    First, faery and ours read the recordings as they are and are proved to give equal events.
    EVT3's times alone differ: where a TIME_LOW of another kind of event ran ahead, faery holds
    the events after it there, while Prophesee's document joins the latest TIME_LOW to the latest
    TIME_HIGH. Then every round reads each file, of 20 million events (AEDAT 4: 2 million).

    Args:
        rounds: of timing.
        root: folder of the other libraries' environments.

    Returns:
        Figures by name: "FORMAT_mev_s" of evt2, evt3, nmnist and aedat4; "NAME_FORMAT_mev_s" of
        the others; "FORMAT_vs_faery", how many times as fast as it; "FORMAT_times_faery_holds",
        the share of times that differ; "decode_recording_mb", by how much our process grew when it
        read a tenth of a second, and "decode_hour_mb", when it then read an hour.

    Raises:
        InputError: faery reads other events. FileError: a recording is missing, an environment
            can't be made, or a worker died.
    """
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder, names = Path(name), ("axonal", "faery", "dv-processing")
        workers = {n: stack.enter_context(peers.worker(n, root, 1)) for n in names}
        paths = {form: _path(f"{FOLDER}/{file}") for form, file in RECORDINGS.items()}
        files = {form: _long(paths[form], folder, form) for form in LAYOUTS}
        files |= {"nmnist": _long_digits(folder), "aedat4": folder / "long.aedat4"}
        job = {"file": str(paths["aedat4"]), "out": str(files["aedat4"]), "times": AEDAT4_TIMES}
        workers["dv-processing"].ask(do="decode", **job)
        figures: Figures = {}
        for title, file in (("recording", paths["evt2"]), ("hour", files["evt2"])):
            grew = workers["axonal"].ask(do="decode", file=str(file), watch=True)["grew"]
            figures[f"decode_{title}_mb"] = round(grew / 1e6, 1)
        for form in LAYOUTS:
            figures |= _equality(workers["axonal"], workers["faery"], folder, paths[form], form)

        def speed(name: str, form: str) -> float:
            answer = workers[name].ask(do="decode", file=str(files[form]))
            return answer["events"] / answer["seconds"] / 1e6

        speeds = take_turns({job: lambda job=job: speed(*job) for job in JOBS}, rounds)
    for (name, form), values in speeds.items():
        key = f"{form}_mev_s" if name == "axonal" else f"{name}_{form}_mev_s"
        figures[key] = spread(values)
    for form in LAYOUTS:
        figures[f"{form}_vs_faery"] = ratio(speeds["axonal", form], speeds["faery", form])
    return figures


def _equality(ours: peers.Peer, theirs: peers.Peer, folder: Path, path: Path, form: str) -> Figures:
    """Whether both read the same events, and at how many times they differ."""
    a, b = (peers.arrays(peer, folder, do="decode", file=str(path)) for peer in (ours, theirs))
    equal = all(np.array_equal(a[name], b[name]) for name in "xyp")
    late = b["t"] - a["t"] if equal else np.array([-1])
    if late.min() < 0 or late.max() >= (HELD if form == "evt3" else 1):
        raise InputError(f"{theirs.name} reads other events in {path}")
    return {f"{form}_times_faery_holds": round(float((late > 0).mean()), 4)}


def _path(name: str) -> Path:
    if not (path := images.root() / name).exists():
        raise FileError(f"{path} is missing; put the recordings there, under $AXONAL_DATA")
    return path


def _long(path: Path, folder: Path, form: str) -> Path:
    """A recording again and again, with later times; of EVT2, an hour of it."""
    (kind, shift, events, unit), raw = LAYOUTS[form], path.read_bytes()
    head = len(re.split(rb"(?m)^(?!% )", raw, maxsplit=1)[0])
    words = np.frombuffer(raw, kind, offset=head).astype(np.int64)
    timed = np.flatnonzero(words >> shift == 8)
    high = words[timed] % (1 << shift)
    times = -(-EVENTS // int(np.isin(words >> shift, events).sum()))
    step = HOUR // times // unit if form == "evt2" else int(np.ptp(high)) + 1
    with (folder / f"long_{form}.raw").open("wb") as file:
        file.write(raw[:head])
        for i in range(times):
            words[timed] = 8 << shift | (high + i * step) % (1 << shift)
            file.write(words.astype(kind).tobytes())
    return folder / f"long_{form}.raw"


def _long_digits(folder: Path) -> Path:
    """Recordings of N-MNIST, each followed by as many overflows as it is long."""
    parts, events = [], 0
    for path in sorted(_path(DIGITS).glob("*.bin")):
        raw = path.read_bytes()
        last = int.from_bytes(raw[-3:], "big") & 0x7FFFFF
        parts.append(raw + OVERFLOW * (last // 2**13 + 1))
        events += len(raw) // 5
    with (folder / "long.bin").open("wb") as file:
        for _ in range(-(-EVENTS // events)):
            file.write(b"".join(parts))
    return folder / "long.bin"
