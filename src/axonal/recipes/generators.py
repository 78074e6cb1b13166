"""Training runs of the image generators."""

from pathlib import Path

import torch
from torch import Tensor, nn

from ..convert.sigma_delta import DeltaNetwork, sigma_delta
from ..generate.samplers import SAMPLERS
from ..learn import losses
from ..learn.loop import Batch, Recipe
from ..models.flow import FlowConfig, FlowUNet
from .batches import images


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


def sigma_delta_tuning(
    teacher: Path,
    *,
    name: str,
    seed: int = 0,
    walks: int = 4096,
    moments: int = 16,
    threshold: float = 0.25,
    penalty: float = 0.05,
    steps: int = 1200,
) -> Recipe:
    """Fine-tune the generator in the folder `teacher` so that little changes between its steps.

    Args:
        name: of the run.
        seed: of the noise that the walks begin with, and of the order.
        walks: how many of the teacher's trajectories to learn from.
        moments: evaluations in each.
        threshold: of each population, in standard deviations of its activations.
        penalty: what the synaptic operations of one dense evaluation cost.
        steps: of the optimiser.
    """

    def data() -> Batch:
        return _trajectories(FlowUNet.load(teacher), walks, moments, seed)

    def unfold(network: nn.Module) -> DeltaNetwork:
        probe = _trajectories(FlowUNet.load(teacher), 20, moments, seed + 1)
        twin = sigma_delta(network, probe["path"][:, 0], probe["label"])
        path = probe["path"].transpose(0, 1)
        spread = twin.spread(lambda: twin(path, twin.start(probe["label"])))
        twin.set_thresholds({name: threshold * value for name, value in spread.items()})
        return twin

    return Recipe(
        name=name,
        build=lambda: FlowUNet.load(teacher),
        data=data,
        loss=losses.distilled_changes(unfold, penalty),
        steps=steps,
        batch=16,
        lr=5e-4,
        warmup=50,
        seed=seed,
        checkpoint_every=100,
        log_every=10,
    )


def _trajectories(network: FlowUNet, count: int, steps: int, seed: int) -> Batch:
    """The inputs and the estimates of `network` on its way from noise, classes in turn."""
    config = network.config
    generator = torch.Generator().manual_seed(seed)
    shape = (config.channels, config.size, config.size)
    noise = torch.randn((count, *shape), generator=generator)
    labels = torch.arange(count) % config.classes
    path, target = (torch.empty(count, steps, *shape) for _ in range(2))
    for rows in torch.arange(count).split(256):
        moment = 0

        def record(x: Tensor, state: None, rows=rows) -> tuple[Tensor, None]:
            nonlocal moment
            path[rows, moment], target[rows, moment] = x, network(x, labels[rows])
            moment += 1
            return target[rows, moment - 1], None

        with torch.no_grad():
            SAMPLERS["euler"](record, noise[rows], None, steps)
    return {"path": path, "target": target, "label": labels}
