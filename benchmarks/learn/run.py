"""Training with spikes: what it reaches, and what it takes."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from axonal.learn.loop import fit
from axonal.recipes import spiking_classifiers, training

from ..harness.bench import Run
from ..harness.charts import line_chart
from ..harness.page import shown, table
from ..harness.results import Figures, Results
from . import backward_cost, epochs, memory, planted_faults, scaling

SHOWN = ("mnist-fc", "mnist-conv", "nmnist", "fsdd", "cifar10-spiking")  # the trainings
WEIGHTS = (0.0, 1e-4, 1e-3, 1e-2, 1e-1)  # of a nanojoule of modelled spikes, in the loss
SHORT = 1500  # steps of each run of that curve


def measure(*, run: Run, seed: int = 0, rounds: int = 5, threads: int = 2) -> Results:
    """Train spiking networks, beside others; an hour and a half.

    Args:
        run: where; it goes on from trainings and parts that are finished.
        seed: of weights, order and noise.
        rounds: of timing, at least 3.
        threads: of every framework.

    Raises:
        InputError: as the parts. FileError: data are missing, or nothing can be written.
    """
    parts: Mapping[str, Callable[[], Figures]] = {
        **{name: lambda name=name: _trained(name, run.store, seed) for name in SHOWN},
        "energy": lambda: _energy(run.store, seed),
        "epochs": lambda: epochs.figures(rounds, seed, run.peers, threads),
        "memory": memory.figures,
        "backward": lambda: backward_cost.figures(rounds, seed),
        "doctor": lambda: planted_faults.figures(tuple(spiking_classifiers.TASKS), seed),
        "deep": lambda: {f"deep_{k}": v for k, v in planted_faults.deep(seed).items()},
        "processes": lambda: scaling.figures(rounds, seed),
    }
    figures = run.measure(parts)
    curves = {name: figures.pop(name) for name in list(figures) if isinstance(figures[name], list)}
    _draw(figures, curves, run.results)
    return {"figures": figures}


def _trained(name: str, store: Path, seed: int) -> Figures:
    folder = training.train(name, store / name, seed)
    card, key = json.loads((folder / training.CARD).read_text()), name.replace("-", "_")
    return {
        f"{key}_accuracy": round(100 * card["test_accuracy"], 2),
        f"{key}_spike_rate": round(100 * card["spike_rate"], 2),
        f"{key}_seconds": card["seconds"],
        f"{key}_parameters": card["parameters"],
    }


def _energy(store: Path, seed: int) -> Figures:
    """Accuracy and spikes of one network under rising prices."""
    figures, test = {}, spiking_classifiers.TASKS["mnist-fc"].data("test")
    for weight in WEIGHTS:
        recipe = spiking_classifiers.recipe("mnist-fc", seed, weight, steps=SHORT)
        network = fit(recipe, store / f"at-{weight:g}")
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
    line_chart(out / "learn-energy.svg", {"": points}, "spikes an image", "accuracy, %")
    megabytes = {
        rule: [(t, figures[f"MB [{rule}, T {t}]"], "") for t in memory.STEPS]
        for rule in memory.RULES
    }
    line_chart(out / "learn-memory.svg", megabytes, "steps", "MB that a training step adds")
    backward_cost.draw(figures, out / "learn-backward.svg")
    deep = {name.removeprefix("deep_"): curve for name, curve in curves.items()}
    planted_faults.draw(deep, out / "learn-deep.svg")


def tables(results: Results) -> dict[str, Any]:
    """`trainings`, `epochs` beside other frameworks, and `memory` of the rules."""
    figures, trainings = results["figures"], []
    for name in SHOWN:
        accuracy, rate, seconds, parameters = (
            figures[f"{name.replace('-', '_')}_{what}"]
            for what in ("accuracy", "spike_rate", "seconds", "parameters")
        )
        cells = f"{accuracy:.1f} %", f"{rate:.1f} %", f"{seconds / 60:.1f}", f"{parameters:,}"
        trainings.append([f"`{name}`", *cells])
    networks, times = ("fully connected", "convolutional"), []
    for framework in epochs.FRAMEWORKS:
        for way, title in (("", "as published"), ("_hoisted", "constant layers once")):
            cells = (shown(figures[f"epoch_vs_{framework}{way} [{n}]"]) for n in networks)
            times.append([f"{framework}, {title}", *cells])
    megabytes = (
        f"{rule} {figures[f'MB [{rule}, T 10]']:.1f} to {figures[f'MB [{rule}, T 1000]']:.1f}"
        for rule in ("bptt", "sltt", "ottt", "e-prop")
    )
    head = ["`axonal train …`", "test accuracy", "spikes a neuron and step", "minutes"]
    return {
        "trainings": table([*head, "parameters"], trainings),
        "epochs": table(["time of an epoch / ours", *networks], times),
        "memory": ", ".join(megabytes),
    }
