"""NIR files between Axonal and other frameworks, in both directions.

Graphs of ours, written in a framework's convention, are read and run by its own importer. Networks
of the framework, written by its own exporter, are read and run by ours.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from axonal.core.errors import InputError
from axonal.core.extras import require
from axonal.core.neurons import Current, Dynamics, Leaky
from axonal.deploy import nir
from axonal.deploy.engine.reference import run as run_graph
from axonal.graph.graph import Graph, Node
from axonal.graph.ops import Bias, Conv, Dense, Input, Neurons, Pool, reshape

from ..harness import peers
from ..harness.bench import Run
from ..harness.page import table
from ..harness.results import Figures, Results

STEPS, RATE = 200, 0.3  # of the drive, and the share of its values that are 1
DECAY, SYNAPSE = 0.9, 0.8


@dataclass(frozen=True, kw_only=True)
class Framework:
    """A framework.

    Attributes:
        title: what it calls itself.
        dt: seconds of its steps.
        why: what sets these.
    """

    title: str
    dt: float
    why: str


FRAMEWORKS: Mapping[str, Framework] = {
    "snntorch": Framework(title="snnTorch", dt=1e-4, why="fixed in its importer"),
    "norse": Framework(title="Norse", dt=1e-3, why="an argument of its importer"),
    "spikingjelly": Framework(title="SpikingJelly", dt=1e-4, why="an argument of its importer"),
    "sinabs": Framework(title="Sinabs", dt=1.0, why="its time constants are in steps"),
}

# Why a network doesn't pass or fires otherwise, by the sources of these versions, beside what the
# framework or our check says itself; "" holds for all of a framework's.
IF_LEAKS = "its importer makes of IF a neuron that leaks and hands on its membrane with its spikes"
FLOOR = "its importer puts a floor under the membrane of IF, at minus the threshold"
NUMBER = "its exporter gives a neuron with one number for all no shape; give a number to each"
KNOWN: Mapping[tuple[str, str], Mapping[str, str]] = {
    ("snntorch", "1.0.0"): {
        "if": IF_LEAKS,
        "conv if": IF_LEAKS,
        "from lif, one number for all": NUMBER,
        "from lif, another reset": "its exporter doesn't say how neurons reset; NIR's reset to "
        "v_reset at once, which is reset_mechanism='zero' with reset_delay=False",
    },
    ("norse", "1.1.0"): {
        "": "its exporter writes time constants as dt / (1 / tau), so it was given a dt of 1; its "
        "importer ignores the r of a LIF, and its Flatten takes samples without a batch",
        "from lif, one number for all": NUMBER,
        "from conv if": "its exporter knows no pooling and no Flatten",
        "from cuba": "its LIFCell adds the whole input to the current, of which its exporter's "
        "CubaLIF adds dt / tau_syn",
    },
    ("spikingjelly", "2.0.0"): {},
    ("sinabs", "3.1.3"): {
        "": "its exporter leaves shapes open, which nir's infer_types() fills",
        "if": FLOOR,
        "conv if": FLOOR,
        "conv lif": "its importer compares v_leak as if it had one axis",
        "cuba": "its importer leaves out CubaLIF without a word",
        "from lif, one number for all": NUMBER,
        "from cuba": "its exporter leaves out the current",
    },
}

CASES = {  # what the networks are called in the table
    "lif": "LIF",
    "lif, input times leak": "LIF, its input times its leak",
    "lif, one number for all": "LIF, one number for all",
    "lif, another reset": "LIF, another reset",
    "if": "IF",
    "conv if": "convolution, IF, pool, flatten, weights, IF",
    "conv lif": "convolution, LIF, pool, flatten, weights, LIF",
    "cuba": "current-based LIF",
}


def graphs(name: str, seed: int) -> dict[str, Graph]:
    """Build the networks of `CASES` with neurons of the framework `name`, and weights that fire."""
    leak = 1 - DECAY
    lif = {"decay": DECAY}
    return {
        "lif": linear(name, Leaky, 0.3, seed, **lif),
        "lif, input times leak": linear(name, Leaky, 3.0, seed, **lif, gain=leak),
        "if": linear(name, Leaky, 0.2, seed, decay=1.0),
        "conv if": conv(name, Leaky, 0.2, seed, decay=1.0),
        "conv lif": conv(name, Leaky, 0.3, seed, **lif),
        "cuba": linear(name, Current, 0.05, seed, **lif, synapse=SYNAPSE),
    }


def dynamics(name: str, kind: type[Dynamics], **options: Any) -> Dynamics:
    """Build a neuron that spikes and resets as those of the framework `name` do."""
    c = nir.CONVENTIONS[name]
    many = {"emit": c.emit, "levels": c.levels} if c.emit == "multiple" else {}
    options |= {"reset": next(iter(c.kinds.values()))[1], "above": c.above}
    return kind(**options, **many)


def linear(name: str, kind: type[Dynamics], scale: float, seed: int, **options: Any) -> Graph:
    """Build neurons behind weights."""
    weight = weights(scale, (16, 24), seed)
    neurons = Neurons(dynamics(name, kind, **options))
    nodes = [Node("input", Input((24,))), Node("weights", Dense(weight), ("input",))]
    return Graph([*nodes, Node("neurons", neurons, ("weights",))], ["neurons"])


def conv(name: str, kind: type[Dynamics], scale: float, seed: int, **options: Any) -> Graph:
    """Build a convolution, neurons, sums over windows, weights with a bias, and other neurons."""
    filters, last = weights(scale, (4, 2, 3, 3), seed), weights(scale / 4, (10, 64), seed + 1)
    neurons, ones = Neurons(dynamics(name, kind, **options)), (1, 1)
    bias = weights(scale / 4, (10,), seed + 2)
    nodes = [
        Node("input", Input((2, 8, 8))),
        Node("conv", Conv(filters, ones, (ones, ones), ones), ("input",)),
        Node("neurons", neurons, ("conv",)),
        Node("pool", Pool((2, 2), (2, 2), ((0, 0), (0, 0)), False), ("neurons",)),
        Node("flat", reshape((64,)), ("pool",)),
        Node("weights", Dense(last), ("flat",)),
        Node("bias", Bias(bias), ("weights",)),
        Node("second", neurons, ("bias",)),
    ]
    return Graph(nodes, ["second"])


def weights(scale: float, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Draw normal weights, more of them above 0 than below."""
    return np.random.default_rng(seed).normal(scale / 4, scale, shape).astype(np.float32)


def drive(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Draw ones and zeros [T, *shape]."""
    drawn = np.random.default_rng(seed).random((STEPS, *shape))
    return (drawn < RATE).astype(np.float32)


def our_spikes(path: Path, x: np.ndarray, dt: float, name: str) -> list[np.ndarray]:
    """Run the file as it is, and what NIR says in it, without our note.

    Returns:
        The spikes of each, [T, neurons].
    """
    package = require("nir", "nir").read(path)
    graphs = [nir.read(path, dt=dt, discretisation=name)]
    if package.metadata.pop("axonal", None):
        graphs.append(nir.from_nir(package, dt=dt, discretisation=name))
    return [run_graph(g, {g.inputs[0]: x})[0][g.outputs[0]].reshape(len(x), -1) for g in graphs]


def to_framework(peer: peers.Peer, graph: Graph, folder: Path, seed: int) -> dict[str, Any]:
    """Let the framework of `peer` read and run a graph of ours.

    Returns:
        `equal`: the share of equal values in all steps, and `spikes`, theirs a step; or `refused`,
        by whom and why.

    Raises:
        FileError: the worker died.
    """
    dt, x = FRAMEWORKS[peer.name].dt, drive(graph.shapes[graph.inputs[0]], seed)
    np.save(folder / "x.npy", x)
    try:
        path = nir.write(graph, folder / "a.nir", dt=dt, discretisation=peer.name)
    except InputError as error:
        return {"refused": f"by us: {error}"}
    job = {"x": str(folder / "x.npy"), "out": str(folder / "out.npz"), "file": str(path), "dt": dt}
    if error := peer.ask(do="nir", **job).get("error"):
        return {"refused": f"by {FRAMEWORKS[peer.name].title}: {error}"}
    return agreement(our_spikes(path, x, dt, peer.name), folder / "out.npz")


def from_framework(peer: peers.Peer, network: str, folder: Path, seed: int) -> dict[str, Any]:
    """Read and run a network of the framework of `peer`; the rest is as of `to_framework`."""
    dt = FRAMEWORKS[peer.name].dt
    x = drive((2, 8, 8) if network.startswith("conv") else (12,), seed)
    np.save(folder / "x.npy", x)
    path = folder / "b.nir"
    job = {"x": str(folder / "x.npy"), "out": str(folder / "out.npz"), "file": str(path), "dt": dt}
    if error := peer.ask(do="export", network=network, **job).get("error"):
        return {"refused": f"by {FRAMEWORKS[peer.name].title}: {error}"}
    try:
        return agreement(our_spikes(path, x, dt, peer.name), folder / "out.npz")
    except InputError as error:
        return {"refused": f"by us: {str(error).removeprefix(f'{path}: ')}"}


def agreement(ours: list[np.ndarray], theirs: Path) -> dict[str, float]:
    """The share of equal values, and spikes a step and neuron."""
    with np.load(theirs) as file:
        spikes = file["spikes"].reshape(STEPS, -1)
    return {
        "equal": min(float((each == spikes).mean()) for each in ours),
        "spikes": float(spikes.mean()),
    }


def reason(name: str, version: str, case: str, result: Mapping[str, Any]) -> str:
    """Why `result` is no full success: who refused with which words, and what is known of it."""
    known = KNOWN.get((name, version), {}).get(case)
    refused = f"refused {result['refused']}" if "refused" in result else ""
    return "; ".join(part for part in (refused, known) if part) or "not explained yet"


def measure(*, run: Run, seed: int = 0) -> Results:
    """Exchange NIR files with other frameworks, both ways.

    Args:
        run: where.
        seed: of weights and drives.

    Raises:
        FileError: nothing can be written, an environment can't be made, or a worker died.
        MissingExtra: nir is not installed.
    """
    require("nir", "nir")
    figures: Figures = {}
    reasons: dict[str, str] = {}
    frameworks: dict[str, dict[str, Any]] = {}
    for name in track(list(FRAMEWORKS), "frameworks"):
        versions, outcomes = exchange(name, run.peers, seed)
        known = KNOWN.get((name, versions[name]), {})
        frameworks[name] = asdict(FRAMEWORKS[name]) | {"versions": versions}
        frameworks[name]["note"] = known.get("", "")
        for case, result in outcomes.items():
            if "equal" in result:
                figures[f"equal [{name}, {case}]"] = result["equal"]
                figures[f"spikes a step [{name}, {case}]"] = round(result["spikes"], 4)
            if result.get("equal") != 1:
                reasons[f"{name}, {case}"] = reason(name, versions[name], case, result)
    return {"figures": figures, "reasons": reasons, "frameworks": frameworks}


def exchange(name: str, root: Path, seed: int) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
    """Send every network to a framework, and read every one that it exports.

    Returns:
        The versions of its environment, and what became of every network.

    Raises:
        FileError: an environment can't be made, or a worker died.
    """
    with tempfile.TemporaryDirectory() as folder, peers.worker(name, root, 2) as peer:
        place = Path(folder)
        outcomes = {
            case: to_framework(peer, graph, place, seed)
            for case, graph in graphs(name, seed).items()
        }
        for case in peer.ask(do="networks")["networks"]:
            outcomes[f"from {case}"] = from_framework(peer, case, place, seed)
        return peer.ask(do="versions"), outcomes


def tables(results: Results) -> dict[str, Any]:
    """`imported` and `exported`: equal values by network and framework; `notes` to both."""
    figures, reasons, frameworks = (results[k] for k in ("figures", "reasons", "frameworks"))
    titles = {n: f"{f['title']} {f['versions'][n]}" for n, f in frameworks.items()}
    notes = [
        f"{titles[n]}: dt is {f['dt']:g} s, {f['why']}" + (f"; {f['note']}." if f["note"] else ".")
        for n, f in frameworks.items()
    ]

    def cell(name: str, case: str) -> str:
        share, why = figures.get(f"equal [{name}, {case}]"), reasons.get(f"{name}, {case}")
        shown = "–" if share is None and why is None else "refused"
        shown = shown if share is None else f"{100 * share:.4g} %"
        if why is None:
            return shown
        note = f"{titles[name]}: {why.removesuffix('.')}."
        if note not in notes:
            notes.append(note)
        return f"{shown} ({notes.index(note) + 1})"

    def networks(title: str, prefix: str) -> str:
        heads = [f"{framework} ({i})" for i, framework in enumerate(titles.values(), 1)]
        rows = [[row, *(cell(n, prefix + case) for n in frameworks)] for case, row in CASES.items()]
        return table([title, *heads], [row for row in rows if {*row[1:]} != {"–"}])

    shares = [share for key, share in figures.items() if key.startswith("equal")]
    return {
        "imported": networks("our file in their importer", ""),
        "exported": networks("their file read by us", "from "),
        "notes": "\n".join(f"{i}. {note}" for i, note in enumerate(notes, 1)),
        "same": f"{sum(share == 1 for share in shares)} of {len(shares)}",
    }
