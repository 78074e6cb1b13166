"""The time of an epoch of two known networks, beside snnTorch and SpikingJelly.

The networks are those of snnTorch's tutorials 5 and 6 with MNIST's training set:
https://snntorch.readthedocs.io/en/latest/tutorials; `benchmarks/peers/epochs.py` has them in every
framework, and says how each is run.
"""

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from axonal.core.errors import InputError
from axonal.data.images import Images, mnist

from ..harness import peers
from ..harness.timing import spread

RIVALS = ("snntorch", "spikingjelly")
BATCH, EPOCH = 128, 60_000 // 128  # samples of a batch, batches of an epoch
BATCHES = {"fully connected": 8, "convolutional": 2}  # timed a round
# Weights, each followed by its biases. From its first weights on, the convolutional network sends
# no spike to its output; three times as large ones make equal spikes worth something.
WEIGHTS = {
    "fully connected": ([(1000, 784), (10, 1000)], 1.0),
    "convolutional": ([(12, 1, 5, 5), (64, 12, 5, 5), (10, 1024)], 3.0),
}
GRID = (
    2.0**-12
)  # of weights: sums of them over spikes are exact, so that their order flips no spike
LEAST_EQUAL, LARGEST_ERROR = 0.9999, {"loss difference": 1e-4, "gradient difference": 1e-3}
Job = tuple[str, str, bool]  # network, whose dynamics; whether it runs as well as we know how
Times = Mapping[tuple[str, Job], Sequence[float]]


def epochs(
    rounds: int = 5, seed: int = 0, root: Path = Path("runs/peers"), threads: int = 2
) -> dict[str, Any]:
    """Seconds of an epoch, and how many times as long others take as ours with their dynamics.

    Equal output spikes, losses and gradients are proved first, from equal weights and images.
    Then every round times some training steps of each contender (forward, loss, backward,
    optimiser), one after another; a figure is the median of the rounds' ratios, with the least
    and the most. An epoch is 468 batches of 128; loading images is left out.

    Args:
        rounds: of timing.
        seed: of the weights.
        root: folder of the other frameworks' environments.
        threads: of every contender.

    Returns:
        Figures by name: "epoch_vs_NAME [NETWORK]" against the published way, and
        "epoch_vs_NAME_hoisted [NETWORK]" against one that runs the constant first layers once and
        lies channels last, as ours does; the same without NETWORK, the smaller of the two;
        "seconds an epoch [NETWORK, NAME]"; and what the proof found.

    Raises:
        InputError: as `peers.working`, or a rival computes something else. FileError: MNIST is
            missing, an environment can't be made, or a worker died.
    """
    images = mnist("train")
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        data = {network: write(Path(name), network, images, seed) for network in WEIGHTS}
        who = ("axonal", *RIVALS)
        workers = {n: stack.enter_context(peers.working(n, root, threads)) for n in who}
        figures = {}
        for network, path in data.items():
            for rival in RIVALS:
                figures |= equal(workers["axonal"], workers[rival], network, path, rival)
        return figures | ratios(_times(workers, data, rounds))


def write(folder: Path, network: str, images: Images, seed: int) -> Path:
    """What all start from: the first batches of `images`, and weights as torch draws them.

    Uniform within 1 / sqrt(fan-in) (the default of `nn.Linear` and `nn.Conv2d`), times the
    network's factor in `WEIGHTS`, on the `GRID`.
    """
    shapes, scale = WEIGHTS[network]
    count, generator = BATCH * (1 + BATCHES[network]), np.random.default_rng(seed)
    pixels = (images.pixels[:count] / 255).astype(np.float32)
    parameters = []
    for shape in shapes:
        bound = scale / np.sqrt(np.prod(shape[1:]))
        drawn = [generator.uniform(-bound, bound, s) for s in (shape, shape[:1])]
        parameters += [np.round(values / GRID) * GRID for values in drawn]
    np.savez(
        path := folder / f"{network}.npz",
        images=pixels.reshape(len(pixels), -1) if len(shapes[0]) == 2 else pixels,
        labels=images.labels[:count],
        **{f"p{i}": values.astype(np.float32) for i, values in enumerate(parameters)},
    )
    return path


def equal(
    ours: peers.Peer, theirs: peers.Peer, network: str, data: Path, rival: str
) -> dict[str, float]:
    """How far a training step of ours, with the rival's dynamics, is the rival's.

    Both lie channels last: another layout rounds sums otherwise, and a membrane that is near its
    threshold then fires or not.

    Raises:
        InputError: it is another. FileError: a worker died.
    """
    found: list[dict[str, np.ndarray]] = []
    job: dict[str, Any] = {"do": "epoch", "network": network, "data": str(data), "rival": rival}
    for who in (ours, theirs):
        out = data.with_name(f"{network} {len(found)}.npz")
        who.ask(**job, hoisted=True, out=str(out))
        with np.load(out) as file:
            found.append(dict(file))
    a, b = found
    errors = [_difference(a[key], b[key]) for key in b if key.startswith("p")]
    figures = {
        "equal spikes": float((a["spikes"] == b["spikes"]).mean()),
        "spikes a step": round(float(b["spikes"].mean()), 4),
        "loss difference": _difference(a["loss"], b["loss"]),
        "gradient difference": max(errors),
    }
    wrong = [key for key, most in LARGEST_ERROR.items() if not figures[key] <= most]
    if figures["equal spikes"] < LEAST_EQUAL or not figures["spikes a step"] > 0 or wrong:
        raise InputError(f"{network}: {rival} computes something else ({figures}); compare equals")
    return {f"{key} [{network}, {rival}]": value for key, value in figures.items()}


def ratios(times: Times) -> dict[str, Any]:
    """The figures of speed; times are by framework and job, seconds of a batch in each round."""
    figures: dict[str, Any] = {}
    for (name, (network, rival, hoisted)), seconds in times.items():
        label = f"{name} as {rival}" if name == "axonal" else name
        label += " hoisted" if hoisted else ""
        figures[f"seconds an epoch [{network}, {label}]"] = spread([EPOCH * s for s in seconds])
        if name != "axonal":
            own = times["axonal", (network, rival, False)]
            parts = [theirs / mine for theirs, mine in zip(seconds, own, strict=True)]
            title = f"epoch_vs_{rival}" + ("_hoisted" if hoisted else "")
            figures[f"{title} [{network}]"] = spread(parts)
            rest = [figures[title]] if title in figures else []
            figures[title] = min([spread(parts), *rest], key=lambda figure: figure["value"])
    return figures


def _times(workers: Mapping[str, peers.Peer], data: Mapping[str, Path], rounds: int) -> Times:
    jobs = [
        (name, (network, rival, hoisted))
        for network in data
        for rival in RIVALS
        for name, hoisted in (("axonal", False), (rival, False), (rival, True))
    ]
    times: dict[tuple[str, Job], list[float]] = {job: [] for job in jobs}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns) as bar:
        task = bar.add_task("epochs", total=rounds * len(jobs))
        for _ in range(rounds):
            for name, (network, rival, hoisted) in jobs:
                bar.update(task, description=f"{name}, {network}")
                job: dict[str, Any] = {"network": network, "data": str(data[network])}
                job |= {"rival": rival, "hoisted": hoisted, "batches": BATCHES[network]}
                answer = workers[name].ask(do="epoch", **job)
                times[name, (network, rival, hoisted)].append(answer["seconds"] / BATCHES[network])
                bar.advance(task)
    return times


def _difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
