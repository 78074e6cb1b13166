"""A layer of spiking neurons in training, beside other frameworks."""

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from rich.progress import track

from axonal.core.errors import FileError, InputError

from ..harness import peers
from ..harness.bench import Run
from ..harness.page import shown, table
from ..harness.results import Figures, Results
from ..harness.timing import ratio, spread, take_turns

STEPS, BATCH = 500, 16  # of the Open Neuromorphic benchmark
WIDTHS = (256, 512, 1024, 4096)
SLOW = 1024  # the widest layer that the others run: a round of 4096 takes them minutes
FRAMEWORKS = ("snntorch", "spikingjelly", "norse", "sinabs")
GRID = [(h, t) for h in (64, 256, 1024) for t in (64, 256, 1024)]  # of Spyx, with 64 samples
MEMORY = {"n": 512, "batch": 16, "layers": 12}
MEMORY_STEPS = (125, 250, 500)
LEAST_EQUAL, LARGEST_ERROR = 0.9999, 1e-3  # share of steps with equal spikes, and of gradients
Job = tuple[str, str, int]  # the framework, what it runs, and of what width
Times = Mapping[Job, Sequence[float]]


def measure(
    *, run: Run, rounds: int = 7, seed: int = 0, threads: int = 2, compile_limit: float = 0
) -> Results:
    """Time and weigh a spiking layer's training beside others.

    Equal spikes and gradients are proved first. Then every round times each framework once, one
    after another, so that a disturbance of the machine meets all of them; a figure is the median
    of the rounds' ratios, with the smallest and the largest.

    Args:
        run: where.
        rounds: of timing, at least 3.
        seed: of the drives.
        threads: of every framework.
        compile_limit: seconds that torch.compile may take for each of the others; 0: not tried.

    Raises:
        InputError: unequal spikes or gradients. FileError: nothing can be written, an environment
            can't be made, or a worker died.
    """
    names = ["axonal", *FRAMEWORKS]
    with ExitStack() as stack:
        workers = {n: stack.enter_context(peers.worker(n, run.peers, threads)) for n in names}
        figures: Figures = _equality(workers, seed)
        times = _times(workers, rounds)
    figures |= speed_figures(times, names) | _bandwidth(times)
    figures |= _spyx(rounds, run.peers, threads) | _memory(run.peers, threads)
    return {"figures": figures | _compiled(times, run.peers, threads, compile_limit)}


def speed_figures(times: Times, names: Sequence[str]) -> Figures:
    """Milliseconds of every job, and ratios with their spread."""
    figures: Figures = {}
    for n in sorted({n for _, _, n in times}):
        own = times["axonal", "layer", n]
        figures[f"onm{n}_over_linear"] = ratio(own, times["axonal", "linear", n])
        for name in names[1:]:
            if (name, "layer", n) in times:
                figures[f"onm{n}_vs_{name}"] = ratio(times[name, "layer", n], own)
    for (name, what, n), seconds in times.items():
        figures[f"ms [{what} {n}, {name}]"] = spread([1000 * s for s in seconds])
    return figures


def _equality(workers: Mapping[str, peers.Peer], seed: int) -> Figures:
    """How far ours and every other's spikes, and gradients with its surrogate, are the same."""
    drive = np.random.default_rng(seed).normal(0.1, 0.5, (STEPS, 4, 256)).astype(np.float32)
    figures: Figures = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(x := folder / "x.npy", drive)
        for name in FRAMEWORKS:
            pair = workers["axonal"], workers[name]
            beside = peers.compare(*pair, folder, x, f"bench of {name}", "bench")
            if beside["equal"] < LEAST_EQUAL or not beside["gradient"] < LARGEST_ERROR:
                raise InputError(
                    f"{name} fires otherwise in {1 - beside['equal']:.2%} of steps, and its "
                    f"gradients differ by {beside['gradient']:.2%}; compare equals"
                )
            figures[f"equal spikes [{name}]"] = beside["equal"]
            figures[f"gradient difference [{name}]"] = beside["gradient"]
    return figures


def _times(workers: Mapping[str, peers.Peer], rounds: int) -> Times:
    size = {"steps": STEPS, "batch": BATCH}

    def seconds(name: str, what: str, n: int) -> float:
        return workers[name].ask(do="time", what=what, n=n, **size)["seconds"][0]

    jobs = {
        (name, what, n): lambda name=name, what=what, n=n: seconds(name, what, n)
        for n in WIDTHS
        for name in workers
        for what in (("linear", "layer", "neuron", "copy") if name == "axonal" else ("layer",))
        if name == "axonal" or n <= SLOW
    }
    return take_turns(jobs, rounds, lambda job: f"{job[0]}, {job[1]} {job[2]}")


def _bandwidth(times: Times) -> Figures:
    """The neurons alone against a copy of the same bytes in the same round.

    Forward reads x and writes spikes; backward reads x and the spikes' gradient and writes that
    of x: five arrays.
    """
    own, copy = times["axonal", "neuron", 512], times["axonal", "copy", 512]
    moved = 5 * 4 * STEPS * BATCH * 512
    return {
        "copy_gigabytes_per_second": spread([moved / s / 1e9 for s in copy]),
        "scan_over_bandwidth": ratio(own, copy),
    }


def _memory(root: Path, threads: int) -> Figures:
    """Megabytes that a training step adds at its peak, each in a process of its own."""
    figures: Figures = {}
    names = ["axonal", "axonal recompute", *FRAMEWORKS]
    for name, steps in track([(name, t) for name in names for t in MEMORY_STEPS], "memory"):
        job = MEMORY | {"steps": steps, "recompute": name.endswith("recompute")}
        with peers.worker(name.split()[0], root, threads, reuse_memory=False) as worker:
            size = worker.ask(do="memory", **job)["bytes"]
        figures[f"MB [T {steps}, {name}]"] = round(size / 2**20, 1)
    most = MEMORY_STEPS[-1]
    stored = 8 * most * MEMORY["batch"] * MEMORY["n"] * MEMORY["layers"] / 2**20
    share = figures[f"MB [T {most}, axonal recompute]"] / stored
    figures["MB to store membranes and spikes"] = round(stored, 1)
    return figures | {"training_memory_share": round(share, 4)}


def _compiled(times: Times, root: Path, threads: int, limit: float) -> Figures:
    """The others under torch.compile, each in a process of its own; those that don't compile in
    `limit` seconds have no figure."""
    figures: Figures = {}
    job = {"n": 512, "steps": STEPS, "batch": BATCH, "compile": True, "repeats": 3}
    for name in track(FRAMEWORKS if limit else (), "torch.compile of the others"):
        with peers.worker(name, root, threads) as worker:
            try:
                answer = worker.ask(do="time", what="layer", limit=limit, **job)
            except FileError:
                continue
        own = statistics.median(times["axonal", "layer", 512])
        figures[f"onm512_vs_{name}_compiled"] = spread([s / own for s in answer["seconds"]])
    return figures


def _spyx(rounds: int, root: Path, threads: int) -> Figures:
    """Spyx's published grid of layers, Spyx's time over ours, with its dynamics."""
    figures: Figures = {}
    with (
        peers.worker("axonal", root, threads) as ours,
        peers.worker("spyx", root, threads) as theirs,
    ):
        for h, t in track(GRID, "the grid of Spyx"):
            job = {"do": "time", "what": "layer", "n": h, "steps": t, "batch": 64}
            times = take_turns(
                {
                    "spyx": lambda job=job: theirs.ask(**job)["seconds"][0],
                    "axonal": lambda job=job: ours.ask(**job, variant="spyx lif")["seconds"][0],
                },
                rounds,
            )
            figures[f"spyx grid [H {h}, T {t}]"] = ratio(times["spyx"], times["axonal"])
    return figures


def tables(results: Results) -> dict[str, object]:
    """`times` and `memory`, and what the sentences around them say."""
    figures = results["figures"]
    frameworks = [key[len("equal spikes [") : -1] for key in figures if key.startswith("equal")]
    linear = figures["ms [linear 512, axonal]"]["value"]
    over_linear = (
        f"{figures[f'ms [layer 512, {name}]']['value'] / linear:.1f} ({name})"
        for name in frameworks
    )
    steps = sorted({int(key[6 : key.index(",")]) for key in figures if key.startswith("MB [T ")})
    return {
        "times": _times(figures, frameworks),
        "memory": _memory(figures, steps),
        "size": MEMORY,
        "most_steps": steps[-1],
        "over_linear": ", ".join(over_linear),
        "grid": [value["value"] for key, value in figures.items() if key.startswith("spyx grid")],
    }


def _times(figures: Figures, frameworks: list[str]) -> str:
    widths = [int(key[3 : -len("_over_linear")]) for key in figures if key.endswith("_over_linear")]
    keys = {"our time / that of the Linear alone": "onm{}_over_linear"}
    keys |= {f"{name}'s time / ours": f"onm{{}}_vs_{name}" for name in frameworks}
    keys |= {
        f"{name}'s, compiled / ours": f"onm{{}}_vs_{name}_compiled"
        for name in frameworks
        if f"onm512_vs_{name}_compiled" in figures
    }
    rows = []
    for title, key in keys.items():
        cells = [figures.get(key.format(n)) for n in widths]
        rows.append([title, *("–" if cell is None else shown(cell) for cell in cells)])
    return table(["Linear(N, N) and LIF", *(f"N = {n}" for n in widths)], rows)


def _memory(figures: Figures, steps: list[int]) -> str:
    names = dict.fromkeys(
        key[key.index(", ") + 2 : -1] for key in figures if key.startswith("MB [")
    )
    rows = [[name, *(f"{figures[f'MB [T {t}, {name}]']:.0f}" for t in steps)] for name in names]
    return table(["MB that a training step adds", *(f"T = {t}" for t in steps)], rows)
