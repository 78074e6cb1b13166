"""Training runs of the image generators, and the certificates of their sigma-delta forms."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..convert.calibrate import calibrate
from ..convert.methods.sigma_delta import DeltaNetwork, sigma_delta
from ..core import files
from ..data import ASSETS
from ..generate.pipeline import delta_network, delta_step
from ..generate.pretrained import CERTIFICATES
from ..generate.samplers import SAMPLERS
from ..learn import losses
from ..learn.data import images
from ..learn.recipe import Batch, Recipe
from ..models.base import Model
from ..models.flow import FlowConfig, FlowUNet

WALKS = 2048  # of the teacher's trajectories that a sigma-delta generator learns from
THRESHOLD = 0.35
MOMENTS = 8  # steps of a sigma-delta generator
FINER, SHORT = 8, 3  # steps of its teacher for each of them, beforehand and along the way
SAMPLER = "euler"
# Budgets are errors of the velocity; a default of 0 is the network as it is.
UNTUNED: Mapping[str, Any] = {"steps": 32, "budgets": (0.05, 0.15), "default": 0}
TUNED: Mapping[str, Any] = {"steps": MOMENTS, "budgets": (0.18, 0.2, 0.22, 0.26), "default": 0.2}
CALIBRATION, HELD_OUT = 40, 100  # samples; classes in turn


def mnist(seed: int = 0) -> Recipe:
    """The ANN generator of MNIST: under 40 minutes on two CPU cores."""
    return Recipe(
        name="mnist",
        build=lambda: FlowUNet(FlowConfig()),
        data=lambda: images("mnist"),
        loss=losses.flow_matching(),
        steps=9000,
        lr=2e-3,
        seed=seed,
    )


def cifar10(seed: int = 0) -> Recipe:
    """The ANN generator of CIFAR-10, for a GPU: 5.6 M parameters."""

    def data() -> Batch:
        batch = images("cifar10")
        both = torch.cat([batch["image"], batch["image"].flip(3)])
        return {"image": both, "label": batch["label"].repeat(2)}

    config = FlowConfig(channels=3, size=32, widths=(128, 256), depths=(2, 4))
    return Recipe(
        name="cifar10",
        build=lambda: FlowUNet(config),
        data=data,
        loss=losses.flow_matching(),
        steps=60_000,
        batch=256,
        lr=1e-3,
        warmup=1000,
        ema=0.9999,
        seed=seed,
    )


def mnist_spiking(seed: int = 0) -> Recipe:
    """The MNIST generator with a core of integer-LIF neurons, begun from the ANN's weights."""
    return replace(
        mnist(seed),
        name="mnist-spiking",
        build=lambda: _with_spiking_core(FlowUNet.load(ASSETS / "mnist")),
        steps=2000,
        lr=1e-3,
    )


def mnist_guided(seed: int = 0) -> Recipe:
    """The MNIST generator tuned to change little along the trajectories that it had."""
    return _tuning("mnist-guided", ASSETS / "mnist", seed, steps=1400, penalty=0.1, free=False)


def mnist_sigma_delta(seed: int, start: Path) -> Recipe:
    """The guided generator, in the folder `start`, tuned further where its own steps lead."""
    return _tuning("mnist-sigma-delta", start, seed, steps=500, penalty=0.06, free=True)


def save_model(network: nn.Module, recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Write a generator in float16; there are no figures for its card."""
    assert isinstance(network, Model)
    network.save(folder, torch.float16)
    return {}


def save_convertible(network: nn.Module, recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Write a generator, and certificates of its sigma-delta form as it is, without tuning.

    The output that a budget is about is the velocity, along the generator's own trajectories.

    Returns:
        The errors for its card, by budget.
    """
    save_model(network, recipe, folder)
    model, steps = FlowUNet.load(folder), UNTUNED["steps"]
    batches = [trajectories(model, count, steps, seed, finer=1) for count, seed in _draws(recipe)]
    return _save_certificates(delta_network(model), batches, None, UNTUNED, folder)


def save_sigma_delta(network: nn.Module, recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Write a tuned generator and its certificates.

    The output that a budget is about is the velocity, and the error its distance from the
    velocity of the generator that this one was tuned from, along that one's trajectories.

    Returns:
        The errors for its card, by budget.
    """
    save_model(network, recipe, folder)
    teacher, steps = FlowUNet.load(ASSETS / "mnist"), TUNED["steps"]
    delta = unfold(FlowUNet.load(folder), teacher, recipe.seed)
    batches = [trajectories(teacher, count, steps, seed) for count, seed in _draws(recipe)]
    targets = [torch.diff(batch["path"].transpose(0, 1), dim=0) * steps for batch in batches]
    return _save_certificates(delta, batches, (targets[0], targets[1]), TUNED, folder)


def _draws(recipe: Recipe) -> list[tuple[int, int]]:
    """The numbers of samples that calibrate and that check, and the seeds of their noise."""
    return [(CALIBRATION, recipe.seed + 2), (HELD_OUT, recipe.seed + 3)]


def _save_certificates(
    delta: DeltaNetwork,
    batches: Sequence[Batch],
    target: Any,
    settings: Mapping[str, Any],
    folder: Path,
) -> dict[str, Any]:
    paths = [(batch["path"].transpose(0, 1), batch["label"]) for batch in batches]
    run, check = (partial(velocity, path=path, label=label) for path, label in paths)
    certificates = [calibrate(delta, run, check, b, target) for b in settings["budgets"]]
    table = {"sampler": SAMPLER, "steps": settings["steps"], "default": settings["default"]}
    table |= {"certificates": [certificate.to_dict() for certificate in certificates]}
    files.write(folder / CERTIFICATES, json.dumps(table, indent=1) + "\n")
    return {"error": {c.budget: c.output_error for c in certificates}}


def velocity(delta: DeltaNetwork, path: Tensor, label: Tensor) -> Tensor:
    """The velocity [T, B, ...] of a sigma-delta generator at points [T + 1, B, ...]."""
    network, state, steps = delta_step(delta), delta.start(label), len(path) - 1
    velocities = []
    for i in range(steps):
        estimate, state = network(path[i], i / steps, state)
        velocities.append((estimate - path[i]) / (1 - i / steps))
    return torch.stack(velocities)


def _with_spiking_core(model: FlowUNet) -> FlowUNet:
    """`model` with neurons in its inner level; a spike of s stands for s times the threshold."""
    spiking = FlowUNet(replace(model.config, core="spiking"))
    spiking.load_state_dict(model.state_dict())
    readers = [conv for block in spiking.middle for conv in (block.conv1, block.conv2)]
    with torch.no_grad():
        for conv in [*readers, *(grow.conv for grow in spiking.grow[-1:])]:
            conv.weight.mul_(spiking.config.threshold)
    return spiking


def _tuning(name: str, start: Path, seed: int, *, steps: int, penalty: float, free: bool) -> Recipe:
    """Fine-tune the generator in `start` towards the ANN generator of MNIST, changing little.

    It walks along trajectories of the teacher's or, if `free`, where its own steps lead.
    """
    model = FlowUNet.load(ASSETS / "mnist")

    def next_point(x: Tensor, t: float, label: Tensor) -> Tensor:
        finer = MOMENTS * SHORT
        model.to(x.device)
        with torch.no_grad():
            for i in range(SHORT):
                x = x + (model(x, label) - x) / (1 - t - i / finer) / finer
        return x

    def data() -> Batch:
        walks = trajectories(model, WALKS, MOMENTS, seed, 1 if free else FINER)
        return walks | {"path": walks["path"][:, :1]} if free else walks

    return Recipe(
        name=name,
        build=lambda: FlowUNet.load(start),
        data=data,
        loss=losses.distilled_changes(
            lambda network: unfold(network, model, seed),
            tolerance,
            penalty,
            MOMENTS,
            next_point if free else None,
        ),
        steps=steps,
        batch=16,
        lr=8e-4,
        warmup=50,
        seed=seed,
        compile=False,  # torch.fx can't trace what torch.compile has wrapped
        checkpoint_every=100,
        log_every=10,
    )


def tolerance(t: float) -> float:
    """The factor of the thresholds at time t while a generator is tuned.

    Errors of the velocity weigh 1 / (1 - t), so that equal thresholds would teach the last steps
    alone. A network that is tuned so runs best with thresholds that don't change.
    """
    return (1 - t) ** 0.5


def unfold(network: nn.Module, teacher: FlowUNet, seed: int) -> DeltaNetwork:
    """The sigma-delta twin of `network`, with thresholds as it is tuned to.

    They are `THRESHOLD` times the spread of the teacher's activations, so that a run that is
    resumed has those that it began with.
    """
    batch = trajectories(teacher.cpu(), 20, MOMENTS, seed + 1)
    device = next(network.parameters()).device
    path, label = batch["path"].transpose(0, 1).to(device), batch["label"].to(device)
    model, twin = (sigma_delta(each, path[0], label) for each in (teacher.to(device), network))
    spread = model.spread(lambda: model(path, model.start(label)))
    twin.set_thresholds({name: THRESHOLD * value for name, value in spread.items()})
    return twin


def trajectories(
    network: FlowUNet, count: int, moments: int, seed: int, finer: int = FINER
) -> Batch:
    """Every `finer`-th point on the way of `network` from noise to image, classes in turn.

    Returns:
        {"path" [count, moments + 1, ...], "label" [count]}.
    """
    config = network.config
    shape = (config.channels, config.size, config.size)
    noise = torch.randn((count, *shape), generator=torch.Generator().manual_seed(seed))
    labels, path = torch.arange(count) % config.classes, torch.empty(count, moments + 1, *shape)
    for rows in torch.arange(count).split(256):

        def walk(x: Tensor, t: float, state: None, rows=rows) -> tuple[Tensor, None]:
            if (step := round(t * moments * finer)) % finer == 0:
                path[rows, step // finer] = x
            return network(x, labels[rows]), None

        with torch.no_grad():
            path[rows, moments] = SAMPLERS["euler"](walk, noise[rows], None, moments * finer)
    return {"path": path, "label": labels}
