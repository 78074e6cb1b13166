"""Graphs of networks that users name on the command line (`axonal inspect`)."""

import json
from pathlib import Path

from ..core import files
from ..core.errors import InputError
from ..data import ASSETS
from ..deploy import nir
from ..graph import load
from ..graph.checkpoint import NODES_FILE
from ..graph.drawing import mermaid
from ..graph.graph import Graph


def graph_of(model: str, dt: float | None = None, discretisation: str | None = None) -> Graph:
    """Read or trace the graph of a NIR file, of a network that ships, or of a folder with one.

    Raises:
        InputError: nothing of that name, or a NIR file without `dt` and `discretisation`.
        FileError: damaged files.
    """
    if model.endswith(".nir"):
        files.readable(model)
        if dt is None or discretisation is None:
            raise InputError(
                f"{model} holds differential equations: say --dt, the seconds of a step, and "
                f"--discretisation, one of {', '.join(nir.CONVENTIONS)}"
            )
        return nir.read(model, dt=dt, discretisation=discretisation)
    folder = ASSETS / model if (ASSETS / model).is_dir() else Path(model)
    if (folder / NODES_FILE).exists():
        return load(folder)
    try:
        config = dict(json.loads((folder / "config.json").read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{model} is no .nir file and no network: {error}; networks that ship are "
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
    """Draw a graph to `out`, and say so in a sentence.

    Raises:
        InputError: a name that does not end in .md or .mmd, or as `drawing.mermaid`.
        FileError: `out` can't be written.
    """
    if out.suffix not in (".md", ".mmd"):
        raise InputError(
            f"{out} is no name for a drawing; let it end in .md, for Markdown with a Mermaid "
            "diagram, which GitHub, GitLab and notebooks show, or in .mmd, for Mermaid's own tools"
        )
    text = mermaid(graph)
    files.write(out, f"```mermaid\n{text}```\n" if out.suffix == ".md" else text)
    return f"The graph is drawn in {out.resolve()}."
