"""What training with spikes reaches, and what it takes (`axonal bench learn`)."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from axonal.core import files
from axonal.core.errors import InputError
from axonal.learn.loop import fit
from axonal.recipes import spiking_classifiers, training
from axonal.report.provenance import facts

from ..harness.results import Figures, chart, kept
from . import backward_cost, epochs, planted_faults, scaling
from . import memory as rule_memory

SHOWN = ("mnist-fc", "mnist-conv", "nmnist", "fsdd", "cifar10-spiking")  # the trainings
WEIGHTS = (0.0, 1e-4, 1e-3, 1e-2, 1e-1)  # of a nanojoule of modelled spikes, in the loss
SHORT = 1500  # steps of each run of that curve


def bench(
    out: Path,
    seed: int = 0,
    rounds: int = 5,
    threads: int = 2,
    root: Path = Path("runs/peers"),
    store: Path = Path("runs/bench-learn"),
) -> str:
    """Measure the README's figures of training; write `learn.json` and its drawings to `out`.

    Parts that are finished are kept in `store`, so that an interrupted bench goes on.

    Args:
        out: folder of the results.
        seed: of weights, order and noise.
        rounds: of timing, at least 3.
        threads: of every contender.
        root: folder of the other frameworks' environments.
        store: folder of the trainings and of finished parts.

    Returns:
        A sentence: what was achieved and where it lies.

    Raises:
        InputError: too few rounds, or as the parts. FileError: data are missing, or nothing can
            be written.
    """
    if rounds < 3:
        raise InputError(f"{rounds} rounds have no spread; take at least 3")
    files.writable(out)
    torch.set_num_threads(threads)
    command = f"axonal bench learn --seed {seed} --rounds {rounds} --threads {threads}"
    store = store / f"seed-{seed}"  # a training of another seed is another run
    parts: Mapping[str, Callable[[], Figures]] = {
        **{name: lambda name=name: _trained(name, store, seed) for name in SHOWN},
        "energy": lambda: _curve(store, seed),
        "epochs": lambda: epochs.epochs(rounds, seed, root, threads),
        "memory": rule_memory.figures,
        "backward": lambda: backward_cost.figures(rounds, seed, threads),
        "doctor": lambda: planted_faults.figures(tuple(spiking_classifiers.TASKS), seed),
        "deep": lambda: {f"deep_{k}": v for k, v in planted_faults.deep(seed).items()},
        "processes": lambda: scaling.ddp(rounds, seed),
    }
    figures: Figures = {}
    for name, part in parts.items():
        figures |= kept(store / f"{name}.json", command, part)
    curves = {name: figures.pop(name) for name in list(figures) if isinstance(figures[name], list)}
    _draw(figures, curves, out)
    result = {"figures": figures} | facts(command, seed)
    path = files.write(out / "learn.json", json.dumps(result, indent=1) + "\n")
    best = figures["mnist_conv_accuracy"]
    return (
        f"Digits are told apart in {best:.2f} % of images; every figure lies in {path.resolve()}."
    )


def _trained(name: str, store: Path, seed: int) -> Figures:
    folder = training.train(name, store / name, seed)
    card, key = json.loads((folder / training.CARD).read_text()), name.replace("-", "_")
    return {
        f"{key}_accuracy": round(100 * card["test_accuracy"], 2),
        f"{key}_spike_rate": round(100 * card["spike_rate"], 2),
        f"{key}_seconds": card["seconds"],
        f"{key}_parameters": card["parameters"],
    }


def _curve(store: Path, seed: int) -> Figures:
    """Accuracy and spikes of one network under rising prices."""
    figures, test = {}, spiking_classifiers.TASKS["mnist-fc"].data("test")
    for weight in WEIGHTS:
        network = fit(
            spiking_classifiers.recipe("mnist-fc", seed, weight, steps=SHORT),
            store / f"at-{weight:g}",
        )
        assert isinstance(network, spiking_classifiers.SpikingClassifier)
        tested = spiking_classifiers.evaluate(network, test)
        figures[f"accuracy [{weight:g}]"] = round(100 * tested["test_accuracy"], 2)
        figures[f"spikes an image [{weight:g}]"] = round(tested["spikes"], 1)
    return figures


def _draw(figures: Figures, curves: Mapping[str, Sequence[float]], out: Path) -> None:
    """The four drawings: energy, memory, the backward pass, and the twenty layers."""
    points = [
        (figures[f"spikes an image [{w:g}]"], figures[f"accuracy [{w:g}]"], f"{w:g} a nJ")
        for w in WEIGHTS
    ]
    chart(out / "learn-energy.svg", {"": points}, "spikes an image", "accuracy, %")
    memory = {
        rule: [(t, figures[f"MB [{rule}, T {t}]"], "") for t in rule_memory.STEPS]
        for rule in rule_memory.RULES
    }
    chart(out / "learn-memory.svg", memory, "steps", "MB that a training step adds")
    backward_cost.draw(figures, out / "learn-backward.svg")
    planted_faults.draw(
        {k.removeprefix("deep_"): v for k, v in curves.items()}, out / "learn-deep.svg"
    )
