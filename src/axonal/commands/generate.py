"""`axonal generate`: a PNG grid of images, and a JSON of what was executed."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..core import files, png
from ..core.errors import InputError
from ..generate import Generator


def generate(name: str | Path, classes: Sequence[int] | None, out: Path, **options: Any) -> str:
    """Generate images; write a PNG grid and a JSON of counts."""
    if out.suffix != ".png":
        raise InputError(f"{out} is no name for a picture; let it end in .png")
    files.writable(out.parent)
    classes = [i % 10 for i in range(100)] if classes is None else classes
    backend = options.pop("backend", "torch")
    generator = Generator.from_pretrained(name, options.pop("budget", None), backend)
    output = generator(classes, **options)
    files.write(out, png.encode(png.grid(output.samples, 10)))
    about = {
        "generator": str(name),
        "classes": list(classes),
        "backend": backend,
        "seconds": output.seconds,
        "an_image": output.counts.totals(),
        "counts": output.counts.to_dict(),
    }
    counts = files.write(out.with_suffix(".json"), json.dumps(about) + "\n")
    work = output.counts.total("synops") / 1e6
    return (
        f"{len(output.samples)} images at {work:.1f} million synaptic operations and "
        f"{1000 * output.seconds / len(output.samples):.0f} ms each, by {backend}: "
        f"{out.resolve()}, counts in {counts.name}."
    )
