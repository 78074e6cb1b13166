"""`axonal bench watch`: decoding, filters, anomalies, bearings, wake words, digits, and a day."""

import json
from collections.abc import Callable
from pathlib import Path

from ..core import files
from . import decoding, digits, filtering, nab, soak, vibration, wakewords
from .parts import Figures, kept
from .showcase import facts

STORE = Path("runs/bench-watch")


def bench(
    out: Path,
    seed: int,
    rounds: int,
    hours: float,
    root: Path = Path("runs/peers"),
    store: Path = STORE,
) -> str:
    """Measure, and write `watch.json`; parts that an interrupted run finished are kept.

    Args:
        out: folder for the figures.
        seed: of noise, order, weights and the day.
        rounds: of timing.
        hours: of the simulated day.
        root: folder of the other libraries' environments.
        store: folder of the training and of finished parts.

    Returns:
        A sentence: what was achieved and where it lies.

    Raises:
        FileError, InputError, MissingExtra, ProcessError: as the parts, or nothing can be written.
    """
    files.writable(out)
    command = f"axonal bench watch --seed {seed} --rounds {rounds} --hours {hours:g}"
    store = store / f"seed-{seed}"
    parts: dict[str, Callable[[], Figures]] = {
        "decoding": lambda: decoding.figures(rounds, root),
        "filtering": lambda: filtering.figures(seed, rounds),
        "nab": lambda: nab.figures(seed),
        "vibration": vibration.figures,
        "wakewords": lambda: wakewords.figures(seed, store),
        "digits": lambda: digits.figures(seed),
        "soak": lambda: soak.figures(store / "soak", hours, seed),
    }
    found: Figures = {}
    for name, part in parts.items():
        found |= kept(store / f"{name}.json", command, part)
    found["calls_avoided"] = 100 * found["digits_lif_calls_avoided"]
    found["event_recall"] = 100 * found["digits_lif_recall"]
    about = facts(command, seed)
    path = files.write(out / "watch.json", json.dumps({"figures": found} | about, indent=1) + "\n")
    return (
        f"A larger model is called {found['calls_avoided']:.1f} % less and sees "
        f"{found['event_recall']:.1f} % of what happens; all lies in {path.resolve()}."
    )
