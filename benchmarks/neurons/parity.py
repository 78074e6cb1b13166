"""Presets of neurons beside the frameworks that they are named after."""

import tempfile
from pathlib import Path

import numpy as np
from rich.progress import track

from ..harness import peers
from ..harness.bench import Run
from ..harness.page import shown, table
from ..harness.results import Figures, Results

STEPS, NEURONS = 500, 256
DRIVES = (0.3, 1.0, 3.0, 10.0)  # scales, one a sample: from hardly any spikes to several a step


def measure(*, run: Run, seed: int = 0) -> Results:
    """Compare presets' spikes with those of their originals.

    Args:
        run: where.
        seed: of the drives.

    Raises:
        FileError: nothing can be written, an environment can't be made, or a worker died.
    """
    generator, shape = np.random.default_rng(seed), (STEPS, len(DRIVES), NEURONS)
    scales = np.array(DRIVES)[:, None]
    drive = scales * generator.normal(0.2, 1, shape)
    figures: Figures = {}
    with (
        tempfile.TemporaryDirectory() as name,
        peers.worker("axonal", run.peers, 2) as ours,
    ):
        folder = Path(name)
        np.save(x := folder / "x.npy", drive.astype(np.float32))
        for name in track(list(peers.FRAMEWORKS), "frameworks"):
            with peers.worker(name, run.peers, 2) as theirs:
                for variant in theirs.ask(do="variants")["variants"]:
                    beside = peers.compare(ours, theirs, folder, x, variant, variant)
                    figures[f"equal [{variant}]"] = beside["equal"]
                    figures[f"spikes a step [{variant}]"] = round(beside["spikes"], 4)
                    if "gradient" in beside:
                        figures[f"gradient difference [{variant}]"] = beside["gradient"]
    return {"figures": figures}


def tables(results: Results) -> dict[str, str]:
    """`presets`: each beside its original; and how many are the same, and how far the others."""
    figures = results["figures"]
    shares = {key[7:-1]: share for key, share in figures.items() if key.startswith("equal [")}
    rows = []
    for name, share in shares.items():
        rate = figures[f"spikes a step [{name}]"]
        apart = figures.get(f"gradient difference [{name}]")
        gradient = "–" if apart is None else f"{apart:.0e}" if 0 < apart < 0.01 else f"{apart:.2g}"
        rows.append([name, f"{100 * share:.4g} %", f"{rate:.3f}", gradient])
    head = ["preset", "equal steps", "spikes a step", "its gradients differ by"]
    return {
        "presets": table(head, rows),
        "same": f"{sum(share == 1 for share in shares.values())} of {len(shares)}",
        "least": shown(min(shares.values()), ".2%"),
    }
