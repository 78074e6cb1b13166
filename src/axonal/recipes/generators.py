"""Training runs of the image generators."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ..convert.sigma_delta import DeltaNetwork, sigma_delta
from ..generate.features import ASSETS
from ..generate.samplers import SAMPLERS, tolerance
from ..learn import losses
from ..learn.loop import Batch, Recipe
from ..models.flow import FlowConfig, FlowUNet
from .batches import images

THRESHOLD = 0.35
MOMENTS, FINER = 8, 8  # steps of a sigma-delta generator, and of its teacher for each of them


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
        steps=3500,
        lr=1e-3,
    )


def mnist_sigma_delta(seed: int = 0) -> Recipe:
    """The MNIST generator tuned to change little between its steps."""
    return sigma_delta_tuning(ASSETS / "mnist", name="mnist-sigma-delta", seed=seed)


def _with_spiking_core(model: FlowUNet) -> FlowUNet:
    """`model` with neurons in its inner level; a spike of s stands for s times the threshold."""
    spiking = FlowUNet(replace(model.config, core="spiking"))
    spiking.load_state_dict(model.state_dict())
    readers = [conv for block in spiking.middle for conv in (block.conv1, block.conv2)]
    with torch.no_grad():
        for conv in [*readers, *(grow.conv for grow in spiking.grow[-1:])]:
            conv.weight.mul_(spiking.config.threshold)
    return spiking


def sigma_delta_tuning(
    teacher: Path,
    *,
    name: str,
    seed: int = 0,
    walks: int = 2048,
    moments: int = MOMENTS,
    penalty: float = 0.1,
    steps: int = 1400,
) -> Recipe:
    """Fine-tune the generator in the folder `teacher` so that little changes between its steps.

    Args:
        name: of the run.
        seed: of the noise that the walks begin with, and of the order.
        walks: how many of the teacher's trajectories to learn from.
        moments: evaluations in each; the teacher takes `FINER` times as many.
        penalty: what the synaptic operations of one dense evaluation cost.
        steps: of the optimiser.
    """

    def data() -> Batch:
        return trajectories(FlowUNet.load(teacher), walks, moments, seed)

    def begin(network: nn.Module) -> DeltaNetwork:
        return unfold(network, FlowUNet.load(teacher), moments, seed)

    return Recipe(
        name=name,
        build=lambda: FlowUNet.load(teacher),
        data=data,
        loss=losses.distilled_changes(begin, tolerance, penalty),
        steps=steps,
        batch=16,
        lr=8e-4,
        warmup=50,
        seed=seed,
        checkpoint_every=100,
        log_every=10,
    )


def unfold(network: nn.Module, teacher: FlowUNet, moments: int, seed: int) -> DeltaNetwork:
    """The sigma-delta twin of `network`, with thresholds as it is tuned to.

    They are `THRESHOLD` times the spread of the teacher's activations, so that a run that is
    resumed has those that it began with.
    """
    batch = trajectories(teacher, 20, moments, seed + 1)
    path, label = batch["path"].transpose(0, 1), batch["label"]
    model, twin = (sigma_delta(each, path[0], label) for each in (teacher, network))
    spread = model.spread(lambda: model(path, model.start(label)))
    twin.set_thresholds({name: THRESHOLD * value for name, value in spread.items()})
    return twin


def trajectories(network: FlowUNet, count: int, moments: int, seed: int) -> Batch:
    """Every `FINER`-th point of the way of `network` from noise to image, classes in turn."""
    config = network.config
    shape = (config.channels, config.size, config.size)
    noise = torch.randn((count, *shape), generator=torch.Generator().manual_seed(seed))
    labels, path = torch.arange(count) % config.classes, torch.empty(count, moments + 1, *shape)
    for rows in torch.arange(count).split(256):

        def walk(x: Tensor, t: float, state: None, rows=rows) -> tuple[Tensor, None]:
            if (step := round(t * moments * FINER)) % FINER == 0:
                path[rows, step // FINER] = x
            return network(x, labels[rows]), None

        with torch.no_grad():
            path[rows, moments] = SAMPLERS["euler"](walk, noise[rows], None, moments * FINER)
    return {"path": path, "label": labels}
