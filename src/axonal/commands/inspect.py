"""`axonal inspect`: what a network that users name is made of, and its drawing."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from ..core import files
from ..core.errors import InputError
from ..data import ASSETS
from ..deploy import nir
from ..graph import load
from ..graph.checkpoint import NODES_FILE
from ..graph.drawing import mermaid
from ..graph.graph import Graph
from ..graph.summary import summary

CONFIG = "config.json"
PLACES = {"rectifier": "neurons go here", "nonlinear": "runs on rates", "product": "runs on rates"}


def inspect(
    model: str,
    dt: float | None = None,
    discretisation: str | None = None,
    shape: Sequence[int] | None = None,
) -> tuple[Group, Graph | None]:
    """What a network is made of, to be shown; and its graph, if it has neurons.

    Args:
        model: a NIR file, a network that ships, a folder with one, or what `resolve.network` takes.
        dt, discretisation: of a NIR file.
        shape: of one sample, for a spiking network of the user's own code.

    Raises:
        InputError: nothing of that name, a NIR file without `dt` and `discretisation`, or a spiking
            network without `shape`. FileError: damaged files.
    """
    graph = graph_of(model, dt, discretisation)
    if graph is not None:
        return summary(graph), graph
    # What follows needs torch, and NIR files do not.
    import torch

    from ..deploy.from_torch import trace
    from ..nn import Neuron
    from .resolve import network

    module, _ = network(model)
    if not any(isinstance(part, Neuron) for part in module.modules()):
        return _outline(module), None
    if not shape:
        raise InputError(f"{model} has neurons; say --shape, the sizes of a sample, as 1,28,28")
    graph = trace(module, torch.zeros(1, 1, *shape))
    return summary(graph), graph


def graph_of(
    model: str, dt: float | None = None, discretisation: str | None = None
) -> Graph | None:
    """The graph of a NIR file, or of a spiking network in a folder; None for anything else.

    Raises:
        InputError: a NIR file without `dt` and `discretisation`. FileError: damaged files.
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
        config = dict(json.loads((folder / CONFIG).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return _traced(folder, config)


def _traced(folder: Path, config: dict) -> Graph | None:
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
    return None


def _outline(module: Any) -> Group:
    """The calls of a network without neurons, and what each is to a conversion."""
    from ..convert.tracing import outline, prepared
    from ..nn.interpreter import describe, module_of

    dense = prepared(module)
    rows = outline(dense)
    table = Table("call", "operator", "in a conversion", "weights", box=None, padding=(0, 1, 0, 0))
    for node, role, _ in rows:
        layer = module_of(dense, node)
        weights = sum(p.numel() for p in layer.parameters()) if layer is not None else 0
        place = PLACES.get(role, role)
        kind = describe(dense, node).split()[0]
        table.add_row(node.name, kind, place, f"{weights:,}" if weights else "")
    reasons = [reason for *_, reason in rows if reason]
    known = {role for _, role, _ in rows}
    method = "transformer" if {"nonlinear", "product"} & known else "graded"
    fits = f"It has no neurons yet; axonal convert --method {method} puts them in."
    nothing = "It has no activation, so that nothing in it could spike."
    sentence = "\n".join(reasons) or (fits if {*PLACES} & known else nothing)
    return Group(table, Text(sentence))


def picture(graph: Graph | None, out: Path) -> str:
    """Draw a graph to `out`, and say so in a sentence.

    Raises:
        InputError: no graph, a name that does not end in .md or .mmd, or as `drawing.mermaid`.
        FileError: `out` can't be written.
    """
    if graph is None:
        raise InputError("networks of neurons are drawn, and this has none; convert it first")
    if out.suffix not in (".md", ".mmd"):
        raise InputError(
            f"{out} is no name for a drawing; let it end in .md, for Markdown with a Mermaid "
            "diagram, which GitHub, GitLab and notebooks show, or in .mmd, for Mermaid's own tools"
        )
    text = mermaid(graph)
    files.write(out, f"```mermaid\n{text}```\n" if out.suffix == ".md" else text)
    return f"The graph is drawn in {out.resolve()}."
