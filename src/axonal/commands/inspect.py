"""Graphs of what users name on the command line (`axonal inspect`)."""

import json
from pathlib import Path

from ..core import files
from ..core.errors import InputError
from ..deploy import nir
from ..generate.features import ASSETS
from ..graph import summary
from ..graph.graph import Graph


def graph_of(what: str, dt: float | None = None, discretisation: str | None = None) -> Graph:
    """The graph of a NIR file, of a network that ships, or of a folder that a training made.

    Args:
        what: a path that ends in .nir, a name or a folder.
        dt: seconds of a step, of a NIR file.
        discretisation: a row of `deploy.conventions.CONVENTIONS`, of a NIR file.

    Raises:
        InputError: nothing of that name, or a NIR file without `dt` and `discretisation`.
        FileError: damaged files.
    """
    if what.endswith(".nir"):
        if dt is None or discretisation is None:
            raise InputError(
                f"{what} holds differential equations: say --dt, the seconds of a step, and "
                f"--discretisation, one of {', '.join(nir.CONVENTIONS)}"
            )
        return nir.read(what, dt=dt, discretisation=discretisation)
    folder = ASSETS / what if (ASSETS / what).is_dir() else Path(what)
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{what} is no .nir file and no network: {error}; networks that ship are "
            + ", ".join(sorted(path.parent.name for path in ASSETS.glob("*/config.json")))
        ) from error
    return _traced(folder, config)


def _traced(folder: Path, config: dict) -> Graph:
    """The graph of a network in a folder; generators in their sigma-delta form."""
    import torch

    from ..deploy.from_torch import trace, trace_changes
    from ..generate.pipeline import Generator, delta_network
    from ..models.spiking import SpikingClassifier

    if "coding" in config:
        model = SpikingClassifier.load(folder)
        return trace(model.network, torch.zeros(1, 1, *model.config.shape))
    if "depths" in config and config.get("core") == "relu":
        generator = Generator.from_pretrained(folder)
        dense = generator.certificate is None
        return trace_changes(delta_network(generator.model) if dense else generator.network)
    raise InputError(f"{folder} holds a network whose activations are no neurons; convert it first")


def picture(graph: Graph, out: Path) -> str:
    """Draws a graph to `out`; a sentence that says so.

    Raises:
        InputError: a name that does not end in .svg, or as `inspect.draw`. FileError: `out` can't
            be written.
    """
    if out.suffix != ".svg":
        raise InputError(f"{out} is no name for a drawing; let it end in .svg")
    return f"The graph is drawn in {files.write(out, summary.draw(graph)).resolve()}."
