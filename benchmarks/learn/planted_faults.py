"""Faults planted into small networks for the doctor to find, and a deep network that it fixes."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from axonal.commands.doctor import doctor
from axonal.core.neurons import Leaky
from axonal.learn.data import images
from axonal.learn.doctor import Report, examine, fix
from axonal.learn.initialise import rescale
from axonal.learn.logging import read_log
from axonal.learn.loop import fit
from axonal.learn.losses import rate_cross_entropy, spiking
from axonal.learn.recipe import Batch, Recipe
from axonal.models.spiking import SpikingClassifier, SpikingConfig
from axonal.nn import LIF, Neuron
from axonal.report import charts

from ..harness.charts import write

INPUTS, WIDTH, CLASSES, BATCH = 40, 48, 5, 64

LOSS = spiking(rate_cross_entropy())


@dataclass
class Example:
    """A classifier and a batch to examine together, with `LOSS`."""

    model: SpikingClassifier
    batch: Batch

    @property
    def report(self) -> Report:
        """The result of an examination."""
        return examine(self.model, self.batch, LOSS)


def healthy(seed: int = 0, *, depth: int = 3, steps: int = 12, recurrent: bool = False) -> Example:
    """A small network of `depth` populations that learns to tell noisy patterns apart."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        label = torch.arange(BATCH) % CLASSES
        image = torch.randn(CLASSES, INPUTS)[label] + 0.5 * torch.randn(BATCH, INPUTS)
        layers = depth * (f"{WIDTH}r" if recurrent else f"{WIDTH}",)
        options = {"classes": CLASSES, "steps": steps, "coding": "constant", "decay": 0.8}
        model = SpikingClassifier(SpikingConfig(shape=(INPUTS,), layers=layers, **options))
    rescale(model, lambda: model(image))
    return Example(model, {"image": image, "label": label})


def _weights(change: Callable[[Tensor], Tensor]):
    def plant(example: Example) -> None:
        for weight in example.model.parameters():
            weight.data = change(weight.data)

    return plant


def _neurons(change: Callable[[Neuron], Mapping[str, Any]]):
    def plant(example: Example) -> None:
        for module in example.model.modules():
            if isinstance(module, Neuron):
                for name, value in change(module).items():
                    setattr(module, name, value)

    return plant


def _constants(**values: float):
    return _neurons(lambda neuron: {"dynamics": replace(neuron.dynamics, **values)})


def _batch(name: str, change: Callable[[Tensor], Tensor]):
    return lambda example: example.batch.update({name: change(example.batch[name])})


def _silence(example: Example) -> None:
    level = torch.ones(WIDTH).index_fill(0, torch.arange(WIDTH * 2 // 3), 1e3)
    example.model.network[1] = Neuron(Leaky(decay=0.8), values={"threshold": level})


@dataclass(frozen=True)
class Fault:
    """A change of `healthy(**options)` that spoils it, and the check that has to find it."""

    check: str
    plant: Callable[[Example], object]
    options: Mapping[str, Any] = field(default_factory=dict)


NARROW = {"surrogate": "triangle", "slope": 0.005}
STEEP = {"surrogate": "sigmoid", "slope": 25.0}

FAULTS = {
    "weights 100 x too small": Fault("spread", _weights(lambda w: w / 100)),
    "weights too large and positive": Fault("saturated", _weights(lambda w: 10 * w.abs())),
    "surrogate too narrow": Fault("support", _neurons(lambda neuron: NARROW)),
    "surrogate too high, deep": Fault("peak", _neurons(lambda neuron: STEEP), {"depth": 8}),
    "input gain too small": Fault("drive", _constants(gain=0.02)),
    "never forgets": Fault("leak", _constants(decay=0.9995), {"steps": 40}),
    "forgets at once": Fault("memory", _constants(decay=0.01)),
    "most of a layer silent": Fault("silent", _silence),
    "dead outputs": Fault("rate", lambda p: p.model.network.append(LIF(threshold=1e3))),
    "gradient through the reset": Fault(
        "reset", _constants(detach_reset=False), {"recurrent": True}
    ),
    "bytes as input": Fault("input", _batch("image", lambda x: 255 * x)),
    "one class": Fault("classes", _batch("label", torch.zeros_like)),
}


def faulty(name: str, seed: int = 0) -> Example:
    """A network with the fault `name` of `FAULTS`."""
    example = healthy(seed, **FAULTS[name].options)
    FAULTS[name].plant(example)
    return example


def figures(recipes: tuple[str, ...], seed: int = 0) -> dict[str, int]:
    """The number of planted faults that their check finds, and of faults seen in `recipes`."""
    hits = alarms = 0
    for name, fault in FAULTS.items():
        hits += fault.check in {f.check for f in faulty(name, seed).report.faults}
    for name in recipes:
        report = doctor(name)
        assert isinstance(report, Report)
        alarms += len(report.faults)
    return {"doctor_planted": len(FAULTS), "doctor_found": hits, "doctor_false_alarms": alarms}


LAYERS, IMAGES, RATE, EACH = 20, 4000, 2e-3, 20


def deep(seed: int = 0, updates: int = 600) -> dict[str, list[float]]:
    """Train 20 linear layers with neurons between them on MNIST, as they come and once fixed.

    Neither normalisation nor shortcuts; torch's default weights. About a minute on a CPU core.

    Args:
        seed: of weights and order.
        updates: of 64 images each.

    Returns:
        Training accuracy "before" and "after" `fix`, each a mean over 20 updates.

    Raises:
        FileError: MNIST is missing.
    """
    data = {name: part[:IMAGES] for name, part in images("mnist").items()}
    torch.manual_seed(seed)
    layers = (LAYERS - 1) * ("64",)
    options = {"coding": "constant", "steps": 16, "decay": 1.0, "surrogate": "atan", "boost": 1.0}
    before = SpikingClassifier(SpikingConfig(layers=layers, **options))
    after = fix(before, {name: part[:128] for name, part in data.items()}, LOSS, seed).network
    return {
        "before": _curve(before, data, updates, seed),
        "after": _curve(after, data, updates, seed),
    }


def _curve(network: nn.Module, data: Batch, updates: int, seed: int) -> list[float]:
    options = {"steps": updates, "batch": 64, "lr": RATE, "warmup": 0, "seed": seed}
    options |= {"log_every": 1, "precision": "float32", "compile": False}
    options |= {"name": "deep", "build": lambda: network, "data": lambda: data, "loss": LOSS}
    with tempfile.TemporaryDirectory() as folder:
        fit(Recipe(**options), folder)
        right = [row["accuracy"] for row in read_log(Path(folder))]
    return [sum(part) / len(part) for i in range(0, updates, EACH) if (part := right[i : i + EACH])]


def draw(curves: Mapping[str, Sequence[float]], path: Path) -> None:
    """Write the curves of `deep` as an SVG.

    Raises:
        FileError: it can't be written.
    """
    series = [
        charts.Series(
            f"{name} --fix",
            tuple(
                charts.Point(EACH * i, *3 * (100 * y,), "", f"{name}: {y:.1%} at {EACH * i}")
                for i, y in enumerate(values, 1)
            ),
            f"spike-{index}",
            index,
        )
        for index, (name, values) in enumerate(curves.items())
    ]
    chart = charts.scatter(series, "updates", "training accuracy, %", 720, 380, straight=True)
    write(path, chart, series)
