"""Training runs of the image generators."""

from ..learn import losses
from ..learn.loop import Recipe
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
