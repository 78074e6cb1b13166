"""How fast a layer of spiking neurons trains, beside other frameworks (`axonal bench neurons`)."""

import json
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, track

from axonal.core import files
from axonal.core.errors import FileError, InputError
from axonal.report.provenance import facts

from ..harness import peers
from ..harness.timing import spread

STEPS, BATCH = 500, 16  # of the Open Neuromorphic benchmark
WIDTHS = (256, 512, 1024, 4096)
SLOW = 1024  # the widest layer that the others run: a round of 4096 takes them minutes
RIVALS = ("snntorch", "spikingjelly", "norse", "sinabs")
GRID = [(h, t) for h in (64, 256, 1024) for t in (64, 256, 1024)]  # of Spyx, with 64 samples
MEMORY = {"n": 512, "batch": 16, "layers": 12}
MEMORY_STEPS = (125, 250, 500)
Times = Mapping[tuple[str, str, int], Sequence[float]]


def bench(
    out: Path,
    rounds: int = 7,
    seed: int = 0,
    root: Path = Path("runs/peers"),
    threads: int = 2,
    compile_limit: float = 0,
) -> str:
    """Measure the README's figures of neurons, and write `neurons.json` to `out`.

    Equal spikes and gradients are proved first. Then every round times each contender once, one
    after another, so that a disturbance of the machine meets all of them; a figure is the median
    of the rounds' ratios, with the smallest and the largest.

    Args:
        out: folder of the results.
        rounds: of timing.
        seed: of the drives.
        root: folder of the other frameworks' environments.
        threads: of every contender.
        compile_limit: seconds that torch.compile may take for each rival's loop over time; 0
            leaves that out.

    Returns:
        A sentence: what was achieved and where it lies.

    Raises:
        InputError: as `peers.working`, or unequal spikes or gradients. FileError: nothing can be
            written, or an environment can't be made.
    """
    if rounds < 3:
        raise InputError(f"{rounds} rounds have no spread; take at least 3")
    files.writable(out)
    names = ["axonal", *RIVALS]
    with ExitStack() as stack:
        workers = {n: stack.enter_context(peers.working(n, root, threads)) for n in names}
        figures = _equals(workers, seed)
        times = _times(workers, rounds)
    figures |= speed_figures(times, names) | _bandwidth(times)
    figures |= _spyx(rounds, root, threads) | _memory(root, threads)
    figures |= _compiled(times, root, threads, compile_limit)
    command = f"axonal bench neurons --rounds {rounds} --seed {seed} --threads {threads}"
    command += f" --compile-limit {compile_limit:g}" if compile_limit else ""
    result = {"figures": figures} | facts(command, seed)
    path = files.write(out / "neurons.json", json.dumps(result, indent=1) + "\n")
    own = figures["onm512_over_linear"]["value"]
    return (
        f"Linear and LIF of 512 take {own:.2f} times the Linear alone; a training step can do with "
        f"{figures['training_memory_share']:.0%} of the memory of its membranes and spikes: "
        f"{path.resolve()}."
    )


def speed_figures(times: Times, names: Sequence[str]) -> dict[str, Any]:
    """Milliseconds of every job, and ratios with their spread."""
    figures: dict[str, Any] = {}
    for n in sorted({n for _, _, n in times}):
        own = times["axonal", "layer", n]
        figures[f"onm{n}_over_linear"] = _ratio(own, times["axonal", "linear", n])
        for name in names[1:]:
            if (name, "layer", n) in times:
                figures[f"onm{n}_vs_{name}"] = _ratio(times[name, "layer", n], own)
    for (name, what, n), seconds in times.items():
        figures[f"ms [{what} {n}, {name}]"] = spread([1000 * s for s in seconds])
    return figures


def _equals(workers: Mapping[str, peers.Peer], seed: int) -> dict[str, float]:
    """How far ours and every other's spikes, and gradients with its surrogate, are the same."""
    drive = np.random.default_rng(seed).normal(0.1, 0.5, (STEPS, 4, 256)).astype(np.float32)
    figures = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(x := folder / "x.npy", drive)
        for name in RIVALS:
            pair = workers["axonal"], workers[name]
            found = peers.compare(*pair, folder, x, f"bench of {name}", "bench")
            if found["equal"] < 0.9999 or not found["gradient"] < 1e-3:
                raise InputError(
                    f"{name} fires otherwise in {1 - found['equal']:.2%} of steps, and its "
                    f"gradients differ by {found['gradient']:.2%}; compare equals"
                )
            figures[f"equal spikes [{name}]"] = found["equal"]
            figures[f"gradient difference [{name}]"] = found["gradient"]
    return figures


def _times(workers: Mapping[str, peers.Peer], rounds: int) -> Times:
    jobs = [
        (name, what, n)
        for n in WIDTHS
        for name in workers
        for what in (("linear", "layer", "neuron", "copy") if name == "axonal" else ("layer",))
        if name == "axonal" or n <= SLOW
    ]
    times: dict[tuple[str, str, int], list[float]] = {job: [] for job in jobs}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns) as bar:
        task = bar.add_task("rounds", total=rounds * len(jobs))
        for _ in range(rounds):
            for name, what, n in jobs:
                bar.update(task, description=f"{name}, {what} {n}")
                size = {"n": n, "steps": STEPS, "batch": BATCH}
                times[name, what, n] += workers[name].ask(do="time", what=what, **size)["seconds"]
                bar.advance(task)
    return times


def _bandwidth(times: Times) -> dict[str, Any]:
    """The neurons alone against a copy of the same bytes in the same round.

    Forward reads x and writes spikes; backward reads x and the spikes' gradient and writes that
    of x: five arrays.
    """
    own, copy = times["axonal", "neuron", 512], times["axonal", "copy", 512]
    moved = 5 * 4 * STEPS * BATCH * 512
    return {
        "copy_gigabytes_per_second": spread([moved / s / 1e9 for s in copy]),
        "scan_over_bandwidth": _ratio(own, copy),
    }


def _memory(root: Path, threads: int) -> dict[str, Any]:
    """Megabytes that a training step adds at its peak, each in a process of its own."""
    figures, whole = {}, ["axonal", "axonal recompute", *RIVALS]
    for name, steps in track([(name, t) for name in whole for t in MEMORY_STEPS], "memory"):
        job = MEMORY | {"steps": steps, "recompute": name.endswith("recompute")}
        with peers.working(name.split()[0], root, threads, hoard=False) as worker:
            found = worker.ask(do="memory", **job)["bytes"]
        figures[f"MB [T {steps}, {name}]"] = round(found / 2**20, 1)
    most = MEMORY_STEPS[-1]
    stored = 8 * most * MEMORY["batch"] * MEMORY["n"] * MEMORY["layers"] / 2**20
    share = figures[f"MB [T {most}, axonal recompute]"] / stored
    figures["MB to store membranes and spikes"] = round(stored, 1)
    return figures | {"training_memory_share": round(share, 4)}


def _compiled(times: Times, root: Path, threads: int, limit: float) -> dict[str, Any]:
    """Rivals under torch.compile, each in a process of its own; those that don't compile in
    `limit` seconds have no figure."""
    figures: dict[str, Any] = {}
    job = {"n": 512, "steps": STEPS, "batch": BATCH, "compile": True, "repeats": 3}
    for name in track(RIVALS if limit else (), "torch.compile of the others"):
        with peers.working(name, root, threads) as worker:
            try:
                answer = worker.ask(do="time", what="layer", limit=limit, **job)
            except FileError:
                continue
        own = statistics.median(times["axonal", "layer", 512])
        figures[f"onm512_vs_{name}_compiled"] = spread([s / own for s in answer["seconds"]])
    return figures


def _spyx(rounds: int, root: Path, threads: int) -> dict[str, Any]:
    """Spyx's published grid of layers, Spyx's time over ours, with its dynamics."""
    figures: dict[str, Any] = {}
    with (
        peers.working("axonal", root, threads) as ours,
        peers.working("spyx", root, threads) as theirs,
    ):
        for h, t in track(GRID, "the grid of Spyx"):
            job = {"do": "time", "what": "layer", "n": h, "steps": t, "batch": 64}
            pairs = [
                (theirs.ask(**job)["seconds"][0], ours.ask(**job, variant="spyx lif")["seconds"][0])
                for _ in range(rounds)
            ]
            figures[f"spyx grid [H {h}, T {t}]"] = spread([a / b for a, b in pairs])
    return figures


def _ratio(a: Sequence[float], b: Sequence[float]) -> dict[str, float]:
    return spread([x / y for x, y in zip(a, b, strict=True)])
