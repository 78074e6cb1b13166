"""Whether other frameworks fire as we do from the same NIR file (`axonal bench nir`).

There: graphs of ours, written in a framework's convention, are read and run by its own importer.
Back: networks of the framework, written by its own exporter, are read and run by ours.
"""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from axonal.core import files
from axonal.core.errors import InputError
from axonal.core.extras import require
from axonal.core.neurons import Current, Dynamics, Leaky
from axonal.deploy import nir
from axonal.deploy.engine.reference import run
from axonal.graph.graph import Bias, Conv, Dense, Graph, Input, Neurons, Node, Pool, reshape
from axonal.report.provenance import facts

from ..harness import peers

STEPS, RATE = 200, 0.3  # of the drive, and the share of its values that are 1
DECAY, SYNAPSE = 0.9, 0.8


@dataclass(frozen=True, kw_only=True)
class Framework:
    """What a framework calls itself, and how long its steps are in seconds."""

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
    """The networks of `CASES` as the framework `name` has neurons, with weights that fire."""
    leak = 1 - DECAY
    lif = {"decay": DECAY}
    return {
        "lif": behind(name, Leaky, 0.3, seed, **lif),
        "lif, input times leak": behind(name, Leaky, 3.0, seed, **lif, gain=leak),
        "if": behind(name, Leaky, 0.2, seed, decay=1.0),
        "conv if": convolution(name, Leaky, 0.2, seed, decay=1.0),
        "conv lif": convolution(name, Leaky, 0.3, seed, **lif),
        "cuba": behind(name, Current, 0.05, seed, **lif, synapse=SYNAPSE),
    }


def dynamics(name: str, kind: type[Dynamics], **options: Any) -> Dynamics:
    """A neuron that spikes and resets as those of the framework `name` do."""
    c = nir.CONVENTIONS[name]
    many = {"emit": c.emit, "levels": c.levels} if c.emit == "multiple" else {}
    options |= {"reset": next(iter(c.kinds.values()))[1], "above": c.above}
    return kind(**options, **many)


def behind(name: str, kind: type[Dynamics], scale: float, seed: int, **options: Any) -> Graph:
    """Neurons behind weights."""
    weight = weights(scale, (16, 24), seed)
    neurons = Neurons(dynamics(name, kind, **options))
    nodes = [Node("input", Input((24,))), Node("weights", Dense(weight), ("input",))]
    return Graph([*nodes, Node("neurons", neurons, ("weights",))], ["neurons"])


def convolution(name: str, kind: type[Dynamics], scale: float, seed: int, **options: Any) -> Graph:
    """A convolution, neurons, sums over windows, and weights with a bias before other neurons."""
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
    """Normal, and more of them above 0 than below."""
    return np.random.default_rng(seed).normal(scale / 4, scale, shape).astype(np.float32)


def drive(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Random ones and zeros [T, *shape]."""
    drawn = np.random.default_rng(seed).random((STEPS, *shape))
    return (drawn < RATE).astype(np.float32)


def ours(path: Path, x: np.ndarray, dt: float, name: str) -> list[np.ndarray]:
    """Our spikes: of the file as it is, and of what NIR says in it, without our note."""
    package = require("nir", "nir").read(path)
    read = [nir.read(path, dt=dt, discretisation=name)]
    if package.metadata.pop("axonal", None):
        read.append(nir.from_nir(package, dt=dt, discretisation=name))
    return [run(g, {g.inputs[0]: x})[0][g.outputs[0]].reshape(len(x), -1) for g in read]


def there(peer: peers.Peer, graph: Graph, folder: Path, seed: int) -> dict[str, Any]:
    """A graph of ours, read and run by the framework of `peer`.

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
    return compared(ours(path, x, dt, peer.name), folder / "out.npz")


def back(peer: peers.Peer, network: str, folder: Path, seed: int) -> dict[str, Any]:
    """A network of the framework of `peer`, read and run by us; the rest is as of `there`."""
    dt = FRAMEWORKS[peer.name].dt
    x = drive((2, 8, 8) if network.startswith("conv") else (12,), seed)
    np.save(folder / "x.npy", x)
    path = folder / "b.nir"
    job = {"x": str(folder / "x.npy"), "out": str(folder / "out.npz"), "file": str(path), "dt": dt}
    if error := peer.ask(do="export", network=network, **job).get("error"):
        return {"refused": f"by {FRAMEWORKS[peer.name].title}: {error}"}
    try:
        return compared(ours(path, x, dt, peer.name), folder / "out.npz")
    except InputError as error:
        return {"refused": f"by us: {str(error).removeprefix(f'{path}: ')}"}


def compared(found: list[np.ndarray], theirs: Path) -> dict[str, float]:
    """The share of equal values, and spikes a step and neuron."""
    with np.load(theirs) as file:
        spikes = file["spikes"].reshape(STEPS, -1)
    return {
        "equal": min(float((each == spikes).mean()) for each in found),
        "spikes": float(spikes.mean()),
    }


def reason(name: str, version: str, case: str, result: Mapping[str, Any]) -> str:
    """Why `result` is no full success: who refused with which words, and what is known of it."""
    known = KNOWN.get((name, version), {}).get(case)
    said = f"refused {result['refused']}" if "refused" in result else ""
    return "; ".join(part for part in (said, known) if part) or "not explained yet"


def bench(out: Path, seed: int = 0, root: Path = Path("runs/peers")) -> str:
    """Send networks through every framework's importer and exporter; write `nir.json` to `out`.

    Returns:
        A sentence: what was achieved and where it lies.

    Raises:
        InputError: as `peers.working`. FileError: nothing can be written, an environment can't be
            made, or a worker died. MissingExtra: nir is not installed.
    """
    files.writable(out)
    require("nir", "nir")
    figures: dict[str, float] = {}
    reasons: dict[str, str] = {}
    frameworks: dict[str, dict[str, Any]] = {}
    for name in track(list(FRAMEWORKS), "frameworks"):
        versions, found = passed(name, root, seed)
        known = KNOWN.get((name, versions[name]), {})
        frameworks[name] = asdict(FRAMEWORKS[name]) | {"versions": versions}
        frameworks[name]["note"] = known.get("", "")
        for case, result in found.items():
            if "equal" in result:
                figures[f"equal [{name}, {case}]"] = result["equal"]
                figures[f"spikes a step [{name}, {case}]"] = round(result["spikes"], 4)
            if result.get("equal") != 1:
                reasons[f"{name}, {case}"] = reason(name, versions[name], case, result)
    result = {"figures": figures, "reasons": reasons, "frameworks": frameworks}
    result |= facts(f"axonal bench nir --seed {seed}", seed)
    path = files.write(out / "nir.json", json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    shares = [value for key, value in figures.items() if key.startswith("equal")]
    return (
        f"{sum(share == 1 for share in shares)} of {len(shares)} networks that passed fire in "
        f"exactly the same steps; {len(reasons)} differ or are refused, with a reason: "
        f"{path.resolve()}."
    )


def passed(name: str, root: Path, seed: int) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
    """The versions of a framework's environment, and what became of every network.

    Raises:
        InputError, FileError: as `peers.working`.
    """
    with tempfile.TemporaryDirectory() as folder, peers.working(name, root, 2) as peer:
        made = graphs(name, seed).items()
        found = {case: there(peer, graph, Path(folder), seed) for case, graph in made}
        for case in peer.ask(do="networks")["networks"]:
            found[f"from {case}"] = back(peer, case, Path(folder), seed)
        return peer.ask(do="versions"), found
