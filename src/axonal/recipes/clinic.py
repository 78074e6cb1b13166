"""The doctor at work: on recipes and trained models, on planted faults, and on a deep network."""

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core import files
from ..core.errors import InputError
from ..core.kinds import Leaky
from ..data.images import mnist
from ..energy import svg
from ..learn.doctor import Report, batch_of, examine
from ..learn.initialise import rescale
from ..learn.loop import Batch, Loss
from ..learn.remedies import Treatment, fix
from ..models.base import Model
from ..nn import LIF, Neuron, Recurrent, Sequential
from .training import CARD, TRAININGS

INPUTS, WIDTH, CLASSES, BATCH = 40, 48, 5, 64


def doctor(what: str, mend: bool = False, out: Path | None = None) -> Report | Treatment:
    """Examine a recipe's network at its beginning, or a trained one, with a batch of its data.

    Args:
        what: a recipe, or a folder that `train` made.
        mend: apply what is safe; to a folder's network, whose weights then go to `out`.
        out: a folder.

    Raises:
        InputError: neither a recipe nor such a folder, or a folder is to be mended without `out`.
        FileError: a file is missing, or can't be written.
    """
    folder, name = Path(what), what
    if what not in TRAININGS:
        try:
            name = json.loads((folder / CARD).read_text())["recipe"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{what!r} is no recipe and no folder that train made; recipes are "
                f"{', '.join(TRAININGS)}"
            ) from error
        if mend and out is None:
            raise InputError("say with --out where the mended network is to be written")
    training = TRAININGS.get(name)
    if training is None or training.after:
        raise InputError(f"recipe {name!r} starts from another's result; examine that one")
    recipe = training.recipe(0)
    torch.manual_seed(recipe.seed)
    network = recipe.build()
    if what != name:
        assert isinstance(network, Model)
        network = type(network).load(folder).train()
    batch = batch_of(recipe)
    if not mend:
        return examine(network, batch, recipe.loss, recipe.seed)
    found = fix(network, batch, recipe.loss, recipe.seed)
    if out is not None:
        assert isinstance(network, Model)
        network.save(out)
        if what != name:
            files.write(out / CARD, (folder / CARD).read_bytes())
    return found


@dataclass
class Patient:
    """A network, a batch and a loss to examine together."""

    network: Sequential
    batch: Batch
    loss: Loss


def mean_loss(steps: int) -> Loss:
    """The cross-entropy of a network's mean output, the image being shown in every step."""

    def loss(network, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        y = network(batch["image"].expand(steps, -1, -1))[0].mean(0)
        accuracy = (y.argmax(1) == batch["label"]).float().mean()
        return F.cross_entropy(y, batch["label"]), {"accuracy": accuracy}

    return loss


def healthy(
    seed: int = 0,
    *,
    depth: int = 3,
    steps: int = 12,
    recurrent: bool = False,
    spiking: bool = False,
) -> Patient:
    """A small network that learns to tell noisy patterns apart.

    Args:
        seed: of weights and patterns.
        depth: populations.
        steps: T.
        recurrent: whether each population reads its own spikes.
        spiking: whether outputs are spikes, and not sums.
    """
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(BATCH) % CLASSES
    pattern = torch.randn(CLASSES, INPUTS, generator=generator)
    image = pattern[label] + 0.5 * torch.randn(BATCH, INPUTS, generator=generator)
    layers, size = [], INPUTS
    for _ in range(depth):
        neuron = LIF(0.8)
        link = _linear(WIDTH, WIDTH, generator)
        population = Recurrent(neuron, link) if recurrent else neuron
        layers += [_linear(size, WIDTH, generator), population]
        size = WIDTH
    layers += [_linear(size, CLASSES, generator), *([LIF(0.8)] if spiking else [])]
    network = Sequential(*layers)
    rescale(network, image.expand(steps, -1, -1))
    return Patient(network, {"image": image, "label": label}, mean_loss(steps))


def _linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.normal_(layer.weight, 0, inputs**-0.5, generator=generator)
    return layer


def _neurons(patient: Patient) -> list[Neuron]:
    return [module for module in patient.network.modules() if isinstance(module, Neuron)]


def _weights(factor: float, threshold: float = 1.0):
    def plant(patient: Patient) -> None:
        with torch.no_grad():
            for layer in patient.network:
                if isinstance(layer, nn.Linear):
                    layer.weight.mul_(factor)
        _constants(threshold=threshold)(patient)

    return plant


def _excited(patient: Patient) -> None:
    with torch.no_grad():
        for layer in patient.network:
            if isinstance(layer, nn.Linear):
                layer.weight.abs_().mul_(10)


def _constants(**values):
    def plant(patient: Patient) -> None:
        for neuron in _neurons(patient):
            neuron.dynamics = replace(neuron.dynamics, **values)

    return plant


def _surrogate(name: str, slope: float):
    def plant(patient: Patient) -> None:
        for neuron in _neurons(patient):
            neuron.surrogate, neuron.slope = name, slope

    return plant


def _batch(name: str, change: Callable[[Tensor], Tensor]):
    return lambda patient: patient.batch.update({name: change(patient.batch[name])})


def _deaf(patient: Patient) -> None:
    level = torch.ones(WIDTH)
    level[: round(0.65 * WIDTH)] = 1e3
    patient.network[1] = Neuron(Leaky(decay=0.8), values={"threshold": level})


def _dumb(patient: Patient) -> None:
    patient.network[-1] = LIF(0.8, threshold=1e3)


def _unused(patient: Patient) -> None:
    patient.network.register_parameter("extra", nn.Parameter(torch.ones(3)))


@dataclass(frozen=True)
class Fault:
    """What is planted into `healthy(**about)`, and the check that has to find it."""

    check: str
    plant: Callable[[Patient], object]
    about: Mapping[str, Any] = field(default_factory=dict)


FAULTS = {
    "weights 100 x too small": Fault("seldom", _weights(0.01)),
    "weights 100 x too large": Fault("spread", _weights(100)),
    "surrogate too narrow": Fault("support", _surrogate("triangle", 0.005)),
    "surrogate too steep, deep": Fault("peak", _surrogate("sigmoid", 25), {"depth": 8}),
    "gradient vanishes, deep": Fault("gradient", _weights(0.02, 0.02), {"depth": 8}),
    "input gain too small": Fault("drive", _constants(gain=0.02)),
    "never forgets": Fault("leak", _constants(decay=0.9995), {"steps": 40}),
    "forgets at once": Fault("memory", _constants(decay=0.01)),
    "most of a layer silent": Fault("silent", _deaf),
    "every neuron fires": Fault("saturated", _excited),
    "gradient through the reset": Fault(
        "reset", _constants(detach_reset=False), {"recurrent": True}
    ),
    "dead outputs": Fault("output", _dumb, {"spiking": True}),
    "frozen layer": Fault("frozen", lambda p: p.network[2].requires_grad_(False)),
    "unused parameter": Fault("unused", _unused),
    "one class": Fault("classes", _batch("label", torch.zeros_like)),
    "label out of range": Fault("labels", _batch("label", lambda y: y + 1)),
    "empty input": Fault("empty", _batch("image", torch.zeros_like)),
    "constant input": Fault("constant", _batch("image", lambda x: x[:1].expand_as(x))),
    "bytes as input": Fault("scale", _batch("image", lambda x: 255 * x)),
    "NaN in the input": Fault("finite", _batch("image", lambda x: x.log().sqrt())),
}


def planted(name: str, seed: int = 0) -> Patient:
    """A network with the fault `name` of `FAULTS`."""
    patient = healthy(seed, **FAULTS[name].about)
    FAULTS[name].plant(patient)
    return patient


def figures(recipes: tuple[str, ...], seed: int = 0) -> dict[str, int]:
    """How many planted faults their check finds, and how many faults it finds in `recipes`."""
    found = alarms = 0
    for name, fault in FAULTS.items():
        p = planted(name, seed)
        found += fault.check in {f.check for f in examine(p.network, p.batch, p.loss).faults}
    for name in recipes:
        report = doctor(name)
        assert isinstance(report, Report)
        alarms += len(report.faults)
    return {"doctor_planted": len(FAULTS), "doctor_found": found, "doctor_false_alarms": alarms}


LAYERS, DEEP_STEPS, IMAGES, RATE = 20, 16, 4000, 1e-3


def deep(seed: int = 0, updates: int = 600, out: Path | None = None) -> dict[str, list[float]]:
    """Train 20 linear layers with neurons between them on MNIST, as they come and once mended.

    Neither normalisation nor shortcuts; torch's default weights. Under 3 minutes on two CPU cores.

    Args:
        seed: of weights and order.
        updates: of Adam, 64 images each.
        out: an SVG of the curves.

    Returns:
        Training accuracy "before" and "after" `fix`, each a mean over 20 updates.

    Raises:
        FileError: MNIST is missing, or `out` can't be written.
    """
    train, loss = mnist("train"), mean_loss(DEEP_STEPS)
    data = {
        "image": torch.tensor(train.pixels[:IMAGES]).float().flatten(1) / 255,
        "label": torch.tensor(train.labels[:IMAGES]),
    }
    torch.manual_seed(seed)
    sizes, layers = [784, *(LAYERS - 1) * [64], 10], []
    for index in range(LAYERS):
        layers += [nn.Linear(sizes[index], sizes[index + 1], bias=False), LIF(1.0)]
    network = Sequential(*layers[:-1])
    mended = copy.deepcopy(network)
    # Still pictures drive every step alike: less spread would leave a few spikes to tell them.
    fix(mended, {name: part[:128] for name, part in data.items()}, loss, seed, xi=0.25)
    curves = {
        name: _curve(net, data, loss, updates, seed)
        for name, net in (("before", network), ("after", mended))
    }
    if out is not None:
        _draw(curves, out)
    return curves


def _curve(network: nn.Module, data: Batch, loss: Loss, updates: int, seed: int) -> list[float]:
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(network.parameters(), RATE)
    right = []
    for _ in range(updates):
        pick = torch.randint(IMAGES, (64,), generator=generator)
        value, figures = loss(network, {k: v[pick] for k, v in data.items()}, generator)
        optimiser.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        right.append(float(figures["accuracy"]))
    return [sum(part) / len(part) for i in range(0, updates, 20) if (part := right[i : i + 20])]


def _draw(curves: dict[str, list[float]], out: Path) -> None:
    series = []
    for index, (name, values) in enumerate(curves.items()):
        points = [
            svg.Point(20.0 * i, v, v, v, "", f"{name}: {v:.1%} at {20 * i}")
            for i, v in enumerate(values, 1)
        ]
        series.append(svg.Series(f"{name} --fix", tuple(points), f"spike-{index}", index))
    chart = svg.scatter(series, "updates", "training accuracy", 720, 380, straight=True)
    files.write(out, svg.alone(chart, series))
