"""`axonal generate`: a PNG grid of images, and a JSON of what was executed."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..core import files, png
from ..core.errors import InputError
from ..generate.pipeline import Generator


def picture(name: str | Path, classes: Sequence[int], out: Path, **options: Any) -> str:
    """Generate `classes` with the generator `name`; write a PNG grid and a JSON of counts.

    Args:
        name: as `Generator.from_pretrained` takes it.
        classes: of the images.
        out: the PNG; the counts go beside it, ending in .json.
        options: "budget", "backend", and those of a `Generator` call.

    Returns:
        A sentence: what was made and where it lies.

    Raises:
        InputError, FileError: as `Generator`.
    """
    if out.suffix != ".png":
        raise InputError(f"{out} is no name for a picture; let it end in .png")
    files.writable(out.parent)
    backend = options.pop("backend", "torch")
    generator = Generator.from_pretrained(name, options.pop("budget", None), backend)
    made = generator(classes, **options)
    files.write(out, png.encode(png.grid(made.images, 10)))
    about = {
        "generator": str(name),
        "classes": list(classes),
        "backend": backend,
        "seconds": made.seconds,
        "an_image": made.counts.totals(),
        "counts": made.counts.to_dict(),
    }
    counts = files.write(out.with_suffix(".json"), json.dumps(about) + "\n")
    work = made.counts.total("synops") / 1e6
    return (
        f"{len(made.images)} images at {work:.1f} million synaptic operations and "
        f"{1000 * made.seconds / len(made.images):.0f} ms each, by {backend}: "
        f"{out.resolve()}, counts in {counts.name}."
    )
