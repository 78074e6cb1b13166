"""Whether our presets fire as the frameworks they are named after (`axonal bench parity`)."""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from axonal.core import files
from axonal.report.provenance import facts

from ..harness import peers

STEPS, NEURONS = 500, 256
DRIVES = (0.3, 1.0, 3.0, 10.0)  # scales, one a sample: from hardly any spikes to several a step


def bench(out: Path, seed: int = 0, root: Path = Path("runs/peers")) -> str:
    """Run every preset and its original on the same random drives; write `parity.json` to `out`.

    Returns:
        A sentence: what was achieved and where it lies.

    Raises:
        InputError: as `peers.working`. FileError: nothing can be written, an environment can't be
            made, or a worker died.
    """
    files.writable(out)
    generator, shape = np.random.default_rng(seed), (STEPS, len(DRIVES), NEURONS)
    scales = np.array(DRIVES)[:, None]
    drive = scales * generator.normal(0.2, 1, shape)
    figures: dict[str, Any] = {}
    with (
        tempfile.TemporaryDirectory() as name,
        peers.working("axonal", root, 2) as ours,
    ):
        folder = Path(name)
        np.save(x := folder / "x.npy", drive.astype(np.float32))
        for name in track(list(peers.PEERS), "frameworks"):
            with peers.working(name, root, 2) as theirs:
                for variant in theirs.ask(do="variants")["variants"]:
                    found = peers.compare(ours, theirs, folder, x, variant, variant)
                    figures[f"equal [{variant}]"] = found["equal"]
                    figures[f"spikes a step [{variant}]"] = round(found["spikes"], 4)
                    if "gradient" in found:
                        figures[f"gradient difference [{variant}]"] = found["gradient"]
    result = {"figures": figures} | facts(f"axonal bench parity --seed {seed}", seed)
    path = files.write(out / "parity.json", json.dumps(result, indent=1) + "\n")
    shares = [value for key, value in figures.items() if key.startswith("equal")]
    exact = sum(share == 1 for share in shares)
    return (
        f"{exact} of {len(shares)} presets fire in exactly the steps of their originals, the least "
        f"equal in {min(shares):.4%} of steps: {path.resolve()}."
    )
