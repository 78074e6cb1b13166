"""An epoch of training of two known networks, beside snnTorch and SpikingJelly.

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

from axonal.core.errors import InputError
from axonal.data.images import Images, mnist

from ..harness import peers
from ..harness.results import Figures
from ..harness.timing import ratio, spread, take_turns

FRAMEWORKS = ("snntorch", "spikingjelly")
BATCH, EPOCH = 128, 60_000 // 128  # samples of a batch, batches of an epoch
BATCHES = {"fully connected": 8, "convolutional": 2}  # timed a round
# Weights, each followed by its biases. From its first weights on, the convolutional network sends
# no spike to its output; three times as large ones make equal spikes worth something.
WEIGHTS = {
    "fully connected": ([(1000, 784), (10, 1000)], 1.0),
    "convolutional": ([(12, 1, 5, 5), (64, 12, 5, 5), (10, 1024)], 3.0),
}
GRID = 2.0**-12  # of weights: sums of them over spikes are exact: their order flips no spike
LEAST_EQUAL, LARGEST_ERROR = 0.9999, {"loss difference": 1e-4, "gradient difference": 1e-3}
Job = tuple[str, str, bool]  # network, whose dynamics; whether it runs as well as we know how
Times = Mapping[tuple[str, Job], Sequence[float]]


def figures(rounds: int, seed: int, root: Path, threads: int) -> Figures:
    """Time an epoch of every framework and of ours with its dynamics.

    Equal output spikes, losses and gradients are proved first, from equal weights and images.
    Then every round times some training steps of each (forward, loss, backward, optimiser), one
    after another; a figure is the median of the rounds' ratios, with the least and the most. An
    epoch is 468 batches of 128; loading images is left out.

    Args:
        rounds: of timing.
        seed: of the weights.
        root: folder of the other frameworks' environments.
        threads: of every framework.

    Returns:
        Figures by name: "epoch_vs_NAME [NETWORK]" against the published way, and
        "epoch_vs_NAME_hoisted [NETWORK]" against one that runs the constant first layers once and
        lies channels last, as ours does; the same without NETWORK, the smaller of the two;
        "seconds an epoch [NETWORK, NAME]"; and by how much the proof's results differ.

    Raises:
        InputError: a framework computes something else. FileError: MNIST is missing, an
            environment can't be made, or a worker died.
    """
    images = mnist("train")
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        data = {network: write(Path(name), network, images, seed) for network in WEIGHTS}
        names = ("axonal", *FRAMEWORKS)
        workers = {n: stack.enter_context(peers.worker(n, root, threads)) for n in names}
        differences: Figures = {}
        for network, path in data.items():
            for peer in FRAMEWORKS:
                differences |= equality(workers["axonal"], workers[peer], network, path, peer)
        return differences | ratios(_times(workers, data, rounds))


def write(folder: Path, network: str, images: Images, seed: int) -> Path:
    """Write what all start from: the first batches of `images`, and weights as torch draws them.

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


def equality(
    ours: peers.Peer, theirs: peers.Peer, network: str, data: Path, dynamics: str
) -> Figures:
    """Compare a training step of ours, with the dynamics of the other framework, with its own.

    Both lie channels last: another layout rounds sums otherwise, and a membrane that is near its
    threshold then fires or not.

    Raises:
        InputError: it is another. FileError: a worker died.
    """
    job = {"do": "epoch", "network": network, "data": str(data), "dynamics": dynamics}
    a, b = (peers.arrays(p, data.parent, **job, hoisted=True) for p in (ours, theirs))
    errors = [_difference(a[key], b[key]) for key in b if key.startswith("p")]
    figures = {
        "equal spikes": float((a["spikes"] == b["spikes"]).mean()),
        "spikes a step": round(float(b["spikes"].mean()), 4),
        "loss difference": _difference(a["loss"], b["loss"]),
        "gradient difference": max(errors),
    }
    wrong = [key for key, most in LARGEST_ERROR.items() if not figures[key] <= most]
    if figures["equal spikes"] < LEAST_EQUAL or not figures["spikes a step"] > 0 or wrong:
        raise InputError(
            f"{network}: {dynamics} computes something else ({figures}); compare equals"
        )
    return {f"{key} [{network}, {dynamics}]": value for key, value in figures.items()}


def ratios(times: Times) -> Figures:
    """The figures of speed; times are by framework and job, seconds of a batch in each round."""
    figures: Figures = {}
    for (name, (network, dynamics, hoisted)), seconds in times.items():
        label = f"{name} as {dynamics}" if name == "axonal" else name
        label += " hoisted" if hoisted else ""
        figures[f"seconds an epoch [{network}, {label}]"] = spread([EPOCH * s for s in seconds])
        if name != "axonal":
            own = ratio(seconds, times["axonal", (network, dynamics, False)])
            title = f"epoch_vs_{dynamics}" + ("_hoisted" if hoisted else "")
            figures[f"{title} [{network}]"] = own
            figures[title] = min(own, figures.get(title, own), key=lambda ratio: ratio["value"])
    return figures


def _times(workers: Mapping[str, peers.Peer], data: Mapping[str, Path], rounds: int) -> Times:
    def seconds(name: str, network: str, dynamics: str, hoisted: bool) -> float:
        job: dict[str, Any] = {"network": network, "data": str(data[network])}
        job |= {"dynamics": dynamics, "hoisted": hoisted, "batches": BATCHES[network]}
        return workers[name].ask(do="epoch", **job)["seconds"] / BATCHES[network]

    jobs = [
        (name, (network, dynamics, hoisted))
        for network in data
        for dynamics in FRAMEWORKS
        for name, hoisted in (("axonal", False), (dynamics, False), (dynamics, True))
    ]
    calls = {(name, job): lambda name=name, job=job: seconds(name, *job) for name, job in jobs}
    return take_turns(calls, rounds, lambda key: f"{key[0]}, {key[1][0]}")


def _difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
