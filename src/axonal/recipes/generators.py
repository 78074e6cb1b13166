"""Training runs of the image generators."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ..convert.methods.sigma_delta import DeltaNetwork, sigma_delta
from ..generate.features import ASSETS
from ..generate.samplers import SAMPLERS
from ..learn import losses
from ..learn.recipe import Batch, Recipe
from ..models.flow import FlowConfig, FlowUNet
from .batches import images

WALKS = 2048  # of the teacher's trajectories that a sigma-delta generator learns from
THRESHOLD = 0.35
MOMENTS = 8  # steps of a sigma-delta generator
FINER, SHORT = 8, 3  # steps of its teacher for each of them, beforehand and along the way


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
        found = images("cifar10")
        both = torch.cat([found["image"], found["image"].flip(3)])
        return {"image": both, "label": found["label"].repeat(2)}

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
    teacher = ASSETS / "mnist"
    recipe = _tuning("mnist-guided", teacher, teacher, seed, penalty=0.1, free=False)
    return replace(recipe, steps=1400)


def mnist_sigma_delta(seed: int, start: Path) -> Recipe:
    """The guided generator, in the folder `start`, tuned further where its own steps lead."""
    recipe = _tuning("mnist-sigma-delta", ASSETS / "mnist", start, seed, penalty=0.06, free=True)
    return replace(recipe, steps=500)


def _with_spiking_core(model: FlowUNet) -> FlowUNet:
    """`model` with neurons in its inner level; a spike of s stands for s times the threshold."""
    spiking = FlowUNet(replace(model.config, core="spiking"))
    spiking.load_state_dict(model.state_dict())
    readers = [conv for block in spiking.middle for conv in (block.conv1, block.conv2)]
    with torch.no_grad():
        for conv in [*readers, *(grow.conv for grow in spiking.grow[-1:])]:
            conv.weight.mul_(spiking.config.threshold)
    return spiking


def _tuning(
    name: str, teacher: Path, start: Path, seed: int, *, penalty: float, free: bool
) -> Recipe:
    """Fine-tune the generator in `start` towards the one in `teacher`, changing little.

    It walks along trajectories of the teacher's or, if `free`, where its own steps lead.
    """
    model = FlowUNet.load(teacher)

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
        steps=1,
        batch=16,
        lr=8e-4,
        warmup=50,
        seed=seed,
        compile=False,  # torch.fx can't trace what torch.compile has wrapped
        checkpoint_every=100,
        log_every=10,
    )


def tolerance(t: float) -> float:
    """How much finer than at first the thresholds are at time t while a generator is tuned.

    Errors of the velocity weigh 1 / (1 - t), so that equal thresholds would teach the last steps
    alone. What is tuned so runs best with thresholds that don't move.
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
    """Every `finer`-th point of the way of `network` from noise to image, classes in turn."""
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
